//go:build linux

package player

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/eclitunnel/eclitunnel/test/run/bench/pattern"
)

// LoadSize is the size in bytes of the datagrams of a Load and an Offer.
const LoadSize = 200

// remembered is how many of a flow's datagrams may be sent before one that has
// not come back is given up. Far above any window.
const remembered = 4096

// Load is flows that each keep a window of datagrams in flight, until Close.
type Load struct {
	fate
	answered, lost atomic.Uint64
	flows          []*loadFlow
	done           sync.WaitGroup
}

type loadFlow struct {
	*flow
	load     *Load
	batch    *ipv4.PacketConn
	in, out  []ipv4.Message
	inFlight [remembered]uint64 // the number, by number modulo remembered; 0 once answered
	missing  int
	owed     int // lost ones that have not been replaced
}

// StartLoad opens so many flows with a window of so many datagrams each.
func StartLoad(ctx context.Context, addr string, flows, window int) (*Load, error) {
	l := &Load{fate: fate{failed: make(chan struct{})}}
	for range flows {
		f, err := openFlow(ctx, addr, LoadSize)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		lf := &loadFlow{
			flow: f, load: l, batch: ipv4.NewPacketConn(f.conn),
			in: messages(window, maxDatagram), out: messages(window, LoadSize),
		}
		l.flows = append(l.flows, lf)
		l.done.Go(func() { l.fail(lf.play(window)) })
	}
	return l, nil
}

func messages(n, size int) []ipv4.Message {
	m := make([]ipv4.Message, n)
	for i := range m {
		m[i].Buffers = [][]byte{make([]byte, size)}
	}
	return m
}

// Count is how many datagrams have come back.
func (l *Load) Count() uint64 { return l.answered.Load() }

// Lost is how many datagrams have not come back in time.
func (l *Load) Lost() uint64 { return l.lost.Load() }

// Close ends the load and returns what went wrong before.
func (l *Load) Close() error {
	l.closing.Store(true)
	for _, f := range l.flows {
		f.conn.Close()
	}
	l.done.Wait()
	return l.err
}

// play keeps the window full: what is answered makes room for as many.
func (f *loadFlow) play(window int) error {
	if err := f.fill(window); err != nil {
		return err
	}
	for {
		if err := f.conn.SetReadDeadline(time.Now().Add(LostAfter)); err != nil {
			return err
		}
		n, err := f.batch.ReadBatch(f.in, 0)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// Nothing has come for so long: all that were in flight are lost.
			f.load.lost.Add(uint64(f.missing))
			again := f.missing
			f.missing, f.owed = 0, 0
			clear(f.inFlight[:])
			if err := f.fill(again); err != nil {
				return fmt.Errorf("load: %w", err)
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		answered, err := f.take(f.in[:n])
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		f.load.answered.Add(uint64(answered))
		if err := f.fill(answered); err != nil {
			return fmt.Errorf("load: %w", err)
		}
	}
}

// take verifies answers and returns how many were in flight.
func (f *loadFlow) take(in []ipv4.Message) (int, error) {
	answered := 0
	for i := range in {
		number, err := f.check(in[i].Buffers[0][:in[i].N])
		if err != nil {
			return 0, err
		}
		// One that is not in flight came twice, or after it was given up.
		if slot := &f.inFlight[number%remembered]; *slot == number {
			*slot = 0
			answered++
		}
	}
	f.missing -= answered
	return answered, nil
}

// fill sends n datagrams, and as many as have turned out to be lost.
func (f *loadFlow) fill(n int) error {
	n = min(n+f.owed, len(f.out))
	f.owed = 0
	for _, m := range f.out[:n] {
		f.next++
		pattern.FillDatagram(m.Buffers[0], f.id, f.next)
		slot := &f.inFlight[f.next%remembered]
		if *slot != 0 {
			f.load.lost.Add(1)
			f.missing--
			f.owed++
		}
		*slot = f.next
	}
	f.missing += n
	for out := f.out[:n]; len(out) > 0; {
		sent, err := f.batch.WriteBatch(out, 0)
		if err != nil {
			return err
		}
		out = out[sent:]
	}
	return nil
}
