package record

import (
	"encoding/json"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What the scanner accepts is what encoding/json accepts, with two exceptions that are in its
// comment.
func FuzzScan(f *testing.F) {
	for _, s := range []string{`{}`, `[]`, `""`, `0`, `-0`, `01`, `1.`, `.5`, `1e`, `1e+`, `1E-5`, `-`, `tru`, `nul`, `{"a"}`, `{"a":}`, `{"a":1,}`, `[1,]`, `[,1]`, `{,}`, `"\x"`, `"\u12"`, `"\ud83d\ude00"`,
		"\"\x00\"", `NaN`, `-Infinity`, `{"a":{"b":[1,2,{"c":null}]},"d":"e\"f\\"} `, `[[[[]]]]`, ` [ 1 , 2 ] `, `{"a":1 "b":2}`, `"` + strings.Repeat("x", 20) + `\"y"`, "\"\xff\xc3\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Scanner
		at := SkipSpace(b, 0)
		nodes, end, err := s.Parse(b, at, nil)
		ok := err == nil && SkipSpace(b, end) == len(b)
		// Where the two may differ: raw control characters, and words that begin with n or i.
		lenient := strings.ContainsAny(string(b), "nNiI") || strings.IndexFunc(string(b), func(r rune) bool { return r < ' ' }) >= 0
		if valid := json.Valid(b); valid != ok && !(ok && lenient) {
			t.Fatalf("%q: we say %v (%v), encoding/json %v", b, ok, err, valid)
		}
		if !ok {
			return
		}
		// The nodes cover the text, each inside the one it belongs to, and the raw text of each is
		// a value of its own.
		tr := Tree{b, nodes}
		if nodes[0].Next != uint32(len(nodes)) || int(nodes[0].End) != end {
			t.Fatalf("%q: root %+v of %d nodes", b, nodes[0], len(nodes))
		}
		for n := range nodes {
			v := nodes[n]
			if v.Start >= v.End || v.Next <= uint32(n) || v.Next > uint32(len(nodes)) {
				t.Fatalf("%q: node %d %+v", b, n, v)
			}
			if v.Kind < KindArray && v.Next != uint32(n)+1 {
				t.Fatalf("%q: scalar %d has members", b, n)
			}
			compact := appendCompact(nil, tr.Raw(uint32(n)))
			if v.Kind >= KindArray && (v.Flags&FlagSpaced == 0) != (len(compact) == len(tr.Raw(uint32(n)))) {
				t.Fatalf("%q: node %d is spaced: %v, compact %q", b, n, v.Flags&FlagSpaced != 0, compact)
			}
		}
		if json.Valid(b) {
			var want, got any
			if json.Unmarshal(b, &want) == nil && json.Unmarshal(appendCompact(nil, b), &got) != nil {
				t.Fatalf("%q: compact %q is not JSON", b, appendCompact(nil, b))
			}
		}
	})
}

