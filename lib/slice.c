/* SPDX-License-Identifier: Apache-2.0 */
/* Slices: pins with an address. */
#include "file.h"

#include <errno.h>

/* What an empty slice points to. */
static char nothing[1];

static int slice_take(struct mmapio_file *file, uint64_t offset, size_t length, void **data,
		      void **pin)
{
	struct pin_slot *slot;
	struct region *region;
	int error;

	if (length == 0) {
		if (offset > atomic_load(&file->size))
			return error_bounds(offset, length, atomic_load(&file->size));
		*data = nothing;
		*pin = NULL;
		return 0;
	}
	if (offset > INT64_MAX || length > INT64_MAX - offset)
		return error_bounds(offset, length, atomic_load(&file->size));
	error = pin_take(file, offset + length, true, &slot, &region);
	if (error == -ERANGE)
		return error_bounds(offset, length, atomic_load(&file->size));
	if (error)
		return error_set(MMAPIO_ERROR_IO, error);
	*data = region->base + offset;
	*pin = slot;
	return 0;
}

int mmapio_slice_get(struct mmapio_file *file, uint64_t offset, size_t length,
		     struct mmapio_slice *slice)
{
	void *data, *pin;
	int error;

	if (!file || !slice)
		return error_argument();
	error = slice_take(file, offset, length, &data, &pin);
	if (!error)
		*slice = (struct mmapio_slice){data, length, offset, file, pin};
	return error;
}

int mmapio_slice_get_some(struct mmapio_file *file, uint64_t offset, size_t length,
			  struct mmapio_slice *slice)
{
	int error;

	if (!file || !slice)
		return error_argument();
	do {
		uint64_t size = atomic_load(&file->size);
		uint64_t there = offset < size ? size - offset : 0;

		if (there == 0) {
			*slice = (struct mmapio_slice){nothing, 0, offset, file, NULL};
			return 0;
		}
		error = mmapio_slice_get(file, offset, length < there ? length : (size_t)there,
					 slice);
	} while (error == -ERANGE); /* it shrank in between */
	return error;
}

int mmapio_slice_get_mut(struct mmapio_file *file, uint64_t offset, size_t length,
			 struct mmapio_slice_mut *slice)
{
	void *data, *pin;
	int error;

	if (!file || !slice)
		return error_argument();
	if (atomic_load(&file->mode) == MMAPIO_READ_ONLY)
		return error_set(MMAPIO_ERROR_MODE, -EBADF);
	error = slice_take(file, offset, length, &data, &pin);
	if (!error)
		*slice = (struct mmapio_slice_mut){
			data, length, offset, file, pin, flush_failures(file),
		};
	return error;
}

static void slice_release(struct mmapio_file *file, void *pin)
{
	if (pin)
		pin_release(file, pin);
}

void mmapio_slice_put(struct mmapio_slice *slice)
{
	if (!slice)
		return;
	slice_release(slice->file, slice->pin);
	*slice = (struct mmapio_slice){0};
}

void mmapio_slice_put_mut(struct mmapio_slice_mut *slice)
{
	if (!slice)
		return;
	slice_release(slice->file, slice->pin);
	*slice = (struct mmapio_slice_mut){0};
}

int mmapio_commit(struct mmapio_slice_mut *slice, size_t offset, size_t length)
{
	struct mmapio_file *file = slice ? slice->file : NULL;
	uint64_t start, failures;

	if (!file)
		return error_argument();
	start = slice->offset + offset;
	failures = slice->failures;
	if (offset > slice->length || length > slice->length - offset)
		return error_bounds(offset, length, slice->length);
	if (length == 0)
		return 0;
	if (atomic_load(&file->mode) == MMAPIO_COPY_ON_WRITE) {
		(void)flush_begin(file);
		change_note(file, start, start + length);
		flush_end(file);
		return 0;
	}
	/* What is stored from here on is not what an earlier sync failed with. */
	slice->failures = flush_begin(file);
	return flush_commit(file, start, start + length, true, failures);
}
