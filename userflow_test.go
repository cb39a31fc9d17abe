package signin

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/signintest"
)

// b2cApp signs in by the flow B2C_1_signin, resets passwords by B2C_1_reset, and
// edits profiles by B2C_1_edit at /edit, back at /page/profile. answer may change
// what a flow answers.
func b2cApp(t *testing.T, answer func(*signintest.AuthResponse)) *app {
	a := newApp(t, func(o *appOptions) {
		o.issuerURL = B2C("contoso.b2clogin.com", "contoso.onmicrosoft.com", "B2C_1_signin")
		o.behaviour = func(b *signintest.Behaviour) {
			signintest.B2C(b)
			b.EditResponse = func(r *signintest.AuthResponse) {
				if answer != nil {
					answer(r)
				}
			}
		}
		o.config = func(c *Config) { c.PasswordResetFlow = "B2C_1_reset" }
	})
	a.mux.Handle("GET /edit", a.UserFlow("B2C_1_edit", "/page/profile"))
	return a
}

// flows are the user flows that browsers have been sent through, in order.
func (a *app) flows() (flows []string) {
	for _, c := range a.issuer.Calls(signintest.EndpointAuthorize) {
		u, err := url.Parse(c.URL)
		if err != nil {
			a.t.Fatal(err)
		}
		flows = append(flows, strings.ToLower(strings.Split(u.Path, "/")[2]))
	}
	return flows
}

func (a *app) wantFlows(want ...string) {
	a.t.Helper()
	if got := strings.Join(a.flows(), " "); got != strings.Join(want, " ") {
		a.t.Errorf("went through %s, want %s", got, strings.Join(want, " "))
	}
}

func refuse(r *signintest.AuthResponse, e signintest.OAuthError) {
	r.Params = url.Values{"state": r.Params["state"], "error": {e.Code}, "error_description": {e.Description}}
}

// TestProfileFlow: a profile is edited in a flow of its own, which signs nobody
// in; the sign-in after it brings the new claims, into one session.
func TestProfileFlow(t *testing.T) {
	a := b2cApp(t, nil)
	b := a.signIn()
	a.issuer.Update(func(b *signintest.Behaviour) { b.Users[0].Claims["name"] = "Alice Changed" })
	if p := b.Open(a.url + "/edit"); p.Status != http.StatusOK || p.Body != "page /page/profile" {
		t.Fatalf("%d %.300s\n%s", p.Status, p.Body, a.log)
	}
	a.wantFlows("b2c_1_signin", "b2c_1_edit", "b2c_1_signin")
	if n := a.redemptions(); n != 2 {
		t.Errorf("%d codes were redeemed, want those of the two sign-ins", n)
	}
	if claims := claimsOf(a, b); claims["name"] != "Alice Changed" {
		t.Errorf("name %v", claims["name"])
	}
}

// A user who leaves the flow is who they were.
func TestProfileFlowLeft(t *testing.T) {
	trips := 0
	a := b2cApp(t, func(r *signintest.AuthResponse) {
		if trips++; trips == 2 {
			refuse(r, signintest.B2CCancelled)
		}
	})
	b := a.signIn()
	if p := b.Open(a.url + "/edit"); p.Status != http.StatusOK || p.Body != "page /page/profile" {
		t.Errorf("%d %.300s", p.Status, p.Body)
	}
	a.wantFlows("b2c_1_signin", "b2c_1_edit")
}

// TestPasswordReset: who has forgotten their password is led to the flow for it,
// and signs in afterwards at the page they asked for.
func TestPasswordReset(t *testing.T) {
	trips := 0
	a := b2cApp(t, func(r *signintest.AuthResponse) {
		if trips++; trips == 1 {
			refuse(r, signintest.B2CForgotPassword)
		}
	})
	if p := a.browser().Open(a.url + "/page/x?y=1"); p.Status != http.StatusOK || p.Body != "page /page/x?y=1" {
		t.Fatalf("%d %.300s\n%s", p.Status, p.Body, a.log)
	}
	a.wantFlows("b2c_1_signin", "b2c_1_reset", "b2c_1_signin")
}

// An issuer that sends everybody to reset their password does not do so for ever.
func TestPasswordResetLoop(t *testing.T) {
	trips := 0
	a := b2cApp(t, func(r *signintest.AuthResponse) {
		if trips++; trips%2 == 1 {
			refuse(r, signintest.B2CForgotPassword)
		}
	})
	if p := a.browser().Open(a.url + "/me"); p.Status == http.StatusOK || len(a.flows()) > 8 {
		t.Errorf("%d after %d trips: %.200s", p.Status, len(a.flows()), p.Body)
	}
}

// TestFlowSignsNobodyIn: whatever a flow beside the sign-in's answers, and to
// whomever, it makes no token request and no session.
func TestFlowSignsNobodyIn(t *testing.T) {
	a := b2cApp(t, nil)
	b := a.browser()
	r := a.toCallback(b, "/edit")
	other := a.browser()
	for name, p := range map[string]*signintest.Page{
		"another browser": other.Send(r.Clone()), "an altered code": b.Send(edited(r, "code", "made-up")), "no code": b.Send(edited(r, "code")),
	} {
		if p.Status == http.StatusOK {
			t.Errorf("%s: %d %.200s", name, p.Status, p.Body)
		}
	}
	if n := a.redemptions(); n != 0 {
		t.Errorf("%d token requests", n)
	}
	if got := a.status(b); got != http.StatusUnauthorized {
		t.Errorf("signed in: %d", got)
	}
	// The state of a flow is no state of a sign-in: its answer stays the flow's.
	if got := a.subject(b); got != "alice" {
		t.Error(got)
	}
}

func TestUserFlowMistakes(t *testing.T) {
	plain := newApp(t)
	plain.mux.Handle("GET /edit", plain.UserFlow("B2C_1_edit", "/"))
	wantPage(t, plain, plain.browser().Open(plain.url+"/edit"), http.StatusInternalServerError, PageInternal)
	a := b2cApp(t, nil)
	for i, flow := range []string{"", "signin", "B2C_1_", "B2C_1_../../evil", "B2C_1_x?y", "B2C_1_x/y"} {
		at := "/bad/" + string(rune('a'+i))
		a.mux.Handle("GET "+at, a.UserFlow(flow, "/"))
		wantPage(t, a, a.browser().Open(a.url+at), http.StatusInternalServerError, PageInternal)
	}
	c := goodConfig()
	c.PasswordResetFlow = "B2C_1_reset"
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), "PasswordResetFlow") {
		t.Errorf("elsewhere: %v", err)
	}
}
