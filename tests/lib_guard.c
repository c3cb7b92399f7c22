/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_guard.c - tests of faults: that mmapio_read() and mmapio_write() never raise SIGBUS
 *
 * Files that others truncate, full disks and disks that cannot be read, each with and without the
 * fault guard; and that the guard hands on what is not its own. The tests with disks need root, for
 * loop devices. MMAPIO_STRESS_SECONDS says how long the stress test runs.
 */
#include "lib_test.h"

#include <setjmp.h>
#include <sys/mman.h>

static const enum mmapio_mode modes[] = {MMAPIO_READ_ONLY, MMAPIO_READ_WRITE, MMAPIO_COPY_ON_WRITE};
static const enum mmapio_write_method methods[] = {MMAPIO_WRITE_AUTO, MMAPIO_WRITE_STORE,
						   MMAPIO_WRITE_PWRITE};

static uint64_t page;

static void install_if(bool wanted)
{
	if (wanted)
		ck_assert_int_eq(mmapio_guard_install(), 0);
}

/* --- Truncation by others --------------------------------------------------------------------- */

/* _i: mode, with the guard from 3 on */
START_TEST(read_of_a_truncated_file_is_short_or_an_error)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 16 * page);
	struct mmapio_file *file = test_open(path, modes[_i % 3]);
	char *buffer = malloc(16 * page);
	ssize_t n;

	ck_assert_ptr_nonnull(buffer);
	install_if(_i >= 3);
	ck_assert(test_reads_pattern(file, 0, 16 * page)); /* all of it is mapped */
	ck_assert_int_eq(ftruncate(fd, (off_t)(2 * page + 100)), 0);

	/* wholly behind the page that has the new end */
	n = mmapio_read(file, 8 * page, buffer, page);
	ck_assert_int_le(n, 0);
	/* across it; the rest of that page reads as zeros, or not at all */
	n = mmapio_read(file, 0, buffer, 16 * page);
	ck_assert_int_le(n, (ssize_t)(3 * page));
	if (n > 0)
		ck_assert(test_is_pattern_or_cut(buffer, 0, (size_t)n, 2 * page + 100));
	/* what is left is there */
	ck_assert_int_eq(mmapio_read(file, 0, buffer, 2 * page + 100), (ssize_t)(2 * page + 100));
	ck_assert(test_is_pattern(buffer, 0, 2 * page + 100));
	/* and now with its new size known */
	ck_assert_int_eq(mmapio_file_refresh(file, NULL), 0);
	ck_assert_int_eq(mmapio_read(file, 0, buffer, 16 * page), (ssize_t)(2 * page + 100));
	/* to nothing at all */
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	ck_assert_int_le(mmapio_read(file, page, buffer, page), 0);
	free(buffer);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* _i: write method, with the guard from 3 on */
START_TEST(write_to_a_truncated_file_works_or_is_an_error)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	const int fd = test_file(path, 16 * page);
	struct mmapio_file *file;
	uint8_t *buffer = malloc(4 * page);

	ck_assert_ptr_nonnull(buffer);
	install_if(_i >= 3);
	options.write_method = methods[_i % 3];
	file = test_open_with(path, &options);
	test_write_pattern(file, 0, 16 * page); /* allocated, in memory, dirty: fit for stores */
	for (int round = 0; round < 4; round++) {
		const uint64_t offset = (4 + 2 * (uint64_t)round) * page + 5;
		ssize_t n;

		ck_assert_int_eq(ftruncate(fd, round < 2 ? (off_t)(2 * page + 100) : 0), 0);
		if (round % 2)
			ck_assert_int_eq(mmapio_file_refresh(file, NULL), 0);
		test_fill(buffer, offset, 3 * page);
		n = mmapio_write(file, offset, buffer, 3 * page);
		if (n > 0)
			ck_assert(test_disk_is_pattern(fd, offset, (size_t)n));
		ck_assert_int_eq(mmapio_file_refresh(file, NULL), 0);
		ck_assert_uint_eq(mmapio_file_size(file), test_size(fd));
		test_write_pattern(file, 0, 16 * page);
		ck_assert(test_disk_is_pattern(fd, 0, 16 * page));
	}
	free(buffer);
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* Inside the page that has the new end, where there is no fault: known after a refresh. */
START_TEST(write_after_refresh_reaches_the_last_page)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	const int fd = test_file(path, 4 * page);
	struct mmapio_file *file;

	install_if(_i >= 3);
	options.write_method = methods[_i % 3];
	file = test_open_with(path, &options);
	test_write_pattern(file, 0, 4 * page);
	ck_assert_int_eq(ftruncate(fd, 100), 0);
	ck_assert_int_eq(mmapio_file_refresh(file, NULL), 0);
	test_write_pattern(file, 100, 1000);
	ck_assert_uint_eq(test_size(fd), 1100);
	ck_assert(test_disk_is_pattern(fd, 0, 1100));
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

