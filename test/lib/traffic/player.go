//go:build linux

package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// patience is how long anything may take that is not measured by the clock
// itself. Whatever takes longer is broken.
const patience = 10 * time.Second

// addresses is how many addresses players come from on loopback.
const addresses = 60_000

var joined atomic.Uint64

// dialer returns a dialer that has the address of another player each time where
// the game is on loopback. It leaves the port to the kernel until it connects,
// so that ports just used by others are not in the way.
func dialer(addr string) *net.Dialer {
	d := &net.Dialer{Timeout: patience}
	to, err := netip.ParseAddrPort(addr)
	if err != nil || !to.Addr().Is4() || !to.Addr().IsLoopback() {
		return d
	}
	n := joined.Add(1) % addresses
	d.Control = func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			if failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); failed == nil {
				failed = unix.Bind(int(fd), &unix.SockaddrInet4{Addr: [4]byte{127, 1, byte(n / 250), byte(1 + n%250)}})
			}
		})
		if err != nil {
			return err
		}
		return failed
	}
	return d
}

// join connects to the game and waits for its greeting.
func join(ctx context.Context, addr string) (*net.TCPConn, error) {
	conn, err := dialer(addr).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	var b [1]byte
	if err = conn.SetReadDeadline(time.Now().Add(patience)); err == nil {
		_, err = io.ReadFull(conn, b[:])
	}
	if err == nil && b[0] != greeting {
		err = fmt.Errorf("%w: the game said %#x, not %#x", ErrWrong, b[0], greeting)
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("wait for the game's greeting: %w", err)
	}
	return conn.(*net.TCPConn), nil
}

// request is what asks the game to do something.
func request(op byte, arg uint64) []byte { return binary.LittleEndian.AppendUint64([]byte{op}, arg) }

// ask joins the game and makes a request.
func ask(ctx context.Context, addr string, op byte, arg uint64) (*net.TCPConn, error) {
	conn, err := join(ctx, addr)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(request(op, arg)); err != nil {
		conn.Close()
		return nil, fmt.Errorf("request %c: %w", op, err)
	}
	return conn, nil
}

// Activity is players who go on until it is closed, or fails.
type Activity struct {
	count, lost atomic.Uint64
	cancel      context.CancelFunc
	done        sync.WaitGroup
	once        sync.Once
	failed      chan struct{}
	err         error // Once failed is closed.
}

func newActivity(ctx context.Context) (*Activity, context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	return &Activity{cancel: cancel, failed: make(chan struct{})}, ctx
}

// play runs a player whose connection is closed once ctx or the player ends. What
// fails after the end of ctx is no failure.
func (a *Activity) play(ctx context.Context, conn io.Closer, player func() error) {
	a.done.Go(func() {
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		if err := player(); err != nil && ctx.Err() == nil {
			a.once.Do(func() {
				a.err = err
				close(a.failed)
			})
		}
	})
}

// joinsAtATime is how many players of an activity join at the same time.
const joinsAtATime = 16

// ask has many players join, make the same request and go on, each as soon as it has
// joined. It ends the activity if one fails to join.
func (a *Activity) ask(ctx context.Context, addr string, players int, op byte, arg uint64, play func(*net.TCPConn)) error {
	var joining errgroup.Group
	joining.SetLimit(joinsAtATime)
	for range players {
		joining.Go(func() error {
			conn, err := ask(ctx, addr, op, arg)
			if err == nil {
				play(conn)
			}
			return err
		})
	}
	if err := joining.Wait(); err != nil {
		return errors.Join(err, a.Close())
	}
	return nil
}

// Count is how much was done, in the activity's own unit.
func (a *Activity) Count() uint64 { return a.count.Load() }

// Lost is how many datagrams have not come back in time.
func (a *Activity) Lost() uint64 { return a.lost.Load() }

// Failed is closed when it has failed; Close says why.
func (a *Activity) Failed() <-chan struct{} { return a.failed }

// Close ends it and returns what went wrong before.
func (a *Activity) Close() error {
	a.cancel()
	a.done.Wait()
	return a.err
}
