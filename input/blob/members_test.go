package blob_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
)

// memberLease is long enough for a renewal in time on a machine that is busy.
const memberLease = 5 * time.Second

// member is a worker inside of this process, which hands over what it reads by a lease that holds.
type member struct {
	t      *testing.T
	src    *blob.Source
	log    *logs
	cancel context.CancelFunc
	done   chan struct{}
	hold   atomic.Bool // nothing is handed over, nor committed

	mu             sync.Mutex
	handed, learnt map[string]int
	backs          int   // how often events were set back
	refused        error // by the last commit that failed
}

func join(t *testing.T, cfg blob.Config) *member { return joinFor(t, cfg, 0) }

// joinFor is join with commits so far apart.
func joinFor(t *testing.T, cfg blob.Config, commits time.Duration) *member {
	t.Helper()
	return joinWith(t, cfg, commits, func(*blob.Source) {})
}

// joinWith is joinFor, with a source that is prepared.
func joinWith(t *testing.T, cfg blob.Config, commits time.Duration, prepare func(*blob.Source)) *member {
	t.Helper()
	m := &member{t: t, log: &logs{}, done: make(chan struct{}), handed: make(map[string]int), learnt: make(map[string]int)}
	cfg.SetBack = func() { m.mu.Lock(); m.backs++; m.mu.Unlock() }
	src, err := blob.Open(context.Background(), cfg, nil, m.log.logger())
	if err != nil {
		t.Fatal(err)
	}
	prepare(src)
	m.src = src
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go func() {
		defer close(m.done)
		var mu sync.Mutex
		pending := make(input.Marks)
		commit := func() {
			mu.Lock()
			defer mu.Unlock()
			var marks []input.Mark
			for _, mark := range pending {
				marks = append(marks, mark)
			}
			err := src.Commit(ctx, marks)
			if err == nil {
				clear(pending)
				return
			}
			m.mu.Lock()
			m.refused = err
			m.mu.Unlock()
		}
		var committing sync.WaitGroup
		defer committing.Wait()
		if commits > 0 {
			committing.Go(func() {
				for input.Sleep(ctx, commits) == nil {
					commit()
				}
			})
		}
		for {
			messages, err := src.Fetch(ctx)
			if err != nil {
				return
			}
			for m.hold.Load() && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			mu.Lock()
			m.mu.Lock()
			for _, message := range messages {
				if message.Lease == input.OnlyLearn {
					m.learnt[string(message.Body)]++
				} else if message.Lease == nil {
					t.Errorf("an event without a lease: %s", message.Body)
				} else if message.Lease.Held() {
					m.handed[string(message.Body)]++
				}
				pending.Set(message.Mark)
			}
			m.mu.Unlock()
			mu.Unlock()
			if commits == 0 {
				commit()
			}
		}
	}()
	t.Cleanup(m.leave)
	return m
}

// leave ends the worker in good order, once.
func (m *member) leave() {
	if m.cancel == nil {
		return
	}
	m.cancel()
	<-m.done
	if err := m.src.Close(); err != nil {
		m.t.Error(err)
	}
	m.cancel = nil
}

func (m *member) owned() int { return len(m.src.ShardsRead()) }

