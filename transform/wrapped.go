package transform

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// Some senders wrap records: the whole payload in gzip or in UTF-16, an envelope as JSON text
// inside a string, its records as text. The inside is read as a payload of its own. Each record has
// the same id as without the wrapping.

const (
	maxWrapped  = 3        // wrappings inside each other; deeper ones are passed on unopened
	maxUnpacked = 16 << 20 // bytes of a payload that was packed
)

// unwrap returns the text of a payload that is packed, and any other payload unchanged. What it
// cannot unpack, it returns as tail, and why. The text then is what came before the damage.
func unwrap(b []byte) (text, tail []byte, err error) {
	for range maxWrapped {
		switch {
		case len(b) > 18 && b[0] == 0x1f && b[1] == 0x8b:
			if b, tail, err = unzip(b); err != nil {
				return b, tail, err
			}
		case len(b) >= 4 && b[0] == 0xff && b[1] == 0xfe:
			return wide(b, binary.LittleEndian), nil, nil
		case len(b) >= 4 && b[0] == 0xfe && b[1] == 0xff:
			return wide(b, binary.BigEndian), nil, nil
		default:
			return b, nil, nil
		}
	}
	return b, nil, nil
}

// unzip unpacks member by member. After an error the text is what can be read before it, and tail
// begins with the member that is damaged. Of a bomb nothing is read.
func unzip(b []byte) (text, tail []byte, err error) {
	packed := bytes.NewReader(b)
	z := new(gzip.Reader)
	var out bytes.Buffer
	for packed.Len() > 0 {
		tail = b[len(b)-packed.Len():]
		if err = z.Reset(packed); err == nil {
			z.Multistream(false)
			_, err = io.Copy(&out, io.LimitReader(z, int64(maxUnpacked+1-out.Len())))
		}
		switch {
		case out.Len() > maxUnpacked:
			return nil, b, record.ErrTooLong
		case err != nil:
			return out.Bytes(), tail, err
		}
	}
	return out.Bytes(), nil, nil
}

// wide is UTF-16 with its mark as UTF-8. Other text stays unchanged.
func wide(b []byte, order binary.ByteOrder) []byte {
	if len(b)%2 != 0 {
		return b
	}
	text := make([]byte, 0, len(b)/2+8)
	for i := 2; i < len(b); i += 2 {
		r := rune(order.Uint16(b[i:]))
		if utf16.IsSurrogate(r) {
			if i+4 > len(b) {
				return b
			}
			if r = utf16.DecodeRune(r, rune(order.Uint16(b[i+2:]))); r == utf8.RuneError {
				return b
			}
			i += 2
		}
		text = utf8.AppendRune(text, r)
	}
	return text
}

// inside reads a JSON string, given without its quotes, whose text is JSON of records. It returns
// false for any other string, and has then emitted nothing.
func (t *Transformer) inside(inner []byte) bool {
	if t.walk.wrapped >= maxWrapped || len(inner) < 2 {
		return false
	}
	text, _ := record.Unescape(make([]byte, 0, len(inner)), inner, false)
	return t.insideText(text)
}

// insideText is inside for the text of the string.
func (t *Transformer) insideText(text []byte) bool {
	if t.walk.wrapped >= maxWrapped {
		return false
	}
	at := record.SkipSpace(text, 0)
	if at == len(text) || text[at] != '{' && text[at] != '[' && text[at] != '"' {
		return false
	}
	end, err := t.row.Scratch(&t.scanner, text, at)
	if err != nil || record.SkipSpace(text, end) != len(text) || text[at] == '[' && !listOfObjects(text, at, maxNesting) {
		return false
	}
	// Places of records inside are those in the text of the string.
	outer := t.walk
	t.walk = walk{wrapped: outer.wrapped + 1}
	ok := true
	if text[at] == '"' {
		ok = t.inside(text[at+1 : end-1])
	} else {
		t.values(text, at, 0, false)
	}
	outer.emitted += t.walk.emitted
	outer.empty += t.walk.empty
	outer.damaged = outer.damaged || t.walk.damaged
	outer.effort += t.walk.effort
	t.walk = outer
	return ok
}

