package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// A sink is where Fluent Bit's http output delivers: it counts the lines that it answers for. It
// can be down: then nothing listens.
type sink struct {
	address string
	ledger  *ledger
	wrong   func(error)

	mu     sync.Mutex
	server *http.Server
	done   chan struct{}
}

func startSink(l *ledger, wrong func(error)) (*sink, error) {
	s := &sink{ledger: l, wrong: wrong}
	return s, s.up("127.0.0.1:0")
}

func (s *sink) up(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for Fluent Bit's output: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.address = l.Addr().String()
	server, done := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}, make(chan struct{})
	s.server, s.done = server, done
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	return nil
}

// setDown closes the port and every connection (true), or opens it again.
func (s *sink) setDown(down bool) error {
	if !down {
		return s.up(s.address)
	}
	s.mu.Lock()
	server, done := s.server, s.done
	s.mu.Unlock()
	_ = server.Close()
	<-done
	return nil
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil { // cut by setDown, or by the end of Fluent Bit
		return
	}
	if err := s.ledger.outChunk(body); err != nil {
		s.wrong(err)
	}
	w.WriteHeader(http.StatusOK)
}
