/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the library share: struct mmapio_file, its locks and their order.
 *
 * A file has a size, at most one current region (mapping), and pins. Regions that were outgrown
 * stay mapped, retired, until nobody pins them. The size is an atomic that readers check after
 * they have pinned, and that a shrink lowers before it looks for pins (pin.c).
 *
 * Locks, in the order in which one thread may take them:
 *   lock_turn    one call that locks or unlocks pages at a time: what it undoes is its own
 *   sync_lock    one sync at a time: an error of the descriptor is reported once (FSYNC(2))
 *   size_lock    whoever changes size, region, mode or what the descriptor refers to
 *   pin_lock     marks on pins, retired regions
 *   dirty_lock   what is dirty, in doubt, allocated; times to be moved; deadlines; watches
 *   flusher->lock (flusher.c), queue->lock (queue.c): never both
 * No lock is held while user code runs. One walk that changes the file (walk.c) keeps others from
 * changing it meanwhile, by a flag (exclusive).
 */
#ifndef FILE_H
#define FILE_H

#include "error.h"
#include "range.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

struct region {
	char *base;
	size_t length; /* of the mapping, whole pages; may be longer than the file */
	struct region *next_retired;
};

#define PIN_SLOTS 16

/* See pin.c. */
struct pin_slot {
	_Alignas(64) _Atomic uint64_t end;
	_Atomic(struct region *) region;
};

struct pin_block {
	struct pin_slot slots[PIN_SLOTS];
	_Atomic(struct pin_block *) next; /* set once */
};

struct mmapio_file {
	struct pin_block pins;

	_Atomic unsigned int references;
	int fd;				       /* the number never changes */
	unsigned int flags;		       /* constant */
	dev_t device;			       /* constant */
	ino_t inode;			       /* constant */
	char *path;			       /* constant; NULL: it was opened without one */
	struct mmapio_policy policy;	       /* constant */
	enum mmapio_write_method write_method; /* constant */
	struct mmapio_flusher *flusher;	       /* constant */
	void (*on_error)(void *context, uint64_t offset, uint64_t length, int error);
	void (*on_close)(void *context);
	void *context;

	_Atomic int mode;		 /* written under size_lock */
	_Atomic bool unmappable;	 /* the kernel said ENODEV or EACCES; under size_lock */
	_Atomic bool no_stores;		 /* we may not move mtime; written under dirty_lock */
	_Atomic uint64_t size;		 /* written under size_lock */
	_Atomic(struct region *) region; /* written under size_lock */

	_Atomic uint64_t
		accessed; /* coarse time in ns at which atime was last brought up to date */

	pthread_mutex_t sync_lock;
	struct range_set in_flight;	 /* sync_lock */
	struct range_set in_flight_anew; /* sync_lock: of these, those that were taken from anew */

	pthread_mutex_t lock_turn;

	pthread_mutex_t size_lock;
	pthread_cond_t shrink_over; /* with size_lock, CLOCK_MONOTONIC */
	/* A shrink waits for pins, without size_lock: size is what it will be, and this is what it
	 * was. 0: none does. What grows the file meanwhile comes before the shrink, and is cut off.
	 */
	_Atomic uint64_t shrinking_from; /* written under size_lock */

	/* All of these: size_lock. Whole pages; a range that ends at UINT64_MAX is one to the end
	 * of the file, wherever that may be. What was asked for: see advise.c. */
	struct range_set locked;
	struct range_set random;
	struct range_set sequential;

	pthread_mutex_t pin_lock;
	pthread_cond_t pin_released; /* with pin_lock, CLOCK_MONOTONIC */
	unsigned int marked;	     /* pin_lock: pins that were marked and not yet accounted for */
	bool closed;		     /* pin_lock: no reference is left */
	struct region *retired;	     /* pin_lock */

