/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watches: what happens to a file, as events that a thread asks for. Owns struct mmapio_watch, and
 * the question whose a change was; what changes the file tells of its own (watch_note()).
 *
 * inotify(7) tells of what we do, too, and not by whom it was done. It tells at once, in the call
 * that does it: so what it has told when a call of ours begins was done by others, and what it has
 * told when the call is over was ours (watch_hear_locked()). A store into a mapping it tells of
 * nobody, so that bytes that wait for their commit cannot be taken for others'.
 *
 * What was heard waits as a flag for each kind of event, and own changes as a set of ranges: each
 * is told once, however often it happened. The eventfd is readable exactly while any of them waits.
 */
#include "file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#define OWN_MAX 256 /* ranges */

struct mmapio_watch {
	struct mmapio_file *file; /* constant; a reference */
	int notify;		  /* constant: inotify */
	int waiting;		  /* constant: eventfd */
	int poll;		  /* constant: epoll of both */

	/* All of these: file->dirty_lock. */
	struct mmapio_watch *next;
	struct range_set own; /* what we have changed */
	bool overflow;
	bool modified; /* by others, as metadata */
	bool metadata;
	bool links;	/* the number of names is to be looked at */
	bool nameless;	/* it had no name when that was last done */
	bool signalled; /* waiting is readable */
};

static void signal_locked(struct mmapio_watch *watch)
{
	const bool any = watch->overflow || watch->modified || watch->metadata || watch->links ||
			 !range_set_empty(&watch->own);
	eventfd_t value;

	if (any == watch->signalled)
		return;
	/* Neither can fail: its value is 0 or 1. */
	(void)!(any ? eventfd_write(watch->waiting, 1) : eventfd_read(watch->waiting, &value));
	watch->signalled = any;
}

/* Asks the kernel for events of the file. 0 or negative errno. */
static int notify_add(struct mmapio_watch *watch)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", watch->file->fd);
	return inotify_add_watch(watch->notify, path, IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF) < 0
		       ? -errno
		       : 0;
}

/* own: what of it was our doing. */
static void heard_locked(struct mmapio_watch *watch, uint32_t mask, uint32_t own)
{
	if (mask & ~own & IN_MODIFY)
		watch->modified = true;
	if (mask & ~own & IN_ATTRIB)
		watch->metadata = true;
	/* While the file is open, the loss of its last name is IN_ATTRIB. IN_DELETE_SELF comes if
	 * that was another name than the one that it was opened by. */
	if (mask & (IN_ATTRIB | IN_DELETE_SELF | IN_Q_OVERFLOW))
		watch->links = true;
	if (mask & IN_Q_OVERFLOW)
		watch->overflow = true;
	if (mask & IN_IGNORED) {
		/* After IN_DELETE_SELF, though the file goes on; something may be missed between.
		 */
		(void)!notify_add(watch);
		watch->overflow = true;
	}
}

static void hear_locked(struct mmapio_watch *watch, uint32_t own)
{
	_Alignas(struct inotify_event) char buffer[4096];
	const struct inotify_event *event;
	ssize_t count;

	while ((count = read(watch->notify, buffer, sizeof(buffer))) > 0) {
		for (const char *at = buffer; at < buffer + count;
		     at += sizeof(*event) + event->len) {
			event = (const struct inotify_event *)at;
			heard_locked(watch, event->mask, own);
		}
	}
}

/* What the kernel tells of now, and is our doing: contents may be changed, at this moment. */
static uint32_t own_locked(const struct mmapio_file *file)
{
	return file->changing && atomic_load(&file->mode) == MMAPIO_READ_WRITE ? IN_MODIFY : 0;
}

void watch_hear_locked(struct mmapio_file *file, bool times)
{
	struct mmapio_watch *watch;

	for (watch = file->watches; watch; watch = watch->next) {
		hear_locked(watch, times ? IN_MODIFY | IN_ATTRIB : own_locked(file));
		signal_locked(watch);
	}
}

void watch_note_locked(struct mmapio_file *file, uint64_t start, uint64_t end)
{
	struct mmapio_watch *watch;

	for (watch = file->watches; watch && start < end; watch = watch->next) {
		range_set_add_exactly(&watch->own, start, end);
		/* One too many is one that touches no other. */
		if (watch->own.count > OWN_MAX)
			range_set_remove(&watch->own, start, end);
		if (!range_set_contains(&watch->own, start, end))
			watch->overflow = true;
		signal_locked(watch);
	}
}

void watch_note(struct mmapio_file *file, uint64_t start, uint64_t end)
{
	pthread_mutex_lock(&file->dirty_lock);
	watch_note_locked(file, start, end);
	pthread_mutex_unlock(&file->dirty_lock);
}

