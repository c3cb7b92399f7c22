/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_file.c - tests of files: opening, ownership, modes, size, times, allocation and copying
 *
 * Slices have tests of their own in lib_slice.c, reads and writes in lib_write.c.
 */
#include "lib_test.h"

#include <dirent.h>
#include <linux/falloc.h>
#include <sys/socket.h>

static const enum mmapio_mode modes[] = {MMAPIO_READ_ONLY, MMAPIO_READ_WRITE, MMAPIO_COPY_ON_WRITE};

static uint64_t page;

/* --- Helpers ---------------------------------------------------------------------------------- */

static unsigned int open_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned int n = 0;

	ck_assert_ptr_nonnull(folder);
	while (readdir(folder))
		n++;
	closedir(folder);
	return n;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) != -1;
}

/* Opening the path must fail so, and leave nothing behind. */
static void assert_open_fails(const char *path, const struct mmapio_options *options, int error)
{
	const unsigned int before = open_descriptors();
	struct mmapio_file *file;

	ck_assert_int_eq(mmapio_open(&file, path, options), error);
	ck_assert_uint_eq(open_descriptors(), before);
}

/* Opening the descriptor must fail so, and leave it open. */
static void assert_open_fd_fails(int fd, const struct mmapio_options *options, int error)
{
	struct mmapio_file *file;

	ck_assert_int_eq(mmapio_open_fd(&file, fd, options), error);
	ck_assert(is_open(fd));
}

/* --- Opening ---------------------------------------------------------------------------------- */

START_TEST(open_by_path_in_every_mode)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 10000);
	struct mmapio_file *file = test_open(path, modes[_i]);

	ck_assert_int_eq(mmapio_file_mode(file), modes[_i]);
	ck_assert_uint_eq(mmapio_file_size(file), 10000);
	ck_assert(is_open(mmapio_file_descriptor(file)));
	ck_assert(test_reads_pattern(file, 0, 10000));
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(open_by_descriptor_in_every_mode)
{
	const struct mmapio_options options = MMAPIO_OPTIONS_INIT(modes[_i]);
	char path[PATH_MAX];
	const int fd = test_file(path, 10000);
	struct mmapio_file *file;

	ck_assert_int_eq(lseek(fd, 77, SEEK_SET), 77); /* must not matter */
	ck_assert_int_eq(mmapio_open_fd(&file, fd, &options), 0);
	ck_assert_int_eq(mmapio_file_mode(file), modes[_i]);
	ck_assert_uint_eq(mmapio_file_size(file), 10000);
	ck_assert(test_reads_pattern(file, 0, 10000));
	mmapio_file_unref(file);
	ck_assert(!is_open(fd));
}
END_TEST

START_TEST(open_takes_no_more_than_the_mode_needs)
{
	const struct mmapio_options options = MMAPIO_OPTIONS_INIT(modes[_i]);
	char path[PATH_MAX];
	int fd = test_file(path, 100);
	struct mmapio_file *file;

	close(fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (modes[_i] == MMAPIO_READ_WRITE) {
		assert_open_fd_fails(fd, &options, -EBADF);
		close(fd);
		return;
	}
	ck_assert_int_eq(mmapio_open_fd(&file, fd, &options), 0);
	ck_assert(test_reads_pattern(file, 0, 100));
	mmapio_file_unref(file);
}
END_TEST

START_TEST(open_needs_a_readable_descriptor)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(modes[_i]);
	char path[PATH_MAX];
	struct mmapio_file *file;
	int fd = test_file(path, 100);

	close(fd);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_open_fd_fails(fd, &options, -EBADF);
	options.flags = MMAPIO_LAZY;
	if (modes[_i] == MMAPIO_READ_WRITE) {
		ck_assert_int_eq(mmapio_open_fd(&file, fd, &options), 0);
		mmapio_file_unref(file);
	} else {
		assert_open_fd_fails(fd, &options, -EBADF);
		close(fd);
	}
}
END_TEST

START_TEST(open_refuses_what_is_no_open_descriptor)
{
	const struct mmapio_options options = MMAPIO_OPTIONS_INIT(modes[_i]);
	struct mmapio_file *file;
	char path[PATH_MAX];
	const int closed = test_file(path, 100);
	const int no_access = open(path, O_PATH | O_CLOEXEC);

	close(closed);
	ck_assert_int_eq(mmapio_open_fd(&file, -1, &options), -EBADF);
	ck_assert_int_eq(mmapio_open_fd(&file, closed, &options), -EBADF);
	assert_open_fd_fails(no_access, &options, -EBADF);
	close(no_access);
}
END_TEST

