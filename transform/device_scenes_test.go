package transform_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

func ids(list ...string) []any {
	var all []any
	for _, id := range list {
		all = append(all, id)
	}
	return all
}

func byUser(c *device.Config)      { c.ByUser = true }
func linked(c *device.Config)      { c.Portal = "https://security.microsoft.com" }
func listsAsText(c *device.Config) { c.ArraysAsJSON = true }

func TestScenesOfMerges(t *testing.T) {
	a, b, c := numbered(1), numbered(2), numbered(3)
	chain := func(n int) (records []string) {
		for i := 1; i < n; i++ {
			records = append(records, full(numbered(i), "09:00:00", "MergedToDeviceId", numbered(i+1)))
		}
		return append(records, full(numbered(n), "11:00:00", "DeviceName", "end"))
	}
	playScenes(t, []scene{
		{"a link that nobody reported, with a reported end", nil, []string{full(a, "09:00:00", "MergedToDeviceId", b), full(c, "11:00:00", "MergedDeviceIds", `["`+b+`"]`), about("", a)},
			[]any{"DeviceId", c, "status", "hit"}},
		{"eight hops", nil, append(chain(9), about("", numbered(1))), []any{"DeviceId", numbered(9), "DeviceName", "end"}},
		{"the two ends of eight hops on one alert", nil, append(chain(9), seen("m", numbered(1)), seen("m", numbered(9)), row("m", "Ip", `{}`)), []any{"match", "alert", "DeviceId", numbered(9)}},
		{"a circle on one alert is one device, the newer", nil, []string{full(a, "11:00:00", "MergedToDeviceId", b), full(b, "10:00:00", "MergedToDeviceId", a), seen("m", a), seen("m", b), row("m", "Ip", `{}`)},
			[]any{"match", "alert", "DeviceId", a}},
		{"a circle, seen from the older", nil, []string{full(a, "11:00:00", "MergedToDeviceId", b), full(b, "10:00:00", "MergedToDeviceId", a), about("", b)}, []any{"DeviceId", a}},
		{"a circle, seen from the newer", nil, []string{full(a, "11:00:00", "MergedToDeviceId", b), full(b, "10:00:00", "MergedToDeviceId", a), about("", a)}, []any{"DeviceId", a}},
		{"a circle of which one has reported", nil, []string{full(a, "11:00:00", "MergedToDeviceId", b, "MergedDeviceIds", `["`+b+`"]`), about("", b)}, []any{"DeviceId", a, "status", "hit"}},
		{"a row of an unknown kind names the old and the new id", nil, []string{full(a, "09:00:00", "MergedToDeviceId", b), full(b, "11:00:00"), row("", "Odd", `{"A":{"MachineId":"`+a+`"},"B":[{"MachineId":"`+b+`"}]}`)},
			[]any{"match", "evidence", "DeviceId", b, "status", "hit"}},
		{"a survivor lists itself, too", nil, []string{full(a, "09:00:00"), full(b, "10:00:00", "MergedToDeviceId", a, "MergedDeviceIds", `["`+b+`","`+c+`"]`), about("", c)}, []any{"DeviceId", a}},
		{"MergedDeviceIds with commas", nil, []string{full(b, "11:00:00", "MergedDeviceIds", a+", "+strings.ToUpper(c)), about("", c)}, []any{"DeviceId", b}},
		{"MergedDeviceIds of one id", nil, []string{full(b, "11:00:00", "MergedDeviceIds", a), about("", a)}, []any{"DeviceId", b}},
		{"MergedDeviceIds as a native list", nil, []string{full(b, "11:00:00", "MergedDeviceIds", []any{a, nil, 7}), about("", a)}, []any{"DeviceId", b}},
		{"MergedDeviceIds of nothing", nil, []string{full(a, "09:00:00"), full(b, "11:00:00", "MergedDeviceIds", `["null","00000000-0000-0000-0000-000000000000",""]`), about("", a)}, []any{"DeviceId", a}},
		{"a heartbeat with zeros does not end a merge", nil, []string{full(a, "09:00:00", "MergedToDeviceId", b), full(b, "11:00:00"), beat(a, "11:30:00", "MergedToDeviceId", "00000000-0000-0000-0000-000000000000"), about("", a)}, []any{"DeviceId", b}},
		{"a full report with zeros ends it", nil, []string{full(a, "09:00:00", "MergedToDeviceId", b), full(b, "11:00:00"), full(a, "11:30:00", "MergedToDeviceId", "None"), about("", a)}, []any{"DeviceId", a}},
		{"an older full report without it does not end it", nil, []string{full(a, "09:00:00", "MergedToDeviceId", b), full(b, "11:00:00"), full(a, "08:30:00", "MergedToDeviceId", ""), about("", a)}, []any{"DeviceId", b}},
		{"merged, then merged elsewhere", nil, []string{full(a, "10:00:00", "MergedToDeviceId", c), full(a, "09:00:00", "MergedToDeviceId", b), full(b, "11:00:00"), full(c, "11:00:00"), about("", a)}, []any{"DeviceId", c}},
		{"several of which two are one", nil, []string{full(a, "09:00:00", "MergedToDeviceId", b), full(b, "11:00:00"), full(c, "11:00:00"), seen("m", a), seen("m", b), seen("m", c), row("m", "Ip", `{}`)},
			[]any{"match", "several", "status", "none", "candidates", ids(b, c)}},
		{"by the name of a merged one", nil, []string{full(a, "09:00:00", "MergedToDeviceId", b, "DeviceName", "ws.x.example"), full(b, "11:00:00", "DeviceName", "ws.x.example"), row("", "Ip", `{}`, "DeviceName", "WS")}, []any{"match", "name", "DeviceId", b}},
		{"merged into a device of another tenant", nil, []string{full(a, "09:00:00", "MergedToDeviceId", b), strings.ReplaceAll(full(b, "11:00:00"), aTenant, "ffffffff-0000-4000-8000-000000000001"), about("", a)}, []any{"DeviceId", a, "status", "hit"}},
	})
	// More ids than are kept of an alert: six that are one device, and then another.
	records := slices.Clip(chain(7))
	for i := 1; i <= 7; i++ {
		records = append(records, seen("m", numbered(i)))
	}
	playScenes(t, []scene{
		{"many ids of one device on one alert", nil, append(slices.Clone(records), row("m", "Ip", `{}`)), []any{"match", "alert", "DeviceId", numbered(7)}},
		{"and one of another", nil, append(slices.Clone(records), seen("m", ws1), row("m", "Ip", `{}`)), []any{"match", "several", "DeviceId", nil}},
	})
}

