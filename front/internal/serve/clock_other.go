//go:build !linux

package serve

// monotonic is for systemd, which is not here.
func monotonic() string { return "0" }
