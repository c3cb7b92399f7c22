/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store (store.h). A folder with two files: "rows", an SQLite data base in WAL mode, and
 * "heap", which is locked by whoever uses the store; or both in memory.
 *
 * A commit reaches the kernel, so it survives our death, and store_sync() the disk: heap first,
 * then the log of the rows. A slot that is given back is used again after the next sync, when
 * nothing on the disk says any more what it was. The kernel may write rows before the blocks that
 * they name: what these blocks were is kept until the next sync ("undo", store_undo.c).
 */
#include "store.h"

#include "log.h"
#include "store_rows.h"

#include <dirent.h>
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#define FORMAT 1

static const char schema[] =
	"CREATE TABLE meta (key TEXT PRIMARY KEY, value, sum INTEGER) WITHOUT ROWID;"
	"CREATE TABLE object (id INTEGER PRIMARY KEY AUTOINCREMENT, layer INTEGER, base BLOB, base_path BLOB,"
	" base_size INTEGER, base_mtime INTEGER, base_mtime_ns INTEGER, base_ctime INTEGER,"
	" base_ctime_ns INTEGER, ino INTEGER, mode INTEGER, uid INTEGER, gid INTEGER,"
	" device INTEGER, links INTEGER, size INTEGER, blocks INTEGER, atime INTEGER,"
	" atime_ns INTEGER, mtime INTEGER, mtime_ns INTEGER, ctime INTEGER, ctime_ns INTEGER,"
	" cut INTEGER, target BLOB, parent INTEGER, has INTEGER, sum INTEGER, UNIQUE (base, layer));"
	"CREATE INDEX orphan ON object (links) WHERE links = 0;"
	"CREATE INDEX layer ON object (layer) WHERE layer > 0;"
	"CREATE INDEX place ON object (base_path) WHERE layer > 0;"
	"CREATE INDEX lost ON object (layer) WHERE has >= 8;"
	"CREATE TABLE snap (epoch INTEGER PRIMARY KEY, name BLOB, instant INTEGER,"
	" instant_ns INTEGER, settled INTEGER, settled_ns INTEGER, state INTEGER,"
	" read_only INTEGER, on_disk INTEGER, sum INTEGER);"
	"CREATE TABLE hot (object INTEGER, item INTEGER, sum INTEGER,"
	" PRIMARY KEY (object, item)) WITHOUT ROWID;"
	"CREATE TABLE name (folder INTEGER, name BLOB, object INTEGER, sum INTEGER,"
	" PRIMARY KEY (folder, name)) WITHOUT ROWID;"
	"CREATE TABLE xattr (object INTEGER, name BLOB, value BLOB, sum INTEGER,"
	" PRIMARY KEY (object, name)) WITHOUT ROWID;"
	"CREATE TABLE chunk (object INTEGER, chunk INTEGER, slots BLOB, sum INTEGER,"
	" PRIMARY KEY (object, chunk)) WITHOUT ROWID;"
	"CREATE TABLE free (slot INTEGER PRIMARY KEY, count INTEGER, sum INTEGER);"
	"CREATE TABLE undo (id INTEGER PRIMARY KEY, object INTEGER, chunk INTEGER,"
	" blocks INTEGER, slots BLOB, size INTEGER, sum INTEGER);";

enum statement {
	BEGIN,
	COMMIT,
	ROLLBACK,
	FORMAT_GET,
	META_GET,
	META_SET,
	OBJECT_ADD,
	OBJECT_SET,
	OBJECT_REMOVE,
	OBJECT_REMOVE_NAMES,
	OBJECT_REMOVE_XATTRS,
	OBJECT_REMOVE_CHUNKS,
	OBJECT_GET,
	OBJECT_FIND,
	OBJECT_ORPHAN,
	OBJECT_PAST,
	OBJECT_OF_LAYERS,
	LAYERS_CHUNKS,
	OBJECT_PLACE,
	OBJECTS_MOVE,
	OBJECTS_MOVED,
	SNAP_SET,
	SNAP_REMOVE,
	SNAPS_EACH,
	PAIR_NEXT,
	LAST_ID,
	NAMES_THIN,
	XATTRS_THIN,
	HOT_ADD,
	HOT_REMOVE,
	HOT_CLEAR,
	LOST_COUNT,
	LOST_GET,
	NAME_GET,
	NAME_SET,
	NAME_REMOVE,
	NAMES_EACH,
	XATTR_GET,
	XATTR_SET,
	XATTR_REMOVE,
	XATTRS_EACH,
	CHUNK_GET,
	CHUNK_SET,
	CHUNK_REMOVE,
	CHUNKS_EACH,
	FREE_ADD,
	FREE_REMOVE,
	FREE_EACH,
	FREE_LAST,
	UNDO_CHUNKS,
	UNDO_ADD,
	UNDO_CUT,
	UNDO_CLEAR,
	STATEMENTS,
};

#define OBJECT_VALUES                                                                              \
	"?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,"   \
	" ?21, ?22, ?23, ?24, ?25, ?26, ?27"

/* The last column of whatever is read. */
#define WHOLE(COLUMNS) "sum = row_sum(" COLUMNS ")"

