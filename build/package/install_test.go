//go:build packages

package packaging

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
)

const (
	installed   = "/opt/fluent-bit/lib/fluent-bit/in_defender.so"
	dropIn      = "/usr/lib/systemd/system/fluent-bit.service.d/10-defender.conf"
	environment = "/etc/fluent-bit/defender/environment"
	splunk      = "/etc/fluent-bit/defender/splunk.yaml"
	elastic     = "/etc/fluent-bit/defender/elastic.yaml"
	state       = "/var/lib/fluent-bit/defender.db"
)

// A system is a Debian in a folder. Nothing of this machine is mounted into it; it shares the
// network.
type system struct {
	t   *testing.T
	dir string
}

// newSystem makes a small Debian of this machine's release. It is deleted with the test, unless
// something is mounted in it.
func newSystem(t *testing.T) system {
	t.Helper()
	need(t, "root", "debootstrap", "chroot", "dpkg-deb")
	dir, err := os.MkdirTemp("", "defender-chroot-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, dir) })
	release := run(t, "sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME")
	cache, err := filepath.Abs(root + "/build/.cache/debs")
	if err == nil {
		err = os.MkdirAll(cache, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("debootstrap", "--variant=minbase", "--cache-dir="+cache, strings.TrimSpace(release), dir).CombinedOutput(); err != nil {
		t.Fatalf("debootstrap: %v\n%s", err, out)
	}
	s := system{t, dir}
	unmount(t, dir) // debootstrap's /proc, in case that it is left
	// Stands in for systemd: it notes what it is asked, and says which process is the service's.
	s.write("/run/systemd/system/README", "", 0o644)
	s.write("/usr/bin/systemctl", "#!/bin/sh\necho \"$@\" >>/tmp/systemctl\n[ \"$1\" != show ] || cat /tmp/pid\n", 0o755)
	return s
}

// mounts are what is mounted below dir, deepest last.
func mounts(t *testing.T, dir string) (points []string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); strings.HasPrefix(f[4]+"/", dir+"/") {
			points = append(points, f[4])
		}
	}
	return points
}

func unmount(t *testing.T, dir string) {
	t.Helper()
	points := mounts(t, dir)
	for _, point := range slices.Backward(points) {
		if err := syscall.Unmount(point, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", point, err)
		}
	}
}

// remove deletes dir. Where something is still mounted below it, it stays: deleting would reach
// into what is mounted.
func remove(t *testing.T, dir string) {
	t.Helper()
	unmount(t, dir)
	if points := mounts(t, dir); len(points) > 0 {
		t.Errorf("%s stays: %v are mounted in it", dir, points)
		return
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Errorf("delete %s: %v", dir, err)
	}
}

// path is where a file of the system is on this machine.
func (s system) path(name string) string { return filepath.Join(s.dir, name) }

func (s system) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

func (s system) write(name, text string, mode os.FileMode) {
	s.t.Helper()
	err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755)
	if err == nil {
		err = os.WriteFile(s.path(name), []byte(text), mode)
	}
	if err == nil {
		err = os.Chmod(s.path(name), mode)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s system) exists(name string) bool {
	_, err := os.Lstat(s.path(name))
	return err == nil
}

// command is a command inside, with a service's environment and more.
func (s system) command(env []string, words ...string) *exec.Cmd {
	cmd := exec.Command("chroot", append([]string{s.dir}, words...)...)
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}, env...)
	return cmd
}

// asked is what systemctl was asked since the last call, without questions.
func (s system) asked() (orders []string) {
	s.t.Helper()
	for line := range strings.Lines(s.read("/tmp/systemctl")) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "show ") {
			orders = append(orders, line)
		}
	}
	s.write("/tmp/systemctl", "", 0o644)
	return orders
}

// serviceRuns lets systemctl, and a /proc of this test, say that the service runs, with the plugin
// or without, or not at all.
func (s system) serviceRuns(maps string) {
	s.t.Helper()
	pid := "0\n"
	if maps != "" {
		pid = "4242\n"
	}
	s.write("/tmp/pid", pid, 0o644)
	s.write("/proc/4242/maps", maps, 0o644)
}

