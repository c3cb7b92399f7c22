#!/bin/bash
# PostgreSQL on the mount: pgbench's sums; the server killed under load, and then the daemon with it;
# recovery, what was acknowledged, and what PostgreSQL's own checks say.
# POSTGRES_SECONDS says how long pgbench runs for each user (root 30, another 4).
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" "$((${POSTGRES_SECONDS:-30} + 540))" root user
need pgrep

bin=
for folder in /usr/lib/postgresql/*/bin; do
	if [ -x "$folder/pg_amcheck" ]; then bin=$folder; fi
done
[ -n "$bin" ] || skip "PostgreSQL is not installed"
export PATH=$bin:$PATH PGUSER=tester PGHOST=$work/socket PGDATABASE=postgres PGCONNECT_TIMEOUT=60

# The server refuses to run as root
server=()
options=
if [ "$who" = root ]; then
	server=(setpriv --reuid=65534 --regid=65534 --clear-groups --)
	options=allow_other,
fi
# The folder with the database, as it is on the mount, and what a shutdown has to leave
database=$mnt/database
mkdir "$work/socket" "$backing/database"
if [ "$who" = root ]; then
	chown 65534:65534 "$work/socket" "$backing/database"
	chmod 755 "$work" "$backing"
fi
if [ "$who" != root ]; then : "${POSTGRES_SECONDS:=4}"; fi
seconds=$(((${POSTGRES_SECONDS:-30} + 1) / 2))
clients=3 # that count
postmaster=

# ---------------------------------------------------------------- the server

server_is_gone() {
	local pid state
	for pid; do
		if state=$(cat "/proc/$pid/stat" 2>/dev/null); then
			[[ ${state##*) } = [XZ]* ]] || return 1
		fi
	done
}

server_answers() {
	server_is_gone "$postmaster" || pg_isready -q
}

server_start() {
	"${server[@]}" postgres -D "$database" </dev/null >>"$work/server" 2>&1 &
	postmaster=$!
	wait_until 90 server_answers || fail "the server does not answer: $(tail -n 20 "$work/server")"
	! server_is_gone "$postmaster" || fail "the server has ended: $(tail -n 20 "$work/server")"
}

server_stop() {
	local status=0
	kill -INT "$postmaster"
	wait "$postmaster" || status=$?
	[ "$status" -eq 0 ] || fail "the server's exit status is $status: $(tail -n 20 "$work/server")"
	postmaster=
}

# All its processes, between two instructions. (The shell has a word to say about the killed.)
server_kill() {
	local pids
	kill -STOP "$postmaster" || return 0
	mapfile -t pids < <(pgrep -P "$postmaster")
	kill -KILL "$postmaster" "${pids[@]}" || true
	wait "$postmaster" || true
	wait_until 30 server_is_gone "${pids[@]}" || return 1
	postmaster=
} 2>/dev/null

# What a server that was killed leaves, a shared memory segment, is removed by the next one only
server_clean() {
	local segment
	server_kill || true
	segment=$(awk 'NR == 7 { print $2 }' "$database/postmaster.pid") &&
		[ -n "$segment" ] && ipcrm -m "$segment"
} 2>/dev/null
trap '{ server_clean || true; } 2>/dev/null' EXIT

sql() {
	psql -X -q -A -t -v ON_ERROR_STOP=1 -c "$1" || fail "psql: $1"
}

# ---------------------------------------------------------------- load, and what it has to show

# Numbers go in one by one; those that are in for sure are in $work/acknowledged.N
counter_start() {
	local last
	last=$(tail -n 1 "$work/acknowledged.$1")
	seq "$((last + 2))" 100000000 |
		sed "s/.*/insert into numbers values ($1, &) returning number;/" |
		psql -X -q -A -t -v ON_ERROR_STOP=1 >>"$work/acknowledged.$1" 2>>"$work/counter.$1" &
	counters+=($!)
}

# Each client has had some more acknowledged than at the start, which is in $before
has_counted() {
	local i
	for ((i = 0; i < clients; i++)); do
		[ "$(wc -l <"$work/acknowledged.$i")" -gt "$((before[i] + 30))" ] || return 1
	done
}

# A second pgbench, in the middle of which "$@" is run
load_interrupt() {
	local i pid counters=() before=()
	for ((i = 0; i < clients; i++)); do
		: >>"$work/acknowledged.$i"
		before[i]=$(wc -l <"$work/acknowledged.$i")
		counter_start "$i"
	done
	pgbench -n -c 4 -j 2 -T 600 >"$work/pgbench" 2>&1 &
	counters+=($!)
	wait_until 60 has_counted || fail "nothing is inserted: $(
		tail -n 5 "$work/pgbench" "$work"/counter.* "$work/server")"
	sleep $((seconds / 5 + 1))
	for pid in "${counters[@]}"; do
		! server_is_gone "$pid" || fail "a client has ended before the kill: $(tail -n 5 "$work/pgbench" \
			"$work"/counter.*)"
	done
	"$@"
	for pid in "${counters[@]}"; do
		wait "$pid" 2>/dev/null || true
	done
}

