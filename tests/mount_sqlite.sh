#!/bin/bash
# sqlite3 on the mount: several processes at once, in each of its rollback modes and in WAL mode, also
# with readers that map the database (pragma mmap_size).
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 300 root user
need sqlite3

writers=4
transactions=15

# The statements of writer $1 in journal mode $2, of a database that is mapped if it is called mapped
statements() {
	local i
	echo ".bail on"
	echo ".timeout 30000"
	# The rollback modes belong to a connection, WAL to the file
	echo "pragma journal_mode = ${2%-mapped};"
	if [[ $2 = *-mapped ]]; then
		echo "pragma mmap_size = 67108864;"
		# In many small steps, so that pages of the mapping are read while others write them
		echo "pragma cache_size = 5;"
	fi
	for ((i = 0; i < transactions; i++)); do
		cat <<-END
			begin immediate;
			insert into rows (writer, number, data)
				values ($1, $i, hex(zeroblob($((i * 100)))));
			insert into rows (writer, number, data) values ($1, -$i, 'to be deleted');
			update sums set total = total + $i where writer = $1;
			delete from rows where writer = $1 and number = -$i and data like 'to%';
			commit;
			select count(*) from rows where writer = $1;
		END
	done
}

# What the folder $1 shows of database $2
database_show() {
	sqlite3 -batch -bail "$1/$2" <<-END
		.output /dev/null
		pragma mmap_size = $([[ $2 = *-mapped.db ]] && echo 67108864 || echo 0);
		.output stdout
		pragma integrity_check;
		select count(*), sum(number), sum(length(data)) from rows;
		select writer, count(*), sum(number) from rows group by writer order by writer;
		select * from sums order by writer;
		.sha3sum --schema
	END
}

# Fills the database $2 in folder $1, in journal mode $3
database_fill() {
	local i pids=()
	local mode writes=$3
	if [[ $3 = *-mapped ]]; then writes+=" 67108864"; fi
	mode=$(sqlite3 -batch -bail "$1/$2" <<-END
		pragma journal_mode = ${3%-mapped};
		create table rows (writer integer, number integer, data text);
		create index rows_by_number on rows (number, writer);
		create table sums (writer integer primary key, total integer);
		insert into sums values (0, 0), (1, 0), (2, 0), (3, 0);
	END
	)
	assert_equal "${3%-mapped}" "$mode" "journal_mode of $2"
	for ((i = 0; i < writers; i++)); do
		sqlite3 -batch "$1/$2" < <(statements "$i" "$3") >"$work/writer$i" 2>&1 &
		pids+=($!)
	done
	for ((i = 0; i < writers; i++)); do
		wait "${pids[i]}" || fail "$2: writer $i: $(tail -n 3 "$work/writer$i")"
		assert_equal "${writes/-mapped/} $(seq -s ' ' "$transactions")" "$(tr '\n' ' ' <"$work/writer$i" |
			sed 's/ $//')" "$2: what writer $i saw of its own rows"
	done
}

modes=(delete truncate persist wal delete-mapped wal-mapped)
expected=$((writers * transactions)) # rows
sum=$((transactions * (transactions - 1) / 2))

# By both roads of a write: where pages are made clean again and again, that is pwrite; where they
# are not, a store into the mapping
for road in flush=10ms flush=manual,write=store; do
	echo "-o $road"
	mount_start "$road"
	for mode in "${modes[@]}"; do
		database_fill "$mnt" "$mode.db" "$mode"
		database_show "$mnt" "$mode.db" >"$work/$mode.mount"
		assert_equal ok "$(head -n 1 "$work/$mode.mount")" "integrity_check of $mode.db on the mount"
		assert_equal "$expected|$((writers * sum))" "$(sed -n 2p "$work/$mode.mount" | cut -d '|' -f 1-2)" \
			"rows and their sum in $mode.db"
		for ((i = 0; i < writers; i++)); do
			assert_equal "$i|$transactions|$sum" "$(sed -n $((3 + i))p "$work/$mode.mount")" \
				"rows of writer $i in $mode.db"
			assert_equal "$i|$sum" "$(sed -n $((3 + writers + i))p "$work/$mode.mount")" \
				"sum of writer $i in $mode.db"
		done
	done

	# A writer that dies in the middle of a transaction: the next one rolls back
	for mode in "${modes[@]}"; do
		python3 - "$mnt/$mode.db" <<'END'
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("pragma cache_size = 2")
database.execute("begin immediate")
database.execute("update rows set data = hex(randomblob(3000))")
os._exit(0)
END
		database_show "$mnt" "$mode.db" >"$work/$mode.again"
		assert_same "$work/$mode.mount" "$work/$mode.again" "after a transaction that was cut off"
	done
	mount_stop

	for mode in "${modes[@]}"; do
		database_show "$backing" "$mode.db" >"$work/$mode.backing"
		assert_same "$work/$mode.mount" "$work/$mode.backing" "the mount and the backing folder"
	done

	# And with a daemon that has not seen the files yet
	mount_start "$road"
	for mode in "${modes[@]}"; do
		database_show "$mnt" "$mode.db" >"$work/$mode.again"
		assert_same "$work/$mode.mount" "$work/$mode.again" "after mounting again"
	done
	mount_stop
	rm "${backing:?}"/*
done
