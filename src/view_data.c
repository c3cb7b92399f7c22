/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on data in a view. A file's bytes are pieces: of BACKING's file, of the heap, or zero.
 * A read is answered by one message made of all of them where they lie.
 *
 * A write goes into new slots of the heap, which are the file's when the rows that name them are
 * committed; the slots that were its before are given back then. Bytes of a block behind the end of
 * the file are zero.
 */
#include "view_ops.h"

#include "log.h"
#include "snapshot.h"
#include "watch.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

static const unsigned char zeros[1024 * 1024];

static struct chunk *chunk_find(const struct own *own, uint64_t number)
{
	struct chunk *chunk;

	HASH_FIND(hh, own->chunks, &number, sizeof(number), chunk);
	return chunk;
}

static uint64_t slot_of(const struct own *own, uint64_t block)
{
	const struct chunk *chunk = chunk_find(own, block / STORE_CHUNK);

	return chunk ? chunk->row.slots[block % STORE_CHUNK] : SLOT_BASE;
}

/* The next chunk with a row; UINT64_MAX: there is none. */
static uint64_t chunk_after(const struct own *own, uint64_t number)
{
	const struct chunk *chunk, *next;
	uint64_t found = UINT64_MAX;

	HASH_ITER (hh, own->chunks, chunk, next)
		if (chunk->number > number && chunk->number < found)
			found = chunk->number;
	return found;
}

/* Where what is under a state ends. */
static uint64_t base_end(const struct own *own)
{
	const struct object *object = &own->object;

	if (!object->has_base)
		return 0;
	return object->cut < object->base_size ? object->cut : object->base_size;
}

/* --- Pieces ----------------------------------------------------------------------------------- */

enum piece_kind { PIECE_BASE, PIECE_ZERO, PIECE_HEAP, PIECE_LOST };

struct piece {
	enum piece_kind kind;
	uint64_t length;
	uint64_t place;		 /* in the heap */
	const struct own *state; /* whose */
};

static enum piece_kind kind_of(uint64_t slot, uint64_t offset, uint64_t end_of_base)
{
	return slot >= SLOT_FIRST			   ? PIECE_HEAP
	       : slot == SLOT_LOST			   ? PIECE_LOST
	       : slot == SLOT_BASE && offset < end_of_base ? PIECE_BASE
							   : PIECE_ZERO;
}

/* What a block of a file is: the first state whose word counts says it. */
struct block {
	enum piece_kind kind;
	uint64_t slot;		 /* if it is in the heap */
	const struct own *state; /* whose */
};

static struct block block_of(struct node *node, uint64_t offset)
{
	struct block block = {.kind = PIECE_BASE};

	for (const struct own *state = view_state(node); state && block.kind == PIECE_BASE;
	     state = view_state_next(node, state)) {
		block.slot = slot_of(state, offset / STORE_BLOCK);
		block.kind = kind_of(block.slot, offset, base_end(state));
		block.state = state;
	}
	return block;
}

/* Up to where, from a block that is not in the heap on, all are as it is. */
static uint64_t run_end(struct node *node, uint64_t at, uint64_t end)
{
	const uint64_t number = at / STORE_BLOCK / STORE_CHUNK, length = STORE_CHUNK * STORE_BLOCK;
	const bool far = (end - at) / length > 64;

	for (const struct own *state = view_state(node); state;
	     state = view_state_next(node, state)) {
		const uint64_t limit = base_end(state);
		uint64_t next;

		if (chunk_find(state, number))
			return at + STORE_BLOCK;
		next = far ? chunk_after(state, number) : number + 1;
		if (next <= end / length)
			end = next * length;
		if (limit > at && limit < end)
			end = (limit + STORE_BLOCK - 1) / STORE_BLOCK * STORE_BLOCK;
	}
	return end > at ? end : at + STORE_BLOCK;
}

/* The piece at offset, up to end. own->data is held. */
static struct piece piece_at(struct node *node, uint64_t offset, uint64_t end)
{
	const struct block first = block_of(node, offset);
	struct piece piece = {.kind = first.kind, .state = first.state};
	uint64_t at = (offset / STORE_BLOCK + 1) * STORE_BLOCK, slot = first.slot;

	if (piece.kind == PIECE_HEAP)
		piece.place = slot * STORE_BLOCK + offset % STORE_BLOCK;
	for (const struct own *state = view_state(node); state && piece.kind == PIECE_BASE;
	     state = view_state_next(node, state))
		if (base_end(state) < end)
			end = base_end(state);
	while (at < end) {
		const struct block next = block_of(node, at);

		if (next.kind != piece.kind ||
		    (next.kind == PIECE_HEAP && (next.slot != ++slot || next.state != first.state)))
			break;
		at = next.kind == PIECE_HEAP ? at + STORE_BLOCK : run_end(node, at, end);
	}
	piece.length = (at < end ? at : end) - offset;
	return piece;
}

/* Reads bytes of BACKING's file; what it has not is an error. */
static int base_read(struct view *view, struct node *node, uint64_t offset, void *buffer,
		     size_t length)
{
	struct file *file;
	ssize_t count;
	int error = view_check_base(view, node);

	if (!error)
		error = file_get(&view->fs->files, view_base(node), FILE_READ, &file);
	if (error)
		return error;
	count = mmapio_read(file->mapped, offset, buffer, length);
	file_put(&view->fs->files, file);
	return count < 0 ? (int)count : (size_t)count < length ? -ESTALE : 0;
}

