// Command signin-front puts sign-in with OpenID Connect in front of sites that
// have none: as a reverse proxy, or as what nginx, Traefik and Caddy ask before
// they pass a request on.
//
//	signin-front -config front.yaml
//	signin-front check -config front.yaml
//	signin-front explain -config front.yaml GET /admin/
//	signin-front import oauth2-proxy.cfg
//	signin-front man
//	signin-front completion bash
//
// The same settings may stand in the file, in the environment and in flags.
// docs/front.md tells how to begin, and "signin-front man" has all of them.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/seed454743b5/signin/front/internal/command"
	_ "golang.org/x/crypto/x509roots/fallback" // for an image with nothing else in it
)

// ballast is never touched, so it takes no memory. It counts for the garbage
// collector, which would otherwise run after every few megabytes: the front's
// own heap is small, and what requests leave behind is not.
const ballast = 64 << 20

func main() {
	var held []byte
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" { // else somebody has said how to collect
		held = make([]byte, ballast)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	code := command.Run(ctx, command.Process{
		Args: os.Args[1:], Environ: os.Environ(), Getenv: os.Getenv, Stdout: os.Stdout, Stderr: os.Stderr, Reload: reload,
		ReadFile: func(name string) ([]byte, error) {
			if name == "-" {
				return io.ReadAll(io.LimitReader(os.Stdin, 1<<20))
			}
			return os.ReadFile(name)
		},
	})
	stop()
	runtime.KeepAlive(held)
	os.Exit(code)
}
