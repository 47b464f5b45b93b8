package blob

import (
	"encoding/binary"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// wideOrder returns the byte order of text in UTF-16, by its byte-order mark, or nil.
func wideOrder(first []byte) binary.ByteOrder {
	if len(first) < 2 {
		return nil
	}
	switch [2]byte(first) {
	case [2]byte{0xff, 0xfe}:
		return binary.LittleEndian
	case [2]byte{0xfe, 0xff}:
		return binary.BigEndian
	}
	return nil
}

// wideSpare is how much larger than its text a piece of UTF-16 is at least, see fillWide.
const wideSpare = 4 << 10

// narrow writes the UTF-8 of raw, which is UTF-16, to out, and returns how many bytes of raw it
// took and of out it filled. A half of a character at the end of raw is left there. out may lie in
// front of raw in one buffer, with half of raw's length between.
func narrow(out, raw []byte, order binary.ByteOrder) (took, filled int) {
	for took+2 <= len(raw) {
		r := rune(order.Uint16(raw[took:]))
		n := 2
		if utf16.IsSurrogate(r) {
			if took+4 > len(raw) && r < 0xdc00 {
				break
			}
			pair := rune(utf8.RuneError)
			if took+4 <= len(raw) {
				pair = utf16.DecodeRune(r, rune(order.Uint16(raw[took+2:])))
			}
			if r = pair; r != utf8.RuneError {
				n = 4
			}
		}
		if filled+utf8.RuneLen(r) > len(out) {
			break
		}
		filled += utf8.EncodeRune(out[filled:], r)
		took += n
	}
	return took, filled
}

// widths turns offsets of text, in ascending order, into those of the UTF-16 that it came from.
type widths struct {
	text []byte
	at   int   // as far as was counted
	raw  int64 // where that is
}

func (w *widths) offset(at int) int64 {
	for w.at < at {
		r, n := utf8.DecodeRune(w.text[w.at:])
		w.at += n
		if w.raw += 2; r > 0xffff {
			w.raw += 2
		}
	}
	return w.raw
}

// narrowReader is the UTF-8 of a reader of UTF-16.
type narrowReader struct {
	r     io.Reader
	order binary.ByteOrder
	raw   [8 << 10]byte
	n     int // bytes of raw that are there
	err   error
}

func (r *narrowReader) Read(p []byte) (int, error) {
	if len(p) < utf8.UTFMax {
		return 0, io.ErrShortBuffer
	}
	for {
		took, filled := narrow(p, r.raw[:r.n], r.order)
		r.n = copy(r.raw[:], r.raw[took:r.n])
		if filled > 0 {
			return filled, nil
		}
		if r.err != nil {
			return 0, r.err
		}
		var k int
		k, r.err = r.r.Read(r.raw[r.n:])
		r.n += k
	}
}

// order is the byte order of text in UTF-16.
func (f form) order() binary.ByteOrder {
	if f == wideBig {
		return binary.BigEndian
	}
	return binary.LittleEndian
}
