/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies into and out of files. Owns the choice between a store into the mapping and pwrite(2);
 * what is dirty afterwards is flush.c's affair.
 */
#include "file.h"
#include "guard.h"

#include <errno.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

/*
 * A store into a page makes the kernel allocate whatever of the page's folio is a hole. Folios are
 * up to this large, so a store is done only where all around it is allocated.
 */
#define FOLIO_MAX (UINT64_C(2) * 1024 * 1024)

/*
 * The guard's stand-in: system calls, so that the kernel does the copy and a fault, on whichever
 * side, is an errno. One call copies at most 2 GiB.
 */
static int kernel_copy(char *target, const char *source, size_t length, bool out)
{
	while (length) {
		struct iovec ours = {.iov_base = out ? target : (char *)source, .iov_len = length};
		struct iovec mapped = {.iov_base = out ? (char *)source : target,
				       .iov_len = length};
		ssize_t count = out ? process_vm_readv(getpid(), &ours, 1, &mapped, 1, 0)
				    : process_vm_writev(getpid(), &ours, 1, &mapped, 1, 0);

		if (count <= 0)
			return error_set(MMAPIO_ERROR_IO,
					 count < 0 && errno != EFAULT ? -errno : -EIO);
		target += count;
		source += count;
		length -= (size_t)count;
	}
	return 0;
}

static ssize_t read_all(int fd, char *buffer, size_t length, uint64_t offset)
{
	size_t done = 0;

	while (done < length) {
		ssize_t count = pread(fd, buffer + done, length - done, (off_t)(offset + done));

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0 && done == 0)
			return error_set(MMAPIO_ERROR_IO, -errno);
		if (count <= 0)
			break;
		done += (size_t)count;
	}
	return (ssize_t)done;
}

static ssize_t write_all(int fd, const char *buffer, size_t length, uint64_t offset)
{
	size_t done = 0;

	while (done < length) {
		ssize_t count = pwrite(fd, buffer + done, length - done, (off_t)(offset + done));

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0 && done == 0)
			return error_set(MMAPIO_ERROR_IO, -errno);
		if (count <= 0)
			break;
		done += (size_t)count;
	}
	return (ssize_t)done;
}

ssize_t mmapio_read(struct mmapio_file *file, uint64_t offset, void *buffer, size_t length)
{
	struct mmapio_slice slice;
	bool private;
	int error;

	if (!file || (!buffer && length))
		return error_argument();
	private = atomic_load(&file->mode) == MMAPIO_COPY_ON_WRITE;
	if (length > SSIZE_MAX)
		length = SSIZE_MAX;
	for (;;) {
		uint64_t size = atomic_load(&file->size);
		struct stat st;

		if (offset >= size)
			return 0;
		if (length > size - offset)
			length = (size_t)(size - offset);
		if (!private && !guard_installed())
			return read_all(file->fd, buffer, length, offset);
		error = mmapio_slice_get(file, offset, length, &slice);
		if (error == -ERANGE)
			continue;
		if (error)
			return private ? error : read_all(file->fd, buffer, length, offset);
		error = guard_installed() ? guard_copy_out(buffer, slice.data, length)
					  : kernel_copy(buffer, slice.data, length, true);
		mmapio_slice_put(&slice);
		if (!error)
			return (ssize_t)length;
		if (error != -EIO)
			return error_set(MMAPIO_ERROR_IO, error);
		if (!private)
			return read_all(file->fd, buffer, length, offset);
		/* A page could not be had: because the file is shorter now, or for good. */
		if (fstat(file->fd, &st))
			return error_set(MMAPIO_ERROR_IO, -errno);
		if ((uint64_t)st.st_size >= offset + length)
			return error_set(MMAPIO_ERROR_IO, -EIO);
		error = mmapio_file_refresh(file, NULL);
		if (error)
			return error;
	}
}