// A string's text is what encoding/json makes of it, wherever that does not replace anything.
func FuzzText(f *testing.F) {
	for _, s := range []string{`"a\n\t\b\f\r\/\\\""`, `"\u00e9\ud83d\ude00"`, `"\ud83d"`, "\"\xff\"", `"\u0000"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var want string
		if len(b) < 2 || b[0] != '"' || json.Unmarshal(b, &want) != nil {
			return
		}
		b = []byte(strings.TrimSpace(string(b)))
		got, repairs := AppendText(nil, b[1:len(b)-1])
		if repairs == 0 && string(got) != want {
			t.Fatalf("%q: %q, want %q", b, got, want)
		}
		if repairs > 0 != strings.Contains(want, "\ufffd") && !strings.Contains(string(b), "\ufffd") && !strings.Contains(strings.ToLower(string(b)), `\ufffd`) {
			t.Fatalf("%q: %d repairs, but encoding/json says %q", b, repairs, want)
		}
	})
}

// A number is the same number afterwards, exactly, or refused.
func FuzzNumber(f *testing.F) {
	for _, s := range []string{"0", "-0", "1.50", "1e400", "1e-400", "123456789012345678.25", "0.1", "5e-324", "2.2250738585072014e-308", "1.7976931348623157e308", "9007199254740993", "9007199254740993.0",
		"1E2", "100000000000000000000e-5", "0.000001", "0.30000000000000004", "-9223372036854775808", "9223372036854775808", "1e99999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, end, err := KindNull, 0, error(nil)
		if len(s) > 0 && len(s) < 400 {
			k, end, err = scanBare([]byte(s), 0)
		}
		if err != nil || k != KindNumber || end != len(s) {
			return
		}
		if i := strings.IndexAny(s, "eE"); i >= 0 && len(s)-i > 5 {
			// big.Rat would take for ever; the answer must be no, or the number nothing.
			if x, ok := ParseFloat([]byte(s)); ok && x != 0 && strings.Trim(s[i+1:], "+-0") != "" && len(strings.TrimLeft(s[i+1:], "+-0")) > 4 {
				t.Fatalf("%s became %v", s, x)
			}
			return
		}
		want, ok := new(big.Rat).SetString(s)
		if !ok {
			t.Fatalf("%s is no number", s)
		}
		if i, ok := ParseInteger([]byte(s)); ok {
			if new(big.Rat).SetInt64(i).Cmp(want) != 0 || strconv.FormatInt(i, 10) != s {
				t.Fatalf("%s became %d", s, i)
			}
		} else if x, ok := ParseFloat([]byte(s)); ok {
			// The shortest text that means x is what any reader of the record sees.
			got, _ := new(big.Rat).SetString(strconv.FormatFloat(x, 'g', -1, 64))
			if math.IsInf(x, 0) || math.IsNaN(x) || got.Cmp(want) != 0 {
				t.Fatalf("%s became %v", s, x)
			}
		}
	})
}

// A time is what package time makes of it.
func FuzzTime(f *testing.F) {
	for _, s := range []string{"2026-03-04T10:18:02Z", "2026-03-04T10:18:02.1234567Z", "2024-02-29T23:59:59+05:30", "1970-01-01T00:00:00Z", "2038-01-18T23:59:59.999999999Z", "2000-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "20/Sep/2026:10:18:02 +0000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		sec, nsec, ok := ParseTime([]byte(s))
		if ok && (sec < 0 || sec >= maxEventSeconds || nsec >= 1e9) {
			t.Fatalf("%q: %d.%d", s, sec, nsec)
		}
		want, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return
		}
		inRange := want.Unix() >= 0 && want.Unix() < maxEventSeconds
		if len(s) > 11 && s[11] >= '0' && s[12] != ':' && inRange != ok || ok && (want.Unix() != sec || want.Nanosecond() != int(nsec)) {
			t.Fatalf("%q: %d.%09d %v, want %v", s, sec, nsec, ok, want)
		}
	})
}

func TestDays(t *testing.T) {
	for d := time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC); d.Year() < 2039; d = d.AddDate(0, 0, 1) {
		if got := days(int64(d.Year()), int64(d.Month()), int64(d.Day())); got != d.Unix()/86400 {
			t.Fatalf("%v: %d, want %d", d, got, d.Unix()/86400)
		}
	}
}

// A clock is read, or refused, as package time does, for any byte at any of its places.
func TestClock(t *testing.T) {
	for _, good := range []string{"2026-03-04T10:18:02", "2024-02-29 23:59:59", "9999-12-31T00:00:00", "0001-01-01T09:09:09"} {
		for at := range good {
			for c := range 256 {
				b := []byte(good)
				b[at] = byte(c)
				text := string(b)
				if b[10] == ' ' || b[10] == 't' {
					text = text[:10] + "T" + text[11:]
				}
				want, err := time.Parse("2006-01-02T15:04:05", text)
				got, ok := ParseClock(b)
				if ok != (err == nil) && !(ok && text[17:] == "60") {
					t.Fatalf("%q: %v, package time: %v", b, ok, err)
				}
				if ok && err == nil && got != (Clock{int64(want.Year()), int64(want.Month()), int64(want.Day()), int64(want.Hour()), int64(want.Minute()), int64(want.Second())}) {
					t.Fatalf("%q: %v, want %v", b, got, want)
				}
			}
		}
	}
	if _, ok := ParseClock([]byte("2026-03-04T10:18:0")); ok {
		t.Error("a text that ends too early is a time")
	}
}
