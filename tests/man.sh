#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The manual: each function that the library exports is named and has a synopsis, which is that of the
# header, in a page; and mandoc finds nothing to complain of.
set -u
srcdir=${srcdir:-.}
status=0
pages=("$srcdir"/docs/man/*.3)
# Functions which have no page yet.
exceptions=()

command -v mandoc >/dev/null || { echo "mandoc is missing (Debian: mandoc)"; exit 77; }

complain() {
	echo "$1:"
	echo "$2"
	status=1
}

[ -e "${pages[0]}" ] || { echo "no pages in docs/man"; exit 1; }
found=$(mandoc -Tlint -W warning "${pages[@]}")
[ -z "$found" ] || complain "mandoc complains" "$found"

mapped=$(sed -n 's/^[[:space:]]*\(mmapio_[a-z0-9_]*\);$/\1/p' "$srcdir/lib/mmapio.map" | sort)
[ -n "$mapped" ] || complain "no names found" "$srcdir/lib/mmapio.map"
wanted=$(comm -23 <(echo "$mapped") <(printf '%s\n' "${exceptions[@]}" | sort))
named=$(sed -nE 's/^\.Nm (mmapio_[a-z0-9_]+).*/\1/p' "${pages[@]}" | sort -u)
found=$(comm -23 <(echo "$wanted") <(echo "$named"))
[ -z "$found" ] || complain "exported, but not named (.Nm) in a page" "$found"

# One prototype a line, without blanks and attributes.
declared=$(awk '
	/^[a-z].*[ *]mmapio_[a-z0-9_]+\(/ { inside = 1; text = "" }
	inside { text = text $0 }
	inside && /;$/ { print text; inside = 0 }' "$srcdir/lib/mmapio.h" | tr -d ' \t;' |
	sed -E 's/MMAPIO_(MUST_CHECK|NONNULL\([0-9,]*\))//g')
described=$(awk '
	/^\.Ft / { type = substr($0, 5); gsub(/"/, "", type) }
	/^\.Fo / { text = type $2 "("; separator = "" }
	/^\.Fa "/ { text = text separator substr($0, 6, length($0) - 6); separator = "," }
	/^\.Fc$/ { print text ")" }' "${pages[@]}" | tr -d ' \t')
for name in $wanted; do
	in_header=$(grep -E "[a-z0-9*]$name\(" <<<"$declared")
	in_page=$(grep -E "[a-z0-9*]$name\(" <<<"$described")
	[ -n "$in_header" ] && [ "$in_header" = "$in_page" ] ||
		complain "$name: header, then page" "$in_header"$'\n'"$in_page"
done
exit $status
