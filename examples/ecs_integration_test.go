//go:build integration

package examples_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
)

// strict is a template without the settings that make an index take what does not fit: what is
// refused then is a fault.
func strict(template string) []byte {
	text := strings.ReplaceAll(template, `"ignore_malformed": true`, `"ignore_malformed": false`)
	return []byte(strings.ReplaceAll(text, `"index.mapping.ignore_malformed": true`, `"index.mapping.ignore_malformed": false`))
}

// A real OpenSearch takes every record of every kind in the fields of ECS, even if it refuses
// values that do not fit their field. Queries find what they ask for, and only that, by the fields
// and by the names of Sigma.
func TestIntegrationOpenSearchECS(t *testing.T) {
	url := startOpenSearch(t)
	call(t, "PUT", url+"/_index_template/defender-ecs", strict(example(t, "opensearch/ecs-template.json")), nil)
	var payloads [][]byte
	for _, d := range detections {
		payloads = append(payloads, d.record())
	}
	demo := story.New(story.Options{Seed: 1, AlertEvery: 50})
	payloads = append(payloads, sampled(t)...)
	payloads = append(payloads, hostile()...)
	for range 10 {
		payloads = append(payloads, demo.AppendEnvelope(nil, 4000))
	}
	docs := recordsIn(t, "ecs", payloads...)
	ids := make(map[string]bool)
	for i := 0; i < len(docs); i += 500 {
		var bulk bytes.Buffer
		for _, d := range docs[i:min(i+500, len(docs))] {
			id := hashOf(t, d)
			ids[id] = true
			fmt.Fprintf(&bulk, "{\"index\":{\"_index\":\"defender-ecs-2026.03.10\",\"_id\":%q}}\n%s\n", id, d)
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
				t.Errorf("%.600s <- %.600s", item.Index.Error, docs[i+j])
			}
		}
	}
	call(t, "POST", url+"/_refresh", nil, nil)
	var count struct {
		Count int `json:"count"`
	}
	call(t, "GET", url+"/defender-ecs-*/_count", nil, &count)
	if count.Count != len(ids) {
		t.Errorf("%d documents, want %d", count.Count, len(ids))
	}
	t.Logf("%d records, %d documents", len(docs), count.Count)

	find := func(query string) (found []string) {
		var hits struct {
			Hits struct {
				Hits []struct {
					ID string `json:"_id"`
				} `json:"hits"`
			} `json:"hits"`
		}
		body, _ := json.Marshal(map[string]any{"size": 3, "query": map[string]any{"query_string": map[string]any{"query": query}}})
		call(t, "POST", url+"/defender-ecs-*/_search", body, &hits)
		for _, h := range hits.Hits.Hits {
			found = append(found, h.ID)
		}
		return found
	}
	for i, d := range detections {
		if got, want := find(d.query), []string{hashOf(t, docs[i])}; !slices.Equal(got, want) {
			t.Errorf("%s: found %q, want %q\n%s", d.name, got, want, docs[i])
		}
	}
	// The names of Sigma, as a rule for Windows has them.
	if got := find(`Image:*vssadmin.exe AND CommandLine:*shadows* AND ParentImage:*cmd.exe`); len(got) != 1 {
		t.Errorf("by Sigma's names: %q", got)
	}
	if got := find(`EventType:SetValue AND TargetObject:*Debugger AND Details:cmd.exe`); len(got) != 1 {
		t.Errorf("by Sigma's names of the registry: %q", got)
	}
}

// The mapping code of Elasticsearch takes every record in the fields of ECS. What is not in the jar
// of the server has a type of the same values in its place: wildcard, constant_keyword,
// match_only_text.
func TestIntegrationElasticsearchMappingECS(t *testing.T) {
	classes := fetchJars(t, "testdata/elasticsearch")
	dir := t.TempDir()
	text := string(strict(example(t, "elastic/ecs-template.json")))
	for typ, instead := range map[string]string{"wildcard": `keyword", "ignore_above": 8000, "store": "false`, "match_only_text": "text"} {
		text = strings.ReplaceAll(text, `"type": "`+typ+`"`, `"type": "`+instead+`"`)
	}
	var it struct {
		Template struct {
			Settings json.RawMessage `json:"settings"`
			Mappings map[string]any  `json:"mappings"`
		} `json:"template"`
	}
	if err := json.Unmarshal([]byte(text), &it); err != nil {
		t.Fatal(err)
	}
	simplify(it.Template.Mappings)
	settings := bytes.Replace(it.Template.Settings, []byte("{"), []byte(`{"index.number_of_shards": 1,`), 1)
	mappings, err := json.Marshal(map[string]any{"_doc": it.Template.Mappings})
	if err != nil {
		t.Fatal(err)
	}
	files := []string{filepath.Join(dir, "settings.json"), filepath.Join(dir, "mappings.json")}
	for i, content := range [][]byte{settings, mappings} {
		if err := os.WriteFile(files[i], content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	docs := recordsIn(t, "ecs", slices.Concat([][]byte{told()}, sampled(t), hostile())...)
	cmd := exec.Command("java", "-cp", classes, "testdata/elasticsearch/Mapping.java", files[0], files[1])
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
			t.Errorf("%.900s", line)
		}
		found[word] = rest
	}
	t.Logf("accepted %s, fields %s", found["accepted"], found["fields"])
	if found["accepted"] != strconv.Itoa(len(docs)) {
		t.Errorf("accepted %s of %d", found["accepted"], len(docs))
	}
}

// simplify takes out of a mapping what the jar of the server does not know: second forms, and
// constants.
func simplify(mapping map[string]any) {
	delete(mapping, "fields")
	if mapping["type"] == "constant_keyword" {
		mapping["type"] = "keyword"
		delete(mapping, "value")
	}
	for _, v := range mapping {
		if inner, ok := v.(map[string]any); ok {
			simplify(inner)
		}
	}
}
