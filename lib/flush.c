/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is dirty, and bringing it to the disk.
 *
 * A byte's way: dirty -> in flight -> clean, or in doubt (failed) where the sync failed. Bytes
 * written while a sync is under way are dirty for the next one. A failed sync puts all in doubt
 * that was dirty, for which range it may ever have been called. Bytes in doubt stay so until they
 * have been written anew and then been in flight in a sync that succeeded: syncing alone would
 * prove nothing, for the kernel may have marked the pages as clean.
 *
 * One sync at a time (sync_lock), because the descriptor reports an error to one of several only.
 */
#include "file.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define TIMES_DELAY_NS UINT64_C(1000000000)

static bool time_before(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

static bool is_seen_locked(const struct mmapio_file *file, const struct stat *st)
{
	return file->seen_size == (uint64_t)st->st_size &&
	       file->seen_mtime.tv_sec == st->st_mtim.tv_sec &&
	       file->seen_mtime.tv_nsec == st->st_mtim.tv_nsec;
}

static void seen_locked(struct mmapio_file *file, const struct stat *st)
{
	file->seen_mtime = st->st_mtim;
	file->seen_size = (uint64_t)st->st_size;
}

/* We are about to change mtime, or the file: what others did until now is theirs. */
static void others_look_locked(struct mmapio_file *file, const struct stat *st)
{
	if (!file->changing && !is_seen_locked(file, st))
		file->changed = true;
}

/* A change of ours is over. */
static void changing_end_locked(struct mmapio_file *file)
{
	struct stat st;

	watch_hear_locked(file, false);
	if (--file->changing == 0 && file->exclusive)
		pthread_cond_broadcast(&file->exclusive_turn);
	if (fstat(file->fd, &st) == 0)
		seen_locked(file, &st);
}

/* Whether that is done, or will never be possible: else the next one who asks tries again. */
static bool times_move_locked(struct mmapio_file *file)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, file->store_time}, now;
	struct stat st;
	bool future;

	if (fstat(file->fd, &st))
		return false;
	others_look_locked(file, &st);
	clock_gettime(CLOCK_REALTIME, &now);
	future = time_before(&now, &st.st_mtim); /* as somebody set it; a write takes it back */
	/* The kernel moved mtime itself if the store was the first to a clean page. If mtime is
	 * still what was seen before the store, it did not. */
	if (!future && time_before(&file->times_left, &st.st_mtim) &&
	    !time_before(&st.st_mtim, &file->store_time)) {
		file->times_left = st.st_mtim;
		return true;
	}
	if (!future && !time_before(&st.st_mtim, &times[1])) {
		times[1] = st.st_mtim;
		if (++times[1].tv_nsec == 1000000000) {
			times[1].tv_nsec = 0;
			times[1].tv_sec++;
		}
	}
	if (futimens(file->fd, times)) {
		if (errno != EPERM)
			return false;
		/* It is another's by now, who alone may set one time; whoever may write may set
		 * both to the present (utimensat(2)). From now on pwrite(2) moves them. */
		times[0].tv_nsec = times[1].tv_nsec = UTIME_NOW;
		(void)!futimens(file->fd, times);
		atomic_store(&file->no_stores, true);
	}
	if (fstat(file->fd, &st) == 0) {
		file->times_left = st.st_mtim;
		seen_locked(file, &st);
	}
	return true;
}

void flush_times(struct mmapio_file *file)
{
	pthread_mutex_lock(&file->dirty_lock);
	if (file->times_stale) {
		file->times_due = 0;
		watch_hear_locked(file, false);
		file->times_stale = !times_move_locked(file);
		watch_hear_locked(file, true);
	}
	pthread_mutex_unlock(&file->dirty_lock);
}

void flush_times_seen(struct mmapio_file *file, const struct stat *st)
{
	pthread_mutex_lock(&file->dirty_lock);
	if (!file->times_stale)
		file->times_left = st->st_mtim;
	pthread_mutex_unlock(&file->dirty_lock);
}

