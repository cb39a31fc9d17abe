package chromium

import (
	"net/http"
	"strings"
	"testing"
)

// signInByHand opens a page and does what a person does at the demo's provider.
func signInByHand(b *tab, d *demo, path, heading string) {
	b.t.Helper()
	b.open(d.url + path)
	b.heading("Sign in")
	login(b)
	b.heading("Allow access?")
	b.press("Allow")
	b.at(d.url+path, heading)
}

func login(b *tab) {
	b.t.Helper()
	b.fill("username", "alice")
	b.fill("password", "wonderland")
	b.press("Sign in")
}

// A person's way through the whole site.
func TestPerson(t *testing.T) {
	t.Parallel()
	d := startDemo(t)
	b := newProfile(t).first

	b.open(d.url + "/")
	b.heading("Sign in and call an API")
	b.press("Sign in")
	b.heading("Sign in")
	b.wait("the provider's origin", `location.hostname == "127.0.0.1"`)
	b.fill("username", "alice")
	b.fill("password", "wrong")
	b.press("Sign in")
	b.wait("the refusal", `document.querySelector("[role=alert]")`)
	login(b)
	b.heading("Allow access?")
	if strings.Contains(b.text(), "mail.send") {
		t.Error("the permission to send mail is asked for at sign-in")
	}
	b.press("Allow")
	b.at(d.url+"/me", "You are Alice Liddell")

	b.press("API")
	b.heading("What the API says")
	b.shows("200 OK")
	b.shows("u-1001")

	b.press("Mail")
	b.heading("Send a mail")
	typed := map[string]string{"to": "bob@demo.example", "subject": "Tea & cake", "body": "At four?\n— A."}
	for id, text := range typed {
		b.fill(id, text)
	}
	b.press("Send")
	b.heading("Allow access?")
	b.shows("Send mail in your name")
	b.press("Allow")
	b.at(d.url+"/mail?ask", "Send a mail")
	for id, want := range typed {
		if got := b.value(id); got != want {
			t.Errorf("%s came back as %q, want %q", id, got, want)
		}
	}
	b.press("Send")
	b.at(d.url+"/mail?sent", "Send a mail")
	b.shows("Sent.")

	b.press("Tokens")
	b.heading("Tokens held for you")
	b.shows("mail.send")
	b.press("Read mail")
	b.heading("Allow access?")
	b.press("Allow")
	b.at(d.url+"/tokens", "Tokens held for you")
	b.shows("mail.read")
	if strings.Contains(eval[string](b, `document.documentElement.outerHTML`), "eyJ") {
		t.Error("a token is on the page")
	}

	b.press("Vault")
	b.heading("Confirm it is you")
	b.fill("code", "123456")
	b.press("Confirm")
	b.at(d.url+"/vault", "The vault")

	b.press("You")
	b.heading("You are Alice Liddell")
	b.press("Sign out")
	b.at(d.url+"/", "Sign in and call an API")

	// Back leads to what was protected. It must be asked for anew, not shown
	// from a cache, and the provider has forgotten the user as well.
	b.back(1)
	b.heading("Sign in")
	b.wait("the provider's origin", `location.hostname == "127.0.0.1"`)
}

// A page that may be cached would be shown by Back from the back/forward cache,
// whatever became of the cookies: only the sign-out can prevent that. (A page
// with no-store Chromium drops by itself when an HttpOnly cookie changes.)
func TestBackAfterSignOut(t *testing.T) {
	t.Parallel()
	a := newApp(t, newIssuer(t))
	b := newProfile(t).first
	a.signIn(b)
	b.open(a.url + "/page?cached") // sets no cookie any more, so no no-store
	b.at(a.url+"/page?cached", "application")
	b.open(a.url + "/signout")
	b.heading("Sign out?")
	b.press("Sign out")
	b.at(a.url+"/", "public")
	// Whoever comes to the issuer from now on is seen to have been there.
	a.refuse("access_denied", "")
	b.back(2)
	b.heading("Sign-in was cancelled")
}

// Every way that an answer can come, and which cookies come with it.
func TestFlows(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, responseType, mode, method string
		session                          bool // whether the callback carries the session cookie
	}{
		{"hybrid", "code id_token", "form_post", http.MethodPost, false},
		{"code by form_post", "code", "form_post", http.MethodPost, false},
		{"code by query", "code", "query", http.MethodGet, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d := startDemo(t, "OIDC_RESPONSE_TYPE", tc.responseType, "OIDC_RESPONSE_MODE", tc.mode)
			b := newProfile(t).first
			signInByHand(b, d, "/me?a=b&c=%2F", "You are Alice Liddell")
			// Signed in already: now it shows which cookies the callback gets.
			b.open(d.url + "/api?view=page&scope=mail.read")
			b.heading("Allow access?")
			b.press("Allow")
			b.heading("What the API says")

			callbacks := d.requests("/oidc/callback")
			if len(callbacks) != 2 {
				t.Fatalf("%d callbacks, want 2: %v", len(callbacks), callbacks)
			}
			for i, c := range callbacks {
				if c.Method != tc.method || c.Status != http.StatusSeeOther || c.Header.Get("Sec-Fetch-Site") != "cross-site" || c.Header.Get("Sec-Fetch-Dest") != "document" {
					t.Errorf("callback %d: %v; want a cross-site %s", i, c, tc.method)
				}
				if !c.sent("signin-browser") {
					t.Errorf("callback %d came without the browser cookie", i)
				}
			}
			if got := callbacks[1].sent("signin"); got != tc.session {
				t.Errorf("the session cookie on the callback: %t, want %t", got, tc.session)
			}
			// The page after the callback is where the session counts.
			pages := d.requests("/api?view=page&scope=mail.read")
			if last := pages[len(pages)-1]; !last.sent("signin") || last.Status != http.StatusOK {
				t.Errorf("after the callback: %v, session cookie %t", last, last.sent("signin"))
			}
		})
	}
}
