// Package docs checks the documentation against what is there: every make target, file and link
// that it names exists.
package docs

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

const root = "../.."

// pages are the documents of the repository.
func pages(t *testing.T) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	for _, pattern := range []string{"*.md", "examples/*.md", "examples/*/*.md", "build/*/*.md"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			rel, _ := filepath.Rel(root, name)
			texts[filepath.ToSlash(rel)] = string(text)
		}
	}
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} {
		if texts[name] == "" {
			t.Errorf("there is no %s", name)
		}
	}
	return texts
}

var (
	block  = regexp.MustCompile("(?s)```([a-z]*)\n(.*?)```")
	code   = regexp.MustCompile("`([^`\n]+)`")
	link   = regexp.MustCompile(`\]\(([^)]+)\)`)
	target = regexp.MustCompile(`\bmake ([a-z][a-z0-9-]*)`)
)

// commands are the command lines of a page: of blocks without a language, and what is set as code
// within the text.
func commands(text string) (lines []string) {
	for _, m := range block.FindAllStringSubmatch(text, -1) {
		if m[1] == "" || m[1] == "sh" || m[1] == "bash" {
			lines = append(lines, strings.Split(strings.TrimSpace(m[2]), "\n")...)
		}
	}
	for _, m := range code.FindAllStringSubmatch(block.ReplaceAllString(text, ""), -1) {
		lines = append(lines, m[1])
	}
	return lines
}

func TestTargets(t *testing.T) {
	out, err := exec.Command("make", "-C", root, "-s", "help").Output()
	if err != nil {
		t.Fatalf("make help: %v", err)
	}
	var targets []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "make" {
			targets = append(targets, f[1])
		}
	}
	if len(targets) < 10 {
		t.Fatalf("make lists only %v", targets)
	}
	for name, text := range pages(t) {
		for _, line := range commands(text) {
			line, _, _ = strings.Cut(line, "#")
			for _, m := range target.FindAllStringSubmatch(line, -1) {
				if !slices.Contains(targets, m[1]) {
					t.Errorf("%s: make %s: there is no such target", name, m[1])
				}
			}
		}
	}
}

// A file that a page names is there. What is built, or is on the reader's machine, is listed here.
func TestFiles(t *testing.T) {
	elsewhere := []string{"build/out/in_defender.so", "build/out/host", "build/out/packages", "build/out/demo.html", "defender.yaml"}
	looksLocal := regexp.MustCompile(`^\.?[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_.*-]*)+$|^[A-Za-z0-9_-]+\.(go|md|mod|yaml|conf|c)$`)
	tracked, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	top := make(map[string]bool)
	for _, e := range tracked {
		top[e.Name()] = true
	}
	checked := 0
	for name, text := range pages(t) {
		check := func(file string) {
			checked++
			if slices.Contains(elsewhere, file) {
				return
			}
			if matches, _ := filepath.Glob(filepath.Join(root, filepath.Dir(name), file)); len(matches) == 0 {
				if matches, _ = filepath.Glob(filepath.Join(root, file)); len(matches) == 0 {
					t.Errorf("%s names %s, which is not there", name, file)
				}
			}
		}
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(m[1], "://") {
				file, _, _ := strings.Cut(m[1], "#")
				check(file)
			}
		}
		for _, line := range commands(text) {
			for word := range strings.FieldsSeq(line) {
				first, _, _ := strings.Cut(word, "/")
				if looksLocal.MatchString(word) && (top[first] || !strings.Contains(word, "/")) {
					check(word)
				}
			}
		}
	}
	if checked < 15 {
		t.Errorf("found only %d names of files to check", checked)
	}
}