/* Fails if a mapping of length 0 is asked for, which mmap(2) refuses. */
START_TEST(empty_file_is_ordinary)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 0);
	struct mmapio_file *file = test_open(path, modes[_i]);
	struct mmapio_slice slice;
	struct stat st;
	char byte;

	ck_assert_uint_eq(mmapio_file_size(file), 0);
	ck_assert_int_eq(mmapio_read(file, 0, &byte, 1), 0);
	ck_assert_int_eq(mmapio_slice_get(file, 0, 0, &slice), 0);
	ck_assert_ptr_nonnull(slice.data);
	ck_assert_uint_eq(slice.length, 0);
	mmapio_slice_put(&slice);
	ck_assert_int_eq(mmapio_slice_get(file, 0, 1, &slice), -ERANGE);
	ck_assert_int_eq(mmapio_slice_get_some(file, 0, 1, &slice), 0);
	ck_assert_ptr_nonnull(slice.data);
	ck_assert_uint_eq(slice.length, 0);
	mmapio_slice_put(&slice);
	ck_assert_int_eq(mmapio_touch(file, 0, 1), 0);
	ck_assert_int_eq(mmapio_file_refresh(file, &st), 0);
	ck_assert_int_eq(st.st_size, 0);
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_int_eq(mmapio_flush_range(file, 0, 0), 0);
	ck_assert_int_eq(mmapio_flush_range(file, 0, 1), -ERANGE);
	if (modes[_i] == MMAPIO_READ_WRITE) {
		test_write_pattern(file, 0, 5000);
		ck_assert_uint_eq(mmapio_file_size(file), 5000);
		ck_assert(test_reads_pattern(file, 0, 5000));
		ck_assert_int_eq(mmapio_file_resize(file, 0, 0), 0);
		ck_assert_uint_eq(test_size(fd), 0);
	} else {
		ck_assert_int_lt(mmapio_write(file, 0, "x", 1), 0);
		ck_assert_uint_eq(test_size(fd), 0);
	}
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(open_refuses_a_folder)
{
	const struct mmapio_options options = MMAPIO_OPTIONS_INIT(modes[_i]);
	const int fd = open(test_folder_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_open_fails(test_folder_path, &options, -EISDIR);
	if (modes[_i] != MMAPIO_READ_WRITE)
		assert_open_fd_fails(fd, &options, -EISDIR);
	close(fd);
}
END_TEST

/* Fails by running into the time limit if open(2) waits for the other end. */
START_TEST(open_refuses_a_fifo_without_waiting)
{
	const struct mmapio_options options = MMAPIO_OPTIONS_INIT(modes[_i]);
	char path[PATH_MAX];
	int fd;

	ck_assert_int_eq(mkfifo(test_path(path, "fifo"), 0600), 0);
	assert_open_fails(path, &options, -EINVAL);
	fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	assert_open_fd_fails(fd, &options, -EINVAL);
	close(fd);
}
END_TEST

START_TEST(open_refuses_devices_and_sockets)
{
	const struct mmapio_options options = MMAPIO_OPTIONS_INIT(modes[_i]);
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_open_fails("/dev/null", &options, -EINVAL);
	assert_open_fails("/dev/zero", &options, -EINVAL);
	assert_open_fd_fails(fd, &options, -EINVAL);
	close(fd);
}
END_TEST

START_TEST(open_returns_what_open_returns)
{
	const struct mmapio_options options = MMAPIO_OPTIONS_INIT(modes[_i]);
	char path[PATH_MAX];
	char below[PATH_MAX + 8];
	char loop[PATH_MAX];

	assert_open_fails(test_path(path, "missing"), &options, -ENOENT);
	assert_open_fails("", &options, -ENOENT);
	close(test_file(path, 1));
	snprintf(below, sizeof(below), "%s/below", path);
	assert_open_fails(below, &options, -ENOTDIR);
	ck_assert_int_eq(symlink("loop", test_path(loop, "loop")), 0);
	unlink(loop);
	ck_assert_int_eq(symlink(strrchr(loop, '/') + 1, loop), 0);
	assert_open_fails(loop, &options, -ELOOP);
}
END_TEST

START_TEST(open_needs_permission)
{
	const struct mmapio_options options = MMAPIO_OPTIONS_INIT(modes[_i]);
	const bool root = !geteuid();
	char path[PATH_MAX];

	close(test_file(path, 1));
	ck_assert_int_eq(chmod(path, 0), 0);
	if (root)
		ck_assert_int_eq(seteuid(65534), 0);
	assert_open_fails(path, &options, -EACCES);
	if (root)
		ck_assert_int_eq(seteuid(0), 0);
}
END_TEST

START_TEST(open_refuses_unknown_options)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(modes[_i]);
	char path[PATH_MAX];
	const int fd = test_file(path, 1);

	for (unsigned int bit = 3; bit < 32; bit++) {
		options.flags = 1u << bit;
		assert_open_fails(path, &options, -EINVAL);
		assert_open_fd_fails(fd, &options, -EINVAL);
	}
	options.flags = 0;
	options.mode = (enum mmapio_mode)3;
	assert_open_fails(path, &options, -EINVAL);
	assert_open_fd_fails(fd, &options, -EINVAL);
	options.mode = (enum mmapio_mode) - 1;
	assert_open_fails(path, &options, -EINVAL);
	close(fd);
}
END_TEST

START_TEST(delay_needs_a_flusher)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	const int fd = test_file(path, 1);

	options.policy.delay_ns = MILLISECOND;
	assert_open_fails(path, &options, -EINVAL);
	assert_open_fd_fails(fd, &options, -EINVAL);
	close(fd);
}
END_TEST

/* A regular file that mmap(2) refuses, as it does all of sysfs. */
static const char unmappable[] = "/sys/kernel/mm/transparent_hugepage/enabled";

START_TEST(open_tells_when_the_file_system_cannot_map)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_ONLY);
	struct mmapio_file *file;
	struct mmapio_slice slice;
	char expected[4096];
	char found[4096];
	ssize_t length;
	int fd;

	fd = open(unmappable, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	length = pread(fd, expected, sizeof(expected), 0);
	close(fd);
	ck_assert_int_gt(length, 0);
	assert_open_fails(unmappable, &options, -ENODEV);
	options.flags = MMAPIO_LAZY;
	file = test_open_with(unmappable, &options);
	ck_assert_int_eq(mmapio_read(file, 0, found, sizeof(found)), length);
	ck_assert_mem_eq(found, expected, (size_t)length);
	ck_assert_int_eq(mmapio_slice_get(file, 0, 1, &slice), -ENODEV);
	ck_assert_int_eq(mmapio_touch(file, 0, 1), -ENODEV);
	ck_assert_int_eq(mmapio_read(file, 0, found, sizeof(found)), length);
	mmapio_file_unref(file);
}
END_TEST

START_TEST(lazy_file_is_mapped_with_the_first_slice)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(modes[_i]);
	struct mmapio_file *file;
	char path[PATH_MAX];
	char buffer[100];

	close(test_file(path, 10000));
	options.flags = MMAPIO_LAZY;
	file = test_open_with(path, &options);
	ck_assert_uint_eq(test_mappings(path), 0);
	ck_assert_int_eq(mmapio_read(file, 1, buffer, 100), 100);
	ck_assert(test_is_pattern(buffer, 1, 100));
	ck_assert(test_reads_pattern(file, 0, 10000));
	ck_assert_uint_ge(test_mappings(path), 1);
	mmapio_file_unref(file);
	ck_assert_uint_eq(test_mappings(path), 0);
}
END_TEST

START_TEST(opening_and_closing_leaves_nothing_behind)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 10000);
	const unsigned int before = open_descriptors();

	for (int i = 0; i < 300; i++) {
		struct mmapio_file *file = test_open(path, modes[_i]);

		ck_assert(test_reads_pattern(file, 0, 100));
		mmapio_file_unref(file);
	}
	ck_assert_uint_eq(open_descriptors(), before);
	ck_assert_uint_eq(test_mappings(path), 0);
	close(fd);
}
END_TEST

START_TEST(references_are_counted)
{
	const struct mmapio_options options = MMAPIO_OPTIONS_INIT(modes[_i]);
	char path[PATH_MAX];
	const int fd = test_file(path, 100);
	struct mmapio_file *file;

	ck_assert_int_eq(mmapio_open_fd(&file, fd, &options), 0);
	ck_assert_ptr_eq(mmapio_file_ref(file), file);
	ck_assert_ptr_eq(mmapio_file_ref(file), file);
	mmapio_file_unref(file);
	mmapio_file_unref(file);
	ck_assert(is_open(mmapio_file_descriptor(file)));
	ck_assert(test_reads_pattern(file, 0, 100));
	mmapio_file_unref(file);
	ck_assert(!is_open(fd));
	ck_assert_uint_eq(test_mappings(path), 0);
	mmapio_file_unref(NULL);
}
END_TEST

static void count_call(void *context)
{
	(*(int *)context)++;
}

