/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tool_twin.c - random operations in two trees that begin alike: each is done in both, and does the
 * same in both, down to errno and bytes; and in the end the trees are alike
 *
 *	tool_twin run ONE OTHER SEED STEPS     (files stay open, unlinked and mapped all along)
 *	tool_twin run ONE OTHER SEED STEPS EVERY COMMAND...     (called after each EVERY steps)
 *	tool_twin compare ONE OTHER
 *
 * Names, types, modes, owners, link counts, sizes, targets, extended attributes, bytes, and times
 *of change of files that were set are compared.
 */
#include "tool.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>

static uint64_t state;

static uint64_t below(uint64_t limit)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return ((state * 2685821657736338717u) >> 11) % limit;
}

static const char *tree[2];
static unsigned long step;

#define OPEN_MAX_FILES 12
#define SIZE_MOST      (3 * 1024 * 1024)

/* A file that is open in both, and perhaps mapped. */
static struct {
	int fd[2];
	char *mapped[2];
	size_t length;
} files[OPEN_MAX_FILES];

/* Paths of a few names, so that they meet. */
static const char *random_path(char *path)
{
	static const char *const names[] = {"a",      "b",  "c",  "sub", "deep",
					    "folder", "f1", "f2", "f3"};
	uint64_t depth = 1 + below(3);

	*path = '\0';
	for (uint64_t i = 0; i < depth; i++) {
		strcat(path, "/");
		strcat(path, names[below(sizeof(names) / sizeof(names[0]))]);
	}
	return path;
}

static const char *in(int which, const char *path)
{
	static char full[2][2][PATH_MAX];
	static int turn;

	turn = !turn;
	snprintf(full[which][turn], PATH_MAX, "%s%s", tree[which], path);
	return full[which][turn];
}

/* Both have come to the same result. */
static void same(const char *what, const char *path, intmax_t one, int one_error, intmax_t other,
		 int other_error)
{
	if (one != other || (one < 0 && one_error != other_error))
		fail("step %lu: %s %s: %jd (%s), and in the other tree %jd (%s)", step, what, path,
		     one, one < 0 ? strerror(one_error) : "", other,
		     other < 0 ? strerror(other_error) : "");
}

#define BOTH(WHAT, PATH, CALL)                                                                     \
	do {                                                                                       \
		intmax_t result_[2];                                                               \
		int error_[2];                                                                     \
                                                                                                   \
		for (int w = 0; w < 2; w++) {                                                      \
			errno = 0;                                                                 \
			result_[w] = (intmax_t)(CALL);                                             \
			error_[w] = errno;                                                         \
		}                                                                                  \
		same(WHAT, PATH, result_[0], error_[0], result_[1], error_[1]);                    \
		last = result_[0];                                                                 \
	} while (0)

static intmax_t last;

static void fill(char *bytes, size_t length)
{
	uint64_t first = below(256);

	for (size_t i = 0; i < length; i++)
		bytes[i] = (char)(first + i * 13 + (i >> 8));
}

static uint64_t place(void)
{
	uint64_t at = below(SIZE_MOST);

	return below(3) ? at : at / 4096 * 4096;
}

static size_t length_of(void)
{
	switch (below(5)) {
	case 0:
		return 4096;
	case 1:
		return 1 + below(200 * 1024);
	default:
		return 1 + below(9000);
	}
}

static void close_file(int i)
{
	for (int w = 0; w < 2; w++) {
		if (files[i].mapped[w])
			munmap(files[i].mapped[w], files[i].length);
		files[i].mapped[w] = NULL;
		if (files[i].fd[w] >= 0)
			close(files[i].fd[w]);
		files[i].fd[w] = -1;
	}
}

