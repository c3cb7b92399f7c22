/* SPDX-License-Identifier: Apache-2.0 */
/* ACLs (acl.h): after fs/posix_acl.c, posix_acl_create_masq() and the like. */
#include "acl.h"

#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <stdint.h>
#include <string.h>

#include <endian.h>

static size_t entry_count(size_t length)
{
	return (length - sizeof(struct posix_acl_xattr_header)) /
	       sizeof(struct posix_acl_xattr_entry);
}

static struct posix_acl_xattr_entry *entries(const void *acl)
{
	return (struct posix_acl_xattr_entry *)((char *)acl +
						sizeof(struct posix_acl_xattr_header));
}

bool acl_is_valid(const void *acl, size_t length)
{
	struct posix_acl_xattr_header header;

	if (length < sizeof(header) ||
	    (length - sizeof(header)) % sizeof(struct posix_acl_xattr_entry))
		return false;
	memcpy(&header, acl, sizeof(header));
	return le32toh(header.a_version) == POSIX_ACL_XATTR_VERSION;
}

static mode_t permissions(const struct posix_acl_xattr_entry *entry)
{
	return le16toh(entry->e_perm) & 7;
}

static void permissions_set(struct posix_acl_xattr_entry *entry, mode_t mode)
{
	entry->e_perm = htole16((uint16_t)(mode & 7));
}

/* The entries that a mode stands for: owner, group (or mask, if there is one), others. */
struct base {
	struct posix_acl_xattr_entry *owner, *group, *mask, *other;
	bool more; /* there are others, which a mode cannot say */
};

static struct base base_of(const void *acl, size_t length)
{
	struct base base = {0};

	for (size_t i = 0; i < entry_count(length); i++) {
		struct posix_acl_xattr_entry *entry = entries(acl) + i;

		switch (le16toh(entry->e_tag)) {
		case ACL_USER_OBJ:
			base.owner = entry;
			break;
		case ACL_GROUP_OBJ:
			base.group = entry;
			break;
		case ACL_MASK:
			base.mask = entry;
			base.more = true;
			break;
		case ACL_OTHER:
			base.other = entry;
			break;
		default:
			base.more = true;
		}
	}
	return base;
}

bool acl_inherit(void *acl, size_t length, mode_t *mode)
{
	struct base base = base_of(acl, length);
	struct posix_acl_xattr_entry *group = base.mask ? base.mask : base.group;
	mode_t all;

	if (!base.owner || !group || !base.other)
		return false;
	permissions_set(base.owner, permissions(base.owner) & (*mode >> 6));
	permissions_set(group, permissions(group) & (*mode >> 3));
	permissions_set(base.other, permissions(base.other) & *mode);
	all = permissions(base.owner) << 6 | permissions(group) << 3 | permissions(base.other);
	*mode = (*mode & ~(mode_t)0777) | all;
	return base.more;
}

void acl_set_mode(void *acl, size_t length, mode_t mode)
{
	struct base base = base_of(acl, length);

	if (base.owner)
		permissions_set(base.owner, mode >> 6);
	if (base.mask)
		permissions_set(base.mask, mode >> 3);
	else if (base.group)
		permissions_set(base.group, mode >> 3);
	if (base.other)
		permissions_set(base.other, mode);
}

bool acl_get_mode(const void *acl, size_t length, mode_t *mode)
{
	struct base base = base_of(acl, length);
	struct posix_acl_xattr_entry *group = base.mask ? base.mask : base.group;

	if (!base.owner || !group || !base.other)
		return true;
	*mode = (*mode & ~(mode_t)0777) |
		(permissions(base.owner) << 6 | permissions(group) << 3 | permissions(base.other));
	return base.more;
}