func TestScenesOfIDs(t *testing.T) {
	a, b := numbered(1), numbered(2)

	esc := func(id string) string { return fmt.Sprintf(`\u%04x`, id[0]) + id[1:] }
	playScenes(t, []scene{
		{"in capitals", nil, []string{full(strings.ToUpper(a), "11:00:00"), about("", a)}, []any{"status", "hit", "DeviceId", a}},
		{"with blanks around", nil, []string{full(" "+a+" ", "11:00:00"), about("", a+" ")}, []any{"status", "hit", "DeviceId", a}},
		{"escaped in the row and plain inside", nil, []string{full(b, "11:00:00"), strings.Replace(row("", "Machine", `{"MachineId":"`+a+`","HostName":"h9","OSFamily":"Linux"}`, "DeviceId", a), `"DeviceId":"`+a, `"DeviceId":"`+esc(a), 1)},
			[]any{"match", "row", "DeviceId", a, "DeviceName", "h9", "OSFamily", "Linux"}},
		{"one id twice in a row of an unknown kind, once escaped", nil, []string{full(a, "11:00:00"), row("", "Odd", `{"A":{"MachineId":"`+a+`"},"B":[{"MachineId":"`+esc(a)+`"}]}`)}, []any{"match", "evidence", "DeviceId", a, "status", "hit"}},
		{"one id twice, once with a blank", nil, []string{full(a, "11:00:00"), row("", "Odd", `{"A":{"MachineId":"`+a+`"},"B":[{"MachineId":" `+strings.ToUpper(a)+`"}]}`)}, []any{"match", "evidence", "DeviceId", a, "status", "hit"}},
		{"three hosts of an unknown kind, in their order", nil, []string{row("", "Odd", `{"A":{"MachineId":"`+numbered(3)+`"},"B":[{"MachineId":"`+a+`"},{"MachineId":"`+b+`"}]}`)}, []any{"match", "several", "candidates", ids(a, b, numbered(3))}},
		{"an alert id that is none", nil, []string{full(a, "11:00:00"), seen("null", a), row("null", "Ip", `{}`)}, []any{"match", nil, "status", "none"}},
		{"an alert id of a dash", nil, []string{full(a, "11:00:00"), seen("-", a), row("-", "Ip", `{}`)}, []any{"match", nil, "status", "none"}},
		{"an alert of number 0", nil, []string{full(a, "11:00:00"), seen("0", a), row("0", "Ip", `{}`)}, []any{"match", "alert", "DeviceId", a}},
		{"an escaped alert id", nil, []string{full(a, "11:00:00"), seen("da1_1", a), strings.Replace(row("da1_1", "Ip", `{}`), `"AlertId":"da1`, `"AlertId":"\u0064a1`, 1)}, []any{"match", "alert", "DeviceId", a}},
		{"a GUID with braces", nil, []string{full("{0F0E0D0C-1111-2222-3333-444455556666}", "11:00:00"), about("", "{0f0e0d0c-1111-2222-3333-444455556666}")}, []any{"status", "hit"}},
		{"zeros with colons and dots", nil, []string{row("", "File", `{"Host":{"MachineId":"00:00:00:00:00:00"}}`)}, []any{"match", nil, "status", "none"}},
		{"a null-like id inside, and the one of the alert", nil, []string{full(a, "11:00:00"), seen("n", a), row("n", "File", `{"Host":{"MachineId":"None"}}`)}, []any{"match", "alert", "DeviceId", a}},
		{"an odd id in the link", linked, []string{about("", `od?d/#\"x`)}, []any{"url", "https://security.microsoft.com/machines/v2/od%3Fd%2F%23%22x/overview?tid=" + aTenant}},
		{"equal ids in two tenants on alerts of one id", nil, []string{full(a, "11:00:00"), strings.ReplaceAll(full(b, "11:00:00"), aTenant, "ffffffff-0000-4000-8000-000000000001"),
			strings.ReplaceAll(seen("s", b), aTenant, "ffffffff-0000-4000-8000-000000000001"), seen("s", a), row("s", "Ip", `{}`)}, []any{"match", "alert", "DeviceId", a}},
	})
}

