// Package input holds the parts that all sources of Defender events share, and the way between a
// source and the host.
//
//	          our goroutines                                        |        the host's thread
//	                                                                |
//	Source.Fetch --> Pump --> Transform --> Batch --> Outbox.Put    |    Outbox.Waiting --> append, tag by tag
//	                                                     |          |                        |
//	                                              waits for room    |                 each returned 0
//	                                                                |                        |
//	Source.Commit <------ Pump, on a timer <-------- Outbox.Safe <--+------------------ Outbox.Done
//
// A [Source] reads lanes (partitions of an Event Hub, blobs) and yields [Message] values. Each has
// the [Mark] that may be committed once its records are safe. A [Pump] turns them into a [Batch]
// and puts it into the [Outbox]. The Outbox is the one place that blocks, and the one place where
// our goroutines hand events to the host's thread. When the host has taken all chunks of a batch,
// its marks are safe, and the pump's committer commits them.
//
// # Files
//
//	source.go    Source, Message, Mark: what a source gives, and how far it may commit
//	pump.go      one source's way: fetch, transform, put
//	commit.go    its committer: when marks are safe, and in which order they are stored
//	batch.go     chunks by tag, and the marks that are safe with them
//	withheld.go  marks that wait for the rows of their lanes that wait
//	outbox.go    where batches wait for the host's thread
//	gather.go    Gather: what waits for one tag, for one append
//	lease.go     Lease: what is read may be handed over, until another worker may have it
//	state.go     the state file: positions and devices, on a disk that may be damaged
//	oldstate.go  reads the state file of earlier versions
//	settings.go  declared keys: text to values, all mistakes at once; Secret
//	trouble.go   Troubles: logs a trouble once, and once more when it is over
//	catch.go     Catch: a panic becomes an error
//	file.go      a file that a setting names: a secret, a certificate
//	retry.go     Backoff and Sleep
//	check.go     Finding: a line of check_only
//
// # What is not obvious
//
//   - A mark is data, not a callback. Nobody has to remember to acknowledge: a message without a
//     committed mark is read again.
//   - Because of order, one mark covers all before it. Batches are handed over in the order in
//     which they were put. A batch that was refused half-way continues with the refused chunk.
//   - Where workers share lanes, events are read under a lease (lease.go). The lease is checked
//     right before each append, by clocks that run on while the process is stopped. Events that are
//     passed over then are not safe, so another worker reads them. An append that is under way when
//     a process is stopped ends when it is woken: that repeats a chunk.
//   - A record may have to wait for its device. Marks of its lane are then kept back until it is in
//     the outbox (withheld.go). Other lanes are not held up.
//   - A batch holds chunks of several tags and is safe as a whole. Where batches wait, chunks of
//     one tag are gathered from several, as many as the host takes in 20 ms (gather.go). A crash
//     inside them repeats at most those and the uncommitted ones before them. So duplicates are
//     bounded, and carry the same event_id.
//   - A lane that comes back (after a rebalance, or a blob that was replaced) has a new term.
//     Marks of an older term may still be in the outbox; the source drops them.
//   - A repeat that is dropped leaves its mark. The mark may move: a record counts as a repeat once
//     its first copy is in the outbox, and all sources share that queue. So the mark becomes safe
//     after the first copy, and a host that is killed before then reads both again. The ids of
//     records go the same way. They reach the state file after the host has taken their events, and
//     before the marks of their messages. If the host is killed between the two, it reads events
//     again that it has, and they are dropped. Events that the host took since the last write,
//     usually 200 ms, are repeated, and so are both copies of a repeat.
//   - This package knows no JSON, and package transform knows no source: they meet as bytes, in
//     package plugin.
//   - Memory: memory_limit is divided among devices, the sources' fetches, the outbox, the
//     transformers and the rest of the plugin. Each share is a hard bound in bytes, except that a
//     single message may be larger.
//
// # The state file
//
// The disk is hostile: it loses pages, somebody truncates the file or copies an old one over it
// while it is open. So the store must not map its file, because a page that vanishes is a signal
// (SIGBUS) that ends the host. And it must not trust a page. We compared, on one machine, with
// 100,000 devices of 400 bytes and commits of 64 keys:
//
//	                     the library    commit,     read all    peak     random changes, half of them while open:
//	                     grows by       median      at a start  memory   ended / no longer stores, unsaid / wrong values
//	bbolt, mapped         0.3 MB        1.4 ms       79 ms      146 MB   890 tries: 14 ended (as it was before)
//	bbolt with guards     0.3 MB        1.4 ms       79 ms      146 MB   150 tries: 0 / 58 / 12
//	SQLite, not mapped    4.3 MB        2.7 ms      325 ms       37 MB   5,000 tries: 0 / 0 / 0, at most 22 MB in all
//	SQLite, with a WAL    4.3 MB        0.9 ms      534 ms       38 MB
//	goleveldb             0.7 MB        0.4 ms      300 ms       53 MB   last release in 2019
//	pebble               13.8 MB        0.7 ms      185 ms       44 MB   may end the process on errors of its files (read, not tried)
//
// Guards cannot be enough for bbolt. By its code, a page that points at itself ends in a stack
// without bound, which Go cannot catch. Its values have no checksums. SQLite (modernc.org/sqlite,
// in Go) checks the pages that it reads. It has no checksums either, so each entry has one of ours.
// Its rollback journal costs a few milliseconds a commit, and survives `cp old.db defender.db`. A
// WAL of the newer file would be replayed into the older one.
package input
