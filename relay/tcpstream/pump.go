package tcpstream

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// Carry opens a stream for a player on an idle data connection and carries it until
// it is over; for tunnel servers. It closes the player's connection unless it returns
// ErrUnused. If it returns nil the data connection is idle again.
func (c *Conn) Carry(p *Player) error {
	s, err := c.begin(p, Game{Conn: p.Conn, Counters: c.counters})
	if err != nil {
		return err
	}
	if err := c.writeControl(&p.Open); err != nil {
		c.Close() // Serve notes the end.
	} else {
		p.Meter.Join()
		s.pump()
	}
	close(s.pumped)
	<-s.done

	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s.over:
		_ = p.Conn.Close()
		return nil
	case s.moved || s.aborted:
		s.abortLocked()
		return ErrBroken
	}
	if err := p.Conn.SetReadDeadline(time.Time{}); err != nil {
		s.abortLocked()
		return ErrBroken
	}
	return ErrUnused
}

// begin begins a stream with a local connection, which is nil at a client that could
// not reach the game.
func (c *Conn) begin(p *Player, local Game) (*stream, error) {
	s := &stream{
		conn: c, local: local.Conn, left: local.Left, counters: local.Counters, answered: p.Answered, upload: p.Upload, download: p.Download,
		meter:  p.Meter,
		pumped: make(chan struct{}), done: make(chan struct{}),
	}
	s.watch = s.watchReset
	if s.local != nil {
		var err error
		if s.reader, err = newReader(s.local, smallBuffers, largeBuffers); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return nil, ErrUnused
	}
	c.stream = s
	return s, nil
}

// opened starts the stream that the tunnel server opened.
func (c *Conn) opened(m wire.Control) error {
	c.mu.Lock()
	busy := c.stream != nil
	c.mu.Unlock()
	if busy {
		return fmt.Errorf("%w: open before idle", wire.ErrMalformed)
	}
	// The server may receive our idle before the pump that wrote it has returned.
	c.pumps.Wait()
	game, err := c.accept(m)
	if err != nil {
		game = Game{Counters: c.counters} // Accept reports the error; the player is reset.
	}
	s, err := c.begin(new(Player), game)
	if err != nil {
		if game.Conn != nil {
			Reset(game.Conn)
			game.Left()
		}
		return err
	}
	if game.Conn == nil {
		close(s.pumped)
		return s.abort()
	}
	c.pumps.Go(func() {
		defer close(s.pumped)
		s.pump()
	})
	return nil
}

// idle notes that the tunnel client has finished with the stream.
func (c *Conn) idle() error {
	c.mu.Lock()
	s := c.stream
	if s == nil || s.sent == open {
		c.mu.Unlock()
		return fmt.Errorf("%w: idle before the stream's end", wire.ErrMalformed)
	}
	if s.got == open && !s.aborted {
		_ = s.local.CloseWrite()
	}
	s.over = true
	c.stream = nil
	s.stopGraceLocked()
	c.mu.Unlock()
	close(s.done)
	return nil
}

// pump moves bytes from the local connection to the data connection until either
// ends, and tells the peer how.
func (s *stream) pump() {
	for first := true; ; first = false {
		most := chunk(s.upload)
		if s.busy() && mayFill(most) {
			n, err := s.splice(most)
			s.counters.Sent.Add(uint64(n))
			switch {
			case n > 0 && err != nil:
				s.conn.Close() // Serve notes the end.
				return
			case n > 0:
				s.meter.Upload(n)
				continue
			case !errors.Is(err, errNotSpliced):
				s.pumpFailed()
				return
			}
		}
		b, err := s.reader.Next(most)
		if first && (err != nil || len(b.Data) == 0) {
			s.endedSilent()
		}
		if err != nil {
			s.pumpFailed()
			return
		}
		if len(b.Data) == 0 {
			b.Release()
			s.sendEnd(finished)
			return
		}
		n := len(b.Data)
		if err = s.admit(n); err != nil {
			b.Release()
			s.pumpFailed()
			return
		}
		err = s.conn.frames.writeBytes(b)
		b.Release()
		if err != nil {
			s.conn.Close() // Serve notes the end.
			return
		}
		s.counters.Sent.Add(uint64(n))
		s.meter.Upload(n)
	}
}

