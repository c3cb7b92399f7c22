/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a store does after a power cut (store_rows.h). Rows that were not synced may be on the disk
 * while the blocks that they name are not. The rows of "undo" say what a chunk was when all was
 * synced: its slots are not used again before the next sync, so what they hold is there. Of a state
 * that the live tree had, what is not there is lost, for the live tree may be another one by now.
 * So is what was about to be kept, as the rows of "hot" say, and was not.
 */
#include "store_rows.h"

#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is lost of what was changed of a chunk by one transaction. */
struct lost {
	uint64_t number, size;
	struct store_chunk before;
	uint64_t slots[STORE_CHUNK]; /* where the blocks should be */
	uint64_t blocks;	     /* a bit for each */
};

struct losses {
	sqlite3 *rows;
	struct mmapio_file *heap;
	int64_t object;
	bool is_past; /* a state of the live tree */
	struct lost *chunk;
	size_t count, room;
	uint64_t end; /* what is behind it has never been synced, and not all of it is there */
};

/* Runs a statement that returns no row; what it has no place for is not bound. 0 or negative errno.
 */
static int run(sqlite3 *rows, const char *text, int64_t first, int64_t second,
	       const struct store_chunk *chunk)
{
	unsigned char packed[CHUNK_PACKED];
	sqlite3_stmt *statement = NULL;
	int result = sqlite3_prepare_v2(rows, text, -1, &statement, NULL);

	if (result == SQLITE_OK) {
		const int count = sqlite3_bind_parameter_count(statement);

		if (count >= 1)
			sqlite3_bind_int64(statement, 1, first);
		if (count >= 2)
			sqlite3_bind_int64(statement, 2, second);
		if (count >= 3)
			sqlite3_bind_blob(statement, 3, packed,
					  chunk_pack(chunk, UINT64_MAX, packed), SQLITE_STATIC);
		result = sqlite3_step(statement);
	}
	sqlite3_finalize(statement);
	return result == SQLITE_DONE ? 0 : -EIO;
}

static bool block_read(struct mmapio_file *heap, uint64_t slot, uint32_t sum, void *block)
{
	return mmapio_read(heap, slot * STORE_BLOCK, block, STORE_BLOCK) == (ssize_t)STORE_BLOCK &&
	       store_sum(block) == sum;
}

/* --- Finding ---------------------------------------------------------------------------------- */

static int losses_add(struct losses *losses, const struct lost *lost)
{
	if (losses->count == losses->room) {
		size_t room = losses->room ? 2 * losses->room : 16;
		struct lost *longer = realloc(losses->chunk, room * sizeof(*longer));

		if (!longer)
			return -ENOMEM;
		losses->chunk = longer;
		losses->room = room;
	}
	losses->chunk[losses->count++] = *lost;
	return 0;
}

/* Looks at what a transaction wrote of a chunk, which is now another one. */
static int chunk_look(struct losses *losses, struct lost *lost, const struct store_chunk *now)
{
	const uint64_t changed = lost->blocks;
	unsigned char block[STORE_BLOCK];

	lost->blocks = 0;
	for (unsigned int i = 0; i < STORE_CHUNK; i++) {
		uint64_t at = (lost->number * STORE_CHUNK + i) * STORE_BLOCK;

		if (!(changed >> i & 1) || now->slots[i] < SLOT_FIRST ||
		    now->slots[i] == lost->before.slots[i] ||
		    block_read(losses->heap, now->slots[i], now->sums[i], block))
			continue;
		lost->blocks |= UINT64_C(1) << i;
		lost->slots[i] = now->slots[i];
		if (at + STORE_BLOCK > lost->size && !losses->is_past) {
			uint64_t end = at > lost->size ? at : lost->size;

			losses->end = end < losses->end ? end : losses->end;
		}
	}
	return lost->blocks ? losses_add(losses, lost) : 0;
}

/* --- Taking back ------------------------------------------------------------------------------ */

