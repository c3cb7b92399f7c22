/*
 * tool_mixed FOLDER SAME SECONDS [SEED]
 *
 * Four threads do random operations in FOLDER, a folder of a mount, each in a folder of its own of
 * which it knows every name and every byte, and all of them in one that they share. What is seen
 * has to be what is known, after each step, and at the end in SAME as well: the same folder without
 * the mount. FOLDER has to be empty. Exit status 0 and one line of counts, or 1 and what was wrong.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define THREADS	     4
#define FILES	     16	    /* of each thread, at most */
#define SIZE_MOST    300000 /* of a file */
#define NAMES_COMMON 12	    /* in the shared folder */
#define SIZE_COMMON  20000  /* of a file in it: bytes of one value */

/* A file as its thread knows it. It has a name, and at times a second one; or none while unlinked.
 */
struct file {
	int exists;
	char name[64];
	char link[64];	      /* "" without a second name */
	unsigned char *bytes; /* SIZE_MOST of them; zeros from size on */
	size_t size;
	unsigned int mode;
	unsigned int attribute; /* of user.number; 0: not set */
};

struct worker {
	pthread_t thread;
	unsigned int number;
	uint64_t chance;
	unsigned int names; /* made so far */
	unsigned long operations;
	char folder[PATH_MAX / 2];
	char same[PATH_MAX / 2];
	struct file files[FILES];
};

static const char *root;
static const char *root_same;
static struct timespec end;

static __attribute__((noreturn, format(printf, 3, 4))) void fail(int line, struct worker *worker,
								 const char *format, ...)
{
	va_list arguments;
	int error = errno;

	flockfile(stderr);
	fprintf(stderr, "tool_mixed: line %d: thread %u, operation %lu: ", line, worker->number,
		worker->operations);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fprintf(stderr, " (errno: %s)\n", strerror(error));
	fflush(stderr);
	_exit(1);
}

#define wrong(...)	       fail(__LINE__, worker, __VA_ARGS__)
#define check(condition, what) ((condition) ? (void)0 : wrong("%s: %s", what, #condition))

