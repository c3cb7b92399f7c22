/* SPDX-License-Identifier: Apache-2.0 */
/* Point-in-time views (snapshot.h): which there are, and their life. */
#include "snapshot.h"

#include "fs.h"
#include "log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* --- The list --------------------------------------------------------------------------------- */

static struct snapshot *snapshot_new(struct view *view, const struct store_snap *row)
{
	struct snapshot *snapshot = calloc(1, sizeof(*snapshot)), *newest;

	if (snapshot && row->name)
		snapshot->name = strdup(row->name);
	if (!snapshot || !snapshot->name) {
		free(snapshot);
		return NULL;
	}
	snapshot->device.is_view = true;
	snapshot->device.mount = -1;
	snapshot->device.mount_id = NODE_OF_VIEW | row->epoch;
	snapshot->epoch = row->epoch;
	snapshot->instant = row->instant;
	snapshot->settled = row->settled;
	snapshot->read_only = row->read_only;
	snapshot->state = row->state;
	snapshot->on_disk = row->on_disk;
	snapshot->is_noted = true;
	newest = TAILQ_LAST(&view->snapshots->all, snapshot_list);
	if (newest)
		newest->newer = snapshot;
	TAILQ_INSERT_TAIL(&view->snapshots->all, snapshot, all);
	return snapshot;
}

static bool is_needed(const struct snapshot *snapshot)
{
	return snapshot->state == SNAPSHOT_PENDING || snapshot->state == SNAPSHOT_WHOLE;
}

/* After a state was changed. */
static void epochs_find_locked(struct snapshots *snapshots)
{
	const struct snapshot *snapshot;
	uint64_t newest = 0, oldest = 0;

	TAILQ_FOREACH (snapshot, &snapshots->all, all) {
		if (!is_needed(snapshot))
			continue;
		newest = snapshot->epoch;
		oldest = oldest ? oldest : snapshot->epoch;
	}
	snapshots->epoch = newest;
	/* What was before the next one is of no use if there is none. */
	snapshots->oldest = oldest ? oldest : snapshots->last + 1;
}

static int row_set(struct view *view, const struct snapshot *snapshot)
{
	const struct store_snap row = {
		.epoch = snapshot->epoch,
		.name = snapshot->name,
		.instant = snapshot->instant,
		.settled = snapshot->settled,
		.state = snapshot->state,
		.read_only = snapshot->read_only,
		.on_disk = snapshot->on_disk,
	};
	int error = store_begin(view->store);

	if (error)
		return error;
	error = view_end(view, store_snap_set(view->store, &row));
	/* Changes of which nothing is kept any more must not reach the disk before that. */
	if (!error && !is_needed(snapshot))
		error = store_sync_rows(view->store);
	return error ? error : view_changed(view, 0);
}

/* Sets a state here, and in the store. What cannot be noted there would be another one after a
 * remount: then no view is to be believed. */
static int state_set_locked(struct view *view, struct snapshot *snapshot, enum snapshot_state state)
{
	int error, distrusted;

	snapshot->state = state;
	error = row_set(view, snapshot);
	epochs_find_locked(view->snapshots);
	snapshot->is_noted = !error;
	if (error && !is_needed(snapshot)) {
		distrusted = store_distrust(view->store, true);
		if (distrusted)
			log_line(LOG_CRIT,
				 "store of the views: that %s is given up cannot be noted (%s); "
				 "remove the store before the next mount",
				 snapshot->name, strerror(-distrusted));
	}
	return error;
}

struct snapshot *snapshot_find_locked(struct view *view, const char *name)
{
	struct snapshot *snapshot;

	TAILQ_FOREACH (snapshot, &view->snapshots->all, all)
		if (snapshot->state != SNAPSHOT_DROPPED && snapshot->state != SNAPSHOT_PENDING &&
		    strcmp(snapshot->name, name) == 0)
			return snapshot;
	return NULL;
}

