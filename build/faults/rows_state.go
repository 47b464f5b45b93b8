package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Faults of the machine: the state file's disk, the clock, memory; and of what stands beside the
// sources.
var stateRows = []*row{
	{
		name: "state-full", fault: "state file on a full disk: while running, and at start", source: "hub and blob", hosts: both, needs: unshare,
		script: func(r *run) {
			r.startHub(4)
			r.startBlob()
			disk := &disk{dir: filepath.Join(r.dir, "small"), options: "size=8m"} // the ids of the records alone take more than 640 kB
			h := r.host(merge(r.hubSection(), r.blobSection()).with("db", disk.dir+"/state.db").with("blob.containers", "insights-logs-advancedhunting-*"))
			h.disk = disk
			var containers []string
			for n := range 12 {
				containers = append(containers, fmt.Sprintf("%s%d", blobContainer, n))
				r.blob.CreateContainer(containers[n])
			}
			h.start()
			f := r.feedHub(20_000, 12*time.Second)
			g := r.feedBlob(20_000, 12*time.Second)
			r.sleep(3 * time.Second)
			fill := h.outside(disk.dir + "/fill")
			if err := fillDisk(fill); err != nil {
				r.fatalf("%v", err)
			}
			// Blobs that are new now need room in the file.
			for hour := range 40 {
				for _, c := range containers {
					if err := r.toBlobIn(c, blobName(time.Now().Add(-time.Duration(hour)*time.Hour)), 5); err != nil {
						r.fatalf("%v", err)
					}
				}
			}
			h.expectLog("no space left on device")
			r.sleep(5 * time.Second)
			if err := os.Remove(fill); err != nil {
				r.fatalf("%v", err)
			}
			r.ledger.heal()
			h.expectLog("works again")
			f.wait(r)
			g.wait(r)
			r.drain()
			h.stop()

			disk.before = "cat /dev/zero > fill 2>/dev/null || true"
			h.start()
			r.until(20*time.Second, "the host to refuse to start", func() bool { return !h.running() || h.real })
			h.expectLog("open state file " + disk.dir + "/state.db: ")
			if h.running() {
				h.kill()
			}
			r.finish()
		},
	},
	{
		name: "state-readonly", fault: "state file read-only at start: refused, then mended", source: "hub and blob", hosts: cHost, needs: unshare,
		script: func(r *run) {
			h := r.host(merge(r.startHub(4), r.startBlob()))
			h.start()
			f := r.feedHub(10_000, 4*time.Second)
			g := r.feedBlob(10_000, 4*time.Second)
			r.sleep(2 * time.Second)
			h.stop()
			dir := filepath.Join(r.dir, "readonly")
			mended := h.sections[0]
			h.disk = &disk{dir: dir, options: "size=1m", before: fmt.Sprintf("touch state.db; mount -o remount,ro '%s'", dir)}
			h.sections[0] = mended.with("db", dir+"/state.db")
			h.start()
			r.until(20*time.Second, "the host to refuse to start", func() bool { return !h.running() })
			h.expectLog("read-only file system")
			h.disk, h.sections[0] = nil, mended
			r.ledger.heal()
			h.start()
			r.finish(f, g)
		},
	},
	{
		name: "state-damaged", fault: "state file damaged: cut, overwritten, emptied; blobs are read again", source: "hub and blob", hosts: cHost,
		script: func(r *run) {
			h := r.host(merge(r.startHub(4), r.startBlob()))
			h.start()
			f := r.feedHub(20_000, 20*time.Second)
			g := r.feedBlob(20_000, 20*time.Second)
			path := h.sections[0]["db"]
			for n, damage := range []func(size int64) error{
				func(size int64) error { return os.Truncate(path, size/3) },
				func(size int64) error {
					b, err := os.ReadFile(path)
					for i := range b {
						b[i] ^= byte(r.rnd.Uint32())
					}
					return errors.Join(err, os.WriteFile(path, b, 0o600))
				},
				func(size int64) error { // a page that is in use, as a disk loses one
					b, err := os.ReadFile(path)
					if err == nil && len(b) < 2*statePage {
						err = errors.New("it is too short")
					}
					if err != nil {
						return err
					}
					clear(b[statePage : 2*statePage])
					return os.WriteFile(path, b, 0o600)
				},
				func(int64) error { return os.Truncate(path, 0) },
			} {
				r.sleep(4 * time.Second)
				h.crash()
				info, err := os.Stat(path)
				if err == nil {
					err = damage(info.Size())
				}
				if err != nil {
					r.fatalf("damage the state file: %v", err)
				}
				h.again()
				if !h.running() {
					r.fatalf("damage %d: the host did not start:\n%s", n, h.lastLog(5))
				}
			}
			r.finish(f, g)
			if n := strings.Count(h.log(), "state file is damaged"); n < 3 {
				r.failf("the log says %d times that the state file is damaged, want at least 3", n)
			}
		},
	},
	{
		name: "state-cut-open", fault: "state file cut while it is open", source: "hub and blob", hosts: both,
		script: func(r *run) {
			r.stateRow(func(path string, _ []byte) error { return os.Truncate(path, statePage) }, false, "state file is damaged")
		},
	},
	{
		name: "state-overwritten-open", fault: "state file overwritten with an older one while it is open", source: "hub and blob", hosts: both,
		script: func(r *run) {
			r.stateRow(func(path string, old []byte) error { return os.WriteFile(path, old, 0o600) }, false, "another program")
		},
	},
	{
		name: "state-one-byte", fault: "one byte of the state file changed, between two starts", source: "hub and blob", hosts: both,
		script: func(r *run) {
			r.stateRow(func(path string, _ []byte) error {
				f, err := os.OpenFile(path, os.O_RDWR, 0)
				if err != nil {
					return err
				}
				_, err = f.WriteAt([]byte{0xff}, statePage+5) // where the content of the table's first page begins
				return errors.Join(err, f.Close())
			}, true, "state file is damaged")
		},
	},
	{
		name: "state-lost-latest", fault: "state file deleted, blob.start latest: what was not read by then is not read", source: "blob", hosts: cHost,
		excuse: "older than the new start",
		script: func(r *run) {
			h := r.host(r.startBlob().with("blob.start", "latest"))
			h.start()
			h.expectLog("starting version")
			r.sleep(3 * time.Second)
			if err := r.toBlob(5_000); err != nil {
				r.fatalf("%v", err)
			}
			r.drain()
			h.stop()
			first := r.ledger.count().in
			if err := r.toBlob(1_000); err != nil {
				r.fatalf("%v", err)
			}
			var between []int
			for n := first; n < r.ledger.count().in; n++ {
				between = append(between, n)
			}
			if err := os.Remove(h.sections[0]["db"]); err != nil {
				r.fatalf("%v", err)
			}
			h.start()
			r.sleep(3 * time.Second)
			r.ledger.excuse(between)
			if err := r.toBlob(5_000); err != nil {
				r.fatalf("%v", err)
			}
			r.finish()
		},
	},
	{
		name: "clock", fault: "clock stepped back an hour", source: "hub and blob", hosts: both,
		script: func(r *run) {
			r.startHub(4)
			r.startBlob()
			// Go reads the clock without the C library, so the step is built into a copy of its
			// package time: an hour ahead for the first 8 seconds of the process, then right.
			h := r.patchedHost("clock", []patch{{"go:time/time.go", "	sec, nsec, mono := runtimeNow()\n	if mono == 0 {",
				"	sec, nsec, mono := runtimeNow()\n	if mono-startNano < 8e9 {\n		sec += 3600\n	}\n	if mono == 0 {"}},
				merge(r.hubSection(), r.blobSection().with("blob.auth", "sas").with("blob.account_url", r.blob.URL()).
					with("blob.connection_string", "").with("blob.sas_token", r.sas())))
			h.start()
			f := r.feedHub(30_000, 16*time.Second)
			g := r.feedBlob(30_000, 16*time.Second)
			r.sleep(8 * time.Second)
			r.ledger.heal()
			r.sleep(6 * time.Second)
			h.crash()
			h.again() // and the clock steps again
			r.finish(f, g)
		},
	},
	{
		name: "memory-64M", fault: "messages of 1 MB only, the output slow, memory_limit 64M", source: "hub", hosts: cHost,
		script: func(r *run) { r.startHub(4); r.memoryRow(64<<20, false) },
	},
	{
		name: "memory-256M", fault: "messages of 1 MB only, the output slow, memory_limit 256M", source: "hub", hosts: cHost,
		script: func(r *run) { r.startHub(4); r.memoryRow(256<<20, false) },
	},
	{
		name: "memory-both", fault: "messages of 1 MB only and many blobs, the output slow, memory_limit 64M", source: "hub and blob", hosts: cHost, ci: true,
		script: func(r *run) { r.startHub(4); r.startBlob(); r.memoryRow(64<<20, true) },
	},
	{
		name: "api-hangs", fault: "the machines API hangs: nobody answers, once it is signed in to", source: "hub", hosts: cHost,
		script: func(r *run) {
			r.startHub(4)
			hang := make(chan struct{})
			var asked atomic.Int64
			api := r.machinesAPI(func(_ http.ResponseWriter, q *http.Request) {
				asked.Add(1)
				select {
				case <-hang:
				case <-q.Context().Done():
				}
			})
			r.cleanup(func() { close(hang) })
			h := r.host(merge(r.hubSection(), api))
			h.start()
			r.finish(r.feedHub(20_000, 5*time.Second))
			if asked.Load() == 0 {
				r.failf("the API was never asked: the row shows nothing")
			}
		},
	},
}

