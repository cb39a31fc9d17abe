package oidc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/text"
	"golang.org/x/oauth2"
)

const (
	// What a record can take beside its ID token: a store holds 256 KiB. Issuers
	// that list a user's roles in access tokens make some of 30 KB.
	MaxAccessToken  = 64 << 10
	MaxRefreshToken = 64 << 10

	// MaxScope bounds the scopes that an answer names, with spaces between.
	MaxScope = 4 << 10

	// maxExtra bounds the further members of an answer, and maxExtraMember one of
	// them. A session keeps them beside each token.
	maxExtra       = 8 << 10
	maxExtraMember = 4 << 10
)

// Answer is a successful answer of the token endpoint (RFC 6749, 5.1). A
// loose member that is odd counts as absent.
type Answer struct {
	AccessToken  string     `json:"access_token" loose:"true"` // empty: a sign-in does without
	TokenType    string     `json:"token_type"`
	RefreshToken string     `json:"refresh_token" loose:"true"`
	IDToken      string     `json:"id_token" loose:"true"`
	Scope        ScopeValue `json:"scope"` // empty: as asked
	ExpiresIn    Seconds    `json:"expires_in"`
	RefreshIn    Seconds    `json:"refresh_in"` // Entra: renew from then on
	ClientInfo   string     `json:"client_info" loose:"true"`

	Asked time.Time // when it was asked for

	members map[string]json.RawMessage // as they came; further ones within their bounds
}

// answerMembers are the members that [Answer] reads. The others are further ones.
var answerMembers = []string{
	"access_token", "token_type", "refresh_token", "id_token", "scope", "expires_in", "refresh_in", "client_info",
}

// setMembers notes the members of the body that an answer was read from. Of the
// further ones it keeps what fits, in the order of their names.
func (t *Answer) setMembers(body []byte) error {
	if err := json.Unmarshal(body, &t.members); err != nil {
		return err
	}
	size := 0
	for _, name := range slices.Sorted(maps.Keys(t.members)) {
		if slices.Contains(answerMembers, name) {
			continue
		}
		n := len(name) + len(t.members[name])
		if n > maxExtraMember || size+n > maxExtra {
			delete(t.members, name)
			continue
		}
		size += n
	}
	return nil
}

// Extra are the further members of the answer, as a JSON object: Salesforce's
// instance_url, say. It is nil if there are none.
func (t *Answer) Extra() json.RawMessage {
	further := maps.Clone(t.members)
	for _, name := range answerMembers {
		delete(further, name)
	}
	if len(further) == 0 {
		return nil
	}
	extra, err := json.Marshal(further)
	if err != nil {
		panic(err) // each member has been read as JSON
	}
	return extra
}

// packedAnswer is what [Answer.Pack] writes.
type packedAnswer struct {
	Asked   time.Time                  `json:"t"`
	Members map[string]json.RawMessage `json:"m"`
}

// Pack writes an answer down for [UnpackAnswer], whole with its tokens: seal it.
func (t *Answer) Pack() []byte {
	packed, err := json.Marshal(packedAnswer{t.Asked, t.members})
	if err != nil {
		panic(err) // each member has been read as JSON
	}
	return packed
}

// UnpackAnswer reads what [Answer.Pack] wrote.
func UnpackAnswer(packed []byte) (*Answer, error) {
	var p packedAnswer
	if err := json.Unmarshal(packed, &p); err != nil {
		return nil, err
	}
	body, err := json.Marshal(p.Members)
	if err != nil {
		return nil, err
	}
	t := &Answer{Asked: p.Asked, members: p.Members}
	if err := DecodeExact(body, t); err != nil {
		return nil, err
	}
	return t, t.check()
}

// ScopeValue is the scopes granted: one string, though some issuers send a
// list. What is neither is as good as absent: a refresh token that stands
// beside it must not be lost for it.
type ScopeValue []string

func (v *ScopeValue) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		*v = strings.Fields(text)
		return nil
	}
	var list []string
	if json.Unmarshal(b, &list) == nil {
		*v = list
	}
	return nil
}

// Seconds is a lifetime. Some issuers send it as a string; zero is not the
// same as absent, and what is no number is.
type Seconds struct {
	time.Duration
	Present bool
}

func (s *Seconds) UnmarshalJSON(b []byte) error {
	n, err := strconv.ParseFloat(strings.Trim(string(b), `"`), 64)
	if err != nil || math.IsNaN(n) {
		return nil
	}
	// A century is as good as for ever, and does not overflow.
	n = max(0, min(n, 100*365*24*3600))
	*s = Seconds{time.Duration(n) * time.Second, true}
	return nil
}

