package signintest

import (
	"sync/atomic"
	"time"
)

// Clock is a clock that stands still until it is told to move. It may be
// shared by an issuer, a browser and the application under test.
type Clock struct{ unixNano atomic.Int64 }

// NewClock returns a clock that shows the present time, in whole seconds.
func NewClock() *Clock {
	c := &Clock{}
	c.unixNano.Store(time.Now().Truncate(time.Second).UnixNano())
	return c
}

// Now returns what the clock shows.
func (c *Clock) Now() time.Time { return time.Unix(0, c.unixNano.Load()) }

// Advance moves the clock, back too.
func (c *Clock) Advance(d time.Duration) { c.unixNano.Add(int64(d)) }
