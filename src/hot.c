/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of the live tree is being kept for its views at this moment (snapshot.h). When the system
 * ends, the live tree may have reached the disk changed, and what was kept of it may have not; then
 * the next mount knows by the rows of what is hot which items it cannot know. So such a row is on
 * the disk before the first change of its item; those of items that are not changed any more go a
 * checkpoint later. What was committed to the log of the rows before something else is on the disk
 * before it, so a row is taken back without waiting for anything.
 *
 * There need be no waiting where the state of the object itself comes with the row and the change
 * moves ctime in one go with what it changes, as that of names and attributes does: either both
 * are there, or ctime tells (view_check_base()). But not of what is changed in the same tick of the
 * clock in which the view was made.
 */
#include "snapshot.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

struct hot {
	struct hot_key {
		int64_t object, item;
	} key;
	uint64_t written; /* which log_written it came with */
	bool with_state;  /* in one transaction with its object's state */
	bool touched;	  /* since the last checkpoint */
	UT_hash_handle hh;
};

static bool is_fresh(const struct snapshots *snapshots)
{
	return snapshots->fresh && snapshots->fresh > view_now_ns();
}

void hot_state_added(struct change *change)
{
	struct snapshots *snapshots = change->view->snapshots;

	if (is_fresh(snapshots))
		change->durable = snapshots->log_written;
}

static struct hot *find(struct snapshots *snapshots, int64_t object, int64_t item)
{
	struct hot_key key = {object, item};
	struct hot *hot;

	HASH_FIND(hh, snapshots->hot, &key, sizeof(key), hot);
	return hot;
}

static void forget(struct snapshots *snapshots, struct hot *hot)
{
	HASH_DEL(snapshots->hot, hot);
	free(hot);
}

int hot_add_locked(struct view *view, int64_t object, int64_t item, bool with_state)
{
	struct snapshots *snapshots = view->snapshots;
	struct hot *hot = calloc(1, sizeof(*hot));

	if (!hot)
		return -ENOMEM;
	hot->key = (struct hot_key){object, item};
	hot->written = snapshots->log_written + 1;
	hot->with_state = with_state;
	hot->touched = true;
	HASH_ADD(hh, snapshots->hot, key, sizeof(hot->key), hot);
	if (!hot->hh.tbl) {
		free(hot);
		return -ENOMEM;
	}
	return store_hot_add(view->store, object, item);
}

int hot_end_locked(struct view *view, int64_t object, int error)
{
	struct snapshots *snapshots = view->snapshots;
	struct hot *hot, *next;

	if (!error) {
		atomic_fetch_add(&snapshots->log_written, 1);
		return 0;
	}
	HASH_ITER (hh, snapshots->hot, hot, next)
		if (hot->key.object == object && hot->written > snapshots->log_written)
			forget(snapshots, hot);
	return error;
}

int hot_mark_locked(struct change *change, int64_t object, int64_t item, bool at_once)
{
	struct view *view = change->view;
	struct hot *hot = find(view->snapshots, object, item);
	int error;

	if (!hot) {
		error = store_begin(view->store);
		if (error)
			return error;
		error = hot_add_locked(view, object, item, false);
		error = hot_end_locked(view, object, view_end(view, error));
		if (error)
			return error;
		hot = find(view->snapshots, object, item);
	}
	hot->touched = true;
	if ((at_once || !hot->with_state || is_fresh(view->snapshots)) &&
	    hot->written > change->durable)
		change->durable = hot->written;
	return 0;
}

int hot_wait(struct view *view, uint64_t written)
{
	struct snapshots *snapshots = view->snapshots;
	uint64_t upto;
	int error = 0;

	if (snapshots->log_synced >= written)
		return 0;
	/* Who waits for his turn finds that it was done meanwhile, for all that wait. */
	pthread_mutex_lock(&snapshots->syncing);
	upto = snapshots->log_written;
	if (snapshots->log_synced < written) {
		error = store_sync_rows(view->store);
		if (!error)
			snapshots->log_synced = upto;
	}
	pthread_mutex_unlock(&snapshots->syncing);
	return error;
}

bool hot_cool_locked(struct view *view)
{
	struct snapshots *snapshots = view->snapshots;
	struct hot *hot, *next;
	int error;

	if (!snapshots->hot)
		return false;
	error = store_begin(view->store);
	HASH_ITER (hh, snapshots->hot, hot, next)
		if (!error && !hot->touched)
			error = store_hot_remove(view->store, hot->key.object, hot->key.item);
	error = view_end(view, error);
	HASH_ITER (hh, snapshots->hot, hot, next) {
		if (!error && !hot->touched)
			forget(snapshots, hot);
		else
			hot->touched = false;
	}
	return snapshots->hot;
}

void hot_free(struct snapshots *snapshots)
{
	struct hot *hot, *next;

	HASH_ITER (hh, snapshots->hot, hot, next)
		forget(snapshots, hot);
}
