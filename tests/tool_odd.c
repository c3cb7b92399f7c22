/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tool_odd FOLDER
 *
 * Calls with odd and hostile arguments, each in FOLDER, an empty one: one line on stdout for each,
 * with what it returned or the name of its errno, to be compared with those of another file system.
 * Leaves a tree that is deeper than a path may be long. Exit status 0 if all was tried.
 */
#include "tool.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdint.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif

/* --- what is seen ----------------------------------------------------------------------------- */

static const char *part;

/* Prints "part: what: result"; result below 0: errno */
static __attribute__((format(printf, 2, 3))) void see(long long result, const char *what, ...)
{
	int error = errno;
	va_list arguments;

	printf("%s: ", part);
	va_start(arguments, what);
	vprintf(what, arguments);
	va_end(arguments);
	if (result < 0)
		printf(": %s\n", strerrorname_np(error));
	else
		printf(": %lld\n", result);
}

/* The call itself is its name; what it opens is closed */
#define SEE(call)      see((long long)(call), "%s", #call)
#define SEE_OPEN(call) see_open((call), #call)

static void see_open(int fd, const char *what)
{
	see(fd < 0 ? fd : 0, "%s", what);
	if (fd >= 0)
		close(fd);
}

static int file_make(const char *name)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	check(fd >= 0 && pwrite(fd, "0123456789", 10, 0) == 10);
	return fd;
}

static void see_file(const char *name)
{
	char bytes[64] = "";
	struct stat st;
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	check(fd >= 0 && fstat(fd, &st) == 0 && pread(fd, bytes, sizeof(bytes) - 1, 0) >= 0);
	printf("%s: %s: %lld bytes, '%s'\n", part, name, (long long)st.st_size, bytes);
	close(fd);
}

/* --- the parts -------------------------------------------------------------------------------- */

#define LAST INT64_MAX

static void offsets(void)
{
	static char bytes[65536];
	static const int64_t odd[] = {LAST, LAST - 1, LAST - 10, LAST - 65536, -1, INT64_MIN};
	int fd = file_make("file"), to = file_make("to");
	off64_t from, into;

	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		int64_t at = odd[i];
		const struct iovec part_of_it = {bytes, 10};

		see(pread(fd, bytes, 10, at), "pread at %lld", (long long)at);
		see(pread(fd, bytes, sizeof(bytes), at), "pread of 64 KiB at %lld", (long long)at);
		see(pread(fd, bytes, 0, at), "pread of nothing at %lld", (long long)at);
		see(pwrite(fd, bytes, 1, at), "pwrite at %lld", (long long)at);
		see(pwrite(fd, bytes, sizeof(bytes), at), "pwrite of 64 KiB at %lld",
		    (long long)at);
		see(pwrite(fd, bytes, 0, at), "pwrite of nothing at %lld", (long long)at);
		see(preadv(fd, &part_of_it, 1, at), "preadv at %lld", (long long)at);
		see(pwritev(fd, &part_of_it, 1, at), "pwritev at %lld", (long long)at);
		see(ftruncate(fd, at), "ftruncate to %lld", (long long)at);
		see(truncate("file", at), "truncate to %lld", (long long)at);
		for (int mode = 0; mode < 4; mode++) {
			see(fallocate(fd, mode, at, 1), "fallocate %d at %lld", mode,
			    (long long)at);
			see(fallocate(fd, mode, 0, at), "fallocate %d of %lld", mode,
			    (long long)at);
			see(fallocate(fd, mode, at, at), "fallocate %d of %lld there", mode,
			    (long long)at);
		}
		errno = posix_fallocate(fd, at, 1);
		see(errno ? -1 : 0, "posix_fallocate at %lld", (long long)at);
		for (int whence = SEEK_SET; whence <= SEEK_HOLE + 1; whence++) {
			check(lseek(fd, 5, SEEK_SET) == 5);
			see(lseek(fd, at, whence), "lseek %d to %lld", whence, (long long)at);
		}
		for (int there = 0; there < 3; there++) {
			from = there != 1 ? at : 0;
			into = there != 0 ? at : 0;
			see(copy_file_range(fd, &from, to, &into, 10, 0),
			    "copy_file_range, %d, %lld", there, (long long)at);
		}
		from = at;
		see(sendfile(to, fd, &from, 10), "sendfile at %lld", (long long)at);
		errno = posix_fadvise(fd, at, 1, POSIX_FADV_WILLNEED);
		see(errno ? -1 : 0, "posix_fadvise at %lld", (long long)at);
		errno = posix_fadvise(fd, 0, at, POSIX_FADV_DONTNEED);
		see(errno ? -1 : 0, "posix_fadvise of %lld", (long long)at);
		see(readahead(fd, at, 4096), "readahead at %lld", (long long)at);
		see(sync_file_range(fd, at, 1, SYNC_FILE_RANGE_WRITE), "sync_file_range at %lld",
		    (long long)at);
		see(sync_file_range(fd, 0, at, SYNC_FILE_RANGE_WAIT_AFTER),
		    "sync_file_range of %lld", (long long)at);
		see(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, at) == MAP_FAILED ? -1 : 0,
		    "mmap at %lld", (long long)at);
	}
	see_file("file");
	see_file("to");
	from = 0, into = 5;
	SEE(copy_file_range(fd, &from, to, &into, SIZE_MAX, 0));
	SEE(copy_file_range(fd, &from, to, &into, 1, 1));
	from = 0, into = 0;
	SEE(copy_file_range(fd, &from, to, &into, 0, 0));
	SEE(pread(fd, bytes, 0, 100));
	SEE(fallocate(fd, 0x40000000, 0, 1));
	SEE(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 1));
	SEE(posix_fallocate(fd, 0, 20));
	SEE(posix_fadvise(fd, 0, 0, 99));
	SEE(sync_file_range(fd, 0, 0, 99));
	SEE(sync_file_range(fd, 0, 0, 7));
	see_file("file");
	see_file("to");
	close(fd);
	close(to);
	fd = open("file", O_RDONLY | O_CLOEXEC);
	to = open("to", O_WRONLY | O_CLOEXEC);
	SEE(ftruncate(fd, 1));
	SEE(fallocate(fd, 0, 0, 1));
	SEE(pwrite(fd, bytes, 1, 0));
	SEE(pread(to, bytes, 1, 0));
	from = into = 0;
	SEE(copy_file_range(to, &from, fd, &into, 1, 0));
	SEE(fsync(fd));
	SEE(fdatasync(fd));
	SEE(syncfs(fd));
	close(fd);
	close(to);
}

