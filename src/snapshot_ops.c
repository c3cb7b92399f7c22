/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations of a mount with point-in-time views. A request is for the live tree, for a view,
 * or for the folder that the views are in (snapshot_folder.c): its node's number tells.
 *
 * Those that change the live tree come through here, all of them: what is about to be changed is
 * kept for the views (past.c), then the operation of the live tree (ops.h) has its turn. What
 * changes nothing has no need to.
 */
#include "snapshot_ops.h"

#include "acl.h"
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_live(fuse_ino_t ino)
{
	return !(ino & NODE_OF_VIEW);
}

/* --- Requests in views ------------------------------------------------------------------------ */

/* The view of a number, in use until snapshot_leave(). 0, or negative errno: replied. */
static int enter(fuse_req_t req, fuse_ino_t ino, bool changes, struct snapshot **snapshot)
{
	struct view *view = view_of(req);
	struct node *node;
	int error = ino == SNAPSHOT_FOLDER ? -EPERM : 0;

	if (!error) {
		node = node_get(&view->fs->nodes, ino);
		*snapshot = node ? snapshot_of(node) : NULL;
		error = *snapshot ? snapshot_enter(*snapshot) : -ESTALE;
		node_put(&view->fs->nodes, node);
		if (!error && changes && (*snapshot)->read_only) {
			snapshot_leave(*snapshot);
			error = -EROFS;
		}
	}
	if (error)
		reply_error(req, error);
	return error;
}

/* Calls an operation of a view. */
#define IN_VIEW(REQ, INO, CHANGES, CALL)                                                           \
	do {                                                                                       \
		struct snapshot *entered;                                                          \
                                                                                                   \
		if (enter(REQ, INO, CHANGES, &entered) == 0) {                                     \
			CALL;                                                                      \
			snapshot_leave(entered);                                                   \
		}                                                                                  \
	} while (0)

/* --- Changes of the live tree ----------------------------------------------------------------- */

/* What a request is about to change. */
enum { FOLDER, CHILD, NEW_FOLDER, NEW_CHILD }; /* of one node: FOLDER; what is made: NEW_CHILD */

struct changing {
	struct node *node[CHANGE_NODES]; /* referenced, or NULL */
	const char *name, *new_name; /* of the children, which are looked for if these are set */
	uint64_t offset, end;
	int to_set; /* of setattr and rename */
	const char *xattr;
	enum anchored anchored;
};

typedef int (*keeper)(struct change *change, struct changing *changing);

/* What a name of a folder of the live tree is, referenced, or NULL. 0 or negative errno. */
static int child_find(struct view *view, struct node *folder, const char *name, struct node **child)
{
	struct fs *fs = view->fs;
	struct held held;
	struct stat st;
	int fd, error = strlen(name) > 255 ? -ENAMETOOLONG : hold(fs, folder->id, &held);

	if (error || *child)
		return error;
	do
		fd = backing_open_name(&fs->backing, held.descriptor, name);
	while ((fd == -EMFILE || fd == -ENFILE) && files_make_room(&fs->files));
	if (fd >= 0) {
		error = node_of_descriptor(&fs->nodes, folder, name, fd, false, child, &st);
		if (error)
			close(fd);
	} else if (fd != -ENOENT) {
		error = fd == -EMFILE ? -ENFILE : fd;
	}
	unhold(fs, &held);
	return error;
}

static int children_find(struct view *view, struct changing *changing)
{
	struct node **node = changing->node;
	int error = 0;

	if (changing->name)
		error = child_find(view, node[FOLDER], changing->name, &node[CHILD]);
	if (!error && changing->new_name)
		error = child_find(view, node[NEW_FOLDER], changing->new_name, &node[NEW_CHILD]);
	return error;
}

static void put_all(struct view *view, struct changing *changing)
{
	for (int i = 0; i < CHANGE_NODES; i++)
		node_put(&view->fs->nodes, changing->node[i]);
}

/* What the operation would fail with itself: then no view is to suffer. */
static bool is_the_operations(int error)
{
	return error == -ESTALE || error == -ENOENT || error == -ENFILE || error == -EMFILE ||
	       error == -ENOMEM;
}

/*
 * Begins a change, and keeps what was. A view for which that is not possible is given up. 0, or
 * negative errno: nothing was begun, and the caller got that.
 */
