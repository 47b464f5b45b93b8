package examples_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A target is an example and the test's replacements: the endpoint, and the authority that signed
// the certificate of the local server.
type target struct {
	name   string
	port   string   // as in the example
	output string   // first line of the output section
	env    []string // what the example wants from the environment, but for the connection string
}

var targets = []target{
	{"splunk", "port: ${SPLUNK_PORT:-8088}", "- name: splunk", []string{"SPLUNK_HOST=127.0.0.1", "SPLUNK_TOKEN=" + splunkToken}},
	{"elastic", "port: ${ELASTIC_PORT:-9200}", "- name: es", []string{"ELASTIC_HOST=127.0.0.1", "ELASTIC_PASSWORD=" + bulkPass}},
	{"opensearch", "port: ${OPENSEARCH_PORT:-9200}", "- name: opensearch", []string{"OPENSEARCH_HOST=127.0.0.1", "OPENSEARCH_PASSWORD=" + bulkPass}},
}

func (e target) config(t *testing.T) string { return example(t, e.name+"/fluent-bit.yaml") }

// local points an output section at s, whose certificate is for example.com. Before 5.0.6 Fluent
// Bit refuses an address in the place of a name, also when the certificate has it.
func (e target) local(t *testing.T, output string, s *siem) string {
	t.Helper()
	return replace(t, output,
		"      "+e.port+"\n", "      port: "+s.port()+"\n      tls.ca_file: "+s.caFile()+"\n      tls.vhost: example.com\n")
}

// service puts what is kept on disk under dir, and makes retries quick.
func service(t *testing.T, config, dir string) string {
	t.Helper()
	return replace(t, config,
		"storage.path: /var/lib/fluent-bit/storage", "storage.path: "+filepath.Join(dir, "storage"),
		"http_port: 2020", "http_port: "+freePort(t),
		"scheduler.cap: 60 ", "scheduler.base: 1\n  scheduler.cap: 1 ",
	)
}

const (
	idA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	idB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	idC = "cccccccccccccccccccccccccccccccc"
)

// What a mistake costs with each output. The READMEs say the same: this is where it was measured.
func TestReplies(t *testing.T) {
	t.Parallel()
	binary := fluentBit(t)
	all := func(status int) func(string) int { return func(string) int { return status } }
	one := func(status int) func(string) int {
		return func(id string) int {
			if id == idB {
				return status
			}
			return 201
		}
	}
	type reply struct {
		refuse int
		answer func(string) int
	}
	replies := map[string]reply{
		"all 201":     {0, all(201)},
		"all 200":     {0, all(200)},
		"all 409":     {0, all(409)},
		"all 400":     {0, all(400)},
		"one 409":     {0, one(409)},
		"one 400":     {0, one(400)},
		"one 429":     {0, one(429)},
		"request 400": {400, nil},
		"request 401": {401, nil},
		"request 403": {403, nil},
		"request 413": {413, nil},
		"request 429": {429, nil},
		"request 503": {503, nil},
	}

	const done, retried = "done", "retried"
	want := map[string]map[string]string{
		"splunk": { // an error concerns the whole request
			"all 201": done, "request 400": done, "request 401": done, "request 403": done, "request 413": done,
			"request 429": retried, "request 503": retried,
		},
		"elastic": {
			"all 201": done, "all 200": done, "one 409": done,
			"one 400": done, // the document is lost silently
			"one 429": done, // so is one that the cluster had no room for at the moment
			"all 409": retried, "all 400": retried,
			"request 400": retried, "request 401": retried, "request 403": retried, "request 413": retried,
			"request 429": retried, "request 503": retried,
		},
		"opensearch": {
			"all 201": done, "all 200": done, "all 409": done,
			"one 409": retried, // any error beside a success
			"one 400": retried, "one 429": retried, "all 400": retried,
			"request 400": retried, "request 401": retried, "request 403": retried, "request 413": retried,
			"request 429": retried, "request 503": retried,
		},
	}

	for _, e := range targets {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			records := filepath.Join(dir, "records")
			lines := ""
			for _, id := range []string{idA, idB, idC} {
				lines += fmt.Sprintf(`{"event_id":%q,"table":"AlertEvidence","DeviceName":"host-1","Host.MachineId":"x"}`+"\n", id)
			}
			if err := os.WriteFile(records, []byte(lines), 0o600); err != nil {
				t.Fatal(err)
			}
			config := service(t, e.config(t), dir)
			// Records from a file in the place of the plugin.
			head, _, tail := cut(t, config, "plugins:\n", "  outputs:\n")
			head += "parsers:\n  - name: json\n    format: json\n\npipeline:\n  inputs:\n    - name: tail\n      tag: defender\n      path: " +
				records + "\n      parser: json\n      read_from_head: on\n      storage.type: filesystem\n\n"
			// One output a case, all of them the example's.
			tail, output, _ := cut(t, tail, "    "+e.output, "")
			servers := make(map[string]*siem)
			config = head + tail
			for name := range want[e.name] {
				s := newSIEM(t, e.name)
				s.refuse, s.answer = replies[name].refuse, replies[name].answer
				servers[name] = s
				config += replace(t, e.local(t, output, s), e.output+"\n", e.output+"\n      alias: "+strings.ReplaceAll(name, " ", "_")+"\n")
			}
			p := start(t, binary, dir, config, e.env...)
			// Whatever is not retried has been asked once when all others were asked three times.
			p.until("every request that is refused is made three times", func() bool {
				for name, s := range servers {
					if n, _ := s.count(); n == 0 || n < 3 && want[e.name][name] == retried {
						return false
					}
				}
				return true
			})
			for name, s := range servers {
				n, taken := s.count()
				if want[e.name][name] == done && n != 1 {
					t.Errorf("%s: asked %d times, want once", name, n)
				}
				if name == "one 400" && e.name == "elastic" && taken != 2 {
					t.Errorf("%s: %d documents taken, want 2", name, taken)
				}
			}
			// What Splunk refuses is not sent again, but kept.
			kept, err := filepath.Glob(filepath.Join(dir, "storage", "rejected", "*"))
			if err != nil {
				t.Fatal(err)
			}
			wantKept := 0
			for name := range want[e.name] {
				if e.name == "splunk" && want[e.name][name] == done && strings.HasPrefix(name, "request") {
					wantKept++
				}
			}
			if len(kept) != wantKept {
				t.Errorf("%d chunks in rejected, want %d: %v", len(kept), wantKept, kept)
			}
		})
	}
}
