package validate

import (
	"cmp"
	"context"
	"net/http"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// operation is an operation of the contract, with what its requests are checked
// against.
type operation struct {
	mux        *Mux
	path       string
	spec       *openapi3.Operation
	parameters []*openapi3.Parameter
	body       *openapi3.Schema // nil if the operation has no body.
	required   bool             // The body is required.
	rule       auth.Rule        // Who may use it.
	scopes     auth.Scopes      // An API key needs one of them.
	open       bool             // Unknown query parameters are ignored.

	deprecated           deprecation
	deprecatedParameters map[*openapi3.Parameter]deprecation
}

// openExtension is the extension of the contract by which an operation ignores unknown
// query parameters.
const openExtension = "x-ignores-unknown-parameters"

type recordKey struct{}

// Served is the operation that serves a request: its id, and its path in the contract.
type Served struct{ ID, Path string }

// Recording returns a context with a slot that receives the operation that serves the
// request, so that a wrapper such as a histogram can read it afterwards.
// The slot stays zero if no operation serves the request.
func Recording(ctx context.Context) (context.Context, *Served) {
	slot := new(Served)
	return context.WithValue(ctx, recordKey{}, slot), slot
}

func (op *operation) record(ctx context.Context) {
	if slot, ok := ctx.Value(recordKey{}).(*Served); ok {
		*slot = Served{ID: op.spec.OperationID, Path: op.path}
	}
}

func newOperation(m *Mux, path string, item *openapi3.PathItem, spec *openapi3.Operation) *operation {
	rule, ok := auth.RuleOf(spec.OperationID, "")
	if !ok {
		panic("validate: nobody may use " + spec.OperationID + ", which the policy of package auth lacks")
	}
	op := &operation{
		mux: m, path: path, spec: spec, rule: rule, scopes: auth.ScopesOf(spec.OperationID, ""),
		open: spec.Extensions[openExtension] == true,
	}
	for _, ref := range item.Parameters {
		op.parameters = append(op.parameters, ref.Value)
	}
	for _, ref := range spec.Parameters {
		op.parameters = append(op.parameters, ref.Value)
	}
	if spec.RequestBody != nil {
		body := spec.RequestBody.Value
		op.body = body.Content.Get("application/json").Schema.Value
		op.required = body.Required
	}
	if err := op.readDeprecations(); err != nil {
		panic("validate: " + err.Error())
	}
	return op
}

// check checks a request and returns it for its handler, with the Principal in its
// context and its body read.
func (op *operation) check(w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	if err := op.mux.options.Admit(r, op.path); err != nil {
		return r, err
	}
	if !op.rule.Public() {
		principal, err := op.authenticate(r)
		if err != nil {
			return r, err
		}
		r = r.WithContext(auth.NewContext(r.Context(), principal))
	}
	if err := op.checkParameters(r); err != nil {
		return r, err
	}
	return r, op.checkBody(w, r)
}

func (op *operation) authenticate(r *http.Request) (auth.Principal, error) {
	principal, err := op.mux.options.Authenticator.Authenticate(r)
	if err != nil {
		return auth.Principal{}, err
	}
	refusal := cmp.Or(op.scopes.Refuse(principal), op.rule.Refuse(principal))
	if refusal != nil && principal.Kind() != auth.KindAnonymous {
		failed := op.mux.options.Refused(auth.NewContext(r.Context(), principal), op.spec.OperationID)
		refusal = cmp.Or(failed, refusal)
	}
	return principal, refusal
}
