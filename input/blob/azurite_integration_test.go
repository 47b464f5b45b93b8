//go:build integration

package blob_test

import (
	"fmt"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/azurite"
)

// TestIntegrationAzurite runs the contract against the official emulator.
func TestIntegrationAzurite(t *testing.T) {
	accounts := make([]string, len(contract)) // an account each: their containers have the same names
	for i := range accounts {
		accounts[i] = fmt.Sprint("account", i)
	}
	s, err := azurite.Start(t.Context(), t.TempDir(), accounts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	for i, c := range contract {
		t.Run(c.name, func(t *testing.T) { c.run(t, connect(t, s.ConnectionString(accounts[i]), nil)) })
	}
}
