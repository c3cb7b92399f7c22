/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asynchronous calls: a queue of operations, and threads that make them one by one. Owns operations
 * from their submission to their completion; what each does is a call that anybody could make.
 *
 * An operation is waiting (in waiting), under way, or complete: then its callback has been called,
 * or it is in complete until it is fetched. The eventfd is readable while that is not empty.
 */
#include "file.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define THREADS_DEFAULT 4
#define THREADS_MAX	256

enum operation_kind { OPERATION_READ, OPERATION_WRITE, OPERATION_FLUSH };

struct operation {
	STAILQ_ENTRY(operation) next; /* queue->lock */
	enum operation_kind kind;     /* this and all below: constant until it is under way */
	uint64_t id;
	struct mmapio_file *file; /* referenced */
	uint64_t offset, length;
	void *buffer;
	void (*done)(void *context, uint64_t id, ssize_t result);
	void *context;
	ssize_t result; /* when it is complete */
};

STAILQ_HEAD(operation_list, operation);

struct mmapio_queue {
	pthread_mutex_t lock;		/* a leaf: nothing is called with it */
	pthread_cond_t changed;		/* something waits, or stop */
	struct operation_list waiting;	/* lock */
	struct operation_list complete; /* lock */
	uint64_t last_id;		/* lock */
	bool stop;			/* lock */
	int event;			/* constant: of eventfd(2) */
	unsigned int threads;		/* constant once it is made */
	pthread_t thread[];
};

static ssize_t operation_run(const struct operation *operation)
{
	switch (operation->kind) {
	case OPERATION_READ:
		return mmapio_read(operation->file, operation->offset, operation->buffer,
				   (size_t)operation->length);
	case OPERATION_WRITE:
		return mmapio_write(operation->file, operation->offset, operation->buffer,
				    (size_t)operation->length);
	default:
		if (operation->length == UINT64_MAX && operation->offset == 0)
			return mmapio_flush(operation->file);
		return mmapio_flush_range(operation->file, operation->offset, operation->length);
	}
}

/* Tells of a result, and lets the file go. */
static void operation_complete(struct mmapio_queue *queue, struct operation *operation,
			       ssize_t result)
{
	mmapio_file_unref(operation->file);
	operation->file = NULL;
	operation->result = result;
	if (operation->done) {
		operation->done(operation->context, operation->id, result);
		free(operation);
		return;
	}
	pthread_mutex_lock(&queue->lock);
	STAILQ_INSERT_TAIL(&queue->complete, operation, next);
	(void)!write(queue->event, &(uint64_t){1}, sizeof(uint64_t));
	pthread_mutex_unlock(&queue->lock);
}

static void *queue_run(void *argument)
{
	struct mmapio_queue *queue = argument;
	struct operation *operation;

	pthread_mutex_lock(&queue->lock);
	for (;;) {
		while (STAILQ_EMPTY(&queue->waiting) && !queue->stop)
			pthread_cond_wait(&queue->changed, &queue->lock);
		operation = STAILQ_FIRST(&queue->waiting);
		if (!operation)
			break;
		STAILQ_REMOVE_HEAD(&queue->waiting, next);
		pthread_mutex_unlock(&queue->lock);
		operation_complete(queue, operation, operation_run(operation));
		pthread_mutex_lock(&queue->lock);
	}
	pthread_mutex_unlock(&queue->lock);
	return NULL;
}

/* Ends the threads: what waits is cancelled, what is under way comes to its end. */
static void queue_stop(struct mmapio_queue *queue)
{
	struct operation_list cancelled = STAILQ_HEAD_INITIALIZER(cancelled);
	struct operation *operation;

	pthread_mutex_lock(&queue->lock);
	queue->stop = true;
	STAILQ_CONCAT(&cancelled, &queue->waiting);
	pthread_cond_broadcast(&queue->changed);
	pthread_mutex_unlock(&queue->lock);
	while ((operation = STAILQ_FIRST(&cancelled))) {
		STAILQ_REMOVE_HEAD(&cancelled, next);
		operation_complete(queue, operation, -ECANCELED);
	}
	for (unsigned int i = 0; i < queue->threads; i++)
		pthread_join(queue->thread[i], NULL);
}

static void queue_destroy(struct mmapio_queue *queue)
{
	struct operation *operation;

	while ((operation = STAILQ_FIRST(&queue->complete))) {
		STAILQ_REMOVE_HEAD(&queue->complete, next);
		free(operation);
	}
	close(queue->event);
	pthread_cond_destroy(&queue->changed);
	pthread_mutex_destroy(&queue->lock);
	free(queue);
}

