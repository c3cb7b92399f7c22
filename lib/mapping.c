/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mappings of a file. Owns how long a region is made and when it is replaced; who still uses an
 * old one is pin.c's affair.
 *
 * A shared region is longer than its file, in proportion to it, so that growth needs no new mapping
 * as long as it stays inside. A private one has exactly the file's pages and is never replaced,
 * since it holds what was written.
 */
#include "file.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef MMAPIO_DEBUG
#define RESERVE_MIN 4096 /* outgrown at every turn, so that tests see it */
#else
#define RESERVE_MIN (64 * 1024)
#endif

/* Where this is not the processor's size of huge pages, it is a multiple or they are not had. */
#define HUGE_PAGE ((size_t)2 * 1024 * 1024)

size_t page_size(void)
{
	static _Atomic size_t size;
	size_t known = atomic_load_explicit(&size, memory_order_relaxed);

	if (known == 0) {
		known = (size_t)sysconf(_SC_PAGESIZE);
		atomic_store_explicit(&size, known, memory_order_relaxed);
	}
	return known;
}

void region_free(struct region *region)
{
	if (region) {
		munmap(region->base, region->length);
		free(region);
	}
}

/*
 * As mmap(2), at an address from which huge pages can be mapped: the kernel chooses such a one for
 * some file systems only.
 */
static void *map_aligned(size_t length, int protection, int flags, int fd)
{
	char *base = mmap(NULL, length, protection, flags, fd, 0), *space, *aligned;
	size_t before;

	if (base == MAP_FAILED || length < HUGE_PAGE || (uintptr_t)base % HUGE_PAGE == 0)
		return base;
	space = mmap(NULL, length + HUGE_PAGE, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (space == MAP_FAILED)
		return base;
	before = (size_t)(-(uintptr_t)space % HUGE_PAGE);
	aligned = mmap(space + before, length, protection, flags | MAP_FIXED, fd, 0);
	if (aligned == MAP_FAILED) {
		munmap(space, length + HUGE_PAGE);
		return base;
	}
	munmap(base, length);
	if (before)
		munmap(space, before);
	munmap(aligned + length, HUGE_PAGE - before);
	return aligned;
}

static int region_new(struct mmapio_file *file, enum mmapio_mode mode, uint64_t length,
		      struct region **out)
{
	int protection = mode == MMAPIO_READ_ONLY ? PROT_READ : PROT_READ | PROT_WRITE;
	/* A private mapping is not charged in advance, else one of a large file would be refused.
	 */
	int flags = mode == MMAPIO_COPY_ON_WRITE ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED;
	struct region *region = malloc(sizeof(*region));
	void *base;

	if (!region)
		return -ENOMEM;
	if (length > SIZE_MAX / 2) {
		errno = ENOMEM;
		base = MAP_FAILED;
	} else if (file->flags & MMAPIO_HUGE_PAGES) {
		base = map_aligned((size_t)length, protection, flags, file->fd);
	} else {
		base = mmap(NULL, (size_t)length, protection, flags, file->fd, 0);
	}
	if (base == MAP_FAILED) {
		/* EACCES: the descriptor is write-only. EAGAIN: locked memory (mlockall(2)). */
		int error = errno == EACCES || errno == EPERM ? ENODEV : errno;

		free(region);
		return error == ENODEV ? -ENODEV : -ENOMEM;
	}
	if (file->flags & MMAPIO_HUGE_PAGES)
		(void)madvise(base, (size_t)length, MADV_HUGEPAGE);
	/* mmap(2) has moved atime; but what is mapped to be written may be read after that. */
	if (mode == MMAPIO_READ_ONLY)
		atomic_store(&file->accessed, monotonic_coarse_ns());
	region->base = base;
	region->length = (size_t)length;
	region->next_retired = NULL;
	*out = region;
	return 0;
}

static int region_publish_locked(struct mmapio_file *file, enum mmapio_mode mode)
{
	uint64_t size = round_up(atomic_load(&file->size), page_size());
	uint64_t reserve = size > RESERVE_MIN ? size : RESERVE_MIN;
	struct region *region, *old = atomic_load(&file->region);
	int error = -ENOMEM;

	if (mode == MMAPIO_COPY_ON_WRITE)
		reserve = size ? 0 : page_size();
	if (size <= INT64_MAX - reserve)
		error = region_new(file, mode, size + reserve, &region);
	if (error == -ENOMEM && reserve && size)
		error = region_new(file, mode, size, &region);
	if (error) {
		if (error == -ENODEV)
			atomic_store(&file->unmappable, true);
		return error;
	}
	advice_carry_locked(file, old, region);
	atomic_store(&file->region, region);
	if (old)
		pin_retire(file, old);
	return 0;
}

void mapping_access(struct mmapio_file *file)
{
	void *page = mmap(NULL, page_size(), PROT_READ, MAP_SHARED, file->fd, 0);

	if (page != MAP_FAILED)
		munmap(page, page_size());
}

int mapping_reach_locked(struct mmapio_file *file, uint64_t end)
{
	struct region *region = atomic_load(&file->region);

	if (end > atomic_load(&file->size))
		return -ERANGE;
	if (region && region->length >= end)
		return 0;
	return region_publish_locked(file, (enum mmapio_mode)atomic_load(&file->mode));
}

int mapping_reach(struct mmapio_file *file, uint64_t end)
{
	int error;

	if (atomic_load(&file->unmappable))
		return -ENODEV;
	pthread_mutex_lock(&file->size_lock);
	error = mapping_reach_locked(file, end);
	pthread_mutex_unlock(&file->size_lock);
	return error;
}

void mapping_renew_locked(struct mmapio_file *file, enum mmapio_mode mode)
{
	struct region *old = atomic_load(&file->region);

	if (old && region_publish_locked(file, mode)) {
		/* The next slice tries again. */
		atomic_store(&file->region, NULL);
		pin_retire(file, old);
	}
}
