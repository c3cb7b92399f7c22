/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folder that point-in-time views are in: made, listed, renamed and dropped as folders in it.
 * It is no node, and belongs to the owner of the mount, so that the kernel lets nobody else do so.
 */
#include "snapshot_ops.h"

#include "log.h"

#include <ctype.h>
#include <linux/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void attributes(fuse_req_t req, struct stat *st)
{
	struct view *view = view_of(req);
	const struct snapshot *snapshot;

	*st = (struct stat){
		.st_ino = SNAPSHOT_FOLDER,
		.st_mode = S_IFDIR | 0755,
		.st_nlink = 2,
		.st_uid = geteuid(),
		.st_gid = getegid(),
		.st_blksize = (blksize_t)STORE_BLOCK,
	};
	pthread_mutex_lock(&view->lock);
	TAILQ_FOREACH (snapshot, &view->snapshots->all, all) {
		if (snapshot->state == SNAPSHOT_WHOLE)
			st->st_mtim = st->st_ctim = st->st_atim = snapshot->instant;
		if (snapshot_find_locked(view, snapshot->name) == snapshot)
			st->st_nlink++;
	}
	pthread_mutex_unlock(&view->lock);
}

void snapshot_folder_entry(fuse_req_t req)
{
	const struct options *options = fs_of(req)->options;
	struct fuse_entry_param entry = {
		.ino = SNAPSHOT_FOLDER,
		.attr_timeout = options->attr_timeout,
		.entry_timeout = options->entry_timeout,
	};

	attributes(req, &entry.attr);
	fuse_reply_entry(req, &entry);
}

void snapshot_folder_getattr(fuse_req_t req)
{
	struct stat st;

	attributes(req, &st);
	fuse_reply_attr(req, &st, 0);
}

/* The root of a view, as the kernel is told of it. */
static int entry_of(struct view *view, const char *name, struct fuse_entry_param *entry)
{
	struct snapshot *snapshot;
	struct node *root;
	int error = -ENOENT;

	pthread_mutex_lock(&view->lock);
	snapshot = snapshot_find_locked(view, name);
	if (snapshot)
		error = snapshot_root(view, snapshot, &root);
	if (!error) {
		error = view_attach_locked(view, root);
		if (!error)
			error = view_entry_locked(view, root, entry);
		if (error == -EIO) { /* what cannot be read can be dropped */
			*entry = (struct fuse_entry_param){.ino = root->id};
			entry->attr = (struct stat){.st_ino = root->id,
						    .st_mode = S_IFDIR,
						    .st_nlink = 2,
						    .st_uid = geteuid(),
						    .st_gid = getegid()};
			node_lookup(&view->fs->nodes, root);
			error = 0;
		}
		node_put(&view->fs->nodes, root);
	}
	pthread_mutex_unlock(&view->lock);
	return error;
}

static void reply_root(fuse_req_t req, const char *name)
{
	struct view *view = view_of(req);
	struct fuse_entry_param entry;
	int error = entry_of(view, name, &entry);

	if (error)
		reply_error(req, error);
	else if (fuse_reply_entry(req, &entry))
		view_forget(view, entry.ino, 1);
}

void snapshot_folder_lookup(fuse_req_t req, const char *name)
{
	reply_root(req, name);
}

/* Names that are easily typed and shown. */
static int name_check(const char *name)
{
	if (strlen(name) > 255)
		return -ENAMETOOLONG;
	if (*name == '.')
		return -EINVAL;
	for (const char *at = name; *at; at++)
		if (iscntrl((unsigned char)*at))
			return -EINVAL;
	return 0;
}

void snapshot_folder_mkdir(fuse_req_t req, const char *name, mode_t mode)
{
	struct view *view = view_of(req);
	struct snapshot *snapshot;
	int error = name_check(name);

	/* Who may not write it himself makes one to be read. */
	if (!error)
		error = snapshot_make(view, name,
				      !(mode & ~fuse_req_ctx(req)->umask & S_IWUSR) ||
					      fs_of(req)->options->snap_readonly,
				      &snapshot);
	if (error)
		reply_error(req, error);
	else
		reply_root(req, name);
}

