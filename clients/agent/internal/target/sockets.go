package target

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"strconv"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// localPort is a port of this machine.
type localPort struct {
	protocol types.Protocol
	port     int
}

// socket is a TCP socket that listens, or a bound UDP socket.
type socket struct {
	local  netip.AddrPort
	remote netip.AddrPort // Of a connected UDP socket; otherwise its port is 0.
}

// receives reports whether a socket receives what is sent to one of this machine's
// addresses at the socket's port. One for all addresses of IPv6 counts for IPv4 too: the
// system does not show those that are for IPv6 alone.
func (s socket) receives(addr netip.Addr) bool {
	local := s.local.Addr()
	if local.IsUnspecified() {
		return local.Is6() || addr.Is4()
	}
	return local == addr.WithZone("")
}

// States of the table's sockets: include/net/tcp_states.h of Linux.
const (
	socketRequest   = 0x03 // Of old kernels, among the listening ones.
	socketListening = 0x0A
)

// scanSockets reads a table in the format of Linux's /proc/net/tcp, tcp6, udp and udp6,
// and adds the sockets at the ports that sockets has already. In tables of TCP the
// listening ones come first: it stops at the first other one, of which there may be many
// thousands.
func scanSockets(table io.Reader, protocol types.Protocol, sockets map[localPort][]socket) error {
	lines := bufio.NewScanner(table)
	lines.Scan() // The names of the columns.
	for lines.Scan() {
		_, line := column(lines.Bytes())
		local, line := column(line)
		remote, line := column(line)
		state, _ := column(line)
		number, err := strconv.ParseUint(string(state), 16, 8)
		if err != nil {
			return fmt.Errorf("table of sockets: state %q", state)
		}
		if protocol == types.ProtocolTCP && number == socketRequest {
			continue
		}
		if protocol == types.ProtocolTCP && number != socketListening {
			return nil
		}
		at, err := parsePort(local)
		if err != nil {
			return err
		}
		key := localPort{protocol, at}
		found, wanted := sockets[key]
		if !wanted {
			continue // As most are.
		}
		var s socket
		if s.local, err = parseEndpoint(local); err != nil {
			return err
		}
		if s.remote, err = parseEndpoint(remote); err != nil {
			return err
		}
		sockets[key] = append(found, s)
	}
	return lines.Err()
}

// column returns the first column of a line, and the rest.
func column(line []byte) (first, rest []byte) {
	line = bytes.TrimLeft(line, " ")
	if end := bytes.IndexByte(line, ' '); end >= 0 {
		return line[:end], line[end:]
	}
	return line, nil
}

// parsePort parses the port of an endpoint.
func parsePort(endpoint []byte) (int, error) {
	_, text, _ := bytes.Cut(endpoint, []byte{':'})
	port, err := strconv.ParseUint(string(text), 16, 16)
	if err != nil {
		return 0, fmt.Errorf("table of sockets: port of %q", endpoint)
	}
	return int(port), nil
}

// parseEndpoint parses an address and a port in hexadecimal: the address as 32-bit
// numbers of this machine's byte order, which hold the bytes as they are sent.
func parseEndpoint(endpoint []byte) (netip.AddrPort, error) {
	port, err := parsePort(endpoint)
	if err != nil {
		return netip.AddrPort{}, err
	}
	text, _, _ := bytes.Cut(endpoint, []byte{':'})
	raw := make([]byte, hex.DecodedLen(len(text)))
	_, err = hex.Decode(raw, text)
	for i := 0; i+4 <= len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, ok := netip.AddrFromSlice(raw)
	if err != nil || !ok {
		return netip.AddrPort{}, fmt.Errorf("table of sockets: address of %q", endpoint)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), nil
}
