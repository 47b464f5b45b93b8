// Package azurite runs Azurite, the official emulator of Azure Blob Storage, for integration tests
// and the fault matrix. It comes from npm (package-lock.json) and runs in the machine's Node.
package azurite

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/child"
)

// Version is that of package.json.
const Version = "3.37.0"

// startWait is how long it may take to answer.
const startWait = time.Minute

var key = base64.StdEncoding.EncodeToString([]byte("a key for these tests only"))

// Server is an emulator with some accounts.
type Server struct {
	dir, main string
	addr      string
	accounts  string
	output    bytes.Buffer // what it said, for errors

	run *child.Process
}

// Prepare has npm install Azurite unless it is there. Its error names the missing tool and the way
// to get it.
func Prepare(ctx context.Context) error {
	_, err := prepare(ctx)
	return err
}

func prepare(ctx context.Context) (main string, err error) {
	if _, err := exec.LookPath("node"); err != nil {
		return "", errors.New("node is missing: install Node.js, 20 or later (on Debian and Ubuntu: apt-get install nodejs)")
	}
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "build", "azurite")
	main = filepath.Join(dir, "node_modules", "azurite", "dist", "src", "blob", "main.js")
	if _, err := os.Stat(main); err == nil {
		return main, nil
	}
	if _, err := exec.LookPath("npm"); err != nil {
		return "", errors.New("npm is missing, which installs Azurite the first time: on Debian and Ubuntu, apt-get install npm")
	}
	npm := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		return "", fmt.Errorf("install Azurite with npm: %w\n%s", err, out)
	}
	return main, nil
}

// Start starts the emulator with these accounts and its data in dir, and waits until it answers.
// The first time it has npm install Azurite.
func Start(ctx context.Context, dir string, accounts ...string) (*Server, error) {
	s := &Server{dir: dir}
	for _, a := range accounts {
		s.accounts += a + ":" + key + ";"
	}
	var err error
	if s.main, err = prepare(ctx); err != nil {
		return nil, fmt.Errorf("start Azurite: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port of our own, so that it is the same after it was stopped
	if err != nil {
		return nil, fmt.Errorf("start Azurite: %w", err)
	}
	s.addr = l.Addr().String()
	_ = l.Close()
	return s, s.Run(ctx)
}

// Run starts the emulator, after Stop, and waits until it answers.
func (s *Server) Run(ctx context.Context) (err error) {
	host, port, _ := net.SplitHostPort(s.addr)
	s.output.Reset()
	s.run, err = child.Start(s.dir, []string{"AZURITE_ACCOUNTS=" + s.accounts}, &s.output, "node", s.main, "--blobHost", host, "--blobPort", port,
		"--location", s.dir, "--disableTelemetry", "--skipApiVersionCheck", "--silent")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+"/", nil)
		resp, err := http.DefaultClient.Do(req)
		if err == nil { // any answer will do
			http.DefaultClient.CloseIdleConnections()
			return resp.Body.Close()
		}
		select {
		case <-ctx.Done():
			s.Close()
			return fmt.Errorf("start Azurite: it does not answer: %w\n%s", err, s.output.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Stop ends the emulator in good order: its blobs are there when it is Run again.
func (s *Server) Stop() {
	if s.run != nil {
		s.run.Stop()
		s.run = nil
	}
}

// Close kills the emulator. It writes its tables every few seconds only, so that data may be lost.
func (s *Server) Close() {
	if s.run != nil {
		s.run.Kill()
		s.run = nil
	}
}

// ConnectionString is an account's, as for blob.connection_string.
func (s *Server) ConnectionString(account string) string {
	return "DefaultEndpointsProtocol=http;AccountName=" + account + ";AccountKey=" + key + ";BlobEndpoint=http://" + s.addr + "/" + account + ";"
}