func until(t *testing.T, what string, members []*member, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			for _, m := range members {
				t.Logf("stats %+v\nlog:\n%s", m.src.Stats().Shared, m.log)
			}
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// came counts how often each event was handed over, by all.
func came(members ...*member) map[string]int {
	all := make(map[string]int)
	for _, m := range members {
		m.mu.Lock()
		for text, n := range m.handed {
			all[text] += n
		}
		m.mu.Unlock()
	}
	return all
}

// spread lets blobs of several tenants grow by a line each, and returns how many there are.
func spread(a *account, text string) int {
	const tenants = 20
	for i := range tenants {
		for k, table := range sharedTables {
			name := strings.Replace(pt1h(time.Now()), "0aa/", fmt.Sprintf("%03d/", i), 1)
			a.fake.Append(table, name, fmt.Appendf(nil, "{\"%s\":%d}\r\n", text, i*len(sharedTables)+k))
		}
	}
	return tenants * len(sharedTables)
}

// each checks that n events came, and each of them once; but for so many.
func each(t *testing.T, n, repeats int, members ...*member) {
	t.Helper()
	defer func() {
		if t.Failed() {
			of := make(map[string]int)
			for text := range came(members...) {
				what, _, _ := strings.Cut(text, ":")
				of[what]++
			}
			t.Logf("%d of %d events came: %v", len(came(members...)), n, of)
		}
	}()
	until(t, fmt.Sprintf("%d events", n), members, func() bool { return len(came(members...)) >= n })
	time.Sleep(200 * time.Millisecond) // some polls
	again := 0
	for text, k := range came(members...) {
		if again += k - 1; k > 1 && repeats == 0 {
			t.Errorf("%s came %d times", text, k)
		}
	}
	if got := len(came(members...)); got != n || again > repeats {
		t.Errorf("%d events, want %d; %d came again, want %d at most", got, n, again, repeats)
	}
}

func newShared(t *testing.T, lease time.Duration) (*account, blob.Config) {
	a := newFake(t, append([]string{sharedContainer}, sharedTables...)...)
	a.fake.SetLeases(lease)
	return a, a.sharedConfig(lease)
}

// Workers come to a fair share, and give it back when they stop: at once, and with their positions.
func TestFairShare(t *testing.T) {
	t.Parallel()
	const lease = 3 * memberLease
	a, cfg := newShared(t, lease)
	first := join(t, cfg)
	until(t, "all shards", []*member{first}, func() bool { return first.owned() == 16 })
	n := spread(a, "one")
	each(t, n, 0, first)
	second, third := join(t, cfg), join(t, cfg)
	all := []*member{first, second, third}
	fairly := func() bool {
		counts := []int{first.owned(), second.owned(), third.owned()}
		slices.Sort(counts)
		return counts[0] == 5 && counts[1] == 5 && counts[2] == 6
	}
	until(t, "a third each", all, fairly)
	n += spread(a, "two")
	each(t, n, 0, all...)
	if lost := first.src.Stats().Shared.Lost; lost > 0 {
		t.Errorf("%d leases were lost where all had time to give them back", lost)
	}
	had := second.owned()
	var released atomic.Int64
	a.fake.SetAnswered(func(r fakeblob.Request, status int) {
		if r.HTTP.Header.Get("x-ms-lease-action") == "release" && status == 200 {
			released.Add(1)
		}
	})
	second.leave()
	if n := released.Load(); n < int64(had) {
		t.Errorf("a worker that stopped gave %d of its %d shards back", n, had)
	}
	until(t, "the others to have its shards", all, func() bool { return first.owned()+third.owned() == 16 })
	n += spread(a, "three")
	each(t, n, 0, all...)
	first.leave()
	third.leave()
	again := join(t, cfg) // without any file
	n += spread(a, "four")
	each(t, n, 0, append(all, again)...)
}

// A worker that reaches the service no more hands over nothing from before its leases end; what it
// had read and not handed over, another reads. When it comes back, it starts from what is stored.
func TestLeaseIsLost(t *testing.T) {
	t.Parallel()
	const lease = 3 * memberLease
	a, cfg := newShared(t, lease)
	first := join(t, cfg)
	until(t, "all shards", []*member{first}, func() bool { return first.owned() == 16 })
	agent := "defender-" + first.log.worker(t)
	first.hold.Store(true) // as when its host takes nothing
	n := spread(a, "one")
	until(t, "something to be read", []*member{first}, func() bool { return first.src.Stats().Reads > 20 })
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if strings.HasPrefix(r.Agent, agent) {
			return &fakeblob.Fault{Status: 503, Code: "ServerBusy"}
		}
		return nil
	})
	begun := time.Now()
	second := join(t, cfg)
	all := []*member{first, second}
	until(t, "the other to have all", all, func() bool { return second.owned() == 16 })
	if took := time.Since(begun); took > lease*75/60+lease { // as long again for a slow machine
		t.Errorf("taken over after %v, where leases last %v", took, lease)
	}
	if first.owned() != 0 || first.src.Stats().Shared.Lost != 16 {
		t.Errorf("the first still reads %d shards, and has lost %d", first.owned(), first.src.Stats().Shared.Lost)
	}
	first.hold.Store(false)
	each(t, n, 0, all...)
	if got := len(came(first)); got > 0 {
		t.Errorf("%d events were handed over by a worker that had lost their leases", got)
	}
	a.fake.SetFault(nil)
	until(t, "half each", all, func() bool { return first.owned() == 8 && second.owned() == 8 })
	n += spread(a, "two")
	each(t, n, 0, all...)
	first.mu.Lock()
	defer first.mu.Unlock()
	if first.backs == 0 {
		t.Error("what was given up and may be read again still counts as a repeat")
	}
	for _, want := range []string{"lost shards", "claimed shards"} {
		if !strings.Contains(first.log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}

// A worker that has lost its leases while events of them wait claims none again before those are
// dropped: they would else be handed over as if they were of the new lease, or count as repeats.
func TestNothingIsClaimedOverWhatWaits(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	m := join(t, cfg)
	all := []*member{m}
	until(t, "all shards", all, func() bool { return m.owned() == 16 })
	m.hold.Store(true)
	n := spread(a, "one")
	reads := m.src.Stats().Reads
	until(t, "some to be read", all, func() bool { return m.src.Stats().Reads > reads+4 })
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if r.Container == sharedContainer {
			return &fakeblob.Fault{Status: 503, Code: "ServerBusy"}
		}
		return nil
	})
	until(t, "the leases to be lost", all, func() bool { return m.src.Stats().Shared.Lost == 16 })
	a.fake.SetFault(nil)
	looks := a.fake.Lists(sharedContainer)
	until(t, "some looks", all, func() bool { return a.fake.Lists(sharedContainer) > looks+4 })
	if k := m.owned(); k == 16 {
		t.Errorf("all %d shards were claimed while events of some of them wait", k)
	}
	m.mu.Lock()
	if m.backs > 0 && len(m.handed) > 0 {
		t.Error("something was handed over")
	}
	m.mu.Unlock()
	m.hold.Store(false)
	until(t, "all shards again", all, func() bool { return m.owned() == 16 })
	each(t, n, 0, m)
}

