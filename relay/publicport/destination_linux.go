package publicport

import (
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A UDP socket bound to every address does not by itself know which of them a
// datagram came to, and would answer from whichever the route prefers: a player
// who reached another one would drop the answer. See ip(7) and ipv6(7),
// IP_PKTINFO.

// askForDestination has the kernel tell of each datagram which address it came
// to.
func askForDestination(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		family, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			optErr = fmt.Errorf("get the socket's family: %w", err)
			return
		}
		if family == unix.AF_INET6 {
			optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		} else {
			optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}
	})
	if err != nil {
		return err
	}
	return optErr
}

// destination reads the address that a datagram came to.
func destination(control []byte) netip.Addr {
	for len(control) >= unix.SizeofCmsghdr {
		header, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		switch {
		case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16((*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0])).Addr).Unmap()
		case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4((*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Addr)
		}
		control = rest
	}
	return netip.Addr{}
}

// answerFrom returns the control message that sends a datagram from an address.
// An IPv4 one works on sockets of both families.
func answerFrom(local netip.Addr) []byte {
	switch {
	case local.Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: local.As4()})
	case local.Is6():
		return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: local.As16()})
	default:
		return nil
	}
}
