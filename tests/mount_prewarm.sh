#!/bin/bash
# prewarm=: which pages of the backing files come into memory, and when, by cachestat(2).
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 540 root user

# All of these files are in memory. (But for a few pages, which the kernel may take back at any time.)
are_resident() {
	local file
	for file; do
		pages "$file"
		whole=$(($(stat -c %s "$file") / page))
		[ "$resident" -ge $((whole - whole / 64)) ] || return 1
	done
}

# Less than half of this file is in memory
is_mostly_cold() {
	pages "$1"
	[ "$resident" -lt "$(($(stat -c %s "$1") / page / 2))" ]
}

# Unmounted, with none of these files in memory
make_cold() {
	local file
	drop_pages "$@"
	for file; do
		pages "$file"
		[ "$resident" -eq 0 ] || fail "$resident pages of $file cannot be dropped"
	done
}

page=$(getconf PAGESIZE)
large=$backing/large
noise 64 1 >"$large"
noise 8 2 >"$backing/another"
mkdir -p "$backing/sub/deeper"
for ((i = 0; i < 4; i++)); do
	noise 4 "$i" >"$backing/sub/$i.dat"
	noise 4 "$i" >"$backing/sub/deeper/$i.txt"
done
noise 4 5 >"$backing/sub/deeper/.hidden.dat"
noise 4 6 >"$plain/outside.dat"
# What must not stop it
: >"$backing/sub/empty.dat"
mkfifo "$backing/sub/fifo.dat"
ln -s "$plain/outside.dat" "$backing/sub/link.dat"
ln -s . "$backing/sub/circle"
mapfile -d '' all < <(find "$backing" -type f -size +0 -print0)
mapfile -d '' data < <(find "$backing" -type f -size +0 -name '*.dat' -print0)
mapfile -d '' rest < <(find "$backing" -type f -size +0 -not -name '*.dat' -print0)

# never: a reader of one byte brings what the kernel reads ahead, no more
make_cold "${all[@]}"
mount_start prewarm=never
head -c 1 "$mnt/large" >/dev/null
stays 1000 is_mostly_cold "$large" || fail "prewarm=never: $resident pages in memory"
is_mostly_cold "$backing/another" || fail "prewarm=never: a file that was not even opened"
mount_stop

# The default is never
make_cold "$large"
mount_start
head -c 1 "$mnt/large" >/dev/null
stays 500 is_mostly_cold "$large" || fail "without prewarm=: $resident pages in memory"
mount_stop

# How long the disk takes is not this test's affair: what is to come in has this many seconds, and
# says in the log how many it took
patience=30

# come_in MESSAGE FILE...
come_in() {
	local begin=${EPOCHREALTIME/./} message=$1
	shift
	wait_until "$patience" are_resident "$@" ||
		fail "$message: $resident pages of $whole in memory after $patience s"
	echo "$message: in memory after $(((${EPOCHREALTIME/./} - begin) / 1000)) ms"
}

# open: the file that is used, whole; no other
make_cold "${all[@]}"
mount_start prewarm=open
ls -lR "$mnt" >/dev/null
stays 300 is_mostly_cold "$large" || fail "prewarm=open: $resident pages in memory before the open"
head -c 1 "$mnt/large" >/dev/null
come_in "prewarm=open, 64 MiB" "$large"
is_mostly_cold "$backing/another" || fail "prewarm=open: a file that was not opened"
cat "$mnt/sub/empty.dat"
mount_stop

# With prewarm_match, such files alone
make_cold "${all[@]}"
mount_start 'prewarm=open,prewarm_match=*.dat'
head -c 1 "$mnt/large" >/dev/null
head -c 1 "$mnt/sub/1.dat" >/dev/null
come_in "prewarm=open, prewarm_match" "$backing/sub/1.dat"
stays 500 is_mostly_cold "$large" || fail "prewarm=open: a file that does not match"
mount_stop

# mount: the whole tree, while the mount serves; what is linked from it lies outside
make_cold "${all[@]}" "$plain/outside.dat"
mount_start prewarm=mount
cmp <(noise 4 2) "$mnt/sub/2.dat"
come_in "prewarm=mount, the tree" "${all[@]}"
is_mostly_cold "$plain/outside.dat" || fail "prewarm=mount: a file outside the tree"
wait_until "$patience" grep -qi prewarm "$log" || fail "prewarm=mount: no word of it in the log: $(cat "$log")"
grep -qi 'prewarm.*[0-9]' "$log" || fail "prewarm=mount: no number in the log: $(cat "$log")"
mount_stop

make_cold "${all[@]}" "$plain/outside.dat"
mount_start 'prewarm=mount,prewarm_match=*.dat'
come_in "prewarm=mount, prewarm_match" "${data[@]}"
for file in "${rest[@]}"; do
	stays 100 is_mostly_cold "$file" || fail "prewarm=mount: $file does not match"
done
is_mostly_cold "$plain/outside.dat" || fail "prewarm=mount, prewarm_match: a file outside the tree"
mount_stop

# prewarm_limit: it stops there. Each access may make the kernel read ahead, and once more when it
# meets the mark of that; large folios may go a little beyond.
read_ahead=$(lsblk -n -o RA "$(findmnt -n -o SOURCE -T "$backing" | sed 's/\[.*//')" 2>/dev/null | head -n 1) || true
margin=$((2 * ${read_ahead:-8192} * 1024 + (4 << 20)))
all_resident() {
	local file
	total=0
	for file in "${all[@]}"; do
		pages "$file"
		total=$((total + resident * page))
	done
}
is_at_limit() {
	all_resident
	[ "$total" -ge $((limit / 4)) ]
}
is_within_limit() {
	all_resident
	[ "$total" -le $((limit + margin)) ]
}
for limit in $((20 << 20)) $((5 << 20)); do
	make_cold "${all[@]}"
	mount_start "prewarm=mount,prewarm_limit=$((limit >> 20))M"
	wait_until "$patience" is_at_limit || fail "prewarm_limit=$limit: $total bytes in memory after $patience s"
	stays 1000 is_within_limit || fail "prewarm_limit=$limit: $total bytes in memory"
	mount_stop
done

# An unmount does not wait for a prewarm that is under way, nor fail for it
make_cold "${all[@]}"
mount_start prewarm=mount
mount_stop
