package image

import (
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The oldest glibc of a supported distribution with packages of Fluent Bit 4.1: Red Hat Enterprise
// Linux 9 and Amazon Linux 2023 (2.34). Ubuntu 22.04 has 2.35, Debian 12 2.36, the image of Fluent
// Bit 5 2.41.
const newestGlibc = "2.34"

// loaded are libraries that every process of Fluent Bit has: all are part of glibc.
var loaded = []string{"libc.so.6", "libdl.so.2", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}

// each runs test on the library of `make plugin` and on those of `make packages`, as far as they
// are built. At least one must be. The tests of the packages see that all of theirs are.
func each(t *testing.T, test func(t *testing.T, f *elf.File)) {
	t.Helper()
	names, err := filepath.Glob("../out/package/*/in_defender.so")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, name := range append([]string{"../out/in_defender.so"}, names...) {
		f, err := elf.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		found = true
		t.Run(f.Machine.String(), func(t *testing.T) { test(t, f) })
		_ = f.Close()
	}
	if !found {
		t.Skip("no build/out/in_defender.so: run make plugin, or make test, which does")
	}
}

// The image has no other libraries than those of Fluent Bit: a missing one would be an error at
// start, in production.
func TestLibraries(t *testing.T) {
	each(t, func(t *testing.T, f *elf.File) {
		needed, err := f.ImportedLibraries()
		if err != nil {
			t.Fatal(err)
		}
		if len(needed) == 0 {
			t.Error("it needs no library, not even glibc: is it the plugin?")
		}
		for _, name := range needed {
			if !slices.Contains(loaded, name) {
				t.Errorf("the library needs %s, which the image lacks", name)
			}
		}
	})
}

// A library built on a newer glibc than the one it is loaded by is refused: "version `GLIBC_2.38'
// not found".
func TestGlibc(t *testing.T) {
	each(t, func(t *testing.T, f *elf.File) {
		needs, err := f.DynamicVersionNeeds()
		if err != nil {
			t.Fatal(err)
		}
		checked := 0
		for _, need := range needs {
			for _, dep := range need.Needs {
				version, ok := strings.CutPrefix(dep.Dep, "GLIBC_")
				if !ok {
					t.Errorf("the library needs %s of %s", dep.Dep, need.Name)
					continue
				}
				checked++
				if newer(version, newestGlibc) {
					t.Errorf("the library needs glibc %s, but must load with %s: build it on an older distribution, such as Debian 12",
						version, newestGlibc)
				}
			}
		}
		if checked == 0 {
			t.Error("no versions of glibc found: was anything checked?")
		}
	})
}

func newer(a, b string) bool {
	x, y := numbers(a), numbers(b)
	return slices.Compare(x, y) > 0
}

func numbers(version string) (ns []int) {
	for part := range strings.SplitSeq(version, ".") {
		n, _ := strconv.Atoi(part)
		ns = append(ns, n)
	}
	return ns
}

func TestNewer(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{{"2.34", "2.34", false}, {"2.4", "2.34", false}, {"2.36", "2.34", true}, {"2.2.5", "2.34", false}, {"2.34.1", "2.34", true}, {"3.0", "2.34", true}} {
		if got := newer(c.a, c.b); got != c.want {
			t.Errorf("newer(%s, %s) = %v", c.a, c.b, got)
		}
	}
}

// What Fluent Bit calls in a Go input must be exported, or the plugin cannot be loaded.
func TestExports(t *testing.T) {
	each(t, func(t *testing.T, f *elf.File) {
		symbols, err := f.DynamicSymbols()
		if err != nil {
			t.Fatal(err)
		}
		exported := make(map[string]bool)
		for _, s := range symbols {
			exported[s.Name] = exported[s.Name] || s.Section != elf.SHN_UNDEF
		}
		for _, name := range []string{"FLBPluginRegister", "FLBPluginInit", "FLBPluginInputCallbackCtx", "FLBPluginExit"} {
			if !exported[name] {
				t.Errorf("the library does not export %s", name)
			}
		}
	})
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func one(t *testing.T, name, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(read(t, name))
	if m == nil {
		t.Fatalf("%s: nothing like %s", name, pattern)
	}
	return m[1]
}

// The image is made from the package, without a build of its own, and what the guides say of it
// holds.
func TestDockerfile(t *testing.T) {
	if v := one(t, "examples/try/images.yaml", `"fluent/fluent-bit:([0-9.]+)["@]`); newer("4.1", v) {
		t.Errorf("the image has Fluent Bit %s, which is not supported", v)
	}
	text := read(t, "build/Dockerfile")
	if !strings.Contains(text, "\nADD build/out/packages/fluent-bit-defender-${VERSION}-linux-${TARGETARCH}.tar.gz /\n") ||
		!strings.Contains(read(t, "build/package/build.sh"), `"$OUT/fluent-bit-defender-$VERSION-linux-$arch.tar.gz"`) {
		t.Error("the Dockerfile does not take the package that build.sh makes")
	}
	if !strings.Contains(read(t, "build/Dockerfile.dockerignore"), "\n!build/out/packages\n") {
		t.Error("the packages are not sent to Docker")
	}
	if !regexp.MustCompile(`(?m)^USER [1-9][0-9]*:[1-9][0-9]*$`).MatchString(text) {
		t.Error("the image runs as root, or as a user that Kubernetes cannot tell from root")
	}
	path := one(t, "build/package/files/plugins.conf", `Path (\S+)`)
	if !strings.Contains(read(t, "build/package/build.sh"), `"$root`+path+`"`) {
		t.Errorf("the packages do not put the library at %s", path)
	}
	for _, example := range []string{"splunk", "elastic", "opensearch"} {
		config := read(t, "examples/"+example+"/fluent-bit.yaml")
		if !strings.Contains(config, "  - "+path+"\n") {
			t.Errorf("%s does not load %s", example, path)
		}
		if !strings.Contains(text, "\nENV HTTP_LISTEN=0.0.0.0\n") || !strings.Contains(config, "http_listen: ${HTTP_LISTEN:-127.0.0.1}\n") {
			t.Errorf("%s is open to the network on a plain install, or closed in the image", example)
		}
		if !strings.Contains(text, "VOLUME /var/lib/fluent-bit\n") || strings.Contains(config, ": /var/lib/") != strings.Contains(config, ": /var/lib/fluent-bit/") {
			t.Errorf("%s keeps something outside of the volume", example)
		}
	}
}
