// Package arch checks the rules of this repository that a compiler does not: imports, calls that a
// library must not make, and documentation. A rule that is written here need not be remembered.
package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

const module = "github.com/fluent-bit-defender/fluent-bit-defender"

// file is a Go file of the module.
type file struct {
	path string // from the root, with slashes
	dir  string
	test bool
	*ast.File
}

// in tells whether f is in one of dirs or below.
func (f file) in(dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return f.dir == dir || strings.HasPrefix(f.dir, dir+"/") })
}

func (f file) imports() (paths []string) {
	for _, spec := range f.Imports {
		paths = append(paths, strings.Trim(spec.Path.Value, `"`))
	}
	return paths
}

// product is what runs inside Fluent Bit. Everything else builds, tests or shows it.
var product = []string{"plugin", "input", "transform"}

const root = "../.."

// walk calls f for every file of the repository that is not built or hidden.
func walk(t *testing.T, f func(name string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ = filepath.Rel(root, name)
		name = filepath.ToSlash(name)
		switch {
		case d.IsDir() && (name == "build/out" || d.Name() == "node_modules" || name == ".git" || name == "build/.cache" || name == ".tmp"):
			return fs.SkipDir
		case !d.IsDir() && name != ".git":
			f(name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

var (
	parse sync.Once
	set   = token.NewFileSet()
	files []file
)

// goFiles returns the Go files of the module, which are parsed once.
func goFiles(t *testing.T) (*token.FileSet, []file) {
	t.Helper()
	parse.Do(func() { parseAll(t) })
	if len(files) < 20 {
		t.Fatalf("found only %d Go files", len(files))
	}
	return set, files
}

func parseAll(t *testing.T) {
	t.Helper()
	walk(t, func(name string) {
		if path.Ext(name) != ".go" {
			return
		}
		parsed, err := parser.ParseFile(set, filepath.Join(root, name), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file{path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), File: parsed})
	})
}

// floors are the rooms of transform, and which rooms each may import. transform/doc.go draws them.
var floors = map[string][]string{
	"transform/record":  {},
	"transform/event":   {"transform/record"},
	"transform/device":  {"transform/record", "transform/event"},
	"transform/format":  {"transform/record", "transform/event"},
	"transform/repeats": {},
	"transform":         {"transform/record", "transform/event", "transform/device", "transform/format", "transform/repeats"},
}

// allowed tells whether a room may import another.
func allowed(dir, imported string) bool {
	return slices.Contains(floors[dir], strings.TrimPrefix(imported, module+"/"))
}

// Every room of transform has its place in floors.
func TestFloors(t *testing.T) {
	_, files := goFiles(t)
	for _, f := range files {
		if _, known := floors[f.dir]; f.in("transform") && !known {
			t.Errorf("%s: which rooms of transform may %s import? Say it in floors", f.path, f.dir)
		}
	}
}

func TestImports(t *testing.T) {
	_, files := goFiles(t)
	within := func(imported, dir string) bool {
		return imported == module+"/"+dir || strings.HasPrefix(imported, module+"/"+dir+"/")
	}
	for _, f := range files {
		for _, imported := range f.imports() {
			bad := func(why string) { t.Errorf("%s imports %s: %s", f.path, imported, why) }
			switch {
			case f.in("input") && within(imported, "transform"), f.in("transform") && within(imported, "input"):
				bad("input and transform meet as bytes, in package plugin")
			case !f.test && f.in("transform") && within(imported, "transform") && !allowed(f.dir, imported):
				bad("the rooms of transform are in floors: record, event, then device and format, which do not know each other, then the root")
			case imported == "C" && !f.in("plugin"):
				bad("cgo stays in package plugin")
			case imported == "unsafe" && !f.in("plugin", "transform") && !onlySizes(f):
				bad("only the C boundary needs more of it than Sizeof, and transform, which looks at bytes as a string")
			case within(imported, "plugin"):
				bad("nothing is above package plugin")
			case !f.test && f.in(product...) && (within(imported, "build") || within(imported, "examples") || imported == "testing"):
				bad("that is for tests and the demo")
			case !f.test && f.in("transform") && (imported == "encoding/json" || strings.Contains(imported, "json-iterator")):
				bad("untrusted bulk data goes through the scanner of its own")
			case !f.test && f.in(product...) && imported == "log":
				bad("log with the *slog.Logger that was passed in")
			}
		}
	}
}

// onlySizes tells whether f takes nothing of package unsafe but Sizeof, which is safe.
func onlySizes(f file) bool {
	only := true
	ast.Inspect(f.File, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if pkg, ok := s.X.(*ast.Ident); ok && pkg.Name == "unsafe" && s.Sel.Name != "Sizeof" {
				only = false
			}
		}
		return true
	})
	return only
}

// A library neither prints nor ends the process it is in, and panics only for what cannot be.
func TestLibrariesAreQuiet(t *testing.T) {
	set, files := goFiles(t)
	forbidden := map[string][]string{
		"fmt":  {"Print", "Printf", "Println"},
		"os":   {"Exit"},
		"slog": {"Debug", "Info", "Warn", "Error", "Log", "SetDefault", "Default"},
	}
	for _, f := range files {
		if f.test || !f.in(product...) && !f.in("build/fakehub", "build/fakeblob", "examples/demo/story") {
			continue
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			switch fun := call.Fun.(type) {
			case *ast.SelectorExpr:
				if pkg, ok := fun.X.(*ast.Ident); ok && pkg.Obj == nil && slices.Contains(forbidden[pkg.Name], fun.Sel.Name) {
					t.Errorf("%s: %s.%s in a library", set.Position(call.Pos()), pkg.Name, fun.Sel.Name)
				}
			case *ast.Ident:
				switch {
				case fun.Obj == nil && (fun.Name == "print" || fun.Name == "println"):
					t.Errorf("%s: %s in a library", set.Position(call.Pos()), fun.Name)
				case fun.Name == "panic" && f.in(product...) && !isBug(call.Args[0]):
					t.Errorf("%s: a panic whose text does not begin with BUG:", set.Position(call.Pos()))
				}
			}
			return true
		})
	}
}

