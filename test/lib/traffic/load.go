//go:build linux

package traffic

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/net/ipv4"
)

// remembered is how many of a flow's datagrams may be sent before one that has
// not come back is given up. Far above any window.
const remembered = 4096

// loadFlow is a flow that keeps a window of datagrams in flight.
type loadFlow struct {
	*flow
	activity *Activity
	batch    *ipv4.PacketConn
	in, out  []ipv4.Message
	inFlight [remembered]uint64 // The number, by number modulo remembered; 0 once answered.
	missing  int                // How many are in flight.
}

// StartLoad opens flows that each keep a window of datagrams in flight. It counts
// those that came back.
func StartLoad(ctx context.Context, addr string, flows, window int) (*Activity, error) {
	a, ctx := newActivity(ctx)
	for range flows {
		f, err := openFlow(ctx, addr, LoadSize)
		if err != nil {
			return nil, errors.Join(err, a.Close())
		}
		l := &loadFlow{
			flow: f, activity: a, batch: ipv4.NewPacketConn(f.conn),
			in: newMessages(window, maxDatagram), out: newMessages(window, LoadSize),
		}
		a.play(ctx, f.conn, l.play)
	}
	return a, nil
}

// play keeps the window full: what is answered or lost makes room for as many.
func (f *loadFlow) play() error {
	for {
		if err := f.fill(); err != nil {
			return fmt.Errorf("load: %w", err)
		}
		if err := f.conn.SetReadDeadline(time.Now().Add(LostAfter)); err != nil {
			return err
		}
		n, err := f.batch.ReadBatch(f.in, 0)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// Nothing has come for so long: all that were in flight are lost.
			f.activity.lost.Add(uint64(f.missing))
			f.missing = 0
			clear(f.inFlight[:])
			continue
		}
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		for _, m := range f.in[:n] {
			number, err := f.check(m.Buffers[0][:m.N])
			if err != nil {
				return fmt.Errorf("load: %w", err)
			}
			// One that is not in flight came twice, or after it was given up.
			if slot := &f.inFlight[number%remembered]; *slot == number {
				*slot = 0
				f.missing--
				f.activity.count.Add(1)
			}
		}
	}
}

// fill sends as many datagrams as the window has room for.
func (f *loadFlow) fill() error {
	out := f.out[:len(f.out)-f.missing]
	for _, m := range out {
		f.next++
		fillDatagram(m.Buffers[0], f.id, f.next)
		slot := &f.inFlight[f.next%remembered]
		if *slot == 0 {
			f.missing++
		} else { // The one before it in this place is lost.
			f.activity.lost.Add(1)
		}
		*slot = f.next
	}
	for len(out) > 0 {
		sent, err := f.batch.WriteBatch(out, 0)
		if err != nil {
			return err
		}
		out = out[sent:]
	}
	return nil
}
