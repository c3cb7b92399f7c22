/* SPDX-License-Identifier: Apache-2.0 */
/* The view (view.h): nodes and their own state. */
#include "view.h"

#include "fs.h"
#include "log.h"
#include "snapshot.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- Identities ------------------------------------------------------------------------------- */

struct store_identity view_identity(const struct node *node)
{
	const struct identity *identity = &node->identity;
	struct store_identity kept = {.length = sizeof(uint64_t) + sizeof(int32_t) +
						identity->length};

	memcpy(kept.bytes, &node->device->number, sizeof(uint64_t));
	memcpy(kept.bytes + sizeof(uint64_t), &identity->type, sizeof(int32_t));
	memcpy(kept.bytes + sizeof(uint64_t) + sizeof(int32_t), identity->bytes, identity->length);
	return kept;
}

/* False: it is none, or of a file system below BACKING's own, which only a path leads to. */
static bool identity_restore(const struct view *view, const struct store_identity *kept,
			     struct identity *identity)
{
	const struct backing_device *own = view->fs->backing.own;
	const size_t head = sizeof(uint64_t) + sizeof(int32_t);
	uint64_t number;

	if (kept->length < head)
		return false;
	memcpy(&number, kept->bytes, sizeof(number));
	if (number != own->number)
		return false;
	memset(identity, 0, sizeof(*identity));
	identity->device = own->device;
	identity->mount = own->mount_id;
	memcpy(&identity->type, kept->bytes + sizeof(uint64_t), sizeof(int32_t));
	identity->length = (uint32_t)(kept->length - head);
	memcpy(identity->bytes, kept->bytes + head, identity->length);
	return true;
}

static bool identity_is(const struct node *node, const struct store_identity *kept)
{
	const struct store_identity now = view_identity(node);

	return now.length == kept->length && memcmp(now.bytes, kept->bytes, now.length) == 0;
}

/* --- Own state -------------------------------------------------------------------------------- */

void own_free(struct own *own)
{
	struct chunk *chunk, *next;

	if (!own)
		return;
	own_free(own->older);
	HASH_ITER (hh, own->chunks, chunk, next) {
		HASH_DEL(own->chunks, chunk);
		if (chunk < own->loaded || chunk >= own->loaded + own->loaded_count)
			free(chunk);
	}
	free(own->loaded);
	free(own->owners);
	object_free(&own->object);
	pthread_rwlock_destroy(&own->data);
	free(own);
}

void own_adopt(struct own *own, const struct object *object)
{
	struct object *to = &own->object;

	to->mode = object->mode;
	to->uid = object->uid;
	to->gid = object->gid;
	to->links = object->links;
	to->atime = object->atime;
	to->mtime = object->mtime;
	to->ctime = object->ctime;
	to->parent = object->parent;
	to->has_names = object->has_names;
	to->has_xattrs = object->has_xattrs;
}

/* One more of an array that grows. */
static int chunk_load(void *context, uint64_t number, const struct store_chunk *row)
{
	struct own *own = context;
	struct chunk *chunk;

	if ((own->loaded_count & (own->loaded_count - 1)) == 0) {
		size_t room = own->loaded_count ? 2 * own->loaded_count : 1;

		chunk = realloc(own->loaded, room * sizeof(*chunk));
		if (!chunk)
			return -ENOMEM;
		own->loaded = chunk;
	}
	chunk = &own->loaded[own->loaded_count++];
	chunk->number = number;
	chunk->row = *row;
	chunk->verified = 0;
	chunk->undo = 0;
	for (int i = 0; i < STORE_CHUNK; i++)
		own->block_count += row->slots[i] >= SLOT_FIRST;
	return 0;
}

static int by_slot(const void *a, const void *b)
{
	const struct slot_owner *first = a, *second = b;

	return first->slot < second->slot ? -1 : first->slot > second->slot;
}

static int chunks_load(struct view *view, struct own *own)
{
	int error = store_chunks_each(view->store, own->object.id, chunk_load, own);

	if (error || !own->loaded_count)
		return error;
	own->owners = malloc(own->block_count * sizeof(*own->owners) + 1);
	if (!own->owners || own->loaded_count > UINT32_MAX)
		return -ENOMEM;
	for (size_t at = 0; at < own->loaded_count; at++) {
		struct chunk *chunk = &own->loaded[at];

		HASH_ADD(hh, own->chunks, number, sizeof(chunk->number), chunk);
		if (!chunk->hh.tbl)
			return -ENOMEM;
		for (uint32_t i = 0; i < STORE_CHUNK; i++)
			if (chunk->row.slots[i] >= SLOT_FIRST)
				own->owners[own->owners_count++] =
					(struct slot_owner){chunk->row.slots[i], (uint32_t)at, i};
	}
	qsort(own->owners, own->owners_count, sizeof(*own->owners), by_slot);
	return 0;
}

