/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mmapfs --check: proves a store (store.h), which nobody uses meanwhile, by reading all of it: the
 * data base, what rows say of each other, which slot is whose, and each block's checksum. Mends
 * nothing.
 */
#include "store.h"

#include "store_rows.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

struct check {
	sqlite3 *rows;
	int heap;
	uint64_t end;	       /* the first slot that was never used */
	unsigned char *owners; /* of each slot: what has it */
	uint64_t wrong;	       /* findings */
	uint64_t tables;
	uint64_t leaked, undone; /* slots; blocks that the next mount takes back */
	bool unknown;		 /* it could not be looked at */
};

enum { OWNER_NONE, OWNER_FREE, OWNER_BLOCK };

__attribute__((format(printf, 2, 3))) static void found(struct check *check, const char *format,
							...)
{
	va_list arguments;

	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
	check->wrong++;
}

/* What SQLite has said, of the store or of what hinders us. */
static void failed(struct check *check, int result)
{
	switch (result & 0xff) {
	case SQLITE_CANTOPEN:
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_BUSY:
	case SQLITE_NOMEM:
		/* Which says nothing of the store. */
		if (!check->unknown)
			fprintf(stderr, "mmapfs: rows: %s\n", sqlite3_errmsg(check->rows));
		check->unknown = true;
		break;
	default:
		found(check, "rows: %s",
		      sqlite3_extended_errcode(check->rows) == SQLITE_IOERR_DATA
			      ? "a page is damaged"
			      : sqlite3_errmsg(check->rows));
	}
}

/* Calls for each row of a query. False: it could not be run, which has been said. */
static bool query(struct check *check, const char *text,
		  void (*row)(struct check *check, sqlite3_stmt *statement))
{
	sqlite3_stmt *statement = NULL;
	int result = sqlite3_prepare_v2(check->rows, text, -1, &statement, NULL);

	while (result == SQLITE_OK && (result = sqlite3_step(statement)) == SQLITE_ROW) {
		row(check, statement);
		result = SQLITE_OK;
	}
	sqlite3_finalize(statement);
	if (result != SQLITE_DONE)
		failed(check, result);
	return result == SQLITE_DONE;
}

/* The path of an object, in the view if it has one there, to be freed; NULL without memory. */
static char *path_of(struct check *check, int64_t object)
{
	static const char text[] =
		"SELECT coalesce(name.folder, 0), name.name, object.base_path FROM object"
		" LEFT JOIN name ON name.object = object.id WHERE object.id = ? LIMIT 1";
	sqlite3_stmt *statement = NULL;
	char *path = strdup(""), *longer;

	if (sqlite3_prepare_v2(check->rows, text, -1, &statement, NULL))
		return path;
	for (int levels = 0; path && levels < 1000; levels++) {
		int64_t folder;
		const char *name;
		int length;

		sqlite3_reset(statement);
		sqlite3_bind_int64(statement, 1, object);
		if (sqlite3_step(statement) != SQLITE_ROW)
			break;
		folder = sqlite3_column_int64(statement, 0);
		name = (const char *)sqlite3_column_blob(statement, folder ? 1 : 2);
		length = sqlite3_column_bytes(statement, folder ? 1 : 2);
		if (!folder && length == 1) /* BACKING's root, "/" */
			length = 0;
		if (asprintf(&longer, "%s%.*s%s", folder ? "/" : "", length, name ? name : "",
			     path) < 0)
			longer = NULL;
		free(path);
		path = longer;
		if (!folder)
			break;
		object = folder;
	}
	sqlite3_finalize(statement);
	return path;
}

static void integrity(struct check *check, sqlite3_stmt *statement)
{
	const char *text = (const char *)sqlite3_column_text(statement, 0);

	if (text && strcmp(text, "ok") != 0)
		found(check, "rows: %s", text);
}

static void damaged_row(struct check *check, sqlite3_stmt *statement)
{
	int64_t object = sqlite3_column_int64(statement, 1);
	char *path = object ? path_of(check, object) : NULL;

	found(check, "%s: a row of %s is damaged", path ? path : "rows",
	      (const char *)sqlite3_column_text(statement, 0));
	free(path);
}

static void lost_name(struct check *check, sqlite3_stmt *statement)
{
	char *path = path_of(check, sqlite3_column_int64(statement, 0));

	found(check, "%s/%.*s: %s", path ? path : "?", sqlite3_column_bytes(statement, 1),
	      (const char *)sqlite3_column_blob(statement, 1),
	      sqlite3_column_int(statement, 2) ? "leads to an object that is not there"
					       : "is in a folder that is not there");
	free(path);
}

