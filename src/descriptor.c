/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bounded cache of O_PATH descriptors of nodes (node.h, last part).
 *
 * A descriptor is pinned while a request uses it, idle (and then may be closed at any time), or
 * kept because its object could not be found again without it. Idle ones are in a list, the one
 * that was used last at its end.
 */
#include "node.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_idle(const struct node *node)
{
	return node->descriptor >= 0 && !node->pins && !node->keep;
}

/* To be called before, and after, a node that may be idle changes. */
static void idle_remove_locked(struct nodes *nodes, struct node *node)
{
	if (is_idle(node)) {
		TAILQ_REMOVE(&nodes->idle, node, idle);
		nodes->idle_count--;
	}
}

static void idle_add_locked(struct nodes *nodes, struct node *node)
{
	if (is_idle(node)) {
		TAILQ_INSERT_TAIL(&nodes->idle, node, idle);
		nodes->idle_count++;
	}
}

/* Takes idle descriptors out of the cache. Returns how many, to be closed without the lock. */
static unsigned int trim_locked(struct nodes *nodes, unsigned int count, int *closing)
{
	unsigned int done = 0;

	while (done < count && !TAILQ_EMPTY(&nodes->idle)) {
		struct node *node = TAILQ_FIRST(&nodes->idle);

		idle_remove_locked(nodes, node);
		closing[done++] = node->descriptor;
		node->descriptor = -1;
		nodes->used--;
	}
	return done;
}

#define TRIM_MAX 16

bool node_descriptors_trim(struct nodes *nodes, unsigned int count)
{
	int closing[TRIM_MAX];
	unsigned int done;

	pthread_mutex_lock(&nodes->descriptor_lock);
	done = trim_locked(nodes, count < TRIM_MAX ? count : TRIM_MAX, closing);
	pthread_mutex_unlock(&nodes->descriptor_lock);
	for (unsigned int i = 0; i < done; i++)
		close(closing[i]);
	return done > 0;
}

/* The cached descriptor, pinned, or -1. */
static int pin_cached(struct nodes *nodes, struct node *node)
{
	int descriptor;

	pthread_mutex_lock(&nodes->descriptor_lock);
	descriptor = node->descriptor;
	if (descriptor >= 0) {
		idle_remove_locked(nodes, node);
		node->pins++;
	}
	pthread_mutex_unlock(&nodes->descriptor_lock);
	return descriptor;
}

/* Gives a node a descriptor if it has none; pins whichever it has then, if asked to. */
static int install(struct nodes *nodes, struct node *node, int descriptor, bool pin, bool keep)
{
	int closing[TRIM_MAX], installed;
	unsigned int count = 0;

	pthread_mutex_lock(&nodes->descriptor_lock);
	idle_remove_locked(nodes, node);
	if (node->descriptor < 0) {
		node->descriptor = descriptor;
		descriptor = -1;
		/* A few at a time, should the limit have been passed while all were pinned. */
		if (++nodes->used > nodes->room || nodes->idle_count > nodes->idle_limit)
			count = trim_locked(nodes, 2, closing);
	}
	if (keep && !node->keep) {
		node->keep = true;
		nodes->held++;
	}
	node->pins += pin;
	idle_add_locked(nodes, node);
	installed = node->descriptor;
	pthread_mutex_unlock(&nodes->descriptor_lock);
	for (unsigned int i = 0; i < count; i++)
		close(closing[i]);
	if (descriptor >= 0)
		close(descriptor);
	return installed;
}

/* Opens the node by its last known name in the folder of its parent, whose descriptor is folder. */
static int open_in_parent(struct nodes *nodes, struct node *node, struct node *parent, int folder)
{
	struct identity identity;
	struct stat st;
	char name[256];
	int descriptor, error;
	bool moved;

	pthread_mutex_lock(&nodes->lock);
	moved = node->parent != parent;
	if (!moved) {
		strncpy(name, node->name, sizeof(name) - 1);
		name[sizeof(name) - 1] = '\0';
	}
	pthread_mutex_unlock(&nodes->lock);
	if (moved)
		return -EAGAIN;
	descriptor = backing_open_name(nodes->backing, folder, name);
	if (descriptor < 0)
		return descriptor == -ENOENT || descriptor == -ENOTDIR ? -ESTALE : descriptor;
	error = backing_identify(nodes->backing, descriptor, &identity, &st);
	if (!error && (identity_size(&identity) != identity_size(&node->identity) ||
		       memcmp(&identity, &node->identity, identity_size(&identity)) != 0))
		error = -ESTALE;
	if (error) {
		close(descriptor);
		return error;
	}
	return descriptor;
}

/* The parent, referenced, or NULL: no name of the node is known. */
static struct node *parent_get(struct nodes *nodes, struct node *node)
{
	struct node *parent;

