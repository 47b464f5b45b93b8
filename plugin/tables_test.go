package main

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

func TestTableNames(t *testing.T) {
	set := map[string]string{"eventhub.connection_string": "Endpoint=sb://ns.example/;SharedAccessKeyName=l;SharedAccessKey=dG9wc2VjcmV0;EntityPath=d",
		"tables": "AdvancedHunting-AlertInfo, advancedhunting-Device*,EmailEvents,AdvancedHunting-", "tables_exclude": "AdvancedHunting-DeviceInfo"}
	s := input.NewSettings(func(k string) string { return set[k] }, declared())
	c := readConfig(s)
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	if got, want := c.transform.Tables, []string{"AlertInfo", "Device*", "EmailEvents", "AdvancedHunting-"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := c.transform.TablesExclude; !slices.Equal(got, []string{"DeviceInfo"}) {
		t.Errorf("%q", got)
	}
}

func TestUnknownTables(t *testing.T) {
	if len(documentedTables) < 60 {
		t.Errorf("%d tables", len(documentedTables))
	}
	f := func(name string, want ...string) {
		t.Helper()
		if got := unknownTables([]string{name}, map[string]bool{"custom_cl": true}); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	f("AlertInfo")
	f("alertinfo")
	f("securityalert")
	f("unreadable")
	f("Custom_CL") // not documented, and it came
	f("Custom*")
	f("*Evidence")
	f("Device*Events")
	f("*")
	f("Nothing*", `no table matches "Nothing*"`)
	f("Devcie*", `no table matches "Devcie*"; did you mean Device*?`)
	f("*Evidance", `no table matches "*Evidance"; did you mean *Evidence?`)
	f("*Procces*", `no table matches "*Procces*"; did you mean *Process*?`)
	f("Device*Evnts", `no table matches "Device*Evnts"`)
	f("AlertEvidance", `no table is called "AlertEvidance"; did you mean AlertEvidence?`)
	f("DeviceProccessEvents", `no table is called "DeviceProccessEvents"; did you mean DeviceProcessEvents?`)
	f("Whatever", `no table is called "Whatever"`)
}

// It is logged once, after the first thousand records, and not for a right name.
func TestAMisspeltTableIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeHost{}
		in := newTestInstance(f)
		in.tables = []string{"AlertInfo", "AlertEvidance", "Emial*"}
		var g generation
		id := g.add(in)
		defer g.exit()
		tr := transform.New(transform.Config{Tables: in.tables})
		in.transforms = append(in.transforms, tr)
		said := func(records int) int {
			for range records {
				tr.Append(t.Context(), []transform.Payload{{Body: []byte(`{"category":"AdvancedHunting-AlertEvidence","properties":{"A":1}}`)}}, func(string, []byte) {})
			}
			for range 130 {
				g.tick(id, time.Now())
				time.Sleep(time.Second)
			}
			return strings.Count(strings.Join(f.log, "\n"), `no table is called "AlertEvidance"; did you mean AlertEvidence?`)
		}
		pattern := `no table matches "Emial*"; did you mean Email*?`
		if n := said(999); n != 0 {
			t.Errorf("said %d times after 999 records", n)
		}
		if n := said(1); n != 1 {
			t.Errorf("said %d times after 1,000 records", n)
		}
		if n := said(1000); n != 1 {
			t.Errorf("said %d times after 2,000 records", n)
		}
		if n := strings.Count(strings.Join(f.log, "\n"), pattern); n != 1 {
			t.Errorf("the pattern was named %d times", n)
		}
		if strings.Contains(strings.Join(f.log, "\n"), `"AlertInfo"`) {
			t.Error("a right name is named")
		}
	})
}

// Lists that leave nothing are refused; all others are not.
func TestTablesThatLeaveNothing(t *testing.T) {
	for _, c := range []struct {
		tables, exclude string
		want            bool
	}{
		{"AlertInfo", "alertinfo", true}, {"Device*", "Device*", true}, {"DeviceEvents,AlertInfo", "Alert*,*Events", true}, {"", "*", true}, {"Device*", "*", true},
		{"", "", false}, {"", "AlertInfo", false}, {"AlertInfo", "", false}, {"AlertInfo,AlertEvidence", "AlertInfo", false}, {"Device*", "DeviceEvents", false}, {"*", "Device*", false},
	} {
		split := func(s string) []string { return strings.FieldsFunc(s, func(r rune) bool { return r == ',' }) }
		if got := excludesAll(split(c.tables), split(c.exclude)); got != c.want {
			t.Errorf("tables %s, exclude %s: %v", c.tables, c.exclude, got)
		}
	}
}
