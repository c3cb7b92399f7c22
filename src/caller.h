/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making things with the caller's identity: user, group, supplementary groups and umask, of the
 * calling thread only.
 */
#ifndef CALLER_H
#define CALLER_H

#include "fs.h"

struct caller {
	bool switched;
};

/* At start: drops the supplementary groups that we were started with. */
int caller_init(struct fs *fs);

/* Takes on the identity of a request's caller. 0 or negative errno; then nothing has changed. */
int caller_enter(struct fs *fs, fuse_req_t req, struct caller *caller);

/* Whether the group is one of the caller's. */
bool caller_is_in_group(fuse_req_t req, gid_t group);

/* Back to our own, on every way out. */
void caller_leave(const struct caller *caller);

#endif