static void open_file(const char *path)
{
	static const int flags[] = {O_RDWR,	      O_RDWR,
				    O_RDWR | O_CREAT, O_RDWR | O_CREAT | O_EXCL,
				    O_RDWR | O_TRUNC, O_RDWR | O_CREAT | O_TRUNC,
				    O_RDWR | O_APPEND};
	int i = (int)below(OPEN_MAX_FILES), flag = flags[below(sizeof(flags) / sizeof(flags[0]))];
	mode_t mode = (mode_t)(below(2) ? 0644 : 0600);
	int fd[2];

	close_file(i);
	BOTH("open", path, (fd[w] = open(in(w, path), flag, mode)) >= 0 ? 0 : -1);
	files[i].fd[0] = fd[0];
	files[i].fd[1] = fd[1];
}

static void use_file(int i)
{
	static char buffer[2][256 * 1024], bytes[256 * 1024];
	size_t length = length_of();
	uint64_t at = place();
	int *fd = files[i].fd;
	struct stat st[2];

	if (fd[0] < 0)
		return;
	switch (below(12)) {
	case 0:
	case 1:
	case 2:
		fill(bytes, length);
		BOTH("write", "", pwrite(fd[w], bytes, length, (off_t)at));
		break;
	case 3:
	case 4:
	case 5:
		memset(buffer, 0, sizeof(buffer));
		BOTH("read", "", pread(fd[w], buffer[w], length, (off_t)at));
		if (last > 0 && memcmp(buffer[0], buffer[1], (size_t)last) != 0) {
			size_t k = 0;
			while (buffer[0][k] == buffer[1][k])
				k++;
			fail("step %lu: other bytes at %ju, first at %ju (%d, %d)", step,
			     (uintmax_t)at, (uintmax_t)at + k, buffer[0][k], buffer[1][k]);
		}
		break;
	case 6:
		BOTH("truncate", "", ftruncate(fd[w], (off_t)at));
		break;
	case 7:
		BOTH("punch", "",
		     fallocate(fd[w], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at,
			       (off_t)length));
		break;
	case 8:
		BOTH("zero", "", fallocate(fd[w], FALLOC_FL_ZERO_RANGE, (off_t)at, (off_t)length));
		break;
	case 9:
		BOTH("allocate", "", fallocate(fd[w], 0, (off_t)at, (off_t)length));
		break;
	case 10:
		BOTH("fstat", "", fstat(fd[w], &st[w]));
		same("size", "", st[0].st_size, 0, st[1].st_size, 0);
		same("links", "", (intmax_t)st[0].st_nlink, 0, (intmax_t)st[1].st_nlink, 0);
		/* Stores through a mapping, and what they are elsewhere. */
		if (st[0].st_size >= 4096 && !files[i].mapped[0]) {
			files[i].length = (size_t)st[0].st_size / 4096 * 4096;
			for (int w = 0; w < 2; w++) {
				files[i].mapped[w] =
					mmap(NULL, files[i].length, PROT_READ | PROT_WRITE,
					     MAP_SHARED, fd[w], 0);
				check(files[i].mapped[w] != MAP_FAILED);
			}
		}
		break;
	case 11:
		BOTH("fsync", "", fsync(fd[w]));
		break;
	}
	/* Where the file still is as long */
	if (files[i].mapped[0] && below(4) == 0 && fstat(fd[0], &st[0]) == 0 &&
	    (size_t)st[0].st_size >= files[i].length) {
		at = below(files[i].length);
		length = length < files[i].length - at ? length : files[i].length - at;
		fill(bytes, length);
		for (int w = 0; w < 2; w++) {
			memcpy(files[i].mapped[w] + at, bytes, length);
			check(msync(files[i].mapped[w], files[i].length, MS_SYNC) == 0);
		}
	}
}

