package transform

import (
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	f := func(pattern, s string, want bool) {
		t.Helper()
		if match(pattern, s) != want {
			t.Errorf("%q matches %q: %v", pattern, s, !want)
		}
	}
	f("", "", true)
	f("a", "", false)
	f("*", "", true)
	f("*", "abc", true)
	f("a*c", "abc", true)
	f("a*c", "abcd", false)
	f("*b*", "abc", true)
	f("*bc", "abcbc", true)
	f("a*b*c", "a-b-b-c", true)
	f("a**c", "ac", true)
	f(strings.Repeat("*a", 30)+"b", strings.Repeat("a", 10_000), false)
}