void snapshot_folder_rmdir(fuse_req_t req, const char *name)
{
	reply_error(req, snapshot_drop(view_of(req), name));
}

void snapshot_folder_rename(fuse_req_t req, const char *name, const char *new_name,
			    unsigned int flags)
{
	int error = flags & ~(unsigned int)RENAME_NOREPLACE ? -EINVAL : name_check(new_name);

	reply_error(req, error ? error : snapshot_rename(view_of(req), name, new_name));
}

/* --- What mmapfsctl(1) asks ------------------------------------------------------------------- */

static void reply_text(fuse_req_t req, const char *text, size_t size)
{
	const size_t length = strlen(text);

	if (!size)
		fuse_reply_xattr(req, length);
	else if (length > size)
		reply_error(req, -ERANGE);
	else
		fuse_reply_buf(req, text, length);
}

static struct snapshot *at_index_locked(struct view *view, unsigned long index)
{
	struct snapshot *snapshot;

	TAILQ_FOREACH (snapshot, &view->snapshots->all, all)
		if (snapshot_find_locked(view, snapshot->name) == snapshot && index-- == 0)
			break;
	return snapshot;
}

/* "SECONDS.NANOSECONDS STATE ro|rw BYTES LOST NAME" of the index-th view, LOST being of how many
 * objects something was lost. 0 or negative errno. */
static int describe(struct view *view, unsigned long index, char *text, size_t size)
{
	const struct snapshot *snapshot;
	uint64_t room = 0, lost = 0;
	int error = -ENODATA;

	pthread_mutex_lock(&view->lock);
	snapshot = at_index_locked(view, index);
	if (snapshot)
		error = snapshot_room_locked(view, snapshot, &room);
	if (!error)
		error = store_lost_count(view->store, (int64_t)(2 * snapshot->epoch), &lost);
	if (!error)
		snprintf(text, size, "%jd.%09ld %s %s %ju %ju %s",
			 (intmax_t)snapshot->instant.tv_sec, snapshot->instant.tv_nsec,
			 snapshot->state == SNAPSHOT_WHOLE ? "whole" : "given-up",
			 snapshot->read_only ? "ro" : "rw", (uintmax_t)room, (uintmax_t)lost,
			 snapshot->name);
	pthread_mutex_unlock(&view->lock);
	return error;
}

/* "WHAT PATH" of the number-th object that something was lost of in the index-th view; WHAT: of n,
 * x, b (names, extended attributes, bytes). 0 or negative errno. */
static int describe_lost(struct view *view, unsigned long index, unsigned long number, char *text,
			 size_t size)
{
	const struct snapshot *snapshot;
	struct object lost;
	char *path;
	int found = 0;

	pthread_mutex_lock(&view->lock);
	snapshot = at_index_locked(view, index);
	if (snapshot)
		found = store_lost_get(view->store, (int64_t)(2 * snapshot->epoch), number, &path,
				       &lost);
	pthread_mutex_unlock(&view->lock);
	if (found != 1)
		return found ? found : -ENODATA;
	snprintf(text, size, "%s%s%s %s", lost.lost_names ? "n" : "", lost.lost_xattrs ? "x" : "",
		 lost.lost_blocks ? "b" : "", path);
	free(path);
	return 0;
}

void snapshot_folder_getxattr(fuse_req_t req, const char *name, size_t size)
{
	struct view *view = view_of(req);
	char text[PATH_MAX + 16];
	unsigned long index, number;
	int error = -ENODATA, end = 0;

	if (strcmp(name, "mmapfs.snapname") == 0) {
		reply_text(req, fs_of(req)->options->snapname, size);
		return;
	}
	if (sscanf(name, "mmapfs.view.%lu%n", &index, &end) == 1 && !name[end])
		error = describe(view, index, text, sizeof(text));
	else if (sscanf(name, "mmapfs.lost.%lu.%lu%n", &index, &number, &end) == 2 && !name[end])
		error = describe_lost(view, index, number, text, sizeof(text));
	if (error)
		reply_error(req, error);
	else
		reply_text(req, text, size);
}

