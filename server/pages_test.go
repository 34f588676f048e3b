package server

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/server/internal/oauth"
	"github.com/eclitunnel/eclitunnel/server/internal/validate"
	"github.com/eclitunnel/eclitunnel/server/internal/web"
)

// A browser sees the API's answers, wherever the contract places an operation.
func TestPages_HideNoOperationOfTheContract(t *testing.T) {
	doc, err := validate.Load(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	for path := range doc.Paths.Map() {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Accept", "text/html")
		if web.WantsPage(r) {
			t.Errorf("%s is taken for a page", path)
		}
	}
}

// Every reason for which a login at an identity provider fails has a page of its own, and a
// link to it shows nothing of anybody else's.
func TestPages_ExplainWhyALoginFailed(t *testing.T) {
	pages, err := web.Handler(http.NotFoundHandler())
	if err != nil {
		t.Fatal(err)
	}
	show := func(reason, request string) string {
		w := httptest.NewRecorder()
		pages.ServeHTTP(w, httptest.NewRequest(http.MethodGet, web.LoginFailed(reason, request), nil))
		if w.Code < 400 || w.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("%s: answered %d %v", reason, w.Code, w.Header())
		}
		return w.Body.String()
	}
	// The console's page, where the build has one, is the same for all, and explains in the browser.
	console := strings.Contains(show("refused", ""), "/assets/console/")
	seen := map[string]oauth.Reason{}
	for _, reason := range oauth.Reasons() {
		page := show(string(reason), "")
		if other, ok := seen[page]; ok && !console {
			t.Errorf("%s and %s have one page", reason, other)
		}
		seen[page] = reason
	}
	if page := show("refused", "TY3KQ0S2"); !console && !strings.Contains(page, "TY3KQ0S2") {
		t.Error("the page does not say where the log has more")
	}
	for _, text := range []string{"<script>alert(1)</script>", "call 555-1234", strings.Repeat("a", 65)} {
		if show("refused", text) != show("refused", "") || show(text, "") != show("failed", "") {
			t.Errorf("the page shows %q", text)
		}
	}
}

func TestStarting_TellsPeopleAndProgramsApart(t *testing.T) {
	starting := startingRoutes(slog.New(slog.DiscardHandler))
	for _, test := range []struct {
		path, accept, kind string
		status             int
	}{
		{"/", "text/html", "text/html", 503},
		{"/device", "text/html,*/*", "text/html", 503},
		{"/device", "*/*", "application/json", 503},
		{"/readyz", "text/html", "application/json", 503},
		{"/api/tunnel/devices", "text/html", "application/json", 503},
		{"/healthz", "text/html", "application/json", 200},
	} {
		r := httptest.NewRequest(http.MethodGet, test.path, nil)
		r.Header.Set("Accept", test.accept)
		w := httptest.NewRecorder()
		starting.ServeHTTP(w, r)
		retry := w.Header().Get("Retry-After") != ""
		if w.Code != test.status || !strings.HasPrefix(w.Header().Get("Content-Type"), test.kind) || retry != (test.status == 503) {
			t.Errorf("%s for %s: %d %v", test.path, test.accept, w.Code, w.Header())
		}
	}
}
