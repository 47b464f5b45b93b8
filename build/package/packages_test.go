//go:build packages

package packaging

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const (
	root   = "../.."
	made   = root + "/build/out/packages"
	work   = root + "/build/out/package"
	module = "github.com/fluent-bit-defender/fluent-bit-defender"
)

var arches = map[string]string{"amd64": "x86_64", "arm64": "aarch64"} // Debian's and Go's name, RPM's name

// need ends the test where one of the tools is missing: it fails in CI, and is skipped, loudly,
// elsewhere. "root" is the user.
func need(t *testing.T, tools ...string) {
	t.Helper()
	var missing []string
	for _, tool := range tools {
		if tool == "root" {
			if os.Geteuid() != 0 {
				missing = append(missing, "to be root")
			}
		} else if _, err := exec.LookPath(tool); err != nil {
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

// run runs a command to its end and returns what it prints, on standard output only when it
// succeeds.
func run(t *testing.T, command ...string) string {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w\n%s%s", err, out, exit.Stderr)
		}
		t.Fatalf("%s: %v", strings.Join(command, " "), err)
	}
	return string(out)
}

// made1 is the one file of build/out/packages that pattern names.
func made1(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(made, pattern))
	if err != nil || len(names) != 1 {
		t.Fatalf("build/out/packages has %d files like %s, want one: run make packages (%v)", len(names), pattern, err)
	}
	return names[0]
}

func deb(t *testing.T, arch string) string     { return made1(t, "*_"+arch+".deb") }
func rpm(t *testing.T, arch string) string     { return made1(t, "*."+arches[arch]+".rpm") }
func tarball(t *testing.T, arch string) string { return made1(t, "*-linux-"+arch+".tar.gz") }
func library(arch string) string               { return filepath.Join(work, arch, "in_defender.so") }

// version is that of the packages.
func version(t *testing.T) string {
	return strings.TrimSpace(run(t, "dpkg-deb", "-f", deb(t, "amd64"), "Version"))
}

// A file is what a package says of one.
type file struct {
	mode string
	sum  string // empty for a folder
}

// files are those of a tar archive, without the folders that every system has.
func files(t *testing.T, r io.Reader) map[string]file {
	t.Helper()
	found := make(map[string]file)
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 {
			t.Errorf("%s belongs to %d:%d, not to root", h.Name, h.Uid, h.Gid)
		}
		name := "/" + strings.Trim(strings.TrimPrefix(h.Name, "."), "/")
		f := file{mode: h.FileInfo().Mode().String()}
		if h.Typeflag == tar.TypeReg {
			sum := sha256.New()
			if _, err := io.Copy(sum, archive); err != nil {
				t.Fatal(err)
			}
			f.sum = fmt.Sprintf("%x", sum.Sum(nil))
		}
		if f.sum != "" || slices.Contains(ownFolders, name) {
			found[name] = f
		}
	}
}

// ownFolders are those whose mode is ours to say.
var ownFolders = []string{"/etc/fluent-bit/defender", "/var/lib/fluent-bit"}

// contents is what is where, and how: a file that moves is a change that users notice. Of the
// folders examples/splunk and its like, each configuration and each file for the SIEM is there.
func contents(t *testing.T) map[string]string {
	t.Helper()
	const file, private, program = "-rw-r--r--", "-rw-------", "-rwxr-xr-x"
	all := map[string]string{
		"/etc/fluent-bit/defender":                                      "drwxr-xr-x",
		"/etc/fluent-bit/defender/environment":                          private,
		"/etc/fluent-bit/defender/plugins.conf":                         file,
		"/opt/fluent-bit/lib/fluent-bit/in_defender.so":                 program,
		"/usr/bin/fluent-bit-defender-check":                            program,
		"/usr/lib/systemd/system/fluent-bit.service.d/10-defender.conf": file,
		"/usr/share/doc/fluent-bit-defender/CHANGELOG.md":               file,
		"/usr/share/doc/fluent-bit-defender/THIRD-PARTY-LICENSES":       file,
		"/usr/share/doc/fluent-bit-defender/copyright":                  file,
		"/usr/share/doc/fluent-bit-defender/sbom.cdx.json":              file,
		"/var/lib/fluent-bit":                                           "drwxr-x---",
	}
	for _, siem := range []string{"splunk", "elastic", "opensearch"} {
		names, err := filepath.Glob(filepath.Join(root, "examples", siem, "*.*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			switch name = filepath.Base(name); {
			case name == "fluent-bit.yaml":
				all["/etc/fluent-bit/defender/"+siem+".yaml"] = file
			case filepath.Ext(name) == ".yaml" && name != "compose.yaml":
				all["/etc/fluent-bit/defender/"+siem+"-"+name] = file
			case filepath.Ext(name) == ".json" || filepath.Ext(name) == ".conf":
				all["/usr/share/fluent-bit-defender/"+siem+"/"+name] = file
			}
		}
	}
	return all
}

