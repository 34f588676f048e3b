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
	Seed     uint64        // Of the order of faults, and of whom they strike.
	Goal     time.Duration // In which everything must be back.
	Only     string        // The one fault to repeat; "" is all.
	Logs     string        // Directory for what the programs print; "" keeps nothing.
	LogLevel string        // Of the agents and tunnel servers.
	// Apart gives every program a network of its own, which can be cut, and
	// NotApart says why not.
	Apart    bool
	NotApart string
}

// calm is between two faults, for what the first left behind to show.
const calm = 500 * time.Millisecond

// soak runs a fleet, breaks it in every way, and reports. What keeps it from
// going on is in the report too.
func soak(ctx context.Context, o options, progress io.Writer) report {
	h := &house{options: o, progress: progress, started: time.Now()}
	err := h.soak(ctx)
	r := report{Seed: o.Seed}
	if err == nil {
		h.leave()
	}
	r.Summary = h.summary()
	if err != nil && h.dir != "" {
		fmt.Fprintln(progress, h.lastWords())
	}
	err = errors.Join(err, h.close())
	h.mu.Lock()
	defer h.mu.Unlock()
	r.Results, r.Breaches = h.results, h.breaches
	if !o.Apart {
		r.Skipped = append(r.Skipped, "cutting networks: "+o.NotApart)
	}
	if err != nil {
		r.Failed = err.Error()
	}
	return r
}

func (h *house) soak(ctx context.Context) error {
	if err := h.open(ctx); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	h.say("%d panels, %d tunnel servers, %d agents; players on %d ports", replicas, tunnelServers, len(h.agents), len(h.ports))
	random := rand.New(rand.NewPCG(h.options.Seed, 0))
	round := h.round()
	if len(round) == 0 {
		return fmt.Errorf("there is no fault %q here", h.options.Only)
	}
	ends := h.started.Add(h.options.Duration)
	var first size
	for {
		random.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
		for _, f := range round {
			if first != nil && time.Now().After(ends) {
				break
			}
			if err := h.suffer(ctx, f, random); err != nil {
				return err
			}
			pause(ctx, calm)
		}
		now, err := h.weigh(ctx)
		if err != nil {
			return err
		}
		if first == nil {
			first = now
		}
		if time.Now().After(ends) {
			for _, g := range grown(first, now) {
				h.breach("%s", g)
			}
			return nil
		}
	}
}

// round is what is done once in every round.
func (h *house) round() []fault {
	var round []fault
	for _, f := range faults() {
		if (!f.cuts || h.options.Apart) && (h.options.Only == "" || h.options.Only == f.name) {
			round = append(round, f)
		}
	}
	return round
}

// summary is what players and the API did.
func (h *house) summary() string {
	c := &h.counts
	text := fmt.Sprintf("%.0f s; players: %d visits, %d messages and %d datagrams of those who stay, every byte verified; "+
		"%d of them cut off by faults, %d datagrams lost and %.2f s of silence at most where nothing was broken",
		time.Since(h.started).Seconds(), c.visits.Load(), c.messages.Load(), c.datagrams.Load(),
		c.cuts.Load(), c.lost.Load(), time.Duration(c.longest.Load()).Seconds())
	if h.ledger == nil {
		return text
	}
	return fmt.Sprintf("%s; changes: %d acknowledged, %d failed", text, h.ledger.acknowledged.Load(), h.ledger.failed.Load())
}
