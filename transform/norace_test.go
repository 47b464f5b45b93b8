//go:build !race

package transform_test

// slower is 1 without the race detector: sizes and counts are whole.
const slower = 1
