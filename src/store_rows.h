/* SPDX-License-Identifier: Apache-2.0 */
/* What the store and its check both know of the rows: each has a checksum of its columns. */
#ifndef STORE_ROWS_H
#define STORE_ROWS_H

#include <sqlite3.h>

/* What row_sum() is of, table by table. (An object's number is not known when it is added.) */
#define META_COLUMNS "key, value"
#define OBJECT_BASE                                                                                \
	"base, base_path, base_size, base_mtime, base_mtime_ns, base_ctime, base_ctime_ns"
#define OBJECT_COLUMNS                                                                             \
	OBJECT_BASE ", ino, mode, uid, gid, device, links, size, blocks, atime, atime_ns, mtime,"  \
		    " mtime_ns, ctime, ctime_ns, cut, target, parent, has"
#define NAME_COLUMNS  "folder, name, object"
#define XATTR_COLUMNS "object, name, value"
#define CHUNK_COLUMNS "object, chunk, slots"
#define FREE_COLUMNS  "slot, count"

/* Makes row_sum(...) known to SQLite. A result of SQLite's. */
int rows_init(sqlite3 *rows);

#endif
