package blob

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

const (
	// sweepEvery is how often a container whose blobs are filed by day is looked through as a
	// whole.
	sweepEvery = 24 * time.Hour

	// maxBacklog is how many blobs found by sweeps may wait to be read: then sweeps wait. A blob
	// waits in about 500 bytes.
	maxBacklog = 10000

	// maxSeen is how many blobs a pass remembers to tell which are gone. Beyond it, their positions
	// age out instead.
	maxSeen = 500_000

	// maxBefore is how many earlier settings of blob.prefix are known to have been swept.
	maxBefore = 16
)

// sweeper looks through all names of a container, page by page, again and again. A pass ends when
// all that it found is read and safe, or set aside in the state file as unread. Only then is a blob
// that has no position, and has not changed for long, known to have been read. It belongs to the
// container's goroutine, except the fields marked s.mu.
type sweeper struct {
	c      *container
	pass   *pass
	passes int // begun in this process, and since shards came to it
}

// pass is one pass over all names of a container.
type pass struct {
	begun   time.Time // by the service's clock
	started time.Time // by ours
	surely  time.Time // not later than either
	whole   bool      // it began at the first name, in this process
	marker  string    // of the next page
	ended   bool
	pages   []*sweepPage
	markers markers
	seen    map[uint64]struct{} // hashes of the names; nil when there are too many
	parts   []*part             // that it looks through: those that were read when it began
}

// sweepPage is a page of a pass whose blobs are not all read and safe yet.
type sweepPage struct {
	open int    // how many; s.mu
	next string // marker behind it
}

// sweepRecord is the stored state of sweeps, under "#sweep/" and the container.
type sweepRecord struct {
	Marker   string    `json:"marker,omitempty"`   // of a pass that is under way: everything before is read and safe
	Floor    time.Time `json:"floor,omitzero"`     // blobs without a position that have not changed since before were read
	Finished time.Time `json:"finished,omitzero"`  // end of the last whole pass
	Prefix   string    `json:"prefix,omitempty"`   // blob.prefix, for which this holds
	Before   []swept   `json:"previous,omitempty"` // for other settings of blob.prefix
}

// swept: the conclusions of passes under other settings.
type swept struct {
	Prefix string    `json:"prefix"`
	Floor  time.Time `json:"floor"`
}

// read tells whether a blob that has no position was read, and its position dropped since.
func (r *sweepRecord) read(name string, modified int64) bool {
	old := func(floor time.Time) bool { return !floor.IsZero() && modified < floor.Unix() }
	if strings.HasPrefix(name, r.Prefix) && old(r.Floor) {
		return true
	}
	return slices.ContainsFunc(r.Before, func(b swept) bool { return strings.HasPrefix(name, b.Prefix) && old(b.Floor) })
}

// parseSweepRecord reads the stored state, for this setting of blob.prefix.
func parseSweepRecord(text, prefix string) (r sweepRecord) {
	if text != "" && text[0] == '{' {
		if json.Unmarshal([]byte(text), &r) != nil {
			r = sweepRecord{Prefix: prefix}
		}
	} else if parts := strings.SplitN(text, " ", 3); len(parts) == 3 { // as before there were settings in it
		unix := func(text string) time.Time {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
				return time.Unix(n, 0).UTC()
			}
			return time.Time{}
		}
		r = sweepRecord{Floor: unix(parts[0]), Finished: unix(parts[1]), Marker: parts[2], Prefix: prefix}
	}
	if r.Prefix == prefix {
		return r
	}
	now := sweepRecord{Prefix: prefix}
	for _, b := range append(r.Before, swept{r.Prefix, r.Floor}) {
		switch {
		case b.Floor.IsZero():
		case b.Prefix == prefix:
			now.Floor = b.Floor
		default:
			now.Before = append(now.Before, b)
		}
	}
	if n := len(now.Before) - maxBefore; n > 0 {
		now.Before = now.Before[n:]
	}
	return now
}

func (w *sweeper) store(p *part, r sweepRecord, changes []input.Change) error {
	v, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("store progress of a sweep: %w", err)
	}
	if err := p.book.write(append(changes, input.Change{Key: "#sweep/" + w.c.name, Value: v})); err != nil {
		return err
	}
	p.record, p.recorded = r, time.Now()
	return nil
}

