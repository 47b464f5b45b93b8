package transform_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// good is a record that is known by n.
func good(n int) string {
	return fmt.Sprintf(`{"time":"2026-03-04T10:20:31.1234567Z","tenantId":"t1","operationName":"Publish","category":"AdvancedHunting-AlertInfo",`+
		`"properties":{"Timestamp":"2026-03-04T10:18:02Z","AlertId":"good-%d"},"Tenant":"DefaultTenant"}`, n)
}

func hunting(columns string) string {
	return `{"time":"2026-03-04T10:20:31Z","tenantId":"t1","category":"AdvancedHunting-DeviceEvents","properties":{"Timestamp":"2026-03-04T10:18:02Z",` + columns + `}}`
}

// goods returns the numbers of the good records among events, in order.
func goods(events []event) (ns []int) {
	for _, e := range events {
		var n int
		if id, _ := e.m["AlertId"].(string); id != "" {
			if _, err := fmt.Sscanf(id, "good-%d", &n); err == nil {
				ns = append(ns, n)
			}
		}
	}
	return ns
}

// raws puts the unreadable texts among events together again.
func raws(t testing.TB, events []event) (texts []string) {
	t.Helper()
	var whole strings.Builder
	for _, e := range events {
		raw, ok := e.m["unreadable_raw"].(string)
		if !ok {
			continue
		}
		if e.table != transform.Unreadable || e.m["table"] != transform.Unreadable || e.m["unreadable_reason"] == "" || e.m["unreadable_lane"] != "hub/0" {
			t.Fatalf("unreadable record without its frame: %v", e)
		}
		if e.m["unreadable_encoding"] == "base64" {
			b, err := base64.StdEncoding.DecodeString(raw)
			if err != nil {
				t.Fatal(err)
			}
			raw = string(b)
		}
		whole.WriteString(raw)
		if e.m["unreadable_part"] == e.m["unreadable_parts"] {
			texts = append(texts, whole.String())
			whole.Reset()
		}
	}
	if whole.Len() > 0 {
		t.Fatal("pieces without an end")
	}
	return texts
}

// long is 20 MB, fewer under the race detector.
const long = 20 << 20 / slower

