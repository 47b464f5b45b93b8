package transform

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/format"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/repeats"
)

// Payload is one read of a source, an Event Hubs message or a line of a blob.
type Payload struct {
	Body   []byte
	Lane   string // where it comes from: an Event Hubs partition, a blob
	Offset int64  // where in Lane
	Reason string // not empty: Body is known to be unreadable (a line that was cut, say), and why
}

// Emit takes one event: a whole msgpack [EventTime, map], as Fluent Bit reads it. The event is
// valid until Emit returns. table has 1 to 64 ASCII letters, digits, '-' and '_'.
type Emit func(table string, event []byte)

// Config is the choices of the user. The zero value is usable: Separator is then ".", Format
// "flat".
type Config struct {
	Format        string // one of Formats
	Separator     string // between the names of nested objects
	KeepNulls     bool   // keep nulls, empty strings, lists and objects
	ResolveRefs   bool   // replace a Json.NET {"$ref":"3"} by its object
	EventID       bool
	ArraysAsJSON  bool           // write lists as JSON text
	Tables        []string       // only these tables; names in any case, with * for any text
	TablesExclude []string       // not these
	EmitClass     bool           // format ocsf: emit events under the names of their classes, not of their tables
	Devices       *device.Memory // the devices to be added to records; nil adds nothing
	DevicePrefix  string         // of the names of the added fields; "DeviceInfo." if empty

	// Keep is called for each row that waits for its device when Append returns, with its lane. No
	// mark that covers the row may move until Late has given it out. Late then gives back the
	// result of Keep. nil if no row waits. It is called with a lock held.
	Keep func(lane string) (settle func())

	// Repeats: the records of hunting tables that were seen. Those that are delivered again are
	// counted. It needs EventID. Nil counts none.
	Repeats     *repeats.Memory
	DropRepeats bool // do not emit them

	// Memory: bytes for the work in progress, a share of memory_limit; 32 MB if 0. Half of it is
	// for the nodes of one record; a record with more is passed on raw. A quarter is for rows until
	// the end of their Append, and a quarter for those that wait for their device after it. The
	// events of one Append may outgrow their records by as much, see room.
	Memory int64

	SplunkFillDevice bool // format splunk: the device goes into DeviceName and DeviceId where the row has none
	SplunkMend       bool // format splunk: repeat two values where the add-on looks for them
}

// Formats are the names of the formats.
func Formats() []string { return format.Names }

// Transformer turns payloads into events. It is not safe for concurrent use: each pump has its own.
type Transformer struct {
	cfg   Config
	stats *Stats
	now   func() time.Time

	scanner record.Scanner
	row     record.Record
	id      *record.ID
	format  format.Format
	writer  *event.Writer
	hold    *hold                       // nil if no devices are added
	late    *late                       // nil if no row waits
	repeats *repeats.Watch              // nil if repeats are not dropped
	ids     []repeats.ID                // of the emitted records, if repeats are counted only
	idsOf   []*table                    // their tables
	tables  map[string]*table           // by category as received
	own     format.Own                  // of the record being written
	peek    func(*record.Record) []byte // the platform of a record's device; nil if no devices are kept
	event   []byte

	// of the payload at hand
	began   int64 // when the Append at hand began, in Unix seconds
	spare   int   // bytes that events of this Append may still have beyond twice their record
	payload *Payload
	emit    Emit
	walk    walk
}

// New returns a Transformer. It panics on a Format that is not one of Formats.
func New(cfg Config) *Transformer {
	stats := &Stats{}
	t := newTransformer(cfg, stats)
	if t.hold != nil && cfg.Keep != nil {
		t.late = newLate(t.cfg, stats)
	}
	return t
}

