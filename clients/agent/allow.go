package agent

import "github.com/eclitunnel/eclitunnel/clients/agent/internal/target"

// AllowList is the local hosts that an agent may dial, whatever the panel asks for.
// This machine, by the loopback and the addresses of its interfaces as they change, is
// always on a parsed list; the zero value permits nothing.
type AllowList = target.AllowList

// NotAllowedError reports a host that is not on the allow-list.
type NotAllowedError = target.NotAllowedError

// ParseAllowList returns an allow-list of this machine and these entries: host names,
// IP addresses and CIDR prefixes.
func ParseAllowList(entries []string) (*AllowList, error) { return target.ParseAllowList(entries) }
