/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_test.h - what the unit tests of libmmapio share
 *
 * Files with known contents in a temporary folder, cachestat(2) as the judge of what is dirty or in
 * memory, small file systems on loop devices, random numbers and the running of a Check suite.
 * The folder is in $TMPDIR or /var/tmp, and must be on a disk: tmpfs has no dirty pages.
 */
#ifndef LIB_TEST_H
#define LIB_TEST_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <linux/loop.h>
#include <mntent.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mmapio.h"

#define TEST_SKIP      77 /* exit status: could not be tested here */
#define TEST_TIMEOUT_S 120
#define KIB	       ((uint64_t)1024)
#define MIB	       (1024 * KIB)
#define GIB	       (1024 * MIB)
#define MILLISECOND    ((uint64_t)1000000)
#define SECOND	       (1000 * MILLISECOND)
#define ARRAY_SIZE(A)  (sizeof(A) / sizeof(*(A)))

/* Repetitions, fewer where every access to memory is checked. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define TEST_SANITIZED 1
#define TEST_REPEAT(N) ((N) / 10)
#else
#define TEST_SANITIZED 0
#define TEST_REPEAT(N) (N)
#endif

/* For threads: Check's own assertions are for one thread only. Ends the test. */
#define THREAD_ASSERT(CONDITION)                                                                   \
	do {                                                                                       \
		if (!(CONDITION))                                                                  \
			test_thread_failed(__FILE__, __LINE__, #CONDITION);                        \
	} while (0)

static inline _Noreturn void test_thread_failed(const char *file, int line, const char *condition)
{
	fprintf(stderr, "%s:%d: in a thread: assertion failed: %s (errno %d)\n", file, line,
		condition, errno);
	_exit(1);
}

/* --- Time ------------------------------------------------------------------------------------- */

static inline uint64_t test_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static inline void test_sleep(uint64_t ns)
{
	const struct timespec time = {(time_t)(ns / SECOND), (long)(ns % SECOND)};

	clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
}

/* --- Contents --------------------------------------------------------------------------------- */

/* xorshift64*: the same numbers in every run, so that a failure comes again. */
static inline uint64_t test_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 2685821657736338717u;
}

static inline uint64_t test_below(uint64_t *state, uint64_t limit)
{
	return (test_random(state) >> 11) % limit;
}

/* The byte that belongs to a place of a file. Never zero, and without a period of whole pages. */
static inline uint8_t test_byte(uint64_t place)
{
	return (uint8_t)(((place * 2654435761u) >> 7) % 255 + 1);
}

static inline void test_fill(uint8_t *buffer, uint64_t place, size_t length)
{
	for (size_t i = 0; i < length; i++)
		buffer[i] = test_byte(place + i);
}

static inline bool test_is_pattern(const void *data, uint64_t place, size_t length)
{
	const volatile uint8_t *bytes = data;

	for (size_t i = 0; i < length; i++) {
		if (bytes[i] != test_byte(place + i))
			return false;
	}
	return true;
}

/* Of the pattern, or zero in what is not below floor. */
static inline bool test_is_pattern_or_cut(const void *data, uint64_t place, size_t length,
					  uint64_t floor)
{
	const volatile uint8_t *bytes = data;

	for (size_t i = 0; i < length; i++) {
		const uint8_t byte = bytes[i];

		if (byte != test_byte(place + i) && (byte || place + i < floor))
			return false;
	}
	return true;
}

static inline bool test_is_zero(const void *data, size_t length)
{
	const volatile uint8_t *bytes = data;

	for (size_t i = 0; i < length; i++) {
		if (bytes[i])
			return false;
	}
	return true;
}

/* --- The folder ------------------------------------------------------------------------------- */

static char test_folder_path[PATH_MAX - 256];

static inline int test_remove_one(const char *path, const struct stat *st, int type,
				  struct FTW *walk)
{
	(void)st;
	(void)type;
	(void)walk;
	umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
	remove(path);
	return 0;
}

