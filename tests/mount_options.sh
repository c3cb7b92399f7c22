#!/bin/bash
# The command line: what is refused, and how; what is accepted, and what comes of it.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 270 root user

echo content >"$backing/file"
mkdir "$backing/inside" "$work/odd, name\\with=all"
touch "$work/a-file"
ln -s "$backing/inside" "$work/link-inside"
ln -s "$backing" "$work/link-backing"

state() {
	# (One folder may be unreadable)
	{ find "$work" -mindepth 1 ! -path "$work/out.*" -printf '%p %y %m %s %n %T+\n' || true; } \
		2>/dev/null | sort
	awk -v folder="$work" 'index($5, folder) == 1' /proc/self/mountinfo
	processes_of_daemon
}

# Processes that run the program
processes_of_daemon() {
	{ find /proc/[0-9]*/exe -maxdepth 0 -lname "$MOUNT_WORK/bin/mmapfs" 2>/dev/null || true; } |
		cut -d / -f 3
}

# Runs the program with bad arguments. It has to end by itself, not with status 0, with as many
# lines on stderr as said, with WORD in them and the ADVICE (a regular expression) what to do
# instead, and to leave all as it was. refuse LINES WORD ADVICE ARGUMENT...
refuse() {
	local most=$1 word=$2 advice=$3 status=0 lines
	shift 3
	state >"$work/out.before"
	timeout 10 "${program[@]}" "$@" </dev/null >"$work/out.stdout" 2>"$work/out.stderr" || status=$?
	state >"$work/out.after"
	assert_same "$work/out.before" "$work/out.after" "mounted or made by: mmapfs $*"
	lines=$(wc -l <"$work/out.stderr")
	if [ "$status" -eq 0 ] || [ "$status" -ge 124 ]; then
		fail "exit status $status: mmapfs $*"
	fi
	if [ "$lines" -lt 1 ] || [ "$lines" -gt "$most" ] || [ -s "$work/out.stdout" ] ||
		! grep -qF -e "$word" "$work/out.stderr" || ! grep -qE -e "$advice" "$work/out.stderr"; then
		fail "mmapfs $*: not $most line(s) on stderr with '$word' and '$advice': $(cat "$work"/out.std*)"
	fi
}

# ---- bad options, before and after the folders

refuse_option() {
	refuse 1 "$1" "$2" -o "$3" "$backing" "$mnt"
	refuse 1 "$1" "$2" "$backing" "$mnt" -o "$3"
}

help='mmapfs --help lists the options'
limits='(such as |try flush=)10ms'
refuse_option frobnicate "$help" frobnicate
refuse_option frobnicate "$help" frobnicate=7
refuse_option frobnicate "$help" flush=10ms,frobnicate
for policy in 10parsecs 10 ms 0ms -1ms always: '' 99999999999999999999ms 10ms: :10ms : 10ms:20ms 1K:2M \
	0K 0writes 1.5s +10ms '10 ms' ' 10ms' manual:10ms 10ms:never 10mss 10msx s 0x10ms always10ms \
	99999999999999999999K 17179869184G 99999999999999999999writes Always; do
	refuse_option flush "$limits" "flush=$policy"
done
refuse_option flush "$help" flush
for when in sometimes '' never: open:mount 1 Open; do
	refuse_option prewarm 'use never, open or mount$' "prewarm=$when"
done
for limit in '' -1 abc 1X 1.5M 10ms 99999999999999999999 17179869184G; do
	refuse_option prewarm_limit 'such as 512M$' "prewarm=mount,prewarm_limit=$limit"
done
for mode in '' other Handles handles:stateless; do
	refuse_option io 'use auto, handles or stateless$' "io=$mode"
done
for method in '' other mmap Store; do
	refuse_option write 'use auto, store or pwrite$' "write=$method"
done
for name in entry_timeout attr_timeout negative_timeout; do
	for seconds in -1 abc '' 1x nan -0.5; do
		refuse_option "$name" 'use 0 or more, such as 0\.5$' "$name=$seconds"
	done
done
for name in max_threads max_idle_threads; do
	for count in 0 -1 abc '' 1x 1001; do
		refuse_option "$name" 'use 1 to 1000$' "$name=$count"
	done
