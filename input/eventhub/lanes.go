package eventhub

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// bucket is where the state file keeps copies of the group's offsets, as decimal numbers by
// copyKey.
//
// Event Hubs calls its store of offsets transient: groups vanish. And the store answers for a group
// that has vanished just as for one that was never there.
const bucket = "eventhub"

// copyKey names the copy of one partition's offset. Neither a namespace nor a hub has a slash in
// its name.
func (s *Source) copyKey(hub string, partition int32) string {
	return s.cfg.Namespace + "/" + s.cfg.Group + "/" + hub + "/" + strconv.Itoa(int(partition))
}

// proofSuffix makes of a copyKey that of the proof, and groupSuffix that of lane.noted.
const (
	proofSuffix = "/proof"
	groupSuffix = "/group"
)

// begin decides where to start in partitions that the group has just given us. franz-go calls it
// with the offsets that the group has, before anything is fetched from them, and ends ctx when it
// gives them away again.
func (s *Source) begin(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	s.troubles.End("consumer group", "")
	var lanes []*lane
	for hub, partitions := range offsets {
		for partition, o := range partitions {
			l := &lane{name: laneName(hub, partition), hub: hub, partition: partition,
				term: input.NewTerm(), next: -1, safe: -1, committed: -1, copied: -1, committing: -1, noted: [2]int64{-1, -1}}
			if at := o.EpochOffset().Offset; at >= 0 { // else the group has none
				l.next, l.committed = at, at
			}
			lanes = append(lanes, l)
		}
	}
	if len(lanes) == 0 {
		return offsets, nil
	}
	copies, fresh, ahead, back := s.readCopies(lanes)
	if back > 0 && s.cfg.SetBack != nil {
		s.cfg.SetBack()
	}
	bounds, err := s.readBounds(ctx, lanes)
	if err != nil {
		return nil, err
	}
	if copies > 0 {
		s.log.Warn("the consumer group has no offsets for partitions that were read before: Event Hubs has lost them, or the group was deleted; the copy in the state file decides",
			"group", s.cfg.Group, "partitions", copies)
	}
	if ahead > 0 {
		s.log.Info("the state file is ahead of the consumer group, whose offset is the last that we committed: reading continues from the file's offset, if the message before it is the same",
			"group", s.cfg.Group, "partitions", ahead)
	}
	if fresh > 0 {
		s.log.Info("no position is known for some partitions: eventhub.start decides", "group", s.cfg.Group, "partitions", fresh, "start", startText(s.cfg.Start))
	}

	s.giving.Lock()
	defer s.giving.Unlock()
	s.mu.Lock()
	for _, l := range lanes {
		b, ok := bounds[l.name]
		if ok && l.ahead && l.next > b.end {
			l.next, l.ahead = l.committed, false // the copy is of a hub that held more
		}
		switch {
		case !ok:
			// The partition could not be asked about. franz-go keeps trying. It starts at the
			// offset or else at the beginning, so nothing is missed.
		case l.next < 0:
			l.next = b.fresh
		case l.next < b.start:
			s.retentionTook(l, b.start)
			l.next, l.ahead = b.start, false
		case l.next > b.end:
			s.log.Warn("hub was created again: it ends before the known position. It is read from its beginning",
				"hub", l.hub, "partition", l.partition, "was_at", l.next, "ends_at", b.end)
			l.next, l.committed, l.copied = b.start, -1, -1
			l.proofs, l.recreated, l.ahead = nil, true, false
		}
		l.end = max(b.end, l.next)
		l.began, l.safe = l.next, l.next
		if l.ahead {
			l.safe = l.committed
		}
		if at := l.next; at >= 0 {
			// Another instance may have read on, even in a hub that was recreated: then this
			// one is read twice, rather than not.
			if len(l.proofs) > 0 && (!ok || l.proofs[0].offset >= b.start && l.proofs[0].offset < b.end) {
				at = l.askAgain()
			} else {
				l.proofs = nil // of messages that the hub does not hold: nothing may continue there
				l.doubt()
				at = l.next
			}
			offsets[l.hub][l.partition] = kgo.NewOffset().At(at).WithEpoch(-1)
		}
		s.lanes[l.name] = l
	}
	s.counts.rebalances++
	names := s.names()
	s.mu.Unlock()

	// The start is committed at once: "latest" must mean the same place after a restart, even one
	// that comes at once and before any message.
	short, cancel := context.WithTimeout(ctx, commitWait)
	defer cancel()
	if err := s.flush(short); err != nil && ctx.Err() == nil {
		s.log.Warn("commit start positions: retrying", "group", s.cfg.Group, "error", err)
	}
	s.log.Info("partitions assigned", "group", s.cfg.Group, "new", len(lanes), "all", len(names), "partitions", listText(names))
	return offsets, nil
}

