package transform

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
)

// Stats counts the work of a Transformer. It may be read while the Transformer works.
//
// Every record is counted once: in Records, in Excluded, in Empty, as unreadable, or, where repeats
// are dropped, in Repeats.
type Stats struct {
	Payloads atomic.Uint64
	Bytes    atomic.Uint64 // of payloads
	Records  atomic.Uint64 // records emitted, other than unreadable ones
	Excluded atomic.Uint64 // records left out by tables and tables_exclude
	Empty    atomic.Uint64 // payloads without any record, and records without any member
	Damaged  atomic.Uint64 // payloads that did not parse as a whole

	NotWaited atomic.Uint64 // rows whose device was to come, and for which there was no room to wait

	event.Counts

	TimeFallbacks atomic.Uint64 // records whose event time is not that of the event
	TimeNow       atomic.Uint64 // of these, records that had no usable time at all

	unreadable [reasonCount]atomic.Uint64

	mu     sync.Mutex
	tables map[string]*tableStats // at most maxTables, and the rest together
	rest   tableStats
}

// tableStats counts the records of a table.
type tableStats struct {
	records atomic.Uint64
	repeats atomic.Uint64
	devices [len(device.Statuses)]atomic.Uint64 // records that were to get a device
	delay   delay
}

// maxTables bounds all that is kept by table name: names come from outside. Microsoft documents 62.
const maxTables = 256

// OtherTables is the name under which Tables counts the tables beyond the first 256.
const OtherTables = "(other)"

// reason is a kind of unreadable record.
type reason uint8

const (
	reasonSyntax    reason = iota // "syntax": not JSON, or JSON with a mistake
	reasonCut                     // "cut": the text ends inside the record
	reasonNotObject               // "not_object": a string, number or list where a record belongs
	reasonBeside                  // "beside": members of an envelope beside its records
	reasonOutput                  // "output": its event would be many times its size, or it has too many values
	reasonPanic                   // "panic": the transformer has a bug
	reasonSource                  // "source": the payload came with a reason
	reasonCount
)

var reasonNames = [reasonCount]string{"syntax", "cut", "not_object", "beside", "output", "panic", "source"}

// Unreadable returns how many records were passed on raw, by reason.
func (s *Stats) Unreadable() map[string]uint64 {
	m := make(map[string]uint64, reasonCount)
	for i := range s.unreadable {
		m[reasonNames[i]] = s.unreadable[i].Load()
	}
	return m
}

// Tables returns how many records were emitted, by table. Other than the unreadable.
func (s *Stats) Tables() map[string]uint64 {
	m := make(map[string]uint64)
	s.eachTable(func(name string, t *tableStats) { m[name] += t.records.Load() })
	return m
}

// Repeats returns how many records of hunting tables were delivered again, by table. They are among
// those of Tables unless they are dropped. Tables without any are left out.
func (s *Stats) Repeats() map[string]uint64 {
	m := make(map[string]uint64)
	s.eachTable(func(name string, t *tableStats) {
		if n := t.repeats.Load(); n > 0 {
			m[name] += n
		}
	})
	return m
}

// Devices calls f with the number of records of a table that were to get a device, for each
// DeviceInfo.status. Tables without any are left out.
func (s *Stats) Devices(f func(table, status string, n uint64)) {
	s.eachTable(func(name string, t *tableStats) {
		total := uint64(0)
		for i := range t.devices {
			total += t.devices[i].Load()
		}
		for i := range t.devices {
			if total > 0 {
				f(name, device.Statuses[i], t.devices[i].Load())
			}
		}
	})
}

// Delays returns the time from event to record, by table, without records that have no usable time.
func (s *Stats) Delays() map[string]Delay {
	m := make(map[string]Delay)
	s.eachTable(func(name string, t *tableStats) {
		d := m[name]
		d.Add(t.delay.load())
		m[name] = d
	})
	return m
}

func (s *Stats) eachTable(f func(name string, t *tableStats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, t := range s.tables {
		f(name, t)
	}
	if s.rest.records.Load()+s.rest.repeats.Load() > 0 {
		f(OtherTables, &s.rest)
	}
}

// table returns the counters of a table.
func (s *Stats) table(name string) *tableStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.tables[name]; ok {
		return t
	}
	if len(s.tables) >= maxTables {
		return &s.rest
	}
	if s.tables == nil {
		s.tables = make(map[string]*tableStats)
	}
	t := new(tableStats)
	s.tables[strings.Clone(name)] = t
	return t
}
