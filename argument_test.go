package signin

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/signintest"
)

// noScopes are what no issuer can be asked for, as a program may write it.
var noScopes = map[string][]string{
	"two in one":       {"mail.read mail.send"},
	"empty":            {""},
	"empty among good": {"mail.read", ""},
	"NUL":              {"mail.read\x00"},
	"tab":              {"mail.read\tmail.send"},
	"line end":         {"mail.read\n"},
	"not ASCII":        {"größe"},
	"not UTF-8":        {"mail.\xff"},
	"a quote":          {`mail."read"`},
	"a backslash":      {`mail\read`},
	"DEL":              {"mail.read\x7f"},
	"too long":         {strings.Repeat("s", 513)},
	"too many":         manyScopes(maxScopes+1, 2),
	"too many bytes":   manyScopes(9, 500),
}

// manyScopes are n different ones, of size bytes each.
func manyScopes(n, size int) []string {
	var scopes []string
	for i := range n {
		scopes = append(scopes, strings.Repeat("s", size-2)+fmt.Sprintf("%02d", i))
	}
	return scopes
}

// What no issuer can be asked for is the program's mistake wherever it is
// written: an error at once, that is no interaction and names what is wrong.
// Nobody is sent to the issuer for it, and the issuer is not asked.
func TestMistakenArguments(t *testing.T) {
	type need struct {
		scopes   []string
		resource string
		acr      []string
		claims   string
	}
	cases := map[string]need{
		"resource with a space":    {resource: "https://a.example https://b.example"},
		"resource with NUL":        {resource: "https://a.example/\x00"},
		"resource not ASCII":       {resource: "https://größe.example"},
		"resource with a fragment": {resource: "https://a.example/#part"},
		"resource too long":        {resource: "https://a.example/" + strings.Repeat("a", maxResource)},
		"ACR two in one":           {acr: []string{"gold silver"}},
		"ACR empty":                {acr: []string{""}},
		"ACR with NUL":             {acr: []string{"gold\x00"}},
		"ACR not ASCII":            {acr: []string{"größe"}},
		"ACR too many":             {acr: slices.Repeat([]string{"gold"}, maxACR+1)},
		"claims not JSON":          {claims: "cp1"},
		"claims not an object":     {claims: `["cp1"]`},
		"claims too long":          {claims: `{"a":"` + strings.Repeat("a", oidc.MaxClaims) + `"}`},
	}
	for name, scopes := range noScopes {
		cases["scope "+name] = need{scopes: scopes}
	}
	a := newApp(t)
	var now need
	report := func(w http.ResponseWriter, r *http.Request, err error) {
		if a.Challenge(w, r, err) {
			return
		}
		if _, ok := errors.AsType[*InteractionRequiredError](err); ok || err == nil {
			t.Errorf("error %v, want a plain one", err)
		}
		http.Error(w, fmt.Sprint(err), http.StatusBadGateway)
	}
	a.mux.HandleFunc("/source", func(w http.ResponseWriter, r *http.Request) {
		_, err := TokenSource(r.Context(), now.scopes...).Token()
		report(w, r, err)
	})
	request := func() TokenRequest {
		return TokenRequest{Scopes: now.scopes, Resource: now.resource, Claims: now.claims}
	}
	a.mux.HandleFunc("/app", func(w http.ResponseWriter, r *http.Request) {
		_, err := a.AppTokenSource(now.scopes...).Token()
		report(w, r, err)
	})
	a.mux.HandleFunc("/request", func(w http.ResponseWriter, r *http.Request) {
		_, err := request().Source(r.Context()).Token()
		report(w, r, err)
	})
	a.mux.HandleFunc("/transport", func(w http.ResponseWriter, r *http.Request) {
		client := &http.Client{Transport: &Transport{Request: request(), Base: roundTripper(func(*http.Request) (*http.Response, error) {
			t.Error("the API was asked")
			return nil, errors.New("asked")
		})}}
		req, _ := http.NewRequestWithContext(r.Context(), http.MethodGet, "https://api.example.test/", http.NoBody)
		_, err := client.Do(req)
		report(w, r, err)
	})
	a.mux.HandleFunc("/made-up", func(w http.ResponseWriter, r *http.Request) {
		_, err := request().Source(NewContext(r.Context(), &User{Subject: "alice"}, nil)).Token()
		report(w, r, err)
	})
	a.mux.HandleFunc("/require", func(w http.ResponseWriter, r *http.Request) {
		need := Requirement{Scopes: now.scopes, Resource: now.resource, ACR: now.acr}
		a.Require(need)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			t.Error("the page was served")
		})).ServeHTTP(w, r)
	})
	a.mux.HandleFunc("/challenge", func(w http.ResponseWriter, r *http.Request) {
		need := &InteractionRequiredError{Reason: ReasonConsent, Scopes: now.scopes, Resource: now.resource, ACR: now.acr, Claims: now.claims}
		if !a.Challenge(w, r, need) {
			t.Error("Challenge wrote nothing")
		}
	})
	signedIn, stranger := a.signIn(), a.browser()
	asked, challenged := a.redemptions()+a.refreshed(), a.issuer.Count(signintest.EndpointAuthorize)
	for name, tc := range cases {
		paths := []string{"/challenge"}
		if tc.claims == "" {
			paths = append(paths, "/require")
		}
		if tc.acr == nil {
			paths = append(paths, "/request", "/transport", "/made-up")
		}
		if tc.scopes != nil {
			paths = append(paths, "/source", "/app")
		}
		now = tc
		for _, path := range paths {
			for who, b := range map[string]*signintest.Browser{"alice": signedIn, "a stranger": stranger} {
				if p := b.Open(a.url + path); p.Status != http.StatusInternalServerError && p.Status != http.StatusBadGateway {
					t.Errorf("%s at %s for %s: status %d at %s, want 500 or 502", name, path, who, p.Status, p.URL)
				}
			}
		}
	}
	if n := a.redemptions() + a.refreshed() - asked; n != 0 {
		t.Errorf("%d token requests, want none", n)
	}
	if n := a.issuer.Count(signintest.EndpointAuthorize) - challenged; n != 0 {
		t.Errorf("%d challenges, want none", n)
	}
	if !a.signedIn(signedIn) {
		t.Error("alice is not signed in any more")
	}
}

