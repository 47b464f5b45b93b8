package blob

import (
	"reflect"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

func TestMessageBytes(t *testing.T) {
	if size := reflect.TypeFor[input.Message]().Size(); size != messageBytes {
		t.Errorf("a message takes %d bytes, the budget counts %d", size, messageBytes)
	}
}

// Whatever the limit, the budgets together stay within it, and an ordinary piece fits each.
func TestBudgets(t *testing.T) {
	for _, limit := range []int64{1 << 20, 2 << 20, 8 << 20, 64 << 20, 1 << 30} {
		for _, workers := range []int{1, 4, 8, 64} {
			b := newBuffers(limit, workers)
			least := 3*weigh(minPiece) + minPiece
			if sum := b.plain.limit + b.gzip.limit + min(gzipChunk, int64(b.piece)); sum > max(limit, least) {
				t.Errorf("limit %d, %d workers: budgets of %d", limit, workers, sum)
			}
			if w := weigh(b.piece); w > b.plain.limit || 2*w > b.gzip.limit {
				t.Errorf("limit %d, %d workers: a piece of %d does not fit %d and %d", limit, workers, w, b.plain.limit, b.gzip.limit)
			}
		}
	}
}
