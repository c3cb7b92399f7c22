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
			return -ERANGE;
		*data = nothing;
		*pin = NULL;
		return 0;
	}
	if (offset > INT64_MAX || length > INT64_MAX - offset)
		return -ERANGE;
	error = pin_take(file, offset + length, true, &slot, &region);
	if (error)
		return error;
	*data = region->base + offset;
	*pin = slot;
	return 0;
}

int mmapio_slice_get(struct mmapio_file *file, uint64_t offset, size_t length,
		     struct mmapio_slice *slice)
{
	void *data, *pin;
	int error = slice_take(file, offset, length, &data, &pin);

	if (!error)
		*slice = (struct mmapio_slice){data, length, offset, file, pin};
	return error;
}

int mmapio_slice_get_some(struct mmapio_file *file, uint64_t offset, size_t length,
			  struct mmapio_slice *slice)
{
	int error;

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

	if (atomic_load(&file->mode) == MMAPIO_READ_ONLY)
		return -EBADF;
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
	slice_release(slice->file, slice->pin);
	*slice = (struct mmapio_slice){0};
}

void mmapio_slice_put_mut(struct mmapio_slice_mut *slice)
{
	slice_release(slice->file, slice->pin);
	*slice = (struct mmapio_slice_mut){0};
}

int mmapio_commit(struct mmapio_slice_mut *slice, size_t offset, size_t length)
{
	struct mmapio_file *file = slice->file;
	uint64_t start = slice->offset + offset, failures = slice->failures;

	if (offset > slice->length || length > slice->length - offset)
		return -ERANGE;
	if (length == 0 || atomic_load(&file->mode) == MMAPIO_COPY_ON_WRITE)
		return 0;
	/* What is stored from here on is not what an earlier sync failed with. */
	slice->failures = flush_begin(file);
	return flush_commit(file, start, start + length, true, failures);
}
