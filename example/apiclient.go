package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/seed454743b5/signin"
)

const maxAnswer = 1 << 20

// apiClient calls the API with the access tokens of whoever is signed in.
type apiClient struct {
	me     string            // URL of the user's own document, as it was given
	base   http.RoundTripper // nil: http.DefaultTransport
	user   *http.Client      // sends the token of the sign-in
	sender *http.Client      // sends one that may send mail

	sendScope string // what it takes to send mail
	demo      bool   // the API is the demo's own
}

func newAPIClient(apiURL string, demo bool, base http.RoundTripper) *apiClient {
	c := &apiClient{me: apiURL, base: base, sendScope: "mail.send", demo: demo}
	if graph(apiURL) {
		c.sendScope = "Mail.Send"
		// The root of a version of Graph has nothing to show.
		if root := strings.TrimSuffix(apiURL, "/"); strings.HasSuffix(root, "/v1.0") || strings.HasSuffix(root, "/beta") {
			c.me = root + "/me"
		}
	}
	c.user, c.sender = c.client(), c.client(c.sendScope)
	return c
}

// client returns a client that sends tokens with the scopes. One serves all
// users: whose token goes with a request is a matter of the request's context.
func (c *apiClient) client(scopes ...string) *http.Client {
	return &http.Client{
		Timeout:   20 * time.Second,
		Transport: &signin.Transport{Base: c.base, Request: signin.TokenRequest{Scopes: scopes}},
		// /api passes on what the API answers, and a redirect is an answer.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// read gets the user's own document. Scopes come out of a query here, so there
// is no client to share for them; connections are shared all the same.
func (c *apiClient) read(ctx context.Context, scopes ...string) (*apiAnswer, error) {
	client := c.user
	if len(scopes) > 0 {
		client = c.client(scopes...)
	}
	return do(ctx, client, http.MethodGet, c.me, nil)
}

func (c *apiClient) vault(ctx context.Context) (*apiAnswer, error) {
	return do(ctx, c.user, http.MethodGet, c.below("vault"), nil)
}

func (c *apiClient) sendMail(ctx context.Context, mail any) (*apiAnswer, error) {
	body, err := json.Marshal(mail)
	if err != nil {
		return nil, fmt.Errorf("encoding a mail: %w", err)
	}
	return do(ctx, c.sender, http.MethodPost, c.below("sendMail"), body)
}

// below is the URL of something below the user's own document.
func (c *apiClient) below(name string) string {
	u, err := url.Parse(c.me)
	if err != nil {
		return c.me // readSettings lets none through
	}
	return u.JoinPath(name).String()
}

// do sends a request and reads the answer. Its error may be an
// *InteractionRequiredError: then only the user can help.
func do(ctx context.Context, client *http.Client, method, target string, body []byte) (*apiAnswer, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("calling the API: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("calling the API: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading the API's answer: %w", err)
	}
	return &apiAnswer{Status: resp.StatusCode, Type: resp.Header.Get("Content-Type"), Body: b}, nil
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
