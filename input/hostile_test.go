package input_test

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// ends fails the test when f has not returned after a time that no access to a small file takes.
func ends(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("hangs")
	}
}

const createState = `create table defender_state
		(bucket text not null, key text not null, value blob not null, crc integer not null, primary key (bucket, key)) without rowid`

func sqlite(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(s, err)
		}
	}
}

func crcOf(bucket, key string, value []byte) int64 {
	return int64(crc32.Checksum([]byte(bucket+"\x00"+key+"\x00"+string(value)), crc32.MakeTable(crc32.Castagnoli)))
}

// Files that are whole as SQLite sees them, and made to keep it busy for ever, or to fill memory.
// Each is opened in a process of its own, since memory is the process's: tests beside it take some.
func TestHostileDatabase(t *testing.T) {
	t.Parallel()
	const endless = "with recursive c(x) as (select 1 union all select x + 1 from c)"
	for name, make := range map[string]func(t *testing.T, path string){
		"a view without end": func(t *testing.T, path string) {
			sqlite(t, path, "create view defender_state as "+endless+" select 'b' as bucket, 'k' || x as key, x'00' as value, 1 as crc from c")
		},
		"a view with triggers": func(t *testing.T, path string) {
			sqlite(t, path, "create table t (x)",
				"create view defender_state as "+endless+" select 'b' as bucket, 'k' || x as key, x'00' as value, 1 as crc from c",
				"create trigger a instead of insert on defender_state begin select 1; end",
				"create trigger b instead of update on defender_state begin select 1; end",
				"create trigger c instead of delete on defender_state begin select 1; end")
		},
		"a trigger without end": func(t *testing.T, path string) {
			sqlite(t, path, createState, "create table t (x)",
				"create trigger a after insert on defender_state begin insert into t "+endless+" select x from c; end")
		},
		"a schema of 60 MB": func(t *testing.T, path string) {
			sqlite(t, path, createState, "pragma writable_schema = 1",
				"update sqlite_schema set sql = sql || printf('%.*c', 60000000, ' ')")
		},
		"what ANALYZE adds": func(t *testing.T, path string) {
			sqlite(t, path, createState, "insert into defender_state values ('b', 'k', x'76', "+fmt.Sprint(crcOf("b", "k", []byte("v")))+")", "analyze")
		},
		"a value of 100 MB": func(t *testing.T, path string) {
			sqlite(t, path, createState, "insert into defender_state values ('b', 'k', zeroblob(100000000), 1)")
		},
		"a key of 60 MB": func(t *testing.T, path string) {
			sqlite(t, path, createState, "insert into defender_state values ('b', printf('%.*c', 60000000, 'k'), x'00', 1)")
		},
		"pages that hold each other": func(t *testing.T, path string) {
			sqlite(t, path, createState)
			tree(t, path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.db")
			make(t, path)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestHostileDatabaseOpened$", "-test.count=1")
			cmd.Env = append(os.Environ(), "DEFENDER_HOSTILE_CHILD="+path)
			out, err := cmd.CombinedOutput()
			if ctx.Err() != nil {
				t.Fatal("hangs")
			}
			_, after, _ := strings.Cut(string(out), "GROWN ")
			var grown int64
			if _, scan := fmt.Sscan(after, &grown); err != nil || scan != nil {
				t.Fatalf("%v\n%.3000s", err, out)
			}
			if grown > 40<<20 {
				t.Errorf("it took %d MB", grown>>20)
			}
			if name == "what ANALYZE adds" && !strings.Contains(string(out), "entries_saved=1") {
				t.Errorf("the entry beside it is not kept: %s", out)
			}
		})
	}
}

// TestHostileDatabaseOpened is the process of TestHostileDatabase. It prints by how many bytes the
// file made it grow.
func TestHostileDatabaseOpened(t *testing.T) {
	path := os.Getenv("DEFENDER_HOSTILE_CHILD")
	if path == "" {
		return
	}
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	before := resident(t)
	s, err := input.OpenState(path, log)
	if err == nil {
		_ = s.Each("b", "", func(_, _ []byte) error { return nil })
		_, _ = s.Get("b", "k")
		if err := s.Write("b", []input.Change{{Key: "mine", Value: []byte("v")}}); err != nil {
			t.Errorf("write: %v", err)
		}
		if v, err := s.Get("b", "mine"); err != nil || string(v) != "v" {
			t.Errorf("what was written is %q, %v", v, err)
		}
		s.Close()
	} else {
		t.Logf("open: %v", err)
	}
	fmt.Println("GROWN", resident(t)-before)
}

// resident is the most memory that the process has had, in bytes.
func resident(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	var kB int64
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	if _, err := fmt.Sscan(rest, &kB); err != nil {
		t.Fatal(err)
	}
	return kB << 10
}

// tree makes the root of the table an interior page of an index. Its children are one and the same
// page, and so on for many levels. A walk through it takes longer than anybody waits.
func tree(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const size, levels = 4096, 12
	root := len(b)/size - 1 // the table's, which is the last
	page := func(interior bool, child uint32) []byte {
		p := make([]byte, size)
		// The record: bucket 'b', key 'k', a value and a checksum of one byte.
		record := []byte{5, 15, 15, 14, 1, 'b', 'k', 'v', 1}
		cell := append([]byte{byte(len(record))}, record...)
		if interior {
			cell = append(binary.BigEndian.AppendUint32(nil, child), cell...)
		}
		head := 8
		p[0] = 0x0a
		if interior {
			head, p[0] = 12, 0x02
			binary.BigEndian.PutUint32(p[8:], child)
		}
		n, at := 60, size
		for i := range n {
			at -= len(cell)
			copy(p[at:], cell)
			binary.BigEndian.PutUint16(p[head+2*i:], uint16(at))
		}
		binary.BigEndian.PutUint16(p[3:], uint16(n))
		binary.BigEndian.PutUint16(p[5:], uint16(at))
		return p
	}
	out := append([]byte{}, b[:root*size]...)
	for level := range levels {
		out = append(out, page(level < levels-1, uint32(root+level+2))...)
	}
	binary.BigEndian.PutUint32(out[28:], uint32(len(out)/size))
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Things that are no files, under the names that SQLite opens. A pipe without a writer blocks who
// opens it.
func TestStateFileIsNoFile(t *testing.T) {
	for _, suffix := range []string{"", "-journal", "-wal"} {
		t.Run("a pipe"+suffix, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.db")
			if suffix != "" {
				s, err := input.OpenState(path, slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				_ = os.Remove(path + suffix)
			}
			if err := syscall.Mkfifo(path+suffix, 0o600); err != nil {
				t.Fatal(err)
			}
			ends(t, func() {
				s, err := input.OpenState(path, slog.New(slog.DiscardHandler))
				if err == nil {
					_ = s.Close()
				}
				if err == nil || !strings.Contains(err.Error(), "no file") || !strings.Contains(err.Error(), path+suffix) {
					t.Errorf("open: %v", err)
				}
			})
		})
	}
	t.Run("a pipe in its place while it is open", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "state.db")
		s, err := input.OpenState(path, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		put := func(key string) error { return s.Write("b", []input.Change{{Key: key, Value: []byte("v")}}) }
		if err := put("k"); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(path)
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		ends(t, func() {
			if err := put("l"); err == nil || !strings.Contains(err.Error(), "no file") {
				t.Errorf("write: %v", err)
			}
			_ = s.Close()
		})
	})
}
