package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/web"
)

const (
	// listMost is how many bytes a page of a listing may have. A page of 5,000 names of Defender
	// has 5 MB. A page that is larger is asked for again with fewer names.
	listMost = 8 << 20

	// wholeMost is how many bytes the blob of a shard may have: 2 million positions.
	wholeMost = 64 << 20

	// errorMost is how many bytes of an error's text are read. The SDK looks for a code there.
	errorMost = 64 << 10

	// headerMost is how many bytes the headers of an answer may have.
	headerMost = 64 << 10
)

var errNotRange = errors.New("the answer is not the range that was asked for; something between here and the storage account ignores x-ms-range: check proxies and gateways")

// guard is the HTTP client of an account. Beyond [web.Guard] it refuses an answer to a ranged read
// that is not that range. It reads only the beginning of an error.
type guard struct{ client *http.Client }

func newGuard(transport *http.Transport) *guard {
	transport.MaxResponseHeaderBytes = headerMost
	return &guard{client: web.Guard(&http.Client{Transport: transport}, func(resp *http.Response) int64 {
		switch {
		case failed(resp) || rangeOf(resp.Request) != "":
			return 0 // an error is cut below, and a range has the length that was asked for
		case resp.Request.Context().Value(wholeKey{}) != nil:
			return wholeMost
		}
		return listMost
	})}
}

// Do sends req, as azcore's policy.Transporter.
func (g *guard) Do(req *http.Request) (*http.Response, error) {
	resp, err := g.client.Do(req)
	if err != nil {
		return nil, err
	}
	switch asked := rangeOf(req); {
	case failed(resp):
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, errorMost), resp.Body}
	case asked == "":
	case resp.StatusCode != http.StatusPartialContent || !answers(resp.Header.Get("Content-Range"), asked):
		_ = resp.Body.Close()
		return nil, errNotRange
	}
	return resp, nil
}

// wholeKey is in the context of a request for the blob of a shard.
type wholeKey struct{}

func failed(resp *http.Response) bool { return resp.StatusCode < 200 || resp.StatusCode > 299 }

// rangeOf is the range that req asks for, such as "bytes=5-100", or "".
func rangeOf(req *http.Request) string {
	//lint:ignore SA1008 the SDK sets it in lower case, which Get does not find
	if v := req.Header["x-ms-range"]; len(v) > 0 {
		return v[0]
	}
	return req.Header.Get("x-ms-range")
}

// answers tells whether "bytes 5-9/10" answers "bytes=5-100": it begins where it should, and ends
// there or at the blob's end.
func answers(contentRange, asked string) bool {
	first, last, ok := cutRange(strings.TrimPrefix(asked, "bytes="))
	got, total, whole := strings.Cut(strings.TrimPrefix(contentRange, "bytes "), "/")
	gotFirst, gotLast, ok2 := cutRange(got)
	size, err := strconv.ParseInt(total, 10, 64)
	return ok && ok2 && whole && err == nil && gotFirst == first && gotLast == min(last, size-1)
}

func cutRange(text string) (first, last int64, ok bool) {
	a, b, _ := strings.Cut(text, "-")
	first, err := strconv.ParseInt(a, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	last, err = strconv.ParseInt(b, 10, 64)
	return first, last, err == nil && first >= 0 && last >= first
}

// markers finds out whether a listing's markers come again: then it has no end. It keeps one of
// them, and another one after 1, 2, 4, 8... pages, so it finds any circle before it has gone round
// it three times.
type markers struct {
	kept        string
	pages, next int
	empty       int // pages without an item in a row
}

var (
	errCircle    = errors.New("the listing has no end: a marker came twice")
	errManyEmpty = fmt.Errorf("the listing has no end: %d pages in a row were empty", emptyMost)
)

// emptyMost is how many pages of a listing may be empty in a row. The service sends some, where
// much was deleted.
const emptyMost = 100

// take returns an error when the listing does not seem to end. items is how many the page had
// before marker.
func (m *markers) take(marker string, items int) error {
	if marker == "" {
		return nil
	}
	if m.empty++; items > 0 {
		m.empty = 0
	}
	if m.empty >= emptyMost {
		return errManyEmpty
	}
	if marker == m.kept {
		return errCircle
	}
	if m.pages++; m.pages > m.next {
		m.kept, m.pages, m.next = marker, 0, max(2*m.next, 1)
	}
	return nil
}

// pace spaces the list calls of an account after many of them. A server with endless listings must
// not be asked as fast as it answers. Listings of 200 pages a second, of 5,000 names each, are
// faster than the service ever is.
type pace struct {
	mu   sync.Mutex
	next time.Time // when the next call is due
}

const (
	paceGap   = 5 * time.Millisecond
	paceBurst = 2000 // calls that may come at once
)

// wait returns when the next call may be made, or when ctx ends.
func (p *pace) wait(ctx context.Context) error {
	p.mu.Lock()
	now := time.Now()
	if first := now.Add(-paceBurst * paceGap); p.next.Before(first) {
		p.next = first
	}
	p.next = p.next.Add(paceGap)
	d := p.next.Sub(now)
	p.mu.Unlock()
	if d <= 0 {
		return ctx.Err()
	}
	return input.Sleep(ctx, d)
}
