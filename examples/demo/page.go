package main

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"html/template"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"
	"github.com/valyala/fastjson"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

//go:embed page.html
var pageHTML string

var pageTemplate = template.Must(template.New("page").Parse(pageHTML))

// A page is the content of demo.html: one file, without network or scripts.
type page struct {
	Host           string
	Records        int
	Megabytes      string
	Missing        int
	Again          int
	Unexpected     int
	Unreadable     int
	Format         string // of this run
	Tables         []pageTable
	Title          string
	Severity       string
	Device         string
	Rows           []pageRow
	Formats        []string
	OutOfThePlugin int // rows that came out of the plugin in this run as the page shows them
}

type pageTable struct {
	Name    string
	In, Out int
	Share   int // of the largest table, in percent
}

// A pageRow is a record of the alert: as it came, and in each format.
type pageRow struct {
	Name   string
	Open   bool
	Wire   pageCell
	Events []pageCell
}

type pageCell struct {
	Title  string
	Bytes  int
	Joined int // fields that are of the device
	Fields []pageField
	Same   bool // the plugin handed over the same
}

type pageField struct {
	Name, Text string
	Joined     bool
}

// longestShown is how much of a value the page shows.
const longestShown = 600

// writePage writes the alert's events into a file. The records go through each format once
// more, in this process: the plugin has written one only. Where that is the format, the page says
// whether both are the same.
func writePage(path string, f *feed, t *tally, alert, hostName, format string) error {
	p := page{Host: hostName, Records: t.total, Megabytes: fmt.Sprintf("%.1f", float64(f.bytes)/1e6), Format: format,
		Unreadable: t.records[unreadable], Formats: transform.Formats()}
	r := t.result()
	p.Missing, p.Again, p.Unexpected = r.missing, r.again, r.unexpected
	p.Tables = t.tables()

	wire, before := alertRows(f, alert)
	memory := device.New(device.Config{Tables: []string{"AlertEvidence"}, CacheBytes: 32 << 20, TTL: 48 * time.Hour, Fields: deviceFields,
		Portal: "https://security.microsoft.com"})
	learner := transform.New(transform.Config{Devices: memory})
	learner.Append(context.Background(), before, func(string, []byte) {})
	var events [][]seen // by format, by record
	for _, name := range p.Formats {
		tr := transform.New(transform.Config{Format: name, EventID: true, Devices: memory, SplunkFillDevice: true})
		var all []seen
		for _, record := range wire {
			var out *fastjson.Value
			var err error
			tr.Append(context.Background(), []transform.Payload{{Body: record}}, func(_ string, event []byte) { out, err = eventJSON(event) })
			if out == nil || err != nil {
				return fmt.Errorf("write the page: a record of the alert becomes no event in the format %s: %w", name, err)
			}
			all = append(all, shapeOf(name).read(out))
		}
		events = append(events, all)
	}
	flat := events[slices.Index(p.Formats, "flat")]
	came := make(map[string][]line) // by event_id, the events of the plugin
	for _, text := range t.kept {
		if v, err := fastjson.ParseBytes(text); err == nil {
			s := t.shape.read(v)
			came[s.id()] = s.lines()
		}
	}
	for i, record := range wire {
		v, err := fastjson.ParseBytes(record)
		if err != nil {
			return fmt.Errorf("write the page: %w", err)
		}
		row := pageRow{Name: strings.TrimSpace(flat[i].table() + " " + flat[i].get("EntityType"))}
		row.Wire = pageCell{Title: "as it came", Bytes: len(record)}
		asItCame := appendLines(nil, "", v)
		for _, l := range asItCame {
			row.Wire.Fields = append(row.Wire.Fields, pageField{Name: l.name, Text: short(l.text)})
		}
		known := joinedValues(flat[i], asItCame)
		for k, name := range p.Formats {
			c := pageCell{Title: name, Bytes: len(events[k][i].value.MarshalTo(nil))}
			for _, l := range events[k][i].lines() {
				field := pageField{Name: l.name, Text: short(l.text), Joined: joined(l, shapeOf(name), known)}
				if field.Joined {
					c.Joined++
				}
				c.Fields = append(c.Fields, field)
			}
			if name == format && sameLines(events[k][i].lines(), came[events[k][i].id()]) {
				c.Same = true
				p.OutOfThePlugin++
			}
			row.Events = append(row.Events, c)
		}
		// The row that says most: a process, whose device has to be found.
		row.Open = flat[i].get("EntityType") == "Process" && !slices.ContainsFunc(p.Rows, func(r pageRow) bool { return r.Open })
		p.Rows = append(p.Rows, row)
		if title := flat[i].get("Title"); title != "" {
			p.Title, p.Severity = title, flat[i].get("Severity")
		}
		if name := flat[i].get("DeviceInfo.DeviceName"); name != "" {
			p.Device = name
		}
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

// deviceFields are the columns of a device that the plugin adds by default (plugin/device.go). A
// test compares the page with the events that the plugin handed over.
var deviceFields = strings.Split("DeviceName,OSPlatform,OSFamily,OSVersion,OSVersionInfo,OSBuild,OSArchitecture,DeviceCategory,DeviceType,Model,"+
	"Vendor,MachineGroup,JoinType,AadDeviceId,PublicIP,LastIPAddress,LoggedOnUsers,OnboardingStatus,SensorHealthState,ExposureLevel,RiskScore,"+
	"AssetValue,IsInternetFacing,RegistryDeviceTag,DeviceManualTags,DeviceDynamicTags,AzureResourceId,Timestamp,MitigationStatus,IsExcluded,"+
	"IPAddresses,MacAddresses", ",")

// alertRows are the records of an alert as they came, and the messages up to the last of them.
func alertRows(f *feed, alert string) (rows [][]byte, before []transform.Payload) {
	seen := make(map[string]bool)
	for i, message := range f.messages {
		if !bytes.Contains(message, []byte(alert)) {
			continue
		}
		v, err := fastjson.ParseBytes(message)
		if err != nil {
			continue
		}
		records := v.GetArray("records")
		if v.Get("records") == nil {
			records = []*fastjson.Value{v}
		}
		for _, r := range records {
			if text := r.MarshalTo(nil); string(r.GetStringBytes("properties", "AlertId")) == alert && !seen[string(text)] {
				seen[string(text)] = true
				rows = append(rows, text)
			}
		}
		for _, m := range f.messages[len(before) : i+1] {
			before = append(before, transform.Payload{Body: m})
		}
	}
	return rows, before
}

// eventJSON is the record of an event, [time, map] in msgpack, as JSON.
func eventJSON(event []byte) (*fastjson.Value, error) {
	var text bytes.Buffer
	if _, err := msgp.UnmarshalAsJSON(&text, event); err != nil {
		return nil, err
	}
	v, err := fastjson.ParseBytes(text.Bytes())
	if err != nil {
		return nil, err
	}
	return v.Get("1"), nil
}

// joinedValues are the values of the device that no column of the record has as it came.
func joinedValues(flat seen, wire []line) map[string]bool {
	known := make(map[string]bool)
	for _, l := range flat.lines() {
		if strings.HasPrefix(l.name, shapes["flat"].device) && len(l.text) > 3 && !slices.ContainsFunc(wire, func(w line) bool { return w.text == l.text }) {
			known[l.text] = true
		}
	}
	return known
}

// shapeOf is the shape of a format. One that the demo cannot count by yet has no fields of the
// device, but may have its values.
func shapeOf(format string) shape {
	if s, ok := shapes[format]; ok {
		return s
	}
	return shape{device: "\x00", column: []string{"%s"}}
}

// joined tells whether a field of a format was joined: it is among those of the device, or holds a
// value of the device and is none of those that were inside AdditionalFields.
func joined(l line, shape shape, known map[string]bool) bool {
	return strings.HasPrefix(l.name, shape.device) || known[l.text] && !strings.Contains(l.name, "dditional")
}

// sameLines compares two records without the fields that a host adds, such as Fluent Bit's date.
func sameLines(a, b []line) bool {
	fields := func(lines []line) map[string]string {
		m := make(map[string]string, len(lines))
		for _, l := range lines {
			if l.name != "date" {
				m[l.name] = l.text
			}
		}
		return m
	}
	x, y := fields(a), fields(b)
	if len(x) == 0 || len(x) != len(y) {
		return false
	}
	for name, text := range x {
		if y[name] != text {
			return false
		}
	}
	return true
}

// short is text, and how much of it is left out.
func short(text string) string {
	n := utf8.RuneCountInString(text)
	if n <= longestShown {
		return text
	}
	return fmt.Sprintf("%s ... and %d more characters", string([]rune(text)[:longestShown]), n-longestShown)
}

// tables are the counts of all tables, in and out.
func (t *tally) tables() (list []pageTable) {
	t.mu.Lock()
	defer t.mu.Unlock()
	names := make(map[string]bool)
	largest := 1
	for _, counts := range []map[string]int{t.feed.records, t.records} {
		for table, n := range counts {
			names[table] = true
			largest = max(largest, n)
		}
	}
	for table := range names {
		n := t.records[table]
		list = append(list, pageTable{Name: table, In: t.feed.records[table], Out: n, Share: max(1, 100*n/largest)})
	}
	slices.SortFunc(list, func(a, b pageTable) int { return strings.Compare(a.Name, b.Name) })
	return list
}
