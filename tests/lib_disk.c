/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_disk.c - tests that what is flushed is on the disk, the size as well as the bytes
 *
 * The disk is an ext4 with a journal on a loop device. Its image is copied as it is, while mounted,
 * and the copy mounted elsewhere, as a machine would find it after a crash: the journal is
 * replayed. A loop device has the host's page cache for its own, so the image has all that was
 * given to the device. Whether the device was also told to keep it is said by its count of flushes.
 */
#include "lib_test.h"

static uint64_t page;
static struct test_disk disk;

enum change { WRITE, STORE, APPEND, GROW, SHRINK, CHANGES };

/* What brings a change to the disk; NOTHING is the control. A flush of a range is for bytes, and
 * comes last: what is after WRITE, STORE and APPEND is not its affair. */
enum way {
	NOTHING,
	FLUSH,
	SYNC_DATA,
	SYNC_METADATA,
	POLICY_ALWAYS,
	POLICY_DELAY,
	POLICY_WRITES,
	FLUSH_RANGE,
};

enum { CASES = FLUSH_RANGE * CHANGES + GROW };

/* Contents of a file. */
struct contents {
	uint64_t size;
	uint8_t *bytes;
};

/* Nothing but fsync and its like is to start the journal's commit, nor write in the background. */
static void mount_disk(void)
{
	test_disk_mount(&disk, 32 * MIB,
			"-J size=4 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard");
	ck_assert_int_eq(mount(NULL, disk.folder, NULL, MS_REMOUNT | MS_NOATIME,
			       "errors=continue,commit=3600"),
			 0);
}

static void unmount_disk(void)
{
	test_disk_unmount(&disk);
}

/* How often the device was told to bring its cache to the disk. */
static uint64_t device_flushes(void)
{
	char path[PATH_MAX];
	unsigned long long flushes = 0;
	FILE *stat;

	snprintf(path, sizeof(path), "/sys/block/%s/stat", disk.device);
	stat = fopen(path, "re");
	ck_assert_ptr_nonnull(stat);
	for (int field = 1; field <= 16; field++)
		ck_assert_int_eq(fscanf(stat, "%llu", &flushes), 1);
	fclose(stat);
	return flushes;
}

static void copy_image(int target)
{
	char *buffer = malloc(MIB);
	off_t offset = 0;

	ck_assert_ptr_nonnull(buffer);
	ck_assert_int_eq(ftruncate(target, (off_t)disk.size), 0);
	while ((offset = lseek(disk.image, offset, SEEK_DATA)) >= 0) {
		const ssize_t n = pread(disk.image, buffer, MIB, offset);

		ck_assert_int_gt(n, 0);
		test_pwrite(target, buffer, (size_t)n, (uint64_t)offset);
		offset += n;
	}
	free(buffer);
}

static bool file_holds(const char *path, const struct contents *contents)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t *found = malloc(contents->size + 1);
	bool equal;

	ck_assert_int_ge(fd, 0);
	ck_assert_ptr_nonnull(found);
	equal = test_size(fd) == contents->size &&
		pread(fd, found, contents->size + 1, 0) == (ssize_t)contents->size &&
		!memcmp(found, contents->bytes, contents->size);
	free(found);
	close(fd);
	return equal;
}

