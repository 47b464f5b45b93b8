package blob

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	azblock "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	azlease "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/lease"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/web"
)

// claim is a shard's lease while it is ours.
type claim struct {
	h     *shard
	book  *book
	id    string // of the lease, for the service
	lease *input.Lease
	leave chan struct{} // has one when the shard is asked for
	lost  bool          // s.mu

	saving sync.Mutex // one write at a time; covers the fields below
	etag   azcore.ETag
	writes []string // names of the last one that is known to be written, and of those after it that may be
	saved  uint64   // changes of the book that are written
	at     time.Time
	tried  time.Time // the last write, also if it failed
}

var (
	errShardGone = errors.New("its positions are gone: the blob was deleted or emptied")
	errLate      = errors.New("no renewal was answered in time, or this process stood still")
	errLost      = errors.New("the lease is lost")
	errTwice     = fmt.Errorf("%w: another process writes with it, as after a virtual machine was cloned while it ran", errLost)
	errTooMany   = errors.New("there are more unread blobs than a shard has room for")
	errNoETag    = errors.New("the answer has no ETag; something between here and the storage account drops headers: check proxies and gateways")
	errNotOurs   = errors.New("the answer to a renewal does not name the lease; something between here and the storage account answers for it: check proxies and gateways")
)

// claim takes a shard's lease, reads its positions and begins to read its blobs. owner is who had
// it last.
func (sh *sharing) claim(h *shard, exists bool, owner string) (err error) {
	s := sh.s
	ctx, cancel := sh.within(sh.lasts / 2)
	defer cancel()
	name := shardName(h.n)
	blob := sh.client(h.n)
	if !exists {
		star := azcore.ETagAny
		_, err := blob.Upload(ctx, body(nil), &azblock.UploadOptions{AccessConditions: conditions("", nil, &star)})
		if err != nil && !isThere(err) {
			return err
		}
	}
	lease, err := azlease.NewBlobClient(blob, nil)
	if err != nil {
		return err
	}
	from := input.Now()
	c := &claim{h: h, id: *lease.LeaseID(), lease: input.NewLease(from, sh.lasts-sh.margin()), leave: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			sh.release(c) // also when only the answer was lost: nobody else can end that lease
		}
	}()
	if _, err := lease.AcquireLease(ctx, sh.seconds(), nil); err != nil {
		if bloberror.HasCode(err, bloberror.LeaseAlreadyPresent, bloberror.LeaseIsBreakingAndCannotBeAcquired) {
			return nil // another was faster
		}
		return err
	}
	stored, etag, err := sh.account.whole(ctx, sh.container, name)
	long := new(web.LengthError)
	if err != nil && !errors.As(err, &long) {
		return err
	}
	c.book, c.etag = &book{packed: true, changes: 1}, etag // the owner is a change
	fresh := make(map[string]bool)
	if err == nil {
		c.book.mem, err = unpackAll(stored)
	}
	switch {
	case err != nil:
		c.book.mem = sh.rescue(h.n, fmt.Errorf("its positions are damaged: %w", err))
	case len(stored) > 0:
	case sh.known[h.n] != "" || sh.had(h.n) != nil || !sh.isNew():
		c.book.mem = sh.rescue(h.n, errShardGone)
	default:
		// A new shard: what start latest means is stored before anything of it is read.
		now := strconv.FormatInt(s.account.surely().Unix(), 10)
		for _, origin := range s.cfg.Containers {
			c.book.mem["#since/"+origin], fresh[origin] = now, true
		}
	}
	if err := sh.save(ctx, c); err != nil {
		return err
	}
	s.mu.Lock()
	h.book, h.claim, h.lease, h.term, h.reading, h.fresh = c.book, c, c.lease, input.NewTerm(), true, fresh
	h.gave, sh.books[h.n] = time.Time{}, c.book
	sh.counts.claimed++
	sh.counts.newly++
	if owner != "" && owner != sh.worker {
		sh.counts.takeovers++
		sh.counts.from[owner] = true
	}
	s.mu.Unlock()
	s.start(func() { sh.keep(c) })
	return nil
}

