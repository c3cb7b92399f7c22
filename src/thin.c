/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What dropping a view of the middle makes free (snapshot.h). A state of the live tree that has an
 * older one, and no view between, is asked only for what the older one does not say: the rest of it
 * goes, item by item. Nothing is merged, and the newest states, in which changes of now are kept,
 * stay as they are.
 */
#include "snapshot.h"

#include "fs.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Whether no view lies between two states, and one after them. */
static bool is_between_none_locked(const struct view *view, const struct store_pair *pair)
{
	const uint64_t older = (uint64_t)pair->older_layer / 2, newer = (uint64_t)pair->layer / 2;
	const struct snapshot *snapshot;
	bool later = false;

	TAILQ_FOREACH (snapshot, &view->snapshots->all, all) {
		if (snapshot->state != SNAPSHOT_PENDING && snapshot->state != SNAPSHOT_WHOLE)
			continue;
		if (snapshot->epoch > older && snapshot->epoch <= newer)
			return false;
		later = later || snapshot->epoch > newer;
	}
	return later;
}

struct thinned {
	uint64_t number;
	struct store_chunk chunk;
};

struct thinning {
	struct thinned *chunk; /* all of the newer state */
	size_t count, room;
};

static int chunk_add(void *context, uint64_t number, const struct store_chunk *chunk)
{
	struct thinning *thinning = context;

	if (thinning->count == thinning->room) {
		size_t room = thinning->room ? 2 * thinning->room : 16;
		struct thinned *longer = realloc(thinning->chunk, room * sizeof(*longer));

		if (!longer)
			return -ENOMEM;
		thinning->chunk = longer;
		thinning->room = room;
	}
	thinning->chunk[thinning->count++] = (struct thinned){number, *chunk};
	return 0;
}

/* Takes the blocks from a chunk that the older state says. 1: there were some; 0, negative errno.
 */
static int chunk_thin(struct view *view, const struct object *older, struct thinned *thinned)
{
	struct store_chunk before = {.slots = {0}};
	const uint64_t end = older->cut < older->base_size ? older->cut : older->base_size;
	int error = store_chunk_get(view->store, older->id, thinned->number, &before), some = 0;

	for (unsigned int i = 0; i < STORE_CHUNK && error >= 0; i++) {
		const uint64_t at = (thinned->number * STORE_CHUNK + i) * STORE_BLOCK;
		const uint64_t slot = thinned->chunk.slots[i];

		if (slot == SLOT_BASE || (before.slots[i] == SLOT_BASE && at < end))
			continue;
		if (slot >= SLOT_FIRST)
			error = store_slots_give(view->store, slot, 1);
		thinned->chunk.slots[i] = SLOT_BASE;
		thinned->chunk.sums[i] = 0;
		some = 1;
	}
	return error < 0 ? error : some;
}

/* What is in memory of a state is as the store has it. Its node is locked. */
static void own_thin_locked(struct node *node, int64_t id, const struct thinning *thinning)
{
	struct own *own = node ? node->past : NULL;
	struct chunk *chunk;

	while (own && own->object.id != id)
		own = own->older;
	for (size_t at = 0; own && at < thinning->count; at++) {
		const struct thinned *thinned = &thinning->chunk[at];

		HASH_FIND(hh, own->chunks, &thinned->number, sizeof(thinned->number), chunk);
		if (!chunk)
			continue;
		for (int i = 0; i < STORE_CHUNK; i++) {
			own->block_count -= chunk->row.slots[i] >= SLOT_FIRST;
			own->block_count += thinned->chunk.slots[i] >= SLOT_FIRST;
		}
		chunk->row = thinned->chunk;
	}
}

static int pair_thin_locked(struct view *view, struct node *node, const struct store_pair *pair,
			    const struct object *older)
{
	struct thinning thinning = {.chunk = NULL};
	int some, error = store_chunks_each(view->store, pair->id, chunk_add, &thinning);

	if (!error)
		error = store_begin(view->store);
	if (error) {
		free(thinning.chunk);
		return error;
	}
	for (size_t at = 0; at < thinning.count && error >= 0; at++) {
		some = chunk_thin(view, older, &thinning.chunk[at]);
		error = some == 1
				? store_chunk_set(view->store, pair->id, thinning.chunk[at].number,
						  &thinning.chunk[at].chunk)
				: some;
	}
	if (!error)
		error = store_items_thin(view->store, pair->id, pair->older_id);
	error = view_end(view, error);
	if (!error)
		own_thin_locked(node, pair->id, &thinning);
	free(thinning.chunk);
	return error;
}

/* One pair, with its node locked as for a change. */
static int pair_thin(struct view *view, const struct store_pair *pair)
{
	struct node *node, *again;
	struct object newer = {.id = 0}, older = {.id = 0};
	struct change change;
	int found;

	pthread_mutex_lock(&view->lock);
	node = view_find(view, &pair->base);
	pthread_mutex_unlock(&view->lock);
	change_begin(view, &change, &node, 1);
	pthread_mutex_lock(&view->lock);
	again = view_find(view, &pair->base);
	found = again == node; /* else it came meanwhile: another time */
	if (found)
		found = store_object_get(view->store, pair->id, &newer);
	if (found == 1)
		found = store_object_get(view->store, pair->older_id, &older);
	if (found == 1 && is_between_none_locked(view, pair))
		found = pair_thin_locked(view, node, pair, &older);
	object_free(&newer);
	object_free(&older);
	pthread_mutex_unlock(&view->lock);
	change_end(&change);
	node_put(&view->fs->nodes, again);
	node_put(&view->fs->nodes, node);
	return found < 0 ? found : 0;
}

int snapshots_thin(struct view *view)
{
	struct store_pair pair = {.id = 0};
	int64_t last = 0;
	bool wanted;
	int found;

	do {
		pthread_mutex_lock(&view->lock);
		found = store_pair_next(view->store, &last, &pair);
		wanted = found == 1 && is_between_none_locked(view, &pair);
		pthread_mutex_unlock(&view->lock);
		if (wanted) {
			int error = pair_thin(view, &pair);

			found = error ? error : 1;
		}
	} while (found == 1 || (found == 0 && last != INT64_MAX));
	return found;
}
