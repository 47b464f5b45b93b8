package transform

import (
	"context"
	"math"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/format"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// Payload is what a source yields: an Event Hubs message, or a line of a blob.
type Payload struct {
	Body   []byte
	Lane   string // where it comes from: an Event Hubs partition, a blob
	Offset int64  // where in Lane
	Reason string // not empty: Body is known to be unreadable (a line that was cut, say), and why
}

// Emit takes one event: a whole msgpack [EventTime, map], as Fluent Bit reads it. event is valid until Emit returns.
// table is never empty, has only ASCII letters, digits, '-' and '_', and at most 64 of them.
type Emit func(table string, event []byte)

// Config is what the user chose. The zero value is usable: Separator is then ".", Format "flat".
type Config struct {
	Format        string // one of Formats
	Separator     string // between the names of nested objects
	KeepNulls     bool   // keep nulls, empty strings, lists and objects
	ResolveRefs   bool   // write what a Json.NET {"$ref":"3"} refers to in its place
	EventID       bool
	ArraysAsJSON  bool           // write lists as JSON text
	Tables        []string       // only these tables; names in any case, with * for any text
	TablesExclude []string       // not these
	Devices       *device.Memory // what is known of devices, to be added to records; nil adds nothing
	DevicePrefix  string         // of the names of what is added; "DeviceInfo." if empty

	SplunkFillDevice bool // format splunk: the device stands in DeviceName and DeviceId where the row has none
	SplunkMend       bool // format splunk: repeat two values where the add-on looks for them
}

// Formats are the names of the formats.
func Formats() []string { return format.Names }

// Transformer turns payloads into events. It is not safe for concurrent use: each pump has its own.
type Transformer struct {
	cfg   Config
	stats Stats
	now   func() time.Time

	scanner record.Scanner
	row     record.Record
	id      *record.ID
	format  format.Format
	writer  *event.Writer
	hold    *hold                       // nil if no devices are added
	tables  map[string]*table           // by category as received
	own     format.Own                  // of the record being written
	peek    func(*record.Record) []byte // the platform of a record's device; nil if no devices are kept
	event   []byte

	// of the payload at hand
	began   int64 // when the Append at hand began, in Unix seconds
	payload *Payload
	emit    Emit
	walk    walk
}

// New returns a Transformer. It panics on a Format that is none of Formats.
func New(cfg Config) *Transformer {
	if cfg.Separator == "" {
		cfg.Separator = "."
	}
	if cfg.Format == "" {
		cfg.Format = "flat"
	}
	if cfg.DevicePrefix == "" {
		cfg.DevicePrefix = "DeviceInfo."
	}
	t := &Transformer{cfg: cfg, now: time.Now, tables: make(map[string]*table), id: record.NewID()}
	var known bool
	t.format, known = format.New(cfg.Format, format.Config{
		Separator: cfg.Separator, DevicePrefix: cfg.DevicePrefix,
		SplunkFillDevice: cfg.SplunkFillDevice, SplunkMend: cfg.SplunkMend,
	})
	if !known {
		panic("BUG: there is no format " + cfg.Format)
	}
	options := event.Options{KeepNulls: cfg.KeepNulls, ResolveRefs: cfg.ResolveRefs, ArraysAsJSON: cfg.ArraysAsJSON}
	t.writer = event.NewWriter(options, &t.stats.Counts, t.format.Names, &t.scanner)
	if cfg.Devices != nil {
		t.hold = &hold{devices: cfg.Devices.NewJoiner(&t.scanner)}
		t.peek = t.hold.devices.Platform
	}
	return t
}

// Stats returns the counters, which go on counting.
func (t *Transformer) Stats() *Stats { return &t.stats }

// Append emits an event for every record of payloads, in order, and for everything in them that cannot be read. Records that get
// a device come last: then everything that the payloads say of devices is known. It does
// not keep payloads. When ctx ends it stops between two payloads, and what follows has not been emitted.
//
// It does not panic, but lets a panic of emit through: the caller must then not take the payloads as done.
func (t *Transformer) Append(ctx context.Context, payloads []Payload, emit Emit) {
	t.emit = emit
	t.began = t.now().Unix()
	defer t.release()
	if t.hold != nil {
		t.hold.devices.Begin(ctx)
	}
	for i := range payloads {
		if ctx.Err() != nil {
			break
		}
		p := &payloads[i]
		t.stats.Payloads.Add(1)
		t.stats.Bytes.Add(uint64(len(p.Body)))
		t.payload = p
		t.walk = walk{}
		if p.Reason != "" {
			t.unreadable(reasonSource, p.Reason, 0, p.Body)
			continue
		}
		if len(p.Body) > math.MaxInt32 {
			t.unreadable(reasonSyntax, record.ErrTooLong.Error(), 0, p.Body)
			continue
		}
		t.body(p.Body)
	}
	if t.hold != nil {
		t.flush()
	}
}

// release lets go of the payloads, and of what a giant one needed.
func (t *Transformer) release() {
	t.payload, t.emit = nil, nil
	t.row.Release()
	t.writer.Release()
	t.id.Release()
	t.scanner.Release()
	if t.hold != nil {
		t.hold.release()
	}
	if cap(t.event) > record.KeepBytes {
		t.event = nil
	}
}

// An event may be this many times as large as its record, and a little. What would be larger is passed on raw.
const (
	maxGrowth      = 8
	maxGrowthSpare = 1 << 20
)

// write appends the event of a record to dst. It returns when the event happened, and from where that is known.
// An error means that the record must be passed on raw instead.
func (t *Transformer) write(dst []byte, r *record.Record, tb *table, s *device.Sighting) (_ []byte, sec int64, from record.TimeSource, err error) {
	size := int(r.Doc.Nodes[0].End - r.Doc.Nodes[0].Start)
	own := &t.own
	*own = format.Own{Table: tb.name, Exact: tb.exact, Hunting: tb.hunting, Platform: t.peek}
	if t.cfg.EventID {
		own.ID = t.id.Of(r, tb.name)
	}
	if s != nil {
		own.Device = t.hold.devices.Describe(r, tb.role, s)
	}
	t.writer.Begin(dst, maxGrowth*size+maxGrowthSpare)
	t.format.Record(t.writer, r, own)
	sec, nsec, from := r.Time()
	if from != record.TimeEvent {
		t.stats.TimeFallbacks.Add(1)
	}
	if from == record.TimeNone {
		t.stats.TimeNow.Add(1)
		now := t.now()
		sec, nsec = now.Unix(), uint32(now.Nanosecond())
	}
	dst, err = t.writer.End(sec, nsec)
	return dst, sec, from, err
}
