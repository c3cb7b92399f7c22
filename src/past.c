/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the live tree was, for its point-in-time views (snapshot.h). Everything here is done before
 * a change: a slot, then a row, then the change. A state that says what is still so does no harm,
 * so the daemon may be killed anywhere.
 */
#include "snapshot.h"

#include "fs.h"
#include "log.h"
#include "view_ops.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

/* The state that what is changed now is kept in, or NULL: none is needed, or there is none yet. */
static struct own *state_of(const struct change *change, const struct node *node)
{
	struct own *past = node ? node->past : NULL;

	return past && (past->is_last || past->object.layer >= (int64_t)(2 * change->epoch)) ? past
											     : NULL;
}

/*
 * Whether some view needs a state, or one of an epoch, still. Its rows are removed when none does,
 * which may be while a change is under way.
 */
static bool is_needed_locked(const struct view *view, int64_t layer)
{
	return layer >= (int64_t)(2 * view->snapshots->oldest);
}

/* Frees states that no view needs. */
static void trim_locked(struct view *view, struct own *past)
{
	const int64_t oldest = (int64_t)(2 * view->snapshots->oldest);

	while (past && past->object.layer >= oldest)
		past = past->older;
	if (past && past->newer) {
		past->newer->older = NULL;
		own_free(past);
	}
}

/* Where a symbolic link leads to, to be freed. */
static int target_read(struct view *view, struct node *node, char **target)
{
	char text[PATH_MAX + 1];
	int descriptor = view_base_descriptor(view, node);
	ssize_t length;

	if (descriptor < 0)
		return descriptor;
	length = readlinkat(descriptor, "", text, PATH_MAX);
	if (length >= 0)
		*target = strndup(text, (size_t)length);
	else
		length = -errno;
	view_base_descriptor_put(view, node);
	return length < 0 ? (int)length : *target ? 0 : -ENOMEM;
}

/* What a change may make hot (store.h). */
struct items {
	int64_t first, last;
};

static const struct items no_items = {0, -1}, all_names = {HOT_NAMES, HOT_NAMES},
			  all_xattrs = {HOT_XATTRS, HOT_XATTRS};

/* The regions that bytes lie in. */
static struct items regions_of(uint64_t offset, uint64_t end)
{
	return end > offset ? (struct items){(int64_t)(offset / HOT_REGION),
					     (int64_t)((end - 1) / HOT_REGION)}
			    : no_items;
}

static int items_add_locked(struct view *view, const struct object *object, struct items items)
{
	const struct items has = regions_of(0, object->size);
	int error = 0;

	if (items.first >= 0 && items.last > has.last)
		items.last = has.last;
	for (; items.first <= items.last && !error; items.first++)
		error = hot_add_locked(view, object->id, items.first, true);
	return error;
}

static int items_mark_locked(struct change *change, const struct own *state, struct items items,
			     bool at_once)
{
	int error = 0;

	for (; items.first <= items.last && !error; items.first++)
		error = hot_mark_locked(change, state->object.id, items.first, at_once);
	return error;
}

static int state_add_locked(struct change *change, struct node *node, struct items items)
{
	struct view *view = change->view;
	struct object object = {0};
	struct own *own;
	int error;

	if (!is_needed_locked(view, (int64_t)(2 * change->epoch)))
		return 0;
	error = view_object_of_locked(view, node, (int64_t)(2 * change->epoch), &object);
	if (!error && S_ISLNK(node->type))
		error = target_read(view, node, &object.target);
	if (error) {
		object_free(&object);
		return error;
	}
	/* What it needs in memory it has before it is in the store. */
	error = own_new_locked(view, &object, &own);
	if (error)
		return error;
	error = store_begin(view->store);
	if (!error) {
		error = store_object_add(view->store, &own->object);
		if (!error)
			error = items_add_locked(view, &own->object, items);
		error = hot_end_locked(view, own->object.id, view_end(view, error));
	}
	if (!error)
		error = view_changed(view, 0);
	if (error) {
		own_free(own);
		return error;
	}
	hot_state_added(change);
	view->objects++;
	own->older = node->past;
	if (own->older)
		own->older->newer = own;
	atomic_store(&node->past, own);
	trim_locked(view, own);
	return 0;
}

