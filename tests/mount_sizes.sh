#!/bin/bash
# Files of awkward sizes: each operation is done to a file of the mount and to one of a plain
# folder, and all that can be seen of the two, and of the backing file, has to be the same.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 270 root user

cat >"$work/sizes.py" <<'END'
import ctypes, errno, hashlib, os, random, sys

libc = ctypes.CDLL(None, use_errno=True)

def fail(text):
	sys.exit("mount_sizes: " + text)

def content(seed, size):
	return random.Random(seed).randbytes(size)

def attempt(call, *arguments):
	"""What a call returns, or the name of its errno"""
	try:
		return call(*arguments)
	except OSError as error:
		return errno.errorcode[error.errno]

def islands(fd, size):
	"""The data and holes as SEEK_DATA and SEEK_HOLE tell them"""
	found, at = [], 0
	while at < size:
		data = attempt(os.lseek, fd, at, os.SEEK_DATA)
		if data == "ENXIO":
			break
		hole = os.lseek(fd, data, os.SEEK_HOLE)
		found.append((data, hole))
		at = hole
	found.append(attempt(os.lseek, fd, size, os.SEEK_DATA))
	found.append(attempt(os.lseek, fd, size, os.SEEK_HOLE))
	found.append(attempt(os.lseek, fd, max(size - 1, 0), os.SEEK_HOLE))
	return found

def view(path):
	"""All that is to be seen of a file, read whole"""
	fd = os.open(path, os.O_RDONLY)
	try:
		st = os.fstat(fd)
		digest = hashlib.sha256()
		while block := os.read(fd, 1 << 20):
			digest.update(block)
		return st.st_size, digest.hexdigest()
	finally:
		os.close(fd)

def apply(path, operation):
	"""Does one operation to a file; what it returned"""
	name, *arguments = operation
	flags = os.O_RDWR | (os.O_APPEND if name == "append" else 0)
	fd = os.open(path, flags)
	try:
		if name in ("write", "append"):
			at, seed, size = arguments
			data = content(seed, size)
			if name == "append":
				return os.write(fd, data)
			return os.pwrite(fd, data, at)
		if name == "truncate":
			return os.ftruncate(fd, arguments[0])
		if name == "read":
			at, size = arguments
			return os.pread(fd, size, at)
		if name == "fsync":
			return os.fsync(fd)
		if name == "islands":
			return islands(fd, os.fstat(fd).st_size)
		raise ValueError(name)
	finally:
		os.close(fd)

class Pair:
	"""A file of the mount, and the plain one"""
	def __init__(self, mount, backing, plain, name):
		self.places = [os.path.join(p, name) for p in (mount, plain)]
		self.backing = os.path.join(backing, name)
		self.history = []

	def do(self, *operation):
		self.history.append(operation)
		results = [attempt(apply, p, operation) for p in self.places]
		if results[0] != results[1]:
			shown = [r if not isinstance(r, bytes) else (len(r), hashlib.sha256(r).hexdigest())
				for r in results]
			fail("%s: %r returned %r, without a mount %r; before it: %r"
				% (self.backing, operation, *shown, self.history[-8:-1]))

	def compare(self):
		views = [view(p) for p in (*self.places, self.backing)]
		if not views[0] == views[1] == views[2]:
			fail("%s: mount, plain, backing: %r after %r"
				% (self.backing, views, self.history[-8:]))

def sizes(mount, backing, plain):
	for size in (0, 1, 4095, 4096, 4097, 131071, 131072, 131073):
		for kind in ("made", "found"):
			pair = Pair(mount, backing, plain, "%s.%d" % (kind, size))
			if kind == "found":
				# There before the mount has seen it
				pair.places[0] = pair.backing
			for place in pair.places:
				with open(place, "wb") as file:
					file.write(content(size, size))
			pair.places[0] = os.path.join(mount, os.path.basename(pair.backing))
			pair.compare()
			reads = [(0, 1), (0, size), (0, size + 1), (size, 10), (size + 1, 10), (max(size - 1, 0), 2),
				(1, 4096), (4095, 2), (4096, 4096), (4093, 8191), (131071, 3), (size + 10000, 5)]
			for at, length in reads:
				pair.do("read", at, length)
			pair.do("append", 0, 5, 1)
			pair.compare()
			pair.do("truncate", max(size - 1, 0))
			pair.compare()
			pair.do("truncate", size + 4096)
			pair.do("read", max(size - 3, 0), 5000)
			pair.compare()
			pair.do("truncate", 0)
			pair.compare()
			pair.do("write", size, 6, 4097)
			pair.compare()
			pair.do("truncate", size)
			pair.do("write", max(size - 7, 0), 7, 13)
			pair.compare()
			# What was cut off is zeros when the file grows again, within one page too
			pair.do("truncate", 3)
			pair.do("truncate", size + 3)
			pair.compare()
			pair.do("truncate", -1)
			pair.do("truncate", 1 << 62)
			pair.compare()

