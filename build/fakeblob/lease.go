package fakeblob

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// lease is a blob's, from its first acquire to its release. What each state answers is that of the
// tables in learn.microsoft.com, "Lease Blob": outcomes of lease operations, and of use attempts.
//
//	available --acquire--> leased --time--> expired
//	                         |  \--renew--> leased
//	                       break
//	                         v
//	                      breaking --time--> broken
type lease struct {
	id    string
	lasts time.Duration
	until time.Time // by the machine's own clock: a clock that differs does not shorten a lease
	ended bool      // a break was asked for, and until is when it takes effect
}

const forEver = 1000 * time.Hour

// duration is the entry of a listing that says how long the lease lasts.
func (l *lease) duration(now time.Time) string {
	switch state := l.state(now); {
	case state != "leased" && state != "breaking":
		return ""
	case l.lasts == forEver:
		return "<LeaseDuration>infinite</LeaseDuration>"
	}
	return "<LeaseDuration>fixed</LeaseDuration>"
}

// state is that of a blob's lease, which is nil when there is none.
func (l *lease) state(now time.Time) string {
	switch {
	case l == nil:
		return "available"
	case l.ended && now.Before(l.until):
		return "breaking"
	case l.ended:
		return "broken"
	case now.Before(l.until):
		return "leased"
	}
	return "expired"
}

// SetLeases sets the length of all leases, so that a test need not wait for 15 seconds, the least
// of the service. With 0 a lease has the length that was asked for.
func (s *Server) SetLeases(d time.Duration) { s.mu.Lock(); defer s.mu.Unlock(); s.leases = d }

// BreakLease ends the lease of a blob at once, as an administrator may.
func (s *Server) BreakLease(container, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[container]; c != nil && c.blobs[name] != nil && c.blobs[name].lease != nil {
		l := c.blobs[name].lease
		l.until, l.ended = time.Now(), true
	}
}

// LeaseState is "available", "leased", "expired", "breaking" or "broken", as a listing says.
func (s *Server) LeaseState(container, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[container]; c != nil && c.blobs[name] != nil {
		return c.blobs[name].lease.state(time.Now())
	}
	return ""
}

// blocked answers a write that the blob's lease does not allow, and returns true then. s.mu is
// held.
func (b *blob) blocked(w http.ResponseWriter, r *http.Request) bool {
	id, state := r.Header.Get("x-ms-lease-id"), "available"
	if b != nil {
		state = b.lease.state(time.Now())
	}
	refuse := func(code string) bool {
		fail(w, r, http.StatusPreconditionFailed, code, "the lease of the blob is "+state)
		return true
	}
	switch {
	case state == "leased" || state == "breaking":
		switch id {
		case b.lease.id:
			return false
		case "":
			return refuse("LeaseIdMissing")
		}
		return refuse("LeaseIdMismatchWithBlobOperation")
	case id == "":
		if state == "expired" {
			b.lease = nil // a write ends what was left of it
		}
		return false
	case state == "expired" && id == b.lease.id:
		return refuse("LeaseLost")
	}
	return refuse("LeaseNotPresentWithBlobOperation")
}

// unmet answers a write whose conditions do not hold, and returns true then. s.mu is held.
func (b *blob) unmet(w http.ResponseWriter, r *http.Request) bool {
	match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	switch {
	case none == "*" && b != nil:
		fail(w, r, http.StatusConflict, "BlobAlreadyExists", "The specified blob already exists.")
	case match != "" && (b == nil || match != "*" && match != `"`+b.etag+`"`), none != "" && b != nil && none == `"`+b.etag+`"`:
		fail(w, r, http.StatusPreconditionFailed, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met.")
	default:
		return false
	}
	return true
}

// changeLease answers the operations of a lease. s.mu is held.
func (s *Server) changeLease(w http.ResponseWriter, r *http.Request, b *blob) {
	now := time.Now()
	l, state, id := b.lease, b.lease.state(now), r.Header.Get("x-ms-lease-id")
	refuse := func(code string) {
		fail(w, r, http.StatusConflict, code, "the lease of the blob is "+state)
	}
	answer := func(status int, id string) {
		h := w.Header()
		h.Set("ETag", `"`+b.etag+`"`)
		h.Set("Last-Modified", b.modified.UTC().Format(http.TimeFormat))
		if id != "" {
			h.Set("x-ms-lease-id", id)
		}
		w.WriteHeader(status)
	}
	action := r.Header.Get("x-ms-lease-action")
	switch {
	case action == "acquire":
		proposed := r.Header.Get("x-ms-proposed-lease-id")
		seconds, err := strconv.Atoi(r.Header.Get("x-ms-lease-duration"))
		lasts := time.Duration(seconds) * time.Second
		switch {
		case err != nil || seconds != -1 && (seconds < 15 || seconds > 60):
			fail(w, r, http.StatusBadRequest, "InvalidHeaderValue", "The value for one of the HTTP headers is not in the correct format.")
		case state == "breaking" && proposed == l.id:
			refuse("LeaseIsBreakingAndCannotBeAcquired")
		case state == "breaking", state == "leased" && proposed != l.id:
			refuse("LeaseAlreadyPresent")
		default:
			switch {
			case seconds == -1:
				lasts = forEver
			case s.leases > 0:
				lasts = s.leases
			}
			if proposed == "" {
				s.etag++
				proposed = fmt.Sprintf("00000000-0000-4000-8000-%012x", s.etag)
			}
			b.lease = &lease{id: proposed, lasts: lasts, until: now.Add(lasts)}
			answer(http.StatusCreated, proposed)
		}
	case action == "break":
		switch state {
		case "available":
			refuse("LeaseNotPresentWithLeaseOperation")
			return
		case "leased", "breaking":
			until := l.until
			if seconds, err := strconv.Atoi(r.Header.Get("x-ms-lease-break-period")); err == nil {
				if asked := now.Add(time.Duration(seconds) * time.Second); asked.Before(until) {
					until = asked
				}
			}
			l.until = until
		}
		l.ended = true
		w.Header().Set("x-ms-lease-time", strconv.Itoa(int(max(l.until.Sub(now), 0)/time.Second)))
		answer(http.StatusAccepted, "")
	case action != "renew" && action != "release":
		fail(w, r, http.StatusNotImplemented, "NotImplemented", "this fake does not do that")
	case state == "available" || id != l.id:
		refuse("LeaseIdMismatchWithLeaseOperation")
	case action == "release":
		b.lease = nil
		answer(http.StatusOK, "")
	case l.ended:
		refuse("LeaseIsBrokenAndCannotBeRenewed")
	default:
		l.until = now.Add(l.lasts)
		answer(http.StatusOK, id)
	}
}
