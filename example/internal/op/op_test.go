package op_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/example/internal/browsertest"
	"github.com/seed454743b5/signin/example/internal/op"
)

const (
	clientID     = "demo"
	clientSecret = "not-much-of-a-secret"
	verifier     = "a-code-verifier-needs-at-least-43-characters-0123456789"
)

// world is a provider and a client that notes what comes back to it.
type world struct {
	t        *testing.T
	provider *op.Provider
	issuer   string
	client   string // origin, another site than the issuer's
	browser  *browsertest.Browser

	mu     sync.Mutex
	answer url.Values
	method string
}

func start(t *testing.T, change func(*op.Config)) *world {
	t.Helper()
	w := &world{t: t, browser: browsertest.New(t)}
	site := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/callback" {
			_ = r.ParseForm()
			w.mu.Lock()
			w.answer, w.method = r.Form, r.Method
			w.mu.Unlock()
		}
		_, _ = io.WriteString(rw, "<title>client</title>at the client")
	}))
	t.Cleanup(site.Close)
	w.client = strings.Replace(site.URL, "127.0.0.1", "localhost", 1)

	handler := http.NewServeMux()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	w.issuer = server.URL
	config := op.Config{
		Issuer:                 server.URL,
		ClientID:               clientID,
		ClientSecret:           clientSecret,
		RedirectURIs:           []string{w.client + "/callback"},
		PostLogoutRedirectURIs: []string{w.client + "/"},
		Resources:              []string{"https://api.example/", "https://other.example/"},
	}
	if change != nil {
		change(&config)
	}
	p, err := op.New(config)
	if err != nil {
		t.Fatal(err)
	}
	w.provider = p
	handler.Handle("/", p.Handler())
	return w
}

// authorizeURL is an authorization request; params come in pairs and an empty
// value takes the parameter out.
func (w *world) authorizeURL(params ...string) string {
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{
		"client_id":             {clientID},
		"redirect_uri":          {w.client + "/callback"},
		"response_type":         {"code id_token"},
		"response_mode":         {"form_post"},
		"scope":                 {"openid profile offline_access"},
		"state":                 {"the-state"},
		"nonce":                 {"the-nonce"},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(sum[:])},
		"code_challenge_method": {"S256"},
	}
	for i := 0; i+1 < len(params); i += 2 {
		if params[i+1] == "" {
			q.Del(params[i])
		} else {
			q.Set(params[i], params[i+1])
		}
	}
	return w.issuer + "/authorize?" + q.Encode()
}

func (w *world) login(p *browsertest.Page, user op.User) *browsertest.Page {
	w.t.Helper()
	return w.browser.Press(p, "Sign in", url.Values{"username": {user.Username}, "password": {user.Password}})
}

// signIn goes all the way and returns what the client received.
func (w *world) signIn(params ...string) url.Values {
	w.t.Helper()
	p := w.browser.Open(w.authorizeURL(params...))
	if p.HasButton("Sign in") {
		p = w.login(p, op.Users[0])
	}
	if p.HasButton("Allow") {
		p = w.browser.Press(p, "Allow", nil)
	}
	return w.arrived(p)
}

func (w *world) arrived(p *browsertest.Page) url.Values {
	w.t.Helper()
	if !strings.HasPrefix(p.URL.String(), w.client+"/callback") {
		w.t.Fatalf("the browser is at %s (status %d), not at the client:\n%s", p.URL, p.Status, p.Text())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answer
}

type tokenAnswer struct {
	Status       int    `json:"-"`
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	IDToken      string `json:"id_token"`
	TokenType    string `json:"token_type"`
	Scope        string `json:"scope"`
	ExpiresIn    int    `json:"expires_in"`
	Error        string `json:"error"`
}

// post sends a form to an endpoint as the client. It may run on any goroutine.
func (w *world) post(path string, form url.Values) (a tokenAnswer) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.issuer+path, strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Error(err)
		return a
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(clientID, clientSecret)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Error(err)
		return a
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Error(err)
	}
	if len(body) > 0 {
		if err := json.Unmarshal(body, &a); err != nil {
			w.t.Errorf("POST %s answered %q: %v", path, body, err)
		}
	}
	a.Status = resp.StatusCode
	return a
}

