/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on names: finding, making, moving and removing them. */
#include "ops.h"

#include "caller.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* The kernel resolves dots itself. Anything else that it lets through is a name. */
static bool is_name(const char *name)
{
	return *name && !is_dots(name) && !strchr(name, '/');
}

/* Opens name in parent, O_PATH; descriptors in the caches make way. */
static int open_name(struct fs *fs, const struct held *parent, const char *name)
{
	int descriptor;

	if (!is_name(name))
		return -EINVAL;
	do
		descriptor = backing_open_name(&fs->backing, parent->descriptor, name);
	while ((descriptor == -EMFILE || descriptor == -ENFILE) && files_make_room(&fs->files));
	return descriptor == -EMFILE ? -ENFILE : descriptor;
}

/* Fills *entry for a node that was just looked up or made. */
static int entry_fill(struct fs *fs, struct node *node, const struct stat *st,
		      struct fuse_entry_param *entry)
{
	int error;

	*entry = (struct fuse_entry_param){
		.ino = node->id,
		.attr = *st,
		.attr_timeout = fs->options->attr_timeout,
		.entry_timeout = fs->options->entry_timeout,
	};
	error = file_stat_known(&fs->files, node, &entry->attr);
	show_attributes(node, &entry->attr);
	return error;
}

/* Looks up what an O_PATH descriptor refers to; consumes it. As lookup_name(). */
static int lookup_descriptor(struct fs *fs, const struct held *parent, const char *name,
			     int descriptor, struct fuse_entry_param *entry, struct node **node)
{
	struct stat st;
	int error = node_of_descriptor(&fs->nodes, parent->node, name, descriptor, true, node, &st);

	if (error) {
		close(descriptor);
		return error;
	}
	error = entry_fill(fs, *node, &st, entry);
	if (error) {
		forget_node(fs, entry->ino, 1);
		node_put(&fs->nodes, *node);
	}
	return error;
}

int lookup_name(struct fs *fs, const struct held *parent, const char *name,
		struct fuse_entry_param *entry, struct node **node)
{
	int descriptor = open_name(fs, parent, name);

	if (descriptor < 0)
		return descriptor;
	return lookup_descriptor(fs, parent, name, descriptor, entry, node);
}

void forget_node(struct fs *fs, fuse_ino_t ino, uint64_t count)
{
	struct node *node = node_get(&fs->nodes, ino);

	if (!node)
		return;
	if (node_forget(&fs->nodes, node, count))
		file_forgotten(&fs->files, node);
	node_put(&fs->nodes, node);
}

/*
 * "." and "..": asked for a file handle of the mount that is opened (open_by_handle_at(2),
 * fuse_get_dentry()), of a node that the kernel does not know. A file without a name, of which only
 * we have a descriptor, is gone. So is a folder that was moved out of BACKING: the kernel goes up
 * from it and does not come to the root.
 */
static int lookup_dots(struct fs *fs, const struct held *held, const char *name,
		       struct fuse_entry_param *entry, struct node **node)
{
	const struct held none = {.node = NULL};
	struct stat st;
	int descriptor;

	if (fstat(held->descriptor, &st) || st.st_nlink == 0)
		return -ESTALE;
	if (name[1] == '.' && held->node == fs->nodes.root)
		return -ENOENT;
	do
		descriptor = name[1] ? openat(held->descriptor, "..", O_PATH | O_CLOEXEC)
				     : fcntl(held->descriptor, F_DUPFD_CLOEXEC, 0);
	while (descriptor < 0 && (errno == EMFILE || errno == ENFILE) &&
	       files_make_room(&fs->files));
	if (descriptor < 0)
		return -errno;
	return lookup_descriptor(fs, &none, NULL, descriptor, entry, node);
}

/* "." of a number that is not known: of a handle from before the mount, or from long ago. */
static int lookup_lasting(struct fs *fs, fuse_ino_t ino, struct fuse_entry_param *entry,
			  struct node **node)
{
	struct held held = {.node = NULL};
	int error;

	do
		held.descriptor = backing_open_lasting(&fs->backing, ino);
	while ((held.descriptor == -EMFILE || held.descriptor == -ENFILE) &&
	       files_make_room(&fs->files));
	if (held.descriptor < 0)
		return held.descriptor == -EMFILE ? -ENFILE : held.descriptor;
	error = lookup_dots(fs, &held, ".", entry, node);
	close(held.descriptor);
	return error;
}

