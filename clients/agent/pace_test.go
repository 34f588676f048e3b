package agent

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// home is a link with a queue, first in, first out, in simulated time.
type home struct {
	carries float64       // Bytes per second.
	base    time.Duration // Its round trip with an empty queue.
	foreign time.Duration // What somebody else's queue adds to that.
	now     time.Time
	queue   float64 // Bytes.
	flows   []*flowAtHome

	delivered float64
	waits     []time.Duration // In the queue, every millisecond.
}

// homeQueue is how many bytes the queue holds.
const homeQueue = 256 << 10

// flowAtHome is a connection that sends over a home's link.
type flowAtHome struct {
	home    *home
	wants   float64 // Bytes per second; 0: all it can get.
	blocked bool    // The other end takes no more than wants.
	closed  bool
	packet  int // Bytes.
	limited float64
	arrived float64
	stopped time.Duration
}

func (f *flowAtHome) read() (reading, error) {
	if f.closed {
		return reading{}, errors.New("closed")
	}
	wait := time.Duration(f.home.queue / f.home.carries * float64(time.Second))
	return reading{
		arrived: uint64(f.arrived),
		waiting: f.wants == 0 || f.blocked,
		blocked: f.stopped,
		trip:    f.home.base + f.home.foreign + wait,
		least:   f.home.base,
		packet:  f.packet,
	}, nil
}

func (f *flowAtHome) limit(bytesPerSecond float64) error {
	f.limited = bytesPerSecond
	return nil
}

// sends is what it sends now: with no limit, what overflows any queue.
func (f *flowAtHome) sends() float64 {
	rate := f.wants
	if rate == 0 {
		rate = 1.5 * f.home.carries
	}
	if f.limited > 0 {
		rate = min(rate, f.limited)
	}
	return rate
}

func newHome(megabits float64, base time.Duration) (*home, *pacer) {
	return &home{carries: megabits * 1e6 / 8, base: base, now: time.Unix(1e9, 0)}, newPacer()
}

func (h *home) flow(p *pacer, f flowAtHome) *flowAtHome {
	f.home = h
	h.flows = append(h.flows, &f)
	p.add("server", &f)
	return &f
}

// pass lets time pass, and measures that time alone.
func (h *home) pass(p *pacer, d time.Duration) {
	h.delivered, h.waits = 0, nil
	const step = time.Millisecond
	for end := h.now.Add(d); h.now.Before(end); {
		var offered float64
		for _, f := range h.flows {
			offered += f.sends() * step.Seconds()
		}
		through := min(h.queue+offered, h.carries*step.Seconds())
		h.queue = min(h.queue+offered-through, homeQueue)
		for _, f := range h.flows {
			f.arrived += through * f.sends() * step.Seconds() / offered
			if f.blocked {
				f.stopped += step
			}
		}
		h.delivered += through
		h.waits = append(h.waits, time.Duration(h.queue/h.carries*float64(time.Second)))
		h.now = h.now.Add(step)
		if h.now.UnixMilli()%paceTick.Milliseconds() == 0 {
			p.tick(h.now)
		}
	}
	slices.Sort(h.waits)
}

// used is the share of what the link carries that was delivered.
func (h *home) used() float64 {
	return h.delivered / h.carries / (float64(len(h.waits)) / 1000)
}

func (h *home) wait(quantile float64) time.Duration {
	return h.waits[int(quantile*float64(len(h.waits)-1))]
}

func (h *home) expect(t *testing.T, used float64, p50, p99 time.Duration) {
	t.Helper()
	if h.used() < used || h.wait(0.5) > p50 || h.wait(0.99) > p99 {
		t.Errorf("%.3f of the link used, at least %.3f wanted; waits in the queue %v at p50, %v at p99, at most %v, %v wanted",
			h.used(), used, h.wait(0.5), h.wait(0.99), p50, p99)
	}
}

const ms = time.Millisecond

func TestPacer_KeepsTheQueueShort(t *testing.T) {
	for _, c := range []struct {
		megabits         float64
		base             time.Duration
		flows            int
		settle, p50, p99 time.Duration
	}{
		{megabits: 100, base: ms / 10, flows: 1, settle: time.Second, p50: ms, p99: 6 * ms},
		{megabits: 100, base: 20 * ms, flows: 1, settle: time.Second, p50: ms, p99: 6 * ms},
		{megabits: 100, base: 20 * ms, flows: 8, settle: time.Second, p50: ms, p99: 6 * ms},
		{megabits: 500, base: 5 * ms, flows: 2, settle: time.Second, p50: ms, p99: 6 * ms},
		{megabits: 30, base: 100 * ms, flows: 1, settle: 2 * time.Second, p50: 4 * ms, p99: 16 * ms},
		{megabits: 5, base: 30 * ms, flows: 1, settle: 4 * time.Second, p50: 5 * ms, p99: 20 * ms},
	} {
		h, p := newHome(c.megabits, c.base)
		for range c.flows {
			h.flow(p, flowAtHome{})
		}
		h.pass(p, c.settle)
		h.pass(p, 20*time.Second)
		t.Logf("%v Mbit/s, %v, %d flows: %.3f used, waits %v p50, %v p99", c.megabits, c.base, c.flows, h.used(), h.wait(0.5), h.wait(0.99))
		h.expect(t, 0.95, c.p50, c.p99)
	}
}

