//go:build linux

package player

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/eclitunnel/eclitunnel/test/run/bench/pattern"
	"github.com/eclitunnel/eclitunnel/test/run/bench/target"
)

const (
	// messageSize is the size in bytes of what is sent to and fro.
	messageSize = 64
	// LostAfter is when an answer over UDP is given up.
	LostAfter = time.Second
)

// Echo measures round trips over TCP, one after another for d, with a pause
// between two.
func Echo(ctx context.Context, addr string, d, pause time.Duration) ([]time.Duration, error) {
	conn, err := ask(ctx, addr, target.Request{Op: target.OpEcho})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var times []time.Duration
	buf := make([]byte, messageSize)
	end := time.Now().Add(d)
	for position := uint64(0); ; position += messageSize {
		sent := time.Now()
		if sent.After(end) || ctx.Err() != nil {
			return times, ctx.Err()
		}
		if err := conn.SetDeadline(sent.Add(patience)); err != nil {
			return nil, err
		}
		if _, err := conn.Write(pattern.Slice(position, messageSize)); err != nil {
			return nil, fmt.Errorf("echo: %w", err)
		}
		if _, err := io.ReadFull(conn, buf); err != nil {
			return nil, fmt.Errorf("echo: %w", err)
		}
		times = append(times, time.Since(sent))
		if err := pattern.Check(buf, position); err != nil {
			return nil, fmt.Errorf("echo: %w", err)
		}
		time.Sleep(pause)
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
		if err := f.await(number, sent.Add(LostAfter)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
		times = append(times, time.Since(sent))
		time.Sleep(pause)
	}
}
