package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// revalidate has browsers ask on each use, so that an upgrade takes effect at once.
	revalidate = "no-cache"
	// immutable is for files whose name changes with their content. Seconds: a year.
	immutable = "public, max-age=31536000, immutable"
)

// mediaTypes are those of the files' extensions. The operating system may have a table
// with other ones, and what is compressed cannot be recognized by its first bytes.
var mediaTypes = map[string]string{
	".css":         "text/css; charset=utf-8",
	".html":        "text/html; charset=utf-8",
	".ico":         "image/x-icon",
	".jpg":         "image/jpeg",
	".js":          "text/javascript; charset=utf-8",
	".json":        "application/json",
	".map":         "application/json",
	".png":         "image/png",
	".svg":         "image/svg+xml",
	".txt":         "text/plain; charset=utf-8",
	".webmanifest": "application/manifest+json",
	".webp":        "image/webp",
	".woff2":       "font/woff2",
}

// representation is a file as it is sent.
type representation struct {
	name     string // Its extension decides on the media type.
	content  []byte
	encoding string // The Content-Encoding of content; empty if it is plain.
	policy   string // The Content-Security-Policy.
	caching  string // The Cache-Control.
}

// serve serves content under the media type of the file's name.
func serve(file string, content []byte, policy string) http.Handler {
	return representation{name: file, content: content, policy: policy, caching: revalidate}.handler()
}

func (f representation) handler() http.Handler {
	sum := sha256.Sum256(f.content)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	mediaType, ok := mediaTypes[path.Ext(f.name)]
	if !ok {
		mediaType = "application/octet-stream"
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		setSecurityHeaders(header, f.policy)
		if !reads(r) {
			methodNotAllowed(w)
			return
		}
		if f.encoding != "" {
			header.Set("Content-Encoding", f.encoding)
			// A range would be one of the encoded form, and needs no support.
			r.Header.Del("Range")
		}
		header.Set("Cache-Control", f.caching)
		header.Set("ETag", tag)
		header.Set("Content-Type", mediaType)
		http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.content))
	})
}

// serveCompressed serves a file of which only the form compressed by gzip is kept. It is
// decompressed for a client that does not take it, which browsers all do: once for all of
// them, who may be strangers and many.
func serveCompressed(f representation) http.Handler {
	plain := f
	f.encoding = "gzip"
	compressed := f.handler()
	decompressed := sync.OnceValues(func() (http.Handler, error) {
		text, err := decompress(plain.content)
		plain.content = text
		return plain.handler(), err
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept-Encoding")
		if accepts(r, "Accept-Encoding", "gzip") {
			compressed.ServeHTTP(w, r)
			return
		}
		page, err := decompressed()
		if err != nil {
			http.Error(w, "This file cannot be read.", http.StatusInternalServerError)
			return
		}
		page.ServeHTTP(w, r)
	})
}

func decompress(compressed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// accepts reports whether a header that lists what the client takes, such as Accept, names
// one of some values.
func accepts(r *http.Request, header string, values ...string) bool {
	for part := range strings.SplitSeq(strings.Join(r.Header.Values(header), ","), ",") {
		value, parameters, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		for _, wanted := range values {
			if value == wanted {
				quality, err := strconv.ParseFloat(parameters["q"], 64)
				return err != nil || quality > 0
			}
		}
	}
	return false
}

// reads reports whether a request changes nothing.
func reads(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

func methodNotAllowed(w http.ResponseWriter) {
	w.Header().Set("Allow", "GET, HEAD")
	http.Error(w, "This page supports only GET and HEAD.", http.StatusMethodNotAllowed)
}
