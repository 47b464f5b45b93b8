package eventhub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// commitWait bounds commits that nobody else bounds.
const commitWait = 10 * time.Second

// flush commits the safe offsets that the group does not know yet, and writes the copy before it
// and after. giving is held.
//
// The copy moves whether or not the group takes the offsets: the marks are safe either way. Before,
// because a start must know where a commit may have put the group whose answer was not waited for.
func (s *Source) flush(ctx context.Context) error {
	offsets := make(positions)
	terms := make(map[*lane]uint64)
	s.mu.Lock()
	for _, l := range s.lanes {
		if l.committed < l.safe {
			l.committing = l.safe
			terms[l] = l.term
			offsets = goOn(offsets, l.hub, l.partition, l.safe)
		}
	}
	s.mu.Unlock()
	s.copy()
	if len(terms) == 0 {
		return nil
	}
	refused, err := s.commit(ctx, offsets)
	s.mu.Lock()
	for l, term := range terms {
		if !refused[l.name] && l.term == term {
			l.committed, l.recreated = l.committing, false
		}
	}
	s.moved.Broadcast()
	s.mu.Unlock()
	s.copy()
	return err
}

// copy writes to the state file the offsets that have moved since the last time, all lanes at once.
// giving is held.
//
// It leaves out lanes whose proof is being checked. It also leaves out those where the group may
// still have an offset of the hub before. After a restart only the old proof can show that. A copy
// that cannot be written does not keep the group from moving. It is logged, and tried again with
// the next.
func (s *Source) copy() {
	type step struct {
		l     *lane
		term  uint64
		safe  int64
		noted [2]int64
	}
	var steps []step
	var changes []input.Change
	s.mu.Lock()
	for _, l := range s.lanes {
		noted := [2]int64{l.committed, l.committing}
		if l.safe < 0 || l.check != nil || l.recreated || l.copied >= l.safe && l.noted == noted {
			continue
		}
		var known []byte // nil where there is no proof
		if p, ok := l.proven(); ok {
			known = []byte(p.String())
		}
		key := s.copyKey(l.hub, l.partition)
		steps = append(steps, step{l, l.term, l.safe, noted})
		changes = append(changes, input.Change{Key: key, Value: strconv.AppendInt(nil, l.safe, 10)},
			input.Change{Key: key + proofSuffix, Value: known}, input.Change{Key: key + groupSuffix, Value: fmt.Appendf(nil, "%d %d", noted[0], noted[1])})
	}
	s.mu.Unlock()
	if err := s.state.Write(bucket, changes); err != nil {
		s.troubles.Begin("copy of offsets", "", "copy", slog.LevelWarn, "the copy of offsets in the state file cannot be written; after a crash, or should Event Hubs lose the group's offsets, events will be repeated", "error", err)
		return
	}
	s.troubles.End("copy of offsets", "")
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range steps {
		if c.l.term == c.term {
			c.l.copied, c.l.noted = c.safe, c.noted
		}
	}
}

// commit sends offsets to the group as the member that we are at the moment; the broker refuses
// them if we are none. refused names the lanes whose offsets the group did not take, if any; all of
// them when there was no answer.
func (s *Source) commit(ctx context.Context, offsets positions) (refused map[string]bool, err error) {
	if len(offsets) == 0 {
		return nil, nil
	}
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = s.cfg.Group
	req.MemberID, req.Generation = s.client.GroupMetadata()
	refused = make(map[string]bool)
	for hub, partitions := range offsets {
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic = hub
		for partition, o := range partitions {
			p := kmsg.NewOffsetCommitRequestTopicPartition()
			p.Partition, p.Offset = partition, o.Offset
			p.LeaderEpoch = -1 // Event Hubs reports none, or some that it does not know later
			t.Partitions = append(t.Partitions, p)
			refused[laneName(hub, partition)] = true
		}
		req.Topics = append(req.Topics, t)
	}
	defer func() {
		if err != nil {
			s.troubles.Count("commit")
			err = fmt.Errorf("commit offsets of group %s: %w", s.cfg.Group, err)
		}
	}()
	if req.MemberID == "" {
		return refused, errors.New("not a member of the group at the moment") // an offset without member would be taken from anybody
	}
	resp, err := req.RequestWith(ctx, s.client)
	if err != nil {
		return refused, err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if e := kerr.ErrorForCode(p.ErrorCode); e != nil {
				err = e // of one partition: they rarely differ
				continue
			}
			delete(refused, laneName(t.Topic, p.Partition))
		}
	}
	if err == nil && len(refused) > 0 {
		err = errors.New("the broker did not answer for all partitions")
	}
	return refused, err
}