static int slot_give(sqlite3 *rows, uint64_t slot, uint64_t count)
{
	return count == 0
		       ? 0
		       : run(rows, "INSERT OR REPLACE INTO free VALUES (?1, ?2, row_sum(?1, ?2))",
			     (int64_t)slot, (int64_t)count, NULL);
}

/* Takes a slot out of those that are free. 1; 0: it is not. */
static int slot_take(sqlite3 *rows, uint64_t slot)
{
	sqlite3_stmt *statement = NULL;
	int error = sqlite3_prepare_v2(rows,
				       "SELECT slot, count FROM free WHERE slot <= ?"
				       " AND sum = row_sum(" FREE_COLUMNS ")"
				       " ORDER BY slot DESC LIMIT 1",
				       -1, &statement, NULL)
			    ? -EIO
			    : 0;
	uint64_t first = 0, count = 0;
	int result;

	if (!error) {
		sqlite3_bind_int64(statement, 1, (int64_t)slot);
		result = sqlite3_step(statement);
		if (result == SQLITE_ROW) {
			first = (uint64_t)sqlite3_column_int64(statement, 0);
			count = (uint64_t)sqlite3_column_int64(statement, 1);
		} else if (result != SQLITE_DONE) {
			error = -EIO;
		}
	}
	sqlite3_finalize(statement);
	if (error || slot - first >= count)
		return error;
	error = run(rows, "DELETE FROM free WHERE slot = ?1", (int64_t)first, 0, NULL);
	if (!error)
		error = slot_give(rows, first, slot - first);
	if (!error)
		error = slot_give(rows, slot + 1, first + count - slot - 1);
	return error ? error : 1;
}

/* The block that the file now ends in: what it was, and zero behind the end; in the slot that was
 * to be its. */
static int block_cut(struct losses *losses, const struct lost *lost, struct store_chunk *now,
		     unsigned int i)
{
	const size_t kept = losses->end % STORE_BLOCK;
	unsigned char block[STORE_BLOCK];
	ssize_t written;

	if (!block_read(losses->heap, lost->before.slots[i], lost->before.sums[i], block))
		return 0; /* and stays damaged */
	memset(block + kept, 0, STORE_BLOCK - kept);
	written = mmapio_write(losses->heap, now->slots[i] * STORE_BLOCK, block, STORE_BLOCK);
	if (written != (ssize_t)STORE_BLOCK)
		return written < 0 ? (int)written : -ENOSPC;
	now->sums[i] = store_sum(block);
	return 0;
}

static int block_take_back(struct losses *losses, const struct lost *lost, struct store_chunk *now,
			   unsigned int i)
{
	const uint64_t at = (lost->number * STORE_CHUNK + i) * STORE_BLOCK;
	const uint64_t slot = now->slots[i];
	unsigned char block[STORE_BLOCK];
	int found;

	if (losses->is_past) {
		now->slots[i] = SLOT_LOST;
		now->sums[i] = 0;
		return slot_give(losses->rows, slot, 1);
	}
	if (at >= losses->end)
		return 0; /* it is cut off */
	if (lost->before.slots[i] >= SLOT_FIRST) {
		if (at + STORE_BLOCK > losses->end)
			return block_cut(losses, lost, now, i);
		if (!block_read(losses->heap, lost->before.slots[i], lost->before.sums[i], block))
			return 0;
		found = slot_take(losses->rows, lost->before.slots[i]);
		if (found <= 0)
			return found;
	}
	now->slots[i] = lost->before.slots[i];
	now->sums[i] = lost->before.sums[i];
	return slot_give(losses->rows, slot, 1);
}

static int chunk_write(struct losses *losses, uint64_t number, const struct store_chunk *chunk)
{
	return run(losses->rows,
		   "UPDATE chunk SET slots = ?3, sum = row_sum(object, chunk, ?3)"
		   " WHERE object = ?1 AND chunk = ?2",
		   losses->object, (int64_t)number, chunk);
}

