//go:build linux

package main

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/netaddr"
	"github.com/eclitunnel/eclitunnel/relay/publicport"
)

func TestLimitedOptions_SetEveryRuleButDeny(t *testing.T) {
	encoded, err := json.Marshal(limitedOptions())
	check(t, err)
	var set map[types.RuleName]any
	check(t, json.Unmarshal(encoded, &set))
	largest := func(rule types.RuleName) float64 {
		switch {
		case strings.HasSuffix(string(rule), "BitsPerSecond"):
			return types.MaxRuleLimitsDownloadBitsPerSecond
		case rule == types.RuleDatagramsPerSecondPerSource:
			return types.MaxRuleLimitsDatagramsPerSecondPerSource
		default:
			return types.MaxRuleLimitsMaxPlayers
		}
	}
	for _, rule := range publicport.KnownRules {
		value, ok := set[rule]
		if ok == (rule == types.RuleDeny) {
			t.Errorf("%s: set %t", rule, ok)
		}
		if n, number := value.(float64); number && n >= largest(rule) {
			t.Errorf("%s: %v lifts the rule", rule, n)
		}
	}
}

func TestAllowList_HasThePlayersAndAsManyEntriesAsAListMayHave(t *testing.T) {
	var prefixes []netip.Prefix
	for _, entry := range allowList() {
		p, err := netaddr.ParsePrefix(entry)
		check(t, err)
		if slices.Contains(prefixes, p) {
			t.Errorf("%s is there twice", entry)
		}
		prefixes = append(prefixes, p)
	}
	if len(prefixes) != 1000 {
		t.Errorf("there are %d entries", len(prefixes))
	}
	// See dialer of package traffic, and newCable.
	for _, player := range []string{"127.0.0.1", "127.1.0.1", "127.1.239.250", "10.79.0.1"} {
		if !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(netip.MustParseAddr(player)) }) {
			t.Errorf("%s is not in the list", player)
		}
	}
}
