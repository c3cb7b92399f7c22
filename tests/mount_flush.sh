#!/bin/bash
# The flush policies, judged by cachestat(2) on the backing file: which of its pages still wait
# to be written to the disk. (Reading bytes back would prove nothing.) Nothing here calls sync
# or fsync but where it says so; and the kernel by itself leaves dirty pages alone for half a
# minute.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 270 root user

file=$backing/file
# The ways to write a policy are all tried by root alone
more=
if [ "$who" = root ]; then more=1; fi

# A file that lies on the disk whole, with no dirty page
file_make() {
	noise 1 1 >"$file"
	sync "$file"
	is_clean "$file" || fail "fsync leaves dirty pages: not a disk file system? Set TESTDIR"
}

# Overwrites COUNT pieces of SIZE bytes of the file through the mount, from piece SKIP on, one
# write for each: put SIZE COUNT SKIP [CONV]
put() {
	dd if=/dev/urandom of="$mnt/file" bs="$1" count="$2" seek="$3" conv="notrunc${4:+,$4}" \
		iflag=fullblock status=none
}

# After `put ARGUMENTS` the file is dirty, and stays so for 0.3 s. Somebody else may have synced
# this file system meanwhile: so it has three tries.
put_stays_dirty() {
	local try
	for try in 1 2 3; do
		put "$@"
		if stays 300 is_dirty "$file"; then return; fi
		sync "$file"
		sleep "0.$try"
	done
	fail "$policy: clean, and nothing asked for a sync (put $*)"
}

# How long the disk takes is not this test's affair; but it must not be the kernel that did it
patience=20

becomes_clean() {
	wait_until "$patience" is_clean "$file" ||
		fail "$policy: $dirty pages dirty, $writeback in write-back, after $patience s: $*"
}

# A kernel without the call, or a file system where it shows nothing
file_make
printf x | dd of="$file" conv=notrunc status=none
is_dirty "$file" || fail "a write leaves no dirty page: cachestat shows nothing on this file system"

# Nothing but fsync and the unmount syncs: not even close
for policy in manual ${more:+never}; do
	file_make
	mount_start "flush=$policy"
	put_stays_dirty 4096 7 20
	put 512 1 30 fsync
	is_clean "$file" || fail "$policy: dirty pages after fsync through the mount"
	put_stays_dirty 65536 3 4
	put 512 1 3 fdatasync
	is_clean "$file" || fail "$policy: dirty pages after fdatasync through the mount"
	put_stays_dirty 1000 10 0
	sync "$mnt/file"
	is_clean "$file" || fail "$policy: dirty pages after sync FILE"
	# What an extending write leaves
	head -c 100000 /dev/urandom >>"$mnt/file"
	is_dirty "$file" || fail "$policy: an extending write is clean"
	sync "$mnt/file"
	is_clean "$file" || fail "$policy: dirty pages after the fsync of an extending write"
	put_stays_dirty 4096 20 3
	mount_stop
	is_clean "$file" || fail "$policy: $dirty pages dirty, $writeback in write-back, after the unmount"
done

# The default is manual
policy=default
file_make
mount_start
put_stays_dirty 4096 7 20
mount_stop
is_clean "$file" || fail "default: $dirty pages dirty after the unmount"

# The signals that end the daemon sync everything first
policy=manual
for signal in TERM INT HUP; do
	file_make
	mount_start flush=manual
	put 4096 50 10
	cp "$plain/../log" "$mnt/another"
	noise 2 2 >"$mnt/new"
	is_dirty "$file" || put_stays_dirty 4096 50 10
	kill -"$signal" "$daemon"
	daemon_wait
	assert_equal 0 "$daemon_status" "exit status after SIG$signal"
	! is_mounted || fail "still mounted after SIG$signal"
	is_clean "$file" || fail "$dirty pages dirty, $writeback in write-back, after SIG$signal"
	is_clean "$backing/new" || fail "$dirty pages of a new file dirty after SIG$signal"
	cmp <(noise 2 2) "$backing/new" || fail "a file written before SIG$signal"
done

# always: none when write returns
policy=always
file_make
mount_start flush=always
for ((i = 0; i < 15; i++)); do
	put 4096 1 $((i * 7))
	is_clean "$file" || fail "always: $dirty pages dirty, $writeback in write-back, after write $i"
done
put 65536 3 7
is_clean "$file" || fail "always: $dirty pages dirty after three writes"
for ((i = 0; i < 5; i++)); do
	head -c 5000 /dev/urandom >>"$mnt/file"
	is_clean "$file" || fail "always: $dirty pages dirty after append $i"
done
noise 1 3 >"$mnt/new"
is_clean "$backing/new" || fail "always: $dirty pages of a new file dirty"
mount_stop

