// Package signintest helps to test applications that sign users in with
// OpenID Connect. It has
//
//   - [Issuer], an OpenID Provider on loopback that signs in the user a test
//     configures, counts what it is asked, and lies in every way a test wants;
//   - [Browser], an HTTP client that keeps cookies, follows redirects, submits
//     self-submitting forms and sends Sec-Fetch headers as Chromium does;
//   - [Network], which gives loopback servers host names and certificates, so
//     that issuer and application are cross-site as they are in production;
//   - TestStore, the conformance test for session stores.
//
// A test of an application, from the outside:
//
//	func TestMail(t *testing.T) {
//		// The issuer knows the client "client" with the secret "secret".
//		issuer := signintest.NewIssuer(t, nil)
//		auth, err := signin.New(signin.Config{ // no BaseURL: it is the test server's
//			Issuer: issuer.URL(), ClientID: "client", Credential: signin.Secret("secret"),
//			Keys: [][]byte{[]byte("32 bytes that will do in a test.")}, HTTPClient: issuer.Client(),
//		})
//		if err != nil {
//			t.Fatal(err)
//		}
//		mux := http.NewServeMux()
//		mux.Handle("/mail", auth.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
//			fmt.Fprint(w, "mail of ", signin.UserFromContext(r.Context()).Subject)
//		})))
//		app := httptest.NewServer(auth.Handler(mux))
//		defer app.Close()
//
//		// To the issuer, which signs alice in, and back.
//		page := signintest.NewBrowser(t, nil).Open(app.URL + "/mail")
//		if page.Status != http.StatusOK || page.Body != "mail of alice" {
//			t.Errorf("got %d %q, %v", page.Status, page.Body, page.Err)
//		}
//	}
//
// Who signs in, and what goes wrong, [Issuer.Update] says:
//
//	issuer.Update(func(b *signintest.Behaviour) { b.User = "bob" })
//
// A provider's ways come by its name, such as [Entra], [Google] or [Keycloak]; see
// [Profile]. A site in another language is tested against command
// signintest/cmd/issuer, which serves the same issuer.
//
// The package is for tests only: the issuer signs anybody in, by design.
package signintest