// until continues the pass over all names, or begins one that is due, until the next poll. The very
// first pass goes as fast as blobs can be read, if they are to be read. Later ones use the list
// calls that the poll has left.
func (w *sweeper) until(deadline time.Time) error {
	c, s := w.c, w.c.s
	for s.ctx.Err() == nil {
		if err := w.advance(); err != nil {
			return err
		}
		never := slices.ContainsFunc(c.ours(), func(p *part) bool { return p.record.Finished.IsZero() })
		fast := never && w.passes <= 1 && (c.others || !s.cfg.Start.Latest)
		if !w.due() || !fast && c.calls >= pollLists*max(1, len(c.roots)) {
			return nil
		}
		if !s.reserve() {
			if !time.Now().Add(50 * time.Millisecond).Before(deadline) {
				return nil
			}
			_ = input.Sleep(s.ctx, 50*time.Millisecond)
			continue
		}
		ended, err := w.list()
		s.mu.Lock()
		s.asked -= pageMost
		s.mu.Unlock()
		switch {
		case err != nil:
			return err
		case ended:
			return w.advance() // one pass a poll is enough
		case !time.Now().Before(deadline):
			return nil
		}
	}
	return nil
}

// due tells whether a pass is under way or should begin. Where days are listed, one a day is
// enough.
func (w *sweeper) due() bool {
	if p := w.pass; p != nil && !p.ended {
		if slices.ContainsFunc(w.c.ours(), func(part *part) bool { return slices.Contains(p.parts, part) }) {
			return true
		}
		w.pass = nil // all that it looked through is another worker's now
	}
	every := sweepEvery
	if w.passes == 0 {
		// Blobs that came while nothing ran may have left the window.
		every = min(every, w.c.s.cfg.Lookback/2)
	}
	return slices.ContainsFunc(w.c.ours(), func(p *part) bool {
		last := p.record.Finished
		if w.pass != nil && slices.Contains(w.pass.parts, p) {
			last = w.pass.begun
		}
		return w.c.others && p.shard == w.c.s.shardOf(w.c.name, "") || last.IsZero() || w.c.s.account.now().Sub(last) >= every
	})
}

// list lists the next page of the pass.
func (w *sweeper) list() (ended bool, err error) {
	c, s := w.c, w.c.s
	if w.pass == nil || w.pass.ended {
		// Blobs that an earlier pass still waits for stay active: this pass meets them again.
		p := &pass{begun: s.account.now(), started: time.Now(), surely: s.account.surely(), whole: true, seen: make(map[uint64]struct{}), parts: c.ours()}
		if w.passes == 0 && len(p.parts) == 1 && p.parts[0].record.Marker != "" { // continues the pass of an earlier process
			p.marker, p.whole = p.parts[0].record.Marker, false
		}
		w.pass = p
		w.passes++
	}
	p := w.pass
	c.calls++
	asked := time.Now()
	items, _, next, err := s.account.list(s.ctx, c.name, s.cfg.Prefix, "", p.marker)
	if err == nil {
		err = p.markers.take(next, len(items))
	}
	if err != nil {
		if k := kindOf(err); k == endless || k == refused && p.marker != "" {
			// The service does not know the marker any more: from the beginning, then. Positions
			// show what was read.
			s.log.Debug("sweep begins again", "container", c.name, "error", s.account.explain(err, true))
			w.pass = nil
			for _, part := range p.parts {
				part.record.Marker = ""
			}
		}
		return false, err
	}
	page := &sweepPage{next: next}
	if err := c.take(items, page, asked); err != nil {
		return false, err
	}
	if p.seen != nil {
		for _, it := range items {
			p.seen[hash(it.name)] = struct{}{}
		}
		if len(p.seen) > maxSeen {
			p.seen = nil
		}
	}
	p.pages = append(p.pages, page)
	p.marker, p.ended = next, next == ""
	return p.ended, nil
}

