// Package input holds what every source of Defender events shares, and the way between a source and the host.
//
//	          our goroutines                                        |        the host's thread
//	                                                                |
//	Source.Fetch --> Pump --> Transform --> Batch --> Outbox.Put    |    Outbox.Take --> append, chunk by chunk
//	                                                     |          |                        |
//	                                              waits for room    |                 each returned 0
//	                                                                |                        |
//	Source.Commit <------ Pump, on a timer <-------- Outbox.Safe <--+------------------ Outbox.Done
//
// There are few types. A [Source] reads lanes (partitions of an Event Hub, blobs) and yields [Message] values, each with
// the [Mark] that may be committed once its records are safe. A [Pump] has them transformed into a [Batch] and puts
// that into the [Outbox], which is the only place where anything waits, and the only thing that the host's thread
// touches. When the host has taken all chunks of a batch, its marks are safe, and the pump commits them.
//
// # What is not obvious
//
//   - A mark is data, not a callback. Nobody has to remember to acknowledge: what is not done is read again.
//   - Order is what makes one mark stand for all before it: batches are handed over in the order in which they were put,
//     and a batch that was refused half-way goes on with the chunk that was refused.
//   - A batch holds chunks of several tags and is safe as a whole. A crash inside a batch repeats at most that batch and
//     what was not committed yet: duplicates are bounded, and carry the same event_id.
//   - A lane that comes back (after a rebalance, or a blob that was replaced) has a new term. Marks of an older term
//     may still be in the outbox; the source drops them.
//   - This package knows no JSON, and package transform knows no source: they meet as bytes, in package plugin.
//   - Memory: memory_limit is divided among devices, the sources' fetches, the outbox, what is being transformed and the
//     rest of the plugin; each share is a hard bound in bytes, except that a single message may be larger than its share.
package input
