package transform

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
)

// A tree is a parsed JSON value: nodes in the order of the text, each knowing where it begins and ends in src and which
// node comes after it. The root is node 0, an array's elements and an object's members follow their container, a
// member being two nodes, its key and its value.
//
// It has no pointers, so that the garbage collector does not look at it, and it keeps the raw text of every value,
// which is what an event id is computed from and what is handed on when a value is passed through as text.
type tree struct {
	src   []byte
	nodes []node
}

type node struct {
	start, end uint32 // raw text in src; with the quotes for strings
	next       uint32 // the node after this value and all that is inside it
	kind       kind
	flags      uint8
}

type kind uint8

const (
	kindNull kind = iota
	kindFalse
	kindTrue
	kindNumber
	kindWord // NaN and the infinities, which Json.NET writes and JSON does not know
	kindString
	kindArray
	kindObject
)

const (
	flagEscaped uint8 = 1 << iota // a string with a backslash
	flagWide                      // a string with a byte above 0x7f
	flagSpaced                    // an array or object with insignificant white space
)

// raw is the text of node n as received.
func (tr *tree) raw(n uint32) []byte {
	v := &tr.nodes[n]
	return tr.src[v.start:v.end]
}

// inner is the text of string n without its quotes, escapes as received.
func (tr *tree) inner(n uint32) []byte {
	v := &tr.nodes[n]
	return tr.src[v.start+1 : v.end-1]
}

// empty reports whether array or object n has nothing in it.
func (tr *tree) empty(n uint32) bool { return tr.nodes[n].next == n+1 }

// find returns the value of the first member of object n with this key, or 0. The key must not need escapes.
func (tr *tree) find(n uint32, key string) uint32 {
	if tr.nodes[n].kind != kindObject {
		return 0
	}
	for k, end := n+1, tr.nodes[n].next; k < end; k = tr.nodes[k+1].next {
		if string(tr.inner(k)) == key {
			return k + 1
		}
	}
	return 0
}

// What can be wrong with a text. The values are static, so that finding damage allocates nothing.
var (
	errEnd       = errors.New("text ends inside a value")
	errValue     = errors.New("not a JSON value")
	errNumber    = errors.New("malformed number")
	errEscape    = errors.New("malformed escape in a string")
	errKey       = errors.New("object key expected")
	errColon     = errors.New("colon expected after an object key")
	errComma     = errors.New("comma or end of an array or object expected")
	errTail      = errors.New("text after the end of the value")
	errTooLong   = errors.New("larger than 2 GiB")
	errNotObject = errors.New("not an object")
	errBeside    = errors.New("data beside the records of an envelope")
	errBetween   = errors.New("text between records")
	errOutput    = errors.New("its flat form would be many times its size")
	errTired     = errors.New("too much of the payload is damaged to look for records in the rest")
	errPanic     = errors.New("the transformer panicked on it")
)

// scanner parses JSON strictly: what it accepts, any JSON parser accepts, with the exceptions of raw control characters in
// strings, which say plainly what is meant, and of NaN and the infinities. Depth costs memory, not stack.
type scanner struct {
	open []frame
	at   int // where the last error is
}

type frame struct {
	node   uint32
	spaces uint32 // runs of insignificant white space before the container began
}

