/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Folders that got or lost names, and bringing them to the disk as the flush policy says. (Files
 * are libmmapio's, whose flushers the backing has.)
 */
#ifndef FLUSHER_H
#define FLUSHER_H

#include "node.h"

struct flusher;

/* 0 or negative errno. A thread is started only if the policy has a delay. */
int flusher_new(struct flusher **out, struct nodes *nodes, const struct mmapio_policy *policy);

/* A name was made or removed in the folder. 0, or the error of a sync that the policy asked for. */
int flusher_names_changed(struct flusher *flusher, struct node *folder);

/*
 * Syncs the folder now; descriptor: one that was opened for it, or -1. An error stays until its
 * names have changed again and been synced.
 */
int flusher_sync_folder(struct flusher *flusher, struct node *folder, int descriptor);

/* The folder has been removed: it has no names left to lose. It is marked so (node.h), and
 * the caller has a reference of it. */
void flusher_folder_removed(struct flusher *flusher, struct node *folder);

/* Syncs all that have changed, and stops. 0, or the first error. NULL is fine. */
int flusher_free(struct flusher *flusher);

#endif