static void change_path(const char *path)
{
	char other[PATH_MAX], value[2][100];
	struct timespec times[2] = {{(time_t)below(2000000000), 5}, {(time_t)below(2000000000), 7}};
	struct stat st[2];
	uint64_t mode = below(8), size = below(3) ? below(9000) : place();

	switch (below(18)) {
	case 0:
	case 1:
		BOTH("unlink", path, unlink(in(w, path)));
		break;
	case 2:
	case 3:
		BOTH("mkdir", path, mkdir(in(w, path), 0755));
		break;
	case 4:
		BOTH("rmdir", path, rmdir(in(w, path)));
		break;
	case 5:
	case 6:
	case 7:
		random_path(other);
		BOTH("rename", path,
		     renameat2(AT_FDCWD, in(w, path), AT_FDCWD, in(w, other),
			       mode == 0   ? RENAME_EXCHANGE
			       : mode == 1 ? RENAME_NOREPLACE
					   : 0));
		break;
	case 8:
	case 9:
		random_path(other);
		BOTH("link", path, link(in(w, path), in(w, other)));
		break;
	case 10:
		BOTH("symlink", path, symlink("a/b", in(w, path)));
		break;
	case 11:
		BOTH("chmod", path, chmod(in(w, path), (mode_t)(0700 | mode * 9)));
		break;
	case 12:
		BOTH("times", path, utimensat(AT_FDCWD, in(w, path), times, AT_SYMLINK_NOFOLLOW));
		break;
	case 13:
		BOTH("setxattr", path,
		     lsetxattr(in(w, path), mode & 1 ? "user.one" : "user.two", path, strlen(path),
			       mode & 2 ? XATTR_CREATE : 0));
		break;
	case 14:
		BOTH("removexattr", path,
		     lremovexattr(in(w, path), mode & 1 ? "user.one" : "user.two"));
		break;
	case 15:
		BOTH("getxattr", path,
		     lgetxattr(in(w, path), "user.one", value[w], sizeof(value[w])));
		if (last > 0 && memcmp(value[0], value[1], (size_t)last) != 0)
			fail("step %lu: another attribute of %s", step, path);
		break;
	case 16:
		BOTH("truncate", path, truncate(in(w, path), (off_t)size));
		break;
	case 17:
		BOTH("stat", path, lstat(in(w, path), &st[w]));
		if (last == 0) {
			same("mode of", path, st[0].st_mode, 0, st[1].st_mode, 0);
			same("links of", path, (intmax_t)st[0].st_nlink, 0,
			     (intmax_t)st[1].st_nlink, 0);
			if (!S_ISDIR(st[0].st_mode))
				same("size of", path, st[0].st_size, 0, st[1].st_size, 0);
		}
		break;
	}
}

/* --- Comparing trees -------------------------------------------------------------------------- */

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void compare_bytes(const char *path)
{
	static char buffer[2][64 * 1024];
	ssize_t count[2];
	int fd[2];

	for (int w = 0; w < 2; w++)
		check((fd[w] = open(in(w, path), O_RDONLY)) >= 0);
	do {
		for (int w = 0; w < 2; w++)
			check((count[w] = read(fd[w], buffer[w], sizeof(buffer[w]))) >= 0);
		same("bytes of", path, count[0], 0, count[1], 0);
		if (memcmp(buffer[0], buffer[1], (size_t)count[0]) != 0)
			fail("other bytes in %s", path);
	} while (count[0] > 0);
	close(fd[0]);
	close(fd[1]);
}

static void compare_attributes(const char *path)
{
	static const char *const names[] = {"user.one", "user.two"};
	char value[2][100], list[2][4096];

	BOTH("list of attributes of", path, llistxattr(in(w, path), list[w], sizeof(list[w])));
	for (size_t i = 0; i < 2; i++) {
		BOTH("attribute of", path,
		     lgetxattr(in(w, path), names[i], value[w], sizeof(value[w])));
		if (last > 0 && memcmp(value[0], value[1], (size_t)last) != 0)
			fail("another attribute %s of %s", names[i], path);
	}
}