/* How much of the heap is looked at together: a call for each block takes longer than its checksum.
 */
#define WINDOW ((uint64_t)16)

/* Looks at the checksums of what lies around a slot. own->data is held. */
static void verify_around(struct view *view, const struct own *own, uint64_t slot)
{
	const uint64_t first = slot / WINDOW * WINDOW;
	unsigned char bytes[WINDOW * STORE_BLOCK];
	size_t low = 0, high = own->owners_count;
	ssize_t count;

	/* (Not by the mapping: each page of it that was not read yet would be a fault of its own.)
	 */
	count = pread(store_descriptor(view->store), bytes, sizeof(bytes),
		      (off_t)(first * STORE_BLOCK));
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (own->owners[middle].slot < first)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < own->owners_count && own->owners[low].slot < first + WINDOW; low++) {
		const struct slot_owner *owner = &own->owners[low];
		const uint64_t at = (owner->slot - first) * STORE_BLOCK;
		struct chunk *chunk = &own->loaded[owner->chunk];

		if (chunk->row.slots[owner->block] == owner->slot &&
		    count >= (ssize_t)(at + STORE_BLOCK) &&
		    store_sum(bytes + at) == chunk->row.sums[owner->block])
			chunk->verified |= UINT64_C(1) << owner->block;
	}
}

/* The checksum of a block that lies in the heap, once. own->data is held. */
static int verify_block(struct view *view, const struct own *own, uint64_t block)
{
	const struct chunk *chunk = chunk_find(own, block / STORE_CHUNK);
	uint64_t bit = UINT64_C(1) << block % STORE_CHUNK;

	if (!chunk || (chunk->verified & bit))
		return 0;
	verify_around(view, own, chunk->row.slots[block % STORE_CHUNK]);
	if (chunk->verified & bit)
		return 0;
	log_line(LOG_ERR, "store of the view: %s%s (object %jd): the block at %ju is damaged",
		 own->object.has_base ? "what was " : "a file",
		 own->object.has_base ? own->object.base_path : "", (intmax_t)own->object.id,
		 (uintmax_t)(block * STORE_BLOCK));
	return -EIO;
}

static int verify(struct view *view, const struct own *own, uint64_t offset, uint64_t length)
{
	int error = 0;

	for (uint64_t block = offset / STORE_BLOCK; block * STORE_BLOCK < offset + length && !error;
	     block++)
		error = verify_block(view, own, block);
	return error;
}

/* Copies bytes that the file has, or has not yet. own->data is held. */
static int own_read(struct view *view, struct node *node, uint64_t offset, void *buffer,
		    size_t length)
{
	char *to = buffer;

	while (length) {
		const struct piece piece = piece_at(node, offset, offset + length);
		size_t part = (size_t)piece.length;
		ssize_t count = 0;
		int error = 0;

		if (piece.kind == PIECE_ZERO)
			memset(to, 0, part);
		else if (piece.kind == PIECE_LOST)
			error = -EIO;
		else if (piece.kind == PIECE_BASE)
			error = base_read(view, node, offset, to, part);
		else
			error = verify(view, piece.state, offset, part);
		if (!error && piece.kind == PIECE_HEAP)
			count = mmapio_read(store_heap(view->store), piece.place, to, part);
		if (!error && piece.kind == PIECE_HEAP && count != (ssize_t)part)
			error = count < 0 ? (int)count : -EIO;
		if (error)
			return error;
		to += part;
		offset += part;
		length -= part;
	}
	return 0;
}

/* --- Reading ---------------------------------------------------------------------------------- */

void view_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	if (fs_of(req)->stateless) {
		reply_error(req, -ENOSYS); /* and is never asked again */
		return;
	}
	fi->keep_cache = fs_of(req)->keeps_cache;
	fuse_reply_open(req, fi);
}

#define PIECES_MAX 300

/* What a reply is made of, and what is held for it. */
struct reading {
	struct iovec iov[PIECES_MAX];
	int count;
	struct file *file;
	struct mmapio_slice base, heap;
	bool has_base, has_heap;
};

static void reading_end(struct fs *fs, struct reading *reading)
{
	if (reading->has_base)
		mmapio_slice_put(&reading->base);
	if (reading->has_heap)
		mmapio_slice_put(&reading->heap);
	if (reading->file)
		file_put(&fs->files, reading->file);
}

/* A slice of BACKING's file. 0, or negative errno. */
static int reading_base(struct view *view, struct node *node, uint64_t start, uint64_t end,
			struct reading *reading)
{
	int error = view_check_base(view, node);

	if (!error)
		error = file_get(&view->fs->files, view_base(node), FILE_READ, &reading->file);
	if (!error)
		error = mmapio_file_refresh(reading->file->mapped, NULL);
	if (!error)
		error = mmapio_slice_get(reading->file->mapped, start, (size_t)(end - start),
					 &reading->base);
	reading->has_base = !error;
	return error == -ERANGE ? -ESTALE : error;
}

/* Lays the pieces of [offset, end) side by side. 0; 1: they have to be copied; negative errno. */
static int reading_begin(struct view *view, struct node *node, uint64_t offset, uint64_t end,
			 struct reading *reading)
{
	uint64_t base_from = UINT64_MAX, base_to = 0, heap_from = UINT64_MAX, heap_to = 0;
	struct piece pieces[PIECES_MAX];
	uint64_t at = offset;
	int error = 0;

