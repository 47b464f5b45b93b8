package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/machines"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

const (
	deviceBucket  = "devices"        // of the state file
	saveEvery     = 30 * time.Second // for the API's answers; reports are saved with the positions of their messages
	warmBucket    = "warm_up"        // of the state file: has warmKey while the first start's reports are read
	warmKey       = "under way"
	savedAtOnce   = 2000 // devices in one transaction, about 1 MB
	leastForCache = 1 << 20
)

// defaultFields: the columns of its device that an alert carries when device_info.fields is not
// set. They name the device, its place, its system, its worth and health, its users, and the time
// of its last report.
const defaultFields = "DeviceName,OSPlatform,OSFamily,OSVersion,OSVersionInfo,OSBuild,OSArchitecture,DeviceCategory,DeviceType,Model,Vendor," +
	"MachineGroup,JoinType,AadDeviceId,PublicIP,LastIPAddress,LoggedOnUsers,OnboardingStatus,SensorHealthState,ExposureLevel,RiskScore," +
	"AssetValue,IsInternetFacing,RegistryDeviceTag,DeviceManualTags,DeviceDynamicTags,AzureResourceId,Timestamp,MitigationStatus,IsExcluded," +
	"IPAddresses,MacAddresses"

// deviceSettings declares the keys of the join: which records get a device, which columns of it,
// and how much is remembered.
var deviceSettings = []input.Setting{
	{Key: "device_info", Kind: input.Switch, Default: "on", Doc: "Add the device to alert evidence."},
	{Key: "device_info.tables", Kind: input.List, Default: "AlertEvidence", Doc: "Names or patterns (`*`) of the tables whose rows get the device. AlertInfo, BehaviorInfo and BehaviorEntities may be added."},
	{Key: "device_info.fields", Kind: input.List, Default: defaultFields, Doc: "The columns of DeviceInfo to add, or * for all of them."},
	{Key: "device_info.prefix", Kind: input.Text, Default: "DeviceInfo.", Doc: "The beginning of the names of the added fields. It cannot be empty: Fluent Bit takes an empty value for one that is not set."},
	{Key: "device_info.cache_bytes", Kind: input.Bytes, Doc: "The part of memory_limit for devices and recent alerts. The least recently used give way to others. A quarter of memory_limit when not set."},
	{Key: "device_info.ttl", Kind: input.Duration, Default: "48h", Doc: "A device is stale if its newest report is older than the alert by more than this. The machines API, if set up, is then asked for it again."},
	{Key: "device_info.wait", Kind: input.Duration, Default: "2s", Doc: "The longest time that records wait for the machines API, once for all missing devices. 0 never waits."},
	{Key: "device_info.by_user", Kind: input.Switch, Default: "off", Doc: "Give rows with an account and no device the one device that the account is logged on to."},
	{Key: "device_info.portal", Kind: input.Choice, Default: "auto", Choices: []string{"auto", "off", "commercial", "gcc_high", "dod"}, Doc: "The portal that `DeviceInfo.url` and `alert_url` lead to. `auto` follows `azure.cloud`, `off` writes neither."},
	{Key: "device_info.warm_up", Kind: input.Duration, Default: "3h", Doc: "The age up to which the first start reads DeviceInfo blobs although `blob.start` is `latest`. 0 reads none."},
	{Key: "device_info.warm_up_wait", Kind: input.Duration, Default: "60s", Doc: "The longest time that rows wait at the first start for the blobs of `device_info.warm_up`. So the first alert has its device. 0 never waits."},
}

// deviceConfig has the settings of device information.
type deviceConfig struct {
	memory device.Config
	prefix string
	api    machines.Config

	warmUp, warmUpWait time.Duration
}

// portals are where Defender is looked at, from learn.microsoft.com, "Microsoft Defender XDR for US
// Government customers".
var portals = map[string]string{
	"commercial": "https://security.microsoft.com",
	"gcc_high":   "https://security.microsoft.us",
	"dod":        "https://security.apps.mil",
}

