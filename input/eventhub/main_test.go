package eventhub_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// childEnv in the environment makes this program, when it runs itself, do asChild and nothing else.
const childEnv = "EVENTHUB_TEST_CHILD"

var asChild func() // set where there is something to do as a child

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" && asChild != nil {
		asChild()
		return
	}
	goleak.VerifyTestMain(m)
}