int snapshot_enter(struct snapshot *snapshot)
{
	int state;

	atomic_fetch_add(&snapshot->users, 1);
	state = snapshot->state;
	if (state == SNAPSHOT_WHOLE)
		return 0;
	atomic_fetch_sub(&snapshot->users, 1);
	return state == SNAPSHOT_GIVEN_UP ? -EIO : -ESTALE;
}

void snapshot_leave(struct snapshot *snapshot)
{
	atomic_fetch_sub(&snapshot->users, 1);
}

int snapshot_root(struct view *view, struct snapshot *snapshot, struct node **root)
{
	struct nodes *nodes = &view->fs->nodes;

	return node_of_view(nodes, nodes->root, &snapshot->device, root);
}

bool snapshot_hides(const struct view *view, const struct node *folder, const char *name)
{
	return view && view->snapshots && view->snapshots->hidden &&
	       folder == view->fs->nodes.root && strcmp(name, view->snapshots->hidden) == 0;
}

int snapshot_room_locked(struct view *view, const struct snapshot *snapshot, uint64_t *room)
{
	const int64_t from = (int64_t)(2 * snapshot->epoch);
	const struct snapshot *next = TAILQ_NEXT(snapshot, all);
	int64_t to = INT64_MAX;
	int error;

	/* What views had that were dropped since, and that this one needs. */
	while (next && !is_needed(next))
		next = TAILQ_NEXT(next, all);
	if (next)
		to = (int64_t)(2 * next->epoch) - 1;
	error = store_layers_room(view->store, from, to, room);

	return error ? error : anchors_room_locked(view, from, to, room);
}

/* --- Making and dropping ---------------------------------------------------------------------- */

static void wait_for_changes(struct snapshots *snapshots, unsigned int side)
{
	const struct timespec moment = {.tv_nsec = 20000};

	while (atomic_load(&snapshots->running[side]))
		nanosleep(&moment, NULL);
}

/* One that nobody was told of: the store may as well say that it is pending. */
static void unmake_locked(struct view *view, struct snapshot *snapshot)
{
	snapshot->state = SNAPSHOT_DROPPED;
	epochs_find_locked(view->snapshots);
	(void)!row_set(view, snapshot);
}

/* A time that no change of before has a later ctime than, as far as our clock and the store's file
 * system tell. */
static struct timespec settled_now(struct view *view)
{
	const struct timespec now[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_NOW}};
	const int heap = store_descriptor(view->store);
	struct timespec settled;
	struct stat st;

	clock_gettime(CLOCK_REALTIME, &settled);
	if (futimens(heap, now) == 0 && fstat(heap, &st) == 0 &&
	    view_is_later(&st.st_ctim, &settled))
		settled = st.st_ctim;
	return settled;
}

int snapshot_make(struct view *view, const char *name, bool read_only, struct snapshot **out)
{
	struct snapshots *snapshots = view->snapshots;
	struct snapshot *snapshot = NULL;
	struct store_snap row = {.name = name, .state = SNAPSHOT_PENDING, .read_only = read_only};
	uint64_t before = 0;
	int error;

	pthread_mutex_lock(&snapshots->making);
	pthread_mutex_lock(&view->lock);
	error = view_store_locked(view);
	if (!error && snapshot_find_locked(view, name))
		error = -EEXIST;
	if (!error) {
		row.epoch = ++snapshots->last;
		clock_gettime(CLOCK_REALTIME, &row.instant);
		snapshot = snapshot_new(view, &row);
		snapshots->fresh = UINT64_MAX;
		error = snapshot ? state_set_locked(view, snapshot, SNAPSHOT_PENDING) : -ENOMEM;
	}
	if (!error) /* (epoch and fresh are set: who sees the flip sees them) */
		before = atomic_fetch_add(&snapshots->flips, 1);
	else if (snapshot)
		unmake_locked(view, snapshot);
	pthread_mutex_unlock(&view->lock);
	if (!error) {
		wait_for_changes(snapshots, before & 1);
		error = files_move_times(&view->fs->files);
		pthread_mutex_lock(&view->lock);
		snapshot->settled = settled_now(view);
		snapshots->fresh = view_now_ns() + TICKS_NS;
		if (error)
			; /* it would seem to have been changed behind the mount */
		else if (snapshot->state != SNAPSHOT_PENDING) /* meanwhile it was given up */
			error = -ENOSPC;
		else
			error = state_set_locked(view, snapshot, SNAPSHOT_WHOLE);
		if (error)
			unmake_locked(view, snapshot);
		pthread_mutex_unlock(&view->lock);
	}
	pthread_mutex_unlock(&snapshots->making);
	snapshots_collect(view); /* it is brought to the disk, or removed */
	if (!error)
		*out = snapshot;
	else
		snapshots->fresh = 0;
	return error;
}