	for (; at < end; at += pieces[reading->count++].length) {
		struct piece *piece = &pieces[reading->count];

		if (reading->count == PIECES_MAX)
			return 1;
		*piece = piece_at(node, at, end);
		if (piece->kind == PIECE_ZERO && piece->length > sizeof(zeros))
			piece->length = sizeof(zeros);
		if (piece->kind == PIECE_LOST) /* which a line has said when it was mounted */
			return -EIO;
		if (piece->kind == PIECE_BASE) {
			base_from = at < base_from ? at : base_from;
			base_to = at + piece->length;
		} else if (piece->kind == PIECE_HEAP) {
			error = verify(view, piece->state, at, piece->length);
			if (error)
				return error;
			heap_from = piece->place < heap_from ? piece->place : heap_from;
			heap_to = piece->place + piece->length > heap_to
					  ? piece->place + piece->length
					  : heap_to;
		}
	}
	if (base_to)
		error = reading_base(view, node, base_from, base_to, reading);
	if (!error && heap_to) {
		error = mmapio_slice_get(store_heap(view->store), heap_from,
					 (size_t)(heap_to - heap_from), &reading->heap);
		reading->has_heap = !error;
		error = error == -ERANGE ? -EIO : error;
	}
	if (error)
		return error == -ENODEV || error == -ENOMEM ? 1 : error;
	at = offset;
	for (int i = 0; i < reading->count; at += pieces[i++].length) {
		const char *bytes = (const char *)zeros;

		if (pieces[i].kind == PIECE_BASE)
			bytes = (const char *)reading->base.data + (at - base_from);
		else if (pieces[i].kind == PIECE_HEAP)
			bytes = (const char *)reading->heap.data + (pieces[i].place - heap_from);
		reading->iov[i] = (struct iovec){(void *)bytes, (size_t)pieces[i].length};
	}
	return 0;
}

static void reply_copied(fuse_req_t req, struct node *node, uint64_t offset, size_t length)
{
	char *buffer = malloc(length + 1);
	int error = buffer ? own_read(view_of(req), node, offset, buffer, length) : -ENOMEM;

	if (error)
		reply_error(req, error);
	else
		fuse_reply_buf(req, buffer, length);
	free(buffer);
}

/* Whether the bytes are all BACKING's. */
static bool is_base_all(const struct own *own)
{
	return !own || (own->object.has_base && !own->object.has_blocks &&
			own->object.cut == NOT_CUT && own->object.size == own->object.base_size);
}

/* A node whose bytes are read: nothing of it changes meanwhile. */
static void data_hold(struct view *view, struct node *node, struct own *own)
{
	if (own)
		pthread_rwlock_rdlock(&own->data);
	if (node_is_of_view(node) && view_base(node))
		snapshot_hold(view, view_base(node));
}

static void data_release(struct view *view, struct node *node, struct own *own)
{
	if (node_is_of_view(node) && view_base(node))
		snapshot_release(view, view_base(node));
	if (own)
		pthread_rwlock_unlock(&own->data);
}

/* How long it is; while it is held. 0 or negative errno. */
static int data_size(struct view *view, struct node *node, uint64_t *size)
{
	const struct own *state = view_state(node);
	struct stat st;
	int error = state ? 0 : file_stat(&view->fs->files, view_base(node), &st);

	if (!error)
		*size = state ? state->object.size : (uint64_t)st.st_size;
	return error;
}

static void reply_read(fuse_req_t req, struct node *node, uint64_t offset, size_t size)
{
	struct view *view = view_of(req);
	struct reading *reading = malloc(sizeof(*reading));
	uint64_t end;
	int error = reading ? data_size(view, node, &end) : -ENOMEM;

	if (!error && offset + size < end)
		end = offset + size;
	if (error) {
		reply_error(req, error);
	} else if (offset >= end) {
		fuse_reply_buf(req, NULL, 0);
	} else {
		reading->count = 0;
		reading->file = NULL;
		reading->has_base = reading->has_heap = false;
		error = reading_begin(view, node, offset, end, reading);
		if (error == 1)
			reply_copied(req, node, offset, (size_t)(end - offset));
		else if (error)
			reply_error(req, error);
		else
			fuse_reply_iov(req, reading->iov, reading->count);
		reading_end(view->fs, reading);
	}
	free(reading);
}

void view_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		  struct fuse_file_info *fi)
{
	struct view *view = view_of(req);
	struct node *node;
	struct own *own;
	int error = view_node(view, ino, &node);

	if (error) {
		reply_error(req, error);
		return;
	}
	own = node->own;
	data_hold(view, node, own);
	if (!node_is_of_view(node) && is_base_all(own)) {
		data_release(view, node, own);
		error = own ? view_check_base(view, node) : 0;
		if (error)
			reply_error(req, error);
		else
			op_read(req, ino, size, offset, fi);
	} else {
		if (fi->lock_owner == 0)
			node->has_pages = true;
		reply_read(req, node, (uint64_t)offset, size);
		data_release(view, node, own);
	}
	node_put(&view->fs->nodes, node);
}

/* --- Changing --------------------------------------------------------------------------------- */

/* Rows of chunks that a change touches, as they will be. */
struct chunks_after {
	struct chunk *chunks;
};

static struct chunk *after_get(struct chunks_after *after, struct own *own, uint64_t number)
{
	struct chunk *chunk, *before;

