package signin

import (
	"net/http"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/signintest"
)

// TestRegistrationNotice: an issuer that knows another redirect URI sends nobody
// back, so the log says before that what must be registered. Once.
func TestRegistrationNotice(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) { b.Clients[0].RedirectURIs = []string{"https://other.example.test/"} }
		o.config = func(c *Config) { c.SignedOutPath = "/oidc/signed-out" }
	})
	for range 2 {
		if p := a.browser().Open(a.url + "/me"); p.Status == http.StatusOK {
			t.Fatalf("signed in with a redirect URI that is not registered: %.100s", p.Body)
		}
	}
	lines := logLines(t, a, "signin: must be registered at the issuer, the redirect URI to the letter")
	if len(lines) != 1 {
		t.Fatalf("%d lines, want one:\n%s", len(lines), a.log)
	}
	for name, want := range map[string]string{
		"issuer": a.issuer.URL(), "client_id": "client",
		"redirect_uri":             "https://app.example.test/oidc/callback",
		"post_logout_redirect_uri": "https://app.example.test/oidc/signed-out",
		"backchannel_logout_uri":   "https://app.example.test/oidc/backchannel-logout",
		"frontchannel_logout_uri":  "https://app.example.test/oidc/frontchannel-logout",
	} {
		if lines[0][name] != want {
			t.Errorf("%s is %v, want %s", name, lines[0][name], want)
		}
	}
}

// A path that is the application's is not to be registered.
func TestRegistrationNoticeWithoutFrontChannel(t *testing.T) {
	a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.NoFrontChannelLogout = true } })
	a.signIn()
	if strings.Contains(a.log.String(), "frontchannel_logout_uri") {
		t.Errorf("the log names a path that is not ours:\n%s", a.log)
	}
}

// TestNoSIDNotice: a front-channel logout that can find nothing says why, and
// no stranger makes it say so where it is not so.
func TestNoSIDNotice(t *testing.T) {
	const notice = "the issuer sends no sid in ID tokens"
	for _, tc := range []struct {
		name    string
		without bool // ID tokens have no sid
		signIn  bool
		query   string
		want    int
	}{
		{"no sid in tokens", true, true, "?sid=s-1", 1},
		{"no sid at all", true, true, "", 1},
		{"another's sid", false, true, "?sid=s-1", 0},
		{"before anybody has signed in", true, false, "?sid=s-1", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t, entraApp(Entra(EntraGlobal, contoso), nil), func(o *appOptions) {
				next := o.behaviour
				o.behaviour = func(b *signintest.Behaviour) {
					next(b)
					if b.OmitSID = tc.without; !tc.without {
						b.EditIDToken = func(tok *signintest.IDToken) { tok.Claims["sid"] = "s-2" }
					}
				}
			})
			if tc.signIn {
				if _, p := a.signInAs("carol"); p.Status != http.StatusOK {
					t.Fatalf("%d %.200s", p.Status, p.Body)
				}
			}
			for range 3 {
				a.browser().Send(&signintest.Request{URL: a.url + "/oidc/frontchannel-logout" + tc.query, From: a.issuer.URL(), Mode: "navigate", Dest: "iframe"})
			}
			if got := strings.Count(a.log.String(), notice); got != tc.want {
				t.Errorf("said %d times, want %d:\n%s", got, tc.want, a.log)
			}
		})
	}
}

// TestHybridIgnored: an issuer that answers a hybrid request with a code alone
// is named as such in the log.
func TestHybridIgnored(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) {
			b.EditResponse = func(r *signintest.AuthResponse) { delete(r.Params, "id_token") }
		}
	})
	wantPage(t, a, a.browser().Open(a.url+"/me"), http.StatusBadRequest, PageTokenRejected)
	if got := lastCause(a); !strings.Contains(got, `set ResponseType "code"`) || a.redemptions() != 0 {
		t.Errorf("logged %q after %d redemptions", got, a.redemptions())
	}
}
