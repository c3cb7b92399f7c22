/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_inject.c - tests of what the library does when a call that it makes fails
 *
 * This program defines functions of libc, so that the library calls these: the n-th call of one
 * kind fails, or all from the n-th one on, for n = 1, 2, 3, ... until a scene gets by with fewer.
 * Whatever fails: the call says so with the code and kind that mmapio_error_last() has too, or
 * succeeds all the same; a failure leaves everything as it was, what the caller was to be given
 * included; nothing leaks; and the same call made once more, without failures, succeeds.
 *
 * Failures are made for one thread, and only during the call that a scene is about. Knows nothing
 * of which calls the library makes.
 */
#include "lib_test.h"

#include <dirent.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/uio.h>

/* The sanitizers have an allocator of their own, which finds leaks itself, and reserve space for it
 * as they like. */
#if defined(__GLIBC__) && !TEST_SANITIZED
#define INJECT_ALLOCATIONS 1
#else
#define INJECT_ALLOCATIONS 0
#endif

#define HUGE_PAGE ((size_t)2 << 20)

static uint64_t page;

/* --- Failures --------------------------------------------------------------------------------- */

enum kind {
	ALLOCATE,
	MAP,
	OPEN,
	STAT,
	TRUNCATE,
	ALLOCATE_DISK,
	DUPLICATE,
	CONTROL,
	READ,
	WRITE,
	SEEK,
	ADVISE,
	ADVISE_DESCRIPTOR,
	LOCK,
	UNLOCK,
	THREAD,
	MEMORY_FILE,
	LINK,
	RENAME,
	SYNC,
	SYNC_RANGE,
	COPY,
	COPY_MEMORY,
	TIMES,
	RANDOM,
	EVENT,
	NOTIFY,
	KINDS,
};

/* also: what the library may make of it. */
static const struct {
	const char *name;
	int error, also;
} kinds[KINDS] = {
	[ALLOCATE] = {"malloc", ENOMEM, 0},
	[MAP] = {"mmap", EOVERFLOW, ENOMEM},
	[OPEN] = {"open", EMFILE, 0},
	[STAT] = {"fstat", EIO, 0},
	[TRUNCATE] = {"ftruncate", EROFS, 0},
	[ALLOCATE_DISK] = {"fallocate", ENOSPC, 0},
	[DUPLICATE] = {"dup3", EMFILE, 0},
	[CONTROL] = {"fcntl", EPERM, 0},
	[READ] = {"pread", EIO, 0},
	[WRITE] = {"pwrite", ENOSPC, 0},
	[SEEK] = {"lseek", EIO, 0},
	[ADVISE] = {"madvise", ENOMEM, EIO},
	[ADVISE_DESCRIPTOR] = {"posix_fadvise", EIO, 0},
	[LOCK] = {"mlock2", EPERM, 0},
	[UNLOCK] = {"munlock", ENOMEM, 0},
	[THREAD] = {"pthread_create", EAGAIN, 0},
	[MEMORY_FILE] = {"memfd_create", ENFILE, 0},
	[LINK] = {"linkat", EDQUOT, 0},
	[RENAME] = {"rename", EROFS, 0},
	[SYNC] = {"fsync", EIO, 0},
	[SYNC_RANGE] = {"msync", EIO, 0},
	[COPY] = {"copy_file_range", EDQUOT, 0},
	[COPY_MEMORY] = {"process_vm_readv", ESRCH, 0},
	[TIMES] = {"futimens", EROFS, 0},
	[RANDOM] = {"getrandom", ENOSYS, 0},
	[EVENT] = {"eventfd", ENFILE, 0},
	[NOTIFY] = {"inotify_init1", EMFILE, ENOSPC},
};

static struct {
	enum kind kind;
	int error;	  /* 0: what its kind fails with */
	unsigned int nth; /* 0: none fails */
	bool all;	  /* those after it, too */
	unsigned int calls[KINDS];
	bool hit;
} injection;
static _Thread_local bool armed;
static atomic_long allocations; /* that have not been freed */

/* Libraries call these before main(), and the thread sanitizer, in which they are not ready. */
#define UNCHECKED __attribute__((no_sanitize("thread")))

UNCHECKED static bool inject(enum kind kind)
{
	unsigned int call;

	if (!armed)
		return false;
	call = ++injection.calls[kind];
	if (kind != injection.kind || injection.nth == 0 ||
	    (injection.all ? call < injection.nth : call != injection.nth))
		return false;
	injection.hit = true;
	errno = injection.error ? injection.error : kinds[kind].error;
	return true;
}

#define REAL(NAME)                                                                                 \
	do {                                                                                       \
		if (!real)                                                                         \
			*(void **)&real = dlsym(RTLD_NEXT, #NAME);                                 \
	} while (0)

/* A function that returns -1, or MAP_FAILED, on failure. */
#define REPLACE(KIND, TYPE, NAME, PARAMETERS, ARGUMENTS)                                           \
	UNCHECKED TYPE NAME PARAMETERS                                                             \
	{                                                                                          \
		static TYPE(*real) PARAMETERS;                                                     \
                                                                                                   \
		REAL(NAME);                                                                        \
		return inject(KIND) ? (TYPE)(intptr_t)-1 : real ARGUMENTS;                         \
	}

/* In the place of libc's, for the library too. */
#pragma GCC visibility push(default)

#if INJECT_ALLOCATIONS
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *memory);

static void *counted(void *memory)
{
	if (memory)
		atomic_fetch_add(&allocations, 1);
	return memory;
}

void *malloc(size_t size)
{
	return inject(ALLOCATE) ? NULL : counted(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
	return inject(ALLOCATE) ? NULL : counted(__libc_calloc(count, size));
}

void *realloc(void *memory, size_t size)
{
	void *moved;

	if (inject(ALLOCATE))
		return NULL;
	moved = __libc_realloc(memory, size);
	if (!memory)
		counted(moved);
	else if (size == 0 && !moved)
		atomic_fetch_sub(&allocations, 1);
	return moved;
}

void *aligned_alloc(size_t alignment, size_t size)
{
	return inject(ALLOCATE) ? NULL : counted(__libc_memalign(alignment, size));
}

void free(void *memory)
{
	if (memory)
		atomic_fetch_sub(&allocations, 1);
	__libc_free(memory);
}
#endif

UNCHECKED int open(const char *path, int flags, ...)
{
	static int (*real)(const char *, int, ...);
	va_list arguments;
	mode_t mode = 0;

	REAL(open);
	if (flags & (O_CREAT | O_TMPFILE)) {
		va_start(arguments, flags);
		mode = va_arg(arguments, mode_t);
		va_end(arguments);
	}
	return inject(OPEN) ? -1 : real(path, flags, mode);
}

UNCHECKED int fcntl(int fd, int command, ...)
{
	static int (*real)(int, int, ...);
	va_list arguments;
	void *argument;

	REAL(fcntl);
	va_start(arguments, command);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	return inject(CONTROL) ? -1 : real(fd, command, argument);
}

UNCHECKED int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			     void *(*run)(void *), void *argument)
{
	static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
	const bool was_armed = armed;
	int error = EAGAIN;

	REAL(pthread_create);
	if (!inject(THREAD)) {
		armed = false; /* what libc allocates for a thread it keeps for the next one */
		error = real(thread, attributes, run, argument);
		armed = was_armed;
	}
	return error;
}

