#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Tools in point-in-time views, several at once beside the live tree: PostgreSQL and SQLite under load are
# viewed, and started in the views; git, make, rsync and rm work in others. What is live does not notice.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 600 root user
need sqlite3 python3 git make rsync pgrep

bin=
for folder in /usr/lib/postgresql/*/bin; do
	if [ -x "$folder/pg_amcheck" ]; then bin=$folder; fi
done
[ -n "$bin" ] || skip "PostgreSQL is not installed"
export PATH=$bin:$PATH PGUSER=tester PGDATABASE=postgres PGCONNECT_TIMEOUT=60

# The server refuses to run as root
server=()
options=
if [ "$who" = root ]; then
	server=(setpriv --reuid=65534 --regid=65534 --clear-groups --)
	options=allow_other
fi
mkdir "$work/socket" "$work/viewed" "$backing/database" "$backing/rest"
if [ "$who" = root ]; then
	chown 65534:65534 "$work/socket" "$work/viewed" "$backing/database"
	chmod 755 "$work" "$backing"
fi

declare -A postmaster=()

server_is_gone() {
	local state
	! state=$(cat "/proc/$1/stat" 2>/dev/null) || [[ ${state##*) } = [XZ]* ]]
}

server_answers() {
	server_is_gone "${postmaster[$1]}" || pg_isready -q -h "$1"
}

# The server of folder $2, by the socket in $1
server_start() {
	"${server[@]}" postgres -D "$2" -k "$1" </dev/null >>"$work/server" 2>&1 &
	postmaster[$1]=$!
	wait_until 90 server_answers "$1" || fail "the server does not answer: $(tail -n 20 "$work/server")"
	! server_is_gone "${postmaster[$1]}" || fail "the server has ended: $(tail -n 20 "$work/server")"
}

server_stop() {
	local status=0
	kill -INT "${postmaster[$1]}"
	wait "${postmaster[$1]}" || status=$?
	[ "$status" -eq 0 ] || fail "the server's exit status is $status: $(tail -n 20 "$work/server")"
	unset "postmaster[$1]"
}

servers_kill() {
	local socket
	for socket in "${!postmaster[@]}"; do
		pkill -KILL -P "${postmaster[$socket]}" || true
		kill -KILL "${postmaster[$socket]}" || true
	done
}
trap '{ servers_kill || true; } 2>/dev/null' EXIT

# Sums of pgbench's tables, by the socket in $1: those that have to be the same, and how many rows
sums() {
	psql -h "$1" -X -q -A -t -v ON_ERROR_STOP=1 -c 'select (select sum(abalance) from pgbench_accounts) =
		(select sum(tbalance) from pgbench_tellers), (select sum(tbalance) from pgbench_tellers) =
		(select coalesce(sum(delta), 0) from pgbench_history), (select count(*) from pgbench_accounts)' ||
		fail "psql"
}

# ---------------------------------------------------------------- what is live, and busy

mount_start "$options"
"${server[@]}" initdb -k --no-locale -E UTF8 -A trust -U tester --wal-segsize=2 -D "$mnt/database" \
	>"$work/initdb" 2>&1 || fail "initdb: $(tail -n 20 "$work/initdb")"
cat >>"$mnt/database/postgresql.conf" <<END
listen_addresses = ''
cluster_name = '$work/'
shared_buffers = 2MB
dynamic_shared_memory_type = mmap
max_wal_size = 16MB
min_wal_size = 4MB
checkpoint_timeout = 30s
END
server_start "$work/socket" "$mnt/database"
pgbench -h "$work/socket" -i -q -s 1 >"$work/pgbench" 2>&1 || fail "pgbench -i: $(tail -n 20 "$work/pgbench")"

banks=()
cat >"$work/bank.py" <<'END'
# Moves money in a data base, in WAL mode or not: what there is in all stays the same
import os, random, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
database.execute("pragma journal_mode = %s" % sys.argv[2])
database.execute("create table if not exists accounts (id integer primary key, money integer, filler blob)")
database.execute("begin")
for i in range(400):
	database.execute("insert or ignore into accounts values (?, 100, zeroblob(700))", (i,))
database.execute("commit")
open(sys.argv[3], "w").write("begun")
while not os.path.exists(sys.argv[4]):
	database.execute("begin immediate")
	for _ in range(5):
		a, b = random.randrange(400), random.randrange(400)
		database.execute("update accounts set money = money - 1, filler = randomblob(700) where id = ?", (a,))
		database.execute("update accounts set money = money + 1 where id = ?", (b,))
	database.execute("commit")
END
for mode in wal delete; do
	python3 "$work/bank.py" "$mnt/rest/$mode.db" "$mode" "$work/begun.$mode" "$work/enough" &
	banks+=($!)
done
for mode in wal delete; do
	wait_until 30 test -s "$work/begun.$mode" || fail "nothing is in $mode.db"
done

git init -q -b main "$mnt/rest/source"
(
	cd "$mnt/rest/source"
	git config user.name tester
	git config user.email tester@example.org
	for i in {1..40}; do printf 'int f%d(int x)\n{\n\treturn x + %d;\n}\n' "$i" "$i" >"f$i.c"; done
	printf 'all: lib.a\nlib.a: %s\n\tar rc $@ $^\n' "$(echo f{1..40}.o)" >Makefile
	git add .
	git commit -q -m begin
)
git clone -q -c user.name=tester -c user.email=tester@example.org "$mnt/rest/source" "$mnt/rest/clone"

pgbench -h "$work/socket" -n -c 4 -j 2 -T 8 >"$work/pgbench" 2>&1 &
load=$!
for i in 1 2 3; do
	sleep 1.5
	mkdir "$mnt/.snap/v$i"
done
wait "$load" || fail "pgbench: $(tail -n 20 "$work/pgbench")"

# ---------------------------------------------------------------- in the views, one after the other

before=$(psql -h "$work/socket" -X -q -A -t -c 'select sum(abalance), count(*) from pgbench_accounts')
rows=
for i in 1 2 3; do
	view=$mnt/.snap/v$i
	# As a crash leaves it
	rm "$view/database/postmaster.pid"
	: >"$work/server"
	server_start "$work/viewed" "$view/database"
	grep -q 'database system was not properly shut down' "$work/server" || fail "v$i: no recovery: $(cat "$work/server")"
	assert_equal 't|t|100000' "$(sums "$work/viewed")" "v$i: sums"
	rows+=" $(psql -h "$work/viewed" -X -q -A -t -c 'select count(*) from pgbench_history')"
	pg_amcheck -h "$work/viewed" --install-missing --heapallindexed >"$work/amcheck" 2>&1 || fail "v$i: pg_amcheck: $(tail -n 20 "$work/amcheck")"
	psql -h "$work/viewed" -X -q -c 'drop table pgbench_history, pgbench_tellers' -c 'vacuum full pgbench_accounts' || fail "v$i: psql"
	server_stop "$work/viewed"
	"${server[@]}" pg_checksums --check -D "$view/database" >"$work/checksums" 2>&1 || fail "v$i: pg_checksums: $(cat "$work/checksums")"
	for mode in wal delete; do
		assert_equal "ok 40000" "$(sqlite3 "$view/rest/$mode.db" 'pragma integrity_check; select sum(money) from accounts' | xargs)" "v$i: $mode.db"
		sqlite3 "$view/rest/$mode.db" 'update accounts set money = 0; vacuum'
	done
done
[ "$(xargs -n 1 <<<"$rows" | sort -n | xargs)" = "$(xargs <<<"$rows")" ] || fail "transactions in views one after the other:$rows"
[ "$(xargs -n 1 <<<"$rows" | sort -u | wc -l)" -eq 3 ] || fail "transactions in views one after the other:$rows"

# The live server has seen nothing
assert_equal "$before" "$(psql -h "$work/socket" -X -q -A -t -c 'select sum(abalance), count(*) from pgbench_accounts')" "live"
assert_equal 't|t|100000' "$(sums "$work/socket")" "live sums"
touch "$work/enough"
wait "${banks[@]}" || fail "a bank has failed"
for mode in wal delete; do
	assert_equal "ok 40000" "$(sqlite3 "$mnt/rest/$mode.db" 'pragma integrity_check; select sum(money) from accounts' | xargs)" "live: $mode.db"
done
server_stop "$work/socket"

# ---------------------------------------------------------------- several at once, while nothing is live

fingerprint() {
	find "$1" -path "$backing/.mmapfs" -prune -o -printf '%P %y %m %U %G %s %T@ %C@ %l\n' | sort
	find "$1" -path "$backing/.mmapfs" -prune -o -type f -print0 | sort -z | xargs -0 sha256sum
}
mkdir "$mnt/.snap"/{git,make,rsync,rm}
mkdir "$work/copy"
cp -a "$mnt/rest" "$work/copy"
mount_stop # what was written has its times by now
mount_start "$options"
fingerprint "$backing" >"$work/fingerprint"
(
	cd "$mnt/.snap/git/rest/clone"
	for i in {1..5}; do
		echo "int g$i;" >"g$i.c"
		git add .
		git commit -q -m "$i"
	done
	git gc -q --aggressive --prune=now
	git checkout -q -b other HEAD~3
	git fsck --full
) >"$work/git" 2>&1 &
jobs_of_views=($!)
(make -C "$mnt/.snap/make/rest/source" -j4 && ar t "$mnt/.snap/make/rest/source/lib.a" | wc -l) >"$work/make" 2>&1 &
jobs_of_views+=($!)
(
	rsync -a -c --delete "$mnt/rest/clone/" "$mnt/.snap/rsync/rest/source/"
	rsync -a --delete "$mnt/.snap/rsync/rest/" "$work/rsynced/"
) >"$work/rsync" 2>&1 &
jobs_of_views+=($!)
rm -rf "$mnt/.snap/rm"/* >"$work/rm" 2>&1 &
jobs_of_views+=($!)
for job in "${jobs_of_views[@]}"; do
	wait "$job" || fail "$(tail -n 5 "$work"/{git,make,rsync,rm})"
done
assert_equal 40 "$(tail -n 1 "$work/make")" "what make has made in a view"
assert_equal "" "$(ls "$mnt/.snap/rm")" "what rm -rf has left of a view"
diff -r --no-dereference "$work/rsynced/source" "$mnt/rest/clone" || fail "rsync"
assert_equal 6 "$(git -C "$mnt/.snap/git/rest/clone" rev-list --count main)" "commits in a view"
assert_equal 1 "$(git -C "$mnt/rest/clone" rev-list --count main)" "live commits"
fingerprint "$backing" >"$work/fingerprint.now"
assert_same "$work/fingerprint" "$work/fingerprint.now" "what is live"
diff -r --no-dereference "$work/copy/rest" "$mnt/rest" || fail "what is live, by the mount"

mount_stop
"${program[@]}" --check "$backing/.mmapfs" >"$work/out" || fail "--check: $(cat "$work/out")"
mount_start "$options"
assert_equal 6 "$(git -C "$mnt/.snap/git/rest/clone" rev-list --count main)" "commits in a view, mounted again"
rmdir "$mnt/.snap"/*
mount_stop
