/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tool_mmap FILE SAME
 *
 * A program that stores into a shared mapping of FILE, a file of a mount, while other processes
 * read it: through FILE, and through SAME, the same file in the backing folder (or FILE itself,
 * without a mount). FILE is made anew, and left with the bytes that `tool_mmap FILE` without SAME
 * expects. Exit status 0 if every byte was as it has to be.
 */
#include "tool.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define SIZE_FIRST  ((size_t)1 << 20)
#define SIZE_SECOND ((size_t)3 << 20)
#define SIZE_MAPPED ((size_t)4 << 20)

/* The byte that belongs at an offset in generation `generation` of the file; never 0 */
static unsigned char pattern(size_t offset, unsigned int generation)
{
	uint64_t x = (offset + 1) * 0x9e3779b97f4a7c15u + generation * 0xd1b54a32d192ed03u;

	return (unsigned char)((x >> 56) % 255 + 1);
}

static void pattern_store(volatile unsigned char *map, size_t from, size_t to,
			  unsigned int generation)
{
	for (size_t i = from; i < to; i++)
		map[i] = pattern(i, generation);
}

static void pattern_check(const char *what, const unsigned char *bytes, size_t from, size_t to,
			  unsigned int generation)
{
	for (size_t i = from; i < to; i++)
		if (bytes[i - from] != pattern(i, generation))
			fail("%s: offset %zu: %02x, expected %02x of generation %u", what, i,
			     bytes[i - from], pattern(i, generation), generation);
}

/* Another process reads [from, to) of `path` with read(2); the file has to end at `size` */
static void other_reads(const char *path, size_t from, size_t to, size_t size,
			unsigned int generation)
{
	pid_t child = fork();
	int status;

	check(child >= 0);
	if (child == 0) {
		unsigned char *bytes = malloc(to - from + 1);
		size_t done = 0;
		int fd = open(path, O_RDONLY);

		check(bytes != NULL && fd >= 0);
		check((size_t)lseek(fd, 0, SEEK_END) == size);
		check((size_t)lseek(fd, (off_t)from, SEEK_SET) == from);
		while (done < to - from) {
			ssize_t n = read(fd, bytes + done, to - from - done);

			if (n <= 0)
				fail("%s: read at %zu: %s", path, from + done,
				     n ? strerror(errno) : "end of file");
			done += (size_t)n;
		}
		pattern_check(path, bytes, from, to, generation);
		_exit(0);
	}
	check(waitpid(child, &status, 0) == child);
	if (status != 0)
		_exit(1);
}

/* Another process writes [from, to) of `path` with write(2) */
static void other_writes(const char *path, size_t from, size_t to, unsigned int generation)
{
	pid_t child = fork();
	int status;

	check(child >= 0);
	if (child == 0) {
		unsigned char *bytes = malloc(to - from);
		int fd = open(path, O_WRONLY);

		check(bytes != NULL && fd >= 0);
		for (size_t i = from; i < to; i++)
			bytes[i - from] = pattern(i, generation);
		check(pwrite(fd, bytes, to - from, (off_t)from) == (ssize_t)(to - from));
		check(close(fd) == 0);
		_exit(0);
	}
	check(waitpid(child, &status, 0) == child);
	if (status != 0)
		_exit(1);
}

