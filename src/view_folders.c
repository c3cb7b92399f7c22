/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listing folders of a view. What BACKING has and what the view has is put together when a listing
 * begins, or begins again: entries that are there all the time are listed once, whatever happens
 * meanwhile.
 */
#include "view_ops.h"

#include "snapshot.h"
#include "watch.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct listed {
	uint64_t ino;
	mode_t type; /* 0: BACKING does not tell */
	/* While it is put together: */
	bool own;    /* ino is the object's number in the store */
	bool absent; /* a name of BACKING that the view has not */
	UT_hash_handle hh;
	char name[];
};

struct listing {
	pthread_mutex_t lock;
	struct listed *by_name; /* lock; until it is whole */
	struct listed **entry;	/* lock */
	size_t count;		/* lock */
	uint64_t parent;	/* lock: the number of ".." in BACKING */
	bool is_filled;		/* lock */

	/* Of one that nobody opened: */
	uint64_t number;	  /* constant */
	unsigned int users;	  /* listings->lock */
	TAILQ_ENTRY(listing) all; /* the same */
};

static void listing_clear(struct listing *listing)
{
	struct listed *listed, *next;

	HASH_ITER (hh, listing->by_name, listed, next) {
		HASH_DEL(listing->by_name, listed);
		free(listed);
	}
	free(listing->entry);
	listing->entry = NULL;
	listing->count = 0;
}

/* Adds a name, of which the rest is to be set; *added is NULL if it is there. */
static int listing_add(struct listing *listing, const char *name, struct listed **added)
{
	size_t length = strlen(name);
	struct listed *listed;

	*added = NULL;
	HASH_FIND(hh, listing->by_name, name, (unsigned int)length, listed);
	if (listed)
		return 0;
	listed = calloc(1, sizeof(*listed) + length + 1);
	if (!listed)
		return -ENOMEM;
	memcpy(listed->name, name, length + 1);
	HASH_ADD_KEYPTR(hh, listing->by_name, listed->name, (unsigned int)length, listed);
	if (!listed->hh.tbl) {
		free(listed);
		return -ENOMEM;
	}
	*added = listed;
	return 0;
}

static int add_own(void *context, const char *name, int64_t object)
{
	struct listed *listed;
	int error = listing_add(context, name, &listed);

	/* Its number and type are looked up when all are known: one statement at a time. */
	if (listed) {
		listed->own = true;
		listed->ino = (uint64_t)object;
		listed->absent = object == 0;
	}
	return error;
}

static int add_base_name(struct view *view, struct listing *listing, struct node *folder,
			 const struct dirent64 *found)
{
	uint64_t ino = view_number(folder, backing_number(view_base(folder)->device, found->d_ino));
	struct listed *listed;
	int error;

	if (strcmp(found->d_name, ".") == 0)
		return 0;
	if (strcmp(found->d_name, "..") == 0) {
		listing->parent = ino;
		return 0;
	}
	if (snapshot_hides(view, view_base(folder), found->d_name))
		return 0;
	error = listing_add(listing, found->d_name, &listed);
	if (listed) { /* else the view's word counts, which came first */
		listed->ino = ino;
		listed->type = (mode_t)DTTOIF(found->d_type);
	}
	return error;
}

static int add_base(struct view *view, struct node *folder, struct listing *listing)
{
	struct fs *fs = view->fs;
	int fd, descriptor = view_base_descriptor(view, folder), more = 0;
	const struct dirent64 *found;
	struct folder *reader;

	if (descriptor < 0)
		return descriptor;
	do
		fd = backing_reopen(&fs->backing, descriptor, O_RDONLY | O_DIRECTORY);
	while ((fd == -EMFILE || fd == -ENFILE) && files_make_room(&fs->files));
	view_base_descriptor_put(view, folder);
	if (fd < 0)
		return fd == -EMFILE ? -ENFILE : fd;
	reader = folder_new(fd);
	if (!reader) {
		close(fd);
		return -ENOMEM;
	}
	pthread_mutex_lock(&reader->lock);
	more = folder_seek_locked(reader, 0);
	while (!more && (more = folder_peek_locked(reader, &found)) > 0) {
		more = add_base_name(view, listing, folder, found);
		folder_advance_locked(reader);
	}
	pthread_mutex_unlock(&reader->lock);
	folder_free(reader);
	return more;
}