static void lost_row(struct check *check, sqlite3_stmt *statement)
{
	found(check, "object %lld: is not there, but has %s",
	      (long long)sqlite3_column_int64(statement, 0), sqlite3_column_text(statement, 1));
}

static void wrong_links(struct check *check, sqlite3_stmt *statement)
{
	char *path = path_of(check, sqlite3_column_int64(statement, 0));

	found(check, "%s: has %lld names, and says %lld", path ? path : "?",
	      (long long)sqlite3_column_int64(statement, 1),
	      (long long)sqlite3_column_int64(statement, 2));
	free(path);
}

static void take_end(struct check *check, sqlite3_stmt *statement)
{
	check->end = (uint64_t)sqlite3_column_int64(statement, 0);
}

static void own(struct check *check, uint64_t slot, unsigned char owner, const char *who)
{
	if (slot < SLOT_FIRST || slot >= check->end)
		found(check, "%s: slot %ju does not exist", who, (uintmax_t)slot);
	else if (check->owners[slot] != OWNER_NONE)
		found(check, "%s: slot %ju is %s as well", who, (uintmax_t)slot,
		      check->owners[slot] == OWNER_FREE ? "free" : "another block's");
	else
		check->owners[slot] = owner;
}

static void own_free_run(struct check *check, sqlite3_stmt *statement)
{
	uint64_t slot = (uint64_t)sqlite3_column_int64(statement, 0);
	int64_t count = sqlite3_column_int64(statement, 1);

	for (int64_t i = 0; i < count && i < (int64_t)check->end; i++)
		own(check, slot + (uint64_t)i, OWNER_FREE, "free slots");
}

static bool block_is(struct check *check, uint64_t slot, uint32_t sum)
{
	unsigned char block[STORE_BLOCK];

	return pread(check->heap, block, sizeof(block), (off_t)(slot * STORE_BLOCK)) ==
		       (ssize_t)sizeof(block) &&
	       store_sum(block) == sum;
}

/* Whether a block that is not what it should be was not synced, and what it was before is there. */
static bool is_undone(struct check *check, int64_t object, uint64_t number, unsigned int i)
{
	static const char text[] = "SELECT blocks, slots FROM undo WHERE object = ? AND chunk = ?"
				   " AND sum = row_sum(" UNDO_COLUMNS ")";
	sqlite3_stmt *statement = NULL;
	struct store_chunk before;
	bool undone = false;

	if (sqlite3_prepare_v2(check->rows, text, -1, &statement, NULL) == SQLITE_OK) {
		sqlite3_bind_int64(statement, 1, object);
		sqlite3_bind_int64(statement, 2, (int64_t)number);
		while (!undone && sqlite3_step(statement) == SQLITE_ROW)
			undone = chunk_unpack(statement, 1, &before) &&
				 ((uint64_t)sqlite3_column_int64(statement, 0) >> i & 1) &&
				 (before.slots[i] < SLOT_FIRST ||
				  block_is(check, before.slots[i], before.sums[i]));
	}
	sqlite3_finalize(statement);
	return undone;
}

static void own_chunk(struct check *check, sqlite3_stmt *statement)
{
	int64_t object = sqlite3_column_int64(statement, 0);
	uint64_t number = (uint64_t)sqlite3_column_int64(statement, 1);
	struct store_chunk chunk;
	char who[32], *path;

	snprintf(who, sizeof(who), "object %jd", (intmax_t)object); /* (its path takes long) */
	if (!chunk_unpack(statement, 2, &chunk)) {
		found(check, "%s: the row of its blocks has a wrong length", who);
		return;
	}
	for (unsigned int i = 0; i < STORE_CHUNK; i++) {
		uint64_t slot = chunk.slots[i];

		if (slot < SLOT_FIRST)
			continue;
		own(check, slot, OWNER_BLOCK, who);
		if (slot >= check->end || block_is(check, slot, chunk.sums[i]))
			continue;
		if (is_undone(check, object, number, i)) {
			check->undone++;
			continue;
		}
		path = path_of(check, object);
		found(check, "%s: the block at %ju is damaged", path ? path : "?",
		      (uintmax_t)((number * STORE_CHUNK + i) * STORE_BLOCK));
		free(path);
	}
}

#define DAMAGED(TABLE, OBJECT, COLUMNS)                                                            \
	"SELECT '" TABLE "', " OBJECT " FROM " TABLE " WHERE sum IS NOT row_sum(" COLUMNS ")"