static void ioctls(void)
{
	struct file_clone_range range = {.src_length = 5};
	struct {
		struct file_dedupe_range all;
		struct file_dedupe_range_info info[1];
	} same = {.all = {.src_length = 5, .dest_count = 1}};
	struct {
		struct fiemap map;
		struct fiemap_extent extents[4];
	} map = {.map = {.fm_length = LAST, .fm_extent_count = 4}};
	struct fsxattr attributes;
	char bytes[512] = "";
	int fd = file_make("file"), to = file_make("to"), value = 0;
	long flags = 0;

	range.src_fd = fd;
	SEE(ioctl(fd, 0x12345678, bytes));
	SEE(ioctl(fd, _IOR('f', 99, long), bytes));
	SEE(ioctl(fd, FS_IOC_GETFLAGS, &flags));
	SEE(ioctl(fd, FS_IOC_SETFLAGS, &flags));
	SEE(ioctl(fd, FS_IOC_GETVERSION, &flags) ? -1 : 0);
	SEE(ioctl(fd, FS_IOC_FSGETXATTR, &attributes));
	SEE(ioctl(fd, FS_IOC_FIEMAP, &map));
	SEE(ioctl(to, FICLONE, fd));
	SEE(ioctl(to, FICLONERANGE, &range));
	same.info[0].dest_fd = to;
	SEE(ioctl(fd, FIDEDUPERANGE, &same));
	SEE(ioctl(fd, FIGETBSZ, &value));
	SEE(ioctl(fd, FIONREAD, &value));
	SEE(value);
	SEE(ioctl(fd, FIONBIO, &value));
	SEE(ioctl(fd, FIOCLEX));
	SEE(ioctl(fd, FIBMAP, &value));
	SEE(ioctl(fd, 0x5401, bytes)); /* TCGETS */
	SEE(isatty(fd));
	close(fd);
	fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	SEE(ioctl(fd, 0x12345678, bytes));
	SEE(ioctl(fd, FS_IOC_GETFLAGS, &flags));
	SEE(ioctl(fd, FS_IOC_SETFLAGS, &flags));
	SEE(ioctl(to, FICLONE, fd));
	close(fd);
	close(to);
}

static void names(void)
{
	static const char *const odd[] = {
		" ",	    "\n",	    "\t x",	     "\x1b[31m",
		"a\\b",	    "\"'`$(x)",	    "-rf",	     "*",
		"...",	    ".x",	    "\x7f",	     "\xff\xfe",
		"\xc0\xaf", "\xed\xa0\x80", "\xf0\x9f",	     "\xe2\x80\xae",
		"CON",	    "a:b",	    ".fuse_hidden1", "x.",
	};
	unsigned int found = 0;
	struct dirent *entry;
	struct stat st;
	char name[3] = "";
	DIR *stream;

	for (int byte = 1; byte < 256; byte++) {
		name[0] = (char)byte;
		if (byte == '/' || byte == '.')
			continue;
		if (mknod(name, S_IFREG | 0644, 0) || stat(name, &st))
			see(-1, "byte %d", byte);
		name[0] = 'x';
		name[1] = (char)byte;
		if (mkdir(name, 0755) || stat(name, &st))
			see(-1, "x and byte %d", byte);
		name[1] = '\0';
	}
	stream = opendir(".");
	check(stream);
	while ((entry = readdir(stream)))
		found += (unsigned char)entry->d_name[0] * 7u + (unsigned char)entry->d_name[1];
	see(found, "sum of what is listed");
	rewinddir(stream);
	while ((entry = readdir(stream)))
		if (entry->d_name[0] != '.' && unlinkat(dirfd(stream), entry->d_name, 0) &&
		    unlinkat(dirfd(stream), entry->d_name, AT_REMOVEDIR))
			see(-1, "removing");
	closedir(stream);
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		char target[256];
		ssize_t length;

		see(symlink(odd[i], odd[i]), "link %zu", i);
		length = readlink(odd[i], target, sizeof(target));
		see(length, "link %zu", i);
		check(length == (ssize_t)strlen(odd[i]) &&
		      memcmp(target, odd[i], (size_t)length) == 0);
		see(rename(odd[i], "other"), "link %zu", i);
		see(unlink("other"), "link %zu", i);
	}
	SEE_OPEN(open("file/", O_WRONLY | O_CREAT, 0644));
	SEE(mkdir("folder/", 0755));
	SEE(mkdir("folder/./", 0755));
	SEE(rmdir("folder//"));
	SEE(symlink("x", "link/"));
	SEE(mkdir("", 0755));
	SEE(rename("", "x"));
	SEE(unlink(""));
}