/* Before items of a node are kept; attributes are, then. */
static int state_get(struct change *change, struct node *node, struct items items)
{
	struct view *view = change->view;
	struct stat st;
	int error = 0;

	if (!change->epoch || !node || state_of(change, node))
		return 0;
	pthread_mutex_lock(&view->lock);
	error = view_attach_locked(view, node);
	if (!error && !state_of(change, node)) {
		/* What has no name comes into no view, and has to stay in those that it is in. */
		error = view_stat_locked(view, node, &st);
		if (!error && st.st_nlink)
			error = state_add_locked(change, node, items);
		else if (!error && node->past)
			((struct own *)node->past)->is_last = true;
	}
	pthread_mutex_unlock(&view->lock);
	return error;
}

int past_attributes(struct change *change, struct node *node)
{
	return state_get(change, node, no_items);
}

/* --- Bytes ------------------------------------------------------------------------------------ */

#define RUN_BLOCKS ((uint64_t)256)

/* What could not be read cannot be kept: that much of the views is lost, and no more. */
static bool is_unreadable(int error)
{
	return error == -EIO || error == -EACCES || error == -EPERM || error == -ESTALE;
}

static void say_lost(struct view *view, struct node *node, uint64_t offset, uint64_t length,
		     int error)
{
	char *path = node_path(&view->fs->nodes, node);

	log_line(
		LOG_ERR,
		"%s: %ju bytes at %ju were to be changed, and could not be read to be kept (%s): they "
		"are lost in the views made before",
		path ? path : "a file", (uintmax_t)length, (uintmax_t)offset, strerror(-error));
	free(path);
}

/* Keeps blocks side by side of which none is kept yet. file NULL: it could not be opened: why. */
static int blocks_keep(struct change *change, struct node *node, struct own *state,
		       struct file *file, int why, uint64_t first, uint64_t count, bool at_once)
{
	struct view *view = change->view;
	const uint64_t offset = first * STORE_BLOCK;
	const size_t length = (size_t)(count * STORE_BLOCK);
	const size_t wanted = state->object.size - offset < length
				      ? (size_t)(state->object.size - offset)
				      : length;
	char *bytes = calloc(1, length);
	ssize_t had = why;
	int error = 0;

	if (!bytes)
		return -ENOMEM;
	/* (Behind the end of the file a block may have anything.) */
	if (file)
		had = mmapio_read(file->mapped, offset, bytes, wanted);
	if (had >= 0 && (size_t)had < wanted) /* it was made shorter behind the mount */
		had = -ESTALE;
	if (had < 0 && !is_unreadable((int)had)) {
		free(bytes);
		return (int)had;
	}
	pthread_mutex_lock(&view->lock);
	if (is_needed_locked(view, state->object.layer)) {
		error = items_mark_locked(change, state, regions_of(offset, offset + length),
					  at_once);
		if (!error)
			error = own_keep_locked(view, state, first, had < 0 ? NULL : bytes, count);
	}
	pthread_mutex_unlock(&view->lock);
	if (!error && had < 0)
		say_lost(view, node, offset, wanted, (int)had);
	free(bytes);
	return error;
}

