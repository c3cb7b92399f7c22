/* SPDX-License-Identifier: Apache-2.0 */
/* read FILE: counts its lines, without copying it. */
#include <mmapio.h>
#include <stdio.h>
#include <string.h>

static int fail(const char *what)
{
	struct mmapio_error error = MMAPIO_ERROR_INIT;
	char text[200] = "";

	mmapio_error_last(&error);
	mmapio_error_text(&error, text, sizeof(text));
	fprintf(stderr, "read: %s: %s\n", what, text);
	return 1;
}

int main(int argc, char **argv)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_ONLY);
	struct mmapio_file *file;
	struct mmapio_slice slice;
	const size_t window = 1024 * 1024;
	uint64_t offset = 0, lines = 0;

	if (argc != 2) {
		fprintf(stderr, "usage: read FILE\n");
		return 2;
	}
	if (mmapio_open(&file, argv[1], &options))
		return fail(argv[1]);
	for (;;) {
		const char *at, *end;

		if (mmapio_slice_get_some(file, offset, window, &slice)) {
			mmapio_file_unref(file);
			return fail(argv[1]);
		}
		if (slice.length == 0)
			break;
		at = slice.data;
		end = at + slice.length;
		while (at < end && (at = memchr(at, '\n', (size_t)(end - at)))) {
			lines++;
			at++;
		}
		offset += slice.length;
		mmapio_slice_put(&slice);
	}
	mmapio_slice_put(&slice);
	mmapio_file_unref(file);
	return printf("%llu\n", (unsigned long long)lines) < 0;
}
