/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_watch.c - tests of watches: what others do to a file, what its own handle does, and that each
 * is told once, as what it is, with a descriptor that says when
 *
 * inotify(7) tells of a change in the call that makes it, so nothing has to be waited for but what
 * other threads do.
 */
#define MMAPIO_LIBRARY /* or the compiler refuses the NULLs itself */
#include "lib_test.h"

#include <poll.h>
#include <sys/resource.h>
#include <sys/xattr.h>

static const enum mmapio_mode modes[] = {MMAPIO_READ_ONLY, MMAPIO_READ_WRITE, MMAPIO_COPY_ON_WRITE};

static uint64_t page;

static struct mmapio_watch *watch_new(struct mmapio_file *file)
{
	struct mmapio_watch *watch = NULL;

	ck_assert_int_eq(mmapio_watch_new(&watch, file), 0);
	ck_assert_ptr_nonnull(watch);
	return watch;
}

/* Whether the descriptor is readable, within so many milliseconds. */
static bool watch_readable(const struct mmapio_watch *watch, int milliseconds)
{
	struct pollfd poller = {.fd = mmapio_watch_descriptor(watch), .events = POLLIN};

	return poll(&poller, 1, milliseconds) == 1 && (poller.revents & POLLIN);
}

static void expect_nothing(struct mmapio_watch *watch)
{
	/* The flusher's thread may be moving times at this moment, of which inotify(7) tells. */
	for (int try = 0; try < 100; try++) {
		struct mmapio_event event = MMAPIO_EVENT_INIT;
		const int found = mmapio_watch_next(watch, &event);

		ck_assert_msg(found == 0, "%d: kind %d, own %d, offset %ju, length %ju", found,
			      event.kind, event.own, (uintmax_t)event.offset,
			      (uintmax_t)event.length);
		if (!watch_readable(watch, 0))
			return;
	}
	ck_abort_msg("it stays readable");
}

static void expect(struct mmapio_watch *watch, enum mmapio_event_kind kind, bool own,
		   uint64_t offset, uint64_t length)
{
	struct mmapio_event event = MMAPIO_EVENT_INIT;

	ck_assert(watch_readable(watch, 0));
	ck_assert_int_eq(mmapio_watch_next(watch, &event), 1);
	ck_assert_msg(event.kind == kind && event.own == own && event.offset == offset &&
			      event.length == length,
		      "kind %d, own %d, offset %ju, length %ju, not %d, %d, %ju, %ju", event.kind,
		      event.own, (uintmax_t)event.offset, (uintmax_t)event.length, kind, own,
		      (uintmax_t)offset, (uintmax_t)length);
}

static void expect_own(struct mmapio_watch *watch, uint64_t offset, uint64_t length)
{
	expect(watch, MMAPIO_EVENT_MODIFIED, true, offset, length);
}

static void expect_others(struct mmapio_watch *watch)
{
	expect(watch, MMAPIO_EVENT_MODIFIED, false, 0, UINT64_MAX);
}

static void expect_metadata(struct mmapio_watch *watch)
{
	expect(watch, MMAPIO_EVENT_METADATA, false, 0, 0);
}

static void expect_removed(struct mmapio_watch *watch)
{
	expect(watch, MMAPIO_EVENT_REMOVED, false, 0, 0);
}

static void expect_overflow(struct mmapio_watch *watch)
{
	expect(watch, MMAPIO_EVENT_OVERFLOW, false, 0, UINT64_MAX);
}

/* --- Others ----------------------------------------------------------------------------------- */

static bool others_write(const char *path)
{
	const int fd = open(path, O_WRONLY | O_CLOEXEC);
	const bool done = fd >= 0 && pwrite(fd, "x", 1, 100) == 1;

	close(fd);
	return done;
}

static bool others_write_by_a_handle(const char *path)
{
	const struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct mmapio_file *file;
	bool done;

	if (mmapio_open(&file, path, &options))
		return false;
	done = mmapio_write(file, 100, "x", 1) == 1;
	mmapio_file_unref(file);
	return done;
}

static bool others_shrink(const char *path)
{
	return truncate(path, 5000) == 0;
}

static bool others_grow(const char *path)
{
	return truncate(path, 50000) == 0;
}

static bool others_chmod(const char *path)
{
	return chmod(path, 0640) == 0;
}

static bool others_touch(const char *path)
{
	return utimensat(AT_FDCWD, path, NULL, 0) == 0;
}

static bool others_link(const char *path)
{
	char name[PATH_MAX];

	return link(path, test_path(name, "link")) == 0;
}

static bool others_mark(const char *path)
{
	if (setxattr(path, "user.test", "x", 1, 0) == 0)
		return true;
	if (errno != ENOTSUP)
		return false;
	printf("extended attributes cannot be had in %s\n", test_folder_path);
	return others_chmod(path);
}

