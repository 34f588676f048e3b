// Package validate holds every request to the contract before a handler sees
// it. It routes by the contract too, so that the operation whose rules a request
// was checked against is always the operation that serves it.
//
// A request passes, in this order: its path and method must name an operation;
// Admit may turn it away; its credential must be one the operation's security
// names; then its parameters and at last its body must fit. The body of a caller
// without a right to call is never read.
package validate

import (
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
	// MaxBody is the largest body of a request, in bytes.
	MaxBody = 64 << 10
	// bodyTimeout bounds how long a caller may take to send it.
	bodyTimeout = 15 * time.Second
)

// Authenticator tells who is asking.
type Authenticator interface {
	// Authenticate returns the zero Principal for a request without a
	// credential, and an error for a credential that is wrong, expired or
	// revoked.
	Authenticate(r *http.Request) (auth.Principal, error)
}

// Options is what a Mux needs.
type Options struct {
	// Contract is the text of the OpenAPI document.
	Contract []byte
	// Authenticator is asked for every operation that names a credential.
	Authenticator Authenticator
	// Admit may turn a request away before its credential is looked at; path is
	// the operation's in the contract, with its parameters' names. Nil admits
	// all.
	Admit func(r *http.Request, path string) error
}

// Mux serves the operations of the contract. Handlers are added with HandleFunc,
// which gen/server calls for each of its operations. A Mux is safe for
// concurrent use once they are all there.
type Mux struct {
	options Options
	doc     *openapi3.T
	routes  *http.ServeMux
	served  map[*openapi3.Operation]bool
}

// New parses the contract.
func New(options Options) (*Mux, error) {
	doc, err := Load(options.Contract)
	if err != nil {
		return nil, err
	}
	if options.Admit == nil {
		options.Admit = func(*http.Request, string) error { return nil }
	}
	m := &Mux{options: options, doc: doc, routes: http.NewServeMux(), served: map[*openapi3.Operation]bool{}}
	m.routes.HandleFunc("/", notFound)
	for path, item := range doc.Paths.Map() {
		m.routes.Handle(path, methodNotAllowed(item))
	}
	return m, nil
}

// HandleFunc serves the operation that pattern names ("GET /api/version"). It
// panics, as http.ServeMux does, where the contract has no such operation.
func (m *Mux) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	method, path, _ := strings.Cut(pattern, " ")
	item := m.doc.Paths.Value(path)
	if item == nil || item.GetOperation(method) == nil {
		panic(fmt.Sprintf("validate: %q is not in the contract", pattern))
	}
	op := newOperation(m, path, item, item.GetOperation(method))
	m.served[op.spec] = true
	m.routes.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		op.record(r.Context())
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

// ServeHTTP answers a path outside the contract with 404, and a method outside
// it with 405.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// http.ServeMux would redirect an unclean path, with a page for people.
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