	HASH_FIND(hh, after->chunks, &number, sizeof(number), chunk);
	if (chunk)
		return chunk;
	chunk = calloc(1, sizeof(*chunk));
	if (!chunk)
		return NULL;
	before = chunk_find(own, number);
	if (before) {
		chunk->row = before->row;
		chunk->verified = before->verified;
	}
	chunk->number = number;
	HASH_ADD(hh, after->chunks, number, sizeof(number), chunk);
	if (!chunk->hh.tbl) {
		free(chunk);
		return NULL;
	}
	return chunk;
}

/* sum: of a block in the heap that has just been written. */
static int after_set(struct chunks_after *after, struct own *own, uint64_t block, uint64_t slot,
		     uint32_t sum)
{
	struct chunk *chunk = after_get(after, own, block / STORE_CHUNK);

	if (!chunk)
		return -ENOMEM;
	chunk->row.slots[block % STORE_CHUNK] = slot;
	chunk->row.sums[block % STORE_CHUNK] = sum;
	chunk->verified |= UINT64_C(1) << block % STORE_CHUNK;
	return 0;
}

static void after_free(struct chunks_after *after)
{
	struct chunk *chunk, *next;

	HASH_ITER (hh, after->chunks, chunk, next) {
		HASH_DEL(after->chunks, chunk);
		free(chunk);
	}
}

/* The blocks that a change is the first one of since the last sync, a bit for each. */
static uint64_t undo_needed(const struct view *view, const struct chunk *after,
			    const struct chunk *before)
{
	uint64_t needed = 0;

	for (unsigned int i = 0; i < STORE_CHUNK; i++)
		if (after->row.slots[i] != (before ? before->row.slots[i] : SLOT_BASE))
			needed |= UINT64_C(1) << i;
	return before && before->undo == store_synced(view->store) ? needed & ~before->undo_kept
								   : needed;
}

static void undo_done(const struct view *view, const struct chunk *after, struct chunk *before)
{
	const uint64_t needed = undo_needed(view, after, before);

	if (before->undo != store_synced(view->store))
		before->undo_kept = 0;
	before->undo_kept |= needed;
	before->undo = store_synced(view->store);
}

/* Writes the rows, and what the object will be; commits, and then it is so. own->data and
 * view->lock are held. error: what has gone wrong before. */
static int data_end(struct view *view, struct own *own, struct chunks_after *after,
		    struct object *object, uint64_t bytes, int error)
{
	struct chunk *chunk, *next, *before;

	/* What a committed chunk needs in memory it has before. */
	HASH_ITER (hh, after->chunks, chunk, next) {
		object->has_blocks = true;
		before = chunk_find(own, chunk->number);
		if (!error)
			error = store_undo_add(
				view->store, object->id, chunk->number,
				undo_needed(view, chunk, before), before ? &before->row : NULL,
				object->size < own->object.size ? object->size : own->object.size);
		if (!error)
			error = store_chunk_set(view->store, object->id, chunk->number,
						&chunk->row);
		if (!error && !before) {
			struct chunk *empty = calloc(1, sizeof(*empty));

			if (empty) {
				empty->number = chunk->number;
				HASH_ADD(hh, own->chunks, number, sizeof(empty->number), empty);
			}
			if (empty && !empty->hh.tbl) {
				free(empty);
				empty = NULL;
			}
			if (!empty)
				error = -ENOMEM;
		}
	}
	if (!error)
		error = store_object_set(view->store, object);
	error = view_end(view, error);
	if (!error) {
		HASH_ITER (hh, after->chunks, chunk, next) {
			before = chunk_find(own, chunk->number);
			for (int i = 0; i < STORE_CHUNK; i++) {
				own->block_count += chunk->row.slots[i] >= SLOT_FIRST;
				own->block_count -= before->row.slots[i] >= SLOT_FIRST;
			}
			undo_done(view, chunk, before);
			before->row = chunk->row;
			before->verified = chunk->verified;
		}
		own_adopt(own, object);
		own->object.size = object->size;
		own->object.cut = object->cut;
		own->object.has_blocks = object->has_blocks;
		own->object.lost_blocks = object->lost_blocks;
		error = view_changed(view, bytes);
	}
	after_free(after);
	return error;
}

static int heap_write(struct view *view, uint64_t place, const void *bytes, size_t length)
{
	ssize_t count = mmapio_write(store_heap(view->store), place, bytes, length);

	return count < 0 ? (int)count : (size_t)count < length ? -ENOSPC : 0;
}

/* Slots that are given back, together where they lie side by side. */
struct giving {
	uint64_t slot, count;
};

static int giving_end(struct view *view, struct giving *giving)
{
	int error = giving->count ? store_slots_give(view->store, giving->slot, giving->count) : 0;

	giving->count = 0;
	return error;
}

static int giving_add(struct view *view, struct giving *giving, uint64_t slot)
{
	int error = 0;

	if (giving->count && giving->slot + giving->count != slot)
		error = giving_end(view, giving);
	if (giving->count == 0)
		giving->slot = slot;
	giving->count++;
	return error;
}

/* What a block becomes by a write; whole if it is in all of it. */
static int write_edge(struct view *view, struct node *node, uint64_t at, uint64_t offset,
		      const char *bytes, size_t length, char *edge)
{
	const struct own *own = node->own;
	uint64_t from = at < offset ? offset - at : 0, to = offset + length - at, kept;
	int error = own_read(view, node, at, edge, STORE_BLOCK);

	if (error)
		return error;
	/* Behind the end of the file all is zero, whatever BACKING has there. */
	kept = own->object.size > at ? own->object.size - at : 0;
	if (kept < STORE_BLOCK)
		memset(edge + kept, 0, STORE_BLOCK - kept);
	to = to < STORE_BLOCK ? to : STORE_BLOCK;
	memcpy(edge + from, bytes + (at + from - offset), (size_t)(to - from));
	return 0;
}