START_TEST(copy_on_write_of_a_truncated_file)
{
	char path[PATH_MAX];
	const int fd = test_file(path, 16 * page);
	struct mmapio_file *file = test_open(path, MMAPIO_COPY_ON_WRITE);
	char buffer[64];
	ssize_t n;

	install_if(_i);
	test_write(file, 10 * page, "own", 3);
	ck_assert_int_eq(ftruncate(fd, (off_t)(2 * page)), 0);
	memset(buffer, '#', sizeof(buffer));
	n = mmapio_write(file, 8 * page, buffer, sizeof(buffer));
	ck_assert(n < 0 || n == (ssize_t)sizeof(buffer));
	n = mmapio_write(file, 2 * page - 32, buffer, sizeof(buffer)); /* half of it */
	ck_assert_int_le(n, (ssize_t)sizeof(buffer));
	ck_assert_int_le(mmapio_read(file, 10 * page, buffer, 3), 3);
	ck_assert_int_le(mmapio_read(file, 8 * page, buffer, 3), 3);
	test_write(file, page, "own", 3);
	ck_assert_int_eq(mmapio_read(file, page, buffer, 3), 3);
	ck_assert_mem_eq(buffer, "own", 3);
	ck_assert(test_disk_is_pattern(fd, 0, 2 * page));
	mmapio_file_unref(file);
	close(fd);
}
END_TEST

/* The caller's memory may itself be a slice of a file that others have truncated: the system call
 * of that name would fail with EFAULT. Fails by SIGBUS if only one side of a copy is guarded. */
START_TEST(memory_of_the_caller_may_be_gone)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	char path[PATH_MAX];
	char other_path[PATH_MAX];
	const int fd = test_file(path, 16 * page);
	const int other_fd = test_file(other_path, 16 * page);
	struct mmapio_file *other = test_open(other_path, MMAPIO_READ_WRITE);
	struct mmapio_file *file, *copy;
	struct mmapio_slice_mut slice;

	install_if(_i >= 3);
	options.write_method = methods[_i % 3];
	file = test_open_with(path, &options);
	test_write_pattern(file, 0, 16 * page);
	copy = test_open(path, MMAPIO_COPY_ON_WRITE);
	ck_assert_int_eq(mmapio_slice_get_mut(other, 0, 16 * page, &slice), 0);
	ck_assert_int_eq(ftruncate(other_fd, (off_t)page), 0);
	ck_assert_int_lt(mmapio_write(file, 0, (char *)slice.data + 4 * page, page), 0);
	ck_assert_int_lt(mmapio_read(file, 0, (char *)slice.data + 4 * page, page), 0);
	ck_assert_int_lt(mmapio_write(copy, 0, (char *)slice.data + 4 * page, page), 0);
	ck_assert_int_lt(mmapio_read(copy, 0, (char *)slice.data + 4 * page, page), 0);
	mmapio_slice_put_mut(&slice);
	mmapio_file_unref(copy);
	mmapio_file_unref(file);
	mmapio_file_unref(other);
	close(other_fd);
	close(fd);
}
END_TEST

/* --- Faults that are not ours ----------------------------------------------------------------- */

static sigjmp_buf jump;
static volatile sig_atomic_t own_calls;
static void *volatile own_address;

static void own_handler(int number, siginfo_t *info, void *context)
{
	(void)context;
	if (number != SIGBUS || info->si_code != BUS_ADRERR)
		_exit(2);
	own_calls++;
	own_address = info->si_addr;
	siglongjmp(jump, 1);
}

static void own_plain_handler(int number)
{
	if (number != SIGBUS)
		_exit(2);
	own_calls++;
	siglongjmp(jump, 1);
}

static void own_counter(int number)
{
	(void)number;
	own_calls++;
}

static void set_handler(void (*plain)(int), void (*full)(int, siginfo_t *, void *))
{
	struct sigaction action = {0};

	if (full) {
		action.sa_sigaction = full;
		action.sa_flags = SA_SIGINFO;
	} else {
		action.sa_handler = plain;
	}
	ck_assert_int_eq(sigaction(SIGBUS, &action, NULL), 0);
}

