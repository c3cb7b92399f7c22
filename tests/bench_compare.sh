#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Reading through mmapfs, beside the same on the folder itself, on bindfs, and on libfuse's
# passthrough_ll (built from the source that comes with libfuse3-dev), in turn: a cold sequential
# read of 1 GiB, 4 KiB random reads of it, and all of 7,000 small files, twice. The folder's own pages
# are in memory, the mounts are fresh. Prints a table of times (or rates) as ratios to mmapfs.
#
# usage: bench_compare.sh [ROUNDS [SECONDS]]      needs bindfs, fio, cc, libfuse3-dev
# shellcheck source=tests/bench.sh
. "${BASH_SOURCE[0]%/*}/bench.sh"

rounds=${1:-5}
seconds=${2:-3}
data=$work/data
mkdir -p "$data/small"
dd if=/dev/urandom of="$data/big" bs=1M count=1024 status=none
for ((i = 0; i < 7000; i++)); do
	printf '%0100d' "$i" >"$data/small/$i"
done
sync

source=/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c
if [ -e "$source.gz" ]; then
	gzip -dc "$source.gz" >"$work/passthrough_ll.c"
else
	cp "$source" "$work/passthrough_ll.c"
	cp "${source%/*}"/*.h "$work" 2>/dev/null || true
fi
# shellcheck disable=SC2046
cc -O2 -w -D_GNU_SOURCE -o "$work/passthrough_ll" "$work/passthrough_ll.c" \
	$(pkg-config --cflags --libs fuse3)
# It takes the folder as an option.
cat >"$work/passthrough" <<'END'
#!/bin/sh
exec "$(dirname "$0")/passthrough_ll" -o source="$1" "$2"
END
chmod +x "$work/passthrough"

peers=(folder mmapfs handles bindfs passthrough_ll)

# Makes $1's fresh view of the data; the folder to read is $at
enter() {
	at=$mnt
	case $1 in
	folder) at=$data ;;
	mmapfs) mount_fresh "$data" "$MMAPFS" ;;
	handles) mount_fresh "$data" "$MMAPFS" -o io=handles ;;
	bindfs) mount_fresh "$data" bindfs ;;
	passthrough_ll) mount_fresh "$data" "$work/passthrough" ;;
	esac
}

leave() {
	[ "$1" = folder ] || unmount
}

# Seconds that a command takes
seconds_of() {
	local from=$EPOCHREALTIME to
	"$@" | cat >/dev/null # tar reads nothing if it sees that it writes to /dev/null
	to=$EPOCHREALTIME
	awk -v a="$from" -v b="$to" 'BEGIN { print b - a }'
}

cat "$data/big" "$data"/small/* >/dev/null
# Round 0 is not counted: guest memory that was never touched is slower
for ((round = 0; round <= rounds; round++)); do
	[ "$round" -ne 1 ] || rm -f "$work"/*.{sequential,random,small,again}
	for peer in "${peers[@]}"; do
		enter "$peer"
		seconds_of dd if="$at/big" of=/dev/null bs=1M status=none >>"$work/$peer.sequential"
		leave "$peer"
		enter "$peer"
		fio --name=r --filename="$at/big" --rw=randread --bs=4k --ioengine=psync --size=1g \
			--time_based --runtime="$seconds" --invalidate=0 --output-format=terse |
			awk -F';' '{ print 1 / $8 }' >>"$work/$peer.random"
		leave "$peer"
		enter "$peer"
		seconds_of tar -C "$at/small" -cf - . >>"$work/$peer.small"
		seconds_of tar -C "$at/small" -cf - . >>"$work/$peer.again"
		leave "$peer"
	done
done

echo "How many times as long as mmapfs takes (below 1: faster), median of $rounds rounds in turn:"
printf '%-34s' ''
printf ' %14s' "${peers[@]}"
echo
while read -r what name; do
	printf '%-34s' "$name"
	for peer in "${peers[@]}"; do
		paste "$work/$peer.$what" "$work/mmapfs.$what" | awk '{ print $1 / $2 }' | median >"$work/x"
		printf ' %14.2f' "$(cat "$work/x")"
	done
	echo
done <<'END'
sequential sequential read of 1 GiB
random random reads of 4 KiB
small 7,000 small files, first time
again 7,000 small files, again
END
