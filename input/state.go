package input

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"modernc.org/sqlite"
)

const (
	// lockWait is how long OpenState waits for another holder of the file. In that time the
	// instance that a hot reload replaces lets go of it. And it is short enough for a clear error
	// at start.
	lockWait = 3 * time.Second

	// healPause is the least time between two tries to begin a new file. It is also the least time
	// between two checks of a file into which another program has written.
	healPause = 30 * time.Second

	// The longest key and value that are stored. A blob's name has at most 1,024 characters.
	maxKey   = 8 << 10
	maxValue = 1 << 20

	// An entry takes at least this much of the file: bucket, key and checksum, and the header of a
	// record (sqlite.org/fileformat.html, 2.1).
	leastEntry = 12

	pageBytes = 1 << 20 // Each reads about this much at once
)

// State is the state file (setting db): positions, a copy of Event Hubs offsets, a snapshot of
// devices. It is an SQLite database of one table. After a crash a write is there whole or not at
// all. A lock keeps a second process out. SQLite reads the file, and does not map it: see doc.go
// for why.
//
// The disk may be damaged, and other programs may write into the file, at any time. A damaged file
// is set aside, and a new one is begun with all of its entries that can still be read. When that
// fails, the state is given up with an error in the log, and tried again after a while. Nobody who
// uses a State has to know.
//
// Without the setting db the *State is nil: it holds nothing and takes every write.
type State struct {
	path    string
	log     *slog.Logger
	skipped atomic.Int64

	mu     sync.Mutex // one access at a time
	db     *database  // nil after it was given up
	err    error      // why db is nil
	tried  time.Time  // when a new file was last begun, or tried to
	late   bool       // a write by another program, or late times of the file system, was logged
	ruined bool       // SQLite has panicked: nothing more is asked of it in this process
}

// database is an open file.
type database struct {
	*sql.DB
	get, page, put, remove *sql.Stmt
	seen                   os.FileInfo // its form after our last access
}

var (
	errDamaged = errors.New("damaged")
	errInUse   = errors.New("in use")
	errForeign = errors.New("foreign")
	errGone    = errors.New("the file was moved, deleted or overwritten by another program")
	errClosed  = errors.New("state file is closed")
	errNoFile  = errors.New("no file")
)

// createTable makes the one table. A file with another schema, or with anything beside it, is not
// ours: views and triggers are programs that may never end.
const createTable = `create table if not exists defender_state
		(bucket text not null, key text not null, value blob not null, crc integer not null, primary key (bucket, key)) without rowid`

// OpenState opens the file, and makes it if it does not exist. A damaged file is renamed, with an
// error in the log, and a new one begun with its readable entries. A file of an earlier version,
// which kept a bbolt database, is converted once; the old one stays beside it.
func OpenState(path string, log *slog.Logger) (*State, error) {
	s := &State{path: path, log: log}
	err := regular(path)
	if err == nil {
		err = convert(path, log)
	}
	if err != nil {
		return nil, explainOpen(path, err)
	}
	db, err := open(path)
	switch {
	case err == nil:
		s.db = db
		return s, nil
	case !errors.Is(err, errDamaged):
		return nil, explainOpen(path, err)
	case isText(path):
		return nil, fmt.Errorf("open state file %s: this is a text file, not a state file; change db", path)
	}
	if err := s.replace(err); err != nil {
		return nil, explainOpen(path, err)
	}
	return s, nil
}

func explainOpen(path string, err error) error {
	switch {
	case errors.Is(err, errInUse):
		return fmt.Errorf("open state file %s: it is in use by another process, or by another [INPUT] section; give each its own db", path)
	case errors.Is(err, errForeign):
		return fmt.Errorf("open state file %s: this is a database of another program, not a state file; change db", path)
	case isLink(path) && errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("open state file %s: it is a link to a place that does not exist; remove it, or change db", path)
	case strings.HasSuffix(path, "/"), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		return fmt.Errorf("open state file %s: a file stands for a directory in this path, or a directory for the file; change db to the path of a file", path)
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("open state file %s: the directory %s does not exist; create it or change db", path, filepath.Dir(path))
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("open state file %s: permission denied; Fluent Bit's user must be able to write the file and its directory", path)
	}
	// Not %w: the log takes joined errors apart, and the line would not name the file.
	return fmt.Errorf("open state file %s: %v", path, err)
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&os.ModeSymlink != 0
}

// held lists the files that States of this process have open. Closing any descriptor of a file
// drops the locks that the process has on it (fcntl). So no other code may open such a file, not
// even to read it.
var held struct {
	sync.Mutex
	files map[string]os.FileInfo
}

