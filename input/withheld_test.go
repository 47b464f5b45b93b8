package input_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// lanes is a source of several lanes of messages. It outlives the pumps that read it, as a broker
// does, and checks every mark that it is given.
type lanes struct {
	t      *testing.T
	rand   *rand.Rand
	length int64

	mu        sync.Mutex
	committed []int64
	taken     []map[int64]int // by the host, how often
}

type reader struct {
	*lanes
	term uint64
	next []int64
}

func (l *lanes) open(context.Context) (input.Source, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &reader{lanes: l, term: input.NewTerm(), next: append([]int64(nil), l.committed...)}, nil
}

func (r *reader) Name() string { return "lanes" }

func (r *reader) Fetch(ctx context.Context) ([]input.Message, error) {
	if input.Sleep(ctx, time.Duration(rand.N(20))*time.Millisecond) != nil {
		return nil, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var messages []input.Message
	for range r.rand.IntN(20) {
		lane := r.rand.IntN(len(r.next))
		if r.next[lane] == r.length {
			continue
		}
		body := binary.BigEndian.AppendUint64([]byte{byte(lane)}, uint64(r.next[lane]))
		r.next[lane]++
		messages = append(messages, input.Message{Mark: input.Mark{Lane: fmt.Sprint(lane), Term: r.term, Next: r.next[lane]}, Body: body})
	}
	return messages, ctx.Err()
}

// Keep and Commit check that all that a mark covers is with the host, and that marks go forwards.
func (r *reader) Keep(ctx context.Context, marks []input.Mark) error { return r.Commit(ctx, marks) }

func (r *reader) Commit(_ context.Context, marks []input.Mark) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range marks {
		var lane int
		_, _ = fmt.Sscan(m.Lane, &lane)
		for n := range m.Next {
			if r.taken[lane][n] == 0 {
				r.t.Errorf("lane %s is at %d, and the host does not have %d", m.Lane, m.Next, n)
			}
		}
		if m.Next < r.committed[lane] {
			r.t.Errorf("lane %s goes back from %d to %d", m.Lane, r.committed[lane], m.Next)
		}
		r.committed[lane] = m.Next
	}
	return nil
}

func (r *reader) Close() error { return nil }

// host takes n batches, as far as they are there.
func (l *lanes) host(o *input.Outbox, n int) {
	for b := o.Take(); b != nil && n > 0; b, n = o.Take(), n-1 {
		for c := b.Next(); c != nil; c = b.Next() {
			l.mu.Lock()
			for e := c.Data; len(e) > 0; e = e[9:] {
				l.taken[e[0]][int64(binary.BigEndian.Uint64(e[1:]))]++
			}
			l.mu.Unlock()
			b.Taken()
		}
		o.Done(b)
	}
}

// keeper is a Transform that keeps some records for a while, and the Late to it.
type keeper struct {
	rand *rand.Rand
	mu   sync.Mutex
	rows []keptRow
}

type keptRow struct {
	body   []byte
	until  time.Time
	settle func()
}

func (k *keeper) transform(_ context.Context, dst *input.Batch, messages []input.Message) {
	for _, m := range messages {
		k.mu.Lock()
		if k.rand.IntN(3) == 0 {
			k.rows = append(k.rows, keptRow{append([]byte(nil), m.Body...), time.Now().Add(time.Duration(k.rand.IntN(2000)) * time.Millisecond), dst.Keep(m.Mark.Lane)})
		} else {
			k.append(dst, m.Body)
		}
		pause := k.rand.IntN(10) == 0
		k.mu.Unlock()
		if pause {
			time.Sleep(time.Millisecond) // Late works meanwhile
		}
	}
}

// append makes some batches large: they wait for room in the outbox while small ones find some.
func (k *keeper) append(dst *input.Batch, record []byte) {
	dst.Append("", record)
	if k.rand.IntN(10) == 0 {
		for range 300 {
			dst.Append("", record)
		}
	}
}