func TestScenesOfNames(t *testing.T) {
	a, b := numbered(1), numbered(2)
	named := func(alert, name, additional string) string {
		return row(alert, "Process", additional, "DeviceName", name)
	}
	other := func(r string) string { return strings.ReplaceAll(r, aTenant, "ffffffff-0000-4000-8000-000000000001") }
	web := full(a, "11:00:00", "DeviceName", "web01.corp.example")
	const vm = "/subscriptions/5/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/VM1"
	playScenes(t, []scene{
		{"no name in the column, one inside", nil, []string{web, named("", "N/A", `{"Host":{"HostName":"web01"}}`)}, []any{"match", "name", "DeviceId", a}},
		{"no name at all is no hindrance to the alert", nil, []string{web, seen("n", a), named("n", "null", `{}`)}, []any{"match", "alert", "DeviceId", a}},
		{"localhost is no name", nil, []string{web, seen("n", a), named("n", "localhost", `{}`)}, []any{"match", "alert", "DeviceId", a}},
		{"a domain that is none", nil, []string{web, row("", "Process", `{"Host":{"HostName":"web01","DnsDomain":"None"}}`)}, []any{"match", "name", "DeviceId", a}},
		{"evidence with a domain that is none", nil, []string{row("", "File", `{"Host":{"MachineId":"`+a+`","HostName":"web01","DnsDomain":"null"}}`)}, []any{"status", "unknown", "DeviceName", "web01"}},
		{"evidence with a name that is none", nil, []string{row("", "Machine", `{"MachineId":"`+a+`","HostName":"n/a","OSFamily":"None"}`, "DeviceId", a, "DeviceName", "null", "MachineGroup", "-")}, []any{"status", "unknown", "DeviceName", nil, "OSFamily", nil, "MachineGroup", nil}},
		{"evidence with a whole name and its domain", nil, []string{row("", "File", `{"Host":{"MachineId":"`+a+`","HostName":"web01.corp.example","DnsDomain":"corp.example"}}`)}, []any{"DeviceName", "web01.corp.example"}},
		{"evidence with the NetBIOS name alone", nil, []string{row("", "File", `{"Host":{"MachineId":"`+a+`","NetBiosName":"WEB01"}}`)}, []any{"DeviceName", "WEB01"}},
		{"another domain, and the alert's device", nil, []string{web, seen("n", a), named("n", "web01.other.example", `{}`)}, []any{"match", nil, "status", "none"}},
		{"a dot at the end", nil, []string{web, named("", "web01.corp.example.", `{}`)}, []any{"match", "name", "DeviceId", a}},
		{"a dot at the end of the device's", nil, []string{full(a, "11:00:00", "DeviceName", "web01.corp.example."), named("", "WEB01.corp.example", `{}`)}, []any{"match", "name", "DeviceId", a}},
		{"imaged anew: both are known", nil, []string{web, full(b, "11:30:00", "DeviceName", "web01.corp.example"), named("", "web01", `{}`)}, []any{"match", "several", "candidates", ids(a, b)}},
		{"imaged anew long ago", nil, []string{recordOf("DeviceInfo", "DeviceId", b, "Timestamp", "2026-03-02T11:59:59Z", "OSPlatform", "Windows11", "DeviceName", "web01.corp.example"), web, named("", "web01", `{}`)}, []any{"match", "name", "DeviceId", a}},
		{"renamed", nil, []string{web, full(a, "11:30:00", "DeviceName", "web02.corp.example"), named("", "web01", `{}`)}, []any{"match", nil, "status", "none"}},
		{"renamed, and the old report once more", nil, []string{web, full(a, "11:30:00", "DeviceName", "web02.corp.example"), web, named("", "web02", `{}`)}, []any{"match", "name", "DeviceName", "web02.corp.example"}},
		{"a name that moved to another device", nil, []string{web, full(a, "11:30:00", "DeviceName", "web02.corp.example"), full(b, "11:40:00", "DeviceName", "web01.corp.example"), named("", "WEB01", `{}`)}, []any{"match", "name", "DeviceId", b}},
		{"the name of two tenants", nil, []string{web, other(full(b, "11:00:00", "DeviceName", "web01.corp.example")), named("", "web01", `{}`)}, []any{"match", "name", "DeviceId", a}},
		{"a name that only evidence has told", nil, []string{row("", "File", `{"Host":{"MachineId":"`+a+`","HostName":"web01"}}`), named("", "web01", `{}`)}, []any{"match", nil, "status", "none"}},
		{"a name that only evidence has told, on that alert", nil, []string{row("n", "File", `{"Host":{"MachineId":"`+a+`","HostName":"web01"}}`), named("n", "web01.corp.example", `{}`)}, []any{"match", "alert", "DeviceId", a, "status", "unknown"}},
		{"an address as a name", nil, []string{full(a, "11:00:00", "DeviceName", "10"), named("", "10.0.0.5", `{}`)}, []any{"match", nil, "status", "none"}},
		{"a resource with escaped slashes", nil, []string{full(a, "11:00:00", "AzureResourceId", vm), strings.Replace(row("", "CloudResource", `{}`, "CloudResource", vm), vm, strings.ReplaceAll(vm, "/", `\/`), 1)}, []any{"match", "name", "DeviceId", a}},
		{"a resource inside, with escaped slashes", nil, []string{full(a, "11:00:00", "AzureResourceId", vm), row("", "CloudResource", `{"AzureID":"`+strings.ReplaceAll(vm, "/", `\/`)+`\/"}`)}, []any{"match", "name", "DeviceId", a}},
		{"a machine of Azure that is not the alert's", nil, []string{full(a, "11:00:00", "AzureResourceId", vm), seen("r", a), row("r", "CloudResource", `{"ResourceId":"`+strings.Replace(vm, "VM1", "VM2", 1)+`"}`)}, []any{"match", nil, "status", "none"}},
		{"a storage account, and the alert's device", nil, []string{full(a, "11:00:00", "AzureResourceId", vm), seen("r", a), row("r", "CloudResource", `{"ResourceId":"/subscriptions/5/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/s"}`)}, []any{"match", "alert", "DeviceId", a}},
		{"two devices of one resource", nil, []string{full(a, "11:00:00", "AzureResourceId", vm), full(b, "11:00:00", "AzureResourceId", strings.ToUpper(vm)), row("", "CloudResource", `{"ResourceId":"`+vm+`"}`)}, []any{"match", "several"}},
		{"a Mailbox row", nil, []string{web, row("m", "Mailbox", `{"MailboxPrimaryAddress":"kim@corp.example"}`, "AccountUpn", "kim@corp.example")}, []any{"match", nil, "status", "none"}},
	})
}

