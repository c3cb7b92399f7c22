/* SPDX-License-Identifier: Apache-2.0 */
/* Changes by others (watch.h). */
#include "watch.h"

#include "log.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <unistd.h>

/* After events of our own only, which a writer makes many of, the next ones are waited for
 * together. */
#define OWN_EVENTS_MS 2

struct watch {
	struct nodes *nodes;	      /* constant */
	pid_t self;		      /* constant */
	int events;		      /* constant: of fanotify, or -1 */
	int wake;		      /* constant: of eventfd(2) */
	struct watch_source source;   /* constant from watch_begin() on */
	struct fuse_session *session; /* constant from watch_begin() on */
	pthread_t thread;
	_Atomic bool complained; /* that a file could not be watched has been said */
	_Atomic bool over;
	pthread_mutex_t lock;
	struct node_queue queue; /* lock: stale nodes, each with a reference */
	bool begun;		 /* lock */
	bool stop;		 /* lock */
};

static void wake(struct watch *watch)
{
	(void)!write(watch->wake, &(uint64_t){1}, sizeof(uint64_t));
}

/* Puts a stale node into the queue, which the caller gives a reference to. */
static void queue_locked(struct watch *watch, struct node *node)
{
	STAILQ_INSERT_TAIL(&watch->queue, node, stale);
	if (STAILQ_FIRST(&watch->queue) == node)
		wake(watch);
}

void watch_changed(struct watch *watch, struct node *node, bool shorter)
{
	pthread_mutex_lock(&watch->lock);
	node->stale_pages = true;
	if (shorter)
		node->is_shorter = true;
	if (!node->is_stale) {
		node->is_stale = true;
		queue_locked(watch, node_ref(watch->nodes, node));
	}
	pthread_mutex_unlock(&watch->lock);
}

void watch_answer(struct watch *watch, struct node *node, struct answer *answer)
{
	bool waits;

	pthread_mutex_lock(&watch->lock);
	waits = node->is_stale;
	if (waits)
		STAILQ_INSERT_TAIL(&node->answers, answer, next);
	pthread_mutex_unlock(&watch->lock);
	if (!waits)
		answer->send(answer);
}

/*
 * Makes the kernel drop the pages it has, and know how long the file is if it has grown: it takes
 * no attributes from an answer to a question of before it was told to drop
 * (fuse_change_attributes()), and who reads at the old end, or appends, would not ask again. A byte
 * that is stored at the end moves it; then its page goes too, lest a write of this moment be
 * overwritten there.
 * (-ENOENT: the kernel does not know the node.)
 */
static void drop(struct watch *watch, struct node *node)
{
	struct fuse_bufvec buffer = FUSE_BUFVEC_INIT(1);
	uint64_t offset;
	char byte;

	if (fuse_lowlevel_notify_inval_inode(watch->session, node->id, 0, 0) ||
	    !watch->source.last_byte(watch->source.context, node, &offset, &byte))
		return;
	buffer.buf[0].mem = &byte;
	if (fuse_lowlevel_notify_store(watch->session, node->id, (off_t)offset, &buffer, 0) == 0)
		fuse_lowlevel_notify_inval_inode(watch->session, node->id, (off_t)offset, 1);
}

/* Drops the pages of the first node of the queue, and sends what waited for that. */
static void settle(struct watch *watch, struct node *node, bool stop)
{
	struct answer_list answers = STAILQ_HEAD_INITIALIZER(answers);
	struct answer *answer;
	bool pages, again;

	pthread_mutex_lock(&watch->lock);
	STAILQ_REMOVE_HEAD(&watch->queue, stale);
	pages = node->stale_pages;
	node->stale_pages = node->has_pages = false;
	STAILQ_CONCAT(&answers, &node->answers);
	pthread_mutex_unlock(&watch->lock);

	if (pages && !stop)
		drop(watch, node);
	while ((answer = STAILQ_FIRST(&answers))) {
		STAILQ_REMOVE_HEAD(&answers, next);
		answer->send(answer);
	}

	pthread_mutex_lock(&watch->lock);
	again = node->stale_pages || !STAILQ_EMPTY(&node->answers);
	if (again)
		queue_locked(watch, node);
	else
		node->is_stale = false;
	pthread_mutex_unlock(&watch->lock);
	if (!again)
		node_put(watch->nodes, node);
}

/* Something was done by others to the file of a handle: on whichever file system that may be. */
static void changed(struct watch *watch, struct identity *identity, uint64_t mask)
{
	struct backing_device *device = atomic_load(&watch->nodes->backing->devices);
	struct node *node;

	for (; device; device = device->next) {
		identity->device = device->device;
		identity->mount = device->mount_id;
		node = node_find(watch->nodes, identity);
		if (!node)
			continue;
		if (mask & FAN_MODIFY)
			watch_changed(watch, node, false);
		else
			fuse_lowlevel_notify_inval_inode(watch->session, node->id, -1, 0);
		node_put(watch->nodes, node);
	}
}

