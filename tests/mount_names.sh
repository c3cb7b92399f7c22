#!/bin/bash
# The calls that make, name, link, change and remove: each sequence is done in a plain folder
# and then on the mount, and has to show the same; what it must show whatever the file system,
# it asserts itself.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 360 root user

cat >"$work/common.py" <<'END'
import ctypes, errno, fcntl, mmap, os, random, signal, socket, stat, struct, sys, time, traceback

libc = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW = -100, 0x100, 0x400
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2

def system(result):
	if result < 0:
		number = ctypes.get_errno()
		raise OSError(number, os.strerror(number))
	return result

def rename_with(old, new, flags):
	system(libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))

def link_following(old, new):
	"""Python's own calls link(2), which does not follow"""
	system(libc.linkat(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), AT_SYMLINK_FOLLOW))

def fallocate(fd, mode, offset, length):
	system(libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)))

def set_times(path, atime, mtime, flags=0):
	"""Each time a pair of seconds and nanoseconds"""
	times = (ctypes.c_long * 4)(*atime, *mtime)
	system(libc.utimensat(AT_FDCWD, os.fsencode(path), times, flags))

def attempt(call, *arguments, **named):
	"""What a call returns, or the name of its errno"""
	try:
		return call(*arguments, **named)
	except OSError as error:
		return errno.errorcode[error.errno]

def put(path, content, mode=0o644, flags=0):
	fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, mode)
	assert os.write(fd, content) == len(content)
	os.close(fd)

def get(path):
	with open(path, "rb") as file:
		return file.read()

def number(path):
	return os.lstat(path).st_ino

def children(count, work):
	"""Runs work(i) in `count` processes at once; each has to return True"""
	pids = []
	for i in range(count):
		pid = os.fork()
		if pid == 0:
			status = 1
			try:
				status = 0 if work(i) else 1
			except BaseException:
				traceback.print_exc()
			finally:
				os._exit(status)
		pids.append(pid)
	return all([os.waitpid(pid, 0)[1] == 0 for pid in pids])

def run(checks, plain, mount):
	"""Each check in a folder of its own, plain and then on the mount; exits with what went wrong"""
	wrong = 0
	for check in checks:
		name, seen = check.__name__, []
		for place in (plain, mount):
			folder = os.path.join(place, name)
			os.mkdir(folder)
			os.chdir(folder)
			try:
				seen.append(check(folder))
			except Exception:
				print("FAIL: %s, %s:" % (name, "plain" if place == plain else "mount"))
				traceback.print_exc(file=sys.stdout)
				seen.append(None)
				wrong += 1
			os.chdir("/")
		if None not in seen and seen[0] != seen[1]:
			for at, (a, b) in enumerate(zip(*seen)):
				if a != b:
					print("FAIL: %s: step %d: plain %r, mount %r" % (name, at, a, b))
			wrong += 1
	sys.exit(1 if wrong else 0)
END

cat >"$work/names.py" <<'END'
from common import *

def rename_flags(d):
	put("a", b"A")
	put("b", b"B")
	os.mkdir("f")
	put("f/inner", b"I")
	a, b = number("a"), number("b")
	out = [attempt(rename_with, "a", "b", NOREPLACE), attempt(rename_with, "a", "f", NOREPLACE)]
	assert out == ["EEXIST", "EEXIST"] and get("a") == b"A" and get("b") == b"B", out
	rename_with("a", "c", NOREPLACE)
	assert not os.path.exists("a") and get("c") == b"A" and number("c") == a
	rename_with("c", "b", EXCHANGE)
	assert get("c") == b"B" and get("b") == b"A" and (number("b"), number("c")) == (a, b)
	rename_with("b", "f", EXCHANGE)
	assert get("f") == b"A" and get("b/inner") == b"I" and sorted(os.listdir(".")) == ["b", "c", "f"]
	rename_with("c", "b/inner", EXCHANGE)
	assert get("c") == b"I" and get("b/inner") == b"B"
	out += [attempt(rename_with, "c", "missing", EXCHANGE), attempt(rename_with, "missing", "c", EXCHANGE),
		attempt(rename_with, "c", "b", NOREPLACE | EXCHANGE), attempt(rename_with, "c", "b", 1 << 20),
		attempt(rename_with, "missing", "x", NOREPLACE), attempt(rename_with, "b", "b/inner", EXCHANGE)]
	return out + sorted(os.listdir("."))

def rename_plain(d):
	put("old", b"old")
	put("new", b"new")
	fd = os.open("old", os.O_RDWR)
	reader = os.open("old", os.O_RDONLY)
	os.rename("new", "old")
	assert get("old") == b"new" and os.pread(fd, 9, 0) == b"old" and os.pread(reader, 9, 0) == b"old"
	assert os.fstat(fd).st_nlink == 0 and not os.path.exists("new")
	os.pwrite(fd, b"OLDER", 0)
	assert os.pread(reader, 9, 0) == b"OLDER" and get("old") == b"new"
	os.close(fd)
	assert os.pread(reader, 9, 0) == b"OLDER"
	os.close(reader)
	os.makedirs("f/g")
	os.mkdir("empty")
	put("f/g/deep", b"deep")
	fd = os.open("f/g/deep", os.O_RDWR)
	out = [attempt(os.rename, *pair) for pair in (("f", "f/g/h"), ("f", "old"), ("old", "f"), ("empty", "f"),
		("missing", "x"), ("old", "missing/x"), ("old/x", "y"), ("old", "old"), ("f", "."), ("f/..", "z"))]
	os.rename("f", "empty")
	os.rename("empty", "moved")
	assert os.pread(fd, 9, 0) == b"deep" and os.write(fd, b"DEEP") == 4 and get("moved/g/deep") == b"DEEP"
	os.rename("moved/g/deep", "deep")
	assert os.fstat(fd).st_nlink == 1 and os.pread(fd, 9, 0) == b"DEEP" and get("deep") == b"DEEP"
	os.close(fd)
	# Two names of one file: nothing happens
	os.link("deep", "deep2")
	os.rename("deep", "deep2")
	assert os.path.exists("deep") and os.stat("deep").st_nlink == 2
	return out + sorted(os.listdir("."))

