/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_advise.c - tests of advice, page locks, huge pages and eager touch: that they reach the
 * kernel, and stay when the mapping is replaced
 *
 * The kernel is the judge: /proc/self/smaps says which flags each piece of a mapping has (rr, sr:
 * advice; lo, lf: locked; hg: huge pages), and what of it is in memory.
 */
#define MMAPIO_LIBRARY /* NULLs are given on purpose */
#include "lib_test.h"

#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define HUGE_PAGE (2 * MIB)

static const enum mmapio_mode modes[] = {MMAPIO_READ_ONLY, MMAPIO_READ_WRITE, MMAPIO_COPY_ON_WRITE};

static uint64_t page;
static bool mounts_possible;

#if TEST_SANITIZED
/* The sanitizers' own does nothing. */
__attribute__((visibility("default"))) int munlock(const void *start, size_t length)
{
	return (int)syscall(SYS_munlock, start, length);
}
#endif

/* --- What the kernel says --------------------------------------------------------------------- */

struct found {
	char flags[128]; /* of the piece with the first byte, with a space on each side */
	uint64_t resident, private_dirty, huge;
	uint64_t locked; /* bytes in memory in pieces that are locked */
	unsigned int pieces;
};

/* Of the pieces of mappings that have any of [start, start + length). */
static struct found find(const char *start, uint64_t length)
{
	const uintptr_t first = (uintptr_t)start, last = first + length - 1;
	FILE *smaps = fopen("/proc/self/smaps", "re");
	struct found found = {0};
	uint64_t resident = 0;
	uintptr_t from = 1, to = 0;
	char line[PATH_MAX + 256];

	ck_assert_ptr_nonnull(smaps);
	while (fgets(line, sizeof(line), smaps)) {
		uintptr_t a, b;
		uint64_t kib = 0;
		char name[32];

		if (sscanf(line, "%lx-%lx ", &a, &b) == 2) {
			from = a;
			to = b - 1;
			found.pieces += from <= last && to >= first;
			continue;
		}
		if (from > last || to < first)
			continue;
		if (!strncmp(line, "VmFlags:", 8)) {
			if (from <= first)
				snprintf(found.flags, sizeof(found.flags), "%.120s", line + 8);
			if (strstr(line, " lo "))
				found.locked += resident;
		} else if (sscanf(line, "%31[^:]: %lu", name, &kib) == 2) {
			if (!strcmp(name, "Rss"))
				found.resident += resident = kib * KIB;
			if (!strcmp(name, "Private_Dirty"))
				found.private_dirty += kib * KIB;
			if (!strcmp(name, "AnonHugePages") || !strcmp(name, "ShmemPmdMapped") ||
			    !strcmp(name, "FilePmdMapped"))
				found.huge += kib * KIB;
		}
	}
	fclose(smaps);
	return found;
}

/* Where the mapping begins, which reaches the end of the file by then. */
static const char *base_of(struct mmapio_file *file)
{
	struct mmapio_slice slice;
	const char *base;

	ck_assert_int_eq(mmapio_slice_get(file, 0, mmapio_file_size(file), &slice), 0);
	base = slice.data;
	mmapio_slice_put(&slice);
	return base;
}

/* "r", "s", "-" for each page: random, sequential, neither. */
static const char *advice_of(struct mmapio_file *file, uint64_t first, unsigned int count)
{
	static char text[64];
	const char *base = base_of(file);

	ck_assert_uint_lt(count, sizeof(text));
	for (unsigned int i = 0; i < count; i++) {
		const struct found found = find(base + (first + i) * page, page);
		const bool random = strstr(found.flags, " rr "),
			   sequential = strstr(found.flags, " sr ");

		text[i] = random && sequential ? '?' : random ? 'r' : sequential ? 's' : '-';
	}
	text[count] = 0;
	return text;
}

/* "L" for each page that is locked as it should be, "-" for others. */
static const char *locks_of(struct mmapio_file *file, uint64_t first, unsigned int count)
{
	static char text[64];
	const char *base = base_of(file);

	ck_assert_uint_lt(count, sizeof(text));
	for (unsigned int i = 0; i < count; i++) {
		const struct found found = find(base + (first + i) * page, page);

		text[i] = !strstr(found.flags, " lo ")	? '-'
			  : strstr(found.flags, " lf ") ? 'L'
							: 'l';
	}
	text[count] = 0;
	return text;
}

/* VmLck: all that counts against the limit of this process. */
static uint64_t charged(void)
{
	FILE *status = fopen("/proc/self/status", "re");
	char line[256];
	uint64_t kib = UINT64_MAX;

	while (status && fgets(line, sizeof(line), status))
		if (sscanf(line, "VmLck: %lu", &kib) == 1)
			break;
	ck_assert_ptr_nonnull(status);
	fclose(status);
	ck_assert_uint_ne(kib, UINT64_MAX);
	return kib * KIB;
}

static uint64_t locked(struct mmapio_file *file)
{
	uint64_t bytes = 1;

	ck_assert_int_eq(mmapio_locked_bytes(file, &bytes), 0);
	return bytes;
}

static void assert_error(enum mmapio_error_kind kind, int code)
{
	struct mmapio_error error = MMAPIO_ERROR_INIT;

	ck_assert_int_eq(mmapio_error_last(&error), code);
	ck_assert_int_eq(error.kind, kind);
}

static void assert_bounds(uint64_t offset, uint64_t length, uint64_t total)
{
	struct mmapio_error error = MMAPIO_ERROR_INIT;

	ck_assert_int_eq(mmapio_error_last(&error), -ERANGE);
	ck_assert_int_eq(error.kind, MMAPIO_ERROR_BOUNDS);
	ck_assert_uint_eq(error.offset, offset);
	ck_assert_uint_eq(error.length, length);
	ck_assert_uint_eq(error.total, total);
}

