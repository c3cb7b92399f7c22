/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_error.c - tests of errors in detail: the kinds can be told apart, numbers and words are
 * right, and what must not be NULL is refused by each call
 */
#define MMAPIO_LIBRARY /* or the compiler refuses the NULLs itself */
#include "lib_test.h"

#include <sys/resource.h>

static uint64_t page;
static char path[PATH_MAX];
static int fd;

/* The last error is of this kind, and tells of what was returned. */
static struct mmapio_error expect(int returned, enum mmapio_error_kind kind, int code)
{
	struct mmapio_error error = MMAPIO_ERROR_INIT;

	ck_assert_int_eq(returned, code);
	ck_assert_int_eq(mmapio_error_last(&error), code);
	ck_assert_int_eq(error.code, code);
	ck_assert_int_eq(error.kind, kind);
	return error;
}

static void expect_bounds(int returned, uint64_t offset, uint64_t length, uint64_t total)
{
	const struct mmapio_error error = expect(returned, MMAPIO_ERROR_BOUNDS, -ERANGE);

	ck_assert_uint_eq(error.offset, offset);
	ck_assert_uint_eq(error.length, length);
	ck_assert_uint_eq(error.total, total);
}

static void expect_text(const char *expected)
{
	struct mmapio_error error = MMAPIO_ERROR_INIT;
	char text[256], part[8];

	(void)mmapio_error_last(&error);
	ck_assert_int_eq(mmapio_error_text(&error, text, sizeof(text)), (int)strlen(expected));
	ck_assert_str_eq(text, expected);
	ck_assert_int_eq(mmapio_error_text(&error, part, sizeof(part)), (int)strlen(expected));
	ck_assert_int_eq(strncmp(part, expected, sizeof(part) - 1), 0);
	ck_assert_uint_eq(strlen(part), sizeof(part) - 1);
}

static void set_up(void)
{
	fd = test_file(path, 3 * page);
}

START_TEST(bounds_tell_offset_length_and_total)
{
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_segment segment;
	struct mmapio_atomic_u64 words;
	struct mmapio_slice_mut mutable;
	struct mmapio_slice slice;
	uint64_t word;

	expect_bounds(mmapio_slice_get(file, page, 2 * page + 1, &slice), page, 2 * page + 1,
		      3 * page);
	expect_text(page == 4096 ? "out of bounds: 8193 bytes at offset 4096, of 12288" : "");
	expect_bounds(mmapio_slice_get(file, 3 * page + 1, 0, &slice), 3 * page + 1, 0, 3 * page);
	expect_bounds(mmapio_slice_get(file, UINT64_MAX, 2, &slice), UINT64_MAX, 2, 3 * page);
	expect_bounds(mmapio_slice_get_mut(file, 0, SIZE_MAX, &mutable), 0, SIZE_MAX, 3 * page);
	expect_bounds(mmapio_flush_range(file, 1, 3 * page), 1, 3 * page, 3 * page);

	ck_assert_int_eq(mmapio_slice_get_mut(file, 10, 20, &mutable), 0);
	expect_bounds(mmapio_commit(&mutable, 5, 16), 5, 16, 20);
	mmapio_slice_put_mut(&mutable);

	ck_assert_int_eq(mmapio_segment_init(&segment, file, page, 100), 0);
	expect_bounds(mmapio_segment_slice(&segment, 99, 2, &slice), 99, 2, 100);
	ck_assert_int_eq(mmapio_file_resize(file, page + 50, 0), 0);
	expect_bounds(mmapio_segment_slice(&segment, 0, 1, &slice), page, 100, page + 50);

	ck_assert_int_eq(mmapio_atomic_u64_get(file, 0, 3, &words), 0);
	expect_bounds(mmapio_atomic_u64_load(&words, 3, &word), 3, 1, 3);
	ck_assert_int_eq(mmapio_atomic_u64_put(&words), 0);
	mmapio_file_unref(file);
}
END_TEST

