/* SPDX-License-Identifier: Apache-2.0 */
/* Mapped files (file.h). */
#include "file.h"

#include "log.h"
#include "prewarm.h"
#include "watch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void files_init(struct files *files, struct nodes *nodes, const struct mmapio_policy *policy,
		enum mmapio_write_method write_method, unsigned int limit)
{
	*files = (struct files){
		.nodes = nodes,
		.policy = *policy,
		.write_method = write_method,
		.limit = limit,
	};
	pthread_mutex_init(&files->lock, NULL);
	for (int i = 0; i < CHECK_LOCKS; i++)
		pthread_mutex_init(&files->check_locks[i], NULL);
	TAILQ_INIT(&files->idle);
	TAILQ_INIT(&files->clinging);
	TAILQ_INIT(&files->all);
}

static void report_error(void *context, uint64_t offset, uint64_t length, int error)
{
	struct file *file = context;
	char *path = node_path(file->files->nodes, file->node);

	log_line(LOG_ERR, "%s: bytes %" PRIu64 " to %" PRIu64 " may not be on the disk: %s",
		 path ? path : "(no memory for the path)", offset, offset + length,
		 strerror(error));
	free(path);
}

static pthread_mutex_t *check_lock(struct files *files, const struct node *node)
{
	return &files->check_locks[node->id % CHECK_LOCKS];
}

static struct contents contents_of(const struct stat *st)
{
	return (struct contents){
		.time = (uint64_t)st->st_mtim.tv_sec * 1000000000 + (uint64_t)st->st_mtim.tv_nsec,
		.size = (uint64_t)st->st_size,
	};
}

static bool is_seen(const struct node *node, const struct contents *contents)
{
	return node->seen.time == contents->time && node->seen.size == contents->size;
}

/* The kernel is being told of these contents. The node's check lock is held. */
static void see_locked(struct files *files, struct node *node, const struct stat *st)
{
	struct contents contents = contents_of(st);

	if ((node->seen.time || node->seen.size) && !is_seen(node, &contents))
		watch_changed(files->watch, node, contents.size < node->seen.size);
	node->seen = contents;
}

/* reading: see file_check_reading(). Else 0 or negative errno. */
static int check_locked(struct files *files, struct file *file, struct stat *st, bool reading)
{
	uint64_t before = mmapio_file_size(file->mapped);
	int changed = mmapio_file_check(file->mapped, st);
	bool shorter = mmapio_file_size(file->mapped) < before;

	if (changed <= 0)
		return changed;
	if (reading && shorter && !watch_is_stale(file->node)) {
		file->node->is_shorter = true;
		return 1;
	}
	watch_changed(files->watch, file->node, shorter);
	return 0;
}

/* Before a file is closed: from here on the node knows what the file did. */
static void see_file(struct files *files, struct file *file)
{
	struct stat st;

	pthread_mutex_lock(check_lock(files, file->node));
	if (check_locked(files, file, &st, false) == 0)
		file->node->seen = contents_of(&st);
	pthread_mutex_unlock(check_lock(files, file->node));
}

static bool is_idle(const struct file *file)
{
	return !file->references && !file->handles && !file->failed && !file->keep;
}

static struct file_list *idle_list(struct files *files, const struct file *file)
{
	return file->cling ? &files->clinging : &files->idle;
}

/* Takes an idle file into use. */
static void reference_locked(struct files *files, struct file *file)
{
	if (is_idle(file))
		TAILQ_REMOVE(idle_list(files, file), file, idle);
	file->references++;
}

/* Frees a file that nobody can find any more, and that libmmapio has closed. */
static void file_free(void *context)
{
	struct file *file = context;

	file->files->nodes->used--;
	file->files->nodes->held--;
	node_put(file->files->nodes, file->node);
	pthread_mutex_destroy(&file->open_lock);
	free(file);
}

/* Takes a file out of the cache. What libmmapio still has queued for its flusher lives on. */
static void detach_locked(struct files *files, struct file *file)
{
	if (file->mapped)
		watch_remove(files->watch, mmapio_file_descriptor(file->mapped));
	file->node->file = NULL;
	files->count--;
	files->clinging_count -= file->cling;
	TAILQ_REMOVE(&files->all, file, all);
}

static void file_close(struct file *file)
{
	if (file->mapped)
		mmapio_file_unref(file->mapped); /* file_free() follows, when it is closed */
	else
		file_free(file);
}

