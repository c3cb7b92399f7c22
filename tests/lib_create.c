/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_create.c - tests of files that are made: whole before they are seen, by whoever comes first;
 * of files without a name; of giving the descriptor back; and of files as a whole
 */
#include "lib_test.h"

#include <dirent.h>
#include <stdarg.h>
#include <sys/resource.h>

static uint64_t page;

static const struct mmapio_options read_write = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);

/* In the place of libc's, for the library too: a file system that lacks something. */
#pragma GCC visibility push(default)
static bool refuse_tmpfile, refuse_noreplace;

int open(const char *path, int flags, ...)
{
	va_list arguments;
	mode_t mode;

	va_start(arguments, flags);
	mode = va_arg(arguments, mode_t);
	va_end(arguments);
	if (refuse_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));

int renameat2(int from, const char *name, int to, const char *new_name, unsigned int flags)
{
	if (refuse_noreplace && flags & RENAME_NOREPLACE) {
		errno = EINVAL;
		return -1;
	}
	return (int)syscall(SYS_renameat2, from, name, to, new_name, flags);
}

#pragma GCC visibility pop

/* Names in the folder that begin with what unfinished files are called. */
static unsigned int unfinished(void)
{
	DIR *folder = opendir(test_folder_path);
	unsigned int count = 0;
	struct dirent *entry;

	ck_assert_ptr_nonnull(folder);
	while ((entry = readdir(folder)))
		count += strncmp(entry->d_name, ".mmapio-", 8) == 0;
	closedir(folder);
	return count;
}

static mode_t mode_of(const char *path)
{
	struct stat st;

	ck_assert_int_eq(lstat(path, &st), 0);
	return st.st_mode;
}

START_TEST(a_file_is_made_once_and_never_cut)
{
	struct mmapio_file *file;
	char path[PATH_MAX];
	bool created = false;

	umask(027);
	test_path(path, "made");
	ck_assert_int_eq(mmapio_open_or_create(&file, path, 3 * page, 0666, &read_write, &created),
			 0);
	ck_assert(created);
	ck_assert_uint_eq(mmapio_file_size(file), 3 * page);
	ck_assert_str_eq(mmapio_file_path(file), path);
	ck_assert_uint_eq(mode_of(path), S_IFREG | 0640);
	test_write_pattern(file, 0, 3 * page);
	mmapio_file_unref(file);
	ck_assert_int_eq(mmapio_open_or_create(&file, path, page, 0666, &read_write, &created), 0);
	ck_assert(!created);
	ck_assert_uint_eq(mmapio_file_size(file), 3 * page);
	ck_assert(test_reads_pattern(file, 0, 3 * page));
	mmapio_file_unref(file);
	ck_assert_uint_eq(unfinished(), 0);

	/* And one that is to be empty is */
	ck_assert_int_eq(mmapio_create(&file, path, 2 * page, 0600, &read_write), 0);
	ck_assert_uint_eq(mmapio_file_size(file), 2 * page);
	ck_assert_uint_eq(mode_of(path), S_IFREG | 0640);
	mmapio_file_unref(file);
	{
		const int fd = open(path, O_RDONLY | O_CLOEXEC);
		char *bytes = malloc(2 * page);

		ck_assert_int_eq(pread(fd, bytes, 2 * page, 0), (ssize_t)(2 * page));
		ck_assert(test_is_zero(bytes, 2 * page));
		free(bytes);
		close(fd);
	}
}
END_TEST

