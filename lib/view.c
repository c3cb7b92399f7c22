/* SPDX-License-Identifier: Apache-2.0 */
/* Views of a file: a segment, which is a range of it, and a cursor, which is a position in it. */
#include "file.h"

#include <errno.h>
#include <stdio.h>

/* --- Segments --------------------------------------------------------------------------------- */

int mmapio_segment_init(struct mmapio_segment *segment, struct mmapio_file *file, uint64_t offset,
			uint64_t length)
{
	if (!segment || !file)
		return error_argument();
	if (offset > INT64_MAX || length > INT64_MAX - offset)
		return error_bounds(offset, length, INT64_MAX);
	*segment = (struct mmapio_segment){file, offset, length};
	return 0;
}

bool mmapio_segment_is_valid(const struct mmapio_segment *segment)
{
	return segment && segment->offset + segment->length <= atomic_load(&segment->file->size);
}

/* The place of a range of the segment in the file. 0 or -ERANGE. */
static int segment_place(const struct mmapio_segment *segment, uint64_t offset, uint64_t length,
			 uint64_t *place)
{
	if (offset > segment->length || length > segment->length - offset)
		return error_bounds(offset, length, segment->length);
	if (!mmapio_segment_is_valid(segment))
		return error_bounds(segment->offset, segment->length,
				    atomic_load(&segment->file->size));
	*place = segment->offset + offset;
	return 0;
}

int mmapio_segment_slice(const struct mmapio_segment *segment, uint64_t offset, size_t length,
			 struct mmapio_slice *slice)
{
	uint64_t place;
	int error;

	if (!segment || !slice)
		return error_argument();
	error = segment_place(segment, offset, length, &place);
	return error ? error : mmapio_slice_get(segment->file, place, length, slice);
}

int mmapio_segment_slice_mut(const struct mmapio_segment *segment, uint64_t offset, size_t length,
			     struct mmapio_slice_mut *slice)
{
	uint64_t place;
	int error;

	if (!segment || !slice)
		return error_argument();
	error = segment_place(segment, offset, length, &place);
	return error ? error : mmapio_slice_get_mut(segment->file, place, length, slice);
}

/* What of a copy lies in the segment; nothing beyond its end. */
static int segment_clamp(const struct mmapio_segment *segment, uint64_t offset, size_t *length,
			 uint64_t *place)
{
	if (offset >= segment->length) {
		*length = 0;
		offset = segment->length;
	} else if (*length > segment->length - offset) {
		*length = (size_t)(segment->length - offset);
	}
	return segment_place(segment, offset, *length, place);
}

ssize_t mmapio_segment_read(const struct mmapio_segment *segment, uint64_t offset, void *buffer,
			    size_t length)
{
	uint64_t place;
	int error;

	if (!segment || !buffer)
		return error_argument();
	error = segment_clamp(segment, offset, &length, &place);
	return error ? error : mmapio_read(segment->file, place, buffer, length);
}

ssize_t mmapio_segment_write(const struct mmapio_segment *segment, uint64_t offset,
			     const void *buffer, size_t length)
{
	uint64_t place;
	int error;

	if (!segment || !buffer)
		return error_argument();
	error = segment_clamp(segment, offset, &length, &place);
	return error ? error : mmapio_write(segment->file, place, buffer, length);
}

/* --- Cursors ---------------------------------------------------------------------------------- */

ssize_t mmapio_cursor_read(struct mmapio_cursor *cursor, void *buffer, size_t length)
{
	ssize_t count;

	if (!cursor)
		return error_argument();
	count = mmapio_read(cursor->file, cursor->position, buffer, length);
	if (count > 0)
		cursor->position += (uint64_t)count;
	return count;
}

ssize_t mmapio_cursor_write(struct mmapio_cursor *cursor, const void *buffer, size_t length)
{
	ssize_t count;

	if (!cursor)
		return error_argument();
	count = mmapio_write(cursor->file, cursor->position, buffer, length);
	if (count > 0)
		cursor->position += (uint64_t)count;
	return count;
}

int mmapio_cursor_seek(struct mmapio_cursor *cursor, int64_t distance, int whence)
{
	uint64_t from;

	if (!cursor || !cursor->file)
		return error_argument();
	switch (whence) {
	case SEEK_SET:
		from = 0;
		break;
	case SEEK_CUR:
		from = cursor->position;
		break;
	case SEEK_END:
		from = atomic_load(&cursor->file->size);
		break;
	default:
		return error_argument();
	}
	if (distance < 0 && from < -(uint64_t)distance)
		return error_argument();
	if (from > INT64_MAX || (distance > 0 && (uint64_t)distance > INT64_MAX - from))
		return error_set(MMAPIO_ERROR_BOUNDS, -EOVERFLOW);
	cursor->position = from + (uint64_t)distance;
	return 0;
}