done
refuse 1 frobnicate "$help" --frobnicate "$backing" "$mnt"
refuse 1 flush "$limits" -o io=auto -o flush=10parsecs -o prewarm=never "$backing" "$mnt"
refuse 1 -o 'missing argument' "$backing" "$mnt" -o

# ---- bad folders

usage='usage: mmapfs \[-o OPTIONS\] BACKING MOUNTPOINT$'
no_backing='BACKING must be a folder that you may read$'
no_mountpoint='MOUNTPOINT must be a folder$'
below='mount it elsewhere$'
refuse 3 mmapfs "$usage"
refuse 3 'MOUNTPOINT is missing' "$usage" "$backing"
refuse 3 'BACKING is missing' "$usage" -o flush=10ms
refuse 1 "$work/third" 'takes BACKING and MOUNTPOINT$' "$backing" "$mnt" "$work/third"
refuse 1 "$work/missing" "$no_backing" "$work/missing" "$mnt"
refuse 1 "$work/a-file" "$no_backing" "$work/a-file" "$mnt"
refuse 1 "$work/a-file/x" "$no_backing" "$work/a-file/x" "$mnt"
refuse 1 "$work/missing" "$no_mountpoint" "$backing" "$work/missing"
refuse 1 "$work/a-file" "$no_mountpoint" "$backing" "$work/a-file"
refuse 1 "$backing/file" "$no_mountpoint" "$backing" "$backing/file"
refuse 1 "$backing/inside" "$below" "$backing" "$backing/inside"
refuse 1 inside "$below" "$backing" "$work/link-inside"
refuse 1 inside "$below" "$work/link-backing" "$mnt/../backing/inside"
refuse 1 inside "$below" backing backing/inside
refuse 1 '' "$no_backing" '' "$mnt"
refuse 1 '' "$no_mountpoint" "$backing" ''
if [ "$who" = user ]; then
	mkdir "$work/unreadable"
	chmod 000 "$work/unreadable"
	refuse 1 "$work/unreadable" "$no_backing" "$work/unreadable" "$mnt"
	chmod 700 "$work/unreadable"
	mkdir "$work/unreadable/below"
	chmod 000 "$work/unreadable"
	refuse 1 "$work/unreadable/below" "$no_backing" "$work/unreadable/below" "$mnt"
	refuse 1 "$work/unreadable/below" "$no_mountpoint" "$backing" "$work/unreadable/below"
	chmod 700 "$work/unreadable"
fi
# A mount that serves is not covered by another
mount_start
refuse 1 "$mnt" "is in use as a mount point; fusermount3 -u $mnt first\$" "$backing" "$mnt"
assert_equal content "$(cat "$mnt/file")" "the file, after an attempt to mount over the mount"
mount_stop

# ---- what only tells

for option in --help --version; do
	timeout 10 "${program[@]}" $option </dev/null >"$work/out.stdout" 2>"$work/out.stderr" ||
		fail "$option: exit status $?"
	[ ! -s "$work/out.stderr" ] || fail "$option: on stderr: $(cat "$work/out.stderr")"
	grep -q mmapfs "$work/out.stdout" || fail "$option: $(cat "$work/out.stdout")"
	mv "$work/out.stdout" "$work/out.$option"
done
grep -q 'mmapfs.*[0-9]\.[0-9]' "$work/out.--version" || fail "--version shows no version"
for word in flush prewarm prewarm_match prewarm_limit io write entry_timeout attr_timeout negative_timeout \
	max_threads max_idle_threads; do
	grep -q "$word=" "$work/out.--help" || fail "--help says nothing of $word"
done

# ---- what is accepted

serves() {
	assert_equal content "$(cat "$mnt/file")" "the file, seen through the mount of: $*"
	mount_stop
}

