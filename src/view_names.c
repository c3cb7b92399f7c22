/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on names in a view. All of them take view->lock: a change of names is one transaction
 * of the store, and is in memory when that is committed.
 */
#include "view_ops.h"

#include "acl.h"
#include "caller.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_name(const char *name)
{
	return *name && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && !strchr(name, '/');
}

int view_entry_locked(struct view *view, struct node *node, struct fuse_entry_param *entry)
{
	int error;

	*entry = (struct fuse_entry_param){
		.ino = node->id,
		.attr_timeout = view->fs->options->attr_timeout,
		.entry_timeout = view->fs->options->entry_timeout,
	};
	error = view_stat_locked(view, node, &entry->attr);
	if (!error)
		node_lookup(&view->fs->nodes, node);
	return error;
}

void view_forget(struct view *view, fuse_ino_t ino, uint64_t count)
{
	struct fs *fs = view->fs;
	struct node *node = node_get(&fs->nodes, ino);

	if (!node)
		return;
	if (node_forget(&fs->nodes, node, count)) {
		if (!view_is_made(node))
			file_forgotten(&fs->files, node);
		view_forgotten(view, node);
	}
	node_put(&fs->nodes, node);
}

void view_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	view_forget(view_of(req), ino, count);
	fuse_reply_none(req);
}

