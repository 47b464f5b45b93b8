package main

import (
	"fmt"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// A metric is a family of series in Fluent Bit's own metrics, as
// fluentbit_defender_<name>{name="<section>", ...}. Every series has the section's name as its
// first label.
type metric struct {
	name   string
	kind   metricKind
	help   string
	labels []string  // beside name
	bounds []float64 // upper bounds of a histogram's buckets, in seconds
}

type metricKind int

const (
	counter metricKind = iota // since the section started; a source that starts again begins from 0
	gauge
	histogram
)

// A figure is the value of one series.
type figure struct {
	labels  []string
	value   float64  // of a counter or gauge; the sum of a histogram
	buckets []uint64 // of a histogram: cumulative, the last one that of everything
}

// metrics are all there are. Names are an API: dashboards and alerts use them. Their number is
// bounded: labels are hubs and partitions that are ours, containers, at most 256 tables, and fixed
// lists.
var (
	mRecords      = &metric{name: "records_total", help: "Records handed on, by table.", labels: []string{"table"}}
	mFormat       = &metric{name: "format_records_total", help: "Records handed on, by their format.", labels: []string{"format"}}
	mPayloads     = &metric{name: "payloads_total", help: "Event Hubs messages and blob lines read."}
	mPayloadBytes = &metric{name: "payload_bytes_total", help: "Bytes of payloads read."}
	mUnreadable   = &metric{name: "unreadable_total", help: "Records passed on raw because they could not be read, by reason.", labels: []string{"reason"}}
	mExcluded     = &metric{name: "excluded_total", help: "Records left out by tables and tables_exclude."}
	mRepeats      = &metric{name: "repeats_total", help: "Records of hunting tables that came before, by table. repeats: drop leaves them out.", labels: []string{"table"}}
	mTimeFallback = &metric{name: "time_fallbacks_total", help: "Records without a usable time of their own; their event has another time."}
	mDamaged      = &metric{name: "damaged_total", help: "Payloads that did not parse as a whole. Their readable records were handed on."}
	mEmpty        = &metric{name: "empty_total", help: "Payloads without any record, and records without any column."}
	mChanged      = &metric{name: "fields_changed_total", help: "Fields that were changed, by the change: the name was taken (renamed), the value did not fit its column's type (misfit), text became a number (converted), bytes were no text (repaired), a $ref was left alone (unresolved).", labels: []string{"change"}}
	mDelay        = &metric{name: "event_delay_seconds", kind: histogram, help: "Time from an event to its hand-over to the outbox, by table.", labels: []string{"table"}, bounds: transform.DelayBounds()}

	mHanded     = &metric{name: "handed_over_bytes_total", help: "Bytes of events that Fluent Bit has taken."}
	mRefused    = &metric{name: "refused_total", help: "Appends that Fluent Bit refused. They are repeated until it takes them."}
	mWaiting    = &metric{name: "waiting_bytes", kind: gauge, help: "Bytes of events that wait for Fluent Bit: read, and not yet safe."}
	mBatches    = &metric{name: "waiting_batches", kind: gauge, help: "Batches that wait for Fluent Bit."}
	mMemory     = &metric{name: "memory_bytes", kind: gauge, help: "Memory that the plugin has taken from the system, all sections together."}
	mMemoryMost = &metric{name: "memory_limit_bytes", kind: gauge, help: "The sum of memory_limit of all sections."}

	mLag        = &metric{name: "eventhub_lag_events", kind: gauge, help: "Messages of a partition that Fluent Bit has not taken yet, read or not.", labels: []string{"hub", "partition"}}
	mLagSeconds = &metric{name: "eventhub_lag_seconds", kind: gauge, help: "Age of the newest message read of a partition, or 0 if Fluent Bit has taken all of the partition.", labels: []string{"hub", "partition"}}
	mUnsafe     = &metric{name: "eventhub_not_committed_events", kind: gauge, help: "Messages of a partition that were read and would be repeated after a crash.", labels: []string{"hub", "partition"}}
	mRetention  = &metric{name: "eventhub_lost_to_retention_total", help: "Messages that the hub deleted before they were read."}
	mUndecoded  = &metric{name: "eventhub_undecoded_total", help: "Messages that were skipped because they cannot be decoded. An unreadable record reports each batch of them."}
	mPartitions = &metric{name: "eventhub_partitions", kind: gauge, help: "Partitions that a hub has.", labels: []string{"hub", "group"}}
	mAssigned   = &metric{name: "eventhub_partitions_assigned", kind: gauge, help: "Partitions of a hub that this section reads.", labels: []string{"hub", "group"}}
	mStale      = &metric{name: "eventhub_redelivered_lanes_total", help: "Positions dropped because their partition was given away first. Its next owner repeats events."}
	mRebalances = &metric{name: "eventhub_rebalances_total", help: "Times that partitions came or went."}
	mHubRetries = &metric{name: "eventhub_retries_total", help: "Failed attempts that were repeated, by kind.", labels: []string{"kind"}}

	mBlobBehind   = &metric{name: "blob_behind_bytes", kind: gauge, help: "Bytes of a container's blobs that are listed and not yet safe.", labels: []string{"container"}}
	mBlobNewest   = &metric{name: "blob_newest_age_seconds", kind: gauge, help: "Time since the newest blob of a container was changed.", labels: []string{"container"}}
	mBlobOpen     = &metric{name: "blob_open", kind: gauge, help: "Blobs of a container that are followed or wait to be read.", labels: []string{"container"}}
	mBlobFailing  = &metric{name: "blob_failing", kind: gauge, help: "Blobs of a container that cannot be read at present.", labels: []string{"container"}}
	mBlobLists    = &metric{name: "blob_list_calls_total", help: "Calls that list blobs or containers. Azure bills them."}
	mBlobReads    = &metric{name: "blob_read_calls_total", help: "Calls that read blobs."}
	mBlobReplaced = &metric{name: "blob_replaced_total", help: "Blobs that were deleted and written again. They are read as new ones."}
	mBlobFound    = &metric{name: "blob_found_total", help: "Blobs that were taken up for reading."}
	mBlobGone     = &metric{name: "blob_gone_total", help: "Blobs that were deleted while they were followed. The log names those that were not read to their end."}
	mBlobPassed   = &metric{name: "blob_passed_over_bytes_total", help: "Bytes that were skipped beyond the limit of a line, or behind damage in gzip."}
	mBlobArchived = &metric{name: "blob_archived_total", help: "Blobs that were left out because they are in the archive tier."}
	mBlobCut      = &metric{name: "blob_lines_cut_total", help: "Lines longer than an eighth of memory_limit, or than 32 MB, handed on cut."}
	mBlobRetries  = &metric{name: "blob_retries_total", help: "Failed attempts that were repeated, by kind.", labels: []string{"kind"}}
)

var (
	mShards    = &metric{name: "blob_shards", kind: gauge, help: "Shares of the blobs, for all workers (blob.shards)."}
	mOwned     = &metric{name: "blob_shards_owned", kind: gauge, help: "Shares that this worker reads. All workers together read blob_shards."}
	mTakeovers = &metric{name: "blob_shard_takeovers_total", help: "Shares that this worker took over from another."}
	mLeaseLost = &metric{name: "blob_leases_lost_total", help: "Shares whose lease ended before it was given back. Their events without a written position are repeated."}
)

var (
	mDevices        = &metric{name: "devices", kind: gauge, help: "Known devices."}
	mDeviceBytes    = &metric{name: "device_cache_bytes", kind: gauge, help: "Bytes that known devices and recent alerts take."}
	mDevicesEvicted = &metric{name: "devices_evicted_total", help: "Devices that gave way to others. device_info.cache_bytes is too small if this grows fast."}
	mDeviceReports  = &metric{name: "device_reports_total", help: "Reports of devices that were merged into the known devices."}
	mNotWaited      = &metric{name: "device_not_waited_total", help: "Rows that did not wait for their device, because memory_limit has no room for more waiting rows."}
	mAlerts         = &metric{name: "alerts", kind: gauge, help: "Recent alerts whose title and severity are known."}
	mAlertsFilled   = &metric{name: "alerts_filled_total", help: "Rows of alert evidence that got title and severity from their alert."}
	mDeviceStatus   = &metric{name: "device_info_total", help: "Records that should have a device, by DeviceInfo.status.", labels: []string{"status"}}
	mDeviceRows     = &metric{name: "device_rows_total", help: "Rows that should have a device, by table and DeviceInfo.status.", labels: []string{"table", "status"}}
	mNewestReport   = &metric{name: "device_newest_report_age_seconds", kind: gauge, help: "Time since the newest full report of any device."}
	mDeviceMatch    = &metric{name: "device_match_total", help: "Records that have a device, by DeviceInfo.match.", labels: []string{"match"}}
	mAPILookups     = &metric{name: "device_api_lookups_total", help: "Devices that the machines API was asked for, by outcome.", labels: []string{"outcome"}}
	mAPIListed      = &metric{name: "device_api_listed_total", help: "Devices that came in lists of the machines API."}
	mAPICalls       = &metric{name: "device_api_calls_total", help: "Calls of the machines API, by the status of the answer.", labels: []string{"code"}}
	mAPIWaiting     = &metric{name: "device_api_waiting", kind: gauge, help: "Devices that the machines API is being asked for."}
	mAPIQuotaWait   = &metric{name: "device_api_quota_wait_seconds_total", help: "Time that calls of the machines API waited for its quota."}
)

var allMetrics = []*metric{
	mRecords, mFormat, mPayloads, mPayloadBytes, mUnreadable, mExcluded, mRepeats, mTimeFallback, mDamaged, mEmpty, mChanged, mDelay,
	mHanded, mRefused, mWaiting, mBatches, mMemory, mMemoryMost,
	mLag, mLagSeconds, mUnsafe, mRetention, mUndecoded, mPartitions, mAssigned, mStale, mRebalances, mHubRetries,
	mBlobBehind, mBlobNewest, mBlobOpen, mBlobFailing, mBlobLists, mBlobReads, mBlobReplaced, mBlobFound, mBlobGone, mBlobPassed, mBlobArchived, mBlobCut, mBlobRetries,
	mShards, mOwned, mTakeovers, mLeaseLost,
	mDevices, mDeviceBytes, mDevicesEvicted, mDeviceReports, mNotWaited, mAlerts, mAlertsFilled, mDeviceStatus, mDeviceMatch, mDeviceRows, mNewestReport, mAPILookups, mAPIListed, mAPICalls, mAPIWaiting, mAPIQuotaWait,
}

const (
	metricsEvery = 5 * time.Second
	figuresEvery = time.Minute // in the log, where the host offers no metrics
)

// figures reads everything that is counted and tells set. A series that was reported once is
// reported each time. So the figures of a partition that was given away go to 0, and do not keep
// their last value.
func (in *instance) figures(set func(m *metric, f figure)) {
	in.checkTables()
	one := func(m *metric, value float64, labels ...string) { set(m, figure{labels: labels, value: value}) }
	var payloads, bytes, excluded, fallbacks uint64
	var damaged, empty, notWaited uint64
	tables, reasons := make(map[string]uint64), make(map[string]uint64)
	changes, repeated := make(map[string]uint64), make(map[string]uint64)
	delays := make(map[string]transform.Delay)
	found := make(map[[2]string]uint64) // table and status
	for _, t := range in.transforms {
		s := t.Stats()
		payloads += s.Payloads.Load()
		bytes += s.Bytes.Load()
		excluded += s.Excluded.Load()
		fallbacks += s.TimeFallbacks.Load()
		damaged += s.Damaged.Load()
		empty += s.Empty.Load()
		notWaited += s.NotWaited.Load()
		changes["renamed"] += s.Renamed.Load()
		changes["misfit"] += s.Misfits.Load()
		changes["converted"] += s.Converted.Load()
		changes["repaired"] += s.Repaired.Load()
		changes["unresolved"] += s.Unresolved.Load()
		for name, n := range s.Tables() {
			tables[name] += n
		}
		s.Devices(func(table, status string, n uint64) { found[[2]string{table, status}] += n })
		for name, n := range s.Repeats() {
			repeated[name] += n
		}
		for name, n := range s.Unreadable() {
			reasons[name] += n
		}
		for name, d := range s.Delays() {
			sum := delays[name]
			sum.Add(d)
			delays[name] = sum
		}
	}
	one(mPayloads, float64(payloads))
	one(mPayloadBytes, float64(bytes))
	one(mExcluded, float64(excluded))
	one(mTimeFallback, float64(fallbacks))
	one(mDamaged, float64(damaged))
	one(mEmpty, float64(empty))
	for change, n := range changes {
		one(mChanged, float64(n), change)
	}
	var records uint64
	for key, n := range found {
		one(mDeviceRows, float64(n), key[0], key[1])
	}
	for name, n := range tables {
		one(mRecords, float64(n), name)
		records += n
	}
	one(mFormat, float64(records), in.format)
	for name, n := range repeated {
		one(mRepeats, float64(n), name)
	}
	for name, n := range reasons {
		one(mUnreadable, float64(n), name)
	}
	for name, d := range delays {
		set(mDelay, figure{labels: []string{name}, value: d.Seconds, buckets: d.Cumulative()})
	}

	one(mHanded, float64(in.handover.bytes))
	one(mRefused, float64(in.handover.refusals))
	one(mWaiting, float64(in.outbox.Bytes()))
	one(mBatches, float64(in.outbox.Batches()))
	one(mMemory, float64(heldMemory()))
	one(mMemoryMost, float64(current.memory()))

	if src := in.eventhub.Load(); src != nil {
		in.hubFigures(one, src.Stats())
	}
	if src := in.blob.Load(); src != nil {
		blobFigures(one, src.Stats())
	}
	if in.devices != nil {
		in.devices.figures(one)
		one(mNotWaited, float64(notWaited))
		in.devices.warnOfRows(notWaited)
	}
}

func blobFigures(one func(m *metric, value float64, labels ...string), s blob.Stats) {
	for name, c := range s.Containers {
		one(mBlobBehind, float64(c.Behind), name)
		one(mBlobNewest, c.Newest.Seconds(), name)
		one(mBlobOpen, float64(c.Open), name)
		one(mBlobFailing, float64(c.Failed), name)
	}
	one(mBlobLists, float64(s.Lists))
	one(mBlobReads, float64(s.Reads))
	one(mBlobReplaced, float64(s.Replaced))
	one(mBlobFound, float64(s.Blobs))
	one(mBlobGone, float64(s.Gone))
	one(mBlobPassed, float64(s.BytesSkipped))
	one(mBlobArchived, float64(s.Archived))
	one(mBlobCut, float64(s.LinesCut))
	for kind, n := range s.Retries {
		one(mBlobRetries, float64(n), kind)
	}
	if s.Shared != nil {
		one(mShards, float64(s.Shared.Shards))
		one(mOwned, float64(s.Shared.Owned))
		one(mTakeovers, float64(s.Shared.Takeovers))
		one(mLeaseLost, float64(s.Shared.Lost))
	}
}

func (in *instance) hubFigures(one func(m *metric, value float64, labels ...string), s eventhub.Stats) {
	for key := range in.handover.lanesSeen {
		in.handover.lanesSeen[key] = false
	}
	for _, l := range s.Lanes {
		key := [2]string{l.Hub, strconv.Itoa(int(l.Partition))}
		in.handover.lanesSeen[key] = true
		one(mLag, float64(l.Lag), key[0], key[1])
		one(mLagSeconds, l.Behind.Seconds(), key[0], key[1])
		one(mUnsafe, float64(l.NotCommitted()), key[0], key[1])
	}
	for key, ours := range in.handover.lanesSeen {
		if !ours {
			one(mLag, 0, key[0], key[1])
			one(mLagSeconds, 0, key[0], key[1])
			one(mUnsafe, 0, key[0], key[1])
		}
	}
	for _, h := range s.Hubs {
		one(mPartitions, float64(h.Partitions), h.Hub, in.group)
		one(mAssigned, float64(h.Assigned), h.Hub, in.group)
	}
	one(mRetention, float64(s.Lost))
	one(mUndecoded, float64(s.Unreadable))
	one(mStale, float64(s.Stale))
	one(mRebalances, float64(s.Rebalances))
	for kind, n := range s.Retries {
		one(mHubRetries, float64(n), kind)
	}
}

// figures reports the counts of devices.
func (d *devices) figures(one func(m *metric, value float64, labels ...string)) {
	s := d.Stats()
	one(mDevices, float64(s.Devices))
	one(mDeviceBytes, float64(s.Bytes+s.AlertBytes))
	one(mDevicesEvicted, float64(s.Evicted))
	one(mDeviceReports, float64(s.Learned))
	if s.NewestReport > 0 {
		one(mNewestReport, max(time.Since(time.Unix(0, s.NewestReport)).Seconds(), 0))
	}
	one(mAlerts, float64(s.Alerts))
	one(mAlertsFilled, float64(s.AlertsFilled))
	for status, n := range s.Status {
		one(mDeviceStatus, float64(n), status)
	}
	for match, n := range s.Match {
		one(mDeviceMatch, float64(n), match)
	}
	if d.client == nil {
		return
	}
	c := d.client.Stats()
	one(mAPILookups, float64(c.Found), "found")
	one(mAPILookups, float64(c.Unknown), "unknown")
	one(mAPILookups, float64(c.Failed), "failed")
	one(mAPIListed, float64(c.Listed))
	one(mAPIWaiting, float64(c.Waiting))
	one(mAPIQuotaWait, c.QuotaWait.Seconds())
	for code, n := range c.Calls {
		one(mAPICalls, float64(n), apiCode(code))
	}
}

// warnOfRows logs, once, that rows did not wait for their device.
func (d *devices) warnOfRows(notWaited uint64) {
	if notWaited > 0 && !d.overflowed {
		d.overflowed = true
		d.log.Warn("more rows wait for their device than memory_limit has room for; the others get only the facts known so far, "+
			"and device_not_waited_total counts them; raise memory_limit, or shorten device_info.wait", "rows", notWaited)
	}
}

// apiCode is the label of an HTTP status: bounded, for any answer of a server.
func apiCode(code int) string {
	switch {
	case code == 0:
		return "none"
	case code >= 100 && code < 600:
		return strconv.Itoa(code)
	}
	return "other"
}

// report brings the host's metrics up to date, or writes the figures into the log where it offers
// none. Called from the host's thread.
func (in *instance) report(now time.Time) {
	if in.host.metric != nil {
		if now.Sub(in.handover.reportedAt) >= metricsEvery {
			in.handover.reportedAt = now
			in.figures(in.host.metric)
		}
		return
	}
	if in.handover.reportedAt.IsZero() {
		in.handover.reportedAt = now
		in.log.Debug("this Fluent Bit offers no metrics: figures are logged once a minute instead")
	}
	if now.Sub(in.handover.reportedAt) < figuresEvery {
		return
	}
	in.handover.reportedAt = now
	var line strings.Builder
	flush := func() {
		if line.Len() > 0 {
			in.log.Info("figures:" + line.String())
			line.Reset()
		}
	}
	in.figures(func(m *metric, f figure) {
		value := f.value
		if m.kind == histogram {
			if n := f.buckets[len(f.buckets)-1]; n > 0 {
				value /= float64(n) // the mean says more in a line than ten buckets
			}
		}
		if value == 0 {
			return
		}
		fmt.Fprintf(&line, " %s", m.name)
		for i, label := range f.labels {
			fmt.Fprintf(&line, "%s%s=%s", [...]string{"{", ","}[min(i, 1)], m.labels[i], label)
		}
		if len(f.labels) > 0 {
			line.WriteByte('}')
		}
		fmt.Fprintf(&line, "=%s", strconv.FormatFloat(value, 'f', -1, 64))
		if line.Len() > 3000 { // the host cuts lines at 4 kB
			flush()
		}
	})
	flush()
}

// heldMemory: the bytes that the library's own Go runtime has from the system.
func heldMemory() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}