static uint64_t random_next(struct worker *worker)
{
	uint64_t x = worker->chance += 0x9e3779b97f4a7c15u;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static size_t random_below(struct worker *worker, size_t limit)
{
	return (size_t)(random_next(worker) % limit);
}

static char *path_of(struct worker *worker, char path[PATH_MAX], const char *name)
{
	snprintf(path, PATH_MAX, "%s/%s", worker->folder, name);
	return path;
}

/* A new name, at times in the folder below */
static void name_make(struct worker *worker, char name[64])
{
	snprintf(name, 64, "%s%u-%x", random_below(worker, 3) == 0 ? "below/" : "", worker->names++,
		 (unsigned int)random_below(worker, 1 << 20));
}

static struct file *file_any(struct worker *worker)
{
	size_t from = random_below(worker, FILES);

	for (size_t i = 0; i < FILES; i++)
		if (worker->files[(from + i) % FILES].exists)
			return &worker->files[(from + i) % FILES];
	return NULL;
}

static int file_open(struct worker *worker, struct file *file, int flags)
{
	char path[PATH_MAX];
	const char *name = file->link[0] && random_below(worker, 2) ? file->link : file->name;
	int fd = open(path_of(worker, path, name), flags | O_CLOEXEC);

	check(fd >= 0, path);
	return fd;
}

/* Compares [offset, offset + length) by pread */
static void fd_verify(struct worker *worker, struct file *file, int fd, size_t offset,
		      size_t length)
{
	unsigned char *bytes = malloc(length + 1);
	size_t expected = offset < file->size ? file->size - offset : 0;
	size_t done = 0;

	if (bytes == NULL)
		wrong("no memory");
	if (expected > length)
		expected = length;
	while (done < length) {
		ssize_t n = pread(fd, bytes + done, length - done, (off_t)(offset + done));

		if (n < 0)
			wrong("%s: read", file->name);
		if (n == 0)
			break;
		done += (size_t)n;
	}
	if (done != expected)
		wrong("%s: %zu bytes at %zu, expected %zu of size %zu", file->name, done, offset,
		      expected, file->size);
	for (size_t i = 0; i < done; i++)
		if (bytes[i] != file->bytes[offset + i])
			wrong("%s: byte %zu of %zu is %02x, expected %02x (read %zu at %zu)",
			      file->name, offset + i, file->size, bytes[i], file->bytes[offset + i],
			      length, offset);
	free(bytes);
}

static void fd_stat(struct worker *worker, struct file *file, int fd, nlink_t links)
{
	struct stat st;

	check(fstat(fd, &st) == 0, file->name);
	if ((size_t)st.st_size != file->size || st.st_nlink != links ||
	    (st.st_mode & 07777) != file->mode)
		wrong("%s: size %zu, %u links, mode %o; expected %zu, %u, %o", file->name,
		      (size_t)st.st_size, (unsigned int)st.st_nlink, st.st_mode & 07777, file->size,
		      (unsigned int)links, file->mode);
}

/* New bytes for [offset, offset + length) of what is known */
static void bytes_make(struct worker *worker, struct file *file, size_t offset, size_t length)
{
	uint64_t word = 0;

	for (size_t i = 0; i < length; i++) {
		if (i % 8 == 0)
			word = random_next(worker);
		file->bytes[offset + i] = (unsigned char)(word >> (i % 8 * 8)) | 1;
	}
}

static void fd_write(struct worker *worker, struct file *file, int fd, size_t offset, size_t length)
{
	size_t done = 0;

	bytes_make(worker, file, offset, length);
	while (done < length) {
		ssize_t n = pwrite(fd, file->bytes + offset + done, length - done,
				   (off_t)(offset + done));

		if (n <= 0)
			wrong("%s: write of %zu at %zu", file->name, length, offset);
		done += (size_t)n;
	}
	if (length > 0 && offset + length > file->size)
		file->size = offset + length;
}

/* Some range within SIZE_MOST, of a size as programs have them */
static size_t range_make(struct worker *worker, struct file *file, size_t *length)
{
	static const size_t lengths[] = {1, 100, 4096, 5000, 65536, 150000};
	size_t limit = lengths[random_below(worker, sizeof(lengths) / sizeof(lengths[0]))];
	size_t offset;

	*length = random_below(worker, 2) ? limit : random_below(worker, limit) + 1;
	offset = random_below(worker, random_below(worker, 4) ? file->size + 1 : SIZE_MOST);
	if (random_below(worker, 2))
		offset &= ~(size_t)4095;
	if (offset + *length > SIZE_MOST)
		*length = SIZE_MOST - offset;
	return offset;
}

/* ---- the operations */

static void op_create(struct worker *worker)
{
	static const unsigned int modes[] = {0644, 0600, 0640, 0444};
	char path[PATH_MAX];
	struct file *file = NULL;
	size_t length;
	int fd;

	for (size_t i = 0; i < FILES && file == NULL; i++)
		if (!worker->files[i].exists)
			file = &worker->files[i];
	if (file == NULL)
		return;
	name_make(worker, file->name);
	file->link[0] = '\0';
	file->exists = 1;
	file->size = 0;
	file->attribute = 0;
	file->mode = modes[random_below(worker, 4)];
	memset(file->bytes, 0, SIZE_MOST);
	fd = open(path_of(worker, path, file->name), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
		  (mode_t)file->mode);
	check(fd >= 0, path);
	length = random_below(worker, random_below(worker, 2) ? 100 : SIZE_MOST);
	fd_write(worker, file, fd, 0, length);
	if (file->mode == 0444) {
		fd_verify(worker, file, fd, 0, SIZE_MOST);
		file->mode = 0644;
		check(fchmod(fd, 0644) == 0, path);
	}
	fd_stat(worker, file, fd, 1);
	check(close(fd) == 0, path);
}

static void op_write(struct worker *worker, struct file *file)
{
	int flags = random_below(worker, 2) ? O_RDWR : O_WRONLY;
	int fd = file_open(worker, file, flags);
	size_t length;

	for (size_t i = random_below(worker, 4) + 1; i > 0; i--) {
		size_t offset = range_make(worker, file, &length);

		fd_write(worker, file, fd, offset, length);
		if (flags == O_RDWR)
			fd_verify(worker, file, fd, offset / 2, length);
	}
	fd_stat(worker, file, fd, file->link[0] ? 2 : 1);
	check(close(fd) == 0, file->name);
}

static void op_append(struct worker *worker, struct file *file)
{
	size_t length = random_below(worker, 9000) + 1;
	int fd;

	if (file->size + length > SIZE_MOST)
		return;
	fd = file_open(worker, file, O_WRONLY | O_APPEND);
	bytes_make(worker, file, file->size, length);
	if (write(fd, file->bytes + file->size, length) != (ssize_t)length)
		wrong("%s: append of %zu", file->name, length);
	file->size += length;
	fd_stat(worker, file, fd, file->link[0] ? 2 : 1);
	check(close(fd) == 0, file->name);
}

static void op_read(struct worker *worker, struct file *file)
{
	int fd = file_open(worker, file, O_RDONLY);
	size_t length;

	for (int i = 0; i < 4; i++) {
		size_t offset = range_make(worker, file, &length);

		fd_verify(worker, file, fd, offset, length);
	}
	fd_verify(worker, file, fd, 0, SIZE_MOST);
	check(close(fd) == 0, file->name);
}

static void op_truncate(struct worker *worker, struct file *file)
{
	size_t size = random_below(worker, random_below(worker, 2) ? file->size + 1 : SIZE_MOST);
	char path[PATH_MAX];
	int fd;

	switch (random_below(worker, 3)) {
	case 0:
		check(truncate(path_of(worker, path, file->name), (off_t)size) == 0, path);
		break;
	case 1:
		fd = file_open(worker, file, O_RDWR);
		check(ftruncate(fd, (off_t)size) == 0, file->name);
		check(close(fd) == 0, file->name);
		break;
	default:
		size = 0;
		fd = file_open(worker, file, O_WRONLY | O_TRUNC);
		check(close(fd) == 0, file->name);
		break;
	}
	if (size < file->size)
		memset(file->bytes + size, 0, file->size - size);
	file->size = size;
	fd = file_open(worker, file, O_RDONLY);
	fd_stat(worker, file, fd, file->link[0] ? 2 : 1);
	fd_verify(worker, file, fd, size / 2, SIZE_MOST);
	check(close(fd) == 0, file->name);
}

static void op_rename(struct worker *worker, struct file *file)
{
	struct file *over = file_any(worker);
	char from[PATH_MAX], to[PATH_MAX], name[64];
	int old = file_open(worker, file, O_RDWR);
	int fd;

	path_of(worker, from, file->name);
	if (random_below(worker, 3) == 0 && over != file && over->link[0] == '\0') {
		/* Over another one, which somebody has open */
		fd = file_open(worker, over, O_RDWR);
		check(rename(from, path_of(worker, to, over->name)) == 0, to);
		strcpy(file->name, over->name);
		fd_stat(worker, over, fd, 0);
		fd_verify(worker, over, fd, 0, SIZE_MOST);
		fd_write(worker, over, fd, 0, 5000);
		fd_verify(worker, over, fd, 0, SIZE_MOST);
		check(close(fd) == 0, over->name);
		over->exists = 0;
	} else {
		name_make(worker, name);
		check(rename(from, path_of(worker, to, name)) == 0, to);
		strcpy(file->name, name);
		check(access(from, F_OK) != 0 && errno == ENOENT, from);
	}
	fd_write(worker, file, old, file->size / 2, random_below(worker, 1000));
	check(close(old) == 0, file->name);
	fd = file_open(worker, file, O_RDONLY);
	fd_verify(worker, file, fd, 0, SIZE_MOST);
	check(close(fd) == 0, file->name);
}

static void op_link(struct worker *worker, struct file *file)
{
	char one[PATH_MAX], two[PATH_MAX];
	struct stat a, b;

	path_of(worker, one, file->name);
	if (file->link[0] == '\0') {
		name_make(worker, file->link);
		check(link(one, path_of(worker, two, file->link)) == 0, two);
		check(stat(one, &a) == 0 && stat(two, &b) == 0, one);
		check(a.st_ino == b.st_ino && a.st_nlink == 2 && b.st_nlink == 2, two);
		check(link(one, two) != 0 && errno == EEXIST, two);
		return;
	}
	path_of(worker, two, file->link);
	if (random_below(worker, 2)) {
		check(unlink(two) == 0, two);
	} else {
		check(unlink(one) == 0, one);
		strcpy(file->name, file->link);
	}
	file->link[0] = '\0';
	check(stat(path_of(worker, one, file->name), &a) == 0 && a.st_nlink == 1, one);
}

static void op_unlink(struct worker *worker, struct file *file)
{
	char path[PATH_MAX];
	int fd = file_open(worker, file, O_RDWR);

	if (file->link[0])
		check(unlink(path_of(worker, path, file->link)) == 0, path);
	check(unlink(path_of(worker, path, file->name)) == 0, path);
	check(access(path, F_OK) != 0 && errno == ENOENT, path);
	if (random_below(worker, 2)) {
		size_t length;
		size_t offset = range_make(worker, file, &length);

		fd_write(worker, file, fd, offset, length);
		fd_stat(worker, file, fd, 0);
		fd_verify(worker, file, fd, 0, SIZE_MOST);
	}
	check(close(fd) == 0, path);
	file->exists = 0;
}

/* Is a name listed that this thread knows? Counts it in `seen` */
static void name_check(struct worker *worker, const char *name, unsigned int *seen)
{
	for (size_t i = 0; i < FILES; i++) {
		struct file *file = &worker->files[i];

		if (file->exists && (strcmp(file->name, name) == 0 ||
				     (file->link[0] && strcmp(file->link, name) == 0))) {
			++*seen;
			return;
		}
	}
	wrong("%s/%s is listed, and should not exist", worker->folder, name);
}

static void folder_verify(struct worker *worker, const char *top)
{
	unsigned int seen = 0, expected = 0;

	for (int below = 0; below < 2; below++) {
		char path[PATH_MAX], name[PATH_MAX];
		struct dirent *entry;
		DIR *folder;

		snprintf(path, sizeof(path), "%s%s", top, below ? "/below" : "");
		folder = opendir(path);
		check(folder != NULL, path);
		while (errno = 0, (entry = readdir(folder)) != NULL) {
			if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
			    strcmp(entry->d_name, "below") == 0)
				continue;
			snprintf(name, sizeof(name), "%s%s", below ? "below/" : "", entry->d_name);
			name_check(worker, name, &seen);
		}
		check(errno == 0, path);
		closedir(folder);
	}
	for (size_t i = 0; i < FILES; i++)
		if (worker->files[i].exists)
			expected += worker->files[i].link[0] ? 2 : 1;
	if (seen != expected)
		wrong("%s: %u names are listed, expected %u", top, seen, expected);
}

