package rules_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/rules"
)

// TestLayers_WhatIsInEffect names the layers by who has set them. Fields that a case does not
// name have their built-in defaults.
func TestLayers_WhatIsInEffect(t *testing.T) {
	for name, c := range map[string]struct {
		layers rules.Layers
		want   string // Over the built-in defaults; null: no bound.
	}{
		"nobody":                        {rules.Layers{}, `{}`},
		"the site":                      {rules.Layers{Defaults: `{"maxPlayers":7}`}, `{"maxPlayers":7}`},
		"the site more than built in":   {rules.Layers{Defaults: `{"maxPlayers":100000}`}, `{"maxPlayers":100000}`},
		"the organisation":              {rules.Layers{Organisation: `{"maxFlowsPerSource":8}`, Defaults: `{"maxFlowsPerSource":7}`}, `{"maxFlowsPerSource":8}`},
		"the allocation":                {rules.Layers{Own: `{"maxPlayers":9}`, Organisation: `{"maxPlayers":8}`, Defaults: `{"maxPlayers":7}`}, `{"maxPlayers":9}`},
		"each another field":            {rules.Layers{Own: `{"maxPlayers":9}`, Organisation: `{"connectionsPerSecond":8}`, Defaults: `{"uploadBitsPerSecond":8000}`}, `{"maxPlayers":9,"connectionsPerSecond":8,"uploadBitsPerSecond":8000}`},
		"a ceiling below the own":       {rules.Layers{Own: `{"maxPlayers":9}`, Ceiling: `{"maxPlayers":5}`}, `{"maxPlayers":5}`},
		"a ceiling above the own":       {rules.Layers{Own: `{"maxPlayers":9}`, Ceiling: `{"maxPlayers":10}`}, `{"maxPlayers":9}`},
		"a ceiling below the site":      {rules.Layers{Defaults: `{"datagramsPerSecondPerSource":90}`, Ceiling: `{"datagramsPerSecondPerSource":80}`}, `{"datagramsPerSecondPerSource":80}`},
		"a ceiling below the built-in":  {rules.Layers{Ceiling: `{"connectionsPerSecondPerSource":3}`}, `{"connectionsPerSecondPerSource":3}`},
		"a ceiling above the built-in":  {rules.Layers{Ceiling: `{"connectionsPerSecondPerSource":500}`}, `{}`},
		"a ceiling of what is absent":   {rules.Layers{Ceiling: `{"downloadBitsPerSecond":8000,"playerUploadBitsPerSecond":9000}`}, `{"downloadBitsPerSecond":8000,"playerUploadBitsPerSecond":9000}`},
		"lists, which nothing bounds":   {rules.Layers{Own: `{"allow":["192.0.2.0/24"],"deny":["192.0.2.7"]}`, Ceiling: `{"maxPlayers":5}`}, `{"allow":["192.0.2.0/24"],"deny":["192.0.2.7"],"maxPlayers":5}`},
		"a bandwidth beyond 32 bits":    {rules.Layers{Own: `{"playerDownloadBitsPerSecond":100000000000}`}, `{"playerDownloadBitsPerSecond":100000000000}`},
		"a field of a later version":    {rules.Layers{Own: `{"maxPlayers":9,"later":1}`}, `{"maxPlayers":9}`},
		"the largest, to lift a bound":  {rules.Layers{Own: `{"maxPlayersPerSource":100000}`}, `{"maxPlayersPerSource":100000}`},
		"a ceiling equal to the bound":  {rules.Layers{Own: `{"maxPlayersPerSource":4}`, Ceiling: `{"maxPlayersPerSource":4}`}, `{"maxPlayersPerSource":4}`},
		"an organisation under ceiling": {rules.Layers{Organisation: `{"maxPlayersPerSource":4}`, Ceiling: `{"maxPlayersPerSource":2}`}, `{"maxPlayersPerSource":2}`},
	} {
		want := rules.BuiltIn()
		if err := json.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatal(err)
		}
		got, err := c.layers.Effective()
		if err != nil || text(t, got) != text(t, want) {
			t.Errorf("%s: %s, %v; want %s", name, text(t, got), err, text(t, want))
		}
	}
}

func text(t *testing.T, value any) string {
	t.Helper()
	out, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestLayers_SetNamesWhatSomebodySetAndNotWhatIsBuiltIn(t *testing.T) {
	got, err := rules.Layers{
		Own: `{"deny":["192.0.2.7"],"maxPlayers":1}`, Organisation: `{"maxPlayers":2}`,
		Defaults: `{"maxFlowsPerSource":3}`, Ceiling: `{"uploadBitsPerSecond":8000}`,
	}.Set()
	want := []types.RuleName{types.RuleDeny, types.RuleMaxFlowsPerSource, types.RuleMaxPlayers, types.RuleUploadBitsPerSecond}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	lifted := rules.Layers{
		Own: `{"maxPlayers": 100000, "maxPlayersPerSource": 100000, "datagramsPerSecondPerSource": 1000000}`, Organisation: `{"maxPlayers": 2}`,
		Defaults: `{"maxFlowsPerSource": 100000, "uploadBitsPerSecond": 100000000000}`, Ceiling: `{"maxPlayersPerSource": 5, "connectionsPerSecond": 100000}`,
	}
	if got, err := lifted.Set(); err != nil || !slices.Equal(got, []types.RuleName{types.RuleMaxPlayersPerSource}) {
		t.Errorf("of those lifted: %v, %v", got, err)
	}
	if got, err := (rules.Layers{}).Set(); err != nil || len(got) != 0 {
		t.Errorf("without any: %v, %v", got, err)
	}
}

func TestLayers_RefuseWhatTheyCannotRead(t *testing.T) {
	for _, text := range []db.Rules{`{"maxPlayers":"many"}`, `[]`, `{`} {
		if got, err := (rules.Layers{Organisation: text}).Effective(); err == nil {
			t.Errorf("%s is %+v", text, got)
		}
	}
}

func TestKeep_LeavesTheNamedRules(t *testing.T) {
	all := rules.BuiltIn()
	all.Deny = &[]string{"192.0.2.7"}
	for want, names := range map[string][]types.RuleName{
		`null`: nil,
		`{"deny":["192.0.2.7"],"maxPlayers":1000}`: {types.RuleMaxPlayers, types.RuleDeny, types.RuleAllow},
	} {
		if got, err := rules.Keep(all, names); err != nil || text(t, got) != want {
			t.Errorf("%v leaves %s, %v", names, text(t, got), err)
		}
	}
}
