/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_concurrent.c - random operations of several threads on one file, each beside a model of its
 * own bytes
 *
 * The file's first pages are striped, with borders that are none of pages or words: each thread
 * alone changes its own stripes, by every call that changes a file, and looks at them by every call
 * that reads one. All flush, touch and ask what they like. What lies behind the stripes belongs to
 * a thread that changes the size all the time, while the others write and read there: those bytes
 * have one value that they can have, or are zero.
 *
 * CONCURRENT_STEPS says how many operations each thread makes.
 */
#include "lib_test.h"

#define THREADS	      3
#define STRIPE	      1009
#define STRIPED_PAGES 12
#define TAIL_PAGES    48

static uint64_t page;
static uint64_t striped; /* bytes */

static const struct mmapio_policy policies[] = {
	{.always = false},
	{.always = true},
	{.bytes = 5000},
	{.writes = 7},
	{.delay_ns = 2 * MILLISECOND},
};
static const enum mmapio_write_method methods[] = {MMAPIO_WRITE_AUTO, MMAPIO_WRITE_STORE,
						   MMAPIO_WRITE_PWRITE};

struct shared {
	struct mmapio_file *file;
	struct mmapio_file *viewer; /* the same file, read-only; NULL beside a copy-on-write one */
	struct mmapio_queue *queue;
	enum mmapio_mode mode;
	unsigned int steps;
	atomic_bool stop;
};

struct worker {
	struct shared *shared;
	pthread_t thread;
	unsigned int number;
	uint64_t state;
	uint8_t *bytes; /* of all stripes; of the others' there is no knowing */
	uint8_t *buffer;
	_Atomic ssize_t result; /* of a queued call; INT64_MIN: there is none yet */
};

/* A range within a stripe of one's own, not empty. */
static uint64_t own_range(struct worker *worker, size_t *length)
{
	uint64_t stripes = striped / STRIPE;
	uint64_t stripe = test_below(&worker->state, stripes / THREADS) * THREADS + worker->number;
	uint64_t from = test_below(&worker->state, STRIPE);

	*length = (size_t)(1 + test_below(&worker->state, STRIPE - from));
	return stripe * STRIPE + from;
}

static bool is_own(const struct worker *worker, uint64_t place)
{
	return place / STRIPE % THREADS == worker->number && place < striped / STRIPE * STRIPE;
}

/* The own bytes among these are the model's. */
static void check(const struct worker *worker, const void *data, uint64_t offset, size_t length)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < length; i++)
		if (is_own(worker, offset + i))
			THREAD_ASSERT(bytes[i] == worker->bytes[offset + i]);
}

static void make_up(struct worker *worker, uint64_t offset, size_t length)
{
	uint8_t first = (uint8_t)test_random(&worker->state);

	for (size_t i = 0; i < length; i++)
		worker->bytes[offset + i] = (uint8_t)(first + 7 * i);
}

static void change_by_write(struct worker *worker)
{
	size_t length;
	uint64_t offset = own_range(worker, &length);

	make_up(worker, offset, length);
	THREAD_ASSERT(mmapio_write(worker->shared->file, offset, worker->bytes + offset, length) ==
		      (ssize_t)length);
}

static void change_by_store(struct worker *worker)
{
	struct mmapio_slice_mut slice;
	size_t length;
	uint64_t offset = own_range(worker, &length);

	THREAD_ASSERT(mmapio_slice_get_mut(worker->shared->file, offset, length, &slice) == 0);
	make_up(worker, offset, length);
	memcpy(slice.data, worker->bytes + offset, length);
	THREAD_ASSERT(mmapio_commit(&slice, 0, length) == 0);
	mmapio_slice_put_mut(&slice);
}

static int change_chunk(void *context, uint64_t offset, void *data, size_t length)
{
	struct worker *worker = context;

	check(worker, data, offset, length);
	for (size_t i = 0; i < length; i++)
		worker->bytes[offset + i] ^= 0x5a;
	memcpy(data, worker->bytes + offset, length);
	return 0;
}

static void change_by_walk(struct worker *worker)
{
	size_t length;
	uint64_t offset = own_range(worker, &length);

	THREAD_ASSERT(mmapio_chunks_change(worker->shared->file, offset, length,
					   1 + test_below(&worker->state, 300), change_chunk,
					   worker) == 0);
}

static void change_by_atomic(struct worker *worker)
{
	struct mmapio_atomic_u32 view;
	size_t length;
	uint64_t offset = (own_range(worker, &length) + 3) / 4 * 4;
	uint32_t model, before;

	if (!is_own(worker, offset) || !is_own(worker, offset + 3))
		return;
	memcpy(&model, worker->bytes + offset, sizeof(model));
	THREAD_ASSERT(mmapio_atomic_u32_get(worker->shared->file, offset, 1, &view) == 0);
	THREAD_ASSERT(mmapio_atomic_u32_add(&view, 0, 77777, &before) == 0);
	THREAD_ASSERT(before == model);
	THREAD_ASSERT(mmapio_atomic_u32_put(&view) == 0);
	model += 77777;
	memcpy(worker->bytes + offset, &model, sizeof(model));
}