/* A slice whose file has been truncated under it. */
static struct mmapio_slice lost_slice(struct mmapio_file **file)
{
	struct mmapio_slice slice;
	char path[PATH_MAX];
	const int fd = test_file(path, 16 * page);

	*file = test_open(path, MMAPIO_READ_WRITE);
	ck_assert_int_eq(mmapio_slice_get(*file, 0, 16 * page, &slice), 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)page), 0);
	close(fd);
	return slice;
}

/* _i: whether the handler that was there takes three arguments or one */
START_TEST(foreign_fault_goes_to_the_handler_before)
{
	struct mmapio_file *file;
	struct mmapio_slice slice = lost_slice(&file);
	volatile const char *lost = (const char *)slice.data + 8 * page + 7;
	char buffer[16];

	if (_i)
		set_handler(NULL, own_handler);
	else
		set_handler(own_plain_handler, NULL);
	ck_assert_int_eq(mmapio_guard_install(), 0);
	for (int i = 1; i <= 3; i++) {
		if (!sigsetjmp(jump, 1)) {
			(void)*lost;
			ck_abort_msg("the page beyond the end could be read");
		}
		ck_assert_int_eq(own_calls, i);
		if (_i)
			ck_assert_ptr_eq(own_address, (void *)(uintptr_t)lost);
		/* a copy of the library is still its own affair */
		ck_assert_int_le(mmapio_read(file, 8 * page, buffer, sizeof(buffer)), 0);
		ck_assert_int_eq(own_calls, i);
	}
	mmapio_guard_remove();
	mmapio_slice_put(&slice);
	mmapio_file_unref(file);
}
END_TEST

/* Runs a child with what was before set up, and returns how it ended. */
static int run_child(void (*before)(int), void (*what)(void))
{
	int status;
	const pid_t child = fork();

	if (!child) {
		alarm(10); /* a fault that is ignored would be repeated for ever */
		signal(SIGBUS, before);
		if (mmapio_guard_install())
			_exit(3);
		what();
		_exit(0);
	}
	ck_assert_int_gt(child, 0);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	return status;
}

static void touch_lost(void)
{
	struct mmapio_file *file;
	const struct mmapio_slice slice = lost_slice(&file);

	(void)*((volatile const char *)slice.data + 8 * page);
}

static void send_sigbus(void)
{
	kill(getpid(), SIGBUS);
}

START_TEST(foreign_fault_ends_the_process_as_before)
{
	const int by_default = run_child(SIG_DFL, touch_lost);
	const int ignored = run_child(SIG_IGN, touch_lost); /* the kernel does not ignore it */

	ck_assert(WIFSIGNALED(by_default) && WTERMSIG(by_default) == SIGBUS);
	ck_assert(WIFSIGNALED(ignored) && WTERMSIG(ignored) == SIGBUS);
}
END_TEST

START_TEST(sigbus_that_was_sent_is_handed_on)
{
	const int by_default = run_child(SIG_DFL, send_sigbus);
	const int ignored = run_child(SIG_IGN, send_sigbus);

	ck_assert(WIFSIGNALED(by_default) && WTERMSIG(by_default) == SIGBUS);
	ck_assert(WIFEXITED(ignored) && WEXITSTATUS(ignored) == 0);
	set_handler(own_counter, NULL);
	ck_assert_int_eq(mmapio_guard_install(), 0);
	raise(SIGBUS);
	kill(getpid(), SIGBUS);
	ck_assert_int_eq(own_calls, 2);
	mmapio_guard_remove();
}
END_TEST

START_TEST(guard_nests_and_restores)
{
	struct sigaction now;
	struct mmapio_file *file;
	struct mmapio_slice slice = lost_slice(&file);
	char buffer[16];

	set_handler(NULL, own_handler);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 3; i++)
			ck_assert_int_eq(mmapio_guard_install(), 0);
		for (int i = 0; i < 3; i++) {
			ck_assert_int_eq(sigaction(SIGBUS, NULL, &now), 0);
			ck_assert(now.sa_sigaction != own_handler);
			ck_assert_int_le(mmapio_read(file, 8 * page, buffer, sizeof(buffer)), 0);
			mmapio_guard_remove();
		}
		ck_assert_int_eq(sigaction(SIGBUS, NULL, &now), 0);
		ck_assert(now.sa_sigaction == own_handler);
		ck_assert_int_le(mmapio_read(file, 8 * page, buffer, sizeof(buffer)), 0);
	}
	ck_assert_int_eq(own_calls, 0);
	mmapio_slice_put(&slice);
	mmapio_file_unref(file);
}
END_TEST

