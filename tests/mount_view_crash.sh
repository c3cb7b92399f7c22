#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What is left of a view that is kept when the daemon is killed, at any system call by which it changes
# the store: all that was answered. And when the power is cut: each change that was synced, and of the
# others each whole or not at all. For that the store is on a disk that writes down each write and each
# flush (tool_disk.c); then one disk after the other is made of the log's begin and of some of what was
# not flushed yet.
#
# CRASH_CUTS says how often the power is cut (20), CRASH_STEPS how much is done before (600), CRASH_SEED
# by which chance (2).
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 900 root

if [ -z "${CRASH_NAMESPACE-}" ]; then
	CRASH_NAMESPACE=1 exec "${namespace[@]}" "$BASH" "$0"
fi
detach_copies
need mkfs.ext4 python3 strace

seed=${CRASH_SEED:-2}
cat >"$work/steps.py" <<'END'
# steps.py begin BACKING | work MNT STORE MARK SEED STEPS | check MNT SEED STEPS DONE [LAST]
#
# What is done follows from SEED; work writes to MARK how many steps were done, each time all is synced,
# or, where STORE is "-", after each step. Of those after DONE each may have been done or not, up to LAST.
import os, random, sys

PAGE, PAGES, RECORD = 4096, 64, 128

def page(number, version):
	return (b"%08d %08d " % (number, version) * 256)[:PAGE]

def record(index, version):
	return (b"%08d %08d " % (index, version) * 8)[:RECORD]

def whole(version):
	return b"%08d " % version * 700

# One after the other: what is done, and what then is; the caller may change nothing of it
def steps(seed, count):
	chance = random.Random(seed)
	state = {"pages": [0] * PAGES, "log": 0, "records": [], "current": 0}
	for step in range(1, count + 1):
		kind = chance.choice(["page"] * 5 + ["append"] * 5 + ["records"] * 3 + ["shorten"] * 3 + ["replace"])
		state = dict(state)
		if kind == "page":
			number = chance.randrange(PAGES)
			state["pages"] = list(state["pages"])
			state["pages"][number] = step
			what = (kind, number)
		elif kind == "append":
			state["log"] = step
			what = (kind,)
		elif kind == "records":
			many = chance.randrange(1, 100)
			state["records"] = state["records"] + [step] * many
			what = (kind, many)
		elif kind == "shorten":
			left = chance.randrange(len(state["records"]) + 1)
			state["records"] = state["records"][:left]
			what = (kind, left)
		else:
			state["current"] = step
			what = (kind,)
		sync = chance.choice(["rows"] * 2 + ["nothing"] if kind == "shorten" else
			["all"] + ["rows"] * 2 + ["heap"] + ["nothing"] * 8)
		yield step, what, sync, state

def line(step):
	return b"%08d said\n" % step

def lines(seed, count):
	return b"".join(line(step) for step, what, *_ in steps(seed, count) if what[0] == "append")

