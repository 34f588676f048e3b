package web_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/server/internal/web"
)

const consolePage = `<!doctype html><script type="module" src="/assets/console/index-Ab1_.js"></script>`

// next stands for the API.
var next = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusTeapot)
})

// consoleHandler serves a build that has a console.
func consoleHandler(t *testing.T) http.Handler {
	t.Helper()
	files := plainFiles(t)
	for name, text := range map[string]string{
		"index.html": consolePage, "index-Ab1_.js": "start()", "_shared-x9.js": "shared()", "index-c0.css": "a{}",
		"mark-d1.svg": "<svg/>", "text-e2.woff2": "font", "icons/mark-f3.png": "picture", "site-g4.webmanifest": "{}", "odd-h5.bin": "odd",
	} {
		files["static/console/"+name+".gz"] = compressed(t, text)
	}
	handler, err := web.HandlerOf(files, next)
	if err != nil {
		t.Fatal(err)
	}
	return handler
}

func ask(t *testing.T, handler http.Handler, method, path string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "http://panel.example.com/", nil)
	r.URL.Path, r.URL.RawQuery, _ = strings.Cut(path, "?")
	r.Header = header.Clone()
	if r.Header == nil {
		r.Header = http.Header{}
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func TestConsole_IsThePageOfItsPaths(t *testing.T) {
	console := consoleHandler(t)
	paths := []string{"/", "/device?code=CDFG-2345", "/device/CDFG-2345", "/tunnel/verify?user_code=CDFG-2345", "/devices/5f1d/traffic", "/site/audit"}
	for _, route := range web.ConsoleRoutes {
		if route == "login-failed" {
			continue // It has the status of the failure.
		}
		paths = append(paths, "/"+route)
	}
	for _, path := range paths {
		page := ask(t, console, http.MethodGet, path, browser)
		if page.Code != http.StatusOK || page.Body.String() != consolePage {
			t.Errorf("%s: %d %s", path, page.Code, page.Body)
		}
		header := page.Header()
		if header.Get("Cache-Control") != "no-cache" || header.Get("ETag") == "" || header.Get("Content-Type") != "text/html; charset=utf-8" ||
			header.Get("X-Content-Type-Options") != "nosniff" || header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: headers are %v", path, header)
		}
		again := http.Header{"Accept": browser["Accept"], "If-None-Match": {header.Get("ETag")}}
		if got := ask(t, console, http.MethodGet, path, again).Code; got != http.StatusNotModified {
			t.Errorf("%s, which the browser has: %d", path, got)
		}
		if head := ask(t, console, http.MethodHead, path, browser); head.Code != http.StatusOK || head.Body.Len() != 0 {
			t.Errorf("HEAD %s: %d %s", path, head.Code, head.Body)
		}
		if post := ask(t, console, http.MethodPost, path, browser); post.Code != http.StatusMethodNotAllowed || post.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("POST %s: %d %v", path, post.Code, post.Header())
		}
	}
}

func TestConsole_LoadsOnlyFilesOfItsOrigin(t *testing.T) {
	policy := ask(t, consoleHandler(t), http.MethodGet, "/", browser).Header().Get("Content-Security-Policy")
	want := "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; font-src 'self'; " +
		"manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	if policy != want {
		t.Errorf("its policy is %s", policy)
	}
}

func TestConsole_LeavesOtherPathsAlone(t *testing.T) {
	console := consoleHandler(t)
	for _, test := range []struct {
		path, accept string
		status       int
		holds        string
	}{
		{"/nothing", "text/html", 404, "Page not found"},
		{"/deviceses", "text/html", 404, "Page not found"},
		{"/errors", "text/html", 200, "Errors of the API"},
		{"/openapi", "text/html", 200, "API explorer"},
		{"/login-failed?reason=denied", "text/html", 403, consolePage},
		{"/assets/panel.css", "*/*", 200, "color-scheme"},
		{"/api/tunnel/devices", "text/html", 418, ""},
		{"/readyz", "text/html", 418, ""},
		{"/healthz", "text/html", 418, ""},
		{"/openapi.yaml", "text/html", 418, ""},
		{"/.well-known/nothing", "text/html", 418, ""},
		// A program that forgot /api would take the page for an answer.
		{"/devices", "application/json", 418, ""},
		{"/devices", "*/*", 418, ""},
		{"/device", "*/*", 200, consolePage},
	} {
		got := ask(t, console, http.MethodGet, test.path, http.Header{"Accept": {test.accept}})
		if got.Code != test.status || !strings.Contains(got.Body.String(), test.holds) {
			t.Errorf("%s for %s: %d %s", test.path, test.accept, got.Code, got.Body)
		}
	}
}

