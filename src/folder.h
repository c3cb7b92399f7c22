/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open folders: a descriptor and what was read ahead from it, found by a number that is given to
 * the kernel. Where the kernel tells of no opens, a folder is opened for each request instead.
 */
#ifndef FOLDER_H
#define FOLDER_H

#include <dirent.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

struct folder {
	uint64_t id;
	int descriptor;
	pthread_mutex_t lock;
	off_t next;	      /* lock: the offset of the entry at position */
	size_t position;      /* lock: in buffer */
	size_t filled;	      /* lock */
	UT_hash_handle by_id; /* folders->lock */
	_Alignas(struct dirent64) char buffer[16 * 1024]; /* lock: what getdents64(2) gave */
};

struct folders {
	pthread_mutex_t lock;
	struct folder *by_id;
	uint64_t last_id;
};

void folders_init(struct folders *folders);
void folders_free(struct folders *folders);

/* Takes ownership of descriptor on success. NULL without memory. */
struct folder *folder_new(int descriptor);
void folder_free(struct folder *folder);

/* Gives it a number. False without memory. */
bool folder_register(struct folders *folders, struct folder *folder);
struct folder *folder_find(struct folders *folders, uint64_t id);

/* Takes it out; the caller frees it. */
struct folder *folder_unregister(struct folders *folders, uint64_t id);

/* --- with folder->lock held --- */

/* Goes to an offset that an entry's d_off gave, 0 for the start. 0 or negative errno. */
int folder_seek_locked(struct folder *folder, off_t offset);

/*
 * The next entry, which stays the next one until folder_advance_locked(). 1; 0 at the end; negative
 * errno.
 */
int folder_peek_locked(struct folder *folder, const struct dirent64 **entry);
void folder_advance_locked(struct folder *folder);

#endif
