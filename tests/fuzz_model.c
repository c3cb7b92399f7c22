/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_model.c - operations that a fuzzer makes up, beside a model (model.h); run by make fuzz */
#include "model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	static char path[PATH_MAX];
	struct model_input input = {.data = data, .length = length};

	if (!path[0]) {
		const char *folder = getenv("TMPDIR");

		snprintf(path, sizeof(path), "%s/mmapio-fuzz.%d", folder ? folder : "/var/tmp",
			 (int)getpid());
		if (mmapio_guard_install())
			abort();
	}
	model_run(path, &input, 1000);
	unlink(path);
	return 0;
}
