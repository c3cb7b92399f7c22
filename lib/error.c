/* SPDX-License-Identifier: Apache-2.0 */
/* Errors in detail (error.h), and in words. */
#include "error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static _Thread_local struct mmapio_error last;

int error_set(enum mmapio_error_kind kind, int code)
{
	last = (struct mmapio_error){.kind = kind, .code = code};
	return code;
}

int error_bounds(uint64_t offset, uint64_t length, uint64_t total)
{
	last = (struct mmapio_error){
		.kind = MMAPIO_ERROR_BOUNDS,
		.code = -ERANGE,
		.offset = offset,
		.length = length,
		.total = total,
	};
	return -ERANGE;
}

int error_alignment(uint64_t required, uint64_t offset)
{
	last = (struct mmapio_error){
		.kind = MMAPIO_ERROR_ALIGNMENT,
		.code = -EINVAL,
		.offset = offset,
		.required = required,
	};
	return -EINVAL;
}

int error_argument(void)
{
	return error_set(MMAPIO_ERROR_ARGUMENT, -EINVAL);
}

int mmapio_error_last(struct mmapio_error *error)
{
	size_t size = error ? error->size : 0;

	if (size < offsetof(struct mmapio_error, offset))
		return error_argument();
	memset((char *)error + sizeof(size), 0, size - sizeof(size));
	memcpy((char *)error + sizeof(size), (const char *)&last + sizeof(size),
	       (size < sizeof(last) ? size : sizeof(last)) - sizeof(size));
	return error->code;
}

static const char *const kinds[] = {
	[MMAPIO_ERROR_NONE] = "no error",
	[MMAPIO_ERROR_ARGUMENT] = "bad argument",
	[MMAPIO_ERROR_IO] = "I/O",
	[MMAPIO_ERROR_MODE] = "not in this mode",
	[MMAPIO_ERROR_BOUNDS] = "out of bounds",
	[MMAPIO_ERROR_ALIGNMENT] = "misaligned",
	[MMAPIO_ERROR_FLUSH] = "flush",
	[MMAPIO_ERROR_RESIZE] = "change of size",
	[MMAPIO_ERROR_ADVICE] = "advice",
	[MMAPIO_ERROR_LOCK] = "locking of pages",
	[MMAPIO_ERROR_UNLOCK] = "unlocking of pages",
	[MMAPIO_ERROR_WATCH] = "watch",
	[MMAPIO_ERROR_BUSY] = "in use",
};

int mmapio_error_text(const struct mmapio_error *error, char *text, size_t size)
{
	struct mmapio_error known = {0};
	int length;

	if (!error || (!text && size) || error->size < offsetof(struct mmapio_error, offset))
		return error_argument();
	memcpy(&known, error, error->size < sizeof(known) ? error->size : sizeof(known));
	if ((size_t)known.kind >= sizeof(kinds) / sizeof(kinds[0]))
		return error_argument();
	switch (known.kind) {
	case MMAPIO_ERROR_NONE:
		length = snprintf(text, size, "%s", kinds[known.kind]);
		break;
	case MMAPIO_ERROR_BOUNDS:
		length = snprintf(text, size,
				  "%s: %" PRIu64 " bytes at offset %" PRIu64 ", of %" PRIu64,
				  kinds[known.kind], known.length, known.offset, known.total);
		break;
	case MMAPIO_ERROR_ALIGNMENT:
		length = snprintf(text, size, "%s: offset %" PRIu64 " is no multiple of %" PRIu64,
				  kinds[known.kind], known.offset, known.required);
		break;
	default:
		length = snprintf(text, size, "%s: %s", kinds[known.kind], strerror(-known.code));
	}
	return length;
}