START_TEST(on_close_is_called_once)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(modes[_i]);
	char path[PATH_MAX];
	struct mmapio_file *file;
	struct mmapio_slice slice;
	int calls = 0;

	close(test_file(path, 100));
	options.on_close = count_call;
	options.context = &calls;
	file = mmapio_file_ref(test_open_with(path, &options));
	ck_assert_int_eq(mmapio_slice_get(file, 0, 100, &slice), 0);
	mmapio_file_unref(file);
	ck_assert_int_eq(calls, 0);
	mmapio_file_unref(file);
	ck_assert_int_eq(calls, 1); /* a slice does not put it off */
	mmapio_slice_put(&slice);
	ck_assert_int_eq(calls, 1);

	/* a file that was never opened is never closed */
	options.mode = (enum mmapio_mode)3;
	ck_assert_int_eq(mmapio_open(&file, path, &options), -EINVAL);
	ck_assert_int_eq(calls, 1);
}
END_TEST

/* pwrite(2) appends there, wherever it is told to write. */
START_TEST(append_mode_cannot_be_written)
{
	const struct mmapio_options options = MMAPIO_OPTIONS_INIT(modes[_i]);
	char path[PATH_MAX];
	const int plain = test_file(path, 10000);
	const int fd = open(path, O_RDWR | O_APPEND | O_CLOEXEC);
	struct mmapio_file *file;

	if (modes[_i] == MMAPIO_READ_WRITE) {
		assert_open_fd_fails(fd, &options, -EINVAL);
		file = test_open(path, MMAPIO_READ_ONLY);
		ck_assert_int_lt(mmapio_file_make_writable(file, fd), 0);
		ck_assert(is_open(fd));
		ck_assert_int_eq(mmapio_file_mode(file), MMAPIO_READ_ONLY);
		mmapio_file_unref(file);
		close(fd);
	} else {
		ck_assert_int_eq(mmapio_open_fd(&file, fd, &options), 0);
		ck_assert(test_reads_pattern(file, 0, 10000));
		mmapio_file_unref(file);
	}
	ck_assert_uint_eq(test_size(plain), 10000);
	close(plain);
}
END_TEST

/* --- Modes ------------------------------------------------------------------------------------ */

START_TEST(read_only_file_is_never_changed)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 100);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_ONLY);
	struct mmapio_file *source = test_open(path, MMAPIO_READ_ONLY);
	struct mmapio_slice_mut slice;

	ck_assert_int_eq(mmapio_write(file, 0, "x", 1), -EBADF);
	ck_assert_int_eq(mmapio_slice_get_mut(file, 0, 1, &slice), -EBADF);
	ck_assert_int_eq(mmapio_file_resize(file, 10, 0), -EBADF);
	ck_assert_int_eq(mmapio_file_resize(file, 1000, 0), -EBADF);
	ck_assert_int_eq(mmapio_file_allocate(file, 0, 0, 1000), -EBADF);
	ck_assert_int_eq(mmapio_copy(source, 0, file, 50, 10), -EBADF);
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_int_eq(mmapio_flush_range(file, 0, 100), 0);
	ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
	ck_assert_uint_eq(test_size(fd), 100);
	ck_assert(test_disk_is_pattern(fd, 0, 100));
	mmapio_file_unref(source);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(copy_on_write_stays_in_the_handle)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 4 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_COPY_ON_WRITE);
	struct mmapio_file *reader = test_open(path, MMAPIO_READ_ONLY);
	struct mmapio_file *other = test_open(path, MMAPIO_COPY_ON_WRITE);
	struct mmapio_slice_mut slice;
	struct mmapio_slice seen;
	char buffer[8];

	test_write(file, page - 2, "abcd", 4);
	ck_assert_int_eq(mmapio_slice_get_mut(file, 3 * page, 4, &slice), 0);
	memcpy(slice.data, "efgh", 4);
	ck_assert_int_eq(mmapio_commit(&slice, 0, 4), 0);
	mmapio_slice_put_mut(&slice);

	/* both ways to read show both ways to write */
	ck_assert_int_eq(mmapio_read(file, page - 2, buffer, 4), 4);
	ck_assert_mem_eq(buffer, "abcd", 4);
	ck_assert_int_eq(mmapio_read(file, 3 * page, buffer, 4), 4);
	ck_assert_mem_eq(buffer, "efgh", 4);
	ck_assert_int_eq(mmapio_slice_get(file, page - 2, 4, &seen), 0);
	ck_assert_mem_eq(seen.data, "abcd", 4);
	mmapio_slice_put(&seen);

	ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_int_eq(mmapio_sync(file, true), 0);
	ck_assert(test_reads_pattern(reader, 0, 4 * page));
	ck_assert(test_reads_pattern(other, 0, 4 * page));
	mmapio_file_unref(file);
	ck_assert(test_disk_is_pattern(fd, 0, 4 * page));
	mmapio_file_unref(other);
	mmapio_file_unref(reader);
	close(fd);
}
END_TEST

