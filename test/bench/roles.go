//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/eclitunnel/eclitunnel/test/bench/hop"
	"github.com/eclitunnel/eclitunnel/test/bench/machine"
	"github.com/eclitunnel/eclitunnel/test/bench/measure"
	"github.com/eclitunnel/eclitunnel/test/bench/report"
	"github.com/eclitunnel/eclitunnel/test/bench/role"
	"github.com/eclitunnel/eclitunnel/test/bench/subject"
	"github.com/eclitunnel/eclitunnel/test/bench/target"
)

// field is the games and the subjects that lead to them.
type field struct {
	games    []*role.Process
	subjects []subject.Subject
}

// start starts a game, the subjects that are wanted, and a game for every peer
// that leads to another address.
func (f *field) start(ctx context.Context, o options) error {
	game, err := f.startGame(ctx, o.Game)
	if err != nil {
		return err
	}
	for _, name := range o.Subjects {
		started, err := startSubject(ctx, name, o.Bin, game)
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
			if _, err := f.startGame(ctx, p.Target); err != nil {
				return err
			}
			served[p.Target] = true
		}
		f.subjects = append(f.subjects, p.Subject)
	}
	return nil
}

func (f *field) startGame(ctx context.Context, addr string) (string, error) {
	var listening string
	process, err := role.Start(ctx, gameRole, addr, &listening, false)
	if err != nil {
		return "", err
	}
	f.games = append(f.games, process)
	return listening, nil
}

func startSubject(ctx context.Context, name, bin, game string) ([]subject.Subject, error) {
	one := func(s subject.Subject, err error) ([]subject.Subject, error) { return []subject.Subject{s}, err }
	switch name {
	case subject.Direct:
		return one(subject.NewDirect(game))
	case subject.Hop2:
		return subject.StartHop2(ctx, game)
	case subject.HopTLS:
		return one(subject.StartHopTLS(ctx, game))
	case subject.Ours:
		return one(subject.StartOurs(ctx, bin, game))
	default:
		return nil, nil // a peer, which runs already
	}
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

// measureElsewhere measures what takes the home uplink, in a network namespace
// of its own. Peers cannot be reached from there.
func measureElsewhere(ctx context.Context, o options, uplinkMeasures []measure.Measure) (report.Report, error) {
	o.Uplink = uplinkHere
	o.Game = "127.0.0.1:0"
	o.Peers = nil
	o.Measures = nil
	for _, m := range uplinkMeasures {
		o.Measures = append(o.Measures, m.Name)
	}
	var r report.Report
	process, err := role.Start(ctx, uplinkRole, o, &r, true)
	if err != nil {
		return report.Report{}, err
	}
	return r, process.Stop()
}

// playUplink is the bench in a network namespace that has nothing but lo.
func playUplink(ctx context.Context, encoded []byte, ready func(any) error) error {
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