static const char *const texts[STATEMENTS] = {
	[BEGIN] = "BEGIN IMMEDIATE",
	[COMMIT] = "COMMIT",
	[ROLLBACK] = "ROLLBACK",
	/* Of whatever version it is. */
	[FORMAT_GET] = "SELECT value, 1 FROM meta WHERE key = 'format'",
	[META_GET] = "SELECT value, " WHOLE(META_COLUMNS) " FROM meta WHERE key = ?",
	[META_SET] = "INSERT OR REPLACE INTO meta VALUES (?1, ?2, row_sum(?1, ?2))",
	[OBJECT_ADD] = "INSERT INTO object (id, " OBJECT_COLUMNS ", sum) VALUES (?1, " OBJECT_VALUES
		       ", row_sum(" OBJECT_VALUES "))",
	[OBJECT_SET] =
		"UPDATE object SET ino = ?10, mode = ?11, uid = ?12, gid = ?13, device = ?14,"
		" links = ?15, size = ?16, blocks = ?17, atime = ?18, atime_ns = ?19,"
		" mtime = ?20, mtime_ns = ?21, ctime = ?22, ctime_ns = ?23, cut = ?24,"
		" parent = ?26, has = ?27, sum = row_sum(" OBJECT_BASE ", ?10, ?11, ?12, ?13,"
		" ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, target, ?26, ?27)"
		" WHERE id = ?1",
	[OBJECT_REMOVE] = "DELETE FROM object WHERE id = ?",
	[OBJECT_REMOVE_NAMES] = "DELETE FROM name WHERE folder = ?",
	[OBJECT_REMOVE_XATTRS] = "DELETE FROM xattr WHERE object = ?",
	[OBJECT_REMOVE_CHUNKS] = "DELETE FROM chunk WHERE object = ?",
	[OBJECT_GET] =
		"SELECT id, " OBJECT_COLUMNS ", " WHOLE(OBJECT_COLUMNS) " FROM object WHERE id = ?",
	[OBJECT_FIND] = "SELECT id, " OBJECT_COLUMNS
			", " WHOLE(OBJECT_COLUMNS) " FROM object WHERE layer = ? AND base = ?",
	[OBJECT_ORPHAN] =
		"SELECT id, " WHOLE(OBJECT_COLUMNS) " FROM object WHERE links = 0 LIMIT 1",
	[OBJECT_PAST] = "SELECT id, " OBJECT_COLUMNS ", " WHOLE(
		OBJECT_COLUMNS) " FROM object"
				" WHERE base = ? AND layer > ? AND layer % 2 = 0 ORDER BY layer LIMIT 1",
	[OBJECT_OF_LAYERS] = "SELECT id, 1 FROM object WHERE layer > 0 AND layer BETWEEN ? AND ?"
			     " AND (layer % 2 = 0 OR ?) LIMIT 1",
	[LAYERS_CHUNKS] = "SELECT slots, 1 FROM object CROSS JOIN chunk ON object = id"
			  " WHERE layer > 0 AND layer BETWEEN ? AND ?",
	[OBJECT_PLACE] =
		"UPDATE object SET base_path = ?2, sum = row_sum(layer, base, ?2" OBJECT_BUT_PLACE
		") WHERE base = ?1 AND layer > 0"
		" AND sum = row_sum(" OBJECT_COLUMNS ")",
	/* A path, and all below it; in two steps, since the sum is of what they are then. */
	[OBJECTS_MOVE] =
		"UPDATE object SET sum = -1,"
		" base_path = CAST(?2 || substr(base_path, length(?1) + 1) AS BLOB)"
		" WHERE layer > 0 AND (base_path = ?1 OR (base_path > CAST(?1 || '/' AS BLOB)"
		" AND base_path < CAST(?1 || '0' AS BLOB)))"
		" AND sum = row_sum(" OBJECT_COLUMNS ")",
	[OBJECTS_MOVED] = "UPDATE object SET sum = row_sum(" OBJECT_COLUMNS ")"
			  " WHERE layer > 0 AND sum = -1 AND (base_path = ?1 OR"
			  " (base_path > CAST(?1 || '/' AS BLOB) AND"
			  " base_path < CAST(?1 || '0' AS BLOB)))",
	[SNAP_SET] = "INSERT OR REPLACE INTO snap VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8,"
		     " ?9, row_sum(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9))",
	[SNAP_REMOVE] = "DELETE FROM snap WHERE epoch = ?",
	[SNAPS_EACH] = "SELECT " SNAP_COLUMNS ", " WHOLE(SNAP_COLUMNS) " FROM snap ORDER BY epoch",
	/* (Within some numbers: it is not to take long where there are none.) */
	[PAIR_NEXT] =
		"SELECT s.id, s.layer, s.base, p.id, p.layer, 1 FROM object AS s JOIN object AS p"
		" ON p.base = s.base AND p.layer = (SELECT max(layer) FROM object AS q"
		" WHERE q.base = s.base AND q.layer < s.layer AND q.layer > 0 AND q.layer % 2 = 0)"
		" WHERE s.id > ?1 AND s.id <= ?1 + 256 AND s.layer > 0 AND s.layer % 2 = 0"
		" ORDER BY s.id LIMIT 1",
	[LAST_ID] = "SELECT max(id), 1 FROM object",
	[NAMES_THIN] = "DELETE FROM name WHERE folder = ?1"
		       " AND name IN (SELECT name FROM name WHERE folder = ?2)",
	[XATTRS_THIN] = "DELETE FROM xattr WHERE object = ?1"
			" AND name IN (SELECT name FROM xattr WHERE object = ?2)",
	[HOT_ADD] = "INSERT OR REPLACE INTO hot VALUES (?1, ?2, row_sum(?1, ?2))",
	[HOT_REMOVE] = "DELETE FROM hot WHERE object = ? AND item = ?",
	[HOT_CLEAR] = "DELETE FROM hot",
	[LOST_COUNT] = "SELECT count(*), 1 FROM object WHERE has >= 8 AND layer >= ?",
	[LOST_GET] = "SELECT base_path, has, " WHOLE(
		OBJECT_COLUMNS) " FROM object"
				" WHERE has >= 8 AND layer >= ? ORDER BY layer, id LIMIT 1 OFFSET ?",
	[NAME_GET] =
		"SELECT object, " WHOLE(NAME_COLUMNS) " FROM name WHERE folder = ? AND name = ?",
	[NAME_SET] = "INSERT OR REPLACE INTO name VALUES (?1, ?2, ?3, row_sum(?1, ?2, ?3))",
	[NAME_REMOVE] = "DELETE FROM name WHERE folder = ? AND name = ?",
	[NAMES_EACH] = "SELECT name, object, " WHOLE(NAME_COLUMNS) " FROM name WHERE folder = ?",
	[XATTR_GET] =
		"SELECT value, " WHOLE(XATTR_COLUMNS) " FROM xattr WHERE object = ? AND name = ?",
	[XATTR_SET] = "INSERT OR REPLACE INTO xattr VALUES (?1, ?2, ?3, row_sum(?1, ?2, ?3))",
	[XATTR_REMOVE] = "DELETE FROM xattr WHERE object = ? AND name = ?",
	[XATTRS_EACH] =
		"SELECT name, value IS NULL, " WHOLE(XATTR_COLUMNS) " FROM xattr WHERE object = ?",
	[CHUNK_GET] =
		"SELECT slots, " WHOLE(CHUNK_COLUMNS) " FROM chunk WHERE object = ? AND chunk = ?",
	[CHUNK_SET] = "INSERT OR REPLACE INTO chunk VALUES (?1, ?2, ?3, row_sum(?1, ?2, ?3))",
	[CHUNK_REMOVE] = "DELETE FROM chunk WHERE object = ? AND chunk = ?",
	[CHUNKS_EACH] = "SELECT chunk, slots, " WHOLE(CHUNK_COLUMNS) " FROM chunk WHERE object = ?",
	[FREE_ADD] = "INSERT OR REPLACE INTO free VALUES (?1, ?2, row_sum(?1, ?2))",
	[FREE_REMOVE] = "DELETE FROM free WHERE slot = ?",
	[FREE_EACH] = "SELECT slot, count, " WHOLE(FREE_COLUMNS) " FROM free",
	[FREE_LAST] = "SELECT slot + count, " WHOLE(FREE_COLUMNS) " FROM free"
								  " ORDER BY slot DESC LIMIT 1",
	[UNDO_CHUNKS] = "SELECT slots, " WHOLE(
		CHUNK_COLUMNS) " FROM chunk JOIN"
			       " (SELECT DISTINCT object AS o, chunk AS c FROM undo)"
			       " ON object = o AND chunk = c",
	[UNDO_ADD] = "INSERT INTO undo VALUES (?1, ?2, ?3, ?4, ?5, ?6,"
		     " row_sum(?1, ?2, ?3, ?4, ?5, ?6))",
	[UNDO_CUT] = "UPDATE undo SET size = ?2,"
		     " sum = row_sum(id, object, chunk, blocks, slots, ?2)"
		     " WHERE object = ?1 AND size > ?2",
	[UNDO_CLEAR] = "DELETE FROM undo",
};

/* Slots side by side. Of free ones, each is a row: so they are not joined. */
struct run {
	uint64_t slot, count;
	bool whole; /* of what was taken: it was all of a free run */
};

struct runs {
	struct run *run;
	size_t count, room;
};

struct store {
	sqlite3 *rows;
	sqlite3_stmt *statement[STATEMENTS];
	struct mmapio_file *heap;
	int log; /* constant: the log of the rows, or -1 */
	bool in_memory;
	bool quiet;	   /* errors are told by who opens it */
	bool damaged;	   /* a row is not what it was, or is missing */
	uint64_t limit;	   /* constant: slots */
	uint64_t used;	   /* slots */
	uint64_t end;	   /* the first slot that was never used */
	uint64_t reserved; /* what the rows have for it: never less */
	struct runs free;
	struct runs given; /* free after the next sync */
	uint64_t given_slots;
	uint64_t synced; /* how often, since it was made: each time a new number is written */
	int frames;	 /* in the log of the rows */
	int64_t undo;	 /* rows that were added, since it was opened */
	/* What a rollback takes back: */
	struct runs taken;  /* from free */
	struct runs giving; /* given, when it is committed */
	uint64_t used_before, end_before, reserved_before;
};

void object_free(struct object *object)
{
	free(object->base_path);
	free(object->target);
	object->base_path = object->target = NULL;
}

/* A checksum of the values of a row, and of what kinds they are. */
static void row_sum(sqlite3_context *context, int count, sqlite3_value **values)
{
	XXH64_hash_t sum = 0;

	for (int i = 0; i < count; i++) {
		unsigned char kind = (unsigned char)sqlite3_value_type(values[i]);
		int64_t number = kind == SQLITE_INTEGER ? sqlite3_value_int64(values[i]) : 0;
		const void *bytes = &number;
		int length = sizeof(number);

		if (kind == SQLITE_BLOB || kind == SQLITE_TEXT) {
			bytes = sqlite3_value_blob(values[i]);
			length = sqlite3_value_bytes(values[i]);
			number = length;
		}
		sum = XXH3_64bits_withSeed(&kind, sizeof(kind), sum);
		sum = XXH3_64bits_withSeed(&number, sizeof(number), sum);
		if (length && bytes != &number)
			sum = XXH3_64bits_withSeed(bytes, (size_t)length, sum);
	}
	sqlite3_result_int64(context, (int64_t)sum);
}

int rows_init(sqlite3 *rows)
{
	return sqlite3_create_function(rows, "row_sum", -1, SQLITE_UTF8 | SQLITE_DETERMINISTIC,
				       NULL, row_sum, NULL, NULL);
}

/* --- SQLite ----------------------------------------------------------------------------------- */

/* What a result of SQLite is as an errno. The first of those that mean damage are logged. */
static int error_of(struct store *store, int result)
{
	switch (result & 0xff) {
	case SQLITE_OK:
	case SQLITE_ROW:
	case SQLITE_DONE:
		return 0;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_READONLY:
	case SQLITE_PERM:
		return -EROFS;
	case SQLITE_IOERR:
		if (sqlite3_extended_errcode(store->rows) == SQLITE_IOERR_DATA)
			store->damaged = true;
		if (sqlite3_system_errno(store->rows) == ENOSPC ||
		    sqlite3_system_errno(store->rows) == EDQUOT)
			return -ENOSPC;
		/* fall through */
	default:
		if (!store->quiet)
			log_line(LOG_ERR, "store of the view: %s",
				 sqlite3_extended_errcode(store->rows) == SQLITE_IOERR_DATA
					 ? "a page of its rows is damaged"
					 : sqlite3_errmsg(store->rows));
		return -EIO;
	}
}

/* The statement, without bindings; NULL when an error has been logged. */
static sqlite3_stmt *prepare(struct store *store, enum statement which)
{
	sqlite3_stmt **statement = &store->statement[which];

	if (!*statement) {
		if (sqlite3_prepare_v3(store->rows, texts[which], -1, SQLITE_PREPARE_PERSISTENT,
				       statement, NULL))
			return NULL;
	} else {
		sqlite3_reset(*statement);
	}
	return *statement;
}

/* Runs a statement that was bound to its end. */
static int run(struct store *store, sqlite3_stmt *statement)
{
	int error;

	if (!statement)
		return error_of(store, sqlite3_errcode(store->rows));
	error = error_of(store, sqlite3_step(statement));
	sqlite3_reset(statement);
	return error;
}

