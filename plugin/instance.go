package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// instance is one [INPUT] section: its sources, each with a pump into the one outbox, and the
// hand-over from there to the host.
type instance struct {
	host   host
	logs   *logQueue
	log    *slog.Logger
	memory int64  // bytes that the settings allow
	group  string // of the Event Hubs source
	format string // of the events

	outbox     *input.Outbox
	transforms []*transform.Transformer        // one for each pump
	eventhub   atomic.Pointer[eventhub.Source] // the one that is open now
	blob       atomic.Pointer[blob.Source]     // likewise
	devices    *devices                        // nil when device_info is off
	ids        *ids                            // nil when repeats are not recognised
	state      *input.State
	cancel     context.CancelFunc
	pumps      sync.WaitGroup
	stopped    chan struct{} // closed when everything that was started has ended

	handover handover // on the host's thread
	tables   []string // of the settings, until they have been compared with the records; on the host's thread
}

// newInstance reads the settings and starts the instance. When it fails, the log says all that is
// wrong and nothing is left running.
func newInstance(h host) (_ *instance, err error) {
	in := newUnstarted(h)
	defer func() {
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
		in.logs.drain(h.log)
	}()
	defer input.Catch("start the section", &err)

	known := declared()
	in.logs.hide(secrets(h.get, known))
	s := input.NewSettings(h.get, known)
	c := readConfig(s)
	s.FindMisspelt()
	s.FindUnused(c.withoutUse)
	if err := s.Err(); err != nil {
		return nil, err
	}
	for _, w := range s.Warnings() {
		in.log.Warn(w)
	}
	if c.db != "" {
		if in.state, err = input.OpenState(c.db, in.log); err != nil {
			return nil, err
		}
	} else if c.eventhub == nil && c.blob != nil && c.blob.Shared != "" {
		in.log.Info("db is not set: positions are in blob.shared, and devices are learned again at each start")
	} else {
		in.log.Warn("db is not set: " + c.withoutState() + "; set db to the path of a file to keep positions")
	}
	in.log.LogAttrs(context.Background(), slog.LevelInfo, "starting version "+version+", commit "+commit, s.Effective()...)
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
		c.transform.Devices = in.devices.Memory
		if in.devices.warmed != nil {
			c.blob.Warmed = sync.OnceFunc(func() { close(in.devices.warmed) }) // a source may be opened again
		}
	}
	if c.repeats > 0 {
		in.ids = openIDs(c, in.state, in.log)
		c.transform.Repeats = in.ids.Memory
	}
	in.start(c)
	return in, nil
}

// newUnstarted returns an instance without any running part.
func newUnstarted(h host) *instance {
	in := &instance{
		host:    h,
		logs:    newLogQueue(h.debugOn),
		stopped: make(chan struct{}),
	}
	in.log = slog.New(in.logs.handler(h.prefix()))
	in.handover = newHandover(in.log)
	return in
}

// start starts a pump for each source.
func (in *instance) start(c config) {
	in.memory = c.memory
	in.tables = slices.Concat(c.transform.Tables, c.transform.TablesExclude)
	events := c.memory - ownMemory - c.repeats
	if c.devices != nil {
		events -= c.devices.memory.CacheBytes
	}
	in.outbox = input.NewOutbox(events / 2)
	in.handover.outbox = in.outbox
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
		opened := false
		opens = append(opens, func(ctx context.Context) (input.Source, error) {
			if opened && cfg.SetBack != nil {
				cfg.SetBack() // what waits for the host was read by leases that are given back
			}
			opened = true
			src, err := blob.Open(ctx, *cfg, in.state, in.log)
			if err != nil {
				return nil, err
			}
			in.blob.Store(src)
			return src, nil
		})
	}
	in.format = c.transform.Format
	fetch := events / 4 / int64(max(1, len(opens))) // the last quarter is for the transformers, and for garbage
	if c.eventhub != nil {
		in.group = c.eventhub.Group
		c.eventhub.FetchBytes = fetch
		c.eventhub.SetBack = func() {
			in.forget("the consumer group was set back, so its events are read again")
		}
	}
	if c.blob != nil {
		c.blob.FetchBytes = fetch
		c.blob.LineLimit = blob.LineLimit(c.memory)
		if c.blob.Shared != "" {
			c.blob.SetBack = func() { in.forget("leases of shards were lost, so events of them may be read again") }
		}
	}
	for _, open := range opens {
		now, late := in.newTransform(c)
		p := &input.Pump{Open: open, Transform: now, Late: late, Outbox: in.outbox, Store: in.store, Log: in.log}
		in.pumps.Go(func() { p.Run(ctx) })
	}
}