void view_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		view_forget(view_of(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static void reply_looked_up(fuse_req_t req, struct node *node, const struct fuse_entry_param *entry)
{
	struct view *view = view_of(req);

	if (view_is_made(node) || node->own || node_is_of_view(node)) {
		if (fuse_reply_entry(req, entry))
			view_forget(view, node->id, 1);
	} else {
		reply_entry(req, node, entry);
	}
}

void view_op_lookup(fuse_req_t req, fuse_ino_t parent_ino, const char *name)
{
	struct view *view = view_of(req);
	struct fuse_entry_param entry;
	struct node *parent, *node = NULL;
	int error = is_name(name) ? view_node(view, parent_ino, &parent) : -ESTALE;

	if (error) {
		reply_error(req, error);
		return;
	}
	pthread_mutex_lock(&view->lock);
	error = view_child_locked(view, parent, name, &node);
	if (!error)
		error = view_entry_locked(view, node, &entry);
	pthread_mutex_unlock(&view->lock);
	if (!error) {
		reply_looked_up(req, node, &entry);
	} else if (error == -ENOENT && view->fs->options->negative_timeout > 0) {
		entry = (struct fuse_entry_param){.entry_timeout =
							  view->fs->options->negative_timeout};
		fuse_reply_entry(req, &entry);
	} else {
		reply_error(req, error);
	}
	node_put(&view->fs->nodes, node);
	node_put(&view->fs->nodes, parent);
}

/* The folder's own state as it will be: one name more or less, or others. Many file systems do not
 * count what is in a folder, and it has one link for ever. */
static struct object folder_changed(const struct node *folder, int links)
{
	struct object object = ((const struct own *)folder->own)->object;

	object.mtime = object.ctime = view_now();
	if (object.links >= 2)
		object.links = (uint64_t)((int64_t)object.links + links);
	object.has_names = true;
	return object;
}

/* Takes a name away, within a transaction. */
static int name_drop(struct view *view, struct node *folder, const char *name)
{
	const struct own *own = folder->own;
	int in_base = view_base_has_locked(view, folder, name);

	if (in_base < 0)
		return in_base;
	return in_base ? store_name_set(view->store, own->object.id, name, 0)
		       : store_name_remove(view->store, own->object.id, name);
}

/* --- Making ----------------------------------------------------------------------------------- */

struct making {
	mode_t mode;
	dev_t device;
	const char *target;
};

/* Whose it is, and what it may be, as inode_init_owner() has it; and what ACLs it gets. */
struct made {
	struct object object;
	void *access, *standard; /* to be freed */
	ssize_t access_length, standard_length;
};

static int made_init_locked(fuse_req_t req, struct node *parent, const struct making *making,
			    struct made *made)
{
	const struct fuse_ctx *context = fuse_req_ctx(req);
	const struct object *folder = &((const struct own *)parent->own)->object;
	struct view *view = view_of(req);
	mode_t mode = making->mode;
	struct timespec now = view_now();
	ssize_t length = S_ISLNK(mode)
				 ? -ENODATA
				 : view_xattr_locked(view, parent, ACL_DEFAULT, &made->standard);

	if (length < 0 && length != -ENODATA && length != -EOPNOTSUPP)
		return (int)length;
	if (length > 0 && acl_is_valid(made->standard, (size_t)length)) {
		made->access = malloc((size_t)length);
		if (!made->access)
			return -ENOMEM;
		memcpy(made->access, made->standard, (size_t)length);
		if (acl_inherit(made->access, (size_t)length, &mode))
			made->access_length = length;
		if (S_ISDIR(mode))
			made->standard_length = length;
	} else if (!S_ISLNK(mode)) {
		mode &= ~context->umask;
	}
	made->object = (struct object){
		.layer = folder->layer,
		.mode = mode,
		.uid = context->uid,
		.gid = context->gid,
		.device = making->device,
		.links = S_ISDIR(mode) ? 2 : 1,
		.size = making->target	? strlen(making->target)
			: S_ISDIR(mode) ? STORE_BLOCK
					: 0,
		.atime = now,
		.mtime = now,
		.ctime = now,
		.cut = 0,
		.parent = S_ISDIR(mode) ? folder->id : 0,
		.has_xattrs = made->access_length || made->standard_length,
	};
	if (folder->mode & S_ISGID) {
		made->object.gid = folder->gid;
		if (S_ISDIR(mode))
			made->object.mode |= S_ISGID;
		else if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && context->uid != 0 &&
			 !caller_is_in_group(req, folder->gid))
			made->object.mode &= ~(mode_t)S_ISGID;
	}
	if (making->target) {
		made->object.target = strdup(making->target);
		if (!made->object.target)
			return -ENOMEM;
	}
	return 0;
}

static int made_write_locked(struct view *view, struct node *parent, const char *name,
			     struct made *made)
{
	struct object folder = folder_changed(parent, S_ISDIR(made->object.mode) ? 1 : 0);
	int error = store_begin(view->store);

	if (error)
		return error;
	error = store_object_add(view->store, &made->object);
	if (!error) {
		made->object.ino = view_number(parent, MADE_NUMBER | (uint64_t)made->object.id);
		error = store_object_set(view->store, &made->object);
	}
	if (!error && made->access_length)
		error = store_xattr_set(view->store, made->object.id, ACL_ACCESS, made->access,
					(size_t)made->access_length);
	if (!error && made->standard_length)
		error = store_xattr_set(view->store, made->object.id, ACL_DEFAULT, made->standard,
					(size_t)made->standard_length);
	if (!error)
		error = store_name_set(view->store, folder.id, name, made->object.id);
	return view_object_end(view, parent, &folder, error);
}

/* Makes an object. 0: *node is referenced and the kernel's once more; or negative errno. */
static int make(fuse_req_t req, fuse_ino_t parent_ino, const char *name,
		const struct making *making, struct fuse_entry_param *entry, struct node **node)
{
	struct view *view = view_of(req);
	struct made made = {0};
	struct node *parent, *found;
	int error = is_name(name) ? view_node(view, parent_ino, &parent) : -EINVAL;

	if (error)
		return error;
	pthread_mutex_lock(&view->lock);
	error = view_child_locked(view, parent, name, &found);
	if (!error) {
		node_put(&view->fs->nodes, found);
		error = -EEXIST;
	} else if (error == -ENOENT) {
		error = view_own_locked(view, parent);
	}
	if (!error)
		error = made_init_locked(req, parent, making, &made);
	if (!error)
		error = made_write_locked(view, parent, name, &made);
	if (!error) {
		error = view_object_locked(view, parent, made.object.id, node);
		if (!error) {
			error = view_entry_locked(view, *node, entry);
			if (error)
				node_put(&view->fs->nodes, *node);
		}
	}
	pthread_mutex_unlock(&view->lock);
	free(made.object.target);
	free(made.access);
	free(made.standard);
	node_put(&view->fs->nodes, parent);
	return error;
}

static void make_and_reply(fuse_req_t req, fuse_ino_t parent, const char *name,
			   const struct making *making)
{
	struct view *view = view_of(req);
	struct fuse_entry_param entry;
	struct node *node;
	int error = make(req, parent, name, making, &entry, &node);

	if (error) {
		reply_error(req, error);
		return;
	}
	if (fuse_reply_entry(req, &entry))
		view_forget(view, entry.ino, 1);
	node_put(&view->fs->nodes, node);
}

void view_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	make_and_reply(req, parent, name, &(struct making){.mode = (mode & ~S_IFMT) | S_IFDIR});
}

void view_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
	if (!(mode & S_IFMT))
		mode |= S_IFREG;
	make_and_reply(req, parent, name, &(struct making){.mode = mode, .device = device});
}

void view_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	make_and_reply(req, parent, name,
		       &(struct making){.mode = S_IFLNK | 0777, .target = target});
}

