package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNeeds: a row that cannot be run is in the table, and fails when it was asked for by name.
func TestNeeds(t *testing.T) {
	w := &row{name: "far", fault: "none", source: "Far 1.0", hosts: both, needs: func(context.Context) error { return errors.New("needs Far 1.0: install far") }}
	for _, named := range []bool{false, true} {
		o := options{named: named, real: &realServers{}}
		result := o.attempt(t.Context(), w, false)
		if line := result.line(); !strings.Contains(line, "| not run: needs Far 1.0: install far |") {
			t.Errorf("named %t: the line is %s", named, line)
		}
		if failed := len(result.failures) > 0; failed != named {
			t.Errorf("named %t: failed %t: %s", named, failed, result.failures)
		}
	}
}

// The table of a run replaces all that the page says of an older one, and nothing
// around it.
func TestWriteReadme(t *testing.T) {
	page := filepath.Join(t.TempDir(), "README.md")
	if err := os.WriteFile(page, []byte("before\n"+readmeBegin+"of an older run\n"+readmeEnd+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := heading + "\n" + summary(77, 2, 26*time.Minute+40*time.Second, "0123456", firstLine("echo", "Fluent Bit v5.1.1\nGit commit: 0"), 7)
	if err := writeReadme(page, text); err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile(page)
	want := "before\n" + readmeBegin + heading + "\n77 rows in 27 minutes, at commit 0123456, with Fluent Bit 5.1.1, seed 7.\n2 more were not run.\n" + readmeEnd + "after\n"
	if err != nil || string(have) != want {
		t.Errorf("the page is %q (%v), want %q", have, err, want)
	}
	// The page of the repository has the markers, and says nothing of its run outside of them.
	real, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(real), readmeBegin)
	_, after, closed := strings.Cut(rest, readmeEnd)
	if !ok || !closed || strings.Contains(before+after, "seed ") || strings.Contains(before+after, "minutes") {
		t.Error("README.md lacks the markers, or says outside of them which run it shows")
	}
	if err := writeReadme(filepath.Join(t.TempDir(), "none"), text); err == nil {
		t.Error("a page that is not there is no error")
	}
}
