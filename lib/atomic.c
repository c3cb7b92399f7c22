/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Atomic views: words of a file that threads and processes change together. Each is a mutable slice
 * (a slice, where the file is read-only) of aligned words; the processor does the rest.
 */
#include "file.h"

#include <errno.h>
#include <stdatomic.h>

/* The slice of an array of words. */
static int words_get(struct mmapio_file *file, uint64_t offset, size_t count, size_t width,
		     struct mmapio_slice_mut *slice, int *writable)
{
	struct mmapio_slice shown;
	int error;

	if (!file)
		return error_argument();
	/* As the mapping is that the words lie in, whatever becomes of the file. */
	*writable = atomic_load(&file->mode) != MMAPIO_READ_ONLY;

	if (offset % width)
		return error_alignment(width, offset);
	if (count > SIZE_MAX / width)
		return error_bounds(offset, UINT64_MAX, atomic_load(&file->size));
	if (*writable)
		return mmapio_slice_get_mut(file, offset, count * width, slice);
	error = mmapio_slice_get(file, offset, count * width, &shown);
	if (!error)
		*slice = (struct mmapio_slice_mut){
			(void *)shown.data, shown.length, shown.offset, file, shown.pin, 0,
		};
	return error;
}

/* What has been changed since the last commit counts from now on. (A word is changed first, and
 * then said to be: one that is changed at this moment counts now or the next time.) */
static int words_commit(struct mmapio_slice_mut *slice, int *changed)
{
	if (!__atomic_exchange_n(changed, 0, __ATOMIC_ACQUIRE))
		return 0;
	return mmapio_commit(slice, 0, slice->length);
}

/* Before a word is changed. 0, -ERANGE or -EBADF. */
static int word_check(size_t index, size_t count, int writable)
{
	if (index >= count)
		return error_bounds(index, 1, count);
	return writable ? 0 : error_set(MMAPIO_ERROR_MODE, -EBADF);
}

#define VIEW_CHECK(VIEW, INDEX)                                                                    \
	((VIEW) ? word_check(INDEX, (VIEW)->count, (VIEW)->writable) : error_argument())

#define MODIFY(WIDTH, NAME)                                                                        \
	int mmapio_atomic_u##WIDTH##_##NAME(struct mmapio_atomic_u##WIDTH *view, size_t index,     \
					    uint##WIDTH##_t operand, uint##WIDTH##_t *before)      \
	{                                                                                          \
		uint##WIDTH##_t old;                                                               \
		int error = VIEW_CHECK(view, index);                                               \
                                                                                                   \
		if (error)                                                                         \
			return error;                                                              \
		old = CALL_##NAME(&view->words[index], operand);                                   \
		__atomic_store_n(&view->changed, 1, __ATOMIC_RELEASE);                             \
		if (before)                                                                        \
			*before = old;                                                             \
		return 0;                                                                          \
	}

#define CALL_exchange(WORD, OPERAND) __atomic_exchange_n(WORD, OPERAND, __ATOMIC_SEQ_CST)
#define CALL_add(WORD, OPERAND)	     __atomic_fetch_add(WORD, OPERAND, __ATOMIC_SEQ_CST)
#define CALL_sub(WORD, OPERAND)	     __atomic_fetch_sub(WORD, OPERAND, __ATOMIC_SEQ_CST)
#define CALL_and(WORD, OPERAND)	     __atomic_fetch_and(WORD, OPERAND, __ATOMIC_SEQ_CST)
#define CALL_or(WORD, OPERAND)	     __atomic_fetch_or(WORD, OPERAND, __ATOMIC_SEQ_CST)
#define CALL_xor(WORD, OPERAND)	     __atomic_fetch_xor(WORD, OPERAND, __ATOMIC_SEQ_CST)

#define VIEW(WIDTH)                                                                                \
	int mmapio_atomic_u##WIDTH##_get(struct mmapio_file *file, uint64_t offset, size_t count,  \
					 struct mmapio_atomic_u##WIDTH *view)                      \
	{                                                                                          \
		struct mmapio_slice_mut slice;                                                     \
		int writable;                                                                      \
		int error = !view ? error_argument()                                               \
				  : words_get(file, offset, count, sizeof(uint##WIDTH##_t),        \
					      &slice, &writable);                                  \
                                                                                                   \
		if (!error)                                                                        \
			*view = (struct mmapio_atomic_u##WIDTH){slice.data, count, writable, 0,    \
								slice};                            \
		return error;                                                                      \
	}                                                                                          \
                                                                                                   \
	int mmapio_atomic_u##WIDTH##_commit(struct mmapio_atomic_u##WIDTH *view)                   \
	{                                                                                          \
		return view && view->slice.file ? words_commit(&view->slice, &view->changed)       \
						: error_argument();                                \
	}                                                                                          \
                                                                                                   \
	int mmapio_atomic_u##WIDTH##_put(struct mmapio_atomic_u##WIDTH *view)                      \
	{                                                                                          \
		int error;                                                                         \
                                                                                                   \
		if (!view)                                                                         \
			return error_argument();                                                   \
		error = view->slice.file ? words_commit(&view->slice, &view->changed) : 0;         \
                                                                                                   \
		mmapio_slice_put_mut(&view->slice);                                                \
		*view = (struct mmapio_atomic_u##WIDTH){0};                                        \
		return error;                                                                      \
	}                                                                                          \
                                                                                                   \
	int mmapio_atomic_u##WIDTH##_load(const struct mmapio_atomic_u##WIDTH *view, size_t index, \
					  uint##WIDTH##_t *value)                                  \
	{                                                                                          \
		if (!view || !value)                                                               \
			return error_argument();                                                   \
		if (index >= view->count)                                                          \
			return error_bounds(index, 1, view->count);                                \
		*value = __atomic_load_n(&view->words[index], __ATOMIC_SEQ_CST);                   \
		return 0;                                                                          \
	}                                                                                          \
                                                                                                   \
	int mmapio_atomic_u##WIDTH##_store(struct mmapio_atomic_u##WIDTH *view, size_t index,      \
					   uint##WIDTH##_t value)                                  \
	{                                                                                          \
		int error = VIEW_CHECK(view, index);                                               \
                                                                                                   \
		if (error)                                                                         \
			return error;                                                              \
		__atomic_store_n(&view->words[index], value, __ATOMIC_SEQ_CST);                    \
		__atomic_store_n(&view->changed, 1, __ATOMIC_RELEASE);                             \
		return 0;                                                                          \
	}                                                                                          \
                                                                                                   \
	int mmapio_atomic_u##WIDTH##_compare_exchange(struct mmapio_atomic_u##WIDTH *view,         \
						      size_t index, uint##WIDTH##_t *expected,     \
						      uint##WIDTH##_t desired)                     \
	{                                                                                          \
		int error = VIEW_CHECK(view, index);                                               \
                                                                                                   \
		if (error)                                                                         \
			return error;                                                              \
		if (!expected)                                                                     \
			return error_argument();                                                   \
		if (!__atomic_compare_exchange_n(&view->words[index], expected, desired, false,    \
						 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))              \
			return 0;                                                                  \
		__atomic_store_n(&view->changed, 1, __ATOMIC_RELEASE);                             \
		return 1;                                                                          \
	}                                                                                          \
                                                                                                   \
	MODIFY(WIDTH, exchange)                                                                    \
	MODIFY(WIDTH, add)                                                                         \
	MODIFY(WIDTH, sub)                                                                         \
	MODIFY(WIDTH, and)                                                                         \
	MODIFY(WIDTH, or)                                                                          \
	MODIFY(WIDTH, xor)

VIEW(32)
VIEW(64)
