/* SPDX-License-Identifier: Apache-2.0 */
/* Prewarming (prewarm.h): the tree first, then the files that were opened, in their order. */
#include "prewarm.h"

#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

/* A piece at a time, so that it can be stopped, and progress be told. */
#define PIECE	  (UINT64_C(8) * 1024 * 1024)
#define DEPTH_MAX 512 /* each level of folders holds a descriptor while the tree is walked */

struct job {
	struct mmapio_file *mapped; /* referenced */
	STAILQ_ENTRY(job) next;
};

struct prewarmer {
	struct backing *backing;
	struct prewarm_options options;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;	 /* with lock */
	STAILQ_HEAD(, job) jobs; /* lock */
	_Atomic bool stop;	 /* written under lock */
	bool begun;		 /* lock */
	/* the thread's own */
	uint64_t files, bytes, failed;
	time_t told;
};

static bool matches(const struct prewarmer *prewarmer, const char *path)
{
	const char *glob = prewarmer->options.match, *name;

	while (*path == '/')
		path++;
	if (!glob)
		return true;
	if (strchr(glob, '/'))
		return fnmatch(*glob == '/' ? glob + 1 : glob, path, FNM_PATHNAME) == 0;
	name = strrchr(path, '/');
	return fnmatch(glob, name ? name + 1 : path, 0) == 0;
}

static void tell_progress(struct prewarmer *prewarmer, bool last)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!last && now.tv_sec == prewarmer->told)
		return;
	prewarmer->told = now.tv_sec;
	log_line(LOG_INFO,
		 "prewarm: %s%" PRIu64 " files, %" PRIu64 " MiB, %" PRIu64 " could not be read",
		 last ? "done, " : "", prewarmer->files, prewarmer->bytes >> 20, prewarmer->failed);
}

/* At most limit bytes of a file. Returns how many. */
static uint64_t warm(struct prewarmer *prewarmer, struct mmapio_file *mapped, uint64_t limit,
		     bool tell)
{
	uint64_t size = mmapio_file_size(mapped), done = 0;

	if (size > limit)
		size = limit;
	while (done < size && !prewarmer->stop) {
		uint64_t piece = size - done < PIECE ? size - done : PIECE;

		if (mmapio_touch(mapped, done, piece)) {
			prewarmer->failed++;
			break;
		}
		done += piece;
		prewarmer->bytes += piece;
		if (tell)
			tell_progress(prewarmer, false);
	}
	prewarmer->files++;
	return done;
}

static void warm_name(struct prewarmer *prewarmer, int folder, const char *name)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_ONLY);
	struct mmapio_file *mapped;
	int path = backing_open_name(prewarmer->backing, folder, name);
	int descriptor = path < 0 ? path : backing_reopen(prewarmer->backing, path, O_RDONLY);

	if (path >= 0)
		close(path);
	if (descriptor < 0 || mmapio_open_fd(&mapped, descriptor, &options)) {
		if (descriptor >= 0)
			close(descriptor);
		prewarmer->failed++;
		return;
	}
	warm(prewarmer, mapped, prewarmer->options.limit - prewarmer->bytes, true);
	mmapio_file_unref(mapped);
}

/* path: of the folder below BACKING, with room to append to. folder is consumed. */
static void walk(struct prewarmer *prewarmer, int folder, char *path, size_t length,
		 unsigned int depth)
{
	DIR *stream = fdopendir(folder);
	const struct dirent *entry;

	if (!stream) {
		close(folder);
		return;
	}
	while ((entry = readdir(stream)) && !prewarmer->stop &&
	       prewarmer->bytes < prewarmer->options.limit) {
		size_t name_length = strlen(entry->d_name);
		struct stat st;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
		    length + name_length + 2 > PATH_MAX)
			continue;
		path[length] = '/';
		memcpy(path + length + 1, entry->d_name, name_length + 1);
		if (fstatat(folder, entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		if (S_ISREG(st.st_mode) && matches(prewarmer, path)) {
			warm_name(prewarmer, folder, entry->d_name);
		} else if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX) {
			int below = backing_open_name(prewarmer->backing, folder, entry->d_name);
			int listed = below < 0 ? below
					       : backing_reopen(prewarmer->backing, below,
								O_RDONLY | O_DIRECTORY);

			if (below >= 0)
				close(below);
			if (listed >= 0)
				walk(prewarmer, listed, path, length + 1 + name_length, depth + 1);
		}
	}
	closedir(stream);
}

