#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Which way into the page cache is the cheaper one? 4 KiB random overwrites of a file that is in
# memory, through a mount, by the library's choice (write=auto) and by pwrite(2) alone, in turn:
# how many there are under flush=manual, and how much flush=10ms brings to the disk for them.
#
# usage: bench_writes.sh [PAIRS [SECONDS]]
# shellcheck source=tests/bench.sh
. "${BASH_SOURCE[0]%/*}/bench.sh"

pairs=${1:-7}
seconds=${2:-3}
disk 1536
mkdir "$work/disk/data"
file=$work/disk/data/file
dd if=/dev/urandom of="$file" bs=1M count=1024 status=none
sync

# Overwrites for a while with the mount options $1: prints writes a second
run() {
	cat "$file" >/dev/null
	mount_fresh "$work/disk/data" "$MMAPFS" -o "$1"
	"$TOOLS/tool_overwrite" "$mnt/file" 4096 "$seconds" | awk '{ print int($1 / $3) }'
	unmount
	sync -f "$file"
}

# Sectors written to the disk so far
sectors() {
	awk '{ print $7 }' "/sys/block/$loop/stat"
}

# As run, then bytes that reached the disk for each byte that was written
amplification() {
	local before after written
	cat "$file" >/dev/null
	mount_fresh "$work/disk/data" "$MMAPFS" -o "$1"
	before=$(sectors)
	written=$("$TOOLS/tool_overwrite" "$mnt/file" 4096 "$seconds" | awk '{ print $2 }')
	unmount
	sync -f "$file"
	after=$(sectors)
	awk -v sectors=$((after - before)) -v bytes="$written" 'BEGIN { print sectors * 512 / bytes }'
}

run flush=manual,write=auto >/dev/null # guest memory that was never touched is slower
# (Under io=stateless the kernel asks for capabilities before each write: two requests for one.)
for io in handles stateless; do
	rm -f "$work/auto" "$work/pwrite" "$work/ratio"
	for ((pair = 0; pair < pairs; pair++)); do
		auto=$(run "io=$io,flush=manual,write=auto")
		pwrite=$(run "io=$io,flush=manual,write=pwrite")
		echo "$auto" >>"$work/auto"
		echo "$pwrite" >>"$work/pwrite"
		awk -v a="$auto" -v b="$pwrite" 'BEGIN { print a / b }' >>"$work/ratio"
	done
	echo "4 KiB random overwrites, io=$io, flush=manual, median of $pairs pairs of $seconds s:"
	echo "  write=auto    $(median <"$work/auto")/s"
	echo "  write=pwrite  $(median <"$work/pwrite")/s"
	echo "  ratio         $(median <"$work/ratio") (all: $(sort -g "$work/ratio" | xargs))"
done
for ((pair = 0; pair < 3; pair++)); do
	amplification flush=10ms,write=auto >>"$work/amplification_auto"
	amplification flush=10ms,write=store >>"$work/amplification_store"
done
echo "bytes to the disk for each byte written, flush=10ms, median of 3:"
echo "  write=auto    $(median <"$work/amplification_auto")"
echo "  write=store   $(median <"$work/amplification_store")"
