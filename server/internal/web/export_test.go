package web

import (
	"io/fs"
	"net/http"
)

// Static are the embedded files.
var Static = static

// ExplorerBundle is the file of Static that a build without Node.js lacks.
const ExplorerBundle = explorerBundle

// ConsoleRoutes are the first parts of the paths of the console's pages.
var ConsoleRoutes = consoleRoutes

// LoginFailures are the reasons for which a login at an identity provider fails, and whether the log says more of each.
func LoginFailures() map[string]bool {
	failures := map[string]bool{}
	for reason, why := range explanations {
		failures[reason] = why.logged
	}
	return failures
}

// HandlerOf is Handler, with files in place of the embedded ones.
func HandlerOf(files fs.FS, next http.Handler) (http.Handler, error) { return newHandler(files, next) }

// Explorer returns the handlers of the API explorer's paths, with files in place of the
// embedded ones.
func Explorer(files fs.FS) (map[string]http.Handler, error) {
	handlers := map[string]http.Handler{}
	return handlers, addExplorer(handlers, files)
}

// Guides returns the title and the text of each guide.
func Guides(docs fs.FS) (map[string]string, error) {
	pages, err := readGuides(docs)
	texts := map[string]string{}
	for _, page := range pages {
		texts[page.Title] = page.Text
	}
	return texts, err
}
