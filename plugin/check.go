package main

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/machines"
)

// check tries every connection of the section once, all at the same time, and logs the results. The
// error says how many do not work. It may take half a minute, in which the host waits: nothing has
// started yet.
func (in *instance) check(c config) error {
	var tries []func(context.Context) []input.Finding
	if cfg := c.eventhub; cfg != nil {
		tries = append(tries, func(ctx context.Context) []input.Finding { return eventhub.Check(ctx, *cfg) })
	}
	if cfg := c.blob; cfg != nil {
		tries = append(tries, func(ctx context.Context) []input.Finding { return blob.Check(ctx, *cfg) })
	}
	if cfg := c.devices; cfg != nil {
		tries = append(tries, func(ctx context.Context) []input.Finding { return machines.Check(ctx, cfg.api) })
	}
	found := make([][]input.Finding, len(tries))
	var running sync.WaitGroup
	for i, try := range tries {
		running.Go(func() {
			var err error
			if found[i], err = safely(try); err != nil {
				found[i] = []input.Finding{{What: "check", Err: err}}
			}
		})
	}
	running.Wait()
	all, failed := 0, 0
	for _, list := range found {
		for _, f := range list {
			all++
			if f.Err != nil {
				failed++
				in.log.Error("check: " + f.String())
			} else {
				in.log.Info("check: " + f.String())
			}
		}
	}
	for _, line := range unknownTables(slices.Concat(c.transform.Tables, c.transform.TablesExclude), nil) {
		in.log.Warn("check: tables or tables_exclude: " + line)
	}
	if failed > 0 {
		return fmt.Errorf("check_only: %d of %d checks failed, nothing is read; fix the causes in the NOT OK lines above", failed, all)
	}
	in.log.Info(fmt.Sprintf("check_only: all %d checks passed, nothing is read; remove check_only to start", all))
	return nil
}

// safely runs try and turns a panic of it into err.
func safely(try func(context.Context) []input.Finding) (found []input.Finding, err error) {
	defer input.Catch("try a connection", &err)
	return try(context.Background()), nil
}
