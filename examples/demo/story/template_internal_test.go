package story

import (
	"strings"
	"testing"
)

func TestCut(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		parts, err := cut(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			return
		}
		var got strings.Builder
		for _, p := range parts {
			got.WriteString(p.text)
			if p.value.kind == word {
				got.WriteString(p.value.words[0])
			}
		}
		if got.String() != want {
			t.Errorf("%s: got %s, want %s", text, got.String(), want)
		}
	}
	f(`{"A":1}`, `{"A":1`)
	f(`{"A":"«pick:x»"}`, `{"A":"x"`)
	f(`{"A":⟪{"b":"c\\d"}⟫}`, `{"A":"{\"b\":\"c\\\\d\"}"`)
	f(`{"A":⟪{"b":⟪["«pick:é»"]⟫}⟫}`, `{"A":"{\"b\":\"[\\\"é\\\"]\"}"`)

	bad := func(text, want string) {
		t.Helper()
		if _, err := cut(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
	bad(`{"A":1`, "does not end")
	bad(`{"A":⟪1}`, "without ⟫")
	bad(`{"A":1⟫}`, "without ⟪")
	bad(`{"A":«t}`, "without »")
	bad(`{"A":«tea»}`, "«tea»")
}

func TestAppendTime(t *testing.T) {
	f := func(at int64, digits int, trim bool, want string) {
		t.Helper()
		if got := string(appendTime(nil, at, digits, trim)); got != want {
			t.Errorf("%d: got %s, want %s", at, got, want)
		}
	}
	f(0, 7, false, "1970-01-01T00:00:00.0000000Z")
	f(0, 7, true, "1970-01-01T00:00:00Z")
	f(17_091_648_001_234_500, 7, true, "2024-02-29T00:00:00.12345Z")
	f(17_091_648_001_234_500, 7, false, "2024-02-29T00:00:00.1234500Z")
	f(17_091_648_001_234_500, 3, false, "2024-02-29T00:00:00.123Z")
	f(17_672_255_999_999_999, 0, false, "2025-12-31T23:59:59Z")
}