// wrappers are the members that may have an envelope, or its records, as text. raw is of the format
// raw, log of Fluent Bit's own inputs, and ContentData of Azure Logic Apps, in base64.
var wrappers = [...]string{"records", "body", "raw", "log", "ContentData"}

// wrapping reads the record in t.row, b[i:end], if it is no record but has records as text in a
// member. The other members are passed on, except those that the format raw writes beside its text.
func (t *Transformer) wrapping(b []byte, i, end int) bool {
	r := &t.row
	if r.Envelope.Category != 0 {
		return false
	}
	doc := r.Doc
	if t.unreadableAgain(&doc) {
		return true
	}
	for _, name := range wrappers {
		n := doc.Find(0, name)
		if n == 0 || doc.Nodes[n].Kind != record.KindString {
			continue
		}
		own := name == "raw" || name == "log"
		if name == "raw" && doc.Find(0, "table") == 0 {
			continue
		}
		open, text := t.inside, doc.Inner(n)
		if name == "log" || name == "ContentData" {
			// They hold anything; only an envelope shows that it is records.
			if text = envelopeText(text, name == "ContentData"); text == nil {
				continue
			}
			open = t.insideText
		}
		type member struct{ from, to uint32 }
		var beside []member
		for k, last := uint32(1), doc.Nodes[0].Next; k < last; k = doc.Nodes[k+1].Next {
			if k+1 != n && !(own && t.besideRaw(string(doc.Inner(k)))) {
				beside = append(beside, member{doc.Nodes[k].Start, doc.Nodes[k+1].End})
			}
		}
		if name == "raw" && len(beside) > 0 && doc.Find(0, "event_id") == 0 {
			continue // somebody else's raw; event_id may be off
		}
		// The row is gone once the inside is read.
		if !open(text) {
			if _, err := t.tryRead(&t.row, b, i); err != nil {
				return false
			}
			continue
		}
		for _, m := range beside {
			t.unreadable(reasonBeside, errBeside.Error(), int(m.from), b[m.from:m.to])
		}
		return true
	}
	return false
}

// envelopeText returns the text of a JSON string, given without its quotes, out of base64 if it is
// packed so. It returns nil unless the text begins like an envelope.
func envelopeText(inner []byte, packed bool) []byte {
	text, _ := record.Unescape(make([]byte, 0, len(inner)), inner, false)
	if packed {
		var err error
		if text, err = base64.StdEncoding.AppendDecode(nil, text); err != nil {
			return nil
		}
	}
	if at := record.SkipSpace(text, 0); at == len(text) || text[at] != '{' || recordsAt(text, at+1) < 0 {
		return nil
	}
	return text
}

// besideRaw reports whether the format raw, or an output of the host, writes key beside the text of
// a record.
func (t *Transformer) besideRaw(key string) bool {
	switch key {
	case "table", "tenant_id", "event_id", "repaired_text", "alert_url", "date", "@timestamp", "time", "timestamp", "tag":
		return true
	}
	return strings.HasPrefix(key, "DeviceInfo") || strings.HasPrefix(key, t.cfg.DevicePrefix) || device.IsAlertColumn(key)
}

// unreadableAgain passes on the text of an unreadable record that the formats flat, raw and splunk
// have written. It has the same event_id again. Parts of a text cannot: theirs is of the whole.
func (t *Transformer) unreadableAgain(doc *record.Tree) bool {
	table, why, raw := doc.Find(0, "table"), doc.Find(0, "unreadable_reason"), doc.Find(0, "unreadable_raw")
	for _, n := range [...]uint32{table, why, raw} {
		if n == 0 || doc.Nodes[n].Kind != record.KindString {
			return false
		}
	}
	if string(doc.Inner(table)) != Unreadable || doc.Find(0, "unreadable_part") != 0 {
		return false
	}
	text, _ := record.Unescape(nil, doc.Inner(raw), false)
	if doc.Find(0, "unreadable_encoding") != 0 {
		var err error
		if text, err = base64.StdEncoding.AppendDecode(nil, text); err != nil {
			return false
		}
	}
	reason, _ := record.AppendText(nil, doc.Inner(why))
	t.unreadable(reasonSource, string(reason), int(doc.Nodes[0].Start), text)
	return true
}