static struct sigaction guard_action;

static void later_handler(int number, siginfo_t *info, void *context)
{
	guard_action.sa_sigaction(number, info, context);
}

/* A handler that was installed later, blocks everything and hands on to the guard. Fails if the
 * jump back leaves SIGBUS blocked, which makes the second fault deadly, or any other signal. */
START_TEST(later_handler_may_hand_on)
{
	struct sigaction later = {.sa_sigaction = later_handler, .sa_flags = SA_SIGINFO};
	struct mmapio_file *file;
	struct mmapio_slice slice = lost_slice(&file);
	sigset_t before, after;
	char buffer[16];

	ck_assert_int_eq(mmapio_guard_install(), 0);
	sigfillset(&later.sa_mask);
	ck_assert_int_eq(sigaction(SIGBUS, &later, &guard_action), 0);
	ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, NULL, &before), 0);
	for (int i = 0; i < 3; i++)
		ck_assert_int_le(mmapio_read(file, 8 * page, buffer, sizeof(buffer)), 0);
	ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, NULL, &after), 0);
	for (int number = 1; number < 32; number++)
		ck_assert_int_eq(sigismember(&after, number), sigismember(&before, number));
	mmapio_slice_put(&slice);
	mmapio_file_unref(file);
}
END_TEST

/* Fails if the handler comes back with SIGBUS blocked, or finds what another thread left. */
static void *fault_thread(void *argument)
{
	struct mmapio_file *file = argument;
	char buffer[16];

	for (int i = 0; i < 2000; i++)
		THREAD_ASSERT(mmapio_read(file, 8 * page, buffer, sizeof(buffer)) <= 0);
	return NULL;
}

START_TEST(several_threads_fault_at_once)
{
	struct mmapio_file *file;
	struct mmapio_slice slice = lost_slice(&file);
	pthread_t threads[4];
	sigset_t mask;

	ck_assert_int_eq(mmapio_guard_install(), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, fault_thread, file), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
	fault_thread(file);
	ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
	ck_assert_int_eq(sigismember(&mask, SIGBUS), 0);
	mmapio_slice_put(&slice);
	mmapio_file_unref(file);
}
END_TEST

/* --- Truncation under load -------------------------------------------------------------------- */

enum { READERS = 4, COPY_MAX = 20000 };

struct stress {
	struct mmapio_file *file;
	struct mmapio_file *copy; /* the same, copy-on-write */
	uint64_t full;
	uint64_t floor; /* the file is never shorter */
	_Atomic bool stop;
	_Atomic uint64_t bytes;
};

struct worker {
	struct stress *stress;
	uint64_t random;
	pthread_t thread;
};

static void *read_thread(void *argument)
{
	struct worker *worker = argument;
	struct stress *stress = worker->stress;
	uint8_t buffer[COPY_MAX];
	uint64_t bytes = 0;

	while (!atomic_load_explicit(&stress->stop, memory_order_relaxed)) {
		const uint64_t offset = test_below(&worker->random, stress->full);
		const size_t length = 1 + test_below(&worker->random, COPY_MAX);
		struct mmapio_file *file =
			test_below(&worker->random, 4) ? stress->file : stress->copy;
		const ssize_t n = mmapio_read(file, offset, buffer, length);

		THREAD_ASSERT(n <= (ssize_t)length);
		if (n > 0) {
			THREAD_ASSERT(
				test_is_pattern_or_cut(buffer, offset, (size_t)n, stress->floor));
			bytes += (uint64_t)n;
		}
	}
	atomic_fetch_add(&stress->bytes, bytes);
	return NULL;
}

static void *write_thread(void *argument)
{
	struct worker *worker = argument;
	struct stress *stress = worker->stress;
	uint8_t buffer[COPY_MAX];
	unsigned int i = 0;

	while (!atomic_load_explicit(&stress->stop, memory_order_relaxed)) {
		const uint64_t offset = test_below(&worker->random, stress->full - COPY_MAX);
		const size_t length = 1 + test_below(&worker->random, COPY_MAX);

		test_fill(buffer, offset, length);
		THREAD_ASSERT(mmapio_write(stress->file, offset, buffer, length) <=
			      (ssize_t)length);
		if (++i % 64 == 0)
			THREAD_ASSERT(!mmapio_file_refresh(stress->file, NULL));
	}
	return NULL;
}

