package input

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Setting declares one key of the [INPUT] section. It is the only source for a key. The table in
// examples/settings.md, the effective configuration in the log, and the check for misspelt keys
// come from it.
type Setting struct {
	Key     string
	Kind    Kind
	Default string
	Doc     string   // one sentence
	Choices []string // of a Choice
}

// Kind is how the text of a setting is read.
type Kind int

// The kinds. A SecretText may also be given as the path of a file that holds it, under its key with
// "_file".
const (
	Text       Kind = iota
	SecretText      // never printed
	Switch          // on, off
	Bytes           // 64M; K, M, G are powers of 1024
	Duration        // 30s, 5m, 48h; a plain number is seconds
	Number          // a whole number
	List            // separated by commas or blanks
	Choice          // one of Choices
	StartTime       // latest, earliest or an RFC 3339 time
)

func (k Kind) String() string {
	return [...]string{"text", "secret", "on/off", "size", "duration", "number", "list", "choice", "start"}[k]
}

// Secret is text that cannot be printed by accident: every way of formatting it shows "[secret]".
type Secret struct{ text string }

// NewSecret makes a secret of text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text, for the one place that must send it.
func (s Secret) Reveal() string { return s.text }

// IsSet tells whether there is one.
func (s Secret) IsSet() bool { return s.text != "" }

// String hides the text.
func (s Secret) String() string {
	if s.text == "" {
		return ""
	}
	return "[secret]"
}

// Format hides the text from every verb, %#v and %x too.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// MarshalText hides the text from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue hides the text from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Start is where reading begins when no position is known: the zero value is the beginning.
type Start struct {
	Latest bool
	At     time.Time // zero for the beginning, unless Latest
}

// Settings reads the keys of one section. Reading never fails: a mistake is noted, the default is
// returned, and Err names all mistakes at once.
type Settings struct {
	get   func(key string) string // "" when the key is not set
	known []Setting
	index map[string]int
	read  map[string]bool // keys that something has read
	errs  []error

	warnings []string
}

// NewSettings returns the settings that get answers for, checked against the declarations.
func NewSettings(get func(key string) string, known []Setting) *Settings {
	s := &Settings{get: get, known: known, index: make(map[string]int, len(known)), read: make(map[string]bool)}
	for i := range known {
		if _, twice := s.index[known[i].Key]; twice {
			panic("BUG: setting declared twice: " + known[i].Key)
		}
		s.index[known[i].Key] = i
	}
	return s
}

func (s *Settings) declared(key string, kind Kind) Setting {
	i, ok := s.index[key]
	if !ok || s.known[i].Kind != kind {
		panic(fmt.Sprintf("BUG: setting %s is not declared as %v", key, kind))
	}
	return s.known[i]
}

// IsSet tells whether the user gave key a value, directly or, for a secret, by file.
func (s *Settings) IsSet(key string) bool {
	i, ok := s.index[key]
	return strings.TrimSpace(s.get(key)) != "" || ok && s.known[i].Kind == SecretText && strings.TrimSpace(s.get(key+"_file")) != ""
}

// IsBlank tells whether key was given a value that says nothing. Fluent Bit itself drops an empty
// one, so only blanks come from there.
func (s *Settings) IsBlank(key string) bool {
	return s.get(key) != "" && strings.TrimSpace(s.get(key)) == ""
}

// Reject notes a mistake in the value of key: the problem and the remedy. The value of a secret is
// not shown.
func (s *Settings) Reject(key, problem string) {
	shown := ""
	if i, ok := s.index[key]; !ok || s.known[i].Kind != SecretText {
		if v := s.get(key); v != "" {
			shown = fmt.Sprintf(" %q", v)
		}
	}
	s.note(fmt.Errorf("%s%s: %s", key, shown, problem))
}

// note keeps a mistake, unless it is known already: a key may be read in two places.
func (s *Settings) note(err error) {
	for _, e := range s.errs {
		if e.Error() == err.Error() {
			return
		}
	}
	s.errs = append(s.errs, err)
}

