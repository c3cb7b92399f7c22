#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The examples in docs/examples compile as plain C11 against this tree's header and library, and do
# what their first lines say; and the header is C++ too.
set -u
srcdir=$(cd "${srcdir:-.}" && pwd)
libraries=$PWD/.libs
for compiler in cc c++; do
	command -v $compiler >/dev/null || { echo "$compiler is missing (Debian: gcc, g++)"; exit 77; }
done
[ -e "$libraries/libmmapio.so" ] || { echo "$libraries/libmmapio.so is not built"; exit 1; }
if ldd "$libraries/libmmapio.so" | grep -qE 'lib[alt]san'; then
	echo "the library is built with a sanitizer, which plain programs do not bring along"
	exit 77
fi
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
status=0

# expect WHAT WANTED GOT
expect() {
	[ "$2" = "$3" ] && return
	echo "$1: expected '$2', got '$3'"
	status=1
}

for source in "$srcdir"/docs/examples/*.c; do
	name=$(basename "$source" .c)
	cc -std=c11 -Wall -Wextra -Wpedantic -Werror -I"$srcdir/lib" -o "./example_$name" "$source" \
		-L"$libraries" -lmmapio || { echo "$name does not compile"; exit 1; }
	./"example_$name" 2>/dev/null
	expect "$name without arguments" 2 $?
done
c++ -x c++ -fsyntax-only -Wall -Wpedantic -Werror "-I$srcdir/lib" - <<<'#include <mmapio.h>' ||
	{ echo "mmapio.h is no C++"; status=1; }

# More than one window, and a last line without an end.
{ seq 300000; printf last; } >lines
expect "read" 300000 "$(./example_read lines)"
: >empty
expect "read of an empty file" 0 "$(./example_read empty)"
./example_read missing 2>error
expect "read of a missing file: status" 1 $?
expect "read of a missing file: text" 1 "$(grep -c '^read: missing: ..*' error)"

page=$(getconf PAGESIZE)
expect "create" "14 bytes to flush" "$(./example_create made)"
{ printf 'copied\n'; head -c $((page - 7)) /dev/zero; printf 'stored\n'; head -c $((page - 7)) /dev/zero; } >wanted
cmp made wanted || { echo "create left other bytes"; status=1; }

printf 'one\ntwo\n' | ./example_log log || { echo "log failed"; status=1; }
printf 'three\n' | ./example_log log || { echo "log failed when it appended"; status=1; }
expect "log" $'one\ntwo\nthree' "$(cat log)"

# So many that the processes do overlap.
pids=()
for ((i = 0; i < 4; i++)); do
	./example_counter counter 8000000 >/dev/null & pids+=($!)
done
for pid in "${pids[@]}"; do
	wait "$pid" || { echo "counter failed"; status=1; }
done
expect "counter of four processes" 32000000 "$(./example_counter counter 0)"
expect "counter's file" 32000000 "$(od -An -t u8 counter | tr -d ' ')"

# More than one chunk, the last one shorter.
yes 'some text' | head -n 20001 >text
tr '[:lower:]' '[:upper:]' <text >wanted
expect "chunks" "200010 bytes" "$(./example_chunks text)"
cmp text wanted || { echo "chunks left other bytes"; status=1; }

printf 'a file of data' >data
expect "private, discarded" $'2+4\n0 bytes left' "$(./example_private data 2 FILE discard)"
expect "private, discarded: the file" "a file of data" "$(cat data)"
expect "private, committed" $'2+4\n0 bytes left' "$(./example_private data 2 FILE commit)"
expect "private, committed: the file" "a FILE of data" "$(cat data)"
./example_private data 12 beyond commit 2>/dev/null
expect "private beyond the end: status" 1 $?
expect "private beyond the end: the file" "a FILE of data" "$(cat data)"
# Each thing is told before the next one is done.
told() {
	for ((i = 0; i < 1000; i++)); do
		[ "$(tail -n 1 events)" != "$1" ] || return 0
		sleep 0.01
	done
	echo "watch: no word of: $1"
	status=1
}
: >watched
./example_watch watched >events &
told watching
echo more >>watched
told modified
chmod 600 watched
told metadata
rm watched
told removed
[ $status -eq 0 ] || kill $!
wait $! || { echo "watch failed"; status=1; }
expect "watch" $'watching\nmodified\nmetadata\nremoved' "$(cat events)"
exit $status
