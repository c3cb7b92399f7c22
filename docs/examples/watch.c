/* SPDX-License-Identifier: Apache-2.0 */
/* watch FILE: says what others do to a file, line by line, until its last name is gone. */
#include <errno.h>
#include <mmapio.h>
#include <poll.h>
#include <stdio.h>

static int fail(const char *what)
{
	struct mmapio_error error = MMAPIO_ERROR_INIT;
	char text[200] = "";

	mmapio_error_last(&error);
	mmapio_error_text(&error, text, sizeof(text));
	fprintf(stderr, "watch: %s: %s\n", what, text);
	return 1;
}

/* Tells of all events that wait. 1: the file was removed; 0; -1: an error. */
static int tell(struct mmapio_watch *watch)
{
	static const char *const words[] = {"modified", "metadata", "removed", "overflow"};
	struct mmapio_event event = MMAPIO_EVENT_INIT;
	int found;

	while ((found = mmapio_watch_next(watch, &event)) == 1) {
		if (printf("%s\n", words[event.kind]) < 0 || fflush(stdout))
			return -1;
		if (event.kind == MMAPIO_EVENT_REMOVED)
			return 1;
	}
	return found;
}

int main(int argc, char **argv)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_ONLY);
	struct mmapio_watch *watch;
	struct mmapio_file *file;
	struct pollfd polled;
	int told = 0;

	if (argc != 2) {
		fprintf(stderr, "usage: watch FILE\n");
		return 2;
	}
	if (mmapio_open(&file, argv[1], &options))
		return fail(argv[1]);
	told = mmapio_watch_new(&watch, file);
	mmapio_file_unref(file); /* the watch has a reference of its own */
	if (told)
		return fail("watch");
	if (printf("watching\n") < 0 || fflush(stdout))
		told = -1;
	polled.fd = mmapio_watch_descriptor(watch);
	polled.events = POLLIN;
	while (told == 0) {
		if (poll(&polled, 1, -1) < 0 && errno != EINTR)
			told = -1;
		else
			told = tell(watch);
	}
	mmapio_watch_free(watch);
	return told == 1 ? 0 : 1;
}
