package input_test

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

func openState(t *testing.T, path string) *input.State {
	t.Helper()
	s, err := input.OpenState(path, logTo(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStateKeepsWhatWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defender.db")
	s := openState(t, path)
	err := s.Write("blob", []input.Change{{Key: "a/1", Value: []byte("x")}, {Key: "a/2", Value: []byte("y")}, {Key: "b/1", Value: []byte("z")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openState(t, path)
	defer s.Close()
	if err := s.Write("blob", []input.Change{{Key: "a/2"}, {Key: "a/3", Value: []byte("w")}}); err != nil {
		t.Fatal(err)
	}
	var got []string
	err = s.Each("blob", "a/", func(k, v []byte) error { got = append(got, string(k)+"="+string(v)); return nil })
	if err != nil || strings.Join(got, " ") != "a/1=x a/3=w" {
		t.Errorf("%v, %v", got, err)
	}
	if v, err := s.Get("blob", "b/1"); err != nil || string(v) != "z" {
		t.Errorf("%q, %v", v, err)
	}
	if v, err := s.Get("devices", "b/1"); err != nil || v != nil {
		t.Errorf("%q, %v", v, err)
	}
}

func TestNoStateFile(t *testing.T) {
	var s *input.State
	if err := s.Write("b", []input.Change{{Key: "k", Value: []byte("v")}}); err != nil {
		t.Error(err)
	}
	if v, err := s.Get("b", "k"); v != nil || err != nil {
		t.Error(v, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestStateFileMistakes(t *testing.T) {
	dir := t.TempDir()
	f := func(path, want string) {
		t.Helper()
		s, err := input.OpenState(path, logTo(io.Discard))
		if err == nil {
			s.Close()
			t.Errorf("%s: opened", path)
		} else if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %q does not say %q and the path", path, err, want)
		}
	}
	held := filepath.Join(dir, "held.db")
	s := openState(t, held)
	defer s.Close()
	f(held, "in use by another process")
	f(filepath.Join(dir, "none", "defender.db"), "does not exist; create it")

	link := filepath.Join(dir, "link.db")
	if err := os.Symlink(filepath.Join(dir, "gone", "defender.db"), link); err != nil {
		t.Fatal(err)
	}
	f(link, "it is a link to a place that does not exist; remove it")
	f(filepath.Join(dir, "new.db")+"/", "change db to the path of a file")
	f(filepath.Join(held, "defender.db"), "change db to the path of a file")

	conf := filepath.Join(dir, "fluent-bit.conf")
	text := strings.Repeat("[INPUT]\n    name defender\n", 500)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f(conf, "a text file")
	tail := filepath.Join(dir, "tail.db") // what Fluent Bit's own inputs keep
	other, err := sql.Open("sqlite", tail)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec("create table in_tail_files (id integer primary key)"); err != nil {
		t.Fatal(err)
	}
	other.Close()
	f(tail, "a database of another program")
	if b, err := os.ReadFile(conf); err != nil || string(b) != text {
		t.Error("somebody's text file was changed")
	}
	if os.Getuid() != 0 {
		closed := filepath.Join(dir, "closed")
		if err := os.Mkdir(closed, 0o500); err != nil {
			t.Fatal(err)
		}
		f(filepath.Join(closed, "defender.db"), "permission denied")
	}
}

// The bbolt database of earlier versions is read once, as far as it can be, and stays beside.
func TestStateFileOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := filepath.Join(dir, "good.db")
	db, err := bbolt.Open(good, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]string)
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, bucket := range []string{"blob", "devices", "eventhub"} {
			b, err := tx.CreateBucket([]byte(bucket))
			if err != nil {
				return err
			}
			for i := range map[string]int{"blob": 3000, "devices": 300, "eventhub": 3}[bucket] {
				key, value := goodKey(i), goodValue(bucket, goodKey(i), i)
				if i%50 == 0 {
					value = append(value, bytes.Repeat([]byte{7}, 9000)...) // of several pages
				}
				want[bucket+" "+key] = string(value)
				if err := b.Put([]byte(key), value); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	busy := filepath.Join(dir, "busy.db")
	if err := os.Symlink(good, busy); err != nil {
		t.Fatal(err)
	}
	if _, err := input.OpenState(busy, logTo(io.Discard)); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("the earlier version still runs: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}

	f := func(name string, old []byte, least int) {
		t.Helper()
		path := filepath.Join(dir, name+".db")
		if err := os.WriteFile(path, old, 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		s, err := input.OpenState(path, logTo(&log))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		defer s.Close()
		n := 0
		for _, bucket := range []string{"blob", "devices", "eventhub"} {
			err := s.Each(bucket, "", func(key, value []byte) error {
				if want[bucket+" "+string(key)] == string(value) {
					n++
				}
				return nil
			})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n < least || n > len(want) {
			t.Errorf("%s: %d of %d entries, want at least %d; the log: %s", name, n, len(want), least, log.String())
		}
		// bbolt has no checksums: a page inside of one value is not missed.
		if strings.Count(log.String(), "level=ERROR") > 1 || n < len(want)-1 && !strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("%s: the log has %s", name, log.String())
		}
		if kept, _ := filepath.Glob(path + ".before-*"); len(kept) == 1 {
			if b, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(b, old) {
				t.Errorf("%s: the old file was changed", name)
			}
		} else if kept, _ := filepath.Glob(path + ".damaged-*"); len(kept) != 1 {
			t.Errorf("%s: the old file is not there any more", name)
		}
	}
	f("whole", whole, len(want))
	f("cut", whole[:len(whole)/2/4096*4096], 0)
	f("a page of zeros", slices.Concat(whole[:5*4096], make([]byte, 4096), whole[6*4096:]), 0)
	itself := bytes.Clone(whole) // branches that point at the branch
	for page := 2; page < len(itself)/4096; page++ {
		b := itself[page*4096:]
		if binary.NativeEndian.Uint16(b[8:]) == 1 {
			for i := range int(binary.NativeEndian.Uint16(b[10:])) {
				binary.NativeEndian.PutUint64(b[16+16*i+8:], uint64(page))
			}
		}
	}
	f("itself", itself, 0)
	overflow := bytes.Clone(whole)
	for page := 2; page < len(overflow)/4096; page++ {
		binary.NativeEndian.PutUint32(overflow[page*4096+12:], 1<<31)
	}
	f("overflow", overflow, 0)
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 20 {
		b := bytes.Clone(whole)
		for range 1 + rnd.IntN(20) {
			b[2*4096+rnd.IntN(len(b)-2*4096)] = byte(rnd.Uint32())
		}
		path := filepath.Join(dir, fmt.Sprintf("random-%d.db", i))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := input.OpenState(path, logTo(io.Discard))
		if err != nil {
			t.Errorf("change %d: %v", i, err)
			continue
		}
		s.Close()
	}
}

// What the file cannot take does not keep the rest out.
func TestStateLeavesOutWhatIsTooLong(t *testing.T) {
	var log bytes.Buffer
	s, err := input.OpenState(filepath.Join(t.TempDir(), "defender.db"), logTo(&log))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	long := strings.Repeat("t", 40_000)
	for range 2 {
		err = s.Write("devices", []input.Change{{Key: "a", Value: []byte("1")}, {Key: long, Value: []byte("2")}, {Key: "b", Value: make([]byte, 2<<20)}, {Key: "c", Value: []byte{}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	for key, want := range map[string][]byte{"a": []byte("1"), long: nil, "b": nil, "c": {}} {
		if v, err := s.Get("devices", key); err != nil || !bytes.Equal(v, want) || (v == nil) != (want == nil) {
			t.Errorf("%.10s: %q, %v", key, v, err)
		}
	}
	if s.Skipped() != 4 || strings.Count(log.String(), "level=") != 1 || !strings.Contains(log.String(), "key_bytes=40000") {
		t.Errorf("%d skipped, the log has %s", s.Skipped(), log.String())
	}
}

// A file that is changed while it is open: what is missing is begun anew, and the next write is on
// the disk.
func TestStateFileChangedWhileOpen(t *testing.T) {
	f := func(name string, change func(path string) error) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "defender.db")
		var log bytes.Buffer
		s, err := input.OpenState(path, logTo(&log))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var changes []input.Change
		for i := range 1000 {
			changes = append(changes, input.Change{Key: goodKey(i), Value: goodValue("blob", goodKey(i), 1)})
		}
		if err := s.Write("blob", changes); err != nil {
			t.Fatal(err)
		}
		if err := change(path); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get("blob", goodKey(1)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.Write("blob", changes[:10]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(log.String(), "is damaged: it was set aside and a new one begun") {
			t.Errorf("%s: the log has %s", name, log.String())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		s = openState(t, path)
		defer s.Close()
		if v, err := s.Get("blob", goodKey(9)); err != nil || !bytes.Equal(v, changes[9].Value) {
			t.Errorf("%s: after another start %q, %v", name, v, err)
		}
	}
	f("cut", func(path string) error { return os.Truncate(path, 4096) })
	f("emptied", func(path string) error { return os.Truncate(path, 0) })
	f("deleted", os.Remove)
	f("moved", func(path string) error { return os.Rename(path, path+".away") })
	f("overwritten", func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("x"), 300_000), 0o600) })
}

// A state that cannot be replaced is given up, said once, and used again when it can be.
func TestStateIsGivenUpAndComesBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s, err := input.OpenState(filepath.Join(dir, "defender.db"), logTo(&log))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	one := []input.Change{{Key: "k", Value: []byte("v")}}
	for range 3 {
		if err := s.Write("blob", one); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
			t.Errorf("the directory is gone: %v", err)
		}
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "cannot be replaced") {
		t.Errorf("said %d times: %s", n, log.String())
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	input.HealNow(s)
	if err := s.Write("blob", one); err != nil {
		t.Error(err)
	}
	if v, err := s.Get("blob", "k"); err != nil || string(v) != "v" {
		t.Errorf("%q, %v", v, err)
	}
}

// However the file was damaged: it is either read as it should be, or set aside whole, with an
// error that says so.
func TestDamagedStateFileIsSetAside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := filepath.Join(dir, "good.db")
	s := openState(t, good)
	for i := range 20 {
		var changes []input.Change
		for j := range 50 {
			changes = append(changes, input.Change{Key: fmt.Sprintf("lane-%d-%d", i, j), Value: bytes.Repeat([]byte{byte(j)}, 100)})
		}
		if err := s.Write("blob", changes); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}

	aside := 0
	f := func(name string, damaged []byte) {
		t.Helper()
		path := filepath.Join(dir, name+".db")
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		s, err := input.OpenState(path, logTo(&log))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		defer s.Close()
		kept, _ := filepath.Glob(path + ".damaged-*")
		if len(kept) == 0 {
			return // the damage was in a page that is not in use
		}
		aside++
		if b, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(b, damaged) {
			t.Errorf("%s: the file that was set aside differs", name)
		}
		if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), kept[0]) {
			t.Errorf("%s: not said: %s", name, log.String())
		}
		if err := s.Write("blob", []input.Change{{Key: "k", Value: []byte("v")}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	f("no magic", append(bytes.Repeat([]byte{0xff}, 8192), whole[8192:]...))
	f("cut to a page", whole[:4096])
	f("cut to a half", whole[:len(whole)/2])
	f("garbage", bytes.Repeat([]byte{0, 1, 2, 0xfe}, 5000))
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 40 {
		b := bytes.Clone(whole)
		page := 4096 * rnd.IntN(len(b)/4096)
		for j := range 4096 {
			b[page+j] = byte(rnd.Uint32())
		}
		f(fmt.Sprintf("page-%d", i), b)
	}
	if aside < 4 {
		t.Errorf("only %d files were set aside: this test shows nothing", aside)
	}
}
