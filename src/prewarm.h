/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prewarming: one thread that brings files into memory, those that were opened or the whole tree.
 * Knows backing files, no nodes and no requests.
 */
#ifndef PREWARM_H
#define PREWARM_H

#include "backing.h"

#include <stdint.h>

struct prewarmer;

struct prewarm_options {
	bool tree;	   /* all files below BACKING, at once */
	const char *match; /* NULL: all */
	uint64_t limit;	   /* bytes: of all files (tree), or of each */
};

/* Starts the thread, which does nothing yet. options->match must stay. 0 or negative errno. */
int prewarmer_new(struct prewarmer **out, struct backing *backing,
		  const struct prewarm_options *options);

/* The mount serves: the thread begins. */
void prewarmer_begin(struct prewarmer *prewarmer);

/* Stops what is under way, and the thread. NULL is fine. */
void prewarmer_free(struct prewarmer *prewarmer);

/*
 * A file of this path (as node_path() gives it) was opened: warms it in the background, if it is
 * one of those to be warmed. Forgotten without memory, or if too many wait.
 */
void prewarmer_add(struct prewarmer *prewarmer, const char *path);

#endif
