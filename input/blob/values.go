package blob

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// verdict: what became of the search for a value's end.
type verdict byte

const (
	whole   verdict = iota // it ends
	open                   // the text ends before it does
	damaged                // it is no JSON from here on
)

// class: what a byte can be outside of strings.
type class byte

const (
	foreign class = iota
	space
	word // of numbers, true, false and null
	quote
	comma
	colon
	openObject
	openArray
	closeObject
	closeArray
)

var classes = func() (t [256]class) {
	for _, c := range "0123456789+-.eEtrufalsn" {
		t[c] = word
	}
	for c, k := range map[byte]class{' ': space, '\t': space, '\r': space, '\n': space, '"': quote, ',': comma, ':': colon,
		'{': openObject, '[': openArray, '}': closeObject, ']': closeArray} {
		t[c] = k
	}
	return t
}()

// Which classes may come next, as sets.
const (
	aValue     = 1<<word | 1<<quote | 1<<openObject | 1<<openArray
	aKey       = 1 << quote
	afterKey   = 1 << colon
	inObject   = 1<<comma | 1<<closeObject
	inArray    = 1<<comma | 1<<closeArray
	firstKey   = aKey | 1<<closeObject
	firstValue = aValue | 1<<closeArray
)

// valueEnd returns where the object or array that begins at b[i] ends. It follows brackets,
// strings, and the order of the words and commas between them. Package transform checks whether
// words and escapes are JSON. When it is damaged, end is where that shows.
func valueEnd(b []byte, i int) (end int, v verdict) { return endOf(b, i, false) }

// maxAcross is how long a value with line breaks inside its strings may be.
const maxAcross = 256 << 10

// endAcross is valueEnd for an object or array that valueEnd found damaged at b[at]. It lets
// strings continue behind line breaks (elastic/beats#34092). A torn line with others behind it
// stays damaged: where its string ends, in another line's first quote, no name can stand.
func endAcross(b []byte, i, at int) (end int, v verdict) {
	if at >= len(b) || b[at] != '\n' && b[at] != '\r' || b[i] != '{' && b[i] != '[' {
		return at, damaged
	}
	end, v = endOf(b[:min(len(b), i+maxAcross)], i, true)
	if v == open && len(b)-i >= maxAcross {
		v = damaged
	}
	return end, v
}

