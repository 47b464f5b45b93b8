package blob_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
)

// wideOf is text in UTF-16 with its mark.
func wideOf(text string, order binary.AppendByteOrder) string {
	raw := order.AppendUint16(nil, 0xfeff)
	for _, u := range utf16.Encode([]rune(text)) {
		raw = order.AppendUint16(raw, u)
	}
	return string(raw)
}

// small is a configuration whose pieces have 64 kB.
func small(cfg blob.Config) blob.Config {
	cfg.FetchBytes, cfg.Workers = 1<<20, 8
	return cfg
}

// A value of more than a piece is read whole, with any text before it on its line, and however its
// text is stored.
func TestLongValueBehindSomething(t *testing.T) {
	t.Parallel()
	const mark = "\xef\xbb\xbf"
	var records []string
	for n := range 3 {
		records = append(records, record(n, 200<<10))
	}
	short := split(numbered("a", 0, 3))
	mixed := slices.Concat(short, records[:1], short, records[1:], short)
	for name, f := range map[string]struct {
		text string
		want []string
	}{
		"mark":                  {mark + records[0] + "\n" + records[1] + "\n", records[:2]},
		"two marks":             {mark + mark + records[0] + "\n", records[:1]},
		"blanks":                {" \t " + strings.Join(records, "\n   ") + "\n", records},
		"many blanks":           {short[0] + "\n" + strings.Repeat(" ", 200<<10) + records[0] + "\n", []string{short[0], records[0]}},
		"only blanks":           {short[0] + "\n" + strings.Repeat(" \r", 100<<10) + "\n" + records[0] + "\n", []string{short[0], records[0]}},
		"separators":            {"\x1e" + strings.Join(records, "\n\x1e") + "\n", records},
		"commas":                {records[0] + "\n," + records[1] + "\n , " + records[2] + "\n", records[:3]},
		"short ones among them": {mark + strings.Join(mixed, "\r\n  ") + "\r\n", mixed},
		"short ones, indented":  {"  " + strings.Join(slices.Repeat(short, 1000), "\n  ") + "\n", slices.Repeat(short, 1000)},
		"array":                 {mark + "[" + strings.Join(records, ",") + "]\n", records},
		"array of many lines":   {"  [\n  " + strings.Join(records, ",\n  ") + "\n  ]\n", records},
		"envelope":              {mark + ` {"records": [` + strings.Join(records, " , ") + "]}\n", records},
		"text":                  {mark + "  " + strings.Repeat("text ", 40<<10) + "\n" + records[0] + "\n", []string{strings.Repeat("text ", 40<<10), records[0]}},
		"no line break":         {mark + records[0], records[:1]},
	} {
		for form, store := range map[string]func(string) string{
			"plain":     func(text string) string { return text },
			"gzip":      func(text string) string { return zip(t, text) },
			"UTF-16LE":  func(text string) string { return wideOf(strings.TrimPrefix(text, mark), binary.LittleEndian) },
			"UTF-16BE":  func(text string) string { return wideOf(text, binary.BigEndian) },
			"wide gzip": func(text string) string { return zip(t, wideOf(text, binary.LittleEndian)) },
		} {
			if raceDetector && form != "plain" && form != "wide gzip" {
				continue
			}
			for _, grows := range []bool{false, true} {
				if grows && strings.Contains(form, "gzip") {
					continue
				}
				t.Run(fmt.Sprintf("%s, %s, grows %v", name, form, grows), func(t *testing.T) {
					t.Parallel()
					a := newFake(t, table)
					text, blobName := []byte(store(f.text)), pt1h(time.Now())
					ends := []int{3, 4, 6, len(text) / 2, len(text) - 2, len(text)}
					if !grows {
						ends = ends[len(ends)-1:]
					}
					r := start(t, small(a.config()), nil)
					for i, at := 0, 0; i < len(ends); i++ {
						a.fake.Append(table, blobName, text[at:ends[i]])
						at = ends[i]
						lists := a.fake.Count(fakeblob.ListBlobs)
						r.until("some polls", func() bool { return a.fake.Count(fakeblob.ListBlobs) > lists+2 })
					}
					r.until("all values", func() bool { return r.count() >= len(f.want) || r.src.Stats().BytesSkipped > 0 })
					same(t, r.texts(""), f.want)
				})
			}
		}
	}
}