/* Puts a listing together, names only. */
static int listing_collect_locked(struct view *view, struct node *folder, struct listing *listing)
{
	int error = 0;

	for (const struct own *state = view_state(folder); state && !error;
	     state = view_state_next(folder, state)) {
		if (state->object.lost_names)
			error = -EIO;
		else if (state->object.has_names)
			error = store_names_each(view->store, state->object.id, add_own, listing);
	}
	if (!error && !view_is_made(folder)) {
		error = view->snapshots ? view_check_base(view, folder) : 0;
		if (!error)
			error = add_base(view, folder, listing);
	}
	return view_is_gone(folder, error) ? 0 : error;
}

int view_folder_is_empty_locked(struct view *view, struct node *folder)
{
	struct listing listing = {0};
	struct listed *listed, *next;
	int result = listing_collect_locked(view, folder, &listing);

	/* (One that is gone from BACKING has nothing of it; listing it while it is open: ENOENT.)
	 */
	if (result == 0 || result == -ESTALE || result == -ENOENT) {
		result = 1;
		HASH_ITER (hh, listing.by_name, listed, next)
			if (!listed->absent)
				result = 0;
	}
	listing_clear(&listing);
	return result;
}

static int listing_fill_locked(struct view *view, struct node *folder, struct listing *listing)
{
	struct listed *listed, *next;
	int error;

	listing_clear(listing);
	error = listing_collect_locked(view, folder, listing);
	if (error)
		return error;
	listing->entry = malloc((HASH_CNT(hh, listing->by_name) + 1) * sizeof(*listing->entry));
	if (!listing->entry)
		return -ENOMEM;
	HASH_ITER (hh, listing->by_name, listed, next) {
		if (listed->absent)
			continue;
		if (listed->own) {
			struct object object;
			int found = store_object_get(view->store, (int64_t)listed->ino, &object);

			if (found < 0)
				return found;
			if (found == 0)
				continue;
			listed->ino = object.layer % 2 || !view->snapshots
					      ? object.ino
					      : view_number(folder, object.ino);
			listed->type = object.mode & S_IFMT;
			object_free(&object);
		}
		listing->entry[listing->count++] = listed;
	}
	return 0;
}

static struct listing *listing_new(void)
{
	struct listing *listing = calloc(1, sizeof(*listing));

	if (listing)
		pthread_mutex_init(&listing->lock, NULL);
	return listing;
}

static void listing_free(struct listing *listing)
{
	listing_clear(listing);
	pthread_mutex_destroy(&listing->lock);
	free(listing);
}

/* --- Listings that nobody opened ---------------------------------------------------------------
 */

/*
 * Where the kernel tells of no opens, offsets say which listing they are of. The last ones are
 * kept; who reads on in an older one goes on at the same place of a new one.
 */
#define NUMBER_SHIFT 32

static struct listing *unopened_find_locked(struct view_listings *listings, uint64_t number)
{
	struct listing *listing;

	TAILQ_FOREACH (listing, &listings->all, all)
		if (listing->number == number)
			break;
	return listing;
}

/* The listing of an offset, in use; made if need be. NULL without memory. */
static struct listing *unopened_get(struct view *view, off_t *offset)
{
	struct view_listings *listings = &view->listings;
	const uint64_t number = (uint64_t)*offset >> NUMBER_SHIFT;
	struct listing *listing = NULL, *old;

	pthread_mutex_lock(&listings->lock);
	if (*offset)
		listing = unopened_find_locked(listings, number);
	if (listing) {
		TAILQ_REMOVE(&listings->all, listing, all);
	} else if ((listing = listing_new())) {
		listings->last = (listings->last + 1) & INT32_MAX;
		listing->number = listings->last = listings->last ? listings->last : 1;
		listings->count++;
	}
	if (listing) {
		TAILQ_INSERT_TAIL(&listings->all, listing, all);
		listing->users++;
	}
	for (old = TAILQ_FIRST(&listings->all); old && listings->count > VIEW_LISTINGS_MAX;) {
		struct listing *next = TAILQ_NEXT(old, all);

		if (!old->users) {
			TAILQ_REMOVE(&listings->all, old, all);
			listings->count--;
			listing_free(old);
		}
		old = next;
	}
	pthread_mutex_unlock(&listings->lock);
	*offset &= (INT64_C(1) << NUMBER_SHIFT) - 1;
	return listing;
}

static void unopened_put(struct view *view, struct listing *listing)
{
	pthread_mutex_lock(&view->listings.lock);
	listing->users--;
	pthread_mutex_unlock(&view->listings.lock);
}

void view_listings_init(struct view_listings *listings)
{
	TAILQ_INIT(&listings->all);
	pthread_mutex_init(&listings->lock, NULL);
}