void view_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		    struct fuse_file_info *fi)
{
	struct view *view = view_of(req);
	struct fuse_entry_param entry;
	struct node *node;
	int error = make(req, parent, name, &(struct making){.mode = (mode & ~S_IFMT) | S_IFREG},
			 &entry, &node);

	/* As op_create(): the kernel is to look again. */
	if (error == -EEXIST && !(fi->flags & O_EXCL))
		error = -ESTALE;
	if (error) {
		reply_error(req, error);
		return;
	}
	fi->keep_cache = view->fs->keeps_cache;
	if (fuse_reply_create(req, &entry, fi))
		view_forget(view, entry.ino, 1);
	node_put(&view->fs->nodes, node);
}

void view_op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct view *view = view_of(req);
	struct node *node;
	char *target = NULL;
	int error = view_node(view, ino, &node);

	if (error) {
		reply_error(req, error);
		return;
	}
	/* What was made in the view says it, or a state that the live tree had, or BACKING does. */
	pthread_mutex_lock(&view->lock);
	for (const struct own *state = view_state(node); state && !target && !error;
	     state = view_state_next(node, state)) {
		target = state->object.target ? strdup(state->object.target) : NULL;
		error = state->object.target && !target ? -ENOMEM : 0;
	}
	pthread_mutex_unlock(&view->lock);
	if (error || (!target && view_is_made(node)))
		reply_error(req, error ? error : -EINVAL);
	else if (target)
		fuse_reply_readlink(req, target);
	else
		op_readlink(req, view_base(node)->id);
	free(target);
	node_put(&view->fs->nodes, node);
}

/* --- Changing --------------------------------------------------------------------------------- */

void view_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent_ino, const char *name)
{
	struct view *view = view_of(req);
	struct nodes *nodes = &view->fs->nodes;
	struct fuse_entry_param entry;
	struct object object, folder;
	struct node *node = NULL, *parent = NULL, *found;
	int error = is_name(name) ? view_node(view, ino, &node) : -EINVAL;

	if (!error)
		error = view_node(view, parent_ino, &parent);
	if (error)
		goto out;
	pthread_mutex_lock(&view->lock);
	error = view_child_locked(view, parent, name, &found);
	if (!error) {
		node_put(nodes, found);
		error = -EEXIST;
	} else if (error == -ENOENT) {
		error = view_own_locked(view, parent);
	}
	if (!error)
		error = view_own_locked(view, node);
	if (!error) {
		object = ((struct own *)node->own)->object;
		if (object.links == 0)
			error = -ENOENT;
		object.links++;
		object.ctime = view_now();
		folder = folder_changed(parent, 0);
	}
	if (!error)
		error = store_begin(view->store);
	if (!error) {
		error = store_name_set(view->store, folder.id, name, object.id);
		if (!error)
			error = store_object_set(view->store, &object);
		if (!error)
			error = store_object_set(view->store, &folder);
		error = view_end(view, error);
	}
	if (!error) {
		own_adopt(node->own, &object);
		own_adopt(parent->own, &folder);
		error = view_changed(view, 0);
	}
	if (!error)
		error = view_entry_locked(view, node, &entry);
	pthread_mutex_unlock(&view->lock);
out:
	if (error)
		reply_error(req, error);
	else if (fuse_reply_entry(req, &entry))
		view_forget(view, ino, 1);
	node_put(nodes, node);
	node_put(nodes, parent);
}

/* What a node will be without one of its names. Within a transaction. */
static int victim_write(struct view *view, struct node *victim, struct object *object)
{
	*object = ((struct own *)victim->own)->object;
	object->ctime = view_now();
	if (S_ISDIR(object->mode))
		object->links = 0;
	else if (object->links)
		object->links--;
	return store_object_set(view->store, object);
}

static void remove_name(fuse_req_t req, fuse_ino_t parent_ino, const char *name, bool is_folder)
{
	struct view *view = view_of(req);
	struct nodes *nodes = &view->fs->nodes;
	struct object object, folder;
	struct node *parent, *victim = NULL;
	int error = is_name(name) ? view_node(view, parent_ino, &parent) : -EINVAL;

	if (error) {
		reply_error(req, error);
		return;
	}
	pthread_mutex_lock(&view->lock);
	error = view_child_locked(view, parent, name, &victim);
	if (!error && is_folder) {
		error = !S_ISDIR(victim->type) ? -ENOTDIR
					       : view_folder_is_empty_locked(view, victim);
		error = error == 0 ? -ENOTEMPTY : error == 1 ? 0 : error;
	} else if (!error && S_ISDIR(victim->type)) {
		error = -EISDIR;
	}
	if (!error)
		error = view_own_locked(view, victim);
	if (!error)
		error = view_own_locked(view, parent);
	if (!error)
		error = store_begin(view->store);
	if (!error) {
		folder = folder_changed(parent, is_folder ? -1 : 0);
		error = name_drop(view, parent, name);
		if (!error)
			error = victim_write(view, victim, &object);
		if (!error)
			error = store_object_set(view->store, &folder);
		error = view_end(view, error);
		if (!error) {
			own_adopt(victim->own, &object);
			own_adopt(parent->own, &folder);
			error = view_changed(view, 0);
		}
	}
	pthread_mutex_unlock(&view->lock);
	reply_error(req, error);
	node_put(nodes, victim);
	node_put(nodes, parent);
}

