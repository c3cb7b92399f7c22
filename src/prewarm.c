/* SPDX-License-Identifier: Apache-2.0 */
/* Prewarming (prewarm.h): the tree first, then the files that were opened, in their order. */
#include "prewarm.h"

#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <linux/limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

/* A piece at a time, so that it can be stopped, and progress be told. */
#define PIECE (UINT64_C(8) * 1024 * 1024)

/* Files that wait; what is opened while there are so many is not warmed. */
#define JOBS_MAX 100000

/* A file or folder to be warmed, by its path below BACKING, with a slash at its head, or "" */
struct job {
	STAILQ_ENTRY(job) next;
	char path[];
};

STAILQ_HEAD(job_queue, job);

struct prewarmer {
	struct backing *backing;
	struct prewarm_options options;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* with lock */
	struct job_queue jobs;	/* lock: files */
	unsigned int waiting;	/* lock: jobs */
	_Atomic bool stop;	/* written under lock */
	bool begun;		/* lock */
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

static void warm(struct prewarmer *prewarmer, struct mmapio_file *mapped, uint64_t limit, bool tell)
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
}

/* A job for name in the folder path, or for path itself. NULL: no memory, or no path so long. */
static struct job *job_new(const char *path, const char *name)
{
	size_t length = strlen(path) + (name ? strlen(name) + 1 : 0) + 1;
	struct job *job = length <= PATH_MAX ? malloc(sizeof(*job) + length) : NULL;

	if (job)
		snprintf(job->path, length, name ? "%s/%s" : "%s", path, name);
	return job;
}

/* Opens what is there for reading; regular: a file, else a folder. Descriptor or negative errno. */
static int open_path(struct prewarmer *prewarmer, const char *path, bool regular)
{
	int descriptor, found = backing_open_path(prewarmer->backing, path);
	struct stat st;

	if (found < 0)
		return found;
	if (fstat(found, &st) || (regular ? !S_ISREG(st.st_mode) : !S_ISDIR(st.st_mode)))
		descriptor = -ENOENT;
	else
		descriptor = backing_reopen(prewarmer->backing, found, O_RDONLY);
	close(found);
	return descriptor;
}

/* At most limit bytes of a file. */
static void warm_path(struct prewarmer *prewarmer, const char *path, uint64_t limit, bool tell)
{
	struct mmapio_options options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_ONLY);
	struct mmapio_file *mapped;
	int descriptor = open_path(prewarmer, path, true);

	if (descriptor < 0 || mmapio_open_fd(&mapped, descriptor, &options)) {
		if (descriptor >= 0)
			close(descriptor);
		prewarmer->failed++;
		return;
	}
	warm(prewarmer, mapped, limit, tell);
	mmapio_file_unref(mapped);
}

/* Warms the files of a folder, and puts those below it at the head of the queue. */
static void warm_folder(struct prewarmer *prewarmer, const char *path, struct job_queue *folders)
{
	int descriptor = open_path(prewarmer, path, false);
	DIR *stream = descriptor < 0 ? NULL : fdopendir(descriptor);
	const struct dirent *entry;

	if (!stream) {
		if (descriptor >= 0)
			close(descriptor);
		prewarmer->failed++;
		return;
	}
	while ((entry = readdir(stream)) && !prewarmer->stop &&
	       prewarmer->bytes < prewarmer->options.limit) {
		struct stat st;
		struct job *job;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
		    fstatat(descriptor, entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
			continue;
		job = job_new(path, entry->d_name);
		if (job && S_ISDIR(st.st_mode)) {
			STAILQ_INSERT_HEAD(folders, job, next);
			continue;
		}
		if (job && matches(prewarmer, job->path))
			warm_path(prewarmer, job->path, prewarmer->options.limit - prewarmer->bytes,
				  true);
		free(job);
	}
	closedir(stream);
}

/* Folder by folder, so that the depth of the tree takes neither stack nor descriptors. */
static void warm_tree(struct prewarmer *prewarmer)
{
	struct job_queue folders = STAILQ_HEAD_INITIALIZER(folders);
	struct job *job = job_new("", NULL);

	if (job)
		STAILQ_INSERT_HEAD(&folders, job, next);
	while ((job = STAILQ_FIRST(&folders))) {
		STAILQ_REMOVE_HEAD(&folders, next);
		if (!prewarmer->stop && prewarmer->bytes < prewarmer->options.limit)
			warm_folder(prewarmer, job->path, &folders);
		free(job);
	}
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
		prewarmer->waiting--;
		pthread_mutex_unlock(&prewarmer->lock);
		warm_path(prewarmer, job->path, prewarmer->options.limit, false);
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
		free(job);
	}
	pthread_cond_destroy(&prewarmer->changed);
	pthread_mutex_destroy(&prewarmer->lock);
	free(prewarmer);
}

void prewarmer_add(struct prewarmer *prewarmer, const char *path)
{
	struct job *job;

	if (prewarmer->options.tree || !matches(prewarmer, path) || !(job = job_new(path, NULL)))
		return;
	pthread_mutex_lock(&prewarmer->lock);
	if (prewarmer->waiting < JOBS_MAX) {
		STAILQ_INSERT_TAIL(&prewarmer->jobs, job, next);
		prewarmer->waiting++;
		pthread_cond_signal(&prewarmer->changed);
		job = NULL;
	}
	pthread_mutex_unlock(&prewarmer->lock);
	free(job);
}
