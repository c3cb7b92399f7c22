/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes: the inodes that the kernel knows of, by number and by identity. Owns lookup counts, the
 * names by which nodes were last known, and their life time; knows no requests.
 *
 * A node lives as long as the kernel knows it (lookups), somebody here uses it (references), or it
 * is the parent of one that lives. After that, where it can be found by its file handle, it is
 * dormant for a while, unless it was removed: without a name or a descriptor, for whoever holds a
 * handle of the mount (open_by_handle_at(2)), which is its number.
 *
 * Node numbers name one node and never another: lasting ones where BACKING has them (backing.h), so
 * that handles outlive the mount; others count up. These stay below the lasting ones, since no file
 * has an inode number as low as the first ones.
 */
#ifndef NODE_H
#define NODE_H

#include "backing.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/stat.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

struct file;
struct own;
struct answer;

/* Of nodes of point-in-time views (snapshot.h): no file has so high a number. */
#define NODE_OF_VIEW (UINT64_C(1) << 63)

STAILQ_HEAD(answer_list, answer);

/* Which contents a file had: others have other times or sizes. All zero: the kernel has none. */
struct contents {
	uint64_t time; /* mtime in ns, modulo 2^64 */
	uint64_t size;
};

struct node {
	uint64_t id;		       /* constant */
	mode_t type;		       /* constant: S_IFMT */
	struct backing_device *device; /* constant */
	uint64_t lookups;	       /* nodes->lock */
	unsigned int references;       /* nodes->lock; children's included */
	/* nodes->lock; NULL: the root, or no name is known. Of a node of a point-in-time view,
	 * constant: the node of the live tree that is under it, or NULL. */
	struct node *parent;
	char *name;		    /* nodes->lock; with parent */
	UT_hash_handle by_id;	    /* nodes->lock */
	UT_hash_handle by_identity; /* nodes->lock */
	_Atomic bool removed;	    /* set once: its last name is gone, and none will come back */
	bool is_dormant;	    /* nodes->lock */
	TAILQ_ENTRY(node) dormant;  /* nodes->lock; if is_dormant */

	/* The descriptor cache's (descriptor.c). All: nodes->descriptor_lock. */
	int descriptor; /* O_PATH, or -1 */
	unsigned int pins;
	bool keep;		/* cannot be found again: not to be closed before the node goes */
	TAILQ_ENTRY(node) idle; /* with a descriptor, without pins and keep */

	struct file *file;	/* files->lock: the open mapped file, or NULL */
	_Atomic bool has_pages; /* the kernel may have some of it; the watch takes it back */
	struct contents seen; /* files' check lock: while file is NULL, as the kernel knows them */

	struct own *_Atomic own; /* view->lock, set once: what a view has changed of it, or NULL */
	struct own
		*_Atomic past; /* its lock and view->lock: what it was last (snapshot.h), or NULL */
	_Atomic bool anchored; /* it has a name in the store of views, which is not counted */
	bool anchor_holds;     /* view->lock: and is referenced for that */
	_Atomic bool is_attached; /* view->lock: that is known */
	_Atomic bool tripped;	  /* what is under it was changed behind its view: it was said */

	/* The watch's (watch.c). All: watch->lock; is_stale is read without, is_shorter has none.
	 */
	_Atomic bool is_stale;
	_Atomic bool is_shorter;
	bool stale_pages;	    /* the kernel's are yet to be dropped */
	STAILQ_ENTRY(node) stale;   /* if is_stale, unless it is being settled */
	struct answer_list answers; /* that wait for that */

	/* The flusher's (flusher.c). All: flusher->lock. */
	TAILQ_ENTRY(node) changed;
	bool names_changed;    /* in the queue */
	bool names_referenced; /* the flusher has a reference */
	uint64_t names_due;
	int names_error; /* positive errno: a sync of this folder failed, and none succeeded since
			  */

	struct identity identity; /* constant; allocated as long as it is */
};

TAILQ_HEAD(node_list, node);
STAILQ_HEAD(node_queue, node);

struct nodes {
	struct backing *backing;
	struct node *root;

	pthread_mutex_t lock;
	struct node *by_id;
	struct node *by_identity;
	uint64_t last_id;	  /* of those that count up */
	unsigned int most;	  /* lock: nodes, since memory was last given back */
	struct node_list dormant; /* lock; the one that has been for the shortest time last */
	unsigned int dormant_count;
	void (*own_free)(struct own *own); /* constant */

	pthread_mutex_t descriptor_lock; /* after lock; see descriptor.c */
	struct node_list idle;
	unsigned int idle_count;
	unsigned int idle_limit; /* constant */

	/* The room: how many descriptors the caches, this one and that of files, may hold. Less
	 * than RLIMIT_NOFILE, so that what a request needs for itself can be had. */
	unsigned int room;	   /* constant */
	_Atomic unsigned int used; /* by both caches; may pass the room for a moment */
	_Atomic unsigned int held; /* of these: kept ones, and files */
};

