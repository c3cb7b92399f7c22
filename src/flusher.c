/* SPDX-License-Identifier: Apache-2.0 */
/* Folders that got or lost names (flusher.h). The queue is in the order of their deadlines. */
#include "flusher.h"

#include "log.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct flusher {
	struct nodes *nodes;	     /* constant */
	struct mmapio_policy policy; /* constant */
	bool has_thread;	     /* constant */
	pthread_t thread;
	pthread_mutex_t lock;	/* before nodes->lock */
	pthread_cond_t changed; /* with lock, CLOCK_MONOTONIC */
	struct node_list queue; /* lock; folders with names_changed */
	bool stop;		/* lock */
	unsigned int failed;	/* lock: folders with names_error */
};

/* Until a folder is tried again for which there was no descriptor or memory. */
#define SHORTAGE_DELAY_NS UINT64_C(100000000)

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/*
 * References the folder while its names have to be synced, or could not be. Whether the caller has
 * to give that reference back.
 */
static bool reference_locked(struct flusher *flusher, struct node *folder)
{
	bool wanted = folder->names_changed || folder->names_error, had = folder->names_referenced;

	folder->names_referenced = wanted;
	if (wanted && !had)
		node_ref(flusher->nodes, folder);
	return had && !wanted;
}

static void queue_locked(struct flusher *flusher, struct node *folder, uint64_t due)
{
	folder->names_changed = true;
	folder->names_due = due;
	TAILQ_INSERT_TAIL(&flusher->queue, folder, changed);
	if (flusher->has_thread && TAILQ_FIRST(&flusher->queue) == folder)
		pthread_cond_signal(&flusher->changed);
}

/* The system call. descriptor: of the folder, or -1. 0 or negative errno. */
static int sync_names(struct nodes *nodes, struct node *folder, int descriptor)
{
	int path, opened = -1, error = 0;

	if (descriptor < 0) {
		path = node_descriptor(nodes, folder);
		/* By handle, that means that it was removed, and has no names left to lose. */
		if (path == -ESTALE && folder->device->handles_open)
			return 0;
		if (path < 0)
			return path;
		do
			opened = backing_reopen(nodes->backing, path, O_RDONLY | O_DIRECTORY);
		while ((opened == -EMFILE || opened == -ENFILE) && node_descriptors_trim(nodes, 4));
		node_descriptor_put(nodes, folder);
		/* It may be written, and not read: with all that is on its file system. */
		if (opened == -EACCES && folder->device->mount >= 0)
			return syncfs(folder->device->mount) ? -errno : 0;
		if (opened < 0)
			return opened == -ENOENT ? 0 : opened;
		descriptor = opened;
	}
	if (fsync(descriptor))
		error = -errno;
	if (opened >= 0)
		close(opened);
	return error;
}

/* Nothing is known to be lost: it can be tried again. */
static bool is_shortage(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOMEM;
}

int flusher_sync_folder(struct flusher *flusher, struct node *folder, int descriptor)
{
	bool changed, given_back;
	int error;
	char *name;

	/* What changes from here on is for the next sync. */
	pthread_mutex_lock(&flusher->lock);
	changed = folder->names_changed;
	if (changed) {
		TAILQ_REMOVE(&flusher->queue, folder, changed);
		folder->names_changed = false;
	}
	pthread_mutex_unlock(&flusher->lock);

	error = sync_names(flusher->nodes, folder, descriptor);

	pthread_mutex_lock(&flusher->lock);
	if (error && folder->removed)
		error = 0; /* it was under way, and there are no names left to lose */
	if (changed && is_shortage(error)) {
		if (!folder->names_changed)
			queue_locked(flusher, folder, now_ns() + SHORTAGE_DELAY_NS);
	} else if (error) {
		flusher->failed += !folder->names_error;
		folder->names_error = -error;
	} else if (changed) {
		flusher->failed -= folder->names_error != 0;
		folder->names_error = 0;
	} else {
		error = -folder->names_error;
	}
	given_back = reference_locked(flusher, folder);
	pthread_mutex_unlock(&flusher->lock);
	if (error && changed) {
		name = node_path(flusher->nodes, folder);
		log_line(LOG_ERR, "%s: names in this folder may not be on the disk: %s",
			 name ? name : "(no memory for the path)", strerror(-error));
		free(name);
	}
	if (given_back)
		node_put(flusher->nodes, folder);
	return error;
}