int snapshot_drop(struct view *view, const char *name)
{
	struct snapshot *snapshot;
	int before, error = -ENOENT;

	pthread_mutex_lock(&view->lock);
	snapshot = snapshot_find_locked(view, name);
	if (snapshot) {
		before = snapshot->state;
		snapshot->state = SNAPSHOT_DROPPED;
		error = row_set(view, snapshot);
		if (error)
			snapshot->state = before;
		epochs_find_locked(view->snapshots);
	}
	pthread_mutex_unlock(&view->lock);
	if (!error)
		snapshots_collect(view);
	return error;
}

int snapshot_rename(struct view *view, const char *name, const char *new_name)
{
	struct snapshot *snapshot;
	char *copy, *before;
	int error = 0;

	pthread_mutex_lock(&view->lock);
	snapshot = snapshot_find_locked(view, name);
	copy = strdup(new_name);
	if (!snapshot)
		error = -ENOENT;
	else if (strcmp(name, new_name) != 0 && snapshot_find_locked(view, new_name))
		error = -EEXIST;
	else if (!copy)
		error = -ENOMEM;
	if (!error) {
		before = snapshot->name;
		snapshot->name = copy;
		error = row_set(view, snapshot);
		copy = before;
		if (error) {
			copy = snapshot->name;
			snapshot->name = before;
		}
	}
	pthread_mutex_unlock(&view->lock);
	free(copy);
	return error;
}

/* Whether there is one from which on views are not on the disk; up to *last. */
static bool unsettled(struct view *view, uint64_t *last)
{
	const struct snapshot *snapshot;
	bool any = false;

	pthread_mutex_lock(&view->lock);
	*last = view->snapshots->last;
	TAILQ_FOREACH (snapshot, &view->snapshots->all, all)
		if (snapshot->state == SNAPSHOT_WHOLE && !snapshot->on_disk)
			any = true;
	pthread_mutex_unlock(&view->lock);
	return any;
}

int snapshots_settle(struct view *view)
{
	struct snapshots *snapshots = view->snapshots;
	struct snapshot *snapshot;
	uint64_t last;
	int fd, error = 0;

	pthread_mutex_lock(&snapshots->settling);
	if (!unsettled(view, &last)) {
		pthread_mutex_unlock(&snapshots->settling);
		return 0;
	}
	/* (Of what was closed nobody knows whether it is on the disk: so all is brought there.) */
	fd = openat(view->fs->backing.root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || syncfs(fd))
		error = -errno;
	if (fd >= 0)
		close(fd);
	if (!error)
		error = view_sync(view);
	pthread_mutex_lock(&view->lock);
	TAILQ_FOREACH (snapshot, &snapshots->all, all) {
		if (error || snapshot->on_disk || snapshot->state != SNAPSHOT_WHOLE ||
		    snapshot->epoch > last)
			continue;
		snapshot->on_disk = true;
		error = row_set(view, snapshot);
		if (error)
			snapshot->on_disk = false;
	}
	pthread_mutex_unlock(&view->lock);
	if (!error)
		error = view_sync(view);
	pthread_mutex_unlock(&snapshots->settling);
	if (error)
		log_line(LOG_ERR, "views: what they are of could not be brought to the disk: %s",
			 strerror(-error));
	return error;
}

/* --- Giving up -------------------------------------------------------------------------------- */

