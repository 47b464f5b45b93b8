package fakeblob

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Account is the name of the one account.
const Account = "fakeaccount"

// Op is a kind of request.
type Op string

// The kinds of requests.
const (
	ListContainers Op = "list containers"
	ListBlobs      Op = "list blobs"
	GetBlob        Op = "get blob"
	GetProperties  Op = "get properties"
	Lease          Op = "lease"  // acquire, renew, release or break one
	Change         Op = "change" // anything else that writes
)

// Request has the properties of a request that decide about a fault.
type Request struct {
	Op              Op
	Container, Blob string
	Offset          int64 // first byte asked for, of GetBlob
	Prefix, Marker  string
	Agent           string // what the client calls itself
	HTTP            *http.Request
}

// Fault is the failure of a request.
type Fault struct {
	Status     int // not 0: answered with this status and Code
	Code       string
	RetryAfter string
	CutAfter   int  // > 0: the connection is cut after so many bytes of the body
	EmptyPage  bool // a listing answers with no item and a marker that continues at the same place
}

// Server is one account. Its methods may be called while it serves.
type Server struct {
	http *http.Server
	done chan struct{}
	addr string

	mu         sync.Mutex
	containers map[string]*container
	clock      func() time.Time
	fault      func(Request) *Fault
	late       func(Request)
	answered   func(Request, int)
	pageSize   int
	counts     map[Op]int
	lists      map[string]int // by container
	etag       int64
	leases     time.Duration // that all last, 0 for what is asked for
}

type container struct {
	blobs map[string]*blob
	names []string // sorted; nil when blobs has changed
}

type blob struct {
	data              []byte
	etag              string // without quotes
	created, modified time.Time
	append            bool
	archived          bool
	metadata          map[string]string // as it came, with names in the case of headers
	lease             *lease            // nil for none
}

// Start begins to serve on a free port of loopback.
func Start() (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for blob requests: %w", err)
	}
	s := New()
	s.addr = l.Addr().String()
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		_ = s.http.Serve(l)
	}()
	return s, nil
}

// New returns an account that does not listen yet: it is an http.Handler.
func New() *Server {
	return &Server{
		containers: make(map[string]*container),
		clock:      time.Now,
		pageSize:   5000,
		counts:     make(map[Op]int),
		lists:      make(map[string]int),
	}
}

// Close cuts all connections and waits for the listener.
func (s *Server) Close() {
	if s.http != nil {
		_ = s.http.Close()
		<-s.done
	}
}

// URL is the account's, as for blob.account_url.
func (s *Server) URL() string { return "http://" + s.addr + "/" + Account }

// ConnectionString is the account's, as for blob.connection_string.
func (s *Server) ConnectionString() string {
	return "DefaultEndpointsProtocol=http;AccountName=" + Account + ";AccountKey=" +
		base64.StdEncoding.EncodeToString([]byte("not checked")) + ";BlobEndpoint=" + s.URL() + ";"
}

// SetClock makes the account live by another clock.
func (s *Server) SetClock(now func() time.Time) { s.mu.Lock(); defer s.mu.Unlock(); s.clock = now }

// SetFault has f asked before each request is answered; nil for no faults. f may be called by
// several requests at a time, and may change blobs.
func (s *Server) SetFault(f func(Request) *Fault) { s.mu.Lock(); defer s.mu.Unlock(); s.fault = f }

// SetLate has f called when the answer to a listing is ready and not yet sent. While f holds it
// back, the account continues.
func (s *Server) SetLate(f func(Request)) { s.mu.Lock(); defer s.mu.Unlock(); s.late = f }

// SetAnswered has f called with the status of each answer, before it is sent. f may be called by
// several requests at a time.
func (s *Server) SetAnswered(f func(r Request, status int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered = f
}

// SetPageSize limits how many items a page of a listing has, below the 5,000 of the service.
func (s *Server) SetPageSize(n int) { s.mu.Lock(); defer s.mu.Unlock(); s.pageSize = n }

// Count returns how many requests of a kind there were.
func (s *Server) Count(op Op) int { s.mu.Lock(); defer s.mu.Unlock(); return s.counts[op] }

// Lists returns how many pages of a container were listed.
func (s *Server) Lists(container string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lists[container]
}

// CreateContainer makes a container if it does not exist.
func (s *Server) CreateContainer(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.create(name)
}

func (s *Server) create(name string) *container {
	c := s.containers[name]
	if c == nil {
		c = &container{blobs: make(map[string]*blob)}
		s.containers[name] = c
	}
	return c
}

// DeleteContainer removes a container and its blobs.
func (s *Server) DeleteContainer(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.containers, name)
}