/* Another process stores into a shared mapping of its own */
static void other_stores(const char *path, size_t from, size_t to, unsigned int generation)
{
	pid_t child = fork();
	int status;

	check(child >= 0);
	if (child == 0) {
		int fd = open(path, O_RDWR);
		unsigned char *map;

		check(fd >= 0);
		map = mmap(NULL, to, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		check(map != MAP_FAILED);
		pattern_store(map, from, to, generation);
		_exit(0);
	}
	check(waitpid(child, &status, 0) == child);
	if (status != 0)
		_exit(1);
}

/* What the file holds at the end: generations by parts */
static void file_check(const char *path)
{
	unsigned char *map;
	int fd = open(path, O_RDONLY);

	check(fd >= 0);
	check((size_t)lseek(fd, 0, SEEK_END) == SIZE_SECOND);
	map = mmap(NULL, SIZE_SECOND, PROT_READ, MAP_SHARED, fd, 0);
	check(map != MAP_FAILED);
	pattern_check(path, map, 0, 5000, 6);
	pattern_check(path, map + 5000, 5000, 300000, 1);
	pattern_check(path, map + 300000, 300000, 310001, 3);
	pattern_check(path, map + 310001, 310001, 400000, 1);
	pattern_check(path, map + 400000, 400000, 420000, 4);
	pattern_check(path, map + 420000, 420000, SIZE_FIRST, 1);
	pattern_check(path, map + SIZE_FIRST, SIZE_FIRST, SIZE_SECOND, 2);
}

int main(int argc, char **argv)
{
	unsigned char *map, *private;
	const char *path, *same;
	int fd;

	if (argc == 2) {
		file_check(argv[1]);
		return 0;
	}
	if (argc != 3) {
		fprintf(stderr, "usage: tool_mmap FILE [SAME]\n");
		return 2;
	}
	path = argv[1];
	same = argv[2];

	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0644);
	check(fd >= 0);
	check(ftruncate(fd, SIZE_FIRST) == 0);
	/* Longer than the file: what lies beyond its end becomes usable as it grows */
	map = mmap(NULL, SIZE_MAPPED, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(map != MAP_FAILED);

	pattern_store(map, 0, SIZE_FIRST, 1);
	other_reads(path, 0, SIZE_FIRST, SIZE_FIRST, 1);
	check(msync(map, SIZE_FIRST, MS_SYNC) == 0);
	other_reads(path, 0, SIZE_FIRST, SIZE_FIRST, 1);
	other_reads(same, 0, SIZE_FIRST, SIZE_FIRST, 1);

	/* Growth under the mapping */
	check(ftruncate(fd, SIZE_SECOND) == 0);
	for (size_t i = SIZE_FIRST; i < SIZE_SECOND; i += 4096)
		check(map[i] == 0);
	pattern_store(map, SIZE_FIRST, SIZE_SECOND, 2);
	other_reads(path, SIZE_FIRST, SIZE_SECOND, SIZE_SECOND, 2);
	check(msync(map + SIZE_FIRST, SIZE_SECOND - SIZE_FIRST, MS_SYNC) == 0);
	other_reads(same, SIZE_FIRST, SIZE_SECOND, SIZE_SECOND, 2);
	other_reads(same, 0, SIZE_FIRST, SIZE_SECOND, 1);

	/* What others write and store is seen in the mapping at once */
	other_writes(path, 300000, 310001, 3);
	pattern_check("write(2) by another", map + 300000, 300000, 310001, 3);
	other_reads(same, 300000, 310001, SIZE_SECOND, 3);
	other_stores(path, 400000, 420000, 4);
	pattern_check("store by another", map + 400000, 400000, 420000, 4);

	/* A private mapping sees the file, and keeps to itself what is stored in it */
	private = mmap(NULL, SIZE_SECOND, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	check(private != MAP_FAILED);
	pattern_check("private mapping", private + 300000, 300000, 310001, 3);
	pattern_store(private, 500000, 600000, 5);
	pattern_check("private mapping", private + 500000, 500000, 600000, 5);
	pattern_check("shared mapping", map + 500000, 500000, 600000, 1);
	other_reads(path, 500000, 600000, SIZE_SECOND, 1);
	other_reads(same, 500000, 600000, SIZE_SECOND, 1);
	check(munmap(private, SIZE_SECOND) == 0);

	/* Stores that are still in a client's mapping count from its fsync, by whatever descriptor
	 */
	pattern_store(map, 0, 5000, 6);
	check(fsync(fd) == 0);
	other_reads(same, 0, 5000, SIZE_SECOND, 6);
	other_reads(same, 400000, 420000, SIZE_SECOND, 4);

	check(munmap(map, SIZE_MAPPED) == 0);
	check(close(fd) == 0);
	other_reads(path, 0, 5000, SIZE_SECOND, 6);
	file_check(path);
	file_check(same);
	return 0;
}
