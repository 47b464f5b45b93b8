package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A patch changes one place of a file: old must be there exactly once, so that a patch cannot
// silently do nothing. Without old, the file is a new one.
type patch struct{ file, old, new string }

func (p patch) apply(text string) (string, error) {
	if n := strings.Count(text, p.old); n != 1 {
		return "", fmt.Errorf("patch %s: the text to change is there %d times, want once: %q", p.file, n, p.old)
	}
	return strings.Replace(text, p.old, p.new, 1), nil
}

// buildPatched builds the plugin with patches, into dir. Files of the module are named from its
// root, files of Go's own library from GOROOT/src as "go:time/time.go". The sources themselves are
// not touched: the compiler reads changed copies instead.
func buildPatched(dir, name string, patches ...patch) (library string, err error) {
	root, err := goOutput("list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return "", err
	}
	goroot, err := goOutput("env", "GOROOT")
	if err != nil {
		return "", err
	}
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	for i, p := range patches {
		path := filepath.Join(root, p.file)
		if std, ok := strings.CutPrefix(p.file, "go:"); ok {
			path = filepath.Join(goroot, "src", std)
		}
		from := path
		if earlier, ok := overlay.Replace[path]; ok {
			from = earlier
		}
		changed := p.new
		if p.old != "" {
			text, err := os.ReadFile(from)
			if err != nil {
				return "", fmt.Errorf("patch: %w", err)
			}
			if changed, err = p.apply(string(text)); err != nil {
				return "", err
			}
		} else if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("patch: %s is there already", p.file)
		}
		to := filepath.Join(dir, fmt.Sprintf("%s-%d.go", name, i))
		if err := os.WriteFile(to, []byte(changed), 0o600); err != nil {
			return "", fmt.Errorf("patch: %w", err)
		}
		overlay.Replace[path] = to
	}
	list := filepath.Join(dir, name+".json")
	text, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(list, text, fs.FileMode(0o600)); err != nil {
		return "", err
	}
	library = filepath.Join(dir, name+".so")
	build := exec.Command("go", "build", "-overlay", list, "-buildmode=c-shared", "-trimpath", "-ldflags", "-s -w", "-o", library, "./plugin")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build a patched plugin: %w\n%s", err, out)
	}
	return library, nil
}

func goOutput(args ...string) (string, error) {
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// patchedHost is a host whose plugin is built with patches.
func (r *run) patchedHost(name string, patches []patch, sections ...section) *host {
	library, err := buildPatched(r.dir, name, patches...)
	if err != nil {
		r.fatalf("%v", err)
	}
	h := r.host(sections...)
	h.library = library
	return h
}
