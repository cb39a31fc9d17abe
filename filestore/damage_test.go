package filestore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const pageSize = 4096

// filled returns a file with entries of several kinds of pages: inner ones, ones
// that run over, free ones.
func filled(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	s.db.NoSync = true
	for i := range 400 {
		mustSwap(t, s, key(i), nil, strings.Repeat("v", 10+i*17), time.Hour)
	}
	for i := range 100 {
		if err := s.Delete(t.Context(), key(4*i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func key(i int) string { return fmt.Sprintf("s.%043d", i) }

// use opens a file and makes every kind of call. Whatever the file holds, that
// ends in errors at worst.
func use(t *testing.T, file []byte) error {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sessions.db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path)
	if err != nil {
		if after, _ := os.ReadFile(path); !bytes.Equal(after, file) {
			t.Error("a file that is refused was changed")
		}
		// Nothing holds the file: it can be moved away, or put right.
		if _, again := Open(path); again == nil || again.Error() != err.Error() {
			t.Errorf("Open again = %v; want %v", again, err)
		}
		return err
	}
	s.db.NoSync = true
	for i := range 400 {
		if _, _, err := s.Get(t.Context(), key(i)); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	for i := range 10 {
		if _, _, err := s.Swap(t.Context(), key(i*40), nil, []byte("new"), time.Hour); err != nil {
			return errors.Join(err, s.Close())
		}
		if err := s.Delete(t.Context(), key(i*40+5)); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	return s.Close()
}

func wantDamaged(t *testing.T, what string, err error) {
	t.Helper()
	if _, damaged := errors.AsType[*damagedError](err); !damaged || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("%s: %v; want an error that says that it is damaged and what to do", what, err)
	}
}

func TestOpenTruncated(t *testing.T) {
	t.Parallel()
	file := filled(t)
	if err := use(t, file); err != nil {
		t.Fatalf("whole: %v", err)
	}
	high := 0 // what follows has never been written to
	for i := 0; i < len(file); i += pageSize {
		if !bytes.Equal(file[i:i+pageSize], make([]byte, pageSize)) {
			high = i + pageSize
		}
	}
	for _, size := range []int{1, 16, 100, pageSize - 1, pageSize, pageSize + 1, 2*pageSize - 1, 2 * pageSize, 3 * pageSize, 10*pageSize + 100, high / 2, high - pageSize, high - 1} {
		wantDamaged(t, fmt.Sprint("cut to ", size), use(t, file[:size]))
	}
}

func TestOpenSpoiled(t *testing.T) {
	t.Parallel()
	file := filled(t)
	garbage := make([]byte, pageSize)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range garbage {
		garbage[i] = byte(random.Int())
	}
	for name, page := range map[string][]byte{
		"zeroed":     make([]byte, pageSize),
		"all ones":   bytes.Repeat([]byte{0xff}, pageSize),
		"garbage":    garbage,
		"an error's": bytes.Repeat([]byte("<html>error</html>"), pageSize)[:pageSize],
	} {
		refused := 0
		for at := 0; at < len(file) && at < 120*pageSize; at += 3 * pageSize {
			spoiled := bytes.Clone(file)
			copy(spoiled[at:], page)
			if err := use(t, spoiled); err != nil { // a free page does no harm, nor one of two meta pages
				wantDamaged(t, fmt.Sprintf("page %d %s", at/pageSize, name), err)
				refused++
			}
		}
		if refused < 5 {
			t.Errorf("%s: %d files are refused; this test sees nothing", name, refused)
		}
		copied := bytes.Clone(file)
		copy(copied, page)
		copy(copied[pageSize:], page)
		wantDamaged(t, "both meta pages "+name, use(t, copied))
	}
	wantDamaged(t, "no file of bbolt's", use(t, bytes.Repeat([]byte("SQLite format 3\x00"), 1000)))
}

// One wrong byte can make a tree that leads to itself, or a page that is free
// and used.
func TestOpenWrongBytes(t *testing.T) {
	t.Parallel()
	file := filled(t)
	random, refused := rand.New(rand.NewPCG(3, 4)), 0
	for range 150 {
		spoiled := bytes.Clone(file)
		page := random.IntN(len(file)/pageSize) * pageSize
		at := page + random.IntN(16+8*16) // what says where things are stands at the beginning
		spoiled[at] ^= 1 << random.IntN(8)
		if err := use(t, spoiled); err != nil {
			refused++
			wantDamaged(t, fmt.Sprintf("byte %d of page %d", at-page, page/pageSize), err)
		}
	}
	if refused < 15 {
		t.Errorf("%d files of 150 are refused; this test sees nothing", refused)
	}
}

// A file that is cut short under an open store makes the process fault where it
// is mapped. Every call fails from then on, Close included, and none hangs.
func TestTruncatedWhileOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	if err := os.WriteFile(path, filled(t), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, path)
	if err := os.Truncate(path, 2*pageSize); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Swap(t.Context(), key(1), nil, []byte("new"), time.Hour)
	wantDamaged(t, "Swap", err)
	_, _, err = s.Get(t.Context(), key(1))
	wantDamaged(t, "Get", err)
	wantDamaged(t, "Delete", s.Delete(t.Context(), key(1)))
	if err := s.Close(); err != nil {
		wantDamaged(t, "Close", err)
	}
}

func TestOpenWhatIsNoFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, path := range []string{"", dir, "/dev/null", filepath.Join(dir, "missing", "sessions.db")} {
		if s, err := Open(path); err == nil {
			t.Errorf("Open %q succeeds", path)
			_ = s.Close()
		}
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "sessions.db"))
	mustSwap(t, s, "key", nil, "value", time.Hour)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if v, ok, err := s.Get(t.Context(), "key"); err == nil {
		t.Errorf("Get = %q, %t, nil; want an error", v, ok)
	}
	if found, swapped, err := s.Swap(t.Context(), "key", nil, []byte("x"), time.Hour); err == nil {
		t.Errorf("Swap = %q, %t, nil; want an error", found, swapped)
	}
	if err := s.Delete(t.Context(), "key"); err == nil {
		t.Error("Delete = nil; want an error")
	}
}
