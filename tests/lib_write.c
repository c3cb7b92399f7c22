/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_write.c - tests of mmapio_write() and mmapio_read(), and of changes through mutable slices
 *
 * Long random sequences of all that changes a file are compared with a plain array, in every mode,
 * with every write method, with and without the fault guard. Also that holes stay holes, and that
 * the ends of files and of number ranges are respected.
 */
#include "lib_test.h"

#include <linux/falloc.h>
#include <sys/mman.h>

static uint64_t page;

static const enum mmapio_mode modes[] = {MMAPIO_READ_ONLY, MMAPIO_READ_WRITE, MMAPIO_COPY_ON_WRITE};

/* --- Against a plain array -------------------------------------------------------------------- */

enum { MODEL_MAX = 300000, OPERATIONS = 20000 };

static const struct combination {
	enum mmapio_mode mode;
	enum mmapio_write_method method;
	bool guard;
	unsigned int flags;
	struct mmapio_policy policy;
} combinations[] = {
	{MMAPIO_READ_WRITE, MMAPIO_WRITE_AUTO, false, 0, {false, 0, 0, 0}},
	{MMAPIO_READ_WRITE, MMAPIO_WRITE_STORE, false, 0, {false, 0, 0, 0}},
	{MMAPIO_READ_WRITE, MMAPIO_WRITE_PWRITE, false, 0, {false, 0, 0, 0}},
	{MMAPIO_READ_WRITE, MMAPIO_WRITE_AUTO, true, 0, {false, 0, 0, 0}},
	{MMAPIO_READ_WRITE, MMAPIO_WRITE_STORE, true, 0, {false, 0, 0, 0}},
	{MMAPIO_READ_WRITE, MMAPIO_WRITE_PWRITE, true, 0, {false, 0, 0, 0}},
	{MMAPIO_READ_WRITE, MMAPIO_WRITE_STORE, true, MMAPIO_LAZY, {false, 0, 0, 0}},
	{MMAPIO_READ_WRITE, MMAPIO_WRITE_STORE, true, 0, {false, 0, 256 * KIB, 200}},
	{MMAPIO_COPY_ON_WRITE, MMAPIO_WRITE_AUTO, false, 0, {false, 0, 0, 0}},
	{MMAPIO_COPY_ON_WRITE, MMAPIO_WRITE_AUTO, true, 0, {false, 0, 0, 0}},
};

struct model {
	struct mmapio_file *file;
	uint64_t random;
	uint64_t size;
	uint8_t bytes[MODEL_MAX];
	uint8_t buffer[MODEL_MAX];
};

/* Lengths around the borders of pages most of the time. */
static uint64_t random_length(struct model *model, uint64_t limit)
{
	static const int around[] = {-2, -1, 0, 1, 2};
	uint64_t length;

	switch (test_below(&model->random, 8)) {
	case 0:
		length = test_below(&model->random, 3);
		break;
	case 1:
	case 2:
		length = test_below(&model->random, 100);
		break;
	case 3:
		length = test_below(&model->random, 20000);
		break;
	case 4:
		length = test_below(&model->random, 70000);
		break;
	default:
		length = page * (1 + test_below(&model->random, 3)) +
			 (uint64_t)around[test_below(&model->random, ARRAY_SIZE(around))];
	}
	return length < limit ? length : limit;
}

/* Offsets at, before and after the borders of pages and of the file, or anywhere. */
static uint64_t random_offset(struct model *model, uint64_t limit)
{
	uint64_t offset;

	switch (test_below(&model->random, 4)) {
	case 0:
		offset = page * test_below(&model->random, limit / page + 1);
		break;
	case 1:
		offset = page * test_below(&model->random, limit / page + 1) +
			 test_below(&model->random, 3) - 1;
		break;
	case 2:
		offset = model->size + test_below(&model->random, 5) - 2;
		break;
	default:
		offset = test_below(&model->random, limit + 1);
	}
	return offset <= limit ? offset : limit;
}

static void random_bytes(struct model *model, uint64_t length)
{
	const uint64_t value = test_random(&model->random);

	for (uint64_t i = 0; i < length; i++)
		model->buffer[i] = (uint8_t)((value >> i % 56) + i);
}

