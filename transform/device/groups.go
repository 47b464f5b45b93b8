package device

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"github.com/tinylib/msgp/msgp"
)

// The facts of a device are kept as groups, newest first. A group has the time of a report and all
// columns whose last value came in it.
//
//	group:   stamp (8 bytes, big endian), number of columns (1), columns
//	column:  column id (1), length of the value (1 or 3), the value in msgpack
//
// Reports are partial: four of five real heartbeats lack the operating system. So they are merged
// column by column: the newest report that has the column wins. The order in which reports arrive
// makes no difference. A device mostly has one to three groups, so that a time for every column
// costs next to nothing.

// A column of a report, or of a device.
type column struct {
	id    columnID
	value []byte
}

// A stamp is the time of a report, in nanoseconds since 1970. Stamps of evidence are older than
// those of any report. Evidence has few columns of a device, and only fills those that no report
// has set.
const evidenceAge = int64(1) << 62

// A full report speaks for all columns that it names. columnFull is in its group. Its value lists
// the ids of the columns that it has empty: no older report and no evidence fills them. A column is
// in the list of the newest report that speaks for it, and in no list if that report has a value.
// Older full reports have none if their list is empty. That is the rule: reports of Defender name
// all columns. Answers of the machines API do not.
const columnFull columnID = 254

// facts: the sources and times of a device's columns, read from its groups.
type facts struct {
	reported bool  // a report has told of it, and not evidence alone
	full     int64 // when the newest full report was made, or 0
	last     int64 // when the newest report was made, or 0
}

// newest is when the newest report that speaks for the whole device was made: a full one, else any.
func (f facts) newest() int64 {
	if f.full != 0 {
		return f.full
	}
	return f.last
}

// factsOf reads the facts. Another device's statement that this one was merged, and addresses of
// its adapters, are no report of it.
func factsOf(groups []byte) (f facts) {
	for w := (walker{rest: groups}); ; {
		c, ok := w.next()
		if !ok || w.stamp < 0 {
			return f
		}
		f.add(c.id, w.stamp)
	}
}

// add takes a column that was said at stamp.
func (f *facts) add(id columnID, stamp int64) {
	switch id {
	case columnMergedTo, columnIPs, columnMACs:
		return
	case columnFull:
		f.full = max(f.full, stamp)
	}
	if stamp >= 0 {
		f.reported = true
		f.last = max(f.last, stamp)
	}
}

// newest is the stamp of the newest group.
func newest(groups []byte) int64 {
	if len(groups) < 8 {
		return math.MinInt64
	}
	return int64(binary.BigEndian.Uint64(groups))
}

const groupHeader = 9

// A walker goes through groups.
type walker struct {
	rest  []byte
	stamp int64
	left  int // columns of the group
}

// next returns the next column, and false at the end.
func (w *walker) next() (c column, ok bool) {
	for w.left == 0 {
		if len(w.rest) < groupHeader {
			return column{}, false
		}
		w.stamp = int64(binary.BigEndian.Uint64(w.rest))
		w.left = int(w.rest[8])
		w.rest = w.rest[groupHeader:]
	}
	w.left--
	b := w.rest
	c.id = columnID(b[0])
	n, from := int(b[1]), 2
	if n == 0xff {
		n, from = int(b[2])<<8|int(b[3]), 4
	}
	c.value = b[from : from+n : from+n]
	w.rest = b[from+n:]
	return c, true
}

// maxColumnValue is how long an encoded value may be; a longer one is left out.
const maxColumnValue = 0xffff

func appendColumn(dst []byte, c column) []byte {
	if n := len(c.value); n < 0xff {
		dst = append(dst, byte(c.id), byte(n))
	} else {
		dst = append(dst, byte(c.id), 0xff, byte(n>>8), byte(n))
	}
	return append(dst, c.value...)
}

// validGroups reports whether groups, read from a file, can be walked.
func validGroups(b []byte) bool {
	last := int64(math.MaxInt64)
	for len(b) > 0 {
		if len(b) < groupHeader {
			return false
		}
		stamp := int64(binary.BigEndian.Uint64(b))
		n := int(b[8])
		if b = b[groupHeader:]; n == 0 || stamp >= last {
			return false
		}
		last = stamp
		for range n {
			if len(b) < 2 {
				return false
			}
			size, from := int(b[1]), 2
			if size == 0xff {
				if len(b) < 4 {
					return false
				}
				size, from = int(b[2])<<8|int(b[3]), 4
			}
			if len(b) < from+size {
				return false
			}
			if rest, err := msgp.Skip(b[from : from+size]); err != nil || len(rest) > 0 {
				return false
			}
			b = b[from+size:]
		}
	}
	return true
}

// mergedInto returns the id of the device that this one was merged into, or nothing.
func mergedInto(groups []byte) []byte {
	// Columns stand in the order of their ids, and this one's is the first.
	for b := groups; len(b) > groupHeader; {
		w := walker{rest: b}
		c, _ := w.next()
		if c.id == columnMergedTo {
			id, _, _ := msgp.ReadStringZC(c.value)
			return id
		}
		for w.left > 0 {
			_, _ = w.next()
		}
		b = w.rest
	}
	return nil
}