// FindUnused looks at every key that the user set and that nothing has read. A wrong value is a
// mistake there, too. A right one has no effect, which is a warning. why tells for a key what would
// have to be configured, or "". Call it after everything has been read.
func (s *Settings) FindUnused(why func(key string) string) {
	for _, d := range s.known {
		if s.read[d.Key] || !s.IsSet(d.Key) {
			continue
		}
		before := len(s.errs)
		switch d.Kind {
		case SecretText:
			s.Secret(d.Key)
		case Switch:
			s.Switch(d.Key)
		case Bytes:
			s.Bytes(d.Key)
		case Duration:
			s.Duration(d.Key)
		case Number:
			s.Number(d.Key, math.MinInt, math.MaxInt)
		case Choice:
			s.Choice(d.Key)
		case StartTime:
			s.Start(d.Key)
		case Text, List:
			s.read[d.Key] = true // any text is right
		}
		if len(s.errs) == before {
			reason := why(d.Key)
			if reason == "" {
				reason = "nothing that is configured uses it"
			}
			s.warnings = append(s.warnings, d.Key+" has no effect: "+reason)
		}
	}
}

// Warn notes a warning for key.
func (s *Settings) Warn(key, text string) { s.warnings = append(s.warnings, key+": "+text) }

// Useless notes a warning for key if the user set it: it was read, and reason says why it has no
// effect all the same.
func (s *Settings) Useless(key, reason string) {
	s.declared(key, s.known[s.index[key]].Kind)
	if s.IsSet(key) {
		s.warnings = append(s.warnings, key+" has no effect: "+reason)
	}
}

// Err returns every mistake noted so far, or nil. Call it after everything has been read.
func (s *Settings) Err() error { return errors.Join(s.errs...) }

func (s *Settings) text(key string, kind Kind) string {
	d := s.declared(key, kind)
	s.read[key] = true
	if v := strings.TrimSpace(s.get(key)); v != "" {
		return s.unquoted(key, v)
	}
	return d.Default
}

// unquoted drops the quotes around a value, after noting them as a mistake. Fluent Bit keeps those
// of a classic configuration, and Docker those of a file of environment variables.
func (s *Settings) unquoted(key, v string) string {
	if !isQuoted(v) {
		return v
	}
	s.Reject(key, inQuotes)
	return strings.TrimSpace(v[1 : len(v)-1])
}

const inQuotes = "is in quotes; remove them"

func isQuoted(v string) bool {
	return len(v) > 1 && (v[0] == '"' || v[0] == '\'') && v[len(v)-1] == v[0]
}

// Text returns the value of a Text.
func (s *Settings) Text(key string) string { return s.text(key, Text) }

// leastSecret is the least length of a secret. A shorter one is guessed at once, and to mask it
// would garble the log.
const leastSecret = 6

// Secret returns the value of a SecretText, from key or from the file that key_file names. It drops
// a file's byte-order mark, and blanks and newlines at both ends.
func (s *Settings) Secret(key string) Secret {
	s.declared(key, SecretText)
	s.read[key] = true
	v, file := strings.TrimSpace(s.get(key)), strings.TrimSpace(s.get(key+"_file"))
	if isQuoted(file) {
		s.note(errors.New(key + "_file: " + inQuotes)) // its value may be the secret itself
		file = strings.TrimSpace(file[1 : len(file)-1])
	}
	switch {
	case v != "" && file != "":
		s.Reject(key, "is set twice: remove it or "+key+"_file")
	case file != "":
		v = s.secretFile(key+"_file", file)
	case strings.HasPrefix(v, "${") && strings.HasSuffix(v, "}"):
		s.Reject(key, "looks like an environment variable that Fluent Bit has not replaced; is it set?")
	case strings.Contains(v, "="): // a connection string or signature; a password may have quotes
		v = s.unquoted(key, v)
	}
	if v != "" && len(v) < leastSecret {
		s.Reject(key, fmt.Sprintf("is shorter than %d characters, which is no real secret; check what it is set to", leastSecret))
		return Secret{}
	}
	return Secret{v}
}