static bool others_remove(const char *path)
{
	return unlink(path) == 0;
}

static bool others_replace(const char *path)
{
	char name[PATH_MAX];

	close(test_file_at(test_path(name, "new"), 10));
	return rename(name, path) == 0;
}

static const struct {
	bool (*act)(const char *path);
	enum mmapio_event_kind kind;
} others[] = {
	{others_write, MMAPIO_EVENT_MODIFIED},	{others_write_by_a_handle, MMAPIO_EVENT_MODIFIED},
	{others_shrink, MMAPIO_EVENT_MODIFIED}, {others_grow, MMAPIO_EVENT_MODIFIED},
	{others_chmod, MMAPIO_EVENT_METADATA},	{others_touch, MMAPIO_EVENT_METADATA},
	{others_link, MMAPIO_EVENT_METADATA},	{others_mark, MMAPIO_EVENT_METADATA},
	{others_remove, MMAPIO_EVENT_REMOVED},	{others_replace, MMAPIO_EVENT_REMOVED},
};

static void act_elsewhere(bool (*act)(const char *path), const char *path)
{
	const pid_t child = fork();
	int status;

	ck_assert_int_ge(child, 0);
	if (child == 0)
		_exit(!act(path));
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
}

/* _i: what they do, in each mode, by another process or in this one */
START_TEST(each_thing_that_others_do_is_told_once)
{
	const size_t what = (size_t)_i % ARRAY_SIZE(others);
	const enum mmapio_event_kind kind = others[what].kind;
	char path[PATH_MAX];

	for (int mode = 0; mode < 3; mode++) {
		const int fd = test_file(path, 20000);
		struct mmapio_file *file = test_open(path, modes[mode]);
		struct mmapio_watch *watch = watch_new(file);
		struct mmapio_slice slice;

		ck_assert_int_eq(mmapio_slice_get(file, 0, 5000, &slice), 0);
		expect_nothing(watch);
		if ((size_t)_i < ARRAY_SIZE(others))
			ck_assert(others[what].act(path));
		else
			act_elsewhere(others[what].act, path);
		expect(watch, kind, false, 0, kind == MMAPIO_EVENT_MODIFIED ? UINT64_MAX : 0);
		expect_nothing(watch);
		ck_assert(test_is_pattern((const uint8_t *)slice.data + 101, 101, 4899));

		/* and it goes on, also without a name */
		test_pwrite(fd, "y", 1, 0);
		expect_others(watch);
		ck_assert_int_eq(fchmod(fd, 0604), 0);
		expect_metadata(watch);
		expect_nothing(watch);
		mmapio_slice_put(&slice);
		mmapio_watch_free(watch);
		mmapio_file_unref(file);
		close(fd);
	}
}
END_TEST

