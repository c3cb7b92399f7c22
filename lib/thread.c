/* SPDX-License-Identifier: Apache-2.0 */
/* Threads of the library's own: how one is started. Knows nothing of what it does. */
#include "file.h"

#include <signal.h>

int thread_start(pthread_t *thread, void *(*run)(void *argument), void *argument)
{
	sigset_t all, before;
	int error;

	sigfillset(&all);
	sigdelset(&all, SIGBUS); /* a fault in this thread is the guard's, too */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(thread, NULL, run, argument);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error ? error_set(MMAPIO_ERROR_IO, -error) : 0;
}