func TestConsole_PathInAnotherSpellingRedirects(t *testing.T) {
	console := consoleHandler(t)
	for path, want := range map[string]string{
		"/Device/?code=CDFG-2345":           "/device?code=CDFG-2345",
		"/Tunnel/Verify?user_code=X":        "/tunnel/verify?user_code=X",
		"/devices/?sort=name":               "/devices?sort=name",
		"//devices":                         "/devices",
		"/Organisations/aB/":                "/organisations/aB",
		"/devices//5f1d":                    "/devices/5f1d",
		"/devices/../../site/./audit":       "/site/audit",
		"/devices/..//example.com/../start": "/start",
	} {
		got := ask(t, console, http.MethodGet, path, browser)
		if got.Code != http.StatusTemporaryRedirect || got.Header().Get("Location") != want || got.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d to %q, want %q", path, got.Code, got.Header().Get("Location"), want)
		}
	}
}

func TestConsole_FilesAreKeptForGood(t *testing.T) {
	console := consoleHandler(t)
	for name, mediaType := range map[string]string{
		"index-Ab1_.js": "text/javascript; charset=utf-8", "_shared-x9.js": "text/javascript; charset=utf-8",
		"index-c0.css": "text/css; charset=utf-8", "mark-d1.svg": "image/svg+xml", "text-e2.woff2": "font/woff2",
		"icons/mark-f3.png": "image/png", "site-g4.webmanifest": "application/manifest+json", "odd-h5.bin": "application/octet-stream",
	} {
		path := "/assets/console/" + name
		plain := ask(t, console, http.MethodGet, path, nil)
		encoded := ask(t, console, http.MethodGet, path, http.Header{"Accept-Encoding": {"gzip, br"}, "Range": {"bytes=0-3"}})
		r, err := gzip.NewReader(bytes.NewReader(encoded.Body.Bytes()))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		text, err := io.ReadAll(r)
		if err != nil || string(text) != plain.Body.String() || encoded.Header().Get("Content-Encoding") != "gzip" || plain.Header().Get("Content-Encoding") != "" {
			t.Errorf("%s: %q and plain %q, %v", path, text, plain.Body, err)
		}
		if plain.Header().Get("ETag") == encoded.Header().Get("ETag") {
			t.Errorf("%s has one tag for both of its forms", path)
		}
		part := ask(t, console, http.MethodGet, path, http.Header{"Range": {"bytes=0-0"}})
		if part.Code != http.StatusPartialContent || part.Body.String() != plain.Body.String()[:1] {
			t.Errorf("the first byte of %s: %d %q", path, part.Code, part.Body)
		}
		for _, got := range []*httptest.ResponseRecorder{plain, encoded} {
			header := got.Header()
			if got.Code != http.StatusOK || header.Get("Cache-Control") != "public, max-age=31536000, immutable" ||
				header.Get("Content-Type") != mediaType || header.Get("Vary") != "Accept-Encoding" || header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s: %d, headers are %v", path, got.Code, header)
			}
		}
		if post := ask(t, console, http.MethodPost, path, http.Header{"Accept-Encoding": {"gzip"}}); post.Code != http.StatusMethodNotAllowed || post.Header().Get("Cache-Control") != "" {
			t.Errorf("POST %s: %d %v", path, post.Code, post.Header())
		}
	}
}

// A page of another version asks for files that this one does not have, and must not get a
// page as a script.
func TestConsole_AnotherVersionsFileIsNotFound(t *testing.T) {
	for name, handler := range map[string]http.Handler{"with": consoleHandler(t), "without": handler(t)} {
		for _, path := range []string{"/assets/console/index-old.js", "/assets/console/index.html", "/assets/console/", "/assets/console/index-ab1_.js"} {
			got := ask(t, handler, http.MethodGet, path, browser)
			if got.Code != http.StatusNotFound || got.Header().Get("Cache-Control") != "no-store" || !strings.HasPrefix(got.Header().Get("Content-Type"), "text/plain") {
				t.Errorf("%s a console, %s: %d %v", name, path, got.Code, got.Header())
			}
		}
	}
}