/* Many processes at one name: one makes it, each finds it whole, and nobody's bytes are cut. */
static void race(unsigned int rounds)
{
	for (unsigned int round = 0; round < rounds; round++) {
		pid_t children[6];
		char path[PATH_MAX];
		unsigned int makers = 0;

		test_path(path, "race");
		for (size_t i = 0; i < ARRAY_SIZE(children); i++) {
			children[i] = fork();
			ck_assert_int_ge(children[i], 0);
			if (children[i] == 0) {
				struct mmapio_file *file;
				bool created;
				char byte = (char)('a' + i), found;

				if (mmapio_open_or_create(&file, path, 8 * page, 0600, &read_write,
							  &created) ||
				    mmapio_file_size(file) != 8 * page ||
				    mmapio_write(file, i * page, &byte, 1) != 1 ||
				    mmapio_read(file, i * page, &found, 1) != 1 || found != byte)
					_exit(100);
				_exit(created);
			}
		}
		for (size_t i = 0; i < ARRAY_SIZE(children); i++) {
			int status;

			ck_assert_int_eq(waitpid(children[i], &status, 0), children[i]);
			ck_assert(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
			makers += (unsigned int)WEXITSTATUS(status);
		}
		ck_assert_uint_eq(makers, 1);
		{
			const int fd = open(path, O_RDONLY | O_CLOEXEC);
			char found;

			for (size_t i = 0; i < ARRAY_SIZE(children); i++) {
				ck_assert_int_eq(pread(fd, &found, 1, (off_t)(i * page)), 1);
				ck_assert_int_eq(found, (char)('a' + i));
			}
			close(fd);
		}
	}
}

START_TEST(of_many_one_makes_it_and_all_find_it_whole)
{
	race(TEST_REPEAT(100));
	ck_assert_uint_eq(unfinished(), 0);
}
END_TEST

START_TEST(what_cannot_be_made_leaves_nothing)
{
	const struct rlimit limit = {page, RLIM_INFINITY};
	struct mmapio_file *file = NULL;
	char path[PATH_MAX], inside[PATH_MAX + 10];

	test_path(path, "nothing");
	snprintf(inside, sizeof(inside), "%s/inside", path);
	ck_assert_int_eq(mmapio_open_or_create(&file, inside, 1, 0600, &read_write, NULL), -ENOENT);
	ck_assert_int_eq(mmapio_create(&file, inside, 1, 0600, &read_write), -ENOENT);
	ck_assert_int_eq(mmapio_open_or_create(&file, path, UINT64_MAX, 0600, &read_write, NULL),
			 -EFBIG);
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	ck_assert_int_eq(mmapio_open_or_create(&file, path, 2 * page, 0600, &read_write, NULL),
			 -EFBIG);
	ck_assert_int_eq(mmapio_save(path, test_folder_path, sizeof(test_folder_path), 0600),
			 sizeof(test_folder_path) > page ? -EFBIG : 0);
	unlink(path);
	ck_assert_int_eq(access(path, F_OK), -1);
	/* A link to nowhere is a name that is there, of a file that is not */
	ck_assert_int_eq(symlink("/nowhere/at all", path), 0);
	ck_assert_int_eq(mmapio_open_or_create(&file, path, 1, 0600, &read_write, NULL), -ENOENT);
	unlink(path);
	/* A folder, a device, a pipe */
	ck_assert_int_eq(mmapio_open_or_create(&file, test_folder_path, 1, 0600, &read_write, NULL),
			 -EISDIR);
	ck_assert_int_eq(mmapio_create(&file, "/dev/null", 1, 0600, &read_write), -EINVAL);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_eq(mmapio_open_or_create(&file, path, 1, 0600, &read_write, NULL), -EINVAL);
	ck_assert_ptr_null(file);
	ck_assert_uint_eq(unfinished(), 0);
}
END_TEST

START_TEST(a_file_without_a_name)
{
	struct mmapio_file *file;
	struct stat st;

	ck_assert_int_eq(mmapio_open_anonymous(&file, 2 * page, &read_write), 0);
	ck_assert_ptr_null(mmapio_file_path(file));
	ck_assert_uint_eq(mmapio_file_size(file), 2 * page);
	test_write_pattern(file, 0, 2 * page);
	ck_assert_int_eq(mmapio_file_resize(file, 100 * page, MMAPIO_FOREVER), 0);
	ck_assert(test_reads_pattern(file, 0, 2 * page));
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_int_eq(fstat(mmapio_file_descriptor(file), &st), 0);
	ck_assert_uint_eq(st.st_nlink, 0);
	mmapio_file_unref(file);
	ck_assert_int_eq(mmapio_open_anonymous(&file, UINT64_MAX, &read_write), -EFBIG);
}
END_TEST

START_TEST(the_descriptor_is_given_back_to_the_only_owner)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct mmapio_flusher *flusher;
	struct mmapio_file *file;
	struct mmapio_slice slice;
	char path[PATH_MAX];
	const int fd = test_file(path, page);
	int got = -1, own;

	ck_assert_int_eq(mmapio_flusher_new(&flusher), 0);
	options.policy.delay_ns = 1000 * SECOND;
	options.flusher = flusher;
	file = test_open_with(path, &options);
	own = mmapio_file_descriptor(file);
	mmapio_file_ref(file);
	ck_assert_int_eq(mmapio_file_detach(file, &got), -EBUSY);
	mmapio_file_unref(file);
	ck_assert_int_eq(mmapio_slice_get(file, 0, 1, &slice), 0);
	ck_assert_int_eq(mmapio_file_detach(file, &got), -EBUSY);
	mmapio_slice_put(&slice);
	ck_assert_int_eq(got, -1);
	/* It has been a file all the time; and dirty, when it goes */
	test_write(file, 0, "dirty", 5);
	ck_assert(mmapio_is_dirty(file));
	ck_assert_int_eq(mmapio_file_detach(file, &got), 0);
	ck_assert_int_eq(got, own);
	ck_assert_uint_eq(test_dirty_pages(fd), 0);
	ck_assert_uint_eq(test_mappings(path), 0);
	ck_assert_int_eq(pwrite(got, "still open", 10, 0), 10);
	close(got);
	mmapio_flusher_free(flusher);
	close(fd);
}
END_TEST