def links(d):
	put("a", b"content")
	os.mkdir("f")
	os.link("a", "b")
	os.link("b", "f/c")
	sts = [os.stat(p) for p in ("a", "b", "f/c")]
	assert len({s.st_ino for s in sts}) == 1 and {s.st_nlink for s in sts} == {3}, sts
	put("b", b"CON")
	assert get("a") == get("f/c") == b"CONtent"
	os.chmod("f/c", 0o600)
	os.truncate("a", 4)
	assert get("b") == b"CONt" and stat.S_IMODE(os.stat("b").st_mode) == 0o600
	os.unlink("a")
	assert os.stat("b").st_nlink == 2
	os.rename("b", "d")
	os.unlink("d")
	assert os.stat("f/c").st_nlink == 1 and get("f/c") == b"CONt"
	put("a", b"another")
	assert get("a") == b"another" and get("f/c") == b"CONt" and number("a") != number("f/c")
	os.symlink("nowhere", "s")
	os.link("s", "s2", follow_symlinks=False)
	assert number("s") == number("s2") and os.lstat("s").st_nlink == 2
	fd = os.open("a", os.O_RDONLY)
	link_following("/proc/self/fd/%d" % fd, "again")
	assert number("again") == number("a")
	os.close(fd)
	return [attempt(os.link, *pair) for pair in (("a", "f/c"), ("f", "g"), ("missing", "x"), ("a", "a"),
		("a", "missing/x"), ("a", "a/x"))]

