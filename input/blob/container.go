package blob

import (
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

const (
	pollLists     = 3         // list calls that a poll may make for a container and tenant
	discoverEvery = 10        // polls: how often folders are looked for
	afterMidnight = time.Hour // how long the day before is listed at every poll

	// maxBacklog is how many blobs found by sweeps may wait to be read: then sweeps wait. A blob waits in about 500 bytes.
	maxBacklog = 10000

	// maxSeen is how many blobs a sweep remembers to tell which are gone. Beyond it, their positions age out instead.
	maxSeen = 500_000
)

// sweepEvery is how often a container whose blobs are filed by day is looked through as a whole.
const sweepEvery = 24 * time.Hour

// containerState is what is known of a container, and the goroutine that polls it. What is not said to be covered by s.mu is
// that goroutine's.
type containerState struct {
	s      *Source
	name   string
	origin string
	blobs  map[string]*blobState // active, by name; s.mu

	since time.Time // blobs made before were there at the first start
	first bool      // this poll is the first that ever was: what it finds was there before

	roots    []string // folders that hold y=/m=/d= folders
	others   bool     // there is something besides, or nothing is known: found by sweeping only
	polls    int
	turn     int // whose turn it is among the older days
	calls    int // list calls of this poll
	exists   bool
	ignored  bool
	archived bool

	sweep    *sweep
	passes   int // begun in this process
	swept    sweepRecord
	loaded   bool
	recorded time.Time

	failed  trouble          // of listing, that was said
	failing int              // blobs that cannot be read now; s.mu
	said    map[trouble]bool // of reading; s.mu
	listed  bool             // listing has worked; s.mu
}

// sweep is one pass over all names of a container.
type sweep struct {
	begun   time.Time // by the service's clock
	started time.Time // by ours
	whole   bool      // it began at the first name, in this process
	marker  string    // of the next page
	ended   bool
	pages   []*sweepPage
	markers markers
	seen    map[uint64]struct{} // hashes of the names; nil when there are too many
}

// sweepPage is a page of a pass whose blobs are not all read and safe yet.
type sweepPage struct {
	open int    // how many; s.mu
	next string // marker behind it
}

// sweepRecord is what is stored of sweeps, under "#sweep/" and the container.
type sweepRecord struct {
	marker   string    // of a pass that is under way: everything before is read and safe
	floor    time.Time // blobs without a position that have not changed since before floor were read
	finished time.Time // end of the last whole pass
}

func (c *containerState) run() {
	s := c.s
	var wait input.Backoff
	for s.ctx.Err() == nil {
		begun := time.Now()
		pause := s.cfg.PollInterval
		err := c.poll()
		if err == nil {
			err = c.sweepUntil(begun.Add(pause))
		}
		if err != nil {
			if s.ctx.Err() != nil {
				return
			}
			if !c.explain(err) {
				return
			}
			if k := kindOf(err); k != missing {
				pause = max(min(wait.Next(), max(pause, time.Minute)), retryAfter(err))
			}
		} else {
			wait.Reset()
			c.first = false
			if c.failed != "" {
				s.log.Info("list container: works again", "container", c.name)
				c.failed = ""
			}
		}
		_ = input.Sleep(s.ctx, max(pause-time.Since(begun), 0))
	}
}

// explain says what is wrong with listing, once. It returns false when there is nothing left to poll.
func (c *containerState) explain(err error) (goOn bool) {
	s := c.s
	kind := kindOf(err)
	s.retried(kind)
	if kind == missing && isPattern(c.origin) {
		// It is found again when it comes back.
		s.log.Info("container is gone", "container", c.name)
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, b := range c.blobs {
			s.forget(b)
		}
		delete(s.containers, c.name)
		return false
	}
	if c.failed == kind {
		return true
	}
	c.failed = kind
	switch {
	case kind == missing && c.exists:
		s.log.Warn("container was deleted; waiting for it to come back", "container", c.name)
		c.exists = false
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, b := range c.blobs {
			s.forget(b)
		}
	case kind == missing:
		s.log.Info("container does not exist yet: Defender creates it with the first event of its table", "container", c.name, "account", s.account.host)
	case kind == throttled, kind == network:
		s.log.Warn("list container: retrying", "container", c.name, "error", s.account.explain(err, false))
	default:
		s.log.Error("list container: retrying", "container", c.name, "error", s.account.explain(err, false))
	}
	return true
}

// poll looks for what is new: folders now and then, the current day, and an older day of the window in turn. Its price
// is the same however old the container is.
func (c *containerState) poll() error {
	s := c.s
	c.calls = 0
	if c.roots == nil && !c.others || c.polls%discoverEvery == 0 {
		if err := c.discover(); err != nil {
			return err
		}
	}
	c.exists = true
	s.mu.Lock()
	c.listed = true
	s.mu.Unlock()
	if !c.loaded {
		if err := c.load(); err != nil {
			return err
		}
	}
	now := s.account.now()
	window := days(now, s.cfg.Lookback)
	which := window
	if c.polls > 0 {
		which = []time.Time{window[0]}
		if older := window[1:]; len(older) > 0 {
			c.turn++
			switch {
			case now.Sub(window[0]) < afterMidnight || c.turn%2 == 0 || len(older) == 1:
				which = append(which, older[0])
			default:
				which = append(which, older[1+c.turn/2%(len(older)-1)])
			}
		}
	}
	for _, root := range c.roots {
		for _, d := range which {
			if err := c.listDay(root, d); err != nil {
				return err
			}
		}
	}
	c.recheck()
	c.polls++
	return nil
}

// discover lists the folders at the top. It is also how a container is found to exist.
func (c *containerState) discover() error {
	s := c.s
	var roots []string
	others, marker := false, ""
	for pages := 0; ; pages++ {
		if pages == pollLists {
			others = true // a flat folder of many blobs
			break
		}
		c.calls++
		items, folders, next, err := s.account.list(s.ctx, c.name, s.cfg.Prefix, "/", marker)
		if c.since.IsZero() && (err == nil || kindOf(err) == missing) {
			since, isNew, e := s.since(c.origin, s.account.now())
			if e != nil {
				return e
			}
			c.since, c.first = since, isNew && err == nil
			if isPattern(c.origin) {
				c.first = err == nil
			}
		}
		if err != nil {
			return err
		}
		for _, f := range folders {
			switch {
			case isTenant(f):
				roots = append(roots, f)
			case isYear(f):
				if root := f[:len(f)-len("y=2006/")]; len(roots) == 0 || roots[len(roots)-1] != root {
					roots = append(roots, root)
				}
			default:
				others = true
			}
		}
		for _, it := range items {
			others = others || isEvents(it.name)
		}
		if marker = next; marker == "" {
			break
		}
	}
	c.roots, c.others = roots, others
	return nil
}

// listDay lists the blobs of a day to the last page and drops those that are gone, or leaves off while there is no room for more.
func (c *containerState) listDay(root string, d time.Time) error {
	s := c.s
	prefix, marker, begun := dayPrefix(root, d), "", time.Now()
	var seen markers
	for {
		if s.full() {
			return nil
		}
		c.calls++
		asked := time.Now()
		items, _, next, err := s.account.list(s.ctx, c.name, prefix, "", marker)
		if err != nil {
			return err
		}
		if err := c.take(items, nil, asked); err != nil {
			return err
		}
		if err := seen.take(next, len(items)); err != nil {
			return err
		}
		if marker = next; marker == "" {
			break
		}
	}
	var changes []input.Change
	s.mu.Lock()
	for name, b := range c.blobs {
		if b.seen.Before(begun) && strings.HasPrefix(name, prefix) {
			s.forget(b)
			changes = append(changes, input.Change{Key: b.lane})
		}
	}
	s.mu.Unlock()
	return s.book.write(changes)
}

// recheck queues blobs whose unfinished last line is not waited for any longer, and lets go of those that have left
// the window.
func (c *containerState) recheck() {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range c.blobs {
		if s.due(b) {
			s.add(b)
		} else {
			s.settle(b)
		}
	}
}

// take looks at blobs as they were listed by a request made at asked, and queues those with something to read. page is the
// sweep's page, nil for a poll.
func (c *containerState) take(items []item, page *sweepPage, asked time.Time) error {
	s := c.s
	var changes []input.Change
	now := time.Now()
	for _, it := range items {
		if !isEvents(it.name) || it.archived {
			c.leaveOut(it)
			continue
		}
		s.mu.Lock()
		b := c.blobs[it.name]
		s.mu.Unlock()
		if b == nil {
			var err error
			var change *input.Change
			if b, change, err = c.meet(it); err != nil {
				return err
			}
			if change != nil {
				changes = append(changes, *change)
			}
			if b == nil {
				continue
			}
		}
		s.mu.Lock()
		if c.blobs[it.name] == nil && b.given > 0 && s.inWindow(b) && asked.Before(s.heard) {
			s.mu.Unlock() // for the same reason as below: it may be the one
			continue
		}
		b.seen = now
		if c.blobs[it.name] == nil {
			c.blobs[it.name] = b
			s.active++
			s.counts.found++
		}
		// A blob that has grown since it was listed, and was asked about and read meanwhile, would seem to have shrunk, and to be
		// another one.
		if !b.busy && !asked.Before(b.heard) {
			s.listed(b, it)
		}
		if page != nil && (b.busy || s.due(b) || b.safe < b.given) {
			if b.sweep != nil {
				b.sweep.open-- // an earlier pass waited for it; now this one does
			} else {
				s.backlog++
			}
			b.sweep = page
			page.open++
		}
		if s.due(b) {
			s.add(b)
		} else {
			s.settle(b)
		}
		s.mu.Unlock()
	}
	return s.book.write(changes)
}

func (c *containerState) leaveOut(it item) {
	switch {
	case it.archived && !c.archived:
		c.archived = true
		c.s.log.Warn("blobs in the archive tier cannot be read and are left out; rehydrate them to read them", "container", c.name, "first", it.name)
	case !it.archived && it.size > 0 && !c.ignored:
		c.ignored = true
		c.s.log.Info("only blobs named .json, .jsonl, .ndjson or .gz are read", "container", c.name, "first_left_out", it.name)
	}
}

// meet decides where to begin in a blob that is not active. It returns nil when there is nothing to read, and a
// position to store when one had to be chosen.
func (c *containerState) meet(it item) (b *blobState, change *input.Change, err error) {
	s := c.s
	lane := c.name + "/" + it.name
	text, err := s.book.get(lane)
	if err != nil {
		return nil, nil, err
	}
	b = &blobState{c: c, name: it.name, lane: lane, hour: hourOf(it.name), term: input.NewTerm(), modified: it.modified, ask: s.buffers.piece}
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := func() bool { return !s.inWindow(b) || s.active >= s.maxIdle }
	if it.size == 0 && idle() {
		return nil, nil, nil
	}
	if text != "" {
		e, err := parseEntry(text)
		if err != nil {
			s.log.Error("blob is read from its beginning", "blob", lane, "error", err)
			return b, nil, nil
		}
		b.restore(e)
		if same := e.created == it.created && e.etag == it.etag; same && (e.kind == gzipDone || e.kind != inGzip && e.offset >= it.size) && idle() {
			return nil, nil, nil
		}
		return b, nil, nil
	}
	if it.modified < c.swept.floor.Unix() && !c.swept.floor.IsZero() {
		return nil, nil, nil // read, and its position dropped since
	}
	start := s.cfg.Start
	switch {
	case !start.At.IsZero() && !b.hour.IsZero():
		if !b.hour.Add(time.Hour).After(start.At) {
			return nil, nil, nil
		}
	case !start.At.IsZero():
		if it.modified < start.At.Unix() {
			return nil, nil, nil
		}
	case start.Latest && s.cfg.WarmUp > 0 && strings.HasSuffix(c.name, "-deviceinfo") && it.modified >= s.account.now().Add(-s.cfg.WarmUp).Unix():
		// Read from its beginning, as a new one.
	case start.Latest && (c.first || it.created < c.since.Unix() && it.modified < c.since.Unix()):
		// It was there at the first start. What was appended since, if this is not the first poll, cannot be told from what was
		// there before, so a blob that has changed since is read whole.
		b.created, b.etag, b.size, b.append = it.created, it.etag, it.size, it.append
		b.pos, b.end, b.given, b.safe = it.size, it.size, it.size, it.size
		// The end may lie inside a line, whose rest then is no event.
		b.skip, b.cut = true, it.size
		if it.size == 0 {
			b.skip = false
		}
		young := it.modified >= s.account.now().Add(-keep).Unix()
		if young && it.size > 0 {
			change = &input.Change{Key: lane, Value: []byte(b.entry(it.size).String())}
		}
		if idle() {
			return nil, change, nil
		}
	}
	return b, change, nil
}

// load reads what was stored of sweeps.
func (c *containerState) load() error {
	v, err := c.s.book.get("#sweep/" + c.name)
	if err != nil {
		return err
	}
	c.loaded = true
	parts := strings.SplitN(v, " ", 3)
	if len(parts) != 3 {
		return nil
	}
	unix := func(text string) time.Time {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
			return time.Unix(n, 0).UTC()
		}
		return time.Time{}
	}
	c.swept = sweepRecord{floor: unix(parts[0]), finished: unix(parts[1]), marker: parts[2]}
	return nil
}