START_TEST(misaligned_words_tell_what_is_required)
{
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_atomic_u32 narrow;
	struct mmapio_atomic_u64 wide;
	struct mmapio_error error;

	error = expect(mmapio_atomic_u64_get(file, 12, 1, &wide), MMAPIO_ERROR_ALIGNMENT, -EINVAL);
	ck_assert_uint_eq(error.required, 8);
	ck_assert_uint_eq(error.offset, 12);
	expect_text("misaligned: offset 12 is no multiple of 8");
	error = expect(mmapio_atomic_u32_get(file, UINT64_MAX, 1, &narrow), MMAPIO_ERROR_ALIGNMENT,
		       -EINVAL);
	ck_assert_uint_eq(error.required, 4);
	ck_assert_uint_eq(error.offset, UINT64_MAX);
	mmapio_file_unref(file);
}
END_TEST

START_TEST(kinds_can_be_told_apart)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_ONLY);
	struct mmapio_file *file, *other;
	struct mmapio_policy policy;
	struct mmapio_slice_mut mutable;
	struct mmapio_slice slice;
	struct mmapio_cursor cursor;
	char byte = 0;

	file = test_open(path, MMAPIO_READ_ONLY);
	expect((int)mmapio_write(file, 0, &byte, 1), MMAPIO_ERROR_MODE, -EBADF);
	expect(mmapio_slice_get_mut(file, 0, 1, &mutable), MMAPIO_ERROR_MODE, -EBADF);
	expect(mmapio_file_resize(file, 0, 0), MMAPIO_ERROR_MODE, -EBADF);
	expect_text("not in this mode: Bad file descriptor");
	expect(mmapio_file_allocate(file, 0, 0, 1), MMAPIO_ERROR_MODE, -EBADF);
	expect(mmapio_changes_discard(file), MMAPIO_ERROR_MODE, -EBADF);
	expect(mmapio_changes_commit(file, file), MMAPIO_ERROR_MODE, -EBADF);
	expect((int)mmapio_copy(file, 0, file, page, 1), MMAPIO_ERROR_MODE, -EBADF);
	mmapio_file_unref(file);

	file = test_open(path, MMAPIO_READ_WRITE);
	expect(mmapio_file_resize(file, UINT64_MAX, 0), MMAPIO_ERROR_RESIZE, -EFBIG);
	expect_text("change of size: File too large");
	expect(mmapio_file_allocate(file, 8, 0, 1), MMAPIO_ERROR_RESIZE, -EOPNOTSUPP);
	expect((int)mmapio_write(file, INT64_MAX, &byte, 1), MMAPIO_ERROR_IO, -EFBIG);
	ck_assert_int_eq(mmapio_slice_get(file, page, 1, &slice), 0);
	expect(mmapio_file_resize(file, page, 0), MMAPIO_ERROR_BUSY, -EBUSY);
	mmapio_slice_put(&slice);
	cursor = (struct mmapio_cursor){file, 0};
	expect(mmapio_cursor_seek(&cursor, -1, SEEK_SET), MMAPIO_ERROR_ARGUMENT, -EINVAL);
	mmapio_file_ref(file);
	expect(mmapio_file_detach(file, &(int){0}), MMAPIO_ERROR_BUSY, -EBUSY);
	mmapio_file_unref(file);
	mmapio_file_unref(file);

	expect(mmapio_open(&other, "/nowhere/at all", &options), MMAPIO_ERROR_IO, -ENOENT);
	expect_text("I/O: No such file or directory");
	expect(mmapio_open(&other, "/", &options), MMAPIO_ERROR_IO, -EISDIR);
	expect(mmapio_open(&other, "/dev/null", &options), MMAPIO_ERROR_IO, -EINVAL);
	options.flags = 1u << 31;
	expect(mmapio_open(&other, path, &options), MMAPIO_ERROR_ARGUMENT, -EINVAL);
	expect(mmapio_policy_parse(&policy, "soon"), MMAPIO_ERROR_ARGUMENT, -EINVAL);
	expect(mmapio_policy_parse(&policy, "0ms"), MMAPIO_ERROR_ARGUMENT, -ERANGE);
}
END_TEST

