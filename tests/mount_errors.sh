#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Disks that are full, and disks that die: the writer gets the errno, what was acknowledged is there,
# the log has file, range and errno, an error of writing back stays until the bytes have been
# written anew, and a mount that cannot bring all to the disk in the end says so by its exit status.
#
# The disk is a loop device, in a mount namespace of this script: the kernel takes it away with it.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 240 root

if [ -z "${ERRORS_NAMESPACE-}" ]; then
	ERRORS_NAMESPACE=1 exec "${namespace[@]}" "$BASH" "$0"
fi
detach_copies
need mkfs.ext4 filefrag losetup python3
truncate -s 96M "$work/image"
# Without a journal, that would make the whole disk read-only
mkfs.ext4 -q -F -m 0 -b 4096 -O ^has_journal "$work/image"
mkdir "$work/disk"
mount -o loop,errors=continue "$work/image" "$work/disk"
loop=$(findmnt -n -o SOURCE "$work/disk")
mkdir "$work/disk/backing"
backing=$work/disk/backing

# Everything from byte $1 of the disk on fails; with its size it is well again
disk_cut() {
	truncate -s "$1" "$work/image"
	losetup -c "$loop"
}

cat >"$work/errors.py" <<'END'
import errno, os, sys, time

def fails(expected, call, *arguments):
	try:
		call(*arguments)
	except OSError as error:
		assert error.errno == expected, error
		return
	raise AssertionError("%s succeeded" % call.__name__)

def fill(path, piece):
	"""Writes until the disk is full. Returns what was acknowledged."""
	fd = os.open(path, os.O_WRONLY | os.O_CREAT)
	done = 0
	while True:
		try:
			done += os.write(fd, piece)
		except OSError as error:
			assert error.errno == errno.ENOSPC, error
			os.close(fd)
			return done

def full(mnt, backing):
	piece = bytes(range(256)) * 256
	sparse = os.open(mnt + "/sparse", os.O_RDWR | os.O_CREAT)
	os.ftruncate(sparse, 1 << 30)
	done = fill(mnt + "/full", piece)
	for folder in (mnt, backing):
		data = open(folder + "/full", "rb").read()
		assert len(data) == done and data == (piece * (done // len(piece) + 1))[:done], folder
	# A store into a hole would be a SIGBUS here
	written = {}
	for offset in range(0, 1 << 30, 1 << 24):
		try:
			written[offset] = os.pwrite(sparse, piece, offset)
		except OSError as error:
			assert error.errno == errno.ENOSPC, error
	assert len(written) < 64, "the disk was not full"
	for offset in range(0, 1 << 30, 1 << 24):
		expected = written.get(offset, 0)
		assert os.pread(sparse, 65536, offset) == piece[:expected] + bytes(65536 - expected)
	# What is allocated can be overwritten on a full disk
	over = os.open(mnt + "/full", os.O_RDWR)
	assert os.pwrite(over, b"x" * 65536, 65536) == 65536
	assert os.pread(over, 65536, 65536) == b"x" * 65536
	fails(errno.ENOSPC, os.posix_fallocate, sparse, 0, 1 << 28)
	os.unlink(mnt + "/full")
	os.close(over)
	# FUSE tells of the last close when it has time
	for attempt in range(1000):
		try:
			assert os.pwrite(sparse, piece, 7 << 20) == 65536
			break
		except OSError as error:
			assert error.errno == errno.ENOSPC, error
			time.sleep(0.01)
	else:
		raise AssertionError("a removed file still takes room")
	os.fsync(sparse)
	os.close(sparse)

def dead(mnt, backing):
	fd = os.open(mnt + "/victim", os.O_RDWR)
	print("break", flush=True)
	sys.stdin.readline()
	assert os.pwrite(fd, b"y" * 4096, 8192) == 4096
	fails(errno.EIO, os.fsync, fd)
	fails(errno.EIO, os.fsync, fd)
	other = os.open(mnt + "/victim", os.O_RDONLY)
	fails(errno.EIO, os.fsync, other)
	assert os.pread(other, 4096, 8192) == b"y" * 4096
	print("repair", flush=True)
	sys.stdin.readline()
	# Nothing but writing anew makes it good
	fails(errno.EIO, os.fsync, fd)
	assert os.pwrite(fd, b"z" * 100, 8192) == 100
	fails(errno.EIO, os.fsync, fd)
	assert os.pwrite(fd, b"z" * 4096, 8192) == 4096
	os.fsync(fd)
	os.fsync(other)

def attempt(call, *arguments):
	try:
		call(*arguments)
		return 0
	except OSError as error:
		return error.errno

def sync_of(path):
	fd = os.open(path, os.O_RDONLY)
	result = attempt(os.fsync, fd)
	os.close(fd)
	return result

def forgotten(mnt, backing):
	"""The error outlives every handle, every cache, and what the kernel knows of the file."""
	fd = os.open(mnt + "/victim", os.O_RDWR)
	print("break", flush=True)
	sys.stdin.readline()
	assert os.pwrite(fd, b"y" * 4096, 8192) == 4096
	if sys.argv[4:] != ["background"]:
		fails(errno.EIO, os.fsync, fd)
	else: # the flusher is told, and nobody else
		end = time.monotonic() + 30
		while "/victim: bytes" not in open(sys.argv[5]).read():
			assert time.monotonic() < end
			time.sleep(0.01)
	os.close(fd)
	print("repair", flush=True)
	sys.stdin.readline()
	for n in range(50):
		with open(mnt + "/other-%d" % n, "wb") as file:
			file.write(b"x")
	with open("/proc/sys/vm/drop_caches", "w") as file:
		file.write("2")
	time.sleep(0.2)
	assert [sync_of(mnt + "/victim") for _ in range(3)] == [errno.EIO] * 3
	fd = os.open(mnt + "/victim", os.O_RDWR)
	assert os.pwrite(fd, b"z" * 4096, 8192) == 4096
	os.fsync(fd)
	assert sync_of(mnt + "/victim") == 0

dict(full=full, dead=dead, forgotten=forgotten)[sys.argv[1]](*sys.argv[2:4])
END

for policy in manual 10ms 64K; do
	mount_start "flush=$policy"
	timeout 60 python3 "$work/errors.py" full "$mnt" "$backing" || fail "a full disk, flush=$policy"
	mount_stop
	rm -f "$backing"/*
done

# Makes a file; what lies from its first block on can be cut off, at byte $cut of the disk
victim() {
	rm -f "$backing"/*
	dd if=/dev/urandom of="$backing/victim" bs=1M count=1 conv=fsync status=none
	sync -f "$backing" || true # which may tell of the last disk that was cut
	cut=$(filefrag -v -b4096 "$backing/victim" | awk '$1 == "0:" { sub(/\..*/, "", $4); print $4 * 4096 }')
	[ -n "$cut" ] || fail "filefrag: $(filefrag -v "$backing/victim")"
}

