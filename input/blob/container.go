package blob

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

const (
	pollLists     = 3         // list calls that a poll may make for a container and tenant
	discoverEvery = 10        // polls: how often folders are looked for
	afterMidnight = time.Hour // how long the day before is listed at every poll

	maxRoots   = 1000 // known folders of days in a container; sweeps find the blobs of others
	maxFailing = 200  // blobs of a container that cannot be read and are held in memory, to be tried again
)

// container is a followed container, and the goroutine that polls it. The fields belong to that
// goroutine, except those marked s.mu.
type container struct {
	s      *Source
	name   string
	origin string
	blobs  map[string]*tail // active, by name; s.mu

	parts  []*part          // by shard; nil for those that were never read
	learnt *part            // of blobs of others that are read for devices; nil for none
	days   map[string]*part // by folder: who listed it last
	early  bool             // it was there when origin was first looked for by this process

	roots    []string // folders that hold y=/m=/d= folders
	deep     []string // those of them that sweeps have found, further down
	others   bool     // there is something besides, or nothing is known: found by sweeping only
	polls    int
	turn     int // whose turn it is among the older days
	calls    int // list calls of this poll
	exists   bool
	warm     bool // its recent blobs are read although the start is latest
	warming  bool // they are not all listed yet; s.mu
	ignored  bool // the log has that there are blobs of other names
	archived bool // the log has that there are some in the archive tier

	asleepBlobs, asleepBytes int64 // of those, which this pass has met first

	sweeper sweeper

	listed  bool                  // listing has worked; s.mu
	failing int                   // blobs that cannot be read now; s.mu
	kinds   map[trouble]*failures // of those; s.mu
	wake    chan struct{}         // that there is one to speak of
	due     chan struct{}         // a signal that shards have come, whose blobs are to be listed
	some    bool                  // a listing has shown blobs, or the log has that none are under blob.prefix
}

// failures are the blobs of a container that cannot be read, for one kind of trouble. They are no
// input.Troubles, which would log the first blob at once: their line has the number of blobs, and
// so waits for the others.
type failures struct {
	blobs         int
	first         string // the lane of one of them
	at            int64
	err           error
	since, latest time.Time // when the first and the last of them failed
	said          bool
}

func newContainer(s *Source, name, origin string, early bool) *container {
	c := &container{s: s, name: name, origin: origin, early: early, parts: make([]*part, len(s.shards)), days: make(map[string]*part), blobs: make(map[string]*tail), kinds: make(map[trouble]*failures),
		wake: make(chan struct{}, 1), due: make(chan struct{}, 1), warm: s.cfg.WarmUp > 0 && s.cfg.Warm != nil && s.cfg.Warm(name)}
	c.sweeper.c = c
	if c.warm && s.shared != nil {
		c.learnt = s.newLearnt()
	}
	return c
}

func (c *container) run() {
	s := c.s
	var wait input.Backoff
	for s.ctx.Err() == nil {
		begun := time.Now()
		pause := s.cfg.PollInterval
		err := c.poll()
		if err == nil {
			err = c.sweeper.until(begun.Add(pause))
		}
		if err == nil {
			err = c.nothing()
		}
		if err != nil {
			if s.ctx.Err() != nil {
				return
			}
			k := kindOf(err)
			if k == missing {
				c.listedFar()
			}
			if !c.explain(err) {
				return
			}
			if k != missing {
				pause = max(min(wait.Next(), max(pause, time.Minute)), retryAfter(err))
				begun = time.Now() // what the service asks for counts from its answer
			}
		} else {
			wait.Reset()
			for _, p := range c.ours() {
				p.first = false
			}
			if c.isFar() {
				c.listedFar()
			}
			s.troubles.End(c.listing(), "")
		}
		c.rest(begun.Add(pause))
	}
}

// nothing says, once, that all blobs of a container lie outside blob.prefix.
func (c *container) nothing() error {
	s, p := c.s, c.sweeper.pass
	if c.some || s.cfg.Prefix == "" || p == nil || !p.ended {
		return nil
	}
	name, err := s.account.beside(s.ctx, c.name, s.cfg.Prefix)
	if err != nil {
		return err
	}
	if c.some = name != ""; c.some {
		s.log.Warn("no blob is under blob.prefix, although there are others; check blob.prefix", "container", c.name, "blob.prefix", s.cfg.Prefix, "such_as", name)
	}
	return nil
}

