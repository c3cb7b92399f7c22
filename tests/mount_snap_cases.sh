#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Hard cases of point-in-time views, one by one: names, inodes, holes, privileges, mappings, files of other
# owners, what cannot be read, and views that are dropped while they are used.

# Files of another owner than the daemon's, for when that is an ordinary user
prepare() {
	[ "$(id -u)" -eq 0 ] || return 0
	mkdir -p "$1/foreign/open" "$1/foreign/closed"
	echo read >"$1/foreign/open/read"
	echo written >"$1/foreign/open/written"
	echo closed >"$1/foreign/open/closed"
	echo blind >"$1/foreign/open/blind"
	echo kept >"$1/foreign/closed/kept"
	chmod 666 "$1/foreign/open/written"
	# (Of modes all are made readable.)
	setfacl -m u:65534:--- "$1/foreign/open/closed"
	setfacl -m u:65534:-w- "$1/foreign/open/blind"
	chmod 777 "$1/foreign" "$1/foreign/open"
}

# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 300 root user
need python3 setfattr setfacl

mount_kill() {
	{
		kill -KILL "$daemon"
		daemon_wait
	} 2>/dev/null
	fusermount3 -u -z "$mnt"
}

again() { # by SIGKILL
	mount_kill
	mount_start
}

view=$mnt/.snap/view

# ---------------------------------------------------------------- names and inodes

mkdir -p "$backing"/{a/deep/er,b}
echo in >"$backing/a/deep/er/file"
echo one >"$backing/first"
ln "$backing/first" "$backing/b/second"
echo open >"$backing/unlinked"
mkdir "$backing/again"
echo was >"$backing/again/name"
mount_start

# A file that is open, and has no name any more, at the instant: not in the view, and whole for who has it
exec 7<>"$mnt/unlinked"
rm "$mnt/unlinked"
mkdir "$view"
[ ! -e "$view/unlinked" ] || fail "a file without a name is in a view"
echo still >&7
assert_equal "still" "$(cat "/proc/self/fd/7")" "an open file without a name"
exec 7<&-

# A folder that is renamed, and what is below it
mv "$mnt/a/deep" "$mnt/b/moved"
mv "$mnt/a" "$mnt/c"
assert_equal in "$(cat "$view/a/deep/er/file")" "below a folder that was renamed"
again
assert_equal in "$(cat "$view/a/deep/er/file")" "below a folder that was renamed, after SIGKILL"
assert_equal "er" "$(ls "$view/a/deep")" "a folder that was renamed, after SIGKILL"

# Names of one file in several folders: one inode
assert_equal "$(stat -c '%i %h' "$view/first")" "$(stat -c '%i %h' "$view/b/second")" "two names of one file"
rm "$mnt/first"
echo changed >"$mnt/b/second"
assert_equal "one one" "$(cat "$view/first" "$view/b/second" | xargs)" "one of two names was removed"
again
assert_equal "$(stat -c '%i 2' "$view/first")" "$(stat -c '%i %h' "$view/b/second")" "two names of one file, after SIGKILL"
assert_equal "one one" "$(cat "$view/first" "$view/b/second" | xargs)" "one of two names was removed, after SIGKILL"
echo mine >"$view/first"
assert_equal "mine changed" "$(cat "$view/b/second" "$mnt/b/second" | xargs)" "written by another name, in the view"

# A folder that is removed, and one with its number made
number=$(stat -c %i "$backing/again")
rm -r "$mnt/again"
again # which holds it no longer
for try in {1..300}; do
	mkdir "$mnt/new$try"
	[ "$(stat -c %i "$backing/new$try")" != "$number" ] || break
done
[ "$(stat -c %i "$backing/new$try")" = "$number" ] || echo "the file system gives no number twice"
echo other >"$mnt/new$try/name"
assert_equal was "$(cat "$view/again/name")" "in a folder whose number is another one's"
[ ! -e "$view/new$try" ] || fail "a folder of later is in a view"

