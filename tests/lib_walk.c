/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_walk.c - tests of walks over a file in chunks, of segments and of cursors
 */
#include "lib_test.h"

#include <malloc.h>

static const enum mmapio_mode modes[] = {MMAPIO_READ_ONLY, MMAPIO_READ_WRITE, MMAPIO_COPY_ON_WRITE};

static uint64_t page;

/* --- Walks ------------------------------------------------------------------------------------ */

/* Each chunk is where the one before ended, shows the bytes, and all are as many as was said. */
static void check_walk(struct mmapio_chunks *chunks, uint64_t offset, uint64_t end, size_t first,
		       size_t chunk)
{
	size_t left = mmapio_chunks_left(chunks), count = 0;
	struct mmapio_chunk seen;

	while (mmapio_chunks_next(chunks, &seen)) {
		const size_t wanted = count ? chunk : first;

		count++;
		ck_assert_uint_eq(seen.offset, offset);
		ck_assert_uint_eq(seen.length, end - offset < wanted ? end - offset : wanted);
		ck_assert(test_is_pattern(seen.data, seen.offset, seen.length));
		offset += seen.length;
		ck_assert_uint_eq(mmapio_chunks_left(chunks), left - count);
	}
	ck_assert_uint_eq(offset, end);
	ck_assert_uint_eq(count, left);
	ck_assert(!mmapio_chunks_next(chunks, &seen));
	mmapio_chunks_end(chunks);
	mmapio_chunks_end(chunks);
}

/* _i: mode */
START_TEST(chunks_are_all_of_the_range)
{
	const uint64_t sizes[] = {1, page - 1, page, page + 1, 3 * page, 3 * page + 17};
	char path[PATH_MAX];
	struct mmapio_chunks chunks;

	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		const uint64_t size = sizes[s];
		const size_t pieces[] = {1, 7, page - 1, page, page + 1, 2 * page, size, SIZE_MAX};
		const int fd = test_file(path, size);
		struct mmapio_file *file = test_open(path, modes[_i]);

		for (size_t p = 0; p < ARRAY_SIZE(pieces); p++) {
			const uint64_t offset = (p * 31) % (size + 1);

			ck_assert_int_eq(
				mmapio_chunks_begin(&chunks, file, 0, UINT64_MAX, pieces[p]), 0);
			check_walk(&chunks, 0, size, pieces[p], pieces[p]);
			ck_assert_int_eq(
				mmapio_chunks_begin(&chunks, file, offset, size, pieces[p]), 0);
			check_walk(&chunks, offset, size, pieces[p], pieces[p]);
			ck_assert_int_eq(mmapio_chunks_begin(&chunks, file, offset,
							     (size - offset) / 2, pieces[p]),
					 0);
			check_walk(&chunks, offset, offset + (size - offset) / 2, pieces[p],
				   pieces[p]);
		}
		mmapio_file_unref(file);
		close(fd);
	}
}
END_TEST