static uint64_t stress_ns(void)
{
	const char *seconds = getenv("MMAPIO_STRESS_SECONDS");

	return (seconds ? strtoull(seconds, NULL, 10) : 5) * SECOND;
}

/* _i: 0 without the guard, 1 with; half of the time each */
START_TEST(others_truncate_under_readers_and_a_writer)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct stress stress = {.full = MIB, .floor = 300 * KIB + 77};
	struct worker workers[READERS + 1];
	char path[PATH_MAX];
	const int fd = test_file(path, stress.full);
	const uint64_t end = test_now() + stress_ns() / 2;
	uint64_t random = 3;

	install_if(_i);
	options.write_method = MMAPIO_WRITE_STORE;
	stress.file = test_open_with(path, &options);
	stress.copy = test_open(path, MMAPIO_COPY_ON_WRITE);
	for (int i = 0; i <= READERS; i++) {
		workers[i].stress = &stress;
		workers[i].random = 99 + (uint64_t)i;
		ck_assert_int_eq(pthread_create(&workers[i].thread, NULL,
						i ? read_thread : write_thread, &workers[i]),
				 0);
	}
	while (test_now() < end) {
		const uint64_t size =
			stress.floor + test_below(&random, stress.full - stress.floor);

		ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
		if (test_below(&random, 2))
			sched_yield();
		if (test_below(&random, 2))
			ck_assert_int_eq(ftruncate(fd, (off_t)stress.full), 0);
		else
			test_pwrite_pattern(fd, size, stress.full - size, COPY_MAX);
	}
	atomic_store(&stress.stop, true);
	for (int i = 0; i <= READERS; i++)
		ck_assert_int_eq(pthread_join(workers[i].thread, NULL), 0);
	ck_assert_uint_gt(atomic_load(&stress.bytes), MIB);
	ck_assert_int_eq(ftruncate(fd, (off_t)stress.full), 0);
	ck_assert_int_eq(mmapio_file_refresh(stress.file, NULL), 0);
	test_write_pattern(stress.file, 0, stress.full);
	ck_assert(test_disk_is_pattern(fd, 0, stress.full));
	mmapio_file_unref(stress.copy);
	mmapio_file_unref(stress.file);
	close(fd);
}
END_TEST

/* --- Disks ------------------------------------------------------------------------------------ */

static struct test_disk disk;

static void mount_disk(void)
{
	test_disk_mount(&disk, 32 * MIB, "-O ^has_journal");
}

static void unmount_disk(void)
{
	test_disk_unmount(&disk);
}

static void repair_disk(void)
{
	test_disk_repair(&disk);
}

/* _i: write method, with the guard from 3 on, its holes touched before from 6 on. Fails by SIGBUS
 * if a hole is stored to when the disk is full. */
