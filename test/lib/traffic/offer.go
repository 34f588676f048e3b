//go:build linux

package traffic

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

// Offer is flows on which datagrams are sent at a fixed rate, whether or not any
// comes back.
type Offer struct{ flows []*offerFlow }

type offerFlow struct {
	*flow
	base time.Time
	// Of a run: the number of the datagram before its first, when each was sent,
	// by number modulo the length, and the round trips.
	before uint64
	sent   []atomic.Int64
	times  []time.Duration
}

// OpenOffer opens so many flows of datagrams of a size in bytes.
func OpenOffer(ctx context.Context, addr string, flows, size int) (*Offer, error) {
	o, base := new(Offer), time.Now()
	for range flows {
		f, err := openFlow(ctx, addr, size)
		if err != nil {
			return nil, errors.Join(err, o.Close())
		}
		o.flows = append(o.flows, &offerFlow{flow: f, base: base})
	}
	return o, nil
}

// Close ends the flows.
func (o *Offer) Close() error {
	var errs []error
	for _, f := range o.flows {
		errs = append(errs, f.conn.Close())
	}
	return errors.Join(errs...)
}

// Run sends so many datagrams a second for d, evenly over the flows. What comes
// back later than half a second after the last was sent is lost.
func (o *Offer) Run(ctx context.Context, rate int, d time.Duration) (Offered, error) {
	var receiving sync.WaitGroup
	failed := make([]error, len(o.flows))
	for i, f := range o.flows {
		expected := int(d.Seconds()*float64(rate))/len(o.flows) + 2
		f.before, f.sent, f.times = f.next, make([]atomic.Int64, expected), make([]time.Duration, 0, expected)
		if err := f.conn.SetReadDeadline(time.Time{}); err != nil {
			return Offered{}, err
		}
		receiving.Go(func() { failed[i] = f.collect() })
	}
	sent, err := offer(ctx, o.flows, rate, d)
	for _, f := range o.flows {
		err = errors.Join(err, f.conn.SetReadDeadline(time.Now().Add(drain)))
	}
	receiving.Wait()
	result := Offered{Sent: sent, Lost: sent}
	for _, f := range o.flows {
		result.Times = append(result.Times, f.times...)
		result.Lost -= len(f.times)
	}
	return result, errors.Join(append(failed, err)...)
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
		if number <= f.before {
			continue // it was lost in an earlier run
		}
		slot := int(number) % len(f.sent)
		if seen[slot] {
			return fmt.Errorf("datagram %d of flow %d came twice", number, f.id)
		}
		seen[slot] = true
		f.times = append(f.times, time.Since(f.base)-time.Duration(f.sent[slot].Load()))
	}
}
