#!/bin/bash
# LMDB on the mount, which reads through a shared mapping and writes by pwrite or by stores: several
# processes read and write at once and know what they have to see; its tools; writers that die.
# shellcheck source=tests/mount.sh
. "${0%/*}/mount.sh" 300 root user
need mdb_copy mdb_dump mdb_load mdb_stat
python3 -c 'import lmdb' 2>/dev/null || skip "python3-lmdb is not installed"

# use.py COMMAND FOLDER MODE LAST
cat >"$work/use.py" <<'END'
import lmdb, os, random, sys, traceback
command, folder, mode, last = sys.argv[1:4] + [int(sys.argv[4])]
NUMBER = b"transaction"

class Model:
	"""What the database holds after each transaction: everybody can work it out"""
	def __init__(self):
		self.number, self.items = 0, {}
	def next(self):
		"""The changes of the next transaction: key, and value or None"""
		chance, changes = random.Random(self.number + 1), {}
		for _ in range(chance.randrange(1, 60)):
			key = b"key %05d" % chance.randrange(900)
			changes[key] = chance.randbytes(chance.choice((0, 10, 100, 1000, 3000, 20000)))
		for key in chance.sample(sorted(self.items), len(self.items) // 20):
			changes[key] = None
		return changes
	def step(self):
		for key, value in self.next().items():
			if value is None:
				del self.items[key]
			else:
				self.items[key] = value
		self.number += 1
	def go(self, number):
		assert number >= self.number, "back from transaction %d to %d" % (self.number, number)
		while self.number < number:
			self.step()

def environment():
	return lmdb.open(folder, map_size=48 << 20, max_dbs=2, writemap=mode == "stores", mode=0o644)

def number_of(txn, numbers):
	return int(txn.get(NUMBER, b"0", db=numbers))

def change(txn, numbers, model):
	for key, value in model.next().items():
		if value is None:
			assert txn.delete(key), "%r is missing" % key
		else:
			txn.put(key, value)
	txn.put(NUMBER, b"%d" % (model.number + 1), db=numbers)

def write(me):
	"""Transactions up to the last, as many as the other writer leaves"""
	env, model = environment(), Model()
	items, numbers = env.open_db(b"items"), env.open_db(b"numbers")
	while True:
		with env.begin(db=items, write=True) as txn:
			model.go(number_of(txn, numbers))
			if model.number >= last:
				return True
			change(txn, numbers, model)

def read(me):
	env, model = environment(), Model()
	items, numbers = env.open_db(b"items", create=False), env.open_db(b"numbers", create=False)
	seen = 0
	while model.number < last:
		if seen % 20 == 19 and me % 2:
			# A process that opens it while others write
			env.close()
			env = environment()
			items, numbers = env.open_db(b"items", create=False), env.open_db(b"numbers", create=False)
		with env.begin(db=items) as txn:
			model.go(number_of(txn, numbers))
			for _ in range(2):
				assert dict(txn.cursor()) == model.items, "transaction %d differs" % model.number
		seen += 1
	return True

def children(*works):
	pids = []
	for me, work in enumerate(works):
		pid = os.fork()
		if pid == 0:
			status = 1
			try:
				status = 0 if work(me) else 1
			except BaseException:
				traceback.print_exc()
			finally:
				os._exit(status)
		pids.append(pid)
	return all([os.waitpid(pid, 0)[1] == 0 for pid in pids])

def run():
	env = environment()
	env.open_db(b"items"), env.open_db(b"numbers")
	env.close() # LMDB is not to be open when a process forks
	return children(write, write, read, read, read)

def die():
	"""In the middle of a transaction, with the lock of all writers and a reader's slot"""
	def work(me):
		env, model = environment(), Model()
		items, numbers = env.open_db(b"items"), env.open_db(b"numbers")
		reader = env.begin(db=items)
		txn = env.begin(db=items, write=True)
		model.go(number_of(txn, numbers))
		change(txn, numbers, model)
		for key, value in txn.cursor():
			txn.put(key, value[::-1] + b"never to be seen")
		os.kill(os.getpid(), 9)
	return not children(work)

def expected():
	"""As mdb_dump shows the items"""
	model = Model()
	model.go(last)
	for key, value in sorted(model.items.items()):
		print(" %s\n %s" % (key.hex(), value.hex()))
	return True

sys.exit(0 if globals()[command]() else 1)
END

# What folder $1 holds
items_dump() {
	mdb_dump -s items "$1" | sed '1,/^HEADER=END/d; /^DATA=END/d'
}

# The database $1 holds what it has to after transaction $2
items_check() {
	items_dump "$1" >"$work/dump" || fail "mdb_dump of $1"
	python3 "$work/use.py" expected - - "$2" >"$work/expected"
	assert_same "$work/expected" "$work/dump" "$1, after transaction $2"
}

# By both roads of a write: where pages are made clean again and again, that is pwrite; where they
# are not, a store into the mapping
for road in flush=10ms flush=manual,write=store; do
	for mode in pwrite stores; do
		# One of each is enough for a second user
		if [ "$who" = user ] && [[ $road$mode != flush=10mspwrite && $road$mode != *storestores ]]; then continue; fi
		echo "-o $road, LMDB writes by $mode"
		mount_start "$road"
		mkdir "$mnt/database"
		python3 "$work/use.py" run "$mnt/database" $mode 100 || fail "several processes at once"
		items_check "$mnt/database" 100
		python3 "$work/use.py" die "$mnt/database" $mode 0
		items_check "$mnt/database" 100
		python3 "$work/use.py" run "$mnt/database" $mode 120 || fail "after a writer has died"
		items_check "$mnt/database" 120

		# The tools: a copy of the file, one made page by page, and a new one from a dump
		# (mdb_load does not know all that mdb_dump says.)
		mkdir "$mnt"/{copy,compact,loaded} "$plain/copy"
		mdb_copy "$mnt/database" "$mnt/copy"
		mdb_copy "$mnt/database" "$plain/copy"
		mdb_copy -c "$mnt/database" "$mnt/compact"
		mdb_dump -s items "$mnt/database" | grep -v ^db_pagesize | mdb_load -s items "$mnt/loaded"
		for database in "$mnt/copy" "$plain/copy" "$mnt/compact" "$mnt/loaded"; do
			items_check "$database" 120
		done
		mdb_stat -s items "$mnt/database" >"$work/stat"
		mdb_stat -s items "$plain/copy" >"$work/stat.copy"
		assert_same "$work/stat" "$work/stat.copy" "mdb_stat of the database and its copy"
		assert_equal "$(sed -n 'n; p' "$work/expected" | wc -l)" "$(sed -n 's/^ *Entries: //p' "$work/stat")" \
			"entries by mdb_stat"
		mount_stop

		# What is left in the backing folder, and by a daemon that has seen none of it
		items_check "$backing/database" 120
		mount_start "$road"
		items_check "$mnt/database" 120
		for database in database copy compact loaded; do
			cmp "$mnt/$database/data.mdb" "$backing/$database/data.mdb" || fail "the backing file of $database"
		done
		python3 "$work/use.py" run "$mnt/database" $mode 140 || fail "mounted again"
		mount_stop
		items_check "$backing/database" 140
		rm -r "${backing:?}"/* "${plain:?}"/*
	done
done
