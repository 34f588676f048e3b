//go:build linux

package traffic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// staySize is the size in bytes of each message of a player who stays.
	staySize = 512
	// stayRemembered is how many datagrams are sent before one that has not come
	// back is lost.
	stayRemembered = 64
)

// Visit joins the game, has as many messages come back, and leaves.
func (p Player) Visit(ctx context.Context, addr string, messages int) error {
	conn, err := p.ask(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	buf := make([]byte, messageSize)
	for range messages {
		if err := echoMessage(conn, buf, 0); err != nil {
			return err
		}
	}
	return nil
}

// VisitDatagrams opens a flow and waits until a datagram has come back; it sends
// another each pause, as a game whose player waits would.
func (p Player) VisitDatagrams(ctx context.Context, addr string, pause time.Duration) error {
	f, err := openFlow(ctx, addr, staySize)
	if err != nil {
		return err
	}
	defer f.conn.Close()
	defer context.AfterFunc(ctx, func() { f.conn.Close() })()
	for {
		if _, err := p.send(f); err != nil && !refused(err) {
			return fmt.Errorf("flow: %w", err)
		}
		if err := f.conn.SetReadDeadline(time.Now().Add(pause)); err != nil {
			return fmt.Errorf("flow: %w", err)
		}
		_, err := p.receive(f)
		var timeout net.Error
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("flow: no datagram came back: %w", ctx.Err())
		case refused(err):
			// The error comes at once, and again at once.
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		case !errors.As(err, &timeout) || !timeout.Timeout():
			return fmt.Errorf("flow: %w", err)
		}
	}
}

// refused reports whether err is the answer of a port that is closed, which UDP
// gives now and then and which ends nothing.
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// Stay joins the game, sends it some bytes each pause, and verifies that every
// byte comes back, until ctx ends: then it ends its direction and verifies that
// nothing is missing. answered is called with when what came back was sent.
func (p Player) Stay(ctx context.Context, addr string, pause time.Duration, answered func(sent time.Time)) error {
	conn, err := p.ask(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	s := &stay{conn: conn, answered: answered}
	over, end := context.WithCancel(ctx)
	var sending sync.WaitGroup
	sending.Go(func() { s.send(over, pause) })
	defer sending.Wait()
	defer end()
	return s.receive()
}

type stay struct {
	conn     *echoed
	answered func(time.Time)

	mu   sync.Mutex
	sent []time.Time // Of each message that has not come back.
	// total is how many messages were sent, once ended: when no more will be.
	total int
	ended bool
}

// send sends until ctx ends or it fails, which receive sees too.
func (s *stay) send(ctx context.Context, pause time.Duration) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			s.mu.Lock()
			s.total, s.ended = n, true
			s.mu.Unlock()
			//nolint:errcheck // one that fails has failed for the receiver too
			s.conn.CloseWrite()
			//nolint:errcheck // as above
			s.conn.SetReadDeadline(time.Now().Add(patience))
			return
		case <-tick.C:
		}
		s.mu.Lock()
		s.sent = append(s.sent, time.Now())
		s.mu.Unlock()
		if _, err := s.conn.Write(slice(uint64(n)*staySize, staySize)); err != nil {
			return
		}
	}
}

func (s *stay) receive() error {
	buf := make([]byte, readBuffer)
	for position := uint64(0); ; {
		n, err := s.conn.Read(buf)
		if err := check(buf[:n], position); err != nil {
			return fmt.Errorf("stay: %w", err)
		}
		before := position / staySize
		position += uint64(n)
		for range position/staySize - before {
			s.mu.Lock()
			if len(s.sent) == 0 {
				s.mu.Unlock()
				return fmt.Errorf("stay: %w: more came back than was sent", ErrWrong)
			}
			sent := s.sent[0]
			s.sent = s.sent[1:]
			s.mu.Unlock()
			s.answered(sent)
		}
		if err == nil {
			continue
		}
		return s.over(position, err)
	}
}

// over says what the end of the stream means.
func (s *stay) over(position uint64, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.ended || !errors.Is(err, io.EOF):
		return fmt.Errorf("stay, after %d bytes: %w", position, err)
	case position != uint64(s.total)*staySize:
		return fmt.Errorf("stay: %w: %d bytes came back of %d", ErrWrong, position, s.total*staySize)
	}
	return nil
}

// StayDatagrams sends a datagram of one flow each pause and verifies what comes
// back, until ctx ends. None may come twice. answered is called with when what
// came back was sent, lost with when what did not was.
func (p Player) StayDatagrams(ctx context.Context, addr string, pause time.Duration, answered, lost func(sent time.Time)) error {
	f, err := openFlow(ctx, addr, staySize)
	if err != nil {
		return err
	}
	defer f.conn.Close()
	defer context.AfterFunc(ctx, func() { f.conn.Close() })()
	var next atomic.Uint64 // What was sent last.
	sentAt := make([]atomic.Int64, stayRemembered)
	var receiving sync.WaitGroup
	failed := make(chan error, 1)
	receiving.Go(func() {
		failed <- p.stayReceive(ctx, f, func(number uint64) (time.Time, bool) {
			if number+stayRemembered <= next.Load() {
				return time.Time{}, true // Too old to know.
			}
			at := sentAt[number%stayRemembered].Swap(0)
			return time.Unix(0, at), at != 0
		}, answered)
	})
	defer receiving.Wait()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			f.conn.Close()
			return <-failed
		case <-tick.C:
		}
		number := f.next + 1
		if at := sentAt[number%stayRemembered].Swap(time.Now().UnixNano()); at != 0 {
			lost(time.Unix(0, at))
		}
		next.Store(number)
		if _, err := p.send(f); err != nil && !refused(err) && ctx.Err() == nil {
			f.conn.Close()
			return errors.Join(fmt.Errorf("stay, over UDP: %w", err), <-failed)
		}
	}
}

// stayReceive verifies what comes back until ctx ends.
func (p Player) stayReceive(ctx context.Context, f *flow, take func(number uint64) (time.Time, bool), answered func(time.Time)) error {
	for {
		number, err := p.receive(f)
		switch {
		case errors.Is(err, ErrWrong):
			return fmt.Errorf("stay, over UDP: %w", err)
		case ctx.Err() != nil:
			return nil
		case refused(err):
			continue
		case err != nil:
			return fmt.Errorf("stay, over UDP: %w", err)
		}
		sent, fresh := take(number)
		if !fresh {
			return fmt.Errorf("stay, over UDP: %w: datagram %d came twice", ErrWrong, number)
		}
		if !sent.IsZero() {
			answered(sent)
		}
	}
}
