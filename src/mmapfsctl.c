/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mmapfsctl: what one asks of a mount beside reading and writing. Knows a mount by its folder
 * alone, and asks by system calls: folders are made, renamed and removed in the one that the views
 * are in, and what they are is told by extended attributes that are not listed ("mmapfs.").
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
	"usage: mmapfsctl snapshot create [--read-only] MOUNTPOINT NAME\n"
	"       mmapfsctl snapshot list [--json] MOUNTPOINT\n"
	"       mmapfsctl snapshot rename MOUNTPOINT NAME NEW-NAME\n"
	"       mmapfsctl snapshot remove MOUNTPOINT NAME...\n"
	"\n"
	"Makes, lists, renames and removes point-in-time views of what is mounted at\n"
	"MOUNTPOINT, as mkdir, ls, mv and rmdir do in MOUNTPOINT/.snap. A view of\n"
	"--read-only cannot be written. list tells of each view since when it is, its\n"
	"state (whole, given up), whether it is to be read only, and its room in bytes;\n"
	"below it, of which files something was lost when the system ended.\n";

/* The folder that the views of a mount are in, to be freed; NULL: a line has said why not. */
static char *folder_of(const char *mountpoint)
{
	char name[256], *folder;
	ssize_t length = getxattr(mountpoint, "mmapfs.snapname", name, sizeof(name) - 1);

	if (length < 0) {
		fprintf(stderr, "mmapfsctl: %s: %s\n", mountpoint,
			errno == ENODATA || errno == EOPNOTSUPP
				? "no mount of mmapfs with point-in-time views"
				: strerror(errno));
		return NULL;
	}
	name[length] = '\0';
	if (asprintf(&folder, "%s/%s", mountpoint, name) < 0)
		return NULL;
	return folder;
}

static char *path_of(const char *folder, const char *name)
{
	char *path;

	if (!*name || strchr(name, '/')) {
		fprintf(stderr, "mmapfsctl: %s: not a name\n", name);
		return NULL;
	}
	return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

static int failed(const char *path)
{
	fprintf(stderr, "mmapfsctl: %s: %s\n", path, strerror(errno));
	return EXIT_FAILURE;
}

static int create(const char *folder, const char *name, bool read_only)
{
	char *path = path_of(folder, name);
	int status = EXIT_SUCCESS;

	if (!path)
		return EXIT_FAILURE;
	umask(0);
	if (mkdir(path, read_only ? 0555 : 0755))
		status = failed(path);
	free(path);
	return status;
}

static int rename_one(const char *folder, const char *name, const char *new_name)
{
	char *path = path_of(folder, name), *new_path = path_of(folder, new_name);
	int status = path && new_path ? EXIT_SUCCESS : EXIT_FAILURE;

	if (!status && rename(path, new_path))
		status = failed(path);
	free(path);
	free(new_path);
	return status;
}

static int remove_all(const char *folder, char *const *names)
{
	int status = EXIT_SUCCESS;

	for (; *names; names++) {
		char *path = path_of(folder, *names);

		if (!path)
			status = EXIT_FAILURE;
		else if (rmdir(path))
			status = failed(path);
		free(path);
	}
	return status;
}

static void print_json_string(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putchar('\\');
		putchar(*text);
	}
	putchar('"');
}

/* What was lost of an object, as the mount tells of it: "WHAT PATH". */
static void print_lost(const char *record, bool json, bool is_first)
{
	static const char *const names[] = {"names", "extended attributes", "bytes"};
	static const char letters[] = "nxb";
	const char *path = strchr(record, ' '), *comma = "";

	if (!path)
		return;
	printf(json ? "%s{\"path\": " : "    lost: %s", json && !is_first ? ", " : "");
	if (json) {
		print_json_string(path + 1);
		printf(", \"lost\": [");
	}
	for (int i = 0; letters[i]; i++) {
		const char *found = strchr(record, letters[i]);

		if (!found || found > path)
			continue;
		printf(json ? "%s\"%s\"" : "%s%s", comma, names[i]);
		comma = ", ";
	}
	if (json)
		printf("]}");
	else
		printf(" of %s\n", path + 1);
}

