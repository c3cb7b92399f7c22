#!/bin/bash
# Point-in-time views (mkdir MNT/.snap/NAME): what the tree was at their instants they are, whatever is done
# in the live tree, in them, and in others; after unmounts and SIGKILL, too.
# SNAP_STEPS says how many random operations each run makes (1500), SNAP_SEEDS which.

prepare() {
	cp "$MMAPFSCTL" "$1/mmapfsctl"
}

# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 900 root user
need setfattr getfattr sqlite3 strace pkill

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
		[ "$("$TOOLS/tool_rows" "$backing/.mmapfs/rows" 'select count(*) from object')" -gt 0 ] || break
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
noise 1 7 | head -c 300K >"$backing/large"
setfattr -n user.color -v red "$backing/file"
mkfifo "$backing/fifo"
cp -a "$backing" "$plain/first"

mount_start
assert_equal "" "$(find "$mnt" -name .snap)" "what is listed"
[ -d "$mnt/.snap" ] || fail "no .snap"
mkdir "$mnt/.snap/first"
assert_equal first "$(ls "$mnt/.snap")" "the views"
assert_equal "" "$(find "$mnt" -name '.mmapfs')" "the store"
for place in . .snap/first; do
	! cat "$mnt/$place/.mmapfs/heap" >/dev/null 2>&1 || fail "the store can be reached in $place"
	assert_equal "" "$(find "$mnt/$place" -maxdepth 1 -name '.mmapfs')" "the store, listed in $place"