START_TEST(the_last_name_is_the_one_that_counts)
{
	char path[PATH_MAX], second[PATH_MAX], third[PATH_MAX];
	const int fd = test_file(path, 20000);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_watch *watch = watch_new(file);
	int reopened;

	ck_assert_int_eq(link(path, test_path(second, "second")), 0);
	ck_assert_int_eq(link(path, test_path(third, "third")), 0);
	expect_metadata(watch);
	ck_assert_int_eq(unlink(_i ? path : third), 0);
	expect_metadata(watch);
	ck_assert_int_eq(rename(second, _i ? third : path), 0); /* the same file: nothing */
	expect_nothing(watch);
	ck_assert_int_eq(unlink(second), 0);
	expect_metadata(watch);
	expect_nothing(watch);
	reopened = open(_i ? third : path, O_RDWR | O_CLOEXEC);
	close(reopened);
	ck_assert_int_eq(unlink(_i ? third : path), 0);
	if (_i)
		/* not the name by which it was opened: inotify(7) ends, and is begun anew */
		expect_overflow(watch);
	expect_removed(watch);
	expect_nothing(watch);
	test_pwrite(fd, "x", 1, 0);
	expect_others(watch);
	expect_nothing(watch);
	mmapio_watch_free(watch);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(file_without_a_name_can_be_watched)
{
	const struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct mmapio_file *file;
	struct mmapio_watch *watch;
	char name[PATH_MAX], link[64];
	int fd;

	ck_assert_int_eq(mmapio_open_anonymous(&file, 10000, &options), 0);
	watch = watch_new(file);
	expect_nothing(watch);
	/* Of others Linux does not tell any more. */
	test_write(file, 7, "abc", 3);
	expect_own(watch, 7, 3);
	expect_nothing(watch);
	mmapio_watch_free(watch);
	mmapio_file_unref(file);

	/* One that gets a name, and loses it */
	fd = open(test_folder_path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0) {
		printf("O_TMPFILE cannot be had in %s\n", test_folder_path);
		return;
	}
	ck_assert_int_eq(mmapio_open_fd(&file, fd, &options), 0);
	watch = watch_new(file);
	ck_assert_int_eq(fchmod(fd, 0640), 0);
	expect_metadata(watch);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ck_assert_int_eq(
		linkat(AT_FDCWD, link, AT_FDCWD, test_path(name, "named"), AT_SYMLINK_FOLLOW), 0);
	expect_metadata(watch);
	ck_assert_int_eq(unlink(name), 0);
	expect_overflow(watch); /* as above */
	expect_removed(watch);
	expect_nothing(watch);
	mmapio_watch_free(watch);
	mmapio_file_unref(file);
}
END_TEST

/* --- Our own ---------------------------------------------------------------------------------- */

static int change_chunk(void *context, uint64_t offset, void *data, size_t length)
{
	(void)context;
	(void)offset;
	memset(data, 'c', length);
	return 0;
}

static void commit(struct mmapio_file *file, uint64_t offset, size_t length)
{
	struct mmapio_slice_mut slice;

	ck_assert_int_eq(mmapio_slice_get_mut(file, offset, length, &slice), 0);
	memset(slice.data, 's', length);
	ck_assert_int_eq(mmapio_commit(&slice, 0, length), 0);
	mmapio_slice_put_mut(&slice);
}

/* _i: the policy; from 4 on with the guard, so that writes may be stores */
START_TEST(own_changes_are_told_exactly_and_not_as_others)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct mmapio_flusher *flusher;
	struct mmapio_atomic_u64 words;
	struct mmapio_watch *watch;
	struct mmapio_file *file;
	char path[PATH_MAX];
	const int fd = test_file(path, 16 * page);
	struct stat st;

	ck_assert_int_eq(mmapio_flusher_new(&flusher), 0);
	options.flusher = flusher;
	options.policy.always = _i % 4 == 1;
	options.policy.delay_ns = _i % 4 == 2 ? MILLISECOND : 0;
	options.policy.writes = _i % 4 == 3 ? 2 : 0;
	options.write_method = _i >= 4 ? MMAPIO_WRITE_STORE : MMAPIO_WRITE_AUTO;
	if (_i >= 4)
		ck_assert_int_eq(mmapio_guard_install(), 0);
	file = test_open_with(path, &options);
	watch = watch_new(file);

	test_write_pattern(file, 100, 300);
	expect_own(watch, 100, 300);
	expect_nothing(watch);
	commit(file, 5000, 1234);
	expect_own(watch, 5000, 1234);
	expect_nothing(watch);
	/* joined, also where they overlap; others are told by themselves, from the first on */
	test_write_pattern(file, 9000, 10);
	test_write_pattern(file, 1010, 10);
	test_write_pattern(file, 1000, 10);
	commit(file, 1015, 20);
	expect_own(watch, 1000, 35);
	expect_own(watch, 9000, 10);
	expect_nothing(watch);
	ck_assert_int_eq(mmapio_chunks_change(file, page + 1, 2 * page, 1000, change_chunk, NULL),
			 0);
	expect_own(watch, page + 1, 2 * page);
	ck_assert_int_eq(mmapio_atomic_u64_get(file, 64, 4, &words), 0);
	ck_assert_int_eq(mmapio_atomic_u64_store(&words, 2, 5), 0);
	expect_nothing(watch);
	ck_assert_int_eq(mmapio_atomic_u64_put(&words), 0);
	expect_own(watch, 64, 32);
	ck_assert_int_eq(mmapio_copy(file, 0, file, 5 * page, 77), 77);
	expect_own(watch, 5 * page, 77);
	expect_nothing(watch);

	/* sizes */
	ck_assert_int_eq(mmapio_file_resize(file, 15 * page, MMAPIO_FOREVER), 0);
	expect_own(watch, 15 * page, page);
	ck_assert_int_eq(mmapio_file_resize(file, 20 * page + 3, MMAPIO_FOREVER), 0);
	expect_own(watch, 15 * page, 5 * page + 3);
	ck_assert_int_eq(mmapio_file_resize(file, 20 * page + 3, MMAPIO_FOREVER), 0);
	expect_nothing(watch);
	test_write_pattern(file, 20 * page, 10); /* beyond the end */
	expect_own(watch, 20 * page, 10);
	ck_assert_int_eq(mmapio_file_allocate(file, 0, 20 * page, page), 0);
	expect_own(watch, 20 * page + 10, page - 10);
	ck_assert_int_eq(mmapio_file_allocate(file, 0, 0, 20 * page), 0);
	expect_nothing(watch);
	ck_assert_int_eq(mmapio_file_allocate(file, FALLOC_FL_KEEP_SIZE, 0, 30 * page), 0);
	expect_nothing(watch);
	ck_assert_int_eq(mmapio_file_allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					      19 * page, 9 * page),
			 0);
	expect_own(watch, 19 * page, 2 * page);
	expect_nothing(watch);

	/* times, by ourselves */
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(mmapio_file_set_times(file, (struct timespec[2]){{1, 2}, {3, 4}}), 0);
	expect_nothing(watch);
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_int_eq(mmapio_sync(file, true), 0);
	expect_nothing(watch);
	ck_assert_int_eq(mmapio_file_check(file, NULL), 0);
	mmapio_watch_free(watch);
	mmapio_file_unref(file);
	mmapio_flusher_free(flusher);
	close(fd);
}
END_TEST

