package main

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// drained returns what the queue prints, a level and a line each.
func drained(q *logQueue) (lines []string) {
	q.drain(func(level slog.Level, line string) { lines = append(lines, level.String()+" "+line) })
	return lines
}

func TestALogLine(t *testing.T) {
	q := newLogQueue(false)
	log := slog.New(q.handler("[p] "))
	log.With("hub", "h1").WithGroup("g").Warn("open it: nope", "error", errors.New(`say "no"`), "secret", input.NewSecret("hush"),
		"n", 3, "in", 2*time.Second, slog.Group("", "empty", ""), "text", "a\nb")
	log.Debug("not at this level")
	log.Error("two\nlines")
	want := []string{
		`WARN [p] open it: nope hub=h1 g.error="say \"no\"" g.secret=[secret] g.n=3 g.in=2s g.empty="" g.text="a\nb"`,
		`ERROR [p] two | lines`,
	}
	if got := drained(q); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := drained(q); len(got) != 0 {
		t.Errorf("printed twice: %q", got)
	}
}

func TestALongLineIsContinued(t *testing.T) {
	q := newLogQueue(false)
	text := strings.Repeat("äöü", 2000)
	slog.New(q.handler("")).Info(text)
	var whole string
	for _, line := range drained(q) {
		line = strings.TrimPrefix(line, "INFO ")
		if len(line) > maxLine {
			t.Errorf("a line of %d bytes", len(line))
		}
		whole += strings.TrimPrefix(line, "... ")
	}
	if whole != text {
		t.Error("the parts are not the whole")
	}
}

func TestLogLinesThatNobodyTakesAreBounded(t *testing.T) {
	q := newLogQueue(true)
	log := slog.New(q.handler(""))
	for range 3 * maxLogLines {
		log.Debug("x")
	}
	lines := drained(q)
	if len(lines) != maxLogLines+1 || !strings.Contains(lines[maxLogLines], "2000 log lines were dropped") {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
	for range 100 {
		log.Debug(strings.Repeat("x", 100_000))
	}
	if q.bytes > maxLogBytes {
		t.Errorf("%d bytes wait", q.bytes)
	}
}

func TestSecretsAreHiddenWhoeverQuotesThem(t *testing.T) {
	values := map[string]string{"hub.string": "Endpoint=sb://x/;SharedAccessKeyName=listen;SharedAccessKey=bm90LWEta2V5LWF0LWFsbA==", "sas": "https://x/?sv=1&sig=abcdefghijkl%3D"}
	known := []input.Setting{{Key: "hub.string", Kind: input.SecretText}, {Key: "sas", Kind: input.SecretText}, {Key: "group", Kind: input.Text}}
	q := newLogQueue(false)
	q.hide(secrets(func(key string) string { return values[key] }, known))
	log := slog.New(q.handler(""))
	log.Error("server says", "error", errors.New("bad password "+values["hub.string"]))
	log.Error("server says: key bm90LWEta2V5LWF0LWFsbA== is bad", "url", values["sas"], "part", "abcdefghijkl%3D", "who", "listen")
	for _, line := range drained(q) {
		for _, s := range []string{"bm90LWEta2V5LWF0LWFsbA==", "abcdefghijkl"} {
			if strings.Contains(line, s) {
				t.Errorf("%s is shown: %s", s, line)
			}
		}
		if !strings.Contains(line, "[secret]") {
			t.Errorf("hidden without a sign of it: %s", line)
		}
	}
}
