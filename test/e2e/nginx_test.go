package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
)

// nginxConfig is all of nginx's configuration but its servers.
const nginxConfig = `
daemon off;
worker_processes 1;
error_log stderr;
pid %[1]s/nginx.pid;
%[2]s
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
%[3]s
}
`

const fileServers = `
  client_max_body_size 1g;
  server {
    listen 127.0.0.1:%d;
    root %s;
    location / { dav_methods PUT; }
  }
  server {
    listen 127.0.0.1:%d proxy_protocol;
    location / { return 200 "$proxy_protocol_addr:$proxy_protocol_port"; }
  }
`

// runNginx runs nginx in a directory with these servers, one of which listens on a port.
func runNginx(t *testing.T, dir string, port int, servers string) {
	t.Helper()
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // Otherwise its workers may not write.
	}
	config := filepath.Join(dir, "nginx.conf")
	writeFile(t, config, fmt.Appendf(nil, nginxConfig, dir, user, servers), 0o644)
	serve(t, port, "nginx", "-p", dir, "-c", config)
}

// nginx serves and takes files below www, on a second port behind the PROXY protocol.
type nginx struct {
	www         string
	files, real int
}

func startNginx(t *testing.T) nginx {
	t.Helper()
	dir := clustertest.Dir(t)
	n := nginx{www: filepath.Join(dir, "www"), files: freePort(t), real: freePort(t)}
	if err := os.Mkdir(n.www, 0o755); err != nil {
		t.Fatal(err)
	}
	runNginx(t, dir, n.files, fmt.Sprintf(fileServers, n.files, n.www, n.real))
	return n
}

// noise is content that compresses to nothing less and repeats nowhere.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // it never fails
	return b
}

func TestHTTP_LargeFilesArriveWhole(t *testing.T) {
	w, n := sharedFor(t), startNginx(t)
	public := w.expose(t, types.CreateTCP, n.files, nil)
	content := noise(64 << 20)
	local := t.TempDir()

	writeFile(t, filepath.Join(n.www, "down"), content, 0o644)
	command(t, time.Minute, "curl", "-sSf", "-o", filepath.Join(local, "down"), "http://"+public+"/down")
	same(t, filepath.Join(local, "down"), content)

	writeFile(t, filepath.Join(local, "up"), content, 0o644)
	command(t, time.Minute, "curl", "-sSf", "-T", filepath.Join(local, "up"), "http://"+public+"/up")
	same(t, filepath.Join(n.www, "up"), content)
}

// same compares a file with what it should hold, by their checksums.
func same(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes with sha256 %x, want %d with %x",
			filepath.Base(path), len(got), sha256.Sum256(got), len(want), sha256.Sum256(want))
	}
}

func TestHTTP_PROXYHeaderCarriesThePlayersAddress(t *testing.T) {
	w, n := sharedFor(t), startNginx(t)
	for _, version := range []types.ProxyProtocol{types.ProxyProtocolV1, types.ProxyProtocolV2} {
		t.Run(string(version), func(t *testing.T) {
			public := w.expose(t, types.CreateTCP, n.real, &types.AllocationOptions{ProxyProtocol: &version})
			out := command(t, patience, "curl", "-sSf", "-w", "\n%{local_ip}:%{local_port}", "http://"+public+"/")
			seen, own, _ := strings.Cut(out, "\n")
			if seen != own || own == "" {
				t.Errorf("the server saw %s, the player is %s", seen, own)
			}
		})
	}
}

// wrk runs wrk, which must have no request that fails, and returns what it printed.
func wrk(t *testing.T, args ...string) string {
	t.Helper()
	out := command(t, time.Minute, "wrk", args...)
	for _, trouble := range []string{"Socket errors", "Non-2xx"} {
		if strings.Contains(out, trouble) {
			t.Errorf("wrk found trouble:\n%s", out)
		}
	}
	return out
}

func TestHTTP_LoadRunsWithoutSocketErrors(t *testing.T) {
	w, n := sharedFor(t), startNginx(t)
	writeFile(t, filepath.Join(n.www, "index.html"), noise(1<<10), 0o644)
	public := w.expose(t, types.CreateTCP, n.files, nil)
	out := wrk(t, "-t2", "-c64", "-d3s", "--timeout", "10s", "--latency", "http://"+public+"/")
	t.Logf("64 connections through the tunnel: %s", strings.Join(
		regexp.MustCompile(`(?m)Requests/sec:.*|50%.*|99%.*`).FindAllString(out, -1), ", "))
}

// Each request on a connection of its own: every one takes a data connection
// and gives it back.
func TestHTTP_ConnectionsComeAndGo(t *testing.T) {
	w, n := sharedFor(t), startNginx(t)
	writeFile(t, filepath.Join(n.www, "index.html"), []byte("hello"), 0o644)
	public := w.expose(t, types.CreateTCP, n.files, nil)
	out := wrk(t, "-t2", "-c16", "-d2s", "-H", "Connection: close", "http://"+public+"/")
	t.Logf("a new connection for each: %s", regexp.MustCompile(`Requests/sec:.*`).FindString(out))
}
