package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
)

// TestMeasure is a measurement, not a test. $DEFENDER_MEASURE megabytes of mixed envelopes go
// through a real Fluent Bit, with this plugin and then with Fluent Bit's own kafka input. Both read
// the same hub, which is filled before. The hub runs on the same processors, so a plain consumer is
// measured too: nothing can be faster than that.
func TestMeasure(t *testing.T) {
	megabytes, _ := strconv.Atoi(os.Getenv("DEFENDER_MEASURE"))
	if megabytes == 0 {
		t.Skip("a measurement: set DEFENDER_MEASURE to a number of megabytes")
	}
	binary := fluentBit(t, "no other test")
	so, _ := build(t)
	h := startHub(t, 4)
	// Batches as Event Hubs takes them, of 1 MB at most.
	producer, err := kgo.NewClient(append(h.ClientOpts(), kgo.ProducerBatchMaxBytes(1_000_000), kgo.DisableIdempotentWrite(),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	messages, size, tale := 0, 0, story.New(story.Options{})
	for size < megabytes<<20 {
		var batch []*kgo.Record
		for range 100 {
			m := tale.AppendEnvelope(nil, 100)
			size += len(m)
			batch = append(batch, &kgo.Record{Topic: hub, Value: m})
		}
		messages += len(batch)
		if err := producer.ProduceSync(context.Background(), batch...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	records := int(tale.Number()) + 1 // it begins with 0
	t.Logf("%d messages, %d records, %.0f MB of JSON", messages, records, float64(size)/1e6)

	plain, seconds := consume(t, h, messages)
	t.Logf("%-30s %6.1f MB/s", "a plain franz-go consumer", float64(plain)/1e6/seconds)

	name, password := "$ConnectionString", h.ConnectionString()
	defender := func(storage, group string, settings ...string) string {
		return "    name defender\n    threaded off\n    storage.type " + storage + "\n" + section(h, append(settings, "eventhub.group "+group)...)
	}
	kafka := func(group string) string {
		return fmt.Sprintf(`    name kafka
    brokers %s
    topics %s
    group_id %s
    poll_ms 10
    rdkafka.auto.offset.reset earliest
    rdkafka.security.protocol SASL_SSL
    rdkafka.sasl.mechanism PLAIN
    rdkafka.sasl.username %s
    rdkafka.sasl.password %s
    rdkafka.ssl.ca.location %s
`, h.Brokers(), hub, group, name, password, h.CAFile())
	}
	type run struct {
		name, input string
		want        int
	}
	var runs []run
	for round := range 3 { // in turns, because the machine is not the same all the time
		runs = append(runs,
			run{"defender, filesystem, one tag", defender("filesystem", fmt.Sprint("one-", round)), records},
			run{"defender, filesystem, 21 tags", defender("filesystem", fmt.Sprint("many-", round), "tag_pattern defender.*"), records},
			run{"kafka, filesystem", "    storage.type filesystem\n" + kafka(fmt.Sprint("files-", round)), messages})
	}
	runs = append(runs,
		run{"defender, memory, 21 tags", defender("memory", "memory", "tag_pattern defender.*"), records},
		run{"kafka, memory", kafka("memory-kafka"), messages},
		run{"kafka, memory, threaded", "    threaded on\n    poll_timeout_ms 500\n" + kafka("threaded"), messages})
	speeds := map[string][]float64{}
	for _, c := range runs {
		dir := t.TempDir()
		port := freePort(t)
		conf := filepath.Join(dir, "fluent-bit.conf")
		text := fmt.Sprintf(`[SERVICE]
    flush 1
    log_file %[1]s/fluent-bit.log
    http_server on
    http_listen 127.0.0.1
    http_port %[2]d
    plugins_file %[1]s/plugins.conf
    storage.path %[1]s/storage
    storage.max_chunks_up 512
[INPUT]
%[3]s
[OUTPUT]
    name null
    match *
`, dir, port, c.input)
		for file, text := range map[string]string{conf: text, filepath.Join(dir, "plugins.conf"): "[PLUGINS]\n    Path " + so + "\n"} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := startFluentBit(t, binary, conf)
		var first, last time.Time
		at := 0
		for deadline := time.Now().Add(3 * time.Minute); at < c.want && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if n := inputRecords(port); n > at {
				if first.IsZero() {
					first = time.Now()
				}
				at, last = n, time.Now()
			}
		}
		cpu, kernel, peak := usage(t, cmd.Process.Pid)
		took := last.Sub(first).Seconds() + 1 // what came with the first look had been read in a second or so
		t.Logf("%-30s %6.1f MB/s, %5.1f CPU seconds a GB, %4.1f of them the kernel's, peak memory %4.0f MB, %d of %d records",
			c.name, float64(size)/1e6/took, cpu/(float64(size)/1e9), kernel/(float64(size)/1e9), peak, at, c.want)
		terminate(t, cmd)
		speeds[c.name] = append(speeds[c.name], float64(size)/1e6/took)
	}
	median := func(name string) float64 {
		slices.Sort(speeds[name])
		return speeds[name][len(speeds[name])/2]
	}
	t.Logf("21 tags have %.2f of the speed of one tag, medians", median("defender, filesystem, 21 tags")/median("defender, filesystem, one tag"))
}

// consume reads all messages of the hub and returns their bytes, and how many seconds it took.
func consume(t *testing.T, h *fakehub.Hub, messages int) (size int, seconds float64) {
	t.Helper()
	client, err := kgo.NewClient(append(h.ClientOpts(), kgo.ConsumeTopics(hub), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxBytes(64<<20), kgo.FetchMaxPartitionBytes(16<<20))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	started := time.Now()
	for n := 0; n < messages; {
		client.PollFetches(context.Background()).EachRecord(func(r *kgo.Record) { n++; size += len(r.Value) })
	}
	return size, time.Since(started).Seconds()
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// inputRecords asks Fluent Bit how many records its only input has taken.
func inputRecords(port int) (n int) {
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/api/v1/metrics", port))
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	var m struct {
		Input map[string]struct{ Records int }
	}
	_ = json.NewDecoder(resp.Body).Decode(&m)
	for name, in := range m.Input {
		if strings.HasPrefix(name, "defender") || strings.HasPrefix(name, "kafka") {
			n += in.Records
		}
	}
	return n
}

// usage is the CPU time of a process in seconds, that of the kernel in it, and its peak memory in
// MB.
func usage(t *testing.T, pid int) (cpu, kernel, peak float64) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	for _, f := range fields[11:13] { // utime and stime, in hundredths
		ticks, _ := strconv.ParseFloat(f, 64)
		cpu, kernel = cpu+ticks/100, ticks/100
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if _, after, ok := strings.Cut(string(status), "VmHWM:"); ok {
		kb, _ := strconv.ParseFloat(strings.Fields(after)[0], 64)
		peak = kb / 1024
	}
	return cpu, kernel, peak
}