// bound is where a partition begins and ends, and where eventhub.start says to begin in it.
type bound struct{ start, end, fresh int64 }

// Special times of ListOffsets.
const (
	atEnd   = -1
	atStart = -2
)

// listTries is how often partitions are asked about before they are left to franz-go: one that
// cannot be read must not keep the others waiting.
const listTries = 5

// readBounds asks the broker where lanes begin and end, until ctx ends. Lanes that it cannot be
// asked about are left out.
func (s *Source) readBounds(ctx context.Context, lanes []*lane) (map[string]bound, error) {
	bounds := make(map[string]bound, len(lanes))
	wait := input.Backoff{First: 500 * time.Millisecond, Max: 4 * time.Second}
	for try := 1; ; try++ {
		var left []*lane
		for _, l := range lanes {
			if _, ok := bounds[l.name]; !ok {
				left = append(left, l)
			}
		}
		if len(left) == 0 || try > listTries {
			return bounds, ctx.Err()
		}
		// In this order: should messages come meanwhile, "latest" and a time after all messages
		// mean a place before them.
		ends := s.list(ctx, left, atEnd, false)
		starts := s.list(ctx, left, atStart, false)
		var times map[string]int64
		if !s.cfg.Start.At.IsZero() {
			times = s.list(ctx, left, s.cfg.Start.At.UnixMilli(), false)
		}
		for _, l := range left {
			end, ok1 := ends[l.name]
			start, ok2 := starts[l.name]
			if !ok1 || !ok2 {
				continue
			}
			b := bound{start: start, end: max(start, end), fresh: start}
			if s.cfg.Start.Latest {
				b.fresh = b.end
			} else if times != nil {
				at, ok := times[l.name]
				if !ok {
					continue
				}
				if b.fresh = at; at < 0 { // no message is as young as that
					b.fresh = b.end
				}
			}
			bounds[l.name] = b
		}
		if len(bounds) < len(lanes) && try < listTries {
			if err := input.Sleep(ctx, wait.Next()); err != nil {
				return nil, err
			}
		}
	}
}

// list returns, for lanes that the broker answers for, the first offset whose message is not older
// than millis, or -1. atEnd and atStart are special. committed makes atEnd the first offset of a
// transaction that is still open, if there is one.
func (s *Source) list(ctx context.Context, lanes []*lane, millis int64, committed bool) map[string]int64 {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	if committed {
		req.IsolationLevel = 1
	}
	topics := make(map[string]int)
	for _, l := range lanes {
		i, ok := topics[l.hub]
		if !ok {
			i = len(req.Topics)
			topics[l.hub] = i
			t := kmsg.NewListOffsetsRequestTopic()
			t.Topic = l.hub
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp, p.CurrentLeaderEpoch = l.partition, millis, -1
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
	}
	offsets := make(map[string]int64, len(lanes))
	for _, shard := range s.client.RequestSharded(ctx, req) {
		resp, ok := shard.Resp.(*kmsg.ListOffsetsResponse)
		if shard.Err != nil || !ok {
			s.log.Debug("list offsets", "error", shard.Err)
			continue
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					s.log.Debug("list offsets", "hub", t.Topic, "partition", p.Partition, "error", err)
					continue
				}
				offsets[laneName(t.Topic, p.Partition)] = p.Offset
			}
		}
	}
	return offsets
}
