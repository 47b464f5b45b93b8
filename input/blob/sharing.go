package blob

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	azblock "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	azlease "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/lease"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

const (
	// defaultLease is the length of a lease, the longest that is not for ever. All other times are
	// fractions of it. A renewal comes every 15 s, and a write every 5 s if something moved. A look
	// at the other workers comes every 10 s. In a worker's first minute, and while it waits for a
	// shard that it has asked for, one comes every second. A lease counts as lost 10 s before its
	// end.
	defaultLease = time.Minute

	// sharedMost is how many requests of the shared container are under way at a time.
	sharedMost = 8

	maxShards   = 256
	shardPrefix = "shard-"
	probeName   = "check-"
)

// sharing is a worker's part in the container blob.shared: it claims its share of the shards, and
// asks for it.
type sharing struct {
	s         *Source
	account   *account
	container string
	worker    string
	reads     string        // what all workers of the container have to read
	lasts     time.Duration // of a lease
	most      atomic.Int64  // bytes of a shard's blob
	begun     atomic.Int64  // when the first worker of the container began, Unix seconds; 0 when unknown

	known  map[int]string // who was last seen to own, or to have owned, each shard; of the goroutine of run
	asked  map[int]bool   // shards that another gives up because this worker has asked; of the goroutine of run
	gone   time.Time      // when shards were first seen to be gone; of the goroutine of run
	none   time.Time      // when shards that this worker knows nothing of were first seen to have no blob; of the goroutine of run
	books  map[int]*book  // of shards that were read before, should their blobs be gone; s.mu
	counts sharingCounts  // s.mu

	// Of the goroutine of run:
	strange  map[int]time.Time // shards of workers that read something else, and since when
	soon     bool              // the next look is to come soon
	refused  error             // of the last look, what was not claimed or asked for
	sought   map[int]bool      // shards that this worker has asked for, and not tried to claim
	vain     bool              // it could not claim one of them, and has claimed none since
	vainly   input.Backoff     // for the next time
	askAfter time.Time         // nothing is asked for before
}

// sharingCounts are figures, and the news for the log at the next look.
type sharingCounts struct {
	claimed, takeovers, lost  int64
	newly, gaveBack, justLost int
	from                      map[string]bool // workers whose shards were taken over
	why                       error
	rescued                   int // shards whose positions could not be read
	rescuedWhy                error
}

// openSharing prepares to share. Nothing is claimed yet.
func openSharing(s *Source) (*sharing, error) {
	sh := &sharing{s: s, account: s.account, container: s.cfg.Shared, lasts: s.cfg.Lease, known: make(map[int]string), asked: make(map[int]bool), books: make(map[int]*book)}
	sh.most.Store(wholeMost)
	sh.counts.from = make(map[string]bool)
	if sh.lasts <= 0 {
		sh.lasts = defaultLease
	}
	sh.sought, sh.vainly = make(map[int]bool), input.Backoff{First: sh.lasts, Max: 32 * sh.lasts}
	if s.cfg.SharedURL != "" {
		cfg := s.cfg
		cfg.AccountURL = s.cfg.SharedURL
		a, err := openAccount(cfg)
		if err != nil {
			return nil, err
		}
		sh.account = a
	}
	sh.worker, sh.reads = s.cfg.worker, readsOf(s.account, s.cfg)
	return sh, nil
}

