package validate

import (
	"context"
	"net/http"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// schemes maps the contract's security schemes to the callers they stand for.
// The empty requirement, {}, lets anybody call.
var schemes = map[string]auth.Kind{
	"sessionCookie": auth.KindUser,
	"bearerAuth":    auth.KindUser,
	"deviceToken":   auth.KindDevice,
}

// operation is one operation of the contract with what a request to it is
// checked against.
type operation struct {
	mux        *Mux
	path       string
	spec       *openapi3.Operation
	parameters []*openapi3.Parameter
	body       *openapi3.Schema // nil where the operation takes none
	required   bool             // whether the body is
	// public operations ignore credentials altogether: a stale cookie must not
	// keep anybody from logging in.
	public  bool
	callers map[auth.Kind]bool
}

type recordKey struct{}

// Recording returns ctx with a slot for the id of the operation that serves a
// request, which is not known yet: what wraps a request, as a histogram does, can
// read it once the request is served. It stays empty where no operation does.
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

// check returns the request as its handler shall see it: with its Principal in
// the context and its body read.
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
		return auth.Principal{}, problem.Forbidden("A device token cannot be used here.")
	default:
		return auth.Principal{}, problem.Forbidden("Only a device can use this, with its device token.")
	}
}