static void op_map(struct worker *worker, struct file *file)
{
	unsigned char *map;
	size_t size = file->size, offset, length;
	int fd;

	if (size == 0)
		return;
	fd = file_open(worker, file, O_RDWR);
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(map != MAP_FAILED, file->name);
	for (size_t i = 0; i < size; i += 509)
		if (map[i] != file->bytes[i])
			wrong("%s: mapped byte %zu of %zu is %02x, expected %02x", file->name, i,
			      size, map[i], file->bytes[i]);
	offset = random_below(worker, size);
	length = random_below(worker, size - offset) + 1;
	bytes_make(worker, file, offset, length);
	memcpy(map + offset, file->bytes + offset, length);
	if (random_below(worker, 2))
		check(msync(map, size, MS_SYNC) == 0, file->name);
	fd_verify(worker, file, fd, 0, SIZE_MOST);
	check(munmap(map, size) == 0, file->name);
	/* What is still in this program's mapping counts from here */
	check(fsync(fd) == 0, file->name);
	check(close(fd) == 0, file->name);
}

static void op_sync(struct worker *worker, struct file *file)
{
	int fd = file_open(worker, file, random_below(worker, 2) ? O_RDONLY : O_RDWR);

	check((random_below(worker, 2) ? fsync(fd) : fdatasync(fd)) == 0, file->name);
	check(close(fd) == 0, file->name);
	if (random_below(worker, 4) == 0) {
		fd = open(worker->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		check(fd >= 0 && fsync(fd) == 0, worker->folder);
		check(close(fd) == 0, worker->folder);
	}
}

static void op_symlink(struct worker *worker, struct file *file)
{
	char path[PATH_MAX], target[PATH_MAX], name[64];
	struct stat a, b;
	ssize_t length;

	snprintf(name, sizeof(name), "link-%u", worker->names++);
	path_of(worker, path, name);
	check(symlink(file->name, path) == 0, path);
	length = readlink(path, target, sizeof(target) - 1);
	check(length == (ssize_t)strlen(file->name), path);
	check(memcmp(target, file->name, (size_t)length) == 0, path);
	check(stat(path, &a) == 0 && stat(path_of(worker, target, file->name), &b) == 0, path);
	check(a.st_ino == b.st_ino, path);
	check(unlink(path) == 0, path);
}

static void op_attribute(struct worker *worker, struct file *file)
{
	char path[PATH_MAX], value[32];
	ssize_t length;

	path_of(worker, path, file->name);
	length = getxattr(path, "user.number", value, sizeof(value) - 1);
	if (file->attribute == 0) {
		check(length < 0 && errno == ENODATA, path);
	} else {
		check(length > 0, path);
		value[length] = '\0';
		if ((unsigned int)atoi(value) != file->attribute)
			wrong("%s: attribute %s, expected %u", path, value, file->attribute);
	}
	if (random_below(worker, 4) == 0 && file->attribute != 0) {
		check(removexattr(path, "user.number") == 0, path);
		file->attribute = 0;
	} else {
		file->attribute = (unsigned int)random_below(worker, 1000000) + 1;
		snprintf(value, sizeof(value), "%u", file->attribute);
		check(setxattr(path, "user.number", value, strlen(value), 0) == 0, path);
	}
	file->mode = random_below(worker, 2) ? 0644 : 0600;
	check(chmod(path, file->mode) == 0, path);
}

static void op_allocate(struct worker *worker, struct file *file)
{
	int fd = file_open(worker, file, O_RDWR);
	size_t length;
	size_t offset = range_make(worker, file, &length);

	if (length == 0) {
		check(close(fd) == 0, file->name);
		return;
	}
	if (random_below(worker, 2)) {
		check(fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, (off_t)offset,
				(off_t)length) == 0,
		      file->name);
		memset(file->bytes + offset, 0, length);
	} else {
		check(fallocate(fd, 0, (off_t)offset, (off_t)length) == 0, file->name);
		if (offset + length > file->size)
			file->size = offset + length;
	}
	fd_verify(worker, file, fd, 0, SIZE_MOST);
	fd_stat(worker, file, fd, file->link[0] ? 2 : 1);
	check(close(fd) == 0, file->name);
}

