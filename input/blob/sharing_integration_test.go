//go:build integration

package blob_test

import (
	"os"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/azurite"
)

// TestIntegrationShared is TestShared against the official emulator, with the shortest leases that
// the service gives.
func TestIntegrationShared(t *testing.T) {
	s, err := azurite.Start(t.Context(), t.TempDir(), "shared")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	a := connect(t, s.ConnectionString("shared"), nil)
	a.create(t, sharedContainer)
	for _, table := range sharedTables {
		a.create(t, table)
	}
	d := 100 * time.Second
	if text := os.Getenv("BLOB_SHARED_FOR"); text != "" {
		if d, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	runShared(t, a.conn, 15*time.Second, d, func(container, name, text string) { a.append(t, container, name, text) })
}
