#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What point-in-time views are when the daemon is killed, at any system call by which it changes the store or
# the live tree: what the tree was at their instants. And after a power cut: that, or an error, and that of
# nothing but what was changed just before. There BACKING, and the store in it, are on a disk that writes down each
# write and each flush (tool_disk.c); then one disk after the other is made of the log's begin and of some of
# what was not flushed yet, and mounted as if the system had been started anew.
#
# CRASH_CUTS says how often the power is cut (24), CRASH_STEPS how much is done in each of two parts (250),
# CRASH_SEED by which chance (1).
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 900 root

if [ -z "${CRASH_NAMESPACE-}" ]; then
	CRASH_NAMESPACE=1 exec "${namespace[@]}" "$BASH" "$0"
fi
detach_copies
need mkfs.ext4 python3 strace

seed=${CRASH_SEED:-1}
cat >"$work/steps.py" <<'END'
# steps.py begin BACKING | work MNT BACKING MARK SEED STEPS [killed] | check MNT MARKS SEED STEPS [killed]
#
# What is done follows from SEED. There are two trees, "early" and "late". In the first part both are
# changed; then all rests for longer than a checkpoint takes, twice; in the second part only "late" is.
import errno, os, random, sys, time

PAGE, PAGES = 4096, 48
FOLDERS = ["d%d" % i for i in range(8)]
FAR = 3 * 64 << 20  # another region of a file

def page(number, version):
	return (b"%08d %08d " % (number, version) * 256)[:PAGE]

def whole(name, version, length=5000):
	return (b"%s %08d " % (name.encode(), version) * length)[:length]

def begin_state():
	state = {}
	for tree in ("early", "late"):
		files = state[tree] = {}
		files["pages"] = ("pages", tuple([0] * PAGES))
		for i in range(24):
			files["%s/f%d" % (FOLDERS[i % len(FOLDERS)], i)] = ("file", 0, 5000)
			files["x/x%d" % i] = ("xattr", 0)
			files["t/t%d" % i] = ("file", 0, 20000)
		for folder in FOLDERS + ["x", "t"]:
			files[folder] = ("folder",)
	return state

# What a file has, as text of it and of its attribute
def bytes_of(path, what):
	if what[0] == "pages":
		return b"".join(page(i, version) for i, version in enumerate(what[1]))
	name = os.path.basename(what[3] if len(what) > 3 else path)
	return whole(name, what[1], what[2]) if what[0] == "file" else b"constant"

