/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on attributes and extended attributes in a view, and on the file system as a whole. */
#include "view_ops.h"

#include "acl.h"
#include "caller.h"

#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

void view_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct view *view = view_of(req);
	struct node *node;
	struct stat st;
	int error = view_node(view, ino, &node);

	if (error) {
		reply_error(req, error);
		return;
	}
	if (!node->own && !node_is_of_view(node)) {
		op_getattr(req, ino, fi);
	} else {
		error = view_stat(view, node, &st);
		if (error)
			reply_error(req, error);
		else
			fuse_reply_attr(req, &st, view->fs->options->attr_timeout);
	}
	node_put(&view->fs->nodes, node);
}

/* The ACL of a new mode, if there is one; within a transaction. */
static int acl_follow(struct view *view, struct node *node, struct object *object)
{
	void *acl = NULL;
	ssize_t length = view_xattr_locked(view, node, ACL_ACCESS, &acl);
	int error = 0;

	if (length > 0 && acl_is_valid(acl, (size_t)length)) {
		acl_set_mode(acl, (size_t)length, object->mode);
		object->has_xattrs = true;
		error = store_xattr_set(view->store, object->id, ACL_ACCESS, acl, (size_t)length);
	} else if (length < 0 && length != -ENODATA && length != -EOPNOTSUPP) {
		error = (int)length;
	}
	free(acl);
	return error;
}

static int set_locked(struct view *view, struct node *node, const struct stat *attributes,
		      int to_set)
{
	struct object object = ((const struct own *)node->own)->object;
	int error = store_begin(view->store);

	if (error)
		return error;
	object.ctime = view_now();
	if (to_set & FUSE_SET_ATTR_UID)
		object.uid = attributes->st_uid;
	if (to_set & FUSE_SET_ATTR_GID)
		object.gid = attributes->st_gid;
	if (to_set & FUSE_SET_ATTR_MODE) {
		object.mode = (object.mode & S_IFMT) | (attributes->st_mode & ~S_IFMT);
		error = acl_follow(view, node, &object);
	}
	if (to_set & FUSE_SET_ATTR_ATIME_NOW)
		object.atime = object.ctime;
	else if (to_set & FUSE_SET_ATTR_ATIME)
		object.atime = attributes->st_atim;
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		object.mtime = object.ctime;
	else if (to_set & FUSE_SET_ATTR_MTIME)
		object.mtime = attributes->st_mtim;
	return view_object_end(view, node, &object, error);
}

void view_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attributes, int to_set,
		     struct fuse_file_info *fi)
{
	struct view *view = view_of(req);
	struct node *node;
	struct stat st;
	int error = view_node(view, ino, &node);

	(void)fi;
	if (error) {
		reply_error(req, error);
		return;
	}
	error = view_own(view, node);
	if (!error && (to_set & FUSE_SET_ATTR_SIZE))
		error = view_set_size(view, node, (uint64_t)attributes->st_size);
	pthread_mutex_lock(&view->lock);
	if (!error && (to_set & ~FUSE_SET_ATTR_SIZE))
		error = set_locked(view, node, attributes, to_set);
	if (!error)
		error = view_stat_locked(view, node, &st);
	pthread_mutex_unlock(&view->lock);
	if (error)
		reply_error(req, error);
	else
		fuse_reply_attr(req, &st, view->fs->options->attr_timeout);
	node_put(&view->fs->nodes, node);
}

/* Room: what the file system has on which the heap lies, or the limit. */
void view_op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct view *view = view_of(req);
	uint64_t used, limit;
	struct statvfs st;

	(void)ino;
	if (fstatvfs(store_descriptor(view->store), &st)) {
		reply_error(req, -errno);
		return;
	}
	pthread_mutex_lock(&view->lock);
	store_room(view->store, &used, &limit);
	pthread_mutex_unlock(&view->lock);
	if (limit != UINT64_MAX) {
		st.f_bsize = st.f_frsize = STORE_BLOCK;
		st.f_blocks = limit / STORE_BLOCK;
		st.f_bfree = st.f_bavail = used < limit ? (limit - used) / STORE_BLOCK : 0;
	}
	st.f_namemax = 255;
	fuse_reply_statfs(req, &st);
}

/* --- Extended attributes ---------------------------------------------------------------------- */

/* Whether there are attributes of such names at all (xattr(7), xattr_resolve_name()). 0 or negative
 * errno. */
static int name_check(const char *name)
{
	static const char *const spaces[] = {"user.", "trusted.", "security."};

	for (size_t i = 0; i < sizeof(spaces) / sizeof(spaces[0]); i++)
		if (strncmp(name, spaces[i], strlen(spaces[i])) == 0)
			return name[strlen(spaces[i])] ? 0 : -EINVAL;
	return strcmp(name, ACL_ACCESS) == 0 || strcmp(name, ACL_DEFAULT) == 0 ? 0 : -EOPNOTSUPP;
}

