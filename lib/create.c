/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that are made, and files as a whole: created, loaded, saved, copied, removed. Owns how a
 * name comes to be: a file that others can open is as long, and holds what it is to hold, from the
 * start.
 */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define OPEN_FLAGS (O_CLOEXEC | O_NOCTTY | O_NONBLOCK)

/* A file that has no name yet, or one of its own, in the folder of the name that it is to get. */
struct unborn {
	int fd;
	char folder[PATH_MAX];
	char name[PATH_MAX]; /* empty: none */
};

/* The folder of a path. 0 or -ENAMETOOLONG. */
static int folder_of(const char *path, char folder[PATH_MAX])
{
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) : 1;

	if (length == 0)
		length = 1; /* the root */
	if (length >= PATH_MAX)
		return -ENAMETOOLONG;
	memcpy(folder, slash ? path : ".", length);
	folder[length] = '\0';
	return 0;
}

/* Makes a file under a name that nobody looks for. 0 or negative errno. */
static int unborn_named(struct unborn *unborn, mode_t permissions)
{
	for (int tries = 0; tries < 100; tries++) {
		uint64_t number;

		if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
			return -errno;
		if (snprintf(unborn->name, sizeof(unborn->name), "%s/.mmapio-%016llx",
			     unborn->folder, (unsigned long long)number) >= PATH_MAX)
			return -ENAMETOOLONG;
		unborn->fd =
			open(unborn->name, O_RDWR | O_CREAT | O_EXCL | OPEN_FLAGS, permissions);
		if (unborn->fd >= 0)
			return 0;
		if (errno != EEXIST)
			return -errno;
	}
	return -EEXIST;
}

/* named: it is to replace another by a rename, which takes a name. 0 or negative errno. */
static int unborn_make(struct unborn *unborn, const char *path, mode_t permissions, bool named)
{
	int error = folder_of(path, unborn->folder);

	if (error)
		return error;
	unborn->name[0] = '\0';
	unborn->fd =
		named ? -1 : open(unborn->folder, O_RDWR | O_TMPFILE | OPEN_FLAGS, permissions);
	if (unborn->fd >= 0)
		return 0;
	/* EISDIR: a kernel, EOPNOTSUPP: a file system that does not know O_TMPFILE (open(2)). */
	if (!named && errno != EISDIR && errno != EOPNOTSUPP && errno != EINVAL)
		return -errno;
	return unborn_named(unborn, permissions);
}

static void unborn_drop(struct unborn *unborn)
{
	close(unborn->fd);
	if (unborn->name[0])
		unlink(unborn->name);
}

/* Gives it its name, if there is none of that name yet. 0; -EEXIST; negative errno. */
static int unborn_name(struct unborn *unborn, const char *path)
{
	char proc[64];
	int error;

	if (!unborn->name[0]) {
		/* The first is for root, and for whoever made it since Linux 6.10. */
		if (linkat(unborn->fd, "", AT_FDCWD, path, AT_EMPTY_PATH) == 0)
			return 0;
		if (errno == EEXIST)
			return -EEXIST;
		snprintf(proc, sizeof(proc), "/proc/self/fd/%d", unborn->fd);
		return linkat(AT_FDCWD, proc, AT_FDCWD, path, AT_SYMLINK_FOLLOW) ? -errno : 0;
	}
	if (renameat2(AT_FDCWD, unborn->name, AT_FDCWD, path, RENAME_NOREPLACE) == 0) {
		unborn->name[0] = '\0';
		return 0;
	}
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	error = link(unborn->name, path) ? -errno : 0;
	if (!error) {
		unlink(unborn->name);
		unborn->name[0] = '\0';
	}
	return error;
}

/* Makes a file of a size, whole before it is seen. Its descriptor; -EEXIST; negative errno. */
static int make_whole(const char *path, uint64_t size, mode_t permissions)
{
	struct unborn unborn;
	int error = unborn_make(&unborn, path, permissions, false);

	if (error)
		return error;
	if (ftruncate(unborn.fd, (off_t)size))
		error = -errno;
	if (!error)
		error = unborn_name(&unborn, path);
	if (error) {
		unborn_drop(&unborn);
		return error;
	}
	return unborn.fd;
}

