package library

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/front/internal/settings"
)

// Parts are what an Auth needs beside the settings.
type Parts struct {
	Keys    [][]byte
	Store   signin.Store
	Client  *http.Client
	Log     *slog.Logger
	Observe func(context.Context, signin.Event)
	Page    func(http.ResponseWriter, *http.Request, signin.Page)
}

// New makes an Auth. Its errors are in the words of the settings, and there is
// one for each fault.
func New(c *settings.Config, p Parts) (*signin.Auth, error) {
	credential, err := credential(c)
	if err != nil {
		return nil, err
	}
	sc := signin.Config{
		Issuer: c.Issuer, ClientID: c.ClientID, Credential: credential, BaseURL: c.BaseURL,
		Scopes: c.Scopes, Keys: p.Keys, Store: p.Store,
		ResponseType: c.ResponseType, ResponseMode: c.ResponseMode, Prompt: c.Prompt,
		CookieName: c.CookieName, SessionLifetime: c.SessionLifetime, IdleTimeout: c.IdleTimeout,
		SignedOutPath: "/oidc/signed-out", // at the root, signing in would begin anew
		HTTPClient:    p.Client, Logger: p.Log, Observe: p.Observe, Page: p.Page,
	}
	if c.BaseURL == "" {
		// The front has put the forwarded headers in order by then, and is the
		// only one whose word counts.
		sc.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	}
	auth, err := signin.New(sc)
	if err != nil {
		return nil, renamed(err)
	}
	return auth, nil
}

// Same reports whether two configurations make the same Auth, so that a reload
// need not make another.
func Same(a, b *settings.Config) bool {
	key := func(c *settings.Config) []any {
		return []any{
			c.Issuer, c.ClientID, c.ClientSecret, c.ClientSecretFile, c.ClientKeyFile, c.PublicClient, c.BaseURL, c.Scopes, c.SessionKeys, c.Store,
			c.ResponseType, c.ResponseMode, c.Prompt, c.CookieName, c.SessionLifetime, c.IdleTimeout, c.Site, c.PassesIDToken(),
		}
	}
	return reflect.DeepEqual(key(a), key(b))
}

func credential(c *settings.Config) (signin.Credential, error) {
	switch {
	case c.ClientSecret != "":
		return signin.Secret(c.ClientSecret), nil
	case c.ClientSecretFile != "":
		return signin.Rotating(func(context.Context) (signin.Credential, error) {
			secret, err := settings.ReadSecret(c.ClientSecretFile)
			if err == nil && secret == "" {
				err = errors.New("the secret's file is empty")
			}
			return signin.Secret(secret), err
		}), nil
	case c.ClientKeyFile != "":
		key, err := settings.ReadKey(c.ClientKeyFile)
		if err != nil {
			return nil, err
		}
		return signin.PrivateKey(signin.ClientKey{Signer: key}), nil
	}
	return nil, nil
}

// Introspector returns how the client proves itself when it asks about tokens:
// by a secret, a key, or neither.
func Introspector(c *settings.Config) (func() (string, error), crypto.Signer, error) {
	switch {
	case c.ClientSecret != "":
		return func() (string, error) { return c.ClientSecret, nil }, nil, nil
	case c.ClientSecretFile != "":
		return func() (string, error) { return settings.ReadSecret(c.ClientSecretFile) }, nil, nil
	case c.ClientKeyFile != "":
		key, err := settings.ReadKey(c.ClientKeyFile)
		return nil, key, err
	}
	return nil, nil, nil
}

// names are what the settings call the fields of signin.Config.
var names = map[string]string{
	"Issuer": "issuer", "ClientID": "client_id", "Credential": "client_secret", "BaseURL": "base_url", "Scopes": "scopes", "Keys": "session_keys",
	"ResponseType": "response_type", "ResponseMode": "response_mode", "Prompt": "prompt", "CookieName": "cookie_name",
	"SessionLifetime": "session_lifetime", "IdleTimeout": "idle_timeout",
}

// renamed takes package signin's list of faults apart.
func renamed(err error) error {
	var faults settings.Faults
	text := strings.TrimPrefix(err.Error(), "signin: bad config: ")
	for line := range strings.SplitSeq(text, "\n") {
		end := strings.IndexFunc(line, func(r rune) bool { return r < 'A' || r > 'z' || r == '[' })
		if name, ok := names[line[:max(end, 0)]]; ok {
			line = name + line[end:]
		}
		faults = append(faults, settings.Fault{Text: line})
	}
	return faults
}

// Check reports what package signin has against the settings, without a network.
func Check(c *settings.Config) error {
	keys := slices.Clone(c.SessionKeys)
	if len(keys) == 0 {
		keys = [][]byte{settings.RandomKey()}
	}
	_, err := New(c, Parts{Keys: keys, Log: slog.New(slog.DiscardHandler)})
	if err != nil && !reflect.TypeOf(err).AssignableTo(reflect.TypeFor[settings.Faults]()) {
		return fmt.Errorf("client: %w", err)
	}
	return err
}