func TestPacer_LimitsATransferThatStartsLaterFromItsFirstByte(t *testing.T) {
	h, p := newHome(100, 20*ms)
	first := h.flow(p, flowAtHome{})
	h.pass(p, 3*time.Second)
	first.closed = true
	h.flows = nil
	h.flow(p, flowAtHome{wants: 10e3}) // A game.
	h.pass(p, time.Minute)
	h.flow(p, flowAtHome{})
	h.pass(p, time.Second)
	h.expect(t, 0.9, ms, 6*ms)
}

func TestPacer_LeavesTheRestOfASlowTransferToTheOthers(t *testing.T) {
	h, p := newHome(100, 20*ms)
	slow := h.flow(p, flowAtHome{wants: 1e6})
	h.flow(p, flowAtHome{})
	h.flow(p, flowAtHome{})
	h.pass(p, 2*time.Second)
	before := slow.arrived
	h.pass(p, 10*time.Second)
	h.expect(t, 0.95, ms, 6*ms)
	if got := (slow.arrived - before) / 10; got < 0.99e6 {
		t.Errorf("the slow transfer gets %.0f of 1,000,000 B/s", got)
	}
}

func TestPacer_FollowsALinkThatGetsSlowerAndFaster(t *testing.T) {
	h, p := newHome(100, 20*ms)
	h.flow(p, flowAtHome{})
	h.pass(p, 5*time.Second)
	h.carries = 30e6 / 8
	h.pass(p, 3*time.Second)
	h.pass(p, 10*time.Second)
	h.expect(t, 0.95, 2*ms, 8*ms)
	h.carries = 200e6 / 8
	h.pass(p, 5*time.Second)
	h.pass(p, 5*time.Second)
	h.expect(t, 0.95, ms, 6*ms)
}

func TestPacer_LeavesEveryTransferSomePackets(t *testing.T) {
	const packet, transfers = 1448, 50
	h, p := newHome(100, 20*ms)
	for range transfers {
		h.flow(p, flowAtHome{packet: packet})
	}
	h.pass(p, 5*time.Second)
	h.carries = transfers * packet / 2 // All of them stall.
	h.pass(p, 20*time.Second)
	h.flow(p, flowAtHome{packet: packet})
	least := h.carries
	for _, f := range h.flows {
		if f.limited > 0 {
			least = min(least, f.limited)
		}
	}
	if least != packetsLeast*packet {
		t.Errorf("a transfer is limited to %.0f B/s, want %d", least, packetsLeast*packet)
	}
	if f := h.flows[transfers]; f.limited == 0 {
		t.Error("a new transfer is not limited")
	}
}

func TestPacer_DoesNotYieldToAQueueThatIsNotItsOwn(t *testing.T) {
	h, p := newHome(100, 20*ms)
	h.flow(p, flowAtHome{})
	h.pass(p, 5*time.Second)
	h.foreign = 15 * ms // Or the route has become longer.
	h.pass(p, 5*time.Second)
	if h.used() < 0.85 {
		t.Errorf("%.3f of the link used while it finds out", h.used())
	}
	h.pass(p, 20*time.Second)
	h.expect(t, 0.95, 2*ms, 8*ms)
}

func TestPacer_LeavesAlone(t *testing.T) {
	for name, c := range map[string]struct {
		megabits float64
		flow     flowAtHome
		foreign  time.Duration
	}{
		"what is faster than a home's link":           {megabits: 5000, foreign: 5 * ms},
		"what has no more to send":                    {megabits: 100, flow: flowAtHome{wants: 11e6}, foreign: 20 * ms},
		"what waits for the other end to take more":   {megabits: 100, flow: flowAtHome{wants: 1e6, blocked: true}, foreign: 20 * ms},
		"what sends next to nothing, however delayed": {megabits: 100, flow: flowAtHome{wants: 10e3}, foreign: 40 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			h, p := newHome(c.megabits, ms)
			h.foreign = c.foreign
			f := h.flow(p, c.flow)
			for range 200 {
				h.pass(p, 100*ms)
				if f.limited != 0 {
					t.Fatalf("limited to %.0f B/s", f.limited)
				}
			}
		})
	}
}

func TestPacer_LetsGoOfClosedConnections(t *testing.T) {
	h, p := newHome(100, 20*ms)
	var flows []*flowAtHome
	for range 3 * quietReadings {
		flows = append(flows, h.flow(p, flowAtHome{wants: 1}))
	}
	busy := h.flow(p, flowAtHome{})
	h.pass(p, time.Second)
	if connections, sends := p.tick(h.now); connections != len(flows)+1 || !sends {
		t.Fatalf("%d connections, sending: %v", connections, sends)
	}
	for _, f := range append(flows, busy) {
		f.closed = true
	}
	h.pass(p, time.Second)
	if connections, sends := p.tick(h.now); connections != 0 || sends {
		t.Errorf("%d connections are left, sending: %v", connections, sends)
	}
}

func TestPacer_RunEndsWithItsContext(t *testing.T) {
	p := newPacer()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.run(ctx); close(done) }()
	p.add("server", &flowAtHome{home: &home{carries: 1}})
	cancel()
	<-done
}
