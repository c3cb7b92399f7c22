/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What others do to files in BACKING, and telling the kernel, which caches pages and attributes.
 * Owns the watch on backing files (fanotify(7), which knows our own changes from those of others),
 * and the thread that makes the kernel drop pages: that waits for requests which are being served,
 * so whoever serves one must not do it (fuse_reverse_inval_inode()). Knows nodes, no requests and
 * no files.
 *
 * A node is stale from the moment that a change is noticed until the kernel has dropped its pages.
 * Until then nobody may be told of its size: behind the end that the kernel knows, the last page
 * that it has is zero. So answers with attributes of a stale node are handed over, and sent
 * afterwards.
 */
#ifndef WATCH_H
#define WATCH_H

#include "fuse.h"
#include "node.h"

struct watch;

/* Part of what the caller allocates. */
struct answer {
	void (*send)(struct answer *answer); /* sends it, and frees it */
	STAILQ_ENTRY(answer) next;
};

/* Starts the thread, which does nothing yet. 0 or negative errno. */
int watch_new(struct watch **out, struct nodes *nodes);

/* Where a file's last byte is asked for, and its offset. False: it has none, or is not open. */
struct watch_source {
	bool (*last_byte)(void *context, struct node *node, uint64_t *offset, char *byte);
	void *context;
};

/* The mount serves: the thread begins. session must stay until watch_is_over(). */
void watch_begin(struct watch *watch, struct fuse_session *session,
		 const struct watch_source *source);

/*
 * Ends the thread: what it is in the middle of may need more requests to be served, until
 * watch_is_over(). Answers that wait are sent.
 */
void watch_end(struct watch *watch);
bool watch_is_over(struct watch *watch);
void watch_free(struct watch *watch);

/* Watches the file of a descriptor from now on, or not any more. Where that cannot be, changes by
 * others are found when attributes are asked for. */
void watch_add(struct watch *watch, int descriptor);
void watch_remove(struct watch *watch, int descriptor);

/* Others have changed the node's file, and perhaps made it shorter: it is stale. */
void watch_changed(struct watch *watch, struct node *node, bool shorter);

static inline bool watch_is_stale(const struct node *node)
{
	return node->is_stale;
}

/*
 * Whether the kernel may take the file for longer than it is: until a read that came to the end has
 * been answered while it was not stale. (It takes a new end from an answer only if it has not been
 * told of a change since it asked: fuse_change_attributes(), fuse_read_update_size(). Of reads that
 * is known: their pages keep the watch waiting.)
 */
static inline bool watch_is_shorter(const struct node *node)
{
	return node->is_shorter;
}

static inline void watch_told_end(struct node *node)
{
	if (node->is_shorter && !node->is_stale)
		node->is_shorter = false;
}

/* Sends the answer when the node is no longer stale: at once, if it is not, or later. */
void watch_answer(struct watch *watch, struct node *node, struct answer *answer);

#endif