/* Fails if a private mapping is replaced by a new one, which would forget what was written. */
START_TEST(copy_on_write_keeps_what_was_written)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 4 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_COPY_ON_WRITE);
	struct stat st;
	char byte;

	test_write(file, 0, "#", 1);
	ck_assert_int_eq(ftruncate(fd, (off_t)(100 * MIB)), 0);
	ck_assert_int_eq(mmapio_file_refresh(file, &st), 0);
	ck_assert_uint_eq(mmapio_file_size(file), 4 * page);
	ck_assert_int_eq(mmapio_read(file, 0, &byte, 1), 1);
	ck_assert_int_eq(byte, '#');
	ck_assert_int_eq(ftruncate(fd, (off_t)(2 * page)), 0);
	ck_assert_int_eq(mmapio_file_refresh(file, NULL), 0);
	ck_assert_uint_eq(mmapio_file_size(file), 2 * page);
	ck_assert_int_eq(mmapio_read(file, 0, &byte, 1), 1);
	ck_assert_int_eq(byte, '#');
	ck_assert(test_reads_pattern(file, 1, 2 * page - 1));
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(copy_on_write_follows_the_file_where_it_was_not_written)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 4 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_COPY_ON_WRITE);
	struct mmapio_slice slice;
	char byte;

	test_write(file, 0, "#", 1);
	test_pwrite(fd, "!", 1, 0);
	test_pwrite(fd, "!", 1, 2 * page);
	ck_assert_int_eq(mmapio_read(file, 0, &byte, 1), 1);
	ck_assert_int_eq(byte, '#');
	ck_assert_int_eq(mmapio_read(file, 2 * page, &byte, 1), 1);
	ck_assert_int_eq(byte, '!');
	ck_assert_int_eq(mmapio_slice_get(file, 2 * page, 1, &slice), 0);
	ck_assert_int_eq(*(const char *)slice.data, '!');
	mmapio_slice_put(&slice);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(copy_on_write_has_a_fixed_size)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 100);
	struct mmapio_file *file = test_open(path, MMAPIO_COPY_ON_WRITE);
	struct mmapio_file *target = test_open(path, MMAPIO_READ_WRITE);

	ck_assert_int_eq(mmapio_write(file, 100, "x", 1), -ERANGE);
	ck_assert_int_eq(mmapio_write(file, 99, "xx", 2), -ERANGE);
	ck_assert_int_eq(mmapio_write(file, UINT64_MAX, "xx", 2), -ERANGE);
	ck_assert(test_reads_pattern(file, 0, 100)); /* nothing of the 99th either */
	ck_assert_int_eq(mmapio_file_resize(file, 50, 0), -EBADF);
	ck_assert_int_eq(mmapio_file_resize(file, 200, 0), -EBADF);
	ck_assert_int_eq(mmapio_file_allocate(file, 0, 0, 200), -EBADF);
	ck_assert_int_lt(mmapio_copy(file, 0, target, 50, 10), 0);
	ck_assert_int_eq(mmapio_copy(target, 0, file, 50, 10), -EBADF);
	ck_assert_uint_eq(mmapio_file_size(file), 100);
	ck_assert_uint_eq(test_size(fd), 100);
	mmapio_file_unref(target);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(make_writable_keeps_slices)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 4 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_ONLY);
	struct mmapio_slice_mut slice;
	struct mmapio_slice before;
	int writable;

	ck_assert_int_eq(mmapio_slice_get(file, 0, 4 * page, &before), 0);
	writable = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(mmapio_file_make_writable(file, writable), 0);
	ck_assert_int_eq(mmapio_file_mode(file), MMAPIO_READ_WRITE);
	ck_assert(test_is_pattern(before.data, 0, 4 * page));

	/* both ways to write reach the file, and are seen through the old slice */
	test_write(file, 10, "abcd", 4);
	ck_assert_int_eq(mmapio_slice_get_mut(file, 2 * page, 4, &slice), 0);
	memcpy(slice.data, "efgh", 4);
	ck_assert_int_eq(mmapio_commit(&slice, 0, 4), 0);
	mmapio_slice_put_mut(&slice);
	ck_assert_mem_eq((const char *)before.data + 10, "abcd", 4);
	ck_assert_mem_eq((const char *)before.data + 2 * page, "efgh", 4);
	ck_assert(test_is_pattern((const char *)before.data + 14, 14, 100));
	ck_assert_uint_eq(mmapio_dirty_bytes(file), 8);
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_int_eq(mmapio_file_resize(file, 4 * page + 1, 0), 0);
	/* the old slice still holds off a shrink */
	ck_assert_int_eq(mmapio_file_resize(file, 100, 0), -EBUSY);
	mmapio_slice_put(&before);
	ck_assert_int_eq(mmapio_file_resize(file, 100, 0), 0);
	ck_assert_uint_eq(test_size(fd), 100);
	mmapio_file_unref(file);
	ck_assert(!is_open(writable));
	ck_assert_uint_eq(test_mappings(path), 0);
	close(fd);
}
END_TEST

START_TEST(make_writable_refuses_the_wrong_descriptor)
{
	char path[PATH_MAX];
	char other_path[PATH_MAX];
	const int fd = test_file(path, 100);
	const int other = test_file(other_path, 100);
	const int read_only = open(path, O_RDONLY | O_CLOEXEC);
	const int write_only = open(path, O_WRONLY | O_CLOEXEC);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_ONLY);
	struct mmapio_file *copy = test_open(path, MMAPIO_COPY_ON_WRITE);

	ck_assert_int_eq(mmapio_file_make_writable(file, other), -EINVAL);
	ck_assert(is_open(other));
	ck_assert_int_eq(mmapio_file_make_writable(file, read_only), -EBADF);
	ck_assert(is_open(read_only));
	ck_assert_int_eq(mmapio_file_make_writable(file, -1), -EBADF);
	ck_assert_int_eq(mmapio_file_make_writable(file, write_only), -EBADF);
	ck_assert(is_open(write_only));
	ck_assert_int_eq(mmapio_file_make_writable(copy, fd), -EBADF);
	ck_assert(is_open(fd));
	ck_assert_int_eq(mmapio_file_mode(file), MMAPIO_READ_ONLY);
	ck_assert_int_eq(mmapio_file_mode(copy), MMAPIO_COPY_ON_WRITE);
	ck_assert_int_eq(mmapio_write(file, 0, "x", 1), -EBADF);
	ck_assert(test_reads_pattern(file, 0, 100));
	mmapio_file_unref(copy);
	mmapio_file_unref(file);
	close(write_only);
	close(read_only);
	close(other);
	close(fd);
}
END_TEST

START_TEST(make_writable_twice_is_fine)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 100);
	const unsigned int before = open_descriptors();
	struct mmapio_file *file = test_open(path, MMAPIO_READ_ONLY);

	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(mmapio_file_make_writable(file, open(path, O_RDWR | O_CLOEXEC)),
				 0);
		ck_assert_int_eq(mmapio_file_mode(file), MMAPIO_READ_WRITE);
	}
	test_write(file, 0, "x", 1);
	mmapio_file_unref(file);
	ck_assert_uint_eq(open_descriptors(), before);
	close(fd);
}
END_TEST

/* --- Size ------------------------------------------------------------------------------------- */

START_TEST(resize_grows_shrinks_and_clears)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 10000);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	const uint64_t sizes[] = {10001, 100, 4096, 4095, 1, 0, 0, 300000, 8192, 0, 5, 5, 70000};
	uint64_t kept = 10000; /* the pattern reaches so far; zeros follow */

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		const uint64_t size = sizes[i];
		struct mmapio_slice slice;
		uint8_t *buffer = malloc(size + 1);

		ck_assert_int_eq(mmapio_file_resize(file, size, MMAPIO_FOREVER), 0);
		kept = size < kept ? size : kept;
		ck_assert_uint_eq(mmapio_file_size(file), size);
		ck_assert_uint_eq(test_size(fd), size);
		ck_assert_int_eq(mmapio_slice_get(file, 0, size, &slice), 0);
		ck_assert(test_is_pattern(slice.data, 0, kept));
		/* also the rest of the page in which the file once ended */
		ck_assert(test_is_zero((const uint8_t *)slice.data + kept, size - kept));
		mmapio_slice_put(&slice);
		ck_assert_int_eq(mmapio_slice_get(file, size, 1, &slice), -ERANGE);
		ck_assert_int_eq(mmapio_read(file, 0, buffer, size + 1), (ssize_t)size);
		ck_assert(test_is_pattern(buffer, 0, kept));
		ck_assert(test_is_zero(buffer + kept, size - kept));
		free(buffer);
	}
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(resize_refuses_what_no_file_can_have)
{
	const uint64_t sizes[] = {INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX - 4095,
				  UINT64_MAX};
	char path[PATH_MAX];
	const int fd = test_file(path, 100);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		const int result = mmapio_file_resize(file, sizes[i], 0);

		ck_assert_msg(result == -EFBIG || result == -EINVAL, "%d", result);
		ck_assert_uint_eq(mmapio_file_size(file), 100);
		ck_assert_uint_eq(test_size(fd), 100);
	}
	ck_assert(test_reads_pattern(file, 0, 100));
	ck_assert_int_lt(mmapio_write(file, UINT64_MAX, "xx", 2), 0);
	ck_assert_int_lt(mmapio_write(file, INT64_MAX, "xx", 2), 0);
	ck_assert_uint_eq(test_size(fd), 100);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* Fails if growing moves a mapping away under the slices that point into it. */
