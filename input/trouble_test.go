package input_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

func TestTroubles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		tr := input.NewTroubles(logTo(&log))
		f := func(when, want string, do func()) {
			t.Helper()
			log.Reset()
			do()
			got := strings.Join(strings.FieldsFunc(log.String(), func(r rune) bool { return r == '\n' }), "; ")
			if want == "" && got != "" || !strings.Contains(got, want) || strings.Count(got, "level=") > 1 {
				t.Errorf("%s: the log has %q, want %q", when, got, want)
			}
		}
		begin := func(part, kind string) func() {
			return func() { tr.Begin("reading x", part, kind, slog.LevelWarn, "cannot read: "+kind, "part", part) }
		}
		end := func(part string) func() { return func() { tr.End("reading x", part) } }

		f("nothing was wrong", "", end("a"))
		f("a begins", "level=WARN msg=\"cannot read: denied\" part=a", begin("a", "denied"))
		f("a goes on", "", begin("a", "denied"))
		f("b has the same", "", begin("b", "denied"))
		f("b has another", "cannot read: network", begin("b", "network"))
		f("b is as before", "", begin("b", "denied"))
		f("and changes again, soon", "", begin("b", "network"))
		time.Sleep(2 * time.Minute)
		f("b is as before", "", begin("b", "denied"))
		f("and changes again, later", "cannot read: network", begin("b", "network"))
		f("one of two works", "", end("a"))
		f("which is said only once", "", end("a"))
		if !tr.Any() || tr.Kind("reading x", "b") != "network" || tr.Kind("reading x", "a") != "" {
			t.Errorf("any %v, a %q, b %q", tr.Any(), tr.Kind("reading x", "a"), tr.Kind("reading x", "b"))
		}
		f("another subject", "", func() { tr.End("reading y", "b") })
		f("both work", "msg=\"reading x works again\" after=2m0s", end("b"))
		if tr.Any() {
			t.Error("something does not work")
		}
		f("it begins again", "cannot read: denied", begin("a", "denied"))
		f("a is deleted", "", func() { tr.Forget("reading x", "a") })
		f("nothing is wrong", "", end("a"))
		tr.Count("quiet")
		if got, want := tr.Retries(), (map[string]int64{"denied": 6, "network": 3, "quiet": 1}); !maps.Equal(got, want) {
			t.Errorf("retries %v, want %v", got, want)
		}
	})
}

func TestCatch(t *testing.T) {
	broken := errors.New("broken")
	f := func() (err error) {
		defer input.Catch("read x", &err)
		err = broken
		panic("fell over")
	}
	err := f()
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "read x: panic: fell over") || !strings.Contains(err.Error(), "TestCatch") {
		t.Errorf("the error is %v", err)
	}
	var log bytes.Buffer
	func() {
		defer input.CatchAndLog(logTo(&log), "watch x")
		var p *input.Batch
		p.Taken()
	}()
	if got := log.String(); !strings.Contains(got, "watch x: panic: ") || !strings.Contains(got, "TestCatch") || strings.Count(got, "level=ERROR") != 1 {
		t.Errorf("the log has %s", got)
	}
	func() {
		defer input.CatchAndLog(logTo(io.Discard), "nothing")
	}()
}
