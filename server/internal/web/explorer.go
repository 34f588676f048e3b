package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"regexp"
	"strings"

	"github.com/eclitunnel/eclitunnel"
)

// explorerPath is the page of the API explorer.
const explorerPath = "/openapi"

// explorerBundle is what scripts/explorer writes before a build, and a build without
// Node.js lacks.
const explorerBundle = "static/explorer/scalar.js.gz"

// explorerPolicy is that of the explorer's page. Unlike our own pages it has styles in its
// markup, and images that are data.
const explorerPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; " +
	"img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// guides are the explorer's pages of prose, in their order.
var guides = []string{
	"docs/guides/first-tunnel.md",
	"docs/guides/unattended-enrollment.md",
	"docs/events.md",
	"docs/webhooks.md",
	"docs/errors.md",
}

// guide is a page of prose in the explorer.
type guide struct {
	Title string `json:"title"`
	Text  string `json:"text"` // Markdown, without the title.
}

// addExplorer adds the API explorer's page and files, or if files has no bundle a page that
// says so.
func addExplorer(handlers map[string]http.Handler, files fs.FS) error {
	bundle, err := fs.ReadFile(files, explorerBundle)
	if errors.Is(err, fs.ErrNotExist) {
		return addFile(handlers, files, explorerPath, "static/explorer/absent.html", policy)
	}
	if err != nil {
		return fmt.Errorf("read the explorer: %w", err)
	}
	for path, file := range map[string]string{
		explorerPath:                    "static/explorer/index.html",
		"/assets/explorer/explorer.css": "static/explorer/explorer.css",
		"/assets/explorer/explorer.js":  "static/explorer/explorer.js",
	} {
		if err := addFile(handlers, files, path, file, explorerPolicy); err != nil {
			return err
		}
	}
	pages, err := readGuides(eclitunnel.Docs)
	if err != nil {
		return err
	}
	text, err := json.Marshal(pages)
	if err != nil {
		return fmt.Errorf("encode guides: %w", err)
	}
	handlers["/assets/explorer/guides.json"] = serve("guides.json", text, explorerPolicy)
	handlers["/assets/explorer/scalar.js"] = serveCompressed(representation{
		name: "scalar.js", content: bundle, policy: explorerPolicy, caching: revalidate,
	})
	return nil
}

func addFile(handlers map[string]http.Handler, files fs.FS, path, file, policy string) error {
	content, err := fs.ReadFile(files, file)
	if err != nil {
		return fmt.Errorf("read page %s: %w", file, err)
	}
	handlers[path] = serve(file, content, policy)
	return nil
}

// readGuides reads the guides from the project's documents. One that the binary has none
// of is left out.
func readGuides(docs fs.FS) ([]guide, error) {
	pages := []guide{}
	for _, file := range guides {
		content, err := fs.ReadFile(docs, file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read guide %s: %w", file, err)
		}
		heading, text, _ := strings.Cut(string(content), "\n")
		pages = append(pages, guide{
			Title: strings.TrimPrefix(heading, "# "),
			Text:  strings.TrimSpace(link.ReplaceAllStringFunc(text, portable)),
		})
	}
	return pages, nil
}

// link is a link in Markdown.
var link = regexp.MustCompile(`\[([^\]]+)\]\(([^)\s]+)\)`)

// portable returns a link as the explorer can show it: one to a document beside the guide
// leads nowhere from there, and becomes its text with the document's name.
func portable(found string) string {
	parts := link.FindStringSubmatch(found)
	text, target := parts[1], parts[2]
	if strings.Contains(target, "://") || strings.HasPrefix(target, "/") {
		return found
	}
	document, _, _ := strings.Cut(strings.TrimLeft(target, "./"), "#")
	if document == "" || strings.Contains(text, document) {
		return text
	}
	return text + " (`" + document + "`)"
}