def open_unlinked(d):
	fds = []
	for i in range(8):
		content = b"%d" % i * 10000
		fd = os.open("victim", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
		os.write(fd, content)
		if i % 2:
			# Opened anew, not as created
			os.close(fd)
			fd = os.open("victim", os.O_RDWR)
		os.setxattr(fd, "user.number", b"%d" % i)
		os.unlink("victim")
		fds.append((fd, content))
	for i in range(300):
		put("other%d" % i, b"other")
	for i, (fd, content) in enumerate(fds):
		st = os.fstat(fd)
		assert (st.st_nlink, st.st_size) == (0, 10000), st
		assert os.pread(fd, 20000, 0) == content
		os.pwrite(fd, b"end", 20000)
		os.ftruncate(fd, 20001)
		os.fchmod(fd, 0o400)
		os.fsync(fd)
		os.utime(fd, ns=(5, 6))
		with mmap.mmap(fd, 20001) as map:
			assert map[20000:] == b"e" and map[:10000] == content
			map[100:102] = b"MM"
			map.flush()
		content = content[:100] + b"MM" + content[102:] + bytes(10000) + b"e"
		assert os.pread(fd, 30000, 0) == content, i
		st = os.fstat(fd)
		assert (st.st_nlink, st.st_size, stat.S_IMODE(st.st_mode)) == (0, 20001, 0o400), st
		assert os.getxattr(fd, "user.number") == b"%d" % i and os.listxattr(fd) == ["user.number"]
		again = os.open("/proc/self/fd/%d" % fd, os.O_RDONLY)
		assert os.read(again, 30000) == content
		os.close(again)
	for i in range(300):
		assert get("other%d" % i) == b"other"
	for fd, content in fds:
		os.close(fd)
	assert len(os.listdir(".")) == 300
	return []

def removed_folder(d):
	os.mkdir("f")
	fd = os.open("f", os.O_RDONLY | os.O_DIRECTORY)
	os.chdir("f")
	os.rmdir(os.path.join(d, "f"))
	out = [attempt(os.getcwd), attempt(os.listdir, "."), attempt(os.mkdir, "g"), attempt(put, "x", b"x"),
		attempt(lambda: os.stat(".").st_nlink), attempt(lambda: os.fstat(fd).st_nlink),
		attempt(os.listdir, fd), attempt(os.stat, "missing"), attempt(os.symlink, "x", "y"),
		attempt(os.chmod, ".", 0o700), attempt(os.stat, "../f")]
	# The same name again is another folder
	os.mkdir(os.path.join(d, "f"))
	put(os.path.join(d, "f", "file"), b"x")
	out += [attempt(os.listdir, fd), attempt(os.stat, "file"), attempt(os.listdir, os.path.join(d, "f"))]
	os.close(fd)
	os.chdir(d)
	return out

def listing(d):
	"""Complete and without doubles, while other entries come and go"""
	count = 5000
	keep = {"file-%d" % i for i in range(0, count, 2)}
	for i in range(count):
		# Most of them links: ext4 is slow to give out inodes that were used a moment ago
		if i % 10 == 0:
			os.close(os.open("file-%d" % i, os.O_WRONLY | os.O_CREAT))
		else:
			os.link("file-%d" % (i // 10 * 10), "file-%d" % i)
	pid = os.fork()
	if pid == 0:
		for i in range(1, count, 2):
			os.unlink("file-%d" % i)
			if i % 10 == 1:
				os.link("file-0", "made-%d" % i)
		os._exit(0)
	running = True
	while running:
		running = os.waitpid(pid, os.WNOHANG)[0] == 0
		names = os.listdir(".")
		assert len(names) == len(set(names)), "a name listed twice"
		missing = keep - set(names)
		assert not missing, "%d of %d not listed, while others were removed" % (len(missing), len(keep))
		time.sleep(0.01)
	assert set(names) == keep | {"made-%d" % i for i in range(1, count, 2) if i % 10 == 1}
	for entry in list(os.scandir("."))[::100]:
		assert entry.inode() == number(entry.name) and entry.is_file(follow_symlinks=False)
	# One that removes what it is listing
	for entry in os.scandir("."):
		os.unlink(entry.name)
	for name in os.listdir("."):
		os.unlink(name)
	os.mkdir("empty")
	assert os.listdir("empty") == [] and os.listdir(".") == ["empty"]
	return []

def long_names(d):
	n255, n256 = "n" * 255, "n" * 256
	put(n255, b"x")
	assert get(n255) == b"x" and os.listdir(".") == [n255]
	out = [attempt(put, n256, b"x"), attempt(os.mkdir, n256), attempt(os.symlink, "x", n256),
		attempt(os.rename, n255, n256), attempt(os.link, n255, n256), attempt(os.stat, n256),
		attempt(os.unlink, n256), attempt(os.rmdir, n256), attempt(os.mkfifo, n256),
		attempt(os.listxattr, n256), attempt(os.stat, "é" * 128)]
	assert out == ["ENAMETOOLONG"] * len(out), out
	os.mkdir("é" * 127)
	os.rename(n255, "m" * 255)
	long = "t" * 4095
	os.symlink(long, "s")
	assert os.readlink("s") == long and os.lstat("s").st_size == 4095
	out += [attempt(os.symlink, long + "t", "s2"), attempt(os.stat, "s")]
	return out + sorted(os.listdir("."))

def parents(d):
	os.makedirs("a/b/c")
	os.mkdir("z")
	put("a/file", b"x")
	assert get("a/b/c/../../file") == b"x" and number("a/b/c/../..") == number("a")
	fd = os.open("a/b/c", os.O_RDONLY | os.O_DIRECTORY)
	os.rename("a/b/c", "z/c")
	up = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
	assert os.fstat(up).st_ino == number("z")
	os.close(up)
	os.close(fd)
	entries = {e.name: e for e in os.scandir("z")}
	assert list(entries) == ["c"]
	os.chdir("z/c")
	assert os.getcwd() == os.path.join(d, "z/c") and number("../..") == number(d)
	os.rename("../c", "../d")
	assert os.getcwd() == os.path.join(d, "z/d")
	os.chdir(d)
	return [os.stat(p).st_nlink for p in (".", "a", "a/b", "z", "z/d")]

def truncating_opens(d):
	out = []
	for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY):
		put("file", b"content" * 2000)
		reader = os.open("file", os.O_RDONLY)
		assert len(os.pread(reader, 20000, 0)) == 14000
		fd = os.open("file", flags | os.O_TRUNC | os.O_CREAT)
		out.append((os.fstat(fd).st_size, os.stat("file").st_size, os.pread(reader, 10, 0), get("file")))
		assert flags == os.O_RDONLY or os.write(fd, b"new") == 3
		out.append((os.pread(reader, 10, 0), get("file")))
		os.close(fd)
		os.close(reader)
	assert [o[:2] for o in out[::2]] == [(0, 0)] * 3 and [o[1] for o in out[1::2]] == [b"new", b"new", b""]
	put("file", b"1234567")
	with open("file", "wb") as file:
		file.write(b"abc")
	assert get("file") == b"abc"
	os.mkdir("f")
	return out + [attempt(os.open, "f", os.O_WRONLY), attempt(os.open, "f", os.O_RDONLY | os.O_TRUNC),
		attempt(os.open, "missing", os.O_RDWR | os.O_TRUNC)]

def appending(d):
	records = 400
	put("file", b"")
	def work(i):
		fd = os.open("file", os.O_WRONLY | os.O_APPEND)
		chance = random.Random(i)
		for n in range(records):
			line = b"%d %d " % (i, n) + b"%d" % i * chance.randrange(1, 300) + b"\n"
			if os.write(fd, line) != len(line):
				return False
		return True
	assert children(4, work)
	seen = {}
	for line in get("file").splitlines():
		i, n, data = line.split(b" ")
		assert set(data) == set(i) and int(n) == seen.get(i, -1) + 1, "a record is torn or lost: %r" % line[:40]
		seen[i] = int(n)
	assert set(seen.values()) == {records - 1} and len(seen) == 4, seen
	# The offset given does not count, nor does a truncation by another handle matter
	fd = os.open("file", os.O_WRONLY | os.O_APPEND)
	os.truncate("file", 5)
	os.pwrite(fd, b"end", 0)
	os.close(fd)
	assert get("file")[5:] == b"end"
	return [os.stat("file").st_size]

def exclusive(d):
	def work(i):
		for n in range(150):
			try:
				fd = os.open("name-%d" % n, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
			except FileExistsError:
				continue
			os.write(fd, b"%d\n" % i)
			os.close(fd)
			os.write(won, b".")
			try:
				os.mkdir("folder-%d" % n)
			except FileExistsError:
				return False
		return True
	seen, won = os.pipe()
	assert children(4, work)
	os.close(won)
	assert len(os.read(seen, 10000)) == 150, "not one winner for each name"
	os.close(seen)
	assert all(len(get("name-%d" % n)) == 2 for n in range(150))
	os.symlink("nowhere", "dangling")
	return [attempt(os.open, p, os.O_WRONLY | os.O_CREAT | os.O_EXCL) for p in ("dangling", "folder-1", "name-1")]

def read_only_modes(d):
	out = []
	for mode in (0o444, 0o000, 0o200, 0o400):
		name = "mode-%o" % mode
		fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
		assert os.write(fd, b"x" * 5000) == 5000 and os.pread(fd, 10, 4995) == b"xxxxx"
		out += [attempt(lambda f=f: os.close(os.open(name, f))) for f in (os.O_RDONLY, os.O_WRONLY)]
		out.append(attempt(os.truncate, name, 3))
		os.pwrite(fd, b"yy", 0)
		os.ftruncate(fd, 2)
		os.fsync(fd)
		assert os.pread(fd, 10, 0) == b"yy" and stat.S_IMODE(os.fstat(fd).st_mode) == mode
		os.close(fd)
	# Made inaccessible while it is open
	put("file", b"content")
	fd = os.open("file", os.O_RDWR)
	os.chmod("file", 0)
	assert os.pread(fd, 10, 0) == b"content" and os.pwrite(fd, b"CON", 0) == 3
	os.ftruncate(fd, 5)
	assert os.pread(fd, 10, 0) == b"CONte"
	os.fsync(fd)
	os.close(fd)
	# A folder that may not be read, one that may not be searched, one that may not be written
	for mode in (0o300, 0o400, 0o500):
		name = "folder-%o" % mode
		os.mkdir(name)
		put(name + "/file", b"x")
		os.chmod(name, mode)
		out += [attempt(os.listdir, name), attempt(get, name + "/file"), attempt(put, name + "/new", b"x"),
			attempt(os.unlink, name + "/file"), attempt(os.stat, name + "/missing")]
		os.chmod(name, 0o700)
	out += [os.access(p, m) for p in ("mode-444", "mode-0", "folder-500") for m in (os.R_OK, os.W_OK, os.X_OK)]
	return out

def statistics(d):
	a, b = os.statvfs("."), None
	put("file", b"x")
	b = os.statvfs("file")
	return [(s.f_bsize, s.f_frsize, s.f_blocks, s.f_files, s.f_namemax) for s in (a, b)]

def attributes(d):
	put("file", b"x")
	os.symlink("file", "link")
	os.mkdir("f")
	out = []
	for path in ("file", "f"):
		for mode in (0o600, 0o4755, 0o2755, 0o1777, 0o000, 0o7777, 0o644 if path == "file" else 0o755):
			os.chmod(path, mode)
			out.append(oct(os.stat(path).st_mode))
	first = (981173106, 123456789)
	set_times("file", first, (4102444799, 999999999))
	st = os.stat("file")
	assert (st.st_atime_ns, st.st_mtime_ns) == (981173106123456789, 4102444799999999999), st
	set_times("file", (0, UTIME_OMIT), (-5, 500))
	st = os.stat("file")
	assert (st.st_atime_ns, st.st_mtime_ns) == (981173106123456789, -5000000000 + 500), st
	set_times("file", (7, 8), (0, UTIME_OMIT))
	st = os.stat("file")
	assert (st.st_atime_ns, st.st_mtime_ns) == (7000000008, -5000000000 + 500), st
	before = time.time_ns()
	set_times("file", (0, UTIME_OMIT), (0, UTIME_NOW))
	st = os.stat("file")
	assert st.st_atime_ns == 7000000008 and before - 10**8 < st.st_mtime_ns <= time.time_ns(), st
	ctime = st.st_ctime_ns
	time.sleep(0.02)
	set_times("file", (0, UTIME_OMIT), (0, UTIME_OMIT))
	time.sleep(0.02)
	os.chmod("file", 0o640)
	assert os.stat("file").st_ctime_ns > ctime and os.stat("file").st_mtime_ns == st.st_mtime_ns
	set_times("link", (11, 12), (13, 14), AT_SYMLINK_NOFOLLOW)
	st = os.lstat("link")
	assert (st.st_atime_ns, st.st_mtime_ns) == (11000000012, 13000000014), st
	assert os.stat("file").st_mtime_ns != 13000000014
	set_times("f", (21, 22), (23, 24))
	st = os.stat("f")
	assert (st.st_atime_ns, st.st_mtime_ns) == (21000000022, 23000000024), st
	fd = os.open("file", os.O_RDONLY)
	os.fchmod(fd, 0o604)
	os.utime(fd, ns=(31, 32))
	st = os.stat("file")
	assert (st.st_atime_ns, st.st_mtime_ns, stat.S_IMODE(st.st_mode)) == (31, 32, 0o604), st
	os.close(fd)
	out += [attempt(os.chown, "file", -1, -1), attempt(os.chown, "file", os.geteuid(), os.getegid()),
		attempt(os.chown, "file", 1234, -1), attempt(os.chown, "file", -1, 2345),
		attempt(os.lchown, "link", 1234, 2345), os.stat("file").st_uid, os.stat("file").st_gid,
		os.lstat("link").st_uid]
	out.append(oct(os.stat("file").st_mode))
	return out

def times_of_writes(d):
	"""Each write moves mtime and ctime; one that was set stays"""
	put("file", b"x" * 20000)
	fd = os.open("file", os.O_RDWR)
	os.fsync(fd)
	def moves(what, call, *arguments):
		before = os.stat("file")
		time.sleep(0.015)
		call(*arguments)
		for after in (os.fstat(fd), os.stat("file")):
			assert after.st_mtime_ns > before.st_mtime_ns, "mtime does not move: " + what
			assert after.st_ctime_ns > before.st_ctime_ns, "ctime does not move: " + what
			assert after.st_mtime_ns <= time.time_ns(), "mtime in the future: " + what
	for i in range(3):
		moves("overwrite %d of a page" % i, os.pwrite, fd, b"y" * 4096, 4096)
	moves("overwrite of a byte", os.pwrite, fd, b"z", 77)
	moves("append", os.pwrite, fd, b"z" * 100, 20000)
	moves("shrinking", os.ftruncate, fd, 15000)
	moves("growth", os.ftruncate, fd, 25000)
	moves("truncation to the size it has", os.ftruncate, fd, 25000)
	moves("punching a hole", fallocate, fd, KEEP_SIZE | PUNCH_HOLE, 4096, 4096)
	os.pwrite(fd, b"last" * 1024, 0)
	os.utime("file", ns=(1000, 1234567890123456789))
	# Nothing that is done later for the write's sake may move it
	end = time.monotonic() + 1.3
	while time.monotonic() < end:
		assert os.stat("file").st_mtime_ns == 1234567890123456789, "a time that was set has moved"
		time.sleep(0.05)
	os.fsync(fd)
	os.close(fd)
	assert os.stat("file").st_mtime_ns == 1234567890123456789, "a time that was set has moved by fsync"
	put("kept", b"k" * 5000)
	put("kept", b"K" * 4000)
	os.utime("kept", ns=(1000, 1234567890123456789))
	before = os.stat(".").st_mtime_ns
	time.sleep(0.015)
	put("new", b"")
	middle = os.stat(".").st_mtime_ns
	time.sleep(0.015)
	os.unlink("new")
	assert before < middle < os.stat(".").st_mtime_ns, "mtime of a folder"
	return []

def set_id_bits(d):
	"""A write by somebody without privilege takes them away"""
	out = []
	for offset, size in ((0, 4096), (5, 1), (8192, 100), (20000, 10)):
		for warm in (False, True):
			put("file", b"x" * 10000)
			os.chmod("file", 0o6775)
			fd = os.open("file", os.O_RDWR)
			if warm:
				os.pread(fd, 10000, 0)
			os.pwrite(fd, b"w" * size, offset)
			out.append(oct(os.stat("file").st_mode))
			os.pwrite(fd, b"w" * size, offset)
			os.close(fd)
			os.chmod("file", 0o6775)
			os.truncate("file", 100)
			out.append(oct(os.stat("file").st_mode))
			os.unlink("file")
	return out

def extended_attributes(d):
	put("file", b"x")
	os.mkdir("f")
	os.symlink("file", "link")
	out = []
	for path in ("file", "f"):
		os.setxattr(path, "user.a", b"value")
		os.setxattr(path, "user.empty", b"")
		os.setxattr(path, "user.binary", bytes(range(256)))
		os.setxattr(path, "user.large", b"l" * 3000)
		assert os.getxattr(path, "user.binary") == bytes(range(256)) and os.getxattr(path, "user.empty") == b""
		assert set(os.listxattr(path)) == {"user.a", "user.empty", "user.binary", "user.large"}
		out += [attempt(os.setxattr, path, "user.a", b"x", os.XATTR_CREATE),
			attempt(os.setxattr, path, "user.new", b"x", os.XATTR_REPLACE), os.getxattr(path, "user.a")]
		os.setxattr(path, "user.a", b"replaced", os.XATTR_REPLACE)
		os.setxattr(path, "user.new", b"created", os.XATTR_CREATE)
		out += [os.getxattr(path, "user.a"), os.getxattr(path, "user.new")]
		os.removexattr(path, "user.empty")
		out += [attempt(os.removexattr, path, "user.empty"), attempt(os.getxattr, path, "user.empty"),
			attempt(os.setxattr, path, "user.", b"x"), attempt(os.setxattr, path, "nonsense.x", b"x"),
			attempt(os.setxattr, path, "user." + "n" * 300, b"x"), sorted(os.listxattr(path)),
			attempt(os.setxattr, path, "user.huge", b"h" * 65537),
			attempt(os.setxattr, path, "trusted.x", b"x"), attempt(os.getxattr, path, "security.capability")]
		buffer = ctypes.create_string_buffer(10)
		for size in (0, 4, 10):
			result = libc.getxattr(path.encode(), b"user.a", buffer, size)
			out.append((result, ctypes.get_errno() if result < 0 else 0))
			result = libc.listxattr(path.encode(), buffer, size)
			out.append((result, ctypes.get_errno() if result < 0 else 0))
	out += [attempt(os.setxattr, "link", "user.a", b"x", follow_symlinks=False),
		attempt(os.listxattr, "link", follow_symlinks=False)]
	fd = os.open("file", os.O_RDONLY)
	os.setxattr(fd, "user.fd", b"by descriptor")
	os.close(fd)
	os.rename("file", "renamed")
	assert os.getxattr("renamed", "user.fd") == b"by descriptor"
	for i in range(50):
		out.append(attempt(os.setxattr, "renamed", "user.many%d" % i, b"%d" % i))
	return out + sorted(os.listxattr("renamed"))

def allocation(d):
	fd = os.open("file", os.O_RDWR | os.O_CREAT)
	os.write(fd, b"d" * 50000)
	out = []
	fallocate(fd, 0, 40000, 60000)
	assert os.fstat(fd).st_size == 100000 and os.pread(fd, 200000, 0) == b"d" * 50000 + bytes(50000)
	fallocate(fd, KEEP_SIZE, 100000, 1000000)
	st = os.fstat(fd)
	assert st.st_size == 100000 and st.st_blocks * 512 >= 1000000, st
	fallocate(fd, KEEP_SIZE | PUNCH_HOLE, 5000, 20000)
	assert os.pread(fd, 50000, 0) == b"d" * 5000 + bytes(20000) + b"d" * 25000
	os.pwrite(fd, b"again", 10000)
	assert os.pread(fd, 9, 9998) == bytes(2) + b"again" + bytes(2)
	out += [attempt(fallocate, fd, ZERO_RANGE, 30000, 100), attempt(fallocate, fd, PUNCH_HOLE, 0, 4096),
		attempt(fallocate, fd, 0, -1, 10), attempt(fallocate, fd, 0, 0, 0),
		attempt(fallocate, fd, 0, 1 << 62, 1 << 62)]
	assert os.pread(fd, 102, 29999) == b"d" + bytes(100) + b"d"
	out.append(os.fstat(fd).st_size)
	# A mapping sees the hole
	with mmap.mmap(fd, 0) as map:
		map[60000:60010] = b"0123456789"
		fallocate(fd, KEEP_SIZE | PUNCH_HOLE, 57344, 8192)
		assert map[60000:60010] == bytes(10)
	os.close(fd)
	fd = os.open("file", os.O_RDONLY)
	out.append(attempt(fallocate, fd, 0, 0, 10))
	os.close(fd)
	return out

def copies(d):
	content = random.Random(1).randbytes(700001)
	put("from", content)
	put("to", b"t" * 1000)
	a, b = os.open("from", os.O_RDWR), os.open("to", os.O_RDWR)
	done = 0
	while n := os.copy_file_range(a, b, 1 << 30, done, 500 + done):
		done += n
	assert done == 700001 and get("to") == b"t" * 500 + content
	assert os.copy_file_range(a, b, 10, 700001, 0) == 0
	assert os.copy_file_range(a, b, 10, 3, 7) == 10 and get("to")[:20] == b"t" * 7 + content[3:13] + b"ttt"
	assert os.copy_file_range(a, a, 5000, 100, 600000) == 5000
	assert get("from") == content[:600000] + content[100:5100] + content[605000:]
	out = [attempt(os.copy_file_range, a, a, 5000, 100, 2000)]
	# By the descriptors' own offsets
	os.lseek(a, 100, 0)
	os.lseek(b, 0, 2)
	assert os.copy_file_range(a, b, 50) == 50 and get("to")[-50:] == content[100:150]
	out += [os.lseek(a, 0, 1), os.lseek(b, 0, 1)]
	with open("sent", "wb") as file:
		assert os.sendfile(file.fileno(), a, 0, 100000) == 100000
	assert get("sent") == content[:100000]
	os.close(a)
	os.close(b)
	return out

def data_and_holes(d):
	fd = os.open("file", os.O_RDWR | os.O_CREAT)
	os.ftruncate(fd, 1 << 20)
	os.pwrite(fd, b"x" * 70000, 256 << 10)
	os.fsync(fd)
	out = [attempt(os.lseek, fd, at, how) for how in (os.SEEK_DATA, os.SEEK_HOLE)
		for at in (0, 300 << 10, 500 << 10, (1 << 20) - 1, 1 << 20, 2 << 20, -1)]
	os.close(fd)
	return out

def special_files(d):
	os.mkfifo("fifo", 0o600)
	assert stat.S_ISFIFO(os.stat("fifo").st_mode)
	def work(i):
		if i == 0:
			with open("fifo", "wb") as file:
				file.write(b"through a fifo" * 10000)
			return True
		return get("fifo") == b"through a fifo" * 10000
	assert children(2, work)
	server = socket.socket(socket.AF_UNIX)
	server.bind("socket")
	server.listen()
	client = socket.socket(socket.AF_UNIX)
	client.connect("socket")
	peer = server.accept()[0]
	client.sendall(b"hello")
	assert peer.recv(10) == b"hello" and stat.S_ISSOCK(os.stat("socket").st_mode)
	os.mknod("regular", stat.S_IFREG | 0o640)
	put("regular", b"x")
	out = [oct(os.stat(p).st_mode) for p in ("fifo", "regular")]
	out += [attempt(os.mknod, "null", stat.S_IFCHR | 0o600, os.makedev(1, 3)), attempt(os.mkfifo, "fifo"),
		attempt(os.open, "socket", os.O_RDONLY)]
	os.rename("fifo", "fifo2")
	os.unlink("fifo2")
	os.unlink("socket")
	return out

def locks(d):
	put("file", b"x" * 100)
	fd = os.open("file", os.O_RDWR)
	fcntl.flock(fd, fcntl.LOCK_EX)
	fcntl.lockf(fd, fcntl.LOCK_EX, 10, 5)
	def work(i):
		other = os.open("file", os.O_RDWR)
		out = [attempt(fcntl.flock, other, fcntl.LOCK_SH | fcntl.LOCK_NB),
			attempt(fcntl.lockf, other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0),
			attempt(fcntl.lockf, other, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0)]
		return out == ["EAGAIN", "EAGAIN", None]
	assert children(1, work)
	os.close(fd)
	def work(i):
		other = os.open("file", os.O_RDWR)
		fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
		fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
		return True
	assert children(1, work)
	return []

def folders(d):
	os.mkdir("f", 0o750)
	os.makedirs("f/g/h")
	put("f/file", b"x")
	out = [oct(os.stat("f").st_mode), os.stat("f").st_nlink]
	out += [attempt(os.mkdir, p) for p in ("f", "f/file", "missing/x", "f/file/x", ".", "..")]
	out += [attempt(os.rmdir, p) for p in ("f", "f/g", "f/file", "missing", "f/g/h/.", "f/g/h/..")]
	out += [attempt(os.unlink, p) for p in ("f", "missing", "f/file/x")]
	out += [attempt(os.open, "f/file", os.O_RDONLY | os.O_DIRECTORY), attempt(os.listdir, "f/file"),
		attempt(os.read, os.open("f", os.O_RDONLY), 10), attempt(os.truncate, "f", 0)]
	fd = os.open("f", os.O_RDONLY)
	os.fsync(fd)
	os.close(fd)
	os.rmdir("f/g/h")
	os.rmdir("f/g")
	out += [os.stat("f").st_nlink, os.stat(".").st_nlink, sorted(os.listdir("f"))]
	os.umask(0)
	os.mkdir("open", 0o3777)
	put("wide", b"", 0o666)
	os.umask(0o077)
	os.mkdir("closed", 0o777)
	put("narrow", b"", 0o777)
	os.umask(0o022)
	return out + [oct(os.stat(p).st_mode) for p in ("open", "wide", "closed", "narrow")]

def symbolic_links(d):
	put("file", b"content")
	os.symlink("file", "link")
	os.symlink("loop", "loop")
	os.symlink("target", "dangling")
	os.symlink(os.path.join("..", "symbolic_links", "file"), "round")
	os.symlink(b"\xff\n\x01", b"odd\xfe")
	assert os.readlink(b"odd\xfe") == b"\xff\n\x01" and get("link") == get("round") == b"content"
	out = [attempt(os.open, "link", os.O_RDONLY | os.O_NOFOLLOW), attempt(get, "loop"), attempt(get, "dangling"),
		attempt(os.readlink, "file"), attempt(os.symlink, "x", "link"), attempt(os.listdir, "link"),
		os.lstat("link").st_size, oct(os.lstat("link").st_mode), attempt(os.symlink, "", "empty")]
	put("dangling", b"made")
	assert get("target") == b"made"
	os.rename("link", "moved")
	os.unlink("moved")
	return out + [get("file")]

def direct(d):
	page = mmap.mmap(-1, 65536)
	page.write(random.Random(2).randbytes(65536))
	fd = os.open("file", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
	assert os.pwritev(fd, [page], 0) == 65536
	assert get("file") == page[:]
	back = mmap.mmap(-1, 65536)
	assert os.preadv(fd, [back], 0) == 65536 and back[:] == page[:]
	other = os.open("file", os.O_WRONLY)
	os.pwrite(other, b"cached", 8192)
	assert os.preadv(fd, [back], 0) == 65536 and back[8192:8198] == b"cached"
	os.pwritev(fd, [page], 65536)
	assert get("file")[65536:] == page[:]
	os.close(fd)
	os.close(other)
	return [os.stat("file").st_size]

def vectors(d):
	fd = os.open("file", os.O_RDWR | os.O_CREAT)
	parts = [b"a" * 10, b"", b"b" * 5000, b"c" * 200000]
	assert os.writev(fd, parts) == 205010 and get("file") == b"".join(parts)
	into = [bytearray(7), bytearray(9000), bytearray(300000)]
	assert os.preadv(fd, into, 3) == 205007 and b"".join(into)[:205007] == b"".join(parts)[3:]
	large = random.Random(3).randbytes(5 << 20)
	assert os.pwrite(fd, large, 333) == len(large) and os.pread(fd, 6 << 20, 333) == large
	assert os.pread(fd, 10, 1 << 40) == b""
	out = [attempt(os.pread, fd, 10, -1), attempt(os.pwrite, fd, b"x", -1), os.fstat(fd).st_size]
	out += [attempt(os.ftruncate, fd, 1 << 60), attempt(os.pwrite, fd, b"x", (1 << 63) - 2)]
	# Beyond the largest file that the file system below can hold, but not the kernel
	for at in ((1 << 44) - 4096, 1 << 44, 1 << 45, 1 << 50):
		out += [attempt(os.pwrite, fd, b"x", at), attempt(fallocate, fd, 0, at, 4096),
			attempt(os.ftruncate, fd, at), os.fstat(fd).st_size, attempt(os.pread, fd, 10, at)]
		os.ftruncate(fd, 333)
	os.close(fd)
	return out

run([rename_flags, rename_plain, links, open_unlinked, removed_folder, listing, long_names, parents, truncating_opens,
	appending, exclusive, read_only_modes, statistics, attributes, times_of_writes, set_id_bits, extended_attributes,
	allocation, copies, data_and_holes, special_files, locks, folders, symbolic_links, direct, vectors],
	*sys.argv[1:])
END

# Users other than the owner of the mount: run as root, becomes them
cat >"$work/users.py" <<'END'
from common import *

def as_user(uid, gid, groups, work):
	def child(i):
		os.setgroups(groups)
		os.setresgid(gid, gid, gid)
		os.setresuid(uid, uid, uid)
		return work()
	return children(1, child)

def view(path):
	st = os.lstat(path)
	return (path, st.st_uid, st.st_gid, oct(st.st_mode))

def ownership(d):
	os.chmod(".", 0o777)
	os.mkdir("shared")
	os.chown("shared", 0, 3456)
	os.chmod("shared", 0o2775)
	os.mkdir("group")
	os.chown("group", 0, 3456)
	os.chmod("group", 0o770)
	def work():
		os.umask(0o027)
		put("file", b"x", 0o666)
		os.mkdir("folder")
		os.symlink("x", "link")
		os.mkfifo("fifo")
		os.mknod("regular", stat.S_IFREG | 0o644)
		os.link("file", "hard")
		put("shared/file", b"x", 0o2775)
		os.mkdir("shared/folder")
		put("shared/folder/deep", b"x")
		put("group/file", b"x")
		return True
	assert as_user(1234, 2345, [3456], work)
	put("by-root", b"x")
	os.mkdir("folder-by-root")
	names = ("file", "folder", "link", "fifo", "regular", "hard", "shared/file", "shared/folder",
		"shared/folder/deep", "group/file", "by-root", "folder-by-root")
	out = [view(p) for p in names]
	assert {o[1] for o in out[:-2]} == {1234} and {o[2] for o in out[6:9]} == {3456}, out
	assert out[0][1:3] == (1234, 2345) and out[-1][1:3] == out[-2][1:3] == (0, 0), out
	return out

def foreign_group(d):
	"""Set-group-id in folders of a group that the maker is in, and of one that it is not in"""
	os.chmod(".", 0o777)
	for group in (3456, 7777):
		os.mkdir("of-%d" % group)
		os.chown("of-%d" % group, 0, group)
		os.chmod("of-%d" % group, 0o2777)
	def work():
		os.umask(0)
		for group in (3456, 7777):
			for mode in (0o2755, 0o2711, 0o2745, 0o2777, 0o6777, 0o755):
				put("of-%d/file-%o" % (group, mode), b"", mode)
				os.mknod("of-%d/node-%o" % (group, mode), stat.S_IFREG | mode)
				os.mkdir("of-%d/folder-%o" % (group, mode), mode)
				put("of-%d/folder-%o/deep" % (group, mode), b"", mode)
				put("of-%d/changed-%o" % (group, mode), b"x")
				os.chmod("of-%d/changed-%o" % (group, mode), mode)
			os.mkfifo("of-%d/fifo" % group, 0o2755)
			os.symlink("x", "of-%d/link" % group)
		return True
	assert as_user(1234, 2345, [3456], work)
	names = [os.path.join(folder, name) for folder, folders, files in os.walk(".") for name in folders + files]
	out = [view(p) for p in sorted(names)]
	# With the group's right to execute it would be a program of that group
	assert not [o for o in out if o[2] == 7777 and stat.S_ISREG(int(o[3], 8)) and int(o[3], 8) & 0o2010 == 0o2010]
	return out

def permissions(d):
	os.chmod(".", 0o777)
	for name, group, mode in (("open", 0, 0o644), ("secret", 0, 0o600), ("grouped", 3456, 0o660)):
		put(name, b"content")
		os.chown(name, 0, group)
		os.chmod(name, mode)
	os.mkdir("closed", 0o700)
	put("closed/file", b"x")
	os.mkdir("sticky")
	os.chmod("sticky", 0o1777)
	put("sticky/root", b"x")
	os.mkdir("grouped-folder")
	os.chown("grouped-folder", 0, 3456)
	os.chmod("grouped-folder", 0o770)
	read, write = os.pipe()
	def work():
		out = [attempt(get, p) for p in ("open", "secret", "grouped", "closed/file")]
		out += [attempt(put, p, b"CONTENT") for p in ("open", "secret", "grouped", "closed/new", "grouped-folder/n%d"
			% len(os.getgroups()))]
		out += [attempt(os.listdir, p) for p in ("closed", ".", "grouped-folder")]
		out += [attempt(os.unlink, p) for p in ("sticky/root", "closed/file")]
		out += [attempt(os.chmod, "open", 0o666), attempt(os.chown, "open", 1234, -1),
			attempt(os.utime, "open", (1, 2)), attempt(os.setxattr, "open", "user.x", b"x"),
			attempt(os.link, "secret", "linked-secret"), attempt(os.rename, "sticky/root", "sticky/x"),
			attempt(os.truncate, "open", 1), attempt(os.truncate, "grouped", 7)]
		mine = "mine%d" % len(os.getgroups())
		put(mine, b"x")
		out += [attempt(os.chown, mine, -1, 3456), attempt(os.chown, mine, -1, 7777),
			attempt(os.chown, mine, 4321, -1), attempt(os.chmod, mine, 0o2755), view(mine)]
		out.append([os.access(p, m) for p in ("open", "secret", "grouped", "closed") for m in (4, 2, 1)])
		os.write(write, repr(out).encode() + b"\n")
		return True
	assert as_user(1234, 2345, [3456], work)
	assert as_user(1235, 2345, [], work)
	os.close(write)
	out = b""
	while block := os.read(read, 65536):
		out += block
	os.close(read)
	return out.decode().splitlines() + sorted(os.listdir("."))

def identities_at_once(d):
	os.chmod(".", 0o777)
	def work(i):
		uid = 1000 + i if i else 0
		if uid:
			os.setgroups([3000 + i])
			os.setresgid(2000 + i, 2000 + i, 2000 + i)
			os.setresuid(uid, uid, uid)
		for n in range(150):
			put("%d-%d" % (i, n), b"x")
			if n % 3 == 0:
				os.mkdir("folder-%d-%d" % (i, n))
			if n % 7 == 0:
				os.unlink("%d-%d" % (i, n))
		return True
	assert children(4, work)
	for name in os.listdir("."):
		i = int(name.removeprefix("folder-").split("-")[0])
		st = os.stat(name)
		assert (st.st_uid, st.st_gid) == ((1000 + i, 2000 + i) if i else (0, 0)), (name, st)
	return []

def privileges_of_files(d):
	"""Set-id bits and capabilities go when an unprivileged user writes"""
	capability = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
	os.chmod(".", 0o777)
	out = []
	for offset, size in ((0, 4096), (77, 3), (19990, 100)):
		for by in ("write", "truncate", "root"):
			put("file", b"x" * 20000)
			get("file")
			os.setxattr("file", "security.capability", capability)
			os.chmod("file", 0o6777)
			assert os.getxattr("file", "security.capability") == capability
			def work():
				if by == "truncate":
					os.truncate("file", offset)
				else:
					fd = os.open("file", os.O_RDWR)
					os.pwrite(fd, b"w" * size, offset)
				return True
			if by == "root":
				assert work()
			else:
				assert as_user(1234, 2345, [], work)
			out += [(by, offset, oct(os.stat("file").st_mode),
				attempt(os.getxattr, "file", "security.capability"))]
			if by != "root":
				assert out[-1][2] == "0o100777" and out[-1][3] == "ENODATA", out[-1]
			os.unlink("file")
	return out

def foreign_open_files(d):
	"""An open handle goes on working for who could open it, whatever becomes of the file"""
	os.chmod(".", 0o777)
	put("file", b"content")
	os.chmod("file", 0o666)
	def work():
		fd = os.open("file", os.O_RDWR)
		own = os.open("own", os.O_RDWR | os.O_CREAT, 0)
		os.write(ready, b".")
		os.read(go, 1)
		assert os.pread(fd, 10, 0) == b"content" and os.pwrite(fd, b"C", 0) == 1
		assert os.write(own, b"mine") == 4 and os.pread(own, 9, 0) == b"mine"
		os.ftruncate(fd, 3)
		return True
	is_ready, ready = os.pipe()
	go, let_go = os.pipe()
	pid = os.fork()
	if pid == 0:
		os._exit(0 if as_user(1234, 2345, [], work) else 1)
	os.read(is_ready, 1)
	os.chmod("file", 0)
	os.chown("file", 0, 0)
	os.unlink("own")
	os.write(let_go, b".")
	assert os.waitpid(pid, 0)[1] == 0 and get("file") == b"Con"
	return []

run([ownership, foreign_group, permissions, identities_at_once, privileges_of_files, foreign_open_files], *sys.argv[1:])
END

# An ordinary user, whose mount it is, and files that are root's
cat >"$work/foreign.py" <<'END'
from common import *

backing = sys.argv.pop()

def files_of_root(d):
	os.chdir("../foreign")
	out, direct = [], d.startswith(sys.argv[1] + "/")
	for name in ("666", "222", "444"):
		below = name if direct else os.path.join(backing, "foreign", name)
		for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND):
			out.append(attempt(lambda: os.close(os.open(name, flags))))
		out += [attempt(os.chmod, name, 0o600), attempt(os.chown, name, os.getuid(), -1),
			attempt(os.utime, name, ns=(5, 6)), attempt(set_times, name, (0, UTIME_NOW), (0, UTIME_NOW)),
			attempt(os.setxattr, name, "user.x", b"x"), attempt(os.listxattr, name),
			[os.access(name, m) for m in (os.R_OK, os.W_OK, os.X_OK)]]
		if name == "444":
			out += [attempt(os.truncate, name, 0), get(name)]
			continue
		fd = os.open(name, os.O_WRONLY)
		for i in range(2):
			before = os.fstat(fd).st_mtime_ns, os.stat(below).st_mtime_ns
			time.sleep(0.015)
			assert os.pwrite(fd, b"%d" % i * 4096, 4096) == 4096
			for after in (os.fstat(fd), os.stat(name)):
				assert after.st_mtime_ns > before[0], "%s: mtime does not move: write %d" % (name, i)
			end = time.monotonic() + 20
			while os.stat(below).st_mtime_ns <= before[1]:
				assert time.monotonic() < end, "%s: mtime does not move below: write %d" % (name, i)
				time.sleep(0.01)
		os.fsync(fd)
		os.ftruncate(fd, 10000)
		assert os.pwrite(fd, b"end", 10000) == 3
		os.close(fd)
		out += [os.stat(name).st_size, os.stat(below).st_size, attempt(get, name)]
	out += [attempt(os.rename, "666", "777"), attempt(os.unlink, "444"), attempt(put, "new", b"x")]
	return out

run([files_of_root], *sys.argv[1:])
END

# What set-up and check need a tool for: default ACLs, on folder $1
acl_check() {
	(
		umask 077
		mkdir "$1/acl"
		cd "$1/acl"
		setfacl -d -m u::rwx,g::rwx,o::r-x,u:1234:rw- .
		echo x >file
		mkdir folder
		echo x >folder/deep
		mkfifo fifo
		setfacl -m g:4321:r-- file
		chmod 640 folder/deep
		getfacl -R . 2>/dev/null
		stat -c '%n %A' file folder folder/deep fifo
	)
}

mount_start flush=10ms
python3 "$work/names.py" "$plain" "$mnt" || fail "flush=10ms"
need setfacl
acl_check "$plain" >"$work/acl.plain"
acl_check "$mnt" >"$work/acl.mount"
assert_same "$work/acl.plain" "$work/acl.mount" "ACLs, default ACLs"
# Inode numbers stay, from mount to mount
numbers() { find "$mnt" -mindepth 1 -maxdepth 2 -printf '%P %i\n' | sort; }
numbers >"$work/numbers.1"
mount_stop
assert_equal 1234567890 "$(stat -c %Y "$backing/times_of_writes/kept")" \
	"the time that was set, in the backing folder"
mount_start flush=manual
numbers >"$work/numbers.2"
assert_same "$work/numbers.1" "$work/numbers.2" "inode numbers"
rm -r "${mnt:?}"/* "${plain:?}"/*
python3 "$work/names.py" "$plain" "$mnt" || fail "flush=manual"
mount_stop
assert_equal 1234567890 "$(stat -c %Y "$backing/times_of_writes/kept")" \
	"the time that was set, in the backing folder"

# A daemon that may not write beyond 1 MiB of a file says so to who does, and lives
cat >"$work/limit.py" <<'END'
from common import *
path = os.path.join(sys.argv[1], "limited")
fd = os.open(path, os.O_RDWR | os.O_CREAT)
content = random.Random(1).randbytes(1 << 20)
assert os.pwrite(fd, content, 0) == 1 << 20
out = [attempt(os.pwrite, fd, b"x", 1 << 20), attempt(os.pwrite, fd, b"x" * 4096, 5 << 20),
	attempt(os.ftruncate, fd, 2 << 20), attempt(fallocate, fd, 0, 1 << 20, 4096)]
assert out == ["EFBIG"] * 4, out
# As far as it goes
os.ftruncate(fd, (1 << 20) - 10)
assert os.pwrite(fd, b"y" * 20, (1 << 20) - 10) == 10
assert attempt(os.pwrite, fd, b"y", 1 << 20) == "EFBIG"
assert os.pwrite(fd, b"z" * 4096, 8192) == 4096
os.fsync(fd)
assert get(path) == content[:8192] + b"z" * 4096 + content[12288:-10] + b"y" * 10
END
unlimited=("${program[@]}")
for policy in manual 10ms; do
	program=(prlimit --fsize=1048576:1048576 "${unlimited[@]}")
	mount_start "flush=$policy"
	python3 "$work/limit.py" "$mnt" || fail "flush=$policy, with a limit to the size of files"
	! daemon_is_gone || fail "the daemon has died of a limit to the size of files"
	mount_stop
	rm "$backing/limited"
done
program=("${unlimited[@]}")

if [ "$who" = root ]; then
	chmod 755 "$work" "$plain" "$backing"
	# The groups that the daemon was started with are nobody else's
	program=(setpriv '--groups=0,7777,8888' -- "${unlimited[@]}")
	mount_start flush=manual,allow_other
	python3 "$work/users.py" "$plain" "$mnt" || fail "other users, allow_other"
	mount_stop
	program=("${unlimited[@]}")
	mount_start
	! setpriv --reuid=1234 --regid=2345 --clear-groups ls "$mnt" 2>/dev/null ||
		fail "another user can list a mount without allow_other"
	mount_stop

	# As an ordinary user mounts it
	rm -rf "${plain:?}"/* "${backing:?}"/*
	chown 65534:65534 "$plain" "$backing" "$mnt"
	ordinary=(setpriv --reuid=65534 --regid=65534 --clear-groups --)
	program=("${ordinary[@]}" "${unlimited[@]}")
	for options in '' flush=manual,write=store flush=10ms; do
		for folder in "$plain/foreign" "$backing/foreign"; do
			mkdir "$folder"
			for mode in 666 222 444; do
				head -c 20000 /dev/zero >"$folder/$mode"
				chmod "$mode" "$folder/$mode"
			done
		done
		mount_start $options
		"${ordinary[@]}" python3 "$work/foreign.py" "$plain" "$mnt" "$backing" ||
			fail "files of root, -o '$options'"
		mount_stop
		cmp "$plain/foreign/222" "$backing/foreign/222" || fail "a file that may only be written, -o '$options'"
		rm -r "${plain:?}"/* "${backing:?}"/*
	done
fi
