package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
)

// other stands for records without a category of Defender's, in the counts.
const other = "(other)"

// unreadable stands for text that is no JSON, in the counts. The plugin calls what it passes on raw
// the same.
const unreadable = "unreadable"

// A feed is what goes into the hub, and what must therefore come out.
type feed struct {
	messages [][]byte
	records  map[string]int // by table; counted here by encoding/json, which shares nothing with the plugin
	bytes    int64
	numbers  int    // records of a story have numbers from 0 up to here
	repeats  int    // records of a story that came before, beside those in records
	alert    string // the AlertId of the story
	from     []string
	grows    bool // while the plugin reads: how long that takes says nothing
}

// maxMessageBytes is what Event Hubs takes as one event.
const maxMessageBytes = 1_000_000

func (f *feed) total() (n int) {
	for _, c := range f.records {
		n += c
	}
	return n
}

func (f *feed) add(message []byte) {
	f.messages = append(f.messages, message)
	f.bytes += int64(len(message))
}

// tell fills a feed with n records of the story, in envelopes of mixed tables. repeats: so many of
// a hundred are followed by one that came before.
func tell(n int, seed uint64, repeats int) *feed {
	f := &feed{records: make(map[string]int), numbers: n}
	s := story.New(story.Options{Seed: seed, Repeats: repeats})
	f.alert = s.AlertID()
	for sizes := []int{100, 1, 37, 250, 12}; n > 0; sizes = append(sizes[1:], sizes[0]) {
		size := min(n, sizes[0])
		f.add(s.AppendEnvelope(nil, size))
		n -= size
	}
	f.repeats = int(s.Repeated())
	for table, c := range s.Counts() {
		f.records[table] = int(c)
	}
	return f
}

// replay fills a feed from files and folders of NDJSON or JSON: every file, hidden ones left out.
func replay(paths []string) (*feed, error) {
	f := &feed{records: make(map[string]int)}
	for _, root := range paths {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if strings.HasPrefix(d.Name(), ".") && path != root {
				if d.IsDir() {
					return filepath.SkipDir
				}
				return nil
			}
			if d.IsDir() {
				return nil
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			f.from = append(f.from, path)
			if err := f.file(text); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("replay %s: %w", root, err)
		}
	}
	if len(f.messages) == 0 {
		return nil, fmt.Errorf("replay %s: there is nothing in it", strings.Join(paths, " "))
	}
	return f, nil
}

// file adds a file: one message when it is a single JSON value (an envelope, an array, a record, on
// however many lines), else one message a line.
func (f *feed) file(text []byte) error {
	if json.Valid(text) {
		return f.message(text)
	}
	for line := range bytes.Lines(text) {
		if line = bytes.TrimRight(line, "\r\n"); len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if err := f.message(line); err != nil {
			return err
		}
	}
	return nil
}

func (f *feed) message(body []byte) error {
	if len(body) > maxMessageBytes {
		return fmt.Errorf("a message of %d bytes: Event Hubs takes no more than %d; split the envelope", len(body), maxMessageBytes)
	}
	f.add(body)
	return f.count(body)
}

// count adds what is in a message to the records that must come out.
func (f *feed) count(body []byte) error {
	var envelope struct{ Records *[]json.RawMessage }
	var array []json.RawMessage
	switch {
	case !json.Valid(body):
		f.records[unreadable]++
	case json.Unmarshal(body, &array) == nil:
		return f.countRecords(array)
	case json.Unmarshal(body, &envelope) == nil && envelope.Records != nil:
		return f.countRecords(*envelope.Records)
	default:
		return f.countRecords([]json.RawMessage{bytes.TrimSpace(body)})
	}
	return nil
}

func (f *feed) countRecords(records []json.RawMessage) error {
	for _, r := range records {
		if r[0] != '{' {
			f.records[unreadable]++
			continue
		}
		var head struct{ Category any }
		if err := json.Unmarshal(r, &head); err != nil {
			return err
		}
		category, _ := head.Category.(string)
		table, ok := strings.CutPrefix(category, "AdvancedHunting-")
		if !ok {
			table = other
		}
		f.records[table]++
	}
	return nil
}
