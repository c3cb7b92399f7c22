/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store of a view: what was changed in it. Rows (objects, names, extended attributes, which
 * block lies where) are in SQLite, blocks in one heap file beside it. Knows objects by number and
 * base objects by identity; no nodes and no requests.
 *
 * Its callers take turns (view->lock), but for reading and writing the heap.
 */
#ifndef STORE_H
#define STORE_H

#include "backing.h"

#include <mmapio.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

struct store;

/* A base object's identity as it is kept: the same after each mount. */
struct store_identity {
	size_t length;
	unsigned char bytes[sizeof(uint64_t) + sizeof(int32_t) + MAX_HANDLE_SZ];
};

#define NOT_CUT UINT64_MAX

/* An object that is not, or not in all, what is in BACKING. */
struct object {
	int64_t id;
	int64_t layer; /* what it is a state of */
	bool has_base;
	struct store_identity base;
	char *base_path;    /* from BACKING's root; the object's own */
	uint64_t base_size; /* these three: as they were when it was first changed */
	struct timespec base_mtime, base_ctime;
	uint64_t ino; /* as it is shown */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	dev_t device; /* of a device node */
	uint64_t links;
	uint64_t size;
	uint64_t blocks; /* of 512 bytes: base's when it was first changed */
	struct timespec atime, mtime, ctime;
	uint64_t cut; /* the smallest size that it was ever truncated to: nothing of base beyond */
	char *target; /* of a symbolic link; the object's own */
	int64_t parent; /* of a folder that was made or moved in the view; 0: as in BACKING */
	bool has_names, has_xattrs, has_blocks; /* there are rows */
	/* Of a state of the live tree: the system ended while it was being kept, so what no row
	 * says of its names, or extended attributes, is not known; some blocks are SLOT_LOST. */
	bool lost_names, lost_xattrs, lost_blocks;
};

void object_free(struct object *object);

struct store_options {
	const char *label;		      /* what is said before its folder, in the log */
	const char *folder;		      /* NULL: in memory */
	uint64_t limit;			      /* of the heap, in bytes; UINT64_MAX: none */
	const struct store_identity *backing; /* what it is a view of */
	const struct backing_mark *mark;      /* the same */
	const char *backing_path;	      /* for the log */
};

/* Opens or makes it. 0, or negative errno when a line has said what is wrong. */
int store_open(struct store **out, const struct store_options *options);
/* 0, or negative errno: not all could be brought to the disk. NULL is fine. */
int store_close(struct store *store);

/*
 * Proves a store that is not in use; what is wrong with it is on stdout, a line for each. Exit
 * status: 0: it is whole; 1: it is damaged; 2: it could not be looked at, which a line on stderr
 * has said.
 */
int store_check(const char *folder);

/* Whether there is one in the folder. 1, 0, or negative errno: that cannot be told. */
int store_is_there(const char *folder);

/*
 * What follows returns 0, or what else it says, or a negative errno: -ENOSPC, -EIO (damage, too),
 * -ENOMEM, -EROFS. Changes are made between begin and commit; what is not committed did not happen.
 */
int store_begin(struct store *store);
int store_commit(struct store *store);
void store_rollback(struct store *store);

/* Notes of which boot (boot_id of random(4)) the system is that uses it; "": none does. *crashed:
 * it was another one, and did not end. */
int store_boot_set(struct store *store, const char *boot, bool *crashed);

/*
 * What was done since cannot be noted in rows, for want of room say: who opens it next is told,
 * by a byte that needs no room; and whether it was. 0 or negative errno.
 */
int store_distrust(struct store *store, bool distrust);
int store_is_distrusted(struct store *store); /* 1, 0 or negative errno */
/* Of one in a folder, that nobody has open. 0 or negative errno: -EBUSY, -EINVAL (it is none, or
 * none of this version). */
int store_distrust_folder(const char *folder);

/* Brings all to the disk: heap, then rows. */
int store_sync(struct store *store);

