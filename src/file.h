/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mapped files: at most one for each inode, shared by all who use it, in a bounded cache. Owns
 * when a backing file is opened and closed; what it holds is libmmapio's.
 *
 * A file is in use (references: requests under way), open (handles: the kernel has an open that it
 * will release), or idle, and then may be synced and closed at any time. One whose last sync failed
 * stays, since the error lives in it, and so does one whose last name is gone (keep). One that we
 * may not be able to open again goes after all others (cling).
 *
 * Files share the room for descriptors with those of nodes (node.h). Where nothing can be closed
 * any more, opening one more file fails with ENFILE, and nothing else does.
 */
#ifndef MMAPFS_FILE_H
#define MMAPFS_FILE_H

#include "node.h"

#include <mmapio.h>

struct file {
	struct files *files;	   /* constant */
	struct node *node;	   /* constant; referenced */
	unsigned int references;   /* files->lock */
	unsigned int handles;	   /* files->lock */
	bool failed;		   /* files->lock: a sync failed while it was to be closed */
	bool keep;		   /* files->lock: until the kernel forgets the node */
	bool cling;		   /* files->lock: in clinging, when idle */
	bool doomed;		   /* files->lock: nobody can ask for it; to be closed when idle */
	bool warmed;		   /* files->lock: it has been given to the prewarmer */
	TAILQ_ENTRY(file) idle;	   /* files->lock; see is_idle() */
	TAILQ_ENTRY(file) all;	   /* files->lock; while node->file is this */
	pthread_mutex_t open_lock; /* before files->lock; held while it is opened */
	struct mmapio_file *_Atomic mapped; /* set once under open_lock */
	_Atomic bool write_only; /* written under open_lock: it could not be opened for reading */
};

TAILQ_HEAD(file_list, file);

struct prewarmer;
struct watch;

#define CHECK_LOCKS 64

struct files {
	struct nodes *nodes;
	struct watch *watch;
	struct mmapio_policy policy;
	enum mmapio_write_method write_method;
	struct prewarmer *prewarmer; /* told of files when they are first opened; or NULL */
	pthread_mutex_t lock;
	struct file_list idle;	     /* lock; the one used last at the end */
	struct file_list clinging;   /* lock; the same, of those that go after the others */
	struct file_list all;	     /* lock */
	unsigned int count;	     /* lock */
	unsigned int clinging_count; /* lock: in that list or in use */
	unsigned int limit;	     /* constant: of files, for the sake of their mappings */
	/* Each of the nodes whose numbers leave the same remainder: from looking whether others
	 * have changed a file until that is known to the watch. */
	pthread_mutex_t check_locks[CHECK_LOCKS];
};

void files_init(struct files *files, struct nodes *nodes, const struct mmapio_policy *policy,
		enum mmapio_write_method write_method, unsigned int limit);

/*
 * Syncs and closes all; no request is under way any more. 0, or the first error. Files live on in
 * the flushers' queues until these are freed.
 */
int files_close(struct files *files);

/* What a file is needed for. */
enum file_access {
	FILE_READ,
	FILE_WRITE,
	FILE_SYNC, /* or anything else that every descriptor will do for */
};

/*
 * The node's file, opened if need be, with a reference.
 * 0; -ENFILE: descriptors or memory are used up; what open(2) returns; -EISDIR, -EINVAL: it is
 * no regular file.
 */
int file_get(struct files *files, struct node *node, enum file_access access, struct file **out);

/* The same for a file that was just created: takes ownership of descriptor in any case. */
int file_adopt(struct files *files, struct node *node, int descriptor, struct file **out);

/* The node's file if it is open, with a reference, or NULL. Opens nothing. */
struct file *file_find(struct files *files, struct node *node);
void file_put(struct files *files, struct file *file);

/* The kernel holds an open of it from now on, until file_release(). */
void file_hold(struct files *files, struct file *file);
void file_release(struct files *files, struct node *node);

/*
 * The node's file could not be opened again, since its last name is gone. If it is open it stays,
 * and keeps the inode alive: true.
 */
bool file_keep(struct files *files, struct node *node);

/*
 * The right to open the file is about to go, or the name by which we could, and somebody may have
 * it open without our knowing: opens it, and clings.
 */
void file_cling(struct files *files, struct node *node);

/* Makes sure that there is room for one file, or folder, more. 0 or -ENFILE. */
int files_room(struct files *files);

/* A folder was opened (1) or closed (-1), whose descriptor shares the room. */
void files_count(struct files *files, int folders);

/*
 * Makes sure that there is room to keep a descriptor of the node, whose last name may be about to
 * go. 0 or -ENFILE.
 */
int file_keep_room(struct files *files, struct node *node);

/* An O_PATH descriptor, the caller's, of a file that is open; or negative errno. */
int file_path_descriptor(struct files *files, struct node *node);

/* Closes something idle, because somebody ran out of descriptors. Whether there was anything. */
bool files_make_room(struct files *files);

/*
 * The kernel knows the node no longer. If its last name is gone too, so is its file, unsynced:
 * nobody can ever ask for these bytes.
 */
void file_forgotten(struct files *files, struct node *node);

/*
 * Takes note of what others did to the file (mmapio_file_check()); where they have changed it, the
 * node is stale from now on (watch.h). st may be NULL. 0 or negative errno.
 */
int file_check(struct files *files, struct file *file, struct stat *st);

/* Stores of before have moved the times of their files, and with them ctime, when it returns. 0 or
 * -ENOMEM. */
int files_move_times(struct files *files);

/*
 * The same before a read is answered. 1: others have made the file shorter, which the kernel learns
 * from the answer, if that comes first: the watch is to be told after it, by the caller.
 */
int file_check_reading(struct files *files, struct file *file);

/*
 * Attributes, those of stores that have not reached the backing file included; checks as above.
 * file_stat_known(): of an object whose attributes were just asked for, in *st.
 */
int file_stat(struct files *files, struct node *node, struct stat *st);
int file_stat_known(struct files *files, struct node *node, struct stat *st);

/* The last byte of the node's file, if it is open and has one. context: files. */
bool file_last_byte(void *context, struct node *node, uint64_t *offset, char *byte);

/* Sets the times of a node, by an O_PATH descriptor of it, as utimensat(2). 0 or negative errno. */
int file_set_times(struct files *files, struct node *node, int descriptor,
		   const struct timespec times[2]);

#endif
