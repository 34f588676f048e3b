package web_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/server/internal/web"
)

func get(t *testing.T, method, target string, header http.Header) *http.Response {
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
	return w.Result()
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestPages_LoadOnlyWhatIsServedHere(t *testing.T) {
	reference := regexp.MustCompile(`(?:href|src)="([^"]+)"`)
	api := map[string]bool{"/openapi.json": true, "/readyz": true, "/healthz": true, "/api/version": true}
	for _, page := range []string{"/", "/device?code=BCDF-2345"} {
		resp := get(t, http.MethodGet, page, nil)
		text := body(t, resp)
		if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
			t.Fatalf("%s: %s, %q", page, resp.Status, resp.Header.Get("Content-Type"))
		}
		if strings.Contains(text, "<style") || strings.Contains(text, "style=") || strings.Contains(text, "<script>") {
			t.Errorf("%s has something inline, which its policy forbids", page)
		}
		for _, match := range reference.FindAllStringSubmatch(text, -1) {
			if api[match[1]] {
				continue
			}
			if resp := get(t, http.MethodGet, match[1], nil); resp.StatusCode != http.StatusOK {
				t.Errorf("%s refers to %s: %s", page, match[1], resp.Status)
			}
		}
	}
}

func TestPages_CarrySecurityHeaders(t *testing.T) {
	resp := get(t, http.MethodGet, "/device", nil)
	for name, want := range map[string]string{
		"Content-Security-Policy": "frame-ancestors 'none'",
		"X-Content-Type-Options":  "nosniff",
		"Referrer-Policy":         "no-referrer",
	} {
		if got := resp.Header.Get(name); !strings.Contains(got, want) {
			t.Errorf("%s: %q lacks %q", name, got, want)
		}
	}
}

func TestPages_AreNotSentAgainUnchanged(t *testing.T) {
	tag := get(t, http.MethodGet, "/assets/panel.css", nil).Header.Get("ETag")
	resp := get(t, http.MethodGet, "/assets/panel.css", http.Header{"If-None-Match": {tag}})
	if resp.StatusCode != http.StatusNotModified {
		t.Errorf("status %s", resp.Status)
	}
}

func TestPages_RefuseOtherMethods(t *testing.T) {
	resp := get(t, http.MethodPost, "/device", nil)
	if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("%s, Allow %q", resp.Status, resp.Header.Get("Allow"))
	}
}