START_TEST(growth_far_beyond_the_first_mapping_keeps_slices)
{
	const uint64_t sizes[] = {page,
				  2 * page,
				  MIB,
				  64 * MIB,
				  GIB,
				  4 * GIB,
				  TEST_SANITIZED ? 5 * GIB : 256 * GIB,
				  TEST_SANITIZED ? 6 * GIB : 1024 * GIB};
	char path[PATH_MAX];
	const int fd = test_file(path, page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_slice first[ARRAY_SIZE(sizes)];
	struct mmapio_slice last[ARRAY_SIZE(sizes)];

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		ck_assert_int_eq(mmapio_file_resize(file, sizes[i], 0), 0);
		test_pwrite_pattern(fd, sizes[i] - page, page, page);
		ck_assert_int_eq(mmapio_slice_get(file, 0, page, &first[i]), 0);
		ck_assert_int_eq(mmapio_slice_get(file, sizes[i] - page, page, &last[i]), 0);
	}
	test_pwrite(fd, "#", 1, 7); /* every mapping shows the same file */
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		ck_assert_int_eq(((const char *)first[i].data)[7], '#');
		ck_assert(test_is_pattern((const char *)first[i].data + 8, 8, page - 8));
		ck_assert(test_is_pattern((const char *)last[i].data + 8, sizes[i] - page + 8,
					  page - 8));
	}
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		mmapio_slice_put(&first[i]);
		mmapio_slice_put(&last[i]);
	}
	ck_assert_uint_le(test_mappings(path), 1); /* those outgrown are gone */
	ck_assert_int_eq(mmapio_file_resize(file, page, 0), 0);
	mmapio_file_unref(file);
	ck_assert_uint_eq(test_mappings(path), 0);
	close(fd);
}
END_TEST

START_TEST(refresh_adopts_growth_and_truncation_by_others)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 10000);
	struct mmapio_file *file = test_open(path, modes[_i]);
	struct mmapio_slice held, slice;
	struct stat st;

	ck_assert_int_eq(mmapio_slice_get(file, 0, 10000, &held), 0);
	test_pwrite_pattern(fd, 10000, 500000, 10000);
	ck_assert_int_eq(mmapio_file_refresh(file, &st), 0);
	ck_assert_uint_eq(mmapio_file_size(file), 510000);
	ck_assert_int_eq(st.st_size, 510000);
	ck_assert(test_reads_pattern(file, 0, 510000));

	ck_assert_int_eq(ftruncate(fd, 5000), 0);
	ck_assert_int_eq(mmapio_file_refresh(file, &st), 0); /* waits for no slice */
	ck_assert_uint_eq(mmapio_file_size(file), 5000);
	ck_assert_int_eq(st.st_size, 5000);
	ck_assert_int_eq(mmapio_slice_get(file, 0, 5001, &slice), -ERANGE);
	ck_assert_int_eq(mmapio_slice_get_some(file, 0, 10000, &slice), 0);
	ck_assert_uint_eq(slice.length, 5000);
	mmapio_slice_put(&slice);
	ck_assert(test_reads_pattern(file, 0, 5000));
	ck_assert(test_is_pattern(held.data, 0, 5000));

	test_pwrite_pattern(fd, 5000, 5000, 5000);
	ck_assert_int_eq(mmapio_file_refresh(file, NULL), 0);
	ck_assert(test_reads_pattern(file, 0, 10000));
	ck_assert(test_is_pattern(held.data, 0, 10000));
	mmapio_slice_put(&held);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* --- Times ------------------------------------------------------------------------------------ */

