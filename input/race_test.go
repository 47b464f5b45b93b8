//go:build race

package input_test

// raceDetector: it makes code ten times slower. `make test` runs this package without it, too, and
// there at full size.
const raceDetector = true