void op_lookup(fuse_req_t req, fuse_ino_t parent_ino, const char *name)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param entry;
	struct node *node;
	struct held parent;
	int error = hold(fs, parent_ino, &parent);

	if (!error) {
		error = is_dots(name) ? lookup_dots(fs, &parent, name, &entry, &node)
				      : lookup_name(fs, &parent, name, &entry, &node);
		unhold(fs, &parent);
	} else if (error == -ESTALE && strcmp(name, ".") == 0) {
		error = lookup_lasting(fs, parent_ino, &entry, &node);
	}
	if (!error) {
		reply_entry(req, node, &entry);
		node_put(&fs->nodes, node);
	} else if (error == -ENOENT && fs->options->negative_timeout > 0) {
		entry = (struct fuse_entry_param){.entry_timeout = fs->options->negative_timeout};
		fuse_reply_entry(req, &entry);
	} else {
		reply_error(req, error);
	}
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	forget_node(fs_of(req), ino, count);
	fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		forget_node(fs_of(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

/* Replies with a name that was just made in parent, and gives parent back. */
static void reply_made(fuse_req_t req, struct held *parent, const char *name, int error)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param entry;
	struct node *node;

	if (!error)
		error = flusher_names_changed(fs->flusher, parent->node);
	if (!error)
		error = lookup_name(fs, parent, name, &entry, &node);
	unhold(fs, parent);
	if (error) {
		reply_error(req, error);
		return;
	}
	reply_entry(req, node, &entry);
	node_put(&fs->nodes, node);
}

/* What is to be made with the caller's identity. Exactly one of the operations that use it. */
struct making {
	mode_t mode;	    /* with type */
	dev_t device;	    /* of a device node */
	const char *target; /* of a symbolic link */
};

static void make(fuse_req_t req, fuse_ino_t parent_ino, const char *name,
		 const struct making *making)
{
	struct fs *fs = fs_of(req);
	struct caller caller;
	struct held parent;
	int error = is_name(name) ? hold(fs, parent_ino, &parent) : -EINVAL;

	if (error) {
		reply_error(req, error);
		return;
	}
	error = caller_enter(fs, req, &caller);
	if (!error) {
		if (making->target)
			error = symlinkat(making->target, parent.descriptor, name);
		else if (S_ISDIR(making->mode))
			error = mkdirat(parent.descriptor, name, making->mode & ~S_IFMT);
		else
			error = mknodat(parent.descriptor, name, making->mode, making->device);
		if (error)
			error = -errno;
		caller_leave(&caller);
	}
	reply_made(req, &parent, name, error);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	make(req, parent, name, &(struct making){.mode = (mode & ~S_IFMT) | S_IFDIR});
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
	make(req, parent, name, &(struct making){.mode = mode, .device = device});
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	make(req, parent, name, &(struct making){.target = target});
}

void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct fs *fs = fs_of(req);
	char target[PATH_MAX + 1];
	struct held held;
	ssize_t length;
	int error = hold(fs, ino, &held);

	if (error) {
		reply_error(req, error);
		return;
	}
	length = readlinkat(held.descriptor, "", target, sizeof(target) - 1);
	error = length < 0 ? -errno : 0;
	unhold(fs, &held);
	if (error) {
		reply_error(req, error);
		return;
	}
	target[length] = '\0';
	fuse_reply_readlink(req, target);
}

/* As the caller's own: another's file may not be linked to (proc(5), protected_hardlinks). */
void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent_ino, const char *name)
{
	struct fs *fs = fs_of(req);
	struct held held, parent;
	int error = is_name(name) ? hold(fs, ino, &held) : -EINVAL;

	if (!error) {
		error = hold(fs, parent_ino, &parent);
		if (error)
			unhold(fs, &held);
	}
	if (error) {
		reply_error(req, error);
		return;
	}
	if (linkat(AT_FDCWD, backing_path(held.descriptor).text, parent.descriptor, name,
		   AT_SYMLINK_FOLLOW))
		error = -errno;
	unhold(fs, &held);
	reply_made(req, &parent, name, error);
}

