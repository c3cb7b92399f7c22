# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What the benchmarks share. Sourced. A benchmark proves nothing by itself: it prints ratios of what
# ran in turn on one machine. Needs root, for a loop device of its own and cold mounts.
#
# Environment: MMAPFS, TOOLS as in mount.sh; BENCHDIR, where to work (default /var/tmp).

set -eEuo pipefail
export LC_ALL=C

: "${MMAPFS:?the path of the program}" "${TOOLS:?the folder of the compiled tools}"
[ "$(id -u)" -eq 0 ] || { echo "a benchmark needs root"; exit 1; }

work=$(mktemp -d "${BENCHDIR:-/var/tmp}/mmapfs-bench.XXXXXX")
mnt=$work/mnt
mkdir "$mnt"

bench_end() {
	local status=$?
	trap '' HUP INT TERM
	fusermount3 -u -z "$mnt" 2>/dev/null || true
	umount -l "$work/disk" 2>/dev/null || true
	rm -rf --one-file-system "$work"
	exit "$status"
}
trap bench_end EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# The median of numbers on stdin
median() {
	sort -g | awk '{ all[NR] = $1 } END { print (all[int((NR + 1) / 2)] + all[int(NR / 2) + 1]) / 2 }'
}

# Mounts $2.. (a command line without its folders) over folder $1, fresh
mount_fresh() {
	local backing=$1
	shift
	"$@" "$backing" "$mnt" >"$work/mount.log" 2>&1 || { cat "$work/mount.log"; exit 1; }
}

unmount() {
	fusermount3 -u "$mnt"
	while pgrep -f -- " $mnt\$" >/dev/null; do sleep 0.05; done
}

# Makes an ext4 file system of $1 MiB on a loop device, mounted at $work/disk; its name is $loop
disk() {
	truncate -s "$1M" "$work/image"
	mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$work/image"
	mkdir -p "$work/disk"
	mount -o loop "$work/image" "$work/disk"
	# shellcheck disable=SC2034 # for the script that sourced this
	loop=$(basename "$(findmnt -n -o SOURCE "$work/disk")")
}
