package contracttest

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/eclitunnel/eclitunnel"
)

// TestContract_ExtensionsAreOfNoLanguage guards clients in other languages, whose
// generators read extensions such as x-enum-varnames too.
func TestContract_ExtensionsAreOfNoLanguage(t *testing.T) {
	known := []string{"x-codes", "x-default", "x-deprecated-since", "x-error-help", "x-ignores-unknown-parameters", "x-pattern-message", "x-required-unless", "x-sunset"}
	for _, match := range regexp.MustCompile(`\b(x-[\w-]+):`).FindAllStringSubmatch(string(eclitunnel.OpenAPI), -1) {
		if !slices.Contains(known, match[1]) {
			t.Errorf("the contract has %s; what is for Go alone belongs in gen/types/overlay.yaml", match[1])
		}
	}
}

// globals are the global names of JavaScript and the utility types of TypeScript that a
// generated type of the same name would shadow. scripts/verify compares with those of
// browsers too.
const globals = `Object Function Boolean Symbol Error AggregateError EvalError RangeError ReferenceError
	SyntaxError TypeError URIError Number BigInt Math Date String RegExp Array Map Set WeakMap WeakSet WeakRef
	FinalizationRegistry ArrayBuffer SharedArrayBuffer DataView Atomics JSON Iterator Promise Proxy Reflect Intl
	Generator Awaited Partial Required Readonly Record Pick Omit Exclude Extract NonNullable Parameters
	ReturnType InstanceType ThisType Uppercase Lowercase Capitalize Uncapitalize NoInfer`

func TestContract_NamesShadowNoGlobals(t *testing.T) {
	components := document(t).Components
	names := slices.Concat(slices.Collect(maps.Keys(components.Schemas)), slices.Collect(maps.Keys(components.Responses)))
	for _, name := range names {
		if slices.Contains(strings.Fields(globals), name) {
			t.Errorf("the component %s shadows a global of JavaScript or TypeScript", name)
		}
	}
}

// TestOverlay_NamesFitTheirValues guards the Go names of enum values, which oapi-codegen
// takes by position: each enum has as many names as values, and a name ends with its
// value.
func TestOverlay_NamesFitTheirValues(t *testing.T) {
	text, err := os.ReadFile("../../gen/types/overlay.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var overlay struct {
		Actions []struct {
			Target string
			Update struct {
				Names []string `yaml:"x-enum-varnames"`
			}
		}
	}
	if err := yaml.Unmarshal(text, &overlay); err != nil {
		t.Fatal(err)
	}
	names := map[string][]string{}
	for _, action := range overlay.Actions {
		names[strings.ReplaceAll(strings.TrimPrefix(action.Target, "$"), ".", "/")] = action.Update.Names
	}
	s, err := newStrict(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	plain := func(text string) string {
		return strings.ToLower(regexp.MustCompile(`\W|_`).ReplaceAllString(text, ""))
	}
	s.schemas(func(pointer string, schema map[string]any) {
		values, ok := schema["enum"].([]any)
		if !ok {
			return
		}
		if len(names[pointer]) != len(values) {
			t.Errorf("%s has %d values, and %d Go names in gen/types/overlay.yaml", pointer, len(values), len(names[pointer]))
			return
		}
		for i, value := range values {
			if name := names[pointer][i]; !strings.HasSuffix(plain(name), plain(value.(string))) {
				t.Errorf("%s: the Go name of %q is %s", pointer, value, name)
			}
		}
	})
}
