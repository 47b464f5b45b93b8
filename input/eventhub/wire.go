package eventhub

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// wire is a connection to a broker. It shows answers to the budget and to members before franz-go
// decodes them.
//
// A producer writes the head of a batch, and franz-go believes it: a batch of 60 kB that claims six
// million records takes a gigabyte. A decompressor learns of it too late, and only of compressed
// batches. So the answer is looked at where it arrives, in the client's own buffer. Nothing is
// copied.
//
// franz-go writes a request with one call. It reads the size of an answer, then the rest into a
// buffer of that size. wire depends on that, and ends the connection with an error when franz-go
// does anything else.
type wire struct {
	net.Conn
	budget  *budget
	members *members // nil where no group is joined

	mu    sync.Mutex
	asked map[int32]request // those without an answer, by correlation id

	left int     // bytes of the answer whose size was read; 0 before that
	id   [4]byte // the first of them: its correlation id
}

// request is the key and version of a request.
type request struct{ key, version int16 }

// mostRequests bounds how many requests wait for an answer. franz-go has a handful at a time.
const mostRequests = 1000

func newWire(c net.Conn, b *budget, m *members) *wire {
	return &wire{Conn: c, budget: b, members: m, asked: make(map[int32]request)}
}

// Write notes the requests.
func (w *wire) Write(p []byte) (n int, err error) {
	defer input.Catch("send a request", &err)
	const header = 4 + 2 + 2 + 4 // size, key, version, correlation id
	if len(p) < header || int(binary.BigEndian.Uint32(p)) != len(p)-4 {
		return 0, fmt.Errorf("BUG: the client sends a request in pieces (%d bytes)", len(p))
	}
	w.mu.Lock()
	if len(w.asked) == mostRequests {
		w.mu.Unlock()
		return 0, fmt.Errorf("the broker has not answered %d requests", mostRequests)
	}
	w.asked[int32(binary.BigEndian.Uint32(p[8:]))] = request{int16(binary.BigEndian.Uint16(p[4:])), int16(binary.BigEndian.Uint16(p[6:]))}
	w.mu.Unlock()
	if n, err = w.Conn.Write(p); err == nil {
		w.members.asks(int16(binary.BigEndian.Uint16(p[4:])))
	}
	return n, err
}

// Read returns the size of an answer, and with the next call the rest.
func (w *wire) Read(p []byte) (n int, err error) {
	defer input.Catch("read an answer", &err)
	if w.left == 0 {
		return w.readSize(p)
	}
	if len(p) < w.left {
		return 0, fmt.Errorf("BUG: the client reads an answer in pieces (%d of %d bytes)", len(p), w.left)
	}
	p = p[:w.left]
	w.left = 0
	n = copy(p, w.id[:])
	if _, err = io.ReadFull(w.Conn, p[n:]); err != nil {
		return 0, err
	}
	req := w.request(true)
	if req.key == kmsg.Fetch.Int16() {
		w.budget.inspect(p[n:], req.version)
	}
	w.members.hears(req.key, req.version, p[n:])
	return len(p), nil
}

// readSize reads the size of an answer and its correlation id, and refuses one that is too large.
func (w *wire) readSize(p []byte) (int, error) {
	const bytes = 4
	if len(p) < bytes {
		return 0, fmt.Errorf("BUG: the client reads the size of an answer in pieces (%d bytes)", len(p))
	}
	if _, err := io.ReadFull(w.Conn, p[:bytes]); err != nil {
		return 0, err
	}
	size := int(int32(binary.BigEndian.Uint32(p)))
	if size < 0 || size > mostAnswer {
		return bytes, nil // The client refuses it and tells TLS and HTTP from Kafka.
	}
	if size < len(w.id) {
		return 0, fmt.Errorf("an answer of %d bytes is none of Kafka's", size)
	}
	if _, err := io.ReadFull(w.Conn, w.id[:]); err != nil {
		return 0, err
	}
	req := w.request(false)
	if most := w.budget.answer(req.key); size > most {
		return 0, fmt.Errorf("the answer to %s has %d bytes, more than the %d that may be held: raise memory_limit",
			kmsg.Key(req.key).Name(), size, most)
	}
	w.left = size
	return bytes, nil
}

// request returns the request of the answer that is being read. answered forgets it.
func (w *wire) request(answered bool) request {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := int32(binary.BigEndian.Uint32(w.id[:]))
	req := w.asked[id]
	if answered {
		delete(w.asked, id)
	}
	return req
}