// hold enters the file, or waits until another State lets go of it.
func hold(path string) error {
	for deadline := time.Now().Add(lockWait); ; time.Sleep(10 * time.Millisecond) {
		held.Lock()
		info, err := os.Stat(path)
		other := false
		for p, f := range held.files {
			other = other || p == path || err == nil && os.SameFile(f, info)
		}
		if !other {
			if held.files == nil {
				held.files = make(map[string]os.FileInfo)
			}
			held.files[path] = info
		}
		held.Unlock()
		if !other {
			return nil
		}
		if time.Now().After(deadline) {
			return errInUse
		}
	}
}

func letGo(path string) {
	held.Lock()
	defer held.Unlock()
	delete(held.files, path)
}

// open opens the database and checks its structure. An error that is errDamaged is of the file's
// content.
func open(path string) (d *database, err error) {
	if err := hold(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			if d != nil && d.DB != nil && !errors.Is(err, errPanic) {
				_ = d.DB.Close()
			}
			d = nil
			letGo(path)
		}
	}()
	if err := regular(path); err != nil {
		return nil, err
	}
	// The system's own errors are clearer than SQLite's.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	_ = f.Close()
	d = &database{}
	err = guard(func() error { return d.open(path) })
	return d, err
}

// regular is an error unless all that SQLite opens beside path, and path itself, are files or not
// there. SQLite would wait for ever for somebody to write into a pipe.
func regular(path string) error {
	for _, suffix := range []string{"", "-journal", "-wal", "-shm"} {
		if info, err := os.Stat(path + suffix); err == nil && !info.Mode().IsRegular() {
			return fmt.Errorf("%w: %s is a directory, a pipe or a device (%v); remove it, or change db", errNoFile, path+suffix, info.Mode().Type())
		}
	}
	return nil
}

// connect opens the file with the pragmas that do not look into it yet. SQLite refuses to read
// anything longer than our entries: it would be held whole.
func connect(path, options string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+options+"&_pragma=cell_size_check(1)&_pragma=mmap_size(0)&_pragma=trusted_schema(0)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(context.Background())
	if err == nil {
		_, err = sqlite.Limit(conn, sqliteLimitLength, maxKey+maxValue+4096)
		err = errors.Join(err, conn.Close())
	}
	return db, err
}

// schema checks the tables that a file declares. ours: it has the table, as we make it. others
// counts what else there is.
func schema(db *sql.DB) (ours bool, others int, err error) {
	rows, err := db.Query("select type, name, coalesce(sql, '') from sqlite_schema")
	if err != nil {
		return false, 0, ofSQLite(err)
	}
	defer rows.Close()
	words := func(text string) string { return strings.ToLower(strings.Join(strings.Fields(text), " ")) }
	want := words(strings.Replace(createTable, "if not exists ", "", 1))
	for rows.Next() {
		var kind, name, text string
		if err := rows.Scan(&kind, &name, &text); err != nil {
			return false, 0, fmt.Errorf("%w: %w", errDamaged, err)
		}
		switch {
		case name != "defender_state":
			others++
		case kind != "table" || words(text) != want:
			return false, 0, fmt.Errorf("%w: defender_state is not as it was made", errDamaged)
		default:
			ours = true
		}
	}
	return ours, others, ofSQLite(rows.Err())
}

func (d *database) open(path string) (err error) {
	if d.DB, err = connect(path, fmt.Sprintf("_pragma=busy_timeout(%d)&_pragma=locking_mode(EXCLUSIVE)", lockWait.Milliseconds())); err != nil {
		return ofSQLite(err)
	}
	// The lock that this takes is kept.
	if _, err = d.Exec("pragma cache_size = -1000; pragma journal_mode = persist; pragma synchronous = full; begin exclusive; commit"); err != nil {
		return ofSQLite(err)
	}
	switch ours, others, err := schema(d.DB); {
	case err != nil:
		return err
	case others > 0 && !ours:
		return errForeign
	case others > 0:
		return fmt.Errorf("%w: something was added to it", errDamaged)
	}
	var verdict string
	if err = d.QueryRow("pragma quick_check(1)").Scan(&verdict); err != nil {
		return ofSQLite(err)
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: %s", errDamaged, verdict)
	}
	if _, err = d.Exec(createTable); err != nil {
		return ofSQLite(err)
	}
	// A look-up holds the entries that it comes by whole.
	var long int
	if err = d.QueryRow("select count(*) from defender_state where octet_length(key) > ? or octet_length(value) > ?", maxKey, maxValue).Scan(&long); err != nil {
		return ofSQLite(err)
	}
	if long > 0 {
		return fmt.Errorf("%w: an entry is longer than any that is stored", errDamaged)
	}
	for _, p := range []struct {
		to   **sql.Stmt
		text string
	}{
		{&d.get, "select value, crc from defender_state where bucket = ? and key = ?"},
		{&d.page, "select key, value, crc from defender_state where bucket = ? and key >= ? order by key"},
		{&d.put, "insert into defender_state values (?, ?, ?, ?) on conflict do update set value = excluded.value, crc = excluded.crc"},
		{&d.remove, "delete from defender_state where bucket = ? and key = ?"},
	} {
		if err == nil {
			*p.to, err = d.Prepare(p.text)
		}
	}
	if err != nil {
		return ofSQLite(err)
	}
	d.seen, err = os.Stat(path)
	return err
}