import (
	"cmp"
	"crypto/rand"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// IssuerOptions are what must be known before an [Issuer] starts.
// Nil, or the zero value, is an issuer at http://localhost:port.
type IssuerOptions struct {
	// URL is the issuer identifier. Its path is free. A loopback host without
	// a port (localhost, 127.0.0.1) gets the listener's port; any other host
	// is entered in Network, and only clients of that Network reach it. With
	// https the certificate is the Network's. Empty means http://localhost,
	// which is cross-site to an application on 127.0.0.1.
	URL string

	// Network is where the host name of URL is entered. Nil makes a Network
	// of the issuer's own; see [Issuer.Network].
	Network *Network

	// Behaviour, if not nil, edits the behaviour the issuer starts with.
	Behaviour func(*Behaviour)
}

// Issuer is an OpenID Provider for tests. It has no login page: who is sent
// to it comes back signed in. Out of the box it behaves well; [Issuer.Update],
// [Issuer.Fail] and [Issuer.FailNext] change that. All methods may be called
// from any goroutine while it serves.
type Issuer struct {
	tb      testing.TB
	network *Network
	url     *url.URL
	closing chan struct{} // closed when the test ends, so that nothing hangs

	behaviour atomic.Pointer[Behaviour] // never edited in place

	mu       sync.Mutex // guards all that follows
	keys     []Key      // published, the newest last
	borrowed []Key      // all ever used, published or not
	grants   []*grant
	codes    map[string]*grant
	pushed   map[string]pushedRequest // by request_uri
	tokens   map[string]*token
	sessions map[string]*session // by the value of the issuer's cookie
	consents map[consent]map[string]bool
	jtis     map[string]bool
	own      map[string]Key // of Client.OwnKey, by client
	forms    map[string]int // of LoginPage: the sessions begun before, by form
	begun    int            // sessions
	secrets  []string
	newest   map[string]string // the last ID token of a session, by its sid
	calls    map[Endpoint][]Call
	arrived  chan struct{} // closed and replaced at each call
	failing  map[Endpoint]Fault
	failNext map[Endpoint][]Fault
}

// session is one browser's sign-in at the issuer.
type session struct {
	number   int
	sid      string
	subject  string
	authTime time.Time
}

// consent names what a user has agreed to by the pair that agreed.
type consent struct{ clientID, subject string }

// NewIssuer starts an issuer that stops when the test ends. It fails the test
// if it cannot listen or if the options make no sense.
func NewIssuer(tb testing.TB, options *IssuerOptions) *Issuer {
	tb.Helper()
	o := IssuerOptions{}
	if options != nil {
		o = *options
	}
	i := &Issuer{
		tb:       tb,
		network:  o.Network,
		closing:  make(chan struct{}),
		codes:    map[string]*grant{},
		pushed:   map[string]pushedRequest{},
		tokens:   map[string]*token{},
		sessions: map[string]*session{},
		newest:   map[string]string{},
		consents: map[consent]map[string]bool{},
		jtis:     map[string]bool{},
		own:      map[string]Key{},
		forms:    map[string]int{},
		calls:    map[Endpoint][]Call{},
		arrived:  make(chan struct{}),
		failing:  map[Endpoint]Fault{},
		failNext: map[Endpoint][]Fault{},
	}
	if i.network == nil {
		i.network = NewNetwork(tb)
	}
	if o.URL == "" {
		o.URL = "http://localhost"
	}
	b := defaultBehaviour()
	if o.Behaviour != nil {
		o.Behaviour(b)
	}
	i.behaviour.Store(b)
	u, err := url.Parse(i.network.Serve(o.URL, i))
	if err != nil {
		tb.Fatalf("signintest: issuer URL: %v", err)
	}
	i.url = u
	i.serveHosts()
	// Registered after Serve, so it runs before the listener's cleanup, which
	// waits for requests under way.
	tb.Cleanup(i.close)
	return i
}

func (i *Issuer) close() {
	close(i.closing)
	i.mu.Lock()
	defer i.mu.Unlock()
	keyPool.put(i.borrowed)
}

// URL returns the issuer identifier, as an application configures it.
func (i *Issuer) URL() string { return i.url.String() }

// Network returns the network the issuer's host name is known in.
func (i *Issuer) Network() *Network { return i.network }

// Client returns an HTTP client that reaches the issuer and trusts its
// certificate, for the application's back channel. It reaches nothing but
// loopback.
func (i *Issuer) Client() *http.Client { return i.network.Client() }

// Update changes the issuer's behaviour. The function gets a copy that no
// request sees; requests that arrive after Update has returned follow it.
func (i *Issuer) Update(f func(*Behaviour)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	b := i.behaviour.Load().clone()
	f(b)
	i.behaviour.Store(b)
}

// Secrets returns every secret the issuer has handed out or knows: codes,
// access, refresh and ID tokens, and the clients' secrets. A test can search
// logs and pages for them.
func (i *Issuer) Secrets() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	secrets := append([]string(nil), i.secrets...)
	for _, c := range i.behaviour.Load().Clients {
		if c.Secret != "" {
			secrets = append(secrets, c.Secret)
		}
	}
	return secrets
}

// remember adds a value to what Secrets returns.
func (i *Issuer) remember(secret string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.secrets = append(i.secrets, secret)
}

// Endpoint names one of the issuer's endpoints in logs and faults.
type Endpoint string

// The endpoints of an Issuer. EndpointAny stands for all of them in
// [Issuer.Fail].
const (
	EndpointAny        Endpoint = ""
	EndpointDiscovery  Endpoint = "discovery"
	EndpointKeys       Endpoint = "keys"
	EndpointAuthorize  Endpoint = "authorize"
	EndpointToken      Endpoint = "token"
	EndpointRevocation Endpoint = "revocation"
	EndpointEndSession Endpoint = "end_session"
	EndpointUserInfo   Endpoint = "userinfo"
	EndpointAPI        Endpoint = "api"
	EndpointPush       Endpoint = "push" // of authorization requests; Entra and B2C have none
)

