//go:build linux

package player

import (
	"context"
	"encoding/binary"
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

const (
	// readBuffer is large, so that the player costs little.
	readBuffer = 256 << 10
	// uploadBlock is how much of an upload is acknowledged at a time.
	uploadBlock = 256 << 10
)

// Transfer is bytes on their way, over one or more connections, until Close.
type Transfer struct {
	fate
	bytes atomic.Uint64
	conns []*net.TCPConn
	done  sync.WaitGroup
}

// StartDownload receives from the game over so many streams, at rate bytes a
// second each, or as fast as it goes with 0.
func StartDownload(ctx context.Context, addr string, streams int, rate uint64) (*Transfer, error) {
	return start(ctx, addr, streams, target.Request{Op: target.OpDownload, Arg: rate}, (*Transfer).download)
}

// StartUpload sends to the game. Bytes count once the game has verified them.
func StartUpload(ctx context.Context, addr string, streams int) (*Transfer, error) {
	return start(ctx, addr, streams, target.Request{Op: target.OpUpload, Arg: uploadBlock}, (*Transfer).upload)
}

func start(ctx context.Context, addr string, streams int, r target.Request, move func(*Transfer, *net.TCPConn) error) (*Transfer, error) {
	t := &Transfer{fate: fate{failed: make(chan struct{})}}
	for range streams {
		conn, err := ask(ctx, addr, r)
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		t.conns = append(t.conns, conn)
		t.done.Go(func() { t.fail(move(t, conn)) })
	}
	return t, nil
}

// Count is how many bytes have arrived.
func (t *Transfer) Count() uint64 { return t.bytes.Load() }

// Close ends the transfer and returns what went wrong before.
func (t *Transfer) Close() error {
	t.closing.Store(true)
	for _, conn := range t.conns {
		conn.Close()
	}
	t.done.Wait()
	return t.err
}

func (t *Transfer) download(conn *net.TCPConn) error {
	buf := make([]byte, readBuffer)
	for position := uint64(0); ; {
		n, err := conn.Read(buf)
		if err != nil {
			return fmt.Errorf("download, after %d bytes: %w", position, err)
		}
		if err := pattern.Check(buf[:n], position); err != nil {
			return fmt.Errorf("download: %w", err)
		}
		position += uint64(n)
		t.bytes.Add(uint64(n))
	}
}

func (t *Transfer) upload(conn *net.TCPConn) error {
	sending := make(chan struct{})
	t.done.Go(func() {
		defer close(sending)
		for position := uint64(0); ; {
			n, err := conn.Write(pattern.Slice(position, pattern.MaxSlice))
			if err != nil {
				return // so the acknowledgements have ended, or will
			}
			position += uint64(n)
		}
	})
	var ack [8]byte
	for acknowledged := uint64(0); ; {
		if _, err := io.ReadFull(conn, ack[:]); err != nil {
			conn.Close() // ends the goroutine that sends
			<-sending
			return fmt.Errorf("upload, after %d bytes were acknowledged: %w", acknowledged, err)
		}
		now := binary.LittleEndian.Uint64(ack[:])
		t.bytes.Add(now - acknowledged)
		acknowledged = now
	}
}

// Stall begins a download of which nothing is ever read.
func Stall(ctx context.Context, addr string) (io.Closer, error) {
	return ask(ctx, addr, target.Request{Op: target.OpDownload})
}

// HalfClose reports whether the tunnel passes on that one direction has ended
// while the other goes on.
func HalfClose(ctx context.Context, addr string, wait time.Duration) (bool, error) {
	conn, err := ask(ctx, addr, target.Request{Op: target.OpCount})
	if err != nil {
		return false, err
	}
	defer conn.Close()
	sent, err := conn.Write(pattern.Slice(0, pattern.MaxSlice))
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
		return false, fmt.Errorf("the game counted %d bytes of %d", got, sent)
	}
	return true, nil
}
