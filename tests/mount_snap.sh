#!/bin/bash
# Point-in-time views (mkdir MNT/.snap/NAME): what the tree was at their instants they are, whatever is done
# in the live tree, in them, and in others; after unmounts and SIGKILL, too.
# SNAP_STEPS says how many random operations each run makes (1500), SNAP_SEEDS which.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 900 root user
need setfattr getfattr sqlite3

steps=${SNAP_STEPS:-1500}
read -r -a seeds <<<"${SNAP_SEEDS:-1 2 3}"

mount_kill() {
	{
		kill -KILL "$daemon"
		daemon_wait
	} 2>/dev/null
	fusermount3 -u -z "$mnt"
}

# What dropped views had is removed, in the background. Unmounts
all_is_removed() {
	local try
	mount_stop
	for try in {1..20}; do
		[ "$(sqlite3 "$backing/.mmapfs/rows" 'select count(*) from object')" -gt 0 ] || break
		[ "$try" -lt 20 ] || fail "what dropped views had is still there"
		mount_start
		sleep 0.1
		mount_stop
	done
	assert_equal "" "$(ls "$backing/.mmapfs/anchors")" "anchors"
	"${program[@]}" --check "$backing/.mmapfs" >"$work/out" || fail "--check: $(cat "$work/out")"
}

# ---------------------------------------------------------------- by hand

mkdir "$backing/folder" "$backing/empty"
echo one >"$backing/file"
ln "$backing/file" "$backing/folder/other"
ln -s file "$backing/link"
noise 1 300 >"$backing/large"
setfattr -n user.color -v red "$backing/file"
mkfifo "$backing/fifo"
cp -a "$backing" "$plain/first"

mount_start
assert_equal "" "$(find "$mnt" -name .snap)" "what is listed"
[ -d "$mnt/.snap" ] || fail "no .snap"
mkdir "$mnt/.snap/first"
assert_equal first "$(ls "$mnt/.snap")" "the views"
assert_equal "" "$(find "$mnt" -name '.mmapfs')" "the store"
! cat "$mnt/.mmapfs/rows" 2>/dev/null || fail "the store can be reached"
"$TOOLS/tool_twin" compare "$mnt/.snap/first" "$plain/first"

# All that changes, each in its way
echo two >"$mnt/file"
chmod 600 "$mnt/folder/other"
setfattr -n user.color -v blue "$mnt/file"
setfattr -n user.size -v big "$mnt/file"
printf x | dd of="$mnt/large" bs=1 seek=70000 conv=notrunc status=none
truncate -s 100000 "$mnt/large"
truncate -s 400000 "$mnt/large"
rm "$mnt/link"
ln -s elsewhere "$mnt/link"
mv "$mnt/folder" "$mnt/moved"
mkdir "$mnt/folder"
rmdir "$mnt/empty"
rm "$mnt/fifo"
echo new >"$mnt/empty"
"$TOOLS/tool_twin" compare "$mnt/.snap/first" "$plain/first" || fail "a view has changed"
mount_stop
mount_start
"$TOOLS/tool_twin" compare "$mnt/.snap/first" "$plain/first" || fail "a view has changed by a remount"

# What is written in a view stays there
mkdir "$mnt/.snap/second"
cp -a "$mnt/." "$plain/second" && rm -rf "$plain/second/.snap"
echo three >"$mnt/.snap/first/file"
rm "$mnt/.snap/first/large"
mv "$mnt/.snap/first/folder" "$mnt/.snap/first/renamed"
echo mine >"$mnt/.snap/first/renamed/mine"
(cd "$plain/first" && echo three >file && rm large && mv folder renamed && echo mine >renamed/mine)
"$TOOLS/tool_twin" compare "$mnt/.snap/first" "$plain/first"
"$TOOLS/tool_twin" compare "$mnt/.snap/second" "$plain/second"
assert_equal two "$(cat "$mnt/file")" "the live file"

# A live write, then a view write, then a read in an older view
mkdir "$mnt/.snap/third"
echo four >"$mnt/file"
echo five >"$mnt/.snap/third/file"
assert_equal "two four five" "$(cat "$mnt/.snap/second/file" "$mnt/file" "$mnt/.snap/third/file" | xargs)" "three of a file"

# Bad names, and what there is not
for name in .led "$(printf 'a\nb')"; do
	! mkdir "$mnt/.snap/$name" 2>/dev/null || fail "a view was made: $name"