// setAside has the pass not wait for blobs that cannot be read: the state file remembers them as
// unread. Those beyond maxFailing are let go of until a later listing meets them again.
func (w *sweeper) setAside() error {
	c, s := w.c, w.c.s
	unread := make(changes)
	var aside []*tail
	s.mu.Lock()
	for _, b := range c.blobs {
		if !b.shard.reading || b.failing == "" || b.busy || b.sweep == nil && c.failing <= maxFailing {
			continue
		}
		aside = append(aside, b)
		if !b.left {
			e := b.entry(b.safe)
			e.left = true
			unread.add(b.shard.book, input.Change{Key: b.lane, Value: []byte(e.String())})
		}
	}
	s.mu.Unlock()
	if len(aside) == 0 {
		return nil
	}
	if err := unread.write(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range aside {
		if b.failing == "" || b.busy {
			continue // meanwhile it is read
		}
		b.left = true
		s.release(b)
		if c.failing > maxFailing && b.safe >= b.given {
			s.drop(b)
		}
	}
	return nil
}

// advance stores how far the pass is safe, and ends it when all of it is.
func (w *sweeper) advance() error {
	s, p := w.c.s, w.pass
	if p == nil || p.pages == nil {
		return nil
	}
	marker, done := "", 0
	s.mu.Lock()
	for done < len(p.pages) && p.pages[done].open == 0 {
		marker = p.pages[done].next
		done++
	}
	s.mu.Unlock()
	if done == 0 {
		return nil
	}
	if !p.ended || done < len(p.pages) {
		if marker == "" {
			return nil
		}
		// Several workers look through the same names, each for its own: there is no marker of all.
		if len(s.shards) == 1 && len(p.parts) == 1 {
			r := p.parts[0].record
			r.Marker = marker
			if err := w.store(p.parts[0], r, nil); err != nil {
				return err
			}
		}
		p.pages = p.pages[done:]
		return nil
	}
	return w.finish()
}

// finish ends a pass: all that it found is read and safe, or set aside.
func (w *sweeper) finish() error {
	c, s, p := w.c, w.c.s, w.pass
	if c.asleepBlobs > 0 {
		s.log.Warn("blobs in the archive tier were left out", "container", c.name, "blobs", c.asleepBlobs, "bytes", c.asleepBytes)
		c.asleepBlobs, c.asleepBytes = 0, 0
	}
	w.dropGone()
	for _, part := range c.ours() {
		if !slices.Contains(p.parts, part) {
			continue // it came while the pass was under way: the next one is its first
		}
		if err := w.conclude(part); err != nil {
			return err
		}
	}
	p.pages = nil
	return nil
}

// conclude stores what a pass means for a part. Positions of blobs that are gone, or have not
// changed for long, are dropped.
func (w *sweeper) conclude(part *part) error {
	c, s, p, r := w.c, w.c.s, w.pass, part.record
	// A folder that is swept at every poll does not write the state file each time.
	if !r.Finished.IsZero() && time.Since(part.recorded) < time.Hour && r.Marker == "" {
		return nil
	}
	r.Marker = ""
	if p.whole {
		// A pass that an earlier process began does not count: it has not met new names in its
		// first part.
		r.Finished = p.begun
		if floor := p.surely.Add(-s.keep()); floor.After(r.Floor) {
			r.Floor = floor
		}
	}
	var old []input.Change
	err := part.book.each(c.name+"/", func(lane, text string) {
		name := lane[len(c.name)+1:]
		s.mu.Lock()
		active := c.blobs[name] != nil
		s.mu.Unlock()
		e, err := parseEntry(text)
		if active || err != nil {
			return
		}
		gone := false
		if p.whole && p.seen != nil && e.modified < p.begun.Unix() && strings.HasPrefix(name, s.cfg.Prefix) {
			_, there := p.seen[hash(name)]
			gone = !there
		}
		if gone || !e.left && r.read(name, e.modified) {
			old = append(old, input.Change{Key: lane})
		}
	})
	if err != nil {
		return err
	}
	return w.store(part, r, old)
}

// dropGone lets go of active blobs that a whole pass has not met.
func (w *sweeper) dropGone() {
	if !w.pass.whole {
		return
	}
	s := w.c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range w.c.blobs {
		if b.shard.reading && b.seen.Before(w.pass.started) {
			s.forget(b)
		}
	}
}

var seed = maphash.MakeSeed()

func hash(name string) uint64 { return maphash.String(seed, name) }
