//go:build packages

package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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

// download fetches the packages of packages.txt from Debian 13 into dir. apt's own data are in dir,
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
	// The mirror that this machine uses for Debian.
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

// A builder is buildah with a store of its own, in a folder.
type builder struct {
	t   *testing.T
	dir string
}

// run runs a command of buildah, from the repository's root, and returns what it prints.
func (b builder) run(words ...string) string {
	b.t.Helper()
	cmd := exec.Command("buildah", append([]string{"--root", b.dir + "/store", "--runroot", b.dir + "/run", "--storage-driver", "vfs"}, words...)...)
	cmd.Dir = "../.."
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("buildah %v: %v\n%s%s", words, err, out, log.String())
	}
	return strings.TrimSpace(string(out))
}

// from makes a container of an image, and returns its name and its root on this machine.
func (b builder) from(image string) (container, root string) {
	b.t.Helper()
	container = b.run("from", "--pull-never", image)
	return container, b.run("mount", container)
}

// base makes an image like Fluent Bit's own: the packages of packages.txt, and at Fluent Bit's
// place the file program.
func (b builder) base(name, program string) {
	b.t.Helper()
	download(b.t, b.dir)
	container, root := b.from("scratch")
	debs, _ := filepath.Glob(filepath.Join(b.dir, "debs/*.deb"))
	// base-files first: it makes /lib and its like links, into which the others are unpacked.
	first, _ := filepath.Glob(filepath.Join(b.dir, "debs/base-files_*.deb"))
	for _, deb := range append(first, debs...) {
		if out, err := exec.Command("dpkg-deb", "-x", deb, root).CombinedOutput(); err != nil {
			b.t.Fatalf("unpack %s: %v\n%s", deb, err, out)
		}
	}
	text, err := os.ReadFile(program)
	if err == nil {
		err = os.MkdirAll(filepath.Join(root, "fluent-bit/bin"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "fluent-bit/bin/fluent-bit"), text, 0o755)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.run("commit", "--rm", container, name)
}

// packaged are the files of the package, by their paths: mode and contents.
func packaged(t *testing.T, name string) map[string]string {
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
	files := make(map[string]string)
	for archive := tar.NewReader(z); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			text, err := io.ReadAll(archive)
			if err != nil {
				t.Fatal(err)
			}
			files[h.Name] = h.FileInfo().Mode().String() + string(text)
		}
	}
}

// The Dockerfile is built, by buildah, on an image that has only the packages of Fluent Bit's
// image. The result holds the package's files, and the library loads and hands over events in it,
// as the image's user. At Fluent Bit's place is the C host, or a real Fluent Bit where $FLUENT_BIT
// names one: its image cannot be had everywhere.
func TestImage(t *testing.T) {
	need(t, "apt-get", "dpkg-deb", "chroot", "buildah")
	names, err := filepath.Glob("../out/packages/*-linux-amd64.tar.gz")
	if err != nil || len(names) != 1 {
		t.Fatalf("build/out/packages has %d packages for amd64: run make packages (%v)", len(names), err)
	}
	version := regexp.MustCompile(`fluent-bit-defender-(.*)-linux-amd64`).FindStringSubmatch(names[0])[1]
	dir, err := os.MkdirTemp("", "defender-image-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // nothing is mounted in it: the store is of plain folders
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b := builder{t, dir}
	real := os.Getenv("FLUENT_BIT")
	program := real
	if real == "" {
		program = "../out/host"
	}
	b.base("localhost/base:1", program)
	b.run("bud", "--isolation", "chroot", "-f", "build/Dockerfile", "--ignorefile", "build/Dockerfile.dockerignore", "-t", "localhost/defender:1",
		"--build-arg", "VERSION="+version, "--build-arg", "FLUENT_BIT_IMAGE=localhost/base:1", ".")

	var image struct {
		OCIv1 struct {
			Config struct {
				User                  string
				Env, Entrypoint, Cmd  []string
				ExposedPorts, Volumes map[string]struct{}
			}
		}
	}
	if err := json.Unmarshal([]byte(b.run("inspect", "--type", "image", "localhost/defender:1")), &image); err != nil {
		t.Fatal(err)
	}
	config := image.OCIv1.Config
	_, port := config.ExposedPorts["2020/tcp"]
	_, volume := config.Volumes["/var/lib/fluent-bit"]
	if config.User != "65532:65532" || !port || !volume || !slices.Equal(config.Entrypoint, []string{"/fluent-bit/bin/fluent-bit"}) ||
		!slices.Contains(config.Env, "HTTP_LISTEN=0.0.0.0") {
		t.Errorf("the image has %+v", config)
	}
	_, root := b.from("localhost/defender:1")
	for name, want := range packaged(t, names[0]) {
		if strings.HasPrefix(name, "usr/bin/") || strings.HasPrefix(name, "usr/lib/systemd/") {
			continue // for a machine with systemd
		}
		info, err := os.Lstat(filepath.Join(root, name))
		if err != nil {
			t.Errorf("the image lacks %s (%v)", name, err)
			continue
		}
		if text, err := os.ReadFile(filepath.Join(root, name)); err != nil || info.Mode().String()+string(text) != want {
			t.Errorf("the image has another %s, with mode %v (%v)", name, info.Mode(), err)
		}
	}

	hub, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{"defender": 2}, EntityPath: "defender"})
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()
	const n = 200
	for i := range n {
		message := fmt.Appendf(nil, `{"records":[{"time":"2026-03-04T05:06:07Z","category":"AdvancedHunting-DeviceEvents","properties":{"Timestamp":"2026-03-04T05:06:06Z","Seq":%d}}]}`, i)
		if err := hub.Produce(context.Background(), "defender", message); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "ca.pem"), hub.CA(), 0o644); err != nil {
		t.Fatal(err)
	}
	library := one(t, "build/package/files/plugins.conf", `Path (\S+)`)
	args := []string{"-set", "eventhub.connection_string=" + hub.ConnectionString(), "-set", "eventhub.brokers=" + hub.Brokers(), "-set", "eventhub.ca_file=/ca.pem",
		"-set", "db=/var/lib/fluent-bit/defender.db", "-storage", "/var/lib/fluent-bit/storage", library}
	env := config.Env
	if real != "" { // as the guide starts it, with what is different here in the configuration
		name := filepath.Join(root, "etc/fluent-bit/defender/splunk.yaml")
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		const connection, server = "      eventhub.connection_string: ${EVENTHUB_CONNECTION_STRING}\n", "  http_server: on "
		output := regexp.MustCompile(`(?s)\n  outputs:\n.*$`)
		if strings.Count(string(text), connection) != 1 || strings.Count(string(text), server) != 1 || !output.Match(text) {
			t.Fatalf("splunk.yaml has changed:\n%s", text)
		}
		changed := strings.Replace(string(text), connection, connection+"      eventhub.brokers: "+hub.Brokers()+"\n      eventhub.ca_file: /ca.pem\n", 1)
		changed = strings.Replace(changed, server, "  http_server: off ", 1)
		changed = output.ReplaceAllString(changed, "\n  outputs:\n    - name: stdout\n      match: '*'\n      format: json_lines\n")
		if err := os.WriteFile(name, []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
		args = []string{"-c", "/etc/fluent-bit/defender/splunk.yaml"}
		env = append(env, "EVENTHUB_CONNECTION_STRING="+hub.ConnectionString())
	}
	cmd := exec.Command("chroot", append([]string{"--userspec=" + config.User, "--groups=", root, config.Entrypoint[0]}, args...)...)
	cmd.Env = env
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	have := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if have += strings.Count(lines.Text(), `"Seq":`); have == n {
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
