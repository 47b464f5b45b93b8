package blob

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

const (
	maxPiece = 4 << 20  // what one read asks for
	minPiece = 64 << 10 // below this a blob is read at the speed of its latency

	messageBytes = 88 // of an input.Message
)

// piece is a run of bytes of a blob and the messages cut from it.
type piece struct {
	data     []byte
	messages []input.Message
	room     int // how many messages it may hold
	of       *budget
	weight   int64 // bytes of the budget of that it takes
}

// budget is a number of bytes. Waiting for some is fair: a large request is not overtaken for ever.
type budget struct {
	limit int64
	*semaphore.Weighted
}

func newBudget(limit int64) *budget {
	return &budget{limit: limit, Weighted: semaphore.NewWeighted(limit)}
}

// buffers hands out pieces within two budgets. Nobody waits for a piece of the first while holding
// one. So pieces in use always come back: they are on their way to Fetch. A gzip blob does hold a
// piece while it waits for the next. Only one is read at a time, and it has the second budget for
// itself.
type buffers struct {
	piece int // bytes of an ordinary piece
	plain *budget
	gzip  *budget

	mu   sync.Mutex
	free []*piece // ordinary pieces for another use
}

func newBuffers(limit int64, workers int) *buffers {
	limit = max(limit, 1<<20)
	// Two a worker, so that one can be read while another waits to be fetched, and three for gzip;
	// each with its messages.
	size := min(limit/int64(2*workers+3)*2/3, maxPiece)
	size = max(size, minPiece)
	b := &buffers{piece: int(size)}
	b.gzip = newBudget(2 * weigh(b.piece))
	b.plain = newBudget(max(limit-b.gzip.limit-min(gzipChunk, size), weigh(b.piece)))
	return b
}

// room is how many messages are cut from n bytes at most. Lines of Defender have 2 kB; the bound is
// for lines of few bytes, whose messages would take more memory than they do.
func room(n int) int { return max(n/256, min(n/16, 1024), 16) }

func weigh(n int) int64 { return int64(n) + int64(room(n)*messageBytes) }

// get waits for a piece of n bytes. held: the bytes of that budget that the caller has, and cannot
// give back before.
func (b *buffers) get(ctx context.Context, of *budget, n int, held int64) (*piece, error) {
	weight := weigh(n)
	if n > minPiece && n <= b.piece {
		weight = weigh(b.piece)
	}
	weight = min(weight, of.limit-held) // a single line may be larger than the budget
	if err := of.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	if n <= minPiece || n > b.piece {
		b.trim(n)
		return &piece{data: make([]byte, n), room: room(n), of: of, weight: weight}, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := len(b.free) - 1; last >= 0 {
		p := b.free[last]
		b.free[last] = nil
		b.free = b.free[:last]
		p.data, p.messages, p.of, p.weight = p.data[:n], p.messages[:0], of, weight
		return p, nil
	}
	p := &piece{data: make([]byte, b.piece), room: room(b.piece), of: of, weight: weight}
	p.data = p.data[:n]
	return p, nil
}

// trim lets go of spare pieces when a new piece of n bytes is made: spare pieces are memory, too.
func (b *buffers) trim(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n > 0 && len(b.free) > 0 {
		b.free[len(b.free)-1] = nil
		b.free = b.free[:len(b.free)-1]
		n -= b.piece
	}
}

// put takes a piece back; its bytes and messages are no longer valid.
func (b *buffers) put(p *piece) {
	of, weight := p.of, p.weight
	if cap(p.data) == b.piece && b.piece > minPiece {
		b.mu.Lock()
		clear(p.messages)
		b.free = append(b.free, p)
		b.mu.Unlock()
	}
	of.Release(weight)
}
