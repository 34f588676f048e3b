package web

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
)

// consoleFiles is the directory that scripts/console writes before a build, and a build
// without Node.js lacks. Each file in it is compressed by gzip.
const consoleFiles = "static/console"

// consoleAssets is the path below which the console's files are served, but for its page.
// Their names change with their content.
const consoleAssets = "/assets/console/"

// consolePolicy is that of the console's page. Unlike the plain pages it has images, fonts
// and a manifest.
const consolePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
	"img-src 'self' data:; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// consoleRoutes are the first parts of the paths of the console's pages, of which the first
// is the start page's. Any path below one is the console's to show, and what is not listed
// does not exist.
var consoleRoutes = []string{
	"", "account", "allocations", "device", "devices", "invitation", "login", "login-failed", "organisations", "password", "site", "start",
	"traffic", "tunnel",
}

// verifyPath is the path of EcliPanel's page for approvals, with the code in its query.
const verifyPath = "/tunnel/verify"

// plainPages are the pages that the console shows in place of plain ones, whoever asks.
var plainPages = []string{"/", "/device", "/password", "/invitation", loginFailedPath, verifyPath}

// addConsole adds the console's files, and returns its page. Without a console it returns
// nil, and the plain pages stay.
func addConsole(handlers map[string]http.Handler, files fs.FS) (http.Handler, error) {
	index, err := fs.ReadFile(files, consoleFiles+"/index.html.gz")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the console: %w", err)
	}
	err = fs.WalkDir(files, consoleFiles, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, ok := strings.CutSuffix(strings.TrimPrefix(file, consoleFiles+"/"), ".gz")
		if !ok {
			return fmt.Errorf("%s is not compressed", file)
		}
		content, err := fs.ReadFile(files, file)
		if name != "index.html" {
			handlers[consoleAssets+name] = serveCompressed(representation{
				name: name, content: content, policy: consolePolicy, caching: immutable,
			})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the console: %w", err)
	}
	page := serveCompressed(representation{name: "index.html", content: index, policy: consolePolicy, caching: revalidate})
	for _, plain := range plainPages {
		handlers[plain] = page
	}
	handlers[loginFailedPath] = withFailure(page)
	return page, nil
}

// serveConsole serves the console's page, if there is one, for its paths that no other page
// has, and reports whether the request was for one. Programs get next's answer: they mean
// the API.
func serveConsole(w http.ResponseWriter, r *http.Request, page http.Handler) bool {
	if page == nil || reads(r) && !WantsPage(r) {
		return false
	}
	clean := path.Clean("/" + r.URL.Path)
	first, rest, deeper := strings.Cut(clean[1:], "/")
	first = strings.ToLower(first)
	if !slices.Contains(consoleRoutes, first) {
		return false
	}
	if clean = "/" + first; deeper {
		clean += "/" + rest
	}
	if clean == r.URL.Path {
		page.ServeHTTP(w, r)
		return true
	}
	if reads(r) {
		redirect(w, r, url.URL{Path: clean, RawQuery: r.URL.RawQuery})
	}
	return reads(r)
}

// missingAsset answers for a file that the console of another version has. A page in its
// place would be run as a script, and a cache would keep the answer until this panel has
// that version.
func missingAsset(w http.ResponseWriter) {
	setSecurityHeaders(w.Header(), policy)
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, "This version of the console has no such file.", http.StatusNotFound)
}

// verify leads from EcliPanel's page for approvals to the plain one.
func verify(w http.ResponseWriter, r *http.Request) {
	setSecurityHeaders(w.Header(), policy)
	if !reads(r) {
		methodNotAllowed(w)
		return
	}
	target := url.URL{Path: "/device"}
	if code := r.URL.Query().Get("user_code"); code != "" {
		target.RawQuery = url.Values{"code": {code}}.Encode()
	}
	redirect(w, r, target)
}

// redirect sends a browser to another page. The address can have a user code, which no
// cache should keep.
func redirect(w http.ResponseWriter, r *http.Request, target url.URL) {
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, target.String(), http.StatusTemporaryRedirect)
}