// What is sealed for a URL opens again, whatever a handler asks for and
// whatever page it is asked for at: an answer that the callback cannot read
// would send its user to the issuer in vain.
func TestSealedOpens(t *testing.T) {
	a := newApp(t)
	pages := []string{"/", "/p?" + strings.Repeat("&", site.MaxReturnPath-3), "/p?" + strings.Repeat(`"`, site.MaxReturnPath-3), "/" + strings.Repeat("p", site.MaxReturnPath-1)}
	for _, page := range pages {
		to := site.NewReturnPath(page)
		if to.String() != page {
			t.Fatalf("%.20s is no return path", page)
		}
		for size := 0; size < oidc.MaxScope; size += 500 {
			need := &InteractionRequiredError{
				Reason: ReasonConsent, Scopes: manyScopes(size/500, 499),
				Claims: `{"a":"` + strings.Repeat("&", min(2*size, oidc.MaxClaims-8)) + `"}`,
			}
			if err := need.check(); err != nil {
				t.Fatal(err)
			}
			tx := &transaction{ID: seal.Random(16), Time: 1, Return: page, Browser: seal.Random(16), Scopes: need.Scopes, Resource: strings.Repeat("r", size/2)}
			if state, err := a.states.seal(tx); err == nil {
				if opened, err := a.states.open(state); err != nil || !reflect.DeepEqual(opened, tx) {
					t.Errorf("scopes of %d bytes at %.5q...: sealed in %d, and not opened as it was: %v", size, page, len(state), err)
				}
			} else if _, ok := errors.AsType[*argumentError](err); !ok || size < 1000 {
				t.Errorf("scopes of %d bytes at %.5q...: %v", size, page, err)
			}
			link := a.states.sealNeed(need, to)
			asked, err := a.states.openAsk(link)
			if err != nil || len(link) > maxState {
				t.Fatalf("a link for %d bytes at %.5q...: %d bytes, %v", size, page, len(link), err)
			}
			if path, _, _ := strings.Cut(page, "?"); !strings.HasPrefix(asked.Return, path) || size == 0 && (asked.Return != page || asked.Need.Claims != need.Claims) {
				t.Errorf("a link for %d bytes at %.5q... leads to %.20q", size, page, asked.Return)
			}
		}
	}
}

// A link in an answer that could not redirect leads to the page, however many
// characters in its query are of those that JSON escapes for HTML.
func TestAskKeepsPage(t *testing.T) {
	a := newApp(t)
	page := "/page/x?" + strings.Repeat("&a=b", 400)
	b := a.browser()
	p := b.Follow(&signintest.Request{Method: "POST", URL: a.url + page, From: a.url + page, Activated: true})
	link := p.Link("Sign in")
	if p.Status != http.StatusUnauthorized || link == "" {
		t.Fatalf("%d %.300s", p.Status, p.Body)
	}
	if p = b.Click(p, link); p.URL != a.url+page {
		t.Errorf("the link leads to %.60s", p.URL)
	}
}
