package arch

import (
	"go/ast"
	"strings"
	"testing"
)

// recovered lists what runs on a goroutine without recovery of its own, with the reason. A key is a
// file and the enclosing function.
var recovered = map[string]string{
	"plugin/device.go openDevices":         "keep: each save recovers",
	"plugin/instance.go start":             "Pump.Run: each tenure of a source recovers",
	"plugin/check.go check":                "each try recovers",
	"input/pump.go tenure":                 "committer.run: each commit recovers",
	"input/machines/api.go call":           "tooSlow recovers",
	"input/machines/client.go start":       "work and keepList: each flight and each page recovers",
	"input/eventhub/source.go Open":        "watch: each look recovers",
	"input/eventhub/source.go Fetch":       "end: sets a flag",
	"input/eventhub/lanes.go give":         "wakes a waiter",
	"input/eventhub/dial.go ":              "sets a deadline",
	"input/outbox.go Put":                  "wakes a waiter",
	"input/eventhub/source.go OnNewClient": "sets a field",
}

// A panic on a goroutine ends the host, and so does one in a callback that a library runs on a
// goroutine of its own. Each begins with a deferred recovery, or is listed above with the reason.
func TestGoroutinesRecover(t *testing.T) {
	set, files := goFiles(t)
	found := 0
	for _, f := range files {
		if f.test || !f.in(product...) {
			continue
		}
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			check := func(n ast.Node, body *ast.BlockStmt) {
				found++
				if body != nil && recovers(body) {
					return
				}
				for name := range recovered {
					if file, in, _ := strings.Cut(name, " "); f.path == file && (in == "" || in == fn.Name.Name) {
						return
					}
				}
				t.Errorf("%v: in %s a goroutine or callback begins without `defer input.Catch` or `input.CatchAndLog`", set.Position(n.Pos()), fn.Name.Name)
			}
			// Hooks of franz-go.
			if fn.Recv != nil && strings.HasPrefix(fn.Name.Name, "On") && f.in("input/eventhub") {
				check(fn, fn.Body)
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					check(n, literal(n.Call.Fun))
				case *ast.CallExpr:
					if s, ok := n.Fun.(*ast.SelectorExpr); ok && isStart(s) && len(n.Args) > 0 {
						check(n, literal(n.Args[len(n.Args)-1]))
					}
				}
				return true
			})
		}
	}
	if found < 12 {
		t.Errorf("found only %d goroutines and callbacks: this test shows nothing", found)
	}
}

// isStart tells whether a call runs its last argument on another goroutine.
func isStart(s *ast.SelectorExpr) bool {
	switch s.Sel.Name {
	case "Go", "AfterFunc":
		return true
	case "AdjustFetchOffsetsFn", "OnPartitionsAssigned", "OnPartitionsRevoked", "OnPartitionsLost", "OnPartitionsCallbackBlocked":
		pkg, ok := s.X.(*ast.Ident)
		return ok && pkg.Name == "kgo"
	}
	return false
}

func literal(e ast.Expr) *ast.BlockStmt {
	if f, ok := e.(*ast.FuncLit); ok {
		return f.Body
	}
	return nil
}

// recovers tells whether one of the statements of body defers a recovery.
func recovers(body *ast.BlockStmt) bool {
	for _, statement := range body.List {
		d, ok := statement.(*ast.DeferStmt)
		if !ok {
			continue
		}
		found := false
		ast.Inspect(d.Call, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && (id.Name == "recover" || id.Name == "Catch" || id.Name == "CatchAndLog") {
				found = true
			}
			return true
		})
		if found {
			return true
		}
	}
	return false
}
