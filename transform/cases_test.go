package transform_test

import (
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// What people really have, after public bug reports: what each message says, between good records.
// want has the table and the time of each event, and its Marker.
func TestCases(t *testing.T) {
	// record is a record of a category with this Timestamp.
	record := func(category, timestamp, marker string) string {
		return `{"time":"2026-09-20T10:20:31Z","tenantId":"11111111-2222-4333-8444-555555555555","category":` + category + `,"properties":{"Timestamp":` + timestamp + `,"Marker":"` + marker + `"}}`
	}
	at := func(timestamp string) string { return record(`"AdvancedHunting-DeviceEvents"`, timestamp, "19") }
	process := func(marker string) string {
		return record(`"AdvancedHunting-DeviceProcessEvents"`, `"2026-09-20T10:18:02.7654321Z"`, marker)
	}
	const itsTime = "DeviceProcessEvents 2026-09-20T10:18:02.7654321Z "
	for _, c := range []struct{ name, body, want string }{
		{"opentelemetry-collector-contrib#49038", `{"records":[{"TenantId":"w","TimeGenerated":"2026-09-20T10:18:03Z","DeviceId":"aa11","Type":"DeviceProcessEvents","Marker":"01"}]}`,
			"DeviceProcessEvents 2026-09-20T10:18:03Z 01"},
		{"#36650", `{"records":[{"time":"09/20/2026 14:54:26","category":"FunctionAppLogs","Marker":"02"}]}`, "FunctionAppLogs 2026-09-20T14:54:26Z 02"},
		{"#46267", `{"records":[{"EventTimeString":"9/20/2026 7:42:22 AM +00:00","category":"OperationalLogs","Marker":"03"}]}`, "OperationalLogs 2026-09-20T07:42:22Z 03"},
		{"gzip", gzipped(`{"records":[` + process("04") + `]}`), itsTime + "04"},
		{"azure-functions-python-worker#415", quoted(`{"records":[` + process("05") + `]}`), itsTime + "05"},
		{"records as text", `{"records":` + quoted(`[`+process("06")+`]`) + `}`, itsTime + "06"},
		{"UTF-16", inUTF16(`{"records":[` + process("09") + `]}`), itsTime + "09"},
		{"elastic/beats#18651", `[[` + process("11a") + `],[` + process("11b") + `]]`, itsTime + "11a\n" + itsTime + "11b"},
		{"letter case", record(`"advancedhunting-deviceprocessevents"`, `"2026-09-20T10:18:02.7654321Z"`, "16"), itsTime + "16"},
		{"alert", `{"VendorName":"Microsoft","AlertType":"VM_X","TimeGenerated":"2026-09-20T10:09:00.123Z","SystemAlertId":"x","Marker":"18"}`, "SecurityAlert 2026-09-20T10:09:00.123Z 18"},
		{"seconds", at("1789899482"), "DeviceEvents 2026-09-20T10:18:02Z 19"},
		{"milliseconds", at("1789899482123"), "DeviceEvents 2026-09-20T10:18:02.123Z 19"},
		{"microseconds", at("1789899482123456"), "DeviceEvents 2026-09-20T10:18:02.123456Z 19"},
		{"seconds as text", at(`"1789899482"`), "DeviceEvents 2026-09-20T10:18:02Z 19"},
		{"Json.NET", at(`"/Date(1789899482123)/"`), "DeviceEvents 2026-09-20T10:18:02.123Z 19"},
		{"+0000", at(`"2026-09-20T10:18:02+0000"`), "DeviceEvents 2026-09-20T10:18:02Z 19"},
		{"no zone", at(`"2026-09-20T10:18:02"`), "DeviceEvents 2026-09-20T10:18:02Z 19"},
		{"AM", at(`"9/20/2026 10:18:02 AM"`), "DeviceEvents 2026-09-20T10:18:02Z 19"},
		{"UTC", at(`"2026-09-20 10:18:02 UTC"`), "DeviceEvents 2026-09-20T10:18:02Z 19"},
		{"year 1: of the export", at(`"0001-01-01T00:00:00"`), "DeviceEvents 2026-09-20T10:20:31Z 19"},
		{"year 9999: of the export", at(`"9999-12-31T23:59:59.9999999Z"`), "DeviceEvents 2026-09-20T10:20:31Z 19"},
		{"properties as text", `{"category":"AdvancedHunting-DeviceProcessEvents","properties":` + quoted(`{"Timestamp":"2026-09-20T10:18:02.7654321Z","Marker":"29"}`) + `}`, itsTime + "29"},
		{"log of Fluent Bit", `{"date":1789899482.1,"log":` + quoted(`{"records":[`+process("31")+`]}`) + `}`, itsTime + "31"},
		{"blank behind the category", record(`"AdvancedHunting-DeviceEvents "`, `"2026-09-20T10:18:02Z"`, "33"), "DeviceEvents 2026-09-20T10:18:02Z 33"},
		{"category without a table", record(`"AdvancedHunting-"`, `"2026-09-20T10:18:02Z"`, "33"), "unknown 2026-09-20T10:18:02Z 33"},
		{"sub-assessment", `{"$type":"subAssessmentEvent","Type":"Microsoft.Security/assessments/subAssessments","Properties":{"TimeGenerated":"2026-09-12T09:58:32.2607101Z"},"Marker":"41"}`,
			"SecurityNestedRecommendation 2026-09-12T09:58:32.2607101Z 41"},
		{"ARM alert", `{"type":"Microsoft.Security/Locations/alerts","properties":{"startTimeUtc":"2026-09-12T09:58:32.26Z","timeGeneratedUtc":"2026-09-12T10:00:00Z"},"Marker":"43"}`,
			"SecurityAlert 2026-09-12T10:00:00Z 43"},
		{"elastic/beats#34092", "{\"records\":[{\"time\":\"2026-09-20T10:00:00Z\",\"category\":\"AppServiceConsoleLogs\",\"resultDescription\":\"a\n\nb\",\"Marker\":\"nl\"}," + process("34092") + "]}",
			"AppServiceConsoleLogs 2026-09-20T10:00:00Z nl\n" + itsTime + "34092"},
		{"elastic/beats#40641", "{\"records\":[{\"category\":\"PostgreSQLLogs\",\"properties\":[\n227 B blob data\n]}," + process("40641") + "]}", "unreadable\n" + itsTime + "40641"},
		{"elastic/beats#34450", `{"records":[{"category":"FunctionAppLogs","properties":{'message':'{\'level\':\'info\'}'}},` + process("34450") + `]}`, "unreadable\n" + itsTime + "34450"},
		{"elastic/integrations#9920", `{"SystemAlertId":"5","TimeGenerated":"2024-05-18T18:51:31.44Z","ExtendedProperties":"{\"QueryTime\":\"a\",\"QueryTime\":\"b\"}","Marker":"9920"}`,
			"SecurityAlert 2024-05-18T18:51:31.44Z 9920"},
		{"elastic/integrations#12172", record(`"AdvancedHunting-IdentityInfo"`, `"2026-09-20T10:18:02Z"`, "12172"), "IdentityInfo 2026-09-20T10:18:02Z 12172"},
		{"splunk/azure-functions-splunk#20", `{"time":"2026-09-20T10:20:31Z","category":"NonInteractiveUserSignInLogs","properties":{"createdDateTime":"2026-09-20T10:01:02.1234567+00:00"},"Marker":"20"}`,
			"NonInteractiveUserSignInLogs 2026-09-20T10:01:02.1234567Z 20"},
		{"change in Entra", `{"time":"2026-09-20T10:20:31Z","category":"AuditLogs","properties":{"activityDateTime":"2026-09-20T10:01:02Z"},"Marker":"20"}`, "AuditLogs 2026-09-20T10:01:02Z 20"},
		{"creation of something else", `{"time":"2026-09-20T10:20:31Z","category":"Devices","properties":{"createdDateTime":"2019-09-20T10:01:02Z"},"Marker":"20"}`, "Devices 2026-09-20T10:20:31Z 20"},
		{"elastic/integrations#15448", `{"time":"2026-09-20T10:20:31.1234567","category":"IntuneAuditLogs","Marker":"15448"}`, "IntuneAuditLogs 2026-09-20T10:20:31.1234567Z 15448"},
		{"opentelemetry-collector-contrib#28806", `{"records":[{"timeStamp":"2023-10-28T10:08:34.0000000+00:00","resourceId":"/A/B/C","operationName":"ApplicationGatewayFirewall","category":"ApplicationGatewayFirewallLog","properties":{"clientPort":"","action":"Blocked"},"Marker":"28806"},` + process("28806") + `]}`,
			"ApplicationGatewayFirewallLog 2023-10-28T10:08:34Z 28806\n" + itsTime + "28806"},
		{"microsoft/ModSecurity#132", `{"timeStamp":"01/Oct/2019:00:33:26 +0000","category":"ApplicationGatewayFirewallLog","properties":{"site":"Global"},"Marker":"132"}`,
			"ApplicationGatewayFirewallLog 2019-10-01T00:33:26Z 132"},
		{"opentelemetry-collector-contrib#27589", `{"records":[{"time":"10/10/2023 13:26:34","category":"FunctionAppLogs","Marker":"27589"},{"time":"","category":"FunctionAppLogs","timestamp":"2023-10-10T13:26:35Z","Marker":"empty"},{"time":"2023-10-10T13:26:36Z","timeStamp":"2023-10-10T13:26:37Z","category":"FunctionAppLogs","Marker":"both"}]}`,
			"FunctionAppLogs 2023-10-10T13:26:34Z 27589\nFunctionAppLogs 2023-10-10T13:26:35Z empty\nFunctionAppLogs 2023-10-10T13:26:36Z both"},
		{"wazuh/wazuh#28821", `[{"TenantId":"w","TimeGenerated":"2025-03-14T16:40:45.624Z","Category":"SQLSecurityAuditEvents","Type":"AzureDiagnostics","Marker":"28821"}]`, "AzureDiagnostics 2025-03-14T16:40:45.624Z 28821"},
		{"opentelemetry-collector-contrib#28648", `{"records":[{"DeploymentVersion":"0.40.16708.0","Level":4,"isRequestSuccess":true,"time":"2023-10-26T14:22:43.3416357Z","category":"GatewayLogs","durationMs":243,"properties":{"method":"GET"},"Marker":"28648"}]}`,
			"GatewayLogs 2023-10-26T14:22:43.3416357Z 28648"},
		{"opentelemetry-collector-contrib#45898", `{"records":[{"category":"AppTraces","time":"2026-02-05T10:04:07Z","Properties":"a","Marker":"a"},{"category":"AppTraces","Properties":{x},"Marker":"b"},` + process("45898") + `]}`,
			"AppTraces 2026-02-05T10:04:07Z a\nunreadable\n" + itsTime + "45898"},
		{"elastic/beats#33815", "Obj\x01\x04\x16avro.codec\x08null\xc3\x83", "unreadable"},
		{"PostgreSQL", "{\"records\":[{\"category\":\"PostgreSQLLogs\",\"properties\":{\"message\":\"a\x00\xff b\"},\"time\":\"2026-09-20T10:00:00Z\",\"Marker\":\"23\"}]}", "PostgreSQLLogs 2026-09-20T10:00:00Z 23"},
		{"trailing comma", `{"records":[` + process("27a") + `,` + process("27b") + `,]}`, itsTime + "27a\n" + itsTime + "27b"},
		{"NUL behind it", process("25") + "\x00", itsTime + "25\nunreadable"},
		{"record separators", "\x1e" + process("26a") + "\n\x1e" + process("26b") + "\n", "unreadable\n" + itsTime + "26a\nunreadable\n" + itsTime + "26b"},
		{"prefix", "\x00\x00\x00\x00\x07" + process("28"), "unreadable\n" + itsTime + "28"},
		{"malformed escape", `{"records":[` + process("53a") + `,{"authType":"\x5c","category":"Connections"},` + process("53c") + `]}`, itsTime + "53a\nunreadable\n" + itsTime + "53c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			events := run(t, transform.New(transform.Config{}), good(1), c.body, good(2))
			if n := goods(events); len(n) != 2 {
				t.Errorf("good records %v", n)
			}
			var got []string
			for _, e := range events {
				marker, _ := e.m["Marker"].(string)
				switch id, _ := e.m["AlertId"].(string); {
				case strings.HasPrefix(id, "good-"):
				case e.m["unreadable_reason"] != nil:
					got = append(got, "unreadable")
				default:
					got = append(got, e.table+" "+e.time.Format("2006-01-02T15:04:05.999999999Z07:00")+" "+marker)
				}
			}
			if text := strings.Join(got, "\n"); text != c.want {
				t.Errorf("got\n%s\nwant\n%s", text, c.want)
			}
		})
	}
}

