package record

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// maxEventSeconds is the end of 2038-01-18. Fluent Bit keeps the seconds of an event time in 31
// bits. A record whose time does not fit takes the rest of its chunk with it (seen on v3.2 to
// v5.0).
const maxEventSeconds = 2147472000

// ParseTime reads the times that Defender, and services that pass its records on, write. It reads
// the forms of parseISO, /Date(ms)/ of Json.NET, 9/20/2026 10:18:02 AM, and 20/Sep/2026:10:18:02
// +0000. It also reads epochs in seconds, milliseconds or microseconds, which differ by their size.
// ok is false for anything else, and for times that an event cannot have.
func ParseTime(b []byte) (sec int64, nsec uint32, ok bool) {
	if sec, nsec, ok = parseISO(b); ok || len(b) == 0 {
		return sec, nsec, ok
	}
	if rest, found := bytes.CutPrefix(b, []byte("/Date(")); found {
		b, found = bytes.CutSuffix(rest, []byte(")/"))
		if i := bytes.LastIndexAny(b, "+-"); i > 0 {
			b = b[:i] // an offset, which does not change the instant
		}
		if !found || len(b) > 16 {
			return 0, 0, false
		}
		ms, digits := number(b)
		return epoch(ms, 1000, digits && len(b) > 0)
	}
	if n, digits := number(b); digits {
		return parseEpoch(n, len(b))
	}
	if len(b) > 6 && b[2] == '/' && b[6] == '/' {
		return parseWeb(b)
	}
	return parseUS(b)
}

// parseWeb reads the times of web servers' logs: 20/Sep/2026:10:18:02 +0000.
func parseWeb(b []byte) (sec int64, nsec uint32, ok bool) {
	if len(b) < 20 || len(b) > 26 || b[11] != ':' {
		return 0, 0, false
	}
	i := strings.Index("JanFebMarAprMayJunJulAugSepOctNovDec", View(b[3:6]))
	if i < 0 || i%3 != 0 {
		return 0, 0, false
	}
	month := byte(i/3 + 1)
	iso := append(make([]byte, 0, 25), b[7:11]...)
	iso = append(iso, '-', '0'+month/10, '0'+month%10, '-', b[0], b[1], 'T')
	return parseISO(append(iso, b[12:]...))
}

// parseEpoch reads a count since 1970 with so many digits.
func parseEpoch(n int64, digits int) (sec int64, nsec uint32, ok bool) {
	switch {
	case digits >= 9 && digits <= 10:
		return epoch(n, 1, true)
	case digits >= 12 && digits <= 13:
		return epoch(n, 1000, true)
	case digits >= 15 && digits <= 16:
		return epoch(n, 1_000_000, true)
	}
	return 0, 0, false
}

// epoch is the time of n units since 1970. second is the number of units in a second.
func epoch(n, second int64, ok bool) (int64, uint32, bool) {
	sec := n / second
	if !ok || sec < 0 || sec >= maxEventSeconds {
		return 0, 0, false
	}
	return sec, uint32(n % second * (1_000_000_000 / second)), true
}

// parseUS reads month/day/year and a time of day, with AM or PM or of 24 hours, and a zone at the
// end or none.
func parseUS(b []byte) (sec int64, nsec uint32, ok bool) {
	var n [6]int64
	for i, end := range [...]byte{'/', '/', ' ', ':', ':', 0} {
		k := 0
		for k < len(b) && '0' <= b[k] && b[k] <= '9' {
			k++
		}
		n[i], ok = number(b[:k])
		if !ok || k == 0 || k > 4 || end != 0 && (k >= len(b) || b[k] != end) {
			return 0, 0, false
		}
		b = b[min(k+1, len(b)):]
		if end == 0 {
			break
		}
	}
	month, day, year, hour := n[0], n[1], n[2], n[3]
	half := len(b) >= 2 && (b[1] == 'M' || b[1] == 'm')
	switch {
	case half && (b[0] == 'A' || b[0] == 'a') && 1 <= hour && hour <= 12:
		hour, b = hour%12, b[2:]
	case half && (b[0] == 'P' || b[0] == 'p') && 1 <= hour && hour <= 12:
		hour, b = hour%12+12, b[2:]
	case half:
		return 0, 0, false
	}
	if year < 1970 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || hour > 23 || n[4] > 59 || n[5] > 60 {
		return 0, 0, false
	}
	offset, ok := zone(bytes.TrimPrefix(b, []byte(" ")))
	sec = days(year, month, day)*86400 + hour*3600 + n[4]*60 + n[5] - offset
	if !ok || sec < 0 || sec >= maxEventSeconds {
		return 0, 0, false
	}
	return sec, 0, true
}

