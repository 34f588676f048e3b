package check

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/gameping"
	"github.com/eclitunnel/eclitunnel/server/internal/publichost"
)

// resolve returns the addresses of the public host.
func (r *run) resolve(ctx context.Context) ([]netip.Addr, finding) {
	host := r.row.PublicHost
	if address, err := netip.ParseAddr(host); err == nil {
		r.hop(types.HopName, types.HopOk, "Players use the address "+host+".")
		return []netip.Addr{address.Unmap()}, finding{}
	}
	bounded, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := r.opts.Lookup(bounded, host)
	var missing *net.DNSError
	switch {
	case err != nil && (!errors.As(err, &missing) || !missing.IsNotFound):
		for _, text := range r.row.PublicAddresses.List() {
			if address, err := netip.ParseAddr(text); err == nil {
				found = append(found, address)
			}
		}
		if len(found) == 0 {
			return nil, r.unsure(types.HopName, "The panel's DNS resolver does not answer.",
				fmt.Sprintf("The panel cannot look up %s: its DNS resolver does not answer. Its operator has to look at that.", host))
		}
		r.hop(types.HopName, types.HopUnknown, "The panel's DNS resolver does not answer; the addresses are those of its last answer.")
	case len(found) == 0:
		return nil, r.fail(types.HopName, types.CheckNameNotResolving, host+" has no address.",
			fmt.Sprintf("The name %s has no address, so that players cannot find the tunnel server. Its operator has to set a DNS record for it, or another public host.", host))
	}
	addresses := make([]netip.Addr, 0, len(found))
	texts := make([]string, 0, len(found))
	for _, address := range found[:min(len(found), maxAddresses)] {
		addresses = append(addresses, address.Unmap())
		texts = append(texts, address.Unmap().String())
	}
	if _, said := r.hops[types.HopName]; !said {
		r.hop(types.HopName, types.HopOk, host+" has "+strings.Join(texts, ", ")+".")
	}
	return addresses, finding{}
}

// prober is from where the public port is tried: a tunnel server, or the panel itself.
type prober struct {
	server *uuid.UUID // nil: the panel.
	from   string
	// local means that it is on the panel's machine, or may be.
	local bool
}

const fromPanel = "the panel itself, as no other tunnel server could; a firewall between the two is not seen"

// probers returns from where an address may be tried, the best first.
func (r *run) probers(ctx context.Context) ([]prober, error) {
	servers, err := r.opts.Store.ProbeServers(ctx, r.row.ServerID, 2)
	if err != nil && ctx.Err() == nil {
		return nil, err
	}
	var all []prober
	for _, s := range servers {
		all = append(all, prober{server: &s.ID, from: "another tunnel server", local: loopback(s.Address)})
	}
	return append(all, prober{from: fromPanel, local: true}), nil
}

func loopback(address *string) bool {
	at, err := netip.ParseAddr(valueOr(address, ""))
	return err == nil && at.Unmap().IsLoopback()
}

// probeable reports whether the prober may try an address, which a name that somebody else
// controls may have led to. It is an address on the Internet; or one of a private network, if
// the fleet knows it as that of the tunnel server; or the loopback, if tunnel server and
// prober are both on the panel's machine.
func (r *run) probeable(p prober, address netip.Addr) bool {
	switch {
	case address.IsLoopback():
		return p.local && loopback(r.row.ServerAddress)
	case publichost.IsPublic(address):
		return true
	case !address.IsGlobalUnicast():
		return false
	}
	known := append(r.row.PublicAddresses.List(), r.row.PublicHost, valueOr(r.row.ServerAddress, ""))
	return slices.Contains(known, address.String())
}

