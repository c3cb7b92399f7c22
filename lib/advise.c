/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Advice, page locks, and what the kernel made of them. Owns the three sets of ranges that stay
 * with a file (locked, random, sequential) and brings them to each of its regions; knows nothing of
 * when regions come and go.
 *
 * The sets say what was asked for; ranges to the end of the file end at UINT64_MAX, others at most
 * at the last page. What is locked is the kernel's to say: it may have refused to lock what the
 * file grew by.
 *
 * Advice of a range to the end is given to the whole of a region, what the file has yet to grow
 * into included. Locks are not, since they count against a limit: they follow the size.
 */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_COLD
#define MADV_COLD 20
#endif

/* --- Ranges ----------------------------------------------------------------------------------- */

/* The whole pages around what the caller names: start == end where that is nothing. */
static int pages_of_locked(const struct mmapio_file *file, uint64_t offset, uint64_t length,
			   struct range *pages)
{
	uint64_t size = atomic_load(&file->size);

	if (offset > size || (length != UINT64_MAX && length > size - offset))
		return error_bounds(offset, length, size);
	pages->start = pages->end = round_down(offset, page_size());
	if (length == UINT64_MAX)
		pages->end = UINT64_MAX;
	else if (length)
		pages->end = round_up(offset + length, page_size());
	return 0;
}

/* How much of [start, end) there is before limit. */
static size_t clipped(uint64_t start, uint64_t end, uint64_t limit)
{
	if (end > limit)
		end = limit;
	return start < end ? (size_t)(end - start) : 0;
}

/* The end of the file's pages, as far as a region has them. */
static uint64_t pages_end_locked(const struct mmapio_file *file, const struct region *region)
{
	uint64_t end = round_up(atomic_load(&file->size), page_size());

	return end < region->length ? end : region->length;
}

/* Whether a set has anything of a range. */
static bool overlaps(const struct range_set *set, const struct range *pages)
{
	const struct range *range = range_set_next(set, pages->start);

	return pages->start < pages->end && range && range->start < pages->end;
}

/* The first gap of a set in [*start, end): false if there is none. */
static bool gap_next(const struct range_set *set, uint64_t *start, uint64_t end, uint64_t *gap_end)
{
	const struct range *range;

	while (*start < end) {
		range = range_set_next(set, *start);
		if (!range || range->start > *start) {
			*gap_end = range && range->start < end ? range->start : end;
			return true;
		}
		*start = range->end;
	}
	return false;
}

/* False without memory, and then it may have less. */
static bool range_added(struct range_set *set, const struct range *pages)
{
	range_set_add_exactly(set, pages->start, pages->end);
	return range_set_contains(set, pages->start, pages->end);
}

/* False without memory, and then it has as much as before. */
static bool range_removed(struct range_set *set, const struct range *pages)
{
	range_set_remove(set, pages->start, pages->end);
	return !overlaps(set, pages);
}

/* --- Advice ----------------------------------------------------------------------------------- */

static int region_advise(const struct region *region, uint64_t start, uint64_t end, int advice)
{
	size_t length = clipped(start, end, region->length);

	/* EAGAIN: no memory for, or too many, pieces of the mapping. */
	if (length && madvise(region->base + start, length, advice))
		return errno == EAGAIN ? -ENOMEM : -errno;
	return 0;
}

static void region_advise_set(const struct region *region, const struct range *pages,
			      const struct range_set *set, int advice)
{
	const struct range *range;
	uint64_t start = pages->start;

	while ((range = range_set_next(set, start)) && range->start < pages->end) {
		if (range->start > start)
			start = range->start;
		(void)region_advise(region, start,
				    range->end < pages->end ? range->end : pages->end, advice);
		start = range->end;
	}
}

/* Gives a part of a region the advice that stays with the file. */
static void region_advise_kept_locked(const struct mmapio_file *file, const struct region *region,
				      const struct range *pages)
{
	(void)region_advise(region, pages->start, pages->end, MADV_NORMAL);
	region_advise_set(region, pages, &file->random, MADV_RANDOM);
	region_advise_set(region, pages, &file->sequential, MADV_SEQUENTIAL);
}

static int descriptor_advise(const struct mmapio_file *file, const struct range *pages, int advice)
{
	/* length 0: to the end */
	uint64_t length = pages->end == UINT64_MAX ? 0 : pages->end - pages->start;

	return -posix_fadvise(file->fd, (off_t)pages->start, (off_t)length, advice);
}

