package eventhub

import (
	"context"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// bucket is where the state file keeps copies of the group's offsets, as decimal numbers by copyKey.
//
// Event Hubs calls its store of offsets transient: groups vanish. And the store answers for a group that has vanished just as for
// one that was never there.
const bucket = "eventhub"

// copyKey names the copy of one partition's offset. Neither a namespace nor a hub has a slash in its name.
func (s *Source) copyKey(hub string, partition int32) string {
	return s.cfg.Namespace + "/" + s.cfg.Group + "/" + hub + "/" + strconv.Itoa(int(partition))
}

// proofSuffix makes of a copyKey that of the proof.
const proofSuffix = "/proof"

// begin decides where to start in partitions that the group has just given us. franz-go calls it with the offsets that the
// group has, before anything is fetched from them, and ends ctx when it gives them away again.
func (s *Source) begin(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	s.troubles.End("consumer group", "")
	var lanes []*lane
	for hub, partitions := range offsets {
		for partition, o := range partitions {
			l := &lane{name: laneName(hub, partition), hub: hub, partition: partition,
				term: input.NewTerm(), next: -1, safe: -1, committed: -1, copied: -1}
			if at := o.EpochOffset().Offset; at >= 0 { // else the group has none
				l.next, l.committed = at, at
			}
			lanes = append(lanes, l)
		}
	}
	if len(lanes) == 0 {
		return offsets, nil
	}
	copies, fresh := s.readCopies(lanes)
	bounds, err := s.readBounds(ctx, lanes)
	if err != nil {
		return nil, err
	}
	if copies > 0 {
		s.log.Warn("the consumer group has no offsets for partitions that were read before: Event Hubs has lost them, or the group was deleted; the copy in the state file decides",
			"group", s.cfg.Group, "partitions", copies)
	}
	if fresh > 0 {
		s.log.Info("no position is known for some partitions: eventhub.start decides", "group", s.cfg.Group, "partitions", fresh, "start", startText(s.cfg.Start))
	}

	s.giving.Lock()
	defer s.giving.Unlock()
	s.mu.Lock()
	for _, l := range lanes {
		b, ok := bounds[l.name]
		switch {
		case !ok:
			// The partition could not be asked about. franz-go goes on trying, and starts where the offset says or else at the
			// beginning, where nothing is missed.
		case l.next < 0:
			l.next = b.fresh
		case l.next < b.start:
			s.retentionTook(l, b.start)
			l.next = b.start
		case l.next > b.end:
			s.log.Warn("hub begins anew: it ends before the position that is known, so it was deleted and created again; it is read from its beginning",
				"hub", l.hub, "partition", l.partition, "was_at", l.next, "ends_at", b.end)
			l.next, l.committed, l.copied = b.start, -1, -1
			l.proofs, l.anew = nil, true
		}
		l.end = max(b.end, l.next)
		l.began, l.safe = l.next, l.next
		if at := l.next; at >= 0 {
			// Another instance may have read on meanwhile, and even in a hub made anew: then this one is read twice, rather than not.
			if len(l.proofs) > 0 && (!ok || l.proofs[0].offset >= b.start && l.proofs[0].offset < b.end) {
				at = l.askAgain()
			} else {
				l.proofs = nil // of what the hub does not hold: nothing may go on there
			}
			offsets[l.hub][l.partition] = kgo.NewOffset().At(at).WithEpoch(-1)
		}
		s.lanes[l.name] = l
	}
	s.counts.rebalances++
	names := s.names()
	s.mu.Unlock()

	// The start is committed at once: "latest" must mean the same place after a restart, however soon that comes and
	// whether or not a message came.
	short, cancel := context.WithTimeout(ctx, commitWait)
	defer cancel()
	if err := s.flush(short); err != nil && ctx.Err() == nil {
		s.log.Warn("commit start positions: will be tried again", "group", s.cfg.Group, "error", err)
	}
	s.log.Info("partitions assigned", "group", s.cfg.Group, "new", len(lanes), "all", len(names), "partitions", listText(names))
	return offsets, nil
}

// readCopies sets the proofs of lanes, and the positions of those for which the group has none, from the state file. It counts
// those that have a copy and those that have not.
func (s *Source) readCopies(lanes []*lane) (copies, fresh int) {
	for _, l := range lanes {
		key := s.copyKey(l.hub, l.partition)
		if l.next < 0 {
			b, err := s.state.Get(bucket, key)
			if err != nil {
				s.log.Error("read the copy of offsets: eventhub.start decides instead", "hub", l.hub, "partition", l.partition, "error", err)
			}
			at, err := strconv.ParseInt(string(b), 10, 64)
			if err != nil || at < 0 {
				fresh++
				continue
			}
			l.next, l.copied = at, at
			copies++
		}
		b, err := s.state.Get(bucket, key+proofSuffix)
		if err == nil && b != nil {
			var p proof
			if p, err = parseProof(string(b)); err == nil {
				l.proofs = []proof{p}
			}
		}
		if err != nil {
			s.log.Warn("read which message was the last: whether the hub is still the same one is not looked at", "hub", l.hub, "partition", l.partition, "error", err)
		}
	}
	return copies, fresh
}

// give lets go of partitions, before another member gets them. With wait it waits a little until what was read of them is
// safe and committed; without, they are lost already.
func (s *Source) give(gone map[string][]int32, wait bool) {
	var lanes []*lane
	s.mu.Lock()
	for hub, partitions := range gone {
		for _, p := range partitions {
			if l := s.lanes[laneName(hub, p)]; l != nil {
				lanes = append(lanes, l)
			}
		}
	}
	if len(lanes) == 0 {
		s.mu.Unlock()
		return
	}
	if wait {
		deadline := time.Now().Add(s.drain)
		timer := time.AfterFunc(s.drain, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.moved.Broadcast()
		})
		for !s.ending && !drained(lanes) && time.Now().Before(deadline) {
			s.moved.Wait()
		}
		timer.Stop()
	}
	s.mu.Unlock()

	// From here on a mark of these lanes is dropped; a commit that has found them to be ours is over first.
	s.giving.Lock()
	defer s.giving.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	left := 0
	for _, l := range lanes {
		if l.committed < l.next {
			left++
		}
		delete(s.lanes, l.name)
	}
	s.counts.rebalances++
	if s.ending {
		return
	}
	names := make([]string, len(lanes))
	for i, l := range lanes {
		names[i] = l.name
	}
	s.log.Info("partitions given away", "group", s.cfg.Group, "gone", len(lanes), "all", len(s.lanes),
		"partitions", listText(names), "with_events_to_be_repeated", left)
}

// drained tells whether everything that was read of lanes is committed.
func drained(lanes []*lane) bool {
	for _, l := range lanes {
		if l.next > l.began && l.committed < l.next {
			return false
		}
	}
	return true
}