// The code declares every setting of the plugin that a page or an example names. The table in
// examples/settings.md is made from the code.
func TestSettingsNames(t *testing.T) {
	texts := pages(t)
	declared := make(map[string]bool)
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\|").FindAllStringSubmatch(texts["examples/settings.md"], -1) {
		declared[m[1]] = true
	}
	if len(declared) < 20 {
		t.Fatalf("found only %d settings in the table of examples/settings.md", len(declared))
	}
	examples, err := filepath.Glob(filepath.Join(root, "examples/*/*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range examples {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	setting := regexp.MustCompile(`\b(?:eventhub|blob|device_info|azure)\.[a-z_]+(?:\.[a-z_]+)*\b`)
	found := 0
	for name, text := range texts {
		for _, line := range strings.Split(text, "\n") {
			if strings.Contains(line, "azure.workload.identity") || strings.Contains(line, "blob.core.windows.net") {
				continue
			}
			for _, key := range setting.FindAllString(line, -1) {
				found++
				if !declared[strings.TrimSuffix(key, "_file")] && !declared[key] {
					t.Errorf("%s names the setting %s, which there is not", name, key)
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("found only %d names of settings to check", found)
	}
}

// The first two commands of a newcomer stand first, each alone in a block that can be copied: one
// takes a minute, the other longer.
func TestTwoCommands(t *testing.T) {
	var first []string
	for _, m := range block.FindAllStringSubmatch(pages(t)["README.md"], -1) {
		if m[1] == "" && len(first) < 2 {
			first = append(first, m[2])
		}
	}
	if want := []string{"make demo\n", "make test\n"}; !slices.Equal(first, want) {
		t.Errorf("the first commands of README.md are %q, want %q", first, want)
	}
}

// Prose keeps to 100 columns, so that it can be read and compared side by side. Tables, code and
// headings, and a line that is one unbreakable word, such as a link, do as they must.
func TestColumns(t *testing.T) {
	const most = 100
	checked := 0
	for name, text := range pages(t) {
		if name == "CHANGELOG.md" {
			continue // of one entry a line, as it was written
		}
		inCode := false
		for i, line := range strings.Split(text, "\n") {
			trimmed := strings.TrimSpace(line)
			if strings.HasPrefix(trimmed, "```") {
				inCode = !inCode
			}
			if inCode || strings.HasPrefix(trimmed, "|") || strings.HasPrefix(trimmed, "#") || strings.HasPrefix(trimmed, "![") || strings.HasPrefix(trimmed, "<!--") {
				continue
			}
			checked++
			if utf8.RuneCountInString(line) > most && strings.Contains(code.ReplaceAllString(trimmed, "x"), " ") {
				t.Errorf("%s:%d has %d columns, want %d at most", name, i+1, utf8.RuneCountInString(line), most)
			}
		}
		if inCode {
			t.Errorf("%s: a block of code does not end", name)
		}
	}
	if checked < 300 {
		t.Errorf("found only %d lines of prose", checked)
	}
}

// A sentence of a page has at most 25 words, so that it is understood at the first reading. A colon
// or a semicolon ends one, too. Tables, code and headings do as they must.
func TestSentences(t *testing.T) {
	const most = 25
	end := regexp.MustCompile(`[.:;!?][)*]*\s+`)
	item := regexp.MustCompile(`^([-*]|\d+\.) `)
	address := regexp.MustCompile(`\]\([^)]*\)`)
	checked := 0
	for name, text := range pages(t) {
		var paragraph []string
		inCode := false
		for i, line := range append(strings.Split(text, "\n"), "") {
			trimmed := strings.TrimSpace(line)
			fence := strings.HasPrefix(trimmed, "```")
			prose := !inCode && !fence && trimmed != "" && !strings.ContainsAny(trimmed[:1], "|#<!")
			if inCode = inCode != fence; !prose || item.MatchString(trimmed) {
				for _, sentence := range end.Split(address.ReplaceAllString(strings.Join(paragraph, " "), "]"), -1) {
					checked++
					if n := len(strings.Fields(sentence)); n > most {
						t.Errorf("%s: before line %d, a sentence of %d words, want %d at most: %s", name, i+1, n, most, sentence)
					}
				}
				paragraph = nil
			}
			if prose {
				paragraph = append(paragraph, trimmed)
			}
		}
	}
	if checked < 500 {
		t.Errorf("found only %d sentences", checked)
	}
}

// README.md fits on two screens: the rest has pages of its own.
func TestReadmeIsShort(t *testing.T) {
	if n := strings.Count(pages(t)["README.md"], "\n"); n > 150 {
		t.Errorf("README.md has %d lines, want 150 at most", n)
	}
}

// The formats that README.md explains are those that there are.
func TestReadmeFormats(t *testing.T) {
	_, table, found := strings.Cut(pages(t)["README.md"], "\n## Formats\n")
	table, _, _ = strings.Cut(table, "\n## ")
	var names []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z]+)` \\|").FindAllStringSubmatch(table, -1) {
		names = append(names, m[1])
	}
	want := slices.Sorted(slices.Values(transform.Formats()))
	if slices.Sort(names); !found || !slices.Equal(names, want) {
		t.Errorf("README.md explains the formats %v, there are %v", names, want)
	}
}

// The record that README.md shows becomes the event that it shows, which leaves out other fields. A
// device that was reported before is joined onto it.
func TestReadmeRecord(t *testing.T) {
	var shown []string
	for _, m := range block.FindAllStringSubmatch(pages(t)["README.md"], -1) {
		if m[1] == "json" {
			shown = append(shown, m[2])
		}
	}
	if len(shown) != 2 {
		t.Fatalf("README.md shows %d records, want one before and one after", len(shown))
	}
	id := regexp.MustCompile(`MachineId\\": *\\"([0-9a-f]{40})`).FindStringSubmatch(shown[0])
	var after map[string]any
	if err := json.Unmarshal([]byte(shown[1]), &after); err != nil || id == nil {
		t.Fatalf("README.md: %v, device %v", err, id)
	}
	report, err := json.Marshal(map[string]any{"time": "2026-03-02T06:00:00Z", "tenantId": after["tenant_id"], "category": "AdvancedHunting-DeviceInfo",
		"properties": map[string]any{"Timestamp": "2026-03-02T06:00:00Z", "DeviceId": id[1],
			"DeviceName": after["DeviceInfo.DeviceName"], "OSPlatform": after["DeviceInfo.OSPlatform"]}})
	if err != nil {
		t.Fatal(err)
	}
	memory := device.New(device.Config{Tables: []string{"AlertEvidence"}, CacheBytes: 1 << 20, TTL: 48 * time.Hour, Fields: []string{"DeviceName", "OSPlatform"}})
	tr := transform.New(transform.Config{EventID: true, Devices: memory})
	got := make(map[string]any)
	emit := func(table string, event []byte) {
		if table != "AlertEvidence" {
			return
		}
		var text bytes.Buffer
		var pair []json.RawMessage
		if _, err := msgp.UnmarshalAsJSON(&text, event); err != nil || json.Unmarshal(text.Bytes(), &pair) != nil || json.Unmarshal(pair[1], &got) != nil {
			t.Fatalf("%v: %s", err, text.Bytes())
		}
	}
	tr.Append(context.Background(), []transform.Payload{{Body: report}, {Body: []byte(shown[0])}}, emit)
	if len(got) == 0 {
		t.Fatal("the record of README.md becomes no event")
	}
	for name, value := range after {
		if !reflect.DeepEqual(got[name], value) {
			t.Errorf("README.md has %s %v, it is %v", name, value, got[name])
		}
	}
}

// The parts that a page links to, its own or another's, are headings there.
func TestAnchors(t *testing.T) {
	texts := pages(t)
	heading := regexp.MustCompile(`(?m)^#+ (.+)$`)
	dropped := regexp.MustCompile("[^a-z0-9 -]")
	checked := 0
	for name, text := range texts {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			file, anchor, found := strings.Cut(m[1], "#")
			if !found || strings.Contains(file, "://") {
				continue
			}
			page := name
			if file != "" {
				page = filepath.ToSlash(filepath.Join(filepath.Dir(name), file))
			}
			checked++
			if !slices.ContainsFunc(heading.FindAllStringSubmatch(block.ReplaceAllString(texts[page], ""), -1), func(h []string) bool {
				return strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-") == anchor
			}) {
				t.Errorf("%s links to %s, and %s has no such heading", name, m[1], page)
			}
		}
	}
	if checked < 8 {
		t.Errorf("found only %d links to headings", checked)
	}
}

// Every package is on the map of CONTRIBUTING.md.
func TestMap(t *testing.T) {
	contributing := pages(t)["CONTRIBUTING.md"]
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		rel = filepath.ToSlash(rel)
		if strings.HasPrefix(d.Name(), ".") && rel != "." || rel == "build/out" || d.Name() == "node_modules" || d.Name() == "testdata" {
			return fs.SkipDir
		}
		code, _ := filepath.Glob(filepath.Join(path, "*.go"))
		if len(code) > 0 && rel != "." && !strings.Contains(contributing, "`"+rel+"/") {
			t.Errorf("%s is not on the map in CONTRIBUTING.md", rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What CONTRIBUTING.md and the Makefile say of CI is what .ci/run does.
func TestCI(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, ".ci/run"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"make lint", "make vuln", "make test", "make fuzz", "make integration", "make demo", "make test-packages", "make arm64", "export VULN_REQUIRED=1"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf(".ci/run does not run %s", want)
		}
	}
}
