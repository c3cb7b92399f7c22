#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Views of folders that are not as most are: of file systems that do not count links of folders, nor
# tell types in listings; mounted twice; gone behind the view. Stores on disks that die. What only a
# privileged view shows.
#
# The disks are loop devices, in a mount namespace of this script: the kernel takes them away with it.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 400 root

if [ -z "${VIEW_NAMESPACE-}" ]; then
	VIEW_NAMESPACE=1 exec "${namespace[@]}" "$BASH" "$0"
fi
detach_copies
need mkfs.ext4 debugfs losetup sqlite3 getfattr python3 strace fallocate

# make_disk NAME OPTION...: an ext4 of its own at $work/NAME
make_disk() {
	local name=$1
	shift
	truncate -s 64M "$work/$name.image"
	mkfs.ext4 -q -F -m 0 -b 4096 "$@" "$work/$name.image"
	mkdir -p "$work/$name"
	mount -o loop,errors=continue "$work/$name.image" "$work/$name"
}

mount_kill() {
	{
		kill -KILL "$daemon"
		daemon_wait
	} 2>/dev/null
	fusermount3 -u -z "$mnt"
}

tree() {
	(cd "$1" && find . -name lost+found -prune -o -printf '%p %y %m %n %l\n' | sort)
}

# ---------------------------------------------------------------- links that are not counted, types that are not told

make_disk disk -O ^filetype,^has_journal
mkdir -p "$work"/disk/one/{a,b,c/d,e}
echo inside >"$work/disk/one/file"
ln -s target "$work/disk/one/link"
umount "$work/disk"
debugfs -w -R 'set_inode_field /one links_count 1' "$work/disk.image" 2>/dev/null
mount -o loop,errors=continue "$work/disk.image" "$work/disk"
assert_equal 1 "$(stat -c %h "$work/disk/one")" "links of a folder that does not count them"
backing=$work/disk
mkdir "$work/store"
tree "$backing" >"$work/before"
mount_start "cow=$work/store"
rmdir "$mnt/one/a"
mv "$mnt/one/b" "$mnt/moved"
mv "$mnt/one/c" "$mnt/one/C"
mkdir "$mnt/one/new" && rmdir "$mnt/one/new" && mkdir "$mnt/one/new"
echo made >"$mnt/one/made"
assert_equal 1 "$(stat -c %h "$mnt/one")" "links of such a folder in the view"
assert_equal "C e file link made new" "$(cd "$mnt/one" && echo *)" "names of a folder of such a file system"
assert_equal "file made" "$(cd "$mnt/one" && find . -type f | sed 's/..//' | sort | xargs)" "files there"
assert_equal "C C/d e new" "$(cd "$mnt/one" && find . -mindepth 1 -type d | sed 's/..//' | sort | xargs)" "folders there"
tree "$mnt" >"$work/view"
mount_stop
mount_start "cow=$work/store"
tree "$mnt" >"$work/view.after"
assert_same "$work/view" "$work/view.after" "the view after a remount"
assert_equal made "$(cat "$mnt/one/made")" "a file in such a folder"
mount_stop
tree "$backing" >"$work/after"
assert_same "$work/before" "$work/after" "BACKING"

# ---------------------------------------------------------------- another file system, the root of which has the same handle

make_disk other -O ^filetype,^has_journal
umount "$work/disk"
mount --move "$work/other" "$work/disk"
! timeout 10 "${program[@]}" -o "cow=$work/store" "$backing" "$mnt" 2>"$work/error" ||
	fail "a store is taken for another file system's"
grep -q 'another folder' "$work/error" || fail "$(cat "$work/error")"
umount "$work/disk"
mount -o loop,errors=continue "$work/disk.image" "$work/disk"

# ---------------------------------------------------------------- one file system at two places

mkdir "$backing"/{twice,below}
mount --bind "$backing/one" "$backing/twice"
mount -t tmpfs tmpfs "$backing/below"
echo other >"$backing/below/file"
mount_start "cow=$work/store"
! ls "$mnt/twice" 2>"$work/error" || fail "a folder that is mounted twice is shown at both places"
grep -q 'not supported' "$work/error" || fail "$(cat "$work/error")"
! ls "$mnt/twice" 2>"$work/error" || fail "the second time"
assert_equal 1 "$(grep -c '^mmapfs: /: what is mounted in it is mounted elsewhere in BACKING too' "$log")" "the log's lines: $(cat "$log")"
echo changed >>"$mnt/one/file"
assert_equal "inside changed" "$(xargs <"$mnt/one/file")" "the place that is shown"
echo changed >>"$mnt/below/file"
mount_stop
mount_start "cow=$work/store"
assert_equal "other changed" "$(xargs <"$mnt/below/file")" "what is on a file system below"
mount_stop
umount "$backing/twice" "$backing/below"

