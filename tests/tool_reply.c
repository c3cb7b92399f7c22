/*
 * tool_reply PID FILE
 *
 * Watches how process PID answers the reads of FILE: stops each of its threads at each system call
 * (ptrace), and looks where the bytes lie that it hands to /dev/fuse. Prints `ready` when it has
 * begun, and when it is ended by SIGTERM one line:
 *
 *	mapped=BYTES other=BYTES
 *
 * The bytes of large replies (from 1,000 on, which no reply but that to a READ, a READDIR or a
 * GETXATTR has) that lay in a mapping of FILE, and that lay elsewhere. Exit status 77 and a plain
 * text where tracing is not allowed.
 *
 * (strace shows what is written, not from where.)
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define REPLY_LARGE 1000
#define IOV_MOST    16
#define OPTIONS	    ((void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE))

static pid_t process;
static const char *file_name; /* without its folder */
static ino_t file_number;
static uint64_t mapped;
static uint64_t other;

/* Is `fd` of the process the device? */
static int is_device(int fd)
{
	char link[64], target[64];
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)process, fd);
	length = readlink(link, target, sizeof(target) - 1);
	if (length < 0)
		return 0;
	target[length] = '\0';
	return strcmp(target, "/dev/fuse") == 0;
}

/*
 * Does [from, to) lie in mappings of the file? The paths of a private mount are shown from its
 * root, and the device numbers of some file systems are not those of stat: so by name and inode
 * number.
 */
static int is_mapped(uintptr_t from, uintptr_t to)
{
	char path[64], line[PATH_MAX + 200];
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)process);
	maps = fopen(path, "r");
	if (maps == NULL)
		return 0;
	while (from < to && fgets(line, sizeof(line), maps) != NULL) {
		unsigned long start, end, number;
		char *name;

		if (sscanf(line, "%lx-%lx %*s %*s %*s %lu", &start, &end, &number) != 3)
			continue;
		line[strcspn(line, "\n")] = '\0';
		name = strrchr(line, '/');
		if (name == NULL || strcmp(name + 1, file_name) != 0 || number != file_number)
			continue;
		if (start <= from && from < end)
			from = end;
	}
	fclose(maps);
	return from >= to;
}

static void count(uintptr_t from, size_t length)
{
	if (length < REPLY_LARGE)
		return;
	if (is_mapped(from, from + length))
		mapped += length;
	else
		other += length;
}

/* A thread is about to make a system call */
static void on_call(pid_t thread, const struct __ptrace_syscall_info *info)
{
	const __typeof__(info->entry.args[0]) *arguments = info->entry.args;
	struct iovec iov[IOV_MOST];
	struct iovec local, remote;
	size_t vectors;

	switch (info->entry.nr) {
	case SYS_write:
		if (is_device((int)arguments[0]))
			count(arguments[1], arguments[2]);
		break;
	case SYS_writev:
		if (!is_device((int)arguments[0]))
			break;
		vectors = arguments[2] < IOV_MOST ? arguments[2] : IOV_MOST;
		local = (struct iovec){iov, vectors * sizeof(iov[0])};
		remote = (struct iovec){(void *)(uintptr_t)arguments[1], vectors * sizeof(iov[0])};
		if (process_vm_readv(thread, &local, 1, &remote, 1, 0) < 0) {
			fprintf(stderr, "tool_reply: process_vm_readv: %s\n", strerror(errno));
			exit(1);
		}
		for (size_t i = 0; i < vectors; i++)
			count((uintptr_t)iov[i].iov_base, iov[i].iov_len);
		break;
	case SYS_splice:
		if (is_device((int)arguments[2]))
			other += arguments[4];
		break;
	default:
		break;
	}
}

static void attach(void)
{
	char path[64];
	struct dirent *entry;
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)process);
	folder = opendir(path);
	if (folder == NULL) {
		fprintf(stderr, "tool_reply: %s: %s\n", path, strerror(errno));
		exit(1);
	}
	while ((entry = readdir(folder)) != NULL) {
		pid_t thread = atoi(entry->d_name);

		if (thread <= 0)
			continue;
		if (ptrace(PTRACE_SEIZE, thread, NULL, OPTIONS) != 0) {
			if (errno == EPERM) {
				printf("this process may not trace another\n");
				exit(77);
			}
			fprintf(stderr, "tool_reply: PTRACE_SEIZE: %s\n", strerror(errno));
			exit(1);
		}
		ptrace(PTRACE_INTERRUPT, thread, NULL, NULL);
	}
	closedir(folder);
}

/* Deals with all threads that have stopped. Returns 0 when there is nobody left to watch. */
static int on_stops(void)
{
	struct __ptrace_syscall_info info;
	int status;
	pid_t thread;

	while ((thread = waitpid(-1, &status, __WALL | WNOHANG)) > 0) {
		int deliver = 0;

		if (!WIFSTOPPED(status))
			continue;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, (void *)sizeof(info), &info) >
				    0 &&
			    info.op == PTRACE_SYSCALL_INFO_ENTRY)
				on_call(thread, &info);
		} else if (status >> 16 == 0) {
			deliver = WSTOPSIG(status);
		}
		ptrace(PTRACE_SYSCALL, thread, NULL, (void *)(intptr_t)deliver);
	}
	return thread == 0;
}

int main(int argc, char **argv)
{
	struct stat st;
	sigset_t signals;
	int number;

	if (argc != 3 || stat(argv[2], &st) != 0) {
		fprintf(stderr, "usage: tool_reply PID FILE\n");
		return 2;
	}
	process = atoi(argv[1]);
	file_name = strrchr(argv[2], '/') ? strrchr(argv[2], '/') + 1 : argv[2];
	file_number = st.st_ino;
	/* None is lost: they wait until they are asked for, those of the stopped threads too. */
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);

	attach();
	printf("ready\n");
	fflush(stdout);
	do
		number = on_stops() ? sigwaitinfo(&signals, NULL) : SIGTERM;
	while (number == SIGCHLD || (number < 0 && errno == EINTR));
	printf("mapped=%llu other=%llu\n", (unsigned long long)mapped, (unsigned long long)other);
	return 0;
}
