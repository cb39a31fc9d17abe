package settings

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// readFlags reads -name value, -name=value and, for what is true or false,
// -name alone. It does not stop at the first fault, as package flag would.
func (l *loader) readFlags(args []string) map[string]value {
	found := map[string]value{}
	for i := 0; i < len(args); i++ {
		name, ok := strings.CutPrefix(args[i], "-")
		if !ok || name == "" {
			l.rest = append(l.rest, args[i])
			continue
		}
		name, val, has := strings.Cut(strings.TrimPrefix(name, "-"), "=")
		s, known := flag(name)
		l.now = value{where: "-" + name}
		switch {
		case !known:
			l.fault(nil, "unknown flag%s", like(name, Setting.Flag))
			if !has && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
				i++ // most likely its value
			}
			continue
		case !has && s.Arg == "":
			val = "true"
		case !has && i+1 == len(args):
			l.fault(nil, "needs a value")
			continue
		case !has:
			i++
			val = args[i]
		}
		if _, twice := found[s.Name]; twice {
			l.fault(nil, "is given twice")
		}
		if n := l.parseText(s, val); n != nil {
			found[s.Name] = value{n, "-" + name}
		}
	}
	l.now = value{}
	return found
}

func flag(name string) (Setting, bool) {
	if name == "config" {
		return Setting{Name: "config", Arg: "FILE"}, true
	}
	return find(Setting.Flag, name)
}

// readEnv reads FRONT_ variables, all of which have to be known, and the demo
// site's. An empty one counts as unset.
func (l *loader) readEnv(environ []string) map[string]value {
	found, demo := map[string]value{}, map[string]value{}
	for _, pair := range environ {
		name, val, _ := strings.Cut(pair, "=")
		s, known := find(func(s Setting) string { return s.demo }, name)
		into := demo
		if strings.HasPrefix(name, "FRONT_") {
			s, known = find(Setting.Env, name)
			into = found
			if name == "FRONT_CONFIG" {
				s, known = Setting{Name: "config"}, true
			}
			if !known {
				l.now = value{where: name}
				l.fault(nil, "unknown variable%s", like(name, Setting.Env))
			}
		}
		if !known || name == "" || val == "" {
			continue
		}
		l.now = value{where: name}
		if n := l.parseText(s, val); n != nil {
			into[s.Name] = value{n, name}
		}
	}
	l.now = value{}
	l.readDemo(environ, demo)
	for name, v := range demo {
		other := name
		for _, p := range pairs {
			if p[0] == name {
				other = p[1]
			}
		}
		if _, ok := found[name]; !ok && found[other].node == nil {
			found[name] = v
		}
	}
	return found
}

// readDemo reads those of the demo site's variables that are no setting. What
// they ask for and is not there is a fault: it must not seem to be in force.
func (l *loader) readDemo(environ []string, found map[string]value) {
	for _, pair := range environ {
		name, val, _ := strings.Cut(pair, "=")
		l.now = value{where: name}
		switch {
		case val == "":
		case name == "OIDC_CLIENT_AUTH":
			switch val {
			case "none":
				found["public_client"] = value{scalar("true"), name}
			case "secret":
				delete(found, "client_key_file")
			case "private_key_jwt":
				delete(found, "client_secret")
			default:
				l.fault(nil, "%q: not built in; want secret, private_key_jwt or none", val)
			}
		case name == "OIDC_PAR" && val == "auto" || val == "0":
		case slices.Contains([]string{"OIDC_CLIENT_CERT", "OIDC_PAR", "OIDC_SIGNED_REQUEST", "OIDC_DPOP", "OIDC_USERINFO", "OIDC_PROFILE"}, name):
			l.fault(nil, "not built in; want it unset")
		}
	}
	l.now = value{}
}

// parseText reads a value that stands alone: of a list, the items are parted
// by commas or spaces, or it is YAML in brackets. Routes are YAML.
func (l *loader) parseText(s Setting, text string) *yaml.Node {
	if s.Name != "routes" && !strings.HasPrefix(text, "[") {
		return scalar(text)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil || len(doc.Content) != 1 {
		if s.Name != "routes" {
			return scalar(text)
		}
		l.fault(nil, "is not YAML%s", yamlCause(err))
		return nil
	}
	return l.resolve(doc.Content[0])
}
