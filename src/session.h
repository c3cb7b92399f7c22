/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a mount: checks, mounting, serving, syncing what is left. */
#ifndef SESSION_H
#define SESSION_H

#include "options.h"

/* Returns the exit status of the process that was called; in the background, when the mount serves.
 */
int session_run(struct options *options);

#endif
