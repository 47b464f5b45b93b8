package signin_test

import (
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
)

func TestIsLoopback(t *testing.T) {
	f := func(host string, want bool) {
		t.Helper()
		if got := signin.IsLoopback(host); got != want {
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
