package input_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

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

	conf := filepath.Join(dir, "fluent-bit.conf")
	text := strings.Repeat("[INPUT]\n    name defender\n", 500)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f(conf, "a text file")
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

// However the file was damaged: it is either read as it should be, or set aside whole, with an error that says so.
func TestDamagedStateFileIsSetAside(t *testing.T) {
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
