package contracttest

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/eclitunnel/eclitunnel"
)

// document returns the contract as kin-openapi reads it, which has validated its examples.
func document(t *testing.T) *openapi3.T {
	t.Helper()
	contract, err := load()
	if err != nil {
		t.Fatal(err)
	}
	return contract.doc
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

// examples returns the examples of a body, in all its media types.
func examples(content openapi3.Content) []any {
	var values []any
	for _, mediaType := range slices.Sorted(maps.Keys(content)) {
		media := content[mediaType]
		if media.Example != nil {
			values = append(values, media.Example)
		}
		for _, name := range slices.Sorted(maps.Keys(media.Examples)) {
			values = append(values, media.Examples[name].Value.Value)
		}
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

// TestContract_OperationsHaveDescriptionsAndExamples holds what a reader of an API
// explorer sees of an operation.
func TestContract_OperationsHaveDescriptionsAndExamples(t *testing.T) {
	operations(t, func(op *openapi3.Operation, parameters openapi3.Parameters) {
		id := op.OperationID
		if op.Summary == "" || op.Description == "" {
			t.Errorf("%s has no summary or no description", id)
		}
		for _, ref := range parameters {
			p := ref.Value
			if p.Description == "" || p.Example == nil && p.Schema.Value.Example == nil {
				t.Errorf("%s: the parameter %s has no description or no example", id, p.Name)
			}
		}
		if body := op.RequestBody; body != nil {
			if schema := body.Value.Content.Get("application/json").Schema.Value; schema.Description == "" {
				t.Errorf("%s: the body has no description", id)
			}
			if len(examples(body.Value.Content)) == 0 {
				t.Errorf("%s: the body has no example", id)
			}
		}
		for status, ref := range op.Responses.Map() {
			r := ref.Value
			if r.Description == nil || *r.Description == "" {
				t.Errorf("%s: the response %s has no description", id, status)
			}
			stream := r.Content.Get(eventStream) // Its example is text.
			if len(r.Content) > 0 && len(examples(r.Content)) == 0 && (stream == nil || stream.Example == nil) {
				t.Errorf("%s: the response %s has no example", id, status)
			}
			for name, header := range r.Headers {
				if h := header.Value; h.Description == "" || h.Example == nil {
					t.Errorf("%s: the header %s of the response %s has no description or no example", id, name, status)
				}
			}
		}
	})
}

// TestContract_SchemasHaveDescriptions holds what generators write above each type and
// field, and the messages of the control channel, which no operation shows.
func TestContract_SchemasHaveDescriptions(t *testing.T) {
	s, err := newStrict(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	field := regexp.MustCompile(`^/components/schemas/\w+(/.*/properties/\w+|/properties/\w+)?$`)
	s.schemas(func(pointer string, schema map[string]any) {
		if _, ok := schema["$ref"]; ok || !field.MatchString(pointer) {
			return
		}
		if text, _ := schema["description"].(string); text == "" {
			t.Errorf("%s has no description", pointer)
		}
	})
	messages, _ := s.at("/components/schemas/ControlMessage/discriminator/mapping")
	for kind, reference := range messages.(map[string]any) {
		message, _ := s.at(strings.TrimPrefix(reference.(string), "#"))
		if message.(map[string]any)["example"] == nil {
			t.Errorf("the message %s has no example", kind)
		}
	}
}

// TestContract_ExamplesMatchTheirSchemas validates every example twice, because
// validators disagree on details: bodies and headers, parameters, schemas and fields.
func TestContract_ExamplesMatchTheirSchemas(t *testing.T) {
	document(t)
	s, err := newStrict(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	check := func(pointer string, value any) {
		found++
		schema, err := s.compiler.Compile(contractURL + "#" + pointer)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("the example of %s: %v", pointer, err)
		}
	}
	s.objects(func(pointer string, node map[string]any) {
		target := pointer // A schema has its own example.
		if _, ok := node["schema"]; ok {
			target += "/schema"
		}
		if example, ok := node["example"]; ok {
			check(target, example)
		}
		named, _ := node["examples"].(map[string]any)
		for _, example := range named {
			if reference, ok := example.(map[string]any)["$ref"].(string); ok {
				example, _ = s.at(strings.TrimPrefix(reference, "#"))
			}
			check(target, example.(map[string]any)["value"])
		}
	})
	if found < 100 {
		t.Errorf("found %d examples, want at least 100", found)
	}
}

// TestContract_PatternsAreInWords: a caller whose value does not match is told more than a regular expression.
func TestContract_PatternsAreInWords(t *testing.T) {
	s, err := newStrict(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	s.objects(func(pointer string, node map[string]any) {
		if _, ok := node["pattern"].(string); ok {
			found++
			if words, _ := node["x-pattern-message"].(string); words == "" {
				t.Errorf("%s has a pattern and no x-pattern-message", pointer)
			}
		}
	})
	if found < 10 {
		t.Errorf("found %d patterns, want at least 10", found)
	}
}

// TestContract_AlternativeParametersExist: a parameter that is required unless another one is given.
func TestContract_AlternativeParametersExist(t *testing.T) {
	found := 0
	operations(t, func(op *openapi3.Operation, parameters openapi3.Parameters) {
		for _, ref := range parameters {
			other, ok := ref.Value.Extensions["x-required-unless"].(string)
			if !ok {
				continue
			}
			found++
			alternative := parameters.GetByInAndName(ref.Value.In, other)
			if ref.Value.Required || alternative == nil || alternative.Required || alternative.Extensions["x-required-unless"] != nil {
				t.Errorf("%s: the parameter %s does not stand for one that is optional by itself", op.OperationID, ref.Value.Name)
			}
		}
	})
	if found == 0 {
		t.Error("found no parameter with an alternative")
	}
}
