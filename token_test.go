package signin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/text"
	"golang.org/x/oauth2"
)

func TestTokenScopeValues(t *testing.T) {
	for in, want := range map[string][]string{
		`"a b"`: {"a", "b"}, `" a  b "`: {"a", "b"}, `["a","b"]`: {"a", "b"}, `""`: nil, `null`: nil, `[]`: nil, `7`: nil, `{"a":1}`: nil,
	} {
		var answer oidc.Answer
		if err := json.Unmarshal([]byte(`{"scope":`+in+`}`), &answer); err != nil || !slices.Equal(answer.Scope, want) {
			t.Errorf("scope %s: %q, %v; want %q", in, answer.Scope, err, want)
		}
	}
}

func TestTokenRetryAfter(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"30": 30 * time.Second, "100000": 5 * time.Minute, "99999999999999999999": 0, "-5": 0, "": 0, "soon": 0,
		"Tue, 01 Jan 2030 00:01:00 GMT": time.Minute, "Tue, 01 Jan 2036 00:01:00 GMT": 5 * time.Minute,
	} {
		got := oidc.RetryAfter(http.Header{"Retry-After": {in}}, now)
		if want == 0 && got.After(now) || want != 0 && got.Sub(now) != want {
			t.Errorf("Retry-After %q: %v, want %v", in, got.Sub(now), want)
		}
	}
}

func TestTokenErrorTexts(t *testing.T) {
	sent := []string{"secret-refresh-token", "short"}
	got := text.Clean("bad secret-refresh-token\r\nforged line short", sent, 60)
	if strings.Contains(got, "secret") || strings.ContainsAny(got, "\r\n") || !strings.Contains(got, "short") {
		t.Errorf("cleaned: %q", got)
	}
	if got := text.Clean(strings.Repeat("x", 1000), nil, 10); len(got) > 13 {
		t.Errorf("%d characters", len(got))
	}
}

// An issuer, or a proxy before it, that echoes what we sent does not get it
// into an error, whatever part of the answer it is in.
func TestTokenEchoes(t *testing.T) {
	const secret = "Secret/Refresh+Token-0123456789"
	for name, answer := range map[string]func(net.Conn, string){
		"media type": func(c net.Conn, v string) {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/%s\r\nContent-Length: 0\r\n\r\n", v)
		},
		"no HTTP":          func(c net.Conn, v string) { fmt.Fprintf(c, "ERR %s\r\n\r\n", v) },
		"malformed status": func(c net.Conn, v string) { fmt.Fprintf(c, "HTTP/1.1 %s\r\n\r\n", v) },
		"status":           func(c net.Conn, v string) { fmt.Fprintf(c, "HTTP/1.1 400 %s\r\nContent-Length: 0\r\n\r\n", v) },
		"malformed header": func(c net.Conn, v string) { fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX %s\r\n\r\n", v) },
	} {
		for _, echo := range []string{secret, url.QueryEscape(secret)} {
			t.Run(name, func(t *testing.T) {
				srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body)
					conn, _, err := w.(http.Hijacker).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					answer(conn, echo)
				}))
				defer srv.Close()
				a := newApp(t)
				a.Auth.issuer.Client = srv.Client()
				form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {secret}}
				_, err := a.Auth.issuer.RequestToken(t.Context(), &oidc.Metadata{TokenEndpoint: srv.URL}, form, nil)
				if err == nil {
					t.Fatal("no error")
				}
				text := err.Error()
				if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
					text += e.Error() + e.Response.Status
				}
				if strings.Contains(strings.ToLower(text), strings.ToLower(echo)) {
					t.Errorf("the error shows what was sent: %s", text)
				}
			})
		}
	}
}

func TestClaimsContexts(t *testing.T) {
	for _, tc := range []struct {
		claims   string
		contexts []string
		required bool
		want     string
	}{
		{"", nil, true, ""},
		{"", []string{"c1"}, true, `{"id_token":{"acrs":{"essential":true,"value":"c1"}}}`},
		{"", []string{"c1", "c99"}, true, `{"id_token":{"acrs":{"essential":true,"values":["c1","c99"]}}}`},
		{"", []string{"c1"}, false, `{"access_token":{"acrs":{"essential":true,"value":"c1"}},"id_token":{"acrs":{"essential":true,"value":"c1"}}}`},
		{`{"access_token":{"nbf":{"value":"16037428000000000001"},"n":16037428000000000001},"id_token":{"a":null}}`, []string{"c1"}, true,
			`{"access_token":{"n":16037428000000000001,"nbf":{"value":"16037428000000000001"}},"id_token":{"a":null,"acrs":{"essential":true,"value":"c1"}}}`},
		{`{"id_token":null}`, []string{"c1"}, true, `{"id_token":{"acrs":{"essential":true,"value":"c1"}}}`},
		{`[`, []string{"c1"}, true, `[`},
	} {
		if got := oidc.WithContexts(tc.claims, tc.contexts, tc.required); got != tc.want {
			t.Errorf("%s with %v: %s, want %s", tc.claims, tc.contexts, got, tc.want)
		}
	}
	contexts, classes := oidc.SplitContexts([]string{"c1", "mfa", "c99", "c0", "c100", "c01", "C1", "xc1"})
	if strings.Join(contexts, " ") != "c1 c99" || strings.Join(classes, " ") != "mfa c0 c100 c01 C1 xc1" {
		t.Errorf("contexts %v, classes %v", contexts, classes)
	}
}

func TestTokenCapabilities(t *testing.T) {
	for _, tc := range []struct{ claims, want string }{
		{"", `{"access_token":{"xms_cc":{"values":["cp1"]}}}`},
		{`{"access_token":{"xms_cc":{"values":["x","cp1"]}}}`, `{"access_token":{"xms_cc":{"values":["cp1","x"]}}}`},
		{`{"access_token":null}`, `{"access_token":{"xms_cc":{"values":["cp1"]}}}`},
		{`{"id_token":{"a":1}}`, `{"access_token":{"xms_cc":{"values":["cp1"]}},"id_token":{"a":1}}`},
		{`null`, `null`}, {`[`, `[`},
	} {
		if got := oidc.WithCapabilities(tc.claims, []string{"cp1"}); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.claims, got, tc.want)
		}
		if got := oidc.WithCapabilities(tc.claims, nil); got != tc.claims {
			t.Errorf("%s: %s without capabilities", tc.claims, got)
		}
	}
}
