/* SPDX-License-Identifier: Apache-2.0 */
/* The table of operations, and what is agreed with the kernel at the start. */
#include "ops.h"

#include "log.h"

int hold(struct fs *fs, fuse_ino_t ino, struct held *held)
{
	held->node = node_get(&fs->nodes, ino);
	if (!held->node)
		return -ESTALE;
	do
		held->descriptor = node_descriptor(&fs->nodes, held->node);
	while (held->descriptor == -ENFILE && files_make_room(&fs->files));
	if (held->descriptor == -ESTALE) {
		/* What has no name any more is still there if its file is open. */
		held->descriptor = file_path_descriptor(&fs->files, held->node);
		if (held->descriptor >= 0)
			held->descriptor = node_descriptor_give_pinned(&fs->nodes, held->node,
								       held->descriptor);
	}
	if (held->descriptor < 0) {
		node_put(&fs->nodes, held->node);
		return held->descriptor;
	}
	return 0;
}

void unhold(struct fs *fs, struct held *held)
{
	node_descriptor_put(&fs->nodes, held->node);
	node_put(&fs->nodes, held->node);
}

static void op_init(void *userdata, struct fuse_conn_info *connection)
{
	struct fs *fs = userdata;
	unsigned int stateless = FUSE_CAP_NO_OPEN_SUPPORT | FUSE_CAP_NO_OPENDIR_SUPPORT;

	/* O_TRUNC arrives as a change of size: the same road in all modes. */
	connection->want &= ~(unsigned int)FUSE_CAP_ATOMIC_O_TRUNC;
	/* The kernel takes set-uid, set-gid and capabilities away with requests of its own, since
	 * we, as root, would not. */
	connection->want &= ~(unsigned int)FUSE_CAP_HANDLE_KILLPRIV;
	/* It would acknowledge writes that we have not seen. */
	connection->want &= ~(unsigned int)FUSE_CAP_WRITEBACK_CACHE;
	/* Handles of what the kernel has forgotten are asked for by "." (ops_names.c). */
	connection->want |= connection->capable & FUSE_CAP_EXPORT_SUPPORT;
	/* ACLs are enforced, and default ACLs take the place of the umask. */
	connection->want |= connection->capable & (FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK);

	fs->stateless = fs->options->io == IO_STATELESS;
	if (fs->stateless && (connection->capable & stateless) != stateless) {
		log_line(LOG_WARNING, "this kernel has no io=stateless; using io=handles");
		fs->stateless = false;
	}
	fs->serving(fs);
}

const struct fuse_lowlevel_ops fs_operations = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.symlink = op_symlink,
	.rename = op_rename,
	.link = op_link,
	.create = op_create,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	.flush = op_flush,
	.release = op_release,
	.fsync = op_fsync,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.releasedir = op_releasedir,
	.fsyncdir = op_fsyncdir,
	.statfs = op_statfs,
	.setxattr = op_setxattr,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.removexattr = op_removexattr,
	.access = op_access,
	.fallocate = op_fallocate,
	.lseek = op_lseek,
	.copy_file_range = op_copy_file_range,
};