	pthread_mutex_t dirty_lock;
	_Atomic uint64_t failures; /* written under dirty_lock: syncs that failed */
	/* All of these: dirty_lock. */
	struct range_set dirty;
	struct range_set failed;  /* in doubt since a sync failed */
	struct range_set anew;	  /* written since failed was no longer empty; never too much */
	bool inode_dirty;	  /* size or allocation changed since the last sync */
	bool inode_failed;	  /* such a change is in doubt */
	bool inode_anew;	  /* anything was changed, and so the inode, since it is in doubt */
	struct range_set changes; /* of a copy-on-write file */
	int failed_error;	  /* positive errno; 0 while nothing is in doubt */
	int last_error;		  /* positive errno of the last sync that failed */
	bool syncing;		  /* a system call for what is in flight is under way */
	uint64_t writes;	  /* since the last flush of the whole file */
	struct range_set allocated; /* known not to be holes; may be less than there is */
	struct range_set resident;  /* were in memory at resident_since, or a little later */
	uint64_t resident_since;    /* CLOCK_MONOTONIC in ns */
	bool times_stale;	    /* stored to since times were last brought up to date */
	struct timespec store_time;
	struct timespec times_left; /* mtime as we last saw or left it */
	unsigned int changing;	    /* calls of ours that change the file, under way */
	bool exclusive;		    /* one alone may, when the others are over */
	pthread_cond_t exclusive_turn;
	struct timespec seen_mtime; /* mtime and size as we last found them to be, or left them: */
	uint64_t seen_size;	    /* where they are others, somebody else has changed the file */
	bool changed;		    /* that was so, and has not been told */
	uint64_t flush_due;	    /* CLOCK_MONOTONIC in ns; 0: not due */
	uint64_t times_due;
	struct mmapio_watch *watches; /* each holds a reference */

	/* All of these: flusher->lock. */
	TAILQ_ENTRY(mmapio_file) queue;
	bool queued; /* the queue holds a reference */
	uint64_t queue_due;
};

static inline uint64_t round_down(uint64_t offset, uint64_t unit)
{
	return offset & ~(unit - 1);
}

static inline uint64_t round_up(uint64_t offset, uint64_t unit)
{
	return (offset + unit - 1) & ~(unit - 1);
}

size_t page_size(void);
uint64_t monotonic_ns(void);
uint64_t monotonic_coarse_ns(void); /* cheaper, and up to some milliseconds behind */

/* file.c: mmapio_open_fd() of a descriptor that path led to. */
int file_open_named(struct mmapio_file **out, int fd, const char *path,
		    const struct mmapio_options *options);

/* file.c: closes what the last reference left, when no pin is left either. */
void file_destroy(struct mmapio_file *file);

/* file.c: the file has grown to end, or was that long already. size_lock is held. */
void size_grown_locked(struct mmapio_file *file, uint64_t end);

/* file.c: how far slices that are held may reach. size_lock is held. */
uint64_t size_held_locked(const struct mmapio_file *file);

/* mapping.c */

/*
 * Makes sure that the current region reaches end (at most the size). 0; -ENODEV; -ENOMEM.
 * Takes size_lock; _locked: the caller holds it.
 */
int mapping_reach(struct mmapio_file *file, uint64_t end);
int mapping_reach_locked(struct mmapio_file *file, uint64_t end);

/* Replaces the region, if there is one, by one that fits mode, or by none. size_lock is held. */
void mapping_renew_locked(struct mmapio_file *file, enum mmapio_mode mode);

void region_free(struct region *region);

/* Lets the kernel move atime, as it does when a file is mapped (file_accessed()). */
void mapping_access(struct mmapio_file *file);

/* advise.c: what was asked for stays with the file, and each region gets it. size_lock is held. */

/* Before region is published; old, which may be NULL, is what it replaces. */
void advice_carry_locked(struct mmapio_file *file, struct region *old, struct region *region);

/* The file has grown from a size. */
void advice_grown_locked(struct mmapio_file *file, uint64_t before);

/* Forgets what lies beyond a new, smaller size, but for ranges to the end. */
void advice_truncated_locked(struct mmapio_file *file, uint64_t size);

/* touch.c: maps whole pages and waits for them. 0 or a positive errno; EINVAL before Linux 5.14. */
int touch_mapped(const void *start, size_t length);

/* pin.c */

/*
 * Pins [.., end) of the file: a shrink below end waits for it. end > 0. With mapped, the region
 * that comes back in *region reaches end and stays mapped while the pin is held; without, *region
 * is not touched.
 * 0; -ERANGE: end is beyond the size; -ENOMEM; -ENODEV.
 */
int pin_take(struct mmapio_file *file, uint64_t end, bool mapped, struct pin_slot **slot,
	     struct region **region);
void pin_release(struct mmapio_file *file, struct pin_slot *slot);