// secretFile reads the file that key names. After a mistake it returns "". The content of a file is
// never shown.
func (s *Settings) secretFile(key, file string) string {
	reject := func(format string, args ...any) string {
		s.note(fmt.Errorf(key+format, args...))
		return ""
	}
	for _, mark := range []string{"SharedAccessKey=", "AccountKey=", "SharedAccessSignature=", "sig=", "Endpoint=sb:"} {
		if strings.Contains(file, mark) {
			return reject(": holds the secret itself; set %s to it, or write it into a file and give its path here", strings.TrimSuffix(key, "_file"))
		}
	}
	b, err := ReadFile(file)
	if pathErr := new(fs.PathError); errors.As(err, &pathErr) && (!isPath(file) || strings.HasSuffix(file, "=")) {
		// A bare secret looks like a name of a file.
		return reject(": no file has this name, which is not shown: it may be the secret itself (%w); give the whole path of a file, or set %s to the secret",
			pathErr.Err, strings.TrimSuffix(key, "_file"))
	}
	if err != nil {
		return reject(" %q: %w; give the path of a file that Fluent Bit's user can read", file, err)
	}
	if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o002 != 0 {
		s.warnings = append(s.warnings, fmt.Sprintf("%s %q can be written by every user of this machine; take that right away (chmod o-w)", key, file))
	}
	if bytes.HasPrefix(b, []byte{0xff, 0xfe}) || bytes.HasPrefix(b, []byte{0xfe, 0xff}) || bytes.IndexByte(b, 0) >= 0 {
		return reject(" %q: is text in UTF-16, or no text; save it as UTF-8", file)
	}
	v := strings.TrimSpace(string(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))))
	if v == "" {
		return reject(" %q: the file is empty; write the secret into it", file)
	}
	if isQuoted(v) && strings.Contains(v, "=") {
		return reject(" %q: the secret in it %s", file, inQuotes)
	}
	return v
}

// isPath tells whether v says itself that it is the path of a file.
func isPath(v string) bool {
	return strings.HasPrefix(v, "/") || strings.HasPrefix(v, "./") || strings.HasPrefix(v, "../")
}

// Warnings returns mistakes that are worth a line in the log and do not end the start. Call it
// after everything has been read.
func (s *Settings) Warnings() []string {
	return slices.Compact(slices.Sorted(slices.Values(s.warnings)))
}

// Switch returns the value of a Switch.
func (s *Settings) Switch(key string) bool {
	on, ok := parseSwitch(s.text(key, Switch))
	if !ok {
		s.Reject(key, "is neither on nor off")
		on, _ = parseSwitch(s.declared(key, Switch).Default)
	}
	return on
}

func parseSwitch(v string) (on, ok bool) {
	switch strings.ToLower(v) {
	case "on", "true", "yes", "1":
		return true, true
	case "off", "false", "no", "0", "":
		return false, true
	}
	return false, false
}

// Bytes returns the value of a Bytes.
func (s *Settings) Bytes(key string) int64 {
	text := s.text(key, Bytes)
	if text == "" {
		return 0 // it has no default either
	}
	n, ok := parseBytes(text)
	if !ok {
		s.Reject(key, "is not a size; write a whole number with K, M or G, such as 256M")
		n, _ = parseBytes(s.declared(key, Bytes).Default)
	}
	return n
}

