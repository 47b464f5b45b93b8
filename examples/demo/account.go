package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
)

const (
	growFor   = 4 * time.Second // how long the account grows while the plugin reads
	blockSize = 35_600          // bytes of an append, as Defender's have on average
)

// An account is a storage account inside the process that is filled as Defender fills one: a
// container a table, an append blob an hour, a record a line. The first half of the story is there
// before the plugin starts, in the hour before this one; the rest is appended while it runs, in
// blocks that end anywhere in a line.
type account struct {
	*fakeblob.Server
	later   []block
	growing sync.WaitGroup
}

// block is the content of one append.
type block struct {
	container, name string
	text            []byte
}

func startAccount(f *feed) (*account, error) {
	s, err := fakeblob.Start()
	if err != nil {
		return nil, err
	}
	a := &account{Server: s}
	hour := time.Now().UTC().Truncate(time.Hour)
	half := len(f.messages) / 2
	for _, b := range blocks(f.messages[:half], hour.Add(-time.Hour)) {
		a.Append(b.container, b.name, b.text)
	}
	a.later = blocks(f.messages[half:], hour)
	return a, nil
}

// grow appends the rest, bit by bit, until ctx ends.
func (a *account) grow(ctx context.Context) {
	a.growing.Go(func() {
		tick := time.NewTicker(growFor / time.Duration(max(len(a.later), 1)))
		defer tick.Stop()
		for _, b := range a.later {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				a.Append(b.container, b.name, b.text)
			}
		}
	})
}

// close waits for the goroutines of grow, whose ctx has ended, and stops the server.
func (a *account) close() {
	a.growing.Wait()
	a.Close()
}

// blocks files lines under their table's container and the hour, and cuts each blob into blocks.
func blocks(lines [][]byte, hour time.Time) []block {
	name := "tenantId=" + story.Tenant + hour.Format("/y=2006/m=01/d=02/h=15") + "/m=00/PT1H.json"
	var all []block
	open := make(map[string]int) // container -> its last block
	for _, line := range lines {
		_, rest, _ := bytes.Cut(line, []byte(`"AdvancedHunting-`))
		table, _, _ := bytes.Cut(rest, []byte(`"`))
		container := "insights-logs-advancedhunting-" + strings.ToLower(string(table))
		for len(line) > 0 {
			i, ok := open[container]
			if !ok || len(all[i].text) == blockSize {
				i = len(all)
				open[container] = i
				all = append(all, block{container: container, name: name})
			}
			n := min(len(line), blockSize-len(all[i].text))
			all[i].text = append(all[i].text, line[:n]...)
			line = line[n:]
		}
	}
	return all
}

// tellLines fills a feed with n records of the story, a line each.
func tellLines(n int, seed uint64) *feed {
	f := &feed{records: make(map[string]int), numbers: n, grows: true}
	s := story.New(story.Options{Seed: seed})
	f.alert = s.AlertID()
	for range n {
		f.add(s.AppendLine(nil))
	}
	for table, c := range s.Counts() {
		f.records[table] = int(c)
	}
	return f
}

// settings of the plugin for the account.
func (a *account) settings(dir string) ([][2]string, error) {
	secret := filepath.Join(dir, "connection_string")
	if err := os.WriteFile(secret, []byte(a.ConnectionString()+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("write connection string: %w", err)
	}
	return [][2]string{
		{"blob.connection_string_file", secret},
		{"blob.start", "earliest"},
		{"blob.poll_interval", "1s"},
		{"db", filepath.Join(dir, "defender.db")},
	}, nil
}
