/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a mount (session.h). In the background, the process that was called waits for a byte
 * from its child, which serves: there is one process in the end, and it keeps its command line.
 * Everything is opened in the child, so that what is wrong is said before the parent returns.
 */
#include "session.h"

#include "caller.h"
#include "fs.h"
#include "log.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

/* What libfuse said last, before the mount serves. */
static char fuse_said[512];

static void fuse_say(enum fuse_log_level level, const char *format, va_list arguments)
{
	size_t used = strlen(fuse_said);

	(void)level;
	vsnprintf(fuse_said + used, sizeof(fuse_said) - used, format, arguments);
}

static void fuse_log_on(enum fuse_log_level level, const char *format, va_list arguments)
{
	char line[1024];
	size_t length;

	vsnprintf(line, sizeof(line), format, arguments);
	length = strlen(line);
	if (length && line[length - 1] == '\n')
		line[length - 1] = '\0';
	log_line((int)level, "%s", line);
}

/* What libfuse said as the middle of one line. */
static const char *fuse_reason(void)
{
	char *reason = fuse_said, *end;

	if (strncmp(reason, "fuse: ", 6) == 0)
		reason += 6;
	end = strchr(reason, '\n');
	if (end)
		*end = '\0';
	return *reason ? reason : "libfuse gave no reason";
}

/* Whether a folder, whose descriptor is consumed, is another or lies below it: found by going up,
 * since paths can be many. How many levels, from 0; -1: it does not. */
static int levels_below(int folder, const struct stat *other)
{
	struct stat st, before;
	int up, level = 0;

	if (fstat(folder, &st)) {
		close(folder);
		return -1;
	}
	do {
		if (st.st_dev == other->st_dev && st.st_ino == other->st_ino) {
			close(folder);
			return level;
		}
		before = st;
		up = openat(folder, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		close(folder);
		folder = up;
		level++;
	} while (folder >= 0 && fstat(folder, &st) == 0 &&
		 (st.st_dev != before.st_dev || st.st_ino != before.st_ino));
	if (folder >= 0)
		close(folder);
	return -1;
}

/*
 * Whether mountpoint lies below backing, or cannot be mounted on at all. 0, or -1 when a line has
 * said why not.
 */
static int check_mountpoint(const char *mountpoint, const struct stat *backing)
{
	struct stat st;
	struct statfs kind;
	struct statx stx;
	int folder;

	folder = open(mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC);
	/* A dead mount may still have attributes in the kernel's cache, but no statfs. */
	if (folder < 0 || fstat(folder, &st) || fstatfs(folder, &kind)) {
		if (errno == ENOTCONN)
			log_line(LOG_ERR,
				 "%s: a mount whose process is gone; fusermount3 -u %s first",
				 mountpoint, mountpoint);
		else
			log_line(LOG_ERR, "%s: %s; MOUNTPOINT must be a folder", mountpoint,
				 strerror(errno));
		if (folder >= 0)
			close(folder);
		return -1;
	}
	if ((st.st_dev != backing->st_dev || st.st_ino != backing->st_ino) &&
	    kind.f_type == FUSE_SUPER_MAGIC &&
	    statx(folder, "", AT_EMPTY_PATH, STATX_TYPE, &stx) == 0 &&
	    (stx.stx_attributes & STATX_ATTR_MOUNT_ROOT)) {
		log_line(LOG_ERR, "%s: is in use as a mount point; fusermount3 -u %s first",
			 mountpoint, mountpoint);
		close(folder);
		return -1;
	}
	if (levels_below(folder, backing) > 0) {
		log_line(LOG_ERR, "%s: lies below BACKING; mount it elsewhere", mountpoint);
		return -1;
	}
	return 0;
}

static unsigned long read_number(const char *path, unsigned long otherwise)
{
	FILE *stream = fopen(path, "re");
	unsigned long number;

	if (!stream)
		return otherwise;
	if (fscanf(stream, "%lu", &number) != 1)
		number = otherwise;
	fclose(stream);
	return number;
}

/* How many descriptors, idle ones of nodes, and mapped files the caches may hold. */
struct limits {
	unsigned int room, idle, files;
};

static struct limits find_limits(const struct options *options)
{
	struct rlimit limit = {1024, 1024};
	/* For the device, the backing file systems, and what each request opens for itself. */
	unsigned int reserve = 16 + 3 * options->max_threads;
	struct limits limits;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
		getrlimit(RLIMIT_NOFILE, &limit);
	}
	if (limit.rlim_cur > 1 << 20)
		limit.rlim_cur = 1 << 20;
	limits.room = (unsigned int)limit.rlim_cur;
	limits.room -= reserve < limits.room / 2 ? reserve : limits.room / 2;
	limits.idle = limits.room / 2;
	/* A file has one mapping, and a second one while a longer one takes its place. */
	limits.files = (unsigned int)read_number("/proc/sys/vm/max_map_count", 65530) / 2;
#ifdef MMAPIO_DEBUG
	limits.idle = limits.files = 4;
#endif
	return limits;
}

