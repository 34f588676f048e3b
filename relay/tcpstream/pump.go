package tcpstream

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// Carry opens a stream for a player on an idle data connection and carries it
// until it is over. With nil and ErrBroken the player's connection is closed;
// with nil the data connection is idle again. Of the tunnel server.
func (c *Conn) Carry(player *net.TCPConn, m wire.Control) error {
	s, err := c.begin(player)
	if err != nil {
		return err
	}
	if err := c.writeControl(m); err != nil {
		c.Close() // Serve notes the end.
	} else {
		s.pump()
	}
	close(s.pumped)
	<-s.done

	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s.over:
		_ = player.Close()
		return nil
	case s.moved || s.aborted:
		s.abortLocked()
		return ErrBroken
	}
	if err := player.SetReadDeadline(time.Time{}); err != nil {
		s.abortLocked()
		return ErrBroken
	}
	return ErrUnused
}

func (c *Conn) begin(local *net.TCPConn) (*stream, error) {
	s := &stream{conn: c, local: local, pumped: make(chan struct{}), done: make(chan struct{})}
	if local != nil {
		var err error
		if s.reader, err = newReader(local, smallBuffers, largeBuffers); err != nil {
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
	// The server may have got our idle before its writer here has returned.
	c.pumps.Wait()
	local, err := c.accept(m)
	if err != nil {
		local = nil // The caller's to report; the player's to feel.
	}
	s, err := c.begin(local)
	if err != nil {
		if local != nil {
			Reset(local)
		}
		return err
	}
	if local == nil {
		close(s.pumped)
		return s.breakOff()
	}
	c.pumps.Go(func() {
		defer close(s.pumped)
		s.pump()
	})
	return nil
}

// idle notes that the tunnel client is done with the stream.
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

// pump moves bytes from the local connection to the data connection until
// either ends, and says how.
func (s *stream) pump() {
	for {
		if s.busy() {
			n, err := s.splice()
			s.conn.counters.Sent.Add(uint64(n))
			switch {
			case n > 0 && err != nil:
				s.conn.Close() // Serve notes the end.
				return
			case n > 0:
				continue
			case !errors.Is(err, errUnspliced):
				s.pumpFailed()
				return
			}
		}
		b, err := s.reader.Next()
		if err != nil {
			s.pumpFailed()
			return
		}
		if len(b.Data) == 0 {
			b.Release()
			s.say(finished)
			return
		}
		s.touch()
		n := len(b.Data)
		err = s.conn.frames.writeBytes(b)
		b.Release()
		if err != nil {
			s.conn.Close() // Serve notes the end.
			return
		}
		s.conn.counters.Sent.Add(uint64(n))
	}
}

// busy reports whether the kernel should move what the local connection says next.
func (s *stream) busy() bool {
	return splices && s.conn.frames.plain && s.reader.pools.busy()
}

func (s *stream) touch() {
	s.conn.mu.Lock()
	s.moved = true
	s.conn.mu.Unlock()
}

// pumpFailed says that the local connection is broken, unless it is the data
// connection that ended.
func (s *stream) pumpFailed() {
	s.conn.mu.Lock()
	if s.conn.dead {
		s.conn.mu.Unlock()
		return
	}
	s.abortLocked()
	s.conn.mu.Unlock()
	s.say(broken)
}

// say tells the peer how this direction ended. The caller is the one writer. At
// the tunnel client, a direction that ends last ends the stream.
func (s *stream) say(how end) {
	c := s.conn
	c.mu.Lock()
	if s.aborted {
		how = broken // Whatever the read yielded, the other direction has failed.
	}
	s.moved = true
	s.sent = how
	last := s.got != open && c.accept != nil
	// Idle says fin as well, and a peer that broke the stream need not hear that
	// it is broken.
	silent := last && (how == finished || s.got == broken)
	c.mu.Unlock()
	var err error
	if !silent {
		t := wire.ControlFin
		if how == broken {
			t = wire.ControlReset
		}
		err = c.write(t)
	}
	if last && err == nil {
		err = s.leave()
	}
	if err != nil {
		c.Close()
	}
}

// breakOff resets the local connection after a failed write and has the peer
// told: by the pump, whose read fails now, or by the caller if the pump has
// said fin already.
func (s *stream) breakOff() error {
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

// leave tells the tunnel server that this end is done with the stream.
func (s *stream) leave() error {
	c := s.conn
	c.mu.Lock()
	if s.over {
		c.mu.Unlock()
		return nil // A reset came while the pump said so.
	}
	s.over = true
	if !s.aborted {
		_ = s.local.Close()
	}
	s.stopGraceLocked()
	// Before the message: the next open may follow it at once.
	c.stream = nil
	c.mu.Unlock()
	return c.write(wire.ControlIdle)
}

// abortLocked resets the local connection, and gives the peer a while to let go
// of the stream.
func (s *stream) abortLocked() {
	if s.aborted {
		return
	}
	s.aborted = true
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

// Reset closes a TCP connection with a RST in place of a FIN: the peer learns
// that it was cut off, not that all was said.
func Reset(c *net.TCPConn) {
	// A connection that is closed already needs neither.
	_ = c.SetLinger(0)
	_ = c.Close()
}
