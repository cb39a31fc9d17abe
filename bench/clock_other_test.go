//go:build !unix

package bench

import "time"

// spent is the time on the wall, where that of the processor is not to be had.
func spent() time.Duration { return time.Since(epoch) }