# One after the other: part, number, what is done, and what then is
def steps(seed, count):
	chance = random.Random(seed)
	state, views = begin_state(), 0
	for part in (1, 2):
		for number in range(1, count + 1):
			step = (part - 1) * count + number
			tree = "late" if part == 2 else chance.choice(["early", "late"])
			kind = chance.choice(["page"] * 8 + ["unlink", "create", "replace", "move", "xattr", "cut", "mode"] * 2)
			state = {name: dict(files) for name, files in state.items()}
			files = state[tree]
			pick = lambda folder: chance.choice(sorted(n for n in files if n.startswith(folder + "/")) or [None])
			if number % (count // 4) == 1: # the first step of a part, and some more
				views += 1
				what = ("view", "v%d" % views)
			elif number == count // 2 + 5: # of which nothing is kept any more
				what = ("drop", "v%d" % views)
			elif kind == "page":
				at = chance.randrange(PAGES)
				pages = list(files["pages"][1])
				pages[at] = step
				files["pages"] = ("pages", tuple(pages))
				what = (kind, tree, at)
			elif kind == "create":
				path = "%s/n%d" % (chance.choice(FOLDERS), step)
				files[path] = ("file", step, 3000)
				what = (kind, tree, path)
			elif kind in ("unlink", "replace", "move"):
				path = pick(chance.choice(FOLDERS))
				if path is None:
					continue
				if kind == "unlink":
					del files[path]
				elif kind == "replace":
					files[path] = ("file", step, 4000)
				else:
					to = chance.choice(FOLDERS) + "/" + os.path.basename(path)
					files[to] = files.pop(path)
				what = (kind, tree, path, to if kind == "move" else None)
			elif kind == "xattr":
				path = pick("x")
				files[path] = ("xattr", step)
				what = (kind, tree, path)
			elif kind == "cut":
				path = pick("t")
				length = chance.choice([0, 4096, 5000, 12288])
				if files[path][2] < length:
					continue
				files[path] = (files[path][0], files[path][1], length)
				if chance.random() < 0.5: # and written anew
					files[path] = ("file", step, 20000)
				what = (kind, tree, path, length)
			else:
				path = pick(chance.choice("tx"))
				what = (kind, tree, path)
				files["mode of " + path] = ("mode", 0o600 + step % 64)
			how = ["", "data", "range", "folder"] if part == 2 else ["", "", "data", "range", "rows", "heap", "folder"]
			yield part, step, what, chance.choice(how), state

def put(path, bytes, flags=os.O_CREAT | os.O_WRONLY, at=0):
	fd = os.open(path, flags, 0o644)
	assert os.pwrite(fd, bytes, at) == len(bytes)
	os.close(fd)

def sync(path):
	fd = os.open(path, os.O_RDONLY)
	os.fsync(fd)
	os.close(fd)

def begin(backing):
	for tree, files in begin_state().items():
		for path, what in files.items():
			if what[0] == "folder":
				os.makedirs("%s/%s/%s" % (backing, tree, path), exist_ok=True)
		for path, what in files.items():
			if what[0] != "folder":
				os.makedirs(os.path.dirname("%s/%s/%s" % (backing, tree, path)), exist_ok=True)
				put("%s/%s/%s" % (backing, tree, path), bytes_of(path, what))
			if what[0] == "xattr":
				os.setxattr("%s/%s/%s" % (backing, tree, path), "user.version", b"0")
		put("%s/%s/far" % (backing, tree), b"near", at=0)
		put("%s/%s/far" % (backing, tree), b"far", at=FAR)

def do(top, step, what, state):
	kind, tree, path = what[0], top + "/" + what[1] + "/", what[2]
	name = tree + str(path)
	if kind == "page":
		put(tree + "pages", page(path, step), os.O_WRONLY, path * PAGE)
		return tree + "pages"
	after = state[what[1]].get(path)
	if kind == "create":
		put(name, bytes_of(path, after))
	elif kind == "unlink":
		os.unlink(name)
	elif kind == "replace":
		put(tree + "new", bytes_of(path, after))
		os.rename(tree + "new", name)
	elif kind == "move":
		os.rename(name, tree + what[3])
		return tree + what[3]
	elif kind == "xattr":
		os.setxattr(name, "user.version", b"%d" % step)
	elif kind == "cut":
		os.truncate(name, what[3])
		if after[1] == step:
			put(name, bytes_of(path, after), os.O_WRONLY)
	elif kind == "mode":
		os.chmod(name, state[what[1]]["mode of " + path][1])
	return name

def work(mnt, backing, mark, seed, count, killed):
	mark, last = os.open(mark, os.O_WRONLY | os.O_APPEND), 0
	say = lambda text: os.pwrite(mark, text.encode() + b"\n", 0)
	for part, step, what, how, state in steps(seed, count):
		if part == 2 and last == 1 and not killed:
			time.sleep(3.5)
			say("rested")
		last = part
		if what[0] == "view":
			os.mkdir(mnt + "/.snap/" + what[1])
			if not killed:
				sync(mnt + "/.snap")
			say("view %s" % what[1])
			continue
		if what[0] == "drop":
			os.rmdir(mnt + "/.snap/" + what[1])
			say("dropped %s" % what[1])
			continue
		path = do(mnt, step, what, state)
		if killed:
			continue
		# As the kernel does, when it likes to
		under = backing + path[len(mnt):]
		if how == "data" and os.path.exists(under):
			sync(under)
		elif how == "range" and os.path.exists(under):
			os.system("dd if=/dev/null of='%s' oflag=nocache conv=notrunc,fdatasync status=none" % under)
		elif how == "folder":
			sync(os.path.dirname(under))
		elif how in ("rows", "heap"):
			sync(backing + "/.mmapfs/" + {"rows": "rows-wal", "heap": "heap"}[how])
		time.sleep(0.003)

def check(mnt, marks, seed, count, killed):
	marks = open(marks).read().split("\n")
	rested = "rested" in marks
	states = {what[1]: (part, state) for part, _, what, _, state in steps(seed, count) if what[0] == "view"}
	drops = {what[1] for _, _, what, _, _ in steps(seed, count) if what[0] == "drop"}
	doubt = {"early": 0, "late": 0}
	items = 0
	for view, (part, state) in states.items():
		top = "%s/.snap/%s" % (mnt, view)
		if not os.path.isdir(top):
			assert "view " + view not in marks or view in drops, "view %s is gone" % view
			continue
		assert "dropped " + view not in marks, "view %s is there again" % view
		for tree, files in state.items():
			def in_doubt(error, what):
				assert error.errno == errno.EIO, "%s: %s/%s: %s" % (what, view, tree, error)
				doubt[tree] += 1
				assert not killed, "%s: %s/%s is in doubt: %s" % (what, view, tree, error)
				assert not (rested and tree == "early") or "view " + view not in marks, \
					"%s: %s/%s is in doubt: %s" % (what, view, tree, error)
			base = "%s/%s/" % (top, tree)
			for folder in FOLDERS:
				names = {os.path.basename(n) for n in files if n.startswith(folder + "/")}
				items += 1
				try:
					found = set(os.listdir(base + folder))
				except OSError as error:
					in_doubt(error, folder)
					continue
				assert names <= found, "%s/%s/%s: there is no %s" % (view, tree, folder, names - found)
				for name in found - names: # which was made later
					try:
						os.stat(base + folder + "/" + name)
						assert False, "%s/%s/%s: has %s" % (view, tree, folder, name)
					except OSError as error:
						in_doubt(error, name)
			for path, what in files.items():
				items += 1
				if what[0] in ("folder", "mode"):
					continue
				wanted = bytes_of(path, what)
				try:
					size = os.stat(base + path).st_size
					assert size == len(wanted), "%s/%s/%s: %d bytes, not %d" % (view, tree, path, size, len(wanted))
					mode, was = os.stat(base + path).st_mode & 0o777, files.get("mode of " + path, (0, 0o644))[1]
					assert mode == was, "%s/%s/%s: mode %o, not %o" % (view, tree, path, mode, was)
				except OSError as error:
					in_doubt(error, path)
					continue
				fd = os.open(base + path, os.O_RDONLY)
				for at in range(0, len(wanted), PAGE):
					try:
						found = os.pread(fd, PAGE, at)
						assert found == wanted[at:at + PAGE], \
							"%s/%s/%s at %d: %r, not %r" % (view, tree, path, at, found[:30], wanted[at:at + 30])
					except OSError as error:
						in_doubt(error, path)
				os.close(fd)
				if what[0] == "xattr":
					try:
						found = os.getxattr(base + path, "user.version")
						assert found == b"%d" % what[1], "%s/%s/%s: version %r, not %d" % (view, tree, path, found, what[1])
					except OSError as error:
						in_doubt(error, path)
			try:
				fd = os.open(base + "far", os.O_RDONLY)
				assert os.pread(fd, 3, FAR) == b"far" # in a region that nobody ever changed
				os.close(fd)
			except OSError as error:
				in_doubt(error, "far")
	print("%d of %d" % (sum(doubt.values()), items))

number = lambda at: int(sys.argv[at])
if sys.argv[1] == "begin":
	begin(sys.argv[2])
elif sys.argv[1] == "work":
	work(sys.argv[2], sys.argv[3], sys.argv[4], number(5), number(6), len(sys.argv) > 7)
else:
	check(sys.argv[2], sys.argv[3], number(4), number(5), len(sys.argv) > 6)
END

# ---------------------------------------------------------------- the daemon is killed

is_traced() {
	! grep -q '^TracerPid:.0$' "/proc/$daemon/status"
}

python3 "$work/steps.py" begin "$plain"
# A shell of its own, which says what was killed
apart=("$BASH" -c '"$@" || true' apart)
# (The call itself is not done any more.)
for call in pwrite64 fdatasync linkat unlinkat renameat,renameat2 ftruncate fsetxattr,setxattr; do
	killed=0
	for at in 1 2 3 4 5 6 7 9 12 16 22 30 42 60 85 120; do
		where="killed at $call $at"
		rm -rf "${backing:?}" && cp -a "$plain" "$backing" && : >"$work/mark"
		mount_start_daemon rw
		"${apart[@]}" timeout 60 strace -f -q -o "$work/strace" -e trace="$call" -e inject="$call:signal=KILL:when=$at" -p "$daemon" 2>"$work/error" &
		wait_until 20 is_traced || fail "$where: not traced"
		if python3 "$work/steps.py" work "$mnt" "$backing" "$work/mark" "$seed" 60 killed 2>"$work/error"; then
			fusermount3 -u "$mnt"
			wait || true
			break # it does not do so more often
		fi
		killed=$((killed + 1))
		fusermount3 -u -z "$mnt" 2>/dev/null || true
		wait || true
		mount_start rw
		python3 "$work/steps.py" check "$mnt" "$work/mark" "$seed" 60 killed >"$work/found" || fail "$where"
		mount_stop
		"${program[@]}" --check "$backing/.mmapfs" >"$work/out" 2>&1 || [ ! -s "$backing/.mmapfs/rows" ] || fail "$where: --check: $(cat "$work/out")"
	done
	[ "$killed" -gt 0 ] || fail "never killed at $call"
	echo "killed at $killed of its calls of $call"
done
rm -rf "${plain:?}"

# ---------------------------------------------------------------- the power is cut

mkdir "$work"/{disk,recorded}
truncate -s 256M "$work/image"
mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=0 -J size=4 "$work/image"
mount -o loop "$work/image" "$work/disk"
mkdir "$work/disk/tree"
python3 "$work/steps.py" begin "$work/disk/tree"
umount "$work/disk"

backing=$work/disk/tree
cp --sparse=always "$work/image" "$work/image.now"
"$TOOLS/tool_disk" serve "$work/image.now" "$work/log.disk" "$work/recorded" &
wait_until 10 test -e "$work/recorded/disk" || fail "tool_disk does not serve"
mount -o loop "$work/recorded/disk" "$work/disk"
mount_start rw
first=$("$TOOLS/tool_disk" count "$work/log.disk")
python3 "$work/steps.py" work "$mnt" "$backing" "$work/recorded/mark" "$seed" "${CRASH_STEPS:-250}"
last=$("$TOOLS/tool_disk" count "$work/log.disk")
mount_stop
umount "$work/disk"
wait_until 10 fusermount3 -u "$work/recorded" || fail "the recorded disk is in use"
wait

: >"$work/logs"
RANDOM=$seed
for ((cut = 0; cut < ${CRASH_CUTS:-24}; cut++)); do
	at=$((first + (RANDOM * 32768 + RANDOM) % (last - first)))
	cp --sparse=always "$work/image" "$work/image.now"
	"$TOOLS/tool_disk" cut "$work/image.now" "$work/log.disk" "$at" "$cut" >"$work/marks"
	where="cut $cut, at $at of $first to $last, seed $seed: $(xargs <"$work/marks")"
	# The system was started anew
	cat /proc/sys/kernel/random/uuid >"$work/boot"
	mount --bind "$work/boot" /proc/sys/kernel/random/boot_id
	mount -o loop "$work/image.now" "$work/disk" || fail "$where: ext4"
	mount_start rw
	python3 "$work/steps.py" check "$mnt" "$work/marks" "$seed" "${CRASH_STEPS:-250}" >"$work/found" || fail "$where"
	"$MMAPFSCTL" snapshot list "$mnt" >"$work/list" || fail "$where: list"
	cat "$work/list" >>"$work/lists"
	"$MMAPFSCTL" snapshot list --json "$mnt" | python3 -c 'import json, sys; json.load(sys.stdin)' || fail "$where: list --json"
	mount_stop
	cat "$log" >>"$work/logs"
	# The same again, from what is in the store
	"${program[@]}" --check "$backing/.mmapfs" >"$work/out" 2>&1 || [ ! -e "$backing/.mmapfs" ] || fail "$where: --check: $(cat "$work/out")"
	mount_start rw
	python3 "$work/steps.py" check "$mnt" "$work/marks" "$seed" "${CRASH_STEPS:-250}" >"$work/again" || fail "$where: mounted again"
	assert_equal "$(cat "$work/found")" "$(cat "$work/again")" "$where: in doubt, mounted again"
	for view in "$mnt/.snap"/*; do
		[ ! -d "$view" ] || rmdir "$view" || fail "$where: rmdir"
	done
	mount_stop
	umount "$work/disk"
	umount /proc/sys/kernel/random/boot_id
	echo "$where: in doubt: $(cat "$work/found")"
done
# Else it was not what it is to be about
grep -q 'was being changed when the system ended' "$work/logs" || fail "nothing was in doubt"
for what in names 'extended attributes' bytes; do
	grep -qE "^    lost: ([a-z ]+, )*$what(, [a-z ]+)* of /(early|late)/" "$work/lists" || fail "$what that were lost are not listed: $(head -n 5 "$work/lists")"
done
