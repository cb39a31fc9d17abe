package e2e

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed454743b5/signin/front/internal/fronttest"
	"github.com/seed454743b5/signin/internal/redistest"
)

// Two replicas with one Redis: either serves whoever signed in at the other,
// and a sign-out counts on both.
func TestReplicas(t *testing.T) {
	redis := redistest.Start(t)
	issuer := fronttest.Issuer(t, nil)
	settings := "session_keys: ['" + strings.Repeat("07", 32) + "']\nroutes:\n  - {path: /, allow: signed-in, upstream: UPSTREAM}\nadmin_listen: 127.0.0.1:0\n"
	one := fronttest.Prepare(t, fronttest.Options{Issuer: issuer, Settings: settings})
	two := fronttest.Prepare(t, fronttest.Options{Issuer: issuer, Settings: settings})
	process(t, one, "REDIS_URL="+redis.URL())
	process(t, two, "FRONT_STORE="+redis.URL())
	one.SignIn()
	cookies := one.Cookies()
	at := func(f *fronttest.Front, path string) int {
		return f.Status("GET " + path + " HTTP/1.1\nHost: HOST\nCookie: " + cookies + "\n\n")
	}
	if got := at(two, "/x"); got != http.StatusOK {
		t.Errorf("the other replica: %d", got)
	}
	out := one.Browser.Submit(one.Browser.Open(one.URL+"/oidc/signout"), nil)
	page(t, out, http.StatusOK, "")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(fronttest.Patience); at(two, "/x") != http.StatusUnauthorized; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("a sign-out on one replica does not count on the other")
		}
	}
	one.SignIn()
	cookies = one.Cookies()
	redis.Kill()
	for deadline := time.Now().Add(fronttest.Patience); at(one, "/x") != http.StatusServiceUnavailable; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("without Redis it is not 503")
		}
	}
	if res, err := http.Get(one.Admin + "/readyz"); err != nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("readyz without Redis: %v %v", res, err)
	}
}

// Sessions in a file outlive the process.
func TestFileStore(t *testing.T) {
	dir := t.TempDir()
	settings := "session_keys: ['" + strings.Repeat("07", 32) + "']\nstore: file:sessions\nroutes:\n  - {path: /, allow: signed-in, upstream: UPSTREAM}\n"
	f := fronttest.Prepare(t, fronttest.Options{Dir: dir, Settings: settings})
	cmd := process(t, f)
	f.SignIn()
	cookies := f.Cookies()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	f.Log.Await(t, func(l map[string]any) bool { return l["msg"] == "stopped" })
	again := fronttest.Prepare(t, fronttest.Options{Issuer: f.Issuer, Dir: dir, Listen: f.Host, Settings: settings})
	process(t, again)
	if got := again.Status("GET /x HTTP/1.1\nHost: HOST\nCookie: " + cookies + "\n\n"); got != http.StatusOK {
		t.Errorf("after a restart: %d", got)
	}
}

// Two replicas on one machine with one SQLite file.
func TestSQLite(t *testing.T) {
	dir := t.TempDir()
	issuer := fronttest.Issuer(t, nil)
	settings := "session_keys: ['" + strings.Repeat("07", 32) + "']\nstore: sqlite:" + dir + "/sessions.db\nroutes:\n  - {path: /, allow: signed-in, upstream: UPSTREAM}\n"
	one := fronttest.Prepare(t, fronttest.Options{Issuer: issuer, Settings: settings})
	two := fronttest.Prepare(t, fronttest.Options{Issuer: issuer, Settings: settings})
	process(t, one)
	process(t, two)
	one.SignIn()
	cookies := one.Cookies()
	if got := two.Status("GET /x HTTP/1.1\nHost: HOST\nCookie: " + cookies + "\n\n"); got != http.StatusOK {
		t.Errorf("the other replica: %d", got)
	}
	page(t, one.Browser.Submit(one.Browser.Open(one.URL+"/oidc/signout"), nil), http.StatusOK, "")
	if got := two.Status("GET /x HTTP/1.1\nHost: HOST\nCookie: " + cookies + "\n\n"); got != http.StatusUnauthorized {
		t.Errorf("the other replica after sign-out: %d", got)
	}
}

