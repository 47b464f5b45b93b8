package examples_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// notCompared are fields of a peer's tests that come from the peer itself, or from its databases of
// places, networks and browsers.
var notCompared = regexp.MustCompile(`^(event\.original|tags|ecs\.version|error\.message|.*\.(geo|as)\..*|user_agent\.(device|name|os).*)$`)

// peersName are names that the peer invented, for columns that ECS has no field for. Our names
// differ, so only the values are compared.
var peersName = regexp.MustCompile(`^(action|microsoft)\.`)

// A difference from the peer, in one field of one record.
type difference struct {
	got, want any
	doc       any             // our event
	there     map[string]bool // the values of our event
	columns   map[string]any  // of the record
}

// A reason for a difference: the field and the tables that may differ, and the condition on both
// values.
type reason struct {
	field, tables, why string
	holds              func(d difference) bool
}

// missing are the differences in fields that mean the same: the peer has a value that we do not
// have.
var missing = []reason{
	{`process(\.parent)?\.pid`, "*", "0 without a name is no process", func(d difference) bool { return d.got == nil && fmt.Sprint(d.want) == "0" }},
	{`url\.port`, "*", "the URL does not say its port; the peer adds that of its scheme", func(d difference) bool {
		return d.got == nil && !strings.Contains(fmt.Sprint(lookUp(d.doc, "url.original")), ":443")
	}},
	{`(url|source)\.(registered_domain|subdomain|top_level_domain)`, "*", "it needs the list of public suffixes, which changes every week", func(d difference) bool {
		return d.got == nil
	}},
	{`email\.attachments`, "CloudAppEvents", "they are in a text inside RawEventData", func(d difference) bool {
		return d.got == nil && d.columns["RawEventData"] != nil
	}},
}