static ssize_t write_private(struct mmapio_file *file, uint64_t offset, const void *buffer,
			     size_t length)
{
	struct mmapio_slice_mut slice;
	int error = mmapio_slice_get_mut(file, offset, length, &slice);

	if (error)
		return error;
	error = guard_installed() ? guard_copy_in(slice.data, buffer, length)
				  : kernel_copy(slice.data, buffer, length, false);
	if (!error)
		change_note(file, offset, offset + length);
	mmapio_slice_put_mut(&slice);
	return error ? error_set(MMAPIO_ERROR_IO, error) : (ssize_t)length;
}

/* The window of whole folios, as far as there is a file, around a range. */
struct window {
	uint64_t start, end;
};

static struct window window_around(struct mmapio_file *file, uint64_t offset, size_t length)
{
	uint64_t size = atomic_load(&file->size);
	struct window window = {round_down(offset, FOLIO_MAX),
				round_up(offset + length, FOLIO_MAX)};

	if (window.end > size)
		window.end = size;
	return window;
}

/* Whether a window is known, or can be found, to have no hole. */
static bool is_allocated(struct mmapio_file *file, const struct window *window)
{
	off_t hole;
	bool known;

	if (window->start >= window->end)
		return false;
	pthread_mutex_lock(&file->dirty_lock);
	known = range_set_contains(&file->allocated, window->start, window->end);
	pthread_mutex_unlock(&file->dirty_lock);
	if (known)
		return true;
	hole = lseek(file->fd, (off_t)window->start, SEEK_HOLE);
	if (hole < 0 || (uint64_t)hole <= window->start)
		return false;
	/* A hole that is made at this moment is no harm: the store allocates it, or faults. */
	pthread_mutex_lock(&file->dirty_lock);
	range_set_add(&file->allocated, window->start, (uint64_t)hole);
	pthread_mutex_unlock(&file->dirty_lock);
	return (uint64_t)hole >= window->end;
}

/* Asks the kernel whether all pages of a mapped range are in memory. */
static bool mapped_is_resident(const void *mapped, size_t length)
{
	unsigned char pages[FOLIO_MAX / 4096];
	uintptr_t start = round_down((uintptr_t)mapped, page_size());
	uintptr_t end = round_up((uintptr_t)mapped + length, page_size());

	while (start < end) {
		size_t count = (end - start) / page_size();

		if (count > sizeof(pages))
			count = sizeof(pages);
		if (mincore((void *)start, count * page_size(), pages))
			return false;
		for (size_t i = 0; i < count; i++)
			if (!(pages[i] & 1))
				return false;
		start += count * page_size();
	}
	return true;
}

/*
 * Whether a range is in memory, so that a store does not read it first. A whole window is asked for
 * at once, and the answer used for a second: that it may be wrong by then costs a read, no more.
 */
static bool is_resident(struct mmapio_file *file, const struct region *region, uint64_t offset,
			size_t length)
{
	struct window window = window_around(file, offset, length);
	uint64_t now = monotonic_coarse_ns();
	bool known;

	pthread_mutex_lock(&file->dirty_lock);
	if (now - file->resident_since > UINT64_C(1000000000)) {
		range_set_clear(&file->resident);
		file->resident_since = now;
	}
	known = range_set_contains(&file->resident, offset, offset + length);
	pthread_mutex_unlock(&file->dirty_lock);
	if (known)
		return true;
	/* The pin ends with the range; what is mapped may be asked for beyond it. */
	if (window.end > region->length)
		window.end = region->length;
	if (window.start < window.end &&
	    mapped_is_resident(region->base + window.start, (size_t)(window.end - window.start))) {
		pthread_mutex_lock(&file->dirty_lock);
		range_set_add(&file->resident, window.start, window.end);
		pthread_mutex_unlock(&file->dirty_lock);
		return true;
	}
	return mapped_is_resident(region->base + offset, length);
}

