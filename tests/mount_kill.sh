#!/bin/bash
# The daemon is killed by SIGKILL right after a write returned: the bytes are in the backing
# file, and the mount point can be used again.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 180 root user

noise 1 1 >"$plain/old"

# Writes SIZE bytes at OFFSET of FILE, and kills process PID in the same breath
cat >"$work/kill.py" <<'END'
import os, random, sys
path, offset, size, pid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
data = random.Random(offset + size).randbytes(size)
fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
if offset < 0:
	offset = os.fstat(fd).st_size
written = os.pwrite(fd, data, offset)
os.kill(pid, 9)
if written != size:
	sys.exit("a short write")
END

# What a file has to be
cat >"$work/expected.py" <<'END'
import random, sys
path, offset, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data = random.Random(offset + size).randbytes(size)
old = bytearray(open(path, "rb").read())
if offset < 0:
	offset = len(old)
old.extend(bytes(max(0, offset - len(old))))
old[offset:offset + size] = data
sys.stdout.buffer.write(old)
END

try=0
for policy in manual 10ms; do
	# Within one page, across pages, large, at the end, beyond it, and a new file
	for write in 'old 5 100' 'old 4000 9000' 'old 8192 4096' 'old 65536 524288' 'old -1 7000' \
		'old 2000000 100' 'new 0 300000'; do
		try=$((try + 1))
		read -r name offset size <<<"$write"
		rm -f "$backing/$name"
		if [ "$name" = old ]; then cp "$plain/old" "$backing/old"; else : >"$plain/new"; fi
		mount_start "flush=$policy"
		if [ "$name" = old ]; then cmp "$plain/old" "$mnt/old"; fi
		# (The shell has a word to say about the killed)
		{
			python3 "$work/kill.py" "$mnt/$name" "$offset" "$size" "$daemon" || : >"$work/failed"
			daemon_wait
		} 2>"$work/error"
		[ ! -e "$work/failed" ] || fail "$policy: write of '$write': $(cat "$work/error")"
		assert_equal 137 "$daemon_status" "exit status of the daemon"
		python3 "$work/expected.py" "$plain/$name" "$offset" "$size" >"$work/expected"
		cmp "$work/expected" "$backing/$name" || fail "$policy: lost by SIGKILL: '$write'"

		# The dead mount gives an error, is not mounted over, and goes away by the usual command
		! "${program[@]}" "$backing" "$mnt" 2>"$work/error" || fail "mounted over a dead mount"
		grep -q 'process is gone; fusermount3 -u' "$work/error" || fail "$(cat "$work/error")"
		! ls "$mnt" 2>"$work/error" || fail "a dead mount lists"
		is_mounted || fail "the dead mount is gone by itself"
		fusermount3 -u "$mnt" || fail "fusermount3 -u of a dead mount"
		! is_mounted || fail "still mounted"
		assert_equal "" "$(ls -A "$mnt")" "the mount point"
	done
done

# Killed in the middle of everything, and mounted again at once
for try in 1 2 3; do
	mount_start flush=10ms
	(
		for ((i = 0; ; i++)); do
			noise 1 "$try" >"$mnt/many.$try.$i" || exit 0
			# Only what was written whole counts
			echo "many.$try.$i" >>"$work/acknowledged" || exit 0
		done
	) 2>/dev/null &
	writer=$!
	wait_until 10 test -e "$mnt/many.$try.2" || fail "nothing is written"
	{ kill -KILL "$daemon" && daemon_wait; } 2>/dev/null
	wait "$writer" || true
	fusermount3 -u "$mnt"
	mount_start flush=10ms
	while read -r name; do
		cmp <(noise 1 "${name:5:1}") "$mnt/$name" || fail "$name was acknowledged before SIGKILL"
	done <"$work/acknowledged"
	mount_stop
done