// portal is the beginning of links to the portal, or "" for none.
func portal(choice, cloud string) string {
	if choice == "auto" {
		choice = map[string]string{"public": "commercial", "usgov": "gcc_high"}[cloud]
	}
	return portals[choice]
}

// readDeviceConfig returns nil when device information is off. Its cache is part of memory, the
// section's memory_limit.
func readDeviceConfig(s *input.Settings, identity signin.Config, memory int64) *deviceConfig {
	c := &deviceConfig{
		memory: device.Config{
			Tables:       transform.WithoutPrefix(s.List("device_info.tables")),
			Fields:       s.List("device_info.fields"),
			CacheBytes:   s.Bytes("device_info.cache_bytes"),
			TTL:          s.Duration("device_info.ttl"),
			Wait:         s.Duration("device_info.wait"),
			ByUser:       s.Switch("device_info.by_user"),
			Portal:       portal(s.Choice("device_info.portal"), identity.Cloud),
			Separator:    s.Text("separator"),
			ArraysAsJSON: s.Choice("arrays") == "json",
		},
		api:    machines.ReadConfig(s, identity, s.Duration("device_info.wait")),
		prefix: s.Text("device_info.prefix"),
		warmUp: s.Duration("device_info.warm_up"),

		warmUpWait: s.Duration("device_info.warm_up_wait"),
	}
	if !s.Switch("device_info") {
		return nil
	}
	switch {
	case !s.IsSet("device_info.cache_bytes"):
		c.memory.CacheBytes = memory / 4
	case c.memory.CacheBytes < leastForCache:
		s.Reject("device_info.cache_bytes", "is too little; set at least 1M, or device_info to off")
	case c.memory.CacheBytes > memory/2:
		s.Reject("device_info.cache_bytes", "is more than half of memory_limit; raise that, or set less")
	}
	if s.IsBlank("device_info.prefix") {
		s.Reject("device_info.prefix", "is empty: the device's fields would take the names of a row's own columns; set one, such as Device_")
	}
	if len(c.memory.Tables) == 0 {
		s.Reject("device_info.tables", "names no table; set device_info to off if no rows are to have their device")
	}
	for _, line := range unknownTables(c.memory.Tables, nil) {
		s.Warn("device_info.tables", line)
	}
	for _, name := range c.memory.Fields {
		if near := input.Nearest(name, device.ColumnNames()); near != "" && !strings.EqualFold(near, name) {
			s.Warn("device_info.fields", fmt.Sprintf("DeviceInfo is not known to have a column %q; did you mean %s?", name, near))
		}
	}
	return c
}

// devices has the device memory of an instance and its sources besides records: the snapshot in the
// state file, and the machines API.
type devices struct {
	*device.Memory
	client *machines.Client // nil when there is no API
	state  *input.State
	log    *slog.Logger
	cancel context.CancelFunc
	wg     sync.WaitGroup // of the goroutines of openDevices
	warmed chan struct{}  // closed by the source when the blobs of the warm-up are read; nil when nothing waits for that

	mu      sync.Mutex // of one save at a time
	failing bool       // it was logged that saving fails

	overflowed bool // it was logged that rows do not wait; on the host's thread
}

