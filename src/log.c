/* SPDX-License-Identifier: Apache-2.0 */
/* The log (log.h). */
#include "log.h"

#include <stdatomic.h>
#include <stdio.h>

static _Atomic bool in_background;

void log_open(bool background)
{
	if (background)
		openlog("mmapfs", LOG_PID, LOG_DAEMON);
	atomic_store(&in_background, background);
}

void log_vline(int priority, const char *format, va_list arguments)
{
	char line[4096 + 512];

	if (atomic_load(&in_background)) {
		vsyslog(priority, format, arguments);
		return;
	}
	/* One call for one line: several threads, and the program's children, write to stderr. */
	vsnprintf(line, sizeof(line), format, arguments);
	fprintf(stderr, "mmapfs: %s\n", line);
}

void log_line(int priority, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	log_vline(priority, format, arguments);
	va_end(arguments);
}
