package input

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// maxFile is the most bytes of a file that a setting names: a secret, a certificate, a list of
// authorities. The largest list has about 250 kB.
const maxFile = 4 << 20

// ReadFile reads a file that a setting names. It refuses pipes, devices and large files: a pipe
// would keep the start waiting for a writer, and /dev/zero would fill memory.
func ReadFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe opens at once
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, &os.PathError{Op: "read", Path: path, Err: syscall.EISDIR}
	case !info.Mode().IsRegular():
		return nil, &os.PathError{Op: "read", Path: path, Err: errors.New("is a pipe or a device, and no file")}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = &os.PathError{Op: "read", Path: path, Err: errors.New("is larger than 4 MB")}
	}
	return b, err
}