int flush_set_times(struct mmapio_file *file, const struct timespec times[2])
{
	struct stat st;
	int error = 0;

	pthread_mutex_lock(&file->dirty_lock);
	if (fstat(file->fd, &st) == 0)
		others_look_locked(file, &st);
	watch_hear_locked(file, false);
	if (futimens(file->fd, times))
		error = -errno;
	watch_hear_locked(file, true);
	if (!error && times[1].tv_nsec != UTIME_OMIT) {
		file->times_stale = false;
		file->times_due = 0;
		file->times_left = (struct timespec){0};
	}
	if (!error && fstat(file->fd, &st) == 0)
		seen_locked(file, &st);
	pthread_mutex_unlock(&file->dirty_lock);
	return error;
}

bool flush_others(struct mmapio_file *file, struct stat *st)
{
	bool changed;

	pthread_mutex_lock(&file->dirty_lock);
	/* What was asked without the lock may be older than what we have done since. */
	if (!file->changing && !is_seen_locked(file, st) && fstat(file->fd, st) == 0 &&
	    !is_seen_locked(file, st)) {
		seen_locked(file, st);
		file->changed = true;
	}
	changed = file->changed;
	file->changed = false;
	pthread_mutex_unlock(&file->dirty_lock);
	return changed;
}

/* When the file is next due for the flusher; 0: never. */
static uint64_t next_due_locked(const struct mmapio_file *file)
{
	if (!file->flush_due || !file->times_due)
		return file->flush_due | file->times_due;
	return file->flush_due < file->times_due ? file->flush_due : file->times_due;
}

/*
 * Takes a file for which nothing is due out of the flusher's queue, so that it can be closed at
 * once. Under dirty_lock, so that no deadline can be set in between. Whether it was queued: the
 * caller gives the queue's reference back.
 */
static bool cancel_locked(struct mmapio_file *file)
{
	return file->flusher && next_due_locked(file) == 0 && flusher_cancel(file->flusher, file);
}

uint64_t flush_failures(struct mmapio_file *file)
{
	return atomic_load(&file->failures);
}

static uint64_t begin(struct mmapio_file *file, bool exclusive)
{
	uint64_t failures;

	pthread_mutex_lock(&file->dirty_lock);
	while (file->exclusive)
		pthread_cond_wait(&file->exclusive_turn, &file->dirty_lock);
	file->exclusive = exclusive;
	while (exclusive && file->changing)
		pthread_cond_wait(&file->exclusive_turn, &file->dirty_lock);
	watch_hear_locked(file, false);
	file->changing++;
	failures = atomic_load(&file->failures);
	pthread_mutex_unlock(&file->dirty_lock);
	return failures;
}

uint64_t flush_begin(struct mmapio_file *file)
{
	return begin(file, false);
}

void flush_end(struct mmapio_file *file)
{
	pthread_mutex_lock(&file->dirty_lock);
	changing_end_locked(file);
	pthread_mutex_unlock(&file->dirty_lock);
}

uint64_t flush_begin_exclusive(struct mmapio_file *file)
{
	return begin(file, true);
}

void flush_exclusive_end(struct mmapio_file *file)
{
	pthread_mutex_lock(&file->dirty_lock);
	file->exclusive = false;
	pthread_cond_broadcast(&file->exclusive_turn);
	pthread_mutex_unlock(&file->dirty_lock);
}

void flush_pause(struct mmapio_file *file)
{
	flush_end(file);
}

void flush_resume(struct mmapio_file *file)
{
	pthread_mutex_lock(&file->dirty_lock);
	watch_hear_locked(file, false);
	file->changing++;
	pthread_mutex_unlock(&file->dirty_lock);
}

/* Whether any bytes, or the inode, are in doubt. */
static bool in_doubt_locked(const struct mmapio_file *file)
{
	return file->inode_failed || !range_set_empty(&file->failed);
}

