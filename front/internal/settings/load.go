package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Fault is one thing that is wrong.
type Fault struct {
	Where string // front.yaml:12, FRONT_ISSUER or -issuer; empty: nowhere in particular
	Text  string // which setting, what is wrong with it, and what to write instead
}

func (f Fault) Error() string {
	if f.Where == "" {
		return f.Text
	}
	return f.Where + ": " + f.Text
}

// Faults are all that is wrong. It is an error if there is any.
type Faults []Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.Error()
	}
	return strings.Join(lines, "\n")
}

// Source is where settings come from.
type Source struct {
	Args    []string // flags, after the command's name
	Environ []string // NAME=VALUE
}

// value is what one source says about one setting.
type value struct {
	node  *yaml.Node
	where string // for those that have no lines
}

// loader collects values, then faults.
type loader struct {
	file   string
	values map[string]value
	now    value  // whose setter runs
	prefix string // what precedes a fault: the setting, the route
	faults Faults
	rest   []string // arguments that are no flags
}

// Load reads the settings. Its error is of type [Faults]. What remains of the
// arguments is returned.
func Load(src Source) (*Config, []string, error) {
	l := &loader{values: map[string]value{}}
	flags := l.readFlags(src.Args)
	env := l.readEnv(src.Environ)
	l.file = env["config"].text()
	if v, ok := flags["config"]; ok {
		l.file = v.text()
	}
	if l.file != "" && !l.readFile() {
		return nil, l.rest, l.faults // anything else would follow from it
	}
	for name, v := range env {
		l.override(name, v)
	}
	for name, v := range flags {
		l.override(name, v)
	}
	c := &Config{File: l.file}
	for _, s := range Table() {
		v, ok := l.values[s.Name]
		if !ok && s.Default != "" {
			v, ok = value{node: scalar(s.Default)}, true
		}
		if ok {
			l.now, l.prefix = v, s.Name+": "
			s.set(l, c, v.node)
		}
	}
	l.now, l.prefix = value{}, ""
	l.check(c)
	if len(l.faults) > 0 {
		slices.SortStableFunc(l.faults, func(a, b Fault) int { return strings.Compare(a.Error(), b.Error()) })
		return nil, l.rest, slices.Compact(l.faults)
	}
	return c, l.rest, nil
}

// pairs are settings of which one source may say one or the other: the later
// source replaces both.
var pairs = [][2]string{{"client_secret", "client_secret_file"}, {"session_keys", "session_keys_file"}}

func (l *loader) override(name string, v value) {
	for _, p := range pairs {
		for i := range p {
			if old, ok := l.values[p[1-i]]; name == p[i] && ok && old.where == "" {
				delete(l.values, p[1-i])
			}
		}
	}
	l.values[name] = v
}

func (v value) text() string {
	if v.node == nil {
		return ""
	}
	return v.node.Value
}

func scalar(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

// fault notes what is wrong with a node.
func (l *loader) fault(n *yaml.Node, format string, args ...any) {
	where := l.now.where
	if where == "" && n != nil && n.Line > 0 {
		where = fmt.Sprintf("%s:%d", filepath.Base(l.file), n.Line)
	}
	l.faults = append(l.faults, Fault{where, l.prefix + fmt.Sprintf(format, args...)})
}

// wrong notes what is wrong with the whole.
func (l *loader) wrong(format string, args ...any) {
	l.faults = append(l.faults, Fault{"", fmt.Sprintf(format, args...)})
}

// readFile reports whether there is anything to go on with.
func (l *loader) readFile() bool {
	raw, err := os.ReadFile(l.file)
	if err != nil {
		l.wrong("%s: %s", l.file, cause(err))
		return false
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		l.faults = append(l.faults, Fault{filepath.Base(l.file), "is not YAML" + yamlCause(err)})
		return false
	}
	if len(doc.Content) == 0 {
		l.faults = append(l.faults, Fault{filepath.Base(l.file), "is empty"})
		return false
	}
	l.readMapping(l.resolve(doc.Content[0]), "")
	return true
}

// readMapping notes the settings of a mapping and of those within it.
func (l *loader) readMapping(n *yaml.Node, within string) {
	if n.Kind != yaml.MappingNode {
		l.prefix = strings.TrimSuffix(within, ".")
		l.fault(n, " want NAME: VALUE lines")
		l.prefix = ""
		return
	}
	for k, v := range l.fields(n) {
		name := within + k.Value
		if s, ok := find(func(s Setting) string { return s.Name }, name); ok {
			if s.path && v.Kind == yaml.ScalarNode {
				v.Value = l.relative(s, v.Value)
			}
			l.values[name] = value{node: v}
			continue
		}
		if slices.ContainsFunc(Table(), func(s Setting) bool { return strings.HasPrefix(s.Name, name+".") }) {
			l.readMapping(v, name+".")
			continue
		}
		l.fault(k, "unknown name %q%s", name, like(name, func(s Setting) string { return s.Name }))
	}
}

// relative makes a path of the file relative to the file's folder.
func (l *loader) relative(s Setting, p string) string {
	if s.Name == "access_log" && (p == "stdout" || p == "off") {
		return p
	}
	return l.beside(p)
}

func (l *loader) beside(p string) string {
	if p == "" || filepath.IsAbs(p) || l.file == "" || l.now.where != "" {
		return p
	}
	return filepath.Join(filepath.Dir(l.file), p)
}

// fields yields the pairs of a mapping and reports names that stand twice.
func (l *loader) fields(n *yaml.Node) func(yield func(k, v *yaml.Node) bool) {
	return func(yield func(k, v *yaml.Node) bool) {
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			if seen[k.Value] {
				l.fault(k, "%q stands twice", k.Value)
				continue
			}
			seen[k.Value] = true
			if !yield(k, v) {
				return
			}
		}
	}
}

// resolve replaces aliases by what they stand for, and refuses those that
// stand within themselves.
func (l *loader) resolve(n *yaml.Node) *yaml.Node {
	budget := 10000
	var walk func(n *yaml.Node, depth int) *yaml.Node
	walk = func(n *yaml.Node, depth int) *yaml.Node {
		if budget--; budget < 0 || depth > 50 {
			return scalar("")
		}
		if n.Kind == yaml.AliasNode {
			return walk(n.Alias, depth+1)
		}
		c := *n
		c.Content = nil
		for _, child := range n.Content {
			c.Content = append(c.Content, walk(child, depth+1))
		}
		return &c
	}
	out := walk(n, 0)
	if budget < 0 {
		l.fault(n, "is nested too deeply, or too large")
	}
	return out
}

func yamlCause(err error) string {
	if err == nil {
		return ""
	}
	return ": " + strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\n", " "), "yaml: ")
}

// cause is an error of a file without its name, which the caller gives.
func cause(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// like suggests a name that differs in little.
func like(name string, spelling func(Setting) string) string {
	best, least := "", 3
	for _, s := range Table() {
		if d := distance(name, spelling(s)); d < least {
			best, least = spelling(s), d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; is %s meant?", best)
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			next := diagonal
			if a[i] != b[j] {
				next = min(diagonal, row[j], row[j+1]) + 1
			}
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