static void model_write(struct model *model, enum mmapio_mode mode)
{
	const uint64_t offset = random_offset(model, MODEL_MAX);
	const uint64_t length = random_length(model, MODEL_MAX - offset);
	const uint64_t end = offset + length;

	random_bytes(model, length);
	if (mode == MMAPIO_COPY_ON_WRITE && end > model->size) {
		ck_assert_int_eq(mmapio_write(model->file, offset, model->buffer, length), -ERANGE);
		return;
	}
	test_write(model->file, offset, model->buffer, length);
	memcpy(model->bytes + offset, model->buffer, length);
	if (length && end > model->size)
		model->size = end; /* what lies between is zero already */
}

static void model_store(struct model *model)
{
	const uint64_t offset = random_offset(model, model->size);
	const uint64_t length = random_length(model, model->size - offset);
	struct mmapio_slice_mut slice;

	random_bytes(model, length);
	ck_assert_int_eq(mmapio_slice_get_mut(model->file, offset, length, &slice), 0);
	memcpy(slice.data, model->buffer, length);
	ck_assert_int_eq(mmapio_commit(&slice, 0, length), 0);
	mmapio_slice_put_mut(&slice);
	memcpy(model->bytes + offset, model->buffer, length);
}

static void model_read(struct model *model)
{
	const uint64_t offset = random_offset(model, MODEL_MAX);
	const uint64_t length = random_length(model, MODEL_MAX);
	const uint64_t there = offset < model->size ? model->size - offset : 0;
	const uint64_t expected = length < there ? length : there;
	struct mmapio_slice slice;

	memset(model->buffer, '#', length);
	ck_assert_int_eq(mmapio_read(model->file, offset, model->buffer, length),
			 (ssize_t)expected);
	ck_assert(!memcmp(model->buffer, model->bytes + offset, expected));
	for (uint64_t i = expected; i < length; i++) {
		if (model->buffer[i] != '#')
			ck_abort_msg("the buffer was written beyond the end of the file");
	}
	ck_assert_int_eq(mmapio_slice_get_some(model->file, offset, length, &slice), 0);
	ck_assert_uint_eq(slice.length, expected);
	ck_assert(!memcmp(slice.data, model->bytes + offset, expected));
	mmapio_slice_put(&slice);
}

static void model_resize(struct model *model)
{
	const uint64_t size = random_offset(model, MODEL_MAX);

	ck_assert_int_eq(mmapio_file_resize(model->file, size, MMAPIO_FOREVER), 0);
	if (size < model->size)
		memset(model->bytes + size, 0, model->size - size);
	model->size = size;
}

static void model_punch(struct model *model)
{
	const uint64_t offset = random_offset(model, model->size);
	const uint64_t length = random_length(model, MODEL_MAX - offset);
	const uint64_t end = offset + length < model->size ? offset + length : model->size;

	if (!length)
		return;
	ck_assert_int_eq(mmapio_file_allocate(model->file,
					      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
					      length),
			 0);
	memset(model->bytes + offset, 0, end - offset);
}

static void model_flush(struct model *model)
{
	const uint64_t offset = random_offset(model, model->size);
	const uint64_t length = random_length(model, model->size - offset);

	if (test_below(&model->random, 2)) {
		ck_assert_int_eq(mmapio_flush_range(model->file, offset, length), 0);
		return;
	}
	ck_assert_int_eq(mmapio_flush(model->file), 0);
	ck_assert_uint_eq(mmapio_dirty_bytes(model->file), 0);
}

static void model_compare(struct model *model, enum mmapio_mode mode, int fd)
{
	ck_assert_uint_eq(mmapio_file_size(model->file), model->size);
	if (mode == MMAPIO_COPY_ON_WRITE) {
		ck_assert_int_eq(mmapio_read(model->file, 0, model->buffer, MODEL_MAX),
				 (ssize_t)model->size);
	} else {
		ck_assert_uint_eq(test_size(fd), model->size);
		ck_assert_int_eq(pread(fd, model->buffer, MODEL_MAX, 0), (ssize_t)model->size);
	}
	ck_assert(!memcmp(model->buffer, model->bytes, model->size));
}

