package contracttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

// strict is the contract as JSON Schema, for a second opinion on every response:
// kin-openapi accepts null wherever `nullable` stands, other validators only where
// every schema that applies to the value allows it (OpenAPI Initiative's proposal
// 2019-10-31, "Clarify Nullable").
type strict struct {
	document any
	compiler *jsonschema.Compiler
}

// contractURL names the document in the compiler. It is never fetched.
const contractURL = "contract.json"

func newStrict(text []byte) (*strict, error) {
	var parsed any
	if err := yaml.Unmarshal(text, &parsed); err != nil {
		return nil, fmt.Errorf("parse contract: %w", err)
	}
	encoded, err := json.Marshal(parsed)
	if err != nil {
		return nil, fmt.Errorf("encode contract: %w", err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(encoded))
	if err != nil {
		return nil, fmt.Errorf("parse contract: %w", err)
	}
	toJSONSchema(document)
	compiler := jsonschema.NewCompiler()
	// OpenAPI 3.0 extends JSON Schema Wright-00, whose keywords are those of draft 4.
	compiler.DefaultDraft(jsonschema.Draft4)
	if err := compiler.AddResource(contractURL, document); err != nil {
		return nil, fmt.Errorf("add contract: %w", err)
	}
	return &strict{document: document, compiler: compiler}, nil
}

// toJSONSchema replaces `nullable`, the keyword of OpenAPI that JSON Schema does not
// have. It widens the `type` beside it and nothing else: neither an `enum` nor the
// members of an `allOf`.
func toJSONSchema(node any) {
	switch node := node.(type) {
	case map[string]any:
		if name, ok := node["type"].(string); ok && node["nullable"] == true {
			node["type"] = []any{name, "null"}
		}
		for _, child := range node {
			toJSONSchema(child)
		}
	case []any:
		for _, child := range node {
			toJSONSchema(child)
		}
	}
}

// check checks the body of a response to an operation.
func (s *strict) check(path, method string, status int, body []byte) error {
	pointer, ok := s.responseSchema(path, method, status)
	if !ok {
		return nil // kin-openapi reports what has no description.
	}
	schema, err := s.compiler.Compile(contractURL + "#" + pointer)
	if err != nil {
		return fmt.Errorf("compile %s: %w", pointer, err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("parse body: %w", err)
	}
	return schema.Validate(value)
}

// responseSchema returns the JSON pointer of the schema of a response in JSON.
func (s *strict) responseSchema(path, method string, status int) (string, bool) {
	responses := "/paths/" + escape(path) + "/" + strings.ToLower(method) + "/responses/"
	for _, key := range []string{fmt.Sprint(status), "default"} {
		pointer := responses + key
		response, ok := s.at(pointer)
		if !ok {
			continue
		}
		if reference, ok := response.(map[string]any)["$ref"].(string); ok {
			pointer = strings.TrimPrefix(reference, "#")
		}
		pointer += "/content/" + escape("application/json") + "/schema"
		_, ok = s.at(pointer)
		return pointer, ok
	}
	return "", false
}

// at returns the node of the document at a JSON pointer.
func (s *strict) at(pointer string) (any, bool) {
	node := s.document
	for _, token := range strings.Split(pointer, "/")[1:] {
		object, ok := node.(map[string]any)
		if !ok {
			return nil, false
		}
		if node, ok = object[unescape(token)]; !ok {
			return nil, false
		}
	}
	return node, true
}

// RFC 6901 section 3.
func escape(token string) string {
	return strings.ReplaceAll(strings.ReplaceAll(token, "~", "~0"), "/", "~1")
}

func unescape(token string) string {
	return strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
}

// hasBody reports whether a response to the method has a body to check.
func hasBody(method string, status int) bool {
	return method != http.MethodHead && status != http.StatusNoContent
}
