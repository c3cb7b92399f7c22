/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault guard: copies between memory and a mapping that come back when a page of the mapping
 * cannot be had. Knows addresses, no files.
 */
#ifndef GUARD_H
#define GUARD_H

#include <stdbool.h>
#include <stddef.h>

/* Whether mmapio_guard_install() is in force. */
bool guard_installed(void);

/*
 * Copies length bytes, of which one side lies in the mapping. 0; -EIO: a page of the mapping could
 * not be had; -EFAULT: one of the other side's. Some of the bytes may have been copied then. The
 * guard must be installed.
 */
int guard_copy_out(void *target, const void *mapped, size_t length);
int guard_copy_in(void *mapped, const void *source, size_t length);

/* Reads one byte of each page of [mapped, mapped + length). 0 or -EIO. */
int guard_touch(const void *mapped, size_t length, size_t page_size);

#endif