func newTransformer(cfg Config, stats *Stats) *Transformer {
	if cfg.Separator == "" {
		cfg.Separator = "."
	}
	if cfg.Format == "" {
		cfg.Format = "flat"
	}
	cfg.Tables, cfg.TablesExclude = WithoutPrefix(cfg.Tables), WithoutPrefix(cfg.TablesExclude)
	if cfg.DevicePrefix == "" {
		cfg.DevicePrefix = "DeviceInfo."
	}
	if cfg.Memory == 0 {
		cfg.Memory = 32 << 20
	}
	shape := format.Config{
		Separator:        cfg.Separator,
		SplunkFillDevice: cfg.SplunkFillDevice, SplunkMend: cfg.SplunkMend,
	}
	if cfg.Devices != nil {
		shape.DevicePrefix, shape.DeviceColumns = cfg.DevicePrefix, cfg.Devices.Columns()
	}
	t := &Transformer{cfg: cfg, stats: stats, now: time.Now, tables: make(map[string]*table), id: record.NewID()}
	var known bool
	t.format, known = format.New(cfg.Format, shape)
	if !known {
		panic("BUG: there is no format " + cfg.Format)
	}
	options := event.Options{KeepNulls: cfg.KeepNulls, ResolveRefs: cfg.ResolveRefs, ArraysAsJSON: cfg.ArraysAsJSON}
	t.scanner.MaxNodes = int(cfg.Memory / 2 / record.NodeBytes)
	t.writer = event.NewWriter(options, &t.stats.Counts, t.format.Names, &t.scanner)
	if cfg.Devices != nil {
		t.hold = &hold{devices: cfg.Devices.NewJoiner(&t.scanner)}
		t.peek = t.hold.devices.Platform
	}
	if t.tellsRepeats() && cfg.DropRepeats {
		t.repeats = cfg.Repeats.NewWatch()
	}
	return t
}

func (t *Transformer) tellsRepeats() bool { return t.cfg.Repeats != nil && t.cfg.EventID }

// NewIDs returns the ids of the records that the last Append emitted; with DropRepeats, for the
// first time. They are valid until the next Append.
func (t *Transformer) NewIDs() []repeats.ID {
	if t.repeats == nil {
		return t.ids
	}
	return t.repeats.IDs()
}

// NewLateIDs is NewIDs for the last Late. It belongs to that goroutine.
func (t *Transformer) NewLateIDs() []repeats.ID { return t.late.writer.NewIDs() }

// LateLane is the lane of the row that Late emits. It belongs to that goroutine, and to an emit.
func (t *Transformer) LateLane() string { return t.late.writer.payload.Lane }

// QueuedLate is Queued for the last Late. It belongs to that goroutine.
func (t *Transformer) QueuedLate() { t.late.writer.Queued() }

// Queued tells the Transformer that the events of the last Append are on their way. They are handed
// on before later events, or not at all and then read again. From now on their records are known.
// Before, a second copy of one of them is no repeat, unless it came in the same Append.
//
// Repeats that are not dropped are counted here. Nothing waits for the answer, and many look-ups at
// once cost less than one after each record.
func (t *Transformer) Queued() {
	switch {
	case !t.tellsRepeats():
	case t.repeats != nil:
		t.cfg.Repeats.Add(t.repeats.IDs())
	default:
		t.cfg.Repeats.AddNew(t.ids, t.countRepeat)
	}
}

func (t *Transformer) countRepeat(n int) { t.idsOf[n].counts.repeats.Add(1) }

// noteID notes the id of a record that was emitted.
func (t *Transformer) noteID(tb *table) {
	switch {
	case t.repeats != nil:
		t.repeats.Note(t.id.Bytes())
	case len(t.ids) < mostCounted:
		t.ids, t.idsOf = append(t.ids, *t.id.Bytes()), append(t.idsOf, tb)
	}
}

const (
	// mostCounted bounds the ids of one batch, to a megabyte. If a batch has more records, the
	// repeats among the rest are not counted.
	mostCounted = 32 << 10

	// keptCounted is how many ids a batch may leave room for.
	keptCounted = 4 << 10
)

// Stats returns the counters. They keep counting.
func (t *Transformer) Stats() *Stats { return t.stats }

