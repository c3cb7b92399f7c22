/* SPDX-License-Identifier: Apache-2.0 */
/* What the tools of the mount tests have in common: a line on stderr, and the end. Included first.
 */
#ifndef TOOL_H
#define TOOL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the tool is at, to be said with what failed; NULL: nothing is */
static const char *doing __attribute__((unused));

/* Also from threads and children */
static __attribute__((noreturn, unused, format(printf, 1, 2))) void fail(const char *format, ...)
{
	va_list arguments;

	flockfile(stderr);
	fprintf(stderr, "%s: ", program_invocation_short_name);
	if (doing)
		fprintf(stderr, "%s: ", doing);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	fflush(stderr);
	_exit(1);
}

#define check(condition)                                                                           \
	((condition) ? (void)0 : fail("line %d: %s: %s", __LINE__, #condition, strerror(errno)))

#endif
