#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs a public suite on mounts, in both modes, and writes its table in docs/conformance.md. The suites
# are no part of the tree: give the path of a built one. As root, alone on the machine.
#
#	conformance.sh pjdfstest FOLDER
#	conformance.sh xfstests FOLDER [GROUP]        (users fsgqa, 123456-fsgqa and fsgqa2 must exist)
#
# Environment: MMAPFS, the program (make conformance sets it); CONFORMANCE_DIR, where to work (default
# /var/tmp), on the file system that is to be BACKING; MODES, some of the modes. A plain folder of that
# file system is the first line of pjdfstest's table; xfstests needs a whole file system for that.
set -eEuo pipefail
export LC_ALL=C

: "${MMAPFS:?the path of the program}"
suite=${1:?pjdfstest or xfstests} built=$(realpath "${2:?the folder of the built suite}")
group=${3:-quick}
page=$(realpath "${BASH_SOURCE[0]%/*}/..")/docs/conformance.md
work=$(mktemp -d "${CONFORMANCE_DIR:-/var/tmp}/mmapfs-conformance.XXXXXX")
helper=/sbin/mount.fuse.mmapfs

conformance_end() {
	local status=$?
	trap '' HUP INT TERM
	for place in "$work"/mnt "$work"/test.mnt "$work"/scratch.mnt; do
		fusermount3 -u -z "$place" 2>/dev/null || true
	done
	if [ -e "$work/helper" ]; then rm -f "$helper"; fi
	rm -rf --one-file-system "$work"
	exit "$status"
}
trap conformance_end EXIT
trap 'exit 130' HUP INT TERM
chmod 755 "$work"
mkdir "$work"/{mnt,test,scratch,test.mnt,scratch.mnt,plain}

version() {
	local commit
	commit=$(git -C "$built" log -1 --format='%h of %cs' 2>/dev/null) || commit="of an unknown version"
	echo "$suite $commit; Linux $(uname -r); $("$MMAPFS" --version | sed 's/mmapfs [^,]*, //'); BACKING on $(
		stat -f -c %T "$work")"
}

# ---- pjdfstest: assertions that passed and failed

pjdfstest_in() {
	(cd "$1" && prove -rQ "$built/tests" 2>&1) >"$work/out" || true
	local tests failed
	tests=$(sed -n 's/^Files=.* Tests=\([0-9]*\),.*/\1/p' "$work/out")
	failed=$(sed -n 's/.*Tests: [0-9]* Failed: \([0-9]*\)).*/\1/p' "$work/out" | awk '{ n += $1 } END { print n + 0 }')
	echo "| $2 | ${tests:-did not run} | ${failed:-} | $(sed -n 's|.*/tests/\([^ ]*\).*Failed: [1-9].*|\1|p' "$work/out" | xargs) |"
}

pjdfstest() {
	echo "| where | assertions | failed | in |"
	echo "|---|---|---|---|"
	pjdfstest_in "$work/plain" "the folder itself"
	for mode in ${MODES:-stateless handles}; do
		"$MMAPFS" -o "allow_other,suid,dev,io=$mode" "$work/test" "$work/mnt"
		pjdfstest_in "$work/mnt" "mmapfs, \`io=$mode\`"
		fusermount3 -u "$work/mnt"
	done
}

# ---- xfstests: tests that ran, and those that failed

xfstests() {
	local mode failed ran skipped
	[ ! -e "$helper" ] || { echo "$helper is there already" >&2; exit 1; }
	echo "| where | ran | failed | which |"
	echo "|---|---|---|---|"
	for mode in ${MODES:-stateless handles}; do
		# The mount's source is what xfstests calls it, and its type is to read fuse
		cat >"$work/helper" <<END
#!/bin/bash
source=\$1 point=\$2 options=
shift 2
while [ \$# -gt 0 ]; do
	if [ "\$1" = -o ]; then options=,\$2; shift; fi
	shift
done
case \$options, in *,remount,*) exec mount -i -o "\${options#,}" "\$point" ;; esac
exec env LD_LIBRARY_PATH='${LD_LIBRARY_PATH-}' '$MMAPFS' \\
	-o "fsname=\$source,subtype=,allow_other,suid,dev,io=$mode\$options" "$work/\${source#source:}" "\$point"
END
		install -m 755 "$work/helper" "$helper"
		cat >"$work/config" <<END
export FSTYP=fuse FUSE_SUBTYP=.mmapfs
export TEST_DEV=source:test TEST_DIR=$work/test.mnt
export SCRATCH_DEV=source:scratch SCRATCH_MNT=$work/scratch.mnt
END
		(cd "$built" && HOST_OPTIONS=$work/config ./check -fuse -g "$group") >"$work/out" 2>&1 || true
		ran=$(sed -n 's/^Ran: //p' "$work/out" | wc -w)
		skipped=$(sed -n 's/^Not run: //p' "$work/out" | wc -w)
		failed=$(sed -n 's/^Failures: //p' "$work/out" | sed 's|generic/||g')
		echo "| mmapfs, \`io=$mode\`, \`-g $group\` | $((ran - skipped)) | $(wc -w <<<"$failed") | $failed |"
		cp "$work/out" "${CONFORMANCE_LOG:-/dev/null}" || true
	done
}

table=$({
	echo "<!-- $suite: tests/conformance.sh $suite -->"
	version
	echo
	"$suite"
	echo "<!-- end of $suite -->"
})
echo "$table"
# In the place of the table before
awk -v suite="$suite" -v table="$table" '
	index($0, "<!-- " suite ":") == 1 { print table; skip = 1 }
	!skip { print }
	index($0, "<!-- end of " suite) == 1 { skip = 0 }' "$page" >"$work/page"
cat "$work/page" >"$page"
