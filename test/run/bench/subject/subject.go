//go:build linux

// Package subject starts what the bench compares: no tunnel at all, two plain
// proxies in a row, ours, and those of others, where they do not run already.
package subject

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/eclitunnel/eclitunnel/test/run/bench/hop"
	"github.com/eclitunnel/eclitunnel/test/run/bench/machine"
	"github.com/eclitunnel/eclitunnel/test/run/bench/role"
)

// The names of the subjects that every run can have. HopCopy is Hop2 with its
// streams copied through a 32 kB buffer in place of splice, OursPlain is Ours
// without the encryption of streams.
const (
	Direct    = "direct"
	Hop2      = "hop2"
	HopCopy   = "hop2-copy"
	HopTLS    = "hop2-tls"
	Ours      = "ours"
	OursPlain = "ours-plain"
)

// Subject is a tunnel as the player sees it.
type Subject struct {
	Name string
	// TCP and UDP are where players connect. UDP is empty where it is not carried.
	TCP, UDP string
	// PIDs are the tunnel's processes at both ends, none without a tunnel.
	PIDs []int
	// StreamsOnly marks another way through a subject, of interest only for how
	// fast streams are.
	StreamsOnly bool
	// Uplink is what of it passes the home's uplink; none where that is not known.
	Uplink []machine.Port

	close func() error
}

// Close ends what was started for the subject.
func (s Subject) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

// NewDirect is the game without a tunnel.
func NewDirect(game string) (Subject, error) {
	uplink, err := from(game)
	return Subject{Name: Direct, TCP: game, UDP: game, Uplink: uplink}, err
}

// StartHop2 starts two proxies in a row, at the two ends of a cable, and returns
// both ways through them.
func StartHop2(ctx context.Context, game string, cable *machine.Cable) ([]Subject, error) {
	p, err := startPair(ctx, hop.Endpoints{Splice: game, Copy: game, UDP: game}, false, cable)
	if err != nil {
		return nil, err
	}
	return []Subject{
		{Name: Hop2, TCP: p.entry.Splice, UDP: p.entry.UDP, PIDs: p.pids, Uplink: p.uplink, close: p.close},
		{Name: HopCopy, TCP: p.entry.Copy, PIDs: p.pids, StreamsOnly: true},
	}, nil
}

// StartHopTLS starts two proxies that speak TLS with each other, over a
// connection and with a handshake for each player.
func StartHopTLS(ctx context.Context, game string, cable *machine.Cable) (Subject, error) {
	p, err := startPair(ctx, hop.Endpoints{Splice: game, Copy: game}, true, cable)
	if err != nil {
		return Subject{}, err
	}
	return Subject{Name: HopTLS, TCP: p.entry.Splice, PIDs: p.pids, Uplink: p.uplink, close: p.close}, nil
}

// HopRole is the name of the role of one proxy.
const HopRole = "hop"

// pair is two proxies, the one that players enter by and the one at the game.
type pair struct {
	entry  hop.Endpoints
	pids   []int
	uplink []machine.Port
	both   []*role.Process
}

func startPair(ctx context.Context, game hop.Endpoints, tls bool, cable *machine.Cable) (*pair, error) {
	p := new(pair)
	var home hop.Endpoints
	err := cable.Home.Do(func() (err error) {
		home, err = p.start(ctx, hop.Options{Host: cable.HomeHost, Next: game, AcceptTLS: tls})
		return err
	})
	if err != nil {
		return nil, err
	}
	if p.uplink, err = from(home.Splice, home.UDP); err != nil {
		return nil, errors.Join(err, p.close())
	}
	if p.entry, err = p.start(ctx, hop.Options{Next: home, DialTLS: tls}); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *pair) start(ctx context.Context, o hop.Options) (hop.Endpoints, error) {
	var endpoints hop.Endpoints
	process, err := role.Start(ctx, HopRole, o, &endpoints, false)
	if err != nil {
		return hop.Endpoints{}, err
	}
	p.both = append(p.both, process)
	p.pids = append(p.pids, process.PID())
	return endpoints, nil
}

func (p *pair) close() error {
	var errs []error
	for i := len(p.both) - 1; i >= 0; i-- {
		errs = append(errs, p.both[i].Stop())
	}
	return errors.Join(errs...)
}

// from is the packets that come from any of these addresses' ports.
func from(addrs ...string) ([]machine.Port, error) {
	var ports []machine.Port
	for _, addr := range addrs {
		if addr == "" {
			continue
		}
		port, err := portOf(addr)
		if err != nil {
			return nil, err
		}
		ports = append(ports, machine.Port{Direction: machine.From, Number: port})
	}
	return ports, nil
}

func portOf(addr string) (int, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("port of %s: %w", addr, err)
	}
	return int(n), nil
}
