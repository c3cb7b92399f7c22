/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault guard (guard.h). Each thread says in a thread-local struct which addresses it is about
 * to touch; the handler of SIGBUS jumps back when the fault lies there, and hands everything else
 * to the handler that was there before. No lock, nothing that is not async-signal-safe.
 */
#include "guard.h"

#include "error.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

struct guarded {
	volatile uintptr_t target, source;
	volatile size_t length; /* 0: no copy under way */
	sigjmp_buf back;
};

/* What comes back through sigsetjmp(). */
enum { AT_TARGET = 1, AT_SOURCE = 2 };

/* initial-exec: the first access in a thread must not allocate, for it may be the handler's. */
static __thread struct guarded guarded __attribute__((tls_model("initial-exec")));

static struct sigaction before; /* written while installed == 0 only */
static _Atomic unsigned int installed;

/* A handler that was installed later and hands on to ours may block any signal. */
static _Noreturn void jump_back(const ucontext_t *context, int side)
{
	sigprocmask(SIG_SETMASK, &context->uc_sigmask, NULL);
	siglongjmp(guarded.back, side);
}

static void guard_handle(int number, siginfo_t *info, void *context)
{
	uintptr_t address = (uintptr_t)info->si_addr;

	/* Differences below zero are large: one comparison for both ends. */
	if (address - guarded.target < guarded.length)
		jump_back(context, AT_TARGET);
	if (address - guarded.source < guarded.length)
		jump_back(context, AT_SOURCE);

	if (before.sa_flags & SA_SIGINFO) {
		before.sa_sigaction(number, info, context);
	} else if (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN) {
		/* The access is repeated on return, and then ends the process as it would have. A
		 * fault that is ignored would be repeated for ever. A SIGBUS that was sent by
		 * kill(2) is not repeated by itself. */
		struct sigaction standard = {.sa_handler = SIG_DFL};

		if (before.sa_handler == SIG_IGN && info->si_code <= 0)
			return;
		sigaction(number, &standard, NULL);
		if (info->si_code <= 0)
			raise(number);
	} else {
		before.sa_handler(number);
	}
}

int mmapio_guard_install(void)
{
	/* SA_NODEFER: for a handler before ours that jumps as well, and would not unblock it. */
	struct sigaction action = {.sa_sigaction = guard_handle,
				   .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};

	if (atomic_load(&installed) == 0) {
		sigemptyset(&action.sa_mask);
		/* Two steps, so that the handler never runs before it knows its predecessor. */
		if (sigaction(SIGBUS, NULL, &before) || sigaction(SIGBUS, &action, NULL))
			return -errno;
	}
	atomic_fetch_add(&installed, 1);
	return 0;
}

void mmapio_guard_remove(void)
{
	if (atomic_fetch_sub(&installed, 1) == 1)
		sigaction(SIGBUS, &before, NULL);
}

bool guard_installed(void)
{
	return atomic_load_explicit(&installed, memory_order_relaxed) != 0;
}

/*
 * The copy itself is out of the sanitizers' sight where that is possible: a file's bytes may be
 * copied while another thread changes them, as with pread(2) and pwrite(2).
 */
static inline void copy_bytes(void *target, const void *source, size_t length)
{
#if defined(__x86_64__)
	__asm__ volatile("rep movsb" : "+D"(target), "+S"(source), "+c"(length) : : "memory");
#else
	memcpy(target, source, length);
#endif
}

/* 0, AT_TARGET or AT_SOURCE. */
static int guard_copy(void *target, const void *source, size_t length)
{
	int fault = sigsetjmp(guarded.back, 0);

	if (fault == 0) {
		guarded.target = (uintptr_t)target;
		guarded.source = (uintptr_t)source;
		guarded.length = length;
		atomic_signal_fence(memory_order_seq_cst);
		copy_bytes(target, source, length);
		atomic_signal_fence(memory_order_seq_cst);
	}
	guarded.length = 0;
	return fault;
}

int guard_copy_out(void *target, const void *mapped, size_t length)
{
	int fault = guard_copy(target, mapped, length);

	return fault == 0 ? 0 : fault == AT_SOURCE ? -EIO : -EFAULT;
}

int guard_copy_in(void *mapped, const void *source, size_t length)
{
	int fault = guard_copy(mapped, source, length);

	return fault == 0 ? 0 : fault == AT_TARGET ? -EIO : -EFAULT;
}

int guard_touch(const void *mapped, size_t length, size_t page_size)
{
	char byte;

	for (size_t offset = 0; offset < length; offset += page_size)
		if (guard_copy_out(&byte, (const char *)mapped + offset, 1))
			return -EIO;
	return 0;
}
