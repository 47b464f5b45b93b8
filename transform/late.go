package transform

import (
	"context"
	"sync"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

// late keeps the rows that wait for their device when the Append that read them has returned. It is
// the one part of a Transformer that two goroutines use: Append puts rows in, Late takes them out.
type late struct {
	devices *device.Memory
	writer  *Transformer // of the goroutine of Late
	limit   int          // bytes

	mu    sync.Mutex
	rows  []*waiting // in the order in which they came
	bytes int
	added chan struct{} // has one when rows came
}

// waiting is a row with its own copy of its text.
type waiting struct {
	raw      []byte
	table    *table
	lane     string
	offset   int64
	at       int // in its payload
	sighting device.Sighting
	settle   func()
}

const (
	waitingBytes = 512       // of a waiting row beside its text
	lateBytes    = 512 << 10 // about how much text Late writes in one call
	lateEvery    = 10 * time.Millisecond
)

func newLate(cfg Config, stats *Stats) *late {
	limit := int(cfg.Memory / 4)
	cfg.Memory /= 4
	return &late{devices: cfg.Devices, writer: newTransformer(cfg, stats), limit: limit, added: make(chan struct{}, 1)}
}

// wait keeps a held row for Late. It reports false if there is no room for it: the row is then
// written at once.
func (t *Transformer) wait(row *held, raw []byte) bool {
	l := t.late
	size := len(raw) + waitingBytes
	if l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
	}
	// A row with many nodes would need as many again in Late.
	if l == nil || l.bytes+size > l.limit || row.Size() > l.limit/4 {
		if l != nil {
			t.stats.NotWaited.Add(1)
		}
		t.hold.devices.Drop(&row.sighting)
		return false
	}
	w := &waiting{raw: append([]byte(nil), raw...), table: row.table, lane: row.payload.Lane, offset: row.payload.Offset, at: row.at, sighting: row.sighting}
	w.sighting.Keep()
	w.settle = t.cfg.Keep(w.lane)
	l.rows = append(l.rows, w)
	l.bytes += size
	select {
	case l.added <- struct{}{}:
	default:
	}
	return true
}

// Waiting is how many rows wait for their device.
func (t *Transformer) Waiting() int {
	if t.late == nil {
		return 0
	}
	t.late.mu.Lock()
	defer t.late.mu.Unlock()
	return len(t.late.rows)
}

// Late blocks until some of the rows that wait need no longer, emits those and returns. settled
// gets what Config.Keep has returned for each. When ctx ends, the rows that still wait are dropped,
// and its error is returned; no Append may be under way then, nor come. Otherwise Late may be
// called while Append works, from one goroutine. It lets a panic of emit through, as Append does.
func (t *Transformer) Late(ctx context.Context, emit Emit, settled func(func())) error {
	l := t.late
	for {
		news := l.devices.News()
		rows, next := l.take(time.Now())
		if len(rows) > 0 {
			l.write(rows, emit)
			for _, row := range rows {
				settled(row.settle)
			}
			return nil
		}
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			l.drop()
			return ctx.Err()
		case <-l.added:
		case <-timer:
		case <-news:
			// Much news comes at once: it is looked at together.
			select {
			case <-ctx.Done():
			case <-time.After(lateEvery):
			}
		}
	}
}

// take takes the rows that wait no longer, and returns when to look again.
func (l *late) take(now time.Time) (ready []*waiting, next time.Time) {
	l.mu.Lock()
	rows := l.rows[:len(l.rows):len(l.rows)] // Append adds behind them
	l.mu.Unlock()
	if len(rows) == 0 {
		return nil, next
	}
	sightings := make([]*device.Sighting, len(rows))
	for i, row := range rows {
		sightings[i] = &row.sighting
	}
	l.tryResolve(sightings)
	kept := make([]*waiting, 0, len(rows))
	size := 0
	for _, row := range rows {
		waits, until := row.sighting.Waits()
		switch {
		case waits:
			if next.IsZero() || until.Before(next) {
				next = until
			}
		case size < lateBytes:
			size += len(row.raw)
			ready = append(ready, row)
			continue
		}
		kept = append(kept, row)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows = append(kept, l.rows[len(rows):]...)
	for _, row := range ready {
		l.bytes -= len(row.raw) + waitingBytes
	}
	return ready, next
}

// tryResolve is Resolve with a panic as the end of every wait.
func (l *late) tryResolve(sightings []*device.Sighting) {
	j := l.writer.hold.devices
	var err error
	defer func() {
		if err != nil {
			for _, s := range sightings {
				j.Drop(s)
			}
		}
	}()
	defer caught(&err)
	j.Resolve(sightings)
}

// write emits rows.
func (l *late) write(rows []*waiting, emit Emit) {
	t := l.writer
	t.begin(emit)
	defer t.release()
	for _, row := range rows {
		t.payload = &Payload{Lane: row.lane, Offset: row.offset}
		if _, err := t.tryRead(&t.row, row.raw, 0); err != nil {
			t.unreadable(reasonOf(err), err.Error(), row.at, row.raw)
			continue
		}
		t.finish(&t.row, row.table, &row.sighting, row.raw, row.at)
	}
}

// drop forgets all rows: their marks have not moved, so they are read again.
func (l *late) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, row := range l.rows {
		l.writer.hold.devices.Drop(&row.sighting)
	}
	l.rows, l.bytes = nil, 0
}
