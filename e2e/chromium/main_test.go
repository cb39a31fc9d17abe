// Package chromium drives the demo site and the library with a real browser:
// what a person sees, what scripts get, which cookies travel, and what Back and
// Reload do. It needs Chromium and fails without it.
//
// With -screenshots=DIR it also writes a picture of every page there, for a
// person to look at.
package chromium

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

var screenshots = flag.String("screenshots", "", "write pictures of all pages to this folder")

// Shared by all tests: starting either takes longer than most tests.
var (
	sharedBrowser context.Context // each test opens a profile of its own in it
	chromiumPath  string
	demoBinary    string
	buildDir      string // of programs that tests build; removed at the end
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chromium:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if chromiumPath, err = findChromium(); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "signin-chromium-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)

	buildDir, demoBinary = dir, filepath.Join(dir, "demo")
	build := exec.Command("go", "build", "-o", demoBinary, ".")
	build.Dir = filepath.Join("..", "..", "example")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("building the demo site: %w\n%s", err, out)
	}

	var stop func()
	if sharedBrowser, stop, err = launch(filepath.Join(dir, "profile")); err != nil {
		return 1, err
	}
	defer stop()
	return m.Run(), nil
}

func findChromium() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no Chromium in PATH; on Debian: apt-get install chromium")
}

// launch starts a browser that reaches loopback only.
func launch(profile string) (ctx context.Context, stop func(), err error) {
	alloc, release := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(chromiumPath), chromedp.UserDataDir(profile),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.WindowSize(1280, 900),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("disable-breakpad", true),
		chromedp.Flag("password-store", "basic"),
		chromedp.Flag("force-color-profile", "srgb"),
		// Otherwise a reload after a POST asks first, and nobody answers.
		chromedp.Flag("disable-prompt-on-repost", true),
		// Tabs behind others are tested too, and must not be slowed down.
		chromedp.Flag("disable-background-timer-throttling", true),
		chromedp.Flag("disable-renderer-backgrounding", true),
		chromedp.Flag("disable-backgrounding-occluded-windows", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"),
	)
	ctx, cancel := chromedp.NewContext(alloc, chromedp.WithLogf(quiet), chromedp.WithErrorf(quiet))
	stop = func() { cancel(); release() }
	if err := chromedp.Do(ctx); err != nil {
		stop()
		return nil, nil, fmt.Errorf("starting %s: %w", chromiumPath, err)
	}
	return ctx, stop, nil
}

// quiet drops chromedp's remarks on events that are newer than itself.
func quiet(string, ...any) {}