START_TEST(pages_begin_at_borders)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 5 * page + 9);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_ONLY);
	const uint64_t offsets[] = {0, 1, page - 1, page, 2 * page + 100, 5 * page, 5 * page + 8};
	struct mmapio_chunks chunks;

	for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
		ck_assert_int_eq(mmapio_pages_begin(&chunks, file, offsets[i], UINT64_MAX), 0);
		check_walk(&chunks, offsets[i], 5 * page + 9, page - offsets[i] % page, page);
	}
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(walk_of_nothing_is_over_at_once)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 100);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	const uint64_t offsets[] = {100, 101, INT64_MAX, UINT64_MAX};
	struct mmapio_chunks chunks;

	ck_assert_int_eq(mmapio_chunks_begin(&chunks, file, 0, 100, 0), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
		ck_assert_int_eq(mmapio_chunks_begin(&chunks, file, offsets[i], UINT64_MAX, 10), 0);
		ck_assert_uint_eq(mmapio_chunks_left(&chunks), 0);
		mmapio_chunks_end(&chunks);
	}
	ck_assert_int_eq(mmapio_chunks_begin(&chunks, file, 50, 0, 10), 0);
	ck_assert_uint_eq(mmapio_chunks_left(&chunks), 0);
	mmapio_chunks_end(&chunks);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(walk_allocates_nothing_and_keeps_its_range)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 64 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_chunks chunks;
	struct mmapio_chunk chunk;
	struct mallinfo2 before = mallinfo2(), after;

	ck_assert_int_eq(mmapio_chunks_begin(&chunks, file, 0, UINT64_MAX, 100), 0);
	for (int i = 0; i < 1000; i++)
		ck_assert(mmapio_chunks_next(&chunks, &chunk));
	after = mallinfo2();
	if (!TEST_SANITIZED)
		ck_assert_uint_eq(before.uordblks, after.uordblks);
	ck_assert_int_eq(mmapio_file_resize(file, 10, 0), -EBUSY);
	mmapio_chunks_end(&chunks); /* in the middle */
	ck_assert_int_eq(mmapio_file_resize(file, 10, 0), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* --- Walks that change ------------------------------------------------------------------------ */

struct change {
	uint64_t offset; /* at which the next chunk has to begin */
	uint64_t end;
	size_t chunk;
	unsigned int count, stop; /* fails at the one of this number, counted from 1 */
};

static int change_one(void *context, uint64_t offset, void *data, size_t length)
{
	struct change *change = context;
	uint8_t *bytes = data;

	ck_assert_uint_eq(offset, change->offset);
	ck_assert_uint_eq(length, change->end - offset < change->chunk ? change->end - offset
								       : change->chunk);
	for (size_t i = 0; i < length; i++)
		bytes[i] ^= 0xff;
	change->offset += length;
	return ++change->count == change->stop ? 12345 : 0;
}

/* _i: read-write or copy-on-write */
START_TEST(change_walks_in_order_and_commits)
{
	char path[PATH_MAX];
	const uint64_t size = 4 * page + 100;
	const int fd = test_file(path, size);
	const enum mmapio_mode mode = modes[1 + _i];
	struct mmapio_file *file = test_open(path, mode);
	struct change change = {page - 5, 3 * page + 7, 1000, 0, 0};
	uint8_t *bytes = malloc(size);

	ck_assert_int_eq(
		mmapio_chunks_change(file, page - 5, 2 * page + 12, 1000, change_one, &change), 0);
	ck_assert_uint_eq(change.count, (2 * page + 12 + 999) / 1000);
	ck_assert_uint_eq(mmapio_dirty_bytes(file), mode == MMAPIO_READ_WRITE ? 2 * page + 12 : 0);
	ck_assert_int_eq(mmapio_read(file, 0, bytes, size), (ssize_t)size);
	ck_assert(test_is_pattern(bytes, 0, page - 5));
	for (uint64_t i = page - 5; i < 3 * page + 7; i++)
		bytes[i] ^= 0xff;
	ck_assert(test_is_pattern(bytes, 0, size));
	ck_assert_int_eq(test_disk_is_pattern(fd, 0, size), mode == MMAPIO_COPY_ON_WRITE);
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);

	/* The second chunk's error ends it; what it has stored counts */
	change = (struct change){0, size, page, 0, 2};
	ck_assert_int_eq(mmapio_chunks_change(file, 0, UINT64_MAX, page, change_one, &change),
			 12345);
	ck_assert_uint_eq(change.count, 2);
	ck_assert_uint_eq(mmapio_dirty_bytes(file), mode == MMAPIO_READ_WRITE ? 2 * page : 0);

	/* Nothing to walk over */
	ck_assert_int_eq(mmapio_chunks_change(file, size, 10, 1, change_one, NULL), 0);
	ck_assert_int_eq(mmapio_chunks_change(file, UINT64_MAX, 10, 1, change_one, NULL), 0);
	ck_assert_int_eq(mmapio_chunks_change(file, 0, 0, 1, change_one, NULL), 0);
	ck_assert_int_eq(mmapio_chunks_change(file, 0, 1, 0, change_one, NULL), -EINVAL);
	free(bytes);
	mmapio_file_unref(file);
	file = test_open(path, MMAPIO_READ_ONLY);
	ck_assert_int_eq(mmapio_chunks_change(file, 0, 1, 1, change_one, NULL), -EBADF);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

struct section {
	struct mmapio_file *file;
	atomic_bool inside, over, changed;
	uint64_t size;
	int what;
};

/* What changes the file, or its size, in one of several ways */
static void *change_thread(void *argument)
{
	struct section *section = argument;
	const char byte = 'x';

	while (!atomic_load(&section->inside))
		sched_yield();
	switch (section->what) {
	case 0:
		THREAD_ASSERT(mmapio_write(section->file, 3, &byte, 1) == 1);
		break;
	case 1:
		THREAD_ASSERT(
			mmapio_file_resize(section->file, section->size * 2, MMAPIO_FOREVER) == 0);
		break;
	case 2:
		THREAD_ASSERT(mmapio_copy(section->file, 0, section->file, section->size, 10) ==
			      10);
		break;
	case 3:
		THREAD_ASSERT(mmapio_file_allocate(section->file, 0, section->size, 10) == 0);
		break;
	default:
		THREAD_ASSERT(mmapio_file_resize(section->file, section->size * 3, 0) == 0);
	}
	atomic_store(&section->changed, true);
	return NULL;
}

static int watch_section(void *context, uint64_t offset, void *data, size_t length)
{
	struct section *section = context;
	char byte;

	(void)data;
	(void)length;
	if (offset == 0)
		atomic_store(&section->inside, true);
	/* Time for the other to get in between, were it let */
	test_sleep(10 * MILLISECOND);
	ck_assert(!atomic_load(&section->changed));
	ck_assert_uint_eq(mmapio_file_size(section->file), section->size);
	ck_assert_int_eq(mmapio_read(section->file, 3, &byte, 1), 1); /* readers go on */
	return 0;
}

/* _i: what the other does */
START_TEST(change_is_one_exclusive_section)
{
	char path[PATH_MAX];
	struct section section = {.size = 4 * page, .what = _i};
	const int fd = test_file(path, section.size);
	pthread_t thread;

	section.file = test_open(path, MMAPIO_READ_WRITE);
	ck_assert_int_eq(pthread_create(&thread, NULL, change_thread, &section), 0);
	ck_assert_int_eq(
		mmapio_chunks_change(section.file, 0, UINT64_MAX, page, watch_section, &section),
		0);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	ck_assert(atomic_load(&section.changed));
	mmapio_file_unref(section.file);
	close(fd);
}
END_TEST

/* Adds 1 to each number. Those of the second page are all the same where no write is in between. */
static int add_one(void *context, uint64_t offset, void *data, size_t length)
{
	uint64_t *numbers = data, *first = context;

	if (offset == page && first)
		*first = numbers[0];
	for (size_t i = 0; i < length / sizeof(*numbers); i++) {
		if (offset >= page && first)
			THREAD_ASSERT(numbers[i] == *first);
		numbers[i]++;
	}
	return 0;
}

static void *add_thread(void *argument)
{
	uint64_t first;

	for (int i = 0; i < TEST_REPEAT(500); i++)
		THREAD_ASSERT(mmapio_chunks_change(argument, 0, UINT64_MAX, 256, add_one, &first) ==
			      0);
	return NULL;
}

static void *write_thread(void *argument)
{
	uint64_t numbers[512];

	for (uint64_t i = 0; i < TEST_REPEAT(5000); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(numbers); j++)
			numbers[j] = i * 1000000;
		THREAD_ASSERT(mmapio_write(argument, page, numbers, sizeof(numbers)) ==
			      (ssize_t)sizeof(numbers));
	}
	return NULL;
}

