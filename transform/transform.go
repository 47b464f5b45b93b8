package transform

import (
	"context"
	"crypto/sha256"
	"hash"
	"math"
	"strings"
	"time"
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

// Tables that are no table of Defender's.
const (
	Unreadable = "unreadable" // what could not be read, passed on raw
	Unknown    = "unknown"    // a record without a category that is not known from another product
)

// Config is what the user chose. The zero value is usable: Separator is then ".".
type Config struct {
	Separator     string // between the names of nested objects
	KeepNulls     bool   // keep nulls, empty strings, lists and objects
	ResolveRefs   bool   // write what a Json.NET {"$ref":"3"} refers to in its place
	EventID       bool
	ArraysAsJSON  bool     // write lists as JSON text
	Tables        []string // only these tables; names in any case, with * for any text
	TablesExclude []string // not these
	Devices       *Devices // what is known of devices, to be added to records; nil adds nothing
}

// Transformer turns payloads into events. It is not safe for concurrent use: each pump has its own.
type Transformer struct {
	cfg   Config
	stats Stats
	now   func() time.Time

	// write appends the event of a record to dst: the output format. It returns an error when the record must
	// be passed on raw instead.
	write func(dst []byte, r *row) ([]byte, error)

	flat    flat
	devices *enricher // nil if none are added
	scanner scanner
	row     row
	tables  map[string]*table // by category as received
	event   []byte
	id      identity

	// of the payload at hand
	began   int64 // when the Append at hand began, in Unix seconds
	payload *Payload
	emit    Emit
	walk    walk
}

// New returns a Transformer.
func New(cfg Config) *Transformer {
	if cfg.Separator == "" {
		cfg.Separator = "."
	}
	t := &Transformer{cfg: cfg, now: time.Now, tables: make(map[string]*table)}
	t.id.hash = sha256.New()
	t.flat = flat{cfg: &t.cfg, stats: &t.stats, id: &t.id, scanner: &t.scanner, names: newNames(cfg.Separator)}
	t.flat.now = func() time.Time { return t.now() }
	t.write = t.flat.record
	if cfg.Devices != nil {
		t.devices = newEnricher(cfg.Devices, t)
		t.flat.devices = t.devices
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
	if t.devices != nil {
		t.devices.begin(ctx)
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
			t.unreadable(reasonSyntax, errTooLong.Error(), 0, p.Body)
			continue
		}
		t.body(p.Body)
	}
	if t.devices != nil {
		t.devices.flush()
	}
}

// keepBytes is what a buffer may keep between two calls. What a giant payload needed beyond it goes back.
const keepBytes = 1 << 20

// release lets go of the payloads, and of what a giant one needed.
func (t *Transformer) release() {
	t.payload, t.emit = nil, nil
	t.row.release()
	t.flat.release()
	t.id.release()
	if t.devices != nil {
		t.devices.release()
	}
	if cap(t.event) > keepBytes {
		t.event = nil
	}
	if cap(t.scanner.open) > keepBytes/8 {
		t.scanner.open = nil
	}
}

// A table is what is known of a category.
type table struct {
	name     string // as it is emitted and written
	exact    bool   // the category says nothing that name does not
	hunting  bool   // "AdvancedHunting-": its properties are the columns
	excluded bool
	counts   *tableStats
	device   bool // its records get what is known of their device
}

const (
	huntingPrefix  = "AdvancedHunting-"
	maxTableName   = 64
	maxKnownTables = 1024
)

// table looks up a category, or the name of a table of another product.
func (t *Transformer) table(category string) *table {
	if tb, ok := t.tables[category]; ok {
		return tb
	}
	text, _ := appendText(nil, []byte(category))
	full := string(text)
	tb := &table{}
	tb.name, tb.hunting = strings.CutPrefix(full, huntingPrefix)
	safe := safeName(tb.name)
	tb.exact = safe == tb.name
	tb.name = safe
	tb.excluded = len(t.cfg.Tables) > 0 && !matchAny(t.cfg.Tables, safe) || matchAny(t.cfg.TablesExclude, safe)
	tb.device = t.devices != nil && tb.hunting && t.devices.wants(safe)
	tb.counts = t.stats.table(safe)
	if len(t.tables) < maxKnownTables {
		t.tables[strings.Clone(category)] = tb
	}
	return tb
}

// safeName makes a name that can be a tag, a file name, part of an index name.
func safeName(s string) string {
	b := make([]byte, 0, maxTableName)
	for i := 0; i < len(s) && len(b) < maxTableName; i++ {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-') {
			c = '_'
		}
		b = append(b, c)
	}
	if len(b) == 0 {
		return Unknown
	}
	return string(b)
}

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if match(strings.ToLower(p), strings.ToLower(name)) {
			return true
		}
	}
	return false
}

// match compares with * for any text. It goes back to the last * only, so it cannot be made to take long.
func match(pattern, s string) bool {
	star, from := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// identity computes event ids.
type identity struct {
	hash    hash.Hash
	sum     [sha256.Size]byte
	hex     [32]byte
	name    []byte
	compact []byte
}

func (id *identity) release() {
	if cap(id.compact) > keepBytes {
		id.compact = nil
	}
}

var zero = []byte{0}

// begin starts the id of a record of this tenant and table.
func (id *identity) begin(tenant, table []byte) {
	id.hash.Reset()
	id.hash.Write(tenant)
	id.hash.Write(zero)
	id.hash.Write(table)
	id.hash.Write(zero)
}

// value adds a JSON value without its insignificant white space.
func (id *identity) value(tr *tree, n uint32) {
	raw := tr.raw(n)
	if tr.nodes[n].flags&flagSpaced != 0 && tr.nodes[n].kind >= kindArray {
		id.compact = appendCompact(id.compact[:0], raw)
		raw = id.compact
	}
	id.hash.Write(raw)
}

// end returns the id: the first 16 bytes of the SHA-256, in hex. It is valid until the next id.
func (id *identity) end() []byte {
	const digits = "0123456789abcdef"
	sum := id.hash.Sum(id.sum[:0])
	for i, c := range sum[:16] {
		id.hex[2*i], id.hex[2*i+1] = digits[c>>4], digits[c&15]
	}
	return id.hex[:]
}
