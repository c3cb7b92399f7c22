#!/bin/bash
# Large folders, listed while others change them, through the mount and in the backing folder: what stays
# is listed once, whatever else comes and goes. LISTING_ENTRIES says how many in the largest (16000, of an
# ordinary user 8000).
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" "$((200 + ${LISTING_ENTRIES:-16000} / 50))" root user

# The mount below is of this script's namespace, and goes with it
if [ "$who" = root ] && [ -z "${LISTING_NAMESPACE-}" ]; then
	LISTING_NAMESPACE=1 exec "${namespace[@]}" "$BASH" "$0"
fi
detach_copies

# The same on the folder alone: a failure here is one of the test's own
mkdir "$plain/folder"
"$TOOLS/tool_listing" "$plain/folder" "$plain/folder" 4000 4096 || fail "without a mount"

names() { find "$1" -mindepth 1 -printf '%P\n' | sort; }

# list_below FOLDER ENTRIES: a folder of the mount; "" is its root
list_below() {
	local folder=$mnt$1 below=$backing$1
	mount_start ''
	mkdir "$folder"/{many,narrow}
	"$TOOLS/tool_listing" "$folder/many" "$folder/many" "$2" 32768 ||
		fail "$folder: changed by a process of the mount"
	"$TOOLS/tool_listing" "$folder/narrow" "$folder/narrow" 2000 280 ||
		fail "$folder: an entry at a time"
	names "$folder/many" >"$work/names.mount"
	names "$below/many" >"$work/names.backing"
	assert_same "$work/names.backing" "$work/names.mount" "what is left"
	rm -r "$folder"/{many,narrow} || fail "rm -r in $folder"
	assert_equal "" "$(names "$below")" "what rm -r has left in $below"
	mount_stop

	# (With io=stateless the kernel keeps listings, until it sees by the attributes that they are old.)
	mount_start attr_timeout=0,entry_timeout=0
	mkdir "$folder/behind"
	"$TOOLS/tool_listing" "$folder/behind" "$below/behind" 4000 4096 ||
		fail "$folder: changed in the backing folder"
	rm -r "$folder/behind"
	mount_stop
}

[ "$who" = root ] || : "${LISTING_ENTRIES:=8000}"
list_below "" "${LISTING_ENTRIES:-16000}"
if [ "$who" = root ]; then
	# Offsets of another kind
	mkdir "$backing/tmpfs"
	mount -t tmpfs tmpfs "$backing/tmpfs"
	list_below /tmpfs 8000
fi
