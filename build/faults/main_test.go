package main

import (
	"context"
	"errors"
	"strings"
	"testing"
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
