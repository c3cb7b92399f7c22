#!/bin/bash
# What happens behind the mount, or is done by those who mean harm: names that are not what the
# kernel believes, folders that move, links that are swapped, mounts within BACKING, bits that an
# unprivileged write takes away.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 240 root user
need python3 unshare setpriv setcap getfattr

# As somebody else than the owner of the mount, who has no privilege
other=() allow=
if [ "$who" = root ]; then
	other=(setpriv --reuid=12345 --regid=12345 --clear-groups --)
	allow=allow_other,
fi
chmod 755 "$work"

# ---- a name that the kernel believes is free, and is not: looked up again, and opened as any other

cat >"$work/create.py" <<'END'
import errno, os, sys
try:
	fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o644)
	print(os.write(fd, b"mine"), os.fstat(fd).st_size)
except OSError as error:
	print(errno.errorcode[error.errno])
END
create() {
	"${other[@]}" python3 "$work/create.py" "$mnt/$1"
}

is_missing() {
	! "${other[@]}" stat "$mnt/$1" >/dev/null 2>&1 || fail "$1 is there already"
}

chmod 777 "$backing"
mount_start "${allow}negative_timeout=60"
if [ "$who" = root ]; then
	is_missing secret
	(umask 077 && echo secret >"$backing/secret")
	assert_equal EACCES "$(create secret)" "another's file, by O_CREAT"
	assert_equal secret "$(cat "$backing/secret")" "another's file, after O_CREAT and O_TRUNC"
fi
is_missing own
echo "much longer than that" >"$backing/own"
chmod 666 "$backing/own"
assert_equal "4 4" "$(create own)" "a file made meanwhile, by O_CREAT and O_TRUNC"
assert_equal mine "$(cat "$backing/own")" "a file made meanwhile"
is_missing folder
mkdir "$backing/folder"
assert_equal EISDIR "$(create folder)" "a folder made meanwhile, by O_CREAT"
mount_stop

# ---- folders that swap their places while somebody stands in them

rm -rf "${backing:?}"/*
mkdir -p "$backing/A/B"
echo content >"$backing/A/f"
for ((i = 0; i < 400; i++)); do echo "$i" >"$backing/$i"; done
unlimited=("${program[@]}")
program=(prlimit --nofile=256:256 "${program[@]}")
mount_start prewarm=open
program=("${unlimited[@]}")
(
	cd "$mnt/A/B"
	mv "$backing/A/B" "$backing/B"
	mv "$backing/A" "$backing/B/A"
	timeout 20 stat A >/dev/null 2>&1 || true
	timeout 20 cat A/f >/dev/null 2>&1 || true
	# By the way that the kernel still knows
	assert_equal content "$(timeout 20 cat ../f)" "a file of a folder that is below itself"
	# More than there are descriptors: they are found again by their names, for a user
	for ((i = 0; i < 400; i++)); do cat "$mnt/$i"; done >/dev/null
	timeout 20 stat . A >/dev/null 2>&1 || [ $? -ne 124 ]
) || fail "a folder below itself: hangs"
! daemon_is_gone || fail "a folder below itself: the daemon has died"
is_found_again() {
	[ "$(timeout 20 cat "$mnt/B/A/f" 2>/dev/null)" = content ]
}
wait_until 10 is_found_again || fail "a folder that was moved below what was in it"
mount_stop

# ---- a folder that is swapped for a link that leads out, and back, while names in it are used

rm -rf "${backing:?}"/*
mkdir -p "$backing/d" "$plain/outside"
for place in "$backing/d" "$plain/outside"; do
	for name in x y; do
		echo "${place##*/}" >"$place/$name"
	done
