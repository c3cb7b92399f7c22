/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mmapio.h - memory-mapped file I/O
 *
 * This header is the reference of libmmapio.
 *
 * A struct mmapio_file is one open file and, as long as the kernel can give it one, a mapping of
 * the whole of it. Bytes are reached without a copy through slices, which pin the mapped bytes that
 * they point to, or with a copy through mmapio_read() and mmapio_write().
 *
 * Conventions
 *   Offsets, lengths and sizes are bytes. Times are nanoseconds of CLOCK_MONOTONIC.
 *   Calls return 0 or a count on success and a negative errno on failure; nothing has changed on a
 *   failure unless the call says otherwise.
 *   A range is [offset, offset + length). It is outside the file, -ERANGE, when offset + length is
 *   beyond the size (also where the sum overflows). An empty range at the end is inside.
 *   A call that needs a mode which the file does not have returns -EBADF, as write(2) does.
 *   A NULL where none is allowed gives -EINVAL where a call can say so.
 *   What exactly was wrong: mmapio_error_last().
 *   Every call may be made from any thread at any time, on the same file too, unless it says
 *   otherwise. No call may be made from a signal handler.
 *   The library starts no thread but in mmapio_flusher_new() and mmapio_queue_new(), and installs
 * no signal handler but in mmapio_guard_install().
 *
 * What a mapping can do to a process, and what this library does about it
 *   Touching a mapped page raises SIGBUS when the file has become shorter than that, when the page
 *   cannot be read, and when it is a hole and the disk is full (mmap(2)). mmapio_read() and
 *   mmapio_write() never do; see mmapio_guard_install(). A user of slices who touches them in user
 *   space must expect it where others can truncate the file. A system call that is given a
 *   slice (write(2), send(2), ...) fails with EFAULT instead.
 */
#ifndef MMAPIO_H
#define MMAPIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#define MMAPIO_MUST_CHECK __attribute__((warn_unused_result))
#ifdef MMAPIO_LIBRARY /* the library itself checks them */
#define MMAPIO_NONNULL(...)
#else
#define MMAPIO_NONNULL(...) __attribute__((nonnull(__VA_ARGS__)))
#endif
#else
#define MMAPIO_MUST_CHECK
#define MMAPIO_NONNULL(...)
#endif

/* --- Errors ----------------------------------------------------------------------------------- */

enum mmapio_error_kind {
	MMAPIO_ERROR_NONE,
	MMAPIO_ERROR_ARGUMENT, /* not allowed whatever the file: a NULL, an unknown flag, ... */
	MMAPIO_ERROR_IO,       /* opening, mapping, reading, writing; memory */
	MMAPIO_ERROR_MODE,     /* the file is not open in a mode that the call needs */
	MMAPIO_ERROR_BOUNDS, /* outside the file, slice, segment or view: see offset, length, total
			      */
	MMAPIO_ERROR_ALIGNMENT, /* see offset, required */
	MMAPIO_ERROR_FLUSH,	/* a sync failed, or what failed earlier is still in doubt */
	MMAPIO_ERROR_RESIZE,	/* a change of size or allocation */
	MMAPIO_ERROR_ADVICE,
	MMAPIO_ERROR_LOCK,
	MMAPIO_ERROR_UNLOCK,
	MMAPIO_ERROR_WATCH,
	MMAPIO_ERROR_BUSY, /* it is in use: shared, closed for good, slices are held */
};

/* Set size before a call, with MMAPIO_ERROR_INIT; it can grow in later versions. */
struct mmapio_error {
	size_t size; /* sizeof(struct mmapio_error), as the caller knows it */
	enum mmapio_error_kind kind;
	int code;	   /* what the call returned: a negative errno */
	uint64_t offset;   /* BOUNDS, ALIGNMENT: where it was to begin */
	uint64_t length;   /* BOUNDS: how much was asked for */
	uint64_t total;	   /* BOUNDS: how much there is */
	uint64_t required; /* ALIGNMENT: offset has to be a multiple of it */
};

#define MMAPIO_ERROR_INIT                                                                          \
	{                                                                                          \
		sizeof(struct mmapio_error), MMAPIO_ERROR_NONE, 0, 0, 0, 0, 0                      \
	}

/*
 * Why the last call of this thread that failed did so. Only to be asked after a failure: calls that
 * succeed leave it, or may change it. Its code, which is what that call returned; -EINVAL: size is
 * none.
 */
int mmapio_error_last(struct mmapio_error *error) MMAPIO_NONNULL(1);

/*
 * The same in words, in English, with a NUL: at most size bytes, cut off if there are more. The
 * length that all of it has, as snprintf(3); -EINVAL: no kind of error.
 */
int mmapio_error_text(const struct mmapio_error *error, char *text, size_t size) MMAPIO_NONNULL(1);

/* --- Flush policies --------------------------------------------------------------------------- */

/*
 * When changed bytes are brought to the disk without being asked for. All zero: only when asked
 * ("manual"). Several limits: whichever is reached first. A limit of zero is no limit.
 *
 *   always     before the call that changed the file returns
 *   delay_ns   at the latest this long after the change, by the flusher's thread; what the disk
 *              takes for it comes on top. Needs a flusher.
 *   bytes      when this many bytes of the file are dirty, by the call that made them so many
 *   writes     when this many writes and commits have been made since the last flush of the whole
 *              file, by the last of them
 */
struct mmapio_policy {
	bool always;
	uint64_t delay_ns;
	uint64_t bytes;
	uint64_t writes;
};

/*
 * Reads a policy from text: "manual" or "never" (the same), "always", or limits joined by ":".
 * A limit is a decimal integer from 1 up and a unit, without a space: us, ms or s for the delay,
 * K, M or G (1024, 1024^2, 1024^3) for bytes, "writes" for writes. Each kind may stand once.
 *
 * 0; -EINVAL: not of this form; -ERANGE: of this form, but a number is zero or does not fit into
 * int64_t in nanoseconds or bytes. *out is written on success only.
 */
int mmapio_policy_parse(struct mmapio_policy *out, const char *text) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1, 2);

/*
 * Writes a policy as mmapio_policy_parse() would read it, in the largest units that are exact, and
 * a NUL. Bytes that are no multiple of 1024 are rounded up to one, and nanoseconds to microseconds.
 *
 * The length without the NUL; -ERANGE: size is too small (MMAPIO_POLICY_TEXT always suffices).
 */
#define MMAPIO_POLICY_TEXT 96
int mmapio_policy_format(const struct mmapio_policy *policy, char *text, size_t size)
	MMAPIO_NONNULL(1, 2);

/* --- The flusher ------------------------------------------------------------------------------ */

/*
 * One thread that flushes files when their delay is over, earliest first, any number of files. It
 * syncs one file at a time: use one flusher for each file system, so that a slow disk does not
 * delay the others.
 */
struct mmapio_flusher;

