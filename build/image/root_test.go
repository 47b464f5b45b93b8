//go:build packages

package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
)

// need ends the test where a tool is missing: it fails in CI, and is skipped, loudly, elsewhere.
func need(t *testing.T, tools ...string) {
	t.Helper()
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "to be root")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool)
		}
	}
	if len(missing) == 0 {
		return
	}
	line := strings.Repeat("#", 90)
	message := fmt.Sprintf("\n%s\n##  NOT TESTED: %s lacks %s\n%s", line, t.Name(), strings.Join(missing, ", "), line)
	if os.Getenv("CI") != "" {
		t.Fatal(message)
	}
	t.Skip(message)
}

// download fetches the packages of packages.txt from Debian 13 into dir, with apt's own data in dir
// too: this machine may have another release, and its lists are left alone.
func download(t *testing.T, dir string) {
	t.Helper()
	var names []string
	for line := range strings.Lines(read(t, "build/image/packages.txt")) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			names = append(names, line)
		}
	}
	if len(names) < 40 {
		t.Fatalf("packages.txt names only %d packages", len(names))
	}
	// The mirror that this machine uses for Debian, whatever it is.
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(CREATED_BY) $(REPO_URI) $(CODENAME)").Output()
	if err != nil {
		t.Fatalf("apt-get indextargets: %v", err)
	}
	mirror := ""
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "Packages" && mirror == "" && strings.HasSuffix(strings.TrimSuffix(f[1], "/"), "/debian") {
			mirror = f[1]
		}
	}
	if mirror == "" {
		t.Fatalf("this machine's apt has no mirror of Debian:\n%s", out)
	}
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial", "etc", "debs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sources := "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] " + mirror + " trixie main\n"
	for name, text := range map[string]string{"etc/sources.list": sources, "state/status": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	apt := func(words ...string) {
		t.Helper()
		cmd := exec.Command("apt-get", append([]string{"-q", "-o", "Dir::State=" + dir + "/state", "-o", "Dir::State::status=" + dir + "/state/status",
			"-o", "Dir::Cache=" + dir + "/cache", "-o", "Dir::Etc::sourcelist=" + dir + "/etc/sources.list", "-o", "Dir::Etc::sourceparts=-",
			"-o", "Dir::Etc::preferences=-", "-o", "Dir::Etc::preferencesparts=-", "-o", "APT::Architecture=amd64", "-o", "Acquire::Languages=none",
			"-o", "APT::Sandbox::User=root"}, words...)...)
		cmd.Dir = filepath.Join(dir, "debs")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("apt-get %v: %v\n%s", words, err, out)
		}
	}
	apt("update")
	apt(append([]string{"download"}, names...)...)
}

// unpack unpacks the .tar.gz of the package as Docker's ADD does.
func unpack(t *testing.T, name, root string) {
	t.Helper()
	in, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	for archive := tar.NewReader(z); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(root, filepath.Clean("/"+h.Name))
		if h.Typeflag == tar.TypeDir {
			if err := os.MkdirAll(to, h.FileInfo().Mode()); err != nil {
				t.Fatal(err)
			}
			continue
		}
		text, err := io.ReadAll(archive)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(to, text, h.FileInfo().Mode())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// The library loads and hands over events in a root that has only the packages of the image, as the
// image's user. The C host stands in for Fluent Bit, whose image cannot be had here: it needs glibc
// and nothing else, as the library does.
func TestRuntimeRoot(t *testing.T) {
	need(t, "apt-get", "dpkg-deb", "chroot")
	names, err := filepath.Glob("../out/packages/*-linux-amd64.tar.gz")
	if err != nil || len(names) != 1 {
		t.Fatalf("build/out/packages has %d packages for amd64: run make packages (%v)", len(names), err)
	}
	dir, err := os.MkdirTemp("", "defender-image-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // nothing is mounted in it
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	download(t, dir)
	root := filepath.Join(dir, "root")
	debs, _ := filepath.Glob(filepath.Join(dir, "debs/*.deb"))
	// base-files first: it makes /lib and its like links, into which the others are unpacked.
	base, _ := filepath.Glob(filepath.Join(dir, "debs/base-files_*.deb"))
	for _, deb := range append(base, debs...) {
		if out, err := exec.Command("dpkg-deb", "-x", deb, root).CombinedOutput(); err != nil {
			t.Fatalf("unpack %s: %v\n%s", deb, err, out)
		}
	}
	unpack(t, names[0], root)
	host, err := os.ReadFile("../out/host")
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "host"), host, 0o755)
	}
	if err == nil {
		err = os.Chown(filepath.Join(root, "var/lib/fluent-bit"), 65532, 65532) // as the Dockerfile copies it
	}
	if err != nil {
		t.Fatal(err)
	}

	hub, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{"defender": 2}, EntityPath: "defender"})
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()
	if err := os.WriteFile(filepath.Join(root, "ca.pem"), hub.CA(), 0o644); err != nil {
		t.Fatal(err)
	}
	const n = 200
	for i := range n {
		message := fmt.Appendf(nil, `{"records":[{"time":"2026-03-04T05:06:07Z","category":"AdvancedHunting-DeviceEvents","properties":{"Timestamp":"2026-03-04T05:06:06Z","Seq":%d}}]}`, i)
		if err := hub.Produce(context.Background(), "defender", message); err != nil {
			t.Fatal(err)
		}
	}
	user := regexp.MustCompile(`(?m)^USER ([0-9]+):([0-9]+)$`).FindStringSubmatch(read(t, "build/Dockerfile"))
	library := one(t, "build/package/files/plugins.conf", `Path (\S+)`)
	cmd := exec.Command("chroot", "--userspec="+user[1]+":"+user[2], "--groups=", root, "/host",
		"-set", "eventhub.connection_string="+hub.ConnectionString(), "-set", "eventhub.brokers="+hub.Brokers(), "-set", "eventhub.ca_file=/ca.pem",
		"-set", "db=/var/lib/fluent-bit/defender.db", "-storage", "/var/lib/fluent-bit/storage", library)
	cmd.Env = []string{"HTTP_LISTEN=0.0.0.0"}
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	have := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if have++; have == n {
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	if err := cmd.Wait(); err != nil || have != n {
		t.Errorf("%d of %d events have come, and it ends with %v:\n%s", have, n, err, log.String())
	}
	var info syscall.Stat_t
	if err := syscall.Stat(filepath.Join(root, "var/lib/fluent-bit/defender.db"), &info); err != nil || info.Uid != 65532 {
		t.Errorf("the state file belongs to user %d (%v)", info.Uid, err)
	}
}