static void done(void *context, uint64_t id, ssize_t result)
{
	struct worker *worker = context;

	(void)id;
	atomic_store(&worker->result, result);
}

static void queue_wait(struct worker *worker, ssize_t expected)
{
	while (atomic_load(&worker->result) == INT64_MIN)
		sched_yield();
	THREAD_ASSERT(atomic_load(&worker->result) == expected);
}

static void change_by_queue(struct worker *worker)
{
	struct shared *shared = worker->shared;
	size_t length;
	uint64_t offset = own_range(worker, &length);

	make_up(worker, offset, length);
	atomic_store(&worker->result, INT64_MIN);
	THREAD_ASSERT(mmapio_queue_write(shared->queue, shared->file, offset,
					 worker->bytes + offset, length, done, worker, NULL) == 0);
	queue_wait(worker, (ssize_t)length);
	atomic_store(&worker->result, INT64_MIN);
	THREAD_ASSERT(mmapio_queue_read(shared->queue, shared->file, offset, worker->buffer, length,
					done, worker, NULL) == 0);
	queue_wait(worker, (ssize_t)length);
	check(worker, worker->buffer, offset, length);
}

static void look(struct worker *worker)
{
	struct shared *shared = worker->shared;
	struct mmapio_file *file = shared->viewer && test_below(&worker->state, 3) == 0
					   ? shared->viewer
					   : shared->file;
	uint64_t offset = test_below(&worker->state, striped);
	size_t length = (size_t)test_below(&worker->state, striped - offset);
	struct mmapio_slice slice;
	struct mmapio_chunks chunks;
	struct mmapio_chunk chunk;

	THREAD_ASSERT(mmapio_slice_get(file, offset, length, &slice) == 0);
	check(worker, slice.data, offset, length);
	mmapio_slice_put(&slice);
	THREAD_ASSERT(mmapio_read(file, offset, worker->buffer, length) == (ssize_t)length);
	check(worker, worker->buffer, offset, length);
	THREAD_ASSERT(mmapio_chunks_begin(&chunks, file, offset, length, 5000) == 0);
	while (mmapio_chunks_next(&chunks, &chunk))
		check(worker, chunk.data, chunk.offset, chunk.length);
	mmapio_chunks_end(&chunks);
}

/* Own bytes are clean after a flush of them, whatever the others do. */
static void flush_own(struct worker *worker)
{
	struct mmapio_file *file = worker->shared->file;
	uint64_t dirty, dirty_length;
	size_t length;
	uint64_t offset = own_range(worker, &length);

	THREAD_ASSERT(mmapio_flush_range(file, offset, length) == 0);
	dirty = offset;
	if (mmapio_dirty_next(file, &dirty, &dirty_length) == 1)
		THREAD_ASSERT(dirty + dirty_length <= offset || dirty >= offset + length);
}

static void flush_all(struct worker *worker)
{
	struct mmapio_file *file = worker->shared->file;
	uint64_t dirty = 0, dirty_length;

	THREAD_ASSERT(mmapio_flush(file) == 0);
	while (mmapio_dirty_next(file, &dirty, &dirty_length) == 1) {
		for (uint64_t i = dirty; i < dirty + dirty_length; i++)
			THREAD_ASSERT(!is_own(worker, i));
		dirty += dirty_length;
	}
}

static void ask(struct worker *worker)
{
	struct mmapio_file *file = worker->shared->file;
	struct stat st;

	THREAD_ASSERT(mmapio_file_size(file) >= striped);
	(void)mmapio_is_dirty(file);
	(void)mmapio_dirty_bytes(file);
	THREAD_ASSERT(mmapio_file_error(file) == 0);
	THREAD_ASSERT(mmapio_file_refresh(file, &st) == 0);
	THREAD_ASSERT((uint64_t)st.st_size >= striped);
	THREAD_ASSERT(mmapio_advise(file, 0, striped, MMAPIO_ADVICE_RANDOM) == 0);
	THREAD_ASSERT(mmapio_touch(file, 0, UINT64_MAX) == 0);
	(void)mmapio_file_accessed(file);
}

/* Where the size changes: what was written there is there, or cut off. */
static void tail(struct worker *worker)
{
	struct mmapio_file *file = worker->shared->file;
	uint64_t offset = striped + test_below(&worker->state, TAIL_PAGES * page);
	size_t length = (size_t)(1 + test_below(&worker->state, 2 * page));
	struct mmapio_slice slice;
	ssize_t count;

	if (test_below(&worker->state, 2)) {
		test_fill(worker->buffer, offset, length);
		THREAD_ASSERT(mmapio_write(file, offset, worker->buffer, length) ==
			      (ssize_t)length);
	}
	THREAD_ASSERT(mmapio_slice_get_some(file, offset, length, &slice) == 0);
	THREAD_ASSERT(test_is_pattern_or_cut(slice.data, offset, slice.length, 0));
	mmapio_slice_put(&slice);
	count = mmapio_read(file, offset, worker->buffer, length);
	THREAD_ASSERT(count >= 0);
	THREAD_ASSERT(test_is_pattern_or_cut(worker->buffer, offset, (size_t)count, 0));
}

