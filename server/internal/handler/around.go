package handler

import (
	"net/http"
	"slices"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/eclitunnel/eclitunnel/server/internal/idempotency"
)

// around returns the handler of an operation with what its parameters in headers ask for. They are alike in all
// operations that have them, and so no handler knows them (gen/server/overlay.yaml).
func (a *api) around(operation *openapi3.Operation, next http.HandlerFunc) http.HandlerFunc {
	if takes(operation, idempotency.Header) {
		inner := next
		next = func(w http.ResponseWriter, r *http.Request) { a.repeats.Serve(w, r, inner) }
	}
	if takes(operation, ifMatchHeader) || answersTag(operation) {
		inner := next
		next = func(w http.ResponseWriter, r *http.Request) { inner(w, withConditional(w, r)) }
	}
	return next
}

// answersTag reports whether the answer to an operation has an entity tag.
func answersTag(operation *openapi3.Operation) bool {
	answer := operation.Responses.Status(http.StatusOK)
	return answer != nil && answer.Value.Headers["ETag"] != nil
}

// takes reports whether an operation has a parameter in a header.
func takes(operation *openapi3.Operation, header string) bool {
	return slices.ContainsFunc(operation.Parameters, func(p *openapi3.ParameterRef) bool {
		return p.Value.In == openapi3.ParameterInHeader && p.Value.Name == header
	})
}
