package machines

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/web"
)

const (
	workers     = 4   // look-ups at once
	maxFlights  = 512 // look-ups that are waiting or under way; the rest is asked for when it is missed again
	maxHops     = 4   // from a device that was merged into another
	answerFor   = 10 * time.Minute
	answersKept = 32 << 10 // about 4 MB
	maxID       = 128
)

// Learn takes the API's facts of a device: the properties of a DeviceInfo record, as JSON, valid
// only during the call. evict: another device may give way to it. It is false for devices of the
// list: a tenant may have more devices than the cache holds, and those of alerts must stay. It is
// called from several goroutines.
type Learn func(tenant string, deviceInfo []byte, evict bool)

// Client asks the machines API of one tenant. It fetches the list of all devices when it starts and
// at intervals, and answers look-ups.
type Client struct {
	cfg   Config
	learn Learn
	log   *slog.Logger
	api   *api

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	queue   chan *flight
	breaker *breaker

	troubles *input.Troubles // of list and lookup

	mu      sync.Mutex
	flights map[string]*flight            // by id in lower case
	answers *lru.Cache[string, time.Time] // when the API last answered for an id, known or not
	stats   Stats
}

// flight is one device that is being asked for. All that miss it wait for the same flight.
type flight struct {
	id   string
	tell []func() // when it is over; c.mu
	// answered, when it is over: the API has given the device, or answered that it knows none.
	answered bool
}

// Stats counts since the start.
type Stats struct {
	Found, Unknown, Failed uint64         // look-ups by outcome
	Listed                 uint64         // devices that came in lists
	Lists                  uint64         // lists that came whole
	Calls                  map[int]uint64 // calls by the code of their answer; 0 without an answer
	Waiting                int            // look-ups waiting or under way
	QuotaWait              time.Duration  // that calls waited for the quota, together
}

// The kinds of request, as parts of the subject that the log speaks of.
const (
	subject = "the machines API"
	list    = "list"
	lookup  = "look-up"
)

// Open starts a client. It fails only when the identity cannot be used at all; the network is tried
// in the background. log gets one message when the API does not work and one when it does again.
func Open(cfg Config, learn Learn, log *slog.Logger) (*Client, error) {
	base, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("device_info.api.url: %w", err)
	}
	return start(cfg, base, web.Guard(cfg.Identity.HTTP, web.AtMost(pageLimit)), func() (azcore.TokenCredential, error) { return cfg.Identity.Credential(cfg.Auth) }, learn, log)
}

func start(cfg Config, base *url.URL, hc *http.Client, newCredential func() (azcore.TokenCredential, error), learn Learn, log *slog.Logger) (*Client, error) {
	cred, err := newCredential()
	if err != nil {
		return nil, fmt.Errorf("device_info.auth: %w", err)
	}
	b := newBreaker()
	a := &api{base: base, scope: cfg.Scope, http: hc, newCredential: newCredential, cred: cred, codes: make(map[int]uint64), patience: cfg.Wait, inTime: b.inTime}
	answers, err := lru.New[string, time.Time](answersKept)
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, learn: learn, log: log, api: a, queue: make(chan *flight, maxFlights), breaker: b, troubles: input.NewTroubles(log),
		flights: make(map[string]*flight), answers: answers}
	a.tooSlow = func() {
		defer input.CatchAndLog(log, "note a slow answer")
		if b.tooSlow() {
			c.complain(lookup, fmt.Errorf("look up a device: no answer within device_info.wait, %v; a later answer serves the next alert", cfg.Wait))
		}
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	for range workers {
		c.running.Go(c.work)
	}
	if cfg.Refresh > 0 {
		c.running.Go(c.keepList)
	}
	return c, nil
}

// Close ends everything that was started and waits for it. Look-ups return at once.
func (c *Client) Close() {
	c.cancel()
	c.running.Wait()
	c.api.http.CloseIdleConnections()
}

// Stats returns the counts so far.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	s := c.stats
	s.Waiting = len(c.flights)
	c.mu.Unlock()
	c.api.limiter.mu.Lock()
	s.QuotaWait = c.api.limiter.waited
	c.api.limiter.mu.Unlock()
	c.api.codesMu.Lock()
	s.Calls = maps.Clone(c.api.codes)
	c.api.codesMu.Unlock()
	return s
}