# Mounts with just these arguments
mount_with() {
	timeout 20 "${program[@]}" "$@" </dev/null >"$log" 2>&1 || fail "exit status $?: mmapfs $*: $(cat "$log")"
	assert_equal "" "$(cat "$log")" "words of: mmapfs $*"
	is_mounted || fail "returned, and nothing is mounted: mmapfs $*"
	daemon=$(processes_of_daemon)
	daemon_is_child=
	assert_equal 1 "$(wc -w <<<"$daemon")" "processes that stay of: mmapfs $*"
	assert_equal "" "$(cat "/proc/$daemon/task/"*/children 2>/dev/null || true)" "children of: mmapfs $*"
	assert_equal "$(printf '%s\n' "$MOUNT_WORK/bin/mmapfs" "$@")" \
		"$(tr '\0' '\n' <"/proc/$daemon/cmdline")" "command line of the serving process"
}

mount_with "$backing" "$mnt" && serves "no options"
mount_with -o flush=10ms "$backing" "$mnt" && serves "-o before"
mount_with "$backing" "$mnt" -o flush=10ms && serves "-o after"
mount_with "$backing" -o flush=10ms "$mnt" && serves "-o between"
mount_with -oflush=10ms "$backing" "$mnt" && serves "-o joined"
mount_with -o flush=10ms -o io=auto "$backing" "$mnt" -o prewarm=never,entry_timeout=3 && serves "several -o"
mount_with backing mnt && serves "relative folders"
mount_with "$work/link-backing" "$mnt/" && serves "a link, and a slash at the end"
mount_with -- "$backing" "$mnt" && serves --
for option in flush=manual flush=never flush=always flush=1us flush=2s flush=1K flush=4M flush=1G flush=1writes \
	flush=100writes flush=10ms:4M flush=4M:10ms flush=1G:2s:100000writes io=auto io=handles io=stateless \
	prewarm=never prewarm=open prewarm=mount 'prewarm=open,prewarm_match=*.[dx]at' \
	prewarm=mount,prewarm_limit=1G prewarm=mount,prewarm_limit=4096 entry_timeout=0 entry_timeout=0.5 \
	attr_timeout=0 attr_timeout=86400 negative_timeout=0.0 negative_timeout=10; do
	mount_with -o "$option" "$backing" "$mnt" && serves "$option"
done

# What a shell waits for is over when the mount serves: nobody keeps its pipe
words=$(timeout 20 "${program[@]}" "$backing" "$mnt" 2>&1) || fail "in a pipe: exit status $?"
assert_equal "" "$words" "words of a mount in a pipe"
daemon=$(processes_of_daemon)
daemon_is_child=
assert_equal / "$(readlink "/proc/$daemon/cwd")" "current folder of the daemon"
serves "in a pipe"

# When it returns, it serves
for ((i = 0; i < 20; i++)); do
	mount_with "$backing" "$mnt"
	assert_equal "file, inside" "$(ls -m "$mnt")" "ls right after mount $i"
	serves "try $i"
done

# As others see it
mount_with -o flush=10ms "$backing" "$mnt"
assert_equal "$backing fuse.mmapfs" \
	"$(awk -v point="$mnt" '$2 == point { print $1, $3 }' /proc/mounts)" "source and type in /proc/mounts"
serves /proc/mounts
echo content >"$work/odd, name\\with=all/file"
mount_with "$work/odd, name\\with=all" "$mnt"
assert_equal "$(printf '%s' "$work/odd, name\\with=all" | sed 's/\\/\\134/g; s/ /\\040/g')" \
	"$(awk -v point="$mnt" '$2 == point { print $1 }' /proc/mounts)" "source with odd signs in /proc/mounts"
serves "a folder with odd signs in its name"

# With all the options that the environment wants, by the road of the other tests
mount_start_daemon flush=10ms
serves "MMAPFS_OPTIONS=${MMAPFS_OPTIONS-}"

# BACKING over itself: the tree is reached through descriptors that were opened before
mnt=$backing
mount_with "$backing" "$backing"
assert_equal content "$(cat "$backing/file")" "the file, with the mount over its own folder"
echo new >"$backing/inside/new"
ln "$backing/inside/new" "$backing/linked"
mv "$backing/inside/new" "$backing/moved"
printf more >>"$backing/file"
assert_equal "file, inside, linked, moved" "$(ls -m "$backing")" "the mount over its own folder"
assert_equal new "$(cat "$backing/moved")" "a file made in the mount over its own folder"
rm "$backing/linked"
mount_stop
assert_equal $'content\nmore' "$(cat "$backing/file")" "what was written through a mount over its own folder"
assert_equal "file, inside, moved" "$(ls -m "$backing")" "the folder, uncovered again"
echo content >"$backing/file"
rm "$backing/moved"
mnt=$work/mnt

