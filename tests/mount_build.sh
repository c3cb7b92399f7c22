#!/bin/bash
# This project built in place on the mount, by autoconf, make -j and cc; what was built there runs,
# and is what cc makes of the same files elsewhere.

# The sources, without what may have been built among them
prepare() {
	mkdir "$1/source"
	(
		cd "${0%/*}/.."
		find configure.ac Makefile.am docs/man lib src tests -maxdepth 1 -type f \( -name '*.[ch]' -o -name '*.sh' \
			-o -name '*.in' -o -name '*.map' -o -name '*.3' -o -name '*.a[cm]' \) ! -name 'Makefile.in' -exec cp --parents -p \
			-t "$1/source" {} +
	)
	chmod -R u+w "$1/source"
}
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 600 root
need autoreconf cc libtoolize make nm pkg-config

# Nothing of the make that may have started this
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES TESTS MMAPFS LD_LIBRARY_PATH CFLAGS CPPFLAGS LDFLAGS srcdir

# Runs a command, and shows what it said if it fails
quietly() {
	"$@" >"$work/said" 2>&1 || fail "$*: exit status $?: $(tail -n 30 "$work/said")"
}

# Objects of all sources into folder $1, several at once
objects_make() {
	mkdir "$1"
	# shellcheck disable=SC2016 # for the shell that is started
	printf '%s\n' lib/*.c src/*.c | FUSE=$(pkg-config --cflags fuse3) OBJECTS=$1 xargs -P 4 -I '{}' "$BASH" -c '
		source={}
		object=$OBJECTS/${source//\//-}.o
		exec cc -include config.h -Ilib -std=gnu11 -O1 $FUSE -c "$source" -o "$object"'
}

# When each object was made
objects_times() {
	find . -name '*.o' -printf '%p %T@\n' | sort
}

# make finds nothing to do
is_made() {
	objects_times >"$work/objects.1"
	quietly make
	objects_times >"$work/objects.2"
	assert_same "$work/objects.1" "$work/objects.2" "what make makes anew, with nothing changed"
}

mount_start flush=10ms
cp -a "$MOUNT_WORK/bin/source" "$mnt/tree"
cd "$mnt/tree"
quietly autoreconf -fi
quietly ./configure --enable-werror CFLAGS=-O1
quietly make -j2
./mmapfs --version >"$work/version"
grep -q "$(sed -n 's/^PACKAGE_VERSION = //p' Makefile)" "$work/version" || fail "mmapfs --version: $(cat "$work/version")"

# What make knows of times: there is nothing to do, and after a change there is just that
is_made
touch lib/policy.c
quietly make -j2
objects_times >"$work/objects.2"
assert_equal ./lib/.libs/policy.o "$(comm -13 "$work/objects.1" "$work/objects.2" | sed 's/ .*//')" \
	"what is made anew after a change"
quietly make -j2 check TESTS='tests/layers.sh tests/lib_policy tests/lib_slice'
grep -q '^# PASS:  3$' "$work/said" || fail "the tests that were built there: $(tail -n 30 "$work/said")"

# The same compiler with the same files, here and there
objects_make objects
cp -a "$mnt/tree/config.h" "$mnt/tree/lib" "$mnt/tree/src" "$plain"
cd "$plain"
objects_make objects
diff -r objects "$mnt/tree/objects" || fail "what cc made on the mount"
ar crD objects.a objects/*.o
(cd "$mnt/tree" && ar crD objects.a objects/*.o && ranlib -D objects.a)
ranlib -D objects.a
cmp objects.a "$mnt/tree/objects.a" || fail "an archive that was made on the mount"
cd "$work"
(cd "$mnt/tree" && find . -type f -exec cksum {} +) | sort -k 3 >"$work/sums.mount"
mount_stop

# What is left in the backing folder, and what runs from there
(cd "$backing/tree" && find . -type f -exec cksum {} +) | sort -k 3 >"$work/sums.backing"
assert_same "$work/sums.mount" "$work/sums.backing" "the tree in the backing folder"
mount_start flush=manual,write=store
cd "$mnt/tree"
./mmapfs --version | cmp - "$work/version" || fail "mmapfs --version, mounted again"
is_made
# By the other road of a write
rm -r objects
objects_make objects
diff -r "$plain/objects" objects || fail "what cc made on the mount, mounted again"
quietly make distclean
cd "$work"
mount_stop
