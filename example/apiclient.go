package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed454743b5/signin"
)

const maxAnswer = 1 << 20

// apiClient calls the API with the access tokens of whoever is signed in.
type apiClient struct {
	me        string // URL of the user's own document
	sendScope string // what it takes to send mail
	demo      bool   // the API is the demo's own
}

func newAPIClient(url string, demo bool) *apiClient {
	c := &apiClient{me: strings.TrimSuffix(url, "/"), sendScope: "mail.send", demo: demo}
	if graph(url) {
		c.sendScope = "Mail.Send"
		// The root of a version of Graph has nothing to show.
		if strings.HasSuffix(c.me, "/v1.0") || strings.HasSuffix(c.me, "/beta") {
			c.me += "/me"
		}
	}
	return c
}

func (c *apiClient) get(ctx context.Context, url string, scopes ...string) (*apiAnswer, error) {
	return c.do(ctx, http.MethodGet, url, nil, scopes)
}

func (c *apiClient) post(ctx context.Context, url string, doc any, scopes ...string) (*apiAnswer, error) {
	body, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encoding a request: %w", err)
	}
	return c.do(ctx, http.MethodPost, url, body, scopes)
}

// do sends a request with a token for the scopes. Its error may be an
// *InteractionRequiredError: then only the user can help.
func (c *apiClient) do(ctx context.Context, method, url string, body []byte, scopes []string) (*apiAnswer, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("calling the API: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	client := oauth2.NewClient(ctx, signin.TokenSource(ctx, scopes...))
	client.Timeout = 20 * time.Second
	// The token is for this API, not for wherever it may point.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("calling the API: %w", err)
	}
	defer resp.Body.Close()
	if claims := claimsChallenge(resp); claims != "" {
		return nil, &signin.InteractionRequiredError{Reason: signin.ReasonClaims, Scopes: scopes, Claims: claims}
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading the API's answer: %w", err)
	}
	return &apiAnswer{Status: resp.StatusCode, Type: resp.Header.Get("Content-Type"), Body: b}, nil
}

var insufficientClaims = regexp.MustCompile(`(?i)^Bearer .*error="insufficient_claims".*claims="([^"]*)"`)

// claimsChallenge is what an API that refused a token wants to know about the
// user, as JSON. Entra ID's APIs write it in base64.
func claimsChallenge(resp *http.Response) string {
	if resp.StatusCode != http.StatusUnauthorized {
		return ""
	}
	m := insufficientClaims.FindStringSubmatch(resp.Header.Get("WWW-Authenticate"))
	if m == nil {
		return ""
	}
	claims, err := base64.StdEncoding.DecodeString(m[1])
	if err != nil {
		return ""
	}
	return string(claims)
}

// apiAnswer is what the API said.
type apiAnswer struct {
	Status int
	Type   string
	Body   []byte
}

func (a *apiAnswer) isJSON() bool {
	t, _, _ := strings.Cut(a.Type, ";")
	return t == "application/json" || strings.HasSuffix(t, "+json")
}

// copyTo passes the answer on. Whatever the API calls it, it is shown as JSON
// or as text: a page from elsewhere must not run as one of ours.
func (a *apiAnswer) copyTo(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if a.isJSON() {
		h.Set("Content-Type", "application/json")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body)
}

// Text is the answer for a page.
func (a *apiAnswer) Text() string {
	var b bytes.Buffer
	if a.isJSON() && json.Indent(&b, a.Body, "", "  ") == nil {
		return strings.TrimSpace(b.String())
	}
	return string(a.Body)
}

// StatusText is the status with its name.
func (a *apiAnswer) StatusText() string {
	return fmt.Sprintf("%d %s", a.Status, http.StatusText(a.Status))
}

func (a *apiAnswer) error() error {
	return fmt.Errorf("the API answered %s", a.StatusText())
}
