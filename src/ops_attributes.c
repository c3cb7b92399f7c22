/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on attributes, extended attributes and the file system as a whole. */
#include "ops.h"

#include "caller.h"

#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

/* What the kernel is to see of it. 0 or negative errno. */
static int attributes_of(struct fs *fs, struct node *node, struct stat *st)
{
	int error = file_stat(&fs->files, node, st);

	if (!error)
		show_attributes(node, st);
	return error;
}

void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node *node = node_get(&fs->nodes, ino);
	struct stat st;
	int error = node ? attributes_of(fs, node, &st) : -ESTALE;

	(void)fi;
	if (error)
		reply_error(req, error);
	else
		reply_attributes(req, node, &st);
	node_put(&fs->nodes, node);
}

static int set_size(struct fs *fs, struct node *node, off_t size)
{
	struct file *file;
	int error = file_get(&fs->files, node, FILE_WRITE, &file);

	if (error)
		return error;
	error = file_check(&fs->files, file, NULL);
	/* Replies that are being copied out of the end are waited for; none waits for us. */
	if (!error)
		error = mmapio_file_resize(file->mapped, (uint64_t)size, MMAPIO_FOREVER);
	file_put(&fs->files, file);
	return error;
}

static int set_times(struct fs *fs, const struct held *held, const struct stat *attributes,
		     int to_set)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};

	if (to_set & FUSE_SET_ATTR_ATIME_NOW)
		times[0].tv_nsec = UTIME_NOW;
	else if (to_set & FUSE_SET_ATTR_ATIME)
		times[0] = attributes->st_atim;
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		times[1].tv_nsec = UTIME_NOW;
	else if (to_set & FUSE_SET_ATTR_MTIME)
		times[1] = attributes->st_mtim;

	return file_set_times(&fs->files, held->node, held->descriptor, times);
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attributes, int to_set,
		struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct held held;
	struct stat st;
	int error = hold(fs, ino, &held);

	(void)fi;
	if (error) {
		reply_error(req, error);
		return;
	}
	if (!error && (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))) {
		uid_t uid = to_set & FUSE_SET_ATTR_UID ? attributes->st_uid : (uid_t)-1;
		gid_t gid = to_set & FUSE_SET_ATTR_GID ? attributes->st_gid : (gid_t)-1;

		if (fchownat(held.descriptor, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
			error = -errno;
	}
	if (!error && (to_set & FUSE_SET_ATTR_SIZE))
		error = set_size(fs, held.node, attributes->st_size);
	if (!error && (to_set & FUSE_SET_ATTR_MODE) && fs->stateless &&
	    !file_reopens(fs, attributes->st_mode))
		file_cling(&fs->files, held.node);
	/* After the owner, which takes set-uid away; after the size, which moves the times. */
	if (!error && (to_set & FUSE_SET_ATTR_MODE) &&
	    fchmodat(AT_FDCWD, backing_path(held.descriptor).text, attributes->st_mode & ~S_IFMT,
		     0))
		error = -errno;
	if (!error && (to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW |
				 FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)))
		error = set_times(fs, &held, attributes, to_set);
	if (!error)
		error = attributes_of(fs, held.node, &st);
	/* Not handed over: the kernel may be keeping dirty pages back until it is answered
	 * (fuse_set_nowrite()), and drops all pages itself if the size is another. */
	if (error)
		reply_error(req, error);
	else
		fuse_reply_attr(req, &st, fs->options->attr_timeout);
	unhold(fs, &held);
}

/* The kernel checks permissions itself (default_permissions), and asks this of other kernels only.
 */
void op_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	struct fs *fs = fs_of(req);
	struct caller caller;
	struct held held;
	int error = hold(fs, ino, &held);

	if (!error) {
		error = caller_enter(fs, req, &caller);
		if (!error) {
			if (faccessat(AT_FDCWD, backing_path(held.descriptor).text, mask,
				      AT_EACCESS))
				error = -errno;
			caller_leave(&caller);
		}
		unhold(fs, &held);
	}
	reply_error(req, error);
}

void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct fs *fs = fs_of(req);
	struct statvfs st;
	struct held held;
	int error = hold(fs, ino, &held);

	if (!error) {
		if (fstatvfs(held.descriptor, &st))
			error = -errno;
		unhold(fs, &held);
	}
	if (error)
		reply_error(req, error);
	else
		fuse_reply_statfs(req, &st);
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		 int flags)
{
	/* An ACL may take set-gid away, which depends on whose it is (posix_acl_update_mode()). */
	bool as_caller = strcmp(name, "system.posix_acl_access") == 0;
	struct fs *fs = fs_of(req);
	struct caller caller;
	struct held held;
	int error = hold(fs, ino, &held);

	if (error) {
		reply_error(req, error);
		return;
	}
	error = as_caller ? caller_enter(fs, req, &caller) : 0;
	if (!error) {
		if (setxattr(backing_path(held.descriptor).text, name, value, size, flags))
			error = -errno;
		if (as_caller)
			caller_leave(&caller);
	}
	unhold(fs, &held);
	reply_error(req, error);
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct fs *fs = fs_of(req);
	struct held held;
	int error = hold(fs, ino, &held);

	if (!error) {
		if (removexattr(backing_path(held.descriptor).text, name))
			error = -errno;
		unhold(fs, &held);
	}
	reply_error(req, error);
}

/* size 0: how long it is. */
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct fs *fs = fs_of(req);
	char *value = size ? malloc(size) : NULL;
	struct held held;
	ssize_t length = -1;
	int error = size && !value ? -ENOMEM : hold(fs, ino, &held);

	if (!error) {
		length = getxattr(backing_path(held.descriptor).text, name, value, size);
		if (length < 0)
			error = -errno;
		unhold(fs, &held);
	}
	if (error)
		reply_error(req, error);
	else if (size)
		fuse_reply_buf(req, value, (size_t)length);
	else
		fuse_reply_xattr(req, (size_t)length);
	free(value);
}

/* Takes out what the kernel lists to the privileged alone (xattr(7)). */
static size_t drop_trusted(char *names, size_t length)
{
	size_t kept = 0;

	for (size_t at = 0, next; at < length; at = next) {
		next = at + strlen(names + at) + 1;
		if (strncmp(names + at, "trusted.", 8) != 0) {
			memmove(names + kept, names + at, next - at);
			kept += next - at;
		}
	}
	return kept;
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct fs *fs = fs_of(req);
	char *names = malloc(XATTR_LIST_MAX);
	struct held held;
	ssize_t length = -1;
	int error = names ? hold(fs, ino, &held) : -ENOMEM;

	if (!error) {
		length = listxattr(backing_path(held.descriptor).text, names, XATTR_LIST_MAX);
		if (length < 0)
			error = -errno;
		else if (fuse_req_ctx(req)->uid != 0)
			length = (ssize_t)drop_trusted(names, (size_t)length);
		unhold(fs, &held);
	}
	if (!error && size && (size_t)length > size)
		error = -ERANGE;
	if (error)
		reply_error(req, error);
	else if (size)
		fuse_reply_buf(req, names, (size_t)length);
	else
		fuse_reply_xattr(req, (size_t)length);
	free(names);
}