// A list that the source cuts into its records gives the ids that it gives as a whole, however it
// is laid out.
func TestEventIDsOfListsCutAndWhole(t *testing.T) {
	records := []string{good(1), hunting(`"A":[1,2],"B":{"c":"d e"}`), asWorkspace("DeviceEvents", `"ProcessId":"17"`), `{"SystemAlertId":"1","Entities":[{"a":1}]}`}
	ids := func(bodies ...string) (all []any) {
		for _, e := range run(t, transform.New(transform.Config{EventID: true}), bodies...) {
			all = append(all, e.m["event_id"])
		}
		return all
	}
	want := ids(records...)
	for name, body := range map[string]string{
		"list": "[" + strings.Join(records, ",") + "]", "envelope": `{"records":[` + strings.Join(records, ",\r\n") + "\r\n]}",
		"lines": strings.Join(records, "\n"), "spaced": "[\n" + strings.ReplaceAll(strings.Join(records, ",\n"), `":`, `" : `) + "\n]",
	} {
		got := ids(body)
		if len(got) != len(want) {
			t.Fatalf("%s: %d events", name, len(got))
		}
		for i := range want {
			if got[i] != want[i] || got[i] == nil {
				t.Errorf("%s: record %d has id %v, want %v", name, i, got[i], want[i])
			}
		}
	}
}
