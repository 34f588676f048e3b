// Package web serves the panel's web pages, which are embedded in the binary: the page
// on which a person approves or refuses a device (RFC 8628 section 3.3), those on which a
// user sets a password and accepts an invitation, the one that explains why a login at an
// identity provider failed, the one that explains the API's error codes, the API explorer,
// and the index; or, in a build that has it, the console in place of most of them. The
// pages load only files of their own origin and use only the public API.
package web

import (
	"embed"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// With all: the console's files may have any name.
//
//go:embed all:static
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

// Handler serves the pages and passes requests for any other path to next. The console, if
// the build has it, takes the place of most plain pages. A browser that asks for the path of
// a page in another spelling, such as with a slash at the end, is redirected to it. One that
// asks for a page that does not exist gets a page that says so.
func Handler(next http.Handler) (http.Handler, error) { return newHandler(static, next) }

// newHandler is Handler, with files in place of the embedded ones.
func newHandler(files fs.FS, next http.Handler) (http.Handler, error) {
	handlers := make(map[string]http.Handler, len(pages))
	for path, file := range pages {
		if err := addFile(handlers, files, path, file, policy); err != nil {
			return nil, err
		}
	}
	handlers[loginFailedPath] = http.HandlerFunc(loginFailed)
	handlers[verifyPath] = http.HandlerFunc(verify)
	if err := addExplorer(handlers, files); err != nil {
		return nil, err
	}
	page, err := addConsole(handlers, files)
	if err != nil {
		return nil, err
	}
	// Not a ServeMux, which would redirect unclean API paths.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		clean := path.Clean("/" + strings.ToLower(r.URL.Path))
		switch known := handlers[r.URL.Path]; {
		case known != nil:
			known.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, consoleAssets):
			missingAsset(w)
		case WantsPage(r) && handlers[clean] != nil:
			// The query contains a user code.
			redirect(w, r, url.URL{Path: clean, RawQuery: r.URL.RawQuery})
		case serveConsole(w, r, page):
		case WantsPage(r):
			notFound(w, r)
		default:
			next.ServeHTTP(w, r)
		}
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
