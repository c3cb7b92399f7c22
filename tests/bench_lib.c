/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_lib.c - the library beside what one would write instead, in one run
 *
 *	bench_lib FOLDER [MEBIBYTES [ROUNDS]]
 *
 * Prints a line for each measurement: group, case, who, p50 and p99 in nanoseconds (of a round, or
 *of an operation where there are many), and how many times as long as ours (p50), separated by
 *tabs. All who are compared take turns in each round, in another order each time. Every byte is
 *read; every flush is a flush. Alone on the machine.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "mmapio.h"

#define KIB 1024ul
#define MIB (1024 * KIB)
#define CHECK(CONDITION)                                                                           \
	((CONDITION)                                                                               \
		 ? (void)0                                                                         \
		 : (fprintf(stderr, "line %d: %s: %s\n", __LINE__, #CONDITION, strerror(errno)),   \
		    exit(1)))

static char path[PATH_MAX];
static size_t size;
static unsigned int rounds;
static volatile uint64_t sink;

/* --- Allocations are counted: in the place of libc's, for the library too ------------------------
 */

static _Atomic unsigned long allocations;

extern void *__libc_malloc(size_t length);

#pragma GCC visibility push(default)
void *malloc(size_t length)
{
	atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
	return __libc_malloc(length);
}
#pragma GCC visibility pop

/* --- Measuring ----------------------------------------------------------------------------------
 */

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

struct sample {
	uint64_t *ns;
	size_t count, room;
};

static void sample_add(struct sample *sample, uint64_t ns)
{
	if (sample->count == sample->room) {
		sample->room = sample->room ? 2 * sample->room : 64;
		sample->ns = realloc(sample->ns, sample->room * sizeof(*sample->ns));
		CHECK(sample->ns);
	}
	sample->ns[sample->count++] = ns;
}

static uint64_t sample_at(const struct sample *sample, unsigned int percent)
{
	return sample->count ? sample->ns[(sample->count - 1) * percent / 100] : 0;
}

struct contender {
	const char *who; /* the first is ours */
	void (*run)(struct sample *sample, size_t parameter);
};

/* Lets all take turns, and prints. before: what each of them finds. */
static void contest(const char *group, const char *name, const struct contender *contenders,
		    size_t count, size_t parameter, void (*before)(void))
{
	struct sample samples[8] = {{0}};
	uint64_t ours;

	for (unsigned int round = 0; round < rounds; round++)
		for (size_t i = 0; i < count; i++) {
			size_t turn = (i + round) % count;

			if (before)
				before();
			contenders[turn].run(&samples[turn], parameter);
		}
	for (size_t i = 0; i < count; i++)
		qsort(samples[i].ns, samples[i].count, sizeof(uint64_t), compare);
	ours = sample_at(&samples[0], 50);
	for (size_t i = 0; i < count; i++) {
		printf("%s\t%s\t%s\t%ju\t%ju\t%.3f\n", group, name, contenders[i].who,
		       (uintmax_t)sample_at(&samples[i], 50), (uintmax_t)sample_at(&samples[i], 99),
		       (double)sample_at(&samples[i], 50) / (double)ours);
		free(samples[i].ns);
	}
	fflush(stdout);
}

#define CONTEST(GROUP, NAME, CONTENDERS, PARAMETER, BEFORE)                                        \
	contest(GROUP, NAME, CONTENDERS, sizeof(CONTENDERS) / sizeof((CONTENDERS)[0]), PARAMETER,  \
		BEFORE)

/* --- What all of them use -----------------------------------------------------------------------
 */

static struct mmapio_file *file; /* read-write, manual */
static int fd;
static char *raw;    /* a mapping of our own */
static char *buffer; /* 1 MiB or more */

static struct mmapio_file *open_with(const char *policy, struct mmapio_flusher *flusher,
				     enum mmapio_write_method method)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct mmapio_file *opened;

	CHECK(mmapio_policy_parse(&options.policy, policy) == 0);
	options.flusher = flusher;
	options.write_method = method;
	CHECK(mmapio_open(&opened, path, &options) == 0);
	return opened;
}