int own_new_locked(struct view *view, struct object *object, struct own **out)
{
	struct own *own = calloc(1, sizeof(*own));
	int error = 0;

	if (!own) {
		object_free(object);
		return -ENOMEM;
	}
	own->object = *object;
	pthread_rwlock_init(&own->data, NULL);
	if (object->has_blocks)
		error = chunks_load(view, own);
	if (error)
		own_free(own);
	else
		*out = own;
	return error;
}

/* Gives the node what the store has of it; takes over *object. */
static int own_load_locked(struct view *view, struct node *node, struct object *object)
{
	struct own *own;
	int error = own_new_locked(view, object, &own);

	if (!error)
		atomic_store(&node->own, own);
	return error;
}

/* Which layer of the store a node's own state is in. */
static int64_t layer_of(const struct node *node)
{
	const struct snapshot *snapshot = snapshot_of(node);

	return snapshot ? (int64_t)(2 * snapshot->epoch + 1) : 0;
}

/* Loads the states that a node of the live tree had. */
static int past_load_locked(struct view *view, struct node *node)
{
	const struct store_identity kept = view_identity(node);
	struct object object;
	struct own *own, *newest = NULL;
	int64_t layer = (int64_t)(2 * view->snapshots->oldest) - 1;
	int found;

	while ((found = store_object_past(view->store, layer, &kept, &object)) == 1) {
		layer = object.layer;
		found = own_new_locked(view, &object, &own);
		if (found)
			break;
		own->older = newest;
		if (newest)
			newest->newer = own;
		newest = own;
	}
	if (found)
		own_free(newest);
	else
		atomic_store(&node->past, newest);
	return found;
}

/* Looks what the store has of a node of BACKING, once. */
int view_attach_locked(struct view *view, struct node *node)
{
	struct node *base = view_base(node);
	struct store_identity kept;
	struct object object;
	int found = 0;

	if (node->is_attached)
		return 0;
	if (view->objects && !view_is_made(node)) {
		kept = view_identity(base);
		if (view->snapshots && !base->is_attached) {
			found = past_load_locked(view, base);
			base->is_attached = found == 0;
		}
		if (found == 0 && (node != base || !view->snapshots))
			found = store_object_find(view->store, layer_of(node), &kept, &object);
		if (found == 1)
			found = own_load_locked(view, node, &object);
	}
	if (found == 0)
		node->is_attached = true;
	return found;
}

/* The first state from the view's instant on that the live tree had of a node. */
static struct own *past_state(const struct node *node)
{
	const struct snapshot *snapshot = snapshot_of(node);
	struct own *state = snapshot && node->parent ? node->parent->past : NULL;
	const int64_t layer = snapshot ? (int64_t)(2 * snapshot->epoch) : 0;

	if (!state || state->object.layer < layer)
		return NULL;
	while (state->older && state->older->object.layer >= layer)
		state = state->older;
	return state;
}

struct own *view_state(struct node *node)
{
	struct own *own = node->own;

	return own ? own : past_state(node);
}

struct own *view_state_next(struct node *node, const struct own *state)
{
	return state == node->own ? past_state(node) : state->newer;
}

/* (splitmix64) */
uint64_t view_number(const struct node *node, uint64_t number)
{
	const struct snapshot *snapshot = snapshot_of(node);
	uint64_t mixed = number + (snapshot ? snapshot->epoch : 0) * UINT64_C(0x9e3779b97f4a7c15);

	if (!snapshot)
		return number;
	mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (mixed ^ (mixed >> 31)) | UINT64_C(1) << 63;
}

int view_node(struct view *view, uint64_t ino, struct node **out)
{
	struct node *node = node_get(&view->fs->nodes, ino);
	int error = 0;

	if (!node)
		return -ESTALE;
	if (!node->is_attached) {
		pthread_mutex_lock(&view->lock);
		error = view_attach_locked(view, node);
		pthread_mutex_unlock(&view->lock);
	}
	if (error)
		node_put(&view->fs->nodes, node);
	else
		*out = node;
	return error;
}

int view_base_descriptor(struct view *view, struct node *node)
{
	struct fs *fs = view->fs;
	int descriptor;

	do
		descriptor = node_descriptor(&fs->nodes, view_base(node));
	while (descriptor == -ENFILE && files_make_room(&fs->files));
	return descriptor;
}

void view_base_descriptor_put(struct view *view, struct node *node)
{
	node_descriptor_put(&view->fs->nodes, view_base(node));
}

/*
 * The path of an object in BACKING, to be freed. What was found by its handle has own state, which
 * knows its own.
 */
