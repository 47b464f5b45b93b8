package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/machines"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// Settings are the keys that concern the instance as a whole.
var Settings = []input.Setting{
	{Key: "db", Kind: input.Text, Doc: "The state file: positions of blobs, a copy of Event Hubs offsets, known devices. Each section needs its own."},
	{Key: "tag_pattern", Kind: input.Text, Doc: "A tag for each table, such as `defender.*`, where `*` becomes the table; without it events have the section's own `tag`."},
	{Key: "tables", Kind: input.List, Doc: "The only tables to pass on, such as `AlertInfo, AlertEvidence`; all when empty."},
	{Key: "tables_exclude", Kind: input.List, Doc: "Tables to leave out."},
	{Key: "separator", Kind: input.Text, Default: ".", Doc: "What joins the names of nested objects."},
	{Key: "keep_nulls", Kind: input.Switch, Default: "off", Doc: "Keep columns that are null or empty."},
	{Key: "resolve_refs", Kind: input.Switch, Default: "off", Doc: "Write what a `$ref` refers to in its place; this multiplies the number of fields."},
	{Key: "event_id", Kind: input.Switch, Default: "on", Doc: "Add `event_id`, the same for the same event however often it is delivered."},
	{Key: "arrays", Kind: input.Choice, Default: "list", Choices: []string{"list", "json"}, Doc: "Write arrays as lists, or as JSON text."},
	{Key: "check_only", Kind: input.Switch, Default: "off", Doc: "Try every connection once, say in the log what works and what to check, and stop: Fluent Bit ends with status 0 if all of it works."},
	{Key: "memory_limit", Kind: input.Bytes, Default: "256M", Doc: "The most memory that this section takes in all: events that are fetched, transformed and wait for Fluent Bit, what is known of devices, and the plugin itself; at least 64M."},
}

// declared lists every key of a section: what is read, what the README shows, what a misspelt key is compared with.
func declared() []input.Setting {
	return slices.Concat(Settings, eventhub.Settings, blob.Settings, deviceSettings, machines.Settings, signin.Settings)
}

const (
	// How often the host's thread comes by. No event waits for longer than that without a reason, and what is read meanwhile
	// stays small.
	tickEvery = 25 * time.Millisecond

	// The host does nothing else during a tick: no flush, no other input. After tickTime no batch is begun; one that is under way
	// is finished, since the exit of a host in the middle of a batch repeats it, unless it takes longer than tickMost.
	tickTime = 20 * time.Millisecond
	tickMost = 250 * time.Millisecond

	// resumeWait is how long a section that was over a limit waits after it was resumed: at a limit every append pauses it, the host
	// logs each time, and what it has stored keeps its outputs busy for longer.
	resumeWait = 250 * time.Millisecond

	leastMemory = 64 << 20

	// ownMemory is what a section takes beside events and devices: connections, the state file, lists of blobs, what the garbage
	// collector has not come to yet.
	ownMemory = 24 << 20
)

// instance is one [INPUT] section: its sources, each with a pump into the one outbox, and the hand-over from there to the host.
type instance struct {
	host   host
	logs   *logQueue
	log    *slog.Logger
	memory int64 // bytes that the settings allow

	outbox     *input.Outbox
	transforms []*transform.Transformer        // one for each pump
	eventhub   atomic.Pointer[eventhub.Source] // the one that is open now
	blob       atomic.Pointer[blob.Source]     // likewise
	devices    *devices                        // nil when device_info is off
	state      *input.State
	cancel     context.CancelFunc
	pumps      sync.WaitGroup
	stopped    chan struct{} // closed when everything that was started has ended

	// Of the host's thread only.
	restsUntil time.Time // when its share of the host's thread allows it to hand over again; set by generation
	limited    bool      // paused by the host inside an append of this instance; set by generation
	refusedAt  time.Time // when the host began to refuse; zero while it does not
	retryAt    time.Time
	wait       input.Backoff
	handed     uint64 // bytes that the host has taken
	refusals   uint64
	reportedAt time.Time // when the metrics were last brought up to date
	lanesSeen  map[[2]string]bool
	storeCheck int // appends that are still to be looked at for where they went
}

