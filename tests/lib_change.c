/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_change.c - tests of what is changed in a copy-on-write file: the list, its commit into the
 * file, and that nothing is left after a discard
 */
#include "lib_test.h"

#include <sys/resource.h>

#define PAGES  8
#define WRITES TEST_REPEAT(200000)

static uint64_t page;
static char path[PATH_MAX];
static int fd;

static void set_up(void)
{
	fd = test_file(path, PAGES * page);
}

static void tear_down(void)
{
	close(fd);
}

/* The list is these ranges, in pairs of start and end. */
static void expect_changes(struct mmapio_file *view, size_t count, const uint64_t *ends)
{
	uint64_t offset = 0, length, bytes = 0;

	for (size_t i = 0; i < count; i++, offset += length) {
		ck_assert_int_eq(mmapio_changes_next(view, &offset, &length), 1);
		ck_assert_uint_eq(offset, ends[2 * i]);
		ck_assert_uint_eq(length, ends[2 * i + 1] - ends[2 * i]);
		bytes += length;
	}
	ck_assert_int_eq(mmapio_changes_next(view, &offset, &length), 0);
	ck_assert_uint_eq(mmapio_changes_bytes(view), bytes);
}

static int set_to_x(void *context, uint64_t offset, void *data, size_t length)
{
	(void)context;
	(void)offset;
	memset(data, 'x', length);
	return 0;
}

START_TEST(each_way_to_change_is_in_the_list_exactly)
{
	struct mmapio_file *view = test_open(path, MMAPIO_COPY_ON_WRITE);
	struct mmapio_atomic_u64 words;
	struct mmapio_slice_mut slice;

	expect_changes(view, 0, NULL);
	test_write(view, 10, "changed", 7);
	expect_changes(view, 1, (uint64_t[]){10, 17});
	ck_assert_int_eq(mmapio_slice_get_mut(view, page, 2 * page, &slice), 0);
	memset((char *)slice.data + 100, 'y', 50);
	expect_changes(view, 1, (uint64_t[]){10, 17});
	ck_assert_int_eq(mmapio_commit(&slice, 100, 50), 0);
	mmapio_slice_put_mut(&slice);
	expect_changes(view, 2, (uint64_t[]){10, 17, page + 100, page + 150});
	ck_assert_int_eq(mmapio_chunks_change(view, 4 * page, page, 1000, set_to_x, NULL), 0);
	ck_assert_int_eq(mmapio_atomic_u64_get(view, 6 * page, 1, &words), 0);
	ck_assert_int_eq(mmapio_atomic_u64_store(&words, 0, 1), 0);
	ck_assert_int_eq(mmapio_atomic_u64_put(&words), 0);
	test_write(view, 17, "more", 4); /* ranges that touch are one */
	expect_changes(view, 4,
		       (uint64_t[]){10, 21, page + 100, page + 150, 4 * page, 5 * page, 6 * page,
				    6 * page + 8});
	/* Nothing of it is in the file */
	ck_assert(test_disk_is_pattern(fd, 0, PAGES * page));
	mmapio_file_unref(view);
}
END_TEST

