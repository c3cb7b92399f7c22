/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_model.c - long random sequences of operations beside a model (model.h), in every mode, under
 * policies, with sizes around the borders of pages. MODEL_RUNS says how many (200), MODEL_SEED
 * which.
 */
#include "lib_test.h"

#include <dirent.h>

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

/* What fuzzing has found worth keeping. */
START_TEST(operations_that_were_found_by_fuzzing)
{
	const char *source = getenv("srcdir");
	char folder_path[PATH_MAX], path[PATH_MAX];
	unsigned int count = 0;
	struct dirent *entry;
	DIR *folder;

	ck_assert_int_eq(mmapio_guard_install(), 0);
	test_path(path, "model");
	snprintf(folder_path, sizeof(folder_path), "%s/tests/corpus/model", source ? source : ".");
	folder = opendir(folder_path);
	ck_assert_ptr_nonnull(folder);
	while ((entry = readdir(folder))) {
		struct model_input input = {0};
		char name[2 * PATH_MAX];
		void *bytes;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", folder_path, entry->d_name);
		ck_assert_int_eq(mmapio_load(name, &bytes, &input.length), 0);
		input.data = bytes;
		model_run(path, &input, 1000);
		free(bytes);
		count++;
	}
	closedir(folder);
	ck_assert_uint_gt(count, 0);
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
	tcase_add_test(model, operations_that_were_found_by_fuzzing);
	return test_run(suite);
}
