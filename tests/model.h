/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model.h - operations of libmmapio beside a model: an array of bytes, and what of it is dirty
 *
 * Operations are read from an input: random numbers (lib_model.c), or what a fuzzer makes up
 * (fuzz_model.c). What a call returns, and what the file holds, is what the model says, after each
 * step; and so is what is dirty, byte by byte.
 */
#ifndef MODEL_H
#define MODEL_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mmapio.h"

#define MODEL_PAGES 12

struct model_input {
	const uint8_t *data; /* NULL: random numbers from state */
	size_t length;
	uint64_t state;
};

struct model {
	struct mmapio_file *file;
	struct mmapio_file *writer; /* of a copy-on-write file: what it is committed by */
	enum mmapio_mode mode;
	struct mmapio_policy policy;
	uint64_t page;
	uint64_t most;
	uint64_t size;
	uint8_t *bytes; /* as the handle shows them */
	uint8_t *below; /* of a copy-on-write file: the file's own */
	bool *changed;	/* of a copy-on-write file: bytes; else: dirty bytes */
	bool *private;	/* of a copy-on-write file: pages */
	bool inode_dirty;
	uint64_t writes;
	unsigned int step;
	const char *doing;
};

static _Noreturn void model_fail(const struct model *model, int line, const char *condition)
{
	fprintf(stderr, "model.h:%d: step %u, %s: %s (size %ju, errno %d)\n", line, model->step,
		model->doing, condition, (uintmax_t)model->size, errno);
	abort();
}

#define MODEL_CHECK(CONDITION) ((CONDITION) ? (void)0 : model_fail(model, __LINE__, #CONDITION))

/* A number below limit. */
static uint64_t model_next(struct model_input *input, uint64_t limit)
{
	uint64_t number = 0;

	if (!input->data) {
		input->state ^= input->state >> 12;
		input->state ^= input->state << 25;
		input->state ^= input->state >> 27;
		return ((input->state * 2685821657736338717u) >> 11) % limit;
	}
	for (int i = 0; i < (limit > 256 ? 2 : 1) && input->length; i++, input->length--)
		number = number << 8 | *input->data++;
	return number % limit;
}

/* A place: mostly at a border of a page, or next to it; at times beyond everything. */
static uint64_t model_place(struct model *model, struct model_input *input)
{
	uint64_t place = model_next(input, MODEL_PAGES) * model->page;

	switch (model_next(input, 8)) {
	case 0:
		return place ? place - 1 : 0;
	case 1:
		return place + 1;
	case 2:
		return place + model_next(input, model->page);
	case 3:
		return model->size;
	case 4:
		return model_next(input, 16) ? model->size + model_next(input, 3) : UINT64_MAX - 1;
	default:
		return place;
	}
}

static uint64_t model_length(struct model *model, struct model_input *input)
{
	switch (model_next(input, 6)) {
	case 0:
		return 0;
	case 1:
		return 1;
	case 2:
		return model->page + model_next(input, 3) - 1;
	case 3:
		return model_next(input, 3 * model->page);
	case 4:
		return model_next(input, 16) ? model_next(input, 64) : SIZE_MAX;
	default:
		return model_next(input, model->page);
	}
}

static bool model_inside(const struct model *model, uint64_t offset, uint64_t length)
{
	return offset <= model->size && length <= model->size - offset;
}

/* --- What is dirty ---------------------------------------------------------------------------- */

static void model_flushed(struct model *model, uint64_t start, uint64_t end, bool whole)
{
	memset(model->changed + start, 0, (end - start) * sizeof(bool));
	if (whole) {
		model->inode_dirty = false;
		model->writes = 0;
	}
}

static uint64_t model_dirty_bytes(const struct model *model)
{
	uint64_t count = 0;

	for (uint64_t i = 0; i < model->most; i++)
		count += model->changed[i];
	return count;
}