// EndpointURL returns the URL of an endpoint, for example that of the
// protected API.
func (i *Issuer) EndpointURL(e Endpoint) string {
	b := i.behaviour.Load()
	if b.microsoft() {
		return i.entraURL(e, i.placeOf(b))
	}
	return i.plainURL(b, e).String()
}

// plainURL is the URL of an endpoint at an issuer without tenants.
func (i *Issuer) plainURL(b *Behaviour, e Endpoint) *url.URL {
	u := *i.url
	path := cmp.Or(b.Endpoints[e], plainPaths[e])
	if other, err := url.Parse(path); err == nil && other.IsAbs() {
		if !isLoopback(u.Hostname()) {
			return other
		}
		u.Path = other.Path
		return &u
	}
	u.Path = strings.TrimSuffix(u.Path, "/") + path
	return &u
}

// serveHosts enters the hosts of endpoints that are not the issuer's own.
func (i *Issuer) serveHosts() {
	b := i.behaviour.Load()
	served := map[string]bool{hostPort(i.url): true}
	for e := range b.Endpoints {
		if u := i.plainURL(b, e); !b.microsoft() && !served[hostPort(u)] {
			served[hostPort(u)] = true
			i.network.Serve(origin(u), i)
		}
	}
}

var plainPaths = map[Endpoint]string{
	EndpointDiscovery:  "/.well-known/openid-configuration",
	EndpointKeys:       "/keys",
	EndpointAuthorize:  "/authorize",
	EndpointToken:      "/token",
	EndpointRevocation: "/revoke",
	EndpointEndSession: "/logout",
	EndpointUserInfo:   "/userinfo",
	EndpointAPI:        "/api",
	EndpointPush:       "/par",
}

// exchange is one request with all its handler needs to know.
type exchange struct {
	place
	r    *http.Request
	b    *Behaviour
	call *Call
}

// ServeHTTP answers for the issuer. It is exported so that a test can put the
// issuer behind a server or a handler of its own.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{r: r, b: i.behaviour.Load()}
	endpoint, ok := i.route(x)
	if !ok {
		http.NotFound(w, r)
		return
	}
	call, err := newCall(endpoint, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	x.call = call
	i.inspect(x)
	i.record(x)
	i.withFault(w, x, map[Endpoint]func(http.ResponseWriter, *exchange){
		EndpointDiscovery:  i.discovery,
		EndpointKeys:       i.jwks,
		EndpointAuthorize:  i.authorize,
		EndpointToken:      i.serveToken,
		EndpointRevocation: i.revocation,
		EndpointEndSession: i.endSession,
		EndpointUserInfo:   i.userInfo,
		EndpointAPI:        i.api,
		EndpointPush:       i.push,
	}[endpoint])
}

// route finds the endpoint of a request. API calls may have a path below the
// endpoint.
func (i *Issuer) route(x *exchange) (Endpoint, bool) {
	if x.b.microsoft() {
		return i.entraRoute(x)
	}
	for e := range plainPaths {
		p := i.plainURL(x.b, e).Path
		if x.r.URL.Path == p || e == EndpointAPI && strings.HasPrefix(x.r.URL.Path, p+"/") {
			return e, true
		}
	}
	return "", false
}

// inspect fills in what only the issuer can tell about a call.
func (i *Issuer) inspect(x *exchange) {
	switch x.call.Endpoint {
	case EndpointToken, EndpointRevocation, EndpointPush:
		x.call.readClient()
	case EndpointAPI, EndpointUserInfo:
		x.call.Token, _ = i.TokenInfo(bearer(x.r))
	}
}

// random returns an unguessable token with a prefix that says what it is.
func random(prefix string) string { return prefix + rand.Text() }
