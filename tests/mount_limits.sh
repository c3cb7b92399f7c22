#!/bin/bash
# A daemon that may have 256 descriptors, and a tree of 3,000 files: descriptors are a cache,
# and what they cannot hold fails alone, with ENFILE.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 270 root user

cat >"$work/limits.py" <<'END'
import errno, os, random, resource, sys, time, traceback

mount, backing = sys.argv[1:3]
FOLDERS, FILES = 30, 100
names = ["folder-%d/file-%d" % (f, n) for f in range(FOLDERS) for n in range(FILES)]
state = {}	# what each file holds, by name

def content(name, generation):
	chance = random.Random("%s %d" % (name, generation))
	return chance.randbytes(chance.choice((0, 1, 100, 4096, 9000)))

def at(name):
	return os.path.join(mount, name)

def get(path):
	with open(path, "rb") as file:
		return file.read()

def check_all(place, some=None):
	for name in some or sorted(state):
		if name in state:
			found = get(os.path.join(place, name))
			assert found == state[name], "%s: %d bytes, expected %d others" % (
				name, len(found), len(state[name]))

def listed():
	return sorted(os.path.relpath(os.path.join(folder, file), mount)
		for folder, _, files in os.walk(mount) for file in files)

def some_names():
	return [name for name in names if name in state][:400]

def children(count, work):
	pids = []
	for i in range(count):
		pid = os.fork()
		if pid == 0:
			try:
				work(i)
			except BaseException as error:
				print("process %d: %r" % (i, error), file=sys.stderr)
				os._exit(1)
			os._exit(0)
		pids.append(pid)
	assert all([os.waitpid(pid, 0)[1] == 0 for pid in pids])

def is_refused(call, *arguments):
	"""Does the call fail with ENFILE? It may not fail with anything else."""
	try:
		call(*arguments)
		return False
	except OSError as error:
		assert error.errno == errno.ENFILE, error
		return True

# Each step works on files of its own, so that one that fails says nothing of the others

def walk():
	"walked, stat'ed and read"
	assert listed() == sorted(state)
	assert all(os.stat(at(n)).st_size == len(state[n]) for n in names)
	check_all(mount)

def write():
	"ten writers, each its own files, then ten readers of all"
	def work(i):
		for name in names[i::10]:
			with open(at(name), "r+b") as file:
				data = content(name, 1)
				file.truncate(len(data))
				file.write(data)
				file.flush()
				assert os.pread(file.fileno(), 10000, 0) == data, name
	for name in names:
		state[name] = content(name, 1)
	children(10, work)
	children(10, lambda i: check_all(mount, names[i::3]))
	check_all(backing)

def unlink():
	"150 unlinked while open, and the others used meanwhile"
	fds = {}
	for name in names[:150]:
		fds[name] = os.open(at(name), os.O_RDWR)
		os.unlink(at(name))
		data = state.pop(name)
		assert os.fstat(fds[name]).st_nlink == 0, name
		assert os.pread(fds[name], 10000, 0) == data, name
	check_all(mount)
	for name in fds:
		# New files in the old places
		with open(at(name), "xb") as file:
			file.write(content(name, 2))
		state[name] = content(name, 2)
	for name, fd in fds.items():
		data = content(name, 1)
		os.pwrite(fd, b"still here", 9500)
		assert os.pread(fd, 20000, 0) == data + bytes(9500 - len(data)) + b"still here", name
		os.fchmod(fd, 0o400)
		assert os.fstat(fd).st_mode & 0o777 == 0o400
		os.fsync(fd)
	children(10, lambda i: check_all(mount, names[i::3]))
	for fd in fds.values():
		os.close(fd)
	check_all(mount)

def open_many():
	"more open at once than there are descriptors: ENFILE, for these alone"
	fds = {}
	some = names[500:1100]
	for name in some:
		def work():
			fds[name] = os.open(at(name), os.O_RDWR)
		is_refused(work)
	print("%d of 600 opens refused" % (600 - len(fds)))
	for name, fd in fds.items():
		assert os.pread(fd, 10000, 0) == state[name], name
	for name, fd in fds.items():
		state[name] = b"changed" + state[name][7:]
		os.pwrite(fd, b"changed", 0)
	for name, fd in fds.items():
		assert os.pread(fd, 10000, 0) == state[name], name
		os.close(fd)
	assert len(fds) >= 100
	check_all(mount)

