package format

import "bytes"

// nextElement returns the first element of a JSON list that came as text, or of a bare list without
// brackets. DnsConnectionInspected has such lists of answers and TTLs,
// ["93.184.216.34","example.com"] and [60.0,60.0]. Quotes are taken off; escapes stay. ok is false
// at the end. The first call is with the whole text, later ones with rest.
func nextElement(text []byte) (element, rest []byte, ok bool) {
	for len(text) > 0 && (text[0] <= ' ' || text[0] == '[' || text[0] == ',' || text[0] == ']') {
		text = text[1:]
	}
	if len(text) == 0 {
		return nil, nil, false
	}
	if text[0] == '"' || text[0] == '\'' {
		end := bytes.IndexByte(text[1:], text[0])
		if end < 0 {
			return text[1:], nil, true
		}
		return text[1 : end+1], text[end+2:], true
	}
	end := bytes.IndexAny(text, ",]")
	if end < 0 {
		end = len(text)
	}
	return trim(text[:end]), text[end:], true
}

// wholeSeconds reads a TTL: an integer, or a number with a fraction of zeros, in seconds.
func wholeSeconds(b []byte) (seconds int64, ok bool) {
	whole, fraction, _ := bytes.Cut(b, []byte{'.'})
	if len(whole) == 0 || len(whole) > 10 || len(bytes.Trim(fraction, "0")) > 0 {
		return 0, false
	}
	for _, c := range whole {
		if !isDigit(c) {
			return 0, false
		}
		seconds = seconds*10 + int64(c-'0')
	}
	return seconds, true
}