func parseBytes(v string) (int64, bool) {
	v = strings.TrimSuffix(strings.ToUpper(v), "B")
	shift := 0
	if v != "" {
		if i := strings.IndexByte("KMG", v[len(v)-1]); i >= 0 {
			v, shift = v[:len(v)-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || n > (1<<62)>>shift {
		return 0, false
	}
	return n << shift, true
}

// Duration returns the value of a Duration.
func (s *Settings) Duration(key string) time.Duration {
	d, ok := parseDuration(s.text(key, Duration))
	if !ok {
		s.Reject(key, "is not a duration; write a number with s, m or h, such as 60s")
		d, _ = parseDuration(s.declared(key, Duration).Default)
	}
	return d
}

func parseDuration(v string) (time.Duration, bool) {
	if n, err := strconv.ParseInt(v, 10, 32); err == nil {
		return time.Duration(n) * time.Second, n >= 0
	}
	d, err := time.ParseDuration(v)
	return d, err == nil && d >= 0
}

// Number returns the value of a Number, which must be within least and most.
func (s *Settings) Number(key string, least, most int) int {
	n, err := strconv.Atoi(s.text(key, Number))
	if err != nil || n < least || n > most {
		s.Reject(key, fmt.Sprintf("is not a whole number from %d to %d", least, most))
		n, _ = strconv.Atoi(s.declared(key, Number).Default)
	}
	return n
}

// List returns the items of a List, without empty ones.
func (s *Settings) List(key string) []string {
	items := strings.FieldsFunc(s.text(key, List), func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' })
	for i, item := range items {
		if items[i] = strings.Trim(item, `"'`); items[i] != item {
			s.Reject(key, inQuotes)
		}
	}
	return slices.DeleteFunc(items, func(item string) bool { return item == "" })
}

// Choice returns the value of a Choice, in the spelling of its declaration.
func (s *Settings) Choice(key string) string {
	d := s.declared(key, Choice)
	v := s.text(key, Choice)
	for _, c := range d.Choices {
		if strings.EqualFold(v, c) {
			return c
		}
	}
	problem := "is none of " + strings.Join(d.Choices, ", ")
	if near := Nearest(v, d.Choices); near != "" {
		problem += "; did you mean " + near + "?"
	}
	s.Reject(key, problem)
	return d.Default
}

// Start returns the value of a StartTime.
func (s *Settings) Start(key string) Start {
	v := s.text(key, StartTime)
	switch strings.ToLower(v) {
	case "latest":
		return Start{Latest: true}
	case "earliest":
		return Start{}
	}
	at, err := time.Parse(time.RFC3339, v)
	if err != nil {
		problem := "is none of latest, earliest and an RFC 3339 time such as 2026-01-31T09:00:00Z"
		if near := Nearest(v, []string{"latest", "earliest"}); near != "" {
			problem += "; did you mean " + near + "?"
		}
		s.Reject(key, problem)
	} else if at.After(time.Now()) {
		s.Warn(key, v+" is in the future; check the year")
	}
	return Start{At: at}
}

// Nearest returns the one of words that v differs from by a slip or two, or "".
func Nearest(v string, words []string) string {
	best, least := "", 3
	for _, w := range words {
		if d := distance(strings.ToLower(v), strings.ToLower(w)); d < least && d < len(w)/2+1 {
			best, least = w, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, change or swap with their neighbour to make b of
// a.
func distance(a, b string) int {
	var before, above []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row = above, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			d := above[j-1]
			if a[i-1] != b[j-1] {
				d++
			}
			d = min(d, above[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, before[j-2]+1)
			}
			row[j] = d
		}
	}
	return row[len(b)]
}

// FindMisspelt notes every key of the user that is one slip away from a key that exists. The host
// cannot list the keys of a section, so all the slips are asked for.
func (s *Settings) FindMisspelt() {
	asked := make(map[string]bool)
	try := func(k, meant string) {
		if asked[k] {
			return
		}
		asked[k] = true
		if s.get(k) != "" {
			s.note(fmt.Errorf("%s: there is no such setting; did you mean %s?", k, meant))
		}
	}
	keys := make([]string, 0, 2*len(s.known))
	for _, d := range s.known {
		keys = append(keys, d.Key)
		if d.Kind == SecretText {
			keys = append(keys, d.Key+"_file")
		}
	}
	for _, k := range keys {
		asked[k] = true
	}
	const letters = "abcdefghijklmnopqrstuvwxyz_.-"
	for _, k := range keys {
		for _, word := range []string{strings.ReplaceAll(k, "_", ""), strings.ReplaceAll(k, ".", "_"), strings.ReplaceAll(k, "_", "."), strings.ReplaceAll(k, "_", "-"), k + "s"} {
			try(word, k)
		}
		if _, rest, ok := strings.Cut(k, "."); ok {
			try(rest, k)
		}
		for i := range len(k) + 1 {
			if i < len(k) {
				try(k[:i]+k[i+1:], k)
			}
			if i+1 < len(k) {
				try(k[:i]+k[i+1:i+2]+k[i:i+1]+k[i+2:], k)
			}
			for _, c := range letters {
				try(k[:i]+string(c)+k[i:], k)
				if i < len(k) {
					try(k[:i]+string(c)+k[i+1:], k)
				}
			}
		}
	}
}

// Effective lists every setting with the value that counts, for the log. Secrets are hidden.
func (s *Settings) Effective() []slog.Attr {
	attrs := make([]slog.Attr, 0, len(s.known))
	for _, d := range s.known {
		v := strings.TrimSpace(s.get(d.Key))
		switch {
		case d.Kind == SecretText && s.IsSet(d.Key):
			v = "[secret]"
		case v == "":
			v = d.Default
		}
		if v != "" {
			attrs = append(attrs, slog.String(d.Key, v))
		}
	}
	return attrs
}