func (w *world) redeem(code string) tokenAnswer {
	w.t.Helper()
	return w.post("/token", url.Values{
		"grant_type": {"authorization_code"}, "code": {code},
		"redirect_uri": {w.client + "/callback"}, "code_verifier": {verifier},
	})
}

func (w *world) refresh(token string, extra ...string) tokenAnswer {
	w.t.Helper()
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
	for i := 0; i+1 < len(extra); i += 2 {
		form.Set(extra[i], extra[i+1])
	}
	return w.post("/token", form)
}

func (w *world) active(token string) bool {
	w.t.Helper()
	info, err := w.provider.Introspect(w.t.Context(), token)
	if err != nil {
		w.t.Fatal(err)
	}
	return info.IsActive
}

// claims reads a JWT without verifying it.
func claims(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("not a JWT: %q", token)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSignIn(t *testing.T) {
	for _, tc := range []struct {
		responseType, responseMode, method string
	}{
		{"code id_token", "form_post", http.MethodPost},
		{"code", "form_post", http.MethodPost},
		{"code", "query", http.MethodGet},
	} {
		t.Run(tc.responseType+" by "+tc.responseMode, func(t *testing.T) {
			w := start(t, nil)
			got := w.signIn("response_type", tc.responseType, "response_mode", tc.responseMode)
			if w.method != tc.method {
				t.Errorf("the answer came by %s, want %s", w.method, tc.method)
			}
			if got.Get("state") != "the-state" || got.Get("iss") != w.issuer || got.Get("code") == "" {
				t.Errorf("answer %v: want code, state and iss", got)
			}
			if hybrid := tc.responseType != "code"; hybrid != (got.Get("id_token") != "") {
				t.Errorf("id_token in the answer: %t, want %t", !hybrid, hybrid)
			} else if hybrid {
				sum := sha256.Sum256([]byte(got.Get("code")))
				want := base64.RawURLEncoding.EncodeToString(sum[:16])
				if c := claims(t, got.Get("id_token")); c["c_hash"] != want || c["nonce"] != "the-nonce" {
					t.Errorf("front id_token %v: want c_hash %s and the nonce", c, want)
				}
			}
			a := w.redeem(got.Get("code"))
			if a.Status != http.StatusOK || a.AccessToken == "" || a.RefreshToken == "" || a.ExpiresIn != 300 {
				t.Fatalf("token answer %+v", a)
			}
			c := claims(t, a.IDToken)
			if c["sub"] != op.Users[0].Subject || c["name"] != op.Users[0].Name || c["nonce"] != "the-nonce" || c["auth_time"] == nil {
				t.Errorf("id_token %v", c)
			}
			if !w.active(a.AccessToken) {
				t.Error("the access token is not active")
			}
			for name, other := range map[string]string{"refresh token": a.RefreshToken, "ID token": a.IDToken} {
				if w.active(other) {
					t.Errorf("the %s passes for an access token", name)
				}
			}
		})
	}
}

func TestCodeIsRedeemedOnce(t *testing.T) {
	w := start(t, nil)
	code := w.signIn().Get("code")
	answers := make([]tokenAnswer, 8)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = w.redeem(code) })
	}
	wg.Wait()
	var won []tokenAnswer
	for _, a := range answers {
		if a.Status == http.StatusOK {
			won = append(won, a)
		}
	}
	if len(won) != 1 {
		t.Fatalf("%d of %d redemptions of one code succeeded, want 1", len(won), len(answers))
	}
	// RFC 6749, section 4.1.2: the tokens of a code used twice are revoked.
	if w.active(won[0].AccessToken) {
		t.Error("the access token outlived the second use of its code")
	}
}