static int chunk_take_back(struct losses *losses, const struct lost *lost)
{
	struct store_chunk now;
	sqlite3_stmt *statement = NULL;
	int error = -EIO;

	if (sqlite3_prepare_v2(losses->rows,
			       "SELECT slots FROM chunk WHERE object = ? AND chunk = ?", -1,
			       &statement, NULL) == SQLITE_OK) {
		sqlite3_bind_int64(statement, 1, losses->object);
		sqlite3_bind_int64(statement, 2, (int64_t)lost->number);
		if (sqlite3_step(statement) == SQLITE_ROW && chunk_unpack(statement, 0, &now))
			error = 0;
	}
	sqlite3_finalize(statement);
	/* (A block may have been kept twice, when its file was forgotten in between: what is of it
	 * first is what was synced.) */
	for (unsigned int i = 0; i < STORE_CHUNK && !error; i++)
		if ((lost->blocks >> i & 1) && now.slots[i] == lost->slots[i])
			error = block_take_back(losses, lost, &now, i);
	return error ? error : chunk_write(losses, lost->number, &now);
}

/* Of the chunks that the end is in or before. */
static int chunks_cut(struct losses *losses)
{
	const uint64_t first = (losses->end + STORE_BLOCK - 1) / STORE_BLOCK;
	sqlite3_stmt *statement = NULL;
	int result =
		sqlite3_prepare_v2(losses->rows,
				   "SELECT chunk, slots FROM chunk WHERE object = ? AND chunk"
				   " >= ? AND sum = row_sum(" CHUNK_COLUMNS ") ORDER BY chunk DESC",
				   -1, &statement, NULL);
	int error = 0;

	if (result == SQLITE_OK) {
		sqlite3_bind_int64(statement, 1, losses->object);
		sqlite3_bind_int64(statement, 2, (int64_t)(first / STORE_CHUNK));
	}
	while (!error && result == SQLITE_OK && (result = sqlite3_step(statement)) == SQLITE_ROW) {
		const uint64_t number = (uint64_t)sqlite3_column_int64(statement, 0);
		struct store_chunk chunk;

		result = SQLITE_OK;
		if (!chunk_unpack(statement, 1, &chunk))
			continue;
		for (unsigned int i = 0; i < STORE_CHUNK && !error; i++) {
			if (number * STORE_CHUNK + i < first || chunk.slots[i] == SLOT_BASE)
				continue;
			if (chunk.slots[i] >= SLOT_FIRST)
				error = slot_give(losses->rows, chunk.slots[i], 1);
			chunk.slots[i] = SLOT_BASE;
			chunk.sums[i] = 0;
		}
		/* (The row is the one that the statement is at, and keeps its place.) */
		if (!error)
			error = chunk_write(losses, number, &chunk);
	}
	sqlite3_finalize(statement);
	return error ? error : result == SQLITE_DONE ? 0 : -EIO;
}

static int object_cut(struct losses *losses)
{
	int error = chunks_cut(losses);

	if (!error) /* (What was never cut has a cut of -1.) */
		error = run(
			losses->rows,
			"UPDATE object SET size = min(size, ?2), cut = iif(cut BETWEEN 0 AND ?2, cut, ?2)"
			" WHERE id = ?1 AND sum = row_sum(" OBJECT_COLUMNS ")",
			losses->object, (int64_t)losses->end, NULL);
	if (!error && sqlite3_changes(losses->rows) == 1) /* else it is damaged, and stays so */
		error = run(losses->rows,
			    "UPDATE object SET sum = row_sum(" OBJECT_COLUMNS ") WHERE id = ?1",
			    losses->object, 0, NULL);
	return error;
}

