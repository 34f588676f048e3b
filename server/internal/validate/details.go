package validate

import (
	"errors"
	"regexp"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// unsupported is how kin-openapi names a property outside the schema: in its
// reason only, while its path is the object's.
var unsupported = regexp.MustCompile(`^property "(.*)" is unsupported$`)

// schemaDetails lists what a validation found, each under its field's path below
// base. Only the reasons are taken: the errors' full text quotes the schema and
// the value, and a value may be a password.
func schemaDetails(base string, err error) []types.ErrorDetail {
	// An allOf holds the errors of its parts as a MultiError too: they say more
	// than it does, and their paths are whole.
	var many openapi3.MultiError
	if errors.As(err, &many) {
		var details []types.ErrorDetail
		for _, one := range many {
			details = append(details, schemaDetails(base, one)...)
		}
		return details
	}
	var one *openapi3.SchemaError
	if !errors.As(err, &one) {
		return nil
	}
	field := base
	for _, name := range one.JSONPointer() {
		field = join(field, name)
	}
	if match := unsupported.FindStringSubmatch(one.Reason); match != nil {
		return []types.ErrorDetail{problem.Field(join(field, match[1]), "is not a field of this operation")}
	}
	return []types.ErrorDetail{problem.Field(field, reason(one))}
}

func reason(err *openapi3.SchemaError) string {
	switch {
	case err.SchemaField == "required":
		return "is required"
	case err.SchemaField == "format" && errors.Unwrap(err.Origin) != nil:
		return errors.Unwrap(err.Origin).Error()
	case err.SchemaField == "nullable":
		return "must not be null"
	default:
		return strings.ToLower(err.Reason[:1]) + err.Reason[1:]
	}
}
