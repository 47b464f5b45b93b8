package blob

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

const (
	gzipChunk = 1 << 20 // compressed bytes asked for at once

	// A gzip blob may grow this many times when it is unpacked, and by so much in any case. A
	// larger one is a bomb.
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
	b      *tail
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

// readGzip reads a gzip blob to its end. Positions in it are those of the unpacked text, so a
// second turn has to unpack it from the beginning. It is left only if it must be.
func (s *Source) readGzip(b *tail, last bool) error {
	select {
	case s.gzip <- struct{}{}:
		defer func() { <-s.gzip }()
	default:
		return errGzipBusy
	}
	r := &blobReader{s: s, b: b, buf: make([]byte, min(gzipChunk, s.buffers.piece))}
	limit := b.size*gzipFactor + gzipFree
	packed := bufio.NewReaderSize(r, 4<<10)
	text, err := unpack(packed)
	if err == nil {
		// Text that was handed over already is unpacked again and left out.
		_, err = io.CopyN(io.Discard, text, b.pos)
	}
	p, e := s.buffers.get(s.ctx, s.buffers.gzip, s.buffers.piece, 0)
	if e != nil {
		return e
	}
	k := s.newCutter(b)
	k.base = b.pos
	for n := 0; ; { // p.data[:n] is text from offset k.base on
		for err == nil && len(p.data)-n >= utf8.UTFMax {
			var got int
			got, err = text.Read(p.data[n:])
			n += got
			if k.base+int64(n) > limit && (err == nil || errors.Is(err, io.EOF)) {
				err = errBomb
			}
		}
		size := len(p.data)
		p.data = p.data[:n]
		k.p = p
		next, why := k.cut(0)
		rest := p.data[next:]
		pos := k.base + int64(next)
		if err != nil && why != noRoom {
			read := r.at - int64(len(r.left)+packed.Buffered())
			return s.endGzip(b, k, next, read, r.failed, err, last)
		}
		switch {
		case next > 0:
			size = s.buffers.piece
		case size < s.longAsk():
			size = s.longAsk() // one value fills the piece
		}
		// The rest is copied before the piece is given away.
		more, e := s.buffers.get(s.ctx, s.buffers.gzip, max(size, len(rest)), p.weight)
		if e != nil {
			s.buffers.put(p)
			return e
		}
		n = copy(more.data, rest)
		s.mu.Lock()
		s.took(b, k, foot{})
		s.mu.Unlock()
		k.turns, k.cuts, k.skipped = nil, 0, 0
		if e := s.emit(b, p, pos); e != nil {
			s.buffers.put(more)
			return e
		}
		p, k.base = more, pos
	}
}

// unpack returns the text of a gzip blob, as UTF-8.
func unpack(r io.Reader) (io.Reader, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	text := bufio.NewReaderSize(z, 4<<10)
	first, err := text.Peek(2)
	if order := wideOrder(first); order != nil {
		return &narrowReader{r: text, order: order}, nil
	}
	if len(first) == 0 && err != nil && !errors.Is(err, io.EOF) {
		return text, nil // which returns that error again
	}
	return text, nil
}

// endGzip hands on the last piece of a gzip blob, or what there was before an error. The bytes from
// next on are no whole value. read is how much of the blob was unpacked.
func (s *Source) endGzip(b *tail, k *cutter, next int, read int64, failed, err error, last bool) error {
	p := k.p
	// The rest of a member may come, and the rest of a value in another one.
	grows := errors.Is(err, io.ErrUnexpectedEOF) || b.append && errors.Is(err, io.EOF) && next < len(p.data)
	done := failed == nil && (last || !grows)
	if done {
		reason := ""
		if !errors.Is(err, io.EOF) {
			reason = fmt.Sprintf("gzip blob cannot be read beyond here: %v", err)
			s.log.Error("gzip blob is damaged: its readable beginning was handed on", "blob", b.lane, "at", k.base+int64(len(p.data)), "packed_bytes_left_out", b.size-read, "error", err)
			s.mu.Lock()
			s.counts.skipped += b.size - read
			s.mu.Unlock()
		}
		k.remains(next, reason)
		next = len(p.data)
	}
	s.mu.Lock()
	b.done = done
	if failed == nil {
		b.end = b.size // what may come is waited for
	}
	s.took(b, k, foot{})
	s.mu.Unlock()
	if e := s.emit(b, p, k.base+int64(next)); e != nil {
		return e
	}
	return failed
}
