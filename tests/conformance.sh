#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs a public suite on mounts, in both modes, and writes its table in docs/conformance.md. The suites
# are no part of the tree: give the path of a built one. As root, alone on the machine.
#
#	conformance.sh pjdfstest FOLDER
#	conformance.sh xfstests FOLDER [GROUP]        (users fsgqa, 123456-fsgqa and fsgqa2 must exist)
#
# BACKING is a whole ext4, on a loop device. Of xfstests, what ran on mmapfs is run on ext4 itself as well.
#
# Environment: MMAPFS, the program (make conformance sets it); CONFORMANCE_DIR, where the disks' images lie
# (default /var/tmp; up to 40 GB); WHERE, some of "stateless handles passthrough_hp ext4"; PASSTHROUGH_HP,
# the path of libfuse's example, which is left out without it; CONFORMANCE_LOG, a folder for what the suite
# says.
set -eEuo pipefail
export LC_ALL=C

# In a mount namespace of its own: xfstests looks at all mounts, mmapfs has its own view of them, and so a
# mount of one run could be kept busy by another.
if [ -z "${CONFORMANCE_NAMESPACE-}" ]; then
	CONFORMANCE_NAMESPACE=1 exec unshare --mount --propagation private "$BASH" "$0" "$@"
fi

: "${MMAPFS:?the path of the program}"
suite=${1:?pjdfstest or xfstests} built=$(realpath "${2:?the folder of the built suite}")
group=${3:-quick}
page=$(realpath "${BASH_SOURCE[0]%/*}/..")/docs/conformance.md
work=$(mktemp -d "${CONFORMANCE_DIR:-/var/tmp}/mmapfs-conformance.XXXXXX")
logs=${CONFORMANCE_LOG:-$work/logs}
helper=/sbin/mount.fuse.conformance-$$ # xfstests mounts by a type
where=" ${WHERE:-stateless handles ${PASSTHROUGH_HP:+passthrough_hp} ext4} "

unmount_all() {
	for place in "$work"/mnt "$work"/test.mnt "$work"/scratch.mnt "$work"/test "$work"/scratch; do
		while mountpoint -q "$place"; do umount "$place" || umount -l "$place" || break; done
	done
	for image in "$work"/*.image; do
		losetup -n -O NAME -j "$image" | xargs -r losetup -d || true
	done
}
conformance_end() {
	local status=$?
	trap '' HUP INT TERM
	unmount_all
	rm -f "$helper"
	rm -rf --one-file-system "$work"
	exit "$status"
}
trap conformance_end EXIT
trap 'exit 130' HUP INT TERM
chmod 755 "$work"
mkdir -p "$work"/{mnt,test,scratch,test.mnt,scratch.mnt} "$logs"

# New file systems to work on: test and scratch
make_disks() {
	unmount_all
	for disk in test scratch; do
		rm -f "$work/$disk.image"
		truncate -s 20G "$work/$disk.image"
		mkfs.ext4 -q -F "$work/$disk.image"
		mount -o loop "$work/$disk.image" "$work/$disk"
		chmod 755 "$work/$disk"
	done
}

version() {
	local commit
	commit=$(git -C "$built" log -1 --format='%h of %cs' 2>/dev/null) || commit="of an unknown version"
	echo "$suite $commit; Linux $(uname -r | cut -d - -f 1); $("$MMAPFS" --version | sed 's/mmapfs [^,]*, //'); BACKING on ext4"
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
	make_disks
	[[ $where != *" ext4 "* ]] || pjdfstest_in "$work/scratch" "ext4 itself"
	for mode in stateless handles; do
		[[ $where == *" $mode "* ]] || continue
		"$MMAPFS" -o "allow_other,suid,dev,io=$mode" "$work/test" "$work/mnt"
		pjdfstest_in "$work/mnt" "mmapfs, \`io=$mode\`"
		umount "$work/mnt"
	done
}

# ---- xfstests: tests that ran, and those that failed

# What serves source, at point, with options, as the helper of mount(8) calls it
serve_with() {
	cat >"$work/helper" <<END
#!/bin/bash
source=\$1 point=\$2 options=
shift 2
while [ \$# -gt 0 ]; do
	if [ "\$1" = -o ]; then options=,\$2; shift; fi
	shift
done
case \$options, in *,remount,*) exec mount -i -o "\${options#,}" "\$point" ;; esac
folder=$work/\${source#*:}
$1
END
	install -m 755 "$work/helper" "$helper"
}

# xfstests_in NAME TITLE TEST...; $work/config says where
xfstests_in() {
	local name=$1 title=$2 failed ran skipped
	shift 2
	(cd "$built" && HOST_OPTIONS=$work/config ./check "$@") >"$logs/$name" 2>&1 || true
	ran=$(sed -n 's/^Ran: //p' "$logs/$name" | wc -w)
	skipped=$(sed -n 's/^Not run: //p' "$logs/$name" | wc -w)
	failed=$(sed -n 's/^Failures: //p' "$logs/$name" | sed 's|generic/||g')
	echo "| $title | $((ran - skipped)) | $(wc -w <<<"$failed") | $failed |"
	sed -n 's/^Ran: //p' "$logs/$name" | tr ' ' '\n' | grep . >"$work/ran" || true
	sed -n 's/^Not run: //p' "$logs/$name" | tr ' ' '\n' | grep . |
		grep -vxFf - "$work/ran" >>"$work/ran.all" || true
}

fuse_config() {
	# The mount's source is what xfstests calls it, and its type is to read fuse
	cat >"$work/config" <<END
export FSTYP=fuse FUSE_SUBTYP=.conformance-$$
export TEST_DEV=backing-$$:test TEST_DIR=$work/test.mnt
export SCRATCH_DEV=backing-$$:scratch SCRATCH_MNT=$work/scratch.mnt
END
}

xfstests() {
	local mode test scratch
	echo "| where | ran | failed | which |"
	echo "|---|---|---|---|"
	for mode in stateless handles; do
		[[ $where == *" $mode "* ]] || continue
		make_disks
		serve_with "exec env LD_LIBRARY_PATH='${LD_LIBRARY_PATH-}' '$MMAPFS' \\
	-o \"fsname=\$source,subtype=,allow_other,suid,dev,io=$mode\$options\" \"\$folder\" \"\$point\""
		fuse_config
		xfstests_in "$mode" "mmapfs, \`io=$mode\`, \`-g $group\`" -fuse -g "$group"
	done
	if [[ $where == *" passthrough_hp "* ]]; then
		make_disks
		serve_with "exec '${PASSTHROUGH_HP:?}' -o \"fsname=\$source,allow_other,suid,dev\$options\" \"\$folder\" \"\$point\""
		fuse_config
		xfstests_in passthrough_hp "passthrough_hp, \`-g $group\`" -fuse -g "$group"
	fi
	if [[ $where == *" ext4 "* ]]; then
		make_disks
		umount "$work/test" "$work/scratch"
		test=$(losetup --show -f "$work/test.image") scratch=$(losetup --show -f "$work/scratch.image")
		cat >"$work/config" <<END
export FSTYP=ext4 TEST_DEV=$test TEST_DIR=$work/test.mnt SCRATCH_DEV=$scratch SCRATCH_MNT=$work/scratch.mnt
END
		# shellcheck disable=SC2046 # one test, one word
		xfstests_in ext4 "ext4 itself, the same tests" $(sort -u "$work/ran.all")
	fi
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
