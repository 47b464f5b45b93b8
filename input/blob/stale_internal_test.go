package blob

import (
	"log/slog"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// staleSource follows one blob, which was read to byte 150 at now. older is what a list says of it
// that was asked for before.
func staleSource(now time.Time) (c *container, b *tail, older []item) {
	s := &Source{log: slog.New(slog.DiscardHandler), account: &account{}, shards: []*shard{{book: newBook(nil), reading: true, fresh: make(map[string]bool)}}, buffers: newBuffers(1<<20, 1), cfg: Config{Lookback: 48 * time.Hour},
		troubles: input.NewTroubles(slog.New(slog.DiscardHandler)), queue: queue{changed: make(chan struct{}, 1)}, active: 1, maxIdle: 1}
	c = newContainer(s, "c", "c", false)
	if err := c.load(true); err != nil {
		panic(err)
	}
	s.containers = map[string]*container{"c": c}
	b = &tail{c: c, shard: s.shards[0], name: "x.json", lane: "c/x.json", term: 7, created: now.Unix() - 100, modified: now.Unix(), size: 150, append: true,
		pos: 150, end: 150, given: 150, place: atLine, etag: "2", heard: now}
	c.blobs["x.json"] = b
	return c, b, []item{{name: "x.json", size: 100, etag: "1", created: b.created, modified: b.modified, append: true}}
}

// A list that was asked for before the blob was read shows it smaller than it is known to be. That
// is no sign of another blob, which would be read again from its beginning; the same in a later
// list is.
func TestStaleListIsNoReplacement(t *testing.T) {
	now := time.Now()
	c, b, older := staleSource(now)
	b.safe = b.given
	if err := c.take(older, nil, now.Add(-time.Second)); err != nil || b.term != 7 || b.pos != 150 || b.size != 150 {
		t.Errorf("a stale list: term %d, position %d, %v", b.term, b.pos, err)
	}
	if err := c.take(older, nil, now.Add(time.Second)); err != nil || b.term == 7 || b.pos != 0 {
		t.Errorf("a blob that is smaller now: term %d, position %d, %v", b.term, b.pos, err)
	}
}

// So it is when the blob was let go of meanwhile, because too many are followed.
func TestStaleListOfABlobThatWasLetGo(t *testing.T) {
	now := time.Now()
	c, b, older := staleSource(now)
	c.s.maxIdle = 0
	if err := c.s.Commit(t.Context(), []input.Mark{{Lane: b.lane, Term: b.term, Next: b.given}}); err != nil || c.blobs["x.json"] != nil {
		t.Fatalf("the blob was not let go of: %v", err)
	}
	if err := c.take(older, nil, now.Add(-time.Second)); err != nil || c.blobs["x.json"] != nil || c.s.counts.replaced != 0 {
		t.Errorf("a stale list: followed %v, %d replaced, %v", c.blobs["x.json"] != nil, c.s.counts.replaced, err)
	}
	if err := c.take(older, nil, now.Add(time.Second)); err != nil || c.s.counts.replaced != 1 || c.blobs["x.json"].pos != 0 {
		t.Errorf("a blob that is smaller now: %d replaced, %v", c.s.counts.replaced, err)
	}
}

// A blob whose lease is lost is not read on, also before anybody has noticed.
func TestLostBlobIsNotDue(t *testing.T) {
	c, b, _ := staleSource(time.Now())
	b.size = 200
	lease := input.NewLease(input.Now(), time.Minute)
	b.shard.lease = lease
	if !c.s.due(b) {
		t.Error("a blob with something to read is not due")
	}
	lease.Lose()
	if c.s.due(b) {
		t.Error("a blob is read on although its lease is lost")
	}
}

// What was asked of a claim that is over means nothing to the next claim of its shard.
func TestEndOfAClaimIsOnlyItsOwn(t *testing.T) {
	c, _, _ := staleSource(time.Now())
	sh := &sharing{s: c.s}
	old, now := &claim{h: c.s.shards[0]}, &claim{h: c.s.shards[0]}
	c.s.shards[0].claim = now
	if sh.stopReading(old); !c.s.shards[0].reading {
		t.Error("the claim before has ended reading")
	}
	if sh.stopReading(now); c.s.shards[0].reading {
		t.Error("a shard that is left is still read")
	}
}

// All shards are lost between two steps of a sweep: there is nothing to store, and no panic.
func TestSweepWithoutShards(t *testing.T) {
	c, _, _ := staleSource(time.Now())
	c.sweeper.pass = &pass{pages: []*sweepPage{{next: "m"}, {open: 1}}}
	if err := c.sweeper.advance(); err != nil {
		t.Error(err)
	}
}
