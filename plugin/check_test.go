package main

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestCheckOnlySaysWhatWorksAndStops(t *testing.T) {
	t.Parallel()
	h := startHub(t, 3)
	produce(t, h, 0, 60)
	const container = "insights-logs-advancedhunting-alertinfo"
	account := startAccount(t, container, []byte("{}\r\n"))
	var joined atomic.Bool
	h.ControlKey(int16(kmsg.JoinGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
		h.KeepControl()
		joined.Store(true)
		return nil, nil, false
	})
	both := settings(h, "check_only=on", "blob.connection_string="+account.ConnectionString())

	r := runHost(t, both...).ok(t)
	r.logs(t, "check: broker "+h.Brokers()+": ok, signed in by connection_string")
	r.logs(t, "check: hub defender: ok, 3 partitions, 3 messages written so far, ")
	r.logs(t, "check: container "+container+": ok, may be listed and read")
	r.logs(t, "check_only: all 4 checks passed")
	if len(r.events) != 0 {
		t.Errorf("%d events were read", len(r.events))
	}
	if joined.Load() {
		t.Error("the check joined the consumer group, whose members then give up partitions")
	}

	// Listing works and reading does not, and the hub has another name.
	account.SetFault(mayOnlyList)
	r = runHost(t, append(both, "-set", "eventhub.hubs=defnder")...)
	if r.code != 1 {
		t.Errorf("the host ends with %d", r.code)
	}
	r.logs(t, "check: hub defnder: NOT OK: there is no such hub")
	r.logs(t, "check: container "+container+": NOT OK: read ")
	r.logs(t, "check_only: 2 of 4 checks failed")

	// Nobody there at all, and a wrong key.
	r = runHost(t, "-set", "check_only=on", "-set", "eventhub.connection_string="+h.ConnectionString(), "-set", "eventhub.brokers=127.0.0.1:1")
	r.logs(t, "check: broker 127.0.0.1:1: NOT OK: the broker cannot be reached")
	wrong := strings.Replace(h.ConnectionString(), "SharedAccessKey=Zm", "SharedAccessKey=Xm", 1)
	r = runHost(t, "-set", "eventhub.connection_string="+wrong, "-set", "check_only=on", "-set", "eventhub.brokers="+h.Brokers(), "-set", "eventhub.ca_file="+h.CAFile())
	r.logs(t, "NOT OK: sign-in was refused")
}
