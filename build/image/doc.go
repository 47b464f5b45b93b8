// Package image checks what the image is made of: that every supported Fluent Bit can load the
// library, that the library runs in a root with nothing but the image's packages, and that the
// Dockerfile, the examples and the packages agree.
package image
