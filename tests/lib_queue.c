/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_queue.c - tests of asynchronous calls: each is complete exactly once, with what the call
 * returns; nobody waits for what is stalled; cancelling and freeing
 */
#include "lib_test.h"

#include <poll.h>

#define MANY 1000

static uint64_t page;
static char path[PATH_MAX];
static int fd;

static void set_up(void)
{
	fd = test_file(path, 64 * page);
}

static void tear_down(void)
{
	close(fd);
}

static bool is_readable(const struct mmapio_queue *queue)
{
	struct pollfd polled = {.fd = mmapio_queue_descriptor(queue), .events = POLLIN};

	return poll(&polled, 1, 0) == 1;
}

/* The next completion, waited for. */
static struct mmapio_completion fetch(struct mmapio_queue *queue)
{
	struct pollfd polled = {.fd = mmapio_queue_descriptor(queue), .events = POLLIN};
	struct mmapio_completion completion;

	ck_assert_int_eq(poll(&polled, 1, 60000), 1);
	ck_assert_int_eq(mmapio_queue_next(queue, &completion), 1);
	return completion;
}

/* --- Stalling: whoever changes the file waits while a walk that changes it stands still
 * ------------ */

struct stall {
	struct mmapio_file *file;
	pthread_t thread;
	_Atomic bool stands, go;
};

static int stand_still(void *context, uint64_t offset, void *data, size_t length)
{
	struct stall *stall = context;

	(void)offset;
	(void)data;
	(void)length;
	stall->stands = true;
	while (!stall->go)
		test_sleep(MILLISECOND);
	return 0;
}

static void *stall_run(void *argument)
{
	struct stall *stall = argument;

	THREAD_ASSERT(mmapio_chunks_change(stall->file, 63 * page, 1, 1, stand_still, stall) == 0);
	return NULL;
}

static void stall_begin(struct stall *stall, struct mmapio_file *file)
{
	stall->file = file;
	stall->stands = stall->go = false;
	ck_assert_int_eq(pthread_create(&stall->thread, NULL, stall_run, stall), 0);
	while (!stall->stands)
		test_sleep(MILLISECOND);
}

static void stall_end(struct stall *stall)
{
	stall->go = true;
	ck_assert_int_eq(pthread_join(stall->thread, NULL), 0);
}

/* ---------------------------------------------------------------------------------------------------
 */

START_TEST(results_are_those_of_the_calls)
{
	const enum mmapio_mode mode = (enum mmapio_mode)_i;
	struct mmapio_file *file = test_open(path, mode);
	struct mmapio_completion completion;
	struct mmapio_queue *queue;
	char bytes[100], context;
	uint64_t id = 0, second = 0;

	ck_assert_int_eq(mmapio_queue_new(&queue, 1), 0);
	ck_assert_int_eq(
		mmapio_queue_read(queue, file, 64 * page - 50, bytes, 100, NULL, &context, &id), 0);
	ck_assert_uint_ne(id, 0);
	completion = fetch(queue);
	ck_assert_uint_eq(completion.id, id);
	ck_assert_ptr_eq(completion.context, &context);
	ck_assert_int_eq(completion.result, 50);
	ck_assert(test_is_pattern(bytes, 64 * page - 50, 50));

	ck_assert_int_eq(mmapio_queue_write(queue, file, 5, "new", 3, NULL, NULL, &second), 0);
	ck_assert_uint_ne(id, second);
	ck_assert_int_eq(fetch(queue).result, mode == MMAPIO_READ_ONLY ? -EBADF : 3);
	ck_assert_int_eq(mmapio_read(file, 5, bytes, 3), 3);
	ck_assert(mode == MMAPIO_READ_ONLY ? test_is_pattern(bytes, 5, 3)
					   : !memcmp(bytes, "new", 3));
	ck_assert_int_eq(mmapio_queue_write(queue, file, 64 * page, "x", 1, NULL, NULL, NULL), 0);
	completion = fetch(queue);
	ck_assert_int_eq(completion.result, mode == MMAPIO_READ_ONLY	   ? -EBADF
					    : mode == MMAPIO_COPY_ON_WRITE ? -ERANGE
									   : 1);
	ck_assert_int_eq(mmapio_queue_flush(queue, file, 70 * page, page, NULL, NULL, NULL), 0);
	ck_assert_int_eq(fetch(queue).result, -ERANGE);
	ck_assert_int_eq(mmapio_queue_flush(queue, file, 0, UINT64_MAX, NULL, NULL, NULL), 0);
	ck_assert_int_eq(fetch(queue).result, 0);
	ck_assert(!mmapio_is_dirty(file));
	ck_assert_uint_eq(test_dirty_pages(fd), 0);
	ck_assert(!is_readable(queue));
	ck_assert_int_eq(mmapio_queue_next(queue, &completion), 0);
	mmapio_queue_free(queue);
	mmapio_file_unref(file);
}
END_TEST

