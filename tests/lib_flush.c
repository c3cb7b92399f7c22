/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_flush.c - tests of flushing: policies, the flusher, ranges, and errors that stay
 *
 * cachestat(2) says what is dirty, on a disk file system. Files are made of page-sized folios, so
 * that it tells pages apart. Errors come from an ext4 on a loop device that loses its upper part;
 * these tests need root.
 */
#include "lib_test.h"

#include <dirent.h>

static uint64_t page;

/* --- Helpers ---------------------------------------------------------------------------------- */

/* How a test changes a file: by mmapio_write(), or by a mutable slice. */
enum change { WRITE, STORE, CHANGES };

static void change(struct mmapio_file *file, enum change how, uint64_t offset, size_t length)
{
	struct mmapio_slice_mut slice;

	if (how == WRITE) {
		test_write_pattern(file, offset, length);
		return;
	}
	ck_assert_int_eq(mmapio_slice_get_mut(file, offset, length, &slice), 0);
	test_fill(slice.data, offset, length);
	ck_assert_int_eq(mmapio_commit(&slice, 0, length), 0);
	mmapio_slice_put_mut(&slice);
}

/* A clean file of page-sized folios, opened with a policy. fd: to look at it. */
static struct mmapio_file *open_policy(uint64_t pages, struct mmapio_policy policy,
				       struct mmapio_flusher *flusher, int *fd)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];

	*fd = test_file(path, pages * page);
	ck_assert_uint_eq(test_dirty_pages(*fd), 0);
	options.policy = policy;
	options.flusher = flusher;
	return test_open_with(path, &options);
}

static struct mmapio_file *open_manual(uint64_t pages, int *fd)
{
	return open_policy(pages, (struct mmapio_policy){false, 0, 0, 0}, NULL, fd);
}

static struct mmapio_flusher *flusher_new(void)
{
	struct mmapio_flusher *flusher = NULL;

	ck_assert_int_eq(mmapio_flusher_new(&flusher), 0);
	ck_assert_ptr_nonnull(flusher);
	return flusher;
}

struct range {
	uint64_t offset;
	uint64_t length;
};

/* The dirty ranges must be exactly these, and as many bytes. */
static void assert_dirty(struct mmapio_file *file, const struct range *ranges, size_t count)
{
	uint64_t offset = 0;
	uint64_t length = 0;
	uint64_t bytes = 0;

	for (size_t i = 0; i < count; i++) {
		ck_assert_int_eq(mmapio_dirty_next(file, &offset, &length), 1);
		ck_assert_uint_eq(offset, ranges[i].offset);
		ck_assert_uint_eq(length, ranges[i].length);
		offset += length;
		bytes += length;
	}
	ck_assert_int_eq(mmapio_dirty_next(file, &offset, &length), 0);
	ck_assert_uint_eq(mmapio_dirty_bytes(file), bytes);
}

#define ASSERT_DIRTY(FILE, ...)                                                                    \
	do {                                                                                       \
		const struct range expected[] = {__VA_ARGS__};                                     \
		assert_dirty(FILE, expected, ARRAY_SIZE(expected));                                \
	} while (0)

/* --- When asked ------------------------------------------------------------------------------- */

/* _i in most tests: how the file is changed */
START_TEST(manual_leaves_dirty_and_flush_cleans)
{
	for (int try = 0; test_try(try); try++) {
		int fd;
		struct mmapio_file *file = open_manual(16, &fd);

		change(file, _i, 5, 100);
		change(file, _i, 10 * page, 2 * page);
		TEST_TRY_EQ(test_dirty_pages(fd), 3); /* else no test here could fail */
		ck_assert_uint_eq(mmapio_dirty_bytes(file), 100 + 2 * page);
		ck_assert_int_eq(mmapio_flush(file), 0);
		ck_assert_uint_eq(test_dirty_pages(fd), 0);
		ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
		ck_assert_int_eq(mmapio_flush(file), 0);

		/* the first store after a flush is noticed as well */
		change(file, _i, 5, 100);
		TEST_TRY_EQ(test_dirty_pages(fd), 1);
		ck_assert_int_eq(mmapio_flush(file), 0);
		ck_assert_uint_eq(test_dirty_pages(fd), 0);
		mmapio_file_unref(file);
		close(fd);
	}
}
END_TEST

START_TEST(manual_is_not_flushed_when_closed)
{
	for (int try = 0; test_try(try); try++) {
		int fd;
		struct mmapio_file *file = open_manual(16, &fd);

		change(file, _i, 5, 100);
		mmapio_file_unref(file);
		TEST_TRY_EQ(test_dirty_pages(fd), 1);
		close(fd);
	}
}
END_TEST

