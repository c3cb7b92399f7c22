/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flusher: a thread and a queue of files, ordered by when they are due. Knows when, not what:
 * flush_run() does the work and says when the file is due again.
 *
 * A queued file is referenced by the queue, so that a dirty file is not closed before it has been
 * flushed. flusher->lock is never held while a file is flushed or released.
 */
#include "file.h"

#include <errno.h>
#include <stdlib.h>

TAILQ_HEAD(file_queue, mmapio_file);

struct mmapio_flusher {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;	 /* with lock, CLOCK_MONOTONIC: the head of the queue, or stop */
	struct file_queue queue; /* lock; by queue_due */
	bool stop;		 /* lock; what is queued is due at once */
};

/* Most files are queued in the order in which they are due, so the search starts at the end. */
static void queue_insert_locked(struct mmapio_flusher *flusher, struct mmapio_file *file,
				uint64_t due)
{
	struct mmapio_file *before = TAILQ_LAST(&flusher->queue, file_queue);

	while (before && before->queue_due > due)
		before = TAILQ_PREV(before, file_queue, queue);
	file->queue_due = due;
	file->queued = true;
	if (before) {
		TAILQ_INSERT_AFTER(&flusher->queue, before, file, queue);
	} else {
		TAILQ_INSERT_HEAD(&flusher->queue, file, queue);
		pthread_cond_signal(&flusher->changed);
	}
}

void flusher_schedule(struct mmapio_flusher *flusher, struct mmapio_file *file, uint64_t due)
{
	pthread_mutex_lock(&flusher->lock);
	if (!file->queued) {
		mmapio_file_ref(file);
		queue_insert_locked(flusher, file, due);
	} else if (due < file->queue_due) {
		TAILQ_REMOVE(&flusher->queue, file, queue);
		queue_insert_locked(flusher, file, due);
	}
	pthread_mutex_unlock(&flusher->lock);
}

bool flusher_cancel(struct mmapio_flusher *flusher, struct mmapio_file *file)
{
	bool queued;

	pthread_mutex_lock(&flusher->lock);
	queued = file->queued;
	if (queued) {
		TAILQ_REMOVE(&flusher->queue, file, queue);
		file->queued = false;
	}
	pthread_mutex_unlock(&flusher->lock);
	return queued;
}

static void *flusher_run(void *argument)
{
	struct mmapio_flusher *flusher = argument;
	struct mmapio_file *file;

	pthread_mutex_lock(&flusher->lock);
	while ((file = TAILQ_FIRST(&flusher->queue)) || !flusher->stop) {
		uint64_t now = monotonic_ns(), due;
		bool stop = flusher->stop;

		if (!file) {
			pthread_cond_wait(&flusher->changed, &flusher->lock);
			continue;
		}
		if (file->queue_due > now && !stop) {
			struct timespec until = {
				.tv_sec = (time_t)(file->queue_due / 1000000000),
				.tv_nsec = (long)(file->queue_due % 1000000000),
			};

			pthread_cond_timedwait(&flusher->changed, &flusher->lock, &until);
			continue;
		}
		TAILQ_REMOVE(&flusher->queue, file, queue);
		file->queued = false;
		pthread_mutex_unlock(&flusher->lock);

		/* It may be queued again meanwhile, by a write; then the earlier time counts. */
		due = flush_run(file, stop ? UINT64_MAX : now);
		if (due)
			flusher_schedule(flusher, file, due);
		mmapio_file_unref(file);

		pthread_mutex_lock(&flusher->lock);
	}
	pthread_mutex_unlock(&flusher->lock);
	return NULL;
}

int mmapio_flusher_new(struct mmapio_flusher **out)
{
	struct mmapio_flusher *flusher;
	pthread_condattr_t monotonic;
	int error;

	if (!out)
		return error_argument();
	flusher = malloc(sizeof(*flusher));
	if (!flusher)
		return error_set(MMAPIO_ERROR_IO, -ENOMEM);
	pthread_mutex_init(&flusher->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&flusher->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	TAILQ_INIT(&flusher->queue);
	flusher->stop = false;

	error = thread_start(&flusher->thread, flusher_run, flusher);
	if (error) {
		pthread_cond_destroy(&flusher->changed);
		pthread_mutex_destroy(&flusher->lock);
		free(flusher);
		return error;
	}
	*out = flusher;
	return 0;
}

void mmapio_flusher_free(struct mmapio_flusher *flusher)
{
	if (!flusher)
		return;
	pthread_mutex_lock(&flusher->lock);
	flusher->stop = true;
	pthread_cond_signal(&flusher->changed);
	pthread_mutex_unlock(&flusher->lock);
	pthread_join(flusher->thread, NULL);
	pthread_cond_destroy(&flusher->changed);
	pthread_mutex_destroy(&flusher->lock);
	free(flusher);
}
