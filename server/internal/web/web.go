// Package web holds the panel's pages for people, embedded in the binary: the
// one on which an admin approves a device (RFC 8628 section 3.3) and the one
// that leads there. They load nothing from elsewhere and talk to the API only.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net/http"
	"path"
	"time"

	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

//go:embed static
var static embed.FS

// pages are the embedded files by the path they are served at.
var pages = map[string]string{
	"/{$}":              "static/index.html",
	"/device":           "static/device.html",
	"/assets/device.js": "static/device.js",
	"/assets/panel.css": "static/panel.css",
}

// policy lets a page use only files of its own origin: nothing inline, nothing
// framed, no form that leaves without the script.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Mount adds the pages to mux.
func Mount(mux *http.ServeMux) error {
	for pattern, file := range pages {
		content, err := static.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read page %s: %w", file, err)
		}
		mux.Handle(pattern, serve(path.Base(file), content))
	}
	return nil
}

func serve(name string, content []byte) http.Handler {
	sum := sha256.Sum256(content)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			header.Set("Allow", "GET, HEAD")
			problem.Write(w, r, problem.MethodNotAllowed())
			return
		}
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("X-Frame-Options", "DENY") // For browsers without frame-ancestors.
		// The page's address holds a user code.
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
		// Asked for each time, so that an upgraded panel shows its own page.
		header.Set("Cache-Control", "no-cache")
		header.Set("ETag", tag)
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
	})
}
