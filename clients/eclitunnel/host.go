package main

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// hostLine describes the public host of a tunnel server.
func hostLine(host string, guessed bool) string {
	if guessed {
		return host + " (guessed from the address at which it reaches the panel, until an admin sets it)"
	}
	return host
}

// warnHost says what keeps players from the public host of a tunnel server.
func (a *app) warnHost(server types.TunnelServer) {
	if warning, err := server.PublicHostWarning.Get(); err == nil && warning != "" {
		a.warnf("warning: %s", warning)
	}
}

// asAddresses returns a host with a port as IP addresses, or "" if it is an address itself
// or none is known. An empty port gives the addresses alone.
func asAddresses(host, port string, addresses []string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	texts := slices.Clone(addresses)
	for i := range texts {
		if port != "" {
			texts[i] = net.JoinHostPort(texts[i], port)
		}
	}
	return strings.Join(texts, ", ")
}

// printAddresses prints the public hosts of UDP allocations as IP addresses, for people
// whose game takes no name.
func (a *app) printAddresses(allocations []types.Allocation) {
	var said []string
	for _, o := range allocations {
		if o.Protocol != types.ProtocolUDP || slices.Contains(said, o.PublicHost) {
			continue
		}
		said = append(said, o.PublicHost)
		port := strconv.Itoa(o.Port)
		if slices.ContainsFunc(allocations, func(b types.Allocation) bool { return b.PublicHost == o.PublicHost && b.Port != o.Port }) {
			port = ""
		}
		if texts := asAddresses(o.PublicHost, port, o.PublicAddresses); texts != "" {
			a.printf("%s as an IP address, for games that take no name, such as Minecraft Bedrock Edition: %s", o.PublicHost, texts)
		}
	}
}