START_TEST(accessors)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct mmapio_file *file;
	char path[PATH_MAX];
	const int fd = test_file(path, page + 1);
	size_t length;
	void *data;

	options.policy.bytes = 12345;
	file = test_open_with(path, &options);
	ck_assert_uint_eq(mmapio_file_policy(file).bytes, 12345);
	ck_assert(!mmapio_file_is_empty(file));
	ck_assert_int_eq(mmapio_file_pointer(file, &data, &length), 0);
	ck_assert_uint_eq(length, page + 1);
	ck_assert(test_is_pattern(data, 0, length));
	*(char *)data = 'p';
	ck_assert_int_eq(pread(fd, data, 0, 0), 0);
	{
		char found;

		ck_assert_int_eq(pread(fd, &found, 1, 0), 1);
		ck_assert_int_eq(found, 'p');
	}
	ck_assert_int_eq(mmapio_file_resize(file, 0, MMAPIO_FOREVER), 0);
	ck_assert(mmapio_file_is_empty(file));
	ck_assert_int_eq(mmapio_file_pointer(file, &data, &length), 0);
	ck_assert_uint_eq(length, 0);
	mmapio_file_unref(file);
	close(fd);

	ck_assert_uint_eq(mmapio_page_size(), page);
	ck_assert_uint_eq(mmapio_align_up(0, page), 0);
	ck_assert_uint_eq(mmapio_align_up(1, page), page);
	ck_assert_uint_eq(mmapio_align_up(page, page), page);
	ck_assert_uint_eq(mmapio_align_up(7, 3), 9);
	ck_assert_uint_eq(mmapio_align_up(7, 0), 7);
	ck_assert_uint_eq(mmapio_align_up(UINT64_MAX, 2), UINT64_MAX);
	ck_assert_uint_eq(mmapio_align_up(UINT64_MAX - 1, 2), UINT64_MAX - 1);
}
END_TEST