/*
 * Brings rows that were committed to the disk, though not the blocks that they name. Needs no turn:
 * others may use the store meanwhile. 0 or negative errno.
 */
int store_sync_rows(struct store *store);

/* Sets object->id. */
int store_object_add(struct store *store, struct object *object);
int store_object_set(struct store *store, const struct object *object);
/* With names, attributes and blocks. */
int store_object_remove(struct store *store, int64_t id);
/* 1: *object is set, to be freed with object_free(); 0: there is none. */
int store_object_get(struct store *store, int64_t id, struct object *object);
int store_object_find(struct store *store, int64_t layer, const struct store_identity *base,
		      struct object *object);
/* That of the first even layer above that one. */
int store_object_past(struct store *store, int64_t layer, const struct store_identity *base,
		      struct object *object);
/* How many bytes of the heap objects of layers from one to another have. */
int store_layers_room(struct store *store, int64_t from, int64_t to, uint64_t *room);

/* A state of the live tree, and the one of the same object before it. */
struct store_pair {
	int64_t id, layer, older_id, older_layer;
	struct store_identity base;
};
/* The next one, by id, of those after *last, which moves on: 1; 0: none among those that were
 * looked at, there being no more if *last is INT64_MAX. */
int store_pair_next(struct store *store, int64_t *last, struct store_pair *pair);
/* Names and extended attributes of one object go that another one has. */
int store_items_thin(struct store *store, int64_t object, int64_t other);

/* Where in BACKING an object is now, of all rows of point-in-time views. */
int store_object_place(struct store *store, const struct store_identity *base, const char *path);
/* The same of all that were at a path or below it. */
int store_objects_move(struct store *store, const char *path, const char *new_path);

/* An object that is about to be moved, or has been: who was killed in between did not say. */
struct store_moving {
	struct store_identity object;
	const char *path, *new_path;
};
int store_moving_set(struct store *store, const struct store_moving *moving); /* NULL: none */
/* 1: paths are to be freed; 0: none. */
int store_moving_get(struct store *store, struct store_moving *moving);

/* Any object of layers from one to another; odd: of the odd ones, too. 1 and *id, or 0. */
int store_object_of_layers(struct store *store, int64_t from, int64_t to, bool odd, int64_t *id);
/*
 * What is kept of the live tree at this moment, since it is about to be changed: which item of an
 * object, a region of its bytes from 0 on, or one of these. Rows that were committed before the one
 * that takes it back reach the disk before that.
 */
#define HOT_NAMES  INT64_C(-1)
#define HOT_XATTRS INT64_C(-2)
#define HOT_REGION ((uint64_t)64 * 1024 * 1024) /* bytes */
int store_hot_add(struct store *store, int64_t object, int64_t item);
int store_hot_remove(struct store *store, int64_t object, int64_t item);
/* After the system ended while it was in use: what of that is not kept is lost, and a line says so.
 * Else nothing of it is. Then there are none any more. */
int store_hot_end(struct store *store, bool crashed);

/* How many objects of even layers from one on something is lost of; the path of the index-th, to be
 * freed, and what: 1; 0: there are not so many. */
int store_lost_count(struct store *store, int64_t from, uint64_t *count);
int store_lost_get(struct store *store, int64_t from, uint64_t index, char **path,
		   struct object *lost);

/* Objects without a link: 1 and *id, or 0. */
int store_object_orphan(struct store *store, int64_t *id);

/* A point-in-time view (snapshot.h), which says what its state is. */
struct store_snap {
	uint64_t epoch;
	const char *name;
	struct timespec instant;
	struct timespec settled; /* when no change of before was under way any more */
	int state;
	bool read_only;
	bool on_disk; /* and so is the live tree as it was then, or what was kept of it */
};
int store_snap_set(struct store *store, const struct store_snap *snap);
int store_snap_remove(struct store *store, uint64_t epoch);
/* Calls for each, the oldest first, until it returns other than 0, which is returned. */
int store_snaps_each(struct store *store, int (*each)(void *context, const struct store_snap *snap),
		     void *context);

