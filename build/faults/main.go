// Command faults is the fault matrix: it brings every fault about under load, counts events in and
// out, and fails when one is lost.
//
//	generator --> fakehub, fakeblob --> the plugin in a host --> the events of the host, stored or delivered
//	    |                                                                     |
//	    +-------------------------------> ledger <----------------------------+
//
// A record has a number from the generator, and an event_id, which the ledger computes itself from
// the records that went in. The hosts are processes of their own, so that they can be killed. One
// is the small C host, whose storage file is read while it grows. The other is a real Fluent Bit,
// if there is one ($FLUENT_BIT, or fluent-bit on the PATH). It has filesystem storage and an http
// output to a server of ours.
//
// Some rows run on real servers instead of the fakes: Apache Kafka and Azurite, which are fetched
// the first time. If that fails, or Fluent Bit is missing, the table lists those rows as not run. A
// row that was asked for by name then fails.
//
// A row is a script in one of the rows_*.go files. All random choices come from the seed, which is
// printed.
//
// # Files
//
//	run.go         a row while it runs: the functions for its script
//	rows_hub.go    faults of the Event Hub and of its network
//	rows_blob.go   faults of Blob Storage
//	rows_sharing.go  faults of workers that share an account
//	rows_host.go   faults of the host
//	rows_state.go  faults of the disk, the clock and memory
//	rows_attack.go messages of an attacker, to fill the memory
//	rows_device.go faults that may cost an alert its device
//	rows_real.go   faults of Apache Kafka and Azurite
//	host.go        the hosts: the small one in C, and Fluent Bit
//	process.go     one life of a host
//	files.go       the open files of a host, by kind
//	sink.go        the server that Fluent Bit delivers to
//	real.go        fetches and starts the real servers
//	load.go        the generator, and its steady pace
//	ledger.go      events in and out, counted each
//	soak.go        faults drawn at random for as long as asked
//	patched.go     the plugin, broken on purpose (make mutants)
//	table.go       the table of results
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	library, cHost, fluentBit string
	seed                      uint64
	keep, quiet               bool
	short                     bool // repeat less often
	named                     bool // rows were asked for by name: one that cannot be run fails

	real *realServers
}

func main() {
	if err := faults(); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func faults() error {
	o := options{real: &realServers{}}
	flag.StringVar(&o.library, "library", "build/out/in_defender.so", "the plugin")
	flag.StringVar(&o.cHost, "host", "build/out/host", "the C host")
	flag.StringVar(&o.fluentBit, "fluent-bit", findFluentBit(), "Fluent Bit; empty to do without")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano())%1_000_000, "of everything that is drawn by lot")
	flag.BoolVar(&o.keep, "keep", false, "keep the files of every row, not only of those that fail")
	names := flag.String("rows", "all", "all, ci, or names separated by commas")
	parallel := flag.Int("parallel", 2, "how many rows to run side by side")
	readme := flag.String("readme", "", "write the table between its markers in this file")
	list := flag.Bool("list", false, "list the rows")
	soaking := flag.Duration("soak", 0, "run for so long with faults drawn at random, instead of the rows")
	real := flag.Bool("soak-fluent-bit", false, "do that in Fluent Bit instead of the C host")
	flag.Parse()

	var err error
	for _, path := range []*string{&o.library, &o.cHost} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *soaking > 0 {
		return o.soak(ctx, *soaking, *real)
	}
	o.short = *names == "ci"
	o.named = *names != "ci" && *names != "all"
	chosen, err := choose(*names)
	if err != nil {
		return err
	}
	if *list {
		for _, w := range chosen {
			fmt.Printf("%-22s %-10s %s\n", w.name, w.source, w.fault)
		}
		return nil
	}
	defer o.real.close()
	began := time.Now()
	fmt.Printf("seed %d\n\n%s", o.seed, heading)
	var table strings.Builder
	var failed []string
	var ran, skipped int
	for result := range o.all(ctx, chosen, *names == "ci", *parallel) {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if ran++; result.skipped != "" {
			ran--
			skipped++
		}
		fmt.Print(result.line())
		table.WriteString(result.line())
		for _, f := range result.failures {
			fmt.Printf("  FAILED %s: %s\n", result.row.name, f)
			failed = append(failed, result.row.name)
		}
		fmt.Fprintf(os.Stderr, "  %s on %s: %v\n", result.row.name, result.host, result.took.Round(100*time.Millisecond))
	}
	if *readme != "" {
		version := ""
		if o.fluentBit != "" {
			version = firstLine(o.fluentBit, "--version")
		}
		text := heading + table.String() + "\n" + summary(ran, skipped, time.Since(began), firstLine("git", "describe", "--always", "--dirty", "--exclude", "*"), version, o.seed)
		if err := writeReadme(*readme, text); err != nil {
			return err
		}
	}
	if failed = slices.Compact(failed); len(failed) > 0 {
		return fmt.Errorf("seed %d: failed: %s", o.seed, strings.Join(failed, ", "))
	}
	fmt.Printf("\nnothing lost in %d runs, %d not run, seed %d\n", ran, skipped, o.seed)
	return nil
}