/*
 * Writes bytes into new slots, and gives back those that they take the place of. Within a
 * transaction; own->data and view->lock are held.
 */
static int write_slots(struct view *view, struct node *node, struct chunks_after *after,
		       uint64_t offset, const char *bytes, size_t length)
{
	struct own *own = node->own;
	uint64_t block = offset / STORE_BLOCK, end = offset + length, slot = 0, count = 0, part;
	struct giving giving = {0, 0};
	char edge[STORE_BLOCK];
	int error = 0;

	for (; block * STORE_BLOCK < end && !error; block += part, slot += part, count -= part) {
		const uint64_t at = block * STORE_BLOCK;
		const char *from = edge;

		if (count == 0) {
			count = (end - at + STORE_BLOCK - 1) / STORE_BLOCK;
			error = store_slots_take(view->store, &slot, &count);
			if (error)
				break;
		}
		if (at < offset || at + STORE_BLOCK > end) {
			part = 1;
			error = write_edge(view, node, at, offset, bytes, length, edge);
		} else {
			part = (end - at) / STORE_BLOCK;
			part = part < count ? part : count;
			from = bytes + (at - offset);
		}
		if (!error)
			error = heap_write(view, slot * STORE_BLOCK, from,
					   (size_t)part * STORE_BLOCK);
		for (uint64_t i = 0; i < part && !error; i++) {
			uint64_t before = slot_of(own, block + i);

			error = after_set(after, own, block + i, slot + i,
					  store_sum(from + i * STORE_BLOCK));
			if (!error && before >= SLOT_FIRST)
				error = giving_add(view, &giving, before);
		}
	}
	return error ? error : giving_end(view, &giving);
}

bool own_has_block(const struct own *own, uint64_t block)
{
	return slot_of(own, block) != SLOT_BASE || block * STORE_BLOCK >= base_end(own);
}

int own_keep_locked(struct view *view, struct own *own, uint64_t block, const char *bytes,
		    uint64_t count)
{
	struct chunks_after after = {NULL};
	struct object object = own->object;
	uint64_t slot = 0, taken = 0;
	int error = store_begin(view->store);

	if (error)
		return error;
	object.lost_blocks = object.lost_blocks || !bytes;
	for (uint64_t i = 0; i < count && !error; i++) {
		const char *from = bytes + i * STORE_BLOCK;

		if (!bytes) {
			error = after_set(&after, own, block + i, SLOT_LOST, 0);
			continue;
		}
		if (memcmp(from, zeros, STORE_BLOCK) == 0) {
			error = after_set(&after, own, block + i, SLOT_ZERO, 0);
			continue;
		}
		if (!taken) {
			taken = count - i;
			error = store_slots_take(view->store, &slot, &taken);
		}
		if (!error)
			error = heap_write(view, slot * STORE_BLOCK, from, STORE_BLOCK);
		if (!error)
			error = after_set(&after, own, block + i, slot, store_sum(from));
		slot++;
		taken--;
	}
	if (!error && taken) /* for what was zero */
		error = store_slots_give(view->store, slot, taken);
	return data_end(view, own, &after, &object, count * STORE_BLOCK, error);
}

int own_cut_locked(struct view *view, struct own *own, uint64_t size)
{
	struct chunks_after none = {NULL};
	struct object object = own->object;
	int error;

	if (size >= object.cut)
		return 0;
	object.cut = size;
	error = store_begin(view->store);
	return error ? error : data_end(view, own, &none, &object, 0, 0);
}

static int write_once(struct view *view, struct node *node, uint64_t offset, const char *bytes,
		      size_t length)
{
	struct own *own = node->own;
	struct chunks_after after = {NULL};
	struct object object;
	int error = own->removed ? -ESTALE : store_begin(view->store);

	if (error)
		return error;
	error = write_slots(view, node, &after, offset, bytes, length);
	object = own->object;
	object.mtime = object.ctime = view_now();
	if (offset + length > object.size)
		object.size = offset + length;
	return data_end(view, own, &after, &object, length, error);
}

/* own->data is held. */
static int write_locked(struct view *view, struct node *node, uint64_t offset, const char *bytes,
			size_t length)
{
	int error;

	pthread_mutex_lock(&view->lock);
	error = write_once(view, node, offset, bytes, length);
	if (error == -ENOSPC && view_makes_room_locked(view))
		error = write_once(view, node, offset, bytes, length);
	pthread_mutex_unlock(&view->lock);
	return error;
}

ssize_t view_write_bytes(struct view *view, struct node *node, uint64_t offset, const void *bytes,
			 size_t length)
{
	struct own *own;
	int error;

	if (length && offset >= STORE_FILE_MAX)
		return -EFBIG;
	if (length > STORE_FILE_MAX - offset)
		length = STORE_FILE_MAX - offset;
	error = view_own(view, node);
	if (error || length == 0)
		return error;
	own = node->own;
	pthread_rwlock_wrlock(&own->data);
	error = write_locked(view, node, offset, bytes, length);
	pthread_rwlock_unlock(&own->data);
	return error ? error : (ssize_t)length;
}

