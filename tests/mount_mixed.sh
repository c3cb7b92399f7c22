#!/bin/bash
# Four threads of mixed operations that know what they have to see; and beside them four readers
# and a writer of a file that a process outside truncates and grows in the backing folder.
# MIXED_SECONDS says how long for root, and for an ordinary user (10), MIXED_SEED which operations.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" "$((${MIXED_SECONDS:-10} + 60))" root user

# Half of the time with pwrite, half with stores into the mapping, which need the fault guard
for options in flush=10ms flush=manual,write=store; do
	seconds=$(((${MIXED_SECONDS:-10} + 1) / 2))
	mount_start "$options"
	mkdir "$mnt/mixed"
	"$TOOLS/tool_outside" "$mnt/shared" "$backing/shared" "$seconds" >"$work/outside" 2>&1 &
	outside=$!
	"$TOOLS/tool_mixed" "$mnt/mixed" "$backing/mixed" "$seconds" ${MIXED_SEED:+"$MIXED_SEED"} &
	mixed=$!
	status=0
	wait "$mixed" || fail "tool_mixed: exit status $?"
	wait "$outside" || status=$?
	cat "$work/outside"
	[ "$status" -eq 0 ] || fail "tool_outside: exit status $status"
	! daemon_is_gone || fail "the daemon has died"

	# What the outside has left is what the mount shows, at last
	shows_backing() {
		cmp -s "$mnt/shared" "$backing/shared"
	}
	wait_until 5 shows_backing || fail "after 5 s the mount does not show what was left"
	diff -r "$backing/mixed" "$mnt/mixed" || fail "diff -r"
	mount_stop
	rm -rf "${backing:?}"/*
done
