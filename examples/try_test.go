package examples_test

import (
	"bytes"
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
)

var write = flag.Bool("write", false, "write try/records.ndjson anew")

// What the compose files feed is the story of the demo.
func TestTryRecords(t *testing.T) {
	t.Parallel()
	s := story.New(story.Options{Seed: 1, NoAttack: true, AlertEvery: 8})
	var want []byte
	for range 10 {
		line := s.AppendEnvelope(nil, 8)
		if bytes.Contains(line, []byte("\n")) {
			t.Fatal("an envelope of more than one line")
		}
		want = append(append(want, line...), '\n')
	}
	if *write {
		if err := os.WriteFile("try/records.ndjson", want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if example(t, "try/records.ndjson") != string(want) {
		t.Error("try/records.ndjson is not what the story tells: go test ./examples -run TestTryRecords -write")
	}
}

// What the compose files do, without Docker: the example after try.sed, the records of the feed, a
// hub and a SIEM without TLS.
func TestTry(t *testing.T) {
	t.Parallel()
	binary, library := fluentBit(t), plugin(t)
	for _, e := range targets {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			config, err := exec.Command("sed", "-f", "try/try.sed", e.name+"/fluent-bit.yaml").Output()
			if err != nil {
				t.Fatalf("sed: %v", err)
			}
			hub, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{hubName: 2}, EntityPath: hubName, Plaintext: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(hub.Close)
			want := 0
			for line := range strings.Lines(example(t, "try/records.ndjson")) {
				want += strings.Count(line, `"category"`)
				if err := hub.Produce(context.Background(), hubName, []byte(strings.TrimSuffix(line, "\n"))); err != nil {
					t.Fatal(err)
				}
			}
			s := unstartedSIEM(t, e.name)
			s.server.Start()
			dir := t.TempDir()
			text := service(t, string(config), dir)
			text = replace(t, text,
				"/opt/fluent-bit/lib/fluent-bit/in_defender.so", library,
				"/var/lib/fluent-bit/defender.db", filepath.Join(dir, "defender.db"),
				"eventhub.brokers: localhost:9092", "eventhub.brokers: "+hub.Brokers())
			if e.name != "splunk" {
				text = replace(t, text, "http_user: elastic\n", "http_user: "+bulkUser+"\n")
			}
			p := start(t, binary, dir, text, append(e.env, "EVENTHUB_CONNECTION_STRING="+hub.ConnectionString(), strings.ToUpper(e.name)+"_PORT="+s.port())...)
			p.until("every record of the feed is there", func() bool { _, taken := s.count(); return taken >= want })
			p.stop()
		})
	}
}

// images returns those of try/images.yaml by the name of their service.
func images(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z-]+): \{image: "([^"]+)"\}$`).FindAllStringSubmatch(example(t, "try/images.yaml"), -1) {
		all[m[1]] = m[2]
	}
	if len(all) < 10 {
		t.Fatalf("only %v", all)
	}
	return all
}

// Images stand in try/images.yaml with exact versions, and perhaps a digest. No other file names
// one of them with a tag, so that a version is renewed in one place.
func TestImages(t *testing.T) {
	t.Parallel()
	pinned := regexp.MustCompile(`^([a-z0-9./-]+):v?\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?$`)
	var names []string
	for service, image := range images(t) {
		if service == "fluent-bit-defender" { // our own
			continue
		}
		m := pinned.FindStringSubmatch(image)
		if m == nil {
			t.Errorf("%s is not pinned", image)
			continue
		}
		names = append(names, regexp.QuoteMeta(m[1]))
	}
	tagged := regexp.MustCompile(`\b(` + strings.Join(names, "|") + `)(:[v$]?[0-9{a-z]|@sha256)`)
	files, err := exec.Command("git", "-C", "..", "ls-files").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for file := range strings.Lines(string(files)) {
		file = strings.TrimSpace(file)
		if file == "examples/try/images.yaml" {
			continue
		}
		text, err := os.ReadFile(filepath.Join("..", file))
		if err != nil {
			continue // removed and not yet committed
		}
		seen++
		for n, line := range strings.Split(string(text), "\n") {
			if m := tagged.FindString(line); m != "" {
				t.Errorf("%s:%d names %s: take it from examples/try/images.yaml", file, n+1, m)
			}
			if name := filepath.Base(file); strings.HasSuffix(name, "compose.yaml") || name == "services.yaml" {
				if strings.HasPrefix(strings.TrimSpace(line), "image:") {
					t.Errorf("%s:%d: %s: extend it from try/images.yaml", file, n+1, strings.TrimSpace(line))
				}
			}
		}
	}
	if seen < 100 {
		t.Errorf("only %d files were looked through", seen)
	}
	if from := example(t, "../build/Dockerfile"); !strings.Contains(from, "\nARG FLUENT_BIT_IMAGE\n") || !strings.Contains(from, "\nFROM ${FLUENT_BIT_IMAGE}\n") {
		t.Error("build/Dockerfile does not take its image from the Makefile")
	}
	out, err := exec.Command("make", "-C", "..", "--no-print-directory", "-n", "image", "VERSION=1").CombinedOutput()
	if want := "--build-arg FLUENT_BIT_IMAGE=" + images(t)["fluent-bit"]; err != nil || !strings.Contains(string(out), want) {
		t.Errorf("make image does not pass %s on: %v\n%s", want, err, out)
	}
}

// Every service has an image, and files that a compose file mounts are there.
func TestCompose(t *testing.T) {
	t.Parallel()
	known := images(t)
	service := regexp.MustCompile(`(?m)^  ([a-z-]+):\n((?:    .*\n|\n|  *#.*\n)+)`)
	extends := regexp.MustCompile(`(?m)^    extends: \{file: (\S+), service: ([a-z-]+)\}$`)
	mount := regexp.MustCompile(`(?m)^\s+- (\.\S*):(/\S+?)(:ro)?$`)
	for _, file := range []string{"splunk/compose.yaml", "elastic/compose.yaml", "opensearch/compose.yaml", "try/services.yaml"} {
		text := example(t, file)
		_, services, _ := strings.Cut(text, "\nservices:\n")
		services, _, _ = strings.Cut(services, "\nvolumes:\n")
		found := service.FindAllStringSubmatch(services+"\n", -1)
		if len(found) < 5 {
			t.Errorf("%s: only %d services", file, len(found))
		}
		for _, m := range found {
			e := extends.FindStringSubmatch(m[2])
			switch {
			case e == nil:
				t.Errorf("%s: %s has no image", file, m[1])
			case filepath.Base(e[1]) == "images.yaml" && known[e[2]] == "":
				t.Errorf("%s: images.yaml has no %s", file, e[2])
			case filepath.Base(e[1]) == "services.yaml" && !strings.Contains(example(t, "try/services.yaml"), "\n  "+e[2]+":\n"):
				t.Errorf("%s: services.yaml has no %s", file, e[2])
			}
		}
		for _, m := range mount.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s mounts %s: %v", file, m[1], err)
			}
		}
	}
	// What is tried is what the integration tests ran.
	for service, pom := range map[string]string{"elasticsearch": "testdata/elasticsearch/pom.xml", "opensearch": "testdata/opensearch/pom.xml"} {
		m := regexp.MustCompile(`<version>(\d+\.\d+\.\d+)</version></dependency>`).FindStringSubmatch(example(t, pom))
		if m == nil || !strings.Contains(known[service]+"@", ":"+m[1]+"@") {
			t.Errorf("%s has another version than %s: %v", known[service], pom, m)
		}
	}
}