# ro
mount_start ro
echo "content" | cmp - "$mnt/file"
for command in "touch $mnt/new" "rm $mnt/file" "mkdir $mnt/folder" "mv $mnt/file $mnt/other" \
	"ln $mnt/file $mnt/other" "truncate -s 0 $mnt/file" "chmod 600 $mnt/file" "touch $mnt/file" \
	"setfattr -n user.x -v x $mnt/file" "dd if=/dev/null of=$mnt/file conv=notrunc"; do
	! $command >"$work/out.stdout" 2>"$work/out.stderr" || fail "ro: possible: $command"
	grep -q 'Read-only file system' "$work/out.stderr" || fail "ro: $command: $(cat "$work/out.stderr")"
done
mount_stop
assert_equal "content file, inside" "$(cat "$backing/file") $(ls -m "$backing")" "the folder after ro"

# io: what the kernel tells of, by what -d shows
requests() {
	grep -cE "opcode: $1 " "$log" || true
}

mkdir "$backing/many"
for ((i = 0; i < 50; i++)); do
	mkdir "$backing/many/folder-$i"
	echo "$i" >"$backing/many/file-$i"
done
for mode in handles stateless; do
	MMAPFS_OPTIONS='' mount_start "io=$mode,debug"
	for ((i = 0; i < 50; i++)); do
		read -r content <"$mnt/many/file-$i"
		assert_equal "$i" "$content" "file $i, io=$mode"
		assert_equal "" "$(ls "$mnt/many/folder-$i")" "folder $i, io=$mode"
	done
	mount_stop
	[ "$(requests READ)" -ge 50 ] || fail "io=$mode: the log shows $(requests READ) reads of 50 files"
	[ "$(requests FLUSH)" -le 1 ] || fail "io=$mode: told of $(requests FLUSH) closes"
	for request in OPEN OPENDIR; do
		count=$(requests $request)
		case $mode in
		handles) [ "$count" -ge 50 ] || fail "io=$mode: the log shows $count times $request" ;;
		# Once, to hear that it need not
		stateless) [ "$count" -le 1 ] || fail "io=$mode: told $count times of $request" ;;
		esac
	done
	if [ $mode = stateless ]; then
		[ "$(requests 'RELEASE(DIR)?')" -le 1 ] || fail "io=$mode: told of $(requests 'RELEASE(DIR)?') releases"
	fi
	# Nodes are told apart by numbers, not by where they lie in memory
	highest=$(grep -oE 'nodeid: [0-9]+' "$log" | cut -d ' ' -f 2 | sort -n | tail -n 1)
	if [ "$highest" -lt 100 ] || [ "$highest" -gt 1000 ]; then
		fail "io=$mode: node number $highest, and there are 103"
	fi
done
rm -r "$backing/many"

# No time-outs: a change made behind the mount is seen by the next stat
mount_start attr_timeout=0,entry_timeout=0
for ((i = 1; i <= 20; i++)); do
	truncate -s "$i" "$backing/grows"
	assert_equal "$i" "$(stat -c %s "$mnt/grows")" "size, with attr_timeout=0"
	mv "$backing/grows" "$backing/renamed"
	! stat "$mnt/grows" >/dev/null 2>&1 || fail "a name that is gone, with entry_timeout=0"
	mv "$backing/renamed" "$backing/grows"
done
mount_stop
rm "$backing/grows"

