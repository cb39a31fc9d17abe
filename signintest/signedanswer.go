package signintest

import (
	"net/url"
	"strings"
	"time"
)

// SignedAnswer is an answer of the authorization endpoint about to be signed (JARM).
type SignedAnswer struct {
	// Claims are the parameters of the answer beside iss, aud and exp.
	Claims map[string]any

	// Signing says how it is signed.
	Signing SignOptions

	// Raw, if not empty, is sent in place of the signed answer.
	Raw string
}

func signedMode(mode string) bool { return mode == "jwt" || strings.HasSuffix(mode, ".jwt") }

// baseMode is how the answer of a response mode travels.
func baseMode(mode string, q url.Values) string {
	if mode != "jwt" {
		return strings.TrimSuffix(mode, ".jwt")
	}
	if q.Get("response_type") == "code" {
		return "query"
	}
	return "fragment"
}

// signResponse puts the parameters of an answer into one that is signed.
func (i *Issuer) signResponse(x *exchange, client Client, resp *AuthResponse) error {
	a := &SignedAnswer{Claims: map[string]any{
		"iss": i.announcedIssuer(x), "aud": client.ID, "exp": x.b.now().Add(10 * time.Minute).Unix(),
	}}
	for name := range resp.Params {
		a.Claims[name] = resp.Params.Get(name)
	}
	if x.b.EditSignedAnswer != nil {
		x.b.EditSignedAnswer(a)
	}
	if a.Raw == "" {
		var err error
		if a.Raw, err = i.sign(a.Claims, a.Signing); err != nil {
			return err
		}
	}
	i.remember(a.Raw)
	resp.Params = url.Values{"response": {a.Raw}}
	return nil
}
