package redistest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy forwards connections to a server and makes trouble on request. A new
// one forwards faithfully.
type Proxy struct {
	tb     testing.TB
	target string
	addr   string
	wg     sync.WaitGroup

	mu      sync.Mutex // guards all below
	changed *sync.Cond // of mu: a mode or a connection has changed
	listen  net.Listener
	conns   map[net.Conn]bool
	closed  bool
	held    [2]bool // by direction: bytes wait
	lossy   bool    // bytes vanish
	delay   time.Duration
	replies int64 // bytes that have come back from the server
}

// The directions of Proxy.held.
const (
	toServer = iota
	toClient
)

// StartProxy listens on a free loopback port for connections to target, until
// the test ends.
func StartProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	p := &Proxy{tb: tb, target: target, addr: "127.0.0.1:0", conns: make(map[net.Conn]bool)}
	p.changed = sync.NewCond(&p.mu)
	p.Restore()
	tb.Cleanup(p.close)
	return p
}

// Addr is host:port. It stays the same through Cut and Restore.
func (p *Proxy) Addr() string { return p.addr }

// URL is a redis:// URL for Addr.
func (p *Proxy) URL() string { return "redis://" + p.addr }

// Cut ends every connection and refuses new ones.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listen != nil {
		_ = p.listen.Close()
		p.listen = nil
	}
	p.drop()
}

// Drop ends every connection; new ones are served.
func (p *Proxy) Drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop()
}

func (p *Proxy) drop() {
	for c := range p.conns {
		_ = c.Close()
	}
	clear(p.conns)
	p.changed.Broadcast()
}

// Hold makes a black hole: connections stay open and are accepted, and no byte
// passes in either direction. What waits is delivered by Restore.
func (p *Proxy) Hold() { p.hold(true, true) }

// HoldReplies lets commands through and keeps their answers.
func (p *Proxy) HoldReplies() { p.hold(false, true) }

func (p *Proxy) hold(server, client bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held[toServer], p.held[toClient] = server, client
}

// Lose makes a black hole that swallows: connections stay open and are
// accepted, and what is sent in either direction is lost. A connection that has
// lost something stays useless after Restore, as one does that a firewall has
// forgotten.
func (p *Proxy) Lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lossy = true
}

// Delay makes every piece of data wait for d, in each direction.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Restore ends Cut, Hold, HoldReplies, Lose and Delay.
func (p *Proxy) Restore() {
	p.tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = [2]bool{}
	p.lossy = false
	p.delay = 0
	p.changed.Broadcast()
	if p.listen != nil || p.closed {
		return
	}
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		p.tb.Errorf("proxy: %v", err)
		return
	}
	p.listen, p.addr = l, l.Addr().String()
	p.wg.Go(func() { p.accept(l) })
}

// Conns is the number of connections open to the server.
func (p *Proxy) Conns() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns) / 2
}

// Replies is the number of bytes that have come back from the server, held ones
// included: if it does not change, no answer did.
func (p *Proxy) Replies() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.replies
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	if p.listen != nil {
		_ = p.listen.Close()
	}
	p.drop()
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *Proxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		if p.listen != l {
			_ = client.Close()
			_ = server.Close()
		} else {
			p.conns[client], p.conns[server] = true, true
			p.wg.Go(func() { p.forward(server, client, toServer) })
			p.wg.Go(func() { p.forward(client, server, toClient) })
		}
		p.mu.Unlock()
	}
}

// forward copies until either side ends.
func (p *Proxy) forward(dst, src net.Conn, direction int) {
	defer func() {
		_ = dst.Close()
		_ = src.Close()
		p.mu.Lock()
		delete(p.conns, dst)
		delete(p.conns, src)
		p.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 && p.pass(dst, direction, n) {
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass waits until n bytes may go on to dst, and reports whether they reach it.
func (p *Proxy) pass(dst net.Conn, direction, n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if direction == toClient {
		p.replies += int64(n)
	}
	if d := p.delay; d > 0 {
		end := time.Now().Add(d)
		timer := time.AfterFunc(d, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.changed.Broadcast()
		})
		defer timer.Stop()
		for time.Now().Before(end) && p.conns[dst] {
			p.changed.Wait()
		}
	}
	for p.held[direction] && p.conns[dst] {
		p.changed.Wait()
	}
	return p.conns[dst] && !p.lossy
}
