package format

import (
	"bytes"
	"unsafe"
)

// view looks at bytes as a string without a copy. The string must not outlive a change of the
// bytes.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// equalFold reports whether b is text, ASCII case aside. text must be in lower case.
func equalFold(b []byte, text string) bool { return len(b) == len(text) && hasPrefixFold(b, text) }

// sameFold reports whether a and b are the same text, ASCII case aside.
func sameFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] && lowerByte(a[i]) != lowerByte(b[i]) {
			return false
		}
	}
	return true
}

// hasPrefixFold reports whether b begins with prefix, ASCII case aside. prefix must be in lower
// case.
func hasPrefixFold(b []byte, prefix string) bool {
	if len(b) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if lowerByte(b[i]) != prefix[i] {
			return false
		}
	}
	return true
}

// hasSuffixFold reports whether b ends in suffix, ASCII case aside. suffix must be in lower case.
func hasSuffixFold(b []byte, suffix string) bool {
	return len(b) >= len(suffix) && hasPrefixFold(b[len(b)-len(suffix):], suffix)
}

// containsFold reports whether text is somewhere in b, ASCII case aside. text must be in lower case
// and not empty.
func containsFold(b []byte, text string) bool {
	for i := 0; i+len(text) <= len(b); i++ {
		if hasPrefixFold(b[i:], text) {
			return true
		}
	}
	return false
}

// appendLower appends b with its ASCII letters in lower case. Other letters stay: DNS and Windows
// agree on ASCII only.
func appendLower(dst, b []byte) []byte {
	from := len(dst)
	dst = append(dst, b...)
	for i, c := range dst[from:] {
		dst[from+i] = lowerByte(c)
	}
	return dst
}

// isLower reports whether appendLower would change nothing.
func isLower(b []byte) bool {
	for _, c := range b {
		if c-'A' <= 'Z'-'A' {
			return false
		}
	}
	return true
}

// appendUpper appends b with its ASCII letters in upper case.
func appendUpper(dst, b []byte) []byte {
	for _, c := range b {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// appendAction appends an ActionType as a value of event.action: lower case, blanks as dashes.
func appendAction(dst, b []byte) []byte {
	from := len(dst)
	dst = appendLower(dst, b)
	for i, c := range dst[from:] {
		if c == ' ' {
			dst[from+i] = '-'
		}
	}
	return dst
}

// trim returns b without white space around it.
func trim(b []byte) []byte { return bytes.TrimSpace(b) }

// bytesOf looks at a constant as bytes, which must not be changed.
func bytesOf(text string) []byte { return unsafe.Slice(unsafe.StringData(text), len(text)) }
