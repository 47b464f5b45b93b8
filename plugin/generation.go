package main

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// generation is the instances that the host has, from one start or reload to the next. Its
// callbacks pause, resume and exit name no instance, and some reach the wrong one. So their meaning
// is worked out here.
//
// All callbacks come from the host's thread, but a reload brings a new thread; hence the lock. It
// is not held while the host is called: an append comes back to pause.
type generation struct {
	mu        sync.Mutex
	instances map[uintptr]*instance
	lastID    uintptr
	held      bool      // paused outside of any append: nothing is handed over until a resume or a new instance
	appending *instance // whose append is under way
}

// stopWait is how long an exit waits for the instances: longer than the last commit may take.
const stopWait = 15 * time.Second

// add makes in one of the generation and returns its id, which is never 0 and never used again.
func (g *generation) add(in *instance) uintptr {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.instances == nil {
		g.instances = make(map[uintptr]*instance)
	}
	g.lastID++
	g.instances[g.lastID] = in
	g.held = false
	g.limitMemory()
	return g.lastID
}

// limitMemory gives the garbage collector the sum of the users' settings. So the heap stays near
// that and does not double. The runtime is the library's own: every Go library of a process has one
// to itself.
func (g *generation) limitMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit := int64(0)
	for _, in := range g.instances {
		limit += in.memory
	}
	if limit == 0 {
		limit = math.MaxInt64
	}
	debug.SetMemoryLimit(limit)
}

// tick hands over the events that the instance id has ready. An id that has exited is nobody's.
func (g *generation) tick(id uintptr, now time.Time) {
	g.mu.Lock()
	in := g.instances[id]
	held, busy := g.held, 0
	for _, other := range g.instances {
		if other.handover.busy(now) {
			busy++
		}
	}
	g.mu.Unlock()
	if in == nil {
		return
	}
	if !held {
		in.handover.tick(now, busy, func(tag string, data []byte) bool { return g.append(in, tag, data) })
	}
	in.report(now)
	in.logs.drain(in.host.log)
}

// memory is the sum of memory_limit over all instances.
func (g *generation) memory() (bytes int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, in := range g.instances {
		bytes += in.memory
	}
	return bytes
}

// append is the host's, with a note of who is inside it.
func (g *generation) append(in *instance, tag string, data []byte) bool {
	g.setAppending(in)
	defer g.setAppending(nil)
	return in.host.append(tag, data)
}

func (g *generation) setAppending(in *instance) {
	g.mu.Lock()
	g.appending = in
	g.mu.Unlock()
}

// pause inside an append means that the append has brought a section over a limit: its own, or that
// of a filter's new events. The appending instance stops. At any other time it is the beginning of
// a shutdown, or a filter that has too much to emit. It does not name an instance, so all have to
// stop. A shutdown waits until all is delivered.
func (g *generation) pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.appending != nil {
		g.appending.handover.limited = true
		return
	}
	g.held = true
}

// resume takes back any pause. None comes once a shutdown has begun.
func (g *generation) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = false
	for _, in := range g.instances {
		in.handover.resumed(time.Now())
	}
}

// exit stops all instances, waits for them and forgets them. The exits that follow for the same
// generation find none.
func (g *generation) exit() {
	g.mu.Lock()
	instances := g.instances
	g.instances, g.held, g.appending = nil, false, nil
	g.limitMemory()
	g.mu.Unlock()

	for _, in := range instances {
		in.stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopWait)
	defer cancel()
	for _, in := range instances {
		select {
		case <-in.stopped:
		case <-ctx.Done():
			in.log.Error("did not stop in time and is left behind: events that it has not committed are read again", "waited", stopWait)
		}
		in.logs.drain(in.host.log)
	}
}
