package target

import (
	"fmt"
	"net"
	"net/netip"

	proxyproto "github.com/pires/go-proxyproto"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// proxyHeader returns the PROXY protocol header of an allocation's player, or nil if
// the allocation does not ask for one. Version 1 supports TCP only.
// See https://www.haproxy.org/download/2.3/doc/proxy-protocol.txt.
func proxyHeader(a types.ClientAllocation, source, destination netip.AddrPort) ([]byte, error) {
	var version byte
	switch p := a.Options.ProxyProtocol; {
	case p == nil || *p == types.ProxyProtocolNone:
		return nil, nil
	case *p == types.ProxyProtocolV1 && a.Protocol == types.ProtocolTCP:
		version = 1
	case *p == types.ProxyProtocolV2:
		version = 2
	default:
		return nil, fmt.Errorf("PROXY protocol %s over %s", *p, a.Protocol)
	}
	var from, to net.Addr = net.TCPAddrFromAddrPort(source), net.TCPAddrFromAddrPort(destination)
	if a.Protocol == types.ProtocolUDP {
		from, to = net.UDPAddrFromAddrPort(source), net.UDPAddrFromAddrPort(destination)
	}
	header, err := proxyproto.HeaderProxyFromAddrs(version, from, to).Format()
	if err != nil {
		return nil, fmt.Errorf("PROXY header for %s: %w", source, err)
	}
	return header, nil
}
