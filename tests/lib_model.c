/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_model.c - long random sequences of operations beside a model (model.h), in every mode, under
 * policies, with sizes around the borders of pages. MODEL_RUNS says how many (200), MODEL_SEED
 * which.
 */
#include "lib_test.h"
#include "model.h"

static unsigned int number_of(const char *name, unsigned int otherwise)
{
	const char *text = getenv(name);

	return text ? (unsigned int)strtoul(text, NULL, 10) : otherwise;
}

START_TEST(operations_do_what_the_model_says)
{
	const unsigned int runs = number_of("MODEL_RUNS", 200) / 8;
	const uint64_t seed = number_of("MODEL_SEED", 1);
	char path[PATH_MAX];

	if (_i % 2)
		ck_assert_int_eq(mmapio_guard_install(), 0);
	test_path(path, "model");
	for (unsigned int run = 0; run < runs; run++) {
		const uint64_t state = (seed * 1000003 + (unsigned int)_i) * 1000003 + run;
		struct model_input input = {.state = state * 0x9e3779b97f4a7c15 | 1};

		/* Of a run that fails this is what repeats it. */
		if (getenv("MODEL_VERBOSE"))
			fprintf(stderr, "MODEL_SEED=%ju: part %d, run %u\n", (uintmax_t)seed, _i,
				run);
		model_run(path, &input, 500);
	}
	unlink(path);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("model");
	TCase *model = test_case(suite, "model");

	test_make_folder();
	tcase_set_timeout(model, 24 * 3600);
	tcase_add_loop_test(model, operations_do_what_the_model_says, 0, 8);
	return test_run(suite);
}
