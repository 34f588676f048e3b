package udpsock

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Endpoint is a peer of a socket, together with the local address that it was
// reached from, if known: where a datagram came from and where one is sent. It
// belongs to the socket that it is from. Endpoints are equal (==) if they are the
// same peer at the same local address; the zero value is no endpoint.
//
// It has the kernel's form: many datagrams are answered, and few addresses printed.
type Endpoint struct {
	name        unix.RawSockaddrInet6 // Or a RawSockaddrInet4, followed by zeros.
	length      uint32                // Of name.
	local       [16]byte              // An IPv4 address takes the first four bytes.
	localFamily uint32                // Of local; 0: not known.
}

// Endpoint returns the endpoint of an address, at the local address that the route
// chooses.
func (c *Conn) Endpoint(addr netip.AddrPort) Endpoint {
	ip := addr.Addr().Unmap()
	if c.system.family == unix.AF_INET {
		e := Endpoint{length: unix.SizeofSockaddrInet4}
		*e.inet4() = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swap(addr.Port()), Addr: ip.As4()}
		return e
	}
	return Endpoint{
		length: unix.SizeofSockaddrInet6,
		name: unix.RawSockaddrInet6{
			Family: unix.AF_INET6, Port: swap(addr.Port()), Addr: ip.As16(), Scope_id: scope(ip.Zone()),
		},
	}
}

// scope returns the number of the interface that a zone names.
func scope(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	return 0
}

func (e *Endpoint) inet4() *unix.RawSockaddrInet4 {
	return (*unix.RawSockaddrInet4)(unsafe.Pointer(&e.name))
}

// received completes an endpoint whose name the kernel has written.
func (e *Endpoint) received(length uint32) {
	e.length, e.local, e.localFamily = length, [16]byte{}, 0
	if length <= unix.SizeofSockaddrInet4 {
		// Equal endpoints have equal bytes, and these are of an earlier datagram.
		clear(e.name.Addr[8:])
		e.name.Scope_id = 0
	}
}

func (e *Endpoint) source() netip.AddrPort {
	switch e.name.Family {
	case unix.AF_INET:
		v4 := e.inet4()
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), swap(v4.Port))
	case unix.AF_INET6:
		ip := netip.AddrFrom16(e.name.Addr).Unmap()
		if e.name.Scope_id != 0 && ip.Is6() {
			ip = ip.WithZone(strconv.FormatUint(uint64(e.name.Scope_id), 10))
		}
		return netip.AddrPortFrom(ip, swap(e.name.Port))
	}
	return netip.AddrPort{}
}

func (e *Endpoint) localAddr() netip.Addr {
	switch e.localFamily {
	case unix.AF_INET:
		return netip.AddrFrom4([4]byte(e.local[:4]))
	case unix.AF_INET6:
		return netip.AddrFrom16(e.local)
	}
	return netip.Addr{}
}

// reached notes the local address of an IP_PKTINFO or IPV6_PKTINFO message. See
// ip(7) and ipv6(7).
func (e *Endpoint) reached(level, kind int32, content []byte) {
	var ip netip.Addr
	switch {
	case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(content) >= unix.SizeofInet4Pktinfo:
		// Not Addr, which can be a broadcast address: no datagram leaves from one.
		ip = netip.AddrFrom4((*unix.Inet4Pktinfo)(unsafe.Pointer(&content[0])).Spec_dst)
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(content) >= unix.SizeofInet6Pktinfo:
		ip = netip.AddrFrom16((*unix.Inet6Pktinfo)(unsafe.Pointer(&content[0])).Addr).Unmap()
	}
	switch {
	case !ip.IsValid() || ip.IsUnspecified():
	case ip.Is4():
		v4 := ip.As4()
		copy(e.local[:], v4[:])
		e.localFamily = unix.AF_INET
	default:
		e.local, e.localFamily = ip.As16(), unix.AF_INET6
	}
}

// appendLocal appends the control message that sends a datagram from the local
// address. The one of IPv4 works on sockets of both families.
func (e *Endpoint) appendLocal(control []byte) []byte {
	switch e.localFamily {
	case unix.AF_INET:
		control, content := appendControl(control, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		*(*unix.Inet4Pktinfo)(content) = unix.Inet4Pktinfo{Spec_dst: [4]byte(e.local[:4])}
		return control
	case unix.AF_INET6:
		control, content := appendControl(control, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		*(*unix.Inet6Pktinfo)(content) = unix.Inet6Pktinfo{Addr: e.local}
		return control
	}
	return control
}

// controlSpace is room in bytes for the control messages of a datagram: the local
// address, and the length of segments.
const controlSpace = 96

// appendControl appends a control message with content of a size in bytes, and
// returns where to put that. The capacity of control must suffice.
func appendControl(control []byte, level, kind int32, size int) ([]byte, unsafe.Pointer) {
	at := len(control)
	control = control[:at+unix.CmsgSpace(size)]
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[at]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	return control, unsafe.Pointer(&control[at+unix.CmsgLen(0)])
}

// swap converts a port between the machine's and the network's order of bytes.
func swap(port uint16) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&port))[:])
}