// The damage of one record stays with it. It is put between good ones, in one envelope, in a list,
// in lines, and in payloads of its own. The good ones arrive every time.
func TestBadRecordBetweenGoodOnes(t *testing.T) {
	f := func(name, bad string, raw bool, want map[string]any) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			forms := map[string][]string{
				"envelope": {`{"records":[` + good(1) + `,` + bad + `,` + good(2) + `]}`},
				"list":     {`[` + good(1) + `, ` + bad + `, ` + good(2) + "]\n"},
				"lines":    {good(1) + "\r\n" + bad + "\r\n" + good(2) + "\r\n"},
				"payloads": {good(1), bad, good(2)},
			}
			if len(bad) > long {
				forms = map[string][]string{"envelope": forms["envelope"]} // is slow enough once
			}
			for form, bodies := range forms {
				tr := transform.New(transform.Config{EventID: true})
				events := run(t, tr, bodies...)
				if got := fmt.Sprint(goods(events)); got != "[1 2]" {
					t.Errorf("%s: good records %s", form, got)
				}
				if n := tr.Stats().Unreadable()["panic"]; n > 0 {
					t.Errorf("%s: %d panics", form, n)
				}
				texts := raws(t, events)
				if raw {
					if len(texts) != 1 || texts[0] != bad {
						t.Errorf("%s: raw %.300q, want %.300q", form, texts, bad)
					}
					continue
				}
				if len(texts) != 0 {
					t.Errorf("%s: raw %.300q (%v), want none", form, texts, events)
				}
				if len(events) != 3 {
					t.Fatalf("%s: %d events: %.1000v", form, len(events), events)
				}
				for k, v := range want {
					if got := events[1].m[k]; fmt.Sprint(got) != fmt.Sprint(v) || fmt.Sprintf("%T", got) != fmt.Sprintf("%T", v) {
						t.Errorf("%s: %s is %.100v (%T), want %.100v (%T)", form, k, got, got, v, v)
					}
				}
			}
		})
	}

	f("missing quote", `{"time":"2026-03-04T10:20:31Z","category":"AdvancedHunting-X","properties":{"A":"b}}`, true, nil)
	f("missing brace", `{"time":"2026-03-04T10:20:31Z","category":"AdvancedHunting-X","properties":{"A":"b"}`, true, nil)
	f("brace too many", `{"time":"2026-03-04T10:20:31Z","category":"AdvancedHunting-X","properties":{"A":"b"}]}`, true, nil)
	f("missing comma", hunting(`"A":1 "B":2`), true, nil)
	f("cut", `{"time":"2026-03-04T10:20:31Z","category":"AdvancedHunting-Dev`, true, nil)
	f("cut in an escape", `{"time":"2026-03-04T10:20:31Z","category":"AdvancedHunting-Dev\u00`, true, nil)
	f("single quotes", `{'time':'2026-03-04T10:20:31Z','category':'x'}`, true, nil)
	f("malformed escape", hunting(`"A":"C:\Users"`), true, nil)
	f("malformed unicode escape", hunting(`"A":"\u12G4"`), true, nil)
	f("leading zero", hunting(`"A":007`), true, nil)
	f("bare point", hunting(`"A":.5`), true, nil)
	f("minus minus", hunting(`"A":1-2`), true, nil)
	f("plus", hunting(`"A":+1`), true, nil)
	f("word", hunting(`"A":yes`), true, nil)
	f("number instead of a record", `17`, true, nil)
	f("string instead of a record", `"a, {\"b\": 1}"`, true, nil)
	f("null instead of a record", `null`, true, nil)
	f("invalid UTF-8 in what cannot be read", "{\"time\":\"2026-03-04T10:20:31Z\",\"x\":\"\xe9\xff\" \"", true, nil)

	f("NUL and raw control characters", hunting("\"A\":\"a\x00b\x01\nc\""), false, map[string]any{"A": "a\x00b\x01\nc"})
	f("escaped NUL", hunting(`"A":"a\u0000b"`), false, map[string]any{"A": "a\x00b"})
	f("invalid UTF-8", hunting("\"A\":\"caf\xe9\",\"B\":\"ok é\",\"k\xffey\":1"), false, map[string]any{"A": `caf\xe9`, "B": "ok é", `k\xffey`: int64(1), "repaired_text": int64(1)})
	f("invalid UTF-8 in JSON text", hunting("\"DeviceName\":{\"k\":\"caf\xe9\"}"), false, map[string]any{"DeviceName": `{"k":"caf\\xe9"}`, "repaired_text": int64(1)})
	f("half surrogate pairs", hunting(`"A":"x\ud83dy","B":"\ude00","C":"\ud83d\ude00","D":"\ud83d\ud83d\ude00"`), false,
		map[string]any{"A": `x\ud83dy`, "B": `\ude00`, "C": "😀", "D": `\ud83d😀`, "repaired_text": int64(3)})
	f("duplicate keys", hunting(`"A":"1","A":"2","A":null,"A":"3"`), false, map[string]any{"A": "1", "A_2": "2", "A_3": "3"})
	f("duplicate keys around a list", hunting(`"A":"1","L":[{"A":1,"A":2},{"A":3}],"A":"2"`), false, map[string]any{"A": "1", "A_2": "2",
		"L": []any{map[string]any{"A": int64(1), "A_2": int64(2)}, map[string]any{"A": int64(3)}}})
	f("empty key", hunting(`"":"x","B":{"":"y"}`), false, map[string]any{"_": "x", "B._": "y"})
	f("a long key", hunting(`"`+strings.Repeat("k", 600)+`":{"B":"x"},"C":{"`+strings.Repeat("é", 300)+`":1}`), false, map[string]any{
		strings.Repeat("k", 500):        `{"` + strings.Repeat("k", 600) + `":{"B":"x"}}`,
		"C." + strings.Repeat("é", 250): `{"` + strings.Repeat("é", 300) + `":1}`,
	})
	f("dots in keys", hunting(`"a.b":"x","a":{"b":"y"},"a_b":"z"`), false, map[string]any{"a_b": "x", "a.b": "y", "a_b_2": "z"})
	f("numbers", hunting(`"A":1e400,"B":18446744073709551616,"C":9223372036854775807,"D":-9223372036854775808,"E":9223372036854775808,"F":1.5,"G":-1e-400,"H":0.30000000000000004,"I":123456789012345678.25,"J":1E2`), false,
		map[string]any{"A": "1e400", "B": "18446744073709551616", "C": int64(9223372036854775807), "D": int64(-9223372036854775808), "E": "9223372036854775808",
			"F": 1.5, "G": "-1e-400", "H": 0.30000000000000004, "I": "123456789012345678.25", "J": 100.0})
	f("not finite", hunting(`"A":inf,"B":-inf,"C":NaN,"D":Infinity,"E":-Infinity,"F":nan`), false,
		map[string]any{"A": "inf", "B": "-inf", "C": "NaN", "D": "Infinity", "E": "-Infinity", "F": "nan"})
	f("properties are a string", `{"time":"2026-03-04T10:20:31Z","category":"AdvancedHunting-X","properties":"gone"}`, false, map[string]any{"properties_raw": "gone", "table": "X"})
	f("properties are JSON in a string", `{"time":"2026-03-04T10:20:31Z","category":"AdvancedHunting-X","properties":"{\"A\":\"b\",\"FileSize\":1}"}`, false, map[string]any{"A": "b", "FileSize": int64(1)})
	f("properties are a list", `{"time":"2026-03-04T10:20:31Z","category":"AdvancedHunting-X","properties":[1]}`, false, map[string]any{"properties_raw": "[1]"})
	f("properties are missing", `{"time":"2026-03-04T10:20:31Z","category":"AdvancedHunting-X"}`, false, map[string]any{"table": "X"})
	f("envelope of other types", `{"time":5,"tenantId":{"a":"b"},"category":["x"],"operationName":null,"properties":{"A":1}}`, false,
		map[string]any{"time": int64(5), "tenantId.a": "b", "category_2": []any{"x"}, "properties.A": int64(1), "table": "unknown"})
	f("members said twice", `{"time":"2026-03-04T10:20:31Z","category":"AdvancedHunting-X","category":"AdvancedHunting-Y","properties":{"A":1},"properties":{"B":2}}`, false,
		map[string]any{"table": "X", "category_2": "AdvancedHunting-Y", "A": int64(1), "properties.B": int64(2)})
	f("operationName and Tenant that say something", `{"time":"2026-03-04T10:20:31Z","category":"AdvancedHunting-X","operationName":"Delete","Tenant":"Second","properties":{"A":1}}`, false,
		map[string]any{"operation_name": "Delete", "tenant_name": "Second"})
	f("a string of 20 MB", hunting(`"A":"`+strings.Repeat("x", long)+`"`), false, map[string]any{"A": strings.Repeat("x", long)})
	f("20 MB that cannot be read", `{"time":"2026-03-04T10:20:31Z","A":"`+strings.Repeat("xé", long/3)+`" "`, true, nil)
	f("nested 400 deep", hunting(`"A":`+strings.Repeat(`{"a":`, 400)+`"deep"`+strings.Repeat(`}`, 400)), false,
		map[string]any{"A" + strings.Repeat(".a", 14): strings.Repeat(`{"a":`, 386) + `"deep"` + strings.Repeat(`}`, 386)})
	f("lists 400 deep", hunting(`"A":`+strings.Repeat(`[`, 400)+`"deep"`+strings.Repeat(`]`, 400)), false, nil)
	f("nested 100,000 deep", hunting(`"A":`+strings.Repeat(`[{"a":`, 50_000)+`1`+strings.Repeat(`}]`, 50_000)), false, nil)
	f("nested and cut", `{"time":`+strings.Repeat(`{"time":`, 100_000)+`1`, true, nil)
}