# Time-outs, each against what the others are by default: attributes and names are kept for a second,
# missing names not at all. (Of a folder, for what is done to the attributes of files is seen at once.)
open_mode() {
	stat -L -c %a /proc/self/fd/5
}
open_mode_is() {
	[ "$(open_mode)" = "$1" ]
}
is_missing() {
	! stat "$1" >/dev/null 2>&1
}
for option in attr_timeout entry_timeout negative_timeout; do
	mkdir -m 755 "$backing/folder"
	touch "$backing/removed"
	# (Who asks for the attributes of what has no name any more may learn that it is gone)
	case $option in
	entry_timeout) mount_start entry_timeout=60,attr_timeout=60 ;;
	*) mount_start "$option=60" ;;
	esac
	exec 5<"$mnt/folder"
	assert_equal 755 "$(open_mode)" "mode, $option=60"
	stat "$mnt/removed" >/dev/null
	is_missing "$mnt/made" || fail "$option=60: a name that was not made yet"
	chmod 711 "$backing/folder"
	rm "$backing/removed"
	touch "$backing/made"
	if [ $option = negative_timeout ]; then
		is_missing "$mnt/made" || fail "$option=60: a missing name is asked for anew"
	else
		stat "$mnt/made" >/dev/null || fail "$option=60: a name made behind the mount is not seen"
	fi
	sleep 2
	if [ $option = negative_timeout ]; then
		wait_until 5 open_mode_is 711 || fail "$option=60: a mode is not asked for anew"
	else
		assert_equal 755 "$(open_mode)" "mode, not asked for anew, $option=60"
	fi
	if [ $option = entry_timeout ]; then
		! is_missing "$mnt/removed" || fail "$option=60: a name is asked for anew"
	else
		wait_until 5 is_missing "$mnt/removed" || fail "$option=60: a name is not asked for anew"
	fi
	if [ $option = negative_timeout ]; then
		is_missing "$mnt/made" || fail "$option=60: a missing name is asked for anew after 2 s"
	fi
	exec 5<&-
	mount_stop
	rm -r "$backing/folder" "$backing/made"
done

# As many threads as may, and each has a descriptor of the device beside the one of the mount
cat >"$work/load.py" <<'END'
import os, sys, threading
def work(i):
	fd = os.open("%s/load-%d" % (sys.argv[1], i), os.O_RDWR | os.O_CREAT)
	while True:
		os.pwrite(fd, b"x" * 4096, 0)
		os.fsync(fd)
for i in range(20):
	threading.Thread(target=work, args=(i,)).start()
END
devices_are() {
	[ "$({ readlink "/proc/$daemon/fd/"* || true; } | grep -cx /dev/fuse)" -eq "$1" ]
}
for threads in 1 3 10; do
	option=max_threads=$threads
	# The default
	if [ $threads -eq 10 ]; then option=; fi
	mount_start $option
	python3 "$work/load.py" "$mnt" &
	load=$!
	wait_until 20 devices_are $((threads + 1)) ||
		fail "$threads threads: open: $(readlink "/proc/$daemon/fd/"* | sort | uniq -c)"
	stays 500 devices_are $((threads + 1)) ||
		fail "$threads threads: then open: $(readlink "/proc/$daemon/fd/"* | sort | uniq -c)"
	{ kill -KILL $load && wait $load; } 2>/dev/null || true
	mount_stop
	rm "$backing"/load-*
done

# auto_unmount: gone with its daemon, however that ended. (For an ordinary user it is only accepted:
# libfuse 3.14 asks as root whether the mount is dead, and root may not look at another's mount. And in
# a root folder entered by chroot, where "/" is no mount, fusermount3 cannot do it at all.)
mount_start auto_unmount
assert_equal content "$(cat "$mnt/file")" "the file, seen through the mount of: auto_unmount"
if [ "$who" = root ] && [ / -ef /proc/1/root ]; then
	is_unmounted() {
		! is_mounted
	}
	{ kill -KILL "$daemon" && daemon_wait; } 2>/dev/null
	wait_until 10 is_unmounted || fail "auto_unmount: still mounted when the daemon was killed"
else
	echo "not tried as $who: what becomes of auto_unmount when the daemon is killed"
	mount_stop
fi

