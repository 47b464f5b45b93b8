package kafka

import (
	"os"
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	pom, err := os.ReadFile("pom.xml")
	if err != nil {
		t.Fatal(err)
	}
	if want := "<artifactId>kafka_2.13</artifactId>\n      <version>" + Version + "</version>"; !strings.Contains(string(pom), want) {
		t.Errorf("pom.xml does not have %s, which the fault matrix names", want)
	}
}
