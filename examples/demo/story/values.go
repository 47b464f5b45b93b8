package story

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// kind is the sort of text that a «value» of a template becomes.
type kind uint8

const (
	nothing     kind = iota
	eventTime        // «t», «t-5m»: up to 7 digits of a second, without trailing zeros, as .NET writes them
	millis           // «t3»
	seconds          // «ts»
	ticks            // «ticks»: the event time in .NET ticks, 18 digits
	word             // «pick:a|b»: one of some words; and every value of the cast
	hex              // «hex40», «HEX40»: random digits
	guid             // «guid», «GUID»
	mac              // «mac»
	publicIP         // «ip»: of a range for documentation
	ephemeral        // «port»
	process          // «pid»: a multiple of 4, as on Windows
	decimal          // «num» up to 4 digits, «num6» and so on that many digits
	beyondFloat      // «u53»: an integer just above 2^53
	unsigned64       // «u64»
	base64           // «b64»: 20 random bytes
	castMember       // «device.id», «user.upn», «case.alert», «tenant»
)

type value struct {
	kind  kind
	n     int
	shift int64 // 100 ns
	words []string
	cast  func(*Story) string
}

var castMembers = map[string]func(*Story) string{
	"tenant":          func(*Story) string { return Tenant },
	"device.id":       func(s *Story) string { return s.device.id },
	"device.host":     func(s *Story) string { return s.device.host },
	"device.name":     func(s *Story) string { return s.device.name },
	"device.ip":       func(s *Story) string { return s.device.ip },
	"device.publicip": func(s *Story) string { return s.device.publicIP },
	"device.group":    func(s *Story) string { return s.device.group },
	"device.build":    func(s *Story) string { return s.device.build },
	"device.aad":      func(s *Story) string { return s.device.entra },
	"device.hw":       func(s *Story) string { return s.device.hardware },
	"user.name":       func(s *Story) string { return s.user.name },
	"user.display":    func(s *Story) string { return s.user.display },
	"user.upn":        func(s *Story) string { return s.user.upn },
	"user.sid":        func(s *Story) string { return s.user.sid },
	"user.oid":        func(s *Story) string { return s.user.oid },
	"after.id":        func(s *Story) string { return s.after.device.id },
	"after.host":      func(s *Story) string { return s.after.device.host },
	"after.name":      func(s *Story) string { return s.after.device.name },
	"after.old":       func(s *Story) string { return s.after.old },
	"after.alert":     func(s *Story) string { return s.after.alert },
	"other.id":        func(s *Story) string { return s.after.other.id },
	"other.host":      func(s *Story) string { return s.after.other.host },
	"other.name":      func(s *Story) string { return s.after.other.name },
	"pair.alert":      func(s *Story) string { return s.after.pair },
	"case.alert":      func(s *Story) string { return s.attack.alert },
	"case.mail":       func(s *Story) string { return s.attack.mail },
	"case.domain":     func(s *Story) string { return s.attack.domain },
	"case.ip":         func(s *Story) string { return s.attack.ip },
	"case.server":     func(s *Story) string { return s.attack.server },
	"case.pid":        func(s *Story) string { return s.attack.pid },
	"case.ppid":       func(s *Story) string { return s.attack.parent },
	"case.sha1":       func(s *Story) string { return s.attack.sha1 },
	"case.sha256":     func(s *Story) string { return s.attack.sha256 },
	"case.md5":        func(s *Story) string { return s.attack.md5 },
	"case.psha1":      func(s *Story) string { return s.attack.psSHA1 },
	"case.psha256":    func(s *Story) string { return s.attack.psSHA256 },
	"case.pmd5":       func(s *Story) string { return s.attack.psMD5 },
}

var plainValues = map[string]value{
	"t": {kind: eventTime}, "t3": {kind: millis}, "ts": {kind: seconds}, "ticks": {kind: ticks},
	"guid": {kind: guid}, "GUID": {kind: guid, n: 1}, "mac": {kind: mac}, "ip": {kind: publicIP}, "port": {kind: ephemeral},
	"pid": {kind: process}, "num": {kind: decimal}, "u53": {kind: beyondFloat}, "u64": {kind: unsigned64}, "b64": {kind: base64},
}

func parseValue(name string) (value, error) {
	if v, ok := plainValues[name]; ok {
		return v, nil
	}
	if f, ok := castMembers[name]; ok {
		return value{kind: castMember, cast: f}, nil
	}
	if words, ok := strings.CutPrefix(name, "pick:"); ok {
		return value{kind: word, words: strings.Split(words, "|")}, nil
	}
	if d, ok := strings.CutPrefix(name, "t-"); ok {
		shift, err := time.ParseDuration(d)
		return value{kind: eventTime, shift: int64(shift) / 100}, err
	}
	if n, ok := number(name, "hex"); ok {
		return value{kind: hex, n: n}, nil
	}
	if n, ok := number(name, "HEX"); ok {
		return value{kind: hex, n: -n}, nil
	}
	if n, ok := number(name, "num"); ok {
		return value{kind: decimal, n: n}, nil
	}
	return value{}, fmt.Errorf("no such value: «%s»", name)
}

