//go:build integration

package blob_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// TestIntegrationAzurite runs the contract against the official emulator.
func TestIntegrationAzurite(t *testing.T) {
	conn := startAzurite(t)
	for i, c := range contract {
		t.Run(c.name, func(t *testing.T) {
			// An account each: their containers have the same names.
			c.run(t, connect(t, conn(i), nil))
		})
	}
}

// startAzurite installs the pinned emulator when it is not there, and starts it on a free port of loopback, in memory,
// with an account for each test of the contract.
func startAzurite(t *testing.T) (conn func(account int) string) {
	t.Helper()
	dir, err := filepath.Abs("../../build/azurite")
	if err != nil {
		t.Fatal(err)
	}
	main := filepath.Join(dir, "node_modules", "azurite", "dist", "src", "blob", "main.js")
	if _, err := os.Stat(main); err != nil {
		npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		npm.Dir = dir
		if out, err := npm.CombinedOutput(); err != nil {
			t.Fatalf("install azurite with npm: %v\n%s", err, out)
		}
	}
	key := base64.StdEncoding.EncodeToString([]byte("a key for these tests only"))
	accounts := ""
	for i := range contract {
		accounts += fmt.Sprintf("account%d:%s;", i, key)
	}
	cmd := exec.Command("node", main, "--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence",
		"--disableTelemetry", "--skipApiVersionCheck", "--silent")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "AZURITE_ACCOUNTS="+accounts)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatalf("start azurite: %v (node is needed)", err)
	}
	said := make(chan string, 100)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			select {
			case said <- lines.Text():
			default:
			}
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		<-drained
	})
	listens := regexp.MustCompile(`listens on (http://127\.0\.0\.1:\d+)`)
	for timeout := time.After(time.Minute); ; {
		select {
		case line := <-said:
			if m := listens.FindStringSubmatch(line); m != nil {
				return func(i int) string {
					return fmt.Sprintf("DefaultEndpointsProtocol=http;AccountName=account%d;AccountKey=%s;BlobEndpoint=%s/account%d;", i, key, m[1], i)
				}
			}
			t.Log(line)
		case <-timeout:
			t.Fatal("azurite did not say where it listens within a minute")
		}
	}
}
