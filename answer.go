package signin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

const (
	// What a record can take beside its ID token: a store holds 256 KiB. Issuers
	// that list a user's roles in access tokens make some of 30 KB.
	maxAccessToken  = 64 << 10
	maxRefreshToken = 64 << 10

	// maxScope bounds the scopes that an answer names, with spaces between.
	maxScope = 4 << 10
)

// check reports why the tokens of an answer cannot be used. An ID token is
// judged elsewhere: an odd one does not spoil what stands beside it.
func (t *tokenAnswer) check() error {
	switch {
	case t.AccessToken == "":
		return errors.New("token endpoint answered without an access token")
	case t.TokenType != "" && !strings.EqualFold(t.TokenType, "Bearer"):
		return errors.New("token endpoint answered with a token that is not a bearer token")
	case len(t.AccessToken) > maxAccessToken:
		return &tooLargeError{"the access token", len(t.AccessToken), maxAccessToken}
	case len(t.RefreshToken) > maxRefreshToken:
		return &tooLargeError{"the refresh token", len(t.RefreshToken), maxRefreshToken}
	}
	if n := len(strings.Join(t.Scope, " ")); n > maxScope {
		return &tooLargeError{"the list of scopes", n, maxScope}
	}
	return nil
}

// tooLargeError reports a part of the issuer's answer that a session cannot
// hold. Trying again does not help.
type tooLargeError struct {
	what        string
	size, limit int // in bytes
}

func (e *tooLargeError) Error() string {
	return fmt.Sprintf("%s is too large: %d bytes, and the limit is %d", e.what, e.size, e.limit)
}

// unusableAnswer is an answer of the token endpoint that grants something and
// cannot be used. The issuer has done its part: the code is spent, or the
// refresh token that was sent has been replaced by the one in the answer.
type unusableAnswer struct {
	cause   error
	refresh string // empty: none could be read
}

func newUnusableAnswer(cause error, body []byte) *unusableAnswer {
	return &unusableAnswer{cause, refreshTokenIn(body)}
}

func (e *unusableAnswer) Error() string { return e.cause.Error() }
func (e *unusableAnswer) Unwrap() error { return e.cause }

// refreshTokenIn returns the refresh token in the body of an answer that is
// labelled wrongly, cut off, or odd in another member. It is empty if there is
// none to be read.
func refreshTokenIn(body []byte) (refresh string) {
	d := json.NewDecoder(bytes.NewReader(body))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return ""
	}
	for d.More() {
		name, err := d.Token()
		var value json.RawMessage
		if err != nil || d.Decode(&value) != nil {
			return refresh // cut off in this member
		}
		var text string
		if name == "refresh_token" && json.Unmarshal(value, &text) == nil && len(text) <= maxRefreshToken {
			refresh = text
		}
	}
	return refresh
}
