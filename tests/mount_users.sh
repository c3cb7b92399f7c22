#!/bin/bash
# Two users and a stranger in one tree at once: sticky folders, set-group-id folders, ACLs, files that
# are one user's alone, and common ones, also where another has just brought them into the caches. Each
# sequence is done in a plain folder and then on the mount, and has to show the same; what it must show
# whatever the file system, it asserts itself. (What one user sees of root's files: mount_names.sh.)
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 240 root
need setfacl getfacl

cat >"$work/users.py" <<'END'
import ctypes, errno, mmap, os, pickle, random, socket, stat, subprocess, sys, traceback

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, EXCHANGE = -100, 2
COMMON = 3456

class User:
	"""A process of this user, which does what it is told and says what came of it"""
	all = []
	def __init__(self, uid, gid, groups):
		self.uid, self.gid = uid, gid
		self.socket, child = socket.socketpair()
		User.all.append(self)
		self.pid = os.fork()
		if self.pid:
			child.close()
			return
		try:
			for user in User.all:
				user.socket.close()
			os.setgroups(groups)
			os.setresgid(gid, gid, gid)
			os.setresuid(uid, uid, uid)
			os.umask(0o002)
			self.serve(child.makefile("rwb"))
		finally:
			os._exit(0)
	def serve(self, stream):
		while True:
			try:
				call, arguments = pickle.load(stream)
			except EOFError:
				return
			try:
				result = call(*arguments)
			except OSError as error:
				result = errno.errorcode[error.errno]
			except Exception:
				result = traceback.format_exc()
			pickle.dump(result, stream)
			stream.flush()
	def start(self, call, *arguments):
		self.socket.sendall(pickle.dumps((call, arguments)))
	def finish(self):
		return pickle.load(self.socket.makefile("rb"))
	def __call__(self, call, *arguments):
		"""What a call returns, or the name of its errno"""
		self.start(call, *arguments)
		return self.finish()

def put(path, content, mode=0o666):
	fd = os.open(path, os.O_WRONLY | os.O_CREAT, mode)
	assert os.write(fd, content) == len(content)
	os.close(fd)

def get(path):
	with open(path, "rb") as file:
		return file.read()

def exchange(old, new):
	if libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), EXCHANGE):
		raise OSError(ctypes.get_errno(), "")

def acl(*arguments):
	"""What setfacl says of it by its exit status"""
	return subprocess.run(["setfacl", *arguments], stderr=subprocess.DEVNULL).returncode

def view(path):
	st = os.lstat(path)
	return (path, st.st_uid, st.st_gid, oct(st.st_mode))

def shared(path, group, mode, owner=0):
	os.mkdir(path)
	os.chown(path, owner, group)
	os.chmod(path, mode)

def denied(*results):
	assert set(results) <= {"EACCES", "EPERM"}, results
	return list(results)

# ---------------------------------------------------------------- the sequences

def sticky(d):
	shared("common", 0, 0o1777)
	shared("of-alice", 0, 0o1777, alice.uid)
	out = []
	for folder in ("common", "of-alice"):
		for user, name in ((alice, "a"), (bob, "b")):
			assert user(put, folder + "/" + name, b"x") is None
			assert user(os.mkdir, folder + "/" + name + "-folder") is None
	for folder, user, other in (("common", alice, "b"), ("common", bob, "a"), ("of-alice", bob, "a")):
		mine, other = folder + ("/b" if other == "a" else "/a"), folder + "/" + other
		assert isinstance(user(os.listdir, folder), list) and isinstance(user(os.stat, other), os.stat_result)
		out += denied(user(os.unlink, other), user(os.rmdir, other + "-folder"), user(os.rename, other, mine + "-new"),
			user(os.rename, mine, other), user(exchange, mine, other), user(exchange, other, mine),
			user(os.rename, mine + "-folder", other + "-folder"), user(os.rename, other, "of-alice/moved"))
		assert get(mine) == get(other) == b"x"
	# But the owner of the folder may, and everybody with its own
	assert alice(os.rename, "of-alice/b", "of-alice/renamed") is None
	assert alice(os.unlink, "of-alice/renamed") is None and alice(os.rmdir, "of-alice/b-folder") is None
	assert bob(exchange, "common/b", "common/b-folder") is None
	assert bob(os.rename, "common/b-folder", "of-alice/b") is None and bob(os.rmdir, "common/b") is None
	# The bit counts as soon as it is there, and no longer
	os.chmod("common", 0o777)
	assert bob(os.rename, "common/a", "common/b") is None
	os.chmod("common", 0o1777)
	out += denied(bob(os.unlink, "common/b"))
	return out + sorted(os.listdir("common")) + sorted(os.listdir("of-alice"))