/* Reads every byte. */
static inline uint64_t sum(const void *data, size_t length)
{
	const uint64_t *words = data;
	uint64_t total = 0;

	for (size_t i = 0; i < length / 8; i++)
		total += words[i];
	return total;
}

static void evict(void)
{
	CHECK(fdatasync(fd) == 0);
	CHECK(madvise(raw, size, MADV_DONTNEED) == 0);
	CHECK(mmapio_advise(file, 0, UINT64_MAX, MMAPIO_ADVICE_DONT_NEED) == 0);
	CHECK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
}

/* In memory, and in nobody's page table. */
static void unmapped(void)
{
	CHECK(madvise(raw, size, MADV_DONTNEED) == 0);
	CHECK(mmapio_advise(file, 0, UINT64_MAX, MMAPIO_ADVICE_DONT_NEED) == 0);
}

/* --- Walks --------------------------------------------------------------------------------------
 */

static void walk_chunks(struct sample *sample, size_t chunk)
{
	uint64_t begin = now(), total = 0;
	struct mmapio_chunks chunks;
	struct mmapio_chunk piece;

	CHECK(mmapio_chunks_begin(&chunks, file, 0, UINT64_MAX, chunk) == 0);
	while (mmapio_chunks_next(&chunks, &piece))
		total += sum(piece.data, piece.length);
	mmapio_chunks_end(&chunks);
	sink = total;
	sample_add(sample, now() - begin);
}

static void walk_pointer(struct sample *sample, size_t chunk)
{
	uint64_t begin = now(), total = 0;

	for (size_t at = 0; at < size; at += chunk)
		total += sum(raw + at, chunk);
	sink = total;
	sample_add(sample, now() - begin);
}

static void walk_slices(struct sample *sample, size_t chunk)
{
	uint64_t begin = now(), total = 0;

	for (size_t at = 0; at < size; at += chunk) {
		struct mmapio_slice slice;

		CHECK(mmapio_slice_get(file, at, chunk, &slice) == 0);
		total += sum(slice.data, chunk);
		mmapio_slice_put(&slice);
	}
	sink = total;
	sample_add(sample, now() - begin);
}

static void walk_copies(struct sample *sample, size_t chunk)
{
	uint64_t begin = now(), total = 0;

	for (size_t at = 0; at < size; at += chunk) {
		char *copy = malloc(chunk);

		CHECK(mmapio_read(file, at, copy, chunk) == (ssize_t)chunk);
		total += sum(copy, chunk);
		free(copy);
	}
	sink = total;
	sample_add(sample, now() - begin);
}

static void walk_read(struct sample *sample, size_t chunk)
{
	uint64_t begin = now(), total = 0;

	for (size_t at = 0; at < size; at += chunk) {
		CHECK(pread(fd, buffer, chunk, (off_t)at) == (ssize_t)chunk);
		total += sum(buffer, chunk);
	}
	sink = total;
	sample_add(sample, now() - begin);
}

static void walks(void)
{
	static const struct contender contenders[] = {
		{"chunks", walk_chunks},
		{"raw pointer", walk_pointer},
		{"slice for each", walk_slices},
		{"copy for each", walk_copies},
		{"pread", walk_read},
	};
	unsigned long before;
	struct sample sample = {0};

	walk_pointer(&sample, 4 * KIB);
	CONTEST("walk", "4 KiB, warm", contenders, 4 * KIB, NULL);
	CONTEST("walk", "4 KiB, cold", contenders, 4 * KIB, evict);
	CONTEST("walk", "64 KiB, warm", contenders, 64 * KIB, NULL);
	sample.count = 0;
	before = allocations;
	walk_chunks(&sample, 4 * KIB);
	printf("walk\tallocations in a walk of 4 KiB chunks\tchunks\t%lu\t%lu\t\n",
	       allocations - before - (sample.room ? 0 : 1), allocations - before);
	free(sample.ns);
}

/* --- Slices -------------------------------------------------------------------------------------
 */

#define MANY 1000000

static void take_slices(struct sample *sample, size_t unused)
{
	uint64_t begin = now();

	(void)unused;
	for (int i = 0; i < MANY; i++) {
		struct mmapio_slice slice;

		CHECK(mmapio_slice_get(file, (uint64_t)i % 1024, 64, &slice) == 0);
		mmapio_slice_put(&slice);
	}
	sample_add(sample, (now() - begin) * 1000 / MANY);
}