func TestScenesOfUsers(t *testing.T) {
	a, b := numbered(1), numbered(2)
	on := func(id, clock, user, domain, sid string) string {
		return full(id, clock, "LoggedOnUsers", `[{"UserName":"`+user+`","DomainName":"`+domain+`","Sid":"`+sid+`"}]`)
	}
	kim := on(a, "11:00:00", "kim", "CORP", "S-1-5-21-1")
	user := func(properties ...any) string { return row("", "User", `{}`, properties...) }
	playScenes(t, []scene{
		{"by the address", byUser, []string{kim, user("AccountUpn", "KIM@corp.example")}, []any{"match", "user", "DeviceId", a}},
		{"the same name in another domain", byUser, []string{kim, user("AccountName", "kim", "AccountDomain", "OTHER")}, []any{"match", nil, "status", "none"}},
		{"the same name in the same domain", byUser, []string{kim, user("AccountName", "kim", "AccountDomain", "corp")}, []any{"match", "user", "DeviceId", a}},
		{"the domain in its long form", byUser, []string{kim, user("AccountName", "kim", "AccountDomain", "corp.example")}, []any{"match", "user", "DeviceId", a}},
		{"another domain and the same SID", byUser, []string{kim, user("AccountName", "kim", "AccountDomain", "OTHER", "AccountSid", "s-1-5-21-1")}, []any{"match", "user", "DeviceId", a}},
		{"the domain in front of the name", byUser, []string{kim, user("AccountName", `CORP\kim`)}, []any{"match", "user", "DeviceId", a}},
		{"another domain in front of the name", byUser, []string{kim, user("AccountName", `OTHER\kim`)}, []any{"match", nil}},
		{"one of two domains", byUser, []string{kim, on(b, "11:00:00", "kim", "OTHER", ""), user("AccountName", "kim", "AccountDomain", "OTHER")}, []any{"match", "user", "DeviceId", b}},
		{"a name that is none, and an address", byUser, []string{kim, user("AccountName", "-", "AccountUpn", "kim@corp.example", "AccountSid", "null")}, []any{"match", "user", "DeviceId", a}},
		{"no name", byUser, []string{on(a, "11:00:00", "null", "", ""), user("AccountName", "null")}, []any{"match", nil}},
		{"a Mac names the user alone", byUser, []string{full(a, "11:00:00", "LoggedOnUsers", `[{"UserName":"kim"}]`), user("AccountName", "kim", "AccountDomain", "corp")}, []any{"match", "user", "DeviceId", a}},
		{"users of ten days ago and a heartbeat of today", byUser, []string{recordOf("DeviceInfo", "DeviceId", a, "Timestamp", "2026-02-22T11:00:00Z", "OSPlatform", "Windows11", "LoggedOnUsers", `[{"UserName":"kim"}]`),
			beat(a, "11:30:00", "PublicIP", "203.0.113.7", "LoggedOnUsers", nil), user("AccountName", "kim")}, []any{"match", nil, "status", "none"}},
		{"logged off by a heartbeat", byUser, []string{kim, beat(a, "11:30:00", "LoggedOnUsers", "[]"), user("AccountName", "kim")}, []any{"match", nil}},
		{"moved to another device", byUser, []string{kim, on(a, "11:20:00", "lee", "CORP", ""), on(b, "11:30:00", "kim", "CORP", "S-1-5-21-1"), user("AccountName", "kim")}, []any{"match", "user", "DeviceId", b}},
		{"lists as text", func(c *device.Config) { c.ByUser, c.ArraysAsJSON = true, true }, []string{kim, user("AccountName", "kim")}, []any{"match", "user", "DeviceId", a}},
		{"users are not among the fields", func(c *device.Config) { c.ByUser, c.Fields = true, []string{"DeviceName"} }, []string{kim, user("AccountName", "kim")}, []any{"match", "user", "DeviceId", a, "LoggedOnUsers", nil}},
		{"an unknown host keeps the user's device away", byUser, []string{kim, user("AccountName", "kim", "DeviceName", "elsewhere")}, []any{"match", nil}},
		{"a Mailbox row", byUser, []string{kim, row("", "Mailbox", `{"MailboxPrimaryAddress":"kim@corp.example"}`, "AccountUpn", "kim@corp.example")}, []any{"match", "user", "DeviceId", a}},
	})
}

func TestScenesOfReports(t *testing.T) {
	a := numbered(1)
	ask := about("", a)
	playScenes(t, []scene{
		{"a system that is none is no full report", nil, []string{full(a, "09:00:00", "MitigationStatus", "Isolated"), full(a, "11:00:00", "OSPlatform", "N/A", "MitigationStatus", ""), ask}, []any{"MitigationStatus", "Isolated", "OSPlatform", "Windows11", "age_s", int64(3 * 3600)}},
		{"a blank system is no full report", nil, []string{full(a, "09:00:00", "MitigationStatus", "Isolated"), full(a, "11:00:00", "OSPlatform", " ", "MitigationStatus", ""), ask}, []any{"MitigationStatus", "Isolated", "age_s", int64(3 * 3600)}},
		{"a null-like value is empty", nil, []string{full(a, "09:00:00", "MitigationStatus", "Isolated", "DeviceName", "ws"), full(a, "11:00:00", "MitigationStatus", "null", "DeviceName", "N/A"), ask}, []any{"MitigationStatus", nil, "DeviceName", nil}},
		{"a null-like value of a heartbeat says nothing", nil, []string{full(a, "09:00:00", "DeviceName", "ws"), beat(a, "11:00:00", "DeviceName", "null", "PublicIP", "-"), ask}, []any{"DeviceName", "ws", "PublicIP", nil}},
		{"a column twice", nil, []string{strings.Replace(full(a, "09:00:00", "DeviceName", "one"), `"DeviceName"`, `"DeviceName":"first","DeviceName"`, 1), ask}, []any{"DeviceName", "first"}},
		{"an odd value in a heartbeat", nil, []string{full(a, "09:00:00", "DeviceName", "ws", "LoggedOnUsers", `[{"UserName":"kim"}]`), beat(a, "11:00:00", "LoggedOnUsers", `[{"UserName":`, "DeviceName", 7), ask}, []any{"LoggedOnUsers", []any{map[string]any{"UserName": "kim"}}}},
		{"an old report after a new one", nil, []string{full(a, "11:00:00", "DeviceName", "new"), full(a, "09:00:00", "DeviceName", "old", "MitigationStatus", "Isolated"), ask}, []any{"DeviceName", "new", "MitigationStatus", "Isolated", "age_s", int64(3600)}},
		{"the first moment of .NET counts as the export", nil, []string{strings.Replace(full(a, "11:00:00", "DeviceName", "odd"), at("11:00:00"), "0001-01-01T00:00:00Z", 1), full(a, "11:30:00", "DeviceName", "ws"), ask}, []any{"DeviceName", "odd", "status", "hit"}},
		{"the end of the ttl", nil, []string{recordOf("DeviceInfo", "DeviceId", a, "Timestamp", "2026-03-02T12:00:00.1234567Z", "OSPlatform", "Windows11"), ask}, []any{"status", "hit", "age_s", int64(48 * 3600)}},
		{"just after it", nil, []string{recordOf("DeviceInfo", "DeviceId", a, "Timestamp", "2026-03-02T12:00:00.1234566Z", "OSPlatform", "Windows11"), ask}, []any{"status", "stale", "age_s", int64(48 * 3600)}},
		{"a ttl of 0", func(c *device.Config) { c.TTL = 0 }, []string{recordOf("DeviceInfo", "DeviceId", a, "Timestamp", "2021-03-02T12:00:00Z", "OSPlatform", "Windows11"), ask}, []any{"status", "hit"}},
		{"a report after the event", nil, []string{full(a, "13:00:00"), ask}, []any{"status", "hit", "age_s", int64(-3599)}},
		{"a stale name match is none", nil, []string{recordOf("DeviceInfo", "DeviceId", a, "Timestamp", "2026-03-02T11:00:00Z", "OSPlatform", "Windows11", "DeviceName", "old9"), row("", "Ip", `{}`, "DeviceName", "old9")}, []any{"match", nil}},
		{"tags in four forms", nil, []string{full(a, "11:00:00", "RegistryDeviceTag", "pci", "DeviceManualTags", []any{"a", nil, "pci"}, "DeviceDynamicTags", `["b","",null,"a"]`), ask}, []any{"Tags", ids("pci", "a", "b")}},
		{"tags that are none", nil, []string{full(a, "11:00:00", "RegistryDeviceTag", "null", "DeviceManualTags", "[]", "DeviceDynamicTags", `[null]`), ask}, []any{"Tags", nil}},
		{"Tags alone among the fields", func(c *device.Config) { c.Fields = []string{"Tags"} }, []string{full(a, "11:00:00", "RegistryDeviceTag", "pci", "DeviceManualTags", `["vip"]`), ask}, []any{"Tags", ids("pci", "vip"), "RegistryDeviceTag", nil, "DeviceManualTags", nil}},
		{"Tags as text", listsAsText, []string{full(a, "11:00:00", "RegistryDeviceTag", "pci", "DeviceManualTags", `["vip"]`), ask}, []any{"Tags", `["pci","vip"]`, "DeviceManualTags", `["vip"]`}},
		{"candidates as text", listsAsText, []string{seen("s", a), seen("s", numbered(2)), row("s", "Ip", `{}`)}, []any{"match", "several", "candidates", `["` + a + `","` + numbered(2) + `"]`}},
		{"a list of nobody in another device's place", nil, []string{full(a, "09:00:00", "LoggedOnUsers", `[{"UserName":"kim"}]`), beat(a, "10:00:00", "LoggedOnUsers", []any{}), ask}, []any{"LoggedOnUsers", nil}},
	})
}

