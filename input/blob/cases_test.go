package blob_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf16"

	azblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
)

// What people really have, after public bug reports. Those that an emulator can do are part of the
// contract.
func init() {
	contract = append(contract, []struct {
		name string
		run  func(*testing.T, *account)
	}{
		{"grows by being written again", grows},
		{"values of many lines", manyLines},
		{"list of many pieces", largeList},
		{"damage inside a list", damagedList},
		{"UTF-16", wideText},
		{"members of gzip are appended", appendedMembers},
		{"layouts of other exports", otherExports},
		{"archive tier", archiveTier},
		{"prefix is widened", prefixWidened},
		{"nothing under the prefix", nothingMatches},
	}...)
}

// record is a record of so many bytes, more or less.
func record(n, size int) string {
	return fmt.Sprintf(`{"time":"2026-01-13T09:40:%02dZ","category":"AdvancedHunting-DeviceEvents","properties":{"N":%d,"Pad":"%s"}}`, n%60, n, strings.Repeat("x", size))
}

// Flow logs and diagnostic logs are block blobs that are written again and again, with one record
// more before their closing brackets (janmg/logstash-input-azure_blob_storage#34). No record is
// torn, and none comes twice if the blob only grew.
func grows(t *testing.T, a *account) {
	a.create(t, "flow")
	cfg := a.config()
	cfg.Containers = []string{"flow"}
	i := 0
	for _, c := range []struct{ begin, between, end string }{
		{`{"records":[`, ",", "]}"},
		{`{"records":[`, ",", `],"count":1}`},
		{"[\n ", ",\n ", "\n]\n"},
		{"", "\n", ""},
		{"", "\r\n", "\r\n"},
	} {
		for _, size := range []int{10, 3000, 300_000} {
			for _, stopped := range []bool{false, true} {
				i++
				name := fmt.Sprintf("y=2026/m=01/d=13/h=09/m=00/%02d/PT1H.json", i)
				lane := "flow/" + name
				t.Run(fmt.Sprintf("%q %d stopped %v", c.end, size, stopped), func(t *testing.T) {
					state := openState(t, statePath(t))
					defer state.Close()
					cfg := cfg
					cfg.Prefix, cfg.FetchBytes = name, 1<<20
					var all, records []string
					var r *reader
					for n := range 4 {
						records = append(records, record(n, size))
						a.put(t, "flow", name, c.begin+strings.Join(records, c.between)+c.end)
						if r == nil {
							r = start(t, cfg, state)
						}
						r.until("record "+fmt.Sprint(n), func() bool { return slices.Contains(r.texts(lane), records[n]) })
						r.until("the rest", func() bool { return r.src.Stats().Containers["flow"].Behind == 0 })
						if stopped {
							r.stop()
							all, r = append(all, r.texts(lane)...), nil
						}
					}
					if r != nil {
						r.stop()
						all = r.texts(lane)
					}
					all = slices.DeleteFunc(all, func(text string) bool { return text == `"count":1` }) // which is beside the records
					same(t, all, records)

					// It is another one of the same size: all of it is read again.
					other := strings.ReplaceAll(c.begin+strings.Join(records, c.between)+c.end, `"N":`, `"M":`)
					a.put(t, "flow", name, other)
					r = start(t, cfg, state)
					r.until("all of the other one", func() bool {
						return len(slices.DeleteFunc(r.texts(lane), func(text string) bool { return text == `"count":1` })) == 4
					})
					for _, text := range r.texts(lane) {
						if text != `"count":1` && !strings.Contains(other, text) {
							t.Errorf("torn: %.200q", text)
						}
					}
					r.stop()
				})
			}
		}
	}
}

// A block blob that was written again with another middle is read again as a whole, although it
// begins as it did and is longer. The bytes before the end of its last value show that.
func TestSameHeadOtherRest(t *testing.T) {
	t.Parallel()
	a := newFake(t, "flow")
	var records []string
	for n := range 5 {
		records = append(records, record(n, 700))
	}
	a.put(t, "flow", "a.json", "["+strings.Join(records[:4], ",")+"]")
	cfg := a.config()
	cfg.Containers = []string{"flow"}
	r := start(t, cfg, nil)
	r.want(4)
	changed := slices.Clone(records)
	changed[3] = strings.Replace(changed[3], `"N":3`, `"N":9`, 1)
	a.put(t, "flow", "a.json", "["+strings.Join(changed, ",")+"]")
	r.want(9)
	same(t, r.texts("")[4:], changed)
}