// all runs rows, some of them side by side, and yields their outcomes in order. A row is run on
// each of its hosts, or on the first only.
func (o *options) all(ctx context.Context, rows []*row, firstHost bool, parallel int) iter.Seq[outcome] {
	return func(yield func(outcome) bool) {
		slots := make(chan struct{}, max(1, parallel))
		var results []chan outcome
		var starts []func()
		for _, w := range rows {
			for _, real := range []bool{false, true} {
				if real && w.hosts&fluentBit == 0 || !real && w.hosts&cHost == 0 || real && firstHost && w.hosts&cHost != 0 {
					continue
				}
				result := make(chan outcome, 1)
				results = append(results, result)
				starts = append(starts, func() {
					defer func() { <-slots }()
					result <- o.attempt(ctx, w, real)
				})
			}
		}
		go func() {
			for _, start := range starts {
				slots <- struct{}{}
				go start()
			}
		}()
		for _, result := range results {
			if !yield(<-result) {
				return
			}
		}
	}
}

// attempt runs a row, or says why it cannot be. A row that was asked for by name must be.
func (o *options) attempt(ctx context.Context, w *row, real bool) outcome {
	skip := func(why string) outcome {
		result := outcome{row: w, host: hostName(real), skipped: why}
		if o.named && (!real || w.hosts == fluentBit) {
			result.failures = []string{"it cannot be run: " + why}
		}
		return result
	}
	if real && o.fluentBit == "" {
		return skip("needs Fluent Bit ($FLUENT_BIT, or fluent-bit on the PATH)")
	}
	if w.needs != nil {
		if err := o.real.prepare(ctx, w.needs); err != nil {
			return skip(err.Error())
		}
	}
	if w.source == kafkaSource {
		o.real.turn.Lock()
		defer o.real.turn.Unlock()
	}
	return o.do(ctx, w, real)
}

// unshare is the command that a small disk of a host's own needs.
func unshare(context.Context) error {
	if _, err := exec.LookPath("unshare"); err != nil {
		return errors.New("needs unshare: install util-linux")
	}
	return nil
}

func hostName(real bool) string {
	if real {
		return "Fluent Bit"
	}
	return "C host"
}

func findFluentBit() string {
	for _, name := range []string{os.Getenv("FLUENT_BIT"), "fluent-bit"} {
		if name != "" {
			if path, err := exec.LookPath(name); err == nil {
				return path
			}
		}
	}
	return ""
}

// choose returns the rows of names.
func choose(names string) (chosen []*row, err error) {
	all := slices.Concat(hostRows, hubRows, blobRows, sharingRows, stateRows, attackRows, deviceRows, realRows)
	switch names {
	case "all":
		return all, nil
	case "ci":
		return slices.DeleteFunc(all, func(w *row) bool { return !w.ci }), nil
	}
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(w *row) bool { return w.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no row %q; -list lists them", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}
