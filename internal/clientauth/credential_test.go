package clientauth_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/internal/clientauth"
)

const (
	basicMethod = "client_secret_basic"
	postMethod  = "client_secret_post"
	jwtMethod   = "private_key_jwt"
)

// credentialProof authenticates one request and returns what was added to it.
func credentialProof(t testing.TB, c signin.Credential, in clientauth.Request) (url.Values, http.Header) {
	t.Helper()
	form, header := url.Values{}, http.Header{}
	if err := clientauth.Authenticate(t.Context(), c, in, form, header); err != nil {
		t.Fatalf("authenticate: %v", err)
	}
	return form, header
}

func TestAuthenticateMethod(t *testing.T) {
	jwt := signin.Assertion(func(context.Context) (string, error) { return "aa.bb.cc", nil })
	const basic = "Basic YXBwOnMzY3JldA=="
	post := url.Values{"client_id": {"app"}, "client_secret": {"s3cret"}}
	signed := url.Values{
		"client_id":             {"app"},
		"client_assertion":      {"aa.bb.cc"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	}
	for _, tc := range []struct {
		name    string
		c       signin.Credential
		methods []string
		form    url.Values
		header  string
	}{
		{"public", nil, []string{basicMethod}, url.Values{"client_id": {"app"}}, ""},
		{"nothing announced", signin.Secret("s3cret"), nil, url.Values{}, basic},
		{"basic", signin.Secret("s3cret"), []string{basicMethod}, url.Values{}, basic},
		{"both", signin.Secret("s3cret"), []string{postMethod, basicMethod}, url.Values{}, basic},
		{"post", signin.Secret("s3cret"), []string{postMethod}, post, ""},
		{"post among others", signin.Secret("s3cret"), []string{jwtMethod, postMethod}, post, ""},
		{"neither", signin.Secret("s3cret"), []string{jwtMethod}, url.Values{}, basic},
		{"forced post", signin.SecretPost("s3cret"), []string{basicMethod}, post, ""},
		{"forced post, nothing announced", signin.SecretPost("s3cret"), nil, post, ""},
		{"assertion", jwt, []string{basicMethod}, signed, ""},
		{"rotating", signin.Rotating(func(context.Context) (signin.Credential, error) { return jwt, nil }), nil, signed, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			form, header := credentialProof(t, tc.c, clientauth.Request{ClientID: "app", Methods: tc.methods})
			if form.Encode() != tc.form.Encode() {
				t.Errorf("form = %q, want %q", form.Encode(), tc.form.Encode())
			}
			if got := header.Get("Authorization"); got != tc.header {
				t.Errorf("Authorization = %q, want %q", got, tc.header)
			}
		})
	}
}

func TestBasicEncoding(t *testing.T) {
	for _, tc := range []struct{ id, secret, want string }{
		{"s6BhdRkqt3", "gX1fBat3bV", "s6BhdRkqt3:gX1fBat3bV"}, // RFC 6749, section 2.3.1
		{"app", " %&+£€", "app:+%25%26%2B%C2%A3%E2%82%AC"},    // RFC 6749, appendix B
		{"https://app.example/a:b", "c:d", "https%3A%2F%2Fapp.example%2Fa%3Ab:c%3Ad"},
		{"ä b", "x%3Ay+z", "%C3%A4+b:x%253Ay%2Bz"},
		{"app", "aB8~-_.9Q", "app:aB8~-_.9Q"}, // what Entra's secrets are made of stays as it is
	} {
		_, header := credentialProof(t, signin.Secret(tc.secret), clientauth.Request{ClientID: tc.id})
		encoded, ok := strings.CutPrefix(header.Get("Authorization"), "Basic ")
		pair, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil || string(pair) != tc.want {
			t.Errorf("%q, %q: sent %q (%v), want %q", tc.id, tc.secret, pair, err, tc.want)
			continue
		}
		// As a server reads it: the first colon divides, then each half is decoded.
		id, secret, _ := strings.Cut(string(pair), ":")
		id, err1 := url.QueryUnescape(id)
		secret, err2 := url.QueryUnescape(secret)
		if id != tc.id || secret != tc.secret || err1 != nil || err2 != nil {
			t.Errorf("%q, %q: a server reads %q, %q", tc.id, tc.secret, id, secret)
		}
	}
}