// run runs a command inside to its end, and returns what it prints and its exit status.
func (s system) run(words ...string) (string, int) {
	s.t.Helper()
	cmd := s.command(nil, words...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("%v: %v", words, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// apt runs apt-get, which must succeed.
func (s system) apt(words ...string) string {
	s.t.Helper()
	out, code := s.run(append([]string{"apt-get", "-o", "APT::Sandbox::User=root"}, words...)...)
	if code != 0 {
		s.t.Fatalf("apt-get %v ends with %d:\n%s", words, code, out)
	}
	return out
}

// put copies a file of this machine into the system.
func (s system) put(from, to string, mode os.FileMode) {
	s.t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(to, string(text), mode)
}

// service is what systemd would run: the last ExecStart of unit and drop-in, with the variables
// that they set.
func (s system) service() (words, env []string) {
	s.t.Helper()
	set := make(map[string]string)
	var start string
	for line := range strings.Lines(s.read(dropIn)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "Environment":
			name, v, _ := strings.Cut(value, "=")
			set[name] = v
		case "EnvironmentFile":
			name, optional := strings.CutPrefix(value, "-")
			if !optional {
				s.t.Error("the drop-in cannot do without its environment file")
			}
			for line := range strings.Lines(s.read(name)) {
				if line = strings.TrimSpace(line); line != "" && line[0] != '#' && line[0] != ';' {
					k, v, _ := strings.Cut(line, "=")
					set[k] = strings.Trim(v, `"`)
				}
			}
		case "ExecStart":
			start = value
		}
	}
	for name, v := range set {
		env = append(env, name+"="+v)
	}
	for _, word := range strings.Fields(start) {
		words = append(words, os.Expand(word, func(name string) string { return set[name] }))
	}
	return words, env
}

// output collects what a process prints.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// received counts events by their column Seq: those that the stub prints, and those that come to
// the stand-in for Splunk.
type received struct {
	mu   sync.Mutex
	seqs map[string]int
}

var seqColumn = regexp.MustCompile(`"Seq": ?(\d+)`)

func (r *received) take(text []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range seqColumn.FindAllSubmatch(text, -1) {
		r.seqs[string(m[1])]++
	}
}

// count is how many different events have come, and how many of them more than once.
func (r *received) count() (distinct, again int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.seqs {
		if n > 1 {
			again++
		}
	}
	return len(r.seqs), again
}

func (r *received) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if q.Header.Get("Content-Encoding") == "gzip" && err == nil {
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(body)); err == nil {
			body, err = io.ReadAll(z)
		}
	}
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable) // cut off: it comes again
		return
	}
	r.take(body)
	_, _ = io.WriteString(w, `{"text":"Success","code":0}`)
}

// running starts the service, waits until n different events have come, and ends it as systemd
// does. It returns its log.
func (s system) running(r *received, n int) string {
	s.t.Helper()
	words, env := s.service()
	cmd := s.command(env, words...)
	log := new(output)
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewReader(out); ; {
			line, err := lines.ReadBytes('\n')
			r.take(line)
			if err != nil {
				return
			}
		}
	}()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if have, _ := r.count(); have >= n {
			break
		}
		select {
		case <-ended:
		default:
			if time.Now().Before(deadline) {
				continue
			}
		}
		_ = cmd.Process.Kill()
		<-ended
		_ = cmd.Wait()
		have, _ := r.count()
		s.t.Fatalf("%d of %d events have come:\n%s", have, n, log)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(40*time.Second, func() { _ = cmd.Process.Kill() })
	<-ended
	if err := cmd.Wait(); err != nil {
		s.t.Errorf("the service ends with %v:\n%s", err, log)
	}
	kill.Stop()
	return log.String()
}

// stub is a fluent-bit for this test. It runs the C host, which loads a plugin as Fluent Bit does.
// The host gets the first defender section of a YAML configuration, and prints the events.
const stub = `#!/bin/sh
set -eu
[ "$1" = -c ]
conf=$2
library=$(sed -n 's/^  - \(.*\.so\)$/\1/p' "$conf")
[ -n "$library" ] || { echo "this is not a configuration of the plugin: $conf" >&2; exit 9; }
sed -n '/- name: defender/,/^$/s/^      \([a-z_.]*: [^#]*\).*/\1/p' "$conf" >/tmp/section
set --
while read -r key value; do
	case $key in threaded: | storage.*) continue ;; esac
	eval "value=\"$value\""
	set -- "$@" -set "${key%:}=$value"
done </tmp/section
exec /opt/fluent-bit/bin/host "$@" "$library"
`