static int bytes_keep(struct change *change, struct node *node, uint64_t offset, uint64_t end,
		      bool at_once)
{
	struct files *files = &change->view->fs->files;
	struct file *file = NULL;
	struct own *state;
	uint64_t block, last;
	int why = 0, error = state_get(change, node, regions_of(offset, end));

	if (error || !change->epoch || !(state = state_of(change, node)))
		return error;
	if (end > state->object.size)
		end = state->object.size;
	last = (end + STORE_BLOCK - 1) / STORE_BLOCK;
	for (block = offset / STORE_BLOCK; block < last && !error;) {
		uint64_t count = 0;

		while (block + count < last && count < RUN_BLOCKS &&
		       !own_has_block(state, block + count))
			count++;
		if (count && !file && !why)
			why = file_get(files, node, FILE_READ, &file);
		if (count && why && (why == -ESTALE || !is_unreadable(why)))
			error = why;
		else if (count)
			error = blocks_keep(change, node, state, file, why, block, count, at_once);
		block += count ? count : 1;
	}
	if (file)
		file_put(files, file);
	return error;
}

int past_bytes(struct change *change, struct node *node, uint64_t offset, uint64_t end)
{
	return bytes_keep(change, node, offset, end, true);
}

int past_cut(struct change *change, struct node *node, uint64_t size)
{
	/* The block that the new end lies in is written, behind that; else ctime tells. */
	const bool at_once = size % STORE_BLOCK != 0;
	struct view *view = change->view;
	struct files *files = &view->fs->files;
	struct file *file;
	struct own *state;
	off_t data = (off_t)size, hole;
	int error = state_get(change, node, regions_of(size, UINT64_MAX));

	if (error || !change->epoch || !(state = state_of(change, node)) ||
	    size >= state->object.size || size >= state->object.cut)
		return error;
	pthread_mutex_lock(&view->lock);
	if (is_needed_locked(view, state->object.layer))
		error = items_mark_locked(change, state, regions_of(size, state->object.size),
					  at_once);
	pthread_mutex_unlock(&view->lock);
	file = NULL;
	if (!error)
		error = file_get(files, node, FILE_READ, &file);
	/* What may not be read: no more is known than that it was there. */
	if (error && error != -ESTALE && is_unreadable(error))
		error = bytes_keep(change, node, size, state->object.size, at_once);
	while (!error && file) {
		data = lseek(mmapio_file_descriptor(file->mapped), data, SEEK_DATA);
		if (data < 0 || (uint64_t)data >= state->object.size)
			break;
		hole = lseek(mmapio_file_descriptor(file->mapped), data, SEEK_HOLE);
		if (hole < 0)
			break;
		error = bytes_keep(change, node, (uint64_t)data, (uint64_t)hole, at_once);
		data = hole;
	}
	if (!error && data < 0 && errno != ENXIO)
		error = -errno;
	if (file)
		file_put(files, file);
	pthread_mutex_lock(&view->lock);
	if (!error && is_needed_locked(view, state->object.layer))
		error = own_cut_locked(view, state, size);
	pthread_mutex_unlock(&view->lock);
	return error;
}

/* --- Extended attributes ---------------------------------------------------------------------- */

static int xattr_keep_locked(struct change *change, struct node *node, struct own *state,
			     const char *name, bool may_appear)
{
	struct view *view = change->view;
	struct object object = state->object;
	void *value = NULL;
	size_t size;
	ssize_t length;
	int found = object.has_xattrs ? store_xattr_get(view->store, object.id, name, &value, &size)
				      : 0;

	free(value);
	if (found < 0 || !is_needed_locked(view, object.layer))
		return found < 0 ? found : 0;
	if (found) /* (which may not have reached the disk) */
		return may_appear ? hot_mark_locked(change, object.id, HOT_XATTRS, false) : 0;
	length = view_live_xattr(view, node, name, &value);
	if (length < 0 && length != -ENODATA && length != -EOPNOTSUPP)
		return (int)length;
	found = length >= 0 || may_appear ? hot_mark_locked(change, object.id, HOT_XATTRS, false)
					  : 0;
	if (!found)
		found = store_begin(view->store);
	if (!found) {
		object.has_xattrs = true;
		found = store_xattr_set(view->store, object.id, name, length < 0 ? NULL : value,
					length < 0 ? 0 : (size_t)length);
		if (!found)
			found = store_object_set(view->store, &object);
		found = view_end(view, found);
		if (!found) {
			own_adopt(state, &object);
			found = view_changed(view, 0);
		}
	}
	free(value);
	return found;
}

