/* SPDX-License-Identifier: Apache-2.0 */
/*
 * private FILE OFFSET TEXT commit|discard: writes TEXT into a private view of a file, which nobody
 * else sees, lists what was changed, brings it into the file or forgets it, and tells how much
 * is still changed then.
 */
#include <mmapio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what)
{
	struct mmapio_error error = MMAPIO_ERROR_INIT;
	char text[200] = "";

	mmapio_error_last(&error);
	mmapio_error_text(&error, text, sizeof(text));
	fprintf(stderr, "private: %s: %s\n", what, text);
	return 1;
}

static int commit(struct mmapio_file *view, const char *path)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct mmapio_file *file;
	int status = 0;

	if (mmapio_open(&file, path, &options))
		return fail(path);
	if (mmapio_changes_commit(view, file) || mmapio_flush(file))
		status = fail("commit");
	mmapio_file_unref(file);
	return status;
}

int main(int argc, char **argv)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_COPY_ON_WRITE);
	uint64_t offset = 0, at, length;
	char *end;
	struct mmapio_file *view;
	int found, status = 0;

	if (argc != 5 || (strcmp(argv[4], "commit") && strcmp(argv[4], "discard"))) {
		fprintf(stderr, "usage: private FILE OFFSET TEXT commit|discard\n");
		return 2;
	}
	at = strtoull(argv[2], &end, 10);
	if (end == argv[2] || *end) {
		fprintf(stderr, "private: no offset: %s\n", argv[2]);
		return 2;
	}
	if (mmapio_open(&view, argv[1], &options))
		return fail(argv[1]);
	length = strlen(argv[3]);
	if (mmapio_write(view, at, argv[3], length) != (ssize_t)length)
		status = fail("write");
	while (!status && (found = mmapio_changes_next(view, &offset, &length))) {
		if (found < 0)
			status = fail("changes");
		else if (printf("%llu+%llu\n", (unsigned long long)offset,
				(unsigned long long)length) < 0)
			status = 1;
		offset += length;
	}
	if (!status && !strcmp(argv[4], "commit"))
		status = commit(view, argv[1]);
	else if (!status && mmapio_changes_discard(view))
		status = fail("discard");
	if (!status &&
	    printf("%llu bytes left\n", (unsigned long long)mmapio_changes_bytes(view)) < 0)
		status = 1;
	mmapio_file_unref(view);
	return status;
}
