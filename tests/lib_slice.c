/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_slice.c - tests of slices: bounds, modes, lifetime, and what a shrink waits for
 *
 * Nothing here installs the fault guard: a shrink that does not wait ends a test by SIGBUS.
 */
#include "lib_test.h"

static const enum mmapio_mode modes[] = {MMAPIO_READ_ONLY, MMAPIO_READ_WRITE, MMAPIO_COPY_ON_WRITE};

static uint64_t page;

static struct mmapio_slice get(struct mmapio_file *file, uint64_t offset, size_t length)
{
	struct mmapio_slice slice;

	ck_assert_int_eq(mmapio_slice_get(file, offset, length, &slice), 0);
	ck_assert_ptr_nonnull(slice.data);
	ck_assert_uint_eq(slice.offset, offset);
	ck_assert_uint_eq(slice.length, length);
	return slice;
}

/* --- Taking and releasing --------------------------------------------------------------------- */

START_TEST(slice_shows_the_bytes)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 10 * page + 5);
	struct mmapio_file *file = test_open(path, modes[_i]);
	const struct {
		uint64_t offset;
		size_t length;
	} ranges[] = {{0, 1},	      {0, 10 * page + 5}, {page - 1, 2}, {page, page},
		      {10 * page, 5}, {10 * page + 4, 1}, {3, 7 * page}};

	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
		struct mmapio_slice slice = get(file, ranges[i].offset, ranges[i].length);

		ck_assert(test_is_pattern(slice.data, ranges[i].offset, ranges[i].length));
		mmapio_slice_put(&slice);
	}
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(slice_stays_inside_the_file)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 10000);
	struct mmapio_file *file = test_open(path, modes[_i]);
	const struct {
		uint64_t offset;
		size_t length;
	} outside[] = {
		{0, 10001},	      {9999, 2},       {10000, 1},
		{10001, 0},	      {10001, 1},      {20000, 5},
		{0, SIZE_MAX},	      {1, SIZE_MAX},   {10000, SIZE_MAX},
		{UINT64_MAX, 0},      {UINT64_MAX, 1}, {UINT64_MAX, SIZE_MAX},
		{UINT64_MAX - 5, 10}, {INT64_MAX, 1},  {(uint64_t)INT64_MAX + 1, SIZE_MAX / 2 + 1},
		{5, SIZE_MAX - 4}};

	for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
		struct mmapio_slice slice;
		struct mmapio_slice_mut mut;

		ck_assert_int_eq(
			mmapio_slice_get(file, outside[i].offset, outside[i].length, &slice),
			-ERANGE);
		ck_assert_int_eq(
			mmapio_slice_get_mut(file, outside[i].offset, outside[i].length, &mut),
			modes[_i] == MMAPIO_READ_ONLY ? -EBADF : -ERANGE);
	}
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(empty_slice_is_inside_up_to_the_end)
{
	const uint64_t offsets[] = {0, 1, 4096, 9999, 10000};
	char path[PATH_MAX];
	const int fd = test_file(path, 10000);
	struct mmapio_file *file = test_open(path, modes[_i]);

	for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
		struct mmapio_slice slice = get(file, offsets[i], 0);

		mmapio_slice_put(&slice);
		ck_assert_ptr_null(slice.data);
		if (modes[_i] != MMAPIO_READ_ONLY) {
			struct mmapio_slice_mut mut;

			ck_assert_int_eq(mmapio_slice_get_mut(file, offsets[i], 0, &mut), 0);
			ck_assert_int_eq(mmapio_commit(&mut, 0, 0), 0);
			ck_assert_int_eq(mmapio_commit(&mut, 0, 1), -ERANGE);
			mmapio_slice_put_mut(&mut);
		}
	}
	ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(get_some_takes_what_there_is)
{
	const struct {
		uint64_t offset;
		size_t length;
		size_t expected;
	} ranges[] = {{0, 5, 5},       {0, 10000, 10000},   {0, 20000, 10000},
		      {9990, 100, 10}, {9999, SIZE_MAX, 1}, {10000, 5, 0},
		      {10001, 5, 0},   {UINT64_MAX, 5, 0},  {UINT64_MAX, SIZE_MAX, 0},
		      {5, 0, 0},       {1, SIZE_MAX, 9999}, {(uint64_t)INT64_MAX + 5, 5, 0}};
	char path[PATH_MAX];
	const int fd = test_file(path, 10000);
	struct mmapio_file *file = test_open(path, modes[_i]);

	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
		struct mmapio_slice slice;

		ck_assert_int_eq(
			mmapio_slice_get_some(file, ranges[i].offset, ranges[i].length, &slice), 0);
		ck_assert_ptr_nonnull(slice.data);
		ck_assert_uint_eq(slice.length, ranges[i].expected);
		ck_assert(test_is_pattern(slice.data, ranges[i].offset, slice.length));
		mmapio_slice_put(&slice);
	}
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(mutable_slice_writes_the_file)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 10000);
	struct mmapio_file *file = test_open(path, modes[_i]);
	struct mmapio_slice_mut slice;
	char buffer[4];

	if (modes[_i] == MMAPIO_READ_ONLY) {
		ck_assert_int_eq(mmapio_slice_get_mut(file, 5000, 4, &slice), -EBADF);
	} else {
		ck_assert_int_eq(mmapio_slice_get_mut(file, 5000, 4, &slice), 0);
		ck_assert_uint_eq(slice.length, 4);
		ck_assert_uint_eq(slice.offset, 5000);
		ck_assert(test_is_pattern(slice.data, 5000, 4));
		memcpy(slice.data, "abcd", 4);
		ck_assert_int_eq(mmapio_commit(&slice, 5, 0), -ERANGE);
		ck_assert_int_eq(mmapio_commit(&slice, 4, 1), -ERANGE);
		ck_assert_int_eq(mmapio_commit(&slice, 1, SIZE_MAX), -ERANGE);
		ck_assert_int_eq(mmapio_commit(&slice, SIZE_MAX, 2), -ERANGE);
		ck_assert_int_eq(mmapio_commit(&slice, 0, 4), 0);
		mmapio_slice_put_mut(&slice);
		ck_assert_int_eq(mmapio_read(file, 5000, buffer, 4), 4);
		ck_assert_mem_eq(buffer, "abcd", 4);
		ck_assert_uint_eq(mmapio_dirty_bytes(file), modes[_i] == MMAPIO_READ_WRITE ? 4 : 0);
	}
	ck_assert_int_eq(pread(fd, buffer, 4, 5000), 4);
	ck_assert_int_eq(test_is_pattern(buffer, 5000, 4), modes[_i] != MMAPIO_READ_WRITE);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(releasing_clears_and_again_does_nothing)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 100);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_slice slice = get(file, 0, 100);
	struct mmapio_slice other = get(file, 0, 100);
	struct mmapio_slice_mut mut;
	struct mmapio_slice zero;
	struct mmapio_slice_mut zero_mut;

	ck_assert_int_eq(mmapio_slice_get_mut(file, 0, 100, &mut), 0);
	for (int i = 0; i < 3; i++) {
		mmapio_slice_put(&slice);
		ck_assert_ptr_null(slice.data);
		ck_assert_ptr_null(slice.file);
		ck_assert_uint_eq(slice.length, 0);
		mmapio_slice_put_mut(&mut);
		ck_assert_ptr_null(mut.data);
	}
	memset(&zero, 0, sizeof(zero));
	mmapio_slice_put(&zero);
	memset(&zero_mut, 0, sizeof(zero_mut));
	mmapio_slice_put_mut(&zero_mut);
	/* the other one must not have been released in its place */
	ck_assert_int_eq(mmapio_file_resize(file, 99, 0), -EBUSY);
	mmapio_slice_put(&other);
	ck_assert_int_eq(mmapio_file_resize(file, 99, 0), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

static void *put_thread(void *slice)
{
	mmapio_slice_put(slice);
	return NULL;
}

START_TEST(another_thread_may_release)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 100);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);

	for (int i = 0; i < 100; i++) {
		struct mmapio_slice slice = get(file, 0, 100);
		struct mmapio_slice copy = slice; /* may be copied */
		pthread_t thread;

		ck_assert_int_eq(mmapio_file_resize(file, 50, 0), -EBUSY);
		ck_assert_int_eq(pthread_create(&thread, NULL, put_thread, &copy), 0);
		ck_assert_int_eq(pthread_join(thread, NULL), 0);
		ck_assert_int_eq(mmapio_file_resize(file, 50, 0), 0);
		ck_assert_int_eq(mmapio_file_resize(file, 100, 0), 0);
	}
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* Fails if there is room for so many only, or if one of those beyond the room is not waited for. */
START_TEST(many_slices_are_held_at_once)
{
	enum { WIDTH = 64 };
	static const int counts[] = {15, 16, 17, 32, 33, 1000, 5000};
	const int n = counts[_i];
	char path[PATH_MAX];
	const int fd = test_file(path, (uint64_t)n * WIDTH);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_slice *slices = calloc((size_t)n, sizeof(*slices));

	ck_assert_ptr_nonnull(slices);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < n; i++)
			slices[i] = get(file, (uint64_t)i * WIDTH, WIDTH);
		for (int i = 0; i < n; i++)
			ck_assert(test_is_pattern(slices[i].data, slices[i].offset, WIDTH));
		for (int i = n - 1; i > 0; i -= n > 100 ? 97 : 1) {
			const uint64_t end = (uint64_t)(i + 1) * WIDTH;

			ck_assert_int_eq(mmapio_file_resize(file, end - 1, 0), -EBUSY);
			for (int j = i; j > i - (n > 100 ? 97 : 1) && j >= 0; j--)
				mmapio_slice_put(&slices[j]);
		}
		for (int i = 0; i < n; i++)
			mmapio_slice_put(&slices[i]);
		ck_assert_int_eq(mmapio_file_resize(file, 0, 0), 0);
		test_write_pattern(file, 0, (size_t)n * WIDTH);
	}
	free(slices);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(slices_outlive_the_last_reference)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 10 * page);
	struct mmapio_file *file = test_open(path, modes[_i]);
	struct mmapio_slice slices[20];
	pthread_t thread;

	for (size_t i = 0; i < ARRAY_SIZE(slices); i++)
		slices[i] = get(file, 0, 10 * page);
	mmapio_file_unref(file);
	for (size_t i = 0; i < ARRAY_SIZE(slices); i++) {
		ck_assert_uint_ge(test_mappings(path), 1);
		ck_assert(test_is_pattern(slices[i].data, 0, 10 * page));
		if (i % 2) {
			mmapio_slice_put(&slices[i]);
		} else {
			ck_assert_int_eq(pthread_create(&thread, NULL, put_thread, &slices[i]), 0);
			ck_assert_int_eq(pthread_join(thread, NULL), 0);
		}
	}
	ck_assert_uint_eq(test_mappings(path), 0);
	close(fd);
}
END_TEST

