package signintest

import (
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// loginForm is the page of [Behaviour].LoginPage. It repeats the request.
var loginForm = template.Must(template.New("login").Parse(`<!DOCTYPE html>
<html lang="en"><head><title>Sign in</title></head><body><h1>Sign in at the issuer</h1>
<form method="post" action="{{.Action}}">
{{range $name, $values := .Params}}{{range $values}}<input type="hidden" name="{{$name}}" value="{{.}}">
{{end}}{{end}}<input type="hidden" name="login_form" value="{{.Form}}">
<label>User <select name="user">{{range .Users}}<option value="{{.}}"{{if eq . $.User}} selected{{end}}>{{.}}</option>{{end}}</select></label>
<button type="submit">Sign in</button></form></body></html>
`))

// askUser shows the login form to a browser that has to sign in, and reports
// whether it did.
func (i *Issuer) askUser(w http.ResponseWriter, x *exchange) bool {
	q := x.call.Form
	prompt := strings.Fields(q.Get("prompt"))
	if slices.Contains(prompt, "none") || i.submitted(x) {
		return false
	}
	s, known := i.sessionOf(x)
	maxAge, err := strconv.Atoi(q.Get("max_age"))
	stale := err == nil && x.b.now().Sub(s.authTime) >= time.Duration(maxAge)*time.Second
	if known && !stale && !slices.Contains(prompt, "login") && !slices.Contains(prompt, "select_account") {
		return false
	}
	user, _ := x.b.user(q.Get("login_hint"))
	var users []string
	for _, u := range x.b.Users {
		users = append(users, u.Subject)
	}
	form := random("form_")
	i.mu.Lock()
	i.forms[form] = i.begun
	i.mu.Unlock()
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := loginForm.Execute(w, map[string]any{"Action": x.r.URL.Path, "Params": q, "Form": form, "User": user.Subject, "Users": users}); err != nil {
		panic(http.ErrAbortHandler)
	}
	return true
}

// submitted reports whether a request comes from the login form.
func (i *Issuer) submitted(x *exchange) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	_, ok := i.forms[x.call.Form.Get("login_form")]
	return ok && x.call.Method == http.MethodPost
}

// formExpired reports whether the user has signed in elsewhere since the form was
// shown, at an issuer to which that matters.
func (i *Issuer) formExpired(x *exchange) bool {
	if !x.b.LoginPage || !x.b.SecondTabExpires || !i.submitted(x) {
		return false
	}
	s, known := i.sessionOf(x)
	i.mu.Lock()
	defer i.mu.Unlock()
	return known && s.number > i.forms[x.call.Form.Get("login_form")]
}

// sessionOf is the session of a browser at the issuer.
func (i *Issuer) sessionOf(x *exchange) (session, bool) {
	c, err := x.r.Cookie(sessionCookie)
	if err != nil {
		return session{}, false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.sessions[c.Value]
	if s == nil {
		return session{}, false
	}
	return *s, true
}

// hint names who is to sign in: on the login form, in the session that there is
// already, or in login_hint.
func (i *Issuer) hint(x *exchange) string {
	if x.b.LoginPage {
		if i.submitted(x) {
			return x.call.Form.Get("user")
		}
		if s, known := i.sessionOf(x); known {
			return s.subject
		}
	}
	return x.call.Form.Get("login_hint")
}

// appleField is the field user as Apple sends it, with what was asked for.
func (u User) appleField(scopes []string) string {
	field := map[string]any{}
	if slices.Contains(scopes, "email") {
		field["email"] = u.Claims["email"]
	}
	if name, _ := u.Claims["name"].(string); slices.Contains(scopes, "name") {
		first, last, _ := strings.Cut(name, " ")
		field["name"] = map[string]string{"firstName": first, "lastName": last}
	}
	body, err := json.Marshal(field)
	if err != nil {
		panic("signintest: encoding the field user: " + err.Error())
	}
	return string(body)
}
