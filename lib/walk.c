/* SPDX-License-Identifier: Apache-2.0 */
/* Walks over a file in chunks: one slice for all of them, and no call of the library in between. */
#include "file.h"

#include <errno.h>
#include <limits.h>

static int walk_begin(struct mmapio_chunks *chunks, struct mmapio_file *file, uint64_t offset,
		      uint64_t length, size_t chunk)
{
	const size_t most = length < SSIZE_MAX ? (size_t)length : SSIZE_MAX;
	int error;

	if (!chunks || chunk == 0)
		return error_argument();
	error = mmapio_slice_get_some(file, offset, most, &chunks->slice);
	if (error)
		return error;
	chunks->chunk = chunks->next = chunk;
	chunks->done = 0;
	return 0;
}

int mmapio_chunks_begin(struct mmapio_chunks *chunks, struct mmapio_file *file, uint64_t offset,
			uint64_t length, size_t chunk)
{
	return walk_begin(chunks, file, offset, length, chunk);
}

int mmapio_pages_begin(struct mmapio_chunks *chunks, struct mmapio_file *file, uint64_t offset,
		       uint64_t length)
{
	int error = walk_begin(chunks, file, offset, length, page_size());

	if (!error)
		chunks->next = page_size() - (size_t)(offset % page_size());
	return error;
}

size_t mmapio_chunks_left(const struct mmapio_chunks *chunks)
{
	const size_t left = chunks ? chunks->slice.length - chunks->done : 0;

	if (left == 0)
		return 0;
	if (left <= chunks->next)
		return 1;
	return 1 + (left - chunks->next - 1) / chunks->chunk + 1;
}

bool mmapio_chunks_next(struct mmapio_chunks *chunks, struct mmapio_chunk *chunk)
{
	const size_t left = chunks && chunk ? chunks->slice.length - chunks->done : 0;

	if (left == 0)
		return false;
	chunk->data = (const char *)chunks->slice.data + chunks->done;
	chunk->offset = chunks->slice.offset + chunks->done;
	chunk->length = left < chunks->next ? left : chunks->next;
	chunks->done += chunk->length;
	chunks->next = chunks->chunk;
	return true;
}

void mmapio_chunks_end(struct mmapio_chunks *chunks)
{
	if (!chunks)
		return;
	mmapio_slice_put(&chunks->slice);
	chunks->done = 0;
}

/* A mutable slice of what the file has of the range. */
static int slice_get_mut_some(struct mmapio_file *file, uint64_t offset, uint64_t length,
			      struct mmapio_slice_mut *slice)
{
	int error;

	do {
		const uint64_t size = atomic_load(&file->size);
		uint64_t there = offset < size ? size - offset : 0;

		if (there > length)
			there = length;
		if (there > SSIZE_MAX)
			there = SSIZE_MAX;
		/* Empty ones are taken where the file begins, which is inside. */
		error = mmapio_slice_get_mut(file, there ? offset : 0, (size_t)there, slice);
	} while (error == -ERANGE); /* it shrank in between */
	return error;
}

int mmapio_chunks_change(struct mmapio_file *file, uint64_t offset, uint64_t length, size_t chunk,
			 int (*change)(void *context, uint64_t offset, void *data, size_t length),
			 void *context)
{
	struct mmapio_slice_mut slice;
	uint64_t failures;
	size_t done = 0;
	int error, result = 0;

	if (!file || !change || chunk == 0)
		return error_argument();
	if (atomic_load(&file->mode) == MMAPIO_READ_ONLY)
		return error_set(MMAPIO_ERROR_MODE, -EBADF);
	failures = flush_begin_exclusive(file);
	error = slice_get_mut_some(file, offset, length, &slice);
	if (error) {
		flush_exclusive_end(file);
		flush_end(file);
		return error;
	}
	while (done < slice.length && !result) {
		const size_t left = slice.length - done, piece = left < chunk ? left : chunk;

		result = change(context, slice.offset + done, (char *)slice.data + done, piece);
		done += piece; /* whatever it has changed before it failed */
	}
	/* What the policy wants may run on_error, which may use the file. */
	flush_exclusive_end(file);
	if (done && atomic_load(&file->mode) == MMAPIO_READ_WRITE) {
		error = flush_commit(file, slice.offset, slice.offset + done, true, failures);
	} else {
		if (done)
			change_note(file, slice.offset, slice.offset + done);
		flush_end(file);
	}
	mmapio_slice_put_mut(&slice);
	return result ? result : error;
}
