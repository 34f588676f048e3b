package target

import (
	"errors"
	"io/fs"
	"os"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// readSockets adds the sockets of this machine, or of the agent's network namespace, at
// the ports that sockets has already: of TCP those that listen.
func readSockets(sockets map[localPort][]socket) error {
	protocols := map[types.Protocol]bool{}
	for at := range sockets {
		protocols[at.protocol] = true
	}
	for protocol := range protocols {
		name := "/proc/net/" + string(protocol)
		if err := readTable(name, protocol, sockets); err != nil {
			return err
		}
		err := readTable(name+"6", protocol, sockets)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // Of a system without IPv6.
			return err
		}
	}
	return nil
}

func readTable(name string, protocol types.Protocol, sockets map[localPort][]socket) error {
	table, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = table.Close() }() // It was read alone.
	return scanSockets(table, protocol, sockets)
}