void snapshots_give_up(struct view *view, int error, const char *path)
{
	struct snapshots *snapshots = view->snapshots;
	struct snapshot *snapshot;
	const bool one = error == -ENOSPC || error == -EDQUOT;

	pthread_mutex_lock(&view->lock);
	TAILQ_FOREACH (snapshot, &snapshots->all, all) {
		if (!is_needed(snapshot))
			continue;
		log_line(LOG_ERR,
			 "view %s is given up: %s was to be changed, and what it was could not be "
			 "kept: %s",
			 snapshot->name, path ? path : "a file", strerror(-error));
		(void)!state_set_locked(view, snapshot, SNAPSHOT_GIVEN_UP);
		if (one)
			break;
	}
	pthread_mutex_unlock(&view->lock);
	if (one)
		snapshots_remove_unneeded(view);
	else
		snapshots_collect(view);
}

/* --- Collecting: what no view needs any more goes ----------------------------------------------
 */

/* How many objects go in one turn of the lock. */
#define TURN 64

/* Removes objects of layers; odd: of those of views, too. */
static int layers_remove(struct view *view, uint64_t from, uint64_t to, bool odd)
{
	int64_t id;
	int found = 1;

	anchors_release(view, (int64_t)from, (int64_t)to);
	while (found == 1) {
		pthread_mutex_lock(&view->lock);
		found = store_begin(view->store);
		for (int i = 0; i < TURN && !found; i++) {
			found = store_object_of_layers(view->store, (int64_t)from, (int64_t)to, odd,
						       &id);
			if (found != 1)
				break;
			anchor_remove_locked(view, id);
			found = store_object_remove(view->store, id);
		}
		if (found == 0)
			found = view_end(view, 0);
		else
			store_rollback(view->store);
		if (found == 0)
			found = store_object_of_layers(view->store, (int64_t)from, (int64_t)to, odd,
						       &id);
		pthread_mutex_unlock(&view->lock);
	}
	return found;
}

/* One whose own rows are yet to be removed. */
static struct snapshot *next_unneeded(struct view *view)
{
	struct snapshot *snapshot;

	pthread_mutex_lock(&view->lock);
	TAILQ_FOREACH (snapshot, &view->snapshots->all, all)
		if (!is_needed(snapshot) && !snapshot->own_is_gone)
			break;
	pthread_mutex_unlock(&view->lock);
	return snapshot;
}

/* Before anything of it is removed, the store knows that it is not needed. */
static int note_state(struct view *view, struct snapshot *snapshot)
{
	int error = 0;

	pthread_mutex_lock(&view->lock);
	if (!snapshot->is_noted)
		error = state_set_locked(view, snapshot, snapshot->state);
	pthread_mutex_unlock(&view->lock);
	return error;
}

void snapshots_remove_unneeded(struct view *view)
{
	const struct timespec moment = {.tv_nsec = 1000000};
	struct snapshots *snapshots = view->snapshots;
	struct snapshot *snapshot;
	uint64_t oldest;
	int error = 0;

	pthread_mutex_lock(&snapshots->collecting);
	while (!error && (snapshot = next_unneeded(view))) {
		if (snapshot->epoch > snapshots->thin_from)
			snapshots->thin_from = snapshot->epoch;
		error = note_state(view, snapshot);
		if (error)
			break;
		while (snapshot->users) /* they end soon, and there come no new ones */
			nanosleep(&moment, NULL);
		error = layers_remove(view, 2 * snapshot->epoch + 1, 2 * snapshot->epoch + 1, true);
		snapshot->own_is_gone = true;
	}
	oldest = snapshots->oldest;
	if (!error)
		error = layers_remove(view, 1, 2 * oldest - 1, false);
	/* (In its states, and older ones, nothing is kept any more when there is a younger one.) */
	if (!error && snapshots->thin_from && snapshots->epoch > snapshots->thin_from) {
		error = snapshots_thin(view);
		snapshots->thin_from = 0;
	}
	if (!error)
		error = view_sync(view);
	pthread_mutex_lock(&view->lock);
	TAILQ_FOREACH (snapshot, &snapshots->all, all) {
		if (error || snapshot->is_gone || is_needed(snapshot) || snapshot->epoch >= oldest)
			continue;
		snapshot->is_gone = true;
		if (snapshot->state == SNAPSHOT_DROPPED && store_begin(view->store) == 0)
			(void)!view_end(view, store_snap_remove(view->store, snapshot->epoch));
	}
	pthread_mutex_unlock(&view->lock);
	pthread_mutex_unlock(&snapshots->collecting);
	if (error)
		log_line(LOG_ERR, "views: what is not needed any more could not be removed: %s",
			 strerror(-error));
}