void view_listings_free(struct view_listings *listings)
{
	struct listing *listing;

	while ((listing = TAILQ_FIRST(&listings->all))) {
		TAILQ_REMOVE(&listings->all, listing, all);
		listing_free(listing);
	}
	pthread_mutex_destroy(&listings->lock);
}

/* --- Operations ------------------------------------------------------------------------------- */

void view_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct listing *listing;

	(void)ino;
	if (fs_of(req)->stateless) {
		reply_error(req, -ENOSYS); /* and is never asked again */
		return;
	}
	listing = listing_new();
	if (!listing) {
		reply_error(req, -ENOMEM);
		return;
	}
	fi->fh = (uintptr_t)listing;
	if (fuse_reply_open(req, fi))
		listing_free(listing);
}

void view_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	if (fi->fh)
		listing_free((struct listing *)(uintptr_t)fi->fh);
	reply_error(req, 0);
}

/* The number of the folder that a folder lies in, for "..". */
static uint64_t parent_number_locked(struct view *view, struct node *folder,
				     const struct listing *listing)
{
	const struct own *own = folder->own;
	uint64_t ino = listing->parent;
	struct object object;

	if (own && own->object.parent &&
	    store_object_get(view->store, own->object.parent, &object) == 1) {
		ino = object.ino;
		object_free(&object);
	}
	return ino;
}

/* One entry, offset being its place among all. What it takes, or more than size. */
static size_t add_entry(fuse_req_t req, struct node *folder, const char *name, uint64_t ino,
			mode_t type, off_t offset, char *buffer, size_t size, bool plus)
{
	struct view *view = view_of(req);
	struct fuse_entry_param entry = {.attr = {.st_ino = ino, .st_mode = type}}, found;
	struct node *node;

	if (!plus)
		return fuse_add_direntry(req, buffer, size, name, &entry.attr, offset);
	if (fuse_add_direntry_plus(req, NULL, 0, name, NULL, 0) > size)
		return size + 1;
	if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
	    view_child_locked(view, folder, name, &node) == 0) {
		if (!watch_is_stale(node) && view_entry_locked(view, node, &found) == 0)
			entry = found;
		node_put(&view->fs->nodes, node);
	}
	return fuse_add_direntry_plus(req, buffer, size, name, &entry, offset);
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		 const struct fuse_file_info *fi, bool plus)
{
	struct view *view = view_of(req);
	struct listing *listing = (struct listing *)(uintptr_t)fi->fh;
	const bool unopened = !listing;
	char *buffer = malloc(size);
	struct node *folder = NULL;
	size_t filled = 0, length;
	struct stat st;
	int error = buffer ? view_node(view, ino, &folder) : -ENOMEM;

	if (!error && unopened) {
		listing = unopened_get(view, &offset);
		error = listing ? 0 : -ENOMEM;
	}
	if (error) {
		reply_error(req, error);
		node_put(&view->fs->nodes, folder);
		free(buffer);
		return;
	}
	pthread_mutex_lock(&listing->lock);
	pthread_mutex_lock(&view->lock);
	if (offset == 0 || !listing->is_filled) {
		error = listing_fill_locked(view, folder, listing);
		listing->is_filled = !error;
	}
	if (!error)
		error = view_stat_locked(view, folder, &st);
	for (uint64_t at = (uint64_t)offset; !error && at < listing->count + 2; at++) {
		const struct listed *listed = at < 2 ? NULL : listing->entry[at - 2];
		const char *name = listed ? listed->name : at ? ".." : ".";
		uint64_t number = listed ? listed->ino
				  : at	 ? parent_number_locked(view, folder, listing)
					 : st.st_ino;

		if (!number) /* of the parent of what is gone */
			number = st.st_ino;

		length = add_entry(req, folder, name, number, listed ? listed->type : S_IFDIR,
				   (off_t)(listing->number << NUMBER_SHIFT | (at + 1)),
				   buffer + filled, size - filled, plus);
		if (length > size - filled)
			break;
		filled += length;
	}
	pthread_mutex_unlock(&view->lock);
	pthread_mutex_unlock(&listing->lock);
	if (unopened)
		unopened_put(view, listing);
	node_put(&view->fs->nodes, folder);
	if (error && filled == 0)
		reply_error(req, error);
	else
		fuse_reply_buf(req, buffer, filled);
	free(buffer);
}

void view_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	list(req, ino, size, offset, fi, false);
}

void view_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
			 struct fuse_file_info *fi)
{
	list(req, ino, size, offset, fi, true);
}

void view_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	view_op_fsync(req, ino, datasync, fi);
}