// worker is what the log says that a worker is called, the end of it.
func (l *logs) worker(t *testing.T) string {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, rest, ok := strings.Cut(l.String(), " worker="); ok {
			name, _, _ := strings.Cut(rest, " ")
			return name[strings.LastIndexByte(name, '-')+1:]
		}
	}
	t.Fatal("the log does not name the worker")
	return ""
}

// A shard's lease that somebody ends is claimed again, and nothing comes twice that was written.
func TestLeaseIsBroken(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	first, second := join(t, cfg), join(t, cfg)
	all := []*member{first, second}
	until(t, "all shards", all, func() bool { return first.owned() == 8 && second.owned() == 8 })
	n := spread(a, "one")
	each(t, n, 0, all...)
	for k := range 16 {
		a.fake.BreakLease(sharedContainer, fmt.Sprintf("shard-%03d", k))
	}
	until(t, "all to be noticed", all, func() bool {
		return first.src.Stats().Shared.Lost+second.src.Stats().Shared.Lost >= 16
	})
	until(t, "all shards again", all, func() bool { return first.owned() == 8 && second.owned() == 8 })
	n += spread(a, "two")
	each(t, n, 0, all...)
}

// A shard whose blob is damaged, or gone with the container, costs no event.
func TestShardsAreDamaged(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		latest bool
		stop   bool // the workers that know the positions are gone, too
		hold   bool // nothing of what is read is handed over before the damage
		damage func(a *account)
	}{
		{"damaged", true, true, false, func(a *account) {
			for n := range 16 {
				a.fake.Put(sharedContainer, fmt.Sprintf("shard-%03d", n), []byte("nothing that anybody has written"))
			}
		}},
		{"damaged while they run", true, false, false, func(a *account) {
			for n := range 16 {
				a.fake.BreakLease(sharedContainer, fmt.Sprintf("shard-%03d", n))
				a.fake.Put(sharedContainer, fmt.Sprintf("shard-%03d", n), []byte{0x1f, 0x8b, 8, 0, 0})
			}
		}},
		{"the container is deleted and made again", true, false, false, func(a *account) {
			a.fake.DeleteContainer(sharedContainer)
			time.Sleep(memberLease + time.Second)
			a.fake.CreateContainer(sharedContainer)
		}},
		{"the container is deleted while events wait", true, false, true, func(a *account) {
			a.fake.DeleteContainer(sharedContainer)
			time.Sleep(memberLease + time.Second)
			a.fake.CreateContainer(sharedContainer)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, cfg := newShared(t, memberLease)
			cfg.Start.Latest = c.latest
			first, second := join(t, cfg), join(t, cfg)
			all := []*member{first, second}
			until(t, "all shards", all, func() bool { return first.owned() == 8 && second.owned() == 8 })
			polled(t, a, all)
			n := spread(a, "one")
			each(t, n, 0, all...)
			repeats := 0
			if c.stop {
				first.leave()
				second.leave()
			}
			for _, m := range all {
				m.hold.Store(c.hold)
			}
			reads := first.src.Stats().Reads + second.src.Stats().Reads
			n += spread(a, "two") // some are read by then, and others not
			if c.hold {
				until(t, "some to be read", all, func() bool { return first.src.Stats().Reads+second.src.Stats().Reads > reads })
			}
			c.damage(a)
			for _, m := range all {
				m.hold.Store(false)
			}
			if c.stop {
				third := join(t, cfg)
				all = append(all, third)
				repeats = n
				defer third.log.says(t, "its positions are damaged")
			}
			n += spread(a, "three")
			if !c.stop {
				repeats = n // what the other of the two had read, or reads until it sees the damage
			}
			each(t, n, repeats, all...)
		})
	}
}