// newInstance reads the settings and starts the instance. When it fails, the log says all that is wrong and nothing is left running.
func newInstance(h host) (_ *instance, err error) {
	in := newUnstarted(h)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
		if err != nil {
			for _, e := range split(err) {
				in.log.Error(e.Error())
			}
			if in.cancel != nil {
				in.stop()
				<-in.stopped
			} else {
				if in.devices != nil {
					in.devices.close()
				}
				_ = closeState(in.state)
			}
		}
		in.logs.drain(h.print)
	}()

	known := declared()
	in.logs.hide(secrets(h.get, known))
	s := input.NewSettings(h.get, known)
	c := readConfig(s)
	s.FindMisspelt()
	if err := s.Err(); err != nil {
		return nil, err
	}
	if c.db != "" {
		if in.state, err = input.OpenState(c.db, in.log); err != nil {
			return nil, err
		}
	} else {
		in.log.Warn("db is not set: " + c.withoutState() + "; set db to the path of a file to keep positions")
	}
	in.log.LogAttrs(context.Background(), slog.LevelInfo, "starting version "+version, s.Effective()...)
	if c.checkOnly {
		if err := in.check(c); err != nil {
			return nil, err
		}
		c.eventhub, c.blob = nil, nil
		in.start(c)
		h.quit()
		return in, nil
	}
	if c.devices != nil {
		if in.devices, err = openDevices(c.devices, in.state, in.log); err != nil {
			return nil, err
		}
		c.transform.Devices = in.devices.Devices
	}
	in.start(c)
	return in, nil
}

// newUnstarted returns an instance of which nothing runs yet.
func newUnstarted(h host) *instance {
	in := &instance{
		host:       h,
		logs:       newLogQueue(h.debug),
		stopped:    make(chan struct{}),
		wait:       input.Backoff{First: time.Second, Max: 15 * time.Second},
		storeCheck: 3,
	}
	in.log = slog.New(in.logs.handler(h.prefix()))
	return in
}

// config is what the settings of a section say.
type config struct {
	db         string
	checkOnly  bool
	tagPattern string
	memory     int64
	transform  transform.Config
	eventhub   *eventhub.Config // nil when nothing is set for it
	blob       *blob.Config     // likewise
	devices    *deviceConfig    // nil when device_info is off
}

// withoutState says what is missing without a state file.
func (c config) withoutState() string {
	if c.blob != nil {
		return "after a restart blobs are read from where blob.start says, and events are missed or repeated"
	}
	return "should the consumer group's offsets vanish, as Event Hubs reserves, reading begins where eventhub.start says and events are missed or repeated"
}

func readConfig(s *input.Settings) (c config) {
	c.db = s.Text("db")
	c.checkOnly = s.Switch("check_only")
	c.tagPattern = s.Text("tag_pattern")
	c.memory = s.Bytes("memory_limit")
	c.transform = transform.Config{
		Separator:     s.Text("separator"),
		KeepNulls:     s.Switch("keep_nulls"),
		ResolveRefs:   s.Switch("resolve_refs"),
		EventID:       s.Switch("event_id"),
		ArraysAsJSON:  s.Choice("arrays") == "json",
		Tables:        s.List("tables"),
		TablesExclude: s.List("tables_exclude"),
	}
	if c.memory < leastMemory {
		s.Reject("memory_limit", "is too little; set at least 64M")
	}
	if err := checkTagPattern(c.tagPattern); err != "" {
		s.Reject("tag_pattern", err)
	}
	id := signin.Read(s)
	if cfg, configured := eventhub.ReadConfig(s, id); configured {
		c.eventhub = &cfg
	}
	if cfg, configured := blob.ReadConfig(s, id); configured {
		c.blob = &cfg
	}
	c.devices = readDeviceConfig(s, id, c.memory)
	if c.blob != nil && c.devices != nil {
		c.blob.WarmUp = c.devices.warmUp
	}
	if c.eventhub == nil && c.blob == nil {
		s.Reject("eventhub.connection_string", "no source is configured; set it for an Event Hub, or blob.connection_string for a storage account")
	}
	return c
}

// start starts a pump for each source.
func (in *instance) start(c config) {
	in.memory = c.memory
	events := c.memory - ownMemory
	if c.devices != nil {
		events -= c.devices.memory.CacheBytes
	}
	in.lanesSeen = make(map[[2]string]bool)
	in.outbox = input.NewOutbox(events / 2)
	ctx, cancel := context.WithCancel(context.Background())
	in.cancel = cancel

	var opens []func(context.Context) (input.Source, error)
	if cfg := c.eventhub; cfg != nil {
		opens = append(opens, func(ctx context.Context) (input.Source, error) {
			src, err := eventhub.Open(ctx, *cfg, in.state, in.log)
			if err != nil {
				return nil, err
			}
			in.eventhub.Store(src)
			return src, nil
		})
	}
	if cfg := c.blob; cfg != nil {
		opens = append(opens, func(ctx context.Context) (input.Source, error) {
			src, err := blob.Open(ctx, *cfg, in.state, in.log)
			if err != nil {
				return nil, err
			}
			in.blob.Store(src)
			return src, nil
		})
	}
	fetch := events / 4 / int64(max(1, len(opens))) // the last quarter is for what is being transformed, and for garbage
	if c.eventhub != nil {
		c.eventhub.FetchBytes = fetch
	}
	if c.blob != nil {
		c.blob.FetchBytes = fetch
	}
	for _, open := range opens {
		p := &input.Pump{Open: open, Transform: in.newTransform(c), Outbox: in.outbox, Log: in.log}
		in.pumps.Go(func() { p.Run(ctx) })
	}
}

