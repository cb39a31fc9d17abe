package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/internal/text"
)

// Metadata is what we use of the discovery document (OpenID Connect
// Discovery, 3; RFC 8414, 2). A loose member that is odd counts as absent.
type Metadata struct {
	Issuer                string  `json:"issuer"`
	AuthorizationEndpoint string  `json:"authorization_endpoint"`
	TokenEndpoint         string  `json:"token_endpoint"`
	JWKSURI               string  `json:"jwks_uri"`
	EndSessionEndpoint    string  `json:"end_session_endpoint" loose:"true"`
	RevocationEndpoint    string  `json:"revocation_endpoint" loose:"true"`
	PushEndpoint          string  `json:"pushed_authorization_request_endpoint" loose:"true"`
	TokenAuthMethods      strs    `json:"token_endpoint_auth_methods_supported" loose:"true"`
	TokenAuthAlgs         strs    `json:"token_endpoint_auth_signing_alg_values_supported" loose:"true"`
	SigningAlgs           strs    `json:"id_token_signing_alg_values_supported"`
	AnswerAlgs            strs    `json:"authorization_signing_alg_values_supported" loose:"true"` // JARM
	AnnouncesIss          boolean `json:"authorization_response_iss_parameter_supported" loose:"true"`

	announced

	from     string // its URL, for errors; empty if it was configured
	Rule     family.Rule
	Withheld []string // of the scopes asked for by default
	Unfit    error    // why nobody can sign in with our configuration; nil: nothing known
	Keys     TokenVerifier

	answerAlgs []string // admitted in signed answers

	// logoutKeys verify logout tokens, which anybody may post: what they cost
	// in fetches of keys is not taken from the sign-ins.
	LogoutKeys TokenVerifier
}

// strs is a list of strings. What else stands in the list is left out, and one
// string is a list of one.
type strs []string

func (l *strs) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil && one != "" {
		*l = strs{one}
		return nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(b, &list); err != nil {
		return errors.New("not a list of strings")
	}
	*l = nil
	for _, raw := range list {
		var s string
		if json.Unmarshal(raw, &s) == nil && s != "" {
			*l = append(*l, s)
		}
	}
	return nil
}

// boolean is true or false, or the same as a string, as some issuers write it.
type boolean bool

func (v *boolean) UnmarshalJSON(b []byte) error {
	switch strings.Trim(string(b), `"`) {
	case "true":
		*v = true
	case "false", "null":
		*v = false
	default:
		return errors.New("neither true nor false")
	}
	return nil
}

// Discover fetches and judges the discovery document, or takes the endpoints
// that are configured. What we cannot do without is an error; what we can do
// without counts as absent, and the log says so.
func (i *Issuer) Discover(ctx context.Context) (*Metadata, error) {
	meta, err := i.describe(ctx)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	algs, err := signingAlgs(i.algorithms, meta.SigningAlgs)
	if err != nil {
		return nil, fmt.Errorf("discovery: %s: %w", meta.from, err)
	}
	meta.Withheld = meta.unwanted(i.byDefault)
	meta.Unfit = i.unfit(meta)
	meta.Keys = TokenVerifier{i.newKeySource(meta.JWKSURI), algs, meta.Rule}
	if meta.answerAlgs, err = i.answerSigning(meta); err != nil {
		return nil, fmt.Errorf("discovery: %s: %w", meta.from, err)
	}
	meta.LogoutKeys = TokenVerifier{i.newKeySource(meta.JWKSURI), algs, meta.Rule}
	return meta, nil
}

// describe returns what the issuer says of itself, or the configuration of it.
func (i *Issuer) describe(ctx context.Context) (*Metadata, error) {
	if e := i.endpoints; e != (Endpoints{}) {
		meta := &Metadata{
			Issuer: i.URL, AuthorizationEndpoint: e.Authorization, TokenEndpoint: e.Token, JWKSURI: e.Keys,
			EndSessionEndpoint: e.EndSession, RevocationEndpoint: e.Revocation, PushEndpoint: e.PushedRequest,
		}
		return meta, meta.name(i)
	}
	from := i.discoveryURL(family.Of(i.URL, ""))
	meta, err := i.document(ctx, from)
	if err != nil {
		return nil, err
	}
	// Under a domain of its own a family is known by its document only.
	if again := i.discoveryURL(meta.Rule.Family); again != from {
		return i.document(ctx, again)
	}
	return meta, nil
}

// discoveryURL is where the document is. The key of an application with a
// signing key of its own is named only to those who ask for it.
func (i *Issuer) discoveryURL(f *family.Family) string {
	switch from := strings.TrimSuffix(i.URL, "/") + WellKnown; {
	case i.documentURL != "":
		return i.documentURL
	case f.AppKeys:
		return from + "?appid=" + url.QueryEscape(i.ClientID)
	default:
		return from
	}
}

// WellKnown is where the document stands below an issuer.
const WellKnown = "/.well-known/openid-configuration"

// document fetches the discovery document. Its errors name the URL.
func (i *Issuer) document(ctx context.Context, from string) (*Metadata, error) {
	at := func(err error) error { return fmt.Errorf("%s: %w", text.Printable(from, 200), err) }
	body, err := getBounded(ctx, i.Client, from)
	if err != nil {
		return nil, at(bounded(err))
	}
	meta := &Metadata{from: text.Printable(from, 200)}
	odd, err := decodeNaming(withoutMark(body), meta)
	if err != nil {
		return nil, at(bounded(err))
	}
	if err := meta.name(i); err != nil {
		return nil, at(err)
	}
	if err := meta.checkEndpoints(); err != nil {
		return nil, at(err)
	}
	for _, err := range append(odd, meta.dropOdd()...) {
		i.report(ctx, fmt.Errorf("discovery: %w; it counts as absent", at(err)))
	}
	return meta, nil
}

// name compares the issuer's names.
func (m *Metadata) name(i *Issuer) (err error) {
	m.Rule, err = family.NewRule(i.URL, m.Issuer, i.Tenants)
	return err
}

// checkEndpoints judges the endpoints without which nobody can sign in.
func (m *Metadata) checkEndpoints() error {
	for _, e := range []struct{ name, url string }{
		{"authorization_endpoint", m.AuthorizationEndpoint},
		{"token_endpoint", m.TokenEndpoint},
		{"jwks_uri", m.JWKSURI},
	} {
		if err := site.CheckEndpointURL(e.url); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return nil
}

// dropOdd empties the optional endpoints that cannot be used, and says why.
// Their URLs are in no other use: what is not https would carry an ID token or
// a refresh token in the clear.
func (m *Metadata) dropOdd() (odd []error) {
	for _, e := range []struct {
		name string
		url  *string
	}{
		{"end_session_endpoint", &m.EndSessionEndpoint},
		{"revocation_endpoint", &m.RevocationEndpoint},
		{"pushed_authorization_request_endpoint", &m.PushEndpoint},
	} {
		if *e.url == "" {
			continue
		}
		if err := site.CheckEndpointURL(*e.url); err != nil {
			odd = append(odd, fmt.Errorf("%s: %w", e.name, bounded(err)))
			*e.url = ""
		}
	}
	return odd
}

// getBounded fetches what the issuer publishes. Redirects are not followed.
func getBounded(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errors.New("not a URL")
	}
	req.Header.Set("Cache-Control", "no-cache")
	resp, err := client.Do(req)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the answer: %w", err)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	case len(body) > maxAnswer:
		return nil, errors.New("the answer is over 1 MiB")
	}
	return body, nil
}