static void warm_tree(struct prewarmer *prewarmer)
{
	char path[PATH_MAX];
	int root = backing_reopen(prewarmer->backing, prewarmer->backing->root,
				  O_RDONLY | O_DIRECTORY);

	if (root < 0) {
		log_line(LOG_ERR, "prewarm: %s", strerror(-root));
		return;
	}
	walk(prewarmer, root, path, 0, 0);
	if (!prewarmer->stop)
		tell_progress(prewarmer, true);
}

static void *prewarmer_run(void *argument)
{
	struct prewarmer *prewarmer = argument;

	pthread_mutex_lock(&prewarmer->lock);
	while (!prewarmer->begun && !prewarmer->stop)
		pthread_cond_wait(&prewarmer->changed, &prewarmer->lock);
	pthread_mutex_unlock(&prewarmer->lock);
	if (prewarmer->options.tree && !prewarmer->stop)
		warm_tree(prewarmer);
	pthread_mutex_lock(&prewarmer->lock);
	while (!prewarmer->stop) {
		struct job *job = STAILQ_FIRST(&prewarmer->jobs);

		if (!job) {
			pthread_cond_wait(&prewarmer->changed, &prewarmer->lock);
			continue;
		}
		STAILQ_REMOVE_HEAD(&prewarmer->jobs, next);
		pthread_mutex_unlock(&prewarmer->lock);
		warm(prewarmer, job->mapped, prewarmer->options.limit, false);
		mmapio_file_unref(job->mapped);
		free(job);
		pthread_mutex_lock(&prewarmer->lock);
	}
	pthread_mutex_unlock(&prewarmer->lock);
	return NULL;
}

int prewarmer_new(struct prewarmer **out, struct backing *backing,
		  const struct prewarm_options *options)
{
	struct prewarmer *prewarmer = calloc(1, sizeof(*prewarmer));
	sigset_t all, before;
	int error;

	if (!prewarmer)
		return -ENOMEM;
	prewarmer->backing = backing;
	prewarmer->options = *options;
	pthread_mutex_init(&prewarmer->lock, NULL);
	pthread_cond_init(&prewarmer->changed, NULL);
	STAILQ_INIT(&prewarmer->jobs);
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = -pthread_create(&prewarmer->thread, NULL, prewarmer_run, prewarmer);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error) {
		pthread_cond_destroy(&prewarmer->changed);
		pthread_mutex_destroy(&prewarmer->lock);
		free(prewarmer);
		return error;
	}
	*out = prewarmer;
	return 0;
}

void prewarmer_begin(struct prewarmer *prewarmer)
{
	pthread_mutex_lock(&prewarmer->lock);
	prewarmer->begun = true;
	pthread_cond_signal(&prewarmer->changed);
	pthread_mutex_unlock(&prewarmer->lock);
}

void prewarmer_free(struct prewarmer *prewarmer)
{
	struct job *job;

	if (!prewarmer)
		return;
	pthread_mutex_lock(&prewarmer->lock);
	prewarmer->stop = true;
	pthread_cond_signal(&prewarmer->changed);
	pthread_mutex_unlock(&prewarmer->lock);
	pthread_join(prewarmer->thread, NULL);
	while ((job = STAILQ_FIRST(&prewarmer->jobs))) {
		STAILQ_REMOVE_HEAD(&prewarmer->jobs, next);
		mmapio_file_unref(job->mapped);
		free(job);
	}
	pthread_cond_destroy(&prewarmer->changed);
	pthread_mutex_destroy(&prewarmer->lock);
	free(prewarmer);
}

bool prewarmer_wants(struct prewarmer *prewarmer, const char *path)
{
	return !prewarmer->options.tree && matches(prewarmer, path);
}

void prewarmer_add(struct prewarmer *prewarmer, struct mmapio_file *mapped)
{
	struct job *job = malloc(sizeof(*job));

	if (!job)
		return;
	job->mapped = mmapio_file_ref(mapped);
	pthread_mutex_lock(&prewarmer->lock);
	STAILQ_INSERT_TAIL(&prewarmer->jobs, job, next);
	pthread_cond_signal(&prewarmer->changed);
	pthread_mutex_unlock(&prewarmer->lock);
}
