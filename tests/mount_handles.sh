#!/bin/bash
# File handles of the mount (name_to_handle_at(2)): they open what they were made of, also when the
# kernel has forgotten it meanwhile, and nothing else.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 120 root
if [ -z "${HANDLES_NAMESPACE-}" ]; then
	HANDLES_NAMESPACE=1 exec "${namespace[@]}" "$BASH" "$0"
fi
detach_copies
need python3 mkfs.ext4

cat >"$work/handle.py" <<'END'
import ctypes, errno, os, sys, time

mnt, backing = sys.argv[1:3]
libc = ctypes.CDLL(None, use_errno=True)
AT_EMPTY_PATH = 0x1000

class Handle(ctypes.Structure):
	_fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_char * 128)]

def handle_of(path):
	handle = Handle(128, 0, b"")
	mount = ctypes.c_int()
	if libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount), 0):
		raise OSError(ctypes.get_errno(), path)
	return handle

def open_handle(handle, flags=os.O_RDONLY):
	root = os.open(mnt, os.O_RDONLY)
	fd = libc.open_by_handle_at(root, ctypes.byref(handle), flags)
	error = ctypes.get_errno()
	os.close(root)
	if fd < 0:
		raise OSError(error, os.strerror(error))
	return fd

def is_stale(handle):
	try:
		os.close(open_handle(handle, os.O_PATH))
		return False
	except OSError as error:
		assert error.errno == errno.ESTALE, error
		return True

def forget():
	"""What nobody uses is forgotten by the kernel"""
	for _ in range(3):
		with open("/proc/sys/vm/drop_caches", "w") as file:
			file.write("2")
		time.sleep(0.1)
END

cat >"$work/handles.py" <<'END'
from handle import *

outside = sys.argv[3]
os.makedirs(mnt + "/a/b/c")
names = ["a/b/c/file-%d" % n for n in range(40)]
for name in names:
	with open(os.path.join(mnt, name), "w") as file:
		file.write(name)
os.link(mnt + "/a/b/c/file-0", mnt + "/a/link")
handles = {name: handle_of(os.path.join(mnt, name)) for name in names}
folders = {name: handle_of(os.path.join(mnt, name)) for name in ("a", "a/b", "a/b/c")}
root = handle_of(mnt)
for round in range(3):
	for name, handle in handles.items():
		fd = open_handle(handle, os.O_RDWR)
		assert os.read(fd, 1000) == name.encode(), name
		assert os.fstat(fd).st_ino == os.stat(os.path.join(backing, name)).st_ino
		os.close(fd)
	for name, handle in folders.items():
		fd = open_handle(handle, os.O_RDONLY | os.O_DIRECTORY)
		# The way to it is found again, too
		assert os.readlink("/proc/self/fd/%d" % fd) == os.path.join(mnt, name), name
		assert sorted(os.listdir(fd)) == sorted(os.listdir(os.path.join(backing, name)))
		os.close(fd)
	os.close(open_handle(root, os.O_PATH))
	forget()

# Renamed, through the mount and behind it
os.rename(mnt + "/a/b/c/file-1", mnt + "/moved")
os.rename(backing + "/a/b/c/file-2", backing + "/moved-too")
forget()
for n in (1, 2):
	fd = open_handle(handles[names[n]])
	assert os.read(fd, 1000) == names[n].encode()
	os.close(fd)

# Gone, and its inode number given to another
os.unlink(mnt + "/a/b/c/file-3")
for n in range(20):
	open(mnt + "/another-%d" % n, "w").close()
os.unlink(backing + "/a/b/c/file-4")
assert is_stale(handles[names[3]])
forget()
assert is_stale(handles[names[3]]) and is_stale(handles[names[4]])
# One of two names
os.unlink(mnt + "/a/b/c/file-0")
forget()
os.close(open_handle(handles[names[0]]))