static int xattrs_keep_locked(struct change *change, struct node *node, struct own *state)
{
	struct view *view = change->view;
	char *names = malloc(XATTR_LIST_MAX);
	int descriptor = names ? view_base_descriptor(view, node) : -ENOMEM, error = 0;
	ssize_t length = -1;

	if (descriptor >= 0) {
		length = listxattr(backing_path(descriptor).text, names, XATTR_LIST_MAX);
		if (length < 0)
			error = errno == EOPNOTSUPP ? 0 : -errno;
		view_base_descriptor_put(view, node);
	} else {
		error = descriptor;
	}
	for (ssize_t at = 0; at < length && !error; at += (ssize_t)strlen(names + at) + 1)
		error = xattr_keep_locked(change, node, state, names + at, false);
	free(names);
	return error;
}

static int xattrs_lose_locked(struct view *view, struct own *state)
{
	struct object object = state->object;
	int error = is_needed_locked(view, object.layer) ? store_begin(view->store) : 1;

	if (error)
		return error == 1 ? 0 : error;
	object.lost_xattrs = true;
	error = view_end(view, store_object_set(view->store, &object));
	if (error)
		return error;
	state->object.lost_xattrs = true;
	return view_changed(view, 0);
}

int past_xattr(struct change *change, struct node *node, const char *name, bool may_appear)
{
	struct view *view = change->view;
	struct own *state;
	int error = state_get(change, node, may_appear ? all_xattrs : no_items);

	if (error || !change->epoch || !(state = state_of(change, node)))
		return error;
	pthread_mutex_lock(&view->lock);
	error = name ? xattr_keep_locked(change, node, state, name, may_appear)
		     : xattrs_keep_locked(change, node, state);
	if (error != -ESTALE && is_unreadable(error))
		error = xattrs_lose_locked(view, state);
	pthread_mutex_unlock(&view->lock);
	return error;
}

int past_privileges(struct change *change, struct node *node)
{
	struct own *state = state_of(change, node);
	int error;

	if (!change->epoch || (state && state->has_privileges))
		return 0;
	error = past_xattr(change, node, "security.capability", false);
	state = state_of(change, node);
	if (!error && state)
		state->has_privileges = true;
	return error;
}

/* --- Names ------------------------------------------------------------------------------------ */

/* What is kept of a name: 1 and *object, 0 if it was absent; 0: nothing is. */
static int name_kept(struct change *change, struct node *folder, const char *name, int64_t *object)
{
	struct view *view = change->view;
	const struct own *state = state_of(change, folder);
	int found = 0;

	pthread_mutex_lock(&view->lock);
	if (state && state->object.has_names)
		found = store_name_get(view->store, state->object.id, name, object);
	pthread_mutex_unlock(&view->lock);
	return found;
}

static int name_keep(struct change *change, struct own *state, const char *name, int64_t object,
		     bool comes)
{
	struct view *view = change->view;
	struct object folder;
	int error;

	pthread_mutex_lock(&view->lock);
	folder = state->object;
	folder.has_names = true;
	error = is_needed_locked(view, folder.layer) ? 0 : 1;
	/* (What is made, and its absence not kept, has a later ctime than the view.) */
	if (!error && (object || comes))
		error = hot_mark_locked(change, folder.id, HOT_NAMES, false);
	if (!error)
		error = store_begin(view->store);
	if (!error) {
		error = store_name_set(view->store, folder.id, name, object);
		if (!error && !state->object.has_names)
			error = store_object_set(view->store, &folder);
		error = view_end(view, error);
		if (!error) {
			own_adopt(state, &folder);
			error = view_changed(view, 0);
		}
	}
	pthread_mutex_unlock(&view->lock);
	return error == 1 ? 0 : error;
}

