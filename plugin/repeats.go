package main

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/repeats"
)

const (
	idBucket    = "repeats" // of the state file: number of an entry, in hex -> ids, one after the other
	idsInFile   = 256 << 10 // that a start knows, 4 MB
	idsAnEntry  = 256       // an entry with fewer is written again with more: a page of the file
	mostAnEntry = 32 << 10  // half of the longest value in the state file
	idBytes     = len(input.ID{})
	leastForIDs = 1 << 20
)

// readRepeats returns how many bytes ids of records may take, or 0 when repeats are not recognised.
// They are part of memory, the section's memory_limit.
func readRepeats(s *input.Settings, memory int64) (size int64) {
	drop := s.Choice("repeats") == "drop"
	if !s.Switch("event_id") {
		if drop {
			s.Reject("repeats", "needs event_id to recognise repeats; set event_id to on, or repeats to pass")
		}
		return 0
	}
	size = s.Bytes("repeats.memory")
	switch {
	case !s.IsSet("repeats.memory"):
		size = memory / 16
	case size > memory/4:
		s.Reject("repeats.memory", "is more than a quarter of memory_limit; raise that, or set less")
	case size < leastForIDs && (size > 0 || drop):
		s.Reject("repeats.memory", "is too little; set at least 1M, or 0 and repeats to pass")
	}
	return size
}

// ids are the event_ids of the records that the section has handed on. With repeats: drop, the
// newest of them are in the state file.
//
// There they are only once the host has taken their events. They are written before the positions
// of their messages. A host that is killed in between reads the messages again, and drops them: the
// host has them.
type ids struct {
	*repeats.Memory
	state *input.State // nil when none are kept there
	log   *slog.Logger

	mu      sync.Mutex // of one write at a time; covers the fields below
	entries []idEntry  // of the state file, oldest first
	stored  int        // ids in them
	last    []byte     // the value of the last one
	next    uint64     // number of the next one
	failing bool       // it was logged that writing fails
}

type idEntry struct {
	number uint64
	ids    int
}

func (e idEntry) key() string { return fmt.Sprintf("%016x", e.number) }

// openIDs reads the ids of the state file. Without repeats: drop it removes them: they would be old
// by the time that they are of use.
func openIDs(c config, state *input.State, log *slog.Logger) *ids {
	d := &ids{Memory: repeats.NewMemory(c.repeats), log: log}
	if state == nil {
		return d
	}
	if !c.transform.DropRepeats {
		d.remove(state)
		return d
	}
	d.state = state
	err := state.Each(idBucket, "", func(key, value []byte) error {
		var e idEntry
		if _, err := fmt.Sscanf(string(key), "%016x", &e.number); err != nil || len(value)%idBytes != 0 {
			return nil
		}
		known := make([]repeats.ID, len(value)/idBytes)
		for i := range known {
			copy(known[i][:], value[i*idBytes:])
		}
		d.Add(known)
		e.ids = len(known)
		d.entries = append(d.entries, e)
		d.stored += e.ids
		d.last, d.next = append(d.last[:0], value...), e.number+1
		return nil
	})
	if err != nil {
		log.Warn("read ids of records from the state file: repeats of records from before this start are passed on", "error", err)
	}
	if d.stored > 0 {
		log.Info("ids of records read from the state file, to drop their repeats", "ids", d.stored)
	}
	return d
}

// kept tells whether ids are written to the state file.
func (d *ids) kept() bool { return d.state != nil }

// save writes the ids that safe returns. Those that cannot be written are left out: their repeats
// are passed on after a restart.
func (d *ids) save(safe func() []input.ID) {
	if d.state == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	err := func() (err error) {
		defer input.Catch("save ids of records", &err)
		return d.write(safe())
	}()
	switch {
	case err != nil && !d.failing:
		d.log.Warn("save ids of records to the state file; repeats of them are passed on after a restart", "error", err)
		d.failing = true
	case err == nil && d.failing:
		d.log.Info("ids of records are saved to the state file again")
		d.failing = false
	}
}

// write adds fresh to the entries, and removes the oldest when there are too many. mu is held.
func (d *ids) write(fresh []input.ID) error {
	if len(fresh) == 0 {
		return nil
	}
	var changes []input.Change
	entries, last, stored, next := append([]idEntry(nil), d.entries...), append([]byte(nil), d.last...), d.stored, d.next
	for len(fresh) > 0 {
		if n := len(entries); n == 0 || entries[n-1].ids >= idsAnEntry {
			entries, last = append(entries, idEntry{number: next}), nil
			next++
		}
		e := &entries[len(entries)-1]
		some := fresh[:min(len(fresh), mostAnEntry-e.ids)]
		for i := range some {
			last = append(last, some[i][:]...)
		}
		e.ids += len(some)
		stored += len(some)
		fresh = fresh[len(some):]
		changes = append(changes, input.Change{Key: e.key(), Value: last})
	}
	for len(entries) > 1 && stored-entries[0].ids >= idsInFile {
		changes = append(changes, input.Change{Key: entries[0].key()})
		stored -= entries[0].ids
		entries = entries[1:]
	}
	if err := d.state.Write(idBucket, changes); err != nil {
		return err
	}
	d.entries, d.last, d.stored, d.next = entries, last, stored, next
	return nil
}

// forget makes all ids unknown, here and in the state file: their records are wanted again.
func (d *ids) forget() {
	d.Forget()
	if d.state == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries, d.last, d.stored = nil, nil, 0
	d.remove(d.state)
}

// remove takes all ids out of the state file.
func (d *ids) remove(state *input.State) {
	var old []input.Change
	err := state.Each(idBucket, "", func(key, _ []byte) error {
		old = append(old, input.Change{Key: string(key)})
		return nil
	})
	if err == nil {
		err = state.Write(idBucket, old)
	}
	if err != nil {
		d.log.Warn("remove ids of records from the state file; a restart drops records that it should not", "error", err)
	}
}
