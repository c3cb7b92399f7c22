#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Point-in-time views (mkdir MNT/.snap/NAME), on a disk of its own: how long it takes to make one of trees of
# several sizes; what the first overwrite of a block costs while there is a view, and a later one, beside a
# mount without views; and how long writes take while a view is made. Medians of rounds in turn.
#
# usage: bench_snap.sh [ROUNDS [FILES...]]      needs root, python3
# shellcheck source=tests/bench.sh
. "${BASH_SOURCE[0]%/*}/bench.sh"

rounds=${1:-5}
shift $(($# > 0))
[ $# -gt 0 ] || set -- 1000 100000
disk 20480 # inodes for a million files
backing=$work/disk/data
mkdir "$backing"
dd if=/dev/urandom of="$backing/large" bs=1M count=1024 status=none

# Random overwrites of 4 KiB: microseconds for each (the median), and the 99.9th percentile; the first half
# of the blocks (or, with `again`, the same ones)
cat >"$work/write.py" <<'END'
import os, random, sys, time
path, seed, count, other = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
fd = os.open(path, os.O_RDWR)
taken = []
for number, block in enumerate(random.Random(seed).sample(range(262144), count)):
	if other and number == count // 2 and os.fork() == 0:
		os.mkdir(other[0])
		os._exit(0)
	begin = time.perf_counter_ns()
	os.pwrite(fd, b"%08d" % number * 512, block * 4096)
	taken.append((time.perf_counter_ns() - begin) / 1000)
total = sum(taken) / count
taken.sort()
print(total, taken[count * 999 // 1000], taken[-1])
END

enter() {
	mount_fresh "$backing" "$MMAPFS" "$@"
	cat "$mnt/large" >/dev/null # in memory, and mapped
}

echo "overwriting 20,000 random blocks of 4 KiB of a file of 1 GiB in memory (median of $rounds)"
for ((round = 0; round < rounds; round++)); do
	enter -o nosnap
	python3 "$work/write.py" "$mnt/large" "$round" 20000 >>"$work/nosnap"
	unmount
	enter
	python3 "$work/write.py" "$mnt/large" "$round" 20000 >>"$work/none"
	sync
	python3 "$work/write.py" "$mnt/large" "$round" 20000 >>"$work/clean"
	sleep 2 # as below
	python3 "$work/write.py" "$mnt/large" "$round" 20000 >>"$work/dirty"
	sync
	mkdir "$mnt/.snap/one"
	python3 "$work/write.py" "$mnt/large" "$round" 20000 >>"$work/first"
	sleep 2 # what was kept has been synced
	python3 "$work/write.py" "$mnt/large" "$round" 20000 >>"$work/again"
	sync
	python3 "$work/write.py" "$mnt/large" "$round" 20000 "$mnt/.snap/two" >>"$work/during"
	rmdir "$mnt/.snap"/*
	unmount
	rm -rf "$backing/.mmapfs"
done
tell() { # WHAT BESIDE WORDS
	awk -v words="$3" -v mean="$(cut -d ' ' -f 1 "$work/$1" | median)" -v most="$(cut -d ' ' -f 2 "$work/$1" | median)" \
		-v base="$(cut -d ' ' -f 1 "$work/$2" | median)" \
		'BEGIN { printf "  %-56s %6.1f us each, %.2f; 999 of 1000 within %.0f us\n", words, mean, mean / base, most }'
}
tell nosnap nosnap "with nosnap"
tell none nosnap "without a view"
tell clean clean "without a view, what is clean, after a sync"
tell first clean "the first ones while there is a view, the same"
tell during clean "half of them while there are two, of which one was made"
tell dirty dirty "without a view, once more"
tell again dirty "while there is a view, once more"

echo "making a view (median of 9)"
for files in "$@"; do
	mkdir "$backing/many"
	(cd "$backing/many" && seq "$files" | split -l 1 -a 6 -d - f)
	mount_fresh "$backing" "$MMAPFS"
	mkdir "$mnt/.snap/begun"
	for ((i = 0; i < 9; i++)); do
		python3 -c 'import os, sys, time
begin = time.perf_counter_ns()
os.mkdir(sys.argv[1])
print((time.perf_counter_ns() - begin) / 1e6)' "$mnt/.snap/$i" >>"$work/make.$files"
	done
	unmount
	rm -rf "$backing/many" "$backing/.mmapfs"
	echo "  of $files files: $(median <"$work/make.$files") ms"
done