/* A sync that fails is a flush's error, in a write that its policy made flush too. */
START_TEST(a_failed_sync_is_an_error_of_a_flush)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct mmapio_file *file;
	struct test_disk disk;
	char place[PATH_MAX];

	test_disk_mount(&disk, 8 * MIB, "-O ^has_journal -b 4096");
	close(test_file_at(test_disk_path(place, &disk), MIB));
	options.policy.always = true;
	file = test_open_with(place, &options);
	test_disk_break(&disk, 0);
	expect((int)mmapio_write(file, 0, "new", 3), MMAPIO_ERROR_FLUSH, -EIO);
	expect_text("flush: Input/output error");
	expect(mmapio_flush(file), MMAPIO_ERROR_FLUSH, -EIO);
	test_disk_repair(&disk);
	mmapio_file_unref(file);
	test_disk_unmount(&disk);
}
END_TEST

static void *fail_elsewhere(void *unused)
{
	struct mmapio_error error = MMAPIO_ERROR_INIT;

	(void)unused;
	THREAD_ASSERT(mmapio_error_last(&error) == 0 && error.kind == MMAPIO_ERROR_NONE);
	THREAD_ASSERT(mmapio_remove("/nowhere/at all") == -ENOENT);
	THREAD_ASSERT(mmapio_error_last(&error) == -ENOENT && error.kind == MMAPIO_ERROR_IO);
	return NULL;
}