func TestScenesOfAdapters(t *testing.T) {
	a := numbered(1)
	ask := about("", a)
	adapter := func(clock, mac, status string, list any) string {
		return recordOf("DeviceNetworkInfo", "DeviceId", a, "Timestamp", at(clock), "MacAddress", mac, "NetworkAdapterStatus", status, "IPAddresses", list)
	}
	one := `[{"IPAddress":"10.0.0.5"}]`
	playScenes(t, []scene{
		{"addresses before the report", nil, []string{adapter("11:00:00", "AA", "Up", one), full(a, "11:30:00"), ask}, []any{"IPAddresses", ids("10.0.0.5"), "MacAddresses", ids("AA"), "status", "hit"}},
		{"addresses alone are no report", nil, []string{adapter("11:00:00", "AA", "Up", one), ask}, []any{"IPAddresses", ids("10.0.0.5"), "status", "unknown", "age_s", nil}},
		{"a full report says nothing of addresses", nil, []string{adapter("09:00:00", "AA", "Up", one), full(a, "11:30:00"), ask}, []any{"IPAddresses", ids("10.0.0.5")}},
		{"the adapter is down now", nil, []string{adapter("09:00:00", "AA", "Up", one), adapter("10:00:00", "AA", "Down", one), ask}, []any{"IPAddresses", nil, "MacAddresses", nil}},
		{"down, in the other order", nil, []string{adapter("10:00:00", "AA", "Down", one), adapter("09:00:00", "AA", "Up", one), adapter("10:00:00", "BB", "Up", `[{"IPAddress":"10.0.0.6"}]`), ask}, []any{"IPAddresses", ids("10.0.0.6"), "MacAddresses", ids("BB")}},
		{"another adapter is down", nil, []string{adapter("09:00:00", "AA", "Up", one), adapter("09:00:01", "BB", "Down", "[]"), ask}, []any{"IPAddresses", ids("10.0.0.5"), "MacAddresses", ids("AA")}},
		{"up, and without an address now", nil, []string{adapter("09:00:00", "AA", "Up", one), adapter("10:00:00", "AA", "Up", "[]"), ask}, []any{"IPAddresses", nil, "MacAddresses", ids("AA")}},
		{"up again", nil, []string{adapter("09:00:00", "AA", "Up", one), adapter("10:00:00", "AA", "Down", nil), adapter("11:00:00", "AA", "Up", one), ask}, []any{"IPAddresses", ids("10.0.0.5"), "MacAddresses", ids("AA")}},
		{"addresses as texts, some of them none", nil, []string{adapter("09:00:00", "null", "up", []any{"10.0.0.5", "", nil, map[string]any{"IPAddress": "N/A"}}), ask}, []any{"IPAddresses", ids("10.0.0.5"), "MacAddresses", nil}},
		{"lists as text", listsAsText, []string{adapter("09:00:00", "AA", "Up", one), adapter("09:00:00", "BB", "Up", `[{"IPAddress":"::1"}]`), ask}, []any{"IPAddresses", `["10.0.0.5","::1"]`, "MacAddresses", `["AA","BB"]`}},
		{"under the id of a merged device", nil, []string{full(a, "09:00:00", "MergedToDeviceId", ws1), full(ws1, "09:00:00"), adapter("09:00:00", "AA", "Up", one), ask}, []any{"DeviceId", ws1, "IPAddresses", nil}},
	})
}

