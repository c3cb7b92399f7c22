/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last error of each thread, in detail (mmapio_error_last()). Knows of no file.
 *
 * Whoever finds that a call must fail says why, here; whoever only hands an error on leaves it,
 * or says what it was a part of (error_set() of a flush, a change of size, ...).
 */
#ifndef ERROR_H
#define ERROR_H

#define MMAPIO_LIBRARY
#include "mmapio.h"

/* Returns code, a negative errno. */
int error_set(enum mmapio_error_kind kind, int code);

/* [offset, offset + length) is outside of what has total bytes: -ERANGE. */
int error_bounds(uint64_t offset, uint64_t length, uint64_t total);

/* offset is no multiple of required: -EINVAL. */
int error_alignment(uint64_t required, uint64_t offset);

/* What the caller gave is not allowed, whatever the file: -EINVAL. */
int error_argument(void);

#endif