# ---------------------------------------------------------------- a file that the view has shortened

# What the kernel is told of its end is not BACKING's
noise 1 1 | head -c 100000 >"$backing/shortened"
cat >"$work/end.py" <<'END2'
import mmap, os, sys
path = sys.argv[1]
fd = os.open(path, os.O_RDWR)
direct = os.open(path, os.O_RDWR | os.O_DIRECT)
os.pread(fd, 4096, 50000) # BACKING's file is open now
os.ftruncate(fd, 8192)
buffer = mmap.mmap(-1, 4096)
for step in range(20):
	os.pread(fd, 8192, 0) # the kernel has pages
	os.pwrite(direct, buffer, 0)
	end = os.lseek(fd, 0, os.SEEK_END)
	assert end == 8192, "step %d: the end is at %d" % (step, end)
	assert os.fstat(fd).st_size == 8192
assert os.read(os.open(path, os.O_RDONLY), 200000)[4096:] == open(sys.argv[2], "rb").read(8192)[4096:]
END2
mount_start cow
timeout 60 python3 "$work/end.py" "$mnt/shortened" "$backing/shortened" || fail "the end of a file that was shortened"
mount_stop

# ---------------------------------------------------------------- gone from BACKING

mkdir -p "$backing/folder/sub" "$work/gone"
echo all of it >"$backing/folder/sub/file"
head -c 20000 /dev/zero >"$backing/folder/sub/blocks"
mount_start "cow=$work/gone"
mv "$mnt/folder/sub" "$mnt/away"
mount_stop
mount_start "cow=$work/gone"
mv "$mnt/away/file" "$mnt/kept"
printf 1 | dd of="$mnt/away/blocks" bs=1 seek=5000 conv=notrunc status=none
mount_stop
sleep 0.02
rm "$backing/folder/sub/file"
echo more >>"$backing/folder/sub/blocks"
mount_start "cow=$work/gone"
assert_equal 10 "$(stat -c %s "$mnt/kept")" "the size of what is gone"
for file in kept away/blocks; do
	! cat "$mnt/$file" >/dev/null 2>"$work/error" || fail "$file: BACKING's bytes are gone or changed, and it is shown"
	grep -q 'Stale file handle' "$work/error" || fail "$(cat "$work/error")"
done
grep -q ' /folder/sub/file: was removed from BACKING' "$log" || fail "the log: $(cat "$log")"
grep -q ' /folder/sub/blocks: was changed in BACKING' "$log" || fail "the log: $(cat "$log")"
mv "$mnt/kept" "$mnt/again"
rm "$mnt/again" "$mnt/away/blocks"
assert_equal "" "$(ls "$mnt/away")" "what was removed"
rm -r "$backing/folder"
rmdir "$mnt/away"
mount_stop
mount_start "cow=$work/gone"
for name in away again; do
	[ ! -e "$mnt/$name" ] || fail "what was removed is back: $name"
done
mount_stop

# ---------------------------------------------------------------- extended attributes

echo text >"$backing/attributes"
setfattr -n user.base -v base "$backing/attributes"
mkdir "$work/rows"
mount_start "cow=$work/rows"
echo made >"$mnt/made"
for name in foo system.foo; do
	for file in attributes made; do
		! setfattr -n "$name" -v x "$mnt/$file" 2>"$work/error" || fail "$file: there is an attribute $name"
		grep -q 'not supported' "$work/error" || fail "$file, $name: $(cat "$work/error")"
	done
done
rm "$mnt/made"
! setfattr -x user.none "$mnt/attributes" 2>"$work/error" || fail "removed what is not there"
grep -q 'No such attribute' "$work/error" || fail "$(cat "$work/error")"
mount_stop
assert_equal 0 "$("$TOOLS/tool_rows" "$work/rows/rows" "select count(*) from object where base_path = '/attributes'")" "objects that the view has without a change"
# An attribute that was found keeps nothing open in the store: its log is as short as ever
mount_start "cow=$work/rows"
setfattr -n user.own -v own "$mnt/attributes"
python3 -c 'import os, sys
assert os.getxattr(sys.argv[1], "user.own") == b"own"
for i in range(12000):
	os.utime(sys.argv[1], (i, i))' "$mnt/attributes"