/* What an event tells of the file: its handle. (Nothing in it is aligned.) False: nothing. */
static bool event_identity(const char *info, size_t length, struct identity *identity)
{
	struct fanotify_event_info_fid fid;
	struct file_handle handle;

	*identity = (struct identity){0};
	if (length < sizeof(fid) + sizeof(handle))
		return false;
	memcpy(&fid, info, sizeof(fid));
	memcpy(&handle, info + sizeof(fid), sizeof(handle));
	if (fid.hdr.info_type != FAN_EVENT_INFO_TYPE_FID ||
	    handle.handle_bytes > sizeof(identity->bytes) ||
	    handle.handle_bytes > length - sizeof(fid) - sizeof(handle))
		return false;
	identity->length = handle.handle_bytes;
	identity->type = handle.handle_type;
	memcpy(identity->bytes, info + sizeof(fid) + sizeof(handle), handle.handle_bytes);
	return true;
}

/*
 * Reads what there is of events. (Where so many come that some are lost, what they would have told
 * is found when attributes are asked for.) Whether there were events, and all of our own making.
 */
static bool read_events(struct watch *watch)
{
	struct fanotify_event_metadata event;
	struct identity identity;
	char buffer[4096];
	const char *at = buffer;
	ssize_t left = read(watch->events, buffer, sizeof(buffer));
	bool own = left > 0;

	for (; left >= (ssize_t)sizeof(event); at += event.event_len, left -= event.event_len) {
		memcpy(&event, at, sizeof(event));
		if (event.vers != FANOTIFY_METADATA_VERSION || event.event_len < sizeof(event) ||
		    event.event_len > left)
			return false;
		if (event.pid != watch->self &&
		    event_identity(at + sizeof(event), event.event_len - sizeof(event),
				   &identity)) {
			changed(watch, &identity, event.mask);
			own = false;
		}
	}
	return own;
}

static void *run(void *argument)
{
	struct watch *watch = argument;
	struct pollfd polled[] = {{.fd = watch->wake, .events = POLLIN},
				  {.fd = watch->events, .events = POLLIN}};
	bool own = false, stop;
	struct node *node;
	uint64_t count;

	for (;;) {
		pthread_mutex_lock(&watch->lock);
		node = watch->begun || watch->stop ? STAILQ_FIRST(&watch->queue) : NULL;
		stop = watch->stop;
		pthread_mutex_unlock(&watch->lock);
		if (node) {
			settle(watch, node, stop);
			continue;
		}
		if (stop)
			break;
		poll(polled, own ? 1 : 2, own ? OWN_EVENTS_MS : -1);
		(void)!read(watch->wake, &count, sizeof(count));
		own = watch->events >= 0 && read_events(watch);
	}
	watch->over = true;
	return NULL;
}

int watch_new(struct watch **out, struct nodes *nodes)
{
	struct watch *watch = calloc(1, sizeof(*watch));
	sigset_t all, before;
	int error;

	if (!watch)
		return -ENOMEM;
	watch->nodes = nodes;
	watch->self = getpid();
	STAILQ_INIT(&watch->queue);
	watch->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (watch->wake < 0) {
		error = -errno;
		free(watch);
		return error;
	}
	watch->events = fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_CLOEXEC | FAN_NONBLOCK,
				      O_RDONLY);
	if (watch->events < 0)
		log_line(LOG_NOTICE,
			 "no watch on BACKING (fanotify): %s; what others change there "
			 "is seen when attributes are asked for again",
			 strerror(errno));
	pthread_mutex_init(&watch->lock, NULL);
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = -pthread_create(&watch->thread, NULL, run, watch);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error) {
		if (watch->events >= 0)
			close(watch->events);
		close(watch->wake);
		free(watch);
		return error;
	}
	*out = watch;
	return 0;
}

void watch_begin(struct watch *watch, struct fuse_session *session,
		 const struct watch_source *source)
{
	pthread_mutex_lock(&watch->lock);
	watch->session = session;
	watch->source = *source;
	watch->begun = true;
	pthread_mutex_unlock(&watch->lock);
	wake(watch);
}

void watch_end(struct watch *watch)
{
	pthread_mutex_lock(&watch->lock);
	watch->stop = true;
	pthread_mutex_unlock(&watch->lock);
	wake(watch);
}

bool watch_is_over(struct watch *watch)
{
	return watch->over;
}

void watch_free(struct watch *watch)
{
	if (!watch)
		return;
	watch_end(watch);
	pthread_join(watch->thread, NULL);
	if (watch->events >= 0)
		close(watch->events);
	close(watch->wake);
	pthread_mutex_destroy(&watch->lock);
	free(watch);
}

#define WATCHED (FAN_MODIFY | FAN_ATTRIB)

void watch_add(struct watch *watch, int descriptor)
{
	if (watch->events >= 0 &&
	    fanotify_mark(watch->events, FAN_MARK_ADD, WATCHED, descriptor, NULL) &&
	    !atomic_exchange(&watch->complained, true))
		log_line(LOG_NOTICE,
			 "files that cannot be watched (fanotify): %s; what others change "
			 "in them is seen when attributes are asked for again",
			 strerror(errno));
}

void watch_remove(struct watch *watch, int descriptor)
{
	if (watch->events >= 0)
		fanotify_mark(watch->events, FAN_MARK_REMOVE, WATCHED, descriptor, NULL);
}