# A time: without any fsync, whatever the kind of write
for policy in 10ms ${more:+10ms:4M 4M:10ms 10000us 1s:900writes}; do
	file_make
	mount_start "flush=$policy"
	put 4096 1 20
	becomes_clean "one write of a page"
	put 1 1 777
	becomes_clean "one write of a byte"
	put 65536 16 0
	becomes_clean "an overwrite of the whole file"
	head -c 100000 /dev/urandom >>"$mnt/file"
	becomes_clean "an append"
	truncate -s 50001 "$mnt/file"
	put 100 1 500
	becomes_clean "a write after a truncation"
	for ((i = 0; i < 30; i++)); do
		head -c "$((i * 5000))" /dev/urandom >"$mnt/many.$i"
	done
	for ((i = 0; i < 30; i++)); do
		wait_until "$patience" is_clean "$backing/many.$i" || fail "$policy: file $i of many"
	done
	# A handle that stays open, and one whose name is gone
	exec 5<>"$mnt/file"
	dd if=/dev/urandom bs=3000 count=1 status=none >&5
	becomes_clean "a write to a handle that stays open"
	ln "$backing/file" "$plain/kept"
	rm "$mnt/file"
	dd if=/dev/urandom bs=3000 count=1 status=none >&5
	wait_until "$patience" is_clean "$plain/kept" || fail "$policy: a write to an unlinked file"
	exec 5>&-
	rm "$plain/kept"
	mount_stop
done

# The deadline itself: that of 20 writes the fastest is on the disk in less than half a second (any
# one of them may have met a busy disk)
policy=10ms
file_make
mount_start "flush=$policy"
fastest=-1
for ((i = 0; i < 20; i++)); do
	begin=${EPOCHREALTIME/./}
	put 4096 1 $((i * 7))
	becomes_clean "write $i"
	took=$(((${EPOCHREALTIME/./} - begin) / 1000))
	if [ "$fastest" -lt 0 ] || [ "$took" -lt "$fastest" ]; then fastest=$took; fi
done
mount_stop
[ "$fastest" -lt 500 ] || fail "$policy: the fastest of 20 writes took $fastest ms to the disk"

# And that none is there before it. The time is taken before the first write, so that a slow machine
# can only make it seem longer. Few files, since what has no room is synced to make way.
policy=1500ms
one_is_clean() {
	local i
	for i in {0..2}; do
		if is_clean "$backing/early.$try.$i"; then return; fi
	done
	return 1
}
mount_start "flush=$policy"
for try in 1 2 3; do
	begin=${EPOCHREALTIME/./}
	for i in {0..2}; do
		head -c 5000 /dev/urandom >"$mnt/early.$try.$i"
	done
	wait_until "$patience" one_is_clean || fail "$policy: still dirty after $patience s"
	took=$(((${EPOCHREALTIME/./} - begin) / 1000))
	for i in {0..2}; do
		wait_until "$patience" is_clean "$backing/early.$try.$i" ||
			fail "$policy: file $i is still dirty after $patience s"
	done
	if [ "$took" -ge 1400 ]; then break; fi
	# Somebody else may have synced this file system
	[ "$try" -lt 3 ] || fail "$policy: clean after $took ms"
done
mount_stop

# Names in a folder that may be written and not read: the daemon of an ordinary user cannot open it
mount_start flush=10ms
mkdir "$mnt/unread"
chmod 300 "$mnt/unread"
for i in 1 2 3; do
	echo x >"$mnt/unread/$i"
	sleep 0.1
done
mount_stop
! grep 'may not be on the disk' "$log" || fail "a folder that may not be read"
chmod 700 "$backing/unread"
rm -r "$backing/unread"

# A shared mapping of a client counts from its msync
policy=10ms
file_make
mount_start flush=10ms
python3 - "$mnt/file" <<'END'
import mmap, sys
with open(sys.argv[1], "r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
	shared[5000:6000] = b"s" * 1000
	shared.flush()
END
becomes_clean "a msync"
mount_stop

# A size: dirty one page short of it, clean when it is reached
for policy in 64K ${more:+64K:900s 900s:64K:1000writes}; do
	file_make
	mount_start "flush=$policy"
	for ((i = 0; i < 2; i++)); do
		put_stays_dirty 4096 15 0
		put 4096 1 100
		becomes_clean "the size is reached"
	done
	# By one write
	put 65536 1 8
	becomes_clean "one write of the size"
	mount_stop
done

# A count: the same
for policy in 10writes ${more:+10writes:900s 100M:10writes}; do
	file_make
	mount_start "flush=$policy"
	for ((i = 0; i < 2; i++)); do
		put_stays_dirty 512 9 0
		put 512 1 700
		becomes_clean "the tenth write"
	done
	mount_stop
done
