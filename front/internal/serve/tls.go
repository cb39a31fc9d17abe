package serve

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/seed454743b5/signin/front/internal/settings"
	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// tlsConfig returns how the site speaks TLS, or nil if it does not.
func tlsConfig(c *settings.Config, log *slog.Logger) (*tls.Config, error) {
	switch {
	case c.TLS.CertFile != "":
		files := &certFiles{names: c.TLS, log: log}
		if err := files.load(); err != nil {
			return nil, err
		}
		return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: files.get, NextProtos: []string{"h2", "http/1.1"}}, nil
	case c.Autocert.Cache != "":
		manager := &autocert.Manager{
			Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(c.Autocert.Cache), Email: c.Autocert.Email,
			HostPolicy: autocert.HostWhitelist(c.Hosts()...),
		}
		client := &http.Client{Timeout: 30 * time.Second}
		if c.Autocert.CA != "" {
			pem, err := os.ReadFile(c.Autocert.CA)
			if err != nil {
				return nil, err
			}
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(pem)
			client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
		}
		manager.Client = &acme.Client{DirectoryURL: c.Autocert.Directory, HTTPClient: client}
		if c.Autocert.Directory == "" {
			manager.Client.DirectoryURL = autocert.DefaultACMEDirectory
		}
		config := manager.TLSConfig()
		config.MinVersion = tls.VersionTLS12
		return config, nil
	}
	return nil, nil
}

// certFiles is a certificate that is read again when its files change.
type certFiles struct {
	names settings.TLS
	log   *slog.Logger

	mu      sync.Mutex
	cert    *tls.Certificate // guarded by mu, with what follows
	changed [2]time.Time     // of the files
	looked  time.Time
}

const lookAgain = time.Second

func (f *certFiles) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.looked) >= lookAgain {
		f.looked = now
		if f.times() != f.changed {
			if err := f.read(); err != nil { // half of it is written, perhaps
				f.log.Warn("the certificate cannot be read; the old one stays in use", "err", err)
			} else {
				f.log.Info("the certificate was read again")
			}
		}
	}
	return f.cert, nil
}

func (f *certFiles) load() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looked = time.Now()
	return f.read()
}

func (f *certFiles) times() (t [2]time.Time) {
	for i, name := range []string{f.names.CertFile, f.names.KeyFile} {
		if info, err := os.Stat(name); err == nil {
			t[i] = info.ModTime()
		}
	}
	return t
}

func (f *certFiles) read() error {
	changed := f.times()
	cert, err := tls.LoadX509KeyPair(f.names.CertFile, f.names.KeyFile)
	if err != nil {
		return err
	}
	f.cert, f.changed = &cert, changed
	return nil
}