static char *base_path(struct view *view, struct node *node)
{
	struct node *top;
	char *path = node_path_from(&view->fs->nodes, node, &top), *whole = path;
	const struct own *own;

	if (!path)
		return NULL;
	own = top->own ? top->own : top->past;
	if (top != view->fs->nodes.root) {
		if (!own || !own->object.base_path)
			whole = strdup(NO_PATH);
		else if (asprintf(&whole, "%s%s", own->object.base_path, path) < 0)
			whole = NULL;
		free(path);
	}
	node_put(&view->fs->nodes, top);
	return whole;
}

int view_object_of_locked(struct view *view, struct node *node, int64_t layer,
			  struct object *object)
{
	struct stat st;
	int error = view_stat_locked(view, node, &st);

	if (error)
		return error;
	*object = (struct object){
		.layer = layer,
		.has_base = true,
		.base = view_identity(view_base(node)),
		.base_path = base_path(view, view_base(node)),
		.base_size = (uint64_t)st.st_size,
		.base_mtime = st.st_mtim,
		.base_ctime = st.st_ctim,
		.ino = st.st_ino,
		.mode = st.st_mode,
		.uid = st.st_uid,
		.gid = st.st_gid,
		.device = st.st_rdev,
		.links = st.st_nlink ? st.st_nlink : 1, /* some do not count */
		.size = (uint64_t)st.st_size,
		.blocks = (uint64_t)st.st_blocks,
		.atime = st.st_atim,
		.mtime = st.st_mtim,
		.ctime = st.st_ctim,
		.cut = NOT_CUT,
	};
	return object->base_path ? 0 : -ENOMEM;
}

struct node *view_find(struct view *view, const struct store_identity *base)
{
	struct identity identity;

	return identity_restore(view, base, &identity) ? node_find(&view->fs->nodes, &identity)
						       : NULL;
}

int view_own_locked(struct view *view, struct node *node)
{
	struct object object = {0};
	int error = view_attach_locked(view, node);

	if (error || node->own)
		return error;
	/* What was made has its state from the beginning. */
	error = view_object_of_locked(view, node, layer_of(node), &object);
	if (error)
		return error;
	error = store_begin(view->store);
	if (!error) {
		error = store_object_add(view->store, &object);
		if (!error)
			error = store_commit(view->store); /* it says nothing new */
		else
			store_rollback(view->store);
	}
	if (error) {
		object_free(&object);
		return error;
	}
	view->objects++;
	error = own_load_locked(view, node, &object);
	if (error)
		node->is_attached = false; /* it is in the store, and to be looked for again */
	return error;
}

int view_own(struct view *view, struct node *node)
{
	int error = 0;

	if (!node->own) {
		pthread_mutex_lock(&view->lock);
		error = view_own_locked(view, node);
		pthread_mutex_unlock(&view->lock);
	}
	return error;
}

