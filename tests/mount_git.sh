#!/bin/bash
# git on the mount: a repository, clones of it by both roads, branches, work trees, gc and fsck.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 300 root user
need git

export GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0
export GIT_AUTHOR_DATE='2020-01-02 03:04:05 +0000' GIT_COMMITTER_DATE='2020-01-02 03:04:05 +0000'
git config --global user.name tester
git config --global user.email tester@example.org
git config --global init.defaultBranch main
git config --global advice.detachedHead false
git config --global gc.autoDetach false

# Files for the first commit, in folder $1
files_make() {
	local i
	mkdir -p "$1"/{one,two/three}
	for ((i = 0; i < 150; i++)); do
		printf 'file %d\n%s\n' "$i" "$(seq "$i" 7 3000)" >"$1/one/file $i"
	done
	noise 3 1 >"$1/two/large"
	: >"$1/two/three/empty"
	printf '#!/bin/sh\n' >"$1/two/run"
	chmod 755 "$1/two/run"
	ln -s ../one/nothing "$1/two/link"
}

is_fine() {
	git -C "$1" fsck --full --strict >"$work/fsck" 2>&1 || fail "git fsck in $1: $(cat "$work/fsck")"
	# Dangling objects are no fault
	! grep -v '^dangling' "$work/fsck" || fail "git fsck in $1 complains"
	assert_equal "" "$(git -C "$1" status --porcelain)" "git status in $1"
}

# The history that both folders get
history_make() {
	local repository=$1 i
	git init -q "$repository"
	files_make "$repository"
	git -C "$repository" add -A
	git -C "$repository" commit -q -m first
	git -C "$repository" checkout -q -b side
	for ((i = 0; i < 5; i++)); do
		seq "$i" 5000 >"$repository/one/file $((i * 10))"
		git -C "$repository" rm -q "one/file $((i + 100))"
		git -C "$repository" mv "one/file $((i + 120))" "two/three/file $i"
		git -C "$repository" commit -q -a -m "side $i"
	done
	git -C "$repository" checkout -q main
	echo main >"$repository/two/three/empty"
	git -C "$repository" commit -q -a -m main
	git -C "$repository" merge -q -m merged side
	git -C "$repository" tag -a -m tagged v1
	git -C "$repository" checkout -q main~1
	git -C "$repository" checkout -q side
	git -C "$repository" checkout -q main
}

# A clone at $1 that knows both branches, and not where it is from
repository_copy() {
	git clone -q --no-local "$plain/repository" "$1"
	git -C "$1" branch -q side origin/side
	git -C "$1" remote remove origin
}

# Further work trees of repository $1: two in folder $2, one in folder $3. What there is to see of them,
# with the places replaced, goes to file $4.
worktrees_use() {
	local repository=$1 trees=$2 elsewhere=$3 tree at
	git -C "$repository" worktree add -q -b topic "$trees/topic" main
	git -C "$repository" worktree add -q --detach "$trees/detached" side
	git -C "$repository" worktree add -q -b other "$elsewhere/other" main~1
	! git -C "$repository" worktree add -q "$trees/twice" topic 2>/dev/null ||
		fail "one branch is checked out twice"
	for tree in "$trees/topic" "$trees/detached" "$elsewhere/other"; do
		seq 700 >"$tree/one/file 5"
		git -C "$tree" mv "one/file 7" "two/moved"
		git -C "$tree" add -A
		git -C "$tree" commit -q -m "in ${tree##*/}"
	done
	# Objects that only a work tree refers to are kept
	git -C "$repository" gc -q --prune=now
	for tree in "$trees/topic" "$trees/detached" "$elsewhere/other"; do
		is_fine "$tree"
	done
	git -C "$repository" merge -q -m "of a work tree" topic
	git -C "$trees/detached" merge -q -m "of another" other
	git -C "$repository" worktree move "$trees/topic" "$trees/renamed"
	git -C "$repository" worktree lock "$trees/renamed"
	! git -C "$repository" worktree remove "$trees/renamed" 2>/dev/null || fail "a locked work tree is removed"
	git -C "$repository" worktree unlock "$trees/renamed"
	echo changed >"$elsewhere/other/one/file 9"
	! git -C "$repository" worktree remove "$elsewhere/other" 2>/dev/null || fail "a changed work tree is removed"
	git -C "$elsewhere/other" stash -q
	{
		git -C "$repository" worktree list --porcelain
		git -C "$trees/renamed" log -p --all
		git -C "$trees/detached" reflog
		git -C "$trees/detached" ls-files -s
		for tree in "$trees/renamed" "$trees/detached" "$elsewhere/other"; do
			at=$(git -C "$tree" rev-parse --show-toplevel)
			[ "$at" = "$tree" ] || echo "the top of $tree is $at"
			(cd "$tree" && find . -name .git -prune -o -type f -exec cksum {} + | sort -k 3)
		done
	} | sed "s:$trees/:TREES/:; s:$elsewhere/:ELSEWHERE/:; s:$repository\$:REPOSITORY:" >"$4"

	git -C "$repository" worktree remove "$elsewhere/other"
	git -C "$repository" worktree remove "$trees/renamed"
	rm -r "$trees/detached"
	git -C "$repository" worktree prune
	assert_equal 1 "$(git -C "$repository" worktree list | wc -l)" "work trees that are left of $repository"
	assert_equal "" "$(ls -A "$trees")" "what work trees have left"
	[ ! -e "$repository/.git/worktrees" ] || fail "what $repository knows of work trees has stayed"
	git -C "$repository" gc -q --prune=now
	is_fine "$repository"
}