/* Whether the disk, as it is at this moment, has a file with these contents. */
static bool disk_holds(const char *path, const struct contents *contents)
{
	struct test_disk copy = {.size = disk.size};
	char name[PATH_MAX];
	bool equal;

	copy.image = open(test_path(name, "copy"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(copy.image, 0);
	unlink(name);
	copy_image(copy.image);
	test_disk_attach(&copy);
	snprintf(name, sizeof(name), "%s%s", copy.folder, path + strlen(disk.folder));
	equal = file_holds(name, contents);
	test_disk_unmount(&copy);
	return equal;
}

/* Changes the file, and contents, which has room for it, in the same way. */
static void change(struct mmapio_file *file, enum change how, struct contents *contents)
{
	const uint64_t offset = how == APPEND ? contents->size : 3 * page + 7;
	const size_t length = 5 * page;
	struct mmapio_slice_mut slice;
	uint64_t size = contents->size;

	switch (how) {
	case WRITE:
	case APPEND:
		test_fill(contents->bytes + offset, offset, length);
		test_write(file, offset, contents->bytes + offset, length);
		size = offset + length > size ? offset + length : size;
		break;
	case STORE:
		test_fill(contents->bytes + offset, offset, length);
		ck_assert_int_eq(mmapio_slice_get_mut(file, offset, length, &slice), 0);
		memcpy(slice.data, contents->bytes + offset, length);
		ck_assert_int_eq(mmapio_commit(&slice, 0, length), 0);
		mmapio_slice_put_mut(&slice);
		break;
	default:
		size = how == GROW ? size + 7 * page : size - 6 * page - 3;
		ck_assert_int_eq(mmapio_file_resize(file, size, 0), 0);
		break;
	}
	contents->size = size;
}

static void bring_to_disk(struct mmapio_file *file, enum way way)
{
	switch (way) {
	case FLUSH:
		ck_assert_int_eq(mmapio_flush(file), 0);
		break;
	case FLUSH_RANGE:
		ck_assert_int_eq(mmapio_flush_range(file, 0, mmapio_file_size(file)), 0);
		break;
	case SYNC_DATA:
	case SYNC_METADATA:
		ck_assert_int_eq(mmapio_sync(file, way == SYNC_METADATA), 0);
		break;
	case POLICY_DELAY:
		for (int i = 0; i < 20000 && mmapio_is_dirty(file); i++)
			test_sleep(MILLISECOND);
		break;
	default:
		break;
	}
}

static struct mmapio_policy policy_of(enum way way)
{
	switch (way) {
	case POLICY_ALWAYS:
		return (struct mmapio_policy){.always = true};
	case POLICY_DELAY:
		return (struct mmapio_policy){.delay_ns = 50 * MILLISECOND};
	case POLICY_WRITES:
		return (struct mmapio_policy){.writes = 1};
	default:
		return (struct mmapio_policy){0};
	}
}

/* _i: way and change */
START_TEST(flushed_change_is_on_the_disk)
{
	const enum way way = _i / CHANGES;
	const enum change how = _i % CHANGES;

	for (int try = 0; test_try(try); try++) {
		struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
		struct contents before = {16 * page + 5, malloc(32 * page)};
		struct contents after = {before.size, calloc(32, page)};
		char path[PATH_MAX];
		const int fd = test_file_at(test_disk_path(path, &disk), 0);
		struct mmapio_file *file;
		uint64_t flushes;

		ck_assert(before.bytes && after.bytes);
		memset(before.bytes, '.', before.size);
		memset(after.bytes, '.', before.size);
		test_pwrite(fd, before.bytes, before.size, 0);
		ck_assert_int_eq(syncfs(fd), 0);
		ck_assert(disk_holds(path, &before));

		ck_assert_int_eq(mmapio_flusher_new(&options.flusher), 0);
		options.policy = policy_of(way);
		file = test_open_with(path, &options);
		flushes = device_flushes();
		change(file, how, &after);
		if (way == NOTHING) { /* else no test here could fail */
			TEST_TRY_EQ(disk_holds(path, &before), true);
			TEST_TRY_EQ(device_flushes(), flushes);
		} else {
			bring_to_disk(file, way);
			ck_assert(disk_holds(path, &after));
			ck_assert_uint_gt(device_flushes(), flushes);
		}
		mmapio_file_unref(file);
		mmapio_flusher_free(options.flusher);
		free(before.bytes);
		free(after.bytes);
		close(fd);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("disk");
	TCase *flushed = test_case(suite, "flushed");

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	if (!test_disk_possible()) {
		printf("SKIP: needs root, loop devices and mkfs.ext4\n");
		return TEST_SKIP;
	}
	test_make_folder();
	tcase_add_unchecked_fixture(flushed, mount_disk, unmount_disk);
	tcase_add_loop_test(flushed, flushed_change_is_on_the_disk, 0, CASES);
	return test_run(suite);
}
