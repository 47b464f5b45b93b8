package blob

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

const (
	defaultTailWait   = time.Hour
	defaultFetchBytes = 64 << 20

	// How long after its last change a blob's position is kept. It must be longer than any late
	// growth. Those of shards are held in memory, and written again and again.
	keepAlone  = 30 * 24 * time.Hour
	keepShared = 7 * 24 * time.Hour

	// A blob that is followed takes some 600 bytes. So at most maxIdle blobs with nothing to read
	// are followed. Others are compared with their stored position whenever they are listed. While
	// maxActive are followed in all, no more are listed.
	maxIdle   = 10_000
	maxActive = 20_000

	// maxContainers is how many containers are followed, each by a goroutine. Defender has some 30
	// tables.
	maxContainers = 2000

	// fetchEnough: one Fetch gathers about this many bytes of the pieces that are ready; a batch's
	// worth.
	fetchEnough = 2 << 20
)

// Source tails blobs. See the package comment.
type Source struct {
	cfg     Config
	log     *slog.Logger
	account *account
	shards  []*shard // one, unless they are shared
	shared  *sharing // nil without blob.shared
	buffers *buffers
	gzip    chan struct{} // who reads a gzip blob: one at a time, see buffers

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	fatal  chan error  // a panic in one of our goroutines
	ready  chan *piece // to Fetch, in order within a lane
	held   []*piece    // of the last Fetch
	out    []input.Message

	troubles *input.Troubles

	warmTold bool // Config.Warmed was called; of Fetch

	mu         sync.Mutex // covers the fields below, the blobs and containers, except a busy blob's fields that its worker owns
	containers map[string]*container
	active     int       // blobs in all containers
	heard      time.Time // of those that were let go of: when one was last read or asked about by itself
	maxIdle    int
	maxActive  int
	crowded    bool // maxActive was reached, and that was logged
	tooMany    bool // maxContainers was reached, and that was logged
	queue      queue
	backlog    int // blobs found by a sweep that are not read and safe yet
	asked      int // blobs that pages of sweeps may bring which are asked for now
	counts     counts
	warm       warmUp
}

var _ input.Source = (*Source)(nil)

// Open begins to read. It asks nothing of the service before it returns. Problems there are logged
// while the source keeps trying. Its error is one of the configuration.
func Open(_ context.Context, cfg Config, state *input.State, log *slog.Logger) (*Source, error) {
	if cfg.TailWait <= 0 {
		cfg.TailWait = defaultTailWait
	}
	if cfg.FetchBytes <= 0 {
		cfg.FetchBytes = defaultFetchBytes
	}
	if cfg.LineLimit <= 0 {
		cfg.LineLimit = mostLine
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 1
	}
	if cfg.PollInterval <= 0 {
		cfg.PollInterval = time.Minute
	}
	var short string
	if cfg.Shared != "" {
		cfg.worker, short = newWorker()
		cfg.agent = "defender-" + short
	}
	a, err := openAccount(cfg)
	if err != nil {
		return nil, err
	}
	s := &Source{
		cfg:        cfg,
		log:        log,
		account:    a,
		shards:     []*shard{{book: newBook(state), reading: true, fresh: make(map[string]bool)}},
		buffers:    newBuffers(cfg.FetchBytes, cfg.Workers),
		gzip:       make(chan struct{}, 1),
		fatal:      make(chan error, 1),
		ready:      make(chan *piece),
		containers: make(map[string]*container),
		maxIdle:    maxIdle,
		maxActive:  maxActive,
		queue:      queue{changed: make(chan struct{})},
		troubles:   input.NewTroubles(log),
		warm:       newWarmUp(cfg.Warmed != nil),
	}
	s.cfg.LineLimit = max(s.cfg.LineLimit, s.buffers.piece) // so that longAsk is more than a piece
	if cfg.Shared != "" {
		if s.shared, err = openSharing(s); err != nil {
			return nil, err
		}
		s.shards = nil
		for n := range max(cfg.Shards, 1) {
			s.shards = append(s.shards, &shard{n: n})
		}
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if s.shared != nil {
		s.start(s.shared.run)
	}
	for range cfg.Workers {
		s.start(s.work)
	}
	var patterns []string
	for _, name := range cfg.Containers {
		if isPattern(name) {
			patterns = append(patterns, name)
		} else {
			s.follow(name, name, true)
		}
	}
	if len(patterns) > 0 {
		s.start(func() { s.find(patterns) })
	} else {
		s.found()
	}
	return s, nil
}

// keep is how long after its last change a blob's position is kept.
func (s *Source) keep() time.Duration {
	if s.shared != nil {
		return max(keepShared, 2*s.cfg.Lookback)
	}
	return keepAlone
}

// Name is "blob".
func (s *Source) Name() string { return "blob" }

// start runs f in a goroutine that Close waits for. A panic there ends the source, not the process.
func (s *Source) start(f func()) {
	s.wg.Go(func() {
		defer func() {
			if r := recover(); r != nil {
				select {
				case s.fatal <- fmt.Errorf("read blobs: panic: %v\n%s", r, debug.Stack()):
				default:
				}
			}
		}()
		f()
	})
}

// Fetch returns lines that are ready, at least one. Their bytes are valid until the next call.
func (s *Source) Fetch(ctx context.Context) ([]input.Message, error) {
	for _, p := range s.held {
		s.buffers.put(p)
	}
	s.held, s.out = s.held[:0], s.out[:0]
	for len(s.held) == 0 {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case err := <-s.fatal:
			s.fatal <- err // for every call from now on
			return nil, err
		case <-s.warmWait():
			s.tellWarm()
		case p := <-s.ready:
			s.take(p)
		}
	}
	for size := len(s.held[0].data); size < fetchEnough; {
		select {
		case p := <-s.ready:
			s.take(p)
			size += len(p.data)
		default:
			return s.out, nil
		}
	}
	return s.out, nil
}