size=$(stat -c %s "$work/rows/rows-wal")
[ "$size" -le $((20 << 20)) ] || fail "the log of the rows has $size bytes"
mount_stop

# ---------------------------------------------------------------- set-gid of a foreign group

cat >"$work/fallocate.py" <<'END2'
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.posix_fallocate(fd, 0, 100000)
END2
for folder in "$backing" "$mnt"; do
	if [ "$folder" = "$mnt" ]; then mount_start cow,allow_other; fi
	echo x >"$folder/gid"
	chown 65534:12345 "$folder/gid"
	chmod 2666 "$folder/gid"
	setpriv --reuid=65534 --regid=65534 --clear-groups python3 "$work/fallocate.py" "$folder/gid"
	stat -c %a "$folder/gid"
done >"$work/modes"
assert_equal "666 666" "$(xargs <"$work/modes")" "modes after fallocate, natively and in the view"
# A hole behind the end moves the times, as all that fallocate does
echo short >"$mnt/hole"
touch -d 2001-02-03 "$mnt/hole"
fallocate -n -p -o 1M -l 8192 "$mnt/hole"
assert_equal "6 $(date +%Y)" "$(stat -c %s "$mnt/hole") $(date -r "$mnt/hole" +%Y)" "size and time after a hole behind the end"
mount_stop
rm "$backing/gid"

# ---------------------------------------------------------------- a store on a disk that dies

make_disk dying -O ^has_journal
loop=$(findmnt -n -o SOURCE "$work/dying")
disk_cut() {
	truncate -s "$1" "$work/dying.image"
	losetup -c "$loop"
}
for policy in always manual; do
	rm -rf "$work/dying/store"
	mkdir "$work/dying/store"
	mount_start "cow=$work/dying/store,flush=$policy"
	noise 1 1 | head -c 256K >"$mnt/first"
	python3 -c 'import os, sys; os.fsync(os.open(sys.argv[1], os.O_RDWR))' "$mnt/first"
	disk_cut 1M # before all that files have
	status=0
	noise 1 2 | head -c 256K | dd of="$mnt/first" bs=64K iflag=fullblock conv=notrunc status=none 2>"$work/error" || status=$?
	if [ $policy = always ]; then
		[ "$status" -ne 0 ] || fail "flush=always: a write that did not reach the disk succeeded"
		grep -q 'Input/output error' "$work/error" || fail "flush=always: $(cat "$work/error")"
		# It is not on the disk, and it is what the file has: now, and when rows are read again
		cmp <(noise 1 2 | head -c 64K) <(dd if="$mnt/first" bs=64K count=1 iflag=direct status=none) ||
			fail "flush=always: a write that could not be synced is neither done nor undone"
		noise 1 2 | head -c 256K | dd of="$mnt/first" bs=64K iflag=fullblock conv=notrunc status=none 2>/dev/null || true
	else
		assert_equal 0 "$status" "a write that nobody syncs"
		! python3 -c 'import os, sys; os.fsync(os.open(sys.argv[1], os.O_RDWR))' "$mnt/first" 2>"$work/error" ||
			fail "fsync succeeded without the disk"
		grep -q 'Input/output error' "$work/error" || fail "fsync: $(cat "$work/error")"
	fi
	grep -q 'what was changed may not be on the disk: Input/output error' "$log" || fail "the log: $(cat "$log")"
	# What follows is right for as long as we live, whatever the disk has
	for ((i = 3; i < 8; i++)); do
		noise 1 $i | head -c 256K >"$mnt/file.$i" 2>/dev/null || true
		noise 1 $i | dd of="$mnt/file.$i" bs=64K count=4 iflag=fullblock conv=notrunc status=none 2>/dev/null || true
	done
	if [ $policy = manual ]; then # with always, each first write of a file has failed
		cmp <(noise 1 2 | head -c 256K) "$mnt/first" || fail "a file after a failed sync"
		for ((i = 3; i < 8; i++)); do
			cmp <(noise 1 $i | head -c 256K) "$mnt/file.$i" || fail "a file made after a failed sync"
		done
	fi
	disk_cut 64M
	! python3 -c 'import os, sys; os.fsync(os.open(sys.argv[1], os.O_RDWR))' "$mnt/first" 2>"$work/error" ||
		fail "an error of syncing was forgotten"
	fusermount3 -u "$mnt"
	daemon_wait
	assert_equal 1 "$daemon_status" "exit status after a sync that failed"
	# No two files have the same slot
	"$TOOLS/tool_rows" "$work/dying/store/rows" 'select count(*) from chunk' >"$work/out" || fail "the rows: $(cat "$work/out")"
	"${program[@]}" --check "$work/dying/store" >"$work/out" 2>&1 || true
	! grep -q 'twice\|both' "$work/out" || fail "$(cat "$work/out")"