/* The next row: 1; 0: none. */
static int next(struct store *store, sqlite3_stmt *statement)
{
	int result = sqlite3_step(statement);

	if (result != SQLITE_ROW)
		return error_of(store, result);
	if (sqlite3_column_int(statement, sqlite3_column_count(statement) - 1) == 1)
		return 1;
	store->damaged = true;
	if (!store->quiet)
		log_line(LOG_ERR, "store of the view: a row is damaged (%s)",
			 sqlite3_sql(statement));
	return -EIO;
}

/* The first row: 1, and the statement is to be reset; 0: none. */
static int first(struct store *store, sqlite3_stmt *statement)
{
	int found;

	if (!statement)
		return error_of(store, sqlite3_errcode(store->rows));
	found = next(store, statement);
	if (found <= 0)
		sqlite3_reset(statement);
	return found;
}

static int run_id(struct store *store, enum statement which, int64_t id)
{
	sqlite3_stmt *statement = prepare(store, which);

	if (statement)
		sqlite3_bind_int64(statement, 1, id);
	return run(store, statement);
}

static void bind_name(sqlite3_stmt *statement, int at, const char *name)
{
	sqlite3_bind_blob(statement, at, name, (int)strlen(name), SQLITE_STATIC);
}

/* A copy, with a zero at its end, or NULL. */
static char *column_text(sqlite3_stmt *statement, int at)
{
	const void *bytes = sqlite3_column_blob(statement, at);
	int length = sqlite3_column_bytes(statement, at);

	return bytes || length == 0 ? strndup(bytes ? bytes : "", (size_t)length) : NULL;
}

static int meta_set_number(struct store *store, const char *key, int64_t value)
{
	sqlite3_stmt *statement = prepare(store, META_SET);

	if (statement) {
		sqlite3_bind_text(statement, 1, key, -1, SQLITE_STATIC);
		sqlite3_bind_int64(statement, 2, value);
	}
	return run(store, statement);
}

static int meta_set_bytes(struct store *store, const char *key, const void *value, size_t length)
{
	sqlite3_stmt *statement = prepare(store, META_SET);

	if (statement) {
		sqlite3_bind_text(statement, 1, key, -1, SQLITE_STATIC);
		sqlite3_bind_blob(statement, 2, value, (int)length, SQLITE_STATIC);
	}
	return run(store, statement);
}

/* The row of a key: 1 and a statement to be reset, or 0. */
static int meta_get(struct store *store, const char *key, sqlite3_stmt **statement)
{
	*statement = prepare(store, META_GET);
	if (*statement)
		sqlite3_bind_text(*statement, 1, key, -1, SQLITE_STATIC);
	return first(store, *statement);
}

/* --- Slots ------------------------------------------------------------------------------------ */

static int runs_add(struct runs *runs, uint64_t slot, uint64_t count, bool whole)
{
	if (runs->count == runs->room) {
		size_t room = runs->room ? 2 * runs->room : 64;
		struct run *longer = realloc(runs->run, room * sizeof(*longer));

		if (!longer)
			return -ENOMEM;
		runs->run = longer;
		runs->room = room;
	}
	runs->run[runs->count++] = (struct run){slot, count, whole};
	return 0;
}

static int free_set(struct store *store, uint64_t slot, uint64_t count)
{
	sqlite3_stmt *statement;

	if (count == 0)
		return run_id(store, FREE_REMOVE, (int64_t)slot);
	statement = prepare(store, FREE_ADD);
	if (statement) {
		sqlite3_bind_int64(statement, 1, (int64_t)slot);
		sqlite3_bind_int64(statement, 2, (int64_t)count);
	}
	return run(store, statement);
}

/* The heap grows by that many slots at once, so that its end is seldom written down. */
#define RESERVE 256

static int heap_reserve(struct store *store, uint64_t end)
{
	uint64_t size = (end + RESERVE) * STORE_BLOCK;
	int error;

	if (end <= store->reserved)
		return 0;
	error = mmapio_file_resize(store->heap, size, MMAPIO_FOREVER);
	if (!error)
		error = meta_set_number(store, "end", (int64_t)(end + RESERVE));
	if (!error)
		store->reserved = end + RESERVE;
	return error;
}

int store_slots_take(struct store *store, uint64_t *slot, uint64_t *count)
{
	struct run *last = store->free.count ? &store->free.run[store->free.count - 1] : NULL;
	int error;

	if (last) {
		/* From its end, so that its row keeps its key. */
		if (*count > last->count)
			*count = last->count;
		*slot = last->slot + last->count - *count;
		error = free_set(store, last->slot, last->count - *count);
		/* What is noted as taken is taken: a rollback gives it back. */
		if (!error)
			error = runs_add(&store->taken, *slot, *count, *count == last->count);
		if (error)
			return error;
		last->count -= *count;
		if (last->count == 0)
			store->free.count--;
	} else {
		error = heap_reserve(store, store->end + *count);
		if (error)
			return error;
		*slot = store->end;
		store->end += *count;
	}
	store->used += *count;
	return 0;
}

int store_slots_give(struct store *store, uint64_t slot, uint64_t count)
{
	int error = free_set(store, slot, count);

	if (error)
		return error;
	store->used -= count;
	return runs_add(&store->giving, slot, count, false);
}

/* --- Transactions ----------------------------------------------------------------------------- */

int store_begin(struct store *store)
{
	store->taken.count = store->giving.count = 0;
	store->used_before = store->used;
	store->end_before = store->end;
	store->reserved_before = store->reserved;
	return run(store, prepare(store, BEGIN));
}

/* Slots that are given back may be used again. (What there is no memory for is found by the next
 * mount.) Room that lies together goes back to the file system. */
static void runs_release(struct store *store, struct runs *runs)
{
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	for (size_t i = 0; i < runs->count; i++) {
		const struct run *given = &runs->run[i];

		if (given->count >= 16)
			(void)!mmapio_file_allocate(store->heap, punch, given->slot * STORE_BLOCK,
						    given->count * STORE_BLOCK);
		(void)runs_add(&store->free, given->slot, given->count, false);
	}
	runs->count = 0;
}

/* Whether a transaction takes more slots than there may be. Who takes no more than he gives back
 * may always do so. */
static bool is_over_limit(const struct store *store)
{
	uint64_t giving = 0;

	for (size_t i = 0; i < store->giving.count && !store->in_memory; i++)
		giving += store->giving.run[i].count;
	return store->used > store->used_before &&
	       store->used + store->given_slots + giving > store->limit;
}

int store_commit(struct store *store)
{
	int error = is_over_limit(store) ? -ENOSPC : run(store, prepare(store, COMMIT));

	if (error) {
		store_rollback(store);
		return error;
	}
	store->taken.count = 0;
	if (store->in_memory) {
		runs_release(store, &store->giving);
		return 0;
	}
	for (size_t i = 0; i < store->giving.count; i++) {
		(void)runs_add(&store->given, store->giving.run[i].slot, store->giving.run[i].count,
			       false);
		store->given_slots += store->giving.run[i].count;
	}
	store->giving.count = 0;
	return 0;
}

void store_rollback(struct store *store)
{
	if (!sqlite3_get_autocommit(store->rows))
		(void)run(store, prepare(store, ROLLBACK));
	while (store->taken.count) {
		const struct run *taken = &store->taken.run[--store->taken.count];

		if (taken->whole)
			(void)runs_add(&store->free, taken->slot, taken->count, false);
		else
			store->free.run[store->free.count - 1].count += taken->count;
	}
	store->giving.count = 0;
	store->used = store->used_before;
	store->end = store->end_before;
	/* What the heap has grown by for it. (If that cannot be had back now, it is used later.) */
	if (store->reserved != store->reserved_before)
		(void)!mmapio_file_resize(store->heap, store->reserved_before * STORE_BLOCK, 0);
	store->reserved = store->reserved_before;
}

/* Of the log of the rows: when it is brought into the data base. */
#define FRAMES_MANY 4000

#define GIVEN_MANY ((uint64_t)64 * 1024 * 1024 / STORE_BLOCK)

/* A disk that is nearly full: there the log begins anew before it has to grow, so that there is
 * room in it for what gives room back. */
#define ROOM_LITTLE   ((uint64_t)16 * 1024 * 1024)
#define FRAMES_LITTLE 32
#define FRAMES_NEXT   64 /* more than most transactions need */

static bool log_is_cramped(const struct store *store)
{
	sqlite3_file *log = NULL;
	sqlite3_int64 size;
	struct statvfs st;

	if (store->frames <= FRAMES_LITTLE || fstatvfs(store_descriptor(store), &st) ||
	    (uint64_t)st.f_bavail * st.f_frsize >= ROOM_LITTLE)
		return false;
	if (sqlite3_file_control(store->rows, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log) || !log ||
	    !log->pMethods || log->pMethods->xFileSize(log, &size))
		return true;
	return (store->frames + FRAMES_NEXT) * (sqlite3_int64)STORE_BLOCK > size;
}

bool store_wants_sync(const struct store *store)
{
	return store->given_slots > GIVEN_MANY || store->given_slots > store->limit / 4 ||
	       store->frames > FRAMES_MANY || (!store->in_memory && log_is_cramped(store));
}

bool store_has_given(const struct store *store)
{
	return store->given_slots > 0;
}

struct mmapio_file *store_heap(struct store *store)
{
	return store->heap;
}

void store_room(struct store *store, uint64_t *used, uint64_t *limit)
{
	*used = (store->used + store->given_slots) * STORE_BLOCK;
	*limit = store->limit == UINT64_MAX ? UINT64_MAX : store->limit * STORE_BLOCK;
}