// A second attempt uses the first one's form and header. Whatever kinds follow
// each other, exactly one proof is sent.
func TestAuthenticateReplacesEarlierProof(t *testing.T) {
	jwt := signin.Assertion(func(context.Context) (string, error) { return "aa.bb.cc", nil })
	all := map[string]signin.Credential{"public": nil, "basic": signin.Secret("one"), "post": signin.SecretPost("two"), "assertion": jwt}
	in := clientauth.Request{ClientID: "app"}
	for first, c1 := range all {
		for second, c2 := range all {
			form, header := url.Values{"code": {"c"}}, http.Header{"Accept": {"application/json"}}
			if err := errors.Join(clientauth.Authenticate(t.Context(), c1, in, form, header), clientauth.Authenticate(t.Context(), c2, in, form, header)); err != nil {
				t.Fatal(err)
			}
			want, wantHeader := credentialProof(t, c2, in)
			want.Set("code", "c")
			if form.Encode() != want.Encode() || header.Get("Authorization") != wantHeader.Get("Authorization") {
				t.Errorf("%s after %s: form %q, Authorization %q", second, first, form.Encode(), header.Get("Authorization"))
			}
			if header.Get("Accept") != "application/json" {
				t.Errorf("%s after %s: lost the other headers", second, first)
			}
		}
	}
}

func TestAssertionFunction(t *testing.T) {
	failed := errors.New("vault is sealed")
	for _, tc := range []struct {
		name, result string
		err          error
		want         string // sent, or part of the error
	}{
		{"as it is", "eyJh.eyJi.c2ln", nil, "eyJh.eyJi.c2ln"},
		{"file with a line end", " eyJh.eyJi.c2ln\r\n", nil, "eyJh.eyJi.c2ln"},
		{"encrypted", "a.b.c.d.e", nil, "a.b.c.d.e"},
		{"empty", "", nil, "0 bytes that are not a JWT"},
		{"error page", "<html>a.b.c</html>", nil, "18 bytes that are not a JWT"},
		{"a secret in its place", "hunter2-hunter2", nil, "15 bytes that are not a JWT"},
		{"two lines", "a.b.c\na.b.c", nil, "not a JWT"},
		{"huge", "a.b." + strings.Repeat("c", clientauth.MaxAssertion), nil, "not a JWT"},
		{"failing", "a.b.c", failed, "vault is sealed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			calls := 0
			c := signin.Assertion(func(ctx context.Context) (string, error) {
				calls++
				if _, ok := ctx.Deadline(); !ok {
					t.Error("the function has no deadline")
				}
				return tc.result, tc.err
			})
			for range 2 {
				form := url.Values{}
				err := clientauth.Authenticate(t.Context(), c, clientauth.Request{ClientID: "app"}, form, http.Header{})
				switch {
				case err == nil && form.Get("client_assertion") != tc.want:
					t.Errorf("sent %q, want %q", form.Get("client_assertion"), tc.want)
				case err != nil && (!strings.Contains(err.Error(), tc.want) || form.Has("client_assertion")):
					t.Errorf("error %q, form %q; want %q and nothing sent", err, form.Encode(), tc.want)
				case err != nil:
					wantTemporary(t, err)
					if tc.result != "" && strings.Contains(err.Error(), strings.TrimSpace(tc.result)) {
						t.Errorf("error %q repeats what it was given", err)
					}
				}
				if !errors.Is(err, tc.err) && tc.err != nil {
					t.Errorf("error %v lost its cause", err)
				}
			}
			if calls != 2 {
				t.Errorf("called %d times for 2 requests", calls)
			}
		})
	}
}

// wantTemporary fails unless err tells its reader that nobody is to blame.
func wantTemporary(t testing.TB, err error) {
	t.Helper()
	ce, ok := errors.AsType[*clientauth.Error](err)
	if !ok || !ce.Temporary() {
		t.Errorf("error %v (%T) is not a temporary *clientauth.Error", err, err)
	}
}

