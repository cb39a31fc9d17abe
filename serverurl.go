package signin

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/seed454743b5/signin/internal/family"
)

// checkIssuerURL also catches what is easily pasted or left empty, which would
// otherwise show as an issuer that cannot be reached.
func checkIssuerURL(raw string) error {
	if err := checkServerURL(raw); err != nil {
		return err
	}
	if issuer, ok := strings.CutSuffix(raw, "/.well-known/openid-configuration"); ok {
		return fmt.Errorf("%q is the discovery document's URL; want the issuer's, %q", raw, issuer)
	}
	return family.CheckEntraTenant(raw)
}

// checkServerURL admits https, and http where nothing leaves the machine.
func checkServerURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		return errors.New("empty; want the issuer's https URL")
	case strings.ContainsAny(raw, "{}"):
		return fmt.Errorf("%q is a template; want a tenant, or common, in place of what is in braces", raw)
	case err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		return fmt.Errorf("%q is not a URL; want one that begins with https://", raw)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return errors.New("want a URL without user, query or fragment")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return fmt.Errorf("want https://%s; plain http is for loopback only", u.Host)
	}
	return nil
}

// checkEndpointURL is checkServerURL for what a discovery document names,
// which may have a query.
func checkEndpointURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || len(raw) > 2048 {
		return errors.New("not a URL")
	}
	u.RawQuery = ""
	return checkServerURL(u.String())
}

func isLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
