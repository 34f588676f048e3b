package pacing

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// uplink simulates a link with a FIFO queue.
type uplink struct {
	carries float64       // Bytes per second.
	base    time.Duration // Its round trip with an empty queue.
	foreign time.Duration // What the queue of other traffic adds to that.
	now     time.Time
	queue   float64 // Bytes.
	flows   []*simulatedFlow

	delivered float64
	waits     []time.Duration // In the queue, every millisecond.
}

// uplinkQueue is how many bytes the queue holds.
const uplinkQueue = 256 << 10

// simulatedFlow is a connection that sends over an uplink.
type simulatedFlow struct {
	uplink  *uplink
	wants   float64 // Bytes per second; 0: unlimited.
	blocked bool    // The receiver takes no more than wants.
	closed  bool
	packet  int // Bytes.
	limited float64
	arrived float64
	stopped time.Duration
}

func (f *simulatedFlow) read() (reading, error) {
	if f.closed {
		return reading{}, errors.New("closed")
	}
	wait := time.Duration(f.uplink.queue / f.uplink.carries * float64(time.Second))
	return reading{
		delivered:       uint64(f.arrived),
		backlogged:      f.wants == 0 || f.blocked,
		receiverLimited: f.stopped,
		rtt:             f.uplink.base + f.uplink.foreign + wait,
		minRTT:          f.uplink.base,
		packet:          f.packet,
	}, nil
}

func (f *simulatedFlow) limit(bytesPerSecond float64) error {
	f.limited = bytesPerSecond
	return nil
}

// sends is its current rate: without a limit, more than the link carries.
func (f *simulatedFlow) sends() float64 {
	rate := f.wants
	if rate == 0 {
		rate = 1.5 * f.uplink.carries
	}
	if f.limited > 0 {
		rate = min(rate, f.limited)
	}
	return rate
}

func newUplink(megabits float64, base time.Duration) (*uplink, *Pacer) {
	return &uplink{carries: megabits * 1e6 / 8, base: base, now: time.Unix(1e9, 0)}, New()
}

func (u *uplink) flow(p *Pacer, f simulatedFlow) *simulatedFlow {
	f.uplink = u
	u.flows = append(u.flows, &f)
	p.add("server", &f)
	return &f
}

// pass advances the simulated time, and measures that period alone.
func (u *uplink) pass(p *Pacer, d time.Duration) {
	u.delivered, u.waits = 0, nil
	const step = time.Millisecond
	for end := u.now.Add(d); u.now.Before(end); {
		var offered float64
		for _, f := range u.flows {
			offered += f.sends() * step.Seconds()
		}
		through := min(u.queue+offered, u.carries*step.Seconds())
		u.queue = min(u.queue+offered-through, uplinkQueue)
		for _, f := range u.flows {
			f.arrived += through * f.sends() * step.Seconds() / offered
			if f.blocked {
				f.stopped += step
			}
		}
		u.delivered += through
		u.waits = append(u.waits, time.Duration(u.queue/u.carries*float64(time.Second)))
		u.now = u.now.Add(step)
		if u.now.UnixMilli()%tickInterval.Milliseconds() == 0 {
			p.tick(u.now)
		}
	}
	slices.Sort(u.waits)
}

// used is the share of what the link carries that was delivered.
func (u *uplink) used() float64 {
	return u.delivered / u.carries / (float64(len(u.waits)) / 1000)
}

func (u *uplink) wait(quantile float64) time.Duration {
	return u.waits[int(quantile*float64(len(u.waits)-1))]
}

func (u *uplink) expect(t *testing.T, used float64, p50, p99 time.Duration) {
	t.Helper()
	if u.used() < used || u.wait(0.5) > p50 || u.wait(0.99) > p99 {
		t.Errorf("%.3f of the link used, at least %.3f wanted; waits in the queue %v at p50, %v at p99, at most %v, %v wanted",
			u.used(), used, u.wait(0.5), u.wait(0.99), p50, p99)
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
		u, p := newUplink(c.megabits, c.base)
		for range c.flows {
			u.flow(p, simulatedFlow{})
		}
		u.pass(p, c.settle)
		u.pass(p, 20*time.Second)
		t.Logf("%v Mbit/s, %v, %d flows: %.3f used, waits %v p50, %v p99", c.megabits, c.base, c.flows, u.used(), u.wait(0.5), u.wait(0.99))
		u.expect(t, 0.95, c.p50, c.p99)
	}
}

func TestPacer_LimitsATransferThatStartsLaterFromItsFirstByte(t *testing.T) {
	u, p := newUplink(100, 20*ms)
	first := u.flow(p, simulatedFlow{})
	u.pass(p, 3*time.Second)
	first.closed = true
	u.flows = nil
	u.flow(p, simulatedFlow{wants: 10e3}) // A game.
	u.pass(p, time.Minute)
	u.flow(p, simulatedFlow{})
	u.pass(p, time.Second)
	u.expect(t, 0.9, ms, 6*ms)
}

