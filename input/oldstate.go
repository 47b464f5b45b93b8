package input

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"os"
	"syscall"
	"time"
)

// In earlier versions the state file was a bbolt database. convert reads one without that library,
// which maps the file and trusts it. Pages are read one by one, and a page that makes no sense is
// left out.
//
// The format is that of go.etcd.io/bbolt, internal/common: page.go, meta.go, inode.go. Numbers are
// in the byte order of the machine.
type oldState struct {
	f        *os.File
	size     int64
	pageSize int64
	visited  map[uint64]bool
	bad      int // pages that could not be read

	entry func(bucket, key string, value []byte) error
}

const (
	oldMagic   = 0xED0CDAED
	oldVersion = 2
	oldBranch  = 0x01
	oldLeaf    = 0x02
	oldHeader  = 16       // of a page: id 8, flags 2, count 2, overflow 4
	oldElement = 16       // of a branch: pos 4, size of key 4, page 8; of a leaf: flags 4, pos 4, size of key 4, of value 4
	oldMost    = 64 << 20 // the largest page that is read, with its overflow
	oldDepth   = 64
)

// convert replaces an old state file by one of today, atomically, and keeps the old one under
// another name. It does nothing to any other file.
func convert(path string, log *slog.Logger) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	o := &oldState{f: f, visited: make(map[uint64]bool)}
	if _, ok := o.meta(); !ok {
		return nil
	}
	// An old version that still runs holds this lock.
	for deadline := time.Now().Add(lockWait); syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			return errInUse
		}
	}
	root, ok := o.meta() // its present form: nobody writes any more
	if !ok {
		return nil
	}
	begun := path + ".converting"
	remove := func() {
		_ = os.Remove(begun)
		_ = os.Remove(begun + "-journal")
	}
	remove()
	defer remove()
	db, err := open(begun)
	if err != nil {
		return fmt.Errorf("convert the state file of an earlier version: %w", err)
	}
	n, last, size := 0, "", 0
	var changes []Change
	flush := func() error {
		err := guard(func() error { return db.write(last, changes) })
		n += len(changes)
		changes, size = changes[:0], 0
		return err
	}
	o.entry = func(bucket, key string, value []byte) error {
		if bucket != last || size > pageBytes {
			if err := flush(); err != nil {
				return err
			}
			last = bucket
		}
		changes = append(changes, Change{key, value})
		size += len(key) + len(value)
		return nil
	}
	err = o.walk(root, "", 0)
	err = errors.Join(err, flush(), guard(db.DB.Close))
	letGo(begun)
	if err != nil {
		return fmt.Errorf("convert the state file of an earlier version: %w", err)
	}
	kept := path + time.Now().UTC().Format(".before-20060102T150405.000")
	if err := os.Link(path, kept); err != nil {
		log.Warn("keep the state file of the earlier version", "file", path, "error", err)
	}
	if err := os.Rename(begun, path); err != nil {
		return fmt.Errorf("convert the state file of an earlier version: %w", err)
	}
	level := slog.LevelInfo
	if o.bad > 0 {
		level = slog.LevelError
	}
	log.Log(context.Background(), level, "state file of an earlier version was converted", "file", path, "kept_as", kept, "entries", n, "damaged_pages", o.bad)
	return nil
}

// meta reads the newer of the two meta pages and returns the page of the root bucket.
func (o *oldState) meta() (root uint64, ok bool) {
	info, err := o.f.Stat()
	if err != nil {
		return 0, false
	}
	o.size = info.Size()
	newest := uint64(0)
	for _, at := range []int64{0, 4096, 8192, 16384, 32768, 65536} {
		b := make([]byte, 64)
		if _, err := o.f.ReadAt(b, at+oldHeader); err != nil {
			continue
		}
		h := fnv.New64a()
		_, _ = h.Write(b[:56])
		pageSize := int64(binary.NativeEndian.Uint32(b[8:]))
		if binary.NativeEndian.Uint32(b) != oldMagic || binary.NativeEndian.Uint32(b[4:]) != oldVersion || h.Sum64() != binary.NativeEndian.Uint64(b[56:]) ||
			pageSize < 512 || pageSize > 64<<10 || at != 0 && at != pageSize {
			continue
		}
		if tx := binary.NativeEndian.Uint64(b[48:]); !ok || tx > newest {
			newest, ok = tx, true
			root, o.pageSize = binary.NativeEndian.Uint64(b[16:]), pageSize
		}
	}
	return root, ok
}

// walk reads the page id and all below it: of the bucket, or of the root ("") whose entries are
// buckets. It returns only the errors of entry.
func (o *oldState) walk(id uint64, bucket string, depth int) error {
	if id < 2 || int64(id) > o.size/o.pageSize || o.visited[id] || depth > oldDepth {
		o.bad++
		return nil
	}
	o.visited[id] = true
	head := make([]byte, oldHeader)
	at := int64(id) * o.pageSize
	if _, err := o.f.ReadAt(head, at); err != nil {
		o.bad++
		return nil
	}
	size := (int64(binary.NativeEndian.Uint32(head[12:])) + 1) * o.pageSize
	if size > min(oldMost, o.size-at) {
		o.bad++
		return nil
	}
	page := make([]byte, size)
	if _, err := o.f.ReadAt(page, at); err != nil && !errors.Is(err, io.EOF) {
		o.bad++
		return nil
	}
	return o.page(page, bucket, depth)
}

func (o *oldState) page(page []byte, bucket string, depth int) error {
	flags, count := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
	if oldHeader+count*oldElement > len(page) || flags != oldBranch && flags != oldLeaf {
		o.bad++
		return nil
	}
	for i := range count {
		e := page[oldHeader+i*oldElement:]
		if flags == oldBranch {
			if err := o.walk(binary.NativeEndian.Uint64(e[8:]), bucket, depth+1); err != nil {
				return err
			}
			continue
		}
		pos, keySize, valueSize := int64(binary.NativeEndian.Uint32(e[4:])), int64(binary.NativeEndian.Uint32(e[8:])), int64(binary.NativeEndian.Uint32(e[12:]))
		if keySize == 0 || keySize > maxKey || pos+keySize+valueSize > int64(len(e)) {
			o.bad++
			continue
		}
		key, value := string(e[pos:pos+keySize]), e[pos+keySize:pos+keySize+valueSize]
		var err error
		switch isBucket := binary.NativeEndian.Uint32(e)&1 != 0; {
		case isBucket && bucket == "" && len(value) >= 16:
			if root := binary.NativeEndian.Uint64(value); root != 0 {
				err = o.walk(root, key, depth+1)
			} else if inline := value[16:]; len(inline) >= oldHeader {
				err = o.page(inline, key, depth+1)
			}
		case isBucket || bucket == "":
			o.bad++
		default:
			err = o.entry(bucket, key, append([]byte{}, value...))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
