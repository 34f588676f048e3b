package validate

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// checkParameters checks path and query against the contract. It rejects unknown
// parameters, because a misspelled parameter that is ignored appears to work, unless the
// operation is one whose requests others than its clients make up.
func (op *operation) checkParameters(r *http.Request) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return problem.Invalid(problem.Field("query", "is not well-formed"))
	}
	details := op.checkQuery(query)
	input := &openapi3filter.RequestValidationInput{
		Request:     r,
		PathParams:  map[string]string{},
		QueryParams: query,
		Options: &openapi3filter.Options{
			SkipSettingDefaults:     true,
			SchemaValidationOptions: []openapi3.SchemaValidationOption{formats},
		},
	}
	for _, parameter := range op.parameters {
		if parameter.In == openapi3.ParameterInPath {
			value := r.PathValue(parameter.Name)
			input.PathParams[parameter.Name] = value
			if !clean(value) {
				details = append(details, problem.Field(parameter.Name, unclean))
				continue
			}
		}
		details = append(details, checkParameter(r.Context(), input, parameter)...)
	}
	if len(details) > 0 {
		return problem.Invalid(details...)
	}
	return nil
}

func (op *operation) checkQuery(query url.Values) []types.ErrorDetail {
	var details []types.ErrorDetail
	for name, values := range query {
		switch {
		case !clean(name):
			details = append(details, problem.Field("query", unclean))
		case !op.takes(name) && op.open:
		case !op.takes(name):
			details = append(details, problem.Field(name, "is not a parameter of this operation"))
		case len(values) > 1 && !op.repeats(name):
			details = append(details, problem.Field(name, "is given more than once"))
		case slices.ContainsFunc(values, func(value string) bool { return !clean(value) }):
			details = append(details, problem.Field(name, unclean))
		}
	}
	slices.SortFunc(details, func(a, b types.ErrorDetail) int { return strings.Compare(a.Field, b.Field) })
	return details
}

func (op *operation) takes(name string) bool {
	return slices.ContainsFunc(op.parameters, func(p *openapi3.Parameter) bool {
		return p.In == openapi3.ParameterInQuery && p.Name == name
	})
}

// repeats reports whether a parameter of the query is a list whose items each have its name.
func (op *operation) repeats(name string) bool {
	return slices.ContainsFunc(op.parameters, func(p *openapi3.Parameter) bool {
		return p.In == openapi3.ParameterInQuery && p.Name == name && p.Schema.Value.Type.Is(openapi3.TypeArray) && (p.Explode == nil || *p.Explode)
	})
}

func checkParameter(ctx context.Context, input *openapi3filter.RequestValidationInput, parameter *openapi3.Parameter) []types.ErrorDetail {
	err := openapi3filter.ValidateParameter(ctx, input, parameter)
	if err == nil {
		return nil
	}
	if details := schemaDetails(parameter.Name, err); len(details) > 0 {
		return details
	}
	switch {
	case errors.Is(err, openapi3filter.ErrInvalidRequired):
		return []types.ErrorDetail{problem.Field(parameter.Name, "is required")}
	case errors.Is(err, openapi3filter.ErrInvalidEmptyValue):
		return []types.ErrorDetail{problem.Field(parameter.Name, "must not be empty")}
	default:
		// Probably not a number. The decoder's message is not suitable for callers.
		return []types.ErrorDetail{problem.Field(parameter.Name, "has the wrong type")}
	}
}

const unclean = "must be UTF-8 without NUL"

// clean reports whether Postgres can store s, which it cannot if s contains NUL or
// invalid UTF-8.
func clean(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsRune(s, 0)
}
