// Package image checks what the image is made of: that the library that `make plugin` builds can be loaded by every
// Fluent Bit that is supported, and that the Dockerfile, the examples and the Makefile agree.
package image