/* [start, end) was changed by a call that has returned; start == end: the size, or so. */
static void model_changed(struct model *model, uint64_t start, uint64_t end)
{
	const struct mmapio_policy *policy = &model->policy;

	for (uint64_t i = start; i < end; i++)
		model->changed[i] = true;
	if (model->mode == MMAPIO_COPY_ON_WRITE) {
		for (uint64_t i = start / model->page; i * model->page < end; i++)
			model->private[i] = true;
		return;
	}
	model->inode_dirty |= start == end;
	model->writes++;
	if (policy->always || (policy->bytes && model_dirty_bytes(model) >= policy->bytes) ||
	    (policy->writes && model->writes >= policy->writes))
		model_flushed(model, 0, model->most, true);
}

/* The lists of dirty, or changed, ranges are the model's. */
static void model_check_ranges(struct model *model)
{
	bool cow = model->mode == MMAPIO_COPY_ON_WRITE;
	uint64_t offset = 0, length, at = 0, bytes = 0;

	while ((cow ? mmapio_changes_next(model->file, &offset, &length)
		    : mmapio_dirty_next(model->file, &offset, &length)) == 1) {
		MODEL_CHECK(offset >= at && length > 0 && offset + length <= model->most);
		for (; at < offset; at++)
			MODEL_CHECK(!model->changed[at]);
		for (; at < offset + length; at++)
			MODEL_CHECK(model->changed[at]);
		offset += length;
		bytes += length;
	}
	for (; at < model->most; at++)
		MODEL_CHECK(!model->changed[at]);
	MODEL_CHECK((cow ? mmapio_changes_bytes(model->file) : mmapio_dirty_bytes(model->file)) ==
		    bytes);
	if (!cow)
		MODEL_CHECK(mmapio_is_dirty(model->file) == (bytes || model->inode_dirty));
}

static void model_check_bytes(struct model *model)
{
	struct mmapio_slice slice;

	MODEL_CHECK(mmapio_file_size(model->file) == model->size);
	MODEL_CHECK(mmapio_slice_get(model->file, 0, model->size, &slice) == 0);
	MODEL_CHECK(memcmp(slice.data, model->bytes, model->size) == 0);
	mmapio_slice_put(&slice);
}

/* --- Operations ------------------------------------------------------------------------------- */

static void model_fill(uint8_t *bytes, struct model_input *input, size_t length)
{
	uint8_t first = (uint8_t)model_next(input, 255);

	for (size_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)(first + i * 7 + 1);
}

static void model_grown(struct model *model, uint64_t size)
{
	if (size > model->size) {
		memset(model->bytes + model->size, 0, size - model->size);
		model->size = size;
	}
}

static void model_read(struct model *model, struct model_input *input)
{
	uint64_t offset = model_place(model, input), length = model_length(model, input), there;
	uint8_t *buffer = malloc(model->most + 1);
	struct mmapio_slice slice;
	int error;

	there = offset < model->size ? model->size - offset : 0;
	there = length < there ? length : there;
	if (length <= model->most) {
		MODEL_CHECK(mmapio_read(model->file, offset, buffer, length) == (ssize_t)there);
		MODEL_CHECK(memcmp(buffer, model->bytes + (there ? offset : 0), there) == 0);
	}
	error = mmapio_slice_get(model->file, offset, length, &slice);
	MODEL_CHECK(error == (model_inside(model, offset, length) ? 0 : -ERANGE));
	if (!error) {
		MODEL_CHECK(slice.length == length);
		MODEL_CHECK(memcmp(slice.data, model->bytes + offset, length) == 0);
		mmapio_slice_put(&slice);
	}
	MODEL_CHECK(mmapio_slice_get_some(model->file, offset, length, &slice) == 0);
	MODEL_CHECK(slice.length == there);
	MODEL_CHECK(memcmp(slice.data, model->bytes + (there ? offset : 0), there) == 0);
	mmapio_slice_put(&slice);
	free(buffer);
}

