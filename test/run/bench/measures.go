//go:build linux

package main

import (
	"context"
	"errors"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/machine"
	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

// settings are how long and how much.
type settings struct {
	// Duration is that of what is measured by the clock, in one sample.
	Duration time.Duration
	// Idle is how many connections memory is measured with at most, Flows how many
	// flows of UDP are opened at once.
	Idle  int
	Flows []int
	// LossSize is the size in bytes of the datagrams of loss-udp; 0: traffic.LoadSize.
	LossSize int
	// Brief keeps to Duration where a measure would take longer, for a sample that
	// only shows that it can be taken.
	Brief bool
}

// network is what a measure takes that is not everywhere.
type network string

const (
	anywhere   network = ""
	homeUplink network = "home uplink"
	lossyLink  network = "link that loses packets"
)

// measure is one thing to measure, which yields one or more metrics.
type measure struct {
	name string // What it is chosen by.
	run  func(context.Context, *sample) error
	// once: more rounds would yield nothing new, or, as with memory, something else.
	once bool
	// together: it is taken of all subjects at once. It takes long, and what others
	// do meanwhile makes no difference.
	together bool
	udp      bool    // It takes a tunnel that carries datagrams.
	streams  bool    // It shows how fast streams are.
	latency  bool    // Of what it measures, a hundredth matters.
	network  network // What it takes.
}

// measures are in the order in which they should be taken: memory first, while a
// tunnel's processes have not yet grown by anything else.
var measures = []measure{
	{name: "idle-memory", once: true, together: true, run: idleMemory},
	{name: "half-close", once: true, run: halfClose},
	{name: "stalled-reader", once: true, run: stalledReader},
	{name: "download", streams: true, run: download("download", 1)},
	{name: "upload", streams: true, run: upload},
	{name: "download8", streams: true, run: download("download8", 8)},
	{name: "rtt-idle", latency: true, run: roundTripIdle},
	{name: "rtt-busy", latency: true, run: roundTripBusy},
	{name: "joins", run: joins},
	{name: "udp-rtt", udp: true, latency: true, run: udpRoundTrip},
	{name: "udp-load", udp: true, run: udpLoad},
	{name: "udp-flows", udp: true, run: udpFlows},
	{name: "udp-offered", udp: true, latency: true, run: udpOffered},
	{name: "uplink-tcp", network: homeUplink, latency: true, run: uplinkTCP},
	{name: "uplink-udp", network: homeUplink, udp: true, latency: true, run: uplinkUDP},
	{name: "loss-udp", network: lossyLink, udp: true, latency: true, run: lossUDP},
}

// applies reports whether a subject can be measured so.
func (m measure) applies(s subject) bool {
	return (!m.udp || s.udp != "") && (!s.streamsOnly || m.streams) && (m.network == anywhere || len(s.uplink) > 0)
}

// sample is one measure being taken of one subject.
type sample struct {
	settings
	subject
	cable  *cable
	awake  func(context.Context) (stop func() error, err error) // Keeps the CPUs from idling; nil does not.
	values map[string]float64                                   // By metric.
	// foreign is the share of the CPUs that went to processes with no part in it, 0
	// for what does not depend on that.
	foreign float64
}

// errUnfit means that the machine was too busy to do to the tunnel what the
// measure says. The sample is no result.
var errUnfit = errors.New("the machine is too busy")

// measured runs what is measured and returns what it cost.
func (s *sample) measured(f func() error) (machine.Usage, error) {
	mark, err := machine.Now(s.pids)
	if err != nil {
		return machine.Usage{}, err
	}
	if err := f(); err != nil {
		return machine.Usage{}, err
	}
	usage, err := mark.Since()
	s.foreign = max(s.foreign, usage.Foreign)
	return usage, err
}

// kept measures with the CPUs kept awake.
func (s *sample) kept(ctx context.Context, f func() error) (err error) {
	if s.awake != nil {
		var stop func() error
		if stop, err = s.awake(ctx); err != nil {
			return err
		}
		// After the CPU times were read: those of a process that has ended are lost.
		defer func() { err = errors.Join(err, stop()) }()
	}
	_, err = s.measured(f)
	return err
}

// motionPatience is how long a tunnel may move nothing before it is taken for dead.
const motionPatience = 10 * time.Second

// counted lets an activity go on for the sample's duration, or longer until some
// of it is done, closes it, and notes how much was done in a second, by so many at
// a time, and what the tunnel's processes used for each of that, in seconds by cost.
func (s *sample) counted(ctx context.Context, a *traffic.Activity, name string, unit, cost float64) (err error) {
	var done float64
	defer func() { err = errors.Join(a.Close(), err) }()
	if err := pauseUnless(ctx, a.Failed(), s.warmUp()); err != nil {
		return err
	}
	usage, err := s.measured(func() error {
		before := a.Count()
		for waited := time.Duration(0); done == 0; waited += s.Duration {
			if waited > motionPatience {
				return errors.New("nothing moves")
			}
			if err := pauseUnless(ctx, a.Failed(), s.Duration); err != nil {
				return err
			}
			done = float64(a.Count() - before)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.values[name] = done / unit / usage.Elapsed.Seconds()
	if len(s.pids) > 0 {
		s.values[name+"-cpu"] = usage.CPU.Seconds() * cost / done
	}
	return nil
}

// warmUp is how long something goes on before it is measured: windows open,
// pools fill.
func (s *sample) warmUp() time.Duration { return s.Duration / 4 }

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

// quantiles notes the median and the 99th percentile of durations.
func (s *sample) quantiles(name string, times []time.Duration, unit time.Duration) {
	s.values[name+"-p50"] = float64(quantile(times, 0.50)) / float64(unit)
	s.values[name+"-p99"] = float64(quantile(times, 0.99)) / float64(unit)
}

// collected is how long it takes a Go program that does nothing to give back
// what it does not need: the runtime collects garbage after two minutes at the
// latest, and returns pages to the system from then on.
const collected = 130 * time.Second

// idleMemory measures by how much the tunnel's processes grow with players who
// are connected and silent: between a quarter of them and all of them, for what
// the first players bring into being is no price of each, and both times after
// garbage has been collected, for a program that has just started has some that
// has nothing to do with players and would be taken for theirs.
func idleMemory(ctx context.Context, s *sample) (err error) {
	if len(s.pids) == 0 {
		return nil
	}
	first := s.Idle / 4
	var crowds []traffic.Crowd
	var sizes []int64
	for _, n := range []int{first, s.Idle - first} {
		crowd, err := traffic.Gather(ctx, s.tcp, n)
		if err != nil {
			return err
		}
		defer crowd.Close() //nolint:errcheck // Verify below says whether they are connected
		crowds = append(crowds, crowd)
		if err := pause(ctx, s.atLeast(collected)); err != nil {
			return err
		}
		size, err := machine.Memory(s.pids)
		if err != nil {
			return err
		}
		sizes = append(sizes, size)
	}
	for _, crowd := range crowds {
		err = errors.Join(err, crowd.Verify(ctx))
	}
	s.values["idle-memory"] = float64(sizes[1]-sizes[0]) / 1e3 / float64(s.Idle-first)
	return err
}

// answerPatience is how long a tunnel may take to show that it is not blocked,
// or that it has passed on the end of a direction.
const answerPatience = 2 * time.Second

// halfClose measures whether the end of one direction leaves the other open.
func halfClose(ctx context.Context, s *sample) error {
	passed, err := traffic.HalfClose(ctx, s.tcp, answerPatience)
	s.values["half-close"] = truth(passed)
	return err
}

// stalledReader measures whether players who read nothing keep others from
// playing: those who come after them, over TCP and UDP.
func stalledReader(ctx context.Context, s *sample) (err error) {
	for range 4 {
		c, err := traffic.Stall(ctx, s.tcp)
		if err != nil {
			return err
		}
		defer c.Close()
	}
	if err := pause(ctx, s.Duration); err != nil { // Until every buffer is full.
		return err
	}
	times, err := traffic.Echo(ctx, s.tcp, s.Duration/2, time.Millisecond)
	blocked := err != nil || quantile(times, 1) > answerPatience
	if s.udp != "" {
		// One datagram may get lost; it is given up long before answerPatience.
		times, err = traffic.EchoDatagrams(ctx, s.udp, s.atLeast(3*traffic.LostAfter), time.Millisecond)
		blocked = blocked || err != nil || quantile(times, 0.5) >= traffic.LostAfter
	}
	s.values["stalled-reader"] = truth(blocked)
	return ctx.Err()
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// download measures streams from the game, all at once.
func download(name string, streams int) func(context.Context, *sample) error {
	return func(ctx context.Context, s *sample) error {
		a, err := traffic.StartDownload(ctx, s.tcp, streams, 0)
		if err == nil {
			err = s.counted(ctx, a, name, 1e6, 1e9)
		}
		return err
	}
}

// uploadBlock is how many bytes of an upload are acknowledged at a time.
const uploadBlock = 256 << 10

// upload measures one stream to the game.
func upload(ctx context.Context, s *sample) error {
	a, err := traffic.StartUpload(ctx, s.tcp, 1, uploadBlock)
	if err == nil {
		err = s.counted(ctx, a, "upload", 1e6, 1e9)
	}
	return err
}

// joins measures players who come, hear the game's greeting and leave, 16 at a time.
func joins(ctx context.Context, s *sample) error {
	return s.counted(ctx, traffic.StartJoins(ctx, s.tcp, 16), "joins", 1, 1e6)
}
