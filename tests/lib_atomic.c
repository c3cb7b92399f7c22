/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_atomic.c - tests of atomic views: one step for threads and processes, alignment, and what
 * counts
 */
#include "lib_test.h"

static const enum mmapio_mode modes[] = {MMAPIO_READ_ONLY, MMAPIO_READ_WRITE, MMAPIO_COPY_ON_WRITE};

static uint64_t page;

/* Every operation of one width against what C does. */
#define OPERATIONS(WIDTH)                                                                          \
	static void operations_##WIDTH(struct mmapio_file *file)                                   \
	{                                                                                          \
		struct mmapio_atomic_u##WIDTH view;                                                \
		uint##WIDTH##_t before, value, expected;                                           \
		const uint##WIDTH##_t a = (uint##WIDTH##_t)0x123456789abcdef0,                     \
				      b = (uint##WIDTH##_t)0xfedcba0987654321;                     \
                                                                                                   \
		ck_assert_int_eq(mmapio_atomic_u##WIDTH##_get(file, page - WIDTH / 8, 2, &view),   \
				 0);                                                               \
		ck_assert_uint_eq(view.count, 2);                                                  \
		ck_assert_int_eq(mmapio_atomic_u##WIDTH##_store(&view, 1, a), 0);                  \
		ck_assert_int_eq(mmapio_atomic_u##WIDTH##_load(&view, 1, &value), 0);              \
		ck_assert_uint_eq(value, a);                                                       \
		ck_assert_int_eq(mmapio_atomic_u##WIDTH##_exchange(&view, 1, b, &before), 0);      \
		ck_assert_uint_eq(before, a);                                                      \
		ck_assert_int_eq(mmapio_atomic_u##WIDTH##_add(&view, 1, a, &before), 0);           \
		ck_assert_uint_eq(before, b);                                                      \
		ck_assert_int_eq(mmapio_atomic_u##WIDTH##_sub(&view, 1, b, &before), 0);           \
		ck_assert_uint_eq(before, (uint##WIDTH##_t)(a + b));                               \
		ck_assert_int_eq(mmapio_atomic_u##WIDTH##_and(&view, 1, b, &before), 0);           \
		ck_assert_uint_eq(before, a);                                                      \
		ck_assert_int_eq(mmapio_atomic_u##WIDTH##_or(&view, 1, a, &before), 0);            \
		ck_assert_uint_eq(before, a &b);                                                   \
		ck_assert_int_eq(mmapio_atomic_u##WIDTH##_xor(&view, 1, b, NULL), 0);              \
		ck_assert_int_eq(mmapio_atomic_u##WIDTH##_load(&view, 1, &value), 0);              \
		ck_assert_uint_eq(value, (uint##WIDTH##_t)(((a & b) | a) ^ b));                    \
		expected = a;                                                                      \
		ck_assert_int_eq(                                                                  \
			mmapio_atomic_u##WIDTH##_compare_exchange(&view, 1, &expected, 5), 0);     \
		ck_assert_uint_eq(expected, value);                                                \
		ck_assert_int_eq(                                                                  \
			mmapio_atomic_u##WIDTH##_compare_exchange(&view, 1, &expected, 5), 1);     \
		ck_assert_int_eq(mmapio_atomic_u##WIDTH##_load(&view, 1, &value), 0);              \
		ck_assert_uint_eq(value, 5);                                                       \
		/* The other is as it was */                                                       \
		ck_assert(test_is_pattern(view.words, page - WIDTH / 8, WIDTH / 8));               \
                                                                                                   \
		ck_assert_int_eq(mmapio_atomic_u##WIDTH##_load(&view, 2, &value), -ERANGE);        \
		ck_assert_int_eq(mmapio_atomic_u##WIDTH##_store(&view, SIZE_MAX, 1), -ERANGE);     \
		ck_assert_int_eq(mmapio_atomic_u##WIDTH##_add(&view, 2, 1, NULL), -ERANGE);        \
		ck_assert_int_eq(                                                                  \
			mmapio_atomic_u##WIDTH##_compare_exchange(&view, 2, &expected, 5),         \
			-ERANGE);                                                                  \
		ck_assert_int_eq(mmapio_atomic_u##WIDTH##_put(&view), 0);                          \
		ck_assert_int_eq(mmapio_atomic_u##WIDTH##_put(&view), 0);                          \
	}
OPERATIONS(32)
OPERATIONS(64)

/* _i: read-write or copy-on-write */
START_TEST(operations_are_those_of_the_processor)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 2 * page);
	struct mmapio_file *file = test_open(path, modes[1 + _i]);

	operations_32(file);
	operations_64(file);
	ck_assert_int_eq(test_disk_is_pattern(fd, 0, 2 * page), _i == 1);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(alignment_is_looked_at_before_bounds)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 2 * page + 4);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_atomic_u32 small;
	struct mmapio_atomic_u64 large;

	for (uint64_t offset = 1; offset < 8; offset++) {
		const uint64_t far = UINT64_MAX - 7 + offset;

		ck_assert_int_eq(mmapio_atomic_u64_get(file, offset, 1, &large), -EINVAL);
		ck_assert_int_eq(mmapio_atomic_u64_get(file, far, 1, &large), -EINVAL);
		ck_assert_int_eq(mmapio_atomic_u32_get(file, far, 1, &small),
				 offset == 4 ? -ERANGE : -EINVAL);
	}
	ck_assert_int_eq(mmapio_atomic_u64_get(file, 2 * page, 1, &large), -ERANGE);
	ck_assert_int_eq(mmapio_atomic_u64_get(file, 0, page / 4, &large), 0);
	ck_assert_int_eq(mmapio_atomic_u64_put(&large), 0);
	ck_assert_int_eq(mmapio_atomic_u64_get(file, 0, page / 4 + 1, &large), -ERANGE);
	ck_assert_int_eq(mmapio_atomic_u32_get(file, 2 * page, 1, &small), 0);
	ck_assert_int_eq(mmapio_atomic_u32_put(&small), 0);
	ck_assert_int_eq(mmapio_atomic_u32_get(file, 2 * page, 2, &small), -ERANGE);
	ck_assert_int_eq(mmapio_atomic_u64_get(file, 0, SIZE_MAX / 8 + 1, &large), -ERANGE);
	ck_assert_int_eq(mmapio_atomic_u64_get(file, 0, SIZE_MAX, &large), -ERANGE);
	ck_assert_int_eq(mmapio_atomic_u32_get(file, 2 * page + 4, 0, &small), 0);
	ck_assert_int_eq(mmapio_atomic_u32_store(&small, 0, 1), -ERANGE);
	ck_assert_int_eq(mmapio_atomic_u32_put(&small), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(words_of_a_read_only_file_are_loaded)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 2 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_ONLY);
	struct mmapio_atomic_u64 view;
	uint64_t value, expected;

	ck_assert_int_eq(mmapio_atomic_u64_get(file, page, 10, &view), 0);
	/* Also when the file is read-write by then: these words lie in a mapping that is not */
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(mmapio_atomic_u64_load(&view, 3, &value), 0);
		ck_assert(test_is_pattern(&value, page + 24, 8));
		expected = value;
		ck_assert_int_eq(mmapio_atomic_u64_store(&view, 3, 1), -EBADF);
		ck_assert_int_eq(mmapio_atomic_u64_add(&view, 3, 1, NULL), -EBADF);
		ck_assert_int_eq(mmapio_atomic_u64_compare_exchange(&view, 3, &expected, 1),
				 -EBADF);
		if (i == 0)
			ck_assert_int_eq(mmapio_file_make_writable(file, dup(fd)), 0);
	}
	ck_assert_int_eq(mmapio_atomic_u64_commit(&view), 0);
	ck_assert_int_eq(mmapio_atomic_u64_put(&view), 0);
	ck_assert_int_eq(mmapio_atomic_u64_get(file, page, 10, &view), 0);
	ck_assert_int_eq(mmapio_atomic_u64_store(&view, 3, 1), 0);
	ck_assert_int_eq(mmapio_atomic_u64_put(&view), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(what_is_changed_counts_from_the_commit)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 4 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_atomic_u32 view;
	uint64_t offset = 0, length;
	uint32_t value, expected = 0;

	test_need_cachestat();
	ck_assert_int_eq(fsync(fd), 0);
	ck_assert_int_eq(mmapio_atomic_u32_get(file, page, 4, &view), 0);
	ck_assert_int_eq(mmapio_atomic_u32_load(&view, 0, &value), 0);
	ck_assert_int_eq(mmapio_atomic_u32_compare_exchange(&view, 0, &expected, 1), 0);
	ck_assert_int_eq(mmapio_atomic_u32_commit(&view), 0);
	ck_assert(!mmapio_is_dirty(file)); /* nothing was changed */
	ck_assert_int_eq(mmapio_atomic_u32_add(&view, 2, 1, NULL), 0);
	ck_assert_int_eq(mmapio_atomic_u32_commit(&view), 0);
	ck_assert_int_eq(mmapio_dirty_next(file, &offset, &length), 1);
	ck_assert_uint_eq(offset, page);
	ck_assert_uint_eq(length, 16);
	ck_assert_uint_eq(test_dirty_pages(fd), 1);
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_uint_eq(test_dirty_pages(fd), 0);
	ck_assert_int_eq(mmapio_atomic_u32_commit(&view), 0);
	ck_assert(!mmapio_is_dirty(file));
	ck_assert_int_eq(mmapio_atomic_u32_store(&view, 0, 7), 0);
	ck_assert_int_eq(mmapio_atomic_u32_put(&view), 0);
	ck_assert_uint_eq(mmapio_dirty_bytes(file), 16);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* Longer than the scheduler lets one of them run: else nothing would be under way at once. */
#define COUNT ((uint64_t)TEST_REPEAT(2000000))

/* Adds to the second word when the first one is set. */
static void *count_thread(void *argument)
{
	struct mmapio_atomic_u64 view;
	uint64_t begun = 0;

	THREAD_ASSERT(mmapio_atomic_u64_get(argument, 0, 2, &view) == 0);
	while (!begun)
		THREAD_ASSERT(mmapio_atomic_u64_load(&view, 0, &begun) == 0);
	for (uint64_t i = 0; i < COUNT; i++)
		THREAD_ASSERT(mmapio_atomic_u64_add(&view, 1, 1, NULL) == 0);
	THREAD_ASSERT(mmapio_atomic_u64_put(&view) == 0);
	return NULL;
}

/* Four threads, two processes, and a file that grows meanwhile */
START_TEST(nothing_is_lost_among_threads_and_processes)
{
	char path[PATH_MAX];
	const int fd = test_file_sparse(path, 64);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	pthread_t threads[4];
	pid_t child = fork();
	uint64_t count;
	int status;

	ck_assert_int_ge(child, 0);
	if (child == 0) {
		file = test_open(path, MMAPIO_READ_WRITE);
		count_thread(file);
		mmapio_file_unref(file);
		_exit(0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, count_thread, file), 0);
	count = 1;
	test_write(file, 0, &count, sizeof(count));
	for (uint64_t size = 64; size < 64 + 200 * page; size += page)
		ck_assert_int_eq(mmapio_file_resize(file, size, 0), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(mmapio_read(file, 8, &count, 8), 8);
	ck_assert_uint_eq(count, 5 * COUNT);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("atomic");
	TCase *views = test_case(suite, "views");

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	test_make_folder();
	tcase_add_loop_test(views, operations_are_those_of_the_processor, 0, 2);
	tcase_add_test(views, alignment_is_looked_at_before_bounds);
	tcase_add_test(views, words_of_a_read_only_file_are_loaded);
	tcase_add_test(views, what_is_changed_counts_from_the_commit);
	tcase_add_test(views, nothing_is_lost_among_threads_and_processes);
	return test_run(suite);
}
