package azurite

import (
	"os"
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	b, err := os.ReadFile("package.json")
	if err != nil {
		t.Fatal(err)
	}
	if want := `"azurite": "` + Version + `"`; !strings.Contains(string(b), want) {
		t.Errorf("package.json does not have %s, which the fault matrix names", want)
	}
}
