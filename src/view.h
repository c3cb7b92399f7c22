/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A copy-on-write view of BACKING: which of its objects are no longer what BACKING has, and what
 * they are instead. Owns the store, and what is known of it in memory; knows nodes, no requests.
 *
 * An object of the view is a node: one of BACKING, or one that was made in the view, which has no
 * descriptor. What was changed of it is its own state (struct own), which has all attributes, and
 * for the rest says where it differs: names of a folder, extended attributes, blocks. Nodes without
 * are served as if there was no view.
 *
 * Locks: own->data, then view->lock, then all of nodes and files.
 */
#ifndef VIEW_H
#define VIEW_H

#include "node.h"
#include "store.h"

struct fs;

struct chunk {
	uint64_t number;
	struct store_chunk row;
	_Atomic uint64_t verified; /* a bit for each block whose checksum is known to be right */
	uint64_t undo;	    /* store_synced() when what it was before was kept; 0: it was not; */
	uint64_t undo_kept; /* a bit for each block of which it was */
	UT_hash_handle hh;
};

/* Which block of a file's lies in a slot. */
struct slot_owner {
	uint64_t slot;
	uint32_t chunk; /* of own->loaded */
	uint32_t block; /* of that */
};

struct own {
	/*
	 * Its row is the same. What it was made of (base, id, target) is constant; what its data
	 * are (size, cut, has_blocks) is changed with view->lock and data; all else: view->lock.
	 */
	struct object object;
	bool removed; /* view->lock: its row is gone */
	pthread_rwlock_t data;
	struct chunk *chunks; /* data: those with a row */
	struct chunk *loaded; /* constant: an array of those that had one when it was loaded, */
	size_t loaded_count;
	struct slot_owner *owners; /* constant: and where their blocks were, by slot */
	size_t owners_count;
	uint64_t block_count; /* data: slots */
	_Atomic bool tripped; /* its base was changed behind the view, which has been said */
	/* Of a state that a node of the live tree had (snapshot.h): the node's lock and view->lock,
	 * of which one is enough for reading. */
	struct own *older, *newer;
	bool is_last;	     /* the node has no name any more; its lock */
	bool has_privileges; /* past_privileges() was called; the node's lock */
};

struct snapshots;
struct listing;

/* Listings of folders that nobody opened (view_folders.c). */
#define VIEW_LISTINGS_MAX 16
struct view_listings {
	pthread_mutex_t lock;	   /* after none */
	TAILQ_HEAD(, listing) all; /* lock; the one used last at the end */
	unsigned int count;	   /* lock */
	uint64_t last;		   /* lock: number */
};
void view_listings_init(struct view_listings *listings);
void view_listings_free(struct view_listings *listings);

struct view_options {
	const char *folder; /* NULL: in memory */
	uint64_t limit;	    /* bytes; UINT64_MAX: none */
	const char *backing_path;
	bool snapshots; /* of point-in-time views of the live tree (snapshot.h), not the mount: */
	const char *hidden;	     /* the name of folder in BACKING; NULL: it is elsewhere */
	bool is_covered;	     /* the mount covers the way to folder */
	bool check;		     /* prove it first, and do not open a damaged one */
	struct mmapio_policy policy; /* of one that is kept */
};

struct view {
	struct fs *fs;
	struct view_options options; /* constant */
	pthread_mutex_t lock;
	struct store *store;	      /* lock; NULL: none was needed yet */
	struct snapshots *snapshots;  /* constant; NULL: the mount is the view */
	struct backing_device device; /* constant: of what was made in the view */
	uint64_t objects;	      /* lock: rows, not fewer than there are */
	struct view_listings listings;

	/* The flush policy (options.policy), of a view that is kept. */
	uint64_t bytes, writes; /* lock: since the last sync */
	uint64_t due;	/* lock: when to sync, in ns of the monotonic clock; 0: nothing is due */
	int sync_error; /* lock: the first sync that failed; negative errno. What it was to bring to
			   the disk may not be there, whatever later ones say (fsync(2)) */
	bool stop;	/* lock */
	pthread_cond_t changed; /* of due, stop */
	pthread_t flusher;	/* constant */
	bool has_flusher;	/* lock */
};

/* What options point to is to stay. 0, or negative errno when a line has said what is wrong. */
int view_open(struct view **out, struct fs *fs, const struct view_options *options);
/* 0, or negative errno: not all could be brought to the disk. NULL is fine. */
int view_close(struct view *view);

/* What a node's own state is freed by. */
void own_free(struct own *own);

/* The node of a number, with its own state, referenced. 0 or negative errno. */
int view_node(struct view *view, uint64_t ino, struct node **node);