/* The kernel has accepted the mount. */
static void serving(struct fs *fs)
{
	int null;

	fuse_set_log_func(fuse_log_on);
	if (fs->ready < 0)
		goto out;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	log_open(true);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		close(null);
	}
	(void)!write(fs->ready, "", 1);
	close(fs->ready);
	fs->ready = -1;
out:
	watch_begin(fs->watch, fs->session, &(struct watch_source){file_last_byte, &fs->files});
	if (fs->prewarmer)
		prewarmer_begin(fs->prewarmer);
}

/* Adds what /proc/mounts is to show, before the user's own options. */
static int add_mount_options(struct options *options, const char *source)
{
	const char *type = options->subtype ? options->subtype : "mmapfs";
	char *list = NULL, *name = NULL, *subtype = NULL;
	int error = fuse_opt_add_opt(&list, "default_permissions") ||
		    asprintf(&name, "fsname=%s", source) < 0 ||
		    fuse_opt_add_opt_escaped(&list, name) ||
		    (*type && (asprintf(&subtype, "subtype=%s", type) < 0 ||
			       fuse_opt_add_opt_escaped(&list, subtype))) ||
		    fuse_opt_insert_arg(&options->fuse_args, 1, "-o") ||
		    fuse_opt_insert_arg(&options->fuse_args, 2, list);

	free(subtype);
	free(name);
	free(list);
	return error ? -1 : 0;
}

static int loop(struct fs *fs, struct fuse_session *session)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int error;

	if (!config)
		return -ENOMEM;
	fuse_loop_cfg_set_clone_fd(config, fs->options->clone_fd);
	fuse_loop_cfg_set_max_threads(config, fs->options->max_threads);
	fuse_loop_cfg_set_idle_threads(config, fs->options->max_idle_threads);
	error = fuse_session_loop_mt(session, config);
	fuse_loop_cfg_destroy(config);
	return error < 0 ? error : 0; /* above 0: the signal that ended it */
}

/*
 * Ends the watch, which may be waiting for the kernel, and the kernel for an answer to a request
 * that has come since the loop ended.
 */
static void watch_out(struct fs *fs, struct fuse_session *session)
{
	struct pollfd device = {.fd = fuse_session_fd(session), .events = POLLIN};
	struct fuse_buf buffer = {.mem = NULL};

	watch_end(fs->watch);
	while (!watch_is_over(fs->watch))
		if (poll(&device, 1, 10) > 0 && fuse_session_receive_buf(session, &buffer) > 0)
			fuse_session_process_buf(session, &buffer);
	free(buffer.mem);
}

/* Mounts, serves until the unmount, unmounts. 0, or -1 when a line has said what went wrong. */
static int serve(struct fs *fs, struct options *options, const char *source, const char *mountpoint)
{
	struct fuse_session *session;
	struct statx stx;
	int error = -1;

	fuse_set_log_func(fuse_say);
	session = add_mount_options(options, source) == 0
			  ? fuse_session_new(&options->fuse_args,
					     !fs->view	    ? &fs_operations
					     : options->cow ? &view_operations
							    : &snapshot_operations,
					     sizeof(fs_operations), fs)
			  : NULL;
	if (!session) {
		log_line(LOG_ERR, "%s; mmapfs --help lists the options", fuse_reason());
		return -1;
	}
	fs->session = session;
	if (fuse_set_signal_handlers(session)) {
		log_line(LOG_ERR, "no signal handlers: %s", fuse_reason());
		goto out_session;
	}
	if (fuse_session_mount(session, mountpoint)) {
		/* fusermount3 has already said why. */
		if (*fuse_said)
			log_line(LOG_ERR, "%s: %s", mountpoint, fuse_reason());
		goto out_signals;
	}
	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC, STATX_TYPE, &stx) == 0)
		fs->backing.own_device = makedev(stx.stx_dev_major, stx.stx_dev_minor);
	error = loop(fs, session);
	watch_out(fs, session);
	/* From here on nothing may cut the last sync short. */
	signal(SIGHUP, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	if (error)
		log_line(LOG_ERR, "stopped serving: %s", strerror(-error));
	fuse_session_unmount(session);
out_signals:
	fuse_remove_signal_handlers(session);
out_session:
	fuse_session_destroy(session);
	return error ? -1 : 0;
}