func TestRefresh(t *testing.T) {
	w := start(t, nil)
	first := w.redeem(w.signIn().Get("code"))
	second := w.refresh(first.RefreshToken)
	if second.Status != http.StatusOK || second.RefreshToken == "" || second.RefreshToken == first.RefreshToken {
		t.Fatalf("refresh: %+v, want a rotated refresh token", second)
	}
	if c := claims(t, second.IDToken); c["sub"] != op.Users[0].Subject || c["auth_time"] != claims(t, first.IDToken)["auth_time"] {
		t.Errorf("refreshed id_token %v: want the same sub and auth_time", c)
	}
	if !w.active(second.AccessToken) {
		t.Error("the refreshed access token is not active")
	}
	if again := w.refresh(first.RefreshToken); again.Error != "invalid_grant" {
		t.Errorf("a spent refresh token got %+v, want invalid_grant", again)
	}
	if w.active(second.AccessToken) {
		t.Error("the grant outlived the reuse of a spent refresh token")
	}
	if a := w.refresh(second.RefreshToken); a.Error != "invalid_grant" {
		t.Errorf("the current refresh token of a revoked grant got %+v, want invalid_grant", a)
	}
}

func TestRefreshAtOnce(t *testing.T) {
	w := start(t, nil)
	token := w.redeem(w.signIn().Get("code")).RefreshToken
	answers := make([]tokenAnswer, 8)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = w.refresh(token) })
	}
	wg.Wait()
	won := slices.DeleteFunc(answers, func(a tokenAnswer) bool { return a.Status != http.StatusOK })
	if len(won) != 1 {
		t.Errorf("%d refreshes with one token succeeded, want 1", len(won))
	}
}

func TestScopesAndResources(t *testing.T) {
	w := start(t, nil)
	a := w.redeem(w.signIn("scope", "openid offline_access mail.read calendars.read").Get("code"))
	narrow := w.refresh(a.RefreshToken, "scope", "mail.read", "resource", "https://api.example/")
	if narrow.Scope != "mail.read" || narrow.IDToken != "" {
		t.Errorf("refresh for one scope: %+v", narrow)
	}
	if aud := claims(t, narrow.AccessToken)["aud"]; aud != "https://api.example/" {
		t.Errorf("aud = %v, want the resource asked for", aud)
	}
	other := w.refresh(narrow.RefreshToken, "scope", "calendars.read", "resource", "https://other.example/")
	if other.Scope != "calendars.read" {
		t.Errorf("a narrow refresh shrank the grant: %+v", other)
	}
	if a := w.refresh(other.RefreshToken, "scope", "mail.send"); a.Error != "invalid_scope" {
		t.Errorf("a scope that was not granted got %+v, want invalid_scope", a)
	}
	if a := w.refresh(other.RefreshToken, "resource", "https://unknown.example/"); a.Error != "invalid_target" {
		t.Errorf("an unknown resource got %+v, want invalid_target", a)
	}
}

func TestNoRefreshTokenUnlessAsked(t *testing.T) {
	w := start(t, nil)
	if a := w.redeem(w.signIn("scope", "openid").Get("code")); a.Status != http.StatusOK || a.RefreshToken != "" {
		t.Errorf("without offline_access: %+v, want no refresh token", a)
	}
}

func TestAccessTokenExpires(t *testing.T) {
	w := start(t, func(c *op.Config) { c.AccessTokenLifetime = time.Second })
	a := w.redeem(w.signIn().Get("code"))
	if a.ExpiresIn != 1 {
		t.Errorf("expires_in = %d, want 1", a.ExpiresIn)
	}
	tick, deadline := time.NewTicker(50*time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for w.active(a.AccessToken) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the access token never expired")
		}
	}
}

func TestRevocation(t *testing.T) {
	w := start(t, nil)
	a := w.redeem(w.signIn().Get("code"))
	if r := w.post("/revoke", url.Values{"token": {a.RefreshToken}}); r.Status != http.StatusOK {
		t.Fatalf("revocation: %+v", r)
	}
	if w.active(a.AccessToken) {
		t.Error("the access token outlived its refresh token's revocation")
	}
	if r := w.refresh(a.RefreshToken); r.Error != "invalid_grant" {
		t.Errorf("a revoked refresh token got %+v, want invalid_grant", r)
	}
}