static void advise(struct mmapio_file *file, uint64_t offset, uint64_t length,
		   enum mmapio_advice advice)
{
	ck_assert_int_eq(mmapio_advise(file, offset, length, advice), 0);
}

static void lock(struct mmapio_file *file, uint64_t offset, uint64_t length)
{
	ck_assert_int_eq(mmapio_lock(file, offset, length), 0);
}

static void unlock(struct mmapio_file *file, uint64_t offset, uint64_t length)
{
	ck_assert_int_eq(mmapio_unlock(file, offset, length), 0);
}

static void resize(struct mmapio_file *file, uint64_t size)
{
	ck_assert_int_eq(mmapio_file_resize(file, size, MMAPIO_FOREVER), 0);
}

/* Grows a file until it has another mapping, whatever the reserve is. A slice keeps the old one,
 * so that no other can be in its place. */
static uint64_t grow_beyond(struct mmapio_file *file, struct mmapio_slice *held)
{
	uint64_t size = mmapio_file_size(file);
	struct mmapio_slice slice;
	bool same = true;

	ck_assert_int_eq(mmapio_slice_get(file, 0, 1, held), 0);
	while (same) {
		size += 128 * KIB;
		resize(file, size);
		ck_assert_int_eq(mmapio_slice_get(file, size - 1, 1, &slice), 0);
		same = (const char *)slice.data - (size - 1) == held->data;
		mmapio_slice_put(&slice);
	}
	return size;
}

/* --- Advice ----------------------------------------------------------------------------------- */

/* _i: mode */
START_TEST(advice_reaches_whole_pages)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 9 * page + 100);
	struct mmapio_file *file = test_open(path, modes[_i]);

	ck_assert_str_eq(advice_of(file, 0, 10), "----------");
	advise(file, 2 * page + 1, 1, MMAPIO_ADVICE_RANDOM);
	advise(file, 6 * page, 2 * page, MMAPIO_ADVICE_RANDOM);
	ck_assert_str_eq(advice_of(file, 0, 10), "--r---rr--");
	advise(file, 3 * page - 1, 2, MMAPIO_ADVICE_SEQUENTIAL);
	ck_assert_str_eq(advice_of(file, 0, 10), "--ss--rr--");
	advise(file, 3 * page, 4 * page - 1, MMAPIO_ADVICE_NORMAL);
	ck_assert_str_eq(advice_of(file, 0, 10), "--s----r--");
	advise(file, 8 * page + 5, page + 95, MMAPIO_ADVICE_RANDOM); /* up to the very end */
	ck_assert_str_eq(advice_of(file, 0, 10), "--s----rrr");
	advise(file, 0, 0, MMAPIO_ADVICE_SEQUENTIAL);
	advise(file, 9 * page + 100, 0, MMAPIO_ADVICE_SEQUENTIAL);
	ck_assert_str_eq(advice_of(file, 0, 10), "--s----rrr");
	advise(file, 5, UINT64_MAX, MMAPIO_ADVICE_NORMAL);
	ck_assert_str_eq(advice_of(file, 0, 10), "----------");
	ck_assert_uint_eq(find(base_of(file), 10 * page).pieces, 1);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(advice_survives_changes_of_size)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 10 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_slice held;
	uint64_t size;

	advise(file, page, page, MMAPIO_ADVICE_RANDOM);
	advise(file, 4 * page, page, MMAPIO_ADVICE_SEQUENTIAL);
	advise(file, 6 * page, UINT64_MAX, MMAPIO_ADVICE_SEQUENTIAL);
	advise(file, 8 * page, 1, MMAPIO_ADVICE_RANDOM);
	resize(file, 11 * page);
	ck_assert_str_eq(advice_of(file, 0, 11), "-r--s-ssrss");
	size = grow_beyond(file, &held);
	ck_assert_str_eq(advice_of(file, 0, 11), "-r--s-ssrss");
	ck_assert_str_eq(advice_of(file, size / page - 1, 1), "s");
	mmapio_slice_put(&held);
	/* by a write, as well */
	test_write_pattern(file, size + 512 * KIB, 1000);
	ck_assert_str_eq(advice_of(file, 0, 11), "-r--s-ssrss");
	ck_assert_str_eq(advice_of(file, (size + 512 * KIB) / page, 1), "s");

	/* a shrink forgets what lies beyond, but for what goes to the end */
	resize(file, 3 * page + 1);
	ck_assert_str_eq(advice_of(file, 0, 4), "-r--");
	resize(file, 12 * page);
	ck_assert_str_eq(advice_of(file, 0, 12), "-r-------sss"); /* the last range begins at 9 */
	resize(file, 0);
	resize(file, 12 * page);
	ck_assert_str_eq(advice_of(file, 0, 12), "---------sss");
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(a_mapping_that_can_be_written_has_it_too)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 10 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_ONLY);
	struct mmapio_slice held;

	advise(file, page, page, MMAPIO_ADVICE_RANDOM);
	advise(file, 3 * page, UINT64_MAX, MMAPIO_ADVICE_SEQUENTIAL);
	lock(file, 2 * page, 2 * page);
	ck_assert_int_eq(mmapio_slice_get(file, 0, 1, &held), 0);
	ck_assert_int_eq(mmapio_file_make_writable(file, dup(fd)), 0);
	ck_assert_ptr_ne(base_of(file), held.data);
	ck_assert_str_eq(advice_of(file, 0, 10), "-r-sssssss");
	ck_assert_str_eq(locks_of(file, 0, 10), "--LL------");
	ck_assert_uint_eq(locked(file), 2 * page);
	ck_assert_uint_eq(find(held.data, 10 * page).locked, 0); /* the old one counts no more */
	mmapio_slice_put(&held);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(a_lazy_file_remembers)
{
	const struct mmapio_options options = {
		.size = sizeof(options), .mode = modes[_i], .flags = MMAPIO_LAZY};
	char path[PATH_MAX];
	const int fd = test_file(path, 10 * page);
	struct mmapio_file *file = test_open_with(path, &options);

	advise(file, page + 1, 1, MMAPIO_ADVICE_RANDOM);
	advise(file, 5 * page, UINT64_MAX, MMAPIO_ADVICE_SEQUENTIAL);
	advise(file, 0, UINT64_MAX, MMAPIO_ADVICE_WILL_NEED);
	advise(file, 0, UINT64_MAX, MMAPIO_ADVICE_DONT_NEED);
	ck_assert_uint_eq(locked(file), 0);
	unlock(file, 0, UINT64_MAX);
	ck_assert_uint_eq(test_mappings(path), 0);
	ck_assert_str_eq(advice_of(file, 0, 10), "-r---sssss");
	mmapio_file_unref(file);

	file = test_open_with(path, &options);
	lock(file, page, page);
	ck_assert_uint_gt(test_mappings(path), 0);
	ck_assert_uint_eq(locked(file), page);
	ck_assert_str_eq(locks_of(file, 0, 10), "-L--------");
	mmapio_file_unref(file);
	ck_assert_uint_eq(charged(), 0);
	close(fd);
}
END_TEST