int mmapio_queue_new(struct mmapio_queue **out, unsigned int threads)
{
	struct mmapio_queue *queue;
	int error = 0;

	if (!out || threads > THREADS_MAX)
		return error_argument();
	if (!threads)
		threads = THREADS_DEFAULT;
	queue = calloc(1, sizeof(*queue) + threads * sizeof(queue->thread[0]));
	if (!queue)
		return error_set(MMAPIO_ERROR_IO, -ENOMEM);
	queue->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue->event < 0) {
		error = error_set(MMAPIO_ERROR_IO, -errno);
		free(queue);
		return error;
	}
	pthread_mutex_init(&queue->lock, NULL);
	pthread_cond_init(&queue->changed, NULL);
	STAILQ_INIT(&queue->waiting);
	STAILQ_INIT(&queue->complete);

	while (queue->threads < threads && !error) {
		error = thread_start(&queue->thread[queue->threads], queue_run, queue);
		queue->threads += !error;
	}
	if (error) {
		queue_stop(queue);
		queue_destroy(queue);
		return error;
	}
	*out = queue;
	return 0;
}

void mmapio_queue_free(struct mmapio_queue *queue)
{
	if (!queue)
		return;
	queue_stop(queue);
	queue_destroy(queue);
}

static int queue_submit(struct mmapio_queue *queue, const struct operation *wanted, uint64_t *id)
{
	struct operation *operation;

	if (!queue || !wanted->file)
		return error_argument();
	operation = malloc(sizeof(*operation));
	if (!operation)
		return error_set(MMAPIO_ERROR_IO, -ENOMEM);
	*operation = *wanted;
	mmapio_file_ref(operation->file);
	pthread_mutex_lock(&queue->lock);
	if (queue->stop) {
		pthread_mutex_unlock(&queue->lock);
		mmapio_file_unref(operation->file);
		free(operation);
		return error_set(MMAPIO_ERROR_BUSY, -ECANCELED);
	}
	operation->id = ++queue->last_id;
	if (id)
		*id = operation->id;
	STAILQ_INSERT_TAIL(&queue->waiting, operation, next);
	pthread_cond_signal(&queue->changed);
	pthread_mutex_unlock(&queue->lock);
	return 0;
}

int mmapio_queue_read(struct mmapio_queue *queue, struct mmapio_file *file, uint64_t offset,
		      void *buffer, size_t length,
		      void (*done)(void *context, uint64_t id, ssize_t result), void *context,
		      uint64_t *id)
{
	const struct operation operation = {
		.kind = OPERATION_READ,
		.file = file,
		.offset = offset,
		.length = length,
		.buffer = buffer,
		.done = done,
		.context = context,
	};

	return buffer || !length ? queue_submit(queue, &operation, id) : error_argument();
}

int mmapio_queue_write(struct mmapio_queue *queue, struct mmapio_file *file, uint64_t offset,
		       const void *buffer, size_t length,
		       void (*done)(void *context, uint64_t id, ssize_t result), void *context,
		       uint64_t *id)
{
	const struct operation operation = {
		.kind = OPERATION_WRITE,
		.file = file,
		.offset = offset,
		.length = length,
		.buffer = (void *)buffer,
		.done = done,
		.context = context,
	};

	return buffer || !length ? queue_submit(queue, &operation, id) : error_argument();
}

int mmapio_queue_flush(struct mmapio_queue *queue, struct mmapio_file *file, uint64_t offset,
		       uint64_t length, void (*done)(void *context, uint64_t id, ssize_t result),
		       void *context, uint64_t *id)
{
	const struct operation operation = {
		.kind = OPERATION_FLUSH,
		.file = file,
		.offset = offset,
		.length = length,
		.done = done,
		.context = context,
	};

	return queue_submit(queue, &operation, id);
}

int mmapio_queue_cancel(struct mmapio_queue *queue, uint64_t id)
{
	struct operation *operation;

	if (!queue)
		return error_argument();
	pthread_mutex_lock(&queue->lock);
	STAILQ_FOREACH(operation, &queue->waiting, next)
	if (operation->id == id)
		break;
	if (operation)
		STAILQ_REMOVE(&queue->waiting, operation, operation, next);
	pthread_mutex_unlock(&queue->lock);
	if (!operation)
		return error_set(MMAPIO_ERROR_BUSY, -EALREADY);
	operation_complete(queue, operation, -ECANCELED);
	return 0;
}

int mmapio_queue_descriptor(const struct mmapio_queue *queue)
{
	return queue ? queue->event : error_argument();
}

int mmapio_queue_next(struct mmapio_queue *queue, struct mmapio_completion *completion)
{
	struct operation *operation;
	uint64_t count;

	if (!queue || !completion)
		return error_argument();
	pthread_mutex_lock(&queue->lock);
	operation = STAILQ_FIRST(&queue->complete);
	if (operation)
		STAILQ_REMOVE_HEAD(&queue->complete, next);
	if (STAILQ_EMPTY(&queue->complete))
		(void)!read(queue->event, &count, sizeof(count));
	pthread_mutex_unlock(&queue->lock);
	if (!operation)
		return 0;
	completion->id = operation->id;
	completion->context = operation->context;
	completion->result = operation->result;
	free(operation);
	return 1;
}