/* That it is kept may not have reached the disk, and ctime does not tell of what has a state. */
static int name_mark(struct change *change, const struct own *state)
{
	int error = 0;

	pthread_mutex_lock(&change->view->lock);
	if (is_needed_locked(change->view, state->object.layer))
		error = hot_mark_locked(change, state->object.id, HOT_NAMES, false);
	pthread_mutex_unlock(&change->view->lock);
	return error;
}

int past_name(struct change *change, struct node *folder, const char *name, struct node *node,
	      struct node *comes)
{
	const struct own *child;
	struct own *state;
	int64_t object;
	int found, error = state_get(change, folder, node || comes ? all_names : no_items);

	if (error || !change->epoch)
		return error;
	found = name_kept(change, folder, name, &object);
	if (found < 0)
		return found;
	/* (One that came after the view has no state, and needs none.) */
	if (!(found == 1 && object == 0))
		error = past_attributes(change, node);
	state = state_of(change, folder);
	if (error || !state)
		return error;
	if (found == 1)
		return state_of(change, comes) ? name_mark(change, state) : 0;
	child = state_of(change, node);
	return name_keep(change, state, name, child ? child->object.id : 0,
			 state_of(change, comes));
}

/* --- Anchors: what keeps a file that the live tree has lost ----------------------------------- */

/* The path of a name in a folder of the live tree, to be freed, or NULL. */
static char *path_of(struct view *view, struct node *folder, const char *name)
{
	char *path = node_path(&view->fs->nodes, folder), *whole;

	if (!path || *path != '/' || asprintf(&whole, "%s/%s", path[1] ? path : "", name) < 0)
		whole = NULL;
	free(path);
	return whole;
}

struct anchor_name anchor_name(int64_t object)
{
	struct anchor_name name;

	snprintf(name.text, sizeof(name.text), "%" PRId64, object);
	return name;
}

