package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/text"
	"github.com/seed454743b5/signin/internal/web"
)

// Response is the parameter that carries a signed answer (JARM, 2.3).
const Response = "response"

// SignsAnswers reports whether a response mode asks for signed answers.
func SignsAnswers(mode string) bool {
	return mode == "jwt" || strings.HasSuffix(mode, ".jwt")
}

// AnswersByForm reports whether answers come by POST in a response mode.
func AnswersByForm(mode string) bool {
	return strings.TrimSuffix(mode, ".jwt") == "form_post"
}

// PeekAnswer returns what a signed answer says, without a look at its signature. That is
// enough to find the challenge it answers: the state in it is sealed by us.
func PeekAnswer(raw string) (url.Values, error) {
	if err := checkCompactWithin(raw, web.MaxForm); err != nil {
		return nil, fmt.Errorf("signed answer: %w", err)
	}
	payload, err := seal.Decode(strings.Split(raw, ".")[1])
	if err != nil {
		return nil, errors.New("signed answer: not in compact serialization")
	}
	return answerParams(payload, raw)
}

// answerParams are the parameters of an answer, and the answer itself as
// [Response].
func answerParams(payload []byte, raw string) (url.Values, error) {
	var members map[string]json.RawMessage
	if json.Unmarshal(payload, &members) != nil || members == nil {
		return nil, errors.New("signed answer: not a JSON object")
	}
	params := url.Values{}
	for name, member := range members {
		var s string
		if slices.Contains([]string{"aud", "jti"}, name) {
			continue // of the token, and no parameter
		}
		if json.Unmarshal(member, &s) == nil {
			params.Set(name, s)
		}
	}
	params.Set(Response, raw)
	return params, nil
}

// VerifyAnswer returns the parameters of a signed answer (JARM, 2.4). An *[Error]
// says that the issuer's keys could not be had; any other error, that the answer
// is bad.
func (i *Issuer) VerifyAnswer(ctx context.Context, meta *Metadata, raw string) (url.Values, error) {
	if raw == "" {
		return nil, errors.New("the answer is not signed, and ResponseMode asks for that")
	}
	if err := checkCompactWithin(raw, web.MaxForm); err != nil {
		return nil, fmt.Errorf("signed answer: %w", err)
	}
	payload, err := TokenVerifier{meta.Keys.Source, meta.answerAlgs, meta.Rule}.verify(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("signed answer: %w", err)
	}
	if err := i.checkAnswer(meta, payload); err != nil {
		return nil, fmt.Errorf("signed answer: %w", err)
	}
	return answerParams(payload, raw)
}

// checkAnswer judges the claims of a signed answer.
func (i *Issuer) checkAnswer(meta *Metadata, payload []byte) error {
	var c struct {
		Issuer    string       `json:"iss"`
		Audience  Audience     `json:"aud"`
		Expiry    *NumericDate `json:"exp"`
		NotBefore *NumericDate `json:"nbf"`
		IssuedAt  *NumericDate `json:"iat"`
	}
	if err := DecodeExact(payload, &c); err != nil {
		return err
	}
	now := i.now()
	switch {
	case !meta.Rule.Names(c.Issuer):
		return errors.New("iss is missing or another issuer")
	case c.Expiry == nil:
		return errors.New("exp is missing")
	case !now.Before(c.Expiry.Add(i.skew)):
		return errors.New("expired")
	case c.NotBefore != nil && now.Add(i.skew).Before(c.NotBefore.Time):
		return errors.New("nbf is in the future")
	case c.IssuedAt != nil && now.Add(i.skew).Before(c.IssuedAt.Time):
		return errors.New("iat is in the future")
	}
	return (&Claims{Audience: c.Audience}).checkAudience(i.ClientID, i.audiences)
}

// answerSigning are the algorithms that answers may be signed with: those pinned,
// else those that the issuer announces for answers, else those for ID tokens.
func (i *Issuer) answerSigning(m *Metadata) ([]string, error) {
	if !SignsAnswers(i.responseMode) || len(i.algorithms) > 0 || len(m.AnswerAlgs) == 0 {
		return m.Keys.Algs, nil
	}
	algs := slices.DeleteFunc(slices.Clone(m.AnswerAlgs), func(alg string) bool { return !slices.Contains(Asymmetric, alg) })
	if len(algs) == 0 {
		return nil, &Misconfigured{fmt.Errorf("the issuer announces no asymmetric signing algorithm for answers (authorization_signing_alg_values_supported has %s)", text.Printable(strings.Join(m.AnswerAlgs, ", "), 200))}
	}
	return algs, nil
}
