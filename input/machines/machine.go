package machines

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	jsoniter "github.com/json-iterator/go"
)

// columns gives the DeviceInfo column of a property of a machine, by its name in lower case. The
// service and its documentation spell some names differently. version ("22H2") is not OSVersion
// ("10.0"). The last three have no column in DeviceInfo.
var columns = map[string]string{
	"id":                    "DeviceId",
	"mergedintomachineid":   "MergedToDeviceId",
	"computerdnsname":       "DeviceName",
	"agentversion":          "ClientVersion",
	"lastexternalipaddress": "PublicIP",
	"osplatform":            "OSPlatform",
	"osarchitecture":        "OSArchitecture",
	"osbuild":               "OSBuild",
	"osversion":             "OSVersion",
	"version":               "OSVersionInfo",
	"isaadjoined":           "IsAzureADJoined",
	"aaddeviceid":           "AadDeviceId",
	"rbacgroupname":         "MachineGroup",
	"healthstatus":          "SensorHealthState",
	"onboardingstatus":      "OnboardingStatus",
	"exposurelevel":         "ExposureLevel",
	"devicevalue":           "AssetValue",
	"isexcluded":            "IsExcluded",
	"exclusionreason":       "ExclusionReason",
	"lastseen":              "Timestamp",
	"riskscore":             "RiskScore",
	"lastipaddress":         "LastIPAddress",
	"managedby":             "ManagedBy",
}

// vmColumns does the same for the properties of vmMetadata.
var vmColumns = map[string]string{
	"vmid":           "AzureVmId",
	"subscriptionid": "AzureVmSubscriptionId",
	"resourceid":     "AzureResourceId",
	"cloudprovider":  "CloudPlatforms",
}

// jsonAPI reads answers through a fixed buffer, so a page of 10,000 machines is never held whole.
var jsonAPI = jsoniter.Config{}.Froze()

// machine is one device of an answer.
type machine struct {
	id, mergedInto string
	info           []byte // the properties of a DeviceInfo record, as JSON; valid until the next one is read
}

// reader reads machines from one answer.
type reader struct {
	body *bounded
	it   *jsoniter.Iterator
	out  *jsoniter.Stream
	more bool // something was written into out
}

func newReader(body *bounded) *reader {
	return &reader{body: body, it: jsoniter.Parse(jsonAPI, body, 32<<10), out: jsoniter.NewStream(jsonAPI, nil, 2<<10)}
}

// page reads {"value":[machine...],"@odata.nextLink":"..."} and calls each for every machine, also
// for those before an error.
func (r *reader) page(each func(machine)) (n int, next string, err error) {
	if t := r.it.WhatIsNext(); t != jsoniter.ObjectValue {
		return 0, "", r.problem("it is not a JSON object")
	}
	listed := false
	r.it.ReadObjectCB(func(it *jsoniter.Iterator, key string) bool {
		switch {
		case key == "value" && it.WhatIsNext() == jsoniter.ArrayValue:
			listed = true
			return it.ReadArrayCB(func(*jsoniter.Iterator) bool {
				m, ok := r.machine()
				if ok && m.id != "" {
					each(m)
				}
				n++
				return ok
			})
		case strings.EqualFold(key, "@odata.nextLink") && it.WhatIsNext() == jsoniter.StringValue:
			next = it.ReadString()
		default:
			it.Skip()
		}
		return it.Error == nil
	})
	if r.it.Error != nil {
		return n, "", r.problem("")
	}
	if !listed {
		return n, "", r.problem("it has no list of devices")
	}
	return n, next, nil
}

// one reads a machine that is the whole answer.
func (r *reader) one() (machine, error) {
	if t := r.it.WhatIsNext(); t != jsoniter.ObjectValue {
		return machine{}, r.problem("it is not a JSON object")
	}
	m, ok := r.machine()
	if !ok {
		return machine{}, r.problem("")
	}
	if m.id == "" {
		return machine{}, r.problem("it has no device id")
	}
	return m, nil
}

// problem is the error of a bad answer, without the answer's content. It names the cut, else what,
// else the iterator's error.
func (r *reader) problem(what string) error {
	text := ""
	if r.it.Error != nil {
		// The iterator then quotes the text that it read.
		text, _, _ = strings.Cut(r.it.Error.Error(), ", error found in")
	}
	switch {
	case errors.Is(r.body.err, io.ErrUnexpectedEOF), r.body.err == io.EOF && what == "" && (strings.Contains(text, "EOF") || strings.Contains(text, "end of input")):
		text = "it was cut short"
	case r.body.err != nil && r.body.err != io.EOF:
		return fmt.Errorf("read the answer: %w", r.body.err)
	case what != "":
		text = what
	}
	return errors.New("read the answer: " + text)
}