// Append adds data to an append blob, which is made, in its container, when missing.
func (s *Server) Append(container, name string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.create(container).blobs[name]
	if b == nil {
		b = s.put(container, name, nil, true)
	}
	// A reader that is under way holds the old slice; what is appended lies behind its end.
	b.data = append(b.data, data...)
	b.etag, b.modified = s.nextETag(), s.now()
}

// Put makes a block blob of data, which stays the caller's and must not change. One that was there
// is overwritten.
func (s *Server) Put(container, name string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(container, name, data, false)
}

// Age sets when a blob was made and last changed.
func (s *Server) Age(container, name string, created, modified time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.containers[container].blobs[name]
	b.created, b.modified = created, modified
}

// Delete removes a blob.
func (s *Server) Delete(container, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[container]; c != nil {
		delete(c.blobs, name)
		c.names = nil
	}
}

func (s *Server) put(container, name string, data []byte, isAppend bool) *blob {
	c := s.create(container)
	if c.blobs[name] == nil {
		c.names = nil
	}
	b := &blob{data: data, etag: s.nextETag(), created: s.now(), modified: s.now(), append: isAppend}
	c.blobs[name] = b
	return b
}

func (s *Server) now() time.Time { return s.clock().UTC().Truncate(time.Second) }

func (s *Server) nextETag() string {
	s.etag++
	return fmt.Sprintf("0x8DD%013X", s.etag)
}

// ServeHTTP answers one request of the protocol.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	path := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/"+Account), "/")
	containerName, blobName, _ := strings.Cut(path, "/")
	req := Request{Container: containerName, Blob: blobName, Prefix: q.Get("prefix"), Marker: q.Get("marker"), Agent: r.UserAgent(), HTTP: r}
	switch {
	case r.Method == http.MethodGet && q.Get("comp") == "list" && containerName == "":
		req.Op = ListContainers
	case r.Method == http.MethodGet && q.Get("comp") == "list":
		req.Op = ListBlobs
	case r.Method == http.MethodGet && blobName != "":
		req.Op = GetBlob
		req.Offset, _, _ = parseRange(r)
	case r.Method == http.MethodHead && blobName != "":
		req.Op = GetProperties
	case r.Method == http.MethodPut && q.Get("comp") == "lease" && blobName != "":
		req.Op = Lease
	default:
		req.Op = Change
	}

	s.mu.Lock()
	s.counts[req.Op]++
	if req.Op == ListBlobs {
		s.lists[containerName]++
	}
	now := s.clock().UTC()
	ask := s.fault
	if s.answered != nil {
		w = &answer{ResponseWriter: w, req: req, tell: s.answered}
	}
	s.mu.Unlock()
	var fault *Fault
	if ask != nil {
		fault = ask(req)
	}

	h := w.Header()
	h.Set("Date", now.Format(http.TimeFormat))
	h.Set("x-ms-version", r.Header.Get("x-ms-version"))
	h.Set("x-ms-request-id", "00000000-0000-0000-0000-000000000000")
	if status, code, message := authenticate(r, q, now); status != 0 {
		fail(w, r, status, code, message)
		return
	}
	if fault == nil {
		fault = &Fault{}
	}
	if fault.Status != 0 {
		if fault.RetryAfter != "" {
			h.Set("Retry-After", fault.RetryAfter)
		}
		fail(w, r, fault.Status, fault.Code, "a fault that the test asked for")
		return
	}
	switch req.Op {
	case ListContainers:
		s.listContainers(w, q)
	case ListBlobs:
		s.listBlobs(w, r, req, q, fault)
	case GetBlob, GetProperties:
		s.read(w, r, req, fault)
	default:
		s.change(w, r, req, q)
	}
}

// answer tells somebody the status of an answer.
type answer struct {
	http.ResponseWriter
	req  Request
	tell func(Request, int)
	told bool
}

func (a *answer) WriteHeader(status int) {
	a.told = true
	a.tell(a.req, status)
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if !a.told {
		a.WriteHeader(http.StatusOK)
	}
	return a.ResponseWriter.Write(p)
}