/* Not only what came through this handle: that is the difference to a flush. */
START_TEST(sync_brings_what_others_wrote)
{
	int fd;
	struct mmapio_file *file = open_manual(16, &fd);

	for (int metadata = 0; metadata < 2; metadata++) {
		test_pwrite(fd, "#", 1, 5);
		ck_assert_int_eq(mmapio_flush(file), 0);
		ck_assert_int_eq(mmapio_sync(file, metadata), 0);
		ck_assert_uint_eq(test_dirty_pages(fd), 0);
		change(file, _i, page, page);
		ck_assert_int_eq(mmapio_sync(file, metadata), 0);
		ck_assert_uint_eq(test_dirty_pages(fd), 0);
		ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
	}
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(flush_of_other_modes_does_nothing)
{
	for (int try = 0; test_try(try); try++) {
		const enum mmapio_mode mode = _i ? MMAPIO_COPY_ON_WRITE : MMAPIO_READ_ONLY;
		char path[PATH_MAX];
		const int fd = test_file(path, 16 * page);
		struct mmapio_file *file = test_open(path, mode);

		test_pwrite(fd, "#", 1, 0);
		if (_i)
			change(file, STORE, page, page);
		ck_assert_int_eq(mmapio_flush(file), 0);
		ck_assert_int_eq(mmapio_flush_range(file, 0, 16 * page), 0);
		ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
		ck_assert_int_eq(mmapio_file_error(file), 0);
		TEST_TRY_EQ(test_dirty_pages(fd), 1);
		mmapio_file_unref(file);
		close(fd);
	}
}
END_TEST

/* A change of size or of allocation is to be synced too, though no byte of it is dirty. Fails if
 * flush takes "no dirty bytes" for "nothing to do": the next fdatasync(2) would be the first. */
START_TEST(flush_after_growth_keeps_the_data)
{
	int fd;
	struct mmapio_file *file = open_manual(1, &fd);

	change(file, WRITE, 0, 100 * page);
	ck_assert_int_eq(mmapio_file_resize(file, 50 * page + 7, 0), 0);
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_uint_eq(test_dirty_pages(fd), 0);
	ck_assert_int_eq(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	ck_assert(test_disk_is_pattern(fd, 0, 50 * page + 7));
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* --- Ranges ----------------------------------------------------------------------------------- */

/* _i: change, and the distance of the two ranges. Fails if the whole file is synced, or if all of
 * it is taken for clean. */
START_TEST(flush_range_leaves_the_rest_dirty)
{
	for (int try = 0; test_try(try); try++) {
		const uint64_t other = _i / CHANGES ? 8 * MIB : 2 * page;
		int fd;
		struct mmapio_file *file = open_manual(other / page + 1, &fd);

		change(file, _i % CHANGES, 0, 16);
		change(file, _i % CHANGES, other, 16);
		TEST_TRY_EQ(test_dirty_pages(fd), 2);
		ck_assert_int_eq(mmapio_flush_range(file, 0, 16), 0);
		ck_assert_uint_eq(test_dirty_pages_of(fd, 0, page), 0);
		TEST_TRY_EQ(test_dirty_pages_of(fd, other, page), 1);
		ASSERT_DIRTY(file, {other, 16});
		/* the page has all of it */
		ck_assert_int_eq(mmapio_flush_range(file, other + 3, 1), 0);
		ck_assert_uint_eq(test_dirty_pages(fd), 0);
		ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
		mmapio_file_unref(file);
		close(fd);
	}
}
END_TEST

START_TEST(flush_range_takes_whole_pages)
{
	for (int try = 0; test_try(try); try++) {
		int fd;
		struct mmapio_file *file = open_manual(16, &fd);

		change(file, _i, 0, 4 * page);
		ck_assert_int_eq(mmapio_flush_range(file, 2 * page - 1, 2), 0); /* parts of two */
		TEST_TRY_EQ(test_dirty_pages_of(fd, 0, page), 1);
		ck_assert_uint_eq(test_dirty_pages_of(fd, page, 2 * page), 0);
		TEST_TRY_EQ(test_dirty_pages_of(fd, 3 * page, page), 1);
		ASSERT_DIRTY(file, {0, page}, {3 * page, page});
		mmapio_file_unref(file);
		close(fd);
	}
}
END_TEST

START_TEST(flush_range_stays_inside_the_file)
{
	int fd;
	struct mmapio_file *file = open_manual(2, &fd);
	const uint64_t size = 2 * page - 5;

	ck_assert_int_eq(mmapio_file_resize(file, size, 0), 0);
	change(file, WRITE, 0, size);
	ck_assert_int_eq(mmapio_flush_range(file, 0, size + 1), -ERANGE);
	ck_assert_int_eq(mmapio_flush_range(file, size, 1), -ERANGE);
	ck_assert_int_eq(mmapio_flush_range(file, size + 1, 0), -ERANGE);
	ck_assert_int_eq(mmapio_flush_range(file, 1, UINT64_MAX), -ERANGE);
	ck_assert_int_eq(mmapio_flush_range(file, UINT64_MAX, 1), -ERANGE);
	ck_assert_int_eq(mmapio_flush_range(file, UINT64_MAX, 0), -ERANGE);
	ck_assert_uint_eq(mmapio_dirty_bytes(file), size);
	ck_assert_int_eq(mmapio_flush_range(file, size, 0), 0);
	ck_assert_int_eq(mmapio_flush_range(file, 0, size), 0);
	ck_assert_uint_eq(test_dirty_pages(fd), 0);
	ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(dirty_ranges_merge_and_split)
{
	int fd;
	struct mmapio_file *file = open_manual(64, &fd);
	uint64_t offset, length;

	change(file, _i, 10, 10);
	change(file, _i, 30, 10);
	ASSERT_DIRTY(file, {10, 10}, {30, 10});
	change(file, _i, 12, 3); /* inside */
	ASSERT_DIRTY(file, {10, 10}, {30, 10});
	change(file, _i, 20, 5); /* touches from behind */
	ASSERT_DIRTY(file, {10, 15}, {30, 10});
	change(file, _i, 5, 5); /* touches from before */
	ASSERT_DIRTY(file, {5, 20}, {30, 10});
	change(file, _i, 24, 7); /* joins two, over the borders of both */
	ASSERT_DIRTY(file, {5, 35});
	change(file, _i, 50, 1);
	change(file, _i, 60, 1);
	change(file, _i, 0, 100); /* swallows three */
	ASSERT_DIRTY(file, {0, 100});
	change(file, _i, 20 * page, 5 * page);
	ck_assert_int_eq(mmapio_flush_range(file, 22 * page, 1), 0);
	ASSERT_DIRTY(file, {0, 100}, {20 * page, 2 * page}, {23 * page, 2 * page});
	change(file, _i, 22 * page + 7, 3);
	ASSERT_DIRTY(file, {0, 100}, {20 * page, 2 * page}, {22 * page + 7, 3},
		     {23 * page, 2 * page});

	/* the search from every kind of place */
	offset = 99;
	ck_assert_int_eq(mmapio_dirty_next(file, &offset, &length), 1);
	ck_assert_uint_eq(offset, 0);
	ck_assert_uint_eq(length, 100);
	offset = 100; /* ends there: not after */
	ck_assert_int_eq(mmapio_dirty_next(file, &offset, &length), 1);
	ck_assert_uint_eq(offset, 20 * page);
	offset = 25 * page;
	ck_assert_int_eq(mmapio_dirty_next(file, &offset, &length), 0);
	offset = UINT64_MAX;
	ck_assert_int_eq(mmapio_dirty_next(file, &offset, &length), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(dirty_ranges_end_with_the_file)
{
	int fd;
	struct mmapio_file *file = open_manual(16, &fd);

	change(file, _i, 0, 10 * page);
	change(file, _i, 12 * page, page);
	ck_assert_int_eq(mmapio_file_resize(file, 5 * page + 3, 0), 0);
	ASSERT_DIRTY(file, {0, 5 * page + 3});
	ck_assert_int_eq(mmapio_file_resize(file, 16 * page, 0), 0);
	ASSERT_DIRTY(file, {0, 5 * page + 3});
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_uint_eq(test_dirty_pages(fd), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* Against an array of flags. */
START_TEST(dirty_ranges_are_exact)
{
	enum { PAGES = 64 };
	const uint64_t size = PAGES * page;
	bool *dirty = calloc(size, 1);
	uint64_t random = 11;
	int fd;
	struct mmapio_file *file = open_manual(PAGES, &fd);

	ck_assert_ptr_nonnull(dirty);
	for (int i = 0; i < TEST_REPEAT(3000); i++) {
		const uint64_t offset = test_below(&random, size);
		const uint64_t longest = test_below(&random, 4) ? 50 : 3 * page;
		uint64_t length = 1 + test_below(&random, longest);
		uint64_t place = 0;
		uint64_t n;

		length = length < size - offset ? length : size - offset;
		if (test_below(&random, 20)) {
			change(file, test_below(&random, CHANGES), offset, length);
			memset(dirty + offset, true, length);
		} else {
			const uint64_t start = offset / page * page;
			const uint64_t end = (offset + length + page - 1) / page * page;

			ck_assert_int_eq(mmapio_flush_range(file, offset, length), 0);
			memset(dirty + start, false, end - start);
			ck_assert_uint_eq(test_dirty_pages_of(fd, start, end - start), 0);
		}
		if (i % 10)
			continue;
		while (place < size) { /* compare run by run */
			uint64_t start = place;
			uint64_t end;

			while (start < size && !dirty[start])
				start++;
			for (end = start; end < size && dirty[end];)
				end++;
			ck_assert_int_eq(mmapio_dirty_next(file, &place, &n), start < size);
			if (start == size)
				break;
			ck_assert_uint_eq(place, start);
			ck_assert_uint_eq(n, end - start);
			place = end;
		}
	}
	free(dirty);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* --- Limits ----------------------------------------------------------------------------------- */

START_TEST(always_is_clean_when_the_call_returns)
{
	char source_path[PATH_MAX];
	int fd;
	struct mmapio_file *file =
		open_policy(16, (struct mmapio_policy){.always = true}, NULL, &fd);
	struct mmapio_file *source;

	close(test_file(source_path, 16 * page));
	source = test_open(source_path, MMAPIO_READ_ONLY);
	for (uint64_t i = 0; i < 20; i++) {
		change(file, _i, i * 3000, 3000);
		ck_assert_uint_eq(test_dirty_pages(fd), 0);
		ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
	}
	change(file, WRITE, 100 * page, 3 * page); /* extends */
	ck_assert_uint_eq(test_dirty_pages(fd), 0);
	ck_assert_int_eq(mmapio_copy(source, 0, file, 0, 3 * page), (ssize_t)(3 * page));
	ck_assert_uint_eq(test_dirty_pages(fd), 0);
	ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
	mmapio_file_unref(source);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(limit_of_bytes)
{
	for (int try = 0; test_try(try); try++) {
		int fd;
		struct mmapio_file *file =
			open_policy(64, (struct mmapio_policy){.bytes = 16 * page}, NULL, &fd);

		for (int round = 0; round < 3; round++) {
			for (uint64_t i = 0; i < 15; i++) {
				change(file, _i, (2 * i + (uint64_t)round) * page, page);
				TEST_TRY_EQ(test_dirty_pages(fd), i + 1);
			}
			/* the same bytes again are no more dirty bytes */
			for (int i = 0; i < 100; i++)
				change(file, _i, (uint64_t)round * page, page);
			TEST_TRY_EQ(test_dirty_pages(fd), 15);
			change(file, _i, 60 * page, page - 1);
			TEST_TRY_EQ(test_dirty_pages(fd), 16);
			change(file, _i, 61 * page - 1, 1);
			ck_assert_uint_eq(test_dirty_pages(fd), 0);
			ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
		}
		change(file, _i, 0, 20 * page); /* by one call */
		ck_assert_uint_eq(test_dirty_pages(fd), 0);
		mmapio_file_unref(file);
		close(fd);
	}
}
END_TEST

START_TEST(limit_of_writes)
{
	for (int try = 0; test_try(try); try++) {
		int fd;
		struct mmapio_file *file =
			open_policy(16, (struct mmapio_policy){.writes = 10}, NULL, &fd);

		for (int round = 0; round < 3; round++) {
			for (int i = 0; i < 9; i++) {
				change(file, _i, 5, 7);
				TEST_TRY_EQ(test_dirty_pages(fd), 1);
			}
			change(file, _i, 5, 7);
			ck_assert_uint_eq(test_dirty_pages(fd), 0);
		}
		/* writes and commits are counted together */
		for (int i = 0; i < 9; i++)
			change(file, i % 2, page, 1);
		TEST_TRY_EQ(test_dirty_pages(fd), 1);
		change(file, _i, page, 1);
		ck_assert_uint_eq(test_dirty_pages(fd), 0);
		/* a flush of all starts anew, one of a range does not */
		for (int i = 0; i < 9; i++)
			change(file, _i, page, 1);
		ck_assert_int_eq(mmapio_flush(file), 0);
		for (int i = 0; i < 8; i++)
			change(file, _i, page, 1);
		ck_assert_int_eq(mmapio_flush_range(file, page, 1), 0);
		change(file, _i, page, 1);
		TEST_TRY_EQ(test_dirty_pages(fd), 1);
		change(file, _i, 3 * page, 1);
		ck_assert_uint_eq(test_dirty_pages(fd), 0);
		mmapio_file_unref(file);
		close(fd);
	}
}
END_TEST

START_TEST(first_limit_counts)
{
	for (int try = 0; test_try(try); try++) {
		int fd;
		struct mmapio_file *file = open_policy(
			16, (struct mmapio_policy){.bytes = 4 * page, .writes = 5}, NULL, &fd);

		for (int i = 0; i < 4; i++)
			change(file, _i, 0, 1);
		TEST_TRY_EQ(test_dirty_pages(fd), 1);
		change(file, _i, 0, 1);
		ck_assert_uint_eq(test_dirty_pages(fd), 0);
		change(file, _i, 0, 4 * page);
		ck_assert_uint_eq(test_dirty_pages(fd), 0);
		mmapio_file_unref(file);
		close(fd);
	}
}
END_TEST

START_TEST(limits_are_flushed_when_closed)
{
	for (int try = 0; test_try(try); try++) {
		const struct mmapio_policy policies[] = {{.bytes = MIB}, {.writes = 100}};

		for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
			int fd;
			struct mmapio_file *file = open_policy(16, policies[i], NULL, &fd);

			change(file, _i, 0, 3 * page);
			TEST_TRY_EQ(test_dirty_pages(fd), 3);
			mmapio_file_unref(mmapio_file_ref(file));
			TEST_TRY_EQ(test_dirty_pages(fd), 3);
			mmapio_file_unref(file);
			ck_assert_uint_eq(test_dirty_pages(fd), 0);
			close(fd);
		}
	}
}
END_TEST

/* A name that is gone needs no sync. Fails if what was discarded is flushed all the same, or still
 * held by the flusher. _i: policy */
START_TEST(discarded_bytes_are_not_flushed)
{
	for (int try = 0; test_try(try); try++) {
		const struct mmapio_policy policies[] = {
			{0}, {.bytes = MIB}, {.writes = 5}, {.delay_ns = 2 * SECOND}};
		struct mmapio_flusher *flusher = flusher_new();
		int fd;
		struct mmapio_file *file = open_policy(16, policies[_i], flusher, &fd);

		change(file, WRITE, 0, 3 * page);
		change(file, STORE, 4 * page, page);
		mmapio_discard(file);
		ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
		ck_assert_int_eq(mmapio_flush(file), 0);
		test_sleep(policies[_i].delay_ns + policies[_i].delay_ns / 4);
		TEST_TRY_EQ(test_dirty_pages(fd), 4);
		for (int i = 0; i < 3; i++) /* counted anew */
			change(file, WRITE, 0, 1);
		mmapio_discard(file);
		mmapio_discard(file);
		mmapio_file_unref(file);
		mmapio_flusher_free(flusher); /* would flush at once what was due later */
		TEST_TRY_EQ(test_dirty_pages(fd), 4);
		close(fd);
	}
}
END_TEST

START_TEST(discarded_file_can_be_written_on)
{
	struct mmapio_flusher *flusher = flusher_new();
	int fd;
	struct mmapio_file *file =
		open_policy(16, (struct mmapio_policy){.delay_ns = 20 * MILLISECOND}, flusher, &fd);

	for (uint64_t i = 0; i < 10; i++) {
		change(file, _i, i * page, page);
		mmapio_discard(file);
		change(file, _i, 12 * page, page);
		ck_assert_uint_le(mmapio_dirty_bytes(file), page);
		ck_assert(test_becomes_clean(fd)); /* by fdatasync(2) of all */
	}
	mmapio_file_unref(file);
	mmapio_flusher_free(flusher);
	close(fd);
}
END_TEST

/* --- The flusher ------------------------------------------------------------------------------ */

/* The fastest of many counts: a machine that is busy makes each of them late. */
START_TEST(delay_is_kept_without_being_asked)
{
	struct mmapio_flusher *flusher = flusher_new();
	uint64_t fastest = UINT64_MAX;
	int fd;
	struct mmapio_file *file =
		open_policy(64, (struct mmapio_policy){.delay_ns = 10 * MILLISECOND}, flusher, &fd);

	for (int round = 0; round < 20; round++) {
		uint64_t start;
		uint64_t took;

		change(file, _i, 3 * (uint64_t)round * page, 2 * page);
		start = test_now();
		ck_assert(test_becomes_clean(fd));
		took = test_now() - start;
		if (took < fastest)
			fastest = took;
		/* the pages are clean just before the library notes it */
		for (int i = 0; i < 20000 && mmapio_dirty_bytes(file); i++)
			test_sleep(MILLISECOND);
		ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
	}
	ck_assert_uint_lt(fastest, 500 * MILLISECOND);
	mmapio_file_unref(file);
	mmapio_flusher_free(flusher);
	close(fd);
}
END_TEST

START_TEST(delay_is_not_over_before_its_time)
{
	for (int try = 0; test_try(try); try++) {
		enum { FILES = 8 };
		const uint64_t delay = 1500 * MILLISECOND;
		struct mmapio_flusher *flusher = flusher_new();
		struct mmapio_file *files[FILES];
		uint64_t starts[FILES];
		bool clean[FILES] = {false};
		uint64_t early = 0;
		int fds[FILES];

		for (int i = 0; i < FILES; i++)
			files[i] = open_policy(16, (struct mmapio_policy){.delay_ns = delay},
					       flusher, &fds[i]);
		for (int i = 0; i < FILES; i++) {
			starts[i] = test_now();
			change(files[i], _i, 0, 2 * page);
		}
		for (int dirty = FILES; dirty; test_sleep(MILLISECOND)) {
			for (int i = 0; i < FILES; i++) {
				if (clean[i] || test_dirty_pages(fds[i]))
					continue;
				early += test_now() - starts[i] < delay;
				clean[i] = true;
				dirty--;
			}
			ck_assert_uint_lt(test_now() - starts[0], TEST_CLEAN_NS);
		}
		TEST_TRY_EQ(early, 0);
		/* who asks does not wait for it */
		change(files[0], _i, 0, 2 * page);
		ck_assert_int_eq(mmapio_flush(files[0]), 0);
		ck_assert_uint_eq(test_dirty_pages(fds[0]), 0);
		for (int i = 0; i < FILES; i++) {
			mmapio_file_unref(files[i]);
			close(fds[i]);
		}
		mmapio_flusher_free(flusher);
	}
}
END_TEST

/* Fails if each write puts the flush off. */
START_TEST(delay_counts_from_the_first_change)
{
	struct mmapio_flusher *flusher = flusher_new();
	int fd;
	struct mmapio_file *file =
		open_policy(64, (struct mmapio_policy){.delay_ns = SECOND / 2}, flusher, &fd);
	const uint64_t end = test_now() + TEST_CLEAN_NS;
	uint64_t i = 0;

	change(file, _i, 0, page);
	while (test_dirty_pages_of(fd, 0, page)) {
		ck_assert_msg(test_now() < end, "the first page is never flushed");
		change(file, _i, (1 + i++ % 60) * page, page);
		test_sleep(5 * MILLISECOND);
	}
	mmapio_file_unref(file);
	mmapio_flusher_free(flusher);
	close(fd);
}
END_TEST

START_TEST(delay_goes_with_other_limits)
{
	for (int try = 0; test_try(try); try++) {
		struct mmapio_flusher *flusher = flusher_new();
		int fd;
		struct mmapio_file *file =
			open_policy(16, (struct mmapio_policy){.delay_ns = 3 * SECOND, .writes = 3},
				    flusher, &fd);

		change(file, _i, 0, 1);
		change(file, _i, page, 1);
		TEST_TRY_EQ(test_dirty_pages(fd), 2);
		change(file, _i, 2 * page, 1);
		ck_assert_uint_eq(test_dirty_pages(fd), 0);
		change(file, _i, 0, 1); /* fewer than the limit: the delay it is */
		ck_assert(test_becomes_clean(fd));
		mmapio_file_unref(file);
		mmapio_flusher_free(flusher);
		close(fd);
	}
}
END_TEST

START_TEST(one_flusher_has_many_files)
{
	for (int try = 0; test_try(try); try++) {
		enum { FILES = 100 };
		struct mmapio_flusher *flusher = flusher_new();
		struct mmapio_file *files[FILES];
		int fds[FILES];

		/* the later ones are due earlier: fails if they wait for those before */
		for (int i = 0; i < FILES; i++)
			files[i] = open_policy(
				4,
				(struct mmapio_policy){.delay_ns = i % 4 ? 10 * MILLISECOND
									 : 60 * SECOND},
				flusher, &fds[i]);
		for (int i = 0; i < FILES; i++)
			change(files[i], _i, 0, page);
		for (int i = 0; i < FILES; i++) {
			if (i % 4)
				ck_assert(test_becomes_clean(fds[i]));
		}
		for (int i = 0; i < FILES; i += 4)
			TEST_TRY_EQ(test_dirty_pages(fds[i]), 1);
		for (int i = 0; i < FILES; i++)
			mmapio_file_unref(files[i]);
		mmapio_flusher_free(flusher);
		for (int i = 0; i < FILES; i++) {
			ck_assert_uint_eq(test_dirty_pages(fds[i]), 0);
			close(fds[i]);
		}
	}
}
END_TEST

static void note_close(void *context)
{
	atomic_store((_Atomic bool *)context, true);
}

START_TEST(file_is_flushed_after_its_last_reference)
{
	struct mmapio_flusher *flusher = flusher_new();
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	_Atomic bool closed = false;
	char path[PATH_MAX];
	const int fd = test_file(path, 16 * page);
	struct mmapio_file *file;

	options.policy.delay_ns = 100 * MILLISECOND;
	options.flusher = flusher;
	options.on_close = note_close;
	options.context = &closed;
	file = test_open_with(path, &options);
	change(file, _i, 0, 2 * page);
	mmapio_file_unref(file);
	ck_assert(test_becomes_clean(fd));
	for (int i = 0; i < 20000 && !atomic_load(&closed); i++)
		test_sleep(MILLISECOND);
	ck_assert(atomic_load(&closed));
	mmapio_flusher_free(flusher);
	close(fd);
}
END_TEST

START_TEST(freeing_the_flusher_flushes)
{
	struct mmapio_flusher *flusher = flusher_new();
	const uint64_t start = test_now();
	struct mmapio_file *files[3];
	int fds[3];

	for (int i = 0; i < 3; i++) {
		files[i] = open_policy(16, (struct mmapio_policy){.delay_ns = 3600 * SECOND},
				       flusher, &fds[i]);
		change(files[i], _i, 0, 2 * page);
		mmapio_file_unref(files[i]);
	}
	mmapio_flusher_free(flusher);
	for (int i = 0; i < 3; i++) {
		ck_assert_uint_eq(test_dirty_pages(fds[i]), 0);
		close(fds[i]);
	}
	ck_assert_uint_lt(test_now() - start, 60 * SECOND);
	mmapio_flusher_free(NULL);
	mmapio_flusher_free(flusher_new()); /* one that never had a file */
}
END_TEST

/* All signals are blocked in the flusher's thread, but those that a fault of its own raises. */
START_TEST(flusher_takes_no_signals)
{
	struct mmapio_flusher *flusher = flusher_new();
	DIR *tasks = opendir("/proc/self/task");
	int seen = 0;

	ck_assert_ptr_nonnull(tasks);
	for (struct dirent *task; (task = readdir(tasks));) {
		char path[PATH_MAX];
		char line[256];
		FILE *status;

		if (task->d_name[0] == '.' || atoi(task->d_name) == getpid())
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/status", task->d_name);
		status = fopen(path, "re");
		ck_assert_ptr_nonnull(status);
		while (fgets(line, sizeof(line), status)) {
			if (!strncmp(line, "SigBlk:", 7)) {
				const uint64_t mask = strtoull(line + 7, NULL, 16);
				const int must[] = {SIGTERM, SIGINT,  SIGHUP,  SIGALRM,
						    SIGCHLD, SIGUSR1, SIGPIPE, SIGRTMIN};

				for (size_t i = 0; i < ARRAY_SIZE(must) && !TEST_SANITIZED; i++)
					ck_assert(mask & (1ull << (must[i] - 1)));
				seen++;
			}
		}
		fclose(status);
	}
	closedir(tasks);
	ck_assert_int_ge(seen, 1);
	mmapio_flusher_free(flusher);
}
END_TEST

/* --- Writers and flushes at once -------------------------------------------------------------- */

struct race {
	struct mmapio_file *file;
	int how; /* enum change, 2: mixed */
	pthread_barrier_t barrier;
	_Atomic bool stop;
	_Atomic bool flushing;
	uint64_t random;
	uint64_t pages;
};

static void *race_writer(void *argument)
{
	struct race *race = argument;

	for (;;) {
		pthread_barrier_wait(&race->barrier);
		if (atomic_load(&race->stop))
			return NULL;
		/* go on until the flush has come back: some writes fall into it */
		do {
			const uint64_t offset = page * test_below(&race->random, race->pages) +
						test_below(&race->random, page - 8);
			struct mmapio_slice_mut slice;

			if (race->how == WRITE ||
			    (race->how == CHANGES && test_below(&race->random, 2))) {
				THREAD_ASSERT(mmapio_write(race->file, offset, "abcdefgh", 8) == 8);
				continue;
			}
			THREAD_ASSERT(!mmapio_slice_get_mut(race->file, offset, 8, &slice));
			memcpy(slice.data, "ABCDEFGH", 8);
			THREAD_ASSERT(!mmapio_commit(&slice, 0, 8));
			mmapio_slice_put_mut(&slice);
		} while (atomic_load(&race->flushing));
		pthread_barrier_wait(&race->barrier);
	}
}

/* _i: change or mixed, with the guard (and so mapped stores by mmapio_write()) from 3 on. Fails if
 * what is written between the sync and the note that all is clean is forgotten: then the kernel has
 * a dirty page that the library takes for clean. */
START_TEST(write_during_a_flush_is_not_lost)
{
	struct race race = {.how = _i % 3, .random = 21, .pages = 64};
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	const int fd = test_file(path, race.pages * page);
	uint64_t caught = 0;
	pthread_t writer;

	if (_i >= 3)
		ck_assert_int_eq(mmapio_guard_install(), 0);
	options.write_method = MMAPIO_WRITE_STORE;
	race.file = test_open_with(path, &options);
	pthread_barrier_init(&race.barrier, NULL, 2);
	ck_assert_int_eq(pthread_create(&writer, NULL, race_writer, &race), 0);
	for (int round = 0; round < TEST_REPEAT(150); round++) {
		uint64_t known = 0;
		uint64_t offset = 0;
		uint64_t length;

		atomic_store(&race.flushing, true);
		pthread_barrier_wait(&race.barrier);
		for (int i = 0; i < 3; i++) {
			ck_assert_int_eq(
				round % 2 ? mmapio_flush(race.file)
					  : mmapio_flush_range(race.file, 0, race.pages * page),
				0);
			ck_assert_uint_le(mmapio_dirty_bytes(race.file), race.pages * page);
		}
		atomic_store(&race.flushing, false);
		pthread_barrier_wait(&race.barrier);

		/* at rest: every page that is dirty is known to be */
		for (; mmapio_dirty_next(race.file, &offset, &length); offset += length) {
			for (uint64_t p = offset / page; p <= (offset + length - 1) / page; p++)
				known |= 1ull << p;
		}
		for (uint64_t p = 0; p < race.pages; p++) {
			if (test_dirty_pages_of(fd, p * page, page)) {
				ck_assert(known & (1ull << p));
				caught++;
			}
		}
	}
	ck_assert_uint_gt(caught, 0); /* else nothing was tested */
	atomic_store(&race.stop, true);
	pthread_barrier_wait(&race.barrier);
	ck_assert_int_eq(pthread_join(writer, NULL), 0);
	ck_assert_int_eq(mmapio_flush(race.file), 0);
	ck_assert_uint_eq(mmapio_dirty_bytes(race.file), 0);
	ck_assert_uint_eq(test_dirty_pages(fd), 0);
	mmapio_file_unref(race.file);
	pthread_barrier_destroy(&race.barrier);
	close(fd);
}
END_TEST

static void *flush_thread(void *argument)
{
	struct race *race = argument;

	while (!atomic_load(&race->stop)) {
		THREAD_ASSERT(!mmapio_flush(race->file));
		THREAD_ASSERT(mmapio_dirty_bytes(race->file) <= race->pages * page);
	}
	return NULL;
}

/* Fails if a flush comes back while another one still has this thread's bytes in flight. */
START_TEST(flush_waits_for_the_flush_of_others)
{
	struct race race = {.pages = 16};
	pthread_t threads[2];
	int fd;

	race.file = open_manual(race.pages, &fd);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, flush_thread, &race), 0);
	for (uint64_t i = 0; i < TEST_REPEAT(500); i++) {
		const uint64_t offset = i % race.pages * page;

		change(race.file, _i, offset, page);
		ck_assert_int_eq(i % 2 ? mmapio_flush(race.file)
				       : mmapio_flush_range(race.file, offset, page),
				 0);
		ck_assert_uint_eq(test_dirty_pages_of(fd, offset, page), 0);
		ck_assert_uint_eq(mmapio_dirty_bytes(race.file), 0);
	}
	atomic_store(&race.stop, true);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
	mmapio_file_unref(race.file);
	close(fd);
}
END_TEST

/* --- Errors ----------------------------------------------------------------------------------- */

static struct test_disk disk;

/* Without a journal, which an error would abort. The lower eighth has all that is not file data. */
static void mount_disk(void)
{
	test_disk_mount(&disk, 64 * MIB, "-O ^has_journal");
}

static void unmount_disk(void)
{
	test_disk_unmount(&disk);
}

static void repair_disk(void)
{
	test_disk_repair(&disk);
}

static void break_disk(void)
{
	test_disk_break(&disk, disk.size / 8);
}

/* What on_error() was told. */
struct errors {
	pthread_mutex_t lock;
	unsigned int calls;
	uint64_t start; /* of all ranges */
	uint64_t end;
	int error;
	pthread_t thread;
};

static void note_error(void *context, uint64_t offset, uint64_t length, int error)
{
	struct errors *errors = context;

	pthread_mutex_lock(&errors->lock);
	if (!errors->calls++) {
		errors->start = offset;
		errors->end = offset + length;
	}
	if (offset < errors->start)
		errors->start = offset;
	if (offset + length > errors->end)
		errors->end = offset + length;
	errors->error = error;
	errors->thread = pthread_self();
	pthread_mutex_unlock(&errors->lock);
}

static struct mmapio_file *open_on_disk(struct mmapio_policy policy, struct mmapio_flusher *flusher,
					struct errors *errors, int *fd)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];

	memset(errors, 0, sizeof(*errors));
	pthread_mutex_init(&errors->lock, NULL);
	*fd = test_file_at(test_disk_path(path, &disk), 64 * page);
	options.policy = policy;
	options.flusher = flusher;
	options.on_error = note_error;
	options.context = errors;
	return test_open_with(path, &options);
}

/* Fails if the second flush believes the kernel, which reports an error once and takes the pages
 * for clean from then on. */
START_TEST(error_stays_until_written_anew)
{
	struct errors errors;
	int fd;
	struct mmapio_file *file = open_on_disk((struct mmapio_policy){0}, NULL, &errors, &fd);

	change(file, _i, 0, 8 * page);
	break_disk();
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	ck_assert_int_eq(fdatasync(mmapio_file_descriptor(file)), 0); /* so much for the kernel */
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	ck_assert_int_eq(mmapio_flush_range(file, 3 * page, 1), -EIO);
	ck_assert_int_eq(mmapio_sync(file, true), -EIO);
	ck_assert_int_eq(mmapio_file_error(file), -EIO);
	ck_assert_uint_ge(errors.calls, 1);
	ck_assert_uint_eq(errors.start, 0);
	ck_assert_uint_eq(errors.end, 8 * page);
	ck_assert_int_eq(errors.error, EIO);
	test_disk_repair(&disk);

	/* that the disk is well again does not bring the bytes back */
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	ck_assert_int_eq(mmapio_flush_range(file, 0, 8 * page), -EIO);
	ck_assert_int_eq(mmapio_sync(file, false), -EIO);
	/* other bytes are well */
	change(file, _i, 20 * page, page);
	ck_assert_int_eq(mmapio_flush_range(file, 20 * page, page), 0);
	ck_assert_int_eq(mmapio_flush_range(file, 30 * page, page), 0);
	ck_assert_int_eq(mmapio_flush(file), -EIO);

	/* half of them anew */
	change(file, _i, 0, 4 * page);
	ck_assert_int_eq(mmapio_flush_range(file, 0, 4 * page), 0);
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	ck_assert_int_eq(mmapio_file_error(file), -EIO);
	/* all but one byte, by a flush of the whole */
	change(file, _i, 4 * page, 4 * page - 1);
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	ck_assert_int_eq(mmapio_file_error(file), -EIO);
	change(file, _i, 8 * page - 1, 1);
	ck_assert_int_eq(mmapio_file_error(file), -EIO); /* written, but not yet synced */
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_int_eq(mmapio_file_error(file), 0);
	ck_assert_int_eq(mmapio_flush(file), 0);
	mmapio_file_unref(file);
	ck_assert_int_eq(fsync(fd), -1); /* this descriptor has not been told yet */
	test_drop(fd);
	ck_assert(test_disk_is_pattern(fd, 0, 8 * page));
	close(fd);
}
END_TEST

/* Written anew while the disk is still broken: in doubt again. */
START_TEST(error_comes_again)
{
	struct errors errors;
	int fd;
	struct mmapio_file *file = open_on_disk((struct mmapio_policy){0}, NULL, &errors, &fd);

	change(file, _i, 0, page);
	break_disk();
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	change(file, _i, 0, page);
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	ck_assert_uint_ge(errors.calls, 2);
	test_disk_repair(&disk);
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	change(file, _i, 0, page);
	ck_assert_int_eq(mmapio_flush(file), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* A flush of a range that fails leaves the others dirty, and they are well. */
START_TEST(error_of_a_range)
{
	struct errors errors;
	int fd;
	struct mmapio_file *file = open_on_disk((struct mmapio_policy){0}, NULL, &errors, &fd);

	change(file, _i, 0, page);
	break_disk();
	ck_assert_int_eq(mmapio_flush_range(file, 0, page), -EIO);
	test_disk_repair(&disk);
	ck_assert_int_eq(mmapio_flush_range(file, 0, page), -EIO);
	change(file, _i, 0, page);
	change(file, _i, 10 * page, page);
	ck_assert_int_eq(mmapio_flush_range(file, 0, page), 0);
	ASSERT_DIRTY(file, {10 * page, page});
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_uint_eq(test_dirty_pages(fd), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* What else was dirty when a flush of a range failed is still to be synced. Fails if it is
 * forgotten: it is then neither dirty for the library nor on the disk. */
START_TEST(error_of_a_range_leaves_the_others_dirty)
{
	for (int try = 0; test_try(try); try++) {
		struct errors errors;
		int fd;
		struct mmapio_file *file =
			open_on_disk((struct mmapio_policy){0}, NULL, &errors, &fd);

		change(file, _i, 0, page);
		change(file, _i, 10 * page, page);
		break_disk();
		ck_assert_int_eq(mmapio_flush_range(file, 0, page), -EIO);
		test_disk_repair(&disk);
		TEST_TRY_EQ(test_dirty_pages_of(fd, 10 * page, page), 1);
		ASSERT_DIRTY(file, {10 * page, page});
		/* may be in doubt: then it was told so */
		if (mmapio_flush_range(file, 10 * page, page))
			ck_assert_uint_ge(errors.end, 11 * page);
		ck_assert_uint_eq(test_dirty_pages(fd), 0);
		ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
		change(file, _i, 0, page);
		change(file, _i, 10 * page, page);
		ck_assert_int_eq(mmapio_flush(file), 0);
		mmapio_file_unref(file);
		close(fd);
	}
}
END_TEST

/* The same for what a policy promises. _i: a limit, which is flushed by the close, or a delay */
START_TEST(error_of_a_range_cancels_no_policy)
{
	struct mmapio_flusher *flusher = flusher_new();
	const struct mmapio_policy policy = {.delay_ns = _i ? 2 * SECOND : 0,
					     .writes = _i ? 0 : 100};
	struct errors errors;
	int fd;
	struct mmapio_file *file = open_on_disk(policy, flusher, &errors, &fd);

	change(file, WRITE, 0, page);
	change(file, WRITE, 10 * page, page);
	break_disk();
	ck_assert_int_eq(mmapio_flush_range(file, 0, page), -EIO);
	test_disk_repair(&disk);
	if (_i)
		ck_assert(test_becomes_clean(fd));
	mmapio_file_unref(file);
	ck_assert_uint_eq(test_dirty_pages(fd), 0);
	mmapio_flusher_free(flusher);
	close(fd);
}
END_TEST

/* The kernel wrote some dirty pages on its own, failed, and tells whoever syncs first: here the
 * flush of another range. Fails if only that range is then in doubt: the pages that were lost are
 * clean for the kernel, and the next flush of them succeeds. */
START_TEST(error_of_the_kernels_own_writeback_is_not_lost)
{
	struct errors errors;
	int fd;
	struct mmapio_file *file = open_on_disk((struct mmapio_policy){0}, NULL, &errors, &fd);
	int result;

	change(file, _i, 10 * page, page);
	break_disk();
	/* as the kernel does after some 30 seconds */
	ck_assert_int_eq(
		sync_file_range(fd, (off_t)(10 * page), (off_t)page, SYNC_FILE_RANGE_WRITE), 0);
	for (int i = 0; i < 20000 && test_dirty_pages(fd); i++)
		test_sleep(MILLISECOND);
	ck_assert_uint_eq(test_dirty_pages(fd), 0);
	test_disk_repair(&disk);

	change(file, _i, 0, page);
	result = mmapio_flush_range(file, 0, page);
	ck_assert(result == 0 || result == -EIO);
	change(file, _i, 0, page);
	ck_assert_int_eq(mmapio_flush(file), -EIO); /* of page 10 */
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	change(file, _i, 10 * page, page);
	change(file, _i, 0, page);
	ck_assert_int_eq(mmapio_flush(file), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(error_is_gone_with_the_bytes)
{
	struct errors errors;
	int fd;
	struct mmapio_file *file = open_on_disk((struct mmapio_policy){0}, NULL, &errors, &fd);

	change(file, _i, 10 * page, page);
	break_disk();
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	test_disk_repair(&disk);
	ck_assert_int_eq(mmapio_file_resize(file, 10 * page + 1, 0), 0);
	ck_assert_int_eq(mmapio_flush(file), -EIO); /* one is still there */
	ck_assert_int_eq(mmapio_file_resize(file, 10 * page, 0), 0);
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_int_eq(mmapio_file_error(file), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(error_is_gone_with_a_discard)
{
	struct errors errors;
	int fd;
	struct mmapio_file *file = open_on_disk((struct mmapio_policy){0}, NULL, &errors, &fd);

	change(file, _i, 10 * page, page);
	break_disk();
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	test_disk_repair(&disk);
	mmapio_discard(file);
	ck_assert_int_eq(mmapio_file_error(file), 0);
	ck_assert_int_eq(mmapio_flush(file), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(error_of_a_policy_is_returned)
{
	const struct mmapio_policy policies[] = {{.always = true}, {.bytes = page}, {.writes = 1}};
	uint8_t buffer[8192];

	for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
		struct errors errors;
		int fd;
		struct mmapio_file *file = open_on_disk(policies[i], NULL, &errors, &fd);
		struct mmapio_slice_mut slice;

		test_fill(buffer, 0, page);
		break_disk();
		if (_i == WRITE) {
			ck_assert_int_eq(mmapio_write(file, 0, buffer, page), -EIO);
		} else {
			ck_assert_int_eq(mmapio_slice_get_mut(file, 0, page, &slice), 0);
			memcpy(slice.data, buffer, page);
			ck_assert_int_eq(mmapio_commit(&slice, 0, page), -EIO);
			mmapio_slice_put_mut(&slice);
		}
		ck_assert_uint_ge(errors.calls, 1);
		ck_assert_int_eq(mmapio_flush(file), -EIO);
		test_disk_repair(&disk);
		ck_assert_int_eq(mmapio_flush(file), -EIO);
		change(file, _i, 0, page);
		ck_assert_int_eq(mmapio_flush(file), 0);
		mmapio_file_unref(file);
		close(fd);
	}
}
END_TEST

START_TEST(error_in_the_flusher_is_returned_by_the_next_flush)
{
	struct mmapio_flusher *flusher = flusher_new();
	struct errors errors;
	int fd;
	struct mmapio_file *file = open_on_disk(
		(struct mmapio_policy){.delay_ns = 10 * MILLISECOND}, flusher, &errors, &fd);
	unsigned int calls = 0;

	break_disk();
	change(file, _i, 0, page);
	for (int i = 0; i < 20000 && !calls; i++) {
		test_sleep(MILLISECOND);
		pthread_mutex_lock(&errors.lock);
		calls = errors.calls;
		pthread_mutex_unlock(&errors.lock);
	}
	ck_assert_uint_ge(calls, 1);
	ck_assert(!pthread_equal(errors.thread, pthread_self()));
	ck_assert_int_eq(errors.error, EIO);
	ck_assert_uint_eq(errors.start, 0);
	ck_assert_uint_eq(errors.end, page);
	test_disk_repair(&disk);
	ck_assert_int_eq(mmapio_file_error(file), -EIO);
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	ck_assert_int_eq(mmapio_flush(file), -EIO);
	change(file, _i, 0, page);
	ck_assert_int_eq(mmapio_flush(file), 0);
	mmapio_file_unref(file);
	mmapio_flusher_free(flusher);
	close(fd);
}
END_TEST

/* _i: with a limit, which is flushed by the close, or a delay, by the flusher */
START_TEST(error_after_the_last_reference_is_told)
{
	struct mmapio_flusher *flusher = flusher_new();
	const struct mmapio_policy policy = {.delay_ns = _i ? 3600 * SECOND : 0,
					     .writes = _i ? 0 : 100};
	struct errors errors;
	int fd;
	struct mmapio_file *file = open_on_disk(policy, flusher, &errors, &fd);

	change(file, WRITE, 5 * page, page);
	break_disk();
	mmapio_file_unref(file);
	mmapio_flusher_free(flusher);
	test_disk_repair(&disk);
	ck_assert_uint_eq(errors.calls, 1);
	ck_assert_uint_eq(errors.start, 5 * page);
	ck_assert_uint_eq(errors.end, 6 * page);
	ck_assert_int_eq(errors.error, EIO);
	close(fd);
}
END_TEST

/* What the on_error() of these tests uses. */
struct user {
	struct mmapio_file *file;
	unsigned int calls;
	int result;
	pthread_t thread;
	pthread_barrier_t started;
	_Atomic pid_t flushing; /* the thread that flushes a range */
};

static void use_file(void *context, uint64_t offset, uint64_t length, int error)
{
	struct user *user = context;
	char byte;
	ssize_t n;

	(void)error;
	if (user->calls++)
		return;
	ck_assert_int_eq(mmapio_read(user->file, offset, &byte, 1), 1);
	ck_assert_int_eq(mmapio_file_refresh(user->file, NULL), 0);
	ck_assert_uint_ge(mmapio_file_size(user->file), offset + length);
	ck_assert_int_eq(mmapio_file_error(user->file), -EIO);
	(void)mmapio_dirty_bytes(user->file);
	n = mmapio_write(user->file, 30 * page, "#", 1);
	ck_assert(n == 1 || n == -EIO);
	user->result = mmapio_file_resize(user->file, 65 * page, 0);
	ck_assert(user->result == 0 || user->result == -EIO);
}

/* on_error() may use the file, but not flush it. Fails by the time limit. _i: policy. Only the
 * flush that is asked for is forbidden there, not the one of a policy. */
START_TEST(on_error_may_use_the_file)
{
	const struct mmapio_policy policies[] = {{0}, {.always = true}, {.writes = 1}};
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct user user = {0};
	char path[PATH_MAX];
	const int fd = test_file_at(test_disk_path(path, &disk), 64 * page);

	options.policy = policies[_i];
	options.on_error = use_file;
	options.context = &user;
	user.file = test_open_with(path, &options);
	break_disk();
	if (mmapio_write(user.file, 0, "#", 1) == 1) /* else the policy has flushed */
		ck_assert_int_eq(mmapio_flush(user.file), -EIO);
	ck_assert_uint_ge(user.calls, 1);
	test_disk_repair(&disk);
	mmapio_discard(user.file);
	change(user.file, WRITE, 0, page);
	ck_assert_int_eq(mmapio_flush(user.file), 0);
	mmapio_file_unref(user.file);
	close(fd);
}
END_TEST

/* Waits until a thread, once it has said which it is, sleeps or has ended. */
static bool thread_comes_to_rest(const _Atomic pid_t *thread)
{
	for (int i = 0; i < 20000; i++) {
		char path[64];
		char line[256] = "";
		const char *state = NULL;
		FILE *stat;

		test_sleep(MILLISECOND);
		if (!atomic_load(thread))
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%d/stat", atomic_load(thread));
		stat = fopen(path, "re");
		if (!stat)
			return true;
		if (fgets(line, sizeof(line), stat))
			state = strrchr(line, ')');
		fclose(stat);
		if (state && !strncmp(state, ") S", 3))
			return true;
	}
	return false;
}

static void *flush_range_thread(void *argument)
{
	struct user *user = argument;

	pthread_barrier_wait(&user->started);
	atomic_store(&user->flushing, gettid());
	(void)!mmapio_flush_range(user->file, 60 * page, page);
	return NULL;
}

static void shrink_file(void *context, uint64_t offset, uint64_t length, int error)
{
	struct user *user = context;

	(void)offset;
	(void)length;
	(void)error;
	if (user->calls++)
		return;
	ck_assert_int_eq(pthread_create(&user->thread, NULL, flush_range_thread, user), 0);
	pthread_barrier_wait(&user->started);
	/* it waits for the sync that is being reported, or for nobody */
	ck_assert(thread_comes_to_rest(&user->flushing));
	user->result = mmapio_file_resize(user->file, 50 * page, 10 * SECOND);
}

/* Fails if a flush of a range waits for another sync with its range pinned: on_error() would wait
 * for it, and it for on_error(). */
START_TEST(on_error_may_shrink_the_file)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct user user = {0};
	char path[PATH_MAX];
	const int fd = test_file_at(test_disk_path(path, &disk), 64 * page);

	options.on_error = shrink_file;
	options.context = &user;
	pthread_barrier_init(&user.started, NULL, 2);
	user.file = test_open_with(path, &options);
	change(user.file, WRITE, 0, page);
	break_disk();
	ck_assert_int_eq(mmapio_flush(user.file), -EIO);
	ck_assert_uint_ge(user.calls, 1);
	ck_assert_int_eq(pthread_join(user.thread, NULL), 0);
	ck_assert_int_eq(user.result, 0);
	test_disk_repair(&disk);
	mmapio_file_unref(user.file);
	pthread_barrier_destroy(&user.started);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("flush");
	TCase *asked = test_case(suite, "asked");
	TCase *ranges = test_case(suite, "ranges");
	TCase *limits = test_case(suite, "limits");
	TCase *flusher = test_case(suite, "flusher");
	TCase *races = test_case(suite, "races");
	bool disks;
	int status;

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	disks = test_disk_possible();
	test_make_folder();
	test_need_cachestat();

	tcase_add_loop_test(asked, manual_leaves_dirty_and_flush_cleans, 0, CHANGES);
	tcase_add_loop_test(asked, manual_is_not_flushed_when_closed, 0, CHANGES);
	tcase_add_loop_test(asked, sync_brings_what_others_wrote, 0, CHANGES);
	tcase_add_loop_test(asked, flush_of_other_modes_does_nothing, 0, 2);
	tcase_add_test(asked, flush_after_growth_keeps_the_data);

	tcase_add_loop_test(ranges, flush_range_leaves_the_rest_dirty, 0, 2 * CHANGES);
	tcase_add_loop_test(ranges, flush_range_takes_whole_pages, 0, CHANGES);
	tcase_add_test(ranges, flush_range_stays_inside_the_file);
	tcase_add_loop_test(ranges, dirty_ranges_merge_and_split, 0, CHANGES);
	tcase_add_loop_test(ranges, dirty_ranges_end_with_the_file, 0, CHANGES);
	tcase_add_test(ranges, dirty_ranges_are_exact);

	tcase_add_loop_test(limits, always_is_clean_when_the_call_returns, 0, CHANGES);
	tcase_add_loop_test(limits, limit_of_bytes, 0, CHANGES);
	tcase_add_loop_test(limits, limit_of_writes, 0, CHANGES);
	tcase_add_loop_test(limits, first_limit_counts, 0, CHANGES);
	tcase_add_loop_test(limits, limits_are_flushed_when_closed, 0, CHANGES);

	tcase_add_loop_test(limits, discarded_bytes_are_not_flushed, 0, 4);
	tcase_add_loop_test(limits, discarded_file_can_be_written_on, 0, CHANGES);

	tcase_add_loop_test(flusher, delay_is_kept_without_being_asked, 0, CHANGES);
	tcase_add_loop_test(flusher, delay_is_not_over_before_its_time, 0, CHANGES);
	tcase_add_loop_test(flusher, delay_counts_from_the_first_change, 0, CHANGES);
	tcase_add_loop_test(flusher, delay_goes_with_other_limits, 0, CHANGES);
	tcase_add_loop_test(flusher, one_flusher_has_many_files, 0, CHANGES);
	tcase_add_loop_test(flusher, file_is_flushed_after_its_last_reference, 0, CHANGES);
	tcase_add_loop_test(flusher, freeing_the_flusher_flushes, 0, CHANGES);
	tcase_add_test(flusher, flusher_takes_no_signals);

	tcase_add_loop_test(races, write_during_a_flush_is_not_lost, 0, 6);
	tcase_add_loop_test(races, flush_waits_for_the_flush_of_others, 0, CHANGES);

	if (disks) {
		TCase *errors = test_case(suite, "errors");
		TCase *callbacks = test_case(suite, "callbacks");

		/* unchecked: in the program itself, so that it ends also what a test that died has
		 * left; checked: the test before may have died with the disk broken */
		tcase_add_unchecked_fixture(errors, mount_disk, unmount_disk);
		tcase_add_checked_fixture(errors, repair_disk, NULL);
		tcase_add_loop_test(errors, error_stays_until_written_anew, 0, CHANGES);
		tcase_add_loop_test(errors, error_comes_again, 0, CHANGES);
		tcase_add_loop_test(errors, error_of_a_range, 0, CHANGES);
		tcase_add_loop_test(errors, error_of_a_range_leaves_the_others_dirty, 0, CHANGES);
		tcase_add_loop_test(errors, error_of_a_range_cancels_no_policy, 0, 2);
		tcase_add_loop_test(errors, error_of_the_kernels_own_writeback_is_not_lost, 0,
				    CHANGES);
		tcase_add_loop_test(errors, error_is_gone_with_the_bytes, 0, CHANGES);
		tcase_add_loop_test(errors, error_is_gone_with_a_discard, 0, CHANGES);
		tcase_add_loop_test(errors, error_of_a_policy_is_returned, 0, CHANGES);
		tcase_add_loop_test(errors, error_in_the_flusher_is_returned_by_the_next_flush, 0,
				    CHANGES);
		tcase_add_loop_test(errors, error_after_the_last_reference_is_told, 0, 2);

		tcase_set_timeout(callbacks, 30);
		tcase_add_unchecked_fixture(callbacks, mount_disk, unmount_disk);
		tcase_add_checked_fixture(callbacks, repair_disk, NULL);
		tcase_add_loop_test(callbacks, on_error_may_use_the_file, 0, 3);
		tcase_add_test(callbacks, on_error_may_shrink_the_file);
	}
	status = test_run(suite);
	if (!status && !disks) {
		printf("SKIP: the tests of errors need root, loop devices and mkfs.ext4\n");
		status = TEST_SKIP;
	}
	return status;
}
