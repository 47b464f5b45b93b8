package blob

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

const (
	turnPieces = 8 // pieces of a blob before another has its turn

	// mostLine is the longest line, or value, that is ever handed on whole.
	mostLine = 32 << 20
)

// LineLimit is the longest line, or value, that is handed on whole with a memory_limit of so many
// bytes. It is in memory up to five times: in its piece, as an event, in its batch, in the outbox
// and at the host. A longer one is cut there.
func LineLimit(memory int64) int { return int(min(memory/8, mostLine)) }

var (
	errGone  = errors.New("blob is gone")
	errAgain = errors.New("blob changed since it was listed") // its known properties have been renewed: look again

	bom = []byte("\xef\xbb\xbf")
)

// work reads blobs until the source closes.
func (s *Source) work() {
	for b := s.next(); b != nil; b = s.next() {
		s.endTurn(b, s.visit(b))
	}
}

// endTurn takes b back from its worker.
func (s *Source) endTurn(b *tail, err error) {
	if s.ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b.heard = time.Now()
	b.busy = false
	s.queue.ended(b, err)
	switch {
	case errors.Is(err, errGone):
		s.forget(b)
		return
	case errors.Is(err, errGzipBusy):
		b.notBefore = time.Now().Add(200 * time.Millisecond)
	case err != nil && isArchived(err):
		b.archived = true // the next listing shows it, too, and has it remembered
	case err != nil:
		s.fails(b, err)
	default:
		s.works(b)
		s.queue.streak, s.queue.pause = 0, time.Time{}
	}
	s.warmed(b)
	if s.due(b) {
		s.add(b)
	} else {
		s.settle(b)
	}
}

