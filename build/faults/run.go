package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/azurite"
	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/build/kafka"
)

// A row is one fault, as a script that brings it about under load.
type row struct {
	name   string
	fault  string // its description in the table
	source string
	hosts  hosts
	ci     bool
	loses  string                      // not empty: a loss that is the host's and promised by nobody, and why
	excuse string                      // the fate of events that nobody can deliver any more
	needs  func(context.Context) error // not nil: prepares the servers of the row, or says how to get them
	limit  time.Duration
	script func(r *run)
}

type hosts int

const (
	cHost hosts = 1 << iota
	fluentBit
	both = cHost | fluentBit
)

// A run is a row while it is run on one host. Its methods end the row's goroutine when something is
// not as it must be.
type run struct {
	ctx    context.Context
	opt    *options
	row    *row
	real   bool // on Fluent Bit
	dir    string
	rnd    *rand.Rand
	ledger *ledger
	gen    *generator
	valve  sync.Mutex // held while a feed puts events in, and by a fault that the feed must not notice

	broker     broker       // of the hubs
	hub        *fakehub.Hub // the same, when it is the fake
	kafka      *kafka.Server
	messages   map[string]int64 // in each hub
	partitions int32            // of each hub
	account    string           // connection string
	blob       *fakeblob.Server // the same account, when it is the fake
	azurite    *azurite.Server
	append     func(container, blob string, data []byte) error
	sinkOnce   sync.Once
	sinkUp     *sink
	hosts      []*host
	lives      []*process

	repeatable int // events that were handed over just before a SIGKILL
	secrets    []string
	notes      []string

	unnumbered bool // events without a number may come out

	mu       sync.Mutex
	cleanups []func()
	failures []string
}

// outcome is a line of the table.
type outcome struct {
	row      *row
	host     string
	count    count
	peak     usage
	took     time.Duration
	notes    []string
	failures []string
	skipped  string
}

// do runs a row on one host.
func (o *options) do(ctx context.Context, w *row, real bool) outcome {
	result := outcome{row: w, host: "C host"}
	if real {
		result.host = "Fluent Bit"
	}
	limit := w.limit
	if limit == 0 {
		limit = 5 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	dir, err := os.MkdirTemp("", "faults-"+w.name+"-")
	if err != nil {
		result.failures = []string{err.Error()}
		return result
	}
	var tag uint64
	for _, c := range []byte(w.name) {
		tag = tag*131 + uint64(c)
	}
	l := &ledger{}
	r := &run{ctx: ctx, opt: o, row: w, real: real, dir: dir, ledger: l,
		rnd: rand.New(rand.NewPCG(o.seed, tag)), gen: newGenerator(o.seed^tag, l)}
	begin := time.Now()
	done := make(chan struct{})
	go func() { // its own goroutine, because fatalf ends it
		defer close(done)
		defer r.cleanUp()
		defer func() {
			if p := recover(); p != nil {
				buf := make([]byte, 64<<10)
				r.failf("panic: %v\n%s", p, buf[:runtime.Stack(buf, false)])
			}
		}()
		w.script(r)
	}()
	<-done
	result.took = time.Since(begin)
	r.judge()
	result.count, result.notes, result.failures = l.count(), r.notes, r.failures
	for _, p := range r.lives {
		result.peak.most(p.peak())
	}
	switch {
	case len(r.failures) > 0 && !o.quiet:
		result.failures = append(result.failures, "its files are in "+dir)
	case o.keep:
		fmt.Fprintf(os.Stderr, "  the files of %s are in %s\n", w.name, dir)
	default:
		_ = os.RemoveAll(dir)
	}
	return result
}

// judge fails the row for findings that no row may have.
func (r *run) judge() {
	c := r.ledger.count()
	if c.lost > 0 && r.row.loses == "" && len(r.failures) == 0 {
		r.failf("%d events lost, such as numbers %v", c.lost, r.ledger.missing(10))
	}
	for _, s := range c.strange {
		r.failf("%s", s)
	}
	if c.others > 0 && !r.unnumbered {
		r.failf("%d events came out without a number, and are unreadable to nobody's knowledge", c.others)
	}
	if c.in == 0 {
		r.failf("nothing went in")
	}
	for _, h := range r.hosts {
		log := h.log()
		for _, s := range r.secrets {
			if s != "" && strings.Contains(log, s) {
				r.failf("%s: a secret is in its log", h.name)
			}
		}
		for _, bad := range []string{"BROKEN RULE", "UNDECODABLE", "panic", "fatal error:", "SIGSEGV", "BUG:"} {
			if i := strings.Index(log, bad); i >= 0 {
				end := min(len(log), i+2000)
				r.failf("%s: the log says %s", h.name, log[i:end])
			}
		}
	}
}

// cleanup has f called when the row ends, last in first out.
func (r *run) cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *run) cleanUp() {
	for {
		r.mu.Lock()
		n := len(r.cleanups)
		if n == 0 {
			r.mu.Unlock()
			return
		}
		f := r.cleanups[n-1]
		r.cleanups = r.cleanups[:n-1]
		r.mu.Unlock()
		f()
	}
}