START_TEST(what_cannot_be_mapped_is_advised_all_the_same)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	const int fd = test_file(path, 10 * page);
	const int writer = open(path, O_WRONLY | O_CLOEXEC);
	struct mmapio_file *file;

	options.flags = MMAPIO_LAZY | MMAPIO_TOUCH;
	ck_assert_int_eq(mmapio_open_fd(&file, writer, &options), 0);
	for (int twice = 0; twice < 2; twice++) {
		ck_assert_int_eq(mmapio_lock(file, 0, page), -ENODEV);
		assert_error(MMAPIO_ERROR_LOCK, -ENODEV);
	}
	unlock(file, 0, page);
	ck_assert_uint_eq(locked(file), 0);
	advise(file, page + 1, 1, MMAPIO_ADVICE_RANDOM);
	advise(file, 3 * page, UINT64_MAX, MMAPIO_ADVICE_SEQUENTIAL);
	advise(file, 0, 1, MMAPIO_ADVICE_NORMAL);
	advise(file, 0, 10 * page, MMAPIO_ADVICE_DONT_NEED);
	test_drop_all(fd);
	advise(file, 7 * page + 1, page, MMAPIO_ADVICE_WILL_NEED);
	for (uint64_t end = test_now() + 60 * SECOND; test_cached_pages_of(fd, 0, 0) < 2;)
		ck_assert_uint_lt(test_now(), end);
	ck_assert_uint_eq(test_cached_pages_of(fd, 7 * page, 2 * page), 2);
	/* what was remembered is there once it can be mapped */
	ck_assert_int_eq(mmapio_file_make_writable(file, dup(fd)), 0);
	ck_assert_str_eq(advice_of(file, 0, 10), "-r-sssssss");
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* _i: mode */
START_TEST(will_need_reads_the_range)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 8 * MIB);
	const uint64_t end = test_now() + 60 * SECOND;
	struct mmapio_file *file;

	test_drop_all(fd);
	file = test_open(path, modes[_i]);
	advise(file, 4 * MIB + 1, MIB, MMAPIO_ADVICE_WILL_NEED);
	while (test_cached_pages_of(fd, 4 * MIB, MIB + page) < MIB / page + 1) {
		ck_assert_msg(test_now() < end, "what was to be needed is not there");
		test_sleep(MILLISECOND);
	}
	ck_assert_uint_eq(test_cached_pages_of(fd, 0, 4 * MIB), 0);
	ck_assert_uint_eq(test_dirty_pages(fd), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* _i: mode */
START_TEST(dont_need_loses_nothing)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 64 * page);
	struct mmapio_file *file = test_open(path, modes[_i]);
	const char *base = base_of(file);
	struct mmapio_slice_mut slice;
	char byte;

	ck_assert_int_eq(mmapio_touch(file, 0, UINT64_MAX), 0);
	lock(file, 40 * page, page);
	if (modes[_i] != MMAPIO_READ_ONLY) {
		ck_assert_int_eq(mmapio_slice_get_mut(file, 7 * page + 5, 60 * 100, &slice), 0);
		memset(slice.data, '#', slice.length);
		ck_assert_int_eq(mmapio_commit(&slice, 0, slice.length), 0);
		mmapio_slice_put_mut(&slice);
	}
	ck_assert_uint_eq(find(base, 64 * page).resident, 64 * page);
	advise(file, page + 5, 60 * page, MMAPIO_ADVICE_DONT_NEED);
	if (modes[_i] != MMAPIO_COPY_ON_WRITE) /* given up, but 0, 62 and 63, and what is locked */
		ck_assert_uint_eq(find(base, 64 * page).resident, 4 * page);
	advise(file, 0, UINT64_MAX, MMAPIO_ADVICE_DONT_NEED);
	ck_assert_uint_eq(locked(file), page);
	ck_assert_uint_eq(test_cached_pages_of(fd, 0, 0), 64);
	if (modes[_i] != MMAPIO_READ_ONLY)
		for (uint64_t place = 7 * page + 5; place < 7 * page + 5 + 60 * 100; place++) {
			ck_assert_int_eq(mmapio_read(file, place, &byte, 1), 1);
			ck_assert_int_eq(byte, '#');
		}
	else
		ck_assert(test_reads_pattern(file, 7 * page, 2 * page));
	ck_assert(test_reads_pattern(file, 0, 7 * page));
	ck_assert(test_reads_pattern(file, 9 * page, 55 * page));
	ck_assert(test_disk_is_pattern(fd, 0, 64 * page) == (modes[_i] != MMAPIO_READ_WRITE));
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* --- Locks ------------------------------------------------------------------------------------ */

