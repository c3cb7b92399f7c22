#!/bin/bash
# Odd and hostile arguments of system calls: what each says on the mount is what it says in a plain
# folder. What a FUSE file system cannot but do otherwise is listed here, and has to be as it is listed.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 180 root user

# What the mount says, and why:
cat >"$work/others" <<'END'
# The limit to offsets is that of FUSE, MAX_LFS_FILESIZE (fuse_fill_super_common()), not that of the file
# system below, which has its say only when something is written there
offsets: lseek 0 to 9223372036854775807: 9223372036854775807
offsets: lseek 0 to 9223372036854775806: 9223372036854775806
offsets: lseek 0 to 9223372036854775797: 9223372036854775797
offsets: lseek 1 to 9223372036854775797: 9223372036854775802
offsets: lseek 2 to 9223372036854775797: 9223372036854775807
offsets: lseek 0 to 9223372036854710271: 9223372036854710271
offsets: lseek 1 to 9223372036854710271: 9223372036854710276
offsets: lseek 2 to 9223372036854710271: 9223372036854710281
offsets: copy_file_range, 2, 9223372036854775806: 0
offsets: copy_file_range, 2, 9223372036854775797: 0
offsets: copy_file_range, 2, 9223372036854710271: 0
offsets: sendfile at 9223372036854775797: 0
offsets: sendfile at 9223372036854710271: 0
# ioctl(2) is not passed on (fuse_do_ioctl() without FUSE_IOCTL), nor is there a fiemap
# (fuse_file_inode_operations)
ioctls: ioctl(fd, FS_IOC_GETFLAGS, &flags): ENOTTY
ioctls: ioctl(fd, FS_IOC_SETFLAGS, &flags): ENOTTY
ioctls: ioctl(fd, FS_IOC_GETVERSION, &flags) ? -1 : 0: ENOTTY
ioctls: ioctl(fd, FS_IOC_FSGETXATTR, &attributes): ENOTTY
ioctls: ioctl(fd, FS_IOC_FIEMAP, &map): EOPNOTSUPP
# README: the flag needs a libfuse that Debian 12 does not have
opens: open(".", O_RDWR | O_TMPFILE, 0600): EOPNOTSUPP
# Mounts of FUSE have no devices, unless root asks for them by -o dev (mount(8), libfuse's mount.c)
special: type-020000: EACCES
special: type-060000: EACCES
# All attributes come with each answer (fuse_change_attributes_common()), but the time of birth never: that
# takes FUSE_STATX, which libfuse 3.14 does not have
statistics: what came of mask 0: 2047
statistics: what came of mask 1: 2047
statistics: what came of mask 40000000: 2047
statistics: time of birth, mask fff: 0
statistics: time of birth, mask 1fff: 0
# No file of FUSE can promise not to wait (FMODE_NOWAIT, kiocb_set_rw_flags())
writes: preadv2(fd, &in, 1, 0, RWF_NOWAIT): EOPNOTSUPP
END

mkdir "$plain/odd"
timeout 60 "$TOOLS/tool_odd" "$plain/odd" >"$work/odd.plain" || fail "without a mount: exit status $?"
[ "$(grep -c . "$work/odd.plain")" -gt 1000 ] || fail "few calls were tried"
rm -r "$plain/odd"

mount_start ''
mkdir "$mnt/odd"
timeout 120 "$TOOLS/tool_odd" "$mnt/odd" >"$work/odd.mount" || fail "on the mount: exit status $?"
! daemon_is_gone || fail "the daemon has died"
# Also where that is deeper than a path may be long
rm -r "$mnt/odd" || fail "rm -r"
assert_equal "" "$(ls -A "$backing")" "what rm -r has left in the backing folder"
mount_stop

# Where the list has a line for a call, that is what is expected. (Some of it is about ext4: on others the
# folder itself may do as FUSE does, or the mount as the folder.)
strict=0
if [ "$(stat -f -c %T "$plain")" = ext2/ext3 ]; then strict=1; fi
awk -v strict="$strict" '
	function name(line) { sub(/: [^:]*$/, "", line); return line }
	FILENAME ~ /others$/ { if (!/^#/) other[name($0)] = $0; next }
	FILENAME ~ /plain$/ { plain[FNR] = $0; next }
	name($0) in other && (strict || $0 == other[name($0)]) { print other[name($0)]; next }
	{ print plain[FNR] }' "$work/others" "$work/odd.plain" "$work/odd.mount" >"$work/odd.expected"
assert_same "$work/odd.expected" "$work/odd.mount" "calls"
assert_equal "$(wc -l <"$work/odd.plain")" "$(wc -l <"$work/odd.mount")" "how many calls were tried"