/* Whether a store would be the cheaper way into pages that are in memory. */
static bool store_wanted(struct mmapio_file *file, uint64_t offset, size_t length)
{
	const struct mmapio_policy *policy = &file->policy;
	struct window window;

	if (file->write_method == MMAPIO_WRITE_PWRITE || !guard_installed() ||
	    atomic_load(&file->unmappable) || atomic_load(&file->no_stores))
		return false;
	/*
	 * The first store to a clean page makes the kernel write its whole folio. Where pages are
	 * made clean unasked, again and again, that costs more than it saves.
	 */
	if (file->write_method == MMAPIO_WRITE_AUTO &&
	    (policy->always || policy->delay_ns || policy->bytes || policy->writes))
		return false;
	window = window_around(file, offset, length);
	return is_allocated(file, &window);
}

ssize_t mmapio_write(struct mmapio_file *file, uint64_t offset, const void *buffer, size_t length)
{
	struct pin_slot *slot;
	struct region *region = NULL;
	uint64_t failures;
	ssize_t count;
	bool stored = false;
	int error;

	if (!file || (!buffer && length))
		return error_argument();
	switch (atomic_load(&file->mode)) {
	case MMAPIO_READ_ONLY:
		return error_set(MMAPIO_ERROR_MODE, -EBADF);
	case MMAPIO_COPY_ON_WRITE:
		(void)flush_begin(file);
		count = write_private(file, offset, buffer, length);
		flush_end(file);
		return count;
	}
	if (length == 0)
		return 0;
	if (length > SSIZE_MAX)
		length = SSIZE_MAX;
	if (offset > INT64_MAX || length > INT64_MAX - offset)
		return error_set(MMAPIO_ERROR_IO, -EFBIG);

	failures = flush_begin(file);
	/* Pinned, so that no shrink comes between and leaves the file longer than its size. */
	error = pin_take(file, offset + length, store_wanted(file, offset, length), &slot, &region);
	if (error == -ENODEV || error == -ENOMEM)
		error = pin_take(file, offset + length, false, &slot, NULL);
	if (!error) {
		/* A store to a page that is not in memory would read it first. What a store could
		 * not do is all written again, for the true errno. */
		stored = region &&
			 (file->write_method == MMAPIO_WRITE_STORE ||
			  is_resident(file, region, offset, length)) &&
			 guard_copy_in(region->base + offset, buffer, length) == 0;
		count = stored ? (ssize_t)length : write_all(file->fd, buffer, length, offset);
		pin_release(file, slot);
	} else if (error == -ERANGE) {
		pthread_mutex_lock(&file->size_lock);
		count = write_all(file->fd, buffer, length, offset);
		if (count > 0)
			size_grown_locked(file, offset + (size_t)count);
		pthread_mutex_unlock(&file->size_lock);
	} else {
		count = error_set(MMAPIO_ERROR_IO, error);
	}
	if (count <= 0) {
		flush_end(file);
		return count;
	}
	error = flush_commit(file, offset, offset + (size_t)count, stored, failures);
	return error ? error : count;
}

ssize_t mmapio_copy(struct mmapio_file *source, uint64_t source_offset, struct mmapio_file *target,
		    uint64_t target_offset, size_t length)
{
	off_t from = (off_t)source_offset, to = (off_t)target_offset;
	uint64_t failures;
	ssize_t count;
	int error;

	if (!source || !target || from < 0 || to < 0)
		return error_argument();
	if (atomic_load(&source->mode) == MMAPIO_COPY_ON_WRITE ||
	    atomic_load(&target->mode) != MMAPIO_READ_WRITE)
		return error_set(MMAPIO_ERROR_MODE, -EBADF);
	failures = flush_begin(target);
	/* The size may grow, and no shrink of the target may come between. */
	pthread_mutex_lock(&target->size_lock);
	count = copy_file_range(source->fd, &from, target->fd, &to, length, 0);
	if (count < 0)
		count = error_set(MMAPIO_ERROR_IO, -errno);
	else if (count > 0)
		size_grown_locked(target, (uint64_t)to);
	pthread_mutex_unlock(&target->size_lock);
	if (count <= 0) {
		flush_end(target);
		return count;
	}
	error = flush_commit(target, target_offset, (uint64_t)to, false, failures);
	return error ? error : count;
}
