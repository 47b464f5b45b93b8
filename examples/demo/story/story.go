// Package story writes Defender XDR streaming records: an ordinary morning on four hundred laptops,
// and in it one attack, from the mail to the alert. After it come two alerts about other laptops:
// one that was isolated for a while and then merged with its old self, and one of two devices. The
// demo, the benchmarks and the tests that count events feed on it.
//
// The values are invented. The shapes are those of the wire. Columns come in the order of their
// table, with explicit nulls and JSON inside strings. Alert evidence has its host only in
// AdditionalFields and behind $ref. Heartbeats of devices are partial, numbers have 18 digits, and
// envelopes are compact or spaced. Each table is a file in tables/, one column a line, in one or
// more variants:
//
//	== phish 5                                    variant, and its weight in the ordinary traffic (none: only in scenes)
//	{
//	"Timestamp":"«t»",                            a value that varies, see values.go
//	"UrlChain":⟪["https://«case.domain»/spor"]⟫,  JSON encoded in a string
//	"ThreatTypes":null
//	}
//
// A story is a function of its options: the same seed gives the same bytes. Templates are cut into
// literals and variable parts once, so a record costs little more than copying it.
//
// # Files
//
//	cast.go      the people, devices and files of the story
//	scenes.go    the events, in order
//	template.go  a table's record, cut into literals and values
//	values.go    values that vary
package story

import (
	"maps"
	"math/rand/v2"
	"strconv"
	"time"
)

// Tenant is the tenant of every record.
const Tenant = "5f0c1d2e-7a34-4b56-9c78-0d1e2f3a4b5c"

// NumberColumn is in the properties of every record, in every table: a number that no other record
// of the story has. A test counts arrivals by it.
const NumberColumn = "StoryNumber"

// Options of a story. The zero value tells the one with the attack in its first 260 records, its
// aftermath in the next 160, and no further alert.
type Options struct {
	Seed       uint64
	Start      time.Time // when the first event happens; zero for a morning in March 2026
	First      int64     // NumberColumn of the first record; stories that run side by side need ranges of their own
	Devices    int       // 0 for 400
	NoAttack   bool      // begin with ordinary traffic
	AlertEvery int       // records between further alerts (one AlertInfo, four AlertEvidence); 0 for none
	Repeats    int       // of a hundred records in envelopes, so many are followed by one that came before, as the service does
}

// Story is an endless stream of records. It is not safe for use by several goroutines.
type Story struct {
	rnd      *rand.Rand
	traffic  []*template // each as often as its weight says
	variants map[string]*template
	devices  []device
	users    []user

	scenes     [][]*template // the rest of the attack
	quiet      int           // ordinary records before the next scene
	pending    []*template   // the rest of the scene that is on
	alert      []*template
	alertEvery int
	untilAlert int
	alerting   bool // further alerts have begun: the aftermath is over

	// The record that is being written.
	number   int64
	now      int64 // event time, in 100 ns since 1970
	received int64
	exported int64
	device   *device
	user     *user
	attack   *incident
	after    *later // nil before the aftermath

	counts map[string]int64

	repeats  int
	told     []toldRecord // the last records, for repeats
	repeated int64
}

// toldRecord has the values that a repeat shares with the record that came first.
type toldRecord struct {
	table      string
	properties []byte
}

// lastTold is how far back a repeat may reach.
const lastTold = 400

// New begins a story.
func New(o Options) *Story {
	if o.Start.IsZero() {
		o.Start = time.Date(2026, 3, 9, 7, 30, 0, 0, time.UTC)
	}
	if o.Devices <= 0 {
		o.Devices = 400
	}
	s := &Story{
		rnd:        rand.New(rand.NewPCG(o.Seed, 0x5f0c1d2e7a344b56)),
		variants:   make(map[string]*template),
		number:     o.First - 1,
		now:        o.Start.UnixNano() / 100,
		alertEvery: o.AlertEvery,
		untilAlert: o.AlertEvery,
		counts:     make(map[string]int64),
		repeats:    o.Repeats,
	}
	for _, t := range readTemplates() {
		s.variants[t.table+"."+t.variant] = t
		for range t.weight {
			s.traffic = append(s.traffic, t)
		}
	}
	s.users = newUsers(s.rnd, o.Devices)
	s.devices = newDevices(s.rnd, o.Devices)
	s.attack = firstIncident(s)
	s.alert = s.scene(alertRows)
	if !o.NoAttack {
		for _, names := range attack {
			s.scenes = append(s.scenes, s.scene(names))
		}
		for _, names := range aftermath {
			s.scenes = append(s.scenes, s.scene(names))
		}
	}
	return s
}

func (s *Story) scene(names []string) []*template {
	ts := make([]*template, len(names))
	for i, name := range names {
		if ts[i] = s.variants[name]; ts[i] == nil {
			panic("BUG: no template " + name)
		}
	}
	return ts
}

// AlertID is the AlertId of the attack.
func (s *Story) AlertID() string { return s.attack.alert }

// Number is NumberColumn of the last record that was written.
func (s *Story) Number() int64 { return s.number }

// Repeated says how many repeats were written. They count nowhere else, and have no number of their
// own.
func (s *Story) Repeated() int64 { return s.repeated }

// Counts says how many records of each table were written.
func (s *Story) Counts() map[string]int64 { return maps.Clone(s.counts) }

// AppendRecord appends the next record, compact.
func (s *Story) AppendRecord(dst []byte) []byte { return s.append(dst, compact) }

// AppendLine appends the next record as a line of a blob: compact, and ended by CR LF.
func (s *Story) AppendLine(dst []byte) []byte { return append(s.append(dst, compact), '\r', '\n') }

