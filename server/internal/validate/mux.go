// Package validate checks every request against the contract before a handler sees
// it. It also routes by the contract, so that the operation that a request was
// checked against is always the one that serves it.
//
// The checks run in this order: the path and method must name an operation; Admit may
// reject the request; the policy of package auth must let the caller use the operation;
// the parameters must match; the body must match. The body of a caller who is refused is
// never read.
package validate

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

const (
	// MaxBody is the maximum size of a request body in bytes.
	MaxBody = 64 << 10
	// bodyTimeout bounds the time a caller may take to send the body.
	bodyTimeout = 15 * time.Second
)

// Authenticator authenticates requests.
type Authenticator interface {
	// Authenticate returns the caller of a request: the zero Principal if the
	// request has no credential, and an error if the credential is invalid, expired
	// or revoked.
	Authenticate(r *http.Request) (auth.Principal, error)
}

// Options configures a Mux.
type Options struct {
	// Contract is the text of the OpenAPI document. Required.
	Contract []byte
	// Authenticator authenticates the requests of every operation that is not public.
	// Required.
	Authenticator Authenticator
	// Admit may reject a request before authentication. path is the operation's path
	// in the contract, with parameter names. nil admits all requests.
	Admit func(r *http.Request, path string) error
	// Refused is called for a caller whom the policy refuses an operation, with a context
	// that carries the caller. An error is the answer in place of the refusal. nil does
	// nothing.
	Refused func(ctx context.Context, operation string) error
	// Around returns the handler that serves the checked requests of an operation by next.
	// nil returns next.
	Around func(operation *openapi3.Operation, next http.HandlerFunc) http.HandlerFunc
}

// Mux serves the operations of the contract. Handlers are added with HandleFunc, which
// gen/server calls for each operation. A Mux is safe for concurrent use after the last
// HandleFunc.
type Mux struct {
	options Options
	doc     *openapi3.T
	routes  *http.ServeMux
	served  map[*openapi3.Operation]bool
}

// New parses the contract and returns a Mux without handlers.
func New(options Options) (*Mux, error) {
	doc, err := Load(options.Contract)
	if err != nil {
		return nil, err
	}
	if options.Admit == nil {
		options.Admit = func(*http.Request, string) error { return nil }
	}
	if options.Refused == nil {
		options.Refused = func(context.Context, string) error { return nil }
	}
	if options.Around == nil {
		options.Around = func(_ *openapi3.Operation, next http.HandlerFunc) http.HandlerFunc { return next }
	}
	m := &Mux{options: options, doc: doc, routes: http.NewServeMux(), served: map[*openapi3.Operation]bool{}}
	m.routes.HandleFunc("/", notFound)
	for path, item := range doc.Paths.Map() {
		if !hasTemplate(doc, path) {
			m.routes.Handle(path, methodNotAllowed(item))
			continue
		}
		// A pattern without a method would be in conflict with the operations of the template.
		for _, method := range methods {
			if item.GetOperation(method) == nil {
				m.routes.Handle(method+" "+path, methodNotAllowed(item))
			}
		}
	}
	return m, nil
}

// methods are those that an operation can have.
var methods = []string{
	http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace, http.MethodConnect,
}

// hasTemplate reports whether a path without parameters is also one of another path of the contract, with parameters.
func hasTemplate(doc *openapi3.T, path string) bool {
	parts := strings.Split(path, "/")
	for _, template := range doc.Paths.InMatchingOrder() {
		of := strings.Split(template, "/")
		if template == path || len(of) != len(parts) {
			continue
		}
		matches := true
		for i, part := range of {
			matches = matches && (part == parts[i] || strings.HasPrefix(part, "{") && !strings.HasPrefix(parts[i], "{"))
		}
		if matches {
			return true
		}
	}
	return false
}

// HandleFunc registers the handler of an operation, named by a pattern such as
// "GET /api/version". It panics if the contract has no such operation, or deprecates it
// without dates.
func (m *Mux) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	method, path, _ := strings.Cut(pattern, " ")
	item := m.doc.Paths.Value(path)
	if item == nil || item.GetOperation(method) == nil {
		panic(fmt.Sprintf("validate: %q is not in the contract", pattern))
	}
	op := newOperation(m, path, item, item.GetOperation(method))
	m.served[op.spec] = true
	handler = m.options.Around(op.spec, handler)
	m.routes.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		op.record(r.Context())
		w = op.tellDeprecation(w, r)
		r, err := op.check(w, r)
		if err != nil {
			problem.Write(w, r, err)
			return
		}
		handler(w, r)
	})
}

// Unserved lists the operations of the contract that have no handler.
func (m *Mux) Unserved() []string {
	var missing []string
	for path, item := range m.doc.Paths.Map() {
		for method, op := range item.Operations() {
			if !m.served[op] {
				missing = append(missing, method+" "+path)
			}
		}
	}
	slices.Sort(missing)
	return missing
}

// ServeHTTP dispatches a request to its operation. It responds with 404 to a path
// outside the contract and with 405 to a method outside it.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// http.ServeMux would redirect an unclean path.
	if escaped := r.URL.EscapedPath(); escaped != path.Clean(escaped) {
		notFound(w, r)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
	m.routes.ServeHTTP(w, r)
}

func notFound(w http.ResponseWriter, r *http.Request) {
	problem.Write(w, r, problem.NotFound("There is no such path in this API."))
}

func methodNotAllowed(item *openapi3.PathItem) http.HandlerFunc {
	var methods []string
	for method := range item.Operations() {
		methods = append(methods, method)
		if method == http.MethodGet {
			// http.ServeMux serves HEAD wherever it serves GET.
			methods = append(methods, http.MethodHead)
		}
	}
	slices.Sort(methods)
	allow := strings.Join(methods, ", ")
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allow)
		problem.Write(w, r, problem.MethodNotAllowed())
	}
}