void anchors_open_locked(struct view *view, int store)
{
	static const char folder[] = "anchors";
	struct snapshots *snapshots = view->snapshots;
	struct nodes *nodes = &view->fs->nodes;
	struct node *parent = NULL;
	struct stat st;
	int fd;

	if (snapshots->anchors >= 0 || !snapshots->hidden)
		return;
	if (mkdirat(store, folder, 0700) && errno != EEXIST)
		return;
	snapshots->anchors = openat(store, folder, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	/* Where nothing is found by its handle, names lead there. */
	fd = fcntl(store, F_DUPFD_CLOEXEC, 0);
	if (fd >= 0 &&
	    node_of_descriptor(nodes, nodes->root, snapshots->hidden, fd, false, &parent, &st)) {
		close(fd);
		return;
	}
	fd = fcntl(snapshots->anchors, F_DUPFD_CLOEXEC, 0);
	if (parent && fd >= 0 &&
	    node_of_descriptor(nodes, parent, folder, fd, false, &snapshots->anchors_node, &st))
		close(fd);
	node_put(nodes, parent);
}

/* The newest state that there is of a file; 0: there is none; or negative errno. */
static int64_t newest_state(struct view *view, const struct store_identity *file)
{
	struct object object;
	int64_t layer = 0, id = 0;
	int found;

	while ((found = store_object_past(view->store, layer, file, &object)) == 1) {
		layer = object.layer;
		id = object.id;
		object_free(&object);
	}
	return found < 0 ? found : id;
}

/* Where an object is, whose anchor has that name; for who finds it by its place. */
static int anchor_place_locked(struct view *view, const struct store_identity *base, int64_t object)
{
	char *path;
	int error;

	if (!view->snapshots->anchors_node)
		return 0;
	path = path_of(view, view->snapshots->anchors_node, anchor_name(object).text);
	error = path ? store_object_place(view->store, base, path) : -ENOMEM;
	free(path);
	return error;
}

/* A younger state of the same object needs the anchor as well. */
static bool anchor_goes_on_locked(struct view *view, int64_t object,
				  const struct store_identity *base)
{
	const int folder = view->snapshots->anchors;
	const int64_t newest = newest_state(view, base);

	return newest > 0 && newest != object &&
	       renameat(folder, anchor_name(object).text, folder, anchor_name(newest).text) == 0 &&
	       anchor_place_locked(view, base, newest) == 0;
}

void anchor_remove_locked(struct view *view, int64_t object)
{
	const struct anchor_name name = anchor_name(object);
	const int folder = view->snapshots->anchors;
	struct object row;
	struct node *node;

	if (folder < 0 || faccessat(folder, name.text, F_OK, AT_SYMLINK_NOFOLLOW) ||
	    store_object_get(view->store, object, &row) != 1)
		return;
	if (!anchor_goes_on_locked(view, object, &row.base) &&
	    unlinkat(folder, name.text, 0) == 0) {
		node = view_find(view, &row.base);
		if (node) {
			node->anchored = false;
			if (node->anchor_holds)
				node_put(&view->fs->nodes, node);
			node->anchor_holds = false;
		}
		node_put(&view->fs->nodes, node);
	}
	object_free(&row);
}

/*
 * A file with an anchor and other names: the link of the anchor is not to be counted as long as the
 * anchor is there, whether or not the kernel knows the file.
 */
static void anchor_hold_locked(struct view *view, struct node *node)
{
	node->anchored = true;
	if (!node->anchor_holds)
		node_ref(&view->fs->nodes, node);
	node->anchor_holds = true;
}

/* Calls for each anchor. */
static int anchors_each(struct view *view,
			int (*each)(struct view *view, const char *name, const struct stat *st,
				    void *context),
			void *context)
{
	const int folder = view->snapshots->anchors;
	int fd = folder >= 0 ? openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	DIR *listing = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;
	struct stat st;
	int error = 0;

	while (listing && !error && (entry = readdir(listing)))
		if (*entry->d_name != '.' &&
		    fstatat(folder, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			error = each(view, entry->d_name, &st, context);
	if (listing)
		closedir(listing);
	else if (fd >= 0)
		close(fd);
	return error;
}

static int anchor_load(struct view *view, const char *name, const struct stat *anchor,
		       void *context)
{
	struct nodes *nodes = &view->fs->nodes;
	struct node *node;
	struct stat st;
	int fd;

	(void)context;
	if (anchor->st_nlink < 2)
		return 0;
	fd = openat(view->snapshots->anchors, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (node_of_descriptor(nodes, view->snapshots->anchors_node, name, fd, false, &node, &st)) {
		close(fd);
		return 0;
	}
	anchor_hold_locked(view, node);
	node_put(nodes, node);
	return 0;
}

/* Of which state it is may not have reached the disk, and one of later may have its number: it is
 * the newest one's that is there. */
static int anchor_prove(struct view *view, const char *name, const struct stat *anchor,
			void *context)
{
	const int folder = view->snapshots->anchors;
	struct nodes *nodes = &view->fs->nodes;
	struct store_identity file;
	struct node *node;
	struct stat st;
	int64_t object;
	int fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	(void)anchor;
	(void)context;
	if (fd < 0)
		return 0;
	if (node_of_descriptor(nodes, NULL, NULL, fd, false, &node, &st)) {
		close(fd);
		return 0;
	}
	file = view_identity(node);
	object = newest_state(view, &file);
	node_put(nodes, node);
	if (object == 0)
		unlinkat(folder, name, 0);
	else if (object > 0 && strcmp(anchor_name(object).text, name) != 0)
		renameat(folder, name, folder, anchor_name(object).text);
	return 0;
}

void anchors_load_locked(struct view *view, bool crashed)
{
	if (crashed)
		(void)!anchors_each(view, anchor_prove, NULL);
	(void)!anchors_each(view, anchor_load, NULL);
}

struct layers {
	int64_t from, to;
};

static int anchor_release(struct view *view, const char *name, const struct stat *anchor,
			  void *context)
{
	const struct layers *layers = context;
	struct node *node = NULL;
	struct object object;
	struct change change;
	int found;

	if (anchor->st_nlink < 2)
		return 0;
	pthread_mutex_lock(&view->lock);
	found = store_object_get(view->store, strtoll(name, NULL, 10), &object);
	if (found == 1) {
		if (object.layer >= layers->from && object.layer <= layers->to)
			node = view_find(view, &object.base);
		object_free(&object);
	}
	pthread_mutex_unlock(&view->lock);
	if (!node)
		return 0;
	change_begin(view, &change, &node, 1);
	(void)!past_attributes(&change, node); /* (else ctime trips younger views) */
	pthread_mutex_lock(&view->lock);
	anchor_remove_locked(view, strtoll(name, NULL, 10));
	pthread_mutex_unlock(&view->lock);
	change_end(&change);
	node_put(&view->fs->nodes, node);
	return 0;
}

void anchors_release(struct view *view, int64_t from, int64_t to)
{
	struct layers layers = {from, to};

	(void)!anchors_each(view, anchor_release, &layers);
}

struct room {
	int64_t from, to;
	uint64_t bytes;
};

static int anchor_room(struct view *view, const char *name, const struct stat *st, void *context)
{
	struct room *room = context;
	struct object object;
	int found = store_object_get(view->store, strtoll(name, NULL, 10), &object);

	if (found != 1)
		return found;
	if (object.layer >= room->from && object.layer <= room->to)
		room->bytes += (uint64_t)st->st_blocks * 512;
	object_free(&object);
	return 0;
}

int anchors_room_locked(struct view *view, int64_t from, int64_t to, uint64_t *room)
{
	struct room sum = {.from = from, .to = to};
	int error = anchors_each(view, anchor_room, &sum);

	*room += sum.bytes;
	return error;
}

/* --- Places: where nothing is found by its handle, the store knows where it is -----------------
 */

/* Whether the object of a path is that one. */
static bool is_at(struct view *view, const char *path, const struct store_identity *object)
{
	struct nodes *nodes = &view->fs->nodes;
	struct node *node = NULL;
	struct store_identity found;
	struct stat st;
	int fd = backing_open_path(&view->fs->backing, path);
	bool same = false;

	if (fd < 0)
		return false;
	if (node_of_descriptor(nodes, NULL, NULL, fd, false, &node, &st)) {
		close(fd);
		return false;
	}
	found = view_identity(node);
	same = found.length == object->length &&
	       memcmp(found.bytes, object->bytes, found.length) == 0;
	node_put(nodes, node);
	return same;
}

/* All that is at one path is at the other, and the other way round. */
static int exchange(struct view *view, const char *path, const char *new_path)
{
	static const char apart[] = "/.mmapfs/exchanged"; /* of no object */
	int error = store_objects_move(view->store, new_path, apart);

	if (!error)
		error = store_objects_move(view->store, path, new_path);
	return error ? error : store_objects_move(view->store, apart, path);
}

static int move_locked(struct view *view, const struct store_moving *moving, const char *path,
		       const char *new_path)
{
	int error = store_begin(view->store);

	if (error)
		return error;
	error = exchange(view, path, new_path);
	if (!error)
		error = store_moving_set(view->store, moving);
	error = view_end(view, error);
	return error ? error : view_changed(view, 0);
}

int past_moving(struct change *change, struct node *folder, const char *name, struct node *node,
		struct node *new_folder, const char *new_name)
{
	struct view *view = change->view;
	struct store_moving moving;
	char *path, *new_path;
	int error = 0;

	if (!change->epoch || !node || node->device->handles_open)
		return 0;
	path = path_of(view, folder, name);
	new_path = path_of(view, new_folder, new_name);
	moving = (struct store_moving){view_identity(node), path, new_path};
	pthread_mutex_lock(&view->lock);
	if (path && new_path)
		error = move_locked(view, &moving, path, new_path);
	pthread_mutex_unlock(&view->lock);
	free(path);
	free(new_path);
	return error;
}

int past_moved_locked(struct view *view)
{
	struct store_moving moving;
	int found = store_moving_get(view->store, &moving);

	if (found != 1)
		return found;
	if (moving.path && moving.new_path && is_at(view, moving.path, &moving.object)) {
		/* It was not moved. */
		found = move_locked(view, NULL, moving.new_path, moving.path);
	} else {
		found = store_begin(view->store);
		if (!found)
			found = view_end(view, store_moving_set(view->store, NULL));
	}
	free((char *)moving.path);
	free((char *)moving.new_path);
	return found;
}

/* All of a file that cannot be anchored: its bytes and attributes, or where a link leads to. */
static int copy_all(struct change *change, struct node *node)
{
	int error = past_xattr(change, node, NULL, false);

	if (!error && S_ISREG(node->type))
		error = past_cut(change, node, 0);
	return error;
}

static int anchor_noted(struct view *view, struct node *node, const struct own *state, bool is_only)
{
	const struct store_identity base = view_identity(node);
	int error = 0;

	pthread_mutex_lock(&view->lock);
	if (is_only)
		node->anchored = true;
	else
		anchor_hold_locked(view, node);
	if (!node->device->handles_open && view->snapshots->anchors_node) {
		error = store_begin(view->store);
		if (!error)
			error = view_end(view, anchor_place_locked(view, &base, state->object.id));
	}
	pthread_mutex_unlock(&view->lock);
	return error;
}

/* Links a file into the store; a second anchor would be one link too many that is counted. 0,
 * negative errno. */
static int anchor_make(struct view *view, const struct own *state, int descriptor,
		       enum anchored *anchored)
{
	const struct anchor_name name = anchor_name(state->object.id);
	const int folder = view->snapshots->anchors;

	*anchored = NO_ANCHOR;
	if (folder < 0)
		return 0;
	for (const struct own *older = state->older; older; older = older->older)
		if (renameat(folder, anchor_name(older->object.id).text, folder, name.text) == 0)
			*anchored = HAD_ANCHOR;
	if (*anchored)
		return 0;
	if (linkat(AT_FDCWD, backing_path(descriptor).text, folder, name.text, AT_SYMLINK_FOLLOW) ==
	    0)
		*anchored = NEW_ANCHOR;
	else if (errno == EEXIST)
		*anchored = HAD_ANCHOR;
	else if (errno == ENOSPC || errno == EDQUOT)
		return -errno;
	return 0;
}

int past_removed(struct change *change, struct node *folder, const char *name, struct node *node,
		 struct node *comes, enum anchored *anchored)
{
	struct view *view = change->view;
	const struct own *state;
	struct stat st;
	int64_t object = 1;
	int descriptor, error = past_name(change, folder, name, node, comes);

	*anchored = NO_ANCHOR;
	if (error || !change->epoch || !node)
		return error;
	error = name_kept(change, folder, name, &object);
	state = state_of(change, node);
	if (error < 0 || !state)
		return error < 0 ? error : 0;
	if (S_ISDIR(node->type)) /* what it has of names is kept by now, since it is empty */
		return past_xattr(change, node, NULL, false);
	descriptor = view_base_descriptor(view, node);
	if (descriptor < 0)
		return descriptor;
	error = fstat(descriptor, &st) ? -errno : 0;
	/* One with other names is found by its handle. */
	if (!error && (st.st_nlink == 1 || !node->device->handles_open))
		error = anchor_make(view, state, descriptor, anchored);
	view_base_descriptor_put(view, node);
	if (*anchored)
		error = anchor_noted(view, node, state, st.st_nlink == 1);
	else if (!error && (st.st_nlink == 1 || !node->device->handles_open))
		error = copy_all(change, node);
	return error;
}