// zone reads the zone behind a time: nothing, Z, UTC, GMT, +01:00, +0100. It returns seconds east.
func zone(b []byte) (seconds int64, ok bool) {
	switch string(b) {
	case "", "Z", "z", "UTC", "GMT":
		return 0, true
	}
	if len(b) == 6 && b[3] == ':' {
		b = append(append(make([]byte, 0, 5), b[:3]...), b[4:]...)
	}
	if len(b) != 5 || b[0] != '+' && b[0] != '-' {
		return 0, false
	}
	h, ok1 := number(b[1:3])
	m, ok2 := number(b[3:5])
	if !ok1 || !ok2 || h > 23 || m > 59 {
		return 0, false
	}
	seconds = (h*60 + m) * 60
	if b[0] == '-' {
		seconds = -seconds
	}
	return seconds, true
}

// A Clock is the date and time of day that a text begins with.
type Clock struct{ Year, Month, Day, Hour, Minute, Second int64 }

// ParseClock reads 2006-01-02T15:04:05 at the beginning of b, with T, t or a blank. ok is false for
// anything else, and for days that no month has. A second may be 60.
//
// It looks at eight bytes at once: each must be the digit or the separator of its place.
func ParseClock(b []byte) (c Clock, ok bool) {
	if len(b) < 19 || b[10] != 'T' && b[10] != ' ' && b[10] != 't' {
		return Clock{}, false
	}
	day := binary.LittleEndian.Uint64(b) ^ 0x2d30302d30303030         // 0000-00-
	time := binary.LittleEndian.Uint64(b[11:19]) ^ 0x30303a30303a3030 // 00:00:00
	d1, d2 := b[8]-'0', b[9]-'0'
	// A right byte is now 0 to 9, or 0 for a separator. Any other sets the highest bit.
	wrong := day | time | (day + 0x7f76767f76767676) | (time + 0x76767f76767f7676)
	if wrong&0x8080808080808080 != 0 || d1 > 9 || d2 > 9 {
		return Clock{}, false
	}
	two := func(word uint64, at int) int64 { return int64(word>>(8*at)&0xf)*10 + int64(word>>(8*at+8)&0xf) }
	c = Clock{
		Year: two(day, 0)*100 + two(day, 2), Month: two(day, 5), Day: int64(d1)*10 + int64(d2),
		Hour: two(time, 0), Minute: two(time, 3), Second: two(time, 6),
	}
	return c, 1 <= c.Month && c.Month <= 12 && 1 <= c.Day && c.Day <= daysIn(c.Year, c.Month) && c.Hour <= 23 && c.Minute <= 59 && c.Second <= 60
}

// parseISO reads RFC 3339 with 0 to 9 digits of a fraction (more are ignored), a blank instead of
// the T, no zone for UTC. ok is false for anything else, and for times that an event cannot have.
func parseISO(b []byte) (sec int64, nsec uint32, ok bool) {
	c, ok := ParseClock(b)
	if !ok {
		return 0, 0, false
	}
	b = b[19:]
	if len(b) > 0 && (b[0] == '.' || b[0] == ',') {
		i, scale := 1, uint32(100_000_000)
		for i < len(b) && '0' <= b[i] && b[i] <= '9' {
			nsec += uint32(b[i]-'0') * scale
			scale /= 10
			i++
		}
		if i == 1 {
			return 0, 0, false
		}
		b = b[i:]
	}
	offset := int64(0)
	if len(b) != 1 || b[0] != 'Z' { // as nearly all are
		var ok bool
		if len(b) > 0 && b[0] == ' ' {
			b = b[1:]
		}
		if offset, ok = zone(b); !ok {
			return 0, 0, false
		}
	}
	sec = days(c.Year, c.Month, c.Day)*86400 + c.Hour*3600 + c.Minute*60 + c.Second - offset
	if sec < 0 || sec >= maxEventSeconds {
		return 0, 0, false
	}
	return sec, nsec, true
}