int store_descriptor(const struct store *store)
{
	return mmapio_file_descriptor(store->heap);
}

/* --- Objects ---------------------------------------------------------------------------------- */

static void object_bind(sqlite3_stmt *statement, const struct object *object)
{
	int at = 1;

	if (object->id)
		sqlite3_bind_int64(statement, at, object->id);
	at++;
	sqlite3_bind_int64(statement, at++, object->layer);
	if (object->has_base) {
		sqlite3_bind_blob(statement, at, object->base.bytes, (int)object->base.length,
				  SQLITE_STATIC);
		bind_name(statement, at + 1, object->base_path ? object->base_path : "");
	}
	at += 2;
	sqlite3_bind_int64(statement, at++, (int64_t)object->base_size);
	sqlite3_bind_int64(statement, at++, object->base_mtime.tv_sec);
	sqlite3_bind_int64(statement, at++, object->base_mtime.tv_nsec);
	sqlite3_bind_int64(statement, at++, object->base_ctime.tv_sec);
	sqlite3_bind_int64(statement, at++, object->base_ctime.tv_nsec);
	sqlite3_bind_int64(statement, at++, (int64_t)object->ino);
	sqlite3_bind_int64(statement, at++, object->mode);
	sqlite3_bind_int64(statement, at++, object->uid);
	sqlite3_bind_int64(statement, at++, object->gid);
	sqlite3_bind_int64(statement, at++, (int64_t)object->device);
	sqlite3_bind_int64(statement, at++, (int64_t)object->links);
	sqlite3_bind_int64(statement, at++, (int64_t)object->size);
	sqlite3_bind_int64(statement, at++, (int64_t)object->blocks);
	sqlite3_bind_int64(statement, at++, object->atime.tv_sec);
	sqlite3_bind_int64(statement, at++, object->atime.tv_nsec);
	sqlite3_bind_int64(statement, at++, object->mtime.tv_sec);
	sqlite3_bind_int64(statement, at++, object->mtime.tv_nsec);
	sqlite3_bind_int64(statement, at++, object->ctime.tv_sec);
	sqlite3_bind_int64(statement, at++, object->ctime.tv_nsec);
	sqlite3_bind_int64(statement, at++, (int64_t)object->cut);
	if (object->target)
		bind_name(statement, at, object->target);
	at++;
	sqlite3_bind_int64(statement, at++, object->parent);
	sqlite3_bind_int64(statement, at++,
			   (object->has_names ? HAS_NAMES : 0) |
				   (object->has_xattrs ? HAS_XATTRS : 0) |
				   (object->has_blocks ? HAS_BLOCKS : 0) |
				   (object->lost_names ? LOST_NAMES : 0) |
				   (object->lost_xattrs ? LOST_XATTRS : 0) |
				   (object->lost_blocks ? LOST_BLOCKS : 0));
}

static void has_read(struct object *object, int64_t has)
{
	object->has_names = has & HAS_NAMES;
	object->has_xattrs = has & HAS_XATTRS;
	object->has_blocks = has & HAS_BLOCKS;
	object->lost_names = has & LOST_NAMES;
	object->lost_xattrs = has & LOST_XATTRS;
	object->lost_blocks = has & LOST_BLOCKS;
}

static int object_read(struct store *store, sqlite3_stmt *statement, struct object *object)
{
	int found = first(store, statement), at = 0;

	if (found <= 0)
		return found;
	*object = (struct object){.id = sqlite3_column_int64(statement, at++)};
	object->layer = sqlite3_column_int64(statement, at++);
	object->has_base = sqlite3_column_type(statement, at) != SQLITE_NULL;
	object->base.length = (size_t)sqlite3_column_bytes(statement, at);
	if (object->base.length > sizeof(object->base.bytes))
		found = -EIO;
	else if (object->base.length)
		memcpy(object->base.bytes, sqlite3_column_blob(statement, at), object->base.length);
	at++;
	if (object->has_base && !(object->base_path = column_text(statement, at)))
		found = -ENOMEM;
	at++;
	object->base_size = (uint64_t)sqlite3_column_int64(statement, at++);
	object->base_mtime.tv_sec = sqlite3_column_int64(statement, at++);
	object->base_mtime.tv_nsec = sqlite3_column_int64(statement, at++);
	object->base_ctime.tv_sec = sqlite3_column_int64(statement, at++);
	object->base_ctime.tv_nsec = sqlite3_column_int64(statement, at++);
	object->ino = (uint64_t)sqlite3_column_int64(statement, at++);
	object->mode = (mode_t)sqlite3_column_int64(statement, at++);
	object->uid = (uid_t)sqlite3_column_int64(statement, at++);
	object->gid = (gid_t)sqlite3_column_int64(statement, at++);
	object->device = (dev_t)sqlite3_column_int64(statement, at++);
	object->links = (uint64_t)sqlite3_column_int64(statement, at++);
	object->size = (uint64_t)sqlite3_column_int64(statement, at++);
	object->blocks = (uint64_t)sqlite3_column_int64(statement, at++);
	object->atime.tv_sec = sqlite3_column_int64(statement, at++);
	object->atime.tv_nsec = sqlite3_column_int64(statement, at++);
	object->mtime.tv_sec = sqlite3_column_int64(statement, at++);
	object->mtime.tv_nsec = sqlite3_column_int64(statement, at++);
	object->ctime.tv_sec = sqlite3_column_int64(statement, at++);
	object->ctime.tv_nsec = sqlite3_column_int64(statement, at++);
	object->cut = (uint64_t)sqlite3_column_int64(statement, at++);
	if (sqlite3_column_type(statement, at) != SQLITE_NULL &&
	    !(object->target = column_text(statement, at)))
		found = -ENOMEM;
	at++;
	object->parent = sqlite3_column_int64(statement, at++);
	has_read(object, sqlite3_column_int64(statement, at++));
	sqlite3_reset(statement);
	if (found < 0)
		object_free(object);
	return found;
}

int store_object_add(struct store *store, struct object *object)
{
	sqlite3_stmt *statement = prepare(store, OBJECT_ADD);
	int error;

	if (statement) {
		sqlite3_clear_bindings(statement);
		object_bind(statement, object);
	}
	error = run(store, statement);
	if (!error)
		object->id = sqlite3_last_insert_rowid(store->rows);
	return error;
}

int store_object_set(struct store *store, const struct object *object)
{
	sqlite3_stmt *statement = prepare(store, OBJECT_SET);

	if (statement) {
		sqlite3_clear_bindings(statement);
		object_bind(statement, object);
	}
	return run(store, statement);
}

static int slots_give_all(void *context, uint64_t number, const struct store_chunk *chunk)
{
	struct store *store = context;
	const uint64_t *slots = chunk->slots;
	int error = 0;

	(void)number;
	for (int i = 0; i < STORE_CHUNK && !error; i++) {
		uint64_t count = 1;

		if (slots[i] < SLOT_FIRST)
			continue;
		while (i + (int)count < STORE_CHUNK && slots[i + (int)count] == slots[i] + count)
			count++;
		error = store_slots_give(store, slots[i], count);
		i += (int)count - 1;
	}
	return error;
}

int store_object_remove(struct store *store, int64_t id)
{
	int error = store_chunks_each(store, id, slots_give_all, store);

	if (!error)
		error = run_id(store, OBJECT_REMOVE_CHUNKS, id);
	if (!error)
		error = run_id(store, OBJECT_REMOVE_NAMES, id);
	if (!error)
		error = run_id(store, OBJECT_REMOVE_XATTRS, id);
	return error ? error : run_id(store, OBJECT_REMOVE, id);
}

int store_object_get(struct store *store, int64_t id, struct object *object)
{
	sqlite3_stmt *statement = prepare(store, OBJECT_GET);

	if (statement)
		sqlite3_bind_int64(statement, 1, id);
	return object_read(store, statement, object);
}

int store_object_find(struct store *store, int64_t layer, const struct store_identity *base,
		      struct object *object)
{
	sqlite3_stmt *statement = prepare(store, OBJECT_FIND);

	if (statement) {
		sqlite3_bind_int64(statement, 1, layer);
		sqlite3_bind_blob(statement, 2, base->bytes, (int)base->length, SQLITE_STATIC);
	}
	return object_read(store, statement, object);
}

int store_object_orphan(struct store *store, int64_t *id)
{
	sqlite3_stmt *statement = prepare(store, OBJECT_ORPHAN);
	int found = first(store, statement);

	if (found == 1) {
		*id = sqlite3_column_int64(statement, 0);
		sqlite3_reset(statement);
	}
	return found;
}

int store_object_past(struct store *store, int64_t layer, const struct store_identity *base,
		      struct object *object)
{
	sqlite3_stmt *statement = prepare(store, OBJECT_PAST);

	if (statement) {
		sqlite3_bind_blob(statement, 1, base->bytes, (int)base->length, SQLITE_STATIC);
		sqlite3_bind_int64(statement, 2, layer);
	}
	return object_read(store, statement, object);
}

int store_layers_room(struct store *store, int64_t from, int64_t to, uint64_t *room)
{
	sqlite3_stmt *statement = prepare(store, LAYERS_CHUNKS);
	struct store_chunk chunk;
	int found;

	if (statement) {
		sqlite3_bind_int64(statement, 1, from);
		sqlite3_bind_int64(statement, 2, to);
	}
	found = first(store, statement);
	while (found == 1) {
		if (chunk_unpack(statement, 0, &chunk))
			for (int i = 0; i < STORE_CHUNK; i++)
				*room += chunk.slots[i] >= SLOT_FIRST ? STORE_BLOCK : 0;
		found = next(store, statement);
	}
	sqlite3_reset(statement);
	return found;
}

