package eventhub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// Microsoft's values for Kafka clients of Event Hubs (azure-docs,
// event-hubs/apache-kafka-configurations.md). Azure drops connections that were idle for more than
// 240 s, and its answers can take long when it throttles.
const (
	idleTimeout    = 180 * time.Second
	metadataAge    = 180 * time.Second
	sessionTimeout = 30 * time.Second
	requestTimeout = 60 * time.Second

	// Microsoft says 3 s. But a member learns only by a heartbeat that the group waits for it to
	// join again. With three members, one that comes back after a crash would wait for so long.
	heartbeat = time.Second
)

const (
	// drainWait: a partition that is to be given away waits this long for its messages to be safe
	// and committed. Then the next owner does not read them again. It is below rejoinTimeout, and
	// more than the pump's commit interval (5 s).
	drainWait = 8 * time.Second

	// calmWait is the interval of watch while nothing is wrong.
	calmWait = 60 * time.Second
)

// waits are durations that a test need not wait for.
type waits struct {
	drain   time.Duration // see drainWait
	leave   time.Duration // how long Close waits for the broker to take our leave
	trouble time.Duration // the interval of watch while something is wrong
	join    time.Duration // after which a join without an answer is logged
}

var defaultWaits = waits{drain: drainWait, leave: 5 * time.Second, trouble: 5 * time.Second, join: 5 * time.Second}

// Source reads the partitions of hubs that its consumer group gives it.
type Source struct {
	cfg      Config
	log      *slog.Logger
	state    *input.State
	client   *kgo.Client
	budget   *budget
	troubles *input.Troubles
	members  *members
	waits    waits

	stop    context.CancelFunc // ends watch and the client's requests
	working sync.WaitGroup     // watch

	// giving is held while offsets are committed and while partitions are given away. So a commit
	// of a lane of ours ends before another member gets that lane. Take it before mu.
	giving sync.Mutex

	mu          sync.Mutex // covers the fields below; never held while waiting for the broker or the disk
	moved       *sync.Cond // a lane was committed, or ending was set
	lanes       map[string]*lane
	ending      bool
	partitions  map[string]int // of each hub that is there
	counts      counts
	skips       int       // of messages that cannot be decoded, since skipsLogged
	skipsLogged time.Time // when the log last had one

	messages []input.Message // what Fetch returned last
	idle     input.Backoff   // between polls that bring errors only, or nothing
}

var _ input.Source = (*Source)(nil)

// Open returns a source for cfg. It does not wait for the broker. If something is wrong, the log
// has it within seconds, while the source keeps trying. state may be nil.
func Open(ctx context.Context, cfg Config, state *input.State, log *slog.Logger) (*Source, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if cfg.FetchBytes <= 0 {
		cfg.FetchBytes = DefaultFetchBytes
	}
	if cfg.Group == "" {
		cfg.Group = DefaultGroup
	}
	if cfg.HubsEvery <= 0 {
		cfg.HubsEvery = metadataAge
	}
	s := &Source{
		cfg:      cfg,
		log:      log,
		state:    state,
		budget:   newBudget(cfg.FetchBytes),
		troubles: input.NewTroubles(log),
		members:  newMembers(state, cfg.Namespace, cfg.Group, log),
		waits:    defaultWaits,
		lanes:    make(map[string]*lane),
	}
	s.moved = sync.NewCond(&s.mu)
	own, stop := context.WithCancel(context.Background())
	s.stop = stop
	opts, err := s.options(own)
	if err == nil {
		_, err = kgo.NewClient(opts...) // hooks takes it
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("open event hubs source: %w", err)
	}
	s.working.Go(func() { s.watch(own) })
	if len(s.members.dead) > 0 {
		s.working.Go(func() { s.takeOut(own) })
	}
	return s, nil
}

// connection is how to reach the broker and sign in.
func (cfg *Config) connection(ctx context.Context, log *slog.Logger, b *budget, m *members) ([]kgo.Opt, error) {
	mechanism, err := cfg.mechanism()
	if err != nil {
		return nil, err
	}
	d := newDialer(cfg, b, m)
	if p, err := d.proxyFor(cfg.Brokers[0]); err == nil && p != nil {
		log.Info("connections go through the proxy of the environment (HTTPS_PROXY)", "proxy", p.Host)
	}
	return []kgo.Opt{
		kgo.WithContext(ctx),
		kgo.WithLogger(kafkaLog{log}),
		kgo.ClientID("fluent-bit-defender"),
		kgo.SeedBrokers(cfg.Brokers...),
		kgo.Dialer(d.dial),
		kgo.SASL(mechanism),

		// Kafka 2.6 has all that we need. Event Hubs has differed from Kafka in newer requests. It
		// answered ApiVersions 4 by closing the connection. It caps Metadata at 9, which has no ids
		// of topics, and later versions of other requests want those (twmb/franz-go issues 1022 and
		// 1312).
		kgo.MaxVersions(kversion.V2_6_0()),
		kgo.DisableClientMetrics(),
		kgo.ConnIdleTimeout(idleTimeout),
	}, nil
}