// readTokenAnswer reads an answer of the token endpoint by what it says, before its
// label: issuers send errors as text/plain, answers without a type, with status
// 201, or after a byte order mark. sent is what must not be logged.
func readTokenAnswer(resp *http.Response, body []byte, sent []string, now time.Time) (*Answer, error) {
	body = withoutMark(body)
	var fault struct {
		Code        string `json:"error" loose:"true"`
		Description string `json:"error_description" loose:"true"`
		Suberror    string `json:"suberror" loose:"true"` // Entra: why
		Claims      string `json:"claims" loose:"true"`   // Entra: what would satisfy it
	}
	isJSON := DecodeExact(body, &fault) == nil
	if !grants(resp) || fault.Code != "" {
		refused := &TokenError{
			RetrieveError: &oauth2.RetrieveError{
				// Its status text would be the issuer's, or an echo, and its cookies are nobody's.
				Response: &http.Response{Status: strconv.Itoa(resp.StatusCode), StatusCode: resp.StatusCode, Header: withoutCookies(resp.Header), Body: http.NoBody},
				// Without a code oauth2 would print the body, so there is none.
				ErrorCode:        text.Clean(fault.Code, sent, 100),
				ErrorDescription: text.Clean(fault.Description, sent, 300),
			},
			Suberror:   text.Clean(fault.Suberror, sent, 100),
			Claims:     ValidClaims(fault.Claims),
			RetryAfter: RetryAfter(resp.Header, now),
		}
		if refresh := RefreshTokenIn(body); refresh != "" && resp.StatusCode/100 == 2 {
			return nil, &UnusableAnswer{refused, refresh}
		}
		return nil, refused
	}
	if !isJSON {
		return nil, newUnusableAnswer(fmt.Errorf("token endpoint answered with no JSON object but with %q", text.Clean(resp.Header.Get("Content-Type"), sent, 100)), body)
	}
	answer := &Answer{}
	if err := DecodeExact(body, answer); err != nil {
		return nil, newUnusableAnswer(fmt.Errorf("token endpoint answered with JSON of an unexpected shape: %w", err), body)
	}
	if err := answer.check(); err != nil {
		return nil, newUnusableAnswer(err, body)
	}
	if err := answer.setMembers(body); err != nil {
		return nil, newUnusableAnswer(err, body)
	}
	return answer, nil
}

// grants reports whether an answer's status says that something was granted.
func grants(resp *http.Response) bool {
	return resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusCreated
}

// ErrNoAccessToken reports an answer that has nothing for calls of APIs.
var ErrNoAccessToken = errors.New("token endpoint answered without an access token")

// Lack says that there is no access token, where there is none.
func (t *Answer) Lack() error {
	if t.AccessToken == "" {
		return ErrNoAccessToken
	}
	return nil
}

// check reports why the tokens of an answer cannot be used. An ID token is
// judged elsewhere: an odd one does not spoil what stands beside it.
func (t *Answer) check() error {
	switch {
	case t.AccessToken == "" && t.IDToken == "":
		return ErrNoAccessToken
	case t.TokenType != "" && !strings.EqualFold(t.TokenType, "Bearer"):
		return errors.New("token endpoint answered with a token that is not a bearer token")
	case len(t.AccessToken) > MaxAccessToken:
		return &TooLargeError{"the access token", len(t.AccessToken), MaxAccessToken}
	case len(t.RefreshToken) > MaxRefreshToken:
		return &TooLargeError{"the refresh token", len(t.RefreshToken), MaxRefreshToken}
	}
	if n := len(strings.Join(t.Scope, " ")); n > MaxScope {
		return &TooLargeError{"the list of scopes", n, MaxScope}
	}
	return nil
}

// TooLargeError reports a part of the issuer's answer that a session cannot
// hold. Trying again does not help.
type TooLargeError struct {
	what        string
	size, limit int // in bytes
}

// TooLarge says that a part of an answer has more bytes than limit.
func TooLarge(what string, size, limit int) error { return &TooLargeError{what, size, limit} }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s is too large: %d bytes, and the limit is %d", e.what, e.size, e.limit)
}

// UnusableAnswer is an answer of the token endpoint that grants something and
// cannot be used. The issuer has done its part: the code is spent, or the
// refresh token that was sent has been replaced by the one in the answer.
type UnusableAnswer struct {
	cause   error
	Refresh string // empty: none could be read
}

func newUnusableAnswer(cause error, body []byte) *UnusableAnswer {
	return &UnusableAnswer{cause, RefreshTokenIn(body)}
}

// Unusable says why an answer that came in good order cannot be used.
func (t *Answer) Unusable(cause error) error { return &UnusableAnswer{cause, t.RefreshToken} }

func (e *UnusableAnswer) Error() string { return e.cause.Error() }
func (e *UnusableAnswer) Unwrap() error { return e.cause }

// RefreshTokenIn returns the refresh token in the body of an answer that is
// labelled wrongly, cut off, or odd in another member. It is empty if there is
// none to be read.
func RefreshTokenIn(body []byte) (refresh string) {
	d := json.NewDecoder(bytes.NewReader(withoutMark(body)))
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
		if name == "refresh_token" && json.Unmarshal(value, &text) == nil && len(text) <= MaxRefreshToken {
			refresh = text
		}
	}
	return refresh
}