// isBug tells whether e is text that begins with "BUG: ", or a value that was recovered and goes
// on.
func isBug(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return strings.HasPrefix(e.Value, `"BUG: `)
	case *ast.BinaryExpr:
		return isBug(e.X)
	case *ast.CallExpr:
		return len(e.Args) > 0 && isBug(e.Args[0])
	case *ast.Ident:
		return e.Name == "r"
	}
	return false
}

func TestPackagesAreDocumented(t *testing.T) {
	_, files := goFiles(t)
	documented := make(map[string]bool)
	for _, f := range files {
		if strings.HasSuffix(f.Name.Name, "_test") {
			continue
		}
		has := f.Doc != nil && (strings.HasPrefix(f.Doc.Text(), "Package "+f.Name.Name+" ") || f.Name.Name == "main")
		documented[f.dir] = documented[f.dir] || has
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no comment that says what it is", dir)
		}
	}
}

// The comment of a package with more than three files has a line for each, so that a reader knows
// which to open. It leaves out the file that it stands in. The plugin's names its files of C, too.
func TestFilesAreListed(t *testing.T) {
	_, files := goFiles(t)
	comments, names := make(map[string]string), make(map[string][]string)
	for _, f := range files {
		if !f.test {
			comments[f.dir] += f.Doc.Text()
			if f.Doc == nil || !strings.HasPrefix(f.Doc.Text(), "Package ") && !strings.HasPrefix(f.Doc.Text(), "Command ") {
				names[f.dir] = append(names[f.dir], path.Base(f.path))
			}
		}
	}
	if len(names["plugin"]) == 0 {
		t.Fatal("found no files of plugin")
	}
	for _, pattern := range []string{"*.c", "*.h"} {
		found, err := filepath.Glob(filepath.Join(root, "plugin", pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("plugin/%s: found %v: %v", pattern, found, err)
		}
		for _, name := range found {
			names["plugin"] = append(names["plugin"], filepath.Base(name))
		}
	}
	listed := regexp.MustCompile(`\b[a-z0-9_]+\.(go|c|h)\b`)
	for dir, want := range names {
		if len(want) <= 3 {
			continue
		}
		has := make(map[string]bool)
		for _, name := range listed.FindAllString(comments[dir], -1) {
			has[name] = true
		}
		for _, name := range want {
			if !has[name] {
				t.Errorf("%s/%s is not in the comment of its package; say there in a line what it is for", dir, name)
			}
		}
	}
}

// Whoever starts a goroutine waits for it: a package that starts any checks that none is left after
// its tests.
func TestGoroutinesAreWaitedFor(t *testing.T) {
	_, files := goFiles(t)
	starts, checks := make(map[string]string), make(map[string]bool)
	for _, f := range files {
		if slices.Contains(f.imports(), "go.uber.org/goleak") {
			checks[f.dir] = true
		}
		if f.test || !f.in(product...) {
			continue
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				starts[f.dir] = f.path
			case *ast.CallExpr:
				if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Go" {
					starts[f.dir] = f.path
				}
			}
			return true
		})
	}
	for dir, where := range starts {
		if !checks[dir] {
			t.Errorf("%s starts goroutines and no test of %s looks for left-over ones (goleak)", where, dir)
		}
	}
}