static void model_write(struct model *model, struct model_input *input)
{
	uint64_t offset = model_place(model, input), length = model_length(model, input);
	uint8_t *buffer;
	ssize_t count;

	/* The model has no more than that, nor the buffer. */
	if (length > model->most)
		length = model->most;
	if (offset <= INT64_MAX && offset + length > model->most &&
	    model->mode == MMAPIO_READ_WRITE)
		return;
	buffer = malloc(model->most + 1);
	model_fill(buffer, input, length);
	count = mmapio_write(model->file, offset, buffer, length);
	if (model->mode == MMAPIO_READ_ONLY) {
		MODEL_CHECK(count == -EBADF);
	} else if (model->mode == MMAPIO_COPY_ON_WRITE && !model_inside(model, offset, length)) {
		MODEL_CHECK(count == -ERANGE);
	} else if (length && (offset > INT64_MAX || length > INT64_MAX - offset)) {
		MODEL_CHECK(count == -EFBIG);
	} else {
		MODEL_CHECK(count == (ssize_t)length);
		if (length) {
			model_grown(model, offset + length);
			memcpy(model->bytes + offset, buffer, length);
			model_changed(model, offset, offset + length);
		}
	}
	free(buffer);
}

static void model_store(struct model *model, struct model_input *input)
{
	uint64_t offset = model_place(model, input), length = model_length(model, input), from,
		 part;
	struct mmapio_slice_mut slice;
	int error = mmapio_slice_get_mut(model->file, offset, length, &slice);

	if (model->mode == MMAPIO_READ_ONLY) {
		MODEL_CHECK(error == -EBADF);
		return;
	}
	MODEL_CHECK(error == (model_inside(model, offset, length) ? 0 : -ERANGE));
	if (error)
		return;
	from = length ? model_next(input, length) : 0;
	part = length ? model_next(input, length - from + 1) : 0;
	model_fill(model->bytes + offset + from, input, part);
	memcpy((char *)slice.data + from, model->bytes + offset + from, part);
	MODEL_CHECK(mmapio_commit(&slice, length, 1) == -ERANGE);
	MODEL_CHECK(mmapio_commit(&slice, from, part) == 0);
	if (part)
		model_changed(model, offset + from, offset + from + part);
	mmapio_slice_put_mut(&slice);
}

struct model_walk {
	struct model *model;
	uint64_t at;
	unsigned int left;
};

static int model_change(void *context, uint64_t offset, void *data, size_t length)
{
	struct model_walk *walk = context;
	struct model *model = walk->model;

	MODEL_CHECK(offset == walk->at);
	MODEL_CHECK(memcmp(data, model->bytes + offset, length) == 0);
	for (size_t i = 0; i < length; i++)
		model->bytes[offset + i] ^= 0x55;
	memcpy(data, model->bytes + offset, length);
	walk->at += length;
	return walk->left-- ? 0 : 1;
}

static void model_walk(struct model *model, struct model_input *input)
{
	uint64_t offset = model_place(model, input), length = model_length(model, input), there;
	size_t chunk = 1 + model_next(input, 3 * model->page);
	struct model_walk walk = {model, offset, (unsigned int)model_next(input, 8)};
	struct mmapio_chunks chunks;
	struct mmapio_chunk piece;
	uint64_t at = offset;
	size_t count = 0, expected;
	int result;

	there = offset < model->size ? model->size - offset : 0;
	there = length < there ? length : there;
	if (chunk > 3 * model->page / 2) {
		MODEL_CHECK(mmapio_pages_begin(&chunks, model->file, offset, length) == 0);
	} else {
		MODEL_CHECK(mmapio_chunks_begin(&chunks, model->file, offset, length, chunk) == 0);
	}
	expected = mmapio_chunks_left(&chunks);
	for (; mmapio_chunks_next(&chunks, &piece); count++, at += piece.length) {
		MODEL_CHECK(piece.offset == at);
		MODEL_CHECK(memcmp(piece.data, model->bytes + at, piece.length) == 0);
	}
	MODEL_CHECK(count == expected && at == offset + there);
	mmapio_chunks_end(&chunks);

	result = mmapio_chunks_change(model->file, offset, length, chunk, model_change, &walk);
	if (model->mode == MMAPIO_READ_ONLY) {
		MODEL_CHECK(result == -EBADF);
		return;
	}
	MODEL_CHECK(result == 0 || result == 1);
	MODEL_CHECK(result == 1 || walk.at == offset + there);
	if (walk.at > offset)
		model_changed(model, offset, walk.at);
}