// stateRow changes the state file under load: while it is open, or after a crash. The host
// continues, says so, and starts again. old is the file as it was some seconds before.
func (r *run) stateRow(change func(path string, old []byte) error, closed bool, says string) {
	h := r.host(merge(r.startHub(4), r.startBlob()))
	h.start()
	f := r.feedHub(20_000, 20*time.Second)
	g := r.feedBlob(20_000, 20*time.Second)
	path := h.sections[0]["db"]
	r.sleep(3 * time.Second)
	old, err := os.ReadFile(path)
	if err != nil {
		r.fatalf("read the state file: %v", err)
	}
	r.sleep(4 * time.Second)
	if closed {
		h.crash()
	}
	// A change in the middle of a write of the plugin's may be overwritten by that. The write takes
	// some milliseconds, more on a slow disk, and comes five times a second.
	for tries := 0; tries == 0 || !closed && tries < 5 && !strings.Contains(h.log(), says); tries++ {
		if err := change(path, old); err != nil {
			r.fatalf("change the state file: %v", err)
		}
		if !closed {
			r.sleep(1500 * time.Millisecond)
		}
	}
	if closed {
		h.again()
	}
	h.expectLog(says)
	r.sleep(8 * time.Second)
	if !h.running() {
		r.fatalf("the host has ended:\n%s", h.lastLog(20))
	}
	h.crash()
	h.again()
	r.finish(f, g)
}

