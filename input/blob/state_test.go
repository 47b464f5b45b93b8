package blob_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// The stored state of a section without blob.shared is to the byte what it was before there was
// such a setting. The version before wrote testdata/state.txt. The section reads containers by a
// pattern and by name, twice, from a state file. They hold lines, lists, UTF-16, old blobs, a blob
// that is deleted, and a folder of another layout.
func TestStateIsAsBefore(t *testing.T) {
	t.Parallel()
	const file = "testdata/state.txt"
	a := newFake(t)
	now := time.Now().UTC().Truncate(time.Hour).Add(30 * time.Minute)
	if now.After(time.Now()) { // of two clocks that differ, some times go by the earlier one
		now = now.Add(-time.Hour)
	}
	a.fake.SetClock(func() time.Time { return now })
	events := 0
	add := func(container, name, text string, lines int) {
		a.fake.Append(container, name, []byte(text))
		events += lines
	}
	for i := range 30 {
		at := now.Add(-time.Duration(i) * time.Hour)
		add(table, pt1h(at), strings.Repeat(fmt.Sprintf("{\"hour\":%d}\r\n", i), 1+i%4), 1+i%4)
		a.fake.Age(table, pt1h(at), at, at.Add(20*time.Minute))
	}
	old := now.Add(-60 * 24 * time.Hour)
	for i := range 5 {
		at := old.Add(time.Duration(i) * time.Hour)
		add(table, pt1h(at), "{\"old\":1}\r\n{\"half\":", 2) // the half is handed on: its hour is long over
		a.fake.Age(table, pt1h(at), at, at.Add(20*time.Minute))
	}
	const other = "exported-by-hand"
	a.fake.Put(other, "folder/list.json", []byte(`{"records":[{"a":1},{"b":2}]}`))
	a.fake.Put(other, "wide.json", []byte("\xff\xfe{\x00}\x00\n\x00"))
	events += 2 + 1
	a.fake.Age(other, "folder/list.json", old, old)
	cfg := a.config()
	cfg.Containers = []string{"insights-*", other}
	// A signature, since a key does not allow for a clock that differs.
	cfg.Auth, cfg.AccountURL = "sas", a.fake.URL()
	cfg.ConnectionString = input.NewSecret("")
	cfg.SAS = input.NewSecret("sv=1&se=" + now.AddDate(1, 0, 0).Format(time.RFC3339) + "&sig=x")

	path := statePath(t)
	for range 2 {
		state := openState(t, path)
		r := start(t, cfg, state)
		r.want(events)
		swept := func(container string) bool {
			v, err := state.Get("blob", "#sweep/"+container)
			return err == nil && strings.Contains(string(v), `"finished"`)
		}
		r.until("all names to be looked through", func() bool { return swept(table) && swept(other) })
		r.stop()
		if err := state.Close(); err != nil {
			t.Fatal(err)
		}
		events = 0
		add(table, pt1h(now), "{\"more\":1}\r\n[{\"list\":1},\n{\"list\":2}", 3)
		a.fake.Delete(table, pt1h(now.Add(-29*time.Hour)))
	}

	state := openState(t, path)
	defer state.Close()
	var got strings.Builder
	err := state.Each("blob", "", func(key, value []byte) error {
		if strings.HasPrefix(string(key), "#since/") { // by our own clock, until an answer shows another
			value = value[:1]
		}
		fmt.Fprintf(&got, "%s\t%s\n", key, value)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	text := relative(got.String(), now)
	if os.Getenv("BLOB_STATE_WRITE") != "" {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("the state file has\n%s\nand had before\n%s", text, want)
	}
}

var (
	hourInName = regexp.MustCompile(`y=\d{4}/m=\d\d/d=\d\d/h=\d\d/`)
	unixTime   = regexp.MustCompile(`\b1[789]\d{8}\b`)
	writtenAt  = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`)
)

// relative writes times as what they are to now, in whole seconds, or minutes where it is our own
// clock that went on.
func relative(text string, now time.Time) string {
	text = hourInName.ReplaceAllStringFunc(text, func(name string) string {
		at, err := time.Parse("y=2006/m=01/d=02/h=15/", name)
		return fmt.Sprintf("HOUR%v/%v/", at.Sub(now), err)
	})
	text = unixTime.ReplaceAllStringFunc(text, func(digits string) string {
		n, err := strconv.ParseInt(digits, 10, 64)
		return fmt.Sprintf("T%v/%v", time.Unix(n, 0).Sub(now), err)
	})
	return writtenAt.ReplaceAllStringFunc(text, func(written string) string {
		at, err := time.Parse(time.RFC3339Nano, written)
		return fmt.Sprintf("AT%v/%v", at.Sub(now).Round(2*time.Minute), err)
	})
}
