package web_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/server/internal/web"
)

const bundle = "globalThis.Scalar = {};"

// explorer returns the handlers of a build with or without the explorer's bundle,
// whatever this one has.
func explorer(t *testing.T, with bool) map[string]http.Handler {
	t.Helper()
	files := plainFiles(t)
	if with {
		files[web.ExplorerBundle] = compressed(t, bundle)
	}
	handlers, err := web.Explorer(files)
	if err != nil {
		t.Fatal(err)
	}
	return handlers
}

func fetch(t *testing.T, handlers map[string]http.Handler, path string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	handler, ok := handlers[path]
	if !ok {
		t.Fatalf("%s is not served", path)
	}
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header = header
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func TestExplorer_LoadsOnlyFilesOfItsOrigin(t *testing.T) {
	handlers := explorer(t, true)
	page := fetch(t, handlers, "/openapi", http.Header{})
	policy := page.Header().Get("Content-Security-Policy")
	for _, part := range []string{
		"default-src 'none'", "script-src 'self'", "style-src 'self' 'unsafe-inline'", "connect-src 'self'",
		"img-src 'self' data:", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'",
	} {
		if !strings.Contains("; "+policy+";", "; "+part+";") {
			t.Errorf("its policy lacks %s: %s", part, policy)
		}
	}
	text := page.Body.String()
	if strings.Contains(text, "<style") || strings.Contains(text, "style=") || regexp.MustCompile(`<script[^>]*>[^<]`).MatchString(text) {
		t.Error("it has inline content of ours")
	}
	for _, match := range regexp.MustCompile(`(?:href|src)="(/assets/[^"]+)"`).FindAllStringSubmatch(text, -1) {
		if got := fetch(t, handlers, match[1], http.Header{}).Code; got != http.StatusOK {
			t.Errorf("%s: %d", match[1], got)
		}
	}
}

func TestExplorer_BundleIsSentCompressedToWhoTakesIt(t *testing.T) {
	handlers := explorer(t, true)
	plain := fetch(t, handlers, "/assets/explorer/scalar.js", http.Header{})
	if plain.Body.String() != bundle || plain.Header().Get("Content-Encoding") != "" {
		t.Errorf("plain it is %q, encoded as %q", plain.Body, plain.Header().Get("Content-Encoding"))
	}
	// A range of the compressed form would be no use.
	encoded := fetch(t, handlers, "/assets/explorer/scalar.js", http.Header{"Accept-Encoding": {"br, gzip"}, "Range": {"bytes=0-3"}})
	r, err := gzip.NewReader(encoded.Body)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); err != nil || string(text) != bundle || encoded.Header().Get("Content-Encoding") != "gzip" {
		t.Errorf("compressed it is %q, %v, encoded as %q", text, err, encoded.Header().Get("Content-Encoding"))
	}
	for _, got := range []*httptest.ResponseRecorder{plain, encoded} {
		if got.Header().Get("Vary") != "Accept-Encoding" || !strings.HasPrefix(got.Header().Get("Content-Type"), "text/javascript") {
			t.Errorf("headers are %v", got.Header())
		}
	}
}

func TestExplorer_BundleIsPlainWhereCompressionWouldBreakIt(t *testing.T) {
	handlers := explorer(t, true)
	if got := fetch(t, handlers, "/assets/explorer/scalar.js", http.Header{"Accept-Encoding": {"gzip;q=0"}}); got.Body.String() != bundle {
		t.Errorf("who refuses gzip gets %q", got.Body)
	}
	r := httptest.NewRequest(http.MethodPost, "/assets/explorer/scalar.js", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	w := httptest.NewRecorder()
	handlers["/assets/explorer/scalar.js"].ServeHTTP(w, r)
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Content-Encoding") != "" {
		t.Errorf("a POST is answered %d, encoded as %q", w.Code, w.Header().Get("Content-Encoding"))
	}
}

func TestExplorer_WithoutBundleSaysSo(t *testing.T) {
	handlers := explorer(t, false)
	page := fetch(t, handlers, "/openapi", http.Header{})
	if page.Code != http.StatusOK || !strings.Contains(page.Body.String(), "no API explorer") || !strings.Contains(page.Body.String(), `href="/openapi.yaml"`) {
		t.Errorf("%d, %s", page.Code, page.Body)
	}
	if len(handlers) != 1 {
		t.Errorf("it serves %d paths", len(handlers))
	}
}

func TestExplorer_GuidesAreTheDocuments(t *testing.T) {
	guides, err := web.Guides(eclitunnel.Docs)
	if err != nil {
		t.Fatal(err)
	}
	for _, title := range []string{"First tunnel by curl", "Enrolling without a person"} {
		if !strings.Contains(guides[title], "curl -fsS") {
			t.Errorf("%q is %.80q", title, guides[title])
		}
	}
	for title, text := range guides {
		if strings.Contains(text, "](") && regexp.MustCompile(`\]\([^)h/]`).MatchString(text) {
			t.Errorf("%q has a link that leads nowhere in the explorer", title)
		}
	}
}

func TestExplorer_LinksBetweenDocumentsBecomeTheirNames(t *testing.T) {
	guides, err := web.Guides(fstest.MapFS{"docs/events.md": {Data: []byte(
		"# Live\n\nSee [keys](users.md#keys), [users.md](users.md), [above](#top), [more](../rules.md), [it](/device) and [RFC](https://example.com/rfc).\n",
	)}})
	if want := "See keys (`users.md`), users.md, above, more (`rules.md`), [it](/device) and [RFC](https://example.com/rfc)."; err != nil || guides["Live"] != want {
		t.Errorf("%q, %v", guides["Live"], err)
	}
}
