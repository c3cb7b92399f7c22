/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The caller's identity (caller.h). The C library changes the identity of all threads at once, so
 * these are raw system calls. Changing the file-system ids alone takes the capabilities of files
 * away (capabilities(7)) and leaves what is needed to come back.
 *
 * The umask belongs to what clone(2) calls CLONE_FS, which threads share until they leave it.
 */
#include "caller.h"

#include "log.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static __thread bool own_umask;

static int thread_setgroups(size_t count, const gid_t *groups)
{
	return syscall(SYS_setgroups, count, groups) ? -errno : 0;
}

int caller_init(struct fs *fs)
{
	int error;

	umask(0);
	fs->switch_identity = geteuid() == 0;
	error = fs->switch_identity ? thread_setgroups(0, NULL) : 0;
	if (error == -EPERM) {
		/* Root of a user name space that an ordinary user made (user_namespaces(7)). */
		fs->switch_identity = false;
		error = 0;
	}
	return error;
}

/* The caller's supplementary groups: *groups is few, or to be freed. How many, or negative errno.
 */
#define GROUPS_FEW 64
static int groups_get(fuse_req_t req, gid_t *few, gid_t **groups)
{
	int again, count = fuse_req_getgroups(req, GROUPS_FEW, few);

	*groups = few;
	if (count > GROUPS_FEW) {
		*groups = malloc((size_t)count * sizeof(**groups));
		if (!*groups) {
			*groups = few;
			return -ENOMEM;
		}
		again = fuse_req_getgroups(req, count, *groups);
		count = again < count ? again : count;
	}
	/* The caller may be gone, or in another pid name space: then it has its group alone. */
	return count > 0 ? count : 0;
}

static int groups_enter(fuse_req_t req)
{
	gid_t few[GROUPS_FEW], *groups;
	int count = groups_get(req, few, &groups);
	int error = count < 0 ? count : thread_setgroups((size_t)count, groups);

	if (groups != few)
		free(groups);
	return error;
}

bool caller_is_in_group(fuse_req_t req, gid_t group)
{
	gid_t few[GROUPS_FEW], *groups;
	bool found = fuse_req_ctx(req)->gid == group;
	int count = found ? 0 : groups_get(req, few, &groups);

	for (int i = 0; i < count && !found; i++)
		found = groups[i] == group;
	if (count > 0 && groups != few)
		free(groups);
	return found;
}

int caller_enter(struct fs *fs, fuse_req_t req, struct caller *caller)
{
	const struct fuse_ctx *context = fuse_req_ctx(req);
	int error;

	caller->switched = false;
	if (!own_umask) {
		if (unshare(CLONE_FS))
			return -errno;
		own_umask = true;
	}
	umask(context->umask);
	if (!fs->switch_identity || (context->uid == 0 && context->gid == 0))
		return 0;
	caller->switched = true;
	error = groups_enter(req);
	if (error) {
		caller_leave(caller);
		return error;
	}
	setfsgid(context->gid);
	setfsuid(context->uid);
	return 0;
}

void caller_leave(const struct caller *caller)
{
	int error = errno;

	if (caller->switched) {
		setfsuid(0);
		setfsgid(0);
		if (thread_setgroups(0, NULL))
			abort(); /* it would make files with somebody else's groups from now on */
	}
	umask(0);
	errno = error;
}
