//go:build linux

package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/time/rate"
)

// messageSize is the size in bytes of what is sent to and fro.
const messageSize = 64

// StartDownload receives from the game over so many streams, at rate bytes a
// second each, or as fast as it can with 0. It counts bytes.
func StartDownload(ctx context.Context, addr string, streams int, rate uint64) (*Activity, error) {
	a, ctx := newActivity(ctx)
	return a, a.ask(ctx, addr, streams, opDownload, rate, func(conn *net.TCPConn) {
		a.play(ctx, conn, func() error {
			before := uint64(0)
			_, err := verify(conn, func(position uint64) error {
				a.count.Add(position - before)
				before = position
				return nil
			})
			return fmt.Errorf("download, after %d bytes: %w", before, orEOF(err))
		})
	})
}

// orEOF is an error where one is due: the end of a stream is one.
func orEOF(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

// StartUpload sends to the game over so many streams, as fast as it can. Bytes count
// once the game has verified them, which it says for every block of so many of them.
func StartUpload(ctx context.Context, addr string, streams int, block uint64) (*Activity, error) {
	a, ctx := newActivity(ctx)
	return a, a.ask(ctx, addr, streams, opUpload, block, func(conn *net.TCPConn) {
		a.play(ctx, conn, func() error {
			for position := uint64(0); ; {
				n, err := conn.Write(slice(position, maxSlice))
				if err != nil {
					return fmt.Errorf("upload, after %d bytes: %w", position, err)
				}
				position += uint64(n)
			}
		})
		a.play(ctx, conn, func() error {
			var ack [8]byte
			for before := uint64(0); ; {
				if _, err := io.ReadFull(conn, ack[:]); err != nil {
					return fmt.Errorf("upload, after %d bytes were acknowledged: %w", before, err)
				}
				acknowledged := binary.LittleEndian.Uint64(ack[:])
				a.count.Add(acknowledged - before)
				before = acknowledged
			}
		})
	})
}

// StartJoins has players come, wait for the greeting and leave, so many at a time.
// It counts players.
func StartJoins(ctx context.Context, addr string, atATime int) *Activity {
	a, ctx := newActivity(ctx)
	for range atATime {
		a.play(ctx, io.NopCloser(nil), func() error {
			for ctx.Err() == nil {
				conn, err := join(ctx, addr)
				if err != nil {
					return err
				}
				conn.Close()
				a.count.Add(1)
			}
			return nil
		})
	}
	return a
}

// echoMessage sends a message and verifies that it comes back.
func echoMessage(conn net.Conn, buf []byte, position uint64) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Write(slice(position, len(buf))); err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	if _, err := io.ReadFull(conn, buf); err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	return check(buf, position)
}

// Echo measures round trips over TCP, one after another for d, with a pause
// between two.
func Echo(ctx context.Context, addr string, d, pause time.Duration) ([]time.Duration, error) {
	conn, err := ask(ctx, addr, opEcho, 0)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var times []time.Duration
	buf, end := make([]byte, messageSize), time.Now().Add(d)
	for position := uint64(0); ; position += messageSize {
		sent := time.Now()
		if sent.After(end) || ctx.Err() != nil {
			return times, ctx.Err()
		}
		if err := echoMessage(conn, buf, position); err != nil {
			return nil, err
		}
		times = append(times, time.Since(sent))
		time.Sleep(pause)
	}
}

// Crowd is players who have joined and are silent.
type Crowd []*net.TCPConn

// gatherRate is how many players of a crowd say something per second. Linux sends the
// keepalive probes of what was last used within the same quarter of a second at once,
// again and again, and a loopback interface drops what exceeds 1,000 packets
// (net.core.netdev_max_backlog). A player's way has a dozen sockets.
const gatherRate = 250

// Gather has n players join. Each sends something and has it back first, so
// that what a connection needs when it is used is allocated.
func Gather(ctx context.Context, addr string, n int) (Crowd, error) {
	var c Crowd
	for range n {
		conn, err := ask(ctx, addr, opEcho, 0)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c = append(c, conn)
	}
	if err := c.Verify(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Verify has every player send something and have it back.
func (c Crowd) Verify(ctx context.Context) error {
	buf := make([]byte, messageSize)
	turns := rate.NewLimiter(gatherRate, 1)
	for _, conn := range c {
		if err := turns.Wait(ctx); err != nil {
			return err
		}
		if err := echoMessage(conn, buf, 0); err != nil {
			return err
		}
	}
	return nil
}

// Close has all of them leave.
func (c Crowd) Close() error {
	var errs []error
	for _, conn := range c {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// Stall begins a download of which nothing is ever read.
func Stall(ctx context.Context, addr string) (io.Closer, error) {
	return ask(ctx, addr, opDownload, 0)
}

// HalfClose reports whether the tunnel passes on that one direction has ended
// while the other goes on.
func HalfClose(ctx context.Context, addr string, wait time.Duration) (bool, error) {
	conn, err := ask(ctx, addr, opCount, 0)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	sent, err := conn.Write(slice(0, maxSlice))
	if err != nil {
		return false, err
	}
	if err := errors.Join(conn.CloseWrite(), conn.SetReadDeadline(time.Now().Add(wait))); err != nil {
		return false, err
	}
	var b [8]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		// The tunnel took the end of one direction for that of both, or for none.
		return false, nil //nolint:nilerr // whichever error it shows as is the answer
	}
	if got := binary.LittleEndian.Uint64(b[:]); got != uint64(sent) {
		return false, fmt.Errorf("%w: the game counted %d bytes of %d", ErrWrong, got, sent)
	}
	return true, nil
}