/*
 * Gives back a reference. close_idle: the file is to go if nobody else uses it, or has written to
 * it since it was synced; that, a doomed file, and one that could not be opened are the only ways
 * out of the cache. Whether it went.
 */
static bool dereference(struct files *files, struct file *file, bool close_idle)
{
	bool gone;

	pthread_mutex_lock(&files->lock);
	file->references--;
	if (file->failed && !file->references)
		file->failed = mmapio_file_error(file->mapped) != 0;
	gone = is_idle(file) &&
	       (!file->mapped || file->doomed || (close_idle && !mmapio_is_dirty(file->mapped)));
	if (gone)
		detach_locked(files, file);
	else if (is_idle(file))
		TAILQ_INSERT_TAIL(idle_list(files, file), file, idle);
	pthread_mutex_unlock(&files->lock);
	if (gone)
		file_close(file);
	return gone;
}

/*
 * Half of the room is for the others, or a file that was just used, and is not idle yet when the
 * next one needs a place, would push out one that clings.
 */
static bool too_many_cling_locked(const struct files *files)
{
	unsigned int most = files->nodes->room < files->limit ? files->nodes->room : files->limit;

	return files->clinging_count > most / 2;
}

/*
 * Syncs and closes the file that has been idle for the longest time, or the next one if that cannot
 * go. Each gets one try, so that this ends. Whether one went.
 */
static bool evict_one(struct files *files)
{
	struct file *file;
	unsigned int tries;
	int error;

	pthread_mutex_lock(&files->lock);
	tries = files->count;
	pthread_mutex_unlock(&files->lock);
	for (; tries > 0; tries--) {
		pthread_mutex_lock(&files->lock);
		file = too_many_cling_locked(files) ? TAILQ_FIRST(&files->clinging) : NULL;
		if (!file)
			file = TAILQ_FIRST(&files->idle);
		if (!file)
			file = TAILQ_FIRST(&files->clinging);
		if (file)
			reference_locked(files, file);
		pthread_mutex_unlock(&files->lock);
		if (!file)
			return false;
		error = mmapio_flush(file->mapped);
		see_file(files, file);
		if (error) {
			pthread_mutex_lock(&files->lock);
			file->failed = true;
			pthread_mutex_unlock(&files->lock);
		}
		if (dereference(files, file, true))
			return true;
	}
	return false;
}

bool files_make_room(struct files *files)
{
	return node_descriptors_trim(files->nodes, 4) || evict_one(files);
}

/*
 * The node's file, with a reference, made if it is not there; opened by nobody yet then. NULL: no
 * room, no memory, or nothing to be made.
 */
static struct file *file_of_node(struct files *files, struct node *node, bool make)
{
	struct file *file, *fresh = NULL;
	bool full, many;

	for (;;) {
		pthread_mutex_lock(&files->lock);
		file = node->file;
		/* A kept descriptor has a place, which the file will take over. */
		full = !fresh && files->nodes->held >= files->nodes->room &&
		       !node_descriptor_is_kept(files->nodes, node);
		many = !fresh && files->count >= files->limit;
		if (file) {
			reference_locked(files, file);
		} else if (fresh) {
			file = node->file = fresh;
			fresh = NULL;
			files->count++;
			TAILQ_INSERT_TAIL(&files->all, file, all);
		}
		pthread_mutex_unlock(&files->lock);
		/* A file more than there are mappings for will be read and written without. */
		if (file || !make || ((full || many) && !evict_one(files) && full))
			break;
		fresh = calloc(1, sizeof(*fresh));
		if (!fresh)
			break;
		files->nodes->held++;
		if (++files->nodes->used > files->nodes->room)
			node_descriptors_trim(files->nodes, 2);
		fresh->files = files;
		fresh->node = node_ref(files->nodes, node);
		fresh->references = 1;
		pthread_mutex_init(&fresh->open_lock, NULL);
	}
	if (fresh)
		file_free(fresh);
	return file;
}

/* Opens the backing file; descriptors in the caches make way. */
static int open_backing(struct files *files, struct node *node, int flags)
{
	int descriptor, path = node_descriptor(files->nodes, node);

	while ((path == -EMFILE || path == -ENFILE) && files_make_room(files))
		path = node_descriptor(files->nodes, node);
	if (path < 0)
		return path == -EMFILE ? -ENFILE : path;
	do
		descriptor = backing_reopen(files->nodes->backing, path, flags);
	while ((descriptor == -EMFILE || descriptor == -ENFILE) && files_make_room(files));
	node_descriptor_put(files->nodes, node);
	return descriptor == -EMFILE ? -ENFILE : descriptor;
}

