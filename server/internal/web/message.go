package web

import (
	"bytes"
	"html/template"
	"net/http"
	"strings"
)

var message = template.Must(template.ParseFS(static, "static/message.html"))

// startingRefresh is how long, in seconds, a browser waits until it asks a panel that
// starts again.
const startingRefresh = "2"

// WantsPage reports whether a person's browser asks for a page: the request is a GET or
// HEAD, lists text/html as acceptable, and its path is not one of the API, where answers
// are JSON for everybody.
func WantsPage(r *http.Request) bool {
	return reads(r) && !isAPI(r.URL.Path) && accepts(r, "Accept", "text/html", "application/xhtml+xml")
}

// isAPI reports whether a path belongs to the API.
func isAPI(path string) bool {
	switch path {
	case "/openapi.json", "/openapi.yaml", "/healthz", "/readyz", "/api":
		return true
	default:
		return strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/.well-known/")
	}
}

// Starting responds with a page that says that the panel is starting or stopping, and
// that the browser loads again by itself.
func Starting(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Retry-After", startingRefresh)
	w.Header().Set("Refresh", startingRefresh)
	writeMessage(w, r, http.StatusServiceUnavailable, "The panel is starting",
		"The panel is starting or stopping. This page tries again by itself.")
}

func notFound(w http.ResponseWriter, r *http.Request) {
	writeMessage(w, r, http.StatusNotFound, "Page not found", "There is no page at this address.")
}

// writeMessage responds with a page of one message.
func writeMessage(w http.ResponseWriter, r *http.Request, status int, title, text string) {
	var page bytes.Buffer
	if err := message.Execute(&page, struct{ Title, Text string }{title, text}); err != nil {
		http.Error(w, text, status) // The template is a constant: a test renders it.
		return
	}
	setSecurityHeaders(w.Header(), policy)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		// An error here means that the browser disconnected.
		_, _ = w.Write(page.Bytes())
	}
}
