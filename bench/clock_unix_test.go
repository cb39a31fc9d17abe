//go:build unix

package bench

import (
	"syscall"
	"time"
)

// spent is the processor time that this process has had: on a machine that
// others use too it says more than the time on the wall.
func spent() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // only for arguments that do not exist
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
