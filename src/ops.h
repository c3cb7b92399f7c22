/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations: a request in, a reply out. What they share; each ops_*.c has those of one kind.
 * They know requests, and everything below only through its header.
 */
#ifndef OPS_H
#define OPS_H

#include "fs.h"

#include <errno.h>

static inline struct fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* error: 0 or negative errno. */
static inline void reply_error(fuse_req_t req, int error)
{
	fuse_reply_err(req, -error);
}

/* A node and a pinned O_PATH descriptor of it. */
struct held {
	struct node *node;
	int descriptor;
};

/* 0 or negative errno; then nothing is held. */
int hold(struct fs *fs, fuse_ino_t ino, struct held *held);
void unhold(struct fs *fs, struct held *held);

/* What the kernel is to see of a node's attributes. */
static inline void show_attributes(const struct node *node, struct stat *st)
{
	st->st_ino = backing_number(node->device, st->st_ino);
	node_hide_link(node, st);
}

/*
 * Answers that tell of attributes, of a file above all: sent now, or when the kernel has dropped
 * what it has of a file that others have changed (watch.h). If nobody got it, a lookup that an
 * entry has counted is taken back, and so is the hold of a file that was opened. (And that of a
 * write, which may have gone past pages that the kernel has.)
 */
void reply_attributes(fuse_req_t req, struct node *node, const struct stat *st);
void reply_entry(fuse_req_t req, struct node *node, const struct fuse_entry_param *entry);
void reply_open(fuse_req_t req, struct node *node, const struct fuse_file_info *fi);
void reply_written(fuse_req_t req, struct node *node, size_t count);

/* Whether we could open a file of this mode again. */
static inline bool file_reopens(const struct fs *fs, mode_t mode)
{
	return fs->switch_identity || (mode & (S_IRUSR | S_IWUSR)) == (S_IRUSR | S_IWUSR);
}

/* ops.c */
void op_init(void *userdata, struct fuse_conn_info *connection);

/* ops_names.c */
/* Looks a name up and counts it as known to the kernel; *node is referenced. 0 or negative errno.
 */
int lookup_name(struct fs *fs, const struct held *parent, const char *name,
		struct fuse_entry_param *entry, struct node **node);
void forget_node(struct fs *fs, fuse_ino_t ino, uint64_t count);
void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count);
void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *fi);
void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device);
void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void op_readlink(fuse_req_t req, fuse_ino_t ino);
void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
	       const char *new_name, unsigned int flags);

/* ops_attributes.c */
void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attributes, int to_set,
		struct fuse_file_info *fi);
void op_access(fuse_req_t req, fuse_ino_t ino, int mask);
void op_statfs(fuse_req_t req, fuse_ino_t ino);
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		 int flags);
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* ops_folders.c */
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi);
void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);

/* ops_data.c */
/*
 * What the kernel does before a cached write, and leaves to us before others: an unprivileged one
 * takes set-uid away, set-gid where that means execution or the group is a foreign one, and any
 * write the capabilities of the file. (With FUSE_HANDLE_KILLPRIV_V2 a request would say that it is
 * our turn, but libfuse hides that.) The bits of the mode that go.
 */
mode_t privileges_to_drop(fuse_req_t req, mode_t mode, gid_t group);
/* After the reply, if some were dropped (1): the kernel still has the old mode. Of attributes
 * alone, which waits for nobody. */
void mode_changed(struct fs *fs, fuse_ino_t ino, int dropped);
void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void op_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
	      struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
		  struct fuse_file_info *fi);
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in,
			struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t offset_out,
			struct fuse_file_info *fi_out, size_t length, int flags);

#endif