/*
 * Starts a flusher. All signals but SIGBUS, which may be the guard's, are blocked in its thread.
 * 0; -ENOMEM; -EAGAIN: no thread could be started (pthread_create(3)).
 */
int mmapio_flusher_new(struct mmapio_flusher **out) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1);

/*
 * Flushes what is due later at once, stops the thread and frees the flusher. Every file that was
 * opened with it must have been released by then, but not necessarily flushed: see
 * mmapio_file_unref(). NULL is fine.
 */
void mmapio_flusher_free(struct mmapio_flusher *flusher);

/* --- Files ------------------------------------------------------------------------------------ */

/* One open file. Reference-counted. */
struct mmapio_file;

enum mmapio_mode {
	MMAPIO_READ_ONLY,     /* the descriptor needs to be readable */
	MMAPIO_READ_WRITE,    /* the descriptor needs to be readable and writable */
	MMAPIO_COPY_ON_WRITE, /* readable; what is written stays in this struct mmapio_file. Bytes
				 never written keep following the file, page by page (mmap(2)) */
};

/* How mmapio_write() brings bytes into the page cache of a read-write file. */
enum mmapio_write_method {
	MMAPIO_WRITE_AUTO,   /* the cheaper way: see mmapio_write() */
	MMAPIO_WRITE_STORE,  /* a store into the mapping wherever that is possible */
	MMAPIO_WRITE_PWRITE, /* always pwrite(2) */
};

/* Flags of struct mmapio_options. */
enum {
	/*
	 * Map when the first slice is taken, not when the file is opened. A file that cannot be
	 * mapped can still be read, written and flushed; taking a slice of it fails.
	 */
	MMAPIO_LAZY = 1 << 0,
	/*
	 * Have the kernel map huge pages, wherever it will: mappings of 2 MiB and more begin at a
	 * multiple of that, and are marked by MADV_HUGEPAGE. Plain pages are no error:
	 * mmapio_huge_bytes() tells what came of it.
	 */
	MMAPIO_HUGE_PAGES = 1 << 1,
	/*
	 * Bring all pages into memory before the call that opens returns, as mmapio_touch() does,
	 * whose errors it may return then. With MMAPIO_LAZY a file that cannot be mapped is opened
	 * without.
	 */
	MMAPIO_TOUCH = 1 << 2,
};

/* Set it up with MMAPIO_OPTIONS_INIT; it can grow in later versions. */
struct mmapio_options {
	size_t size; /* sizeof(struct mmapio_options), as the caller knows it */
	enum mmapio_mode mode;
	unsigned int flags;
	struct mmapio_policy policy;	/* for MMAPIO_READ_WRITE; nothing happens in other modes */
	struct mmapio_flusher *flusher; /* needed with policy.delay_ns; must outlive the file */
	enum mmapio_write_method write_method;
	/*
	 * Called for each range of bytes that a failed sync leaves in doubt, by the thread that
	 * synced, without a lock: it may use the file. error is a positive errno. A sync that
	 * failed with nothing known to be dirty gives one call with length 0.
	 */
	void (*on_error)(void *context, uint64_t offset, uint64_t length, int error);
	/* Called once, by whoever gave back the last reference (a flusher's thread may): on_error
	 * will not be called any more. Slices may still be held. */
	void (*on_close)(void *context);
	void *context; /* for both */
};

#define MMAPIO_OPTIONS_INIT(MODE)                                                                  \
	{                                                                                          \
		sizeof(struct mmapio_options), (MODE), 0, {false, 0, 0, 0}, NULL,                  \
			MMAPIO_WRITE_AUTO, NULL, NULL, NULL                                        \
	}

/*
 * Opens path, which must exist and be a regular file. Zero-length files are ordinary.
 *
 * 0; -EINVAL: unknown mode or flag, a delay without a flusher, not a regular file; -EISDIR: a
 * folder; -ENODEV: the file system cannot map files; -ENOMEM: memory, address space or the number
 * of mappings (vm.max_map_count) is used up; whatever open(2) and fstat(2) return.
 */
int mmapio_open(struct mmapio_file **out, const char *path,
		const struct mmapio_options *options) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 2, 3);

/*
 * The same for a descriptor. Takes ownership of fd on success; its file offset is not used, but
 * undefined afterwards. With MMAPIO_LAZY a descriptor opened O_WRONLY will do for
 * MMAPIO_READ_WRITE; such a file cannot be mapped or read.
 * Also -EBADF: fd is not open, or not for what the mode needs; -EINVAL: MMAPIO_READ_WRITE with a
 * descriptor in O_APPEND mode, for which pwrite(2) does not write where it is told to.
 */
int mmapio_open_fd(struct mmapio_file **out, int fd,
		   const struct mmapio_options *options) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 3);

/*
 * Opens path as mmapio_open(), or makes it: of this size (a hole), with permissions as open(2) has
 * them, umask included. Whoever else opens it at the same moment sees it as long as that from the
 * start, or makes it himself and is opened here: an existing file is never cut. *created, which may
 * be NULL: whether it was made here. (After an error it may be there, whole and all zeros: others
 * may have opened it by then.) As mmapio_open(); -ENOENT: the folder is not there, or the name is a
 * link to nowhere; -EFBIG, -ENOSPC, ...: what open(2), ftruncate(2) and link(2) return.
 */
int mmapio_open_or_create(struct mmapio_file **out, const char *path, uint64_t size,
			  mode_t permissions, const struct mmapio_options *options,
			  bool *created) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 2, 5);

/*
 * Makes path, or empties it if it is there, and opens it with this size, all zeros. (A file that
 * was there keeps its permissions. After an error it may be there, and empty.) As
 * mmapio_open_or_create().
 */
int mmapio_create(struct mmapio_file **out, const char *path, uint64_t size, mode_t permissions,
		  const struct mmapio_options *options) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 2, 5);

/*
 * A file of this size, all zeros, that has no name and lives in memory: memfd_create(2). It goes
 * with its last reference, and the last process that was given its descriptor. Flushing it
 * succeeds. 0; as mmapio_open_fd(); what memfd_create(2) and ftruncate(2) return.
 */
int mmapio_open_anonymous(struct mmapio_file **out, uint64_t size,
			  const struct mmapio_options *options) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1, 3);

/* One more reference, to be given back with mmapio_file_unref(). Returns file. */
struct mmapio_file *mmapio_file_ref(struct mmapio_file *file) MMAPIO_NONNULL(1);

/*
 * Gives a reference back. With the last one the file is closed; slices that are still held stay
 * valid, and the mapping goes when the last of them is released. Does not sync, with two
 * exceptions: a file with policy.delay_ns that is dirty is closed after its flusher has flushed it;
 * a dirty file with a limit of bytes or writes is flushed. Errors of these go to on_error.
 * NULL is fine.
 */
void mmapio_file_unref(struct mmapio_file *file);

