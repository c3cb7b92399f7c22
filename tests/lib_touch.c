/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_touch.c - tests of mmapio_touch(): that it brings pages into memory, and changes nothing
 *
 * cachestat(2) says which pages are in memory.
 */
#include "lib_test.h"

static const enum mmapio_mode modes[] = {MMAPIO_READ_ONLY, MMAPIO_READ_WRITE, MMAPIO_COPY_ON_WRITE};

static uint64_t page;

/* _i: mode, with the guard from 3 on */
START_TEST(touched_pages_are_in_memory)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 32 * MIB);
	struct mmapio_file *file;

	if (_i >= 3)
		ck_assert_int_eq(mmapio_guard_install(), 0);
	test_drop_all(fd); /* else it could not fail */
	file = test_open(path, modes[_i % 3]);
	ck_assert_uint_eq(test_cached_pages_of(fd, 0, 0), 0);

	ck_assert_int_eq(mmapio_touch(file, 10 * page + 1, 1), 0);
	ck_assert_uint_eq(test_cached_pages_of(fd, 10 * page, page), 1);
	ck_assert_uint_eq(test_cached_pages_of(fd, 24 * MIB, 8 * MIB), 0); /* not all of it */

	/* a range over whole pages and parts of two */
	ck_assert_int_eq(mmapio_touch(file, 4 * MIB - 1, 12 * MIB + 2), 0);
	ck_assert_uint_eq(test_cached_pages_of(fd, 4 * MIB - page, 12 * MIB + 2 * page),
			  12 * MIB / page + 2);

	ck_assert_int_eq(mmapio_touch(file, 0, 32 * MIB), 0);
	ck_assert_uint_eq(test_cached_pages_of(fd, 0, 0), 32 * MIB / page);
	ck_assert_uint_eq(test_dirty_pages(fd), 0);
	ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(range_beyond_the_end_is_left_out)
{
	const struct {
		uint64_t offset;
		uint64_t length;
	} ranges[] = {{0, 0},
		      {0, 10001},
		      {0, UINT64_MAX},
		      {9999, 2},
		      {9999, UINT64_MAX},
		      {10000, 0},
		      {10000, 1},
		      {10001, 1},
		      {MIB, MIB},
		      {UINT64_MAX, 1},
		      {UINT64_MAX, UINT64_MAX},
		      {5, UINT64_MAX},
		      {INT64_MAX, INT64_MAX}};
	char path[PATH_MAX];
	const int fd = test_file(path, 10000);
	struct mmapio_file *file = test_open(path, modes[_i]);

	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++)
		ck_assert_int_eq(mmapio_touch(file, ranges[i].offset, ranges[i].length), 0);
	mmapio_file_unref(file);

	test_drop_all(fd);
	file = test_open(path, modes[_i]);
	ck_assert_int_eq(mmapio_touch(file, 8192, UINT64_MAX), 0);
	ck_assert_uint_eq(test_cached_pages_of(fd, 8192, 0), 1);
	ck_assert_uint_eq(test_size(fd), 10000);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(touch_changes_nothing)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 10000);
	struct mmapio_file *file;
	struct stat before, after;

	ck_assert_int_eq(ftruncate(fd, (off_t)MIB), 0); /* the rest is a hole */
	test_drop(fd);
	ck_assert_int_eq(fstat(fd, &before), 0);
	file = test_open(path, modes[_i]);
	ck_assert_int_eq(mmapio_touch(file, 0, MIB), 0);
	ck_assert_uint_eq(test_dirty_pages(fd), 0);
	ck_assert_int_eq(fsync(fd), 0);
	ck_assert_int_eq(fstat(fd, &after), 0);
	ck_assert_int_eq(after.st_blocks, before.st_blocks);
	ck_assert_int_eq(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
	ck_assert(test_reads_pattern(file, 0, 10000));
	/* a private file still follows where it was only touched */
	test_pwrite(fd, "#", 1, 5000);
	ck_assert(!test_reads_pattern(file, 5000, 1));
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* No SIGBUS where others have made the file shorter; _i as above. */
START_TEST(touch_of_a_truncated_file_is_harmless)
{
	char path[PATH_MAX];
	const int fd = test_file(path, MIB);
	struct mmapio_file *file = test_open(path, modes[_i % 3]);

	if (_i >= 3)
		ck_assert_int_eq(mmapio_guard_install(), 0);
	ck_assert_int_eq(ftruncate(fd, 5000), 0);
	ck_assert_int_eq(mmapio_touch(file, 0, MIB), 0);
	ck_assert_int_eq(mmapio_touch(file, MIB / 2, page), 0);
	ck_assert_uint_eq(test_size(fd), 5000);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

static void *touch_thread(void *file)
{
	for (int i = 0; i < 1000; i++)
		THREAD_ASSERT(!mmapio_touch(file, 0, MIB));
	return NULL;
}

START_TEST(touch_while_the_size_changes)
{
	char path[PATH_MAX];
	const int fd = test_file(path, MIB);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, touch_thread, file), 0);
	for (int i = 0; i < 1000; i++) {
		ck_assert_int_eq(mmapio_file_resize(file, 77777, MMAPIO_FOREVER), 0);
		ck_assert_int_eq(mmapio_file_resize(file, MIB, MMAPIO_FOREVER), 0);
	}
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("touch");
	TCase *touch = test_case(suite, "touch");

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	test_make_folder();
	test_need_cachestat();

	tcase_add_loop_test(touch, touched_pages_are_in_memory, 0, 6);
	tcase_add_loop_test(touch, range_beyond_the_end_is_left_out, 0, 3);
	tcase_add_loop_test(touch, touch_changes_nothing, 0, 3);
	tcase_add_loop_test(touch, touch_of_a_truncated_file_is_harmless, 0, 6);
	tcase_add_test(touch, touch_while_the_size_changes);
	return test_run(suite);
}