int flush_commit(struct mmapio_file *file, uint64_t start, uint64_t end, bool stored,
		 uint64_t failures)
{
	const struct mmapio_policy *policy = &file->policy;
	uint64_t due = 0;
	bool full;

	pthread_mutex_lock(&file->dirty_lock);
	changing_end_locked(file);
	watch_note_locked(file, start, end);
	if (start == end)
		file->inode_dirty = true;
	range_set_add(&file->dirty, start, end);
	if (failures == atomic_load(&file->failures)) {
		if (!range_set_empty(&file->failed))
			range_set_add_exactly(&file->anew, start, end);
		file->inode_anew = file->inode_failed;
	} else {
		/* Written before, or while, a sync failed, which took no notice of it. */
		range_set_add(&file->failed, start, end);
		file->inode_failed |= start == end;
		file->failed_error = file->last_error;
	}
	file->writes++;
	full = policy->always || (policy->bytes && file->dirty.bytes >= policy->bytes) ||
	       (policy->writes && file->writes >= policy->writes);
	if (stored) {
		file->times_stale = true;
		clock_gettime(CLOCK_REALTIME_COARSE, &file->store_time);
		if (file->flusher && !file->times_due)
			due = file->times_due = monotonic_ns() + TIMES_DELAY_NS;
	}
	if (policy->delay_ns && !file->flush_due && !full)
		due = file->flush_due = monotonic_ns() + policy->delay_ns;
	if (due)
		due = next_due_locked(file);
	pthread_mutex_unlock(&file->dirty_lock);

	if (due)
		flusher_schedule(file->flusher, file, due);
	return full ? mmapio_flush(file) : 0;
}

void flush_truncated(struct mmapio_file *file, uint64_t size)
{
	pthread_mutex_lock(&file->dirty_lock);
	range_set_remove(&file->dirty, size, UINT64_MAX);
	range_set_remove(&file->failed, size, UINT64_MAX);
	range_set_remove(&file->anew, size, UINT64_MAX);
	range_set_remove(&file->allocated, size, UINT64_MAX);
	range_set_remove(&file->changes, size, UINT64_MAX);
	if (!in_doubt_locked(file))
		file->failed_error = 0;
	/* What is read-only is nobody's to sync. */
	if (atomic_load(&file->mode) == MMAPIO_READ_WRITE)
		file->inode_dirty = true;
	pthread_mutex_unlock(&file->dirty_lock);
}

bool mmapio_is_dirty(struct mmapio_file *file)
{
	bool dirty;

	pthread_mutex_lock(&file->dirty_lock);
	dirty = file->inode_dirty || !range_set_empty(&file->dirty) || file->syncing;
	pthread_mutex_unlock(&file->dirty_lock);
	return dirty;
}

/* Tells the user of each range that a sync left in doubt. No lock is held. */
static void report_error(struct mmapio_file *file, const struct range_set *doubt, int error)
{
	const struct range *range;

	if (!file->on_error)
		return;
	if (range_set_empty(doubt))
		file->on_error(file->context, 0, 0, error);
	for (range = range_set_next(doubt, 0); range; range = range_set_next(doubt, range->end))
		file->on_error(file->context, range->start, range->end - range->start, error);
}

/* Moves to target what of source lies in [start, end); exactly: what there is no memory for is
 * lost. */
static void range_set_take(struct range_set *target, struct range_set *source, uint64_t start,
			   uint64_t end, bool exactly)
{
	const struct range *range;

	while ((range = range_set_next(source, start)) && range->start < end) {
		uint64_t from = range->start > start ? range->start : start;
		uint64_t to = range->end < end ? range->end : end;

		if (exactly)
			range_set_add_exactly(target, from, to);
		else
			range_set_add(target, from, to);
		range_set_remove(source, from, to);
		start = to;
	}
}

enum sync_call {
	SYNC_RANGE,    /* msync of the pages of a range */
	SYNC_DATA,     /* fdatasync */
	SYNC_METADATA, /* fsync */
};

