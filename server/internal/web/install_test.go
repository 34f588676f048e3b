package web_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/server/internal/web"
)

// agentsDir is a directory with a release: files by name, whose checksums it adds.
func agentsDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	var sums strings.Builder
	for name, text := range files {
		sum := sha256.Sum256([]byte(text))
		fmt.Fprintf(&sums, "%s  %s\n", hex.EncodeToString(sum[:]), name)
		write(t, dir, name, text)
	}
	write(t, dir, "SHA256SUMS", sums.String())
	return dir
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tarball returns an archive of the agent that is a shell script.
func tarball(t *testing.T, program string) string {
	t.Helper()
	var b bytes.Buffer
	compressed := gzip.NewWriter(&b)
	archive := tar.NewWriter(compressed)
	err := archive.WriteHeader(&tar.Header{Name: "eclitunnel", Mode: 0o755, Size: int64(len(program))})
	if err == nil {
		_, err = archive.Write([]byte(program))
	}
	if err != nil || archive.Close() != nil || compressed.Close() != nil {
		t.Fatal(err)
	}
	return b.String()
}

// handOut serves a directory as a panel does whose URL is known.
func handOut(t *testing.T, options web.InstallOptions) http.Handler {
	t.Helper()
	if options.URL == nil {
		options.URL = &url.URL{Scheme: "https", Host: "panel.example.com"}
	}
	handler, err := web.Install(options, next)
	if err != nil {
		t.Fatal(err)
	}
	return handler
}

const linuxAgent = "eclitunnel_1.2.3_linux_amd64.tar.gz"

func TestInstall_HandsOutWhatTheChecksumsList(t *testing.T) {
	dir := agentsDir(t, map[string]string{linuxAgent: "archive", "eclitunnel_1.2.3_windows_amd64.zip": "zip"})
	write(t, dir, "SHA256SUMS.sig", "signature")
	write(t, dir, "private.key", "secret")
	panel := handOut(t, web.InstallOptions{Agents: web.Agents{Dir: dir}})
	for _, test := range []struct {
		path   string
		status int
		text   string
		kind   string
	}{
		{"/install/" + linuxAgent, 200, "archive", "application/gzip"},
		{"/install/eclitunnel_1.2.3_windows_amd64.zip", 200, "zip", "application/zip"},
		{"/install/SHA256SUMS", 200, "  " + linuxAgent + "\n", "text/plain; charset=utf-8"},
		{"/install/SHA256SUMS.sig", 200, "signature", "application/octet-stream"},
		{"/install/private.key", 404, "no file of this name", "text/plain; charset=utf-8"},
		{"/install/", 404, "no file of this name", "text/plain; charset=utf-8"},
		{"/install/../" + filepath.Base(dir) + "/SHA256SUMS", 404, "no file of this name", "text/plain; charset=utf-8"},
		{"/installer", 418, "", ""},
	} {
		got := ask(t, panel, http.MethodGet, test.path, browser)
		if got.Code != test.status || !strings.Contains(got.Body.String(), test.text) || got.Header().Get("Content-Type") != test.kind {
			t.Errorf("%s: %d %q %s", test.path, got.Code, got.Header().Get("Content-Type"), got.Body)
		}
		if test.status != 418 && (got.Header().Get("X-Content-Type-Options") != "nosniff" || got.Header().Get("Content-Security-Policy") == "") {
			t.Errorf("%s: headers are %v", test.path, got.Header())
		}
	}
	archive := "/install/" + linuxAgent
	tag := ask(t, panel, http.MethodHead, archive, nil).Header().Get("ETag")
	if got := ask(t, panel, http.MethodGet, archive, http.Header{"If-None-Match": {tag}}); tag == "" || got.Code != http.StatusNotModified {
		t.Errorf("what one has, %q: %d", tag, got.Code)
	}
	if got := ask(t, panel, http.MethodGet, archive, http.Header{"Range": {"bytes=3-"}}); got.Code != http.StatusPartialContent || got.Body.String() != "hive" {
		t.Errorf("the rest of a download: %d %s", got.Code, got.Body)
	}
	if got := ask(t, panel, http.MethodPost, archive, nil); got.Code != http.StatusMethodNotAllowed || got.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d %v", got.Code, got.Header())
	}
}

