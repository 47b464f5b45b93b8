package blob

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// Check tries, once, everything that reading needs: the account, sign-in, each container, the right to list it and the right
// to read a blob. It returns within half a minute.
func Check(ctx context.Context, cfg Config) []input.Finding {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	a, err := openAccount(cfg)
	if err != nil {
		return []input.Finding{{What: "storage account", Err: err}}
	}
	defer a.close()
	var findings []input.Finding
	account := "storage account " + a.host
	for _, pattern := range cfg.Containers {
		if !isPattern(pattern) {
			findings = append(findings, a.check(ctx, pattern, cfg.Prefix))
			continue
		}
		var names []string
		err := a.listContainers(ctx, pattern[:strings.IndexAny(pattern, "*?[")], func(name string) {
			if ok, _ := path.Match(pattern, name); ok {
				names = append(names, name)
			}
		})
		switch {
		case err != nil:
			findings = append(findings, input.Finding{What: account, Err: fmt.Errorf("list containers: %w", a.explain(err, false))})
		case len(names) == 0:
			findings = append(findings, input.Finding{What: account, Err: fmt.Errorf("no container matches %s yet; check blob.containers, or wait for the first events: Defender makes its containers with them", pattern)})
		default:
			findings = append(findings, input.Finding{What: account, Detail: fmt.Sprintf("%d containers match %s", len(names), pattern)})
			for _, name := range names[:min(len(names), 100)] {
				findings = append(findings, a.check(ctx, name, cfg.Prefix))
			}
		}
	}
	return findings
}

// check lists a container and reads the first byte of one of its blobs: the role to list it does not include reading.
func (a *account) check(ctx context.Context, containerName, prefix string) input.Finding {
	f := input.Finding{What: "container " + containerName}
	for marker, page := "", 0; page < 20; page++ {
		items, _, next, err := a.list(ctx, containerName, prefix, "", marker)
		if err != nil {
			if kindOf(err) == missing {
				err = errors.New("it does not exist (yet); Defender creates it with the first event of its table; check blob.containers")
			} else {
				err = a.explain(err, false)
			}
			f.Err = fmt.Errorf("list: %w", err)
			return f
		}
		for i := range items {
			if items[i].size == 0 {
				continue
			}
			var first [1]byte
			if _, err := a.read(ctx, containerName, items[i].name, items[i].etag, items[i].created, 0, first[:]); err != nil && kindOf(err) != changed {
				f.Err = fmt.Errorf("read %s: %w", items[i].name, a.explain(err, true))
				return f
			}
			f.Detail = "may be listed and read"
			return f
		}
		if marker = next; marker == "" {
			break
		}
	}
	f.Detail = "may be listed; it has no blob to try to read"
	return f
}