void view_forgotten(struct view *view, struct node *node)
{
	struct own *own = node->own;
	int error;

	if (!own)
		return;
	pthread_mutex_lock(&view->lock);
	/* Under the lock, since each lookup is: the kernel may know it again. */
	if (own->object.links == 0 && !own->removed && !node_is_known(&view->fs->nodes, node)) {
		error = store_begin(view->store);
		if (!error) {
			error = store_object_remove(view->store, own->object.id);
			error = view_end(view, error);
		}
		if (!error)
			(void)!view_changed(view, 0); /* it says what has failed */
		/* Else it is an orphan, which the next mount removes. */
		own->removed = true;
		node->removed = true;
	}
	pthread_mutex_unlock(&view->lock);
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/*
 * The trip wire of a point-in-time view: ctime, which nobody can set. Of what was changed since a
 * view was made there is a state of its epoch or of a later one: so what comes after the states of
 * before that view, from epoch on, has no later ctime than the view.
 */
static bool is_tripped(const struct node *node, uint64_t epoch, const struct timespec *ctime)
{
	const struct snapshot *snapshot = snapshot_of(node);

	while (snapshot && (snapshot->epoch < epoch || snapshot->state != SNAPSHOT_WHOLE))
		snapshot = snapshot->newer;
	return snapshot && view_is_later(ctime, &snapshot->settled);
}

static int check_ctime(struct view *view, struct node *node, uint64_t epoch,
		       const struct timespec *ctime)
{
	char *path;

	if (!is_tripped(node, epoch, ctime))
		return 0;
	if (!atomic_exchange(&node->tripped, true)) {
		path = base_path(view, view_base(node));
		log_line(
			LOG_ERR,
			"%s: was changed after a view of it was made, behind the mount or just before "
			"the system ended: the view cannot show it",
			path ? path : "?");
		free(path);
	}
	return -EIO;
}

/* Whether nothing but an anchor is left of a file: no view that was made since has it, and what is
 * done to it by who has it open is no change behind those before. */
static bool is_nameless(struct view *view, const struct node *base, struct stat *st)
{
	const struct own *last = base->past;
	const int anchors = view->snapshots->anchors;

	if (!last || last->is_last)
		return last;
	node_hide_link(base, st);
	return st->st_nlink == 0 || (st->st_nlink == 1 && anchors >= 0 &&
				     faccessat(anchors, anchor_name(last->object.id).text, F_OK,
					       AT_SYMLINK_NOFOLLOW) == 0);
}

/* (What is gone is said by who looks for it.) */
static int check_live(struct view *view, struct node *node)
{
	uint64_t epoch = snapshot_of(node)->epoch;
	int descriptor, error = 0;
	struct stat st;

	if (!node->parent)
		return 0;
	for (const struct own *past = past_state(node); past && !error; past = past->newer) {
		error = check_ctime(view, node, epoch, &past->object.ctime);
		epoch = (uint64_t)past->object.layer / 2 + 1;
	}
	if (error)
		return error;
	descriptor = view_base_descriptor(view, node);
	if (descriptor < 0)
		return descriptor == -ENFILE ? descriptor : 0;
	if (fstat(descriptor, &st) == 0 && is_tripped(node, epoch, &st.st_ctim) &&
	    !is_nameless(view, node->parent, &st))
		error = check_ctime(view, node, epoch, &st.st_ctim);
	view_base_descriptor_put(view, node);
	return error;
}

int view_check_base(struct view *view, struct node *node)
{
	struct own *own = node->own;
	struct stat st;
	int descriptor, error;

	if (node_is_of_view(node))
		return check_live(view, node);
	if (!own || view_is_made(node) || S_ISDIR(node->type))
		return 0;
	descriptor = view_base_descriptor(view, node);
	if (descriptor < 0 && descriptor != -ESTALE)
		return descriptor;
	if (descriptor >= 0) {
		error = fstat(descriptor, &st) ? -errno : 0;
		view_base_descriptor_put(view, node);
		if (error)
			return error;
		if ((uint64_t)st.st_size == own->object.base_size &&
		    same_time(&st.st_mtim, &own->object.base_mtime) &&
		    same_time(&st.st_ctim, &own->object.base_ctime))
			return 0;
	}
	if (!atomic_exchange(&own->tripped, true))
		log_line(LOG_ERR,
			 "%s: was %s BACKING after it was changed in the view, which cannot show "
			 "it any more",
			 own->object.base_path, descriptor < 0 ? "removed from" : "changed in");
	return -ESTALE;
}

/* --- Attributes ------------------------------------------------------------------------------- */

int view_stat_locked(struct view *view, struct node *node, struct stat *st)
{
	struct node *base = view_base(node);
	const struct own *state = view_state(node);
	const struct object *object;
	int error;

	if (!state) {
		error = file_stat(&view->fs->files, base, st);
		if (!error)
			st->st_ino = view_number(node, backing_number(base->device, st->st_ino));
		if (!error)
			node_hide_link(base, st);
		return error || !node_is_of_view(node) ? error
						       : check_ctime(view, node, 0, &st->st_ctim);
	}
	object = &state->object;
	if (state != node->own) {
		error = check_ctime(view, node, 0, &object->ctime);
		if (error)
			return error;
	}
	*st = (struct stat){
		.st_ino = state == node->own ? object->ino : view_number(node, object->ino),
		.st_mode = object->mode,
		.st_nlink = object->links,
		.st_uid = object->uid,
		.st_gid = object->gid,
		.st_rdev = object->device,
		.st_size = (off_t)object->size,
		.st_blksize = (blksize_t)STORE_BLOCK,
		.st_blocks = (blkcnt_t)object->blocks,
		.st_atim = object->atime,
		.st_mtim = object->mtime,
		.st_ctim = object->ctime,
	};
	if (state == node->own)
		st->st_blocks += (blkcnt_t)(state->block_count * (STORE_BLOCK / 512));
	return 0;
}

int view_stat(struct view *view, struct node *node, struct stat *st)
{
	int error;

	if (!node->own && !node_is_of_view(node)) /* at this moment */
		return view_stat_locked(view, node, st);
	pthread_mutex_lock(&view->lock);
	error = view_stat_locked(view, node, st);
	pthread_mutex_unlock(&view->lock);
	return error;
}

/* --- Names ------------------------------------------------------------------------------------ */

/* Opens name in BACKING's folder, O_PATH. */
static int base_open_name(struct view *view, struct node *folder, const char *name)
{
	struct fs *fs = view->fs;
	int descriptor = view_base_descriptor(view, folder), fd;

	if (descriptor < 0)
		return descriptor;
	do
		fd = backing_open_name(&fs->backing, descriptor, name);
	while ((fd == -EMFILE || fd == -ENFILE) && files_make_room(&fs->files));
	view_base_descriptor_put(view, folder);
	return fd == -EMFILE ? -ENFILE : fd;
}

/*
 * Objects of file systems below BACKING's own that a view cannot tell from others: of one that is
 * mounted there for the second time, whose objects would be the first one's; and, where the view is
 * kept, of one whose name will be another one after the next mount.
 */
static int refused(struct view *view, struct node *folder, const struct node *node)
{
	struct backing_device *device = node->device;
	char *path;

	if (view->snapshots ? device == view->fs->nodes.root->device
			    : !device->is_second && (device->lasts || !view->options.folder))
		return 0;
	if (!atomic_exchange(&device->told, true)) {
		path = base_path(view, view_base(folder));
		log_line(LOG_WARNING, "%s: what is mounted in it %s, and is not in the view",
			 path ? path : "?",
			 view->snapshots     ? "is another file system"
			 : device->is_second ? "is mounted elsewhere in BACKING too"
					     : "has no lasting name (f_fsid of statfs(2) is 0)");
		free(path);
	}
	return -EOPNOTSUPP;
}

/* The node of BACKING's object, in the same view as another one. *node is one of BACKING, whose
 * reference is consumed, and gets the view's. */
static int in_view_locked(struct view *view, const struct node *like, struct node **node)
{
	struct nodes *nodes = &view->fs->nodes;
	struct node *base = *node;
	int error = 0;

	if (node_is_of_view(like)) {
		error = node_of_view(nodes, base, like->device, node);
		node_put(nodes, base);
	}
	if (!error) {
		error = view_attach_locked(view, *node);
		if (error)
			node_put(nodes, *node);
	}
	if (error)
		*node = NULL;
	return error;
}

static int base_child_locked(struct view *view, struct node *folder, const char *name,
			     struct node **node)
{
	struct stat st;
	int error, fd = base_open_name(view, folder, name);

	if (fd < 0)
		return fd;
	error = node_of_descriptor(&view->fs->nodes, view_base(folder), name, fd, false, node, &st);
	if (error) {
		close(fd);
		return error;
	}
	error = refused(view, folder, *node);
	if (error) {
		node_put(&view->fs->nodes, *node);
		*node = NULL;
		return error;
	}
	return in_view_locked(view, folder, node);
}

/* The node that a path in BACKING leads to. */
static int base_walk_locked(struct view *view, const char *path, struct node **out)
{
	struct node *node = node_ref(&view->fs->nodes, view->fs->nodes.root), *next;
	char name[256];
	size_t length;
	int error = 0;

	while (!error && *(path += strspn(path, "/"))) {
		length = strcspn(path, "/");
		if (length >= sizeof(name)) {
			error = -ESTALE;
			break;
		}
		memcpy(name, path, length);
		name[length] = '\0';
		path += length;
		error = base_child_locked(view, node, name, &next);
		node_put(&view->fs->nodes, node);
		node = error ? NULL : next;
	}
	if (error)
		node_put(&view->fs->nodes, node);
	else
		*out = node;
	return error == -ENOENT || error == -ENOTDIR ? -ESTALE : error;
}

/* The node of BACKING's object that a row is about. */
static int base_object_locked(struct view *view, const struct object *object, struct node **out)
{
	struct fs *fs = view->fs;
	struct backing_device *own = fs->nodes.root->device;
	struct identity identity;
	struct stat st;
	int fd = -EOPNOTSUPP, error;

	*out = NULL;
	if (identity_restore(view, &object->base, &identity)) {
		*out = node_find(&fs->nodes, &identity);
		if (*out)
			return 0;
		do
			fd = backing_open_identity(&fs->backing, &identity);
		while ((fd == -EMFILE || fd == -ENFILE) && files_make_room(&fs->files));
		/* Gone from BACKING: what the view has of it, its name above all, is still there.
		 */
		if (fd == -ESTALE)
			return node_of_identity(&fs->nodes, &identity, own, object->mode, out);
	}
	if (fd >= 0) {
		error = node_of_descriptor(&fs->nodes, NULL, NULL, fd, false, out, &st);
		if (error)
			close(fd);
	} else {
		error = fd == -EOPNOTSUPP ? base_walk_locked(view, object->base_path, out) : fd;
	}
	if (!error && !identity_is(*out, &object->base)) {
		node_put(&fs->nodes, *out);
		*out = NULL;
		error = -ESTALE;
	}
	/* What the live tree had of what is gone from it has been kept. */
	if (error == -ESTALE && view->snapshots && (!S_ISREG(object->mode) || object->cut == 0) &&
	    identity_restore(view, &object->base, &identity))
		return node_of_identity(&fs->nodes, &identity, own, object->mode, out);
	if (error == -ESTALE)
		log_line(LOG_ERR, "%s: is not in BACKING any more, and the view was made of it",
			 object->base_path);
	return error;
}

int view_object_locked(struct view *view, const struct node *like, int64_t id, struct node **out)
{
	struct fs *fs = view->fs;
	struct backing_device *device = node_is_of_view(like) ? like->device : &view->device;
	struct identity identity = {
		.type = IDENTITY_MADE, .length = sizeof(id), .mount = device->mount_id};
	struct object object;
	int found = store_object_get(view->store, id, &object), error;

	if (found <= 0) {
		if (found == 0)
			log_line(LOG_ERR, "store of the view: object %jd is missing", (intmax_t)id);
		return found ? found : -EIO;
	}
	if (object.has_base) {
		error = base_object_locked(view, &object, out);
		if (!error && view->snapshots)
			error = in_view_locked(view, like, out);
	} else {
		memcpy(identity.bytes, &id, sizeof(id));
		error = node_of_identity(&fs->nodes, &identity, device, object.mode, out);
	}
	if (error || (*out)->own || object.layer != layer_of(*out)) {
		object_free(&object);
		return error;
	}
	error = own_load_locked(view, *out, &object);
	if (error) {
		node_put(&fs->nodes, *out);
		*out = NULL;
	} else {
		(*out)->is_attached = true;
	}
	return error;
}

bool view_is_gone(struct node *node, int error)
{
	const struct own *state = view_state(node);

	return node_is_of_view(node) && (error == -ESTALE || error == -ENOENT) && state &&
	       (!S_ISREG(node->type) || state->object.cut == 0);
}

/* What the states from one on say of a name: 1 and *object, 0 if it is absent; 0: nothing. */
static int name_find_locked(struct view *view, struct node *folder, const struct own *state,
			    const char *name, int64_t *object)
{
	int found = 0;

	for (; state && !found; state = view_state_next(folder, state)) {
		if (state->object.has_names)
			found = store_name_get(view->store, state->object.id, name, object);
		if (!found && state->object.lost_names)
			found = -EIO;
	}
	return found;
}

int view_child_locked(struct view *view, struct node *folder, const char *name, struct node **node)
{
	int64_t object;
	int found;

	if (strlen(name) > 255)
		return -ENAMETOOLONG;
	found = name_find_locked(view, folder, view_state(folder), name, &object);
	if (found < 0)
		return found;
	if (found)
		return object ? view_object_locked(view, folder, object, node) : -ENOENT;
	if (view_is_made(folder) || snapshot_hides(view, view_base(folder), name))
		return -ENOENT;
	found = view->snapshots ? view_check_base(view, folder) : 0;
	if (!found)
		found = base_child_locked(view, folder, name, node);
	return view_is_gone(folder, found) ? -ENOENT : found;
}

int view_base_has_locked(struct view *view, struct node *folder, const char *name)
{
	const struct own *own = folder->own;
	int64_t object;
	int fd, found = name_find_locked(view, folder, view_state_next(folder, own), name, &object);

	if (!found && view->snapshots)
		found = view_check_base(view, folder);
	if (found)
		return found < 0 ? found : object != 0;
	fd = view_is_made(folder) || snapshot_hides(view, view_base(folder), name)
		     ? -ENOENT
		     : base_open_name(view, folder, name);
	if (fd >= 0)
		close(fd);
	/* (-ESTALE: the folder is gone from BACKING.) */
	return fd >= 0 ? 1 : fd == -ENOENT || fd == -ESTALE ? 0 : fd;
}

/* --- Syncing ---------------------------------------------------------------------------------- */

uint64_t view_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void sync_failed(struct view *view, int error)
{
	if (view->sync_error)
		return;
	log_line(LOG_ERR, "store of the view: what was changed may not be on the disk: %s",
		 strerror(-error));
	view->sync_error = error;
}

static int sync_locked(struct view *view)
{
	int error = store_sync(view->store);

	view->bytes = view->writes = 0;
	if (!view->snapshots || !view->snapshots->hot) /* else a checkpoint is due all the same */
		view->due = 0;
	if (error)
		sync_failed(view, error);
	else if (view->snapshots)
		atomic_store(&view->snapshots->log_synced, view->snapshots->log_written);
	return view->sync_error;
}

bool view_makes_room_locked(struct view *view)
{
	return store_has_given(view->store) && sync_locked(view) == 0;
}

int view_sync(struct view *view)
{
	int error;

	/* Most of it, without the lock; what fails will fail again. */
	(void)!mmapio_sync(store_heap(view->store), false);
	(void)!store_sync_rows(view->store);
	pthread_mutex_lock(&view->lock);
	error = sync_locked(view);
	pthread_mutex_unlock(&view->lock);
	return error;
}

int view_end(struct view *view, int error)
{
	if (error) {
		store_rollback(view->store);
		return error;
	}
	error = store_commit(view->store);
	/* A commit may sync the log of the rows, too, when it begins anew. */
	if (error == -EIO)
		sync_failed(view, error);
	return error;
}

int view_changed(struct view *view, uint64_t bytes)
{
	const struct mmapio_policy *policy = &view->options.policy;
	int error;

	view->bytes += bytes;
	view->writes++;
	if (policy->always || (store_wants_sync(view->store) && !view->sync_error) ||
	    (policy->bytes && view->bytes >= policy->bytes) ||
	    (policy->writes && view->writes >= policy->writes)) {
		error = sync_locked(view);
		return policy->always ? error : 0; /* fsync(2) tells it */
	}
	if (policy->delay_ns && !view->due) {
		view->due = view_now_ns() + policy->delay_ns;
		pthread_cond_signal(&view->changed);
	}
	return 0;
}

int view_object_end(struct view *view, struct node *node, const struct object *object, int error)
{
	if (!error)
		error = store_object_set(view->store, object);
	error = view_end(view, error);
	if (error)
		return error;
	own_adopt(node->own, object);
	return view_changed(view, 0);
}

static void *flush_when_due(void *argument)
{
	struct view *view = argument;
	bool hot;

	pthread_mutex_lock(&view->lock);
	while (!view->stop) {
		const struct timespec due = {(time_t)(view->due / 1000000000),
					     (long)(view->due % 1000000000)};

		if (!view->due) {
			pthread_cond_wait(&view->changed, &view->lock);
			continue;
		}
		if (view_now_ns() < view->due) {
			pthread_cond_timedwait(&view->changed, &view->lock, &due);
			continue;
		}
		view->due = 0;
		hot = view->snapshots && hot_cool_locked(view);
		pthread_mutex_unlock(&view->lock);
		(void)!view_sync(view); /* it says what has failed */
		pthread_mutex_lock(&view->lock);
		if (hot && !view->due)
			view->due = view_now_ns() + view->options.policy.delay_ns;
	}
	pthread_mutex_unlock(&view->lock);
	return NULL;
}

static int flusher_start(struct view *view)
{
	int error;

	if (!view->options.policy.delay_ns)
		return 0;
	error = pthread_create(&view->flusher, NULL, flush_when_due, view);
	view->has_flusher = !error;
	if (error)
		log_line(LOG_ERR, "no threads: %s", strerror(error));
	return -error;
}

static void flusher_stop(struct view *view)
{
	if (view->has_flusher) {
		pthread_mutex_lock(&view->lock);
		view->stop = true;
		pthread_cond_signal(&view->changed);
		pthread_mutex_unlock(&view->lock);
		pthread_join(view->flusher, NULL);
	}
	pthread_cond_destroy(&view->changed);
}

/* --- Life ------------------------------------------------------------------------------------- */

/* What had no name any more when the mount before ended. */
static int remove_orphans(struct view *view)
{
	int64_t id;
	int found;

	while ((found = store_object_orphan(view->store, &id)) == 1) {
		found = store_begin(view->store);
		if (found)
			break;
		found = store_object_remove(view->store, id);
		if (!found)
			found = store_commit(view->store);
		else
			store_rollback(view->store);
		if (found)
			break;
	}
	return found;
}

/* Opens or makes the store. */
static int open_store(struct view *view)
{
	const struct view_options *options = &view->options;
	struct store_identity backing = view_identity(view->fs->nodes.root);
	struct backing_mark mark;
	int error;

	backing_mark(&view->fs->backing, &mark);
	error = store_open(
		&view->store,
		&(struct store_options){
			.label = options->snapshots
					 ? "point-in-time views (nosnap=force gives them up), "
				 : options->folder ? "-o cow="
						   : "-o cow",
			.folder = options->folder,
			.limit = options->limit,
			.backing = &backing,
			.mark = &mark,
			.backing_path = options->backing_path,
		});
	if (!error) {
		error = remove_orphans(view);
		if (error && error != -EIO) /* which the store has said */
			log_line(LOG_ERR, "store of the view: %s", strerror(-error));
	}
	if (!error)
		error = flusher_start(view);
	if (error) {
		(void)store_close(view->store);
		view->store = NULL;
	}
	return error;
}

/* BACKING's root is to look as if nothing was made in it. */
static int make_hidden(struct view *view)
{
	const int root = view->fs->backing.root;
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};
	struct stat st;
	int known = fstat(root, &st);

	if (mkdirat(root, view->options.hidden, 0700))
		return -1;
	times[1] = st.st_mtim;
	if (known == 0)
		(void)!utimensat(AT_FDCWD, backing_path(root).text, times, 0);
	return 0;
}