START_TEST(behaves_as_a_plain_array)
{
	const struct combination *combination = &combinations[_i];
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(combination->mode);
	struct model *model = calloc(1, sizeof(*model));
	char path[PATH_MAX];
	int fd;

	ck_assert_ptr_nonnull(model);
	if (combination->guard)
		ck_assert_int_eq(mmapio_guard_install(), 0);
	model->random = 100 + (uint64_t)_i;
	model->size = combination->mode == MMAPIO_COPY_ON_WRITE ? 200000 : 0;
	fd = test_file(path, model->size);
	test_fill(model->bytes, 0, model->size);
	options.write_method = combination->method;
	options.flags = combination->flags;
	options.policy = combination->policy;
	model->file = test_open_with(path, &options);

	for (int i = 0; i < TEST_REPEAT(OPERATIONS); i++) {
		const uint64_t what = test_below(&model->random, 1000);

		if (what < 400)
			model_write(model, combination->mode);
		else if (what < 600)
			model_store(model);
		else if (what < 900)
			model_read(model);
		else if (what < 904)
			model_flush(model);
		else if (what < 910)
			ck_assert_int_eq(mmapio_file_refresh(model->file, NULL), 0);
		else if (combination->mode == MMAPIO_COPY_ON_WRITE)
			continue;
		else if (what < 950)
			model_resize(model);
		else
			model_punch(model);
		if (i % 500 == 0)
			model_compare(model, combination->mode, fd);
	}
	model_compare(model, combination->mode, fd);
	ck_assert_int_eq(mmapio_flush(model->file), 0);
	ck_assert_uint_eq(mmapio_dirty_bytes(model->file), 0);
	ck_assert_uint_eq(test_dirty_pages(fd), 0);
	test_drop(fd);
	model_compare(model, combination->mode, fd);
	mmapio_file_unref(model->file);
	if (combination->mode == MMAPIO_COPY_ON_WRITE)
		ck_assert(test_disk_is_pattern(fd, 0, model->size));
	free(model);
	close(fd);
}
END_TEST

/* --- Holes ------------------------------------------------------------------------------------ */

/* Reads a file from its start, so that it is in memory, in folios as large as the kernel likes. */
static void read_ahead(int fd, uint64_t length)
{
	char buffer[4096];

	for (uint64_t offset = 0; offset < length; offset += sizeof(buffer))
		ck_assert_int_eq(pread(fd, buffer, sizeof(buffer), (off_t)offset),
				 (ssize_t)sizeof(buffer));
}

/* One of a number of ways to come to a write of single bytes into a mostly empty file. Prepares by
 * plain calls, the same for both files. */
static void prepare_sparse(int fd, int way)
{
	switch (way) {
	case 1: /* the holes are in memory */
		read_ahead(fd, 4 * MIB);
		break;
	case 2: /* some pages are allocated, and share folios with holes */
		for (off_t offset = 0; offset < 4 * (off_t)MIB; offset += 64 * (off_t)KIB)
			test_pwrite(fd, "x", 1, (uint64_t)offset);
		test_drop(fd);
		ck_assert_int_eq(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL), 0);
		read_ahead(fd, 4 * MIB);
		break;
	}
}

/* Fails if a hole is stored to: the kernel then allocates the whole folio, up to 2 MiB. */
START_TEST(holes_stay_holes)
{
	const bool guard = _i % 2;
	const int way = _i / 2 % 3;
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	char plain_path[PATH_MAX];
	const int fd = test_file_sparse(path, 64 * MIB);
	const int plain = test_file_sparse(plain_path, 64 * MIB);
	struct mmapio_file *file;
	uint64_t random = 5;

	if (guard)
		ck_assert_int_eq(mmapio_guard_install(), 0);
	options.write_method = _i / 6 ? MMAPIO_WRITE_STORE : MMAPIO_WRITE_AUTO;
	prepare_sparse(fd, way);
	prepare_sparse(plain, way);
	file = test_open_with(path, &options);
	if (way == 1)
		ck_assert_int_eq(mmapio_touch(file, 0, 4 * MIB), 0);

	test_write(file, 32 * MIB, "#", 1);
	test_pwrite(plain, "#", 1, 32 * MIB);
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_uint_le(test_blocks(fd), test_blocks(plain));
	for (int i = 0; i < 200; i++) {
		const uint64_t offset = 64 * KIB * test_below(&random, 64) +
					(i % 2 ? test_below(&random, 64 * KIB) : 0);

		test_write(file, offset, "#", 1);
		test_pwrite(plain, "#", 1, offset);
		if (i % 50 == 0)
			ck_assert_int_eq(mmapio_flush(file), 0);
	}
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_uint_le(test_blocks(fd), test_blocks(plain));
	mmapio_file_unref(file);
	close(plain);
	close(fd);
}
END_TEST

