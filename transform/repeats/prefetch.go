//go:build amd64 || arm64

package repeats

// prefetch has the processor fetch the memory at p, and does not wait for it. Go has no other way.
//
//go:noescape
func prefetch(p *tags)