func TestScenesOfAlerts(t *testing.T) {
	a, b := numbered(1), numbered(2)
	on := func(alert, clock, severity string, properties ...any) string {
		return row(alert, "File", `{"Host":{"MachineId":"`+a+`"}}`, append([]any{"Timestamp", at(clock), "Severity", severity}, properties...)...)
	}
	behavior := recordOf("BehaviorEntities", "BehaviorId", "bh1", "DeviceId", a, "Timestamp", at("10:00:00"))
	info := recordOf("AlertInfo", "AlertId", "x", "Timestamp", at("10:00:00"), "Severity", "High", "Title", "T")
	playScenes(t, []scene{
		{"the same evidence twice", nil, []string{on("x", "10:00:00", "Low"), on("x", "10:00:00", "Low")}, []any{"alerts_24h", int64(1), "alerts_24h_severity", "Low"}},
		{"older evidence of one alert after newer", nil, []string{on("x", "11:00:00", "Low"), on("x", "10:00:00", "Low")}, []any{"alerts_24h", int64(1), "alerts_24h_severity", "Low"}},
		{"an alert that goes on, seen from its middle", nil, []string{on("x", "09:00:00", "High"), on("x", "11:00:00", "High"), on("y", "10:00:00", "Low")}, []any{"alerts_24h", int64(2), "alerts_24h_severity", "High"}},
		{"an alert after this one", nil, []string{on("x", "11:00:00", "High"), on("y", "10:00:00", "Low")}, []any{"alerts_24h", int64(1), "alerts_24h_severity", "Low"}},
		{"exactly a day before", nil, []string{on("x", "10:00:00", "High", "Timestamp", "2026-03-03T10:00:00Z"), on("y", "10:00:00", "Low")}, []any{"alerts_24h", int64(1), "alerts_24h_severity", "Low"}},
		{"a little less than a day before", nil, []string{on("x", "10:00:00", "High", "Timestamp", "2026-03-03T10:00:01Z"), on("y", "10:00:00", "Low")}, []any{"alerts_24h", int64(2), "alerts_24h_severity", "High"}},
		{"behaviors are no alerts", nil, []string{behavior, on("x", "10:30:00", "Low")}, []any{"alerts_24h", int64(1)}},
		{"the severity of AlertInfo that came before", nil, []string{info, on("x", "10:30:00", "")}, []any{"alerts_24h", int64(1), "alerts_24h_severity", "High"}},
		{"the severity of AlertInfo that came later", nil, []string{on("x", "10:30:00", ""), info, on("y", "11:00:00", "Low")}, []any{"alerts_24h", int64(2), "alerts_24h_severity", "High"}},
		{"a device that is known by name counts", nil, []string{full(a, "09:00:00", "DeviceName", "web01"), row("x", "Ip", `{}`, "DeviceName", "web01", "Severity", "High"), row("y", "Ip", `{}`, "DeviceName", "web01", "Severity", "Low")}, []any{"match", "name", "alerts_24h", int64(2), "alerts_24h_severity", "High"}},
		{"an alert without an id", nil, []string{on("-", "10:00:00", "High"), on("x", "10:30:00", "Low")}, []any{"alerts_24h", int64(1), "alerts_24h_severity", "Low"}},
		{"alerts of a device that was merged later", nil, []string{on("x", "10:00:00", "High"), full(a, "10:30:00", "MergedToDeviceId", b), full(b, "10:30:00"), on("y", "11:00:00", "Low")}, []any{"DeviceId", b, "alerts_24h", int64(2), "alerts_24h_severity", "High"}},
		{"alerts of the survivor count those from before", nil, []string{on("x", "10:00:00", "High"), full(b, "10:30:00"), full(a, "10:30:00", "MergedToDeviceId", b), row("y", "File", `{"Host":{"MachineId":"`+b+`"}}`)}, []any{"DeviceId", b, "alerts_24h", int64(2)}},
		{"an odd severity", nil, []string{on("x", "10:00:00", "UnSpecified")}, []any{"alerts_24h", int64(1), "alerts_24h_severity", nil}},
		{"another tenant's alerts", nil, []string{strings.ReplaceAll(on("x", "10:00:00", "High"), aTenant, "ffffffff-0000-4000-8000-000000000001"), on("y", "11:00:00", "Low")}, []any{"alerts_24h", int64(1), "alerts_24h_severity", "Low"}},
		{"more alerts than are kept", nil, func() (r []string) {
			for i := range 70 {
				r = append(r, on(fmt.Sprint("m", i), "10:00:00", "Low"))
			}
			return append(r, on("last", "10:30:00", "Low"))
		}(), []any{"alerts_24h", int64(64)}},
		{"no link for an alert without an id", linked, []string{row("N/A", "Ip", `{}`)}, []any{"alert_url", nil}},
		{"the links of a merged device", linked, []string{full(a, "10:30:00", "MergedToDeviceId", b), full(b, "10:30:00"), on("x", "11:00:00", "Low")},
			[]any{"url", "https://security.microsoft.com/machines/v2/" + b + "/overview?tid=" + aTenant, "alert_url", "https://security.microsoft.com/alerts/x?tid=" + aTenant}},
		{"the links of a tenant that is no GUID", linked, []string{strings.ReplaceAll(on("x", "11:00:00", "Low"), aTenant, "evil&x=1")}, []any{"url", "https://security.microsoft.com/machines/v2/" + a + "/overview"}},
	})
}

// The alerts of a device survive a restart, and the same evidence counts once across it. Those of
// devices that gave way, or were merged, leave the snapshot.
func TestAlertsOutliveARestart(t *testing.T) {
	a, b := numbered(1), numbered(2)
	on := func(id, alert, clock, severity string) string {
		return row(alert, "File", `{"Host":{"MachineId":"`+id+`"}}`, "Timestamp", at(clock), "Severity", severity)
	}
	file := make(map[string][]byte)
	restart := func() (*transform.Transformer, func()) {
		tr, d := withDevices(everything())
		_, _ = d.Save(0, nil)
		for key, saved := range file {
			if !d.Restore(key, saved) {
				t.Errorf("%s cannot be read", key)
			}
		}
		return tr, func() {
			t.Helper()
			if _, err := d.Save(100, func([]device.Saved) error { return errors.New("disk full") }); err == nil {
				t.Error("no error")
			}
			if more, err := d.Save(100, func(saved []device.Saved) error {
				for _, s := range saved {
					if file[s.Key] = s.Groups; len(s.Groups) == 0 {
						delete(file, s.Key)
					}
				}
				return nil
			}); more || err != nil {
				t.Errorf("%v, %v", more, err)
			}
		}
	}
	want := func(e event, n int64, severity any) {
		t.Helper()
		wantDevice(t, e, "alerts_24h", n, "alerts_24h_severity", severity)
	}
	tr, save := restart()
	run(t, tr, on(a, "one", "09:00:00", "High"), on(a, "two", "10:00:00", "Low"))
	save()
	tr, save = restart()
	want(run(t, tr, on(a, "two", "10:00:00", "Low"))[0], 2, "High")
	want(run(t, tr, on(a, "three", "11:00:00", "Low"))[0], 3, "High")
	run(t, tr, full(a, "11:10:00", "MergedToDeviceId", b), full(b, "11:10:00"))
	want(run(t, tr, on(a, "four", "11:20:00", "Low"))[0], 4, "High")
	save()
	alerts := 0
	for key := range file {
		if strings.HasPrefix(key, "alerts/") {
			alerts++
		}
	}
	if alerts != 1 {
		t.Errorf("alerts of %d devices are saved", alerts)
	}
	tr, _ = restart()
	want(run(t, tr, on(b, "five", "11:30:00", "Low"))[0], 5, "High")
	_, d := withDevices(everything())
	for _, bad := range []string{"\x03", "\x03short", "\x03" + strings.Repeat("x", 25*65)} {
		if d.Restore("alerts/"+aTenant+"/"+a, []byte(bad)) || d.Restore("alerts/x", []byte(bad)) {
			t.Errorf("%.40q is read", bad)
		}
	}
}

