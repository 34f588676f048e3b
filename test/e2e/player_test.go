package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
)

// echo is a game that sends back what it gets, and half-closes when its player does.
type echo struct {
	port  int
	ln    net.Listener
	mu    sync.Mutex
	conns map[net.Conn]bool
	done  sync.WaitGroup
}

func startEcho(t testing.TB) *echo {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{port: ln.Addr().(*net.TCPAddr).Port, ln: ln, conns: make(map[net.Conn]bool)}
	e.done.Go(e.accept)
	t.Cleanup(e.close)
	return e
}

func (e *echo) accept() {
	for {
		conn, err := e.ln.Accept()
		if err != nil {
			return
		}
		e.mu.Lock()
		e.conns[conn] = true
		e.mu.Unlock()
		e.done.Go(func() {
			if _, err := io.Copy(conn, conn); err == nil {
				_ = conn.(*net.TCPConn).CloseWrite() // the player may be gone
			}
			e.mu.Lock()
			delete(e.conns, conn)
			e.mu.Unlock()
			conn.Close()
		})
	}
}

func (e *echo) close() {
	e.ln.Close()
	e.mu.Lock()
	for conn := range e.conns {
		conn.Close()
	}
	e.mu.Unlock()
	e.done.Wait()
}

// join connects a player, who is gone after the test at the latest.
func join(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

// exchange sends a number to an echo and waits for it to come back.
func exchange(conn net.Conn, number uint64, patience time.Duration) (time.Duration, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	started := time.Now()
	sent := binary.BigEndian.AppendUint64(nil, number)
	if _, err := conn.Write(sent); err != nil {
		return 0, err
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil {
		return 0, err
	}
	if !bytes.Equal(got, sent) {
		return 0, fmt.Errorf("sent %x, got %x", sent, got)
	}
	return time.Since(started), nil
}

// plays reports whether a new player can join an echo and talk to it.
func plays(ctx context.Context, addr string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = exchange(conn, rand.Uint64(), 2*time.Second)
	return err
}

// awaitPlay waits until a new player can join, and returns how long that took.
func awaitPlay(t *testing.T, d time.Duration, addr string) time.Duration {
	t.Helper()
	started := time.Now()
	await.Within(t, d, "player who can join", func(ctx context.Context) (bool, error) { return plays(ctx, addr) == nil, nil })
	return time.Since(started)
}

// stream plays n bytes of a stream that belongs to seed alone through an echo,
// both ways at once, and checks every byte that returns. Then it half-closes
// and expects the game's end of the stream and nothing more.
func stream(ctx context.Context, addr string, seed byte, n int64) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, io.LimitReader(rand.NewChaCha8([32]byte{seed}), n))
		sent <- errors.Join(err, conn.(*net.TCPConn).CloseWrite())
	}()
	got, err := verify(conn, rand.NewChaCha8([32]byte{seed}))
	if err != nil {
		conn.Close()
	}
	err = errors.Join(err, <-sent)
	if err == nil && got != n {
		err = fmt.Errorf("%d of %d bytes came back", got, n)
	}
	return err
}

// verify reads to the end and compares with what is expected.
func verify(r io.Reader, expected io.Reader) (int64, error) {
	got, want := make([]byte, 64<<10), make([]byte, 64<<10)
	for total := int64(0); ; {
		n, err := r.Read(got)
		if _, err := io.ReadFull(expected, want[:n]); err != nil {
			return total, err
		}
		if !bytes.Equal(got[:n], want[:n]) {
			return total, fmt.Errorf("the stream differs within %d bytes behind byte %d", n, total)
		}
		total += int64(n)
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// firehose is a game that sends as fast as it can to the first player who joins.
type firehose struct {
	port  int
	ln    net.Listener
	total atomic.Int64
	stall atomic.Bool
	done  sync.WaitGroup
}

func startFirehose(t *testing.T) *firehose {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &firehose{port: ln.Addr().(*net.TCPAddr).Port, ln: ln}
	closing := make(chan struct{})
	f.done.Go(func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		f.pour(conn)
		<-closing
	})
	t.Cleanup(func() {
		close(closing)
		ln.Close()
		f.done.Wait()
	})
	return f
}

// pour writes until nothing has moved for a second.
func (f *firehose) pour(conn net.Conn) {
	chunk := make([]byte, 64<<10)
	for {
		if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			return
		}
		n, err := conn.Write(chunk)
		f.total.Add(int64(n))
		if err != nil {
			f.stall.Store(errors.Is(err, os.ErrDeadlineExceeded))
			return
		}
	}
}

func (f *firehose) sent() int64   { return f.total.Load() }
func (f *firehose) stalled() bool { return f.stall.Load() }