/* A name that is a link to nowhere is there, and cannot be opened: it is not to be tried for ever.
 */
#define TRIES_MAX 100

static int open_or_make(const char *path, int access, uint64_t size, mode_t permissions,
			bool *created)
{
	int fd;

	for (int tries = 0; tries < TRIES_MAX; tries++) {
		*created = false;
		fd = open(path, access | OPEN_FLAGS);
		if (fd >= 0)
			return fd;
		if (errno != ENOENT)
			return errno == ENXIO ? -EINVAL : -errno;
		*created = true;
		fd = make_whole(path, size, permissions);
		if (fd != -EEXIST)
			return fd;
	}
	return -ENOENT;
}

int mmapio_open_or_create(struct mmapio_file **out, const char *path, uint64_t size,
			  mode_t permissions, const struct mmapio_options *options, bool *created)
{
	bool made;
	int error, fd;

	if (!out || !path || !options)
		return error_argument();
	if (size > INT64_MAX)
		return error_set(MMAPIO_ERROR_RESIZE, -EFBIG);
	fd = open_or_make(path, options->mode == MMAPIO_READ_WRITE ? O_RDWR : O_RDONLY, size,
			  permissions, &made);
	if (fd < 0)
		return error_set(MMAPIO_ERROR_IO, fd);
	error = file_open_named(out, fd, path, options);
	if (error) {
		close(fd);
		return error;
	}
	if (created)
		*created = made;
	return 0;
}

int mmapio_create(struct mmapio_file **out, const char *path, uint64_t size, mode_t permissions,
		  const struct mmapio_options *options)
{
	struct stat st;
	int fd, error = 0;

	if (!out || !path || !options)
		return error_argument();
	if (size > INT64_MAX)
		return error_set(MMAPIO_ERROR_RESIZE, -EFBIG);
	fd = open(path, O_RDWR | O_CREAT | OPEN_FLAGS, permissions);
	if (fd < 0)
		return error_set(MMAPIO_ERROR_IO, errno == ENXIO ? -EINVAL : -errno);
	if (fstat(fd, &st))
		error = error_set(MMAPIO_ERROR_IO, -errno);
	else if (!S_ISREG(st.st_mode))
		error = error_set(MMAPIO_ERROR_IO, -EINVAL);
	else if (ftruncate(fd, 0) || ftruncate(fd, (off_t)size))
		error = error_set(MMAPIO_ERROR_RESIZE, -errno);
	if (!error)
		error = file_open_named(out, fd, path, options);
	if (error)
		close(fd);
	return error;
}

int mmapio_open_anonymous(struct mmapio_file **out, uint64_t size,
			  const struct mmapio_options *options)
{
	int fd, error;

	if (!out || !options)
		return error_argument();
	if (size > INT64_MAX)
		return error_set(MMAPIO_ERROR_RESIZE, -EFBIG);
	fd = memfd_create("mmapio", MFD_CLOEXEC);
	if (fd < 0)
		return error_set(MMAPIO_ERROR_IO, -errno);
	error = ftruncate(fd, (off_t)size) ? error_set(MMAPIO_ERROR_RESIZE, -errno)
					   : mmapio_open_fd(out, fd, options);
	if (error)
		close(fd);
	return error;
}

/* --- Files as a whole ------------------------------------------------------------------------- */