// try tries the public port at those of the addresses that the prober may try. It returns nil
// if it could not be asked, or may try none.
func (r *run) try(ctx context.Context, p prober, addresses []netip.Addr) ([]types.ProbeReply, error) {
	var to []string
	for _, address := range addresses {
		if r.probeable(p, address) {
			to = append(to, netip.AddrPortFrom(address, uint16(r.row.Port)).String())
		}
	}
	if len(to) == 0 {
		return nil, nil
	}
	protocol := types.Protocol(r.row.Protocol)
	if p.server == nil {
		return r.tryHere(ctx, protocol, to), nil
	}
	results, err := r.ask(ctx, elsewhereWait, question{*p.server, types.Probe{
		Subject: types.ProbeAddresses, Protocol: &protocol, Host: &r.row.PublicHost, Addresses: &to,
	}})
	if err != nil || results[0] == nil || results[0].Addresses == nil || len(*results[0].Addresses) != len(to) {
		return nil, err
	}
	return *results[0].Addresses, nil
}

// tryHere tries from the panel.
func (r *run) tryHere(ctx context.Context, protocol types.Protocol, addresses []string) []types.ProbeReply {
	replies := make([]types.ProbeReply, len(addresses))
	var running sync.WaitGroup
	for i, address := range addresses {
		running.Go(func() {
			replies[i] = gameping.Probe(ctx, string(protocol), address, gameping.Options{Host: r.row.PublicHost, Timeout: panelTimeout}).Contract()
		})
	}
	running.Wait()
	return replies
}

// public tries the public port, and judges what came of it.
func (r *run) public(ctx context.Context, addresses []netip.Addr) (finding, error) {
	probers, err := r.probers(ctx)
	if err != nil {
		return finding{}, err
	}
	var replies []types.ProbeReply
	var by prober
	for _, by = range probers {
		if replies, err = r.try(ctx, by, addresses); err != nil {
			return finding{}, err
		}
		if replies != nil {
			break
		}
	}
	if replies == nil {
		return r.unsure(types.HopPublicPort, "The address of the public host is one of a private network, which is not tried.",
			"The public host has an address of a private network that is not known to be the tunnel server's. Its operator has to set another public host."), nil
	}
	seen, err := r.arrivals(ctx)
	if err != nil {
		return finding{}, err
	}
	best := bestOf(replies)
	detail := fmt.Sprintf("%s, tried from %s.", capital(describe(best)), by.from)
	if reached(best) {
		return r.judgeReached(best, seen, detail), nil
	}
	if found := r.refused(seen, detail); !found.none() {
		return found, nil
	}
	if !seen.any {
		if found, err := r.elsewhere(ctx, by, addresses, detail); err != nil || !found.none() {
			return found, err
		}
	}
	return r.judgeSilence(best, seen, detail), nil
}

// seen is what the tunnel server has seen of the attempt.
type seen struct {
	known   bool // It has counted.
	any     bool
	refused []string // Why it has refused something since.
}

// arrivals asks the tunnel server what has arrived since it was asked before.
func (r *run) arrivals(ctx context.Context) (seen, error) {
	if r.before == nil {
		return seen{}, nil
	}
	results, err := r.ask(ctx, countersTimeout, question{r.row.ServerID, types.Probe{Subject: types.ProbePort}})
	if err != nil || results[0] == nil || results[0].Port == nil {
		return seen{}, err
	}
	after := results[0].Port
	s := seen{known: true, any: after.Arrived > r.before.Arrived}
	if after.Refused == nil {
		return s, nil
	}
	for _, why := range slices.Sorted(maps.Keys(*after.Refused)) {
		if (*after.Refused)[why] > valueOr(r.before.Refused, nil)[why] {
			s.refused = append(s.refused, why)
		}
	}
	return s, nil
}

// rank orders what can come of a probe, from the best.
var rank = []types.ProbeReplyState{
	types.ProbeAnswered, types.ProbeOpen, types.ProbeClosed, types.ProbeRefused, types.ProbeSilent, types.ProbeUnreachable,
}

// bestOf returns the best reply: players try all addresses of a name too.
func bestOf(replies []types.ProbeReply) types.ProbeReply {
	return slices.MinFunc(replies, func(a, b types.ProbeReply) int {
		return slices.Index(rank, a.State) - slices.Index(rank, b.State)
	})
}

func reached(r types.ProbeReply) bool {
	return r.State == types.ProbeAnswered || r.State == types.ProbeOpen
}

func capital(text string) string { return strings.ToUpper(text[:1]) + text[1:] }