/*
 * Makes the folder, and a process that removes it when this one and all that it has forked are
 * gone, however they ended: it waits for the end of a pipe to which nobody writes.
 */
static inline void test_make_folder(void)
{
	const char *parent = getenv("TMPDIR");
	int ends[2];
	pid_t remover;
	char byte;

	if (!parent || !*parent)
		parent = "/var/tmp";
	snprintf(test_folder_path, sizeof(test_folder_path), "%s/mmapio-lib-XXXXXX", parent);
	if (!mkdtemp(test_folder_path) || pipe2(ends, O_CLOEXEC)) {
		fprintf(stderr, "cannot make a folder in %s: %s\n", parent, strerror(errno));
		exit(1);
	}
	remover = fork();
	if (remover < 0) {
		rmdir(test_folder_path);
		perror("fork");
		exit(1);
	}
	if (remover > 0) {
		close(ends[0]);
		return;
	}
	setsid(); /* out of reach of the terminal's signals */
	for (int fd = 0; fd < 3; fd++)
		close(fd);
	close(ends[1]);
	while (read(ends[0], &byte, 1) < 0 && errno == EINTR)
		;
	nftw(test_folder_path, test_remove_one, 16, FTW_DEPTH | FTW_PHYS);
	_exit(0);
}

/* A path in the folder that no other test of this program uses. */
static inline const char *test_path(char path[PATH_MAX], const char *name)
{
	static unsigned int number;

	snprintf(path, PATH_MAX, "%s/%s.%d.%u", test_folder_path, name, (int)getpid(), number++);
	return path;
}

/* Whether the temporary folder is on tmpfs, where nothing is ever dirty. */
static inline bool test_on_tmpfs(void)
{
	struct statfs fs;

	return !statfs(test_folder_path, &fs) && fs.f_type == 0x01021994;
}

/* --- Files ------------------------------------------------------------------------------------ */

static inline void test_pwrite(int fd, const void *data, size_t length, uint64_t offset)
{
	ck_assert_int_eq(pwrite(fd, data, length, (off_t)offset), (ssize_t)length);
}

/* Writes the pattern in pieces. Pieces of a page give page-sized folios, so that pages of the file
 * are dirty one by one. */
static inline void test_pwrite_pattern(int fd, uint64_t offset, uint64_t length, size_t piece)
{
	uint8_t *buffer = malloc(piece);

	ck_assert_ptr_nonnull(buffer);
	while (length) {
		const size_t n = length < piece ? length : piece;

		test_fill(buffer, offset, n);
		test_pwrite(fd, buffer, n, offset);
		offset += n;
		length -= n;
	}
	free(buffer);
}

/* A new file of the pattern, clean, in page-sized folios. Returns a descriptor of it. */
static inline int test_file_at(const char *path, uint64_t size)
{
	const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	test_pwrite_pattern(fd, 0, size, (size_t)sysconf(_SC_PAGESIZE));
	ck_assert_int_eq(fsync(fd), 0);
	return fd;
}

static inline int test_file(char path[PATH_MAX], uint64_t size)
{
	return test_file_at(test_path(path, "file"), size);
}