/* 1: *object is set, 0 meaning that the name is absent; 0: nothing is said of it. */
int store_name_get(struct store *store, int64_t folder, const char *name, int64_t *object);
int store_name_set(struct store *store, int64_t folder, const char *name, int64_t object);
int store_name_remove(struct store *store, int64_t folder, const char *name);
/* Calls for each, until it returns other than 0, which is returned. */
int store_names_each(struct store *store, int64_t folder,
		     int (*each)(void *context, const char *name, int64_t object), void *context);

/* The same for extended attributes; value NULL: absent. *value is to be freed. */
int store_xattr_get(struct store *store, int64_t object, const char *name, void **value,
		    size_t *length);
int store_xattr_set(struct store *store, int64_t object, const char *name, const void *value,
		    size_t length);
int store_xattr_remove(struct store *store, int64_t object, const char *name);
int store_xattrs_each(struct store *store, int64_t object,
		      int (*each)(void *context, const char *name, bool absent), void *context);

/* --- Blocks ----------------------------------------------------------------------------------- */

#define STORE_BLOCK ((size_t)4096)
#define STORE_CHUNK 64 /* blocks that share a row */

/* How long a file may become by a change: as on ext4 (of blocks of 4 KiB). */
#define STORE_FILE_MAX ((UINT64_C(1) << 44) - STORE_BLOCK)

/* Where a block lies: base's, zero, nobody knows where, or a slot of the heap from SLOT_FIRST on.
 */
#define SLOT_BASE  0
#define SLOT_ZERO  1
#define SLOT_LOST  2
#define SLOT_FIRST 3

/* Which slots the blocks of a chunk are in, and their checksums. */
struct store_chunk {
	uint64_t slots[STORE_CHUNK];
	uint32_t sums[STORE_CHUNK]; /* store_sum() of those that are in the heap */
};

uint32_t store_sum(const void *block);

int store_chunk_set(struct store *store, int64_t object, uint64_t number,
		    const struct store_chunk *chunk);

/*
 * Keeps what blocks of a chunk (a bit for each) are before their first change after a sync; before
 * NULL: it has no row. And how long the file is, before or after the change, whichever is less.
 * What of the change a power cut keeps from the disk is taken back by the next store_open().
 */
int store_undo_add(struct store *store, int64_t object, uint64_t number, uint64_t blocks,
		   const struct store_chunk *before, uint64_t size);
/* A file becomes shorter: what is behind its end shall not come back. */
int store_undo_cut(struct store *store, int64_t object, uint64_t size);
/* Another number after each sync. */
uint64_t store_synced(const struct store *store);

/* 1, or 0: there is none. */
int store_chunk_get(struct store *store, int64_t object, uint64_t number,
		    struct store_chunk *chunk);
int store_chunks_each(struct store *store, int64_t object,
		      int (*each)(void *context, uint64_t number, const struct store_chunk *chunk),
		      void *context);

/* Takes up to *count slots that lie side by side; *count gets how many. Whether they are within the
 * limit is looked at by the commit: -ENOSPC. */
int store_slots_take(struct store *store, uint64_t *slot, uint64_t *count);
/* Gives slots back; they are used again when that is durable. */
int store_slots_give(struct store *store, uint64_t slot, uint64_t count);

/* Whether a sync is worth its while: so much waits to be used again, or so long is the log. */
bool store_wants_sync(const struct store *store);
/* Whether a sync makes some room. */
bool store_has_given(const struct store *store);

/*
 * The heap: slot s lies at s * STORE_BLOCK. May be read and written without the store's lock. A
 * slot is written before the row that names it is committed, and never again while one does.
 */
struct mmapio_file *store_heap(struct store *store);

/* Room: how much the heap holds, with what is free after the next sync; and the limit or
 * UINT64_MAX. */
void store_room(struct store *store, uint64_t *used, uint64_t *limit);
/* A descriptor of the heap, for statvfs(3). */
int store_descriptor(const struct store *store);

#endif