// merger merges a report into a device. It is scratch space and nothing else.
type merger struct {
	out   []byte
	said  [256]int16 // per column: its place in the report from 1 on, 0 if it is not in it, -1 if the known value is newer
	empty [256]bool  // per column: the report says that it is empty, and nothing newer is known
	known []known
	lists []byte // values of columnFull
}

type known struct {
	stamp int64
	column
}

// merge returns groups with the columns of a report of stamp, and whether that makes a difference.
// columns has each column once. A full report has the ids of its empty columns in empty; for any
// other that is nil. The result is valid until the next merge. If two values have one stamp, the
// larger wins, and any value wins over none, so that order makes no difference there either.
func (m *merger) merge(groups []byte, stamp int64, columns []column, empty []columnID) ([]byte, bool) {
	for i, c := range columns {
		m.said[c.id] = int16(i + 1)
	}
	for _, id := range empty {
		m.empty[id] = true
	}
	m.known, m.lists = m.known[:0], m.lists[:0]
	changed := false
	full := empty != nil // and it is the newest, as far as seen
	same := -1           // the place in known of the list of another full report of this stamp
	for w := (walker{rest: groups}); ; {
		c, ok := w.next()
		if !ok {
			break
		}
		if c.id == columnFull {
			switch {
			case w.stamp < stamp:
				if c.value, ok = m.supersede(c.value, full || m.hasFull()); !ok {
					continue
				}
			case w.stamp == stamp:
				same, full = len(m.known), false
				m.hide(c.value, false)
			default:
				full = false
				m.hide(c.value, true)
			}
			m.known = append(m.known, known{w.stamp, c})
			continue
		}
		if m.empty[c.id] {
			if w.stamp < stamp {
				changed = true
				continue
			}
			m.empty[c.id] = false
		}
		if i := m.said[c.id]; i > 0 {
			if w.stamp < stamp || w.stamp == stamp && bytes.Compare(c.value, columns[i-1].value) < 0 {
				continue
			}
			m.said[c.id] = -1
		}
		m.known = append(m.known, known{w.stamp, c})
	}
	for _, c := range columns {
		if m.said[c.id] > 0 {
			m.known = append(m.known, known{stamp, c})
			changed = true
		}
		m.said[c.id] = 0
	}
	from := len(m.lists)
	m.lists = append(m.lists, binary8, 0)
	if same >= 0 {
		m.lists = append(m.lists, m.known[same].value[2:]...)
	}
	before := len(m.lists)
	for _, id := range empty {
		if m.empty[id] {
			m.lists = append(m.lists, byte(id))
			m.empty[id] = false
		}
	}
	if list := m.lists[from:]; full || len(m.lists) > before {
		list[1] = byte(len(list) - 2)
		if changed = true; same >= 0 {
			m.known[same].value = list
		} else {
			m.known = append(m.known, known{stamp, column{columnFull, list}})
		}
	}
	if !changed {
		return groups, false
	}
	slices.SortFunc(m.known, func(a, b known) int {
		return cmp.Or(cmp.Compare(b.stamp, a.stamp), cmp.Compare(a.id, b.id))
	})
	m.out = m.out[:0]
	head := 0
	for i, k := range m.known {
		if i == 0 || k.stamp != m.known[i-1].stamp {
			head = len(m.out)
			m.out = append(binary.BigEndian.AppendUint64(m.out, uint64(k.stamp)), 0)
		}
		m.out[head+8]++
		m.out = appendColumn(m.out, k.column)
	}
	return m.out, true
}

// binary8 begins a value of columnFull: bytes in msgpack, and their number in the next byte.
const binary8 = 0xc4

// hasFull reports whether a full report is among the known columns so far.
func (m *merger) hasFull() bool {
	return slices.ContainsFunc(m.known, func(k known) bool { return k.id == columnFull })
}

// emptyOf is the ids in a value of columnFull.
func emptyOf(value []byte) []byte {
	ids, _, _ := msgp.ReadBytesZC(value)
	return ids
}

// hide takes note of the columns that another full report has empty. Where that is newer, the
// report at hand has nothing to say of them.
func (m *merger) hide(value []byte, newer bool) {
	for _, id := range emptyOf(value) {
		m.empty[id] = false
		if newer && m.said[id] > 0 {
			m.said[id] = -1
		}
	}
}

// supersede returns the list of an older full report without the columns of which the report at
// hand speaks. It returns false if nothing is left of it that counts. newer: there is a newer full
// report.
func (m *merger) supersede(value []byte, newer bool) ([]byte, bool) {
	from := len(m.lists)
	m.lists = append(m.lists, binary8, 0)
	for _, id := range emptyOf(value) {
		if m.said[id] == 0 && !m.empty[id] {
			m.lists = append(m.lists, id)
		}
	}
	list := m.lists[from:len(m.lists):len(m.lists)]
	list[1] = byte(len(list) - 2)
	return list, len(list) > 2 || !newer
}
