// Package settings reads what the front is to do: from a file, the
// environment and flags, which share one table of names. It reports every
// fault at once and touches no network.
package settings

import (
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/seed454743b5/signin/front/internal/routes"
	"github.com/seed454743b5/signin/front/internal/rule"
)

// Config is what has been read and checked.
type Config struct {
	File string // the file's name, empty if there is none

	Listen, AdminListen string
	BaseURL             string
	TrustedProxies      []netip.Prefix
	TLS                 TLS
	Autocert            Autocert
	Site                Site
	AccessLog           string
	ShutdownTimeout     time.Duration
	UpstreamTimeout     time.Duration

	Issuer, ClientID string
	ClientSecret     string
	ClientSecretFile string
	ClientKeyFile    string
	PublicClient     bool
	Scopes           []string
	ResponseType     string
	ResponseMode     string
	Prompt           string
	SessionKeys      [][]byte
	SessionLifetime  time.Duration
	IdleTimeout      time.Duration
	CookieName       string
	Store            Store

	GroupsClaim    string
	HeaderEncoding string // EncodeUTF8 or EncodePercent
	Introspect     bool
	Routes         []*Route
	Table          *routes.Table

	sessionKeysFile string
	sessionKeys     []string
}

// The ways to write a name that is not ASCII into a header.
const (
	EncodeUTF8    = "utf-8"
	EncodePercent = "percent"
)

// TLS names the files of a certificate and its key. Empty means none.
type TLS struct{ CertFile, KeyFile string }

// Autocert is a certificate by ACME. An empty Cache means none.
type Autocert struct{ Cache, Email, Directory, CA string }

// Site is what the pages look like.
type Site struct {
	Name, Color string
	Logo        Logo
}

// Logo is an image for the pages. An empty Type means none.
type Logo struct {
	Type string // a media type
	Data []byte
}

// Store says where sessions live.
type Store struct {
	Kind string // memory, file, redis, or another of openers' keys
	URL  string // or the path of a file
}

// Route is one of the file's routes.
type Route struct {
	Index    int
	Pattern  string
	Public   bool
	Rule     rule.Rule // nil: whoever is signed in
	Scopes   []string
	ACR      []string
	MaxAge   time.Duration
	Upstream Upstream
	Headers  []Header // in a fixed order; nil stands for Defaults
	Pass     []string
	Bearer   *Bearer // nil: programs with tokens are nobody
}

// Upstream is where a route leads. The zero value is nowhere: the route is for
// forward authentication only.
type Upstream struct {
	Kind      Kind
	URL       *url.URL // KindHTTP
	Path      string   // KindUnix, KindFile
	CA        []byte   // PEM; nil: the system's
	PlainHTTP bool     // tokens may travel in clear
}

// Kind is a kind of upstream.
type Kind int

// The kinds.
const (
	KindNone Kind = iota
	KindHTTP
	KindUnix
	KindFile
)

// Bearer says for whom the access tokens of programs have to be. Empty admits
// the client's id and the site's URL.
type Bearer struct {
	Audience   []string
	Introspect bool
}

// Header is a header with one of the sources, or with a claim.
type Header struct{ Name, Source string }

// What a header may say. Any other source is "claim:" and a name.
const (
	SourceSubject  = "subject"
	SourceUsername = "preferred_username"
	SourceName     = "name"
	SourceEmail    = "email"
	SourceGroups   = "groups"
	SourceTenant   = "tenant"
	SourceIssuer   = "issuer"
	claimSource    = "claim:"
)

// Defaults are the headers of a route that does not say otherwise.
func Defaults() []Header {
	return []Header{
		{"X-Forwarded-User", SourceSubject},
		{"X-Forwarded-Preferred-Username", SourceUsername},
		{"X-Forwarded-Email", SourceEmail},
		{"X-Forwarded-Groups", SourceGroups},
	}
}

// What a route may pass on.
const (
	PassAccessToken = "access_token"
	PassIDToken     = "id_token"
	PassIdentityJWT = "identity_jwt"
)

// PassesIDToken reports whether some route passes the ID token on.
func (c *Config) PassesIDToken() bool {
	return slices.ContainsFunc(c.Routes, func(r *Route) bool { return slices.Contains(r.Pass, PassIDToken) })
}

// Allows is the route's rule in words.
func (r *Route) Allows() string {
	switch {
	case r.Public:
		return "everybody, without asking who it is"
	case r.Rule == nil:
		return "whoever is signed in"
	}
	return "users for whom: " + r.Rule.String()
}