static int begin(fuse_req_t req, struct change *change, struct changing *changing, keeper keep)
{
	struct view *view = view_of(req);
	bool looked = !changing->name && !changing->new_name;
	int error;

	for (;;) {
		char *path;

		change_begin(view, change, changing->node, CHANGE_NODES);
		if (!change->epoch)
			return 0;
		error = looked ? keep(change, changing) : 0;
		if (!error)
			error = hot_wait(view, change->durable);
		if (looked && !error)
			return 0;
		change_end(change);
		if (!looked) {
			error = children_find(view, changing);
			if (error)
				break;
			looked = true;
			continue;
		}
		if (is_the_operations(error))
			break;
		path = node_path(&view->fs->nodes, changing->node[FOLDER]);
		snapshots_give_up(view, error, path);
		free(path);
	}
	put_all(view, changing);
	reply_error(req, error);
	return error;
}

static void end(struct change *change, struct changing *changing)
{
	change_end(change);
	put_all(change->view, changing);
}

static struct node *node_of(fuse_req_t req, fuse_ino_t ino)
{
	return node_get(&fs_of(req)->nodes, ino);
}

static int keep_attributes(struct change *change, struct changing *changing)
{
	return past_attributes(change, changing->node[FOLDER]);
}

static int keep_bytes(struct change *change, struct changing *changing)
{
	int error = past_bytes(change, changing->node[FOLDER], changing->offset, changing->end);

	return error ? error : past_privileges(change, changing->node[FOLDER]);
}

static int keep_set(struct change *change, struct changing *changing)
{
	struct node *node = changing->node[FOLDER];
	int error = past_attributes(change, node);

	if (!error && (changing->to_set & FUSE_SET_ATTR_SIZE) && node && S_ISREG(node->type))
		error = past_cut(change, node, changing->end);
	if (!error && (changing->to_set & FUSE_SET_ATTR_MODE))
		error = past_xattr(change, node, ACL_ACCESS, false);
	if (!error &&
	    (changing->to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID | FUSE_SET_ATTR_SIZE)))
		error = past_privileges(change, node);
	return error;
}

static int keep_xattr(struct change *change, struct changing *changing)
{
	return past_xattr(change, changing->node[FOLDER], changing->xattr, true);
}

/* A name that is made, perhaps (CHILD) of an object that there is. */
static int keep_made(struct change *change, struct changing *changing)
{
	int error = past_attributes(change, changing->node[CHILD]);

	return error ? error
		     : past_name(change, changing->node[NEW_FOLDER], changing->new_name,
				 changing->node[NEW_CHILD], changing->node[CHILD]);
}

static int keep_removed(struct change *change, struct changing *changing)
{
	return past_removed(change, changing->node[FOLDER], changing->name, changing->node[CHILD],
			    NULL, &changing->anchored);
}

static int keep_renamed(struct change *change, struct changing *changing)
{
	struct node **node = changing->node;
	int error = past_name(change, node[FOLDER], changing->name, node[CHILD], NULL);

	if (!error && (changing->to_set & RENAME_EXCHANGE))
		error = past_name(change, node[NEW_FOLDER], changing->new_name, node[NEW_CHILD],
				  node[CHILD]);
	else if (!error && node[NEW_CHILD] != node[CHILD])
		error = past_removed(change, node[NEW_FOLDER], changing->new_name, node[NEW_CHILD],
				     node[CHILD], &changing->anchored);
	return error ? error
		     : past_moving(change, node[FOLDER], changing->name, node[CHILD],
				   node[NEW_FOLDER], changing->new_name);
}

/* After an operation that was to take a name away from an object that has an anchor now. */
static void removed(struct change *change, const struct changing *changing, struct node *folder,
		    const char *name, struct node *node)
{
	struct view *view = change->view;
	const struct own *past = node ? node->past : NULL;
	struct node *there = NULL;

	if (!changing->anchored || !past)
		return;
	(void)!child_find(view, folder, name, &there);
	pthread_mutex_lock(&view->lock);
	if (there == node && changing->anchored == NEW_ANCHOR) /* it failed */
		anchor_remove_locked(view, past->object.id);
	else if (there != node && !node->device->handles_open && view->snapshots->anchors_node)
		node_rename(&view->fs->nodes, node, view->snapshots->anchors_node,
			    anchor_name(past->object.id).text);
	pthread_mutex_unlock(&view->lock);
	node_put(&view->fs->nodes, there);
}

static void moved(struct change *change, const struct changing *changing)
{
	struct view *view = change->view;
	const struct node *node = changing->node[CHILD];

	if (!change->epoch || !node || node->device->handles_open)
		return;
	pthread_mutex_lock(&view->lock);
	if (past_moved_locked(view))
		log_line(LOG_ERR, "store of the views: where %s is was not noted",
			 changing->new_name);
	pthread_mutex_unlock(&view->lock);
}

