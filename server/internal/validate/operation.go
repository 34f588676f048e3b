package validate

import (
	"context"
	"net/http"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// schemes maps the contract's security schemes to kinds of callers. The empty
// requirement, {}, allows anonymous callers.
var schemes = map[string]auth.Kind{
	"sessionCookie": auth.KindUser,
	"bearerAuth":    auth.KindUser,
	"deviceToken":   auth.KindDevice,
}

// operation is an operation of the contract, with what its requests are checked
// against.
type operation struct {
	mux        *Mux
	path       string
	spec       *openapi3.Operation
	parameters []*openapi3.Parameter
	body       *openapi3.Schema // nil if the operation has no body.
	required   bool             // The body is required.
	// public operations ignore credentials, so that a stale cookie does not prevent
	// a login.
	public  bool
	callers map[auth.Kind]bool
}

type recordKey struct{}

// Recording returns a context with a slot that receives the id of the operation that
// serves the request, so that a wrapper such as a histogram can read it afterwards.
// The slot stays empty if no operation serves the request.
func Recording(ctx context.Context) (context.Context, *string) {
	slot := new(string)
	return context.WithValue(ctx, recordKey{}, slot), slot
}

func (op *operation) record(ctx context.Context) {
	if slot, ok := ctx.Value(recordKey{}).(*string); ok {
		*slot = op.spec.OperationID
	}
}

func newOperation(m *Mux, path string, item *openapi3.PathItem, spec *openapi3.Operation) *operation {
	op := &operation{mux: m, path: path, spec: spec, callers: map[auth.Kind]bool{}}
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
	security := m.doc.Security
	if spec.Security != nil {
		security = *spec.Security
	}
	op.public = len(security) == 0
	for _, requirement := range security {
		if len(requirement) == 0 {
			op.callers[auth.KindAnonymous] = true
		}
		for scheme := range requirement {
			op.callers[schemes[scheme]] = true
		}
	}
	return op
}

// check checks a request and returns it for its handler, with the Principal in its
// context and its body read.
func (op *operation) check(w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	if err := op.mux.options.Admit(r, op.path); err != nil {
		return r, err
	}
	if !op.public {
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
	kind := principal.Kind()
	switch {
	case op.callers[kind]:
		return principal, nil
	case kind == auth.KindAnonymous:
		return auth.Principal{}, problem.Unauthorized("Log in first, or send a token.")
	case kind == auth.KindDevice:
		return auth.Principal{}, problem.Forbidden("This operation does not accept a device token.")
	default:
		return auth.Principal{}, problem.Forbidden("This operation needs a device token.")
	}
}
