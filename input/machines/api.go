package machines

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/web"
)

const (
	pageSize      = 10_000 // the most that $top may be
	lookupTimeout = 10 * time.Second
	pageTimeout   = 2 * time.Minute
	lookupLimit   = 1 << 20   // bytes; a machine is about 1.5 kB
	pageLimit     = 128 << 20 // bytes; 10,000 machines are about 15 MB
)

// api makes calls, one at a time or several at once.
type api struct {
	base    *url.URL
	scope   string
	http    *http.Client
	limiter limiter

	// Rows wait for look-ups, so one that takes longer than patience is noticed.
	patience time.Duration // 0 for any time
	tooSlow  func()        // called at that moment; recovers
	inTime   func()        // it has answered before

	newCredential func() (azcore.TokenCredential, error)
	credMu        sync.Mutex
	cred          azcore.TokenCredential

	codesMu sync.Mutex
	codes   map[int]uint64
}

// statusError is an answer with the status of an error.
type statusError struct {
	code    int
	message string
}

func (e *statusError) Error() string {
	text := "the answer is " + strconv.Itoa(e.code) + " " + http.StatusText(e.code)
	switch {
	case e.code == http.StatusUnauthorized:
		text += ", with a fresh token too; check device_info.api.cloud and azure.tenant_id"
	case e.code == http.StatusForbidden:
		text += "; grant the application the permission Machine.Read.All of WindowsDefenderATP, with admin consent"
	case e.code == http.StatusTooManyRequests:
		text += " again and again; check whether something else calls the API with this application"
	}
	if e.message != "" {
		text += fmt.Sprintf(" (%q)", e.message)
	}
	return text
}

func isNotFound(err error) bool {
	var s *statusError
	return errors.As(err, &s) && s.code == http.StatusNotFound
}

// get calls u, as soon as q allows, and has read read the body of a 200. An answer of 401 is tried
// again with a fresh token, and 429 when its Retry-After is over. u must be on the API's host.
func (a *api) get(ctx context.Context, u *url.URL, q quota, timeout time.Duration, limit int64, read func(*bounded) error) error {
	refreshed := false
	for attempt := 1; ; attempt++ {
		if err := a.limiter.wait(ctx, q); err != nil {
			return err
		}
		err := a.call(ctx, u, q, timeout, limit, read)
		var status *statusError
		switch {
		case !errors.As(err, &status):
			return err
		case status.code == http.StatusUnauthorized && !refreshed:
			refreshed = true
		case status.code == http.StatusTooManyRequests && attempt < 4:
		default:
			return err
		}
	}
}

func (a *api) call(ctx context.Context, u *url.URL, q quota, timeout time.Duration, limit int64, read func(*bounded) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cred, token, err := a.token(ctx)
	if err != nil {
		return fmt.Errorf("get a token: %w", signin.Explain(err))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	if q == forLookup && a.patience > 0 {
		timer := time.AfterFunc(a.patience, a.tooSlow)
		defer func() {
			if timer.Stop() && ctx.Err() == nil {
				a.inTime()
			}
		}()
	}
	resp, err := a.http.Do(req)
	if err != nil {
		a.count(0)
		if ctx.Err() == context.DeadlineExceeded {
			return fmt.Errorf("no answer within %v", timeout)
		}
		var where *url.Error // names the whole address
		if errors.As(err, &where) {
			err = where.Err
		}
		var redirect *web.RedirectError
		if errors.As(err, &redirect) {
			return fmt.Errorf("%w; check device_info.api.url", err)
		}
		return err
	}
	defer resp.Body.Close()
	a.count(resp.StatusCode)
	body := &bounded{r: resp.Body, limit: limit}
	if resp.StatusCode == http.StatusOK {
		err := read(body)
		if err != nil && ctx.Err() == context.DeadlineExceeded {
			return fmt.Errorf("the answer did not end within %v", timeout)
		}
		return err
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		a.forget(cred)
	case http.StatusTooManyRequests:
		a.limiter.hold(retryAfter(resp.Header.Get("Retry-After"), time.Now()))
	}
	head, _ := io.ReadAll(io.LimitReader(body, 4<<10))
	return &statusError{code: resp.StatusCode, message: errorMessage(head)}
}

// retryAfter is the wait that a Retry-After asks for, in seconds or as a date. Without one it is a
// minute. It is at most the hour of the longest quota.
func retryAfter(v string, now time.Time) time.Duration {
	d := time.Minute
	if s, err := strconv.Atoi(strings.TrimSpace(v)); err == nil {
		d = time.Duration(min(s, 3600)) * time.Second
	} else if at, err := http.ParseTime(v); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, time.Second), time.Hour)
}

