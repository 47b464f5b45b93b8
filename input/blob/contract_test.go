package blob_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
)

// contract is what holds against every server that speaks the protocol: the fake in every run,
// Azurite in integration runs.
var contract = []struct {
	name string
	run  func(*testing.T, *account)
}{
	{"tail", tail},
	{"replaced", replaced},
	{"deleted and made again", deleted},
	{"container is missing, then made", missing},
	{"line of 40 MB", longLine},
	{"line of 10 MB", largeLine},
	{"empty blob, blank lines", empty},
	{"gzip", gzipBlob},
	{"gzip taken up again", gzipAgain},
	{"object", objectBlob},
	{"other layouts", layouts},
	{"patterns", patterns},
	{"start latest", startLatest},
	{"warm up", warmUp},
	{"start at a time", startAt},
	{"tiny lines", tinyLines},
	{"samples", samples},
}

func TestFake(t *testing.T) {
	for _, c := range contract {
		if raceDetector && (c.name == "line of 40 MB" || c.name == "gzip") {
			continue // minutes of one goroutine's work
		}
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t, newFake(t)) })
	}
}

func tail(t *testing.T, a *account) {
	now := time.Now()
	lane := table + "/" + pt1h(now)
	a.create(t, table)
	a.append(t, table, pt1h(now), "\xef\xbb\xbf{\"a\":1}\r\n\r\n{\"a\":2}\n{\"a\":")
	state := openState(t, statePath(t))
	defer state.Close()
	r := start(t, a.config(), state)
	r.want(2)
	a.append(t, table, pt1h(now), "3}\r\n")
	r.want(3)
	r.stop()
	a.append(t, table, pt1h(now), "{\"a\":4}\r\n")
	r2 := start(t, a.config(), state)
	r2.want(1)
	a.append(t, table, pt1h(now.Add(-time.Hour)), "{\"b\":1}\r\n")
	r2.want(2)
	same(t, append(r.texts(lane), r2.texts(lane)...), []string{`{"a":1}`, `{"a":2}`, `{"a":3}`, `{"a":4}`})
}

// numbered returns n lines from first on.
func numbered(name string, first, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"%s\":%d,\"x\":\"%s\"}\r\n", name, first+i, strings.Repeat("x", 50+(first+i)%90))
	}
	return b.String()
}

func split(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\r' || r == '\n' })
}

// A blob that was deleted and written again is read as a new one, smaller or larger. This holds
// even if its creation time, in whole seconds, is the same.
func replaced(t *testing.T, a *account) {
	a.create(t, table)
	for i, c := range []struct {
		name        string
		old, new    string
		stopped     bool // while it is replaced
		otherSecond bool
	}{
		{"smaller", numbered("old", 0, 50), numbered("new", 0, 20), false, false},
		{"larger", numbered("old", 0, 20), numbered("new", 0, 60), false, false},
		{"larger and later", numbered("old", 0, 20), numbered("new", 0, 60), false, true},
		{"smaller while stopped", numbered("old", 0, 50), numbered("new", 0, 20), true, false},
		{"larger while stopped", numbered("old", 0, 20), numbered("new", 0, 60), true, false},
		{"same lengths", numbered("old", 0, 20), numbered("new", 0, 40), true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := pt1h(time.Now().Add(-time.Duration(i) * time.Hour))
			a.append(t, table, name, c.old)
			state := openState(t, statePath(t))
			defer state.Close()
			cfg := a.config()
			cfg.Prefix = name // a case does not see the others' blobs
			r := start(t, cfg, state)
			r.want(len(split(c.old)))
			if c.stopped {
				r.stop()
			}
			if c.otherSecond {
				time.Sleep(1100 * time.Millisecond)
			}
			a.delete(t, table, name)
			a.append(t, table, name, c.new)
			next := r
			if c.stopped {
				next = start(t, cfg, state)
			}
			next.until("the new blob", func() bool { return strings.Contains(strings.Join(next.texts(""), ""), lastOf(c.new)) })
			all := next.texts("")
			if !c.stopped {
				all = all[len(split(c.old)):]
			}
			same(t, all, split(c.new))
			next.quiet(next.count())
			next.stop()
			quiet := start(t, cfg, state)
			quiet.quiet(0)
			quiet.stop()
		})
	}
}

func lastOf(text string) string { list := split(text); return list[len(list)-1] }