// The Makefile leaves out tests under the race detector. They start no goroutine.
func TestOnlyOneGoroutine(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile(`(?m)^SINGLE +=((?:.*\\\n)*.*)$`).FindSubmatch(text)
	if list == nil {
		t.Fatal("the Makefile has no SINGLE")
	}
	names := regexp.MustCompile(`Test\w+`).FindAllString(string(list[1]), -1)
	_, files := goFiles(t)
	for _, f := range files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !f.test || !slices.Contains(names, fn.Name.Name) {
				continue
			}
			names = slices.DeleteFunc(names, func(name string) bool { return name == fn.Name.Name })
			if f.dir != "transform" {
				t.Errorf("%s: %s is not of transform: the race detector leaves out two tests", f.path, fn.Name.Name)
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				_, goes := n.(*ast.GoStmt)
				if s, ok := n.(*ast.SelectorExpr); goes || ok && (s.Sel.Name == "Go" || s.Sel.Name == "Parallel") {
					t.Errorf("%s: %s needs the race detector: take it out of SINGLE in the Makefile", f.path, fn.Name.Name)
				}
				return true
			})
		}
	}
	if len(names) > 0 {
		t.Errorf("no tests %v, which SINGLE in the Makefile names", names)
	}
}

// The host never calls main, so nothing may depend on it.
func TestMainDoesNothing(t *testing.T) {
	_, files := goFiles(t)
	for _, f := range files {
		if f.dir != "plugin" || f.test {
			continue
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && (fn.Name.Name == "main" || fn.Name.Name == "init") && fn.Recv == nil && len(fn.Body.List) > 0 {
				t.Errorf("%s: func %s does something", f.path, fn.Name.Name)
			}
		}
	}
}

// Go writes pointers into memory of C only when that is cleared: see cStrings in plugin/main.go.
// What Go needs of C is so whenever it comes from calloc.
func TestMemoryOfCIsCleared(t *testing.T) {
	_, files := goFiles(t)
	for _, f := range files {
		if f.dir != "plugin" || f.test {
			continue
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "malloc" {
				t.Errorf("%s: malloc; use calloc", f.path)
			}
			return true
		})
	}
}