static void *thread_end(void *argument)
{
	pthread_exit(argument);
}

/*
 * Ending a thread makes the C library load libgcc_s, and end the process if it cannot: now, not at
 * the unmount, when descriptors may be used up.
 */
static void load_unwinder(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, thread_end, NULL) == 0)
		pthread_join(thread, NULL);
}

/* What a view may take if nothing is said: half of the memory that is free. */
static uint64_t half_of_free(void)
{
	FILE *stream = fopen("/proc/meminfo", "re");
	uint64_t kib = 0;
	char *line = NULL;
	size_t size = 0;

	while (stream && getline(&line, &size, stream) > 0)
		if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1)
			break;
	free(line);
	if (stream)
		fclose(stream);
	return kib * 1024 / 2;
}

/* A store is neither in what is mounted nor in what it is mounted on. 0, or -1 when a line has said
 * so. */
static int check_store(const char *option, const char *folder, const char *mountpoint,
		       const struct stat *backing)
{
	int store = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat point;
	const char *in = NULL;

	if (store < 0 || stat(mountpoint, &point)) {
		log_line(LOG_ERR, "-o %s=%s: %s; it must be a folder that you may write", option,
			 folder, strerror(errno));
		if (store >= 0)
			close(store);
		return -1;
	}
	if (levels_below(dup(store), backing) >= 0)
		in = "BACKING";
	else if (levels_below(dup(store), &point) >= 0)
		in = "MOUNTPOINT";
	close(store);
	if (in)
		log_line(LOG_ERR, "-o %s=%s: lies in %s; use a folder elsewhere", option, folder,
			 in);
	return in ? -1 : 0;
}

static int start_view(struct fs *fs, const struct options *options, const char *source,
		      const char *folder)
{
	struct view_options view = {
		.folder = folder,
		.limit = options->cow_limit ? options->cow_limit
			 : folder	    ? UINT64_MAX
					    : half_of_free(),
		.backing_path = source,
		.policy = options->flush,
		.check = options->cow_check,
	};

	if (!options->cow)
		return 0;
	if (!folder)
		view.policy = (struct mmapio_policy){0};
	fs->nodes.own_free = own_free;
	return view_open(&fs->view, fs, &view);
}

#define SNAPSHOTS_FOLDER ".mmapfs"

static bool is_read_only(const char *folder)
{
	struct statvfs st;

	return statvfs(folder, &st) == 0 && (st.f_flag & ST_RDONLY);
}

/* -o nosnap: what is changed now is not kept for views that are there. 0, or -1 when a line has
 * said why not. */
static int give_up_views(const struct options *options, const char *folder)
{
	int error = store_is_there(folder);

	if (error < 0)
		log_line(LOG_ERR, "%s: %s", folder, strerror(-error));
	if (error <= 0)
		return error;
	if (!options->nosnap_how) {
		log_line(LOG_ERR,
			 "%s: there are point-in-time views, which would not be told of changes; "
			 "nosnap=force if they need not last",
			 folder);
		return -1;
	}
	error = options->read_only ? 0 : store_distrust_folder(folder);
	if (error && error != -EROFS) {
		log_line(LOG_ERR,
			 "%s: that the point-in-time views in it do not last could not be noted "
			 "there (%s); remove it, or mount read-only",
			 folder,
			 error == -EINVAL ? "it is damaged, or of another version"
					  : strerror(-error));
		return -1;
	}
	if (!options->read_only)
		log_line(LOG_WARNING, "%s: the point-in-time views in it are given up", folder);
	return 0;
}

/* Point-in-time views of the live tree: those that are there, and those to come. joins: they are
 * another mount's. */
static int start_snapshots(struct fs *fs, const struct options *options, const char *source,
			   const char *folder, bool is_covered, bool joins)
{
	struct view_options view = {
		.folder = folder,
		.limit = options->snaplimit,
		.backing_path = source,
		.policy = {.delay_ns = UINT64_C(1000000000)},
		.snapshots = true,
		.hidden = options->snapdir ? NULL : SNAPSHOTS_FOLDER,
		.is_covered = is_covered && !options->snapdir,
	};
	int fd;

	if (options->cow || joins)
		return 0;
	if (options->nosnap)
		return give_up_views(options, folder);
	if (is_read_only(folder) && store_is_there(folder) == 1) {
		log_line(LOG_WARNING,
			 "%s: is read only: the point-in-time views in it cannot be used", folder);
		return 0;
	}
	fd = openat(fs->backing.root, options->snapname, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0) {
		close(fd);
		log_line(LOG_ERR, "%s: has a %s of its own; use snapname=NAME or nosnap", source,
			 options->snapname);
		return -1;
	}
	fs->nodes.own_free = own_free;
	return view_open(&fs->view, fs, &view);
}

/* Who changes BACKING is not to do so behind another mount's views; who does not may (joins). 0, or
 * -1 when a line has said so. */
static int claim(struct fs *fs, const struct options *options, const char *source, bool joins)
{
	const struct timespec moment = {.tv_nsec = 20000000};
	int error = options->cow || joins ? 0 : backing_claim(&fs->backing, false);

	/* (One that was unmounted a moment ago is still bringing things to the disk.) */
	for (int tries = 0; error == -EWOULDBLOCK && tries < 100; tries++) {
		nanosleep(&moment, NULL);
		error = backing_claim(&fs->backing, false);
	}
	if (joins) {
		log_line(LOG_NOTICE,
			 "%s: is in use by another mount, which has point-in-time views: this one "
			 "has none, and is read only",
			 source);
		return 0;
	}
	if (error)
		log_line(LOG_ERR, "%s: %s", source,
			 error == -EWOULDBLOCK
				 ? "is in use by another mount, which has point-in-time "
				   "views; use that one, or mount read-only"
				 : strerror(-error));
	return error ? -1 : 0;
}

static int start_threads(struct fs *fs, const struct options *options)
{
	struct prewarm_options prewarm = {
		.tree = options->prewarm == PREWARM_MOUNT,
		.match = options->prewarm_match,
		.limit = options->prewarm_limit,
	};
	int error = flusher_new(&fs->flusher, &fs->nodes, &options->flush);

	if (!error)
		error = watch_new(&fs->watch, &fs->nodes);
	fs->files.watch = fs->watch;
	if (!error && options->prewarm != PREWARM_NEVER)
		error = prewarmer_new(&fs->prewarmer, &fs->backing, &prewarm);
	if (!error && options->prewarm == PREWARM_OPEN)
		fs->files.prewarmer = fs->prewarmer;
	return error;
}

/* What the options say of our mount holds for the one that we have of BACKING. */
static struct backing_attributes backing_attributes(const struct options *options, bool joins)
{
	struct backing_attributes attributes = {0};

	if (options->atime_given) {
		attributes.set = options->atime;
		attributes.clear = MOUNT_ATTR__ATIME;
	}
	if (options->nodiratime)
		attributes.set |= MOUNT_ATTR_NODIRATIME;
	if (options->read_only ||
	    options->cow) { /* (not MOUNT_ATTR_RDONLY: it can be mounted rw again) */
		attributes.set = (attributes.set & ~MOUNT_ATTR__ATIME) | MOUNT_ATTR_NOATIME;
		attributes.clear = MOUNT_ATTR__ATIME;
	}
	if (joins) /* then not */
		attributes.set |= MOUNT_ATTR_RDONLY;
	return attributes;
}

/* All of it, in the process that serves. Its exit status. */
static int run(struct options *options, int ready)
{
	struct fs *fs = calloc(1, sizeof(*fs));
	const struct limits limits = find_limits(options);
	const bool joins = options->read_only && backing_is_claimed(options->backing);
	const struct backing_attributes attributes = backing_attributes(options, joins);
	char *source = NULL, *mountpoint = NULL, *folder = NULL, *snapshots = NULL;
	int status = EXIT_FAILURE, error, flushed, kept;
	struct stat st, point;
	bool is_covered;

	if (!fs)
		return EXIT_FAILURE;
	fs->options = options;
	fs->serving = serving;
	fs->ready = ready;
	error = backing_open(&fs->backing, options->backing, &attributes);
	if (error) {
		log_line(LOG_ERR, "%s: %s; BACKING must be a folder that you may read",
			 options->backing, strerror(-error));
		goto out_fs;
	}
	if (attributes.set & (MOUNT_ATTR_STRICTATIME | MOUNT_ATTR_NODIRATIME) &&
	    !fs->backing.as_wanted)
		log_line(LOG_WARNING, "strictatime and nodiratime are for root: "
				      "reads move times of access as the mount of BACKING says");
	if (fstat(fs->backing.root, &st) || check_mountpoint(options->mountpoint, &st))
		goto out_backing;
	mountpoint = realpath(options->mountpoint, NULL);
	source = *options->backing == '/' ? strdup(options->backing)
					  : realpath(options->backing, NULL);
	folder = options->cow_folder ? realpath(options->cow_folder, NULL) : NULL;
	if (options->cow_folder &&
	    check_store("cow", folder ? folder : options->cow_folder, options->mountpoint, &st))
		goto out_backing;
	if (options->snapdir)
		snapshots = realpath(options->snapdir, NULL);
	else if (!source || asprintf(&snapshots, "%s/%s", source, SNAPSHOTS_FOLDER) < 0)
		snapshots = NULL;
	if (options->snapdir && !options->nosnap &&
	    check_store("snapdir", snapshots ? snapshots : options->snapdir, options->mountpoint,
			&st))
		goto out_backing;
	is_covered = stat(options->mountpoint, &point) == 0 &&
		     levels_below(dup(fs->backing.root), &point) >= 0;
	if (!mountpoint || !source || !snapshots || chdir("/") ||
	    (error = mmapio_guard_install()) || (error = caller_init(fs))) {
		log_line(LOG_ERR, "%s: %s", options->mountpoint, strerror(error ? -error : errno));
		goto out_backing;
	}
	signal(SIGXFSZ, SIG_IGN); /* EFBIG instead */
	error = nodes_init(&fs->nodes, &fs->backing, limits.room, limits.idle);
	if (error) {
		log_line(LOG_ERR, "%s: %s", options->backing, strerror(-error));
		goto out_backing;
	}
	load_unwinder();
	folders_init(&fs->folders);
	files_init(&fs->files, &fs->nodes, &options->flush, options->write_method, limits.files);
	error = start_threads(fs, options);
	if (error)
		log_line(LOG_ERR, "no threads: %s", strerror(-error));
	else if (claim(fs, options, source, joins) == 0 &&
		 start_view(fs, options, source, folder) == 0 &&
		 start_snapshots(fs, options, source, snapshots, is_covered, joins) == 0 &&
		 serve(fs, options, source, mountpoint) == 0)
		status = EXIT_SUCCESS;

	/* Nothing is served any more: bring what is left to the disk. */
	prewarmer_free(fs->prewarmer);
	error = files_close(&fs->files);
	backing_stop_flushers(&fs->backing);
	flushed = flusher_free(fs->flusher);
	kept = view_close(fs->view);
	if (error || flushed || kept) {
		log_line(LOG_ERR, "%s: not all could be brought to the disk: %s", options->backing,
			 strerror(error	    ? -error
				  : flushed ? -flushed
					    : -kept));
		status = EXIT_FAILURE;
	}
	watch_free(fs->watch);
	folders_free(&fs->folders);
	nodes_free(&fs->nodes);
out_backing:
	backing_close(&fs->backing);
	free(source);
	free(mountpoint);
	free(folder);
	free(snapshots);
out_fs:
	free(fs);
	return status;
}

/* What mount(8) asks of its helper for -o remount: ro or rw, all else stays as it is. Exit status.
 */
static int remount(const struct options *options)
{
	static const struct {
		unsigned long shown, flag;
	} kept[] = {
		{ST_NOSUID, MS_NOSUID},	    {ST_NODEV, MS_NODEV},
		{ST_NOEXEC, MS_NOEXEC},	    {ST_NOATIME, MS_NOATIME},
		{ST_RELATIME, MS_RELATIME}, {ST_NODIRATIME, MS_NODIRATIME},
	};
	unsigned long flags = MS_REMOUNT | (options->read_only ? MS_RDONLY : 0);
	struct statvfs now;

	if (statvfs(options->mountpoint, &now))
		goto failed;
	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
		if (now.f_flag & kept[i].shown)
			flags |= kept[i].flag;
	if (mount("none", options->mountpoint, NULL, flags, NULL))
		goto failed;
	return EXIT_SUCCESS;
failed:
	log_line(LOG_ERR, "%s: cannot be remounted: %s", options->mountpoint, strerror(errno));
	return EXIT_FAILURE;
}

int session_run(struct options *options)
{
	int ready[2], status;
	pid_t child;
	char byte;

	if (options->remount)
		return remount(options);
	if (options->foreground)
		return run(options, -1);
	if (pipe2(ready, O_CLOEXEC) || (child = fork()) < 0) {
		log_line(LOG_ERR, "cannot go into the background: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	if (child == 0) {
		close(ready[0]);
		setsid();
		return run(options, ready[1]);
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) == 1)
		return EXIT_SUCCESS;
	if (waitpid(child, &status, 0) == child && WIFEXITED(status))
		return WEXITSTATUS(status);
	return EXIT_FAILURE;
}
