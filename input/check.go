package input

import "fmt"

// Finding is the result of a connection test, for one thing that reading needs. Examples: the
// broker can be reached, sign-in works, a hub or container may be read.
type Finding struct {
	What   string // "broker ns.servicebus.windows.net:9093"
	Detail string // of a success: "4 partitions"
	Err    error  // of a failure: the thing to check
}

// String is one line.
func (f Finding) String() string {
	switch {
	case f.Err != nil:
		return fmt.Sprintf("%s: NOT OK: %v", f.What, f.Err)
	case f.Detail != "":
		return fmt.Sprintf("%s: ok, %s", f.What, f.Detail)
	}
	return f.What + ": ok"
}