static void compare(const char *path)
{
	struct dirent **entries[2];
	char below_it[PATH_MAX], target[2][PATH_MAX];
	struct stat st[2];
	int count[2];

	for (int w = 0; w < 2; w++)
		if (lstat(in(w, path), &st[w]))
			fail("%s: %s", in(w, path), strerror(errno));
	same("mode of", path, st[0].st_mode, 0, st[1].st_mode, 0);
	same("owner of", path, st[0].st_uid, 0, st[1].st_uid, 0);
	same("group of", path, st[0].st_gid, 0, st[1].st_gid, 0);
	same("links of", path, (intmax_t)st[0].st_nlink, 0, (intmax_t)st[1].st_nlink, 0);
	if (st[0].st_mtim.tv_nsec == 7 || st[1].st_mtim.tv_nsec == 7)
		same("time of", path, st[0].st_mtim.tv_sec, 0, st[1].st_mtim.tv_sec, 0);
	if (S_ISREG(st[0].st_mode) || S_ISDIR(st[0].st_mode))
		compare_attributes(path);
	if (S_ISREG(st[0].st_mode)) {
		same("size of", path, st[0].st_size, 0, st[1].st_size, 0);
		compare_bytes(path);
	} else if (S_ISLNK(st[0].st_mode)) {
		memset(target, 0, sizeof(target));
		BOTH("target of", path, readlink(in(w, path), target[w], PATH_MAX - 1));
		if (strcmp(target[0], target[1]) != 0)
			fail("another target of %s", path);
	} else if (S_ISDIR(st[0].st_mode)) {
		for (int w = 0; w < 2; w++)
			check((count[w] = scandir(in(w, path), &entries[w], NULL, by_name)) >= 0);
		for (int i = 0; i < count[0] && i < count[1]; i++)
			if (strcmp(entries[0][i]->d_name, entries[1][i]->d_name) != 0)
				fail("in %s: %s, and in the other tree %s", path,
				     entries[0][i]->d_name, entries[1][i]->d_name);
		same("names in", path, count[0], 0, count[1], 0);
		for (int i = 0; i < count[0]; i++) {
			if (strcmp(entries[0][i]->d_name, ".") != 0 &&
			    strcmp(entries[0][i]->d_name, "..") != 0) {
				snprintf(below_it, sizeof(below_it), "%s/%s", path,
					 entries[0][i]->d_name);
				compare(below_it);
			}
			free(entries[0][i]);
			free(entries[1][i]);
		}
		free(entries[0]);
		free(entries[1]);
	}
}

/* What is stored in mappings is where it is written to; then the command. */
static void call(char **command)
{
	int status;
	pid_t child;

	for (int i = 0; i < OPEN_MAX_FILES; i++)
		for (int w = 0; w < 2; w++)
			if (files[i].fd[0] >= 0 && files[i].mapped[w])
				check(msync(files[i].mapped[w], files[i].length, MS_SYNC) == 0);
	child = fork();
	if (child == 0) {
		execvp(command[0], command);
		_exit(127);
	}
	check(child > 0 && waitpid(child, &status, 0) == child);
	if (status)
		fail("%s: status %d", command[0], status);
}

int main(int argc, char **argv)
{
	unsigned long steps, every;
	char path[PATH_MAX];

	if (argc < 4)
		fail("run ONE OTHER SEED STEPS, or compare ONE OTHER");
	tree[0] = argv[2];
	tree[1] = argv[3];
	if (strcmp(argv[1], "compare") == 0) {
		compare("");
		return 0;
	}
	if (argc < 6)
		fail("run ONE OTHER SEED STEPS");
	umask(022);
	state = (strtoul(argv[4], NULL, 10) + 1) * 0x9e3779b97f4a7c15;
	steps = strtoul(argv[5], NULL, 10);
	every = argc > 7 ? strtoul(argv[6], NULL, 10) : steps + 1;
	for (int i = 0; i < OPEN_MAX_FILES; i++)
		files[i].fd[0] = files[i].fd[1] = -1;
	for (step = 1; step <= steps; step++) {
		random_path(path);
		switch (below(4)) {
		case 0:
			open_file(path);
			break;
		case 1:
			change_path(path);
			break;
		default:
			use_file((int)below(OPEN_MAX_FILES));
		}
		if (step % every == 0)
			call(argv + 7);
	}
	for (int i = 0; i < OPEN_MAX_FILES; i++)
		close_file(i);
	compare("");
	return 0;
}
