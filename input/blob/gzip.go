package blob

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

const (
	gzipChunk = 1 << 20 // compressed bytes asked for at once

	// A gzip blob may grow this many times when it is unpacked, and by so much in any case: what goes beyond is a bomb.
	gzipFactor = 250
	gzipFree   = 64 << 20
)

var (
	errGzipBusy = errors.New("another gzip blob is being read")
	errBomb     = fmt.Errorf("unpacks to more than %d times its size", gzipFactor)
)

// blobReader reads a blob from its beginning to the size it had when it was listed.
type blobReader struct {
	s      *Source
	b      *blobState
	at     int64
	buf    []byte
	left   []byte
	failed error // of the service; any other error that a decompressor returns is about the data
}

func (r *blobReader) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		if r.failed != nil {
			return 0, r.failed
		}
		n := min(r.b.size-r.at, int64(len(r.buf)))
		if n <= 0 {
			return 0, io.EOF
		}
		k, err := r.s.fill(r.b, r.buf[:n], r.at)
		r.left, r.at, r.failed = r.buf[:k], r.at+int64(k), err
		if k == 0 {
			return 0, err
		}
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

// readGzip reads a gzip blob to its end. Positions in it are those of the unpacked text, so taking it up again means to unpack
// it from the beginning; it is not left before it must be.
func (s *Source) readGzip(b *blobState, last bool) error {
	select {
	case s.gzip <- struct{}{}:
		defer func() { <-s.gzip }()
	default:
		return errGzipBusy
	}
	r := &blobReader{s: s, b: b, buf: make([]byte, min(gzipChunk, s.buffers.piece))}
	limit := b.size*gzipFactor + gzipFree
	z, err := gzip.NewReader(r)
	if err == nil {
		// What was handed over already is unpacked again and left out.
		_, err = io.CopyN(io.Discard, z, b.pos)
	}
	p, e := s.buffers.get(s.ctx, s.buffers.gzip, s.buffers.piece, 0)
	if e != nil {
		return e
	}
	at, n, skip := b.pos, 0, b.skip // data[:n] is text from offset at on; skip: it begins inside a line that is left out
	for {
		for err == nil && n < len(p.data) {
			var k int
			k, err = z.Read(p.data[n:])
			n += k
			if at+int64(n) > limit && (err == nil || errors.Is(err, io.EOF)) {
				err = errBomb
			}
		}
		size := len(p.data)
		p.data = p.data[:n]
		start := 0
		if skip {
			start = bytes.IndexByte(p.data, '\n') + 1
			if skip = start == 0; skip {
				start = n
			}
		} else if at == 0 && bytes.HasPrefix(p.data, bom) {
			start = len(bom)
		}
		begin := start
		start = s.cutLines(b, p, at, start)
		rest := p.data[start:]
		pos := at + int64(start)

		if err != nil && len(p.messages) < p.room {
			return s.endGzip(b, p, rest, pos, at+int64(n), r.failed, err, last)
		}
		switch {
		case start > begin || skip || len(p.messages) > 0:
			size = s.buffers.piece
		case len(rest) > LineLimit:
			s.cutLine(b, p, rest[:LineLimit], pos, pos+LineLimit)
			pos, skip, size = pos+LineLimit, true, s.buffers.piece
			rest = rest[LineLimit:]
		case size < longAsk:
			size = longAsk // one line fills the piece
		}
		// The rest is copied before the piece is given away.
		next, e := s.buffers.get(s.ctx, s.buffers.gzip, max(size, len(rest)), p.weight)
		if e != nil {
			s.buffers.put(p)
			return e
		}
		n = copy(next.data, rest)
		s.mu.Lock()
		b.skip = skip
		if skip {
			b.cut = pos
		}
		s.mu.Unlock()
		if e := s.emit(b, p, pos); e != nil {
			s.buffers.put(next)
			return e
		}
		p, at = next, pos
	}
}

// endGzip hands on the last piece of a gzip blob, or what there was before an error. rest is what follows its last newline, end
// the offset behind that.
func (s *Source) endGzip(b *blobState, p *piece, rest []byte, pos, end int64, failed, err error, last bool) error {
	truncated := errors.Is(err, io.ErrUnexpectedEOF)
	done := failed == nil && (last || !truncated)
	if done {
		reason := ""
		if !errors.Is(err, io.EOF) {
			reason = fmt.Sprintf("gzip blob cannot be read beyond here: %v", err)
			s.log.Error("gzip blob is damaged: what could be unpacked was handed on", "blob", b.lane, "at", end, "error", err)
		}
		if len(bytes.TrimSpace(rest)) > 0 || reason != "" {
			m := s.message(b, rest, pos, end)
			m.Reason = reason
			p.messages = append(p.messages, m)
		}
		pos = end
	}
	s.mu.Lock()
	b.done = done
	if failed == nil {
		b.end = b.size // a truncated one is waited for
	}
	s.mu.Unlock()
	if e := s.emit(b, p, pos); e != nil {
		return e
	}
	return failed
}