done
ln -s "$plain/outside" "$backing/link"
touch -d 2001-01-01 "$plain/outside"/*
outside_state() {
	find "$plain/outside" -printf '%p %y %m %s %n %T+ %u\n' | sort
	find "$plain/outside" -type f -exec cat {} + -exec getfattr -d -m - {} +
}
outside_state >"$work/outside.before" 2>&1
cat >"$work/swap.py" <<'END'
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
a, b, stop = [os.fsencode(p) for p in sys.argv[1:4]]
swaps = 0
while not os.path.exists(stop):
	if libc.renameat2(-100, a, -100, b, 2) == 0: # RENAME_EXCHANGE
		swaps += 1
# An even number leaves things as they were
if swaps % 2:
	libc.renameat2(-100, a, -100, b, 2)
print(swaps)
END
cat >"$work/use.py" <<'END'
import os, sys, time
end = time.monotonic() + float(sys.argv[2])
counts = {}
def attempt(name, call, *arguments):
	try:
		result = call(*arguments)
		counts[name] = counts.get(name, 0) + 1
		return result
	except OSError:
		return None
def read(path):
	fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
	try:
		return os.read(fd, 100)
	finally:
		os.close(fd)
def write(path, flags):
	fd = os.open(path, os.O_WRONLY | flags, 0o644)
	os.write(fd, b"d\n")
	os.close(fd)
# We hold the folder, so as not to follow the link ourselves: what is swapped is what the daemon sees
while True:
	try:
		fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
		break
	except OSError:
		assert time.monotonic() < end
d = "/proc/self/fd/%d/" % fd
while time.monotonic() < end:
	data = attempt("read", read, d + "x")
	assert data in (None, b"", b"d\n"), data
	attempt("write", write, d + "x", 0)
	attempt("truncate", write, d + "y", os.O_TRUNC)
	attempt("create", write, d + "new", os.O_CREAT | os.O_EXCL)
	attempt("chmod", os.chmod, d + "x", 0o600)
	attempt("utime", os.utime, d + "x")
	attempt("setxattr", os.setxattr, d + "x", "user.a", b"b")
	attempt("link", os.link, d + "x", d + "link")
	attempt("rename", os.rename, d + "new", d + "newer")
	attempt("unlink", os.unlink, d + "newer")
	attempt("unlink", os.unlink, d + "link")
	attempt("mkdir", os.mkdir, d + "sub")
	attempt("rmdir", os.rmdir, d + "sub")
missing = {"read", "write", "create", "chmod", "link", "rename", "unlink", "mkdir"} - counts.keys()
assert not missing, missing
END
mount_start entry_timeout=0,attr_timeout=0
python3 "$work/swap.py" "$backing/d" "$backing/link" "$work/stop" >"$work/swaps" &
swapper=$!
status=0
timeout 60 python3 "$work/use.py" "$mnt/d" 5 || status=$?
touch "$work/stop"
wait "$swapper"
[ "$status" -eq 0 ] || fail "names in a folder that is swapped for a link"
[ "$(cat "$work/swaps")" -gt 100 ] || fail "only $(cat "$work/swaps") swaps"
mount_stop
outside_state >"$work/outside.after" 2>&1
assert_same "$work/outside.before" "$work/outside.after" "what lies outside BACKING"

# ---- bits that a write takes away, whichever way it comes

rm -rf "${backing:?}"/*
if [ "$who" = root ]; then
	for flag in '' direct; do
		head -c 8192 /dev/zero >"$backing/bits"
		chmod 6777 "$backing/bits"
		setcap cap_net_raw+ep "$backing/bits"
		mount_start "$allow"flush=10ms
		"${other[@]}" dd if=/dev/zero of="$mnt/bits" bs=4096 count=1 conv=notrunc status=none \
			${flag:+oflag=$flag}
		assert_equal 777 "$(stat -c %a "$backing/bits")" "mode after an unprivileged write ($flag)"
		assert_equal 777 "$(stat -c %a "$mnt/bits")" "mode on the mount ($flag)"
		! getfattr -n security.capability "$backing/bits" >/dev/null 2>&1 ||
			fail "capabilities after a write ($flag)"
		mount_stop
	done
fi

# ---- a file that may first only be written, then read as well

echo old >"$backing/w"
chmod 200 "$backing/w"
mount_start
echo hidden >"$mnt/w"
chmod 600 "$mnt/w"
assert_equal hidden "$(cat "$mnt/w")" "a file that was opened write-only, once it may be read"
mount_stop

# ---- started with nothing open

"${program[@]}" "$backing" "$mnt" <&- >&- 2>&- || fail "with nothing open: exit status $?"
assert_equal hidden "$(cat "$mnt/w")" "a file, by a daemon that was started with nothing open"
fusermount3 -u "$mnt"

[ "$who" = root ] || exit 0

# ---- file systems and mounts within BACKING

rm -rf "${backing:?}"/*
cat >"$work/within.sh" <<'END'
set -eEuo pipefail
backing=$1 mnt=$2 plain=$3
shift 3
fail() { echo "FAIL: $*" >&2; exit 1; }
mkdir -p "$backing"/{sub,ro,again} "$plain/bound/d/sub"
mount -t tmpfs tmpfs "$backing/sub"
for i in $(seq 40); do
	echo "$i" >"$backing/sub/$i"; ln "$backing/sub/$i" "$backing/sub/$i.link"
	echo "$i" >"$backing/$i"; ln "$backing/$i" "$backing/$i.link"
done
mkdir "$backing/sub/sub"
mount -t tmpfs tmpfs "$backing/sub/sub"
touch "$backing/sub/sub/file"
echo bound >"$plain/bound/f"
mount --bind "$plain/bound" "$backing/ro"
mount -t tmpfs tmpfs "$backing/ro/d/sub"
touch "$backing/ro/d/sub/inner"
mount -o remount,bind,ro "$backing/ro"
for i in $(seq 300); do echo "$i" >"$backing/again/$i"; done
numbers() { find "$mnt" -printf '%P %i\n' | sort; }
"$@" "$backing" "$mnt"
errors=$(find "$mnt" 2>&1 >/dev/null) || true
[ -z "$errors" ] || fail "find: $errors"
numbers >"$plain/numbers"
fusermount3 -u "$mnt"
"$@" "$backing" "$mnt"
[ "$(stat -c %i "$mnt")" = "$(stat -c %i "$backing")" ] || fail "the root's number"
numbers | diff "$plain/numbers" - || fail "inode numbers differ after mounting again"
# As many have one number as are links of one file
find "$mnt" ! -type d -printf '%i %n\n' | sort | uniq -c | awk '$1 != $3' >"$plain/twice"
find "$mnt" -type d -printf '%i\n' | sort | uniq -d >>"$plain/twice"
[ ! -s "$plain/twice" ] || fail "inode numbers of several: $(head "$plain/twice")"
diff -r "$backing/sub" "$mnt/sub" || fail "diff -r"
# What was looked up long ago, and dropped, is found again by the mount that it was reached by
exec 5<"$mnt/ro/d" 6<"$mnt/ro/f"
for i in $(seq 300); do cat "$mnt/again/$i"; done >/dev/null
! mkdir /proc/self/fd/5/new 2>/dev/null || fail "a folder was made on a read-only mount"
! chmod 600 /proc/self/fd/6 2>/dev/null || fail "a mode was changed on a read-only mount"
! touch "$mnt/ro/f" 2>/dev/null || fail "a time was changed on a read-only mount"
[ "$(ls "$mnt/ro/d/sub")" = inner ] || fail "a file system mounted below: $(ls "$mnt/ro/d/sub")"
[ "$(cat "$mnt/ro/f")" = bound ] || fail "a file of a bound folder"
exec 5<&- 6<&-
fusermount3 -u "$mnt"
umount "$backing/ro/d/sub" "$backing/ro" "$backing/sub/sub" "$backing/sub"
END
timeout 120 "${namespace[@]}" bash "$work/within.sh" "$backing" "$mnt" "$plain" \
	prlimit --nofile=256:256 "${program[@]}" || fail "mounts within BACKING"

# ---- root of a user name space that an ordinary user made

rm -rf "${backing:?}"/*
echo content >"$backing/f"
chown -R 12345:12345 "$backing" "$mnt"
if [ / -ef /proc/1/root ]; then # else the kernel makes no user name spaces (chroot)
	# shellcheck disable=SC2016 # expanded there
	"${other[@]}" timeout 60 unshare --user --map-root-user --mount bash -c '
		backing=$1 mnt=$2
		shift 2
		"$@" "$backing" "$mnt" && cat "$mnt/f" && echo new >"$mnt/new" && umount "$mnt"
		' - "$backing" "$mnt" "${program[@]}" >"$work/out" 2>&1 || fail "in a user name space: $(cat "$work/out")"
	assert_equal content "$(cat "$work/out")" "a file, in a user name space"
	assert_equal "12345 new" "$(stat -c %u "$backing/new") $(cat "$backing/new")" "a file made in a user name space"
else
	echo "not tried: user name spaces, which the kernel does not make in a root folder entered by chroot"
fi

# ---- a file that goes to another owner while an ordinary user's daemon has it mapped

rm -rf "${backing:?}"/*
chown 65534:65534 "$backing" "$mnt"
cat >"$work/chowned.sh" <<'END'
set -eEuo pipefail
backing=$1 mnt=$2
shift 2
user=(setpriv --reuid=65534 --regid=65534 --clear-groups --)
file_time() { stat -c %y "$backing/f"; }
# Three overwrites: each but the first moves mtime by itself, in BACKING after a second at the latest
write_moves() {
	local before now try
	for try in 1 2 3; do
		before=$(file_time)
		"${user[@]}" dd if=/dev/zero of="$mnt/f" bs=100 count=1 conv=notrunc status=none
		sleep 1.3
		now=$(file_time)
		[ "$before" != "$now" ] || { echo "FAIL: mtime is not moved by write $try, $1"; exit 1; }
	done
}
head -c 8192 /dev/zero >"$backing/f"
chown 65534:65534 "$backing/f"
"${user[@]}" "$@" -o flush=manual,write=store "$backing" "$mnt"
write_moves "by its owner's daemon"
chown 0:0 "$backing/f"
chmod 666 "$backing/f"
sleep 1.1
write_moves "once it is another's"
umount "$mnt"
END
timeout 60 bash "$work/chowned.sh" "$backing" "$mnt" "${program[@]}" || fail "a file that was chowned"
