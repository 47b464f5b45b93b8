package transform

import (
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// A hold keeps the rows that get a device until all payloads of the call have been read. So a
// device and its alert may arrive in any order, and all missing devices are asked for at once. Rows
// that have to wait longer than that go to late.
type hold struct {
	devices   *device.Joiner
	rows      []*held // of this call
	free      []*held
	bytes     int // that the rows take
	sightings []*device.Sighting
}

// held is a record that waits for its device.
type held struct {
	record.Record
	table    *table
	payload  *Payload
	body     []byte
	at, end  int // of the record in body
	sighting device.Sighting
}

// keep learns from the record in t.row, which is body[at:end], and reports whether it is now held.
func (t *Transformer) keep(tb *table, body []byte, at, end int) bool {
	wanted := tb.device && !tb.excluded
	if !t.row.Lifted || !tb.device && tb.role == device.RoleNone {
		return false
	}
	h := t.hold
	if !wanted {
		h.devices.Observe(&t.row, tb.role, nil)
		return false
	}
	row := h.take()
	h.devices.Observe(&t.row, tb.role, &row.sighting)
	row.table, row.payload, row.body, row.at, row.end = tb, t.payload, body, at, end
	row.Record, t.row = t.row, row.Record
	h.rows = append(h.rows, row)
	h.bytes += row.Size()
	return true
}

// flush finds the devices of the held rows and writes them, but for those that have to wait.
func (t *Transformer) flush() {
	h := t.hold
	if len(h.rows) == 0 {
		return
	}
	h.tryResolve()
	payload, walk := t.payload, t.walk
	for i, row := range h.rows {
		t.payload = row.payload
		raw := row.body[row.at:row.end]
		if waits, _ := row.sighting.Waits(); !waits || !t.wait(row, raw) {
			t.finish(&row.Record, row.table, &row.sighting, raw, row.at)
		}
		h.rows[i] = nil
		h.put(row)
	}
	h.rows, h.bytes = h.rows[:0], 0
	t.payload, t.walk = payload, walk
}

// tryResolve finds the devices of all rows, with a panic as no devices.
func (h *hold) tryResolve() {
	var err error
	defer caught(&err)
	h.sightings = h.sightings[:0]
	for _, row := range h.rows {
		h.sightings = append(h.sightings, &row.sighting)
	}
	h.devices.Resolve(h.sightings)
}

// release lets go of a call of Append. Rows are held then only if emit has panicked.
func (h *hold) release() {
	for _, row := range h.rows {
		if row != nil {
			h.put(row)
		}
	}
	clear(h.rows)
	clear(h.sightings)
	h.rows, h.bytes = h.rows[:0], 0
	h.devices.End()
	if cap(h.rows) > 4096 {
		h.rows, h.sightings = nil, nil
	}
}

func (h *hold) take() *held {
	if n := len(h.free); n > 0 {
		row := h.free[n-1]
		h.free = h.free[:n-1]
		return row
	}
	return &held{}
}

// put gives a row back, with its buffers unless they are of a giant.
func (h *hold) put(row *held) {
	row.Release()
	row.table, row.payload, row.body, row.sighting = nil, nil, nil, device.Sighting{}
	if len(h.free) < 256 && row.Size() < 64<<10 {
		h.free = append(h.free, row)
	}
}
