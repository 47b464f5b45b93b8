// Package image checks the parts of the image. Every supported Fluent Bit can load the library. The
// library runs in the image of the Dockerfile, on a root with only the packages of Fluent Bit's
// image. Dockerfile, examples and packages agree.
package image
