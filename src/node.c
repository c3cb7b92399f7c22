/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes (node.h). */
#include "node.h"

#include "fuse.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct node *node_new(const struct identity *identity, struct backing_device *device,
			     mode_t type)
{
	size_t size = offsetof(struct node, identity) + identity_size(identity);
	struct node *node = calloc(1, size < sizeof(struct node) ? size : sizeof(struct node));

	if (node) {
		memcpy(&node->identity, identity, identity_size(identity));
		node->type = type & S_IFMT;
		node->device = device;
		node->descriptor = -1;
		STAILQ_INIT(&node->answers);
	}
	return node;
}

static bool table_add_locked(struct nodes *nodes, struct node *node)
{
	node->id = node == nodes->root ? FUSE_ROOT_ID
				       : backing_lasting_number(nodes->backing, &node->identity);
	if (!node->id)
		node->id = ++nodes->last_id;
	if (node->device->is_view)
		node->id |= NODE_OF_VIEW;
	HASH_ADD(by_id, nodes->by_id, id, sizeof(node->id), node);
	if (!node->by_id.tbl)
		return false;
	HASH_ADD_KEYPTR(by_identity, nodes->by_identity, &node->identity,
			(unsigned int)identity_size(&node->identity), node);
	if (!node->by_identity.tbl) {
		HASH_DELETE(by_id, nodes->by_id, node);
		return false;
	}
	if (HASH_CNT(by_id, nodes->by_id) > nodes->most)
		nodes->most = HASH_CNT(by_id, nodes->by_id);
	return true;
}

static void table_remove_locked(struct nodes *nodes, struct node *node)
{
	HASH_DELETE(by_id, nodes->by_id, node);
	HASH_DELETE(by_identity, nodes->by_identity, node);
}

/*
 * Memory goes back to the system each time that half of many nodes have gone: what free() keeps of
 * a million is hundreds of megabytes. Whether it is time.
 */
#define MANY 4096
static bool trim_is_due_locked(struct nodes *nodes)
{
	if (nodes->most < MANY || HASH_CNT(by_id, nodes->by_id) >= nodes->most / 2)
		return false;
	nodes->most = HASH_CNT(by_id, nodes->by_id);
	return true;
}

/* How many nodes may be dormant: some 30 MB. */
#ifdef MMAPIO_DEBUG
#define DORMANT_MAX 100
#else
#define DORMANT_MAX 100000
#endif

static void wake_locked(struct nodes *nodes, struct node *node)
{
	if (node->is_dormant) {
		TAILQ_REMOVE(&nodes->dormant, node, dormant);
		nodes->dormant_count--;
		node->is_dormant = false;
	}
}

/* Returns a node that has been dormant for too long, to be freed, or NULL. */
static struct node *sleep_locked(struct nodes *nodes, struct node *node)
{
	struct node *oldest = NULL;

	TAILQ_INSERT_TAIL(&nodes->dormant, node, dormant);
	node->is_dormant = true;
	if (++nodes->dormant_count > DORMANT_MAX) {
		oldest = TAILQ_FIRST(&nodes->dormant);
		wake_locked(nodes, oldest);
		table_remove_locked(nodes, oldest);
	}
	return oldest;
}

static struct node *reference_locked(struct nodes *nodes, struct node *node)
{
	if (node) {
		wake_locked(nodes, node);
		node->references++;
	}
	return node;
}

static struct node *table_find_locked(struct nodes *nodes, const struct identity *identity)
{
	struct node *node;

	HASH_FIND(by_identity, nodes->by_identity, identity, (unsigned int)identity_size(identity),
		  node);
	return node;
}

static void node_free(struct nodes *nodes, struct node *node)
{
	if (node) {
		if (node->own)
			nodes->own_free(node->own);
		if (node->past)
			nodes->own_free(node->past);
		free(node->name);
		free(node);
	}
}

/*
 * A folder that is about to be below one of its own descendants, because folders were moved behind
 * the mount: what was known of the way between the two is out of date, and is cut next to the node.
 */
static void cycle_cut_locked(struct node *node, struct node *parent)
{
	struct node *up = parent;

	while (up && up->parent != node)
		up = up->parent;
	if (!up)
		return;
	free(up->name);
	up->name = NULL;
	up->parent = NULL;
	node->references--; /* not the last one: the caller has one */
}

/*
 * parent NULL: no name is known any more. Without memory the name stays what it was. Returns the
 * parent before, whose reference the caller gives back when nodes->lock is released, or NULL.
 * The caller has a reference of the node.
 */
