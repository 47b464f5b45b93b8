//go:build faults

package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMutants breaks the plugin on purpose, in each of the ways that matter most, and expects the
// matrix to fail. A matrix that passes always would prove nothing. Not in `make test`, because it
// builds the plugin nine times and lasts minutes: make mutants runs it.
func TestMutants(t *testing.T) {
	root, err := goOutput("list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("make", "-C", root, "host").CombinedOutput(); err != nil {
		t.Fatalf("make host: %v\n%s", err, out)
	}
	f := func(name, row, wants string, patches ...patch) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			o := options{cHost: filepath.Join(root, "build/out/host"), seed: 7, short: true, quiet: true}
			var err error
			if o.library, err = buildPatched(dir, "mutant", patches...); err != nil {
				t.Fatal(err)
			}
			rows, err := choose(row)
			if err != nil {
				t.Fatal(err)
			}
			result := o.do(t.Context(), rows[0], false)
			failures := strings.Join(result.failures, "\n")
			t.Logf("%s: %s", row, failures)
			switch {
			case wants == "" && failures != "":
				t.Errorf("row %s fails for a plugin that is whole", row)
			case !strings.Contains(failures, wants):
				t.Errorf("row %s did not fail with %q", row, wants)
			}
		})
	}

	f("nothing broken", "refusals", "")
	f("the append's result ignored", "refusals", "events lost",
		patch{"plugin/handover.go", "if !hand(h.gather.Tag, h.gather.Data) {", "if hand(h.gather.Tag, h.gather.Data); false {"})
	f("a mark moved at hand-over instead of after it", "refusals", "events lost",
		patch{"input/outbox.go", "	o.queue = append(o.queue, c)\n", "	o.queue = append(o.queue, c)\n" +
			"	if o.safe[b.Source] == nil {\n		o.safe[b.Source] = make(Marks)\n	}\n" +
			"	for _, m := range b.Marks {\n		o.safe[b.Source].Set(m)\n	}\n"})
	f("the term check off in blobs", "blob-replaced", "events lost",
		patch{"input/blob/source.go", "b != nil && b.term == m.Term && b.shard.lease.Held() {", "b != nil && b.shard.lease.Held() {"})
	f("the term check off in hubs", "hub-anew", "events lost",
		patch{"input/eventhub/source.go", "if l == nil || l.term != m.Term {", "if l == nil {"})
	f("the copy taken without its proof", "hub-state-replaced", "events lost",
		patch{"input/eventhub/lanes.go", "				at = l.askAgain()\n", "				if at = l.askAgain(); l.ahead {\n					l.check, at = nil, l.next\n					l.believe()\n				}\n"})
	f("an id known before its batch is queued", "both-repeats", "events lost",
		patch{"plugin/instance.go", "	b.WhenPut(queued)\n", "	queued()\n	in.ids.save(func() []input.ID { return new })\n"})
	f("the pause rule off", "reload", "BROKEN RULE",
		patch{"plugin/generation.go", "	g.held = true\n", ""})
}