/*
 * What a name that is about to go refers to, if the kernel knows it: *victim is NULL, or referenced
 * with a *descriptor of it, both to be given to victim_leave(). 0; -ENFILE, -ENOMEM: it cannot be
 * told, and must not go, for somebody may have it open.
 */
static int victim_find(struct fs *fs, const struct held *parent, const char *name,
		       struct node **victim, int *descriptor)
{
	struct identity identity;
	struct stat st;
	int error;

	*victim = NULL;
	*descriptor = open_name(fs, parent, name);
	if (*descriptor < 0)
		return *descriptor == -ENFILE || *descriptor == -ENOMEM ? *descriptor : 0;
	error = backing_identify(&fs->backing, *descriptor, &identity, &st);
	if (!error)
		*victim = node_find(&fs->nodes, &identity);
	if (!*victim)
		close(*descriptor);
	return error == -ENOMEM ? error : 0;
}

/* After the name went, or stayed. */
static void victim_leave(struct fs *fs, struct node *victim, const struct held *parent,
			 const char *name, int descriptor, bool gone)
{
	struct stat st;
	bool removed;

	if (!victim)
		return;
	if (gone) {
		/* Without a name it is found through its file, if that is open, or not at all. */
		removed = S_ISDIR(victim->type) || fstat(descriptor, &st) || st.st_nlink == 0;
		node_unlink(&fs->nodes, victim, parent->node, name, descriptor, removed,
			    removed && !file_keep(&fs->files, victim));
		/* Its other names need not be known, and somebody may have it open. */
		if (!removed && fs->stateless && !victim->device->handles_open)
			file_cling(&fs->files, victim);
		if (S_ISDIR(victim->type))
			flusher_folder_removed(fs->flusher, victim);
	} else {
		close(descriptor);
	}
	node_put(&fs->nodes, victim);
}

static void remove_name(fuse_req_t req, fuse_ino_t parent_ino, const char *name, int flags)
{
	struct fs *fs = fs_of(req);
	struct held parent;
	struct node *victim;
	int descriptor, error = is_name(name) ? hold(fs, parent_ino, &parent) : -EINVAL;

	if (error) {
		reply_error(req, error);
		return;
	}
	error = victim_find(fs, &parent, name, &victim, &descriptor);
	if (victim)
		error = file_keep_room(&fs->files, victim);
	if (!error && unlinkat(parent.descriptor, name, flags))
		error = -errno;
	victim_leave(fs, victim, &parent, name, descriptor, !error);
	if (!error)
		error = flusher_names_changed(fs->flusher, parent.node);
	unhold(fs, &parent);
	reply_error(req, error);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, 0);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, AT_REMOVEDIR);
}

/* Tells the nodes that a rename has moved; victim: what was replaced or exchanged. */
static void renamed(struct fs *fs, struct node *moved, const struct held *from, const char *name,
		    struct node *victim, int victim_descriptor, const struct held *to,
		    const char *new_name, unsigned int flags)
{
	if (flags & RENAME_EXCHANGE) {
		if (victim) {
			node_rename(&fs->nodes, victim, from->node, name);
			close(victim_descriptor);
			node_put(&fs->nodes, victim);
		}
	} else if (victim != moved) {
		victim_leave(fs, victim, to, new_name, victim_descriptor, true);
	} else { /* two names of one file: nothing was renamed (rename(2)) */
		victim_leave(fs, victim, to, new_name, victim_descriptor, false);
		return;
	}
	if (moved)
		node_rename(&fs->nodes, moved, to->node, new_name);
}