history_make "$plain/repository"
head=$(git -C "$plain/repository" rev-parse HEAD)

# What work trees are to look like
repository_copy "$plain/for-trees"
mkdir "$plain/trees" "$plain/trees_elsewhere"
worktrees_use "$plain/for-trees" "$plain/trees" "$plain/trees_elsewhere" "$work/trees.plain"
rm -r "$plain/trees" "$plain/for-trees"

# By both roads of a write: where pages are made clean again and again, that is pwrite; where they
# are not, a store into the mapping
for road in flush=10ms flush=manual,write=store; do
	echo "-o $road"
	mount_start "$road"
	history_make "$mnt/repository"
	assert_equal "$head" "$(git -C "$mnt/repository" rev-parse HEAD)" "the commit made on the mount"
	is_fine "$mnt/repository"

	git clone -q "$mnt/repository" "$mnt/linked"
	git clone -q --no-local "$mnt/repository" "$mnt/sent"
	git clone -q --bare --no-local "$plain/repository" "$mnt/bare.git"
	git clone -q "$mnt/bare.git" "$plain/out"
	for clone in linked sent; do
		assert_equal "$head" "$(git -C "$mnt/$clone" rev-parse HEAD)" "HEAD of $clone"
		is_fine "$mnt/$clone"
		diff -r --no-dereference -x .git "$plain/repository" "$mnt/$clone" ||
			fail "the work tree of $clone differs"
	done
	diff -r --no-dereference -x .git "$plain/repository" "$plain/out" ||
		fail "the work tree of a clone of the mount differs"

	repository_copy "$mnt/for-trees"
	mkdir "$mnt/trees"
	worktrees_use "$mnt/for-trees" "$mnt/trees" "$plain/trees_elsewhere" "$work/trees.mount"
	assert_same "$work/trees.plain" "$work/trees.mount" "work trees"

	# What is received as differences from objects that are there is kept as a pack, whose head is
	# then overwritten in place
	seq 5000 >"$mnt/sent/one/file 3"
	git -C "$mnt/sent" commit -q -a -m pushed
	git -C "$mnt/repository" config receive.unpackLimit 1
	git -C "$mnt/sent" push -q --thin origin main:pushed
	git -C "$mnt/linked" fetch -q origin
	for repository in repository linked sent bare.git; do
		git -C "$mnt/$repository" repack -q -a -d -f
		git -C "$mnt/$repository" gc -q --prune=now --aggressive
		git -C "$mnt/$repository" fsck --full --strict >"$work/fsck" 2>&1 ||
			fail "git fsck after gc in $repository: $(cat "$work/fsck")"
	done
	is_fine "$mnt/repository"
	git -C "$mnt/repository" log -p --all >"$work/log.mount"
	mount_stop

	# What is left in the backing folder, and seen through a new mount
	is_fine "$backing/repository"
	is_fine "$backing/for-trees"
	is_fine "$backing/sent"
	git -C "$backing/repository" log -p --all >"$work/log.backing"
	assert_same "$work/log.mount" "$work/log.backing" "git log -p"
	mount_start "$road"
	is_fine "$mnt/repository"
	git -C "$mnt/repository" log -p --all >"$work/log.again"
	assert_same "$work/log.mount" "$work/log.again" "git log -p after mounting again"
	mount_stop
	rm -r "${backing:?}"/* "$plain/out"
done
