package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/mail"
	"sync"
	"time"
)

// The bounds of the outbox, which forgets the oldest beyond them.
const (
	maxUsers      = 1000
	maxPerUser    = 50
	maxRecipients = 20
)

// Message is a mail, in the form that Graph's sendMail takes.
type Message struct {
	Subject      string      `json:"subject"`
	Body         Body        `json:"body"`
	ToRecipients []Recipient `json:"toRecipients"`
	Sent         *time.Time  `json:"sentDateTime,omitempty"`
}

// Body is the content of a mail. ContentType is "Text" or "HTML".
type Body struct {
	ContentType string `json:"contentType"`
	Content     string `json:"content"`
}

// Recipient is one to whom a mail goes.
type Recipient struct {
	EmailAddress EmailAddress `json:"emailAddress"`
}

// EmailAddress is an address without a display name.
type EmailAddress struct {
	Address string `json:"address"`
}

// SendMail is the document that is posted to sendMail.
type SendMail struct {
	Message Message `json:"message"`
}

func (s *server) sendMail(w http.ResponseWriter, r *http.Request, t *Token) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		refuse(w, http.StatusRequestEntityTooLarge, "", "too_large", "The mail is too large.")
		return
	}
	var m SendMail
	if err == nil {
		err = json.Unmarshal(body, &m)
	}
	if err == nil {
		err = m.Message.check()
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "", "invalid_mail", err.Error())
		return
	}
	m.Message.Sent = new(time.Now().UTC())
	s.outbox.add(t.Subject, m.Message)
	w.WriteHeader(http.StatusAccepted)
}

func (m Message) check() error {
	if n := len(m.ToRecipients); n == 0 || n > maxRecipients {
		return fmt.Errorf("%d recipients; want 1 to %d", n, maxRecipients)
	}
	for _, to := range m.ToRecipients {
		if a, err := mail.ParseAddress(to.EmailAddress.Address); err != nil || a.Address != to.EmailAddress.Address {
			return errors.New("a recipient is not an e-mail address")
		}
	}
	return nil
}

func (s *server) sentItems(w http.ResponseWriter, _ *http.Request, t *Token) {
	reply(w, http.StatusOK, map[string]any{"value": s.outbox.of(t.Subject)})
}

// outbox keeps what was sent, by user, the newest first.
type outbox struct {
	mu   sync.Mutex
	sent map[string][]Message
}

func newOutbox() *outbox { return &outbox{sent: make(map[string][]Message)} }

func (o *outbox) add(user string, m Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.sent[user]; !ok && len(o.sent) >= maxUsers {
		for other := range o.sent {
			delete(o.sent, other) // any: this is a demo's memory, not a mailbox
			break
		}
	}
	box := append([]Message{m}, o.sent[user]...)
	o.sent[user] = box[:min(len(box), maxPerUser)]
}

func (o *outbox) of(user string) []Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]Message{}, o.sent[user]...)
}
