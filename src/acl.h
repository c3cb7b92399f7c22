/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POSIX ACLs as extended attributes hold them (acl(5), linux/posix_acl_xattr.h), for objects that
 * no file system has: what the kernel leaves to file systems. It checks them itself.
 */
#ifndef ACL_H
#define ACL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define ACL_ACCESS  "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

/* Whether it is one. */
bool acl_is_valid(const void *acl, size_t length);

/*
 * What an object of this mode is made with below a folder of that default ACL: *mode, and in acl,
 * of which this is a copy, its access ACL. False: *mode says it all.
 */
bool acl_inherit(void *acl, size_t length, mode_t *mode);

/* The same after chmod(2): the ACL of a new mode. */
void acl_set_mode(void *acl, size_t length, mode_t mode);

/* The mode of an access ACL, the bits of which are in *mode. False: the ACL says no more than that.
 */
bool acl_get_mode(const void *acl, size_t length, mode_t *mode);

#endif
