package blob

import (
	"bytes"
	"fmt"
)

// opensObject tells whether the first line of a blob begins an object that goes on over the lines after it: the form
// that diagnostic logs had before NDJSON, {"records":[...]}, often written over many lines. A first record that is
// damaged must not be taken for it, for then the whole blob would be: so nothing but brackets and that key may stand there.
func opensObject(line []byte) bool {
	line = bytes.Trim(line, " \t\r")
	if len(line) == 0 || line[0] != '{' && line[0] != '[' {
		return false
	}
	if jsonEnd(line) >= 0 {
		return false
	}
	var b [32]byte
	bare := b[:0]
	for _, c := range line {
		if c != ' ' && c != '\t' {
			if bare = append(bare, c); len(bare) == len(b) {
				break
			}
		}
	}
	switch string(bare) {
	case "{", "[", "[{", "{[":
		return true
	}
	return bytes.HasPrefix(bare, []byte(`{"records":`))
}

// jsonEnd returns the length of the object or array that text begins with, or -1 when it is not whole.
// It looks at brackets and strings only: whether that is JSON is for others to say.
func jsonEnd(text []byte) int {
	depth, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{', c == '[':
			depth++
		case c == '}', c == ']':
			if depth--; depth <= 0 {
				return i + 1
			}
		}
	}
	return -1
}

// readObject hands on the object that is the whole blob. Until it is complete it is waited for.
func (s *Source) readObject(b *blobState, last bool) error {
	p, err := s.buffers.get(s.ctx, s.buffers.plain, int(min(b.size, longAsk)), 0)
	if err != nil {
		return err
	}
	n, err := s.fill(b, p.data, 0)
	if err != nil {
		s.buffers.put(p)
		return err
	}
	s.frame(b, object, p.data[:n])
	start := 0
	if bytes.HasPrefix(p.data, bom) {
		start = len(bom)
	}
	pos := int64(0)
	end := jsonEnd(p.data[start:n])
	switch {
	case end >= 0 && start+end <= LineLimit:
		end += start
		next := end + len(p.data[end:n]) - len(bytes.TrimLeft(p.data[end:n], " \t\r\n"))
		p.messages = append(p.messages, s.message(b, p.data[start:end], int64(start), int64(next)))
		pos = int64(next)
	case b.size > LineLimit:
		m := s.message(b, p.data[start:start+LineLimit], int64(start), b.size)
		m.Reason = fmt.Sprintf("object is larger than %d MB: cut there", LineLimit>>20)
		p.messages = append(p.messages, m)
		pos = b.size
	case last:
		p.messages = append(p.messages, s.message(b, p.data[start:n], int64(start), b.size))
		pos = b.size
	}
	s.mu.Lock()
	b.end, b.tail = b.size, pos
	if pos > 0 && pos < b.size {
		b.end = pos
	}
	if b.size > LineLimit && pos == b.size && end < 0 {
		s.counts.cut++
	}
	s.mu.Unlock()
	return s.emit(b, p, pos)
}
