package serve

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/seed454743b5/signin/front/internal/settings"
)

// Bounds on what a stranger may take.
const (
	headerTime = 10 * time.Second
	idleTime   = 2 * time.Minute
	maxHeader  = 64 << 10
)

// Program is where the front runs.
type Program struct {
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Reload         <-chan os.Signal
	Load           func() (*settings.Config, error) // reads and checks the settings
}

// Run serves until ctx ends. Whatever it prints is JSON, a line each.
func Run(ctx context.Context, p Program) error {
	f, err := newFront(p.Stdout, p.Stderr)
	if err != nil {
		return err
	}
	err = f.run(ctx, p)
	var faults settings.Faults
	switch {
	case errors.As(err, &faults):
		for _, fault := range faults {
			f.log.Error(fault.Error())
		}
	case err != nil:
		f.log.Error(err.Error())
	}
	return err
}

func (f *front) run(ctx context.Context, p Program) error {
	c, err := p.Load()
	if err != nil {
		return err
	}
	secure, err := tlsConfig(c, f.log)
	if err != nil {
		return err
	}
	site, admin, err := f.listeners(ctx, p, c)
	if err != nil {
		return err
	}
	defer site.Close()
	if err := f.use(c); err != nil {
		return err
	}
	failed := make(chan error, 2)
	var servers []*http.Server
	serve := func(h http.Handler, l net.Listener) {
		s := f.server(h, f.log)
		servers = append(servers, s)
		go func() { failed <- s.Serve(l) }()
	}
	serving := net.Listener(listener{site, writeTime})
	scheme := "http"
	if secure != nil {
		serving, scheme = tls.NewListener(serving, secure), "https"
	}
	serve(f, serving)
	if admin != nil {
		defer admin.Close()
		serve(f.admin(), listener{admin, writeTime})
		f.log.Info("serving the operator", "address", admin.Addr().String())
	}
	f.log.Info("serving", "address", site.Addr().String(), "scheme", scheme, "url", cmp.Or(c.BaseURL, "as asked for"), "routes", len(c.Routes))
	notify(p.Getenv, "READY=1")
	err = f.wait(ctx, p, failed)
	notify(p.Getenv, "STOPPING=1")
	return errors.Join(err, f.stop(servers))
}

// wait returns when it is time to stop.
func (f *front) wait(ctx context.Context, p Program, failed <-chan error) error {
	for {
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		case <-p.Reload:
			f.reload(p)
		}
	}
}

// reload reads the settings again. With a fault in them, nothing changes.
func (f *front) reload(p Program) {
	notify(p.Getenv, "RELOADING=1\nMONOTONIC_USEC="+monotonic())
	defer notify(p.Getenv, "READY=1")
	old := f.now.Load().config
	c, err := p.Load()
	if err == nil {
		err = f.use(c)
	}
	if err != nil {
		var faults settings.Faults
		if !errors.As(err, &faults) {
			faults = settings.Faults{{Text: err.Error()}}
		}
		for _, fault := range faults {
			f.log.Error("the settings have a fault: the old ones stay in use", "fault", fault.Error())
		}
		return
	}
	if c.Listen != old.Listen || c.AdminListen != old.AdminListen || c.TLS != old.TLS || c.Autocert != old.Autocert || c.Autocert.Cache != "" && !slices.Equal(c.Hosts(), old.Hosts()) {
		f.log.Warn("a new address or certificate needs a restart")
	}
	f.log.Info("reloaded", "routes", len(c.Routes))
}

func (f *front) listeners(ctx context.Context, p Program, c *settings.Config) (site, admin net.Listener, err error) {
	site, admin, err = inherited(p.Getenv)
	if err == nil && site == nil {
		site, err = listen(ctx, c.Listen)
	}
	if err == nil && admin == nil && c.AdminListen != "" {
		if admin, err = listen(ctx, c.AdminListen); err != nil {
			site.Close()
		}
	}
	return site, admin, err
}

// server has no bound on a whole request or answer: uploads, events and
// WebSockets take as long as they take. What can be bounded about them is
// bounded where they are read and written.
func (f *front) server(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: 100, WriteByteTimeout: writeTime, SendPingTimeout: time.Minute},
	}
}

// stop waits for requests under way, and then cuts them off.
func (f *front) stop(servers []*http.Server) error {
	f.stopped.Store(true)
	f.log.Info("stopping")
	limit := f.now.Load().config.ShutdownTimeout
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	// The operator's listener goes last: it says that we are stopping.
	var errs []error
	for _, s := range servers {
		if err := s.Shutdown(ctx); err != nil {
			f.log.Warn("requests were cut off", "after", limit.String())
			errs = append(errs, s.Close())
		}
	}
	saving, cancelSaving := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancelSaving()
	err := errors.Join(append(errs, f.close(saving))...)
	f.log.Info("stopped")
	return err
}
