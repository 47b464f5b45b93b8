package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestOpenFiles gives a process files whose kinds are known.
func TestOpenFiles(t *testing.T) {
	s, err := startSink(&ledger{}, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	defer s.setDown(true)
	r := &run{dir: t.TempDir(), sinkUp: s}
	r.sinkOnce.Do(func() {})
	h := &host{r: r, real: true, name: "host1"}
	if err := os.MkdirAll(h.storage(), 0o700); err != nil {
		t.Fatal(err)
	}
	chunk, err := os.Create(filepath.Join(h.storage(), "1.flb"))
	if err != nil {
		t.Fatal(err)
	}
	defer chunk.Close()
	state, err := os.Create(filepath.Join(r.dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	delivery, err := conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer delivery.Close()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()

	list := func(extra ...*os.File) openFiles {
		cmd := exec.Command("cat")
		cmd.ExtraFiles = extra
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = stdin.Close(); _ = cmd.Wait() }()
		h.process = &process{cmd: cmd}
		files, err := h.openFiles()
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	without, files := list(), list(chunk, state, delivery, out) // a test may itself be started with files that it passes on
	if n := files.own() - without.own(); n != 2 {
		t.Errorf("%d more of them count, want 2: chunks and deliveries are the host's", n)
	}
	for kind, n := range without {
		if files[kind] -= n; files[kind] == 0 {
			delete(files, kind)
		}
	}
	if got, want := files.String(), "1 chunk, 1 output, 1 pipe, 1 state"; got != want {
		t.Errorf("the files given to it are %s, want %s", got, want)
	}
}
