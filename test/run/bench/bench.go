//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/run/bench/machine"
	"github.com/eclitunnel/eclitunnel/test/run/bench/measure"
	"github.com/eclitunnel/eclitunnel/test/run/bench/report"
	"github.com/eclitunnel/eclitunnel/test/run/bench/role"
	"github.com/eclitunnel/eclitunnel/test/run/bench/subject"
)

// Where the home uplink is made.
const (
	uplinkOwn  = "own"
	uplinkHere = "here"
	uplinkOff  = "off"
)

// options are what to measure. Their meanings are those of the flags of the same
// names; they are JSON because a role takes them.
type options struct {
	Rounds             int
	Duration           time.Duration
	Bin, Game, Uplink  string
	Idle               int
	Flows              []int
	Foreign            float64
	Brief              bool
	Subjects, Measures []string
	Procs              []int
	FRP, Chisel        string
	Peers              []subject.Peer
	// Networks are what the measures take that are taken in this process.
	Networks []measure.Network
}

// benchmark measures everything and returns what it found, which may be worth
// having where it returns an error as well.
func benchmark(ctx context.Context, o options, progress io.Writer) (report.Report, error) {
	o.Networks = []measure.Network{measure.Anywhere}
	if o.Uplink == uplinkHere {
		o.Networks = append(o.Networks, measure.HomeUplink, measure.LossyLink)
	}
	b := bench{options: o, progress: progress, awake: stayAwake}
	started := time.Now()
	r, err := b.measureHere(ctx)
	for _, network := range []measure.Network{measure.HomeUplink, measure.LossyLink} {
		if err == nil && o.Uplink == uplinkOwn {
			err = b.measureOver(ctx, network, &r)
		}
	}
	r.Started, r.Seconds = started, time.Since(started).Seconds()
	return r, errors.Join(err, describeHost(&r.Host))
}

// measureOver measures what takes a network that is not here.
func (b *bench) measureOver(ctx context.Context, network measure.Network, r *report.Report) error {
	if len(b.measures(network)) == 0 {
		return nil
	}
	if err := cluster.CanPlace(); err != nil {
		fmt.Fprintf(b.progress, "what takes a %s is not measured: %v\n", network, err)
		return nil
	}
	there, err := measureElsewhere(ctx, b.options, network)
	r.Merge(there)
	return err
}

// bench measures subjects in turn.
type bench struct {
	options
	progress io.Writer
	awake    func(context.Context) (func() error, error)
	noting   sync.Mutex // Of the report and progress.
	uplink   *machine.Uplink
	cable    *machine.Cable
}

// measures are those that are wanted and take one of these networks.
func (b *bench) measures(networks ...measure.Network) []measure.Measure {
	var wanted []measure.Measure
	for _, m := range measure.All {
		if slices.Contains(b.Measures, m.Name) && slices.Contains(networks, m.Network) {
			wanted = append(wanted, m)
		}
	}
	return wanted
}

// measureHere starts all subjects in this network namespace, measures and stops them.
func (b *bench) measureHere(ctx context.Context) (r report.Report, err error) {
	r = report.Report{Rounds: b.Rounds}
	measures := b.measures(b.Networks...)
	if len(measures) == 0 {
		return r, nil
	}
	if slices.Contains(b.Networks, measure.HomeUplink) {
		if b.uplink, err = machine.NewUplink(ctx); err != nil {
			return r, err
		}
		r.Host.UplinkCongestion = b.uplink.Congestion
		defer func() { err = errors.Join(err, b.uplink.Close()) }()
	}
	b.cable = machine.LoopbackCable()
	if slices.Contains(b.Networks, measure.LossyLink) && b.Uplink != uplinkHere {
		if b.cable, err = machine.NewCable(ctx); err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, b.cable.Close()) }()
	}
	f := new(field)
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.start(ctx, b.options, b.cable); err != nil {
		return r, err
	}
	err = b.rounds(ctx, measures, f.subjects, &r)
	return r, err
}