/*
 * Closes the file and gives its descriptor, in *fd, to the caller: for whoever has the only
 * reference, and holds no slice. It is flushed before. What was changed in a copy-on-write file is
 * lost. 0: file is gone; else it is as it was: -EBUSY: somebody else has a reference, or slices are
 * held; or as mmapio_flush().
 */
int mmapio_file_detach(struct mmapio_file *file, int *fd) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 2);

/*
 * Makes a file read-write that was opened for reading or for writing only, with a descriptor of the
 * same file that was opened for both. Slices that are held stay valid. Takes ownership of fd on
 * success. 0, also when it is read-write already; -EBADF: a copy-on-write file, or fd is not
 * writable; -EINVAL: fd is another file; -ENOMEM.
 */
int mmapio_file_make_writable(struct mmapio_file *file, int fd) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1);

enum mmapio_mode mmapio_file_mode(const struct mmapio_file *file) MMAPIO_NONNULL(1);

/*
 * The descriptor, which stays the file's own: for calls that change neither contents nor size
 * behind the library's back. Valid until the last reference is given back.
 */
int mmapio_file_descriptor(const struct mmapio_file *file) MMAPIO_NONNULL(1);

/* The size in bytes, as this handle knows it: see mmapio_file_refresh(). */
uint64_t mmapio_file_size(const struct mmapio_file *file) MMAPIO_NONNULL(1);
bool mmapio_file_is_empty(const struct mmapio_file *file) MMAPIO_NONNULL(1);

/* The path that it was opened by, which may be another's by now; NULL: there was none. The file's
 * own, valid until the last reference is given back. */
const char *mmapio_file_path(const struct mmapio_file *file) MMAPIO_NONNULL(1);

/* The policy that it was opened with; that of a copy-on-write file is manual. */
struct mmapio_policy mmapio_file_policy(const struct mmapio_file *file) MMAPIO_NONNULL(1);

/*
 * The way out: where the file's bytes are mapped now, and how many there are. Nothing guards what
 * is done with it: it is valid until the file changes its size or mode, by whomever, or is closed;
 * may be stored to if the mode allows it; and what is stored does not count for flushing until it
 * is committed by a slice of its own, or all of the file is synced (mmapio_sync()). 0; -ENODEV,
 * -ENOMEM as mmapio_slice_get().
 */
int mmapio_file_pointer(struct mmapio_file *file, void **data, size_t *length) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1, 2, 3);

/* The size of a page of memory, and the next multiple of unit from offset on (offset itself if it
 * is one, or if unit is 0; UINT64_MAX if there is none). */
size_t mmapio_page_size(void);
uint64_t mmapio_align_up(uint64_t offset, uint64_t unit);

/*
 * Takes note of what others did to the file: adopts its size (that of a copy-on-write file can
 * only become less). st may be NULL, else it gets what fstat(2) says, mtime and ctime having been
 * brought up to date before, since the kernel moves them only with the first store to a clean page.
 *
 * Waits for nobody: slices beyond the end of a file that others made shorter stay pinned, but
 * touching them raises SIGBUS.
 * 0; or what fstat(2) returns.
 */
int mmapio_file_refresh(struct mmapio_file *file, struct stat *st) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1);

/*
 * The same, and tells whether others have changed its bytes or its size since it was opened, or
 * since this call last said so: for whoever keeps a copy of them. Judged by size and mtime; what
 * others do while a call of this handle is changing the file may be taken for ours, and so may what
 * they store through mappings of their own while its page is dirty, since that does not move mtime.
 * What is stored through a slice is taken for theirs until it is committed. 1: they have, once for
 * each time that it is noticed; else as mmapio_file_refresh().
 */
int mmapio_file_check(struct mmapio_file *file, struct stat *st) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1);

/*
 * Says that the file is being read. Reading a mapping does not move atime; this does what read(2)
 * would do to it, as the mount says (relatime, noatime, ...), at most twice a second for each
 * handle. Whether it has been done.
 */
bool mmapio_file_accessed(struct mmapio_file *file) MMAPIO_NONNULL(1);

/*
 * futimens(2), by its owner or who may do it else, in its order with what stores do to the times.
 * 0; what futimens(2) returns.
 */
int mmapio_file_set_times(struct mmapio_file *file,
			  const struct timespec times[2]) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 2);

/*
 * Sets the size. New bytes are zero (a hole). Growing waits for no slice. Shrinking first makes the
 * new size known, so that no new slice can reach beyond it, then waits for those that do, and
 * then truncates. timeout_ns: how long to wait at most; 0 is a try, MMAPIO_FOREVER has no limit.
 * A thread that holds such a slice itself waits for itself: release it before, or use a try.
 * Copies, touches and flushes of a range hold slices of their own while they last: so a try may
 * fail though the caller knows of no slice. Nothing but another change of size waits for a shrink;
 * what is written beyond the new end in the meantime is cut off. After -EBUSY the size is again
 * that of the file.
 *
 * The flush policy applies to a change of size as it does to a write.
 * 0; -EBUSY: slices beyond the new end were still held, the size is what it was; -EBADF: not
 * read-write; -EFBIG, -EINVAL: larger than INT64_MAX or than the file system allows; what
 * ftruncate(2) returns; or, the size being changed, the error of a flush that the policy asked for.
 */
#define MMAPIO_FOREVER UINT64_MAX
int mmapio_file_resize(struct mmapio_file *file, uint64_t size,
		       uint64_t timeout_ns) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1);

/*
 * fallocate(2) on a read-write file. mode: 0, or of FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE and
 * FALLOC_FL_ZERO_RANGE what fallocate(2) allows. The flush policy applies.
 * 0; -EBADF: not read-write; -EOPNOTSUPP: a mode that would move bytes under the slices that are
 * held; -EFBIG; what fallocate(2) returns; the error of a flush as above.
 */
int mmapio_file_allocate(struct mmapio_file *file, int mode, uint64_t offset,
			 uint64_t length) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1);

/* --- Slices ----------------------------------------------------------------------------------- */

/*
 * A range of a file's bytes in memory. Neither growing, shrinking nor closing the file takes them
 * away while the slice is held. Taking and releasing one allocates nothing (unless more than 16
 * are held at once), takes no lock, and waits for nobody. The struct is the caller's; it may be
 * copied, but must be released once. Any thread may release it.
 */
struct mmapio_slice {
	const void *data; /* not NULL, also when length is 0 */
	size_t length;
	uint64_t offset;
	struct mmapio_file *file; /* private */
	void *pin;		  /* private */
};

/* A slice that may be stored to. What was stored counts from mmapio_commit(). */
struct mmapio_slice_mut {
	void *data;
	size_t length;
	uint64_t offset;
	struct mmapio_file *file; /* private */
	void *pin;		  /* private */
	uint64_t failures;	  /* private */
};

