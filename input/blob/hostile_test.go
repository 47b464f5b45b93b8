package blob_test

import (
	"encoding/json"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
)

// dated answers with another Date than the server's.
type dated struct {
	http.ResponseWriter
	date time.Time
}

func (d dated) WriteHeader(status int) {
	d.Header().Set("Date", d.date.UTC().Format(http.TimeFormat))
	d.ResponseWriter.WriteHeader(status)
}

func (d dated) Write(p []byte) (int, error) {
	d.Header().Set("Date", d.date.UTC().Format(http.TimeFormat))
	return d.ResponseWriter.Write(p)
}

// Answers that claim to be of the year 2100, such as those of a proxy with a wrong clock, do no
// harm. Blobs do not count as read long ago, neither then nor later, and a line that is being
// written is not ended.
func TestAnswersFromTheFuture(t *testing.T) {
	t.Parallel()
	var fake *fakeblob.Server
	var future atomic.Bool
	var answers atomic.Int64
	fake, cfg, _ := hostile(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !future.Load() {
			return false
		}
		answers.Add(1)
		fake.ServeHTTP(dated{w, time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}, r)
		return true
	})
	now := time.Now()
	fake.Append(table, pt1h(now), []byte("{\"a\":0}\n{\"a\":"))
	state := openState(t, statePath(t))
	defer state.Close()
	future.Store(true)
	r := start(t, cfg, state)
	r.until("some answers", func() bool { return answers.Load() > 30 })
	future.Store(false)
	lists := fake.Count(fakeblob.ListBlobs)
	r.until("lists of today", func() bool { return fake.Count(fakeblob.ListBlobs) > lists+3 })
	fake.Append(table, pt1h(now), []byte("1}\n"))
	fake.Append(table, pt1h(now.Add(-time.Hour)), []byte("{\"a\":2}\n"))
	r.want(3)
	for _, text := range r.texts("") {
		if !json.Valid([]byte(text)) {
			t.Errorf("a line is torn: %q", r.texts(""))
		}
	}
	r.stop()
	r = start(t, cfg, state)
	fake.Append(table, pt1h(now.Add(-2*time.Hour)), []byte("{\"a\":3}\n"))
	r.want(1)
}