// rescue returns the positions of a shard whose blob holds none: those that this worker had. If it
// had none, all of the look-back window is read again. Where the start is latest, older blobs count
// as read, and those from before the first worker began.
func (sh *sharing) rescue(n int, why error) map[string]string {
	s := sh.s
	values := make(map[string]string)
	if had := sh.had(n); had != nil {
		had.mu.Lock()
		for key, value := range had.mem {
			values[key] = value
		}
		had.mu.Unlock()
	} else {
		since := strconv.FormatInt(max(s.account.now().Add(-s.cfg.Lookback).Unix(), sh.begun.Load()), 10)
		for _, origin := range s.cfg.Containers {
			values["#since/"+origin] = since
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh.counts.rescued++; sh.counts.rescuedWhy == nil {
		sh.counts.rescuedWhy = fmt.Errorf("%s: %w", shardName(n), why)
	}
	return values
}

// had is the book of a shard that this worker has read before, or nil.
func (sh *sharing) had(n int) *book {
	sh.s.mu.Lock()
	defer sh.s.mu.Unlock()
	return sh.books[n]
}

// seconds is for how long a lease is asked for: as long as it lasts, and 15 s at least.
func (sh *sharing) seconds() int32 { return int32(max(sh.lasts, 15*time.Second) / time.Second) }

// keep renews a claim until it is lost, or given back, or the source closes.
func (sh *sharing) keep(c *claim) {
	s := sh.s
	tick := time.NewTicker(max(sh.lasts/120, 10*time.Millisecond))
	defer tick.Stop()
	// Not all at the same moment.
	renew := time.Now().Add(sh.lasts/4 - time.Duration(mathrand.Int64N(int64(sh.lasts/12)+1)))
	late := errLate
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-c.leave:
			sh.stopReading(c)
		case <-tick.C:
		}
		if !c.lease.Held() {
			sh.lose(c, late)
			return
		}
		s.mu.Lock()
		leaving, drained := !c.h.reading, c.h.tails == 0
		s.mu.Unlock()
		var err error
		switch {
		case leaving && drained && c.rested(sh.lasts/60):
			if err = sh.saveWithin(c); err == nil {
				sh.giveBack(c)
				return
			}
		case !leaving && !time.Now().Before(renew):
			err = sh.renew(c)
			if late = cmp.Or(err, errLate); err == nil {
				renew = time.Now().Add(sh.lasts / 4)
			} else {
				renew = time.Now().Add(sh.lasts / 60) // soon again
			}
		case c.due(sh.lasts / 12):
			err = sh.saveWithin(c)
		}
		switch {
		case err == nil || s.ctx.Err() != nil:
		case bloberror.HasCode(err, bloberror.LeaseIsBrokenAndCannotBeRenewed) && sh.breaking(c):
			sh.stopReading(c) // events on their way may be written as long as the lease lasts
		case isLost(err):
			sh.lose(c, err)
			return
		default:
			s.troubles.Count(string(kindOf(err)))
		}
	}
}

// breaking tells whether another worker has asked for a shard: its lease still lasts. One that was
// ended at once may be another's already.
func (sh *sharing) breaking(c *claim) bool {
	ctx, cancel := sh.within(sh.lasts / 6)
	defer cancel()
	r, err := sh.client(c.h.n).GetProperties(ctx, nil)
	return err == nil && r.LeaseState != nil && *r.LeaseState == azlease.StateTypeBreaking
}

// isLost tells whether an answer means that the lease is not ours.
func isLost(err error) bool {
	if errors.Is(err, errLost) {
		return true
	}
	var answer *azcore.ResponseError
	return errors.As(err, &answer) && (answer.StatusCode == 404 || answer.StatusCode == 409 || answer.StatusCode == 412)
}

func (sh *sharing) renew(c *claim) error {
	ctx, cancel := sh.within(sh.lasts / 6)
	defer cancel()
	lease, err := azlease.NewBlobClient(sh.client(c.h.n), &azlease.BlobClientOptions{LeaseID: &c.id})
	if err != nil {
		return err
	}
	from := input.Now()
	r, err := lease.RenewLease(ctx, nil)
	switch {
	case err != nil:
		return err
	case r.LeaseID == nil || !strings.EqualFold(*r.LeaseID, c.id):
		return errNotOurs
	}
	if !c.lease.Extend(from, sh.lasts-sh.margin()) {
		return errLost
	}
	return nil
}

