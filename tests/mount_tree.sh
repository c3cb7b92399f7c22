#!/bin/bash
# Trees with all that a folder can hold, copied into the mount and out of it by cp, tar and
# rsync. What is seen on the mount has to be what is in the backing folder, and what the same
# tool makes of the same tree without a mount.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 360 root user
need rsync tar getfattr setfattr setfacl

longest=$(printf '%0255d' 7)

# Makes the tree in an empty folder $1
tree_make() {
	cd "$1"
	noise 1 1 | head -c 300001 >plain
	: >empty
	printf x >one
	ln plain hard
	mkdir -p sub/deeper 'a folder'
	ln plain sub/hard
	ln one sub/deeper/one
	ln -s plain link
	ln -s nowhere/at/all dangling
	ln -s ../.. sub/deeper/up
	ln -s "$(printf '%04000d' 1)" long-link
	ln link hard-link-to-a-link

	truncate -s 24M holes
	printf island | dd of=holes bs=1 seek=12000000 conv=notrunc status=none
	truncate -s 1M hole-only
	head -c 40000 plain >tail-hole
	truncate -s 5M tail-hole

	touch ' leading and trailing ' $'new\nline' $'latin-\xe9\xff' -- '-dash' '*' "quote'\"" '\back' \
		$'\x01\x7f' ... "$longest" $'\xe2\x82\xac'
	mkdir -p "$(printf 'nest/%.0s' {1..40})"
	echo deep >"$(printf 'nest/%.0s' {1..40})leaf"
	mkdir $'folder\n\xe9' && echo inner >$'folder\n\xe9/inner'

	setfattr -n user.colour -v blue plain
	setfattr -n user.empty plain
	setfattr -n user.binary -v 0x00ff0a00 plain
	setfattr -n user.large -v "$(printf '%02000d' 3)" one
	setfattr -n user.folder -v yes sub
	setfacl -m u:1234:r--,g:4321:rw- 'a folder' empty
	setfacl -d -m u:1234:r-x,g:4321:rwx 'a folder'

	local mode
	for mode in 400 444 600 640 700 755 4755 2711 6711 1644; do
		echo "$mode" >"mode-$mode"
		chmod "$mode" "mode-$mode"
	done
	for mode in 700 711 1777 2775; do
		mkdir -m "$mode" "folder-$mode"
	done
	mkdir read-only
	echo inner >read-only/inner
	chmod 555 read-only

	# diff cannot compare these, and says so: they are kept apart
	mkdir special
	mkfifo -m 640 special/fifo
	ln special/fifo special/fifo-again
	if [ "$who" = root ]; then
		mknod special/null c 1 3
		mknod special/block b 259 77777
		chown 12:34 plain sub special/fifo
		chown 4000000000:3000000000 empty
		chown -h 5:6 dangling
		chmod 6755 plain
		setfattr -n trusted.hidden -v secret plain
		setfattr -h -n trusted.hidden -v link dangling
	fi

	touch -h -d '2001-02-03 04:05:06.123456789' link dangling plain special/fifo
	touch -d '1960-01-02 03:04:05.000000001' one
	touch -d '2100-12-31 23:59:59.999999999' empty holes
	touch -d '2011-11-11 11:11:11.111111111' sub/deeper sub 'a folder' folder-1777 read-only
	cd "$work"
}

