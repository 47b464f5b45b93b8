//go:build integration

package examples_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fetchJars has Maven bring what a pom names, and returns the class path.
func fetchJars(t *testing.T, folder string) string {
	t.Helper()
	for _, tool := range []string{"mvn", "java"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s", tool)
		}
	}
	lib := t.TempDir()
	cmd := exec.Command("mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory="+lib)
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mvn in %s: %v\n%s", folder, err, out)
	}
	return filepath.Join(lib, "*")
}

func allRecords(t *testing.T) [][]byte {
	t.Helper()
	return records(t, slices.Concat([][]byte{told()}, sampled(t), hostile())...)
}

// The mapping code of Elasticsearch takes every record under the template. The server itself is not
// in a registry of packages.
func TestIntegrationElasticsearchMapping(t *testing.T) {
	classes := fetchJars(t, "testdata/elasticsearch")
	dir := t.TempDir()
	var it struct {
		Template struct {
			Settings json.RawMessage `json:"settings"`
			Mappings json.RawMessage `json:"mappings"`
		} `json:"template"`
	}
	if err := json.Unmarshal([]byte(example(t, "elastic/index-template.json")), &it); err != nil {
		t.Fatal(err)
	}
	settings, mappings := filepath.Join(dir, "settings.json"), filepath.Join(dir, "mappings.json")
	for name, text := range map[string][]byte{settings: it.Template.Settings, mappings: fmt.Appendf(nil, `{"_doc":%s}`, it.Template.Mappings)} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	docs := allRecords(t)
	cmd := exec.Command("java", "-cp", classes, "testdata/elasticsearch/Mapping.java", settings, mappings)
	cmd.Stdin = bytes.NewReader(slices.Concat(bytes.Join(docs, []byte("\n")), []byte("\n")))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("java: %v\n%s", err, out)
	}
	found := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "refused" {
			t.Errorf("%.600s", line)
		}
		found[word] = rest
	}
	t.Logf("accepted %s, fields %s", found["accepted"], found["fields"])
	if found["accepted"] != strconv.Itoa(len(docs)) {
		t.Errorf("accepted %s of %d", found["accepted"], len(docs))
	}
	checkFields(t, "elastic", found["fields"])
}

// checkFields holds the number of fields against the limit: with twice as many there must be room.
func checkFields(t *testing.T, name, text string) {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	limit := int(readTemplate(t, name).Template.Settings["index.mapping.total_fields.limit"].(float64))
	if n < 100 || n*2 > limit {
		t.Errorf("%d fields, limit %d", n, limit)
	}
}

// A real OpenSearch takes the template and every record.
func TestIntegrationOpenSearch(t *testing.T) {
	url := startOpenSearch(t)
	call(t, "PUT", url+"/_index_template/defender", []byte(example(t, "opensearch/index-template.json")), nil)
	docs := allRecords(t)
	want := make(map[string]bool)
	for i := 0; i < len(docs); i += 500 {
		var bulk bytes.Buffer
		for _, d := range docs[i:min(i+500, len(docs))] {
			var record struct {
				EventID string `json:"event_id"`
			}
			if err := json.Unmarshal(d, &record); err != nil {
				t.Fatal(err)
			}
			want[record.EventID] = true
			fmt.Fprintf(&bulk, "{\"index\":{\"_index\":\"defender-2026.03.10\",\"_id\":%q}}\n%s\n", record.EventID, d)
		}
		var reply struct {
			Items []struct {
				Index struct {
					Status int             `json:"status"`
					Error  json.RawMessage `json:"error"`
				} `json:"index"`
			} `json:"items"`
		}
		call(t, "POST", url+"/_bulk", bulk.Bytes(), &reply)
		for j, item := range reply.Items {
			if item.Index.Status >= 300 {
				t.Errorf("%s <- %.300s", item.Index.Error, docs[i+j])
			}
		}
	}
	call(t, "POST", url+"/_refresh", nil, nil)
	var count struct {
		Count int `json:"count"`
	}
	call(t, "GET", url+"/defender-*/_count", nil, &count)
	if count.Count != len(want) {
		t.Errorf("%d documents, want %d", count.Count, len(want))
	}
	var mapping map[string]struct {
		Mappings struct {
			Properties json.RawMessage `json:"properties"`
		} `json:"mappings"`
	}
	call(t, "GET", url+"/defender-2026.03.10/_mapping", nil, &mapping)
	fields := strings.Count(string(mapping["defender-2026.03.10"].Mappings.Properties), `"type":`)
	t.Logf("%d documents, %d fields", count.Count, fields)
	checkFields(t, "opensearch", strconv.Itoa(fields))

	// What the guide has the reader search for is found.
	var hits struct {
		Hits struct {
			Total struct {
				Value int `json:"value"`
			} `json:"total"`
		} `json:"hits"`
	}
	call(t, "GET", url+"/defender-*/_search?q=table:AlertEvidence+AND+AdditionalFields.DetectionStatus:*", nil, &hits)
	if hits.Hits.Total.Value == 0 {
		t.Error("no alert evidence is found by its DetectionStatus")
	}
}

// startOpenSearch starts a node from the jars of OpenSearch.
func startOpenSearch(t *testing.T) (url string) {
	t.Helper()
	classes := fetchJars(t, "testdata/opensearch")
	home, port := t.TempDir(), freePort(t)
	if err := os.Mkdir(filepath.Join(home, "config"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("java", "-Xmx768m", "-cp", classes, "testdata/opensearch/OpenSearchNode.java", home, port)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	logs := new(output)
	cmd.Stdout, cmd.Stderr = logs, logs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // which ends it
		timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		_ = cmd.Wait()
		if t.Failed() {
			for s := bufio.NewScanner(strings.NewReader(logs.String())); s.Scan(); {
				if !strings.Contains(s.Text(), "WARNING") {
					t.Log(s.Text())
				}
			}
		}
	})
	url = "http://127.0.0.1:" + port
	// A node takes 10 s on a quiet machine, and minutes beside a whole test run.
	for end := time.Now().Add(4 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		resp, err := http.Get(url + "/_cluster/health?wait_for_status=yellow&timeout=5s")
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == 200 {
				break
			}
		}
		if time.Now().After(end) {
			t.Fatalf("OpenSearch does not start: %v", err)
		}
	}
	return url
}

func call(t *testing.T, method, url string, body []byte, reply any) {
	t.Helper()
	req, err := http.NewRequest(method, strings.ReplaceAll(url, " ", "+"), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	kind := "application/json"
	if strings.HasSuffix(url, "_bulk") {
		kind = "application/x-ndjson"
	}
	req.Header.Set("Content-Type", kind)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %s %v %.2000s", method, url, resp.Status, err, text)
	}
	if reply != nil {
		if err := json.Unmarshal(text, reply); err != nil {
			t.Fatalf("%s %s: %v in %.300s", method, url, err, text)
		}
	}
}