// Without a file: by the environment alone, under the demo site's names and ours.
func TestEnvironment(t *testing.T) {
	f := fronttest.Prepare(t, fronttest.Options{})
	addr := fronttest.FreeAddr(t)
	cmd := exec.Command(binary, "-access-log", "off")
	cmd.Env = append(os.Environ(), "ADDR="+addr, "BASE_URL=http://"+addr, "OIDC_ISSUER="+f.Issuer.URL(), "OIDC_CLIENT_ID=client", "OIDC_CLIENT_SECRET=secret",
		"OIDC_SCOPES=openid profile email", "OIDC_RESPONSE_TYPE=code", "OIDC_RESPONSE_MODE=query", "SESSION_KEY="+strings.Repeat("07", 32),
		"FRONT_ROUTES=[{path: /, allow: {email_domain: example.com}, upstream: '"+f.Behind.URL+"'}]")
	start(t, f, cmd)
	f.SignIn()
	if got := f.Behind.Last(t).Header.Get("X-Forwarded-Email"); got != "alice@example.com" {
		t.Errorf("%q", got)
	}
	if f.Access.String() != "" {
		t.Errorf("an access log that is off says %s", f.Access)
	}
	f.As("1002")
	page(t, f.Browser.Open(f.URL+"/"), http.StatusForbidden, "")
}

// systemd hands over the sockets, waits for the word that all is well, and
// hears of a reload and of the end.
func TestSystemd(t *testing.T) {
	dir, err := os.MkdirTemp("", "front")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	hear := func() string {
		t.Helper()
		buf := make([]byte, 1024)
		_ = notify.SetReadDeadline(time.Now().Add(fronttest.Patience))
		n, err := notify.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	f := fronttest.Prepare(t, fronttest.Options{Settings: "routes:\n  - {path: /, allow: signed-in, upstream: UPSTREAM}\n"})
	var files []*os.File
	var addrs []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		file, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		files, addrs = append(files, file), append(addrs, l.Addr().String())
	}
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" -config "$1"`, binary, f.File)
	cmd.Env = append(os.Environ(), "LISTEN_FDS=2", "LISTEN_FDNAMES=signin-front.socket:admin", "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	cmd.ExtraFiles = files
	start(t, f, cmd)
	if got := hear(); got != "READY=1" {
		t.Errorf("%q", got)
	}
	if f.Host != addrs[0] || f.Admin != "http://"+addrs[1] {
		t.Errorf("serves at %s and %s, not at systemd's %v", f.Host, f.Admin, addrs)
	}
	f.SignIn()
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if got := hear(); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("%q", got)
	}
	if got := hear(); got != "READY=1" {
		t.Errorf("%q", got)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := hear(); got != "STOPPING=1" {
		t.Errorf("%q", got)
	}
}

// The program's own face: exit codes, and JSON whatever goes wrong.
func TestExitCodes(t *testing.T) {
	f := fronttest.Prepare(t, fronttest.Options{Settings: "routes:\n  - {path: /, allow: signed-in, upstream: UPSTREAM}\n"})
	for _, tc := range []struct {
		args []string
		want int
	}{
		{[]string{"check", "-config", f.File}, 0}, {[]string{"check", "-config", f.File, "-nonsense"}, 1}, {[]string{"-config", f.File, "-nonsense"}, 1},
		{[]string{"explain", "-config", f.File, "GET", "/"}, 0}, {[]string{"version"}, 0}, {[]string{"nonsense"}, 2},
		{[]string{"-config", f.File, "-listen", "192.0.2.1:1"}, 1}, {[]string{"-config", f.File, "surplus"}, 1},
	} {
		cmd := exec.Command(binary, tc.args...)
		if tc.args[0] == "-config" {
			cmd.Stdout, cmd.Stderr = f.Access, f.Log // whose lines are checked
		}
		_ = cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != tc.want {
			t.Errorf("%v: %d, want %d", tc.args, got, tc.want)
		}
	}
}