	pthread_mutex_lock(&nodes->lock);
	parent = node->parent;
	if (parent)
		parent->references++;
	pthread_mutex_unlock(&nodes->lock);
	return parent;
}

/* By handle, where that is allowed; pinned. Descriptor or negative errno. */
static int pin_by_identity(struct nodes *nodes, struct node *node)
{
	int descriptor = backing_open_identity(nodes->backing, &node->identity);

	return descriptor >= 0 ? install(nodes, node, descriptor, true, false) : descriptor;
}

/*
 * Finds a node again by the names that lead to it: up to the first folder that needs none, and down
 * again. (No recursion: a tree can be deeper than a stack.) The descriptor, pinned, or negative
 * errno; -EAGAIN: something was moved meanwhile.
 */
static int pin_by_names(struct nodes *nodes, struct node *node)
{
	struct node **way = NULL; /* from the node up; referenced, but the first */
	size_t length = 0, room = 0;
	int descriptor;

	for (;;) {
		if (length == room) {
			struct node **longer = realloc(way, (room + 64) * sizeof(*way));

			if (!longer) {
				descriptor = -ENOMEM;
				goto out;
			}
			way = longer;
			room += 64;
		}
		way[length] = length ? parent_get(nodes, way[length - 1]) : node;
		if (!way[length]) {
			descriptor = -ESTALE;
			goto out;
		}
		length++;
		if (length == 1)
			continue;
		descriptor = pin_cached(nodes, way[length - 1]);
		if (descriptor < 0)
			descriptor = pin_by_identity(nodes, way[length - 1]);
		if (descriptor >= 0)
			break;
		if (descriptor != -EOPNOTSUPP)
			goto out;
	}
	/* way[length - 1] is pinned, and has descriptor. */
	while (length > 1) {
		struct node *folder = way[--length];

		descriptor = open_in_parent(nodes, way[length - 1], folder, descriptor);
		if (descriptor >= 0)
			descriptor = install(nodes, way[length - 1], descriptor, true, false);
		node_descriptor_put(nodes, folder);
		node_put(nodes, folder);
		if (descriptor < 0)
			break;
	}
out:
	while (length > 1)
		node_put(nodes, way[--length]);
	free(way);
	return descriptor;
}

/* What is closed to make room may be what the next try has to open first: so they are bounded. */
#define TRIES_MAX 64

int node_descriptor(struct nodes *nodes, struct node *node)
{
	int descriptor;

	for (int tries = 0; tries < TRIES_MAX; tries++) {
		descriptor = pin_cached(nodes, node);
		if (descriptor >= 0)
			return descriptor;
		descriptor = pin_by_identity(nodes, node);
		if (descriptor == -EOPNOTSUPP)
			descriptor = pin_by_names(nodes, node);
		if (descriptor == -EAGAIN)
			continue;
		if (descriptor != -EMFILE && descriptor != -ENFILE)
			return descriptor;
		if (!node_descriptors_trim(nodes, 1))
			break;
	}
	return -ENFILE;
}

void node_descriptor_put(struct nodes *nodes, struct node *node)
{
	pthread_mutex_lock(&nodes->descriptor_lock);
	node->pins--;
	idle_add_locked(nodes, node);
	pthread_mutex_unlock(&nodes->descriptor_lock);
}

void node_descriptor_give(struct nodes *nodes, struct node *node, int descriptor, bool keep)
{
	install(nodes, node, descriptor, false, keep);
}

int node_descriptor_give_pinned(struct nodes *nodes, struct node *node, int descriptor)
{
	return install(nodes, node, descriptor, true, false);
}

bool node_descriptor_is_kept(struct nodes *nodes, struct node *node)
{
	bool kept;

	pthread_mutex_lock(&nodes->descriptor_lock);
	kept = node->keep;
	pthread_mutex_unlock(&nodes->descriptor_lock);
	return kept;
}

bool node_descriptor_unkeep(struct nodes *nodes, struct node *node)
{
	bool kept;

	pthread_mutex_lock(&nodes->descriptor_lock);
	kept = node->keep && node != nodes->root;
	if (kept) {
		node->keep = false;
		nodes->held--;
		idle_add_locked(nodes, node);
	}
	pthread_mutex_unlock(&nodes->descriptor_lock);
	return kept;
}

int node_descriptor_take(struct nodes *nodes, struct node *node)
{
	int descriptor;

	pthread_mutex_lock(&nodes->descriptor_lock);
	idle_remove_locked(nodes, node);
	descriptor = node->descriptor;
	node->descriptor = -1;
	if (descriptor >= 0)
		nodes->used--;
	if (node->keep)
		nodes->held--;
	node->keep = false;
	pthread_mutex_unlock(&nodes->descriptor_lock);
	return descriptor;
}
