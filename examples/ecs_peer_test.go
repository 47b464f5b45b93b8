package examples_test

import (
	"bytes"
	"encoding/json"
	"fmt"
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

// differences are fields that may differ, each with its reason. Everything else must be equal.
var differences = map[string]string{
	`event\.(category|type|kind)`:                         "Elastic's words: an alert is no threat intelligence, a mail no network, a library no process",
	`event\.action`:                                       "post-delivery: the action is the ActionType, what was done is in action.value",
	`event\.outcome`:                                      "ECS has three words; the reason of a failure is event.reason; without a word nobody knows",
	`process(\.parent)?\.working_directory`:               "the folder of the program is not where it works",
	`process(\.parent)?\.user\.(domain|email)`:            "ECS has only the id and the name there: they stay below m365_defender.event",
	`process(\.parent)?\.args`:                            "split as Windows does, and not at blanks",
	`process(\.parent)?\.pid`:                             "0 without a name is no process",
	`process\.parent\.code_signature\..*`:                 "Valid is trusted in ECS; OsVendor is no name of a signer",
	`process\.executable`:                                 "a folder is joined with the name",
	`file\.(directory|name|size|hash\..*)`:                "the file of a process is process.*; the directory has no file name",
	`(source|destination|host)\.(mac)`:                    "upper case with dashes",
	`network\.protocol`:                                   "Tcp is network.transport; Local is no protocol; the letters are small",
	`url\.port`:                                           "only where the URL has one",
	`registry\.(key|data\.strings)`:                       "the hive is apart; the data is one text",
	`user\.(id|name|domain)`:                              "the SID before the object id; the first user of a device is not who acts",
	`device\.(id|manufacturer)`:                           "device.id is the host; a class of drivers is no manufacturer",
	`(source|destination)\.(ip|address|port)|related\.ip`: "a logon comes from the remote side; a device's own address is host.ip; IPv6 as it came",
	`email\.attachments`:                                  "they are inside RawEventData",
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
	patterns := make(map[*regexp.Regexp]string)
	for pattern, reason := range differences {
		patterns[regexp.MustCompile("^("+pattern+")$")] = reason
	}
	equal, explained, all := 0, make(map[string]int), 0
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
		doc := decode(t, docs[0])
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
			for pattern, reason := range patterns {
				if pattern.MatchString(name) {
					explained[reason]++
					return
				}
			}
			t.Errorf("%s: %s is %.200v, the peer has %.200v", filepath.Base(file), name, got, want)
		})
	}
	right := 0
	for reason, n := range explained {
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