done

# ---------------------------------------------------------------- what is told durable is

backing=$work/backing
noise 1 1 >"$backing/data"
rows() {
	"$TOOLS/tool_rows" "$1/rows" "$2"
}
mkdir "$work/kept"
mount_start "cow=$work/kept,flush=manual"
echo one >"$mnt/one"
assert_equal "600 600 600" "$(stat -c %a "$work/kept"/{heap,rows,rows-wal} | xargs)" "modes of what tells all names"
mount_stop
# Each sync writes another number: else SQLite would have nothing to write
before=$(rows "$work/kept" "select value from meta where key = 'synced'")
mount_start "cow=$work/kept,flush=manual"
echo two >"$mnt/two"
python3 -c 'import os, sys; os.fsync(os.open(sys.argv[1], os.O_RDWR))' "$mnt/two"
mount_kill
after=$(rows "$work/kept" "select value from meta where key = 'synced'")
[ "$after" -gt "$before" ] || fail "a sync that writes what is there: $before, $after"
# What the rows say is free is so on the disk before it is used again, also after SIGKILL
mount_start "cow=$work/kept,flush=manual"
mount_kill
before=$after
after=$(rows "$work/kept" "select value from meta where key = 'synced'")
[ "$after" -gt "$before" ] || fail "a store is used as it was left, unsynced"

# The log of the rows is brought into the data base now and then: if that fails, fsync says so
mkdir "$work/failing"
program_alone=("${program[@]}")
program=(strace -f -o "$work/trace" -P "$work/failing/rows-wal" -e 'trace=fdatasync,fsync'
	-e 'inject=fdatasync,fsync:error=EIO:when=4' "${program[@]}")
mount_start "cow=$work/failing,flush=manual"
python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
try:
	for i in range(24000): # (a commit syncs the log, too, when that begins anew)
		os.utime(sys.argv[1], (i, i))
except OSError as error:
	assert error.errno == 5, error
try:
	os.fsync(fd)
	sys.exit("fsync succeeded")
except OSError as error:
	assert error.errno == 5, error' "$mnt/file" || fail "a checkpoint that failed: $(cat "$work/trace")"
grep -q INJECTED "$work/trace" || fail "no sync of the log: $(cat "$work/trace")"
fusermount3 -u "$mnt"
daemon_wait
assert_equal 1 "$daemon_status" "exit status after a checkpoint that failed"
program=("${program_alone[@]}")

# Killed in the making
mkdir "$work/begun"
: >"$work/begun/heap"
mount_start "cow=$work/begun"
mount_stop

# ---------------------------------------------------------------- room

# held FOLDER: MiB that its heap takes on the disk
held() {
	echo $(($(stat -c '%b * %B' "$1/heap") >> 20))
}
mkdir "$work/room"
mount_start "cow=$work/room,cow_limit=2M,flush=manual"
noise 1 3 | head -c 512K >"$mnt/small"
for ((i = 0; i < 60; i++)); do
	noise 1 $i | head -c 512K | dd of="$mnt/small" conv=notrunc bs=64K iflag=fullblock status=none || fail "no room for what takes the place of other bytes"
