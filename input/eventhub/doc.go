// Package eventhub reads Event Hubs over their Kafka endpoint, as a member of a consumer group.
//
//	            begin                      Fetch                         Commit
//	group --------------> lane (term) -------------> messages    marks -----------> group, and copy in the state file
//	        where to start   ^                                             |
//	                         +------- give: wait for commits, then forget  +-- of lanes that are ours, of this term
//
// A lane is a partition that the group has given to us, from begin to give: that is a term. [Source] is an [input.Source]
// around franz-go, which finds the brokers, keeps the membership, fetches and decodes. What this package adds is what a
// reader must not get wrong.
//
//   - Where to start (begin). The group's offset decides; where the group has none, because Event Hubs has lost it, the copy
//     in the state file, with a warning; only then eventhub.start. What eventhub.start decided is committed at once: were
//     "latest" to be worked out anew after a crash, all that came between would be skipped. An offset that the
//     hub does not have any more is never silently replaced: what retention has deleted is counted and said, and a hub that
//     was made anew is read from its beginning.
//   - Whether it is the same hub (proof). Offsets of a hub that was made anew begin again, and may be past ours by the time that we
//     look. So the state file knows one message that was read; each term, and a hub that was missing for a moment, begins with that.
//   - Whose the partition is (give, Commit). A commit holds a lock that giving away takes, so a late mark of a
//     partition that is gone cannot set back its new owner. Before a partition goes it waits a little for what was read of it
//     to be safe, so that the new owner repeats nothing if all goes well.
//   - How much is held (budget), gzip included.
//   - What is wrong (troubles, watch). The client tries for ever, because credentials, rules and hubs come back. Every
//     trouble is said once, with what to check, within seconds of the start.
//
// # Event Hubs is almost Kafka
//
// It runs no newer request than we ask for (MaxVersions), commits carry no leader epoch, connections do not idle past
// 180 s, and nothing is ever asked of it that Kafka 1.0 did not have. Groups span the namespace. A batch
// is at most 1 MB except on dedicated clusters, and gzip is the only compression. A throttled fetch may come back
// empty, and throttled commits are slow, so commits come from a timer.
//
// Headers of AMQP producers are typed bytes that only AMQP can read. They are ignored; bodies are intact. An empty body
// is a message like any other, so that its offset is accounted for.
package eventhub
