/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tool_disk serve IMAGE LOG MOUNTPOINT
 *	Serves IMAGE as MOUNTPOINT/disk, for a loop device, and writes down in LOG each write and
 *each flush, in their order, beside a mark for each line that is written to MOUNTPOINT/mark. Until
 *it is unmounted.
 *
 * tool_disk count LOG
 *	Prints how many records there are.
 *
 * tool_disk cut IMAGE LOG NUMBER SEED
 *	The power is cut after record NUMBER: IMAGE, which is as it was when the log began, gets all
 *	writes up to the last flush before, and of those after it some, by chance. Prints the
 *	marks before NUMBER.
 */
#include "tool.h"

#define FUSE_USE_VERSION 35
#include <fcntl.h>
#include <fuse.h>
#include <inttypes.h>
#include <stdbool.h>
#include <sys/stat.h>

enum { WRITE = 1, FLUSH, MARK };

struct record {
	uint64_t kind, offset, length; /* then that many bytes */
};

/* --- Serving: one thread --- */

static const char disk[] = "/disk", mark[] = "/mark";
static int image;
static FILE *records;

static int record(uint64_t kind, const void *bytes, size_t length, uint64_t offset)
{
	const struct record head = {kind, offset, length};

	return fwrite(&head, sizeof(head), 1, records) == 1 &&
			       (!length || fwrite(bytes, length, 1, records) == 1) &&
			       fflush(records) == 0
		       ? 0
		       : -EIO;
}

static int disk_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	(void)fi;
	if (strcmp(path, "/") == 0) {
		st->st_mode = S_IFDIR | 0700;
		st->st_nlink = 2;
		return 0;
	}
	if (strcmp(path, mark) == 0) {
		st->st_mode = S_IFREG | 0600;
		st->st_nlink = 1;
		return 0;
	}
	return strcmp(path, disk) != 0 ? -ENOENT : fstat(image, st) ? -errno : 0;
}

static int disk_open(const char *path, struct fuse_file_info *fi)
{
	fi->direct_io = strcmp(path, mark) == 0;
	return 0;
}

static int disk_read(const char *path, char *bytes, size_t length, off_t offset,
		     struct fuse_file_info *fi)
{
	ssize_t count = strcmp(path, disk) == 0 ? pread(image, bytes, length, offset) : 0;

	(void)fi;
	return count < 0 ? -errno : (int)count;
}

static int disk_write(const char *path, const char *bytes, size_t length, off_t offset,
		      struct fuse_file_info *fi)
{
	int error;

	(void)fi;
	if (strcmp(path, mark) == 0) {
		error = record(MARK, bytes, length, 0);
	} else {
		error = pwrite(image, bytes, length, offset) == (ssize_t)length ? 0 : -EIO;
		if (!error)
			error = record(WRITE, bytes, length, (uint64_t)offset);
	}
	return error ? error : (int)length;
}

static int disk_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	(void)datasync;
	(void)fi;
	return strcmp(path, disk) == 0 ? record(FLUSH, NULL, 0, 0) : 0;
}

static int disk_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	(void)size;
	(void)fi;
	return strcmp(path, mark) == 0 ? 0 : -EPERM;
}

static const struct fuse_operations operations = {
	.getattr = disk_getattr,
	.open = disk_open,
	.read = disk_read,
	.write = disk_write,
	.fsync = disk_fsync,
	.truncate = disk_truncate,
};

static int serve(char *program, const char *image_path, const char *log_path, char *mountpoint)
{
	char foreground[] = "-f", single[] = "-s";
	char *arguments[] = {program, foreground, single, mountpoint};

	image = open(image_path, O_RDWR | O_CLOEXEC);
	check(image >= 0);
	records = fopen(log_path, "we");
	check(records);
	return fuse_main(4, arguments, &operations, NULL);
}

/* --- The cut --- */

/* The next record, its bytes in *bytes; false: there is none that is whole */
static bool record_next(FILE *file, struct record *head, unsigned char **bytes)
{
	if (fread(head, sizeof(*head), 1, file) != 1)
		return false;
	*bytes = realloc(*bytes, head->length + 1);
	check(*bytes);
	return !head->length || fread(*bytes, head->length, 1, file) == 1;
}

/* What gets to the disk, or not, as a whole */
static const uint64_t pieces[] = {4096, 65536, UINT64_MAX, UINT64_MAX};
#define PIECES 4

/* Whether a piece does. With the last kind, all that lies in a MiB of the disk shares its fate. */
static bool reaches(uint64_t offset, unsigned int seed)
{
	if (seed % PIECES != PIECES - 1)
		return random() % 2;
	srandom(seed + (unsigned int)(offset >> 20));
	random();
	return random() % 2;
}

static void cut(const char *image_path, const char *log_path, uint64_t number, unsigned int seed)
{
	unsigned char *bytes = NULL;
	uint64_t flushed = 0, at;
	struct record head;
	FILE *file;

	image = open(image_path, O_RDWR | O_CLOEXEC);
	check(image >= 0);
	file = fopen(log_path, "re");
	check(file);
	for (at = 0; at < number && record_next(file, &head, &bytes); at++)
		if (head.kind == FLUSH)
			flushed = at;
	rewind(file);
	srandom(seed);
	for (at = 0; at < number && record_next(file, &head, &bytes); at++) {
		uint64_t part;

		if (head.kind == MARK)
			check(fwrite(bytes, head.length, 1, stdout) == 1);
		for (uint64_t done = 0; head.kind == WRITE && done < head.length; done += part) {
			part = head.length - done;
			if (at > flushed && part > pieces[seed % PIECES])
				part = pieces[seed % PIECES];
			if (at < flushed || reaches(head.offset + done, seed))
				check(pwrite(image, bytes + done, part,
					     (off_t)(head.offset + done)) == (ssize_t)part);
		}
	}
	check(at == number);
	free(bytes);
	fclose(file);
}

static uint64_t count(const char *log_path)
{
	unsigned char *bytes = NULL;
	struct record head;
	uint64_t sum = 0;
	FILE *file = fopen(log_path, "re");

	check(file);
	while (record_next(file, &head, &bytes))
		sum++;
	free(bytes);
	fclose(file);
	return sum;
}

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "serve") == 0)
		return serve(argv[0], argv[2], argv[3], argv[4]);
	if (argc == 3 && strcmp(argv[1], "count") == 0)
		printf("%" PRIu64 "\n", count(argv[2]));
	else if (argc == 6 && strcmp(argv[1], "cut") == 0)
		cut(argv[2], argv[3], strtoull(argv[4], NULL, 10),
		    (unsigned int)strtoul(argv[5], NULL, 10));
	else
		fail("see the head of tool_disk.c");
	return 0;
}