/* A new file of nothing but a hole. */
static inline int test_file_sparse(char path[PATH_MAX], uint64_t size)
{
	const int fd = test_file(path, 0);

	ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static inline uint64_t test_size(int fd)
{
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	return (uint64_t)st.st_size;
}

static inline uint64_t test_blocks(int fd)
{
	struct stat st;

	ck_assert_int_eq(fsync(fd), 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks;
}

/* Drops clean pages from memory, so that the next access reads the disk. */
static inline void test_drop(int fd)
{
	ck_assert_int_eq(fsync(fd), 0);
	ck_assert_int_eq(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
}

static inline bool test_disk_is_pattern(int fd, uint64_t offset, size_t length)
{
	uint8_t *buffer = malloc(length + 1);
	bool equal;

	ck_assert_ptr_nonnull(buffer);
	equal = pread(fd, buffer, length, (off_t)offset) == (ssize_t)length &&
		test_is_pattern(buffer, offset, length);
	free(buffer);
	return equal;
}

static inline struct mmapio_file *test_open_with(const char *path,
						 const struct mmapio_options *options)
{
	struct mmapio_file *file = NULL;

	ck_assert_int_eq(mmapio_open(&file, path, options), 0);
	ck_assert_ptr_nonnull(file);
	return file;
}

static inline struct mmapio_file *test_open(const char *path, enum mmapio_mode mode)
{
	const struct mmapio_options options = MMAPIO_OPTIONS_INIT(mode);

	return test_open_with(path, &options);
}

static inline void test_write(struct mmapio_file *file, uint64_t offset, const void *data,
			      size_t length)
{
	ck_assert_int_eq(mmapio_write(file, offset, data, length), (ssize_t)length);
}

static inline void test_write_pattern(struct mmapio_file *file, uint64_t offset, size_t length)
{
	uint8_t *buffer = malloc(length + 1);

	ck_assert_ptr_nonnull(buffer);
	test_fill(buffer, offset, length);
	test_write(file, offset, buffer, length);
	free(buffer);
}

/* Whether both ways to read give the pattern. */
static inline bool test_reads_pattern(struct mmapio_file *file, uint64_t offset, size_t length)
{
	struct mmapio_slice slice;
	uint8_t *buffer = malloc(length + 1);
	bool equal;

	ck_assert_ptr_nonnull(buffer);
	ck_assert_int_eq(mmapio_read(file, offset, buffer, length), (ssize_t)length);
	ck_assert_int_eq(mmapio_slice_get(file, offset, length, &slice), 0);
	equal = test_is_pattern(buffer, offset, length) &&
		test_is_pattern(slice.data, offset, length);
	mmapio_slice_put(&slice);
	free(buffer);
	return equal;
}

/* Mappings of this process that name the path. */
static inline unsigned int test_mappings(const char *path)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[PATH_MAX + 128];
	unsigned int n = 0;

	ck_assert_ptr_nonnull(maps);
	while (fgets(line, sizeof(line), maps))
		n += strstr(line, path) != NULL;
	fclose(maps);
	return n;
}

/* --- cachestat(2) ----------------------------------------------------------------------------- */

/* Our own declaration: <linux/mman.h> has it only since Linux 6.5. */
struct test_cachestat {
	uint64_t nr_cache;
	uint64_t nr_dirty;
	uint64_t nr_writeback;
	uint64_t nr_evicted;
	uint64_t nr_recently_evicted;
};

/* length 0: up to the end */
static inline int test_cachestat(int fd, uint64_t offset, uint64_t length,
				 struct test_cachestat *result)
{
	const struct {
		uint64_t offset;
		uint64_t length;
	} range = {offset, length};

	return (int)syscall(451, fd, &range, result, 0);
}

/* Pages that the kernel has yet to bring to the disk. */
static inline uint64_t test_dirty_pages_of(int fd, uint64_t offset, uint64_t length)
{
	struct test_cachestat pages;

	ck_assert_int_eq(test_cachestat(fd, offset, length, &pages), 0);
	return pages.nr_dirty + pages.nr_writeback;
}

static inline uint64_t test_dirty_pages(int fd)
{
	return test_dirty_pages_of(fd, 0, 0);
}

static inline uint64_t test_cached_pages_of(int fd, uint64_t offset, uint64_t length)
{
	struct test_cachestat pages;

	ck_assert_int_eq(test_cachestat(fd, offset, length, &pages), 0);
	return pages.nr_cache;
}

/* How long to wait until a page is clean: less than the 30 seconds after which the kernel writes it
 * unasked, else nothing would fail. */
#define TEST_CLEAN_NS (20 * SECOND)

static inline bool test_becomes_clean(int fd)
{
	const uint64_t end = test_now() + TEST_CLEAN_NS;

	while (test_dirty_pages(fd)) {
		if (test_now() > end)
			return false;
		test_sleep(MILLISECOND);
	}
	return true;
}

/* Drops all pages from memory. One that the kernel holds for a moment stays the first time. */
static inline void test_drop_all(int fd)
{
	const uint64_t end = test_now() + 5 * SECOND;

	test_drop(fd);
	while (test_cached_pages_of(fd, 0, 0)) {
		ck_assert_msg(test_now() < end, "the pages cannot be dropped from memory");
		test_sleep(MILLISECOND);
		test_drop(fd);
	}
}

/*
 * That pages stay dirty, and how many, depends on others, too: sync(2) makes them clean, and where
 * memory runs short, page-sized folios go and larger ones may come back. What a disturbance could
 * explain is tried up to three times, with fresh files, and the last try counts:
 *
 *	for (int try = 0; test_try(try); try++) {
 *		...
 *		TEST_TRY_EQ(test_dirty_pages(fd), 3);
 *	}
 */
static bool test_try_missed;
static bool test_try_last;

static inline bool test_try(int try)
{
	const bool again = try == 0 || test_try_missed;

	test_try_missed = false;
	test_try_last = try == 2;
	return again;
}

#define TEST_TRY_EQ(FOUND, EXPECTED)                                                               \
	do {                                                                                       \
		const uint64_t try_found = (FOUND);                                                \
		const uint64_t try_expected = (EXPECTED);                                          \
                                                                                                   \
		ck_assert_msg(try_found == try_expected || !test_try_last,                         \
			      "%s is %ju, not %ju, in each try", #FOUND, (uintmax_t)try_found,     \
			      (uintmax_t)try_expected);                                            \
		test_try_missed |= try_found != try_expected;                                      \
	} while (0)

/* Ends the program where cachestat(2) cannot be the judge. */
static inline void test_need_cachestat(void)
{
	struct test_cachestat pages;
	char path[PATH_MAX];
	const int fd = open(test_path(path, "probe"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (test_cachestat(fd, 0, 0, &pages) && errno == ENOSYS) {
		printf("SKIP: this kernel (before 6.5) lacks cachestat(2)\n");
		exit(TEST_SKIP);
	}
	if (test_on_tmpfs()) {
		printf("SKIP: %s is on tmpfs, which has no dirty pages: set TMPDIR\n",
		       test_folder_path);
		exit(TEST_SKIP);
	}
	close(fd);
}

/* --- Small file systems ----------------------------------------------------------------------- */

/* An ext4 of its own on a loop device over a file. */
struct test_disk {
	char folder[PATH_MAX]; /* where it is mounted */
	char device[16];       /* the name of the loop device */
	uint64_t size;
	int image;
	int loop;
};

/*
 * In a mount namespace of this program: other tests' FUSE mounts, should some run beside this one,
 * were copied, and are not to be kept from ending. Where mounts are private, as without systemd, no
 * unmount is told to a slave.
 */
static inline void test_detach_copies(void)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	struct mntent *entry;

	while (mounts && (entry = getmntent(mounts))) {
		if (!strncmp(entry->mnt_type, "fuse", 4) && strstr(entry->mnt_dir, "/mmapfs-test."))
			umount2(entry->mnt_dir, MNT_DETACH | UMOUNT_NOFOLLOW);
	}
	if (mounts)
		endmntent(mounts);
}

/* What is mounted from here on is nobody else's to see. In a root folder entered by chroot(2), "/"
 * is no mount: so each is set by itself. */
static inline bool test_detach_mounts(void)
{
	FILE *mounts;
	char line[PATH_MAX * 2], place[PATH_MAX];

	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) == 0)
		return true;
	mounts = fopen("/proc/self/mountinfo", "re");
	if (!mounts)
		return false;
	while (fgets(line, sizeof(line), mounts))
		if (sscanf(line, "%*s %*s %*s %*s %4095s", place) == 1)
			(void)!mount(NULL, place, NULL, MS_SLAVE, NULL);
	fclose(mounts);
	return true;
}

/*
 * Whether file systems can be made here: call it in main(), before Check forks. Mounts are made in
 * a mount namespace of this program, on loop devices that detach themselves, so that the kernel
 * takes everything away even when the program is killed.
 */
static inline bool test_disk_possible(void)
{
	const int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

	if (geteuid() || control < 0 || unshare(CLONE_NEWNS) || !test_detach_mounts() ||
	    system("command -v mkfs.ext4 >/dev/null 2>&1")) {
		if (control >= 0)
			close(control);
		return false;
	}
	close(control);
	test_detach_copies();
	return true;
}

static inline int test_loop_attach(int image)
{
	const struct loop_config config = {
		.fd = (uint32_t)image,
		.info = {.lo_flags = LO_FLAGS_AUTOCLEAR},
	};
	const int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	char path[32];

	ck_assert_int_ge(control, 0);
	for (int try = 0; try < 20; try++) {
		int loop;

		snprintf(path, sizeof(path), "/dev/loop%d", ioctl(control, LOOP_CTL_GET_FREE));
		loop = open(path, O_RDWR | O_CLOEXEC);
		if (loop < 0)
			continue;
		if (!ioctl(loop, LOOP_CONFIGURE, &config)) {
			close(control);
			return loop;
		}
		close(loop); /* somebody else was faster */
	}
	ck_abort_msg("no loop device could be had: %s", strerror(errno));
}

/* Mounts what disk->image has. */
static inline void test_disk_attach(struct test_disk *disk)
{
	struct stat st;
	char path[32];

	disk->loop = test_loop_attach(disk->image);
	ck_assert_int_eq(fstat(disk->loop, &st), 0);
	snprintf(disk->device, sizeof(disk->device), "loop%u", (unsigned int)(st.st_rdev & 0xff));
	snprintf(path, sizeof(path), "/dev/%s", disk->device);
	test_path(disk->folder, "disk");
	ck_assert_int_eq(mkdir(disk->folder, 0700), 0);
	ck_assert_int_eq(mount(path, disk->folder, "ext4", MS_NOATIME, "errors=continue"), 0);
}

/* options: of mkfs.ext4 */
static inline void test_disk_mount(struct test_disk *disk, uint64_t size, const char *options)
{
	char command[2 * PATH_MAX];
	char path[PATH_MAX];

	disk->size = size;
	disk->image = open(test_path(path, "image"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(disk->image, 0);
	ck_assert_int_eq(ftruncate(disk->image, (off_t)size), 0);
	snprintf(command, sizeof(command), "mkfs.ext4 -q -F -m 0 %s '%s'", options, path);
	ck_assert_int_eq(system(command), 0);
	unlink(path);
	test_disk_attach(disk);
}

/* Makes everything from cut on fail with EIO, as a disk that has died there. */
static inline void test_disk_break(struct test_disk *disk, uint64_t cut)
{
	ck_assert_int_eq(ftruncate(disk->image, (off_t)cut), 0);
	ck_assert_int_eq(ioctl(disk->loop, LOOP_SET_CAPACITY, 0), 0);
}

static inline void test_disk_repair(struct test_disk *disk)
{
	test_disk_break(disk, disk->size);
}

static inline void test_disk_unmount(struct test_disk *disk)
{
	umount2(disk->folder, MNT_DETACH);
	rmdir(disk->folder);
	close(disk->loop);
	close(disk->image);
}

/* A new path on the disk. */
static inline const char *test_disk_path(char path[PATH_MAX], const struct test_disk *disk)
{
	static unsigned int number;

	ck_assert_int_lt(
		snprintf(path, PATH_MAX, "%s/%d.%u", disk->folder, (int)getpid(), number++),
		PATH_MAX);
	return path;
}

/* --- Running ---------------------------------------------------------------------------------- */

static inline TCase *test_case(Suite *suite, const char *name)
{
	TCase *tcase = tcase_create(name);

	tcase_set_timeout(tcase, TEST_TIMEOUT_S);
	suite_add_tcase(suite, tcase);
	return tcase;
}

/* Returns the exit status of the program. */
static inline int test_run(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

#endif
