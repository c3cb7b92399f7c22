#!/bin/bash
# Programs that map files of the mount: shared and private mappings, growth under a mapping, and
# what other processes read of it, through the mount and in the backing folder.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 180 root user

# The same on the folder alone: a failure here is one of the test's own
"$TOOLS/tool_mmap" "$plain/file" "$plain/file"
"$TOOLS/tool_mmap" "$plain/file"

# By both roads of a write: where pages are made clean again and again, that is pwrite; where they
# are not, a store into the mapping
for road in flush=10ms flush=manual,write=store; do
	echo "-o $road"
	mount_start "$road"
	"$TOOLS/tool_mmap" "$mnt/file" "$backing/file" || fail "tool_mmap on the mount"
	cmp "$plain/file" "$backing/file" || fail "the backing file differs from that of the plain folder"
	mount_stop

	# Mapped anew by a daemon that has not seen the file yet
	mount_start "$road"
	"$TOOLS/tool_mmap" "$mnt/file" || fail "tool_mmap after mounting again"
	rm "$mnt/file"

	# What is in a client's mapping without an msync is in the backing file after the unmount
	python3 - "$mnt/stored" <<'END'
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
os.ftruncate(fd, 1 << 20)
with mmap.mmap(fd, 1 << 20) as shared:
	shared[:] = b"stored.." * (1 << 17)
os.close(fd)
END
	mount_stop
	python3 - "$backing/stored" <<'END' || fail "stores without msync are not in the backing file"
import sys
sys.exit(open(sys.argv[1], "rb").read() != b"stored.." * (1 << 17))
END
	rm "$backing/stored"
done
