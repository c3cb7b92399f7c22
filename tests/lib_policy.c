/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_policy.c - tests of mmapio_policy_parse() and mmapio_policy_format()
 *
 * Every good and bad form of the text, its limits, that a failure leaves the result alone, and that
 * what one of the two writes the other reads back.
 */
#include "lib_test.h"

struct good {
	const char *text;
	struct mmapio_policy policy;
};

static const struct good good[] = {
	{"manual", {false, 0, 0, 0}},
	{"never", {false, 0, 0, 0}},
	{"always", {true, 0, 0, 0}},
	{"10ms", {false, 10 * MILLISECOND, 0, 0}},
	{"5us", {false, 5000, 0, 0}},
	{"2s", {false, 2 * SECOND, 0, 0}},
	{"64K", {false, 0, 64 * KIB, 0}},
	{"4M", {false, 0, 4 * MIB, 0}},
	{"1G", {false, 0, GIB, 0}},
	{"100writes", {false, 0, 0, 100}},
	{"1writes", {false, 0, 0, 1}},
	{"10ms:4M", {false, 10 * MILLISECOND, 4 * MIB, 0}},
	{"4M:10ms", {false, 10 * MILLISECOND, 4 * MIB, 0}},
	{"3writes:2s", {false, 2 * SECOND, 0, 3}},
	{"64K:7writes", {false, 0, 64 * KIB, 7}},
	{"10ms:4M:100writes", {false, 10 * MILLISECOND, 4 * MIB, 100}},
	{"10ms:100writes:4M", {false, 10 * MILLISECOND, 4 * MIB, 100}},
	{"4M:10ms:100writes", {false, 10 * MILLISECOND, 4 * MIB, 100}},
	{"4M:100writes:10ms", {false, 10 * MILLISECOND, 4 * MIB, 100}},
	{"100writes:10ms:4M", {false, 10 * MILLISECOND, 4 * MIB, 100}},
	{"100writes:4M:10ms", {false, 10 * MILLISECOND, 4 * MIB, 100}},
	/* the largest that fit into int64_t */
	{"9223372036s", {false, 9223372036 * SECOND, 0, 0}},
	{"9223372036854ms", {false, 9223372036854 * MILLISECOND, 0, 0}},
	{"9223372036854775us", {false, 9223372036854775 * 1000ull, 0, 0}},
	{"8589934591G", {false, 0, 8589934591 * GIB, 0}},
	{"8796093022207M", {false, 0, 8796093022207 * MIB, 0}},
	{"9007199254740991K", {false, 0, 9007199254740991 * KIB, 0}},
};

static const char *const invalid[] = {
	"",
	":",
	"::",
	"10",
	"ms",
	"K",
	"writes",
	"10parsecs",
	"10ns",
	"10m",
	"10h",
	"4T",
	"4B",
	"4KB",
	"4KiB",
	"64k",
	"4m",
	"1g",
	"10MS",
	"10Ms",
	"10S",
	"1write",
	"1Writes",
	"1 writes",
	"-1ms",
	"+1ms",
	" 1ms",
	"1ms ",
	"1 ms",
	"\t1ms",
	"1ms\n",
	"1.5s",
	"1,5s",
	"1e3us",
	"0x10ms",
	"1_000ms",
	"10ms5",
	"10ms4M",
	"10ms,4M",
	"10ms;4M",
	"10ms: 4M",
	"10ms :4M",
	"always:",
	":always",
	"Always",
	"alway",
	"alwayss",
	"manual:",
	"Manual",
	"manuals",
	"never:",
	"neve",
	"10ms:",
	":10ms",
	"10ms::4M",
	"10ms:4M:",
	"10ms:20ms",
	"10ms:10ms",
	"1s:20ms",
	"4M:64K",
	"1writes:2writes",
	"10ms:4M:3writes:1s",
	"10ms:4M:3writes:4M",
	"manual:10ms",
	"10ms:manual",
	"never:4M",
	"always:10ms",
	"10ms:always",
	"always:always",
	"manual:never",
	"10ms:4",
	"0",
	"-0ms",
	"0x0ms",
	"\xd9\xa1ms",
	/* a number that is out of range does not hide that the form is wrong */
	"0ms:4Q",
	"0ms:0ms",
	"0ms:",
	"0parsecs",
	"99999999999999999999999parsecs",
	"99999999999999999999999",
	"99999999999999999999999ms:",
	"4Q:0ms",
};

