//go:build linux

package traffic

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// Carried are bounds of the bytes that a tunnel has carried, by what players have sent
// and received: it must have passed on what came back from the game, and cannot have
// passed on what was never sent. Of a player who has left in order both bounds are the
// same; of one who was cut off they differ by what was on its way. Bytes are those of
// payloads. Download is from the game to players, upload from players to the game.
type Carried struct{ UploadLeast, UploadMost, DownloadLeast, DownloadMost uint64 }

// Add returns the bounds of both.
func (c Carried) Add(more Carried) Carried {
	return Carried{
		UploadLeast: c.UploadLeast + more.UploadLeast, UploadMost: c.UploadMost + more.UploadMost,
		DownloadLeast: c.DownloadLeast + more.DownloadLeast, DownloadMost: c.DownloadMost + more.DownloadMost,
	}
}

// Player is a player of a game whose bytes can be counted. The zero value counts
// nothing. Its methods may be called from any goroutine.
type Player struct {
	// Carried, where not nil, is called with by how much the bounds have grown, before the
	// method returns that sent or received the bytes, and from several goroutines.
	Carried func(Carried)
}

func (p Player) count(c Carried) {
	if p.Carried != nil {
		p.Carried(c)
	}
}

// echoed is a connection of TCP on which the game was asked to send back what it gets.
// One goroutine may read while another one writes.
type echoed struct {
	*net.TCPConn
	player Player
	read   bool
}

// ask joins the game and asks it to send everything back.
func (p Player) ask(ctx context.Context, addr string) (*echoed, error) {
	conn, err := join(ctx, addr)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, err
	case err != nil:
		p.count(Carried{DownloadMost: 1}) // The greeting may have been on its way.
		return nil, err
	}
	p.count(Carried{DownloadLeast: 1, DownloadMost: 1})
	n, err := conn.Write(request(opEcho, 0))
	p.count(Carried{UploadMost: uint64(n)})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &echoed{TCPConn: conn, player: p}, nil
}

// Write sends bytes, each of which can come back.
func (e *echoed) Write(b []byte) (int, error) {
	n, err := e.TCPConn.Write(b)
	e.player.count(Carried{UploadMost: uint64(n), DownloadMost: uint64(n)})
	return n, err
}

// Read receives bytes, each of which the game had received, and the request before them.
func (e *echoed) Read(b []byte) (int, error) {
	n, err := e.TCPConn.Read(b)
	upload := uint64(n)
	if n > 0 && !e.read {
		e.read = true
		upload += requestSize
	}
	e.player.count(Carried{UploadLeast: upload, DownloadLeast: uint64(n)})
	return n, err
}

// send sends the next datagram of a flow.
func (p Player) send(f *flow) (uint64, error) {
	number, err := f.send()
	if err == nil {
		size := uint64(len(f.out))
		p.count(Carried{UploadMost: size, DownloadMost: size})
	}
	return number, err
}

// receive verifies the next datagram of a flow that comes.
func (p Player) receive(f *flow) (uint64, error) {
	number, err := f.receive()
	if err == nil {
		size := uint64(len(f.out))
		p.count(Carried{UploadLeast: size, DownloadLeast: size})
	}
	return number, err
}