func (c *containerState) store(r sweepRecord, changes []input.Change) error {
	unix := func(t time.Time) int64 {
		if t.IsZero() {
			return 0
		}
		return t.Unix()
	}
	v := fmt.Sprintf("%d %d %s", unix(r.floor), unix(r.finished), r.marker)
	if err := c.s.book.write(append(changes, input.Change{Key: "#sweep/" + c.name, Value: []byte(v)})); err != nil {
		return err
	}
	c.swept, c.recorded = r, time.Now()
	return nil
}

// sweepUntil goes on with the pass over all names, or begins one that is due, until the next poll. The first pass of all goes
// as fast as blobs can be read, if they are to be read; later ones make do with the list calls that the poll has left.
func (c *containerState) sweepUntil(deadline time.Time) error {
	s := c.s
	for s.ctx.Err() == nil {
		if err := c.advance(); err != nil {
			return err
		}
		fast := c.swept.finished.IsZero() && c.passes <= 1 && (c.others || !s.cfg.Start.Latest)
		if !c.sweepDue() || !fast && c.calls >= pollLists*max(1, len(c.roots)) {
			return nil
		}
		if !s.reserve() {
			if !time.Now().Add(50 * time.Millisecond).Before(deadline) {
				return nil
			}
			_ = input.Sleep(s.ctx, 50*time.Millisecond)
			continue
		}
		ended, err := c.sweepPage()
		s.mu.Lock()
		s.asked -= pageMost
		s.mu.Unlock()
		switch {
		case err != nil:
			return err
		case ended:
			return c.advance() // one pass a poll is enough
		case !time.Now().Before(deadline):
			return nil
		}
	}
	return nil
}

