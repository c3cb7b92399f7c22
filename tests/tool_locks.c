/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tool_locks FOLDER
 *	does what locks of all kinds are for, in FOLDER, and says on stdout what it saw: the same on
 *	every file system that leaves locks to the kernel.
 * tool_locks hold FILE
 *	locks FILE in each way, says "held", and waits for the end of stdin.
 * tool_locks try FILE
 *	says for each kind of lock whether it could be had.
 *
 * A process that is to be blocked is waited for until /proc/locks has it among those that wait.
 * Exit status 0 if all could be done.
 */
#include "tool.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* What a call that returns -1 and errno says of itself; what it returns beyond 0 is not told */
static const char *said(int result)
{
	return result < 0 ? strerrorname_np(errno) : "done";
}

#define see(what, call) printf("%s: %s\n", what, said(call))

static int file_open(const char *name, int flags)
{
	int fd = open(name, flags | O_CLOEXEC, 0644);

	check(fd >= 0);
	return fd;
}

static int file_make(const char *name)
{
	int fd = file_open(name, O_RDWR | O_CREAT | O_TRUNC);

	check(write(fd, "0123456789", 10) == 10);
	return fd;
}

/* A lock by fcntl(2) */
static int lock(int fd, int command, int type, off_t start, off_t length)
{
	struct flock range = {
		.l_type = (short)type,
		.l_whence = SEEK_SET,
		.l_start = start,
		.l_len = length,
	};

	return fcntl(fd, command, &range);
}

/* What F_GETLK or F_OFD_GETLK answers; holder is the process that is expected */
static void see_holder(const char *what, int fd, int command, off_t start, off_t length,
		       pid_t holder)
{
	struct flock range = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = start,
		.l_len = length,
	};

	if (fcntl(fd, command, &range)) {
		printf("%s: %s\n", what, strerrorname_np(errno));
	} else if (range.l_type == F_UNLCK) {
		printf("%s: nobody\n", what);
	} else {
		printf("%s: %s, from %lld, %lld long, %s\n", what,
		       range.l_type == F_RDLCK ? "shared" : "exclusive", (long long)range.l_start,
		       (long long)range.l_len,
		       range.l_pid == holder ? "by whom it is"
		       : range.l_pid == -1   ? "by nobody"
					     : "by somebody else");
	}
}

/* --- other processes -------------------------------------------------------------------------- */

/* How many locks of the file there are, held ones or ones that are waited for */
static unsigned int count_locks(int fd, bool waiting)
{
	FILE *stream = fopen("/proc/locks", "re");
	char line[512], inode[32];
	unsigned int count = 0;
	struct stat st;

	check(stream && fstat(fd, &st) == 0);
	snprintf(inode, sizeof(inode), ":%llu ", (unsigned long long)st.st_ino);
	while (fgets(line, sizeof(line), stream))
		count += strstr(line, inode) && (strstr(line, "->") != NULL) == waiting;
	fclose(stream);
	return count;
}

static void wait_for_waiters(int fd, unsigned int count)
{
	while (count_locks(fd, true) != count)
		usleep(1000);
}

/* What is left when all has been given back */
static void see_left(int fd)
{
	printf("left: %u held, %u waited for\n", count_locks(fd, false), count_locks(fd, true));
}

/* A process that does work(), says that it is ready, and stays until it is told to go, or killed */
struct process {
	pid_t pid;
	int go, ready;
};

static void process_start(struct process *process, void (*work)(void))
{
	int go[2], ready[2];
	char byte = 0;

	check(pipe2(go, O_CLOEXEC) == 0 && pipe2(ready, O_CLOEXEC) == 0);
	process->pid = fork();
	check(process->pid >= 0);
	if (process->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(go[1]);
		close(ready[0]);
		work();
		check(write(ready[1], "", 1) == 1);
		(void)!read(go[0], &byte, 1);
		_exit(0);
	}
	close(go[0]);
	close(ready[1]);
	process->go = go[1];
	process->ready = ready[0];
}

/* It has done its work */
static void process_ready(struct process *process)
{
	char byte;

	check(read(process->ready, &byte, 1) == 1);
}

static void process_end(struct process *process, int signal)
{
	int status;

	if (signal)
		kill(process->pid, signal);
	else
		check(write(process->go, "", 1) == 1);
	close(process->go);
	check(waitpid(process->pid, &status, 0) == process->pid);
	check(signal ? WIFSIGNALED(status) : status == 0);
	close(process->ready);
}

