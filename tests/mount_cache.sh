#!/bin/bash
# What the kernel has cached of files: it stays over our own changes and from open to open, and goes
# when others change the file in BACKING; and nobody sees the one half old and the other half new.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 500 root user
need python3

stateless=
! is_stateless || stateless=1
python=(timeout 100 python3 -c 'import mmap, os, sys, threading, time
exec(sys.argv[1])')

# READ requests until now: of a mount with -o debug
reads() {
	grep -c 'opcode: READ (' "$log" || true
}

is_same() {
	cmp -s "$mnt/$1" "$backing/$1"
}

# As if it were asked for now, whatever the kernel has cached of attributes
has_mode() {
	[ "$(stat -c %a "$mnt/$1")" = "$2" ]
}

# ---- our own changes
noise 4 1 >"$backing/file"
noise 1 2 >"$backing/other"
for options in flush=manual flush=10ms write=store; do
	drop_pages "$backing/file"
	mount_start "debug,$options"
	cmp "$mnt/file" "$backing/file"
	before=$(reads)
	[ "$before" -gt 0 ] || fail "$options: the first reading needs no READ?"
	for change in 'printf x | dd of="$mnt/file" bs=1 seek=5000 conv=notrunc' \
		'dd if="$mnt/other" of="$mnt/file" bs=64K seek=3 count=2 conv=notrunc,fsync' \
		'printf more >>"$mnt/file"' 'chmod 640 "$mnt/file"' 'touch -d 2001-02-03 "$mnt/file"' \
		'setfattr -n user.a -v b "$mnt/file"' 'mv "$mnt/file" "$mnt/moved" && mv "$mnt/moved" "$mnt/file"' \
		'rm -f "$mnt/link" && ln "$mnt/file" "$mnt/link"' 'rm -f "$mnt/link"' \
		'truncate -s +100000 "$mnt/file"' 'printf x | dd of="$mnt/file" bs=1 seek=70000 conv=notrunc'; do
		# A machine may take pages away by itself: then once more
		for try in 1 2 3 4 5; do
			(eval "$change") 2>"$work/error" || fail "$change: $(cat "$work/error")"
			cat "$mnt/other" >/dev/null
			before=$(reads)
			cmp "$mnt/file" "$backing/file" || fail "$options: $change"
			case $change in truncate* | *more*) before=$(reads) ;; esac # what is new is read once
			# The time-out of attributes; and what stores do to mtime comes a second later
			if [[ $change = printf* ]]; then sleep 2.2; fi
			ls -l "$mnt" >/dev/null
			cmp "$mnt/file" "$backing/file" || fail "$options: $change, later"
			[ "$before" -ne "$(reads)" ] || break
			[ "$try" -lt 5 ] || fail "$options: pages are read again after: $change"
		done
	done
	mount_stop
done

# ---- changes by others are seen at once, whatever the time-outs, where the file has been opened
mount_start attr_timeout=3600,entry_timeout=3600
cmp "$mnt/file" "$backing/file"
exec 5<"$mnt/file"
"${python[@]}" '
m = mmap.mmap(os.open(sys.argv[2], os.O_RDONLY), 0, prot=mmap.PROT_READ)
before = m[4321]
print("mapped", flush=True)
for _ in range(1000):
	if m[4321] != before: break
	time.sleep(0.01)
else:
	sys.exit("a mapping of the mount does not show what was changed in BACKING")
' "$mnt/file" >"$work/mapped" &
mapped=$!
wait_until 10 grep -q mapped "$work/mapped" || fail "no mapping"
for change in 'printf "\x01\x02" | dd of="$backing/file" bs=1 seek=4321 conv=notrunc' \
	'printf more >>"$backing/file"' 'truncate -s 3000001 "$backing/file"' \
	'truncate -s 3500000 "$backing/file"' 'cat "$backing/other" >"$backing/file"' \
	'dd if="$backing/other" of="$backing/file" bs=1000 count=1 seek=77 conv=notrunc'; do
	(eval "$change") 2>/dev/null
	wait_until 5 is_same file || fail "not seen at once: $change"
	assert_equal "$(stat -c %s "$backing/file")" "$(stat -L -c %s /dev/fd/5)" "size of the open file, $change"
done
wait "$mapped" || fail "the mapping: exit status $?"
chmod 604 "$backing/file"
wait_until 5 has_mode file 604 || fail "chmod is not seen at once"
exec 5<&-

# ---- and an open after the change shows the change alone; in a kernel that tells of no opens, the old
# or the new. What was only listed before is not watched.
"${python[@]}" '
backing, mnt, stateless, user = sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5]
name = "whole"
letters = b"abcdefghijklmnopqrstuvwxyz"
def put(k, size):
	fd = os.open(backing + "/" + name, os.O_RDWR | os.O_CREAT, 0o644)
	os.ftruncate(fd, min(size, os.fstat(fd).st_size))
	os.pwrite(fd, letters[k % 26:k % 26 + 1] * size, 0)
	os.close(fd)
