#!/bin/bash
# Locks, which are the kernel's alone: of all kinds they do on the mount what they do in a plain folder.
# Processes of the mount exclude each other; processes on BACKING do not see them (README).
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 120 root user

# What can be had of a file that is locked by a process on another path: $1 locked, $2 tried
try_beside() {
	local held
	coproc "$TOOLS/tool_locks" hold "$1"
	read -r held <&"${COPROC[0]}"
	assert_equal held "$held" "tool_locks hold $1"
	"$TOOLS/tool_locks" try "$2"
	kill "$COPROC_PID"
	wait "$COPROC_PID" || true
}

timeout 30 "$TOOLS/tool_locks" "$plain" >"$work/locks.plain" || fail "without a mount"
mount_start ''
status=0
timeout 60 "$TOOLS/tool_locks" "$mnt" >"$work/locks.mount" || status=$?
assert_same "$work/locks.plain" "$work/locks.mount" "locks"
assert_equal 0 "$status" "exit status of tool_locks"
[ "$(grep -c . "$work/locks.mount")" -gt 150 ] || fail "few locks were tried"

echo content >"$mnt/file"
taken=$'flock: EAGAIN\nfcntl: EAGAIN\nfcntl: done\nopen file description: EAGAIN'
free=${taken//EAGAIN/done}
assert_equal "$taken" "$(try_beside "$mnt/file" "$mnt/file")" "locked by another process of the mount"
assert_equal "$free" "$(try_beside "$mnt/file" "$backing/file")" "locked on the mount, tried on BACKING"
assert_equal "$free" "$(try_beside "$backing/file" "$mnt/file")" "locked on BACKING, tried on the mount"
assert_equal "$free" "$("$TOOLS/tool_locks" try "$mnt/file")" "when all are gone"
mount_stop