static void on_alarm(int signal)
{
	(void)signal;
}

/* --- flock(2) --------------------------------------------------------------------------------- */

static void take_flock(void)
{
	check(flock(file_open("file", O_RDWR), LOCK_EX) == 0);
}

static void take_flock_shared(void)
{
	check(flock(file_open("file", O_RDONLY), LOCK_SH) == 0);
}

static void try_flock(void)
{
	int fd = file_open("file", O_RDWR);

	see("another process, exclusive", flock(fd, LOCK_EX | LOCK_NB));
	see("another process, shared", flock(fd, LOCK_SH | LOCK_NB));
	close(fd);
}

static void in_other(void (*work)(void))
{
	struct process other;

	process_start(&other, work);
	process_ready(&other);
	process_end(&other, 0);
}

static int inherited;

static void keep_inherited(void)
{
	check(fcntl(inherited, F_GETFD) >= 0);
}

static void wait_and_be_interrupted(void)
{
	struct sigaction action = {.sa_handler = on_alarm};
	int fd = file_open("file", O_RDWR);

	sigaction(SIGALRM, &action, NULL);
	see("flock, interrupted", flock(fd, LOCK_EX));
}

static void flock_all(void)
{
	struct process other, waiter;
	int a = file_make("file"), b = file_open("file", O_RDONLY), c, d;

	puts("-- flock");
	see("shared", flock(a, LOCK_SH));
	see("shared, by another descriptor", flock(b, LOCK_SH | LOCK_NB));
	in_other(try_flock);
	see("upgrade beside a sharer", flock(a, LOCK_EX | LOCK_NB));
	see("exclusive after a failed upgrade", flock(b, LOCK_EX | LOCK_NB));
	in_other(try_flock);
	see("shared, beside exclusive", flock(a, LOCK_SH | LOCK_NB));
	see("downgrade", flock(b, LOCK_SH));
	in_other(try_flock);
	see("unlock", flock(b, LOCK_UN));
	see("unlock what is not locked", flock(b, LOCK_UN));
	see("nonsense", flock(b, 0));
	see("nonsense", flock(b, LOCK_SH | LOCK_EX));
	see("exclusive, of a descriptor for reading", flock(b, LOCK_EX | LOCK_NB));
	see("unlock", flock(b, LOCK_UN));

	puts("-- flock: dup and fork");
	check(flock(a, LOCK_EX) == 0);
	c = dup(a);
	close(a);
	in_other(try_flock);
	see("again by the duplicate", flock(c, LOCK_EX | LOCK_NB));
	inherited = c;
	process_start(&other, keep_inherited);
	process_ready(&other);
	close(c);
	in_other(try_flock);
	process_end(&other, 0);
	in_other(try_flock);
	process_start(&other, take_flock);
	process_ready(&other);
	in_other(try_flock);
	process_end(&other, 0);
	see_left(b);

	puts("-- flock: waiting");
	process_start(&other, take_flock);
	process_ready(&other);
	process_start(&waiter, wait_and_be_interrupted);
	wait_for_waiters(b, 1);
	kill(waiter.pid, SIGALRM);
	process_ready(&waiter);
	printf("waiters: %u\n", count_locks(b, true));
	process_end(&waiter, 0);
	process_start(&waiter, take_flock);
	wait_for_waiters(b, 1);
	process_end(&waiter, SIGKILL);
	wait_for_waiters(b, 0);
	process_start(&waiter, take_flock);
	wait_for_waiters(b, 1);
	process_end(&other, SIGKILL);
	process_ready(&waiter); /* it got it */
	in_other(try_flock);
	process_start(&other, take_flock_shared);
	wait_for_waiters(b, 1);
	process_end(&waiter, 0);
	process_ready(&other);
	in_other(try_flock);
	process_end(&other, 0);
	see_left(b);

	puts("-- flock: names that change");
	check(flock(b, LOCK_EX) == 0 && rename("file", "renamed") == 0);
	c = file_open("renamed", O_RDWR);
	see("by the new name", flock(c, LOCK_EX | LOCK_NB));
	a = file_make("file");
	see("a new file of the old name", flock(a, LOCK_EX | LOCK_NB));
	check(link("renamed", "linked") == 0);
	d = file_open("linked", O_RDWR);
	see("by another name of it", flock(d, LOCK_EX | LOCK_NB));
	check(unlink("renamed") == 0 && unlink("linked") == 0);
	see("without a name", flock(c, LOCK_EX | LOCK_NB));
	close(b);
	see("without a name, and free", flock(c, LOCK_EX | LOCK_NB));
	see("without a name, and taken", flock(d, LOCK_EX | LOCK_NB));
	close(c);
	close(d);
	close(a);
	check(mkdir("folder", 0755) == 0);
	a = file_open("folder", O_RDONLY | O_DIRECTORY);
	b = file_open("folder", O_RDONLY | O_DIRECTORY);
	see("a folder", flock(a, LOCK_EX | LOCK_NB));
	see("a folder that is taken", flock(b, LOCK_EX | LOCK_NB));
	close(a);
	close(b);
	a = file_open("file", O_PATH);
	see("O_PATH", flock(a, LOCK_SH));
	close(a);
	check(rmdir("folder") == 0);
}

