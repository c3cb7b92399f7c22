#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The walls: src/ leaves mapping and syncing files to the library, and knows of it only mmapio.h;
# the library knows no FUSE; what it exports is what its map says.
set -u
srcdir=${srcdir:-.}
status=0

complain() {
	echo "$1:"
	echo "$2"
	status=1
}

# What the objects call, and which headers they were made of, is what counts: names can be hidden from
# a search of the text.
objects=(src/mmapfs-*.o)
shopt -s extglob
sources=("$srcdir"/src/!(mmapfsctl).c) # which knows a mount by system calls alone
[ "${#objects[@]}" -eq "${#sources[@]}" ] && [ -e "${objects[0]}" ] ||
	complain "${#sources[@]} sources in src/, but these objects" "${objects[*]}"
mapping='mmap|mmap64|mremap|munmap|msync'
syncing='fdatasync|sync_file_range|syncfs|sync'
# (The file system of a folder that cannot be opened is synced in flusher.c, that which a view is of in
# snapshot.c, and the log of SQLite, which is no file of the library's, in store.c.)
found=$(nm -A -u "${objects[@]}" | grep -E " U _*($mapping|$syncing)(@.*)?\$" |
	grep -vE '^src/mmapfs-(flusher|snapshot)\.o: +U syncfs(@.*)?$|^src/mmapfs-store\.o: +U fdatasync(@.*)?$')
[ -z "$found" ] || complain "src/ maps or syncs by itself" "$found"
# Folders are no files of the library's.
found=$(nm -A -u "${objects[@]}" | grep -E ' U fsync(@.*)?$' | grep -vE '^src/mmapfs-(flusher|store)\.o:')
[ -z "$found" ] || complain "src/ syncs elsewhere than in flusher.c and store.c" "$found"
found=$(grep -nE "\b(SYS|__NR)_(${mapping//64/2}|$syncing|fsync)\b" "$srcdir"/src/*.[ch])
[ -z "$found" ] || complain "src/ maps or syncs by system calls of its own" "$found"
for object in "${objects[@]}"; do
	dependencies=src/.deps/$(basename "$object" .o).Po
	found=$(tr -s ' \\:' '\n' <"$dependencies" | grep -E '(^|/)lib/[^/]*\.[ch]$' | grep -vE '(^|/)lib/mmapio\.h$')
	[ -z "$found" ] || complain "$object includes a private file of lib/" "$found"
done

# The table of operations of mounts with point-in-time views: none that may change the live tree goes past
# what keeps it for the views. One that is in neither list is new, and belongs in one.
changes=" setattr mknod mkdir unlink rmdir symlink rename link create write setxattr removexattr fallocate copy_file_range "
reads=" init lookup forget forget_multi getattr readlink open read flush release fsync opendir readdir readdirplus releasedir fsyncdir statfs getxattr listxattr access lseek "
table=$(sed -n '/^const struct fuse_lowlevel_ops snapshot_operations/,/^};/s/^\t\.\([a-z_]*\) = \([a-z_]*\),$/\1 \2/p' "$srcdir/src/snapshot_ops.c")
[ "$(wc -l <<<"$table")" -eq "$(wc -w <<<"$changes$reads")" ] || complain "operations of snapshot_ops.c" "$table"
while read -r operation function; do
	case $changes in
	*" $operation "*)
		body=$(sed -n "/^static void $function(/,/^}/p" "$srcdir/src/snapshot_ops.c")
		[ "$function" = "snapshot_op_$operation" ] && grep -qE '\bbegin(_made|_removed)?\(req, ' <<<"$body" &&
			grep -qE '\bend\(&change, &changing\)' <<<"$body" ||
			complain "$operation changes the live tree, and keeps nothing for its views" "$body"
		;;
	*)
		case $reads in *" $operation "*) ;; *) complain "an operation that is not known here" "$operation" ;; esac
		;;
	esac
done <<<"$table"

found=$(grep -niE '\bfuse' "$srcdir"/lib/*.[ch])
[ -z "$found" ] || complain "lib/ speaks of FUSE" "$found"

exported=$(nm -D --defined-only .libs/libmmapio.so | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort)
mapped=$(sed -n 's/^[[:space:]]*\(mmapio_[a-z0-9_]*\);$/\1/p' "$srcdir/lib/mmapio.map" | sort)
declared=$(sed -nE 's/^[a-z].*[ *](mmapio_[a-z0-9_]+)\(.*/\1/p' "$srcdir/lib/mmapio.h" | sort)
[ "$exported" = "$mapped" ] || complain "exports differ from lib/mmapio.map" \
	"$(diff <(echo "$exported") <(echo "$mapped"))"
[ "$declared" = "$mapped" ] || complain "lib/mmapio.h differs from lib/mmapio.map" \
	"$(diff <(echo "$declared") <(echo "$mapped"))"
exit $status
