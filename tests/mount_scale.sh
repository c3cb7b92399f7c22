#!/bin/bash
# A tree of many files, all of them known to the kernel, under a daemon that may have few descriptors:
# walked, read and removed, in less than 1 KiB of the daemon's memory for each inode known, which comes
# back when the tree is gone. SCALE_FILES says how many (20000), SCALE_DESCRIPTORS the limit (128).
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" "$((120 + ${SCALE_FILES:-20000} / 100))" root user

files=$((${SCALE_FILES:-20000} / 2)) # in each of two trees
descriptors=${SCALE_DESCRIPTORS:-128}
inodes=$((files + (files + 99) / 100 + 1))
sanitized=
if grep -aqE '__(asan|tsan)_init' "$MOUNT_WORK/bin/mmapfs"; then
	sanitized=1
	echo "memory of the daemon: not tried, a sanitizer has its own"
fi

# The daemon's memory that is no file's, in KiB, into $memory
measure() {
	memory=$(awk '/^RssAnon:/ { print $2 }' "/proc/$daemon/status")
}

# Do these inodes take less than 1 KiB each, since $1 was measured?
assert_small() {
	local each=$(((memory - $1) * 1024 / inodes))
	[ -z "$sanitized" ] || return 0
	echo "$who: $each bytes for each of $inodes inodes"
	[ "$each" -lt 1024 ] || fail "$each bytes for each inode"
}

# Whether the kernel knows all of a tree: a daemon that is stopped answers nothing
is_known() {
	local status=0
	kill -STOP "$daemon"
	timeout -s KILL "$((20 + files / 2000))" "$TOOLS/tool_scale" stat "$mnt/$1" "$files" || status=$?
	kill -CONT "$daemon"
	return "$status"
}

is_small_again() {
	measure
	[ "$memory" -lt "$((start + (peak - start) / 2))" ]
}

for tree in one two; do
	"$TOOLS/tool_scale" make "$backing/$tree" "$files"
done
program=(prlimit "--nofile=$descriptors:$descriptors" "${program[@]}")
mount_start entry_timeout=86400,attr_timeout=86400
measure
start=$memory
"$TOOLS/tool_scale" walk "$mnt/one" "$files" || fail "walking the first tree"
measure
first=$memory
"$TOOLS/tool_scale" walk "$mnt/two" "$files" || fail "walking the second tree"
measure
peak=$memory
for tree in one two; do
	is_known "$tree" || fail "the kernel does not know all of $tree"
done
assert_small "$first"

"$TOOLS/tool_scale" read "$mnt/one" "$files" || fail "reading the first tree"
"$TOOLS/tool_scale" read "$mnt/two" "$files" || fail "reading the second tree"
"$TOOLS/tool_scale" remove "$mnt/one" "$files" || fail "removing the first tree"
rm -r "$mnt/two" || fail "rm -r of the second tree"
assert_equal "" "$(ls -A "$backing")" "what is left in the backing folder"
if [ -z "$sanitized" ]; then
	wait_until 20 is_small_again ||
		fail "memory: $start KiB, $peak when all was known, $memory when all is gone"
	echo "$who: memory: $start KiB, $peak when all was known, $memory when all is gone"
fi
mount_stop
