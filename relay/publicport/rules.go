package publicport

import (
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/netaddr"
)

// KnownRules are the rules that public ports keep.
var KnownRules = []types.RuleName{
	types.RuleAllow, types.RuleDeny,
	types.RuleMaxPlayers, types.RuleMaxPlayersPerSource,
	types.RuleConnectionsPerSecond, types.RuleConnectionsPerSecondPerSource,
	types.RuleMaxFlowsPerSource, types.RuleDatagramsPerSecondPerSource,
	types.RuleDownloadBitsPerSecond, types.RuleUploadBitsPerSecond,
	types.RulePlayerDownloadBitsPerSecond, types.RulePlayerUploadBitsPerSecond,
}

// rules are the rules of an allocation. They do not change once made.
type rules struct {
	types.AllocationRules
	allowed, denied *bart.Lite // nil: empty.
	keptOut         keptOut
}

// newRules returns rules as the panel sends them; nil: none. An error is a phrase for
// people: an allocation must not be open with rules that nobody understands.
func newRules(r *types.AllocationRules) (*rules, error) {
	if r == nil {
		return &rules{}, nil
	}
	compiled := &rules{AllocationRules: *r}
	var err error
	if compiled.allowed, err = table("allow", r.Allow); err != nil {
		return nil, err
	}
	if compiled.denied, err = table("deny", r.Deny); err != nil {
		return nil, err
	}
	if err := checkBandwidths(r); err != nil {
		return nil, err
	}
	return compiled, nil
}

func table(name string, list *types.AddressList) (*bart.Lite, error) {
	if list == nil || len(*list) == 0 {
		return nil, nil
	}
	t := new(bart.Lite)
	for _, entry := range *list {
		prefix, err := netaddr.ParsePrefix(entry)
		if err != nil {
			return nil, fmt.Errorf("%s: %q %w", name, entry, err)
		}
		t.Insert(prefix)
	}
	return t, nil
}

// permits reports whether the address lists permit a player.
func (r *rules) permits(player netip.Addr) bool {
	if r.allowed == nil && r.denied == nil {
		return true
	}
	player = player.Unmap().WithZone("")
	return (r.allowed == nil || r.allowed.Contains(player)) && (r.denied == nil || !r.denied.Contains(player))
}