// Somebody ends the leases while events are on their way. They are not handed over under a lease
// that is lost, so their marks must not count under the next lease of the same worker.
func TestLeaseEndsWhileEventsWait(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	m := join(t, cfg)
	all := []*member{m}
	until(t, "all shards", all, func() bool { return m.owned() == 16 })
	polled(t, a, all)
	n := spread(a, "one")
	each(t, n, 0, m)
	m.hold.Store(true)
	reads := m.src.Stats().Reads
	n += spread(a, "two")
	until(t, "some to be read", all, func() bool { return m.src.Stats().Reads > reads })
	lost := m.src.Stats().Shared.Lost
	for n := range 16 {
		a.fake.BreakLease(sharedContainer, fmt.Sprintf("shard-%03d", n))
	}
	until(t, "the leases to be lost", all, func() bool { return m.src.Stats().Shared.Lost >= lost+16 })
	time.Sleep(memberLease / 2) // some looks at the shards
	m.hold.Store(false)
	each(t, n, n, m)
}

// polled waits until each worker has looked at each container: what comes from now on is new.
func polled(t *testing.T, a *account, members []*member) {
	t.Helper()
	for _, table := range sharedTables {
		before := a.fake.Lists(table)
		until(t, "polls", members, func() bool { return a.fake.Lists(table) > before+20 })
	}
}

func (l *logs) says(t *testing.T, text string) {
	t.Helper()
	if !strings.Contains(l.String(), text) {
		t.Errorf("the log does not say %q:\n%s", text, l)
	}
}

// The service's clock differs by an hour from that of the workers: leases go by time that passes.
func TestSharedClockIsOff(t *testing.T) {
	t.Parallel()
	const lease = 3 * memberLease
	a, cfg := newShared(t, lease)
	cfg.Auth, cfg.SAS, cfg.AccountURL = "sas", input.NewSecret("sv=1&se="+time.Now().Add(24*time.Hour).UTC().Format(time.RFC3339)+"&sig=x"), a.fake.URL()
	cfg.ConnectionString = input.NewSecret("") // a key does not allow for so much
	var off atomic.Int64
	off.Store(int64(time.Hour))
	a.fake.SetClock(func() time.Time { return time.Now().Add(time.Duration(off.Load())) })
	first, second := join(t, cfg), join(t, cfg)
	all := []*member{first, second}
	until(t, "all shards", all, func() bool { return first.owned() == 8 && second.owned() == 8 })
	n := spread(a, "one")
	each(t, n, 0, all...)
	// And now it is behind, on the same day: blobs of tomorrow are not looked for.
	off.Store(-int64(min(time.Hour, time.Since(time.Now().UTC().Truncate(24*time.Hour)))))
	time.Sleep(lease)
	n += spread(a, "two")
	each(t, n, 0, all...)
	if lost := first.src.Stats().Shared.Lost + second.src.Stats().Shared.Lost; lost > 0 {
		t.Errorf("%d leases were lost to a clock", lost)
	}
}

