/* SPDX-License-Identifier: Apache-2.0 */
/* The command line. Reads it and checks each option by itself; opens and mounts nothing. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "fuse.h"

#include <mmapio.h>
#include <stdbool.h>
#include <stdint.h>

enum io_mode {
	IO_AUTO,      /* stateless, where files are found again by handle */
	IO_HANDLES,   /* the kernel tells of each open and release */
	IO_STATELESS, /* it does not */
};

enum prewarm_mode {
	PREWARM_NEVER,
	PREWARM_OPEN,
	PREWARM_MOUNT,
};

struct options {
	char *backing;		    /* as given */
	char *mountpoint;	    /* as given */
	struct fuse_args fuse_args; /* what is libfuse's own */
	bool foreground;
	bool debug;
	bool help;
	char *check; /* the store to be checked; no mount */
	bool version;
	bool clone_fd;
	bool read_only;
	bool remount;	  /* change the flags of the mount that is there, no more */
	bool atime_given; /* one of noatime, relatime, strictatime: */
	uint64_t atime;	  /* MOUNT_ATTR__ATIME's */
	bool nodiratime;
	unsigned int max_threads;
	unsigned int max_idle_threads;
	struct mmapio_policy flush;
	enum mmapio_write_method write_method;
	enum io_mode io;
	enum prewarm_mode prewarm;
	char *subtype;		/* of the mount's type, fuse.mmapfs; NULL: that, "": none */
	char *prewarm_match;	/* NULL: all */
	uint64_t prewarm_limit; /* bytes; UINT64_MAX: none */
	bool cow;		/* the mount is a view, */
	char *cow_folder;	/* kept here; NULL: in memory */
	bool cow_check;		/* it is proved before it is mounted */
	uint64_t cow_limit;	/* bytes; 0: the standard one */
	bool nosnap;		/* no point-in-time views, */
	char *nosnap_how;	/* not even if there are some: "force" */
	char *snapname;		/* the folder that they are in */
	char *snapdir;		/* where they are kept; NULL: in BACKING */
	uint64_t snaplimit;	/* bytes; UINT64_MAX: none */
	bool snap_readonly;	/* they are to be read */
	double entry_timeout;
	double attr_timeout;
	double negative_timeout;
};

/*
 * 0, or -1 when a line on stderr has said what is wrong. *options is to be freed with
 * options_free() in both cases.
 */
int options_parse(struct options *options, int argc, char **argv);
void options_free(struct options *options);

/* What --help says, on stdout. */
void options_help(void);

#endif
