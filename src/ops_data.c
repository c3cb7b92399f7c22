/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on data: opening, reading, writing, syncing. */
#include "ops.h"

#include "caller.h"
#include "watch.h"

#include <sys/xattr.h>
#include <unistd.h>

/* The file of a request, with a reference. 0 or negative errno. */
static int use_file(struct fs *fs, fuse_ino_t ino, enum file_access access, struct file **file)
{
	struct node *node = node_get(&fs->nodes, ino);
	int error = node ? file_get(&fs->files, node, access, file) : -ESTALE;

	node_put(&fs->nodes, node);
	return error;
}

static enum file_access access_of(int flags)
{
	return (flags & O_ACCMODE) == O_RDONLY ? FILE_READ : FILE_WRITE;
}

/* atime, as the mount of BACKING has it. Not of a handle with O_NOATIME. Whether it may have moved.
 */
static bool accessed(struct file *file, const struct fuse_file_info *fi)
{
	return !(fi->flags & O_NOATIME) && mmapio_file_accessed(file->mapped);
}

/*
 * Whether a read or a write goes past the kernel's cache: then alone it names the owner of locks
 * (fuse_direct_io(), fuse_send_write_pages()). Its flags are not those with which it began:
 * fcntl(2) may have set O_DIRECT meanwhile. To hold back the answer to a cached write, whose pages
 * are locked until it comes, would be to wait for ever.
 */
static bool is_direct(const struct fuse_file_info *fi)
{
	return fi->lock_owner != 0;
}

/* A handle whose writes reach us without what the kernel does before a cached one. */
#define HANDLE_DIRECT 1

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct file *file;
	int error;

	if (fs->stateless) {
		reply_error(req, -ENOSYS); /* and is never asked again */
		return;
	}
	error = use_file(fs, ino, access_of(fi->flags), &file);
	if (error) {
		reply_error(req, error);
		return;
	}
	/* Spares the kernel's cache, and the question for capabilities before each write. A file
	 * that is opened like this cannot be mapped anyway. */
	fi->direct_io = (fi->flags & O_DIRECT) && (fi->flags & O_ACCMODE) == O_WRONLY;
	fi->fh = fi->direct_io ? HANDLE_DIRECT : 0;
	fi->keep_cache = fs->keeps_cache;
	error = file_check(&fs->files, file, NULL);
	if (error) {
		reply_error(req, error);
	} else {
		/* What the kernel has of it is read without a word to us. */
		if (file->node->has_pages && access_of(fi->flags) == FILE_READ &&
		    accessed(file, fi))
			fuse_lowlevel_notify_inval_inode(fs->session, ino, -1, 0);
		file_hold(&fs->files, file);
		reply_open(req, file->node, fi);
	}
	file_put(&fs->files, file);
}

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node *node = node_get(&fs->nodes, ino);

	(void)fi;
	if (node)
		file_release(&fs->files, node);
	node_put(&fs->nodes, node);
	reply_error(req, 0);
}

/* Close never syncs, and has nothing else to do: the kernel need not ask again. */
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	reply_error(req, -ENOSYS);
}

/* A file that cannot be mapped, or not now. */
static void reply_unmapped(fuse_req_t req, struct file *file, size_t size, off_t offset)
{
	struct fuse_bufvec buffer = FUSE_BUFVEC_INIT(size);

	buffer.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	buffer.buf[0].fd = mmapio_file_descriptor(file->mapped);
	buffer.buf[0].pos = offset;
	fuse_reply_data(req, &buffer, FUSE_BUF_NO_SPLICE);
}

mode_t privileges_to_drop(fuse_req_t req, mode_t mode, gid_t group)
{
	mode_t drop = mode & S_ISUID;

	if (fuse_req_ctx(req)->uid == 0)
		return 0;
	if ((mode & S_ISGID) && ((mode & S_IXGRP) || !caller_is_in_group(req, group)))
		drop |= S_ISGID;
	return drop;
}

/* Drops them. 0; 1: there were some; or negative errno. */
static int drop_privileges(fuse_req_t req, struct mmapio_file *mapped)
{
	int descriptor = mmapio_file_descriptor(mapped);
	struct stat st;
	mode_t drop;
	int dropped;

	if (fstat(descriptor, &st))
		return -errno;
	drop = privileges_to_drop(req, st.st_mode, st.st_gid);
	if (drop && fchmod(descriptor, st.st_mode & ~S_IFMT & ~drop))
		return -errno;
	dropped = drop != 0;
	if (fgetxattr(descriptor, "security.capability", NULL, 0) > 0) {
		if (fremovexattr(descriptor, "security.capability"))
			return -errno;
		dropped = 1;
	}
	return dropped;
}