/* --- The operations: data --------------------------------------------------------------------- */

static void snapshot_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (is_live(ino))
		op_open(req, ino, fi);
	else
		IN_VIEW(req, ino, (fi->flags & O_ACCMODE) != O_RDONLY, view_op_open(req, ino, fi));
}

static void snapshot_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (is_live(ino))
		op_release(req, ino, fi);
	else
		reply_error(req, 0);
}

static void snapshot_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
			     struct fuse_file_info *fi)
{
	if (is_live(ino))
		op_read(req, ino, size, offset, fi);
	else
		IN_VIEW(req, ino, false, view_op_read(req, ino, size, offset, fi));
}

static void snapshot_op_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size,
			      off_t offset, struct fuse_file_info *fi)
{
	struct changing changing = {.offset = (uint64_t)offset, .end = (uint64_t)offset + size};
	struct change change;

	if (!is_live(ino)) {
		IN_VIEW(req, ino, true, view_op_write(req, ino, bytes, size, offset, fi));
		return;
	}
	changing.node[FOLDER] = node_of(req, ino);
	if (begin(req, &change, &changing, keep_bytes))
		return;
	op_write(req, ino, bytes, size, offset, fi);
	end(&change, &changing);
}

static void snapshot_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync,
			      struct fuse_file_info *fi)
{
	if (is_live(ino))
		op_fsync(req, ino, datasync, fi);
	else
		IN_VIEW(req, ino, false, view_op_fsync(req, ino, datasync, fi));
}

static void snapshot_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset,
				  off_t length, struct fuse_file_info *fi)
{
	struct changing changing = {0};
	struct change change;

	if (!is_live(ino)) {
		IN_VIEW(req, ino, true, view_op_fallocate(req, ino, mode, offset, length, fi));
		return;
	}
	changing.node[FOLDER] = node_of(req, ino);
	/* Where it only reserves room no byte is another one. */
	if (mode & ~FALLOC_FL_KEEP_SIZE) {
		changing.offset = (uint64_t)offset;
		changing.end = mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE)
				       ? UINT64_MAX
				       : (uint64_t)offset + (uint64_t)length;
	}
	if (begin(req, &change, &changing, keep_bytes))
		return;
	op_fallocate(req, ino, mode, offset, length, fi);
	end(&change, &changing);
}

static void snapshot_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
			      struct fuse_file_info *fi)
{
	if (is_live(ino))
		op_lseek(req, ino, offset, whence, fi);
	else
		IN_VIEW(req, ino, false, view_op_lseek(req, ino, offset, whence, fi));
}

static bool same_view(fuse_req_t req, fuse_ino_t a, fuse_ino_t b);

static void snapshot_op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in,
					struct fuse_file_info *fi_in, fuse_ino_t ino_out,
					off_t offset_out, struct fuse_file_info *fi_out,
					size_t length, int flags)
{
	struct changing changing = {.offset = (uint64_t)offset_out,
				    .end = (uint64_t)offset_out + length};
	struct change change;

	if (!same_view(req, ino_in, ino_out)) {
		reply_error(req, -EXDEV); /* the kernel reads and writes instead */
		return;
	}
	if (!is_live(ino_out)) {
		IN_VIEW(req, ino_out, true,
			view_op_copy_file_range(req, ino_in, offset_in, fi_in, ino_out, offset_out,
						fi_out, length, flags));
		return;
	}
	changing.node[FOLDER] = node_of(req, ino_out);
	if (begin(req, &change, &changing, keep_bytes))
		return;
	op_copy_file_range(req, ino_in, offset_in, fi_in, ino_out, offset_out, fi_out, length,
			   flags);
	end(&change, &changing);
}

/* --- The operations: attributes --------------------------------------------------------------- */

static void snapshot_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (is_live(ino))
		op_getattr(req, ino, fi);
	else if (ino == SNAPSHOT_FOLDER)
		snapshot_folder_getattr(req);
	else
		IN_VIEW(req, ino, false, view_op_getattr(req, ino, fi));
}

static void snapshot_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attributes, int to_set,
				struct fuse_file_info *fi)
{
	struct changing changing = {.to_set = to_set, .end = (uint64_t)attributes->st_size};
	const int others = ~(FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW);
	struct change change;

