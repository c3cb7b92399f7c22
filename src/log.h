/* SPDX-License-Identifier: Apache-2.0 */
/* The log: stderr in the foreground, syslog(3) in the background. Any thread. */
#ifndef LOG_H
#define LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <syslog.h>

/* background: from now on to syslog. */
void log_open(bool background);

/* One line, without the newline; priority as in syslog(3). */
void log_line(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));
void log_vline(int priority, const char *format, va_list arguments)
	__attribute__((format(printf, 2, 0)));

#endif