// due tells whether something has moved that was not written for so long.
func (c *claim) due(every time.Duration) bool {
	c.saving.Lock()
	defer c.saving.Unlock()
	return c.book.changed() != c.saved && time.Since(c.at) >= every && time.Since(c.tried) >= every
}

// rested tells whether the last write that failed is so long ago.
func (c *claim) rested(d time.Duration) bool {
	c.saving.Lock()
	defer c.saving.Unlock()
	return !c.tried.After(c.at) || time.Since(c.tried) >= d
}

func (sh *sharing) saveWithin(c *claim) error {
	ctx, cancel := sh.within(sh.lasts / 6)
	defer cancel()
	return sh.save(ctx, c)
}

// save writes a shard's positions, unless nothing has moved. Only the holder of the lease can, and
// only over what this worker wrote last.
func (sh *sharing) save(ctx context.Context, c *claim) error {
	c.saving.Lock()
	defer c.saving.Unlock()
	if c.book.changed() == c.saved {
		return nil
	}
	if !c.lease.Held() {
		return errLost
	}
	c.tried = time.Now()
	packed, left, changes := c.book.pack(int(sh.most.Load()))
	sh.leftOut(c, left)
	if packed == nil {
		return errTooMany
	}
	mark, write := c.id[:8], rand.Text()
	about := sh.about()
	about["claim"], about["write"] = &mark, &write
	c.writes = append(c.writes, write)
	if len(c.writes) > maxWrites {
		c.writes = c.writes[1:]
	}
	blob := sh.client(c.h.n)
	for again := 2; ; again-- {
		r, err := blob.Upload(ctx, body(packed), &azblock.UploadOptions{
			Metadata:         about,
			AccessConditions: conditions(c.id, &c.etag, nil),
		})
		etag := r.ETag
		if again > 0 && bloberror.HasCode(err, bloberror.ConditionNotMet) {
			// Perhaps a write of ours, whose answer was lost: this one, if somebody between sent it
			// twice, or one before.
			now, e := blob.GetProperties(ctx, nil)
			switch {
			case e != nil:
				return e
			case metadata(now.Metadata, "claim") != mark:
				return errLost
			case now.ETag == nil:
				return errNoETag
			case !slices.Contains(c.writes, metadata(now.Metadata, "write")):
				return errTwice
			case metadata(now.Metadata, "write") != write:
				c.etag = *now.ETag
				continue
			}
			etag, err = now.ETag, nil
		}
		switch {
		case err != nil:
			return err
		case etag == nil:
			return errNoETag
		}
		c.etag, c.saved, c.at = *etag, changes, time.Now()
		c.writes = append(c.writes[:0], write)
		return nil
	}
}

// maxWrites is how many writes of a claim are remembered whose answers are not known.
const maxWrites = 64

const notAll = "write all positions of a shard"

// leftOut logs once that not all positions of a shard are written.
func (sh *sharing) leftOut(c *claim, left int) {
	if left == 0 {
		sh.s.troubles.End(notAll, shardName(c.h.n))
		return
	}
	sh.s.troubles.Begin(notAll, shardName(c.h.n), "too_many", slog.LevelError,
		"blob.shared: too many positions: those of the blobs that changed longest ago are not written, and the next owner of the shard reads these blobs again; delete old blobs, or read fewer with blob.prefix",
		"shard", shardName(c.h.n), "left_out", left)
}

// metadata is a value of a blob, with its name in any case.
func metadata(all map[string]*string, name string) string {
	for key, value := range all {
		if strings.EqualFold(key, name) && value != nil {
			return *value
		}
	}
	return ""
}

func conditions(leaseID string, match, none *azcore.ETag) *azblob.AccessConditions {
	c := &azblob.AccessConditions{ModifiedAccessConditions: &azblob.ModifiedAccessConditions{IfMatch: match, IfNoneMatch: none}}
	if leaseID != "" {
		c.LeaseAccessConditions = &azblob.LeaseAccessConditions{LeaseID: &leaseID}
	}
	return c
}