// The three kinds of package install the same bytes with the same modes, keep the same files
// through an upgrade, and run the same scripts.
func TestContents(t *testing.T) {
	need(t, "dpkg-deb", "rpm", "rpm2archive")
	contents := contents(t)
	if len(contents) < 18 {
		t.Fatalf("only %d files are wanted", len(contents))
	}
	for arch := range arches {
		t.Run(arch, func(t *testing.T) {
			inDeb := files(t, strings.NewReader(run(t, "dpkg-deb", "--fsys-tarfile", deb(t, arch))))
			for name, mode := range contents {
				if f, ok := inDeb[name]; !ok || f.mode != mode {
					t.Errorf(".deb: %s has mode %q, want %q", name, f.mode, mode)
				}
			}
			for name := range inDeb {
				if contents[name] == "" {
					t.Errorf(".deb: %s is there, and no test knows it", name)
				}
			}

			same := func(kind string, have map[string]file) {
				for _, name := range slices.Sorted(maps.Keys(inDeb)) {
					if have[name] != inDeb[name] {
						t.Errorf("%s: %s is %v, in the .deb %v", kind, name, have[name], inDeb[name])
					}
				}
				for name := range have {
					if _, ok := inDeb[name]; !ok {
						t.Errorf("%s: %s is not in the .deb", kind, name)
					}
				}
			}
			unpack := exec.Command("rpm2archive", "-n", "-")
			in, err := os.Open(rpm(t, arch))
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			unpack.Stdin = in
			archive, err := unpack.Output()
			if err != nil {
				t.Fatalf("unpack the .rpm: %v", err)
			}
			same(".rpm", files(t, bytes.NewReader(archive)))
			compressed, err := os.Open(tarball(t, arch))
			if err != nil {
				t.Fatal(err)
			}
			defer compressed.Close()
			z, err := gzip.NewReader(compressed)
			if err != nil {
				t.Fatal(err)
			}
			same(".tar.gz", files(t, z))

			// What an upgrade keeps: all of /etc.
			conffiles := strings.Fields(run(t, "dpkg-deb", "-I", deb(t, arch), "conffiles"))
			var inEtc, kept []string
			for name, f := range inDeb {
				if strings.HasPrefix(name, "/etc/") && f.sum != "" {
					inEtc = append(inEtc, name)
				}
			}
			for line := range strings.Lines(run(t, "rpm", "-qp", "--nosignature", "--qf", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]", rpm(t, arch))) {
				if f := strings.Fields(line); len(f) == 2 && f[1] == "cn" { // config, noreplace
					kept = append(kept, f[0])
				}
			}
			for _, list := range [][]string{conffiles, kept, inEtc} {
				slices.Sort(list)
			}
			if !slices.Equal(conffiles, inEtc) || !slices.Equal(kept, inEtc) {
				t.Errorf("an upgrade keeps %v (.deb) and %v (.rpm), want %v", conffiles, kept, inEtc)
			}

			scripts := run(t, "rpm", "-qp", "--nosignature", "--scripts", rpm(t, arch))
			for file, inControl := range map[string]string{"postinstall": "postinst", "postremove": "postrm"} {
				text, err := os.ReadFile("files/" + file)
				if err != nil {
					t.Fatal(err)
				}
				if run(t, "dpkg-deb", "-I", deb(t, arch), inControl) != string(text) {
					t.Errorf(".deb: %s is not files/%s", inControl, file)
				}
				if !strings.Contains(scripts, string(text)) {
					t.Errorf(".rpm: its scripts do not contain files/%s", file)
				}
			}
			if n := strings.Count(scripts, "scriptlet"); n != 2 {
				t.Errorf(".rpm: %d scripts, want 2", n)
			}
			if depends := run(t, "dpkg-deb", "-f", deb(t, arch), "Depends", "Pre-Depends", "Recommends"); depends != "Recommends: fluent-bit (>= 4.1)\n" {
				t.Errorf(".deb: %s", depends)
			}
			for line := range strings.Lines(run(t, "rpm", "-qp", "--nosignature", "--requires", rpm(t, arch))) {
				if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "rpmlib(") && !strings.HasPrefix(line, "config(") && line != "/bin/sh" {
					t.Errorf(".rpm: requires %s", line)
				}
			}
			if got := strings.TrimSpace(run(t, "rpm", "-qp", "--nosignature", "--recommends", rpm(t, arch))); got != "fluent-bit >= 4.1" {
				t.Errorf(".rpm: recommends %s", got)
			}
		})
	}
}