/* What was allocated once is a hole now. Fails if that it was allocated is still remembered. _i:
 * how the hole is made, with MMAPIO_WRITE_STORE from 3 on. */
START_TEST(holes_that_are_made_stay_holes)
{
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	char plain_path[PATH_MAX];
	const int fd = test_file(path, 8 * MIB);
	const int plain = test_file(plain_path, 8 * MIB);
	struct mmapio_file *file;

	ck_assert_int_eq(mmapio_guard_install(), 0);
	options.write_method = _i / 3 ? MMAPIO_WRITE_STORE : MMAPIO_WRITE_AUTO;
	file = test_open_with(path, &options);
	for (uint64_t offset = 0; offset < 8 * MIB; offset += 64 * KIB)
		test_write(file, offset, "#", 1);
	ck_assert_int_eq(mmapio_flush(file), 0);

	switch (_i % 3) {
	case 0:
		ck_assert_int_eq(mmapio_file_allocate(file, punch, MIB, 7 * MIB), 0);
		break;
	case 1:
		ck_assert_int_eq(mmapio_file_resize(file, MIB, 0), 0);
		ck_assert_int_eq(mmapio_file_resize(file, 8 * MIB, 0), 0);
		break;
	default:
		ck_assert_int_eq(ftruncate(fd, (off_t)MIB), 0);
		ck_assert_int_eq(mmapio_file_refresh(file, NULL), 0);
		ck_assert_int_eq(ftruncate(fd, (off_t)(8 * MIB)), 0);
		ck_assert_int_eq(mmapio_file_refresh(file, NULL), 0);
	}
	ck_assert_int_eq(fallocate(plain, punch, (off_t)MIB, (off_t)(7 * MIB)), 0);
	test_drop(fd);
	test_drop(plain);
	read_ahead(fd, 8 * MIB);
	read_ahead(plain, 8 * MIB);
	for (uint64_t offset = 2 * MIB; offset < 8 * MIB; offset += MIB) {
		test_write(file, offset, "#", 1);
		test_pwrite(plain, "#", 1, offset);
	}
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_uint_le(test_blocks(fd), test_blocks(plain));
	mmapio_file_unref(file);
	close(plain);
	close(fd);
}
END_TEST

