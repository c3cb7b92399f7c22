/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_moments.c - tests of what happens when something else happens at the worst moment
 *
 * The system calls that the library makes come through here first, so that a test can let one fail,
 * or do something right before or after it. What they do otherwise is the kernel's.
 */
#include "lib_test.h"

#include <sys/mman.h>

static uint64_t page;

/* In place of the C library's, for the library as well. */
#define IN_PLACE __attribute__((visibility("default")))

/* --- System calls ----------------------------------------------------------------------------- */

static struct {
	atomic_int fail_syncs;		    /* so many calls of fdatasync() and msync() give EIO */
	atomic_int syncs;		    /* made, or failed */
	void (*_Atomic in_sync)(void);	    /* called once, before fdatasync() returns */
	void (*_Atomic after_pwrite)(void); /* called once, before pwrite() returns */
} moment;

static void happen(void (*_Atomic *what)(void))
{
	void (*call)(void) = atomic_exchange(what, NULL);

	if (call)
		call();
}

static bool take(atomic_int *count)
{
	return atomic_load(count) > 0 && atomic_fetch_sub(count, 1) > 0;
}

static int sync_result(int result)
{
	atomic_fetch_add(&moment.syncs, 1);
	if (take(&moment.fail_syncs)) {
		errno = EIO;
		result = -1;
	}
	happen(&moment.in_sync);
	return result;
}

IN_PLACE int fdatasync(int fd)
{
	return sync_result((int)syscall(SYS_fdatasync, fd));
}

IN_PLACE int msync(void *address, size_t length, int flags)
{
	return sync_result((int)syscall(SYS_msync, address, length, flags));
}

IN_PLACE ssize_t pwrite(int fd, const void *buffer, size_t length, off_t offset)
{
	const ssize_t result = syscall(SYS_pwrite64, fd, buffer, length, offset);

	happen(&moment.after_pwrite);
	return result;
}

/* The file of the running test, for what happens. */
static struct mmapio_file *file;

static void open_file(char path[PATH_MAX], uint64_t pages, int *fd)
{
	*fd = test_file(path, pages * page);
	file = test_open(path, MMAPIO_READ_WRITE);
}

static void close_file(int fd)
{
	mmapio_file_unref(file);
	close(fd);
}

/* --- A sync that fails while somebody changes the file ---------------------------------------- */

static void *flush_in_vain(void *unused)
{
	(void)unused;
	atomic_store(&moment.fail_syncs, 1);
	THREAD_ASSERT(mmapio_flush(file) == -EIO);
	return NULL;
}

/* From another thread, as a flusher's would. */
static void others_flush_in_vain(void)
{
	pthread_t thread;

	THREAD_ASSERT(!pthread_create(&thread, NULL, flush_in_vain, NULL));
	THREAD_ASSERT(!pthread_join(thread, NULL));
}

/* The bytes are in the page cache, and not yet known to be dirty, when a sync fails that may have
 * been about them. Fails if they are taken for written after the failure. */
START_TEST(sync_fails_in_the_middle_of_a_write)
{
	char path[PATH_MAX];
	int fd;

	open_file(path, 16, &fd);
	test_write_pattern(file, 0, 1); /* so that there is something to sync */
	atomic_store(&moment.after_pwrite, others_flush_in_vain);
	test_write_pattern(file, 8 * page, page);
	ck_assert_int_eq(mmapio_flush_range(file, 8 * page, page), -EIO);
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	/* the same with bytes that were in doubt before: they are not written anew */
	atomic_store(&moment.after_pwrite, others_flush_in_vain);
	test_write_pattern(file, 0, 1);
	test_write_pattern(file, 8 * page, page);
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	ck_assert_int_eq(mmapio_flush_range(file, 8 * page, page), 0);
	test_write_pattern(file, 0, 1);
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_int_eq(mmapio_file_error(file), 0);
	close_file(fd);
}
END_TEST

START_TEST(sync_fails_between_store_and_commit)
{
	struct mmapio_slice_mut slice;
	char path[PATH_MAX];
	int fd;

	open_file(path, 16, &fd);
	ck_assert_int_eq(mmapio_slice_get_mut(file, 8 * page, page, &slice), 0);
	memset(slice.data, '#', page);
	test_write_pattern(file, 0, 1);
	others_flush_in_vain();
	ck_assert_int_eq(mmapio_commit(&slice, 0, page), 0);
	test_write_pattern(file, 0, 1);
	ck_assert_int_eq(mmapio_flush_range(file, 0, 1), 0);
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	/* stored once more, it is anew */
	memset(slice.data, '#', page);
	ck_assert_int_eq(mmapio_commit(&slice, 0, page), 0);
	ck_assert_int_eq(mmapio_flush(file), 0);
	mmapio_slice_put_mut(&slice);
	close_file(fd);
}
END_TEST