// differences are the fields that mean something else to the peer, or that ECS or Elastic's
// integration write otherwise. Everything that is in neither list must be equal.
var differences = []reason{
	{`message`, "*", "the whole record is event.original in ECS; message is for people", func(d difference) bool { return strings.Contains(d.want.(string), `"properties"`) }},
	{`event\.dataset`, "*", "the name of a data set is its product's", func(d difference) bool { return d.got != nil }},
	{`agent\.(id|version)`, "*", "the agent of ECS is the program that ships; the device is host", func(d difference) bool {
		return d.want == lookUp(d.doc, "host.id") || d.want == lookUp(d.doc, "observer.version")
	}},
	{`service\.(name|type)`, "AlertInfo AlertEvidence", "the service of ECS is the source of the data; what detected is event.provider", func(d difference) bool {
		return d.want == lookUp(d.doc, "event.provider") || d.want == d.text("DetectionSource") && d.kept()
	}},
	{`event\.kind`, "AlertEvidence", "evidence is an alert to Elastic, too, and no threat intelligence", func(d difference) bool { return d.got == "alert" }},
	{`event\.type`, "AlertEvidence", "evidence is no indicator of threat intelligence", func(d difference) bool { return subset("info", d.got) }},
	{`event\.category`, "AlertInfo AlertEvidence", "an alert is of what it names", func(d difference) bool { return subset("threat", d.want) && d.got != nil }},
	{`event\.category`, "CloudAppEvents CloudAuditEvents CloudStorageAggregatedEvents", "what is done in a cloud is no network connection and no intrusion", notThere("network", "intrusion_detection")},
	{`event\.category`, "DeviceEvents", "the call of a function of the system is api", func(d difference) bool {
		return subset("api", d.got) && strings.HasSuffix(d.text("ActionType"), "ApiCall")
	}},
	{`event\.category`, "DeviceImageLoadEvents DeviceRegistryEvents", "Elastic's words: library, registry", func(d difference) bool { return subset("process", d.want) }},
	{`event\.category`, "DeviceNetworkInfo", "Elastic's word: network", func(d difference) bool { return subset("network", d.got) }},
	{`event\.category`, "EmailEvents", "connection is a type, and no category", notThere("connection")},
	{`event\.type`, "EmailEvents", "ECS allows only info for email", func(d difference) bool { return subset("info", d.got) }},
	{`event\.type`, "CloudProcessEvents DeviceFileEvents DeviceImageLoadEvents DeviceNetworkEvents DeviceProcessEvents DeviceRegistryEvents",
		"Elastic says more than info", func(d difference) bool { return subset("info", d.want) && len(asList(d.want)) == 1 && d.got != nil }},
	{`event\.action`, "EmailPostDeliveryEvents MessagePostDeliveryEvents", "the action is the ActionType; what was done stays a column", func(d difference) bool {
		return d.got == strings.ReplaceAll(strings.ToLower(d.text("ActionType")), " ", "-")
	}},
	{`event\.outcome`, "DeviceLogonEvents", "ECS has three words; the reason is event.reason", func(d difference) bool {
		return d.got == "failure" && lookUp(d.doc, "event.reason") == d.want
	}},
	{`event\.outcome`, "IdentityLogonEvents", "ECS has three words, of which only a LogonSuccess or LogonFailed says one of two", func(d difference) bool {
		return d.got == map[string]string{"LogonSuccess": "success", "LogonFailed": "failure"}[d.text("ActionType")] || d.got == "unknown" && !strings.HasPrefix(d.text("ActionType"), "Logon")
	}},
	{`process(\.parent)?\.working_directory`, "*", "the folder of a program is not where it works", func(d difference) bool {
		return d.got == nil || strings.Contains(d.text("AdditionalFields"), d.got.(string))
	}},
	{`process(\.parent)?\.user\.(domain|email)`, "*", "ECS has only the id and the name of a process's user", func(d difference) bool { return d.got == nil && d.kept() }},
	{`process\.args`, "*", "split as Windows does, and not at blanks", func(d difference) bool { return len(d.got.([]any)) > 0 && strings.ContainsAny(d.line(), "\"' ") }},
	{`process\.parent\.code_signature\.status`, "*", "Valid is trusted in ECS", func(d difference) bool { return d.got == "trusted" && d.want == "Valid" }},
	{`process\.parent\.code_signature\.subject_name`, "*", "the type of a signer is no name", func(d difference) bool {
		return d.got == nil && d.want == d.text("InitiatingProcessSignerType") && d.kept()
	}},
	{`process\.executable`, "*", "a folder is joined with the name", func(d difference) bool { return strings.HasPrefix(d.got.(string), d.want.(string)+`\`) }},
	{`file\..*`, "DeviceProcessEvents CloudProcessEvents", "the file of a process is process", func(d difference) bool {
		return d.got == nil && d.kept() && (lookUp(d.doc, "process.executable") != nil || lookUp(d.doc, "process.name") != nil)
	}},
	{`file\.directory`, "DeviceFileEvents DeviceImageLoadEvents", "a directory has no file name", func(d difference) bool {
		return strings.HasPrefix(d.want.(string), d.got.(string)) && lookUp(d.doc, "file.path") == d.want
	}},
	{`network\.protocol`, "DeviceNetworkEvents", "Tcp and Udp are the transport", func(d difference) bool {
		transport, _ := lookUp(d.doc, "network.transport").(string)
		return d.got == nil && transport != "" && strings.HasPrefix(strings.ToLower(d.want.(string)), transport)
	}},
	{`network\.protocol`, "DeviceFileEvents", "Local is no protocol", func(d difference) bool { return d.got == nil && d.want == "Local" && d.kept() }},
	{`registry\.key`, "*", "the hive is apart", func(d difference) bool {
		return strings.HasSuffix(d.want.(string), `\`+d.got.(string)) && lookUp(d.doc, "registry.hive") != nil
	}},
	{`registry\.data\.strings`, "*", "the data is one text", func(d difference) bool { return subset(d.text("RegistryValueData"), d.got) }},
	{`user\.id`, "AlertEvidence", "the SID comes before the object id", func(d difference) bool { return d.got == d.text("AccountSid") }},
	{`user\.(id|name|domain)`, "DeviceInfo", "the first of those who are logged on is not who acts", func(d difference) bool { return d.got == nil && d.text("LoggedOnUsers") != "" }},
	{`device\.id`, "DeviceEvents", "device.id is the host", func(d difference) bool { return d.got == d.text("DeviceId") }},
	{`device\.manufacturer`, "DeviceEvents", "a class of drivers is no manufacturer", func(d difference) bool {
		return d.got == nil && !strings.Contains(d.text("AdditionalFields"), "Manufacturer")
	}},
	{`destination\.(ip|address|port)`, "DeviceLogonEvents", "a logon comes from the remote side", func(d difference) bool {
		return d.got == nil && (lookUp(d.doc, "source.ip") == d.text("RemoteIP"))
	}},
	{`source\.(ip|address)`, "DeviceInfo", "the address of the device is host.ip", func(d difference) bool { return d.got == nil && subset(d.want, lookUp(d.doc, "host.ip")) }},
	{`source\.ip`, "DeviceEvents", "where a session of the process comes from is not where the event does", func(d difference) bool {
		return d.got == nil && d.want == d.text("InitiatingProcessRemoteSessionIP") && subset(d.want, lookUp(d.doc, "related.ip"))
	}},
}

// notThere holds if the peer has a word that is not ours.
func notThere(words ...string) func(d difference) bool {
	return func(d difference) bool {
		for _, word := range words {
			if subset(word, d.want) && !subset(word, d.got) {
				return true
			}
		}
		return false
	}
}

// text returns a column of the record as text.
func (d difference) text(column string) string {
	if d.columns[column] == nil {
		return ""
	}
	if text, ok := d.columns[column].(string); ok {
		return text
	}
	text, _ := json.Marshal(d.columns[column])
	return string(text)
}

// kept reports whether the peer's value is in our event, below another name.
func (d difference) kept() bool {
	all := true
	eachLeaf(d.want, func(text string) { all = all && keptAnyCase(text, d.there) })
	return all
}

// line returns the command line of the event's process.
func (d difference) line() string { return fmt.Sprint(lookUp(d.doc, "process.command_line")) }

// explained returns the first reason of a list that two values differ for, nil if there is none.
func explained(reasons []reason, table, field string, d difference) *reason {
	for i, r := range reasons {
		if r.tables != "*" && !slices.Contains(strings.Fields(r.tables), table) {
			continue
		}
		if regexp.MustCompile("^("+r.field+")$").MatchString(field) && r.holds(d) {
			return &reasons[i]
		}
	}
	return nil
}

// Another product's tests of the same records: at least 93 % of the fields that mean the same have
// the same values, and every difference has its reason.
func TestECSAgainstPeer(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("DEFENDER_SAMPLES")
	if dir == "" {
		dir = "../../shared/samples"
	}
	files, err := filepath.Glob(filepath.Join(dir, "sekoia/tests/*.json"))
	if err != nil || len(files) < 70 && os.Getenv("DEFENDER_SAMPLES") != "" {
		t.Fatal(len(files), "tests of the peer", err)
	}
	if len(files) == 0 {
		t.Skip("no samples of the peer here: the rules are tested without them")
	}
	var equal, named, otherwise, absent int // named: equal below a name that the peer invented
	used := make(map[*reason]int)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var test struct {
			Input struct {
				Message string `json:"message"`
			} `json:"input"`
			Expected map[string]any `json:"expected"`
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&test); err != nil {
			t.Fatal(err)
		}
		var docs []map[string]any
		eachEvent(t, "ecs", func(at time.Time, doc []byte) {
			docs = append(docs, decode(t, doc))
			docs[len(docs)-1]["@timestamp"] = at.UTC().Format(time.RFC3339Nano)
		}, []byte(test.Input.Message))
		if len(docs) != 1 {
			t.Fatalf("%s: %d records", file, len(docs))
		}
		doc, record := docs[0], decode(t, []byte(test.Input.Message))
		table := strings.TrimPrefix(fmt.Sprint(record["category"]), "AdvancedHunting-")
		columns, _ := record["properties"].(map[string]any)
		there := make(map[string]bool)
		eachLeaf(doc, func(text string) { there[strings.ToLower(millis(text))] = true })
		eachField("", test.Expected, func(name string, want any) {
			if notCompared.MatchString(name) {
				return
			}
			got := lookUp(doc, name)
			d := difference{got, want, doc, there, columns}
			if peersName.MatchString(name) {
				if !d.kept() {
					t.Errorf("%s: %s of the peer has %.200v, which is nowhere in the event", filepath.Base(file), name, want)
				}
				named++
				return
			}
			if subset(want, got) {
				equal++
				return
			}
			if r := explained(differences, table, name, d); r != nil {
				used[r]++
				otherwise++
				return
			}
			if r := explained(missing, table, name, d); r != nil {
				used[r]++
				absent++
				return
			}
			t.Errorf("%s: %s is %.200v, the peer has %.200v", filepath.Base(file), name, got, want)
		})
	}
	for _, list := range []struct {
		what    string
		reasons []reason
	}{{"missing", missing}, {"otherwise", differences}} {
		for i := range list.reasons {
			r := &list.reasons[i]
			if used[r] == 0 {
				t.Errorf("nothing needs the reason %q", r.why)
			}
			t.Logf("%3d %s: %s: %s", used[r], list.what, r.field, r.why)
		}
	}
	all, same := equal+absent+otherwise, equal+absent
	t.Logf("of all %d fields, %d are equal: %.1f %%", all+named, equal+named, 100*share(equal+named, all+named))
	t.Logf("%d have a reason to be otherwise; of the other %d, which mean the same, %d are equal: %.1f %%", otherwise, same+named, equal+named, 100*share(equal+named, same+named))
	t.Logf("of those %d have a name in ECS, and %d of them are equal: %.1f %%", same, equal, 100*share(equal, same))
	if share(equal, same) < 0.93 {
		t.Errorf("%.1f %% of the fields of ECS that mean the same are equal", 100*share(equal, same))
	}
}

func share(part, all int) float64 { return float64(part) / float64(all) }

// keptAnyCase is kept, letter case aside and with times to the millisecond.
func keptAnyCase(text string, there map[string]bool) bool {
	return kept(text, there) || kept(strings.ToLower(millis(text)), there) || keptLower(text, there)
}

func keptLower(text string, there map[string]bool) bool {
	var inner any
	if json.Unmarshal([]byte(text), &inner) != nil {
		return false
	}
	all := true
	eachLeaf(inner, func(leaf string) { all = all && (kept(leaf, there) || there[strings.ToLower(millis(leaf))]) })
	return all
}

func eachField(name string, v any, do func(name string, v any)) {
	object, ok := v.(map[string]any)
	if !ok {
		do(name, v)
		return
	}
	for key, inner := range object {
		eachField(strings.TrimPrefix(name+"."+key, "."), inner, do)
	}
}

func lookUp(doc any, name string) any {
	for _, part := range strings.Split(name, ".") {
		object, _ := doc.(map[string]any)
		doc = object[part]
	}
	return doc
}

var fraction = regexp.MustCompile(`^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z?$`)

// millis cuts a time to milliseconds.
func millis(text string) string {
	m := fraction.FindStringSubmatch(text)
	if m == nil {
		return text
	}
	if m[2] == "" {
		m[2] = "."
	}
	return m[1] + (m[2] + "000")[:4]
}

// subset reports whether everything wanted is in got: lists as sets, times to the millisecond,
// addresses by value, letter case aside.
func subset(want, got any) bool {
	var have []string
	for _, v := range asList(got) {
		have = append(have, asCompared(v))
	}
	for _, v := range asList(want) {
		if text := asCompared(v); text != "" && !slices.Contains(have, text) {
			return false
		}
	}
	return true
}

// asCompared is the text that values are compared by.
func asCompared(v any) string {
	text := strings.ToLower(millis(fmt.Sprint(v)))
	if ip, err := netip.ParseAddr(text); err == nil {
		return ip.String()
	}
	if mac, err := net.ParseMAC(text); err == nil {
		return mac.String()
	}
	return text
}