// sweepDue tells whether a pass is under way or should begin. Where days are listed, one a day is enough.
func (c *containerState) sweepDue() bool {
	last := c.swept.finished
	if w := c.sweep; w != nil {
		if !w.ended {
			return true
		}
		last = w.begun
	}
	every := sweepEvery
	if c.passes == 0 {
		// What came while nothing ran may have left the window.
		every = min(every, c.s.cfg.Lookback/2)
	}
	return c.others || last.IsZero() || c.s.account.now().Sub(last) >= every
}

// sweepPage lists the next page of the pass.
func (c *containerState) sweepPage() (ended bool, err error) {
	s := c.s
	if c.sweep == nil || c.sweep.ended {
		// Blobs that an earlier pass still waits for stay active: this pass meets them again.
		w := &sweep{begun: s.account.now(), started: time.Now(), whole: true, seen: make(map[uint64]struct{})}
		if c.passes == 0 && c.swept.marker != "" { // goes on with that of an earlier process
			w.marker, w.whole = c.swept.marker, false
		}
		c.sweep = w
		c.passes++
	}
	w := c.sweep
	c.calls++
	asked := time.Now()
	items, _, next, err := s.account.list(s.ctx, c.name, s.cfg.Prefix, "", w.marker)
	if err != nil {
		if kindOf(err) == refused && w.marker != "" {
			// The service does not know the marker any more: from the beginning, then. Positions tell what was read.
			s.log.Debug("sweep begins again", "container", c.name, "error", s.account.explain(err, true))
			c.sweep, c.swept.marker = nil, ""
		}
		return false, err
	}
	if err := w.markers.take(next, len(items)); err != nil {
		c.sweep, c.swept.marker = nil, "" // from the beginning, after a pause
		return false, err
	}
	page := &sweepPage{next: next}
	if err := c.take(items, page, asked); err != nil {
		return false, err
	}
	if w.seen != nil {
		for _, it := range items {
			w.seen[hash(it.name)] = struct{}{}
		}
		if len(w.seen) > maxSeen {
			w.seen = nil
		}
	}
	w.pages = append(w.pages, page)
	w.marker, w.ended = next, next == ""
	return w.ended, nil
}