/*
 * Takes exactly [offset, offset + length), in every mode.
 * 0; -ERANGE: outside the file; -ENODEV: the file cannot be mapped; -ENOMEM.
 */
int mmapio_slice_get(struct mmapio_file *file, uint64_t offset, size_t length,
		     struct mmapio_slice *slice) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 4);

/* Takes what the file has of the range, as read(2) would: possibly less, or nothing. */
int mmapio_slice_get_some(struct mmapio_file *file, uint64_t offset, size_t length,
			  struct mmapio_slice *slice) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 4);

/* As mmapio_slice_get(), for a read-write or copy-on-write file; -EBADF: a read-only one. */
int mmapio_slice_get_mut(struct mmapio_file *file, uint64_t offset, size_t length,
			 struct mmapio_slice_mut *slice) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 4);

/* Releases a slice. The struct is cleared; releasing a cleared one does nothing. */
void mmapio_slice_put(struct mmapio_slice *slice) MMAPIO_NONNULL(1);
void mmapio_slice_put_mut(struct mmapio_slice_mut *slice) MMAPIO_NONNULL(1);

/*
 * Says that length bytes at offset of the slice, counted from its start, have been stored to: they
 * are dirty from now on, and the flush policy applies to them. The slice must be held; no two
 * threads may commit one slice at once. If a sync of the file has failed since the slice was taken,
 * or last committed, the bytes may have been what failed, and are in doubt at once (see
 * mmapio_flush()): to write them anew, store them once more and commit again. On a copy-on-write
 * file they are changed from now on (mmapio_changes_next()), and nothing else happens.
 * 0; -ERANGE: outside the slice; or the error of a flush that the policy asked for, the bytes then
 * being dirty or in doubt.
 */
int mmapio_commit(struct mmapio_slice_mut *slice, size_t offset, size_t length) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1);

/* --- Walks ------------------------------------------------------------------------------------ */

/*
 * A walk over a range in chunks, without a copy and without an allocation. The range is held by one
 * slice, from the begin of the walk to its end: what lies in it stays where it is, and a shrink
 * beneath it waits. The struct is the caller's, and for one thread at a time.
 */
struct mmapio_chunks {
	struct mmapio_slice slice; /* private */
	size_t chunk, next, done;  /* private */
};

struct mmapio_chunk {
	const void *data; /* valid until the end of the walk */
	size_t length;	  /* that of the last one may be less */
	uint64_t offset;  /* in the file */
};

/*
 * Begins a walk over what the file has of [offset, offset + length), in chunks of so many bytes.
 * UINT64_MAX is a length up to the end, wherever that is. 0; -EINVAL: chunk is 0; else as
 * mmapio_slice_get_some().
 */
int mmapio_chunks_begin(struct mmapio_chunks *chunks, struct mmapio_file *file, uint64_t offset,
			uint64_t length, size_t chunk) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 2);

/* The same in pages of the processor, at whose borders all chunks begin but the first. */
int mmapio_pages_begin(struct mmapio_chunks *chunks, struct mmapio_file *file, uint64_t offset,
		       uint64_t length) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 2);

/* How many chunks are still to come. */
size_t mmapio_chunks_left(const struct mmapio_chunks *chunks) MMAPIO_NONNULL(1);

/* The next one. False: there is none. */
bool mmapio_chunks_next(struct mmapio_chunks *chunks, struct mmapio_chunk *chunk)
	MMAPIO_NONNULL(1, 2);

/* Ends the walk, whether all of it was walked or not. Once more does nothing. */
void mmapio_chunks_end(struct mmapio_chunks *chunks) MMAPIO_NONNULL(1);

/*
 * Walks over what the file has of a range to change it: change() gets each chunk in its turn, may
 * store to its bytes, and returns 0 to go on. The first other value ends the walk and is returned,
 * so a negative errno of its own is best told from ours by the context. What was handed to it is
 * committed when the walk is over, all at once, that which it failed with included.
 *
 * It is one exclusive section of this handle: it begins when each call that changes the file,
 * contents or size, is over, and others wait until it ends. Readers go on, and so do those who
 * hold slices; a mutable slice that another thread stores to is its own affair. change() must not
 * change the file by a call of this handle, for it would wait for itself; it may read it.
 *
 * 0; -EINVAL: chunk is 0; -EBADF: a read-only file; as mmapio_slice_get_mut(); or the error of a
 * flush that the policy asked for.
 */
int mmapio_chunks_change(struct mmapio_file *file, uint64_t offset, uint64_t length, size_t chunk,
			 int (*change)(void *context, uint64_t offset, void *data, size_t length),
			 void *context) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 5);

/* --- Segments --------------------------------------------------------------------------------- */

/*
 * A range of a file to be used as a whole, or as if it were one. It holds nothing, and is looked at
 * anew by each call: while the file does not reach its end, calls fail with -ERANGE, and when it
 * has grown back they work again. The struct is the caller's; it may be copied, and needs no end.
 * The file must be referenced as long as it is used. From several threads it may be used at once.
 */
struct mmapio_segment {
	struct mmapio_file *file;
	uint64_t offset; /* in the file */
	uint64_t length;
};

/* Sets it up; the file may be shorter, now. 0; -ERANGE: no file can be as long as that. */
int mmapio_segment_init(struct mmapio_segment *segment, struct mmapio_file *file, uint64_t offset,
			uint64_t length) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 2);

/* Whether the file reaches its end, now. */
bool mmapio_segment_is_valid(const struct mmapio_segment *segment) MMAPIO_NONNULL(1);

/*
 * As mmapio_slice_get() and mmapio_slice_get_mut(), with offsets from the segment's start. -ERANGE:
 * outside the segment, or the segment outside the file.
 */
int mmapio_segment_slice(const struct mmapio_segment *segment, uint64_t offset, size_t length,
			 struct mmapio_slice *slice) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 4);
int mmapio_segment_slice_mut(const struct mmapio_segment *segment, uint64_t offset, size_t length,
			     struct mmapio_slice_mut *slice) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 4);

/*
 * As mmapio_read() and mmapio_write(), with offsets from the segment's start: what lies beyond its
 * end is left out, also of a write, and the count says so (0 at or beyond the end). Also -ERANGE:
 * the segment is outside the file.
 */
ssize_t mmapio_segment_read(const struct mmapio_segment *segment, uint64_t offset, void *buffer,
			    size_t length) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 3);
ssize_t mmapio_segment_write(const struct mmapio_segment *segment, uint64_t offset,
			     const void *buffer, size_t length) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1, 3);

/* --- Cursors ---------------------------------------------------------------------------------- */

/*
 * A position in a file, for those who read or write on from where they were. Set it up with the
 * file and 0. The struct is the caller's, and for one thread at a time; any number of them may be
 * used on one file. The file must be referenced as long as it is used.
 */
struct mmapio_cursor {
	struct mmapio_file *file;
	uint64_t position;
};

