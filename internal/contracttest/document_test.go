package contracttest

import (
	"maps"
	"slices"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/eclitunnel/eclitunnel"
)

// document returns the contract as kin-openapi reads it.
func document(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// operations calls visit with every operation of the contract.
func operations(t *testing.T, visit func(op *openapi3.Operation, parameters openapi3.Parameters)) {
	t.Helper()
	for _, item := range document(t).Paths.Map() {
		for _, op := range item.Operations() {
			visit(op, slices.Concat(item.Parameters, op.Parameters))
		}
	}
}

// examples returns the examples of a body in JSON.
func examples(content openapi3.Content) []any {
	media := content.Get("application/json")
	if media == nil {
		return nil
	}
	var values []any
	if media.Example != nil {
		values = append(values, media.Example)
	}
	for _, name := range slices.Sorted(maps.Keys(media.Examples)) {
		values = append(values, media.Examples[name].Value.Value)
	}
	return values
}

// codes returns the error codes that a response lists.
func codes(response *openapi3.Response) []string {
	list, _ := response.Extensions["x-codes"].([]any)
	texts := make([]string, len(list))
	for i, code := range list {
		texts[i], _ = code.(string)
	}
	return texts
}
