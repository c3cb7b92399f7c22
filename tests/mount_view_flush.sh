#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What is synced of a view that is kept, and when: judged by cachestat(2) on its store, as mount_flush.sh
# does for a plain mount.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 300 root user

head -c 1M /dev/urandom >"$backing/file"
mkdir "$backing/folder"
store=$work/store
mkdir "$store"
patience=20

# Nothing of the store waits to be written to the disk
store_is_clean() {
	local part
	for part in "$store"/heap "$store"/rows "$store"/rows-wal; do
		[ ! -e "$part" ] || is_clean "$part" || return 1
	done
}

store_is_dirty() {
	! store_is_clean
}

# After the command the store is dirty and stays so for 0.3 s. Somebody else may have synced this file
# system meanwhile: so it has three tries.
stays_dirty() {
	local try
	for try in 1 2 3; do
		"$@"
		if stays 300 store_is_dirty; then return; fi
		sleep "0.$try"
	done
	fail "$policy: clean after $*, and nothing asked for a sync"
}

put() {
	dd if=/dev/urandom of="$mnt/file" bs="$1" count="$2" seek="$3" conv="notrunc${4:+,$4}" \
		iflag=fullblock status=none
}

number=0
# What changes names and attributes alone
made() {
	number=$((number + 1))
	mkdir "$mnt/made.$number"
}

moved() {
	number=$((number + 1))
	mkdir "$mnt/other.$number"
	mv "$mnt/other.$number" "$mnt/moved.$number"
}

chmoded() {
	number=$((number + 1))
	chmod $((600 + number % 8)) "$mnt/file"
}

attributed() {
	number=$((number + 1))
	setfattr -n user.number -v "$number" "$mnt/file"
}

shortened() {
	number=$((number + 1))
	truncate -s $((900000 - number)) "$mnt/file"
}

need setfattr
policy=manual
mount_start "cow=$store,flush=manual"
stays_dirty put 4096 7 20
for change in made moved chmoded attributed shortened; do
	sync "$mnt/file"
	store_is_clean || fail "dirty after the fsync of a file"
	stays_dirty $change
	sync "$mnt" # what is synced of a view is all of it
	store_is_clean || fail "dirty after the fsync of a folder ($change)"
done
put 512 5 30 fsync
store_is_clean || fail "dirty after fsync"
put 512 5 30 fdatasync
store_is_clean || fail "dirty after fdatasync"
head -c 100000 /dev/urandom >>"$mnt/file"
stays_dirty made
mount_stop
store_is_clean || fail "dirty after the unmount"

mount_start "cow=$store,flush=manual"
stays_dirty put 4096 50 10
kill -TERM "$daemon"
daemon_wait
assert_equal 0 "$daemon_status" "exit status after SIGTERM"
store_is_clean || fail "dirty after SIGTERM"

policy=always
mount_start "cow=$store,flush=always"
for change in "put 4096 1 3" "put 65536 3 2" made moved chmoded attributed shortened; do
	$change
	store_is_clean || fail "always: dirty after $change"
done
mount_stop

policy=10ms
mount_start "cow=$store,flush=10ms"
for change in "put 4096 1 3" "put 65536 3 2" made moved chmoded attributed shortened; do
	$change
	wait_until $patience store_is_clean || fail "10ms: dirty after $change"
done
mount_stop

# By what was written, and how often: not before
policy=256K
mount_start "cow=$store,flush=256K"
sync "$mnt"
stays_dirty put 4096 10 0
sync "$mnt"
put 4096 64 0
store_is_clean || fail "256K: dirty after that much"
mount_stop
policy=20writes
mount_start "cow=$store,flush=20writes"
sync "$mnt"
stays_dirty put 4096 5 0
sync "$mnt"
put 4096 20 0
store_is_clean || fail "20writes: dirty after so many"
mount_stop