START_TEST(reading_and_touching_allocates_nothing)
{
	char path[PATH_MAX];
	const int fd = test_file_sparse(path, 16 * MIB);
	const uint64_t before = test_blocks(fd);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct mmapio_slice_mut slice;
	char *buffer = malloc(16 * MIB);

	ck_assert_ptr_nonnull(buffer);
	if (_i)
		ck_assert_int_eq(mmapio_guard_install(), 0);
	ck_assert_int_eq(mmapio_read(file, 0, buffer, 16 * MIB), (ssize_t)(16 * MIB));
	ck_assert(test_is_zero(buffer, 16 * MIB));
	ck_assert_int_eq(mmapio_touch(file, 0, 16 * MIB), 0);
	ck_assert_int_eq(mmapio_slice_get_mut(file, 0, 16 * MIB, &slice), 0);
	ck_assert(test_is_zero(slice.data, 16 * MIB));
	mmapio_slice_put_mut(&slice);
	ck_assert_uint_eq(test_blocks(fd), before);
	ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
	free(buffer);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* --- Ends ------------------------------------------------------------------------------------- */

/* _i: mode, and the guard from 3 on */
START_TEST(read_is_short_at_the_end)
{
	const struct {
		uint64_t offset;
		size_t length;
		ssize_t expected;
	} reads[] = {{0, 200, 200}, {0, 201, 200},     {0, 4096, 200},	{0, 0, 0},   {199, 1, 1},
		     {199, 2, 1},   {200, 0, 0},       {200, 1, 0},	{201, 5, 0}, {4095, 2, 0},
		     {4096, 1, 0},  {INT64_MAX, 1, 0}, {100, 5000, 100}};
	char path[PATH_MAX];
	const int fd = test_file(path, 200);
	struct mmapio_file *file = test_open(path, modes[_i % 3]);
	char buffer[8192];

	if (_i >= 3)
		ck_assert_int_eq(mmapio_guard_install(), 0);
	for (size_t i = 0; i < ARRAY_SIZE(reads); i++) {
		memset(buffer, '#', sizeof(buffer));
		ck_assert_int_eq(mmapio_read(file, reads[i].offset, buffer, reads[i].length),
				 reads[i].expected);
		ck_assert(test_is_pattern(buffer, reads[i].offset, (size_t)reads[i].expected));
		for (size_t j = (size_t)reads[i].expected; j < sizeof(buffer); j++)
			ck_assert_int_eq(buffer[j], '#');
	}
	/* what pread(2) would not take at all */
	ck_assert_int_le(mmapio_read(file, UINT64_MAX, buffer, 1), 0);
	ck_assert_int_le(mmapio_read(file, UINT64_MAX - 5, buffer, 100), 0);
	ck_assert_int_le(mmapio_read(file, (uint64_t)INT64_MAX + 1, buffer, 100), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* More than one system call of the kernel takes, 2 GiB less a page. The buffer is the same memory
 * again and again. _i: mode. Fails if a short count is taken for an error. */
START_TEST(read_may_be_longer_than_a_system_call)
{
	const size_t length = 2 * GIB + MIB;
	const size_t piece = 64 * MIB;
	char path[PATH_MAX];
	const int fd = test_file_sparse(path, length);
	const int memory = memfd_create("buffer", MFD_CLOEXEC);
	struct mmapio_file *file = test_open(path, modes[_i]);
	char *buffer = mmap(NULL, length + piece, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(buffer, MAP_FAILED);
	ck_assert_int_eq(ftruncate(memory, (off_t)piece), 0);
	for (size_t offset = 0; offset < length; offset += piece)
		ck_assert_ptr_ne(mmap(buffer + offset, piece, PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_FIXED, memory, 0),
				 MAP_FAILED);
	test_pwrite_pattern(fd, length - page, page, page);
	ck_assert_int_eq(mmapio_read(file, 0, buffer, length), (ssize_t)length);
	ck_assert(test_is_pattern(buffer + length - page, length - page, page));
	munmap(buffer, length + piece);
	mmapio_file_unref(file);
	test_drop(fd); /* it is large */
	close(memory);
	close(fd);
}
END_TEST

START_TEST(write_extends_and_leaves_zeros_between)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	const int fd = test_file(path, 200);
	struct mmapio_file *file;
	struct mmapio_slice slice;

	if (_i >= 3)
		ck_assert_int_eq(mmapio_guard_install(), 0);
	options.write_method = (enum mmapio_write_method)(_i % 3);
	file = test_open_with(path, &options);
	test_write_pattern(file, 190, 100); /* half inside */
	ck_assert_uint_eq(mmapio_file_size(file), 290);
	test_write_pattern(file, 290, 10); /* just behind */
	ck_assert_uint_eq(mmapio_file_size(file), 300);
	test_write_pattern(file, MIB + 5, 10000); /* far behind */
	ck_assert_uint_eq(mmapio_file_size(file), MIB + 10005);
	ck_assert_uint_eq(test_size(fd), MIB + 10005);
	test_write(file, 5 * MIB, "", 0); /* nothing is no extension */
	ck_assert_uint_eq(test_size(fd), MIB + 10005);
	ck_assert(test_reads_pattern(file, 0, 300));
	ck_assert(test_reads_pattern(file, MIB + 5, 10000));
	ck_assert_int_eq(mmapio_slice_get(file, 300, MIB + 5 - 300, &slice), 0);
	ck_assert(test_is_zero(slice.data, slice.length));
	mmapio_slice_put(&slice);
	ck_assert_uint_eq(mmapio_dirty_bytes(file), 110 + 10000);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(write_refuses_offsets_no_file_has)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 200);
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);

	ck_assert_int_eq(mmapio_write(file, INT64_MAX, "xx", 2), -EFBIG);
	ck_assert_int_lt(mmapio_write(file, (uint64_t)INT64_MAX + 1, "x", 1), 0);
	ck_assert_int_lt(mmapio_write(file, UINT64_MAX, "x", 1), 0);
	ck_assert_int_lt(mmapio_write(file, UINT64_MAX, "xx", 2), 0);
	ck_assert_uint_eq(test_size(fd), 200);
	ck_assert_uint_eq(mmapio_file_size(file), 200);
	ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
	ck_assert_int_eq(mmapio_file_error(file), 0);
	ck_assert_int_eq(mmapio_flush(file), 0);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(bad_memory_of_the_caller_is_an_error)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	const int fd = test_file(path, 200);
	void *bad = (void *)(uintptr_t)page; /* nothing is mapped there */
	struct mmapio_file *file;

	options.write_method = MMAPIO_WRITE_PWRITE;
	file = test_open_with(path, &options);
	ck_assert_int_eq(mmapio_write(file, 0, bad, 100), -EFAULT);
	ck_assert_uint_eq(mmapio_file_size(file), 200);
	ck_assert_uint_eq(test_size(fd), 200);
	ck_assert_int_eq(mmapio_read(file, 0, bad, 100), -EFAULT);
	ck_assert(test_reads_pattern(file, 0, 200));
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(write_only_descriptor_can_be_written)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	const int fd = test_file(path, 200);
	struct mmapio_file *file;
	struct mmapio_slice slice;
	struct mmapio_slice_mut mut;
	char buffer[10];

	if (_i >= 3)
		ck_assert_int_eq(mmapio_guard_install(), 0);
	options.flags = MMAPIO_LAZY;
	options.write_method = (enum mmapio_write_method)(_i % 3);
	ck_assert_int_eq(mmapio_open_fd(&file, open(path, O_WRONLY | O_CLOEXEC), &options), 0);
	test_write_pattern(file, 100, 10000);
	test_write(file, 0, "abcd", 4);
	ck_assert_uint_eq(mmapio_file_size(file), 10100);
	ck_assert_int_eq(mmapio_read(file, 0, buffer, 10), -EBADF);
	ck_assert_int_eq(mmapio_slice_get(file, 0, 10, &slice), -ENODEV);
	ck_assert_int_eq(mmapio_slice_get_some(file, 0, 10, &slice), -ENODEV);
	ck_assert_int_eq(mmapio_slice_get_mut(file, 0, 10, &mut), -ENODEV);
	ck_assert_int_eq(mmapio_touch(file, 0, 10), -ENODEV);
	ck_assert_uint_eq(mmapio_dirty_bytes(file), 10004);
	ck_assert_int_eq(mmapio_flush_range(file, 0, 4), 0);
	ck_assert_int_eq(mmapio_flush(file), 0);
	ck_assert_uint_eq(mmapio_dirty_bytes(file), 0);
	ck_assert_int_eq(mmapio_file_resize(file, 10000, 0), 0);
	ck_assert_int_eq(
		mmapio_file_allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000, 100),
		0);
	test_write_pattern(file, 5000, 100);
	test_write_pattern(file, 0, 4);
	ck_assert(test_disk_is_pattern(fd, 0, 10000));
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* Two handles of one file: what one writes the other reads. */
START_TEST(handles_see_each_other)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	const int fd = test_file(path, 0);
	struct mmapio_file *reader = test_open(path, MMAPIO_READ_ONLY);
	struct mmapio_file *writer;

	if (_i >= 3)
		ck_assert_int_eq(mmapio_guard_install(), 0);
	options.write_method = (enum mmapio_write_method)(_i % 3);
	writer = test_open_with(path, &options);
	for (uint64_t offset = 0; offset < MIB; offset += 7777) {
		test_write_pattern(writer, offset, 7777);
		ck_assert_int_eq(mmapio_file_refresh(reader, NULL), 0);
		ck_assert(test_reads_pattern(reader, offset, 7777));
	}
	mmapio_file_unref(writer);
	ck_assert(test_reads_pattern(reader, 0, MIB));
	mmapio_file_unref(reader);
	close(fd);
}
END_TEST