func (r *run) failf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

// fatalLater is for goroutines that are not the row's own.
func (r *run) fatalLater(err error) { r.failf("%v", err) }

// fatalf fails the row and ends it. Only the row's own goroutine may call it.
func (r *run) fatalf(format string, args ...any) {
	r.failf(format, args...)
	runtime.Goexit()
}

// notef adds a remark to the line of the table.
func (r *run) notef(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// sleep waits, and ends the row when its time is up.
func (r *run) sleep(d time.Duration) {
	pause(r.ctx, d)
	if r.ctx.Err() != nil {
		r.fatalf("the row's time is up")
	}
}

// between draws a duration.
func (r *run) between(least, most time.Duration) time.Duration {
	return least + time.Duration(r.rnd.Int64N(int64(most-least)+1))
}

// until waits for something to become true, for at most d.
func (r *run) until(d time.Duration, what string, ok func() bool) {
	for end := time.Now().Add(d); !ok(); {
		if time.Now().After(end) {
			tails := ""
			for _, h := range r.hosts {
				tails += "\n" + h.name + ": " + h.lastLog(8)
			}
			r.fatalf("waited %v for %s%s", d, what, tails)
		}
		r.sleep(20 * time.Millisecond)
	}
}

// drain waits until everything that went in has come out. When nothing new has come for longer than
// the longest back-off, it gives up, and the missing events are lost.
func (r *run) drain() {
	// A host that refused is asked again after 15 s at most. A member of the group may be gone
	// without a word, such as one that ends while its credentials are revoked. It holds the others
	// up for a session timeout of 30 s, and twice when it was their leader.
	patience := 120 * time.Second
	if r.opt.quiet {
		patience = 20 * time.Second
	}
	begin := time.Now()
	for !r.ledger.complete() {
		last := r.ledger.count().last
		if last.Before(begin) {
			last = begin
		}
		if time.Since(last) > patience {
			return
		}
		r.sleep(50 * time.Millisecond)
	}
}

// finish waits for the rest of the feed and for all to come out, then stops the hosts.
func (r *run) finish(feeds ...*feed) {
	for _, f := range feeds {
		f.wait(r)
	}
	r.drain()
	r.finishNow()
	r.checkHub()
}

func (r *run) sink() *sink {
	r.sinkOnce.Do(func() { r.sinkUp = r.newSink() })
	return r.sinkUp
}

func (r *run) newSink() *sink {
	s, err := startSink(r.ledger, r.fatalLater)
	if err != nil {
		r.fatalf("%v", err)
	}
	r.cleanup(func() { _ = s.setDown(true) })
	return s
}

// ---- the Event Hub ----

const hubName = "insights-logs-advancedhunting"

// perMessage is how many records a message of the load holds.
const perMessage = 20

// A broker is the fake of Event Hubs or a real Kafka.
type broker interface {
	ConnectionString() string
	Brokers() string
	ClientOpts() []kgo.Opt
	Produce(ctx context.Context, hub string, messages ...[]byte) error
}

// startHub starts a namespace with one hub, or with those named, and returns hubSection.
func (r *run) startHub(partitions int32, names ...string) section {
	if len(names) == 0 {
		names = []string{hubName}
	}
	o := fakehub.Options{Hubs: map[string]int32{}}
	for _, name := range names {
		o.Hubs[name] = partitions
	}
	o.Kfake = []kfake.Opt{kfake.BrokerConfigs(map[string]string{"message.max.bytes": "33554432"})} // as a dedicated cluster, and more
	h, err := fakehub.Start(o)
	if err != nil {
		r.fatalf("%v", err)
	}
	r.cleanup(h.Close)
	r.hub, r.partitions = h, partitions
	r.useBroker(h)
	return r.hubSection()
}

func (r *run) useBroker(b broker) {
	r.broker, r.messages = b, map[string]int64{}
	r.keepSecret(b.ConnectionString(), "SharedAccessKey=")
}

// keepSecret has the logs searched for a connection string and the key in it.
func (r *run) keepSecret(connection, name string) {
	for part := range strings.SplitSeq(connection, ";") {
		if key, ok := strings.CutPrefix(part, name); ok {
			r.secrets = append(r.secrets, connection, key)
		}
	}
}

const group = "faults"

// hubSection is a section that reads a hub from its beginning, with a state file.
func (r *run) hubSection() section {
	s := section{
		"eventhub.connection_string": r.broker.ConnectionString(),
		"eventhub.brokers":           r.broker.Brokers(),
		"eventhub.hubs":              hubName,
		"eventhub.group":             group,
		"eventhub.start":             "earliest",
		"db":                         filepath.Join(r.dir, "state.db"),
	}
	if r.hub != nil {
		return s.with("eventhub.ca_file", r.hub.CAFile())
	}
	return s.with("eventhub.tls", "off")
}

// toHub puts events into a hub.
func (r *run) toHub(name string) func(events int) error {
	return func(events int) error {
		var messages [][]byte
		for ; events > 0; events -= perMessage {
			messages = append(messages, r.gen.envelope(min(events, perMessage)))
		}
		return r.produce(name, messages...)
	}
}

func (r *run) produce(hub string, messages ...[]byte) error {
	r.messages[hub] += int64(len(messages))
	return r.broker.Produce(r.ctx, hub, messages...)
}

func (r *run) feedHub(n int, d time.Duration) *feed { return r.feed(n, d, r.toHub(hubName)) }

// checkHub makes sure that the harness has not itself produced a message twice: that would look
// like duplicates.
func (r *run) checkHub() {
	for name, want := range r.messages {
		var got int64
		r.admin(func(ctx context.Context, a *kadm.Client) error {
			ends, err := a.ListEndOffsets(ctx, name)
			ends.Each(func(o kadm.ListedOffset) { got += o.Offset })
			return errors.Join(err, ends.Error())
		})
		if got != want {
			r.failf("the hub %s holds %d messages, %d were produced: the harness is wrong", name, got, want)
		}
	}
}

// evict takes all members out of the consumer group. The broker does so by itself when it has not
// heard of one for the session timeout of 30 s. A row that kills twenty times cannot wait for that.
func (r *run) evict() {
	r.client(evict)
}

func evict(ctx context.Context, c *kgo.Client) error {
	groups, err := kadm.NewClient(c).DescribeGroups(ctx, group)
	switch {
	case errors.Is(err, kerr.CoordinatorNotAvailable): // a Kafka that has never had a group
		return nil
	case err != nil:
		return err
	}
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = group
	for _, m := range groups[group].Members {
		member := kmsg.NewLeaveGroupRequestMember()
		member.MemberID = m.MemberID
		req.Members = append(req.Members, member)
	}
	if len(req.Members) > 0 {
		_, err = req.RequestWith(ctx, c)
	}
	return err
}

// ---- Blob Storage ----

const blobContainer = "insights-logs-advancedhunting-all"

// startBlob starts a storage account with a container, and returns blobSection.
func (r *run) startBlob() section {
	s, err := fakeblob.Start()
	if err != nil {
		r.fatalf("%v", err)
	}
	r.cleanup(s.Close)
	s.CreateContainer(blobContainer)
	r.blob, r.account = s, s.ConnectionString()
	r.append = func(container, blob string, data []byte) error { s.Append(container, blob, data); return nil }
	r.keepSecret(r.account, "AccountKey=")
	return r.blobSection()
}

// blobName is the blob of an hour, as the streaming API names it.
func blobName(at time.Time) string {
	return "tenantId=5f0c1d2e-7a34-4b56-9c78-0d1e2f3a4b5c" + at.UTC().Format("/y=2006/m=01/d=02/h=15") + "/m=00/PT1H.json"
}

// toBlob appends events to the blob of this hour.
func (r *run) toBlob(events int) error { return r.toBlobNamed(blobName(time.Now()), events) }

func (r *run) toBlobNamed(name string, events int) error {
	return r.toBlobIn(blobContainer, name, events)
}

func (r *run) toBlobIn(container, name string, events int) error {
	for ; events > 0; events -= 100 { // a block of the service holds some 35 kB, ours a little more
		if err := r.append(container, name, r.gen.lines(min(events, 100))); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) feedBlob(n int, d time.Duration) *feed { return r.feed(n, d, r.toBlob) }

// merge joins settings into one section.
func merge(sections ...section) section {
	all := section{}
	for _, s := range sections {
		for k, v := range s {
			all[k] = v
		}
	}
	return all
}

// finishNow stops the hosts without waiting for missing events.
func (r *run) finishNow() {
	for _, h := range r.hosts {
		if h.process != nil && h.process.running() {
			h.stop()
		}
		if h.tail != nil {
			h.tail.close()
		}
	}
}

// allCommitted tells whether the group has committed all that the hub holds.
func (r *run) allCommitted() bool {
	var committed int64
	r.admin(func(ctx context.Context, a *kadm.Client) error {
		offsets, err := a.FetchOffsets(ctx, group)
		if errors.Is(err, kerr.GroupIDNotFound) {
			return nil
		}
		for _, o := range offsets[hubName] {
			committed += o.At
		}
		return err
	})
	return committed == r.messages[hubName]
}

// draw returns a source of random numbers of its own, for functions that other goroutines call, one
// at a time.
func (r *run) draw() func(n int) int {
	rnd := rand.New(rand.NewPCG(r.rnd.Uint64(), r.rnd.Uint64()))
	return rnd.IntN
}
