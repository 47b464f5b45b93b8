package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The list of files in doc.go is complete, and names no file that is gone.
func TestFilesOfDoc(t *testing.T) {
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^//\t([a-z]+\.[a-z]+)  `).FindAllStringSubmatch(string(text), -1) {
		listed[m[1]] = true
	}
	there := map[string]bool{}
	for _, pattern := range []string{"*.go", "*.c", "*.h"} {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			if name != "doc.go" && !strings.HasSuffix(name, "_test.go") {
				there[name] = true
			}
		}
	}
	if !maps.Equal(listed, there) {
		t.Errorf("doc.go lists %v\nthe folder has %v", slices.Sorted(maps.Keys(listed)), slices.Sorted(maps.Keys(there)))
	}
}