static const char *const out_of_range[] = {
	"0ms",
	"0us",
	"0s",
	"0K",
	"0M",
	"0G",
	"0writes",
	"00ms",
	"10ms:0K",
	"0K:10ms",
	"1s:4M:0writes",
	/* one beyond the largest */
	"9223372037s",
	"9223372036855ms",
	"9223372036854776us",
	"8589934592G",
	"8796093022208M",
	"9007199254740992K",
	/* beyond 64 bits, some of which come out small when the product wraps */
	"18446744073710ms",
	"18446744074s",
	"18446744073709552us",
	"17179869184G",
	"17179869185G",
	"17592186044417M",
	"18014398509481985K",
	/* beyond 64 bits before the unit */
	"18446744073709551616ms",
	"18446744073709551617ms",
	"18446744073709551617K",
	"18446744073709551616writes",
	"18446744073709551617writes",
	"99999999999999999999999s",
	"100000000000000000000000000000000000000000000000000000000000000000000000000000000000ms",
	"10ms:99999999999999999999999G",
};

static void assert_same(const struct mmapio_policy *a, const struct mmapio_policy *b)
{
	ck_assert_int_eq(a->always, b->always);
	ck_assert_uint_eq(a->delay_ns, b->delay_ns);
	ck_assert_uint_eq(a->bytes, b->bytes);
	ck_assert_uint_eq(a->writes, b->writes);
}

START_TEST(parse_reads_good_forms)
{
	struct mmapio_policy policy;

	memset(&policy, 0xa5, sizeof(policy)); /* every field must be set, also those not named */
	policy.always = true;
	ck_assert_msg(mmapio_policy_parse(&policy, good[_i].text) == 0, "%s", good[_i].text);
	assert_same(&policy, &good[_i].policy);
}
END_TEST

static void assert_refused(const char *text, int error)
{
	const struct mmapio_policy before = {true, 0x1111, 0x2222, 0x3333};
	struct mmapio_policy policy = before;
	const int result = mmapio_policy_parse(&policy, text);

	ck_assert_msg(result == error, "\"%s\" gave %d, not %d", text, result, error);
	assert_same(&policy, &before);
}

START_TEST(parse_refuses_bad_forms)
{
	assert_refused(invalid[_i], -EINVAL);
}
END_TEST

START_TEST(parse_refuses_numbers_out_of_range)
{
	assert_refused(out_of_range[_i], -ERANGE);
}
END_TEST

/* Fails if the text is read by a function that obeys the locale or skips what it must not. */
START_TEST(parse_refuses_every_foreign_byte)
{
	char text[] = "10ms?";

	for (int byte = 1; byte < 256; byte++) {
		text[4] = (char)byte;
		assert_refused(text, -EINVAL);
	}
	for (int byte = 1; byte < 256; byte++) {
		char front[] = "?10ms";

		front[0] = (char)byte;
		if (byte >= '0' && byte <= '9')
			continue;
		assert_refused(front, -EINVAL);
	}
}
END_TEST

static void assert_format(struct mmapio_policy policy, const char *expected)
{
	char text[MMAPIO_POLICY_TEXT];

	ck_assert_int_eq(mmapio_policy_format(&policy, text, sizeof(text)), (int)strlen(expected));
	ck_assert_str_eq(text, expected);
}

START_TEST(format_uses_the_largest_exact_unit)
{
	assert_format((struct mmapio_policy){.always = true}, "always");
	assert_format((struct mmapio_policy){.delay_ns = 10 * MILLISECOND}, "10ms");
	assert_format((struct mmapio_policy){.delay_ns = SECOND}, "1s");
	assert_format((struct mmapio_policy){.delay_ns = 1500 * MILLISECOND}, "1500ms");
	assert_format((struct mmapio_policy){.delay_ns = 1500000}, "1500us");
	assert_format((struct mmapio_policy){.delay_ns = 120 * SECOND}, "120s");
	assert_format((struct mmapio_policy){.bytes = 64 * KIB}, "64K");
	assert_format((struct mmapio_policy){.bytes = 1024 * KIB}, "1M");
	assert_format((struct mmapio_policy){.bytes = 1025 * KIB}, "1025K");
	assert_format((struct mmapio_policy){.bytes = 1024 * MIB}, "1G");
	assert_format((struct mmapio_policy){.bytes = 1536 * MIB}, "1536M");
	assert_format((struct mmapio_policy){.writes = 100}, "100writes");
}
END_TEST

START_TEST(format_rounds_up_to_what_has_a_unit)
{
	assert_format((struct mmapio_policy){.delay_ns = 1}, "1us");
	assert_format((struct mmapio_policy){.delay_ns = 1001}, "2us");
	assert_format((struct mmapio_policy){.delay_ns = 999999}, "1ms");
	assert_format((struct mmapio_policy){.bytes = 1}, "1K");
	assert_format((struct mmapio_policy){.bytes = 1025}, "2K");
	assert_format((struct mmapio_policy){.bytes = MIB - 1}, "1M");
}
END_TEST