/* _i: mode */
START_TEST(locked_pages_are_in_memory)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 15 * page + 100);
	struct mmapio_file *file;
	const char *base;

	test_drop_all(fd);
	file = test_open(path, modes[_i]);
	base = base_of(file);
	ck_assert_uint_eq(locked(file), 0);
	lock(file, 2 * page + 1, 1);
	ck_assert_uint_eq(locked(file), page);
	lock(file, 6 * page - 1, 2 * page);
	ck_assert_str_eq(locks_of(file, 0, 16), "--L--LLL--------");
	ck_assert_uint_eq(locked(file), 4 * page);
	ck_assert_uint_eq(charged(), 4 * page);
	lock(file, 14 * page, page + 100); /* up to the very end */
	lock(file, 6 * page, page);	   /* once more: no nesting */
	lock(file, 3, 0);
	ck_assert_str_eq(locks_of(file, 0, 16), "--L--LLL------LL");
	ck_assert_uint_eq(locked(file), 6 * page);
	ck_assert_uint_eq(find(base, 16 * page).locked, 6 * page);
	/* what is asked to be dropped from memory stays, where it is locked */
	ck_assert_int_eq(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	ck_assert_uint_eq(test_cached_pages_of(fd, 14 * page, 0), 2);
	ck_assert_uint_eq(test_cached_pages_of(fd, 5 * page, 3 * page), 3);

	unlock(file, 6 * page + 1, 1);
	ck_assert_str_eq(locks_of(file, 0, 16), "--L--L-L------LL");
	ck_assert_uint_eq(locked(file), 5 * page);
	unlock(file, 0, 8 * page); /* of which some was locked */
	ck_assert_str_eq(locks_of(file, 0, 16), "--------------LL");
	lock(file, 0, UINT64_MAX);
	ck_assert_uint_eq(locked(file), 16 * page);
	ck_assert_uint_eq(test_cached_pages_of(fd, 0, 0), 16);
	unlock(file, page, UINT64_MAX);
	ck_assert_str_eq(locks_of(file, 0, 16), "L---------------");
	unlock(file, 0, UINT64_MAX);
	ck_assert_uint_eq(locked(file), 0);
	ck_assert_uint_eq(charged(), 0);
	ck_assert(test_reads_pattern(file, 0, 15 * page + 100));
	lock(file, 0, UINT64_MAX);
	mmapio_file_unref(file);
	ck_assert_uint_eq(charged(), 0);
	close(fd);
}
END_TEST

START_TEST(a_lock_to_the_end_follows_the_size)
{
	char path[PATH_MAX], other_path[PATH_MAX];
	const int fd = test_file(path, 0), other_fd = test_file(other_path, MIB);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_file *other = test_open(other_path, MMAPIO_READ_ONLY);
	struct mmapio_slice held;
	uint64_t size;

	lock(file, 0, UINT64_MAX); /* of an empty file: what it grows by */
	ck_assert_uint_eq(locked(file), 0);
	test_write_pattern(file, 0, 100);
	ck_assert_uint_eq(locked(file), page);
	test_write_pattern(file, 100, 3 * page);
	ck_assert_uint_eq(locked(file), 4 * page);
	resize(file, 8 * page);
	ck_assert_uint_eq(locked(file), 8 * page);
	ck_assert_uint_eq(charged(), 8 * page); /* the reserve does not count */

	size = grow_beyond(file, &held);
	ck_assert_uint_eq(locked(file), size);
	ck_assert_uint_eq(charged(), size);
	ck_assert_uint_eq(find(held.data, page).locked, 0);
	mmapio_slice_put(&held);

	/* far beyond the mapping, without anybody who asks for a new one */
	test_write_pattern(file, 2 * MIB, 1);
	ck_assert_uint_eq(locked(file), 2 * MIB + page);
	ck_assert_int_eq(mmapio_copy(other, 0, file, 2 * MIB + 1, MIB), (ssize_t)MIB);
	ck_assert_uint_eq(locked(file), 3 * MIB + page);
	/* by others */
	ck_assert_int_eq(ftruncate(fd, (off_t)(4 * MIB)), 0);
	ck_assert_int_eq(mmapio_file_refresh(file, NULL), 0);
	ck_assert_uint_eq(locked(file), 4 * MIB);
	ck_assert_int_eq(ftruncate(fd, (off_t)(MIB)), 0);
	ck_assert_int_eq(mmapio_file_refresh(file, NULL), 0);
	ck_assert_uint_eq(locked(file), MIB);
	ck_assert_uint_eq(charged(), MIB);
	ck_assert_int_eq(mmapio_file_allocate(file, 0, MIB, MIB), 0);
	ck_assert_uint_eq(locked(file), 2 * MIB);

	resize(file, 5 * page + 1);
	ck_assert_uint_eq(locked(file), 6 * page);
	ck_assert_uint_eq(charged(), 6 * page);
	resize(file, 0);
	ck_assert_uint_eq(charged(), 0);
	resize(file, 7 * page);
	ck_assert_uint_eq(locked(file), 7 * page);
	unlock(file, 2 * page, UINT64_MAX);
	resize(file, 9 * page);
	ck_assert_uint_eq(locked(file), 2 * page);
	mmapio_file_unref(file);
	mmapio_file_unref(other);
	close(other_fd);
	close(fd);
}
END_TEST