static void *collect(void *argument)
{
	struct view *view = argument;
	struct snapshots *snapshots = view->snapshots;

	pthread_mutex_lock(&view->lock);
	while (!snapshots->stop) {
		if (!snapshots->collect) {
			pthread_cond_wait(&snapshots->wanted, &view->lock);
			continue;
		}
		snapshots->collect = false;
		pthread_mutex_unlock(&view->lock);
		(void)!snapshots_settle(view); /* it says what has failed */
		snapshots_remove_unneeded(view);
		pthread_mutex_lock(&view->lock);
	}
	pthread_mutex_unlock(&view->lock);
	return NULL;
}

void snapshots_collect(struct view *view)
{
	pthread_mutex_lock(&view->lock);
	view->snapshots->collect = true;
	pthread_cond_signal(&view->snapshots->wanted);
	pthread_mutex_unlock(&view->lock);
}

/* --- Changes of the live tree ----------------------------------------------------------------- */

static unsigned int lock_of(const struct node *node)
{
	return (unsigned int)((uintptr_t)node / 64 * UINT64_C(0x9e3779b97f4a7c15) >> 54) %
	       CHANGE_LOCKS;
}

void change_begin(struct view *view, struct change *change, struct node *const *nodes,
		  unsigned int count)
{
	struct snapshots *snapshots = view->snapshots;
	uint64_t flips;

	change->view = view;
	change->count = 0;
	change->durable = 0;
	for (unsigned int i = 0; i < count; i++) {
		unsigned int lock, at = 0;

		if (!nodes[i])
			continue;
		lock = lock_of(nodes[i]);
		while (at < change->count && change->lock[at] < lock)
			at++;
		if (at < change->count && change->lock[at] == lock)
			continue;
		for (unsigned int to = change->count++; to > at; to--)
			change->lock[to] = change->lock[to - 1];
		change->lock[at] = lock;
	}
	for (unsigned int i = 0; i < change->count; i++)
		pthread_rwlock_wrlock(&snapshots->locks[change->lock[i]]);
	for (;;) {
		flips = snapshots->flips;
		change->side = flips & 1;
		atomic_fetch_add(&snapshots->running[change->side], 1);
		if (snapshots->flips == flips)
			break;
		atomic_fetch_sub(&snapshots->running[change->side], 1);
	}
	change->epoch = snapshots->epoch;
}

void change_end(struct change *change)
{
	struct snapshots *snapshots = change->view->snapshots;

	atomic_fetch_sub(&snapshots->running[change->side], 1);
	for (unsigned int i = change->count; i > 0; i--)
		pthread_rwlock_unlock(&snapshots->locks[change->lock[i - 1]]);
}

void snapshot_hold(struct view *view, const struct node *base)
{
	pthread_rwlock_rdlock(&view->snapshots->locks[lock_of(base)]);
}

void snapshot_release(struct view *view, const struct node *base)
{
	pthread_rwlock_unlock(&view->snapshots->locks[lock_of(base)]);
}

/* --- Life ------------------------------------------------------------------------------------- */

static int row_load(void *context, const struct store_snap *row)
{
	struct view *view = context;
	struct snapshot *snapshot = snapshot_new(view, row);

	if (!snapshot)
		return -ENOMEM;
	if (snapshot->state == SNAPSHOT_PENDING) /* nobody was told of it */
		snapshot->state = SNAPSHOT_DROPPED;
	if (row->epoch > view->snapshots->last)
		view->snapshots->last = row->epoch;
	return 0;
}

