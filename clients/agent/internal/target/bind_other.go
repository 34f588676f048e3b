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

// dialFrom dials as net.Dialer does, and from source, if that is valid, where the
// address is literally one on the loopback of IPv4: such a system needs to know before
// a name is resolved. Where it has no such source, it chooses one.
func (d *Dialer) dialFrom(ctx context.Context, network, address string, source netip.Addr) (net.Conn, error) {
	if source.IsValid() && onLoopback4(network, address) {
		dialer := d.dialer
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
	}
	return d.dialer.DialContext(ctx, network, address)
}

func onLoopback4(network, address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if strings.HasSuffix(network, "4") && isLocalhost(host) {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && loopback4.Contains(ip.Unmap())
}
