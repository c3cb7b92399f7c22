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

/* Finds a node again by the name it was last known by. */
static int open_by_name(struct nodes *nodes, struct node *node)
{
	struct identity identity;
	struct node *parent;
	struct stat st;
	char name[256];
	int folder, descriptor, error;

	pthread_mutex_lock(&nodes->lock);
	parent = node->parent;
	if (parent) {
		parent->references++;
		strncpy(name, node->name, sizeof(name) - 1);
		name[sizeof(name) - 1] = '\0';
	}
	pthread_mutex_unlock(&nodes->lock);
	if (!parent)
		return -ESTALE;
	folder = node_descriptor(nodes, parent);
	if (folder < 0) {
		node_put(nodes, parent);
		return folder;
	}
	descriptor = backing_open_name(nodes->backing, folder, name);
	node_descriptor_put(nodes, parent);
	node_put(nodes, parent);
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

int node_descriptor(struct nodes *nodes, struct node *node)
{
	int descriptor;

	for (;;) {
		descriptor = pin_cached(nodes, node);
		if (descriptor >= 0)
			return descriptor;
		descriptor = backing_open_identity(nodes->backing, &node->identity);
		if (descriptor == -EOPNOTSUPP)
			descriptor = open_by_name(nodes, node);
		if (descriptor >= 0)
			return install(nodes, node, descriptor, true, false);
		if (descriptor != -EMFILE && descriptor != -ENFILE)
			return descriptor;
		if (!node_descriptors_trim(nodes, 1))
			return -ENFILE;
	}
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

void node_descriptor_drop(struct nodes *nodes, struct node *node)
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
	pthread_mutex_unlock(&nodes->descriptor_lock);
	if (descriptor >= 0)
		close(descriptor);
}