// AppendEnvelope appends the next n records, and the repeats that are due, as the body of an Event
// Hubs message. One in eight is spaced, as seen on the wire: blanks in the envelope, none in
// properties.
func (s *Story) AppendEnvelope(dst []byte, n int) []byte {
	form := compact
	if s.rnd.Uint32()%8 == 0 {
		form = spaced
	}
	dst = append(dst, form.begin...)
	for i := range n {
		if i > 0 {
			dst = append(dst, form.comma...)
		}
		dst = s.append(dst, form)
		if s.repeatDue() {
			dst = s.repeat(append(dst, form.comma...), form)
		}
	}
	return append(dst, form.end...)
}

// A style is the white space of an envelope.
type style struct {
	begin, comma, end                                                string
	time, tenant, operation, category, received, properties, closing string
}

var compact = &style{
	begin: `{"records":[`, comma: `,`, end: `]}`,
	time: `{"time":"`, tenant: `","tenantId":"`, operation: `","operationName":"Publish`,
	category: `","category":"AdvancedHunting-`, received: `","_TimeReceivedBySvc":"`, properties: `","properties":`,
	closing: `,"Tenant":"DefaultTenant"}`,
}

var spaced = &style{
	begin: `{"records": [`, comma: `, `, end: `]}`,
	time: `{ "time": "`, tenant: `", "tenantId": "`, operation: `", "operationName": "Publish`,
	category: `", "category": "AdvancedHunting-`, received: `", "_TimeReceivedBySvc": "`, properties: `", "properties": `,
	closing: `, "Tenant": "DefaultTenant" }`,
}

func (s *Story) append(dst []byte, form *style) []byte {
	t := s.next()
	s.number++
	s.counts[t.table]++
	dst = s.head(dst, form, t.table)
	from := len(dst)
	for i := range t.parts {
		dst = append(dst, t.parts[i].text...)
		dst = s.appendValue(dst, &t.parts[i].value)
	}
	// New columns are appended at the end of a table, so that is where ours goes.
	dst = append(dst, `,"`+NumberColumn+`":`...)
	dst = strconv.AppendInt(dst, s.number, 10)
	dst = append(dst, '}')
	if s.repeats > 0 {
		if len(s.told) < lastTold {
			s.told = append(s.told, toldRecord{})
		}
		last := &s.told[int(s.number%lastTold)%len(s.told)]
		last.table, last.properties = t.table, append(last.properties[:0], dst[from:]...)
	}
	return append(dst, form.closing...)
}

func (s *Story) repeatDue() bool { return s.repeats > 0 && s.rnd.IntN(100) < s.repeats }

// repeat appends one of the last records again: with the envelope of now, and the same properties.
func (s *Story) repeat(dst []byte, form *style) []byte {
	s.repeated++
	again := &s.told[s.rnd.IntN(len(s.told))]
	dst = s.head(dst, form, again.table)
	dst = append(dst, again.properties...)
	return append(dst, form.closing...)
}

// head appends the envelope of a record up to its properties.
func (s *Story) head(dst []byte, form *style, table string) []byte {
	dst = append(dst, form.time...)
	dst = appendTime(dst, s.exported, 7, false)
	dst = append(dst, form.tenant...)
	dst = append(dst, Tenant...)
	dst = append(dst, form.operation...)
	dst = append(dst, form.category...)
	dst = append(dst, table...)
	dst = append(dst, form.received...)
	dst = appendTime(dst, s.received, 7, false)
	return append(dst, form.properties...)
}

// next picks the template of the next record, and sets its device, its user and the clocks.
func (s *Story) next() *template {
	if len(s.pending) == 0 {
		switch {
		case len(s.scenes) > 0 && s.quiet == 0:
			s.pending, s.scenes = s.scenes[0], s.scenes[1:]
			s.quiet = 6 + s.rnd.IntN(10)
			switch len(s.scenes) {
			case len(aftermath):
				s.quiet = calm
			case len(aftermath) - 1:
				s.after = newLater(s)
			}
			s.begin()
		case s.alertEvery > 0 && len(s.scenes) == 0 && s.untilAlert == 0:
			s.pending, s.alerting = s.alert, true
			s.untilAlert = s.alertEvery
			s.attack = newIncident(s)
			s.begin()
		}
	}
	if len(s.pending) > 0 {
		t := s.pending[0]
		s.pending = s.pending[1:]
		s.device, s.user = s.attack.device, s.attack.user
		if s.after != nil && len(s.scenes) < len(aftermath) && !s.alerting {
			s.device, s.user = s.after.device, s.after.user
		}
		// The records of a scene are exported together, within a few milliseconds.
		s.exported += s.between(1_000, 30_000)
		return t
	}
	s.quiet = max(s.quiet-1, 0)
	s.untilAlert = max(s.untilAlert-1, 0)
	s.now += s.between(1_000, 200_000)
	i := s.rnd.IntN(len(s.devices))
	s.device, s.user = &s.devices[i], &s.users[i]
	s.stamp()
	return s.traffic[s.rnd.IntN(len(s.traffic))]
}

// begin sets the clocks of a scene.
func (s *Story) begin() {
	s.now += s.between(100_000_000, 600_000_000)
	s.stamp()
}

// stamp sets when the service received and exported the present events: half a minute to five
// minutes later.
func (s *Story) stamp() {
	s.received = s.now + s.between(200_000_000, 2_400_000_000)
	s.exported = s.received + s.between(150_000_000, 600_000_000)
}

func (s *Story) between(least, most int64) int64 { return least + s.rnd.Int64N(most-least) }