static void op_folder(struct worker *worker)
{
	char path[PATH_MAX], deep[PATH_MAX], moved[PATH_MAX];

	snprintf(path, sizeof(path), "%s/common/folder-%u", root, worker->number);
	snprintf(deep, sizeof(deep), "%s/common/folder-%u/deep", root, worker->number);
	snprintf(moved, sizeof(moved), "%s/common/moved-%u", root, worker->number);
	check(mkdir(path, 0755) == 0, path);
	check(mkdir(path, 0755) != 0 && errno == EEXIST, path);
	check(mkdir(deep, 0700) == 0, deep);
	check(rmdir(path) != 0 && errno == ENOTEMPTY, path);
	check(rename(path, moved) == 0, moved);
	snprintf(deep, sizeof(deep), "%s/common/moved-%u/deep", root, worker->number);
	check(access(path, F_OK) != 0 && errno == ENOENT, path);
	check(rmdir(deep) == 0, deep);
	check(rmdir(moved) == 0, moved);
}

/*
 * In the shared folder: files that all threads replace by rename, read and remove. Each is at all
 * times SIZE_COMMON bytes of one value, whoever made it.
 */
static void op_common(struct worker *worker)
{
	unsigned char bytes[SIZE_COMMON];
	char path[PATH_MAX], made[PATH_MAX];
	struct dirent *entry;
	DIR *folder;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/common/%zu", root, random_below(worker, NAMES_COMMON));
	switch (random_below(worker, 6)) {
	case 0:
	case 1:
		snprintf(made, sizeof(made), "%s/common/made-%u", root, worker->number);
		memset(bytes, (int)random_below(worker, 255) + 1, sizeof(bytes));
		fd = open(made, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		check(fd >= 0, made);
		check(write(fd, bytes, sizeof(bytes)) == (ssize_t)sizeof(bytes), made);
		check(close(fd) == 0, made);
		check(rename(made, path) == 0, path);
		break;
	case 2:
		check(unlink(path) == 0 || errno == ENOENT, path);
		break;
	case 3:
		snprintf(path, sizeof(path), "%s/common", root);
		folder = opendir(path);
		check(folder != NULL, path);
		while (errno = 0, (entry = readdir(folder)) != NULL)
			;
		check(errno == 0, path);
		closedir(folder);
		break;
	default:
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0) {
			check(errno == ENOENT, path);
			break;
		}
		for (size_t done = 0; done < sizeof(bytes); done += (size_t)n) {
			n = pread(fd, bytes + done, sizeof(bytes) - done, (off_t)done);
			if (n <= 0)
				wrong("%s: %zu bytes of a file that others replace", path, done);
		}
		for (size_t i = 1; i < sizeof(bytes); i++)
			if (bytes[i] != bytes[0] || bytes[0] == 0)
				wrong("%s: bytes %02x and, at %zu, %02x in one file", path,
				      bytes[0], i, bytes[i]);
		check(close(fd) == 0, path);
		break;
	}
}