/* --- fcntl(2) and lockf(3) -------------------------------------------------------------------- */

static void take_middle(void)
{
	check(lock(file_open("file", O_RDWR), F_SETLKW, F_WRLCK, 5, 10) == 0);
}

static void take_first_then_second(void)
{
	int fd = file_open("file", O_RDWR);

	check(lock(fd, F_SETLK, F_WRLCK, 100, 1) == 0);
	check(lock(fd, F_SETLKW, F_WRLCK, 200, 1) == 0);
}

static void try_middle(void)
{
	int fd = file_open("file", O_RDWR);

	see("before", lock(fd, F_SETLK, F_WRLCK, 0, 5));
	see("overlapping", lock(fd, F_SETLK, F_WRLCK, 0, 6));
	see("within, shared", lock(fd, F_SETLK, F_RDLCK, 7, 1));
	see("after", lock(fd, F_SETLK, F_WRLCK, 15, 0));
	see_holder("holder", fd, F_GETLK, 0, 0, getppid());
	see_holder("holder of what follows", fd, F_GETLK, 15, 0, getppid());
}

static void try_parts(void)
{
	int fd = file_open("file", O_RDWR);

	for (off_t at = 0; at < 120; at += 10) {
		char what[32];

		snprintf(what, sizeof(what), "at %d", (int)at);
		see_holder(what, fd, F_GETLK, at, 1, getppid());
	}
	see_holder("at the end of all", fd, F_GETLK, INT64_MAX, 1, getppid());
}

static void wait_for_middle(void)
{
	struct sigaction action = {.sa_handler = on_alarm};
	int fd = file_open("file", O_RDWR);

	sigaction(SIGALRM, &action, NULL);
	see("F_SETLKW, interrupted", lock(fd, F_SETLKW, F_WRLCK, 0, 0));
}

static void read_middle(void)
{
	check(lock(file_open("file", O_RDONLY), F_SETLKW, F_RDLCK, 5, 10) == 0);
}