START_TEST(a_commit_writes_what_was_changed_and_nothing_else)
{
	struct mmapio_file *view = test_open(path, MMAPIO_COPY_ON_WRITE);
	struct mmapio_file *target = test_open(path, MMAPIO_READ_WRITE);
	char found[3];

	test_write(view, page + 10, "abc", 3);
	test_write(view, 3 * page - 1, "de", 2);
	/* Others change bytes of the same pages meanwhile: they stay */
	test_pwrite(fd, "XYZ", 3, page + 200);
	ck_assert_int_eq(mmapio_changes_commit(view, target), 0);
	expect_changes(view, 0, NULL);
	ck_assert_int_eq(pread(fd, found, 3, (off_t)(page + 10)), 3);
	ck_assert_mem_eq(found, "abc", 3);
	ck_assert_int_eq(pread(fd, found, 2, (off_t)(3 * page - 1)), 2);
	ck_assert_mem_eq(found, "de", 2);
	ck_assert_int_eq(pread(fd, found, 3, (off_t)(page + 200)), 3);
	ck_assert_mem_eq(found, "XYZ", 3);
	ck_assert(test_disk_is_pattern(fd, 0, page));
	ck_assert(test_disk_is_pattern(fd, page + 13, 187));
	ck_assert(test_disk_is_pattern(fd, page + 203, 2 * page - 204));
	ck_assert(test_disk_is_pattern(fd, 3 * page + 1, (PAGES - 3) * page - 1));
	/* It was written by the target, whose policy says when it is on the disk */
	ck_assert_uint_eq(mmapio_dirty_bytes(target), 5);
	/* The view's pages follow the file again */
	test_pwrite(fd, "new", 3, page + 300);
	ck_assert_int_eq(mmapio_read(view, page + 300, found, 3), 3);
	ck_assert_mem_eq(found, "new", 3);
	mmapio_file_unref(target);
	mmapio_file_unref(view);
}
END_TEST

START_TEST(a_commit_that_fails_keeps_the_changes)
{
	struct mmapio_file *view = test_open(path, MMAPIO_COPY_ON_WRITE);
	struct mmapio_file *target = test_open(path, MMAPIO_READ_WRITE);
	const struct rlimit limit = {4 * page, RLIM_INFINITY};
	const uint64_t both[] = {0, 1, 6 * page, 6 * page + 1};
	char found;

	signal(SIGXFSZ, SIG_IGN);
	test_write(view, 0, "a", 1);
	test_write(view, 6 * page, "b", 1);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	ck_assert_int_eq(mmapio_changes_commit(view, target), -EFBIG);
	expect_changes(view, 2, both);
	ck_assert_int_eq(mmapio_read(view, 6 * page, &found, 1), 1);
	ck_assert_int_eq(found, 'b');
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}),
			 0);
	ck_assert_int_eq(mmapio_changes_commit(view, target), 0);
	expect_changes(view, 0, NULL);
	ck_assert_int_eq(pread(fd, &found, 1, (off_t)(6 * page)), 1);
	ck_assert_int_eq(found, 'b');
	mmapio_file_unref(target);
	mmapio_file_unref(view);
}
END_TEST

START_TEST(a_commit_goes_into_the_file_itself_only)
{
	struct mmapio_file *view = test_open(path, MMAPIO_COPY_ON_WRITE), *other;
	char elsewhere[PATH_MAX];

	close(test_file(elsewhere, page));
	other = test_open(elsewhere, MMAPIO_READ_WRITE);
	test_write(view, 0, "a", 1);
	ck_assert_int_eq(mmapio_changes_commit(view, other), -EINVAL);
	ck_assert_int_eq(mmapio_changes_commit(other, other), -EBADF);
	ck_assert_int_eq(mmapio_changes_commit(view, view), -EBADF);
	expect_changes(view, 1, (uint64_t[]){0, 1});
	ck_assert(test_reads_pattern(other, 0, page));
	mmapio_file_unref(other);
	mmapio_file_unref(view);
}
END_TEST

START_TEST(a_discard_leaves_the_file_as_it_is_under_held_slices_too)
{
	struct mmapio_file *view = test_open(path, MMAPIO_COPY_ON_WRITE);
	struct mmapio_slice slice;

	ck_assert_int_eq(mmapio_slice_get(view, 0, PAGES * page, &slice), 0);
	ck_assert_int_eq(mmapio_chunks_change(view, 0, UINT64_MAX, page, set_to_x, NULL), 0);
	ck_assert_int_eq(((const char *)slice.data)[5 * page], 'x');
	ck_assert_int_eq(mmapio_changes_discard(view), 0);
	expect_changes(view, 0, NULL);
	ck_assert(test_is_pattern(slice.data, 0, PAGES * page));
	mmapio_slice_put(&slice);
	ck_assert(test_reads_pattern(view, 0, PAGES * page));
	mmapio_file_unref(view);
}
END_TEST

