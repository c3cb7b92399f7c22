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

found=$(grep -nE '\b(mmap|mmap64|mremap|munmap|msync|fdatasync|sync_file_range|syncfs)[[:space:]]*\(' \
	"$srcdir"/src/*.[ch])
[ -z "$found" ] || complain "src/ maps or syncs by itself" "$found"

for header in "$srcdir"/lib/*.h; do
	header=${header##*/}
	[ "$header" = mmapio.h ] && continue
	found=$(grep -nE "#[[:space:]]*include[[:space:]]*([<\"](\.\./)*lib/|<$header)" "$srcdir"/src/*.[ch])
	[ -z "$found" ] || complain "src/ includes a private header of lib/" "$found"
	# By its bare name it would be lib/'s only if src/ had none of that name.
	[ -e "$srcdir/src/$header" ] && continue
	found=$(grep -nE "#[[:space:]]*include[[:space:]]*\"$header\"" "$srcdir"/src/*.[ch])
	[ -z "$found" ] || complain "src/ includes a private header of lib/" "$found"
done

found=$(grep -niE '\bfuse' "$srcdir"/lib/*.[ch])
[ -z "$found" ] || complain "lib/ speaks of FUSE" "$found"

if [ -e .libs/libmmapio.so ]; then
	exported=$(nm -D --defined-only .libs/libmmapio.so | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort)
	mapped=$(sed -n 's/^[[:space:]]*\(mmapio_[a-z_]*\);$/\1/p' "$srcdir/lib/mmapio.map" | sort)
	declared=$(sed -nE 's/^[a-z].*[ *](mmapio_[a-z_]+)\(.*/\1/p' "$srcdir/lib/mmapio.h" | sort)
	[ "$exported" = "$mapped" ] || complain "exports differ from lib/mmapio.map" \
		"$(diff <(echo "$exported") <(echo "$mapped"))"
	[ "$declared" = "$mapped" ] || complain "lib/mmapio.h differs from lib/mmapio.map" \
		"$(diff <(echo "$declared") <(echo "$mapped"))"
fi
exit $status