static void model_resize(struct model *model, struct model_input *input)
{
	uint64_t size = model_place(model, input);
	int error;

	if (size > model->most && size <= INT64_MAX)
		return;
	error = mmapio_file_resize(model->file, size, 0);
	if (model->mode != MMAPIO_READ_WRITE) {
		MODEL_CHECK(error == -EBADF);
		return;
	}
	MODEL_CHECK(error == (size > INT64_MAX ? -EFBIG : 0));
	if (error)
		return;
	if (size < model->size)
		memset(model->changed + size, 0, (model->most - size) * sizeof(bool));
	model_grown(model, size);
	model->size = size;
	model_changed(model, size, size);
}

static void model_allocate(struct model *model, struct model_input *input)
{
	static const int modes[] = {0, FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_ZERO_RANGE, FALLOC_FL_COLLAPSE_RANGE};
	int mode = modes[model_next(input, 5)], error;
	uint64_t offset = model_place(model, input),
		 length = 1 + model_next(input, 2 * model->page);
	uint64_t end = offset + length < model->size ? offset + length : model->size;

	if (offset > model->most || length > model->most - offset)
		return;
	error = mmapio_file_allocate(model->file, mode, offset, length);
	if (model->mode != MMAPIO_READ_WRITE) {
		MODEL_CHECK(error == -EBADF);
		return;
	}
	MODEL_CHECK(error == (mode == FALLOC_FL_COLLAPSE_RANGE ? -EOPNOTSUPP : 0));
	if (error)
		return;
	if (mode != 0 && mode != FALLOC_FL_KEEP_SIZE && offset < end)
		memset(model->bytes + offset, 0, end - offset);
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		model_grown(model, offset + length);
	model_changed(model, offset, offset);
}

static void model_copy(struct model *model, struct model_input *input)
{
	uint64_t from = model_place(model, input), to = model_place(model, input);
	uint64_t length = 1 + model_next(input, model->page), there;
	ssize_t count;

	if (from > model->most || to > model->most || length > model->most - to ||
	    (from < to + length && to < from + length))
		return;
	there = from < model->size ? model->size - from : 0;
	there = length < there ? length : there;
	count = mmapio_copy(model->file, from, model->file, to, length);
	if (model->mode != MMAPIO_READ_WRITE) {
		MODEL_CHECK(count == -EBADF);
		return;
	}
	MODEL_CHECK(count == (ssize_t)there);
	if (count > 0) {
		model_grown(model, to + there);
		memcpy(model->bytes + to, model->bytes + from, there);
		model_changed(model, to, to + there);
	}
}

static void model_words(struct model *model, struct model_input *input)
{
	uint64_t offset = model_place(model, input), before, value;
	size_t count = 1 + model_next(input, 3);
	struct mmapio_atomic_u64 view;
	int error = mmapio_atomic_u64_get(model->file, offset, count, &view);

	if (offset % 8) {
		MODEL_CHECK(error == -EINVAL);
		return;
	}
	MODEL_CHECK(error == (model_inside(model, offset, 8 * count) ? 0 : -ERANGE));
	if (error)
		return;
	memcpy(&value, model->bytes + offset + 8 * (count - 1), 8);
	MODEL_CHECK(mmapio_atomic_u64_load(&view, count - 1, &before) == 0 && before == value);
	MODEL_CHECK(mmapio_atomic_u64_load(&view, count, &before) == -ERANGE);
	error = mmapio_atomic_u64_add(&view, count - 1, 1000, &before);
	MODEL_CHECK(error == (model->mode == MMAPIO_READ_ONLY ? -EBADF : 0));
	if (!error) {
		MODEL_CHECK(before == value);
		value += 1000;
		memcpy(model->bytes + offset + 8 * (count - 1), &value, 8);
	}
	MODEL_CHECK(mmapio_atomic_u64_put(&view) == 0);
	if (!error)
		model_changed(model, offset, offset + 8 * count);
}

