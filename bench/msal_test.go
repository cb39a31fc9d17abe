package bench

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
)

const (
	msalTenant    = "11111111-2222-3333-4444-555555555555"
	msalAuthority = "https://login.microsoftonline.com/" + msalTenant
)

// msal is an application that takes its tokens from MSAL Go, and finds the
// account by a cookie.
type msal struct {
	client   confidential.Client
	issuer   *issuer
	accounts map[string]confidential.Account
}

func newMSAL(tb testing.TB, users int, options ...confidential.Option) *msal {
	tb.Helper()
	m := &msal{issuer: newIssuer(tb, msalAuthority+"/v2.0", "ES256"), accounts: map[string]confidential.Account{}}
	credential, err := confidential.NewCredFromSecret("secret")
	if err != nil {
		tb.Fatal(err)
	}
	options = append(options, confidential.WithHTTPClient(m.issuer.client()), confidential.WithInstanceDiscovery(false))
	if m.client, err = confidential.New(msalAuthority, "client", credential, options...); err != nil {
		tb.Fatal(err)
	}
	for n := range users {
		m.signIn(tb, fmt.Sprintf("user%d", n))
	}
	return m
}

func (m *msal) signIn(tb testing.TB, subject string) {
	tb.Helper()
	location := m.issuer.url + "/authorize?client_id=client&response_type=code&scope=" + scope
	code := m.issuer.authorize(tb, location, subject).Get("code")
	result, err := m.client.AcquireTokenByAuthCode(context.Background(), code, appURL+"/callback", []string{scope})
	if err != nil {
		tb.Fatal(err)
	}
	m.accounts[subject] = result.Account
}

func (m *msal) cookies() []string {
	var cookies []string
	for subject := range m.accounts {
		cookies = append(cookies, "session="+subject)
	}
	return cookies
}

func (m *msal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := r.Cookie("session")
	if err != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	result, err := m.client.AcquireTokenSilent(r.Context(), []string{scope}, confidential.WithSilentAccount(m.accounts[c.Value]))
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	done(w, result.AccessToken)
}

func prepareMSAL(tb testing.TB, users int) (http.Handler, []string) {
	m := newMSAL(tb, users)
	return m, m.cookies()
}

func prepareMSALAccessor(tb testing.TB, users int) (http.Handler, []string) {
	m := newMSAL(tb, users, confidential.WithCache(&accessor{saved: map[string][]byte{}}))
	return m, m.cookies()
}

// accessor keeps each user's cache by itself, in memory.
type accessor struct {
	mu    sync.Mutex
	saved map[string][]byte
}

func (a *accessor) Replace(_ context.Context, c cache.Unmarshaler, hints cache.ReplaceHints) error {
	a.mu.Lock()
	saved := a.saved[hints.PartitionKey]
	a.mu.Unlock()
	if saved == nil {
		saved = []byte("{}") // a user who is new
	}
	return c.Unmarshal(saved)
}

func (a *accessor) Export(_ context.Context, c cache.Marshaler, hints cache.ExportHints) error {
	b, err := c.Marshal()
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.saved[hints.PartitionKey] = b
	return nil
}
