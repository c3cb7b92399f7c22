/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files: opening, references, size. Owns struct mmapio_file's life; the mapping is mapping.c's,
 * what is dirty is flush.c's.
 */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

uint64_t monotonic_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t monotonic_coarse_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC_COARSE);
}

/* The caller's options as this version of the library knows them. */
static int options_read(struct mmapio_options *known, const struct mmapio_options *given)
{
	*known = (struct mmapio_options)MMAPIO_OPTIONS_INIT(MMAPIO_READ_ONLY);
	if (given->size < offsetof(struct mmapio_options, policy) || given->size > sizeof(*known))
		return error_argument();
	memcpy(known, given, given->size);
	if (known->mode > MMAPIO_COPY_ON_WRITE || known->write_method > MMAPIO_WRITE_PWRITE ||
	    (known->flags & ~(unsigned int)(MMAPIO_LAZY | MMAPIO_HUGE_PAGES | MMAPIO_TOUCH)))
		return error_argument();
	if (known->mode == MMAPIO_COPY_ON_WRITE)
		known->policy = (struct mmapio_policy){0};
	if (known->policy.delay_ns && !known->flusher)
		return error_argument();
	return 0;
}

/* Whether the descriptor allows what the mode needs; with O_APPEND it would write elsewhere. */
static int access_check(int fd, enum mmapio_mode mode, bool lazy)
{
	int flags = fcntl(fd, F_GETFL);

	bool allowed;

	if (flags < 0)
		return error_set(MMAPIO_ERROR_IO, -errno);
	if ((flags & O_APPEND) && mode == MMAPIO_READ_WRITE)
		return error_set(MMAPIO_ERROR_MODE, -EINVAL);
	switch (flags & O_ACCMODE) {
	case O_RDWR:
		allowed = true;
		break;
	case O_RDONLY:
		allowed = mode != MMAPIO_READ_WRITE;
		break;
	default:
		allowed = mode == MMAPIO_READ_WRITE && lazy;
	}
	return allowed && !(flags & O_PATH) ? 0 : error_set(MMAPIO_ERROR_MODE, -EBADF);
}

int mmapio_open_fd(struct mmapio_file **out, int fd, const struct mmapio_options *given)
{
	struct mmapio_options options;
	struct mmapio_file *file;
	pthread_condattr_t monotonic;
	struct stat st;
	int error;

	if (!out || !given)
		return error_argument();
	error = options_read(&options, given);
	if (!error)
		error = access_check(fd, options.mode, options.flags & MMAPIO_LAZY);
	if (error)
		return error;
	if (fstat(fd, &st))
		return error_set(MMAPIO_ERROR_IO, -errno);
	if (!S_ISREG(st.st_mode))
		return error_set(MMAPIO_ERROR_IO, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL);

	file = aligned_alloc(_Alignof(struct mmapio_file), sizeof(*file));
	if (!file)
		return error_set(MMAPIO_ERROR_IO, -ENOMEM);
	memset(file, 0, sizeof(*file));
	atomic_init(&file->references, 1);
	file->fd = fd;
	file->flags = options.flags;
	file->device = st.st_dev;
	file->inode = st.st_ino;
	file->policy = options.policy;
	file->write_method = options.write_method;
	file->flusher = options.flusher;
	file->on_error = options.on_error;
	file->on_close = options.on_close;
	file->context = options.context;
	atomic_init(&file->mode, (int)options.mode);
	atomic_init(&file->size, (uint64_t)st.st_size);
	file->times_left = file->seen_mtime = st.st_mtim;
	file->seen_size = (uint64_t)st.st_size;
	range_set_init(&file->in_flight);
	range_set_init(&file->in_flight_anew);
	range_set_init(&file->locked);
	range_set_init(&file->random);
	range_set_init(&file->sequential);
	range_set_init(&file->dirty);
	range_set_init(&file->failed);
	range_set_init(&file->anew);
	range_set_init(&file->allocated);
	range_set_init(&file->resident);
	range_set_init(&file->changes);
	pthread_mutex_init(&file->lock_turn, NULL);
	pthread_mutex_init(&file->sync_lock, NULL);
	pthread_mutex_init(&file->size_lock, NULL);
	pthread_mutex_init(&file->pin_lock, NULL);
	pthread_mutex_init(&file->dirty_lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&file->pin_released, &monotonic);
	pthread_cond_init(&file->shrink_over, &monotonic);
	pthread_cond_init(&file->exclusive_turn, NULL);
	pthread_condattr_destroy(&monotonic);

	if (!(options.flags & MMAPIO_LAZY))
		error = mapping_reach(file, 0);
	if (!error && (options.flags & MMAPIO_TOUCH)) {
		error = mmapio_touch(file, 0, UINT64_MAX);
		if (error == -ENODEV && (options.flags & MMAPIO_LAZY))
			error = 0;
	}
	if (error) {
		file->fd = -1;
		file_destroy(file);
		return error_set(MMAPIO_ERROR_IO, error);
	}
	*out = file;
	return 0;
}

