package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
)

// A ledger counts events in and out, each by its number (story.NumberColumn) and by its event_id.
// It computes the ids itself from the records that went in.
type ledger struct {
	mu         sync.Mutex
	events     []entry // by number
	excused    int     // events that nobody can deliver any more
	distinct   int
	duplicates int
	again      int // of the duplicates, those of chunks that Fluent Bit delivered twice
	bodies     map[[sha256.Size]byte]bool
	flow       []handed
	unreadable int
	others     int               // events without a number, of poison messages
	devices    map[string]string // of evidence without a number: its AlertId to its DeviceInfo.status
	strange    []string          // events that never went in, or came out changed

	healed  time.Time     // when the fault last ended
	waiting bool          // for the first event since then
	slowest time.Duration // from the end of a fault to the first event after it
	last    time.Time     // when an event last came out that had not before
}

// handed is how many events a host had handed over, those that came again included, at a time.
type handed struct {
	at     time.Time
	events int
}

type entry struct {
	id      eventID
	out     bool
	excused bool
}

type eventID [16]byte

// enter notes a record that is about to go in. It finds its own number by counting: numbers have no
// gaps.
func (l *ledger) enter(record []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, entry{id: idOf(record)})
}

// idOf is event_id as the README defines it, for a compact record of the story.
func idOf(record []byte) (id eventID) {
	const prefix, suffix, category = `"properties":`, `,"Tenant":"DefaultTenant"}`, `"category":"AdvancedHunting-`
	begin := bytes.Index(record, []byte(prefix)) + len(prefix)
	end := bytes.LastIndex(record, []byte(suffix))
	table := record[bytes.Index(record, []byte(category))+len(category):]
	table = table[:bytes.IndexByte(table, '"')]

	h := sha256.New()
	h.Write([]byte(story.Tenant))
	h.Write([]byte{0})
	h.Write(table)
	h.Write([]byte{0})
	h.Write(record[begin:end])
	copy(id[:], h.Sum(nil))
	return id
}

// out notes an event that arrived.
func (l *ledger) out(number int64, id eventID) {
	switch {
	case number < 0:
		l.others++
		return
	case number >= int64(len(l.events)):
		l.odd("event number %d came out and never went in", number)
		return
	case l.events[number].id != id:
		l.odd("event number %d came out with event_id %x, not %x", number, id, l.events[number].id)
	}
	e := &l.events[number]
	if e.out {
		l.duplicates++
		return
	}
	e.out = true
	l.distinct++
	l.last = time.Now()
	if l.waiting {
		l.waiting = false
		l.slowest = max(l.slowest, l.last.Sub(l.healed))
	}
}

func (l *ledger) odd(format string, args ...any) {
	if len(l.strange) < 10 {
		l.strange = append(l.strange, fmt.Sprintf(format, args...))
	}
}

// heal notes that a fault has ended: the next event that had not come out before tells how long it
// took to recover.
func (l *ledger) heal() { l.healAt(time.Now()) }

func (l *ledger) healAt(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.distinct+l.excused < len(l.events) {
		l.healed, l.waiting = at, true
	}
}

// recovered notes how long a recovery took that somebody else has measured.
func (l *ledger) recovered(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest = max(l.slowest, d)
}

// excuse takes events out of those that must come out, except those that have already.
func (l *ledger) excuse(numbers []int) (excused int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range numbers {
		if !l.events[n].out && !l.events[n].excused {
			l.events[n].excused = true
			l.excused++
			excused++
		}
	}
	return excused
}

// A count is the ledger's sum.
type count struct {
	in, distinct, lost, duplicates, again, unreadable, others, excused int
	strange                                                            []string
	recover                                                            time.Duration
	last                                                               time.Time
}

func (l *ledger) count() count {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := count{in: len(l.events), distinct: l.distinct, duplicates: l.duplicates, again: l.again, unreadable: l.unreadable, others: l.others, excused: l.excused,
		strange: l.strange, recover: l.slowest, last: l.last}
	for i := range l.events {
		if !l.events[i].out && !l.events[i].excused {
			c.lost++
		}
	}
	return c
}

// missing lists the first few numbers that did not come out.
func (l *ledger) missing(most int) (numbers []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.events {
		if !l.events[i].out && !l.events[i].excused && len(numbers) < most {
			numbers = append(numbers, i)
		}
	}
	return numbers
}

// isOut tells whether an event has come out.
func (l *ledger) isOut(number int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events[number].out
}

// complete tells whether everything that went in has come out.
func (l *ledger) complete() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waitingFor() == 0
}

// backlog is how many events have gone in and not come out yet.
func (l *ledger) backlog() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waitingFor()
}

func (l *ledger) waitingFor() int { return len(l.events) - l.distinct - l.excused }