func (s *Source) options(ctx context.Context) ([]kgo.Opt, error) {
	opts, err := s.cfg.connection(ctx, s.log, s.budget, s.members)
	if err != nil {
		return nil, err
	}
	opts = append(opts,
		kgo.WithHooks(hooks{s}),
		kgo.MetadataMaxAge(s.cfg.HubsEvery),
		kgo.MetadataMinAge(min(s.cfg.HubsEvery, 2500*time.Millisecond)),
		kgo.RequestTimeoutOverhead(requestTimeout),
		kgo.AlwaysRetryEOF(), // credentials may be renewed, network rules mended

		kgo.ConsumerGroup(s.cfg.Group),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(sessionTimeout),
		kgo.HeartbeatInterval(heartbeat),
		kgo.RebalanceTimeout(rejoinTimeout), // which also bounds how long a join waits for members that are gone
		kgo.DisableAutoCommit(),
		// Between a poll and the end of take no partition changes hands. Otherwise, if a partition
		// went and came back meanwhile, its old records would be taken for those of its new term.
		kgo.BlockRebalanceOnPoll(),
		// In goroutines of the client, where a panic would end the host.
		kgo.AdjustFetchOffsetsFn(func(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (_ map[string]map[int32]kgo.Offset, err error) {
			defer input.Catch("decide where to start", &err)
			return s.begin(ctx, offsets)
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
			defer input.CatchAndLog(s.log, "give partitions away")
			s.revoke(gone)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
			defer input.CatchAndLog(s.log, "give partitions away")
			s.lose(gone)
		}),
		// begin decides where to start. This is for what happens behind its back: never skip
		// anything silently.
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),

		// A hub that is missing for a moment is one of them, see lane.gone.
		kgo.KeepRetryableFetchErrors(),

		// Messages of an uncommitted transaction are left out. Its markers are kept, because they
		// have offsets too: see lane.blank.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),

		// See budget.
		kgo.MaxConcurrentFetches(1),
		kgo.FetchMaxBytes(s.budget.asked),
		kgo.FetchMaxPartitionBytes(s.budget.asked),
		kgo.WithDecompressor(s.budget),
		// This only bounds nonsense. See budget.answer.
		kgo.BrokerMaxReadBytes(mostAnswer),
		// With one answer at a time, a broker without messages holds up another: this bounds the
		// time.
		kgo.FetchMaxWait(500*time.Millisecond),
	)
	if !slices.ContainsFunc(s.cfg.Hubs, isPattern) {
		return append(opts, kgo.ConsumeTopics(s.cfg.Hubs...)), nil
	}
	// With patterns every request for metadata asks for all hubs of the namespace, so the next one
	// finds a new hub (HubsEvery).
	exprs := make([]string, len(s.cfg.Hubs))
	for i, h := range s.cfg.Hubs {
		exprs[i] = "^" + strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(h)) + "$"
	}
	return append(opts, kgo.ConsumeRegex(), kgo.ConsumeTopics(exprs...)), nil
}

// hooks tells troubles how connections fare, and the source of its client.
type hooks struct{ s *Source }

// OnNewClient comes before anything of the client runs: it may well call begin before NewClient has
// returned.
func (h hooks) OnNewClient(c *kgo.Client) { h.s.client = c }

// OnBrokerConnect is called after every attempt to connect and sign in.
func (h hooks) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	defer input.CatchAndLog(h.s.log, "note a connection")
	addr := net.JoinHostPort(meta.Host, strconv.Itoa(int(meta.Port)))
	switch {
	case err == nil:
		h.s.troubles.End("connection to "+addr, "")
	case !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed):
		kind, advice := h.s.cfg.explainConnection(err)
		h.s.troubles.Begin("connection to "+addr, "", kind, slog.LevelError, advice, "broker", addr, "error", err)
	}
}