static int advise_kept_locked(struct mmapio_file *file, const struct range *pages,
			      enum mmapio_advice advice)
{
	static const int mapped[] = {MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL};
	static const int unmapped[] = {POSIX_FADV_NORMAL, POSIX_FADV_RANDOM, POSIX_FADV_SEQUENTIAL};
	const struct region *region = atomic_load(&file->region);
	bool kept;
	int error = 0;

	if (region)
		error = region_advise(region, pages->start, pages->end, mapped[advice]);
	else if (atomic_load(&file->unmappable))
		error = descriptor_advise(file, pages, unmapped[advice]);
	if (!error) {
		kept = range_removed(&file->random, pages);
		kept &= range_removed(&file->sequential, pages);
		if (advice == MMAPIO_ADVICE_RANDOM)
			kept &= range_added(&file->random, pages);
		if (advice == MMAPIO_ADVICE_SEQUENTIAL)
			kept &= range_added(&file->sequential, pages);
		error = kept ? 0 : -ENOMEM;
	}
	if (error && region)
		region_advise_kept_locked(file, region, pages);
	return error;
}

static int advise_dont_need_locked(const struct mmapio_file *file, const struct range *pages)
{
	const struct region *region = atomic_load(&file->region);
	bool private = atomic_load(&file->mode) == MMAPIO_COPY_ON_WRITE;
	uint64_t start = pages->start, end;
	int error = 0;

	if (!region)
		return descriptor_advise(file, pages, POSIX_FADV_DONTNEED);
	while (!error && gap_next(&file->locked, &start, pages->end, &end)) {
		/* MADV_DONTNEED would throw away what was written to private pages. */
		error = region_advise(region, start, end, private ? MADV_COLD : MADV_DONTNEED);
		if (error == -EINVAL) /* locked by others (mlockall(2)), or an older kernel */
			error = 0;
		start = end;
	}
	return error;
}

/* Without size_lock, since it may wait for room in the disk's queue. */
static int advise_will_need(struct mmapio_file *file, const struct range *pages)
{
	struct mmapio_slice slice;
	uint64_t length = pages->end - pages->start;
	int error = 0;

	if (length > SIZE_MAX)
		length = SIZE_MAX;
	if (!atomic_load(&file->region) ||
	    mmapio_slice_get_some(file, pages->start, (size_t)length, &slice))
		return descriptor_advise(file, pages, POSIX_FADV_WILLNEED);
	if (slice.length && madvise((void *)slice.data, slice.length, MADV_WILLNEED))
		error = -errno;
	mmapio_slice_put(&slice);
	return error;
}

int mmapio_advise(struct mmapio_file *file, uint64_t offset, uint64_t length,
		  enum mmapio_advice advice)
{
	struct range pages;
	int error;

	if (!file || (unsigned int)advice > MMAPIO_ADVICE_DONT_NEED)
		return error_argument();
	pthread_mutex_lock(&file->size_lock);
	error = pages_of_locked(file, offset, length, &pages);
	if (error || pages.start == pages.end) {
		pthread_mutex_unlock(&file->size_lock);
		return error;
	}
	if (advice == MMAPIO_ADVICE_DONT_NEED)
		error = advise_dont_need_locked(file, &pages);
	else if (advice != MMAPIO_ADVICE_WILL_NEED)
		error = advise_kept_locked(file, &pages, advice);
	pthread_mutex_unlock(&file->size_lock);
	if (advice == MMAPIO_ADVICE_WILL_NEED)
		error = advise_will_need(file, &pages);
	return error ? error_set(MMAPIO_ERROR_ADVICE, error) : 0;
}

/* --- Locks ------------------------------------------------------------------------------------ */

/*
 * MLOCK_ONFAULT: a lock of itself would copy each page of a private mapping, and fail at pages
 * beyond the end. What brings the pages in is touch_mapped().
 */
static int pages_lock(const char *start, size_t length)
{
	if (length && mlock2(start, length, MLOCK_ONFAULT))
		return errno == EAGAIN ? -ENOMEM : -errno;
	return 0;
}

static int pages_unlock(const char *start, size_t length)
{
	if (length && munlock(start, length))
		return errno == EAGAIN ? -ENOMEM : -errno;
	return 0;
}

/* Locks as many pages as the kernel allows for, the first ones first, and brings them in. */
static void pages_lock_some(const char *start, size_t length)
{
	const char *next = start;
	size_t left = length, step = length;

	while (left) {
		if (step > left)
			step = left;
		if (pages_lock(next, step) == 0) {
			next += step;
			left -= step;
		} else if (step > page_size()) {
			step = (size_t)round_up(step / 2, page_size());
		} else {
			break;
		}
	}
	if (next > start)
		(void)touch_mapped(start, (size_t)(next - start));
}