// The library in a package is that of its architecture, and knows its version and commit. The SBOM
// and the licences name every module in it.
func TestWhatIsInTheLibrary(t *testing.T) {
	need(t, "dpkg-deb")
	v := version(t)
	commit := regexp.MustCompile(`g([0-9a-f]{12})`).FindStringSubmatch(v)
	for arch := range arches {
		t.Run(arch, func(t *testing.T) {
			text, err := os.ReadFile(library(arch))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(text, []byte(v)) || commit != nil && !bytes.Contains(text, []byte(commit[1])) {
				t.Errorf("the library does not hold its version %s", v)
			}
			info, err := buildinfo.ReadFile(library(arch))
			if err != nil {
				t.Fatal(err)
			}
			if len(info.Deps) < 15 {
				t.Fatalf("only %d modules in the library", len(info.Deps))
			}
			for _, s := range info.Settings {
				if s.Key == "GOARCH" && s.Value != arch {
					t.Errorf("the library is for %s", s.Value)
				}
			}
			licences, err := os.ReadFile(filepath.Join(work, arch, "root/usr/share/doc/fluent-bit-defender/THIRD-PARTY-LICENSES"))
			if err != nil {
				t.Fatal(err)
			}
			var bom struct {
				Components []struct {
					Name, Version string
					Evidence      struct{ Licenses []any }
				}
				Metadata struct {
					Timestamp string
					Component struct{ Version string }
				}
				SerialNumber string
			}
			sbom, err := os.ReadFile(made1(t, "*-linux-"+arch+".cdx.json"))
			if err != nil || json.Unmarshal(sbom, &bom) != nil {
				t.Fatalf("the SBOM cannot be read: %v", err)
			}
			if bom.Metadata.Component.Version != "v"+v || bom.Metadata.Timestamp+bom.SerialNumber != "" {
				t.Errorf("the SBOM is of version %s, want v%s, and has a time or a serial number: %q %q",
					bom.Metadata.Component.Version, v, bom.Metadata.Timestamp, bom.SerialNumber)
			}
			listed := make(map[string]string)
			for _, c := range bom.Components {
				listed[c.Name] = c.Version
				if c.Name != "std" && len(c.Evidence.Licenses) == 0 {
					t.Errorf("the SBOM names no licence of %s", c.Name)
				}
			}
			for _, d := range info.Deps {
				if listed[d.Path] != d.Version {
					t.Errorf("the SBOM has %s %s, the library %s", d.Path, listed[d.Path], d.Version)
				}
				if !bytes.Contains(licences, []byte("\n"+d.Path+" "+d.Version+", LICEN")) {
					t.Errorf("the package has no licence of %s %s", d.Path, d.Version)
				}
			}
			if !bytes.Contains(licences, []byte("\nGo go1.")) {
				t.Error("the package has no licence of Go")
			}
		})
	}
}