/* PARITY: the flush policy holds for them as it does for everybody. */
START_TEST(a_write_applies_the_flush_policy)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct mmapio_queue *queue;
	struct mmapio_file *file;

	ck_assert_int_eq(mmapio_queue_new(&queue, 0), 0);
	options.policy.always = true;
	file = test_open_with(path, &options);
	ck_assert_int_eq(mmapio_queue_write(queue, file, 0, "always", 6, NULL, NULL, NULL), 0);
	ck_assert_int_eq(fetch(queue).result, 6);
	ck_assert_uint_eq(test_dirty_pages(fd), 0);
	mmapio_file_unref(file);
	file = test_open(path, MMAPIO_READ_WRITE);
	for (int try = 0; test_try(try); try++) {
		ck_assert_int_eq(mmapio_queue_write(queue, file, 0, "manual", 6, NULL, NULL, NULL),
				 0);
		ck_assert_int_eq(fetch(queue).result, 6);
		ck_assert_uint_eq(mmapio_dirty_bytes(file), 6);
		TEST_TRY_EQ(test_dirty_pages(fd), 1);
	}
	mmapio_file_unref(file);
	mmapio_queue_free(queue);
}
END_TEST

START_TEST(nobody_waits_for_what_is_stalled)
{
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE), *other;
	unsigned char seen[MANY] = {0};
	struct mmapio_queue *queue;
	struct stall stall;
	char elsewhere[PATH_MAX];
	uint64_t first = 0;
	int other_fd = test_file(elsewhere, page);

	ck_assert_int_eq(mmapio_queue_new(&queue, 4), 0);
	stall_begin(&stall, file);
	for (int i = 0; i < MANY; i++) {
		uint64_t id;

		ck_assert_int_eq(mmapio_queue_write(queue, file, (uint64_t)i, "s", 1, NULL,
						    (void *)(intptr_t)i, &id),
				 0);
		first = first ? first : id;
		ck_assert_uint_eq(id, first + (uint64_t)i);
	}
	/* None of them is complete, and calls that have nothing to do with it go on. */
	ck_assert(!is_readable(queue));
	other = test_open(elsewhere, MMAPIO_READ_WRITE);
	test_write(other, 0, "x", 1);
	mmapio_file_unref(other);
	/* Its user's own reference is not needed any more */
	mmapio_file_ref(file);
	mmapio_file_unref(file);
	stall_end(&stall);
	mmapio_file_unref(file);
	for (int i = 0; i < MANY; i++) {
		struct mmapio_completion completion = fetch(queue);
		intptr_t number = (intptr_t)completion.context;

		ck_assert_int_eq(completion.result, 1);
		ck_assert_uint_eq(completion.id, first + (uint64_t)number);
		ck_assert_int_eq(seen[number]++, 0);
	}
	ck_assert(!is_readable(queue));
	mmapio_queue_free(queue);
	{
		char bytes[MANY];

		ck_assert_int_eq(pread(fd, bytes, MANY, 0), MANY);
		for (int i = 0; i < MANY; i++)
			ck_assert_int_eq(bytes[i], 's');
	}
	close(other_fd);
}
END_TEST

/* --- Callbacks
 * ------------------------------------------------------------------------------------ */

struct counted {
	struct mmapio_queue *queue;
	struct mmapio_file *file;
	_Atomic unsigned int calls, cancelled, refused;
	unsigned int again; /* how often each submits another one */
	_Atomic unsigned int submitted;
	char byte;
};

static void count_calls(void *context, uint64_t id, ssize_t result)
{
	struct counted *counted = context;

	THREAD_ASSERT(id != 0 && (result == 1 || result == -ECANCELED));
	counted->cancelled += result == -ECANCELED;
	if (counted->submitted < counted->again) {
		int error;

		counted->submitted++;
		error = mmapio_queue_read(counted->queue, counted->file, 0, &counted->byte, 1,
					  count_calls, counted, NULL);
		THREAD_ASSERT(error == 0 || error == -ECANCELED);
		counted->refused += error != 0;
	}
	counted->calls++;
}

START_TEST(callbacks_may_submit_more)
{
	struct counted counted = {.file = test_open(path, MMAPIO_READ_ONLY), .again = MANY};
	const uint64_t end = test_now() + 60 * SECOND;

	ck_assert_int_eq(mmapio_queue_new(&counted.queue, 1), 0);
	ck_assert_int_eq(mmapio_queue_read(counted.queue, counted.file, 0, &counted.byte, 1,
					   count_calls, &counted, NULL),
			 0);
	while (counted.calls < MANY + 1 && test_now() < end)
		test_sleep(MILLISECOND);
	ck_assert_uint_eq(counted.calls, MANY + 1);
	ck_assert(!is_readable(counted.queue)); /* there is nothing to be fetched */
	mmapio_queue_free(counted.queue);
	mmapio_file_unref(counted.file);
}
END_TEST

