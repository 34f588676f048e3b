package handler

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// undecodable responds to a request that matches the contract but that the generated
// decoders reject: JSON Schema accepts 1.0 and 1e3 as integers, Go does not.
func undecodable(w http.ResponseWriter, r *http.Request, err error) {
	problem.Write(w, r, problem.Invalid(undecodableField(err)))
}

func undecodableField(err error) types.ErrorDetail {
	var parameter *server.InvalidParamFormatError
	if errors.As(err, &parameter) {
		return problem.Field(parameter.ParamName, "has the wrong type")
	}
	var member *json.UnmarshalTypeError
	if errors.As(err, &member) && member.Field != "" {
		return problem.Field(member.Field, "must be written as a plain number in range")
	}
	return problem.Field("body", "cannot be decoded")
}