// Ask asks for devices of tenant, all at once, and waits for nothing. For each of coming done is
// called once, when the API has answered or has failed to, unless the client is closed before. A
// device that was found has been given to learn by then. For left no answer will come within wait:
// the API does not work or is too slow, or its quota is used up. For other ids the API has answered
// lately.
func (c *Client) Ask(tenant string, ids []string, wait time.Duration, done func(id string, answered bool)) (coming, left []string) {
	if !strings.EqualFold(tenant, c.cfg.Tenant) {
		return nil, nil
	}
	closed := c.breaker.closed()
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	late := !closed || c.api.limiter.delay(forLookup, now) > wait || c.ctx.Err() != nil
	for _, given := range ids {
		id := strings.ToLower(given)
		if !askable(id) {
			continue
		}
		if at, ok := c.answers.Get(id); ok && now.Sub(at) < answerFor {
			continue
		}
		f := c.flights[id]
		if f == nil && len(c.flights) < maxFlights && (closed || c.breaker.due()) && c.ctx.Err() == nil {
			f = &flight{id: id}
			c.flights[id] = f
			c.queue <- f // never blocks: there are no more flights than places
		}
		if f == nil || late {
			left = append(left, given)
			continue
		}
		f.tell = append(f.tell, func() { done(given, f.answered) })
		coming = append(coming, given)
	}
	return coming, left
}

// askable reports whether an id, in lower case, may be part of an address. It comes from records;
// all known ones are hexadecimal.
func askable(id string) bool {
	if id == "" || len(id) > maxID {
		return false
	}
	for i := range len(id) {
		if c := id[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func (c *Client) work() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case f := <-c.queue:
			c.fly(f)
		}
	}
}

// fly asks for the device of f, and ends the flight.
func (c *Client) fly(f *flight) {
	found, unknown, err := c.ask(f.id)
	if err != nil {
		c.complain(lookup, err)
	}
	c.mu.Lock()
	switch {
	case found:
		c.stats.Found++
	case unknown:
		c.stats.Unknown++
	default:
		c.stats.Failed++
	}
	if f.answered = found || unknown; f.answered {
		c.answers.Add(f.id, time.Now())
	}
	delete(c.flights, f.id)
	tell := f.tell
	c.mu.Unlock()
	for _, told := range tell {
		told()
	}
}

// ask looks a device up, and the one that it was merged into. A device that was found before an
// error stays found. err is for the log: it is nil while the breaker tolerates failures.
func (c *Client) ask(id string) (found, unknown bool, err error) {
	defer input.Catch("look up a device", &err)
	if !c.breaker.enter(lookupTimeout) {
		return false, false, nil
	}
	seen := make(map[string]bool)
	for range maxHops {
		seen[id] = true
		mergedInto := ""
		err := c.api.machine(c.ctx, id, func(m machine) {
			mergedInto = strings.ToLower(m.mergedInto)
			c.learn(c.cfg.Tenant, m.info, true)
		})
		switch {
		case c.ctx.Err() != nil:
			return found, false, nil
		case isNotFound(err):
			c.works()
			return found, true, nil
		case err != nil:
			if c.breaker.failed() {
				return found, false, fmt.Errorf("look up a device: %w", err)
			}
			return found, false, nil
		}
		c.works()
		found = true
		if !askable(mergedInto) || seen[mergedInto] {
			break
		}
		id = mergedInto
	}
	return found, false, nil
}

// works notes that the API has answered a look-up.
func (c *Client) works() {
	c.breaker.answered()
	if c.breaker.closed() {
		c.relieve(lookup)
	}
}

// keepList fetches the list, again and again. A page that fails is tried again from where it was.
func (c *Client) keepList() {
	backoff := input.Backoff{First: 30 * time.Second, Max: 10 * time.Minute}
	var at cursor
	failures := 0
	for {
		last, err := c.listPage(&at)
		wait := time.Duration(0)
		switch {
		case c.ctx.Err() != nil:
			return
		case err != nil:
			c.complain(list, fmt.Errorf("list devices: %w", err))
			wait = backoff.Next()
			if failures++; failures%10 == 0 {
				at = cursor{} // the link to the next page may have grown too old
			}
		default:
			c.relieve(list)
			c.breaker.answered()
			backoff.Reset()
			failures = 0
		}
		if last {
			c.mu.Lock()
			c.stats.Lists++
			lists, listed := c.stats.Lists, c.stats.Listed
			c.mu.Unlock()
			if lists == 1 {
				c.log.Info("the machines API has listed the tenant's devices", "devices", listed)
			}
			at, wait = cursor{}, c.cfg.Refresh
		}
		if input.Sleep(c.ctx, wait) != nil {
			return
		}
	}
}

func (c *Client) listPage(at *cursor) (last bool, err error) {
	n := uint64(0)
	defer func() {
		c.mu.Lock()
		c.stats.Listed += n
		c.mu.Unlock()
	}()
	defer input.Catch("list devices", &err)
	return c.api.page(c.ctx, at, func(m machine) {
		n++
		c.learn(c.cfg.Tenant, m.info, false)
	})
}

// complain logs that the API does not work, unless it has done so. part is the part that failed:
// list or lookup.
func (c *Client) complain(part string, err error) {
	c.troubles.Begin(subject, part, "failed", slog.LevelWarn,
		"the machines API does not work and is tried again; until then alerts get only the facts that are known of their devices",
		"api", c.api.base.Host, "error", err)
}

// relieve logs that the API works again, once all failed parts do.
func (c *Client) relieve(part string) { c.troubles.End(subject, part, "api", c.api.base.Host) }
