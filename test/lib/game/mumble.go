package game

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// Messages of Mumble's TCP protocol: type, length, a message of Protocol Buffers.
const (
	mumbleVersion      = 0
	mumbleAuthenticate = 2
	mumbleReject       = 4
	mumbleServerSync   = 5
	mumbleMaxMessage   = 1 << 20
)

// JoinMumble joins the Mumble server that conn leads to under a name, and returns once
// it is in. It gives up when ctx ends or after 10 s. Conn is closed if that fails, and
// otherwise is the player's until the returned connection is closed.
func JoinMumble(ctx context.Context, conn net.Conn, name string) (io.Closer, error) {
	joined, err := joinMumble(ctx, conn, name)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("join %s: %w", conn.RemoteAddr(), err)
	}
	return joined, nil
}

func joinMumble(ctx context.Context, conn net.Conn, name string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	//nolint:gosec // The server's certificate is its own.
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := secure.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	version := []byte{1 << 3, 0x80, 0x86, 0x04}                        // version: 0x010300
	authenticate := append([]byte{1<<3 | 2, byte(len(name))}, name...) // username
	for kind, message := range [][]byte{mumbleVersion: version, 1: nil, mumbleAuthenticate: authenticate} {
		if message == nil {
			continue
		}
		header := binary.BigEndian.AppendUint16(nil, uint16(kind))
		header = binary.BigEndian.AppendUint32(header, uint32(len(message)))
		if _, err := secure.Write(append(header, message...)); err != nil {
			return nil, err
		}
	}
	for {
		var header [6]byte
		if _, err := io.ReadFull(secure, header[:]); err != nil {
			return nil, err
		}
		length := binary.BigEndian.Uint32(header[2:])
		if length > mumbleMaxMessage {
			return nil, fmt.Errorf("a message of %d bytes", length)
		}
		message := make([]byte, length)
		if _, err := io.ReadFull(secure, message); err != nil {
			return nil, err
		}
		switch binary.BigEndian.Uint16(header[:]) {
		case mumbleReject:
			return nil, &RefusedError{Reason: string(message)}
		case mumbleServerSync:
			return secure, secure.SetDeadline(time.Time{})
		}
	}
}
