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
	version, err := proxyVersion(a)
	if version == 0 || err != nil {
		return nil, err
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

// probeHeader returns the PROXY protocol header of a connection that is no player's, or
// nil if the allocation does not ask for one.
func probeHeader(a types.ClientAllocation) ([]byte, error) {
	version, err := proxyVersion(a)
	if version == 0 || err != nil {
		return nil, err
	}
	header := proxyproto.Header{Version: version, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	return header.Format()
}

// proxyVersion returns the version of the PROXY protocol that an allocation asks for; 0:
// none.
func proxyVersion(a types.ClientAllocation) (byte, error) {
	switch p := a.Options.ProxyProtocol; {
	case p == nil || *p == types.ProxyProtocolNone:
		return 0, nil
	case *p == types.ProxyProtocolV1 && a.Protocol == types.ProtocolTCP:
		return 1, nil
	case *p == types.ProxyProtocolV2:
		return 2, nil
	default:
		return 0, fmt.Errorf("PROXY protocol %s over %s", *p, a.Protocol)
	}
}