func TestConsole_WithoutItEcliPanelsAddressLeadsToThePlainPage(t *testing.T) {
	plain := handler(t)
	for path, want := range map[string]string{
		"/tunnel/verify?user_code=CDFG-2345&next=//example.com": "/device?code=CDFG-2345",
		"/tunnel/verify?user_code=a%26b%23":                     "/device?code=a%26b%23",
		"/tunnel/verify":                                        "/device",
		"/Tunnel/Verify/?user_code=X":                           "/tunnel/verify?user_code=X",
	} {
		got := ask(t, plain, http.MethodGet, path, browser)
		if got.Code != http.StatusTemporaryRedirect || got.Header().Get("Location") != want || got.Header().Get("Cache-Control") != "no-store" ||
			got.Header().Get("Referrer-Policy") != "no-referrer" && !strings.HasPrefix(want, "/tunnel") {
			t.Errorf("%s: %d to %q, want %q", path, got.Code, got.Header().Get("Location"), want)
		}
	}
	if post := ask(t, plain, http.MethodPost, "/tunnel/verify", nil); post.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", post.Code)
	}
}

// TestConsole_OfThisBuildHasItsFiles is about the console that make build embedded.
func TestConsole_OfThisBuildHasItsFiles(t *testing.T) {
	if _, err := web.Static.ReadFile("static/console/index.html.gz"); err != nil {
		t.Skip("this build has no console: make build builds it in")
	}
	handler, err := web.Handler(next)
	if err != nil {
		t.Fatal(err)
	}
	page := ask(t, handler, http.MethodGet, "/", browser).Body.String()
	if strings.Contains(page, "<style") || strings.Contains(page, "style=") || regexp.MustCompile(`<script[^>]*>[^<]`).MatchString(page) {
		t.Error("its page has inline content, which its policy forbids")
	}
	files := regexp.MustCompile(`(?:href|src)="([^"]+)"`).FindAllStringSubmatch(page, -1)
	if !slices.ContainsFunc(files, func(f []string) bool { return strings.HasSuffix(f[1], ".js") }) {
		t.Error("its page has no script")
	}
	for _, file := range files {
		if got := ask(t, handler, http.MethodGet, file[1], nil); got.Code != http.StatusOK {
			t.Errorf("it refers to %s: %d", file[1], got.Code)
		}
	}
}

// TestConsole_ServesTheRoutesOfItsPages holds the panel's list of routes to the console's own.
func TestConsole_ServesTheRoutesOfItsPages(t *testing.T) {
	source, err := os.ReadFile("../../../clients/console/src/app.tsx")
	if err != nil {
		t.Fatal(err)
	}
	var routes []string
	for _, found := range regexp.MustCompile(`<Route path="/([^/"]*)`).FindAllStringSubmatch(string(source), -1) {
		routes = append(routes, found[1])
	}
	slices.Sort(routes)
	served := slices.Sorted(slices.Values(web.ConsoleRoutes))
	if routes = slices.Compact(routes); !slices.Equal(routes, served) {
		t.Errorf("the console has the routes %q, the panel serves it at %q", routes, served)
	}
}

// TestConsole_ExplainsEachFailureOfALogin holds the reasons that the console explains, in each language, to the panel's.
func TestConsole_ExplainsEachFailureOfALogin(t *testing.T) {
	read := func(name string) string {
		source, err := os.ReadFile("../../../clients/console/src/session/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(source)
	}
	texts, page := read("failed-texts.ts"), read("login-failed.tsx")
	_, page, _ = strings.Cut(page, "const logged")
	page, _, _ = strings.Cut(page, ";")
	for reason, logged := range web.LoginFailures() {
		if found := regexp.MustCompile(`(?m)^      '?`+reason+`'?: \{`).FindAllString(texts, -1); len(found) != 2 {
			t.Errorf("%s is explained in %d languages", reason, len(found))
		}
		if strings.Contains(page, "'"+reason+"'") != logged {
			t.Errorf("%s: the panel's log says more: %t", reason, logged)
		}
	}
	if explained := regexp.MustCompile(`(?m)^      \S+: \{ title: `).FindAllString(texts, -1); len(explained) != 2*len(web.LoginFailures()) {
		t.Errorf("explained are %q", explained)
	}
}