/* Makes a mapped file of a descriptor, which is consumed. open_lock is held. */
static int map_locked(struct files *files, struct file *file, int descriptor, bool writable)
{
	struct mmapio_options options =
		MMAPIO_OPTIONS_INIT(writable ? MMAPIO_READ_WRITE : MMAPIO_READ_ONLY);
	struct mmapio_file *mapped;
	struct stat st;
	int error;

	options.flags = MMAPIO_LAZY;
	options.policy = files->policy;
	options.write_method = files->write_method;
	options.flusher = file->node->device->flusher;
	options.on_error = report_error;
	options.on_close = file_free;
	options.context = file;
	/* A store does not move mtime, and only the owner may set it. */
	if (geteuid() != 0 && fstat(descriptor, &st) == 0 && st.st_uid != geteuid())
		options.write_method = MMAPIO_WRITE_PWRITE;
	/* In this order, so that nothing is missed. */
	watch_add(files->watch, descriptor);
	error = mmapio_open_fd(&mapped, descriptor, &options);
	if (error) {
		watch_remove(files->watch, descriptor);
		close(descriptor);
		return error;
	}
	pthread_mutex_lock(check_lock(files, file->node));
	if (mmapio_file_check(mapped, &st) == 0)
		see_locked(files, file->node, &st);
	pthread_mutex_unlock(check_lock(files, file->node));
	file->mapped = mapped;
	if (node_descriptor_unkeep(files->nodes, file->node)) {
		/* One descriptor is enough to keep an inode alive. */
		pthread_mutex_lock(&files->lock);
		file->keep = true;
		pthread_mutex_unlock(&files->lock);
	}
	return 0;
}

/* Whether an open file will do. */
static bool is_open_for(const struct file *file, enum file_access access)
{
	switch (access) {
	case FILE_READ:
		return !file->write_only;
	case FILE_WRITE:
		return mmapio_file_mode(file->mapped) == MMAPIO_READ_WRITE;
	default:
		return true;
	}
}

static int open_locked(struct files *files, struct file *file, enum file_access access)
{
	int descriptor, error;

	if (!file->mapped) {
		bool writable = access == FILE_WRITE;

		descriptor = open_backing(files, file->node, writable ? O_RDWR : O_RDONLY);
		/* What may only be written cannot be mapped, but written. */
		if (descriptor == -EACCES && access != FILE_READ) {
			descriptor = open_backing(files, file->node, O_WRONLY);
			file->write_only = writable = true;
		}
		if (descriptor < 0)
			return descriptor;
		return map_locked(files, file, descriptor, writable);
	}
	if (is_open_for(file, access))
		return 0;
	descriptor = open_backing(files, file->node, O_RDWR);
	if (descriptor < 0)
		return descriptor;
	error = mmapio_file_make_writable(file->mapped, descriptor);
	if (error)
		close(descriptor);
	else
		file->write_only = false;
	return error;
}

/* Gives a file to the prewarmer when it is first opened. */
static void warm(struct files *files, struct file *file)
{
	bool first;
	char *path;

	pthread_mutex_lock(&files->lock);
	first = !file->warmed;
	file->warmed = true;
	pthread_mutex_unlock(&files->lock);
	if (!first)
		return;
	path = node_path(files->nodes, file->node);
	if (path)
		prewarmer_add(files->prewarmer, path);
	free(path);
}

int file_get(struct files *files, struct node *node, enum file_access access, struct file **out)
{
	struct file *file;
	int error;

	if (!S_ISREG(node->type))
		return S_ISDIR(node->type) ? -EISDIR : -EINVAL;
	file = file_of_node(files, node, true);
	if (!file)
		return -ENFILE;
	if (!file->mapped || !is_open_for(file, access)) {
		pthread_mutex_lock(&file->open_lock);
		error = open_locked(files, file, access);
		pthread_mutex_unlock(&file->open_lock);
		if (error) {
			dereference(files, file, false);
			return error == -EMFILE || error == -ENOMEM ? -ENFILE : error;
		}
		if (files->prewarmer)
			warm(files, file);
	}
	*out = file;
	return 0;
}

