package input

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// saidAgain is how soon a trouble that comes and goes is logged again.
const saidAgain = time.Minute

// Troubles keeps the current troubles. It logs each when it begins, when it becomes another kind of
// trouble, and when it is over. How often something is tried in between does not matter.
//
// A subject names the thing that has trouble ("reading container x", "the machines API"). It may
// have parts that fail each on its own: the container's blobs, the API's kinds of requests. One
// trouble of many parts is logged for the first of them. The subject works again when all of its
// parts do.
//
// Its methods may be called from any goroutine. It logs under its lock, so that lines come in
// order.
type Troubles struct {
	log *slog.Logger
	n   atomic.Int32 // subjects in trouble

	mu       sync.Mutex
	subjects map[string]*subject
	retries  map[string]int64 // by kind
}

// subject: something that does not work, from the first trouble of a part to the last.
type subject struct {
	since time.Time
	parts map[string]string    // part -> kind
	count map[string]int       // kind -> parts that have it
	said  map[string]time.Time // kind -> when it was logged last
}

// NewTroubles returns a Troubles without any trouble.
func NewTroubles(log *slog.Logger) *Troubles {
	return &Troubles{log: log, subjects: make(map[string]*subject), retries: make(map[string]int64)}
}

// Begin counts a failed attempt: the part ("" for the whole) of the subject has a trouble of this
// kind. If that is news, text and attrs are logged at level. Kinds are few words of the code, never
// of a server.
func (t *Troubles) Begin(name, part, kind string, level slog.Level, text string, attrs ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.retries[kind]++
	now := time.Now()
	s := t.subjects[name]
	if s == nil {
		s = &subject{since: now, parts: make(map[string]string), count: make(map[string]int), said: make(map[string]time.Time)}
		t.subjects[name] = s
		t.n.Add(1)
	}
	before, known := s.parts[part]
	if known && before == kind {
		return
	}
	if known {
		s.leave(before)
	}
	s.parts[part] = kind
	s.count[kind]++
	if s.count[kind] > 1 {
		return // another part's trouble, which was logged
	}
	if at, ok := s.said[kind]; ok && now.Sub(at) < saidAgain {
		return
	}
	s.said[kind] = now
	t.log.Log(context.Background(), level, text, attrs...)
}

func (s *subject) leave(kind string) {
	if s.count[kind]--; s.count[kind] == 0 {
		delete(s.count, kind)
	}
}

// End notes that the part of the subject works. When that was its last trouble, "NAME works again"
// is logged.
func (t *Troubles) End(name, part string, attrs ...any) {
	if t.n.Load() == 0 {
		return // as nearly always
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if since, over := t.drop(name, part); over {
		t.log.Info(name+" works again", append([]any{"after", time.Since(since).Round(time.Millisecond)}, attrs...)...)
	}
}

// Forget is End without a word, for a part that does not exist any more.
func (t *Troubles) Forget(name, part string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(name, part)
}

func (t *Troubles) drop(name, part string) (since time.Time, over bool) {
	s := t.subjects[name]
	if s == nil {
		return since, false
	}
	kind, known := s.parts[part]
	if !known {
		return since, false
	}
	delete(s.parts, part)
	s.leave(kind)
	if len(s.parts) > 0 {
		return since, false
	}
	delete(t.subjects, name)
	t.n.Add(-1)
	return s.since, true
}

// Count counts a failed attempt that the log does not need to speak of.
func (t *Troubles) Count(kind string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.retries[kind]++
}

// Any tells whether something does not work.
func (t *Troubles) Any() bool { return t.n.Load() > 0 }

// Kind is the trouble that the part of the subject has, or "".
func (t *Troubles) Kind(name, part string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.subjects[name]; s != nil {
		return s.parts[part]
	}
	return ""
}

// Retries returns how many attempts have failed, by kind.
func (t *Troubles) Retries() map[string]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.retries)
}
