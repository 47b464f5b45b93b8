package input

import "context"

// A Mark says how far a lane may be committed: everything before Next has been read.
// Marks are plain data, so that they can be merged, printed and compared.
type Mark struct {
	Lane string // an Event Hubs partition ("hub/3") or a blob ("container/name")
	Term uint64 // the tenure of the lane; a mark of an older tenure is stale and must be dropped
	Next int64  // the offset to resume from: a Kafka offset, or a byte offset in a blob
}

// Marks holds the newest mark of each lane.
type Marks map[string]Mark

// Set keeps m unless the lane already has a mark of a newer term, or one of the same term that is
// further on.
func (ms Marks) Set(m Mark) {
	old, ok := ms[m.Lane]
	if ok && (old.Term > m.Term || old.Term == m.Term && old.Next > m.Next) {
		return
	}
	ms[m.Lane] = m
}

// Message is one payload, whole as its source frames it: an Event Hubs message, or a line of a
// blob.
type Message struct {
	Mark   Mark   // to be committed once every record of Body is safe
	Offset int64  // where Body begins in its lane
	Body   []byte // belongs to the source: valid until the next Fetch
	Reason string // not empty: Body is known to be unreadable (a line that was cut, say), and why

	Lease *Lease // the lease under which it may be handed over; nil where nobody shares the lane
}

// Source reads lanes of messages. Fetch and Commit may run at the same time, each from one
// goroutine.
type Source interface {
	// Name is the prefix of the source's settings: "eventhub", "blob".
	Name() string

	// Fetch blocks until there are messages, or ctx ends. The messages of a lane come in order.
	// Those of one call hold no more bytes than the source's share of memory_limit; only a single
	// message may be larger. It retries, with a log line, whenever that can help. It returns an
	// error only if ctx ended or if it can never succeed; the text has the remedy.
	Fetch(ctx context.Context) ([]Message, error)

	// Keep makes marks durable on this machine, several times a second, so that a crash repeats
	// little. It writes nothing when nothing has moved, and does not wait for a server. The same
	// marks, or newer ones, are given to Commit later. It is called from the goroutine of Commit.
	Keep(ctx context.Context, marks []Mark) error

	// Commit makes marks durable; every mark it is given is safe in the host. It drops marks of
	// lanes that were given away. After an error the same marks, or newer ones, are given again.
	Commit(ctx context.Context, marks []Mark) error

	// Close ends everything the source started and waits for it. No other method is called after
	// it.
	Close() error
}