void view_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, false);
}

void view_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, true);
}

/* A rename, all of whose parts are there. */
struct renaming {
	struct node *from, *to, *moved, *victim;
	const char *name, *new_name;
	bool exchange;
};

/* May victim be replaced by moved? */
static int replaceable_locked(struct view *view, const struct renaming *r)
{
	int empty;

	if (r->exchange)
		return 0;
	if (S_ISDIR(r->victim->type) && !S_ISDIR(r->moved->type))
		return -EISDIR;
	if (!S_ISDIR(r->victim->type))
		return S_ISDIR(r->moved->type) ? -ENOTDIR : 0;
	empty = view_folder_is_empty_locked(view, r->victim);
	return empty == 0 ? -ENOTEMPTY : empty < 0 ? empty : 0;
}

static int rename_locked(struct view *view, struct renaming *r)
{
	const bool same = r->from == r->to;
	struct object moved, victim = {0}, from, to;
	int moved_folder = S_ISDIR(r->moved->type) ? 1 : 0;
	int victim_folder = r->victim && S_ISDIR(r->victim->type) ? 1 : 0;
	int error = view_own_locked(view, r->moved);

	if (!error && r->victim)
		error = view_own_locked(view, r->victim);
	if (!error)
		error = view_own_locked(view, r->from);
	if (!error)
		error = view_own_locked(view, r->to);
	if (!error)
		error = store_begin(view->store);
	if (error)
		return error;
	from = folder_changed(r->from, same ? 0 : (r->exchange ? victim_folder : 0) - moved_folder);
	to = folder_changed(r->to, same ? (r->exchange ? 0 : -victim_folder)
					: moved_folder - victim_folder);
	moved = ((struct own *)r->moved->own)->object;
	moved.ctime = view_now();
	if (moved_folder)
		moved.parent = to.id;
	if (r->exchange) {
		victim = ((struct own *)r->victim->own)->object;
		victim.ctime = moved.ctime;
		if (victim_folder)
			victim.parent = from.id;
		error = store_object_set(view->store, &victim);
		if (!error)
			error = store_name_set(view->store, from.id, r->name, victim.id);
	} else {
		if (r->victim)
			error = victim_write(view, r->victim, &victim);
		if (!error)
			error = name_drop(view, r->from, r->name);
	}
	if (!error)
		error = store_name_set(view->store, to.id, r->new_name, moved.id);
	if (!error)
		error = store_object_set(view->store, &moved);
	if (!error && !same)
		error = store_object_set(view->store, &from);
	if (!error)
		error = store_object_set(view->store, &to);
	error = view_end(view, error);
	if (error)
		return error;
	own_adopt(r->moved->own, &moved);
	if (r->victim)
		own_adopt(r->victim->own, &victim);
	if (!same)
		own_adopt(r->from->own, &from);
	own_adopt(r->to->own, &to);
	return view_changed(view, 0);
}

void view_op_rename(fuse_req_t req, fuse_ino_t parent_ino, const char *name,
		    fuse_ino_t new_parent_ino, const char *new_name, unsigned int flags)
{
	struct view *view = view_of(req);
	struct nodes *nodes = &view->fs->nodes;
	struct renaming r = {
		.name = name, .new_name = new_name, .exchange = flags & RENAME_EXCHANGE};
	int error = is_name(name) && is_name(new_name) ? 0 : -EINVAL;

	if (flags & ~(unsigned int)(RENAME_EXCHANGE | RENAME_NOREPLACE))
		error = -EINVAL;
	if (!error)
		error = view_node(view, parent_ino, &r.from);
	if (!error)
		error = view_node(view, new_parent_ino, &r.to);
	if (error)
		goto out;
	pthread_mutex_lock(&view->lock);
	error = view_child_locked(view, r.from, name, &r.moved);
	if (!error) {
		error = view_child_locked(view, r.to, new_name, &r.victim);
		if (error == -ENOENT && !r.exchange)
			error = 0;
		else if (!error && (flags & RENAME_NOREPLACE))
			error = -EEXIST;
	}
	/* Two names of one file: nothing happens (rename(2)). */
	if (!error && r.victim != r.moved) {
		if (r.victim)
			error = replaceable_locked(view, &r);
		if (!error)
			error = rename_locked(view, &r);
	}
	pthread_mutex_unlock(&view->lock);
out:
	reply_error(req, error);
	node_put(nodes, r.victim);
	node_put(nodes, r.moved);
	node_put(nodes, r.to);
	node_put(nodes, r.from);
}