static bool later(struct timespec a, struct timespec b)
{
	return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static void store(struct mmapio_file *file, uint64_t offset)
{
	struct mmapio_slice_mut slice;

	ck_assert_int_eq(mmapio_slice_get_mut(file, offset, 1, &slice), 0);
	*(volatile char *)slice.data = '#';
	ck_assert_int_eq(mmapio_commit(&slice, 0, 1), 0);
	mmapio_slice_put_mut(&slice);
}

/* Sets the time of access to 2001, the time of change to now. */
static void make_old(const char *path)
{
	const struct timespec times[2] = {{1000000000, 0}, {0, UTIME_NOW}};

	ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
}

static bool is_old(const char *path)
{
	struct stat st;

	ck_assert_int_eq(stat(path, &st), 0);
	return st.st_atim.tv_sec == 1000000000;
}

/* As read(2) does, or does not (noatime); and not each time. _i: mode */
START_TEST(reading_moves_the_time_of_access)
{
	char path[PATH_MAX], byte;
	const int fd = test_file(path, 10000);
	struct mmapio_file *file = test_open(path, modes[_i]);
	bool moves;

	make_old(path);
	ck_assert_int_eq(pread(fd, &byte, 1, 0), 1);
	moves = !is_old(path);

	test_sleep(600 * MILLISECOND);
	make_old(path);
	ck_assert(test_reads_pattern(file, 0, 10000));
	ck_assert(is_old(path)); /* else nothing would be tested */
	ck_assert(mmapio_file_accessed(file));
	ck_assert(is_old(path) == !moves);

	make_old(path);
	ck_assert(!mmapio_file_accessed(file));
	ck_assert(is_old(path));
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* Without the guard nothing is stored into the mapping. */
static void install_guard(void)
{
	ck_assert_int_eq(mmapio_guard_install(), 0);
}

/* Fails without care for mtime: only the first store to a clean page moves it. _i: write method,
 * and 3 for a mutable slice. */
START_TEST(refresh_moves_the_times_after_every_write)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	const int fd = test_file(path, 10000);
	struct mmapio_file *file;
	struct stat before, after, plain;

	options.write_method = _i < 3 ? (enum mmapio_write_method)_i : MMAPIO_WRITE_AUTO;
	file = test_open_with(path, &options);
	ck_assert_int_eq(mmapio_file_refresh(file, &before), 0);
	for (int i = 0; i < 20; i++) {
		test_sleep(20 * MILLISECOND); /* more than a tick of the kernel's clock */
		if (_i < 3)
			test_write(file, 5, "#", 1);
		else
			store(file, 5);
		ck_assert_int_eq(mmapio_file_refresh(file, &after), 0);
		ck_assert(later(after.st_mtim, before.st_mtim));
		ck_assert(later(after.st_ctim, before.st_ctim));
		ck_assert_int_eq(fstat(fd, &plain), 0);
		ck_assert(same_time(plain.st_mtim, after.st_mtim));
		before = after;
	}
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(refresh_moves_no_times_without_a_write)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	const int fd = test_file(path, 10000);
	struct mmapio_file *file;
	struct stat before, after;

	options.write_method = MMAPIO_WRITE_STORE;
	file = test_open_with(path, &options);
	for (int i = 0; i < 3; i++) {
		if (i)
			test_write(file, 5, "#", 1);
		ck_assert_int_eq(mmapio_file_refresh(file, &before), 0);
		test_sleep(20 * MILLISECOND);
		ck_assert_int_eq(mmapio_flush(file), 0);
		ck_assert_int_eq(mmapio_file_refresh(file, &after), 0);
		ck_assert(same_time(after.st_mtim, before.st_mtim));
		ck_assert(same_time(after.st_ctim, before.st_ctim));
	}
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* Fails if a store that was made earlier moves mtime away from where the caller has put it. */
START_TEST(times_that_were_set_stay)
{
	const struct timespec times[2] = {{1000000000, 1}, {1000000001, 2}};
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	const int fd = test_file(path, 10000);
	struct mmapio_file *file;
	struct stat st;

	options.write_method = MMAPIO_WRITE_STORE;
	file = test_open_with(path, &options);
	test_write(file, 5, "#", 1);
	ck_assert_int_eq(mmapio_file_refresh(file, NULL), 0);
	test_write(file, 6, "#", 1);
	store(file, 7);
	ck_assert_int_eq(mmapio_file_set_times(file, times), 0);
	ck_assert_int_eq(mmapio_file_refresh(file, &st), 0);
	ck_assert(same_time(st.st_mtim, times[1]));
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_int_eq(mmapio_sync(file, true), 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert(same_time(st.st_mtim, times[1]));

	/* the next write counts again */
	test_sleep(20 * MILLISECOND);
	test_write(file, 8, "#", 1);
	ck_assert_int_eq(mmapio_file_refresh(file, &st), 0);
	ck_assert(later(st.st_mtim, times[1]));

	test_write(file, 9, "#", 1);
	ck_assert_int_eq(mmapio_file_set_times(file, times), 0);
	mmapio_file_unref(file);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert(same_time(st.st_mtim, times[1]));
	close(fd);
}
END_TEST

/*
 * Fails if a change of our own is taken for one by others, or the other way round: each road by
 * which we change a file, with what stores do to mtime later; and each change by others is told
 * once.
 */
START_TEST(changes_by_others_are_told_once)
{
	const struct timespec times[2] = {{1000000000, 1}, {1000000000, 2}};
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX], other_path[PATH_MAX];
	const int fd = test_file(path, 10000), other_fd = test_file(other_path, 5000);
	struct mmapio_file *file, *other;
	struct mmapio_slice_mut slice;
	struct stat st;

	options.write_method = (enum mmapio_write_method)_i;
	file = test_open_with(path, &options);
	other = test_open(other_path, MMAPIO_READ_ONLY);
	ck_assert_int_eq(mmapio_file_check(file, NULL), 0);

	test_write(file, 5, "#", 1);
	ck_assert_int_eq(mmapio_file_check(file, NULL), 0);
	test_sleep(20 * MILLISECOND);
	test_write(file, 6, "#", 1);
	ck_assert_int_eq(mmapio_file_check(file, &st), 0); /* moves mtime, if the store has not */
	ck_assert_int_eq(mmapio_file_check(file, &st), 0);
	test_write(file, 7, "#", 1);
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_int_eq(mmapio_file_check(file, NULL), 0);
	test_write(file, 20000, "#", 1);
	ck_assert_int_eq(mmapio_file_check(file, NULL), 0);
	ck_assert_int_eq(mmapio_file_resize(file, 30000, 0), 0);
	ck_assert_int_eq(mmapio_file_check(file, NULL), 0);
	ck_assert_int_eq(mmapio_file_resize(file, 9000, 0), 0);
	ck_assert_int_eq(mmapio_file_check(file, NULL), 0);
	ck_assert_int_eq(mmapio_file_allocate(file, 0, 0, 40000), 0);
	ck_assert_int_eq(mmapio_file_check(file, NULL), 0);
	ck_assert_int_eq(mmapio_copy(other, 0, file, 100, 1000), 1000);
	ck_assert_int_eq(mmapio_file_check(file, NULL), 0);
	ck_assert_int_eq(mmapio_slice_get_mut(file, 10, 10, &slice), 0);
	memset(slice.data, '+', 10);
	ck_assert_int_eq(mmapio_commit(&slice, 0, 10), 0);
	mmapio_slice_put_mut(&slice);
	ck_assert_int_eq(mmapio_file_check(file, &st), 0);
	ck_assert_int_eq(mmapio_file_set_times(file, times), 0);
	ck_assert_int_eq(mmapio_file_check(file, &st), 0);
	ck_assert_int_lt(mmapio_file_allocate(file, -1, 0, 1), 0);
	ck_assert_int_eq(mmapio_write(file, UINT64_MAX / 2, "#", 1), -EFBIG);
	ck_assert_int_eq(mmapio_file_check(file, NULL), 0);

	test_sleep(20 * MILLISECOND);
	ck_assert_int_eq(pwrite(fd, "!", 1, 50), 1);
	ck_assert_int_eq(mmapio_file_check(file, &st), 1);
	ck_assert_int_eq(mmapio_file_check(file, &st), 0);
	ck_assert_int_eq(ftruncate(fd, 8000), 0);
	ck_assert_int_eq(mmapio_file_refresh(file, NULL), 0); /* which does not take it away */
	ck_assert_int_eq(mmapio_file_check(file, NULL), 1);
	ck_assert_int_eq(mmapio_file_check(file, NULL), 0);
	/* what others did, though a store of ours has yet to move mtime */
	test_write(file, 6, "#", 1);
	ck_assert_int_eq(pwrite(fd, "!", 1, 8000), 1);
	ck_assert_int_eq(mmapio_file_check(file, &st), 1);
	ck_assert_int_eq(mmapio_file_check(file, &st), 0);
	/* and though we set the times afterwards */
	ck_assert_int_eq(pwrite(fd, "!", 1, 9000), 1);
	ck_assert_int_eq(mmapio_file_set_times(file, times), 0);
	ck_assert_int_eq(mmapio_file_check(file, &st), 1);
	ck_assert_int_eq(mmapio_file_check(file, &st), 0);

	mmapio_file_unref(file);
	mmapio_file_unref(other);
	close(fd);
	close(other_fd);
}
END_TEST

/* Fails if mtime is only ever moved forward: write(2) sets it to the present. */
START_TEST(write_moves_a_future_time_back)
{
	const struct timespec times[2] = {{4000000000, 1}, {4000000000, 2}};
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	const int fd = test_file(path, 10000);
	struct mmapio_file *file;
	struct stat st;

	options.write_method = (enum mmapio_write_method)_i;
	file = test_open_with(path, &options);
	test_write(file, 5, "#", 1);
	ck_assert_int_eq(mmapio_file_set_times(file, times), 0);
	ck_assert_int_eq(mmapio_file_refresh(file, &st), 0);
	ck_assert(same_time(st.st_mtim, times[1]));
	test_write(file, 6, "#", 1);
	ck_assert_int_eq(mmapio_file_refresh(file, &st), 0);
	ck_assert_int_le(st.st_mtim.tv_sec, time(NULL) + 1);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(closing_moves_the_time)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	const int fd = test_file(path, 10000);
	struct mmapio_file *file;
	struct stat before, after;

	options.write_method = (enum mmapio_write_method)_i;
	file = test_open_with(path, &options);
	test_write(file, 5, "#", 1);
	ck_assert_int_eq(mmapio_file_refresh(file, &before), 0);
	test_sleep(20 * MILLISECOND);
	test_write(file, 5, "#", 1);
	mmapio_file_unref(file);
	ck_assert_int_eq(fstat(fd, &after), 0);
	ck_assert(later(after.st_mtim, before.st_mtim));
	close(fd);
}
END_TEST

/* --- Allocation and copying ------------------------------------------------------------------- */

START_TEST(allocate_punches_holes)
{
	const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	char path[PATH_MAX];
	const int fd = test_file(path, 64 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	const uint64_t before = test_blocks(fd);
	struct mmapio_slice slice;

	ck_assert_int_eq(mmapio_slice_get(file, 0, 64 * page, &slice), 0);
	ck_assert_int_eq(mmapio_file_allocate(file, mode, 8 * page - 3, 32 * page + 6), 0);
	ck_assert_uint_eq(mmapio_file_size(file), 64 * page);
	ck_assert(test_is_pattern(slice.data, 0, 8 * page - 3));
	ck_assert(test_is_zero((const char *)slice.data + 8 * page - 3, 32 * page + 6));
	ck_assert(test_is_pattern((const char *)slice.data + 40 * page + 3, 40 * page + 3,
				  24 * page - 3));
	ck_assert_uint_le(test_blocks(fd), before - 32 * page / 512);

	/* what was a hole can be written again */
	test_write_pattern(file, 8 * page - 3, 32 * page + 6);
	ck_assert(test_is_pattern(slice.data, 0, 64 * page));
	mmapio_slice_put(&slice);
	ck_assert_int_eq(mmapio_flush(file), 0);
	test_drop(fd);
	ck_assert(test_disk_is_pattern(fd, 0, 64 * page));
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(allocate_keeps_or_extends_the_size)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 100);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_slice slice;

	ck_assert_int_eq(mmapio_file_allocate(file, FALLOC_FL_KEEP_SIZE, 0, 100 * page), 0);
	ck_assert_uint_eq(mmapio_file_size(file), 100);
	ck_assert_uint_eq(test_size(fd), 100);
	ck_assert_uint_ge(test_blocks(fd), 100 * page / 512);

	ck_assert_int_eq(mmapio_file_allocate(file, 0, 50 * page, 70 * page), 0);
	ck_assert_uint_eq(mmapio_file_size(file), 120 * page);
	ck_assert_uint_eq(test_size(fd), 120 * page);
	ck_assert_int_eq(mmapio_slice_get(file, 100, 120 * page - 100, &slice), 0);
	ck_assert(test_is_zero(slice.data, slice.length));
	mmapio_slice_put(&slice);
	test_write_pattern(file, 100, 120 * page - 100);
	ck_assert(test_disk_is_pattern(fd, 0, 120 * page));

	/* inside the file: nothing is to be seen of it */
	ck_assert_int_eq(mmapio_file_allocate(file, 0, 0, 10 * page), 0);
	ck_assert_uint_eq(mmapio_file_size(file), 120 * page);
	ck_assert(test_reads_pattern(file, 0, 120 * page));
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(allocate_zeroes_a_range)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 10 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_slice slice;

	test_write_pattern(file, 3 * page, page); /* dirty, to be zeroed all the same */
	ck_assert_int_eq(mmapio_file_allocate(file, FALLOC_FL_ZERO_RANGE, 2 * page + 5, 3 * page),
			 0);
	ck_assert_int_eq(mmapio_slice_get(file, 0, 10 * page, &slice), 0);
	ck_assert(test_is_pattern(slice.data, 0, 2 * page + 5));
	ck_assert(test_is_zero((const char *)slice.data + 2 * page + 5, 3 * page));
	ck_assert(test_is_pattern((const char *)slice.data + 5 * page + 5, 5 * page + 5,
				  5 * page - 5));
	mmapio_slice_put(&slice);
	ck_assert_int_eq(mmapio_file_allocate(file, FALLOC_FL_ZERO_RANGE, 10 * page, page), 0);
	ck_assert_uint_eq(mmapio_file_size(file), 11 * page);
	ck_assert_int_eq(mmapio_flush(file), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(allocate_moves_no_bytes)
{
	const int refused[] = {FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE,
			       FALLOC_FL_UNSHARE_RANGE, 0x4000};
	char path[PATH_MAX];
	const int fd = test_file(path, 16 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);

	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		ck_assert_int_eq(mmapio_file_allocate(file, refused[i], 0, 4 * page), -EOPNOTSUPP);
	ck_assert_uint_eq(mmapio_file_size(file), 16 * page);
	ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
	ck_assert(test_disk_is_pattern(fd, 0, 16 * page));
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(allocate_returns_what_fallocate_returns)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 100);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);

	ck_assert_int_eq(mmapio_file_allocate(file, 0, 0, 0), -EINVAL);
	ck_assert_int_lt(mmapio_file_allocate(file, 0, UINT64_MAX - 10, 20), 0);
	ck_assert_int_lt(mmapio_file_allocate(file, 0, INT64_MAX, 20), 0);
	ck_assert_int_lt(mmapio_file_allocate(file, 0x7ff00000, 0, 20), 0);
	ck_assert_uint_eq(test_size(fd), 100);
	ck_assert_uint_eq(mmapio_file_size(file), 100);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(copy_between_files)
{
	char source_path[PATH_MAX];
	char target_path[PATH_MAX];
	const int source_fd = test_file(source_path, 100000);
	const int target_fd = test_file(target_path, 0);
	struct mmapio_file *source =
		test_open(source_path, _i ? MMAPIO_READ_WRITE : MMAPIO_READ_ONLY);
	struct mmapio_file *target = test_open(target_path, MMAPIO_READ_WRITE);
	uint64_t done = 0;

	if (_i) /* what is only in the mapping is copied too */
		store(source, 50000);
	while (done < 100000) {
		const ssize_t n = mmapio_copy(source, done, target, done, 100000 - done);

		ck_assert_int_gt(n, 0);
		done += (uint64_t)n;
	}
	ck_assert_uint_eq(mmapio_file_size(target), 100000);
	ck_assert_uint_eq(test_size(target_fd), 100000);
	ck_assert_uint_eq(mmapio_dirty_bytes(target), 100000);
	ck_assert(test_reads_pattern(target, 0, 50000));
	ck_assert(test_reads_pattern(target, 50001, 49999));
	ck_assert(test_reads_pattern(target, 50000, 1) == !_i);
	ck_assert_int_eq(mmapio_flush(target), 0);
	ck_assert_uint_eq(mmapio_dirty_bytes(target), 0);

	ck_assert_int_eq(mmapio_copy(source, 100000, target, 0, 10), 0);
	ck_assert_int_eq(mmapio_copy(source, 99990, target, 99990, 100), 10);
	ck_assert_uint_eq(mmapio_file_size(target), 100000);
	mmapio_file_unref(target);
	mmapio_file_unref(source);
	close(target_fd);
	close(source_fd);
}
END_TEST

START_TEST(copy_within_one_file)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 100000);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	char buffer[1000];

	ck_assert_int_eq(mmapio_copy(file, 5, file, 50000, 1000), 1000);
	ck_assert_int_eq(mmapio_read(file, 50000, buffer, 1000), 1000);
	ck_assert(test_is_pattern(buffer, 5, 1000));
	ck_assert_uint_eq(mmapio_dirty_bytes(file), 1000);
	ck_assert_int_eq(mmapio_copy(file, 0, file, 10, 1000), -EINVAL); /* they overlap */
	/* beyond the end: the file grows */
	ck_assert_int_eq(mmapio_copy(file, 0, file, 200000, 1000), 1000);
	ck_assert_uint_eq(mmapio_file_size(file), 201000);
	ck_assert_int_lt(mmapio_copy(file, 0, file, UINT64_MAX - 5, 10), 0);
	ck_assert_uint_eq(test_size(fd), 201000);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("file");
	TCase *opening = test_case(suite, "open");
	TCase *mode = test_case(suite, "mode");
	TCase *size = test_case(suite, "size");
	TCase *times = test_case(suite, "times");
	TCase *blocks = test_case(suite, "blocks");
	const bool sysfs = !access(unmappable, R_OK);
	int status;

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	test_make_folder();

	tcase_add_loop_test(opening, open_by_path_in_every_mode, 0, 3);
	tcase_add_loop_test(opening, open_by_descriptor_in_every_mode, 0, 3);
	tcase_add_loop_test(opening, open_takes_no_more_than_the_mode_needs, 0, 3);
	tcase_add_loop_test(opening, open_needs_a_readable_descriptor, 0, 3);
	tcase_add_loop_test(opening, open_refuses_what_is_no_open_descriptor, 0, 3);
	tcase_add_loop_test(opening, empty_file_is_ordinary, 0, 3);
	tcase_add_loop_test(opening, open_refuses_a_folder, 0, 3);
	tcase_add_loop_test(opening, open_refuses_a_fifo_without_waiting, 0, 3);
	tcase_add_loop_test(opening, open_refuses_devices_and_sockets, 0, 3);
	tcase_add_loop_test(opening, open_returns_what_open_returns, 0, 3);
	tcase_add_loop_test(opening, open_needs_permission, 0, 3);
	tcase_add_loop_test(opening, open_refuses_unknown_options, 0, 3);
	tcase_add_test(opening, delay_needs_a_flusher);
	if (sysfs)
		tcase_add_test(opening, open_tells_when_the_file_system_cannot_map);
	tcase_add_loop_test(opening, lazy_file_is_mapped_with_the_first_slice, 0, 3);
	tcase_add_loop_test(opening, opening_and_closing_leaves_nothing_behind, 0, 3);
	tcase_add_loop_test(opening, references_are_counted, 0, 3);
	tcase_add_loop_test(opening, on_close_is_called_once, 0, 3);
	tcase_add_loop_test(opening, append_mode_cannot_be_written, 0, 3);

	tcase_add_test(mode, read_only_file_is_never_changed);
	tcase_add_test(mode, copy_on_write_stays_in_the_handle);
	tcase_add_test(mode, copy_on_write_keeps_what_was_written);
	tcase_add_test(mode, copy_on_write_follows_the_file_where_it_was_not_written);
	tcase_add_test(mode, copy_on_write_has_a_fixed_size);
	tcase_add_test(mode, make_writable_keeps_slices);
	tcase_add_test(mode, make_writable_refuses_the_wrong_descriptor);
	tcase_add_test(mode, make_writable_twice_is_fine);

	tcase_add_test(size, resize_grows_shrinks_and_clears);
	tcase_add_test(size, resize_refuses_what_no_file_can_have);
	tcase_add_test(size, growth_far_beyond_the_first_mapping_keeps_slices);
	tcase_add_loop_test(size, refresh_adopts_growth_and_truncation_by_others, 0, 2);

	tcase_add_checked_fixture(times, install_guard, mmapio_guard_remove);
	tcase_add_loop_test(times, refresh_moves_the_times_after_every_write, 0, 4);
	tcase_add_test(times, refresh_moves_no_times_without_a_write);
	tcase_add_test(times, times_that_were_set_stay);
	tcase_add_loop_test(times, reading_moves_the_time_of_access, 0, 3);
	tcase_add_loop_test(times, write_moves_a_future_time_back, 0, 3);
	tcase_add_loop_test(times, changes_by_others_are_told_once, 0, 3);
	tcase_add_loop_test(times, closing_moves_the_time, 0, 3);

	tcase_add_test(blocks, allocate_punches_holes);
	tcase_add_test(blocks, allocate_keeps_or_extends_the_size);
	tcase_add_test(blocks, allocate_zeroes_a_range);
	tcase_add_test(blocks, allocate_moves_no_bytes);
	tcase_add_test(blocks, allocate_returns_what_fallocate_returns);
	tcase_add_loop_test(blocks, copy_between_files, 0, 2);
	tcase_add_test(blocks, copy_within_one_file);
	status = test_run(suite);
	if (!status && !sysfs) {
		printf("SKIP: %s, which cannot be mapped, is not there\n", unmappable);
		status = TEST_SKIP;
	}
	return status;
}