// Name is "eventhub".
func (s *Source) Name() string { return "eventhub" }

// Fetch returns the next messages of the partitions that are ours. Their bodies are valid until the
// next Fetch.
func (s *Source) Fetch(ctx context.Context) ([]input.Message, error) {
	clear(s.messages) // let go of the bodies before more is read
	if s.messages = s.messages[:0]; cap(s.messages) > mostMessages {
		s.messages = nil
	}
	// A poll waits while partitions are given away, which may wait for commits: not when we are to
	// end.
	s.mu.Lock()
	s.ending = false
	s.mu.Unlock()
	defer context.AfterFunc(ctx, s.end)()
	for {
		fetches := s.client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			// Messages that were polled meanwhile are not returned, so they are not marked either.
			s.client.AllowRebalance()
			return nil, err
		}
		skip, other, err := s.take(fetches)
		for _, l := range other {
			skip = goOn(skip, l.hub, l.partition, s.startOver(ctx, l))
		}
		if len(other) > 0 {
			s.retry(ctx) // the group has the position of another hub until then
		}
		if len(skip) > 0 {
			s.client.SetOffsets(skip)
		}
		s.client.AllowRebalance()
		if err != nil {
			return nil, err
		}
		if len(s.messages) > 0 {
			if ask, changed := s.budget.next(); changed {
				s.client.UpdateFetchMaxBytes(ask, ask)
			}
			s.idle.Reset()
			return s.messages, nil
		}
		if len(fetches.Errors()) > 0 || len(other) > 0 {
			// franz-go does not wait by itself after errors that it passes on.
			if err := input.Sleep(ctx, s.idle.Next()); err != nil {
				return nil, err
			}
		}
	}
}

// mostMessages is how long a list of messages is used again. One of many tiny messages is not kept.
const mostMessages = 10_000

// positions are offsets by hub and partition, as franz-go wants them.
type positions = map[string]map[int32]kgo.EpochOffset

// goOn adds to p, which may be nil, the offset from which to continue in a partition.
func goOn(p positions, hub string, partition int32, offset int64) positions {
	if p == nil {
		p = make(positions)
	}
	if p[hub] == nil {
		p[hub] = make(map[int32]kgo.EpochOffset)
	}
	p[hub][partition] = kgo.EpochOffset{Epoch: -1, Offset: offset}
	return p
}

// take appends the records of our lanes to s.messages. skip: offsets to continue from, for lanes in
// front of something unreadable or about to re-read their proof. other: lanes whose hub was
// recreated; nothing is taken from them.
func (s *Source) take(fetches kgo.Fetches) (skip positions, other []*lane, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		l := s.lanes[laneName(p.Topic, p.Partition)]
		if l != nil && len(p.Records) > 0 {
			to, same := s.takeRecords(l, &p.FetchPartition)
			if !same {
				other = append(other, l)
			}
			if to >= 0 {
				skip = goOn(skip, l.hub, l.partition, to)
			}
			if !same || to >= 0 {
				return // an error behind these records comes again
			}
		}
		if p.Err != nil {
			to, e := s.failed(l, p.Topic, p.Partition, p.Err)
			err = errors.Join(err, e)
			if to > 0 {
				skip = goOn(skip, p.Topic, p.Partition, to)
			}
		}
	})
	return skip, other, err
}

// takeRecords appends the records of p to s.messages. to is where the lane must be read on, or -1
// for behind them. same is false when the lane is of another hub now: then nothing was taken.
func (s *Source) takeRecords(l *lane, p *kgo.FetchPartition) (to int64, same bool) {
	if l.gone {
		l.gone = false
		return l.askAgain(), true
	}
	records := p.Records
	if l.check != nil {
		last := records[len(records)-1].Offset
		if records, same = l.prove(records); !same {
			return -1, false
		}
		l.believe()
		if len(records) == 0 {
			if last+1 != l.next {
				return l.next, true
			}
			return -1, true
		}
	}
	at := l.next // everything before it is read, or is not there
	s.follow(l, p.LogStartOffset, records[0].Offset)
	if at < 0 || at > l.next {
		at = l.next
	}
	for _, r := range records {
		if r.Attrs.IsControl() {
			if l.blank.to == 0 {
				l.blank.from = at
			}
			l.blank.to = r.Offset + 1
			continue
		}
		l.blank, at = span{}, r.Offset+1
		s.messages = append(s.messages, input.Message{
			Mark:   input.Mark{Lane: l.name, Term: l.term, Next: r.Offset + 1},
			Offset: r.Offset,
			Body:   r.Value,
		})
		s.counts.bytes += int64(len(r.Value))
		s.counts.messages++
		l.newest = r.Timestamp
	}
	l.next, l.tries = records[len(records)-1].Offset+1, 0
	l.remember(records)
	l.end = p.HighWatermark
	if p.LastStableOffset > 0 { // behind it a transaction is open
		l.end = min(l.end, p.LastStableOffset)
	}
	l.end = max(l.end, l.next)
	l.passBlank()
	if s.troubles.Any() {
		s.troubles.End("hub "+l.hub, "reading")
	}
	return -1, true
}

