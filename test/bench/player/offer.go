//go:build linux

package player

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// offerTick is how often datagrams are sent.
	offerTick = 250 * time.Microsecond
	// drain is how long answers may take after the last datagram was sent.
	drain = 500 * time.Millisecond
)

// Offered is what became of datagrams sent at a fixed rate.
type Offered struct {
	Sent, Lost int
	// Times are the round trips of those that came back.
	Times []time.Duration
}

type offerFlow struct {
	*flow
	// sent is when each datagram was, by number modulo its length, since base.
	sent  []atomic.Int64
	base  time.Time
	times []time.Duration
}

// Offer sends so many datagrams a second for d, whether or not any comes back,
// evenly over so many flows.
func Offer(ctx context.Context, addr string, flows, rate int, d time.Duration) (Offered, error) {
	var (
		receiving sync.WaitGroup
		all       []*offerFlow
		failed    = make([]error, flows)
		base      = time.Now()
	)
	// Closing wakes the receivers where sending failed.
	defer receiving.Wait()
	for i := range flows {
		f, err := openFlow(ctx, addr, LoadSize)
		if err != nil {
			return Offered{}, err
		}
		defer f.conn.Close()
		expected := int(d.Seconds()*float64(rate))/flows + 2
		of := &offerFlow{
			flow: f, base: base, sent: make([]atomic.Int64, expected),
			times: make([]time.Duration, 0, expected),
		}
		all = append(all, of)
		receiving.Go(func() { failed[i] = of.collect() })
	}
	sent, err := offer(ctx, all, rate, d)
	if err != nil {
		return Offered{}, err
	}
	for _, f := range all {
		if err := f.conn.SetReadDeadline(time.Now().Add(drain)); err != nil {
			return Offered{}, err
		}
	}
	receiving.Wait()
	result := Offered{Sent: sent, Lost: sent}
	for _, f := range all {
		result.Times = append(result.Times, f.times...)
		result.Lost -= len(f.times)
	}
	return result, errors.Join(failed...)
}

// offer sends the datagrams that are due at every tick. The runtime's timers are
// too coarse for it, so it sleeps in the kernel on a thread of its own.
func offer(ctx context.Context, flows []*offerFlow, rate int, d time.Duration) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := time.Now()
	for sent := 0; ; {
		elapsed := time.Since(start)
		if elapsed >= d {
			return sent, ctx.Err()
		}
		for due := int(elapsed.Seconds() * float64(rate)); sent < due; sent++ {
			f := flows[sent%len(flows)]
			f.sent[int(f.next+1)%len(f.sent)].Store(int64(time.Since(f.base)))
			if _, err := f.send(); err != nil {
				return sent, fmt.Errorf("offer: %w", err)
			}
		}
		pause := unix.NsecToTimespec(int64(offerTick))
		//nolint:errcheck // a signal may wake it early, and the next tick is in time
		unix.Nanosleep(&pause, nil)
	}
}

// collect notes the round trips of a flow until its socket's deadline.
func (f *offerFlow) collect() error {
	seen := make([]bool, len(f.sent))
	for {
		number, err := f.receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("offer: %w", err)
		}
		slot := int(number) % len(f.sent)
		if seen[slot] {
			return fmt.Errorf("datagram %d of flow %d came twice", number, f.id)
		}
		seen[slot] = true
		f.times = append(f.times, time.Since(f.base)-time.Duration(f.sent[slot].Load()))
	}
}
