/* SPDX-License-Identifier: Apache-2.0 */
/* Open folders (folder.h). */
#include "folder.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

void folders_init(struct folders *folders)
{
	*folders = (struct folders){0};
	pthread_mutex_init(&folders->lock, NULL);
}

void folders_free(struct folders *folders)
{
	struct folder *folder, *next;

	/* What the kernel had open at the unmount. */
	for (folder = folders->by_id; folder; folder = next) {
		next = folder->by_id.next;
		HASH_DELETE(by_id, folders->by_id, folder);
		folder_free(folder);
	}
	pthread_mutex_destroy(&folders->lock);
}

struct folder *folder_new(int descriptor)
{
	struct folder *folder = malloc(sizeof(*folder));

	if (!folder)
		return NULL;
	folder->descriptor = descriptor;
	folder->next = 0;
	folder->position = folder->filled = 0;
	pthread_mutex_init(&folder->lock, NULL);
	return folder;
}

void folder_free(struct folder *folder)
{
	close(folder->descriptor);
	pthread_mutex_destroy(&folder->lock);
	free(folder);
}

bool folder_register(struct folders *folders, struct folder *folder)
{
	bool done;

	pthread_mutex_lock(&folders->lock);
	folder->id = ++folders->last_id;
	HASH_ADD(by_id, folders->by_id, id, sizeof(folder->id), folder);
	done = folder->by_id.tbl != NULL;
	pthread_mutex_unlock(&folders->lock);
	return done;
}

struct folder *folder_find(struct folders *folders, uint64_t id)
{
	struct folder *folder;

	pthread_mutex_lock(&folders->lock);
	HASH_FIND(by_id, folders->by_id, &id, sizeof(id), folder);
	pthread_mutex_unlock(&folders->lock);
	return folder;
}

struct folder *folder_unregister(struct folders *folders, uint64_t id)
{
	struct folder *folder;

	pthread_mutex_lock(&folders->lock);
	HASH_FIND(by_id, folders->by_id, &id, sizeof(id), folder);
	if (folder)
		HASH_DELETE(by_id, folders->by_id, folder);
	pthread_mutex_unlock(&folders->lock);
	return folder;
}

int folder_seek_locked(struct folder *folder, off_t offset)
{
	if (offset == folder->next && offset != 0)
		return 0;
	if (lseek(folder->descriptor, offset, SEEK_SET) < 0)
		return -errno;
	folder->next = offset;
	folder->position = folder->filled = 0;
	return 0;
}

int folder_peek_locked(struct folder *folder, const struct dirent64 **entry)
{
	if (folder->position == folder->filled) {
		ssize_t count =
			getdents64(folder->descriptor, folder->buffer, sizeof(folder->buffer));

		if (count < 0)
			return -errno;
		if (count == 0)
			return 0;
		folder->position = 0;
		folder->filled = (size_t)count;
	}
	*entry = (const struct dirent64 *)(folder->buffer + folder->position);
	return 1;
}

void folder_advance_locked(struct folder *folder)
{
	const struct dirent64 *entry = (const struct dirent64 *)(folder->buffer + folder->position);

	folder->position += entry->d_reclen;
	folder->next = entry->d_off;
}
