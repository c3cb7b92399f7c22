#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The tests are tested: each mutation of mutations.txt is made to a copy of lib/, one at a time, and the test
# that it names has to fail. In the folder mutations of the build tree. A mutation that survives, or that
# changes nothing any more, is a failure. MUTATE_ONLY: a pattern that a line has to match.
set -eEuo pipefail
srcdir=$(realpath "${srcdir:-.}")
rm -rf mutations
mkdir mutations
cd mutations
(cd "$srcdir" && tar -c configure* config.h.in Makefile.* aclocal.m4 build-aux lib src tests docs README.md LICENSE) |
	tar -x
# As loud as it can be; what a mutation leaves unused is no error.
mkdir build
cd build
../configure --enable-debug CFLAGS='-O1 -g' >configure.log
make -j2 >make.log 2>&1
survived=0 killed=0

while IFS=$'\t' read -r file test expression loss; do
	[[ $file != \#* && -n $file && "$file $test $loss" =~ ${MUTATE_ONLY:-.} ]] || continue
	sed "$expression" "$srcdir/$file" >"../$file"
	if cmp -s "$srcdir/$file" "../$file"; then
		result="changes nothing"
	elif ! make "tests/$test" libmmapio.la >make.log 2>&1; then
		result="does not compile"
	elif CK_DEFAULT_TIMEOUT=30 LD_LIBRARY_PATH=.libs MODEL_RUNS=40 \
		timeout -k 5 120 "tests/$test" >test.log 2>&1 </dev/null; then
		result=survived
	else
		result=killed
	fi
	cp -p "$srcdir/$file" "../$file"
	touch "../$file"
	[ "$result" = killed ] && killed=$((killed + 1)) || survived=$((survived + 1))
	printf '%-16s %s: %s (%s)\n' "$result" "$file" "$loss" "$test"
done <"$srcdir/tests/mutations.txt"
echo "$killed killed, $survived not"
[ $survived -eq 0 ]