static void model_flush(struct model *model, struct model_input *input)
{
	uint64_t offset = model_place(model, input), length = model_length(model, input), end;
	bool inside = model_inside(model, offset, length);

	if (model_next(input, 3) == 0) {
		MODEL_CHECK(model_next(input, 2) ? mmapio_flush(model->file) == 0
						 : mmapio_sync(model->file, true) == 0);
		if (model->mode == MMAPIO_READ_WRITE)
			model_flushed(model, 0, model->most, true);
		return;
	}
	MODEL_CHECK(mmapio_flush_range(model->file, offset, length) == (inside ? 0 : -ERANGE));
	if (!inside || !length || model->mode != MMAPIO_READ_WRITE)
		return;
	end = (offset + length + model->page - 1) / model->page * model->page;
	model_flushed(model, offset / model->page * model->page,
		      end < model->size ? end : model->size, false);
}

/* Of a copy-on-write file: its changes are kept, or dropped; or the file changes below them. */
static void model_private(struct model *model, struct model_input *input)
{
	uint64_t offset, length;
	uint8_t bytes[64] = {0};

	if (model->mode != MMAPIO_COPY_ON_WRITE) {
		MODEL_CHECK(mmapio_changes_discard(model->file) == -EBADF);
		return;
	}
	switch (model_next(input, 3)) {
	case 0:
		MODEL_CHECK(mmapio_changes_commit(model->file, model->writer) == 0);
		for (uint64_t i = 0; i < model->size; i++)
			if (model->changed[i])
				model->below[i] = model->bytes[i];
		break;
	case 1:
		MODEL_CHECK(mmapio_changes_discard(model->file) == 0);
		break;
	default:
		offset = model->size ? model_next(input, model->size) : 0;
		length = model->size - offset < 64 ? model->size - offset : 64;
		model_fill(bytes, input, length);
		MODEL_CHECK(mmapio_write(model->writer, offset, bytes, length) == (ssize_t)length);
		memcpy(model->below + offset, bytes, length);
		for (uint64_t i = offset; i < offset + length; i++)
			if (!model->private[i / model->page])
				model->bytes[i] = model->below[i];
		return;
	}
	/* All follows the file again. But a commit leaves the pages that were not changed since. */
	memset(model->changed, 0, model->most * sizeof(bool));
	memset(model->private, 0, MODEL_PAGES * 2 * sizeof(bool));
	memcpy(model->bytes, model->below, model->size);
}

/* Of which nothing is to be seen in the bytes. */
static void model_advise(struct model *model, struct model_input *input)
{
	uint64_t offset = model_place(model, input), length = model_length(model, input);
	enum mmapio_advice advice = (enum mmapio_advice)model_next(input, 5);
	bool inside;
	int error;

	if (model_next(input, 4) == 0)
		length = UINT64_MAX;
	inside = length == UINT64_MAX ? offset <= model->size : model_inside(model, offset, length);
	switch (model_next(input, 3)) {
	case 0:
		error = mmapio_lock(model->file, offset, length);
		/* A limit may be in the way. */
		MODEL_CHECK(inside ? !error || error == -ENOMEM || error == -EPERM
				   : error == -ERANGE);
		break;
	case 1:
		MODEL_CHECK(mmapio_unlock(model->file, offset, length) == (inside ? 0 : -ERANGE));
		break;
	default:
		MODEL_CHECK(mmapio_advise(model->file, offset, length, advice) ==
			    (inside ? 0 : -ERANGE));
	}
}