/* Of BACKING's object. */
ssize_t view_live_xattr(struct view *view, struct node *node, const char *name, void **value)
{
	int descriptor, error = view_check_base(view, node);
	struct descriptor_path path;
	ssize_t length;

	if (error)
		return error;
	descriptor = view_base_descriptor(view, node);
	if (descriptor < 0)
		return descriptor;
	path = backing_path(descriptor);
	do {
		length = getxattr(path.text, name, NULL, 0);
		free(*value);
		*value = length >= 0 ? malloc((size_t)length + 1) : NULL;
		if (length >= 0 && !*value)
			errno = ENOMEM;
		length = *value ? getxattr(path.text, name, *value, (size_t)length) : -1;
	} while (length < 0 && errno == ERANGE);
	if (length < 0)
		length = -errno;
	view_base_descriptor_put(view, node);
	if (length < 0) {
		free(*value);
		*value = NULL;
	}
	return length;
}

ssize_t view_xattr_locked(struct view *view, struct node *node, const char *name, void **value)
{
	size_t length;
	ssize_t found;
	int result = name_check(name);

	*value = NULL;
	for (const struct own *state = view_state(node); state && !result;
	     state = view_state_next(node, state)) {
		if (state->object.has_xattrs)
			result = store_xattr_get(view->store, state->object.id, name, value,
						 &length);
		if (!result && state->object.lost_xattrs)
			result = -EIO;
	}
	if (result < 0)
		return result;
	if (result)
		return *value ? (ssize_t)length : -ENODATA;
	if (view_is_made(node))
		return -ENODATA;
	found = view_live_xattr(view, node, name, value);
	return found < 0 && view_is_gone(node, (int)found) ? -ENODATA : found;
}

void view_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct view *view = view_of(req);
	void *value = NULL;
	struct node *node;
	ssize_t length;
	int error = view_node(view, ino, &node);

	if (error) {
		reply_error(req, error);
		return;
	}
	if (!node->own && !node_is_of_view(node)) {
		op_getxattr(req, ino, name, size);
		node_put(&view->fs->nodes, node);
		return;
	}
	pthread_mutex_lock(&view->lock);
	length = view_xattr_locked(view, node, name, &value);
	pthread_mutex_unlock(&view->lock);
	if (length < 0)
		reply_error(req, (int)length);
	else if (!size)
		fuse_reply_xattr(req, (size_t)length);
	else if ((size_t)length > size)
		reply_error(req, -ERANGE);
	else
		fuse_reply_buf(req, value, (size_t)length);
	free(value);
	node_put(&view->fs->nodes, node);
}

static int acl_refused(const struct node *node, const char *value, size_t size)
{
	if (S_ISLNK(node->type))
		return -EOPNOTSUPP;
	return acl_is_valid(value, size) ? 0 : -EINVAL;
}

/* What an access ACL makes of the mode; *value is NULL if it says no more than that. */
static void acl_apply(fuse_req_t req, struct object *object, const char **value, size_t size)
{
	if (!acl_get_mode(*value, size, &object->mode))
		*value = NULL;
	if (fuse_req_ctx(req)->uid != 0 && !caller_is_in_group(req, object->gid))
		object->mode &= ~(mode_t)S_ISGID;
}

/* value NULL: it is removed. Within a transaction; *object is what the object will be. */
static int xattr_write(struct view *view, const struct node *node, struct object *object,
		       const char *name, const char *value, size_t size)
{
	object->has_xattrs = true;
	if (!value && view_is_made(node)) /* which needs no mark that it is absent */
		return store_xattr_remove(view->store, object->id, name);
	return store_xattr_set(view->store, object->id, name, value, size);
}

/* value NULL: it is removed. */
static int xattr_set_locked(fuse_req_t req, struct node *node, const char *name, const char *value,
			    size_t size, int flags)
{
	struct view *view = view_of(req);
	struct object object;
	void *before = NULL;
	ssize_t length = view_xattr_locked(view, node, name, &before);
	int error;

	free(before);
	if (length < 0 && length != -ENODATA)
		return (int)length;
	if (length >= 0 && (flags & XATTR_CREATE))
		return -EEXIST;
	if (length < 0 && ((flags & XATTR_REPLACE) || !value))
		return -ENODATA;
	if (value && strcmp(name, ACL_DEFAULT) == 0 && !S_ISDIR(node->type))
		return -EACCES;
	if (value && strcmp(name, ACL_ACCESS) == 0) {
		error = acl_refused(node, value, size);
		if (error)
			return error;
	}
	error = view_own_locked(view, node);
	if (error)
		return error;
	object = ((const struct own *)node->own)->object;
	if (value && strcmp(name, ACL_ACCESS) == 0)
		acl_apply(req, &object, &value, size);
	error = store_begin(view->store);
	if (error)
		return error;
	object.ctime = view_now();
	error = xattr_write(view, node, &object, name, value, size);
	return view_object_end(view, node, &object, error);
}

static void xattr_set(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
		      size_t size, int flags)
{
	struct view *view = view_of(req);
	struct node *node;
	int error = view_node(view, ino, &node);

	if (error) {
		reply_error(req, error);
		return;
	}
	pthread_mutex_lock(&view->lock);
	error = xattr_set_locked(req, node, name, value, size, flags);
	pthread_mutex_unlock(&view->lock);
	reply_error(req, error);
	node_put(&view->fs->nodes, node);
}

