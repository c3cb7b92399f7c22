/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of the rows with checksums (store_rows.h). A file system for SQLite that hands all on to
 * the usual one; of the data base itself each page ends in a checksum of the rest and of its place,
 * which is set when it is written and proved when it is read: SQLite alone takes a page that says
 * it has fewer rows for one that has. (The log has checksums of its own.)
 */
#include "store_rows.h"

#include <pthread.h>
#include <string.h>
#include <xxhash.h>

/* The last bytes of each page, which SQLite leaves alone. */
#define PAGE	  4096
#define SUM_BYTES 8

struct pages_file {
	sqlite3_file base;
	sqlite3_file *real; /* behind this */
};

static sqlite3_vfs pages, *usual;

static sqlite3_file *real_of(sqlite3_file *file)
{
	return ((struct pages_file *)file)->real;
}

static uint64_t sum_of(const void *page, sqlite3_int64 offset)
{
	return XXH3_64bits_withSeed(page, PAGE - SUM_BYTES, (XXH64_hash_t)offset);
}

static int pages_read(sqlite3_file *file, void *bytes, int count, sqlite3_int64 offset)
{
	const int result = real_of(file)->pMethods->xRead(real_of(file), bytes, count, offset);
	uint64_t sum;

	/* (Less than that is the header, which is read again with its page.) */
	if (result != SQLITE_OK || count != PAGE || offset % PAGE != 0)
		return result;
	memcpy(&sum, (const char *)bytes + PAGE - SUM_BYTES, SUM_BYTES);
	return sum == sum_of(bytes, offset) ? SQLITE_OK : SQLITE_IOERR_DATA;
}

static int pages_write(sqlite3_file *file, const void *bytes, int count, sqlite3_int64 offset)
{
	char page[PAGE];
	uint64_t sum;

	if (count == PAGE && offset % PAGE == 0) {
		memcpy(page, bytes, PAGE - SUM_BYTES);
		sum = sum_of(page, offset);
		memcpy(page + PAGE - SUM_BYTES, &sum, SUM_BYTES);
		bytes = page;
	}
	return real_of(file)->pMethods->xWrite(real_of(file), bytes, count, offset);
}

static int pages_close(sqlite3_file *file)
{
	return real_of(file)->pMethods->xClose(real_of(file));
}

static int pages_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	return real_of(file)->pMethods->xTruncate(real_of(file), size);
}

static int pages_sync(sqlite3_file *file, int flags)
{
	return real_of(file)->pMethods->xSync(real_of(file), flags);
}

static int pages_size(sqlite3_file *file, sqlite3_int64 *size)
{
	return real_of(file)->pMethods->xFileSize(real_of(file), size);
}

static int pages_lock(sqlite3_file *file, int lock)
{
	return real_of(file)->pMethods->xLock(real_of(file), lock);
}

static int pages_unlock(sqlite3_file *file, int lock)
{
	return real_of(file)->pMethods->xUnlock(real_of(file), lock);
}

static int pages_check_lock(sqlite3_file *file, int *locked)
{
	return real_of(file)->pMethods->xCheckReservedLock(real_of(file), locked);
}

static int pages_control(sqlite3_file *file, int what, void *argument)
{
	return real_of(file)->pMethods->xFileControl(real_of(file), what, argument);
}

static int pages_sector_size(sqlite3_file *file)
{
	return real_of(file)->pMethods->xSectorSize(real_of(file));
}

static int pages_device(sqlite3_file *file)
{
	return real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}

static int pages_shm_map(sqlite3_file *file, int region, int size, int extend,
			 void volatile **memory)
{
	return real_of(file)->pMethods->xShmMap(real_of(file), region, size, extend, memory);
}

static int pages_shm_lock(sqlite3_file *file, int offset, int count, int flags)
{
	return real_of(file)->pMethods->xShmLock(real_of(file), offset, count, flags);
}

static void pages_shm_barrier(sqlite3_file *file)
{
	real_of(file)->pMethods->xShmBarrier(real_of(file));
}

static int pages_shm_unmap(sqlite3_file *file, int remove)
{
	return real_of(file)->pMethods->xShmUnmap(real_of(file), remove);
}

/* (Not of version 3: pages in mappings of SQLite's would not be proved.) */
static const sqlite3_io_methods methods = {
	.iVersion = 2,
	.xClose = pages_close,
	.xRead = pages_read,
	.xWrite = pages_write,
	.xTruncate = pages_truncate,
	.xSync = pages_sync,
	.xFileSize = pages_size,
	.xLock = pages_lock,
	.xUnlock = pages_unlock,
	.xCheckReservedLock = pages_check_lock,
	.xFileControl = pages_control,
	.xSectorSize = pages_sector_size,
	.xDeviceCharacteristics = pages_device,
	.xShmMap = pages_shm_map,
	.xShmLock = pages_shm_lock,
	.xShmBarrier = pages_shm_barrier,
	.xShmUnmap = pages_shm_unmap,
};

static int pages_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *file, int flags,
		      int *out_flags)
{
	struct pages_file *own = (struct pages_file *)file;
	int result;

	(void)vfs;
	if (!(flags & SQLITE_OPEN_MAIN_DB))
		return usual->xOpen(usual, name, file, flags, out_flags);
	own->real = (sqlite3_file *)(own + 1);
	own->base.pMethods = NULL;
	result = usual->xOpen(usual, name, own->real, flags, out_flags);
	if (own->real->pMethods)
		own->base.pMethods = &methods;
	return result;
}

static void register_once(void)
{
	usual = sqlite3_vfs_find(NULL);
	if (!usual)
		return;
	pages = *usual;
	pages.szOsFile += (int)sizeof(struct pages_file);
	pages.zName = PAGES_VFS;
	pages.pNext = NULL;
	pages.xOpen = pages_open;
	(void)sqlite3_vfs_register(&pages, 0);
}

int rows_open_file(sqlite3 **rows, const char *path, int flags)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int reserve = SUM_BYTES, result;

	pthread_once(&once, register_once);
	result = sqlite3_open_v2(path, rows, flags, PAGES_VFS);
	if (result == SQLITE_OK)
		result = sqlite3_file_control(*rows, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserve);
	return result;
}
