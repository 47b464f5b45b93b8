package record

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
)

// A Tree is a parsed JSON value: nodes in the order of the text. The root is node 0. The elements
// of an array and the members of an object follow their container. A member is two nodes, its key
// and its value.
//
// A Tree has no pointers, so the garbage collector does not look at it. It keeps the raw text of
// every value: event ids are computed from it, and values that are passed through as text are that
// text.
type Tree struct {
	Src   []byte
	Nodes []Node
}

// Node is a value, or the key of a member.
type Node struct {
	Start, End uint32 // raw text in Src; with the quotes for strings
	Next       uint32 // the node after this value and all that is inside it
	Kind       Kind
	Flags      uint8
}

// Kind is the kind of a value.
type Kind uint8

// The kinds. Those up to KindString have nothing inside them.
const (
	KindNull Kind = iota
	KindFalse
	KindTrue
	KindNumber
	KindWord // NaN and the infinities, which Json.NET writes and JSON does not know
	KindString
	KindArray
	KindObject
)

// Properties of the text of a node.
const (
	FlagEscaped uint8 = 1 << iota // a string with a backslash
	FlagWide                      // a string with a byte above 0x7f
	FlagSpaced                    // an array or object with insignificant white space
)

// Raw is the text of node n as received.
func (tr *Tree) Raw(n uint32) []byte {
	v := &tr.Nodes[n]
	return tr.Src[v.Start:v.End]
}

// Inner is the text of string n without its quotes, escapes as received.
func (tr *Tree) Inner(n uint32) []byte {
	v := &tr.Nodes[n]
	return tr.Src[v.Start+1 : v.End-1]
}

// Empty reports whether array or object n has nothing in it.
func (tr *Tree) Empty(n uint32) bool { return tr.Nodes[n].Next == n+1 }

// Find returns the value of the first member of object n with this key, or 0. The key must not need
// escapes.
func (tr *Tree) Find(n uint32, key string) uint32 {
	if tr.Nodes[n].Kind != KindObject {
		return 0
	}
	for k, end := n+1, tr.Nodes[n].Next; k < end; k = tr.Nodes[k+1].Next {
		if string(tr.Inner(k)) == key {
			return k + 1
		}
	}
	return 0
}

// Errors of a text. The values are static, so that finding damage allocates nothing.
var (
	ErrEnd       = errors.New("text ends inside a value")
	ErrValue     = errors.New("not a JSON value")
	ErrNumber    = errors.New("malformed number")
	ErrEscape    = errors.New("malformed escape in a string")
	ErrKey       = errors.New("object key expected")
	ErrColon     = errors.New("colon expected after an object key")
	ErrComma     = errors.New("comma or end of an array or object expected")
	ErrTooLong   = errors.New("larger than 2 GiB")
	ErrNodes     = errors.New("more values than memory_limit has room for")
	ErrNotObject = errors.New("not an object")
)

// Scanner parses JSON strictly. It accepts only two things that other parsers refuse: raw control
// characters in strings, whose meaning is plain, and NaN and the infinities. Depth costs memory,
// not stack.
type Scanner struct {
	// MaxNodes bounds the nodes of a record, with those of the strings that are opened; 0: no
	// bound.
	MaxNodes int

	open []frame
	at   int // where the last error is
}

type frame struct {
	node   uint32
	spaces uint32 // runs of insignificant white space before the container began
}

// At is the byte of the text at which the last error was found.
func (s *Scanner) At() int { return s.at }

// Release lets go of the memory that a giant text needed.
func (s *Scanner) Release() {
	if cap(s.open) > KeepBytes/8 {
		s.open = nil
	}
}

// Held is about how many bytes the scanner keeps.
func (s *Scanner) Held() int { return 8 * cap(s.open) }