/* Makes the root's node, number FUSE_ROOT_ID. 0 or negative errno. */
int nodes_init(struct nodes *nodes, struct backing *backing, unsigned int room,
	       unsigned int idle_limit);
void nodes_free(struct nodes *nodes);

/*
 * The node of an O_PATH descriptor, which is consumed on success, known from now on as name in
 * parent (NULL: by what it was known); made if need be. The kernel's lookup count is raised if
 * lookup. The result is referenced. 0 or negative errno; *st is set.
 */
int node_of_descriptor(struct nodes *nodes, struct node *parent, const char *name, int descriptor,
		       bool lookup, struct node **node, struct stat *st);

/* The node of an identity that no descriptor leads to, made if need be, referenced. 0 or -ENOMEM.
 */
int node_of_identity(struct nodes *nodes, const struct identity *identity,
		     struct backing_device *device, mode_t type, struct node **node);

/*
 * The node of a point-in-time view that is over a node of the live tree, made if need be,
 * referenced. 0 or -ENOMEM.
 */
int node_of_view(struct nodes *nodes, struct node *base, struct backing_device *device,
		 struct node **node);

static inline bool node_is_of_view(const struct node *node)
{
	return node->id & NODE_OF_VIEW;
}

/* Takes off the link that is not counted (anchored). */
static inline void node_hide_link(const struct node *node, struct stat *st)
{
	/* (Some file systems do not count what is in a folder.) */
	if (node->anchored && st->st_nlink > (S_ISDIR(st->st_mode) ? 2U : 0U))
		st->st_nlink--;
}

/* The kernel looks the node up once more. */
void node_lookup(struct nodes *nodes, struct node *node);

/* The node of an identity, referenced, or NULL if it is not known. */
struct node *node_find(struct nodes *nodes, const struct identity *identity);

/* By number, referenced; NULL if there is none. */
struct node *node_get(struct nodes *nodes, uint64_t id);
struct node *node_ref(struct nodes *nodes, struct node *node);
void node_put(struct nodes *nodes, struct node *node);

/* Whether the kernel knows the node, at this moment. */
bool node_is_known(struct nodes *nodes, struct node *node);

/*
 * The kernel forgets count lookups. True when it knows the node no longer.
 */
bool node_forget(struct nodes *nodes, struct node *node, uint64_t count);

/* The node is called name in parent now. */
void node_rename(struct nodes *nodes, struct node *node, struct node *parent, const char *name);

/*
 * The name of the node in parent is gone; removed: it was the last one. descriptor is one of the
 * node, and is consumed: cached, or kept, because nothing else leads to the node any more. (One
 * that has other names is found again when one of them is looked up, as the kernel does when it
 * gets ESTALE. Who may have it open looks nothing up: its file is to be held, or to cling.)
 */
void node_unlink(struct nodes *nodes, struct node *node, struct node *parent, const char *name,
		 int descriptor, bool removed, bool keep);

/*
 * For the log: the path below BACKING by the names last known, to be freed; NO_PATH if they do not
 * lead there; NULL without memory.
 */
#define NO_PATH "(a file without a name)"
char *node_path(struct nodes *nodes, struct node *node);

/* The same below *top, the last one of the way up of which a name is known; it is referenced. */
char *node_path_from(struct nodes *nodes, struct node *node, struct node **top);

/* --- descriptor.c: a bounded cache of O_PATH descriptors -------------------------------------- */

/*
 * Pins an O_PATH descriptor of the node, which is found again by handle or by name if need be.
 * The descriptor, to be given back with node_descriptor_put(), or negative errno: -ESTALE: it is
 * not there any more; -ENFILE: no descriptor can be had.
 */
int node_descriptor(struct nodes *nodes, struct node *node);
void node_descriptor_put(struct nodes *nodes, struct node *node);

/* Gives the node a descriptor, which is consumed. keep: not to be closed before the node goes. */
void node_descriptor_give(struct nodes *nodes, struct node *node, int descriptor, bool keep);

/* The same, and pins whichever the node has then. */
int node_descriptor_give_pinned(struct nodes *nodes, struct node *node, int descriptor);

/* Whether the node's descriptor is kept, and so has its place in the room. */
bool node_descriptor_is_kept(struct nodes *nodes, struct node *node);

/* The same; it is no longer kept: something else leads to the node now. */
bool node_descriptor_unkeep(struct nodes *nodes, struct node *node);

/* Takes the descriptor, kept or not, from a node that nobody references: the caller's, or -1. */
int node_descriptor_take(struct nodes *nodes, struct node *node);

/* Closes up to count idle descriptors, because somebody ran out of them. Whether it closed any. */
bool node_descriptors_trim(struct nodes *nodes, unsigned int count);

#endif