	if (!is_live(ino)) {
		IN_VIEW(req, ino, true, view_op_setattr(req, ino, attributes, to_set, fi));
		return;
	}
	changing.node[FOLDER] = node_of(req, ino);
	/* (Setting the time of access moves ctime.) */
	if (begin(req, &change, &changing, to_set & others ? keep_set : keep_attributes))
		return;
	op_setattr(req, ino, attributes, to_set, fi);
	end(&change, &changing);
}

static void snapshot_op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	if (is_live(ino) || ino == SNAPSHOT_FOLDER)
		op_statfs(req, is_live(ino) ? ino : FUSE_ROOT_ID);
	else
		IN_VIEW(req, ino, false, view_op_statfs(req, ino));
}

static void snapshot_op_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	if (is_live(ino))
		op_access(req, ino, mask);
	else
		reply_error(req, -ENOSYS); /* the kernel looks itself */
}

static void snapshot_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
				 const char *value, size_t size, int flags)
{
	struct changing changing = {0};
	struct change change;

	if (!is_live(ino)) {
		IN_VIEW(req, ino, true, view_op_setxattr(req, ino, name, value, size, flags));
		return;
	}
	changing.node[FOLDER] = node_of(req, ino);
	changing.xattr = name;
	if (begin(req, &change, &changing, keep_xattr))
		return;
	op_setxattr(req, ino, name, value, size, flags);
	end(&change, &changing);
}

static void snapshot_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct changing changing = {0};
	struct change change;

	if (!is_live(ino)) {
		IN_VIEW(req, ino, true, view_op_removexattr(req, ino, name));
		return;
	}
	changing.node[FOLDER] = node_of(req, ino);
	changing.xattr = name;
	if (begin(req, &change, &changing, keep_xattr))
		return;
	op_removexattr(req, ino, name);
	end(&change, &changing);
}

static void snapshot_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	if (ino == SNAPSHOT_FOLDER ||
	    (ino == FUSE_ROOT_ID && strncmp(name, "mmapfs.", strlen("mmapfs.")) == 0))
		snapshot_folder_getxattr(req, name, size);
	else if (is_live(ino))
		op_getxattr(req, ino, name, size);
	else
		IN_VIEW(req, ino, false, view_op_getxattr(req, ino, name, size));
}

static void snapshot_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	if (is_live(ino))
		op_listxattr(req, ino, size);
	else if (ino == SNAPSHOT_FOLDER)
		size ? (void)fuse_reply_buf(req, NULL, 0) : (void)fuse_reply_xattr(req, 0);
	else
		IN_VIEW(req, ino, false, view_op_listxattr(req, ino, size));
}

/* --- The operations: names -------------------------------------------------------------------- */

/* Whether two numbers are of the live tree, or of one view. */
static bool same_view(fuse_req_t req, fuse_ino_t a, fuse_ino_t b)
{
	struct nodes *nodes = &fs_of(req)->nodes;
	struct node *first, *second;
	bool same;

	if (is_live(a) || is_live(b) || a == SNAPSHOT_FOLDER || b == SNAPSHOT_FOLDER)
		return is_live(a) == is_live(b) && (a == SNAPSHOT_FOLDER) == (b == SNAPSHOT_FOLDER);
	first = node_get(nodes, a);
	second = node_get(nodes, b);
	same = first && second && first->device == second->device;
	node_put(nodes, first);
	node_put(nodes, second);
	return same;
}

/* Whether a name of the live tree is one that is ours. */
static bool is_ours(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	return parent == FUSE_ROOT_ID &&
	       (strcmp(name, fs_of(req)->options->snapname) == 0 ||
		snapshot_hides(view_of(req), fs_of(req)->nodes.root, name));
}

static void snapshot_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	if (parent == SNAPSHOT_FOLDER)
		snapshot_folder_lookup(req, name);
	else if (!is_live(parent))
		IN_VIEW(req, parent, false, view_op_lookup(req, parent, name));
	else if (!is_ours(req, parent, name))
		op_lookup(req, parent, name);
	else if (strcmp(name, fs_of(req)->options->snapname) == 0)
		snapshot_folder_entry(req);
	else
		reply_error(req, -ENOENT);
}

static void forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	if (is_live(ino))
		forget_node(fs_of(req), ino, count);
	else if (ino != SNAPSHOT_FOLDER)
		view_forget(view_of(req), ino, count);
}

static void snapshot_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	forget(req, ino, count);
	fuse_reply_none(req);
}