START_TEST(what_has_not_begun_can_be_cancelled)
{
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct counted counted = {.file = file};
	struct mmapio_completion completion;
	struct mmapio_queue *queue;
	uint64_t running, fetched, called;
	struct stall stall;

	ck_assert_int_eq(mmapio_queue_new(&queue, 1), 0);
	stall_begin(&stall, file);
	ck_assert_int_eq(mmapio_queue_write(queue, file, 0, "r", 1, NULL, NULL, &running), 0);
	ck_assert_int_eq(mmapio_queue_write(queue, file, 1, "f", 1, NULL, &fetched, &fetched), 0);
	ck_assert_int_eq(mmapio_queue_write(queue, file, 2, "c", 1, count_calls, &counted, &called),
			 0);
	/* Whether the first one has begun is not to be seen; when it has it cannot be cancelled */
	test_sleep(50 * MILLISECOND);
	ck_assert_int_eq(mmapio_queue_cancel(queue, called), 0);
	ck_assert_uint_eq(counted.calls, 1);
	ck_assert_uint_eq(counted.cancelled, 1);
	ck_assert_int_eq(mmapio_queue_cancel(queue, called), -EALREADY);
	ck_assert_int_eq(mmapio_queue_cancel(queue, fetched), 0);
	completion = fetch(queue);
	ck_assert_uint_eq(completion.id, fetched);
	ck_assert_ptr_eq(completion.context, &fetched);
	ck_assert_int_eq(completion.result, -ECANCELED);
	ck_assert_int_eq(mmapio_queue_cancel(queue, running), -EALREADY);
	ck_assert_int_eq(mmapio_queue_cancel(queue, 12345), -EALREADY);
	stall_end(&stall);
	ck_assert_int_eq(fetch(queue).result, 1);
	ck_assert_int_eq(mmapio_queue_cancel(queue, running), -EALREADY);
	mmapio_queue_free(queue);
	ck_assert_uint_eq(counted.calls, 1);
	{
		char bytes[3];

		ck_assert_int_eq(mmapio_read(file, 0, bytes, 3), 3);
		ck_assert_int_eq(bytes[0], 'r');
		ck_assert(test_is_pattern(bytes + 1, 1, 2));
	}
	mmapio_file_unref(file);
}
END_TEST

static void *free_queue(void *queue)
{
	mmapio_queue_free(queue);
	return NULL;
}

START_TEST(freeing_cancels_what_waits_and_waits_for_the_rest)
{
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct counted counted = {.file = file, .again = 1};
	struct stall stall;
	pthread_t thread;
	unsigned int seen;

	ck_assert_int_eq(mmapio_queue_new(&counted.queue, 2), 0);
	stall_begin(&stall, file);
	for (int i = 0; i < 50; i++)
		ck_assert_int_eq(mmapio_queue_write(counted.queue, file, (uint64_t)i, "w", 1,
						    count_calls, &counted, NULL),
				 0);
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(
			mmapio_queue_write(counted.queue, file, 0, "n", 1, NULL, NULL, NULL), 0);
	test_sleep(50 * MILLISECOND);
	ck_assert_int_eq(pthread_create(&thread, NULL, free_queue, counted.queue), 0);
	/* What waits is cancelled at once, but for two that may be under way. */
	while ((seen = counted.calls) < 48)
		test_sleep(MILLISECOND);
	ck_assert_uint_le(seen, 50);
	ck_assert_int_eq(pthread_tryjoin_np(thread, NULL), EBUSY);
	stall_end(&stall);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	ck_assert_uint_eq(counted.calls, 50);
	ck_assert_uint_eq(counted.cancelled, 48);
	ck_assert_uint_eq(counted.refused, 1);
	mmapio_file_unref(file);
	/* Nothing is left of it */
	ck_assert_uint_eq(test_mappings(path), 0);
}
END_TEST

/* Submitted, cancelled, fetched and called back from all sides: each once, and its bytes right. */
struct side {
	struct mmapio_queue *queue;
	struct mmapio_file *file;
	unsigned int number;
	_Atomic unsigned int calls;
	unsigned int submitted;
};

static void count_side(void *context, uint64_t id, ssize_t result)
{
	struct side *side = context;

	(void)id;
	THREAD_ASSERT(result == -ECANCELED || result == 0 || result == 1);
	side->calls++;
}