func TestSums(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(made, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	listed := 0
	for line := range strings.Lines(string(text)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		data, err := os.ReadFile(filepath.Join(made, name))
		if err != nil {
			t.Fatal(err)
		}
		if have := fmt.Sprintf("%x", sha256.Sum256(data)); have != sum {
			t.Errorf("%s has the sum %s, listed is %s", name, have, sum)
		}
		listed++
	}
	if all, _ := filepath.Glob(filepath.Join(made, "fluent-bit-defender*")); len(all) != listed || listed != 8 {
		t.Errorf("%d files of %d are listed, want 8", listed, len(all))
	}
}

// copyTree copies the files of the repository, with changes that are not committed, into another
// folder.
func copyTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	names := strings.Split(strings.Trim(run(t, "git", "-C", root, "ls-files", "-z", "-co", "--exclude-standard"), "\x00"), "\x00")
	for _, name := range names {
		info, err := os.Stat(filepath.Join(root, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, and not committed
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, info.Mode().Perm())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// command is a command in dir with more environment.
func command(dir string, env []string, words ...string) *exec.Cmd {
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	return cmd
}

// The same commit gives the same bytes for both architectures. Folder, time, time zone and umask
// make no difference. The libraries are compiled for it from nothing, with an empty cache.
func TestReproducible(t *testing.T) {
	t.Parallel()
	need(t, "dpkg-deb", "git")
	dir := copyTree(t)
	v := version(t)
	commit := strings.TrimSpace(run(t, "git", "-C", root, "describe", "--always", "--exclude", "*", "--abbrev=12", "--dirty"))
	env := []string{"VERSION=" + v, "COMMIT=" + commit, "TZ=Asia/Tokyo", "LC_ALL=C.UTF-8",
		"SOURCE_DATE_EPOCH=" + strings.TrimSpace(run(t, "git", "-C", root, "log", "-1", "--format=%ct"))}
	cold := t.TempDir()
	for arch := range arches {
		make := []string{"make", "plugin", "OUT=build/out/cold", "GOARCH=" + arch}
		if arch != runtime.GOARCH {
			make = append(make, "CC="+arches[arch]+"-linux-gnu-gcc")
		}
		if out, err := command(dir, append(env, "GOCACHE="+cold), make...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		first, _ := os.ReadFile(library(arch))
		second, err := os.ReadFile(filepath.Join(dir, "build/out/cold/in_defender.so"))
		if err != nil {
			t.Fatal(err)
		}
		if len(first) == 0 || !bytes.Equal(first, second) {
			t.Errorf("%s: the library compiled from nothing in another folder differs; was build/out/packages made from this state of the tree?", arch)
		}
	}
	if out, err := command(dir, env, "bash", "-c", "umask 077; make packages").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sums := func(dir string) string {
		text, err := os.ReadFile(filepath.Join(dir, "build/out/packages/SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if a, b := sums(root), sums(dir); strings.Count(a, "\n") != 8 || a != b {
		t.Errorf("two builds in two folders differ:\n%s\n%s", a, b)
	}
}

// What `make release` refuses, and what it makes.
func TestRelease(t *testing.T) {
	t.Parallel()
	need(t, "git", "dpkg-deb")
	dir := copyTree(t)
	identity := []string{"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_DATE=2026-03-04T05:06:07Z", "GIT_COMMITTER_DATE=2026-03-04T05:06:07Z"}
	do := func(words ...string) {
		t.Helper()
		if out, err := command(dir, identity, words...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", words, err, out)
		}
	}
	commit := func() { t.Helper(); do("git", "add", "-A"); do("git", "commit", "-qm", "state") }
	changelog := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "CHANGELOG.md"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	release := func() (string, error) {
		out, err := command(dir, identity, "make", "release", "ARCHES=amd64").CombinedOutput()
		return string(out), err
	}
	refused := func(why string) {
		t.Helper()
		if out, err := release(); err == nil || !strings.Contains(out, "no release: "+why) {
			t.Errorf("it is not refused because %s (%v):\n%s", why, err, out)
		}
		if _, err := os.Stat(filepath.Join(dir, "build/out/release")); err == nil {
			t.Error("a release that is refused leaves files")
		}
	}
	do("git", "init", "-q")
	changelog("# Changelog\n\n## [Unreleased]\n\n")
	commit()
	refused("CHANGELOG.md has no version")
	changelog("# Changelog\n\n## [Unreleased]\n\n- not yet\n\n## [7.8.9] - 2026-03-04\n\n- all of it\n")
	commit()
	refused("CHANGELOG.md has entries under Unreleased")
	changelog("# Changelog\n\n## [Unreleased]\n\n## [7.8.9] - 2026-03-04\n\n### Added\n\n- all of it\n\n## [7.8.8] - 2026-03-03\n\n- older\n")
	refused("the tree has changes that are not committed")
	do("git", "tag", "v7.8.9")
	commit()
	refused("the tag v7.8.9 is at ")
	do("git", "tag", "-f", "v7.8.9")
	out, err := release()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	notes, err := os.ReadFile(filepath.Join(dir, "build/out/release/NOTES.md"))
	if err != nil {
		t.Fatal(err)
	}
	head := strings.TrimSpace(run(t, "git", "-C", dir, "rev-parse", "HEAD"))
	for _, want := range []string{"# fluent-bit-defender 7.8.9\n", head, "### Added\n\n- all of it\n", "fluent-bit-defender_7.8.9_amd64.deb"} {
		if !strings.Contains(string(notes), want) {
			t.Errorf("the notes lack %q:\n%s", want, notes)
		}
	}
	if strings.Contains(string(notes), "older") {
		t.Error("the notes hold those of an older version")
	}
	sums := exec.Command("sha256sum", "--check", "--quiet", "SHA256SUMS")
	sums.Dir = filepath.Join(dir, "build/out/release")
	if out, err := sums.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if v := run(t, "dpkg-deb", "-f", filepath.Join(dir, "build/out/release/fluent-bit-defender_7.8.9_amd64.deb"), "Version"); strings.TrimSpace(v) != "7.8.9" {
		t.Errorf("the package has version %s", v)
	}
}

// The version of every state of the repository. A package of a later commit is newer than that of
// an earlier one, for dpkg and for RPM.
func TestVersions(t *testing.T) {
	need(t, "git", "dpkg", "rpm")
	dir := t.TempDir()
	text, err := os.ReadFile(root + "/Makefile")
	if err != nil || os.WriteFile(filepath.Join(dir, "Makefile"), append(text, "\nprint-version:\n\t@echo $(VERSION) $(COMMIT)\n"...), 0o644) != nil {
		t.Fatal("copy the Makefile", err)
	}
	do := func(words ...string) string {
		t.Helper()
		out, err := command(dir, []string{"GIT_CONFIG_GLOBAL=/dev/null"}, words...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", words, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	commit := func() {
		do("git", "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "--allow-empty", "-m", "x")
	}
	have := func(pattern string) string {
		t.Helper()
		v, c, _ := strings.Cut(do("make", "-s", "print-version"), " ")
		if !regexp.MustCompile("^"+pattern+"$").MatchString(v) || !regexp.MustCompile(`^[0-9a-f]{12}(-dirty)?$`).MatchString(c) {
			t.Errorf("version %q, commit %q, want %s", v, c, pattern)
		}
		return v
	}
	do("git", "init", "-q")
	do("git", "add", "Makefile")
	commit()
	versions := []string{have(`0\.0\.0\+1\.g[0-9a-f]{12}`)}
	commit()
	versions = append(versions, have(`0\.0\.0\+2\.g[0-9a-f]{12}`))
	for range 8 { // 10 commits are more than 2, not less
		commit()
	}
	versions = append(versions, have(`0\.0\.0\+10\.g[0-9a-f]{12}`))
	do("git", "tag", "v0.1.0")
	versions = append(versions, have(`0\.1\.0`))
	if err := os.WriteFile(filepath.Join(dir, "Makefile"), append(text, "\nprint-version: # changed\n\t@echo $(VERSION) $(COMMIT)\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	have(`0\.1\.0\+dirty`)
	do("git", "add", "-A")
	commit()
	versions = append(versions, have(`0\.1\.0\+1\.g[0-9a-f]{12}`))
	do("git", "tag", "v0.2.0")
	versions = append(versions, have(`0\.2\.0`))
	for i, v := range versions[1:] {
		if err := exec.Command("dpkg", "--compare-versions", versions[i], "lt", v).Run(); err != nil {
			t.Errorf("dpkg does not take %s for newer than %s", v, versions[i])
		}
		if order := run(t, "rpm", "--eval", fmt.Sprintf("%%{lua:print(rpm.vercmp(%q, %q))}", versions[i], v)); strings.TrimSpace(order) != "-1" {
			t.Errorf("RPM does not take %s for newer than %s: %s", v, versions[i], order)
		}
	}
}

// The unit of Fluent Bit's packages: init/systemd.in of 5.1.1, with the paths of its packages.
const unit = `[Unit]
Description=Fluent Bit
Documentation=https://docs.fluentbit.io/manual/
Requires=network.target
After=network.target

[Service]
Type=simple
EnvironmentFile=-/etc/sysconfig/fluent-bit
EnvironmentFile=-/etc/default/fluent-bit
ExecStart=/opt/fluent-bit/bin/fluent-bit -c //etc/fluent-bit/fluent-bit.conf
Restart=always

[Install]
WantedBy=multi-user.target
`

// systemd reads the drop-in on top of Fluent Bit's unit without a complaint.
func TestDropIn(t *testing.T) {
	need(t, "systemd-analyze")
	text, err := os.ReadFile("files/10-defender.conf")
	if err != nil {
		t.Fatal(err)
	}
	verify := func(dropIn string) (string, error) {
		s := system{t, t.TempDir()}
		s.write("/usr/lib/systemd/system/fluent-bit.service", unit, 0o644)
		s.write("/usr/lib/systemd/system/fluent-bit.service.d/10-defender.conf", dropIn, 0o644)
		s.write("/opt/fluent-bit/bin/fluent-bit", "", 0o755)
		out, err := exec.Command("systemd-analyze", "verify", "--root="+s.dir, "--recursive-errors=no", "fluent-bit.service").CombinedOutput()
		return string(out), err
	}
	if out, err := verify(string(text)); err != nil || out != "" {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := verify(strings.Replace(string(text), "StateDirectory=", "StateDirektory=", 1)); err == nil {
		t.Error("a mistake in the drop-in is not noticed: is anything checked?")
	}
}
