package command_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed454743b5/signin/front/internal/fronttest"
	"github.com/seed454743b5/signin/signintest"
)

const programs = `
routes:
  - {path: /, allow: signed-in, upstream: UPSTREAM}
  - {path: /api/, allow: {claim: roles, any: [writer]}, upstream: UPSTREAM, bearer: true}
  - {path: /any/, allow: signed-in, upstream: UPSTREAM, bearer: {audience: [orders]}, pass: [access_token]}
  - {path: /scope/, allow: signed-in, upstream: UPSTREAM, bearer: true, require: {scopes: [mail.read], acr: [gold], max_age: 1h}, pass: [identity_jwt]}
`

// token is a good access token with changes; nil removes a claim.
func token(f *fronttest.Front, change map[string]any, o signintest.SignOptions) string {
	now := time.Now()
	claims := map[string]any{
		"iss": f.Issuer.URL(), "aud": "client", "sub": "1001", "client_id": "batch", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "jti": "x",
		"roles": []string{"writer"}, "email": "alice@example.com", "email_verified": true,
	}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	header := map[string]any{"typ": "at+jwt"}
	maps.Copy(header, o.Header)
	o.Header = header
	return f.Issuer.Sign(claims, o)
}

func TestBearer(t *testing.T) {
	f := fronttest.Start(t, fronttest.Options{Settings: programs})
	send := func(path, authorization string) (*http.Response, string) {
		return f.Answer("GET " + path + " HTTP/1.1\nHost: HOST\nCookie: COOKIES\n" + authorization + "\n")
	}
	bearer := func(raw string) string { return "Authorization: Bearer " + raw + "\n" }
	type change = map[string]any
	type how = signintest.SignOptions
	foreign := f.Issuer.ForeignKey("RS256")
	hour := func(h int) int64 { return time.Now().Add(time.Duration(h) * time.Hour).Unix() }
	for name, tc := range map[string]struct {
		path  string
		raw   string
		want  int
		error string
	}{
		"good":                   {"/api/", token(f, nil, how{}), 200, ""},
		"for the site":           {"/api/", token(f, change{"aud": []string{"x", f.URL}}, how{}), 200, ""},
		"full media type":        {"/api/", token(f, nil, how{Header: change{"typ": "application/at+JWT"}}), 200, ""},
		"another audience":       {"/api/", token(f, change{"aud": "other"}, how{}), 401, "invalid_token"},
		"audience of this route": {"/any/", token(f, change{"aud": "orders"}, how{}), 200, ""},
		"client, elsewhere":      {"/any/", token(f, nil, how{}), 401, "invalid_token"},
		"no audience":            {"/api/", token(f, change{"aud": nil}, how{}), 401, "invalid_token"},
		"empty audience":         {"/api/", token(f, change{"aud": ""}, how{}), 401, "invalid_token"},
		"another issuer":         {"/api/", token(f, change{"iss": "https://evil.example"}, how{}), 401, "invalid_token"},
		"no issuer":              {"/api/", token(f, change{"iss": nil}, how{}), 401, "invalid_token"},
		"expired":                {"/api/", token(f, change{"exp": hour(-1)}, how{}), 401, "invalid_token"},
		"no expiry":              {"/api/", token(f, change{"exp": nil}, how{}), 401, "invalid_token"},
		"odd expiry":             {"/api/", token(f, change{"exp": "soon"}, how{}), 401, "invalid_token"},
		"of the future":          {"/api/", token(f, change{"iat": hour(1), "exp": hour(2)}, how{}), 401, "invalid_token"},
		"not yet":                {"/api/", token(f, change{"nbf": hour(1)}, how{}), 401, "invalid_token"},
		"no client":              {"/api/", token(f, change{"client_id": nil}, how{}), 401, "invalid_token"},
		"no subject":             {"/api/", token(f, change{"sub": nil}, how{}), 401, "invalid_token"},
		"bound to a key":         {"/api/", token(f, change{"cnf": map[string]any{"jkt": "x"}}, how{}), 401, "invalid_token"},
		"an ID token's type":     {"/api/", token(f, nil, how{Header: change{"typ": "JWT"}}), 401, "invalid_token"},
		"no type":                {"/api/", token(f, nil, how{Header: change{"typ": nil}}), 401, "invalid_token"},
		"a logout token's type":  {"/api/", token(f, nil, how{Header: change{"typ": "logout+jwt"}}), 401, "invalid_token"},
		"another key":            {"/api/", token(f, nil, how{Key: &foreign}), 401, "invalid_token"},
		"another key, our kid":   {"/api/", token(f, nil, how{Key: &foreign, KeyID: f.Issuer.Key().ID}), 401, "invalid_token"},
		"unsigned":               {"/api/", token(f, nil, how{Alg: "none"}), 401, "invalid_token"},
		"HMAC by the public key": {"/api/", token(f, nil, how{Alg: "HS256"}), 401, "invalid_token"},
		"critical header":        {"/api/", token(f, nil, how{Header: change{"crit": []string{"x"}, "x": 1}}), 401, "invalid_token"},
		"no role":                {"/api/", token(f, change{"roles": nil}, how{}), 403, ""},
		"no such role":           {"/api/", token(f, change{"roles": []string{"reader"}}, how{}), 403, ""},
		"odd subject":            {"/api/", token(f, change{"sub": "al\u200bice"}, how{}), 403, ""},
		"opaque":                 {"/api/", "abc", 401, "invalid_token"},
		"three parts":            {"/api/", "a.b.c", 401, "invalid_token"},
		"no scope":               {"/scope/", token(f, change{"acr": "gold", "auth_time": hour(0)}, how{}), 403, "insufficient_scope"},
		"other scope":            {"/scope/", token(f, change{"scope": "mail.reader", "acr": "gold", "auth_time": hour(0)}, how{}), 403, "insufficient_scope"},
		"weak":                   {"/scope/", token(f, change{"scope": "mail.read", "acr": "silver", "auth_time": hour(0)}, how{}), 401, "insufficient_user_authentication"},
		"old":                    {"/scope/", token(f, change{"scope": "mail.read", "acr": "gold", "auth_time": hour(-3)}, how{}), 401, "insufficient_user_authentication"},
		"of unknown age":         {"/scope/", token(f, change{"scope": "mail.read", "acr": "gold"}, how{}), 401, "insufficient_user_authentication"},
		"strong":                 {"/scope/", token(f, change{"scope": "x mail.read", "acr": "gold", "auth_time": hour(0)}, how{}), 200, ""},
		"scp":                    {"/scope/", token(f, change{"scp": "x mail.read", "acr": "gold", "auth_time": hour(0)}, how{}), 200, ""},
		"a route without":        {"/", token(f, nil, how{}), 401, ""},
	} {
		before := f.Behind.Count()
		res, body := send(tc.path, bearer(tc.raw))
		if res.StatusCode != tc.want || f.Behind.Count()-before != b2i(tc.want == 200) {
			t.Errorf("%s: %d %s, upstream got %d; want %d", name, res.StatusCode, body, f.Behind.Count()-before, tc.want)
		}
		if challenge := res.Header.Get("WWW-Authenticate"); tc.error != "" && !strings.Contains(challenge, `error="`+tc.error+`"`) {
			t.Errorf("%s: challenge %q, want %s", name, challenge, tc.error)
		}
		if len(tc.raw) > 8 && strings.Contains(f.Log.String()+f.Access.String(), tc.raw) {
			t.Errorf("%s: the token is in the log", name)
		}
	}
	raw := token(f, nil, how{})
	for name, authorization := range map[string]string{
		"two headers": bearer(raw) + bearer(raw), "empty": "Authorization: Bearer  \n", "spaces": "Authorization: Bearer a b\n", "control": "Authorization: Bearer a\x01\n",
		"long": "Authorization: Bearer " + strings.Repeat("a", 20000) + "\n",
	} {
		if res, _ := send("/api/", authorization); res.StatusCode != http.StatusBadRequest && res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
	}
	// What the upstream gets.
	send("/api/", bearer(raw))
	if h := f.Behind.Last(t).Header; h.Get("X-Forwarded-User") != "1001" || h.Get("X-Forwarded-Email") != "alice@example.com" || h["Authorization"] != nil {
		t.Errorf("%v; want the user, and not the token, which was for us", h)
	}
	raw = token(f, change{"aud": "orders"}, how{})
	send("/any/", strings.Replace(bearer(raw), "Bearer", "bEARER", 1))
	if h := f.Behind.Last(t).Header; h.Get("Authorization") != "Bearer "+raw {
		t.Errorf("%v", h["Authorization"])
	}
	// A bad token is not helped by a good cookie, and basic authentication is
	// the upstream's own affair.
	f.Issuer.Update(func(b *signintest.Behaviour) { b.Users[0].Claims["roles"] = []string{"writer"} })
	f.SignIn()
	if res, _ := send("/api/", bearer("abc")); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a bad token beside a cookie: %d", res.StatusCode)
	}
	if res, _ := send("/api/", "Authorization: Basic eDp5\n"); res.StatusCode != http.StatusOK || f.Behind.Last(t).Header.Get("Authorization") != "Basic eDp5" {
		t.Errorf("basic beside a cookie: %d", res.StatusCode)
	}
	if n := f.Issuer.Count(signintest.EndpointKeys); n > 3 {
		t.Errorf("the issuer was asked %d times for its keys: tokens with made-up keys lead to it", n)
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A key that the issuer begins to use is found, and an issuer that is down is
// not the program's fault.
func TestBearerIssuerTrouble(t *testing.T) {
	f := fronttest.Start(t, fronttest.Options{Settings: programs})
	raw := token(f, nil, signintest.SignOptions{})
	f.Issuer.Fail(signintest.EndpointDiscovery, signintest.HTMLFault(http.StatusInternalServerError))
	send := func() int {
		return f.Status("GET /api/ HTTP/1.1\nHost: HOST\nAuthorization: Bearer " + raw + "\n\n")
	}
	if status := send(); status != http.StatusServiceUnavailable {
		t.Errorf("issuer down: %d, want 503", status)
	}
	f.Issuer.Heal()
	deadline := time.Now().Add(fronttest.Patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	status := 0
	for status != http.StatusOK && time.Now().Before(deadline) {
		<-tick.C
		status = send()
	}
	if status != http.StatusOK {
		t.Errorf("issuer up again: %d", status)
	}
}

// introspector is an issuer's endpoint that knows a few opaque tokens.
type introspector struct {
	calls atomic.Int32
	mu    sync.Mutex
	known map[string]map[string]any
}

func (i *introspector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.calls.Add(1)
	user, password, _ := r.BasicAuth()
	if user != "client" || password != "secret" || r.Method != http.MethodPost {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	answer, ok := i.known[r.PostFormValue("token")]
	if !ok {
		answer = map[string]any{"active": false}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

func TestIntrospection(t *testing.T) {
	exp := time.Now().Add(time.Hour).Unix()
	i := &introspector{known: map[string]map[string]any{
		"opaque-good":    {"active": true, "sub": "1001", "aud": "client", "exp": exp, "scope": "x", "roles": []string{"writer"}, "username": "alice"},
		"opaque-other":   {"active": true, "sub": "1001", "aud": "other", "exp": exp, "roles": []string{"writer"}},
		"opaque-no-aud":  {"active": true, "sub": "1001", "exp": exp, "roles": []string{"writer"}},
		"opaque-expired": {"active": true, "sub": "1001", "aud": "client", "exp": 1000000, "roles": []string{"writer"}},
		"opaque-issuer":  {"active": true, "sub": "1001", "aud": "client", "iss": "https://evil.example", "roles": []string{"writer"}},
		"opaque-string":  {"active": "true", "sub": "1001", "aud": "client", "roles": []string{"writer"}},
		"opaque-dpop":    {"active": true, "sub": "1001", "aud": "client", "token_type": "DPoP", "roles": []string{"writer"}},
		"opaque-refresh": {"active": true, "sub": "1001", "aud": "client", "token_type": "refresh_token", "roles": []string{"writer"}},
		"opaque-bound":   {"active": true, "sub": "1001", "aud": "client", "cnf": map[string]any{"x5t#S256": "x"}, "roles": []string{"writer"}},
		"opaque-nobody":  {"active": true, "aud": "client", "roles": []string{"writer"}},
	}}
	server := httptest.NewServer(i)
	t.Cleanup(server.Close)
	f := fronttest.Start(t, fronttest.Options{Settings: programs + "introspect: true\n", Behaviour: func(b *signintest.Behaviour) {
		b.EditDiscovery = func(d map[string]any) { d["introspection_endpoint"] = server.URL }
	}})
	send := func(raw string) int {
		return f.Status("GET /api/ HTTP/1.1\nHost: HOST\nAuthorization: Bearer " + raw + "\n\n")
	}
	for range 3 {
		if status := send("opaque-good"); status != http.StatusOK || f.Behind.Last(t).Header.Get("X-Forwarded-User") != "1001" {
			t.Errorf("good: %d", status)
		}
	}
	if n := i.calls.Load(); n != 1 {
		t.Errorf("%d calls for one token, want one", n)
	}
	for name := range i.known {
		if name != "opaque-good" && send(name) != http.StatusUnauthorized {
			t.Errorf("%s is admitted", name)
		}
	}
	if status := send("made-up"); status != http.StatusUnauthorized {
		t.Errorf("made up: %d", status)
	}
	// A JWT that is no access token by its type may be one all the same
	// (Keycloak's are): then the issuer is asked.
	raw := token(f, nil, signintest.SignOptions{Header: map[string]any{"typ": "JWT"}})
	if status := send(raw); status != http.StatusUnauthorized {
		t.Errorf("unknown JWT: %d", status)
	}
	_, payload, _ := strings.Cut(raw, ".")
	payload, _, _ = strings.Cut(payload, ".")
	plain, _ := base64.RawURLEncoding.DecodeString(payload)
	var claims map[string]any
	if err := json.Unmarshal(plain, &claims); err != nil {
		t.Fatal(err)
	}
	claims["active"] = true
	i.mu.Lock()
	other := raw + "A"
	i.known[other] = claims
	i.mu.Unlock()
	if status := send(other); status != http.StatusOK {
		t.Errorf("known JWT of another type: %d", status)
	}
	server.Close()
	if status := send(fmt.Sprint("late-", time.Now().UnixNano())); status != http.StatusServiceUnavailable {
		t.Errorf("endpoint down: %d, want 503", status)
	}
}