size = 5000
put(0, size)
errors = 0
sizes = [size + (k * 7919) % 30000 for k in range(200)]
open(mnt + "/" + name).read()
for k in range(1, 200):
	put(k, sizes[k])
	end = time.monotonic() + 10
	while True:
		try:
			got = open(mnt + "/" + name, "rb").read()
		except OSError as error: # allowed at the moment of a truncation
			if error.errno != 5 or sizes[k] >= sizes[k - 1]: raise
			errors += 1
			continue
		new = letters[k % 26:k % 26 + 1] * sizes[k]
		old = letters[(k - 1) % 26:(k - 1) % 26 + 1] * sizes[k - 1 if k > 1 else 1]
		if got == new: break
		if k > 1 and not (stateless and got == old):
			sys.exit("round %d: %d bytes, of them %d old, %d new, %d zero; old %d, new %d" % (k, len(got),
				got.count(old[:1]), got.count(new[:1]), got.count(b"\0"), len(old), len(new)))
		if time.monotonic() > end: sys.exit("round %d: not seen" % k)
print("EIO at the moment of a truncation: %d of %d" % (errors, len(sizes)))
for k in range(50):
	name = "listed%d" % k
	put(k, 3000 + k)
	assert os.stat(mnt + "/" + name).st_size == 3000 + k
	put(k + 1, 9000 + k)
	got = b"".join(iter(lambda fd=os.open(mnt + "/" + name, os.O_RDONLY): os.read(fd, 1 << 16), b""))
	if got != letters[(k + 1) % 26:(k + 1) % 26 + 1] * (9000 + k):
		sys.exit("what was listed before it was changed: %d bytes, %d zero" % (len(got), got.count(b"\0")))
' "$backing" "$mnt" "$stateless" "$who" || fail "a mixture"
mount_stop

# ---- direct writes, asynchronous ones above all, of what is cached
mount_start
timeout $((200 * ${MOUNT_PATIENCE:-1})) "$TOOLS/tool_aio" "$mnt/aio" 300 || fail "tool_aio: exit status $?"
cmp "$mnt/aio" "$backing/aio"
mount_stop

# ---- what no watch tells of, stores through a mapping of BACKING, is seen within attr_timeout
mount_start attr_timeout=0.1
cat "$mnt/file" >/dev/null
"${python[@]}" '
m = mmap.mmap(os.open(sys.argv[2], os.O_RDWR), 0)
m[5000:5004] = b"\xff\x01\xfe\x02"
' "$backing/file"
wait_until 5 is_same file || fail "a store through a mapping of BACKING is not seen"
mount_stop

# ---- a file that grows in BACKING never shows zeros, to whomever, by whichever way
for options in attr_timeout=0 attr_timeout=0.01; do
	mount_start "$options"
	"${python[@]}" '
backing, mnt = sys.argv[2] + "/grows", sys.argv[3] + "/grows"
open(backing, "wb").write(b"a" * 10)
stop, bad = time.monotonic() + 3, []
def grow():
	k = 0
	fd = os.open(backing, os.O_WRONLY | os.O_APPEND)
	while time.monotonic() < stop and not bad:
		k += 1
		os.write(fd, b"a" * (1 + k * 7919 % 500))
		time.sleep(0.002)
def look(how):
	while time.monotonic() < stop and not bad: how()
kept = os.open(mnt, os.O_RDONLY)
def again():
	check(os.pread(kept, 1 << 19, 0))
def anew():
	fd = os.open(mnt, os.O_RDONLY)
	try: check(os.read(fd, 1 << 19))
	finally: os.close(fd)
def listed():
	for entry in os.scandir(sys.argv[3]): entry.stat()
	os.stat(mnt)
	check(os.pread(kept, 1 << 19, 0))
def check(got):
	if got.strip(b"a"): bad.append("%d bytes, %d zero" % (len(got), got.count(b"\0")))
threads = [threading.Thread(target=t, args=a) for t, a in
	[(grow, ()), (look, (again,)), (look, (anew,)), (look, (listed,))]]
for t in threads: t.start()
for t in threads: t.join()
sys.exit(bad[0] if bad else 0)
' "$backing" "$mnt" || fail "$options: a growing file showed what it does not have"
	mount_stop
done

# ---- files that were closed for want of descriptors: what is cached of them stays, and goes if changed
mkdir "$backing/many"
for i in {1..150}; do
	head -c 5000 "$backing/other" >"$backing/many/$i"
done
program=(prlimit --nofile=64:64 "${program[@]}")
mount_start debug,attr_timeout=1
cat "$mnt"/many/* >/dev/null
before=$(reads)
for i in {1..50}; do
	cmp "$mnt/many/$i" "$backing/many/$i"
done
[ $(($(reads) - before)) -lt 25 ] || fail "files that were closed are read again, though they are cached"
printf x | dd of="$backing/many/1" bs=1 seek=1000 conv=notrunc status=none
printf x >>"$backing/many/2"
wait_until 5 is_same many/1 || fail "a change of a file that was closed is not seen"
wait_until 5 is_same many/2 || fail "growth of a file that was closed is not seen"
mount_stop