// How long failures of blobs are gathered before the log tells how many there are: until no other
// has failed for reportWait, at most reportMost.
const (
	reportWait = time.Second
	reportMost = 10 * time.Second
)

// rest waits until the next poll is due, and reports meanwhile which blobs cannot be read.
func (c *container) rest(until time.Time) {
	for c.s.ctx.Err() == nil {
		next := until
		if at := c.report(); !at.IsZero() && at.Before(next) {
			next = at
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-c.s.ctx.Done():
		case <-c.wake:
		case <-c.due:
			until = time.Now()
		case <-timer.C:
		}
		timer.Stop()
		if !time.Now().Before(until) {
			return
		}
	}
}

// poke has c polled now.
func (c *container) poke() {
	select {
	case c.due <- struct{}{}:
	default:
	}
}

// report logs which blobs cannot be read, once for each kind of trouble as long as it lasts. It
// returns when there will be more to say, or the zero time.
func (c *container) report() (next time.Time) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for kind, f := range c.kinds {
		if f.said {
			continue
		}
		at := f.latest.Add(reportWait)
		if most := f.since.Add(reportMost); most.Before(at) {
			at = most
		}
		if time.Now().Before(at) {
			next = at
			continue
		}
		f.said = true
		level := slog.LevelError
		if kind == throttled || kind == network {
			level = slog.LevelWarn
		}
		s.log.Log(s.ctx, level, "read blobs: retrying", "container", c.name, "blobs", f.blobs, "first", f.first, "at", f.at, "error", s.account.explain(f.err, c.listed))
	}
	return next
}

// listing is the subject of the trouble with listing.
func (c *container) listing() string { return "list container " + c.name }

// explain logs the trouble with listing, once. It returns false when there is nothing left to poll.
func (c *container) explain(err error) (goOn bool) {
	s := c.s
	kind := kindOf(err)
	if kind == missing && isPattern(c.origin) {
		// It is found again when it comes back.
		s.log.Info("container is gone", "container", c.name)
		s.troubles.Count(string(kind))
		s.troubles.Forget(c.listing(), "")
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, b := range c.blobs {
			s.forget(b)
		}
		delete(s.containers, c.name)
		return false
	}
	begin := func(level slog.Level, text string, attrs ...any) {
		s.troubles.Begin(c.listing(), "", string(kind), level, text, append([]any{"container", c.name}, attrs...)...)
	}
	switch {
	case kind == missing && c.exists:
		begin(slog.LevelWarn, "container was deleted; waiting for it to come back")
		c.exists = false
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, b := range c.blobs {
			s.forget(b)
		}
	case kind == missing:
		begin(slog.LevelInfo, "container does not exist yet: Defender creates it with the first event of its table", "account", s.account.host)
	case kind == throttled, kind == network:
		begin(slog.LevelWarn, "list container: retrying", "error", s.account.explain(err, false))
	default:
		begin(slog.LevelError, "list container: retrying", "error", s.account.explain(err, false))
	}
	return true
}

// poll looks for new blobs: folders now and then, the current day, and an older day of the window
// in turn. Its price does not grow with the age of the container.
func (c *container) poll() error {
	s := c.s
	c.calls = 0
	if c.roots == nil && !c.others || c.polls%discoverEvery == 0 {
		if err := c.discover(); err != nil {
			return err
		}
	} else if err := c.load(true); err != nil {
		return err
	}
	c.exists = true
	s.mu.Lock()
	c.listed = true
	s.mu.Unlock()
	if err := c.sweeper.setAside(); err != nil {
		return err
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
		for _, d := range window {
			// Days that have come to this worker since the last poll are listed at once.
			prefix := dayPrefix(root, d)
			p := c.part(prefix)
			before, known := c.days[prefix]
			if p != nil && (slices.Contains(which, d) || known && before != p) {
				if err := c.listDay(root, d); err != nil {
					return err
				}
			}
			c.days[prefix] = p
		}
	}
	if len(c.days) > 2*len(c.roots)*len(window) {
		clear(c.days) // of folders and days that are over: at the next poll all are known again
	}
	c.recheck()
	c.polls++
	return nil
}

