//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// options say how to soak.
type options struct {
	Bin      string        // Directory of the binaries.
	Agents   int           // How many.
	Duration time.Duration // 0: every fault once.
	Seed     uint64        // Of the order of faults, and of the machines they affect.
	Goal     time.Duration // In which everything must be back; see promises.
	Only     string        // The one fault to repeat; "" is all.
	Logs     string        // Directory for what the programs print; "" keeps nothing.
	LogLevel string        // Of the agents and tunnel servers.
	// Apart gives every program a network of its own, which can be cut, and
	// NotApart says why not.
	Apart    bool
	NotApart string
}

// settleTime is the pause between two faults, in which delayed effects of the first
// show.
const settleTime = 500 * time.Millisecond

// soak runs a fleet, breaks it in every way, and reports. An error that ends it
// early is in the report too.
func soak(ctx context.Context, o options, progress io.Writer) report {
	fl := &fleet{options: o, progress: progress, started: time.Now()}
	err := fl.soak(ctx)
	r := report{Seed: o.Seed}
	if err == nil {
		fl.leave()
		err = fl.compareUsage(ctx)
	}
	r.Summary = fl.summary()
	if err != nil && fl.dir != "" {
		fmt.Fprintln(progress, fl.lastOutput())
	}
	err = errors.Join(err, fl.close())
	fl.mu.Lock()
	defer fl.mu.Unlock()
	r.Results, r.Breaches = fl.results, fl.breaches
	if !o.Apart {
		r.Skipped = append(r.Skipped, "cutting networks: "+o.NotApart)
	}
	if err != nil {
		r.Failed = err.Error()
	}
	return r
}

func (fl *fleet) soak(ctx context.Context) error {
	if err := fl.open(ctx); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	fl.say("%d panels, %d tunnel servers, %d agents; players on %d ports", replicas, tunnelServers, len(fl.agents), len(fl.ports))
	random := rand.New(rand.NewPCG(fl.options.Seed, 0))
	round := fl.round()
	if len(round) == 0 {
		return fmt.Errorf("there is no fault %q here", fl.options.Only)
	}
	ends := fl.started.Add(fl.options.Duration)
	var first size
	for {
		random.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
		for _, f := range round {
			if first != nil && time.Now().After(ends) {
				break
			}
			if err := fl.inject(ctx, f, random); err != nil {
				return err
			}
			pause(ctx, settleTime)
		}
		now, err := fl.weigh(ctx)
		if err != nil {
			return err
		}
		if first == nil {
			first = now
		}
		if time.Now().After(ends) {
			for _, broken := range append(grown(first, now), slowMedians(fl.results, fl.options.Goal)...) {
				fl.breach("%s", broken)
			}
			return nil
		}
	}
}

// round is what is done once in every round.
func (fl *fleet) round() []fault {
	var round []fault
	for _, f := range faults() {
		if (!f.cuts || fl.options.Apart) && (fl.options.Only == "" || fl.options.Only == f.name) {
			round = append(round, f)
		}
	}
	return round
}

// summary is what players and the API did.
func (fl *fleet) summary() string {
	c := &fl.counts
	text := fmt.Sprintf("%.0f s; players: %d visits, %d messages and %d datagrams of those who stay, every byte verified; "+
		"%d of them cut off by faults, %d datagrams lost and %.2f s of silence at most where nothing was broken",
		time.Since(fl.started).Seconds(), c.visits.Load(), c.messages.Load(), c.datagrams.Load(),
		c.cuts.Load(), c.lost.Load(), time.Duration(c.longest.Load()).Seconds())
	if fl.ledger == nil {
		return text
	}
	return fmt.Sprintf("%s; changes: %d acknowledged, %d failed%s", text, fl.ledger.acknowledged.Load(), fl.ledger.failed.Load(), fl.usage.found)
}