static void *work(void *argument)
{
	static void (*const operations[])(struct worker *) = {
		change_by_write,
		change_by_store,
		change_by_walk,
		change_by_atomic,
		change_by_queue,
		look,
		flush_own,
		ask,
		tail,
		flush_all,
	};
	struct worker *worker = argument;
	size_t count =
		ARRAY_SIZE(operations) -
		(worker->shared->mode == MMAPIO_COPY_ON_WRITE ? 2 : 0); /* no size, no sync */

	for (unsigned int step = 0; step < worker->shared->steps; step++)
		operations[test_below(&worker->state, count)](worker);
	return NULL;
}

static void *change_size(void *argument)
{
	struct shared *shared = argument;
	uint64_t state = 12345;

	while (!atomic_load(&shared->stop)) {
		uint64_t size = striped + test_below(&state, TAIL_PAGES) * page;

		if (test_below(&state, 3) == 0)
			size += test_below(&state, page);
		THREAD_ASSERT(mmapio_file_resize(shared->file, size, MMAPIO_FOREVER) == 0);
		if (test_below(&state, 4) == 0)
			THREAD_ASSERT(mmapio_file_allocate(
					      shared->file,
					      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					      striped + test_below(&state, TAIL_PAGES) * page,
					      3 * page) == 0);
		test_sleep(MILLISECOND / 5);
	}
	return NULL;
}

/* All at once, and what the file is then, by a descriptor that knows nothing of the library. */
static void run(struct mmapio_options *options)
{
	const char *text = getenv("CONCURRENT_STEPS");
	struct shared shared = {.mode = options->mode,
				.steps = text ? (unsigned int)strtoul(text, NULL, 10)
					      : TEST_REPEAT(600)};
	bool cow = options->mode == MMAPIO_COPY_ON_WRITE;
	struct worker workers[THREADS];
	uint8_t *found = malloc(striped);
	char path[PATH_MAX];
	pthread_t resizer;
	int fd;

	fd = test_file(path, striped);
	shared.file = test_open_with(path, options);
	shared.viewer = cow ? NULL : test_open(path, MMAPIO_READ_ONLY);
	ck_assert_int_eq(mmapio_queue_new(&shared.queue, 2), 0);
	for (unsigned int i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){.shared = &shared, .number = i, .state = 4711 + i};
		workers[i].bytes = malloc(striped);
		workers[i].buffer = malloc(striped);
		ck_assert(found && workers[i].bytes && workers[i].buffer);
		test_fill(workers[i].bytes, 0, striped);
		ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	if (!cow)
		ck_assert_int_eq(pthread_create(&resizer, NULL, change_size, &shared), 0);
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	atomic_store(&shared.stop, true);
	if (!cow)
		pthread_join(resizer, NULL);
	mmapio_queue_free(shared.queue);

	if (cow) {
		struct mmapio_file *target = test_open(path, MMAPIO_READ_WRITE);

		ck_assert(test_disk_is_pattern(fd, 0, striped)); /* nothing has got through */
		ck_assert_int_eq(mmapio_changes_commit(shared.file, target), 0);
		mmapio_file_unref(target);
	} else {
		ck_assert_int_eq(mmapio_flush(shared.file), 0);
		ck_assert(!mmapio_is_dirty(shared.file));
		ck_assert_uint_eq(test_dirty_pages(fd), 0);
		ck_assert_uint_eq(mmapio_file_size(shared.file), test_size(fd));
	}
	ck_assert_int_eq(pread(fd, found, striped, 0), (ssize_t)striped);
	for (unsigned int i = 0; i < THREADS; i++) {
		check(&workers[i], found, 0, striped);
		free(workers[i].bytes);
		free(workers[i].buffer);
	}
	free(found);
	mmapio_file_unref(shared.viewer);
	mmapio_file_unref(shared.file);
	close(fd);
	unlink(path);
}

/* _i: the policy, and the way of writing */
START_TEST(threads_that_share_a_file)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);

	ck_assert_int_eq(mmapio_guard_install(), 0); /* without it nothing is stored by writes */
	ck_assert_int_eq(mmapio_flusher_new(&options.flusher), 0);
	options.policy = policies[_i / 3];
	options.write_method = methods[_i % 3];
	run(&options);
	mmapio_flusher_free(options.flusher);
	mmapio_guard_remove();
}
END_TEST

/* _i: with the guard */
START_TEST(threads_that_share_a_private_view)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_COPY_ON_WRITE);

	if (_i)
		ck_assert_int_eq(mmapio_guard_install(), 0);
	run(&options);
	if (_i)
		mmapio_guard_remove();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("concurrent");
	TCase *model = test_case(suite, "model");

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	striped = STRIPED_PAGES * page;
	test_make_folder();
	test_need_cachestat();
	if (getenv("CONCURRENT_STEPS"))
		tcase_set_timeout(model, 24 * 3600);
	tcase_add_loop_test(model, threads_that_share_a_file, 0, (int)(3 * ARRAY_SIZE(policies)));
	tcase_add_loop_test(model, threads_that_share_a_private_view, 0, 2);
	return test_run(suite);
}