START_TEST(other_locks_stay_where_they_are)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 10 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_slice held;

	lock(file, page, page);
	lock(file, 6 * page, 4 * page);
	(void)grow_beyond(file, &held);
	ck_assert_str_eq(locks_of(file, 0, 12), "-L----LLLL--");
	ck_assert_uint_eq(locked(file), 5 * page);
	mmapio_slice_put(&held);
	resize(file, 8 * page);
	resize(file, 12 * page); /* forgotten */
	ck_assert_str_eq(locks_of(file, 0, 12), "-L----LL----");
	(void)grow_beyond(file, &held);
	ck_assert_str_eq(locks_of(file, 0, 12), "-L----LL----");
	ck_assert_uint_eq(charged(), 3 * page);

	/* a shrink that comes to nothing forgets nothing */
	lock(file, 10 * page, UINT64_MAX);
	ck_assert_int_eq(mmapio_file_resize(file, 0, 0), -EBUSY);
	ck_assert_str_eq(locks_of(file, 0, 12), "-L----LL--LL");
	ck_assert_uint_eq(locked(file), mmapio_file_size(file) - 7 * page);
	mmapio_slice_put(&held);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(a_lock_copies_no_private_page)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 16 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_COPY_ON_WRITE);
	const char *base = base_of(file);

	lock(file, 0, UINT64_MAX);
	ck_assert_uint_eq(locked(file), 16 * page);
	ck_assert_uint_eq(find(base, 16 * page).private_dirty, 0);
	test_pwrite(fd, "#", 1, 5 * page); /* and it still follows the file */
	ck_assert_int_eq(base[5 * page], '#');
	ck_assert_int_eq(fsync(fd), 0); /* else the file's own page is one, as it is mapped once */
	test_write(file, 7 * page, "+", 1);
	ck_assert_uint_eq(find(base, 16 * page).private_dirty, page);
	ck_assert_uint_eq(locked(file), 16 * page);
	unlock(file, 0, UINT64_MAX);
	lock(file, 0, 8 * page); /* with a page that is private by now */
	ck_assert_uint_eq(locked(file), 8 * page);
	ck_assert_int_eq(base[7 * page], '+');
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* Without the privilege, and with a limit, from here on. */
static void limit_locks(uint64_t limit)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	struct rlimit now;

	ck_assert_int_eq(syscall(SYS_capget, &header, data), 0);
	data[0].effective &= ~(1u << CAP_IPC_LOCK);
	ck_assert_int_eq(syscall(SYS_capset, &header, data), 0);
	ck_assert_int_eq(getrlimit(RLIMIT_MEMLOCK, &now), 0);
	now.rlim_cur = limit;
	ck_assert_int_eq(setrlimit(RLIMIT_MEMLOCK, &now), 0);
}

/* _i: mode */
START_TEST(no_lock_without_the_privilege)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 10 * page);
	struct mmapio_file *file = test_open(path, modes[_i]);
	struct mmapio_error error = MMAPIO_ERROR_INIT;
	char text[128];

	limit_locks(0);
	ck_assert_int_eq(mmapio_lock(file, 0, page), -EPERM);
	assert_error(MMAPIO_ERROR_LOCK, -EPERM);
	(void)mmapio_error_last(&error);
	ck_assert_int_gt(mmapio_error_text(&error, text, sizeof(text)), 0);
	ck_assert_str_eq(text, "locking of pages: Operation not permitted");
	ck_assert_int_eq(mmapio_lock(file, 0, UINT64_MAX), -EPERM);
	ck_assert_uint_eq(locked(file), 0);
	/* it has not been remembered either */
	limit_locks(8 * page);
	if (modes[_i] == MMAPIO_READ_WRITE)
		resize(file, MIB);
	ck_assert_uint_eq(locked(file), 0);
	ck_assert_uint_eq(charged(), 0);

	lock(file, 0, 4 * page);
	lock(file, 6 * page, page);
	ck_assert_int_eq(mmapio_lock(file, page, 9 * page), -ENOMEM);
	assert_error(MMAPIO_ERROR_LOCK, -ENOMEM);
	ck_assert_str_eq(locks_of(file, 0, 10), "LLLL--L---");
	ck_assert_uint_eq(locked(file), 5 * page);
	ck_assert_uint_eq(charged(), 5 * page);
	lock(file, page, 7 * page); /* what is locked already does not count twice */
	ck_assert_uint_eq(locked(file), 8 * page);
	unlock(file, 0, UINT64_MAX);
	ck_assert_uint_eq(charged(), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(a_file_grows_beyond_what_may_be_locked)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 10 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_slice held;
	uint64_t size;

	limit_locks(12 * page);
	lock(file, 0, UINT64_MAX);
	size = grow_beyond(file, &held); /* the limit does not allow for both mappings */
	ck_assert_uint_eq(locked(file), 12 * page);
	ck_assert_uint_eq(charged(), 12 * page);
	ck_assert_str_eq(locks_of(file, 0, 14), "LLLLLLLLLLLL--");
	mmapio_slice_put(&held);
	test_write_pattern(file, size, 5 * page);
	ck_assert_uint_eq(locked(file), 12 * page);
	ck_assert_uint_eq(mmapio_file_size(file), size + 5 * page);
	ck_assert(test_reads_pattern(file, size, 5 * page));
	/* another try fails as a whole, and nothing is taken away */
	ck_assert_int_eq(mmapio_lock(file, 0, UINT64_MAX), -ENOMEM);
	ck_assert_uint_eq(locked(file), 12 * page);
	limit_locks(2 * MIB);
	lock(file, 0, UINT64_MAX);
	ck_assert_uint_eq(locked(file), size + 5 * page);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(a_limit_allows_for_one_mapping)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 10 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_ONLY);
	struct mmapio_slice held;

	limit_locks(9 * page);
	lock(file, 0, 2 * page);
	lock(file, 4 * page, 4 * page);
	ck_assert_int_eq(mmapio_slice_get(file, 0, 1, &held), 0);
	ck_assert_int_eq(mmapio_file_make_writable(file, dup(fd)), 0);
	ck_assert_ptr_ne(base_of(file), held.data);
	ck_assert_str_eq(locks_of(file, 0, 10), "LL--LLLL--");
	ck_assert_uint_eq(locked(file), 6 * page);
	ck_assert_uint_eq(charged(), 6 * page);
	mmapio_slice_put(&held);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* A page cannot be read, and the lock is undone; those of before stay. */
