package contracttest

import (
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel"
)

// TestContract_NullableAcceptsNull holds every schema of the contract: where
// `nullable` stands, a strict validator accepts null.
func TestContract_NullableAcceptsNull(t *testing.T) {
	s, err := newStrict(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	var walk func(pointer string, node any)
	walk = func(pointer string, node any) {
		object, ok := node.(map[string]any)
		if !ok {
			return
		}
		if object["nullable"] == true {
			found++
			schema, err := s.compiler.Compile(contractURL + "#" + pointer)
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(nil); err != nil {
				t.Errorf("%s is nullable, and null is rejected: %v", pointer, err)
			}
		}
		for name, child := range object {
			walk(pointer+"/"+escape(name), child)
		}
	}
	walk("", s.document)
	if found < 10 {
		t.Errorf("found %d nullable schemas, want at least 10", found)
	}
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

func TestStrict_ReadsPatternsOfECMAScript(t *testing.T) {
	pattern, err := compilePattern(`^[^\u202a-\u202e]*$`)
	if err != nil {
		t.Fatal(err)
	}
	if pattern.MatchString("a\u202eb") || !pattern.MatchString(strings.Repeat("ä", 3)) {
		t.Error("the pattern does not match the code points that it names")
	}
}