/* --- Threads ---------------------------------------------------------------------------------- */

enum { WRITERS = 4 };

struct writer {
	struct mmapio_file *file;
	uint64_t number;
};

/* Each has every WRITERS-th kilobyte; the ends of pages are shared. */
static void *writer_thread(void *argument)
{
	const struct writer *writer = argument;
	uint8_t buffer[1000];
	uint8_t back[1000];

	for (uint64_t i = writer->number; i < 2000; i += WRITERS) {
		const uint64_t offset = i * sizeof(buffer);

		test_fill(buffer, offset, sizeof(buffer));
		THREAD_ASSERT(mmapio_write(writer->file, offset, buffer, sizeof(buffer)) ==
			      (ssize_t)sizeof(buffer));
		THREAD_ASSERT(mmapio_read(writer->file, offset, back, sizeof(back)) ==
			      (ssize_t)sizeof(back));
		THREAD_ASSERT(!memcmp(buffer, back, sizeof(back)));
		THREAD_ASSERT(mmapio_file_size(writer->file) >= offset + sizeof(buffer));
	}
	return NULL;
}

/* Extensions by several threads: fails if a size is lost, or set back. */
START_TEST(several_threads_write_one_file)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct writer writers[WRITERS];
	pthread_t threads[WRITERS];
	char path[PATH_MAX];
	const int fd = test_file(path, 0);

	if (_i >= 3)
		ck_assert_int_eq(mmapio_guard_install(), 0);
	options.write_method = (enum mmapio_write_method)(_i % 3);
	for (int round = 0; round < 2; round++) { /* the second into what is there */
		struct mmapio_file *file = test_open_with(path, &options);

		for (uint64_t i = 0; i < WRITERS; i++) {
			writers[i] = (struct writer){file, i};
			ck_assert_int_eq(
				pthread_create(&threads[i], NULL, writer_thread, &writers[i]), 0);
		}
		for (int i = 0; i < WRITERS; i++)
			ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
		ck_assert_uint_eq(mmapio_file_size(file), 2000000);
		ck_assert(test_reads_pattern(file, 0, 2000000));
		ck_assert_uint_eq(mmapio_dirty_bytes(file), 2000000);
		ck_assert_int_eq(mmapio_flush(file), 0);
		mmapio_file_unref(file);
	}
	ck_assert(test_disk_is_pattern(fd, 0, 2000000));
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("write");
	TCase *model = test_case(suite, "model");
	TCase *holes = test_case(suite, "holes");
	TCase *ends = test_case(suite, "ends");
	TCase *threads = test_case(suite, "threads");

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	test_make_folder();
	test_need_cachestat();

	tcase_add_loop_test(model, behaves_as_a_plain_array, 0, (int)ARRAY_SIZE(combinations));

	tcase_add_loop_test(holes, holes_stay_holes, 0, 12);
	tcase_add_loop_test(holes, holes_that_are_made_stay_holes, 0, 6);
	tcase_add_loop_test(holes, reading_and_touching_allocates_nothing, 0, 2);

	tcase_add_loop_test(ends, read_is_short_at_the_end, 0, 6);
	if (!TEST_SANITIZED) /* slow */
		tcase_add_loop_test(ends, read_may_be_longer_than_a_system_call, 2, 3);
	tcase_add_loop_test(ends, write_extends_and_leaves_zeros_between, 0, 6);
	tcase_add_test(ends, write_refuses_offsets_no_file_has);
	tcase_add_test(ends, bad_memory_of_the_caller_is_an_error);
	tcase_add_loop_test(ends, write_only_descriptor_can_be_written, 0, 6);
	tcase_add_loop_test(ends, handles_see_each_other, 0, 6);

	tcase_add_loop_test(threads, several_threads_write_one_file, 0, 6);
	return test_run(suite);
}
