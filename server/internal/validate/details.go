package validate

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// unsupported matches the reason that kin-openapi gives for a property outside the
// schema. The error's path is that of the object; only the reason names the property.
var unsupported = regexp.MustCompile(`^property "(.*)" is unsupported$`)

// schemaDetails converts a validation error to details whose fields are paths below
// base. It uses only the reasons: the full text of the errors quotes the value, which
// may be a password.
func schemaDetails(base string, err error) []types.ErrorDetail {
	// The error of an allOf contains a MultiError with the errors of its parts, which
	// are more precise and have complete paths.
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

// patternMessage is the extension of the contract that says in words what a pattern
// requires; the pattern itself helps nobody.
const patternMessage = "x-pattern-message"

func reason(err *openapi3.SchemaError) string {
	switch {
	case err.SchemaField == "required":
		return "is required"
	case err.SchemaField == "format" && errors.Unwrap(err.Origin) != nil:
		return errors.Unwrap(err.Origin).Error()
	case err.SchemaField == "nullable":
		return "must not be null"
	case err.SchemaField == "pattern" && err.Schema.Extensions[patternMessage] != nil:
		return fmt.Sprint(err.Schema.Extensions[patternMessage])
	case err.SchemaField == "not" && err.Schema.Not.Value.Extensions[patternMessage] != nil:
		return fmt.Sprint(err.Schema.Not.Value.Extensions[patternMessage])
	case err.Reason == "": // As of a `not`.
		return "is not valid"
	default:
		return strings.ToLower(err.Reason[:1]) + err.Reason[1:]
	}
}
