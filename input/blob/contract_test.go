package blob_test

import (
	"testing"
	"time"
)

// contract is what holds against every server that speaks the protocol.
var contract = []struct {
	name string
	run  func(*testing.T, *account)
}{
	{"tail", tail},
}

func TestFake(t *testing.T) {
	for _, c := range contract {
		t.Run(c.name, func(t *testing.T) { c.run(t, newFake(t)) })
	}
}

func tail(t *testing.T, a *account) {
	now := time.Now()
	lane := table + "/" + pt1h(now)
	a.create(t, table)
	a.append(t, table, pt1h(now), "\xef\xbb\xbf{\"a\":1}\r\n\r\n{\"a\":2}\n{\"a\":")
	state := openState(t, statePath(t))
	defer state.Close()
	r := start(t, a.config(), state)
	r.want(2)
	a.append(t, table, pt1h(now), "3}\r\n")
	r.want(3)
	r.stop()
	a.append(t, table, pt1h(now), "{\"a\":4}\r\n")
	r2 := start(t, a.config(), state)
	r2.want(1)
	a.append(t, table, pt1h(now.Add(-time.Hour)), "{\"b\":1}\r\n")
	r2.want(2)
	same(t, append(r.texts(lane), r2.texts(lane)...), []string{`{"a":1}`, `{"a":2}`, `{"a":3}`, `{"a":4}`})
}
