package input_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

func TestLeaseEndsByEitherClock(t *testing.T) {
	for _, c := range []struct {
		boot, wall time.Duration
		held       bool
	}{
		{0, 0, true},
		{time.Minute - time.Second, 0, true},
		{time.Minute, time.Minute, false},
		{time.Minute, 0, false},           // the machine was suspended, and its wall clock is late
		{0, time.Minute, false},           // a virtual machine stood still, and its wall clock was set right
		{time.Second, -time.Hour, true},   // the wall clock was an hour ahead and was set right
		{time.Minute, -time.Hour, false},  // likewise, and it is over
		{2 * time.Hour, time.Hour, false}, // long over
	} {
		l := input.NewLease(input.Now().Before(c.boot, c.wall), time.Minute)
		if got := l.Held(); got != c.held {
			t.Errorf("after %v by the machine's clock and %v by that of the wall: held %v, want %v", c.boot, c.wall, got, c.held)
		}
	}
}

func TestLostLeaseIsNotFoundAgain(t *testing.T) {
	l := input.NewLease(input.Now(), time.Minute)
	if !l.Extend(input.Now(), 50*time.Millisecond) || !l.Held() {
		t.Fatal("a lease that holds is extended")
	}
	for l.Held() {
		time.Sleep(time.Millisecond)
	}
	if l.Extend(input.Now(), time.Hour) || l.Held() || l.Left() != 0 {
		t.Error("a lease that was over is extended")
	}
	l = input.NewLease(input.Now(), time.Minute)
	l.Lose()
	if l.Held() || l.Extend(input.Now(), time.Hour) {
		t.Error("a lease that was given up holds")
	}
	var none *input.Lease
	if !none.Held() {
		t.Error("without a lease events are anybody's to hand over")
	}
}

// Events that were read under a lost lease are not handed over, in any batch. Their ids are not
// known to the host.
func TestOutboxPassesOverWhatIsLost(t *testing.T) {
	o := input.NewOutbox(1 << 20)
	lost, held := input.NewLease(input.Now(), time.Hour), input.NewLease(input.Now(), time.Hour)
	b := &input.Batch{Source: "s", IDs: []input.ID{{1}}}
	for _, e := range []struct {
		text  string
		lease *input.Lease
	}{{"a1,", lost}, {"b1,", held}, {"a2,", lost}, {"c1,", nil}} {
		b.From(e.lease)
		b.Append("", []byte(e.text))
	}
	if err := o.Put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	queued := o.Take()
	if c := queued.Next(); string(c.Data) != "a1," {
		t.Fatalf("first %q", c.Data)
	}
	queued.Taken() // and now the lease is lost
	lost.Lose()
	if got := drain(o); got != "b1,c1," {
		t.Errorf("handed over after the lease was lost: %q", got)
	}
	if ids := o.SafeIDs(); len(ids) > 0 {
		t.Errorf("ids of events that were not handed over: %v", ids)
	}
	b.Reset()
	b.Append("", []byte("d1,"))
	if err := o.Put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got := drain(o); got != "d1," {
		t.Errorf("what nobody shares: %q", got)
	}
}

// shares is a source of two lanes, each with a lease, and of one that is only learnt from.
type shares struct {
	tenure
	leases [2]*input.Lease
	n      int64
}

func (s *shares) Fetch(ctx context.Context) (messages []input.Message, err error) {
	if s.n >= 100 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for range 10 {
		lane := int(s.n) % 2
		s.n++
		messages = append(messages, input.Message{Lease: s.leases[lane], Offset: s.n,
			Mark: input.Mark{Lane: fmt.Sprint("lane/", lane), Term: 1, Next: s.n}, Body: fmt.Appendf(nil, "%d:%d,", lane, s.n)})
	}
	return messages, nil
}

// Each batch of a pump is of one lease, also the parts of a large one. So is each row that waited
// for its device.
func TestPumpKeepsLeasesApart(t *testing.T) {
	src := &shares{tenure: tenure{hub: &hub{}}, leases: [2]*input.Lease{input.NewLease(input.Now(), time.Hour), input.NewLease(input.Now(), time.Hour)}}
	o := input.NewOutbox(1 << 30)
	type row struct {
		lane, text string
		settle     func()
	}
	waiting := make(chan row, 200)
	var settled atomic.Int64
	large := strings.Repeat("x", 5<<20) // more than a part
	p := &input.Pump{
		Open: func(context.Context) (input.Source, error) { return src, nil },
		Transform: func(_ context.Context, b *input.Batch, messages []input.Message) {
			for _, m := range messages {
				text := string(m.Body)
				if m.Mark.Next == 3 {
					b.Append("", []byte(large)) // queued as a part of its own
				}
				b.Append("", []byte(text))
				if m.Mark.Next%5 == 0 {
					waiting <- row{m.Mark.Lane, "late " + text, b.Keep(m.Mark.Lane)}
				}
			}
		},
		Late: func(ctx context.Context, b *input.Batch) error {
			for n := 0; n < 7; n++ { // of both lanes in one batch
				select {
				case r := <-waiting:
					b.FromLane(r.lane)
					b.Append("", []byte(r.text))
					b.WhenPut(func() { r.settle(); settled.Add(1) })
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(50 * time.Millisecond):
					return nil
				}
			}
			return nil
		},
		Outbox: o, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx) }()
	for settled.Load() < 20 || o.Batches() < 100 {
		time.Sleep(time.Millisecond)
	}
	src.leases[0].Lose()
	got := drain(o)
	cancel()
	<-done
	var want []string
	for n := 2; n <= 100; n += 2 {
		want = append(want, fmt.Sprintf("1:%d", n))
		if n%5 == 0 {
			want = append(want, fmt.Sprintf("late 1:%d", n))
		}
	}
	events := strings.Split(strings.Trim(strings.ReplaceAll(got, "x", ""), ","), ",")
	slices.Sort(events)
	slices.Sort(want)
	if !slices.Equal(events, want) {
		t.Errorf("handed over %q\nwant %q", events, want)
	}
}
