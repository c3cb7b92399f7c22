/* SPDX-License-Identifier: Apache-2.0 */
/* tool_rows FILE STATEMENT: changes the rows of a store, as sqlite3(1) does that knows of no
 * checksums of pages. */
#include "store_rows.h"
#include "tool.h"

int main(int argc, char **argv)
{
	sqlite3 *rows;
	char *what = NULL;

	if (argc != 3)
		fail("two arguments");
	if (rows_open_file(&rows, argv[1], SQLITE_OPEN_READWRITE) ||
	    sqlite3_exec(rows, argv[2], NULL, NULL, &what) || sqlite3_close(rows))
		fail("%s: %s", argv[2], what ? what : sqlite3_errmsg(rows));
	return 0;
}
