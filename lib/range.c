/* SPDX-License-Identifier: Apache-2.0 */
/* Range sets: see range.h. A red-black tree, ordered by start. */
#include "range.h"

#include <stdlib.h>

static int range_compare(const struct range *a, const struct range *b)
{
	return a->start < b->start ? -1 : a->start > b->start;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
RB_GENERATE_INTERNAL(range_tree, range, node, range_compare, static)
#pragma GCC diagnostic pop

static struct range *range_new(struct range_set *set)
{
	if (!set->first_used) {
		set->first_used = true;
		return &set->first;
	}
	return malloc(sizeof(struct range));
}

static void range_free(struct range_set *set, struct range *range)
{
	if (range == &set->first)
		set->first_used = false;
	else
		free(range);
}

void range_set_init(struct range_set *set)
{
	RB_INIT(&set->tree);
	set->bytes = 0;
	set->count = 0;
	set->first_used = false;
}

void range_set_clear(struct range_set *set)
{
	struct range *range;

	while ((range = RB_ROOT(&set->tree))) {
		RB_REMOVE(range_tree, &set->tree, range);
		range_free(set, range);
	}
	set->bytes = 0;
	set->count = 0;
}

/* The first range with end >= position (touching counts) or, with strict, end > position. */
static struct range *range_find(const struct range_set *set, uint64_t position, bool strict)
{
	struct range *range = RB_ROOT(&set->tree), *found = NULL;

	while (range) {
		if (strict ? range->end > position : range->end >= position) {
			found = range;
			range = RB_LEFT(range, node);
		} else {
			range = RB_RIGHT(range, node);
		}
	}
	return found;
}

static void range_add(struct range_set *set, uint64_t start, uint64_t end, bool exactly)
{
	struct range *range, *next;

	if (start >= end)
		return;
	range = range_find(set, start, false);
	if (!range || range->start > end) {
		struct range *fresh = range_new(set);

		if (fresh) {
			*fresh = (struct range){.start = start, .end = end};
			RB_INSERT(range_tree, &set->tree, fresh);
			set->bytes += end - start;
			set->count++;
			return;
		}
		if (exactly)
			return;
		/* No memory: a neighbour takes the gap as well. The tree is not empty, since an
		 * empty set has its first range. */
		if (!range)
			range = RB_MAX(range_tree, &set->tree);
	}

	/* Stretch range over the new one, and swallow those that it now touches. */
	if (start < range->start) {
		set->bytes += range->start - start;
		range->start = start;
	}
	if (end > range->end) {
		set->bytes += end - range->end;
		range->end = end;
	}
	while ((next = RB_NEXT(range_tree, &set->tree, range)) && next->start <= range->end) {
		set->bytes -= next->end - next->start;
		if (next->end > range->end) {
			set->bytes += next->end - range->end;
			range->end = next->end;
		}
		RB_REMOVE(range_tree, &set->tree, next);
		range_free(set, next);
		set->count--;
	}
}

void range_set_add(struct range_set *set, uint64_t start, uint64_t end)
{
	range_add(set, start, end, false);
}

void range_set_add_exactly(struct range_set *set, uint64_t start, uint64_t end)
{
	range_add(set, start, end, true);
}

void range_set_remove(struct range_set *set, uint64_t start, uint64_t end)
{
	struct range *range, *next;

	if (start >= end)
		return;
	for (range = range_find(set, start, true); range && range->start < end; range = next) {
		next = RB_NEXT(range_tree, &set->tree, range);
		if (range->start < start && range->end > end) {
			struct range *tail = range_new(set);

			if (!tail)
				return; /* no memory for a second piece: it stays whole */
			*tail = (struct range){.start = end, .end = range->end};
			range->end = start;
			set->bytes -= end - start;
			RB_INSERT(range_tree, &set->tree, tail);
			set->count++;
			return;
		}
		if (range->start < start) {
			set->bytes -= range->end - start;
			range->end = start;
		} else if (range->end > end) {
			set->bytes -= end - range->start;
			range->start = end;
		} else {
			set->bytes -= range->end - range->start;
			RB_REMOVE(range_tree, &set->tree, range);
			range_free(set, range);
			set->count--;
		}
	}
}

bool range_set_contains(const struct range_set *set, uint64_t start, uint64_t end)
{
	const struct range *range = range_find(set, start, true);

	return range && range->start <= start && range->end >= end;
}

const struct range *range_set_next(const struct range_set *set, uint64_t position)
{
	return range_find(set, position, true);
}

void range_set_merge(struct range_set *target, const struct range_set *other)
{
	const struct range *range;

	for (range = range_set_next(other, 0); range; range = range_set_next(other, range->end))
		range_set_add(target, range->start, range->end);
}

void range_set_subtract(struct range_set *target, const struct range_set *other)
{
	const struct range *range;

	for (range = range_set_next(other, 0); range; range = range_set_next(other, range->end))
		range_set_remove(target, range->start, range->end);
}
