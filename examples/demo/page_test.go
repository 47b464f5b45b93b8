package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// chromium is Debian's browser. Where it is missing the test is skipped, loudly; in CI it fails.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	line := strings.Repeat("#", 90)
	message := fmt.Sprintf("\n%s\n##  NOT TESTED: what the demo's page shows; install chromium\n%s", line, line)
	if os.Getenv("CI") != "" {
		t.Fatal(message)
	}
	t.Skip(message)
	return ""
}

// browse lets the browser do something with a file, without a network and with a profile of its
// own.
func browse(t *testing.T, browser, file string, flags ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	args := append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--user-data-dir=" + t.TempDir(),
		"--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--disable-component-update", "--no-first-run"}, flags...)
	cmd := exec.CommandContext(ctx, browser, append(args, "file://"+file)...)
	// The browser's own processes may outlive it for a moment, and hold its output.
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", browser, err)
	}
	return string(out)
}

// look runs in the page, and leaves its findings there as the page's title.
const look = `<script>
addEventListener("load", () => {
	const seen = e => { const r = e.getBoundingClientRect(), s = getComputedStyle(e); return r.width > 0 && r.height > 0 && s.visibility == "visible" };
	const open = document.querySelector("details[open]");
	const cells = [...open.querySelectorAll(".event")].filter(seen);
	document.title = "seen:" + JSON.stringify({
		heading: document.querySelector("h1").innerText,
		figures: [...document.querySelectorAll(".figures li")].map(e => e.innerText.replace(/\s+/g, " ")),
		rows: [...document.querySelectorAll("details summary")].filter(seen).map(e => e.innerText),
		row: open.querySelector("summary").innerText,
		wire: open.querySelector(".wire .fields").innerText.replace(/\s*\n\s*/g, "\n"),
		formats: cells.map(e => e.dataset.format),
		side: cells.every(e => e.getBoundingClientRect().top == open.querySelector(".wire").getBoundingClientRect().top),
		joined: cells.map(e => [...e.querySelectorAll(".joined")].filter(seen).map(e => e.innerText)),
		unmarked: cells.map(e => [...e.querySelectorAll(".fields div:not(.joined)")].map(e => e.innerText)),
		coloured: getComputedStyle(document.querySelector(".joined")).backgroundColor != getComputedStyle(document.querySelector(".wire .fields div")).backgroundColor,
		tables: [...document.querySelectorAll("#tables tr")].filter(seen).map(e => [...e.cells].slice(0, 3).map(c => c.innerText.trim())),
	});
});
</script>`

// The page in a browser: the alert's records side by side in every format, the device marked, and
// the counts.
func TestPage(t *testing.T) {
	browser := chromium(t)
	o := built(t)
	file := filepath.Join(t.TempDir(), "demo.html")
	o.page = file
	// All of it is in one partition. Between partitions there is no order: a later report of the
	// device, read first from another one, is joined in place of the one that the page shows.
	o.records = 380
	if f := tell(o.records, o.seed, 0); f.bytes > maxMessageBytes {
		t.Fatalf("%d records have %d bytes: more than one partition gets them", o.records, f.bytes)
	}
	if ok, out := show(t, o); !ok {
		t.Fatalf("the demo fails:\n%s", out)
	}
	html, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`(?i)<(script|link|img|iframe)\b|@import|url\(|\b(src|href)=`).FindString(string(html)); m != "" {
		t.Errorf("the page needs more than itself: %s", m)
	}
	if picture := os.Getenv("DEFENDER_PICTURE"); picture != "" {
		browse(t, browser, file, "--window-size=1700,860", "--screenshot="+picture)
	}

	watched := filepath.Join(t.TempDir(), "watched.html")
	if err := os.WriteFile(watched, append(html, look...), 0o644); err != nil {
		t.Fatal(err)
	}
	dom := browse(t, browser, watched, "--window-size=1700,1000", "--virtual-time-budget=5000", "--dump-dom")
	m := regexp.MustCompile(`(?s)<title>seen:(.*?)</title>`).FindStringSubmatch(dom)
	if m == nil {
		t.Fatalf("the browser does not show the page: %.500s", dom)
	}
	var seen struct {
		Heading, Row, Wire       string
		Figures, Rows, Formats   []string
		Joined, Unmarked, Tables [][]string
		Side, Coloured           bool
	}
	text := strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&", "&nbsp;", " ").Replace(m[1])
	if err := json.Unmarshal([]byte(text), &seen); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if seen.Heading != "Suspicious script launched PowerShell that fetched code" || seen.Row != "AlertEvidence Process" {
		t.Errorf("it shows %q, and opens %q", seen.Heading, seen.Row)
	}
	if !slices.Contains(seen.Rows, "AlertInfo") || !slices.Contains(seen.Rows, "AlertEvidence Machine") || len(seen.Rows) < 5 {
		t.Errorf("the records of the alert: %q", seen.Rows)
	}
	if want := []string{"380 records out", "0 missing", "0 came twice", "0 not expected", "0 unreadable"}; len(seen.Figures) != len(want) {
		t.Errorf("figures: %q", seen.Figures)
	} else {
		for i := range want {
			if !strings.HasPrefix(seen.Figures[i], want[i]) {
				t.Errorf("figure %d: %q, want %q", i, seen.Figures[i], want[i])
			}
		}
	}
	if !slices.Equal(seen.Formats, transform.Formats()) || !seen.Side {
		t.Errorf("formats %v, side by side: %v; want %v", seen.Formats, seen.Side, transform.Formats())
	}
	if !strings.Contains(seen.Wire, "properties.EntityTypeProcess\n") { // the colon between is drawn, and no text
		t.Errorf("the record as it came: %s", seen.Wire)
	}
	const name = "vsh-lt-1007.vestholm.example"
	if strings.Contains(seen.Wire, "DeviceName"+name) {
		t.Errorf("the record as it came names the device already: nothing is joined")
	}
	if !seen.Coloured || len(seen.Joined) != len(seen.Formats) {
		t.Fatalf("what was joined is marked: %v, in %d of %d formats", seen.Coloured, len(seen.Joined), len(seen.Formats))
	}
	for i, format := range seen.Formats {
		if !slices.ContainsFunc(seen.Joined[i], func(field string) bool { return strings.Contains(field, name) }) {
			t.Errorf("%s: the device is not marked: %q", format, seen.Joined[i])
		}
		for _, field := range seen.Unmarked[i] {
			if strings.HasSuffix(field, name) && !strings.Contains(field, "dditional") {
				t.Errorf("%s: %q is of the device, and not marked", format, field)
			}
		}
	}
	total := 0
	for _, row := range seen.Tables[1:] {
		var in, out int
		if _, err := fmt.Sscan(row[1]+" "+row[2], &in, &out); err != nil || in != out {
			t.Errorf("table %q", row)
		}
		total += out
	}
	if total != o.records {
		t.Errorf("the tables show %d records, want %d", total, o.records)
	}
	// The page's own events are those that the plugin handed over.
	if m := regexp.MustCompile(`(\d+) of the (\d+) records below came out of it`).FindStringSubmatch(string(html)); m == nil || m[1] != m[2] {
		t.Errorf("not all records of the page are those of the plugin: %q", m)
	}
}