// advance stores how far the pass is safe, and ends it when all of it is.
func (c *containerState) advance() error {
	s, w := c.s, c.sweep
	if w == nil || w.pages == nil {
		return nil
	}
	r, done := c.swept, 0
	s.mu.Lock()
	for done < len(w.pages) && w.pages[done].open == 0 {
		r.marker = w.pages[done].next
		done++
	}
	s.mu.Unlock()
	if done == 0 {
		return nil
	}
	if !w.ended || done < len(w.pages) {
		if r.marker == "" {
			return nil
		}
		if err := c.store(r, nil); err != nil {
			return err
		}
		w.pages = w.pages[done:]
		return nil
	}
	return c.finish(r)
}

// finish ends a pass: all that it found is read and safe. Positions of blobs that are gone, or have not changed for long, are dropped.
func (c *containerState) finish(r sweepRecord) error {
	s, w := c.s, c.sweep
	// A folder that is swept at every poll does not write the state file each time.
	if !c.swept.finished.IsZero() && time.Since(c.recorded) < time.Hour && r.marker == c.swept.marker {
		c.dropGone(w)
		w.pages = nil
		return nil
	}
	r.marker = ""
	if w.whole {
		// Not after a pass that an earlier process began: what appeared since among the names that it had behind it was not met.
		r.finished = w.begun
		if floor := w.begun.Add(-keep); floor.After(r.floor) {
			r.floor = floor
		}
	}
	c.dropGone(w)
	var old []input.Change
	err := s.book.each(c.name+"/", func(lane, text string) {
		name := lane[len(c.name)+1:]
		s.mu.Lock()
		active := c.blobs[name] != nil
		s.mu.Unlock()
		e, err := parseEntry(text)
		if active || err != nil {
			return
		}
		gone := false
		if w.whole && w.seen != nil && e.modified < w.begun.Unix() {
			_, there := w.seen[hash(name)]
			gone = !there
		}
		if gone || e.modified < r.floor.Unix() {
			old = append(old, input.Change{Key: lane})
		}
	})
	if err != nil {
		return err
	}
	if err := c.store(r, old); err != nil {
		return err
	}
	w.pages = nil
	return nil
}

// dropGone lets go of active blobs that a whole pass has not met.
func (c *containerState) dropGone(w *sweep) {
	if !w.whole {
		return
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range c.blobs {
		if b.seen.Before(w.started) {
			s.forget(b)
		}
	}
}

var seed = maphash.MakeSeed()

func hash(name string) uint64 { return maphash.String(seed, name) }