// Comments keep to 100 columns, a tab taken for four, so that they can be read beside the code.
// Drawings and tables, which are indented, do as they must, and so does one unbreakable word.
func TestColumns(t *testing.T) {
	const most = 100
	checked := 0
	walk(t, func(name string) {
		if path.Ext(name) != ".go" {
			return
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			comment, ok := strings.CutPrefix(strings.TrimLeft(line, "\t"), "// ")
			if !ok || strings.HasPrefix(comment, " ") || !strings.Contains(strings.TrimSpace(comment), " ") {
				continue
			}
			checked++
			if n := utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    ")); n > most {
				t.Errorf("%s:%d: a comment of %d columns, want %d at most", name, i+1, n, most)
			}
		}
	})
	if checked < 500 {
		t.Errorf("found only %d lines of comments", checked)
	}
}

// A sentence of a comment has at most 25 words, so that it is understood at the first reading. A
// colon or a semicolon ends one, too. Drawings and tables, which are indented, do as they must.
func TestSentences(t *testing.T) {
	const most = 25
	end := regexp.MustCompile(`[.:;!?]\)?\s+`)
	item := regexp.MustCompile(`^ *([-*]|\d+\.) `)
	checked := 0
	walk(t, func(name string) {
		if path.Ext(name) != ".go" {
			return
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		var paragraph []string
		for i, line := range append(strings.Split(string(text), "\n"), "") {
			comment, ok := strings.CutPrefix(strings.TrimLeft(line, "\t"), "// ")
			if !ok || item.MatchString(comment) {
				for _, sentence := range end.Split(strings.Join(paragraph, " "), -1) {
					checked++
					if n := len(strings.Fields(sentence)); n > most {
						t.Errorf("%s: before line %d, a sentence of %d words, want %d at most: %s", name, i+1, n, most, sentence)
					}
				}
				paragraph = nil
			}
			if ok {
				paragraph = append(paragraph, strings.TrimSpace(comment))
			}
		}
	})
	if checked < 1000 {
		t.Errorf("found only %d sentences in comments", checked)
	}
}

// A file of code is named after one noun.
func TestNames(t *testing.T) {
	vague := regexp.MustCompile(`(?i)(^|[_\-.])(utils?|helpers?|common|misc|shared|base|stuff|impl|manager|tmp|temp|old|new|copy|v2|final)([_\-.]|$)`)
	walk(t, func(name string) {
		if !slices.Contains([]string{".go", ".c", ".h"}, path.Ext(name)) {
			return
		}
		for part := range strings.SplitSeq(name, "/") {
			if vague.MatchString(part) {
				t.Errorf("%s: the name says nothing about what is in it", name)
			}
		}
	})
}

func TestNothingIsLeftToDo(t *testing.T) {
	machine := regexp.MustCompile(`(^|[\s"'=:])/(home|root|Users|work)/[a-z]`)
	left := regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)
	walk(t, func(name string) {
		if name == "build/arch/arch_test.go" || slices.Contains([]string{".sum", ".png"}, path.Ext(name)) {
			return
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if mark := left.Find(text); mark != nil {
			t.Errorf("%s: %s", name, mark)
		}
		// A path of somebody's machine does not work on another.
		if m := machine.Find(text); m != nil {
			t.Errorf("%s: a path of one machine: %s", name, m)
		}
	})
}

func TestFilesOfTheProject(t *testing.T) {
	for name, begins := range map[string]string{
		"LICENSE":         "Apache License",
		"README.md":       "# ",
		"CONTRIBUTING.md": "# ",
		"CHANGELOG.md":    "# Changelog",
		"Makefile":        "# ",
		".ci/run":         "#!/bin/bash",
	} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if !strings.HasPrefix(strings.TrimSpace(string(text)), begins) {
			t.Errorf("%s does not begin with %q", name, begins)
		}
	}
	if info, err := os.Stat(filepath.Join(root, ".ci/run")); err == nil && info.Mode()&0o111 == 0 {
		t.Error(".ci/run is not executable")
	}
}
