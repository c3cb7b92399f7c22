/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BACKING (backing.h). As root it is a private clone of the mount and those below, so that nothing
 * mounted there later, our own mount first of all, is ever entered. As an ordinary user, each
 * step that would cross a mount is looked at before anything is asked of it.
 */
#include "backing.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/openat2.h>

/* Whether a folder is the root of its file system, and not only of a mount. */
static bool is_whole(int folder)
{
	unsigned long long id;
	char *line = NULL;
	size_t size = 0;
	bool whole = false;
	struct statx stx;
	char root[3];
	FILE *mounts;

	if (statx(folder, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &stx) ||
	    !(stx.stx_mask & STATX_MNT_ID) || !(stx.stx_attributes & STATX_ATTR_MOUNT_ROOT))
		return false;
	mounts = fopen("/proc/self/mountinfo", "re");
	if (!mounts)
		return false;
	/* proc(5): its number, its parent's, the device, what of the file system is mounted */
	while (getline(&line, &size, mounts) > 0)
		if (sscanf(line, "%llu %*u %*s %2s", &id, root) == 2 && id == stx.stx_mnt_id)
			whole = strcmp(root, "/") == 0;
	free(line);
	fclose(mounts);
	return whole;
}

int backing_open(struct backing *backing, const char *path,
		 const struct backing_attributes *attributes)
{
	struct mount_attr private = {.propagation = MS_PRIVATE};
	struct mount_attr wanted = {
		.attr_set = attributes->set,
		.attr_clr = attributes->clear,
	};
	struct identity identity;
	struct stat st;
	int plain, clone;

	*backing = (struct backing){.root = -1, .descriptors = -1, .claim = -1};
	pthread_mutex_init(&backing->lock, NULL);
	backing->noatime = attributes->set & MOUNT_ATTR_NOATIME;
	/* For reading: an unreadable folder is refused here. */
	plain = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (plain < 0)
		return -errno;
	if (faccessat(plain, ".", X_OK, AT_EACCESS)) {
		close(plain);
		return -EACCES;
	}
	backing->is_whole = is_whole(plain);
	clone = open_tree(plain, "",
			  OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_EMPTY_PATH);
	if (clone >= 0 &&
	    mount_setattr(clone, "", AT_EMPTY_PATH | AT_RECURSIVE, &private, sizeof(private))) {
		close(clone);
		clone = -1;
	}
	/* Not more than a wish: the kernel may have locked them */
	backing->as_wanted = clone >= 0 && mount_setattr(clone, "", AT_EMPTY_PATH | AT_RECURSIVE,
							 &wanted, sizeof(wanted)) == 0;
	backing->root = openat(clone >= 0 ? clone : plain, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (clone >= 0)
		close(clone);
	close(plain);
	backing->descriptors = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (backing->root < 0 || backing->descriptors < 0 ||
	    backing_identify(backing, backing->root, &identity, &st) ||
	    !(backing->own = backing_device(backing, &identity, backing->root))) {
		int error = errno ? -errno : -ENOMEM;

		backing_close(backing);
		return error;
	}
	return 0;
}

void backing_stop_flushers(struct backing *backing)
{
	for (struct backing_device *device = backing->devices; device; device = device->next) {
		mmapio_flusher_free(device->flusher);
		device->flusher = NULL;
	}
}

void backing_close(struct backing *backing)
{
	struct backing_device *device, *next;

	for (device = backing->devices; device; device = next) {
		next = device->next;
		mmapio_flusher_free(device->flusher);
		if (device->mount >= 0)
			close(device->mount);
		free(device);
	}
	backing->devices = NULL;
	if (backing->claim >= 0)
		close(backing->claim);
	if (backing->descriptors >= 0)
		close(backing->descriptors);
	if (backing->root >= 0)
		close(backing->root);
	pthread_mutex_destroy(&backing->lock);
}

/* Whether a descriptor is of our own mount, or that cannot be told. */
static bool is_own(struct backing *backing, int descriptor)
{
	struct statx stx;

	/* Without AT_STATX_DONT_SYNC, a request to ourselves that nobody may be free to serve. */
	return statx(descriptor, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &stx) ||
	       (backing->own_device &&
		makedev(stx.stx_dev_major, stx.stx_dev_minor) == backing->own_device);
}

bool backing_is_claimed(const char *path)
{
	const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const bool claimed = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;

	if (fd >= 0)
		close(fd);
	return claimed;
}

int backing_claim(struct backing *backing, bool alone)
{
	if (backing->claim < 0)
		backing->claim = openat(backing->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (backing->claim < 0)
		return -errno;
	if (flock(backing->claim, (alone ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0)
		return 0;
	/* (Asking for more may have lost what there was; some file systems have no such locks.) */
	if (errno != EWOULDBLOCK)
		return 0;
	if (alone)
		(void)flock(backing->claim, LOCK_SH | LOCK_NB);
	return -EWOULDBLOCK;
}

int backing_open_name(struct backing *backing, int folder, const char *name)
{
	struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
			       .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS};
	int fd = (int)syscall(SYS_openat2, folder, name, &how, sizeof(how));

	if (fd >= 0)
		return fd;
	if (errno != EXDEV && errno != ENOSYS && errno != EPERM)
		return -errno;
	fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (is_own(backing, fd)) {
		close(fd);
		return -ELOOP;
	}
	return fd;
}

int backing_open_path(struct backing *backing, const char *path)
{
	struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
	int fd;

	while (*path == '/')
		path++;
	fd = (int)syscall(SYS_openat2, backing->root, *path ? path : ".", &how, sizeof(how));
	if (fd < 0)
		return -errno;
	if (is_own(backing, fd)) {
		close(fd);
		return -ELOOP;
	}
	return fd;
}

int backing_identify(struct backing *backing, int descriptor, struct identity *identity,
		     struct stat *st)
{
	struct {
		struct file_handle handle;
		unsigned char bytes[MAX_HANDLE_SZ];
	} found;
	struct statx stx;
	int mount_id;

	(void)backing;
	if (fstat(descriptor, st))
		return -errno;
	identity->device = st->st_dev;
	found.handle.handle_bytes = MAX_HANDLE_SZ;
	if (name_to_handle_at(descriptor, "", &found.handle, &mount_id, AT_EMPTY_PATH) == 0) {
		identity->mount = (uint64_t)mount_id;
		identity->type = found.handle.handle_type;
		identity->length = found.handle.handle_bytes;
		memcpy(identity->bytes, found.handle.f_handle, identity->length);
		return 0;
	}
	if (statx(descriptor, "", AT_EMPTY_PATH, STATX_BTIME | STATX_MNT_ID, &stx))
		return -errno;
	identity->mount = stx.stx_mask & STATX_MNT_ID ? stx.stx_mnt_id : 0;
	identity->type = IDENTITY_INODE;
	identity->length =
		sizeof(st->st_ino) + sizeof(stx.stx_btime.tv_sec) + sizeof(stx.stx_btime.tv_nsec);
	memcpy(identity->bytes, &st->st_ino, sizeof(st->st_ino));
	memcpy(identity->bytes + sizeof(st->st_ino), &stx.stx_btime.tv_sec,
	       sizeof(stx.stx_btime.tv_sec));
	memcpy(identity->bytes + sizeof(st->st_ino) + sizeof(stx.stx_btime.tv_sec),
	       &stx.stx_btime.tv_nsec, sizeof(stx.stx_btime.tv_nsec));
	return 0;
}

/* FS_IOC_GETFSUUID of Linux 6.9 */
struct uuid {
	unsigned char length, bytes[16];
};
#define GET_UUID _IOR(0x15, 0, struct uuid)

void backing_mark(const struct backing *backing, struct backing_mark *mark)
{
	struct uuid uuid = {0};
	struct statx stx;

	memset(mark, 0, sizeof(*mark));
	if (statx(backing->root, "", AT_EMPTY_PATH, STATX_BTIME, &stx) == 0 &&
	    (stx.stx_mask & STATX_BTIME)) {
		mark->seconds = stx.stx_btime.tv_sec;
		mark->nanoseconds = stx.stx_btime.tv_nsec;
	}
	if (backing->own->mount >= 0 && ioctl(backing->own->mount, GET_UUID, &uuid) == 0 &&
	    uuid.length == sizeof(uuid.bytes))
		memcpy(mark->uuid, uuid.bytes, sizeof(mark->uuid));
}

static struct backing_device *device_find(struct backing *backing, const struct identity *identity)
{
	struct backing_device *found = backing->devices;

	while (found && (found->device != identity->device || found->mount_id != identity->mount))
		found = found->next;
	return found;
}

#define NUMBER_SHIFT 47
#define NUMBER_MASK  UINT64_C(0xffff)

/* The bits that tell inode numbers of a new file system from those of the others. */
static void number_find_locked(struct backing *backing, struct backing_device *found,
			       int descriptor)
{
	struct backing_device *other = backing->devices;
	struct statfs kind;
	uint64_t number = found->device;
	uint32_t words[2];

	found->lasts = true;
	if (!other)
		return; /* BACKING's own: 0 */
	if (fstatfs(descriptor, &kind) == 0) {
		memcpy(words, &kind.f_fsid, sizeof(words));
		found->lasts = words[0] | words[1];
		if (found->lasts)
			number = (words[0] ^ words[1]) * UINT64_C(0x9e3779b97f4a7c15) >> 48;
	}
	while (other) {
		number = number & NUMBER_MASK ? number & NUMBER_MASK : 1;
		for (other = backing->devices; other; other = other->next) {
			if (other->device ==
			    found->device) { /* by another mount: the same inodes */
				found->number = other->number;
				found->is_second = true;
				return;
			}
			if (other->number == number << NUMBER_SHIFT) {
				number++;
				break;
			}
		}
	}
	found->number = number << NUMBER_SHIFT;
}

/* Opens what a handle names, on the file system that mount lies on. */
static int handle_open(int mount, const struct identity *identity)
{
	struct {
		struct file_handle handle;
		unsigned char bytes[MAX_HANDLE_SZ];
	} wanted;
	int fd;

	wanted.handle.handle_type = identity->type;
	wanted.handle.handle_bytes = identity->length;
	memcpy(wanted.handle.f_handle, identity->bytes, identity->length);
	fd = open_by_handle_at(mount, &wanted.handle, O_PATH | O_CLOEXEC);
	return fd >= 0 ? fd : -errno;
}

int backing_open_identity(struct backing *backing, const struct identity *identity)
{
	struct backing_device *device = device_find(backing, identity);

	if (!device || !device->handles_open || identity->type == IDENTITY_INODE)
		return -EOPNOTSUPP;
	return handle_open(device->mount, identity);
}

#define INO32_GEN 1 /* FILEID_INO32_GEN of include/linux/exportfs.h */

uint64_t backing_lasting_number(const struct backing *backing, const struct identity *identity)
{
	const struct backing_device *own = backing->own;
	uint32_t words[2];

	if (!backing->is_whole || !own->handles_open || identity->device != own->device ||
	    identity->mount != own->mount_id || identity->type != INO32_GEN ||
	    identity->length != sizeof(words))
		return 0;
	memcpy(words, identity->bytes, sizeof(words));
	if (words[0] >> 31) /* that bit is the views' (node.h) */
		return 0;
	return (uint64_t)words[0] << 32 | (words[0] ? words[1] : 0);
}

int backing_open_lasting(const struct backing *backing, uint64_t number)
{
	const uint32_t words[2] = {(uint32_t)(number >> 32), (uint32_t)number};
	struct identity identity = {.type = INO32_GEN, .length = sizeof(words)};

	if (!backing->is_whole || !backing->own->handles_open || !words[0])
		return -ESTALE;
	memcpy(identity.bytes, words, sizeof(words));
	return handle_open(backing->own->mount, &identity);
}

struct descriptor_path backing_path(int descriptor)
{
	struct descriptor_path path;

	snprintf(path.text, sizeof(path.text), "/proc/self/fd/%d", descriptor);
	return path;
}

int backing_reopen(struct backing *backing, int descriptor, int flags)
{
	char name[16];
	int fd;

	snprintf(name, sizeof(name), "%d", descriptor);
	flags |= O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	if (backing->noatime && !(flags & O_PATH)) {
		/* Where it is not the mount's; the owner's alone (open(2)). */
		fd = openat(backing->descriptors, name, flags | O_NOATIME);
		if (fd >= 0 || errno != EPERM)
			return fd >= 0 ? fd : -errno;
	}
	fd = openat(backing->descriptors, name, flags);
	return fd >= 0 ? fd : -errno;
}

/* Whether open_by_handle_at(2) works with mount as the way in. */
static bool handles_try(struct backing *backing, int mount)
{
	struct identity identity;
	struct stat st;
	int fd;

	if (mount < 0 || backing_identify(backing, mount, &identity, &st) ||
	    identity.type == IDENTITY_INODE)
		return false;
	fd = handle_open(mount, &identity);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

struct backing_device *backing_device(struct backing *backing, const struct identity *identity,
				      int descriptor)
{
	struct backing_device *found = device_find(backing, identity);
	struct stat st;

	if (found)
		return found;
	pthread_mutex_lock(&backing->lock);
	found = device_find(backing, identity);
	if (found)
		goto out;
	found = calloc(1, sizeof(*found));
	if (!found)
		goto out;
	found->device = (dev_t)identity->device;
	found->mount_id = identity->mount;
	number_find_locked(backing, found, descriptor);
	found->mount = -1;
	/* Nothing but a folder or a regular file may be opened for a look. */
	if (fstat(descriptor, &st) == 0 && (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode)))
		found->mount = backing_reopen(backing, descriptor, O_RDONLY);
	found->handles_open = handles_try(backing, found->mount);
	if (mmapio_flusher_new(&found->flusher)) {
		if (found->mount >= 0)
			close(found->mount);
		free(found);
		found = NULL;
		goto out;
	}
	found->next = backing->devices;
	backing->devices = found;
out:
	pthread_mutex_unlock(&backing->lock);
	return found;
}