// Append emits an event for every record of payloads, in order, and for all text that cannot be
// read. Records that get a device come last, when the devices of all payloads have been read. Those
// whose device is to come are left to Late. Append waits for nothing, and does not keep payloads.
// When ctx ends it stops between two payloads, and the later ones have not been emitted.
//
// Append lets a panic of emit through, and no other. The caller must then not take the payloads as
// done.
func (t *Transformer) Append(ctx context.Context, payloads []Payload, emit Emit) {
	t.begin(emit)
	defer t.release()
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

func (t *Transformer) begin(emit Emit) {
	t.emit = emit
	t.began = t.now().Unix()
	t.spare = int(t.cfg.Memory)
	if t.repeats != nil {
		t.repeats.Begin()
	}
	if t.ids, t.idsOf = t.ids[:0], t.idsOf[:0]; cap(t.ids) > keptCounted {
		t.ids, t.idsOf = nil, nil
	}
}

// release lets go of the payloads, and of the memory that a giant one needed.
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

// Bounds of growth. An event may be maxGrowth times as large as its record, plus maxGrowthSpare.
// The events of one Append may outgrow freeGrowth times their records by at most Config.Memory in
// all. So a small payload cannot become a giant batch: references written out made 164 MB of 1.4
// MB.
const (
	maxGrowth      = 8
	maxGrowthSpare = 1 << 20
	freeGrowth     = 2
	freeSpare      = 1 << 10
)

// room returns how large the event of a record of size bytes may be.
func (t *Transformer) room(size int) int {
	return min(maxGrowth*size+maxGrowthSpare, freeGrowth*size+freeSpare+t.spare)
}

// errRepeat: the record is a repeat that is to be dropped.
var errRepeat = errors.New("the record was seen before")

// write appends the event of a record to dst. It returns the time of the event and where that comes
// from. After an error the record must be passed on raw instead, except after errRepeat.
//
// An event that would be too large is written again, with the objects and lists of the record as
// JSON text. If it is still too large, it goes without the columns of its device. So the record's
// own columns can be searched.
func (t *Transformer) write(dst []byte, r *record.Record, tb *table, s *device.Sighting) (_ []byte, sec int64, from record.TimeSource, err error) {
	size := int(r.Doc.Nodes[0].End - r.Doc.Nodes[0].Start)
	own := &t.own
	*own = format.Own{Table: tb.name, Exact: tb.exact, Hunting: tb.hunting, Platform: t.peek}
	if t.cfg.EventID {
		own.ID = t.id.Of(r, tb.name)
	}
	watched := t.repeats != nil && r.Lifted
	if watched {
		t.repeats.Expect(t.id.Bytes())
	}
	if s != nil {
		own.Device = t.hold.devices.Describe(r, tb.role, s)
		tb.counts.devices[slices.Index(device.Statuses[:], own.Device.Status)].Add(1)
	}
	sec, nsec, from := r.Time()
	if from == record.TimeNone {
		now := t.now()
		sec, nsec = now.Unix(), uint32(now.Nanosecond())
	}
	own.Sec, own.Nsec = sec, nsec
	w := t.writer
	before, room := len(dst), t.room(size)
	for _, compact := range [...]bool{false, true, true} {
		w.Compact = compact
		w.Begin(dst, room)
		t.format.Record(w, r, own)
		if dst, err = w.End(sec, nsec); err == nil {
			break
		}
		if compact && own.Device != nil {
			own.Device.Columns, own.Device.Alert = own.Device.Columns[:0], own.Device.Alert[:0]
		}
	}
	w.Compact = false
	// Only now: a look-up waits for memory, and a bucket that is expected has arrived by now.
	if err == nil && watched && t.repeats.Seen(t.id.Bytes()) {
		return dst[:before], 0, 0, errRepeat
	}
	if from != record.TimeEvent {
		t.stats.TimeFallbacks.Add(1)
	}
	if from == record.TimeNone {
		t.stats.TimeNow.Add(1)
	}
	if err == nil {
		t.spare = max(t.spare-max(len(dst)-before-freeGrowth*size-freeSpare, 0), 0)
	}
	return dst, sec, from, err
}