func (s *Story) appendValue(dst []byte, v *value) []byte {
	switch v.kind {
	case eventTime:
		return appendTime(dst, s.now-v.shift, 7, true)
	case millis:
		return appendTime(dst, s.now, 3, false)
	case seconds:
		return appendTime(dst, s.now, 0, false)
	case ticks:
		const unixEpoch = 621_355_968_000_000_000 // in .NET ticks
		return strconv.AppendInt(dst, unixEpoch+s.now, 10)
	case word:
		return append(dst, v.words[s.rnd.IntN(len(v.words))]...)
	case hex:
		if v.n < 0 {
			return appendHex(dst, s.rnd, -v.n, upper)
		}
		return appendHex(dst, s.rnd, v.n, lower)
	case guid:
		if v.n == 1 {
			return appendGUID(dst, s.rnd, upper)
		}
		return appendGUID(dst, s.rnd, lower)
	case mac:
		dst = append(dst, "02"...)
		for range 5 {
			dst = append(dst, ':')
			dst = appendHex(dst, s.rnd, 2, upper)
		}
		return dst
	case publicIP:
		dst = append(dst, "192.0.2."...)
		return strconv.AppendInt(dst, s.between(1, 255), 10)
	case ephemeral:
		return strconv.AppendInt(dst, s.between(49152, 65536), 10)
	case process:
		return strconv.AppendInt(dst, 4*s.between(100, 7000), 10)
	case decimal:
		if v.n == 0 {
			return strconv.AppendInt(dst, s.between(1, 10_000), 10)
		}
		least := int64(1)
		for range v.n - 1 {
			least *= 10
		}
		return strconv.AppendInt(dst, s.between(least, 10*least), 10)
	case beyondFloat:
		return strconv.AppendInt(dst, 1<<53+1+2*s.between(0, 1<<40), 10)
	case unsigned64:
		return strconv.AppendUint(dst, s.rnd.Uint64()|1<<63, 10)
	case base64:
		for range 27 {
			dst = append(dst, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[s.rnd.Uint32()%64])
		}
		return append(dst, '=')
	case castMember:
		return append(dst, v.cast(s)...)
	}
	return dst
}

const (
	lower = "0123456789abcdef"
	upper = "0123456789ABCDEF"
)

func appendHex(dst []byte, rnd *rand.Rand, n int, digits string) []byte {
	for n > 0 {
		r := rnd.Uint64()
		for range min(n, 16) {
			dst = append(dst, digits[r&15])
			r >>= 4
		}
		n -= 16
	}
	return dst
}

func appendGUID(dst []byte, rnd *rand.Rand, digits string) []byte {
	dst = appendHex(dst, rnd, 8, digits)
	for range 3 {
		dst = append(dst, '-')
		dst = appendHex(dst, rnd, 4, digits)
	}
	dst = append(dst, '-')
	return appendHex(dst, rnd, 12, digits)
}

// appendTime appends a time in UTC, with that many digits of a second, or up to that many when trim
// is set. t is in 100 ns since 1970.
func appendTime(dst []byte, t int64, digits int, trim bool) []byte {
	secs, fraction := t/1e7, t%1e7
	days, rest := secs/86400, secs%86400

	// From days to a date: years begin in March, so that the leap day is the last (Howard Hinnant,
	// "chrono-Compatible Low-Level Date Algorithms").
	z := days + 719468
	era := z / 146097
	doe := z - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	day, month, year := doy-(153*mp+2)/5+1, mp+3, yoe+era*400
	if month > 12 {
		month -= 12
		year++
	}
	dst = appendDigits(dst, year, 4)
	dst = appendDigits(append(dst, '-'), month, 2)
	dst = appendDigits(append(dst, '-'), day, 2)
	dst = appendDigits(append(dst, 'T'), rest/3600, 2)
	dst = appendDigits(append(dst, ':'), rest/60%60, 2)
	dst = appendDigits(append(dst, ':'), rest%60, 2)
	if digits > 0 {
		for range 7 - digits {
			fraction /= 10
		}
		dst = appendDigits(append(dst, '.'), fraction, digits)
		for trim && dst[len(dst)-1] == '0' {
			dst = dst[:len(dst)-1]
		}
		if trim && dst[len(dst)-1] == '.' {
			dst = dst[:len(dst)-1]
		}
	}
	return append(dst, 'Z')
}

func appendDigits(dst []byte, v int64, n int) []byte {
	dst = append(dst, "0000000"[:n]...)
	for i := len(dst) - 1; n > 0; i, n = i-1, n-1 {
		dst[i] = byte('0' + v%10)
		v /= 10
	}
	return dst
}
