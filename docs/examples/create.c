/* SPDX-License-Identifier: Apache-2.0 */
/* create FILE: makes a file of two pages, writes to it in both ways, and brings it to the disk. */
#include <mmapio.h>
#include <stdio.h>
#include <string.h>

static int fail(const char *what)
{
	struct mmapio_error error = MMAPIO_ERROR_INIT;
	char text[200] = "";

	mmapio_error_last(&error);
	mmapio_error_text(&error, text, sizeof(text));
	fprintf(stderr, "create: %s: %s\n", what, text);
	return 1;
}

/* In place: the bytes count as changed from the commit on. */
static int store(struct mmapio_file *file, uint64_t offset, const char *text)
{
	struct mmapio_slice_mut slice;
	int result = mmapio_slice_get_mut(file, offset, strlen(text), &slice);

	if (result)
		return result;
	memcpy(slice.data, text, slice.length);
	result = mmapio_commit(&slice, 0, slice.length);
	mmapio_slice_put_mut(&slice);
	return result;
}

int main(int argc, char **argv)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	static const char text[] = "copied\n";
	const size_t page = mmapio_page_size();
	struct mmapio_file *file;
	int status = 0;

	if (argc != 2) {
		fprintf(stderr, "usage: create FILE\n");
		return 2;
	}
	if (mmapio_create(&file, argv[1], 2 * page, 0644, &options))
		return fail(argv[1]);
	if (mmapio_write(file, 0, text, sizeof(text) - 1) != (ssize_t)(sizeof(text) - 1))
		status = fail("write");
	else if (store(file, page, "stored\n"))
		status = fail("store");
	else if (printf("%llu bytes to flush\n", (unsigned long long)mmapio_dirty_bytes(file)) < 0)
		status = 1;
	else if (mmapio_flush(file))
		status = fail("flush");
	mmapio_file_unref(file);
	return status;
}