// newTransform returns the work between a source and the outbox, for one pump.
func (in *instance) newTransform(c config) func(context.Context, *input.Batch, []input.Message) {
	var (
		t        = transform.New(c.transform)
		tags     = newTags(c.tagPattern)
		payloads []transform.Payload
		batch    *input.Batch
		emit     = func(table string, event []byte) { batch.Append(tags.of(table), event) }
	)
	in.transforms = append(in.transforms, t)
	return func(ctx context.Context, dst *input.Batch, messages []input.Message) {
		payloads = payloads[:0]
		for i := range messages {
			m := &messages[i]
			payloads = append(payloads, transform.Payload{Body: m.Body, Lane: m.Mark.Lane, Offset: m.Offset, Reason: m.Reason})
		}
		batch = dst
		t.Append(ctx, payloads, emit)
		batch = nil
		clear(payloads)
	}
}

// handOver appends what waits, until the tick has lasted long enough or the host refuses. hand is the host's append.
func (in *instance) handOver(now time.Time, hand func(tag string, data []byte) bool) {
	defer func() {
		if r := recover(); r != nil {
			in.retryAt = now.Add(in.wait.Next())
			in.log.Error("hand over events: panic; it is tried again", "panic", r, "stack", string(debug.Stack()))
		}
	}()
	if now.Before(in.retryAt) {
		return
	}
	for time.Since(now) < tickTime {
		b := in.outbox.Take()
		if b == nil {
			return
		}
		for c := b.Next(); c != nil; c = b.Next() {
			if in.limited || time.Since(now) >= tickMost {
				return
			}
			if !hand(c.Tag, c.Data) {
				in.refused(now)
				return
			}
			b.Taken()
			in.handed += uint64(len(c.Data))
			in.accepted(now)
		}
		in.outbox.Done(b)
	}
}

func (in *instance) refused(now time.Time) {
	in.refusals++
	if in.refusedAt.IsZero() {
		in.refusedAt = now
		in.log.Warn("Fluent Bit takes no events at the moment (its storage may be full, or a limit is reached); they wait, and it is asked again")
	}
	in.retryAt = now.Add(in.wait.Next())
}

func (in *instance) accepted(now time.Time) {
	in.wait.Reset()
	if !in.refusedAt.IsZero() {
		in.log.Info("Fluent Bit takes events again", "after", now.Sub(in.refusedAt).Round(time.Millisecond))
		in.refusedAt = time.Time{}
	}
	if in.storeCheck > 0 {
		in.storeCheck--
		if storesInFiles() {
			in.storeCheck = 0
		} else if in.storeCheck == 0 {
			in.log.Warn("events are not kept in files, so that Fluent Bit loses what it has not delivered when it ends; " +
				"add \"storage.type filesystem\" to this [INPUT] section and storage.path to [SERVICE], and see that an output matches the tag")
		}
	}
}

// resumed ends what a pause or refusals have begun.
func (in *instance) resumed(now time.Time) {
	in.retryAt = time.Time{}
	if in.limited {
		in.retryAt = now.Add(resumeWait)
	}
	in.limited = false
	in.wait.Reset()
}

// busy tells whether there is something that may be handed over.
func (in *instance) busy(now time.Time) bool {
	return !in.limited && !now.Before(in.retryAt) && in.outbox.Batches() > 0
}

// stop ends everything that was started. It does not wait: stopped is closed when it is done.
func (in *instance) stop() {
	in.cancel()
	in.outbox.Close()
	go func() {
		defer close(in.stopped)
		in.pumps.Wait()
		if in.devices != nil {
			in.devices.close()
		}
		if err := closeState(in.state); err != nil {
			in.log.Error("close state file", "error", err)
		}
		in.log.Info("stopped")
	}()
}

func closeState(s *input.State) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return s.Close()
}

// split returns the errors that err joins.
func split(err error) []error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	return []error{err}
}