// beside is the memory that the process of the C host may take beside memory_limit: the host
// itself, and the data of the libraries.
const beside = 16 << 20

// memoryRow fills the plugin's memory: nothing is taken for a while, then slowly.
func (r *run) memoryRow(limit int64, blobs bool) {
	s := r.hubSection()
	if blobs {
		s = merge(s, r.blobSection())
	}
	// Without devices all of the memory is for events.
	h := r.host(s.with("memory_limit", fmt.Sprint(limit)).with("device_info", "off"))
	h.flags = []string{"-refuse-between", "0,12", "-slow", "20"}
	for range 2 + 3*int(limit>>20) { // three times the bytes that may be held
		if err := r.produce(hubName, r.gen.envelopeOf(1_000_000)); err != nil {
			r.fatalf("%v", err)
		}
	}
	if blobs {
		for hour := range 24 {
			if err := r.toBlobNamed(blobName(time.Now().Add(-time.Duration(hour)*time.Hour)), 2_000); err != nil {
				r.fatalf("%v", err)
			}
		}
	}
	h.start()
	h.expectLog("partitions assigned")
	r.sleep(11 * time.Second)
	epoch := r.hub.GroupInfo(group).Epoch
	r.sleep(32 * time.Second) // longer than the session timeout, with partitions paused
	r.finish()
	peak := h.peak().private
	r.notef("at most %d MB beside mapped files", peak>>20)
	if peak > limit+beside {
		r.failf("the process took %d MB, more than memory_limit (%d MB) and the %d MB that are allowed for the host", peak>>20, limit>>20, beside>>20)
	}
	if strings.Contains(h.log(), "consumer group was lost") || strings.Count(h.log(), "partitions assigned") > 1 {
		r.failf("the membership in the group was lost while partitions were paused, epoch %d", epoch)
	}
}

// statePage is the size of SQLite's pages. The table is the first that was made: its root is the
// second page.
const statePage = 4096

// fillDisk writes zeros until there is no more room.
func fillDisk(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	defer f.Close()
	for b := make([]byte, 4096); ; {
		if _, err := f.Write(b); errors.Is(err, syscall.ENOSPC) {
			return nil
		} else if err != nil {
			return fmt.Errorf("fill the disk: %w", err)
		}
	}
}

// sas is a shared access signature that the fake accepts for a day.
func (r *run) sas() string {
	const signature = "c2lnbmF0dXJlLXRoYXQtbm9ib2R5LW1heS1wcmludA%3D%3D"
	r.secrets = append(r.secrets, signature)
	return "sv=2024-11-04&ss=b&srt=sco&sp=rl&se=" + time.Now().Add(24*time.Hour).UTC().Format(time.RFC3339) + "&sig=" + signature
}