/* Begins to listen. What we change at this moment must not be heard and then be taken for others':
 * dirty_lock is held. */
static int watch_begin_locked(struct mmapio_watch *watch)
{
	struct stat st;
	int error = notify_add(watch);

	if (!error && fstat(watch->file->fd, &st))
		error = -errno;
	if (error)
		return error;
	watch->nameless = st.st_nlink == 0;
	watch->next = watch->file->watches;
	watch->file->watches = watch;
	return 0;
}

int mmapio_watch_new(struct mmapio_watch **out, struct mmapio_file *file)
{
	struct epoll_event readable = {.events = EPOLLIN};
	struct mmapio_watch *watch;
	int error = 0;

	if (!out || !file)
		return error_argument();
	watch = calloc(1, sizeof(*watch));
	if (!watch)
		return error_set(MMAPIO_ERROR_WATCH, -ENOMEM);
	watch->file = file;
	range_set_init(&watch->own);
	watch->waiting = watch->poll = -1;
	watch->notify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (watch->notify >= 0)
		watch->waiting = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (watch->waiting >= 0)
		watch->poll = epoll_create1(EPOLL_CLOEXEC);
	if (watch->poll < 0 || epoll_ctl(watch->poll, EPOLL_CTL_ADD, watch->notify, &readable) ||
	    epoll_ctl(watch->poll, EPOLL_CTL_ADD, watch->waiting, &readable))
		error = -errno;
	if (!error) {
		pthread_mutex_lock(&file->dirty_lock);
		error = watch_begin_locked(watch);
		pthread_mutex_unlock(&file->dirty_lock);
	}
	if (error)
		goto out_close;
	mmapio_file_ref(file);
	*out = watch;
	return 0;

out_close:
	if (watch->poll >= 0)
		close(watch->poll);
	if (watch->waiting >= 0)
		close(watch->waiting);
	if (watch->notify >= 0)
		close(watch->notify);
	free(watch);
	return error_set(MMAPIO_ERROR_WATCH, error);
}

int mmapio_watch_descriptor(const struct mmapio_watch *watch)
{
	return watch ? watch->poll : error_argument();
}

/* Whether it has lost its last name since that was last looked at. 1, 0 or negative errno. */
static int removed_locked(struct mmapio_watch *watch)
{
	const bool before = watch->nameless;
	struct stat st;

	if (fstat(watch->file->fd, &st))
		return error_set(MMAPIO_ERROR_WATCH, -errno);
	watch->links = false;
	watch->nameless = st.st_nlink == 0;
	return watch->nameless && !before;
}

static int take_locked(struct mmapio_watch *watch, struct mmapio_event *event)
{
	const struct range *own = range_set_next(&watch->own, 0);
	int removed;

	if (watch->overflow) {
		watch->overflow = false;
		event->kind = MMAPIO_EVENT_OVERFLOW;
		event->length = UINT64_MAX;
		return 1;
	}
	if (own) {
		event->kind = MMAPIO_EVENT_MODIFIED;
		event->own = true;
		event->offset = own->start;
		event->length = own->end - own->start;
		range_set_remove(&watch->own, own->start, own->end);
		return 1;
	}
	if (watch->modified) {
		watch->modified = false;
		event->kind = MMAPIO_EVENT_MODIFIED;
		event->length = UINT64_MAX;
		return 1;
	}
	removed = watch->links ? removed_locked(watch) : 0;
	if (removed < 0)
		return removed;
	if (!removed && !watch->metadata)
		return 0;
	/* That it lost its name was its change of metadata. */
	watch->metadata = false;
	event->kind = removed ? MMAPIO_EVENT_REMOVED : MMAPIO_EVENT_METADATA;
	return 1;
}

int mmapio_watch_next(struct mmapio_watch *watch, struct mmapio_event *event)
{
	int found;

	if (!watch || !event || event->size < sizeof(*event))
		return error_argument();
	memset((char *)event + sizeof(event->size), 0, event->size - sizeof(event->size));
	pthread_mutex_lock(&watch->file->dirty_lock);
	hear_locked(watch, own_locked(watch->file));
	found = take_locked(watch, event);
	signal_locked(watch);
	pthread_mutex_unlock(&watch->file->dirty_lock);
	return found;
}

void mmapio_watch_free(struct mmapio_watch *watch)
{
	struct mmapio_watch **link;

	if (!watch)
		return;
	pthread_mutex_lock(&watch->file->dirty_lock);
	for (link = &watch->file->watches; *link != watch; link = &(*link)->next)
		;
	*link = watch->next;
	pthread_mutex_unlock(&watch->file->dirty_lock);
	close(watch->poll);
	close(watch->waiting);
	close(watch->notify);
	range_set_clear(&watch->own);
	mmapio_file_unref(watch->file);
	free(watch);
}
