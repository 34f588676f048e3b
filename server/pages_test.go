package server

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel"
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
