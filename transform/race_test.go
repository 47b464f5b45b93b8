//go:build race

package transform_test

// slower divides sizes and counts: the race detector slows the work down by as much.
const slower = 8