/* Locks what was asked for of [start, size). partly: as far as the kernel allows. */
static int region_lock_kept_locked(const struct mmapio_file *file, const struct region *region,
				   uint64_t start, bool partly)
{
	uint64_t end = pages_end_locked(file, region);
	const struct range *range;
	int error = 0;

	while (!error && (range = range_set_next(&file->locked, start)) && range->start < end) {
		size_t length;

		if (range->start > start)
			start = range->start;
		length = clipped(start, range->end, end);
		if (partly)
			pages_lock_some(region->base + start, length);
		else
			error = pages_lock(region->base + start, length);
		if (!error && !partly)
			(void)touch_mapped(region->base + start, length);
		start = range->end;
	}
	return error;
}

void advice_carry_locked(struct mmapio_file *file, struct region *old, struct region *region)
{
	const struct range all = {.start = 0, .end = UINT64_MAX};

	if (!range_set_empty(&file->random) || !range_set_empty(&file->sequential))
		region_advise_kept_locked(file, region, &all);
	if (range_set_empty(&file->locked))
		return;
	/* The pages stay locked throughout, if the limit allows for both. */
	if (region_lock_kept_locked(file, region, 0, false)) {
		if (old)
			(void)pages_unlock(old->base, old->length);
		region_lock_kept_locked(file, region, 0, true);
	} else if (old) {
		(void)pages_unlock(old->base, old->length);
	}
}

void advice_grown_locked(struct mmapio_file *file, uint64_t before)
{
	struct region *region = atomic_load(&file->region);

	if (!region ||
	    !overlaps(&file->locked, &(struct range){.start = UINT64_MAX - 1, .end = UINT64_MAX}))
		return;
	/* A region that is replaced gets its locks by that. */
	if (mapping_reach_locked(file, atomic_load(&file->size)) == 0 &&
	    atomic_load(&file->region) == region)
		region_lock_kept_locked(file, region, round_down(before, page_size()), true);
}

/* Forgets what a set has beyond an end, but for a range to the end. */
static void forget(struct range_set *set, uint64_t end)
{
	const struct range *last = range_set_next(set, UINT64_MAX - 1);

	range_set_remove(set, end, last ? last->start : UINT64_MAX);
}

void advice_truncated_locked(struct mmapio_file *file, uint64_t size)
{
	const struct region *region = atomic_load(&file->region);
	const struct range beyond = {.start = round_up(size, page_size()), .end = UINT64_MAX};
	bool advised = overlaps(&file->random, &beyond) || overlaps(&file->sequential, &beyond);
	bool locked = overlaps(&file->locked, &beyond);

	forget(&file->random, beyond.start);
	forget(&file->sequential, beyond.start);
	forget(&file->locked, beyond.start);
	if (region && advised)
		region_advise_kept_locked(file, region, &beyond);
	if (region && locked && beyond.start < region->length)
		(void)pages_unlock(region->base + beyond.start,
				   region->length - (size_t)beyond.start);
}

/* Takes back the locks of a set. */
static void unlock_set_locked(struct mmapio_file *file, const struct range_set *set)
{
	const struct region *region = atomic_load(&file->region);
	const struct range *range;

	for (range = range_set_next(set, 0); range; range = range_set_next(set, range->end))
		if (region)
			(void)pages_unlock(region->base + range->start,
					   clipped(range->start, range->end, region->length));
	range_set_subtract(&file->locked, set);
}

/* Locks pages; fresh gets those that had not been asked for before. */
static int lock_add_locked(struct mmapio_file *file, const struct range *pages,
			   struct range_set *fresh)
{
	const struct region *region;
	uint64_t start = pages->start, end;
	int error;

	while (gap_next(&file->locked, &start, pages->end, &end)) {
		if (!range_added(fresh, &(struct range){.start = start, .end = end}))
			return -ENOMEM;
		start = end;
	}
	error = mapping_reach_locked(file, atomic_load(&file->size));
	if (error)
		return error;
	region = atomic_load(&file->region);
	/* All of it: the kernel may have refused a part before. */
	error = pages_lock(region->base + pages->start,
			   clipped(pages->start, pages->end, pages_end_locked(file, region)));
	if (!error && !range_added(&file->locked, pages))
		error = -ENOMEM;
	if (error)
		unlock_set_locked(file, fresh);
	return error;
}