/* What calls that fail do is nothing, and what others did to the file before is told all the same.
 */
START_TEST(failed_calls_are_not_told)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 20000);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_watch *watch = watch_new(file);
	struct mmapio_slice slice;

	ck_assert_int_eq(mmapio_slice_get(file, 0, 20000, &slice), 0);
	test_pwrite(fd, "x", 1, 5);
	ck_assert_int_eq(mmapio_file_resize(file, 10000, 0), -EBUSY);
	expect_others(watch);
	expect_nothing(watch);
	ck_assert_int_eq(mmapio_file_resize(file, INT64_MAX, 0), -EFBIG);
	ck_assert_int_eq(mmapio_write(file, 0, "", 0), 0);
	ck_assert_int_eq(mmapio_copy(file, 30000, file, 0, 10), 0);
	expect_nothing(watch);
	mmapio_slice_put(&slice);
	mmapio_watch_free(watch);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* The flusher's thread moves the times that stores left behind, and the kernel tells of that. */
START_TEST(times_that_are_moved_later_are_not_told)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	const uint64_t end = test_now() + 60 * SECOND;
	struct mmapio_flusher *flusher;
	struct mmapio_watch *watch;
	struct mmapio_file *file;
	struct stat before, after;
	char path[PATH_MAX];
	const int fd = test_file(path, 20000);

	ck_assert_int_eq(mmapio_flusher_new(&flusher), 0);
	options.flusher = flusher;
	file = test_open_with(path, &options);
	watch = watch_new(file);
	commit(file, 0, 10);
	ck_assert_int_eq(mmapio_file_refresh(file, &before), 0); /* moves them, if need be */
	expect_own(watch, 0, 10);
	expect_nothing(watch);
	commit(file, 0, 10); /* to a page that is dirty already */
	expect_own(watch, 0, 10);
	do {
		expect_nothing(watch);
		ck_assert(test_now() < end);
		test_sleep(MILLISECOND);
		ck_assert_int_eq(fstat(fd, &after), 0);
	} while (after.st_mtim.tv_sec == before.st_mtim.tv_sec &&
		 after.st_mtim.tv_nsec == before.st_mtim.tv_nsec);
	expect_nothing(watch);
	ck_assert_int_eq(mmapio_file_check(file, NULL), 0);
	mmapio_watch_free(watch);
	mmapio_file_unref(file);
	mmapio_flusher_free(flusher);
	close(fd);
}
END_TEST

START_TEST(what_others_did_before_is_not_taken_for_ours)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 20000);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_watch *watch = watch_new(file);
	struct mmapio_slice_mut slice;

	test_pwrite(fd, "x", 1, 0);
	test_write(file, 10, "abc", 3);
	expect_own(watch, 10, 3);
	expect_others(watch);
	expect_nothing(watch);

	test_pwrite(fd, "x", 1, 0);
	ck_assert_int_eq(fchmod(fd, 0640), 0);
	commit(file, 50, 60);
	ck_assert_int_eq(mmapio_file_set_times(file, (struct timespec[2]){{1, 2}, {3, 4}}), 0);
	expect_own(watch, 50, 60);
	expect_others(watch);
	expect_metadata(watch);
	expect_nothing(watch);

	/* bytes that are stored, and not committed yet, are nobody else's */
	ck_assert_int_eq(mmapio_slice_get_mut(file, 8192, 100, &slice), 0);
	memset(slice.data, 'x', 100);
	test_write(file, 0, "y", 1);
	expect_own(watch, 0, 1);
	expect_nothing(watch);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mmapio_commit(&slice, 0, 100), 0);
	expect_own(watch, 8192, 100);
	expect_removed(watch);
	expect_nothing(watch);
	mmapio_slice_put_mut(&slice);
	mmapio_watch_free(watch);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(changes_of_a_copy_are_not_of_the_file)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 20000);
	struct mmapio_file *view = test_open(path, MMAPIO_COPY_ON_WRITE);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_watch *of_view = watch_new(view), *of_file = watch_new(file);

	test_write(view, 100, "abc", 3);
	commit(view, 200, 10);
	expect_nothing(of_view);
	test_pwrite(fd, "x", 1, 0);
	test_write(view, 104, "abc", 3);
	expect_others(of_view);
	expect_others(of_file);
	ck_assert_int_eq(mmapio_changes_commit(view, file), 0);
	expect_own(of_file, 100, 3);
	expect_own(of_file, 104, 3);
	expect_own(of_file, 200, 10);
	expect_nothing(of_file);
	expect_others(of_view);
	expect_nothing(of_view);
	mmapio_watch_free(of_view);
	mmapio_watch_free(of_file);
	mmapio_file_unref(view);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* --- Too much --------------------------------------------------------------------------------- */

