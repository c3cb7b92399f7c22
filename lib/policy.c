/* SPDX-License-Identifier: Apache-2.0 */
/* Flush policies as text: what mmapio.h says of mmapio_policy_parse() and _format(). */
#include "error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct unit {
	const char *name;
	size_t field; /* of struct mmapio_policy */
	uint64_t factor;
} units[] = {
	/* the largest of a kind first, for mmapio_policy_format() */
	{"s", offsetof(struct mmapio_policy, delay_ns), 1000000000},
	{"ms", offsetof(struct mmapio_policy, delay_ns), 1000000},
	{"us", offsetof(struct mmapio_policy, delay_ns), 1000},
	{"G", offsetof(struct mmapio_policy, bytes), 1024 * 1024 * 1024},
	{"M", offsetof(struct mmapio_policy, bytes), 1024 * 1024},
	{"K", offsetof(struct mmapio_policy, bytes), 1024},
	{"writes", offsetof(struct mmapio_policy, writes), 1},
};

#define UNITS (sizeof(units) / sizeof(units[0]))

static uint64_t *policy_field(struct mmapio_policy *policy, const struct unit *unit)
{
	return (uint64_t *)((char *)policy + unit->field);
}

/* One limit, which ends at ':' or NUL; *text is moved there. seen: kinds that have been there. */
static int limit_parse(struct mmapio_policy *policy, unsigned int *seen, const char **text)
{
	const char *digits = *text;
	const struct unit *unit;
	char *name;
	uintmax_t number;
	size_t length;

	if (*digits < '0' || *digits > '9') /* strtoumax() would take a sign or a space */
		return -EINVAL;
	errno = 0;
	number = strtoumax(digits, &name, 10);
	length = strcspn(name, ":");
	for (unit = units; unit < units + UNITS; unit++)
		if (strlen(unit->name) == length && memcmp(unit->name, name, length) == 0)
			break;
	if (unit == units + UNITS || (*seen & 1u << unit->field))
		return -EINVAL;
	*seen |= 1u << unit->field;
	*text = name + length;
	if (errno == ERANGE || number == 0 || number > INT64_MAX / unit->factor)
		return -ERANGE;
	*policy_field(policy, unit) = number * unit->factor;
	return 0;
}

int mmapio_policy_parse(struct mmapio_policy *out, const char *text)
{
	struct mmapio_policy policy = {0};
	unsigned int seen = 0;
	int range_error = 0;

	if (strcmp(text, "manual") == 0 || strcmp(text, "never") == 0) {
		*out = policy;
		return 0;
	}
	if (strcmp(text, "always") == 0) {
		policy.always = true;
		*out = policy;
		return 0;
	}
	for (;;) {
		int error = limit_parse(&policy, &seen, &text);

		if (error == -ERANGE)
			range_error = error; /* unless the form of the rest is wrong */
		else if (error)
			return error;
		if (*text == '\0')
			break;
		text++;
	}
	if (range_error)
		return range_error;
	*out = policy;
	return 0;
}

static uint64_t round_up(uint64_t number, uint64_t factor)
{
	return number > UINT64_MAX - factor ? number / factor * factor
					    : (number + factor - 1) / factor * factor;
}

int mmapio_policy_format(const struct mmapio_policy *policy, char *text, size_t size)
{
	struct mmapio_policy rounded = *policy;
	char whole[MMAPIO_POLICY_TEXT];
	size_t length = 0;

	rounded.delay_ns = round_up(policy->delay_ns, 1000);
	rounded.bytes = round_up(policy->bytes, 1024);
	if (policy->always)
		length = (size_t)snprintf(whole, sizeof(whole), "always");
	for (const struct unit *unit = units; !policy->always && unit < units + UNITS; unit++) {
		uint64_t *field = policy_field(&rounded, unit);

		if (*field == 0 || *field % unit->factor != 0)
			continue;
		length +=
			(size_t)snprintf(whole + length, sizeof(whole) - length, "%s%" PRIu64 "%s",
					 length ? ":" : "", *field / unit->factor, unit->name);
		*field = 0;
	}
	if (length == 0)
		length = (size_t)snprintf(whole, sizeof(whole), "manual");
	if (length >= size)
		return -ERANGE;
	memcpy(text, whole, length + 1);
	return (int)length;
}