def unlink_many():
	"more unlinked while open than there are descriptors: the same, and none of them is lost"
	fds, held, refused = {}, {}, 0
	for name in names[1100:1700]:
		def work():
			fds[name] = os.open(at(name), os.O_RDWR)
		if is_refused(work):
			refused += 1
		elif is_refused(os.unlink, at(name)):
			refused += 1
			os.close(fds.pop(name))
		else:
			held[name] = state.pop(name)
	print("%d of 600 refused" % refused)
	# What was let go is there to the end, without the help of the kernel's cache
	for name, fd in fds.items():
		assert os.fstat(fd).st_nlink == 0, name
		os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
		found = os.pread(fd, 10000, 0)
		assert found == held[name], "%s: %d bytes, expected %d others" % (
			name, len(found), len(held[name]))
	for fd in fds.values():
		os.close(fd)
	assert len(fds) >= 100
	check_all(mount)

def unlink_links():
	"the first of two links gone, of more files than there are descriptors, 50 of them open"
	some = names[1700:2300]
	fds = {}
	for name in some:
		os.link(at(name), at(name) + ".link")
		state[name + ".link"] = state[name]
		assert os.stat(at(name) + ".link").st_nlink == 2
	# The kernel looks the first names up again, and they become the ones last known
	time.sleep(1.1)
	for name in some:
		os.stat(at(name))
		if name in some[-50:]:
			fds[name] = os.open(at(name), os.O_RDWR)
		os.unlink(at(name))
		del state[name]
	# Nobody looks up the names that are left
	check_all(mount, [name for name in names if name in state])
	for name, fd in fds.items():
		data = state[name + ".link"] = b"changed" + state[name + ".link"][7:]
		os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
		assert os.pwrite(fd, b"changed", 0) == 7, name
		assert os.pread(fd, 10000, 0) == data, name
		assert os.fstat(fd).st_nlink == 1, name
		os.close(fd)
	check_all(mount)
	assert listed() == sorted(state)

def rename():
	"renamed and moved, while open"
	fds = {}
	some = names[2300:2400]
	for name in some:
		fds[name] = os.open(at(name), os.O_RDWR)
	os.mkdir(at("moved"))
	for name in some:
		state["moved/" + os.path.basename(name)] = state.pop(name)
		os.rename(at(name), at("moved/" + os.path.basename(name)))
	os.rename(at("moved"), at("again"))
	for name in some:
		moved = "moved/" + os.path.basename(name)
		state["again/" + os.path.basename(name)] = state.pop(moved)
	check_all(mount)
	for name, fd in fds.items():
		assert os.pread(fd, 10000, 0) == state["again/" + os.path.basename(name)], name
		os.close(fd)

def open_folders():
	"more folders open than there are descriptors: ENFILE for these alone, and files are read"
	fds = []
	def work():
		fds.append(os.open(at("folder-%d" % (len(fds) % FOLDERS)), os.O_RDONLY | os.O_DIRECTORY))
	refused = sum(is_refused(work) for _ in range(600))
	print("%d of 600 folders refused" % refused)
	# A file may be refused now, but must not wait
	for name in some_names():
		is_refused(get, at(name))
	for fd in fds:
		os.close(fd)
	check_all(mount)

