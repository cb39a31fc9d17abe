package command_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/front/internal/fronttest"
)

// authority is an ACME server (RFC 8555) that believes every signature, but
// looks at the site by TLS-ALPN (RFC 8737) before it issues a certificate.
type authority struct {
	*httptest.Server
	site string // where the site listens
	key  *ecdsa.PrivateKey
	cert *x509.Certificate

	mu     sync.Mutex
	orders int
	domain string
	valid  bool
	chain  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key}
	a.cert, _ = x509.ParseCertificate(der)
	a.Server = httptest.NewTLSServer(a)
	t.Cleanup(a.Close)
	return a
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Replay-Nonce", rand.Text())
	w.Header().Set("Content-Type", "application/json")
	var jws struct{ Payload string }
	raw, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(raw, &jws)
	payload, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
	say := func(status int, body map[string]any) {
		w.Header().Set("Location", a.URL+"/order")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
	state := map[bool]string{false: "pending", true: "valid"}[a.valid]
	order := map[string]any{"status": map[bool]string{false: "pending", true: "ready"}[a.valid], "identifiers": []any{map[string]string{"type": "dns", "value": a.domain}},
		"authorizations": []string{a.URL + "/authz"}, "finalize": a.URL + "/finalize"}
	if a.chain != nil {
		order["status"], order["certificate"] = "valid", a.URL+"/cert"
	}
	challenge := map[string]any{"type": "tls-alpn-01", "url": a.URL + "/challenge", "token": "token", "status": state}
	switch r.URL.Path {
	case "/dir":
		say(http.StatusOK, map[string]any{"newNonce": a.URL + "/nonce", "newAccount": a.URL + "/account", "newOrder": a.URL + "/new"})
	case "/nonce":
	case "/account":
		say(http.StatusCreated, map[string]any{"status": "valid"})
	case "/new":
		var asked struct{ Identifiers []struct{ Value string } }
		_ = json.Unmarshal(payload, &asked)
		a.orders++
		a.domain, a.valid, a.chain = asked.Identifiers[0].Value, false, nil
		order["status"] = "pending"
		delete(order, "certificate")
		say(http.StatusCreated, order)
	case "/authz":
		say(http.StatusOK, map[string]any{"status": state, "identifier": map[string]string{"type": "dns", "value": a.domain}, "challenges": []any{challenge}})
	case "/challenge":
		a.valid = a.look() == nil
		challenge["status"] = "processing"
		say(http.StatusOK, challenge)
	case "/order":
		say(http.StatusOK, order)
	case "/finalize":
		var asked struct{ CSR string }
		_ = json.Unmarshal(payload, &asked)
		der, _ := base64.RawURLEncoding.DecodeString(asked.CSR)
		a.issue(der)
		order["status"], order["certificate"] = "valid", a.URL+"/cert"
		say(http.StatusOK, order)
	case "/cert":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		_, _ = w.Write(a.chain)
	}
}

// look asks the site for the certificate that proves who runs it.
func (a *authority) look() error {
	c, err := tls.Dial("tcp", a.site, &tls.Config{ServerName: a.domain, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	defer c.Close()
	cert := c.ConnectionState().PeerCertificates[0]
	for _, e := range cert.Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}) && c.ConnectionState().NegotiatedProtocol == "acme-tls/1" {
			return nil
		}
	}
	return fmt.Errorf("another certificate, for %v", cert.DNSNames)
}

func (a *authority) issue(csr []byte) {
	request, err := x509.ParseCertificateRequest(csr)
	if err != nil || !a.valid {
		return
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: request.DNSNames, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, request.PublicKey, a.key)
	if err != nil {
		return
	}
	for _, b := range [][]byte{der, a.cert.Raw} {
		a.chain = append(a.chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b})...)
	}
}

func TestAutocert(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	a.site = fronttest.FreeAddr(t)
	settings := "base_url: https://wiki.example.com\nautocert: {cache: certificates, directory: " + a.URL + "/dir, ca_file: ca.pem, email: ops@example.com}\n" + plain
	f := fronttest.Start(t, fronttest.Options{Dir: dir, Listen: a.site, Settings: settings})
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	dial := func(name string) error {
		ctx, cancel := context.WithTimeout(t.Context(), fronttest.Patience)
		defer cancel()
		c, err := (&tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: pool}}).DialContext(ctx, "tcp", f.Host)
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := dial("wiki.example.com"); err != nil {
		t.Fatalf("%v\n%s", err, f.Log)
	}
	// Nobody makes the front ask for certificates of other names.
	for _, name := range []string{"evil.example.com", "example.com", "x.wiki.example.com"} {
		if err := dial(name); err == nil || strings.Contains(err.Error(), "unknown authority") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if code := f.Stop(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	f = fronttest.Start(t, fronttest.Options{Dir: dir, Listen: a.site, Settings: settings})
	if err := dial("wiki.example.com"); err != nil {
		t.Errorf("from the cache: %v", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.orders != 1 {
		t.Errorf("%d orders, want one", a.orders)
	}
}
