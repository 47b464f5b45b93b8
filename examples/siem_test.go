package examples_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// A siem is a Splunk collector, an Elasticsearch or an OpenSearch as far as Fluent Bit's outputs
// see them. It refuses requests that the real one would refuse, and keeps the documents by
// event_id. The test sets its answers.
type siem struct {
	t      *testing.T
	server *httptest.Server
	parse  func(r *http.Request, body []byte) ([]document, error)
	reply  func(w http.ResponseWriter, status int, docs []document, each []int)

	// answer decides on the request's status and on that of each document, by event_id; nil takes
	// everything.
	answer func(id string) int
	// refuse, when not 0, is the status of every request as a whole.
	refuse int

	mu       sync.Mutex
	requests int
	taken    map[string]document // by event_id
	seen     map[string]int      // how often each event_id was sent
	writes   int                 // documents taken, repeats included
}

type document struct {
	id     string // _id of a bulk, the indexed field event_id of Splunk
	index  string
	time   string
	source json.RawMessage
	hec    hecEvent
}

func newSIEM(t *testing.T, kind string) *siem {
	t.Helper()
	s := unstartedSIEM(t, kind)
	s.server.StartTLS()
	return s
}

func unstartedSIEM(t *testing.T, kind string) *siem {
	t.Helper()
	s := &siem{t: t, taken: make(map[string]document), seen: make(map[string]int)}
	switch kind {
	case "splunk":
		s.parse, s.reply = parseHEC, replyHEC
	case "elastic", "opensearch":
		s.parse, s.reply = parseBulk, replyBulk
	case "add-on":
		s.parse, s.reply = parseAddOn, replyHEC
	case "integration":
		s.parse, s.reply = parseCreate, replyBulk
	default:
		t.Fatalf("no SIEM called %s", kind)
	}
	s.server = httptest.NewUnstartedServer(s)
	t.Cleanup(s.server.Close)
	return s
}

