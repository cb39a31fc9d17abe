package serve

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"testing"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/front/internal/identity"
	"github.com/seed454743b5/signin/front/internal/rule"
	"github.com/seed454743b5/signin/front/internal/visit"
)

// Whatever a request holds, its line is JSON, and one.
func FuzzAccessLog(f *testing.F) {
	f.Add("GET", "wiki.example.com", "/a", "1001")
	f.Add("\"\\\x00", "\u2028", "/\xff\n", "{}")
	f.Fuzz(func(t *testing.T, method, host, path, subject string) {
		var out bytes.Buffer
		log := &accessLog{stdout: &out}
		if err := log.open("stdout"); err != nil {
			t.Fatal(err)
		}
		v := &visit.Visit{Host: host, Client: host, Asked: path, Cause: subject, Person: &identity.Person{Subject: &rule.Subject{User: &signin.User{Subject: subject}}}}
		log.request(&http.Request{Method: method, URL: &url.URL{Path: path}, Proto: "HTTP/1.1"}, v, 200, 5, 1)
		log.close()
		var line map[string]any
		if err := json.Unmarshal(out.Bytes(), &line); err != nil || bytes.Count(out.Bytes(), []byte("\n")) != 1 || line["status"] != 200.0 {
			t.Fatalf("%v in %q", err, out.String())
		}
	})
}
