package library

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/seed454743b5/signin"
	"golang.org/x/oauth2"
)

// IDTokens keeps the ID token that came with an access token, for routes that
// pass it on. Package signin does not hand it out. It is kept in the store
// under a name, and sealed by a key, that both come from the access token: a
// dump of the store is of no use without the session, as before.
type IDTokens struct {
	Next  http.RoundTripper
	Store signin.Store
	Life  time.Duration // of a session
}

const maxAnswer = 1 << 20

var errNoIDToken = errors.New("no ID token is kept for the session: it began before a route passed one on")

// RoundTrip implements [http.RoundTripper]. Of an answer to a token request it
// notes the ID token; an answer without one keeps that of the refresh token.
func (t *IDTokens) RoundTrip(r *http.Request) (*http.Response, error) {
	r, asked, err := tokenRequest(r)
	if err != nil {
		return nil, err
	}
	resp, err := t.Next.RoundTrip(r)
	if err != nil || asked == nil || resp.StatusCode/100 != 2 {
		return resp, err
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	rest := resp.Body
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(raw), errReader{err}, rest), rest}
	var answer struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		ID      string `json:"id_token"`
	}
	if err != nil || json.Unmarshal(raw, &answer) != nil || answer.Access == "" {
		return resp, nil
	}
	ctx := context.WithoutCancel(r.Context())
	old := asked.Get("refresh_token")
	if answer.ID == "" && old != "" {
		answer.ID, _ = t.load(ctx, old)
	}
	if answer.ID == "" {
		return resp, nil
	}
	if answer.Refresh == "" {
		answer.Refresh = old
	}
	for _, token := range []string{answer.Access, answer.Refresh} {
		if token != "" {
			_ = t.save(ctx, token, answer.ID) // a store that fails is told where it matters
		}
	}
	return resp, nil
}

// errReader ends with an error, if there is one.
type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	return 0, io.EOF
}

// tokenRequest returns the form of a token request, or nil, and the request to
// send. That has no GetBody, as before: net/http would send it once more.
func tokenRequest(r *http.Request) (*http.Request, url.Values, error) {
	if r.Method != http.MethodPost || r.Body == nil || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.ContentLength > maxAnswer {
		return r, nil, nil
	}
	defer r.Body.Close()
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, nil, err
	}
	sent := r.Clone(r.Context())
	sent.Body = io.NopCloser(bytes.NewReader(raw))
	form, err := url.ParseQuery(string(raw))
	if err != nil || form.Get("grant_type") == "" {
		return sent, nil, nil
	}
	return sent, form, nil
}

// Get returns the ID token beside an access token.
func (t *IDTokens) Get(ctx context.Context, token *oauth2.Token) (string, error) {
	if raw, ok := token.Extra("id_token").(string); ok && raw != "" {
		return raw, nil
	}
	return t.load(ctx, token.AccessToken)
}

func seal(token string) (name string, aead cipher.AEAD, err error) {
	raw, err := hkdf.Key(sha256.New, []byte(token), nil, "signin-front ID token", 64)
	if err != nil {
		return "", nil, err
	}
	block, err := aes.NewCipher(raw[32:])
	if err != nil {
		return "", nil, err
	}
	aead, err = cipher.NewGCMWithRandomNonce(block)
	return "front.idtoken." + base64.RawURLEncoding.EncodeToString(raw[:32]), aead, err
}

func (t *IDTokens) load(ctx context.Context, token string) (string, error) {
	name, aead, err := seal(token)
	if err != nil {
		return "", err
	}
	sealed, ok, err := t.Store.Get(ctx, name)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", errNoIDToken
	}
	plain, err := aead.Open(nil, nil, sealed, []byte(name))
	return string(plain), err
}

func (t *IDTokens) save(ctx context.Context, token, id string) error {
	name, aead, err := seal(token)
	if err != nil {
		return err
	}
	sealed := aead.Seal(nil, nil, []byte(id), []byte(name))
	found, swapped, err := t.Store.Swap(ctx, name, nil, sealed, t.Life)
	if err == nil && !swapped {
		_, _, err = t.Store.Swap(ctx, name, found, sealed, t.Life)
	}
	return err
}