static void take_atomics(struct sample *sample, size_t unused)
{
	static _Atomic uint64_t counter;
	uint64_t begin = now();

	(void)unused;
	for (int i = 0; i < MANY; i++) {
		atomic_fetch_add(&counter, 1);
		atomic_fetch_sub(&counter, 1);
	}
	sample_add(sample, (now() - begin) * 1000 / MANY);
}

static void take_rwlock(struct sample *sample, size_t unused)
{
	static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
	uint64_t begin = now();

	(void)unused;
	for (int i = 0; i < MANY; i++) {
		pthread_rwlock_rdlock(&lock);
		pthread_rwlock_unlock(&lock);
	}
	sample_add(sample, (now() - begin) * 1000 / MANY);
}

/* --- Readers beside a writer and growth
 * ----------------------------------------------------------- */

static _Atomic bool stop;
static pthread_rwlock_t map_lock = PTHREAD_RWLOCK_INITIALIZER;
static _Atomic size_t raw_length;
static uint64_t written; /* by the one writer */

enum way { SLICES, LOCKED_MAP, PREAD };

struct reader {
	enum way way;
	struct sample sample;
	uint64_t reads;
};

static void *read_on(void *argument)
{
	struct reader *reader = argument;
	uint64_t state = (uint64_t)(uintptr_t)argument | 1, total = 0;
	char *copy = aligned_alloc(4096, 4096);

	while (!stop) {
		uint64_t begin, at;

		state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
		at = state % (size / 4096) * 4096;
		begin = now();
		if (reader->way == SLICES) {
			struct mmapio_slice slice;

			CHECK(mmapio_slice_get(file, at, 4096, &slice) == 0);
			total += sum(slice.data, 4096);
			mmapio_slice_put(&slice);
		} else if (reader->way == LOCKED_MAP) {
			pthread_rwlock_rdlock(&map_lock);
			total += sum(raw + at, 4096);
			pthread_rwlock_unlock(&map_lock);
		} else {
			CHECK(pread(fd, copy, 4096, (off_t)at) == 4096);
			total += sum(copy, 4096);
		}
		if (reader->reads++ % 16 == 0)
			sample_add(&reader->sample, now() - begin);
	}
	sink = total;
	free(copy);
	return NULL;
}

/* Writes all over the file, and makes it longer all the time. */
static void *write_and_grow(void *argument)
{
	enum way way = *(enum way *)argument;
	size_t length = size;
	uint64_t state = 88172645463325252u;

	for (unsigned int i = 0; !stop; i++, written++) {
		uint64_t at;

		state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
		at = state % (size / 4096) * 4096;
		if (way == SLICES)
			CHECK(mmapio_write(file, at, buffer, 4096) == 4096);
		else if (way == PREAD)
			CHECK(pwrite(fd, buffer, 4096, (off_t)at) == 4096);
		else {
			pthread_rwlock_wrlock(&map_lock);
			memcpy(raw + at, buffer, 4096);
			pthread_rwlock_unlock(&map_lock);
		}
		if (i % 256 == 0) {
			length += 64 * KIB;
			if (way == SLICES) {
				CHECK(mmapio_file_resize(file, length, MMAPIO_FOREVER) == 0);
			} else if (way == PREAD) {
				CHECK(ftruncate(fd, (off_t)length) == 0);
			} else {
				pthread_rwlock_wrlock(&map_lock);
				CHECK(ftruncate(fd, (off_t)length) == 0);
				raw = mremap(raw, raw_length, length, MREMAP_MAYMOVE);
				CHECK(raw != MAP_FAILED);
				raw_length = length;
				pthread_rwlock_unlock(&map_lock);
			}
		}
	}
	if (way == SLICES) {
		CHECK(mmapio_file_resize(file, size, MMAPIO_FOREVER) == 0);
	} else if (way == LOCKED_MAP) {
		raw = mremap(raw, raw_length, size, MREMAP_MAYMOVE);
		raw_length = size;
	}
	if (way != SLICES) {
		CHECK(ftruncate(fd, (off_t)size) == 0);
		CHECK(mmapio_file_refresh(file, NULL) == 0);
	}
	return NULL;
}

