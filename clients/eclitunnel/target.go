package main

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/netaddr"
)

const (
	defaultHost = "127.0.0.1"
	lastPort    = 65535
)

// localTarget is where a game listens: one port, or a run of neighbouring ones.
type localTarget struct {
	host  string
	first int
	count int // At least 1.
}

// parseTarget parses PORT, FIRST-LAST, HOST:PORT or HOST:FIRST-LAST. host is the value
// of --host, or "".
func parseTarget(text, host string) (localTarget, error) {
	if err := checkHost(host); err != nil {
		return localTarget{}, err
	}
	t := localTarget{host: host}
	ports := text
	if strings.Contains(text, ":") {
		named, after, err := net.SplitHostPort(text)
		switch {
		case err != nil && strings.Count(text, ":") > 1:
			return t, usagef("%q is not a local target: an IPv6 address has brackets, as in [::1]:25565", text)
		case err != nil:
			return t, usagef("%q is not a local target: give a port, or HOST:PORT", text)
		case strings.Trim(named, "0123456789") == "" && named != "":
			return t, usagef("%q is not a local target: %s is not a host; set the public port with --public-port", text, named)
		}
		if err := checkHost(named); err != nil {
			return t, err
		}
		if host != "" && named != "" && !sameHost(named, host) {
			return t, usagef("%s names another host than --host %s", text, host)
		}
		t.host, ports = named, after
	}
	if t.host == "" {
		t.host = defaultHost
	}
	var err error
	t.first, t.count, err = parsePorts(ports)
	return t, err
}

// parsePorts parses PORT or FIRST-LAST.
func parsePorts(text string) (first, count int, err error) {
	from, to, isRun := strings.Cut(text, "-")
	if !isRun {
		to = from
	}
	first, firstErr := strconv.Atoi(from)
	last, lastErr := strconv.Atoi(to)
	switch {
	case firstErr != nil || lastErr != nil:
		return 0, 0, usagef("%q is not a port: give a number, or the first and the last of neighbouring ports, as in 2456-2458", text)
	case first < 1 || first > lastPort || last < 1 || last > lastPort:
		return 0, 0, usagef("the local port must be between 1 and %d: %s", lastPort, text)
	case last < first:
		return 0, 0, usagef("the ports %s are reversed; write %d-%d", text, last, first)
	case last-first >= types.MaxAllocationCreateCount:
		return 0, 0, usagef("%s are %d ports; at most %d can be opened together", text, last-first+1, types.MaxAllocationCreateCount)
	}
	return first, last - first + 1, nil
}

// checkHost returns an error unless host is empty or a host name or IP address.
func checkHost(host string) error {
	if host == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(host); err == nil && strings.Count(host, ":") == 1 {
		return usagef("the local host %s must be without a port; write HOST:PORT in place of the port", host)
	}
	if err := netaddr.CheckLocalHost(host); err != nil {
		return usagef("the local host %q %w", host, err)
	}
	return nil
}

// sameHost reports whether two local hosts are written differently at most.
func sameHost(a, b string) bool {
	if x, err := netip.ParseAddr(a); err == nil {
		y, err := netip.ParseAddr(b)
		return err == nil && x == y
	}
	return strings.EqualFold(a, b)
}

// fulfils reports whether an allocation is what request asks for at an offset of its
// run, in a protocol. Options that the request leaves open do not matter.
func fulfils(a types.Allocation, request types.AllocationCreate, offset int, protocol types.Protocol) bool {
	return a.Protocol == protocol && a.LocalPort == request.LocalPort+offset && sameHost(a.LocalHost, *request.LocalHost) &&
		(request.Port == nil || a.Port == *request.Port+offset) &&
		(request.Name == nil || a.Name == *request.Name) &&
		hasLabels(a, request.Labels) &&
		sameOption(request.Options.ProxyProtocol, a.Options.ProxyProtocol) &&
		sameOption(request.Options.UDPIdleSeconds, a.Options.UDPIdleSeconds) &&
		sameOption(request.Options.PlayerAddresses, a.Options.PlayerAddresses)
}

func hasLabels(a types.Allocation, wanted *types.Labels) bool {
	if wanted != nil {
		for key, value := range *wanted {
			if is, found := a.Labels[key]; !found || is != value {
				return false
			}
		}
	}
	return true
}

func sameOption[T comparable](wanted, is *T) bool {
	return wanted == nil || is != nil && *is == *wanted
}

// findOpen returns the allocations that are open already and do what request asks for,
// in the order in which the panel would have created them, or nil.
func findOpen(allocations []types.Allocation, request types.AllocationCreate) []types.Allocation {
	protocols := protocolsOf(request.Protocol)
	count := 1
	if request.Count != nil {
		count = *request.Count
	}
	for _, first := range allocations {
		var found []types.Allocation
		for i := range count * len(protocols) {
			offset, protocol := i/len(protocols), protocols[i%len(protocols)]
			for _, a := range allocations {
				if a.ServerID == first.ServerID && a.Port == first.Port+offset && fulfils(a, request, offset, protocol) {
					found = append(found, a)
					break
				}
			}
			if len(found) <= i {
				break
			}
		}
		if len(found) == count*len(protocols) {
			return found
		}
	}
	return nil
}

func protocolsOf(protocol types.AllocationCreateProtocol) []types.Protocol {
	if protocol == types.CreateTCPUDP {
		return []types.Protocol{types.ProtocolTCP, types.ProtocolUDP}
	}
	return []types.Protocol{types.Protocol(protocol)}
}
