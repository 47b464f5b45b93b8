package main

import (
	"bufio"
	"log/slog"
	"os"
	"strings"
)

// host has the functions of Fluent Bit that an instance may call; main.go makes it of calls into C.
// All of it is called from the host's thread only, between init and exit.
type host struct {
	name    string                              // of the section: its alias, or "defender.0"
	get     func(key string) string             // the text of a setting in the section, "" if it is not set, a blank if it is empty
	append  func(tag string, data []byte) bool  // false: nothing of data was taken. An empty tag is the section's own
	log     func(level slog.Level, line string) // a line of the host's log, if the section logs that level
	metric  func(m *metric, f figure)           // sets a series of the host's metrics; nil when it offers none
	quit    func()                              // asks the host to end, as a SIGTERM does
	debugOn bool                                // the section logs debug lines
}

func (h *host) prefix() string { return "[input:defender:" + h.name + "] " }

// storesInFiles tells whether a chunk of one of our sections is in a file that the host has mapped.
// With storage.type filesystem it exists right after an append. The host offers no better way to
// ask: it keeps storage.type to itself.
func storesInFiles() bool {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return true // nothing is known, so nothing is logged
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// .../storage/defender.0/1234-1700000000.123456789.flb; the folder has the section's number
		// also when it has an alias
		if line := lines.Text(); strings.HasSuffix(line, ".flb") && strings.Contains(line, "/defender.") {
			return true
		}
	}
	return false
}
