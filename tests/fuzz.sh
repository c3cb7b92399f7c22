#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Fuzzing with libFuzzer (clang, libclang-rt-dev): the parser of policies, and sequences of operations
# beside a model, under the address and undefined-behaviour sanitizers. In the build tree. What is found to
# reach new code is added to fuzz/NAME there; the kept corpus is tests/corpus/NAME (FUZZ_KEEP=1 brings it up
# to date, as small as may be). FUZZ_SECONDS (600) for each, FUZZ_ONLY one of them.
set -eEuo pipefail
srcdir=${srcdir:-.}
command -v clang >/dev/null || { echo "needs clang and libclang-rt-dev"; exit 77; }
export TMPDIR=${TMPDIR:-/var/tmp}
trap 'rm -f "$TMPDIR"/mmapio-fuzz.*' EXIT
mkdir -p fuzz

for name in ${FUZZ_ONLY:-policy model}; do
	kept=$srcdir/tests/corpus/$name
	mkdir -p "fuzz/$name"
	# Words of a copy of a file may be unaligned for the file's own, as with pread(2).
	clang -g -O1 -std=gnu11 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
		-DMMAPIO_DEBUG -include config.h -I. -I"$srcdir/lib" "$srcdir"/lib/*.c \
		"$srcdir/tests/fuzz_$name.c" -o "fuzz/fuzz_$name"
	longest=2000
	[ "$name" != policy ] || longest=100
	"fuzz/fuzz_$name" -max_total_time="${FUZZ_SECONDS:-600}" -max_len=$longest -print_final_stats=1 \
		-artifact_prefix="fuzz/$name-" "fuzz/$name" "$kept" >"fuzz/$name.log" 2>&1 || {
		tail -n 60 "fuzz/$name.log"
		exit 1
	}
	grep -E '^(Done|stat::number_of_executed_units)' "fuzz/$name.log" | sed "s/^/$name: /"
	if [ -n "${FUZZ_KEEP-}" ]; then
		rm -rf "fuzz/$name.least"
		mkdir "fuzz/$name.least"
		"fuzz/fuzz_$name" -merge=1 -max_len=$longest "fuzz/$name.least" "fuzz/$name" "$kept" >/dev/null 2>&1
		rm -f "$kept"/*
		cp "fuzz/$name.least"/* "$kept"
	fi
done
