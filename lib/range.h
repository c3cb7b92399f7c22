/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set of byte ranges: sorted, disjoint, ranges that touch are one. Knows nothing of files.
 * The caller locks. Adding never fails: where memory runs out, the nearest range is stretched, so
 * that the set may hold too much and never too little.
 */
#ifndef RANGE_H
#define RANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <bsd/sys/tree.h>

struct range {
	RB_ENTRY(range) node;
	uint64_t start;
	uint64_t end; /* > start */
};

RB_HEAD(range_tree, range);

struct range_set {
	struct range_tree tree;
	uint64_t bytes;	    /* sum of the lengths */
	size_t count;	    /* of ranges */
	struct range first; /* in place of an allocation, so that an empty set can always grow */
	bool first_used;
};

void range_set_init(struct range_set *set);

/* Leaves the set empty. */
void range_set_clear(struct range_set *set);

void range_set_add(struct range_set *set, uint64_t start, uint64_t end);

/* The same for a set that may hold too little, and never too much: without memory nothing is added.
 */
void range_set_add_exactly(struct range_set *set, uint64_t start, uint64_t end);
void range_set_remove(struct range_set *set, uint64_t start, uint64_t end);
bool range_set_contains(const struct range_set *set, uint64_t start, uint64_t end);

/* The first range that ends after position, or NULL. Valid until the set changes. */
const struct range *range_set_next(const struct range_set *set, uint64_t position);

static inline bool range_set_empty(const struct range_set *set)
{
	return set->bytes == 0;
}

/* Adds to target all that is in other. */
void range_set_merge(struct range_set *target, const struct range_set *other);

/* Removes from target all that is in other. */
void range_set_subtract(struct range_set *target, const struct range_set *other);

#endif