// parse appends the nodes of the value that begins at src[at], and returns where its text ends.
func (s *scanner) parse(src []byte, at int, nodes []node) ([]node, int, error) {
	if len(src) > math.MaxInt32 {
		return nodes, at, errTooLong
	}
	base := uint32(len(nodes))
	s.open = s.open[:0]
	spaces := uint32(0)
	i := at
	fail := func(at int, err error) ([]node, int, error) {
		s.at = at
		return nodes, at, err
	}

value:
	for {
		// A value begins at i.
		if i >= len(src) {
			return fail(i, errEnd)
		}
		switch c := src[i]; c {
		case ' ', '\t', '\n', '\r':
			spaces++
			i = skipSpace(src, i+1)
			continue value
		case '{':
			n := uint32(len(nodes))
			nodes = append(nodes, node{start: uint32(i), kind: kindObject})
			before := spaces
			i++
			if i < len(src) && src[i] <= ' ' {
				j := skipSpace(src, i)
				if j != i {
					spaces++
					i = j
				}
			}
			if i < len(src) && src[i] == '}' {
				i++
				closeNode(nodes, n, base, i, spaces != before)
				break
			}
			s.open = append(s.open, frame{n, before})
			goto key
		case '[':
			n := uint32(len(nodes))
			nodes = append(nodes, node{start: uint32(i), kind: kindArray})
			before := spaces
			i++
			if i < len(src) && src[i] <= ' ' {
				j := skipSpace(src, i)
				if j != i {
					spaces++
					i = j
				}
			}
			if i < len(src) && src[i] == ']' {
				i++
				closeNode(nodes, n, base, i, spaces != before)
				break
			}
			s.open = append(s.open, frame{n, before})
			continue value
		case '"':
			end, flags, err := scanString(src, i+1)
			if err != nil {
				return fail(end, err)
			}
			nodes = appendScalar(nodes, base, i, end, kindString, flags)
			i = end
		default:
			k, end, err := scanBare(src, i)
			if err != nil {
				return fail(end, err)
			}
			nodes = appendScalar(nodes, base, i, end, k, 0)
			i = end
		}

		// A value has ended: close what it ends.
		for {
			if len(s.open) == 0 {
				return nodes, i, nil
			}
			if i < len(src) && src[i] <= ' ' {
				j := skipSpace(src, i)
				if j != i {
					spaces++
					i = j
				}
			}
			if i >= len(src) {
				return fail(i, errEnd)
			}
			f := s.open[len(s.open)-1]
			object := nodes[f.node].kind == kindObject
			switch c := src[i]; {
			case c == ',':
				i++
				if object {
					goto key
				}
				continue value
			case c == '}' && object, c == ']' && !object:
				i++
				closeNode(nodes, f.node, base, i, spaces != f.spaces)
				s.open = s.open[:len(s.open)-1]
				continue
			}
			return fail(i, errComma)
		}

	key:
		if i < len(src) && src[i] <= ' ' {
			j := skipSpace(src, i)
			if j != i {
				spaces++
				i = j
			}
		}
		if i >= len(src) {
			return fail(i, errEnd)
		}
		if src[i] != '"' {
			return fail(i, errKey)
		}
		end, flags, err := scanString(src, i+1)
		if err != nil {
			return fail(end, err)
		}
		nodes = appendScalar(nodes, base, i, end, kindString, flags)
		i = end
		if i < len(src) && src[i] <= ' ' {
			j := skipSpace(src, i)
			if j != i {
				spaces++
				i = j
			}
		}
		if i >= len(src) {
			return fail(i, errEnd)
		}
		if src[i] != ':' {
			return fail(i, errColon)
		}
		i++
	}
}

// appendScalar is append, small enough to be inlined.
func appendScalar(nodes []node, base uint32, start, end int, k kind, flags uint8) []node {
	return append(nodes, node{uint32(start), uint32(end), uint32(len(nodes)) - base + 1, k, flags})
}

func closeNode(nodes []node, n, base uint32, end int, spaced bool) {
	v := &nodes[n]
	v.end = uint32(end)
	v.next = uint32(len(nodes)) - base
	if spaced {
		v.flags = flagSpaced
	}
}

func skipSpace(src []byte, i int) int {
	for i < len(src) && (src[i] == ' ' || src[i] == '\n' || src[i] == '\r' || src[i] == '\t') {
		i++
	}
	return i
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// scanString finds the end of the string whose text begins at src[i]; eight bytes at a time, because strings are most
// of what there is.
func scanString(src []byte, i int) (end int, flags uint8, err error) {
	wide := uint64(0)
	for {
		for i+8 <= len(src) {
			w := binary.LittleEndian.Uint64(src[i:])
			q := w ^ ('"' * ones)
			b := w ^ ('\\' * ones)
			// The lowest set bit is exact: a borrow can only reach bytes above a true match.
			m := ((q - ones) &^ q & highs) | ((b - ones) &^ b & highs)
			if m == 0 {
				wide |= w
				i += 8
				continue
			}
			n := bits.TrailingZeros64(m) &^ 7
			wide |= w & (1<<n - 1)
			i += n / 8
			goto found
		}
		for i < len(src) && src[i] != '"' && src[i] != '\\' {
			wide |= uint64(src[i])
			i++
		}
		if i >= len(src) {
			return i, 0, errEnd
		}
	found:
		if src[i] == '"' {
			if wide&highs != 0 {
				flags |= flagWide
			}
			return i + 1, flags, nil
		}
		flags |= flagEscaped
		if i+1 >= len(src) {
			return i, 0, errEnd
		}
		switch src[i+1] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			i += 2
		case 'u':
			for j := i + 2; j < i+6; j++ {
				if j >= len(src) {
					return j, 0, errEnd
				}
				if hexDigit(src[j]) < 0 {
					return i, 0, errEscape
				}
			}
			i += 6
		default:
			return i, 0, errEscape
		}
	}
}

