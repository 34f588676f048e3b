//go:build linux

package player

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclitunnel/eclitunnel/test/run/bench/pattern"
	"github.com/eclitunnel/eclitunnel/test/run/bench/target"
)

// Joins is players who come, hear the game speak and leave, until Close.
type Joins struct {
	fate
	count  atomic.Uint64
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// StartJoins lets players come, so many at a time.
func StartJoins(ctx context.Context, addr string, atATime int) *Joins {
	ctx, cancel := context.WithCancel(ctx)
	j := &Joins{fate: fate{failed: make(chan struct{})}, cancel: cancel}
	for range atATime {
		j.done.Go(func() {
			for ctx.Err() == nil {
				conn, err := join(ctx, addr)
				if err != nil {
					j.fail(err)
					return
				}
				conn.Close()
				j.count.Add(1)
			}
		})
	}
	return j
}

// Count is how many players have come and gone.
func (j *Joins) Count() uint64 { return j.count.Load() }

// Close lets no more players come and returns what went wrong before.
func (j *Joins) Close() error {
	j.closing.Store(true)
	j.cancel()
	j.done.Wait()
	return j.err
}

// Crowd is players who have joined and do nothing.
type Crowd struct{ conns []*net.TCPConn }

// Gather lets n players join. Each sends something and has it back first, so
// that what a connection needs when it is used has been had.
func Gather(ctx context.Context, addr string, n int) (*Crowd, error) {
	c := new(Crowd)
	for range n {
		conn, err := ask(ctx, addr, target.Request{Op: target.OpEcho})
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.conns = append(c.conns, conn)
		if err := oneEcho(conn); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// Verify has every player send something and have it back.
func (c *Crowd) Verify() error {
	for _, conn := range c.conns {
		if err := oneEcho(conn); err != nil {
			return err
		}
	}
	return nil
}

// Close lets all of them leave.
func (c *Crowd) Close() error {
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

func oneEcho(conn *net.TCPConn) error {
	if _, err := conn.Write(pattern.Slice(0, messageSize)); err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	var buf [messageSize]byte
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, buf[:]); err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	return pattern.Check(buf[:], 0)
}