/* mmapio_read() and mmapio_write() at the position, which moves by what they return. */
ssize_t mmapio_cursor_read(struct mmapio_cursor *cursor, void *buffer,
			   size_t length) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 2);
ssize_t mmapio_cursor_write(struct mmapio_cursor *cursor, const void *buffer,
			    size_t length) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 2);

/*
 * Moves the position, as lseek(2): whence is SEEK_SET, SEEK_CUR or SEEK_END. It may lie beyond the
 * end. 0; -EINVAL: another whence, or before the start; -EOVERFLOW: beyond INT64_MAX.
 */
int mmapio_cursor_seek(struct mmapio_cursor *cursor, int64_t distance, int whence) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1);

/* --- Atomic views ----------------------------------------------------------------------------- */

/*
 * Words of 32 or 64 bits, in the processor's byte order, that threads, and processes which have the
 * same file, change together: each operation below is one step for all of them, in one order
 * (memory_order_seq_cst of C11). A view holds its words as a slice does, and SIGBUS is as near (see
 * the top). It may be used from several threads at once, but for put and commit.
 *
 * What is changed counts for flushing from the next commit or put; put releases the view, clears
 * it, and does nothing to a cleared one.
 */
struct mmapio_atomic_u32 {
	uint32_t *words; /* for what is not below, such as a futex(2) */
	size_t count;
	int writable, changed;	       /* private */
	struct mmapio_slice_mut slice; /* private */
};

struct mmapio_atomic_u64 {
	uint64_t *words;
	size_t count;
	int writable, changed;	       /* private */
	struct mmapio_slice_mut slice; /* private */
};

/*
 * Takes count words from an offset on. Those of a read-only file can be loaded.
 * 0; -EINVAL: offset is no multiple of the width, which is looked at first; else as
 * mmapio_slice_get().
 */
int mmapio_atomic_u32_get(struct mmapio_file *file, uint64_t offset, size_t count,
			  struct mmapio_atomic_u32 *view) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 4);
int mmapio_atomic_u64_get(struct mmapio_file *file, uint64_t offset, size_t count,
			  struct mmapio_atomic_u64 *view) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 4);

/* As mmapio_commit() of all words, if any has been changed. */
int mmapio_atomic_u32_commit(struct mmapio_atomic_u32 *view) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1);
int mmapio_atomic_u64_commit(struct mmapio_atomic_u64 *view) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1);
int mmapio_atomic_u32_put(struct mmapio_atomic_u32 *view) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1);
int mmapio_atomic_u64_put(struct mmapio_atomic_u64 *view) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1);

/*
 * One step on one word: what it was is in *before, which may be NULL.
 * 0; -ERANGE: there is no word of that index; -EBADF: a store to one of a read-only file.
 */
int mmapio_atomic_u32_load(const struct mmapio_atomic_u32 *view, size_t index, uint32_t *value)
	MMAPIO_NONNULL(1, 3);
int mmapio_atomic_u64_load(const struct mmapio_atomic_u64 *view, size_t index, uint64_t *value)
	MMAPIO_NONNULL(1, 3);
int mmapio_atomic_u32_store(struct mmapio_atomic_u32 *view, size_t index, uint32_t value)
	MMAPIO_NONNULL(1);
int mmapio_atomic_u64_store(struct mmapio_atomic_u64 *view, size_t index, uint64_t value)
	MMAPIO_NONNULL(1);
int mmapio_atomic_u32_exchange(struct mmapio_atomic_u32 *view, size_t index, uint32_t operand,
			       uint32_t *before) MMAPIO_NONNULL(1);
int mmapio_atomic_u64_exchange(struct mmapio_atomic_u64 *view, size_t index, uint64_t operand,
			       uint64_t *before) MMAPIO_NONNULL(1);
int mmapio_atomic_u32_add(struct mmapio_atomic_u32 *view, size_t index, uint32_t operand,
			  uint32_t *before) MMAPIO_NONNULL(1);
int mmapio_atomic_u64_add(struct mmapio_atomic_u64 *view, size_t index, uint64_t operand,
			  uint64_t *before) MMAPIO_NONNULL(1);
int mmapio_atomic_u32_sub(struct mmapio_atomic_u32 *view, size_t index, uint32_t operand,
			  uint32_t *before) MMAPIO_NONNULL(1);
int mmapio_atomic_u64_sub(struct mmapio_atomic_u64 *view, size_t index, uint64_t operand,
			  uint64_t *before) MMAPIO_NONNULL(1);
int mmapio_atomic_u32_and(struct mmapio_atomic_u32 *view, size_t index, uint32_t operand,
			  uint32_t *before) MMAPIO_NONNULL(1);
int mmapio_atomic_u64_and(struct mmapio_atomic_u64 *view, size_t index, uint64_t operand,
			  uint64_t *before) MMAPIO_NONNULL(1);
int mmapio_atomic_u32_or(struct mmapio_atomic_u32 *view, size_t index, uint32_t operand,
			 uint32_t *before) MMAPIO_NONNULL(1);
int mmapio_atomic_u64_or(struct mmapio_atomic_u64 *view, size_t index, uint64_t operand,
			 uint64_t *before) MMAPIO_NONNULL(1);
int mmapio_atomic_u32_xor(struct mmapio_atomic_u32 *view, size_t index, uint32_t operand,
			  uint32_t *before) MMAPIO_NONNULL(1);
int mmapio_atomic_u64_xor(struct mmapio_atomic_u64 *view, size_t index, uint64_t operand,
			  uint64_t *before) MMAPIO_NONNULL(1);

/*
 * Stores desired if the word is *expected. 1: it was; 0: it was not, and *expected is what it is;
 * else as above.
 */
int mmapio_atomic_u32_compare_exchange(struct mmapio_atomic_u32 *view, size_t index,
				       uint32_t *expected, uint32_t desired) MMAPIO_NONNULL(1, 3);
int mmapio_atomic_u64_compare_exchange(struct mmapio_atomic_u64 *view, size_t index,
				       uint64_t *expected, uint64_t desired) MMAPIO_NONNULL(1, 3);

/* --- Copies ----------------------------------------------------------------------------------- */

/*
 * Copies bytes out of the file, as pread(2) does: fewer than length at its end, 0 beyond it. Never
 * raises SIGBUS.
 * The count; -EBADF: opened O_WRONLY; -EIO; -EFAULT: buffer itself is such memory; what pread(2)
 * returns.
 */
ssize_t mmapio_read(struct mmapio_file *file, uint64_t offset, void *buffer,
		    size_t length) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 3);