int flusher_names_changed(struct flusher *flusher, struct node *folder)
{
	pthread_mutex_lock(&flusher->lock);
	if (!folder->names_changed && !folder->removed)
		queue_locked(flusher, folder, now_ns() + flusher->policy.delay_ns);
	reference_locked(flusher, folder);
	pthread_mutex_unlock(&flusher->lock);
	return flusher->policy.always ? flusher_sync_folder(flusher, folder, -1) : 0;
}

void flusher_folder_removed(struct flusher *flusher, struct node *folder)
{
	bool given_back;

	pthread_mutex_lock(&flusher->lock);
	if (folder->names_changed) {
		TAILQ_REMOVE(&flusher->queue, folder, changed);
		folder->names_changed = false;
	}
	flusher->failed -= folder->names_error != 0;
	folder->names_error = 0;
	given_back = reference_locked(flusher, folder);
	pthread_mutex_unlock(&flusher->lock);
	if (given_back)
		node_put(flusher->nodes, folder);
}

static void *flusher_run(void *argument)
{
	struct flusher *flusher = argument;

	pthread_mutex_lock(&flusher->lock);
	while (!flusher->stop) {
		struct node *folder = TAILQ_FIRST(&flusher->queue);
		struct timespec until;

		if (!folder) {
			pthread_cond_wait(&flusher->changed, &flusher->lock);
			continue;
		}
		if (folder->names_due > now_ns()) {
			until.tv_sec = (time_t)(folder->names_due / 1000000000);
			until.tv_nsec = (long)(folder->names_due % 1000000000);
			pthread_cond_timedwait(&flusher->changed, &flusher->lock, &until);
			continue;
		}
		node_ref(flusher->nodes, folder);
		pthread_mutex_unlock(&flusher->lock);
		flusher_sync_folder(flusher, folder, -1);
		node_put(flusher->nodes, folder);
		pthread_mutex_lock(&flusher->lock);
	}
	pthread_mutex_unlock(&flusher->lock);
	return NULL;
}

int flusher_new(struct flusher **out, struct nodes *nodes, const struct mmapio_policy *policy)
{
	struct flusher *flusher = calloc(1, sizeof(*flusher));
	pthread_condattr_t monotonic;
	sigset_t all, before;
	int error = 0;

	if (!flusher)
		return -ENOMEM;
	flusher->nodes = nodes;
	flusher->policy = *policy;
	flusher->has_thread = policy->delay_ns != 0;
	pthread_mutex_init(&flusher->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&flusher->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	TAILQ_INIT(&flusher->queue);
	if (flusher->has_thread) {
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &before);
		error = -pthread_create(&flusher->thread, NULL, flusher_run, flusher);
		pthread_sigmask(SIG_SETMASK, &before, NULL);
	}
	if (error) {
		pthread_cond_destroy(&flusher->changed);
		pthread_mutex_destroy(&flusher->lock);
		free(flusher);
		return error;
	}
	*out = flusher;
	return 0;
}

int flusher_free(struct flusher *flusher)
{
	struct node *folder;
	unsigned int count = 0;
	int first = 0;

	if (!flusher)
		return 0;
	if (flusher->has_thread) {
		pthread_mutex_lock(&flusher->lock);
		flusher->stop = true;
		pthread_cond_signal(&flusher->changed);
		pthread_mutex_unlock(&flusher->lock);
		pthread_join(flusher->thread, NULL);
	}
	/* Each once: what cannot be synced now will not be. */
	TAILQ_FOREACH (folder, &flusher->queue, changed)
		count++;
	for (; count > 0; count--) {
		int error;

		folder = node_ref(flusher->nodes, TAILQ_FIRST(&flusher->queue));
		error = flusher_sync_folder(flusher, folder, -1);
		node_put(flusher->nodes, folder);
		if (!first)
			first = error;
	}
	if (!first && flusher->failed)
		first = -EIO;
	pthread_cond_destroy(&flusher->changed);
	pthread_mutex_destroy(&flusher->lock);
	free(flusher);
	return first;
}