// A shipper that rotates by size appends members of gzip. Each append is read, whatever it ends in:
// a value, half a value, half a member. So are those after a restart, and none is read twice.
func appendedMembers(t *testing.T, a *account) {
	a.create(t, "members")
	cfg := a.config()
	cfg.Containers = []string{"members"}
	const name = "app.json"
	var records []string
	for n := range 6 {
		records = append(records, record(n, 50))
	}
	last := zip(t, records[4]+"\n"+records[5]+"\n")
	path := statePath(t)
	var all []string
	for _, c := range []struct {
		text string
		want int
	}{
		{zip(t, records[0]+"\n"), 1},
		{zip(t, records[1]+"\n"+records[2][:60]), 2},
		{zip(t, records[2][60:]+"\n"), 3},
		{zip(t, records[3]+"\n") + last[:30], 4},
		{last[30:], 6},
	} {
		for _, stopped := range []bool{false, true} {
			if !stopped {
				a.append(t, "members", name, c.text)
			}
			state := openState(t, path)
			r := start(t, cfg, state)
			r.until(fmt.Sprint(c.want, " records"), func() bool { return len(all)+r.count() >= c.want })
			if !strings.HasSuffix(c.text, last[:30]) && c.want != 2 {
				r.until("all of it", func() bool { return r.src.Stats().Containers["members"].Behind == 0 })
			}
			r.stop()
			state.Close()
			all = append(all, r.texts("members/"+name)...)
		}
	}
	same(t, all, records)
}

// What stands behind the gzip of a blob, or behind damage in it, is not unpacked. It is in the log
// with its bytes, and counted.
func TestBehindGzip(t *testing.T) {
	t.Parallel()
	a := newFake(t, "behind")
	cfg := a.config()
	cfg.Containers = []string{"behind"}
	good, behind := zip(t, record(1, 50)+"\n"), strings.Repeat(record(2, 50)+"\n", 2000)
	a.put(t, "behind", "a.json.gz", good+behind)
	r := start(t, cfg, nil)
	r.says("packed_bytes_left_out=")
	r.until("its event", func() bool { return r.count() == 2 })
	if got := r.texts(""); got[0] != record(1, 50) || r.all()[1].Reason == "" {
		t.Errorf("%.300q", got)
	}
	// The header that was looked for has ten bytes.
	if n := r.src.Stats().BytesSkipped; n < int64(len(behind))-10 || n > int64(len(behind)) {
		t.Errorf("%d bytes are counted, %d were left out", n, len(behind))
	}
}