/*
 * Copies bytes into the file, as pwrite(2) does, extending a read-write file where need be, and
 * applies the flush policy. Never raises SIGBUS.
 *
 * With MMAPIO_WRITE_AUTO, bytes that are allocated on the disk, in memory, and not to be flushed
 * unasked are stored into the mapping, which is about twice as fast as pwrite(2) for small writes.
 * Where a policy makes pages clean again and again, pwrite(2) is used, because the first store to
 * a clean page makes the kernel write the whole folio (up to 2 MiB). Holes, what extends the
 * file, and what a store could not do always go by pwrite(2).
 *
 * Where others may truncate the file, call mmapio_file_refresh() before: bytes that are stored
 * beyond an end that this handle does not know of yet are lost.
 *
 * The count, which may be less than length if an error came after some bytes were written; -EBADF:
 * read-only; -ERANGE: a copy-on-write file, beyond its end (nothing is written then); -EFBIG;
 * -ENOMEM: nothing is written; what pwrite(2) returns; or, the bytes being written, the error of a flush that the policy asked
 * for.
 */
ssize_t mmapio_write(struct mmapio_file *file, uint64_t offset, const void *buffer,
		     size_t length) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 3);

/*
 * copy_file_range(2) between two files (or within one): target must be read-write, source not
 * copy-on-write. The flush policy of target applies. The count, possibly short; its errors.
 */
ssize_t mmapio_copy(struct mmapio_file *source, uint64_t source_offset, struct mmapio_file *target,
		    uint64_t target_offset, size_t length) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 3);

/*
 * The fault guard: a handler of SIGBUS that lets mmapio_read() and mmapio_write() copy in user
 * space and recover when a page cannot be had. Without it they use pread(2) and pwrite(2) (on
 * copy-on-write files process_vm_readv(2)), which is as safe and slower for small copies.
 *
 * A SIGBUS that does not belong to a copy of this library is handed to the handler that was
 * there before. Installed once for the process; calls nest. Remove it before somebody else's
 * handler that was installed later is removed, or not at all. Not to be called while another thread
 * makes either of these two calls. 0; what sigaction(2) returns.
 */
int mmapio_guard_install(void) MMAPIO_MUST_CHECK;
void mmapio_guard_remove(void);

/* --- Flushing --------------------------------------------------------------------------------- */

/*
 * Brings what is dirty to the disk and waits for it: fdatasync(2). Returns only after every write
 * and commit that returned before the call is on the disk, or with an error.
 *
 * An error stays: the bytes that were in flight when a sync failed are in doubt until they have
 * been written anew and synced, because the kernel may have marked their pages as clean, and would
 * report success the next time (fsync(2), "NOTES"). Until then every flush of them returns the
 * error. A change of size or allocation that was in flight is in doubt in the same way, for flushes
 * of the whole file, until the file has been changed once more and synced.
 *
 * On read-only and copy-on-write files it does nothing and returns 0.
 */
int mmapio_flush(struct mmapio_file *file) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1);

/*
 * The same for a range, extended to whole pages: msync(2) with MS_SYNC. Other dirty ranges stay
 * dirty, and known to be. Also -ERANGE: outside the file.
 */
int mmapio_flush_range(struct mmapio_file *file, uint64_t offset, uint64_t length) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1);

/*
 * fsync(2) semantics: as mmapio_flush(), and always makes the system call, so that changes made by
 * others reach the disk too. metadata: times, owner and the like as well (fsync(2), else
 * fdatasync(2)).
 */
int mmapio_sync(struct mmapio_file *file, bool metadata) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1);

/*
 * Forgets what is dirty or in doubt, so that the file can be closed without a sync: for one whose
 * bytes nobody can ask for any more, since its last name is gone.
 */
void mmapio_discard(struct mmapio_file *file) MMAPIO_NONNULL(1);

/* How many bytes are dirty: written or committed, and not yet asked to be on the disk. */
uint64_t mmapio_dirty_bytes(struct mmapio_file *file) MMAPIO_NONNULL(1);

/* Whether anything, bytes or the size, is dirty or being brought to the disk at this moment. */
bool mmapio_is_dirty(struct mmapio_file *file) MMAPIO_NONNULL(1);

/*
 * The first dirty range that ends after *offset. 1: *offset and *length are set; 0: there is none.
 * Walk with *offset += *length. Ranges that touch are one; where memory ran out, clean bytes
 * between two dirty ranges may have been taken for dirty, never the other way round.
 */
int mmapio_dirty_next(struct mmapio_file *file, uint64_t *offset, uint64_t *length)
	MMAPIO_NONNULL(1, 2, 3);

/* The error that stays with the file (see mmapio_flush()): 0 or a negative errno. */
int mmapio_file_error(struct mmapio_file *file) MMAPIO_NONNULL(1);

/* --- Changes of a copy-on-write file ---------------------------------------------------------- */

/*
 * The first range that was changed in a copy-on-write file (written, or committed) and ends after
 * *offset, as mmapio_dirty_next(). 1: *offset and *length are set; 0: there is none; -EINVAL. Where
 * memory ran out, unchanged bytes between two changes may have been taken for changed.
 */
int mmapio_changes_next(struct mmapio_file *file, uint64_t *offset, uint64_t *length)
	MMAPIO_NONNULL(1, 2, 3);

/* How many bytes that is. */
uint64_t mmapio_changes_bytes(struct mmapio_file *file) MMAPIO_NONNULL(1);

/*
 * Writes what was changed in view into the file itself, by a read-write handle of the same file,
 * whose flush policy applies. From then on it is no change any more, and its pages follow the file
 * again (those that madvise(2) has no memory for keep what was committed). What others change in view meanwhile is for the next commit; nobody may hold a mutable
 * slice of view with stores that are not committed, for these may be lost. 0; -EBADF: view is not
 * copy-on-write, or target not read-write; -EINVAL: of another file; else an error of
 * mmapio_write(): some of it may have been written then, and all is still a change.
 */
int mmapio_changes_commit(struct mmapio_file *view, struct mmapio_file *target) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1, 2);

/*
 * Forgets all that was changed: the bytes are those of the file again, under slices that are held
 * too. 0; -EBADF: not copy-on-write; -ENOMEM.
 */
int mmapio_changes_discard(struct mmapio_file *file) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1);

/* --- Files as a whole ------------------------------------------------------------------------- */

/*
 * Reads all of a file into memory: *data is the caller's, to be given to free(3), and not NULL,
 * also if *length is 0. 0; -ENOMEM; as mmapio_open() and mmapio_read().
 */
int mmapio_load(const char *path, void **data, size_t *length) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1, 2, 3);

/*
 * Makes a file of these bytes, with permissions as open(2) has them, in the place of what has that
 * name: who opens path sees what was there before, or all of this, also after a power cut at any
 * moment. It is a new file: other names of the one before, its owner and attributes stay behind; a
 * symbolic link is replaced itself. It is made in the same folder, under a name that begins with
 * ".mmapio-" until it is whole.
 * 0: it is on the disk; else nothing has changed, but for an error of kind MMAPIO_ERROR_FLUSH the
 * name may be the new file's already. What open(2), write(2), fsync(2) and rename(2) return.
 */
