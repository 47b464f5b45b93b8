package input

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
)

// Catch turns a panic into an error with the action that was under way and the stack. It is
// deferred, and joins *err. A panic of one source ends neither the host nor the other sources.
//
//	func (s *Source) list() (err error) {
//		defer input.Catch("list containers", &err)
func Catch(doing string, err *error) {
	if r := recover(); r != nil {
		*err = errors.Join(*err, panicked(doing, r))
	}
}

// CatchAndLog does the same where nobody takes an error: at the end of a goroutine, or of a
// callback that a library runs. The panic goes into the log.
func CatchAndLog(log *slog.Logger, doing string) {
	if r := recover(); r != nil {
		log.Error("a panic was caught; please report it", "error", panicked(doing, r))
	}
}

func panicked(doing string, r any) error {
	return fmt.Errorf("%s: panic: %v\n%s", doing, r, debug.Stack())
}