// newWorker names this process among the others: the machine or pod, and something that no other
// process has.
func newWorker() (name, short string) {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	short = fmt.Sprintf("%x", b)
	host, _ := os.Hostname()
	host = notInNames.ReplaceAllString(host, "-")
	return strings.Trim(host[:min(len(host), 60)]+"-"+short, "-"), short
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

func shardName(n int) string { return fmt.Sprintf("%s%03d", shardPrefix, n) }

func (sh *sharing) client(n int) *azblock.Client {
	return sh.account.service.NewContainerClient(sh.container).NewBlockBlobClient(shardName(n))
}

// margin is how long before its end a lease counts as lost. It is for clocks that run apart, and
// for an append to the host that takes long.
func (sh *sharing) margin() time.Duration { return sh.lasts / 6 }

// run looks at the shared container until the source closes, and claims this worker's share.
func (sh *sharing) run() {
	s := sh.s
	s.log.Info("sharing blobs with other workers", "worker", sh.worker, "blob.shared", sh.container, "shards", len(s.shards))
	var wait input.Backoff
	for began := time.Now(); s.ctx.Err() == nil; {
		pause := sh.lasts/6 - time.Duration(mathrand.Int64N(int64(sh.lasts/60)+1))
		if err := sh.look(); err != nil && s.ctx.Err() == nil {
			sh.fails("look at the other workers", err)
			pause = max(min(wait.Next(), pause), retryAfter(err))
		} else {
			sh.s.troubles.End("look at the other workers", "")
			if sh.refused != nil {
				pause = max(min(wait.Next(), pause), retryAfter(sh.refused))
			} else if wait.Reset(); sh.soon || len(sh.strange) > 0 || len(sh.asked) > 0 || time.Since(began) < sh.lasts && len(s.readNow()) < len(s.shards) {
				// What was asked for comes soon, and is for whoever is first. A rolling update ends
				// those that hold the others soon.
				pause /= 10
			}
		}
		sh.report()
		_ = input.Sleep(s.ctx, pause)
	}
}

// fails logs once what does not work in the shared container.
func (sh *sharing) fails(subject string, err error) {
	kind := kindOf(err)
	level := slog.LevelError
	if kind == throttled || kind == network {
		level = slog.LevelWarn
	}
	if isOther(err) {
		level = slog.LevelError
	}
	sh.s.troubles.Begin(subject, "", string(kind), level, "blob.shared: "+subject+": retrying; events that may be another worker's are not handed over",
		"container", sh.container, "error", sh.account.explainShared(err, sh.container))
}

// explainShared is explain for the shared container, where more is needed.
func (a *account) explainShared(err error, name string) error {
	var answer *azcore.ResponseError
	switch kind := kindOf(err); {
	case isOther(err):
		return err
	case bloberror.HasCode(err, bloberror.BlobNotFound):
		return errShardGone
	case kind == missing:
		return fmt.Errorf("it does not exist; create it: az storage container create --auth-mode login --account-name %s --name %s", strings.Split(a.host, ".")[0], name)
	case kind != denied || !errors.As(err, &answer) || a.signInHint(answer) != "":
		return a.explain(err, true)
	case a.entra:
		return fmt.Errorf("%d %s: grant the identity the role Storage Blob Data Contributor on this container; Storage Blob Data Reader is enough for the others; and check the account's firewall",
			answer.StatusCode, answer.ErrorCode)
	case a.sas:
		return fmt.Errorf("%d %s: the shared access signature needs the permissions read, write, delete and list (sp=rwdl) on this container", answer.StatusCode, answer.ErrorCode)
	}
	return a.explain(err, true)
}

// shardsError: the container has another number of shards, and so other blobs in each.
type shardsError struct{ want, have int }

func (e *shardsError) Error() string {
	return fmt.Sprintf("workers share these blobs in %d shards, and blob.shards is %d here; set it to %d, or take another container", e.want, e.have, e.want)
}

// foreverError: somebody who is no worker has the lease of a shard.
type foreverError struct{ shard string }

func (e *foreverError) Error() string {
	return e.shard + " is leased for ever, which no worker does, and nobody reads its blobs; end it: az storage blob lease break --auth-mode login --container-name CONTAINER --blob-name " + e.shard
}

// isOther tells whether somebody has to decide: nothing of it passes by itself.
func isOther(err error) bool {
	var shards *shardsError
	var other *otherError
	var forever *foreverError
	return errors.As(err, &shards) || errors.As(err, &other) || errors.As(err, &forever)
}

// readsOf tells what a worker reads: the account, and a hash of the containers and the prefix. A
// worker of other blobs would own shards that it reads nothing of, and nobody would.
func readsOf(a *account, cfg Config) string {
	h := fnv.New32a()
	_, _ = io.WriteString(h, strings.Join(slices.Sorted(slices.Values(cfg.Containers)), "\n")+"\n\n"+cfg.Prefix)
	return fmt.Sprintf("%s %08x", a.name, h.Sum32())
}

// otherError: a worker of the container reads other blobs.
type otherError struct{ worker, want, have string }

func (e *otherError) Error() string {
	want, _, _ := strings.Cut(e.want, " ")
	have, _, _ := strings.Cut(e.have, " ")
	if want != have {
		return fmt.Sprintf("worker %s shares the blobs of account %s in this container, and those of %s are read here; take another container for them", e.worker, want, have)
	}
	return fmt.Sprintf("worker %s has other blob.containers or another blob.prefix; set them alike, or end that worker", e.worker)
}

// other tells whether a worker that runs, and is not me, reads something else. A lease for ever is
// no worker's: its shard names the last one, which may have ended long ago.
func (l shardItem) other(me, reads string) bool {
	return l.owned() && !l.forEver && l.owner != me && l.reads != "" && l.reads != reads
}

// others tells whether there are workers that read something else, with an error if there have been
// for some time. A shard that is just being claimed still names its last owner, which has ended.
func (sh *sharing) others(listed []shardItem) (some bool, err error) {
	since := make(map[int]time.Time)
	for _, l := range listed {
		if !l.other(sh.worker, sh.reads) {
			continue
		}
		begun, known := sh.strange[l.n]
		if !known {
			begun = time.Now()
		}
		since[l.n] = begun
		if time.Since(begun) >= sh.lasts/12 {
			err = &otherError{worker: l.owner, want: l.reads, have: sh.reads}
		}
	}
	sh.strange = since
	return len(since) > 0, err
}

// yields tells whether this worker gives its shards up for those that read other blobs: they have
// claimed at the same time, and all see by the same list who has fewer.
func (sh *sharing) yields(listed []shardItem) bool {
	has := make(map[string]int)
	for _, l := range listed {
		if l.owned() && !l.forEver && l.reads != "" {
			has[l.reads]++
		}
	}
	for reads, n := range has {
		if mine := has[sh.reads]; n > mine || n == mine && reads < sh.reads {
			return true
		}
	}
	return false
}

// leaveAll gives all shards up, as if they were asked for.
func (sh *sharing) leaveAll() {
	sh.s.mu.Lock()
	defer sh.s.mu.Unlock()
	for _, h := range sh.s.shards {
		if c := h.claim; c != nil && h.reading {
			select {
			case c.leave <- struct{}{}:
			default:
			}
		}
	}
}

// checkShared tries what workers do in the shared container, with a blob that is deleted again.
func (a *account) checkShared(ctx context.Context, cfg Config, reads string) input.Finding {
	f := input.Finding{What: "container " + cfg.Shared + " (blob.shared)", Detail: "may be listed, written and leased"}
	name, _ := newWorker()
	blob := a.service.NewContainerClient(cfg.Shared).NewBlockBlobClient(probeName + name)
	for _, step := range []struct {
		what string
		try  func() error
	}{
		{"list", func() error {
			all, err := a.shards(ctx, cfg.Shared)
			for _, l := range all {
				if l.shards != 0 && l.shards != cfg.Shards {
					return &shardsError{want: l.shards, have: cfg.Shards}
				}
			}
			for _, l := range all {
				if l.other("", reads) {
					return &otherError{worker: l.owner, want: l.reads, have: reads}
				}
			}
			return err
		}},
		{"write", func() error { _, err := blob.Upload(ctx, body(nil), nil); return err }},
		{"read", func() error { _, _, err := a.whole(ctx, cfg.Shared, probeName+name); return err }},
		{"lease", func() error {
			lease, err := azlease.NewBlobClient(blob, nil)
			if err == nil {
				_, err = lease.AcquireLease(ctx, 15, nil)
			}
			if err == nil {
				_, err = blob.Upload(ctx, body(nil), &azblock.UploadOptions{AccessConditions: conditions(*lease.LeaseID(), nil, nil)})
			}
			if err == nil {
				_, err = lease.ReleaseLease(ctx, nil)
			}
			return err
		}},
		{"delete", func() error { _, err := blob.Delete(ctx, nil); return err }},
	} {
		if err := step.try(); err != nil {
			f.Err = fmt.Errorf("%s: %w", step.what, a.explainShared(err, cfg.Shared))
			_, _ = blob.Delete(ctx, nil) // if it was written
			return f
		}
	}
	return f
}

// report logs the shards that have come and gone since the last time.
func (sh *sharing) report() {
	s := sh.s
	reading := len(s.readNow())
	s.mu.Lock()
	c := sh.counts
	sh.counts.newly, sh.counts.gaveBack, sh.counts.justLost, sh.counts.why, sh.counts.from = 0, 0, 0, nil, make(map[string]bool)
	sh.counts.rescued, sh.counts.rescuedWhy = 0, nil
	s.mu.Unlock()
	if c.rescued > 0 {
		s.log.Error("blob.shared: positions of shards cannot be read: events that were read may be repeated",
			"shards", c.rescued, "container", sh.container, "error", c.rescuedWhy)
	}
	if c.justLost > 0 {
		s.log.Warn("lost shards, because their leases ran out: their events are no longer handed over, and the next owner repeats those without a written position",
			"lost", c.justLost, "now", reading, "of", len(s.shards), "error", sh.account.explainShared(c.why, sh.container))
	}
	if c.gaveBack > 0 {
		s.log.Info("gave shards to other workers", "given", c.gaveBack, "now", reading, "of", len(s.shards))
	}
	if c.newly > 0 {
		var from []string
		for worker := range c.from {
			from = append(from, worker)
		}
		slices.Sort(from)
		s.log.Info("claimed shards", "claimed", c.newly, "now", reading, "of", len(s.shards), "before_of", strings.Join(from, " "))
	}
}

// look lists the shards, claims those that are this worker's share, and asks for others.
func (sh *sharing) look() error {
	s := sh.s
	listed, err := sh.account.shards(s.ctx, sh.container)
	if err != nil {
		return err
	}
	all := make([]owned, len(s.shards))
	exists, before := make([]bool, len(s.shards)), make([]string, len(s.shards))
	for n := range all {
		all[n].n = n
	}
	forEver, named := "", false
	for _, l := range listed {
		named = named || l.shards != 0
		if begun := sh.begun.Load(); l.begun > 0 && (begun == 0 || l.begun < begun) {
			sh.begun.Store(l.begun)
		}
		if l.shards != 0 && l.shards != len(s.shards) {
			return &shardsError{want: l.shards, have: len(s.shards)}
		}
		n := l.n
		if n >= len(all) {
			continue
		}
		exists[n], before[n] = true, l.owner
		if l.owner != "" {
			sh.known[n] = l.owner
		}
		if l.owned() {
			all[n].owner, all[n].leaving = l.owner, l.state == azlease.StateTypeBreaking
		}
		if l.owned() && l.owner == "" { // somebody is claiming it
			all[n].owner, all[n].leaving = nobody, true
		}
		if l.owned() && l.forEver {
			all[n].owner, all[n].leaving, forEver = nobody, true, l.name
		}
	}
	drained, gone, none := false, false, false
	var broken []*claim
	var gones []owned // whose positions this worker has
	s.mu.Lock()
	for n, h := range s.shards {
		o, c := &all[n], h.claim
		mine := o.owner == sh.worker
		if o.coming = sh.asked[n] && o.leaving && !mine; !o.coming {
			delete(sh.asked, n)
		}
		// Whether this worker has its last positions.
		knows := sh.books[n] != nil && h.gave.IsZero() && (sh.known[n] == "" || sh.known[n] == sh.worker)
		if o.first = !exists[n] && knows; o.first {
			gones = append(gones, *o)
		}
		switch {
		case exists[n] || sh.known[n] == "" && knows:
		case sh.known[n] != "":
			gone = true
			if sh.gone.IsZero() {
				sh.gone = time.Now()
			}
			if !knows && time.Since(sh.gone) < sh.lasts/2 {
				o.owner, o.leaving = nobody, true // another worker knows its positions
			}
		case s.cfg.Start.Latest:
			// Perhaps the container was made anew, and others know the positions. They look within
			// this time. Whoever begins with the latest passes over what they had to read.
			none = true
			if sh.none.IsZero() {
				sh.none = time.Now()
			}
			if time.Since(sh.none) < sh.lasts/4 {
				o.owner, o.leaving = nobody, true
			}
		}
		switch {
		case c != nil && h.reading && mine:
			if o.leaving {
				select {
				case c.leave <- struct{}{}:
				default:
				}
			}
			continue
		case c != nil && h.reading:
			// It may be claimed anew once no event of it is on its way: under a new lease, the
			// marks of events that were not handed over would count.
			broken = append(broken, c)
			o.owner, o.leaving, o.coming = nobody, true, true
			continue
		case c != nil && !c.lease.Held() && h.tails == 0:
			// No event of it is on its way any more. The next owner reads again the events that
			// were not handed over, so their records are no repeats.
			h.claim, c, drained = nil, nil, true
		}
		if mine || (c != nil || time.Since(h.gave) < sh.lasts/2) && o.owner == "" {
			o.owner, o.leaving, o.coming = nobody, true, c != nil // it was given to another, or something of it is still on its way
		}
	}
	s.mu.Unlock()
	if !gone {
		sh.gone = time.Time{}
	}
	if !none {
		sh.none = time.Time{}
	}
	for _, c := range broken {
		sh.lose(c, errors.New("somebody ended the lease"))
	}
	if drained && s.cfg.SetBack != nil {
		s.cfg.SetBack()
	}
	// At once, and not only with a claim, which waits for events that are on their way: a new
	// worker may be about to begin without these positions.
	sh.refused = sh.each(gones, func(o owned) error {
		err := sh.putBack(o.n)
		exists[o.n] = err == nil
		return err
	})
	switch some, err := sh.others(listed); {
	case err != nil:
		if sh.yields(listed) {
			sh.leaveAll()
		}
		return err
	case some:
		return nil
	}
	claim, ask := fair(all, sh.worker)
	if sh.soon = !named && forEver == ""; sh.soon {
		// Those who begin together have to agree on the number of shards: whoever has the first one
		// names it, before there is another.
		claim = slices.DeleteFunc(claim, func(o owned) bool { return o.n > 0 })
	}
	failed := sh.each(claim, func(o owned) error { return sh.claim(s.shards[o.n], exists[o.n], before[o.n]) })
	sh.claimed(claim, failed)
	ask = sh.mayAsk(ask)
	for _, o := range ask {
		sh.asked[o.n], sh.sought[o.n] = true, true
	}
	sh.refused = cmp.Or(sh.refused, failed, sh.each(ask, sh.ask))
	const subject = "claim shards"
	if sh.refused != nil {
		sh.fails(subject, sh.refused)
	} else {
		s.troubles.End(subject, "")
	}
	if forEver != "" {
		return &foreverError{forEver}
	}
	return nil
}

// claimed looks at what has become of claims. The containers are listed if shards have come.
func (sh *sharing) claimed(claim []owned, failed error) {
	s := sh.s
	reading := s.readNow()
	come, vain := false, false
	for _, o := range claim {
		has := reading[s.shards[o.n]] != nil
		come = come || has
		vain = vain || !has && sh.sought[o.n] && failed != nil
		delete(sh.sought, o.n)
	}
	switch {
	case come:
		sh.vain, sh.askAfter = false, time.Time{}
		sh.vainly.Reset()
	case vain:
		sh.vain, sh.askAfter = true, time.Now().Add(sh.vainly.Next())
	}
	if come {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, c := range s.containers {
			c.poke() // once, for all
		}
	}
}

// mayAsk returns what may be asked for now. A shard that is given up for a worker that cannot claim
// it is nobody's for a while. So that worker asks for one at a time, and more and more rarely.
func (sh *sharing) mayAsk(ask []owned) []owned {
	switch {
	case !sh.vain:
		return ask
	case len(sh.asked) > 0 || time.Now().Before(sh.askAfter):
		return nil
	}
	return ask[:min(len(ask), 1)]
}

// nobody is the owner of a shard that no worker may claim yet.
const nobody = "-"

// each does f for all, several at a time, and returns the first error. Failures are tried again at
// the next look.
func (sh *sharing) each(all []owned, f func(owned) error) (first error) {
	var mu sync.Mutex
	var running sync.WaitGroup
	places := make(chan struct{}, sharedMost)
	for _, o := range all {
		places <- struct{}{}
		running.Go(func() {
			defer input.CatchAndLog(sh.s.log, "claim a shard")
			defer func() { <-places }()
			if err := f(o); err != nil && sh.s.ctx.Err() == nil {
				mu.Lock()
				defer mu.Unlock()
				if first == nil {
					first = err
				}
			}
		})
	}
	running.Wait()
	return first
}

// about is the metadata that every blob of a shard has. Where no blob tells when the first worker
// of the container began, it is now.
func (sh *sharing) about() map[string]*string {
	sh.begun.CompareAndSwap(0, sh.account.surely().Unix())
	shards, begun := strconv.Itoa(len(sh.s.shards)), strconv.FormatInt(sh.begun.Load(), 10)
	return map[string]*string{"owner": &sh.worker, "shards": &shards, "reads": &sh.reads, "begun": &begun}
}

// isNew reports whether a shard without a blob may be one that nobody has read yet. Workers that
// begin together claim all shards soon. Later, somebody has deleted the blob.
func (sh *sharing) isNew() bool {
	begun := sh.begun.Load()
	return begun == 0 || sh.account.surely().Sub(time.Unix(begun, 0)) < sh.lasts
}

// putBack writes the positions of a shard whose blob is gone. The next owner reads on from there.
func (sh *sharing) putBack(n int) error {
	ctx, cancel := sh.within(sh.lasts / 6)
	defer cancel()
	b := &book{packed: true, mem: sh.rescue(n, errShardGone)}
	packed, _, _ := b.pack(int(sh.most.Load()))
	if packed == nil {
		return errTooMany
	}
	star := azcore.ETagAny
	_, err := sh.client(n).Upload(ctx, body(packed), &azblock.UploadOptions{
		Metadata:         sh.about(),
		AccessConditions: conditions("", nil, &star),
	})
	if isThere(err) {
		return nil
	}
	return err
}

// ask breaks the lease of a worker that has too many shards. The lease lasts for the rest of its
// time, and that worker gives it back when all is written.
func (sh *sharing) ask(o owned) error {
	ctx, cancel := sh.within(sh.lasts / 6)
	defer cancel()
	lease, err := azlease.NewBlobClient(sh.client(o.n), nil)
	if err == nil {
		_, err = lease.BreakLease(ctx, nil)
	}
	if bloberror.HasCode(err, bloberror.LeaseNotPresentWithLeaseOperation) {
		return nil // it is free already
	}
	return err
}

func (sh *sharing) within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(sh.s.ctx, max(d, time.Second))
}
