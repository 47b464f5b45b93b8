package blob

import (
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// form: how the text of a blob is stored.
type form byte

const (
	unknown form = iota
	plain        // unchanged
	wide         // UTF-16, little endian
	wideBig      // UTF-16, big endian
	gzipped      // compressed as a whole
)

// place: the kind of text that may come at an offset of a blob, and so the way to continue there.
type place byte

const (
	atLine    place = 'l' // a value, at the beginning of a line
	atValue   place = 'v' // a value, after another one on the same line
	inLine    place = 'i' // perhaps the rest of a line that is not wanted
	inList    place = 'a' // inside an array: a record of it, or its end
	inRecords place = 'r' // inside the list of an envelope
	inRest    place = 'e' // inside an envelope, behind its list
	lost      place = 'x' // inside a record of a list that was too long: the next one is looked for
)

// turn: the place of all offsets from at on, up to the next turn.
type turn struct {
	at    int64
	place place
}

// tail is an active blob: one that may still grow, or has something to read, or whose last values
// are not safe yet. The package comment draws its offsets.
type tail struct {
	c     *container
	shard *shard
	name  string
	lane  string
	hour  time.Time // of its path; zero when that names none

	term     uint64
	heard    time.Time // when it was last read or asked about by itself: lists asked for before that are stale
	etag     string
	created  int64
	modified int64
	size     int64
	append   bool
	archived bool
	seen     time.Time // when it was last listed, by our clock

	form    form
	head    head
	foot    foot
	suspect bool // it may have been replaced: head and foot are compared before anything is read

	safe, given, pos, end int64

	place   place  // at pos
	turns   []turn // from safe on, in order: what Commit stores; s.mu, also while it is busy
	turned  place  // of the newest turn
	like    []byte // how the record began after which we are lost
	passing int64  // bytes of a line or record that are being skipped
	open    bool   // between pos and end lies a value whose end has not come
	done    bool   // of gzip: nothing is left
	left    bool   // the state file knows that there is something unread
	ask     int    // how much to ask for at once
	hot     bool   // it is read without If-Match for the rest of the turn

	queued, busy, gone bool
	retrying           bool // it is busy, after it had failed
	failing            trouble
	wait               input.Backoff
	notBefore          time.Time
	sweep              *sweepPage // the page that found it, which waits until it is safe
}

// at returns the place of an offset that a message's mark may have. s.mu is held.
func (b *tail) at(offset int64) place {
	at := atLine
	for _, t := range b.turns {
		if t.at > offset {
			break
		}
		at = t.place
	}
	return at
}

// prune drops the turns before safe. s.mu is held.
func (b *tail) prune() {
	for len(b.turns) > 1 && b.turns[1].at <= b.safe {
		b.turns = b.turns[1:]
	}
}

// entry is stored when next is safe. s.mu is held.
func (b *tail) entry(next int64) entry {
	e := entry{form: b.form, place: b.at(next), offset: next, created: b.created, modified: b.modified, head: b.head, etag: b.etag}
	e.done = b.form == gzipped && b.done && next == b.given
	if next == b.given && b.foot.n > 0 && b.foot.at <= next {
		e.foot = b.foot
	}
	return e
}

// restore puts b where e says. s.mu is held.
func (b *tail) restore(e entry) {
	b.etag, b.created, b.modified, b.head, b.foot = e.etag, e.created, e.modified, e.head, e.foot
	b.form, b.done, b.left = e.form, e.done, e.left
	if e.place == lost || e.offset == 0 {
		// Read it from its beginning: the beginning of the next record is not known any more.
		b.form, b.foot, b.done = unknown, foot{}, false
		b.move(0, atLine)
		return
	}
	b.move(e.offset, e.place)
}

// move puts b at an offset that is safe. s.mu is held.
func (b *tail) move(offset int64, at place) {
	b.safe, b.given, b.pos, b.end = offset, offset, offset, offset
	b.place, b.turned, b.open = at, at, false
	b.turns = append(b.turns[:0], turn{offset, at})
	if b.form == gzipped {
		b.end = 0
	}
}

// renew makes b a blob that nothing was read of. s.mu is held.
func (b *tail) renew() {
	b.term = input.NewTerm()
	b.form, b.head, b.foot, b.suspect, b.done = unknown, head{}, foot{}, false, false
	b.move(0, atLine)
}

// due tells whether there is something to read. s.mu is held.
func (s *Source) due(b *tail) bool {
	switch {
	case b.gone || b.archived || b.size == 0 || !b.shard.reading || !b.shard.lease.Held():
		return false
	case b.suspect && !b.append:
		return b.safe >= b.given // it may have changed anywhere, so it is read on from where all is safe
	case b.done:
		return false
	case b.form == gzipped:
		return b.end < b.size || s.finished(b)
	case b.pos >= b.size:
		return false
	}
	return b.end < b.size || s.finished(b)
}

// finished tells whether nothing more is expected of b: its hour, and its last change, are long
// over. A block blob is written as a whole, but one that ends inside a value is expected to be
// written again.
func (s *Source) finished(b *tail) bool {
	if !b.append && !b.open {
		return true
	}
	now := s.account.now()
	return now.Sub(time.Unix(b.modified, 0)) >= s.cfg.TailWait &&
		(!b.append || b.hour.IsZero() || now.Sub(b.hour.Add(time.Hour)) >= s.cfg.TailWait)
}

// inWindow tells whether b is young enough to be expected to grow.
func (s *Source) inWindow(b *tail) bool {
	first := s.account.now().Add(-s.cfg.Lookback)
	if !b.hour.IsZero() {
		return !b.hour.Before(day(first))
	}
	return b.modified >= first.Unix()
}

// listed takes in the properties of b from a listing or from the blob itself. It reports whether b
// is now another blob of the same name. s.mu is held, and b is not busy or the caller's.
func (s *Source) listed(b *tail, it item) (replaced bool) {
	switch {
	case b.pos == 0 && b.given == 0:
		// Nothing was read of it, so it is read in its present form.
	case it.append && (b.created != it.created && b.created != 0 && it.created != 0 || b.form != gzipped && it.size < b.pos || it.size < b.size):
		replaced = true
	case it.etag == b.etag:
	case it.append:
		b.done = false // a member was appended to one of gzip
		// Times have whole seconds: one that was replaced in the second in which it was made has
		// the same. That was possible as long as its last change that is known was not later.
		b.suspect = b.suspect || b.modified-b.created <= 1
	case b.form == gzipped || b.head.n == 0 || b.foot.n == 0 || it.size < b.foot.at:
		replaced = true // a block blob is written as a whole, even when it only grows
	default:
		b.suspect = true // perhaps it only grew
	}
	if replaced {
		s.replaced(b)
	}
	if b.pos == 0 && it.etag != b.etag {
		b.end, b.form = 0, unknown
		if b.given == 0 {
			b.head = head{}
		}
	}
	b.etag, b.created, b.modified, b.size, b.append, b.archived = it.etag, it.created, it.modified, it.size, it.append, it.archived
	return replaced
}

// replaced makes b a new blob. s.mu is held.
func (s *Source) replaced(b *tail) {
	if left := b.size - b.pos; !b.append {
		s.log.Info("blob was written again and did not only grow: reading it from its beginning", "blob", b.lane)
	} else if left > 0 && b.form != gzipped {
		s.log.Warn("blob was replaced before it was read to its end: reading the new one from its beginning", "blob", b.lane, "bytes_not_read", left)
	} else {
		s.log.Info("blob was replaced: reading the new one from its beginning", "blob", b.lane)
	}
	s.counts.replaced++
	b.renew()
}

// forget drops a blob that no longer exists. s.mu is held.
func (s *Source) forget(b *tail) {
	if b.gone {
		s.settle(b) // it was busy then
		return
	}
	b.gone = true
	s.warmed(b)
	s.counts.gone++
	if left := b.size - b.pos; left > 0 && b.form != gzipped {
		s.log.Warn("blob was deleted before it was read to its end", "blob", b.lane, "bytes_not_read", left)
	}
	s.works(b)
	s.settle(b)
}

// settle lets go of b when there is nothing to wait for. s.mu is held.
func (s *Source) settle(b *tail) {
	over := b.gone || !b.shard.reading
	if b.busy || !b.gone && b.safe < b.given || !over && (b.queued || s.due(b)) {
		return
	}
	s.release(b)
	waits := b.pos < b.size && !b.done && b.form != gzipped // for the rest of a line
	if over || !waits && (!s.inWindow(b) || s.active > s.maxIdle) {
		s.drop(b)
	}
}

// release has no pass of a sweep wait for b. s.mu is held.
func (s *Source) release(b *tail) {
	if b.sweep != nil {
		b.sweep.open--
		b.sweep = nil
		s.backlog--
	}
}

// drop takes b out of memory. s.mu is held.
func (s *Source) drop(b *tail) {
	if b.c.blobs[b.name] != b {
		return
	}
	delete(b.c.blobs, b.name)
	b.shard.tails--
	s.active--
	b.gone = true // for the queue
	s.warmed(b)
	s.works(b)
	if b.heard.After(s.heard) {
		s.heard = b.heard
	}
}

// full reports whether so many blobs are followed that no more may be listed, and logs it when that
// begins.
func (s *Source) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	full := s.active >= s.maxActive
	if full && !s.crowded {
		s.log.Warn("too many blobs have something to read: others are listed once these are read; if that takes long, find out what slows reading, or raise blob.workers",
			"blobs", s.active)
	}
	s.crowded = full || s.crowded && s.active > s.maxIdle
	return full
}

// pageMost is how many blobs a page has at most.
const pageMost = 5000

// reserve takes room for a page of a sweep, if there is any.
func (s *Source) reserve() bool {
	if s.full() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.backlog+s.asked >= maxBacklog {
		return false
	}
	s.asked += pageMost
	return true
}