// startOver returns the offset from which to continue in a lane of a recreated hub: its beginning.
// If the broker does not answer where that is, the proof is checked again.
func (s *Source) startOver(ctx context.Context, l *lane) int64 {
	start, ok := s.list(ctx, []*lane{l}, atStart, false)[l.name]
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok {
		return l.check.offset
	}
	s.readFromStart(l, start)
	l.next = start
	return start
}

// readFromStart reads a hub that was deleted and created again from its beginning. mu is held.
func (s *Source) readFromStart(l *lane, at int64) {
	// Marks of this term may be ahead of the new position, so they must not count any more.
	s.log.Warn("hub was created again, or the broker lost events. It is read from its beginning",
		"hub", l.hub, "partition", l.partition, "was_at", l.next, "begins_at", at)
	l.term = input.NewTerm()
	l.began, l.safe, l.committed, l.committing, l.copied = at, at, -1, -1, -1
	l.proofs, l.check, l.gone, l.recreated, l.ahead, l.blank = nil, nil, false, true, false, span{}
}

// follow checks that a record with the offset first comes right behind the last one that was read
// of l. If not, it logs the gap. start is the beginning of the partition.
func (s *Source) follow(l *lane, start, first int64) {
	switch {
	case l.next < 0: // begin could not find out
		l.began, l.safe = first, first
	case first < l.next:
		s.readFromStart(l, first)
	case first > l.next && start > l.next:
		s.retentionTook(l, min(start, first))
	}
	l.next = first
}

// retentionTook logs and counts the messages of l that are gone, from the next one up to the offset
// to.
func (s *Source) retentionTook(l *lane, to int64) {
	s.counts.lost += to - l.next
	s.log.Error("EVENTS LOST: the hub's retention deleted them before they were read. Reading continues with the oldest left. Lengthen the retention, and find out what slowed reading",
		"hub", l.hub, "partition", l.partition, "messages_lost", to-l.next, "from_offset", l.next, "before_offset", to)
}

// failed deals with the error of a fetch, from a lane that may be nil. skipTo is not 0 when the
// lane must continue there. It returns an error that only a new client can mend.
func (s *Source) failed(l *lane, hub string, partition int32, cause error) (skipTo int64, err error) {
	var (
		loss     *kgo.ErrDataLoss
		group    *kgo.ErrGroupSession
		tooLarge *kgo.ErrDecompressTooLarge
		broker   *kerr.Error
	)
	switch {
	case errors.Is(cause, errLeft):
	case errors.Is(cause, kgo.ErrClientClosed), errors.Is(cause, kerr.UnknownTopicID):
		return 0, fmt.Errorf("read hub %s: %w", hub, cause)
	case errors.As(cause, &loss): // follow deals with it
	case errors.As(cause, &group):
		kind, advice := s.cfg.explainGroup(group.Err)
		s.troubles.Begin("consumer group", "", kind, slog.LevelError, advice, "group", s.cfg.Group, "error", group.Err)
	case l != nil && l.check != nil && (errors.As(cause, &tooLarge) || isDamage(cause)): // a proof that cannot be read proves nothing
		l.check = nil
		l.doubt()
		return l.next, nil
	case errors.As(cause, &tooLarge) && l != nil:
		return s.passOver(l, max(l.next+1, min(tooLarge.NextOffset, l.end)), cause), nil
	case errors.Is(cause, kerr.UnknownTopicOrPartition): // watch logs it
		if l != nil && l.check == nil && len(l.proofs) > 0 {
			l.gone = true
		}
	case errors.As(cause, &broker) && broker.Retriable: // franz-go tries again
	case errors.As(cause, &broker):
		kind, advice := s.cfg.explainHub(cause)
		s.troubles.Begin("hub "+hub, "reading", kind, slog.LevelError, advice, "hub", hub, "error", cause)
	case l != nil && isDamage(cause):
		if r, ok := s.budget.refusal(l.name, l.next); ok {
			return s.passOver(l, r.next, &refusalError{r}), nil
		}
		s.troubles.Begin("hub "+hub, "reading", "damaged", slog.LevelWarn, "a batch of messages cannot be decoded: it is fetched again, and skipped if that does not help",
			"hub", hub, "partition", partition, "offset", l.next, "error", cause)
		if l.tries++; l.tries >= decodeTries {
			return s.passOver(l, l.next+1, cause), nil // the rest of the batch has had its tries, too
		}
	default:
		s.troubles.Begin("hub "+hub, "reading", "fetch", slog.LevelError, "the hub cannot be read: retrying", "hub", hub, "partition", partition, "error", cause)
	}
	return 0, nil
}