// readCopies sets the proofs of lanes from the state file. It sets the positions of those where the
// copy decides. There the group has no offset (copies), or its offset is this file's last commit
// and the copy is ahead of it (ahead). fresh counts those without any position, and back those
// where the group was set back.
func (s *Source) readCopies(lanes []*lane) (copies, fresh, ahead, back int) {
	for _, l := range lanes {
		key := s.copyKey(l.hub, l.partition)
		at, err := s.readCopy(key)
		if err != nil {
			s.log.Error("read the copy of offsets: the group's offset, or eventhub.start, decides instead", "hub", l.hub, "partition", l.partition, "error", err)
		}
		p, err := s.readProof(key)
		switch {
		case err != nil:
			s.log.Warn("read the checksum of the last message: a hub that was created again is not noticed", "hub", l.hub, "partition", l.partition, "error", err)
		case p != nil:
			l.proofs = []proof{*p}
		}
		switch {
		case l.next < 0 && at < 0:
			fresh++
		case l.next < 0:
			l.next, l.copied = at, at
			copies++
		case at > l.next && !s.isNoted(key, l.next):
			back++
		case at > l.next && p != nil && p.offset < at:
			l.next, l.copied, l.ahead = at, at, true
			ahead++
		}
	}
	return copies, fresh, ahead, back
}

// readCopy returns the copy of an offset, or -1.
func (s *Source) readCopy(key string) (int64, error) {
	b, err := s.state.Get(bucket, key)
	if err != nil {
		return -1, err
	}
	if at, err := strconv.ParseInt(string(b), 10, 64); err == nil && at >= 0 {
		return at, nil
	}
	return -1, nil
}

func (s *Source) readProof(key string) (*proof, error) {
	b, err := s.state.Get(bucket, key+proofSuffix)
	if err != nil || b == nil {
		return nil, err
	}
	p, err := parseProof(string(b))
	if err != nil {
		return nil, err
	}
	return &p, nil
}

// isNoted tells whether the group's offset is the one that this file last committed.
func (s *Source) isNoted(key string, at int64) bool {
	b, err := s.state.Get(bucket, key+groupSuffix)
	return err == nil && slices.Contains(strings.Fields(string(b)), strconv.FormatInt(at, 10))
}

// revoke lets go of partitions that another member is about to get. It waits a little until the
// messages read of them are safe and committed.
func (s *Source) revoke(gone map[string][]int32) {
	if lanes := s.those(gone); len(lanes) > 0 {
		s.retry(context.Background()) // safe messages need not wait for the next commit
		s.awaitCommits(lanes)
		s.letGo(lanes)
	}
}

// lose lets go of partitions that are another member's already.
func (s *Source) lose(gone map[string][]int32) {
	if lanes := s.those(gone); len(lanes) > 0 {
		s.letGo(lanes)
	}
}

// those returns the lanes of partitions.
func (s *Source) those(partitions map[string][]int32) (lanes []*lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hub, list := range partitions {
		for _, p := range list {
			if l := s.lanes[laneName(hub, p)]; l != nil {
				lanes = append(lanes, l)
			}
		}
	}
	return lanes
}

// awaitCommits waits until the messages read of lanes are committed, for as long as waits.drain, or
// until the source ends.
func (s *Source) awaitCommits(lanes []*lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	deadline := time.Now().Add(s.waits.drain)
	timer := time.AfterFunc(s.waits.drain, func() {
		defer input.CatchAndLog(s.log, "give partitions away")
		s.mu.Lock()
		defer s.mu.Unlock()
		s.moved.Broadcast()
	})
	defer timer.Stop()
	for !s.ending && !drained(lanes) && time.Now().Before(deadline) {
		s.moved.Wait()
	}
}

// letGo forgets lanes.
func (s *Source) letGo(lanes []*lane) {
	// From here on marks of these lanes are dropped. A commit that began while they were ours is
	// over first.
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