// outChunk notes events as lines of JSON, one chunk of Fluent Bit's. The same chunk twice is
// counted apart. Most likely Fluent Bit was killed after it was delivered and before it was
// deleted, which nobody has traced.
func (l *ledger) outChunk(lines []byte) error {
	sum := sha256.Sum256(lines)
	l.mu.Lock()
	if l.bodies == nil {
		l.bodies = make(map[[sha256.Size]byte]bool)
	}
	twice, before := l.bodies[sum], l.duplicates
	l.bodies[sum] = true
	l.mu.Unlock()
	err := l.outLines(lines)
	if twice {
		l.mu.Lock()
		l.again += l.duplicates - before
		l.mu.Unlock()
	}
	return err
}

// outLines notes events as lines of JSON.
func (l *ledger) outLines(lines []byte) error {
	const numberKey, idKey, reasonKey = `"` + story.NumberColumn + `":`, `"event_id":"`, `"unreadable_reason":"`
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(lines) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if bytes.Contains(line, []byte(reasonKey)) {
			l.unreadable++
			continue
		}
		i, j := bytes.Index(line, []byte(numberKey)), bytes.Index(line, []byte(idKey))
		if i < 0 && line[len(line)-1] == '\n' {
			l.others++
			l.evidence(textOf(line, "AlertId"), textOf(line, "DeviceInfo.status"))
			continue
		}
		if i < 0 || j < 0 || j+len(idKey)+32 > len(line) || line[len(line)-1] != '\n' {
			return fmt.Errorf("an event without its number or event_id: %.200q", line)
		}
		digits := line[i+len(numberKey):]
		n := 0
		for n < len(digits) && digits[n] >= '0' && digits[n] <= '9' {
			n++
		}
		number, err := strconv.ParseInt(string(digits[:n]), 10, 64)
		if err != nil {
			return fmt.Errorf("read an event's number: %w", err)
		}
		var id eventID
		if _, err := hex.Decode(id[:], line[j+len(idKey):j+len(idKey)+32]); err != nil {
			return fmt.Errorf("read an event's id: %w", err)
		}
		l.out(number, id)
	}
	return nil
}

// textOf is the text of a field in a line of JSON, or "".
func textOf(line []byte, name string) string {
	_, rest, _ := bytes.Cut(line, []byte(`"`+name+`":"`))
	text, _, _ := bytes.Cut(rest, []byte{'"'})
	return string(text)
}

// evidence notes the status of the device on a row of an alert. l.mu is held.
func (l *ledger) evidence(alert, status string) {
	if alert == "" || status == "" {
		return
	}
	if l.devices == nil {
		l.devices = make(map[string]string)
	}
	l.devices[alert] = status
}

// statusOf is the status of the device on the row of an alert that came out last, or "".
func (l *ledger) statusOf(alert string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.devices[alert]
}

// handedFrom returns how many events were handed over between two times.
func (l *ledger) handedFrom(from, to time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	first, last := 0, 0
	for _, h := range l.flow {
		if h.at.Before(from) {
			first = h.events
		}
		if h.at.Before(to) {
			last = h.events
		}
	}
	return last - first
}

// outEvents notes events as the plugin hands them over: [time, map], one after the other.
func (l *ledger) outEvents(b []byte) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { l.flow = append(l.flow, handed{time.Now(), l.distinct + l.duplicates}) }()
	for len(b) > 0 {
		if _, b, err = msgp.ReadArrayHeaderBytes(b); err != nil {
			return fmt.Errorf("read an event: %w", err)
		}
		if b, err = msgp.Skip(b); err != nil {
			return fmt.Errorf("read an event's time: %w", err)
		}
		var fields uint32
		if fields, b, err = msgp.ReadMapHeaderBytes(b); err != nil {
			return fmt.Errorf("read an event's fields: %w", err)
		}
		number, unreadable, alert, status := int64(-1), false, "", ""
		var id eventID
		for range fields {
			var key, value []byte
			if key, b, err = msgp.ReadStringZC(b); err != nil {
				return fmt.Errorf("read a field: %w", err)
			}
			switch string(key) {
			case story.NumberColumn:
				number, b, err = msgp.ReadInt64Bytes(b)
			case "event_id":
				if value, b, err = msgp.ReadStringZC(b); err == nil && len(value) == 32 {
					_, err = hex.Decode(id[:], value)
				}
			case "AlertId":
				alert, b, err = msgp.ReadStringBytes(b)
			case "DeviceInfo.status":
				status, b, err = msgp.ReadStringBytes(b)
			case "unreadable_reason":
				unreadable = true
				b, err = msgp.Skip(b)
			default:
				b, err = msgp.Skip(b)
			}
			if err != nil {
				return fmt.Errorf("read field %s: %w", key, err)
			}
		}
		if unreadable {
			l.unreadable++
		} else {
			if number < 0 {
				l.evidence(alert, status)
			}
			l.out(number, id)
		}
	}
	return nil
}
