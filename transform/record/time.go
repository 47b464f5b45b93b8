package record

// maxEventSeconds is the end of 2038-01-18. Fluent Bit keeps the seconds of an event time in 31 bits, and a record whose
// time does not fit takes the rest of its chunk with it (seen on v3.2 to v5.0).
const maxEventSeconds = 2147472000

// ParseTime reads the forms in which Defender and those who pass its records on write times: RFC 3339 with 0 to 9 digits of
// a fraction (more are ignored), a blank instead of the T, no zone for UTC. ok is false for anything else, and
// for what an event time cannot hold.
func ParseTime(b []byte) (sec int64, nsec uint32, ok bool) {
	if len(b) < 19 || b[4] != '-' || b[7] != '-' || b[10] != 'T' && b[10] != ' ' && b[10] != 't' || b[13] != ':' || b[16] != ':' {
		return 0, 0, false
	}
	year, ok1 := number(b[0:4])
	month, ok2 := number(b[5:7])
	day, ok3 := number(b[8:10])
	hour, ok4 := number(b[11:13])
	minute, ok5 := number(b[14:16])
	second, ok6 := number(b[17:19])
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6) || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) ||
		hour > 23 || minute > 59 || second > 60 {
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
	switch {
	case len(b) == 0, len(b) == 1 && (b[0] == 'Z' || b[0] == 'z'):
	case len(b) == 6 && (b[0] == '+' || b[0] == '-') && b[3] == ':':
		h, ok1 := number(b[1:3])
		m, ok2 := number(b[4:6])
		if !ok1 || !ok2 || h > 23 || m > 59 {
			return 0, 0, false
		}
		offset = (h*60 + m) * 60
		if b[0] == '-' {
			offset = -offset
		}
	default:
		return 0, 0, false
	}
	sec = days(year, month, day)*86400 + hour*3600 + minute*60 + second - offset
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

// days counts from 1970-01-01, in the calendar of 400-year eras that begin in March, so that the leap day comes last.
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
	if sec, nsec, ok := r.Doc.time(r.Envelope.Time); ok {
		if r.Lifted {
			return sec, nsec, TimeExported
		}
		return sec, nsec, TimeEvent
	}
	if !r.Lifted {
		for _, name := range [...]string{"TimeGenerated", "StartTimeUtc"} {
			if sec, nsec, ok := r.Doc.time(r.Doc.Find(0, name)); ok {
				return sec, nsec, TimeEvent
			}
		}
	}
	return 0, 0, TimeNone
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

// time is the time that string n holds. Node 0 stands for none.
func (tr *Tree) time(n uint32) (sec int64, nsec uint32, ok bool) {
	if n == 0 || tr.Nodes[n].Kind != KindString {
		return 0, 0, false
	}
	return ParseTime(tr.Inner(n))
}
