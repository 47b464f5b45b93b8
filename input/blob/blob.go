package blob

import (
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// form is how the events of a blob are framed.
type form byte

const (
	unknown form = iota
	lines        // NDJSON
	object       // one object over the whole blob, {"records":[...]}, perhaps over many lines
	gzipped      // NDJSON, compressed as a whole
)

// blobState is an active blob: one that may still grow, or has something to read, or whose last lines are not safe yet.
type blobState struct {
	c    *containerState
	name string
	lane string
	hour time.Time // of its path; zero when that names none

	term     uint64
	heard    time.Time // when it was last read or asked about by itself: lists asked for before that are stale
	etag     string
	created  int64
	modified int64
	size     int64
	append   bool
	seen     time.Time // when it was last listed, by our clock

	form    form
	head    head
	suspect bool  // it may have been replaced: the head is compared before anything is read
	pos     int64 // what comes before was handed over (or skipped)
	end     int64 // what comes before was looked at: only an unfinished line stands between pos and end
	skip    bool  // pos may be inside a line whose rest is not wanted
	tail    int64 // where the last tail ended: a line that was handed on without its newline
	cut     int64 // where the last cut line was cut
	done    bool  // of gzip: nothing is left
	given   int64 // Next of the newest message
	safe    int64 // what is committed
	ask     int   // how much to ask for at once
	hot     bool  // it is read without If-Match for the rest of the turn

	queued, busy, gone bool
	failing            trouble
	wait               input.Backoff
	notBefore          time.Time
	sweep              *sweepPage // the page that found it, which waits until it is safe
}

// entry is what is to be stored when next is safe. s.mu is held.
func (b *blobState) entry(next int64) entry {
	e := entry{kind: afterLine, offset: next, created: b.created, modified: b.modified, head: b.head, etag: b.etag}
	switch {
	case b.form == gzipped && b.done && next == b.given:
		e.kind = gzipDone
	case b.form == gzipped:
		e.kind = inGzip
	case next == b.tail && b.form == object:
		e.kind = afterObject
	case next == b.tail:
		e.kind = afterTail
	case next == b.cut:
		e.kind = insideLine
	}
	return e
}

// restore puts b where e says. s.mu is held.
func (b *blobState) restore(e entry) {
	b.etag, b.created, b.modified, b.head = e.etag, e.created, e.modified, e.head
	b.pos, b.given, b.safe = e.offset, e.offset, e.offset
	switch e.kind {
	case inGzip, gzipDone:
		b.form, b.done = gzipped, e.kind == gzipDone
		return
	case insideLine:
		b.skip, b.cut = true, e.offset
	case afterTail:
		b.tail = e.offset
	case afterObject:
		b.tail, b.form = e.offset, object
	}
	b.end = e.offset
}

// renew makes b a blob that nothing was read of. s.mu is held.
func (b *blobState) renew() {
	b.term = input.NewTerm()
	b.form, b.head, b.suspect = unknown, head{}, false
	b.pos, b.end, b.given, b.safe, b.tail, b.cut = 0, 0, 0, 0, 0, 0
	b.skip, b.done = false, false
}

// due tells whether there is something to read. s.mu is held.
func (s *Source) due(b *blobState) bool {
	switch {
	case b.gone || b.done || b.size == 0:
		return false
	case b.form == gzipped:
		return b.end < b.size || s.finished(b)
	case b.pos >= b.size:
		return false
	}
	return b.end < b.size || s.finished(b)
}

// finished tells whether nothing more is expected of b: its hour, and its last change, are long over. A block blob is
// written as a whole.
func (s *Source) finished(b *blobState) bool {
	now := s.account.now()
	return !b.append ||
		now.Sub(time.Unix(b.modified, 0)) >= s.cfg.TailWait && (b.hour.IsZero() || now.Sub(b.hour.Add(time.Hour)) >= s.cfg.TailWait)
}

// inWindow tells whether b is young enough to be expected to grow.
func (s *Source) inWindow(b *blobState) bool {
	first := s.account.now().Add(-s.cfg.Lookback)
	if !b.hour.IsZero() {
		return !b.hour.Before(day(first))
	}
	return b.modified >= first.Unix()
}

// listed takes in what a listing, or the blob itself, says. It returns whether b turned out to be another blob of the same
// name. s.mu is held, and b is not busy or the caller's.
func (s *Source) listed(b *blobState, it item) (replaced bool) {
	switch {
	case b.pos == 0 && b.given == 0:
		// Nothing was read of it: whatever it is now is what will be read.
	case b.created != it.created && b.created != 0 && it.created != 0, b.form != gzipped && it.size < b.pos, it.append && it.size < b.size:
		replaced = true
	case it.etag == b.etag:
	case it.append:
		// Times have whole seconds: one that was replaced in the second in which it was made has the same. That was possible as long
		// as its last change that is known was not later.
		b.suspect = b.suspect || b.modified-b.created <= 1
	case b.form == object || b.form == gzipped || b.head.n == 0:
		replaced = true // a block blob is written anew even when it only grows
	default:
		b.suspect = true
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
	b.etag, b.created, b.modified, b.size, b.append = it.etag, it.created, it.modified, it.size, it.append
	return replaced
}

// replaced makes b a new blob. s.mu is held.
func (s *Source) replaced(b *blobState) {
	if left := b.size - b.pos; left > 0 && b.form != gzipped {
		s.log.Warn("blob was replaced before it was read to its end: reading the new one from its beginning", "blob", b.lane, "bytes_not_read", left)
	} else {
		s.log.Info("blob was replaced: reading the new one from its beginning", "blob", b.lane)
	}
	s.counts.replaced++
	b.renew()
}

// forget drops a blob that no longer exists. s.mu is held.
func (s *Source) forget(b *blobState) {
	if b.gone {
		s.settle(b) // it was busy then
		return
	}
	b.gone = true
	s.counts.gone++
	if left := b.size - b.pos; left > 0 && b.form != gzipped {
		s.log.Warn("blob was deleted before it was read to its end", "blob", b.lane, "bytes_not_read", left)
	}
	s.works(b)
	s.settle(b)
}

// settle lets go of b when there is nothing to wait for. s.mu is held.
func (s *Source) settle(b *blobState) {
	if b.busy || !b.gone && (b.queued || b.safe < b.given || s.due(b)) {
		return
	}
	if b.sweep != nil {
		b.sweep.open--
		b.sweep = nil
		s.backlog--
	}
	waits := b.pos < b.size && !b.done && b.form != gzipped // for the rest of a line
	if b.gone || !waits && (!s.inWindow(b) || s.active > s.maxIdle) {
		if b.c.blobs[b.name] == b {
			delete(b.c.blobs, b.name)
			s.active--
			if b.heard.After(s.heard) {
				s.heard = b.heard
			}
		}
	}
}

// full tells whether so many blobs are followed that no more may be listed, and says so when that begins.
func (s *Source) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	full := s.active >= s.maxActive
	if full && !s.crowded {
		s.log.Warn("more blobs have something to read than are held in memory: others are listed once these are read; if that takes long, look for what holds reading up, or raise blob.workers",
			"blobs", s.active)
	}
	s.crowded = full || s.crowded && s.active > s.maxIdle
	return full
}

// pageMost is how many blobs a page has at most.
const pageMost = 5000

// reserve makes room for a page of a sweep, unless there is none.
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
