/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log FILE: appends the lines of its input. No line waits for the disk, and none is later there
 * than 10 ms after it was written and the time that the disk takes.
 */
#include <mmapio.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static int fail(const char *what)
{
	struct mmapio_error error = MMAPIO_ERROR_INIT;
	char text[200] = "";

	mmapio_error_last(&error);
	mmapio_error_text(&error, text, sizeof(text));
	fprintf(stderr, "log: %s: %s\n", what, text);
	return 1;
}

/* By the flusher's thread: what it could not bring to the disk. */
static void lost(void *context, uint64_t offset, uint64_t length, int error)
{
	atomic_int *failed = context;

	*failed = 1;
	fprintf(stderr, "log: %llu bytes at %llu: %s\n", (unsigned long long)length,
		(unsigned long long)offset, strerror(error));
}

int main(int argc, char **argv)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct mmapio_flusher *flusher;
	struct mmapio_cursor cursor;
	atomic_int failed = 0;
	char line[4096];
	int status = 0;

	if (argc != 2) {
		fprintf(stderr, "usage: log FILE\n");
		return 2;
	}
	if (mmapio_policy_parse(&options.policy, "10ms") || mmapio_flusher_new(&flusher))
		return fail("flusher");
	options.flusher = flusher;
	options.on_error = lost;
	options.context = &failed;
	if (mmapio_open_or_create(&cursor.file, argv[1], 0, 0644, &options, NULL)) {
		status = fail(argv[1]);
		mmapio_flusher_free(flusher);
		return status;
	}
	cursor.position = mmapio_file_size(cursor.file);
	while (!status && fgets(line, sizeof(line), stdin)) {
		size_t length = strlen(line);

		if (mmapio_cursor_write(&cursor, line, length) != (ssize_t)length)
			status = fail("write");
	}
	if (ferror(stdin))
		status = 1;
	/* What is still to be flushed is, before this returns; errors go to lost(). */
	mmapio_file_unref(cursor.file);
	mmapio_flusher_free(flusher);
	return status || failed;
}
