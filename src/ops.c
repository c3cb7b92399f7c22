/* SPDX-License-Identifier: Apache-2.0 */
/* The table of operations, and what is agreed with the kernel at the start. */
#include "view_ops.h"

#include "log.h"
#include "watch.h"

#include <stdatomic.h>
#include <stdlib.h>

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

/*
 * So many answers to writes may wait for the watch at once. Asynchronous ones are background
 * requests, of which the kernel has 12 on their way (fuse_conn->max_background): were they all to
 * wait, the reads that keep the watch waiting would never come.
 */
#define WRITES_WAITING_MAX 4

enum reply_kind {
	REPLY_ATTRIBUTES,
	REPLY_ENTRY,
	REPLY_OPEN,
	REPLY_WRITTEN,
};

struct reply {
	struct answer answer;
	enum reply_kind kind;
	fuse_req_t req;
	struct fs *fs;
	uint64_t ino;
	union {
		struct stat attributes;
		struct fuse_entry_param entry;
		struct fuse_file_info open;
		size_t count;
	};
};

/* Nobody got it. */
static void reply_undo(const struct reply *reply)
{
	struct node *node;

	if (reply->kind == REPLY_ENTRY)
		forget_node(reply->fs, reply->ino, 1);
	if (reply->kind == REPLY_OPEN) {
		node = node_get(&reply->fs->nodes, reply->ino);
		if (node)
			file_release(&reply->fs->files, node);
		node_put(&reply->fs->nodes, node);
	}
}

static void reply_send(const struct reply *reply)
{
	int error;

	switch (reply->kind) {
	case REPLY_ATTRIBUTES:
		error = fuse_reply_attr(reply->req, &reply->attributes,
					reply->fs->options->attr_timeout);
		break;
	case REPLY_ENTRY:
		error = fuse_reply_entry(reply->req, &reply->entry);
		break;
	case REPLY_OPEN:
		error = fuse_reply_open(reply->req, &reply->open);
		break;
	default:
		reply->fs->writes_waiting--;
		error = fuse_reply_write(reply->req, reply->count);
	}
	if (error)
		reply_undo(reply);
}

static void reply_send_later(struct answer *answer)
{
	struct reply *reply = (struct reply *)answer; /* its first member */

	reply_send(reply);
	free(reply);
}

static void reply(const struct reply *now, struct node *node)
{
	struct reply *later;

	if (!watch_is_stale(node)) {
		reply_send(now);
		return;
	}
	later = malloc(sizeof(*later));
	if (!later) {
		if (now->kind == REPLY_WRITTEN)
			now->fs->writes_waiting--;
		reply_error(now->req, -ENOMEM);
		reply_undo(now);
		return;
	}
	*later = *now;
	later->answer.send = reply_send_later;
	watch_answer(now->fs->files.watch, node, &later->answer);
}

void reply_attributes(fuse_req_t req, struct node *node, const struct stat *st)
{
	reply(&(struct reply){.kind = REPLY_ATTRIBUTES,
			      .req = req,
			      .fs = fs_of(req),
			      .ino = node->id,
			      .attributes = *st},
	      node);
}

void reply_entry(fuse_req_t req, struct node *node, const struct fuse_entry_param *entry)
{
	reply(&(struct reply){.kind = REPLY_ENTRY,
			      .req = req,
			      .fs = fs_of(req),
			      .ino = node->id,
			      .entry = *entry},
	      node);
}

void reply_open(fuse_req_t req, struct node *node, const struct fuse_file_info *fi)
{
	reply(&(struct reply){.kind = REPLY_OPEN,
			      .req = req,
			      .fs = fs_of(req),
			      .ino = node->id,
			      .open = *fi},
	      node);
}

void reply_written(fuse_req_t req, struct node *node, size_t count)
{
	struct fs *fs = fs_of(req);

	if (atomic_fetch_add(&fs->writes_waiting, 1) >= WRITES_WAITING_MAX) {
		fs->writes_waiting--;
		fuse_reply_write(req, count);
		return;
	}
	reply(&(struct reply){.kind = REPLY_WRITTEN,
			      .req = req,
			      .fs = fs,
			      .ino = node->id,
			      .count = count},
	      node);
}

void op_init(void *userdata, struct fuse_conn_info *connection)
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
	if (!fs->options->cow)
		connection->want |= connection->capable & FUSE_CAP_EXPORT_SUPPORT;
	/* The kernel is told when others have changed a file: it need not drop a file's pages
	 * because its mtime has moved, which our own writes do. */
	fs->keeps_cache = connection->capable & FUSE_CAP_EXPLICIT_INVAL_DATA;
	if (fs->keeps_cache) {
		connection->want &= ~(unsigned int)FUSE_CAP_AUTO_INVAL_DATA;
		connection->want |= FUSE_CAP_EXPLICIT_INVAL_DATA;
	}
	/* ACLs are enforced, and default ACLs take the place of the umask. */
	connection->want |= connection->capable & (FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK);

	/* The kernel says nothing of what is open then: all must be found again, wherever it is. */
	fs->stateless = fs->options->io == IO_STATELESS ||
			(fs->options->io == IO_AUTO &&
			 (fs->options->cow || fs->nodes.root->device->handles_open));
	if (fs->stateless && (connection->capable & stateless) != stateless) {
		if (fs->options->io == IO_STATELESS)
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

const struct fuse_lowlevel_ops view_operations = {
	.init = op_init,
	.lookup = view_op_lookup,
	.forget = view_op_forget,
	.forget_multi = view_op_forget_multi,
	.getattr = view_op_getattr,
	.setattr = view_op_setattr,
	.readlink = view_op_readlink,
	.mknod = view_op_mknod,
	.mkdir = view_op_mkdir,
	.unlink = view_op_unlink,
	.rmdir = view_op_rmdir,
	.symlink = view_op_symlink,
	.rename = view_op_rename,
	.link = view_op_link,
	.create = view_op_create,
	.open = view_op_open,
	.read = view_op_read,
	.write = view_op_write,
	.flush = op_flush,
	.fsync = view_op_fsync,
	.opendir = view_op_opendir,
	.readdir = view_op_readdir,
	.readdirplus = view_op_readdirplus,
	.releasedir = view_op_releasedir,
	.fsyncdir = view_op_fsyncdir,
	.statfs = view_op_statfs,
	.setxattr = view_op_setxattr,
	.getxattr = view_op_getxattr,
	.listxattr = view_op_listxattr,
	.removexattr = view_op_removexattr,
	.fallocate = view_op_fallocate,
	.lseek = view_op_lseek,
	.copy_file_range = view_op_copy_file_range,
};