sums_check() {
	local sums i last
	sums=$(sql 'select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
		(select sum(bbalance) from pgbench_branches), (select coalesce(sum(delta), 0) from pgbench_history)')
	IFS='|' read -r -a sums <<<"$sums"
	for i in 1 2 3; do
		assert_equal "${sums[0]}" "${sums[i]}" "$1: sums of accounts, tellers, branches, history (${sums[*]})"
	done
	assert_equal '200000|20|2' "$(sql 'select (select count(*) from pgbench_accounts),
		(select count(*) from pgbench_tellers), (select count(*) from pgbench_branches)')" "$1: rows"
	for ((i = 0; i < clients; i++)); do
		[ -e "$work/acknowledged.$i" ] || continue
		last=$(sql "select max(number) from numbers where client = $i")
		sql "select number from numbers where client = $i order by number" >"$work/numbers"
		# The last may have been in, and its client not yet told
		comm -13 <(sort "$work/numbers") <(sort "$work/acknowledged.$i") >"$work/lost"
		assert_equal "" "$(head -n 5 "$work/lost")" "$1: lost of what client $i was told is in, up to $last"
	done
}

# Everything there is, by all who can look
database_check() {
	sums_check "$1"
	sql 'vacuum (analyze)'
	# By several processes, which share memory that is a mapped file on the mount as well
	psql -X -q -A -t -v ON_ERROR_STOP=1 >"$work/scan" <<-'END' || fail "$1: a full scan"
		set parallel_setup_cost = 0;
		set parallel_tuple_cost = 0;
		set min_parallel_table_scan_size = 0;
		set enable_indexscan = off;
		set enable_indexonlyscan = off;
		explain (analyze, costs off, timing off) select count(*), sum(hashtext(filler)) from pgbench_accounts;
	END
	grep -q 'Workers Launched: [1-9]' "$work/scan" || fail "$1: no parallel scan: $(cat "$work/scan")"
	pg_amcheck --install-missing --heapallindexed --parent-check >"$work/amcheck" 2>&1 ||
		fail "$1: pg_amcheck: $(tail -n 20 "$work/amcheck")"
	pg_dumpall >"$work/dump" || fail "$1: pg_dumpall"
}

# The checksums of all pages, with the server down
checksums_check() {
	"${server[@]}" pg_checksums --check -D "$1" >"$work/checksums" 2>&1 ||
		fail "pg_checksums: $(tail -n 20 "$work/checksums")"
	grep -q 'Bad checksums: *0$' "$work/checksums" || fail "pg_checksums: $(cat "$work/checksums")"
}

# ---------------------------------------------------------------- the test

mount_start "${options}flush=manual"
"${server[@]}" initdb -k --no-locale -E UTF8 -A trust -U tester --wal-segsize=2 -D "$database" \
	>"$work/initdb" 2>&1 || fail "initdb: $(tail -n 20 "$work/initdb")"
# Little memory, so that pages come and go; logs that are used again and again; checkpoints. Each
# process has the name of the folder in its title, for the watch.
cat >>"$database/postgresql.conf" <<END
listen_addresses = ''
unix_socket_directories = '$work/socket'
cluster_name = '$work/'
shared_buffers = 2MB
dynamic_shared_memory_type = mmap
max_wal_size = 16MB
min_wal_size = 4MB
checkpoint_timeout = 30s
autovacuum_naptime = 2s
restart_after_crash = off
END
server_start
pgbench -i -q -s 2 >"$work/pgbench" 2>&1 || fail "pgbench -i: $(tail -n 20 "$work/pgbench")"
sql 'create table numbers (client integer, number integer, primary key (client, number))'

for road in flush=manual flush=10ms; do
	echo "-o $road"
	pgbench -n -c 4 -j 2 -T "$seconds" >"$work/pgbench" 2>&1 || fail "pgbench: $(tail -n 20 "$work/pgbench")"
	sums_check "$road, after pgbench"
	done=$(sed -n 's/^number of transactions actually processed: //p' "$work/pgbench")
	rows=$(sql 'select count(*) from pgbench_history')
	if [ "$road" = flush=manual ]; then
		assert_equal "${done%/*}" "$rows" "transactions in the history"
		load_interrupt server_kill
	else
		# The daemon as well: the server then sees its files fail, and the mount is made anew
		load_interrupt kill -KILL "$daemon"
		server_kill
		{ daemon_wait; } 2>/dev/null
		fusermount3 -u "$mnt" || fail "fusermount3 -u of a dead mount"
		mount_start "$options$road"
	fi
	server_start
	grep -q 'database system was not properly shut down' "$work/server" || fail "no recovery"
	database_check "$road, after the recovery"
	sql 'select * from pgbench_history order by tid, bid, aid, delta, mtime' >"$work/history.1"
	server_stop
	checksums_check "$database"
	assert_equal "shut down" "$(pg_controldata -D "$database" | sed -n 's/^Database cluster state: *//p')" "state"
	mount_stop
	: >"$work/server"

	# As it is in the backing folder, and by a daemon that has seen none of it
	checksums_check "$backing/database"
	mount_start "${options}flush=10ms"
	checksums_check "$database"
	server_start
	sums_check "$road, mounted again"
	sql 'select * from pgbench_history order by tid, bid, aid, delta, mtime' >"$work/history.2"
	assert_same "$work/history.1" "$work/history.2" "the history, mounted again"
done
server_stop
mount_stop