START_TEST(own_changes_beyond_the_limit_overflow_once)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 20000);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_watch *watch = watch_new(file);

	for (uint64_t i = 0; i < 256; i++)
		test_write(file, 10 * i, "abc", 3);
	test_write(file, 3, "abc", 3);	    /* touches one */
	test_write(file, 13, "abcdefg", 7); /* two become one */
	test_write(file, 10000, "abc", 3);
	for (uint64_t i = 0; i < 10; i++)
		test_write(file, 11000 + 10 * i, "abc", 3);
	expect_overflow(watch);
	expect_own(watch, 0, 6);
	expect_own(watch, 10, 13);
	for (uint64_t i = 3; i < 256; i++)
		expect_own(watch, 10 * i, 3);
	expect_own(watch, 10000, 3);
	expect_nothing(watch);
	test_write(file, 11000, "abc", 3);
	expect_own(watch, 11000, 3);
	expect_nothing(watch);
	mmapio_watch_free(watch);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(queue_of_the_kernel_that_is_full_is_told)
{
	FILE *limit = fopen("/proc/sys/fs/inotify/max_queued_events", "re");
	char path[PATH_MAX];
	const int fd = test_file(path, 20000);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_watch *watch = watch_new(file);
	unsigned int most;

	ck_assert_ptr_nonnull(limit);
	ck_assert_int_eq(fscanf(limit, "%u", &most), 1);
	fclose(limit);
	if (most <= 1000000) {
		/* Two that are alike become one in its queue. */
		for (unsigned int i = 0; i <= most / 2; i++) {
			test_pwrite(fd, "x", 1, 0);
			ck_assert_int_eq(fchmod(fd, i % 2 ? 0600 : 0640), 0);
		}
		ck_assert_int_eq(unlink(path), 0); /* which the kernel does not tell any more */
		expect_overflow(watch);
		expect_others(watch);
		expect_removed(watch);
		expect_nothing(watch);
		test_pwrite(fd, "x", 1, 0);
		expect_others(watch);
		expect_nothing(watch);
	} else {
		printf("the queue of inotify(7) is too long to be filled\n");
	}
	mmapio_watch_free(watch);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* --- Side by side ----------------------------------------------------------------------------- */

START_TEST(nobody_takes_from_another)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 20000);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_watch *one = watch_new(file), *two = watch_new(file);

	test_pwrite(fd, "abc", 3, 0);
	ck_assert_int_eq(ftruncate(fd, 30000), 0);
	expect_others(one);
	expect_nothing(one);
	ck_assert_int_eq(mmapio_file_check(file, NULL), 1);
	ck_assert_int_eq(mmapio_file_check(file, NULL), 0);
	expect_others(two);
	expect_nothing(two);

	ck_assert_int_eq(ftruncate(fd, 31000), 0);
	ck_assert_int_eq(mmapio_file_check(file, NULL), 1);
	expect_others(two);
	expect_others(one);
	ck_assert_int_eq(mmapio_file_check(file, NULL), 0);

	test_write(file, 5, "abc", 3);
	ck_assert_int_eq(fchmod(fd, 0640), 0);
	expect_own(one, 5, 3);
	expect_metadata(one);
	mmapio_watch_free(one);
	expect_own(two, 5, 3);
	expect_metadata(two);
	expect_nothing(two);
	ck_assert_int_eq(mmapio_file_check(file, NULL), 0);
	test_write(file, 5, "abc", 3);
	expect_own(two, 5, 3);
	/* one that comes later is not told of what was before */
	test_write(file, 5, "abc", 3);
	test_pwrite(fd, "abc", 3, 0);
	one = watch_new(file);
	expect_nothing(one);
	expect_own(two, 5, 3);
	expect_others(two);
	mmapio_watch_free(one);
	mmapio_watch_free(two);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