func TestScenesOfNamesInFull(t *testing.T) {
	a, b, c := numbered(1), numbered(2), numbered(3)
	named := func(alert, name string) string { return row(alert, "Process", `{}`, "DeviceName", name) }
	long, short, other := full(a, "11:00:00", "DeviceName", "web01.corp.example"), full(b, "11:00:00", "DeviceName", "WEB01"), full(c, "11:00:00", "DeviceName", "web01.other.example")
	playScenes(t, []scene{
		{"one has the whole name, one the short one", nil, []string{long, short, named("", "WEB01.corp.example")}, []any{"match", "name", "DeviceId", a}},
		{"the short name is of both", nil, []string{long, short, named("", "web01")}, []any{"match", "several", "candidates", ids(a, b)}},
		{"nobody has the whole name", nil, []string{short, other, named("", "web01.corp.example")}, []any{"match", "name", "DeviceId", b}},
		{"two have the whole name", nil, []string{long, full(b, "11:00:00", "DeviceName", "web01.CORP.example"), short, named("", "web01.corp.example")}, []any{"match", "several"}},
		{"on an alert of both", nil, []string{row("n", "Machine", `{"MachineId":"`+a+`"}`, "DeviceId", a, "DeviceName", "web01.corp.example"), row("n", "Machine", `{"MachineId":"`+b+`"}`, "DeviceId", b, "DeviceName", "web01"), named("n", "web01.corp.example")},
			[]any{"match", "alert", "DeviceId", a, "status", "unknown"}},
		{"evidence of a new id under an old name", nil, []string{long, row("", "Machine", `{"MachineId":"`+b+`"}`, "DeviceId", b, "DeviceName", "web01.corp.example")}, []any{"match", "row", "DeviceId", b, "status", "unknown", "OSPlatform", nil}},
		{"an alert of a hundred machines, and the name of one", nil, func() (r []string) {
			for i := range 100 {
				r = append(r, row("n", "Machine", "", "DeviceId", numbered(i), "DeviceName", fmt.Sprintf("pc%02d.corp.example", i)), full(numbered(i), "11:00:00", "DeviceName", fmt.Sprintf("pc%02d.corp.example", i)))
			}
			return append(r, named("n", "PC77"))
		}(), []any{"match", "name", "DeviceId", numbered(77), "status", "hit"}},
		{"an alert of a hundred machines, and no name", nil, func() (r []string) {
			for i := range 100 {
				r = append(r, seen("n", numbered(99-i)))
			}
			return append(r, row("n", "Ip", `{}`))
		}(), []any{"match", "several", "DeviceId", nil, "candidates", ids(numbered(0), numbered(1), numbered(2), numbered(3), numbered(4))}},
		{"ten machines of one name", nil, func() (r []string) {
			for i := range 10 {
				r = append(r, full(numbered(9-i), "11:00:00", "DeviceName", "pc"))
			}
			return append(r, named("", "PC"))
		}(), []any{"match", "several", "DeviceId", nil, "candidates", ids(numbered(0), numbered(1), numbered(2), numbered(3), numbered(4))}},
		{"of a hundred machines one leads", nil, func() (r []string) {
			for i := range 100 {
				r = append(r, row("n", "Machine", fmt.Sprintf(`{"MachineId":"%s","LeadingHost":%v}`, numbered(i), i == 70), "DeviceId", numbered(i)))
			}
			return append(r, row("n", "Ip", `{}`))
		}(), []any{"match", "alert", "DeviceId", numbered(70)}},
	})
}

// Prefixes and separators give names that are ours alone, and the values stay the same.
func TestScenesOfPrefixes(t *testing.T) {
	a := numbered(1)
	for _, prefix := range []string{"DeviceInfo.", "alert_", "Device", "x", "device.info_", "DeviceInfo_", "é "} {
		for _, separator := range []string{".", "_", "__"} {
			cfg := everything()
			cfg.Portal, cfg.Separator = "https://security.microsoft.com", separator
			tr := transform.New(transform.Config{Devices: device.New(cfg), DevicePrefix: prefix, Separator: separator})
			run(t, tr, full(a, "11:00:00", "DeviceName", "web01", "DeviceManualTags", `["vip"]`, "LoggedOnUsers", `[{"UserName":"kim"}]`))
			e := run(t, tr, row("x1", "File", `{"Host":{"MachineId":"`+a+`"}}`, "DeviceName", "own", "status", "own", prefix+"status", "forged", "alert_url", "forged"))[0]
			for name, want := range map[string]any{"DeviceId": a, "DeviceName": "web01", "status": "hit", "match": "evidence", "age_s": int64(3600), "Tags": ids("vip"), "LoggedOnUsers": []any{map[string]any{"UserName": "kim"}}} {
				if got := e.m[prefix+name]; !reflect.DeepEqual(got, want) {
					t.Errorf("%q, %q: %s is %v, want %v: %v", prefix, separator, name, got, want, e.m)
				}
			}
			urls := 0
			for _, value := range e.m {
				if text, ok := value.(string); ok && strings.HasPrefix(text, cfg.Portal+"/") {
					urls++
				}
			}
			if urls != 2 {
				t.Errorf("%q, %q: %d links in %v", prefix, separator, urls, e.m)
			}
		}
	}
}