// discover lists the folders at the top. It is also how a container is found to exist.
func (c *container) discover() error {
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
		if err == nil || kindOf(err) == missing {
			if e := c.load(err == nil); e != nil {
				return e
			}
		}
		if err != nil {
			return err
		}
		for _, f := range folders {
			switch {
			case len(roots) >= maxRoots:
				others = true
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
	for _, root := range c.deep {
		if !slices.Contains(roots, root) && len(roots) < maxRoots {
			roots = append(roots, root)
		}
	}
	c.roots, c.others = roots, others
	return nil
}

// listDay lists the blobs of a day to the last page, and drops those that are gone. While there is
// no room for more blobs it stops early.
func (c *container) listDay(root string, d time.Time) error {
	s := c.s
	prefix, marker, begun := dayPrefix(root, d), "", time.Now()
	switch {
	case strings.HasPrefix(s.cfg.Prefix, prefix):
		prefix = s.cfg.Prefix
	case !strings.HasPrefix(prefix, s.cfg.Prefix):
		return nil
	}
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
	gone := make(changes)
	s.mu.Lock()
	for name, b := range c.blobs {
		if b.seen.Before(begun) && b.shard.reading && strings.HasPrefix(name, prefix) {
			s.forget(b)
			gone.add(b.shard.book, input.Change{Key: b.lane})
		}
	}
	s.mu.Unlock()
	return gone.write()
}

// recheck queues blobs whose unfinished last line is not waited for any longer, and lets go of
// those that have left the window.
func (c *container) recheck() {
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

// take looks at blobs as they were listed by a request made at asked, and queues those with
// something to read. page is the sweep's page, nil for a poll.
func (c *container) take(items []item, page *sweepPage, asked time.Time) error {
	s := c.s
	chosen := make(changes)
	now := time.Now()
	for _, it := range items {
		if !isEvents(it.name) {
			c.leaveOut(it)
			continue
		}
		c.some = true
		c.learn(it.name, page)
		p := c.part(it.name)
		if p == nil {
			continue // another worker's
		}
		s.mu.Lock()
		b := c.blobs[it.name]
		if b != nil && b.shard != p.shard {
			// It was read under another right than now. A blob that was only learnt from is let go
			// of. Others still have events on their way.
			if c.learnt != nil && b.shard == c.learnt.shard {
				b.gone = true
				s.settle(b)
			}
			if b = c.blobs[it.name]; b != nil {
				s.mu.Unlock()
				continue
			}
		}
		s.mu.Unlock()
		if b == nil {
			var err error
			var change *input.Change
			if b, change, err = c.meet(p, it); err != nil {
				return err
			}
			if change != nil {
				chosen.add(p.book, *change)
			}
			if b == nil {
				continue
			}
		}
		if it.archived && !b.busyNow(s) {
			if change, err := c.asleep(b, it); err != nil {
				return err
			} else if change != nil {
				chosen.add(p.book, *change)
			}
			continue
		}
		s.mu.Lock()
		if !p.live() {
			s.mu.Unlock()
			continue
		}
		if c.blobs[it.name] == nil && b.given > 0 && s.inWindow(b) && asked.Before(s.heard) {
			s.mu.Unlock() // for the same reason as below: it may be the one
			continue
		}
		b.seen = now
		if c.blobs[it.name] == nil {
			c.blobs[it.name] = b
			b.shard.tails++
			s.active++
			s.counts.found++
		}
		// A blob may have grown since it was listed, and may have been read meanwhile. Compared
		// with this old list it would seem to have shrunk, and to be another one.
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
		s.warms(b)
		if s.due(b) {
			s.add(b)
		} else {
			s.settle(b)
		}
		s.mu.Unlock()
	}
	return chosen.write()
}

// leaveOut says, once, that blobs of other names are not read.
func (c *container) leaveOut(it item) {
	if it.size > 0 && !c.ignored {
		c.ignored = true
		c.s.log.Info("only blobs named .json, .jsonl, .ndjson or .gz are read", "container", c.name, "first_left_out", it.name, "bytes", it.size)
	}
}

// asleep has the state file remember a blob in the archive tier, which cannot be read, as unread.
func (c *container) asleep(b *tail, it item) (*input.Change, error) {
	s := c.s
	if !c.archived {
		c.archived = true
		s.log.Warn("blobs in the archive tier cannot be read and are left out; rehydrate them and they are read", "container", c.name, "first", it.name, "bytes", it.size)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b.archived = true
	s.warmed(b)
	if c.blobs[b.name] == b {
		b.seen = time.Now()
		s.release(b)
	}
	if b.left || b.pos >= it.size && b.safe >= b.given {
		return nil, nil
	}
	b.left = true
	c.asleepBlobs++
	c.asleepBytes += it.size
	s.counts.asleep++
	s.counts.asleepBytes += it.size
	e := b.entry(b.safe)
	e.left = true
	if b.etag == "" {
		e.created, e.modified, e.etag = it.created, it.modified, it.etag
	}
	return &input.Change{Key: b.lane, Value: []byte(e.String())}, nil
}

// busyNow tells whether a worker reads b.
func (b *tail) busyNow(s *Source) bool { s.mu.Lock(); defer s.mu.Unlock(); return b.busy }

// learn notes the folder of days that a blob lies in, which a sweep has found. Its current day is
// listed at every poll from then on.
func (c *container) learn(name string, page *sweepPage) {
	if page == nil || len(c.roots) >= maxRoots {
		return
	}
	for _, root := range c.roots {
		if rest, ok := strings.CutPrefix(name, root); ok && strings.HasPrefix(rest, "y=") {
			return
		}
	}
	if hourOf(name).IsZero() {
		return
	}
	root := rootOf(name)
	c.roots = append(c.roots, root)
	c.deep = append(c.deep, root)
}

// meet decides where to begin in a blob that is not active. It returns nil when there is nothing to
// read, and a position to store when one had to be chosen.
func (c *container) meet(p *part, it item) (b *tail, change *input.Change, err error) {
	s := c.s
	lane := c.name + "/" + it.name
	text, err := p.book.get(lane)
	if err != nil {
		return nil, nil, err
	}
	b = &tail{c: c, shard: p.shard, name: it.name, lane: lane, hour: hourOf(it.name), term: input.NewTerm(), modified: it.modified, ask: s.buffers.piece, place: atLine}
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := func() bool { return !s.inWindow(b) || s.active >= s.maxIdle }
	if it.size == 0 && idle() {
		return nil, nil, nil
	}
	if text != "" {
		e, err := parseEntry(text)
		if err != nil {
			s.log.Error("read the stored position of a blob: it cannot be used, and the blob is read from its beginning", "blob", lane, "error", err)
			return b, nil, nil
		}
		b.restore(e)
		if same := e.created == it.created && e.etag == it.etag; same && (e.done || e.form != gzipped && e.offset >= it.size) && idle() {
			return nil, nil, nil
		}
		return b, nil, nil
	}
	if p.record.read(it.name, it.modified) {
		return nil, nil, nil
	}
	start := s.cfg.Start
	if p == c.learnt {
		// It reads recent and future reports of devices.
		start = input.Start{Latest: true}
	}
	switch {
	case !start.At.IsZero() && !b.hour.IsZero():
		if !b.hour.Add(time.Hour).After(start.At) {
			return nil, nil, nil
		}
	case !start.At.IsZero():
		if it.modified < start.At.Unix() {
			return nil, nil, nil
		}
	case start.Latest && c.warm && s.recent(it.modified):
		// Read from its beginning, as a new one.
	case start.Latest && (p.first || p == c.learnt && !s.recent(it.modified) || it.created < p.since.Unix() && it.modified < p.since.Unix()):
		// It was there at the first start. After the first poll, new bytes cannot be told from
		// those that were there before. So a blob that has changed since is read whole.
		b.created, b.etag, b.size, b.append = it.created, it.etag, it.size, it.append
		if b.form = plain; it.size > 0 {
			b.move(it.size, inLine) // its end may lie inside a line, whose rest then is no event
		}
		young := it.modified >= s.account.now().Add(-s.keep()).Unix()
		if young && it.size > 0 {
			change = &input.Change{Key: lane, Value: []byte(b.entry(it.size).String())}
		}
		if idle() {
			return nil, change, nil
		}
	}
	return b, change, nil
}
