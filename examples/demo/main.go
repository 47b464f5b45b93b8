// Command demo shows the plugin at work without any account. It starts an Event Hubs namespace, or
// with -blob a storage account, inside the process, and feeds it a story or your files. It runs the
// plugin in Fluent Bit if there is one, and in build/out/host otherwise. Then it shows the events.
// It exits with 1 when anything is missing.
//
// # Files
//
//	feed.go     the messages that go in, and the records that must come out
//	count.go    the records of a file, for FROM=
//	account.go  the storage account of -blob
//	host.go     the process that has the plugin loaded
//	tally.go    counts the events, and keeps those worth showing
//	shape.go    where each format keeps the fields that the demo looks at
//	view.go     prints to the terminal
//	page.go     writes demo.html
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
)

type options struct {
	from      string
	blob      bool
	format    string
	repeats   string
	records   int
	seed      uint64
	plugin    string
	host      string
	fluentBit string
	patience  time.Duration
	page      string // file for the page; "" makes none
}

func main() {
	var o options
	flag.StringVar(&o.from, "from", "", "replay these files or folders of NDJSON or JSON, separated by commas, instead of the story")
	flag.BoolVar(&o.blob, "blob", false, "read the story from a storage account, which grows meanwhile, instead of an Event Hub")
	flag.StringVar(&o.format, "format", "flat", "the shape of the records: "+formats())
	flag.StringVar(&o.repeats, "repeats", "", "deliver 3 % of the story again, as the service does, and pass these on or drop them")
	flag.IntVar(&o.records, "records", 40_000, "number of records of the story")
	flag.Uint64Var(&o.seed, "seed", 1, "another seed tells another story")
	flag.StringVar(&o.plugin, "plugin", "build/out/in_defender.so", "the plugin")
	flag.StringVar(&o.host, "host", "build/out/host", "the host of the plugin if there is no Fluent Bit")
	flag.StringVar(&o.fluentBit, "fluent-bit", findFluentBit(), "the fluent-bit to run the plugin in; none for -host")
	flag.DurationVar(&o.patience, "patience", 20*time.Second, "give up when nothing has come out for this time")
	flag.StringVar(&o.page, "page", "build/out/demo.html", "write the page with the alert into this file; none when empty")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx, o, newView(os.Stdout))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

// findFluentBit looks into $FLUENT_BIT, then along the PATH.
func findFluentBit() string {
	if path := os.Getenv("FLUENT_BIT"); path != "" {
		return path
	}
	path, err := exec.LookPath("fluent-bit")
	if err != nil {
		return ""
	}
	return path
}

// run does it all and tells whether everything arrived.
func run(ctx context.Context, o options, v *view) (ok bool, err error) {
	shape, known := shapes[o.format]
	if !known {
		return false, fmt.Errorf("-format %q: choose one of %s", o.format, formats())
	}
	plugin, err := filepath.Abs(o.plugin)
	if err != nil {
		return false, err
	}
	for _, path := range []string{plugin, o.host} {
		if _, err := os.Stat(path); err != nil {
			return false, fmt.Errorf("find what was built (make plugin host): %w", err)
		}
	}
	var f *feed
	repeats := 0
	switch o.repeats {
	case "":
	case "pass", "drop":
		repeats = 3
		if o.blob || o.from != "" {
			return false, errors.New("-repeats is of the story in an Event Hub: leave out -blob and -from")
		}
	default:
		return false, fmt.Errorf("-repeats %q: choose pass or drop", o.repeats)
	}
	if o.blob {
		if o.from != "" {
			return false, errors.New("-blob tells the story only: leave out -from")
		}
		f = tellLines(o.records, o.seed)
		v.printf("A storage account, %d records of a morning at a shipping company, half of them written while you watch, and the plugin.\n", f.total())
	} else if o.from == "" {
		f = tell(o.records, o.seed, repeats)
		v.printf("An Event Hub, %d records of a morning at a shipping company, and the plugin.\n", f.total())
	} else {
		if f, err = replay(strings.Split(o.from, ",")); err != nil {
			return false, err
		}
		v.printf("An Event Hub, %d records from %d files, and the plugin.\n", f.total(), len(f.from))
	}

	dir, err := os.MkdirTemp("", "defender-demo-")
	if err != nil {
		return false, fmt.Errorf("make a folder for the demo: %w", err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var set [][2]string
	if o.blob {
		a, err := startAccount(f)
		if err != nil {
			return false, err
		}
		defer a.close()
		defer cancel() // before close, which waits for the goroutines of grow
		if set, err = a.settings(dir); err != nil {
			return false, err
		}
		a.grow(ctx)
	} else {
		hub, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{hubName: 4}})
		if err != nil {
			return false, err
		}
		defer hub.Close()
		if err := produce(ctx, hub, f.messages); err != nil {
			return false, err
		}
		if set, err = settings(dir, hub); err != nil {
			return false, err
		}
	}
	if o.format != "flat" {
		set = append(set, [2]string{"format", o.format})
	}
	want := f.total()
	if o.repeats != "" {
		set = append(set, [2]string{"repeats", o.repeats})
	}
	if o.repeats == "pass" {
		want += f.repeats
	}
	t := newTally(f, shape)
	started := time.Now()
	var h *host
	if o.fluentBit != "" {
		h, err = startFluentBit(o.fluentBit, plugin, dir, set, t)
	} else {
		h, err = startHost(o.host, plugin, dir, set, t)
	}
	if err != nil {
		return false, err
	}
	v.printf("host: %s\n", h.name)
	exited := h.wait(ctx, t, want, o.patience)
	<-h.read
	h.cleanup()

	v.records(t.kept, shape, f.alert, o.from != "")
	if n := t.total - len(t.kept); n > 0 && o.from != "" {
		v.printf("… and %d more\n", n)
	}
	ok = v.summary(t, h.name, started)
	if alert := cmp.Or(f.alert, mainAlert(parseKept(t.kept, shape))); o.page != "" && alert != "" && ctx.Err() == nil {
		if err := writePage(o.page, f, t, alert, h.name, o.format); err != nil {
			return false, err
		}
		v.printf("  page      %s\n", o.page)
	}
	if err := ctx.Err(); err != nil {
		return false, errors.New("interrupted")
	}
	if exited {
		v.showLog(h.log)
		return false, fmt.Errorf("%s ended by itself", filepath.Base(h.cmd.Path))
	}
	if !ok {
		v.showLog(h.log)
	}
	return ok, nil
}

// produce fills the hub. There is order only within a partition, so the beginning, with the attack,
// goes into one; the rest goes round.
func produce(ctx context.Context, hub *fakehub.Hub, messages [][]byte) error {
	for partition := int32(0); len(messages) > 0; partition = -1 {
		n, size := 0, 0
		for n < len(messages) && (n == 0 || size+len(messages[n]) <= maxMessageBytes) {
			size += len(messages[n])
			n++
		}
		if err := hub.ProduceTo(ctx, hubName, partition, messages[:n]...); err != nil {
			return err
		}
		messages = messages[n:]
	}
	return nil
}
