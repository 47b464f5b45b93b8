// Package image checks what the image is made of: that every supported Fluent Bit can load the
// library; that the Dockerfile builds an image in which the library runs, on a root with nothing
// but the packages of Fluent Bit's image; and that Dockerfile, examples and packages agree.
package image
