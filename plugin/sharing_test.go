package main

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/lease"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
)

const workersContainer = "defender-workers"

// dayShard is the shard of a container's blobs of this day, as input/blob/shard.go has it.
func dayShard(container string, shards int) int {
	h := fnv.New32a()
	name := hourBlob()
	fmt.Fprint(h, container, "/", name[:strings.Index(name, "h=")])
	return int(h.Sum32() % uint32(shards))
}

// another is a worker that holds shards of the account.
func another(t *testing.T, account *fakeblob.Server, shards int, holds func(n int) bool) {
	t.Helper()
	client, err := azblob.NewClientFromConnectionString(account.ConnectionString(), nil)
	if err != nil {
		t.Fatal(err)
	}
	owner, all := "another", fmt.Sprint(shards)
	for n := range shards {
		if !holds(n) {
			continue
		}
		b := client.ServiceClient().NewContainerClient(workersContainer).NewBlockBlobClient(fmt.Sprintf("shard-%03d", n))
		empty := struct {
			io.ReadSeeker
			io.Closer
		}{bytes.NewReader(nil), io.NopCloser(nil)}
		if _, err := b.Upload(t.Context(), empty, &blockblob.UploadOptions{Metadata: map[string]*string{"owner": &owner, "shards": &all}}); err != nil {
			t.Fatal(err)
		}
		l, err := lease.NewBlobClient(b, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.AcquireLease(t.Context(), 60, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// A worker without any file hands over its share only, and goes on where the one before left off.
// It knows the devices that another worker's share reports.
func TestWorkersShare(t *testing.T) {
	t.Parallel()
	account := startReports(t, 20)
	account.CreateContainer(workersContainer)
	shards := 2
	for dayShard(deviceContainer, shards) == dayShard(evidenceContainer, shards) {
		shards++
	}
	another(t, account, shards, func(n int) bool { return n != dayShard(evidenceContainer, shards) })
	file := filepath.Join(t.TempDir(), "metrics")
	args := []string{"-metrics", file}
	for _, s := range []string{"blob.connection_string=" + account.ConnectionString(), "blob.start=earliest", "blob.poll_interval=1s",
		"blob.shared=" + workersContainer, fmt.Sprint("blob.shards=", shards)} {
		args = append(args, "-set", s)
	}
	for seq := 1; seq <= 2; seq++ {
		account.Append(evidenceContainer, hourBlob(), lineOf(fileRow(seq, deviceNumber(seq))))
		r := runHostUntil(t, 1, "", args...).ok(t)
		if len(r.events) != 1 || r.events[0].Seq != seq {
			t.Errorf("run %d: %d events came, such as %+v", seq, len(r.events), r.events)
		}
		if got := deviceFields(t, r)[seq]; got["DeviceInfo.status"] != "hit" || got["DeviceInfo.MachineGroup"] != "Finance" {
			t.Errorf("run %d: %v\n%s", seq, got, r.log)
		}
		r.logs(t, "sharing blobs with other workers")
		r.logs(t, "db is not set: positions are in blob.shared")
		if state := account.LeaseState(workersContainer, fmt.Sprintf("shard-%03d", dayShard(evidenceContainer, shards))); state != "available" {
			t.Errorf("the shard of a worker that has ended is %s", state)
		}
	}

	runHost(t, append(args, "-seconds", "8")...).ok(t)
	figures, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{fmt.Sprintf(`blob_shards{name="defender.0"} %d`, shards), `blob_shards_owned{name="defender.0"} 1`, `blob_leases_lost_total{name="defender.0"} 0`} {
		if !strings.Contains(string(figures), want) {
			t.Errorf("no %s in\n%s", want, figures)
		}
	}

	r := runHost(t, append(args, "-set", "check_only=on")...).ok(t)
	r.logs(t, "check: container "+workersContainer+" (blob.shared): ok, may be listed, written and leased")
}