func TestPacer_LeavesTheRestOfASlowTransferToTheOthers(t *testing.T) {
	u, p := newUplink(100, 20*ms)
	slow := u.flow(p, simulatedFlow{wants: 1e6})
	u.flow(p, simulatedFlow{})
	u.flow(p, simulatedFlow{})
	u.pass(p, 2*time.Second)
	before := slow.arrived
	u.pass(p, 10*time.Second)
	u.expect(t, 0.95, ms, 6*ms)
	if got := (slow.arrived - before) / 10; got < 0.99e6 {
		t.Errorf("the slow transfer gets %.0f of 1,000,000 B/s", got)
	}
}

func TestPacer_FollowsALinkThatGetsSlowerAndFaster(t *testing.T) {
	u, p := newUplink(100, 20*ms)
	u.flow(p, simulatedFlow{})
	u.pass(p, 5*time.Second)
	u.carries = 30e6 / 8
	u.pass(p, 3*time.Second)
	u.pass(p, 10*time.Second)
	u.expect(t, 0.95, 2*ms, 8*ms)
	u.carries = 200e6 / 8
	u.pass(p, 5*time.Second)
	u.pass(p, 5*time.Second)
	u.expect(t, 0.95, ms, 6*ms)
}

func TestPacer_LeavesEveryTransferSomePackets(t *testing.T) {
	const packet, transfers = 1448, 50
	u, p := newUplink(100, 20*ms)
	for range transfers {
		u.flow(p, simulatedFlow{packet: packet})
	}
	u.pass(p, 5*time.Second)
	u.carries = transfers * packet / 2 // All of them stall.
	u.pass(p, 20*time.Second)
	u.flow(p, simulatedFlow{packet: packet})
	least := u.carries
	for _, f := range u.flows {
		if f.limited > 0 {
			least = min(least, f.limited)
		}
	}
	if least != minPackets*packet {
		t.Errorf("a transfer is limited to %.0f B/s, want %d", least, minPackets*packet)
	}
	if f := u.flows[transfers]; f.limited == 0 {
		t.Error("a new transfer is not limited")
	}
}

func TestPacer_DoesNotYieldToAQueueThatIsNotItsOwn(t *testing.T) {
	u, p := newUplink(100, 20*ms)
	u.flow(p, simulatedFlow{})
	u.pass(p, 5*time.Second)
	u.foreign = 15 * ms // Or the route has become longer.
	u.pass(p, 5*time.Second)
	if u.used() < 0.85 {
		t.Errorf("%.3f of the link used while it finds out", u.used())
	}
	u.pass(p, 20*time.Second)
	u.expect(t, 0.95, 2*ms, 8*ms)
}

func TestPacer_LeavesAlone(t *testing.T) {
	for name, c := range map[string]struct {
		megabits float64
		flow     simulatedFlow
		foreign  time.Duration
	}{
		"faster than a home uplink":                    {megabits: 5000, foreign: 5 * ms},
		"a transfer limited by its source":             {megabits: 100, flow: simulatedFlow{wants: 11e6}, foreign: 20 * ms},
		"a transfer limited by its receiver":           {megabits: 100, flow: simulatedFlow{wants: 1e6, blocked: true}, foreign: 20 * ms},
		"a connection that sends little, at any delay": {megabits: 100, flow: simulatedFlow{wants: 10e3}, foreign: 40 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			u, p := newUplink(c.megabits, ms)
			u.foreign = c.foreign
			f := u.flow(p, c.flow)
			for range 200 {
				u.pass(p, 100*ms)
				if f.limited != 0 {
					t.Fatalf("limited to %.0f B/s", f.limited)
				}
			}
		})
	}
}

func TestPacer_LetsGoOfClosedConnections(t *testing.T) {
	u, p := newUplink(100, 20*ms)
	var flows []*simulatedFlow
	for range 3 * idleReadings {
		flows = append(flows, u.flow(p, simulatedFlow{wants: 1}))
	}
	busy := u.flow(p, simulatedFlow{})
	u.pass(p, time.Second)
	if connections, sends := p.tick(u.now); connections != len(flows)+1 || !sends {
		t.Fatalf("%d connections, sending: %v", connections, sends)
	}
	for _, f := range append(flows, busy) {
		f.closed = true
	}
	u.pass(p, time.Second)
	if connections, sends := p.tick(u.now); connections != 0 || sends {
		t.Errorf("%d connections are left, sending: %v", connections, sends)
	}
}

func TestPacer_RunEndsWithItsContext(t *testing.T) {
	p := New()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	p.add("server", &simulatedFlow{uplink: &uplink{carries: 1}})
	cancel()
	<-done
}
