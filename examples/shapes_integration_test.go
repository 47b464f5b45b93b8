//go:build integration

package examples_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A pipeline that treats a record like an integration's. It reads the text, refuses unknown tables,
// and renames columns. It takes the device of the row before the one beside it, and drops the rest.
// It is our own, and short.
const ingestPipeline = `{"processors":[
  {"json":{"field":"message","target_field":"json","ignore_failure":true}},
  {"set":{"if":"ctx.json?.category == null","field":"error.message","value":"no category"}},
  {"set":{"if":"ctx.json?.category != null && !['AdvancedHunting-AlertEvidence','AdvancedHunting-AlertInfo','AdvancedHunting-DeviceProcessEvents'].contains(ctx.json.category)","field":"error.message","value":"not supported"}},
  {"rename":{"field":"message","target_field":"event.original","if":"ctx.event?.original == null"}},
  {"rename":{"field":"json.category","target_field":"m365_defender.event.category","ignore_missing":true}},
  {"rename":{"field":"json.tenantId","target_field":"m365_defender.event.tenant.id","ignore_missing":true}},
  {"date":{"if":"ctx.json?.properties?.Timestamp != null","field":"json.properties.Timestamp","formats":["ISO8601"],"ignore_failure":true}},
  {"convert":{"if":"ctx.json?.properties?.ReportId != null","field":"json.properties.ReportId","target_field":"m365_defender.event.report_id","type":"string"}},
  {"rename":{"field":"json.properties.AlertId","target_field":"m365_defender.event.alert.id","ignore_missing":true}},
  {"rename":{"field":"json.properties.EntityType","target_field":"m365_defender.event.entity_type","ignore_missing":true}},
  {"set":{"if":"ctx.json?.properties?.DeviceName != null && ctx.host?.name == null","field":"host.name","value":"{{{json.properties.DeviceName}}}"}},
  {"append":{"if":"ctx.host?.name != null","field":"related.hosts","value":"{{{host.name}}}","allow_duplicates":false}},
  {"set":{"if":"ctx.host?.id != null && ctx.cloud?.instance?.id == null","field":"cloud.instance.id","value":"missing"}},
  {"remove":{"field":"json","ignore_missing":true}},
  {"remove":{"if":"ctx.tags == null || !ctx.tags.contains('preserve_original_event')","field":"event.original","ignore_missing":true}}
]}`

// The elastic shape through an ingest pipeline of a real OpenSearch. The device beside the text
// reaches the document, and the columns come out of the text. The whole record is kept of tables
// that the pipeline does not know.
func TestIntegrationIngestPipeline(t *testing.T) {
	url := startOpenSearch(t)
	call(t, "PUT", url+"/_ingest/pipeline/integration", []byte(ingestPipeline), nil)
	docs := recordsIn(t, "elastic", slices.Concat([][]byte{told()}, hostile(), [][]byte{[]byte("no JSON"), {0xff, 0xfe}})...)
	var bulk bytes.Buffer
	for _, d := range docs {
		fmt.Fprintf(&bulk, "{\"create\":{\"_index\":\"logs-m365_defender.event-default\"}}\n%s\n", d)
	}
	var reply struct {
		Items []struct {
			Create struct {
				Status int             `json:"status"`
				Error  json.RawMessage `json:"error"`
			} `json:"create"`
		} `json:"items"`
	}
	call(t, "POST", url+"/_bulk?pipeline=integration&refresh=true", bulk.Bytes(), &reply)
	refused := 0
	for i, item := range reply.Items {
		if item.Create.Status >= 300 {
			refused++
			t.Errorf("%s <- %.300s", item.Create.Error, docs[i])
		}
	}
	if len(reply.Items) != len(docs) || refused > 0 {
		t.Fatalf("%d answers, %d refused, for %d documents", len(reply.Items), refused, len(docs))
	}
	count := func(query string) int {
		var found struct{ Count int }
		call(t, "GET", url+"/logs-*/_count?q="+query, nil, &found)
		return found.Count
	}
	evidence, joined, unknown := 0, 0, 0
	for _, d := range docs {
		var doc struct {
			Message string
			Host    *struct{ Name string }
			Tags    []string
		}
		if err := json.Unmarshal(d, &doc); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(doc.Message, `"category":"AdvancedHunting-AlertEvidence"`) {
			evidence++
			if doc.Host != nil && doc.Host.Name != "" {
				joined++
			}
		}
		if slices.Contains(doc.Tags, "preserve_original_event") {
			unknown++
		}
	}
	if evidence == 0 || joined == 0 || unknown == 0 {
		t.Fatalf("%d rows of evidence, %d with a device, %d of no known table", evidence, joined, unknown)
	}
	if n := count("m365_defender.event.category:*AlertEvidence+AND+_exists_:m365_defender.event.alert.id"); n != evidence {
		t.Errorf("%d documents of evidence, want %d", n, evidence)
	}
	if n := count("m365_defender.event.category:*AlertEvidence+AND+_exists_:host.name+AND+_exists_:cloud.instance.id+AND+NOT+cloud.instance.id:missing"); n < joined {
		t.Errorf("%d documents of evidence have the device, want %d", n, joined)
	}
	if n := count("_exists_:event.original"); n != unknown {
		t.Errorf("%d documents keep their text, want %d", n, unknown)
	}
}