func hexDigit(c byte) rune {
	switch {
	case '0' <= c && c <= '9':
		return rune(c - '0')
	case 'a' <= c && c <= 'f':
		return rune(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return rune(c-'A') + 10
	}
	return -1
}

// scanBare finds the end of a number or a literal.
func scanBare(src []byte, i int) (kind, int, error) {
	rest := src[i:]
	switch c := rest[0]; {
	case c == 'n' && hasPrefix(rest, "null"):
		return kindNull, i + 4, nil
	case c == 't' && hasPrefix(rest, "true"):
		return kindTrue, i + 4, nil
	case c == 'f' && hasPrefix(rest, "false"):
		return kindFalse, i + 5, nil
	case c == '-' || '0' <= c && c <= '9':
		n := 0
		if c == '-' {
			n++
		}
		if word := nonFinite(rest[n:]); word > 0 && (c == '-' || word == 3) {
			return kindWord, i + n + word, nil
		}
		d := n
		for n < len(rest) && '0' <= rest[n] && rest[n] <= '9' {
			n++
		}
		if n == d || rest[d] == '0' && n > d+1 {
			return 0, i, errNumber
		}
		if n < len(rest) && rest[n] == '.' {
			n++
			d = n
			for n < len(rest) && '0' <= rest[n] && rest[n] <= '9' {
				n++
			}
			if n == d {
				return 0, i, errNumber
			}
		}
		if n < len(rest) && (rest[n] == 'e' || rest[n] == 'E') {
			n++
			if n < len(rest) && (rest[n] == '+' || rest[n] == '-') {
				n++
			}
			d = n
			for n < len(rest) && '0' <= rest[n] && rest[n] <= '9' {
				n++
			}
			if n == d {
				return 0, i, errNumber
			}
		}
		return kindNumber, i + n, nil
	}
	if n := nonFinite(rest); n > 0 {
		return kindWord, i + n, nil
	}
	return 0, i, errValue
}

// nonFinite returns the length of a spelling of NaN or infinity at the beginning of b.
func nonFinite(b []byte) int {
	for _, w := range [...]string{"Infinity", "NaN", "inf", "nan"} {
		if hasPrefix(b, w) {
			return len(w)
		}
	}
	return 0
}

func hasPrefix(b []byte, s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }

// skipLoosely finds the end of the object that begins at src[i] by its strings and brackets alone, whatever
// stands between them.
func skipLoosely(src []byte, i int) (end int, ok bool) {
	depth := 0
	for i < len(src) {
		switch src[i] {
		case '"':
			i++
			for i < len(src) && src[i] != '"' {
				if src[i] == '\\' {
					i++
				}
				i++
			}
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth == 0 {
				return i + 1, true
			}
		}
		i++
	}
	return len(src), false
}

// appendCompact appends JSON text without its insignificant white space.
func appendCompact(dst, text []byte) []byte {
	start := 0
	for i := 0; i < len(text); {
		switch text[i] {
		case '"':
			i++
			for i < len(text) && text[i] != '"' {
				if text[i] == '\\' {
					i++
				}
				i++
			}
			i++
		case ' ', '\t', '\n', '\r':
			dst = append(dst, text[start:i]...)
			i = skipSpace(text, i)
			start = i
		default:
			i++
		}
	}
	return append(dst, text[start:]...)
}
