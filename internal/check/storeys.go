package main

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// The storeys of the root package. Arrows run down: a file may use what stands
// in its own storey or below. The walls below all of them are packages of their
// own, so the compiler keeps those.
var storeys = []struct {
	name  string
	files []string
}{
	{"vocabulary", []string{
		"config.go", "credential.go", "entra.go", "errors.go", "event.go",
		"memorystore.go", "page.go", "request.go", "rules.go", "store.go", "user.go",
	}},
	{"organs", []string{
		"apptoken.go", "held.go", "index.go", "issuer.go", "opened.go", "records.go", "refresh.go", "tokenfailure.go", "tokens.go",
	}},
	{"face", []string{
		"browser.go", "callback.go", "challenge.go", "login.go", "middleware.go", "redeem.go",
		"session.go", "signout.go", "state.go", "tokensource.go", "transport.go", "visit.go",
	}},
}

// What the root package is held to: files, files of the largest knot and their
// lines, methods of Auth, and the files they lie in.
const (
	maxFiles       = 30
	maxKnot        = 11
	maxKnotLines   = 1600
	maxAuthMethods = 65
	maxAuthFiles   = 13
)

// checkStoreys reports uses that run upwards, files that stand in no storey,
// and figures that are worse than they may be.
func checkStoreys(out io.Writer) error {
	h, err := readHouse(".")
	if err != nil {
		return err
	}
	knot := h.knot()
	lines := 0
	for _, f := range knot {
		lines += h.lines[f]
	}
	fmt.Fprintf(out, "     house: %d files, %d uses between them, a knot of %d files and %d lines, %d methods of Auth in %d files\n",
		len(h.uses), h.edges(), len(knot), lines, h.methods, len(h.methodFiles))
	faults := h.upward()
	limit := func(what string, is, most int) {
		if is > most {
			faults = append(faults, fmt.Sprintf("%s: %d, and %d are allowed", what, is, most))
		}
	}
	limit("files of the root package", len(h.uses), maxFiles)
	limit("files that depend on one another ("+strings.Join(knot, " ")+")", len(knot), maxKnot)
	limit("lines of those", lines, maxKnotLines)
	limit("methods of Auth", h.methods, maxAuthMethods)
	limit("files with methods of Auth", len(h.methodFiles), maxAuthFiles)
	if len(faults) > 0 {
		return fmt.Errorf("%s", strings.Join(faults, "\n"))
	}
	return nil
}

// house is which file of a package uses what of which other.
type house struct {
	uses        map[string]map[string]string // file -> file used -> a name used
	lines       map[string]int
	methods     int // of Auth
	methodFiles map[string]bool
}

// readHouse type-checks the package in dir. It needs the compiled packages that
// it imports, which go list makes.
func readHouse(dir string) (*house, error) {
	list := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}}={{.Export}}", ".")
	list.Dir = dir
	text, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	exports := map[string]string{}
	for line := range strings.Lines(string(text)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), "=")
		exports[path] = file
	}
	fset := token.NewFileSet()
	var files []*ast.File
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	lookup := func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
	conf := types.Config{Importer: importer.ForCompiler(fset, "gc", lookup)}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	pkg, err := conf.Check("github.com/seed454743b5/signin", fset, files, info)
	if err != nil {
		return nil, err
	}
	h := &house{uses: map[string]map[string]string{}, lines: map[string]int{}, methodFiles: map[string]bool{}}
	fileOf := func(p token.Pos) string { return filepath.Base(fset.Position(p).Filename) }
	for _, f := range files {
		h.read(f, fileOf(f.Package), fset, pkg, info, fileOf)
	}
	return h, nil
}

func (h *house) read(f *ast.File, name string, fset *token.FileSet, pkg *types.Package, info *types.Info, fileOf func(token.Pos) string) {
	h.uses[name] = map[string]string{}
	for _, d := range f.Decls {
		h.lines[name] += fset.Position(d.End()).Line - fset.Position(d.Pos()).Line + 1
		if fn, ok := d.(*ast.FuncDecl); ok && receiver(fn) == "Auth" {
			h.methods++
			h.methodFiles[name] = true
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		if !ok {
			return true
		}
		o := info.Uses[id]
		if o == nil || o.Pkg() != pkg {
			return true
		}
		// Names and methods of the package; fields and what is local aside.
		if _, method := o.(*types.Func); !method && o.Parent() != pkg.Scope() {
			return true
		}
		if other := fileOf(o.Pos()); other != name {
			h.uses[name][other] = o.Name()
		}
		return true
	})
}

func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	t := fn.Recv.List[0].Type
	if p, ok := t.(*ast.StarExpr); ok {
		t = p.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

func (h *house) edges() (n int) {
	for _, to := range h.uses {
		n += len(to)
	}
	return n
}

// upward reports each use of a higher storey, and files and methods that stand
// where they should not.
func (h *house) upward() (faults []string) {
	storey := map[string]int{}
	for i, s := range storeys {
		for _, f := range s.files {
			storey[f] = i
		}
	}
	for _, f := range slices.Sorted(maps.Keys(h.uses)) {
		at, ok := storey[f]
		if !ok {
			faults = append(faults, f+" stands in no storey: name it in internal/check/storeys.go")
			continue
		}
		for _, other := range slices.Sorted(maps.Keys(h.uses[f])) {
			if to, ok := storey[other]; ok && to > at {
				faults = append(faults, fmt.Sprintf("%s (%s) uses %s of %s (%s): arrows run down; move the name, or hand in what is needed",
					f, storeys[at].name, h.uses[f][other], other, storeys[to].name))
			}
		}
		if h.methodFiles[f] && storeys[at].name != "face" {
			faults = append(faults, f+" has methods of Auth, and is no file of the face")
		}
	}
	return faults
}

// knot is the largest set of files that all depend on one another (Tarjan).
func (h *house) knot() []string {
	w := &walk{h: h, index: map[string]int{}, low: map[string]int{}, on: map[string]bool{}}
	for _, f := range slices.Sorted(maps.Keys(h.uses)) {
		if _, seen := w.index[f]; !seen {
			w.visit(f)
		}
	}
	slices.Sort(w.best)
	return w.best
}

type walk struct {
	h          *house
	index, low map[string]int
	on         map[string]bool
	stack      []string
	best       []string
}

func (w *walk) visit(f string) {
	w.index[f], w.low[f] = len(w.index), len(w.index)
	w.stack, w.on[f] = append(w.stack, f), true
	for other := range w.h.uses[f] {
		if _, seen := w.index[other]; !seen {
			w.visit(other)
			w.low[f] = min(w.low[f], w.low[other])
		} else if w.on[other] {
			w.low[f] = min(w.low[f], w.index[other])
		}
	}
	if w.low[f] != w.index[f] {
		return
	}
	at := slices.Index(w.stack, f)
	group := slices.Clone(w.stack[at:])
	w.stack = w.stack[:at]
	for _, member := range group {
		w.on[member] = false
	}
	if len(group) > len(w.best) {
		w.best = group
	}
}
