/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was changed in a copy-on-write file: listed, committed into the file itself, discarded. The
 * list is kept by those who change it (change_note()); the changed bytes are the mapping's.
 */
#include "file.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

#define PIECE ((uint64_t)1024 * 1024)

void change_note(struct mmapio_file *file, uint64_t start, uint64_t end)
{
#ifdef MMAPIO_DEBUG
	sched_yield(); /* so that tests see what exclusive sections are for */
#endif
	pthread_mutex_lock(&file->dirty_lock);
	range_set_add(&file->changes, start, end);
	pthread_mutex_unlock(&file->dirty_lock);
}

int mmapio_changes_next(struct mmapio_file *file, uint64_t *offset, uint64_t *length)
{
	const struct range *range;

	if (!file || !offset || !length)
		return error_argument();
	pthread_mutex_lock(&file->dirty_lock);
	range = range_set_next(&file->changes, *offset);
	if (range) {
		*offset = range->start;
		*length = range->end - range->start;
	}
	pthread_mutex_unlock(&file->dirty_lock);
	return range != NULL;
}

uint64_t mmapio_changes_bytes(struct mmapio_file *file)
{
	uint64_t bytes = 0;

	if (!file)
		return 0;
	pthread_mutex_lock(&file->dirty_lock);
	bytes = file->changes.bytes;
	pthread_mutex_unlock(&file->dirty_lock);
	return bytes;
}

/*
 * Gives the pages of a range back: from now on they are the file's again. Nobody changes the file
 * (flush_begin_exclusive()).
 */
static int pages_drop(struct mmapio_file *file, uint64_t start, uint64_t end)
{
	struct region *region = atomic_load(&file->region);

	if (!region)
		return 0;
	start = round_down(start, page_size());
	end = end < region->length ? round_up(end, page_size()) : region->length;
	if (start >= end || madvise(region->base + start, end - start, MADV_DONTNEED) == 0)
		return 0;
	/* EINVAL: it is locked (mmapio_lock()). */
	if (errno == EINVAL &&
	    madvise(region->base + start, end - start, MADV_DONTNEED_LOCKED) == 0)
		return 0;
	return error_set(MMAPIO_ERROR_IO, -errno);
}

int mmapio_changes_discard(struct mmapio_file *file)
{
	int error;

	if (!file)
		return error_argument();
	if (atomic_load(&file->mode) != MMAPIO_COPY_ON_WRITE)
		return error_set(MMAPIO_ERROR_MODE, -EBADF);
	(void)flush_begin_exclusive(file);
	error = pages_drop(file, 0, UINT64_MAX);
	if (!error) {
		pthread_mutex_lock(&file->dirty_lock);
		range_set_clear(&file->changes);
		pthread_mutex_unlock(&file->dirty_lock);
	}
	flush_exclusive_end(file);
	flush_end(file);
	return error;
}

/* Writes a range of the view into the target. */
static int range_copy(struct mmapio_file *view, struct mmapio_file *target, uint64_t start,
		      uint64_t end)
{
	while (start < end) {
		size_t length = (size_t)(end - start < PIECE ? end - start : PIECE);
		struct mmapio_slice slice;
		ssize_t count;
		int error = mmapio_slice_get_some(view, start, length, &slice);

		if (error)
			return error;
		/* What has been cut off meanwhile is no change any more. */
		if (slice.length == 0) {
			mmapio_slice_put(&slice);
			return 0;
		}
		count = mmapio_write(target, start, slice.data, slice.length);
		mmapio_slice_put(&slice);
		if (count < 0)
			return (int)count;
		start += (uint64_t)count;
	}
	return 0;
}

/* What has been written into the file, and not been changed anew, is given back. */
static void pages_follow(struct mmapio_file *view, const struct range_set *committed)
{
	const struct range *range;

	(void)flush_begin_exclusive(view);
	for (range = range_set_next(committed, 0); range;
	     range = range_set_next(committed, range->end)) {
		uint64_t start = round_down(range->start, page_size());
		uint64_t end = round_up(range->end, page_size());

		/* Page by page only where something has been changed meanwhile. */
		for (uint64_t at = start; at < end;) {
			const struct range *changed;
			uint64_t until = end;

			pthread_mutex_lock(&view->dirty_lock);
			changed = range_set_next(&view->changes, at);
			if (changed && changed->start < until)
				until = round_down(changed->start, page_size());
			if (until > at) {
				pthread_mutex_unlock(&view->dirty_lock);
				(void)!pages_drop(view, at, until);
				at = until;
			} else {
				at = round_up(changed->end, page_size());
				pthread_mutex_unlock(&view->dirty_lock);
			}
		}
	}
	flush_exclusive_end(view);
	flush_end(view);
}

int mmapio_changes_commit(struct mmapio_file *view, struct mmapio_file *target)
{
	const struct range *range;
	struct range_set taken;
	int error = 0;

	if (!view || !target)
		return error_argument();
	if (atomic_load(&view->mode) != MMAPIO_COPY_ON_WRITE ||
	    atomic_load(&target->mode) != MMAPIO_READ_WRITE)
		return error_set(MMAPIO_ERROR_MODE, -EBADF);
	if (view->device != target->device || view->inode != target->inode)
		return error_argument();

	/* What is changed from here on is for the next commit. */
	range_set_init(&taken);
	(void)flush_begin_exclusive(view);
	pthread_mutex_lock(&view->dirty_lock);
	range_set_merge(&taken, &view->changes);
	range_set_clear(&view->changes);
	pthread_mutex_unlock(&view->dirty_lock);
	flush_exclusive_end(view);
	flush_end(view);

	for (range = range_set_next(&taken, 0); range && !error;
	     range = range_set_next(&taken, range->end))
		error = range_copy(view, target, range->start, range->end);
	if (error) {
		pthread_mutex_lock(&view->dirty_lock);
		range_set_merge(&view->changes, &taken);
		pthread_mutex_unlock(&view->dirty_lock);
	} else {
		pages_follow(view, &taken);
	}
	range_set_clear(&taken);
	return error;
}