START_TEST(each_thread_has_its_own)
{
	struct mmapio_file *file = test_open(path, MMAPIO_READ_ONLY);
	struct mmapio_slice slice;
	pthread_t thread;

	expect_bounds(mmapio_slice_get(file, 4 * page, 1, &slice), 4 * page, 1, 3 * page);
	ck_assert_int_eq(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	expect_bounds(-ERANGE, 4 * page, 1, 3 * page);
	mmapio_file_unref(file);
}
END_TEST

/* Programs that know a shorter or a longer struct get what both know. */
START_TEST(the_struct_can_grow)
{
	struct {
		struct mmapio_error error;
		uint64_t later[2];
	} longer = {.error = {.size = sizeof(longer)}, .later = {1, 1}};
	struct mmapio_error shorter = {.size = offsetof(struct mmapio_error, total), .total = 77};
	struct mmapio_file *file = test_open(path, MMAPIO_READ_ONLY);
	struct mmapio_slice slice;
	char text[100];

	ck_assert_int_eq(mmapio_slice_get(file, 4 * page, 1, &slice), -ERANGE);
	ck_assert_int_eq(mmapio_error_last(&longer.error), -ERANGE);
	ck_assert_uint_eq(longer.error.total, 3 * page);
	ck_assert_uint_eq(longer.later[0] | longer.later[1], 0);
	ck_assert_int_eq(mmapio_error_last(&shorter), -ERANGE);
	ck_assert_uint_eq(shorter.offset, 4 * page);
	ck_assert_uint_eq(shorter.length, 1);
	ck_assert_uint_eq(shorter.total, 77);
	ck_assert_int_ge(mmapio_error_text(&shorter, text, sizeof(text)), 20);
	shorter.size = 4;
	ck_assert_int_eq(mmapio_error_last(&shorter), -EINVAL);
	ck_assert_int_eq(mmapio_error_text(&shorter, text, sizeof(text)), -EINVAL);
	longer.error.kind = (enum mmapio_error_kind)1000;
	ck_assert_int_eq(mmapio_error_text(&longer.error, text, sizeof(text)), -EINVAL);
	mmapio_file_unref(file);
}
END_TEST

#define REFUSED(CALL) expect((int)(CALL), MMAPIO_ERROR_ARGUMENT, -EINVAL)

START_TEST(null_is_refused)
{
	const struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE), *other = NULL;
	struct mmapio_segment segment = {file, 0, 1};
	struct mmapio_cursor cursor = {NULL, 0};
	struct mmapio_slice_mut mutable = {0};
	struct mmapio_atomic_u32 narrow = {0};
	struct mmapio_atomic_u64 wide = {0};
	struct mmapio_slice slice;
	struct mmapio_chunks chunks;
	struct mmapio_policy policy = {0};
	struct timespec times[2] = {{0}};
	uint64_t a = 0, b = 0;
	char text[100];
	void *data;
	size_t length;
	int number;

	REFUSED(mmapio_policy_parse(NULL, "manual"));
	REFUSED(mmapio_policy_parse(&policy, NULL));
	REFUSED(mmapio_policy_format(NULL, text, 100));
	REFUSED(mmapio_policy_format(&policy, NULL, 100));
	REFUSED(mmapio_flusher_new(NULL));
	REFUSED(mmapio_open(NULL, path, &options));
	REFUSED(mmapio_open(&other, NULL, &options));
	REFUSED(mmapio_open(&other, path, NULL));
	REFUSED(mmapio_open_fd(NULL, fd, &options));
	REFUSED(mmapio_open_fd(&other, fd, NULL));
	REFUSED(mmapio_open_or_create(NULL, path, 0, 0600, &options, NULL));
	REFUSED(mmapio_open_or_create(&other, NULL, 0, 0600, &options, NULL));
	REFUSED(mmapio_open_or_create(&other, path, 0, 0600, NULL, NULL));
	REFUSED(mmapio_create(NULL, path, 0, 0600, &options));
	REFUSED(mmapio_create(&other, NULL, 0, 0600, &options));
	REFUSED(mmapio_create(&other, path, 0, 0600, NULL));
	REFUSED(mmapio_open_anonymous(NULL, 0, &options));
	REFUSED(mmapio_open_anonymous(&other, 0, NULL));
	REFUSED(mmapio_file_detach(NULL, &number));
	REFUSED(mmapio_file_detach(file, NULL));
	REFUSED(mmapio_file_make_writable(NULL, fd));
	REFUSED(mmapio_file_pointer(NULL, &data, &length));
	REFUSED(mmapio_file_pointer(file, NULL, &length));
	REFUSED(mmapio_file_pointer(file, &data, NULL));
	REFUSED(mmapio_file_refresh(NULL, NULL));
	REFUSED(mmapio_file_check(NULL, NULL));
	REFUSED(mmapio_file_set_times(NULL, times));
	REFUSED(mmapio_file_set_times(file, NULL));
	REFUSED(mmapio_file_resize(NULL, 0, 0));
	REFUSED(mmapio_file_allocate(NULL, 0, 0, 1));
	REFUSED(mmapio_slice_get(NULL, 0, 1, &slice));
	REFUSED(mmapio_slice_get(file, 0, 1, NULL));
	REFUSED(mmapio_slice_get_some(NULL, 0, 1, &slice));
	REFUSED(mmapio_slice_get_some(file, 0, 1, NULL));
	REFUSED(mmapio_slice_get_mut(NULL, 0, 1, &mutable));
	REFUSED(mmapio_slice_get_mut(file, 0, 1, NULL));
	REFUSED(mmapio_commit(NULL, 0, 0));
	REFUSED(mmapio_commit(&mutable, 0, 0));
	REFUSED(mmapio_chunks_begin(NULL, file, 0, 1, 1));
	REFUSED(mmapio_chunks_begin(&chunks, NULL, 0, 1, 1));
	REFUSED(mmapio_chunks_begin(&chunks, file, 0, 1, 0));
	REFUSED(mmapio_pages_begin(NULL, file, 0, 1));
	REFUSED(mmapio_pages_begin(&chunks, NULL, 0, 1));
	REFUSED(mmapio_chunks_change(NULL, 0, 1, 1, NULL, NULL));
	REFUSED(mmapio_chunks_change(file, 0, 1, 1, NULL, NULL));
	REFUSED(mmapio_segment_init(NULL, file, 0, 1));
	REFUSED(mmapio_segment_init(&segment, NULL, 0, 1));
	REFUSED(mmapio_segment_slice(NULL, 0, 1, &slice));
	REFUSED(mmapio_segment_slice(&segment, 0, 1, NULL));
	REFUSED(mmapio_segment_slice_mut(NULL, 0, 1, &mutable));
	REFUSED(mmapio_segment_slice_mut(&segment, 0, 1, NULL));
	REFUSED(mmapio_segment_read(NULL, 0, text, 1));
	REFUSED(mmapio_segment_read(&segment, 0, NULL, 1));
	REFUSED(mmapio_segment_write(NULL, 0, text, 1));
	REFUSED(mmapio_segment_write(&segment, 0, NULL, 1));
	REFUSED(mmapio_cursor_read(NULL, text, 1));
	REFUSED(mmapio_cursor_read(&cursor, text, 1));
	REFUSED(mmapio_cursor_write(NULL, text, 1));
	REFUSED(mmapio_cursor_write(&cursor, text, 1));
	REFUSED(mmapio_cursor_seek(NULL, 0, SEEK_SET));
	REFUSED(mmapio_cursor_seek(&cursor, 0, SEEK_SET));
	REFUSED(mmapio_atomic_u32_get(NULL, 0, 1, &narrow));
	REFUSED(mmapio_atomic_u32_get(file, 0, 1, NULL));
	REFUSED(mmapio_atomic_u64_get(NULL, 0, 1, &wide));
	REFUSED(mmapio_atomic_u64_get(file, 0, 1, NULL));
	REFUSED(mmapio_atomic_u32_commit(NULL));
	REFUSED(mmapio_atomic_u64_commit(&wide));
	REFUSED(mmapio_atomic_u32_put(NULL));
	REFUSED(mmapio_atomic_u64_put(NULL));
	REFUSED(mmapio_atomic_u32_load(NULL, 0, &(uint32_t){0}));
	REFUSED(mmapio_atomic_u64_load(&wide, 0, NULL));
	REFUSED(mmapio_atomic_u32_store(NULL, 0, 0));
	REFUSED(mmapio_atomic_u64_add(NULL, 0, 1, NULL));
	REFUSED(mmapio_atomic_u64_compare_exchange(NULL, 0, &a, 1));
	REFUSED(mmapio_read(NULL, 0, text, 1));
	REFUSED(mmapio_read(file, 0, NULL, 1));
	REFUSED(mmapio_write(NULL, 0, text, 1));
	REFUSED(mmapio_write(file, 0, NULL, 1));
	REFUSED(mmapio_copy(NULL, 0, file, 0, 1));
	REFUSED(mmapio_copy(file, 0, NULL, 0, 1));
	REFUSED(mmapio_flush(NULL));
	REFUSED(mmapio_flush_range(NULL, 0, 1));
	REFUSED(mmapio_sync(NULL, true));
	REFUSED(mmapio_dirty_next(NULL, &a, &b));
	REFUSED(mmapio_dirty_next(file, NULL, &b));
	REFUSED(mmapio_dirty_next(file, &a, NULL));
	REFUSED(mmapio_file_error(NULL));
	REFUSED(mmapio_changes_next(NULL, &a, &b));
	REFUSED(mmapio_changes_next(file, NULL, &b));
	REFUSED(mmapio_changes_next(file, &a, NULL));
	REFUSED(mmapio_changes_commit(NULL, file));
	REFUSED(mmapio_changes_commit(file, NULL));
	REFUSED(mmapio_changes_discard(NULL));
	REFUSED(mmapio_touch(NULL, 0, 1));
	REFUSED(mmapio_advise(NULL, 0, 1, MMAPIO_ADVICE_NORMAL));
	REFUSED(mmapio_lock(NULL, 0, 1));
	REFUSED(mmapio_unlock(NULL, 0, 1));
	REFUSED(mmapio_locked_bytes(NULL, &a));
	REFUSED(mmapio_locked_bytes(file, NULL));
	REFUSED(mmapio_huge_bytes(NULL, &a));
	REFUSED(mmapio_huge_bytes(file, NULL));
	REFUSED(mmapio_load(NULL, &data, &length));
	REFUSED(mmapio_load(path, NULL, &length));
	REFUSED(mmapio_load(path, &data, NULL));
	REFUSED(mmapio_save(NULL, "", 0, 0600));
	REFUSED(mmapio_save(path, NULL, 1, 0600));
	REFUSED(mmapio_copy_file(NULL, path, 0600));
	REFUSED(mmapio_copy_file(path, NULL, 0600));
	REFUSED(mmapio_remove(NULL));
	REFUSED(mmapio_watch_new(NULL, file));
	REFUSED(mmapio_watch_descriptor(NULL));
	REFUSED(mmapio_watch_next(NULL, NULL));
	mmapio_watch_free(NULL);
	REFUSED(mmapio_queue_new(NULL, 1));
	REFUSED(mmapio_queue_read(NULL, file, 0, text, 1, NULL, NULL, NULL));
	REFUSED(mmapio_queue_write(NULL, file, 0, text, 1, NULL, NULL, NULL));
	REFUSED(mmapio_queue_flush(NULL, file, 0, 1, NULL, NULL, NULL));
	REFUSED(mmapio_queue_cancel(NULL, 1));
	REFUSED(mmapio_queue_descriptor(NULL));
	REFUSED(mmapio_queue_next(NULL, NULL));
	REFUSED(mmapio_error_last(NULL));
	REFUSED(mmapio_error_text(NULL, text, 100));
	/* What has nothing to say does nothing */
	mmapio_slice_put(NULL);
	mmapio_slice_put_mut(NULL);
	mmapio_chunks_end(NULL);
	mmapio_file_unref(NULL);
	mmapio_flusher_free(NULL);
	ck_assert(!mmapio_chunks_next(NULL, NULL));
	ck_assert_uint_eq(mmapio_chunks_left(NULL), 0);
	ck_assert(!mmapio_segment_is_valid(NULL));
	ck_assert_uint_eq(mmapio_changes_bytes(NULL), 0);
	/* And nothing has changed */
	ck_assert_ptr_null(other);
	ck_assert_uint_eq(mmapio_file_size(file), 3 * page);
	ck_assert(test_reads_pattern(file, 0, 3 * page));
	ck_assert(!mmapio_is_dirty(file));
	mmapio_file_unref(file);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("error");
	TCase *details = test_case(suite, "details");
	bool disks;
	int status;

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	test_make_folder();
	tcase_add_checked_fixture(details, set_up, NULL);
	tcase_add_test(details, bounds_tell_offset_length_and_total);
	tcase_add_test(details, misaligned_words_tell_what_is_required);
	tcase_add_test(details, kinds_can_be_told_apart);
	tcase_add_test(details, each_thread_has_its_own);
	tcase_add_test(details, the_struct_can_grow);
	tcase_add_test(details, null_is_refused);
	disks = test_disk_possible();
	if (disks)
		tcase_add_test(details, a_failed_sync_is_an_error_of_a_flush);
	status = test_run(suite);
	if (!status && !disks) {
		printf("SKIP: the test of a dead disk needs root, loop devices and mkfs.ext4\n");
		status = TEST_SKIP;
	}
	return status;
}