// Each value is found by its brackets, not by lines (MicrosoftDocs/dataexplorer-docs#627, #416).
func manyLines(t *testing.T, a *account) {
	a.create(t, "values")
	one, two := "{\n  \"a\": {\n    \"b\": [\n      1,\n      {}\n    ]\n  }\n}", "{\r\n\t\"a\": \"}{\\\"\"\r\n}"
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"two.json":       {one + "\n" + two + "\n", []string{one, two}},
		"blank.json":     {"\n\r\n" + one + "\n", []string{one}},
		"bom.json":       {"\xef\xbb\xbf" + one + "\r\n\xef\xbb\xbf" + two, []string{one, two}},
		"mixed.json":     {"{\"l\":1}\n" + one + "\n{\"l\":2}\n" + two + "{\"l\":3}{\"l\":4}\nnot json\n{\"l\":5}\n", []string{`{"l":1}`, one, `{"l":2}`, two, `{"l":3}{"l":4}`, "not json", `{"l":5}`}},
		"breaks.json":    {"{\"l\":1}\n{\"a\":\"x\n\ny\",\"b\":{\"c\":1}}\n{\"l\":2}\n", []string{`{"l":1}`, "{\"a\":\"x\n\ny\",\"b\":{\"c\":1}}", `{"l":2}`}},
		"breaks2.json":   {"{\"records\":[{\"a\":\"x\r\ny\"},{\"l\":1}]}\n{\"l\":2}\n", []string{"{\"a\":\"x\r\ny\"}", `{"l":1}`, `{"l":2}`}},
		"nobreaks.json":  {"{\"a\":\"x\n{\"l\":1}\n{\"b\":{\"c\":\"y\n{\"l\":2}\n", []string{`{"a":"x`, `{"l":1}`, `{"b":{"c":"y`, `{"l":2}`}},
		"commas.json":    {"{\"l\":1},\n{\"l\":2},\n", []string{`{"l":1}`, `{"l":2}`}},
		"seq.json":       {"\x1e{\"l\":1}\n\x1e" + one + "\n", []string{`{"l":1}`, one}},
		"broken.json":    {one + "\n{\n  \"a\": 1\n  \"b\": 2\n}\n" + two + "\n{\"torn\":\n{\"l\":1}\n{\"l\":2}\n", []string{one, "{\n  \"a\": 1\n  \"b\": 2\n}", two, "{\"torn\":", `{"l":1}`, `{"l":2}`}},
		"split.json":     {"{\"a\":{\"b\":1}\n,\"c\":2}\n{\"l\":1}\n", []string{"{\"a\":{\"b\":1}\n,\"c\":2}", `{"l":1}`}},
		"lists.json":     {`[["x",1],[{"l":1}]]`, []string{`["x",1]`, `[{"l":1}]`}},
		"wrapped.gz":     {zip(t, "\xef\xbb\xbf\n"+one+"\n"+two), []string{one, two}},
		"lists.gz":       {zip(t, "{\"records\":[\n"+one+",\n"+two+"]}\n[{\"l\":1}]"), []string{"{\"records\":[\n" + one + ",\n" + two + "]}", `[{"l":1}]`}},
		"capital.json":   {`{"count":2,"Records":[{"l":1},{"l":2}]}`, []string{`"count":2`, `{"l":1}`, `{"l":2}`}},
		"nested.json":    {`{"records":[{"records":[{"l":1}]}]}` + "\n", []string{`{"records":[{"l":1}]}`}},
		"text.json":      {`["{\"l\":1}","{\"l\":2}"]` + "\n", []string{`["{\"l\":1}","{\"l\":2}"]`}},
		"brackets.json":  {"{\"records\":[{\"l\":1}}]}\n{\"l\":2}\n", []string{`{"records":[{"l":1}}]}`, `{"l":2}`}},
		"deep.json":      {strings.Repeat("[", 3000) + strings.Repeat("]", 3000) + "\n{\"l\":1}\n", []string{strings.Repeat("[", 2999) + strings.Repeat("]", 2999), `{"l":1}`}},
		"emptylist.json": {"[]\n{\"records\":[]}\n{\"l\":1}\n", []string{"[]", `{"records":[]}`, `{"l":1}`}},
	} {
		t.Run(name, func(t *testing.T) {
			a.put(t, "values", name, c.text)
			cfg := a.config()
			cfg.Containers, cfg.Prefix = []string{"values"}, name
			r := start(t, cfg, nil)
			r.want(len(c.want))
			if name == "broken.json" { // a torn value that a line follows takes what may belong to it
				got := r.texts("")
				if !slices.Contains(got, `{"l":2}`) || !slices.Contains(got, one) || !slices.Contains(got, two) {
					t.Errorf("got %q", got)
				}
				return
			}
			same(t, r.texts(""), c.want)
			r.until("all to be read", func() bool { return r.src.Stats().Containers["values"].Behind == 0 })
		})
	}
}

