//go:build linux

package player

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/eclitunnel/eclitunnel/test/run/bench/pattern"
)

// udpBuffer is the room for answers that wait, in bytes: the player must not be
// what loses them.
const udpBuffer = 2 << 20

// maxDatagram is more than any datagram that is sent, so that one that became
// too long shows.
const maxDatagram = 2048

var flows atomic.Uint64

// flow is one player's socket for UDP.
type flow struct {
	conn *net.UDPConn
	id   uint64
	size int
	next uint64
	out  []byte
	in   []byte
}

func openFlow(ctx context.Context, addr string, size int) (*flow, error) {
	conn, err := dialer(addr).DialContext(ctx, "udp", addr)
	if err != nil {
		return nil, fmt.Errorf("open a flow: %w", err)
	}
	udp := conn.(*net.UDPConn)
	//nolint:errcheck // the kernel's default is less room and no reason to stop
	udp.SetReadBuffer(udpBuffer)
	return &flow{
		conn: udp, id: flows.Add(1), size: size,
		out: make([]byte, size), in: make([]byte, maxDatagram),
	}, nil
}

// send sends the next datagram and returns its number.
func (f *flow) send() (uint64, error) {
	f.next++
	pattern.FillDatagram(f.out, f.id, f.next)
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
	return pattern.CheckDatagram(datagram, f.size, f.id)
}

// await waits for a datagram, passing over late ones before it.
func (f *flow) await(number uint64, until time.Time) error {
	if err := f.conn.SetReadDeadline(until); err != nil {
		return err
	}
	for {
		got, err := f.receive()
		if err != nil || got == number {
			return err
		}
	}
}

// Flows opens n flows, has each answered once and then, while all are open, once
// more, and returns how many were answered both times. No datagram is repeated.
func Flows(ctx context.Context, addr string, n int) (answered int, err error) {
	var all []*flow
	defer func() {
		for _, f := range all {
			f.conn.Close()
		}
	}()
	for range n {
		f, err := openFlow(ctx, addr, LoadSize)
		if err != nil {
			return 0, err
		}
		all = append(all, f)
	}
	alive := all
	for range 2 {
		if alive, err = oneRound(ctx, alive); err != nil {
			return 0, err
		}
	}
	return len(alive), nil
}

const (
	// burst datagrams are sent at a time, burstPause apart: players arrive
	// quickly, but a socket's buffer of the kernel's usual size holds them.
	burst      = 100
	burstPause = 2 * time.Millisecond
	// roundPatience is how long the answers of a round may take in all.
	roundPatience = 3 * time.Second
)

// oneRound sends a datagram on each flow and returns the flows on which it came back.
func oneRound(ctx context.Context, all []*flow) (answered []*flow, err error) {
	for i, f := range all {
		if i%burst == burst-1 {
			time.Sleep(burstPause)
		}
		if _, err := f.send(); err != nil {
			return nil, fmt.Errorf("flow %d of %d: %w", i, len(all), err)
		}
	}
	deadline := time.Now().Add(roundPatience)
	for _, f := range all {
		switch err := f.await(f.next, deadline); {
		case err == nil:
			answered = append(answered, f)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return nil, err
		}
	}
	return answered, ctx.Err()
}