static void print_all_lost(const char *folder, unsigned int view, bool json)
{
	char attribute[64], record[PATH_MAX + 16];
	ssize_t length;

	for (unsigned int i = 0;; i++) {
		snprintf(attribute, sizeof(attribute), "mmapfs.lost.%u.%u", view, i);
		length = getxattr(folder, attribute, record, sizeof(record) - 1);
		if (length < 0)
			break;
		record[length] = '\0';
		print_lost(record, json, i == 0);
	}
}

/* A view, as the mount tells of it: "SECONDS.NANOSECONDS STATE ro|rw BYTES LOST NAME". */
static int print_view(const char *folder, unsigned int view, const char *record, bool json)
{
	int64_t seconds;
	uint64_t nanoseconds, room, lost;
	char state[32], mode[8], when[32];
	struct tm instant;
	time_t time;
	int at = 0;

	if (sscanf(record, "%" SCNd64 ".%" SCNu64 " %31s %7s %" SCNu64 " %" SCNu64 " %n", &seconds,
		   &nanoseconds, state, mode, &room, &lost, &at) != 6 ||
	    !at)
		return -1;
	time = (time_t)seconds;
	gmtime_r(&time, &instant);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &instant);
	if (!json) {
		printf("%s.%03" PRIu64 "Z  %-8s  %s  %12" PRIu64 "  %s\n", when,
		       nanoseconds / 1000000, state, mode, room, record + at);
		print_all_lost(folder, view, json);
		return 0;
	}
	printf("%s\n  {\"name\": ", view ? "," : "");
	print_json_string(record + at);
	printf(", \"instant\": \"%s.%09" PRIu64 "Z\", \"state\": \"%s\", \"read_only\": %s, "
	       "\"room\": %" PRIu64 ", \"lost\": [",
	       when, nanoseconds, state, strcmp(mode, "ro") == 0 ? "true" : "false", room);
	print_all_lost(folder, view, json);
	printf("]}");
	return 0;
}

static int list(const char *folder, bool json)
{
	char attribute[64], record[PATH_MAX + 16];
	ssize_t length;

	if (json)
		printf("[");
	for (unsigned int i = 0;; i++) {
		snprintf(attribute, sizeof(attribute), "mmapfs.view.%u", i);
		length = getxattr(folder, attribute, record, sizeof(record) - 1);
		if (length < 0 && errno == ENODATA)
			break;
		if (length < 0)
			return failed(folder);
		record[length] = '\0';
		if (print_view(folder, i, record, json)) {
			fprintf(stderr, "mmapfsctl: %s: a mount of another version of mmapfs\n",
				folder);
			return EXIT_FAILURE;
		}
	}
	if (json)
		printf("\n]\n");
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"read-only", no_argument, NULL, 'r'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	bool read_only = false, json = false;
	const char *command;
	char *folder;
	int option, count, status = EXIT_FAILURE;

	while ((option = getopt_long(argc, argv, "hV", options, NULL)) != -1) {
		switch (option) {
		case 'r':
			read_only = true;
			break;
		case 'j':
			json = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		case 'V':
			puts("mmapfsctl " PACKAGE_VERSION);
			return EXIT_SUCCESS;
		default:
			fputs(usage, stderr);
			return EXIT_FAILURE;
		}
	}
	argv += optind;
	count = argc - optind;
	if (count < 3 || strcmp(argv[0], "snapshot") != 0) {
		fputs(usage, stderr);
		return EXIT_FAILURE;
	}
	command = argv[1];
	folder = folder_of(argv[2]);
	if (!folder)
		return EXIT_FAILURE;
	if (strcmp(command, "create") == 0 && count == 4 && !json)
		status = create(folder, argv[3], read_only);
	else if (strcmp(command, "list") == 0 && count == 3 && !read_only)
		status = list(folder, json);
	else if (strcmp(command, "rename") == 0 && count == 5 && !json && !read_only)
		status = rename_one(folder, argv[3], argv[4]);
	else if (strcmp(command, "remove") == 0 && count >= 4 && !json && !read_only)
		status = remove_all(folder, argv + 3);
	else
		fputs(usage, stderr);
	free(folder);
	return status;
}
