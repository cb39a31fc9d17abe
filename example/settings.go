package main

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
)

// settings are what the environment says. README.md lists the variables.
type settings struct {
	addr    string
	baseURL string // empty: made from the address listened on

	issuer       string // empty: the embedded provider
	clientID     string
	clientSecret string
	scopes       []string
	responseType string
	responseMode string
	par          string
	prompt       string

	apiURL   string // empty: the demo API
	keys     [][]byte
	redisURL string // empty: memory
}

// readSettings reports every fault at once. What the signin package checks
// itself is left to it.
func readSettings(getenv func(string) string, log *slog.Logger) (settings, error) {
	s := settings{
		addr:         cmp.Or(getenv("ADDR"), "127.0.0.1:8080"),
		baseURL:      strings.TrimSuffix(getenv("BASE_URL"), "/"),
		issuer:       getenv("OIDC_ISSUER"),
		clientID:     getenv("OIDC_CLIENT_ID"),
		clientSecret: getenv("OIDC_CLIENT_SECRET"),
		scopes:       strings.Fields(cmp.Or(getenv("OIDC_SCOPES"), "openid profile offline_access")),
		responseType: getenv("OIDC_RESPONSE_TYPE"),
		responseMode: getenv("OIDC_RESPONSE_MODE"),
		par:          getenv("OIDC_PAR"),
		prompt:       getenv("OIDC_PROMPT"),
		apiURL:       getenv("API_URL"),
		redisURL:     getenv("REDIS_URL"),
	}
	var errs []error
	if s.issuer == "" && (s.clientID != "" || s.clientSecret != "") {
		errs = append(errs, errors.New("OIDC_CLIENT_ID, OIDC_CLIENT_SECRET: of no use without OIDC_ISSUER"))
	}
	if s.issuer != "" && s.clientID == "" {
		errs = append(errs, errors.New("OIDC_CLIENT_ID: empty; want the id that the issuer gave this site"))
	}
	// The embedded provider listens on this machine only, so nobody else could
	// sign in.
	if u, err := url.Parse(s.baseURL); s.issuer == "" && s.baseURL != "" && (err != nil || !loopback(u.Hostname())) {
		errs = append(errs, errors.New("BASE_URL: want a loopback address with the embedded provider, or an issuer in OIDC_ISSUER"))
	}
	if err := checkAPIURL(s.apiURL); err != nil {
		errs = append(errs, err)
	}
	var err error
	if s.keys, err = readKeys(getenv("SESSION_KEY"), log); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return settings{}, fmt.Errorf("bad settings: %w", err)
	}
	return s, nil
}

// checkAPIURL admits what an access token may be sent to.
func checkAPIURL(raw string) error {
	if raw == "" {
		return nil
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		return errors.New("API_URL: want an http or https URL")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return errors.New("API_URL: want https outside loopback, for the access token goes there")
	}
	return nil
}

func readKeys(list string, log *slog.Logger) ([][]byte, error) {
	if list == "" {
		log.Warn("SESSION_KEY is not set: a restart signs everyone out")
		key := make([]byte, 32)
		if _, err := rand.Read(key); err != nil {
			return nil, err
		}
		return [][]byte{key}, nil
	}
	var keys [][]byte
	for i, s := range strings.Split(list, ",") {
		key, err := hex.DecodeString(strings.TrimSpace(s))
		if err != nil || len(key) != 32 {
			return nil, fmt.Errorf("SESSION_KEY: entry %d is not 64 hexadecimal digits", i+1)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// publicURL is where a browser on this machine finds a listener. It says
// localhost where it can: the embedded provider is at 127.0.0.1, and so
// another site, as a real one is.
func publicURL(l net.Listener) (string, error) {
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return "", fmt.Errorf("reading the listen address: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsLoopback() || ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port), nil
}

// graph reports whether an API is Microsoft Graph, in any of its clouds.
func graph(apiURL string) bool {
	u, err := url.Parse(apiURL)
	if err != nil {
		return false
	}
	switch u.Hostname() {
	case "graph.microsoft.com", "graph.microsoft.us", "dod-graph.microsoft.us", "microsoftgraph.chinacloudapi.cn":
		return true
	}
	return false
}