// fluentBit makes a package fluent-bit of this machine's files: names of them in the package, and
// their modes.
func (s system) fluentBit(files map[string]string) {
	s.t.Helper()
	dir := s.t.TempDir()
	s2 := system{s.t, dir}
	for to, from := range files {
		s2.put(from, to, 0o755)
	}
	s2.write("/etc/fluent-bit/fluent-bit.conf", "[SERVICE]\n", 0o644)
	s2.write("/DEBIAN/conffiles", "/etc/fluent-bit/fluent-bit.conf\n", 0o644)
	s2.write("/DEBIAN/control", "Package: fluent-bit\nVersion: 5.1.1\nArchitecture: amd64\nMaintainer: A Test <test@example.com>\nDescription: Fluent Bit for a test\n", 0o644)
	run(s.t, "dpkg-deb", "--root-owner-group", "-Znone", "-b", dir, s.path("/tmp/fluent-bit.deb"))
}

// newer is the package with a higher version, and with what change does to its unpacked files.
func (s system) newer(name, version string, change func(system)) {
	s.t.Helper()
	dir := s.t.TempDir()
	run(s.t, "dpkg-deb", "-R", deb(s.t, "amd64"), dir)
	p := system{s.t, dir}
	control := regexp.MustCompile(`(?m)^Version: .*$`).ReplaceAllString(p.read("/DEBIAN/control"), "Version: "+version)
	p.write("/DEBIAN/control", control, 0o644)
	change(p)
	run(s.t, "dpkg-deb", "--root-owner-group", "-Znone", "-b", dir, s.path(name))
}

// produce sends events with Seq first to first+n-1.
func produce(t *testing.T, h *fakehub.Hub, first, n int) {
	t.Helper()
	for at := first; at < first+n; at += 20 {
		b := []byte(`{"records":[`)
		for i := at; i < min(at+20, first+n); i++ {
			if i > at {
				b = append(b, ',')
			}
			b = fmt.Appendf(b, `{"time":"2026-03-04T05:06:07Z","tenantId":"11111111-2222-3333-4444-555555555555","category":"AdvancedHunting-DeviceEvents",`+
				`"properties":{"Timestamp":"2026-03-04T05:06:06.5Z","DeviceName":"host.contoso.example","Seq":%d}}`, i)
		}
		if err := h.Produce(context.Background(), "defender", append(b, `]}`...)); err != nil {
			t.Fatal(err)
		}
	}
}

func replaced(t *testing.T, text, old, new string) string {
	t.Helper()
	if strings.Count(text, old) != 1 {
		t.Fatalf("%q is in the file %d times", old, strings.Count(text, old))
	}
	return strings.Replace(text, old, new, 1)
}