static const char *const damaged_rows[] = {
	DAMAGED("meta", "0", META_COLUMNS),	   DAMAGED("object", "id", OBJECT_COLUMNS),
	DAMAGED("name", "folder", NAME_COLUMNS),   DAMAGED("xattr", "object", XATTR_COLUMNS),
	DAMAGED("chunk", "object", CHUNK_COLUMNS), DAMAGED("free", "0", FREE_COLUMNS),
	DAMAGED("undo", "object", UNDO_COLUMNS),   DAMAGED("snap", "0", SNAP_COLUMNS),
	DAMAGED("hot", "object", HOT_COLUMNS),
};

static void count_table(struct check *check, sqlite3_stmt *statement)
{
	(void)statement;
	check->tables++;
}

static void check_rows(struct check *check)
{
	if (!query(check, "PRAGMA integrity_check", integrity) ||
	    !query(check, "SELECT name FROM sqlite_master", count_table) || !check->tables)
		return; /* (without tables: it was killed in the making) */
	for (size_t i = 0; i < sizeof(damaged_rows) / sizeof(damaged_rows[0]); i++)
		query(check, damaged_rows[i], damaged_row);
	query(check, "SELECT value FROM meta WHERE key = 'end'", take_end);
	query(check,
	      "SELECT folder, name, object IN (SELECT id FROM object) = 0 AND object <> 0 FROM name"
	      " WHERE folder NOT IN (SELECT id FROM object)"
	      " OR (object <> 0 AND object NOT IN (SELECT id FROM object))",
	      lost_name);
	query(check,
	      "SELECT DISTINCT object, 'extended attributes' FROM xattr"
	      " WHERE object NOT IN (SELECT id FROM object)"
	      " UNION SELECT DISTINCT object, 'blocks' FROM chunk"
	      " WHERE object NOT IN (SELECT id FROM object)",
	      lost_row);
	/* What was made in the view has all its names there. */
	query(check,
	      "SELECT id, (SELECT count(*) FROM name WHERE name.object = object.id) AS names, links"
	      " FROM object WHERE base IS NULL AND mode & 61440 <> 16384 AND links <> names",
	      wrong_links);
	if (check->end < SLOT_FIRST || check->end > (uint64_t)INT64_MAX / STORE_BLOCK ||
	    !(check->owners = calloc(check->end, 1))) {
		found(check, "rows: the heap cannot have an end like %ju", (uintmax_t)check->end);
		return;
	}
	query(check, "SELECT slot, count FROM free", own_free_run);
	query(check, "SELECT object, chunk, slots FROM chunk", own_chunk);
	for (uint64_t slot = SLOT_FIRST; slot < check->end; slot++)
		check->leaked += check->owners[slot] == OWNER_NONE;
}

/* 1: it is there, and not empty; 0, or negative errno. */
static int is_file(const char *folder, const char *name)
{
	struct stat st;
	char *path;
	int found;

	if (asprintf(&path, "%s/%s", folder, name) < 0)
		return -ENOMEM;
	if (stat(path, &st) == 0)
		found = st.st_size > 0;
	else
		found = errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
	free(path);
	return found;
}

int store_is_there(const char *folder)
{
	const int heap = is_file(folder, "heap");

	/* (One that was killed in the making has nothing to lose.) */
	return heap == 1 ? is_file(folder, "rows") : heap;
}

int store_check(const char *folder)
{
	struct check check = {.heap = -1};
	char *heap = NULL, *rows = NULL;
	int status = 2, result;

	if (asprintf(&heap, "%s/heap", folder) < 0 || asprintf(&rows, "%s/rows", folder) < 0)
		goto out;
	check.heap = open(heap, O_RDONLY | O_CLOEXEC);
	if (check.heap < 0) {
		fprintf(stderr, "mmapfs: %s: %s; --check takes the folder of a store\n", heap,
			strerror(errno));
		goto out;
	}
	if (flock(check.heap, LOCK_SH | LOCK_NB)) {
		fprintf(stderr, "mmapfs: %s: is in use; unmount its view first\n", folder);
		goto out;
	}
	result = rows_open_file(&check.rows, rows, SQLITE_OPEN_READWRITE);
	if (!result)
		result = rows_init(check.rows);
	if (result)
		failed(&check, result);
	else
		check_rows(&check);
	if (check.unknown)
		goto out;
	status = check.wrong ? 1 : 0;
	printf("%s: %s", folder, check.wrong ? "damaged\n" : "whole");
	if (!check.wrong && check.undone)
		printf("; %ju blocks that were not synced did not reach the disk, and will be what "
		       "they were, or are lost where they were kept of a live tree",
		       (uintmax_t)check.undone);
	if (!check.wrong)
		printf("; %ju bytes that nothing uses\n", (uintmax_t)(check.leaked * STORE_BLOCK));
out:
	sqlite3_close(check.rows);
	if (check.heap >= 0)
		close(check.heap);
	free(check.owners);
	free(heap);
	free(rows);
	return status;
}
