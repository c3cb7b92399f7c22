/*
 * tool_outside FILE SAME SECONDS
 *
 * Four readers and a writer work on FILE, a file of a mount, while a process that knows nothing of
 * the mount truncates and grows it as SAME, in the backing folder. What may happen to them is EIO
 * and short reads; what they read are the bytes that belong at their place, or zeros in the part
 * that was cut off at some time. Makes the file itself. Exit status 0 and one line of counts, or 1
 * and what was wrong.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define READERS	   4
#define SIZE_FULL  ((size_t)4 << 20)
#define SIZE_LEAST ((size_t)3 << 20) /* nothing below is ever cut off */
#define PIECE_MOST ((size_t)300000)

/* Between the processes */
struct shared {
	_Atomic size_t lowest; /* the file was never shorter; lowered before each truncation */
	atomic_int ended;
	atomic_ulong truncations;
};

static struct shared *shared;
static const char *path_mount;
static const char *path_same;
static atomic_ulong reads, reads_short, writes, errors;

static __attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...)
{
	va_list arguments;

	flockfile(stderr);
	fprintf(stderr, "tool_outside: ");
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	fflush(stderr);
	atomic_store(&shared->ended, 1);
	_exit(1);
}

/* The byte that belongs at an offset; never 0 */
static unsigned char pattern(size_t offset)
{
	uint64_t x = (offset + 1) * 0x9e3779b97f4a7c15u;

	return (unsigned char)((x >> 40) % 255 + 1);
}

static void pattern_fill(unsigned char *bytes, size_t offset, size_t length)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] = pattern(offset + i);
}

static size_t random_below(uint64_t *chance, size_t limit)
{
	uint64_t x = *chance += 0x9e3779b97f4a7c15u;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return (size_t)((x ^ (x >> 31)) % limit);
}

/* Opens the file of the mount; EIO may come of an open as well */
static int mount_open(int flags)
{
	int fd = open(path_mount, flags | O_CLOEXEC);

	if (fd < 0) {
		if (errno != EIO)
			fail("open: %s", strerror(errno));
		atomic_fetch_add(&errors, 1);
	}
	return fd;
}

/*
 * A read that meets an error after some pages of the kernel's cache returns those (read(2): "data
 * transferred before"). It ends with a page then, and what follows is not the end of the file. A
 * direct read is one request, whose error nothing hides.
 */
static bool is_error_behind(int fd, size_t end)
{
	char byte;
	ssize_t n = pread(fd, &byte, 1, (off_t)end);

	if (n < 0 && errno != EIO)
		fail("read: %s", strerror(errno));
	atomic_fetch_add(&errors, 1);
	return n != 0 && end % (size_t)sysconf(_SC_PAGESIZE) == 0;
}

static void *reader(void *argument)
{
	uint64_t chance = (uint64_t)(uintptr_t)argument * 7919;
	/* Half of the readers go past the kernel's cache, to the daemon each time */
	int direct = (uintptr_t)argument % 2 ? O_DIRECT : 0;
	unsigned char *bytes = malloc(PIECE_MOST);
	int fd = -1;

	if (bytes == NULL)
		fail("no memory");
	while (!atomic_load(&shared->ended)) {
		size_t length =
			random_below(&chance, 3) ? random_below(&chance, PIECE_MOST) + 1 : 4096;
		size_t offset = random_below(&chance, SIZE_FULL);
		size_t lowest;
		ssize_t n;

		/* Some by handles that stay open, some by new ones */
		if (fd >= 0 && random_below(&chance, 10) == 0) {
			close(fd);
			fd = -1;
		}
		if (fd < 0)
			fd = mount_open(O_RDONLY | direct);
		if (fd < 0)
			continue;
		n = pread(fd, bytes, length, (off_t)offset);
		if (n < 0) {
			if (errno != EIO)
				fail("read: %s", strerror(errno));
			atomic_fetch_add(&errors, 1);
			continue;
		}
		atomic_fetch_add(&reads, 1);
		if ((size_t)n < length && offset + length <= SIZE_FULL)
			atomic_fetch_add(&reads_short, 1);
		lowest = atomic_load(&shared->lowest);
		if ((size_t)n < length && offset + (size_t)n < lowest &&
		    (direct || !is_error_behind(fd, offset + (size_t)n)))
			fail("a read of %zu at %zu ends after %zd, and the file was never below "
			     "%zu",
			     length, offset, n, lowest);
		for (size_t i = 0; i < (size_t)n; i++) {
			if (bytes[i] == pattern(offset + i))
				continue;
			if (bytes[i] == 0 && offset + i >= lowest)
				continue;
			fail("byte %zu is %02x, expected %02x%s; the file was never below %zu "
			     "(read of %zu at %zu)",
			     offset + i, bytes[i], pattern(offset + i),
			     offset + i >= lowest ? " or 00" : "", lowest, length, offset);
		}
	}
	if (fd >= 0)
		close(fd);
	free(bytes);
	return NULL;
}