int store_object_place(struct store *store, const struct store_identity *base, const char *path)
{
	sqlite3_stmt *statement = prepare(store, OBJECT_PLACE);

	if (statement) {
		sqlite3_bind_blob(statement, 1, base->bytes, (int)base->length, SQLITE_STATIC);
		bind_name(statement, 2, path);
	}
	return run(store, statement);
}

int store_objects_move(struct store *store, const char *path, const char *new_path)
{
	sqlite3_stmt *statement = prepare(store, OBJECTS_MOVE);
	int error;

	if (statement) {
		bind_name(statement, 1, path);
		bind_name(statement, 2, new_path);
	}
	error = run(store, statement);
	if (error)
		return error;
	statement = prepare(store, OBJECTS_MOVED);
	if (statement)
		bind_name(statement, 1, new_path);
	return run(store, statement);
}

int store_moving_set(struct store *store, const struct store_moving *moving)
{
	static const struct store_moving none = {.path = "", .new_path = ""};
	int error;

	moving = moving ? moving : &none;
	error = meta_set_bytes(store, "moving", moving->object.bytes, moving->object.length);
	if (!error)
		error = meta_set_bytes(store, "moving_from", moving->path, strlen(moving->path));
	if (!error)
		error = meta_set_bytes(store, "moving_to", moving->new_path,
				       strlen(moving->new_path));
	return error;
}

int store_moving_get(struct store *store, struct store_moving *moving)
{
	sqlite3_stmt *statement;
	int found = meta_get(store, "moving", &statement);

	*moving = (struct store_moving){.path = NULL};
	if (found == 1) {
		moving->object.length = (size_t)sqlite3_column_bytes(statement, 0);
		if (moving->object.length > sizeof(moving->object.bytes))
			found = -EIO;
		else if (moving->object.length)
			memcpy(moving->object.bytes, sqlite3_column_blob(statement, 0),
			       moving->object.length);
		sqlite3_reset(statement);
	}
	if (found <= 0 || !moving->object.length)
		return found < 0 ? found : 0;
	found = meta_get(store, "moving_from", &statement);
	if (found == 1) {
		moving->path = column_text(statement, 0);
		sqlite3_reset(statement);
		found = meta_get(store, "moving_to", &statement);
	}
	if (found == 1) {
		moving->new_path = column_text(statement, 0);
		sqlite3_reset(statement);
	}
	return found;
}

int store_object_of_layers(struct store *store, int64_t from, int64_t to, bool odd, int64_t *id)
{
	sqlite3_stmt *statement = prepare(store, OBJECT_OF_LAYERS);
	int found;

	if (statement) {
		sqlite3_bind_int64(statement, 1, from);
		sqlite3_bind_int64(statement, 2, to);
		sqlite3_bind_int(statement, 3, odd);
	}
	found = first(store, statement);
	if (found == 1) {
		*id = sqlite3_column_int64(statement, 0);
		sqlite3_reset(statement);
	}
	return found;
}

int store_pair_next(struct store *store, int64_t *last, struct store_pair *pair)
{
	sqlite3_stmt *statement = prepare(store, PAIR_NEXT);
	int found;

	if (statement)
		sqlite3_bind_int64(statement, 1, *last);
	found = first(store, statement);
	if (found == 1) {
		*last = pair->id = sqlite3_column_int64(statement, 0);
		pair->layer = sqlite3_column_int64(statement, 1);
		pair->base.length = (size_t)sqlite3_column_bytes(statement, 2);
		if (pair->base.length > sizeof(pair->base.bytes))
			found = -EIO;
		else if (pair->base.length)
			memcpy(pair->base.bytes, sqlite3_column_blob(statement, 2),
			       pair->base.length);
		pair->older_id = sqlite3_column_int64(statement, 3);
		pair->older_layer = sqlite3_column_int64(statement, 4);
		sqlite3_reset(statement);
	}
	if (found)
		return found;
	*last += 256;
	statement = prepare(store, LAST_ID);
	found = first(store, statement);
	if (found == 1) {
		if (*last >= sqlite3_column_int64(statement, 0))
			*last = INT64_MAX;
		sqlite3_reset(statement);
	}
	return found < 0 ? found : 0;
}

int store_items_thin(struct store *store, int64_t object, int64_t other)
{
	static const enum statement both[] = {NAMES_THIN, XATTRS_THIN};
	int error = 0;

	for (int i = 0; i < 2 && !error; i++) {
		sqlite3_stmt *statement = prepare(store, both[i]);

		if (statement) {
			sqlite3_bind_int64(statement, 1, object);
			sqlite3_bind_int64(statement, 2, other);
		}
		error = run(store, statement);
	}
	return error;
}

/* --- Point-in-time views ---------------------------------------------------------------------- */

int store_snap_set(struct store *store, const struct store_snap *snap)
{
	sqlite3_stmt *statement = prepare(store, SNAP_SET);

	if (statement) {
		sqlite3_bind_int64(statement, 1, (int64_t)snap->epoch);
		bind_name(statement, 2, snap->name);
		sqlite3_bind_int64(statement, 3, snap->instant.tv_sec);
		sqlite3_bind_int64(statement, 4, snap->instant.tv_nsec);
		sqlite3_bind_int64(statement, 5, snap->settled.tv_sec);
		sqlite3_bind_int64(statement, 6, snap->settled.tv_nsec);
		sqlite3_bind_int(statement, 7, snap->state);
		sqlite3_bind_int(statement, 8, snap->read_only);
		sqlite3_bind_int(statement, 9, snap->on_disk);
	}
	return run(store, statement);
}

int store_snap_remove(struct store *store, uint64_t epoch)
{
	return run_id(store, SNAP_REMOVE, (int64_t)epoch);
}

int store_snaps_each(struct store *store, int (*each)(void *context, const struct store_snap *snap),
		     void *context)
{
	sqlite3_stmt *statement = prepare(store, SNAPS_EACH);
	int result = first(store, statement);

	while (result == 1) {
		char *name = column_text(statement, 1);
		const struct store_snap snap = {
			.epoch = (uint64_t)sqlite3_column_int64(statement, 0),
			.name = name,
			.instant = {sqlite3_column_int64(statement, 2),
				    sqlite3_column_int64(statement, 3)},
			.settled = {sqlite3_column_int64(statement, 4),
				    sqlite3_column_int64(statement, 5)},
			.state = sqlite3_column_int(statement, 6),
			.read_only = sqlite3_column_int(statement, 7),
			.on_disk = sqlite3_column_int(statement, 8),
		};

		result = name ? each(context, &snap) : -ENOMEM;
		free(name);
		if (result)
			break;
		result = next(store, statement);
	}
	sqlite3_reset(statement);
	return result;
}

static int hot_run(struct store *store, enum statement which, int64_t object, int64_t item)
{
	sqlite3_stmt *statement = prepare(store, which);

	if (statement) {
		sqlite3_bind_int64(statement, 1, object);
		sqlite3_bind_int64(statement, 2, item);
	}
	return run(store, statement);
}

int store_hot_add(struct store *store, int64_t object, int64_t item)
{
	return hot_run(store, HOT_ADD, object, item);
}

int store_hot_remove(struct store *store, int64_t object, int64_t item)
{
	return hot_run(store, HOT_REMOVE, object, item);
}

int store_hot_end(struct store *store, bool crashed)
{
	int error = store_begin(store);

	if (error)
		return error;
	if (crashed)
		error = rows_lose(store->rows);
	if (error == -EIO)
		log_line(LOG_ERR, "store of the view: what was being kept when the system ended "
				  "cannot be read: its rows are damaged");
	if (!error)
		error = run(store, prepare(store, HOT_CLEAR));
	if (!error)
		return store_commit(store);
	store_rollback(store);
	return error;
}

int store_lost_count(struct store *store, int64_t from, uint64_t *count)
{
	sqlite3_stmt *statement = prepare(store, LOST_COUNT);
	int found;

	if (statement)
		sqlite3_bind_int64(statement, 1, from);
	found = first(store, statement);
	if (found <= 0)
		return found;
	*count = (uint64_t)sqlite3_column_int64(statement, 0);
	sqlite3_reset(statement);
	return 0;
}

int store_lost_get(struct store *store, int64_t from, uint64_t index, char **path,
		   struct object *lost)
{
	sqlite3_stmt *statement = prepare(store, LOST_GET);
	int found;

	if (statement) {
		sqlite3_bind_int64(statement, 1, from);
		sqlite3_bind_int64(statement, 2, (int64_t)index);
	}
	found = first(store, statement);
	if (found <= 0)
		return found;
	*path = column_text(statement, 0);
	*lost = (struct object){.id = 0};
	has_read(lost, sqlite3_column_int64(statement, 1));
	sqlite3_reset(statement);
	return *path ? 1 : -ENOMEM;
}

/* --- Names and extended attributes ------------------------------------------------------------ */

