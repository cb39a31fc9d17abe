package main

import (
	"fmt"
	"net"
	"testing"
	"time"
)

// Whoever has not signed in cannot hold a connection with a form that never
// ends, on any path.
func TestUnfinishedForms(t *testing.T) {
	t.Parallel() // waits for as long as a form may take
	f := start(t, ok, "-allow-anyone")
	var conns []net.Conn
	for _, path := range []string{"/oidc/callback", "/oidc/login", "/oidc/backchannel-logout", "/oidc/frontchannel-logout", "/oidc/signed-out", "/oidc/signout", "/upload"} {
		for _, header := range []string{"Accept: text/html", "Sec-Fetch-Site: cross-site", "Upgrade: h2c", "Upgrade: websocket\nOrigin: https://evil.example"} {
			conn, _ := f.raw(fmt.Sprintf("POST %s HTTP/1.1\nHost: %s\n%s\nContent-Type: application/x-www-form-urlencoded\nContent-Length: 1000\n\na", path, f.host, header))
			conns = append(conns, conn)
		}
	}
	deadline := time.Now().Add(strangersBody + 10*time.Second)
	for i, conn := range conns {
		_ = conn.SetReadDeadline(deadline)
		n, err := conn.Read(make([]byte, 1))
		if e, ok := err.(net.Error); ok && e.Timeout() {
			t.Errorf("connection %d is still held (read %d)", i, n)
		}
	}
}

// An upload of a user's may take as long as it takes.
func TestUploadOfAUser(t *testing.T) {
	t.Parallel()
	f := start(t, ok, "-allow-anyone")
	f.signIn()
	conn, _ := f.raw("POST /upload HTTP/1.1\nHost: " + f.host + "\nCookie: " + f.cookies() + "\nContent-Length: 2\n\na")
	timer := time.NewTimer(strangersBody + time.Second)
	defer timer.Stop()
	<-timer.C
	if _, err := conn.Write([]byte("b")); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	line := make([]byte, 12)
	if _, err := conn.Read(line); err != nil || string(line) != "HTTP/1.1 200" {
		t.Errorf("%q, %v; want 200", line, err)
	}
}