for policy in manual 1s; do
	victim
	mount_start "flush=$policy"
	coproc steps { timeout 60 python3 "$work/errors.py" dead "$mnt" "$backing"; }
	# shellcheck disable=SC2154 # coproc sets it
	steps_pid=$steps_PID
	exec {from}<&"${steps[0]}" {to}>&"${steps[1]}"
	read -r -u "$from" step
	assert_equal break "$step" "the first step"
	disk_cut "$cut"
	echo >&"$to"
	read -r -u "$from" step || fail "an error of writing back was lost"
	assert_equal repair "$step" "the second step"
	disk_cut 96M
	echo >&"$to"
	wait "$steps_pid" || fail "an error of writing back"
	exec {from}<&- {to}>&-
	grep -q '/victim: bytes 8192 to 12288 may not be on the disk: Input/output error' "$log" ||
		fail "the log does not name file, range and errno"
	mount_stop
done

# What cannot be read gives EIO, and the daemon goes on
victim
mount_start flush=manual
drop_pages "$backing/victim"
disk_cut "$cut"
for command in "cat $mnt/victim" "dd if=$mnt/victim bs=4096 skip=9 count=1 iflag=direct status=none" \
	"dd if=/dev/zero of=$mnt/victim bs=100 seek=1000 count=1 conv=notrunc status=none"; do
	! $command >/dev/null 2>"$work/error" || fail "succeeded without the disk: $command"
	grep -q 'Input/output error' "$work/error" || fail "$command: $(cat "$work/error")"
done
disk_cut 96M
drop_pages "$backing/victim"
cmp "$mnt/victim" "$backing/victim" || fail "reading, with the disk well again"
mount_stop

# An error stays though the file was closed, its place in the caches given to others, and forgotten
program_at_ease=("${program[@]}")
program=(prlimit --nofile=64:64 "${program[@]}")
for kind in foreground background; do
	victim
	mount_start flush=$([ $kind = background ] && echo 10ms || echo manual)
	coproc steps { timeout 60 python3 "$work/errors.py" forgotten "$mnt" "$backing" "$kind" "$log"; }
	steps_pid=$steps_PID
	exec {from}<&"${steps[0]}" {to}>&"${steps[1]}"
	read -r -u "$from" step
	disk_cut "$cut"
	echo >&"$to"
	read -r -u "$from" step || fail "an error of writing back was lost ($kind)"
	assert_equal repair "$step" "the second step"
	disk_cut 96M
	echo >&"$to"
	wait "$steps_pid" || fail "an error of writing back was forgotten ($kind)"
	exec {from}<&- {to}>&-
	mount_stop
done
program=("${program_at_ease[@]}")

# With always, the write that could not be brought to the disk says so
victim
mount_start flush=always
disk_cut "$cut"
! dd if=/dev/zero of="$mnt/victim" bs=4096 count=1 seek=5 conv=notrunc status=none 2>"$work/error" ||
	fail "flush=always: a write that did not reach the disk succeeded"
grep -q 'Input/output error' "$work/error" || fail "flush=always: $(cat "$work/error")"
kill -TERM "$daemon"
daemon_wait
assert_equal 1 "$daemon_status" "exit status after a sync that failed"
disk_cut 96M

# SIGTERM with bytes that cannot be brought to the disk
victim
mount_start flush=manual
disk_cut "$cut"
dd if=/dev/zero of="$mnt/victim" bs=4096 count=1 seek=5 conv=notrunc status=none
kill -TERM "$daemon"
daemon_wait
assert_equal 1 "$daemon_status" "exit status after a last sync that failed"
grep -q '/victim: bytes 20480 to 24576 may not be on the disk: Input/output error' "$log" ||
	fail "the last sync's error is not in the log"
grep -q 'not all could be brought to the disk' "$log" || fail "the end is not in the log"
disk_cut 96M