// Lists larger than any piece are cut into their records in bounded memory
// (Azure/Azure-Sentinel#7808). After a restart they continue inside the list, because marks lie
// there.
func largeList(t *testing.T, a *account) {
	a.create(t, "large")
	n := 12_000 // some 12 MB
	if raceDetector {
		n = 4_000
	}
	var list []string
	for i := range n {
		list = append(list, record(i, 900))
	}
	for name, text := range map[string]string{
		"array.json":    "[" + strings.Join(list, ",") + "]",
		"envelope.json": "{\"count\":1,\"records\":[\r\n" + strings.Join(list, ",\r\n") + "\r\n],\"after\":{\"a\":[1]}}\r\n{\"last\":1}\r\n",
		"array.gz":      zip(t, "["+strings.Join(list, " , ")+"]\n"),
	} {
		t.Run(name, func(t *testing.T) {
			if name == "envelope.json" {
				a.append(t, "large", name, text)
			} else {
				a.put(t, "large", name, text)
			}
			state := openState(t, statePath(t))
			defer state.Close()
			cfg := a.config()
			cfg.Containers, cfg.Prefix, cfg.FetchBytes = []string{"large"}, name, 2<<20
			var all []string
			for tries := 0; len(all) < n; tries++ {
				// Some are fetched and committed; what was fetched beyond is lost with the source,
				// and read again.
				src, err := blob.Open(t.Context(), cfg, state, (&logs{}).logger())
				if err != nil {
					t.Fatal(err)
				}
				for range 1 + tries*tries {
					messages, err := src.Fetch(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					take := messages[:1+len(messages)*2/3]
					for _, m := range take {
						if strings.Contains(m.Reason, "beside") {
							continue
						}
						all = append(all, string(m.Body))
					}
					if err := src.Commit(t.Context(), []input.Mark{take[len(take)-1].Mark}); err != nil {
						t.Fatal(err)
					}
					if len(take) < len(messages) || len(all) >= n {
						break
					}
				}
				if err := src.Close(); err != nil {
					t.Fatal(err)
				}
			}
			same(t, all[:n], list)
			r := start(t, cfg, state)
			r.until("all to be read", func() bool {
				c, ok := r.src.Stats().Containers["large"]
				return ok && c.Behind == 0 && (name != "envelope.json" || slices.Contains(r.texts(""), `{"last":1}`) || slices.Contains(all, `{"last":1}`))
			})
			for _, text := range r.texts("") {
				if text != `"after":{"a":[1]}` && text != `{"last":1}` {
					t.Errorf("came again, or torn: %.100q", text)
				}
			}
		})
	}
}

// Damage inside a list costs the record that it is in.
func damagedList(t *testing.T, a *account) {
	a.create(t, "damaged")
	var list []string
	for i := range 4000 {
		list = append(list, record(i, 300))
	}
	bad := map[int]string{
		10:   strings.Replace(list[10], `"N":10,`, `"N":10`, 1),
		100:  strings.Replace(list[100], `:"2026`, `:2026`, 1),
		1000: list[1000][:len(list[1000])-1],
		2000: strings.Replace(list[2000], `"Pad":"`, `"Pad":`, 1),
		3999: list[3999][:100],
	}
	text := append([]string(nil), list...)
	for i, b := range bad {
		text[i] = b
	}
	for name, whole := range map[string]string{"array.json": "[" + strings.Join(text, ",") + "]\n{\"last\":1}\n", "lines.json": strings.Join(text, "\n") + "\n{\"last\":1}\n"} {
		t.Run(name, func(t *testing.T) {
			a.put(t, "damaged", name, whole)
			cfg := a.config()
			cfg.Containers, cfg.Prefix, cfg.FetchBytes = []string{"damaged"}, name, 1<<20
			r := start(t, cfg, nil)
			r.until("the last", func() bool { return slices.Contains(r.texts(""), `{"last":1}`) })
			got := r.texts("")
			came := make(map[string]int)
			for _, g := range got {
				came[g]++
			}
			for i, want := range list {
				if _, isBad := bad[i]; !isBad && came[want] != 1 {
					t.Errorf("record %d came %d times", i, came[want])
				}
			}
			for i, b := range bad {
				if !slices.ContainsFunc(got, func(g string) bool { return strings.Contains(g, b) }) {
					t.Errorf("the damaged record %d is not passed on", i)
				}
			}
		})
	}
}

func toWide(text string, order binary.AppendByteOrder) string {
	var b []byte
	for _, u := range utf16.Encode([]rune("\ufeff" + text)) {
		b = order.AppendUint16(b, u)
	}
	return string(b)
}

// UTF-16 with its mark, as PowerShell writes it, is read as any other text.
func wideText(t *testing.T, a *account) {
	a.create(t, "wide")
	var list []string
	for i := range 3000 {
		list = append(list, record(i, 30)[:20]+"ü€😀"+record(i, 400)[20:])
	}
	lines, array := strings.Join(list, "\r\n")+"\r\n", "[\r\n"+strings.Join(list, ",\r\n")+"\r\n]\r\n"
	for name, text := range map[string]string{
		"lines.json": toWide(lines, binary.LittleEndian), "array.json": toWide(array, binary.BigEndian),
		"lines.gz": zip(t, toWide(lines, binary.BigEndian)), "array.gz": zip(t, toWide(array, binary.LittleEndian)),
	} {
		t.Run(name, func(t *testing.T) {
			a.put(t, "wide", name, text)
			state := openState(t, statePath(t))
			defer state.Close()
			cfg := a.config()
			cfg.Containers, cfg.Prefix, cfg.FetchBytes = []string{"wide"}, name, 1<<20
			var all []string
			src, err := blob.Open(t.Context(), cfg, state, (&logs{}).logger())
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // and in the middle it stops
				messages, err := src.Fetch(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range messages {
					all = append(all, string(m.Body))
				}
				if err := src.Commit(t.Context(), []input.Mark{messages[len(messages)-1].Mark}); err != nil {
					t.Fatal(err)
				}
				if len(all) == len(list) {
					break
				}
			}
			if err := src.Close(); err != nil {
				t.Fatal(err)
			}
			r := start(t, cfg, state)
			r.want(len(list) - len(all))
			same(t, append(all, r.texts("")...), list)
			r.until("all to be read", func() bool { return r.src.Stats().Containers["wide"].Behind == 0 })
		})
	}
}

// Azure Monitor's data export of a Log Analytics workspace, and diagnostic settings: a blob each
// five minutes, or under a resource's id.
func otherExports(t *testing.T, a *account) {
	names := map[string]string{
		"am-deviceevents":          "WorkspaceResourceId=/subscriptions/1/resourcegroups/rg/providers/microsoft.operationalinsights/workspaces/w/",
		"insights-logs-auditevent": "resourceId=/SUBSCRIPTIONS/1/RESOURCEGROUPS/RG/PROVIDERS/X/Y/Z/",
	}
	for c, folder := range names {
		a.create(t, c)
		a.append(t, c, folder+time.Now().UTC().Format("y=2006/m=01/d=02/h=15")+"/m=05/PT05M.json", "{\"Type\":\"DeviceEvents\",\"TimeGenerated\":\"2026-01-13T09:40:52Z\"}\n")
	}
	cfg := a.config()
	cfg.Containers = []string{"am-*", "insights-logs-auditevent"}
	r := start(t, cfg, nil)
	r.want(2)
	for c, folder := range names {
		a.append(t, c, folder+time.Now().UTC().Format("y=2006/m=01/d=02/h=15")+"/m=10/PT05M.json", "{\"Type\":\"DeviceEvents\",\"N\":2}\n")
	}
	r.want(4)
}

// A blob in the archive tier is left out and said, and read when it is rehydrated.
func archiveTier(t *testing.T, a *account) {
	a.create(t, "archive")
	a.put(t, "archive", "old/a.json", numbered("a", 0, 5))
	a.put(t, "archive", "old/b.json", numbered("b", 0, 5))
	tier := func(to azblob.AccessTier) {
		if _, err := a.client.ServiceClient().NewContainerClient("archive").NewBlobClient("old/a.json").SetTier(t.Context(), to, nil); err != nil {
			t.Fatal(err)
		}
	}
	tier(azblob.AccessTierArchive)
	old := time.Now().Add(-60 * 24 * time.Hour)
	if a.fake != nil { // longer ago than positions are kept
		a.fake.Age("archive", "old/a.json", old, old)
		a.fake.Age("archive", "old/b.json", old, old)
	}
	state := openState(t, statePath(t))
	defer state.Close()
	cfg := a.config()
	cfg.Containers = []string{"archive"}
	first := true
	for range 2 { // also in a new process
		r := start(t, cfg, state)
		if first {
			r.says("blobs=1 bytes=")
			first = false
		}
		r.until("the sweep to end", func() bool { return sweepEnded(t, state, "archive") })
		r.until("all to be read that can be", func() bool { return r.src.Stats().Containers["archive"].Behind == 0 })
		for _, text := range r.texts("") {
			if !strings.Contains(text, `"b"`) {
				t.Errorf("got %q", text)
			}
		}
		if f := blob.Check(t.Context(), cfg); len(f) != 1 || f[0].Err != nil || f[0].Detail != "may be listed and read" {
			t.Errorf("check says %+v", f)
		}
		r.stop()
	}
	tier(azblob.AccessTierHot)
	r := start(t, cfg, state)
	r.want(5)
	same(t, r.texts(""), split(numbered("a", 0, 5)))
	r.stop()
	r = start(t, cfg, state)
	r.quiet(0)
}

func sweepEnded(t *testing.T, state *input.State, container string) bool {
	v, err := state.Get("blob", "#sweep/"+container)
	return err == nil && strings.Contains(string(v), `"finished"`)
}

// What lay outside blob.prefix is read when that is widened, however old it is, and what was read
// is not read again.
func prefixWidened(t *testing.T, a *account) {
	a.create(t, "wider")
	old := time.Now().Add(-60 * 24 * time.Hour)
	for _, name := range []string{"a/1.json", "b/1.json"} {
		a.append(t, "wider", name, numbered(name[:1], 0, 5))
		if a.fake != nil {
			a.fake.Age("wider", name, old, old)
		}
	}
	state := openState(t, statePath(t))
	defer state.Close()
	cfg := a.config()
	cfg.Containers, cfg.Prefix = []string{"wider"}, "a/"
	r := start(t, cfg, state)
	r.want(5)
	r.until("the sweep to end", func() bool { return sweepEnded(t, state, "wider") })
	r.stop()
	cfg.Prefix = ""
	r = start(t, cfg, state)
	r.want(5)
	same(t, r.texts(""), split(numbered("b", 0, 5)))
	r.until("the sweep to end", func() bool { return sweepEnded(t, state, "wider") })
	r.stop()
	cfg.Prefix = "a/"
	r = start(t, cfg, state)
	r.quiet(0)
}

// A prefix or pattern under which there is nothing, although there is something beside it, is said,
// and check_only says it too.
func nothingMatches(t *testing.T, a *account) {
	a.create(t, table)
	a.append(t, table, pt1h(time.Now()), numbered("a", 0, 1))
	for _, prefix := range []string{table + "/", "resourceId=/", "tenantid="} {
		cfg := a.config()
		cfg.Prefix = prefix
		r := start(t, cfg, nil)
		r.says("no blob is under blob.prefix")
		r.quiet(0)
		r.stop()
		if n := strings.Count(r.log.String(), "no blob is under"); n != 1 {
			t.Errorf("%s: said %d times", prefix, n)
		}
		if f := blob.Check(t.Context(), cfg); len(f) != 1 || f[0].Err == nil || !strings.Contains(f[0].Err.Error(), "no blob is under blob.prefix") {
			t.Errorf("%s: check says %+v", prefix, f)
		}
	}
	cfg := a.config()
	cfg.Containers = []string{"insights-logs-hunting-*"}
	r := start(t, cfg, nil)
	r.says("although there are others")
	r.says(table)
	r.stop()
	if f := blob.Check(t.Context(), cfg); len(f) != 1 || f[0].Err == nil || !strings.Contains(f[0].Err.Error(), table) {
		t.Errorf("check says %+v", f)
	}
}

// 60 blobs that answer 403 for ever hold up nobody (MicrosoftDocs/azure-docs#80245). They are said
// once, with how many, and read when they can be, also when they are older than the state file
// keeps positions.
func TestFailingBlobsHoldUpNobody(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 4} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			t.Parallel()
			a := newFake(t, table)
			old := time.Now().Add(-60 * 24 * time.Hour)
			for i := range 60 {
				name := fmt.Sprintf("folder/bad%02d.json", i)
				a.fake.Append(table, name, []byte(numbered("bad", i, 1)))
				if i%2 == 0 {
					a.fake.Age(table, name, old, old)
				}
			}
			var denied atomic.Bool
			denied.Store(true)
			var reads atomic.Int64
			a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
				if r.Op == fakeblob.GetBlob && strings.Contains(r.Blob, "bad") && denied.Load() {
					reads.Add(1)
					return &fakeblob.Fault{Status: 403, Code: "AuthorizationPermissionMismatch"}
				}
				return nil
			})
			state := openState(t, statePath(t))
			defer state.Close()
			cfg := a.config()
			cfg.Workers = workers
			r := start(t, cfg, state)
			r.until("all to have failed", func() bool { return r.src.Stats().Containers[table].Failed == 60 })
			r.says("blobs=60")
			for i := range 5 {
				begun, n := time.Now(), r.count()
				a.fake.Append(table, fmt.Sprintf("folder/good%d.json", i), []byte("{\"good\":1}\n"))
				r.until("the healthy one", func() bool { return r.count() > n })
				if d := time.Since(begun); d > 2*time.Second {
					t.Errorf("it took %v", d)
				}
			}
			r.until("the sweep to end", func() bool { return sweepEnded(t, state, table) })
			if n := strings.Count(r.log.String(), "read blobs: retrying"); n != 1 {
				t.Errorf("said %d times:\n%s", n, r.log)
			}
			r.stop()
			n := r.count()
			denied.Store(false)
			r = start(t, cfg, state)
			r.want(60)
			if n != 5 {
				t.Errorf("%d messages before, want 5", n)
			}
		})
	}
}
