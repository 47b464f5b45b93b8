package examples_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
)

// The configurations for format: ecs in a real Fluent Bit. The bulk API gets one @timestamp, the id
// of the event where a repeat overwrites itself, and no pipeline in the way.
func TestECSConfigurations(t *testing.T) {
	t.Parallel()
	binary, library := fluentBit(t), plugin(t)
	for _, e := range targets[1:] {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			hub, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{hubName: 1}, EntityPath: hubName})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(hub.Close)
			if err := hub.Produce(t.Context(), hubName, detections[0].record()); err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			var uri, action, doc string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := readBody(r)
				if err != nil {
					w.WriteHeader(http.StatusBadRequest)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				uri = r.URL.String()
				lines := strings.SplitN(string(body), "\n", 3)
				if len(lines) > 1 {
					action, doc = lines[0], lines[1]
				}
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"errors":false,"items":[{"create":{"status":201}}]}`)
			}))
			t.Cleanup(server.Close)
			dir := t.TempDir()
			port := server.URL[strings.LastIndexByte(server.URL, ':')+1:]
			config := replace(t, service(t, section(t, example(t, e.name+"/ecs.yaml"), dir, library, hub), dir),
				"      "+e.port+"\n", "      port: "+port+"\n", "      tls: on\n", "      tls: off\n")
			p := start(t, binary, dir, config, append(e.env, "EVENTHUB_CONNECTION_STRING="+hub.ConnectionString())...)
			p.until("the record is there", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return doc != ""
			})
			p.stop()

			hash := hashOf(t, []byte(doc))
			if strings.Count(doc, `"@timestamp"`) != 1 {
				t.Errorf("not one @timestamp: %s", doc)
			}
			var record map[string]any
			if err := json.Unmarshal([]byte(doc), &record); err != nil {
				t.Fatal(err)
			}
			if process, _ := record["process"].(map[string]any); process["name"] != "powershell.exe" {
				t.Errorf("not in the fields of ECS: %s", doc)
			}
			switch e.name {
			case "elastic":
				if uri != "/_bulk?pipeline=_none" && uri != "/_bulk/?pipeline=_none" || action != `{"create":{"_index":"logs-m365_defender.event-default"}}` {
					t.Errorf("%s %s", uri, action)
				}
			default:
				if !strings.Contains(action, `"_index":"defender-ecs-2026.03.04"`) || !strings.Contains(action, `"_id":"`+hash+`"`) {
					t.Errorf("%s, want the id %s", action, hash)
				}
			}
		})
	}
}

// hashOf returns the id of an event in the fields of ECS.
func hashOf(t *testing.T, doc []byte) string {
	t.Helper()
	var record struct {
		Event struct {
			Hash string `json:"hash"`
		} `json:"event"`
	}
	if err := json.Unmarshal(doc, &record); err != nil || record.Event.Hash == "" {
		t.Fatalf("no id: %v %.300s", err, doc)
	}
	return record.Event.Hash
}