static struct node *name_set_locked(struct nodes *nodes, struct node *node, struct node *parent,
				    const char *name)
{
	struct node *before = node->parent;
	char *copy;

	if (node == nodes->root || node == parent ||
	    (before == parent && parent && strcmp(node->name, name) == 0))
		return NULL;
	copy = parent ? strdup(name) : NULL;
	if (parent && !copy)
		return NULL;
	if (S_ISDIR(node->type) && node->references > 1)
		cycle_cut_locked(node, parent);
	free(node->name);
	node->name = copy;
	node->parent = parent;
	if (parent)
		parent->references++;
	return before;
}

int nodes_init(struct nodes *nodes, struct backing *backing, unsigned int room,
	       unsigned int idle_limit)
{
	struct identity identity;
	struct stat st;
	int descriptor, error;

	*nodes = (struct nodes){.backing = backing, .room = room, .idle_limit = idle_limit};
	pthread_mutex_init(&nodes->lock, NULL);
	pthread_mutex_init(&nodes->descriptor_lock, NULL);
	TAILQ_INIT(&nodes->idle);
	TAILQ_INIT(&nodes->dormant);
	error = backing_identify(backing, backing->root, &identity, &st);
	if (error)
		return error;
	nodes->root =
		node_new(&identity, backing_device(backing, &identity, backing->root), st.st_mode);
	if (!nodes->root)
		return -ENOMEM;
	nodes->root->references = 1;
	nodes->last_id = FUSE_ROOT_ID;
	descriptor = fcntl(backing->root, F_DUPFD_CLOEXEC, 0);
	if (descriptor < 0 || !table_add_locked(nodes, nodes->root)) {
		free(nodes->root);
		nodes->root = NULL;
		return -ENOMEM;
	}
	node_descriptor_give(nodes, nodes->root, descriptor, true);
	return 0;
}

void nodes_free(struct nodes *nodes)
{
	struct node *node, *next;
	int descriptor;

	/* What the kernel has not forgotten before the unmount. */
	for (node = nodes->by_id; node; node = next) {
		next = node->by_id.next;
		table_remove_locked(nodes, node);
		descriptor = node_descriptor_take(nodes, node);
		if (descriptor >= 0)
			close(descriptor);
		node_free(nodes, node);
	}
	nodes->root = NULL;
	pthread_mutex_destroy(&nodes->descriptor_lock);
	pthread_mutex_destroy(&nodes->lock);
}

/* The node of an identity, referenced; made if need be. NULL without memory. */
static struct node *table_get_locked(struct nodes *nodes, const struct identity *identity,
				     struct backing_device *device, mode_t type)
{
	struct node *node = table_find_locked(nodes, identity);

	if (!node) {
		node = node_new(identity, device, type);
		if (!node || !table_add_locked(nodes, node)) {
			free(node);
			return NULL;
		}
	}
	return reference_locked(nodes, node);
}

int node_of_identity(struct nodes *nodes, const struct identity *identity,
		     struct backing_device *device, mode_t type, struct node **out)
{
	pthread_mutex_lock(&nodes->lock);
	*out = table_get_locked(nodes, identity, device, type);
	pthread_mutex_unlock(&nodes->lock);
	return *out ? 0 : -ENOMEM;
}

int node_of_view(struct nodes *nodes, struct node *base, struct backing_device *device,
		 struct node **out)
{
	struct identity identity = {.length = 0};

	memcpy(&identity, &base->identity, identity_size(&base->identity));
	identity.mount = device->mount_id;
	pthread_mutex_lock(&nodes->lock);
	*out = table_get_locked(nodes, &identity, device, base->type);
	if (*out && !(*out)->parent) {
		(*out)->parent = base;
		base->references++;
	}
	pthread_mutex_unlock(&nodes->lock);
	return *out ? 0 : -ENOMEM;
}

void node_lookup(struct nodes *nodes, struct node *node)
{
	pthread_mutex_lock(&nodes->lock);
	node->lookups++;
	pthread_mutex_unlock(&nodes->lock);
}

int node_of_descriptor(struct nodes *nodes, struct node *parent, const char *name, int descriptor,
		       bool lookup, struct node **out, struct stat *st)
{
	struct identity identity;
	struct backing_device *device;
	struct node *node, *before = NULL;
	int error = backing_identify(nodes->backing, descriptor, &identity, st);

	if (error)
		return error;
	device = backing_device(nodes->backing, &identity, descriptor);
	if (!device)
		return -ENOMEM;

	pthread_mutex_lock(&nodes->lock);
	node = table_get_locked(nodes, &identity, device, st->st_mode);
	if (!node) {
		pthread_mutex_unlock(&nodes->lock);
		return -ENOMEM;
	}
	node->lookups += lookup;
	if (parent)
		before = name_set_locked(nodes, node, parent, name);
	pthread_mutex_unlock(&nodes->lock);
	node_put(nodes, before);
	node_descriptor_give(nodes, node, descriptor, false);
	*out = node;
	return 0;
}