/* Frees the blocks from first on. Within a transaction. */
static int cut_blocks(struct view *view, struct own *own, struct chunks_after *after,
		      uint64_t first)
{
	struct chunk *chunk, *next, *changed;
	struct giving giving = {0, 0};
	int error = 0;

	HASH_ITER (hh, own->chunks, chunk, next) {
		for (uint64_t i = 0; i < STORE_CHUNK && !error; i++) {
			if (chunk->number * STORE_CHUNK + i < first ||
			    chunk->row.slots[i] == SLOT_BASE)
				continue;
			changed = after_get(after, own, chunk->number);
			if (!changed)
				return -ENOMEM;
			changed->row.slots[i] = SLOT_BASE;
			changed->row.sums[i] = 0;
			if (chunk->row.slots[i] >= SLOT_FIRST)
				error = giving_add(view, &giving, chunk->row.slots[i]);
		}
	}
	return error ? error : giving_end(view, &giving);
}

/* The block that the new end lies in: zero behind it. Within a transaction. */
static int cut_within(struct view *view, struct node *node, struct chunks_after *after,
		      uint64_t size)
{
	uint64_t block = size / STORE_BLOCK;
	size_t within = size % STORE_BLOCK;

	if (!within || slot_of(node->own, block) < SLOT_FIRST)
		return 0;
	return write_slots(view, node, after, size, (const char *)zeros, STORE_BLOCK - within);
}

/* own->data is held. */
static int set_size_locked(struct view *view, struct node *node, uint64_t size)
{
	struct chunks_after after = {NULL};
	struct own *own = node->own;
	struct object object;
	int error;

	pthread_mutex_lock(&view->lock);
	error = own->removed ? -ESTALE : store_begin(view->store);
	if (!error) {
		object = own->object;
		object.mtime = object.ctime = view_now();
		if (size < object.size) {
			if (size < object.cut)
				object.cut = size;
			if (object.has_blocks)
				error = store_undo_cut(view->store, object.id, size);
			if (!error)
				error = cut_blocks(view, own, &after,
						   (size + STORE_BLOCK - 1) / STORE_BLOCK);
			if (!error)
				error = cut_within(view, node, &after, size);
		}
		object.size = size;
		error = data_end(view, own, &after, &object, 0, error);
	}
	pthread_mutex_unlock(&view->lock);
	return error;
}

int view_set_size(struct view *view, struct node *node, uint64_t size)
{
	struct own *own;
	int error;

	if (size > STORE_FILE_MAX)
		return -EFBIG;
	error = view_own(view, node);
	if (error)
		return error;
	own = node->own;
	pthread_rwlock_wrlock(&own->data);
	error = set_size_locked(view, node, size);
	pthread_rwlock_unlock(&own->data);
	return error;
}

void view_op_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
		   struct fuse_file_info *fi)
{
	struct view *view = view_of(req);
	bool direct = fi->lock_owner != 0; /* see ops_data.c */
	struct node *node;
	ssize_t count = view_node(view, ino, &node);
	int dropped;

	if (count) {
		reply_error(req, (int)count);
		return;
	}
	dropped = direct ? view_drop_privileges(req, node) : 0;
	count = dropped < 0 ? dropped : view_write_bytes(view, node, (uint64_t)offset, bytes, size);
	if (!direct)
		node->has_pages = true;
	else if (node->has_pages && count > 0)
		watch_changed(view->fs->watch, node, false);
	if (count < 0)
		reply_error(req, (int)count);
	else if (direct)
		reply_written(req, node, (size_t)count);
	else
		fuse_reply_write(req, (size_t)count);
	mode_changed(view->fs, ino, dropped);
	node_put(&view->fs->nodes, node);
}

void view_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	reply_error(req, view_sync(view_of(req)));
}

/*
 * Makes whole blocks zero. own->data and view->lock are held; within a transaction. What reaches
 * the end of what BACKING has is cut off from it.
 */
static int zero_blocks(struct view *view, struct own *own, struct chunks_after *after,
		       struct object *object, uint64_t first, uint64_t last)
{
	uint64_t limit = base_end(own);
	struct giving giving = {0, 0};
	int error = 0;

	if (first * STORE_BLOCK < limit && last * STORE_BLOCK >= limit)
		object->cut = limit = first * STORE_BLOCK;
	for (uint64_t block = first; block < last && !error; block++) {
		uint64_t slot = slot_of(own, block), next;
		uint64_t wanted = block * STORE_BLOCK < limit ? SLOT_ZERO : SLOT_BASE;

		if (slot == wanted) {
			if (wanted == SLOT_BASE && !chunk_find(own, block / STORE_CHUNK)) {
				next = chunk_after(own, block / STORE_CHUNK);
				if (next > last / STORE_CHUNK)
					break;
				block = next * STORE_CHUNK - 1;
			}
			continue;
		}
		error = after_set(after, own, block, wanted, 0);
		if (!error && slot >= SLOT_FIRST)
			error = giving_add(view, &giving, slot);
	}
	return error ? error : giving_end(view, &giving);
}

/* Of one transaction. */
#define PART_BLOCKS ((uint64_t)16 * 1024 * 1024 / STORE_BLOCK)