done
! mkdir "$mnt/.snap/$(printf 'x%.0s' {1..256})" 2>"$work/error" || fail "a long name"
grep -q 'File name too long' "$work/error" || fail "$(cat "$work/error")"
! mkdir "$mnt/.snap/first" 2>"$work/error" || fail "made twice"
grep -q 'File exists' "$work/error" || fail "$(cat "$work/error")"
! rmdir "$mnt/.snap/none" 2>"$work/error" || fail "dropped what there is not"
grep -q 'No such file' "$work/error" || fail "$(cat "$work/error")"
! touch "$mnt/.snap/file" 2>/dev/null || fail "a file among the views"
! ln "$mnt/file" "$mnt/.snap/first/linked" 2>"$work/error" || fail "linked across"
grep -qi 'cross-device' "$work/error" || fail "$(cat "$work/error")"
renames() { # FROM TO WHAT
	! python3 -c 'import os, sys; os.rename(sys.argv[1], sys.argv[2])' "$mnt/$1" "$mnt/$2" 2>"$work/error" || fail "renamed: $1 to $2"
	grep -qi "$3" "$work/error" || fail "$1 to $2: $(cat "$work/error")"
}
renames file .snap/first/in 'cross-device'
renames .snap/first/file in 'cross-device'
renames .snap/first/file .snap/second/in 'cross-device'
renames .snap/first moved/first 'cross-device'
renames .snap/first .snap/second 'file exists'
renames .snap/first .snap/.led 'invalid argument'

# Renamed, and dropped while it is in use
mv "$mnt/.snap/third" "$mnt/.snap/3"
assert_equal "five" "$(cat "$mnt/.snap/3/file")" "a renamed view"
exec 8<"$mnt/.snap/3/large"
rmdir "$mnt/.snap/3"
! head -c 100 <&8 >/dev/null 2>"$work/error" || fail "a dropped view is read"
grep -qi 'stale' "$work/error" || fail "$(cat "$work/error")"
exec 8<&-
assert_equal "first second" "$(ls "$mnt/.snap" | xargs)" "the views"
"$TOOLS/tool_twin" compare "$mnt/.snap/second" "$plain/second"
rmdir "$mnt/.snap"/*
all_is_removed
mount_start

# To be read
(umask 222 && mkdir "$mnt/.snap/read")
! (echo x >"$mnt/.snap/read/file") 2>"$work/error" || fail "written"
grep -qi 'read-only' "$work/error" || fail "$(cat "$work/error")"
! rm "$mnt/.snap/read/file" 2>"$work/error" || fail "removed"
grep -qi 'read-only' "$work/error" || fail "$(cat "$work/error")"
rmdir "$mnt/.snap/read"
mount_stop
"${program[@]}" --check "$backing/.mmapfs" >"$work/out" || fail "--check: $(cat "$work/out")"
rm -rf "${backing:?}"/* "$backing/.mmapfs" "${plain:?}"/*

# ---------------------------------------------------------------- the model

# Views are made while files are open, unlinked and mapped; each is compared with a copy that was made then,
# and from time to time one is dropped
cat >"$work/hook" <<'END'
set -e
cd "$1"
number=$(($(cat number) + 1))
echo $number >number
mkdir "$2/.snap/s$number"
cp -a "$3" "copies/s$number"
if [ $((number % 3)) -eq 0 ]; then # one of them, here and there
	set -- "$1" "$2" "$3" copies/s*
	shift $((3 + number * 7 % ($# - 3)))
	rmdir "$2/.snap/${1##*/}" 2>/dev/null || rmdir "$MNT/.snap/${1##*/}"
	rm -rf "$1"
fi
END

echo 0 >"$work/number"
mkdir "$work/copies" "$plain/twin"
"$TOOLS/tool_twin" run "$backing" "$plain/twin" 7 3000
export MNT=$mnt
for seed in "${seeds[@]}"; do
	mount_start
	"$TOOLS/tool_twin" run "$mnt" "$plain/twin" "$seed" "$steps" 150 bash "$work/hook" "$work" "$mnt" "$plain/twin"
	for copy in "$work/copies"/*; do
		"$TOOLS/tool_twin" compare "$mnt/.snap/${copy##*/}" "$copy" || fail "seed $seed: view ${copy##*/}"
	done
	# In some of them as well
	number=0
	for copy in "$work/copies"/*; do
		number=$((number + 1))
		[ $((number % 2)) -eq 0 ] ||
			"$TOOLS/tool_twin" run "$mnt/.snap/${copy##*/}" "$copy" "$((seed * 100 + number))" $((steps / 4)) ||
			fail "seed $seed: in view ${copy##*/}"
	done
	if [ $((seed % 2)) -eq 0 ]; then mount_kill; else mount_stop; fi
	mount_start
	"$TOOLS/tool_twin" compare "$mnt" "$plain/twin" || fail "seed $seed: the live tree, after a remount"
	for copy in "$work/copies"/*; do
		"$TOOLS/tool_twin" compare "$mnt/.snap/${copy##*/}" "$copy" ||
			fail "seed $seed: view ${copy##*/}, after a remount"
	done
	mount_stop
	"${program[@]}" --check "$backing/.mmapfs" >"$work/out" || fail "seed $seed: --check: $(cat "$work/out")"
done
mount_start
rmdir "$mnt/.snap"/*
"$TOOLS/tool_twin" compare "$mnt" "$plain/twin"
all_is_removed