int mmapio_load(const char *path, void **data, size_t *length)
{
	const struct mmapio_options options = {
		.size = sizeof(options), .mode = MMAPIO_READ_ONLY, .flags = MMAPIO_LAZY};
	struct mmapio_file *file;
	char *bytes = NULL;
	size_t done = 0;
	ssize_t count;
	int error;

	if (!data || !length)
		return error_argument();
	error = mmapio_open(&file, path, &options);
	if (error)
		return error;
	do {
		/* One byte more than there is, so that the end is seen. */
		uint64_t size = mmapio_file_size(file);
		size_t room = size < SIZE_MAX - 1 && size > done ? (size_t)size + 1 : done + 1;
		char *more = size < SIZE_MAX - 1 ? realloc(bytes, room) : NULL;

		if (!more) {
			error = error_set(MMAPIO_ERROR_IO, -ENOMEM);
			break;
		}
		bytes = more;
		count = mmapio_read(file, done, bytes + done, room - done);
		if (count > 0)
			done += (size_t)count;
		error = count < 0 ? (int)count : mmapio_file_refresh(file, NULL);
	} while (!error && count > 0);
	mmapio_file_unref(file);
	if (error) {
		free(bytes);
		return error;
	}
	*data = bytes;
	*length = done;
	return 0;
}

/* Syncs what was made, gives it its name in place of another's, and syncs the name. */
static int replace(struct unborn *unborn, const char *path)
{
	int folder, error;

	if (fsync(unborn->fd))
		return error_set(MMAPIO_ERROR_FLUSH, -errno);
	folder = open(unborn->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		return error_set(MMAPIO_ERROR_IO, -errno);
	error = rename(unborn->name, path) ? error_set(MMAPIO_ERROR_IO, -errno) : 0;
	if (!error) {
		unborn->name[0] = '\0';
		/* EINVAL: a file system that has nothing to sync of it */
		if (fsync(folder) && errno != EINVAL)
			error = error_set(MMAPIO_ERROR_FLUSH, -errno);
	}
	close(folder);
	return error;
}

int mmapio_save(const char *path, const void *data, size_t length, mode_t permissions)
{
	struct unborn unborn;
	size_t done = 0;
	int error;

	if (!path || (!data && length))
		return error_argument();
	error = unborn_make(&unborn, path, permissions, true);
	if (error)
		return error_set(MMAPIO_ERROR_IO, error);
	while (done < length && !error) {
		ssize_t count = write(unborn.fd, (const char *)data + done, length - done);

		if (count >= 0)
			done += (size_t)count;
		else if (errno != EINTR)
			error = error_set(MMAPIO_ERROR_IO, -errno);
	}
	if (!error)
		error = replace(&unborn, path);
	unborn_drop(&unborn);
	return error;
}

/* Copies what is no hole. 0 or negative errno. */
static int copy_data(int source, int target, off_t size)
{
	off_t at = 0;

	while (at < size) {
		off_t data = lseek(source, at, SEEK_DATA), end;

		if (data < 0 && errno == ENXIO)
			break; /* a hole up to the end */
		if (data < 0)
			return -errno;
		end = lseek(source, data, SEEK_HOLE);
		if (end < 0)
			return -errno;
		for (at = data; at < end;) {
			off_t to = at;
			ssize_t count =
				copy_file_range(source, &at, target, &to, (size_t)(end - at), 0);

			if (count < 0 && errno != EINTR)
				return -errno;
			if (count == 0)
				return 0; /* it is shorter by now */
		}
	}
	return 0;
}

int mmapio_copy_file(const char *source, const char *target, mode_t permissions)
{
	struct unborn unborn;
	struct stat st;
	int from, error;

	if (!source || !target)
		return error_argument();
	from = open(source, O_RDONLY | OPEN_FLAGS);
	if (from < 0)
		return error_set(MMAPIO_ERROR_IO, -errno);
	error = fstat(from, &st)       ? -errno
		: S_ISDIR(st.st_mode)  ? -EISDIR
		: !S_ISREG(st.st_mode) ? -EINVAL
				       : unborn_make(&unborn, target, permissions, true);
	if (error) {
		close(from);
		return error_set(MMAPIO_ERROR_IO, error);
	}
	error = ftruncate(unborn.fd, st.st_size) ? -errno : copy_data(from, unborn.fd, st.st_size);
	error = error ? error_set(MMAPIO_ERROR_IO, error) : replace(&unborn, target);
	unborn_drop(&unborn);
	close(from);
	return error;
}

int mmapio_remove(const char *path)
{
	if (!path)
		return error_argument();
	return unlink(path) ? error_set(MMAPIO_ERROR_IO, -errno) : 0;
}