done
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
assert_equal "first second" "$(cd "$mnt/.snap" && echo *)" "the views"
"$TOOLS/tool_twin" compare "$mnt/.snap/second" "$plain/second"
rmdir "$mnt/.snap"/*
all_is_removed
mount_start

# Dropping a view takes back what it alone held, which no other sees
echo linked >"$mnt/a"
ln "$mnt/a" "$mnt/b"
mkdir "$mnt/.snap/old"
rm "$mnt/a"
mkdir "$mnt/.snap/young"
was=$(stat -c '%h %s %Z %z' "$mnt/.snap/young/b")
before=$(ls "$backing/.mmapfs/anchors")
rmdir "$mnt/.snap/old"
for try in {1..50}; do
	[ "$(ls "$backing/.mmapfs/anchors")" = "$before" ] || break # it goes, or is another view's
	sleep 0.1
done
assert_equal linked "$(cat "$mnt/.snap/young/b")" "a file that a view that was dropped had held"
assert_equal "$was" "$(stat -c '%h %s %Z %z' "$mnt/.snap/young/b")" "its attributes"
rmdir "$mnt/.snap/young"
for try in {1..50}; do
	[ -n "$(ls "$backing/.mmapfs/anchors")" ] || break
	sleep 0.1
done
assert_equal "" "$(ls "$backing/.mmapfs/anchors")" "anchors of views that were dropped"

# Of a file that loses one name after the other, in views one after the other
rm -f "$mnt"/[abc]
echo linked >"$mnt/a"
ln "$mnt/a" "$mnt/b"
ln "$mnt/a" "$mnt/c"
mkdir "$mnt/.snap/abc"
rm "$mnt/a"
mkdir "$mnt/.snap/bc"
rm "$mnt/b"
linked() {
	assert_equal "1 linked" "$(stat -c %h "$mnt/c") $(cat "$mnt/c")" "the last name, $1"
	! [ -e "$mnt/.snap/abc" ] ||
		assert_equal "3 linked linked linked" "$(stat -c %h "$mnt/.snap/abc/a") $(cat "$mnt/.snap/abc"/[abc] | xargs)" "three names, $1"
	assert_equal "2 linked linked" "$(stat -c %h "$mnt/.snap/bc/b") $(cat "$mnt/.snap/bc"/[bc] | xargs)" "two names, $1"
}
linked "in two views"
mount_stop
mount_start
linked "mounted again"
rmdir "$mnt/.snap/abc"
sleep 0.3
linked "one view dropped"
mount_stop
mount_start
linked "one view dropped, mounted again"
rm "$mnt/c"
assert_equal "2 linked linked" "$(stat -c %h "$mnt/.snap/bc/b") $(cat "$mnt/.snap/bc"/[bc] | xargs)" "two names, and none is left"
rmdir "$mnt/.snap/bc"

# The same, when the younger view's state is not of a name that was lost
echo linked >"$mnt/a"
ln "$mnt/a" "$mnt/b"
mkdir "$mnt/.snap/ab"
rm "$mnt/a"
mkdir "$mnt/.snap/b"
chmod 640 "$mnt/b"
rmdir "$mnt/.snap/ab"
sleep 0.3
mount_stop
mount_start
assert_equal "1 644 linked" "$(stat -c '%h %a' "$mnt/.snap/b/b") $(cat "$mnt/.snap/b/b")" "the younger view"
assert_equal "1 640 linked" "$(stat -c '%h %a' "$mnt/b") $(cat "$mnt/b")" "the last name"
rm "$mnt/b"
rmdir "$mnt/.snap/b"

# One that was unmounted just now is waited for
mkdir "$mnt/.snap/one"
fusermount3 -u "$mnt"
timeout 20 "${program[@]}" "$backing" "$mnt" 2>"$work/error" || fail "mounted again at once: $(cat "$work/error")"
fusermount3 -u "$mnt"
daemon_wait
timeout 20 "${program[@]}" "$backing" "$mnt" 2>"$work/error" || fail "mounted again at once: $(cat "$work/error")"
rmdir "$mnt/.snap/one"
fusermount3 -u "$mnt"
mount_start

# Of a view of the middle goes what the older one does not need
room() {
	"$TOOLS/mmapfsctl" snapshot list --json "$mnt" | python3 -c 'import json, sys
print(*(view["room"] // 4096 for view in json.load(sys.stdin)))'
}
change() { # BLOCK...
	local block
	for block; do printf '%s' "$RANDOM" | dd of="$mnt/blocks" bs=1 seek=$((block * 4096)) conv=notrunc status=none; done
}
noise 1 3 | head -c 80K >"$mnt/blocks"
for view in 1 2 3; do
	mkdir "$mnt/.snap/v$view"
	cp "$mnt/blocks" "$work/v$view"
	case $view in
	1) change 1 2 3 ;;
	2) change 3 4 5 6 ;;
	3) change 1 3 5 7 9 ;;
	esac
done
assert_equal "3 4 5" "$(room)" "blocks of three views"
rmdir "$mnt/.snap/v2"
for try in {1..50}; do
	[ "$(room)" != "6 5" ] || break # block 3 of the second
	sleep 0.1
done
assert_equal "6 5" "$(room)" "blocks without the view of the middle"
for view in 1 3; do cmp "$work/v$view" "$mnt/.snap/v$view/blocks" || fail "view $view, without that of the middle"; done
mount_stop
mount_start
for view in 1 3; do cmp "$work/v$view" "$mnt/.snap/v$view/blocks" || fail "view $view, without that of the middle, mounted again"; done
rmdir "$mnt/.snap/v1"
for try in {1..50}; do
	[ "$(room)" != "5" ] || break
	sleep 0.1
done
assert_equal "5" "$(room)" "blocks of the last view"
rmdir "$mnt/.snap/v3"
rm "$mnt/blocks"

# Changed behind the mount: not shown, and said, where ctime tells
echo one >"$mnt/seen"
echo two >"$mnt/unseen"
mkdir "$mnt/folder.behind"
echo x >"$mnt/folder.behind/x"
mkdir "$mnt/.snap/view"
sleep 0.05
echo behind >"$backing/seen"
mv "$backing/folder.behind/x" "$backing/folder.behind/y"
for path in seen folder.behind/x folder.behind; do
	! cat "$mnt/.snap/view/$path" >/dev/null 2>"$work/error" || fail "$path: was changed behind the mount, and is shown"
	grep -q 'Input/output error' "$work/error" || fail "$path: $(cat "$work/error")"
done
! ls "$mnt/.snap/view/folder.behind" 2>/dev/null || fail "a folder that was changed behind the mount is listed"
assert_equal two "$(cat "$mnt/.snap/view/unseen")" "what was not changed"
grep -q '/seen: was changed after a view of it was made, behind the mount' "$log" || fail "$(cat "$log")"
# Through it after that: it stays so in the view, and is right in the next one
echo live >"$mnt/seen"
! cat "$mnt/.snap/view/seen" >/dev/null 2>&1 || fail "changed behind the mount, and shown after a live write"
mkdir "$mnt/.snap/next"
echo again >"$mnt/seen"
assert_equal live "$(cat "$mnt/.snap/next/seen")" "in the next view"
rmdir "$mnt/.snap/view" "$mnt/.snap/next"

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

# ---------------------------------------------------------------- options, and what cannot be

refused() { # OPTIONS LINE
	! timeout 20 "${program[@]}" -f -o "${1:-rw}" "$backing" "$mnt" </dev/null 2>"$work/error" || fail "$1: mounted"
	assert_equal 1 "$(wc -l <"$work/error")" "lines of $1: $(cat "$work/error")"
	grep -q -- "$2" "$work/error" || fail "$1: $(cat "$work/error")"
}

echo live >"$backing/file"
refused snapname=a/b 'not a name'
refused nosnap=maybe 'nosnap=force'
refused snaplimit=much 'not a size'
refused snapdir=/nowhere 'No such file'
mkdir "$backing/.snap"
refused snapname=.snap 'snapname=NAME'
mount_start snapname=views
[ -d "$mnt/.snap" ] || fail "the .snap that BACKING has"
mkdir "$mnt/views/one"
mount_stop
rmdir "$backing/.snap"
refused nosnap 'point-in-time views'
mount_start nosnap=force
assert_equal file "$(ls "$mnt")" "what is listed with nosnap=force"
grep -q 'the point-in-time views in it are given up' "$log" || fail "$(cat "$log")"
mount_stop
mount_start snapname=views
! cat "$mnt/views/one/file" 2>/dev/null || fail "views are believed after nosnap=force"
mkdir "$mnt/views/two"
assert_equal live "$(cat "$mnt/views/two/file")" "a view made after nosnap=force"
rmdir "$mnt/views/two"
mount_stop
mkdir "$work/other"
mount_start
! timeout 20 "${program[@]}" -f "$backing" "$work/other" </dev/null 2>"$work/error" || fail "a second mount could change what the views of the first are of"
grep -q 'in use by another mount, which has point-in-time views' "$work/error" || fail "$(cat "$work/error")"
[ "$(ls "$mnt/.snap")" = one ] || fail "views"
! timeout 20 "${program[@]}" -f -o nosnap=force "$backing" "$work/other" </dev/null 2>"$work/error" || fail "a second mount, by force"
grep -q 'in use by another mount, which has point-in-time views' "$work/error" || fail "$(cat "$work/error")"
# To be read, and no more
timeout 20 "${program[@]}" -o ro "$backing" "$work/other" 2>"$work/error" || fail "$(cat "$work/error")"
grep -q 'in use by another mount.*read only' "$work/error" || fail "$(cat "$work/error")"
assert_equal live "$(cat "$work/other/file")" "what a mount that joins reads"
echo more >"$mnt/file"
wait_until 5 grep -qx more "$work/other/file" || fail "a mount that joins reads what was"
[ ! -e "$work/other/.snap" ] || fail "views of a mount that joins"
! (echo x >"$work/other/file") 2>/dev/null || fail "a mount that joins is written"
if [ "$who" = root ]; then
	mount -i -o remount,rw "$work/other"
	! (echo x >"$work/other/file") 2>"$work/error" || fail "a mount that joins is written, mounted rw again"
	grep -qi 'read-only' "$work/error" || fail "$(cat "$work/error")"
fi
fusermount3 -u "$work/other"
echo live >"$mnt/file"
rmdir "$mnt/.snap/one"
mount_stop
rm -rf "$backing/.mmapfs"

# Two mounts, neither of which has views: nor can one have them then
mount_start
timeout 20 "${program[@]}" "$backing" "$work/other"
! mkdir "$mnt/.snap/one" 2>"$work/error" || fail "a view, behind which another mount makes changes"
grep -qi 'busy' "$work/error" || fail "$(cat "$work/error")"
grep -q 'in use by another mount, which would change' "$log" || fail "$(cat "$log")"
echo other >"$work/other/file"
assert_equal other "$(cat "$backing/file")" "what the other mount wrote"
fusermount3 -u "$work/other"
wait_until 10 mkdir "$mnt/.snap/one" 2>/dev/null || fail "no view when the other mount is gone"
mount_stop
rm -rf "$backing/.mmapfs"
echo live >"$backing/file"

# A store that is damaged, newer, of another folder, or out of reach: nothing is mounted, nothing of it is
# changed, and a line says why
mount_start
mkdir "$mnt/.snap/one"
echo changed >"$mnt/file"
mount_stop
store=$backing/.mmapfs
cp -a "$store" "$work/kept"
as_kept() { # (the folder itself stays, and so does the ctime of BACKING; and what lies in it)
	rm -f "$store"/{rows,heap}*
	cp -a "$work/kept"/{rows,heap} "$store"
}
printf 'x' | dd of="$store/heap" bs=1 seek=3 conv=notrunc status=none
refused "" 'damaged, or of a newer version'
refused nosnap 'nosnap=force'
refused nosnap=force 'could not be noted'
as_kept
head -c 5000 "$work/kept/rows" >"$store/rows"
refused "" 'rows'
as_kept
head -c 100 /dev/zero | tr '\0' x | dd of="$store/rows" bs=1 seek=4000 conv=notrunc status=none
refused "" 'rows'
as_kept
"$TOOLS/tool_rows" "$store/rows" "update meta set value = 99 where key = 'format'"
refused "" 'newer version'
as_kept
mkdir "$work/elsewhere"
cp -a "$work/kept" "$work/elsewhere/store"
echo else >"$work/elsewhere/file"
! timeout 20 "${program[@]}" -f -o "snapdir=$work/elsewhere/store" "$work/other" "$mnt" </dev/null 2>"$work/error" || fail "a store of another BACKING"
grep -q 'is a view of another folder' "$work/error" || fail "$(cat "$work/error")"
mkdir "$work/elsewhere/full"
echo x >"$work/elsewhere/full/x"
mount_start "snapdir=$work/elsewhere/full,nosnap=force"
mount_stop
mount_start "snapdir=$work/elsewhere/full" # there are no views, and none can be made
! mkdir "$mnt/.snap/one" 2>"$work/error" || fail "a store in a folder that is not empty"
grep -q 'is not empty, and no store' "$log" || fail "$(cat "$log")"
echo live >"$mnt/file"
assert_equal live "$(cat "$mnt/file")" "the live tree beside a store that cannot be"
mount_stop
if [ "$who" != root ]; then
	chmod 0 "$store"
	refused "" 'Permission denied'
	chmod 700 "$store"
fi
mount_start
assert_equal live "$(cat "$mnt/.snap/one/file")" "a view, after all that"
rmdir "$mnt/.snap/one"
mount_stop
rm -rf "$store" "$work/kept" "$work/elsewhere"

# Each page of a small store in its turn: refused with a line, or the view has what it had, or an error; and the
# live tree is what it is
mkdir "$backing/folder"
for i in 1 2 3 4 5 6; do noise 1 "$i" | head -c 30000 >"$backing/folder/f$i"; done
setfattr -n user.color -v red "$backing/folder/f5"
mkdir "$work/was"
cp -a "$backing/folder" "$work/was"
mount_start
mkdir "$mnt/.snap/one"
for i in 1 2 3; do printf x | dd of="$mnt/folder/f$i" bs=1 seek=$((i * 5000)) conv=notrunc status=none; done
rm "$mnt/folder/f4"
setfattr -n user.color -v blue "$mnt/folder/f5"
mv "$mnt/folder/f6" "$mnt/folder/f7"
mount_stop
cp -a "$store" "$work/kept"
cp -a "$backing/folder" "$work/is"
cat >"$work/damage.py" <<'END'
# As much of the view as can be read is as it was
import os, sys
view, was, errors = sys.argv[1], sys.argv[2], 0
def attempt(what, *arguments):
	global errors
	try:
		return what(*arguments)
	except OSError as error:
		assert error.errno in (5, 116), error
		errors += 1
names = attempt(os.listdir, view)
assert names is None or sorted(names) == sorted(os.listdir(was)), names
for name in sorted(os.listdir(was)):
	found = attempt(lambda: open(os.path.join(view, name), "rb").read())
	assert found is None or found == open(os.path.join(was, name), "rb").read(), name
color = attempt(os.getxattr, os.path.join(view, "f5"), "user.color")
assert color in (None, b"red"), color
print(errors)
END
damaged=0
for file in rows heap; do
	pages=$(($(stat -c %s "$work/kept/$file") / 4096))
	for ((page = 0; page < pages; page++)); do
		as_kept
		for at in 8 2000 4032; do
			printf '\377\252' | dd of="$store/$file" bs=1 seek=$((page * 4096 + at)) conv=notrunc status=none
		done
		if timeout 20 "${program[@]}" "$backing" "$mnt" 2>"$work/error"; then
			python3 "$work/damage.py" "$mnt/.snap/one/folder" "$work/was/folder" >"$work/out" 2>&1 || fail "$file, page $page: $(cat "$work/out")"
			[ "$(cat "$work/out")" -eq 0 ] || damaged=$((damaged + 1))
			diff -r "$work/is" "$mnt/folder" || fail "$file, page $page: the live tree"
			fusermount3 -u "$mnt"
			wait_until 10 flock -n "$store/heap" true || fail "$file, page $page: the store is still in use"
		else
			assert_equal 1 "$(wc -l <"$work/error")" "lines of $file, page $page: $(cat "$work/error")"
			damaged=$((damaged + 1))
		fi
	done
done
[ "$damaged" -gt 5 ] || fail "pages that are damaged are seldom noticed: $damaged"
as_kept
mount_start
assert_equal 0 "$(python3 "$work/damage.py" "$mnt/.snap/one/folder" "$work/was/folder")" "a store that is sound again"
rmdir "$mnt/.snap/one"
mount_stop
rm -rf "$store" "$work/kept" "$work/was" "$work/is" "$backing/folder"

# Who does not own the mount may look, as he may in the live tree, and no more
if [ "$who" = root ]; then
	somebody=(setpriv --reuid=65534 --regid=65534 --clear-groups --)
	chmod 755 "$work" "$backing"
	echo secret >"$backing/secret"
	chmod 600 "$backing/secret"
	mount_start allow_other
	mkdir "$mnt/.snap/one"
	! "${somebody[@]}" mkdir "$mnt/.snap/two" 2>"$work/error" || fail "a view by somebody else"
	grep -q 'Permission denied' "$work/error" || fail "$(cat "$work/error")"
	! "${somebody[@]}" rmdir "$mnt/.snap/one" 2>/dev/null || fail "dropped by somebody else"
	! "${somebody[@]}" mv "$mnt/.snap/one" "$mnt/.snap/1" 2>/dev/null || fail "renamed by somebody else"
	assert_equal live "$("${somebody[@]}" cat "$mnt/.snap/one/file")" "what somebody else reads"
	! "${somebody[@]}" cat "$mnt/.snap/one/secret" 2>/dev/null || fail "a secret is read in a view"
	! "${somebody[@]}" touch "$mnt/.snap/one/made" 2>/dev/null || fail "a name is made in a view"
	rmdir "$mnt/.snap/one"
	mount_stop
	rm -rf "$store" "$backing/secret"

	# A BACKING that is read only: what is live can be read
	mount_start
	mkdir "$mnt/.snap/one"
	mount_stop
	mount --bind "$backing" "$backing"
	mount -o remount,bind,ro "$backing"
	mount_start
	assert_equal live "$(cat "$mnt/file")" "a BACKING that is read only"
	grep -q 'read only: the point-in-time views in it cannot be used' "$log" || fail "$(cat "$log")"
	mount_stop
	umount "$backing"
	mount_start
	assert_equal live "$(cat "$mnt/.snap/one/file")" "a view, after BACKING was read only"
	rmdir "$mnt/.snap/one"
	mount_stop
	rm -rf "$store"
	mount --bind "$backing" "$backing"
	mount -o remount,bind,ro "$backing"
	mount_start
	! mkdir "$mnt/.snap/one" 2>"$work/error" || fail "a view of what is read only"
	grep -qi 'read-only' "$work/error" || fail "$(cat "$work/error")"
	mount_stop
	umount "$backing"
fi

# Kept elsewhere: what is removed from the live tree has to be copied
mkdir "$work/views"
noise 1 8 >"$backing/large"
ln -s nowhere "$backing/link"
mount_start "snapdir=$work/views"
mkdir "$mnt/.snap/one"
rm "$mnt/large" "$mnt/link"
cmp <(noise 1 8) "$mnt/.snap/one/large" || fail "what was removed"
assert_equal nowhere "$(readlink "$mnt/.snap/one/link")" "a link that was removed"
[ ! -e "$backing/.mmapfs" ] || fail "a store in BACKING, in spite of snapdir"
mount_stop
mount_start "snapdir=$work/views"
cmp <(noise 1 8) "$mnt/.snap/one/large" || fail "what was removed, after a remount"
assert_equal nowhere "$(readlink "$mnt/.snap/one/link")" "a link that was removed, after a remount"
rmdir "$mnt/.snap/one"
mount_stop
rm -rf "$work/views"

# No room: the live tree goes on, the oldest view does not
noise 2 4 >"$backing/large"
mount_start snaplimit=1M
mkdir "$mnt/.snap/old"
noise 1 6 | head -c 600K | dd of="$mnt/large" bs=64K iflag=fullblock conv=notrunc status=none
mkdir "$mnt/.snap/young"
cp "$mnt/large" "$work/young"
noise 1 5 | head -c 700K >"$work/new"
dd if="$work/new" of="$mnt/large" bs=64K conv=notrunc status=none || fail "the live tree was refused"
cmp -n 716800 "$work/new" "$mnt/large" || fail "the live file"
cmp "$work/young" "$mnt/.snap/young/large" || fail "the younger view"
! cat "$mnt/.snap/old/large" >/dev/null 2>"$work/error" || fail "a view without what it was"
grep -q 'Input/output error' "$work/error" || fail "$(cat "$work/error")"
grep -q 'view old is given up: /large .*No space left' "$log" || fail "$(cat "$log")"
"$TOOLS/mmapfsctl" snapshot list "$mnt" >"$work/out"
grep -q 'given-up .* old$' "$work/out" || fail "$(cat "$work/out")"
rmdir "$mnt/.snap/old" "$mnt/.snap/young"
mount_stop
rm -rf "$backing/.mmapfs"

# A disk that is full: the same, and no view is believed after that, whatever could be noted of it
if [ "$who" = root ]; then
	mkdir "$work/disk"
	truncate -s 48M "$work/image"
	mkfs.ext4 -q -F "$work/image"
	mount -o loop "$work/image" "$work/disk"
	mine=$backing
	backing=$work/disk
	noise 8 1 >"$backing/large"
	mount_start
	mkdir "$mnt/.snap/one"
	printf x | dd of="$mnt/large" bs=1 seek=4000000 conv=notrunc status=none # there is a block of it
	! dd if=/dev/zero of="$work/disk/full" bs=64K status=none 2>/dev/null || fail "the disk is not full"
	! dd if=/dev/zero of="$work/disk/full" bs=512 oflag=append conv=notrunc status=none 2>/dev/null || fail "the disk is not full"
	noise 8 2 >"$work/new"
	dd if="$work/new" of="$mnt/large" bs=64K conv=notrunc status=none || fail "the live tree was refused on a full disk"
	cmp "$work/new" "$mnt/large" || fail "the live file on a full disk"
	grep -q 'view one is given up' "$log" || fail "$(cat "$log")"
	mount_kill
	refused "" 'No space left'
	rm "$work/disk/full"
	mount_start
	! cat "$mnt/.snap/one/large" >/dev/null 2>"$work/error" || fail "a view that was given up is believed after SIGKILL"
	grep -q 'Input/output error' "$work/error" || fail "$(cat "$work/error")"
	rmdir "$mnt/.snap/one"
	mount_stop
	umount "$work/disk"
	backing=$mine
fi

# ---------------------------------------------------------------- mmapfsctl

mount_start
"$TOOLS/mmapfsctl" snapshot create "$mnt" one
"$TOOLS/mmapfsctl" snapshot create --read-only "$mnt" 'two "of" them'
printf x | dd of="$mnt/large" bs=1 seek=0 conv=notrunc status=none
! (echo x >"$mnt/.snap/two \"of\" them/file") 2>/dev/null || fail "written to one that is read-only"
"$TOOLS/mmapfsctl" snapshot list "$mnt" >"$work/out"
[ "$(grep -c whole "$work/out")" = 2 ] || fail "$(cat "$work/out")"
grep -q ' rw  *0  one$' "$work/out" || fail "$(cat "$work/out")"
grep -q ' ro  *4096  two "of" them$' "$work/out" || fail "$(cat "$work/out")"
"$TOOLS/mmapfsctl" snapshot list --json "$mnt" | python3 -c 'import json, sys
views = json.load(sys.stdin)
assert [view["name"] for view in views] == ["one", "two \"of\" them"], views
assert views[1]["read_only"] and views[1]["room"] == 4096 and views[1]["state"] == "whole", views'
"$TOOLS/mmapfsctl" snapshot rename "$mnt" one 1
! "$TOOLS/mmapfsctl" snapshot remove "$mnt" one 2>"$work/error" || fail "removed what there is not"
grep -q 'No such file' "$work/error" || fail "$(cat "$work/error")"
"$TOOLS/mmapfsctl" snapshot remove "$mnt" 1 'two "of" them'
assert_equal "" "$(ls "$mnt/.snap")" "views"
! "$TOOLS/mmapfsctl" snapshot list "$backing" 2>"$work/error" || fail "not a mount"
grep -q 'no mount of mmapfs' "$work/error" || fail "$(cat "$work/error")"
mount_stop
rm -rf "$backing/.mmapfs"

# ---------------------------------------------------------------- what it costs, counted

# A hundred views take what one takes
rows_of() {
	"$TOOLS/tool_rows" "$backing/.mmapfs/rows" 'select count(*) from object; select count(*) from chunk; select sum(length(slots)) from chunk' | xargs
}
for count in 1 10 100; do
	noise 1 6 >"$backing/large"
	mount_start
	for ((i = 0; i < count; i++)); do mkdir "$mnt/.snap/v$i"; done
	printf x | dd of="$mnt/large" bs=1 seek=50000 conv=notrunc status=none
	printf y | dd of="$mnt/large" bs=1 seek=150000 conv=notrunc status=none
	echo x >"$mnt/made"
	mount_stop
	rows_of >>"$work/counts"
	rm -rf "$backing/.mmapfs" "$backing/made"
done
assert_equal 1 "$(sort -u "$work/counts" | wc -l)" "rows of 1, 10 and 100 views: $(xargs <"$work/counts")"

is_traced() {
	! grep -q '^TracerPid:.0$' "/proc/$daemon/status"
}

# Making one visits nothing, however much there is and is known: no more calls with 2,000 files than with 10
for count in 10 2000; do
	mkdir "$backing/tree"
	(cd "$backing/tree" && seq "$count" | split -l 1 -a 4 -d - f)
	mount_start
	mkdir "$mnt/.snap/first" # the store is there
	cat "$mnt/tree"/* >/dev/null
	timeout 60 strace -f -q -o "$work/strace" -p "$daemon" 2>"$work/error" &
	tracer=$!
	wait_until 20 is_traced || fail "not traced"
	mkdir "$mnt/.snap/view"
	{
		pkill -f "strace -f -q -o $work/strace"
		wait "$tracer"
	} 2>/dev/null || true
	# (Not those that depend on other threads.)
	grep -cE ' (openat|openat2|open|getdents64|newfstatat|statx|name_to_handle_at|readlinkat)\(' "$work/strace" >>"$work/calls" || true
	rmdir "$mnt/.snap"/*
	mount_stop
	rm -rf "$backing/.mmapfs" "$backing/tree"
done
while read -r calls; do
	[ "$calls" -lt 20 ] || fail "calls of mkdir with 10 and with 2,000 files: $(xargs <"$work/calls")"
done <"$work/calls" # (other threads have a few)

# ---------------------------------------------------------------- under load

# A writes, then B: B is never ahead of A by more than one in any view, nor A by more than one
cat >"$work/writer.py" <<'END'
import os, sys
a, b = (os.open(os.path.join(sys.argv[1], name), os.O_RDWR | os.O_CREAT) for name in "AB")
number = 0
while not os.path.exists(sys.argv[2]):
	number += 1
	for fd in (a, b):
		os.pwrite(fd, b"%09d" % number * 3000, 0)
print(number)
END
mount_start
python3 "$work/writer.py" "$mnt" "$work/enough" >"$work/written" &
writer=$!
wait_until 10 test -s "$mnt/B" || fail "nothing is written"
for ((i = 0; i < 20; i++)); do
	mkdir "$mnt/.snap/v$i"
	sleep 0.05
done
touch "$work/enough"
wait "$writer"
for view in "$mnt/.snap"/*; do
	python3 - "$view" <<'END' || fail "${view##*/}: not one instant"
