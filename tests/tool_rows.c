/* SPDX-License-Identifier: Apache-2.0 */
/* tool_rows FILE STATEMENT: reads or changes the rows of a store as sqlite3(1) does, which knows of
 * no checksums of pages. */
#include "store_rows.h"
#include "tool.h"

static int print(void *context, int count, char **values, char **names)
{
	(void)context;
	(void)names;
	for (int i = 0; i < count; i++)
		printf("%s%s", i ? "|" : "", values[i] ? values[i] : "");
	putchar('\n');
	return 0;
}

int main(int argc, char **argv)
{
	sqlite3 *rows;
	char *what = NULL;

	if (argc != 3)
		fail("two arguments");
	if (rows_open_file(&rows, argv[1], SQLITE_OPEN_READWRITE) ||
	    sqlite3_exec(rows, argv[2], print, NULL, &what) || sqlite3_close(rows))
		fail("%s: %s", argv[2], what ? what : sqlite3_errmsg(rows));
	return 0;
}