static void attributes(void)
{
	static const char *const spaces[] = {
		"",	    "user",	  "user.",  "nonsense.x", "trusted.x", "security.x",
		"system.x", "user.a b\n", "USER.x", "user.x.y.z", "user.\xff", "system.posix_acl_x",
		"btrfs.x",  "osx.x",
	};
	static const size_t sizes[] = {0, 1, 100, 3000, 4096, 65535, 65536, 65537, SIZE_MAX};
	static char value[70000];
	char long_name[300] = "user.";
	int fd = file_make("file");

	check(mkfifo("fifo", 0644) == 0 && symlink("file", "link") == 0);
	for (size_t i = 0; i < sizeof(spaces) / sizeof(spaces[0]); i++) {
		see(getxattr("file", spaces[i], value, 100), "get '%s'", spaces[i]);
		see(removexattr("file", spaces[i]), "remove '%s'", spaces[i]);
		see(setxattr("file", spaces[i], "value", 5, 0), "set '%s'", spaces[i]);
		see(getxattr("file", spaces[i], value, 100), "get '%s'", spaces[i]);
		see(getxattr("file", spaces[i], NULL, 0), "length '%s'", spaces[i]);
		see(setxattr("fifo", spaces[i], "value", 5, 0), "set '%s' of a fifo", spaces[i]);
		see(lsetxattr("link", spaces[i], "value", 5, 0), "set '%s' of a link", spaces[i]);
		see(lgetxattr("link", spaces[i], value, 100), "get '%s' of a link", spaces[i]);
		see(listxattr("file", NULL, 0), "list");
		see(removexattr("file", spaces[i]), "remove '%s'", spaces[i]);
	}
	for (size_t length = 254; length < 258; length++) {
		memset(long_name + 5, 'n', length - 5);
		long_name[length] = '\0';
		see(setxattr("file", long_name, "x", 1, 0), "set, name of %zu", length);
		see(getxattr("file", long_name, value, 10), "get, name of %zu", length);
		see(listxattr("file", value, sizeof(value)), "list, name of %zu", length);
		see(removexattr("file", long_name), "remove, name of %zu", length);
	}
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		see(setxattr("file", "user.sized", value,
			     sizes[i] > sizeof(value) ? 70000 : sizes[i], 0),
		    "set, %zu bytes", sizes[i]);
		see(getxattr("file", "user.sized", NULL, 0), "length");
		see(fgetxattr(fd, "user.sized", value, sizes[i] > sizeof(value) ? 70000 : sizes[i]),
		    "get, %zu bytes", sizes[i]);
		see(listxattr("file", value, sizes[i] > sizeof(value) ? 70000 : sizes[i]),
		    "list, %zu bytes", sizes[i]);
	}
	for (int flags = 0; flags < 6; flags++) {
		see(setxattr("file", "user.there", "x", 1, flags), "set, flags %d", flags);
		removexattr("file", "user.there");
		see(setxattr("file", "user.there", "x", 1, flags), "set anew, flags %d", flags);
	}
	SEE(setxattr("missing", "user.x", "x", 1, 0));
	SEE(listxattr("missing", value, 10));
	close(fd);
	fd = open("file", O_PATH | O_CLOEXEC);
	SEE(fsetxattr(fd, "user.x", "x", 1, 0));
	close(fd);
	/* One that somebody else asks for */
	SEE(setxattr("file", "security.capability", "x", 1, 0));
	SEE(setxattr("file", "system.posix_acl_access", "x", 1, 0));
	SEE(setxattr("file", "system.posix_acl_access", "\2\0\0\0", 4, 0));
	SEE(setxattr("file", "system.posix_acl_default", "\2\0\0\0", 4, 0));
	SEE(getxattr("file", "system.posix_acl_access", NULL, 0));
}

static int open_with(const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
	struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};

	int fd;

	do /* something was moved or mounted meanwhile, anywhere (openat2(2)) */
		fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
	while (fd < 0 && errno == EAGAIN);
	return fd;
}