func deleted(t *testing.T, a *account) {
	a.create(t, table)
	name := pt1h(time.Now())
	a.append(t, table, name, numbered("a", 0, 30)+"{\"unfinished")
	r := start(t, a.config(), nil)
	r.want(30)
	a.delete(t, table, name)
	r.until("the blob to be gone", func() bool { return r.src.Stats().Gone == 1 })
	r.says("deleted before it was read to its end")
	a.append(t, table, name, numbered("b", 0, 5))
	r.want(35)
}

func missing(t *testing.T, a *account) {
	cfg := a.config()
	cfg.Start = input.Start{Latest: true} // what comes after the first look is new, also in a container that was not there
	r := start(t, cfg, nil)
	r.says("does not exist yet")
	time.Sleep(1100 * time.Millisecond) // creation times have whole seconds
	a.create(t, table)
	a.append(t, table, pt1h(time.Now()), numbered("a", 0, 10))
	r.want(10)
	if n := strings.Count(r.log.String(), "does not exist yet"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

const lineLimit = 32 << 20 // of a Config that names none

func longLine(t *testing.T, a *account) {
	a.create(t, table)
	name := pt1h(time.Now())
	long := `{"long":"` + strings.Repeat("0123456789abcdef", 40<<20/16) + `"}`
	a.append(t, table, name, numbered("a", 0, 3)+long+"\r\n"+numbered("b", 0, 3))
	state := openState(t, statePath(t))
	defer state.Close()
	cfg := a.config()
	r := start(t, cfg, state)
	r.want(7)
	all := r.all()
	cut := all[3]
	if len(cut.text) != lineLimit || cut.text != long[:lineLimit] || !strings.Contains(cut.Reason, "32 MB") {
		t.Errorf("cut line: %d bytes, reason %q", len(cut.text), cut.Reason)
	}
	for i, m := range all {
		if i != 3 && m.Reason != "" {
			t.Errorf("message %d: reason %q", i, m.Reason)
		}
	}
	same(t, append(r.texts("")[:3], r.texts("")[4:]...), split(numbered("a", 0, 3)+numbered("b", 0, 3)))
	r.says("skipped the rest of a line or of a record")
	if st := r.src.Stats(); st.LinesCut != 1 || st.BytesSkipped < 8<<20 {
		t.Errorf("stats %+v", st)
	}
	r.stop()
	// A restart in the middle of the cut line continues behind it.
	if err := state.Write("blob", []input.Change{{Key: table + "/" + name, Value: midLine(t, state, table+"/"+name, cut.Mark.Next)}}); err != nil {
		t.Fatal(err)
	}
	r = start(t, cfg, state)
	r.want(3)
	same(t, r.texts(""), split(numbered("b", 0, 3)))
}

// midLine returns the stored position moved to offset, which is perhaps inside a line.
func midLine(t *testing.T, state *input.State, lane string, offset int64) []byte {
	v, err := state.Get("blob", lane)
	if err != nil || v == nil {
		t.Fatalf("no position of %s: %v", lane, err)
	}
	parts := strings.Fields(string(v))
	parts[2], parts[4] = "i", fmt.Sprint(offset)
	return []byte(strings.Join(parts, " "))
}

func largeLine(t *testing.T, a *account) {
	a.create(t, table)
	text := ""
	for i := range 2 {
		text += fmt.Sprintf(`{"n":%d,"large":"%s"}`, i, strings.Repeat("y", 10<<20)) + "\r\n" + numbered("a", i, 2)
	}
	a.append(t, table, pt1h(time.Now()), text)
	r := start(t, a.config(), nil)
	r.want(6)
	same(t, r.texts(""), split(text))
	for _, m := range r.all() {
		if m.Reason != "" {
			t.Errorf("reason %q", m.Reason)
		}
	}
}

func empty(t *testing.T, a *account) {
	a.create(t, table)
	name := pt1h(time.Now())
	a.append(t, table, name, "")
	a.append(t, table, pt1h(time.Now().Add(-time.Hour)), "\r\n\r\n \r\n")
	state := openState(t, statePath(t))
	defer state.Close()
	r := start(t, a.config(), state)
	r.quiet(0)
	a.append(t, table, name, "{\"a\":1}\r\n\r\n\r\n")
	r.want(1)
	r.until("blank lines to be read with the line before", func() bool { return r.src.Stats().Containers[table].Behind == 0 })
	r.stop()
	r = start(t, a.config(), state)
	r.quiet(0)
	a.append(t, table, name, "{\"a\":2}\r\n")
	r.want(1)
}

func zip(t *testing.T, parts ...string) string {
	t.Helper()
	var b bytes.Buffer
	for _, text := range parts {
		z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := z.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func gzipBlob(t *testing.T, a *account) {
	a.create(t, "archive")
	text := numbered("z", 0, 5000)
	long := strings.Repeat("long ", 8<<20) // 40 MB
	a.put(t, "archive", "b/members.json.gz", zip(t, "\xef\xbb\xbf"+text, numbered("y", 0, 10)+`{"no":"newline"}`))
	a.put(t, "archive", "b/long.gz", zip(t, numbered("x", 0, 2)+long+"\n"+numbered("w", 0, 2)))
	whole := zip(t, numbered("v", 0, 500))
	a.put(t, "archive", "b/cut.gz", whole[:len(whole)-len(whole)/3])
	a.put(t, "archive", "b/empty.gz", zip(t, ""))
	a.put(t, "archive", "b/plain.json", numbered("p", 0, 5)+`{"no":"newline"}`)
	state := openState(t, statePath(t))
	defer state.Close()
	cfg := a.config()
	cfg.Containers, cfg.Prefix = []string{"archive"}, "b/"
	r := start(t, cfg, state)
	r.until("the damaged blob", func() bool { return strings.Contains(r.log.String(), "damaged") })
	r.until("what there is of each", func() bool {
		damaged := r.all()
		damaged = slices.DeleteFunc(damaged, func(m got) bool { return m.Mark.Lane != "archive/b/cut.gz" || m.Reason == "" })
		return len(r.texts("archive/b/members.json.gz")) == 5011 && len(r.texts("archive/b/long.gz")) == 5 && len(r.texts("archive/b/plain.json")) == 6 && len(damaged) == 1
	})
	same(t, r.texts("archive/b/members.json.gz"), append(split(text+numbered("y", 0, 10)), `{"no":"newline"}`))
	for _, m := range r.all() {
		switch {
		case m.Mark.Lane == "archive/b/long.gz" && len(m.text) == lineLimit:
			if m.Reason == "" {
				t.Error("the long line has no reason")
			}
		case m.Mark.Lane == "archive/b/cut.gz" && m.Reason != "":
			if !strings.Contains(m.Reason, "unexpected EOF") {
				t.Errorf("reason %q", m.Reason)
			}
		case m.Reason != "":
			t.Errorf("%s: reason %q", m.Mark.Lane, m.Reason)
		}
	}
	if damaged := r.texts("archive/b/cut.gz"); len(damaged) < 100 {
		t.Errorf("%d lines of the damaged blob", len(damaged))
	} else {
		same(t, damaged[:100], split(numbered("v", 0, 100)))
	}
	n := r.count()
	r.quiet(n)
	r.stop()
	r = start(t, cfg, state)
	r.quiet(0)
	a.put(t, "archive", "b/members.json.gz", zip(t, numbered("n", 0, 7))) // written again
	r.want(7)
}

func gzipAgain(t *testing.T, a *account) {
	a.create(t, "archive")
	text := numbered("z", 0, 20000)
	a.put(t, "archive", "a.gz", zip(t, text))
	state := openState(t, statePath(t))
	defer state.Close()
	cfg := a.config()
	cfg.Containers, cfg.FetchBytes = []string{"archive"}, 1<<20
	var all []string
	for range 50 {
		// Some pieces are fetched and committed; the rest is lost with the source.
		src, err := blob.Open(t.Context(), cfg, state, (&logs{}).logger())
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			messages, err := src.Fetch(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range messages {
				all = append(all, string(m.Body))
			}
			if err := src.Commit(t.Context(), []input.Mark{messages[len(messages)-1].Mark}); err != nil {
				t.Fatal(err)
			}
			if len(all) == 20000 {
				break
			}
		}
		if err := src.Close(); err != nil {
			t.Fatal(err)
		}
		if len(all) == 20000 {
			break
		}
	}
	same(t, all, split(text))
}

// Values end where their brackets end. Lists of block blobs, and those whose end has not come, are
// cut into their records.
func objectBlob(t *testing.T, a *account) {
	a.create(t, table)
	pretty := "{\r\n  \"records\": [\r\n    {\"a\": \"}]\\\"{\"},\r\n    {\"a\": 2}\r\n  ]\r\n}"
	bare := func(h int) string { return pt1h(time.Now().Add(-time.Duration(h) * time.Hour)) }
	a.put(t, table, bare(0), pretty+"\r\n")
	a.put(t, table, bare(1), "\xef\xbb\xbf{\"records\":[{\"a\":1},\n{\"a\":2}]}")
	a.put(t, table, bare(2), `{"records":[{"a":1},{"a":2}]}`)
	a.append(t, table, bare(3), "{ \"records\": [\n{\"a\":1},{\"a\":")
	a.append(t, table, bare(4), "{\"damaged\n"+numbered("a", 0, 3))
	a.append(t, table, bare(5), pretty+"\r\n"+pretty+"{\"b\":1}\r\n{\"c\":\r\n  1}\r\n{\"records\":[{\"a\":1},{\"a\":2}]}\r\n")
	lane := func(h int) string { return table + "/" + bare(h) }
	state := openState(t, statePath(t))
	defer state.Close()
	r := start(t, a.config(), state)
	r.want(6 + 1 + 4 + 5)
	same(t, r.texts(lane(0)), []string{"{\"a\": \"}]\\\"{\"}", "{\"a\": 2}"})
	same(t, r.texts(lane(1)), []string{"{\"a\":1}", "{\"a\":2}"})
	same(t, r.texts(lane(2)), []string{"{\"a\":1}", "{\"a\":2}"})
	same(t, r.texts(lane(4)), append([]string{`{"damaged`}, split(numbered("a", 0, 3))...))
	same(t, r.texts(lane(5)), []string{pretty, pretty, `{"b":1}`, "{\"c\":\r\n  1}", `{"records":[{"a":1},{"a":2}]}`})
	a.append(t, table, bare(3), "2}]}\n{\"line\":1}\n") // the rest of it, and lines after
	r.want(18)
	same(t, r.texts(lane(3)), []string{`{"a":1}`, `{"a":2}`, `{"line":1}`})
	r.until("all to be read", func() bool { return r.src.Stats().Containers[table].Behind == 0 })
	r.stop()
	r = start(t, a.config(), state)
	r.quiet(0)
	a.put(t, table, bare(0), strings.Replace(pretty, "2", "3", 1)) // not what it was: all of it is read again
	r.want(2)
	same(t, r.texts(lane(0)), []string{"{\"a\": \"}]\\\"{\"}", "{\"a\": 3}"})
	a.put(t, table, bare(0), pretty[:len(pretty)-len("\r\n  ]\r\n}")]+",\r\n {\"a\": 4}\r\n  ]\r\n}") // 2 is back, and 4 is new
	r.want(5)
	a.put(t, table, bare(0), pretty[:len(pretty)-len("\r\n  ]\r\n}")]+",\r\n {\"a\": 4}, {\"a\": 5}\r\n  ]\r\n}") // it only grew
	r.want(6)
	same(t, r.texts(lane(0))[5:], []string{`{"a": 5}`})
}

func layouts(t *testing.T, a *account) {
	a.create(t, "other")
	for _, name := range []string{
		"resourceId=/SUBSCRIPTIONS/1/PROVIDERS/X/y=2026/m=01/d=13/h=09/m=00/PT1H.json",
		"folder/a b&c+d.ndjson", "top.jsonl", "old/2020.json",
	} {
		a.append(t, "other", name, "{\"name\":\""+name+"\"}\n")
	}
	a.append(t, "other", "notes.txt", "not events\n")
	cfg := a.config()
	cfg.Containers = []string{"other"}
	state := openState(t, statePath(t))
	defer state.Close()
	r := start(t, cfg, state)
	r.want(4)
	a.append(t, "other", "folder/later.json", "{\"later\":1}\n")
	a.append(t, "other", "old/2020.json", "{\"more\":1}\n")
	r.want(6)
	r.says("only blobs named")
	r.stop()
	r = start(t, cfg, state)
	a.append(t, "other", "top.jsonl", "{\"more\":2}\n")
	r.want(1)
}

func patterns(t *testing.T, a *account) {
	cfg := a.config()
	cfg.Containers = []string{"insights-logs-advancedhunting-*"}
	r := start(t, cfg, nil)
	r.says("no container matches yet")
	for i, name := range []string{"insights-logs-advancedhunting-deviceinfo", table, "insights-logs-other"} {
		a.create(t, name)
		a.append(t, name, pt1h(time.Now()), numbered("a", i, 2))
	}
	r.want(4)
}

func startLatest(t *testing.T, a *account) {
	a.create(t, table)
	now := time.Now()
	ended, torn, old := pt1h(now), pt1h(now.Add(-time.Hour)), pt1h(now.Add(-20*24*time.Hour))
	a.append(t, table, ended, numbered("before", 0, 5))
	a.append(t, table, torn, numbered("before", 0, 5)+`{"torn`)
	a.append(t, table, old, numbered("before", 0, 5))
	time.Sleep(1100 * time.Millisecond) // creation times have whole seconds
	state := openState(t, statePath(t))
	defer state.Close()
	cfg := a.config()
	cfg.Start = input.Start{Latest: true}
	r := start(t, cfg, state)
	r.until("the sweep", func() bool { return r.src.Stats().Lists >= 10 })
	r.quiet(0)
	a.append(t, table, ended, numbered("after", 0, 3))
	a.append(t, table, torn, "\":1}\r\n"+numbered("after", 0, 3))
	a.append(t, table, pt1h(now.Add(-2*time.Hour)), numbered("after", 0, 2))
	r.want(8)
	same(t, r.texts(table+"/"+ended), split(numbered("after", 0, 3)))
	same(t, r.texts(table+"/"+torn), split(numbered("after", 0, 3)))
	r.stop()
	// What came while it was stopped is not skipped, also where nothing was committed yet.
	a.append(t, table, ended, numbered("stopped", 0, 2))
	r = start(t, cfg, state)
	r.want(2)
}

// The recent reports of devices are read although the start is latest; other tables, and a second
// start, are as ever.
func warmUp(t *testing.T, a *account) {
	const devices = "insights-logs-advancedhunting-deviceinfo"
	a.create(t, table)
	a.create(t, devices)
	recent := pt1h(time.Now())
	a.append(t, table, recent, numbered("alert", 0, 5))
	a.append(t, devices, recent, numbered("device", 0, 3))
	time.Sleep(1100 * time.Millisecond) // creation times have whole seconds
	state := openState(t, statePath(t))
	defer state.Close()
	cfg := a.config()
	cfg.Containers = []string{table, devices}
	cfg.Start, cfg.WarmUp = input.Start{Latest: true}, 3*time.Hour
	cfg.Warm = func(container string) bool { return container == devices }
	r := start(t, cfg, state)
	r.want(3)
	same(t, r.texts(devices+"/"+recent), split(numbered("device", 0, 3)))
	a.append(t, table, recent, numbered("after", 0, 2))
	r.want(5)
	r.stop()
	a.append(t, devices, recent, numbered("later", 0, 1))
	r = start(t, cfg, state)
	r.want(1)
}

func startAt(t *testing.T, a *account) {
	a.create(t, table)
	hour := time.Now().UTC().Truncate(time.Hour)
	for h := range 5 {
		a.append(t, table, pt1h(hour.Add(-time.Duration(h)*time.Hour)), fmt.Sprintf("{\"h\":%d}\n", h))
	}
	cfg := a.config()
	cfg.Start = input.Start{At: hour.Add(-90 * time.Minute)}
	r := start(t, cfg, nil)
	r.want(3)
	for _, line := range r.texts("") {
		if line != `{"h":0}` && line != `{"h":1}` && line != `{"h":2}` {
			t.Errorf("got %s", line)
		}
	}
}

func tinyLines(t *testing.T, a *account) {
	a.create(t, table)
	text := strings.Repeat("1\n", 60_000) + strings.Repeat("\r\n", 100_000) + strings.Repeat("2\n", 1000)
	a.append(t, table, pt1h(time.Now()), text)
	r := start(t, a.config(), nil)
	r.want(61_000)
	same(t, r.texts(""), split(text))
}

// samples uploads the real records under their own paths, where they are at hand.
func samples(t *testing.T, a *account) {
	root := filepath.Join("..", "..", "..", "shared", "samples", "derived", "blob")
	if _, err := os.Stat(root); err != nil {
		t.Skip("no samples here; the other tests cover the same with invented records")
	}
	want := make(map[string][]string)
	var tail, tailLane string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		container, name, ok := strings.Cut(filepath.ToSlash(name), "/")
		if !ok { // the truncated one
			container, name = table, strings.TrimSuffix(filepath.ToSlash(container), ".json")+".json"
		}
		a.client.CreateContainer(t.Context(), container, nil)
		a.append(t, container, name, string(text))
		whole, rest := string(text), ""
		if i := bytes.LastIndexByte(text, '\n'); i+1 < len(text) {
			whole, rest = string(text[:i+1]), string(text[i+1:])
			tail, tailLane = rest, container+"/"+name
		}
		want[container+"/"+name] = split(whole)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if tail == "" {
		t.Fatal("no sample has a truncated tail")
	}
	n := 0
	for _, list := range want {
		n += len(list)
	}
	cfg := a.config()
	r := start(t, cfg, nil)
	r.want(n)
	for lane, list := range want {
		same(t, r.texts(lane), list)
	}
	container, name, _ := strings.Cut(tailLane, "/")
	a.append(t, container, name, "the rest of it\"}\r\n")
	r.want(n + 1)
	got := r.texts(tailLane)
	if got[len(got)-1] != tail+`the rest of it"}` {
		t.Errorf("the tail came as %.300q", got[len(got)-1])
	}
}