// A value beyond the limit costs itself: its beginning is passed on, its rest is skipped and
// logged, and what follows is read. This holds wherever it stands and however its text is stored,
// with few reads. A value below the limit is whole.
func TestValuesAroundTheLimit(t *testing.T) {
	t.Parallel()
	const limit = 300 << 10
	after := split(numbered("after", 0, 3))
	end := "\n" + strings.Join(after, "\n") + "\n"
	for name, f := range map[string]struct {
		before, begin, filler, end, behind string
	}{
		"object":                  {begin: `{"a":"`, filler: "x", end: `"}`},
		"array":                   {begin: `["`, filler: "x", end: `"]`},
		"array of numbers":        {begin: `[`, filler: "0,", end: `0]`},
		"text":                    {begin: "t", filler: "t", end: "t"},
		"string":                  {begin: `"`, filler: "x", end: `"`},
		"characters of two bytes": {begin: `{"a":"`, filler: "\u00fc", end: `"}`},
		"of three bytes":          {begin: `{"a":"`, filler: "\u20ac", end: `"}`},
		"of four bytes":           {begin: `{"a":"`, filler: "\U0001f600", end: `"}`},
		"object behind blanks":    {before: "\n \t", begin: `{"a":"`, filler: "x", end: `"}`},
		"beside records":          {before: `{"records":[{"a":1}],`, begin: `"b":"`, filler: "x", end: `"`, behind: "}"},
		"key beside records":      {before: `{"records":[{"a":1}],`, begin: `"`, filler: "x", end: `":1`, behind: "}"},
		"record of a list":        {before: `[{"a":"0"},`, begin: `{"a":"`, filler: "x", end: `"}`, behind: `,{"a":"1"}]`},
		"last record of a list":   {before: `[{"a":"0"},`, begin: `{"a":"`, filler: "x", end: `"}`, behind: "]"},
		"text in a list":          {before: `[{"a":"0"},`, begin: `"`, filler: "x", end: `"`, behind: "]"},
	} {
		for form, store := range map[string]func(string) string{
			"plain":    func(text string) string { return text },
			"gzip":     func(text string) string { return zip(t, text) },
			"UTF-16":   func(text string) string { return wideOf(text, binary.LittleEndian) },
			"odd":      func(text string) string { return wideOf(text, binary.BigEndian) + "\x00" },
			"odd gzip": func(text string) string { return zip(t, wideOf(text, binary.BigEndian)+"\x00") },
		} {
			if raceDetector && form != "plain" && form != "odd gzip" {
				continue
			}
			for _, size := range []int{limit, limit + 1, limit + 5000, 2*limit + 12345} {
				t.Run(fmt.Sprintf("%s, %s, %d", name, form, size), func(t *testing.T) {
					t.Parallel()
					a := newFake(t, table)
					value := f.begin + strings.Repeat(f.filler, (size-len(f.begin)-len(f.end))/len(f.filler)) + f.end
					if name == "text" || f.filler == "x" {
						if len(value) != size {
							t.Fatal("this test is wrong")
						}
					}
					text := store(f.before + value + f.behind + end)
					a.fake.Put(table, pt1h(time.Now()), []byte(text))
					cfg := small(a.config())
					cfg.LineLimit = limit
					r := start(t, cfg, nil)
					r.until("what follows", func() bool { texts := r.texts(""); return len(texts) > 0 && texts[len(texts)-1] == after[2] })
					texts := r.texts("")
					same(t, texts[len(texts)-3:], after)
					s := r.src.Stats()
					if n := int64(len(text)/(64<<10)*3 + 20); s.Reads > n {
						t.Errorf("%d reads for %d bytes", s.Reads, len(text))
					}
					if whole := len(value) <= limit; whole != slices.Contains(texts, value) {
						t.Errorf("whole: %v", !whole)
					} else if whole {
						if s.LinesCut != 0 {
							t.Errorf("%+v", s)
						}
						return
					}
					if s.LinesCut != 1 || s.BytesSkipped < int64(len(value)-limit) {
						t.Errorf("%+v", s)
					}
					r.says("a value is too long")
					r.says("skipped the rest")
				})
			}
		}
	}
}