static void *work_side(void *argument)
{
	struct side *side = argument;
	uint64_t state = side->number + 1, id;

	for (unsigned int i = 0; i < TEST_REPEAT(5000); i++) {
		bool fetched = test_below(&state, 2);
		void (*done)(void *, uint64_t, ssize_t) = fetched ? NULL : count_side;
		static char sinks[4][5000]; /* each is the library's until it is complete */

		switch (test_below(&state, 8)) {
		case 0:
			THREAD_ASSERT(mmapio_queue_flush(side->queue, side->file, 0, UINT64_MAX,
							 done, side, &id) == 0);
			break;
		case 1:
		case 2:
			THREAD_ASSERT(mmapio_queue_write(side->queue, side->file,
							 test_below(&state, 64 * page), "w", 1,
							 done, side, &id) == 0);
			break;
		default:
			THREAD_ASSERT(mmapio_queue_read(side->queue, side->file,
							test_below(&state, 64 * page),
							&sinks[side->number][i], 1, done, side,
							&id) == 0);
		}
		side->submitted++;
		if (test_below(&state, 4) == 0)
			(void)mmapio_queue_cancel(side->queue, id);
		if (i % 64 == 0) /* so that there is an end to what waits */
			while (side->calls + 2000 < side->submitted)
				sched_yield();
	}
	return NULL;
}

START_TEST(each_is_complete_once_from_all_sides)
{
	struct mmapio_file *file = test_open(path, MMAPIO_READ_WRITE);
	struct side sides[4] = {{0}};
	struct mmapio_completion completion;
	struct mmapio_queue *queue;
	pthread_t threads[4];
	unsigned int submitted = 0, complete = 0;
	bool over = false;

	ck_assert_int_eq(mmapio_queue_new(&queue, 3), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(sides); i++) {
		sides[i].queue = queue;
		sides[i].file = file;
		sides[i].number = i;
		ck_assert_int_eq(pthread_create(&threads[i], NULL, work_side, &sides[i]), 0);
	}
	for (unsigned int joined = 0; !over;) {
		while (mmapio_queue_next(queue, &completion) == 1)
			((struct side *)completion.context)->calls++;
		if (joined < ARRAY_SIZE(sides) && pthread_tryjoin_np(threads[joined], NULL) == 0)
			joined++;
		submitted = complete = 0;
		for (unsigned int i = 0; i < ARRAY_SIZE(sides) && joined == ARRAY_SIZE(sides);
		     i++) {
			submitted += sides[i].submitted;
			complete += sides[i].calls;
		}
		over = joined == ARRAY_SIZE(sides) && submitted == complete;
	}
	ck_assert_uint_eq(submitted, 4 * TEST_REPEAT(5000));
	ck_assert(!is_readable(queue));
	mmapio_queue_free(queue);
	for (unsigned int i = 0; i < ARRAY_SIZE(sides); i++)
		ck_assert_uint_eq(sides[i].calls, sides[i].submitted);
	mmapio_file_unref(file);
}
END_TEST

/* Pages that are gone when a thread of the queue copies them: an end, not the end of the process.
 */
START_TEST(threads_survive_a_file_that_others_cut)
{
	struct mmapio_file *file = test_open(path, MMAPIO_READ_ONLY);
	struct mmapio_queue *queue;
	char bytes[100];

	ck_assert_int_eq(mmapio_guard_install(), 0);
	ck_assert_int_eq(mmapio_queue_new(&queue, 1), 0);
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	ck_assert_int_eq(
		mmapio_queue_read(queue, file, 5 * page, bytes, sizeof(bytes), NULL, NULL, NULL),
		0);
	ck_assert_int_eq(fetch(queue).result, 0);
	mmapio_queue_free(queue);
	mmapio_guard_remove();
	mmapio_file_unref(file);
}
END_TEST

START_TEST(what_a_queue_cannot_have)
{
	struct mmapio_queue *queue = NULL;

	ck_assert_int_eq(mmapio_queue_new(&queue, 257), -EINVAL);
	ck_assert_ptr_null(queue);
	mmapio_queue_free(NULL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("queue");
	TCase *calls = test_case(suite, "calls");

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	test_make_folder();
	test_need_cachestat();
	tcase_add_checked_fixture(calls, set_up, tear_down);
	tcase_add_loop_test(calls, results_are_those_of_the_calls, 0, 3);
	tcase_add_test(calls, a_write_applies_the_flush_policy);
	tcase_add_test(calls, nobody_waits_for_what_is_stalled);
	tcase_add_test(calls, callbacks_may_submit_more);
	tcase_add_test(calls, what_has_not_begun_can_be_cancelled);
	tcase_add_test(calls, freeing_cancels_what_waits_and_waits_for_the_rest);
	tcase_add_test(calls, each_is_complete_once_from_all_sides);
	tcase_add_test(calls, threads_survive_a_file_that_others_cut);
	tcase_add_test(calls, what_a_queue_cannot_have);
	return test_run(suite);
}
