//go:build linux

// Package measure is what the bench measures of each tunnel. Every measure says
// what it does and yields the values of one or more metrics of package report.
package measure

import (
	"context"
	"errors"
	"time"

	"github.com/eclitunnel/eclitunnel/test/run/bench/machine"
	"github.com/eclitunnel/eclitunnel/test/run/bench/report"
	"github.com/eclitunnel/eclitunnel/test/run/bench/subject"
)

// Settings are how long and how much.
type Settings struct {
	// Duration is that of what is measured by the clock, in one sample.
	Duration time.Duration
	// Idle is how many connections memory is measured with at most, Flows how many flows
	// of UDP are opened at once.
	Idle  int
	Flows []int
	// Awake keeps the CPUs from idling until stop is called; nil does not.
	Awake func(context.Context) (stop func() error, err error)
	// Brief keeps to Duration where a measure would take longer, for a sample that
	// only shows that it can be taken.
	Brief bool
	// Uplink is the slow link and Cable the link that loses packets that some
	// measures take.
	Uplink *machine.Uplink
	Cable  *machine.Cable
}

// Values are a sample's, by metric.
type Values map[report.MetricID]float64

// Network is what a measure takes that is not everywhere.
type Network string

// The networks.
const (
	// Anywhere is no more than there is.
	Anywhere Network = ""
	// HomeUplink is a slow link between the two ends of a tunnel.
	HomeUplink Network = "home uplink"
	// LossyLink is one that loses packets.
	LossyLink Network = "link that loses packets"
)

// Measure is one thing to measure.
type Measure struct {
	// Name is what it is chosen by.
	Name string
	// Once: more rounds would say nothing new, or, as with memory, something else.
	Once bool
	// Together: it is taken of all subjects at once. It takes long, and what others
	// do meanwhile makes no difference.
	Together bool
	// UDP: it takes a tunnel that carries datagrams.
	UDP bool
	// Streams: it shows how fast streams are.
	Streams bool
	// Network is what it takes.
	Network Network
	// Latency: of what it measures, a hundredth matters.
	Latency bool

	run func(context.Context, *sample) error
}

// All is every measure, in the order in which they should be taken: memory
// first, while a tunnel's processes have not yet grown by anything else.
var All = []Measure{
	{Name: "idle-memory", Once: true, Together: true, run: idleMemory},
	{Name: "half-close", Once: true, run: halfClose},
	{Name: "stalled-reader", Once: true, run: stalledReader},
	{Name: "download", Streams: true, run: download},
	{Name: "upload", Streams: true, run: upload},
	{Name: "download8", Streams: true, run: download8},
	{Name: "rtt-idle", Latency: true, run: roundTripIdle},
	{Name: "rtt-busy", Latency: true, run: roundTripBusy},
	{Name: "joins", run: joins},
	{Name: "udp-rtt", UDP: true, Latency: true, run: udpRoundTrip},
	{Name: "udp-load", UDP: true, run: udpLoad},
	{Name: "udp-flows", UDP: true, run: udpFlows},
	{Name: "udp-offered", UDP: true, Latency: true, run: udpOffered},
	{Name: "uplink-tcp", Network: HomeUplink, Latency: true, run: uplinkTCP},
	{Name: "uplink-udp", Network: HomeUplink, UDP: true, Latency: true, run: uplinkUDP},
	{Name: "loss-udp", Network: LossyLink, UDP: true, Latency: true, run: lossUDP},
}

// Applies reports whether a subject can be measured so.
func (m Measure) Applies(s subject.Subject) bool {
	return (!m.UDP || s.UDP != "") && (!s.StreamsOnly || m.Streams) && (m.Network == Anywhere || len(s.Uplink) > 0)
}

// Take takes one sample of a subject. Foreign is the share of the CPUs that went
// to processes with no part in it, or 0 for what does not depend on that.
func (m Measure) Take(ctx context.Context, s subject.Subject, settings Settings) (_ Values, foreign float64, err error) {
	t := &sample{Settings: settings, subject: s, meter: machine.NewMeter(s.PIDs), values: make(Values)}
	if err := m.run(ctx, t); err != nil {
		return nil, 0, err
	}
	return t.values, t.foreign, nil
}

// sample is one measure being taken of one subject.
type sample struct {
	Settings
	subject subject.Subject
	meter   *machine.Meter
	values  Values
	foreign float64
}

// measured runs what is measured and returns what it cost.
func (s *sample) measured(f func() error) (machine.Usage, error) {
	mark, err := s.meter.Mark()
	if err != nil {
		return machine.Usage{}, err
	}
	if err := f(); err != nil {
		return machine.Usage{}, err
	}
	usage, err := s.meter.Since(mark)
	s.foreign = max(s.foreign, usage.Foreign)
	return usage, err
}

// ErrUnfit is returned by Take where the machine was too busy to do to the tunnel
// what the measure says. It says nothing about the tunnel.
var ErrUnfit = errors.New("the machine is too busy")

// activity is something that goes on until it is closed, or fails.
type activity interface {
	Count() uint64
	Failed() <-chan struct{}
	Close() error
}

// counted lets something go on for the sample's duration, or longer until some
// of it is done, closes it, and returns how much was done and at what cost.
func (s *sample) counted(ctx context.Context, a activity) (uint64, machine.Usage, error) {
	done, usage, err := s.count(ctx, a)
	return done, usage, errors.Join(a.Close(), err)
}

func (s *sample) count(ctx context.Context, a activity) (done uint64, usage machine.Usage, err error) {
	if err := pauseUnless(ctx, a.Failed(), s.warmUp()); err != nil {
		return 0, machine.Usage{}, err
	}
	usage, err = s.measured(func() error {
		before := a.Count()
		for waited := time.Duration(0); done == 0; waited += s.Duration {
			if waited > motionPatience {
				return errors.New("nothing moves")
			}
			if err := pauseUnless(ctx, a.Failed(), s.Duration); err != nil {
				return err
			}
			done = a.Count() - before
		}
		return nil
	})
	return done, usage, err
}

// motionPatience is how long a tunnel may move nothing before it is taken for dead.
const motionPatience = 10 * time.Second

// warmUp is how long something goes on before it is measured: windows open,
// pools fill.
func (s *sample) warmUp() time.Duration { return s.Duration / 4 }

// awake measures with the CPUs kept awake.
func (s *sample) awake(ctx context.Context, f func() error) (err error) {
	if s.Awake == nil {
		_, err := s.measured(f)
		return err
	}
	stop, err := s.Awake(ctx)
	if err != nil {
		return err
	}
	// After the CPU times were read: those of a process that has ended are lost.
	defer func() { err = errors.Join(err, stop()) }()
	_, err = s.measured(f)
	return err
}

// atLeast is the sample's duration, and no less than least.
func (s *sample) atLeast(least time.Duration) time.Duration {
	if s.Brief {
		return s.Duration
	}
	return max(s.Duration, least)
}

func pause(ctx context.Context, d time.Duration) error { return pauseUnless(ctx, nil, d) }

// pauseUnless waits for d, unless something fails meanwhile.
func pauseUnless(ctx context.Context, failed <-chan struct{}, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-failed:
		return errors.New("it ended before the sample did")
	case <-ctx.Done():
		return ctx.Err()
	}
}
