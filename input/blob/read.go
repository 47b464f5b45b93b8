package blob

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

const (
	// LineLimit is the longest line, or object, that is handed on whole. What is longer is cut.
	LineLimit = 32 << 20

	turnPieces = 8 // pieces of a blob before another has its turn
)

var (
	errGone  = errors.New("blob is gone")
	errAgain = errors.New("blob changed since it was listed") // what is known of it has been renewed: look again

	bom = []byte("\xef\xbb\xbf")
)

// work reads blobs until the source closes.
func (s *Source) work() {
	for b := s.next(); b != nil; b = s.next() {
		s.endTurn(b, s.visit(b))
	}
}

// endTurn takes b back from its worker.
func (s *Source) endTurn(b *blobState, err error) {
	if s.ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b.heard = time.Now()
	b.busy = false
	switch {
	case errors.Is(err, errGone):
		s.forget(b)
		return
	case errors.Is(err, errGzipBusy):
		b.notBefore = time.Now().Add(200 * time.Millisecond)
	case err != nil:
		s.fails(b, err)
	default:
		s.works(b)
		s.queue.streak, s.queue.pause = 0, time.Time{}
	}
	if s.due(b) {
		s.add(b)
	} else {
		s.settle(b)
	}
}

// fails has b wait, and everything when many blobs in a row have failed: then it is the account, not a blob. It says so once
// a container and kind. s.mu is held.
func (s *Source) fails(b *blobState, err error) {
	kind, q := kindOf(err), &s.queue
	s.counts.retries[kind]++
	wait := max(b.wait.Next(), retryAfter(err))
	b.notBefore = time.Now().Add(wait)
	if q.streak++; q.streak >= max(4, s.cfg.Workers) {
		q.pause = b.notBefore
	}
	c := b.c
	if b.failing == "" {
		c.failing++
	}
	b.failing = kind
	if c.said[kind] {
		return
	}
	c.said[kind] = true
	text := s.account.explain(err, c.listed)
	if kind == throttled || kind == network {
		s.log.Warn("read blob: retrying", "blob", b.lane, "at", b.pos, "error", text)
	} else {
		s.log.Error("read blob: retrying", "blob", b.lane, "at", b.pos, "error", text)
	}
}

// works notes that b can be read. s.mu is held.
func (s *Source) works(b *blobState) {
	b.wait.Reset()
	if b.failing == "" {
		return
	}
	b.failing = ""
	if b.c.failing--; b.c.failing == 0 && !b.gone {
		s.log.Info("read blob: works again", "container", b.c.name, "blob", b.lane)
		clear(b.c.said)
	} else if b.c.failing == 0 {
		clear(b.c.said)
	}
}

// visit reads some pieces of b, which is busy and so the caller's.
func (s *Source) visit(b *blobState) error {
	again := 0
	defer func() { b.hot = false }()
	for turn := 0; turn < turnPieces; turn++ {
		s.mu.Lock()
		due, last := s.due(b), s.finished(b)
		s.mu.Unlock()
		if !due {
			return nil
		}
		var err error
		switch {
		case b.pos > 0 && (b.suspect || b.head.n == 0):
			err = s.identify(b)
		case b.form == gzipped:
			err = s.readGzip(b, last)
		case b.form == object && b.pos == 0:
			err = s.readObject(b, last)
		default:
			err = s.readLines(b, last)
		}
		switch {
		case errors.Is(err, errAgain):
			// It grows faster than it is looked at: what an append blob holds up to a size does not change any more.
			b.hot = b.append
			if again++; again > 3 {
				return err
			}
		case err != nil:
			return err
		default:
			again = 0
		}
	}
	return nil
}

// maxResumes is how often a read that was cut is taken up at once. After that the blob waits for its turn, with a back-off.
const maxResumes = 8

// fill reads p from offset on. A connection that is cut is taken up where it was, as long as something comes, some times.
// n tells how much there is when it returns an error.
func (s *Source) fill(b *blobState, p []byte, offset int64) (n int, err error) {
	for resumes := 0; ; resumes++ {
		var k int
		etag := b.etag
		if b.hot {
			etag = ""
		}
		k, err = s.account.read(s.ctx, b.c.name, b.name, etag, b.created, offset+int64(n), p[n:])
		n += k
		if err == nil || s.ctx.Err() != nil {
			return n, err
		}
		switch kind := kindOf(err); kind {
		case missing:
			return n, errGone
		case changed, outside:
			s.retried(kind)
			if e := s.refresh(b); e != nil {
				return n, e
			}
			return n, fmt.Errorf("%w: %w", errAgain, err)
		case network:
			if k == 0 || resumes == maxResumes {
				return n, err
			}
			s.retried(kind)
		default:
			return n, err
		}
	}
}