int mmapio_lock(struct mmapio_file *file, uint64_t offset, uint64_t length)
{
	struct range_set fresh;
	struct range pages;
	int error;

	if (!file)
		return error_argument();
	range_set_init(&fresh);
	pthread_mutex_lock(&file->lock_turn);
	pthread_mutex_lock(&file->size_lock);
	error = pages_of_locked(file, offset, length, &pages);
	if (!error && pages.start < pages.end) {
		error = lock_add_locked(file, &pages, &fresh);
		if (error)
			error_set(MMAPIO_ERROR_LOCK, error);
	}
	pthread_mutex_unlock(&file->size_lock);
	if (!error) {
		/* Reading the disk is no reason to keep the size. */
		error = mmapio_touch(file, pages.start, pages.end - pages.start);
		if (error) {
			pthread_mutex_lock(&file->size_lock);
			unlock_set_locked(file, &fresh);
			pthread_mutex_unlock(&file->size_lock);
			error_set(MMAPIO_ERROR_LOCK, error);
		}
	}
	pthread_mutex_unlock(&file->lock_turn);
	range_set_clear(&fresh);
	return error;
}

int mmapio_unlock(struct mmapio_file *file, uint64_t offset, uint64_t length)
{
	const struct region *region;
	struct range pages;
	int error;

	if (!file)
		return error_argument();
	pthread_mutex_lock(&file->lock_turn);
	pthread_mutex_lock(&file->size_lock);
	error = pages_of_locked(file, offset, length, &pages);
	region = atomic_load(&file->region);
	if (!error && overlaps(&file->locked, &pages)) {
		if (region)
			error = pages_unlock(region->base + pages.start,
					     clipped(pages.start, pages.end, region->length));
		if (!error && !range_removed(&file->locked, &pages))
			error = -ENOMEM;
		if (error && region)
			region_lock_kept_locked(file, region, pages.start, true);
		if (error)
			error_set(MMAPIO_ERROR_UNLOCK, error);
	}
	pthread_mutex_unlock(&file->size_lock);
	pthread_mutex_unlock(&file->lock_turn);
	return error;
}

/* --- What the kernel made of it --------------------------------------------------------------- */

/* Of /proc/self/smaps, in bytes. */
struct smaps {
	uint64_t huge;
	uint64_t locked;
};

/* Adds up what smaps(5) says of the pieces of a region. 0 or negative errno. */
static int smaps_read(FILE *stream, const struct region *region, struct smaps *smaps)
{
	const uintptr_t base = (uintptr_t)region->base;
	uint64_t resident = 0;
	bool inside = false;
	char *line = NULL;
	size_t size = 0;
	int error;

	while (errno = 0, getline(&line, &size, stream) > 0) {
		char name[32];
		uintptr_t start, end;
		uint64_t kib;

		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) == 2) {
			inside = start >= base && end <= base + region->length;
		} else if (!inside) {
			continue;
		} else if (strncmp(line, "VmFlags:", 8) == 0) {
			if (strstr(line, " lo"))
				smaps->locked += resident;
		} else if (sscanf(line, "%31[^:]: %" SCNu64, name, &kib) == 2) {
			if (strcmp(name, "Rss") == 0)
				resident = kib * 1024;
			else if (strcmp(name, "AnonHugePages") == 0 ||
				 strcmp(name, "FilePmdMapped") == 0 ||
				 strcmp(name, "ShmemPmdMapped") == 0)
				smaps->huge += kib * 1024;
		}
	}
	/* Without memory for a line the stream has an error (glibc 2.41), or none, and no end
	 * either. */
	error = feof(stream) ? 0 : ferror(stream) && errno != ENOMEM ? -EIO : -ENOMEM;
	free(line);
	return error;
}

static int file_smaps(struct mmapio_file *file, struct smaps *smaps)
{
	const struct region *region;
	FILE *stream;
	int error = 0;

	*smaps = (struct smaps){0};
	pthread_mutex_lock(&file->size_lock);
	region = atomic_load(&file->region);
	if (region) {
		stream = fopen("/proc/self/smaps", "re");
		if (stream) {
			error = smaps_read(stream, region, smaps);
			fclose(stream);
		} else {
			error = -errno;
		}
	}
	pthread_mutex_unlock(&file->size_lock);
	return error ? error_set(MMAPIO_ERROR_IO, error) : 0;
}

int mmapio_locked_bytes(struct mmapio_file *file, uint64_t *bytes)
{
	struct smaps smaps;
	int error;

	if (!file || !bytes)
		return error_argument();
	error = file_smaps(file, &smaps);
	if (!error)
		*bytes = smaps.locked;
	return error;
}

int mmapio_huge_bytes(struct mmapio_file *file, uint64_t *bytes)
{
	struct smaps smaps;
	int error;

	if (!file || !bytes)
		return error_argument();
	error = file_smaps(file, &smaps);
	if (!error)
		*bytes = smaps.huge;
	return error;
}
