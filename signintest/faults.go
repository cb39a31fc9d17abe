package signintest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"time"
)

// Fault is a way to answer badly. What is set is done in the order of the
// fields. A Fault that only delays or edits is followed by the usual answer.
type Fault struct {
	// AfterProcessing does what was asked first: the code is spent, the
	// refresh token rotated. Then comes the fault. It is how an answer gets
	// lost. Otherwise nothing is done but the fault.
	AfterProcessing bool

	// Edit changes the usual answer, after what was asked has been done: its
	// label, its length, whatever an issuer or a proxy gets wrong. It implies
	// AfterProcessing.
	Edit func(*Answer)

	// Delay holds the answer for a time.
	Delay time.Duration

	// Hang holds the answer until the channel is closed, the client has gone,
	// or the test ends.
	Hang <-chan struct{}

	// Drop closes the connection without an answer. Note that Go's transport
	// repeats a GET by itself if the connection had been used before; it does
	// not repeat a POST.
	Drop bool

	// Redirect, if not empty, answers 307 with this Location, so that a client
	// that follows it posts its secrets there. Status replaces the 307.
	Redirect string

	// Status, Header and Body are the answer. Status 0 means 200 if one of the
	// others is set.
	Status int
	Header http.Header
	Body   string

	// Endless follows Body with spaces, in place of an end.
	Endless bool
}

// OAuthError is an error as OAuth 2.0 spells it, at the authorization endpoint
// (RFC 6749, section 4.1.2.1) or the token endpoint (section 5.2).
type OAuthError struct {
	// Status is the HTTP status at the token endpoint. Zero means 400.
	Status int

	// Code, Description and URI are error, error_description and error_uri.
	Code, Description, URI string

	// Extra members of the JSON answer, such as Entra's suberror or claims.
	Extra map[string]any
}

// Fault returns the error as an answer of the token endpoint.
func (e OAuthError) Fault() Fault {
	body := map[string]any{"error": e.Code}
	if e.Description != "" {
		body["error_description"] = e.Description
	}
	if e.URI != "" {
		body["error_uri"] = e.URI
	}
	maps.Copy(body, e.Extra)
	status := e.Status
	if status == 0 {
		status = http.StatusBadRequest
	}
	return JSONFault(status, body)
}

// JSONFault is an answer with a JSON body. It panics if v cannot be encoded.
func JSONFault(status int, v any) Fault {
	body, err := json.Marshal(v)
	if err != nil {
		panic("signintest: encoding a fault: " + err.Error())
	}
	return Fault{
		Status: status,
		Header: http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}},
		Body:   string(body),
	}
}

// HTMLFault is a page where JSON was expected, as a proxy or a login wall
// sends it.
func HTMLFault(status int) Fault {
	return Fault{
		Status: status,
		Header: http.Header{"Content-Type": {"text/html; charset=utf-8"}},
		Body:   "<!DOCTYPE html><title>Sorry</title><h1>Something went wrong</h1>",
	}
}

// InvalidToken is the answer of an API that refuses an access token
// (RFC 6750, section 3.1).
func InvalidToken() Fault {
	return apiFault(http.StatusUnauthorized, `Bearer error="invalid_token", error_description="the access token is not valid"`)
}

// InsufficientClaims is the answer of an API that wants a token with other
// claims, as continuous access evaluation sends it: claims is JSON, and
// travels in base64.
func InsufficientClaims(claims string) Fault {
	return apiFault(http.StatusUnauthorized, fmt.Sprintf(
		`Bearer realm="", authorization_uri="https://login.example.test/authorize", error="insufficient_claims", claims="%s"`,
		base64.StdEncoding.EncodeToString([]byte(claims))))
}

// ClaimsInInvalidToken is [InsufficientClaims] as Azure Resource Manager sends it:
// the error is called invalid_token, and what the API wants is in claims all
// the same.
func ClaimsInInvalidToken(claims string) Fault {
	return apiFault(http.StatusUnauthorized, fmt.Sprintf(
		`Bearer authorization_uri="https://login.example.test/", error="invalid_token", error_description="The authentication token is revoked.", claims="%s"`,
		base64.StdEncoding.EncodeToString([]byte(claims))))
}

