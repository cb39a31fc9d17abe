package main

import (
	"archive/tar"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// Two runs write the same bytes, also from another folder, and what they write
// is what is promised.
func TestDist(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	some := []string{"linux/amd64", "linux/arm64"}
	first, second := t.TempDir(), filepath.Join(t.TempDir(), "x")
	if err := run("..", first, some); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "another", "name")
	if err := os.MkdirAll(filepath.Dir(elsewhere), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-r", "../..", elsewhere).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := run(filepath.Join(elsewhere, "front"), second, some); err != nil {
		t.Fatal(err)
	}
	sums := read(t, first, "SHA256SUMS")
	if other := read(t, second, "SHA256SUMS"); sums != other {
		t.Errorf("two runs differ:\n%s\n%s", sums, other)
	}
	if n := strings.Count(sums, "\n"); n != 2*len(some)+5 {
		t.Errorf("%d sums:\n%s", n, sums)
	}
	check := exec.Command("sha256sum", "-c", "--quiet", "SHA256SUMS")
	check.Dir = first
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, p := range some {
		checkBill(t, filepath.Join(first, "signin-front-"+strings.ReplaceAll(p, "/", "-")))
	}
	native := filepath.Join(first, "signin-front-"+runtime.GOOS+"-"+runtime.GOARCH)
	if out, err := exec.Command(native, "version").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "signin-front ") {
		t.Errorf("%v %s", err, out)
	}
	if man := read(t, first, "signin-front.8"); !strings.HasPrefix(man, ".TH SIGNIN-FRONT 8") {
		t.Errorf("%.100s", man)
	}
	checkImage(t, filepath.Join(first, "signin-front-image.tar"), native)
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// checkBill wants every module of a binary in its bill, and that the binary is
// static and says nothing about where it was made.
func checkBill(t *testing.T, binary string) {
	t.Helper()
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	var b bill
	if err := json.Unmarshal([]byte(read(t, filepath.Dir(binary), filepath.Base(binary)+".spdx.json")), &b); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range b.Packages {
		names = append(names, p.Name)
	}
	for _, m := range info.Deps {
		if !slices.Contains(names, m.Path) {
			t.Errorf("%s: %s is not in the bill", binary, m.Path)
		}
	}
	if len(info.Deps) < 20 || len(b.Relationships) != len(b.Packages) || b.Version != "SPDX-2.3" || b.Creation.Created != "2023-11-14T22:13:20Z" {
		t.Errorf("%s: %d modules, %d packages, %d relationships, %+v", binary, len(info.Deps), len(b.Packages), len(b.Relationships), b.Creation)
	}
	for _, s := range info.Settings {
		if s.Key == "CGO_ENABLED" && s.Value != "0" {
			t.Errorf("%s: built with cgo", binary)
		}
	}
	here, _ := filepath.Abs("..")
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	if raw := read(t, filepath.Dir(binary), filepath.Base(binary)); strings.Contains(raw, here+"/") || strings.Contains(raw, strings.TrimSpace(string(root))+"/src") {
		t.Errorf("%s: says where it was made", binary)
	}
}

// checkImage opens the archive as a runtime would.
func checkImage(t *testing.T, name, native string) {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-C", dir, "-xf", name).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	top, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(top); err != nil {
		t.Errorf("not a valid OCI layout: %v", err)
	}
	manifest, err := top.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("%v %+v", err, manifest)
	}
	index, err := top.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	images, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, d := range images.Manifests {
		platforms = append(platforms, d.Platform.String())
		image, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		binary := checkContents(t, image)
		if d.Platform.OS+"/"+d.Platform.Architecture == runtime.GOOS+"/"+runtime.GOARCH && binary != read(t, filepath.Dir(native), filepath.Base(native)) {
			t.Error("the image holds another binary")
		}
	}
	if got := strings.Join(platforms, " "); got != "linux/amd64 linux/arm64" {
		t.Errorf("platforms %s", got)
	}
}

func checkContents(t *testing.T, image v1.Image) (binary string) {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := config.Config
	if c.User != "65532:65532" || strings.Join(c.Entrypoint, " ") != "/signin-front" || len(c.Cmd) != 0 || strings.Join(c.Env, " ") != "FRONT_LISTEN=0.0.0.0:8080" || config.Created.Unix() != 1700000000 {
		t.Errorf("%+v", config)
	}
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%v, %d layers", err, len(layers))
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	var files []string
	for r := tar.NewReader(content); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, fmt.Sprintf("%s %o %d:%d", h.Name, h.Mode, h.Uid, h.Gid))
		if h.Name == "signin-front" {
			raw, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			binary = string(raw)
		}
	}
	if got := strings.Join(files, ", "); got != "etc/ 755 0:0, etc/group 644 0:0, etc/passwd 644 0:0, signin-front 755 0:0" {
		t.Errorf("the image holds %s", got)
	}
	return binary
}