int store_name_get(struct store *store, int64_t folder, const char *name, int64_t *object)
{
	sqlite3_stmt *statement = prepare(store, NAME_GET);
	int found;

	if (statement) {
		sqlite3_bind_int64(statement, 1, folder);
		bind_name(statement, 2, name);
	}
	found = first(store, statement);
	if (found == 1) {
		*object = sqlite3_column_int64(statement, 0); /* NULL is 0 */
		sqlite3_reset(statement);
	}
	return found;
}

int store_name_set(struct store *store, int64_t folder, const char *name, int64_t object)
{
	sqlite3_stmt *statement = prepare(store, NAME_SET);

	if (statement) {
		sqlite3_bind_int64(statement, 1, folder);
		bind_name(statement, 2, name);
		sqlite3_bind_int64(statement, 3, object);
	}
	return run(store, statement);
}

int store_name_remove(struct store *store, int64_t folder, const char *name)
{
	sqlite3_stmt *statement = prepare(store, NAME_REMOVE);

	if (statement) {
		sqlite3_bind_int64(statement, 1, folder);
		bind_name(statement, 2, name);
	}
	return run(store, statement);
}

int store_names_each(struct store *store, int64_t folder,
		     int (*each)(void *context, const char *name, int64_t object), void *context)
{
	sqlite3_stmt *statement = prepare(store, NAMES_EACH);
	int result;

	if (statement)
		sqlite3_bind_int64(statement, 1, folder);
	result = first(store, statement);
	while (result == 1) {
		char *name = column_text(statement, 0);

		result = name ? each(context, name, sqlite3_column_int64(statement, 1)) : -ENOMEM;
		free(name);
		if (result)
			break;
		result = next(store, statement);
	}
	sqlite3_reset(statement);
	return result;
}

int store_xattr_get(struct store *store, int64_t object, const char *name, void **value,
		    size_t *length)
{
	sqlite3_stmt *statement = prepare(store, XATTR_GET);
	int found;

	if (statement) {
		sqlite3_bind_int64(statement, 1, object);
		bind_name(statement, 2, name);
	}
	found = first(store, statement);
	if (found == 1) {
		*length = (size_t)sqlite3_column_bytes(statement, 0);
		*value = NULL;
		if (sqlite3_column_type(statement, 0) != SQLITE_NULL) {
			*value = malloc(*length + 1); /* an empty value is no NULL */
			if (!*value)
				found = -ENOMEM;
			else if (*length)
				memcpy(*value, sqlite3_column_blob(statement, 0), *length);
		}
		sqlite3_reset(statement);
	}
	return found;
}

int store_xattr_set(struct store *store, int64_t object, const char *name, const void *value,
		    size_t length)
{
	sqlite3_stmt *statement = prepare(store, XATTR_SET);

	if (statement) {
		sqlite3_bind_int64(statement, 1, object);
		bind_name(statement, 2, name);
		if (!value)
			sqlite3_bind_null(statement, 3);
		else if (length)
			sqlite3_bind_blob(statement, 3, value, (int)length, SQLITE_STATIC);
		else
			sqlite3_bind_zeroblob(statement, 3, 0);
	}
	return run(store, statement);
}

int store_xattr_remove(struct store *store, int64_t object, const char *name)
{
	sqlite3_stmt *statement = prepare(store, XATTR_REMOVE);

	if (statement) {
		sqlite3_bind_int64(statement, 1, object);
		bind_name(statement, 2, name);
	}
	return run(store, statement);
}

int store_xattrs_each(struct store *store, int64_t object,
		      int (*each)(void *context, const char *name, bool absent), void *context)
{
	sqlite3_stmt *statement = prepare(store, XATTRS_EACH);
	int result;

	if (statement)
		sqlite3_bind_int64(statement, 1, object);
	result = first(store, statement);
	while (result == 1) {
		char *name = column_text(statement, 0);

		result = name ? each(context, name, sqlite3_column_int(statement, 1)) : -ENOMEM;
		free(name);
		if (result)
			break;
		result = next(store, statement);
	}
	sqlite3_reset(statement);
	return result;
}

/* --- Chunks ----------------------------------------------------------------------------------- */

uint32_t store_sum(const void *block)
{
	return (uint32_t)XXH3_64bits(block, STORE_BLOCK);
}

int chunk_pack(const struct store_chunk *chunk, uint64_t blocks, unsigned char *packed)
{
	unsigned char *to = packed + sizeof(blocks);

	for (unsigned int i = 0; i < STORE_CHUNK; i++) {
		if (chunk->slots[i] == SLOT_BASE)
			blocks &= ~(UINT64_C(1) << i);
		if (blocks >> i & 1)
			to = mempcpy(to, &chunk->slots[i], sizeof(chunk->slots[i]));
	}
	for (unsigned int i = 0; i < STORE_CHUNK; i++)
		if (blocks >> i & 1)
			to = mempcpy(to, &chunk->sums[i], sizeof(chunk->sums[i]));
	memcpy(packed, &blocks, sizeof(blocks));
	return blocks ? (int)(to - packed) : 0;
}

bool chunk_unpack(sqlite3_stmt *statement, int at, struct store_chunk *chunk)
{
	const unsigned char *from = sqlite3_column_blob(statement, at);
	const size_t length = (size_t)sqlite3_column_bytes(statement, at);
	const unsigned char *sums;
	uint64_t blocks;
	size_t count;

	memset(chunk, 0, sizeof(*chunk));
	if (!length)
		return true;
	if (length < sizeof(blocks))
		return false;
	memcpy(&blocks, from, sizeof(blocks));
	from += sizeof(blocks);
	count = (size_t)__builtin_popcountll(blocks);
	if (length != sizeof(blocks) + count * (sizeof(chunk->slots[0]) + sizeof(chunk->sums[0])))
		return false;
	sums = from + count * sizeof(chunk->slots[0]);
	for (unsigned int i = 0; i < STORE_CHUNK; i++) {
		if (!(blocks >> i & 1))
			continue;
		memcpy(&chunk->slots[i], from, sizeof(chunk->slots[i]));
		memcpy(&chunk->sums[i], sums, sizeof(chunk->sums[i]));
		from += sizeof(chunk->slots[i]);
		sums += sizeof(chunk->sums[i]);
	}
	return true;
}

int store_chunk_set(struct store *store, int64_t object, uint64_t number,
		    const struct store_chunk *chunk)
{
	unsigned char packed[CHUNK_PACKED];
	const int length = chunk_pack(chunk, UINT64_MAX, packed);
	sqlite3_stmt *statement = prepare(store, length ? CHUNK_SET : CHUNK_REMOVE);

	if (statement) {
		sqlite3_bind_int64(statement, 1, object);
		sqlite3_bind_int64(statement, 2, (int64_t)number);
		if (length)
			sqlite3_bind_blob(statement, 3, packed, length, SQLITE_STATIC);
	}
	return run(store, statement);
}

int store_chunk_get(struct store *store, int64_t object, uint64_t number, struct store_chunk *chunk)
{
	sqlite3_stmt *statement = prepare(store, CHUNK_GET);
	int found;

	if (statement) {
		sqlite3_bind_int64(statement, 1, object);
		sqlite3_bind_int64(statement, 2, (int64_t)number);
	}
	found = first(store, statement);
	if (found == 1) {
		if (!chunk_unpack(statement, 0, chunk))
			found = -EIO;
		sqlite3_reset(statement);
	}
	return found;
}

int store_chunks_each(struct store *store, int64_t object,
		      int (*each)(void *context, uint64_t number, const struct store_chunk *chunk),
		      void *context)
{
	sqlite3_stmt *statement = prepare(store, CHUNKS_EACH);
	struct store_chunk chunk;
	int result;

	if (statement)
		sqlite3_bind_int64(statement, 1, object);
	result = first(store, statement);
	while (result == 1) {
		if (!chunk_unpack(statement, 1, &chunk)) {
			result = -EIO;
			break;
		}
		result = each(context, (uint64_t)sqlite3_column_int64(statement, 0), &chunk);
		if (result)
			break;
		result = next(store, statement);
	}
	sqlite3_reset(statement);
	return result;
}

int store_undo_add(struct store *store, int64_t object, uint64_t number, uint64_t blocks,
		   const struct store_chunk *before, uint64_t size)
{
	unsigned char packed[CHUNK_PACKED];
	sqlite3_stmt *statement;

	if (store->in_memory || !blocks)
		return 0;
	statement = prepare(store, UNDO_ADD);
	if (statement) {
		sqlite3_bind_int64(statement, 1, ++store->undo);
		sqlite3_bind_int64(statement, 2, object);
		sqlite3_bind_int64(statement, 3, (int64_t)number);
		sqlite3_bind_int64(statement, 4, (int64_t)blocks);
		sqlite3_bind_blob(statement, 5, packed,
				  before ? chunk_pack(before, blocks, packed) : 0, SQLITE_STATIC);
		sqlite3_bind_int64(statement, 6, (int64_t)size);
	}
	return run(store, statement);
}

int store_undo_cut(struct store *store, int64_t object, uint64_t size)
{
	sqlite3_stmt *statement;

	if (store->in_memory)
		return 0;
	statement = prepare(store, UNDO_CUT);
	if (statement) {
		sqlite3_bind_int64(statement, 1, object);
		sqlite3_bind_int64(statement, 2, (int64_t)size);
	}
	return run(store, statement);
}

uint64_t store_synced(const struct store *store)
{
	return store->synced;
}

/* --- Life ------------------------------------------------------------------------------------- */

static const char heap_name[] = "heap", rows_name[] = "rows";
static const char heap_magic[16] = "mmapfs heap 1\n";

