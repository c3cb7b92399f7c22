#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The library beside what one would write instead (bench_lib.c): a table on stdout, the same as JSON, and
# plots of it where gnuplot is installed, in the folder BENCH_RESULTS (default: bench-lib). BENCH_MIB (1024)
# and BENCH_ROUNDS (9) say how large the file is and how often all take their turn. Needs no root, but a
# disk, BENCHDIR (default /var/tmp), and the machine for itself.
set -eEuo pipefail
export LC_ALL=C
: "${TOOLS:?the folder of the compiled tools}"
results=${BENCH_RESULTS:-bench-lib}
mkdir -p "$results"
trap 'rm -f "${BENCHDIR:-/var/tmp}"/bench-lib.*' EXIT

uname -sr
"$TOOLS/bench_lib" "${BENCHDIR:-/var/tmp}" "${BENCH_MIB:-1024}" "${BENCH_ROUNDS:-9}" >"$results/bench-lib.tsv"
{
	printf 'group\tcase\twho\tp50 ns\tp99 ns\ttimes ours\n'
	cat "$results/bench-lib.tsv"
} | awk -F '\t' -v OFS=' | ' '{ $1 = $1; print }' | column -t -s '|' -o '|'
awk -F '\t' 'BEGIN { print "[" }
	{ printf "%s  {\"group\": \"%s\", \"case\": \"%s\", \"who\": \"%s\", \"p50\": %s, \"p99\": %s, \"ratio\": %s}",
		(NR > 1 ? ",\n" : ""), $1, $2, $3, $4, ($5 == "" ? "null" : $5), ($6 == "" ? "null" : $6) }
	END { print "\n]" }' "$results/bench-lib.tsv" >"$results/bench-lib.json"
if command -v gnuplot >/dev/null; then
	cut -f 1 "$results/bench-lib.tsv" | sort -u | while read -r group; do
		awk -F '\t' -v group="$group" '$1 == group && $6 != "" { printf "\"%s: %s\" %s\n", $2, $3, $6 }' \
			"$results/bench-lib.tsv" >"$results/plot.data"
		gnuplot -e "set terminal svg size 900,700 noenhanced; set output '$results/${group// /-}.svg';
			set title '$group: times ours (less is faster than ours)'; set logscale x; set key off;
			set style fill solid; set boxwidth 0.6; set lmargin 50; set yrange [] reverse; set grid x;
			plot '$results/plot.data' using (\$2):0:(0.3):ytic(1) with circles fill solid"
	done
	rm -f "$results/plot.data"
fi
echo "in $results:" "$results"/*