/* --- Shrinking -------------------------------------------------------------------------------- */

/* A thread that changes the size. */
struct resizer {
	pthread_t thread;
	struct mmapio_file *file;
	uint64_t size;
	uint64_t timeout_ns;
	uint64_t took_ns;
	int result;
	_Atomic bool returned;
};

static void *resize_thread(void *argument)
{
	struct resizer *resizer = argument;
	const uint64_t start = test_now();

	resizer->result = mmapio_file_resize(resizer->file, resizer->size, resizer->timeout_ns);
	resizer->took_ns = test_now() - start;
	atomic_store(&resizer->returned, true);
	return NULL;
}

static void resizer_start(struct resizer *resizer, struct mmapio_file *file, uint64_t size,
			  uint64_t timeout_ns)
{
	resizer->file = file;
	resizer->size = size;
	resizer->timeout_ns = timeout_ns;
	atomic_init(&resizer->returned, false);
	ck_assert_int_eq(pthread_create(&resizer->thread, NULL, resize_thread, resizer), 0);
}

static int resizer_join(struct resizer *resizer)
{
	ck_assert_int_eq(pthread_join(resizer->thread, NULL), 0);
	return resizer->result;
}

/* Waits until the shrink has begun: a new slice cannot reach beyond its end any more. */
static void resizer_wait_begun(struct resizer *resizer)
{
	const uint64_t end = test_now() + 10 * SECOND;

	for (;;) {
		struct mmapio_slice slice;
		const int error = mmapio_slice_get(resizer->file, resizer->size, 1, &slice);

		if (error == -ERANGE)
			return;
		ck_assert_int_eq(error, 0);
		mmapio_slice_put(&slice);
		ck_assert_msg(test_now() < end, "the shrink never made the new size known");
		test_sleep(MILLISECOND);
	}
}