func number(b []byte) (n int64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

func daysIn(year, month int64) int64 {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// days counts from 1970-01-01, in the calendar of 400-year eras that begin in March, so that the
// leap day comes last.
func days(year, month, day int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	era := year / 400
	yoe := year % 400
	doy := (153*(month-3)+2)/5 + day - 1
	return era*146097 + yoe*365 + yoe/4 - yoe/100 + doy - 719468
}

// TimeSource tells where an event time comes from.
type TimeSource uint8

// The sources, the best first.
const (
	TimeEvent    TimeSource = iota // the record says when it happened
	TimeExported                   // a hunting record does not: when it was exported
	TimeNone                       // it has no usable time
)

// Time is the event time: when it happened, else when it was exported.
func (r *Record) Time() (sec int64, nsec uint32, from TimeSource) {
	if r.Lifted {
		if sec, nsec, ok := r.Columns.time(r.Columns.Find(r.Props, "Timestamp")); ok {
			return sec, nsec, TimeEvent
		}
	}
	if !r.Lifted || r.Bare {
		// A record's own time comes before that of its export.
		if sec, nsec, ok := r.Doc.ownTime(0); ok {
			return sec, nsec, TimeEvent
		}
	}
	if !r.Lifted {
		properties := r.Properties
		if properties == 0 {
			properties = r.Doc.Find(0, "Properties")
		}
		if properties != 0 {
			if sec, nsec, ok := r.Doc.ownTime(properties); ok {
				return sec, nsec, TimeEvent
			}
			if sec, nsec, ok := r.Doc.time(r.entraTime(properties)); ok {
				return sec, nsec, TimeEvent
			}
		}
	}
	if sec, nsec, ok := r.Doc.time(r.Envelope.Time); ok {
		if r.Lifted {
			return sec, nsec, TimeExported
		}
		return sec, nsec, TimeEvent
	}
	if !r.Lifted {
		if sec, nsec, ok := r.Doc.memberTime(0, "timestamp"); ok {
			return sec, nsec, TimeEvent
		}
	}
	return 0, 0, TimeNone
}

// memberTime is the time in a member of object n. Its name is in lower case, and may be in any case
// in the record. Application gateways write timeStamp, and no time.
func (tr *Tree) memberTime(n uint32, name string) (sec int64, nsec uint32, ok bool) {
	for k, end := n+1, tr.Nodes[n].Next; k < end && !ok; k = tr.Nodes[k+1].Next {
		if is(tr.Inner(k), name) {
			sec, nsec, ok = tr.time(k + 1)
		}
	}
	return sec, nsec, ok
}

// entraTime is the node with the time of a sign-in or change of Microsoft Entra, 0 for other
// records. The envelope has the time of the export, up to minutes later.
func (r *Record) entraTime(properties uint32) uint32 {
	switch category := r.Category(); {
	case r.Doc.Nodes[properties].Kind != KindObject:
	case strings.HasSuffix(category, "SignInLogs"):
		return r.Doc.Find(properties, "createdDateTime")
	case category == "AuditLogs":
		return r.Doc.Find(properties, "activityDateTime")
	}
	return 0
}

// ownTimes are where records of other products of Azure say when something happened, in lower case,
// the best first.
var ownTimes = [...]string{"timegenerated", "timegeneratedutc", "starttimeutc", "eventtimestring"}

// ownTime is the time that object n has of its own.
func (tr *Tree) ownTime(n uint32) (sec int64, nsec uint32, ok bool) {
	if tr.Nodes[n].Kind != KindObject {
		return 0, 0, false
	}
	best := len(ownTimes)
	for k, end := n+1, tr.Nodes[n].Next; k < end; k = tr.Nodes[k+1].Next {
		for i, name := range ownTimes[:best] {
			if key := tr.Inner(k); len(key) == len(name) && equalFold(key, name) {
				if s, ns, found := tr.time(k + 1); found {
					sec, nsec, ok, best = s, ns, true, i
				}
				break
			}
		}
	}
	return sec, nsec, ok
}

// equalFold compares with a text in lower case. They have one length.
func equalFold(key []byte, lower string) bool {
	for i, c := range key {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// Nanos is the event time in nanoseconds since 1970, or otherwise if the record has none.
func (r *Record) Nanos(otherwise int64) int64 {
	sec, nsec, from := r.Time()
	if from == TimeNone {
		return otherwise
	}
	return sec*1e9 + int64(nsec)
}

// Exported is when the service exported the record, in nanoseconds since 1970.
func (r *Record) Exported() (nanos int64, ok bool) {
	sec, nsec, ok := r.Doc.time(r.Envelope.Time)
	return sec*1e9 + int64(nsec), ok
}

// time is the time that node n holds: a text, or an epoch as a number. Node 0 means none.
func (tr *Tree) time(n uint32) (sec int64, nsec uint32, ok bool) {
	if n == 0 {
		return 0, 0, false
	}
	switch v := &tr.Nodes[n]; {
	case v.Kind == KindNumber:
		count, ok := ParseInteger(tr.Raw(n))
		if !ok {
			return 0, 0, false
		}
		return parseEpoch(count, int(v.End-v.Start))
	case v.Kind != KindString:
		return 0, 0, false
	case v.Flags&FlagEscaped != 0 && v.End-v.Start < 64:
		text, _ := AppendText(make([]byte, 0, 64), tr.Inner(n))
		return ParseTime(text)
	}
	return ParseTime(tr.Inner(n))
}