// rounds measures every subject by every measure, again and again. Subjects
// follow each other in the innermost loop, so that what is compared was measured
// close together, and each round begins with another.
func (b *bench) rounds(ctx context.Context, measures []measure.Measure, subjects []subject.Subject, r *report.Report) error {
	for _, s := range subjects {
		r.Subjects = append(r.Subjects, s.Name)
	}
	for round := 1; round <= b.Rounds; round++ {
		for _, m := range measures {
			if m.Once && round > 1 {
				continue
			}
			var order []subject.Subject
			for i := range subjects {
				if s := subjects[(i+round-1)%len(subjects)]; m.Applies(s) {
					order = append(order, s)
				}
			}
			at := new(errgroup.Group)
			if !m.Together {
				at.SetLimit(1)
			}
			for _, s := range order {
				at.Go(func() error { return b.take(ctx, m, s, round, r) })
			}
			if err := at.Wait(); err != nil {
				return err
			}
		}
	}
	return nil
}

const (
	// attempts is how often a sample is taken again because the machine was busy.
	attempts = 4
	// latencyStrictness is by how much less others may use the CPUs while latencies
	// are taken: who is in the way for a hundredth of the time makes the 99th of a
	// hundred round trips.
	latencyStrictness = 5
	// sampleLimit is how long any sample may take.
	sampleLimit = 6 * time.Minute
)

// take takes one sample, again where something else used the machine.
func (b *bench) take(ctx context.Context, m measure.Measure, s subject.Subject, round int, r *report.Report) error {
	tolerated := b.Foreign
	if m.Latency {
		tolerated /= latencyStrictness
	}
	settings := measure.Settings{Duration: b.Duration, Idle: b.Idle, Flows: b.Flows, Brief: b.Brief, Awake: b.awake, Uplink: b.uplink, Cable: b.cable}
	for range attempts {
		limited, cancel := context.WithTimeout(ctx, sampleLimit)
		values, foreign, err := m.Take(limited, s, settings)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && foreign > tolerated {
			err = fmt.Errorf("%w: other processes used %.1f %% of the CPUs", measure.ErrUnfit, 100*foreign)
		}
		if again := b.note(report.Failure{Measure: m.Name, Subject: s.Name, Round: round}, values, err, r); !again {
			return nil // after a failure, what else there is to measure is worth having
		}
	}
	return nil
}

// note adds a sample to the report, or why there is none, and reports whether it
// should be taken again.
func (b *bench) note(f report.Failure, values measure.Values, err error, r *report.Report) (again bool) {
	b.noting.Lock()
	defer b.noting.Unlock()
	line := progressLine(f.Round, b.Rounds, f.Measure, f.Subject)
	switch {
	case errors.Is(err, measure.ErrUnfit):
		f.Reason = err.Error()
	case err != nil:
		f.Reason, f.Fatal = err.Error(), true
	default:
		for id, value := range values {
			r.Add(id, f.Subject, value)
		}
		fmt.Fprintln(b.progress, line+describe(values))
		return false
	}
	r.Failures = append(r.Failures, f)
	fmt.Fprintln(b.progress, line+"left out: "+f.Reason)
	return !f.Fatal
}

// progressLine is how the line of a sample begins.
func progressLine(round, rounds int, measure, subject string) string {
	return fmt.Sprintf("%d/%d  %-14s  %-11s  ", round, rounds, measure, subject)
}

func describe(values measure.Values) string {
	var parts []string
	for id, value := range values {
		parts = append(parts, fmt.Sprintf("%s %.4g", id, value))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// The roles that the bench plays in processes of their own.
const (
	gameRole    = "game"
	awakeRole   = "awake"
	networkRole = "network"
)

var roles map[string]role.Role

// A role may start others, which a literal of the map could not.
func init() {
	roles = map[string]role.Role{
		gameRole:        playGame,
		subject.HopRole: playHop,
		awakeRole:       playAwake,
		networkRole:     playNetwork,
	}
}

// describeHost notes what the machine is.
func describeHost(h *report.Host) error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	congestion, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	h.CPUs = runtime.NumCPU()
	h.Kernel = unix.ByteSliceToString(name.Release[:])
	h.Go = runtime.Version()
	h.Congestion = strings.TrimSpace(string(congestion))
	return err
}
