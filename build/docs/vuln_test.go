package docs

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A check for vulnerabilities that could not be made gives a loud warning. It fails where
// VULN_REQUIRED is set, and what was found fails everywhere.
func TestVulnRequired(t *testing.T) {
	t.Parallel()
	// Stands for `go`: "go run TOOL -db DB ./..." says what a test wants, and ends as it wants.
	tool := filepath.Join(t.TempDir(), "go")
	if err := os.WriteFile(tool, []byte("#!/bin/sh\necho \"$SAYS\"\nexit $ENDS\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	const unreachable = `govulncheck: fetching vulnerabilities: Get "https://vuln.go.dev/index/modules.json.gz": dial tcp: lookup vuln.go.dev: no such host`
	for _, row := range []struct {
		name, says, ends, required string
		code                       int
		loud                       bool
	}{
		{"none found", "No vulnerabilities found.", "0", "", 0, false},
		{"none found, required", "No vulnerabilities found.", "0", "1", 0, false},
		{"some found", "Your code is affected by 1 vulnerability from 1 module.", "3", "", 3, false},
		{"not checked", unreachable, "1", "", 0, true},
		{"not checked, required", unreachable, "1", "1", 1, true},
		{"not checked, required in words", unreachable, "1", "true", 1, true},
		{"does not compile, required", "input/pump.go:1:1: expected 'package'", "1", "1", 1, false},
		{"does not compile", "input/pump.go:1:1: expected 'package'", "1", "", 1, false},
	} {
		cmd := exec.Command("bash", filepath.Join(root, "build/vuln.sh"))
		cmd.Env = append(os.Environ(), "GO="+tool, "TOOL=govulncheck", "SAYS="+row.says, "ENDS="+row.ends, "VULN_REQUIRED="+row.required)
		out, err := cmd.CombinedOutput()
		code := 0
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			code = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if code != row.code || bytes.Contains(out, []byte("WERE NOT CHECKED")) != row.loud {
			t.Errorf("%s: ends with %d:\n%s", row.name, code, out)
		}
	}
}