# All that is to be known of the tree in folder $1, but its place: one line for each name. With
# $2 = holes, also which files have some.
manifest() {
	python3 - "$@" <<'END'
import hashlib, os, stat, sys
root, holes = os.fsencode(sys.argv[1]), "holes" in sys.argv[2:]
names, seen = [b"."], {}
for folder, folders, files in os.walk(root):
	names += [os.path.relpath(os.path.join(folder, n), root) for n in folders + files]
for name in sorted(names):
	path = os.path.join(root, name)
	st = os.lstat(path)
	out = [stat.filemode(st.st_mode), oct(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns]
	if not stat.S_ISDIR(st.st_mode):
		out += [st.st_nlink, st.st_size, "=", seen.setdefault(st.st_ino, name)]
	if stat.S_ISLNK(st.st_mode):
		out += [os.readlink(path)]
	if stat.S_ISBLK(st.st_mode) or stat.S_ISCHR(st.st_mode):
		out += [os.major(st.st_rdev), os.minor(st.st_rdev)]
	if stat.S_ISREG(st.st_mode):
		out += [hashlib.sha256(open(path, "rb").read()).hexdigest()]
		if holes and st.st_size >= 1 << 20:
			out += ["sparse" if st.st_blocks * 512 < st.st_size // 4 else "full"]
	for key in sorted(os.listxattr(path, follow_symlinks=False)):
		out += [key, os.getxattr(path, key, follow_symlinks=False)]
	print(repr(name), *out)
END
}

# What tools say of the tree in folder $1, as they say it
tools_view() {
	(
		cd "$1"
		find . -printf '%p %y %m %u %g %U %G %s %n %l %T+ %D\0' | sed -z 's/ [0-9]*$//' | sort -z
		find . -print0 | sort -z | xargs -0 getfattr -d -m - -h -e hex
		find . -print0 | sort -z | xargs -0 getfacl -p 2>/dev/null || true # links have none
		find . -type f -links +1 -printf '%i %p\0' | sort -z -n -k 1,1
		find . -type f -size +900k -printf '%p %b\0' | sort -z
		find . -type f -print0 | sort -z | xargs -0 cksum
	)
}

# The folder $1 of the mount is that of the backing folder, for every tool
compare_backing() {
	tools_view "$mnt/$1" | sed -z 's/^[0-9]* //' >"$work/view.mount"
	tools_view "$backing/$1" | sed -z 's/^[0-9]* //' >"$work/view.backing"
	assert_same "$work/view.backing" "$work/view.mount" "$1: backing folder and mount"
	diff -r --no-dereference -x special "$backing/$1" "$mnt/$1" || fail "diff -r: $1"
}

# Folder $2 is what $1 is; with $3 = holes, in this too
compare_trees() {
	manifest "$1" "${3-}" >"$work/tree.1"
	manifest "$2" "${3-}" >"$work/tree.2"
	assert_same "$work/tree.1" "$work/tree.2" "$1 and $2"
	diff -r --no-dereference -x special "$1" "$2" || fail "diff -r: $1 and $2"
}

tar_options=(--xattrs --xattrs-include='*' --acls --sparse --numeric-owner
	--warning=no-timestamp)

tree_copy_cp() { cp -a "$1" "$2"; }

tree_copy_tar() {
	mkdir "$2"
	tar -C "$1" "${tar_options[@]}" -cf "$work/tar" .
	tar -C "$2" "${tar_options[@]}" -p -xf "$work/tar"
}

tree_copy_rsync() { rsync -aHAX "$1/" "$2/"; }

# rsync finds nothing that it would have to bring from $1 to $2
rsync_is_done() {
	local changes
	changes=$(rsync -aHAXn --checksum --itemize-changes "$1/" "$2/")
	assert_equal "" "$changes" "changes that rsync still sees from $1 to $2"
}

# By both roads of a write: where pages are made clean again and again, that is pwrite; where they
# are not, a store into the mapping
for road in flush=10ms flush=manual,write=store; do
	echo "-o $road"
	source=$work/source
	mkdir "$source"
	tree_make "$source"

	mount_start "$road"
	for tool in cp tar rsync; do
		holes=holes
		if [ "$tool" = rsync ]; then holes=; fi

		# The tool without a mount says what is to be expected of it (tar makes two of two links to
		# one fifo)
		expected=$plain/$tool
		"tree_copy_$tool" "$source" "$expected"
		if [ "$tool" != tar ]; then compare_trees "$source" "$expected" $holes; fi

		"tree_copy_$tool" "$source" "$mnt/$tool"
		compare_trees "$expected" "$mnt/$tool" $holes
		compare_backing "$tool"
		if [ "$tool" = rsync ]; then
			rsync_is_done "$source" "$mnt/$tool"
			rsync_is_done "$mnt/$tool" "$source"
		fi

		"tree_copy_$tool" "$mnt/$tool" "$plain/$tool.out"
		compare_trees "$expected" "$plain/$tool.out" $holes
		if [ "$tool" = rsync ]; then
			rsync_is_done "$mnt/$tool" "$plain/$tool.out"
		fi

		# Within the mount
		"tree_copy_$tool" "$mnt/$tool" "$mnt/$tool.again"
		compare_trees "$expected" "$mnt/$tool.again" $holes
	done

	# A second rsync over a tree that has moved on, with deletion
	chmod u+w "$mnt/rsync/read-only" "$source/read-only"
	rm -r "$mnt/rsync/sub" "$mnt/rsync/folder-711"
	mkdir "$mnt/rsync/surplus" && touch "$mnt/rsync/surplus/file"
	echo changed >"$mnt/rsync/one"
	truncate -s 7 "$mnt/rsync/plain"
	chmod 600 "$mnt/rsync/mode-755"
	setfattr -n user.surplus -v x "$mnt/rsync/empty"
	rsync -aHAX --delete "$source/" "$mnt/rsync/"
	compare_trees "$source" "$mnt/rsync"
	compare_backing rsync

	# And one that overwrites what differs, in the files as they are
	dd if=/dev/zero of="$mnt/rsync/plain" bs=1000 seek=100 count=50 conv=notrunc status=none
	printf else | dd of="$mnt/rsync/holes" bs=1 seek=12000000 conv=notrunc status=none
	rsync -aHAX --inplace --no-whole-file "$source/" "$mnt/rsync/"
	compare_trees "$source" "$mnt/rsync"
	compare_backing rsync
	mount_stop

	# As it is found by a daemon that has seen none of it
	for tool in cp tar rsync; do
		mount_start flush=manual
		compare_backing "$tool"
		mount_stop
	done
	mount_start flush=manual
	chmod -R u+w "$mnt"
	rm -r "${mnt:?}"/*
	mount_stop
	assert_equal "" "$(ls -A "$backing")" "what rm -r on the mount left in the backing folder"
	chmod -R u+w "$source" "$plain"
	rm -r "$source" "${plain:?}"/*
done
