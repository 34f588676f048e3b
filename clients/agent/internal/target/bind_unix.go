//go:build unix

package target

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// dialFrom connects to one address: from the source of ctx, if it has one, where the
// address is on the loopback of IPv4.
func (d *Dialer) dialFrom(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Control: limitWindow}
	if source := sourceOf(ctx); source.IsValid() {
		dialer.Control = func(network, address string, socket syscall.RawConn) error {
			if err := limitWindow(network, address, socket); err != nil {
				return err
			}
			return d.bind(address, socket, source)
		}
	}
	return dialer.DialContext(ctx, network, address)
}

// bind binds a socket that is about to be connected to an address. Where the system
// has no such source, as macOS and some containers, it is left to choose one.
func (d *Dialer) bind(address string, socket syscall.RawConn, source netip.Addr) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !loopback4.Contains(to.Addr()) {
		return nil
	}
	var bindErr error
	if err := socket.Control(func(fd uintptr) {
		choosePortLater(int(fd))
		bindErr = syscall.Bind(int(fd), &syscall.SockaddrInet4{Addr: source.As4()})
	}); err != nil {
		return err
	}
	if errors.Is(bindErr, syscall.EADDRINUSE) {
		return bindErr // This player has all ports of the address: no reason to get others.
	}
	if bindErr != nil {
		d.noSource(bindErr)
	}
	return nil
}
