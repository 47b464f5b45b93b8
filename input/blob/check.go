package blob

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// Check tries, once, everything that reading needs: the account, sign-in, each container, the right
// to list it and the right to read a blob. It returns within half a minute.
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
		names, err := a.match(ctx, pattern)
		var others []string
		if err == nil && len(names) == 0 {
			others, err = a.others(ctx)
		}
		switch {
		case err != nil:
			findings = append(findings, input.Finding{What: account, Err: fmt.Errorf("list containers: %w", a.explain(err, false))})
		case len(others) > 0:
			findings = append(findings, input.Finding{What: account, Err: fmt.Errorf("no container matches %s, although there are others (%s); check blob.containers", pattern, strings.Join(others, ", "))})
		case len(names) == 0:
			findings = append(findings, input.Finding{What: account, Err: fmt.Errorf("no container matches %s yet; check blob.containers, or wait: Defender creates its containers with the first events", pattern)})
		default:
			findings = append(findings, input.Finding{What: account, Detail: fmt.Sprintf("%d containers match %s", len(names), pattern)})
			for _, name := range names[:min(len(names), 100)] {
				findings = append(findings, a.check(ctx, name, cfg.Prefix))
			}
		}
	}
	if cfg.Shared != "" {
		shared, reads := a, readsOf(a, cfg)
		if cfg.SharedURL != "" {
			cfg.AccountURL = cfg.SharedURL
			if shared, err = openAccount(cfg); err != nil {
				return append(findings, input.Finding{What: "blob.shared_account_url", Err: err})
			}
			defer shared.close()
		}
		findings = append(findings, shared.checkShared(ctx, cfg, reads))
	}
	return findings
}

// check lists a container and reads the first byte of one of its blobs: the role to list it does
// not include reading. It skips the blobs that the source skips.
func (a *account) check(ctx context.Context, containerName, prefix string) input.Finding {
	f := input.Finding{What: "container " + containerName}
	archived, others := 0, 0
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
			switch {
			case items[i].size == 0:
				continue
			case !isEvents(items[i].name):
				others++
				continue
			case items[i].archived:
				archived++
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
	if archived+others > 0 {
		f.Detail = fmt.Sprintf("may be listed; it has no blob to try to read: %d are in the archive tier, %d are not named .json, .jsonl, .ndjson or .gz", archived, others)
		return f
	}
	if prefix != "" {
		if name, err := a.beside(ctx, containerName, prefix); err == nil && name != "" {
			f.Err = fmt.Errorf("no blob is under blob.prefix %s, although there are others, such as %s; check blob.prefix", prefix, name)
			return f
		}
	}
	f.Detail = "may be listed; it has no blob to try to read"
	return f
}