// store writes the devices and ids from messages whose marks are about to be written.
func (in *instance) store() {
	if in.devices != nil {
		in.devices.save()
	}
	if in.ids != nil {
		in.ids.save(in.outbox.SafeIDs)
	}
}

// forget makes all ids unknown: somebody wants events to be read again, and they must not count as
// repeats.
func (in *instance) forget(why string) {
	if in.ids != nil {
		in.log.Info(why + "; none of them counts as a repeat")
		in.ids.forget()
	}
}

// newTransform returns the work between a source and the outbox, for one pump: Pump.Transform and
// Pump.Late.
func (in *instance) newTransform(c config) (now func(context.Context, *input.Batch, []input.Message), late func(context.Context, *input.Batch) error) {
	var (
		t        *transform.Transformer
		payloads []transform.Payload
		batch    *input.Batch
	)
	emitInto := func(batch **input.Batch) transform.Emit {
		tags := newTags(c.tagPattern)
		return func(table string, event []byte) { (*batch).Append(tags.of(table), event) }
	}
	emit := emitInto(&batch)
	c.transform.Keep = func(lane string) func() { return batch.Keep(lane) }
	t = transform.New(c.transform)
	in.transforms = append(in.transforms, t)
	queued := t.Queued
	learn := in.newLearner(c)
	now = func(ctx context.Context, dst *input.Batch, messages []input.Message) {
		payloads = payloads[:0]
		for i := range messages {
			m := &messages[i]
			payloads = append(payloads, transform.Payload{Body: m.Body, Lane: m.Mark.Lane, Offset: m.Offset, Reason: m.Reason})
		}
		if learn != nil && len(messages) > 0 && messages[0].Lease == input.OnlyLearn {
			learn(ctx, payloads)
			clear(payloads)
			return
		}
		batch = dst
		t.Append(ctx, payloads, emit)
		batch = nil
		clear(payloads)
		in.note(dst, t.NewIDs(), queued)
	}
	if c.transform.Devices == nil {
		return now, nil
	}
	var lateBatch *input.Batch
	emitAny := emitInto(&lateBatch)
	emitLate := func(table string, event []byte) {
		lateBatch.FromLane(t.LateLane())
		emitAny(table, event)
	}
	queuedLate := t.QueuedLate
	return now, func(ctx context.Context, dst *input.Batch) error {
		lateBatch = dst
		err := t.Late(ctx, emitLate, dst.WhenPut)
		in.note(dst, t.NewLateIDs(), queuedLate)
		return err
	}
}

// newLearner returns what learns of devices from payloads that another worker hands over, or nil
// where there are none. Nothing of them is counted, nor known as a repeat.
func (in *instance) newLearner(c config) func(context.Context, []transform.Payload) {
	if c.blob == nil || c.blob.Shared == "" || c.transform.Devices == nil {
		return nil
	}
	only := c.transform
	only.Tables, only.TablesExclude = nil, []string{"*"}
	only.Repeats, only.DropRepeats, only.Keep = nil, false, nil
	only.Memory /= 4
	t := transform.New(only)
	return func(ctx context.Context, payloads []transform.Payload) {
		t.Append(ctx, payloads, func(string, []byte) {})
	}
}

// note has the records of b, with these ids, known when b is queued.
func (in *instance) note(b *input.Batch, new []input.ID, queued func()) {
	if len(new) == 0 {
		return
	}
	b.WhenPut(queued)
	if in.ids.kept() {
		b.IDs = append(b.IDs, new...)
	}
}

// stop ends everything that was started. It does not wait: stopped is closed when it is done.
func (in *instance) stop() {
	in.cancel()
	in.outbox.Close()
	go func() {
		defer close(in.stopped)
		defer input.CatchAndLog(in.log, "stop")
		in.pumps.Wait()
		if in.devices != nil {
			in.devices.close()
		}
		if in.ids != nil {
			in.ids.save(in.outbox.SafeIDs)
		}
		if err := closeState(in.state); err != nil {
			in.log.Error("the state file was not closed properly", "error", err)
		}
		in.log.Info("stopped")
	}()
}

func closeState(s *input.State) (err error) {
	defer input.Catch("close the state file", &err)
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