// refresh asks what b is now.
func (s *Source) refresh(b *blobState) error {
	it, err := s.account.properties(s.ctx, b.c.name, b.name)
	switch {
	case err != nil && kindOf(err) == missing:
		return errGone
	case err != nil:
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listed(b, it)
	return nil
}

// identify compares the first bytes of b with those it had, or learns them when they are not known.
func (s *Source) identify(b *blobState) error {
	n := b.head.n
	if n == 0 {
		n = headMax
	}
	p := make([]byte, min(int64(n), b.size)) // less than its head had: it is not the same
	if _, err := s.fill(b, p, 0); err != nil {
		return err
	}
	now := headOf(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	b.suspect = false
	switch {
	case b.head.n == 0:
		b.head = now
	case b.head != now:
		s.replaced(b)
	}
	return nil
}

func headOf(p []byte) head {
	p = p[:min(len(p), headMax)]
	sum := sha256.Sum256(p)
	return head{n: len(p), sum: [16]byte(sum[:16])}
}

// readLines reads the next piece of b and hands on the whole lines in it.
//
// It reads from one byte before the position: that must be a newline. If it is not, then the position is inside a line that
// was cut or left out, and the rest of that line is skipped; or the blob is not the one that it was.
func (s *Source) readLines(b *blobState, last bool) error {
	from, back := b.pos, int64(0)
	if from > 0 && from != b.tail {
		back = 1
	}
	p, err := s.buffers.get(s.ctx, s.buffers.plain, int(min(b.size-from, int64(b.ask))+back), 0)
	if err != nil {
		return err
	}
	n, failed := s.fill(b, p.data, from-back)
	if errors.Is(failed, errAgain) || errors.Is(failed, errGone) || int64(n) <= back {
		s.buffers.put(p)
		return failed
	}
	p.data = p.data[:n]
	base := from - back // offset of data[0]
	reached := base + int64(n)
	start := 0
	if from == 0 {
		if len(p.data) >= 2 && p.data[0] == 0x1f && p.data[1] == 0x8b {
			s.frame(b, gzipped, p.data)
			s.buffers.put(p)
			return nil
		}
		if bytes.HasPrefix(p.data, bom) {
			start = len(bom)
		}
		first, _, _ := bytes.Cut(p.data[start:], []byte("\n"))
		if opensObject(first) {
			s.frame(b, object, p.data)
			s.buffers.put(p)
			return nil
		}
		s.frame(b, lines, p.data)
	} else if back == 1 && p.data[0] != '\n' {
		if !b.skip {
			// Not where a line begins. Unless the head says otherwise, a line was cut here.
			s.mu.Lock()
			b.suspect, b.skip = true, true
			s.mu.Unlock()
			s.buffers.put(p)
			return nil
		}
		j := bytes.IndexByte(p.data, '\n')
		if j < 0 {
			s.mu.Lock()
			b.pos, b.end, b.cut = reached, reached, reached
			s.counts.skipped += int64(n) - back
			s.mu.Unlock()
			s.buffers.put(p)
			return failed
		}
		start = j + 1
		s.mu.Lock()
		s.counts.skipped += int64(j)
		s.mu.Unlock()
	} else {
		start = int(back)
	}

	begin := start
	start = s.cutLines(b, p, base, start)
	rest := p.data[start:]
	full := len(p.messages) == p.room
	pos, ask, skip := base+int64(start), s.buffers.piece, false
	if from == 0 && start == begin {
		pos = 0 // with its byte-order mark
	}
	var tail, cut, end int64 = b.tail, b.cut, b.end
	switch {
	case full:
		// Lines of few bytes: ask for no more than their messages have room for.
		ask = max(start+start/8, minPiece)
		end = pos
	case len(rest) == 0:
		end = reached
	case reached < b.size && start > begin, failed != nil:
		end = pos
	case reached < b.size && len(rest) <= LineLimit:
		ask, end = longAsk, pos // one line fills the piece
	case len(rest) > LineLimit:
		s.cutLine(b, p, rest[:LineLimit], base+int64(start), base+int64(start)+LineLimit)
		pos = base + int64(start) + LineLimit
		skip, cut, end = true, pos, pos
	case !last:
		end = reached // the rest of the line is waited for
	case len(bytes.TrimSpace(rest)) == 0:
		pos, end = reached, reached
	default:
		p.messages = append(p.messages, s.message(b, rest, pos, reached))
		pos, end, tail = reached, reached, reached
	}
	s.mu.Lock()
	b.ask, b.skip, b.tail, b.cut, b.end = ask, skip, tail, cut, end
	s.mu.Unlock()
	if err := s.emit(b, p, pos); err != nil {
		return err
	}
	return failed
}

// longAsk is asked for when a line does not fit a piece: enough to see whether it ends within the limit.
const longAsk = LineLimit + 4<<10

// frame notes how b is framed, and its head, from its first bytes.
func (s *Source) frame(b *blobState, f form, first []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.form = f
	if b.head.n == 0 || b.given == 0 {
		b.head = headOf(first)
	}
}

// cutLines appends a message for every whole line of p.data from start on, and returns where the first line begins that is
// not whole, or for which there is no room. base is the offset of p.data.
func (s *Source) cutLines(b *blobState, p *piece, base int64, start int) int {
	data := p.data
	for {
		j := bytes.IndexByte(data[start:], '\n')
		if j < 0 {
			break
		}
		line, at, next := data[start:start+j], base+int64(start), base+int64(start+j+1)
		k := len(p.messages)
		switch {
		case len(line) == 0, len(bytes.TrimSpace(line)) == 0:
			if k > 0 {
				p.messages[k-1].Mark.Next = next // blank lines count as read with the line before
			}
		case k == p.room:
			return start
		case len(line) > LineLimit:
			s.cutLine(b, p, line[:LineLimit], at, next)
		default:
			p.messages = append(p.messages, s.message(b, line, at, next))
		}
		start += j + 1
	}
	return start
}

func (s *Source) message(b *blobState, line []byte, at, next int64) input.Message {
	if k := len(line); k > 0 && line[k-1] == '\r' {
		line = line[:len(line)-1]
	}
	return input.Message{Mark: input.Mark{Lane: b.lane, Term: b.term, Next: next}, Offset: at, Body: line}
}

// cutLine hands on the beginning of a line that is too long.
func (s *Source) cutLine(b *blobState, p *piece, line []byte, at, next int64) {
	m := s.message(b, line, at, next)
	m.Reason = fmt.Sprintf("line is longer than %d MB: cut there", LineLimit>>20)
	p.messages = append(p.messages, m)
	s.mu.Lock()
	s.counts.cut++
	s.mu.Unlock()
}