// errorMessage is the message of {"error":{"message":"..."}}, or nothing.
func errorMessage(body []byte) string {
	var e struct {
		Error struct{ Message string }
	}
	_ = json.Unmarshal(body, &e)
	if len(e.Error.Message) > 200 {
		return strings.ToValidUTF8(e.Error.Message[:200], "") + "..."
	}
	return e.Error.Message
}

func (a *api) token(ctx context.Context) (azcore.TokenCredential, string, error) {
	a.credMu.Lock()
	cred := a.cred
	if cred == nil {
		var err error
		if cred, err = a.newCredential(); err != nil {
			a.credMu.Unlock()
			return nil, "", err
		}
		a.cred = cred
	}
	a.credMu.Unlock()
	// A credential keeps its token until shortly before it expires.
	t, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{a.scope}})
	return cred, t.Token, err
}

// forget drops a credential with the token that it keeps, unless somebody else already has.
func (a *api) forget(cred azcore.TokenCredential) {
	a.credMu.Lock()
	defer a.credMu.Unlock()
	if a.cred == cred {
		a.cred = nil
	}
}

func (a *api) count(code int) {
	a.codesMu.Lock()
	defer a.codesMu.Unlock()
	a.codes[code]++
}

// machine asks for one device and calls found with it.
func (a *api) machine(ctx context.Context, id string, found func(machine)) error {
	u := a.base.JoinPath("api", "machines", id)
	return a.get(ctx, u, forLookup, lookupTimeout, lookupLimit, func(body *bounded) error {
		m, err := newReader(body).one()
		if err != nil {
			return err
		}
		if !strings.EqualFold(m.id, id) {
			return errors.New("read the answer: it is about another device")
		}
		found(m)
		return nil
	})
}

// cursor: a position in the list of all devices. The zero value is its beginning.
type cursor struct {
	next  *url.URL // the last page's link to the next, or nil
	skip  int      // devices before the last $top
	since int      // devices since then
	first string   // the first device of the last page
	pages int
	links map[[sha256.Size]byte]bool // to the pages so far; nil before the first
}

// maxPages ends a list that has no end: 10 million devices in pages of 10,000.
const maxPages = 1000

// page fetches the page at c, calls each for every device, moves c on, and tells whether it was the
// last page. After an error c is where it was.
func (a *api) page(ctx context.Context, c *cursor, each func(machine)) (last bool, err error) {
	u := c.next
	if u == nil {
		u = a.base.JoinPath("api", "machines")
		u.RawQuery = "$top=" + strconv.Itoa(pageSize)
		if c.skip > 0 {
			u.RawQuery += "&$skip=" + strconv.Itoa(c.skip)
		}
	}
	var n int
	var next, first string
	err = a.get(ctx, u, forPage, pageTimeout, pageLimit, func(body *bounded) (err error) {
		n, next, err = newReader(body).page(func(m machine) {
			if first == "" {
				first = m.id
			}
			each(m)
		})
		return err
	})
	if isNotFound(err) {
		return true, nil // the service's answer for a tenant without devices
	}
	if err != nil {
		return false, err
	}
	if n > 0 && first == c.first {
		return false, errors.New("the same page comes again and again")
	}
	to := cursor{first: first, pages: c.pages + 1, skip: c.skip, since: c.since + n, links: c.links}
	switch {
	case to.pages >= maxPages:
		return false, fmt.Errorf("the list has no end after %d pages", maxPages)
	case next != "":
		if to.next, err = a.follow(next); err != nil {
			return false, err
		}
		link := sha256.Sum256([]byte(next))
		if to.links[link] {
			return false, errors.New("the link to the next page is one that was followed before")
		}
		if to.links == nil {
			to.links = make(map[[sha256.Size]byte]bool)
		}
		to.links[link] = true
	case n > 0 && to.since >= pageSize: // as many as were asked for: there may be more
		to.skip, to.since = to.skip+to.since, 0
	default:
		last = true
	}
	*c = to
	return last, nil
}

// follow reads a link of an answer. It must stay on the API's host, because the token goes with it.
func (a *api) follow(link string) (*url.URL, error) {
	u, err := a.base.Parse(link)
	if err != nil {
		return nil, errors.New("the link to the next page is not an address")
	}
	if u.Scheme != a.base.Scheme || !strings.EqualFold(u.Host, a.base.Host) || u.User != nil {
		return nil, fmt.Errorf("the link to the next page leads to another host, %q, and is not followed", u.Host)
	}
	return u, nil
}