START_TEST(what_others_cut_off_is_no_change_any_more)
{
	struct mmapio_file *view = test_open(path, MMAPIO_COPY_ON_WRITE);
	struct mmapio_file *target = test_open(path, MMAPIO_READ_WRITE);

	test_write(view, 0, "a", 1);
	test_write(view, 5 * page, "b", 1);
	ck_assert_int_eq(ftruncate(fd, (off_t)(2 * page)), 0);
	ck_assert_int_eq(mmapio_file_refresh(view, NULL), 0);
	expect_changes(view, 1, (uint64_t[]){0, 1});
	ck_assert_int_eq(mmapio_changes_commit(view, target), 0);
	ck_assert_uint_eq(test_size(fd), 2 * page);
	mmapio_file_unref(target);
	mmapio_file_unref(view);
}
END_TEST

/* Writers go on while commits are made: each of their bytes is in the file after the last commit.
 */
static void *write_on(void *argument)
{
	struct mmapio_file *view = argument;
	static _Atomic unsigned int number;
	unsigned int part = number++;
	uint64_t state = part + 1;

	for (unsigned int i = 0; i < WRITES; i++) {
		uint64_t offset = test_below(&state, PAGES * page / 2) * 2 + part;
		char byte = (char)(i + 1), found;

		/* At times so rarely that a commit finds the page without a new change. */
		for (unsigned int pause = i % 1000 < 500 ? i % 50 : 0; pause; pause--)
			sched_yield();
		THREAD_ASSERT(mmapio_write(view, offset, &byte, 1) == 1);
		THREAD_ASSERT(mmapio_read(view, offset, &found, 1) == 1 && found == byte);
	}
	return NULL;
}

START_TEST(nothing_is_lost_between_writers_and_commits)
{
	struct mmapio_file *view = test_open(path, MMAPIO_COPY_ON_WRITE);
	struct mmapio_file *target = test_open(path, MMAPIO_READ_WRITE);
	char *expected = malloc(PAGES * page), *found = malloc(PAGES * page);
	pthread_t threads[2];

	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, write_on, view), 0);
	/* Each finds them in the middle of a write (a store, and then its note). */
	for (int i = 0; i < TEST_REPEAT(3000); i++)
		ck_assert_int_eq(mmapio_changes_commit(view, target), 0);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
	ck_assert_int_eq(mmapio_read(view, 0, expected, PAGES * page), (ssize_t)(PAGES * page));
	ck_assert_int_eq(mmapio_changes_commit(view, target), 0);
	expect_changes(view, 0, NULL);
	ck_assert_int_eq(pread(fd, found, PAGES * page, 0), (ssize_t)(PAGES * page));
	ck_assert_mem_eq(found, expected, PAGES * page);
	for (uint64_t part = 0; part < 2; part++) { /* by the last write of each place */
		uint64_t state = part + 1;
		unsigned char *last = calloc(1, PAGES * page);

		for (unsigned int i = 0; i < WRITES; i++)
			last[test_below(&state, PAGES * page / 2) * 2 + part] =
				(unsigned char)(i + 1);
		for (uint64_t at = part; at < PAGES * page; at += 2)
			ck_assert(last[at] == 0 || last[at] == (unsigned char)found[at]);
		free(last);
	}
	free(expected);
	free(found);
	mmapio_file_unref(target);
	mmapio_file_unref(view);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("change");
	TCase *changes = test_case(suite, "changes");

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	test_make_folder();
	tcase_add_checked_fixture(changes, set_up, tear_down);
	tcase_add_test(changes, each_way_to_change_is_in_the_list_exactly);
	tcase_add_test(changes, a_commit_writes_what_was_changed_and_nothing_else);
	tcase_add_test(changes, a_commit_that_fails_keeps_the_changes);
	tcase_add_test(changes, a_commit_goes_into_the_file_itself_only);
	tcase_add_test(changes, a_discard_leaves_the_file_as_it_is_under_held_slices_too);
	tcase_add_test(changes, what_others_cut_off_is_no_change_any_more);
	tcase_add_test(changes, nothing_is_lost_between_writers_and_commits);
	return test_run(suite);
}
