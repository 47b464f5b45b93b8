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

// Images have exact versions, and files that a compose file mounts are there.
func TestCompose(t *testing.T) {
	t.Parallel()
	image := regexp.MustCompile(`(?m)^\s+image: (\S+)$`)
	mount := regexp.MustCompile(`(?m)^\s+- (\.\S*):(/\S+?)(:ro)?$`)
	version := regexp.MustCompile(`:v?\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?$`)
	for _, file := range []string{"splunk/compose.yaml", "elastic/compose.yaml", "opensearch/compose.yaml", "try/services.yaml"} {
		text := example(t, file)
		for _, m := range image.FindAllStringSubmatch(text, -1) {
			if m[1] != "${FLUENT_BIT_DEFENDER_IMAGE:-fluent-bit-defender:try}" && !version.MatchString(m[1]) {
				t.Errorf("%s: %s is not pinned", file, m[1])
			}
		}
		for _, m := range mount.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s mounts %s: %v", file, m[1], err)
			}
		}
	}
	// What is tried is what the integration tests ran.
	for file, pom := range map[string]string{"elastic/compose.yaml": "testdata/elasticsearch/pom.xml", "opensearch/compose.yaml": "testdata/opensearch/pom.xml"} {
		m := regexp.MustCompile(`<version>(\d+\.\d+\.\d+)</version></dependency>`).FindStringSubmatch(example(t, pom))
		if m == nil || !strings.Contains(example(t, file), ":"+m[1]+"\n") {
			t.Errorf("%s has another version than %s: %v", file, pom, m)
		}
	}
}
