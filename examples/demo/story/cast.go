package story

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// The company that all this happens to does not exist.
const domain = "vestholm.example"

type device struct {
	id, host, name, ip, publicIP, group, build, entra, hardware string
}

type user struct {
	name, display, upn, sid, oid string
}

// incident has the values that the records of one attack share.
type incident struct {
	device *device
	user   *user
	server string // DeviceId of the file server

	alert, mail, domain, ip string
	pid, parent             string
	sha1, sha256, md5       string // of the script
	psSHA1, psSHA256, psMD5 string // of powershell.exe
}

var firstNames = []string{"Noa", "Zoë", "Ingrid", "Bjørn", "Amina", "Tomasz", "Saga", "Øystein", "Leila", "Håkon", "Mira", "Jonas", "Priya", "Sindre", "Yusuf", "Tuva"}
var lastNames = []string{"Lindqvist", "Brandvik", "Okafor", "Solheim", "Nowak", "Haddad", "Myrstad", "Åsgård", "Rahimi", "Tveit", "Kallas", "Engebakk"}

var ascii = strings.NewReplacer("ë", "e", "ø", "o", "Ø", "O", "å", "a", "Å", "A")

func newUsers(rnd *rand.Rand, n int) []user {
	users := make([]user, n)
	for i := range users {
		first, last := firstNames[i%len(firstNames)], lastNames[(i/len(firstNames)+i)%len(lastNames)]
		name := strings.ToLower(ascii.Replace(first + "." + last))
		if round := i / (len(firstNames) * len(lastNames)); round > 0 {
			name = fmt.Sprintf("%s%d", name, round+1)
		}
		users[i] = user{
			name:    name,
			display: first + " " + last,
			upn:     name + "@" + domain,
			sid:     fmt.Sprintf("S-1-5-21-2841093377-1190245661-3307718290-%d", 1100+i),
			oid:     string(appendGUID(nil, rnd, lower)),
		}
	}
	return users
}

func newDevices(rnd *rand.Rand, n int) []device {
	groups := []string{`Laptops - Bergen`, `Laptops - Stavanger`, `UnassignedGroup`}
	devices := make([]device, n)
	for i := range devices {
		host := fmt.Sprintf("VSH-LT-%04d", 1000+i)
		devices[i] = device{
			id:       string(appendHex(nil, rnd, 40, lower)),
			host:     host,
			name:     strings.ToLower(host) + "." + domain,
			ip:       fmt.Sprintf("10.20.%d.%d", 4+i/250, 2+i%250),
			publicIP: fmt.Sprintf("198.51.100.%d", 10+i%8),
			group:    groups[i%len(groups)],
			build:    fmt.Sprint(1742 + 11*(i%9)),
			entra:    string(appendGUID(nil, rnd, lower)),
			hardware: string(appendGUID(nil, rnd, lower)),
		}
	}
	return devices
}

// later has the devices and alerts of the aftermath.
type later struct {
	device, other *device
	user          *user
	old           string // DeviceId before the laptop was set up again
	alert, pair   string // AlertId of one device, and of two
}

// calm is how many ordinary records are between the attack and its aftermath.
const calm = 120

func newLater(s *Story) *later {
	i, k := 11%len(s.devices), 19%len(s.devices)
	return &later{
		device: &s.devices[i], other: &s.devices[k], user: &s.users[i],
		old:   string(appendHex(nil, s.rnd, 40, lower)),
		alert: "da" + string(appendGUID(nil, s.rnd, lower)) + "_1",
		pair:  "da" + string(appendGUID(nil, s.rnd, lower)) + "_1",
	}
}

func firstIncident(s *Story) *incident {
	in := newIncident(s)
	i := 7 % len(s.devices)
	in.device, in.user = &s.devices[i], &s.users[i]
	in.domain, in.ip = "fraktvarsel.example", "203.0.113.77"
	return in
}

func newIncident(s *Story) *incident {
	i := s.rnd.IntN(len(s.devices))
	return &incident{
		device:   &s.devices[i],
		user:     &s.users[i],
		server:   string(appendHex(nil, s.rnd, 40, lower)),
		alert:    "da" + string(appendGUID(nil, s.rnd, lower)) + "_1",
		mail:     string(appendGUID(nil, s.rnd, lower)),
		domain:   "varsel-" + string(appendHex(nil, s.rnd, 6, lower)) + ".example",
		ip:       fmt.Sprintf("203.0.113.%d", 1+s.rnd.IntN(254)),
		pid:      fmt.Sprint(4 * (500 + s.rnd.IntN(5000))),
		parent:   fmt.Sprint(4 * (500 + s.rnd.IntN(5000))),
		sha1:     string(appendHex(nil, s.rnd, 40, lower)),
		sha256:   string(appendHex(nil, s.rnd, 64, lower)),
		md5:      string(appendHex(nil, s.rnd, 32, lower)),
		psSHA1:   string(appendHex(nil, s.rnd, 40, lower)),
		psSHA256: string(appendHex(nil, s.rnd, 64, lower)),
		psMD5:    string(appendHex(nil, s.rnd, 32, lower)),
	}
}