func TestReloadable(t *testing.T) {
	load := func(context.Context) (signin.Credential, error) { return signin.Secret("s"), nil }
	for _, tc := range []struct {
		name string
		c    signin.Credential
		want bool
	}{
		{"public", nil, false},
		{"secret", signin.Secret("s"), false},
		{"key", signin.PrivateKey(signin.ClientKey{Signer: clientKeys().ed}), false},
		{"assertion", signin.Assertion(func(context.Context) (string, error) { return "", nil }), true},
		{"rotating", signin.Rotating(load), true},
	} {
		if got := clientauth.Reload(tc.c); got != tc.want {
			t.Errorf("%s: reloadCredential = %t, want %t", tc.name, got, tc.want)
		}
	}
}

func TestValidateCredential(t *testing.T) {
	for _, tc := range []struct {
		name string
		c    signin.Credential
		want string // "" is valid
	}{
		{"public", nil, ""},
		{"secret", signin.Secret("s p£ce"), ""},
		{"empty secret", signin.Secret(""), "signin.Secret is empty"},
		{"empty post secret", signin.SecretPost(""), "signin.SecretPost is empty"},
		{"secret with line end", signin.Secret("s3cret\n"), "signin.Secret holds a control character"},
		{"assertion", signin.Assertion(func(context.Context) (string, error) { return "", nil }), ""},
		{"assertion without function", signin.Assertion(nil), "signin.Assertion has no function"},
		{"rotating", signin.Rotating(func(context.Context) (signin.Credential, error) { panic("called by New") }), ""},
		{"rotating without function", signin.Rotating(nil), "signin.Rotating has no function"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := clientauth.Validate(tc.c)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("validateCredential = %v, want %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("error %q holds the secret", err)
			}
		})
	}
}

func TestCredentialsNeverPrint(t *testing.T) {
	const secret = "correct-horse-battery"
	key := ed25519.NewKeyFromSeed([]byte("seed-seed-seed-seed-seed-seed-32"))
	loaded := signin.Rotating(func(context.Context) (signin.Credential, error) { return signin.Secret(secret), nil })
	credentialProof(t, loaded, clientauth.Request{ClientID: "app"})
	seed := fmt.Sprintf("%d", key.Seed()[:8])
	leaks := []string{
		secret, hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret)),
		"seed-seed", hex.EncodeToString(key.Seed()[:8]), strings.Trim(seed, "[]"), strings.ReplaceAll(strings.Trim(seed, "[]"), " ", ","),
		strings.ReplaceAll(strings.Trim(fmt.Sprintf("%#v", key.Seed()[:8]), "}"), "[]byte{", ""),
		base64.StdEncoding.EncodeToString(key.Seed())[:16],
	}
	for name, c := range map[string]any{
		"Secret": signin.Secret(secret), "SecretPost": signin.SecretPost(secret), "Rotating": loaded,
		"PrivateKey":        signin.PrivateKey(signin.ClientKey{Signer: key}),
		"Assertion":         signin.Assertion(func(context.Context) (string, error) { return secret, nil }),
		"ClientKey":         signin.ClientKey{Signer: key},
		"*signin.ClientKey": &signin.ClientKey{Signer: key},
	} {
		values := []any{c, struct{ C any }{c}, []any{c}, map[string]any{"c": c}}
		if _, ok := c.(signin.Credential); ok {
			// fmt calls no methods on what it finds in unexported fields.
			values = append(values, struct{ c any }{c}, &struct{ c []any }{[]any{c}})
		}
		for _, v := range values {
			var out bytes.Buffer
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
				fmt.Fprintf(&out, verb+"\n", v)
			}
			slog.New(slog.NewJSONHandler(&out, nil)).Info("c", "c", v)
			slog.New(slog.NewTextHandler(&out, nil)).Info("c", "c", v)
			encoded, err := json.Marshal(v)
			if err != nil {
				t.Errorf("%s: json.Marshal: %v", name, err)
			}
			out.Write(encoded)
			for _, leak := range leaks {
				if strings.Contains(out.String(), leak) {
					t.Errorf("%s in a %T shows %q in\n%s", name, v, leak, &out)
				}
			}
		}
		if got := fmt.Sprintf("%v", c); !strings.HasPrefix(got, "signin.") {
			t.Errorf("%s prints as %q, want its kind", name, got)
		}
	}
}
