/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tool_aio FILE ROUNDS: writes FILE past the page cache by asynchronous requests, while a thread
 * reads it through the cache; what a write that is complete has written is what is read from then
 * on. And then by a descriptor that becomes direct and cached again all the time, at any moment of
 * a write: each comes to its end. Exit status 0 if so.
 */
#include "tool.h"

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>

#define SIZE  ((size_t)256 * 1024)
#define BLOCK ((size_t)64 * 1024)
#define MANY  48

static _Atomic bool stop;

static void *read_on(void *argument)
{
	char *buffer = malloc(SIZE);

	while (!stop && buffer)
		if (pread(*(int *)argument, buffer, SIZE, 0) < 0)
			fail("pread: %s", strerror(errno));
	free(buffer);
	return NULL;
}

static void write_block(aio_context_t context, int fd, const char *block, off_t offset)
{
	struct iocb request = {
		.aio_lio_opcode = IOCB_CMD_PWRITE,
		.aio_fildes = (unsigned int)fd,
		.aio_buf = (unsigned long)block,
		.aio_nbytes = BLOCK,
		.aio_offset = offset,
	};
	struct iocb *requests[] = {&request};
	struct io_event event;

	if (syscall(SYS_io_submit, context, 1L, requests) != 1)
		fail("io_submit: %s", strerror(errno));
	while (syscall(SYS_io_getevents, context, 1L, 1L, &event, NULL) != 1)
		if (errno != EINTR)
			fail("io_getevents: %s", strerror(errno));
	if ((size_t)event.res != BLOCK) {
		fail("a write: %lld", (long long)event.res);
	}
}

/* More at once than the kernel has on their way: all are answered. */
static void write_many(aio_context_t context, int fd, const char *block)
{
	struct iocb requests[MANY], *pointers[MANY];
	struct io_event events[MANY];

	for (int i = 0; i < MANY; i++) {
		requests[i] = (struct iocb){
			.aio_lio_opcode = IOCB_CMD_PWRITE,
			.aio_fildes = (unsigned int)fd,
			.aio_buf = (unsigned long)block,
			.aio_nbytes = 4096,
			.aio_offset = 4096 * i,
		};
		pointers[i] = &requests[i];
	}
	if (syscall(SYS_io_submit, context, (long)MANY, pointers) != MANY)
		fail("io_submit of many: %s", strerror(errno));
	for (int done = 0; done < MANY;) {
		long count = syscall(SYS_io_getevents, context, 1L, (long)MANY, events, NULL);

		if (count < 0 && errno != EINTR)
			fail("io_getevents: %s", strerror(errno));
		done += count > 0 ? (int)count : 0;
	}
}

struct writer {
	int fd, rounds;
	const char *block;
};

static void *write_on(void *argument)
{
	const struct writer *writer = argument;

	for (int round = 0; round < writer->rounds; round++)
		/* Part of a page that is not cached: it stays locked until the answer comes. */
		if (pwrite(writer->fd, writer->block, 512, 512) != 512)
			fail("pwrite: %s", strerror(errno));
	return NULL;
}

static void write_toggled(const char *path, const char *block, int rounds)
{
	struct writer writer = {open(path, O_RDWR), rounds, block};
	pthread_t writers[2];
	int flags = fcntl(writer.fd, F_GETFL);

	for (int i = 0; i < 2; i++)
		if (pthread_create(&writers[i], NULL, write_on, &writer))
			fail("pthread_create: %s", strerror(errno));
	while (pthread_tryjoin_np(writers[0], NULL) == EBUSY)
		for (int i = 0; i < 100; i++)
			if (fcntl(writer.fd, F_SETFL, flags ^ (i % 2 ? 0 : O_DIRECT)))
				fail("fcntl: %s", strerror(errno));
	pthread_join(writers[1], NULL);
	close(writer.fd);
}

int main(int argc, char **argv)
{
	aio_context_t context = 0;
	char *block, *found = malloc(BLOCK), *whole = calloc(1, SIZE);
	int cached, direct;
	pthread_t reader;

	if (argc != 3 || !found || !whole || posix_memalign((void **)&block, 4096, BLOCK))
		fail("arguments, or memory: %s", strerror(errno));
	cached = open(argv[1], O_RDWR | O_CREAT, 0644);
	direct = open(argv[1], O_RDWR | O_DIRECT);
	if (cached < 0 || direct < 0 || pwrite(cached, whole, SIZE, 0) != (ssize_t)SIZE)
		fail("%s: %s", argv[1], strerror(errno));
	if (syscall(SYS_io_setup, (long)MANY, &context))
		fail("io_setup: %s", strerror(errno));
	if (pthread_create(&reader, NULL, read_on, &cached))
		fail("pthread_create: %s", strerror(errno));
	for (int round = 0; round < atoi(argv[2]); round++) {
		off_t offset = (off_t)BLOCK * (round % (int)(SIZE / BLOCK));

		memset(block, 1 + round % 250, BLOCK);
		write_block(context, direct, block, offset);
		if (pread(cached, found, BLOCK, offset) != (ssize_t)BLOCK)
			fail("pread: %s", strerror(errno));
		if (memcmp(found, block, BLOCK) != 0)
			fail("round %d: what was written before is still there", round);
	}
	for (int round = 0; round < atoi(argv[2]); round++)
		write_many(context, direct, block);
	stop = true;
	pthread_join(reader, NULL);
	write_toggled(argv[1], block, 100 * atoi(argv[2]));
	return 0;
}
