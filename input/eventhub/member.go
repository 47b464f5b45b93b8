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
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// members keeps the ids that the group has given us in the state file. An id is there from the
// broker's answer until we have left in good order.
//
// The broker waits for a member that was killed until its session ends, 30 s, and so do all that
// join meanwhile. So a start has the members of an earlier run leave. It joins first. Otherwise the
// group might be empty, and then Kafka waits for more members before it lets the first one in
// (group.initial.rebalance.delay.ms, 3 s).
//
// A copy of the state file holds the id of the original instance. When the copy is started, that
// instance is taken out of the group once. It logs that it lost the group, and joins again under an
// id that no copy has. The copy gets an id of its own. So two hosts with copies of one file never
// throw each other out twice.
type members struct {
	state *input.State
	key   string
	log   *slog.Logger

	mu   sync.Mutex
	dead []string // of an earlier run, and perhaps still in the group
	ids  []string // ours, the newest last

	asked    chan struct{} // closed when our request to join is with the broker
	joinWait time.Duration // after which an unanswered join is logged
	joining  *time.Timer
}

const (
	// memberSuffix ends the key of the members of a namespace and group.
	memberSuffix = "/members"

	// mostMembers bounds the ids that are kept. Every join may give a new one, and those before it
	// are gone.
	mostMembers = 8

	// leaveWait is the time between our request to join and the leave of earlier members. The
	// requests go over two connections, and the one to join should arrive first.
	leaveWait = 50 * time.Millisecond

	// answerWait is leaveWait for a request without an id. Brokers of JoinGroup 4 answer it with an
	// id, to ask again with. Older ones do not answer before they let us in.
	answerWait = 250 * time.Millisecond

	// rejoinTimeout is how long the broker waits for members to join again before it gives them up.
	// So long may a request to join stay without an answer.
	rejoinTimeout = 15 * time.Second
)

func newMembers(state *input.State, namespace, group string, log *slog.Logger) *members {
	m := &members{state: state, key: namespace + "/" + group + memberSuffix, log: log, asked: make(chan struct{}), joinWait: defaultWaits.join}
	b, err := state.Get(bucket, m.key)
	if err != nil {
		log.Warn("read the members of the group that did not leave: the broker waits for them until their session ends", "error", err)
	}
	m.dead = newest(strings.Fields(string(b)))
	return m
}

func newest(ids []string) []string { return ids[max(0, len(ids)-mostMembers):] }

// add notes an id that the broker has given us.
func (m *members) add(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id == "" || strings.ContainsAny(id, " \t\r\n") || len(id) > 1000 || slices.Contains(m.ids, id) {
		return
	}
	m.ids = slices.Clone(newest(append(m.ids, id)))
	m.write()
}

// gone forgets our ids: we have left.
func (m *members) gone() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ids = nil
	m.write()
}

// takenOut forgets the members of an earlier life.
func (m *members) takenOut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = nil
	m.write()
}

// write stores all ids. mu is held.
func (m *members) write() {
	var value []byte
	if ids := newest(slices.Concat(m.dead, m.ids)); len(ids) > 0 {
		value = []byte(strings.Join(ids, " "))
	}
	if err := m.state.Write(bucket, []input.Change{{Key: m.key, Value: value}}); err != nil {
		m.log.Warn("write our id in the group: after a crash the broker will wait for it until its session ends", "error", err)
	}
}

// asks is called for every request that was sent, and hears for every answer.
func (m *members) asks(key int16) {
	if m == nil || key != kmsg.JoinGroup.Int16() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.joining != nil {
		m.joining.Stop()
	}
	wait := leaveWait
	if len(m.ids) == 0 {
		wait = answerWait
	}
	time.AfterFunc(wait, func() {
		defer input.CatchAndLog(m.log, "take earlier members out of the group")
		m.mu.Lock()
		defer m.mu.Unlock()
		select {
		case <-m.asked:
		default:
			close(m.asked)
		}
	})
	m.joining = time.AfterFunc(m.joinWait, func() {
		defer input.CatchAndLog(m.log, "wait for the group")
		m.log.Warn("wait for the consumer group: the broker lets us in once it has given up the members that are gone or slow",
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

// takeOut has the members leave that an earlier life has left in the group, once we have asked to
// join it. It is tried until their session is over anyway. Members that the group does not know
// cost nothing.
func (s *Source) takeOut(ctx context.Context) {
	defer input.CatchAndLog(s.log, "take earlier members out of the group")
	select {
	case <-s.members.asked:
	case <-ctx.Done():
		return
	}
	for end, wait := time.Now().Add(sessionTimeout), (input.Backoff{}); time.Now().Before(end); {
		err := s.haveLeave(ctx, s.members.dead)
		if err == nil {
			s.log.Info("an earlier run with this state file was still a member of the consumer group: it was taken out, so that nobody waits for it",
				"group", s.cfg.Group, "members", len(s.members.dead))
			s.members.takenOut()
			return
		}
		s.log.Debug("an earlier member was not taken out yet", "group", s.cfg.Group, "error", err)
		if input.Sleep(ctx, wait.Next()) != nil {
			return
		}
	}
	s.members.takenOut()
}

func (s *Source) haveLeave(ctx context.Context, ids []string) error {
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	for _, id := range ids {
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Group, req.MemberID = s.cfg.Group, id // before version 3
		member := kmsg.NewLeaveGroupRequestMember()
		member.MemberID = id
		req.Members = append(req.Members, member)
		resp, err := req.RequestWith(ctx, s.client)
		if err != nil {
			return fmt.Errorf("have a member leave group %s: %w", s.cfg.Group, err)
		}
		code := resp.ErrorCode
		for _, m := range resp.Members {
			if code == 0 {
				code = m.ErrorCode
			}
		}
		if err := kerr.ErrorForCode(code); err != nil && !errors.Is(err, kerr.UnknownMemberID) && !errors.Is(err, kerr.GroupIDNotFound) {
			return fmt.Errorf("have a member leave group %s: %w", s.cfg.Group, err)
		}
	}
	return nil
}