# A folder is listed while it changes: each name of then, once
mkdir "$mnt/busy"
(cd "$mnt/busy" && seq 3000 | split -l 1 -a 4 -d - f)
mkdir "$mnt/.snap/busy"
python3 - "$mnt" <<'END' || fail "a folder that changes while it is listed"
import os, sys, threading
top, over = sys.argv[1], threading.Event()
def change():
	number = 0
	while not over.is_set():
		name = "%s/busy/f%04d" % (top, number * 7 % 3000)
		if os.path.exists(name):
			os.rename(name, "%s/busy/g%d" % (top, number))
		open("%s/busy/h%d" % (top, number), "w").close()
		number += 1
thread = threading.Thread(target=change)
thread.start()
wanted = sorted("f%04d" % i for i in range(3000))
try:
	for _ in range(10):
		assert sorted(os.listdir(top + "/.snap/busy/busy")) == wanted
finally:
	over.set()
	thread.join()
END
rmdir "$mnt/.snap/busy"

# ---------------------------------------------------------------- bytes and attributes

noise 1 3 | head -c 40000 >"$mnt/cut"
truncate -s 100000 "$mnt/holes"
printf data | dd of="$mnt/holes" bs=1 seek=50000 conv=notrunc status=none
cp "$mnt/cut" "$mnt/punched"
cp --sparse=always "$mnt/cut" "$work/cut"
cp --sparse=always "$mnt/holes" "$work/holes"
echo x >"$mnt/times"
echo x >"$mnt/attributes"
setfattr -n user.color -v red "$mnt/attributes"
cp /bin/true "$mnt/setuid"
chmod 4755 "$mnt/setuid"
mkdir "$mnt/.snap/bytes"
was=$(stat -c '%y %Y %s' "$mnt/.snap/bytes/times")
: >"$mnt/cut"
noise 1 4 | head -c 60000 >>"$mnt/cut"
truncate -s 20000 "$mnt/holes"
truncate -s 200000 "$mnt/holes"
printf new | dd of="$mnt/holes" bs=1 seek=90000 conv=notrunc status=none
fallocate -p -o 4096 -l 20000 "$mnt/punched"
touch -d '2001-02-03 04:05:06' "$mnt/times"
setfattr -n user.color -v blue "$mnt/attributes"
printf x >>"$mnt/setuid" # (by an ordinary user, or not: the mode is set by hand, too)
chmod 755 "$mnt/setuid"
bytes_are() {
	cmp "$work/cut" "$mnt/.snap/bytes/cut" || fail "truncated to nothing, $1"
	cmp "$work/holes" "$mnt/.snap/bytes/holes" || fail "truncated and extended, $1"
	cmp "$work/cut" "$mnt/.snap/bytes/punched" || fail "punched, $1"
	assert_equal "$was" "$(stat -c '%y %Y %s' "$mnt/.snap/bytes/times")" "times only, $1"
	assert_equal red "$(getfattr --only-values -n user.color "$mnt/.snap/bytes/attributes" 2>/dev/null)" "attributes only, $1"
	assert_equal 4755 "$(stat -c %a "$mnt/.snap/bytes/setuid")" "set-uid, $1"
	assert_equal "$(stat -c %s /bin/true)" "$(stat -c %s "$mnt/.snap/bytes/setuid")" "the length of what was appended to, $1"
}
bytes_are "at once"
again
bytes_are "after SIGKILL"
rmdir "$mnt/.snap/bytes"

# Shared mappings of one file, live and in two views, at once
noise 1 5 | head -c 64K >"$mnt/mapped"
mkdir "$mnt/.snap/one"
mkdir "$mnt/.snap/two"
python3 - "$mnt" <<'END' || fail "shared mappings"
import mmap, os, sys
paths = [sys.argv[1] + at + "/mapped" for at in ("", "/.snap/one", "/.snap/two")]
was = open(paths[0], "rb").read()
maps = []
for path in paths:
	fd = os.open(path, os.O_RDWR)
	maps.append(mmap.mmap(fd, len(was)))
for number, map in enumerate(maps):
	for page in range(number, 16, 3):
		map[page * 4096 + 10:page * 4096 + 14] = b"map%d" % number
for map in maps:
	map.flush()
