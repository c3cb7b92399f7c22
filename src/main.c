/* SPDX-License-Identifier: Apache-2.0 */
/* mmapfs: a file system that serves a folder out of memory-mapped regions. */
#include "options.h"
#include "session.h"
#include "store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct options options;
	int status = EXIT_FAILURE, descriptor;

	/* If some of the first three are closed, what is opened now must not take their place. */
	while ((descriptor = open("/dev/null", O_RDWR)) >= 0 && descriptor <= STDERR_FILENO)
		;
	if (descriptor >= 0)
		close(descriptor);

	if (options_parse(&options, argc, argv) == 0) {
		if (options.help) {
			options_help();
			status = EXIT_SUCCESS;
		} else if (options.version) {
			printf("mmapfs %s, libfuse %s\n", PACKAGE_VERSION, fuse_pkgversion());
			status = EXIT_SUCCESS;
		} else if (options.check) {
			status = store_check(options.check);
		} else {
			status = session_run(&options);
		}
	}
	options_free(&options);
	return status;
}
