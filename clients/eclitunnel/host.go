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

// byNumber returns a host with a port as IP addresses, or "" if it is an address itself
// or none is known. An empty port gives the addresses alone.
func byNumber(host, port string, addresses []string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	numbers := slices.Clone(addresses)
	for i := range numbers {
		if port != "" {
			numbers[i] = net.JoinHostPort(numbers[i], port)
		}
	}
	return strings.Join(numbers, ", ")
}

// printNumbers prints the public hosts of UDP allocations as IP addresses, for people
// whose game takes no name.
func (a *app) printNumbers(allocations []types.Allocation) {
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
		if numbers := byNumber(o.PublicHost, port, o.PublicAddresses); numbers != "" {
			a.printf("%s by number, for games that take no name, such as Minecraft Bedrock Edition: %s", o.PublicHost, numbers)
		}
	}
}
