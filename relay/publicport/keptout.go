package publicport

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/gaissmai/bart"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/netaddr"
)

// keptOut are sources that may not join until a time. It does not change once made.
type keptOut struct {
	until *bart.Table[time.Time] // nil: empty.
}

// newKeptOut returns what the panel wants to be kept out. Like rules, a list that is not
// understood must not leave the port open.
func newKeptOut(list *[]types.ServerKeptOut) (keptOut, error) {
	if list == nil || len(*list) == 0 {
		return keptOut{}, nil
	}
	t := new(bart.Table[time.Time])
	for _, entry := range *list {
		prefix, err := netaddr.ParsePrefix(entry.Source)
		if err != nil {
			return keptOut{}, fmt.Errorf("keptOut: %q %w", entry.Source, err)
		}
		t.Insert(prefix, entry.Until)
	}
	return keptOut{until: t}, nil
}

// has reports whether a player may not join at a time.
func (k keptOut) has(player netip.Addr, now time.Time) bool {
	if k.until == nil {
		return false
	}
	until, ok := k.until.Lookup(player.Unmap().WithZone(""))
	return ok && now.Before(until)
}
