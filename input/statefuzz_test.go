package input_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// The process survives any change of the file at any time. Each change is made in a process of its
// own, to a closed file or to one that is open. It must end by itself, within 256 MB. Every value
// that it reads was once written under that key. After the change it either stores again or has
// logged that it does not.
//
// DEFENDER_STATEFUZZ is the number of changes (`make statefuzz`), DEFENDER_SEED the seed, which is
// printed.
func TestStateFileChanges(t *testing.T) {
	t.Parallel()
	n, seed := 40, uint64(time.Now().UnixNano())
	if raceDetector {
		n = 8
	}
	if v := os.Getenv("DEFENDER_STATEFUZZ"); v != "" {
		n, _ = strconv.Atoi(v)
	}
	if v := os.Getenv("DEFENDER_SEED"); v != "" {
		seed, _ = strconv.ParseUint(v, 10, 64)
	}
	dir := t.TempDir()
	writeGood(t, dir)
	var (
		mu      sync.Mutex
		running sync.WaitGroup
		most    int
		slowest time.Duration
		ends    = make(map[string]int)
		next    = make(chan int)
	)
	for range 2 {
		running.Go(func() {
			for i := range next {
				work := filepath.Join(dir, fmt.Sprint("try-", i))
				if err := os.Mkdir(work, 0o700); err != nil {
					t.Error(err)
					return
				}
				ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
				cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestStateFileChanged$", "-test.count=1")
				cmd.Env = append(os.Environ(), "DEFENDER_STATE_CHILD="+work, fmt.Sprintf("DEFENDER_SEED=%d", seed+uint64(i)))
				started := time.Now()
				out, err := cmd.CombinedOutput()
				hung := ctx.Err() != nil
				cancel()
				_ = os.RemoveAll(work)
				mu.Lock()
				slowest = max(slowest, time.Since(started))
				end, memory := "", 0
				for line := range strings.Lines(string(out)) {
					if rest, ok := strings.CutPrefix(line, "END "); ok {
						_, _ = fmt.Sscan(rest, &end, &memory)
					}
				}
				most = max(most, memory)
				switch {
				case hung:
					end = "HUNG"
				case err != nil || end == "":
					end = "FAILED"
				case memory > 256<<10:
					end = "TOO LARGE"
				}
				if end[0] < 'a' {
					t.Errorf("DEFENDER_SEED=%d DEFENDER_STATEFUZZ=1: %s: %v\n%.3000s", seed+uint64(i), end, err, out)
				}
				ends[end]++
				mu.Unlock()
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	running.Wait()
	t.Logf("%d changes, seed %d: %v, at most %d MB, slowest %v", n, seed, ends, most>>10, slowest.Round(time.Millisecond))
	if n >= 40 && ends["salvaged"] == 0 {
		t.Errorf("no file was damaged: this test shows nothing: %v", ends)
	}
}

const goodKeys = 3000

func goodKey(i int) string {
	return fmt.Sprintf("insights/tenant/y=2026/m=01/d=%06d/PT1H.json", i)
}

// goodValue begins with a checksum of its key.
func goodValue(bucket, key string, n int) []byte {
	h := fnv.New64a()
	_, _ = h.Write([]byte(bucket + key))
	return append(h.Sum(nil), bytes.Repeat([]byte{byte(n)}, 50+n%60)...)
}

// writeGood makes good.db and old.db, an earlier state of it.
func writeGood(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "good.db")
	s := openState(t, path)
	for _, bucket := range []string{"blob", "devices"} {
		var changes []input.Change
		for i := range goodKeys {
			changes = append(changes, input.Change{Key: goodKey(i), Value: goodValue(bucket, goodKey(i), 1)})
		}
		if err := s.Write(bucket, changes); err != nil {
			t.Fatal(err)
		}
		if bucket == "blob" {
			s.Close()
			copyFile(t, path, filepath.Join(dir, "old.db"))
			s = openState(t, path)
		}
	}
	for i := range 20 {
		if err := s.Write("blob", []input.Change{{Key: goodKey(i * 3), Value: goodValue("blob", goodKey(i*3), 2)}}); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600) // into the file that is there, as cp does
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestStateFileChanged is the process of TestStateFileChanges.
func TestStateFileChanged(t *testing.T) {
	dir := os.Getenv("DEFENDER_STATE_CHILD")
	if dir == "" {
		return
	}
	seed, _ := strconv.ParseUint(os.Getenv("DEFENDER_SEED"), 10, 64)
	rnd := rand.New(rand.NewPCG(seed, 2))
	path := filepath.Join(dir, "x.db")
	copyFile(t, filepath.Join(filepath.Dir(dir), "good.db"), path)
	isOpen := rnd.IntN(2) == 0
	if !isOpen {
		t.Log("closed:", change(t, rnd, path))
	}
	var log bytes.Buffer
	s, err := input.OpenState(path, logTo(&log))
	if err != nil {
		t.Fatal(err)
	}
	if isOpen {
		useState(t, rnd, s, 1)
		t.Log("open:", change(t, rnd, path))
	}
	var last error
	for i := range 4 {
		last = useState(t, rnd, s, 2+i)
	}
	if last == nil {
		for i := range 5 {
			v, err := s.Get("blob", goodKey(i))
			if want := goodValue("blob", goodKey(i), 5); err != nil || !bytes.Equal(v, want) {
				t.Errorf("%q after %q was written, %v", v, want, err)
			}
		}
	} else if !strings.Contains(log.String(), "cannot be replaced") {
		t.Errorf("it does not store, and has not said so: %v", last)
	}
	if err := s.Close(); err != nil {
		t.Log("close:", err)
	}
	s, err = input.OpenState(path, logTo(&log))
	if err != nil {
		t.Fatal(err)
	}
	useState(t, rnd, s, 6)
	s.Close()
	end := "unharmed"
	switch {
	case strings.Contains(log.String(), "cannot be replaced"):
		end = "given-up"
	case strings.Contains(log.String(), "is damaged"):
		end = "salvaged"
	}
	if t.Failed() {
		t.Log(log.String())
	}
	b, _ := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(b), "VmHWM:")
	fmt.Println("END", end, strings.Fields(after + " 0")[0])
}

// useState reads all and writes some, as the sources do. It returns the last error.
func useState(t *testing.T, rnd *rand.Rand, s *input.State, n int) (last error) {
	t.Helper()
	for _, bucket := range []string{"blob", "devices"} {
		err := s.Each(bucket, "", func(key, value []byte) error {
			if want := goodValue(bucket, string(key), 0)[:8]; !bytes.HasPrefix(value, want) {
				t.Errorf("%s has %.100q, which was never written", key, value)
			}
			return nil
		})
		last = errors.Join(last, err)
		var changes []input.Change
		for i := range 5 {
			changes = append(changes, input.Change{Key: goodKey(i), Value: goodValue(bucket, goodKey(i), n)})
		}
		for range 100 {
			key := goodKey(rnd.IntN(2 * goodKeys))
			changes = append(changes, input.Change{Key: key, Value: goodValue(bucket, key, n)})
		}
		for range 20 {
			changes = append(changes, input.Change{Key: goodKey(5 + rnd.IntN(goodKeys))})
		}
		last = errors.Join(last, s.Write(bucket, changes))
		_, err = s.Get(bucket, goodKey(rnd.IntN(goodKeys)))
		last = errors.Join(last, err)
	}
	return last
}

// change changes the file in place and tells how.
func change(t *testing.T, rnd *rand.Rand, path string) string {
	t.Helper()
	const page = 4096
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	size := info.Size()
	pages := size / page
	read := func(at int64) []byte {
		b := make([]byte, page)
		_, _ = f.ReadAt(b, at)
		return b
	}
	write := func(at int64, b []byte) {
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	switch rnd.IntN(8) {
	case 0:
		at := rnd.Int64N(pages) * page
		write(at, make([]byte, page))
		return fmt.Sprint("a page of zeros at ", at)
	case 1:
		a, b := rnd.Int64N(pages)*page, rnd.Int64N(pages)*page
		pa, pb := read(a), read(b)
		write(a, pb)
		write(b, pa)
		return fmt.Sprint("pages swapped: ", a, " ", b)
	case 2:
		to := rnd.Int64N(size)
		if err := f.Truncate(to); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint("cut at ", to, " of ", size)
	case 3:
		copyFile(t, filepath.Join(filepath.Dir(filepath.Dir(path)), "old.db"), path)
		return "overwritten by an old copy"
	}
	n := 1 + rnd.IntN(64)
	if rnd.IntN(2) == 0 {
		n = 1 + rnd.IntN(3)
	}
	what := "bytes"
	for range n {
		at := rnd.Int64N(size)
		switch rnd.IntN(4) {
		case 0: // where a page tells what it is
			at = rnd.Int64N(pages)*page + rnd.Int64N(16)
		case 1: // where it tells what is where
			at = rnd.Int64N(pages)*page + rnd.Int64N(200)
		case 2: // in the first page
			at = rnd.Int64N(200)
		}
		b := read(at)[:1]
		switch rnd.IntN(3) {
		case 0:
			b[0] ^= 1 << rnd.IntN(8)
		case 1:
			b[0] = byte(rnd.Uint32())
		default:
			b[0] = 0xff
		}
		write(at, b)
		what += fmt.Sprintf(" %d=%d", at, b[0])
	}
	return what
}