// caFile is what a client needs to trust the server.
func (s *siem) caFile() string {
	file := filepath.Join(s.t.TempDir(), "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw})
	if err := os.WriteFile(file, cert, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

func (s *siem) port() string {
	_, port, _ := strings.Cut(s.server.Listener.Addr().String(), ":")
	return port
}

func (s *siem) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(r)
	if err == nil && r.Method != http.MethodPost {
		err = fmt.Errorf("method %s", r.Method)
	}
	var docs []document
	if err == nil {
		docs, err = s.parse(r, body)
	}
	if err != nil {
		s.t.Errorf("%s %s: %v", r.Method, r.URL, err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	each := make([]int, len(docs))
	for i, d := range docs {
		s.seen[d.id]++
		each[i] = http.StatusCreated
		if s.answer != nil {
			each[i] = s.answer(d.id)
		}
		if s.refuse == 0 && each[i] < 300 {
			s.taken[d.id] = d
			s.writes++
		}
	}
	s.reply(w, s.refuse, docs, each)
}

func (s *siem) count() (requests, taken int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests, len(s.taken)
}

func readBody(r *http.Request) ([]byte, error) {
	if got := r.Header.Get("Content-Encoding"); got != "gzip" {
		return nil, fmt.Errorf("Content-Encoding is %q, want gzip", got)
	}
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	body, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	return body, nil
}

const (
	splunkToken = "11111111-2222-3333-4444-555555555555"
	bulkUser    = "fluent-bit"
	bulkPass    = "correct horse"
)

var (
	eventID   = regexp.MustCompile(`^[0-9a-f]{32}$`)
	indexName = regexp.MustCompile(`^defender-\d{4}\.\d\d\.\d\d$`)
)

// hecEvent is an event of Splunk's HTTP Event Collector. "event", and nothing but these keys beside
// it: the collector ignores or refuses others (docs.splunk.com, "Format events for HTTP Event
// Collector").
type hecEvent struct {
	Time       json.Number     `json:"time"`
	Host       *string         `json:"host"`
	Source     string          `json:"source"`
	Sourcetype string          `json:"sourcetype"`
	Index      string          `json:"index"`
	Fields     map[string]any  `json:"fields"`
	Event      json.RawMessage `json:"event"`
}

func parseHEC(r *http.Request, body []byte) ([]document, error) {
	if r.URL.Path != "/services/collector/event" {
		return nil, errors.New("not the path of the event collector")
	}
	if got := r.Header.Get("Authorization"); got != "Splunk "+splunkToken {
		return nil, fmt.Errorf("Authorization is %q", got)
	}
	var docs []document
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	d.UseNumber()
	for {
		var e hecEvent
		if err := d.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("event %d: %w", len(docs), err)
		}
		var record struct {
			EventID    string `json:"event_id"`
			Table      string `json:"table"`
			DeviceName string `json:"DeviceName"`
		}
		if err := json.Unmarshal(e.Event, &record); err != nil {
			return nil, fmt.Errorf("event %d: %w", len(docs), err)
		}
		switch {
		case e.Index != "defender", e.Sourcetype != "defender:xdr":
			return nil, fmt.Errorf("index %q, sourcetype %q", e.Index, e.Sourcetype)
		case e.Source != record.Table || e.Source == "":
			return nil, fmt.Errorf("source %q of a record of table %q", e.Source, record.Table)
		case e.Host != nil && *e.Host != record.DeviceName, e.Host == nil && record.DeviceName != "":
			return nil, fmt.Errorf("host %v of a record of device %q", e.Host, record.DeviceName)
		case e.Fields["defender_event_id"] != record.EventID || !eventID.MatchString(record.EventID):
			return nil, fmt.Errorf("event_id %q, as an indexed field %v", record.EventID, e.Fields["defender_event_id"])
		case len(e.Fields) != 1: // a field that is indexed and in the event is found twice
			return nil, fmt.Errorf("indexed fields %v", e.Fields)
		case e.Time == "":
			return nil, errors.New("no time")
		}
		docs = append(docs, document{id: record.EventID, index: e.Index, time: e.Time.String(), source: e.Event, hec: e})
	}
	if len(docs) == 0 {
		return nil, errors.New("no events")
	}
	return docs, nil
}

// replyHEC answers for the whole request, as the collector does: it has no status for a single
// event.
func replyHEC(w http.ResponseWriter, refuse int, _ []document, each []int) {
	w.Header().Set("Content-Type", "application/json")
	for _, status := range each {
		if refuse == 0 && status >= 300 {
			refuse = status
		}
	}
	if refuse != 0 {
		w.WriteHeader(refuse)
		_, _ = io.WriteString(w, `{"text":"Incorrect index","code":7,"invalid-event-number":1}`)
		return
	}
	_, _ = io.WriteString(w, `{"text":"Success","code":0}`)
}

// parseBulk reads a request for the bulk API of Elasticsearch and of OpenSearch: pairs of an action
// and a document, each on a line, with a newline at the end.
func parseBulk(r *http.Request, body []byte) ([]document, error) {
	if r.URL.Path != "/_bulk" {
		return nil, errors.New("not the path of the bulk API")
	}
	if got := r.Header.Get("Content-Type"); got != "application/x-ndjson" {
		return nil, fmt.Errorf("Content-Type is %q", got)
	}
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(bulkUser+":"+bulkPass))
	if got := r.Header.Get("Authorization"); got != want {
		return nil, fmt.Errorf("Authorization is %q, want %q", got, want)
	}
	if !bytes.HasSuffix(body, []byte("\n")) {
		return nil, errors.New("no newline at the end")
	}
	lines := bytes.Split(bytes.TrimSuffix(body, []byte("\n")), []byte("\n"))
	if len(lines)%2 != 0 {
		return nil, fmt.Errorf("%d lines: an action without a document", len(lines))
	}
	var docs []document
	for i := 0; i < len(lines); i += 2 {
		var action struct {
			Index *struct {
				Index string `json:"_index"`
				ID    string `json:"_id"`
			} `json:"index"`
		}
		d := json.NewDecoder(bytes.NewReader(lines[i])) // _type is refused since Elasticsearch 8 and OpenSearch 2
		d.DisallowUnknownFields()
		if err := d.Decode(&action); err != nil || action.Index == nil {
			return nil, fmt.Errorf("action %s: %v", lines[i], err)
		}
		var record struct {
			Time    string `json:"@timestamp"`
			EventID string `json:"event_id"`
		}
		if err := json.Unmarshal(lines[i+1], &record); err != nil {
			return nil, fmt.Errorf("document %s: %w", lines[i+1], err)
		}
		at, err := time.Parse("2006-01-02T15:04:05.000000000Z", record.Time)
		switch {
		case err != nil:
			return nil, fmt.Errorf("@timestamp: %w", err)
		case action.Index.ID != record.EventID || !eventID.MatchString(record.EventID):
			return nil, fmt.Errorf("_id %q, event_id %q", action.Index.ID, record.EventID)
		case action.Index.Index != at.Format("defender-2006.01.02") || !indexName.MatchString(action.Index.Index):
			return nil, fmt.Errorf("index %q for an event of %s", action.Index.Index, record.Time)
		}
		docs = append(docs, document{id: record.EventID, index: action.Index.Index, time: record.Time, source: lines[i+1]})
	}
	return docs, nil
}

func replyBulk(w http.ResponseWriter, refuse int, docs []document, each []int) {
	w.Header().Set("Content-Type", "application/json")
	if refuse != 0 {
		w.WriteHeader(refuse)
		_, _ = fmt.Fprintf(w, `{"error":{"type":"x","reason":"refused"},"status":%d}`, refuse)
		return
	}
	var b strings.Builder
	failed := false
	for i, d := range docs {
		if i > 0 {
			b.WriteByte(',')
		}
		failed = failed || each[i] >= 300
		switch each[i] {
		case http.StatusConflict:
			fmt.Fprintf(&b, `{"index":{"_index":%q,"_id":%q,"status":409,"error":{"type":"version_conflict_engine_exception","reason":"document already exists"}}}`, d.index, d.id)
		case http.StatusBadRequest:
			fmt.Fprintf(&b, `{"index":{"_index":%q,"_id":%q,"status":400,"error":{"type":"document_parsing_exception","reason":"failed to parse"}}}`, d.index, d.id)
		default:
			fmt.Fprintf(&b, `{"index":{"_index":%q,"_id":%q,"_version":1,"result":"created","_shards":{"total":1,"successful":1,"failed":0},"_seq_no":1,"_primary_term":1,"status":%d}}`, d.index, d.id, each[i])
		}
	}
	_, _ = fmt.Fprintf(w, `{"errors":%v,"took":1,"items":[%s]}`, failed, b.String())
}