static void posix_all(void)
{
	struct process other, waiter;
	struct flock range;
	int a = file_make("file"), b = file_open("file", O_RDONLY), c = file_open("file", O_WRONLY);
	char byte;

	puts("-- fcntl: ranges");
	check(lock(a, F_SETLK, F_WRLCK, 5, 10) == 0);
	see("again, by another descriptor", lock(c, F_SETLK, F_WRLCK, 5, 10));
	in_other(try_middle);
	see("parts", lock(a, F_SETLK, F_WRLCK, 0, 100));
	see("parts", lock(a, F_SETLK, F_UNLCK, 40, 20));
	see("parts", lock(a, F_SETLK, F_RDLCK, 70, 10));
	in_other(try_parts);
	see("to the end", lock(a, F_SETLK, F_RDLCK, 50, 0));
	in_other(try_parts);
	see("unlock all", lock(a, F_SETLK, F_UNLCK, 0, 0));
	in_other(try_parts);
	see("backwards", lock(a, F_SETLK, F_WRLCK, 30, -20));
	in_other(try_parts);
	see("before the start", lock(a, F_SETLK, F_WRLCK, 10, -20));
	see("before the start", lock(a, F_SETLK, F_WRLCK, -1, 1));
	see("the last byte", lock(a, F_SETLK, F_WRLCK, INT64_MAX, 1));
	see("beyond the last byte", lock(a, F_SETLK, F_WRLCK, INT64_MAX, 2));
	range = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = -5, .l_len = 5};
	see("before the end of the file", fcntl(a, F_SETLK, &range));
	check(lseek(a, 60, SEEK_SET) == 60);
	range = (struct flock){.l_type = F_RDLCK, .l_whence = SEEK_CUR, .l_start = 10, .l_len = 5};
	see("from where the descriptor is", fcntl(a, F_SETLK, &range));
	in_other(try_parts);
	range.l_whence = 77;
	see("nonsense", fcntl(a, F_SETLK, &range));
	see("nonsense", lock(a, F_SETLK, 77, 0, 1));
	range = (struct flock){.l_type = F_UNLCK};
	see("F_GETLK of no lock", fcntl(a, F_GETLK, &range));
	see("exclusive, of a descriptor for reading", lock(b, F_SETLK, F_WRLCK, 0, 1));
	see("shared, of a descriptor for reading", lock(b, F_SETLK, F_RDLCK, 0, 1));
	see("shared, of a descriptor for writing", lock(c, F_SETLK, F_RDLCK, 0, 1));

	puts("-- fcntl: whoever closes any descriptor of the file has no locks on it any more");
	close(c);
	in_other(try_parts);
	see_left(a);

	puts("-- fcntl: waiting");
	process_start(&other, take_middle);
	process_ready(&other);
	see("a part that is taken", lock(a, F_SETLK, F_WRLCK, 10, 10));
	see_holder("holder", a, F_GETLK, 0, 0, other.pid);
	check(pread(a, &byte, 1, 7) == 1 && pwrite(a, &byte, 1, 7) == 1); /* advisory they are */
	process_start(&waiter, wait_for_middle);
	wait_for_waiters(a, 1);
	kill(waiter.pid, SIGALRM);
	process_ready(&waiter);
	printf("waiters: %u\n", count_locks(a, true));
	process_end(&waiter, 0);
	process_start(&waiter, take_middle);
	wait_for_waiters(a, 1);
	process_end(&waiter, SIGKILL);
	wait_for_waiters(a, 0);
	process_start(&waiter, take_middle);
	wait_for_waiters(a, 1);
	process_end(&other, SIGKILL);
	process_ready(&waiter);
	see_holder("the next one", a, F_GETLK, 0, 0, waiter.pid);
	process_start(&other, read_middle);
	wait_for_waiters(a, 1);
	process_end(&waiter, 0);
	process_ready(&other);
	see_holder("a reader", a, F_GETLK, 0, 0, other.pid);
	see("beside a reader, shared", lock(a, F_SETLK, F_RDLCK, 0, 0));
	see("beside a reader, exclusive", lock(a, F_SETLK, F_WRLCK, 0, 0));
	process_end(&other, 0);
	see("alone", lock(a, F_SETLK, F_WRLCK, 0, 0));
	see("unlock", lock(a, F_SETLK, F_UNLCK, 0, 0));
	see_left(a);

	puts("-- fcntl: each waits for the other");
	check(lock(a, F_SETLK, F_WRLCK, 200, 1) == 0);
	process_start(&other, take_first_then_second);
	wait_for_waiters(a, 1);
	see("the first", lock(a, F_SETLKW, F_WRLCK, 100, 1));
	see("giving up", lock(a, F_SETLK, F_UNLCK, 0, 0));
	process_ready(&other);
	see_holder("the second", a, F_GETLK, 200, 1, other.pid);
	process_end(&other, 0);
	see_left(a);

	puts("-- lockf");
	check(lseek(a, 5, SEEK_SET) == 5);
	see("F_TLOCK", lockf(a, F_TLOCK, 10));
	see("F_TEST, one's own", lockf(a, F_TEST, 10));
	in_other(try_middle);
	see("F_ULOCK", lockf(a, F_ULOCK, 10));
	process_start(&other, take_middle);
	process_ready(&other);
	see("F_TLOCK", lockf(a, F_TLOCK, 10));
	see("F_TEST", lockf(a, F_TEST, 10));
	process_end(&other, 0);
	see("F_LOCK", lockf(a, F_LOCK, 0));
	see("nonsense", lockf(a, 77, 0));

	puts("-- fcntl: names that change");
	check(rename("file", "renamed") == 0 && unlink("renamed") == 0);
	see("without a name", lock(a, F_SETLK, F_RDLCK, 0, 0));
	see("unlock", lock(a, F_SETLK, F_UNLCK, 0, 0));
	see_left(a);
	close(a);
	close(b);
}