static void readers_beside_a_writer(void)
{
	static const char *const names[] = {"slices", "a mapping behind a read-write lock",
					    "pread"};

	for (int readers = 1; readers <= 8; readers *= 2) {
		uint64_t ours[2] = {0};

		for (enum way way = SLICES; way <= PREAD; way++) {
			struct reader all[8] = {{0}};
			struct sample sample = {0};
			pthread_t threads[9];
			uint64_t reads = 0;

			stop = false;
			written = 0;
			for (int i = 0; i < readers; i++) {
				all[i].way = way;
				CHECK(pthread_create(&threads[i], NULL, read_on, &all[i]) == 0);
			}
			CHECK(pthread_create(&threads[8], NULL, write_and_grow, &way) == 0);
			usleep(200000 * rounds);
			stop = true;
			for (int i = 0; i < readers; i++)
				pthread_join(threads[i], NULL);
			pthread_join(threads[8], NULL);
			for (int i = 0; i < readers; i++) {
				reads += all[i].reads;
				for (size_t n = 0; n < all[i].sample.count; n++)
					sample_add(&sample, all[i].sample.ns[n]);
				free(all[i].sample.ns);
			}
			qsort(sample.ns, sample.count, sizeof(uint64_t), compare);
			if (way == SLICES) {
				ours[0] = reads;
				ours[1] = written;
			}
			printf("readers beside a writer and growth\t%d readers: a read of 4 "
			       "KiB\t%s\t%ju\t%ju\t%.3f\n",
			       readers, names[way], (uintmax_t)sample_at(&sample, 50),
			       (uintmax_t)sample_at(&sample, 99),
			       reads ? (double)ours[0] / (double)reads : 0);
			printf("readers beside a writer and growth\t%d readers: a write of 4 KiB "
			       "(mean)\t%s\t%ju\t\t%.3f\n",
			       readers, names[way],
			       (uintmax_t)(200000000ull * rounds / (written ? written : 1)),
			       written ? (double)ours[1] / (double)written : 0);
			free(sample.ns);
		}
	}
	fflush(stdout);
}

/* --- Touching
 * ------------------------------------------------------------------------------------- */

static void touch_ours(struct sample *sample, size_t unused)
{
	uint64_t begin = now();

	(void)unused;
	CHECK(mmapio_touch(file, 0, UINT64_MAX) == 0);
	sample_add(sample, now() - begin);
}

static void touch_populate(struct sample *sample, size_t unused)
{
	uint64_t begin = now();

	(void)unused;
	CHECK(madvise(raw, size, 22 /* MADV_POPULATE_READ */) == 0);
	sample_add(sample, now() - begin);
}

static void touch_loop(struct sample *sample, size_t unused)
{
	uint64_t begin = now();

	(void)unused;
	for (size_t at = 0; at < size; at += 4096)
		sink = (uint64_t)((volatile char *)raw)[at];
	sample_add(sample, now() - begin);
}

/* --- Writing and flushing
 * ------------------------------------------------------------------------- */