// Alerts of very many devices take no more than their share, also while nothing is saved.
func TestAlertsOfManyDevicesAreBounded(t *testing.T) {
	cfg := everything()
	tr, d := withDevices(cfg)
	_, _ = d.Save(0, nil)
	const n = 30_000
	for i := range n {
		run(t, tr, row("x1", "File", fmt.Sprintf(`{"Host":{"MachineId":"%040x"}}`, i+1)))
	}
	s := d.Stats()
	if s.AlertBytes > cfg.CacheBytes/8 || d.Changed() > 10_000 {
		t.Errorf("%+v, %d to save", s, d.Changed())
	}
	// All that is left is saved, and what gave way is not.
	file := make(map[string][]byte)
	for more, err := true, error(nil); more; {
		if more, err = d.Save(500, func(saved []device.Saved) error {
			for _, s := range saved {
				if file[s.Key] = s.Groups; len(s.Groups) == 0 {
					delete(file, s.Key)
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if size := 232 * int64(len(file)); len(file) < 100 || size > cfg.CacheBytes/8/4 {
		t.Errorf("%d devices in the snapshot", len(file))
	}
	_, again := withDevices(cfg)
	for key, saved := range file {
		if !again.Restore(key, saved) {
			t.Fatalf("%s has no room", key)
		}
	}
	if got, want := again.Stats().AlertBytes, s.AlertBytes; got > want+1000 {
		t.Errorf("%d bytes after a restart, %d before", got, want)
	}
}

// A workspace of Log Analytics is no tenant: links do not name it.
func TestLinksOfAWorkspace(t *testing.T) {
	cfg := everything()
	cfg.Portal = "https://security.microsoft.com"
	const workspace = "5f5f5f5f-0000-4000-8000-000000000005"
	report := strings.ReplaceAll(asWorkspace("DeviceInfo", workspaceRecords["DeviceInfo"]), "workspace-1", workspace)
	e := last(t, cfg, report, strings.ReplaceAll(asWorkspace("AlertEvidence", workspaceRecords["AlertEvidence"]), "workspace-1", workspace))
	wantDevice(t, e, "status", "hit", "url", "https://security.microsoft.com/machines/v2/aa11/overview")
	if got := e.m["alert_url"]; got != "https://security.microsoft.com/alerts/da1_1" {
		t.Errorf("alert_url %v", got)
	}
}

// A snapshot with any damage is read as far as it goes, and never breaks what comes after.
func TestDamagedSnapshot(t *testing.T) {
	a, b := numbered(1), numbered(2)
	tr, d := withDevices(everything())
	_, _ = d.Save(0, nil)
	run(t, tr, full(a, "09:00:00", "MitigationStatus", "", "RegistryDeviceTag", "pci", "DeviceManualTags", `["vip"]`), full(a, "10:00:00", "LoggedOnUsers", `[{"UserName":"kim"}]`, "MergedToDeviceId", b), full(b, "11:00:00", "PublicIP", ""),
		row("x1", "File", `{"Host":{"MachineId":"`+a+`"}}`, "Severity", "High"))
	var whole []device.Saved
	_, _ = d.Save(100, func(saved []device.Saved) error { whole = saved; return nil })
	if len(whole) != 4 { // two devices, the alerts of one, and the alert
		t.Fatalf("%d entries", len(whole))
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range 4000 {
		cfg := everything()
		cfg.ByUser, cfg.ArraysAsJSON = true, random.IntN(2) == 0
		tr, d := withDevices(cfg)
		for _, s := range whole {
			damaged := slices.Clone(s.Groups)
			for range random.IntN(4) {
				switch at := random.IntN(len(damaged)); random.IntN(3) {
				case 0:
					damaged[at] = byte(random.IntN(256))
				case 1:
					damaged[at]++
				case 2:
					damaged = damaged[:at+1]
				}
			}
			d.Restore(s.Key, damaged)
		}
		n := 0
		body := envelopeOf(full(a, "10:30:00", "MitigationStatus", "Isolated"), about("x2", a), row("x3", "User", `{}`, "AccountName", "kim"))
		tr.Append(t.Context(), []transform.Payload{{Body: []byte(body)}}, func(table string, _ []byte) {
			if table != "unreadable" { // as after a panic
				n++
			}
		})
		if n != 3 {
			t.Fatalf("%d events", n)
		}
	}
}

// What the rows of an alert and its AlertInfo have told survives a restart.
func TestAlertOutlivesARestart(t *testing.T) {
	a, b, c := numbered(1), numbered(2), numbered(3)
	tr, d := withDevices(everything())
	_, _ = d.Save(0, nil)
	run(t, tr, seen("one/\u00e9", a), seen("two", a), seen("two", b), row("led", "Machine", `{"MachineId":"`+c+`","LeadingHost":true}`, "DeviceId", c), seen("led", a),
		recordOf("AlertInfo", "AlertId", "one/\u00e9", "Title", "T", "Severity", "High", "Category", "Execution"))
	file := make(map[string][]byte)
	write := func(saved []device.Saved) error {
		for _, s := range saved {
			file[s.Key] = s.Groups
		}
		return nil
	}
	if more, err := d.Save(2, func([]device.Saved) error { return errors.New("disk full") }); !more || err == nil {
		t.Errorf("%v, %v", more, err)
	}
	for more := true; more; {
		more, _ = d.Save(2, write)
	}
	run(t, tr, seen("two", a), recordOf("AlertInfo", "AlertId", "one/\u00e9", "Title", "T"))
	if n := d.Changed(); n != 0 {
		t.Errorf("%d to save of what is known", n)
	}
	tr, d = withDevices(everything())
	for key, saved := range file {
		if !d.Restore(key, saved) {
			t.Errorf("%s cannot be read", key)
		}
	}
	events := run(t, tr, row("one/\u00e9", "Ip", `{}`), row("two", "Ip", `{}`), row("led", "Ip", `{}`))
	wantDevice(t, events[0], "match", "alert", "DeviceId", a, "alerts_24h_severity", "High")
	if events[0].m["Title"] != "T" || !reflect.DeepEqual(events[0].m["Categories"], ids("Execution")) {
		t.Errorf("%v", events[0].m)
	}
	wantDevice(t, events[1], "match", "several", "candidates", ids(a, b))
	wantDevice(t, events[2], "match", "alert", "DeviceId", c)
}
