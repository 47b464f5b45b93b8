package examples_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// otherMeaning are fields of a peer's tests that mean something else there than in ECS as Elastic
// has it: they are not compared.
var otherMeaning = regexp.MustCompile(`^(@timestamp|message|event\.(original|dataset)|tags|ecs\.version|error\.message|agent\..*|service\..*|` +
	`.*\.(geo|as)\..*|.*(registered_domain|subdomain|top_level_domain)|user_agent\.(device|name|os).*|observer\..*)$`)

// A difference from the peer, in one field of one record.
type difference struct {
	got, want any
	doc       any            // our event
	columns   map[string]any // of the record
}

// differences are all that may differ: in which field, of which tables, why, and what must then
// hold. Everything else must be equal.
var differences = []struct {
	field, tables, why string
	holds              func(d difference) bool
}{
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
	{`process(\.parent)?\.user\.(domain|email)`, "*", "ECS has only the id and the name of a process's user", func(d difference) bool { return d.got == nil }},
	{`process\.args`, "*", "split as Windows does, and not at blanks", func(d difference) bool { return len(d.got.([]any)) > 0 && strings.ContainsAny(d.line(), "\"' ") }},
	{`process(\.parent)?\.pid`, "*", "0 without a name is no process", func(d difference) bool { return d.got == nil && fmt.Sprint(d.want) == "0" }},
	{`process\.parent\.code_signature\.status`, "*", "Valid is trusted in ECS", func(d difference) bool { return d.got == "trusted" && d.want == "Valid" }},
	{`process\.parent\.code_signature\.subject_name`, "*", "the type of a signer is no name", func(d difference) bool {
		return d.got == nil && d.want == d.text("InitiatingProcessSignerType")
	}},
	{`process\.executable`, "*", "a folder is joined with the name", func(d difference) bool { return strings.HasPrefix(d.got.(string), d.want.(string)+`\`) }},
	{`file\..*`, "DeviceProcessEvents CloudProcessEvents", "the file of a process is process", func(d difference) bool {
		return d.got == nil && (lookUp(d.doc, "process.executable") != nil || lookUp(d.doc, "process.name") != nil)
	}},
	{`file\.directory`, "DeviceFileEvents DeviceImageLoadEvents", "a directory has no file name", func(d difference) bool {
		return strings.HasPrefix(d.want.(string), d.got.(string)) && lookUp(d.doc, "file.path") == d.want
	}},
	{`(source|destination|host)\.mac`, "*", "ECS wants upper case with dashes", func(d difference) bool {
		return strings.ReplaceAll(fmt.Sprint(d.got), "-", ":") == strings.ToUpper(fmt.Sprint(d.want))
	}},
	{`network\.protocol`, "DeviceNetworkEvents", "Tcp and Udp are the transport", func(d difference) bool {
		transport, _ := lookUp(d.doc, "network.transport").(string)
		return d.got == nil && transport != "" && strings.HasPrefix(strings.ToLower(d.want.(string)), transport)
	}},
	{`network\.protocol`, "DeviceFileEvents", "Local is no protocol", func(d difference) bool { return d.got == nil && d.want == "Local" }},
	{`url\.port`, "*", "only a URL that says its port has one", func(d difference) bool {
		return d.got == nil && !strings.Contains(fmt.Sprint(lookUp(d.doc, "url.original")), ":443")
	}},
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
	{`source\.(ip|address)|related\.ip`, "CloudAppEvents", "IPv6 is written as it came", func(d difference) bool {
		want, err := netip.ParseAddr(fmt.Sprint(asList(d.want)[0]))
		got, err2 := netip.ParseAddr(fmt.Sprint(asList(d.got)[0]))
		return err == nil && err2 == nil && got == want
	}},
	{`email\.attachments`, "CloudAppEvents", "they are inside RawEventData", func(d difference) bool { return d.got == nil && d.columns["RawEventData"] != nil }},
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

// line returns the command line of the event's process.
func (d difference) line() string { return fmt.Sprint(lookUp(d.doc, "process.command_line")) }

// explained returns why two values differ, and false if they should not.
func explained(table, field string, d difference) (why string, ok bool) {
	for _, e := range differences {
		if e.tables != "*" && !slices.Contains(strings.Fields(e.tables), table) {
			continue
		}
		if regexp.MustCompile("^("+e.field+")$").MatchString(field) && e.holds(d) {
			return e.why, true
		}
	}
	return "", false
}

// Another product's tests of the same records, where $DEFENDER_SAMPLES has them: the fields that
// mean the same have the same values, and every difference has its reason.
func TestECSAgainstPeer(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("DEFENDER_SAMPLES")
	if dir == "" {
		t.Skip("no $DEFENDER_SAMPLES: the rules are tested without them")
	}
	files, err := filepath.Glob(filepath.Join(dir, "sekoia/tests/*.json"))
	if err != nil || len(files) < 70 {
		t.Fatal(len(files), "tests of the peer", err)
	}
	equal, reasons, all := 0, make(map[string]int), 0
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
		docs := recordsIn(t, "ecs", []byte(test.Input.Message))
		if len(docs) != 1 {
			t.Fatalf("%s: %d records", file, len(docs))
		}
		doc, record := decode(t, docs[0]), decode(t, []byte(test.Input.Message))
		table := strings.TrimPrefix(fmt.Sprint(record["category"]), "AdvancedHunting-")
		columns, _ := record["properties"].(map[string]any)
		there := make(map[string]bool)
		eachLeaf(doc, func(text string) { there[strings.ToLower(millis(text))] = true })
		eachField("", test.Expected, func(name string, want any) {
			if otherMeaning.MatchString(name) {
				return
			}
			all++
			got := lookUp(doc, name)
			same := subset(want, got)
			if strings.HasPrefix(name, "action.") || strings.HasPrefix(name, "microsoft.") { // names of the peer's own
				same = true
				eachLeaf(want, func(text string) {
					same = same && (kept(text, there) || kept(strings.ToLower(millis(text)), there) || keptLower(text, there))
				})
			}
			if same {
				equal++
				return
			}
			if why, ok := explained(table, name, difference{got, want, doc, columns}); ok {
				reasons[why]++
				return
			}
			t.Errorf("%s: %s is %.200v, the peer has %.200v", filepath.Base(file), name, got, want)
		})
	}
	right := 0
	for _, e := range differences {
		if reasons[e.why] == 0 {
			t.Errorf("nothing needs the reason %q", e.why)
		}
	}
	for reason, n := range reasons {
		t.Logf("%3d %s", n, reason)
		right += n
	}
	t.Logf("%d of %d fields are equal, %d differ with a reason", equal, all, right)
	if share := float64(equal) / float64(all-right); share < 0.93 {
		t.Errorf("%.1f %% of the fields that mean the same are equal", 100*share)
	}
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
// letter case aside.
func subset(want, got any) bool {
	var have []string
	for _, v := range asList(got) {
		have = append(have, strings.ToLower(millis(fmt.Sprint(v))))
	}
	for _, v := range asList(want) {
		if text := strings.ToLower(millis(fmt.Sprint(v))); text != "" && !slices.Contains(have, text) {
			return false
		}
	}
	return true
}
