package relay

import (
	"context"
	"net/netip"
	"sync"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/gameping"
)

// probe answers what the panel asks for to check an allocation: what has arrived at a public
// port of this tunnel server, or whether those of others can be reached from here.
func (s *Server) probe(ctx context.Context, m types.Probe) types.ProbeResult {
	switch m.Subject {
	case types.ProbePort:
		if port, ok := s.ports.Probe(m.AllocationID); ok {
			return types.ProbeResult{Port: &port}
		}
	case types.ProbeAddresses:
		if m.Addresses != nil && m.Protocol != nil && m.Protocol.Valid() && len(*m.Addresses) <= types.MaxProbeAddresses {
			replies := probeAddresses(ctx, *m.Protocol, *m.Addresses, m.Host)
			return types.ProbeResult{Addresses: &replies}
		}
	}
	return types.ProbeResult{}
}

// probeAddresses connects to each of the addresses, at the same time.
func probeAddresses(ctx context.Context, protocol types.Protocol, addresses []string, host *string) []types.ProbeReply {
	options := gameping.Options{}
	if host != nil {
		options.Host = *host
	}
	replies := make([]types.ProbeReply, len(addresses))
	var running sync.WaitGroup
	for i, text := range addresses {
		address, err := netip.ParseAddrPort(text)
		if err != nil { // Names are for the panel to resolve.
			replies[i] = types.ProbeReply{State: types.ProbeUnreachable}
			continue
		}
		running.Go(func() {
			replies[i] = gameping.Probe(ctx, string(protocol), address.String(), options).Contract()
		})
	}
	running.Wait()
	return replies
}