import os, sys
a, b = (open(os.path.join(sys.argv[1], name), "rb").read() for name in "AB")
numbers = [[int(text[i:i + 9]) for i in range(0, len(text), 9)] for text in (a, b)]
assert len(set(numbers[0])) == 1 and len(set(numbers[1])) == 1, [sorted(set(n)) for n in numbers]
assert 0 <= numbers[0][0] - numbers[1][0] <= 1, (numbers[0][0], numbers[1][0])
END
done
rmdir "$mnt/.snap"/*

# Writers all over some files; a view of them is read at once, while they are changed for the first time, and
# again later, past the kernel's cache: it is the same
cat >"$work/torn.py" <<'END'
import hashlib, mmap, os, sys, threading, time
top, views = sys.argv[1], int(sys.argv[2])
size, step = 1 << 20, 128 << 10
names = ["w%d" % i for i in range(3)]
for name in names:
	open(os.path.join(top, name), "wb").write(b"0" * size)
writers = []
for name in names:
	pid = os.fork()
	if pid == 0:
		fd, number = os.open(os.path.join(top, name), os.O_RDWR), 0
		while True:
			number += 1
			for at in range(0, size, step):
				os.pwrite(fd, b"%08d" % number * (step // 8), at)
	writers.append(pid)

def sums(view):
	buffer = mmap.mmap(-1, size)
	found = []
	for name in names:
		fd = os.open(os.path.join(top, ".snap", view, name), os.O_RDONLY | os.O_DIRECT)
		assert os.preadv(fd, [buffer], 0) == size
		os.close(fd)
		found.append(hashlib.md5(buffer).hexdigest())
	return found

try:
	first = {}
	for number in range(views):
		view = "t%d" % number
		os.mkdir(os.path.join(top, ".snap", view))
		first[view] = [sums(view), sums(view)]
	time.sleep(0.2)
	torn = [view for view in first if first[view] != [sums(view)] * 2]
finally:
	for pid in writers:
		os.kill(pid, 9)
		os.waitpid(pid, 0)
if torn:
	sys.exit("%d of %d views are not what they were: %s" % (len(torn), views, torn))
END
python3 "$work/torn.py" "$mnt" "${SNAP_VIEWS:-30}" || fail "views have changed under load"
rmdir "$mnt/.snap"/*
mount_stop
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