START_TEST(no_lock_of_what_cannot_be_read)
{
	struct test_disk disk;
	char path[PATH_MAX];
	struct mmapio_file *file;
	int fd;

	test_disk_mount(&disk, 32 * MIB, "-b 4096");
	fd = test_file_at(test_disk_path(path, &disk), 8 * page);
	test_drop_all(fd);
	file = test_open(path, modes[_i]);
	advise(file, 0, UINT64_MAX, MMAPIO_ADVICE_RANDOM); /* nothing is read ahead */
	lock(file, page, page);
	test_disk_break(&disk, MIB / 2);
	ck_assert_int_eq(mmapio_lock(file, 0, UINT64_MAX), -EIO);
	assert_error(MMAPIO_ERROR_LOCK, -EIO);
	test_disk_repair(&disk);
	ck_assert_str_eq(locks_of(file, 0, 8), "-L------");
	ck_assert_uint_eq(charged(), page);
	lock(file, 0, UINT64_MAX);
	ck_assert_uint_eq(locked(file), 8 * page);
	mmapio_file_unref(file);
	close(fd);
	test_disk_unmount(&disk);
}
END_TEST

/* --- Errors ----------------------------------------------------------------------------------- */

/* _i: mode */
START_TEST(errors_tell_what_was_wrong)
{
	const struct {
		uint64_t offset;
		uint64_t length;
	} outside[] = {{10000, 1},	    {10001, 0},		{9999, 2},
		       {0, 10001},	    {UINT64_MAX, 1},	{UINT64_MAX, UINT64_MAX},
		       {1, UINT64_MAX - 1}, {10001, UINT64_MAX}};
	char path[PATH_MAX];
	const int fd = test_file(path, 10000);
	struct mmapio_file *file = test_open(path, modes[_i]);
	uint64_t bytes;

	for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
		const uint64_t offset = outside[i].offset, length = outside[i].length;

		for (int advice = 0; advice <= MMAPIO_ADVICE_DONT_NEED; advice++) {
			ck_assert_int_eq(
				mmapio_advise(file, offset, length, (enum mmapio_advice)advice),
				-ERANGE);
			assert_bounds(offset, length, 10000);
		}
		ck_assert_int_eq(mmapio_lock(file, offset, length), -ERANGE);
		assert_bounds(offset, length, 10000);
		ck_assert_int_eq(mmapio_unlock(file, offset, length), -ERANGE);
		assert_bounds(offset, length, 10000);
	}
	ck_assert_int_eq(mmapio_advise(file, 0, 1, (enum mmapio_advice)5), -EINVAL);
	assert_error(MMAPIO_ERROR_ARGUMENT, -EINVAL);
	ck_assert_int_eq(mmapio_advise(file, 0, 1, (enum mmapio_advice) - 1), -EINVAL);
	ck_assert_int_eq(mmapio_advise(NULL, 0, 1, MMAPIO_ADVICE_NORMAL), -EINVAL);
	assert_error(MMAPIO_ERROR_ARGUMENT, -EINVAL);
	ck_assert_int_eq(mmapio_lock(NULL, 0, 1), -EINVAL);
	ck_assert_int_eq(mmapio_unlock(NULL, 0, 1), -EINVAL);
	ck_assert_int_eq(mmapio_locked_bytes(NULL, &bytes), -EINVAL);
	ck_assert_int_eq(mmapio_locked_bytes(file, NULL), -EINVAL);
	ck_assert_int_eq(mmapio_huge_bytes(NULL, &bytes), -EINVAL);
	ck_assert_int_eq(mmapio_huge_bytes(file, NULL), -EINVAL);
	lock(file, 10000, UINT64_MAX); /* an end is inside */
	lock(file, 10000, 0);
	ck_assert_str_eq(advice_of(file, 0, 3), "---");
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* --- Opening ---------------------------------------------------------------------------------- */

/* _i: mode, lazy from 3 on */
START_TEST(open_touches_all)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(modes[_i % 3]);
	char path[PATH_MAX], empty_path[PATH_MAX];
	const int fd = test_file(path, 20 * MIB + 1), empty = test_file(empty_path, 0);
	const uint64_t all = 20 * MIB + page;
	struct mmapio_file *file;

	if (_i >= 3)
		options.flags = MMAPIO_LAZY;
	test_drop_all(fd);
	file = test_open_with(path, &options);
	ck_assert_uint_eq(test_cached_pages_of(fd, 0, 0), 0); /* else it could not fail */
	mmapio_file_unref(file);
	options.flags |= MMAPIO_TOUCH;
	file = test_open_with(path, &options);
	ck_assert_uint_eq(test_cached_pages_of(fd, 0, 0), all / page);
	ck_assert_uint_eq(find(base_of(file), all).resident, all);
	ck_assert_uint_eq(find(base_of(file), all).private_dirty, 0);
	mmapio_file_unref(file);
	mmapio_file_unref(test_open_with(empty_path, &options));
	close(empty);
	close(fd);
}
END_TEST

