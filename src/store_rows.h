/* SPDX-License-Identifier: Apache-2.0 */
/* What all of the store knows of the rows: each has a checksum of its columns. */
#ifndef STORE_ROWS_H
#define STORE_ROWS_H

#include "store.h"

#include <sqlite3.h>

/* What row_sum() is of, table by table. (An object's number is not known when it is added.) */
#define META_COLUMNS "key, value"
#define OBJECT_BASE  "layer, base, base_path" OBJECT_WAS
#define OBJECT_WAS   ", base_size, base_mtime, base_mtime_ns, base_ctime, base_ctime_ns"
#define OBJECT_REST                                                                                \
	", ino, mode, uid, gid, device, links, size, blocks, atime, atime_ns, mtime,"              \
	" mtime_ns, ctime, ctime_ns, cut, target, parent, has"
#define OBJECT_COLUMNS	 OBJECT_BASE OBJECT_REST
#define OBJECT_BUT_PLACE OBJECT_WAS OBJECT_REST /* what follows base_path */
#define NAME_COLUMNS	 "folder, name, object"
#define XATTR_COLUMNS	 "object, name, value"
#define CHUNK_COLUMNS	 "object, chunk, slots"
#define SNAP_COLUMNS                                                                               \
	"epoch, name, instant, instant_ns, settled, settled_ns, state, read_only, on_disk"
#define HOT_COLUMNS  "object, item"
#define FREE_COLUMNS "slot, count"
#define UNDO_COLUMNS "id, object, chunk, blocks, slots, size"

/* Opens the file of the rows, each page of which has a checksum: SQLITE_IOERR_DATA is that it has
 * another one. A result of SQLite's; *rows is to be closed whatever it is. */
#define PAGES_VFS "mmapfs-pages"
int rows_open_file(sqlite3 **rows, const char *path, int flags);

/* Makes row_sum(...) known to SQLite. A result of SQLite's. */
int rows_init(sqlite3 *rows);

/*
 * After a power cut: blocks that were changed since the last sync and are not what they should be
 * become what they were then; a file ends where it ended then, or where the first of them is that
 * is behind that. Says what it has done. 0, or negative errno and what SQLite says.
 */
int rows_undo(sqlite3 *rows, struct mmapio_file *heap);

/* What is hot (store.h) and not kept becomes lost; says of what. 0, or negative errno and what
 * SQLite says. Within a transaction. */
int rows_lose(sqlite3 *rows);

/* Bits of an object's column "has". */
enum {
	HAS_NAMES = 1,
	HAS_XATTRS = 2,
	HAS_BLOCKS = 4,
	LOST_NAMES = 8,
	LOST_XATTRS = 16,
	LOST_BLOCKS = 32,
};

/*
 * Blocks of a chunk (a bit for each) as a value of a column: which of them are not SLOT_BASE, in 8
 * bytes, then their slots, then their checksums; nothing where none is. Its length.
 */
#define CHUNK_PACKED (sizeof(uint64_t) + sizeof(struct store_chunk))
int chunk_pack(const struct store_chunk *chunk, uint64_t blocks, unsigned char *packed);
/* A column; those that it does not name are SLOT_BASE. False: it is no such value. */
bool chunk_unpack(sqlite3_stmt *statement, int at, struct store_chunk *chunk);

#endif