/* --- A sync of a change of size --------------------------------------------------------------- */

/* _i: grow, shrink, allocate. Fails if the next flush finds nothing to do and says success. */
START_TEST(failed_sync_of_a_size_stays)
{
	char path[PATH_MAX];
	int fd, syncs;

	open_file(path, 16, &fd);
	switch (_i) {
	case 0:
		ck_assert_int_eq(mmapio_file_resize(file, 100 * page, 0), 0);
		break;
	case 1:
		ck_assert_int_eq(mmapio_file_resize(file, 3 * page, 0), 0);
		break;
	case 2:
		ck_assert_int_eq(mmapio_file_allocate(file, 0, 0, 30 * page), 0);
		break;
	}
	atomic_store(&moment.fail_syncs, 1);
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	ck_assert_int_eq(mmapio_file_error(file), -EIO);
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	ck_assert_int_eq(mmapio_sync(file, true), -EIO);
	/* a range of bytes is not concerned */
	test_write_pattern(file, page, 1);
	ck_assert_int_eq(mmapio_flush_range(file, page, 1), 0);
	ck_assert_int_eq(mmapio_file_error(file), -EIO);
	/* with the next change the inode is written anew */
	syncs = atomic_load(&moment.syncs);
	test_write_pattern(file, page, 1);
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_int_eq(atomic_load(&moment.syncs), syncs + 1);
	ck_assert_int_eq(mmapio_file_error(file), 0);
	close_file(fd);
}
END_TEST

static void cut_to_a_page(void)
{
	ck_assert_int_eq(mmapio_file_resize(file, page, 0), 0);
}

/* Fails if bytes that are cut off while their sync fails stay in doubt for ever. */
START_TEST(sync_fails_with_bytes_that_are_cut_off)
{
	char path[PATH_MAX];
	int fd;

	open_file(path, 16, &fd);
	test_write_pattern(file, 8 * page, page);
	atomic_store(&moment.in_sync, cut_to_a_page);
	atomic_store(&moment.fail_syncs, 1);
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	test_write_pattern(file, 0, page);
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_int_eq(mmapio_file_error(file), 0);
	close_file(fd);
}
END_TEST

/* --- Truncated by others ---------------------------------------------------------------------- */

/* _i: mode. Fails if a file that cannot be flushed, since it is not read-write, is dirty. */
START_TEST(file_cut_by_others_is_not_dirty)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 16 * page);

	file = test_open(path, _i ? MMAPIO_COPY_ON_WRITE : MMAPIO_READ_ONLY);
	ck_assert_int_eq(ftruncate(fd, 5), 0);
	ck_assert_int_eq(mmapio_file_refresh(file, NULL), 0);
	ck_assert_uint_eq(mmapio_file_size(file), 5);
	ck_assert(!mmapio_is_dirty(file));
	ck_assert_int_eq(mmapio_flush(file), 0);
	close_file(fd);
}
END_TEST

static void others_cut_to_ten(void)
{
	THREAD_ASSERT(!truncate("/proc/self/fd/9", 10));
	THREAD_ASSERT(!mmapio_file_refresh(file, NULL));
}

static void *wait_and_cut(void *slice)
{
	test_sleep(50 * MILLISECOND);
	others_cut_to_ten();
	mmapio_slice_put(slice);
	return NULL;
}

/* Fails if the handle believes that the file is as short as others made it before the shrink, which
 * made it longer again. */
START_TEST(file_cut_by_others_while_a_shrink_waits)
{
	struct mmapio_slice slice;
	char path[PATH_MAX];
	pthread_t thread;
	int fd;

	open_file(path, 16, &fd);
	ck_assert_int_eq(dup2(fd, 9), 9);
	ck_assert_int_eq(mmapio_slice_get(file, 10 * page, page, &slice), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, wait_and_cut, &slice), 0);
	ck_assert_int_eq(mmapio_file_resize(file, 4 * page, MMAPIO_FOREVER), 0);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	ck_assert_uint_eq(test_size(fd), 4 * page);
	ck_assert_uint_eq(mmapio_file_size(file), 4 * page);
	close(9);
	close_file(fd);
}
END_TEST

/* --- What a held slice is sure of ------------------------------------------------------------- */

static void *shrink_in_vain(void *stop)
{
	while (!atomic_load((atomic_bool *)stop))
		THREAD_ASSERT(mmapio_file_resize(file, page, 0) == -EBUSY);
	return NULL;
}

/* Fails if a shrink that gives up makes the file look shorter for a moment. */
START_TEST(range_of_a_held_slice_can_always_be_flushed)
{
	struct mmapio_slice_mut slice;
	atomic_bool stop = false;
	char path[PATH_MAX];
	pthread_t thread;
	int fd;

	open_file(path, 16, &fd);
	ck_assert_int_eq(mmapio_slice_get_mut(file, 8 * page, page, &slice), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, shrink_in_vain, &stop), 0);
	for (int i = 0; i < TEST_REPEAT(100000); i++) {
		ck_assert_int_eq(mmapio_commit(&slice, 5, 10), 0);
		if (i % 1000 == 0)
			ck_assert_int_eq(mmapio_flush_range(file, 8 * page, page), 0);
	}
	atomic_store(&stop, true);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	mmapio_slice_put_mut(&slice);
	close_file(fd);
}
END_TEST