START_TEST(files_as_a_whole)
{
	char path[PATH_MAX], copy[PATH_MAX];
	struct stat before, after;
	uint8_t *bytes = malloc(100000);
	size_t length = 77;
	void *data;
	int fd;

	umask(022);
	test_path(path, "whole");
	test_path(copy, "copy");
	test_fill(bytes, 0, 100000);
	ck_assert_int_eq(mmapio_load(path, &data, &length), -ENOENT);
	ck_assert_uint_eq(length, 77);
	ck_assert_int_eq(mmapio_save(path, bytes, 100000, 0644), 0);
	ck_assert_uint_eq(mode_of(path), S_IFREG | 0644);
	ck_assert_int_eq(mmapio_load(path, &data, &length), 0);
	ck_assert_uint_eq(length, 100000);
	ck_assert_mem_eq(data, bytes, 100000);
	free(data);

	/* Who has the file before open keeps it */
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(fstat(fd, &before), 0);
	ck_assert_int_eq(mmapio_save(path, "", 0, 0600), 0);
	ck_assert(test_disk_is_pattern(fd, 0, 100000));
	ck_assert_int_eq(stat(path, &after), 0);
	ck_assert(before.st_ino != after.st_ino);
	ck_assert_int_eq(mmapio_load(path, &data, &length), 0);
	ck_assert_uint_eq(length, 0);
	ck_assert_ptr_nonnull(data);
	free(data);
	close(fd);

	/* A copy of a file with holes, over one that is there */
	fd = open(path, O_RDWR | O_TRUNC | O_CLOEXEC);
	ck_assert_int_eq(ftruncate(fd, (off_t)(8 * MIB)), 0);
	test_pwrite(fd, bytes, 100000, 0);
	test_pwrite(fd, bytes, 1000, 5 * MIB + 1);
	ck_assert_int_eq(mmapio_save(copy, "before", 6, 0600), 0);
	ck_assert_int_eq(mmapio_copy_file(path, copy, 0604), 0);
	ck_assert_uint_eq(mode_of(copy), S_IFREG | 0604);
	{
		const int copied = open(copy, O_RDONLY | O_CLOEXEC);
		void *original;

		ck_assert_uint_le(test_blocks(copied), test_blocks(fd) + 16);
		close(copied);
		ck_assert_int_eq(mmapio_load(path, &original, &length), 0);
		ck_assert_int_eq(mmapio_load(copy, &data, &length), 0);
		ck_assert_uint_eq(length, 8 * MIB);
		ck_assert_mem_eq(data, original, 8 * MIB);
		free(original);
		free(data);
	}
	close(fd);
	ck_assert_int_eq(mmapio_copy_file(test_folder_path, copy, 0600), -EISDIR);
	ck_assert_int_eq(mmapio_copy_file("/dev/null", copy, 0600), -EINVAL);
	ck_assert_int_eq(mmapio_copy_file("/nowhere/at all", copy, 0600), -ENOENT);
	ck_assert_int_eq(access(copy, F_OK), 0);
	ck_assert_int_eq(mmapio_remove(copy), 0);
	ck_assert_int_eq(mmapio_remove(copy), -ENOENT);
	ck_assert_int_eq(mmapio_remove(test_folder_path), -EISDIR);
	ck_assert_uint_eq(unfinished(), 0);
	free(bytes);
}
END_TEST

/* Without O_TMPFILE and renames that replace nothing, which not every file system has: under a name
 * until it is whole. */
START_TEST(also_where_no_file_can_be_without_a_name)
{
	const struct rlimit limit = {page, RLIM_INFINITY};

	refuse_tmpfile = true;
	for (int noreplace = 0; noreplace < 2; noreplace++) {
		struct mmapio_file *file;
		char path[PATH_MAX];
		bool created;

		refuse_noreplace = noreplace;
		test_path(path, "named");
		ck_assert_int_eq(
			mmapio_open_or_create(&file, path, 100, 0600, &read_write, &created), 0);
		ck_assert(created);
		ck_assert_uint_eq(mmapio_file_size(file), 100);
		mmapio_file_unref(file);
		ck_assert_int_eq(mmapio_open_or_create(&file, path, 1, 0600, &read_write, &created),
				 0);
		ck_assert(!created);
		ck_assert_uint_eq(mmapio_file_size(file), 100);
		mmapio_file_unref(file);
		unlink(path);
		race(50);
		ck_assert_uint_eq(unfinished(), 0);
	}
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	{
		struct mmapio_file *file;
		char path[PATH_MAX];

		ck_assert_int_eq(mmapio_open_or_create(&file, test_path(path, "long"), 2 * page,
						       0600, &read_write, NULL),
				 -EFBIG);
	}
	ck_assert_uint_eq(unfinished(), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("create");
	TCase *making = test_case(suite, "making");

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	test_make_folder();
	test_need_cachestat();
	tcase_add_test(making, a_file_is_made_once_and_never_cut);
	tcase_add_test(making, of_many_one_makes_it_and_all_find_it_whole);
	tcase_add_test(making, what_cannot_be_made_leaves_nothing);
	tcase_add_test(making, a_file_without_a_name);
	tcase_add_test(making, the_descriptor_is_given_back_to_the_only_owner);
	tcase_add_test(making, accessors);
	tcase_add_test(making, files_as_a_whole);
	tcase_add_test(making, also_where_no_file_can_be_without_a_name);
	return test_run(suite);
}
