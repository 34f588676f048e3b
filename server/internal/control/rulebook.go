package control

import (
	"fmt"
	"slices"
	"strings"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/rules"
)

// withheld is an allocation that its tunnel server does not get.
type withheld struct {
	types.ServerAllocation
	refusal string // Why, for people.
}

// ruleBook knows the rules of the allocations of one tunnel server. Most have the same
// ones, which are worked out, and kept in memory, once.
type ruleBook struct {
	rows  db.ServerState
	keeps []types.RuleName
	known map[rules.Layers]sentRules
}

// sentRules are the rules that a tunnel server gets with an allocation, or why it does
// not get the allocation.
type sentRules struct {
	effective *types.AllocationRules
	refusal   string
}

func newRuleBook(rows db.ServerState, keeps []types.RuleName) *ruleBook {
	return &ruleBook{rows: rows, keeps: keeps, known: map[rules.Layers]sentRules{}}
}

func (b *ruleBook) of(a db.Allocation) sentRules {
	layers := rules.Layers{Own: a.Rules, Defaults: b.rows.Rules.Defaults, Ceiling: b.rows.Rules.Ceiling}
	if a.OrganisationID != nil {
		layers.Organisation = b.rows.OrganisationRules[*a.OrganisationID]
	}
	sent, ok := b.known[layers]
	if !ok {
		var err error
		if sent, err = b.send(layers); err != nil {
			sent = sentRules{refusal: "this version of the panel cannot read the rules of the allocation"}
		}
		b.known[layers] = sent
	}
	return sent
}

func (b *ruleBook) send(layers rules.Layers) (sentRules, error) {
	set, err := layers.Set()
	if err != nil {
		return sentRules{}, err
	}
	unkept := slices.DeleteFunc(set, func(name types.RuleName) bool { return slices.Contains(b.keeps, name) })
	if len(unkept) > 0 {
		return sentRules{refusal: refusal(unkept)}, nil
	}
	effective, err := layers.Effective()
	if err != nil {
		return sentRules{}, err
	}
	kept, err := rules.Keep(effective, b.keeps)
	return sentRules{effective: kept}, err
}

// refusal tells people which rules a tunnel server does not keep.
func refusal(unkept []types.RuleName) string {
	names := make([]string, len(unkept))
	for i, name := range unkept {
		names[i] = string(name)
	}
	noun := "rule"
	if len(names) > 1 {
		noun = "rules"
	}
	return fmt.Sprintf("the tunnel server does not keep the %s %s: update the tunnel server", noun, strings.Join(names, ", "))
}