def work(mnt, store, mark, seed, count):
	mark = os.open(mark, os.O_WRONLY)
	pages = os.open(mnt + "/pages", os.O_RDWR)
	log = os.open(mnt + "/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
	records = os.open(mnt + "/records", os.O_RDWR | os.O_CREAT)
	def put(fd, bytes, at): # what ends in the middle of a write makes it a short one
		assert os.pwrite(fd, bytes, at) == len(bytes)
	for step, what, sync, state in steps(seed, count):
		if what[0] == "page":
			put(pages, page(what[1], step), what[1] * PAGE)
		elif what[0] == "append":
			put(log, line(step), 0)
		elif what[0] == "records":
			at = os.fstat(records).st_size // RECORD
			put(records, b"".join(record(at + i, step) for i in range(what[1])), at * RECORD)
		elif what[0] == "shorten":
			os.ftruncate(records, what[1] * RECORD)
		else:
			fd = os.open(mnt + "/new", os.O_WRONLY | os.O_CREAT, 0o644)
			put(fd, whole(step), 0)
			os.fsync(fd)
			os.close(fd)
			os.rename(mnt + "/new", mnt + "/current")
		if sync == "all":
			os.fsync(pages)
		if sync == "all" or store == "-":
			os.pwrite(mark, b"%d\n" % step, 0)
		elif sync != "nothing": # as the kernel does when it likes to
			fd = os.open(store + "/" + {"rows": "rows-wal", "heap": "heap"}[sync], os.O_RDONLY)
			os.fsync(fd)
			os.close(fd)

def check(mnt, seed, count, done, last):
	states = [state for step, what, sync, state in steps(seed, count) if done <= step <= last]
	if done == 0:
		states.insert(0, {"pages": [0] * PAGES, "log": 0, "records": [], "current": 0})
	read = lambda name: open(mnt + "/" + name, "rb").read() if os.path.exists(mnt + "/" + name) else b""
	found = read("pages")
	assert len(found) == PAGE * PAGES
	for number in range(PAGES):
		may_be = [page(number, version) for version in {state["pages"][number] for state in states}]
		assert found[number * PAGE:][:PAGE] in may_be, "page %d is %r" % (number, found[number * PAGE:][:40])
	found, all = read("log"), lines(seed, count)
	assert all.startswith(found), "the log ends in %r" % found[-100:]
	least, most = len(lines(seed, done)), len(lines(seed, last))
	assert least <= len(found) <= most, "the log has %d bytes, not %d to %d" % (len(found), least, most)
	found = read("records")
	assert len(found) % RECORD == 0, "records: %d bytes" % len(found)
	assert len(found) // RECORD >= min(len(state["records"]) for state in states)
	may_be = {}
	for state in states:
		for index, version in enumerate(state["records"]):
			may_be.setdefault(index, set()).add(version)
	for index in range(len(found) // RECORD):
		assert found[index * RECORD:][:RECORD] in [record(index, version) for version in may_be[index]], \
			"record %d is %r" % (index, found[index * RECORD:][:40])
	found = read("current")
	assert found in [whole(state["current"]) if state["current"] else b"" for state in states], found[:100]
	for name in os.listdir(mnt): # behind the end all is zero
		size = len(read(name))
		os.truncate(mnt + "/" + name, size + 2 * PAGE)
		assert read(name)[size:] == bytes(2 * PAGE), "behind the end of " + name

number = lambda at: int(sys.argv[at])
if sys.argv[1] == "begin":
	open(sys.argv[2] + "/pages", "wb").write(b"".join(page(i, 0) for i in range(PAGES)))
elif sys.argv[1] == "work":
	work(sys.argv[2], sys.argv[3], sys.argv[4], number(5), number(6))
else:
	check(sys.argv[2], number(3), number(4), number(5), number(6) if len(sys.argv) > 6 else number(4))
END

python3 "$work/steps.py" begin "$backing"

# ---------------------------------------------------------------- the daemon is killed

is_up_or_killed() {
	is_mounted || ! kill -0 "$tracer" 2>/dev/null
}

is_traced() {
	! grep -q '^TracerPid:.0$' "/proc/$daemon/status"
}

# A shell of its own, which says what was killed
apart=("$BASH" -c '"$@" || true' apart)
# From its very begin, and (+) when it serves. The call itself is not done any more.
for call in pwrite64 fdatasync fsync ftruncate pwrite64+ fdatasync+ ftruncate+; do
	killed=0
	for at in 1 2 3 4 6 8 16 40 66 104 206; do
		where="killed at $call $at"
		inject="${call%+}:signal=KILL:when=$at"
		rm -rf "$work/store" && mkdir "$work/store" && echo 0 >"$work/mark"
		if [ "${call%+}" = "$call" ]; then
			"${apart[@]}" timeout 60 strace -f -q -o "$work/strace" -e trace="${call%+}" -e inject="$inject" -- "${program[@]}" -f \
				-o "cow=$work/store,flush=10ms" "$backing" "$mnt" </dev/null >"$log" 2>&1 &
			tracer=$!
			wait_until 20 is_up_or_killed || fail "$where: not mounted"
		else
			mount_start_daemon "cow=$work/store"
			"${apart[@]}" timeout 60 strace -f -q -o "$work/strace" -e trace="${call%+}" -e inject="$inject" -p "$daemon" 2>"$work/error" &
			wait_until 20 is_traced || fail "$where: not traced"
		fi
		if is_mounted && python3 "$work/steps.py" work "$mnt" - "$work/mark" "$seed" 60 2>"$work/error"; then
			fusermount3 -u "$mnt"
		else
			killed=$((killed + 1))
			fusermount3 -u -z "$mnt" 2>/dev/null || true
		fi
		wait || true
		done=$(cat "$work/mark")
		"${program[@]}" --check "$work/store" >"$work/out" 2>&1 || [ "$done" -eq 0 ] || fail "$where: --check: $(cat "$work/out")"
		mount_start "cow=$work/store"
		python3 "$work/steps.py" check "$mnt" "$seed" 60 "$done" $((done + 1)) || fail "$where: $done steps were done"
		mount_stop
		"${program[@]}" --check "$work/store" >"$work/out" 2>&1 || fail "$where: --check: $(cat "$work/out")"
		grep -q ': whole; 0 bytes that nothing uses$' "$work/out" || fail "$where: leaks: $(cat "$work/out")"
		[ "$done" -lt 60 ] || break # it does not do so more often
	done
	echo "killed at $killed of its calls of $call"
done

# ---------------------------------------------------------------- the power is cut

mkdir "$work"/{disk,recorded}
truncate -s 64M "$work/image"
mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=0 -J size=4 "$work/image"

: >"$work/logs"
for policy in manual 10ms; do
	cp --sparse=always "$work/image" "$work/image.now"
	"$TOOLS/tool_disk" serve "$work/image.now" "$work/log.$policy" "$work/recorded" &
	wait_until 10 test -e "$work/recorded/disk" || fail "tool_disk does not serve"
	mount -o loop "$work/recorded/disk" "$work/disk"
	mkdir "$work/disk/store"
	mount_start "cow=$work/disk/store,flush=$policy"
	sync "$work/disk/store" # the file system itself begins with all that there is
	first=$("$TOOLS/tool_disk" count "$work/log.$policy")
	python3 "$work/steps.py" work "$mnt" "$work/disk/store" "$work/recorded/mark" "$seed" "${CRASH_STEPS:-600}"
	mount_stop
	umount "$work/disk"
	wait_until 10 fusermount3 -u "$work/recorded" || fail "the recorded disk is in use"
	wait
	last=$("$TOOLS/tool_disk" count "$work/log.$policy")
	RANDOM=$seed
	for ((cut = 0; cut < ${CRASH_CUTS:-20}; cut++)); do
		at=$((first + (RANDOM * 32768 + RANDOM) % (last - first)))
		cp --sparse=always "$work/image" "$work/image.now"
		"$TOOLS/tool_disk" cut "$work/image.now" "$work/log.$policy" "$at" "$cut" >"$work/marks"
		done=$(tail -n 1 "$work/marks")
		where="$policy, cut $cut, at $at of $first to $last, ${done:-0} steps synced"
		mount -o loop "$work/image.now" "$work/disk" || fail "$where: ext4"
		if ! "${program[@]}" --check "$work/disk/store" >"$work/out" 2>&1; then
			fail "$where: --check: $(cat "$work/out")"
		fi
		mount_start "cow=$work/disk/store"
		python3 "$work/steps.py" check "$mnt" "$seed" "${CRASH_STEPS:-600}" "${done:-0}" || fail "$where"
		echo new >"$mnt/new"
		mount_stop
		cat "$log" >>"$work/logs"
		"${program[@]}" --check "$work/disk/store" >"$work/out" 2>&1 || fail "$where: --check: $(cat "$work/out")"
		umount "$work/disk"
	done
	echo "$policy: $((last - first)) records, cut ${CRASH_CUTS:-20} times"
done
# Else it was not what it is to be about
grep -q 'had not reached the disk.*it ends at' "$work/logs" || fail "no file was cut off"
grep -q 'had not reached the disk.*they were$' "$work/logs" || fail "no block was taken back"