/* Which inodes were made in a view: no file system has such numbers. */
#define MADE_NUMBER (UINT64_C(1) << 62)

static inline bool view_is_made(const struct node *node)
{
	return node->identity.type == IDENTITY_MADE;
}

/* The node of what is under a node of a view: BACKING's or the live tree's; of no one that was
 * made. */
static inline struct node *view_base(struct node *node)
{
	return node_is_of_view(node) ? node->parent : node;
}

/*
 * The states that say what a node is in its view, from the first one whose word counts; after the
 * last one it is what view_base() is. Of a node of a point-in-time view view->lock, or that of its
 * base, is held.
 */
struct own *view_state(struct node *node);
struct own *view_state_next(struct node *node, const struct own *state);

/* The kernel knows the node no longer: what has no name goes. */
void view_forgotten(struct view *view, struct node *node);

/* The number that a view shows of an inode, by the one that BACKING's mount has. */
uint64_t view_number(const struct node *node, uint64_t number);

/* Attributes as they are shown. 0 or negative errno. */
int view_stat(struct view *view, struct node *node, struct stat *st);

/*
 * Gives a node own state, if it has none: the attributes that it has. 0 or negative errno. Not
 * within a transaction.
 */
int view_own(struct view *view, struct node *node);

/*
 * Whether BACKING's object is what it was when the view's state was made of it; of a point-in-time
 * view: whether the live tree's, if nothing of it was kept, has no later ctime than the view. Else
 * nothing of it may be shown. 0; -ESTALE or, of a point-in-time view, -EIO, and the log says so
 * once.
 */
int view_check_base(struct view *view, struct node *node);

static inline bool view_is_later(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec > b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec > b->tv_nsec);
}

/* Of the monotonic clock. */
uint64_t view_now_ns(void);

/* Brings all that was changed to the disk. 0 or negative errno. */
int view_sync(struct view *view);

/* --- with view->lock held --- */

/*
 * Ends a transaction: error is 0 or what has gone wrong in it. 0: it is committed, and is to be so
 * in memory too, whatever comes; then view_changed().
 */
int view_end(struct view *view, int error);

/* Applies the flush policy: bytes have been written. 0, or negative errno where each change is to
 * be brought to the disk and was not. */
int view_changed(struct view *view, uint64_t bytes);

/* After a commit: its attributes are those of *object, of which nothing else may be new. */
void own_adopt(struct own *own, const struct object *object);

/* Ends a transaction that changes nothing in memory but the attributes of one object: with its row,
 * then all of the above. 0 or negative errno. */
int view_object_end(struct view *view, struct node *node, const struct object *object, int error);

/* After -ENOSPC: whether it is worth trying once more. */
bool view_makes_room_locked(struct view *view);

int view_stat_locked(struct view *view, struct node *node, struct stat *st);
int view_own_locked(struct view *view, struct node *node);

/* What a name in a folder is, referenced. 0; -ENOENT; other negative errno. */
int view_child_locked(struct view *view, struct node *folder, const char *name, struct node **node);

/* Whether BACKING has that name in the folder. 1, 0 or negative errno. */
int view_base_has_locked(struct view *view, struct node *folder, const char *name);

/* The node of an object, in the same view as another one, referenced. 0 or negative errno. */
int view_object_locked(struct view *view, const struct node *like, int64_t id, struct node **node);

/* Of what is under a node: an O_PATH descriptor, and giving it back. */
int view_base_descriptor(struct view *view, struct node *node);
void view_base_descriptor_put(struct view *view, struct node *node);

/* A state of an object that is in the store, to be freed with own_free(); takes over *object. */
int own_new_locked(struct view *view, struct object *object, struct own **own);

/* What a node is, for a row of a layer; to be freed with object_free(). 0 or negative errno. */
int view_object_of_locked(struct view *view, struct node *node, int64_t layer,
			  struct object *object);

/* Looks what the store has of a node, once. 0 or negative errno. */
int view_attach_locked(struct view *view, struct node *node);

/* An extended attribute of what is under a node, to be freed; its length or negative errno. */
ssize_t view_live_xattr(struct view *view, struct node *node, const char *name, void **value);

/* The node of an object of BACKING, referenced, or NULL if it is not known. */
struct node *view_find(struct view *view, const struct store_identity *base);

/* Opens or makes the store of point-in-time views. 0 or negative errno; a line has said which. */
int view_store_locked(struct view *view);

/*
 * Whether an error means that a node of a point-in-time view is gone from the live tree: what it
 * had was kept before, so it has no more than that.
 */
bool view_is_gone(struct node *node, int error);

/* Which object of BACKING a node is of, as the store knows it. */
struct store_identity view_identity(const struct node *base);

#endif