/* The system call. Positive errno or 0. sync_lock is held. */
static int sync_call(struct mmapio_file *file, uint64_t start, uint64_t end, enum sync_call call)
{
	struct mmapio_slice slice;
	int result;

	/* Where it cannot be mapped, or is shorter now, the whole file. */
	if (call == SYNC_RANGE && end - start <= SIZE_MAX &&
	    mmapio_slice_get(file, start, (size_t)(end - start), &slice) == 0) {
		result = msync((void *)slice.data, slice.length, MS_SYNC) ? errno : 0;
		mmapio_slice_put(&slice);
		return result;
	}
	result = call == SYNC_METADATA ? fsync(file->fd) : fdatasync(file->fd);
	return result ? errno : 0;
}

/* What a sync is about: taken from the file under dirty_lock when it begins. */
struct sync {
	uint64_t start, end;
	bool whole;
	bool inode;	 /* a change of size or allocation is in flight */
	bool inode_anew; /* the inode has been changed since it was in doubt */
};

/*
 * What a sync did to the bytes that were in flight. Returns what flushing the range returns. With
 * an error size_lock is held, so that nothing is cut off meanwhile.
 */
static int sync_settle_locked(struct mmapio_file *file, const struct sync *sync, int error,
			      struct range_set *doubt)
{
	const struct range *failed;

	if (error) {
		/* The descriptor tells of any write that failed since it was last asked, the
		 * kernel's own included: so what is dirty outside the range is in doubt as well.
		 * What has been cut off meanwhile is nobody's any more. */
		range_set_merge(doubt, &file->in_flight);
		range_set_merge(doubt, &file->dirty);
		range_set_remove(doubt, size_held_locked(file), UINT64_MAX);
		range_set_merge(&file->failed, doubt);
		range_set_clear(&file->anew);
		file->inode_failed |= sync->inode || file->inode_dirty;
		file->inode_anew = false;
		file->last_error = error;
		if (in_doubt_locked(file))
			file->failed_error = error;
		atomic_fetch_add(&file->failures, 1);
		return -error;
	}
	range_set_subtract(&file->failed, &file->in_flight_anew);
	if (range_set_empty(&file->failed))
		range_set_clear(&file->anew);
	if (sync->inode_anew)
		file->inode_failed = false;
	if (!in_doubt_locked(file))
		file->failed_error = 0;
	if (sync->whole)
		return -file->failed_error;
	failed = range_set_next(&file->failed, sync->start);
	return failed && failed->start < sync->end ? -file->failed_error : 0;
}

/* Syncs [start, end); with force also where nothing is known to be dirty. */
static int sync_file(struct mmapio_file *file, uint64_t start, uint64_t end, enum sync_call call,
		     bool force)
{
	struct sync sync = {.start = start, .end = end, .whole = call != SYNC_RANGE};
	bool needed, cancelled;
	struct range_set doubt;
	int error = 0, result;

	range_set_init(&doubt);
	pthread_mutex_lock(&file->sync_lock);
	flush_times(file);
	pthread_mutex_lock(&file->dirty_lock);
	range_set_take(&file->in_flight, &file->dirty, start, end, false);
	range_set_take(&file->in_flight_anew, &file->anew, start, end, true);
	if (sync.whole) {
		sync.inode = file->inode_dirty;
		sync.inode_anew = file->inode_anew;
		file->writes = 0;
		file->inode_dirty = file->inode_anew = false;
		file->flush_due = 0;
	}
	needed = force || !range_set_empty(&file->in_flight) || sync.inode || in_doubt_locked(file);
	file->syncing = needed;
	pthread_mutex_unlock(&file->dirty_lock);

	if (needed)
		error = sync_call(file, start, end, call);

	if (error)
		pthread_mutex_lock(&file->size_lock);
	pthread_mutex_lock(&file->dirty_lock);
	result = sync_settle_locked(file, &sync, error, &doubt);
	range_set_clear(&file->in_flight);
	range_set_clear(&file->in_flight_anew);
	file->syncing = false;
	cancelled = cancel_locked(file);
	pthread_mutex_unlock(&file->dirty_lock);
	if (error)
		pthread_mutex_unlock(&file->size_lock);
	pthread_mutex_unlock(&file->sync_lock);

	if (error)
		report_error(file, &doubt, error);
	range_set_clear(&doubt);
	if (cancelled)
		mmapio_file_unref(file);
	return result ? error_set(MMAPIO_ERROR_FLUSH, result) : 0;
}

