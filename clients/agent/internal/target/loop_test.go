package target

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

func TestHops_ALateRemovalLeavesTheNextSocketOfThePort(t *testing.T) {
	var h hops
	a := types.ClientAllocation{ID: 1, Protocol: types.ProtocolTCP}
	local := netip.MustParseAddrPort("127.0.0.1:40000")
	remove := h.add(a, local, netip.MustParseAddrPort("192.0.2.1:1"))
	removeNext := h.add(a, local, netip.MustParseAddrPort("192.0.2.2:2"))
	remove()
	if through := h.loop(a, local); !slices.Equal(through, []int64{1}) {
		t.Errorf("the loop leads through %v", through)
	}
	removeNext()
	if through := h.loop(a, local); through != nil {
		t.Errorf("the loop leads through %v after both have left", through)
	}
}