struct node *node_find(struct nodes *nodes, const struct identity *identity)
{
	struct node *node;

	pthread_mutex_lock(&nodes->lock);
	node = reference_locked(nodes, table_find_locked(nodes, identity));
	pthread_mutex_unlock(&nodes->lock);
	return node;
}

struct node *node_get(struct nodes *nodes, uint64_t id)
{
	struct node *node;

	pthread_mutex_lock(&nodes->lock);
	HASH_FIND(by_id, nodes->by_id, &id, sizeof(id), node);
	reference_locked(nodes, node);
	pthread_mutex_unlock(&nodes->lock);
	return node;
}

struct node *node_ref(struct nodes *nodes, struct node *node)
{
	pthread_mutex_lock(&nodes->lock);
	node->references++;
	pthread_mutex_unlock(&nodes->lock);
	return node;
}

void node_put(struct nodes *nodes, struct node *node)
{
	/* A node that goes gives back its parent. */
	while (node) {
		struct node *parent, *gone;
		bool trim;
		int descriptor;

		pthread_mutex_lock(&nodes->lock);
		if (--node->references > 0 || node->lookups > 0) {
			pthread_mutex_unlock(&nodes->lock);
			return;
		}
		descriptor = node_descriptor_take(nodes, node);
		parent = node->parent;
		if (node->device->handles_open && !node->removed) {
			free(node->name);
			node->name = NULL;
			node->parent = NULL;
			gone = sleep_locked(nodes, node);
		} else {
			table_remove_locked(nodes, node);
			gone = node;
		}
		trim = trim_is_due_locked(nodes);
		pthread_mutex_unlock(&nodes->lock);
		/* Without the lock: closing the last descriptor of a removed file can take long. */
		if (descriptor >= 0)
			close(descriptor);
		node_free(nodes, gone);
		if (trim)
			malloc_trim(0);
		node = parent;
	}
}

bool node_is_known(struct nodes *nodes, struct node *node)
{
	bool known;

	pthread_mutex_lock(&nodes->lock);
	known = node->lookups > 0;
	pthread_mutex_unlock(&nodes->lock);
	return known;
}

bool node_forget(struct nodes *nodes, struct node *node, uint64_t count)
{
	bool forgotten;

	pthread_mutex_lock(&nodes->lock);
	node->lookups = count < node->lookups ? node->lookups - count : 0;
	forgotten = node->lookups == 0;
	pthread_mutex_unlock(&nodes->lock);
	return forgotten;
}

void node_rename(struct nodes *nodes, struct node *node, struct node *parent, const char *name)
{
	struct node *before;

	pthread_mutex_lock(&nodes->lock);
	before = name_set_locked(nodes, node, parent, name);
	pthread_mutex_unlock(&nodes->lock);
	node_put(nodes, before);
}

void node_unlink(struct nodes *nodes, struct node *node, struct node *parent, const char *name,
		 int descriptor, bool removed, bool keep)
{
	struct node *before = NULL;

	pthread_mutex_lock(&nodes->lock);
	if (removed)
		node->removed = true;
	if (node->parent == parent && strcmp(node->name, name) == 0)
		before = name_set_locked(nodes, node, NULL, NULL);
	pthread_mutex_unlock(&nodes->lock);
	node_put(nodes, before);
	node_descriptor_give(nodes, node, descriptor, keep);
}

char *node_path_from(struct nodes *nodes, struct node *node, struct node **top)
{
	struct node *up = node;
	size_t length = 0;
	char *path, *at;

	pthread_mutex_lock(&nodes->lock);
	for (; up->parent; up = up->parent)
		length += strlen(up->name) + 1;
	path = malloc(length + 2);
	if (path) {
		at = path + (length ? length : 1);
		*at = '\0';
		path[0] = '/';
		for (up = node; up->parent; up = up->parent) {
			size_t name_length = strlen(up->name);

			at -= name_length;
			memcpy(at, up->name, name_length);
			*--at = '/';
		}
		up->references++;
		*top = up;
	}
	pthread_mutex_unlock(&nodes->lock);
	return path;
}

char *node_path(struct nodes *nodes, struct node *node)
{
	struct node *top;
	char *path = node_path_from(nodes, node, &top);
	bool known = path && top == nodes->root;

	if (path)
		node_put(nodes, top);
	if (path && !known) {
		free(path);
		path = strdup(NO_PATH);
	}
	return path;
}
