/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations of a mount that is a view (-o cow): a request in, a reply out, as ops.h, which has
 * what they share, and what they leave nodes without own state to.
 */
#ifndef VIEW_OPS_H
#define VIEW_OPS_H

#include "ops.h"
#include "view.h"

static inline struct view *view_of(fuse_req_t req)
{
	return fs_of(req)->view;
}

static inline struct timespec view_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now;
}

/* view_data.c */
/*
 * Of a state that a node of the live tree had: whether it says what a block was; blocks become what
 * bytes say, which are whole blocks (NULL: nobody knows what); nothing is there from size on but
 * what it has. 0 or negative errno.
 */
bool own_has_block(const struct own *own, uint64_t block);
int own_keep_locked(struct view *view, struct own *own, uint64_t block, const char *bytes,
		    uint64_t count);
int own_cut_locked(struct view *view, struct own *own, uint64_t size);
ssize_t view_write_bytes(struct view *view, struct node *node, uint64_t offset, const void *bytes,
			 size_t length);
int view_set_size(struct view *view, struct node *node, uint64_t size);
void view_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void view_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		  struct fuse_file_info *fi);
void view_op_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
		   struct fuse_file_info *fi);
void view_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void view_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
		       struct fuse_file_info *fi);
void view_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
		   struct fuse_file_info *fi);
void view_op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in,
			     struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t offset_out,
			     struct fuse_file_info *fi_out, size_t length, int flags);

/* view_names.c */
void view_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void view_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count);
void view_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void view_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		    struct fuse_file_info *fi);
void view_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void view_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device);
void view_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void view_op_readlink(fuse_req_t req, fuse_ino_t ino);
void view_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void view_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void view_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void view_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
		    const char *new_name, unsigned int flags);

/* What a listing or a lookup shows of a node, which the kernel knows once more. */
int view_entry_locked(struct view *view, struct node *node, struct fuse_entry_param *entry);
void view_forget(struct view *view, fuse_ino_t ino, uint64_t count);

/* view_attributes.c */
void view_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void view_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attributes, int to_set,
		     struct fuse_file_info *fi);
void view_op_statfs(fuse_req_t req, fuse_ino_t ino);
void view_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
		      size_t size, int flags);
void view_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void view_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void view_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* A copy of an attribute, to be freed; its length, or negative errno: -ENODATA. */
ssize_t view_xattr_locked(struct view *view, struct node *node, const char *name, void **value);

/* As drop_privileges() of ops_data.c. 0; 1: there were some; or negative errno. */
int view_drop_privileges(fuse_req_t req, struct node *node);

/* view_folders.c */
struct view_folders;
int view_folder_is_empty_locked(struct view *view, struct node *folder); /* 1, 0, negative errno */
void view_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void view_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		     struct fuse_file_info *fi);
void view_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
			 struct fuse_file_info *fi);
void view_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void view_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);

#endif