/* The processor's time of this thread, or of all. */
static uint64_t cpu_ns(bool all)
{
	struct timespec time;

	clock_gettime(all ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_THREAD_CPUTIME_ID, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static const char *const policies[] = {"manual", "10ms", "4M", "100writes", "always", "manual"};

/* Blocks of 64 KiB, one after the other: the processor's time of all threads until all is on the
 * disk, or of the writer until its last write returns. */
static void write_policy(struct sample *sample, size_t policy, bool all)
{
	struct mmapio_flusher *flusher;
	struct mmapio_file *opened;
	uint64_t begin, blocks = policies[policy][0] == 'a' ? 100 : size / (64 * KIB);

	CHECK(mmapio_flusher_new(&flusher) == 0);
	opened = open_with(policies[policy], flusher,
			   policy == 5 ? MMAPIO_WRITE_PWRITE : MMAPIO_WRITE_AUTO);
	begin = cpu_ns(all);
	for (uint64_t i = 0; i < blocks; i++)
		CHECK(mmapio_write(opened, i * 64 * KIB, buffer, 64 * KIB) == (ssize_t)(64 * KIB));
	if (!all)
		sample_add(sample, (cpu_ns(all) - begin) / blocks);
	CHECK(mmapio_flush(opened) == 0);
	if (all)
		sample_add(sample, (cpu_ns(all) - begin) / blocks);
	mmapio_file_unref(opened);
	mmapio_flusher_free(flusher);
}

static void write_manual(struct sample *sample, size_t all)
{
	write_policy(sample, 0, all);
}

static void write_10ms(struct sample *sample, size_t all)
{
	write_policy(sample, 1, all);
}

static void write_4m(struct sample *sample, size_t all)
{
	write_policy(sample, 2, all);
}

static void write_100(struct sample *sample, size_t all)
{
	write_policy(sample, 3, all);
}

static void write_always(struct sample *sample, size_t all)
{
	write_policy(sample, 4, all);
}

/* As the others write, whose pages are made clean again and again. */
static void write_manual_pwrite(struct sample *sample, size_t all)
{
	write_policy(sample, 5, all);
}

static void write_stdio(struct sample *sample, size_t all)
{
	FILE *stream = fopen(path, "r+");
	uint64_t begin = cpu_ns(all), blocks = size / (64 * KIB);

	CHECK(stream);
	for (uint64_t i = 0; i < blocks; i++)
		CHECK(fwrite(buffer, 64 * KIB, 1, stream) == 1);
	CHECK(fflush(stream) == 0);
	if (!all)
		sample_add(sample, (cpu_ns(all) - begin) / blocks);
	CHECK(fsync(fileno(stream)) == 0);
	if (all)
		sample_add(sample, (cpu_ns(all) - begin) / blocks);
	fclose(stream);
}

static void flush_ours(struct sample *sample, size_t length)
{
	for (int i = 0; i < 50; i++) {
		uint64_t begin;

		CHECK(mmapio_write(file, (uint64_t)i * 4096, buffer, length) == (ssize_t)length);
		begin = now();
		CHECK(mmapio_flush_range(file, (uint64_t)i * 4096, length) == 0);
		sample_add(sample, now() - begin);
	}
}

static void flush_write(struct sample *sample, size_t length)
{
	for (int i = 0; i < 50; i++) {
		uint64_t begin;

		CHECK(pwrite(fd, buffer, length, (off_t)i * 4096) == (ssize_t)length);
		begin = now();
		CHECK(fdatasync(fd) == 0);
		sample_add(sample, now() - begin);
	}
}

static void flush_msync(struct sample *sample, size_t length)
{
	for (int i = 0; i < 50; i++) {
		uint64_t begin;

		memcpy(raw + i * 4096, buffer, length);
		begin = now();
		CHECK(msync(raw + i * 4096, length, MS_SYNC) == 0);
		sample_add(sample, now() - begin);
	}
}

/* --- Reading ranges
 * ------------------------------------------------------------------------------- */

static bool at_random;

static size_t place(size_t i, size_t length)
{
	return (at_random ? i * 2654435761u : i) % (size / length) * length;
}

#define OPERATIONS(LENGTH) ((LENGTH) < 64 * MIB ? (64 * MIB) / (LENGTH) : 1)

#define RANGES(NAME, BODY)                                                                         \
	static void NAME(struct sample *sample, size_t length)                                     \
	{                                                                                          \
		size_t count = OPERATIONS(length);                                                 \
		uint64_t begin = now(), total = 0;                                                 \
                                                                                                   \
		if (count > 4096)                                                                  \
			count = 4096;                                                              \
		for (size_t i = 0; i < count; i++) {                                               \
			size_t at = place(i, length);                                              \
                                                                                                   \
			BODY                                                                       \
		}                                                                                  \
		sink = total;                                                                      \
		sample_add(sample, (now() - begin) / count);                                       \
	}

RANGES(range_slice, {
	struct mmapio_slice slice;

	CHECK(mmapio_slice_get(file, at, length, &slice) == 0);
	total += sum(slice.data, length);
	mmapio_slice_put(&slice);
})
RANGES(range_pointer, { total += sum(raw + at, length); })
RANGES(range_ours, {
	CHECK(mmapio_read(file, at, buffer, length) == (ssize_t)length);
	total += sum(buffer, length);
})
RANGES(range_pread, {
	CHECK(pread(fd, buffer, length, (off_t)at) == (ssize_t)length);
	total += sum(buffer, length);
})

/* --- Words that threads share
 * ----------------------------------------------------------------------- */

static struct mmapio_atomic_u64 words;

static void *add_words(void *raw_word)
{
	for (int i = 0; i < MANY / 10; i++)
		if (raw_word)
			__atomic_fetch_add((uint64_t *)raw_word, 1, __ATOMIC_SEQ_CST);
		else
			CHECK(mmapio_atomic_u64_add(&words, 0, 1, NULL) == 0);
	return NULL;
}

static void add_with(struct sample *sample, size_t threads, void *raw_word)
{
	pthread_t all[8];
	uint64_t begin = now();

	for (size_t i = 0; i < threads; i++)
		CHECK(pthread_create(&all[i], NULL, add_words, raw_word) == 0);
	for (size_t i = 0; i < threads; i++)
		pthread_join(all[i], NULL);
	sample_add(sample, (now() - begin) * 1000 / (MANY / 10) / threads);
}

static void add_ours(struct sample *sample, size_t threads)
{
	add_with(sample, threads, NULL);
}

static void add_raw(struct sample *sample, size_t threads)
{
	add_with(sample, threads, raw);
}

/* --- Size, advice, opening
 * ---------------------------------------------------------------------------- */

static void resize_ours(struct sample *sample, size_t unused)
{
	(void)unused;
	for (int i = 1; i <= 50; i++) {
		uint64_t begin = now();

		CHECK(mmapio_file_resize(file, size + (uint64_t)i * MIB, MMAPIO_FOREVER) == 0);
		sample_add(sample, now() - begin);
	}
	CHECK(mmapio_file_resize(file, size, MMAPIO_FOREVER) == 0);
}

static void resize_remap(struct sample *sample, size_t unused)
{
	(void)unused;
	for (size_t i = 1; i <= 50; i++) {
		uint64_t begin = now();

		CHECK(ftruncate(fd, (off_t)(size + i * MIB)) == 0);
		raw = mremap(raw, size + (i - 1) * MIB, size + i * MIB, MREMAP_MAYMOVE);
		CHECK(raw != MAP_FAILED);
		sample_add(sample, now() - begin);
	}
	raw = mremap(raw, size + 50 * MIB, size, 0);
	CHECK(ftruncate(fd, (off_t)size) == 0);
	CHECK(mmapio_file_refresh(file, NULL) == 0);
}

static void advise_ours(struct sample *sample, size_t unused)
{
	(void)unused;
	for (int i = 0; i < 100; i++) {
		uint64_t begin = now();

		CHECK(mmapio_advise(file, 4097, MIB,
				    i % 2 ? MMAPIO_ADVICE_NORMAL : MMAPIO_ADVICE_RANDOM) == 0);
		sample_add(sample, now() - begin);
	}
}

static void advise_raw(struct sample *sample, size_t unused)
{
	(void)unused;
	for (int i = 0; i < 100; i++) {
		uint64_t begin = now();

		CHECK(madvise(raw + 4096, MIB, i % 2 ? MADV_NORMAL : MADV_RANDOM) == 0);
		sample_add(sample, now() - begin);
	}
}

static void open_ours(struct sample *sample, size_t unused)
{
	(void)unused;
	for (int i = 0; i < 100; i++) {
		uint64_t begin = now();

		mmapio_file_unref(open_with("manual", NULL, MMAPIO_WRITE_AUTO));
		sample_add(sample, now() - begin);
	}
}

static void open_raw(struct sample *sample, size_t unused)
{
	(void)unused;
	for (int i = 0; i < 100; i++) {
		uint64_t begin = now();
		int opened = open(path, O_RDWR | O_CLOEXEC);
		void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, opened, 0);

		CHECK(mapped != MAP_FAILED);
		munmap(mapped, size);
		close(opened);
		sample_add(sample, now() - begin);
	}
}

/* ---------------------------------------------------------------------------------------------------
 */

static void measure(void)
{
	static const struct contender slices[] = {{"slice", take_slices},
						  {"atomic add and subtract", take_atomics},
						  {"read-write lock", take_rwlock}};
	static const struct contender touches[] = {{"touch", touch_ours},
						   {"MADV_POPULATE_READ", touch_populate},
						   {"a byte of each page", touch_loop}};
	static const struct contender writes[] = {
		{"manual", write_manual}, {"manual, by pwrite", write_manual_pwrite},
		{"10ms", write_10ms},	  {"4M", write_4m},
		{"100writes", write_100}, {"always", write_always},
		{"fwrite", write_stdio}};
	static const struct contender flushes[] = {{"flush of the range", flush_ours},
						   {"msync", flush_msync},
						   {"pwrite and fdatasync", flush_write}};
	static const struct contender ranges[] = {{"slice", range_slice},
						  {"raw pointer", range_pointer},
						  {"read", range_ours},
						  {"pread", range_pread}};
	static const struct contender adds[] = {{"view", add_ours}, {"raw word", add_raw}};
	static const struct contender resizes[] = {{"resize", resize_ours},
						   {"ftruncate and mremap", resize_remap}};
	static const struct contender advices[] = {{"advise", advise_ours},
						   {"madvise", advise_raw}};
	static const struct contender opens[] = {{"open", open_ours}, {"open and mmap", open_raw}};
	char name[100];

	walks();
	CONTEST("slice", "taken and released (picoseconds)", slices, 0, NULL);
	CONTEST("touch", "warm", touches, 0, NULL);
	CONTEST("touch", "in memory, not mapped", touches, 0, unmapped);
	CONTEST("touch", "cold", touches, 0, evict);
	for (int random = 0; random < 2; random++)
		for (size_t length = 4 * KIB; length <= 256 * MIB && length <= size; length *= 16) {
			at_random = random;
			snprintf(name, sizeof(name), "%zu KiB, %s", length / KIB,
				 random ? "at random" : "in order");
			CONTEST("range", name, ranges, length, NULL);
		}
	for (size_t threads = 1; threads <= 8; threads *= 2) {
		snprintf(name, sizeof(name), "%zu threads, one word (picoseconds)", threads);
		CONTEST("atomic", name, adds, threads, NULL);
	}
	CONTEST("write", "64 KiB blocks: processor for each, until it is on the disk", writes, 1,
		NULL);
	CONTEST("write", "the same: of the writer alone, until its write returns", writes, 0, NULL);
	for (size_t length = 64; length <= 8 * KIB; length *= length == 64 ? 16 : 8) {
		snprintf(name, sizeof(name), "%zu bytes", length);
		CONTEST("flush", name, flushes, length, NULL);
	}
	CONTEST("resize", "by a mebibyte", resizes, 0, NULL);
	CONTEST("advise", "a mebibyte", advices, 0, NULL);
	CONTEST("open", "and close", opens, 0, NULL);
	readers_beside_a_writer();
}

int main(int argc, char **argv)
{
	CHECK(argc >= 2);
	size = (argc > 2 ? strtoul(argv[2], NULL, 10) : 1024) * MIB;
	rounds = argc > 3 ? (unsigned int)strtoul(argv[3], NULL, 10) : 9;
	snprintf(path, sizeof(path), "%s/bench-lib.%d", argv[1], (int)getpid());
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	buffer = aligned_alloc(4096, size < 256 * MIB ? size : 256 * MIB);
	CHECK(buffer);
	memset(buffer, 'b', size < 256 * MIB ? size : 256 * MIB);
	for (size_t at = 0; at < size; at += MIB)
		CHECK(pwrite(fd, buffer, MIB, (off_t)at) == (ssize_t)MIB);
	CHECK(fsync(fd) == 0);
	raw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	raw_length = size;
	CHECK(raw != MAP_FAILED);
	CHECK(mmapio_guard_install() == 0);
	file = open_with("manual", NULL, MMAPIO_WRITE_AUTO);
	CHECK(mmapio_atomic_u64_get(file, 0, 1, &words) == 0);
	measure();
	CHECK(mmapio_atomic_u64_put(&words) == 0);
	mmapio_file_unref(file);
	unlink(path);
	return 0;
}
