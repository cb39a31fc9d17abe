package api_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/example/internal/api"
)

var errDown = errors.New("issuer is down")

// tokens is a verifier that knows some tokens by heart.
func tokens(_ context.Context, raw string) (*api.Token, error) {
	t := &api.Token{Subject: "u-1", Name: "Alice", Expires: time.Unix(2e9, 0)}
	switch raw {
	case "plain":
	case "send":
		t.Scopes = []string{"mail.send"}
	case "read":
		t.Scopes = []string{"mail.read"}
	case "bob-read":
		t.Subject, t.Scopes = "u-2", []string{"mail.read"}
	case "strong":
		t.Contexts = []string{"c1"}
	case "ours":
		t.Audience = []string{"https://other.example/", "https://api.example/"}
	case "theirs":
		t.Audience = []string{"https://other.example/"}
	case "down":
		return nil, errDown
	default:
		return nil, api.ErrInvalidToken
	}
	return t, nil
}

func newAPI(t *testing.T) http.Handler {
	t.Helper()
	h, err := api.New(api.Config{Verify: tokens, Resource: "https://api.example/", VaultContext: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func call(h http.Handler, method, path, token, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const letter = `{"message":{"subject":"Hi","body":{"contentType":"Text","content":"Hello"},` +
	`"toRecipients":[{"emailAddress":{"address":"bob@demo.example"}}]}}`

func TestWhoGetsIn(t *testing.T) {
	h := newAPI(t)
	for _, tc := range []struct {
		name, method, path, token, body string
		status                          int
		challenge                       string
	}{
		{"no token", "GET", "/me", "", "", 401, `^Bearer$`},
		{"bad token", "GET", "/me", "nonsense", "", 401, `error="invalid_token"`},
		{"other audience", "GET", "/me", "theirs", "", 401, `error="invalid_token"`},
		{"our audience", "GET", "/me", "ours", "", 200, `^$`},
		{"no audience", "GET", "/me", "plain", "", 200, `^$`},
		{"issuer down", "GET", "/me", "down", "", 503, `^$`},
		{"send without scope", "POST", "/me/sendMail", "plain", letter, 403, `error="insufficient_scope", scope="mail.send"`},
		{"send with scope", "POST", "/me/sendMail", "send", letter, 202, `^$`},
		{"read without scope", "GET", "/me/mailFolders/SentItems/messages", "send", "", 403, `scope="mail.read"`},
		{"vault", "GET", "/me/vault", "plain", "", 401, `error="insufficient_claims"`},
		{"vault after the second step", "GET", "/me/vault", "strong", "", 200, `^$`},
		{"elsewhere", "GET", "/", "plain", "", 404, `^$`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := call(h, tc.method, tc.path, tc.token, tc.body)
			if w.Code != tc.status {
				t.Errorf("status %d, want %d: %s", w.Code, tc.status, w.Body)
			}
			if got := w.Header().Get("WWW-Authenticate"); !regexp.MustCompile(tc.challenge).MatchString(got) {
				t.Errorf("WWW-Authenticate %q, want %s", got, tc.challenge)
			}
		})
	}
}

func TestVaultNamesTheClaims(t *testing.T) {
	header := call(newAPI(t), "GET", "/me/vault", "plain", "").Header().Get("WWW-Authenticate")
	m := regexp.MustCompile(`claims="([^"]+)"`).FindStringSubmatch(header)
	if m == nil {
		t.Fatalf("no claims in %q", header)
	}
	raw, err := base64.StdEncoding.DecodeString(m[1])
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`; string(raw) != want {
		t.Errorf("claims %s, want %s", raw, want)
	}
}

func TestOutbox(t *testing.T) {
	h := newAPI(t)
	for range 60 {
		if w := call(h, "POST", "/me/sendMail", "send", letter); w.Code != http.StatusAccepted {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
	}
	read := func(token string) (list struct{ Value []api.Message }) {
		w := call(h, "GET", "/me/mailFolders/SentItems/messages", token, "")
		if err := json.NewDecoder(w.Body).Decode(&list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	got := read("read").Value
	if len(got) != 50 {
		t.Errorf("%d mails kept, want 50", len(got))
	}
	if m := got[0]; m.Subject != "Hi" || m.Body.Content != "Hello" || m.Sent == nil || m.ToRecipients[0].EmailAddress.Address != "bob@demo.example" {
		t.Errorf("mail kept: %+v", m)
	}
	if n := len(read("bob-read").Value); n != 0 {
		t.Errorf("Bob sees %d mails of Alice's", n)
	}
}

func TestBadMail(t *testing.T) {
	h := newAPI(t)
	for name, tc := range map[string]struct {
		body   string
		status int
	}{
		"not JSON":      {"hello", 400},
		"no recipient":  {`{"message":{"subject":"Hi"}}`, 400},
		"bad recipient": {`{"message":{"toRecipients":[{"emailAddress":{"address":"bob"}}]}}`, 400},
		"header inside": {`{"message":{"toRecipients":[{"emailAddress":{"address":"Bob <bob@demo.example>"}}]}}`, 400},
		"endless":       {letter + strings.Repeat(" ", 1<<20), 413},
	} {
		if w := call(h, "POST", "/me/sendMail", "send", tc.body); w.Code != tc.status {
			t.Errorf("%s: status %d, want %d", name, w.Code, tc.status)
		}
	}
}

// An issuer's userinfo endpoint decides about tokens that are no JWT, and its
// failure is not the token's.
func TestByIssuer(t *testing.T) {
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": server.URL, "authorization_endpoint": server.URL + "/authorize", "token_endpoint": server.URL + "/token",
			"jwks_uri": server.URL + "/jwks", "userinfo_endpoint": server.URL + "/userinfo",
			"id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, `{"keys":[]}`) })
	mux.HandleFunc("/userinfo", func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Authorization") {
		case "Bearer good":
			_, _ = io.WriteString(w, `{"sub":"u-1","name":"Alice"}`)
		case "Bearer storm":
			w.WriteHeader(http.StatusBadGateway)
		case "Bearer silent":
			_, _ = io.WriteString(w, `{}`)
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	verify := api.ByIssuer(server.URL, server.Client())
	if tok, err := verify(t.Context(), "good"); err != nil || tok.Subject != "u-1" || tok.Name != "Alice" || len(tok.Scopes) != 0 {
		t.Errorf("a good token: %+v, %v", tok, err)
	}
	for _, raw := range []string{"bad", "e30.e30.e30"} {
		if _, err := verify(t.Context(), raw); !errors.Is(err, api.ErrInvalidToken) {
			t.Errorf("%s: %v, want ErrInvalidToken", raw, err)
		}
	}
	for _, raw := range []string{"storm", "silent"} {
		if _, err := verify(t.Context(), raw); err == nil || errors.Is(err, api.ErrInvalidToken) {
			t.Errorf("%s: %v, want an error other than ErrInvalidToken", raw, err)
		}
	}
}