def group_folder(d):
	shared("team", COMMON, 0o2770)
	out = []
	for user, other, name in ((alice, bob, "a"), (bob, alice, "b")):
		top = "team/" + name
		assert user(os.makedirs, top + "/sub/deep") is None and user(put, top + "/sub/file", name.encode()) is None
		assert user(os.mkfifo, top + "/fifo", 0o660) is None
		# By a supplementary group alone: in another's folder, and in another's file
		assert other(put, top + "/sub/deep/others", b"o") is None and other(put, top + "/sub/file", b"o+") is None
		assert other(os.rename, top + "/sub/file", top + "/sub/deep/file") is None
		assert other(os.link, top + "/sub/deep/file", top + "/again") is None
		assert other(os.unlink, top + "/fifo") is None and user(get, top + "/again") == b"o+"
		# Who is in the group may use its files, not change whose they are
		out += denied(other(os.chmod, top + "/again", 0o600), other(os.chown, top + "/again", other.uid, -1),
			other(os.utime, top + "/again", (1, 2)))
		assert other(os.utime, top + "/again") is None
		# Nobody else may, though all this has just been looked up
		out += denied(stranger(os.listdir, "team"), stranger(os.stat, top), stranger(get, top + "/again"),
			stranger(put, top + "/new", b"x"), stranger(os.unlink, top + "/again"),
			stranger(os.rename, top, "stolen"))
	# Moved from folder to folder, they stay whose they are
	assert bob(os.rename, "team/a/sub/deep/others", "team/b/others") is None
	assert alice(os.rename, "team/b/sub", "team/a/sub-of-b") is None
	names = [os.path.join(folder, name) for folder, folders, files in os.walk("team") for name in folders + files]
	out += [view(p) for p in sorted(names)]
	for path, uid, gid, mode in out[-len(names):]:
		assert gid == COMMON and (stat.S_ISREG(int(mode, 8)) or int(mode, 8) & 0o2000), (path, gid, mode)
	return out

def alone(d):
	"""One user's files, that are in every cache"""
	os.chmod(".", 0o777)
	out = []
	assert alice(os.mkdir, "closed", 0o700) is None and alice(put, "closed/file", b"closed") is None
	for mode in (0o600, 0o640, 0o604, 0o660, 0o000):
		name = "file-%o" % mode
		assert alice(put, name, b"secret" * 3000, mode | 0o600) is None
		os.chown(name, -1, COMMON)
		os.chmod(name, mode | 0o400)
		# Alice has read it, and has it open for both, and mapped
		assert alice(get, name) == b"secret" * 3000
		os.chmod(name, 0o600)
		fd = alice(os.open, name, os.O_RDWR)
		assert isinstance(fd, int) and alice(keep_mapped, fd) == b"secret"
		os.chmod(name, mode)
		for user, bits in ((bob, mode >> 3), (stranger, mode)):
			seen = [user(get, name), user(append, name, b"")]
			assert (seen[0] == b"secret" * 3000) == bool(bits & 4) and (seen[1] is None) == bool(bits & 2), (name, seen)
			out += denied(*[s for s in seen if isinstance(s, str)])
			out += [user(os.access, name, m) for m in (os.R_OK, os.W_OK, os.X_OK)]
			out += denied(user(os.chmod, name, 0o666), user(os.chown, name, user.uid, -1),
				user(os.setxattr, name, "user.x", b"x") if not bits & 2 else "EACCES")
		assert alice(os.pread, fd, 6, 0) == b"secret" and alice(os.close, fd) is None
	for user in (bob, stranger):
		out += denied(user(get, "closed/file"), user(os.listdir, "closed"), user(os.stat, "closed/file"),
			user(os.stat, "closed/missing"), user(os.unlink, "closed/file"), user(put, "closed/new", b""))
	# What is changed counts from the next call on, for all of them
	for _ in range(3):
		assert alice(os.chmod, "file-600", 0o604) is None and stranger(get, "file-600") == b"secret" * 3000
		out += denied(bob(get, "file-600"))
		assert alice(os.chmod, "file-600", 0o640) is None and bob(get, "file-600") == b"secret" * 3000
		out += denied(stranger(get, "file-600"))
		assert alice(os.chmod, "file-600", 0o600) is None
		out += denied(bob(get, "file-600"), stranger(get, "file-600"))
		assert alice(os.chmod, "closed", 0o711) is None and bob(get, "closed/file") == b"closed"
		assert alice(os.chmod, "closed", 0o700) is None
		out += denied(bob(get, "closed/file"))
	os.chown("file-600", bob.uid, -1)
	assert bob(get, "file-600") == b"secret" * 3000
	out += denied(alice(get, "file-600"), alice(os.chmod, "file-600", 0o666))
	return out