// A machine without Go: the package beside Fluent Bit, two values, the check, the start, an
// upgrade, the removal.
func TestInstall(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	host, err := filepath.Abs(root + "/build/out/host")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("stub", func(t *testing.T) {
		script := filepath.Join(t.TempDir(), "fluent-bit")
		if err := os.WriteFile(script, []byte(stub), 0o755); err != nil {
			t.Fatal(err)
		}
		s.t = t
		s.fluentBit(map[string]string{"/opt/fluent-bit/bin/fluent-bit": script, "/opt/fluent-bit/bin/host": host})
		story(t, s)
	})
	t.Run("Fluent Bit", func(t *testing.T) {
		binary := os.Getenv("FLUENT_BIT")
		if binary == "" {
			t.Skip("no $FLUENT_BIT; the stub shows the same but for Fluent Bit itself")
		}
		// The real one was built here, so it brings its libraries, all but those of glibc.
		real := map[string]string{"/opt/fluent-bit/bin/real": binary}
		for _, m := range regexp.MustCompile(`=> (/\S+)`).FindAllStringSubmatch(run(t, "ldd", binary), -1) {
			if !regexp.MustCompile(`/(libc|libm|libdl|libpthread|librt|libresolv)\.so`).MatchString(m[1]) {
				real["/opt/fluent-bit/real/"+filepath.Base(m[1])] = m[1]
			}
		}
		script := filepath.Join(t.TempDir(), "fluent-bit")
		if err := os.WriteFile(script, []byte("#!/bin/sh\nLD_LIBRARY_PATH=/opt/fluent-bit/real exec /opt/fluent-bit/bin/real \"$@\"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		real["/opt/fluent-bit/bin/fluent-bit"] = script
		s.t = t
		s.fluentBit(real)
		story(t, s)
	})
}

// story installs, upgrades and removes the package beside /tmp/fluent-bit.deb.
func story(t *testing.T, s system) {
	h, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{"defender": 2}, EntityPath: "defender"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	r := &received{seqs: make(map[string]int)}
	siem := httptest.NewServer(r)
	t.Cleanup(siem.Close)

	// Installed: what is where is TestContents's. Nothing runs otherwise than before.
	const with, without = "7f00 r-xp " + installed + "\n", "7f00 r-xp /usr/lib/libc.so\n"
	s.write("/tmp/systemctl", "", 0o644)
	s.serviceRuns(without)
	s.put(deb(t, "amd64"), "/tmp/defender.deb", 0o644)
	said := s.apt("install", "-y", "/tmp/fluent-bit.deb", "/tmp/defender.deb")
	if !strings.Contains(said, "fill in /etc/fluent-bit/defender/environment") {
		t.Errorf("the installation does not say what comes next:\n%s", said)
	}
	if out, code := s.run("find", environment, "/var/lib/fluent-bit", "-maxdepth", "0", "-printf", "%m %u\n"); code != 0 || out != "600 root\n750 root\n" {
		t.Errorf("modes and owners of the environment and the state: %s", out)
	}
	if asked := s.asked(); !slices.Equal(asked, []string{"daemon-reload"}) {
		t.Errorf("the installation asks systemd %q", asked)
	}
	if words, _ := s.service(); !slices.Equal(words, []string{"/opt/fluent-bit/bin/fluent-bit", "-c", "/etc/fluent-bit/fluent-bit.conf"}) {
		t.Errorf("installing alone changes what the service runs: %v", words)
	}
	if out, code := s.run("fluent-bit-defender-check"); code != 2 || !strings.Contains(out, "names no configuration") {
		t.Errorf("the check without values ends with %d:\n%s", code, out)
	}

	// Two values, and what is different here: the hub's address and certificate, a SIEM without
	// TLS.
	port := siem.URL[strings.LastIndex(siem.URL, ":")+1:]
	values := replaced(t, s.read(environment), "#FLUENT_BIT_CONFIG="+splunk, "FLUENT_BIT_CONFIG="+splunk)
	values = replaced(t, values, "#SPLUNK_HOST=splunk.example.com", "SPLUNK_HOST=127.0.0.1\nSPLUNK_PORT="+port)
	values = replaced(t, values, "#SPLUNK_TOKEN=", "SPLUNK_TOKEN=")
	line := regexp.MustCompile(`(?m)^#EVENTHUB_CONNECTION_STRING=.*$`).FindString(values)
	wrong := regexp.MustCompile(`SharedAccessKey=[^;]*`).ReplaceAllString(h.ConnectionString(), "SharedAccessKey=d3Jvbmc=")
	s.write(environment, replaced(t, values, line, `EVENTHUB_CONNECTION_STRING="`+wrong+`"`), 0o600)
	s.write("/etc/fluent-bit/defender/ca.pem", string(h.CA()), 0o644)
	const connection = "      eventhub.connection_string: ${EVENTHUB_CONNECTION_STRING}\n"
	config := replaced(t, s.read(splunk), connection, connection+"      eventhub.brokers: "+h.Brokers()+"\n      eventhub.ca_file: /etc/fluent-bit/defender/ca.pem\n")
	config = replaced(t, config, "      tls: on\n", "      tls: off\n")
	config = replaced(t, config, "  http_server: on ", "  http_server: off ") // its port may be another's here
	s.write(splunk, config, 0o644)

	// The check: a wrong key, then the right one.
	if out, code := s.run("fluent-bit-defender-check"); code == 0 || !strings.Contains(out, "check:") || strings.Contains(out, "d3Jvbmc=") {
		t.Errorf("the check with a wrong key ends with %d:\n%s", code, out)
	}
	s.write(environment, replaced(t, values, line, "EVENTHUB_CONNECTION_STRING="+h.ConnectionString()), 0o600)
	produce(t, h, 0, 500)
	s.serviceRuns(with)
	if out, code := s.run("fluent-bit-defender-check"); code != 2 || !strings.Contains(out, "stop it first") {
		t.Errorf("the check beside a running service ends with %d:\n%s", code, out)
	}
	s.serviceRuns(without)
	if out, code := s.run("fluent-bit-defender-check"); code != 0 || !strings.Contains(out, "checks passed") {
		t.Errorf("the check ends with %d:\n%s", code, out)
	}
	if n, _ := r.count(); n != 0 {
		t.Errorf("the check has sent %d events", n)
	}

	// Started and stopped.
	log := s.running(r, 500)
	if !strings.Contains(log, "starting version "+version(t)+", commit ") {
		t.Errorf("the log does not name the version %s:\n%s", version(t), log)
	}
	if out, code := s.run("find", state, "-printf", "%m %u\n"); code != 0 || out != "600 root\n" {
		t.Errorf("mode and owner of the state file: %s", out)
	}

	// Upgraded: what the user changed stays, what he did not is new, and positions are kept.
	mine, myValues := s.read(splunk), s.read(environment)
	v := version(t)
	s.newer("/tmp/newer.deb", v+".1", func(p system) {
		p.write(elastic, p.read(elastic)+"# newer\n", 0o644)
	})
	s.asked()
	s.apt("install", "-y", "/tmp/newer.deb")
	if asked := s.asked(); !slices.Equal(asked, []string{"daemon-reload"}) {
		t.Errorf("an upgrade beside a service without the plugin asks systemd %q", asked)
	}
	if s.read(splunk) != mine || s.read(environment) != myValues || !strings.HasSuffix(s.read(elastic), "# newer\n") {
		t.Error("an upgrade changes what the user has changed, or keeps what he has not")
	}
	s.newer("/tmp/newest.deb", v+".2", func(p system) {
		p.write(splunk, p.read(splunk)+"# newest\n", 0o644)
		p.write(environment, p.read(environment)+"# newest\n", 0o600)
	})
	s.serviceRuns(with)
	s.apt("install", "-y", "-o", "Dpkg::Options::=--force-confold", "/tmp/newest.deb")
	if asked := s.asked(); !slices.Equal(asked, []string{"daemon-reload", "try-restart fluent-bit"}) {
		t.Errorf("an upgrade beside a service with the plugin asks systemd %q", asked)
	}
	if s.read(splunk) != mine || s.read(environment) != myValues {
		t.Error("an upgrade that changes what the user has changed too does not keep his")
	}
	if !strings.HasSuffix(s.read(splunk+".dpkg-dist"), "# newest\n") {
		t.Error("the new configuration is not laid beside the user's")
	}
	if out, _ := s.run("find", environment, environment+".dpkg-dist", "-printf", "%m %u\n"); out != "600 root\n600 root\n" {
		t.Errorf("modes of the environment after the upgrade: %s", out)
	}
	produce(t, h, 500, 300)
	s.running(r, 800)
	if n, again := r.count(); n != 800 || again != 0 {
		t.Errorf("%d events have come, %d of them more than once, want 800", n, again)
	}

	// Removed: state and values stay, and it says so. The service starts as it did before.
	said = s.apt("remove", "-y", "fluent-bit-defender")
	if !strings.Contains(said, "positions and unsent events stay in /var/lib/fluent-bit") {
		t.Errorf("the removal does not say what stays:\n%s", said)
	}
	if asked := s.asked(); !slices.Equal(asked, []string{"daemon-reload", "try-restart fluent-bit"}) {
		t.Errorf("the removal beside a service with the plugin asks systemd %q", asked)
	}
	if s.exists(installed) || s.exists(dropIn) || s.exists("/usr/bin/fluent-bit-defender-check") {
		t.Error("the removal leaves the library, the drop-in or the check")
	}
	if !s.exists(state) || s.read(environment) != myValues {
		t.Error("the removal takes state or values")
	}
	s.apt("purge", "-y", "fluent-bit-defender")
	if s.exists(environment) || !s.exists(state) {
		t.Error("a purge leaves the values with their secrets, or takes the state")
	}
	// For the next story.
	s.apt("purge", "-y", "fluent-bit")
	for _, name := range []string{"/var/lib/fluent-bit", "/etc/fluent-bit"} {
		if err := os.RemoveAll(s.path(name)); err != nil {
			t.Fatal(err)
		}
	}
}
