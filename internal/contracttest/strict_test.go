package contracttest

import (
	"strconv"
	"testing"

	"github.com/eclitunnel/eclitunnel"
)

// schemas calls visit with every schema of the contract's components, and with its
// JSON pointer.
func (s *strict) schemas(visit func(pointer string, schema map[string]any)) {
	var walk func(pointer string, node any)
	walk = func(pointer string, node any) {
		schema, ok := node.(map[string]any)
		if !ok {
			return
		}
		visit(pointer, schema)
		properties, _ := schema["properties"].(map[string]any)
		for name, property := range properties {
			walk(pointer+"/properties/"+escape(name), property)
		}
		for _, keyword := range []string{"items", "not", "additionalProperties"} {
			walk(pointer+"/"+keyword, schema[keyword])
		}
		for _, keyword := range []string{"allOf", "anyOf", "oneOf"} {
			members, _ := schema[keyword].([]any)
			for i, member := range members {
				walk(pointer+"/"+keyword+"/"+strconv.Itoa(i), member)
			}
		}
	}
	components, _ := s.at("/components/schemas")
	for name, schema := range components.(map[string]any) {
		walk("/components/schemas/"+escape(name), schema)
	}
}

// objects calls visit with every object of the contract but those in examples, and with its
// JSON pointer.
func (s *strict) objects(visit func(pointer string, node map[string]any)) {
	var walk func(pointer string, node any)
	walk = func(pointer string, node any) {
		switch node := node.(type) {
		case []any:
			for i, child := range node {
				walk(pointer+"/"+strconv.Itoa(i), child)
			}
		case map[string]any:
			visit(pointer, node)
			for key, child := range node {
				if key != "example" && key != "examples" {
					walk(pointer+"/"+escape(key), child)
				}
			}
		}
	}
	walk("", s.document)
}

// TestContract_NullableAcceptsNull holds every schema of the contract: where
// `nullable` stands, a strict validator accepts null.
func TestContract_NullableAcceptsNull(t *testing.T) {
	s, err := newStrict(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	s.schemas(func(pointer string, object map[string]any) {
		if object["nullable"] != true {
			return
		}
		found++
		schema, err := s.compiler.Compile(contractURL + "#" + pointer)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(nil); err != nil {
			t.Errorf("%s is nullable, and null is rejected: %v", pointer, err)
		}
	})
	if found < 10 {
		t.Errorf("found %d nullable schemas, want at least 10", found)
	}
}

// TestContract_BodiesHaveNoDefaults guards updates: a client whose validator fills in
// defaults would reset every field that its caller leaves out.
func TestContract_BodiesHaveNoDefaults(t *testing.T) {
	s, err := newStrict(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	s.schemas(func(pointer string, schema map[string]any) {
		if value, ok := schema["default"]; ok {
			t.Errorf("%s has the default %v; state it in the description, and in x-default if Go needs it", pointer, value)
		}
	})
}

func TestStrict_NullableWidensOnlyTheTypeBesideIt(t *testing.T) {
	const contract = `
components:
  schemas:
    Inner: {type: object, properties: {a: {type: string, nullable: true}}}
    Open: {type: object, nullable: true}
    Beside: {type: object, nullable: true, allOf: [{$ref: '#/components/schemas/Inner'}]}
    Both: {type: object, nullable: true, allOf: [{$ref: '#/components/schemas/Open'}]}
    Enum: {type: string, nullable: true, enum: [a, b]}
    EnumNull: {type: string, nullable: true, enum: [a, null]}
    Sibling: {nullable: true, $ref: '#/components/schemas/Inner'}
`
	for name, accepts := range map[string]bool{
		"Inner": false, "Open": true, "Beside": false, "Both": true, "Enum": false, "EnumNull": true, "Sibling": false,
		"Inner/properties/a": true,
	} {
		s, err := newStrict([]byte(contract))
		if err != nil {
			t.Fatal(err)
		}
		schema, err := s.compiler.Compile(contractURL + "#/components/schemas/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(nil); (err == nil) != accepts {
			t.Errorf("%s: validating null gives %v, want accepted=%v", name, err, accepts)
		}
	}
}
