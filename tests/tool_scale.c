/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tool_scale make|walk|stat|read|remove FOLDER FILES
 *
 * A tree of FILES files in folders of 100, each file and each folder with a name of 60 bytes, each
 * file with its number in it. `make` makes it, in a FOLDER that is made as well; `walk` lists it,
 * asks for the attributes of whatever it finds, and has to find each once and nothing else; `stat`
 * asks by name alone, and lists nothing; `read` reads each file; `remove` lists and removes what it
 * finds, FOLDER too. Exit status 0 if all was as it has to be.
 */
#include "tool.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>

#define FILES_IN_FOLDER 100

struct name {
	char text[128];
};

static struct name name_of(const char *kind, unsigned long number)
{
	struct name name;

	snprintf(name.text, sizeof(name.text), "%s-%012lu-%042lu", kind, number, number);
	return name;
}

/* The number in a name, which has to be one of those below `count` */
static unsigned long number_of(const char *kind, const char *text, unsigned long count)
{
	unsigned long number = 0;
	struct name name;

	if (sscanf(text, "%*[a-z]-%12lu-", &number) != 1 || number >= count)
		fail("listed: %s", text);
	name = name_of(kind, number);
	if (strcmp(name.text, text) != 0)
		fail("listed: %s", text);
	return number;
}

static int open_folder(int parent, const char *name)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY);

	if (fd < 0)
		fail("%s: %s", name, strerror(errno));
	return fd;
}

static void file_make(int folder, unsigned long number)
{
	struct name name = name_of("file", number);
	char text[32];
	int length = snprintf(text, sizeof(text), "%lu", number);
	int fd = openat(folder, name.text, O_WRONLY | O_CREAT | O_EXCL, 0644);

	if (fd < 0 || write(fd, text, (size_t)length) != length || close(fd))
		fail("%s: %s", name.text, strerror(errno));
}

static void file_stat(int folder, unsigned long number)
{
	struct name name = name_of("file", number);
	struct stat st;

	if (fstatat(folder, name.text, &st, AT_SYMLINK_NOFOLLOW))
		fail("%s: %s", name.text, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size != snprintf(NULL, 0, "%lu", number))
		fail("%s: mode %o, %lld bytes", name.text, st.st_mode, (long long)st.st_size);
}

static void file_read(int folder, unsigned long number)
{
	struct name name = name_of("file", number);
	char text[32], found[32];
	int length = snprintf(text, sizeof(text), "%lu", number);
	int fd = openat(folder, name.text, O_RDONLY);

	if (fd < 0)
		fail("%s: %s", name.text, strerror(errno));
	if (read(fd, found, sizeof(found)) != length || memcmp(text, found, (size_t)length) != 0)
		fail("%s: other bytes", name.text);
	close(fd);
}

static void file_remove(int folder, unsigned long number)
{
	struct name name = name_of("file", number);

	if (unlinkat(folder, name.text, 0))
		fail("%s: %s", name.text, strerror(errno));
}

/* What is listed in a folder, each given to `visit`, has to be kind-first to kind-(first + count -
 * 1) */
static void list(int parent, const char *name, const char *kind, unsigned long first,
		 unsigned long count, void (*visit)(int folder, unsigned long number))
{
	bool *seen = calloc(count, sizeof(*seen));
	DIR *stream = fdopendir(open_folder(parent, name));
	unsigned long found = 0;
	struct dirent *entry;

	if (!seen || !stream)
		fail("%s: %s", name, strerror(errno));
	while ((entry = readdir(stream))) {
		unsigned long number;

		if (entry->d_name[0] == '.')
			continue;
		number = number_of(kind, entry->d_name, first + count);
		if (number < first || seen[number - first])
			fail("%s: listed where it is not, or twice", entry->d_name);
		seen[number - first] = true;
		found++;
		visit(dirfd(stream), number);
	}
	if (found != count)
		fail("%s: %lu of %lu listed", name, found, count);
	closedir(stream);
	free(seen);
}

static unsigned long files;
static bool listing;
static void (*file_visit)(int folder, unsigned long number);

static void folder_visit(int parent, unsigned long number)
{
	struct name name = name_of("folder", number);
	unsigned long first = number * FILES_IN_FOLDER, count = files - first;
	int folder;

	if (count > FILES_IN_FOLDER)
		count = FILES_IN_FOLDER;
	if (file_visit == file_make && mkdirat(parent, name.text, 0755))
		fail("%s: %s", name.text, strerror(errno));
	if (listing) {
		list(parent, name.text, "file", first, count, file_visit);
	} else {
		folder = file_visit == file_stat ? openat(parent, name.text, O_PATH)
						 : open_folder(parent, name.text);
		for (unsigned long i = 0; i < count; i++)
			file_visit(folder, first + i);
		close(folder);
	}
	if (file_visit == file_remove && unlinkat(parent, name.text, AT_REMOVEDIR))
		fail("%s: %s", name.text, strerror(errno));
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*visit)(int folder, unsigned long number);
		bool listing;
	} actions[] = {
		{"make", file_make, false},    {"walk", file_stat, true},
		{"stat", file_stat, false},    {"read", file_read, false},
		{"remove", file_remove, true},
	};
	unsigned long folders;
	int top;

	for (size_t i = 0; argc == 4 && i < sizeof(actions) / sizeof(actions[0]); i++)
		if (strcmp(argv[1], actions[i].name) == 0) {
			file_visit = actions[i].visit;
			listing = actions[i].listing;
		}
	if (!file_visit) {
		fprintf(stderr, "usage: tool_scale make|walk|stat|read|remove FOLDER FILES\n");
		return 2;
	}
	files = strtoul(argv[3], NULL, 10);
	folders = (files + FILES_IN_FOLDER - 1) / FILES_IN_FOLDER;
	if (file_visit == file_make && mkdir(argv[2], 0755))
		fail("%s: %s", argv[2], strerror(errno));
	if (listing) {
		list(AT_FDCWD, argv[2], "folder", 0, folders, folder_visit);
	} else {
		top = open(argv[2], O_PATH | O_DIRECTORY);
		if (top < 0)
			fail("%s: %s", argv[2], strerror(errno));
		for (unsigned long i = 0; i < folders; i++)
			folder_visit(top, i);
		close(top);
	}
	if (file_visit == file_remove && rmdir(argv[2]))
		fail("%s: %s", argv[2], strerror(errno));
	return 0;
}