// Unwrap lets http.NewResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// authenticate asks for a signature of some kind, and for the dates that the service looks at.
func authenticate(r *http.Request, q url.Values, now time.Time) (status int, code, message string) {
	if q.Get("sig") != "" {
		if end, err := time.Parse(time.RFC3339, q.Get("se")); err != nil || now.After(end) {
			return http.StatusForbidden, "AuthenticationFailed",
				"Server failed to authenticate the request. Signature not valid in the specified time frame"
		}
		return 0, "", ""
	}
	switch scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " "); scheme {
	case "SharedKey":
		at, err := http.ParseTime(r.Header.Get("x-ms-date"))
		if err != nil || now.Sub(at).Abs() > 15*time.Minute {
			return http.StatusForbidden, "AuthenticationFailed", "Server failed to authenticate the request. Request date header too old"
		}
		return 0, "", ""
	case "Bearer":
		return 0, "", ""
	}
	return http.StatusUnauthorized, "NoAuthenticationInformation", "Server failed to authenticate the request"
}

func fail(w http.ResponseWriter, r *http.Request, status int, code, message string) {
	w.Header().Set("x-ms-error-code", code)
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		fmt.Fprintf(w, `<?xml version="1.0" encoding="utf-8"?><Error><Code>%s</Code><Message>%s</Message></Error>`, code, message)
	}
}

func (s *Server) listContainers(w http.ResponseWriter, q url.Values) {
	s.mu.Lock()
	var names []string
	for name := range s.containers {
		if strings.HasPrefix(name, q.Get("prefix")) {
			names = append(names, name)
		}
	}
	s.mu.Unlock()
	sort.Strings(names)
	w.Header().Set("Content-Type", "application/xml")
	fmt.Fprint(w, `<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Containers>`)
	for _, name := range names {
		fmt.Fprintf(w, `<Container><Name>%s</Name><Properties></Properties></Container>`, name)
	}
	fmt.Fprint(w, `</Containers><NextMarker/></EnumerationResults>`)
}

// emptyMarker begins the marker of an empty page; what follows is the marker of the page that was
// left out.
const emptyMarker = "empty!"

func (s *Server) listBlobs(w http.ResponseWriter, r *http.Request, req Request, q url.Values, fault *Fault) {
	s.mu.Lock()
	c := s.containers[req.Container]
	if c == nil {
		s.mu.Unlock()
		fail(w, r, http.StatusNotFound, "ContainerNotFound", "The specified container does not exist.")
		return
	}
	if c.names == nil {
		for name := range c.blobs {
			c.names = append(c.names, name)
		}
		sort.Strings(c.names)
	}
	limit, err := strconv.Atoi(q.Get("maxresults"))
	if err != nil || limit > s.pageSize {
		limit = s.pageSize
	}
	from, wasEmpty := strings.CutPrefix(req.Marker, emptyMarker)
	next := ""
	var items strings.Builder
	if fault.EmptyPage && !wasEmpty {
		next = emptyMarker + req.Marker
	} else {
		next = c.page(&items, req.Prefix, q.Get("delimiter"), from, limit, strings.Contains(q.Get("include"), "metadata"))
	}
	late := s.late
	s.mu.Unlock()
	if late != nil {
		late(req)
	}
	w.Header().Set("Content-Type", "application/xml")
	fmt.Fprintf(w, `<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="%s"><Prefix>%s</Prefix><Blobs>%s</Blobs><NextMarker>%s</NextMarker></EnumerationResults>`,
		req.Container, escape(req.Prefix), items.String(), next)
}