# Made up
for number in (0, 2, 12345678, 1 << 40, (1 << 64) - 1):
	forged = Handle.from_buffer_copy(handles[names[5]])
	ctypes.memmove(ctypes.addressof(forged) + 8, number.to_bytes(8, "little"), 8)
	try:
		os.close(open_handle(forged, os.O_PATH))
		assert number == 2 or number < 1000, "%d was opened" % number
	except OSError as error:
		assert error.errno == errno.ESTALE, error

# A folder that was moved out of BACKING is not reached any more
forget()
os.rename(backing + "/a/b/c", outside + "/c")
assert is_stale(folders["a/b/c"])
os.rename(outside + "/c", backing + "/c")
forget()
fd = open_handle(folders["a/b/c"])
assert os.readlink("/proc/self/fd/%d" % fd) == mnt + "/c"
END

mount_start attr_timeout=0,entry_timeout=0
python3 "$work/handles.py" "$mnt" "$backing" "$plain" || fail "file handles"
mount_stop

# ---- Where BACKING is a whole file system, and its handles are short, they outlive the mount
cat >"$work/lasting.py" <<'END'
import pickle
from handle import *

do, saved = sys.argv[3:5]
def content(name):
	fd = open_handle(handles[name])
	with open(fd, "rb") as file:
		return file.read().decode()

if do == "save":
	names = ["kept", "moved", "removed", "replaced", "linked", "folder/deep/file"]
	os.makedirs(mnt + "/folder/deep")
	for name in names:
		with open(os.path.join(mnt, name), "w") as file:
			file.write(name)
	os.link(mnt + "/linked", mnt + "/link")
	names += ["folder", "folder/deep", "."]
	with open(saved, "wb") as file:
		pickle.dump({name: bytes(handle_of(os.path.join(mnt, name))) for name in names}, file)
	sys.exit()
handles = {name: Handle.from_buffer_copy(handle) for name, handle in pickle.load(open(saved, "rb")).items()}
if do == "stale": # of another BACKING on the same file system: but for the root nothing of it is shown
	for name in handles:
		assert name == "." or is_stale(handles[name]), name
	sys.exit()
for name in ("kept", "moved", "linked", "folder/deep/file"):
	assert content(name) == name, name
assert is_stale(handles["removed"]) and is_stale(handles["replaced"])
for name in ("folder", "folder/deep"):
	fd = open_handle(handles[name], os.O_RDONLY | os.O_DIRECTORY)
	assert os.readlink("/proc/self/fd/%d" % fd) == os.path.join(mnt, name), name
# The same inode by handle and by name, through which it is written
fd = open_handle(handles["kept"], os.O_RDWR)
assert os.path.sameopenfile(fd, os.open(mnt + "/kept", os.O_RDONLY))
os.write(fd, b"Kept")
os.fsync(fd)
assert open(mnt + "/kept").read() == open(backing + "/kept").read() == "Kept"
os.pwrite(fd, b"kept", 0)
END
truncate -s 32M "$work/image"
mkfs.ext4 -q -F "$work/image"
mkdir "$work/disk"
mount -o loop "$work/image" "$work/disk"
lasting() {
	python3 "$work/lasting.py" "$mnt" "$backing" "$1" "$work/saved" || fail "file handles: $1"
}
backing=$work/disk
mount_start
lasting save
mount_stop
mv "$work/disk/moved" "$work/disk/elsewhere"
rm "$work/disk"/{removed,replaced,linked}
printf another >"$work/disk/replaced"
mkdir "$work/disk/below"
for ((round = 0; round < 2; round++)); do
	mount_start
	lasting open
	mount_stop
done
backing=$work/disk/below
mount_start
lasting stale
mount_stop
mkdir "$work/bound"
mount --bind "$work/disk/below" "$work/bound" # the root of a mount, but not of a file system
backing=$work/bound
mount_start
lasting stale
mount_stop
umount "$work/bound" "$work/disk"