// What is no record at all is counted, or passed on.
func TestWholePayloads(t *testing.T) {
	f := func(name, body string, empty uint64, raw ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			tr := transform.New(transform.Config{})
			events := run(t, tr, good(1), body, good(2))
			if got := fmt.Sprint(goods(events)); got != "[1 2]" {
				t.Errorf("good records %s", got)
			}
			if got := tr.Stats().Empty.Load(); got != empty {
				t.Errorf("%d empty, want %d", got, empty)
			}
			if texts := raws(t, events); fmt.Sprintf("%q", texts) != fmt.Sprintf("%q", raw) && len(texts)+len(raw) > 0 {
				t.Errorf("raw %q, want %q", texts, raw)
			}
			if len(events) != 2+len(raw) {
				t.Errorf("events %v", events)
			}
		})
	}
	f("nothing", "", 1)
	f("blanks", " \r\n\t", 1)
	f("byte order mark", "\xef\xbb\xbf", 1)
	f("no records", `{"records":[]}`, 1)
	f("no records, spaced", "{ \"records\" : [ ] }\n", 1)
	f("no list", `[]`, 1)
	f("no members", `{}`, 1)
	f("an empty record", `{"records":[{}]}`, 1)
	f("text", "Mar  4 10:20:31 host app: hello", 0, "Mar  4 10:20:31 host app: hello")
	f("binary", "\x00\x01\xfe\xff{", 0, "\x00\x01\xfe\xff{")
	f("a number", "17", 0, "17")
	f("frame alone", `{"records":[`, 0, `{"records":[`)
	f("opening brace", `{`, 0, `{`)
	f("a comma", `,`, 0, `,`)
	f("closing brackets", ` ]}`, 0, ` ]}`)
	f("single quotes", `{'records': [{'a': 1}]}`, 0, `{'records': [{'a': 1}]}`)
	f("beside the records", `{"records":[],"schema":{"v":1},"n":2}`, 1, `"schema":{"v":1}`, `"n":2`)
	f("a payload of blob data", "[227 B blob data]", 0, "[227 B blob data]")
}

