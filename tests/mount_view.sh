#!/bin/bash
# A mount that is a view (-o cow): it does what a folder does, BACKING stays what it is, and the view is
# what it was after unmounts and SIGKILL.
# VIEW_STEPS says how many random operations each run makes (2000), VIEW_SEEDS which, VIEW_SECONDS how
# long threads do at once what they know (4).

# Two trees that are alike, of files of several owners, some of which others may write
prepare() {
	local number=0 folder file
	[ "$(id -u)" -eq 0 ] || return 0
	mkdir -p "$1/owned/one" "$1/owned/other"
	"$TOOLS/tool_twin" run "$1/owned/one" "$1/owned/other" 3 2500
	while read -r file; do
		for folder in "$1/owned/one" "$1/owned/other"; do
			case $((number % 4)) in
			0) chown -h 12345:65534 "$folder/$file" ;;
			1) chown -h 65534:12345 "$folder/$file" ;;
			esac
			[ -L "$folder/$file" ] || [ $((number % 3)) -eq 0 ] || chmod a+rwX "$folder/$file"
		done
		number=$((number + 1))
	done < <(cd "$1/owned/one" && find . | sort)
	chmod 777 "$1/owned/one" "$1/owned/other"
}

# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 600 root user
need getfattr setfattr sqlite3 git rsync make cc

steps=${VIEW_STEPS:-2000}
read -r -a seeds <<<"${VIEW_SEEDS:-1 2 3 4}"

# All that is to stay, of folder $1. (Times of access may move: kernels refuse O_NOATIME at times.)
snapshot() {
	(
		cd "$1"
		find . -printf '%p %y %m %U %G %s %n %T@ %C@ %i %l\n' | sort
		find . -type f -exec md5sum {} + | sort
		getfattr -h -R -d -m - . 2>/dev/null
	)
}

mount_kill() {
	{
		kill -KILL "$daemon"
		daemon_wait
	} 2>/dev/null
	fusermount3 -u -z "$mnt"
}

# BACKING, and a plain copy of it in which the same is done as in the view
mkdir "$work/store" "$plain/twin"
"$TOOLS/tool_twin" run "$backing" "$plain/twin" 7 4000
snapshot "$backing" >"$work/before"

# ---------------------------------------------------------------- a view that is kept

for seed in "${seeds[@]}"; do
	mount_start "cow=$work/store,flush=10ms"
	"$TOOLS/tool_twin" compare "$mnt" "$plain/twin" || fail "the view is not what it was"
	"$TOOLS/tool_twin" run "$mnt" "$plain/twin" "$seed" "$steps"
	if [ $((seed % 2)) -eq 0 ]; then mount_kill; else mount_stop; fi
	snapshot "$backing" >"$work/after"
	assert_same "$work/before" "$work/after" "BACKING"
done

# Numbers of inodes stay; a folder of BACKING that was moved has what it had
mount_start "cow=$work/store"
mkdir "$mnt/numbered" && echo 1 >"$mnt/numbered/file" && ln "$mnt/numbered/file" "$mnt/numbered/other"
(cd "$mnt" && find . -printf '%p %i %n\n' | sort) >"$work/numbers"
mount_stop
mount_start "cow=$work/store"
(cd "$mnt" && find . -printf '%p %i %n\n' | sort) >"$work/numbers.after"
assert_same "$work/numbers" "$work/numbers.after" "numbers of inodes"
mount_stop

# Threads at once, each of which knows what it has to see
mkdir "$work/threads"
mount_start "cow=$work/threads,flush=10ms"
mkdir "$mnt/mixed"
"$TOOLS/tool_mixed" "$mnt/mixed" "$mnt/mixed" "${VIEW_SECONDS:-4}" || fail "tool_mixed: exit status $?"
mount_stop
"${program[@]}" --check "$work/threads" >"$work/out" || fail "the store after threads at once: $(cat "$work/out")"
rm -r "$work/threads"

# Files of other owners, which the daemon of an ordinary user may not do all with
if [ "$who" = user ] && [ -d "$TOOLS/owned/one" ]; then
	mine=$backing
	backing=$TOOLS/owned/one
	(cd "$backing" && find . -printf '%p %y %m %U %G %s %n %T@ %C@ %i %l\n' | sort) >"$work/before.owned"
	mkdir "$work/owned"
	for seed in 1 2; do
		mount_start "cow=$work/owned"
		"$TOOLS/tool_twin" run "$mnt" "$TOOLS/owned/other" "$seed" "$steps"
		mount_stop
	done
	(cd "$backing" && find . -printf '%p %y %m %U %G %s %n %T@ %C@ %i %l\n' | sort) >"$work/after.owned"
	assert_same "$work/before.owned" "$work/after.owned" "BACKING"
	backing=$mine
