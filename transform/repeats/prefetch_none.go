//go:build !amd64 && !arm64

package repeats

func prefetch(*tags) {}