/* --- Times ------------------------------------------------------------------------------------ */

/* What stat says before and after a store that comes right after a pwrite(2). Fails if the store
 * takes the time that pwrite(2) left for its own. */
START_TEST(store_after_an_append_moves_mtime)
{
	struct stat before, after;
	char path[PATH_MAX], bytes[16] = "0123456789abcdef";
	int fd;

	ck_assert_int_eq(mmapio_guard_install(), 0);
	open_file(path, 16, &fd);
	for (int i = 0; i < 100; i++) {
		test_write(file, 0, bytes, sizeof(bytes));
		ck_assert_int_eq(mmapio_file_refresh(file, &before), 0);
		test_write(file, mmapio_file_size(file), bytes, sizeof(bytes));
		ck_assert_int_eq(mmapio_file_refresh(file, &before), 0);
		test_write(file, 0, bytes, sizeof(bytes));
		ck_assert_int_eq(mmapio_file_refresh(file, &after), 0);
		ck_assert(before.st_mtim.tv_sec < after.st_mtim.tv_sec ||
			  (before.st_mtim.tv_sec == after.st_mtim.tv_sec &&
			   before.st_mtim.tv_nsec < after.st_mtim.tv_nsec));
	}
	close_file(fd);
}
END_TEST

/* --- Handles ---------------------------------------------------------------------------------- */

static void *write_when_writable(void *unused)
{
	while (mmapio_file_mode(file) != MMAPIO_READ_WRITE)
		;
	THREAD_ASSERT(mmapio_write(file, 0, "x", 1) == 1);
	return unused;
}

/* Fails, some of these times, if a file is said to be writable before its mapping is. */
START_TEST(first_write_to_a_file_made_writable)
{
	ck_assert_int_eq(mmapio_guard_install(), 0);
	for (int i = 0; i < TEST_REPEAT(1000); i++) {
		char path[PATH_MAX], byte;
		const int fd = test_file(path, page);
		pthread_t thread;
		int writable;

		file = test_open(path, MMAPIO_READ_ONLY);
		ck_assert_int_eq(mmapio_read(file, 0, &byte, 1), 1);
		writable = open(path, O_RDWR | O_CLOEXEC);
		ck_assert_int_eq(pthread_create(&thread, NULL, write_when_writable, NULL), 0);
		ck_assert_int_eq(mmapio_file_make_writable(file, writable), 0);
		ck_assert_int_eq(pthread_join(thread, NULL), 0);
		close_file(fd);
		unlink(path);
	}
}
END_TEST

static unsigned int errors_seen, closes_seen;

static void use_in_on_error(void *context, uint64_t offset, uint64_t length, int error)
{
	(void)context;
	(void)offset;
	(void)length;
	ck_assert_int_eq(error, EIO);
	mmapio_file_unref(mmapio_file_ref(file));
	errors_seen++;
}

static void count_close(void *context)
{
	(void)context;
	closes_seen++;
}

/* Fails if the file is closed twice. */
START_TEST(on_error_of_the_last_flush_may_use_the_file)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	const int fd = test_file(path, 4 * page);

	options.policy.writes = 100;
	options.on_error = use_in_on_error;
	options.on_close = count_close;
	file = test_open_with(path, &options);
	test_write_pattern(file, 0, 10);
	atomic_store(&moment.fail_syncs, 1);
	mmapio_file_unref(file);
	ck_assert_uint_eq(errors_seen, 1);
	ck_assert_uint_eq(closes_seen, 1);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("moments");
	TCase *moments = test_case(suite, "moments");

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	test_make_folder();

	tcase_add_test(moments, sync_fails_in_the_middle_of_a_write);
	tcase_add_test(moments, sync_fails_between_store_and_commit);
	tcase_add_loop_test(moments, failed_sync_of_a_size_stays, 0, 3);
	tcase_add_test(moments, sync_fails_with_bytes_that_are_cut_off);
	tcase_add_loop_test(moments, file_cut_by_others_is_not_dirty, 0, 2);
	tcase_add_test(moments, file_cut_by_others_while_a_shrink_waits);
	tcase_add_test(moments, range_of_a_held_slice_can_always_be_flushed);
	tcase_add_test(moments, store_after_an_append_moves_mtime);
	tcase_add_test(moments, first_write_to_a_file_made_writable);
	tcase_add_test(moments, on_error_of_the_last_flush_may_use_the_file);
	return test_run(suite);
}