/* --- Listing ---------------------------------------------------------------------------------- */

struct names {
	char **name;
	size_t count;
};

static void names_free(struct names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->name[i]);
	free(names->name);
	free(names);
}

static int names_add(struct names *names, const char *name)
{
	char **longer = realloc(names->name, (names->count + 1) * sizeof(*longer));

	if (!longer)
		return -ENOMEM;
	names->name = longer;
	longer[names->count] = strdup(name);
	if (!longer[names->count])
		return -ENOMEM;
	names->count++;
	return 0;
}

/* What there is now. NULL without memory. */
static struct names *names_now(struct view *view)
{
	struct names *names = calloc(1, sizeof(*names));
	struct snapshot *snapshot;
	int error = names ? names_add(names, ".") : -ENOMEM;

	if (!error)
		error = names_add(names, "..");
	pthread_mutex_lock(&view->lock);
	TAILQ_FOREACH (snapshot, &view->snapshots->all, all)
		if (!error && snapshot_find_locked(view, snapshot->name) == snapshot)
			error = names_add(names, snapshot->name);
	pthread_mutex_unlock(&view->lock);
	if (error && names) {
		names_free(names);
		names = NULL;
	}
	return names;
}

void snapshot_folder_opendir(fuse_req_t req, struct fuse_file_info *fi)
{
	struct names *names = names_now(view_of(req));

	fi->fh = (uintptr_t)names;
	if (!names)
		reply_error(req, -ENOMEM);
	else if (fuse_reply_open(req, fi))
		names_free(names);
}

void snapshot_folder_releasedir(fuse_req_t req, struct fuse_file_info *fi)
{
	if (fi->fh)
		names_free((struct names *)(uintptr_t)fi->fh);
	reply_error(req, 0);
}

/* One entry; what it takes, or more than size. */
static size_t add_entry(fuse_req_t req, const char *name, off_t offset, char *buffer, size_t size,
			bool plus)
{
	struct fuse_entry_param entry = {.attr = {.st_ino = SNAPSHOT_FOLDER, .st_mode = S_IFDIR}};
	struct view *view = view_of(req);
	bool known;
	size_t length = plus ? fuse_add_direntry_plus(req, NULL, 0, name, NULL, 0)
			     : fuse_add_direntry(req, NULL, 0, name, NULL, 0);

	if (length > size)
		return length;
	known = offset > 2 && entry_of(view, name, &entry) == 0;
	length = plus ? fuse_add_direntry_plus(req, buffer, size, name, &entry, offset)
		      : fuse_add_direntry(req, buffer, size, name, &entry.attr, offset);
	if (known && !plus)
		view_forget(view, entry.ino, 1);
	return length;
}

void snapshot_folder_readdir(fuse_req_t req, size_t size, off_t offset,
			     const struct fuse_file_info *fi, bool plus)
{
	struct names *opened = (struct names *)(uintptr_t)fi->fh;
	/* (Where nobody opens it: as it is at each request, of which few folders need two.) */
	struct names *names = opened ? opened : names_now(view_of(req));
	char *buffer = malloc(size);
	size_t filled = 0;

	for (size_t at = (size_t)offset; buffer && names && at < names->count; at++) {
		size_t length = add_entry(req, names->name[at], (off_t)at + 1, buffer + filled,
					  size - filled, plus);

		if (length > size - filled)
			break;
		filled += length;
	}
	if (buffer && names)
		fuse_reply_buf(req, buffer, filled);
	else
		reply_error(req, -ENOMEM);
	if (names && !opened)
		names_free(names);
	free(buffer);
}

void snapshot_folder_sync(fuse_req_t req)
{
	struct view *view = view_of(req);

	int error = view->store ? snapshots_settle(view) : 0;

	reply_error(req, view->store && !error ? view_sync(view) : error);
}
