package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
)

// A soak is one long row: both sources at full speed, in rounds. A round has some faults, drawn at
// random, and ends in a calm. By then everything must have arrived, and the process is measured. At
// the end nothing may have grown.
type soak struct {
	*run
	h       *host
	second  *host
	round   int
	blobs   []string
	samples []sample
}

// sample is the size of the process in a calm.
type sample struct {
	goroutines, threads, megabytes int

	files openFiles
}

// countGoroutines is added to the plugin for a soak: nothing else tells how many goroutines a
// library has.
const countGoroutines = `package main

import (
	"os"
	"runtime"
	"strconv"
	"time"
)

func init() {
	path := os.Getenv("FAULTS_GOROUTINES")
	go func() {
		for ; ; time.Sleep(500 * time.Millisecond) {
			_ = os.WriteFile(path, []byte(strconv.Itoa(runtime.NumGoroutine())), 0o600)
		}
	}()
}
`

func (o *options) soak(ctx context.Context, d time.Duration, real bool) error {
	if real && o.fluentBit == "" {
		return errors.New("there is no Fluent Bit")
	}
	fmt.Printf("seed %d, %v on %s\n\n", o.seed, d, hostName(real))
	w := &row{name: "soak", fault: "faults at random for " + d.String(), source: "hub and blob", excuse: "cut off inside, passed on as they are", limit: d + 10*time.Minute,
		script: func(r *run) { (&soak{run: r}).script(d) }}
	result := o.do(ctx, w, real)
	fmt.Printf("\n%s%s", heading, result.line())
	for _, f := range result.failures {
		fmt.Printf("  FAILED: %s\n", f)
	}
	if len(result.failures) > 0 {
		return fmt.Errorf("seed %d: the soak failed", o.seed)
	}
	return ctx.Err()
}

func (s *soak) script(d time.Duration) {
	end := time.Now().Add(d)
	s.unnumbered = true
	s.startHub(4)
	s.startBlob()
	goroutines := filepath.Join(s.dir, "goroutines")
	s.h = s.patchedHost("soak", []patch{{file: "plugin/goroutines.go", new: countGoroutines}}, merge(s.hubSection(), s.blobSection()))
	s.h.env = []string{"FAULTS_GOROUTINES=" + goroutines}
	s.h.flags = []string{"-refuse", "0.002", "-seed", strconv.Itoa(s.rnd.IntN(1 << 20)), "-pause-every", "400", "-pause-ms", "500", "-grace", "200"}
	s.h.forget = true
	s.second = s.host(s.hubSection().with("db", s.dir+"/second.db"))
	s.second.forget = true
	s.h.start()
	for time.Now().Before(end) {
		s.round++
		before := s.ledger.count()
		began := time.Now()
		stop, done := make(chan struct{}), make(chan error, 1)
		go func() { done <- s.load(stop) }()
		var names []string
		for range 3 {
			s.sleep(s.between(time.Second, 4*time.Second))
			f := soakFaults[s.rnd.IntN(len(soakFaults))]
			names = append(names, f.name)
			f.script(s)
		}
		s.sleep(2 * time.Second)
		close(stop)
		if err := <-done; err != nil {
			s.fatalf("put events in: %v", err)
		}
		loaded := time.Since(began)
		s.drain()
		c := s.ledger.count()
		if c.lost > 0 {
			s.fatalf("round %d (%s): %d events lost, such as numbers %v", s.round, strings.Join(names, ", "), c.lost, s.ledger.missing(10))
		}
		if s.second.process != nil && s.second.running() {
			s.second.stop()
			// Counted events are a hole in the file. A start would cut the file off at it, and the
			// count would go on behind the cut.
			s.second.emptyStorage()
		}
		s.until(120*time.Second, "the group to commit everything", s.allCommitted)
		s.sleep(2 * time.Second)
		m := s.measure(goroutines)
		s.samples = append(s.samples, m)
		fmt.Printf("round %3d  %7d events, %5.0f a second, %6d duplicates  %3d goroutines %2d threads %4d MB  %s  (%v)\n",
			s.round, c.in-before.in, float64(c.in-before.in)/loaded.Seconds(), c.duplicates-before.duplicates,
			m.goroutines, m.threads, m.megabytes, strings.Join(names, ", "), m.files)
		s.forgetRead()
	}
	s.finishNow()
	s.judgeGrowth()
}