int mmapio_save(const char *path, const void *data, size_t length,
		mode_t permissions) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1);

/*
 * The same with the contents of another file, in the kernel (copy_file_range(2)); holes stay holes.
 * Also -EISDIR, -EINVAL, -ENXIO (a socket): source is no regular file.
 */
int mmapio_copy_file(const char *source, const char *target, mode_t permissions) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1, 2);

/* unlink(2). Who has the file open keeps it. */
int mmapio_remove(const char *path) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1);

/* --- Asynchronous calls ----------------------------------------------------------------------- */

/*
 * Threads that make calls for others, who do not wait for them. Operations begin in the order in
 * which they were submitted, and are under way as many at once as there are threads; nothing else
 * is promised of their order: who wants one to come after another submits it when that is complete.
 * A flush covers the writes that were complete when it was submitted.
 *
 * Each operation becomes complete exactly once, with what the call returned: mmapio_read(),
 * mmapio_write(), which applies the flush policy as always, or mmapio_flush(). done, if it is not
 * NULL, is told: by a thread of the queue, or by the one that cancels it or frees the queue,
 * without any lock. It may make every call but mmapio_queue_free() of its own queue. Else it is to
 * be fetched by mmapio_queue_next(), and the descriptor says when. (mmapio_error_last() knows
 * nothing of it.)
 *
 * Until then the buffer, which stays the caller's, is the library's to use, and a reference of the
 * file is taken. Several threads may use a queue at once.
 */
struct mmapio_queue;

struct mmapio_completion {
	uint64_t id;
	void *context;
	ssize_t result; /* a count, 0 or a negative errno; -ECANCELED: it has not been begun */
};

/*
 * threads: how many; 0: four. All signals but SIGBUS are blocked in them.
 * 0; -EINVAL: more than 256; -ENOMEM; -EMFILE, -ENFILE: eventfd(2); -EAGAIN: pthread_create(3).
 */
int mmapio_queue_new(struct mmapio_queue **out, unsigned int threads) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1);

/*
 * Cancels what has not begun, waits for what is under way, and ends the threads: when it returns no
 * callback runs, and none will. Completions that nobody fetched are dropped, and so are those of
 * what it cancels. Nobody else may use the queue meanwhile, but callbacks: what they submit is
 * refused. NULL is fine.
 */
void mmapio_queue_free(struct mmapio_queue *queue);

/*
 * Submit an operation, and return at once. *id, if id is not NULL, is its number, which no other
 * one of the queue gets. A flush of [0, UINT64_MAX) is one of the whole file, any other one of a
 * range. 0: it will become complete; -ENOMEM; -ECANCELED: the queue is being freed. Errors of the
 * operation itself are its result.
 */
int mmapio_queue_read(struct mmapio_queue *queue, struct mmapio_file *file, uint64_t offset,
		      void *buffer, size_t length,
		      void (*done)(void *context, uint64_t id, ssize_t result), void *context,
		      uint64_t *id) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 2);
int mmapio_queue_write(struct mmapio_queue *queue, struct mmapio_file *file, uint64_t offset,
		       const void *buffer, size_t length,
		       void (*done)(void *context, uint64_t id, ssize_t result), void *context,
		       uint64_t *id) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 2);
int mmapio_queue_flush(struct mmapio_queue *queue, struct mmapio_file *file, uint64_t offset,
		       uint64_t length, void (*done)(void *context, uint64_t id, ssize_t result),
		       void *context, uint64_t *id) MMAPIO_MUST_CHECK MMAPIO_NONNULL(1, 2);

/*
 * 0: it had not begun, and is complete now, with -ECANCELED; -EALREADY: it is under way, or has
 * been complete, or there was none of that number.
 */
int mmapio_queue_cancel(struct mmapio_queue *queue, uint64_t id) MMAPIO_NONNULL(1);

/* To be polled: readable while there is something to be fetched. The queue's own. */
int mmapio_queue_descriptor(const struct mmapio_queue *queue) MMAPIO_NONNULL(1);

/* The next completion of an operation without a callback. 1: *completion is set; 0: there is none
 * now. */
int mmapio_queue_next(struct mmapio_queue *queue, struct mmapio_completion *completion)
	MMAPIO_NONNULL(1, 2);

/* --- Prewarming ------------------------------------------------------------------------------- */

/*
 * Brings the pages of a range into memory and waits for them, so that the next access does not
 * wait: MADV_POPULATE_READ (Linux 5.14), else one access for each page. What lies beyond the end
 * is left out.
 * 0; -EIO: a page could not be read; -ENODEV, -ENOMEM as mmapio_slice_get().
 */
int mmapio_touch(struct mmapio_file *file, uint64_t offset, uint64_t length) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1);

/* --- Advice ----------------------------------------------------------------------------------- */

/*
 * What pages a range has in the calls below: those of the processor that it touches at all. It has
 * to lie inside the file, but for a length of UINT64_MAX: that is the rest of the file, what it
 * grows by later included.
 *
 * What stays with a range (NORMAL, RANDOM, SEQUENTIAL, locks, huge pages) survives every change of
 * size and mmapio_file_make_writable(); of a lazy file that is not mapped yet it is remembered.
 * What lies beyond the end of a file that became shorter is forgotten, but for ranges to the end.
 */
enum mmapio_advice {
	MMAPIO_ADVICE_NORMAL,	  /* what a file has when it is opened; takes back the next two */
	MMAPIO_ADVICE_RANDOM,	  /* stays: read no pages around the one that is needed */
	MMAPIO_ADVICE_SEQUENTIAL, /* stays: read far ahead, and give up what was passed */
	/*
	 * Once: begin to read the range into memory, and do not wait for it, as far as the disk's
	 * queue takes it. mmapio_touch() waits.
	 */
	MMAPIO_ADVICE_WILL_NEED,
	/*
	 * Once: the range will not be used soon. Nothing is ever lost by it, and pages that are
	 * locked stay. Shared: the mapping gives its pages up, which stay in the page cache, dirty
	 * or clean, until the kernel needs the memory. Copy-on-write: its pages are the first that
	 * the kernel takes when it needs memory (MADV_COLD, Linux 5.4; before that nothing).
	 * Not mapped: clean pages may leave the page cache.
	 */
	MMAPIO_ADVICE_DONT_NEED,
};

/*
 * Advises the kernel how a range will be used. Waits for no slice. Where the file is not mapped
 * it goes by posix_fadvise(2), which takes RANDOM and SEQUENTIAL for the whole file, whatever the
 * range; such advice is only remembered as long as it can be mapped.
 * 0; -EINVAL: no such advice; -ERANGE: outside the file; -ENOMEM: memory, or the number of mappings
 * (vm.max_map_count), is used up, and what the range was advised of before may be lost; whatever
 * else madvise(2) or posix_fadvise(2) return. Their kind is MMAPIO_ERROR_ADVICE.
 */
