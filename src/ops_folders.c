/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on folders: listing and syncing them. */
#include "ops.h"

#include "snapshot.h"
#include "watch.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Opens a node's folder for listing. */
static int open_folder(struct fs *fs, fuse_ino_t ino, struct folder **folder)
{
	struct held held;
	int descriptor, error = hold(fs, ino, &held);

	if (error)
		return error;
	do
		descriptor = backing_reopen(&fs->backing, held.descriptor, O_RDONLY | O_DIRECTORY);
	while ((descriptor == -EMFILE || descriptor == -ENFILE) && files_make_room(&fs->files));
	unhold(fs, &held);
	if (descriptor < 0)
		return descriptor == -EMFILE ? -ENFILE : descriptor;
	*folder = folder_new(descriptor);
	if (!*folder) {
		close(descriptor);
		return -ENOMEM;
	}
	return 0;
}

/* One that was registered. */
static void close_folder(struct fs *fs, uint64_t id)
{
	struct folder *folder = folder_unregister(&fs->folders, id);

	if (folder) {
		folder_free(folder);
		files_count(&fs->files, -1);
	}
}

void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct folder *folder;
	int error;

	if (fs->stateless) {
		reply_error(req, -ENOSYS); /* and is never asked again */
		return;
	}
	error = files_room(&fs->files);
	if (!error)
		error = open_folder(fs, ino, &folder);
	if (!error && !folder_register(&fs->folders, folder)) {
		folder_free(folder);
		error = -ENOMEM;
	}
	if (error) {
		reply_error(req, error);
		return;
	}
	files_count(&fs->files, 1);
	fi->fh = folder->id;
	if (fuse_reply_open(req, fi))
		close_folder(fs, folder->id);
}

void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	close_folder(fs_of(req), fi->fh);
	reply_error(req, 0);
}

static bool is_dot(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Adds one entry. The length it takes, more than size if it does not fit; or negative errno. */
static ssize_t add_entry(fuse_req_t req, const struct held *held, const struct dirent64 *found,
			 char *buffer, size_t size, bool plus)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param entry = {
		.attr.st_ino = backing_number(held->node->device, found->d_ino),
		.attr.st_mode = (mode_t)DTTOIF(found->d_type),
	};
	size_t length;
	int error;

	if (!plus)
		return (ssize_t)fuse_add_direntry(req, buffer, size, found->d_name, &entry.attr,
						  found->d_off);
	if (!is_dot(found->d_name)) {
		struct fuse_entry_param looked_up;
		struct node *node;

		if (fuse_add_direntry_plus(req, NULL, 0, found->d_name, NULL, 0) > size)
			return (ssize_t)size + 1;
		error = lookup_name(fs, held, found->d_name, &looked_up, &node);
		if (!error) {
			if (watch_is_stale(node)) /* the bare name, without attributes */
				forget_node(fs, node->id, 1);
			else
				entry = looked_up;
			node_put(&fs->nodes, node);
		} else if (error == -ENOMEM || error == -ENFILE) {
			return error;
		}
		/* else it has gone, or cannot be looked up: the bare name will do */
	}
	length = fuse_add_direntry_plus(req, buffer, size, found->d_name, &entry, found->d_off);
	return (ssize_t)length;
}

static int list_locked(fuse_req_t req, const struct held *held, struct folder *folder, off_t offset,
		       char *buffer, size_t size, bool plus, size_t *filled)
{
	const struct dirent64 *found;
	int more, error = folder_seek_locked(folder, offset);

	*filled = 0;
	if (error)
		return error;
	while ((more = folder_peek_locked(folder, &found)) > 0) {
		ssize_t length = snapshot_hides(fs_of(req)->view, held->node, found->d_name)
					 ? 0
					 : add_entry(req, held, found, buffer + *filled,
						     size - *filled, plus);

		if (length < 0)
			return (int)length;
		if ((size_t)length > size - *filled)
			break;
		*filled += (size_t)length;
		folder_advance_locked(folder);
	}
	return more < 0 ? more : 0;
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		 const struct fuse_file_info *fi, bool plus)
{
	struct fs *fs = fs_of(req);
	struct folder *folder, *opened = NULL;
	struct held held = {0};
	char *buffer = malloc(size);
	size_t filled = 0;
	int error = buffer ? hold(fs, ino, &held) : -ENOMEM;

	if (error)
		goto out;
	folder = fs->stateless ? NULL : folder_find(&fs->folders, fi->fh);
	if (!folder) {
		error = open_folder(fs, ino, &opened);
		folder = opened;
	}
	if (!error) {
		pthread_mutex_lock(&folder->lock);
		error = list_locked(req, &held, folder, offset, buffer, size, plus, &filled);
		pthread_mutex_unlock(&folder->lock);
	}
	if (opened)
		folder_free(opened);
	unhold(fs, &held);
out:
	/* What was added counts, and an error will come again. */
	if (error && filled == 0)
		reply_error(req, error);
	else
		fuse_reply_buf(req, buffer, filled);
	free(buffer);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		struct fuse_file_info *fi)
{
	list(req, ino, size, offset, fi, false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	list(req, ino, size, offset, fi, true);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct folder *folder = fs->stateless ? NULL : folder_find(&fs->folders, fi->fh);
	struct node *node = node_get(&fs->nodes, ino);
	int error = node ? flusher_sync_folder(fs->flusher, node, folder ? folder->descriptor : -1)
			 : -ESTALE;

	(void)datasync;
	node_put(&fs->nodes, node);
	reply_error(req, error);
}
