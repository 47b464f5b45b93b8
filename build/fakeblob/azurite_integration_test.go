//go:build integration

package fakeblob_test

import (
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/azurite"
)

// TestIntegrationLeases has the emulator answer what the fake does.
func TestIntegrationLeases(t *testing.T) {
	s, err := azurite.Start(t.Context(), t.TempDir(), "leases")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	newLeased(t, s.ConnectionString("leases")).contract()
}