// page writes the items from marker on, and returns the marker of the next page, or "". Markers are
// opaque to clients.
func (c *container) page(w *strings.Builder, prefix, delimiter, marker string, limit int, metadata bool) (next string) {
	begin := prefix
	if b, err := base64.URLEncoding.DecodeString(marker); err == nil && marker != "" {
		begin = string(b)
	}
	for i, n := sort.SearchStrings(c.names, begin), 0; i < len(c.names) && strings.HasPrefix(c.names[i], prefix); n++ {
		name := c.names[i]
		if n == limit {
			return base64.URLEncoding.EncodeToString([]byte(name))
		}
		if delimiter != "" {
			if j := strings.Index(name[len(prefix):], delimiter); j >= 0 {
				folder := name[:len(prefix)+j+len(delimiter)]
				fmt.Fprintf(w, `<BlobPrefix><Name>%s</Name></BlobPrefix>`, escape(folder))
				i = sort.SearchStrings(c.names, folder+"\U0010FFFF")
				continue
			}
		}
		b := c.blobs[name]
		fmt.Fprintf(w, `<Blob><Name>%s</Name><Properties><Creation-Time>%s</Creation-Time><Last-Modified>%s</Last-Modified><Etag>%s</Etag><Content-Length>%d</Content-Length><Content-Type>application/octet-stream</Content-Type><BlobType>%s</BlobType><AccessTier>%s</AccessTier><LeaseStatus>%s</LeaseStatus><LeaseState>%s</LeaseState>%s<ServerEncrypted>true</ServerEncrypted></Properties>`,
			escape(name), b.created.UTC().Format(http.TimeFormat), b.modified.UTC().Format(http.TimeFormat), b.etag, len(b.data), b.kind(), b.tier(), b.locked(), b.lease.state(time.Now()), b.lease.duration(time.Now()))
		if metadata {
			w.WriteString("<Metadata>")
			for key, value := range b.metadata {
				fmt.Fprintf(w, "<%s>%s</%s>", key, escape(value), key)
			}
			w.WriteString("</Metadata>")
		}
		w.WriteString("</Blob>")
		i++
	}
	return ""
}

func (b *blob) kind() string {
	if b.append {
		return "AppendBlob"
	}
	return "BlockBlob"
}

func (b *blob) locked() string {
	if state := b.lease.state(time.Now()); state == "leased" || state == "breaking" {
		return "locked"
	}
	return "unlocked"
}

func (b *blob) tier() string {
	if b.archived {
		return "Archive"
	}
	return "Hot"
}

func escape(s string) string {
	var w strings.Builder
	_ = xml.EscapeText(&w, []byte(s))
	return w.String()
}

// parseRange returns the first and last byte asked for; last is -1 for "to the end".
func parseRange(r *http.Request) (first, last int64, ok bool) {
	v := r.Header.Get("x-ms-range")
	if v == "" {
		v = r.Header.Get("Range")
	}
	v, ok = strings.CutPrefix(v, "bytes=")
	if !ok {
		return 0, -1, false
	}
	a, b, _ := strings.Cut(v, "-")
	first, err := strconv.ParseInt(a, 10, 64)
	if err != nil {
		return 0, -1, false
	}
	last, err = strconv.ParseInt(b, 10, 64)
	if err != nil {
		last = -1
	}
	return first, last, true
}

func (s *Server) read(w http.ResponseWriter, r *http.Request, req Request, fault *Fault) {
	s.mu.Lock()
	var b *blob
	if c := s.containers[req.Container]; c != nil {
		if at := c.blobs[req.Blob]; at != nil {
			snapshot := *at
			b = &snapshot
			if b.lease != nil { // which renewals change in place
				l := *b.lease
				b.lease = &l
			}
		}
	}
	s.mu.Unlock()
	if b == nil {
		fail(w, r, http.StatusNotFound, "BlobNotFound", "The specified blob does not exist.")
		return
	}
	h := w.Header()
	if match := r.Header.Get("If-Match"); match != "" && match != "*" && match != `"`+b.etag+`"` {
		fail(w, r, http.StatusPreconditionFailed, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met.")
		return
	}
	if b.archived && req.Op == GetBlob {
		fail(w, r, http.StatusConflict, "BlobArchived", "This operation is not permitted on an archived blob.")
		return
	}
	body, status := b.data, http.StatusOK
	if first, last, ok := parseRange(r); ok && req.Op == GetBlob {
		size := int64(len(b.data))
		if first >= size {
			h.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
			fail(w, r, http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The range specified is invalid for the current size of the resource.")
			return
		}
		if last < 0 || last >= size {
			last = size - 1
		}
		body, status = b.data[first:last+1], http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, size))
	}
	h.Set("ETag", `"`+b.etag+`"`)
	h.Set("Last-Modified", b.modified.UTC().Format(http.TimeFormat))
	h.Set("x-ms-creation-time", b.created.UTC().Format(http.TimeFormat))
	h.Set("x-ms-blob-type", b.kind())
	h.Set("x-ms-lease-state", b.lease.state(time.Now()))
	for key, value := range b.metadata {
		h.Set("x-ms-meta-"+key, value)
	}
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if req.Op == GetProperties {
		return
	}
	if fault.CutAfter > 0 && fault.CutAfter < len(body) {
		_, _ = w.Write(body[:fault.CutAfter])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler) // ends the connection without the rest
	}
	_, _ = w.Write(body)
}