// endedSilent reports a game that has ended the stream before it sent anything, unless
// it was the player or the data connection that ended it.
func (s *stream) endedSilent() {
	c := s.conn
	c.mu.Lock()
	game := !c.dead && !s.aborted && s.got == open
	c.mu.Unlock()
	if game && c.silent != nil {
		c.silent(s.local.RemoteAddr())
	}
}

// busy reports whether the kernel should move the next bytes of the local connection.
func (s *stream) busy() bool {
	return canSplice && s.conn.frames.plain && s.reader.pools.busy()
}

// admit waits until n bytes that were read of the local connection may be sent. From
// then on no other data connection can carry the stream.
func (s *stream) admit(n int) error {
	s.conn.mu.Lock()
	s.moved = true
	dead := s.conn.dead
	s.conn.mu.Unlock()
	if dead {
		return ErrBroken // Close may have come too early to end the wait.
	}
	return s.wait(s.upload, n)
}

// pumpFailed tells the peer that the local connection broke, unless it was the data
// connection that ended.
func (s *stream) pumpFailed() {
	s.conn.mu.Lock()
	if s.conn.dead {
		s.conn.mu.Unlock()
		return
	}
	s.abortLocked()
	s.conn.mu.Unlock()
	s.sendEnd(broken)
}

// sendEnd tells the peer how this direction ended. Only the goroutine that writes
// calls it. At the tunnel client, the direction that ends last ends the stream.
func (s *stream) sendEnd(how end) {
	c := s.conn
	c.mu.Lock()
	if s.aborted {
		how = broken // Whatever the read yielded, the other direction has failed.
	}
	s.moved = true
	s.sent = how
	last := s.got != open && c.accept != nil
	// Idle implies fin, and a peer that broke the stream need not be told.
	implied := last && (how == finished || s.got == broken)
	c.mu.Unlock()
	var err error
	if !implied {
		t := wire.ControlFin
		if how == broken {
			t = wire.ControlReset
		}
		err = c.write(t)
	}
	if last && err == nil {
		err = s.finish()
	}
	if err != nil {
		c.Close()
	}
}

// abort resets the local connection after a failed write. The peer is told by the
// pump, whose read fails now, or by the caller if the pump has sent fin already.
func (s *stream) abort() error {
	c := s.conn
	c.mu.Lock()
	s.abortLocked()
	fin := s.sent == finished
	if s.local == nil || fin {
		s.sent = broken
	}
	c.mu.Unlock()
	if s.local == nil || fin {
		<-s.pumped
		return c.write(wire.ControlReset)
	}
	return nil
}

// finish tells the tunnel server that this end has finished with the stream.
func (s *stream) finish() error {
	c := s.conn
	c.mu.Lock()
	if s.over {
		c.mu.Unlock()
		return nil // A reset arrived while the pump finished the stream.
	}
	s.over = true
	if !s.aborted {
		_ = s.local.Close()
	}
	s.stopGraceLocked()
	// Before the message: the next open may follow it at once.
	c.stream = nil
	c.mu.Unlock()
	s.leave()
	return c.write(wire.ControlIdle)
}

// leave notes, once, that the local connection is closed.
func (s *stream) leave() {
	s.conn.mu.Lock()
	left := s.left
	s.left = nil
	s.conn.mu.Unlock()
	if left != nil {
		left()
	}
}

// abortLocked resets the local connection, and gives the peer abortGrace to confirm
// the end of the stream.
func (s *stream) abortLocked() {
	if s.aborted {
		return
	}
	s.aborted = true
	s.closeLimits()
	if s.local != nil {
		Reset(s.local)
	}
	if !s.conn.dead {
		s.grace = time.AfterFunc(abortGrace, s.conn.Close)
	}
}

func (s *stream) stopGraceLocked() {
	if s.grace != nil {
		s.grace.Stop()
	}
}

func (s *stream) stopGrace() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.stopGraceLocked()
}

// Reset closes a TCP connection with RST and not FIN: the peer learns that it was
// cut off, not that the stream is complete.
func Reset(c *net.TCPConn) {
	// A connection that is closed already needs neither.
	_ = c.SetLinger(0)
	_ = c.Close()
}
