package target

import "golang.org/x/sys/unix"

// choosePortLater has bind leave the port of a socket to connect, which counts the
// ports of an address for each peer. Kernels before 4.2 cannot.
func choosePortLater(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
}