/* --- open file description locks -------------------------------------------------------------- */

static void take_ofd(void)
{
	check(lock(file_open("file", O_RDWR), F_OFD_SETLKW, F_WRLCK, 5, 10) == 0);
}

static void wait_for_ofd(void)
{
	struct sigaction action = {.sa_handler = on_alarm};
	int fd = file_open("file", O_RDWR);

	sigaction(SIGALRM, &action, NULL);
	see("F_OFD_SETLKW, interrupted", lock(fd, F_OFD_SETLKW, F_WRLCK, 0, 0));
}

static void try_ofd(void)
{
	int fd = file_open("file", O_RDWR);

	see("another process", lock(fd, F_OFD_SETLK, F_WRLCK, 0, 0));
	see("another process, by fcntl", lock(fd, F_SETLK, F_WRLCK, 0, 0));
	close(fd);
}

static void ofd_all(void)
{
	struct process other, waiter;
	struct flock range = {.l_type = F_WRLCK, .l_pid = 1};
	int a = file_make("file"), b = file_open("file", O_RDWR), c;

	puts("-- open file description locks");
	see("exclusive", lock(a, F_OFD_SETLK, F_WRLCK, 5, 10));
	see("by another descriptor", lock(b, F_OFD_SETLK, F_WRLCK, 10, 10));
	see("beside it", lock(b, F_OFD_SETLK, F_WRLCK, 15, 10));
	see("by fcntl, of the same process", lock(b, F_SETLK, F_WRLCK, 5, 10));
	see_holder("holder", b, F_OFD_GETLK, 0, 10, -1);
	see_holder("holder, by fcntl", b, F_GETLK, 0, 10, -1);
	see("with a pid", fcntl(a, F_OFD_SETLK, &range));
	see("flock is another thing", flock(b, LOCK_EX | LOCK_NB));
	in_other(try_ofd);
	c = dup(a);
	close(a);
	in_other(try_ofd);
	inherited = c;
	process_start(&other, keep_inherited);
	process_ready(&other);
	close(c);
	in_other(try_ofd);
	process_end(&other, 0);
	see("unlock", lock(b, F_OFD_SETLK, F_UNLCK, 0, 0));
	see("unlock", flock(b, LOCK_UN));
	in_other(try_ofd);
	process_start(&other, take_ofd);
	process_ready(&other);
	process_start(&waiter, wait_for_ofd);
	wait_for_waiters(b, 1);
	kill(waiter.pid, SIGALRM);
	process_ready(&waiter);
	printf("waiters: %u\n", count_locks(b, true));
	process_end(&waiter, 0);
	process_start(&waiter, take_ofd);
	wait_for_waiters(b, 1);
	process_end(&other, SIGKILL);
	process_ready(&waiter);
	in_other(try_ofd);
	process_end(&waiter, 0);
	see_left(b);
	close(b);
	check(unlink("file") == 0);
}

static void hold(const char *path)
{
	int fd = file_open(path, O_RDWR);
	char byte;

	check(flock(fd, LOCK_EX | LOCK_NB) == 0 && lock(fd, F_SETLK, F_WRLCK, 0, 0) == 0);
	puts("held");
	(void)!read(STDIN_FILENO, &byte, 1);
}

static void try(const char *path)
{
	int fd = file_open(path, O_RDWR), other = file_open(path, O_RDWR);

	see("flock", flock(fd, LOCK_EX | LOCK_NB));
	see("fcntl", lock(fd, F_SETLK, F_WRLCK, 0, 0));
	see("fcntl", lock(fd, F_SETLK, F_UNLCK, 0, 0));
	see("open file description", lock(other, F_OFD_SETLK, F_WRLCK, 0, 0));
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 3 && strcmp(argv[1], "hold") == 0) {
		hold(argv[2]);
	} else if (argc == 3 && strcmp(argv[1], "try") == 0) {
		try(argv[2]);
	} else if (argc == 2) {
		check(chdir(argv[1]) == 0);
		flock_all();
		posix_all();
		ofd_all();
	} else {
		fprintf(stderr, "usage: tool_locks FOLDER | hold FILE | try FILE\n");
		return 2;
	}
	return 0;
}
