// Package rules decides which rules are in effect for an allocation: its own, or else
// those of the organisation that owns its device, or else the panel's defaults, and at
// most the panel's ceiling.
package rules

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// BuiltIn returns the defaults where an admin has set none. A host with 30 players does
// not come near any of them, and a script with 10,000 connections does; docs/rules.md
// says how they were chosen. Bandwidth has no default: the panel does not know the line.
func BuiltIn() types.AllocationRules {
	return types.AllocationRules{
		MaxPlayers:                    new(1000),
		MaxPlayersPerSource:           new(100),
		MaxFlowsPerSource:             new(256),
		ConnectionsPerSecond:          new(200),
		ConnectionsPerSecondPerSource: new(20),
		DatagramsPerSecondPerSource:   new(20_000),
	}
}

// unbounded are the largest values of the contract, with which a rule bounds nothing.
var unbounded = types.AllocationRules{
	MaxPlayers:                    new(types.MaxAllocationRulesMaxPlayers),
	MaxPlayersPerSource:           new(types.MaxAllocationRulesMaxPlayersPerSource),
	MaxFlowsPerSource:             new(types.MaxAllocationRulesMaxFlowsPerSource),
	ConnectionsPerSecond:          new(types.MaxAllocationRulesConnectionsPerSecond),
	ConnectionsPerSecondPerSource: new(types.MaxAllocationRulesConnectionsPerSecondPerSource),
	DatagramsPerSecondPerSource:   new(int(types.MaxAllocationRulesDatagramsPerSecondPerSource)),
	DownloadBitsPerSecond:         new(int64(types.MaxBitsPerSecond)),
	UploadBitsPerSecond:           new(int64(types.MaxBitsPerSecond)),
	PlayerDownloadBitsPerSecond:   new(int64(types.MaxBitsPerSecond)),
	PlayerUploadBitsPerSecond:     new(int64(types.MaxBitsPerSecond)),
}

// Effective returns the rules in effect. A field that is nil sets no bound; one of
// ceiling that is not nil bounds also what has no bound otherwise. Only own has lists.
func Effective(own, organisation, defaults, ceiling types.AllocationRules) types.AllocationRules {
	builtIn := BuiltIn()
	layers := []*types.AllocationRules{&own, &organisation, &defaults, &builtIn}
	return types.AllocationRules{
		Allow: own.Allow,
		Deny:  own.Deny,

		MaxPlayers:                    limit(layers, &ceiling, func(r *types.AllocationRules) *int { return r.MaxPlayers }),
		MaxPlayersPerSource:           limit(layers, &ceiling, func(r *types.AllocationRules) *int { return r.MaxPlayersPerSource }),
		MaxFlowsPerSource:             limit(layers, &ceiling, func(r *types.AllocationRules) *int { return r.MaxFlowsPerSource }),
		ConnectionsPerSecond:          limit(layers, &ceiling, func(r *types.AllocationRules) *int { return r.ConnectionsPerSecond }),
		ConnectionsPerSecondPerSource: limit(layers, &ceiling, func(r *types.AllocationRules) *int { return r.ConnectionsPerSecondPerSource }),
		DatagramsPerSecondPerSource:   limit(layers, &ceiling, func(r *types.AllocationRules) *int { return r.DatagramsPerSecondPerSource }),
		DownloadBitsPerSecond:         limit(layers, &ceiling, func(r *types.AllocationRules) *int64 { return r.DownloadBitsPerSecond }),
		UploadBitsPerSecond:           limit(layers, &ceiling, func(r *types.AllocationRules) *int64 { return r.UploadBitsPerSecond }),
		PlayerDownloadBitsPerSecond:   limit(layers, &ceiling, func(r *types.AllocationRules) *int64 { return r.PlayerDownloadBitsPerSecond }),
		PlayerUploadBitsPerSecond:     limit(layers, &ceiling, func(r *types.AllocationRules) *int64 { return r.PlayerUploadBitsPerSecond }),
	}
}

// limit returns the first value of a field that is set, and at most that of the ceiling.
func limit[N int | int64](layers []*types.AllocationRules, ceiling *types.AllocationRules, field func(*types.AllocationRules) *N) *N {
	most := field(ceiling)
	for _, layer := range layers {
		if value := field(layer); value != nil {
			if most != nil && *most < *value {
				return most
			}
			return value
		}
	}
	return most
}

// Layers are the rules that have been set for an allocation. They can be compared.
type Layers struct {
	Own, Organisation, Defaults, Ceiling db.Rules
}

// Effective returns the rules in effect. It fails if the database has rules that this
// version cannot read.
func (l Layers) Effective() (types.AllocationRules, error) {
	var parsed [4]types.AllocationRules
	for i, text := range []db.Rules{l.Own, l.Organisation, l.Defaults, l.Ceiling} {
		if err := read(text, &parsed[i]); err != nil {
			return types.AllocationRules{}, err
		}
	}
	return Effective(parsed[0], parsed[1], parsed[2], parsed[3]), nil
}

// Set returns the names of the rules that somebody has set to bound the allocation, in
// order. It leaves out those that are built in, and those that somebody has lifted by
// the largest value: they ask nothing of a tunnel server.
func (l Layers) Set() ([]types.RuleName, error) {
	largest, err := fieldsOf(unbounded)
	if err != nil {
		return nil, err
	}
	names := map[types.RuleName]bool{}
	// Of the first three the nearest counts, which is read last.
	for _, layers := range [][]db.Rules{{l.Defaults, l.Organisation, l.Own}, {l.Ceiling}} {
		values := map[types.RuleName]json.RawMessage{}
		for _, text := range layers {
			if err := read(text, &values); err != nil {
				return nil, err
			}
		}
		for name, value := range values {
			if !bytes.Equal(value, largest[name]) {
				names[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names)), nil
}

func read(rules db.Rules, into any) error {
	if rules == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(rules), into); err != nil {
		return fmt.Errorf("read rules: %w", err)
	}
	return nil
}

// fieldsOf returns the values of the rules that are set, by name.
func fieldsOf(rules types.AllocationRules) (map[types.RuleName]json.RawMessage, error) {
	text, err := json.Marshal(rules)
	if err != nil {
		return nil, err
	}
	fields := map[types.RuleName]json.RawMessage{}
	return fields, json.Unmarshal(text, &fields)
}

// Keep returns the rules with the given names, as a tunnel server that keeps no others
// gets them: nil if none is left.
func Keep(rules types.AllocationRules, names []types.RuleName) (*types.AllocationRules, error) {
	fields, err := fieldsOf(rules)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(fields, func(name types.RuleName, _ json.RawMessage) bool { return !slices.Contains(names, name) })
	if len(fields) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	kept := new(types.AllocationRules)
	return kept, json.Unmarshal(text, kept)
}
