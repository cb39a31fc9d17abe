// Package library is the one place that knows how package signin spells what
// the front needs of it.
package library

import (
	"context"
	"errors"
	"net/http"

	"github.com/seed454743b5/signin"
	"golang.org/x/oauth2"
)

// Require is [signin.Auth.Require].
func Require(a *signin.Auth, need signin.Requirement) func(http.Handler) http.Handler {
	return a.Require(need)
}

// Close waits for what is under way.
func Close(ctx context.Context, a *signin.Auth) error { return a.Shutdown(ctx) }

var errNoIDToken = errors.New("package signin does not hand out the ID token")

// IDToken is the ID token beside an access token.
func IDToken(token *oauth2.Token, err error) (string, error) {
	if err != nil {
		return "", err
	}
	if raw, ok := token.Extra("id_token").(string); ok && raw != "" {
		return raw, nil
	}
	return "", errNoIDToken
}
