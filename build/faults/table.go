package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// heading is the first two lines of the table.
const heading = "| fault | source | host | events in | distinct out | lost | duplicates | unreadable | recovered in | peak memory |\n" +
	"|---|---|---|--:|--:|--:|--:|--:|--:|--:|\n"

// line is the outcome's line of the table.
func (o *outcome) line() string {
	c := o.count
	if o.skipped != "" {
		return fmt.Sprintf("| %s | %s | %s | not run: %s |||||||\n", o.row.fault, o.row.source, o.host, o.skipped)
	}
	lost := fmt.Sprint(c.lost)
	switch {
	case c.lost > 0 && o.row.loses != "":
		lost += " (the host's)"
	case c.lost > 0:
		lost = "**" + lost + "**"
	}
	if c.excused > 0 {
		lost += fmt.Sprintf(" (and %d %s)", c.excused, o.row.excuse)
	}
	duplicates := fmt.Sprint(c.duplicates)
	if c.again > 0 {
		duplicates += fmt.Sprintf(" (%d of chunks that Fluent Bit delivered twice)", c.again)
	}
	recovered := "-"
	if c.recover > 0 {
		recovered = c.recover.Round(100 * time.Millisecond).String()
	}
	fault := o.row.fault
	if len(o.notes) > 0 {
		fault += " (" + strings.Join(o.notes, "; ") + ")"
	}
	return fmt.Sprintf("| %s | %s | %s | %d | %d | %s | %s | %d | %s | %d MB |\n",
		fault, o.row.source, o.host, c.in, c.distinct, lost, duplicates, c.unreadable, recovered, o.peak.resident>>20)
}

const (
	readmeBegin = "<!-- faults:begin, written by make faults -->\n"
	readmeEnd   = "<!-- faults:end -->"
)

// summary says under the table which run it is of.
func summary(ran, skipped int, took time.Duration, commit, fluentBit string, seed uint64) string {
	if fluentBit == "" {
		fluentBit = "no Fluent Bit"
	}
	s := fmt.Sprintf("%d rows in %d minutes, at commit %s, with %s, seed %d.", ran, int(took.Round(time.Minute)/time.Minute), commit, fluentBit, seed)
	if skipped > 0 {
		s += fmt.Sprintf("\n%d more were not run.", skipped)
	}
	return s + "\n"
}

// firstLine is the first line that a command prints, without the v of a version, or "" when it
// fails.
func firstLine(command ...string) string {
	out, err := exec.Command(command[0], command[1:]...).Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.Replace(strings.TrimSpace(line), " v", " ", 1)
}

// writeReadme puts text between the markers of a file.
func writeReadme(path, text string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("write the matrix: %w", err)
	}
	before, rest, ok := strings.Cut(string(b), readmeBegin)
	_, after, closed := strings.Cut(rest, readmeEnd)
	if !ok || !closed {
		return fmt.Errorf("write the matrix: %s has no lines %q and %q", path, strings.TrimSpace(readmeBegin), readmeEnd)
	}
	if err := os.WriteFile(path, []byte(before+readmeBegin+text+readmeEnd+after), 0o644); err != nil {
		return fmt.Errorf("write the matrix: %w", err)
	}
	return nil
}
