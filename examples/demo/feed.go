package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
)

// other stands for records without a category of Defender's, in the counts.
const other = "(other)"

// unreadable stands for JSON that is no record, in the counts. The plugin calls what it passes on
// raw the same.
const unreadable = "unreadable"

// damaged stands for messages that are no JSON, in the counts. How many records can be saved of one
// is for the plugin to find: at least something must come out for each.
const damaged = "(damaged)"

// A feed has the messages for the hub, and the counts of records that must come out.
type feed struct {
	messages [][]byte
	records  map[string]int // by table; counted here by encoding/json, which shares no more with the plugin than the names of tables
	bytes    int64
	numbers  int    // records of a story have numbers from 0 up to here
	repeats  int    // records of a story that came before, beside those in records
	alert    string // the AlertId of the story
	from     []string
	grows    bool // while the plugin reads: how long that takes says nothing
}

// maxMessageBytes is the largest event that Event Hubs takes.
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

// file adds a file. Each value of JSON in it (an envelope, an array, a record) is one message, on
// any number of lines. A file that is packed or in UTF-16 is one message. Any other has one message
// a line.
func (f *feed) file(text []byte) error {
	if packed(text) {
		return f.message(text)
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if values, ok := split(text); ok {
		for _, v := range values {
			if err := f.message(v); err != nil {
				return err
			}
		}
		return nil
	}
	whole := len(text) <= maxMessageBytes
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		whole = whole && (!json.Valid(line) || line[0] != '{' && line[0] != '[')
	}
	if whole { // no line is a value: they belong together
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

// split returns the JSON values of a text one after the other, and false if it holds anything else.
func split(text []byte) (values []json.RawMessage, ok bool) {
	d := json.NewDecoder(bytes.NewReader(text))
	for {
		var v json.RawMessage
		switch err := d.Decode(&v); {
		case errors.Is(err, io.EOF):
			return values, true
		case err != nil:
			return nil, false
		}
		values = append(values, v)
	}
}

// message adds a message. A list or envelope that is larger than Event Hubs takes is parted.
func (f *feed) message(body []byte) error {
	if len(body) <= maxMessageBytes {
		f.add(body)
		if n := f.count(body); n > 0 {
			f.records[damaged] += n
		}
		return nil
	}
	var list []json.RawMessage
	if json.Unmarshal(body, &list) != nil {
		members := object(body)
		if len(members) != 1 || members[0].key != "records" || json.Unmarshal(members[0].value, &list) != nil {
			return fmt.Errorf("a message of %d bytes: Event Hubs takes no more than %d; split the envelope", len(body), maxMessageBytes)
		}
	}
	const open, end = `{"records":[`, `]}`
	for part := []byte(open); len(list) > 0 || len(part) > len(open); part = []byte(open) {
		for len(list) > 0 && (len(part) == len(open) || len(part)+len(list[0])+len(end) < maxMessageBytes) {
			if len(part) > len(open) {
				part = append(part, ',')
			}
			part, list = append(part, list[0]...), list[1:]
		}
		if len(part) == len(open) {
			break
		}
		if part = append(part, end...); len(part) > maxMessageBytes {
			return fmt.Errorf("a record of %d bytes: Event Hubs takes no more than %d", len(part), maxMessageBytes)
		}
		if err := f.message(part); err != nil {
			return err
		}
	}
	return nil
}
