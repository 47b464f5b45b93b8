// Package packaging has only tests, of the packages that `make packages` makes of files/, nfpm.yaml
// and build.sh. They need Debian's tools, root for a chroot, and some minutes, so they have a tag
// of their own: `make test-packages` runs them.
package packaging