static void model_step(struct model *model, struct model_input *input)
{
	static const struct {
		const char *name;
		void (*run)(struct model *model, struct model_input *input);
	} operations[] = {
		{"read", model_read},	  {"write", model_write},	{"write", model_write},
		{"store", model_store},	  {"store", model_store},	{"walk", model_walk},
		{"resize", model_resize}, {"allocate", model_allocate}, {"copy", model_copy},
		{"words", model_words},	  {"flush", model_flush},	{"private", model_private},
		{"advise", model_advise},
	};
	size_t which = model_next(input, sizeof(operations) / sizeof(operations[0]));

	model->doing = operations[which].name;
	operations[which].run(model, input);
	MODEL_CHECK(mmapio_file_size(model->file) == model->size);
	model_check_ranges(model);
	if (model->step % 16 == 0)
		model_check_bytes(model);
	model->step++;
}

/*
 * Runs operations on a file of which path is the name, until steps are done or the input ends. The
 * first choices are the mode, the policy and the way of writing.
 */
static void model_run(const char *path, struct model_input *input, unsigned int steps)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct model run = {.page = (uint64_t)sysconf(_SC_PAGESIZE), .doing = "begin"};
	struct model *model = &run;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	model->most = 2 * MODEL_PAGES * model->page;
	model->bytes = calloc(1, model->most + 8);
	model->below = calloc(1, model->most + 8);
	model->changed = calloc(model->most, sizeof(bool));
	model->private = calloc(MODEL_PAGES * 2, sizeof(bool));
	MODEL_CHECK(fd >= 0 && model->bytes && model->below && model->changed && model->private);
	model->mode = (enum mmapio_mode)model_next(input, 3);
	switch (model_next(input, 5)) {
	case 0:
		model->policy.always = true;
		break;
	case 1:
		model->policy.bytes = 1 + model_next(input, 3 * model->page);
		break;
	case 2:
		model->policy.writes = 1 + model_next(input, 20);
		break;
	}
	model->size = model_place(model, input) % model->most;
	if (model->mode == MMAPIO_READ_ONLY && model->size == 0)
		model->size = model->page + 1;
	model_fill(model->bytes, input, model->size);
	memcpy(model->below, model->bytes, model->size);
	MODEL_CHECK(pwrite(fd, model->bytes, model->size, 0) == (ssize_t)model->size);
	options.mode = model->mode;
	options.policy = model->policy;
	options.write_method = (enum mmapio_write_method)model_next(input, 3);
	options.flags = model_next(input, 2) ? MMAPIO_LAZY : 0;
	MODEL_CHECK(mmapio_open(&model->file, path, &options) == 0);
	options = (struct mmapio_options)MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	if (model->mode == MMAPIO_COPY_ON_WRITE)
		MODEL_CHECK(mmapio_open(&model->writer, path, &options) == 0);
	else
		memset(model->below, 0, model->most);

	while (model->step < steps && (!input->data || input->length))
		model_step(model, input);

	/* What is left on the disk: the same, or what is below. */
	model->doing = "end";
	model_check_bytes(model);
	mmapio_file_unref(model->file);
	mmapio_file_unref(model->writer);
	{
		uint8_t *found = malloc(model->most + 1);
		const uint8_t *expected =
			model->mode == MMAPIO_COPY_ON_WRITE ? model->below : model->bytes;

		MODEL_CHECK(pread(fd, found, model->most + 1, 0) == (ssize_t)model->size);
		MODEL_CHECK(memcmp(found, expected, model->size) == 0);
		free(found);
	}
	close(fd);
	free(model->bytes);
	free(model->below);
	free(model->changed);
	free(model->private);
}

#endif
