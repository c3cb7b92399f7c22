/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tool_overwrite FILE BLOCK SECONDS: overwrites random blocks of FILE, opened with
 * O_WRONLY | O_DIRECT, one after the other. Prints "writes bytes seconds". The places are the same
 * in each run.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	uint64_t state = 88172645463325252u, writes = 0, blocks;
	size_t block = argc > 3 ? strtoul(argv[2], NULL, 10) : 0;
	double start, end;
	struct stat st;
	char *buffer;
	int fd;

	if (block == 0) {
		fprintf(stderr, "usage: tool_overwrite FILE BLOCK SECONDS\n");
		return 2;
	}
	fd = open(argv[1], O_WRONLY | O_DIRECT);
	if (fd < 0 || fstat(fd, &st) || st.st_size < (off_t)block) {
		perror(argv[1]);
		return 1;
	}
	buffer = aligned_alloc(4096, (block + 4095) / 4096 * 4096);
	if (!buffer)
		return 1;
	blocks = (uint64_t)st.st_size / block;
	memset(buffer, 'w', block);
	start = now();
	end = start + atof(argv[3]);
	do {
		state ^= state << 13; /* xorshift64 */
		state ^= state >> 7;
		state ^= state << 17;
		memcpy(buffer, &state, sizeof(state));
		if (pwrite(fd, buffer, block, (off_t)(state % blocks * block)) != (ssize_t)block) {
			perror("pwrite");
			return 1;
		}
		writes++;
	} while (now() < end);
	printf("%llu %llu %.3f\n", (unsigned long long)writes, (unsigned long long)writes * block,
	       now() - start);
	return 0;
}
