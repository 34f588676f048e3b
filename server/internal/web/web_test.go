package web_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/eclitunnel/eclitunnel/server/internal/web"
)

// plainFiles are the embedded files but for those that a build has from Node.js, whatever
// this one has.
func plainFiles(t *testing.T) fstest.MapFS {
	t.Helper()
	files := fstest.MapFS{}
	err := fs.WalkDir(web.Static, "static", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(path, ".gz") {
			return err
		}
		content, err := web.Static.ReadFile(path)
		files[path] = &fstest.MapFile{Data: content}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// compressed returns a file as a build embeds it.
func compressed(t *testing.T, text string) *fstest.MapFile {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &fstest.MapFile{Data: b.Bytes()}
}

// handler serves the plain pages.
func handler(t *testing.T) http.Handler {
	t.Helper()
	handler, err := web.HandlerOf(plainFiles(t), http.NotFoundHandler())
	if err != nil {
		t.Fatal(err)
	}
	return handler
}

func get(t *testing.T, method, target string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for name, values := range header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	handler(t).ServeHTTP(w, r)
	return w
}

func TestPages_LoadOnlyEmbeddedFiles(t *testing.T) {
	reference := regexp.MustCompile(`(?:href|src)="([^"#]+)"`)
	api := map[string]bool{"/openapi.json": true, "/openapi.yaml": true, "/readyz": true, "/healthz": true, "/api/version": true}
	for _, page := range []string{"/", "/device?code=CDFG-2345", "/password", "/invitation", "/errors"} {
		resp := get(t, http.MethodGet, page, nil)
		text := resp.Body.String()
		if resp.Code != http.StatusOK || !strings.HasPrefix(resp.Header().Get("Content-Type"), "text/html") {
			t.Fatalf("%s: %d, %q", page, resp.Code, resp.Header().Get("Content-Type"))
		}
		if strings.Contains(text, "<style") || strings.Contains(text, "style=") || strings.Contains(text, "<script>") {
			t.Errorf("%s has inline content, which its policy forbids", page)
		}
		for _, match := range reference.FindAllStringSubmatch(text, -1) {
			if api[match[1]] {
				continue
			}
			if resp := get(t, http.MethodGet, match[1], nil); resp.Code != http.StatusOK {
				t.Errorf("%s refers to %s: %d", page, match[1], resp.Code)
			}
		}
	}
}

func TestPages_HaveSecurityHeaders(t *testing.T) {
	resp := get(t, http.MethodGet, "/device", nil)
	for name, want := range map[string]string{
		"Content-Security-Policy": "frame-ancestors 'none'",
		"X-Content-Type-Options":  "nosniff",
		"Referrer-Policy":         "no-referrer",
	} {
		if got := resp.Header().Get(name); !strings.Contains(got, want) {
			t.Errorf("%s: %q lacks %q", name, got, want)
		}
	}
}

func TestPages_SupportConditionalRequests(t *testing.T) {
	tag := get(t, http.MethodGet, "/assets/panel.css", nil).Header().Get("ETag")
	resp := get(t, http.MethodGet, "/assets/panel.css", http.Header{"If-None-Match": {tag}})
	if resp.Code != http.StatusNotModified {
		t.Errorf("status %d", resp.Code)
	}
}

func TestPages_RejectOtherMethods(t *testing.T) {
	resp := get(t, http.MethodPost, "/device", nil)
	if resp.Code != http.StatusMethodNotAllowed || resp.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("%d, Allow %q", resp.Code, resp.Header().Get("Allow"))
	}
}

// browser is the Accept header of a browser that follows a link.
var browser = http.Header{"Accept": {"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}}

func TestPages_InAnotherSpellingRedirect(t *testing.T) {
	for target, want := range map[string]string{
		"/device/":                "/device",
		"/device/?code=CDFG-2345": "/device?code=CDFG-2345",
		"/Device":                 "/device",
		"//device":                "/device",
		"/device/.":               "/device",
		"/assets/../":             "/",
	} {
		r := httptest.NewRequest(http.MethodGet, "http://panel.example.com/", nil)
		r.URL.Path, r.URL.RawQuery, _ = strings.Cut(target, "?")
		r.Header = browser
		w := httptest.NewRecorder()
		handler(t).ServeHTTP(w, r)
		if got := w.Header().Get("Location"); w.Code != http.StatusTemporaryRedirect || got != want {
			t.Errorf("%s: %d to %q, want %q", target, w.Code, got, want)
		}
	}
}

func TestPages_UnknownOnesAreAPageForPeopleOnly(t *testing.T) {
	api := handler(t) // It responds in text/plain.
	for name, test := range map[string]struct {
		method, target, accept string
		page                   bool
	}{
		"a browser":               {"GET", "/devices", browser.Get("Accept"), true},
		"a browser's HEAD":        {"HEAD", "/login", browser.Get("Accept"), true},
		"below a page":            {"GET", "/device/CDFG-2345", browser.Get("Accept"), true},
		"a file of a console":     {"GET", "/assets/console/index.js", "*/*", false},
		"markup in the address":   {"GET", "/<script>", browser.Get("Accept"), true},
		"another site":            {"GET", "//example.com/", browser.Get("Accept"), true},
		"curl":                    {"GET", "/devices", "*/*", false},
		"no preference":           {"GET", "/devices", "", false},
		"a program":               {"GET", "/devices", "application/json", false},
		"anything but HTML":       {"GET", "/devices", "text/html;q=0, */*", false},
		"another method":          {"POST", "/devices", browser.Get("Accept"), false},
		"the API in a browser":    {"GET", "/api/tunnel/nothing", browser.Get("Accept"), false},
		"a well-known address":    {"GET", "/.well-known/nothing", browser.Get("Accept"), false},
		"a health check's person": {"GET", "/readyz", browser.Get("Accept"), false},
	} {
		r := httptest.NewRequest(test.method, "http://panel.example.com/", nil)
		r.URL.Path = test.target
		r.Header.Set("Accept", test.accept)
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		page := strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") && w.Header().Get("Content-Security-Policy") != ""
		if w.Code != http.StatusNotFound || page != test.page || strings.Contains(w.Body.String(), "<script>") {
			t.Errorf("%s: %d, %q, %s", name, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
	}
}

// With local accounts switched off, and no identity provider, EcliPanel is the only way to log in.
func TestPages_LeadToEcliPanel(t *testing.T) {
	for _, path := range []string{"/device", "/invitation"} {
		page := get(t, http.MethodGet, path, nil).Body.String()
		_, login, _ := strings.Cut(page, `<section id="login"`)
		login, _, _ = strings.Cut(login, "</section>")
		for _, part := range []string{`id="eclipanel" hidden`, `<a id="eclipanel-link"`, `<button id="eclipanel-done" type="button"`} {
			if strings.Count(login, part) != 1 {
				t.Errorf("the login on %s has no %s", path, part)
			}
		}
	}
	script := get(t, http.MethodGet, "/assets/page.js", nil).Body.String()
	for _, part := range []string{"byId('eclipanel-link').href = eclipanelUrl", "byId('eclipanel').hidden = !eclipanelUrl", "onClick('eclipanel-done',"} {
		if !strings.Contains(script, part) {
			t.Errorf("page.js has no %s", part)
		}
	}
}

// A link with a code fills in a field. What decides is asked for by buttons, which stand
// beside what asks.
func TestPages_ALinkDecidesNothing(t *testing.T) {
	page := get(t, http.MethodGet, "/device?code=CDFG-2345", nil).Body.String()
	_, decide, _ := strings.Cut(page, `<section id="decide"`)
	decide, _, _ = strings.Cut(decide, "</section>")
	for _, part := range []string{`id="pending-code"`, `id="pending-address"`, `id="approve" type="button"`, `id="refuse" type="button"`} {
		if strings.Count(page, part) != 1 || !strings.Contains(decide, part) {
			t.Errorf("the step in which a person decides has no %s of its own", part)
		}
	}
	script := get(t, http.MethodGet, "/assets/device.js", nil).Body.String()
	for button, path := range map[string]string{"approve": "/api/tunnel/device/approve", "refuse": "/api/tunnel/device/deny"} {
		_, handler, _ := strings.Cut(script, "onClick('"+button+"',")
		handler, _, _ = strings.Cut(handler, "\n});")
		if strings.Count(script, path) != 1 || !strings.Contains(handler, path) {
			t.Errorf("not only the button %s asks for %s", button, path)
		}
	}
}