func (k *keeper) late(ctx context.Context, dst *input.Batch) error {
	for {
		k.mu.Lock()
		found := false
		rest := k.rows[:0:0]
		for _, r := range k.rows {
			if time.Now().Before(r.until) {
				rest = append(rest, r)
				continue
			}
			k.append(dst, r.body)
			dst.WhenPut(r.settle)
			found = true
		}
		k.rows = rest
		k.mu.Unlock()
		if found {
			return nil
		}
		if err := input.Sleep(ctx, time.Millisecond); err != nil {
			k.rows = nil
			return err
		}
	}
}

// A pump may be stopped or killed at any time, and records may come late in any order. All records
// that a position covers are with the host, positions go forwards, and the next pump brings the
// rest.
func TestRecordsThatWaitKeepTheirMarks(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				l := &lanes{t: t, rand: rand.New(rand.NewPCG(seed, 2)), length: 400, committed: make([]int64, 3), taken: []map[int64]int{{}, {}, {}}}
				done := func() bool {
					l.mu.Lock()
					defer l.mu.Unlock()
					return l.committed[0]+l.committed[1]+l.committed[2] == 3*l.length
				}
				lives := 0
				for ; !done() && !t.Failed(); lives++ {
					o := input.NewOutbox(2500)
					k := &keeper{rand: rand.New(rand.NewPCG(seed, uint64(lives)))}
					p := input.Pump{Open: l.open, Transform: k.transform, Late: k.late, Outbox: o, Log: logTo(io.Discard)}
					ctx, cancel := context.WithCancel(t.Context())
					var run sync.WaitGroup
					run.Go(func() { p.Run(ctx) })
					end := time.Now().Add(time.Duration(100+r.IntN(20000)) * time.Millisecond)
					for time.Now().Before(end) && !done() && !t.Failed() {
						l.host(o, r.IntN(4)) // mostly it is slower than the pump
						time.Sleep(time.Duration(1+r.IntN(150)) * time.Millisecond)
					}
					o.Close()
					cancel()
					run.Wait()
				}
				for lane, taken := range l.taken {
					if len(taken) != int(l.length) {
						t.Errorf("lane %d: %d of %d records", lane, len(taken), l.length)
					}
				}
				t.Logf("%d pumps", lives)
			})
		})
	}
}

// A lane without waiting records is not held up, and one whose record has come continues from
// there.
func TestOtherLanesGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lanes{t: t, rand: rand.New(rand.NewPCG(1, 2)), length: 50, committed: make([]int64, 3), taken: []map[int64]int{{}, {}, {}}}
		o := input.NewOutbox(1 << 20)
		release := make(chan struct{})
		var kept func()
		p := input.Pump{Open: l.open, Outbox: o, Log: logTo(io.Discard),
			Transform: func(_ context.Context, dst *input.Batch, messages []input.Message) {
				for _, m := range messages {
					if m.Mark.Lane == "1" && m.Mark.Next == 10 {
						kept = dst.Keep("1")
						continue
					}
					dst.Append("", m.Body)
				}
			},
			Late: func(ctx context.Context, dst *input.Batch) error {
				select {
				case <-release:
				case <-ctx.Done():
					return ctx.Err()
				}
				dst.Append("", binary.BigEndian.AppendUint64([]byte{1}, 9))
				dst.WhenPut(kept)
				release = nil
				return nil
			}}
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { p.Run(ctx) })
		hours := func() {
			for range 100 {
				l.host(o, 1000)
				time.Sleep(100 * time.Millisecond)
			}
			synctest.Wait()
		}
		hours()
		if l.committed[0] != 50 || l.committed[2] != 50 || l.committed[1] > 9 || len(l.taken[1]) != 49 {
			t.Errorf("positions %v, %d records of the lane that waits", l.committed, len(l.taken[1]))
		}
		close(release)
		hours()
		if l.committed[1] != 50 || len(l.taken[1]) != 50 {
			t.Errorf("position %d, %d records", l.committed[1], len(l.taken[1]))
		}
		cancel()
		run.Wait()
	})
}
