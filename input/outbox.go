package input

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// ErrClosed is the error of Put on a closed outbox.
var ErrClosed = errors.New("outbox is closed")

// Outbox is the one place where our goroutines and the host's thread meet: batches wait here, in
// order, until the host has taken them. It is bounded in bytes; Put is where everything upstream
// waits.
//
// The default is "not done": a batch that nobody takes out is read again after a restart, never
// lost.
type Outbox struct {
	limit int64

	mu     sync.Mutex // covers the fields below; never held while the host is called
	room   *sync.Cond // signalled when bytes falls, and at Close
	queue  []*Batch
	bytes  int64
	safe   map[string]Marks // by source
	ids    []ID             // of batches that are safe, the newest last; at most mostSafeIDs
	closed bool
}

// mostSafeIDs bounds the ids that wait for SafeIDs, to a megabyte.
const mostSafeIDs = 64 << 10

// NewOutbox returns an outbox that holds at most limit bytes, or one batch if that alone is larger.
func NewOutbox(limit int64) *Outbox {
	o := &Outbox{limit: limit, safe: make(map[string]Marks)}
	o.room = sync.NewCond(&o.mu)
	return o
}

// Put queues a copy of b, which stays the caller's. It blocks while there is no room, until ctx
// ends (its error is returned) or the outbox is closed (ErrClosed). When it returns, b is in the
// queue before every batch that is put later.
func (o *Outbox) Put(ctx context.Context, b *Batch) error {
	stop := context.AfterFunc(ctx, func() {
		// Taking the lock makes sure that a Put which has just looked at ctx is already waiting.
		o.mu.Lock()
		defer o.mu.Unlock()
		o.room.Broadcast()
	})
	defer stop()

	o.mu.Lock()
	defer o.mu.Unlock()
	for o.bytes > 0 && o.bytes+b.Bytes() > o.limit && !o.closed && ctx.Err() == nil {
		o.room.Wait()
	}
	if o.closed {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	o.bytes += b.Bytes()
	o.mu.Unlock()
	c := b.clone() // the host's thread need not wait for that
	o.mu.Lock()
	if o.closed {
		return ErrClosed
	}
	o.queue = append(o.queue, c)
	return nil
}

// Done says that the host has taken every chunk of b, a batch that Waiting returned: its marks are
// safe. Those of chunks that Next has passed over are given to the source as well, which knows that
// their lease is lost.
func (o *Outbox) Done(b *Batch) {
	if b.Next() != nil {
		panic("BUG: a batch is done whose chunks the host has not all taken")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		if len(o.queue) == 0 || o.queue[0] != b {
			panic("BUG: a batch is done that is not the oldest")
		}
		o.queue[0] = nil
		o.queue = o.queue[1:]
		o.bytes -= b.Bytes()
	}
	ms := o.safe[b.Source]
	if ms == nil {
		ms = make(Marks)
		o.safe[b.Source] = ms
	}
	for _, m := range b.Marks {
		ms.Set(m)
	}
	if b.leased() {
		o.ids = append(o.ids, b.IDs...)
	}
	if over := len(o.ids) - mostSafeIDs; over > 0 {
		o.ids = slices.Delete(o.ids, 0, over)
	}
	o.room.Broadcast()
}

// Safe returns the marks of source that became safe since the last call.
func (o *Outbox) Safe(source string) []Mark {
	o.mu.Lock()
	defer o.mu.Unlock()
	ms := o.safe[source]
	if len(ms) == 0 {
		return nil
	}
	marks := make([]Mark, 0, len(ms))
	for _, m := range ms {
		marks = append(marks, m)
	}
	clear(ms)
	return marks
}

// SafeIDs returns ids of events that became safe since the last call, in order: the newest, when
// nobody has asked for long. Every event whose mark Safe has returned before this call is among
// them.
func (o *Outbox) SafeIDs() []ID {
	o.mu.Lock()
	defer o.mu.Unlock()
	ids := o.ids
	o.ids = nil
	return ids
}

// Bytes and Batches say how much waits.
func (o *Outbox) Bytes() int64 { o.mu.Lock(); defer o.mu.Unlock(); return o.bytes }

// Batches is the number of batches that wait.
func (o *Outbox) Batches() int { o.mu.Lock(); defer o.mu.Unlock(); return len(o.queue) }

// Close makes Put and Waiting return at once from now on. Queued batches are dropped: their marks
// never become safe. Marks that are safe already can still be fetched.
func (o *Outbox) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.queue, o.bytes = nil, 0
	o.room.Broadcast()
}
