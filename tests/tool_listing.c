/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tool_listing FOLDER CHANGED ENTRIES BUFFER
 *
 * Makes an empty FOLDER of ENTRIES names, half of which stay, and lists it by getdents64(2) into a
 * buffer of BUFFER bytes (280 has room for one entry of the longest name): as it is; from offsets
 * that were told before; by two descriptors in turn; while another process removes, makes and
 * renames entries in CHANGED, which is FOLDER or another way to it; and by readdir(3) with telldir,
 * seekdir and rewinddir. Each is done twice, so that the kernel may ask for names alone, and for
 * attributes with them: the second time, each entry that is listed is asked for them. What was
 * there all the time has to be listed once; what came or went, once at most. Leaves what stays, all
 * names beginning with "keep-". Exit status 0 if all was as it has to be.
 */
#include "tool.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* --- names ------------------------------------------------------------------------------------ */

/* Entries that stay; that go; that are there in the beginning and are renamed; that come. */
enum kind { KEEP, GO, OLD, NEW, MADE, KINDS };
static const char *const kinds[KINDS] = {"keep", "go", "old", "new", "made"};

struct name {
	char text[256];
};

/* Of many lengths, up to 255 */
static struct name name_of(enum kind kind, unsigned int number)
{
	unsigned int length = number % 50 ? 12 + number * 7919 % 30 : 255;
	struct name name;
	int used = snprintf(name.text, sizeof(name.text), "%s-%u-", kinds[kind], number);

	while (used < (int)length)
		name.text[used++] = (char)('a' + number % 26);
	name.text[used] = '\0';
	return name;
}

static void parse(const char *text, enum kind *kind, unsigned int *number)
{
	char word[8] = "";

	if (sscanf(text, "%7[a-z]-%u-", word, number) != 2)
		fail("listed: '%s'", text);
	for (*kind = 0; *kind < KINDS && strcmp(word, kinds[*kind]) != 0;)
		++*kind;
	if (*kind == KINDS || strcmp(name_of(*kind, *number).text, text) != 0)
		fail("listed: '%s'", text);
}

/* --- one listing ------------------------------------------------------------------------------ */

static unsigned int count; /* of each kind, but twice as many of KEEP */
static size_t buffer_size;
static const char *folder;

static unsigned int count_of(enum kind kind)
{
	return kind == KEEP ? 2 * count : count;
}

struct listing {
	int fd;
	bool asking; /* for the attributes of each entry */
	unsigned char *seen[KINDS];
	unsigned int dots;
	char *buffer;
	size_t position, filled;
};

static void listing_open(struct listing *listing, bool asking)
{
	*listing = (struct listing){.asking = asking, .buffer = malloc(buffer_size)};
	listing->fd = open(folder, O_RDONLY | O_DIRECTORY);
	check(listing->fd >= 0 && listing->buffer);
	for (int kind = 0; kind < KINDS; kind++)
		check((listing->seen[kind] = calloc(count_of(kind), 1)));
}

static void listing_close(struct listing *listing)
{
	close(listing->fd);
	free(listing->buffer);
	for (int kind = 0; kind < KINDS; kind++)
		free(listing->seen[kind]);
}

/* Counts one name as seen; false: a dot */
static bool see(struct listing *listing, const char *text, ino_t inode)
{
	enum kind kind;
	unsigned int number;
	struct stat st;

	if (text[0] == '.') {
		listing->dots++;
		return false;
	}
	parse(text, &kind, &number);
	check(number < count_of(kind));
	if (listing->seen[kind][number]++)
		fail("listed twice: %s", text);
	if (!listing->asking)
		return true;
	if (fstatat(listing->fd, text, &st, AT_SYMLINK_NOFOLLOW))
		check(errno == ENOENT && kind != KEEP);
	else
		check(st.st_ino == inode);
	return true;
}

/* The next entry as it is, or NULL at the end */
static struct dirent64 *next(struct listing *listing)
{
	struct dirent64 *entry;

	if (listing->position == listing->filled) {
		ssize_t got = getdents64(listing->fd, listing->buffer, buffer_size);

		check(got >= 0);
		if (got == 0)
			return NULL;
		listing->position = 0;
		listing->filled = (size_t)got;
	}
	entry = (struct dirent64 *)(listing->buffer + listing->position);
	listing->position += entry->d_reclen;
	return entry;
}

static unsigned int seen_count(const struct listing *listing, enum kind kind)
{
	unsigned int found = 0;

	for (unsigned int i = 0; i < count_of(kind); i++)
		found += listing->seen[kind][i];
	return found;
}

/* What has to have been listed of each kind, or -1: it may or may not */
static void listing_check(const struct listing *listing, int go, int old, int new, int made)
{
	const int expected[KINDS] = {(int)count_of(KEEP), go, old, new, made};

	for (int kind = 0; kind < KINDS; kind++) {
		unsigned int found = seen_count(listing, kind);

		if (expected[kind] >= 0 && found != (unsigned int)expected[kind])
			fail("%u of %d listed of what is called %s-", found, expected[kind],
			     kinds[kind]);
	}
	if (listing->dots != 2)
		fail("%u dots listed", listing->dots);
}

