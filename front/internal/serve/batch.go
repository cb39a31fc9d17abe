package serve

import (
	"io"
	"sync"
	"time"
)

const (
	batchTime = 10 * time.Millisecond
	batchSize = 64 << 10
)

// batch gathers lines for a moment, so that a busy front does not pay a system
// call for each. What it cannot write is lost: a log that is full must not
// stop the site.
type batch struct {
	w io.Writer

	mu    sync.Mutex
	buf   []byte // guarded by mu, with what follows
	timer *time.Timer
	set   bool // the timer runs
}

// append adds a line.
func (b *batch) append(line func([]byte) []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = line(b.buf)
	switch {
	case len(b.buf) >= batchSize:
		b.flush()
	case !b.set && b.timer == nil:
		b.set, b.timer = true, time.AfterFunc(batchTime, b.Flush)
	case !b.set:
		b.set = true
		b.timer.Reset(batchTime)
	}
}

// Flush writes what has been gathered.
func (b *batch) Flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set = false
	b.flush()
}

func (b *batch) flush() {
	if len(b.buf) > 0 {
		_, _ = b.w.Write(b.buf)
		b.buf = b.buf[:0]
	}
}
