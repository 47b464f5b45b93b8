package eventhub_test

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
)

// childEnv in the environment makes this program, when it runs itself, do asChild and nothing else.
const childEnv = "EVENTHUB_TEST_CHILD"

var asChild func() // set where there is something to do as a child

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" && asChild != nil {
		asChild()
		return
	}
	eventhub.Shorten()
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil { // these tests wait for timers, not for the processor
		panic(err)
	}
	goleak.VerifyTestMain(m)
}