def keep_mapped(fd):
	keep_mapped.kept = mmap.mmap(fd, 0)
	return keep_mapped.kept[:6]

def append(path, content):
	fd = os.open(path, os.O_WRONLY | os.O_APPEND)
	assert os.write(fd, content) == len(content)
	os.close(fd)

def access_lists(d):
	shared("of-alice", alice.gid, 0o700, alice.uid)
	assert alice(acl, "-m", "u:%d:rwx" % bob.uid, "of-alice") == 0
	assert alice(acl, "-d", "-m", "u::rwx,g::---,o::---,u:%d:rw-,g:4321:r--" % bob.uid, "of-alice") == 0
	out = []
	assert alice(put, "of-alice/file", b"A", 0o666) is None and bob(put, "of-alice/of-bob", b"B", 0o666) is None
	assert alice(os.mkdir, "of-alice/folder") is None and alice(put, "of-alice/narrow", b"N", 0o600) is None
	# Bob by name, within the mask; the stranger not at all
	assert bob(get, "of-alice/file") == b"A" and bob(append, "of-alice/file", b"+") is None
	assert alice(get, "of-alice/file") == b"A+" and alice(get, "of-alice/of-bob") == "EACCES"
	out += denied(bob(get, "of-alice/narrow"), bob(os.listdir, "of-alice/folder/."), bob(put, "of-alice/folder/x", b""))
	out += denied(stranger(os.listdir, "of-alice"), stranger(get, "of-alice/file"), stranger(put, "of-alice/x", b""))
	out += [bob(os.access, "of-alice/file", m) for m in (os.R_OK, os.W_OK, os.X_OK)]
	# Only the owner gives rights, and what is taken away is gone at once
	assert bob(acl, "-m", "u:%d:rwx" % stranger.uid, "of-alice/file") == 1
	for _ in range(3):
		assert alice(acl, "-m", "u:%d:---" % bob.uid, "of-alice/file") == 0
		out += denied(bob(get, "of-alice/file"), bob(append, "of-alice/file", b""))
		assert alice(acl, "-m", "u:%d:r--" % bob.uid, "of-alice/file") == 0
		assert bob(get, "of-alice/file") == b"A+"
		out += denied(bob(append, "of-alice/file", b""))
		assert alice(acl, "-m", "m::---", "of-alice/file") == 0
		out += denied(bob(get, "of-alice/file"))
		assert alice(os.chmod, "of-alice/file", 0o660) is None and bob(get, "of-alice/file") == b"A+"
		assert alice(acl, "-x", "u:%d" % bob.uid, "of-alice") == 0
		out += denied(bob(get, "of-alice/file"), bob(os.stat, "of-alice/file"), bob(os.listdir, "of-alice"))
		assert alice(acl, "-m", "u:%d:rwx" % bob.uid, "of-alice") == 0
		assert bob(get, "of-alice/file") == b"A+"
	out += [view(p) for p in ("of-alice", *(os.path.join("of-alice", n) for n in sorted(os.listdir("of-alice"))))]
	return out + subprocess.run(["getfacl", "-n", "-R", "-p", "of-alice"], stdout=subprocess.PIPE,
		check=True).stdout.decode().splitlines()

def churn(me, name, other, count):
	"""Makes, renames, replaces and removes files of its own, and tries it with the other's. What is left"""
	chance, own, worked = random.Random(name), {}, 0
	for n in range(count):
		folder = chance.choice(("sticky", "team"))
		path = "%s/%s-%d" % (folder, name, chance.randrange(20))
		what = chance.randrange(6)
		if what < 2 or not own:
			put(path + ".new", b"%s %d" % (name.encode(), n))
			os.rename(path + ".new", path)
			own[path] = (b"%s %d" % (name.encode(), n), me, COMMON if folder == "team" else os.getgid())
		elif what == 2:
			old = chance.choice(sorted(own))
			os.rename(old, path)
			own[path] = own.pop(old)
		elif what == 3:
			old = chance.choice(sorted(own))
			os.unlink(old)
			del own[old]
		elif what == 4:
			old = chance.choice(sorted(own))
			st = os.stat(old)
			if (get(old), st.st_uid, st.st_gid) != own[old]:
				raise ValueError("%s is %r, not %r" % (old, (get(old), st.st_uid, st.st_gid), own[old]))
		else:
			for call in (os.unlink, lambda p: os.rename(p, "sticky/%s-stolen" % name)):
				try:
					call("sticky/%s-%d" % (other, chance.randrange(20)))
					raise ValueError("a sticky folder lets go of another's file")
				except (PermissionError, FileNotFoundError):
					worked += 1
	return own if worked else "never tried"

