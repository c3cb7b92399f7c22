/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins: who holds which part of a file and which of its regions. Owns the slots and the list of
 * retired regions; knows nothing of what slices are for.
 *
 * A slot's end says how far the pin reaches: 0 free, else the end of the pinned range in bytes.
 * The top bit, MARK, says that somebody waits for it.
 *
 *   take      claim a slot (0 -> end), say which region, and only then check that size and region
 *             are still what they were. If not, release and start again.
 *   change    set the new size or region first, and only then look at the slots.
 *
 *   wait      mark, once, the slots that reach beyond the new size, and wait for those. The size is
 *             not raised meanwhile.
 *
 * All of these are sequentially consistent, so that one of the two sees the other. A slot that is
 * claimed may still name another region than the one about to be checked: harmless, since that
 * check will fail, or a region is kept a little longer.
 *
 * Releasing exchanges end for 0. Nothing of the file may be touched after that, since the file may
 * be gone, unless the slot was marked: marks are counted (marked), and the file stays until each
 * has been accounted for under pin_lock.
 */
#include "file.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#define MARK (UINT64_C(1) << 63)

static inline struct pin_block *block_next(struct pin_block *block)
{
	return atomic_load(&block->next);
}

/* A free slot claimed for end, or NULL without memory. */
static struct pin_slot *slot_claim(struct mmapio_file *file, uint64_t end)
{
	/* Threads start at different slots, and so in different cache lines. */
	size_t first = ((uintptr_t)pthread_self() >> 12) * 11 % PIN_SLOTS;
	struct pin_block *block = &file->pins;

	for (;;) {
		struct pin_block *next, *expected = NULL;

		for (size_t i = 0; i < PIN_SLOTS; i++) {
			struct pin_slot *slot = &block->slots[(first + i) % PIN_SLOTS];
			uint64_t free_slot = 0;

			if (atomic_load_explicit(&slot->end, memory_order_relaxed) == 0 &&
			    atomic_compare_exchange_strong(&slot->end, &free_slot, end))
				return slot;
		}
		next = block_next(block);
		if (!next) {
			next = aligned_alloc(_Alignof(struct pin_block), sizeof(*next));
			if (!next)
				return NULL;
			for (size_t i = 0; i < PIN_SLOTS; i++) {
				atomic_init(&next->slots[i].end, 0);
				atomic_init(&next->slots[i].region, NULL);
			}
			atomic_init(&next->next, NULL);
			if (!atomic_compare_exchange_strong(&block->next, &expected, next)) {
				free(next);
				next = expected;
			}
		}
		block = next;
	}
}

int pin_take(struct mmapio_file *file, uint64_t end, bool mapped, struct pin_slot **slot,
	     struct region **region)
{
	struct pin_slot *claimed = slot_claim(file, end);
	int error;

	if (!claimed)
		return -ENOMEM;
#ifdef MMAPIO_DEBUG
	sched_yield(); /* so that tests see what the check is for */
#endif
	while (atomic_load(&file->size) >= end) {
		struct region *current;

		if (!mapped)
			goto taken;
		current = atomic_load(&file->region);
		if (current) {
			if (atomic_load_explicit(&claimed->region, memory_order_relaxed) != current)
				atomic_store(&claimed->region, current);
			if (atomic_load(&file->region) != current)
				continue;
			if (current->length >= end) {
				/* The size may have changed meanwhile: but end was there to be
				 * seen before it was first checked. */
				*region = current;
				goto taken;
			}
		}
		/* Not with the pin held: whoever has size_lock may be waiting for it. */
		pin_release(file, claimed);
		error = mapping_reach(file, end);
		if (error)
			return error;
		claimed = slot_claim(file, end);
		if (!claimed)
			return -ENOMEM;
	}
	pin_release(file, claimed);
	return -ERANGE;

taken:
	*slot = claimed;
	return 0;
}