static void snapshot_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		forget(req, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

/* Begins to make a name in a folder of the live tree. */
static int begin_made(fuse_req_t req, fuse_ino_t parent, const char *name, struct change *change,
		      struct changing *changing)
{
	if (is_ours(req, parent, name)) {
		reply_error(req, -EEXIST);
		return -EEXIST;
	}
	changing->new_name = name;
	changing->node[FOLDER] = node_of(req, parent);
	changing->node[NEW_FOLDER] = node_of(req, parent);
	if (!changing->node[NEW_FOLDER])
		changing->new_name = NULL; /* the operation will say so */
	return begin(req, change, changing, changing->new_name ? keep_made : keep_attributes);
}

static void snapshot_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct changing changing = {0};
	struct change change;

	if (parent == SNAPSHOT_FOLDER) {
		snapshot_folder_mkdir(req, name, mode);
	} else if (!is_live(parent)) {
		IN_VIEW(req, parent, true, view_op_mkdir(req, parent, name, mode));
	} else if (begin_made(req, parent, name, &change, &changing) == 0) {
		op_mkdir(req, parent, name, mode);
		end(&change, &changing);
	}
}

static void snapshot_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
			      dev_t device)
{
	struct changing changing = {0};
	struct change change;

	if (!is_live(parent)) {
		IN_VIEW(req, parent, true, view_op_mknod(req, parent, name, mode, device));
	} else if (begin_made(req, parent, name, &change, &changing) == 0) {
		op_mknod(req, parent, name, mode, device);
		end(&change, &changing);
	}
}

static void snapshot_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent,
				const char *name)
{
	struct changing changing = {0};
	struct change change;

	if (!is_live(parent)) {
		IN_VIEW(req, parent, true, view_op_symlink(req, target, parent, name));
	} else if (begin_made(req, parent, name, &change, &changing) == 0) {
		op_symlink(req, target, parent, name);
		end(&change, &changing);
	}
}

static void snapshot_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
			       struct fuse_file_info *fi)
{
	struct changing changing = {0};
	struct change change;

	if (!is_live(parent)) {
		IN_VIEW(req, parent, true, view_op_create(req, parent, name, mode, fi));
	} else if (begin_made(req, parent, name, &change, &changing) == 0) {
		op_create(req, parent, name, mode, fi);
		end(&change, &changing);
	}
}

static void snapshot_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct changing changing = {0};
	struct change change;

	if (!same_view(req, ino, parent)) {
		reply_error(req, -EXDEV);
	} else if (!is_live(parent)) {
		IN_VIEW(req, parent, true, view_op_link(req, ino, parent, name));
	} else {
		changing.node[CHILD] = node_of(req, ino);
		if (begin_made(req, parent, name, &change, &changing) == 0) {
			op_link(req, ino, parent, name);
			end(&change, &changing);
		}
	}
}

static void snapshot_op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	if (is_live(ino))
		op_readlink(req, ino);
	else
		IN_VIEW(req, ino, false, view_op_readlink(req, ino));
}

static int begin_removed(fuse_req_t req, fuse_ino_t parent, const char *name, struct change *change,
			 struct changing *changing)
{
	if (is_ours(req, parent, name)) {
		reply_error(req, -EPERM);
		return -EPERM;
	}
	changing->node[FOLDER] = node_of(req, parent);
	changing->name = changing->node[FOLDER] ? name : NULL;
	return begin(req, change, changing, changing->name ? keep_removed : keep_attributes);
}

static void snapshot_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct changing changing = {0};
	struct change change;

	if (!is_live(parent)) {
		IN_VIEW(req, parent, true, view_op_unlink(req, parent, name));
	} else if (begin_removed(req, parent, name, &change, &changing) == 0) {
		op_unlink(req, parent, name);
		removed(&change, &changing, changing.node[FOLDER], name, changing.node[CHILD]);
		end(&change, &changing);
	}
}

static void snapshot_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct changing changing = {0};
	struct change change;

	if (parent == SNAPSHOT_FOLDER) {
		snapshot_folder_rmdir(req, name);
	} else if (!is_live(parent)) {
		IN_VIEW(req, parent, true, view_op_rmdir(req, parent, name));
	} else if (begin_removed(req, parent, name, &change, &changing) == 0) {
		op_rmdir(req, parent, name);
		end(&change, &changing);
	}
}

