// Package web serves the panel's web pages, which are embedded in the binary: the page
// on which a person approves or refuses a device (RFC 8628 section 3.3), those on which a
// user sets a password and accepts an invitation, the one that explains why a login at an
// identity provider failed, the one that explains the API's error codes, the API explorer,
// and the index. The pages load only files of their own origin and use only the public API.
package web

import (
	"embed"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
)

//go:embed static
var static embed.FS

// pages maps URL paths to embedded files.
var pages = map[string]string{
	"/":                     "static/index.html",
	"/device":               "static/device.html",
	"/errors":               "static/errors.html",
	"/password":             "static/password.html",
	"/invitation":           "static/invitation.html",
	"/assets/api.js":        "static/api.js",
	"/assets/device.js":     "static/device.js",
	"/assets/invitation.js": "static/invitation.js",
	"/assets/page.js":       "static/page.js",
	"/assets/password.js":   "static/password.js",
	"/assets/panel.css":     "static/panel.css",
}

// policy restricts a page to files of its own origin. It forbids inline scripts and
// styles, framing, and form submission without the script.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler serves the pages and passes requests for any other path to next. A browser
// that asks for the path of a page in another spelling, such as with a slash at the end,
// is redirected to it. One that asks for a page that does not exist gets a page that says
// so.
func Handler(next http.Handler) (http.Handler, error) {
	handlers := make(map[string]http.Handler, len(pages))
	for path, file := range pages {
		content, err := static.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read page %s: %w", file, err)
		}
		handlers[path] = serve(file, content, policy)
	}
	handlers[loginFailedPath] = http.HandlerFunc(loginFailed)
	if err := addExplorer(handlers, static); err != nil {
		return nil, err
	}
	// Not a ServeMux, which would redirect unclean API paths.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if page, ok := handlers[r.URL.Path]; ok {
			page.ServeHTTP(w, r)
			return
		}
		if !WantsPage(r) {
			next.ServeHTTP(w, r)
			return
		}
		clean := path.Clean("/" + strings.ToLower(r.URL.Path))
		if _, ok := handlers[clean]; !ok {
			notFound(w, r)
			return
		}
		// The query contains a user code.
		target := url.URL{Path: clean, RawQuery: r.URL.RawQuery}
		w.Header().Set("Cache-Control", "no-store")
		http.Redirect(w, r, target.String(), http.StatusTemporaryRedirect)
	}), nil
}

// setSecurityHeaders sets the headers that every page has.
func setSecurityHeaders(header http.Header, policy string) {
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY") // For browsers without frame-ancestors.
	// The page's URL contains a user code.
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
}