int snapshots_new(struct view *view, const char *hidden)
{
	struct snapshots *snapshots = calloc(1, sizeof(*snapshots));
	pthread_rwlockattr_t attributes;

	if (!snapshots || (hidden && !(snapshots->hidden = strdup(hidden)))) {
		free(snapshots);
		return -ENOMEM;
	}
	TAILQ_INIT(&snapshots->all);
	snapshots->oldest = 1;
	snapshots->anchors = -1;
	pthread_mutex_init(&snapshots->making, NULL);
	pthread_mutex_init(&snapshots->collecting, NULL);
	pthread_mutex_init(&snapshots->syncing, NULL);
	pthread_mutex_init(&snapshots->settling, NULL);
	pthread_cond_init(&snapshots->wanted, NULL);
	/* Readers come all the time; else no change would have its turn. */
	pthread_rwlockattr_init(&attributes);
	pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	for (int i = 0; i < CHANGE_LOCKS; i++)
		pthread_rwlock_init(&snapshots->locks[i], &attributes);
	pthread_rwlockattr_destroy(&attributes);
	view->snapshots = snapshots;
	return 0;
}

int snapshots_load_locked(struct view *view, bool crashed)
{
	struct snapshots *snapshots = view->snapshots;
	struct snapshot *snapshot;
	int error = store_snaps_each(view->store, row_load, view);
	const int distrusted = error ? error : store_is_distrusted(view->store);

	if (distrusted < 0)
		return distrusted;
	/* What was being changed just then may be on the disk, and not what it was. */
	error = store_hot_end(view->store, crashed);
	if (error)
		return error;
	TAILQ_FOREACH (snapshot, &snapshots->all, all) {
		const bool is_lost = crashed && !snapshot->on_disk;

		if ((!distrusted && !is_lost) || snapshot->state != SNAPSHOT_WHOLE)
			continue;
		log_line(LOG_ERR, "view %s is given up: %s", snapshot->name,
			 is_lost ? "the system ended before what it is of was on the disk"
				 : "there was no room to note which were given up");
		error = state_set_locked(view, snapshot, SNAPSHOT_GIVEN_UP);
		if (error)
			return error;
	}
	if (distrusted && (error = store_distrust(view->store, false)))
		return error;
	error = past_moved_locked(view);
	if (error)
		return error;
	epochs_find_locked(snapshots);
	snapshots->collect = !TAILQ_EMPTY(&snapshots->all);
	error = pthread_create(&snapshots->collector, NULL, collect, view);
	snapshots->has_collector = !error;
	return -error;
}

void snapshots_stop(struct view *view)
{
	struct snapshots *snapshots = view->snapshots;

	if (!snapshots || !snapshots->has_collector)
		return;
	pthread_mutex_lock(&view->lock);
	snapshots->stop = true;
	pthread_cond_signal(&snapshots->wanted);
	pthread_mutex_unlock(&view->lock);
	pthread_join(snapshots->collector, NULL);
	snapshots->has_collector = false;
}

void snapshots_free(struct view *view)
{
	struct snapshots *snapshots = view->snapshots;
	struct snapshot *snapshot;

	if (!snapshots)
		return;
	while ((snapshot = TAILQ_FIRST(&snapshots->all))) {
		TAILQ_REMOVE(&snapshots->all, snapshot, all);
		free(snapshot->name);
		free(snapshot);
	}
	for (int i = 0; i < CHANGE_LOCKS; i++)
		pthread_rwlock_destroy(&snapshots->locks[i]);
	pthread_cond_destroy(&snapshots->wanted);
	pthread_mutex_destroy(&snapshots->making);
	pthread_mutex_destroy(&snapshots->collecting);
	pthread_mutex_destroy(&snapshots->syncing);
	pthread_mutex_destroy(&snapshots->settling);
	hot_free(snapshots);
	if (snapshots->anchors >= 0)
		close(snapshots->anchors);
	node_put(&view->fs->nodes, snapshots->anchors_node);
	free(snapshots->hidden);
	free(snapshots);
	view->snapshots = NULL;
}