/* A hole, within the file. own->data is held. */
static int punch_locked(struct view *view, struct node *node, uint64_t offset, uint64_t end)
{
	struct own *own = node->own;
	uint64_t first = (offset + STORE_BLOCK - 1) / STORE_BLOCK, last = end / STORE_BLOCK, part;
	struct chunks_after after;
	struct object object;
	int error = 0;

	if (end == own->object.size) /* behind the end all is zero */
		last = (end + STORE_BLOCK - 1) / STORE_BLOCK;
	if (first > last)
		return write_locked(view, node, offset, (const char *)zeros,
				    (size_t)(end - offset));
	if (offset < first * STORE_BLOCK && offset < end) {
		uint64_t to = first * STORE_BLOCK < end ? first * STORE_BLOCK : end;

		error = write_locked(view, node, offset, (const char *)zeros,
				     (size_t)(to - offset));
	}
	if (!error && last * STORE_BLOCK < end)
		error = write_locked(view, node, last * STORE_BLOCK, (const char *)zeros,
				     (size_t)(end - last * STORE_BLOCK));
	for (; first < last && !error; first = part) {
		/* Of what BACKING has, each block has a mark. */
		part = first * STORE_BLOCK < base_end(own) && last * STORE_BLOCK < base_end(own) &&
				       last - first > PART_BLOCKS
			       ? first + PART_BLOCKS
			       : last;
		pthread_mutex_lock(&view->lock);
		error = own->removed ? -ESTALE : store_begin(view->store);
		if (!error) {
			after.chunks = NULL;
			object = own->object;
			object.mtime = object.ctime = view_now();
			error = zero_blocks(view, own, &after, &object, first, part);
			error = data_end(view, own, &after, &object, 0, error);
		}
		pthread_mutex_unlock(&view->lock);
	}
	return error;
}

/* What of the range is a hole, in bytes. own->data is held. */
static uint64_t holes_in(struct node *node, uint64_t offset, uint64_t end)
{
	uint64_t sum = 0;

	while (offset < end) {
		const struct piece piece = piece_at(node, offset, end);

		if (piece.kind == PIECE_ZERO)
			sum += piece.length;
		offset += piece.length;
	}
	return sum;
}

/* What the store has room for, in bytes; as far as that can be known. */
static uint64_t room_locked(struct view *view)
{
	uint64_t used, limit;
	struct statvfs st;

	store_room(view->store, &used, &limit);
	if (limit != UINT64_MAX)
		return used < limit ? limit - used : 0;
	return fstatvfs(store_descriptor(view->store), &st) ? UINT64_MAX
							    : st.f_bavail * st.f_frsize;
}

/* Zeros for the holes of a range, in slots of their own. own->data and view->lock are held. */
static int reserve_part(struct view *view, struct node *node, uint64_t first, uint64_t last)
{
	struct own *own = node->own;
	struct chunks_after after = {NULL};
	struct object object = own->object;
	const uint32_t sum = store_sum(zeros);
	int error = own->removed ? -ESTALE : store_begin(view->store);

	if (error)
		return error;
	for (uint64_t block = first; block < last && !error; block++) {
		uint64_t slot, run = block + 1, count;

		if (block_of(node, block * STORE_BLOCK).kind != PIECE_ZERO)
			continue;
		while (run < last && run - block < sizeof(zeros) / STORE_BLOCK &&
		       block_of(node, run * STORE_BLOCK).kind == PIECE_ZERO)
			run++;
		count = run - block;
		error = store_slots_take(view->store, &slot, &count);
		for (uint64_t i = 0; i < count && !error; i++)
			error = after_set(&after, own, block + i, slot + i, sum);
		if (!error)
			error = heap_write(view, slot * STORE_BLOCK, zeros,
					   (size_t)count * STORE_BLOCK);
		block += count - 1;
	}
	object.mtime = object.ctime = view_now();
	return data_end(view, own, &after, &object, 0, error);
}

/* Room for what is a hole. BACKING's blocks have theirs. own->data is held. */
static int reserve_locked(struct view *view, struct node *node, uint64_t offset, uint64_t end)
{
	uint64_t first = offset / STORE_BLOCK, last = (end + STORE_BLOCK - 1) / STORE_BLOCK, part;
	const uint64_t wanted = holes_in(node, first * STORE_BLOCK, last * STORE_BLOCK);
	int error = 0;

	pthread_mutex_lock(&view->lock);
	/* What cannot be had is not begun. */
	if (wanted > room_locked(view) &&
	    !(view_makes_room_locked(view) && wanted <= room_locked(view)))
		error = -ENOSPC;
	for (; first < last && !error; first = part) {
		part = last - first > PART_BLOCKS ? first + PART_BLOCKS : last;
		error = reserve_part(view, node, first, part);
		pthread_mutex_unlock(&view->lock); /* others have their turn */
		pthread_mutex_lock(&view->lock);
	}
	pthread_mutex_unlock(&view->lock);
	return error;
}

static int allocate(struct view *view, struct node *node, int mode, uint64_t offset,
		    uint64_t length)
{
	const int known = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
	const bool zero = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
	uint64_t end = offset + length, zero_end;
	struct own *own;
	int error;

	if (mode & ~known)
		return -EOPNOTSUPP;
	if (length > STORE_FILE_MAX || offset > STORE_FILE_MAX - length)
		return -EFBIG;
	error = view_own(view, node);
	if (error)
		return error;
	own = node->own;
	pthread_rwlock_wrlock(&own->data);
	if (!zero)
		error = reserve_locked(view, node, offset, end);
	if (!error && !(mode & FALLOC_FL_KEEP_SIZE) && end > own->object.size)
		error = set_size_locked(view, node, end);
	if (!error && zero && offset >= own->object.size) {
		error = set_size_locked(view, node, own->object.size); /* its times move */
	} else if (!error && zero) {
		zero_end = end < own->object.size ? end : own->object.size;
		error = punch_locked(view, node, offset, zero_end);
	}
	pthread_rwlock_unlock(&own->data);
	return error;
}

