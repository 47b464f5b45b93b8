package eventhub

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// members keeps the ids that the group has given us in the state file. An id is there from the
// broker's answer until we have left in good order.
//
// The broker waits for a member that was killed until its session ends, 30 s, and so do all that
// join meanwhile. So a start first has the members leave that an earlier life has left behind.
//
// A copy of the state file holds the id of the instance that it was copied from. When the copy is
// started, that instance is taken out of the group once: it says that it lost the group, joins
// again under an id that no copy has, and the copy gets an id of its own. So two hosts with copies
// of one file never throw each other out twice.
type members struct {
	state *input.State
	key   string
	log   *slog.Logger

	mu  sync.Mutex
	ids []string // ours, the newest last

	joinWait time.Duration // after which an unanswered join is logged
	joining  *time.Timer
}

const (
	// memberSuffix makes of namespace and group the key of their members.
	memberSuffix = "/members"

	// mostMembers bounds the ids that are kept. Every join may give a new one, and those before it
	// are gone.
	mostMembers = 8

	// takeOutWait is how long Open waits for the broker to take the members of an earlier life out
	// of the group.
	takeOutWait = 3 * time.Second

	// rejoinTimeout is how long the broker waits for members to join again before it gives them up.
	// So long may a request to join stay without an answer.
	rejoinTimeout = 15 * time.Second
)

func newMembers(state *input.State, namespace, group string, log *slog.Logger) *members {
	return &members{state: state, key: namespace + "/" + group + memberSuffix, log: log, joinWait: defaultWaits.join}
}

// left returns the members that an earlier life has left in the group.
func (m *members) left() []string {
	b, err := m.state.Get(bucket, m.key)
	if err != nil {
		m.log.Warn("read the members of the group that did not leave: the broker waits for them until their session ends", "error", err)
	}
	ids := strings.Fields(string(b))
	return ids[max(0, len(ids)-mostMembers):]
}

// add notes an id that the broker has given us.
func (m *members) add(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id == "" || strings.ContainsAny(id, " \t\r\n") || len(id) > 1000 || slices.Contains(m.ids, id) {
		return
	}
	m.ids = append(m.ids, id)
	m.ids = slices.Clone(m.ids[max(0, len(m.ids)-mostMembers):])
	m.write()
}

// gone forgets all members: they have left.
func (m *members) gone() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ids = nil
	m.write()
}

func (m *members) write() {
	var value []byte
	if len(m.ids) > 0 {
		value = []byte(strings.Join(m.ids, " "))
	}
	if err := m.state.Write(bucket, []input.Change{{Key: m.key, Value: value}}); err != nil {
		m.log.Warn("write our id in the group: after a crash the broker will wait for it until its session ends", "error", err)
	}
}

// asks is told of every request that is sent, and hears of every answer.
func (m *members) asks(key int16) {
	if m == nil || key != kmsg.JoinGroup.Int16() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.joining != nil {
		m.joining.Stop()
	}
	m.joining = time.AfterFunc(m.joinWait, func() {
		defer input.CatchAndLog(m.log, "wait for the group")
		m.log.Warn("the consumer group does not let us in yet: the broker waits for members that are gone or slow, and gives them up",
			"after", m.joinWait, "at_most", rejoinTimeout)
	})
}

// hears reads our id out of an answer to a request to join, also when it refuses a join without id.
func (m *members) hears(key, version int16, body []byte) {
	if m == nil || key != kmsg.JoinGroup.Int16() {
		return
	}
	m.stop()
	resp := kmsg.NewPtrJoinGroupResponse()
	resp.Version = version
	if resp.IsFlexible() {
		tags, n := binary.Uvarint(body)
		if n <= 0 || tags > 0 {
			return // Kafka has none in this place
		}
		body = body[n:]
	}
	if resp.ReadFrom(body) == nil {
		m.add(resp.MemberID)
	}
}

// stop ends the wait for an answer.
func (m *members) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.joining != nil {
		m.joining.Stop()
		m.joining = nil
	}
}

// takeOut has members leave the group. It is tried for as long as ctx lasts. Members that the group
// does not know cost nothing.
func takeOut(ctx context.Context, cfg *Config, opts []kgo.Opt, ids []string) error {
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer client.Close()
	for _, id := range ids {
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Group, req.MemberID = cfg.Group, id // before version 3
		member := kmsg.NewLeaveGroupRequestMember()
		member.MemberID = id
		req.Members = append(req.Members, member)
		resp, err := req.RequestWith(ctx, client)
		if err != nil {
			return fmt.Errorf("have a member leave group %s: %w", cfg.Group, err)
		}
		code := resp.ErrorCode
		for _, m := range resp.Members {
			if code == 0 {
				code = m.ErrorCode
			}
		}
		if err := kerr.ErrorForCode(code); err != nil && !errors.Is(err, kerr.UnknownMemberID) && !errors.Is(err, kerr.GroupIDNotFound) {
			return fmt.Errorf("have a member leave group %s: %w", cfg.Group, err)
		}
	}
	return nil
}

// takeOutOthers has the members leave that an earlier life has left in the group, before we join
// it. When the broker does not answer in time it goes on trying beside the join, until their
// session is over anyway.
func (s *Source) takeOutOthers(ctx context.Context, own context.Context) error {
	ids := s.members.left()
	if len(ids) == 0 {
		return nil
	}
	opts, err := s.cfg.connection(own, slog.New(slog.DiscardHandler), newBudget(0), nil)
	if err != nil {
		return err
	}
	try := func(ctx context.Context, wait time.Duration) error {
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		if err := takeOut(ctx, &s.cfg, opts, ids); err != nil {
			return err
		}
		s.log.Info("an earlier life of this state file was still a member of the consumer group: it was taken out, so that nobody waits for it",
			"group", s.cfg.Group, "members", len(ids))
		return nil
	}
	if err = try(ctx, takeOutWait); err == nil {
		return nil
	}
	s.log.Debug("an earlier member was not taken out yet", "group", s.cfg.Group, "error", err)
	s.working.Go(func() {
		defer input.CatchAndLog(s.log, "take earlier members out of the group")
		for end, wait := time.Now().Add(sessionTimeout), (input.Backoff{}); time.Now().Before(end); {
			if try(own, sessionTimeout) == nil || input.Sleep(own, wait.Next()) != nil {
				return
			}
		}
	})
	return nil
}