done
[ "$(held "$work/room")" -le 4 ] || fail "cow_limit=2M, and $(held "$work/room") MiB are taken"
! dd if=/dev/zero of="$mnt/full" bs=64K status=none 2>"$work/error" || fail "no limit"
size=$(stat -c %s "$mnt/full")
truncate -s $((size - 1000)) "$mnt/full" || fail "a full view cannot be shortened"
printf x | dd of="$mnt/small" bs=1 seek=5000 conv=notrunc status=none || fail "a full view cannot be changed in place"
! fallocate -l 1T "$mnt/reserved" 2>"$work/error" || fail "room for 1 TiB"
grep -q 'No space' "$work/error" || fail "$(cat "$work/error")"
rm "$mnt/full"
noise 1 4 >"$mnt/full" || fail "room was not given back"
mount_stop
mkdir "$work/back"
mount_start "cow=$work/back,flush=10ms"
noise 48 1 >"$mnt/large"
exec 9<"$mnt/large"
rm "$mnt/large"
sleep 0.3 # it is synced that it has no name; what it had is still its reader's
exec 9<&-
is_given_back() {
	[ "$(held "$work/back")" -le 2 ]
}
wait_until 10 is_given_back || fail "$(held "$work/back") MiB are still taken by what was removed"
# What is sparse costs nothing
truncate -s 15T "$mnt/sparse"
printf x | dd of="$mnt/sparse" bs=1 seek=15000000000000 conv=notrunc status=none
timeout 20 fallocate -n -p -o 4096 -l 14T "$mnt/sparse" || fail "a hole in a large sparse file"
timeout 20 python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, b"x", 14 << 40)
assert os.lseek(fd, 5000, os.SEEK_DATA) == 14 << 40
assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
assert os.pread(fd, 10, (14 << 40) - 5) == bytes(5) + b"x" + bytes(4)
os.ftruncate(fd, 8 << 40)
os.ftruncate(fd, 15 << 40)
assert os.pread(fd, 1, 14 << 40) == bytes(1)' "$mnt/sparse" || fail "a large sparse file"
mount_stop

# ---------------------------------------------------------------- --check where it cannot look

mkdir "$work/readonly"
mount --bind "$work/back" "$work/readonly"
mount -o remount,bind,ro "$work/readonly"
status=0
"${program[@]}" --check "$work/readonly" >"$work/out" 2>&1 || status=$?
[ "$status" -ne 1 ] || fail "a store that cannot be opened is told damaged: $(cat "$work/out")"
umount "$work/readonly"

# ---------------------------------------------------------------- odd calls

mount_start cow
mkdir "$mnt/odd"
timeout 120 "$TOOLS/tool_odd" "$mnt/odd" >"$work/odd" || fail "odd calls: exit status $?"
[ "$(grep -c . "$work/odd")" -gt 1000 ] || fail "few odd calls were tried"
rm -r "$mnt/odd" || fail "rm -r"
mount_stop

# ---------------------------------------------------------------- BACKING that cannot be changed; a full disk; a newer format

mount --bind "$work/disk" "$work/readonly"
mount -o remount,bind,ro "$work/readonly"
backing=$work/readonly
mkdir "$work/fixed"
mount_start "cow=$work/fixed"
echo new >>"$mnt/one/file"
mv "$mnt/one" "$mnt/uno"
chmod 700 "$mnt/uno"
mount_stop
mount_start "cow=$work/fixed"
assert_equal new "$(tail -n 1 "$mnt/uno/file")" "a view of what is read-only"
rm -r "${mnt:?}"/* || fail "rm -r in a view of what is read-only"
mount_stop
umount "$work/readonly"
backing=$work/backing

rm -rf "$work/dying/store"
mkdir "$work/dying/store"
mount_start "cow=$work/dying/store,flush=10ms"
noise 1 9 >"$mnt/before"
! dd if=/dev/zero of="$mnt/full" bs=64K status=none 2>"$work/error" || fail "a full disk is never full"
grep -q 'No space left' "$work/error" || fail "$(cat "$work/error")"
cmp <(noise 1 9) "$mnt/before" || fail "a file beside one that found no room"
size=$(stat -c %s "$mnt/full")
cmp <(head -c "$size" /dev/zero) "$mnt/full" || fail "what was acknowledged on a disk that became full"
rm "$mnt/full"
come_back() {
	noise 1 8 2>/dev/null >"$mnt/after"
} 2>/dev/null
wait_until 20 come_back || fail "no room after what filled the disk was removed: $(df "$work/dying")"
mount_stop
mount_start "cow=$work/dying/store"
cmp <(noise 1 9) "$mnt/before" || fail "after the disk was full"
cmp <(noise 1 8) "$mnt/after" || fail "what was written after the disk was full"
mount_stop
"${program[@]}" --check "$work/dying/store" >"$work/out" || fail "the store after its disk was full: $(cat "$work/out")"

rows "$work/fixed" "update meta set value = 99 where key = 'format'"
! timeout 10 "${program[@]}" -o "cow=$work/fixed" "$work/disk" "$mnt" 2>"$work/error" || fail "a store of a newer format"
grep -q 'newer version' "$work/error" || fail "$(cat "$work/error")"
assert_equal 99 "$(rows "$work/fixed" "select value from meta where key = 'format'")" "a store that was refused"
