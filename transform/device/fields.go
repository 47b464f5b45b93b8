package device

import (
	"maps"
	"slices"
	"strings"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// columnID is the place of a column in columnNames, or behind them for one that is not listed
// there. Snapshots hold the ids of listed columns, so the list only ever grows at its end.
type columnID uint8

// columnNames are the columns of DeviceInfo in the order of their documentation. Behind them are
// those that only the machines API or evidence has. DeviceId is the key of a device, and no column
// here.
var columnNames = [...]string{
	columnMergedTo:   "MergedToDeviceId", // kept always, since it is followed
	columnDeviceName: "DeviceName",
	columnOSVersion:  "OSVersion",
	columnOSFamily:   "OSFamily",
	columnGroup:      "MachineGroup",
	5:                "Timestamp",
	"ClientVersion", "PublicIP", "OSArchitecture", "OSPlatform", "OSBuild", "IsAzureADJoined", "JoinType", "AadDeviceId",
	"LoggedOnUsers", "RegistryDeviceTag", "ReportId", "OnboardingStatus", "AdditionalFields", "DeviceCategory", "DeviceType",
	"DeviceSubtype", "Model", "Vendor", "OSDistribution", "OSVersionInfo", "MergedDeviceIds", "IsInternetFacing",
	"SensorHealthState", "IsExcluded", "ExclusionReason", "ExposureLevel", "AssetValue", "DeviceManualTags", "DeviceDynamicTags",
	"ConnectivityType", "HostDeviceId", "AzureResourceId", "AwsResourceName", "GcpFullResourceName", "HardwareUuid",
	"CloudPlatforms", "AzureVmId", "AzureVmSubscriptionId", "IsTransient", "OsBuildRevision", "MitigationStatus", "Site",
	"DiscoverySources", "DeviceObjectId", // the name of AadDeviceId in 2021
	"RiskScore", "LastIPAddress", "ManagedBy",
	columnIPs:  "IPAddresses", // of adapters that are up, from DeviceNetworkInfo
	columnMACs: "MacAddresses",
}

const (
	columnMergedTo columnID = iota
	columnDeviceName
	columnOSVersion
	columnOSFamily
	columnGroup
	columnUsers       columnID = 14 // LoggedOnUsers
	columnRegistryTag columnID = 15 // RegistryDeviceTag
	columnManualTags  columnID = 33 // DeviceManualTags
	columnDynamicTags columnID = 34 // DeviceDynamicTags
	columnResource    columnID = 37 // AzureResourceId
	columnIPs         columnID = 53
	columnMACs        columnID = 54
)

const columnNone columnID = 255 // with columnFull there are fewer than 255, and a group can count them in a byte

// Names come from outside: so many are remembered, of at most so many bytes.
const (
	maxDeviceNames     = 1024
	maxDeviceNameBytes = 128
)

// A fieldSet is the columns that are kept. Names that are not in columnNames get ids as they come
// up, because Microsoft adds columns without notice.
type fieldSet struct {
	all    bool
	byUser bool     // users find devices
	tags   bool     // Tags is wanted, or a column that it is made of
	names  []string // by columnID; "" for a column that is not kept
	ids    map[string]field
	wish   map[string]string // lower case to the name as given
	order  []field           // the columns of the last report, by place: the next mostly has the same there
}

func newFields(fields []string, byUser bool) fieldSet {
	f := fieldSet{byUser: byUser, ids: make(map[string]field), wish: make(map[string]string)}
	for _, name := range fields {
		if name == "*" {
			f.all = true
		}
		f.wish[strings.ToLower(name)] = name
	}
	for _, name := range [...]string{"tags", "registrydevicetag", "devicemanualtags", "devicedynamictags"} {
		if _, wished := f.wish[name]; wished {
			f.tags = true
		}
	}
	f.names = make([]string, len(columnNames))
	f.order = make([]field, 2*len(columnNames))
	for i, name := range columnNames {
		_, wished := f.wish[strings.ToLower(name)]
		switch {
		case wished || f.all:
			f.names[i] = name
			f.ids[name] = field{name, columnID(i), record.ClassOf(name)}
		case f.finds(columnID(i)):
			f.ids[name] = field{name, columnID(i), record.ClassOf(name)}
		default:
			f.ids[name] = field{name: name, id: columnNone}
		}
	}
	for _, name := range fields {
		listed := slices.ContainsFunc(columnNames[:], func(s string) bool { return strings.EqualFold(s, name) })
		if name != "*" && !listed {
			f.field([]byte(name)) // has its id before reports can use all of them up
		}
	}
	return f
}

// finds reports whether devices are found by a column, or Tags made of it: it is kept, wanted or
// not.
func (f *fieldSet) finds(id columnID) bool {
	if f.tags && (id == columnRegistryTag || id == columnManualTags || id == columnDynamicTags) {
		return true // Tags is the union of all three
	}
	return id == columnMergedTo || id == columnDeviceName || id == columnResource || id == columnUsers && f.byUser
}

// A field is a column that may be kept: its id is columnNone if it is not.
type field struct {
	name  string // as reports have it
	id    columnID
	class record.Class
}

// fieldAt is field for the column at a place in its report.
func (f *fieldSet) fieldAt(place int, name []byte) field {
	if place < len(f.order) && len(name) > 0 && f.order[place].name == string(name) {
		return f.order[place]
	}
	found := f.field(name)
	if place < len(f.order) && found.name != "" {
		f.order[place] = found
	}
	return found
}

// field returns the column that a report names.
func (f *fieldSet) field(name []byte) field {
	known, ok := f.ids[string(name)]
	if ok {
		return known
	}
	if len(name) > maxDeviceNameBytes {
		return field{id: columnNone}
	}
	text, _ := record.AppendText(nil, name)
	found := field{name: string(name), id: columnNone, class: record.ClassOf(string(text))}
	_, wished := f.wish[strings.ToLower(string(text))]
	if (wished || f.all) && len(text) > 0 && !isOurs(string(text)) && len(f.names) < int(columnFull) {
		found.id = columnID(len(f.names))
		f.names = append(f.names, string(text))
	}
	if len(f.ids) >= maxDeviceNames {
		maps.DeleteFunc(f.ids, func(_ string, known field) bool { return known.id == columnNone })
	}
	f.ids[found.name] = found
	return found
}

// ourNames: the names of our fields beside the columns of a device. No column can have one.
var ourNames = []string{
	"DeviceId", "match", "status", "candidates", "age_s", "alerts_24h", "alerts_24h_severity", "url", "Tags",
}

// ColumnNames are the known columns of a device, and our fields beside them.
func ColumnNames() []string { return slices.Concat(columnNames[:], ourNames) }

func isOurs(name string) bool { return slices.Contains(ourNames, name) }
