#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The binary interface of the library is the one that is kept in mmapio.abi: symbols, parameters, types that
# the header shows. "abi.sh keep" (make abi) keeps what it is now; programs that were built before must run on,
# or the library's version changes (configure.ac, lib/mmapio.map).
set -u
srcdir=${srcdir:-.}
library=.libs/libmmapio.so
kept=$srcdir/tests/mmapio.abi

command -v abidiff >/dev/null || { echo "abidiff is missing (Debian: abigail-tools)"; exit 77; }
readelf -S "$library" | grep -q debug_info || { echo "$library is built without -g"; exit 77; }
if [ "${1-}" = keep ]; then
	exec abidw --headers-dir "$srcdir/lib" --exported-interfaces-only --no-show-locs --no-comp-dir-path \
		--no-corpus-path --type-id-style hash --out-file "$kept" "$library"
fi
abidiff --headers-dir1 "$srcdir/lib" --headers-dir2 "$srcdir/lib" "$kept" "$library" && exit 0
echo "if that is meant: make abi"
exit 1