// endOf is valueEnd, and with across endAcross.
func endOf(b []byte, i int, across bool) (end int, v verdict) {
	// The kinds of the brackets that are open, the innermost in the lowest bit: 1 for an object.
	// Those deeper than 64 are only counted.
	var kinds uint64
	depth, deeper := 0, 0
	may := aValue
	for i < len(b) {
		k := classes[b[i]]
		if k == space {
			i++
			continue
		}
		if may>>k&1 == 0 && deeper == 0 {
			return i, damaged
		}
		switch k {
		case quote:
			i, v = stringEnd(b, i+1)
			for across && v == damaged {
				i, v = stringEnd(b, i+1)
			}
			if v != whole {
				return i, v
			}
			if may == aKey || may == firstKey {
				may = afterKey
				continue
			}
		case word:
			for i++; i < len(b) && classes[b[i]] == word; i++ {
			}
		case colon:
			i, may = i+1, aValue
			continue
		case comma:
			i++
			if may = aValue; kinds&1 == 1 {
				may = aKey
			}
			continue
		case openObject, openArray:
			i++
			if depth == 64 {
				deeper++
				continue
			}
			depth++
			kinds <<= 1
			if may = firstValue; k == openObject {
				kinds |= 1
				may = firstKey
			}
			continue
		case closeObject, closeArray:
			i++
			if deeper > 0 {
				deeper--
				break
			}
			depth--
			kinds >>= 1
			if depth == 0 {
				return i, whole
			}
		default:
			i++
		}
		// After a value.
		if may = inArray; kinds&1 == 1 {
			may = inObject
		}
	}
	return i, open
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

const (
	longString   = 64      // bytes of a string without anything special, after which it counts as long
	stringWindow = 4 << 10 // bytes looked at together then
)

// clean returns how many bytes b has before the first quote, backslash or line break.
func clean(b []byte) int {
	if i := bytes.IndexByte(b, '"'); i >= 0 {
		b = b[:i]
	}
	for _, c := range [...]byte{'\\', '\n', '\r'} {
		if i := bytes.IndexByte(b, c); i >= 0 {
			b = b[:i]
		}
	}
	return len(b)
}

// stringEnd returns where the string ends whose first byte, after its quote, is b[i]. A line break
// inside makes it damaged.
func stringEnd(b []byte, i int) (end int, v verdict) {
	for from := i; ; {
		if i-from >= longString && i < len(b) {
			// It is long: the library looks at 32 bytes at a time. The window bounds the cost of an
			// escape in front of a far quote.
			i += clean(b[i:min(i+stringWindow, len(b))])
			from = i
		}
		for ; i+8 <= len(b) && i-from < longString; i += 8 {
			// The high bit of each byte that is a quote, a backslash or a control character. Bytes
			// after the first such may be marked in error, which does not matter.
			x := binary.LittleEndian.Uint64(b[i:])
			q, e := x^'"'*ones, x^'\\'*ones
			if m := ((q-ones)&^q | (e-ones)&^e | (x-' '*ones)&^x) & highs; m != 0 {
				i += bits.TrailingZeros64(m) / 8
				break
			}
		}
		if i >= len(b) {
			return len(b), open
		}
		switch c := b[i]; c {
		case '"':
			return i + 1, whole
		case '\\':
			i += 2
		case '\n', '\r':
			return i, damaged
		default:
			i++
		}
	}
}

// scalarEnd returns where the string or word ends that begins at b[i].
func scalarEnd(b []byte, i int) (end int, v verdict) {
	if b[i] == '"' {
		return stringEnd(b, i+1)
	}
	for j := i; j < len(b); j++ {
		switch b[j] {
		case ',', ']', '}', '{', '[', ' ', '\t', '\r', '\n':
			return max(j, i+1), whole
		}
	}
	return len(b), open
}

// anyEnd is valueEnd or scalarEnd.
func anyEnd(b []byte, i int) (end int, v verdict) {
	if b[i] == '{' || b[i] == '[' {
		return valueEnd(b, i)
	}
	return scalarEnd(b, i)
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && classes[b[i]] == space {
		i++
	}
	return i
}

// listAt returns the beginning of the records in the value at b[i]. It is behind the bracket of an
// array of objects or arrays, or of an envelope's member "records". It is -1 for any other value.
// beside is the part of an envelope before that member.
func listAt(b []byte, i int) (at int, beside []byte) {
	if b[i] == '[' {
		if j := skipSpace(b, i+1); j < len(b) && (b[j] == '{' || b[j] == '[') {
			return i + 1, nil
		}
		return -1, nil
	}
	first := skipSpace(b, i+1)
	for j := first; j < len(b) && b[j] == '"'; {
		key, v := stringEnd(b, j+1)
		if v != whole {
			break
		}
		val := skipSpace(b, key)
		if val >= len(b) || b[val] != ':' {
			break
		}
		if val = skipSpace(b, val+1); val >= len(b) {
			break
		}
		if isRecords(b[j:key]) && b[val] == '[' {
			return val + 1, bytes.TrimRight(b[first:j], ", \t\r\n")
		}
		end, v := anyEnd(b, val)
		if v != whole {
			break
		}
		if end = skipSpace(b, end); end >= len(b) || b[end] != ',' {
			break
		}
		j = skipSpace(b, end+1)
	}
	return -1, nil
}

func isRecords(key []byte) bool { return len(key) == 9 && bytes.EqualFold(key, []byte(`"records"`)) }

// opening returns how the object at b[i] begins, up to its first colon: records of one list begin
// alike. It is nil without a short first key.
func opening(b []byte, i int) []byte {
	j := skipSpace(b, i+1)
	if b[i] != '{' || j >= len(b) || b[j] != '"' {
		return nil
	}
	end, v := stringEnd(b, j+1)
	if v != whole || end-i > 256 {
		return nil
	}
	if end = skipSpace(b, end); end >= len(b) || b[end] != ':' {
		return nil
	}
	return b[i : end+1]
}

// nextLike returns where after i an object begins that opens as the one at b[i] does, or -1.
func nextLike(b []byte, i int) int {
	how := opening(b, i)
	if how == nil {
		how = []byte("},{")
	}
	j := bytes.Index(b[i+1:], how)
	switch {
	case j < 0:
		return -1
	case how[0] == '}':
		return i + 1 + j + 2
	}
	return i + 1 + j
}