START_TEST(write_to_a_full_disk_is_an_error)
{
	enum { PIECE = 20000 };
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	const uint64_t size = 64 * MIB;
	uint8_t *buffer = malloc(PIECE);
	char path[PATH_MAX];
	struct mmapio_file *file;
	uint64_t written = 0;
	uint64_t refused = 0;
	ssize_t n;
	int fd;

	ck_assert_ptr_nonnull(buffer);
	install_if(_i / 3 % 2);
	fd = open(test_disk_path(path, &disk), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
	options.write_method = methods[_i % 3];
	file = test_open_with(path, &options);
	if (_i >= 6)
		ck_assert_int_eq(mmapio_touch(file, 0, size), 0);

	while (!refused) {
		size_t length = size - written < PIECE ? (size_t)(size - written) : PIECE;

		ck_assert_uint_gt(length, 0); /* all of it cannot have been written */
		test_fill(buffer, written, length);
		n = mmapio_write(file, written, buffer, length);
		if (n < 0) {
			ck_assert_int_eq(n, -ENOSPC);
			refused++;
		} else {
			ck_assert_int_gt(n, 0);
			written += (uint64_t)n;
		}
	}
	ck_assert_uint_gt(written, 16 * MIB);
	for (uint64_t offset = written + MIB; offset < size; offset += 3 * MIB) {
		n = mmapio_write(file, offset, buffer, 100);
		ck_assert(n == -ENOSPC || n == 100); /* a little may still be there */
	}
	/* what is allocated can still be written, and everything acknowledged is there */
	test_write_pattern(file, 0, MIB);
	ck_assert_uint_eq(test_size(fd), size);
	ck_assert(test_disk_is_pattern(fd, 0, written));
	ck_assert_int_eq(mmapio_flush(file), 0);
	test_drop(fd);
	ck_assert(test_disk_is_pattern(fd, 0, written));
	mmapio_file_unref(file);
	close(fd);
	unlink(path);
	free(buffer);
}
END_TEST

/* _i: mode, with the guard from 3 on. Fails by SIGBUS, or by an endless repetition. */
START_TEST(read_of_a_broken_disk_is_an_error)
{
	char path[PATH_MAX];
	char *buffer = malloc(MIB);
	struct mmapio_file *file;
	int fd;

	ck_assert_ptr_nonnull(buffer);
	install_if(_i >= 3);
	fd = test_file_at(test_disk_path(path, &disk), MIB);
	file = test_open(path, modes[_i % 3]);
	test_drop(fd);
	test_disk_break(&disk, disk.size / 8);
	ck_assert_int_eq(pread(fd, buffer, page, 0), -1); /* else it could not fail */
	ck_assert_int_eq(errno, EIO);
	ck_assert_int_eq(mmapio_read(file, 0, buffer, page), -EIO);
	ck_assert_int_eq(mmapio_read(file, MIB - 100, buffer, page), -EIO);
	ck_assert_int_le(mmapio_read(file, 0, buffer, MIB), 0);
	ck_assert_int_eq(mmapio_touch(file, 0, MIB), -EIO);
	if (modes[_i % 3] != MMAPIO_READ_ONLY) /* a part of a page must be read before */
		ck_assert_int_eq(mmapio_write(file, 100, "#", 1), -EIO);
	test_disk_repair(&disk);
	ck_assert_int_eq(mmapio_touch(file, 0, MIB), 0);
	ck_assert_int_eq(mmapio_read(file, 0, buffer, MIB), (ssize_t)MIB);
	mmapio_file_unref(file);
	close(fd);
	unlink(path);
	free(buffer);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("guard");
	TCase *truncated = test_case(suite, "truncated");
	TCase *foreign = test_case(suite, "foreign");
	TCase *stress = test_case(suite, "stress");
	bool disks;
	int status;

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	disks = test_disk_possible();
	test_make_folder();
	tcase_set_timeout(stress, TEST_TIMEOUT_S + (double)stress_ns() / SECOND);

	tcase_add_loop_test(truncated, read_of_a_truncated_file_is_short_or_an_error, 0, 6);
	tcase_add_loop_test(truncated, write_to_a_truncated_file_works_or_is_an_error, 0, 6);
	tcase_add_loop_test(truncated, write_after_refresh_reaches_the_last_page, 0, 6);
	tcase_add_loop_test(truncated, copy_on_write_of_a_truncated_file, 0, 2);
	tcase_add_loop_test(truncated, memory_of_the_caller_may_be_gone, 0, 6);

	tcase_add_loop_test(foreign, foreign_fault_goes_to_the_handler_before, 0, 2);
	tcase_add_test(foreign, foreign_fault_ends_the_process_as_before);
	tcase_add_test(foreign, sigbus_that_was_sent_is_handed_on);
	tcase_add_test(foreign, guard_nests_and_restores);
	tcase_add_test(foreign, later_handler_may_hand_on);
	tcase_add_test(foreign, several_threads_fault_at_once);

	tcase_add_loop_test(stress, others_truncate_under_readers_and_a_writer, 0, 2);

	if (disks) {
		TCase *full = test_case(suite, "full");
		TCase *broken = test_case(suite, "broken");

		/* unchecked: in the program itself, so that it ends also what a test that died has
		 * left; checked: the test before may have died with the disk broken */
		tcase_add_unchecked_fixture(full, mount_disk, unmount_disk);
		tcase_add_loop_test(full, write_to_a_full_disk_is_an_error, 0, 12);
		tcase_add_unchecked_fixture(broken, mount_disk, unmount_disk);
		tcase_add_checked_fixture(broken, repair_disk, NULL);
		tcase_add_loop_test(broken, read_of_a_broken_disk_is_an_error, 0, 6);
	}
	status = test_run(suite);
	if (!status && !disks) {
		printf("SKIP: the tests with full and broken disks need root, loop devices and "
		       "mkfs.ext4\n");
		status = TEST_SKIP;
	}
	return status;
}