/*
 * Waits until no pin ends after end, until deadline (monotonic_ns(); UINT64_MAX: no deadline). The
 * size is end or less, and is not raised meanwhile. 0 or -EBUSY.
 */
int pin_wait(struct mmapio_file *file, uint64_t end, uint64_t deadline);

/* Unmaps a region, which is not current any more, as soon as nobody pins it. */
void pin_retire(struct mmapio_file *file, struct region *region);

/* No reference is left: destroys the file now, or with the last pin. */
void pin_close(struct mmapio_file *file);

/* Whether anything is pinned, at this moment. */
bool pin_any(struct mmapio_file *file);

/* change.c: [start, end) of a copy-on-write file has been changed. Takes dirty_lock. */
void change_note(struct mmapio_file *file, uint64_t start, uint64_t end);

/* flush.c */

/* How many syncs have failed. */
uint64_t flush_failures(struct mmapio_file *file);

/*
 * The file is about to be changed, until flush_commit() or, if nothing or who knows what was,
 * flush_end(). Returns what flush_failures() does, for flush_commit(). Both take dirty_lock.
 */
uint64_t flush_begin(struct mmapio_file *file);
void flush_end(struct mmapio_file *file);

/*
 * The same, and waits until no other call changes the file; those that come wait for
 * flush_exclusive_end(), which is to be called before flush_commit() or flush_end(). Whoever waits
 * for slices, in between, is not changing the file, or each could wait for the other: flush_pause()
 * says so, and flush_resume() waits for nobody.
 */
uint64_t flush_begin_exclusive(struct mmapio_file *file);
void flush_exclusive_end(struct mmapio_file *file);
void flush_pause(struct mmapio_file *file);
void flush_resume(struct mmapio_file *file);

/*
 * Says that [start, end) was changed (start == end: nothing but size or allocation), by a store
 * into the mapping or otherwise, and does what the policy wants. 0 or the error of a flush.
 * failures: what flush_begin() said before. If a sync has failed since, it may have been these
 * bytes that it could not write: they are in doubt.
 */
int flush_commit(struct mmapio_file *file, uint64_t start, uint64_t end, bool stored,
		 uint64_t failures);

/* Forgets what lies beyond a new, smaller size. Takes dirty_lock. */
void flush_truncated(struct mmapio_file *file, uint64_t size);

/* Moves mtime and ctime if stores have yet to. Takes dirty_lock. */
void flush_times(struct mmapio_file *file);

/*
 * Whether somebody else has changed the file, which is told once. st is what fstat(2) said, and is
 * brought up to date if it tells of a change. Takes dirty_lock.
 */
bool flush_others(struct mmapio_file *file, struct stat *st);

/* futimens(2), in its order with what stores do to the times. 0 or negative errno. Takes
 * dirty_lock. */
int flush_set_times(struct mmapio_file *file, const struct timespec times[2]);

/* Somebody is told of these times: the next store must lead to others. Takes dirty_lock. */
void flush_times_seen(struct mmapio_file *file, const struct stat *st);

/* What is due now, called by the flusher. Returns when the file is due again, 0: not. */
uint64_t flush_run(struct mmapio_file *file, uint64_t now);

/*
 * watch.c. Whoever changes the file calls watch_hear_locked() before and after: what the kernel has
 * told the watches of it until then is ours while the file is being changed (file->changing), else
 * others'. times: we have just set its times. dirty_lock is held.
 */
void watch_hear_locked(struct mmapio_file *file, bool times);

/* watch.c: [start, end) has been changed by a call of this handle. _locked: dirty_lock is held. */
void watch_note(struct mmapio_file *file, uint64_t start, uint64_t end);
void watch_note_locked(struct mmapio_file *file, uint64_t start, uint64_t end);

/* flusher.c: runs flush_run() for the file at due, or earlier if it is queued for an earlier time.
 */
void flusher_schedule(struct mmapio_flusher *flusher, struct mmapio_file *file, uint64_t due);

/* Takes the file out of the queue; true: it was queued, and its reference is the caller's now. */
bool flusher_cancel(struct mmapio_flusher *flusher, struct mmapio_file *file);

/*
 * thread.c: starts a thread in which all signals but SIGBUS are blocked, so that those of the
 * program go to its own. 0; what pthread_create(3) returns.
 */
int thread_start(pthread_t *thread, void *(*run)(void *argument), void *argument);

#endif
