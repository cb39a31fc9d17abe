package signintest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// Network gives servers on loopback the host names they have in production,
// with certificates to match, for clients that ask it. So a test can run an
// issuer at https://login.microsoftonline.com and an application at
// https://app.example.test, cross-site as they should be. Nothing ever leaves
// loopback: a host that was not entered cannot be reached.
type Network struct {
	tb   testing.TB
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool

	client *http.Client

	mu    sync.Mutex
	hosts map[string]string // "host:port" to the listener's address
}

// NewNetwork makes a network that ends with the test.
func NewNetwork(tb testing.TB) *Network {
	tb.Helper()
	n := &Network{tb: tb, pool: x509.NewCertPool(), hosts: map[string]string{}}
	var err error
	if n.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		tb.Fatalf("signintest: making a key: %v", err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "signintest"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, n.key.Public(), n.key)
	if err != nil {
		tb.Fatalf("signintest: making a certificate authority: %v", err)
	}
	if n.ca, err = x509.ParseCertificate(der); err != nil {
		tb.Fatalf("signintest: making a certificate authority: %v", err)
	}
	n.pool.AddCert(n.ca)
	transport := n.transport(&tls.Config{RootCAs: n.pool})
	n.client = &http.Client{Transport: transport}
	tb.Cleanup(transport.CloseIdleConnections)
	return n
}

// Client returns an HTTP client that reaches the network's hosts and loopback
// addresses, and trusts the network's certificates.
func (n *Network) Client() *http.Client {
	c := *n.client
	return &c
}

// Serve starts a server for an origin, such as https://app.example.test, and
// returns the URL it is reached at. A path in rawURL is kept in what is returned and
// otherwise ignored. A loopback host without a port gets that of the
// listener, and is then reached by any client. Serve fails the test if it cannot
// listen. The server stops when the test ends.
func (n *Network) Serve(rawURL string, h http.Handler) string {
	n.tb.Helper()
	u, err := url.Parse(rawURL)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		n.tb.Fatalf("signintest: cannot serve %q: want an http or https URL", rawURL)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(quiet{os.Stderr}, "", log.LstdFlags)
	if u.Scheme == "https" {
		srv.TLS = &tls.Config{Certificates: []tls.Certificate{n.certificate(u.Hostname())}}
		srv.StartTLS()
	} else {
		srv.Start()
	}
	n.tb.Cleanup(srv.Close)
	addr := srv.Listener.Addr().String()
	if isLoopback(u.Hostname()) && u.Port() == "" {
		_, port, _ := net.SplitHostPort(addr)
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[hostPort(u)] = addr
	return u.String()
}

// quiet drops the lines about handshakes that were given up, which clients do
// all the time; what remains, a panic above all, is worth reading.
type quiet struct{ w io.Writer }

func (q quiet) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("TLS handshake error")) {
		return len(line), nil
	}
	return q.w.Write(line)
}

// Map enters a server that runs already: requests for the host of rawURL go
// to the loopback address addr ("127.0.0.1:port"). Its certificate, if any,
// must be trusted by the client; a [Browser] trusts all.
func (n *Network) Map(rawURL, addr string) {
	n.tb.Helper()
	u, err := url.Parse(rawURL)
	host, _, addrErr := net.SplitHostPort(addr)
	if err != nil || u.Hostname() == "" || addrErr != nil || !isLoopback(host) {
		n.tb.Fatalf("signintest: cannot map %q to %q: want a URL and a loopback address", rawURL, addr)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[hostPort(u)] = addr
}

func (n *Network) certificate(host string) tls.Certificate {
	n.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		n.tb.Fatalf("signintest: making a key: %v", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: host},
		NotBefore:    n.ca.NotBefore,
		NotAfter:     n.ca.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, n.ca, key.Public(), n.key)
	if err != nil {
		n.tb.Fatalf("signintest: making a certificate for %s: %v", host, err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (n *Network) transport(config *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext:         n.dial,
		TLSClientConfig:     config,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     time.Minute,
	}
}

func (n *Network) dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	mapped, ok := n.hosts[strings.ToLower(address)]
	n.mu.Unlock()
	if ok {
		address = mapped
	} else if host, port, err := net.SplitHostPort(address); err != nil || !isLoopback(host) {
		return nil, fmt.Errorf("signintest: %s is not in the test's network", address)
	} else if host == "localhost" {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// hostPort returns what a transport dials for a URL.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}