static void operation(struct worker *worker)
{
	struct file *file = file_any(worker);
	size_t choice = random_below(worker, 100);

	worker->operations++;
	if (file == NULL || choice < 12)
		op_create(worker);
	else if (choice < 30)
		op_write(worker, file);
	else if (choice < 36)
		op_append(worker, file);
	else if (choice < 48)
		op_read(worker, file);
	else if (choice < 55)
		op_truncate(worker, file);
	else if (choice < 61)
		op_rename(worker, file);
	else if (choice < 66)
		op_link(worker, file);
	else if (choice < 70)
		op_unlink(worker, file);
	else if (choice < 74)
		folder_verify(worker, worker->folder);
	else if (choice < 78)
		op_map(worker, file);
	else if (choice < 80)
		op_sync(worker, file);
	else if (choice < 83)
		op_symlink(worker, file);
	else if (choice < 87)
		op_attribute(worker, file);
	else if (choice < 90)
		op_allocate(worker, file);
	else if (choice < 93)
		op_folder(worker);
	else
		op_common(worker);
}

/* Everything a thread knows, as it is seen in the folder `top` */
static void verify(struct worker *worker, const char *top)
{
	folder_verify(worker, top);
	for (size_t i = 0; i < FILES; i++) {
		struct file *file = &worker->files[i];
		char path[PATH_MAX];
		int fd;

		if (!file->exists)
			continue;
		snprintf(path, sizeof(path), "%s/%s", top, file->name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		check(fd >= 0, path);
		fd_stat(worker, file, fd, file->link[0] ? 2 : 1);
		fd_verify(worker, file, fd, 0, SIZE_MOST);
		check(close(fd) == 0, path);
	}
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	struct timespec now;

	do {
		operation(worker);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < end.tv_sec ||
		 (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
	verify(worker, worker->folder);
	verify(worker, worker->same);
	return NULL;
}

int main(int argc, char **argv)
{
	static struct worker workers[THREADS];
	unsigned long operations = 0;
	uint64_t seed;
	char path[PATH_MAX];

	if (argc < 4 || argc > 5) {
		fprintf(stderr, "usage: tool_mixed FOLDER SAME SECONDS [SEED]\n");
		return 2;
	}
	root = argv[1];
	root_same = argv[2];
	clock_gettime(CLOCK_MONOTONIC, &end);
	seed = argc > 4 ? strtoull(argv[4], NULL, 0) : (uint64_t)end.tv_nsec;
	end.tv_sec += atol(argv[3]);
	umask(022);

	snprintf(path, sizeof(path), "%s/common", root);
	if (mkdir(path, 0755) != 0) {
		fprintf(stderr, "tool_mixed: %s: %s\n", path, strerror(errno));
		return 1;
	}
	for (unsigned int i = 0; i < THREADS; i++) {
		struct worker *worker = &workers[i];

		worker->number = i;
		worker->chance = seed * 1000 + i;
		snprintf(worker->folder, sizeof(worker->folder), "%s/%u", root, i);
		snprintf(worker->same, sizeof(worker->same), "%s/%u", root_same, i);
		check(mkdir(worker->folder, 0755) == 0, worker->folder);
		snprintf(path, sizeof(path), "%s/%u/below", root, i);
		check(mkdir(path, 0755) == 0, path);
		for (size_t j = 0; j < FILES; j++) {
			worker->files[j].bytes = malloc(SIZE_MOST);
			if (worker->files[j].bytes == NULL)
				wrong("no memory");
		}
	}
	for (unsigned int i = 0; i < THREADS; i++) {
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) {
			fprintf(stderr, "tool_mixed: pthread_create failed\n");
			return 1;
		}
	}
	for (unsigned int i = 0; i < THREADS; i++) {
		pthread_join(workers[i].thread, NULL);
		operations += workers[i].operations;
		for (size_t j = 0; j < FILES; j++)
			free(workers[i].files[j].bytes);
	}
	printf("seed %llu: %lu operations\n", (unsigned long long)seed, operations);
	return 0;
}
