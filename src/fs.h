/* SPDX-License-Identifier: Apache-2.0 */
/* What the operations share: one mounted file system. */
#ifndef FS_H
#define FS_H

#include "backing.h"
#include "file.h"
#include "flusher.h"
#include "folder.h"
#include "fuse.h"
#include "node.h"
#include "options.h"
#include "prewarm.h"
#include "view.h"
#include "watch.h"

/*
 * Locks, in the order in which one thread may take them; those of one line are never held together:
 *   snapshots->making, snapshots->collecting (snapshot.h)
 *   folder->lock | listing->lock (view_folders.c) | own->data (view.h)
 *   snapshots->locks
 *   view->lock
 *   file->open_lock
 *   files->check_locks
 *   files->lock | flusher->lock | prewarmer->lock | watch->lock
 *   nodes->lock
 *   nodes->descriptor_lock | backing->lock | folders->lock
 *   those of libmmapio (lib/file.h)
 */
struct fs {
	const struct options *options;
	struct fuse_session *session; /* constant while requests are served */
	struct backing backing;
	struct nodes nodes;
	struct files files;
	struct folders folders;
	struct flusher *flusher;
	struct prewarmer *prewarmer;
	struct watch *watch;
	struct view *view;    /* the mount is one (-o cow), or has some (snapshot.h); or NULL */
	bool switch_identity; /* we run as root: what callers make is made with their identity */
	bool stateless;	      /* the kernel agreed to it */
	_Atomic unsigned int writes_waiting; /* ops.c: answers to writes that were handed over */
	bool keeps_cache;		     /* the same: it drops pages when it is told to */
	void (*serving)(struct fs *fs); /* called once, when the kernel has accepted the mount */
	int ready;			/* session.c's: where to say so */
};

/* ops.c: all operations */
extern const struct fuse_lowlevel_ops fs_operations;
extern const struct fuse_lowlevel_ops view_operations; /* of a mount that is a view */
/* snapshot_ops.c */
extern const struct fuse_lowlevel_ops snapshot_operations; /* of one with point-in-time views */

#endif