void view_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
		      size_t size, int flags)
{
	xattr_set(req, ino, name, value, size, flags);
}

void view_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	xattr_set(req, ino, name, NULL, 0, 0);
}

#define PRIVILEGE "security.capability"

static int drop_privileges_locked(fuse_req_t req, struct node *node)
{
	struct view *view = view_of(req);
	struct object object = ((const struct own *)node->own)->object;
	mode_t drop = privileges_to_drop(req, object.mode, object.gid);
	void *capability = NULL;
	ssize_t length = view_xattr_locked(view, node, PRIVILEGE, &capability);
	int error;

	free(capability);
	if (length < 0 && length != -ENODATA && length != -EOPNOTSUPP)
		return (int)length;
	if (!drop && length < 0)
		return 0;
	error = store_begin(view->store);
	if (error)
		return error;
	object.mode &= ~drop;
	if (length >= 0)
		error = xattr_write(view, node, &object, PRIVILEGE, NULL, 0);
	error = view_object_end(view, node, &object, error);
	return error ? error : 1;
}

int view_drop_privileges(fuse_req_t req, struct node *node)
{
	struct view *view = view_of(req);
	int dropped = view_own(view, node);

	if (!dropped) {
		pthread_mutex_lock(&view->lock);
		dropped = drop_privileges_locked(req, node);
		pthread_mutex_unlock(&view->lock);
	}
	return dropped;
}

/* Names of attributes, each once; those that are absent are kept apart until the end. */
struct names {
	struct named {
		bool absent;
		UT_hash_handle hh;
		char name[];
	} * all;
	char *names; /* XATTR_LIST_MAX long */
	size_t length;
	bool privileged;
};

static int names_add(void *context, const char *name, bool absent)
{
	struct names *names = context;
	size_t length = strlen(name) + 1;
	struct named *named;

	HASH_FIND(hh, names->all, name, (unsigned int)length, named);
	if (named) /* whose word came first counts */
		return 0;
	named = malloc(sizeof(*named) + length);
	if (!named)
		return -ENOMEM;
	memcpy(named->name, name, length);
	named->absent = absent;
	HASH_ADD_KEYPTR(hh, names->all, named->name, (unsigned int)length, named);
	if (!named->hh.tbl) {
		free(named);
		return -ENOMEM;
	}
	if (absent || (!names->privileged && strncmp(name, "trusted.", 8) == 0))
		return 0;
	if (length > XATTR_LIST_MAX - names->length)
		return -E2BIG;
	memcpy(names->names + names->length, name, length);
	names->length += length;
	return 0;
}

static void names_free(struct names *names)
{
	struct named *named, *next;

	HASH_ITER (hh, names->all, named, next) {
		HASH_DEL(names->all, named);
		free(named);
	}
	free(names->names);
}

static int list_locked(struct view *view, struct node *node, struct names *names)
{
	char *base = NULL;
	ssize_t length = 0;
	int descriptor, error = 0;

	for (const struct own *state = view_state(node); state && !error;
	     state = view_state_next(node, state))
		error = state->object.lost_xattrs ? -EIO
						  : store_xattrs_each(view->store, state->object.id,
								      names_add, names);
	if (error || view_is_made(node))
		return error;
	error = view_check_base(view, node);
	if (error)
		return error;
	descriptor = view_base_descriptor(view, node);
	if (descriptor < 0)
		return view_is_gone(node, descriptor) ? 0 : descriptor;
	base = malloc(XATTR_LIST_MAX);
	if (base)
		length = listxattr(backing_path(descriptor).text, base, XATTR_LIST_MAX);
	if (!base || length < 0)
		error = !base ? -ENOMEM : errno == EOPNOTSUPP ? 0 : -errno;
	view_base_descriptor_put(view, node);
	for (ssize_t at = 0; !error && at < length; at += (ssize_t)strlen(base + at) + 1)
		error = names_add(names, base + at, false);
	free(base);
	return error;
}

void view_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct view *view = view_of(req);
	struct names names = {.privileged = fuse_req_ctx(req)->uid == 0};
	struct node *node;
	int error = view_node(view, ino, &node);

	if (error) {
		reply_error(req, error);
		return;
	}
	if (!node->own && !node_is_of_view(node)) {
		op_listxattr(req, ino, size);
		node_put(&view->fs->nodes, node);
		return;
	}
	names.names = malloc(XATTR_LIST_MAX);
	if (!names.names)
		error = -ENOMEM;
	pthread_mutex_lock(&view->lock);
	if (!error)
		error = list_locked(view, node, &names);
	pthread_mutex_unlock(&view->lock);
	if (!error && size && names.length > size)
		error = -ERANGE;
	if (error)
		reply_error(req, error);
	else if (size)
		fuse_reply_buf(req, names.names, names.length);
	else
		fuse_reply_xattr(req, names.length);
	names_free(&names);
	node_put(&view->fs->nodes, node);
}