int mmapio_open(struct mmapio_file **out, const char *path, const struct mmapio_options *options)
{
	int access, fd, error;

	if (!out || !path || !options)
		return error_argument();
	access = options->mode == MMAPIO_READ_WRITE ? O_RDWR : O_RDONLY;
	/* O_NONBLOCK: a FIFO is to be refused, not waited for. */
	fd = open(path, access | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return error_set(MMAPIO_ERROR_IO, errno == ENXIO ? -EINVAL : -errno);
	error = file_open_named(out, fd, path, options);
	if (error)
		close(fd);
	return error;
}

int file_open_named(struct mmapio_file **out, int fd, const char *path,
		    const struct mmapio_options *options)
{
	char *copy = strdup(path);
	int error = copy ? mmapio_open_fd(out, fd, options) : error_set(MMAPIO_ERROR_IO, -ENOMEM);

	if (error)
		free(copy);
	else
		(*out)->path = copy;
	return error;
}

struct mmapio_file *mmapio_file_ref(struct mmapio_file *file)
{
	atomic_fetch_add_explicit(&file->references, 1, memory_order_relaxed);
	return file;
}

void mmapio_file_unref(struct mmapio_file *file)
{
	if (!file || atomic_fetch_sub(&file->references, 1) != 1)
		return;
	/* With a delay the flusher held a reference as long as anything was due. */
	if ((file->policy.bytes || file->policy.writes) && mmapio_is_dirty(file)) {
		/* on_error may use the file, and take references of its own. */
		atomic_store(&file->references, 1);
		(void)!mmapio_flush(file);
		if (atomic_fetch_sub(&file->references, 1) != 1)
			return;
	}
	flush_times(file);
	close(file->fd);
	file->fd = -1;
	if (file->on_close)
		file->on_close(file->context);
	pin_close(file);
}

int mmapio_file_detach(struct mmapio_file *file, int *fd)
{
	unsigned int only = 1;
	int error;

	if (!file || !fd)
		return error_argument();
	error = mmapio_flush(file); /* after which its flusher has no reference left */
	if (error)
		return error;
	flush_times(file);
	if (!atomic_compare_exchange_strong(&file->references, &only, 0))
		return error_set(MMAPIO_ERROR_BUSY, -EBUSY);
	if (pin_any(file)) {
		atomic_store(&file->references, 1);
		return error_set(MMAPIO_ERROR_BUSY, -EBUSY);
	}
	*fd = file->fd;
	file->fd = -1;
	if (file->on_close)
		file->on_close(file->context);
	pin_close(file);
	return 0;
}

void file_destroy(struct mmapio_file *file)
{
	struct pin_block *block, *next;

	region_free(atomic_load(&file->region));
	while (file->retired) {
		struct region *region = file->retired;

		file->retired = region->next_retired;
		region_free(region);
	}
	for (block = atomic_load(&file->pins.next); block; block = next) {
		next = atomic_load(&block->next);
		free(block);
	}
	range_set_clear(&file->in_flight);
	range_set_clear(&file->in_flight_anew);
	range_set_clear(&file->locked);
	range_set_clear(&file->random);
	range_set_clear(&file->sequential);
	range_set_clear(&file->dirty);
	range_set_clear(&file->failed);
	range_set_clear(&file->anew);
	range_set_clear(&file->allocated);
	range_set_clear(&file->resident);
	range_set_clear(&file->changes);
	free(file->path);
	pthread_cond_destroy(&file->exclusive_turn);
	pthread_cond_destroy(&file->shrink_over);
	pthread_cond_destroy(&file->pin_released);
	pthread_mutex_destroy(&file->dirty_lock);
	pthread_mutex_destroy(&file->pin_lock);
	pthread_mutex_destroy(&file->size_lock);
	pthread_mutex_destroy(&file->sync_lock);
	pthread_mutex_destroy(&file->lock_turn);
	free(file);
}

/* Whether the file has yet to get a descriptor for both. 1, 0 or negative errno. */
static int is_one_way_locked(const struct mmapio_file *file)
{
	int flags;

	if (atomic_load(&file->mode) == MMAPIO_READ_ONLY)
		return 1;
	flags = fcntl(file->fd, F_GETFL);
	return flags < 0 ? error_set(MMAPIO_ERROR_IO, -errno) : (flags & O_ACCMODE) == O_WRONLY;
}

int mmapio_file_make_writable(struct mmapio_file *file, int fd)
{
	struct stat st;
	int error;

	if (!file)
		return error_argument();
	if (atomic_load(&file->mode) == MMAPIO_COPY_ON_WRITE)
		return error_set(MMAPIO_ERROR_MODE, -EBADF);
	error = access_check(fd, MMAPIO_READ_WRITE, false);
	if (error)
		return error;
	if (fstat(fd, &st))
		return error_set(MMAPIO_ERROR_IO, -errno);
	if (st.st_dev != file->device || st.st_ino != file->inode)
		return error_argument();

	pthread_mutex_lock(&file->size_lock);
	error = is_one_way_locked(file);
	if (error > 0) {
		/* The same number from now on means the new descriptor, so that whoever is using it
		 * at this moment is not left with a closed one. */
		if (dup3(fd, file->fd, O_CLOEXEC) < 0) {
			error = error_set(MMAPIO_ERROR_IO, -errno);
		} else {
			error = 0;
			/* Who sees the mode must not get a region that cannot be written. */
			mapping_renew_locked(file, MMAPIO_READ_WRITE);
			atomic_store(&file->unmappable, false);
			atomic_store(&file->mode, MMAPIO_READ_WRITE);
		}
	}
	pthread_mutex_unlock(&file->size_lock);
	if (!error)
		close(fd);
	return error;
}

enum mmapio_mode mmapio_file_mode(const struct mmapio_file *file)
{
	return (enum mmapio_mode)atomic_load(&file->mode);
}

int mmapio_file_descriptor(const struct mmapio_file *file)
{
	return file->fd;
}

uint64_t mmapio_file_size(const struct mmapio_file *file)
{
	return atomic_load(&file->size);
}

bool mmapio_file_is_empty(const struct mmapio_file *file)
{
	return atomic_load(&file->size) == 0;
}

const char *mmapio_file_path(const struct mmapio_file *file)
{
	return file->path;
}

struct mmapio_policy mmapio_file_policy(const struct mmapio_file *file)
{
	return file->policy;
}

int mmapio_file_pointer(struct mmapio_file *file, void **data, size_t *length)
{
	uint64_t size;
	int error;

	if (!file || !data || !length)
		return error_argument();
	do {
		size = atomic_load(&file->size);
		error = mapping_reach(file, size);
	} while (error == -ERANGE); /* it shrank in between */
	if (error)
		return error_set(MMAPIO_ERROR_IO, error);
	*data = atomic_load(&file->region)->base;
	*length = (size_t)size;
	return 0;
}

size_t mmapio_page_size(void)
{
	return page_size();
}

uint64_t mmapio_align_up(uint64_t offset, uint64_t unit)
{
	uint64_t over = unit ? offset % unit : 0;

	if (over == 0)
		return offset;
	return offset > UINT64_MAX - (unit - over) ? UINT64_MAX : offset + (unit - over);
}

bool mmapio_file_accessed(struct mmapio_file *file)
{
	uint64_t now = monotonic_coarse_ns(), before = atomic_load(&file->accessed);

	if (now - before < UINT64_C(500000000) ||
	    !atomic_compare_exchange_strong(&file->accessed, &before, now))
		return false;
	flush_times(file); /* relatime compares them */
	mapping_access(file);
	return true;
}

int mmapio_file_set_times(struct mmapio_file *file, const struct timespec times[2])
{
	int error;

	if (!file || !times)
		return error_argument();
	error = flush_set_times(file, times);
	return error ? error_set(MMAPIO_ERROR_IO, error) : 0;
}

void size_grown_locked(struct mmapio_file *file, uint64_t end)
{
	uint64_t before = atomic_load(&file->size);

	if (!atomic_load(&file->shrinking_from) && end > before) {
		atomic_store(&file->size, end);
		advice_grown_locked(file, before);
	}
}

uint64_t size_held_locked(const struct mmapio_file *file)
{
	uint64_t size = atomic_load(&file->size), shrinking = atomic_load(&file->shrinking_from);

	return size > shrinking ? size : shrinking;
}

/* Adopts the size that the file has. size_lock is held. 0 or negative errno. */
static int size_adopt_locked(struct mmapio_file *file, struct stat *st)
{
	uint64_t size = atomic_load(&file->size), found;

	if (fstat(file->fd, st))
		return error_set(MMAPIO_ERROR_IO, -errno);
	found = (uint64_t)st->st_size;
	if (found < size) {
		atomic_store(&file->size, found);
		flush_truncated(file, found);
		advice_truncated_locked(file, found);
	} else if (atomic_load(&file->mode) != MMAPIO_COPY_ON_WRITE) {
		size_grown_locked(file, found);
	}
	return 0;
}

/* times: somebody will be told of them. */
static int refresh(struct mmapio_file *file, struct stat *st, bool times)
{
	int error = 0;

	if (times)
		flush_times(file);
	if (fstat(file->fd, st))
		return error_set(MMAPIO_ERROR_IO, -errno);
	if (atomic_load(&file->size) != (uint64_t)st->st_size) {
		/* A write of our own that extends the file may be half done: look again. */
		pthread_mutex_lock(&file->size_lock);
		error = size_adopt_locked(file, st);
		pthread_mutex_unlock(&file->size_lock);
	}
	if (!error && times)
		flush_times_seen(file, st);
	return error;
}

int mmapio_file_refresh(struct mmapio_file *file, struct stat *out)
{
	struct stat st;
	int error;

	if (!file)
		return error_argument();
	error = refresh(file, &st, out != NULL);
	if (!error && out)
		*out = st;
	return error;
}

int mmapio_file_check(struct mmapio_file *file, struct stat *out)
{
	struct stat st;
	bool changed;
	int error;

	if (!file)
		return error_argument();
	error = refresh(file, &st, out != NULL);
	if (error)
		return error;
	changed = flush_others(file, &st);
	if (out)
		*out = st;
	return changed;
}

/* Waits until no other shrink is under way. 0 or -EBUSY. */
static int shrink_wait_locked(struct mmapio_file *file, uint64_t deadline)
{
	struct timespec until = {.tv_sec = (time_t)(deadline / 1000000000),
				 .tv_nsec = (long)(deadline % 1000000000)};

	int error = 0;

	if (!atomic_load(&file->shrinking_from))
		return 0;
	flush_pause(file);
	while (atomic_load(&file->shrinking_from) && !error) {
		if (deadline == UINT64_MAX)
			pthread_cond_wait(&file->shrink_over, &file->size_lock);
		else if (monotonic_ns() >= deadline)
			error = -EBUSY;
		else
			pthread_cond_timedwait(&file->shrink_over, &file->size_lock, &until);
	}
	flush_resume(file);
	return error;
}

/* Lowers the size and waits, without size_lock, for the pins beyond it; restores it on -EBUSY. */
static int size_lower_locked(struct mmapio_file *file, uint64_t size, uint64_t deadline)
{
	struct stat st;
	int error;

	atomic_store(&file->shrinking_from, atomic_load(&file->size));
	atomic_store(&file->size, size);
	pthread_mutex_unlock(&file->size_lock);
	flush_pause(file);
	error = pin_wait(file, size, deadline);
	flush_resume(file);
	pthread_mutex_lock(&file->size_lock);
	if (!error && ftruncate(file->fd, (off_t)size))
		error = -errno;
	if (!error) {
		/* Others may have made it shorter than that meanwhile. */
		atomic_store(&file->size, size);
		flush_truncated(file, size);
		advice_truncated_locked(file, size);
	}
	if (error)
		/* What others made of it meanwhile can only be known if fstat(2) tells. */
		atomic_store(&file->size, atomic_load(&file->shrinking_from));
	atomic_store(&file->shrinking_from, 0);
	if (error)
		(void)!size_adopt_locked(file, &st);
	pthread_cond_broadcast(&file->shrink_over);
	return error;
}

int mmapio_file_resize(struct mmapio_file *file, uint64_t size, uint64_t timeout_ns)
{
	uint64_t deadline = UINT64_MAX, failures, before;
	int error;

	if (!file)
		return error_argument();
	if (atomic_load(&file->mode) != MMAPIO_READ_WRITE)
		return error_set(MMAPIO_ERROR_MODE, -EBADF);
	if (size > INT64_MAX)
		return error_set(MMAPIO_ERROR_RESIZE, -EFBIG);
	if (timeout_ns != MMAPIO_FOREVER) {
		uint64_t now = monotonic_ns();

		deadline = timeout_ns < INT64_MAX - now ? now + timeout_ns : INT64_MAX;
	}

	failures = flush_begin(file);
	pthread_mutex_lock(&file->size_lock);
	error = shrink_wait_locked(file, deadline);
	before = atomic_load(&file->size);
	if (!error && size < before) {
		error = size_lower_locked(file, size, deadline);
	} else if (!error) {
		if (ftruncate(file->fd, (off_t)size))
			error = -errno;
		else
			size_grown_locked(file, size);
	}
	pthread_mutex_unlock(&file->size_lock);
	if (!error) {
		watch_note(file, size < before ? size : before, size < before ? before : size);
		return flush_commit(file, size, size, false, failures);
	}
	flush_end(file);
	return error_set(error == -EBUSY ? MMAPIO_ERROR_BUSY : MMAPIO_ERROR_RESIZE, error);
}

/* What fallocate(2) changes of the bytes of a file of a size, and of the size: [*start, *end). */
static void allocate_range(int mode, uint64_t offset, uint64_t length, uint64_t size,
			   uint64_t *start, uint64_t *end)
{
	const bool zeroes = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);

	*start = zeroes && offset < size ? offset : size;
	*end = offset + length;
	if ((mode & FALLOC_FL_KEEP_SIZE) && *end > size)
		*end = size;
}