/* Large mappings of files, wherever the kernel may choose, begin a page after where huge pages
 * could: some kernels and file systems always give such places, others never. */
UNCHECKED void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
	static void *(*real)(void *, size_t, int, int, int, off_t);
	char *space, *base;

	REAL(mmap);
	if (inject(MAP))
		return MAP_FAILED;
	if (!armed || address || fd < 0 || length < HUGE_PAGE)
		return real(address, length, protection, flags, fd, offset);
	space = real(NULL, length + 2 * HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (space == MAP_FAILED)
		return MAP_FAILED;
	base = space + (-(uintptr_t)space & (HUGE_PAGE - 1)) + page;
	munmap(space, (size_t)(base - space));
	munmap(base + length, (size_t)(space + 2 * HUGE_PAGE - base));
	return real(base, length, protection, flags | MAP_FIXED, fd, offset);
}

/* That of the sanitizers does nothing. */
UNCHECKED int munlock(const void *start, size_t length)
{
	return inject(UNLOCK) ? -1 : (int)syscall(SYS_munlock, start, length);
}

UNCHECKED int posix_fadvise(int fd, off_t offset, off_t length, int advice)
{
	static int (*real)(int, off_t, off_t, int);

	REAL(posix_fadvise);
	return inject(ADVISE_DESCRIPTOR) ? kinds[ADVISE_DESCRIPTOR].error
					 : real(fd, offset, length, advice);
}

REPLACE(STAT, int, fstat, (int fd, struct stat *st), (fd, st))
REPLACE(TRUNCATE, int, ftruncate, (int fd, off_t size), (fd, size))
REPLACE(ALLOCATE_DISK, int, fallocate, (int fd, int mode, off_t offset, off_t length),
	(fd, mode, offset, length))
REPLACE(DUPLICATE, int, dup3, (int from, int to, int flags), (from, to, flags))
REPLACE(READ, ssize_t, pread, (int fd, void *buffer, size_t length, off_t offset),
	(fd, buffer, length, offset))
REPLACE(WRITE, ssize_t, pwrite, (int fd, const void *buffer, size_t length, off_t offset),
	(fd, buffer, length, offset))
REPLACE(WRITE, ssize_t, write, (int fd, const void *buffer, size_t length), (fd, buffer, length))
REPLACE(SEEK, off_t, lseek, (int fd, off_t offset, int whence), (fd, offset, whence))
REPLACE(ADVISE, int, madvise, (void *start, size_t length, int advice), (start, length, advice))
REPLACE(ADVISE, int, mincore, (void *start, size_t length, unsigned char *pages),
	(start, length, pages))
REPLACE(LOCK, int, mlock2, (const void *start, size_t length, unsigned int flags),
	(start, length, flags))
REPLACE(MEMORY_FILE, int, memfd_create, (const char *name, unsigned int flags), (name, flags))
REPLACE(LINK, int, linkat, (int from, const char *name, int to, const char *new_name, int flags),
	(from, name, to, new_name, flags))
REPLACE(LINK, int, link, (const char *name, const char *new_name), (name, new_name))
REPLACE(RENAME, int, rename, (const char *name, const char *new_name), (name, new_name))
REPLACE(RENAME, int, renameat2,
	(int from, const char *name, int to, const char *new_name, unsigned int flags),
	(from, name, to, new_name, flags))
REPLACE(SYNC, int, fsync, (int fd), (fd))
REPLACE(SYNC, int, fdatasync, (int fd), (fd))
REPLACE(SYNC_RANGE, int, msync, (void *start, size_t length, int flags), (start, length, flags))
REPLACE(COPY, ssize_t, copy_file_range,
	(int from, off_t *from_offset, int to, off_t *to_offset, size_t length, unsigned int flags),
	(from, from_offset, to, to_offset, length, flags))
REPLACE(COPY_MEMORY, ssize_t, process_vm_readv,
	(pid_t pid, const struct iovec *to, unsigned long to_count, const struct iovec *from,
	 unsigned long from_count, unsigned long flags),
	(pid, to, to_count, from, from_count, flags))
REPLACE(COPY_MEMORY, ssize_t, process_vm_writev,
	(pid_t pid, const struct iovec *from, unsigned long from_count, const struct iovec *to,
	 unsigned long to_count, unsigned long flags),
	(pid, from, from_count, to, to_count, flags))
REPLACE(TIMES, int, futimens, (int fd, const struct timespec times[2]), (fd, times))
REPLACE(RANDOM, ssize_t, getrandom, (void *buffer, size_t length, unsigned int flags),
	(buffer, length, flags))
REPLACE(EVENT, int, eventfd, (unsigned int value, int flags), (value, flags))
REPLACE(EVENT, int, epoll_create1, (int flags), (flags))
REPLACE(EVENT, int, epoll_ctl, (int epoll, int operation, int fd, struct epoll_event *event),
	(epoll, operation, fd, event))
REPLACE(NOTIFY, int, inotify_init1, (int flags), (flags))
REPLACE(NOTIFY, int, inotify_add_watch, (int fd, const char *path, uint32_t mask), (fd, path, mask))

#pragma GCC visibility pop

/* --- Scenes ----------------------------------------------------------------------------------- */

#define PAGES	  3
#define HELD_MAX  16
#define UNTOUCHED 0x5a
#define WRONG	  (-10000) /* no errno: the call succeeded, and did something else */

/* What a scene works with. What is not NULL, -1 or of length 0 is released after it. */
struct stage {
	const struct scene *scene;
	char path[PATH_MAX], other[PATH_MAX];
	uint64_t size;
	int fd;			    /* of path; not the library's */
	int given;		    /* one that the call may take */
	struct mmapio_file *file;   /* what the call uses */
	struct mmapio_file *target; /* another that it uses */
	struct mmapio_flusher *flusher;
	struct mmapio_queue *queue;
	struct mmapio_watch *watch;
	struct mmapio_slice held[HELD_MAX];
	struct timespec mtime;
	bool made;	   /* by a call that failed */
	bool flush_failed; /* with an error of that kind */
	/* What the call is to set: UNTOUCHED bytes until then */
	struct {
		struct mmapio_file *file;
		struct mmapio_slice slice;
		struct mmapio_slice_mut slice_mut;
		struct mmapio_atomic_u64 view;
		struct mmapio_flusher *flusher;
		struct mmapio_queue *queue;
		struct mmapio_watch *watch;
		struct stat st;
		void *data;
		size_t length;
		uint64_t number;
		int fd;
		bool created;
	} out;
};