START_TEST(shrink_waits_for_a_slice_beyond_the_end)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 8 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_slice slice = {0};
	struct mmapio_slice_mut mut = {0};
	struct resizer resizer;

	if (_i)
		ck_assert_int_eq(mmapio_slice_get_mut(file, 6 * page, page, &mut), 0);
	else
		slice = get(file, 6 * page, page);
	resizer_start(&resizer, file, page, MMAPIO_FOREVER);
	resizer_wait_begun(&resizer);
	test_sleep(50 * MILLISECOND);
	ck_assert(!atomic_load(&resizer.returned));
	ck_assert_uint_eq(test_size(fd), 8 * page);
	ck_assert(test_is_pattern(_i ? mut.data : slice.data, 6 * page, page));
	mmapio_slice_put(&slice);
	mmapio_slice_put_mut(&mut);
	ck_assert_int_eq(resizer_join(&resizer), 0);
	ck_assert_uint_eq(test_size(fd), page);
	ck_assert_uint_eq(mmapio_file_size(file), page);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* Fails if whole pages are compared, or < is taken for <=. */
START_TEST(shrink_is_exact_to_the_byte)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 2000);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);

	for (uint64_t end = 1000; end > 990; end--) {
		struct mmapio_slice slice = get(file, 5, end - 5);
		struct mmapio_slice lower = get(file, 0, 1);

		ck_assert_int_eq(mmapio_file_resize(file, 2000, 0), 0);
		ck_assert_int_eq(mmapio_file_resize(file, end - 1, 0), -EBUSY);
		ck_assert_uint_eq(mmapio_file_size(file), 2000);
		ck_assert_uint_eq(test_size(fd), 2000);
		ck_assert_int_eq(mmapio_file_resize(file, end, 0), 0);
		ck_assert_uint_eq(test_size(fd), end);
		ck_assert(test_is_pattern(slice.data, 5, end - 5));
		mmapio_slice_put(&lower);
		mmapio_slice_put(&slice);
	}
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(shrink_that_gives_up_changes_nothing)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 8 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_slice slice = get(file, 7 * page, page);
	uint64_t start = test_now();

	ck_assert_int_eq(mmapio_file_resize(file, page, 0), -EBUSY);
	ck_assert_uint_lt(test_now() - start, 20 * SECOND);
	start = test_now();
	ck_assert_int_eq(mmapio_file_resize(file, page, 100 * MILLISECOND), -EBUSY);
	ck_assert_uint_ge(test_now() - start, 100 * MILLISECOND);
	ck_assert_uint_lt(test_now() - start, 20 * SECOND);
	ck_assert_uint_eq(mmapio_file_size(file), 8 * page);
	ck_assert_uint_eq(test_size(fd), 8 * page);
	ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
	ck_assert(test_reads_pattern(file, 0, 8 * page));
	mmapio_slice_put(&slice);
	ck_assert_int_eq(mmapio_file_resize(file, page, 0), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(timed_shrink_ends_with_the_release)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 8 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_slice slice = get(file, 7 * page, page);
	struct resizer resizer;

	resizer_start(&resizer, file, page, 60 * SECOND);
	resizer_wait_begun(&resizer);
	mmapio_slice_put(&slice);
	ck_assert_int_eq(resizer_join(&resizer), 0);
	ck_assert_uint_lt(resizer.took_ns, 30 * SECOND);
	ck_assert_uint_eq(test_size(fd), page);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(growth_waits_for_no_slice)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 8 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_slice whole = get(file, 0, 8 * page);

	for (uint64_t size = 8 * page; size < 64 * MIB; size *= 2) {
		struct mmapio_slice last;

		ck_assert_int_eq(mmapio_file_resize(file, size + 1, MMAPIO_FOREVER), 0);
		last = get(file, size, 1);
		ck_assert(test_is_zero(last.data, 1));
		ck_assert(test_is_pattern(whole.data, 0, 8 * page));
		mmapio_slice_put(&last);
	}
	mmapio_slice_put(&whole);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* What the holder of a slice may still do while a shrink waits for just this slice. Fails by the
 * time limit if one of these waits for the shrink, which would be a deadlock. */
START_TEST(holder_goes_on_while_a_shrink_waits)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 8 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_slice_mut held;
	struct mmapio_slice slice;
	struct resizer resizer;
	struct stat st;
	char byte;

	ck_assert_int_eq(mmapio_slice_get_mut(file, 6 * page, page, &held), 0);
	resizer_start(&resizer, file, 2 * page, MMAPIO_FOREVER);
	resizer_wait_begun(&resizer);

	slice = get(file, 0, 2 * page);
	mmapio_slice_put(&slice);
	ck_assert_int_eq(mmapio_slice_get_some(file, 0, 8 * page, &slice), 0);
	ck_assert_uint_eq(slice.length, 2 * page);
	mmapio_slice_put(&slice);
	ck_assert_int_eq(mmapio_read(file, 5, &byte, 1), 1);
	test_write_pattern(file, 0, 2 * page);
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_int_eq(mmapio_flush_range(file, 0, 10), 0);
	ck_assert_int_eq(mmapio_touch(file, 0, 8 * page), 0);
	switch (_i) {
	case 1: /* a held slice keeps its range inside the file */
		memset(held.data, '#', page);
		ck_assert_int_eq(mmapio_commit(&held, 0, page), 0);
		break;
	case 2: /* waits for nobody, and must not give the old size back to new slices */
		ck_assert_int_eq(mmapio_file_refresh(file, &st), 0);
		ck_assert_int_eq(mmapio_slice_get(file, 2 * page, 1, &slice), -ERANGE);
		break;
	case 3: /* a change of size by somebody else waits, but no longer than it is told to */
		ck_assert_int_eq(mmapio_file_resize(file, page, 0), -EBUSY);
		ck_assert_int_eq(mmapio_file_resize(file, 16 * page, 20 * MILLISECOND), -EBUSY);
		break;
	case 4: /* is cut off: but the held bytes stay */
		test_write_pattern(file, 2 * page - 5, 10);
		test_write_pattern(file, 8 * page - 5, 10);
		ck_assert_int_eq(mmapio_slice_get(file, 2 * page, 1, &slice), -ERANGE);
		ck_assert(test_is_pattern(held.data, 6 * page, page));
		ck_assert_int_eq(mmapio_file_refresh(file, NULL), 0);
		ck_assert_int_eq(mmapio_slice_get(file, 2 * page, 1, &slice), -ERANGE);
		break;
	case 5:
		ck_assert_int_eq(mmapio_file_allocate(file, 0, 0, 20 * page), 0);
		ck_assert_int_ge(mmapio_copy(file, 0, file, 18 * page, page), 0);
		ck_assert_int_eq(mmapio_slice_get(file, 2 * page, 1, &slice), -ERANGE);
		break;
	}
	ck_assert(!atomic_load(&resizer.returned));
	mmapio_slice_put_mut(&held);
	ck_assert_int_eq(resizer_join(&resizer), 0);
	ck_assert_uint_eq(test_size(fd), 2 * page);
	ck_assert_uint_eq(mmapio_file_size(file), 2 * page);
	ck_assert(test_reads_pattern(file, 0, 2 * page));
	/* nothing is dirty where nothing is */
	for (uint64_t offset = 0, n; mmapio_dirty_next(file, &offset, &n); offset += n)
		ck_assert_uint_le(offset + n, 2 * page);
	ck_assert_int_eq(mmapio_file_resize(file, 16 * page, 0), 0);
	slice = get(file, 2 * page, 14 * page);
	ck_assert(test_is_zero(slice.data, 14 * page));
	mmapio_slice_put(&slice);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* After a shrink that gave up, the size is what others have made of it meanwhile. */
START_TEST(shrink_that_gives_up_takes_the_size_of_the_file)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 8 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_slice held = get(file, 6 * page, page);
	struct resizer resizer;

	resizer_start(&resizer, file, 2 * page, 2 * SECOND);
	resizer_wait_begun(&resizer);
	test_write_pattern(file, 8 * page, 10 * page); /* extends, while the shrink waits */
	ck_assert_int_eq(resizer_join(&resizer), -EBUSY);
	ck_assert_uint_eq(test_size(fd), 18 * page);
	ck_assert_uint_eq(mmapio_file_size(file), 18 * page);
	ck_assert(test_reads_pattern(file, 0, 18 * page));
	ck_assert_uint_eq(mmapio_dirty_bytes(file), 10 * page);
	mmapio_slice_put(&held);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* Many that shrink at once, each waiting for another slice. */
START_TEST(several_shrinks_wait_together)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 40 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_slice slices[30];
	struct resizer resizers[4];

	for (size_t i = 0; i < ARRAY_SIZE(slices); i++)
		slices[i] = get(file, i * page, page);
	for (size_t i = 0; i < ARRAY_SIZE(resizers); i++)
		resizer_start(&resizers[i], file, (5 + i) * page, MMAPIO_FOREVER);
	for (size_t i = ARRAY_SIZE(slices); i-- > 0;) {
		test_sleep(MILLISECOND);
		ck_assert(test_is_pattern(slices[i].data, i * page, page));
		mmapio_slice_put(&slices[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(resizers); i++)
		ck_assert_int_eq(resizer_join(&resizers[i]), 0);
	ck_assert_uint_ge(test_size(fd), 5 * page);
	ck_assert_uint_le(test_size(fd), 8 * page);
	ck_assert_uint_eq(test_size(fd), mmapio_file_size(file));
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* --- All at once ------------------------------------------------------------------------------ */

enum { READERS = 8, SLICES_EACH = 8, READ_MAX = 200, SHRINKS_EACH = 64 };

struct stress {
	struct mmapio_file *file;
	uint64_t first; /* no slice begins before */
	uint64_t full;
	uint64_t floor; /* the file is never shorter */
	_Atomic bool stop;
	_Atomic unsigned int turn; /* what the readers are asked to reach */
	_Atomic uint64_t taken;
	pthread_barrier_t start;
};

/* A slice, and which of its bytes were of the pattern when it was taken. The others were zero. */
struct held {
	struct mmapio_slice slice;
	bool pattern[READ_MAX];
};

struct reader {
	struct stress *stress;
	uint64_t random;
	_Atomic unsigned int turn; /* since it was asked for, each slice was checked and renewed */
};

static void remember(struct held *held, uint64_t floor)
{
	const volatile uint8_t *bytes = held->slice.data;

	for (size_t i = 0; i < held->slice.length; i++) {
		const uint64_t place = held->slice.offset + i;
		const uint8_t byte = bytes[i];

		held->pattern[i] = byte == test_byte(place);
		THREAD_ASSERT(held->pattern[i] || (!byte && place >= floor));
	}
}

/* What was of the pattern has to stay so. Nothing else is ever written: so a zero stays, or becomes
 * what belongs there. */
static bool is_still_there(const struct held *held)
{
	const volatile uint8_t *bytes = held->slice.data;

	for (size_t i = 0; i < held->slice.length; i++) {
		const uint8_t byte = bytes[i];

		if (byte != test_byte(held->slice.offset + i) && (byte || held->pattern[i]))
			return false;
	}
	return true;
}

static void *read_thread(void *argument)
{
	struct reader *reader = argument;
	struct stress *stress = reader->stress;
	struct held slices[SLICES_EACH] = {0};
	uint8_t buffer[READ_MAX];
	unsigned int asked = 0;
	unsigned int due = 0; /* the step at which the turn that was asked for is over */
	uint64_t taken = 0;

	pthread_barrier_wait(&stress->start);
	for (unsigned int i = 0; !atomic_load(&stress->stop); i++) {
		struct held *held = &slices[i % SLICES_EACH];
		const uint64_t offset =
			stress->first + test_below(&reader->random, stress->full - stress->first);
		const size_t length = 1 + test_below(&reader->random, READ_MAX);
		ssize_t n;
		int error;

		if (i == due)
			atomic_store(&reader->turn, asked);
		if (asked != atomic_load(&stress->turn)) {
			asked = atomic_load(&stress->turn);
			due = i + SLICES_EACH;
		}
		THREAD_ASSERT(is_still_there(held));
		mmapio_slice_put(&held->slice);
		n = mmapio_read(stress->file, offset, buffer, length);
		THREAD_ASSERT(n >= 0 &&
			      test_is_pattern_or_cut(buffer, offset, (size_t)n, stress->floor));
		error = test_below(&reader->random, 2)
				? mmapio_slice_get(stress->file, offset, length, &held->slice)
				: mmapio_slice_get_some(stress->file, offset, length, &held->slice);
		THREAD_ASSERT(!error || error == -ERANGE);
		if (error) {
			memset(&held->slice, 0, sizeof(held->slice));
			continue;
		}
		remember(held, stress->floor);
		taken++;
		if (i % 16 == 0)
			sched_yield(); /* a shrink is to wait for threads, not time slices */
	}
	for (int i = 0; i < SLICES_EACH; i++)
		mmapio_slice_put(&slices[i].slice);
	atomic_fetch_add(&stress->taken, taken);
	return NULL;
}

/* Waits until each reader has checked all slices that it holds now, and taken others. */
static void readers_take_turns(struct stress *stress, struct reader *readers)
{
	const unsigned int turn = atomic_fetch_add(&stress->turn, 1) + 1;

	for (int i = 0; i < READERS; i++) {
		while (atomic_load(&readers[i].turn) != turn)
			sched_yield();
	}
}

/* The bytes that are cut off are there, in slices that are held, when the first shrink begins, and
 * are not written anew before all slices have been checked. So a shrink that does not wait leaves
 * zeros where they cannot be, whichever threads run when; or it gives SIGBUS, but not where the
 * size stays inside one page. Writes by pwrite(2) only, so that the readers' loads race with
 * nothing. _i: inside one page; with the guard from 2 on, so that copies hold slices too */
START_TEST(readers_hold_64_slices_while_the_file_shrinks_and_grows)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct stress stress = {.full = 64 * page, .floor = 25 * page + 77};
	struct reader readers[READERS];
	pthread_t threads[READERS];
	char path[PATH_MAX];
	uint64_t random = 7;
	unsigned int refused = 0;
	int fd;

	if (_i % 2) {
		stress.first = 25 * page;
		stress.full = 26 * page;
	}
	if (_i >= 2)
		ck_assert_int_eq(mmapio_guard_install(), 0);
	fd = test_file(path, stress.full);
	options.write_method = MMAPIO_WRITE_PWRITE;
	stress.file = test_open_with(path, &options);
	pthread_barrier_init(&stress.start, NULL, READERS + 1);
	for (int i = 0; i < READERS; i++) {
		readers[i] = (struct reader){&stress, 1000 + (uint64_t)i, 0};
		ck_assert_int_eq(pthread_create(&threads[i], NULL, read_thread, &readers[i]), 0);
	}
	pthread_barrier_wait(&stress.start);
	for (int i = 0; i < TEST_REPEAT(10000); i++) {
		const uint64_t size =
			stress.floor + test_below(&random, stress.full - stress.floor);
		const uint64_t timeout =
			i % 4 ? MMAPIO_FOREVER : test_below(&random, 2) * MILLISECOND / 10;
		int error;

		if (i % SHRINKS_EACH == 0) {
			readers_take_turns(&stress, readers);
			test_write_pattern(stress.file, stress.floor, stress.full - stress.floor);
			readers_take_turns(&stress, readers);
		}
		error = mmapio_file_resize(stress.file, size, timeout);
		if (error) {
			ck_assert_int_eq(error, -EBUSY);
			ck_assert_uint_ne(timeout, MMAPIO_FOREVER);
			refused++;
		} else {
			ck_assert_uint_eq(test_size(fd), size);
		}
		ck_assert_int_eq(mmapio_file_resize(stress.file, stress.full, 0), 0);
	}
	readers_take_turns(&stress, readers);
	atomic_store(&stress.stop, true);
	for (int i = 0; i < READERS; i++)
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
	ck_assert_uint_gt(atomic_load(&stress.taken), 100);
	ck_assert_uint_gt(refused, 0); /* else nobody held anything, and nothing was tested */
	test_write_pattern(stress.file, stress.floor, stress.full - stress.floor);
	ck_assert(test_disk_is_pattern(fd, 0, stress.full));
	mmapio_file_unref(stress.file);
	pthread_barrier_destroy(&stress.start);
	close(fd);
}
END_TEST

static void *close_race_thread(void *argument)
{
	struct mmapio_slice *slice = argument;

	THREAD_ASSERT(test_is_pattern(slice->data, slice->offset, slice->length));
	mmapio_slice_put(slice);
	return NULL;
}

/* The last reference and the last slices go at the same time. Fails as use after free or twice,
 * mostly with a sanitizer. */
START_TEST(closing_races_with_releases)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 4 * page);

	for (int i = 0; i < 500; i++) {
		struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
		struct mmapio_slice slices[4];
		pthread_t threads[4];

		for (size_t j = 0; j < ARRAY_SIZE(slices); j++)
			slices[j] = get(file, j * page, page);
		if (i % 2) /* those released meanwhile have been waited for */
			ck_assert_int_eq(mmapio_file_resize(file, 1, 0), -EBUSY);
		for (size_t j = 0; j < ARRAY_SIZE(slices); j++)
			ck_assert_int_eq(
				pthread_create(&threads[j], NULL, close_race_thread, &slices[j]),
				0);
		mmapio_file_unref(file);
		for (size_t j = 0; j < ARRAY_SIZE(slices); j++)
			ck_assert_int_eq(pthread_join(threads[j], NULL), 0);
		ck_assert_uint_eq(test_mappings(path), 0);
	}
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("slice");
	TCase *taking = test_case(suite, "take");
	TCase *shrinking = test_case(suite, "shrink");
	TCase *deadlock = test_case(suite, "deadlock");
	TCase *stress = test_case(suite, "stress");

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	test_make_folder();
	tcase_set_timeout(deadlock, 30);

	tcase_add_loop_test(taking, slice_shows_the_bytes, 0, 3);
	tcase_add_loop_test(taking, slice_stays_inside_the_file, 0, 3);
	tcase_add_loop_test(taking, empty_slice_is_inside_up_to_the_end, 0, 3);
	tcase_add_loop_test(taking, get_some_takes_what_there_is, 0, 3);
	tcase_add_loop_test(taking, mutable_slice_writes_the_file, 0, 3);
	tcase_add_test(taking, releasing_clears_and_again_does_nothing);
	tcase_add_test(taking, another_thread_may_release);
	tcase_add_loop_test(taking, many_slices_are_held_at_once, 0, 7);
	tcase_add_loop_test(taking, slices_outlive_the_last_reference, 0, 3);

	tcase_add_loop_test(shrinking, shrink_waits_for_a_slice_beyond_the_end, 0, 2);
	tcase_add_test(shrinking, shrink_is_exact_to_the_byte);
	tcase_add_test(shrinking, shrink_that_gives_up_changes_nothing);
	tcase_add_test(shrinking, timed_shrink_ends_with_the_release);
	tcase_add_test(shrinking, growth_waits_for_no_slice);
	tcase_add_test(shrinking, several_shrinks_wait_together);
	tcase_add_loop_test(deadlock, holder_goes_on_while_a_shrink_waits, 0, 6);
	tcase_add_test(deadlock, shrink_that_gives_up_takes_the_size_of_the_file);

	tcase_add_loop_test(stress, readers_hold_64_slices_while_the_file_shrinks_and_grows, 0, 4);
	tcase_add_test(stress, closing_races_with_releases);
	return test_run(suite);
}