START_TEST(format_of_nothing_reads_back_as_manual)
{
	const struct mmapio_policy manual = {false, 0, 0, 0};
	struct mmapio_policy again = {true, 1, 1, 1};
	char text[MMAPIO_POLICY_TEXT];

	ck_assert_int_gt(mmapio_policy_format(&manual, text, sizeof(text)), 0);
	ck_assert_int_eq(mmapio_policy_parse(&again, text), 0);
	assert_same(&again, &manual);
}
END_TEST

START_TEST(format_tells_when_it_has_no_room)
{
	const struct mmapio_policy policy = {false, 10 * MILLISECOND, 4 * MIB, 100};
	char text[MMAPIO_POLICY_TEXT];
	const int length = mmapio_policy_format(&policy, text, sizeof(text));

	ck_assert_int_eq(length, (int)strlen(text));
	ck_assert_int_eq(length, (int)strlen("10ms:4M:100writes"));
	for (int size = 0; size <= length; size++) {
		memset(text, '#', sizeof(text));
		ck_assert_int_eq(mmapio_policy_format(&policy, text, (size_t)size), -ERANGE);
		for (size_t i = (size_t)size; i < sizeof(text); i++)
			ck_assert_int_eq(text[i], '#');
	}
	memset(text, '#', sizeof(text));
	ck_assert_int_eq(mmapio_policy_format(&policy, text, (size_t)length + 1), length);
	ck_assert_int_eq(text[length], '\0');
	ck_assert_int_eq(text[length + 1], '#');
}
END_TEST

START_TEST(format_always_has_room_enough)
{
	const uint64_t extremes[] = {
		1, 1023, INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX - 1, UINT64_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(extremes); i++) {
		const struct mmapio_policy policy = {false, extremes[i], extremes[i], extremes[i]};
		char text[MMAPIO_POLICY_TEXT];

		ck_assert_int_gt(mmapio_policy_format(&policy, text, sizeof(text)), 0);
	}
}
END_TEST

START_TEST(what_is_formatted_reads_back_the_same)
{
	uint64_t random = 1;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct mmapio_policy again;
		char text[MMAPIO_POLICY_TEXT];

		ck_assert_int_gt(mmapio_policy_format(&good[i].policy, text, sizeof(text)), 0);
		ck_assert_int_eq(mmapio_policy_parse(&again, text), 0);
		assert_same(&again, &good[i].policy);
	}
	for (int i = 0; i < 20000; i++) {
		const uint64_t kinds = 1 + test_below(&random, 7);
		struct mmapio_policy policy = {false, 0, 0, 0};
		struct mmapio_policy again;
		char text[MMAPIO_POLICY_TEXT];

		if (kinds & 1)
			policy.delay_ns = 1000 * (1 + (test_below(&random, INT64_MAX / 1000) >>
						       test_below(&random, 50)));
		if (kinds & 2)
			policy.bytes = KIB << test_below(&random, 53);
		if (kinds & 4)
			policy.writes = 1 + (test_random(&random) >> 1 >> test_below(&random, 62));
		ck_assert_int_gt(mmapio_policy_format(&policy, text, sizeof(text)), 0);
		ck_assert_msg(mmapio_policy_parse(&again, text) == 0, "%s", text);
		assert_same(&again, &policy);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("policy");
	TCase *parse = test_case(suite, "parse");
	TCase *format = test_case(suite, "format");

	tcase_add_loop_test(parse, parse_reads_good_forms, 0, (int)ARRAY_SIZE(good));
	tcase_add_loop_test(parse, parse_refuses_bad_forms, 0, (int)ARRAY_SIZE(invalid));
	tcase_add_loop_test(parse, parse_refuses_numbers_out_of_range, 0,
			    (int)ARRAY_SIZE(out_of_range));
	tcase_add_test(parse, parse_refuses_every_foreign_byte);
	tcase_add_test(format, format_uses_the_largest_exact_unit);
	tcase_add_test(format, format_rounds_up_to_what_has_a_unit);
	tcase_add_test(format, format_of_nothing_reads_back_as_manual);
	tcase_add_test(format, format_tells_when_it_has_no_room);
	tcase_add_test(format, format_always_has_room_enough);
	tcase_add_test(format, what_is_formatted_reads_back_the_same);
	return test_run(suite);
}
