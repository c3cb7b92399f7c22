/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Point-in-time views of the live tree: which there are, and what the live tree was at their
 * instants. Knows nodes and the store; no requests.
 *
 * Each view has an epoch; later ones have higher ones. Before an object of the live tree is changed
 * for the first time after the newest view's instant, what it is gets a state of its own (struct
 * own, view.h) of that epoch: attributes at once, names, extended attributes and blocks one by one,
 * before each is changed. What an object is in a view is what was changed in the view; else what
 * the first state of that or a later epoch says; else what the live tree has.
 *
 * Locks: a change of the live tree locks the objects that it changes (struct change), then reads
 * which epoch it is, once, and then may take view->lock. Who reads in a view what the live tree has
 * holds view->lock until it has it, or, for bytes of a file, the lock of its object until the reply
 * is sent.
 */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

#include "view.h"

#include <sys/queue.h>

/* In the store, so never to be renumbered. */
enum snapshot_state {
	SNAPSHOT_PENDING = 1, /* changes that began before it may be under way */
	SNAPSHOT_WHOLE = 2,
	SNAPSHOT_GIVEN_UP = 3, /* for want of room, or because it cannot be proved: EIO */
	SNAPSHOT_DROPPED = 4,  /* without a name; what it alone needs is being removed */
};

struct snapshot {
	struct backing_device device; /* its nodes'; first */
	uint64_t epoch;		      /* constant */
	struct timespec instant;      /* constant */
	struct timespec settled;      /* set once, before it is whole: see view_check_base() */
	bool read_only;		      /* constant */
	char *name;		      /* view->lock */
	_Atomic int state;	      /* view->lock; read without */
	_Atomic unsigned int users;   /* requests that are served in it */
	bool is_noted;		      /* view->lock: the store knows the state */
	bool on_disk;		      /* view->lock: what it is of is there (snapshots_settle()) */
	bool own_is_gone;	      /* view->lock: what was changed in it was removed */
	bool is_gone;		      /* view->lock: and all else that it alone needed */
	TAILQ_ENTRY(snapshot) all;    /* view->lock; the oldest first. Kept to the end */
	struct snapshot *_Atomic newer; /* the same, to be read without */
};

TAILQ_HEAD(snapshot_list, snapshot);

struct hot;

#define CHANGE_LOCKS 1024
#define CHANGE_NODES 4

struct snapshots {
	struct snapshot_list all; /* view->lock */
	_Atomic uint64_t epoch;	  /* view->lock; the newest view's; 0: there is none */
	uint64_t last;		  /* view->lock: the highest epoch that was ever given */
	_Atomic uint64_t oldest;  /* view->lock: the oldest view's; no state before is needed */
	_Atomic uint64_t flips;	  /* making: how often epoch was changed */
	_Atomic unsigned int running[2]; /* changes that began since an even, an odd flip */
	pthread_mutex_t making;		 /* before all others: one view at a time */
	pthread_rwlock_t locks[CHANGE_LOCKS];

	struct hot *hot;	      /* view->lock */
	_Atomic uint64_t log_written; /* view->lock: commits of hot.c */
	_Atomic uint64_t log_synced;  /* of these, those that are on the disk */
	_Atomic uint64_t fresh;	      /* until when ctime may not tell; ns of the monotonic clock */
	pthread_mutex_t syncing;      /* after none */
	pthread_mutex_t settling;     /* before view->lock */

	char *hidden; /* constant: the store's name in BACKING; NULL: it is elsewhere */
	int anchors;  /* view->lock, set once: a folder of the store, or -1 */
	struct node *anchors_node; /* the same; referenced */

	pthread_mutex_t collecting;
	uint64_t thin_from;    /* collecting: the youngest view that was dropped since; 0: none */
	pthread_cond_t wanted; /* of collect, stop */
	bool collect, stop;    /* view->lock */
	bool has_collector;    /* constant */
	pthread_t collector;
};

/* The view that a node belongs to, or NULL. */
static inline struct snapshot *snapshot_of(const struct node *node)
{
	return node_is_of_view(node) ? (struct snapshot *)node->device : NULL;
}

/* hidden: the name of the store in BACKING, or NULL. 0 or -ENOMEM. */
int snapshots_new(struct view *view, const char *hidden);
/* After the store was opened, or made. crashed: what was not brought to the disk may be lost. 0 or
 * negative errno. */
int snapshots_load_locked(struct view *view, bool crashed);
void snapshots_stop(struct view *view);
void snapshots_free(struct view *view);

/*
 * Brings what views are of to the disk: the live tree, as it was at their instants, or what was
 * kept of it. Until then the end of the system takes them away. 0 or negative errno.
 */
int snapshots_settle(struct view *view);

/* Removes what no view needs any more: now; or in the background. */
void snapshots_remove_unneeded(struct view *view);
void snapshots_collect(struct view *view);

/* What a file was could not be kept: the oldest view is given up for its room, or all are. Not
 * within a change. */
void snapshots_give_up(struct view *view, int error, const char *path);

/* thin.c: of states that are needed, what is not. 0 or negative errno. */
int snapshots_thin(struct view *view);

/*
 * A view of the live tree as it is now. 0, or negative errno: -EEXIST; -ENOSPC, -EIO, -ENOMEM of
 * the store. Waits for changes that are under way.
 */
