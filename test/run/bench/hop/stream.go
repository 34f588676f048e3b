package hop

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
)

// stream is a TCP connection, or TLS over one.
type stream interface {
	net.Conn
	CloseWrite() error
}

// copier moves bytes from one stream to another until either ends.
type copier func(to, from stream) error

// copySpliced lets the kernel move the bytes where both ends are TCP:
// TCPConn.ReadFrom splices. With TLS on a side it is a copy through 32 kB.
func copySpliced(to, from stream) error {
	_, err := io.Copy(to, from)
	return err
}

// copyBuffered moves the bytes through the program. The wrappers hide the
// methods by which io.CopyBuffer would avoid the buffer.
func copyBuffered(to, from stream) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 32<<10))
	return err
}

func (h *Hop) serve(ctx context.Context, listener net.Listener, next string, copy copier) {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // this player was gone before being taken
		}
		h.done.Go(func() { h.carry(ctx, conn.(stream), next, copy) })
	}
}

// carry connects a player to what is next until both directions have ended.
func (h *Hop) carry(ctx context.Context, player stream, next string, copy copier) {
	defer player.Close()
	game, err := h.dial(ctx, next)
	if err != nil {
		return // the player is hung up on, which the bench sees
	}
	defer game.Close()
	stop := context.AfterFunc(ctx, func() {
		player.Close()
		game.Close()
	})
	defer stop()
	up := make(chan struct{})
	h.done.Go(func() {
		defer close(up)
		oneWay(game, player, copy)
	})
	oneWay(player, game, copy)
	<-up
}

// oneWay copies one direction and passes its end on. After an error neither
// direction is of use to anybody.
func oneWay(to, from stream, copy copier) {
	if err := copy(to, from); err != nil {
		to.Close()
		from.Close()
		return
	}
	//nolint:errcheck // it fails where the other direction has closed the stream already
	to.CloseWrite()
}

func (h *Hop) dial(ctx context.Context, next string) (stream, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", next)
	if err != nil {
		return nil, err
	}
	if h.dialTLS == nil {
		return conn.(*net.TCPConn), nil
	}
	secure := tls.Client(conn, h.dialTLS)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}
