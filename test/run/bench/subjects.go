//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/role"
	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

// The names of the subjects that every run can have. hopCopy is hop2 with its
// streams copied through a 32 kB buffer in place of splice, oursPlain is ours
// without the encryption of streams, oursLimited is ours with limitedOptions.
const (
	direct      = "direct"
	hop2        = "hop2"
	hopCopy     = "hop2-copy"
	hopTLS      = "hop2-tls"
	ours        = "ours"
	oursPlain   = "ours-plain"
	oursLimited = "ours-limited"
)

// oursProcs and a number is ours where no more than so many threads of each of its
// processes run Go at a time.
const oursProcs = "ours-procs"

// subject is a tunnel as the player sees it.
type subject struct {
	name string
	// tcp and udp are where players connect. udp is empty where it is not carried.
	tcp, udp string
	// pids are the tunnel's processes at both ends, none without a tunnel.
	pids []int
	// streamsOnly marks another way through a subject, of interest only for how
	// fast streams are.
	streamsOnly bool
	// uplink is what of it passes the home's uplink; none where that is not known.
	uplink []port
}

// field is the game and the subjects that lead to it, and what runs for them.
type field struct {
	options
	cable    *cable
	game     string // Its address at home.
	gamePort int
	subjects []subject
	stop     []func() error
}

// startField starts the game and the subjects that are wanted.
func startField(ctx context.Context, o options, c *cable) (*field, error) {
	f := &field{options: o, cable: c}
	if err := f.start(ctx); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *field) start(ctx context.Context) (err error) {
	if _, err := f.play(ctx, f.cable.home, gameRole, f.Game, &f.game); err != nil {
		return err
	}
	if f.gamePort, err = portOf(f.game); err != nil {
		return err
	}
	for _, name := range f.Subjects {
		switch {
		case name == direct:
			f.subjects = append(f.subjects, subject{name: direct, tcp: f.game, udp: f.game, uplink: []port{{fromPort, f.gamePort}}})
		case name == hop2 || name == hopTLS:
			err = f.startHops(ctx, name)
		case name == oursPlain:
			err = f.startOurs(ctx, name, nil, "ECLITUNNEL_PLAIN_STREAMS=true")
		case name == ours:
			err = f.startOurs(ctx, name, nil)
		case name == oursLimited:
			err = f.startOurs(ctx, name, limitedOptions())
		case strings.HasPrefix(name, oursProcs):
			err = f.startOurs(ctx, name, nil, "GOMAXPROCS="+strings.TrimPrefix(name, oursProcs))
		default:
			err = f.startPeer(ctx, f.Peers[slices.IndexFunc(f.Peers, func(p peer) bool { return p.Name == name })])
		}
		if err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
	}
	return nil
}

// play starts a role somewhere.
func (f *field) play(ctx context.Context, at *cluster.Place, name string, options, ready any) (pid int, err error) {
	err = at.Do(func() error {
		process, err := role.Start(ctx, name, options, ready, false)
		if err == nil {
			pid = process.PID()
			f.stop = append(f.stop, process.Stop)
		}
		return err
	})
	return pid, err
}

// close ends everything, what was started last first.
func (f *field) close() error {
	var errs []error
	for _, stop := range slices.Backward(f.stop) {
		errs = append(errs, stop())
	}
	return errors.Join(errs...)
}

// playGame is the game that all subjects lead to.
func playGame(ctx context.Context, addr string) (at string, stop func() error, err error) {
	game, err := traffic.Listen(context.WithoutCancel(ctx), addr)
	if err != nil {
		return "", nil, err
	}
	return game.Addr(), game.Close, nil
}

// startHops starts two proxies in a row, at the two ends of the cable.
func (f *field) startHops(ctx context.Context, name string) error {
	var home, entry endpoints
	last := hopOptions{Host: f.cable.homeHost, Next: endpoints{Splice: f.game, Copy: f.game, UDP: f.game}, AcceptTLS: name == hopTLS}
	pid, err := f.play(ctx, f.cable.home, hopRole, last, &home)
	if err != nil {
		return err
	}
	first, err := f.play(ctx, new(cluster.Place), hopRole, hopOptions{Next: home, DialTLS: name == hopTLS}, &entry)
	if err != nil {
		return err
	}
	s := subject{name: name, tcp: entry.Splice, udp: entry.UDP, pids: []int{first, pid}}
	for _, addr := range []string{home.Splice, home.UDP} {
		if n, err := portOf(addr); err == nil {
			s.uplink = append(s.uplink, port{fromPort, n})
		}
	}
	f.subjects = append(f.subjects, s)
	if name == hop2 {
		f.subjects = append(f.subjects, subject{name: hopCopy, tcp: entry.Copy, pids: s.pids, streamsOnly: true})
	}
	return nil
}

// startOurs starts the built binaries: a panel with its tunnel server, an agent,
// and allocations with options that lead to the game. env are settings of both ends.
func (f *field) startOurs(ctx context.Context, name string, options *types.AllocationOptions, env ...string) error {
	dir, err := cluster.NewDir()
	if err != nil {
		return err
	}
	f.stop = append(f.stop, func() error { return os.RemoveAll(dir) })
	// The panel's two ports, and a few to allocate.
	const ports = 10
	first, err := cluster.FreePorts(ctx, ports)
	if err != nil {
		return err
	}
	panel, err := cluster.StartPanel(ctx, cluster.PanelOptions{
		Bin: f.Bin, Dir: dir, Listen: first, Relay: first + 1, PortFirst: first + 2, PortLast: first + ports - 1,
		Host: f.cable.public, Env: env,
	})
	if err != nil {
		return err
	}
	f.stop = append(f.stop, panel.Stop)
	if err := panel.LiftRules(ctx); err != nil {
		return err
	}
	agent := cluster.NewAgent(f.Bin, dir, "bench", nil)
	// The panel is on another machine, by http, which is part of what is measured.
	agent.Env, agent.StartWith = append(slices.Clone(env), "ECLITUNNEL_INSECURE=true"), f.cable.home.Start
	if err := agent.Enroll(ctx, panel); err != nil {
		return err
	}
	process, err := agent.Start()
	if err != nil {
		return err
	}
	f.stop = append(f.stop, process.Stop)
	created, err := panel.API.CreateAllocationWithResponse(ctx, types.AllocationCreate{
		DeviceID: &agent.Device.ID, Protocol: types.CreateTCPUDP, LocalPort: f.gamePort, Options: options,
	})
	if err != nil {
		return err
	}
	if created.JSON201 == nil {
		return fmt.Errorf("allocate: %s: %s", created.Status(), created.Body)
	}
	opened, err := panel.AwaitListening(ctx, agent.Device.ID, f.gamePort, 2)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, process.LastLines(20))
	}
	s := subject{name: name, pids: []int{panel.PID(), process.PID()}, uplink: []port{{toPort, first + 1}}}
	for _, a := range opened {
		if a.Protocol == types.ProtocolTCP {
			s.tcp = a.PublicAddress
		} else if name != oursPlain { // Its datagrams are those of ours.
			s.udp = a.PublicAddress
		}
	}
	f.subjects = append(f.subjects, s)
	return nil
}

func portOf(addr string) (int, error) {
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return int(n), err
}