fi

# ---------------------------------------------------------------- a view that is gone

mount_start cow
"$TOOLS/tool_twin" compare "$mnt" "$backing"
rm -rf "${mnt:?}"/*
assert_equal "" "$(ls -A "$mnt")" "the emptied view"
echo new >"$mnt/new"
mount_stop
mount_start cow
"$TOOLS/tool_twin" compare "$mnt" "$backing" || fail "a view in memory was kept"
mount_stop
snapshot "$backing" >"$work/after"
assert_same "$work/before" "$work/after" "BACKING"

# Room: who writes gets ENOSPC, and all else goes on
mount_start cow,cow_limit=1M
echo small >"$mnt/small"
! dd if=/dev/zero of="$mnt/large" bs=64K count=32 status=none 2>"$work/error" || fail "no limit"
grep -q 'No space left' "$work/error" || fail "$(cat "$work/error")"
assert_equal small "$(cat "$mnt/small")" "a file beside one that found no room"
rm "$mnt/large"
dd if=/dev/zero of="$mnt/other" bs=64K count=8 status=none || fail "room was not given back"
mount_stop

# ---------------------------------------------------------------- a large file

# What is changed of it, and nothing else, takes room
truncate -s 1G "$backing/giant"
printf begin | dd of="$backing/giant" conv=notrunc status=none
printf middle | dd of="$backing/giant" bs=1 seek=536870912 conv=notrunc status=none
mkdir "$work/giant"
mount_start "cow=$work/giant"
printf X | dd of="$mnt/giant" bs=1 seek=1000000 conv=notrunc status=none
chmod 600 "$mnt/giant"
mv "$mnt/giant" "$mnt/moved"
truncate -s 1073741823 "$mnt/moved"
assert_equal begin "$(head -c 5 "$mnt/moved")" "the begin of a large file"
assert_equal middle "$(dd if="$mnt/moved" bs=1 skip=536870912 count=6 status=none)" "its middle"
assert_equal X "$(dd if="$mnt/moved" bs=1 skip=1000000 count=1 status=none)" "what was written"
assert_equal "600 1073741823" "$(stat -c '%a %s' "$mnt/moved")" "its attributes"
mount_stop
room=$(($(stat -c '%b * %B' "$work/giant/heap")))
[ "$room" -le 65536 ] || fail "a changed byte takes $room bytes of the heap"

# ---------------------------------------------------------------- changed behind the view

head -c 20000 /dev/zero >"$backing/behind" # of which the view will have one block
echo one >"$backing/behind-attributes"
mount_start "cow=$work/giant"
printf 2 | dd of="$mnt/behind" bs=1 seek=1 conv=notrunc status=none
setfattr -n user.view -v here "$mnt/behind-attributes"
sleep 0.02 # ctime is as coarse as the clock's tick
echo three >>"$backing/behind"
echo three >>"$backing/behind-attributes"
mount_stop
mount_start "cow=$work/giant"
for file in behind behind-attributes; do
	! cat "$mnt/$file" 2>"$work/error" >/dev/null || fail "a mixture of two times is shown"
	grep -q 'Stale file handle' "$work/error" || fail "$(cat "$work/error")"
	grep -q "/$file: was changed in BACKING" "$log" || fail "nothing in the log of $file"
done
mount_stop
rm "$backing/giant" "$backing"/behind*

# ---------------------------------------------------------------- tools

git -c init.defaultBranch=main init -q "$backing/repo"
(
	cd "$backing/repo"
	for ((i = 0; i < 200; i++)); do
		echo "$i" >"file.$i"
	done
	git add . && git -c user.name=n -c user.email=e commit -qm one
)
sqlite3 "$backing/db" 'create table t(a); with recursive c(x) as (select 1 union all select x + 1 from c
	where x < 20000) insert into t select x from c'
mkdir "$backing/build"
for ((i = 0; i < 30; i++)); do
	echo "int part$i(void); int part$i(void) { return $i; }" >"$backing/build/part$i.c"
	echo "int part$i(void);" >>"$backing/build/parts.h"
	sum+="${sum:+ + }part$i()"
done
echo "#include \"parts.h\"
int main(void) { return ($sum) != 435; }" >"$backing/build/main.c"
printf '%s\n' 'all: main' 'main: $(patsubst %.c,%.o,$(wildcard *.c))' '	$(CC) -o $@ $^' '%.o: %.c parts.h' \
	'	$(CC) -c -o $@ $<' >"$backing/build/Makefile"
snapshot "$backing" >"$work/before"
mkdir "$work/tools"
mount_start "cow=$work/tools"
sqlite3 "$mnt/db" 'pragma journal_mode = wal; update t set a = a + 1' >/dev/null
assert_equal "200030000 ok" "$(sqlite3 "$mnt/db" 'select sum(a) from t; pragma integrity_check' | xargs)" SQLite
(
	cd "$mnt/repo"
	git gc -q --prune=now
	git fsck
	git worktree add -q ../tree
	assert_equal "" "$(git status --short)" "git status"
) 2>&1 | grep -v '^Checking' >&2 || true
cmp "$mnt/tree/file.77" "$backing/repo/file.77"
rsync -a --delete "$mnt/repo/.git/" "$mnt/tree/"
make -s -j4 -C "$mnt/build" CC=cc && "$mnt/build/main" || fail "a build in the view"
rm -rf "$mnt/repo"
mount_kill
mount_start "cow=$work/tools"
[ ! -e "$mnt/repo" ] || fail "what was removed is back after SIGKILL"
cmp "$mnt/tree/HEAD" "$backing/repo/.git/HEAD"
"$mnt/build/main" || fail "what was built in the view is not what it was after SIGKILL"
make -s -q -C "$mnt/build" || fail "what was built in the view is to be built again"
assert_equal "200030000 ok" "$(sqlite3 "$mnt/db" 'select sum(a) from t; pragma integrity_check' | xargs)" SQLite
mount_stop
snapshot "$backing" >"$work/after"
assert_same "$work/before" "$work/after" "BACKING"

# ---------------------------------------------------------------- what is refused

# refused STORE WORDS: a line that has them, nothing mounted
refused() {
	! timeout 10 "${program[@]}" -o "cow=$1" "$backing" "$mnt" 2>"$work/error" || fail "mounted with cow=$1"
	! is_mounted || fail "mounted"
	assert_equal 1 "$(wc -l <"$work/error")" "lines of: $(cat "$work/error")"
	grep -q -e "$2" "$work/error" || fail "$(cat "$work/error")"
}
refused "$work/missing" 'No such file'
refused "$backing" 'lies in BACKING'
mkdir -p "$work/inside" "$mnt/inside"
refused "$mnt/inside" 'lies in MOUNTPOINT'
rmdir "$mnt/inside"
echo mine >"$work/inside/file"
refused "$work/inside" 'not empty'
assert_equal file "$(ls -A "$work/inside")" "a folder that was refused"
rm "$work/inside/file"
mkdir "$work/elsewhere"
timeout 10 "${program[@]}" -o "cow=$work/inside" "$work/elsewhere" "$mnt" || fail "no mount elsewhere"
fusermount3 -u "$mnt"
wait_until 10 flock -n "$work/inside/heap" true || fail "the store is still in use"
refused "$work/inside" 'another folder'
flock "$work/tools/heap" sleep 5 &
wait_until 5 eval '! flock -n "$work/tools/heap" true'
refused "$work/tools" 'in use'
kill %+ 2>/dev/null || true
wait || true
wait_until 10 flock -n "$work/tools/heap" true || fail "the store is still in use"
cp -r "$work/tools" "$work/damaged"
printf garbage | dd of="$work/damaged/heap" conv=notrunc status=none
refused "$work/damaged" 'damaged'
cp "$work/tools/heap" "$work/damaged/heap"
head -c 4096 /dev/urandom | dd of="$work/damaged/rows" conv=notrunc status=none
refused "$work/damaged" 'rows'

# ---------------------------------------------------------------- damage

# flip FILE OFFSET: other bytes there
flip() {
	python3 -c 'import sys
with open(sys.argv[1], "r+b") as f:
	f.seek(int(sys.argv[2]))
	old = f.read(16)
	f.seek(int(sys.argv[2]))
	f.write(bytes(b ^ 0xa5 for b in old))' "$1" "$2"
}

mkdir "$work/sound"
mount_start "cow=$work/sound"
noise 1 5 | head -c 50000 >"$mnt/victim"
noise 1 6 | head -c 50000 >"$mnt/bystander"
mkdir -p "$mnt/d/e"
ln "$mnt/bystander" "$mnt/d/e/other"
setfattr -n user.a -v b "$mnt/d"
mount_stop
"${program[@]}" --check "$work/sound" >"$work/out" || fail "a sound store: $(cat "$work/out")"

# A block: its file says so where it is, all else is served
cp -r "$work/sound" "$work/hurt"
flip "$work/hurt/heap" "$(($(LC_ALL=C grep -abo -m 1 -F "$(noise 1 5 | head -c 24 | tr -d '\0\n' | head -c 8)" "$work/hurt/heap" |
	head -n 1 | cut -d : -f 1) + 8192))"
! "${program[@]}" --check "$work/hurt" >"$work/out" || fail "a damaged block is not found"
grep -q '^/victim: the block at [48][0-9]* is damaged' "$work/out" || fail "$(cat "$work/out")"
mount_start "cow=$work/hurt"
! "${program[@]}" --check "$work/hurt" 2>"$work/error" >&2 || fail "checked while it is in use"
grep -q 'in use' "$work/error" || fail "$(cat "$work/error")"
! cat "$mnt/victim" >"$work/out" 2>"$work/error" || fail "a damaged block is shown"
grep -q 'Input/output error' "$work/error" || fail "$(cat "$work/error")"
grep -q 'the block at .* is damaged' "$log" || fail "nothing in the log"
cmp <(noise 1 6 | head -c 50000) "$mnt/bystander" || fail "a file beside a damaged one"
mount_stop
! timeout 10 "${program[@]}" -o "cow=$work/hurt,cow_check" "$backing" "$mnt" >"$work/out" 2>"$work/error" ||
	fail "cow_check: a damaged store is mounted"
grep -q '^/victim: the block at' "$work/out" || fail "cow_check: $(cat "$work/out")"
grep -q 'is not whole' "$work/error" || fail "cow_check: $(cat "$work/error")"
mount_start "cow=$work/sound,cow_check"
mount_stop
mkdir "$work/unborn"
mount_start "cow=$work/unborn,cow_check"
mount_stop

# A row: a number is another one, and all else is as it was
rm -rf "$work/hurt"
cp -r "$work/sound" "$work/hurt"
"$TOOLS/tool_rows" "$work/hurt/rows" "update object set size = size + 4096 where id = (select object from name where name = cast('victim' as blob))"
! "${program[@]}" --check "$work/hurt" >"$work/out" || fail "a damaged row is not found"
grep -q '^/victim: a row of object is damaged' "$work/out" || fail "$(cat "$work/out")"
mount_start "cow=$work/hurt"
! cat "$mnt/victim" >"$work/out" 2>"$work/error" || fail "a file of a damaged row is shown"
grep -q 'Input/output error' "$work/error" || fail "$(cat "$work/error")"
grep -q 'a row is damaged' "$log" || fail "nothing in the log"
cmp <(noise 1 6 | head -c 50000) "$mnt/bystander" || fail "a file beside a damaged one"
mount_stop

# What is of the whole store
rm -rf "$work/hurt"
cp -r "$work/sound" "$work/hurt"
"$TOOLS/tool_rows" "$work/hurt/rows" "update meta set value = value + 1 where key = 'end'"
refused "$work/hurt" 'its rows are damaged'

# Each page of the rows in its turn, and the store cut: refused or served, and nobody dies
pages=$(($(stat -c %s "$work/sound/rows") / 4096))
for ((page = 0; page <= pages; page++)); do
	rm -rf "$work/hurt"
	cp -r "$work/sound" "$work/hurt"
	if [ "$page" -lt "$pages" ]; then
		flip "$work/hurt/rows" "$((page * 4096 + 4096 - 64))"
		flip "$work/hurt/rows" "$((page * 4096 + 8))"
	else
		truncate -s $((pages / 2 * 4096)) "$work/hurt/rows"
	fi
	status=0
	"${program[@]}" --check "$work/hurt" >"$work/out" 2>&1 || status=$?
	[ "$status" -le 1 ] || fail "page $page: --check: $status: $(cat "$work/out")"
	if timeout 20 "${program[@]}" -o "cow=$work/hurt" "$backing" "$mnt" 2>"$work/error"; then
		timeout 20 find "$mnt" -type f -size -100k -exec cat {} + >"$work/out" 2>&1 || true
		echo new >"$mnt/new" 2>"$work/out" || true
		stat "$mnt" >"$work/out" 2>&1 || ! grep -q 'not connected' "$work/out" || fail "page $page: the daemon died"
		fusermount3 -u "$mnt"
		wait_until 10 flock -n "$work/hurt/heap" true || fail "page $page: the store is still in use"
	else
		[ -s "$work/error" ] || fail "page $page: refused without a word"
	fi
done