int file_adopt(struct files *files, struct node *node, int descriptor, struct file **out)
{
	struct file *file = file_of_node(files, node, true);
	int error = 0;

	if (!file) {
		close(descriptor);
		return -ENFILE;
	}
	pthread_mutex_lock(&file->open_lock);
	if (!file->mapped)
		error = map_locked(files, file, descriptor, true);
	else if (mmapio_file_make_writable(file->mapped, descriptor))
		close(descriptor);
	pthread_mutex_unlock(&file->open_lock);
	if (error) {
		dereference(files, file, false);
		return error == -ENOMEM ? -ENFILE : error;
	}
	*out = file;
	return 0;
}

struct file *file_find(struct files *files, struct node *node)
{
	struct file *file = S_ISREG(node->type) ? file_of_node(files, node, false) : NULL;

	/* It is being opened at this moment, or failed to be. */
	if (file && !file->mapped) {
		dereference(files, file, false);
		file = NULL;
	}
	return file;
}

void file_put(struct files *files, struct file *file)
{
	dereference(files, file, false);
}

void file_hold(struct files *files, struct file *file)
{
	pthread_mutex_lock(&files->lock);
	file->handles++;
	pthread_mutex_unlock(&files->lock);
}

void file_release(struct files *files, struct node *node)
{
	struct file *file = file_find(files, node);

	if (!file)
		return;
	pthread_mutex_lock(&files->lock);
	if (file->handles)
		file->handles--;
	pthread_mutex_unlock(&files->lock);
	dereference(files, file, false);
}

bool file_keep(struct files *files, struct node *node)
{
	struct file *file = file_find(files, node);

	if (!file)
		return false;
	pthread_mutex_lock(&files->lock);
	file->keep = true;
	pthread_mutex_unlock(&files->lock);
	file_put(files, file);
	return true;
}

void file_cling(struct files *files, struct node *node)
{
	struct file *file;
	bool many;

	if (!S_ISREG(node->type) || (file_get(files, node, FILE_WRITE, &file) != 0 &&
				     file_get(files, node, FILE_READ, &file) != 0))
		return;
	pthread_mutex_lock(&files->lock);
	files->clinging_count += !file->cling;
	file->cling = true; /* it is in no list: we have a reference */
	many = too_many_cling_locked(files);
	pthread_mutex_unlock(&files->lock);
	file_put(files, file);
	if (many)
		evict_one(files);
}

int files_room(struct files *files)
{
	while (files->nodes->held >= files->nodes->room)
		if (!evict_one(files))
			return -ENFILE;
	return 0;
}

void files_count(struct files *files, int folders)
{
	files->nodes->held += (unsigned int)folders;
	files->nodes->used += (unsigned int)folders;
	if (files->nodes->used > files->nodes->room)
		node_descriptors_trim(files->nodes, 2);
}

int file_keep_room(struct files *files, struct node *node)
{
	struct file *file = file_find(files, node);

	if (!file)
		return files_room(files);
	file_put(files, file);
	return 0;
}

int file_path_descriptor(struct files *files, struct node *node)
{
	struct file *file = file_find(files, node);
	int descriptor;

	if (!file)
		return -ESTALE;
	descriptor =
		backing_reopen(files->nodes->backing, mmapio_file_descriptor(file->mapped), O_PATH);
	file_put(files, file);
	return descriptor;
}

void file_forgotten(struct files *files, struct node *node)
{
	struct file *file = file_find(files, node);
	struct stat st;
	bool useless;

	pthread_mutex_lock(check_lock(files, node));
	node->seen = (struct contents){0};
	pthread_mutex_unlock(check_lock(files, node));
	if (!file)
		return;
	useless = fstat(mmapio_file_descriptor(file->mapped), &st) == 0 && st.st_nlink == 0;
	if (useless)
		mmapio_discard(file->mapped);
	pthread_mutex_lock(&files->lock);
	files->clinging_count -= file->cling;
	file->keep = file->cling = false;
	file->doomed = useless; /* its release may still be under way in another thread */
	pthread_mutex_unlock(&files->lock);
	dereference(files, file, false);
}

int file_check(struct files *files, struct file *file, struct stat *st)
{
	int error;

	pthread_mutex_lock(check_lock(files, file->node));
	error = check_locked(files, file, st, false);
	pthread_mutex_unlock(check_lock(files, file->node));
	return error;
}