static void opens(void)
{
	char bytes[16];
	struct stat st;
	int fd = file_make("file");

	close(fd);
	check(mkdir("folder", 0755) == 0 && symlink("file", "link") == 0);
	check(symlink("nowhere", "dangling") == 0 && symlink("folder", "way") == 0);
	check(symlink("loop", "loop") == 0 && mkfifo("fifo", 0644) == 0);
	fd = open("file", O_PATH | O_CLOEXEC);
	SEE(read(fd, bytes, 1));
	SEE(fchmod(fd, 0600));
	SEE(ftruncate(fd, 0));
	SEE(fsync(fd));
	SEE(fstat(fd, &st));
	SEE(st.st_size);
	SEE(fchdir(fd));
	close(fd);
	fd = open("link", O_PATH | O_NOFOLLOW | O_CLOEXEC);
	SEE(fstat(fd, &st));
	SEE(st.st_mode);
	SEE(readlinkat(fd, "", bytes, sizeof(bytes)));
	close(fd);
	SEE_OPEN(open("file", O_RDONLY | O_DIRECTORY));
	SEE_OPEN(open("folder", O_RDWR));
	SEE_OPEN(open("folder", O_RDWR | O_DIRECTORY));
	SEE_OPEN(open("folder", O_RDONLY | O_CREAT, 0644));
	SEE_OPEN(open("folder", O_RDONLY | O_TRUNC));
	SEE_OPEN(open("new", O_RDONLY | O_CREAT | O_DIRECTORY, 0644));
	SEE_OPEN(open("folder", O_RDONLY | O_CREAT | O_DIRECTORY, 0644));
	SEE_OPEN(open("link", O_RDONLY | O_NOFOLLOW));
	SEE_OPEN(open("link", O_RDONLY | O_CREAT | O_NOFOLLOW, 0644));
	SEE_OPEN(open("link", O_RDONLY | O_CREAT | O_EXCL, 0644));
	SEE_OPEN(open("way", O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
	SEE_OPEN(open("way/", O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
	SEE_OPEN(open("loop", O_RDONLY | O_CREAT, 0644));
	SEE_OPEN(open("dangling", O_RDONLY));
	SEE_OPEN(open("dangling", O_WRONLY | O_CREAT | O_EXCL, 0644));
	SEE_OPEN(open("dangling", O_WRONLY | O_CREAT | O_NOFOLLOW, 0644));
	SEE(access("nowhere", F_OK));
	SEE_OPEN(open("dangling", O_WRONLY | O_CREAT, 0604));
	SEE(stat("nowhere", &st));
	SEE(st.st_mode);
	SEE_OPEN(open("file", O_RDONLY | O_EXCL));
	SEE_OPEN(open("file/", O_RDONLY));
	SEE_OPEN(open("file/x", O_WRONLY | O_CREAT, 0644));
	SEE_OPEN(open("missing/x", O_WRONLY | O_CREAT, 0644));
	SEE_OPEN(open("file", O_RDWR | O_ASYNC | O_NONBLOCK | O_NOCTTY));
	SEE_OPEN(open("file", O_RDWR | O_NOATIME));
	SEE_OPEN(open("file", O_RDWR | O_SYNC));
	SEE_OPEN(open("fifo", O_WRONLY | O_NONBLOCK));
	SEE_OPEN(open("fifo", O_RDONLY | O_NONBLOCK));
	SEE_OPEN(open("fifo", O_RDONLY | O_DIRECTORY));
	SEE_OPEN(open(".", O_RDWR | O_TMPFILE, 0600));
	SEE_OPEN(open(".", O_RDONLY | O_TMPFILE, 0600));
	SEE_OPEN(open("file", O_RDWR | O_TMPFILE, 0600));
	fd = open("file", O_ACCMODE | O_CLOEXEC);
	SEE(fd < 0 ? -1 : 0);
	SEE(read(fd, bytes, 1));
	SEE(write(fd, bytes, 1));
	SEE(ftruncate(fd, 1));
	close(fd);
	fd = open("made", O_RDONLY | O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC, 07777);
	SEE(write(fd, "x", 1));
	SEE(fstat(fd, &st));
	SEE(st.st_mode);
	close(fd);
	SEE_OPEN(open_with("file", (uint64_t)1 << 40, 0, 0));
	SEE_OPEN(open_with("file", O_RDONLY, 0600, 0));
	SEE_OPEN(open_with("file", O_RDONLY, 0, (uint64_t)1 << 40));
	SEE_OPEN(open_with("link", O_RDONLY, 0, RESOLVE_NO_SYMLINKS));
	SEE_OPEN(open_with("folder/../file", O_RDONLY, 0, RESOLVE_BENEATH));
	SEE_OPEN(open_with("../file", O_RDONLY, 0, RESOLVE_BENEATH));
	SEE_OPEN(open_with("folder/../file", O_RDONLY, 0, RESOLVE_IN_ROOT | RESOLVE_NO_XDEV));
	SEE_OPEN(open_with("new", O_WRONLY | O_CREAT, 0600, RESOLVE_BENEATH));
	fd = open("folder", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	SEE(read(fd, bytes, 1));
	SEE(write(fd, bytes, 1));
	SEE(ftruncate(fd, 1));
	SEE(fallocate(fd, 0, 0, 1));
	SEE(lseek(fd, -1, SEEK_SET));
	SEE(fsync(fd));
	SEE(fdatasync(fd));
	SEE(posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED));
	close(fd);
	SEE(truncate("folder", 1));
	SEE(truncate("fifo", 1));
	SEE(truncate("missing", 1));
	SEE(readlink("file", bytes, sizeof(bytes)));
	SEE(readlink("link", bytes, 2));
	SEE(readlink("link", bytes, 0));
	SEE(linkat(AT_FDCWD, "link", AT_FDCWD, "linked", 0));
	SEE(linkat(AT_FDCWD, "link", AT_FDCWD, "linked2", AT_SYMLINK_FOLLOW));
	SEE(linkat(AT_FDCWD, "link", AT_FDCWD, "linked3", 0x4000));
	SEE(linkat(AT_FDCWD, "folder", AT_FDCWD, "linked4", 0));
	SEE(unlinkat(AT_FDCWD, "file", 0x4000));
	SEE(unlinkat(AT_FDCWD, "file", AT_REMOVEDIR));
	SEE(unlinkat(AT_FDCWD, "folder", 0));
	SEE(fchmodat(AT_FDCWD, "link", 0600, AT_SYMLINK_NOFOLLOW));
	SEE(chmod("file", 0177777));
	SEE(stat("file", &st));
	SEE(st.st_mode);
	SEE(faccessat(AT_FDCWD, "file", R_OK, AT_EACCESS));
	SEE(faccessat(AT_FDCWD, "dangling2", F_OK, AT_SYMLINK_NOFOLLOW));
	SEE(access("file", 99));
	SEE(chown("file", (uid_t)-2, (gid_t)-1));
	SEE(lchown("link", (uid_t)-1, (gid_t)-1));
	SEE(stat("file", &st));
	SEE(st.st_mode);
	SEE(st.st_uid);
}

static void special(void)
{
	static const mode_t types[] = {S_IFREG, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK,
				       S_IFDIR, S_IFLNK, 0,	  0130000, S_IFMT};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd, server, client, peer;
	char name[16], bytes[16];
	struct stat st;

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		snprintf(name, sizeof(name), "type-%06o", types[i]);
		see(mknod(name, types[i] | 0640, makedev(1, 3)), "mknod %06o", types[i]);
		if (stat(name, &st) == 0) {
			see(st.st_mode, "mode");
			see((long long)st.st_rdev, "device");
			see_open(open(name, O_RDWR | O_NONBLOCK), name);
			see(truncate(name, 0), "truncate");
			see(rename(name, "type"), "rename");
			see(link("type", name), "link");
			see(unlink("type"), "unlink");
			see(unlink(name), "unlink");
		}
	}
	SEE(mknod("whiteout", S_IFCHR | 0600, makedev(0, 0)));
	SEE(mknod("large", S_IFCHR | 0600, makedev(4095, 1048575)));
	SEE(stat("large", &st) ? -1 : (long long)st.st_rdev);
	SEE(mknod("missing/x", S_IFIFO | 0600, 0));
	SEE(mkfifo("fifo", 0644));
	fd = open("fifo", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	SEE(write(fd, "through", 7));
	SEE(read(fd, bytes, sizeof(bytes)));
	SEE(read(fd, bytes, sizeof(bytes)));
	SEE(lseek(fd, 0, SEEK_SET));
	SEE(fsync(fd));
	SEE(fallocate(fd, 0, 0, 1));
	close(fd);
	for (int type = SOCK_STREAM; type <= SOCK_DGRAM; type++) {
		strcpy(address.sun_path, type == SOCK_STREAM ? "stream" : "datagram");
		server = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		client = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		check(server >= 0 && client >= 0);
		SEE(connect(client, (struct sockaddr *)&address, sizeof(address)));
		SEE(bind(server, (struct sockaddr *)&address, sizeof(address)));
		SEE(bind(client, (struct sockaddr *)&address, sizeof(address)));
		SEE(stat(address.sun_path, &st) ? -1 : (long long)st.st_mode);
		SEE_OPEN(open(address.sun_path, O_RDWR));
		if (type == SOCK_STREAM)
			SEE(listen(server, 5));
		check(rename(address.sun_path, "moved") == 0);
		SEE(connect(client, (struct sockaddr *)&address, sizeof(address)));
		strcpy(address.sun_path, "moved");
		SEE(connect(client, (struct sockaddr *)&address, sizeof(address)));
		SEE(write(client, "hello", 5));
		peer = type == SOCK_STREAM ? accept(server, NULL, NULL) : dup(server);
		check(peer >= 0);
		SEE(read(peer, bytes, sizeof(bytes)));
		close(peer);
		close(server);
		close(client);
		client = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		SEE(connect(client, (struct sockaddr *)&address, sizeof(address)));
		close(client);
		SEE(unlink("moved"));
	}
	close(file_make("file"));
	strcpy(address.sun_path, "file");
	client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	SEE(connect(client, (struct sockaddr *)&address, sizeof(address)));
	close(client);
}

static void renames(void)
{
	struct stat st;

	for (unsigned int flags = 0; flags < 32; flags++) {
		close(file_make("a"));
		close(file_make("b"));
		check(truncate("b", 3) == 0);
		see(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", flags), "a to b, flags %u", flags);
		see(lstat("a", &st) ? -1 : (long long)st.st_size, "size of a");
		see(lstat("a", &st) ? -1 : (long long)st.st_mode, "mode of a");
		see(lstat("b", &st) ? -1 : (long long)st.st_size, "size of b");
		unlink("a");
		unlink("b");
		close(file_make("a"));
		see(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", flags), "a to nothing, flags %u",
		    flags);
		see(lstat("a", &st) ? -1 : (long long)st.st_mode, "mode of a");
		see(lstat("a", &st) ? -1 : (long long)st.st_rdev, "device of a");
		see(lstat("b", &st) ? -1 : (long long)st.st_size, "size of b");
		unlink("a");
		unlink("b");
	}
	SEE(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", 1u << 31));
}

static void statistics(void)
{
	static const unsigned int masks[] = {0, 1, 0x7ff, 0xfff, 0x1fff, 0x40000000, 0x80000000};
	static const int flags[] = {0,		AT_STATX_FORCE_SYNC, AT_STATX_DONT_SYNC, 0x6000,
				    0x40000000, AT_SYMLINK_NOFOLLOW, AT_NO_AUTOMOUNT};
	struct statx stx;

	close(file_make("file"));
	check(chmod("file", 0604) == 0 && symlink("file", "link") == 0);
	for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++) {
		stx = (struct statx){0};
		see(statx(AT_FDCWD, "file", 0, masks[i], &stx), "statx, mask %x", masks[i]);
		see(stx.stx_mask & STATX_BASIC_STATS, "what came of mask %x", masks[i]);
		see(!!(stx.stx_mask & STATX_BTIME), "time of birth, mask %x", masks[i]);
	}
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		stx = (struct statx){0};
		see(statx(AT_FDCWD, "link", flags[i], STATX_BASIC_STATS, &stx), "statx, flags %x",
		    flags[i]);
		see(stx.stx_mode, "mode");
		see((long long)stx.stx_size, "size");
	}
	see(stx.stx_blksize, "block size");
	see(statx(AT_FDCWD, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stx), "statx of the folder");
	see(stx.stx_nlink, "links");
	see(!!(stx.stx_attributes & STATX_ATTR_MOUNT_ROOT), "root of a mount");
}

static void times(void)
{
	static const int64_t seconds[] = {
		0,
		-1,
		INT32_MIN,
		(int64_t)INT32_MIN - 1,
		INT32_MAX,
		UINT32_MAX,
		15032385535,
		15032385536,
		(int64_t)1 << 34,
		(int64_t)1 << 40,
		INT64_MAX,
		INT64_MAX - 1,
		INT64_MIN,
		-62135596800,
	};
	static const long nanoseconds[] = {0, 1, 999999999, 1000000000, -1, 1L << 40};
	struct timespec both[2];
	struct stat st;

	close(file_make("file"));
	for (size_t i = 0; i < sizeof(seconds) / sizeof(seconds[0]); i++) {
		both[0] = (struct timespec){.tv_sec = seconds[i], .tv_nsec = 5};
		both[1] = (struct timespec){.tv_sec = seconds[i], .tv_nsec = 999999999};
		see(utimensat(AT_FDCWD, "file", both, 0), "%lld seconds", (long long)seconds[i]);
		check(stat("file", &st) == 0);
		printf("%s: %lld.%09ld, %lld.%09ld\n", part, (long long)st.st_atim.tv_sec,
		       st.st_atim.tv_nsec, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	}
	for (size_t i = 0; i < sizeof(nanoseconds) / sizeof(nanoseconds[0]); i++) {
		both[0] = both[1] = (struct timespec){.tv_sec = 7, .tv_nsec = nanoseconds[i]};
		see(utimensat(AT_FDCWD, "file", both, 0), "%ld nanoseconds", nanoseconds[i]);
		check(stat("file", &st) == 0);
		see(st.st_mtim.tv_nsec, "nanoseconds");
	}
	SEE(utimensat(AT_FDCWD, "file", both, 0x4000));
	SEE(utimensat(AT_FDCWD, "missing", NULL, 0));
}

static void writes(void)
{
	static const int flags[] = {0,
				    RWF_HIPRI,
				    RWF_DSYNC,
				    RWF_SYNC,
				    RWF_APPEND,
				    RWF_NOAPPEND,
				    RWF_DSYNC | RWF_APPEND,
				    0x40000000};
	char bytes[16];
	char word[] = "abcde";
	struct iovec in = {bytes, 5}, out = {word, 5};
	int fd = file_make("file");

	close(fd);
	fd = open("file", O_RDWR | O_APPEND | O_CLOEXEC);
	SEE(pwrite(fd, "X", 1, 3));
	SEE(lseek(fd, 0, SEEK_CUR));
	SEE(write(fd, "Y", 1));
	SEE(lseek(fd, 0, SEEK_CUR));
	see_file("file");
	SEE(pwritev2(fd, &out, 1, 2, RWF_NOAPPEND));
	SEE(pwritev2(fd, &out, 1, -1, 0));
	see_file("file");
	close(fd);
	fd = file_make("file");
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		see(pwritev2(fd, &out, 1, 4, flags[i]), "pwritev2, flags %x", flags[i]);
		see(preadv2(fd, &in, 1, 4, flags[i]), "preadv2, flags %x", flags[i]);
	}
	see_file("file");
	SEE(lseek(fd, 3, SEEK_SET));
	SEE(preadv2(fd, &in, 1, -1, 0));
	SEE(pwritev2(fd, &out, 1, -1, RWF_DSYNC));
	SEE(pwritev2(fd, &out, 1, -1, RWF_APPEND));
	SEE(lseek(fd, 0, SEEK_CUR));
	SEE(preadv2(fd, &in, 1, -2, 0));
	/* (As they are: compilers and sanitizers know what is wrong with these.) */
	SEE(syscall(SYS_preadv, fd, &in, -1, 0, 0));
	SEE(syscall(SYS_preadv, fd, &in, 0, 0, 0));
	SEE(syscall(SYS_preadv, fd, &in, 1025, 0, 0));
	in.iov_len = SIZE_MAX;
	SEE(syscall(SYS_preadv, fd, &in, 1, 0, 0));
	in.iov_len = 5;
	SEE(syscall(SYS_pwrite64, fd, 8, 10, 0));
	SEE(syscall(SYS_pread64, fd, 8, 10, 0));
	SEE(preadv2(fd, &in, 1, 0, RWF_NOWAIT));
	see_file("file");
	close(fd);
}

static void on_bus(int signal)
{
	_exit(signal);
}

/* The signal that a store at this place ends with, or 0 */
static int store(volatile char *place)
{
	int status;
	pid_t pid = fork();

	check(pid >= 0);
	if (pid == 0) {
		signal(SIGBUS, on_bus);
		signal(SIGSEGV, on_bus);
		*place = 'x';
		_exit(0);
	}
	check(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void mappings(void)
{
	static const int advice[] = {
		MADV_NORMAL, MADV_RANDOM,	 MADV_SEQUENTIAL,     MADV_WILLNEED, MADV_DONTNEED,
		MADV_COLD,   MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_REMOVE,   MADV_FREE,
		999};
	int fd = file_make("file"), other;
	char *map;

	check(ftruncate(fd, 8192) == 0);
#define MAP(length, protection, flags, of, offset)                                                 \
	see(mmap(NULL, length, protection, flags, of, offset) == MAP_FAILED ? -1 : 0, "mmap %s",   \
	    #length ", " #protection ", " #flags ", " #of ", " #offset)
	MAP(0, PROT_READ, MAP_SHARED, fd, 0);
	MAP(4096, PROT_READ, MAP_SHARED, fd, 1);
	MAP(4096, PROT_READ, MAP_SHARED, fd, 1 << 20);
	MAP(4096, PROT_READ, 0, fd, 0);
	MAP(4096, PROT_READ, MAP_SHARED_VALIDATE | 0x40000000, fd, 0);
	MAP(4096, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0);
	MAP(4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	MAP(4096, PROT_NONE, MAP_SHARED, fd, 0);
	other = open("file", O_RDONLY | O_CLOEXEC);
	MAP(4096, PROT_WRITE, MAP_SHARED, other, 0);
	MAP(4096, PROT_WRITE, MAP_PRIVATE, other, 0);
	close(other);
	other = open("file", O_WRONLY | O_CLOEXEC);
	MAP(4096, PROT_READ, MAP_SHARED, other, 0);
	MAP(4096, PROT_WRITE, MAP_SHARED, other, 0);
	close(other);
	other = open("file", O_PATH | O_CLOEXEC);
	MAP(4096, PROT_READ, MAP_SHARED, other, 0);
	close(other);
	other = open(".", O_RDONLY | O_CLOEXEC);
	MAP(4096, PROT_READ, MAP_SHARED, other, 0);
	close(other);
	map = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(map != MAP_FAILED);
	see(store(map + 8191), "store to the last byte");
	see(store(map + 8192), "store beyond it");
	see(store(map), "store to the first");
	for (size_t i = 0; i < sizeof(advice) / sizeof(advice[0]); i++)
		see(madvise(map, 8192, advice[i]), "madvise %d", advice[i]);
	see(madvise(map + 8192, 4096, MADV_POPULATE_READ), "madvise beyond the end");
	see(msync(map, 8192, MS_SYNC | MS_ASYNC), "msync, both");
	see(msync(map, 8192, MS_ASYNC), "msync, later");
	see(msync(map, 8192, MS_SYNC | MS_INVALIDATE), "msync");
	see(msync(map, 0, MS_SYNC), "msync of nothing");
	see(ftruncate(fd, 100), "ftruncate");
	see(store(map + 99), "store to the last byte");
	see(store(map + 4095), "store within its page");
	see(store(map + 4096), "store beyond it");
	see(ftruncate(fd, 8192), "ftruncate");
	see(map[4095], "what was stored beyond the end");
	see(unlink("file"), "unlink");
	close(fd);
	see(store(map + 5000), "store without a name");
	see(map[5000], "what was stored");
	see(munmap(map, 16384), "munmap");
}

/* What is told of to who watches */
static void watching(void)
{
	_Alignas(struct inotify_event) char buffer[4096];
	int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), fd;
	ssize_t length;

	check(watch >= 0);
	SEE(inotify_add_watch(watch, ".", IN_ALL_EVENTS & ~(IN_OPEN | IN_ACCESS)));
	fd = file_make("file");
	close(fd);
	check(rename("file", "renamed") == 0 && chmod("renamed", 0600) == 0);
	check(truncate("renamed", 3) == 0 && link("renamed", "linked") == 0);
	check(unlink("renamed") == 0 && mkdir("folder", 0700) == 0 && rmdir("folder") == 0);
	while ((length = read(watch, buffer, sizeof(buffer))) > 0)
		for (ssize_t at = 0; at < length;) {
			struct inotify_event *event = (struct inotify_event *)(buffer + at);

			see(event->mask, "%s", event->len ? event->name : ".");
			at += (ssize_t)(sizeof(*event) + event->len);
		}
	close(watch);
}

static void programs(void)
{
	int fd = open("program", O_WRONLY | O_CREAT | O_CLOEXEC, 0755), from, status;
	char bytes[65536];
	ssize_t count;
	pid_t pid;
	int ready[2];

	from = open("/bin/sleep", O_RDONLY | O_CLOEXEC);
	check(fd >= 0 && from >= 0 && pipe2(ready, O_CLOEXEC) == 0);
	while ((count = read(from, bytes, sizeof(bytes))) > 0)
		check(write(fd, bytes, (size_t)count) == count);
	close(from);
	close(fd);
	pid = fork();
	check(pid >= 0);
	if (pid == 0) {
		execl("./program", "sleep", "1000", NULL);
		_exit(1);
	}
	close(ready[1]);
	check(read(ready[0], bytes, 1) == 0); /* it runs: what is to be closed then is closed */
	SEE_OPEN(open("program", O_WRONLY));
	SEE(truncate("program", 1));
	SEE_OPEN(open("program", O_RDONLY));
	kill(pid, SIGKILL);
	check(waitpid(pid, &status, 0) == pid);
	SEE(WIFSIGNALED(status));
	SEE_OPEN(open("program", O_WRONLY));
	fd = open("script", O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	SEE(write(fd, "#!/bin/sh\nexit 7\n", 17));
	close(fd);
	SEE(WEXITSTATUS(system("./script")));
	SEE(chmod("script", 0644));
	SEE(WEXITSTATUS(system("./script 2>/dev/null")));
}

/* Deeper than a path may be long; left as it is */
static void deep(void)
{
	enum { DEPTH = 1500 };
	static ino_t numbers[DEPTH];
	char path[PATH_MAX * 2], name[32];
	struct stat st;
	int wrong = 0;

	for (int i = 0; i < DEPTH; i++) {
		snprintf(name, sizeof(name), "level-%024d", i);
		check(stat(".", &st) == 0);
		numbers[i] = st.st_ino;
		check(mkdir(name, 0755) == 0 && chdir(name) == 0);
	}
	close(file_make("file"));
	see_file("file");
	SEE(syscall(SYS_getcwd, path, sizeof(path)) < 0 ? -1 : 0);
	SEE(rename("file", "renamed"));
	SEE(mkdir("folder", 0755));
	SEE(rename("renamed", "folder/file"));
	SEE(access("../../../..", X_OK));
	memset(path, 0, sizeof(path));
	for (int i = 0; i < 1000; i++)
		strcat(path, "./../");
	SEE(access(path, F_OK));
	path[PATH_MAX - 1] = '\0';
	SEE(access(path, F_OK) ? -1 : 0);
	for (int i = DEPTH - 1; i >= 0; i--) {
		check(chdir("..") == 0 && stat(".", &st) == 0);
		wrong += st.st_ino != numbers[i];
	}
	see(wrong, "levels with another number on the way up");
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*work)(void);
	} parts[] = {
		{"offsets", offsets},	{"ioctls", ioctls},
		{"names", names},	{"attributes", attributes},
		{"opens", opens},	{"special", special},
		{"renames", renames},	{"statistics", statistics},
		{"times", times},	{"writes", writes},
		{"mappings", mappings}, {"watching", watching},
		{"programs", programs}, {"deep", deep},
	};
	int top;

	if (argc != 2) {
		fprintf(stderr, "usage: tool_odd FOLDER\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	umask(022);
	top = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	check(top >= 0);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		part = parts[i].name;
		check(mkdirat(top, part, 0755) == 0 && fchdir(top) == 0 && chdir(part) == 0);
		parts[i].work();
		check(fchdir(top) == 0);
	}
	return 0;
}