static void *writer(void *argument)
{
	uint64_t chance = (uint64_t)(uintptr_t)argument * 104729;
	unsigned char *bytes = malloc(PIECE_MOST);
	int fd = -1;

	if (bytes == NULL)
		fail("no memory");
	while (!atomic_load(&shared->ended)) {
		size_t length = random_below(&chance, 3) ? random_below(&chance, 20000) + 1 : 4096;
		size_t offset = random_below(&chance, SIZE_FULL - length);
		ssize_t n;

		if (fd >= 0 && random_below(&chance, 50) == 0) {
			close(fd);
			fd = -1;
		}
		if (fd < 0)
			fd = mount_open(O_RDWR);
		if (fd < 0)
			continue;
		pattern_fill(bytes, offset, length);
		n = pwrite(fd, bytes, length, (off_t)offset);
		if (n < 0) {
			if (errno != EIO)
				fail("write: %s", strerror(errno));
			atomic_fetch_add(&errors, 1);
			continue;
		}
		atomic_fetch_add(&writes, 1);
	}
	if (fd >= 0)
		close(fd);
	free(bytes);
	return NULL;
}

/* The process outside */
static void outside(void)
{
	unsigned char *bytes = malloc(PIECE_MOST);
	uint64_t chance = 1;
	int fd = open(path_same, O_RDWR | O_CLOEXEC);

	if (bytes == NULL || fd < 0)
		fail("%s: %s", path_same, strerror(errno));
	while (!atomic_load(&shared->ended)) {
		size_t size = SIZE_LEAST + random_below(&chance, SIZE_FULL - SIZE_LEAST);
		struct timespec pause = {0, (long)random_below(&chance, 2000000)};

		if (size < atomic_load(&shared->lowest))
			atomic_store(&shared->lowest, size);
		if (ftruncate(fd, (off_t)size) != 0)
			fail("truncate of %s: %s", path_same, strerror(errno));
		atomic_fetch_add(&shared->truncations, 1);
		nanosleep(&pause, NULL);
		if (random_below(&chance, 2)) {
			while (size < SIZE_FULL) {
				size_t length = SIZE_FULL - size < PIECE_MOST ? SIZE_FULL - size
									      : PIECE_MOST;

				pattern_fill(bytes, size, length);
				if (pwrite(fd, bytes, length, (off_t)size) != (ssize_t)length)
					fail("write to %s: %s", path_same, strerror(errno));
				size += length;
			}
		} else if (ftruncate(fd, (off_t)SIZE_FULL) != 0) {
			fail("growth of %s: %s", path_same, strerror(errno));
		}
		pause.tv_nsec = (long)random_below(&chance, 2000000);
		nanosleep(&pause, NULL);
	}
	/* At the end it is whole again */
	for (size_t at = 0; at < SIZE_FULL; at += 65536) {
		pattern_fill(bytes, at, 65536);
		if (pwrite(fd, bytes, 65536, (off_t)at) != 65536)
			fail("write to %s: %s", path_same, strerror(errno));
	}
	if (ftruncate(fd, (off_t)SIZE_FULL) != 0)
		fail("truncate of %s: %s", path_same, strerror(errno));
	_exit(0);
}

int main(int argc, char **argv)
{
	pthread_t threads[READERS + 1];
	unsigned char *bytes;
	int fd, status;
	pid_t child;

	if (argc != 4) {
		fprintf(stderr, "usage: tool_outside FILE SAME SECONDS\n");
		return 2;
	}
	path_mount = argv[1];
	path_same = argv[2];
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	bytes = malloc(SIZE_FULL);
	if (shared == MAP_FAILED || bytes == NULL) {
		fprintf(stderr, "tool_outside: no memory\n");
		return 1;
	}
	atomic_store(&shared->lowest, SIZE_FULL);
	pattern_fill(bytes, 0, SIZE_FULL);
	fd = open(path_same, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, bytes, SIZE_FULL) != (ssize_t)SIZE_FULL || close(fd) != 0)
		fail("%s: %s", path_same, strerror(errno));
	free(bytes);

	child = fork();
	if (child < 0)
		fail("fork: %s", strerror(errno));
	if (child == 0)
		outside();
	for (uintptr_t i = 0; i <= READERS; i++)
		if (pthread_create(&threads[i], NULL, i < READERS ? reader : writer,
				   (void *)(i + 1)) != 0)
			fail("pthread_create failed");
	sleep((unsigned int)atoi(argv[3]));
	atomic_store(&shared->ended, 1);
	for (unsigned int i = 0; i <= READERS; i++)
		pthread_join(threads[i], NULL);
	if (waitpid(child, &status, 0) != child || status != 0)
		fail("the process outside ended with status %d", status);

	printf("%lu truncations; %lu reads, %lu of them short; %lu writes; %lu times EIO\n",
	       atomic_load(&shared->truncations), atomic_load(&reads), atomic_load(&reads_short),
	       atomic_load(&writes), atomic_load(&errors));
	if (atomic_load(&shared->truncations) < 20 || atomic_load(&reads) < 20 ||
	    atomic_load(&writes) < 20 || atomic_load(&reads_short) + atomic_load(&errors) == 0)
		fail("too little happened to prove anything");
	return 0;
}
