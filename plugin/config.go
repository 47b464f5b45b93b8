package main

import (
	"slices"
	"strings"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/machines"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// Settings are the keys that concern the instance as a whole.
var Settings = []input.Setting{
	{Key: "db", Kind: input.Text, Doc: "The state file: positions of blobs, a copy of Event Hubs offsets, known devices and their alerts. Each section needs its own. With `blob.shared`, it has no positions of blobs."},
	{Key: "tag_pattern", Kind: input.Text, Doc: "A tag for each table: the `*` of `defender.*` becomes the table. With `format: ocsf`, the `{class}` of `ocsf.{class}` becomes the class. Without it events have the section's own `tag`."},
	{Key: "tables", Kind: input.List, Doc: "Names or patterns (`*`) of the only tables to pass on, such as `AlertInfo, AlertEvidence`. All tables when empty."},
	{Key: "tables_exclude", Kind: input.List, Doc: "Names or patterns (`*`) of tables to leave out."},
	{Key: "separator", Kind: input.Text, Default: ".", Doc: "The text between the names of nested objects."},
	{Key: "keep_nulls", Kind: input.Switch, Default: "off", Doc: "Keep columns that are null or empty."},
	{Key: "resolve_refs", Kind: input.Switch, Default: "off", Doc: "Replace each `$ref` by the object that it refers to. This multiplies the number of fields."},
	{Key: "event_id", Kind: input.Switch, Default: "on", Doc: "Add `event_id`, the same for the same event however often it is delivered."},
	{Key: "repeats", Kind: input.Choice, Default: "pass", Choices: []string{"pass", "drop"}, Doc: "`drop` leaves out records of Advanced Hunting tables whose `event_id` came before; `pass` keeps them. Both count them in `repeats_total`. Defender delivers some 3 % of its records again."},
	{Key: "repeats.memory", Kind: input.Bytes, Doc: "The part of memory_limit for the ids that recognise repeats. 16M hold the ids of the last 690,000 records; 0 recognises no repeats. A sixteenth of memory_limit when not set."},
	{Key: "format", Kind: input.Choice, Default: "flat", Choices: transform.Formats(), Doc: "The shape of the events. `flat` is for searches by hand, `raw` for lakes and replays. `splunk` is for Splunk's Advanced Hunting add-on, `elastic` for Elastic's integration. `ecs` is for rules on the Elastic Common Schema, `ocsf` for readers of OCSF 1.8.0."},
	{Key: "arrays", Kind: input.Choice, Default: "list", Choices: []string{"list", "json"}, Doc: "Write arrays as lists, or as JSON text."},
	{Key: "splunk.fill_device", Kind: input.Switch, Default: "on", Doc: "`format: splunk`: fill an empty `DeviceName` and `DeviceId` with the joined device."},
	{Key: "splunk.mend", Kind: input.Switch, Default: "off", Doc: "`format: splunk`: repeat the tenant and the techniques where the add-on looks for them."},
	{Key: "check_only", Kind: input.Switch, Default: "off", Doc: "Try every connection once, log one `check:` line for each, and stop. Fluent Bit ends with status 0 if all connections work."},
	{Key: "memory_limit", Kind: input.Bytes, Default: "256M", Doc: "The most memory that this section takes, at least 64M. It holds fetched, transformed and waiting events, the known devices, and the plugin itself. A longer line of a blob than an eighth of it, or than 32 MB, is cut."},
}

// declared lists every key of a section. Keys are read by it, examples/settings.md shows it, and
// misspelt keys are compared with it.
func declared() []input.Setting {
	return slices.Concat(Settings, eventhub.Settings, blob.Settings, deviceSettings, machines.Settings, signin.Settings)
}

const (
	// leastMemory is the least that memory_limit may be.
	leastMemory = 64 << 20

	// ownMemory is the share of memory_limit for everything but events and devices. It covers
	// connections, the state file, lists of blobs, and garbage that is not yet collected.
	ownMemory = 24 << 20
)

// config has the settings of a section, read and checked.
type config struct {
	db         string
	checkOnly  bool
	tagPattern string
	memory     int64
	transform  transform.Config
	eventhub   *eventhub.Config // nil when nothing is set for it
	blob       *blob.Config     // likewise
	devices    *deviceConfig    // nil when device_info is off
	repeats    int64            // bytes for the ids of records; 0 when repeats are not recognised
}

// withoutState is the effect of having no state file, as text for the log.
func (c config) withoutState() string {
	if c.blob != nil && c.blob.Shared == "" {
		return "after a restart blobs are read from where blob.start says, and events are missed or repeated"
	}
	return "if Event Hubs loses the consumer group's offsets, reading begins where eventhub.start says and events are missed or repeated"
}

// findUseless names settings that were read and have no effect beside the others.
func (c config) findUseless(s *input.Settings) {
	if format := c.transform.Format; format != "splunk" {
		for _, key := range []string{"splunk.fill_device", "splunk.mend"} {
			s.Useless(key, "format is "+format)
		}
	}
	switch format := c.transform.Format; format {
	case "raw", "elastic":
		s.Useless("resolve_refs", "format "+format+" passes the text of a record on unchanged")
		s.Useless("keep_nulls", "format "+format+" passes the text of a record on unchanged")
	case "splunk":
		s.Useless("resolve_refs", "format splunk passes references on unchanged")
	case "ecs":
		s.Useless("keep_nulls", "format ecs leaves out what is empty")
	}
	if format := c.transform.Format; c.devices != nil && format != "flat" && format != "raw" {
		s.Useless("device_info.prefix", "format "+format+" has places of its own for the device")
	}
	if c.devices == nil {
		for _, d := range slices.Concat(deviceSettings, machines.Settings) {
			if d.Key != "device_info" {
				s.Useless(d.Key, "device_info is off")
			}
		}
	} else if !c.devices.api.On() {
		for _, key := range []string{"device_info.api.url", "device_info.api.cloud", "device_info.api.refresh"} {
			s.Useless(key, "device_info.auth is off")
		}
	}
	if c.devices != nil && c.blob == nil {
		for _, key := range []string{"device_info.warm_up", "device_info.warm_up_wait"} {
			s.Useless(key, "no storage account is configured, and only blobs are read back")
		}
	} else if c.devices != nil && c.devices.warmUp == 0 {
		s.Useless("device_info.warm_up_wait", "device_info.warm_up is 0")
	}
	// azure.cloud and azure.ca_file serve more than signing in.
	var methods []string
	if c.eventhub != nil {
		methods = append(methods, c.eventhub.Auth)
	}
	if c.blob != nil {
		methods = append(methods, c.blob.Auth)
	}
	if c.devices != nil {
		methods = append(methods, c.devices.api.Auth)
	}
	entra := slices.ContainsFunc(methods, func(m string) bool { return slices.Contains(signin.Methods, m) })
	for _, k := range []struct{ key, method string }{
		{"azure.tenant_id", ""}, {"azure.client_id", ""}, {"azure.authority_host", ""},
		{"azure.client_secret", signin.ClientSecret},
		{"azure.client_certificate", signin.ClientCertificate}, {"azure.client_certificate_password", signin.ClientCertificate},
	} {
		switch {
		case !entra:
			s.Useless(k.key, "nothing signs in with Entra ID (eventhub.auth, blob.auth, device_info.auth)")
		case k.method != "" && !slices.Contains(methods, k.method):
			s.Useless(k.key, "no auth is "+k.method)
		}
	}
}

// withoutUse is the reason why a key was not read, as text for the log.
func (c config) withoutUse(key string) string {
	switch {
	case key == "repeats.memory":
		return "event_id is off"
	case strings.HasPrefix(key, "blob.shar") && c.blob != nil:
		return "blob.shared is not set"
	case strings.HasPrefix(key, "blob.") && c.blob == nil:
		return "no storage account is configured (blob.connection_string, or blob.account_url)"
	case strings.HasPrefix(key, "eventhub.") && c.eventhub == nil:
		return "no Event Hub is configured (eventhub.connection_string, or eventhub.brokers)"
	}
	return ""
}

func readConfig(s *input.Settings) (c config) {
	c.db = s.Text("db")
	c.checkOnly = s.Switch("check_only")
	c.tagPattern = s.Text("tag_pattern")
	c.memory = s.Bytes("memory_limit")
	c.transform = transform.Config{
		Format:        s.Choice("format"),
		EmitClass:     byClass(c.tagPattern),
		Separator:     s.Text("separator"),
		KeepNulls:     s.Switch("keep_nulls"),
		ResolveRefs:   s.Switch("resolve_refs"),
		EventID:       s.Switch("event_id"),
		ArraysAsJSON:  s.Choice("arrays") == "json",
		Tables:        transform.WithoutPrefix(s.List("tables")),
		TablesExclude: transform.WithoutPrefix(s.List("tables_exclude")),
		Memory:        c.memory / 8,

		SplunkFillDevice: s.Switch("splunk.fill_device"),
		SplunkMend:       s.Switch("splunk.mend"),
	}
	if excludesAll(c.transform.Tables, c.transform.TablesExclude) {
		s.Reject("tables_exclude", "leaves out all that tables names: no record would be passed on")
	}
	if c.memory < leastMemory {
		s.Reject("memory_limit", "is too little; set at least 64M")
	}
	if err := checkTagPattern(c.tagPattern); err != "" {
		s.Reject("tag_pattern", err)
	} else if c.transform.EmitClass && c.transform.Format != "ocsf" {
		s.Reject("tag_pattern", "names a {class}, which only events of format: ocsf have; use * for the table")
	}
	id := signin.Read(s)
	if cfg, configured := eventhub.ReadConfig(s, id); configured {
		c.eventhub = &cfg
	}
	if cfg, configured := blob.ReadConfig(s, id); configured {
		c.blob = &cfg
	}
	c.repeats = readRepeats(s, c.memory)
	c.transform.DropRepeats = s.Choice("repeats") == "drop"
	c.devices = readDeviceConfig(s, id, c.memory)
	if c.devices != nil {
		c.transform.DevicePrefix = c.devices.prefix
	}
	switch {
	case c.devices == nil:
	case c.blob == nil || c.devices.warmUp == 0:
		c.devices.warmUpWait = 0
	default:
		c.blob.WarmUp = c.devices.warmUp
		c.blob.Warm = func(container string) bool { return strings.HasSuffix(container, "-deviceinfo") }
	}
	c.findUseless(s)
	if c.eventhub == nil && c.blob == nil {
		s.Reject("eventhub.connection_string", "no source is configured; set it for an Event Hub, or blob.connection_string for a storage account")
	}
	return c
}