func body(b []byte) io.ReadSeekCloser {
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(b), io.NopCloser(nil)}
}

// commit writes the positions of shards, several at a time. failed has those that could not be.
func (sh *sharing) commit(ctx context.Context, moved map[*shard]bool) (failed map[*shard]error) {
	failed = make(map[*shard]error)
	var mu sync.Mutex
	var running sync.WaitGroup
	places := make(chan struct{}, sharedMost)
	for h := range moved {
		sh.s.mu.Lock()
		c := h.claim
		sh.s.mu.Unlock()
		places <- struct{}{}
		running.Go(func() {
			err := errLost
			defer func() {
				if err != nil {
					mu.Lock()
					failed[h] = err
					mu.Unlock()
				}
				<-places
			}()
			defer input.Catch("write positions of a shard", &err)
			if c != nil {
				err = sh.save(ctx, c)
			}
		})
	}
	running.Wait()
	return failed
}

// stopReading ends reading of a shard's blobs. Events on their way are waited for.
func (sh *sharing) stopReading(c *claim) {
	s := sh.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.h.claim != c {
		return // it is over, and the shard may have another
	}
	c.h.reading = false
	s.troubles.Forget(notAll, shardName(c.h.n))
	for _, container := range s.containers {
		for _, b := range container.blobs {
			if b.shard == c.h {
				s.settle(b)
			}
		}
	}
}

// lose ends a claim whose lease is lost, once. Marks that come are dropped from now on.
func (sh *sharing) lose(c *claim, why error) {
	c.lease.Lose()
	s := sh.s
	s.mu.Lock()
	again := c.lost
	if !again {
		c.lost = true
		sh.counts.lost++
		sh.counts.justLost++
		sh.counts.why = why
	}
	s.mu.Unlock()
	if !again {
		sh.stopReading(c)
	}
}

// giveBack ends a claim without events on their way. The claim ends before its lease does: a look
// would else take it for one that was lost, and have events set back.
func (sh *sharing) giveBack(c *claim) {
	s := sh.s
	s.mu.Lock()
	c.lease.Lose()
	c.h.claim, c.h.gave = nil, time.Now()
	sh.counts.gaveBack++
	s.mu.Unlock()
	sh.release(c)
}

// release gives a lease back, so that another worker need not wait for its end.
func (sh *sharing) release(c *claim) {
	wait := closeWait
	if sh.s.ctx.Err() != nil {
		wait = silentWait // close comes after it
	}
	sh.releaseWithin(c, wait)
}

func (sh *sharing) releaseWithin(c *claim, wait time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(sh.s.ctx), wait)
	defer cancel()
	lease, err := azlease.NewBlobClient(sh.client(c.h.n), &azlease.BlobClientOptions{LeaseID: &c.id})
	if err == nil {
		_, err = lease.ReleaseLease(ctx, nil)
	}
	if err != nil {
		sh.s.log.Debug("release a lease: it runs out by itself", "shard", shardName(c.h.n), "error", sh.account.explainShared(err, sh.container))
	}
}

// closeWait is how long the end waits until positions are written, and again until leases are given
// back. For an account that did not answer the first, silentWait is enough.
const (
	closeWait  = 3 * time.Second
	silentWait = time.Second
)

// close gives all shards back. Nothing else of the source runs any more.
func (sh *sharing) close() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(sh.s.ctx), closeWait)
	defer cancel()
	var running sync.WaitGroup
	for _, h := range sh.s.shards {
		if c := h.claim; c != nil && c.lease.Held() {
			running.Go(func() {
				defer input.CatchAndLog(sh.s.log, "give a shard back")
				wait := closeWait
				if err := sh.save(ctx, c); err != nil && ctx.Err() != nil {
					wait = silentWait
				}
				c.lease.Lose()
				sh.releaseWithin(c, wait)
			})
		}
	}
	running.Wait()
	if sh.account != sh.s.account {
		sh.account.close()
	}
}

// isThere tells whether a blob that was to be made is there. If somebody has its lease, the service
// only asks for that.
func isThere(err error) bool {
	return bloberror.HasCode(err, bloberror.BlobAlreadyExists, bloberror.LeaseIDMissing)
}