/* The folder that the store of point-in-time views is in. Descriptor or negative errno. */
static int snapshots_folder(struct view *view, bool make)
{
	const struct view_options *options = &view->options;
	int fd;

	if (make && options->hidden)
		fd = make_hidden(view);
	else if (make)
		fd = mkdir(options->folder, 0700);
	else
		fd = 0;
	if (fd && errno != EEXIST)
		return -errno;
	fd = options->hidden ? openat(view->fs->backing.root, options->hidden,
				      O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
			     : open(options->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Which boot of the system this is. */
static void boot_id(char *id, size_t size)
{
	FILE *stream = fopen("/proc/sys/kernel/random/boot_id", "re");

	if (!stream || !fgets(id, (int)size, stream))
		snprintf(id, size, "unknown");
	if (stream)
		fclose(stream);
}

static int snapshots_open(struct view *view, int folder)
{
	bool crashed = false;
	char boot[64];
	int error = backing_claim(&view->fs->backing, true);

	if (error) {
		log_line(LOG_ERR, "%s: %s", view->options.backing_path,
			 error == -EWOULDBLOCK ? "is in use by another mount, which would change "
						 "behind them what views are of"
					       : strerror(-error));
		return error == -EWOULDBLOCK ? -EBUSY : error;
	}
	error = open_store(view);
	if (error)
		return error;
	boot_id(boot, sizeof(boot));
	error = store_boot_set(view->store, boot, &crashed);
	if (!error)
		error = store_sync(view->store);
	if (!error)
		error = snapshots_load_locked(view, crashed);
	if (!error) {
		anchors_open_locked(view, folder);
		anchors_load_locked(view, crashed);
		view->fs->nodes.root->anchored =
			view->options.hidden; /* a folder, that is not shown */
	}
	if (error && error != -EIO) /* which the store has said */
		log_line(LOG_ERR, "store of the views: %s", strerror(-error));
	return error;
}

int view_store_locked(struct view *view)
{
	int folder, error;

	if (view->store)
		return 0;
	if (view->options.is_covered) {
		log_line(LOG_ERR,
			 "the mount covers BACKING, so the store of views cannot be made in "
			 "it: mount elsewhere, or use -o snapdir=DIR");
		return -EOPNOTSUPP;
	}
	folder = snapshots_folder(view, true);
	if (folder < 0) {
		log_line(LOG_ERR, "%s: views cannot be kept there: %s", view->options.folder,
			 strerror(-folder));
		return folder;
	}
	error = snapshots_open(view, folder);
	close(folder);
	return error;
}

/* Those that are there are taken up. */
static int snapshots_find(struct view *view)
{
	int folder, error;

	error = store_is_there(view->options.folder);
	if (error == 0)
		return 0;
	folder = error < 0 ? error : snapshots_folder(view, false);
	if (folder < 0) {
		log_line(LOG_ERR, "%s: %s", view->options.folder, strerror(-folder));
		return folder;
	}
	pthread_mutex_lock(&view->lock);
	error = snapshots_open(view, folder);
	pthread_mutex_unlock(&view->lock);
	close(folder);
	return error;
}

#define CHECKPOINT_NS UINT64_C(1000000000)

int view_open(struct view **out, struct fs *fs, const struct view_options *options)
{
	struct view *view = calloc(1, sizeof(*view));
	pthread_condattr_t monotonic;
	int error;

	if (!view) {
		log_line(LOG_ERR, "no memory for the view");
		return -ENOMEM;
	}
	if (options->check && store_is_there(options->folder) == 1 &&
	    store_check(options->folder)) {
		log_line(LOG_ERR, "-o cow=%s: is not whole, and -o cow_check was given",
			 options->folder);
		free(view);
		return -EIO;
	}
	view->fs = fs;
	view->options = *options;
	/* A checkpoint, a second after a change: what is kept is in doubt no longer. */
	if (options->snapshots &&
	    (!options->policy.delay_ns || options->policy.delay_ns > CHECKPOINT_NS))
		view->options.policy.delay_ns = CHECKPOINT_NS;
	pthread_mutex_init(&view->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&view->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	view_listings_init(&view->listings);
	view->device.mount = -1;
	view->objects = 1; /* unless it is new, which is not worth asking */
	if (!options->snapshots) {
		error = open_store(view);
	} else {
		error = snapshots_new(view, options->hidden);
		if (!error)
			error = snapshots_find(view);
	}
	if (error)
		(void)view_close(view);
	else
		*out = view;
	return error;
}

int view_close(struct view *view)
{
	int error = 0;
	bool crashed;

	if (!view)
		return 0;
	snapshots_stop(view);
	flusher_stop(view);
	/* What is not on the disk by now may never be, and then it is as if the system had ended.
	 */
	if (view->snapshots && view->store && snapshots_settle(view) == 0)
		(void)store_boot_set(view->store, "", &crashed);
	error = store_close(view->store);
	if (!error)
		error = view->sync_error;
	snapshots_free(view);
	view_listings_free(&view->listings);
	pthread_mutex_destroy(&view->lock);
	free(view);
	return error;
}