def read_only_files():
	"more files made without the right to open them again, and others that lose it, than descriptors"
	for n in range(400):
		path = at("read-only-%d" % n)
		with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "wb") as file:
			file.write(b"made without w")
		state["read-only-%d" % n] = b"made without w"
	for name in some_names():
		os.chmod(at(name), 0o444)
	check_all(mount)
	# Whoever has one open goes on writing
	fd = os.open(at("kept-open"), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
	os.fchmod(fd, 0)
	check_all(mount, some_names()[:10])
	assert os.pwrite(fd, b"written", 0) == 7 and os.pread(fd, 10, 0) == b"written"
	os.close(fd)
	os.chmod(at("kept-open"), 0o600)
	state["kept-open"] = b"written"
	check_all(mount)

def replace():
	"other files moved over 50 open ones in the backing folder: the old file, or ESTALE, never the other"
	some, others = names[2400:2700], names[2700:3000]
	victims = some[::6]
	states = {name: os.stat(at(name)) for name in some}
	fds = {name: os.open(at(name), os.O_RDWR) for name in some[::2]}
	stale = 0
	for i, name in enumerate(victims):
		os.chmod(os.path.join(backing, others[i]), 0o604)
		os.rename(os.path.join(backing, others[i]), os.path.join(backing, name))
	# What the kernel knows is forgotten, and what the daemon has of them makes way for others
	time.sleep(1.1)
	check_all(mount, others[50:])
	for fd in fds.values():
		os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
	def old_or_stale(call, *arguments):
		nonlocal stale
		try:
			return call(*arguments)
		except OSError as error:
			assert error.errno == errno.ESTALE, error
			stale += 1
	for name, fd in fds.items():
		was, st = states[name], old_or_stale(os.fstat, fd)
		assert st is None or (st.st_ino, st.st_size, st.st_mode) == (was.st_ino, was.st_size, was.st_mode), name
		found = old_or_stale(os.pread, fd, 10000, 0)
		assert found is None or found == state[name], "%s: %d bytes of another file" % (name, len(found))
		old_or_stale(os.fchmod, fd, 0o640)
		st = old_or_stale(os.fstat, fd)
		assert st is None or st.st_mode & 0o777 == 0o640, name
		old_or_stale(os.pwrite, fd, b"to the old", 5)
		old_or_stale(os.ftruncate, fd, 7)
		old_or_stale(os.fsync, fd)
		if name not in victims:
			state[name] = state[name][:5].ljust(5, b"\0") + b"to"
	print("%d of %d calls: ESTALE" % (stale, 7 * len(fds)))
	for i, name in enumerate(victims):
		path = os.path.join(backing, name)
		state[name] = state.pop(others[i])
		assert get(path) == state[name], "%s: the other file was written to" % name
		assert os.stat(path).st_mode & 0o777 == 0o604, "%s: the other file's mode was changed" % name
		# By its name it is the other file
		assert get(at(name)) == state[name] and os.stat(at(name)).st_mode & 0o777 == 0o604, name
	for fd in fds.values():
		os.close(fd)
	check_all(mount)
	check_all(backing)

def health():
	"and after all that it is well"
	assert listed() == sorted(state)
	check_all(mount)
	def work(i):
		for n in range(50):
			path = at("new-%d-%d" % (i, n))
			with open(path, "xb") as file:
				file.write(b"new")
			os.rename(path, path + ".renamed")
			assert get(path + ".renamed") == b"new"
			os.unlink(path + ".renamed")
	children(10, work)
	check_all(mount)
	check_all(backing)

for name in names:
	state[name] = content(name, 0)
if sys.argv[3:] == ["make"]:
	for name in names:
		os.makedirs(os.path.join(backing, os.path.dirname(name)), exist_ok=True)
		with open(os.path.join(backing, name), "wb") as file:
			file.write(state[name])
	sys.exit()

resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 1000, "this test needs 1,000 descriptors itself"
wrong = 0
for step in (walk, write, unlink, open_many, unlink_many, unlink_links, open_folders, rename, replace,
	read_only_files, health):
	try:
		step()
	except Exception:
		print("FAIL: %s:" % step.__doc__)
		traceback.print_exc(file=sys.stdout)
		wrong = 1
		# What it held
		os.closerange(3, 2000)
sys.exit(wrong)
END

python3 "$work/limits.py" "$mnt" "$backing" make
program=(prlimit --nofile=256:256 "${program[@]}")
mount_start flush=10ms
python3 -u "$work/limits.py" "$mnt" "$backing" || fail "see above"
! grep -q 'Too many open files' "$log" || fail "something went wrong for want of descriptors: $(head "$log")"
! daemon_is_gone || fail "the daemon has died"
mount_stop

# One file that takes long to be warmed, and more that wait for it than there are descriptors
truncate -s 16G "$backing/long"
mount_start prewarm=open
head -c 1 "$mnt/long" >/dev/null
for ((i = 0; i < 4; i++)); do
	cat "$mnt/folder-$i"/* >/dev/null || fail "files that wait to be warmed"
done
mount_stop

# What is removed while it is open is let go with its last close: its room on the disk is free again,
# whichever of the kernel's last two words about it, release and forget, comes first
cat >"$work/gone.py" <<'END'
import os, sys
def work(i):
	for n in range(400):
		path = os.path.join(sys.argv[1], "gone-%d-%d" % (i, n))
		fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
		os.write(fd, b"x" * 100)
		os.unlink(path)
		os.close(fd)
pids = []
for i in range(8):
	pids.append(os.fork())
	if pids[-1] == 0:
		work(i)
		os._exit(0)
sys.exit(any([os.waitpid(pid, 0)[1] for pid in pids]))
END
all_let_go() {
	! find "/proc/$daemon/fd" -lname '*(deleted)' 2>/dev/null | grep -q .
}
for policy in manual 10ms; do
	mount_start "flush=$policy"
	python3 "$work/gone.py" "$mnt"
	wait_until 20 all_let_go ||
		fail "$policy: removed files that are still open: $(find "/proc/$daemon/fd" -lname '*(deleted)' | wc -l)"
	mount_stop
done
