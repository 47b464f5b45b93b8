package transform

import (
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// Held returns about how many bytes t keeps between calls.
func Held(t *Transformer) int {
	return cap(t.event) + t.row.Size() + t.writer.Held() + t.id.Held() + t.scanner.Held()
}

// A Parser parses with our scanner alone.
type Parser struct {
	scanner record.Scanner
	nodes   []record.Node
}

// Parse returns the number of nodes of the JSON text b.
func (p *Parser) Parse(b []byte) (n int, err error) {
	var end int
	p.nodes, end, err = p.scanner.Parse(b, 0, p.nodes[:0])
	if err == nil && record.SkipSpace(b, end) != len(b) {
		err = record.ErrComma
	}
	return len(p.nodes), err
}

// ConfigOf returns what t was made with.
func ConfigOf(t *Transformer) Config { return t.cfg }

// SetNow gives t another clock.
func SetNow(t *Transformer, now func() time.Time) { t.now = now }
