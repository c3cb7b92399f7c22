/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_policy.c - whatever the parser of flush policies accepts it writes, and reads again as the
 * same; run by make fuzz
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mmapio.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

static void expect(bool condition)
{
	if (!condition)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	struct mmapio_policy policy = {true, 1, 2, 3}, again;
	char *text = strndup((const char *)data, length), written[MMAPIO_POLICY_TEXT];
	int error = mmapio_policy_parse(&policy, text);

	expect(error == 0 || error == -EINVAL || error == -ERANGE);
	if (error) {
		expect(policy.always && policy.delay_ns == 1 && policy.bytes == 2 &&
		       policy.writes == 3);
	} else {
		expect(mmapio_policy_format(&policy, written, sizeof(written)) ==
		       (int)strlen(written));
		expect(mmapio_policy_parse(&again, written) == 0);
		expect(again.always == policy.always && again.delay_ns == policy.delay_ns &&
		       again.bytes == policy.bytes && again.writes == policy.writes);
	}
	free(text);
	return 0;
}