// Parse appends the nodes of the value that begins at src[at] and returns where its text ends. src
// must outlive the nodes.
func (s *Scanner) Parse(src []byte, at int, nodes []Node) ([]Node, int, error) {
	if len(src) > math.MaxInt32 {
		return nodes, at, ErrTooLong
	}
	base := uint32(len(nodes))
	s.open = s.open[:0]
	spaces := uint32(0)
	i := at
	most := s.MaxNodes
	if most == 0 {
		most = math.MaxInt
	}
	fail := func(at int, err error) ([]Node, int, error) {
		s.at = at
		return nodes, at, err
	}

value:
	for {
		// A value begins at i.
		if i >= len(src) {
			return fail(i, ErrEnd)
		}
		switch c := src[i]; c {
		case ' ', '\t', '\n', '\r':
			spaces++
			i = SkipSpace(src, i+1)
			continue value
		case '{':
			if len(nodes) > most {
				return fail(i, ErrNodes)
			}
			n := uint32(len(nodes))
			nodes = append(nodes, Node{Start: uint32(i), Kind: KindObject})
			before := spaces
			i++
			if i < len(src) && src[i] <= ' ' {
				j := SkipSpace(src, i)
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
			if len(nodes) > most {
				return fail(i, ErrNodes)
			}
			n := uint32(len(nodes))
			nodes = append(nodes, Node{Start: uint32(i), Kind: KindArray})
			before := spaces
			i++
			if i < len(src) && src[i] <= ' ' {
				j := SkipSpace(src, i)
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
			nodes = appendScalar(nodes, base, i, end, KindString, flags)
			i = end
		default:
			k, end, err := scanBare(src, i)
			if err != nil {
				return fail(end, err)
			}
			nodes = appendScalar(nodes, base, i, end, k, 0)
			i = end
		}

		// A value has ended: close the containers that end with it.
		for {
			if len(s.open) == 0 {
				return nodes, i, nil
			}
			if i < len(src) && src[i] <= ' ' {
				j := SkipSpace(src, i)
				if j != i {
					spaces++
					i = j
				}
			}
			if i >= len(src) {
				return fail(i, ErrEnd)
			}
			f := s.open[len(s.open)-1]
			object := nodes[f.node].Kind == KindObject
			switch c := src[i]; {
			case c == ',':
				if len(nodes) > most {
					return fail(i, ErrNodes)
				}
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
			return fail(i, ErrComma)
		}

	key:
		if i < len(src) && src[i] <= ' ' {
			j := SkipSpace(src, i)
			if j != i {
				spaces++
				i = j
			}
		}
		if i >= len(src) {
			return fail(i, ErrEnd)
		}
		if src[i] != '"' {
			return fail(i, ErrKey)
		}
		end, flags, err := scanString(src, i+1)
		if err != nil {
			return fail(end, err)
		}
		nodes = appendScalar(nodes, base, i, end, KindString, flags)
		i = end
		if i < len(src) && src[i] <= ' ' {
			j := SkipSpace(src, i)
			if j != i {
				spaces++
				i = j
			}
		}
		if i >= len(src) {
			return fail(i, ErrEnd)
		}
		if src[i] != ':' {
			return fail(i, ErrColon)
		}
		i++
	}
}

// appendScalar is append, small enough to be inlined.
func appendScalar(nodes []Node, base uint32, start, end int, k Kind, flags uint8) []Node {
	return append(nodes, Node{uint32(start), uint32(end), uint32(len(nodes)) - base + 1, k, flags})
}

func closeNode(nodes []Node, n, base uint32, end int, spaced bool) {
	v := &nodes[n]
	v.End = uint32(end)
	v.Next = uint32(len(nodes)) - base
	if spaced {
		v.Flags = FlagSpaced
	}
}

// SkipSpace returns where the white space that begins at src[i] ends.
func SkipSpace(src []byte, i int) int {
	for i < len(src) && (src[i] == ' ' || src[i] == '\n' || src[i] == '\r' || src[i] == '\t') {
		i++
	}
	return i
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// scanString finds the end of the string whose text begins at src[i]. It looks at eight bytes at a
// time: most of a record is strings.
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
			return i, 0, ErrEnd
		}
	found:
		if src[i] == '"' {
			if wide&highs != 0 {
				flags |= FlagWide
			}
			return i + 1, flags, nil
		}
		flags |= FlagEscaped
		if i+1 >= len(src) {
			return i, 0, ErrEnd
		}
		switch src[i+1] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			i += 2
		case 'u':
			for j := i + 2; j < i+6; j++ {
				if j >= len(src) {
					return j, 0, ErrEnd
				}
				if HexDigit(src[j]) < 0 {
					return i, 0, ErrEscape
				}
			}
			i += 6
		default:
			return i, 0, ErrEscape
		}
	}
}

// HexDigit is the value of a hexadecimal digit, or -1.
func HexDigit(c byte) rune {
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
func scanBare(src []byte, i int) (Kind, int, error) {
	rest := src[i:]
	switch c := rest[0]; {
	case c == 'n' && HasPrefix(rest, "null"):
		return KindNull, i + 4, nil
	case c == 't' && HasPrefix(rest, "true"):
		return KindTrue, i + 4, nil
	case c == 'f' && HasPrefix(rest, "false"):
		return KindFalse, i + 5, nil
	case c == '-' || '0' <= c && c <= '9':
		n := 0
		if c == '-' {
			n++
		}
		if word := nonFinite(rest[n:]); word > 0 && (c == '-' || word == 3) {
			return KindWord, i + n + word, nil
		}
		d := n
		for n < len(rest) && '0' <= rest[n] && rest[n] <= '9' {
			n++
		}
		if n == d || rest[d] == '0' && n > d+1 {
			return 0, i, ErrNumber
		}
		if n < len(rest) && rest[n] == '.' {
			n++
			d = n
			for n < len(rest) && '0' <= rest[n] && rest[n] <= '9' {
				n++
			}
			if n == d {
				return 0, i, ErrNumber
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
				return 0, i, ErrNumber
			}
		}
		return KindNumber, i + n, nil
	}
	if n := nonFinite(rest); n > 0 {
		return KindWord, i + n, nil
	}
	return 0, i, ErrValue
}

// nonFinite returns the length of a spelling of NaN or infinity at the beginning of b.
func nonFinite(b []byte) int {
	for _, w := range [...]string{"Infinity", "NaN", "inf", "nan"} {
		if HasPrefix(b, w) {
			return len(w)
		}
	}
	return 0
}

// HasPrefix reports whether b begins with s.
func HasPrefix(b []byte, s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }

// SkipLoosely finds the end of the object that begins at src[i] by its strings and brackets alone.
func SkipLoosely(src []byte, i int) (end int, ok bool) {
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
			i = SkipSpace(text, i)
			start = i
		default:
			i++
		}
	}
	return append(dst, text[start:]...)
}