void op_rename(fuse_req_t req, fuse_ino_t parent_ino, const char *name, fuse_ino_t new_parent_ino,
	       const char *new_name, unsigned int flags)
{
	struct fs *fs = fs_of(req);
	struct held from, to;
	struct node *moved, *victim = NULL;
	int moved_descriptor, victim_descriptor, error, unsynced;

	error = is_name(name) && is_name(new_name) ? hold(fs, parent_ino, &from) : -EINVAL;
	if (!error) {
		error = hold(fs, new_parent_ino, &to);
		if (error)
			unhold(fs, &from);
	}
	if (error) {
		reply_error(req, error);
		return;
	}
	error = victim_find(fs, &from, name, &moved, &moved_descriptor);
	if (!error)
		error = victim_find(fs, &to, new_name, &victim, &victim_descriptor);
	if (!error && victim && !(flags & RENAME_EXCHANGE))
		error = file_keep_room(&fs->files, victim);
	if (!error && renameat2(from.descriptor, name, to.descriptor, new_name, flags))
		error = -errno;
	if (error)
		victim_leave(fs, victim, &to, new_name, victim_descriptor, false);
	else
		renamed(fs, moved, &from, name, victim, victim_descriptor, &to, new_name, flags);
	victim_leave(fs, moved, &from, name, moved_descriptor, false);
	if (!error) {
		error = flusher_names_changed(fs->flusher, from.node);
		unsynced = to.node != from.node ? flusher_names_changed(fs->flusher, to.node) : 0;
		error = error ? error : unsynced;
	}
	unhold(fs, &from);
	unhold(fs, &to);
	reply_error(req, error);
}

/* Makes a file, as the caller. A descriptor, read-write, or negative errno. */
static int make_file(struct fs *fs, fuse_req_t req, const struct held *parent, const char *name,
		     mode_t mode)
{
	struct caller caller;
	int descriptor, error;

	do {
		error = caller_enter(fs, req, &caller);
		if (error)
			return error;
		descriptor =
			openat(parent->descriptor, name,
			       O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & ~S_IFMT);
		error = descriptor < 0 ? -errno : 0;
		caller_leave(&caller);
	} while ((error == -EMFILE || error == -ENFILE) && files_make_room(&fs->files));
	if (error)
		return error == -EMFILE ? -ENFILE : error;
	return descriptor;
}

/*
 * Gives a file that was just made its node and its place among the mapped ones. Found by its
 * descriptor, for by now its name may be another's. descriptor is consumed.
 */
static int made_file(struct fs *fs, const struct held *parent, const char *name, int descriptor,
		     struct fuse_entry_param *entry, struct node **node, struct file **file)
{
	int path, error;

	do
		path = backing_reopen(&fs->backing, descriptor, O_PATH);
	while ((path == -EMFILE || path == -ENFILE) && files_make_room(&fs->files));
	error = path < 0 ? (path == -EMFILE ? -ENFILE : path)
			 : lookup_descriptor(fs, parent, name, path, entry, node);
	if (error) {
		close(descriptor);
		return error;
	}
	error = file_adopt(&fs->files, *node, descriptor, file);
	if (error) {
		forget_node(fs, entry->ino, 1);
		node_put(&fs->nodes, *node);
	}
	return error;
}

void op_create(fuse_req_t req, fuse_ino_t parent_ino, const char *name, mode_t mode,
	       struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param entry;
	struct file *file;
	struct node *node;
	struct held parent;
	int descriptor, error = is_name(name) ? hold(fs, parent_ino, &parent) : -EINVAL;

	if (error) {
		reply_error(req, error);
		return;
	}
	error = files_room(&fs->files);
	if (!error) {
		descriptor = make_file(fs, req, &parent, name, mode);
		error = descriptor < 0 ? descriptor : 0;
	}
	/* The kernel did not know that there is one, and so has not checked whether the caller may
	 * open it, and would not truncate it: it is to look again (path_openat(), LOOKUP_REVAL). */
	if (error == -EEXIST && !(fi->flags & O_EXCL))
		error = -ESTALE;
	if (!error)
		error = made_file(fs, &parent, name, descriptor, &entry, &node, &file);
	if (!error) {
		error = flusher_names_changed(fs->flusher, parent.node);
		if (!error) {
			/* Once an open has been answered by ENOSYS the kernel sends no release,
			 * not even for what was created. */
			if (!fs->stateless)
				file_hold(&fs->files, file);
			else if (!file_reopens(fs, mode))
				file_cling(&fs->files, node);
			if (fuse_reply_create(req, &entry, fi)) {
				file_release(&fs->files, node);
				error = -EINTR;
			}
		} else {
			reply_error(req, error);
		}
		file_put(&fs->files, file);
		if (error)
			forget_node(fs, entry.ino, 1);
		node_put(&fs->nodes, node);
	} else {
		reply_error(req, error);
	}
	unhold(fs, &parent);
}