static int descriptors(void)
{
	int n = 0;

	for (int fd = 0; fd < 200; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

START_TEST(nothing_is_left_of_a_watch)
{
	char path[PATH_MAX];
	const int before = descriptors();
	int fd = test_file(path, 20000), other;
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_watch *watch = watch_new(file);

	test_write(file, 0, "abc", 3);
	test_pwrite(fd, "abc", 3, 0);
	ck_assert(watch_readable(watch, 0));
	ck_assert_int_eq(mmapio_file_detach(file, &other), -EBUSY);
	mmapio_watch_free(watch);
	mmapio_watch_free(NULL);
	test_write(file, 0, "abc", 3);
	test_pwrite(fd, "abc", 3, 0);
	ck_assert_int_eq(mmapio_file_detach(file, &other), 0);
	close(other);

	/* the watch's reference is the last one */
	file = test_open(path, MMAPIO_READ_WRITE);
	watch = watch_new(file);
	mmapio_file_unref(file);
	test_pwrite(fd, "abc", 3, 0);
	expect_others(watch);
	mmapio_watch_free(watch);
	close(fd);
	ck_assert_int_eq(descriptors(), before);
}
END_TEST

/* --- Errors ----------------------------------------------------------------------------------- */

static void expect_refused(struct mmapio_file *file, int code)
{
	struct mmapio_error error = MMAPIO_ERROR_INIT;
	struct mmapio_watch *watch = (struct mmapio_watch *)&error;

	ck_assert_int_eq(mmapio_watch_new(&watch, file), code);
	ck_assert_ptr_eq(watch, &error);
	ck_assert_int_eq(mmapio_error_last(&error), code);
	ck_assert_int_eq(error.kind, MMAPIO_ERROR_WATCH);
}

START_TEST(descriptors_are_used_up)
{
	char path[PATH_MAX];
	int fd = test_file(path, 20000), last, top = 0;
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct rlimit limit;
	int used;

	/* None is free below the limit but those that it leaves. */
	for (int i = 0; i < 200; i++)
		top = fcntl(i, F_GETFD) >= 0 ? i : top;
	do {
		last = dup(fd);
		ck_assert_int_ge(last, 0);
	} while (last < top);
	used = descriptors();
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	for (int left = 0; left < 3; left++) {
		limit.rlim_cur = (rlim_t)(last + 1 + left);
		ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
		expect_refused(file, -EMFILE);
		ck_assert_int_eq(descriptors(), used);
	}
	limit.rlim_cur++;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	mmapio_watch_free(watch_new(file));
	ck_assert_int_eq(descriptors(), used);
	test_write(file, 0, "abc", 3);
	mmapio_file_unref(file);
}
END_TEST

START_TEST(file_that_cannot_be_watched)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 20000);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	const int used = descriptors();
	struct mmapio_watch *watch;
	pid_t child;
	int status;

	ck_assert_int_eq(fchmod(fd, 0), 0);
	if (geteuid() == 0) {
		ck_assert_int_eq(seteuid(65534), 0);
		expect_refused(file, -EACCES);
		ck_assert_int_eq(seteuid(0), 0);
	} else {
		expect_refused(file, -EACCES);
	}
	child = fork();
	if (child == 0) {
		if (unshare(CLONE_NEWNS) || mount("", "/", "", MS_REC | MS_PRIVATE, NULL) ||
		    umount2("/proc", MNT_DETACH))
			_exit(TEST_SKIP);
		_exit(mmapio_watch_new(&watch, file) != -ENOENT);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	if (WIFEXITED(status) && WEXITSTATUS(status) == TEST_SKIP)
		printf("/proc cannot be taken away here\n");
	else
		ck_assert_int_eq(status, 0);
	ck_assert_int_eq(descriptors(), used);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(arguments_are_checked)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 20000);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_watch *watch;
	struct mmapio_event event = MMAPIO_EVENT_INIT;
	struct {
		struct mmapio_event event;
		char more[8];
	} larger = {.event = MMAPIO_EVENT_INIT, .more = "abcdefg"};

	ck_assert_int_eq(mmapio_watch_new(NULL, file), -EINVAL);
	ck_assert_int_eq(mmapio_watch_new(&watch, NULL), -EINVAL);
	ck_assert_int_eq(mmapio_watch_descriptor(NULL), -EINVAL);
	watch = watch_new(file);
	test_write(file, 3, "abc", 3);
	ck_assert_int_eq(mmapio_watch_next(watch, NULL), -EINVAL);
	ck_assert_int_eq(mmapio_watch_next(NULL, &event), -EINVAL);
	event.size = sizeof(event) - 1;
	ck_assert_int_eq(mmapio_watch_next(watch, &event), -EINVAL);
	/* as a later version knows it */
	larger.event.size = sizeof(larger);
	ck_assert_int_eq(mmapio_watch_next(watch, &larger.event), 1);
	ck_assert_uint_eq(larger.event.size, sizeof(larger));
	ck_assert_uint_eq(larger.event.offset, 3);
	ck_assert(test_is_zero(larger.more, sizeof(larger.more)));
	expect_nothing(watch);
	mmapio_watch_free(watch);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* --- Anything, in any order ------------------------------------------------------------------- */

#define MODEL_SIZE 20000

struct model {
	bool own[MODEL_SIZE];
	bool modified;
	bool metadata;
};

/* What is told is what the model has, and nothing else; it has nothing afterwards. */
static void model_compare(struct model *model, struct mmapio_watch *watch)
{
	struct mmapio_event event = MMAPIO_EVENT_INIT;
	int found;

	while ((found = mmapio_watch_next(watch, &event)) == 1) {
		if (event.kind == MMAPIO_EVENT_METADATA) {
			ck_assert(model->metadata);
			model->metadata = false;
			continue;
		}
		ck_assert_int_eq(event.kind, MMAPIO_EVENT_MODIFIED);
		if (!event.own) {
			ck_assert(model->modified);
			model->modified = false;
			continue;
		}
		ck_assert_uint_le(event.offset + event.length, MODEL_SIZE);
		for (uint64_t i = event.offset; i < event.offset + event.length; i++) {
			ck_assert(model->own[i]);
			model->own[i] = false;
		}
	}
	ck_assert_int_eq(found, 0);
	ck_assert(!watch_readable(watch, 0));
	ck_assert(!model->modified && !model->metadata);
	ck_assert(test_is_zero(model->own, sizeof(model->own)));
}

START_TEST(anything_in_any_order)
{
	static struct model model, late;
	uint64_t state = 4711 + (uint64_t)_i;
	char path[PATH_MAX];
	const int fd = test_file(path, MODEL_SIZE / 2);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_watch *watch = watch_new(file), *seldom = watch_new(file);

	if (_i % 2)
		ck_assert_int_eq(mmapio_guard_install(), 0);
	for (int i = 0; i < 1000; i++) {
		const uint64_t size = test_size(fd), to = test_below(&state, MODEL_SIZE);
		const uint64_t offset = test_below(&state, size + 1);
		size_t length = test_below(&state, 200);
		struct stat st;
		uint64_t start = 0, end = 0;

		if (length > MODEL_SIZE - offset)
			length = MODEL_SIZE - offset;
		ck_assert_int_eq(mmapio_file_refresh(file, i % 3 ? NULL : &st), 0);
		switch (test_below(&state, 8)) {
		case 0:
		case 1:
			test_write_pattern(file, offset, length);
			start = offset;
			end = offset + length;
			break;
		case 2:
			length = length > size - offset ? (size_t)(size - offset) : length;
			commit(file, offset, length);
			start = offset;
			end = offset + length;
			break;
		case 3:
			ck_assert_int_eq(mmapio_file_resize(file, to, MMAPIO_FOREVER), 0);
			start = to < size ? to : size;
			end = to < size ? size : to;
			break;
		case 4:
			ck_assert_int_eq(
				mmapio_chunks_change(file, offset, length, 64, change_chunk, NULL),
				0);
			start = offset;
			end = offset + length < size ? offset + length : size;
			break;
		case 5:
			test_pwrite(fd, "x", 1, offset < MODEL_SIZE ? offset : 0);
			model.modified = late.modified = true;
			break;
		case 6:
			ck_assert_int_eq(ftruncate(fd, (off_t)to), 0);
			model.modified = late.modified = true;
			break;
		default:
			ck_assert_int_eq(fchmod(fd, i % 2 ? 0600 : 0640), 0);
			model.metadata = late.metadata = true;
		}
		for (uint64_t at = start; at < end; at++)
			model.own[at] = late.own[at] = true;
		if (test_below(&state, 5) == 0)
			model_compare(&model, watch);
		if (i % 100 == 99)
			model_compare(&late, seldom);
	}
	mmapio_watch_free(watch);
	mmapio_watch_free(seldom);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* --- Threads ---------------------------------------------------------------------------------- */

START_TEST(poll_is_woken)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 20000);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_watch *watch = watch_new(file);
	pid_t child;
	int status;

	ck_assert(!watch_readable(watch, 0));
	child = fork();
	if (child == 0) {
		test_sleep(50 * MILLISECOND); /* mostly it comes while we wait */
		_exit(!others_write(path));
	}
	ck_assert(watch_readable(watch, 60000));
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	expect_others(watch);
	expect_nothing(watch);
	mmapio_watch_free(watch);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

#define WRITERS	    2
#define WRITER_AREA 100000

struct writer {
	struct mmapio_file *file;
	uint64_t offset;
	atomic_int *running;
};

static void *writer_thread(void *context)
{
	const struct writer *writer = context;

	for (uint64_t i = 0; i < WRITER_AREA / 100; i++) {
		const uint64_t offset = writer->offset + i * 100;
		struct mmapio_slice_mut slice;

		if (i % 2) {
			THREAD_ASSERT(mmapio_write(writer->file, offset, "abc", 3) == 3);
			continue;
		}
		THREAD_ASSERT(!mmapio_slice_get_mut(writer->file, offset, 3, &slice));
		memcpy(slice.data, "abc", 3);
		THREAD_ASSERT(!mmapio_commit(&slice, 0, 3));
		mmapio_slice_put_mut(&slice);
	}
	atomic_fetch_sub(writer->running, 1);
	return NULL;
}

/* Watches that come and go while others change the file. */
static void *passer_thread(void *context)
{
	const struct writer *writer = context;
	struct mmapio_event event = MMAPIO_EVENT_INIT;
	struct mmapio_watch *watch;

	while (atomic_load(writer->running)) {
		THREAD_ASSERT(!mmapio_watch_new(&watch, writer->file));
		for (int i = 0; i < 5; i++) {
			int found = mmapio_watch_next(watch, &event);

			/* Ours; or too many of ours, if we were not often enough on a processor. */
			THREAD_ASSERT(
				found == 0 ||
				(found == 1 && (event.own || event.kind == MMAPIO_EVENT_OVERFLOW)));
		}
		mmapio_watch_free(watch);
	}
	return NULL;
}

START_TEST(threads_write_while_one_is_told)
{
	static bool told[WRITERS * WRITER_AREA];
	char path[PATH_MAX];
	const int fd = test_file(path, WRITERS * WRITER_AREA);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_watch *watch = watch_new(file);
	struct mmapio_event event = MMAPIO_EVENT_INIT;
	atomic_int running = WRITERS;
	struct writer writers[WRITERS];
	pthread_t threads[WRITERS], passer;
	bool overflow = false, over;

	for (int i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){file, (uint64_t)i * WRITER_AREA, &running};
		ck_assert_int_eq(pthread_create(&threads[i], NULL, writer_thread, &writers[i]), 0);
	}
	ck_assert_int_eq(pthread_create(&passer, NULL, passer_thread, &writers[0]), 0);
	do {
		over = !atomic_load(&running);
		if (!over && !watch_readable(watch, 10))
			continue;
		while (mmapio_watch_next(watch, &event) == 1) {
			if (event.kind == MMAPIO_EVENT_OVERFLOW) {
				overflow = true; /* we were not often enough on a processor */
				continue;
			}
			ck_assert_int_eq(event.kind, MMAPIO_EVENT_MODIFIED);
			ck_assert(event.own);
			ck_assert_uint_le(event.offset + event.length, sizeof(told));
			memset(told + event.offset, true, event.length);
		}
	} while (!over);
	for (int i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	pthread_join(passer, NULL);
	expect_nothing(watch);
	for (size_t i = 0; i < sizeof(told); i++)
		ck_assert(told[i] == (i % 100 < 3) || (overflow && !told[i]));
	mmapio_watch_free(watch);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("watch");
	TCase *watch = test_case(suite, "watch");

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	test_make_folder();

	tcase_add_loop_test(watch, each_thing_that_others_do_is_told_once, 0,
			    2 * (int)ARRAY_SIZE(others));
	tcase_add_loop_test(watch, the_last_name_is_the_one_that_counts, 0, 2);
	tcase_add_test(watch, file_without_a_name_can_be_watched);
	tcase_add_loop_test(watch, own_changes_are_told_exactly_and_not_as_others, 0, 8);
	tcase_add_test(watch, failed_calls_are_not_told);
	tcase_add_test(watch, times_that_are_moved_later_are_not_told);
	tcase_add_test(watch, what_others_did_before_is_not_taken_for_ours);
	tcase_add_test(watch, changes_of_a_copy_are_not_of_the_file);
	tcase_add_test(watch, own_changes_beyond_the_limit_overflow_once);
	tcase_add_test(watch, queue_of_the_kernel_that_is_full_is_told);
	tcase_add_test(watch, nobody_takes_from_another);
	tcase_add_test(watch, nothing_is_left_of_a_watch);
	tcase_add_test(watch, descriptors_are_used_up);
	tcase_add_test(watch, file_that_cannot_be_watched);
	tcase_add_test(watch, arguments_are_checked);
	tcase_add_loop_test(watch, anything_in_any_order, 0, 6);
	tcase_add_test(watch, poll_is_woken);
	tcase_add_test(watch, threads_write_while_one_is_told);
	return test_run(suite);
}