int mmapio_advise(struct mmapio_file *file, uint64_t offset, uint64_t length,
		  enum mmapio_advice advice) MMAPIO_NONNULL(1);

/*
 * Brings a range into memory, and keeps it there until it is unlocked or the file is closed:
 * mlock(2). Maps a lazy file. Pages of a copy-on-write file are not copied by it, and those that
 * are later written to stay locked. Locks do not nest: one call unlocks what several have locked.
 *
 * What a file grows by is locked when it does, as far as the kernel allows for it (and brought into
 * memory, so that a large hole costs memory by this); beyond that it grows all the same:
 * mmapio_locked_bytes() tells, and to lock the range once more is another try. Where the limit does
 * not allow for two mappings at once, pages are unlocked for a moment when the mapping is replaced.
 * Before Linux 5.14 a page that was not in memory is locked from its first use on.
 *
 * Waits for no slice, but for other calls that lock or unlock pages of the file.
 * 0; -EPERM: no pages may be locked, without a privilege (CAP_IPC_LOCK); -ENOMEM: more than
 * RLIMIT_MEMLOCK, memory, address space or the number of mappings; -EIO: a page could not be read;
 * -ENODEV: the file cannot be mapped; all these of MMAPIO_ERROR_LOCK; -ERANGE: outside the file.
 * After an error what was locked before is so still, and no more.
 */
int mmapio_lock(struct mmapio_file *file, uint64_t offset, uint64_t length) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1);

/*
 * Unlocks a range, of which any part may be locked, or none. With a length of UINT64_MAX what the
 * file grows by is not locked any more.
 * 0; -ENOMEM: memory, or the number of mappings, is used up (a mapping is split where locked pages
 * begin and end), MMAPIO_ERROR_UNLOCK: all is locked still; -ERANGE: outside the file.
 */
int mmapio_unlock(struct mmapio_file *file, uint64_t offset, uint64_t length) MMAPIO_NONNULL(1);

/*
 * How many bytes of the file, in whole pages, are in memory and locked there, and how many are
 * mapped by huge pages, at this moment, as the kernel says: 0 while it is not mapped. Both read
 * /proc/self/smaps, for which the kernel looks at every page that the process has mapped: not for
 * every moment. 0, also when huge pages are none; what open(2) and read(2) return, where there is
 * no /proc (MMAPIO_ERROR_IO).
 */
int mmapio_locked_bytes(struct mmapio_file *file, uint64_t *bytes) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1, 2);
int mmapio_huge_bytes(struct mmapio_file *file, uint64_t *bytes) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1, 2);

/* --- Watching --------------------------------------------------------------------------------- */

/*
 * Tells what happens to a file, whoever does it, for whoever keeps a copy of what is in it. Events
 * are asked for, never sent: after mmapio_watch_free() there are none. Any number of watches can be
 * had of one file, in every mode; each is told everything, and neither they nor mmapio_file_check()
 * take anything from each other. What happened several times before it was asked for is told once,
 * and the order of events says nothing.
 *
 * It is inotify(7) that tells of others: other processes, and other handles of the same file, in
 * this process too. It tells of no stores through a mapping of theirs, of nothing that another
 * computer does to a file on a network, and since Linux 6.14 of nothing that happens to a file of
 * mmapio_open_anonymous(); mmapio_file_check() may notice these. What others do while a call of
 * this handle is changing the file may be taken for ours.
 */
struct mmapio_watch;

enum mmapio_event_kind {
	/* Bytes or size. own: by a call of this handle; a store through a slice of it is told when
	 * it is committed, a change of size from the smaller size to the larger one, and an
	 * allocation that failed as if all of it had been done. What is changed in a copy-on-write
	 * file stays there, and is not told. Else by others, who knows where: length is UINT64_MAX.
	 */
	MMAPIO_EVENT_MODIFIED,
	/* Mode, owner, names, extended attributes or times, by others. (A file that may be run as
	 * its owner ceases to be one when it is written, also by us: that is told, too.) */
	MMAPIO_EVENT_METADATA,
	/* The last name is gone, also by a rename of another file to it; once. Who has the file
	 * open or mapped keeps it, and events of it go on. */
	MMAPIO_EVENT_REMOVED,
	/* More has happened than could be kept (256 ranges of our own, or the queue of inotify(7)),
	 * or may have been missed, for inotify(7) ends with the last name if that is not the one by
	 * which the file was opened, and is begun anew: all may have changed. */
	MMAPIO_EVENT_OVERFLOW,
};

/* Set it up with MMAPIO_EVENT_INIT; it can grow in later versions. */
struct mmapio_event {
	size_t size; /* sizeof(struct mmapio_event), as the caller knows it */
	enum mmapio_event_kind kind;
	bool own;	 /* MODIFIED: by a call of this handle */
	uint64_t offset; /* MODIFIED */
	uint64_t length; /* MODIFIED, OVERFLOW; UINT64_MAX: not known */
};

#define MMAPIO_EVENT_INIT                                                                          \
	{                                                                                          \
		sizeof(struct mmapio_event), MMAPIO_EVENT_MODIFIED, false, 0, 0                    \
	}

/*
 * Begins to watch: from now on. It holds a reference of file until it is freed. Calls that change
 * a watched file make two more system calls for each watch.
 * 0; -EINVAL; else of kind MMAPIO_ERROR_WATCH: -EMFILE, -ENFILE: descriptors (it has three), or the
 * user's instances of inotify(7), are used up; -ENOSPC: so are his watches, or those of epoll(7);
 * -EACCES: the file may not be read by this process (any more); -ENOENT: /proc is not there;
 * -ENOMEM; what fstat(2) returns.
 */
int mmapio_watch_new(struct mmapio_watch **out, struct mmapio_file *file) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1, 2);

/*
 * A descriptor for poll(2), epoll(7) and the like, not to be read: it is readable while there is
 * something for mmapio_watch_next() to look at, even if that then finds that there is no event, and
 * never after that has returned 0 until something happens. It is the watch's own. -EINVAL.
 */
int mmapio_watch_descriptor(const struct mmapio_watch *watch) MMAPIO_NONNULL(1);

/*
 * The next event. 1: *event is set; 0: there is none now; -EINVAL: a NULL, or size is too small;
 * of kind MMAPIO_ERROR_WATCH: what fstat(2) returns. Never waits for one. Each event is told to one
 * of several threads that ask at once.
 */
int mmapio_watch_next(struct mmapio_watch *watch, struct mmapio_event *event) MMAPIO_MUST_CHECK
	MMAPIO_NONNULL(1, 2);

/*
 * Ends the watch, closes its descriptor and gives its reference back as mmapio_file_unref(). No
 * other thread may be using the watch. NULL is fine.
 */
void mmapio_watch_free(struct mmapio_watch *watch);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif
