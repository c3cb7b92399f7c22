/* SPDX-License-Identifier: Apache-2.0 */
/* The command line (options.h), read with libfuse's option parser. */
#include "options.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

enum {
	KEY_FLUSH = 1,
	KEY_IO,
	KEY_WRITE,
	KEY_PREWARM,
	KEY_PREWARM_LIMIT,
	KEY_COW_LIMIT,
	KEY_SNAPLIMIT,
	KEY_ENTRY_TIMEOUT,
	KEY_ATTR_TIMEOUT,
	KEY_NEGATIVE_TIMEOUT,
	KEY_MAX_THREADS,
	KEY_MAX_IDLE_THREADS,
	KEY_READ_ONLY,
	KEY_READ_WRITE,
	KEY_DEBUG,
	KEY_SINGLE,
	KEY_NOATIME,
	KEY_RELATIME,
	KEY_STRICTATIME,
};

#define FLAG(TEMPLATE, FIELD)                                                                      \
	{                                                                                          \
		TEMPLATE, offsetof(struct options, FIELD), true                                    \
	}

static const struct fuse_opt option_table[] = {
	FLAG("-h", help),
	FLAG("--help", help),
	FLAG("-V", version),
	FLAG("--version", version),
	{"--check %s", offsetof(struct options, check), 0},
	{"--check=%s", offsetof(struct options, check), 0},
	FLAG("-f", foreground),
	FUSE_OPT_KEY("-d", KEY_DEBUG),
	FUSE_OPT_KEY("debug", KEY_DEBUG),
	FLAG("clone_fd", clone_fd),
	FUSE_OPT_KEY("flush=", KEY_FLUSH),
	FUSE_OPT_KEY("io=", KEY_IO),
	FUSE_OPT_KEY("write=", KEY_WRITE),
	FUSE_OPT_KEY("prewarm=", KEY_PREWARM),
	FUSE_OPT_KEY("prewarm_limit=", KEY_PREWARM_LIMIT),
	{"subtype=%s", offsetof(struct options, subtype), 0},
	{"prewarm_match=%s", offsetof(struct options, prewarm_match), 0},
	FLAG("cow", cow),
	FLAG("cow_check", cow_check),
	{"cow=%s", offsetof(struct options, cow_folder), 0},
	FUSE_OPT_KEY("cow_limit=", KEY_COW_LIMIT),
	FLAG("nosnap", nosnap),
	{"nosnap=%s", offsetof(struct options, nosnap_how), 0},
	{"snapname=%s", offsetof(struct options, snapname), 0},
	{"snapdir=%s", offsetof(struct options, snapdir), 0},
	FUSE_OPT_KEY("snaplimit=", KEY_SNAPLIMIT),
	FLAG("snap_readonly", snap_readonly),
	FUSE_OPT_KEY("entry_timeout=", KEY_ENTRY_TIMEOUT),
	FUSE_OPT_KEY("attr_timeout=", KEY_ATTR_TIMEOUT),
	FUSE_OPT_KEY("negative_timeout=", KEY_NEGATIVE_TIMEOUT),
	FUSE_OPT_KEY("max_threads=", KEY_MAX_THREADS),
	FUSE_OPT_KEY("max_idle_threads=", KEY_MAX_IDLE_THREADS),
	FLAG("remount", remount),
	FUSE_OPT_KEY("ro", KEY_READ_ONLY),
	FUSE_OPT_KEY("rw", KEY_READ_WRITE),
	FUSE_OPT_KEY("noatime", KEY_NOATIME),
	FUSE_OPT_KEY("atime", KEY_RELATIME),
	FUSE_OPT_KEY("relatime", KEY_RELATIME),
	FUSE_OPT_KEY("strictatime", KEY_STRICTATIME),
	FLAG("nodiratime", nodiratime),
	FUSE_OPT_KEY("diratime", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("lazytime", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("nolazytime", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("-s", KEY_SINGLE),
	/* Of fstab(5) and mount(8), and of no meaning to a file system. */
	FUSE_OPT_KEY("defaults", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("auto", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("noauto", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("user", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("nouser", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("users", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("user=", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("owner", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("group", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("_netdev", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("nofail", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_END,
};

#undef FLAG

static int complain(const char *option, const char *advice)
{
	fprintf(stderr, "mmapfs: -o %s: %s\n", option, advice);
	return -1;
}

/* The index of value among names, or -1. */
static int choice(const char *value, const char *const *names)
{
	for (int i = 0; names[i]; i++)
		if (strcmp(value, names[i]) == 0)
			return i;
	return -1;
}

static int parse_flush(struct options *options, const char *option, const char *value)
{
	switch (mmapio_policy_parse(&options->flush, value)) {
	case 0:
		return 0;
	case -ERANGE:
		return complain(option,
				"a limit must be at least 1 and fit into 63 bits; try flush=10ms");
	default:
		return complain(
			option,
			"not a flush policy; use manual, always, or limits such as 10ms (us ms s), "
			"4M (K M G) or 100writes, joined by ':'");
	}
}

static int parse_size(uint64_t *size, const char *option, const char *value)
{
	static const char units[] = "KMGT";
	const char *unit;
	char *end;
	uintmax_t number;
	unsigned int shift = 0;

	errno = 0;
	number = strtoumax(value, &end, 10);
	if (*end && (unit = strchr(units, *end))) {
		shift = 10 * (unsigned int)(unit - units + 1);
		end++;
	}
	if (*value < '0' || *value > '9' || *end || errno || number > (uintmax_t)INT64_MAX >> shift)
		return complain(
			option,
			"not a size; use bytes, or a number with K, M, G or T such as 512M");
	*size = (uint64_t)number << shift;
	return 0;
}

static int parse_seconds(double *seconds, const char *option, const char *value)
{
	char *end;
	double number = strtod(value, &end);

	if (end == value || *end || !isfinite(number) || number < 0 || number > 1e9)
		return complain(option, "not a number of seconds; use 0 or more, such as 0.5");
	*seconds = number;
	return 0;
}

static int parse_count(unsigned int *count, const char *option, const char *value)
{
	char *end;
	unsigned long number = strtoul(value, &end, 10);

	if (*value < '0' || *value > '9' || *end || number < 1 || number > 1000)
		return complain(option, "not a number of threads; use 1 to 1000");
	*count = (unsigned int)number;
	return 0;
}

static int parse_one(void *data, const char *argument, int key, struct fuse_args *rest)
{
	static const char *const io_names[] = {"auto", "handles", "stateless", NULL};
	static const char *const prewarm_names[] = {"never", "open", "mount", NULL};
	static const char *const write_names[] = {"auto", "store", "pwrite", NULL};
	struct options *options = data;
	const char *value = strchr(argument, '=');
	int index;

	(void)rest;
	value = value ? value + 1 : "";
	switch (key) {
	case KEY_FLUSH:
		return parse_flush(options, argument, value);
	case KEY_IO:
		index = choice(value, io_names);
		if (index < 0)
			return complain(argument, "unknown mode; use auto, handles or stateless");
		options->io = (enum io_mode)index;
		return 0;
	case KEY_WRITE:
		index = choice(value, write_names);
		if (index < 0)
			return complain(argument, "unknown method; use auto, store or pwrite");
		options->write_method = (enum mmapio_write_method)index;
		return 0;
	case KEY_PREWARM:
		index = choice(value, prewarm_names);
		if (index < 0)
			return complain(argument, "unknown time; use never, open or mount");
		options->prewarm = (enum prewarm_mode)index;
		return 0;
	case KEY_PREWARM_LIMIT:
		return parse_size(&options->prewarm_limit, argument, value);
	case KEY_COW_LIMIT:
		return parse_size(&options->cow_limit, argument, value);
	case KEY_SNAPLIMIT:
		return parse_size(&options->snaplimit, argument, value);
	case KEY_ENTRY_TIMEOUT:
		return parse_seconds(&options->entry_timeout, argument, value);
	case KEY_ATTR_TIMEOUT:
		return parse_seconds(&options->attr_timeout, argument, value);
	case KEY_NEGATIVE_TIMEOUT:
		return parse_seconds(&options->negative_timeout, argument, value);
	case KEY_MAX_THREADS:
		return parse_count(&options->max_threads, argument, value);
	case KEY_MAX_IDLE_THREADS:
		return parse_count(&options->max_idle_threads, argument, value);
	case KEY_READ_ONLY:
		options->read_only = true;
		return 1;
	case KEY_READ_WRITE:
		options->read_only = false;
		return 1;
	case KEY_SINGLE:
		options->max_threads = 1;
		return 0;
	case KEY_NOATIME:
		options->atime_given = true;
		options->atime = MOUNT_ATTR_NOATIME;
		return 1; /* the kernel shows it */
	case KEY_RELATIME:
	case KEY_STRICTATIME:
		options->atime_given = true;
		options->atime = key == KEY_RELATIME ? MOUNT_ATTR_RELATIME : MOUNT_ATTR_STRICTATIME;
		return 0;
	case KEY_DEBUG:
		options->debug = options->foreground = true;
		return 1;
	case FUSE_OPT_KEY_NONOPT:
		if (!options->backing)
			return (options->backing = strdup(argument)) ? 0 : -1;
		if (!options->mountpoint)
			return (options->mountpoint = strdup(argument)) ? 0 : -1;
		fprintf(stderr,
			"mmapfs: %s: one folder too many; mmapfs takes BACKING and MOUNTPOINT\n",
			argument);
		return -1;
	default: /* for libfuse, or unknown: it will say so */
		if (strncmp(argument, "x-", 2) == 0 || strncmp(argument, "comment=", 8) == 0)
			return 0;
		return 1;
	}
}

int options_parse(struct options *options, int argc, char **argv)
{
	*options = (struct options){
		.fuse_args = FUSE_ARGS_INIT(argc, argv),
		.clone_fd = true,
		.max_threads = 10,
		.max_idle_threads = 10,
		.prewarm_limit = UINT64_MAX,
		.snaplimit = UINT64_MAX,
		.entry_timeout = 1,
		.attr_timeout = 1,
	};
	if (argc < 2) {
		fprintf(stderr, "usage: mmapfs [-o OPTIONS] BACKING MOUNTPOINT\n"
				"       fusermount3 -u MOUNTPOINT\n"
				"mmapfs --help lists the options\n");
		return -1;
	}
	/* "ro" and what is unknown stays in fuse_args. */
	if (fuse_opt_parse(&options->fuse_args, options, option_table, parse_one))
		return -1;
	if (options->help || options->version || options->check)
		return 0;
	options->cow = options->cow || options->cow_folder;
	if (options->cow_check && !options->cow_folder) {
		fprintf(stderr, "mmapfs: -o cow_check: needs -o cow=DIR\n");
		return -1;
	}
	if (options->nosnap_how && strcmp(options->nosnap_how, "force") != 0) {
		fprintf(stderr, "mmapfs: -o nosnap=%s: use nosnap or nosnap=force\n",
			options->nosnap_how);
		return -1;
	}
	options->nosnap = options->nosnap || options->nosnap_how || options->cow;
	if (!options->snapname && !(options->snapname = strdup(".snap")))
		return -1;
	if (!*options->snapname || strchr(options->snapname, '/') ||
	    strlen(options->snapname) > 255 || strcmp(options->snapname, ".") == 0 ||
	    strcmp(options->snapname, "..") == 0) {
		fprintf(stderr, "mmapfs: -o snapname=%s: not a name of a folder; try .snap\n",
			options->snapname);
		return -1;
	}
	if (!options->backing || !options->mountpoint) {
		fprintf(stderr,
			"mmapfs: %s is missing; usage: mmapfs [-o OPTIONS] BACKING MOUNTPOINT\n",
			options->backing ? "MOUNTPOINT" : "BACKING");
		return -1;
	}
	return 0;
}

void options_free(struct options *options)
{
	free(options->backing);
	free(options->mountpoint);
	free(options->subtype);
	free(options->prewarm_match);
	free(options->cow_folder);
	free(options->nosnap_how);
	free(options->snapname);
	free(options->snapdir);
	free(options->check);
	fuse_opt_free_args(&options->fuse_args);
}

void options_help(void)
{
	printf("usage: mmapfs [-o OPTIONS] BACKING MOUNTPOINT\n"
	       "\n"
	       "Mirrors the folder BACKING at MOUNTPOINT, out of memory-mapped regions.\n"
	       "Unmount with: fusermount3 -u MOUNTPOINT\n"
	       "\n"
	       "    -h, --help             this text\n"
	       "    -V, --version          the versions of mmapfs and libfuse\n"
	       "    --check DIR            prove that the store of a view is whole (-o cow=DIR);\n"
	       "                           exit status 0, or 1 and what is wrong\n"
	       "    -f                     stay in the foreground, log to stderr\n"
	       "    -d, -o debug           -f, and show each request\n"
	       "    -s                     one thread, as -o max_threads=1\n"
	       "\n"
	       "    -o flush=POLICY        when changes are brought to the disk unasked:\n"
	       "                           manual (default; also never), always, or limits\n"
	       "                           joined by ':', whichever comes first: a time (10ms;\n"
	       "                           us ms s), dirty bytes of a file (4M; K M G), a\n"
	       "                           number of writes to a file (100writes)\n"
	       "    -o prewarm=WHEN        bring files into memory: never (default), open (when\n"
	       "                           first opened or used), mount (all, in the background)\n"
	       "    -o prewarm_match=GLOB  only files of such a name (path, if GLOB has a '/')\n"
	       "    -o prewarm_limit=SIZE  of each file (open), or of all (mount), at most SIZE\n"
	       "    -o cow[=DIR]           the mount is a private copy-on-write view: nothing\n"
	       "                           reaches BACKING. Kept in the folder DIR, or in memory\n"
	       "    -o cow_check           prove it first, and refuse one that is damaged\n"
	       "    -o cow_limit=SIZE      how much changed data it may take (half of the memory\n"
	       "                           that is free; with DIR no limit)\n"
	       "    -o nosnap[=force]      no point-in-time views (mkdir MOUNTPOINT/.snap/NAME),\n"
	       "                           even if there are some, which end\n"
	       "    -o snapname=NAME       of the folder that they are in (.snap)\n"
	       "    -o snapdir=DIR         where they are kept (BACKING/.mmapfs)\n"
	       "    -o snaplimit=SIZE      how much they may take; the oldest goes (no limit)\n"
	       "    -o snap_readonly       they are to be read, not written\n"
	       "    -o io=MODE             auto (default: stateless by root), stateless,\n"
	       "                           handles: the kernel does not tell of opens, or does\n"
	       "    -o write=METHOD        auto (default: the cheaper), store (into the mapping),\n"
	       "                           pwrite\n"
	       "    -o entry_timeout=T     seconds for which names are cached (1)\n"
	       "    -o attr_timeout=T      seconds for which attributes are cached (1)\n"
	       "    -o negative_timeout=T  seconds for which missing names are cached (0)\n"
	       "    -o subtype=NAME        the mount's type is fuse.NAME (mmapfs); fuse, if empty\n"
	       "    -o max_threads=N       threads that serve requests (10)\n"
	       "    -o max_idle_threads=N  of which stay when there is nothing to do (10)\n"
	       "\n"
	       "Options of libfuse:\n"
	       "\n");
	fuse_lowlevel_help();
	fflush(stdout);
}
