/* SPDX-License-Identifier: Apache-2.0 */
/* libfuse, in the version of its interface that this program is written for. */
#ifndef MMAPFS_FUSE_H
#define MMAPFS_FUSE_H

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#endif