/* --- Huge pages ------------------------------------------------------------------------------- */

static uint64_t huge(struct mmapio_file *file)
{
	const uint64_t found = find(base_of(file), mmapio_file_size(file)).huge;
	uint64_t bytes = 1;

	ck_assert_int_eq(mmapio_huge_bytes(file, &bytes), 0);
	ck_assert_uint_eq(bytes, found);
	return bytes;
}

/* _i: mode */
START_TEST(mappings_ask_for_huge_pages)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(modes[_i]);
	const bool supported = access("/sys/kernel/mm/transparent_hugepage", F_OK) == 0;
	char path[PATH_MAX], small_path[PATH_MAX];
	const int fd = test_file(path, 5 * MIB), small_fd = test_file(small_path, 5);
	struct mmapio_file *files[4], *file;
	uint64_t bytes = 1;

	options.flags = MMAPIO_HUGE_PAGES;
	/* several, for one alone may be aligned by chance */
	for (int i = 0; i < 4; i++) {
		files[i] = test_open_with(path, &options);
		ck_assert_uint_eq((uintptr_t)base_of(files[i]) % HUGE_PAGE, 0);
		if (supported)
			ck_assert_ptr_nonnull(strstr(find(base_of(files[i]), 1).flags, " hg "));
		ck_assert_int_eq(mmapio_touch(files[i], 0, UINT64_MAX), 0);
		(void)huge(files[i]);
		ck_assert(test_reads_pattern(files[i], 0, 5 * MIB));
	}
	for (int i = 0; i < 4; i++)
		mmapio_file_unref(files[i]);
	ck_assert_uint_eq(test_mappings(path), 0);
	file = test_open_with(small_path, &options);
	ck_assert(test_reads_pattern(file, 0, 5));
	ck_assert_uint_eq(huge(file), 0);
	if (modes[_i] == MMAPIO_READ_WRITE) {
		resize(file, 9 * MIB);
		ck_assert_int_eq(mmapio_touch(file, 0, UINT64_MAX), 0);
		ck_assert_uint_eq((uintptr_t)base_of(file) % HUGE_PAGE, 0);
		if (supported)
			ck_assert_ptr_nonnull(strstr(find(base_of(file), 1).flags, " hg "));
	}
	mmapio_file_unref(file);
	options.flags = MMAPIO_LAZY | MMAPIO_HUGE_PAGES;
	file = test_open_with(path, &options);
	ck_assert_int_eq(mmapio_huge_bytes(file, &bytes), 0);
	ck_assert_uint_eq(bytes, 0);
	ck_assert_uint_eq(test_mappings(path), 0);
	mmapio_file_unref(file);
	close(small_fd);
	close(fd);
}
END_TEST

/* Pieces of address space that are nothing but taken. */
static unsigned int spaces(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[PATH_MAX + 128];
	unsigned int n = 0;

	ck_assert_ptr_nonnull(maps);
	while (fgets(line, sizeof(line), maps))
		n += strstr(line, " ---p ") != NULL;
	fclose(maps);
	return n;
}

/* Of a memfd, which the kernel aligns only if it may have huge pages. */
START_TEST(mappings_are_aligned)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	const unsigned int before = spaces();
	struct mmapio_file *files[8];

	options.flags = MMAPIO_HUGE_PAGES;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		const int fd = memfd_create("lib_advise_aligned", MFD_CLOEXEC);
		const uint64_t size = 2 * MIB + i * 3 * page;

		ck_assert_int_ge(fd, 0);
		test_pwrite_pattern(fd, 0, size, (size_t)page);
		ck_assert_int_eq(mmapio_open_fd(&files[i], fd, &options), 0);
		ck_assert_uint_eq((uintptr_t)base_of(files[i]) % HUGE_PAGE, 0);
		ck_assert(test_reads_pattern(files[i], 0, size));
	}
	ck_assert_uint_eq(test_mappings("lib_advise_aligned"), ARRAY_SIZE(files));
	if (!TEST_SANITIZED) /* which take some of their own */
		ck_assert_uint_eq(spaces(), before);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		mmapio_file_unref(files[i]);
	ck_assert_uint_eq(test_mappings("lib_advise_aligned"), 0);
}
END_TEST

/* On a file system that gives huge pages to who asks for them. */
START_TEST(huge_pages_are_had_where_there_are_any)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char folder[PATH_MAX], path[PATH_MAX + 8];
	struct mmapio_file *file;
	int fd;

	test_path(folder, "tmpfs");
	ck_assert_int_eq(mkdir(folder, 0700), 0);
	ck_assert_int_eq(mount("tmpfs", folder, "tmpfs", 0, "huge=advise,size=64m"), 0);
	snprintf(path, sizeof(path), "%s/file", folder);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	for (int asked = 0; asked < 2; asked++) {
		ck_assert_int_eq(ftruncate(fd, 0), 0);
		ck_assert_int_eq(ftruncate(fd, (off_t)(4 * HUGE_PAGE)), 0);
		options.flags = asked ? MMAPIO_TOUCH | MMAPIO_HUGE_PAGES : MMAPIO_TOUCH;
		file = test_open_with(path, &options);
		if (!asked)
			ck_assert_uint_eq(huge(file), 0);
		else if (huge(file) == 0)
			printf("not tested here: this machine gives no huge pages, not even to a "
			       "tmpfs\n");
		else
			ck_assert_uint_ge(huge(file), HUGE_PAGE);
		if (huge(file) == 4 * HUGE_PAGE) {
			struct mmapio_slice held;

			/* a mapping that is replaced has them, too */
			ck_assert_int_eq(mmapio_slice_get(file, 0, 1, &held), 0);
			resize(file, 16 * HUGE_PAGE);
			ck_assert_int_eq(mmapio_touch(file, 0, UINT64_MAX), 0);
			ck_assert_ptr_ne(base_of(file), held.data);
			ck_assert_uint_ge(huge(file), 4 * HUGE_PAGE);
			mmapio_slice_put(&held);
		}
		mmapio_file_unref(file);
	}
	close(fd);
	umount2(folder, MNT_DETACH);
}
END_TEST

