package record

import (
	"unicode/utf8"
	"unsafe"
)

// AppendText appends the text of a JSON string that scanString has accepted, escapes resolved. Text
// cannot hold a byte that is not UTF-8, nor half a surrogate pair. They are written as escapes,
// \xe9 and \ud83d, and counted. Nothing becomes U+FFFD, which would make different values equal.
func AppendText(dst, inner []byte) (_ []byte, repairs int) { return Unescape(dst, inner, true) }

// Unescape is AppendText with a choice. JSON in a string is opened with repair off: its own strings
// are repaired once, when they are written.
func Unescape(dst, inner []byte, repair bool) (_ []byte, repairs int) {
	for i := 0; i < len(inner); {
		c := inner[i]
		switch {
		case c == '\\':
			switch inner[i+1] {
			case 'b':
				dst = append(dst, '\b')
			case 'f':
				dst = append(dst, '\f')
			case 'n':
				dst = append(dst, '\n')
			case 'r':
				dst = append(dst, '\r')
			case 't':
				dst = append(dst, '\t')
			case 'u':
				r := hex4(inner[i+2:])
				if r&0xf800 != 0xd800 {
					dst = utf8.AppendRune(dst, r)
					i += 6
					continue
				}
				if r < 0xdc00 && i+12 <= len(inner) && inner[i+6] == '\\' && inner[i+7] == 'u' {
					if low := hex4(inner[i+8:]); low&0xfc00 == 0xdc00 {
						dst = utf8.AppendRune(dst, (r-0xd800)<<10|(low-0xdc00)+0x10000)
						i += 12
						continue
					}
				}
				dst = append(dst, inner[i:i+6]...)
				repairs++
				i += 6
				continue
			default: // quote, backslash, slash
				dst = append(dst, inner[i+1])
			}
			i += 2
		case c < utf8.RuneSelf:
			n := i + 1
			for n < len(inner) && inner[n] != '\\' && inner[n] < utf8.RuneSelf {
				n++
			}
			dst = append(dst, inner[i:n]...)
			i = n
		default:
			r, n := utf8.DecodeRune(inner[i:])
			if r == utf8.RuneError && n == 1 && repair {
				dst = appendByteEscape(dst, c)
				repairs++
			} else {
				dst = append(dst, inner[i:i+n]...)
			}
			i += n
		}
	}
	return dst, repairs
}

// AppendJSONText appends JSON text so that it stays JSON. A byte that is not UTF-8 becomes \\xe9,
// which a JSON parser reads as AppendText writes it.
func AppendJSONText(dst, b []byte) (_ []byte, repairs int) {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			dst = appendByteEscape(append(dst, '\\'), b[i])
			repairs++
		} else {
			dst = append(dst, b[i:i+n]...)
		}
		i += n
	}
	return dst, repairs
}

func appendByteEscape(dst []byte, c byte) []byte {
	const digits = "0123456789abcdef"
	return append(dst, '\\', 'x', digits[c>>4], digits[c&15])
}

func hex4(b []byte) rune {
	return HexDigit(b[0])<<12 | HexDigit(b[1])<<8 | HexDigit(b[2])<<4 | HexDigit(b[3])
}

// View is b as a string, without a copy. It changes when b does.
func View(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
