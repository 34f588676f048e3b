package tunnel_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
)

// TestEvent_ValueIsThatOfTheContract decodes the contract's example of each type of events.
func TestEvent_ValueIsThatOfTheContract(t *testing.T) {
	var contract struct {
		Components struct {
			Schemas map[string]struct {
				Discriminator struct{ Mapping map[string]string }
				Example       any
			}
		}
	}
	if err := yaml.Unmarshal(eclitunnel.OpenAPI, &contract); err != nil {
		t.Fatal(err)
	}
	schemas := contract.Components.Schemas
	mapping := schemas["LiveEvent"].Discriminator.Mapping
	for _, kind := range slices.Sorted(maps.Keys(mapping)) {
		schema := mapping[kind][len("#/components/schemas/"):]
		example, _ := schemas[schema].Example.(map[string]any)
		if example = maps.Clone(example); example == nil {
			t.Errorf("%s has no example", schema)
			continue
		}
		example["type"] = kind
		data, err := json.Marshal(example)
		if err != nil {
			t.Fatal(err)
		}
		value, err := tunnel.Event{Type: kind, Data: data}.Value()
		if err != nil || value == nil || reflect.TypeOf(value).Name() != schema {
			t.Errorf("%s is a %T, want a %s; %v", kind, value, schema, err)
			continue
		}
		if again, err := json.Marshal(value); err != nil || !sameJSON(t, again, data) {
			t.Errorf("%s lost something: %s, want %s; %v", kind, again, data, err)
		}
	}
	if len(mapping) < 11 {
		t.Errorf("the contract has %d types of events", len(mapping))
	}
	if value, err := (tunnel.Event{Type: "of.a.later.panel", Data: []byte("1")}).Value(); value != nil || err != nil {
		t.Errorf("a type of a later panel is %v, %v", value, err)
	}
	if value, err := (tunnel.Event{Type: "usage", Data: []byte("1")}).Value(); err == nil || value != nil {
		t.Errorf("what is no event is %v", value)
	}
}

// sameJSON reports whether every field of want has the same value in got.
func sameJSON(t *testing.T, got, want []byte) bool {
	t.Helper()
	var g, w map[string]any
	if json.Unmarshal(got, &g) != nil || json.Unmarshal(want, &w) != nil {
		return false
	}
	for name := range w {
		if !reflect.DeepEqual(g[name], w[name]) {
			return false
		}
	}
	return true
}