static void snapshot_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
			       fuse_ino_t new_parent, const char *new_name, unsigned int flags)
{
	struct changing changing = {.to_set = (int)flags};
	struct change change;

	if (!same_view(req, parent, new_parent)) {
		reply_error(req, -EXDEV);
	} else if (parent == SNAPSHOT_FOLDER) {
		snapshot_folder_rename(req, name, new_name, flags);
	} else if (!is_live(parent)) {
		IN_VIEW(req, parent, true,
			view_op_rename(req, parent, name, new_parent, new_name, flags));
	} else if (is_ours(req, parent, name) || is_ours(req, new_parent, new_name)) {
		reply_error(req, -EPERM);
	} else {
		changing.node[FOLDER] = node_of(req, parent);
		changing.node[NEW_FOLDER] = node_of(req, new_parent);
		if (changing.node[FOLDER] && changing.node[NEW_FOLDER]) {
			changing.name = name;
			changing.new_name = new_name;
		}
		if (begin(req, &change, &changing, changing.name ? keep_renamed : keep_attributes))
			return;
		op_rename(req, parent, name, new_parent, new_name, flags);
		removed(&change, &changing, changing.node[NEW_FOLDER], new_name,
			changing.node[NEW_CHILD]);
		moved(&change, &changing);
		end(&change, &changing);
	}
}

/* --- The operations: folders ------------------------------------------------------------------ */

static void snapshot_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (is_live(ino) || fs_of(req)->stateless)
		op_opendir(req, ino, fi);
	else if (ino == SNAPSHOT_FOLDER)
		snapshot_folder_opendir(req, fi);
	else
		IN_VIEW(req, ino, false, view_op_opendir(req, ino, fi));
}

static void snapshot_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
				struct fuse_file_info *fi)
{
	if (is_live(ino))
		op_readdir(req, ino, size, offset, fi);
	else if (ino == SNAPSHOT_FOLDER)
		snapshot_folder_readdir(req, size, offset, fi, false);
	else
		IN_VIEW(req, ino, false, view_op_readdir(req, ino, size, offset, fi));
}

static void snapshot_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
				    struct fuse_file_info *fi)
{
	if (is_live(ino))
		op_readdirplus(req, ino, size, offset, fi);
	else if (ino == SNAPSHOT_FOLDER)
		snapshot_folder_readdir(req, size, offset, fi, true);
	else
		IN_VIEW(req, ino, false, view_op_readdirplus(req, ino, size, offset, fi));
}

static void snapshot_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (is_live(ino))
		op_releasedir(req, ino, fi);
	else if (ino == SNAPSHOT_FOLDER)
		snapshot_folder_releasedir(req, fi);
	else
		view_op_releasedir(req, ino, fi);
}

static void snapshot_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync,
				 struct fuse_file_info *fi)
{
	if (is_live(ino))
		op_fsyncdir(req, ino, datasync, fi);
	else if (ino == SNAPSHOT_FOLDER)
		snapshot_folder_sync(req);
	else
		IN_VIEW(req, ino, false, view_op_fsyncdir(req, ino, datasync, fi));
}

const struct fuse_lowlevel_ops snapshot_operations = {
	.init = op_init,
	.lookup = snapshot_op_lookup,
	.forget = snapshot_op_forget,
	.forget_multi = snapshot_op_forget_multi,
	.getattr = snapshot_op_getattr,
	.setattr = snapshot_op_setattr,
	.readlink = snapshot_op_readlink,
	.mknod = snapshot_op_mknod,
	.mkdir = snapshot_op_mkdir,
	.unlink = snapshot_op_unlink,
	.rmdir = snapshot_op_rmdir,
	.symlink = snapshot_op_symlink,
	.rename = snapshot_op_rename,
	.link = snapshot_op_link,
	.create = snapshot_op_create,
	.open = snapshot_op_open,
	.read = snapshot_op_read,
	.write = snapshot_op_write,
	.flush = op_flush,
	.release = snapshot_op_release,
	.fsync = snapshot_op_fsync,
	.opendir = snapshot_op_opendir,
	.readdir = snapshot_op_readdir,
	.readdirplus = snapshot_op_readdirplus,
	.releasedir = snapshot_op_releasedir,
	.fsyncdir = snapshot_op_fsyncdir,
	.statfs = snapshot_op_statfs,
	.setxattr = snapshot_op_setxattr,
	.getxattr = snapshot_op_getxattr,
	.listxattr = snapshot_op_listxattr,
	.removexattr = snapshot_op_removexattr,
	.access = snapshot_op_access,
	.fallocate = snapshot_op_fallocate,
	.lseek = snapshot_op_lseek,
	.copy_file_range = snapshot_op_copy_file_range,
};
