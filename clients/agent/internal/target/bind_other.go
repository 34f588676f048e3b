//go:build !unix

package target

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
)

// dialFrom connects to one address: from the source of ctx, if it has one, where the
// address is on the loopback of IPv4. Where the system has no such source, it chooses
// one.
func (d *Dialer) dialFrom(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Control: limitWindow}
	source := sourceOf(ctx)
	to, err := netip.ParseAddrPort(address)
	if err != nil || !source.IsValid() || !loopback4.Contains(to.Addr().Unmap()) {
		return dialer.DialContext(ctx, network, address)
	}
	dialer.LocalAddr = &net.TCPAddr{IP: source.AsSlice()}
	if strings.HasPrefix(network, "udp") {
		dialer.LocalAddr = &net.UDPAddr{IP: source.AsSlice()}
	}
	conn, err := dialer.DialContext(ctx, network, address)
	var call *os.SyscallError
	if err == nil || !errors.As(err, &call) || call.Syscall != "bind" {
		return conn, err
	}
	d.noSource(call.Err)
	dialer.LocalAddr = nil
	return dialer.DialContext(ctx, network, address)
}