// SQLite's result codes (sqlite.org/rescode.html).
const (
	sqliteBusy      = 5
	sqliteReadOnly  = 8
	sqliteIOErr     = 10
	sqliteFull      = 13
	sqliteCantOpen  = 14
	sqliteIORead    = 10 | 1<<8
	sqliteShortRead = 10 | 2<<8
	sqliteMoved     = 8 | 4<<8
)

// sqliteLimitLength is the limit of a string, a blob or a row: SQLITE_LIMIT_LENGTH
// (sqlite.org/c3ref/c_limit_attached.html).
const sqliteLimitLength = 0

// ofSQLite tells damage from passing errors, and adds the text that SQLite leaves out.
func ofSQLite(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Code() == sqliteIORead, e.Code() == sqliteShortRead:
		return fmt.Errorf("%w: %w", errDamaged, err)
	case e.Code() == sqliteReadOnly:
		// It could be opened for writing: a changed byte of the header forbids it
		// (sqlite.org/fileformat.html, 1.3.3).
		return fmt.Errorf("%w: %w", errDamaged, err)
	case e.Code() == sqliteMoved:
		return fmt.Errorf("%w: %w", errDamaged, errGone)
	}
	switch e.Code() & 0xff {
	case sqliteBusy:
		return errInUse
	case sqliteFull:
		return fmt.Errorf("%w (%w)", err, syscall.ENOSPC)
	case sqliteReadOnly:
		return fmt.Errorf("%w; the file and its directory must be writable", err)
	case sqliteCantOpen:
		return fmt.Errorf("%w; Fluent Bit's user must be able to make files in its directory", err)
	case sqliteIOErr:
		return err
	}
	// Corrupt, not a database, and other errors that make no sense for correct statements.
	return fmt.Errorf("%w: %w", errDamaged, err)
}

var errPanic = errors.New("panic in SQLite")

// guard runs f. A panic, and a fault at an address that a damaged file made up, are errors.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %w: %v\n%s", errDamaged, errPanic, r, debug.Stack())
		}
	}()
	return f()
}

