// Package eventhub reads Event Hubs over their Kafka endpoint, as a member of a consumer group.
//
//	            begin                      Fetch                         Commit
//	group --------------> lane (term) -------------> messages    marks -----------> group, every few seconds
//	        where to start   ^                                     |
//	                         |                                     +--- Keep -----> copy in the state file, 5 times a second
//	                         +------- revoke: wait for commits, then forget
//
// Lane: a partition that the group has given to us. Term: the time from begin to give. [Source] is
// an [input.Source] around franz-go, which finds the brokers, keeps the membership, fetches and
// decodes. This package adds the parts that a reader must get right.
//
//   - Where to start (begin): see the table below. A position from eventhub.start is committed at
//     once. If "latest" were worked out again after a crash, everything in between would be
//     skipped. An offset that the hub no longer has is never replaced in silence: messages that
//     retention has deleted are counted and logged.
//   - Whether it is the same hub (proof). A recreated hub starts again at offset 0 and may have
//     grown past our position. So the state file keeps the checksum of one message that we read
//     (the proof). Every term, and every hub that disappeared for a moment, starts by reading that
//     message again.
//   - Whose the partition is (revoke, Commit). A commit holds a lock that giving away takes, so a
//     late mark of a partition that is gone cannot set back its new owner. Before a partition goes,
//     revoke waits a little until the messages read of it are safe. Then the new owner repeats
//     nothing.
//   - Who waits for whom (member.go). The state file keeps our id in the group. A start takes the
//     member out that a crash has left there: otherwise the broker waits 30 s for it.
//   - Memory (wire, budget): it is bounded, for any claim and any compression of a batch.
//   - What is wrong (input.Troubles, watch). The client tries for ever, because credentials, rules
//     and hubs come back. Every trouble is logged once, with the thing to check, within seconds of
//     the start.
//
// # Files
//
//	source.go      Source: opens the client, fetches, hands messages out; what ends it
//	settings.go    the keys of eventhub.*, and the Config that they make
//	connstring.go  connection strings
//	check.go       check_only: broker, sign-in, hubs, group, each tried once
//	dial.go        connections: TCP, TLS, a proxy
//	auth.go        sign-in: a connection string's key, or a token of Entra ID
//	member.go      the member of the group: its id, and members that a crash has left
//	lanes.go       partitions come and go: where each begins, and how it is given away
//	lane.go        one partition: its offsets, its states, its term
//	offsets.go     commits to the group, the copy in the state file, bounds of a hub
//	proof.go       the checksum of one message: is it the same hub
//	wire.go        answers of a broker, seen before the client decodes them
//	budget.go      how many bytes of a fetch are held, and what is refused
//	watch.go       looks after hubs: those that vanish, and how far behind we are
//	trouble.go     errors in words: what they mean and what to check; the client's own log
//	stats.go       figures
//
// # Where a start reads on
//
// The state file has a copy of each position, its proof, and our last commits to the group
// (lane.noted). These are the offset that the group took last, and one that was on its way.
// TestWhoDecides has a test for each row.
//
//	group                                  state file                  reads on at
//	where the file put it, or was about    ahead of it, and proven     the copy
//	where the file put it, or was about    ahead of it, no proof       the group
//	anywhere else: set back by hand,       any                         the group
//	  or another instance reads
//	no offset                              a copy                      the copy, with a warning
//	no offset                              no copy                     eventhub.start
//	any                                    another message is there    the beginning: another hub
//
// If somebody sets the group to the very offset of our last commit, we cannot notice that.
//
// # Event Hubs is almost Kafka
//
// The client sends no newer requests than those of MaxVersions, and none that Kafka 1.0 did not
// have. Commits carry no leader epoch, and connections do not idle past 180 s. Groups span the
// namespace. A batch is at most 1 MB except on dedicated clusters, and gzip is the only
// compression. A throttled fetch may come back empty, and throttled commits are slow, so commits
// come from a timer.
//
// Headers of AMQP producers are typed bytes that only AMQP can read. They are ignored; bodies are
// intact. An empty body is a message like any other, so that its offset is accounted for.
package eventhub
