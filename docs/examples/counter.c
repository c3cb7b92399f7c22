/* SPDX-License-Identifier: Apache-2.0 */
/* counter FILE TIMES: adds 1 to a counter in a file, which any number of processes share. */
#include <mmapio.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const char *what)
{
	struct mmapio_error error = MMAPIO_ERROR_INIT;
	char text[200] = "";

	mmapio_error_last(&error);
	mmapio_error_text(&error, text, sizeof(text));
	fprintf(stderr, "counter: %s: %s\n", what, text);
	return 1;
}

int main(int argc, char **argv)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct mmapio_atomic_u64 counter;
	struct mmapio_file *file;
	uint64_t value = 0;
	unsigned long times;
	char *end;
	int status = 0;

	if (argc != 3 || (times = strtoul(argv[2], &end, 10), end == argv[2] || *end)) {
		fprintf(stderr, "usage: counter FILE TIMES\n");
		return 2;
	}
	/* Whoever comes first makes it: nobody sees it shorter than this. */
	if (mmapio_open_or_create(&file, argv[1], sizeof(value), 0644, &options, NULL))
		return fail(argv[1]);
	if (mmapio_atomic_u64_get(file, 0, 1, &counter)) {
		status = fail(argv[1]);
		mmapio_file_unref(file);
		return status;
	}
	while (!status && times--)
		if (mmapio_atomic_u64_add(&counter, 0, 1, NULL))
			status = fail("add");
	if (!status && mmapio_atomic_u64_load(&counter, 0, &value))
		status = fail("load");
	if (mmapio_atomic_u64_put(&counter))
		status = fail("put");
	if (!status && mmapio_flush(file))
		status = fail("flush");
	mmapio_file_unref(file);
	if (!status && printf("%llu\n", (unsigned long long)value) < 0)
		status = 1;
	return status;
}
