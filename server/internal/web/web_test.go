package web_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/server/internal/web"
)

func get(t *testing.T, method, target string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	handler, err := web.Handler(http.NotFoundHandler())
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(method, target, nil)
	for name, values := range header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func TestPages_LoadOnlyEmbeddedFiles(t *testing.T) {
	reference := regexp.MustCompile(`(?:href|src)="([^"]+)"`)
	api := map[string]bool{"/openapi.json": true, "/readyz": true, "/healthz": true, "/api/version": true}
	for _, page := range []string{"/", "/device?code=BCDF-2345"} {
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