/* Whether the folder has anything in it. */
static bool is_empty(int folder)
{
	int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *listing = copy >= 0 ? fdopendir(copy) : NULL;
	const struct dirent *entry;
	bool empty = listing;

	while (listing && (entry = readdir(listing)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			empty = false;
	if (listing)
		closedir(listing);
	else if (copy >= 0)
		close(copy);
	return empty;
}

/* The heap of a folder, opened and locked; made, if the folder is empty. Descriptor, or -1 when a
 * line has said why not. */
static int heap_open(const char *label, const char *path, bool *made)
{
	char magic[sizeof(heap_magic)];
	int folder, heap = -1;
	struct stat st;

	folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0) {
		log_line(LOG_ERR, "%s%s: %s; it must be a folder that you may write", label, path,
			 strerror(errno));
		return -1;
	}
	heap = openat(folder, heap_name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (heap < 0 && errno == ENOENT && !is_empty(folder)) {
		log_line(LOG_ERR, "%s%s: is not empty, and no store of a view; use an empty folder",
			 label, path);
		goto out;
	}
	*made = heap < 0 && errno == ENOENT;
	if (*made)
		heap = openat(folder, heap_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (heap < 0) {
		log_line(LOG_ERR, "%s%s: %s", label, path, strerror(errno));
		goto out;
	}
	if (flock(heap, LOCK_EX | LOCK_NB)) {
		log_line(LOG_ERR, "%s%s: is in use by another mount", label, path);
		goto failed;
	}
	/* (It was killed in the making.) */
	if (fstat(heap, &st) == 0 && st.st_size == 0)
		*made = true;
	if (*made) {
		if (pwrite(heap, heap_magic, sizeof(heap_magic), 0) != sizeof(heap_magic)) {
			log_line(LOG_ERR, "%s%s: %s", label, path, strerror(errno));
			unlinkat(folder, heap_name, 0);
			goto failed;
		}
	} else if (pread(heap, magic, sizeof(magic), 0) != sizeof(magic) ||
		   memcmp(magic, heap_magic, sizeof(magic)) != 0) {
		log_line(LOG_ERR, "%s%s: its heap is damaged, or of a newer version", label, path);
		goto failed;
	}
	goto out;
failed:
	close(heap);
	heap = -1;
out:
	close(folder);
	return heap;
}

static int frames_told(void *context, sqlite3 *rows, const char *name, int frames)
{
	struct store *store = context;

	(void)rows;
	(void)name;
	store->frames = frames;
	return SQLITE_OK;
}

/* Opens the rows, and makes the tables of a new store. 0, or negative errno; nothing is said. */
static int rows_open(struct store *store, const struct store_options *options, bool made)
{
	char *path = NULL;
	int result, flags, fd;

	if (options->folder && asprintf(&path, "%s/%s", options->folder, rows_name) < 0)
		return -ENOMEM;
	/* SQLite gives its log the mode that the rows have. They tell all names. */
	if (path && made) {
		fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd >= 0)
			close(fd);
	}
	flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (made ? SQLITE_OPEN_CREATE : 0);
	result = path ? rows_open_file(&store->rows, path, flags)
		      : sqlite3_open_v2(":memory:", &store->rows, flags, NULL);
	free(path);
	if (result == SQLITE_OK)
		result = sqlite3_exec(store->rows,
				      "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
				      "PRAGMA locking_mode = EXCLUSIVE; PRAGMA temp_store = MEMORY;"
				      "PRAGMA cache_size = -16384;",
				      NULL, NULL, NULL);
	if (result == SQLITE_OK)
		result = rows_init(store->rows);
	/* Checkpoints are made by store_sync(), which tells their errors: SQLite's own do not. */
	if (result == SQLITE_OK && options->folder)
		sqlite3_wal_hook(store->rows, frames_told, store);
	/* In memory the rows may be as much as the blocks. */
	if (result == SQLITE_OK && !options->folder && options->limit != UINT64_MAX) {
		char text[64];

		snprintf(text, sizeof(text), "PRAGMA max_page_count = %ju",
			 (uintmax_t)(options->limit / 4096 + 64));
		result = sqlite3_exec(store->rows, text, NULL, NULL, NULL);
	}
	return error_of(store, result);
}

static bool has_tables(struct store *store)
{
	sqlite3_stmt *statement = NULL;
	bool found = sqlite3_prepare_v2(store->rows, "SELECT 1 FROM sqlite_master", -1, &statement,
					NULL) != SQLITE_OK ||
		     sqlite3_step(statement) == SQLITE_ROW;

	sqlite3_finalize(statement);
	return found;
}

/* That the files are there is to be on the disk before anything in them is told to be. */
static int folder_sync(const char *path)
{
	int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error = folder < 0 || fsync(folder) ? -errno : 0;

	if (folder >= 0)
		close(folder);
	return error;
}

static int store_make(struct store *store, const struct store_options *options)
{
	int error = store_begin(store);

	if (!error)
		error = error_of(store, sqlite3_exec(store->rows, schema, NULL, NULL, NULL));
	if (!error)
		error = meta_set_number(store, "format", FORMAT);
	if (!error)
		error = meta_set_number(store, "end", SLOT_FIRST);
	if (!error)
		error = meta_set_bytes(store, "backing", options->backing->bytes,
				       options->backing->length);
	if (!error)
		error = meta_set_bytes(store, "mark", options->mark, sizeof(*options->mark));
	if (!error)
		error = meta_set_bytes(store, "path", options->backing_path,
				       strlen(options->backing_path));
	if (!error)
		error = store_commit(store);
	store->end = store->reserved = SLOT_FIRST;
	if (!error && options->folder)
		error = store_sync(store);
	if (!error && options->folder)
		error = folder_sync(options->folder);
	return error;
}

static int load_free(struct store *store)
{
	sqlite3_stmt *statement = prepare(store, FREE_EACH);
	int result = first(store, statement);

	while (result == 1) {
		uint64_t slot = (uint64_t)sqlite3_column_int64(statement, 0),
			 count = (uint64_t)sqlite3_column_int64(statement, 1);

		result = runs_add(&store->free, slot, count, false);
		if (result)
			break;
		store->used -= count;
		result = next(store, statement);
	}
	sqlite3_reset(statement);
	return result;
}

/*
 * Where the heap's used slots end, at most *end: the rows have a later one while it is in use. What
 * was taken since the last sync is named by chunks that have something to be undone, or is free.
 */
static int end_find(struct store *store, uint64_t *end)
{
	sqlite3_stmt *statement;
	uint64_t last = 0, slot;
	struct store_chunk chunk;
	int found = meta_get(store, "synced_end", &statement);

	if (found == 1) {
		last = (uint64_t)sqlite3_column_int64(statement, 0);
		sqlite3_reset(statement);
		statement = prepare(store, FREE_LAST);
		found = first(store, statement);
	}
	if (found == 1) {
		slot = (uint64_t)sqlite3_column_int64(statement, 0);
		last = slot > last ? slot : last;
		sqlite3_reset(statement);
	}
	if (found < 0 || last == 0)
		return found;
	statement = prepare(store, UNDO_CHUNKS);
	found = first(store, statement);
	while (found == 1 && chunk_unpack(statement, 0, &chunk)) {
		for (int i = 0; i < STORE_CHUNK; i++)
			if (chunk.slots[i] >= SLOT_FIRST && chunk.slots[i] >= last)
				last = chunk.slots[i] + 1;
		found = next(store, statement);
	}
	sqlite3_reset(statement);
	if (found == 0 && last < *end)
		*end = last;
	store->damaged = false; /* of a chunk: it is told when its file is read */
	return 0;
}

/* For what each store has. */
static int missing(struct store *store)
{
	store->damaged = true;
	return -EIO;
}

/* Whether it is a view of that BACKING: 1, 0, or negative errno. */
static int is_of_backing(struct store *store, const struct store_options *options)
{
	static const unsigned char unknown[sizeof(options->mark->uuid)];
	const struct store_identity *backing = options->backing;
	const struct backing_mark *now = options->mark;
	struct backing_mark mark;
	sqlite3_stmt *statement;
	int found = meta_get(store, "backing", &statement);
	bool same;

	if (found != 1)
		return found ? found : missing(store);
	same = (size_t)sqlite3_column_bytes(statement, 0) == backing->length &&
	       memcmp(sqlite3_column_blob(statement, 0), backing->bytes, backing->length) == 0;
	sqlite3_reset(statement);
	found = meta_get(store, "mark", &statement);
	if (found != 1)
		return found ? found : missing(store);
	if ((size_t)sqlite3_column_bytes(statement, 0) != sizeof(mark)) {
		sqlite3_reset(statement);
		return missing(store);
	}
	memcpy(&mark, sqlite3_column_blob(statement, 0), sizeof(mark));
	sqlite3_reset(statement);
	if (mark.seconds != now->seconds || mark.nanoseconds != now->nanoseconds)
		return 0;
	/* Not each kernel tells it. */
	if (memcmp(mark.uuid, unknown, sizeof(unknown)) != 0 &&
	    memcmp(now->uuid, unknown, sizeof(unknown)) != 0 &&
	    memcmp(mark.uuid, now->uuid, sizeof(unknown)) != 0)
		return 0;
	return same;
}

/* Reads what a store is of. 0, or negative errno; *said: a line has said what is wrong. */
static int store_load(struct store *store, const struct store_options *options, bool *said)
{
	sqlite3_stmt *statement = prepare(store, FORMAT_GET);
	int64_t format = 0;
	int found = first(store, statement);

	if (found == 1) {
		format = sqlite3_column_int64(statement, 0);
		sqlite3_reset(statement);
	}
	if (found == 1 && format > FORMAT) {
		log_line(LOG_ERR, "%s%s: is a store of a newer version of mmapfs", options->label,
			 options->folder);
		*said = true;
	}
	if (found != 1 || format != FORMAT)
		return found < 0 ? found : missing(store);
	found = is_of_backing(store, options);
	if (found == 0) {
		char *path = NULL;

		if (meta_get(store, "path", &statement) == 1) {
			path = column_text(statement, 0);
			sqlite3_reset(statement);
		}
		log_line(LOG_ERR, "%s%s: is a view of another folder (%s)", options->label,
			 options->folder, path ? path : "?");
		free(path);
		*said = true;
		return -EINVAL;
	}
	if (found == 1)
		found = meta_get(store, "end", &statement);
	if (found == 1) {
		uint64_t end = (uint64_t)sqlite3_column_int64(statement, 0);

		sqlite3_reset(statement);
		found = meta_get(store, "synced", &statement);
		if (found == 1) {
			store->synced = (uint64_t)sqlite3_column_int64(statement, 0);
			sqlite3_reset(statement);
		}
		if (found >= 0)
			found = end_find(store, &end);
		if (found >= 0) {
			store->end = store->reserved = end;
			found = 1;
		}
	}
	if (found == 1) {
		found = 0;
		if (store->end * STORE_BLOCK > mmapio_file_size(store->heap))
			found = mmapio_file_resize(store->heap, store->end * STORE_BLOCK,
						   MMAPIO_FOREVER);
		if (found == 0)
			found = rows_undo(store->rows, store->heap);
		store->used = store->end - SLOT_FIRST;
		if (found == 0)
			found = load_free(store);
		/* Slots are free when the disk knows it. */
		return found ? found : store_sync(store);
	}
	return found < 0 ? found : missing(store);
}

/* The log of the rows stays the same file as long as they are open. */
static int rows_log_open(struct store *store, const char *folder)
{
	char *path;

	if (asprintf(&path, "%s/%s-wal", folder, rows_name) < 0)
		return -ENOMEM;
	store->log = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	free(path);
	return store->log < 0 ? -errno : 0;
}

/* Says why a store cannot be opened. */
static void open_failed(const struct store *store, const struct store_options *options, int error)
{
	const int result = sqlite3_errcode(store->rows);
	const bool by_rows = result != SQLITE_OK && result != SQLITE_ROW && result != SQLITE_DONE &&
			     error != -ENOSPC;

	log_line(LOG_ERR, "%s%s: %s%s", options->label, options->folder ? options->folder : "",
		 by_rows && !store->damaged ? "its rows cannot be read: " : "",
		 store->damaged ? "its rows are damaged"
		 : by_rows	? sqlite3_errmsg(store->rows)
				: strerror(-error));
}

static void store_free(struct store *store)
{
	if (store->log >= 0)
		close(store->log);
	for (int i = 0; i < STATEMENTS; i++)
		sqlite3_finalize(store->statement[i]);
	sqlite3_close(store->rows);
	mmapio_file_unref(store->heap);
	free(store->free.run);
	free(store->given.run);
	free(store->taken.run);
	free(store->giving.run);
	free(store);
}

int store_open(struct store **out, const struct store_options *options)
{
	struct mmapio_options heap_options = MMAPIO_OPTIONS_INIT(MMAPIO_READ_WRITE);
	struct store *store = calloc(1, sizeof(*store));
	bool made = true, said = false;
	int heap, error;

	if (!store) {
		log_line(LOG_ERR, "no memory for the view");
		return -ENOMEM;
	}
	store->in_memory = !options->folder;
	store->quiet = true;
	store->log = -1;
	store->limit = options->limit == UINT64_MAX ? UINT64_MAX : options->limit / STORE_BLOCK;
	heap = options->folder ? heap_open(options->label, options->folder, &made)
			       : memfd_create("mmapfs-view", MFD_CLOEXEC);
	if (heap < 0) {
		if (!options->folder)
			log_line(LOG_ERR, "no memory for the view: %s", strerror(errno));
		free(store);
		return -EINVAL;
	}
	error = mmapio_open_fd(&store->heap, heap, &heap_options);
	if (error) {
		close(heap);
		log_line(LOG_ERR, "heap of the view: %s", strerror(-error));
		free(store);
		return error;
	}
	/* One that was killed while it was being made has nothing in it. */
	made = made || mmapio_file_size(store->heap) <= sizeof(heap_magic) + 1;
	error = rows_open(store, options, made);
	if (!error && made)
		made = !has_tables(store);
	if (!error)
		error = made ? store_make(store, options) : store_load(store, options, &said);
	if (!error && options->folder)
		error = rows_log_open(store, options->folder);
	if (error) {
		if (!said)
			open_failed(store, options, error);
		store_free(store);
		return error;
	}
	/* The first change is not to wait for it. (What fails here is told when it is needed.) */
	for (int i = 0; i < STATEMENTS; i++)
		(void)prepare(store, (enum statement)i);
	store->quiet = false;
	*out = store;
	return 0;
}

int store_boot_set(struct store *store, const char *boot, bool *crashed)
{
	sqlite3_stmt *statement;
	int found = meta_get(store, "boot", &statement), error;

	if (found < 0)
		return found;
	*crashed = false;
	if (found == 1) {
		const int length = sqlite3_column_bytes(statement, 0);

		*crashed = length &&
			   (length != (int)strlen(boot) ||
			    memcmp(sqlite3_column_blob(statement, 0), boot, (size_t)length) != 0);
		sqlite3_reset(statement);
	}
	error = store_begin(store);
	if (error)
		return error;
	error = meta_set_bytes(store, "boot", boot, strlen(boot));
	if (!error)
		return store_commit(store);
	store_rollback(store);
	return error;
}

/* Behind the magic, in the block that is there from the beginning. */
#define DISTRUST_PLACE ((off_t)sizeof(heap_magic))

int store_distrust(struct store *store, bool distrust)
{
	const char byte = distrust;

	if (pwrite(store_descriptor(store), &byte, 1, DISTRUST_PLACE) != 1)
		return -errno;
	return mmapio_sync(store->heap, false);
}

int store_is_distrusted(struct store *store)
{
	char byte = 0;

	return pread(store_descriptor(store), &byte, 1, DISTRUST_PLACE) < 0 ? -errno : byte != 0;
}

int store_distrust_folder(const char *folder)
{
	static const char byte = 1;
	char magic[sizeof(heap_magic)], *path;
	int heap, error = 0;

	if (asprintf(&path, "%s/%s", folder, heap_name) < 0)
		return -ENOMEM;
	heap = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	free(path);
	if (heap < 0)
		return -errno;
	if (flock(heap, LOCK_EX | LOCK_NB))
		error = -EBUSY;
	else if (pread(heap, magic, sizeof(magic), 0) != sizeof(magic) ||
		 memcmp(magic, heap_magic, sizeof(magic)) != 0)
		error = -EINVAL;
	else if (pwrite(heap, &byte, 1, DISTRUST_PLACE) != 1 || fdatasync(heap))
		error = -errno;
	close(heap);
	return error;
}

static int note_synced(struct store *store)
{
	int error = store_begin(store);

	if (error)
		return error;
	error = meta_set_number(store, "synced", (int64_t)++store->synced);
	if (!error)
		error = meta_set_number(store, "synced_end", (int64_t)store->end);
	if (!error)
		error = run(store, prepare(store, UNDO_CLEAR));
	if (!error)
		return store_commit(store);
	store_rollback(store);
	return error;
}

int store_sync_rows(struct store *store)
{
	return store->log < 0 || fdatasync(store->log) == 0 ? 0 : -errno;
}

int store_sync(struct store *store)
{
	int error;

	if (store->in_memory)
		return 0;
	error = mmapio_sync(store->heap, false);
	if (error)
		return error;
	/* A commit under FULL syncs the log, with all that was committed before. (One that changes
	 * nothing would not.) */
	error = error_of(store,
			 sqlite3_exec(store->rows, "PRAGMA synchronous = FULL", NULL, NULL, NULL));
	if (!error)
		error = note_synced(store);
	if (!error && (store->frames > FRAMES_MANY || log_is_cramped(store)))
		error = error_of(store,
				 sqlite3_wal_checkpoint_v2(store->rows, NULL,
							   SQLITE_CHECKPOINT_PASSIVE, NULL, NULL));
	(void)sqlite3_exec(store->rows, "PRAGMA synchronous = NORMAL", NULL, NULL, NULL);
	if (error)
		return error;
	runs_release(store, &store->given);
	store->given_slots = 0;
	return 0;
}

int store_close(struct store *store)
{
	int error;

	if (!store)
		return 0;
	/* The slots that were reserved and not used. */
	error = store_begin(store);
	if (!error)
		error = meta_set_number(store, "end", (int64_t)store->end);
	if (!error)
		error = store_commit(store);
	else
		store_rollback(store);
	if (!error)
		error = store_sync(store);
	/* Rows that reach the disk before their blocks would be wrong. */
	if (error)
		sqlite3_db_config(store->rows, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	store_free(store);
	return error;
}