/* Additions that are no atomic ones are lost, or the thread sanitizer complains, where two walks,
 * or a walk and a write, are in the file at once. */
START_TEST(walks_that_change_come_one_by_one)
{
	char path[PATH_MAX];
	const int fd = test_file_sparse(path, page + 4096);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	pthread_t threads[5];
	uint64_t numbers[512];

	ck_assert_int_eq(mmapio_guard_install(), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		ck_assert_int_eq(
			pthread_create(&threads[i], NULL, i ? add_thread : write_thread, file), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
	ck_assert_int_eq(mmapio_read(file, 0, numbers, sizeof(numbers)), sizeof(numbers));
	for (size_t i = 0; i < page / sizeof(*numbers); i++)
		ck_assert_uint_eq(numbers[i], 4 * TEST_REPEAT(500));
	mmapio_file_unref(file);
	mmapio_guard_remove();
	close(fd);
}
END_TEST

#define LONG_WRITE (64 * MIB)

static void *long_write_thread(void *argument)
{
	uint8_t *bytes = malloc(LONG_WRITE);

	memset(bytes, 1, LONG_WRITE);
	THREAD_ASSERT(mmapio_write(argument, 0, bytes, LONG_WRITE) == LONG_WRITE);
	free(bytes);
	return NULL;
}

static int all_is_written(void *context, uint64_t offset, void *data, size_t length)
{
	const uint8_t *bytes = data;
	bool *last = context;

	*last |= offset + length == LONG_WRITE && bytes[length - 1] == 1;
	return 0;
}

START_TEST(change_waits_for_a_write_that_is_under_way)
{
	char path[PATH_MAX];
	const int fd = test_file_sparse(path, LONG_WRITE);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	bool last = false;
	uint8_t byte = 0;
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, long_write_thread, file), 0);
	while (byte == 0)
		ck_assert_int_eq(mmapio_read(file, 0, &byte, 1), 1);
	ck_assert_int_eq(
		mmapio_chunks_change(file, 0, UINT64_MAX, LONG_WRITE, all_is_written, &last), 0);
	ck_assert(last);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

static void *shrink_thread(void *argument)
{
	THREAD_ASSERT(mmapio_file_resize(argument, page, MMAPIO_FOREVER) == 0);
	return NULL;
}

static void *shrink_more_thread(void *argument)
{
	THREAD_ASSERT(mmapio_file_resize(argument, page / 2, MMAPIO_FOREVER) == 0);
	return NULL;
}

static void *walk_thread(void *argument)
{
	THREAD_ASSERT(mmapio_chunks_change(argument, 0, page, 64, add_one, NULL) == 0);
	return NULL;
}

/* A shrink waits for this thread's slice, another for that shrink, a walk for neither of them, and
 * this thread for nobody but the walk. */
START_TEST(walk_does_not_wait_for_a_shrink_that_waits)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 4 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_slice_mut slice;
	pthread_t threads[3];

	ck_assert_int_eq(mmapio_slice_get_mut(file, 2 * page, page, &slice), 0);
	ck_assert_int_eq(pthread_create(&threads[0], NULL, shrink_thread, file), 0);
	while (mmapio_file_size(file) != page)
		sched_yield();
	ck_assert_int_eq(pthread_create(&threads[1], NULL, shrink_more_thread, file), 0);
	test_sleep(20 * MILLISECOND);
	ck_assert_int_eq(pthread_create(&threads[2], NULL, walk_thread, file), 0);
	ck_assert_int_eq(pthread_join(threads[2], NULL), 0);
	ck_assert_int_eq(mmapio_chunks_change(file, 0, page, 64, add_one, NULL), 0);
	memset(slice.data, 1, slice.length);
	ck_assert_int_eq(mmapio_commit(&slice, 0, slice.length), 0);
	ck_assert_int_eq(mmapio_write(file, 0, "x", 1), 1);
	mmapio_slice_put_mut(&slice);
	ck_assert_int_eq(pthread_join(threads[0], NULL), 0);
	ck_assert_int_eq(pthread_join(threads[1], NULL), 0);
	ck_assert_uint_eq(test_size(fd), page / 2);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* --- Segments --------------------------------------------------------------------------------- */

/* _i: mode */
START_TEST(segment_is_a_file_of_its_own)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 3 * page);
	struct mmapio_file *file = test_open(path, modes[_i]);
	const bool writes = modes[_i] != MMAPIO_READ_ONLY;
	struct mmapio_segment segment;
	struct mmapio_slice slice;
	struct mmapio_slice_mut mutable;
	uint8_t bytes[200];

	ck_assert_int_eq(mmapio_segment_init(&segment, file, page - 50, 100), 0);
	ck_assert(mmapio_segment_is_valid(&segment));
	ck_assert_int_eq(mmapio_segment_slice(&segment, 10, 90, &slice), 0);
	ck_assert_uint_eq(slice.offset, page - 40);
	ck_assert(test_is_pattern(slice.data, page - 40, 90));
	mmapio_slice_put(&slice);
	ck_assert_int_eq(mmapio_segment_slice(&segment, 10, 91, &slice), -ERANGE);
	ck_assert_int_eq(mmapio_segment_slice(&segment, 100, 0, &slice), 0);
	mmapio_slice_put(&slice);
	ck_assert_int_eq(mmapio_segment_slice(&segment, 101, 0, &slice), -ERANGE);
	ck_assert_int_eq(mmapio_segment_slice(&segment, UINT64_MAX, 2, &slice), -ERANGE);
	ck_assert_int_eq(mmapio_segment_slice(&segment, 2, SIZE_MAX, &slice), -ERANGE);

	ck_assert_int_eq(mmapio_segment_read(&segment, 0, bytes, 200), 100);
	ck_assert(test_is_pattern(bytes, page - 50, 100));
	ck_assert_int_eq(mmapio_segment_read(&segment, 99, bytes, 200), 1);
	ck_assert_int_eq(mmapio_segment_read(&segment, 100, bytes, 200), 0);
	ck_assert_int_eq(mmapio_segment_read(&segment, UINT64_MAX, bytes, 200), 0);

	/* Writes end with it */
	memset(bytes, 0, sizeof(bytes));
	ck_assert_int_eq(mmapio_segment_write(&segment, 60, bytes, 200), writes ? 40 : -EBADF);
	ck_assert_int_eq(mmapio_segment_slice_mut(&segment, 50, 10, &mutable), writes ? 0 : -EBADF);
	if (writes) {
		memset(mutable.data, 0, mutable.length);
		ck_assert_int_eq(mmapio_commit(&mutable, 0, 10), 0);
		mmapio_slice_put_mut(&mutable);
		ck_assert(test_reads_pattern(file, 0, page));
		ck_assert_int_eq(mmapio_read(file, page, bytes, 50), 50);
		ck_assert(test_is_zero(bytes, 50));
		ck_assert(test_reads_pattern(file, page + 50, 2 * page - 50));
	}
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(segment_is_looked_at_anew)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 3 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_segment segment, beyond;
	struct mmapio_slice slice;
	struct mmapio_slice_mut mutable;
	uint8_t byte = 1;

	ck_assert_int_eq(mmapio_segment_init(&segment, file, page, page), 0);
	ck_assert_int_eq(mmapio_segment_init(&beyond, file, 3 * page, page), 0);
	ck_assert(!mmapio_segment_is_valid(&beyond));
	ck_assert_int_eq(mmapio_file_resize(file, 2 * page - 1, MMAPIO_FOREVER), 0);
	ck_assert(!mmapio_segment_is_valid(&segment));
	ck_assert_int_eq(mmapio_segment_slice(&segment, 0, 1, &slice), -ERANGE);
	ck_assert_int_eq(mmapio_segment_slice_mut(&segment, 0, 1, &mutable), -ERANGE);
	ck_assert_int_eq(mmapio_segment_read(&segment, 0, &byte, 1), -ERANGE);
	ck_assert_int_eq(mmapio_segment_write(&segment, 0, &byte, 1), -ERANGE);
	ck_assert_int_eq(mmapio_file_resize(file, 4 * page, MMAPIO_FOREVER), 0);
	ck_assert_int_eq(mmapio_segment_read(&segment, 0, &byte, 1), 1);
	ck_assert_uint_eq(byte, test_byte(page));
	ck_assert(mmapio_segment_is_valid(&beyond));

	ck_assert_int_eq(mmapio_segment_init(&segment, file, INT64_MAX, 1), -ERANGE);
	ck_assert_int_eq(mmapio_segment_init(&segment, file, UINT64_MAX, UINT64_MAX), -ERANGE);
	ck_assert_int_eq(mmapio_segment_init(&segment, file, INT64_MAX, 0), 0);
	ck_assert(!mmapio_segment_is_valid(&segment));
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* --- Cursors ---------------------------------------------------------------------------------- */