// StepUp is the answer of an API that wants the user to sign in again, or in
// a stronger way (RFC 9470). An empty acr and a negative maxAge are left out.
// maxAge counts in whole seconds.
func StepUp(acr string, maxAge time.Duration) Fault {
	challenge := `Bearer error="insufficient_user_authentication", error_description="sign in again"`
	if acr != "" {
		challenge += fmt.Sprintf(`, acr_values="%s"`, acr)
	}
	if maxAge >= 0 {
		challenge += fmt.Sprintf(`, max_age="%d"`, maxAge/time.Second)
	}
	return apiFault(http.StatusUnauthorized, challenge)
}

func apiFault(status int, challenge string) Fault {
	return Fault{
		Status: status,
		Header: http.Header{"Www-Authenticate": {challenge}, "Content-Type": {"application/json"}},
		Body:   `{"error":"refused"}`,
	}
}

// Fail makes an endpoint answer with the fault until [Issuer.Heal].
// EndpointAny stands for all endpoints.
func (i *Issuer) Fail(e Endpoint, f Fault) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.failing[e] = f
}

// FailNext makes the next requests to an endpoint fail, one per fault, in
// their order of arrival.
func (i *Issuer) FailNext(e Endpoint, faults ...Fault) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.failNext[e] = append(i.failNext[e], faults...)
}

// Heal ends the faults of [Issuer.Fail] and [Issuer.FailNext]. Requests that
// hang already go on hanging.
func (i *Issuer) Heal() {
	i.mu.Lock()
	defer i.mu.Unlock()
	clear(i.failing)
	clear(i.failNext)
}

// faultFor takes the fault a request gets, nil for none.
func (i *Issuer) faultFor(x *exchange) *Fault {
	if x.b.Fault != nil {
		if f := x.b.Fault(*x.call); f != nil {
			return f
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, e := range []Endpoint{x.call.Endpoint, EndpointAny} {
		if next := i.failNext[e]; len(next) > 0 {
			i.failNext[e] = next[1:]
			return &next[0]
		}
	}
	for _, e := range []Endpoint{x.call.Endpoint, EndpointAny} {
		if f, ok := i.failing[e]; ok {
			return &f
		}
	}
	return nil
}

// withFault serves a request, or spoils it.
func (i *Issuer) withFault(w http.ResponseWriter, x *exchange, serve func(http.ResponseWriter, *exchange)) {
	f := i.faultFor(x)
	if f == nil {
		serve(w, x)
		return
	}
	answer := func() { serve(w, x) }
	if f.AfterProcessing || f.Edit != nil {
		a := record(func(w http.ResponseWriter) { serve(w, x) })
		if f.Edit != nil {
			f.Edit(a)
		}
		answer = func() { a.write(w) }
	}
	if !i.hold(x, f) || f.Drop {
		panic(http.ErrAbortHandler) // closes the connection, without a word
	}
	if !f.answers() {
		answer()
		return
	}
	i.spoil(w, x, f)
}

// hold waits as the fault says, and reports whether there is still somebody
// to answer.
func (i *Issuer) hold(x *exchange, f *Fault) bool {
	if f.Delay > 0 {
		over := make(chan struct{})
		timer := time.AfterFunc(f.Delay, func() { close(over) })
		defer timer.Stop()
		if !i.wait(x, over) {
			return false
		}
	}
	return f.Hang == nil || i.wait(x, f.Hang)
}

func (i *Issuer) wait(x *exchange, until <-chan struct{}) bool {
	select {
	case <-until:
		return true
	case <-x.r.Context().Done():
		return false
	case <-i.closing:
		return false
	}
}

// answers reports whether the fault brings an answer of its own.
func (f *Fault) answers() bool {
	return f.Redirect != "" || f.Status != 0 || f.Header != nil || f.Body != "" || f.Endless
}

func (i *Issuer) spoil(w http.ResponseWriter, x *exchange, f *Fault) {
	maps.Copy(w.Header(), f.Header)
	status := f.Status
	if f.Redirect != "" {
		w.Header().Set("Location", f.Redirect)
		if status == 0 {
			status = http.StatusTemporaryRedirect
		}
	}
	if status == 0 {
		status = http.StatusOK
	}
	w.WriteHeader(status)
	io.WriteString(w, f.Body)
	if !f.Endless {
		return
	}
	spaces := bytes.Repeat([]byte{' '}, 64<<10)
	for x.r.Context().Err() == nil {
		select {
		case <-i.closing:
			panic(http.ErrAbortHandler)
		default:
		}
		if _, err := w.Write(spaces); err != nil {
			return
		}
	}
}
