package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/mail"
	"strings"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/example/internal/api"
)

// A draft is a mail being written.
type draft struct {
	To      string `json:"to"`
	Subject string `json:"subject"`
	Body    string `json:"body"`
}

const (
	draftCookie = "demo_draft"
	maxDraft    = 3800 // bytes, encoded: it must fit into a cookie
)

// mailForm shows the form. With ?ask it first asks for the permission to send.
func (s *site) mailForm(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("ask") {
		_, err := signin.TokenSource(r.Context(), s.api.sendScope).Token()
		if s.auth.Challenge(w, r, err) {
			return
		}
		if err != nil {
			s.fail(w, r, http.StatusBadGateway, err)
			return
		}
	}
	s.show(w, r, http.StatusOK, "mail", values{
		"Draft":   keptDraft(r),
		"Sent":    r.URL.Query().Has("sent"),
		"Allowed": r.URL.Query().Has("ask"),
	})
}

// sendMail sends the mail through the API. The permission to send is asked for
// only now. A form's body does not survive the way to the issuer, so the draft
// waits in a cookie, and the form is shown again with it.
func (s *site) sendMail(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	d := draft{To: strings.TrimSpace(r.PostFormValue("to")), Subject: r.PostFormValue("subject"), Body: r.PostFormValue("body")}
	if fault := d.fault(); fault != "" {
		s.show(w, r, http.StatusUnprocessableEntity, "mail", values{"Draft": d, "Fault": fault})
		return
	}
	answer, err := s.api.sendMail(r.Context(), d.message())
	if need, ok := errors.AsType[*signin.InteractionRequiredError](err); ok {
		keepDraft(w, d)
		if need.Reason == signin.ReasonClaims {
			// The API wants more than a permission, and what it is would be
			// lost on the way over ?ask. Challenge shows a page with a link.
			s.auth.Challenge(w, r, err)
			return
		}
		http.Redirect(w, r, "/mail?ask", http.StatusSeeOther)
		return
	}
	if err == nil && answer.Status >= 300 {
		err = answer.error()
	}
	if err != nil {
		s.fail(w, r, http.StatusBadGateway, err)
		return
	}
	keepDraft(w, draft{})
	http.Redirect(w, r, "/mail?sent", http.StatusSeeOther)
}

func (d draft) fault() string {
	if a, err := mail.ParseAddress(d.To); err != nil || a.Address != d.To {
		return "Please give one e-mail address to send to."
	}
	if len(d.encode()) > maxDraft {
		return "That is too long for this demo."
	}
	return ""
}

func (d draft) message() api.SendMail {
	return api.SendMail{Message: api.Message{
		Subject:      d.Subject,
		Body:         api.Body{ContentType: "Text", Content: d.Body},
		ToRecipients: []api.Recipient{{EmailAddress: api.EmailAddress{Address: d.To}}},
	}}
}

// keepDraft leaves the draft with the browser, or takes it away if it is empty.
func keepDraft(w http.ResponseWriter, d draft) {
	c := &http.Cookie{
		Name:     draftCookie,
		Value:    d.encode(),
		Path:     "/mail",
		MaxAge:   3600,
		HttpOnly: true,
		Secure:   true,
		SameSite: http.SameSiteLaxMode,
	}
	if d == (draft{}) {
		c.Value, c.MaxAge = "", -1
	}
	http.SetCookie(w, c)
}

func (d draft) encode() string {
	b, _ := json.Marshal(d) // three strings: cannot fail
	return base64.RawURLEncoding.EncodeToString(b)
}

func keptDraft(r *http.Request) (d draft) {
	c, err := r.Cookie(draftCookie)
	if err != nil {
		return draft{}
	}
	b, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil || json.Unmarshal(b, &d) != nil {
		return draft{}
	}
	return d
}