static void say(const struct losses *losses)
{
	sqlite3_stmt *statement = NULL;
	const char *name = NULL;
	char end[64] = "";
	int blocks = 0;

	for (size_t i = 0; i < losses->count; i++)
		blocks += __builtin_popcountll(losses->chunk[i].blocks);
	if (losses->end != UINT64_MAX)
		snprintf(end, sizeof(end), ", and it ends at %ju", (uintmax_t)losses->end);
	if (sqlite3_prepare_v2(losses->rows,
			       "SELECT coalesce(base_path, (SELECT name FROM name WHERE"
			       " name.object = id)) FROM object WHERE id = ?",
			       -1, &statement, NULL) == SQLITE_OK) {
		sqlite3_bind_int64(statement, 1, losses->object);
		if (sqlite3_step(statement) == SQLITE_ROW)
			name = (const char *)sqlite3_column_text(statement, 0);
	}
	log_line(
		LOG_WARNING,
		"store of the view: %s (object %jd): %d blocks that were not synced had not reached "
		"the disk: %s%s",
		name ? name : "a file", (intmax_t)losses->object, blocks,
		losses->is_past ? "what they were is not known, and reading them fails"
				: "they are as they were",
		end);
	sqlite3_finalize(statement);
}

/* Sets bits of an object's column "has". */
static int has_set(sqlite3 *rows, int64_t object, int64_t bits)
{
	int error = run(rows,
			"UPDATE object SET has = has | ?2 WHERE id = ?1"
			" AND sum = row_sum(" OBJECT_COLUMNS ")",
			object, bits, NULL);

	if (!error && sqlite3_changes(rows) == 1) /* else it is damaged, and stays so */
		error = run(rows,
			    "UPDATE object SET sum = row_sum(" OBJECT_COLUMNS ") WHERE id = ?1",
			    object, 0, NULL);
	return error;
}

/* When all of an object has been looked at. */
static int object_take_back(struct losses *losses)
{
	int error = 0;

	for (size_t at = 0; at < losses->count && !error; at++)
		error = chunk_take_back(losses, &losses->chunk[at]);
	if (!error && losses->end != UINT64_MAX)
		error = object_cut(losses);
	if (!error && losses->is_past && losses->count)
		error = has_set(losses->rows, losses->object, LOST_BLOCKS);
	if (!error && losses->count)
		say(losses);
	losses->count = 0;
	losses->end = UINT64_MAX;
	return error;
}

static int row_look(struct losses *losses, sqlite3_stmt *statement)
{
	const int64_t object = sqlite3_column_int64(statement, 0);
	struct store_chunk now;
	struct lost lost;
	int error = 0;

	if (object != losses->object)
		error = object_take_back(losses);
	losses->object = object;
	losses->is_past = sqlite3_column_int(statement, 6);
	if (error || !chunk_unpack(statement, 4, &lost.before) || !chunk_unpack(statement, 5, &now))
		return error;
	lost.number = (uint64_t)sqlite3_column_int64(statement, 1);
	lost.size = (uint64_t)sqlite3_column_int64(statement, 2);
	lost.blocks = (uint64_t)sqlite3_column_int64(statement, 3);
	return chunk_look(losses, &lost, &now);
}

int rows_undo(sqlite3 *rows, struct mmapio_file *heap)
{
	/* (What is sorted is read before the first row is had, and may be changed then.) */
	static const char text[] =
		"SELECT undo.object, undo.chunk, undo.size, undo.blocks, undo.slots, chunk.slots,"
		" coalesce((SELECT layer > 0 AND layer % 2 = 0 FROM object WHERE id = undo.object), 0)"
		" FROM undo JOIN chunk USING (object, chunk)"
		" WHERE undo.sum = row_sum(undo.id, undo.object, undo.chunk, undo.blocks,"
		" undo.slots, undo.size)"
		" AND chunk.sum = row_sum(chunk.object, chunk.chunk, chunk.slots)"
		" ORDER BY +undo.object, undo.id";
	struct losses losses = {.rows = rows, .heap = heap, .end = UINT64_MAX};
	sqlite3_stmt *statement = NULL;
	int result = sqlite3_prepare_v2(rows, text, -1, &statement, NULL);
	int error = result == SQLITE_OK ? run(rows, "BEGIN IMMEDIATE", 0, 0, NULL) : -EIO;

	while (!error && (result = sqlite3_step(statement)) == SQLITE_ROW)
		error = row_look(&losses, statement);
	if (!error)
		error = result == SQLITE_DONE ? object_take_back(&losses) : -EIO;
	sqlite3_finalize(statement);
	if (!error)
		error = run(rows, "COMMIT", 0, 0, NULL);
	if (!sqlite3_get_autocommit(rows))
		(void)sqlite3_exec(rows, "ROLLBACK", NULL, NULL, NULL);
	free(losses.chunk);
	return error;
}

