package upstream

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strings"

	"github.com/seed454743b5/signin/front/internal/routes"
	"github.com/seed454743b5/signin/front/internal/settings"
)

// newFiles serves what follows the route's path from a folder, or one file.
func newFiles(r *settings.Route) (h *files, closeFiles func(), err error) {
	h, closeFiles = &files{public: r.Public}, func() {}
	_, _, prefix := routes.Split(r.Pattern)
	info, err := os.Stat(r.Upstream.Path)
	if err != nil {
		return nil, closeFiles, err
	}
	if !info.IsDir() {
		h.serve = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { http.ServeFile(w, withoutIndex(req), r.Upstream.Path) })
		return h, closeFiles, nil
	}
	// A root does not follow links out of it.
	root, err := os.OpenRoot(r.Upstream.Path)
	if err != nil {
		return nil, closeFiles, err
	}
	h.serve = http.StripPrefix(strings.TrimSuffix(prefix, "/"), http.FileServerFS(shown{root.FS()}))
	return h, func() { root.Close() }, nil
}

type files struct {
	public bool
	serve  http.Handler
}

func (f *files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !f.public {
		w.Header().Set("Cache-Control", "private, no-cache") // not in a cache that others share
	}
	f.serve.ServeHTTP(w, r)
}

// withoutIndex keeps http.ServeFile from redirecting a path that ends in
// /index.html.
func withoutIndex(r *http.Request) *http.Request {
	if !strings.HasSuffix(r.URL.Path, "/index.html") {
		return r
	}
	c := *r
	u := *r.URL
	u.Path = "/"
	c.URL = &u
	return &c
}

// shown hides what is not meant to be seen: names that begin with a dot, but
// for .well-known, and the lists of folders without an index.html.
type shown struct{ fs.FS }

func (s shown) Open(name string) (fs.File, error) {
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") && part != "." && part != ".well-known" {
			return nil, fs.ErrNotExist
		}
	}
	f, err := s.FS.Open(name)
	if err != nil {
		if !errors.Is(err, fs.ErrPermission) {
			err = fs.ErrNotExist // also for links that lead out of the folder
		}
		return nil, err
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		if index, err := s.FS.Open(path.Join(name, "index.html")); err == nil {
			index.Close()
			return f, nil
		}
		f.Close()
		return nil, fs.ErrNotExist
	}
	return f, nil
}
