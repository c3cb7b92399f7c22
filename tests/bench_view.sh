#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A view (-o cow=DIR) beside the kernel's overlayfs and fuse-overlayfs, where these are to be had, on a disk
# of its own: what the first change of a large file costs, in time and room; how fast is read what is
# unchanged, and what is changed by a tenth; and how long it takes to take up a view again in which very many
# objects were changed. Medians of rounds in turn.
#
# usage: bench_view.sh [ROUNDS [OBJECTS]]      needs root, python3; takes fuse-overlayfs if it is installed
# shellcheck source=tests/bench.sh
. "${BASH_SOURCE[0]%/*}/bench.sh"

rounds=${1:-5}
objects=${2:-100000}
disk 12288
backing=$work/disk/data
mkdir "$backing" "$work/disk/upper"
dd if=/dev/urandom of="$backing/large" bs=1M count=1024 status=none
for ((i = 0; i < 200; i++)); do
	truncate -s 1G "$backing/sparse.$i"
done
mkdir "$backing/many"
(cd "$backing/many" && seq "$objects" | split -l 1 -a 5 -d - f)
sync

# What a call takes, in microseconds: the median and the 99th percentile of all that are given
cat >"$work/first.py" <<'END'
import os, sys, time
what, paths = sys.argv[1], sys.argv[2:]
taken = []
for path in paths:
	begin = time.perf_counter_ns()
	fd = os.open(path, os.O_RDWR) if what == "write" else -1 # an overlay copies here
	if what == "write":
		os.pwrite(fd, b"x" * 4096, 512 << 20)
	elif what == "truncate":
		os.truncate(path, os.stat(path).st_size - 1)
	elif what == "rename":
		os.rename(path, path + ".moved")
	else:
		os.chmod(path, 0o600)
	taken.append((time.perf_counter_ns() - begin) / 1000)
	if fd >= 0:
		os.close(fd)
taken.sort()
print(int(taken[len(taken) // 2]), int(taken[(len(taken) * 99 + 99) // 100 - 1])) # by nearest rank
END

# enter WHAT: a fresh view, or overlay, of the backing folder
enter() {
	rm -rf "$work/disk/upper"
	mkdir -p "$work/disk/upper"/{store,upper,work}
	case $1 in
	plain) "$MMAPFS" "$backing" "$mnt" ;;
	view) "$MMAPFS" -o "cow=$work/disk/upper/store" "$backing" "$mnt" ;;
	overlay) mount -t overlay -o "lowerdir=$backing,upperdir=$work/disk/upper/upper,workdir=$work/disk/upper/work" overlay "$mnt" ;;
	fuse-overlayfs) fuse-overlayfs -o "lowerdir=$backing,upperdir=$work/disk/upper/upper,workdir=$work/disk/upper/work" "$mnt" ;;
	esac
}

leave() {
	umount "$mnt"
	while pgrep -f -- " $mnt\$" >/dev/null; do sleep 0.05; done
}

can() {
	enter "$1" 2>/dev/null && leave
}

room() {
	du -s -k "$work/disk/upper" | cut -f 1
}

seconds_of() {
	local from=$EPOCHREALTIME to
	"$@"
	to=$EPOCHREALTIME
	awk -v from="$from" -v to="$to" 'BEGIN { print to - from }'
}

peers=(view)
for peer in overlay fuse-overlayfs; do
	if can "$peer"; then peers+=("$peer"); else echo "not here: $peer"; fi
done

echo "the first change of a file of 1 GiB: microseconds, KiB of room (median of $rounds)"
for what in write truncate chmod rename; do
	for ((round = 0; round < rounds; round++)); do
		for peer in "${peers[@]}"; do
			enter "$peer"
			before=$(room)
			read -r time _ < <(python3 "$work/first.py" "$what" "$mnt/large")
			echo "$time" >>"$work/time.$peer.$what"
			sync -f "$work/disk"
			echo $(($(room) - before)) >>"$work/room.$peer.$what"
			leave
		done
	done
	for peer in "${peers[@]}"; do
		printf '  %-10s %-16s %10s us %10s KiB\n' "$what" "$peer" "$(median <"$work/time.$peer.$what")" "$(median <"$work/room.$peer.$what")"
	done
done

enter view
echo "the same in a view, of 200 files of 1 GiB: median and 99th percentile, microseconds"
for what in write truncate chmod rename; do
	echo "  $what: $(python3 "$work/first.py" "$what" "$mnt"/sparse.*)"
done
leave

# Reads all of the file, then once more when the kernel has none of the mount's pages: by then checksums
# of blocks have been looked at. (What is below the mount stays in memory.)
cat >"$work/read.py" <<'END'
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
for again in range(2):
	os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
	begin = time.perf_counter()
	for at in range(1024):
		assert len(os.pread(fd, 1 << 20, at << 20)) == 1 << 20
	with open(sys.argv[2 + again], "a") as file:
		print(time.perf_counter() - begin, file=file)
END

read_twice() {
	python3 "$work/read.py" "$mnt/large" "$work/read.$1" "$work/again.$1"
}

echo "reading 1 GiB, seconds, and once more (median of $rounds)"
for ((round = 0; round < rounds; round++)); do
	for peer in plain "${peers[@]}"; do
		cat "$backing/large" >/dev/null
		enter "$peer"
		read_twice "$peer"
		leave
	done
	# A tenth of its blocks is the view's, here and there
	enter view
	python3 -c 'import os, random, sys
fd = os.open(sys.argv[1], os.O_RDWR)
for block in random.Random(1).sample(range(262144), 26214):
	os.pwrite(fd, b"y" * 4096, block * 4096)' "$mnt/large"
	leave
	"$MMAPFS" -o "cow=$work/disk/upper/store" "$backing" "$mnt"
	read_twice tenth
	leave
done
for peer in plain "${peers[@]}" tenth; do
	printf '  %-24s %s %s\n' "${peer/tenth/view, a tenth changed}" "$(median <"$work/read.$peer")" "$(median <"$work/again.$peer")"
done

enter view
chmod 600 "$mnt"/many
find "$mnt/many" -type f -exec chmod 600 {} +
leave
for ((round = 0; round < rounds; round++)); do
	seconds_of "$MMAPFS" -o "cow=$work/disk/upper/store" "$backing" "$mnt" >>"$work/open"
	leave
done
echo "taking up a view with $objects changed objects: $(median <"$work/open") s"