void view_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
		       struct fuse_file_info *fi)
{
	struct view *view = view_of(req);
	struct node *node;
	int dropped = 0, error = view_node(view, ino, &node);

	(void)fi;
	if (!error) {
		/* The kernel has been here, but leaves set-gid of foreign groups. */
		dropped = view_drop_privileges(req, node);
		error = dropped < 0
				? dropped
				: allocate(view, node, mode, (uint64_t)offset, (uint64_t)length);
		node_put(&view->fs->nodes, node);
	}
	reply_error(req, error);
	mode_changed(view->fs, ino, dropped);
}

/* The first offset from here on that is, or is not, a hole. The node is held. */
static off_t seek_held(struct view *view, struct node *node, uint64_t offset, bool hole)
{
	uint64_t size = 0;
	struct file *file;
	off_t found;
	int error = data_size(view, node, &size);

	if (error || offset >= size)
		return error ? error : -ENXIO;
	while (offset < size) {
		const struct piece piece = piece_at(node, offset, size);

		if (piece.kind == (hole ? PIECE_ZERO : PIECE_HEAP) ||
		    (!hole && piece.kind == PIECE_LOST))
			return (off_t)offset;
		if (piece.kind == PIECE_BASE) {
			error = view_check_base(view, node);
			if (!error)
				error = file_get(&view->fs->files, view_base(node), FILE_READ,
						 &file);
			if (error)
				return error;
			found = lseek(mmapio_file_descriptor(file->mapped), (off_t)offset,
				      hole ? SEEK_HOLE : SEEK_DATA);
			file_put(&view->fs->files, file);
			if (found >= 0 && (uint64_t)found < offset + piece.length)
				return found;
		}
		offset += piece.length;
	}
	return hole ? (off_t)size : -ENXIO;
}

void view_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
		   struct fuse_file_info *fi)
{
	struct view *view = view_of(req);
	struct node *node;
	struct own *own;
	off_t found = view_node(view, ino, &node);

	if (found) {
		reply_error(req, (int)found);
		return;
	}
	own = node->own;
	if (!own && !node_is_of_view(node)) {
		op_lseek(req, ino, offset, whence, fi);
	} else if (whence != SEEK_DATA && whence != SEEK_HOLE) {
		reply_error(req, -EINVAL);
	} else {
		data_hold(view, node, own);
		found = seek_held(view, node, (uint64_t)offset, whence == SEEK_HOLE);
		data_release(view, node, own);
		if (found < 0)
			reply_error(req, (int)found);
		else
			fuse_reply_lseek(req, found);
	}
	node_put(&view->fs->nodes, node);
}

/* Reads what a file has of a range: a count, or negative errno. */
static ssize_t view_read_bytes(struct view *view, struct node *node, uint64_t offset, void *buffer,
			       size_t length)
{
	struct own *own = node->own;
	struct file *file;
	uint64_t size;
	ssize_t count;

	if (!own && !node_is_of_view(node)) {
		count = file_get(&view->fs->files, node, FILE_READ, &file);
		if (count)
			return count;
		count = mmapio_file_refresh(file->mapped, NULL);
		if (!count)
			count = mmapio_read(file->mapped, offset, buffer, length);
		file_put(&view->fs->files, file);
		return count;
	}
	data_hold(view, node, own);
	count = data_size(view, node, &size);
	if (!count && offset >= size)
		length = 0;
	else if (!count && length > size - offset)
		length = (size_t)(size - offset);
	if (!count)
		count = own_read(view, node, offset, buffer, length);
	data_release(view, node, own);
	return count ? count : (ssize_t)length;
}

#define COPY_PART ((size_t)1024 * 1024)

static ssize_t copy(struct view *view, struct node *in, uint64_t offset_in, struct node *out,
		    uint64_t offset_out, size_t length)
{
	char *buffer = malloc(COPY_PART);
	ssize_t done = 0, count = 1;

	if (!buffer)
		return -ENOMEM;
	while (length && count > 0) {
		count = view_read_bytes(view, in, offset_in + (uint64_t)done, buffer,
					length < COPY_PART ? length : COPY_PART);
		if (count > 0)
			count = view_write_bytes(view, out, offset_out + (uint64_t)done, buffer,
						 (size_t)count);
		if (count > 0) {
			done += count;
			length -= (size_t)count;
		}
	}
	free(buffer);
	return done ? done : count;
}

void view_op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in,
			     struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t offset_out,
			     struct fuse_file_info *fi_out, size_t length, int flags)
{
	struct view *view = view_of(req);
	struct node *in = NULL, *out = NULL;
	ssize_t count = flags ? -EINVAL : view_node(view, ino_in, &in);

	(void)fi_in;
	(void)fi_out;
	if (!count)
		count = view_node(view, ino_out, &out);
	if (!count) /* (the kernel looks after ranges that overlap) */
		count = copy(view, in, (uint64_t)offset_in, out, (uint64_t)offset_out, length);
	if (count < 0)
		reply_error(req, (int)count);
	else
		fuse_reply_write(req, (size_t)count);
	node_put(&view->fs->nodes, out);
	node_put(&view->fs->nodes, in);
}
