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

// Credentials are masked in any setting that they were pasted into, and in every quote.
func TestCredentialsAreMasked(t *testing.T) {
	const top = "TOPSECRETkey+/0123456789abc="
	q := newLogQueue(false)
	log := slog.New(q.handler("p "))
	said := func() string {
		var b strings.Builder
		q.drain(func(_ slog.Level, line string) { b.WriteString(line + "\n") })
		return b.String()
	}
	f := func(text, rest string) {
		t.Helper()
		for what, say := range map[string]func(){
			"message":   func() { log.Warn(text) },
			"attribute": func() { log.Warn("m", "key", text) },
			"quoted":    func() { log.Warn(fmt.Sprintf("eventhub.brokers %q: is not an address", text)) },
			"error":     func() { log.Warn("m", "error", fmt.Errorf("dial: %w", errors.New(text))) },
			"group":     func() { log.WithGroup("g").With("a", text).Warn("m") },
		} {
			say()
			if got := said(); strings.Contains(got, "TOPSECRET") || strings.Contains(got, "0123456789") || !strings.Contains(got, "[secret]") || !strings.Contains(got, rest) {
				t.Errorf("%s of %q: %s", what, text, got)
			}
		}
	}
	f("Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=listen;SharedAccessKey="+top+";EntityPath=defender", ";EntityPath=defender")
	f("Endpoint=sb://ns.servicebus.windows.net/;sharedaccesskey = "+top, "ns.servicebus.windows.net")
	f("DefaultEndpointsProtocol=https;AccountName=acct;AccountKey="+top+";EndpointSuffix=core.windows.net", "EndpointSuffix")
	f("BlobEndpoint=https://acct.example/;SharedAccessSignature=TOPSECRET", "acct.example")
	f("https://acct.blob.core.windows.net/c?sv=2022-11-02&se=2030-01-01&sig=TOPSECRET%2B0123456789%3D&sp=rl", "sp=rl")
	f("SharedAccessSignature sr=ns&sig=TOPSECRET0123456789&se=1", "se=1")
	f("redirect=https%3A%2F%2Fx%3Fsig%3DTOPSECRET", "redirect=")
	f("grant_type=client_credentials&client_secret=TOPSECRET~0123456789&scope=x", "scope=x")
	f(`{"client_secret": "TOPSECRET","expires":1}`, "expires")
	f(`{"access_token":"TOPSECRET.0123456789.x"}`, "access_token")
	f("https://user:TOPSECRET@acct.blob.core.windows.net/", "acct.blob.core.windows.net")
	f("https://user:TOP:SECRET0123456789@h@proxy.example:3128", "proxy.example:3128")
	f("proxyconnect: http://:TOPSECRET@proxy.example", "proxy.example")
	f("Authorization: Bearer TOPSECRET.0123456789-_", "Authorization")
	f("Authorization: SharedKey acct:TOPSECRET0123456789=", "Authorization")

	for _, harmless := range []string{"sign in: https://login.microsoftonline.com:443/x answered 401", "assigned=4 missing=1", "at 12:30:05 user@example.com",
		"eventhub.connection_string: is not set", "signature: design=3", "SharedAccessKeyName=listen", "set password in azure.client_certificate_password"} {
		log.Warn(harmless)
		if got := said(); got != "p "+harmless+"\n" {
			t.Errorf("%q became %q", harmless, got)
		}
	}
}
