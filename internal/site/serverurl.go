package site

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// CheckServerURL admits https, and http where nothing leaves the machine.
func CheckServerURL(raw string) error {
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
	case u.Scheme == "http" && !IsLoopback(u.Hostname()):
		return fmt.Errorf("want https://%s; plain http is for loopback only", u.Host)
	}
	return nil
}

// CheckEndpointURL is checkServerURL for what a discovery document names,
// which may have a query.
func CheckEndpointURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || len(raw) > 2048 {
		return errors.New("not a URL")
	}
	u.RawQuery = ""
	return CheckServerURL(u.String())
}

func IsLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