/* Marks a slot that is wanted. Whether it is. */
static bool slot_mark_locked(struct mmapio_file *file, struct pin_slot *slot, uint64_t end,
			     struct region *region)
{
	for (;;) {
		uint64_t seen = atomic_load(&slot->end);

		if (seen == 0)
			return false;
		if (region ? atomic_load(&slot->region) != region : (seen & ~MARK) <= end)
			return false;
		if (seen & MARK)
			return true;
		/* It may be released, and claimed anew, at any moment: then look again. */
		if (atomic_compare_exchange_strong(&slot->end, &seen, seen | MARK)) {
			file->marked++;
			return true;
		}
	}
}

/* Marks each pin that holds region, or without one ends after end. Whether there is any. */
static bool pins_mark_locked(struct mmapio_file *file, uint64_t end, struct region *region)
{
	bool any = false;

	for (struct pin_block *block = &file->pins; block; block = block_next(block))
		for (size_t i = 0; i < PIN_SLOTS; i++)
			any |= slot_mark_locked(file, &block->slots[i], end, region);
	return any;
}

/* Whether a pin that is marked ends after end. */
static bool pins_are_marked_locked(struct mmapio_file *file, uint64_t end)
{
	for (struct pin_block *block = &file->pins; block; block = block_next(block))
		for (size_t i = 0; i < PIN_SLOTS; i++) {
			const uint64_t seen = atomic_load(&block->slots[i].end);

			if (seen & MARK && (seen & ~MARK) > end)
				return true;
		}
	return false;
}

static void reap_locked(struct mmapio_file *file)
{
	struct region **link = &file->retired;

	while (*link) {
		struct region *region = *link;

		if (pins_mark_locked(file, 0, region)) {
			link = &region->next_retired;
		} else {
			*link = region->next_retired;
			region_free(region);
		}
	}
}

void pin_release(struct mmapio_file *file, struct pin_slot *slot)
{
	bool last;

	if (!(atomic_exchange(&slot->end, 0) & MARK))
		return;

	pthread_mutex_lock(&file->pin_lock);
	file->marked--;
	reap_locked(file);
	last = file->closed && file->marked == 0 && !pins_mark_locked(file, 0, NULL);
	pthread_cond_broadcast(&file->pin_released);
	pthread_mutex_unlock(&file->pin_lock);
	if (last)
		file_destroy(file);
}

int pin_wait(struct mmapio_file *file, uint64_t end, uint64_t deadline)
{
	bool waits;
	int error = 0;

	pthread_mutex_lock(&file->pin_lock);
	/* Marked once: what is claimed later has yet to look at the size, and will be refused.
	 * Those that try again and again would keep this waiting. */
	waits = pins_mark_locked(file, end, NULL);
	while (waits && !error) {
		struct timespec until = {.tv_sec = (time_t)(deadline / 1000000000),
					 .tv_nsec = (long)(deadline % 1000000000)};

		if (deadline == UINT64_MAX)
			pthread_cond_wait(&file->pin_released, &file->pin_lock);
		else if (monotonic_ns() >= deadline)
			error = -EBUSY;
		else
			pthread_cond_timedwait(&file->pin_released, &file->pin_lock, &until);
		waits = pins_are_marked_locked(file, end);
	}
	pthread_mutex_unlock(&file->pin_lock);
	return error;
}

void pin_retire(struct mmapio_file *file, struct region *region)
{
	pthread_mutex_lock(&file->pin_lock);
	region->next_retired = file->retired;
	file->retired = region;
	reap_locked(file);
	pthread_mutex_unlock(&file->pin_lock);
}

bool pin_any(struct mmapio_file *file)
{
	for (struct pin_block *block = &file->pins; block; block = block_next(block))
		for (size_t i = 0; i < PIN_SLOTS; i++)
			if (atomic_load(&block->slots[i].end))
				return true;
	return false;
}

void pin_close(struct mmapio_file *file)
{
	bool last;

	pthread_mutex_lock(&file->pin_lock);
	file->closed = true;
	last = !pins_mark_locked(file, 0, NULL) && file->marked == 0;
	pthread_mutex_unlock(&file->pin_lock);
	if (last)
		file_destroy(file);
}