// fails has b wait, and everything when many blobs in a row have failed for a reason that is the
// account's. s.mu is held.
func (s *Source) fails(b *tail, err error) {
	kind, q, c := kindOf(err), &s.queue, b.c
	s.troubles.Count(string(kind))
	wait := max(b.wait.Next(), retryAfter(err))
	b.notBefore = time.Now().Add(wait)
	switch kind {
	case throttled, network, noSignIn:
		if q.streak++; q.streak >= max(4, s.cfg.Workers) {
			q.pause = b.notBefore
		}
	}
	if b.failing == kind {
		return
	}
	s.leaves(b)
	b.failing = kind
	c.failing++
	f := c.kinds[kind]
	if f == nil {
		f = &failures{first: b.lane, at: b.pos, err: err, since: time.Now()}
		c.kinds[kind] = f
	}
	f.latest = time.Now()
	if f.blobs++; !f.said {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// leaves takes b out of the failures of its container. s.mu is held.
func (s *Source) leaves(b *tail) (over, said bool) {
	if b.failing == "" {
		return false, false
	}
	c := b.c
	f := c.kinds[b.failing]
	if f.blobs--; f.blobs == 0 {
		delete(c.kinds, b.failing)
	}
	c.failing--
	b.failing = ""
	return c.failing == 0, f.said
}

// works notes that b can be read, or is gone. s.mu is held.
func (s *Source) works(b *tail) {
	b.wait.Reset()
	if over, said := s.leaves(b); over && said && !b.gone {
		s.log.Info("read blobs: works again", "container", b.c.name, "blob", b.lane)
	}
}

// visit reads some pieces of b, which is busy and so the caller's.
func (s *Source) visit(b *tail) error {
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
		default:
			err = s.readPiece(b)
		}
		switch {
		case errors.Is(err, errAgain):
			// It grows between listing and reading. The bytes of an append blob up to a size do not
			// change any more.
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

// maxResumes is how often a read that was cut is taken up at once. After that the blob waits for
// its turn, with a back-off.
const maxResumes = 8

// fill reads p from offset on. A connection that is cut is taken up where it was, as long as
// something comes, some times. n tells how much there is when it returns an error.
func (s *Source) fill(b *tail, p []byte, offset int64) (n int, err error) {
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
			s.troubles.Count(string(kind))
			if e := s.refresh(b); e != nil {
				return n, e
			}
			return n, fmt.Errorf("%w: %w", errAgain, err)
		case network:
			if k == 0 || resumes == maxResumes {
				return n, err
			}
			s.troubles.Count(string(kind))
		default:
			return n, err
		}
	}
}

// refresh asks what b is now.
func (s *Source) refresh(b *tail) error {
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

// identify compares the first bytes of b with those it had, and of a block blob those before the
// end of its last value too. It learns the first when they are not known.
func (s *Source) identify(b *tail) error {
	n := b.head.n
	if n == 0 {
		n = headMax
	}
	p := make([]byte, min(int64(n), b.size)) // less than its head had: it is not the same
	if _, err := s.fill(b, p, 0); err != nil {
		return err
	}
	now, same := headOf(p), true
	if b.suspect && !b.append {
		f := b.foot
		if same = f.n > 0 && f.at <= b.size && b.head.same(now); same {
			p = make([]byte, f.n)
			if _, err := s.fill(b, p, f.at-int64(f.n)); err != nil {
				return err
			}
			same = f == footOf(p, f.at, f.place)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case b.head.n == 0:
		b.head = now
	case !b.head.same(now) || !same:
		s.replaced(b)
	case b.suspect && !b.append:
		// Marks that are on their way belong to the bytes that were behind its last value.
		b.term = input.NewTerm()
		b.move(b.foot.at, b.foot.place)
	}
	b.suspect = false
	return nil
}

func headOf(p []byte) head {
	p = p[:min(len(p), headMax)]
	sum := sha256.Sum256(p)
	return head{n: len(p), sum: [16]byte(sum[:16])}
}

// footOf is the foot of a blob whose bytes before at end with p.
func footOf(p []byte, at int64, where place) foot {
	p = p[max(len(p)-footMax, 0):]
	sum := sha256.Sum256(p)
	return foot{at: at, place: where, n: len(p), sum: [16]byte(sum[:16])}
}

// longAsk is how much text is asked for when a value does not fit a piece: enough to see whether
// it ends within the limit.
func (s *Source) longAsk() int { return s.cfg.LineLimit + 4<<10 }

// readPiece reads the next piece of b and hands on the whole values in it.
//
// At the beginning of a line it reads from the byte before: that must be a newline. If it is not,
// the position is inside a line that was cut or left out: the rest of that line is skipped. Or the
// blob was replaced.
func (s *Source) readPiece(b *tail) error {
	from, unit := b.pos, int64(1)
	if b.form == wide || b.form == wideBig {
		unit = 2
	}
	back := int64(0)
	if from > 0 && (b.place == atLine || b.place == inLine) {
		back = unit
	}
	p, seen, took, failed := s.ask(b, from-back)
	if p == nil {
		return failed
	}
	if errors.Is(failed, errAgain) || errors.Is(failed, errGone) || seen <= back {
		s.buffers.put(p)
		return failed
	}
	if from == 0 && unit == 1 && s.frame(b, p.data) {
		s.buffers.put(p)
		return nil
	}
	k := s.newCutter(b)
	k.p, k.base, k.records = p, from-back, !b.append
	reached := from - back + seen
	more := reached < b.size || failed != nil
	var wider *widths
	if unit == 2 {
		wider = &widths{text: p.data, raw: k.base}
		k.base, k.records = 0, false
		back = min(back, 1, int64(len(p.data)))
	}
	start := int(back)
	switch {
	case back == 0:
	case p.data[0] == '\n':
		k.place = atLine
	case k.place == atLine:
		// No line begins here. If the head is unchanged, a line was cut here.
		s.mu.Lock()
		b.suspect, b.place = true, inLine
		s.mu.Unlock()
		s.buffers.put(p)
		return nil
	}

	next, why := k.cut(start)
	ask, isOpen, end, last := s.buffers.piece, false, reached, false
	switch {
	case why == noRoom:
		// Values of few bytes: ask for no more than their messages have room for.
		ask = min(max(next+next/8, minPiece), s.buffers.piece)
		end = 0
	case more:
		if end = 0; next == start && failed == nil {
			ask = s.longAsk() // one value fills the piece
		}
	case why == atEnd && seen == took:
	case s.stillWaits(b, why == inside):
		isOpen = why == inside // the rest of it is waited for
	default:
		if k.place == lost {
			k.skipped += int64(len(p.data) - next)
		} else {
			k.remains(next, "")
		}
		next, last = len(p.data), true
	}
	if k.place == lost && k.like == nil {
		k.place = inLine
	}
	var f foot
	first := b.head
	if k.records && k.foot > 0 {
		f = footOf(p.data[:k.foot], k.base+int64(k.foot), k.footPlace)
		if k.base == 0 && first.n > k.foot {
			first = headOf(p.data[:k.foot]) // the bytes behind may change
		}
	}
	pos := k.base + int64(next)
	if wider != nil {
		if pos = wider.spread(k, next); last {
			k.skipped += reached - pos // half a character
			pos = reached
		}
	}
	if end == 0 {
		end = pos
	}
	s.mu.Lock()
	b.ask, b.end, b.open, b.head = ask, max(end, pos), isOpen, first
	s.took(b, k, f)
	s.mu.Unlock()
	if err := s.emit(b, p, pos); err != nil {
		return err
	}
	return failed
}

// ask reads a piece of b from offset on. seen counts the bytes of the blob that it has read, and
// took those of them in the piece. In UTF-16 half a character may be left. The piece is nil when
// the source closes.
func (s *Source) ask(b *tail, offset int64) (p *piece, seen, took int64, err error) {
	left := b.size - offset
	if b.form != wide && b.form != wideBig {
		p, err = s.buffers.get(s.ctx, s.buffers.plain, int(min(left, int64(b.ask))), 0)
		if err != nil {
			return nil, 0, 0, err
		}
		n, err := s.fill(b, p.data, offset)
		p.data = p.data[:n]
		return p, int64(n), int64(n), err
	}
	if b.ask <= s.buffers.piece {
		left = min(left, int64(b.ask))
	}
	p, err = s.buffers.get(s.ctx, s.buffers.plain, int(min(left+left/2, int64(s.longAsk())))+wideSpare, 0)
	if err != nil {
		return nil, 0, 0, err
	}
	seen, took, p.data, err = s.fillWide(b, p.data, offset, left)
	return p, seen, took, err
}

// fillWide is fill for UTF-16. It puts the UTF-8 of at most left bytes of b into p, in some reads,
// until p is nearly full.
func (s *Source) fillWide(b *tail, p []byte, offset, left int64) (seen, took int64, text []byte, err error) {
	filled := 0
	for seen < left && err == nil {
		k := int(min(left-took, int64((len(p)-filled)*2/3)&^1)) // see narrow
		if k < wideSpare/2 && int64(k) < left-took {
			break
		}
		raw := p[len(p)-k:]
		var n int
		n, err = s.fill(b, raw, offset+took)
		t, f := narrow(p[filled:], raw[:n], b.form.order())
		seen, took, filled = took+int64(n), took+int64(t), filled+f
	}
	return seen, took, p[:filled], err
}

// newCutter returns a cutter for the text of b from its position on.
func (s *Source) newCutter(b *tail) *cutter {
	return &cutter{lane: b.lane, term: b.term, place: b.place, like: b.like, last: b.lastPlace(), limit: s.cfg.LineLimit}
}

// stillWaits tells whether the rest of a value, or of a line, is waited for.
func (s *Source) stillWaits(b *tail, isOpen bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := b.open
	b.open = isOpen
	waits := !s.finished(b)
	b.open = was
	return waits
}

// took notes the place of a cutter at the end of its piece. s.mu is held.
func (s *Source) took(b *tail, k *cutter, f foot) {
	b.place, b.like, b.turned = k.place, k.like, k.last
	b.turns = append(b.turns, k.turns...)
	if f.n > 0 {
		b.foot = f
	}
	s.counts.cut += k.cuts
	s.counts.skipped += k.skipped
	b.passing += k.skipped
	if b.passing > 0 && k.place != inLine && k.place != lost {
		s.log.Warn("skipped the rest of a line or of a record", "blob", b.lane, "before", k.base, "bytes", b.passing)
		b.passing = 0
	}
	if k.cuts > 0 {
		s.log.Warn("a value is too long: its beginning is handed on, and its rest is skipped", "blob", b.lane, "at", b.pos, "limit_bytes", s.cfg.LineLimit)
	}
}

// lastPlace is that of the newest turn.
func (b *tail) lastPlace() place {
	if b.turned == 0 {
		return atLine
	}
	return b.turned
}

// spread turns the offsets of k's messages and turns, which are those of its text, into those of
// the blob, and returns that of data[next].
func (w *widths) spread(k *cutter, next int) int64 {
	other := *w
	for i := range k.turns {
		k.turns[i].at = other.offset(int(k.turns[i].at))
	}
	for i := range k.p.messages {
		m := &k.p.messages[i]
		m.Offset = w.offset(int(m.Offset))
		m.Mark.Next = w.offset(int(m.Mark.Next))
	}
	return w.offset(next)
}

// frame notes how the text of b is stored, and its head, from its first bytes. It returns true for
// one that is read in another way.
func (s *Source) frame(b *tail, first []byte) (other bool) {
	f := plain
	switch order := wideOrder(first); {
	case len(first) >= 2 && first[0] == 0x1f && first[1] == 0x8b:
		f = gzipped
	case order == binary.LittleEndian:
		f = wide
	case order == binary.BigEndian:
		f = wideBig
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	other = f != b.form && f != plain
	b.form = f
	if b.head.n == 0 || b.given == 0 {
		b.head = headOf(first)
	}
	return other
}
