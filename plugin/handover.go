package main

import (
	"log/slog"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

const (
	// tickEvery is the interval of our timer on the host's thread. So events wait only briefly, and
	// few are read meanwhile.
	tickEvery = 25 * time.Millisecond

	// During a tick the host does nothing else: no flush, no other input. After tickTime no batch
	// is begun. A batch that is under way is finished, because an exit of the host in the middle of
	// it would repeat it. tickMost ends even that.
	tickTime = 20 * time.Millisecond
	tickMost = 250 * time.Millisecond

	// Events of several batches are gathered. A crash repeats the batches that are under way, and a
	// tick finishes them. So they are no more than the host takes within gatherTime.
	gatherTime    = 20 * time.Millisecond
	leastGathered = 512 << 10
	mostGathered  = 8 << 20

	// resumeWait is the pause of a section after a limit was lifted. At a limit every append pauses
	// the section again, and the host logs each pause. Its outputs are busy for longer with the
	// stored events.
	resumeWait = 250 * time.Millisecond
)

// handover is one section's work on the host's thread: it gives the events of the outbox to the
// host. Only the host's thread touches it, so it needs no lock.
type handover struct {
	outbox *input.Outbox
	log    *slog.Logger

	gather  input.Gather
	batches []*input.Batch // that are gathered from now
	most    int64          // bytes of batches to gather from

	limited    bool      // the host paused this section inside one of its own appends; set by generation
	restsUntil time.Time // until then the host's thread belongs to others
	retryAt    time.Time // until then the host is not asked again
	refusedAt  time.Time // when the host began to refuse; zero while it does not
	wait       input.Backoff
	storeCheck int // appends that are still to be checked for where their events went

	bytes    uint64 // that the host has taken
	refusals uint64

	reportedAt time.Time          // when the figures were last given to the host
	lanesSeen  map[[2]string]bool // hub and partition -> it is ours now
}

func newHandover(log *slog.Logger) handover {
	return handover{
		log:        log,
		wait:       input.Backoff{First: time.Second, Max: 15 * time.Second},
		storeCheck: 3,
		lanesSeen:  make(map[[2]string]bool),
	}
}

// tick gives events to the host by hand, which is its append, if the section's share of the host's
// thread allows it.
//
// The host serves timers first, so behind a filter that is slower than the timer it would do
// nothing else. All busy sections together leave the host half of its time. The timer may fire
// early. We accept up to half a tick and add it to the next rest; otherwise every second tick would
// be skipped.
func (h *handover) tick(now time.Time, busy int, hand func(tag string, data []byte) bool) {
	if now.Before(h.restsUntil.Add(-tickEvery / 2)) {
		return
	}
	if err := h.give(now, hand); err != nil {
		h.retryAt = now.Add(h.wait.Next())
		h.log.Error("hand over events: retrying", "error", err)
	}
	if now.After(h.restsUntil) {
		h.restsUntil = now
	}
	h.restsUntil = h.restsUntil.Add(time.Since(now) * time.Duration(2*max(busy, 1)))
}

// give appends until the outbox is empty, the tick has lasted long enough, or the host refuses.
func (h *handover) give(now time.Time, hand func(tag string, data []byte) bool) (err error) {
	defer input.Catch("append to Fluent Bit", &err)
	if now.Before(h.retryAt) {
		return nil
	}
	defer func() {
		clear(h.batches)
		h.batches = h.batches[:0]
	}()
	for time.Since(now) < tickTime {
		h.batches = h.outbox.Waiting(h.batches[:0], max(h.most, leastGathered))
		if len(h.batches) == 0 {
			return nil
		}
		began, before := time.Now(), h.bytes
		for left := h.batches; len(left) > 0; {
			if left[0].Next() == nil {
				h.outbox.Done(left[0])
				left = left[1:]
				continue
			}
			if h.limited {
				return nil
			}
			if time.Since(now) >= tickMost {
				h.pace(int64(h.bytes-before), time.Since(began))
				return nil
			}
			if !h.gather.From(left) {
				continue // the last lease was lost in between
			}
			if !hand(h.gather.Tag, h.gather.Data) {
				h.refused(now)
				return nil
			}
			h.bytes += uint64(len(h.gather.Data))
			h.gather.Taken()
			h.accepted(now)
		}
		h.pace(int64(h.bytes-before), time.Since(began))
	}
	return nil
}

// pace sets how much is gathered next: as much as the host takes within gatherTime, by its last
// speed.
func (h *handover) pace(bytes int64, took time.Duration) {
	perMilli := bytes / max(took.Milliseconds(), 1)
	h.most = min(perMilli*gatherTime.Milliseconds(), 2*max(h.most, leastGathered), mostGathered)
}

func (h *handover) refused(now time.Time) {
	h.refusals++
	if h.refusedAt.IsZero() {
		h.refusedAt = now
		h.log.Warn("Fluent Bit takes no events at the moment (its storage may be full, or a limit is reached); " +
			"the events wait and are offered again")
	}
	h.retryAt = now.Add(h.wait.Next())
}

func (h *handover) accepted(now time.Time) {
	h.wait.Reset()
	if !h.refusedAt.IsZero() {
		h.log.Info("Fluent Bit takes events again", "after", now.Sub(h.refusedAt).Round(time.Millisecond))
		h.refusedAt = time.Time{}
	}
	if h.storeCheck > 0 {
		h.storeCheck--
		if storesInFiles() {
			h.storeCheck = 0
		} else if h.storeCheck == 0 {
			h.log.Warn("events are not kept in files, so Fluent Bit loses those that it has not delivered when it ends; " +
				"add \"storage.type filesystem\" to this [INPUT] section and storage.path to [SERVICE], and check that an output matches the tag")
		}
	}
}

// resumed ends the wait that a pause or refusals have begun.
func (h *handover) resumed(now time.Time) {
	h.retryAt = time.Time{}
	if h.limited {
		h.retryAt = now.Add(resumeWait)
	}
	h.limited = false
	h.wait.Reset()
}

// busy tells whether events wait that may be handed over now.
func (h *handover) busy(now time.Time) bool {
	return !h.limited && !now.Before(h.retryAt) && h.outbox.Batches() > 0
}
