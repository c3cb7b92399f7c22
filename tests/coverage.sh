#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# How much of lib/ its own tests run, line by line: builds it anew with gcc's counters in the folder coverage
# of the build tree, runs the tests lib_*, and prints for each file, and for all, the share of lines that were
# run. The lines that were not are in coverage/*.gcov. COVERAGE_LEAST (95) is what all together must reach.
set -eEuo pipefail
srcdir=$(realpath "${srcdir:-.}")
mkdir -p coverage
cd coverage
[ -e config.status ] || "$srcdir/configure" CFLAGS='-O0 -g --coverage' >configure.log
make -j2 >make.log
find . -name '*.gcda' -delete
# shellcheck disable=SC2012 # names of ours
tests=$(ls "$srcdir"/tests/lib_*.c | sed 's|.*/\(tests/lib_[a-z]*\)\.c|\1|' | xargs)
make -k check TESTS="$tests" >check.log 2>&1 || { grep -E '^(FAIL|ERROR)' check.log; exit 1; }
rm -f ./*.gcov
for counters in lib/.libs/*.gcda; do
	gcov "$counters"
done >gcov.log 2>/dev/null
awk -v least="${COVERAGE_LEAST:-95}" -v FS="[:% ]" '
	/^File / { file = $0; gsub(/.*\/|\x27/, "", file) }
	/^Lines executed/ && file ~ /\.c$/ {
		lines = $NF; share = $(3); run += lines * share / 100; all += lines
		printf "%6.2f %% of %4d  %s\n", share, lines, file
		file = ""
	}
	END {
		printf "%6.2f %% of %4d  all of lib/\n", 100 * run / all, all
		exit 100 * run / all < least
	}' gcov.log
