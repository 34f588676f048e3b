package agent

import "github.com/eclitunnel/eclitunnel/clients/agent/internal/target"

// AllowList is the local targets that an agent may dial, whatever the panel asks for.
// This machine, by localhost, the loopback and the addresses of its interfaces as they
// change, is always on a parsed list, with all its ports or those it is restricted to;
// the zero value permits nothing.
type AllowList = target.AllowList

// NotAllowedError reports a local target that is not on the allow-list.
type NotAllowedError = target.NotAllowedError

// ParseAllowList returns an allow-list of this machine and these entries: host names, IP
// addresses and CIDR prefixes, each for all ports or, after a colon, for one port or a
// range: game.lan, 192.168.1.0/24:25565, [fd00::5]:2456-2458. OwnPorts, in the same form,
// are those to which this machine is restricted; none: all are allowed. Errors name the
// entry.
func ParseAllowList(entries, ownPorts []string) (*AllowList, error) {
	return target.ParseAllowList(entries, ownPorts)
}