// isText tells whether the file begins with text: somebody's configuration or log, which must stay
// where it is.
func isText(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := f.Read(head)
	return n > 0 && utf8.Valid(head[:n]) && bytes.IndexByte(head[:n], 0) < 0
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum is the checksum of an entry. SQLite has none of its own.
func sum(bucket, key string, value []byte) int64 {
	c := crc32.Update(0, castagnoli, []byte(bucket+"\x00"+key+"\x00"))
	return int64(crc32.Update(c, castagnoli, value))
}

// use runs f on the database, and once more on a new one if this one is damaged.
func (s *State) use(doing string, f func(*database) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for try := 0; ; try++ {
		if s.db == nil && !s.reopen() {
			return fmt.Errorf("%s state file %s: %w", doing, s.path, s.err)
		}
		err := s.unchanged()
		if err == nil {
			err = guard(func() error { return f(s.db) })
		}
		if err == nil || try > 0 || !errors.Is(err, errDamaged) {
			if err != nil {
				return fmt.Errorf("%s state file %s: %w", doing, s.path, err)
			}
			return nil
		}
		s.drop(err)
		_ = s.replace(err)
	}
}

// unchanged looks for writes of others since our last access. Without one, all that SQLite keeps of
// the file in memory still holds.
func (s *State) unchanged() error {
	now, err := os.Stat(s.path)
	before := s.db.seen
	switch {
	case err != nil, !os.SameFile(now, before), now.Size() < before.Size():
		return fmt.Errorf("%w: %w", errDamaged, errGone)
	case now.Size() == before.Size() && now.ModTime().Equal(before.ModTime()), time.Since(s.tried) < healPause:
		return nil
	}
	// Perhaps only a file system whose times are late: the file is read again, and checked.
	s.tried = time.Now()
	_ = guard(s.db.DB.Close)
	letGo(s.path)
	db, err := open(s.path)
	if err != nil {
		if !errors.Is(err, errDamaged) {
			err = fmt.Errorf("%w: %w", errDamaged, err)
		}
		return err
	}
	s.db = db
	if !s.late {
		s.late = true
		s.log.Warn("another program wrote into the state file: it is read again, and events are repeated if it is an older one; this is logged once", "file", s.path)
	}
	return nil
}

// drop lets go of the database. After a panic SQLite may hold locks of its own, so that even a
// Close could hang.
func (s *State) drop(err error) {
	if s.db == nil {
		return
	}
	if errors.Is(err, errPanic) {
		s.ruined = true
	} else {
		_ = guard(s.db.DB.Close)
	}
	s.db = nil
	letGo(s.path)
}

// reopen tries again to begin a new file after it was given up.
func (s *State) reopen() bool {
	if s.ruined || errors.Is(s.err, errClosed) || time.Since(s.tried) < healPause {
		return false
	}
	s.tried = time.Now()
	db, err := open(s.path)
	if errors.Is(err, errDamaged) {
		return s.replace(err) == nil
	}
	if err != nil {
		s.err = err
		return false
	}
	s.db = db
	s.log.Info("state file can be used again", "file", s.path)
	return true
}

// replace sets the damaged file aside and begins a new one, with all that can be read of the old.
// When it fails, the state is given up until reopen.
func (s *State) replace(damage error) (err error) {
	s.tried = time.Now()
	defer func() {
		if err != nil {
			s.err = errors.Join(err, damage)
			s.log.Error("state file is damaged and cannot be replaced: positions are not stored, and a restart repeats events",
				"file", s.path, "error", s.err)
		}
	}()
	if err := regular(s.path); err != nil {
		return err
	}
	aside := s.path + time.Now().UTC().Format(".damaged-20060102T150405.000")
	if s.ruined {
		return errors.New("SQLite has failed: no state is stored until the next start")
	}
	switch err := os.Rename(s.path, aside); {
	case errors.Is(err, os.ErrNotExist):
		aside = ""
	case err != nil:
		return fmt.Errorf("set damaged state file aside: %w", err)
	}
	_ = os.Remove(s.path + "-journal") // of the damaged file
	db, err := open(s.path)
	if err != nil {
		return err
	}
	s.db, s.err = db, nil
	kept := 0
	if aside != "" {
		kept = s.salvage(aside)
	}
	s.log.Error("state file is damaged: it was set aside and a new one begun; where the new one has no position, the start settings decide",
		"file", s.path, "kept_as", aside, "entries_saved", kept, "error", damage)
	return nil
}

// salvage copies the readable entries of a damaged file: from the first entry on, then from the
// last one back.
func (s *State) salvage(from string) (n int) {
	err := guard(func() error {
		old, err := connect(from, "mode=ro&immutable=1")
		if old != nil {
			defer old.Close()
		}
		if err != nil {
			return err
		}
		if ours, _, err := schema(old); err != nil || !ours {
			return err
		}
		info, err := os.Stat(from)
		if err != nil {
			return err
		}
		for _, order := range []string{"bucket, key", "bucket desc, key desc"} {
			if n, err = s.copyFrom(old, order, n, info.Size()/leastEntry); err == nil {
				break
			}
		}
		return err
	})
	if errors.Is(err, errPanic) {
		s.ruined = true
	}
	return n
}

// copyFrom copies entries in this order until an error, or until there were more than most.
func (s *State) copyFrom(old *sql.DB, order string, n int, most int64) (int, error) {
	rows, err := old.Query("select bucket, key, value, crc from defender_state order by " + order)
	if err != nil {
		return n, err
	}
	defer rows.Close()
	var changes []Change
	last, size := "", 0
	seen := int64(0)
	flush := func() error {
		err := s.db.write(last, changes)
		if err == nil {
			n += len(changes)
		}
		changes, size = changes[:0], 0
		return err
	}
	for rows.Next() {
		var (
			bucket, key string
			value       []byte
			crc         int64
		)
		// Damaged pages may lead to each other, and so to the same entries again and again.
		if seen++; seen > most {
			return n, fmt.Errorf("%w: it leads in a circle", errDamaged)
		}
		if err := rows.Scan(&bucket, &key, &value, &crc); err != nil || sum(bucket, key, value) != crc {
			continue
		}
		if bucket != last || size > pageBytes {
			if err := flush(); err != nil {
				return n, err
			}
			last = bucket
		}
		changes = append(changes, Change{key, value})
		size += len(key) + len(value)
	}
	return n, errors.Join(flush(), rows.Err())
}

// Get returns the value of key, or nil. It is the caller's.
func (s *State) Get(bucket, key string) (value []byte, err error) {
	if s == nil {
		return nil, nil
	}
	err = s.use("read", func(d *database) error {
		value = nil
		var crc int64
		switch err := d.get.QueryRow(bucket, key).Scan(&value, &crc); {
		case errors.Is(err, sql.ErrNoRows):
			return nil
		case err != nil:
			return ofSQLite(err)
		}
		if sum(bucket, key, value) != crc {
			return fmt.Errorf("%w: entry %q of %s differs from its checksum", errDamaged, key, bucket)
		}
		if value == nil {
			value = []byte{}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return value, nil
}

// Each calls f for every key of bucket that begins with prefix, in order. key and value are valid
// only within f, which may use the State. f sees some of the entries that are written meanwhile,
// and not others.
func (s *State) Each(bucket, prefix string, f func(key, value []byte) error) error {
	if s == nil {
		return nil
	}
	from := prefix
	for {
		var page []Change
		err := s.use("read", func(d *database) (err error) {
			page, err = d.read(bucket, from, prefix)
			return err
		})
		if err != nil {
			return err
		}
		for _, c := range page {
			if err := f([]byte(c.Key), c.Value); err != nil {
				return err
			}
		}
		if len(page) == 0 {
			return nil
		}
		from = page[len(page)-1].Key + "\x00" // the smallest key behind it
	}
}

// read returns some entries of bucket, from one key on: none when there are no more with the
// prefix.
func (d *database) read(bucket, from, prefix string) (page []Change, err error) {
	rows, err := d.page.Query(bucket, from)
	if err != nil {
		return nil, ofSQLite(err)
	}
	defer rows.Close()
	for size := 0; size < pageBytes && rows.Next(); {
		var c Change
		var crc int64
		if err := rows.Scan(&c.Key, &c.Value, &crc); err != nil {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
		if !strings.HasPrefix(c.Key, prefix) {
			return page, nil
		}
		if sum(bucket, c.Key, c.Value) != crc || c.Key < from {
			return nil, fmt.Errorf("%w: entry %q of %s differs from its checksum", errDamaged, c.Key, bucket)
		}
		page = append(page, c)
		size += 64 + len(c.Key) + len(c.Value)
	}
	if err := rows.Err(); err != nil {
		return nil, ofSQLite(err)
	}
	return page, nil
}

// Change is one key's new value; a nil Value deletes it.
type Change struct {
	Key   string
	Value []byte
}

// Write makes all changes or none, and returns when they are on disk. A key or value that is too
// long to be stored is left out, counted (Skipped) and said; the others are stored.
func (s *State) Write(bucket string, changes []Change) error {
	if s == nil || len(changes) == 0 {
		return nil
	}
	for _, c := range changes {
		if !c.fits() {
			if n := s.skipped.Add(1); n == 1 {
				s.log.Warn("write the state file: an entry is too long and is left out; later ones are left out without a log line",
					"file", s.path, "bucket", bucket, "key", c.Key[:min(len(c.Key), 100)], "key_bytes", len(c.Key), "value_bytes", len(c.Value))
			}
		}
	}
	return s.use("write", func(d *database) error {
		err := d.write(bucket, changes)
		if now, e := os.Stat(s.path); e == nil {
			d.seen = now
		}
		return err
	})
}

func (c Change) fits() bool { return len(c.Key) <= maxKey && len(c.Value) <= maxValue }

func (d *database) write(bucket string, changes []Change) error {
	if len(changes) == 0 {
		return nil
	}
	tx, err := d.Begin()
	if err != nil {
		return ofSQLite(err)
	}
	defer func() { _ = tx.Rollback() }()
	put, remove := tx.Stmt(d.put), tx.Stmt(d.remove)
	defer put.Close()
	defer remove.Close()
	for _, c := range changes {
		switch {
		case !c.fits():
			continue
		case c.Value == nil:
			_, err = remove.Exec(bucket, c.Key)
		default:
			_, err = put.Exec(bucket, c.Key, c.Value, sum(bucket, c.Key, c.Value))
		}
		if err != nil {
			return ofSQLite(err)
		}
	}
	return ofSQLite(tx.Commit())
}

// Skipped is how many entries were too long to be stored.
func (s *State) Skipped() int64 {
	if s == nil {
		return 0
	}
	return s.skipped.Load()
}

// Close lets go of the file. It waits for reads and writes that are under way.
func (s *State) Close() (err error) {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db != nil {
		err = guard(s.db.DB.Close)
		s.db = nil
		letGo(s.path)
	}
	s.err = errClosed
	return err
}
