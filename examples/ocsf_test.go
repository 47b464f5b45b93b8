package examples_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/build/ocsf"
)

// The configurations for format: ocsf in a real Fluent Bit. Events that arrive are valid, and have
// their id where a repeat overwrites itself. In a bucket an object holds one class.
func TestOCSFConfigurations(t *testing.T) {
	t.Parallel()
	binary, library := fluentBit(t), plugin(t)
	for _, name := range []string{"opensearch", "s3"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hub, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{hubName: 1}, EntityPath: hubName})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(hub.Close)
			const finding = `{"records":[{"time":"2026-03-04T10:20:31.1234567Z","tenantId":"t","operationName":"Publish","category":"AdvancedHunting-AlertInfo",` +
				`"properties":{"Timestamp":"2026-03-04T10:18:02.7654321Z","AlertId":"da1","Title":"A title","Severity":"High"}}]}`
			if err := hub.Produce(t.Context(), hubName, detections[0].record(), []byte(finding)); err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			bodies := make(map[string][]byte) // by class
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var body []byte
				var err error
				if name == "s3" {
					if body, err = io.ReadAll(r.Body); err == nil && bytes.HasPrefix(body, []byte{0x1f, 0x8b}) {
						var unzip *gzip.Reader
						if unzip, err = gzip.NewReader(bytes.NewReader(body)); err == nil {
							body, err = io.ReadAll(unzip)
						}
					}
				} else {
					body, err = readBody(r)
				}
				if err != nil {
					w.WriteHeader(http.StatusBadRequest)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				action := r.URL.Path
				for line := range bytes.Lines(body) {
					if bytes.HasPrefix(line, []byte(`{"index":`)) || bytes.HasPrefix(line, []byte(`{"create":`)) {
						action = string(line)
					} else if len(bytes.TrimSpace(line)) > 0 {
						bodies[action] = append(bodies[action], line...)
					}
				}
				if name != "s3" {
					w.Header().Set("Content-Type", "application/json")
					_, _ = io.WriteString(w, `{"errors":false,"items":[{"index":{"status":201}}]}`)
				}
			}))
			t.Cleanup(server.Close)
			dir := t.TempDir()
			config := service(t, section(t, example(t, "ocsf/"+name+".yaml"), dir, library, hub), dir)
			env := []string{"EVENTHUB_CONNECTION_STRING=" + hub.ConnectionString()}
			if name == "s3" {
				config = replace(t, config, "      upload_timeout: 5m  ", "      endpoint: "+server.URL+"\n      upload_timeout: 2s  ",
					"      store_dir: /var/lib/fluent-bit/s3 ", "      store_dir: "+dir+"/s3 ")
				env = append(env, "OCSF_BUCKET=lake", "AWS_REGION=eu-west-1", "AWS_ACCESS_KEY_ID=AKIAINVENTED", "AWS_SECRET_ACCESS_KEY=invented", "HOME="+dir)
			} else {
				port := server.URL[strings.LastIndexByte(server.URL, ':')+1:]
				config = replace(t, config, "      port: ${OPENSEARCH_PORT:-9200}\n", "      port: "+port+"\n", "      tls: on\n", "      tls: off\n")
				env = append(env, "OPENSEARCH_HOST=127.0.0.1", "OPENSEARCH_PASSWORD=invented")
			}
			p := start(t, binary, dir, config, env...)
			lines := func() (actions, docs []string) {
				mu.Lock()
				defer mu.Unlock()
				for action, body := range bodies {
					for line := range strings.Lines(string(body)) {
						actions, docs = append(actions, action), append(docs, line)
					}
				}
				return actions, docs
			}
			p.until("both events are there", func() bool { _, docs := lines(); return len(docs) >= 2 })
			p.stop()

			actions, docs := lines()
			for i, doc := range docs {
				d := json.NewDecoder(strings.NewReader(doc))
				d.UseNumber()
				var event map[string]any
				if err := d.Decode(&event); err != nil {
					t.Fatalf("%v: %s", err, doc)
				}
				delete(event, "@timestamp") // the output's own, where an index wants it
				if faults := ocsf.Check(event); len(faults) > 0 {
					t.Errorf("%q in %s", faults, doc)
				}
				uid, _ := event["metadata"].(map[string]any)["uid"].(string)
				class := map[string]string{"2004": "detection_finding", "1007": "process_activity"}[event["class_uid"].(json.Number).String()]
				if name == "s3" && (class == "" || !strings.HasPrefix(actions[i], "/lake/ext/defender-"+class+"/eventDay=")) {
					t.Errorf("%s has %s", actions[i], doc)
				}
				if name != "s3" && (!strings.Contains(actions[i], `"_index":"defender-ocsf-2026.03.0`) || !strings.Contains(actions[i], `"_id":"`+uid+`"`) || uid == "") {
					t.Errorf("%s, want the id %s", actions[i], uid)
				}
			}
		})
	}
}
