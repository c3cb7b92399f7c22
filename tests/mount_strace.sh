#!/bin/bash
# That files are served out of mappings: which system calls the daemon makes, and from where it
# replies.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 180 root
need strace

name=sixty-four-mebibytes
size=$((64 << 20))
noise 64 1 >"$plain/$name"

# Watches the daemon from here on: all its calls that take a descriptor
trace_start() {
	: >"$work/strace"
	strace -f -y -p "$daemon" -e trace=%desc -e signal=none -o "$work/trace" 2>"$work/strace" &
	tracer=$!
	wait_until 10 trace_is_on || fail "strace: $(cat "$work/strace")"
}

trace_is_on() {
	if grep -q 'Operation not permitted' "$work/strace"; then
		skip "this process may not trace another"
	fi
	grep -q 'Process .* attached' "$work/strace"
}

# And no more. Before that a write that extends the file, which always goes by pwrite (as do
# holes): if the trace does not show that one, it would not have shown others either.
trace_stop() {
	printf end >>"$mnt/$name"
	kill -INT "$tracer"
	wait "$tracer" || true
	transfers "$write_calls" >"$work/transfers"
	if [ "$(wc -l <"$work/transfers")" -ne 1 ] || ! grep -q ', "end", 3, ' "$work/transfers"; then
		head "$work/transfers" >&2
		fail "$1: not just the one pwrite of what extends the file"
	fi
}

# The calls of these names that touched the backing file. (By its name alone: a private mount has
# paths of its own.)
transfers() {
	grep -E "^[0-9]+ +(<\.\.\. )?($1)[( ]" "$work/trace" | grep -E "/$name( \(deleted\))?>" || true
}
read_calls='read|readv|pread64|preadv|preadv2|splice|sendfile|copy_file_range|io_uring_enter'
write_calls='write|writev|pwrite64|pwritev|pwritev2|splice|sendfile|copy_file_range|io_uring_enter'

# Requests of a kind are told by what was read from the device: here only how many there were at
# all
requests() {
	grep -cE '(writev?)\([0-9]+</dev/fuse>' "$work/trace" || true
}

# ---- reading, cold

cp "$plain/$name" "$backing/$name"
drop_pages "$backing/$name"
mount_start flush=manual
trace_start
dd if="$mnt/$name" bs=1M status=none | cmp - "$plain/$name"
count=$(requests)
[ "$count" -ge 64 ] || fail "the trace shows $count replies for 64 MiB"
trace_stop "reading"
transfers "$read_calls" >"$work/reads"
[ ! -s "$work/reads" ] || fail "the backing file was read: $(head -n 3 "$work/reads")"
mount_stop

# The replies lie in the mapping, all of them: nothing was copied before it was handed to the
# kernel
cp "$plain/$name" "$backing/$name"
mount_start flush=manual
"$TOOLS/tool_reply" "$daemon" "$backing/$name" >"$work/replies" &
tracer=$!
reply_is_on() {
	grep -q . "$work/replies"
}
wait_until 10 reply_is_on || fail "tool_reply"
grep -qx ready "$work/replies" || skip "$(cat "$work/replies")"
dd if="$mnt/$name" bs=1M status=none | cmp - "$plain/$name"
kill -TERM "$tracer"
wait "$tracer" || fail "tool_reply: exit status $?"
read -r mapped other < <(tail -n 1 "$work/replies" | tr -dc '0-9 \n')
# (What was read ahead and had to go again is read twice)
if [ "$mapped" -lt "$size" ] || [ "$other" -ne 0 ]; then
	fail "of $size bytes $mapped were replied out of the mapping, and $other not"
fi
mount_stop

# ---- overwriting what is allocated and in memory, under manual

noise 64 2 >"$plain/new"
# What is not in memory goes by pwrite
for try in 1 2 3; do
	cp "$plain/$name" "$backing/$name"
	cat "$backing/$name" >/dev/null
	pages "$backing/$name"
	if [ "$resident" -eq $((size / $(getconf PAGESIZE))) ]; then break; fi
	[ "$try" -lt 3 ] || fail "only $resident pages of 64 MiB stay in memory"
done
mount_start flush=manual
trace_start
dd if="$plain/new" of="$mnt/$name" bs=64K conv=notrunc status=none
count=$(requests)
[ "$count" -ge 1024 ] || fail "the trace shows $count replies for 1024 writes"
trace_stop "overwriting"
cmp <(cat "$plain/new" && printf end) "$backing/$name" || fail "the overwritten file"
mount_stop
cmp <(cat "$plain/new" && printf end) "$backing/$name" || fail "the overwritten file after the unmount"

# ---- folders that got or lost names: synced when the policy says so, by fsync, and at the end

# How often folder $1 has been synced: fsync calls that have returned. (Where another thread came
# between, the return is a line of its own, without the path.)
folder_syncs() {
	awk -v folder="/$1>" '
		$2 ~ /^fsync\(/ && index($0, folder) { if (/<unfinished/) open[$1] = 1; else count++ }
		/<\.\.\. fsync resumed>/ { count += open[$1]; open[$1] = 0 }
		END { print count + 0 }' "$work/trace"
}

# Whether folder $1 has been synced more often than $2 times
folder_synced() {
	[ "$(folder_syncs "$1")" -gt "$2" ]
}

not_synced() {
	! folder_synced "$@"
}

# Does one thing to a name in folder $1 of the mount
change_name() {
	case $2 in
	create) : >"$mnt/$1/new" ;;
	mkdir) mkdir "$mnt/$1/folder" ;;
	rename) mv "$mnt/$1/new" "$mnt/$1/newer" ;;
	link) ln "$mnt/$1/newer" "$mnt/$1/link" ;;
	symlink) ln -s x "$mnt/$1/symlink" ;;
	unlink) rm "$mnt/$1/link" ;;
	rmdir) rmdir "$mnt/$1/folder" ;;
	esac
}

for policy in 10ms always manual; do
	rm -rf "${backing:?}"/*
	mkdir "$backing/names"
	mount_start "flush=$policy"
	# A reply that does not wait for the sync is there long before it
	slowly=()
	if [ $policy = always ]; then slowly=(-e inject=fsync:delay_enter=200000); fi
	strace -f -y -p "$daemon" -e trace=fsync "${slowly[@]}" -e signal=none -o "$work/trace" \
		2>"$work/strace" &
	tracer=$!
	wait_until 10 trace_is_on || fail "strace: $(cat "$work/strace")"
	for change in create mkdir rename link symlink unlink rmdir; do
		before=$(folder_syncs names)
		change_name names "$change"
		case $policy in
		10ms) wait_until 20 folder_synced names "$before" || fail "$change: not synced" ;;
		# strace writes a call down before it lets the thread go on, to its reply
		always) folder_synced names "$before" || fail "$change: replied before it was synced" ;;
		manual) stays 300 not_synced names "$before" || fail "$change: synced unasked" ;;
		esac
	done
	before=$(folder_syncs names)
	python3 -c 'import os, sys; os.fsync(os.open(sys.argv[1], os.O_RDONLY))' "$mnt/names"
	wait_until 20 folder_synced names "$before" || fail "fsync of a folder did not reach it"
	before=$(folder_syncs names)
	: >"$mnt/names/last"
	fusermount3 -u "$mnt"
	daemon_wait
	wait "$tracer" || true
	folder_synced names "$before" || fail "flush=$policy: the folder was not synced at the end"
done
