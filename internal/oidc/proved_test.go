package oidc

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/clientauth"
)

// What is asked before a token request is asked when the connection stands, and
// a refusal keeps every byte of the form from the wire.
func TestPostAsksLast(t *testing.T) {
	var dialled, arrived atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.ParseForm() == nil && r.PostForm.Get("refresh_token") != "" {
			arrived.Store(true)
		}
	}))
	defer srv.Close()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled.Store(true)
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	defer transport.CloseIdleConnections()
	i := &Issuer{ClientID: "client", Credential: clientauth.NewSecret("secret", false), Client: &http.Client{Transport: transport}, now: time.Now}
	lost := errors.New("the lease is lost")
	for _, tc := range []struct {
		name string
		err  error
	}{{"lost", lost}, {"held", nil}} {
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"once only"}}
		asked := 0
		_, _, _, err := i.Post(t.Context(), &Metadata{}, srv.URL, form, func(context.Context) error {
			if asked++; !dialled.Load() {
				t.Errorf("%s: asked before the connection stood", tc.name)
			}
			return tc.err
		})
		if err != tc.err || asked != 1 {
			t.Errorf("%s: %v, asked %d times; want %v", tc.name, err, asked, tc.err)
		}
		srv.CloseClientConnections() // waits for nothing that is under way
		if arrived.Load() != (tc.err == nil) {
			t.Errorf("%s: the form arrived: %t", tc.name, arrived.Load())
		}
	}
}