// openDevices reads the snapshot and starts what keeps it, and the API's client.
func openDevices(c *deviceConfig, state *input.State, log *slog.Logger) (*devices, error) {
	d := &devices{state: state, log: log}
	memory := c.memory
	if c.api.On() {
		memory.Ask = func(tenant string, ids []string, wait time.Duration) (coming, left []string) {
			return d.client.Ask(tenant, ids, wait, func(id string, answered bool) { d.Answered(tenant, id, answered) })
		}
	}
	d.Memory = device.New(memory)
	if state != nil {
		d.restore()
	}
	if c.api.On() {
		var err error
		if d.client, err = machines.Open(c.api, d.Learn, log); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	if state != nil {
		d.wg.Go(func() { d.keep(ctx) })
	}
	if wait := c.warmUpWait; wait > 0 && d.isFirstStart() {
		d.WarmUp(wait)
		d.warmed = make(chan struct{})
		d.wg.Go(func() { d.warmUp(ctx, wait) })
	}
	return d, nil
}

// isFirstStart reports whether nothing is known of devices yet, also because the process ended in
// the middle of its first warm-up. It notes the beginning of a warm-up in the state file.
func (d *devices) isFirstStart() bool {
	if d.Stats().Devices > 0 {
		if under, _ := d.state.Get(warmBucket, warmKey); under == nil {
			return false
		}
	}
	d.noteWarmUp([]byte("1"))
	return true
}

func (d *devices) noteWarmUp(value []byte) {
	if err := d.state.Write(warmBucket, []input.Change{{Key: warmKey, Value: value}}); err != nil {
		d.log.Debug("note the warm-up in the state file", "error", err)
	}
}

// warmUp ends the wait of rows for the blobs of the warm-up, when those are read or after most.
func (d *devices) warmUp(ctx context.Context, most time.Duration) {
	defer input.CatchAndLog(d.log, "wait for the reports of devices")
	begun := time.Now()
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return // the next start waits, too
	case <-d.warmed:
		d.log.Info("recent reports of devices are read; rows wait for them no longer", "devices", d.Stats().Devices, "after", time.Since(begun).Round(time.Millisecond))
	case <-timer.C:
		d.log.Warn("read recent reports of devices: not all came in time; rows with a device get the facts known so far, and later rows get more",
			"device_info.warm_up_wait", most, "devices", d.Stats().Devices)
	}
	d.noteWarmUp(nil)
	d.WarmedUp()
}

// close ends the client and the timers, and writes the changes since the last snapshot. The pumps
// must have ended.
func (d *devices) close() {
	if d.client != nil {
		d.client.Close()
	}
	d.cancel()
	d.wg.Wait()
}

// restore reads the snapshot. Entries that cannot be read, or have no room, are deleted there.
func (d *devices) restore() {
	_, _ = d.Save(0, nil) // changes are noted from here on
	n := 0
	var useless []input.Change
	err := d.state.Each(deviceBucket, "", func(key, saved []byte) error {
		if d.restoreOne(string(key), saved) {
			n++
		} else {
			useless = append(useless, input.Change{Key: string(key)})
		}
		return nil
	})
	if err == nil {
		err = d.state.Write(deviceBucket, useless)
	}
	if err != nil {
		d.log.Warn("the snapshot of devices cannot be used; devices are learned again", "error", err)
	}
	if n > 0 {
		d.log.Info("devices read from the state file", "devices", d.Stats().Devices, "left_out", len(useless))
	}
}

// restoreOne restores a device. A panic costs that device, not the start.
func (d *devices) restoreOne(key string, saved []byte) (ok bool) {
	defer input.CatchAndLog(d.log, "read a device from the state file")
	return d.Restore(key, saved)
}

// keep writes changed devices into the state file until ctx ends, and once more then.
func (d *devices) keep(ctx context.Context) {
	for ctx.Err() == nil {
		_ = input.Sleep(ctx, saveEvery)
		d.save()
	}
}

// save writes the devices that have changed. When it returns, all that was learned before is in the
// file, or the log says why not.
func (d *devices) save() {
	if d.state == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch err := d.trySave(); {
	case err != nil && !d.failing:
		d.log.Warn("save devices to the state file: retrying", "error", err)
		d.failing = true
	case err == nil && d.failing:
		d.log.Info("devices are saved to the state file again")
		d.failing = false
	}
}

func (d *devices) trySave() (err error) {
	defer input.Catch("save devices", &err)
	for n := d.Changed(); n > 0; n -= savedAtOnce { // what changes meanwhile is for the next time
		if _, err = d.Save(savedAtOnce, d.write); err != nil {
			return err
		}
	}
	return nil
}

func (d *devices) write(saved []device.Saved) error {
	changes := make([]input.Change, len(saved))
	for i, s := range saved {
		changes[i] = input.Change{Key: s.Key, Value: s.Groups}
	}
	return d.state.Write(deviceBucket, changes)
}