# Times of access, in BACKING: what the options say, by what is read from the daemon
cat >"$work/read.py" <<'END'
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
os.read(fd, 10)
END
atime() {
	stat -c %x "$backing/accessed"
}
# Reads twice, with more than a second between: which of the two moved it
atime_moves() {
	local before between
	printf accessed >"$mnt/accessed"
	touch -a -d 2001-01-01 "$backing/accessed"
	sleep 1.1 # attributes are asked for again
	before=$(atime)
	python3 "$work/read.py" "$mnt/accessed"
	between=$(atime)
	sleep 1.1
	python3 "$work/read.py" "$mnt/accessed"
	[ "$before" = "$between" ] || printf first
	[ "$between" = "$(atime)" ] || printf second
}
# What was read and written since is read from the kernel's cache: the daemon hears of it by the open,
# if at all
cached_read_moves() {
	local before
	cat "$mnt/accessed" >/dev/null
	sleep 1.1
	printf x | dd of="$mnt/accessed" conv=notrunc status=none
	before=$(stat -c %x "$mnt/accessed")
	python3 -c 'import os, sys; os.read(os.open(sys.argv[1], os.O_RDONLY | int(sys.argv[2])), 10)' \
		"$mnt/accessed" "${1:-0}"
	[ "$before" = "$(atime)" ] || printf moved
}
mount_start
assert_equal first "$(atime_moves)" "reads that moved atime (relatime of BACKING)"
mount_stop
mount_start attr_timeout=3600
expected=moved
! is_stateless || expected=
assert_equal "$expected" "$(cached_read_moves)" "what a read from the kernel's cache did to atime"
assert_equal "" "$(cached_read_moves 262144)" "what it did with O_NOATIME"
mount_stop
mount_start noatime
assert_equal "" "$(atime_moves)" "reads that moved atime, with noatime"
mount_stop
if [ "$who" = root ]; then # who alone has a mount of BACKING of its own
	mount_start strictatime
	assert_equal firstsecond "$(atime_moves)" "reads that moved atime, with strictatime"
	mount_stop
	assert_equal "" "$(cat "$log")" "words of strictatime"
	# The kernel, which keeps attributes for long, is told of one that an open moves
	mount_start strictatime,attr_timeout=3600
	cat "$mnt/accessed" >/dev/null
	stat "$mnt/accessed" >/dev/null
	sleep 1.1
	cat "$mnt/accessed" >/dev/null
	assert_equal "$(atime)" "$(stat -c %x "$mnt/accessed")" "atime, of which the kernel knows"
	mount_stop
else
	mount_start strictatime
	mount_stop
	grep -q 'mmapfs: strictatime and nodiratime are for root' "$log" ||
		fail "an ordinary user's mount with strictatime says only: $(cat "$log")"
fi
rm "$backing/accessed"
mount_start relatime,nodiratime,lazytime
serves "times of access"

# As mount(8) has it, for itself or for fstab(5): it hands all on to a helper of libfuse, as here. (The
# test cannot go by mount(8), which looks for the program in folders of its own.)
if [ "$who" = root ]; then
	run_helper() {
		env PATH="$MOUNT_WORK/bin:$PATH" LD_LIBRARY_PATH="$MOUNT_WORK/bin${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" \
			timeout 20 mount.fuse3 "$backing" "$mnt" -o "$1" -t fuse.mmapfs >"$log" 2>&1
	}
	flags() {
		awk -v point="$mnt" '$2 == point { print $4 }' /proc/mounts | cut -d , -f 1
	}
	run_helper 'rw,flush=10ms,defaults,noauto,nofail,_netdev,user,relatime,x-systemd.automount,x-gvfs-hide,comment=x' ||
		fail "mount -t fuse.mmapfs: $(cat "$log")"
	mount_record
	daemon=$(processes_of_daemon)
	daemon_is_child=
	assert_equal content "$(cat "$mnt/file")" "the file, mounted by the helper"
	run_helper 'ro,nosuid,nodev,relatime,remount,user_id=0,group_id=0,default_permissions' ||
		fail "remount,ro: $(cat "$log")"
	assert_equal ro "$(flags)" "flags after remount,ro"
	! touch "$mnt/new" 2>"$log" || fail "a file was made after remount,ro"
	grep -q 'Read-only file system' "$log" || fail "after remount,ro: $(cat "$log")"
	run_helper 'rw,nosuid,nodev,relatime,remount,user_id=0,group_id=0,default_permissions' ||
		fail "remount,rw: $(cat "$log")"
	assert_equal rw "$(flags)" "flags after remount,rw"
	touch "$mnt/new"
	rm "$mnt/new"
	umount "$mnt"
	daemon_wait
	refuse 1 "$mnt" remounted -o remount,ro "$backing" "$mnt"
fi
