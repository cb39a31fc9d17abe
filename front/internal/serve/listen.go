package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// writeTime bounds each write to a client that does not read.
const writeTime = time.Minute

// listener bounds the writes of its connections.
type listener struct {
	net.Listener
	limit time.Duration // of one write
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{c, l.limit}, nil
}

type conn struct {
	net.Conn
	limit time.Duration
}

func (c *conn) Write(p []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// listen opens an address: HOST:PORT, or unix:PATH.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	path, ok := strings.CutPrefix(addr, "unix:")
	if !ok {
		return (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil && stale(ctx, path) {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		l, err = (&net.ListenConfig{}).Listen(ctx, "unix", path)
	}
	if err != nil {
		return nil, err
	}
	// Whoever may connect is trusted: owner and group.
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// stale reports whether a socket is left over from a process that has gone.
func stale(ctx context.Context, path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
	if err == nil {
		c.Close()
		return false
	}
	return true
}

// inherited returns the sockets that systemd hands over (sd_listen_fds(3)), by
// name: the one called "admin" is for the admin listener, any other for the
// site.
func inherited(getenv func(string) string) (site, admin net.Listener, err error) {
	if getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil, nil
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n < 1 || n > 2 {
		return nil, nil, fmt.Errorf("LISTEN_FDS %q: want one socket, or two of which one is named admin", getenv("LISTEN_FDS"))
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	for i := range n {
		f := os.NewFile(uintptr(3+i), "LISTEN_FD_"+strconv.Itoa(i))
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return nil, nil, fmt.Errorf("LISTEN_FDS: socket %d: %w", i, err)
		}
		if i < len(names) && names[i] == "admin" && admin == nil {
			admin = l
		} else if site == nil {
			site = l
		} else {
			return nil, nil, errors.New("LISTEN_FDNAMES: two sockets for the site; want one named admin")
		}
	}
	return site, admin, nil
}

// notify tells systemd about our state (sd_notify(3)). Nobody listening is
// fine.
func notify(getenv func(string) string, state string) {
	path := getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:]
	}
	c, err := (&net.Dialer{Timeout: time.Second}).Dial("unixgram", path)
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(state))
}