/* --- All at once ------------------------------------------------------------------------------ */

static _Atomic bool over;

struct work {
	struct mmapio_file *file;
	uint64_t seed;
};

/* Ranges may lie outside, for the size changes. */
static bool is_fine(int error)
{
	return error == 0 || error == -ERANGE;
}

static void *advise_thread(void *argument)
{
	struct work *work = argument;

	while (!atomic_load(&over)) {
		const uint64_t offset = test_below(&work->seed, 256 * KIB);
		const uint64_t length =
			test_below(&work->seed, 4) ? test_below(&work->seed, 64 * KIB) : UINT64_MAX;

		switch (test_below(&work->seed, 4)) {
		case 0:
			THREAD_ASSERT(is_fine(mmapio_lock(work->file, offset, length)));
			break;
		case 1:
			THREAD_ASSERT(is_fine(mmapio_unlock(work->file, offset, length)));
			break;
		default:
			THREAD_ASSERT(is_fine(
				mmapio_advise(work->file, offset, length,
					      (enum mmapio_advice)test_below(&work->seed, 5))));
		}
	}
	return NULL;
}

static void *slice_thread(void *argument)
{
	struct work *work = argument;

	while (!atomic_load(&over)) {
		struct mmapio_slice_mut slice;
		const int error = mmapio_slice_get_mut(work->file, 0, 64 * KIB, &slice);
		uint64_t place = test_below(&work->seed, 32 * KIB);

		THREAD_ASSERT(error == 0);
		THREAD_ASSERT(test_is_pattern(slice.data, 0, 64 * KIB));
		/* the same bytes, so that all that may happen is that one is lost */
		for (int i = 0; i < 100; i++, place++)
			((volatile uint8_t *)slice.data)[place] = test_byte(place);
		mmapio_slice_put_mut(&slice);
	}
	return NULL;
}

START_TEST(all_of_it_at_once)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 64 * KIB);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct work work[3] = {{file, 1}, {file, 2}, {file, 3}};
	pthread_t threads[3];
	uint64_t seed = 4;

	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, i ? advise_thread : slice_thread,
						&work[i]),
				 0);
	for (int i = 0; i < TEST_REPEAT(2000); i++) {
		const uint64_t size = 64 * KIB + test_below(&seed, MIB);

		if (i % 3)
			resize(file, size);
		else
			test_write(file, size, "x", 1);
	}
	atomic_store(&over, true);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
	ck_assert(test_reads_pattern(file, 0, 64 * KIB));
	lock(file, 0, UINT64_MAX);
	ck_assert_uint_eq(locked(file), (mmapio_file_size(file) + page - 1) / page * page);
	ck_assert_uint_eq(charged(), locked(file));
	unlock(file, 0, UINT64_MAX);
	ck_assert_uint_eq(charged(), 0);
	advise(file, 0, UINT64_MAX, MMAPIO_ADVICE_NORMAL);
	ck_assert_uint_eq(find(base_of(file), mmapio_file_size(file)).pieces, 1);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("advise");
	TCase *advice = test_case(suite, "advice"), *locks = test_case(suite, "locks");
	TCase *opening = test_case(suite, "open"), *pages = test_case(suite, "huge pages");
	int status;

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	test_make_folder();
	test_need_cachestat();
	mounts_possible = test_disk_possible();
	tcase_add_loop_test(advice, advice_reaches_whole_pages, 0, 3);
	tcase_add_test(advice, advice_survives_changes_of_size);
	tcase_add_test(advice, a_mapping_that_can_be_written_has_it_too);
	tcase_add_loop_test(advice, a_lazy_file_remembers, 0, 3);
	tcase_add_test(advice, what_cannot_be_mapped_is_advised_all_the_same);
	tcase_add_loop_test(advice, will_need_reads_the_range, 0, 3);
	tcase_add_loop_test(advice, dont_need_loses_nothing, 0, 3);
	tcase_add_loop_test(advice, errors_tell_what_was_wrong, 0, 3);
	tcase_add_loop_test(locks, locked_pages_are_in_memory, 0, 3);
	tcase_add_test(locks, a_lock_to_the_end_follows_the_size);
	tcase_add_test(locks, other_locks_stay_where_they_are);
	tcase_add_test(locks, a_lock_copies_no_private_page);
	tcase_add_loop_test(locks, no_lock_without_the_privilege, 0, 3);
	tcase_add_test(locks, a_file_grows_beyond_what_may_be_locked);
	tcase_add_test(locks, a_limit_allows_for_one_mapping);
	tcase_add_test(locks, all_of_it_at_once);
	if (mounts_possible)
		tcase_add_loop_test(locks, no_lock_of_what_cannot_be_read, 0, 3);
	tcase_add_loop_test(opening, open_touches_all, 0, 6);
	tcase_add_loop_test(pages, mappings_ask_for_huge_pages, 0, 3);
	tcase_add_test(pages, mappings_are_aligned);
	if (mounts_possible)
		tcase_add_test(pages, huge_pages_are_had_where_there_are_any);
	status = test_run(suite);
	if (!status && !mounts_possible) {
		printf("SKIP: locks of what cannot be read, and huge pages of a tmpfs, need root, loop "
		       "devices and mkfs.ext4\n");
		status = TEST_SKIP;
	}
	return status;
}