// load puts events into both sources as fast as they come out.
func (s *soak) load(stop chan struct{}) error {
	name := blobName(time.Now().Add(-time.Duration(s.round%40) * time.Hour))
	s.blobs = append(s.blobs, name)
	for {
		select {
		case <-stop:
			return nil
		case <-s.ctx.Done():
			return s.ctx.Err()
		default:
		}
		if s.ledger.backlog() > 60_000 {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		s.valve.Lock()
		err := errors.Join(s.toHub(hubName)(1000), s.toBlobNamed(name, 500))
		s.valve.Unlock()
		if err != nil {
			return err
		}
	}
}

// measure returns the present size of the process. The number of goroutines is written twice a
// second.
func (s *soak) measure(path string) sample {
	u, err := usageOf(s.h.pid())
	if err != nil {
		s.fatalf("measure the host: %v; the end of its log:\n%s", err, s.h.lastLog(10))
	}
	n := 0
	s.until(5*time.Second, "the number of goroutines", func() bool { // the file is empty for a moment while it is written
		b, _ := os.ReadFile(path)
		n, err = strconv.Atoi(string(b))
		return err == nil
	})
	files, err := s.h.openFiles()
	if err != nil {
		s.fatalf("list the open files of the host: %v", err)
	}
	return sample{goroutines: n, threads: u.threads, megabytes: int(u.private >> 20), files: files}
}

// forgetRead deletes the read messages and blobs from the hub and the account: a soak is longer
// than memory is large.
func (s *soak) forgetRead() {
	s.admin(func(ctx context.Context, a *kadm.Client) error {
		ends, err := a.ListEndOffsets(ctx, hubName)
		if err != nil {
			return err
		}
		_, err = a.DeleteRecords(ctx, ends.Offsets())
		return err
	})
	for _, name := range s.blobs {
		s.blob.Delete(blobContainer, name)
	}
	s.blobs = nil
}

// judgeGrowth compares the last third of the rounds with the first, the very first excepted.
func (s *soak) judgeGrowth() {
	n := len(s.samples)
	if n < 4 {
		s.notef("too short to tell whether anything grew")
		return
	}
	most := func(samples []sample) sample {
		m := sample{files: openFiles{}}
		for _, x := range samples {
			m.goroutines, m.threads, m.megabytes = max(m.goroutines, x.goroutines), max(m.threads, x.threads), max(m.megabytes, x.megabytes)
			m.files.most(x.files)
		}
		return m
	}
	first, last := most(s.samples[1:1+max(1, n/3)]), most(s.samples[n-max(1, n/3):])
	s.notef("%d rounds; first third and last: %d and %d goroutines, %d and %d threads, %d and %d MB, %d and %d files but for the host's own (%v; then %v)", n,
		first.goroutines, last.goroutines, first.threads, last.threads, first.megabytes, last.megabytes, first.files.own(), last.files.own(), first.files, last.files)
	if last.goroutines > first.goroutines+8 || last.threads > first.threads+8 || last.files.own() > first.files.own()+6 {
		s.failf("it grows: at most %+v in the first third of the rounds, %+v in the last", first, last)
	}
	// The faults before a calm decide how much memory a process has given back in it. So only many
	// calms tell growth from chance. The limit holds in each.
	if n >= manyRounds && last.megabytes > first.megabytes*5/4+32 {
		s.failf("it grows: at most %d MB in the first third of the rounds, %d MB in the last", first.megabytes, last.megabytes)
	}
	if most := most(s.samples).megabytes; most > soakMemory {
		s.failf("it takes %d MB, with a memory_limit of 256M", most)
	}
}

const (
	manyRounds = 24
	soakMemory = 256 + 16 // MB: memory_limit when it is not set, and 16 for the host, as in the rows that fill the memory
)

var soakFaults = []struct {
	name   string
	script func(s *soak)
}{
	{"nothing", func(*soak) {}},
	{"SIGKILL", func(s *soak) { s.h.crash(); s.h.emptyStorage(); s.h.again() }},
	{"SIGTERM", func(s *soak) { s.h.stop(); s.h.emptyStorage(); s.h.again() }},
	{"reload", func(s *soak) { s.h.reload() }},
	{"output down", func(s *soak) { s.outputDown(true); s.sleep(s.between(time.Second, 4*time.Second)); s.outputDown(false) }},
	{"hub cut", func(s *soak) {
		for range 5 {
			s.withoutFeed(s.hub.CutConnections)
			s.sleep(s.between(10*time.Millisecond, 400*time.Millisecond))
		}
	}},
	{"hub down", func(s *soak) {
		s.withoutFeed(func() {
			s.hub.SetDown(true)
			s.sleep(s.between(time.Second, 4*time.Second))
			s.hub.SetDown(false)
		})
	}},
	{"hub throttled", func(s *soak) {
		until := time.Now().Add(s.between(time.Second, 3*time.Second))
		s.hub.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
			if time.Now().After(until) {
				s.hub.DropControl()
				return nil, nil, false
			}
			s.hub.KeepControl()
			return emptyFetch(req, 200), nil, true
		})
	}},
	{"credentials revoked", func(s *soak) {
		s.withoutFeed(func() {
			revoked := s.hub.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.SASLAuthenticate}, TopLevel: true, Err: kerr.SaslAuthenticationFailed, Count: -1})
			s.hub.CutConnections()
			s.sleep(s.between(time.Second, 3*time.Second))
			revoked.Remove()
		})
	}},
	{"second consumer", func(s *soak) {
		if s.second.process != nil && s.second.running() {
			s.second.stop()
			s.second.emptyStorage()
		} else {
			s.second.start()
		}
	}},
	{"poison", func(s *soak) {
		s.withoutFeed(func() {
			for _, p := range s.poison() {
				if err := s.produce(hubName, p); err != nil {
					s.fatalf("%v", err)
				}
			}
		})
	}},
	{"storage 503", func(s *soak) {
		s.blob.SetFault(func(fakeblob.Request) *fakeblob.Fault {
			return &fakeblob.Fault{Status: 503, Code: "ServerBusy", RetryAfter: "1"}
		})
		s.sleep(s.between(time.Second, 3*time.Second))
		s.blob.SetFault(nil)
	}},
	{"storage cut", func(s *soak) {
		rnd := rand.New(rand.NewPCG(s.rnd.Uint64(), 1))
		s.blob.SetFault(func(q fakeblob.Request) *fakeblob.Fault {
			if q.Op == fakeblob.GetBlob && rnd.IntN(3) == 0 {
				return &fakeblob.Fault{CutAfter: 1 + rnd.IntN(200_000)}
			}
			return nil
		})
		s.sleep(s.between(time.Second, 3*time.Second))
		s.blob.SetFault(nil)
	}},
}
