/* SPDX-License-Identifier: Apache-2.0 */
/* chunks FILE: makes all its letters large, in place, in chunks of 64 KiB. */
#include <ctype.h>
#include <mmapio.h>
#include <stdio.h>

static int fail(const char *what)
{
	struct mmapio_error error = MMAPIO_ERROR_INIT;
	char text[200] = "";

	mmapio_error_last(&error);
	mmapio_error_text(&error, text, sizeof(text));
	fprintf(stderr, "chunks: %s: %s\n", what, text);
	return 1;
}

static int enlarge(void *context, uint64_t offset, void *data, size_t length)
{
	unsigned char *bytes = data;
	uint64_t *end = context;
	size_t i;

	for (i = 0; i < length; i++)
		bytes[i] = (unsigned char)toupper(bytes[i]);
	*end = offset + length;
	return 0;
}

int main(int argc, char **argv)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct mmapio_file *file;
	uint64_t end = 0;
	int status = 0;

	if (argc != 2) {
		fprintf(stderr, "usage: chunks FILE\n");
		return 2;
	}
	if (mmapio_open(&file, argv[1], &options))
		return fail(argv[1]);
	if (mmapio_chunks_change(file, 0, UINT64_MAX, 64 * 1024, enlarge, &end))
		status = fail("change");
	else if (mmapio_flush(file))
		status = fail("flush");
	mmapio_file_unref(file);
	if (!status && printf("%llu bytes\n", (unsigned long long)end) < 0)
		status = 1;
	return status;
}