// Every worker reads what devices report, the one that has the shard hands it over.
func TestDevicesAreLearntByAll(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	cfg.Warm = func(container string) bool { return strings.HasSuffix(container, "-deviceinfo") }
	cfg.WarmUp = 3 * time.Hour
	cfg.Start.Latest = true
	cfg.Containers = []string{"insights-logs-advancedhunting-deviceinfo"}
	day := func(i int) string { return strings.Replace(pt1h(time.Now()), "0aa/", fmt.Sprintf("%03d/", i), 1) }
	for i := range 20 {
		a.fake.Append(cfg.Containers[0], day(i), fmt.Appendf(nil, "{\"early\":%d}\r\n", i))
	}
	first, second := join(t, cfg), join(t, cfg)
	all := []*member{first, second}
	until(t, "all shards", all, func() bool { return first.owned() == 8 && second.owned() == 8 })
	for i := range 20 {
		a.fake.Append(cfg.Containers[0], day(i), fmt.Appendf(nil, "{\"late\":%d}\r\n", i))
	}
	knows := func(m *member) int {
		m.mu.Lock()
		defer m.mu.Unlock()
		both := make(map[string]bool)
		for text := range m.handed {
			both[text] = true
		}
		for text := range m.learnt {
			both[text] = true
		}
		return len(both)
	}
	until(t, "all reports at both", all, func() bool { return knows(first) == 40 && knows(second) == 40 })
	each(t, 40, 0, all...)
	second.leave() // what was only learnt is handed over from where the other left off
	until(t, "all shards", all, func() bool { return first.owned() == 16 })
	for i := range 20 {
		a.fake.Append(cfg.Containers[0], day(i), fmt.Appendf(nil, "{\"last\":%d}\r\n", i))
	}
	each(t, 60, 0, all...)
}

// Workers that divide the blobs into another number of shards would not know each other's
// positions.
func TestShardsDiffer(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	first := join(t, cfg)
	until(t, "all shards", []*member{first}, func() bool { return first.owned() == 16 })
	cfg.Shards = 8
	second := join(t, cfg)
	until(t, "an error", []*member{second}, func() bool {
		return strings.Contains(second.log.String(), "level=ERROR") && strings.Contains(second.log.String(), "set it to 16")
	})
	each(t, spread(a, "one"), 0, first, second)
	if second.owned() > 0 {
		t.Errorf("it reads %d shards", second.owned())
	}
}

// What is wrong with the shared container is named by the check.
func TestCheckShared(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, 0)
	cfg.Containers = sharedTables[:1]
	finding := func() input.Finding {
		all := blob.Check(t.Context(), cfg)
		return all[len(all)-1]
	}
	if f := finding(); f.Err != nil || !strings.Contains(f.String(), sharedContainer+" (blob.shared): ok, may be listed, written and leased") {
		t.Error(f)
	}
	if src, err := a.client.ServiceClient().NewContainerClient(sharedContainer).NewListBlobsFlatPager(nil).NextPage(t.Context()); err != nil || len(src.Segment.BlobItems) > 0 {
		t.Errorf("the check leaves something behind: %v", err)
	}
	for _, c := range []struct {
		step string
		op   fakeblob.Op
	}{{"list", fakeblob.ListBlobs}, {"write", fakeblob.Change}, {"lease", fakeblob.Lease}} {
		a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
			if r.Container == sharedContainer && r.Op == c.op {
				return &fakeblob.Fault{Status: 403, Code: "AuthorizationPermissionMismatch"}
			}
			return nil
		})
		if f := finding(); f.Err == nil || !strings.Contains(f.String(), c.step+": 403") {
			t.Error(f)
		}
	}
	a.fake.SetFault(nil)
	a.fake.DeleteContainer(sharedContainer)
	if f := finding(); f.Err == nil || !strings.Contains(f.String(), "az storage container create") {
		t.Error(f)
	}
	src, err := blob.Open(t.Context(), cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := src.Close(); err != nil { // nothing was claimed
		t.Error(err)
	}
}
