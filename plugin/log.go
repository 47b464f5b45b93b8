package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

const (
	// maxLogLines and maxLogBytes bound what waits for the host's thread, which may be held up by a
	// slow filter.
	maxLogLines = 1000
	maxLogBytes = 1 << 20

	// maxLine: the host's log takes lines up to this (4,088 bytes with time and level,
	// src/flb_log.c); longer ones are continued.
	maxLine = 3800
)

// logQueue keeps log lines until the host's thread comes by: from any other thread they would go
// past the host's log.
type logQueue struct {
	level slog.Level

	mu      sync.Mutex
	lines   []logLine
	bytes   int
	dropped int
	secrets []string
}

type logLine struct {
	level slog.Level
	text  string
}

func newLogQueue(debug bool) *logQueue {
	if debug {
		return &logQueue{level: slog.LevelDebug}
	}
	return &logQueue{level: slog.LevelInfo}
}

// hide has every occurrence of secrets replaced. The code never logs one. This is for the errors of
// libraries and of servers, which may quote their input.
func (q *logQueue) hide(secrets []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range secrets {
		q.secrets = append(q.secrets, spellings(s)...)
	}
}

// spellings are the forms of a text in the words of others: unchanged, or escaped in an address, in
// JSON and in quotes. Our own lines quote text that has spaces or quotes in it, and errors inside
// may be quoted already.
func spellings(text string) []string {
	all := []string{text, url.QueryEscape(text), url.PathEscape(text)}
	for _, s := range all[1:] {
		all = append(all, percent.ReplaceAllStringFunc(s, strings.ToLower))
	}
	if j, err := json.Marshal(text); err == nil {
		all = append(all, string(j[1:len(j)-1]))
	}
	const quotes = 4 // around each other, at most
	for _, s := range all {
		for range quotes {
			s = strconv.Quote(s)
			s = s[1 : len(s)-1]
			all = append(all, s)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

var percent = regexp.MustCompile(`%[0-9A-F]{2}`)

func (q *logQueue) add(level slog.Level, text string) {
	text = mask(text)
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.secrets {
		text = strings.ReplaceAll(text, s, "[secret]")
	}
	if len(q.lines) >= maxLogLines || q.bytes+len(text) > maxLogBytes {
		q.dropped++
		return
	}
	q.lines = append(q.lines, logLine{level, text})
	q.bytes += len(text)
}

// The forms of credentials in texts of Azure, of OAuth and in addresses. They are masked for any
// setting. The name may be a form's (client_secret=), JSON's ("client_secret":"...") or escaped in
// an address (client_secret%3D).
var (
	namedSecret = regexp.MustCompile(`(?i)(\b|%[0-9a-f]{2})(SharedAccessKey|SharedAccessSignature|AccountKey|sig|client_secret|client_assertion|` +
		`access_token|refresh_token|id_token|password)(\\?["']?\s*(?:=|%3D|:)\s*\\?["']?)([^\s;&"'\\<>]+)`)
	userOfURL = regexp.MustCompile(`(://[^/\s:@"']*:)[^/\s"']+@`)
	token     = regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9._-]*`) // JSON, signed (RFC 7515, 3.1)
	bearer    = regexp.MustCompile(`(?i)\b(Bearer|SharedKey [^\s:]+:|Basic)(\s*)[A-Za-z0-9+/=._~-]{12,}`)
)

// mask replaces what looks like a credential.
func mask(text string) string {
	if strings.ContainsAny(text, "=:%") { // as each named one has
		text = namedSecret.ReplaceAllString(text, "$1$2$3[secret]")
		text = userOfURL.ReplaceAllString(text, "$1[secret]@")
	}
	if strings.Contains(text, "eyJ") {
		text = token.ReplaceAllString(text, "[secret]")
	}
	return bearer.ReplaceAllString(text, "$1$2[secret]")
}

// drain prints what waits. Called from the host's thread.
func (q *logQueue) drain(print func(level slog.Level, line string)) {
	q.mu.Lock()
	lines, dropped := q.lines, q.dropped
	q.lines, q.bytes, q.dropped = nil, 0, 0
	q.mu.Unlock()
	for _, l := range lines {
		for text := l.text; ; {
			if len(text) <= maxLine {
				print(l.level, text)
				break
			}
			n := maxLine
			for n > maxLine-utf8.UTFMax && !utf8.RuneStart(text[n]) {
				n--
			}
			print(l.level, text[:n])
			text = "... " + text[n:]
		}
	}
	if dropped > 0 {
		print(slog.LevelWarn, fmt.Sprintf("[input:defender] %d log lines were dropped: Fluent Bit was too busy to take them", dropped))
	}
}

// secrets returns the values of all secrets, and those parts of them that are secret by themselves.
func secrets(get func(key string) string, known []input.Setting) []string {
	s := input.NewSettings(get, known) // of its own: mistakes of a value are noted where it is used
	var texts []string
	for _, d := range known {
		if d.Kind != input.SecretText {
			continue
		}
		text := s.Secret(d.Key).Reveal()
		if text == "" {
			continue
		}
		texts = append(texts, text)
		for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == '&' || r == '?' }) {
			name, value, ok := strings.Cut(part, "=")
			name = strings.ToLower(name)
			if ok && len(value) >= 8 && (strings.HasSuffix(name, "key") || strings.HasSuffix(name, "sig") || strings.HasSuffix(name, "signature")) {
				texts = append(texts, value)
			}
		}
	}
	return texts
}

// handler returns a slog.Handler whose lines begin with prefix: the message, then key=value.
func (q *logQueue) handler(prefix string) slog.Handler { return &logHandler{q: q, prefix: prefix} }

type logHandler struct {
	q      *logQueue
	prefix string
	group  string // with a final dot
	attrs  string // as they stand in the line
}

func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.q.level }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(h.prefix)
	b.WriteString(r.Message)
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, h.group, a)
		return true
	})
	h.q.add(r.Level, strings.ReplaceAll(b.String(), "\n", " | "))
	return nil
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	b.WriteString(h.attrs)
	for _, a := range attrs {
		writeAttr(&b, h.group, a)
	}
	return &logHandler{q: h.q, prefix: h.prefix, group: h.group, attrs: b.String()}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &logHandler{q: h.q, prefix: h.prefix, group: h.group + name + ".", attrs: h.attrs}
}

func writeAttr(b *strings.Builder, group string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, a := range v.Group() {
			writeAttr(b, group, a)
		}
		return
	}
	if a.Equal(slog.Attr{}) {
		return
	}
	text := v.String()
	if v.Kind() == slog.KindTime {
		text = v.Time().UTC().Format(time.RFC3339)
	}
	if text == "" || strings.ContainsAny(text, " \"=\n\r\t") || strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
		text = strconv.Quote(text)
	}
	b.WriteByte(' ')
	b.WriteString(group)
	b.WriteString(a.Key)
	b.WriteByte('=')
	b.WriteString(text)
}