void mmapio_discard(struct mmapio_file *file)
{
	bool cancelled;

	pthread_mutex_lock(&file->dirty_lock);
	range_set_clear(&file->dirty);
	range_set_clear(&file->failed);
	range_set_clear(&file->anew);
	file->inode_dirty = file->inode_failed = file->inode_anew = false;
	file->failed_error = 0;
	file->writes = 0;
	file->times_stale = false;
	file->flush_due = file->times_due = 0;
	cancelled = cancel_locked(file);
	pthread_mutex_unlock(&file->dirty_lock);
	if (cancelled)
		mmapio_file_unref(file);
}

int mmapio_flush(struct mmapio_file *file)
{
	if (!file)
		return error_argument();
	if (atomic_load(&file->mode) != MMAPIO_READ_WRITE)
		return 0;
	return sync_file(file, 0, UINT64_MAX, SYNC_DATA, false);
}

int mmapio_flush_range(struct mmapio_file *file, uint64_t offset, uint64_t length)
{
	uint64_t size, start, end;

	if (!file)
		return error_argument();
	size = atomic_load(&file->size);
	if (offset > size || length > size - offset) {
		/* What a slice holds is inside until the slice is released. */
		pthread_mutex_lock(&file->size_lock);
		size = size_held_locked(file);
		pthread_mutex_unlock(&file->size_lock);
		if (offset > size || length > size - offset)
			return error_bounds(offset, length, size);
	}
	if (atomic_load(&file->mode) != MMAPIO_READ_WRITE || length == 0)
		return 0;
	start = round_down(offset, page_size());
	end = round_up(offset + length, page_size());
	return sync_file(file, start, end < size ? end : size, SYNC_RANGE, false);
}

int mmapio_sync(struct mmapio_file *file, bool metadata)
{
	if (!file)
		return error_argument();
	if (atomic_load(&file->mode) == MMAPIO_COPY_ON_WRITE)
		return 0;
	return sync_file(file, 0, UINT64_MAX, metadata ? SYNC_METADATA : SYNC_DATA, true);
}

uint64_t mmapio_dirty_bytes(struct mmapio_file *file)
{
	uint64_t bytes;

	pthread_mutex_lock(&file->dirty_lock);
	bytes = file->dirty.bytes;
	pthread_mutex_unlock(&file->dirty_lock);
	return bytes;
}

int mmapio_dirty_next(struct mmapio_file *file, uint64_t *offset, uint64_t *length)
{
	const struct range *range;

	if (!file || !offset || !length)
		return error_argument();
	pthread_mutex_lock(&file->dirty_lock);
	range = range_set_next(&file->dirty, *offset);
	if (range) {
		*offset = range->start;
		*length = range->end - range->start;
	}
	pthread_mutex_unlock(&file->dirty_lock);
	return range != NULL;
}

int mmapio_file_error(struct mmapio_file *file)
{
	int error;

	if (!file)
		return error_argument();
	pthread_mutex_lock(&file->dirty_lock);
	error = -file->failed_error;
	pthread_mutex_unlock(&file->dirty_lock);
	return error;
}

uint64_t flush_run(struct mmapio_file *file, uint64_t now)
{
	uint64_t due;
	bool flush, times;

	pthread_mutex_lock(&file->dirty_lock);
	flush = file->flush_due && file->flush_due <= now;
	times = file->times_due && file->times_due <= now;
	pthread_mutex_unlock(&file->dirty_lock);
	if (flush)
		(void)!mmapio_flush(file); /* an error stays with the file */
	else if (times)
		flush_times(file);
	pthread_mutex_lock(&file->dirty_lock);
	due = next_due_locked(file);
	pthread_mutex_unlock(&file->dirty_lock);
	return due;
}