// machine reads the next value; ok is false after an error.
func (r *reader) machine() (m machine, ok bool) {
	it := r.it
	r.body.machine = r.body.n
	if it.WhatIsNext() != jsoniter.ObjectValue {
		it.Skip()
		return machine{}, it.Error == nil
	}
	r.out.SetBuffer(r.out.Buffer()[:0])
	r.more = false
	r.out.WriteObjectStart()
	it.ReadObjectCB(func(it *jsoniter.Iterator, key string) bool {
		switch key = strings.ToLower(key); key {
		case "id":
			m.id = r.text("DeviceId")
		case "mergedintomachineid":
			null := it.WhatIsNext() == jsoniter.NilValue
			if m.mergedInto = r.text("MergedToDeviceId"); null && it.Error == nil {
				r.field("MergedToDeviceId") // it is not merged, or no longer
				r.out.WriteString("")
			}
		case "machinetags":
			r.tags()
		case "vmmetadata":
			if it.WhatIsNext() != jsoniter.ObjectValue {
				it.Skip()
				break
			}
			it.ReadObjectCB(func(it *jsoniter.Iterator, key string) bool {
				r.scalar(vmColumns[strings.ToLower(key)])
				return it.Error == nil
			})
		default:
			r.scalar(columns[key])
		}
		return it.Error == nil
	})
	r.out.WriteObjectEnd()
	m.info = r.out.Buffer()
	return m, it.Error == nil
}

func (r *reader) field(column string) {
	if r.more {
		r.out.WriteMore()
	}
	r.more = true
	r.out.WriteObjectField(column)
}

// text copies a string into column and returns it; anything else is skipped.
func (r *reader) text(column string) string {
	if r.it.WhatIsNext() != jsoniter.StringValue {
		r.it.Skip()
		return ""
	}
	s := strings.ToValidUTF8(r.it.ReadString(), "\uFFFD")
	if s != "" && r.it.Error == nil {
		r.field(column)
		r.out.WriteString(s)
	}
	return s
}

// scalar copies a string, number or boolean into column. Empty and nested values, and those without
// a column, are skipped.
func (r *reader) scalar(column string) {
	t := r.it.WhatIsNext()
	switch {
	case column == "" || t != jsoniter.StringValue && t != jsoniter.NumberValue && t != jsoniter.BoolValue:
		r.it.Skip()
	case t == jsoniter.StringValue:
		r.text(column)
	case t == jsoniter.BoolValue:
		v := r.it.ReadBool()
		r.field(column)
		r.out.WriteBool(v)
	default:
		if n := r.it.ReadNumber(); json.Valid([]byte(n)) {
			r.field(column)
			r.out.WriteRaw(string(n))
		}
	}
}

// tags writes the tags as DeviceInfo has them, a list as JSON in a string. The API does not say
// which of them are from the registry.
func (r *reader) tags() {
	if r.it.WhatIsNext() != jsoniter.ArrayValue {
		r.it.Skip()
		return
	}
	var tags []string
	r.it.ReadArrayCB(func(it *jsoniter.Iterator) bool {
		if it.WhatIsNext() != jsoniter.StringValue {
			it.Skip()
		} else if s := strings.ToValidUTF8(it.ReadString(), "\uFFFD"); s != "" {
			tags = append(tags, s)
		}
		return it.Error == nil
	})
	if r.it.Error == nil {
		list := []byte("[]") // those that it had are taken off
		if len(tags) > 0 {
			list, _ = json.Marshal(tags)
		}
		r.field("DeviceManualTags")
		r.out.WriteString(string(list))
	}
}

// maxMachine is the most bytes of one machine in a list. A real one has about 1.5 kB. It is held
// whole.
const maxMachine = 1 << 20

// bounded is a body that fails after limit bytes, or after maxMachine bytes within one machine. It
// remembers how it ended.
type bounded struct {
	r       io.Reader
	limit   int64
	n       int64 // bytes read
	machine int64 // n at the beginning of the machine that is being read
	err     error
}

func (b *bounded) Read(p []byte) (n int, err error) {
	switch {
	case b.n >= b.limit:
		err = fmt.Errorf("it is longer than %d MB", b.limit>>20)
	case b.n-b.machine >= maxMachine:
		err = fmt.Errorf("a device in it is longer than %d MB", maxMachine>>20)
	default:
		n, err = b.r.Read(p[:min(int64(len(p)), b.limit-b.n)])
	}
	b.n += int64(n)
	b.err = err
	return n, err
}