// Every way in which records come.
func TestEnvelopes(t *testing.T) {
	f := func(name, body string, want string, raw ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			tr := transform.New(transform.Config{})
			events := run(t, tr, body)
			if got := fmt.Sprint(goods(events)); got != want {
				t.Errorf("records %s, want %s: %v", got, want, events)
			}
			if texts := raws(t, events); fmt.Sprintf("%q", texts) != fmt.Sprintf("%q", raw) && len(texts)+len(raw) > 0 {
				t.Errorf("raw %q, want %q", texts, raw)
			}
		})
	}
	a, b, c := good(1), good(2), good(3)
	f("envelope", `{"records":[`+a+`,`+b+`]}`, "[1 2]")
	f("spaced", "\xef\xbb\xbf{ \"records\" :\n[ "+a+" ,\n "+b+" ]\n}\n", "[1 2]")
	f("record", a, "[1]")
	f("list", `[`+a+`,`+b+`]`, "[1 2]")
	f("lines", a+"\n"+b+"\r\n"+c, "[1 2 3]")
	f("one after the other", a+b+c, "[1 2 3]")
	f("envelopes in lines", `{"records":[`+a+`]}`+"\n"+`{"records":[`+b+`,`+c+`]}`, "[1 2 3]")
	f("list of envelopes", `[{"records":[`+a+`]},{"records":[`+b+`]},`+c+`]`, "[1 2 3]")
	f("body", `{"body":{"records":[`+a+`,`+b+`]}}`, "[1 2]")
	f("body with neighbours", `{"body":{"v":1,"records":[`+a+`,`+b+`]},"x":[1]}`, "[1 2]", `"v":1`, `"x":[1]`)
	f("records not first", `{"schema":"1","records":[`+a+`,`+b+`],"n":2}`, "[1 2]", `"schema":"1"`, `"n":2`)
	f("records twice", `{"records":[`+a+`],"records":[`+b+`]}`, "[1 2]")
	f("one record as object", `{"records":`+a+`}`, "[1]")
	f("commas to spare", `{"records":[,`+a+`,,`+b+`,]}`, "[1 2]")
	f("commas missing", `{"records":[`+a+b+` `+c+`]}`, "[1 2 3]")
	f("end missing", `{"records":[`+a+`,`+b, "[1 2]")
	f("end missing after the list", `{"records":[`+a+`,`+b+`]`, "[1 2]")
	f("beginning missing", `-xyz","properties":{"A":1}},`+a+`,`+b+`]}`, "[1 2]", `-xyz","properties":{"A":1}}`)
	f("records not first, and damaged", `{"schema":"1","records":[`+a+`,{"x":y},`+b+`]}`, "[1 2]", `{"schema":"1","records":`, `{"x":y}`)
	f("list closed too early", `{"records":[`+a+`],`+b+`,`+c+`]}`, "[1 2 3]")
	f("text between", `{"records":[`+a+`, oops `+b+`,"s" `+c+`]}`, "[1 2 3]", `oops`, `"s"`)
}

func TestOneBadOfFourHundred(t *testing.T) {
	for _, bad := range []string{`{"time":"x","category":"AdvancedHunting-A","properties":{"A":"b}}`, `{]`, `"`, `{"a":"\"}`, `[{`, `}}}]`} {
		var b strings.Builder
		b.WriteString(`{"records":[`)
		for i := range 400 {
			if i > 0 {
				b.WriteByte(',')
			}
			if i == 200 {
				b.WriteString(bad)
			} else {
				b.WriteString(good(i))
			}
		}
		b.WriteString(`]}`)
		tr := transform.New(transform.Config{})
		events := run(t, tr, b.String())
		if n := len(goods(events)); n != 399 {
			t.Errorf("%q: %d good records", bad, n)
		}
		if tr.Stats().Damaged.Load() != 1 {
			t.Errorf("%q: damage was not counted", bad)
		}
	}
}

