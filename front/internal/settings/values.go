package settings

import (
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Duration is a time.Duration, to tell it from a number in the table.
type Duration time.Duration

func text(field func(*Config) *string) func(*loader, *Config, *yaml.Node) {
	return func(l *loader, c *Config, n *yaml.Node) { *field(c) = l.text(n) }
}

func truth(field func(*Config) *bool) func(*loader, *Config, *yaml.Node) {
	return func(l *loader, c *Config, n *yaml.Node) { *field(c) = l.truth(n) }
}

func list(field func(*Config) *[]string) func(*loader, *Config, *yaml.Node) {
	return func(l *loader, c *Config, n *yaml.Node) { *field(c) = l.list(n) }
}

func duration(field func(*Config) *Duration) func(*loader, *Config, *yaml.Node) {
	return func(l *loader, c *Config, n *yaml.Node) { *field(c) = Duration(l.duration(n)) }
}

func (l *loader) text(n *yaml.Node) string {
	switch {
	case n.Kind != yaml.ScalarNode || n.Tag == "!!null":
		l.fault(n, "want one value")
	case strings.ContainsAny(n.Value, "\r\n\x00"):
		l.fault(n, "has a line break in it")
	default:
		return n.Value
	}
	return ""
}

func (l *loader) truth(n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.ScalarNode && (n.Value == "true" || n.Value == "1" && l.now.where != ""):
		return true
	case n.Kind == yaml.ScalarNode && (n.Value == "false" || n.Value == "0" && l.now.where != ""):
		return false
	}
	l.fault(n, "want true or false")
	return false
}

// list reads a YAML list, or text with commas or spaces between items.
func (l *loader) list(n *yaml.Node) []string {
	var out []string
	switch n.Kind {
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			l.fault(n, "is empty")
			return nil
		}
		return strings.FieldsFunc(n.Value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' })
	case yaml.SequenceNode:
		for _, item := range n.Content {
			switch {
			case item.Kind != yaml.ScalarNode || item.Tag == "!!null":
				l.fault(item, "an item is not one value")
			case item.Value == "" || strings.TrimSpace(item.Value) != item.Value:
				l.fault(item, "an item is empty or has spaces around it")
			default:
				out = append(out, item.Value)
			}
		}
		return out
	}
	l.fault(n, "want a list, such as [a, b]")
	return nil
}

func (l *loader) duration(n *yaml.Node) time.Duration {
	d, err := time.ParseDuration(l.text(n))
	switch {
	case err != nil:
		l.fault(n, "%q is not a time; want one such as 90s, 15m or 12h", n.Value)
	case d <= 0:
		l.fault(n, "%q: want more than nothing", n.Value)
	case d%time.Second != 0:
		l.fault(n, "%q: want whole seconds", n.Value)
	default:
		return d
	}
	return 0
}

func (l *loader) prefixes(c *Config, n *yaml.Node) { c.TrustedProxies = l.cidrs(n) }

func (l *loader) cidrs(n *yaml.Node) (out []netip.Prefix) {
	for _, s := range l.list(n) {
		p, err := netip.ParsePrefix(s)
		if addr, e := netip.ParseAddr(s); e == nil {
			p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		switch {
		case err != nil:
			l.fault(n, "%q is not an address range; want one such as 10.0.0.0/8", s)
		case p.Bits() == 0:
			l.fault(n, "%q trusts everybody, and so anybody could say who is signed in", s)
		case p != p.Masked():
			l.fault(n, "%q has bits beyond its prefix; want %s", s, p.Masked())
		default:
			out = append(out, p)
		}
	}
	return out
}

// store says which store is meant; which kinds can be opened, the package that
// opens them knows.
func (l *loader) store(c *Config, n *yaml.Node) {
	s := l.text(n)
	scheme, rest, _ := strings.Cut(s, ":")
	switch {
	case s == "memory":
		c.Store = Store{Kind: "memory"}
	case (scheme == "file" || scheme == "sqlite") && strings.TrimPrefix(rest, "//") != "":
		c.Store = Store{scheme, l.beside(strings.TrimPrefix(rest, "//"))}
	case strings.HasPrefix(rest, "//"):
		u, err := url.Parse(s)
		if err != nil || u.Host == "" && u.Scheme != "postgres" {
			l.fault(n, "is not a URL; want one such as redis://127.0.0.1:6379/0")
			return
		}
		kind := map[string]string{"rediss": "redis", "postgresql": "postgres"}[scheme]
		if kind == "" {
			kind = scheme
		}
		c.Store = Store{kind, s}
	default: // a URL has a password in it, perhaps: do not quote it
		l.fault(n, "want memory, file:PATH, redis://..., postgres://..., mysql://... or sqlite:PATH")
	}
}

const maxLogo = 64 << 10

func (l *loader) logo(c *Config, n *yaml.Node) {
	name := l.text(n)
	if name == "" {
		return
	}
	types := map[string]string{"svg": "image/svg+xml", "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp"}
	kind := types[strings.ToLower(name[strings.LastIndexByte(name, '.')+1:])]
	data, err := readSmall(name, maxLogo)
	switch {
	case kind == "":
		l.fault(n, "%s: want a name that ends in .svg, .png, .jpg or .webp", name)
	case err != nil:
		l.fault(n, "%s: %s", name, cause(err))
	default:
		c.Site.Logo = Logo{kind, data}
	}
}

// secretFile reads a file that holds one secret.
func secretFile(name string) (string, error) {
	raw, err := readSmall(name, 64<<10)
	return strings.TrimSpace(string(raw)), err
}

func readSmall(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, errString("is a folder")
	case info.Size() > limit:
		return nil, errString("is too large")
	}
	return os.ReadFile(name)
}

type errString string

func (e errString) Error() string { return string(e) }
