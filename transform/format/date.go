package format

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"strconv"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// date: the parts of a text that is a time.
type date struct {
	fraction []byte // digits behind the point, at most 9
	zone     []byte // as written: Z, an offset, or nothing, which is UTC
	exact    bool   // an index takes the text unchanged
}

// splitDate reads RFC 3339 with 0 to 9 digits of a fraction, a blank in place of the T, no zone for
// UTC. ok is false for anything else, for days that no month has, and for .NET's smallest time,
// 0001-01-01T00:00:00, which means none.
func splitDate(b []byte) (d date, ok bool) {
	c, ok := record.ParseClock(b)
	if !ok || b[10] == 't' || c.Year < 2 || c.Second > 59 {
		return date{}, false
	}
	d.exact = b[10] == 'T'
	rest := b[19:]
	if len(rest) > 0 && rest[0] == '.' {
		n := 1
		for n < len(rest) && isDigit(rest[n]) {
			n++
		}
		if n == 1 || n > 10 {
			return date{}, false
		}
		d.fraction, rest = rest[1:n], rest[n:]
	}
	d.zone = rest
	switch {
	case len(rest) == 0, len(rest) == 1 && rest[0] == 'Z':
		return d, true
	case len(rest) == 6 && (rest[0] == '+' || rest[0] == '-') && rest[3] == ':' && isDigit(rest[1]) && isDigit(rest[2]) && isDigit(rest[4]) && isDigit(rest[5]):
		return d, int(rest[1]-'0')*10+int(rest[2]-'0') <= 18 && rest[4] <= '5'
	}
	return date{}, false
}

// isExact reports whether splitDate says that a text is exact.
func isExact(b []byte) bool {
	if isStamp(b) {
		return true
	}
	d, ok := splitDate(b)
	return ok && d.exact
}

// isStamp is isExact for 2006-01-02T15:04:05.1234567Z only, as nearly all times are. It looks at
// the fraction at once, in the way of record.ParseClock.
func isStamp(b []byte) bool {
	if len(b) != 28 || b[10] != 'T' || b[19] != '.' {
		return false
	}
	rest := binary.LittleEndian.Uint64(b[20:]) ^ 0x5a30303030303030 // 0000000Z
	if (rest|(rest+0x7f76767676767676))&0x8080808080808080 != 0 {
		return false
	}
	c, ok := record.ParseClock(b)
	return ok && c.Year > 1 && c.Second < 60
}

// appendEntityID appends the id of a process as Elastic's data of Defender has it, so that
// the two can be joined: base64(SHA-1(a zero byte, pid|start|device)).
// start has three digits of a second and Z. Without a time in UTC or without a device,
// ok is false and nothing is appended.
func appendEntityID(dst []byte, pid int64, start, device []byte) (_ []byte, ok bool) {
	if len(device) == 0 || len(device) > 200 {
		return dst, false
	}
	milliseconds := [3]byte{'0', '0', '0'}
	if isStamp(start) {
		milliseconds = [3]byte(start[20:])
	} else {
		d, ok := splitDate(start)
		if !ok || len(d.zone) > 1 {
			return dst, false
		}
		copy(milliseconds[:], d.fraction)
	}
	var space [256]byte
	text := append(space[:0], 0)
	text = strconv.AppendInt(text, pid, 10)
	text = append(text, '|')
	at := len(text)
	text = append(text, start[:19]...)
	text[at+10] = 'T'
	text = append(text, '.', milliseconds[0], milliseconds[1], milliseconds[2], 'Z', '|')
	text = append(text, device...)
	sum := sha1.Sum(text)
	return base64.StdEncoding.AppendEncode(dst, sum[:]), true
}