void mode_changed(struct fs *fs, fuse_ino_t ino, int dropped)
{
	if (dropped > 0)
		fuse_lowlevel_notify_inval_inode(fs->session, ino, -1, 0);
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct mmapio_slice slice;
	struct file *file;
	bool shorter, stale;
	int error = use_file(fs, ino, FILE_READ, &file);

	if (error) {
		reply_error(req, error);
		return;
	}
	error = file_check_reading(&fs->files, file);
	shorter = error > 0;
	if (shorter)
		error = 0;
	if (!is_direct(fi))
		file->node->has_pages = true;
	stale = watch_is_stale(file->node);
	/* The pages that are read are kept back from the watch until we answer. That there is a new
	 * size is to be known before: who reads on will ask for it. */
	if (stale && !watch_is_shorter(file->node))
		fuse_lowlevel_notify_inval_inode(fs->session, ino, -1, 0);
	if (!error)
		error = mmapio_slice_get_some(file->mapped, (uint64_t)offset, size, &slice);
	if (!error && slice.length < size && watch_is_shorter(file->node) && !is_direct(fi) &&
	    (stale || (uint64_t)offset > mmapio_file_size(file->mapped))) {
		/* What the kernel has of an answer that is too short it shows as zeros, up to the
		 * end that it knows. Only one that comes to the end, alone, tells it of that. */
		mmapio_slice_put(&slice);
		reply_error(req, -EIO);
	} else if (!error) {
		(void)accessed(file, fi);
		/* From the mapping to the reader in one copy. If it fails, because the file has
		 * been truncated at this moment or a page cannot be read, the reader gets EIO. */
		fuse_reply_buf(req, slice.data, slice.length);
		if (slice.length < size)
			watch_told_end(file->node);
		mmapio_slice_put(&slice);
	} else if (error == -ENODEV || error == -ENOMEM) {
		reply_unmapped(req, file, size, offset);
	} else {
		reply_error(req, error);
	}
	if (shorter)
		watch_changed(fs->watch, file->node, true);
	file_put(&fs->files, file);
}

void op_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
	      struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	bool direct = is_direct(fi);
	struct file *file;
	ssize_t count;
	int dropped, error = use_file(fs, ino, FILE_WRITE, &file);

	if (error) {
		reply_error(req, error);
		return;
	}
	dropped = fi->fh == HANDLE_DIRECT ? drop_privileges(req, file->mapped) : 0;
	count = dropped < 0 ? dropped : 0;
	if (count == 0)
		count = file_check(&fs->files, file, NULL);
	if (count == 0)
		count = mmapio_write(file->mapped, (uint64_t)offset, bytes, size);
	/* The kernel does not drop what it has cached of the range where the write is asynchronous
	 * (fuse_aio_complete()), nor always else before Linux 6.19. */
	if (!direct)
		file->node->has_pages = true;
	else if (file->node->has_pages && count > 0)
		watch_changed(fs->watch, file->node, false);
	if (count < 0)
		reply_error(req, (int)count);
	else if (direct)
		reply_written(req, file->node, (size_t)count);
	else
		fuse_reply_write(req, (size_t)count);
	file_put(&fs->files, file);
	mode_changed(fs, ino, dropped);
}

void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct file *file;
	int error = use_file(fs, ino, FILE_SYNC, &file);

	(void)fi;
	if (!error) {
		error = mmapio_sync(file->mapped, !datasync);
		file_put(&fs->files, file);
	}
	reply_error(req, error);
}

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
		  struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct file *file;
	int dropped = 0, error = use_file(fs, ino, FILE_WRITE, &file);

	(void)fi;
	if (!error) {
		/* The kernel has been here, but leaves set-gid of foreign groups. */
		dropped = drop_privileges(req, file->mapped);
		error = dropped < 0 ? dropped : file_check(&fs->files, file, NULL);
		if (!error)
			error = mmapio_file_allocate(file->mapped, mode, (uint64_t)offset,
						     (uint64_t)length);
		file_put(&fs->files, file);
	}
	reply_error(req, error);
	mode_changed(fs, ino, dropped);
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct file *file;
	off_t found = -1;
	int error = use_file(fs, ino, FILE_SYNC, &file);

	(void)fi;
	if (!error) {
		found = lseek(mmapio_file_descriptor(file->mapped), offset, whence);
		if (found < 0)
			error = -errno;
		file_put(&fs->files, file);
	}
	if (error)
		reply_error(req, error);
	else
		fuse_reply_lseek(req, found);
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in,
			struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t offset_out,
			struct fuse_file_info *fi_out, size_t length, int flags)
{
	struct fs *fs = fs_of(req);
	struct file *in, *out;
	ssize_t count = 0;
	int error = flags ? -EINVAL : use_file(fs, ino_in, FILE_READ, &in);

	(void)fi_in;
	(void)fi_out;
	if (!error) {
		error = use_file(fs, ino_out, FILE_WRITE, &out);
		if (!error) {
			count = file_check(&fs->files, out, NULL);
			if (count == 0)
				count = mmapio_copy(in->mapped, (uint64_t)offset_in, out->mapped,
						    (uint64_t)offset_out, length);
			file_put(&fs->files, out);
		}
		file_put(&fs->files, in);
	}
	if (error || count < 0)
		reply_error(req, error ? error : (int)count);
	else
		fuse_reply_write(req, (size_t)count);
}