/* --- what changes it -------------------------------------------------------------------------- */

struct shared {
	_Atomic unsigned int wanted; /* so many steps */
	_Atomic unsigned int done;
};

static void change(int fd, unsigned int i)
{
	struct name name = name_of(GO, i), other;

	check(unlinkat(fd, name.text, 0) == 0);
	name = name_of(MADE, i);
	other = name_of(KEEP, i % 1000 * 10 % count_of(KEEP));
	check(linkat(fd, other.text, fd, name.text, 0) == 0);
	name = name_of(OLD, i);
	other = name_of(NEW, i);
	check(renameat(fd, name.text, fd, other.text) == 0);
}

/* A process that does as many steps as it is told to */
static pid_t changer_start(struct shared *shared, const char *changed)
{
	pid_t pid = fork();
	int fd;

	check(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fd = open(changed, O_RDONLY | O_DIRECTORY);
	check(fd >= 0);
	while (shared->done < count) {
		if (shared->done == shared->wanted) {
			usleep(100);
			continue;
		}
		change(fd, shared->done);
		shared->done++;
	}
	_exit(0);
}

static void changer_wait(const struct shared *shared, pid_t pid)
{
	int status;

	while (shared->done < shared->wanted && waitpid(pid, &status, WNOHANG) == 0)
		usleep(100);
	check(shared->done >= shared->wanted);
}

/* --- the steps -------------------------------------------------------------------------------- */

static void make(void)
{
	int fd = open(folder, O_RDONLY | O_DIRECTORY);

	check(fd >= 0);
	/* Most of them links, because that is faster */
	for (int kind = 0; kind < MADE; kind++) {
		for (unsigned int i = 0; kind != NEW && i < count_of(kind); i++) {
			struct name name = name_of(kind, i), first;
			int made;

			if (kind == KEEP && i % 10 == 0) {
				made = openat(fd, name.text, O_WRONLY | O_CREAT | O_EXCL, 0644);
				check(made >= 0 && close(made) == 0);
				continue;
			}
			first = name_of(KEEP, i / 10 * 10);
			check(linkat(fd, first.text, fd, name.text, 0) == 0);
		}
	}
	close(fd);
}

static void list_whole(bool asking)
{
	struct listing listing;
	struct dirent64 *entry;

	doing = asking ? "with attributes" : "names alone";
	listing_open(&listing, asking);
	while ((entry = next(&listing)))
		if (see(&listing, entry->d_name, entry->d_ino))
			check(entry->d_type == DT_REG);
	listing_check(&listing, (int)count, (int)count, 0, 0);
	/* At the end it stays at the end, and from the start it begins anew */
	check(next(&listing) == NULL);
	for (int kind = 0; kind < KINDS; kind++)
		memset(listing.seen[kind], 0, count_of(kind));
	listing.dots = 0;
	check(lseek(listing.fd, 0, SEEK_SET) == 0);
	while ((entry = next(&listing)))
		see(&listing, entry->d_name, entry->d_ino);
	listing_check(&listing, (int)count, (int)count, 0, 0);
	listing_close(&listing);
}

static void list_in_turn(bool asking)
{
	struct listing listings[2];
	bool more[2] = {true, true};

	doing = "two in turn";
	for (int i = 0; i < 2; i++)
		listing_open(&listings[i], asking);
	while (more[0] || more[1])
		for (int i = 0; i < 2; i++)
			for (int n = 0; more[i] && n < 50 + 100 * i; n++) {
				struct dirent64 *entry = next(&listings[i]);

				more[i] = entry;
				if (entry)
					see(&listings[i], entry->d_name, entry->d_ino);
			}
	for (int i = 0; i < 2; i++) {
		listing_check(&listings[i], (int)count, (int)count, 0, 0);
		listing_close(&listings[i]);
	}
}

/* What follows an offset is what followed it before */
static void list_from(bool asking)
{
	struct place {
		off_t before;
		char name[256];
	} *places = NULL;
	struct listing listing;
	struct dirent64 *entry;
	unsigned int found = 0, at = 12345;
	off_t offset = 0;

	doing = "from offsets";
	listing_open(&listing, asking);
	while ((entry = next(&listing))) {
		if (found % 1024 == 0)
			check((places = realloc(places, (found + 1024) * sizeof(*places))));
		places[found].before = offset;
		strcpy(places[found].name, entry->d_name);
		offset = entry->d_off;
		found++;
	}
	for (int i = 0; i < 300; i++) {
		unsigned int first = at % found;

		check(lseek(listing.fd, places[first].before, SEEK_SET) == places[first].before);
		listing.position = listing.filled = 0;
		for (unsigned int n = first; n < found && n < first + 1 + i % 90; n++) {
			entry = next(&listing);
			if (!entry || strcmp(entry->d_name, places[n].name) != 0)
				fail("entry %u by offset: '%s', and was '%s'", n,
				     entry ? entry->d_name : "(the end)", places[n].name);
		}
		at = at * 1103515245 + 12345;
	}
	free(places);
	listing_close(&listing);
}

/* Some steps of the other process after each so many entries; how many in all */
static void list_changing(bool asking, struct shared *shared, pid_t pid, unsigned int steps)
{
	unsigned int began = shared->done, each = 4 * count / steps + 1, found = 0;
	struct listing listing;
	struct dirent64 *entry;
	off_t middle = 0;
	unsigned char *passed =
		malloc(count_of(KEEP)); /* of what stays: listed before the middle */

	check(passed);
	doing = asking ? "changing, with attributes" : "changing, names alone";
	listing_open(&listing, asking);
	while ((entry = next(&listing))) {
		see(&listing, entry->d_name, entry->d_ino);
		if (++found == 2 * count) {
			middle = entry->d_off;
			memcpy(passed, listing.seen[KEEP], count_of(KEEP));
		}
		if (found % each == 0 && shared->wanted < began + steps) {
			shared->wanted++;
			changer_wait(shared, pid);
		}
	}
	listing_check(&listing, -1, -1, -1, -1);
	check(shared->done > began && middle);
	/* Back to the middle, though what was there may have gone: what stays follows as before */
	check(lseek(listing.fd, middle, SEEK_SET) == middle);
	for (int kind = 0; kind < KINDS; kind++)
		memset(listing.seen[kind], 0, count_of(kind));
	while ((entry = next(&listing)))
		see(&listing, entry->d_name, entry->d_ino);
	for (unsigned int i = 0; i < 2 * count; i++)
		if (passed[i] == listing.seen[KEEP][i])
			fail("from the middle: keep-%u", i);
	free(passed);
	listing_close(&listing);
}

static void list_by_library(unsigned int done)
{
	struct listing seen;
	DIR *stream = opendir(folder);
	struct dirent *entry;
	unsigned int found = 0;
	long place;
	char name[256];

	doing = "readdir, telldir, seekdir, rewinddir";
	check(stream);
	listing_open(&seen, false);
	for (;;) {
		place = telldir(stream);
		entry = readdir(stream);
		if (!entry)
			break;
		see(&seen, entry->d_name, entry->d_ino);
		if (++found % 97 == 0) { /* on, back, and again */
			strcpy(name, entry->d_name);
			for (int i = 0; i < 100; i++)
				readdir(stream);
			seekdir(stream, place);
			entry = readdir(stream);
			if (!entry || strcmp(entry->d_name, name) != 0)
				fail("'%s', and was '%s'", entry ? entry->d_name : "(the end)",
				     name);
		}
	}
	listing_check(&seen, (int)(count - done), (int)(count - done), (int)done, (int)done);
	rewinddir(stream);
	for (found = 0; readdir(stream); found++)
		;
	check(found == 4 * count + 2);
	/* What was made before the rewinddir is in, what was removed is not */
	check(linkat(dirfd(stream), name_of(KEEP, 0).text, dirfd(stream), "keep-extra", 0) == 0);
	rewinddir(stream);
	for (found = 0; (entry = readdir(stream));)
		found += strcmp(entry->d_name, "keep-extra") == 0;
	check(found == 1 && unlinkat(dirfd(stream), "keep-extra", 0) == 0);
	rewinddir(stream);
	while ((entry = readdir(stream)))
		check(strcmp(entry->d_name, "keep-extra") != 0);
	closedir(stream);
	listing_close(&seen);
}

/* One that removes what it lists, and lists on */
static void list_removing(void)
{
	struct listing listing;
	struct dirent64 *entry;

	doing = "removing what is listed";
	listing_open(&listing, false);
	while ((entry = next(&listing)))
		if (see(&listing, entry->d_name, entry->d_ino) && entry->d_name[0] != 'k')
			check(unlinkat(listing.fd, entry->d_name, 0) == 0);
	listing_check(&listing, 0, 0, (int)count, (int)count);
	listing_close(&listing);
	listing_open(&listing, false);
	while ((entry = next(&listing)))
		see(&listing, entry->d_name, entry->d_ino);
	listing_check(&listing, 0, 0, 0, 0);
	listing_close(&listing);
}

int main(int argc, char **argv)
{
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;
	pid_t pid;

	doing = "making";
	if (argc != 5) {
		fprintf(stderr, "usage: tool_listing FOLDER CHANGED ENTRIES BUFFER\n");
		return 2;
	}
	check(shared != MAP_FAILED);
	folder = argv[1];
	count = (unsigned int)strtoul(argv[3], NULL, 10) / 4;
	buffer_size = strtoul(argv[4], NULL, 10);

	make();
	for (int asking = 0; asking < 2; asking++) {
		list_whole(asking);
		list_in_turn(asking);
		list_from(asking);
	}
	pid = changer_start(shared, argv[2]);
	list_changing(false, shared, pid, count / 3);
	list_changing(true, shared, pid, count / 3);
	list_by_library(shared->done);
	shared->wanted = count;
	doing = "waiting for the other process";
	check(waitpid(pid, &status, 0) == pid && status == 0);
	list_removing();
	return 0;
}
