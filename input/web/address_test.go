package web_test

import (
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/input/web"
)

func TestIsLoopback(t *testing.T) {
	f := func(host string, want bool) {
		t.Helper()
		if got := web.IsLoopback(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
	f("localhost", true)
	f("LocalHost", true)
	f("127.0.0.1", true)
	f("127.1.2.3", true) // all of 127.0.0.0/8 is this machine
	f("::1", true)
	f("::ffff:127.0.0.1", true)

	f("", false)
	f("0.0.0.0", false) // an address to listen on
	f("10.0.0.1", false)
	f("128.0.0.1", false)
	f("169.254.169.254", false)
	f("::2", false)
	f("localhost.example.com", false)
	f("127.0.0.1.example.com", false)
	f("emulator", false)
	f("127.1", false)          // some resolvers know such a short form, and others ask a name server
	f("localhost:9092", false) // the port is the caller's to cut off
}

func TestCheckAddress(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		if got := web.CheckAddress(text); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	f("https://account.blob.core.windows.net", "")
	f("https://account.blob.core.windows.net/", "")
	f("https://host:8443/path", "")
	f("http://localhost:10000/devstoreaccount1", "")
	f("http://[::1]:10000", "")

	f("http://host.example", "in the clear")
	f("http://localhost.example", "in the clear")
	f("http://169.254.169.254/", "in the clear")
	f("HTTP://10.0.0.1", "in the clear")
	f("https://user:secret@host.example", "user or password")
	f("https://user@host.example", "user or password")
	f("http://localhost@host.example", "user or password")
	f("https://host.example?sig=x", "after its path")
	f("https://host.example/?", "after its path")
	f("https://host.example/#a", "after its path")
	f("ftp://host.example", "https://")
	f("file:///etc/passwd", "not an address")
	f("https://", "not an address")
	f("https://:443", "not an address")
	f("https:host.example", "not an address")
	f("host.example", "not an address")
	f("https://host.example\n", "not an address")
	f("", "not an address")
}