// Wherever an envelope is cut, its whole records arrive, and so does the rest.
func TestCutEverywhere(t *testing.T) {
	whole := `{"records":[` + good(0) + `, ` + good(1) + `,` + good(2) + `]}`
	var ends []int
	for i := range 3 {
		ends = append(ends, strings.Index(whole, fmt.Sprintf("good-%d", i))+len(good(i))-strings.Index(good(i), fmt.Sprintf("good-%d", i)))
	}
	for cut := 1; cut < len(whole); cut++ {
		tr := transform.New(transform.Config{})
		events := run(t, tr, whole[:cut])
		want, last := 0, len(`{"records":[`)
		for _, end := range ends {
			if cut >= end {
				want++
				last = end
			}
		}
		if n := len(goods(events)); n != want {
			t.Fatalf("cut at %d: %d records, want %d", cut, n, want)
		}
		rest := strings.Trim(whole[min(last, cut):cut], " ,]}")
		if cut <= len(`{"records":[`) {
			rest = whole[:cut]
		}
		texts := raws(t, events)
		if got := strings.Join(texts, ""); strings.Trim(got, " ,]}") != strings.Trim(rest, " ,]}") {
			t.Fatalf("cut at %d: raw %q, want %q", cut, texts, rest)
		}
		if tr.Stats().Damaged.Load() != 1 {
			t.Fatalf("cut at %d: damage was not counted", cut)
		}
	}
}

// A source's reason goes with the payload, which is not looked into.
func TestReasonFromSource(t *testing.T) {
	tr := transform.New(transform.Config{EventID: true, Tables: []string{"AlertInfo"}})
	events := runPayloads(t, tr, []transform.Payload{{Body: []byte(good(1)[:40]), Lane: "hub/0", Offset: 77, Reason: "line cut"}})
	if len(events) != 1 || events[0].m["unreadable_reason"] != "line cut" || events[0].m["unreadable_raw"] != good(1)[:40] ||
		events[0].m["unreadable_offset"] != int64(77) || events[0].m["unreadable_at"] != int64(0) || len(events[0].m["event_id"].(string)) != 32 {
		t.Errorf("got %v", events)
	}
	if tr.Stats().Unreadable()["source"] != 1 {
		t.Error("not counted")
	}
}

// Damage that is made to be slow to look through is passed on instead.
func TestSlowDamage(t *testing.T) {
	for _, unit := range []string{`[{"time":`, `[{"time":1},`, `{"a":[` + good(5) + `,`, `{"records":[` + good(5) + `],"x":[`, `"`, `{"category":"`, `{"`, `{"a":x},`} {
		tr := transform.New(transform.Config{})
		bad := strings.Repeat(unit, 400_000/slower/len(unit))
		start := time.Now()
		events := run(t, tr, good(1), `{"records":[`+good(2)+`,`+bad, good(3))
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("%s: took %v", unit, took)
		}
		ns := goods(events)
		if ns[0] != 1 || ns[1] != 2 || ns[len(ns)-1] != 3 {
			t.Errorf("%s: good records %d %d ... %d", unit, ns[0], ns[1], ns[len(ns)-1])
		}
	}
}

func TestPieces(t *testing.T) {
	tr := transform.New(transform.Config{EventID: true})
	text := "not JSON: " + strings.Repeat("grüße ", 20_000)
	events := run(t, tr, text)
	if len(events) < 4 {
		t.Fatalf("%d pieces", len(events))
	}
	ids := map[any]bool{}
	for i, e := range events {
		if len(e.m["unreadable_raw"].(string)) > 32766 || e.m["unreadable_part"] != int64(i+1) || e.m["unreadable_parts"] != int64(len(events)) {
			t.Errorf("piece %d: %v", i, e.m["unreadable_part"])
		}
		ids[e.m["event_id"]] = true
	}
	if len(ids) != len(events) {
		t.Error("pieces share an id")
	}
	if got := raws(t, events); len(got) != 1 || got[0] != text {
		t.Error("the text is not what it was")
	}
}