/* --- Losing ----------------------------------------------------------------------------------- */

/* What of a region's blocks is not kept is lost. */
static int region_lose(sqlite3 *rows, int64_t object, uint64_t region, uint64_t end)
{
	const uint64_t chunks = HOT_REGION / STORE_BLOCK / STORE_CHUNK;
	const uint64_t blocks = (end + STORE_BLOCK - 1) / STORE_BLOCK;
	sqlite3_stmt *statement = NULL;
	int error = sqlite3_prepare_v2(rows,
				       "SELECT slots FROM chunk WHERE object = ? AND chunk = ?"
				       " AND sum = row_sum(" CHUNK_COLUMNS ")",
				       -1, &statement, NULL)
			    ? -EIO
			    : 0;

	for (uint64_t number = region * chunks;
	     number < (region + 1) * chunks && number * STORE_CHUNK < blocks && !error; number++) {
		struct store_chunk chunk = {.slots = {0}};

		sqlite3_reset(statement);
		sqlite3_bind_int64(statement, 1, object);
		sqlite3_bind_int64(statement, 2, (int64_t)number);
		if (sqlite3_step(statement) == SQLITE_ROW && !chunk_unpack(statement, 0, &chunk))
			error = -EIO;
		sqlite3_reset(statement);
		for (unsigned int i = 0; i < STORE_CHUNK; i++)
			if (number * STORE_CHUNK + i < blocks && chunk.slots[i] == SLOT_BASE)
				chunk.slots[i] = SLOT_LOST;
		if (!error)
			error = run(rows,
				    "INSERT OR REPLACE INTO chunk"
				    " VALUES (?1, ?2, ?3, row_sum(?1, ?2, ?3))",
				    object, (int64_t)number, &chunk);
	}
	sqlite3_finalize(statement);
	return error ? error : has_set(rows, object, HAS_BLOCKS | LOST_BLOCKS);
}

int rows_lose(sqlite3 *rows)
{
	/* (What is sorted is read before the first row is had.) */
	static const char text[] = "SELECT hot.object, item, object.size, object.cut, base_path,"
				   " hot.sum IS NOT row_sum(hot.object, item)"
				   " FROM hot JOIN object ON object.id = hot.object"
				   " ORDER BY +hot.object, +item";
	sqlite3_stmt *statement = NULL;
	int result = sqlite3_prepare_v2(rows, text, -1, &statement, NULL), error = 0;

	while (!error && result == SQLITE_OK && (result = sqlite3_step(statement)) == SQLITE_ROW) {
		const int64_t object = sqlite3_column_int64(statement, 0),
			      item = sqlite3_column_int64(statement, 1);
		const uint64_t size = (uint64_t)sqlite3_column_int64(statement, 2),
			       cut = (uint64_t)sqlite3_column_int64(statement, 3);
		char what[64] = "names";

		result = SQLITE_OK;
		if (sqlite3_column_int(statement, 5))
			error = -EIO;
		else if (item == HOT_NAMES)
			error = has_set(rows, object, LOST_NAMES);
		else if (item == HOT_XATTRS)
			error = has_set(rows, object, LOST_XATTRS);
		else
			error = region_lose(rows, object, (uint64_t)item, cut < size ? cut : size);
		if (item == HOT_XATTRS)
			snprintf(what, sizeof(what), "extended attributes");
		else if (item >= 0)
			snprintf(what, sizeof(what), "bytes from %ju on",
				 (uintmax_t)((uint64_t)item * HOT_REGION));
		log_line(LOG_WARNING,
			 "%s: was being changed when the system ended: its %s, as far as they were "
			 "not kept, are lost in the views made before",
			 sqlite3_column_text(statement, 4), what);
	}
	sqlite3_finalize(statement);
	return error ? error : result == SQLITE_DONE ? 0 : -EIO;
}
