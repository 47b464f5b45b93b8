package input

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"
	"unicode/utf8"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// lockWait is how long OpenState waits for another holder of the file: long enough for the instance that a hot reload
// replaces to let go of it, short enough for a clear error at start.
const lockWait = 3 * time.Second

// State is the state file (setting db): positions, a copy of Event Hubs offsets, a snapshot of devices. It is a bbolt
// database, so a write is either there after a crash or not, and a second process is kept out by a lock.
//
// A nil *State is what the plugin works with when db is not set: it holds nothing and takes every write.
type State struct{ db *bbolt.DB }

// OpenState opens the file, and makes it if it does not exist. A file that is damaged is renamed, with an error in the
// log, and a new one begun: positions are then those of the sources' start settings.
func OpenState(path string, log *slog.Logger) (*State, error) {
	s, err := openState(path)
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("open state file %s: it is in use by another process, or by another [INPUT] section; give each its own db", path)
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("open state file %s: the directory %s does not exist; create it or change db", path, filepath.Dir(path))
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("open state file %s: permission denied; Fluent Bit's user must be able to write the file and its directory", path)
	case !errors.Is(err, errDamaged):
		return nil, fmt.Errorf("open state file %s: %w", path, err)
	case foreign(path):
		return nil, fmt.Errorf("open state file %s: this is a text file, not a state file; change db", path)
	}
	aside := path + time.Now().UTC().Format(".damaged-20060102T150405.000")
	if e := os.Rename(path, aside); e != nil {
		return nil, fmt.Errorf("set damaged state file aside: %w", errors.Join(e, err))
	}
	log.Error("state file is damaged: it was set aside and a new one begun; sources without positions of their own start where their start settings say",
		"file", path, "kept_as", aside, "error", err)
	s, err = openState(path)
	if err != nil {
		return nil, fmt.Errorf("open state file %s: %w", path, err)
	}
	return s, nil
}

var errDamaged = errors.New("damaged")

func openState(path string) (s *State, err error) {
	var db *bbolt.DB
	// bbolt reads through a memory map: a file that was cut short faults, and a page that was overwritten panics.
	// The whole file is checked here once, where both can be caught.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, fmt.Errorf("%w: %v", errDamaged, r)
		}
		if err != nil && db != nil {
			func() {
				defer func() { _ = recover() }()
				_ = db.Close()
			}()
		}
	}()
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait})
	var system syscall.Errno
	switch {
	case errors.Is(err, bolterrors.ErrTimeout), errors.As(err, &system):
		return nil, err
	case err != nil: // anything else that bbolt says is of the file's content, not all of it by a named error
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		// Walked here and not with tx.Check, which does so in a goroutine of its own where a panic ends the process.
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error { _ = bytes.Count(v, k); return nil })
		})
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return &State{db: db}, nil
}

// foreign tells whether the file begins with text: somebody's configuration or log, which must stay where it is.
func foreign(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := f.Read(head)
	return n > 0 && utf8.Valid(head[:n]) && bytes.IndexByte(head[:n], 0) < 0
}

// Get returns a copy of the value of key, or nil.
func (s *State) Get(bucket, key string) (value []byte, err error) {
	err = s.view(bucket, func(b *bbolt.Bucket) error {
		value = bytes.Clone(b.Get([]byte(key)))
		return nil
	})
	return value, err
}

// Each calls f for every key of bucket that begins with prefix, in order. key and value are valid only within f.
func (s *State) Each(bucket, prefix string, f func(key, value []byte) error) error {
	return s.view(bucket, func(b *bbolt.Bucket) error {
		c := b.Cursor()
		for k, v := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
			if err := f(k, v); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *State) view(bucket string, f func(*bbolt.Bucket) error) error {
	if s == nil {
		return nil
	}
	err := s.db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket([]byte(bucket)); b != nil {
			return f(b)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read state file %s: %w", s.db.Path(), err)
	}
	return nil
}

// Change is one key's new value; a nil Value deletes it.
type Change struct {
	Key   string
	Value []byte
}

// Write makes all changes or none, and returns when they are on disk.
func (s *State) Write(bucket string, changes []Change) error {
	if s == nil || len(changes) == 0 {
		return nil
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return err
		}
		for _, c := range changes {
			if c.Value == nil {
				err = b.Delete([]byte(c.Key))
			} else {
				err = b.Put([]byte(c.Key), c.Value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write state file %s: %w", s.db.Path(), err)
	}
	return nil
}

// Close lets go of the file. It waits for reads and writes that are under way.
func (s *State) Close() error {
	if s == nil {
		return nil
	}
	return s.db.Close()
}