int snapshot_make(struct view *view, const char *name, bool read_only, struct snapshot **out);
/* 0, -ENOENT. What it alone needs goes in the background. */
int snapshot_drop(struct view *view, const char *name);
/* 0, -ENOENT, -EEXIST. */
int snapshot_rename(struct view *view, const char *name, const char *new_name);
/* By name, or NULL. */
struct snapshot *snapshot_find_locked(struct view *view, const char *name);

/* Whether a name of a folder of the live tree is that of the store. */
bool snapshot_hides(const struct view *view, const struct node *folder, const char *name);

/* The room that a view takes, in bytes: what was changed in it, and what was kept since it was made
 * and before the next one was. 0 or negative errno. */
int snapshot_room_locked(struct view *view, const struct snapshot *snapshot, uint64_t *room);

/* The folder that is a view's root, referenced. 0 or negative errno. */
int snapshot_root(struct view *view, struct snapshot *snapshot, struct node **root);

/* Whether requests may be served in it, until snapshot_leave(). 0, -ESTALE, -EIO. */
int snapshot_enter(struct snapshot *snapshot);
void snapshot_leave(struct snapshot *snapshot);

/* --- Changes of the live tree ----------------------------------------------------------------- */

struct change {
	struct view *view;
	uint64_t epoch;	  /* what is changed is to be kept for; 0: there is no view */
	uint64_t durable; /* which log_written is to be on the disk before the change */
	unsigned int side;
	unsigned int count;
	unsigned int lock[CHANGE_NODES];
};

/* Locks the nodes; NULL ones are none. */
void change_begin(struct view *view, struct change *change, struct node *const *nodes,
		  unsigned int count);
void change_end(struct change *change);

/* Holds back changes of one node, until snapshot_release(). */
void snapshot_hold(struct view *view, const struct node *base);
void snapshot_release(struct view *view, const struct node *base);

/*
 * past.c: keeps what is about to be changed, for the views; within a change that has locked the
 * nodes. 0, or negative errno: then nothing may be changed before a view was given up.
 */
int past_attributes(struct change *change, struct node *node);
/* Bytes from offset on, up to end. */
int past_bytes(struct change *change, struct node *node, uint64_t offset, uint64_t end);
/* All from size on, which is to be cut off. */
int past_cut(struct change *change, struct node *node, uint64_t size);
/* An extended attribute; NULL: all. may_appear: it may be made by the change. */
int past_xattr(struct change *change, struct node *node, const char *name, bool may_appear);
/* What a write may take away. */
int past_privileges(struct change *change, struct node *node);
/* A name of a folder, and the object that it is of; NULL: there is no such name. With attributes.
 * comes: the object that there is already, and is to have it; or NULL. */
int past_name(struct change *change, struct node *folder, const char *name, struct node *node,
	      struct node *comes);
/* The same; the object is about to lose that name, and is to be there for the views if it was the
 * last. *anchored: whether it has a name in the store now. */
enum anchored { NO_ANCHOR, NEW_ANCHOR, HAD_ANCHOR };
int past_removed(struct change *change, struct node *folder, const char *name, struct node *node,
		 struct node *comes, enum anchored *anchored);

/* An object is about to get another name; where it is then. */
int past_moving(struct change *change, struct node *folder, const char *name, struct node *node,
		struct node *new_folder, const char *new_name);
/* It was, or it was not: looks. */
int past_moved_locked(struct view *view);

/*
 * hot.c: what is being kept, for the case that the system ends. Adds a row for an item, within a
 * transaction, which ends with view_end() and then hot_end_locked(), which hands its result on.
 */
int hot_add_locked(struct view *view, int64_t object, int64_t item, bool with_state);
int hot_end_locked(struct view *view, int64_t object, int error);
/* After a state was added: the change has to wait for it, where ctime may not tell of it. */
void hot_state_added(struct change *change);
/* How long ctime may not tell what was changed after a view from what was changed before: clocks of
 * file systems go by ticks. */
#define TICKS_NS UINT64_C(20000000)
/* As hot_add_locked(), in a transaction of its own, if the item is not hot; and notes what the
 * change has to wait for. at_once: though the state may have come with it. 0 or negative errno. */
int hot_mark_locked(struct change *change, int64_t object, int64_t item, bool at_once);
/* Until that is on the disk; with no lock of the view. 0 or negative errno. */
int hot_wait(struct view *view, uint64_t written);
/* A checkpoint: what was not touched since the last one is hot no longer. Whether anything is. */
bool hot_cool_locked(struct view *view);
void hot_free(struct snapshots *snapshots);

/* The name of an object's anchor. */
struct anchor_name {
	char text[24];
};
struct anchor_name anchor_name(int64_t object);
/* Adds what the files take that objects of those layers keep. */
int anchors_room_locked(struct view *view, int64_t from, int64_t to, uint64_t *room);
/* Of those that are there: of files with other names. crashed: some may be nobody's. */
void anchors_load_locked(struct view *view, bool crashed);
/* Opens the folder of anchors. */
void anchors_open_locked(struct view *view, int store);
/* Objects of those layers are about to go: their anchors do, of files with other names, which is a
 * change that views see. */
void anchors_release(struct view *view, int64_t from, int64_t to);
/* An object of the past is about to go, and with it its anchor. */
void anchor_remove_locked(struct view *view, int64_t object);

#endif
