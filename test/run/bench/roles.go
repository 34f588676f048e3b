//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/run/bench/hop"
	"github.com/eclitunnel/eclitunnel/test/run/bench/machine"
	"github.com/eclitunnel/eclitunnel/test/run/bench/measure"
	"github.com/eclitunnel/eclitunnel/test/run/bench/report"
	"github.com/eclitunnel/eclitunnel/test/run/bench/role"
	"github.com/eclitunnel/eclitunnel/test/run/bench/subject"
	"github.com/eclitunnel/eclitunnel/test/run/bench/target"
)

// field is the games and the subjects that lead to them.
type field struct {
	games    []*role.Process
	subjects []subject.Subject
}

// start starts a game, the subjects that are wanted, and a game for every peer
// that leads to another address.
func (f *field) start(ctx context.Context, o options, cable *machine.Cable) error {
	game, err := f.startGame(ctx, o.Game, cable.Home)
	if err != nil {
		return err
	}
	for _, name := range o.Subjects {
		started, err := startSubject(ctx, name, o, game, cable)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		f.subjects = append(f.subjects, started...)
	}
	served := map[string]bool{game: true}
	for _, p := range o.Peers {
		if !slices.Contains(o.Subjects, p.Name) {
			continue
		}
		if !served[p.Target] {
			if _, err := f.startGame(ctx, p.Target, cable.Home); err != nil {
				return err
			}
			served[p.Target] = true
		}
		f.subjects = append(f.subjects, p.Subject)
	}
	return nil
}

func (f *field) startGame(ctx context.Context, addr string, at *cluster.Place) (listening string, err error) {
	err = at.Do(func() error {
		process, err := role.Start(ctx, gameRole, addr, &listening, false)
		if err == nil {
			f.games = append(f.games, process)
		}
		return err
	})
	return listening, err
}

func startSubject(ctx context.Context, name string, o options, game string, cable *machine.Cable) ([]subject.Subject, error) {
	one := func(s subject.Subject, err error) ([]subject.Subject, error) { return []subject.Subject{s}, err }
	switch name {
	case subject.Direct:
		return one(subject.NewDirect(game))
	case subject.Hop2:
		return subject.StartHop2(ctx, game, cable)
	case subject.HopTLS:
		return one(subject.StartHopTLS(ctx, game, cable))
	case subject.Ours:
		return one(subject.StartOurs(ctx, o.Bin, game, subject.Variant{Name: name, Cable: cable}))
	case subject.OursPlain:
		return one(subject.StartOurs(ctx, o.Bin, game, subject.Plain(cable)))
	}
	switch {
	case name == subject.FRP && o.FRP != "":
		return one(subject.StartFRP(ctx, o.FRP, game, cable))
	case name == subject.Chisel && o.Chisel != "":
		return one(subject.StartChisel(ctx, o.Chisel, game, cable))
	}
	for _, n := range o.Procs {
		if name == subject.OursProcs(n) {
			return one(subject.StartOurs(ctx, o.Bin, game, subject.WithProcs(n, cable)))
		}
	}
	return nil, nil // a peer, which runs already
}

// close ends everything, the games last.
func (f *field) close() error {
	var errs []error
	for _, s := range slices.Backward(f.subjects) {
		errs = append(errs, s.Close())
	}
	for _, game := range f.games {
		errs = append(errs, game.Stop())
	}
	return errors.Join(errs...)
}

// playGame runs the game that all subjects lead to.
func playGame(ctx context.Context, encoded []byte, ready func(any) error) error {
	var addr string
	if err := json.Unmarshal(encoded, &addr); err != nil {
		return err
	}
	game, err := target.Listen(ctx, addr)
	if err != nil {
		return err
	}
	if err := ready(game.Addr()); err != nil {
		return errors.Join(err, game.Close())
	}
	<-ctx.Done()
	return game.Close()
}

// playHop runs one plain proxy.
func playHop(ctx context.Context, encoded []byte, ready func(any) error) error {
	var o hop.Options
	if err := json.Unmarshal(encoded, &o); err != nil {
		return err
	}
	h, err := hop.Listen(ctx, o)
	if err != nil {
		return err
	}
	if err := ready(h.Endpoints()); err != nil {
		return errors.Join(err, h.Close())
	}
	<-ctx.Done()
	return h.Close()
}

// playAwake keeps the CPUs awake.
func playAwake(ctx context.Context, _ []byte, ready func(any) error) error {
	if err := ready(true); err != nil {
		return err
	}
	return machine.StayAwake(ctx)
}

func stayAwake(ctx context.Context) (func() error, error) {
	var ready bool
	process, err := role.Start(ctx, awakeRole, nil, &ready, false)
	if err != nil {
		return nil, err
	}
	return process.Stop, nil
}

// measureElsewhere measures what takes a network, in a network namespace of its
// own. Peers that run already cannot be reached from there, nor the game from the
// other end of a cable but through a tunnel.
func measureElsewhere(ctx context.Context, o options, network measure.Network) (report.Report, error) {
	o.Networks = []measure.Network{network}
	o.Game = "127.0.0.1:0"
	o.Peers = nil
	if network == measure.LossyLink {
		o.Subjects = slices.DeleteFunc(slices.Clone(o.Subjects), func(name string) bool { return name == subject.Direct })
	}
	var r report.Report
	process, err := role.Start(ctx, networkRole, o, &r, true)
	if err != nil {
		return report.Report{}, err
	}
	return r, process.Stop()
}

// playNetwork is the bench in a network namespace that has nothing but lo.
func playNetwork(ctx context.Context, encoded []byte, ready func(any) error) error {
	var o options
	if err := json.Unmarshal(encoded, &o); err != nil {
		return err
	}
	b := bench{options: o, progress: os.Stderr, awake: stayAwake}
	r, err := b.measureHere(ctx)
	if err != nil {
		return err
	}
	return ready(r)
}