def at_once(d):
	shared("sticky", 0, 0o1777)
	shared("team", COMMON, 0o2770)
	works = [(make(), other) for make, other in ((new_alice, "bob"), (new_bob, "alice")) for _ in range(2)]
	for i, (user, other) in enumerate(works):
		name = "alice" if other == "bob" else "bob"
		user.start(churn, user.uid, "%s%d" % (name, i % 2), "%s%d" % (other, i % 2), 500)
	left = {}
	for user, _ in works:
		result = user.finish()
		assert isinstance(result, dict), result
		left.update(result)
	seen = {}
	for folder in ("sticky", "team"):
		for name in os.listdir(folder):
			path = folder + "/" + name
			st = os.stat(path)
			seen[path] = (get(path), st.st_uid, st.st_gid)
	assert seen == left, set(seen.items()) ^ set(left.items())
	return sorted(left.items())

def append_lines(path, name, count):
	chance, fd = random.Random(name), os.open(path, os.O_WRONLY | os.O_APPEND)
	for n in range(count):
		line = b"%s %d " % (name.encode(), n) + name[:1].encode() * chance.choice((0, 10, 500, 5000)) + b"\n"
		if os.write(fd, line) != len(line):
			raise ValueError("a short write")
		if n % 50 == 49:
			os.close(fd)
			fd = os.open(path, os.O_WRONLY | os.O_APPEND)
	os.close(fd)
	return "done"

def appended(d):
	shared("team", COMMON, 0o2770)
	assert alice(put, "team/log", b"first\n") is None
	assert view("team/log")[2:] == (COMMON, "0o100664")
	works = [(make(), name) for make, name in ((new_alice, "a1"), (new_bob, "b1"), (new_alice, "a2"), (new_bob, "b2"))]
	for user, name in works:
		user.start(append_lines, "team/log", name, 250)
	for user, name in works:
		result = user.finish()
		assert result == "done", result
	lines = get("team/log").split(b"\n")
	assert lines[0] == b"first" and lines[-1] == b""
	counts = {}
	for line in lines[1:-1]:
		name, n, data = line.split(b" ")
		assert int(n) == counts.get(name, 0) and set(data) <= set(name[:1]), "a line is torn or lost: %r" % line[:40]
		counts[name] = int(n) + 1
	assert counts == {b"a1": 250, b"a2": 250, b"b1": 250, b"b2": 250}, counts
	assert stranger(append_lines, "team/log", "s", 1) == "EACCES"
	return [os.stat("team/log").st_size]

wrong = 0
for check in (sticky, group_folder, alone, access_lists, at_once, appended):
	seen = []
	for place in sys.argv[1:]:
		folder = os.path.join(place, check.__name__)
		os.mkdir(folder)
		os.chdir(folder)
		os.umask(0o022)
		# In the folder where they work from the start
		new_alice, new_bob = lambda: User(65534, 65533, [COMMON]), lambda: User(1001, 2001, [COMMON, 7777])
		alice, bob, stranger = new_alice(), new_bob(), User(1002, 2002, [7777])
		try:
			seen.append(check(folder))
		except Exception:
			print("FAIL: %s in %s:" % (check.__name__, place))
			traceback.print_exc(file=sys.stdout)
			wrong += 1
		os.chdir("/")
		for user in User.all:
			user.socket.close()
			os.waitpid(user.pid, 0)
		User.all.clear()
	if len(seen) == 2 and seen[0] != seen[1]:
		for at, (a, b) in enumerate(zip(*seen)):
			if a != b:
				print("FAIL: %s: step %d: plain %r, mount %r" % (check.__name__, at, a, b))
		wrong += 1
sys.exit(1 if wrong else 0)
END

chmod 755 "$work" "$plain" "$backing"
for road in flush=10ms flush=manual,write=store; do
	echo "-o $road"
	mount_start "$road,allow_other"
	python3 "$work/users.py" "$plain" "$mnt" || fail "-o $road"
	mount_stop
	# The backing folder holds what the mount was last seen to
	cmp <(sort "$plain/appended/team/log") <(sort "$backing/appended/team/log") || fail "the common log, in the backing folder"
	for tree in at_once group_folder alone sticky access_lists; do
		diff -r "$plain/$tree" "$backing/$tree" || fail "$tree in the backing folder"
		for place in plain backing; do
			(cd "${!place}/$tree" && find . -printf '%p %U:%G %M\n' | sort && getfacl -n -R -p . 2>/dev/null) \
				>"$work/view.$place"
		done
		assert_same "$work/view.plain" "$work/view.backing" "$tree in the backing folder"
	done
	rm -r "${backing:?}"/* "${plain:?}"/*
done
