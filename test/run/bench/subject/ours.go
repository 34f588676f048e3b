//go:build linux

package subject

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/run/bench/machine"
)

// Variant is a way to run ours.
type Variant struct {
	// Name is the subject's.
	Name string
	// Env are settings of both ends besides those of this process, as NAME=value.
	Env []string
	// Cable is what is between the two ends.
	Cable *machine.Cable
	// Streams says that its datagrams are those of ours, not to be measured again.
	Streams bool
}

// Plain is ours where both ends agree to do without the encryption of streams.
func Plain(cable *machine.Cable) Variant {
	return Variant{Name: OursPlain, Env: []string{"ECLITUNNEL_PLAIN_STREAMS=true"}, Cable: cable, Streams: true}
}

// WithProcs is ours where no more than so many threads of each of its processes
// run Go at a time.
func WithProcs(n int, cable *machine.Cable) Variant {
	return Variant{Name: OursProcs(n), Env: []string{fmt.Sprintf("GOMAXPROCS=%d", n)}, Cable: cable}
}

// OursProcs is the name of the subject of WithProcs.
func OursProcs(n int) string { return fmt.Sprintf("%s-procs%d", Ours, n) }

// StartOurs starts the built binaries in bin: a panel with its tunnel server, an
// agent, and an allocation that leads to the game.
func StartOurs(ctx context.Context, bin, game string, v Variant) (Subject, error) {
	o := &ours{Variant: v}
	s, err := o.start(ctx, bin, game)
	if err != nil {
		return Subject{}, fmt.Errorf("start %s: %w", o.Name, errors.Join(err, o.close()))
	}
	return s, nil
}

type ours struct {
	Variant
	dir     string
	panel   *cluster.Panel
	running *cluster.Process
}

func (o *ours) start(ctx context.Context, bin, game string) (Subject, error) {
	port, err := portOf(game)
	if err != nil {
		return Subject{}, err
	}
	if o.dir, err = cluster.NewDir(); err != nil {
		return Subject{}, err
	}
	// The panel's two ports, and a few to allocate.
	const ports = 10
	first, err := cluster.FreePorts(ctx, ports)
	if err != nil {
		return Subject{}, err
	}
	relay := first + 1
	o.panel, err = cluster.StartPanel(ctx, cluster.PanelOptions{
		Bin: bin, Dir: o.dir, Listen: first, Relay: relay, PortFirst: first + 2, PortLast: first + ports - 1,
		Host: o.Cable.Public, Env: o.Env,
	})
	if err != nil {
		return Subject{}, err
	}
	agent := cluster.NewAgent(bin, o.dir, "bench", nil)
	agent.Env, agent.StartWith = o.Env, o.Cable.Home.Start
	if err := agent.Enroll(ctx, o.panel); err != nil {
		return Subject{}, err
	}
	if o.running, err = agent.Start(); err != nil {
		return Subject{}, err
	}
	if _, err := agent.Run(ctx, "open", "tcp+udp", strconv.Itoa(port)); err != nil {
		return Subject{}, err
	}
	opened, err := o.panel.AwaitListening(ctx, agent.Device.ID, port, 2)
	if err != nil {
		return Subject{}, fmt.Errorf("%w\n%s", err, o.running.LastLines(20))
	}
	s := Subject{
		Name:   o.Name,
		PIDs:   []int{o.panel.PID(), o.running.PID()},
		Uplink: []machine.Port{{Direction: machine.To, Number: relay}},
		close:  o.close,
	}
	for _, a := range opened {
		if a.Protocol == types.ProtocolTCP {
			s.TCP = a.PublicAddress
		} else if !o.Streams {
			s.UDP = a.PublicAddress
		}
	}
	return s, nil
}

// close ends everything, the last started first.
func (o *ours) close() error {
	var errs []error
	if o.running != nil {
		errs = append(errs, o.running.Stop())
	}
	if o.panel != nil {
		errs = append(errs, o.panel.Stop())
	}
	if o.dir != "" {
		errs = append(errs, os.RemoveAll(o.dir))
	}
	return errors.Join(errs...)
}