int files_move_times(struct files *files)
{
	struct file *file, **dirty;
	size_t count = 0;

	pthread_mutex_lock(&files->lock);
	TAILQ_FOREACH (file, &files->all, all)
		count++;
	dirty = calloc(count + 1, sizeof(struct file *));
	count = 0;
	TAILQ_FOREACH (file, &files->all, all) {
		if (!dirty || !file->mapped || !mmapio_is_dirty(file->mapped))
			continue;
		reference_locked(files, file);
		dirty[count++] = file;
	}
	pthread_mutex_unlock(&files->lock);
	if (!dirty)
		return -ENOMEM;
	while (count > 0) {
		file = dirty[--count];
		(void)!mmapio_file_refresh(file->mapped, &(struct stat){.st_size = 0});
		file_put(files, file);
	}
	free(dirty);
	return 0;
}

int file_check_reading(struct files *files, struct file *file)
{
	int result;

	pthread_mutex_lock(check_lock(files, file->node));
	result = check_locked(files, file, NULL, true);
	pthread_mutex_unlock(check_lock(files, file->node));
	return result;
}

int file_stat(struct files *files, struct node *node, struct stat *st)
{
	struct file *file = file_find(files, node);
	int descriptor, error;

	if (file) {
		error = file_check(files, file, st);
		file_put(files, file);
		return error;
	}
	descriptor = node_descriptor(files->nodes, node);
	if (descriptor < 0)
		return descriptor;
	pthread_mutex_lock(check_lock(files, node));
	error = fstat(descriptor, st) ? -errno : 0;
	if (!error && S_ISREG(node->type))
		see_locked(files, node, st);
	pthread_mutex_unlock(check_lock(files, node));
	node_descriptor_put(files->nodes, node);
	return error;
}

/* Whether the kernel knows these contents, or learns them now, having none. */
static bool is_known(struct files *files, struct node *node, const struct stat *st)
{
	const struct contents contents = contents_of(st);
	bool known;

	pthread_mutex_lock(check_lock(files, node));
	if (!node->seen.time && !node->seen.size)
		node->seen = contents;
	known = is_seen(node, &contents);
	pthread_mutex_unlock(check_lock(files, node));
	return known;
}

int file_stat_known(struct files *files, struct node *node, struct stat *st)
{
	struct file *file = file_find(files, node);

	if (file)
		file_put(files, file); /* stores may have yet to move the times */
	else if (!S_ISREG(node->type) || is_known(files, node, st))
		return 0;
	return file_stat(files, node, st);
}

bool file_last_byte(void *context, struct node *node, uint64_t *offset, char *byte)
{
	/* (What a view has changed is not what the file has.) */
	struct file *file = node->own ? NULL : file_find(context, node);
	uint64_t size;
	bool found;

	if (!file)
		return false;
	size = mmapio_file_size(file->mapped);
	*offset = size - 1;
	found = size > 0 && !file->write_only && mmapio_read(file->mapped, *offset, byte, 1) == 1;
	file_put(context, file);
	return found;
}

int file_set_times(struct files *files, struct node *node, int descriptor,
		   const struct timespec times[2])
{
	struct file *file = file_find(files, node);
	struct stat st;
	int error;

	if (file) {
		error = mmapio_file_set_times(file->mapped, times);
		file_put(files, file);
		return error;
	}
	if (S_ISLNK(node->type))
		return utimensat(descriptor, "", times, AT_EMPTY_PATH) ? -errno : 0;
	pthread_mutex_lock(check_lock(files, node));
	if (S_ISREG(node->type) && fstat(descriptor, &st) == 0)
		see_locked(files, node, &st);
	error = utimensat(AT_FDCWD, backing_path(descriptor).text, times, 0) ? -errno : 0;
	if (!error && S_ISREG(node->type) && fstat(descriptor, &st) == 0)
		node->seen = contents_of(&st);
	pthread_mutex_unlock(check_lock(files, node));
	return error;
}

int files_close(struct files *files)
{
	struct file *file;
	int first = 0;

	TAILQ_FOREACH (file, &files->all, all) {
		int error = mmapio_flush(file->mapped);

		if (!first)
			first = error;
	}
	while ((file = TAILQ_FIRST(&files->all))) {
		detach_locked(files, file);
		file_close(file);
	}
	for (int i = 0; i < CHECK_LOCKS; i++)
		pthread_mutex_destroy(&files->check_locks[i]);
	pthread_mutex_destroy(&files->lock);
	return first;
}
