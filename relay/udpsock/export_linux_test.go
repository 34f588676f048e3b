package udpsock

import "net"

// NewUnix makes a Conn of a connected Unix datagram socket. Unlike one of UDP on the
// loopback interface, it has no room for more while its peer does not read.
func NewUnix(conn *net.UnixConn) (*Conn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &Conn{connected: true}
	c.system.raw = raw
	return c, nil
}