int mmapio_file_allocate(struct mmapio_file *file, int mode, uint64_t offset, uint64_t length)
{
	uint64_t failures, start, end;
	struct stat st;
	int error = 0;

	if (!file)
		return error_argument();
	if (atomic_load(&file->mode) != MMAPIO_READ_WRITE)
		return error_set(MMAPIO_ERROR_MODE, -EBADF);
	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return error_set(MMAPIO_ERROR_RESIZE, -EOPNOTSUPP);
	if (offset > INT64_MAX || length > INT64_MAX - offset)
		return error_set(MMAPIO_ERROR_RESIZE, -EFBIG);
	failures = flush_begin(file);
	pthread_mutex_lock(&file->size_lock);
	allocate_range(mode, offset, length, atomic_load(&file->size), &start, &end);
	if (fallocate(file->fd, mode, (off_t)offset, (off_t)length))
		error = -errno;
	/* It may have made holes, and does not say what it did before it failed. */
	pthread_mutex_lock(&file->dirty_lock);
	range_set_clear(&file->allocated);
	watch_note_locked(file, start, end);
	pthread_mutex_unlock(&file->dirty_lock);
	if (!error)
		size_grown_locked(file, end);
	(void)!size_adopt_locked(file, &st);
	pthread_mutex_unlock(&file->size_lock);
	if (!error)
		return flush_commit(file, offset, offset, false, failures);
	flush_end(file);
	return error_set(MMAPIO_ERROR_RESIZE, error);
}
