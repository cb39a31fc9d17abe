package serve

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// monotonic is the time that systemd tells reloads apart by.
func monotonic() string {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return strconv.FormatInt(t.Nano()/1000, 10)
}