func (s *Source) take(p *piece) {
	s.held = append(s.held, p)
	s.out = append(s.out, p.messages...)
}

// Keep is Commit where positions are on this machine only. Where they are shared it leaves them to
// Commit: they are written to the service.
func (s *Source) Keep(ctx context.Context, marks []input.Mark) error {
	if s.shared != nil {
		return nil
	}
	return s.Commit(ctx, marks)
}

// Commit stores positions. Marks of blobs that were replaced or are gone, or whose lease is lost,
// are dropped.
func (s *Source) Commit(ctx context.Context, marks []input.Mark) error {
	moved, shards := make(changes), make(map[*shard]bool)
	s.mu.Lock()
	for _, m := range marks {
		if b := s.blob(m.Lane); b != nil && b.term == m.Term && b.shard.lease.Held() {
			if b.shard.claim != nil {
				shards[b.shard] = true
			}
			moved.add(b.shard.book, input.Change{Key: m.Lane, Value: []byte(b.entry(m.Next).String())})
		}
	}
	s.mu.Unlock()
	if err := moved.write(); err != nil {
		return fmt.Errorf("store positions of blobs: %w", err)
	}
	var failed map[*shard]error
	var err error
	if len(shards) > 0 {
		failed = s.shared.commit(ctx, shards)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range marks {
		if b := s.blob(m.Lane); b != nil && b.term == m.Term {
			// The mark of a lost shard is not written, and no longer on its way: another worker
			// reads its events.
			if e := failed[b.shard]; e != nil && !isLost(e) && b.shard.lease.Held() {
				err = fmt.Errorf("write positions of blobs: %w", s.shared.account.explainShared(e, s.cfg.Shared))
				continue
			}
			b.safe = max(b.safe, m.Next)
			b.left = false
			b.prune()
			if s.due(b) {
				s.add(b)
			} else {
				s.settle(b)
			}
		}
	}
	return err
}

// blob finds an active blob by its lane, "container/name".
func (s *Source) blob(lane string) *tail {
	name, rest, _ := strings.Cut(lane, "/")
	if c := s.containers[name]; c != nil {
		return c.blobs[rest]
	}
	return nil
}

// Close ends all reading and waits for it.
func (s *Source) Close() error {
	s.cancel()
	s.wg.Wait()
	if s.shared != nil {
		s.shared.close()
	}
	s.account.close()
	return nil
}

// follow begins to poll a container. origin is the name or pattern in the settings. early: it was
// there when this process first looked for that.
func (s *Source) follow(name, origin string, early bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.containers[name] != nil {
		return
	}
	if len(s.containers) >= maxContainers {
		if !s.tooMany {
			s.tooMany = true
			s.log.Error("this section cannot follow so many containers; name the ones to read in blob.containers", "followed", maxContainers, "first_left_out", name)
		}
		return
	}
	c := newContainer(s, name, origin, early)
	if c.warming = c.warm && s.warm.on; c.warming {
		s.warm.listing++
	}
	s.containers[name] = c
	s.start(c.run)
}

// find looks for the containers of patterns, again and again: a container exists only after its
// table's first event.
func (s *Source) find(patterns []string) {
	var wait input.Backoff
	const subject = "list containers"
	empty, early := false, make(map[string]bool)
	for s.ctx.Err() == nil {
		begun := time.Now()
		found, err := s.match(patterns, early)
		pause := 5 * s.cfg.PollInterval
		switch kind := kindOf(err); {
		case s.ctx.Err() != nil:
			return
		case err != nil:
			begun, pause = time.Now(), max(min(wait.Next(), s.cfg.PollInterval), retryAfter(err))
			remedy := ""
			if kind == denied {
				remedy = "; a signature for one container cannot list containers: then name it in blob.containers"
			}
			s.troubles.Begin(subject, "", string(kind), slog.LevelError, "list containers: no new ones are found until this works"+remedy,
				"account", s.account.host, "error", s.account.explain(err, false))
		default:
			wait.Reset()
			s.found()
			s.troubles.End(subject, "", "account", s.account.host)
			if found == 0 {
				pause = s.cfg.PollInterval
				if !empty {
					s.noneMatches(patterns)
				}
			}
			empty = found == 0
		}
		_ = input.Sleep(s.ctx, max(pause-time.Since(begun), 0))
	}
}

// noneMatches logs that there is no container to read, and which others there are.
func (s *Source) noneMatches(patterns []string) {
	others, err := s.account.others(s.ctx)
	if err == nil && len(others) > 0 {
		s.log.Warn("no container matches yet, although there are others; check blob.containers",
			"blob.containers", strings.Join(patterns, " "), "others", strings.Join(others, " "), "account", s.account.host)
		return
	}
	s.log.Info("no container matches yet: Defender creates each with the first event of its table",
		"blob.containers", strings.Join(patterns, " "), "account", s.account.host)
}

// match follows the containers of patterns, and returns how many there are. known has the patterns
// that were looked for before.
func (s *Source) match(patterns []string, known map[string]bool) (found int, err error) {
	for _, pattern := range patterns {
		begun := s.account.surely() // before the listing: a container that is made during it is new
		names, err := s.account.match(s.ctx, pattern)
		if err != nil {
			return 0, err
		}
		for h, k := range s.readNow() {
			if _, err := s.since(h, k, pattern, begun); err != nil {
				return 0, err
			}
		}
		found += len(names)
		for _, name := range names {
			s.follow(name, pattern, !known[pattern])
		}
		known[pattern] = true
	}
	return found, nil
}

// readNow returns the shards that are read, with their books.
func (s *Source) readNow() map[*shard]*book {
	s.mu.Lock()
	defer s.mu.Unlock()
	shards := make(map[*shard]*book)
	for _, h := range s.shards {
		if h.reading {
			shards[h] = h.book
		}
	}
	return shards
}

// since returns when a name or pattern of the settings was first looked for in a shard: what start
// `latest` means. When this is the first time, it is fresh.
func (s *Source) since(h *shard, k *book, origin string, now time.Time) (time.Time, error) {
	key := "#since/" + origin
	v, err := k.get(key)
	if err != nil {
		return time.Time{}, err
	}
	if n, e := strconv.ParseInt(v, 10, 64); e == nil {
		return time.Unix(n, 0).UTC(), nil
	}
	now = now.Truncate(time.Second)
	if err := k.write([]input.Change{{Key: key, Value: strconv.AppendInt(nil, now.Unix(), 10)}}); err != nil {
		return now, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h.fresh[origin] = true
	return now, nil
}

// emit hands a piece to Fetch, or takes it back when it holds nothing. Then pos is b's position.
func (s *Source) emit(b *tail, p *piece, pos int64) error {
	s.mu.Lock()
	b.pos = pos
	if n := len(p.messages); n > 0 {
		b.given = p.messages[n-1].Mark.Next
	}
	lease := b.shard.lease
	s.mu.Unlock()
	if lease != nil {
		for i := range p.messages {
			p.messages[i].Lease = lease
		}
	}
	if len(p.messages) == 0 {
		s.buffers.put(p)
		return nil
	}
	select {
	case s.ready <- p:
		return nil
	case <-s.ctx.Done():
		s.buffers.put(p)
		return s.ctx.Err()
	}
}