def sparse(mount, backing, plain):
	size = 8 << 30
	pair = Pair(mount, backing, plain, "sparse")
	for place in pair.places:
		open(place, "wb").close()
	pair.do("truncate", size)
	pair.do("islands")
	marks = [0, 65536 + 100, (1 << 30) - 3, (4 << 30) - 2, (5 << 30) + 4096, size - 4099]
	for mark in marks:
		pair.do("write", mark, mark, 70001 if mark + 70001 < size else size - mark)
		pair.do("islands")
	pair.do("fsync")
	pair.do("islands")
	for mark in marks:
		for at in (mark - 5000, mark - 1, mark, mark + 65530, mark + 70000):
			if at >= 0:
				pair.do("read", at, 9000)
	pair.do("read", 3 << 30, 300000)
	pair.do("read", size - 1, 5)
	pair.do("append", 0, 9, 1000)
	pair.do("truncate", (4 << 30) + 1)
	pair.do("islands")
	pair.do("read", (4 << 30) - 10, 100)
	pair.do("truncate", size)
	pair.do("read", (4 << 30) - 10, 100)
	pair.do("write", size - 10, 10, 20)
	pair.do("fsync")
	pair.do("islands")
	st = [os.stat(p) for p in (*pair.places, pair.backing)]
	if len({s.st_size for s in st}) != 1 or st[0].st_size != size + 10:
		fail("sizes of the sparse file: %r" % [s.st_size for s in st])
	if max(s.st_blocks for s in st) * 512 > 16 << 20:
		fail("the sparse file occupies %r blocks" % [s.st_blocks for s in st])
	if st[0].st_blocks != st[2].st_blocks:
		fail("blocks of the sparse file: %d on the mount, %d in the backing folder"
			% (st[0].st_blocks, st[2].st_blocks))
	maps = []
	for path in (*pair.places, pair.backing):
		fd = os.open(path, os.O_RDONLY)
		maps.append(islands(fd, st[0].st_size))
		os.close(fd)
	if not maps[0] == maps[1] == maps[2]:
		fail("data and holes on the mount, plain, in the backing folder: %r" % maps)

def random_operations(mount, backing, plain, seed):
	chance = random.Random(seed)
	pair = Pair(mount, backing, plain, "random.%d" % seed)
	for place in pair.places:
		open(place, "wb").close()
	limit = chance.choice((9000, 300000, 3000000))
	for step in range(400):
		at = chance.choice((chance.randrange(limit), chance.randrange(limit) & ~4095))
		length = chance.choice((1, chance.randrange(1, 5000), 4096, chance.randrange(1, 140000)))
		name = chance.choice(("write", "write", "append", "read", "read", "read", "truncate", "fsync"))
		if name == "write":
			pair.do(name, at, step, length)
		elif name == "append":
			if os.stat(pair.places[1]).st_size < limit:
				pair.do(name, 0, step, length)
		elif name == "read":
			pair.do(name, at, length)
		elif name == "truncate":
			pair.do(name, at)
		elif chance.randrange(4) == 0:
			pair.do(name)
		if step % 40 == 0:
			pair.compare()
	pair.compare()

places = sys.argv[1:4]
sizes(*places)
sparse(*places)
for seed in range(6):
	random_operations(*places, seed)
END

mount_start flush=10ms
python3 "$work/sizes.py" "$mnt" "$backing" "$plain" || fail "with flush=10ms"
cp -a --sparse=always "$mnt/sparse" "$plain/sparse.copy"
cmp <(head -c 1G "$mnt/sparse") <(head -c 1G "$plain/sparse.copy") || fail "cp of the sparse file"
mount_stop
for file in "$plain"/{made,found,random}.*; do
	cmp "$file" "$backing/${file##*/}" || fail "after the unmount"
done
rm -r "${plain:?}"/* "${backing:?}"/*

mount_start flush=manual
python3 "$work/sizes.py" "$mnt" "$backing" "$plain" || fail "with flush=manual"
mount_stop
for file in "$plain"/{made,found,random}.*; do
	cmp "$file" "$backing/${file##*/}" || fail "after the unmount"
done
