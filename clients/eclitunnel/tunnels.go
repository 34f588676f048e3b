package main

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/netaddr"
)

// tunnelSpec is an entry of --tunnels: the ports that one name stands for.
type tunnelSpec struct {
	name     string // Unique among the entries.
	protocol types.AllocationCreateProtocol
	target   localTarget
	public   int // The first public port; 0 lets the panel choose.
}

const tunnelForm = "[NAME=]PROTOCOL:[PUBLIC->]TARGET, such as minecraft=tcp:25565 or tcp:25565->game:25565"

// parseTunnels parses --tunnels: entries separated by commas or line breaks, of the form
// tunnelForm. TARGET is as in the command open. Errors name the entry.
func parseTunnels(text string) ([]tunnelSpec, error) {
	var specs []tunnelSpec
	entryOf := map[string]string{} // By the name.
	for _, entry := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' || r == '\r' }) {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		spec, err := parseTunnel(entry)
		if err != nil {
			return nil, usagef("--tunnels: %q: %w", entry, err)
		}
		if other, taken := entryOf[spec.name]; taken {
			return nil, usagef("--tunnels: %q and %q have the same name %s; write another one in front, as in game=%s", other, entry, spec.name, entry)
		}
		entryOf[spec.name] = entry
		specs = append(specs, spec)
	}
	return specs, nil
}

func parseTunnel(entry string) (tunnelSpec, error) {
	var spec tunnelSpec
	name, rest, named := strings.Cut(entry, "=")
	if !named {
		name, rest = "", entry
	}
	protocol, rest, ok := strings.Cut(rest, ":")
	spec.protocol = types.AllocationCreateProtocol(strings.ToLower(strings.TrimSpace(protocol)))
	if !ok {
		return spec, fmt.Errorf("it is not of the form %s", tunnelForm)
	}
	if !spec.protocol.Valid() {
		return spec, fmt.Errorf("%q is not tcp, udp or tcp+udp; the form is %s", strings.TrimSpace(protocol), tunnelForm)
	}
	public, target, mapped := strings.Cut(rest, "->")
	if !mapped {
		public, target = "", rest
	}
	target = strings.TrimSpace(target)
	var err error
	if spec.target, err = parseTarget(target, ""); err != nil {
		return spec, err
	}
	if spec.public, err = parsePublic(strings.TrimSpace(public), mapped, spec.target.count); err != nil {
		return spec, err
	}
	if spec.name = strings.TrimSpace(name); !named {
		spec.name = fmt.Sprintf("%s-%d%s", spec.protocol, spec.target.first, through(spec.target.first, spec.target.count-1))
	}
	if spec.name == "" || utf8.RuneCountInString(spec.name) > types.MaxLabel {
		return spec, fmt.Errorf("the name must have 1 to %d characters", types.MaxLabel)
	}
	return spec, nil
}

// parsePublic parses the public port in front of an arrow, or the public ports.
func parsePublic(text string, mapped bool, count int) (int, error) {
	if !mapped {
		return 0, nil
	}
	first, ports, err := parsePorts(text)
	switch {
	case err != nil || strings.Contains(text, "-") && ports != count:
		return 0, fmt.Errorf("%q in front of -> is not the public port, or as many public ports as the target has", text)
	case first+count-1 > lastPort:
		return 0, fmt.Errorf("the public ports end at %d", lastPort)
	}
	return first, nil
}

// ownHost reports whether the target is this machine, which the agent may always reach.
func (t localTarget) ownHost() bool {
	addr, err := netip.ParseAddr(t.host)
	return err == nil && addr.Unmap().IsLoopback() || netaddr.IsLocalhost(t.host)
}

// allowTargets returns allow-lists, the arguments of [agent.ParseAllowList], with what the
// targets need in addition. This machine's ports remain unrestricted if ownPorts is empty.
func allowTargets(specs []tunnelSpec, entries, ownPorts []string) (allow, allowPorts []string) {
	allow, allowPorts = entries[:len(entries):len(entries)], ownPorts[:len(ownPorts):len(ownPorts)]
	for _, spec := range specs {
		ports := strconv.Itoa(spec.target.first) + through(spec.target.first, spec.target.count-1)
		switch {
		case !spec.target.ownHost():
			allow = append(allow, net.JoinHostPort(spec.target.host, ports))
		case len(ownPorts) > 0:
			allowPorts = append(allowPorts, ports)
		}
	}
	return allow, allowPorts
}
