package eventhub

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/fluent-bit-defender/fluent-bit-defender/input/web"
)

// The ports of Event Hubs' Kafka endpoint and of the emulator's.
const (
	kafkaPort    = "9093"
	emulatorPort = "9092"
)

// connectionString has the parts of one; the password is the text itself.
type connectionString struct {
	host     string // of the namespace
	port     string // of Endpoint, usually ""
	hub      string // EntityPath; "" for the whole namespace
	emulator bool
}

// parseConnectionString is strict: a string that was cut or glued while copying must not become a
// puzzling refusal by the broker. Its errors name parts by their keys or numbers, never by what
// might be a piece of the key.
func parseConnectionString(text string) (cs connectionString, err error) {
	if strings.Trim(text, `"'`) != text {
		return cs, errors.New("is in quotes; remove them")
	}
	if strings.ContainsAny(text, "\r\n") {
		return cs, errors.New("spans several lines; it must be one line")
	}
	parts := strings.Split(text, ";")
	if parts[len(parts)-1] == "" {
		parts = parts[:len(parts)-1] // the portal's strings end without a ;, the emulator's with one
	}
	values := make(map[string]string)
	for i, part := range parts {
		key, value, ok := strings.Cut(part, "=")
		known := ""
		for _, k := range []string{"Endpoint", "SharedAccessKeyName", "SharedAccessKey", "SharedAccessSignature", "EntityPath", "UseDevelopmentEmulator", "TransportType"} {
			if strings.EqualFold(strings.TrimSpace(key), k) {
				known = k
			}
		}
		for _, k := range []string{"AccountName", "AccountKey", "BlobEndpoint", "DefaultEndpointsProtocol"} {
			if strings.EqualFold(key, k) {
				return cs, errors.New("is the connection string of a storage account; Event Hubs' begins with Endpoint=sb://")
			}
		}
		_, twice := values[known]
		switch {
		case strings.EqualFold(key, "HostName"):
			return cs, errors.New("is the connection string of an IoT Hub; Event Hubs' begins with Endpoint=sb://")
		case part == "":
			return cs, fmt.Errorf("has an empty part (number %d of those between ;); copy the string again", i+1)
		case !ok:
			return cs, fmt.Errorf("is broken: part %d of those between ; has no =; copy the string again", i+1)
		case known == "":
			return cs, fmt.Errorf("is broken: part %d of those between ; is none of Endpoint, SharedAccessKeyName, SharedAccessKey, EntityPath; copy the string again", i+1)
		case twice:
			return cs, fmt.Errorf("has %s twice, like two strings in one; copy the string again", known)
		case strings.TrimSpace(value) == "" || strings.HasPrefix(value, "<"):
			return cs, fmt.Errorf("has no value for %s", known)
		}
		values[known] = strings.TrimSpace(value)
	}

	switch {
	case values["Endpoint"] == "":
		return cs, errors.New("has no Endpoint; it must begin with Endpoint=sb://<namespace>.servicebus.windows.net/")
	case values["SharedAccessSignature"] != "":
		return cs, errors.New("has a SharedAccessSignature (a token), which the Kafka endpoint does not take; use a string with SharedAccessKeyName and SharedAccessKey")
	case values["SharedAccessKeyName"] == "":
		return cs, errors.New("has no SharedAccessKeyName; copy the whole string from Shared access policies")
	case values["SharedAccessKey"] == "":
		return cs, errors.New("has no SharedAccessKey; copy the whole string from Shared access policies")
	}
	cs.emulator = strings.EqualFold(values["UseDevelopmentEmulator"], "true")
	cs.hub = values["EntityPath"]
	if problem := hubProblem(cs.hub); problem != "" || isPattern(cs.hub) {
		return cs, errors.New("has an EntityPath that cannot be the name of a hub; copy the string again")
	}

	u, err := url.Parse(values["Endpoint"])
	if err != nil || u.Scheme != "sb" || u.Hostname() == "" || u.User != nil {
		return connectionString{}, errors.New("has an Endpoint that is not of the form sb://<namespace>.servicebus.windows.net/")
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return connectionString{}, errors.New("has an Endpoint with a path; the hub belongs in EntityPath")
	}
	cs.host, cs.port = strings.ToLower(u.Hostname()), u.Port()
	return cs, nil
}

// brokerProblem says why the broker cannot be found from the string alone, or "".
//
// The suffix of the host is not checked against a list: sovereign and air-gapped clouds have their
// own (usgovcloudapi.net, chinacloudapi.cn, cloudapi.de, ...).
func (cs connectionString) brokerProblem() string {
	switch {
	case cs.port != "" && cs.port != kafkaPort && !cs.emulator:
		return "has an Endpoint with port " + cs.port + ", which is not the Kafka endpoint's; remove it for " + kafkaPort + ", or set eventhub.brokers"
	case strings.Contains(cs.host, ".privatelink."):
		return "has an Endpoint in privatelink; use the namespace's public name, which a private DNS zone resolves to the private endpoint"
	case !strings.Contains(cs.host, ".") && !cs.emulator && !web.IsLoopback(cs.host) && net.ParseIP(cs.host) == nil:
		return "has an Endpoint without a domain; it should be sb://" + cs.host + ".servicebus.windows.net/"
	}
	return ""
}
