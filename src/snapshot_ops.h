/* SPDX-License-Identifier: Apache-2.0 */
/* The folder that point-in-time views are in (snapshot_folder.c), as ops.h. */
#ifndef SNAPSHOT_OPS_H
#define SNAPSHOT_OPS_H

#include "snapshot.h"
#include "view_ops.h"

/* Its number. */
#define SNAPSHOT_FOLDER UINT64_MAX

void snapshot_folder_entry(fuse_req_t req); /* it has been looked up */
void snapshot_folder_getattr(fuse_req_t req);
void snapshot_folder_getxattr(fuse_req_t req, const char *name, size_t size);
void snapshot_folder_lookup(fuse_req_t req, const char *name);
void snapshot_folder_mkdir(fuse_req_t req, const char *name, mode_t mode);
void snapshot_folder_rmdir(fuse_req_t req, const char *name);
void snapshot_folder_rename(fuse_req_t req, const char *name, const char *new_name,
			    unsigned int flags);
void snapshot_folder_opendir(fuse_req_t req, struct fuse_file_info *fi);
void snapshot_folder_readdir(fuse_req_t req, size_t size, off_t offset,
			     const struct fuse_file_info *fi, bool plus);
void snapshot_folder_releasedir(fuse_req_t req, struct fuse_file_info *fi);
void snapshot_folder_sync(fuse_req_t req);

#endif