func TestInstall_SaysThatThereAreNoAgents(t *testing.T) {
	for what, agents := range map[string]web.Agents{
		"no directory":       {},
		"no such directory":  {Dir: filepath.Join(t.TempDir(), "none")},
		"an empty directory": {Dir: t.TempDir()},
		"no agent in it":     {Dir: agentsDir(t, map[string]string{"eclitunneld_1.2.3_linux_amd64.tar.gz": "panel"})},
		"a directory as one": {Dir: func() string {
			dir := agentsDir(t, map[string]string{linuxAgent: "archive"})
			if err := os.Remove(filepath.Join(dir, linuxAgent)); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(dir, linuxAgent), 0o755); err != nil {
				t.Fatal(err)
			}
			return dir
		}()},
	} {
		if agents.Check() == nil {
			t.Errorf("%s: it claims to have agents", what)
		}
		for _, path := range []string{"/install", "/install.ps1"} {
			got := ask(t, handOut(t, web.InstallOptions{Agents: agents}), http.MethodGet, path, nil)
			if got.Code != http.StatusNotFound || !strings.Contains(got.Body.String(), "--agents-dir") || got.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("%s, %s: %d %v %s", what, path, got.Code, got.Header(), got.Body)
			}
		}
	}
}

func TestInstall_ANewReleaseTakesEffectAtOnce(t *testing.T) {
	dir := t.TempDir()
	agents := web.Agents{Dir: dir}
	panel := handOut(t, web.InstallOptions{Agents: agents})
	if agents.Check() == nil {
		t.Fatal("an empty directory has agents")
	}
	for name, text := range map[string]string{linuxAgent: "archive", "SHA256SUMS": strings.Repeat("0", 64) + " *" + linuxAgent + "\r\n"} {
		write(t, dir, name, text)
	}
	if err := agents.Check(); err != nil {
		t.Error(err)
	}
	if got := ask(t, panel, http.MethodGet, "/install/"+linuxAgent, nil); got.Code != http.StatusOK {
		t.Errorf("%d %s", got.Code, got.Body)
	}
}

func TestInstall_ScriptsNameThePanel(t *testing.T) {
	agents := web.Agents{Dir: agentsDir(t, map[string]string{linuxAgent: "archive"})}
	at := func(host string, options web.InstallOptions, path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "http://panel.example.net"+path, nil)
		r.Host = host
		w := httptest.NewRecorder()
		options.Agents = agents
		handOut(t, options).ServeHTTP(w, r)
		return w
	}
	for _, path := range []string{"/install", "/install.ps1"} {
		known := at("other.example.com", web.InstallOptions{}, path)
		if !strings.Contains(known.Body.String(), "panel = 'https://panel.example.com'") && !strings.Contains(known.Body.String(), "panel='https://panel.example.com'") {
			t.Errorf("%s does not name the panel's URL: %d %s", path, known.Code, known.Body)
		}
		if strings.Contains(known.Body.String(), "@PANEL@") || known.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("%s: %v", path, known.Header())
		}
		local := web.InstallOptions{URL: &url.URL{Scheme: "http", Host: "localhost:8080"}, HostOfRequest: true}
		for _, host := range []string{"192.0.2.7:8080", "[2001:db8::7]:8080", "home-server.lan"} {
			if got := at(host, local, path).Body.String(); !strings.Contains(got, "'http://"+host+"'") {
				t.Errorf("%s at %s: %s", path, host, got)
			}
		}
		for _, host := range []string{"", "a'b", "a;reboot", "a$(reboot)", "a b", "a/b", "a`b", "user@a"} {
			if got := at(host, local, path); got.Code != http.StatusNotFound || strings.Contains(got.Body.String(), host) && host != "" {
				t.Errorf("%s at %q: %d %s", path, host, got.Code, got.Body)
			}
		}
	}
}
