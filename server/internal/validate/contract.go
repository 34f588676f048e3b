package validate

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/getkin/kin-openapi/openapi3"
)

// Load parses and validates an OpenAPI document.
func Load(text []byte) (*openapi3.T, error) {
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, fmt.Errorf("parse contract: %w", err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, fmt.Errorf("check contract: %w", err)
	}
	return doc, nil
}

// Check checks a value against a schema of the contract as if it were a request's body,
// for what the panel does without a request. The error is a problem.Error that names the
// invalid fields.
func Check(contract []byte, schema string, value any) error {
	doc, err := Load(contract)
	if err != nil {
		return err
	}
	ref := doc.Components.Schemas[schema]
	if ref == nil {
		return fmt.Errorf("the contract has no schema %s", schema)
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", schema, err)
	}
	return checkJSON(ref.Value, text)
}

// JSON returns the contract as JSON, as /openapi.json serves it.
func (m *Mux) JSON() ([]byte, error) {
	text, err := m.doc.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encode contract: %w", err)
	}
	return text, nil
}
