/*
 * tool_cachestat FILE...
 *
 * Prints one line for each file: how many of its pages are in memory, how many of them are dirty,
 * and how many are being written back, by cachestat(2). Exit status 77 and a plain text where the
 * kernel lacks the call.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

struct stat_range {
	uint64_t offset;
	uint64_t length; /* 0: to the end */
};

struct stat_pages {
	uint64_t cache;
	uint64_t dirty;
	uint64_t writeback;
	uint64_t evicted;
	uint64_t recently_evicted;
};

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: tool_cachestat FILE...\n");
		return 2;
	}
	for (int i = 1; i < argc; i++) {
		struct stat_range range = {0, 0};
		struct stat_pages pages;
		int fd = open(argv[i], O_RDONLY | O_CLOEXEC);

		if (fd < 0) {
			fprintf(stderr, "tool_cachestat: %s: %s\n", argv[i], strerror(errno));
			return 1;
		}
		if (syscall(SYS_cachestat, fd, &range, &pages, 0) != 0) {
			if (errno == ENOSYS) {
				printf("this kernel lacks cachestat(2), which came with Linux "
				       "6.5\n");
				return 77;
			}
			fprintf(stderr, "tool_cachestat: %s: cachestat: %s\n", argv[i],
				strerror(errno));
			return 1;
		}
		close(fd);
		printf("%llu %llu %llu\n", (unsigned long long)pages.cache,
		       (unsigned long long)pages.dirty, (unsigned long long)pages.writeback);
	}
	return 0;
}