START_TEST(cursor_goes_on_where_it_was)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 1000);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_cursor cursor = {file, 0};
	uint8_t bytes[600];

	ck_assert_int_eq(mmapio_cursor_read(&cursor, bytes, 600), 600);
	ck_assert(test_is_pattern(bytes, 0, 600));
	ck_assert_int_eq(mmapio_cursor_read(&cursor, bytes, 600), 400);
	ck_assert(test_is_pattern(bytes, 600, 400));
	ck_assert_int_eq(mmapio_cursor_read(&cursor, bytes, 600), 0);
	ck_assert_int_eq(mmapio_cursor_write(&cursor, "end", 3), 3);
	ck_assert_uint_eq(cursor.position, 1003);
	ck_assert_uint_eq(test_size(fd), 1003);

	ck_assert_int_eq(mmapio_cursor_seek(&cursor, -3, SEEK_END), 0);
	ck_assert_int_eq(mmapio_cursor_read(&cursor, bytes, 600), 3);
	ck_assert_int_eq(memcmp(bytes, "end", 3), 0);
	ck_assert_int_eq(mmapio_cursor_seek(&cursor, -1003, SEEK_CUR), 0);
	ck_assert_uint_eq(cursor.position, 0);
	ck_assert_int_eq(mmapio_cursor_seek(&cursor, -1, SEEK_CUR), -EINVAL);
	ck_assert_int_eq(mmapio_cursor_seek(&cursor, -1004, SEEK_END), -EINVAL);
	ck_assert_int_eq(mmapio_cursor_seek(&cursor, INT64_MIN, SEEK_END), -EINVAL);
	ck_assert_int_eq(mmapio_cursor_seek(&cursor, 0, 17), -EINVAL);
	ck_assert_int_eq(mmapio_cursor_seek(&cursor, INT64_MAX, SEEK_END), -EOVERFLOW);
	ck_assert_uint_eq(cursor.position, 0);
	ck_assert_int_eq(mmapio_cursor_seek(&cursor, INT64_MAX, SEEK_SET), 0);
	ck_assert_int_eq(mmapio_cursor_seek(&cursor, 1, SEEK_CUR), -EOVERFLOW);
	ck_assert_int_eq(mmapio_cursor_read(&cursor, bytes, 1), 0);
	ck_assert_int_eq(mmapio_cursor_write(&cursor, bytes, 1), -EFBIG);
	ck_assert_int_eq(mmapio_cursor_seek(&cursor, 5000, SEEK_SET), 0);
	ck_assert_int_eq(mmapio_cursor_write(&cursor, "x", 1), 1);
	ck_assert_uint_eq(test_size(fd), 5001);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("walk");
	TCase *walks = test_case(suite, "walks");
	TCase *changes = test_case(suite, "changes");
	TCase *views = test_case(suite, "views");

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	test_make_folder();
	tcase_add_loop_test(walks, chunks_are_all_of_the_range, 0, 3);
	tcase_add_test(walks, pages_begin_at_borders);
	tcase_add_test(walks, walk_of_nothing_is_over_at_once);
	tcase_add_test(walks, walk_allocates_nothing_and_keeps_its_range);
	tcase_add_loop_test(changes, change_walks_in_order_and_commits, 0, 2);
	tcase_add_loop_test(changes, change_is_one_exclusive_section, 0, 5);
	tcase_add_test(changes, walks_that_change_come_one_by_one);
	tcase_add_test(changes, change_waits_for_a_write_that_is_under_way);
	tcase_add_test(changes, walk_does_not_wait_for_a_shrink_that_waits);
	tcase_add_loop_test(views, segment_is_a_file_of_its_own, 0, 3);
	tcase_add_test(views, segment_is_looked_at_anew);
	tcase_add_test(views, cursor_goes_on_where_it_was);
	return test_run(suite);
}