// decodeTries is how often a batch that cannot be decoded is fetched before it is passed over.
const decodeTries = 5

// isDamage tells whether err is about the bytes of a batch. franz-go has no type for these
// (kgo/source.go).
func isDamage(err error) bool {
	text := err.Error()
	return slices.ContainsFunc([]string{"decompress", "crc", "not enough data", "encoded length", "magic", "record batch", "message set"},
		func(s string) bool { return strings.Contains(text, s) })
}

// skipsPause is how often skipped messages are logged at most: whoever may send could fill the log.
const skipsPause = 10 * time.Second

// passOver hands on one unreadable message in place of messages that cannot be decoded. It returns
// the offset from which l continues.
func (s *Source) passOver(l *lane, next int64, cause error) int64 {
	s.counts.unreadable += next - l.next
	s.troubles.Count("damaged")
	if s.skips++; time.Since(s.skipsLogged) >= skipsPause {
		s.log.Warn("messages that cannot be decoded are skipped, and an unreadable record reports them",
			"hub", l.hub, "partition", l.partition, "messages", next-l.next, "from_offset", l.next, "before_offset", next, "times", s.skips, "error", cause)
		s.skips, s.skipsLogged = 0, time.Now()
	}
	s.messages = append(s.messages, input.Message{
		Mark:   input.Mark{Lane: l.name, Term: l.term, Next: next},
		Offset: l.next,
		Reason: fmt.Sprintf("messages %d to %d of the partition cannot be decoded: %v", l.next, next-1, cause),
	})
	l.next = next
	return next
}

// Keep writes marks to the state file, where the next start finds them, see begin.
func (s *Source) Keep(_ context.Context, marks []input.Mark) error {
	s.giving.Lock()
	defer s.giving.Unlock()
	s.mark(marks)
	s.copy()
	return nil
}

// Commit makes marks durable: in the consumer group, and as a copy in the state file. Marks of
// lanes that were given away, or of an earlier term of a lane, are dropped.
func (s *Source) Commit(ctx context.Context, marks []input.Mark) error {
	// A partition cannot change hands until this is over, see letGo.
	s.giving.Lock()
	defer s.giving.Unlock()
	s.mark(marks)
	return s.flush(ctx)
}

// mark notes the marks that are safe.
func (s *Source) mark(marks []input.Mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range marks {
		l := s.lanes[m.Lane]
		if l == nil || l.term != m.Term {
			s.counts.stale++
			continue
		}
		l.safe = max(l.safe, m.Next)
		l.passBlank()
	}
}

// end makes revoke wait no longer: nothing more will become safe.
func (s *Source) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	s.moved.Broadcast()
}

// Close gives all partitions back and ends the source's goroutines. Marks that are safe and not yet
// committed are not committed any more.
func (s *Source) Close() error {
	s.end()
	ctx, cancel := context.WithTimeout(context.Background(), s.waits.leave)
	defer cancel()
	s.client.AllowRebalance()
	err := s.client.LeaveGroupContext(ctx)
	s.stop() // goroutines that still wait for the broker must not keep us
	s.client.Close()
	// Close polls the rest and counts that as a poll of ours. A goroutine of its own leave may wait
	// for that for ever.
	s.client.AllowRebalance()
	s.working.Wait()
	s.members.stop()
	if err == nil {
		s.members.gone()
	} else {
		s.log.Debug("leave the consumer group: the broker will drop this member by itself", "group", s.cfg.Group, "after", sessionTimeout, "error", err)
	}
	return nil
}
