/* SPDX-License-Identifier: Apache-2.0 */
/* Prewarming: bringing pages into memory before somebody waits for them. */
#include "file.h"
#include "guard.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* A piece at a time, so that a shrink does not wait for all of a large file. */
#define PIECE ((size_t)8 * 1024 * 1024)

/* For kernels before 5.14. */
static int touch_pages(struct mmapio_file *file, const struct mmapio_slice *slice)
{
	char scratch[4096];

	if (guard_installed())
		return guard_touch(slice->data, slice->length, page_size());
	for (size_t done = 0; done < slice->length; done += sizeof(scratch))
		if (pread(file->fd, scratch, sizeof(scratch), (off_t)(slice->offset + done)) < 0)
			return -errno;
	return 0;
}

int touch_mapped(const void *start, size_t length)
{
	while (madvise((void *)start, length, MADV_POPULATE_READ))
		if (errno != EINTR && errno != EAGAIN)
			return errno;
	return 0;
}

static int touch_slice(struct mmapio_file *file, const struct mmapio_slice *slice)
{
	uintptr_t start = round_down((uintptr_t)slice->data, page_size());
	uintptr_t end = round_up((uintptr_t)slice->data + slice->length, page_size());
	struct stat st;

	switch (touch_mapped((void *)start, end - start)) {
	case 0:
		return 0;
	case EINVAL:
		return touch_pages(file, slice);
	case EFAULT: /* the file is shorter now, or the page cannot be read */
		if (fstat(file->fd, &st) == 0 &&
		    slice->offset + slice->length > (uint64_t)st.st_size)
			return 0;
		return -EIO;
	case ENOMEM:
		return -ENOMEM;
	default:
		return -EIO;
	}
}

int mmapio_touch(struct mmapio_file *file, uint64_t offset, uint64_t length)
{
	if (!file)
		return error_argument();
	while (length) {
		size_t piece = length < PIECE ? (size_t)length : PIECE;
		struct mmapio_slice slice;
		int error = mmapio_slice_get_some(file, offset, piece, &slice);

		if (error)
			return error;
		piece = slice.length;
		if (piece)
			error = touch_slice(file, &slice);
		mmapio_slice_put(&slice);
		if (error)
			return error_set(MMAPIO_ERROR_IO, error);
		if (piece == 0)
			break;
		offset += piece;
		length -= piece;
	}
	return 0;
}