for number, path in enumerate(paths):
	wanted = bytearray(was)
	for page in range(number, 16, 3):
		wanted[page * 4096 + 10:page * 4096 + 14] = b"map%d" % number
	assert maps[number][:] == wanted, "mapping %d" % number
	assert open(path, "rb").read() == wanted, path
END
again
assert_equal "map0 map1 map2" "$(for at in "" /.snap/one /.snap/two; do strings -n 4 "$mnt$at/mapped" | grep -o 'map[0-9]' | sort -u; done | xargs)" "mappings, after SIGKILL"

# ---------------------------------------------------------------- views are dropped while they are used

mkdir "$mnt/.snap/three"
python3 - "$mnt" <<'END' || fail "views that are dropped while they are read"
import errno, os, sys, threading
top, over, wrong = sys.argv[1], threading.Event(), []
def read(view):
	path = "%s/.snap/%s/mapped" % (top, view)
	wanted = open(path, "rb").read()
	fd = os.open(path, os.O_RDONLY)
	while True:
		try:
			os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
			found = os.pread(fd, len(wanted), 0)
			if len(found) and found != wanted:
				wrong.append(view)
				return
		except OSError as error:
			if error.errno != errno.ESTALE:
				wrong.append("%s: %s" % (view, error))
			return
def write():
	fd, number = os.open(top + "/mapped", os.O_RDWR), 0
	while not over.is_set():
		number += 1
		os.pwrite(fd, b"%07d " % number * 512, number % 16 * 4096)
threads = [threading.Thread(target=read, args=(view,)) for view in ("one", "two", "three")]
writer = threading.Thread(target=write)
for thread in threads + [writer]:
	thread.start()
for view in ("two", "one", "three"):
	threading.Event().wait(0.3)
	os.rmdir("%s/.snap/%s" % (top, view))
for thread in threads:
	thread.join(60)
over.set()
writer.join()
assert not wrong, wrong
END
assert_equal view "$(ls "$mnt/.snap")" "views that are left"
rmdir "$view"
mount_stop
"${program[@]}" --check "$backing/.mmapfs" >"$work/out" || fail "--check: $(cat "$work/out")"

# ---------------------------------------------------------------- kept elsewhere: no links into the store

echo linked >"$backing/one"
ln "$backing/one" "$backing/two"
mkdir "$work/views"
mount_start "snapdir=$work/views"
mkdir "$view"
rm "$mnt/one"
mount_stop
mount_start "snapdir=$work/views"
assert_equal "linked linked" "$(cat "$view/one" "$view/two" | xargs)" "one of two names, kept elsewhere"
rmdir "$view"
mount_stop

# ---------------------------------------------------------------- files of other owners

if [ "$who" = user ]; then
	mine=$backing
	backing=$MOUNT_WORK/bin/foreign
	mount_start
	mkdir "$view"
	echo other >"$mnt/open/written"
	! (echo other >"$mnt/open/read") 2>/dev/null || fail "another's file is written"
	! rm "$mnt/closed/kept" 2>/dev/null || fail "another's file is removed from his folder"
	rm -f "$mnt/open/read"
	mv "$mnt/open/written" "$mnt/open/renamed"
	foreign() {
		assert_equal "read written kept" "$(cat "$view/open/read" "$view/open/written" "$view/closed/kept" | xargs)" "another's files, $1"
		assert_equal "0 644" "$(stat -c '%u %a' "$view/open/read")" "whose they are, $1"
		! cat "$view/open/closed" 2>/dev/null || fail "what may not be read is read, $1"
	}
	foreign "at once"
	again
	foreign "after SIGKILL"
	# What the daemon may not read cannot be kept: that much is lost, and no view is given up for it
	echo seen >"$mnt/open/blind"
	rm -f "$mnt/open/closed"
	grep -q '/open/blind: 6 bytes at 0 were to be changed, and could not be read' "$log" || fail "$(cat "$log")"
	foreign "after what may not be read was changed"
	! cat "$view/open/blind" 2>/dev/null || fail "what may not be read is read"
	! grep -q 'given up' "$log" || fail "$(cat "$log")"
	rmdir "$view"
	mount_stop
	backing=$mine
fi
