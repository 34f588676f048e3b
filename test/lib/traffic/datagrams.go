//go:build linux

package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"
)

const (
	// LoadSize is the size in bytes of the datagrams of a load and of Flows.
	LoadSize = 200
	// LostAfter is when an answer over UDP is given up.
	LostAfter = time.Second
	// playerUDPBuffer is the room for answers that wait, in bytes: the player must
	// not be what loses them.
	playerUDPBuffer = 2 << 20
)

var flows atomic.Uint64

// flow is one player's socket for UDP.
type flow struct {
	conn    *net.UDPConn
	id      uint64
	next    uint64 // The number of the datagram sent last.
	out, in []byte
}

func openFlow(ctx context.Context, addr string, size int) (*flow, error) {
	conn, err := dialer(addr).DialContext(ctx, "udp", addr)
	if err != nil {
		return nil, fmt.Errorf("open a flow: %w", err)
	}
	udp := conn.(*net.UDPConn)
	//nolint:errcheck // the kernel's default is less room and no reason to stop
	udp.SetReadBuffer(playerUDPBuffer)
	return &flow{conn: udp, id: flows.Add(1), out: make([]byte, size), in: make([]byte, maxDatagram)}, nil
}

// send sends the next datagram and returns its number.
func (f *flow) send() (uint64, error) {
	f.next++
	fillDatagram(f.out, f.id, f.next)
	_, err := f.conn.Write(f.out)
	return f.next, err
}

// receive verifies the next datagram that comes and returns its number.
func (f *flow) receive() (uint64, error) {
	n, err := f.conn.Read(f.in)
	if err != nil {
		return 0, err
	}
	return f.check(f.in[:n])
}

func (f *flow) check(datagram []byte) (uint64, error) {
	return checkDatagram(datagram, len(f.out), f.id)
}

// receiveNumber waits for a datagram, passing over late ones before it, and
// reports whether it came in time.
func (f *flow) receiveNumber(number uint64, until time.Time) (bool, error) {
	if err := f.conn.SetReadDeadline(until); err != nil {
		return false, err
	}
	for {
		got, err := f.receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, nil
		}
		if err != nil || got == number {
			return err == nil, err
		}
	}
}

// EchoDatagrams measures round trips over UDP, one after another for d, with a
// pause between two. A datagram that gets lost counts with the time after which
// it was given up.
func EchoDatagrams(ctx context.Context, addr string, d, pause time.Duration) ([]time.Duration, error) {
	f, err := openFlow(ctx, addr, messageSize)
	if err != nil {
		return nil, err
	}
	defer f.conn.Close()
	var times []time.Duration
	end := time.Now().Add(d)
	for {
		sent := time.Now()
		if sent.After(end) || ctx.Err() != nil {
			return times, ctx.Err()
		}
		number, err := f.send()
		if err != nil {
			return nil, err
		}
		if _, err := f.receiveNumber(number, sent.Add(LostAfter)); err != nil {
			return nil, err
		}
		times = append(times, time.Since(sent))
		time.Sleep(pause)
	}
}

const (
	// burst datagrams are sent at a time, burstPause apart: players arrive
	// quickly, but a socket's buffer of the kernel's usual size holds them.
	burst      = 100
	burstPause = 2 * time.Millisecond
	// roundPatience is how long the answers of a round may take in all.
	roundPatience = 3 * time.Second
)

// Flows opens n flows, has each answered once and then, while all are open, once
// more, and returns how many were answered both times. No datagram is repeated.
func Flows(ctx context.Context, addr string, n int) (answered int, err error) {
	var alive []*flow
	for range n {
		f, err := openFlow(ctx, addr, LoadSize)
		if err != nil {
			return 0, err
		}
		defer f.conn.Close()
		alive = append(alive, f)
	}
	for range 2 {
		for i, f := range alive {
			if i%burst == burst-1 {
				time.Sleep(burstPause)
			}
			if _, err := f.send(); err != nil {
				return 0, fmt.Errorf("flow %d of %d: %w", i, n, err)
			}
		}
		deadline := time.Now().Add(roundPatience)
		var still []*flow
		for _, f := range alive {
			in, err := f.receiveNumber(f.next, deadline)
			if err != nil {
				return 0, err
			}
			if in {
				still = append(still, f)
			}
		}
		alive = still
	}
	return len(alive), ctx.Err()
}