struct scene {
	const char *name;
	void (*set)(struct stage *stage); /* before: NULL: nothing */
	ssize_t (*call)(struct stage *stage);
	void (*undone)(struct stage *stage); /* it failed: all is as before */
	void (*done)(struct stage *stage);   /* it succeeded */
	struct mmapio_options options;	     /* of what is opened */
	uint64_t size;			     /* of the file; 0: some pages */
	int expected;			     /* what comes without failures, if negative */
};

static bool is_untouched(const void *data, size_t length)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < length; i++)
		if (bytes[i] != UNTOUCHED)
			return false;
	return true;
}

#define IS_UNTOUCHED(MEMBER) is_untouched(&(MEMBER), sizeof(MEMBER))

/* That path has these bytes of the pattern, by a descriptor of its own, and no more. */
static void path_is_pattern(const char *path, uint64_t size)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_uint_eq(test_size(fd), size);
	ck_assert(test_disk_is_pattern(fd, 0, size));
	close(fd);
}

static uint64_t path_size(const char *path)
{
	struct stat st;

	ck_assert_int_eq(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

static void make_pattern(const char *path, uint64_t size)
{
	const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	test_pwrite_pattern(fd, 0, size, size);
	close(fd);
}

static void set_open(struct stage *stage)
{
	stage->file = test_open_with(stage->path, &stage->scene->options);
}

/* Clean, as it was opened. */
static void undone_file(struct stage *stage)
{
	ck_assert_uint_eq(mmapio_file_size(stage->file), stage->size);
	ck_assert_uint_eq(test_size(stage->fd), stage->size);
	ck_assert(test_disk_is_pattern(stage->fd, 0, stage->size));
	ck_assert(!mmapio_is_dirty(stage->file));
	ck_assert_int_eq(mmapio_file_error(stage->file), 0);
}

static void done_file(struct stage *stage)
{
	ck_assert(test_reads_pattern(stage->file, 0, stage->size));
}

/* Opening */

static ssize_t call_open(struct stage *stage)
{
	return mmapio_open(&stage->out.file, stage->path, &stage->scene->options);
}

static void done_open(struct stage *stage)
{
	ck_assert_uint_eq(mmapio_file_size(stage->out.file), stage->size);
	ck_assert(test_reads_pattern(stage->out.file, 0, stage->size));
	ck_assert_str_eq(mmapio_file_path(stage->out.file), stage->path);
}

static void set_given(struct stage *stage)
{
	stage->given = open(stage->path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(stage->given, 0);
}

static ssize_t call_open_fd(struct stage *stage)
{
	const int error = mmapio_open_fd(&stage->out.file, stage->given, &stage->scene->options);

	if (!error)
		stage->given = -1;
	return error;
}

static void undone_given(struct stage *stage)
{
	ck_assert_uint_eq(test_size(stage->given), stage->size);
}

static void done_open_fd(struct stage *stage)
{
	ck_assert(test_reads_pattern(stage->out.file, 0, stage->size));
}

static void set_make_writable(struct stage *stage)
{
	set_open(stage);
	ck_assert_int_eq(mmapio_slice_get(stage->file, 0, stage->size, &stage->held[0]), 0);
	set_given(stage);
}

static void set_write_only(struct stage *stage)
{
	const int fd = open(stage->path, O_WRONLY | O_CLOEXEC);

	ck_assert_int_eq(mmapio_open_fd(&stage->file, fd, &stage->scene->options), 0);
	set_given(stage);
}

static ssize_t call_make_writable(struct stage *stage)
{
	const int error = mmapio_file_make_writable(stage->file, stage->given);

	if (!error)
		stage->given = -1;
	return error;
}

static void undone_make_writable(struct stage *stage)
{
	undone_given(stage);
	ck_assert_int_eq(mmapio_file_mode(stage->file), stage->scene->options.mode);
}

static void done_make_writable(struct stage *stage)
{
	struct mmapio_slice_mut slice;

	ck_assert_int_eq(mmapio_file_mode(stage->file), MMAPIO_READ_WRITE);
	if (stage->held[0].length)
		ck_assert(test_is_pattern(stage->held[0].data, 0, stage->size));
	ck_assert_int_eq(mmapio_slice_get_mut(stage->file, 0, 1, &slice), 0);
	*(uint8_t *)slice.data = test_byte(0);
	mmapio_slice_put_mut(&slice);
	done_file(stage);
}

/* Making */

static void set_nothing_there(struct stage *stage)
{
	unlink(stage->path);
}

static ssize_t call_open_or_create(struct stage *stage)
{
	return mmapio_open_or_create(&stage->out.file, stage->path, stage->size, 0600,
				     &stage->scene->options, &stage->out.created);
}

/* Or it has been made, but not opened: whole. */
static void undone_nothing_there(struct stage *stage)
{
	struct stat st;

	if (stat(stage->path, &st) == 0)
		ck_assert_int_eq(st.st_size, (off_t)stage->size);
	stage->made = access(stage->path, F_OK) == 0;
}

static void done_created(struct stage *stage)
{
	ck_assert(stage->out.created != stage->made);
	ck_assert_uint_eq(mmapio_file_size(stage->out.file), stage->size);
	test_write_pattern(stage->out.file, 0, stage->size);
}

static void undone_path(struct stage *stage)
{
	path_is_pattern(stage->path, stage->size);
}

static void done_opened(struct stage *stage)
{
	ck_assert(!stage->out.created);
	done_open(stage);
}

static ssize_t call_create(struct stage *stage)
{
	return mmapio_create(&stage->out.file, stage->path, stage->size, 0600,
			     &stage->scene->options);
}

static ssize_t call_anonymous(struct stage *stage)
{
	return mmapio_open_anonymous(&stage->out.file, stage->size, &stage->scene->options);
}

static void done_made(struct stage *stage)
{
	ck_assert_uint_eq(mmapio_file_size(stage->out.file), stage->size);
	test_write_pattern(stage->out.file, 0, stage->size);
	ck_assert(test_reads_pattern(stage->out.file, 0, stage->size));
}

/* Files as a whole */

static ssize_t call_load(struct stage *stage)
{
	return mmapio_load(stage->path, &stage->out.data, &stage->out.length);
}

static void done_load(struct stage *stage)
{
	ck_assert_uint_eq(stage->out.length, stage->size);
	ck_assert(test_is_pattern(stage->out.data, 0, stage->size));
}

#define SAVED "saved"

static ssize_t call_save(struct stage *stage)
{
	return mmapio_save(stage->path, SAVED, strlen(SAVED), 0600);
}

static void undone_save(struct stage *stage)
{
	if (!stage->flush_failed || path_size(stage->path) != strlen(SAVED))
		undone_path(stage);
}

static void done_save(struct stage *stage)
{
	const int fd = open(stage->path, O_RDONLY | O_CLOEXEC);
	char bytes[sizeof(SAVED)];

	ck_assert_int_eq(pread(fd, bytes, sizeof(bytes), 0), strlen(SAVED));
	ck_assert_mem_eq(bytes, SAVED, strlen(SAVED));
	close(fd);
}

static ssize_t call_copy_file(struct stage *stage)
{
	return mmapio_copy_file(stage->path, stage->other, 0600);
}

static void undone_copy_file(struct stage *stage)
{
	if (!stage->flush_failed || access(stage->other, F_OK))
		ck_assert_int_eq(access(stage->other, F_OK), -1);
	else
		path_is_pattern(stage->other, stage->size);
}

static void done_copy_file(struct stage *stage)
{
	path_is_pattern(stage->other, stage->size);
}

/* Slices */

static ssize_t call_slice(struct stage *stage)
{
	return mmapio_slice_get(stage->file, 0, stage->size, &stage->out.slice);
}

static void done_slice(struct stage *stage)
{
	ck_assert_uint_eq(stage->out.slice.length, stage->size);
	ck_assert(test_is_pattern(stage->out.slice.data, 0, stage->size));
}

static ssize_t call_slice_mut(struct stage *stage)
{
	return mmapio_slice_get_mut(stage->file, 0, stage->size, &stage->out.slice_mut);
}

static void done_slice_mut(struct stage *stage)
{
	ck_assert(test_is_pattern(stage->out.slice_mut.data, 0, stage->size));
	*(uint8_t *)stage->out.slice_mut.data = 0;
	ck_assert_int_eq(mmapio_commit(&stage->out.slice_mut, 0, 1), 0);
}

/* It has grown, by others, beyond what is mapped. */
static void set_outgrown(struct stage *stage)
{
	set_open(stage);
	ck_assert_int_eq(mmapio_slice_get(stage->file, 0, stage->size, &stage->held[0]), 0);
	stage->size = MIB;
	test_pwrite_pattern(stage->fd, 0, stage->size, stage->size);
	ck_assert_int_eq(mmapio_file_refresh(stage->file, NULL), 0);
}

static void undone_outgrown(struct stage *stage)
{
	ck_assert(test_is_pattern(stage->held[0].data, 0, stage->held[0].length));
	undone_file(stage);
}

static void set_many_held(struct stage *stage)
{
	set_open(stage);
	for (size_t i = 0; i < HELD_MAX; i++)
		ck_assert_int_eq(mmapio_slice_get(stage->file, i, page, &stage->held[i]), 0);
}

static ssize_t call_view(struct stage *stage)
{
	return mmapio_atomic_u64_get(stage->file, 8, 4, &stage->out.view);
}

static void done_view(struct stage *stage)
{
	ck_assert_int_eq(mmapio_atomic_u64_store(&stage->out.view, 0, 7), 0);
}

static ssize_t call_pointer(struct stage *stage)
{
	return mmapio_file_pointer(stage->file, &stage->out.data, &stage->out.length);
}

static void done_pointer(struct stage *stage)
{
	ck_assert(test_is_pattern(stage->out.data, 0, stage->out.length));
	/* The file's, not ours to free */
	memset(&stage->out.data, UNTOUCHED, sizeof(stage->out.data));
}

static int change_nothing(void *context, uint64_t offset, void *data, size_t length)
{
	(void)context;
	return test_is_pattern(data, offset, length) ? 0 : 1;
}

static ssize_t call_walk(struct stage *stage)
{
	return mmapio_chunks_change(stage->file, 0, UINT64_MAX, page, change_nothing, NULL);
}

static ssize_t call_touch(struct stage *stage)
{
	return mmapio_touch(stage->file, 0, UINT64_MAX);
}

/* Copies */

static ssize_t call_read(struct stage *stage)
{
	uint8_t bytes[100];
	const ssize_t count = mmapio_read(stage->file, page, bytes, sizeof(bytes));

	/* Check itself would be hit by failures. */
	if (count >= 0 && (count != sizeof(bytes) || !test_is_pattern(bytes, page, sizeof(bytes))))
		return WRONG;
	return count;
}

static ssize_t write_at(struct stage *stage, uint64_t offset)
{
	uint8_t bytes[5000];
	ssize_t count;

	test_fill(bytes, offset, sizeof(bytes));
	count = mmapio_write(stage->file, offset, bytes, sizeof(bytes));
	return count < 0 || count == sizeof(bytes) ? count : WRONG;
}

static ssize_t call_extend(struct stage *stage)
{
	return write_at(stage, stage->size - 1000);
}

static void done_extend(struct stage *stage)
{
	const uint64_t end = stage->size + 4000;

	ck_assert_uint_eq(mmapio_file_size(stage->file), end);
	ck_assert(test_reads_pattern(stage->file, 0, end));
	ck_assert_uint_ge(mmapio_dirty_bytes(stage->file), 5000);
}

static ssize_t call_write(struct stage *stage)
{
	return write_at(stage, page / 2);
}

static void done_write(struct stage *stage)
{
	uint64_t offset = page / 2, length;

	done_file(stage);
	ck_assert_int_eq(mmapio_dirty_next(stage->file, &offset, &length), 1);
	ck_assert_uint_le(offset, page / 2);
	ck_assert_uint_ge(offset + length, page / 2 + 5000);
}

static void set_guarded(struct stage *stage)
{
	ck_assert_int_eq(mmapio_guard_install(), 0);
	set_open(stage);
}

/* Dirty in one place, so that another one takes memory. */
static void set_dirty(struct stage *stage)
{
	set_open(stage);
	test_write_pattern(stage->file, 2 * page + 100, 100);
}

static void done_private(struct stage *stage)
{
	uint64_t offset = page / 2, length;

	done_file(stage);
	ck_assert_int_eq(mmapio_changes_next(stage->file, &offset, &length), 1);
	ck_assert_uint_le(offset, page / 2);
}

static void set_copy(struct stage *stage)
{
	const int fd = open(stage->other, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	close(fd);
	set_open(stage);
	stage->target = test_open(stage->other, MMAPIO_READ_WRITE);
}

static ssize_t call_copy(struct stage *stage)
{
	return mmapio_copy(stage->file, 0, stage->target, 0, stage->size);
}

static void undone_copy(struct stage *stage)
{
	ck_assert_uint_eq(mmapio_file_size(stage->target), 0);
	ck_assert(!mmapio_is_dirty(stage->target));
}

static void done_copy(struct stage *stage)
{
	ck_assert(test_reads_pattern(stage->target, 0, stage->size));
}

/* Size */

static ssize_t call_grow(struct stage *stage)
{
	return mmapio_file_resize(stage->file, MIB, MMAPIO_FOREVER);
}

static void done_grow(struct stage *stage)
{
	ck_assert_uint_eq(mmapio_file_size(stage->file), MIB);
	ck_assert_uint_eq(test_size(stage->fd), MIB);
	done_file(stage);
}

static ssize_t call_shrink(struct stage *stage)
{
	return mmapio_file_resize(stage->file, page, MMAPIO_FOREVER);
}

static void done_shrink(struct stage *stage)
{
	ck_assert_uint_eq(mmapio_file_size(stage->file), page);
	ck_assert_uint_eq(test_size(stage->fd), page);
	ck_assert(test_reads_pattern(stage->file, 0, page));
}

static void set_held(struct stage *stage)
{
	set_open(stage);
	ck_assert_int_eq(mmapio_slice_get(stage->file, 0, stage->size, &stage->held[0]), 0);
}

static ssize_t call_shrink_try(struct stage *stage)
{
	return mmapio_file_resize(stage->file, page, 0);
}

static void undone_shrink_try(struct stage *stage)
{
	ck_assert_uint_eq(mmapio_file_size(stage->file), stage->size);
	ck_assert(test_disk_is_pattern(stage->fd, 0, stage->size));
}

static ssize_t call_allocate(struct stage *stage)
{
	return mmapio_file_allocate(stage->file, 0, 0, MIB);
}

static ssize_t call_refresh(struct stage *stage)
{
	return mmapio_file_refresh(stage->file, &stage->out.st);
}

static void done_refresh(struct stage *stage)
{
	ck_assert_int_eq(stage->out.st.st_size, (off_t)stage->size);
	done_file(stage);
}

/* Others have made it longer. */
static void set_others(struct stage *stage)
{
	set_open(stage);
	test_pwrite_pattern(stage->fd, stage->size, page, page);
	stage->size += page;
}

static void undone_others(struct stage *stage)
{
	ck_assert_uint_eq(mmapio_file_size(stage->file), stage->size - page);
}

static ssize_t call_check(struct stage *stage)
{
	return mmapio_file_check(stage->file, &stage->out.st);
}

/* Times. Stores to a page that is dirty: the kernel does not move mtime, so that we have to. */
static void set_stored(struct stage *stage)
{
	struct mmapio_slice_mut slice;
	struct stat st;

	set_open(stage);
	ck_assert_int_eq(mmapio_slice_get_mut(stage->file, 0, 1, &slice), 0);
	for (int i = 0; i < 2; i++) {
		*(volatile uint8_t *)slice.data = test_byte(0);
		ck_assert_int_eq(mmapio_commit(&slice, 0, 1), 0);
		if (i == 0) {
			ck_assert_int_eq(mmapio_file_refresh(stage->file, &st), 0);
			stage->mtime = st.st_mtim;
		}
	}
	mmapio_slice_put_mut(&slice);
}

/* Whoever asks for the times is told of the store, however often it could not be done before. */
static void done_stored(struct stage *stage)
{
	struct stat st;

	ck_assert_int_eq(mmapio_file_refresh(stage->file, &st), 0);
	ck_assert(st.st_mtim.tv_sec > stage->mtime.tv_sec ||
		  (st.st_mtim.tv_sec == stage->mtime.tv_sec &&
		   st.st_mtim.tv_nsec > stage->mtime.tv_nsec));
}

static ssize_t call_set_times(struct stage *stage)
{
	const struct timespec times[2] = {{1000, 0}, {2000, 0}};

	return mmapio_file_set_times(stage->file, times);
}

static void done_set_times(struct stage *stage)
{
	struct stat st;

	ck_assert_int_eq(fstat(stage->fd, &st), 0);
	ck_assert_int_eq(st.st_mtim.tv_sec, 2000);
}

/* Flushing */

static ssize_t call_flush(struct stage *stage)
{
	return mmapio_flush(stage->file);
}

static ssize_t call_flush_range(struct stage *stage)
{
	return mmapio_flush_range(stage->file, 2 * page, page);
}

static ssize_t call_sync(struct stage *stage)
{
	return mmapio_sync(stage->file, true);
}

/* It stays in doubt until it has been written anew. */
static void undone_flush(struct stage *stage)
{
	ck_assert(stage->flush_failed);
	ck_assert_int_lt(mmapio_file_error(stage->file), 0);
	ck_assert_int_eq(mmapio_flush(stage->file), mmapio_file_error(stage->file));
	test_write_pattern(stage->file, 2 * page + 100, 100);
}

static void done_flush(struct stage *stage)
{
	ck_assert_int_eq(mmapio_file_error(stage->file), 0);
	ck_assert(!mmapio_is_dirty(stage->file));
	done_file(stage);
}

/* The write has been made; its flush, which the policy asked for, has failed. */
static void undone_always(struct stage *stage)
{
	if (!stage->flush_failed) {
		undone_file(stage);
		return;
	}
	ck_assert_int_lt(mmapio_file_error(stage->file), 0);
	done_file(stage);
}

static void done_always(struct stage *stage)
{
	ck_assert_int_eq(mmapio_file_error(stage->file), 0);
	ck_assert_uint_eq(mmapio_dirty_bytes(stage->file), 0);
	done_file(stage);
}

static ssize_t call_detach(struct stage *stage)
{
	const int error = mmapio_file_detach(stage->file, &stage->out.fd);

	if (!error)
		stage->file = NULL;
	return error;
}

static void done_detach(struct stage *stage)
{
	ck_assert_uint_eq(test_size(stage->out.fd), stage->size);
}

static ssize_t call_flusher(struct stage *stage)
{
	return mmapio_flusher_new(&stage->out.flusher);
}

/* Changes of a copy-on-write file: in three places, so that they take memory. */

static void set_changed(struct stage *stage)
{
	set_open(stage);
	stage->target = test_open(stage->path, MMAPIO_READ_WRITE);
	for (unsigned int i = 0; i < PAGES; i++)
		test_write(stage->file, i * page + 10, "changed", 7);
}

static void undone_changed(struct stage *stage)
{
	char found[7];

	for (unsigned int i = 0; i < PAGES; i++) {
		uint64_t offset = i * page + 10, length;

		ck_assert_int_eq(mmapio_changes_next(stage->file, &offset, &length), 1);
		ck_assert_uint_le(offset, i * page + 10);
		ck_assert_uint_ge(offset + length, i * page + 17);
		ck_assert_int_eq(mmapio_read(stage->file, i * page + 10, found, 7), 7);
		ck_assert_mem_eq(found, "changed", 7);
	}
}

static ssize_t call_changes_commit(struct stage *stage)
{
	return mmapio_changes_commit(stage->file, stage->target);
}

static void done_changes_commit(struct stage *stage)
{
	char found[7];

	ck_assert_uint_eq(mmapio_changes_bytes(stage->file), 0);
	for (unsigned int i = 0; i < PAGES; i++) {
		ck_assert_int_eq(pread(stage->fd, found, 7, (off_t)(i * page + 10)), 7);
		ck_assert_mem_eq(found, "changed", 7);
	}
}

static ssize_t call_changes_discard(struct stage *stage)
{
	return mmapio_changes_discard(stage->file);
}

static void done_changes_discard(struct stage *stage)
{
	ck_assert_uint_eq(mmapio_changes_bytes(stage->file), 0);
	done_file(stage);
}

/* Advice and locks */

static ssize_t call_advise_random(struct stage *stage)
{
	return mmapio_advise(stage->file, page, page, MMAPIO_ADVICE_RANDOM);
}

static ssize_t call_advise_dont_need(struct stage *stage)
{
	return mmapio_advise(stage->file, 0, UINT64_MAX, MMAPIO_ADVICE_DONT_NEED);
}

static ssize_t call_advise_will_need(struct stage *stage)
{
	return mmapio_advise(stage->file, 0, UINT64_MAX, MMAPIO_ADVICE_WILL_NEED);
}

static uint64_t locked(struct stage *stage)
{
	uint64_t bytes;

	/* Only those that are in memory count. */
	ck_assert_int_eq(mmapio_touch(stage->file, 0, UINT64_MAX), 0);
	ck_assert_int_eq(mmapio_locked_bytes(stage->file, &bytes), 0);
	return bytes;
}

static void set_locked(struct stage *stage)
{
	set_open(stage);
	ck_assert_int_eq(mmapio_lock(stage->file, page, page), 0);
}

static ssize_t call_lock(struct stage *stage)
{
	return mmapio_lock(stage->file, 0, UINT64_MAX);
}

static ssize_t call_lock_page(struct stage *stage)
{
	return mmapio_lock(stage->file, page, page);
}

/* Not beside what is locked, so that to remember it takes memory. */
static void set_locked_first(struct stage *stage)
{
	set_open(stage);
	ck_assert_int_eq(mmapio_lock(stage->file, 0, page), 0);
}

static ssize_t call_lock_apart(struct stage *stage)
{
	return mmapio_lock(stage->file, 2 * page, page);
}

static void done_lock_apart(struct stage *stage)
{
	ck_assert_uint_eq(locked(stage), 2 * page);
}

static void undone_unlocked(struct stage *stage)
{
	ck_assert_uint_eq(locked(stage), 0);
}

static void undone_locked(struct stage *stage)
{
	ck_assert_uint_eq(locked(stage), page);
}

static void done_lock(struct stage *stage)
{
	ck_assert_uint_eq(locked(stage), PAGES * page);
}

static void set_locked_all(struct stage *stage)
{
	set_open(stage);
	ck_assert_int_eq(mmapio_lock(stage->file, 0, UINT64_MAX), 0);
}

static ssize_t call_unlock(struct stage *stage)
{
	return mmapio_unlock(stage->file, page, page);
}

static void done_unlock(struct stage *stage)
{
	ck_assert_uint_eq(locked(stage), (PAGES - 1) * page);
}

static ssize_t call_locked_bytes(struct stage *stage)
{
	return mmapio_locked_bytes(stage->file, &stage->out.number);
}

static void done_locked_bytes(struct stage *stage)
{
	ck_assert_uint_eq(stage->out.number, page);
}

/* Queues and watches */

static ssize_t call_queue(struct stage *stage)
{
	return mmapio_queue_new(&stage->out.queue, 3);
}

static void set_queue(struct stage *stage)
{
	set_open(stage);
	ck_assert_int_eq(mmapio_queue_new(&stage->queue, 1), 0);
}

static ssize_t call_submit(struct stage *stage)
{
	return mmapio_queue_flush(stage->queue, stage->file, 0, UINT64_MAX, NULL, NULL,
				  &stage->out.number);
}

static ssize_t call_watch(struct stage *stage)
{
	return mmapio_watch_new(&stage->out.watch, stage->file);
}

static void done_watch(struct stage *stage)
{
	struct mmapio_event event = MMAPIO_EVENT_INIT;

	ck_assert_int_eq(mmapio_watch_next(stage->out.watch, &event), 0);
	test_pwrite(stage->fd, "", 1, 0);
	ck_assert_int_eq(mmapio_watch_next(stage->out.watch, &event), 1);
}

#define MODE(MODE)                                                                                 \
	{                                                                                          \
		sizeof(struct mmapio_options), .mode = (MODE)                                      \
	}
#define MODE_FLAGS(M, F)                                                                           \
	{                                                                                          \
		sizeof(struct mmapio_options), .mode = (M), .flags = (F)                           \
	}
#define READ_ONLY      MODE(MMAPIO_READ_ONLY)
#define READ_WRITE     MODE(MMAPIO_READ_WRITE)
#define COPY_ON_WRITE  MODE(MMAPIO_COPY_ON_WRITE)
#define LAZY_ONLY      MODE_FLAGS(MMAPIO_READ_ONLY, MMAPIO_LAZY)
#define LAZY_WRITE     MODE_FLAGS(MMAPIO_READ_WRITE, MMAPIO_LAZY)
#define LAZY_COPY      MODE_FLAGS(MMAPIO_COPY_ON_WRITE, MMAPIO_LAZY)
#define HUGE(M)	       MODE_FLAGS(M, MMAPIO_HUGE_PAGES)
#define TOUCHED(FLAGS) MODE_FLAGS(MMAPIO_READ_ONLY, MMAPIO_TOUCH | (FLAGS))

static const struct scene scenes[] = {
	{"open", NULL, call_open, NULL, done_open, .options = READ_ONLY},
	{"open read-write", NULL, call_open, NULL, done_open, .options = READ_WRITE},
	{"open copy-on-write", NULL, call_open, NULL, done_open, .options = COPY_ON_WRITE},
	{"open lazy", NULL, call_open, NULL, done_open, .options = LAZY_ONLY},
	{"open lazy, read-write", NULL, call_open, NULL, done_open, .options = LAZY_WRITE},
	{"open lazy, copy-on-write", NULL, call_open, NULL, done_open, .options = LAZY_COPY},
	{"open huge", NULL, call_open, NULL, done_open, .options = HUGE(MMAPIO_READ_WRITE),
	 .size = HUGE_PAGE + 4096},
	{"open huge, copy-on-write", NULL, call_open, NULL, done_open,
	 .options = HUGE(MMAPIO_COPY_ON_WRITE), .size = HUGE_PAGE + 4096},
	{"open touched", NULL, call_open, NULL, done_open, .options = TOUCHED(0)},
	{"open lazy, touched", NULL, call_open, NULL, done_open, .options = TOUCHED(MMAPIO_LAZY)},
	{"open_fd", set_given, call_open_fd, undone_given, done_open_fd, .options = READ_WRITE},
	{"make_writable", set_make_writable, call_make_writable, undone_make_writable,
	 done_make_writable, .options = READ_ONLY},
	{"make_writable, write-only", set_write_only, call_make_writable, undone_given,
	 done_make_writable, .options = LAZY_WRITE},
	{"open_or_create", set_nothing_there, call_open_or_create, undone_nothing_there,
	 done_created, .options = READ_WRITE},
	{"open_or_create, there", NULL, call_open_or_create, undone_path, done_opened,
	 .options = READ_WRITE},
	{"create", NULL, call_create, NULL, done_made, .options = READ_WRITE},
	{"open_anonymous", NULL, call_anonymous, NULL, done_made, .options = READ_WRITE},
	{"load", NULL, call_load, undone_path, done_load, .options = READ_ONLY},
	{"save", NULL, call_save, undone_save, done_save, .options = READ_ONLY},
	{"copy_file", NULL, call_copy_file, undone_copy_file, done_copy_file, .options = READ_ONLY},
	{"slice", set_open, call_slice, undone_file, done_slice, .options = LAZY_ONLY},
	{"slice, copy-on-write", set_open, call_slice_mut, undone_file, done_slice_mut,
	 .options = LAZY_COPY},
	{"slice_mut", set_open, call_slice_mut, undone_file, done_slice_mut, .options = LAZY_WRITE},
	{"slice beyond the mapping", set_outgrown, call_slice, undone_outgrown, done_slice,
	 .options = READ_WRITE},
	{"one slice more", set_many_held, call_slice, undone_file, done_slice,
	 .options = READ_ONLY},
	{"atomic", set_open, call_view, undone_file, done_view, .options = LAZY_WRITE},
	{"pointer", set_open, call_pointer, undone_file, done_pointer, .options = LAZY_WRITE},
	{"chunks_change", set_open, call_walk, undone_file, done_file, .options = LAZY_WRITE},
	{"touch", set_open, call_touch, undone_file, done_file, .options = LAZY_ONLY},
	{"read", set_open, call_read, undone_file, done_file, .options = LAZY_ONLY},
	{"read, copy-on-write", set_open, call_read, undone_file, done_file, .options = LAZY_COPY},
	{"read, guarded", set_guarded, call_read, undone_file, done_file, .options = LAZY_ONLY},
	{"write that extends", set_open, call_extend, undone_file, done_extend,
	 .options = READ_WRITE},
	{"write", set_open, call_write, undone_file, done_write, .options = LAZY_WRITE},
	{"write, guarded", set_guarded, call_write, undone_file, done_write, .options = LAZY_WRITE},
	{"write, dirty", set_dirty, call_write, NULL, done_write, .options = READ_WRITE},
	{"write, copy-on-write", set_open, call_write, undone_file, done_private,
	 .options = LAZY_COPY},
	{"copy", set_copy, call_copy, undone_copy, done_copy, .options = READ_ONLY},
	{"grow", set_open, call_grow, undone_file, done_grow, .options = READ_WRITE},
	{"grow, locked", set_locked_all, call_grow, undone_file, done_grow, .options = READ_WRITE},
	{"shrink", set_open, call_shrink, undone_file, done_shrink, .options = READ_WRITE},
	{"shrink, locked", set_locked_all, call_shrink, undone_file, done_shrink,
	 .options = READ_WRITE},
	{"shrink, busy", set_held, call_shrink_try, undone_shrink_try, NULL, .options = READ_WRITE,
	 .expected = -EBUSY},
	{"allocate", set_open, call_allocate, undone_file, done_grow, .options = READ_WRITE},
	{"refresh", set_others, call_refresh, undone_others, done_refresh, .options = READ_WRITE},
	{"check", set_others, call_check, undone_others, done_refresh, .options = READ_WRITE},
	{"times of stores", set_stored, call_refresh, done_stored, done_stored,
	 .options = READ_WRITE},
	{"set_times", set_stored, call_set_times, done_stored, done_set_times,
	 .options = READ_WRITE},
	{"flush", set_dirty, call_flush, undone_flush, done_flush, .options = READ_WRITE},
	{"flush_range", set_dirty, call_flush_range, undone_flush, done_flush,
	 .options = READ_WRITE},
	{"flush_range, lazy", set_dirty, call_flush_range, undone_flush, done_flush,
	 .options = LAZY_WRITE},
	{"sync", set_dirty, call_sync, undone_flush, done_flush, .options = READ_WRITE},
	{"policy always", set_open, call_write, undone_always, done_always,
	 .options = {sizeof(struct mmapio_options), .mode = MMAPIO_READ_WRITE,
		     .policy = {.always = true}}},
	{"policy of bytes", set_open, call_write, undone_always, done_always,
	 .options = {sizeof(struct mmapio_options), .mode = MMAPIO_READ_WRITE,
		     .policy = {.bytes = 1000}}},
	{"detach", set_dirty, call_detach, undone_flush, done_detach, .options = READ_WRITE},
	{"flusher_new", NULL, call_flusher, NULL, NULL, .options = READ_ONLY},
	{"changes_commit", set_changed, call_changes_commit, undone_changed, done_changes_commit,
	 .options = COPY_ON_WRITE},
	{"changes_discard", set_changed, call_changes_discard, undone_changed, done_changes_discard,
	 .options = COPY_ON_WRITE},
	{"advise", set_open, call_advise_random, undone_file, done_file, .options = READ_WRITE},
	{"advise, not needed", set_open, call_advise_dont_need, undone_file, done_file,
	 .options = READ_WRITE},
	{"advise, needed", set_open, call_advise_will_need, undone_file, done_file,
	 .options = READ_WRITE},
	{"lock", set_open, call_lock, undone_unlocked, done_lock, .options = LAZY_ONLY},
	{"lock more", set_locked, call_lock, undone_locked, done_lock, .options = READ_WRITE},
	{"lock apart", set_locked_first, call_lock_apart, undone_locked, done_lock_apart,
	 .options = READ_WRITE},
	{"lock again", set_locked, call_lock_page, undone_locked, undone_locked,
	 .options = READ_WRITE},
	{"unlock", set_locked_all, call_unlock, done_lock, done_unlock, .options = READ_WRITE},
	{"locked_bytes", set_locked, call_locked_bytes, undone_locked, done_locked_bytes,
	 .options = READ_WRITE},
	{"queue_new", NULL, call_queue, NULL, NULL, .options = READ_ONLY},
	{"queue_flush", set_queue, call_submit, undone_file, done_file, .options = READ_WRITE},
	{"watch_new", set_open, call_watch, undone_file, done_watch, .options = READ_WRITE},
};

/* --- Running a scene -------------------------------------------------------------------------- */

static unsigned int open_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned int count = 0;

	ck_assert_ptr_nonnull(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

/* Names in the folder, but those of the scene itself. */
static unsigned int unfinished(void)
{
	DIR *folder = opendir(test_folder_path);
	unsigned int count = 0;
	struct dirent *entry;

	ck_assert_ptr_nonnull(folder);
	while ((entry = readdir(folder)))
		count += strncmp(entry->d_name, ".mmapio-", 8) == 0;
	closedir(folder);
	return count;
}

static void stage_begin(struct stage *stage, const struct scene *scene)
{
	memset(stage, 0, sizeof(*stage));
	stage->scene = scene;
	stage->size = scene->size ? scene->size : PAGES * page;
	stage->given = -1;
	memset(&stage->out, UNTOUCHED, sizeof(stage->out));
	test_path(stage->path, "scene");
	test_path(stage->other, "other");
	make_pattern(stage->path, stage->size);
	stage->fd = open(stage->path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(stage->fd, 0);
	if (scene->set)
		scene->set(stage);
}

#define RELEASE(MEMBER, STATEMENT)                                                                 \
	do {                                                                                       \
		if (!IS_UNTOUCHED(MEMBER))                                                         \
			STATEMENT;                                                                 \
	} while (0)

static void stage_end(struct stage *stage)
{
	RELEASE(stage->out.slice, mmapio_slice_put(&stage->out.slice));
	RELEASE(stage->out.slice_mut, mmapio_slice_put_mut(&stage->out.slice_mut));
	RELEASE(stage->out.view, (void)!mmapio_atomic_u64_put(&stage->out.view));
	RELEASE(stage->out.watch, mmapio_watch_free(stage->out.watch));
	RELEASE(stage->out.queue, mmapio_queue_free(stage->out.queue));
	RELEASE(stage->out.file, mmapio_file_unref(stage->out.file));
	RELEASE(stage->out.flusher, mmapio_flusher_free(stage->out.flusher));
	RELEASE(stage->out.data, free(stage->out.data));
	RELEASE(stage->out.fd, close(stage->out.fd));
	for (size_t i = 0; i < HELD_MAX; i++)
		mmapio_slice_put(&stage->held[i]);
	mmapio_queue_free(stage->queue);
	mmapio_file_unref(stage->file);
	mmapio_file_unref(stage->target);
	close(stage->fd);
	if (stage->given >= 0)
		close(stage->given);
	unlink(stage->path);
	unlink(stage->other);
	if (stage->scene->set == set_guarded)
		mmapio_guard_remove();
}

/* The call with the failures that are set: what it returns. */
static ssize_t stage_call(struct stage *stage)
{
	ssize_t result;

	memset(injection.calls, 0, sizeof(injection.calls));
	injection.hit = false;
	armed = true;
	result = stage->scene->call(stage);
	armed = false;
	return result;
}

/* What a scene returns without failures. */
static bool is_success(const struct scene *scene, ssize_t result)
{
	return scene->expected ? result == scene->expected : result >= 0;
}

/* Runs a scene with the failures that are set. Whether there was any. */
static bool scene_run(const struct scene *scene)
{
	const unsigned int descriptors = open_descriptors(), reserved = test_mappings("---p");
	const unsigned int memory_files = test_mappings("memfd:mmapio");
	const long before = atomic_load(&allocations);
	const unsigned int nth = injection.nth;
	char where[128];
	struct stage stage;
	ssize_t result;
	bool hit;

	snprintf(where, sizeof(where), "%s, %s %u%s", scene->name, kinds[injection.kind].name, nth,
		 injection.all ? " and later ones" : "");
	stage_begin(&stage, scene);
	result = stage_call(&stage);
	hit = injection.hit;
	injection.nth = 0;
	if (!is_success(scene, result)) {
		const int code = -kinds[injection.kind].error, also = -kinds[injection.kind].also;
		struct mmapio_error error = MMAPIO_ERROR_INIT;

		ck_assert_msg(hit, "%s: %zd without a failure", where, result);
		ck_assert_msg(result == code || (also && result == also), "%s: %zd", where, result);
		ck_assert_int_eq(mmapio_error_last(&error), (int)result);
		ck_assert_msg(error.kind != MMAPIO_ERROR_NONE && error.code == result,
			      "%s: kind %d, code %d", where, error.kind, error.code);
		ck_assert_msg(IS_UNTOUCHED(stage.out), "%s: what it was to set is touched", where);
		stage.flush_failed = error.kind == MMAPIO_ERROR_FLUSH;
		if (scene->undone)
			scene->undone(&stage);
		result = stage_call(&stage);
		ck_assert_msg(is_success(scene, result), "%s: then %zd", where, result);
	} else if (scene->expected && scene->undone) {
		scene->undone(&stage);
	}
	if (scene->done)
		scene->done(&stage);
	stage_end(&stage);

	ck_assert_msg(open_descriptors() == descriptors, "%s: descriptors", where);
	ck_assert_msg(test_mappings(stage.path) == 0, "%s: mappings", where);
	ck_assert_msg(test_mappings("memfd:mmapio") == memory_files, "%s: mappings", where);
	ck_assert_msg(TEST_SANITIZED || test_mappings("---p") == reserved, "%s: reserved space",
		      where);
	ck_assert_msg(unfinished() == 0, "%s: unfinished files", where);
	ck_assert_msg(atomic_load(&allocations) == before, "%s: %ld allocations", where,
		      atomic_load(&allocations) - before);
	injection.nth = nth;
	return hit;
}

START_TEST(whatever_fails)
{
	const struct scene *scene = &scenes[_i];
	unsigned int calls[KINDS], failures = 0;

	/* Without failures: what is allocated once and kept is, from then on. */
	injection.nth = 0;
	for (int i = 0; i < 2; i++) {
		injection.kind = 0;
		if (i == 0) {
			struct stage stage;

			stage_begin(&stage, scene);
			ck_assert(is_success(scene, stage_call(&stage)));
			memcpy(calls, injection.calls, sizeof(calls));
			if (scene->done)
				scene->done(&stage);
			stage_end(&stage);
		} else {
			scene_run(scene);
		}
	}
	for (injection.kind = 0; injection.kind < KINDS; injection.kind++) {
		for (int all = 0; all < 2 && calls[injection.kind]; all++) {
			injection.all = all;
			injection.nth = 1;
			while (scene_run(scene)) {
				failures++;
				ck_assert_uint_lt(++injection.nth, 100);
			}
		}
	}
	/* Else nothing would have been tested: that the functions above are what it calls. */
	ck_assert_msg(failures || !INJECT_ALLOCATIONS, "%s: nothing could fail", scene->name);
}
END_TEST

/* Kernels before 5.14 lack MADV_POPULATE_READ. _i: with the guard */
START_TEST(touch_on_older_kernels)
{
	char path[PATH_MAX];
	const int fd = test_file(path, MIB);
	struct mmapio_file *file;

	if (_i)
		ck_assert_int_eq(mmapio_guard_install(), 0);
	test_drop_all(fd);
	file = test_open(path, MMAPIO_READ_ONLY);
	ck_assert_uint_eq(test_cached_pages_of(fd, 0, 0), 0);
	injection.kind = ADVISE;
	injection.error = EINVAL;
	injection.all = true;
	injection.nth = 1;
	armed = true;
	ck_assert_int_eq(mmapio_touch(file, 3, UINT64_MAX), 0);
	armed = false;
	ck_assert(injection.hit);
	ck_assert_uint_eq(test_cached_pages_of(fd, 0, 0), MIB / page);
	mmapio_file_unref(file);
	if (_i)
		mmapio_guard_remove();
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("inject");
	TCase *failures = test_case(suite, "failures");

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	test_make_folder();
	tcase_add_loop_test(failures, whatever_fails, 0, (int)ARRAY_SIZE(scenes));
	tcase_add_loop_test(failures, touch_on_older_kernels, 0, 2);
	return test_run(suite);
}
