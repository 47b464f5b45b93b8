package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
	"github.com/valyala/fastjson"
)

// A view prints to a terminal, or to a file without colours.
type view struct {
	w      io.Writer
	colour bool
	width  int
}

func newView(f *os.File) *view {
	v := &view{w: f, width: 110}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return v
	}
	v.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	stty := exec.Command("stty", "size")
	stty.Stdin = f
	if out, err := stty.Output(); err == nil {
		var rows, width int
		if _, err := fmt.Sscan(string(out), &rows, &width); err == nil && width >= 70 {
			v.width = min(width, 160)
		}
	}
	return v
}

const (
	bold  = "1"
	dim   = "2"
	red   = "1;31"
	green = "1;32"
	cyan  = "36"
)

func (v *view) paint(style, text string) string {
	if !v.colour {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

func (v *view) printf(format string, args ...any) { fmt.Fprintf(v.w, format, args...) }

func (v *view) heading(text string) {
	v.printf("\n%s\n", v.paint(bold, "── "+text+" "+strings.Repeat("─", max(0, v.width-utf8.RuneCountInString(text)-4))))
}

// cut shortens text to n runes and shows control characters as blanks.
func cut(text string, n int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	runes := []rune(text)
	return string(runes[:max(0, n-1)]) + "…"
}

// shown is a record that was kept.
type shown struct {
	seen
	table string
	at    string // Timestamp, for the order
}

func parseKept(kept [][]byte, shape shape) []shown {
	all := make([]shown, 0, len(kept))
	for _, text := range kept {
		v, err := fastjson.ParseBytes(text)
		if err != nil {
			continue // it was parsed before
		}
		s := shown{seen: shape.read(v)}
		s.table = s.seen.table()
		s.at = s.get("Timestamp")
		all = append(all, s)
	}
	slices.SortStableFunc(all, func(a, b shown) int { return cmp.Compare(a.at, b.at) })
	return all
}

// mainAlert is the id of the alert with the most evidence, "" where there is none.
func mainAlert(all []shown) (alert string) {
	rows := make(map[string]int)
	for _, s := range all {
		if id := s.get("AlertId"); s.table == "AlertEvidence" && id != "" {
			if rows[id]++; rows[id] > rows[alert] {
				alert = id
			}
		}
	}
	return alert
}

// records shows an alert with its evidence: the alert with most, if none is named. Then come other
// records of its device and user, and the rest: all of it, or one record of each table that was not
// shown yet.
func (v *view) records(kept [][]byte, shape shape, alert string, everything bool) {
	all := parseKept(kept, shape)
	if alert == "" {
		alert = mainAlert(all)
	}
	printed := make(map[*fastjson.Value]bool)
	about := make(map[string]bool) // ids of the device, the user and the mail
	if alert != "" {
		joined := slices.ContainsFunc(all, func(s shown) bool { return s.get("AlertId") == alert && s.joined() })
		if joined {
			v.heading("the alert, and its evidence with the device joined onto it")
		} else {
			v.heading("the alert, and its evidence")
		}
		above := make(map[string]string) // the fields of the alert that were shown already
		for _, s := range all {
			if s.get("AlertId") != alert {
				continue
			}
			v.full(s, above)
			printed[s.value] = true
			for _, name := range []string{"DeviceId", "AccountUpn", "AccountObjectId"} {
				if id := s.get(name); id != "" {
					about[id] = true
				}
			}
			if id := text(s.both(shape.device + "DeviceId")); id != "" {
				about[id] = true
			}
		}
	}
	v.otherAlerts(all, alert, printed)
	isAbout := func(s shown) bool {
		for _, name := range []string{"DeviceId", "AccountUpn", "AccountObjectId", "RecipientEmailAddress"} {
			if about[s.get(name)] {
				return true
			}
		}
		return false
	}
	tables := make(map[string]bool)
	if len(about) > 0 {
		v.heading("the same device and user, in other tables")
		for _, s := range all {
			if !printed[s.value] && isAbout(s) {
				v.line(s)
				printed[s.value] = true
				tables[s.table] = true
			}
		}
	}
	first := true
	perTable := make(map[string]int)
	for _, s := range all {
		if printed[s.value] || !everything && (tables[s.table] || perTable[s.table] >= 2) {
			continue
		}
		if first {
			if everything {
				v.heading("the other records")
			} else {
				v.heading("the first records of other tables")
			}
			first = false
		}
		perTable[s.table]++
		v.line(s)
	}
}

// otherAlerts shows how the devices of other alerts were found, a line for each row.
func (v *view) otherAlerts(all []shown, alert string, printed map[*fastjson.Value]bool) {
	const most = 12
	n := 0
	for _, s := range all {
		device := func(name string) string { return text(s.both(s.shape.device + name)) }
		if s.table != "AlertEvidence" || s.get("AlertId") == alert || device("match") == "" || n == most {
			continue
		}
		if n++; n == 1 {
			v.heading("other alerts, and how their devices were found")
		}
		printed[s.value] = true
		what := device("DeviceName")
		if own := s.get("DeviceId"); own != "" && device("DeviceId") != own {
			what += ", merged"
		}
		what += ", mitigation: " + cmp.Or(device("MitigationStatus"), "none")
		if candidates := device("candidates"); candidates != "" {
			what = "one of " + candidates
		}
		head := fmt.Sprintf("%-30s  %-8s", cut(s.get("Title"), 30), s.get("EntityType"))
		v.printf("%s %-8s %-8s %s\n", v.paint(cyan, head), device("match"), device("status"), cut(what, max(20, v.width-60)))
	}
}

// essentials are the fields that tell most about a record in one line, in this order.
var essentials = []string{
	"unreadable_reason", "ActionType", "Title", "EntityType", "Subject", "Url", "QueryTarget", "RegistryValueName", "RemoteUrl", "RemoteIP",
	"FileName", "ProcessCommandLine", "LogonType", "OSPlatform", "NetworkAdapterType", "Signer", "ObjectName", "Application",
	"OperationName", "AlertDisplayName", "unreadable_raw",
}

func (v *view) line(s shown) {
	clock := "--:--:--"
	if t, err := time.Parse(time.RFC3339Nano, s.at); err == nil {
		clock = t.Format("15:04:05")
	}
	var said []string
	for _, name := range essentials {
		if text := s.get(name); text != "" {
			said = append(said, text)
		}
		if len(said) == 3 {
			break
		}
	}
	who := cmp.Or(s.get("DeviceName"), s.get("AccountUpn"), s.get("RecipientEmailAddress"), s.get("AccountDisplayName"))
	if host, _, ok := strings.Cut(who, "."); ok && s.get("DeviceName") != "" {
		who = host
	} else {
		who, _, _ = strings.Cut(who, "@")
	}
	fields := len(s.lines())
	head := fmt.Sprintf("%s  %-26s", clock, cut(s.table, 26))
	tail := fmt.Sprintf("  %-16s %3d fields", cut(who, 16), fields)
	room := max(20, v.width-utf8.RuneCountInString(head)-utf8.RuneCountInString(tail)-1)
	what := cut(strings.Join(said, " · "), room)
	what += strings.Repeat(" ", max(0, room-utf8.RuneCountInString(what)))
	v.printf("%s %s%s\n", v.paint(cyan, head), what, v.paint(dim, tail))
}

// full shows a record field by field, without the fields that are the same as above. Of objects
// opened from AdditionalFields it shows only the beginning: it is long.
func (v *view) full(s shown, above map[string]string) {
	const opened, openedShown = "AdditionalFields.", 5
	v.printf("\n%s\n", v.paint(cyan, strings.TrimSpace(s.table+"  "+s.get("EntityType"))))
	same, openedHere := 0, 0
	for _, l := range s.lines() {
		column := l.name[strings.LastIndexByte(l.name, '.')+1:]
		if slices.Contains([]string{"date", "table", "EntityType", story.NumberColumn}, column) {
			continue
		}
		if strings.HasPrefix(l.name, opened) {
			if openedHere++; openedHere > openedShown {
				continue
			}
		} else if above[l.name] == l.text {
			same++
			continue
		}
		above[l.name] = l.text
		style := dim
		if strings.HasPrefix(l.name, s.shape.device) {
			style = green
		}
		v.printf("  %s %s\n", v.paint(style, fmt.Sprintf("%-36s", cut(l.name, 36))), cut(l.text, v.width-40))
	}
	var more []string
	if n := openedHere - openedShown; n > 0 {
		more = append(more, fmt.Sprintf("%d more fields from inside AdditionalFields", n))
	}
	if same > 0 {
		more = append(more, fmt.Sprintf("%d fields with the same values as above", same))
	}
	if len(more) > 0 {
		v.printf("  %s\n", v.paint(dim, "… and "+strings.Join(more, ", ")))
	}
}

// summary counts the records that went in and came out. It returns false when something is missing.
func (v *view) summary(t *tally, hostName string, started time.Time) bool {
	r := t.result()
	t.mu.Lock()
	defer t.mu.Unlock()
	v.heading("summary")
	v.printf("  %-34s %10s %10s\n", "table", "in", "out")
	tables := slices.Collect(maps.Keys(t.feed.records))
	for table := range t.records {
		if _, ok := t.feed.records[table]; !ok {
			tables = append(tables, table)
		}
	}
	slices.Sort(tables)
	for _, table := range tables {
		in, out := t.feed.records[table], t.records[table]
		if table == damaged {
			out = r.saved
		}
		line := fmt.Sprintf("  %-34s %10d %10d", cut(table, 34), in, out)
		if out != in && t.feed.records[damaged] == 0 {
			line = v.paint(red, line+"  <<<")
		}
		v.printf("%s\n", line)
	}
	v.printf("  %-34s %10d %10d\n\n", "total", t.feed.total(), t.total)
	megabytes := float64(t.feed.bytes) / 1e6
	v.printf("  host      %s\n", hostName)
	v.printf("  fed       %d messages, %.1f MB\n", len(t.feed.messages), megabytes)
	if t.total > 0 {
		join := ", which joins the consumer group first"
		if t.feed.grows {
			join = ""
		}
		v.printf("  first     %.1f s after the host started%s\n", t.first.Sub(started).Seconds(), join)
	}
	if rest := t.last.Sub(t.first).Seconds(); rest > 0.5 && !t.feed.grows {
		v.printf("  speed     %.1f MB/s until the last, through the host's output as JSON and this count\n", megabytes/rest)
	}
	if len(t.ids) > 0 {
		v.printf("  event_id  %d distinct: equal records have equal ones\n", len(t.ids))
	}
	if n := t.feed.repeats; n > 0 {
		v.printf("  repeats   %d records were delivered again, %d of them dropped\n", n, max(n-r.again, 0))
	}
	ok := r.missing == 0 && r.unexpected == 0 && t.broken == ""
	switch {
	case t.broken != "":
		v.printf("  %s %s\n", v.paint(red, "a record came out that is not JSON:"), cut(t.broken, v.width-40))
	case r.missing > 0:
		v.printf("  %s\n", v.paint(red, fmt.Sprintf("MISSING   %d records did not arrive", r.missing)))
	case r.unexpected > 0:
		v.printf("  %s\n", v.paint(red, fmt.Sprintf("UNEXPECTED %d records of tables that were not fed", r.unexpected)))
	case r.saved > 0:
		v.printf("  %s, and %d events of damaged text (%d messages)\n", v.paint(green, "all records arrived"), r.saved, t.feed.records[damaged])
	case r.again > 0:
		v.printf("  %s, %d of them twice\n", v.paint(green, "all records arrived"), r.again)
	default:
		v.printf("  %s\n", v.paint(green, "all records arrived, each once"))
	}
	return ok
}

// showLog prints the end of the host's log, which has the errors.
func (v *view) showLog(path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	v.heading("end of the log")
	for _, line := range lines[max(0, len(lines)-40):] {
		v.printf("  %s\n", line)
	}
}
