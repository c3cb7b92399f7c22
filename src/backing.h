/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BACKING: the folder that is mirrored, held by descriptors that were opened before the mount, and
 * the file systems that lie below it. Knows no nodes and no requests.
 */
#ifndef BACKING_H
#define BACKING_H

#include <fcntl.h>
#include <mmapio.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/*
 * Who an object is: its file handle, which is never given to another object as long as the file
 * system lives; without handles inode number and birth time; and the mount that it was reached by,
 * since a folder that is bound to a second place, perhaps read-only, is another folder there.
 * Compared as bytes.
 */
struct identity {
	uint64_t device;
	uint64_t mount;
	uint32_t length; /* of bytes */
	int32_t type;	 /* of the handle; IDENTITY_INODE: there is none */
	unsigned char bytes[MAX_HANDLE_SZ];
};

#define IDENTITY_INODE (-1)
#define IDENTITY_MADE  (-2) /* of no file system: a number of the view's (view.h) */

static inline size_t identity_size(const struct identity *identity)
{
	return offsetof(struct identity, bytes) + identity->length;
}

/* One mount of a file system at or below BACKING. Constant once it is found, and kept to the end.
 */
struct backing_device {
	dev_t device;
	uint64_t mount_id;
	uint64_t number;   /* see backing_number() */
	bool lasts;	   /* number is the same after the next mount of BACKING */
	bool is_view;	   /* it is none, but a point-in-time view (snapshot.h) */
	bool is_second;	   /* another mount of the same file system was found before */
	_Atomic bool told; /* a line has said that a view has it not */
	int mount; /* a folder or file on it, opened for reading; for open_by_handle_at(2) */
	bool handles_open; /* open_by_handle_at(2) is allowed and works */
	struct mmapio_flusher *flusher;
	struct backing_device *next;
};

struct backing {
	int root;	 /* the folder, O_PATH */
	int descriptors; /* /proc/self/fd */
	int claim;	 /* the folder, with a lock of flock(2); -1: none */
	bool noatime;	 /* constant: nothing may move the times of access */
	bool as_wanted;	 /* constant: mounted with the attributes that were asked for */
	bool is_whole;	 /* constant: it is the root of its file system, all of which is below it */
	dev_t own_device; /* of our own mount; 0: not known yet */
	pthread_mutex_t lock;
	struct backing_device *_Atomic devices; /* grows under lock, read without */
	const struct backing_device *own;	/* constant: BACKING's own */
};

/* How BACKING is mounted for us, where it can be so: of struct mount_attr. */
struct backing_attributes {
	uint64_t set, clear;
};

/* Opens the folder. 0 or negative errno. */
int backing_open(struct backing *backing, const char *path,
		 const struct backing_attributes *attributes);
void backing_close(struct backing *backing);

/*
 * Among all mounts of the folder that may write: that there is one; or that there is no other, nor
 * will be one as long as this lasts. 0, -EWOULDBLOCK, or another negative errno.
 */
/* Whether another mount has a folder for itself alone. */
bool backing_is_claimed(const char *path);
int backing_claim(struct backing *backing, bool alone);

/* Runs the flushers to their end and frees them. No file is opened after that. */
void backing_stop_flushers(struct backing *backing);

/* Opens name in folder with O_PATH, never following a link or entering our own mount. */
int backing_open_name(struct backing *backing, int folder, const char *name);

/* The same for a path from BACKING's root, which may begin with a slash; "" is the root. */
int backing_open_path(struct backing *backing, const char *path);

/* Tells attributes and identity of an O_PATH descriptor. 0 or negative errno. */
int backing_identify(struct backing *backing, int descriptor, struct identity *identity,
		     struct stat *st);

/*
 * What tells BACKING from folders of other file systems, whose roots may well have the same handle:
 * when it was made, and the file system's UUID, if the kernel tells it (Linux 6.9), else zeros.
 */
struct backing_mark {
	int64_t seconds;
	uint32_t nanoseconds;
	unsigned char uuid[16];
};
void backing_mark(const struct backing *backing, struct backing_mark *mark);

/* O_PATH descriptor of the object, or -ESTALE; -EOPNOTSUPP: not by handle, here. */
int backing_open_identity(struct backing *backing, const struct identity *identity);

/*
 * A number, from 2^32 up, that names the object as long as its file system lives, since it is the
 * file handle; or 0: handles are longer, cannot be opened, or may lead out of BACKING.
 */
uint64_t backing_lasting_number(const struct backing *backing, const struct identity *identity);

/* O_PATH descriptor of what a lasting number names. -ESTALE: nothing. */
int backing_open_lasting(const struct backing *backing, uint64_t number);

/*
 * Opens the object of an O_PATH descriptor, a regular file or a folder, with flags. Descriptor or
 * negative errno.
 */
int backing_reopen(struct backing *backing, int descriptor, int flags);

/* The path by which system calls reach the object of an O_PATH descriptor, also a link. */
struct descriptor_path {
	char text[32];
};
struct descriptor_path backing_path(int descriptor);

/* The file system of an object, or NULL without memory. */
struct backing_device *backing_device(struct backing *backing, const struct identity *identity,
				      int descriptor);

/*
 * The inode number to show for one of a file system. All of the mount is one device for its users,
 * so those of the file systems below BACKING's own are told apart by bits that inode numbers do not
 * reach; the same after each mount. The highest bit stays clear.
 */
static inline uint64_t backing_number(const struct backing_device *device, uint64_t inode)
{
	return inode ^ device->number;
}

#endif
