//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// fault is something that breaks, and comes back.
type fault struct {
	name string
	// cuts says that it cuts a network, and mute that reports of usage may wait meanwhile.
	cuts, mute bool
	// run breaks it, holds the promises to what they say meanwhile, and measures
	// how long after the cause was gone everything is back. An error means that the soak
	// cannot go on.
	run func(context.Context, *fleet, *rand.Rand) error
}

const (
	// shortCut ends well before the deadline after which the ends of a link take
	// each other for dead, longCut well after it.
	shortCut = 3 * time.Second
	longCut  = 11 * time.Second
	// outage is how long something stays away, down a process.
	outage = 3 * time.Second
	down   = time.Second
)

// around is how long something that takes d in the short form takes in the long
// form: from a third to three times that, but for a short cut, which stays one.
func (fl *fleet) around(r *rand.Rand, d time.Duration) time.Duration {
	least, most := d/3, 3*d
	switch {
	case fl.options.Duration == 0:
		return d
	case d == longCut:
		least, most = d, 2*d
	case d == shortCut:
		most = d
	}
	return least + time.Duration(r.Int64N(int64(most-least)))
}

// faults are all of them. Those of a kind that names a machine pick one.
func faults() []fault {
	all := []fault{
		{name: "Postgres killed", mute: true, run: killPostgres},
		{name: "Postgres fails over", mute: true, run: failOver},
		{name: "panels and Postgres down", mute: true, run: blackOut},
		{name: "agent killed", run: killAgent},
		{name: "token regenerated", run: regenerate},
		{name: "device deleted", run: remove},
		{name: "agent | tunnel server, short", cuts: true, run: cutLink(shortCut)},
		{name: "agent | tunnel server, long", cuts: true, run: cutLink(longCut)},
		{name: "agent | panel", cuts: true, run: cutAgent},
		{name: "tunnel server | panel", cuts: true, mute: true, run: cutServer},
		{name: "panel | Postgres", cuts: true, mute: true, run: cutPostgres},
	}
	for i := range replicas {
		all = append(all, fault{name: "panel killed", mute: true, run: func(ctx context.Context, fl *fleet, r *rand.Rand) error {
			return killPanel(ctx, fl, i, r)
		}})
	}
	for i := range tunnelServers {
		all = append(all, fault{name: "tunnel server killed", run: func(ctx context.Context, fl *fleet, r *rand.Rand) error {
			return killServer(ctx, fl, fl.servers[i], r)
		}})
	}
	return all
}

// inject runs one fault.
func (fl *fleet) inject(ctx context.Context, f fault, r *rand.Rand) error {
	fl.mu.Lock()
	fl.fault = f.name
	fl.mu.Unlock()
	failed := fl.ledger.failed.Load()
	err := f.run(ctx, fl, r)
	if f.mute {
		fl.usage.flow(time.Now())
	}
	if err == nil {
		err = fl.ledger.verify(ctx)
	}
	if n := fl.ledger.failed.Load() - failed; n > 0 {
		fl.say("%-34s %d changes were not acknowledged", f.name, n)
	}
	fl.mu.Lock()
	fl.fault = ""
	fl.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	return nil
}

// measure waits until everything is back, notes how long it took, and holds it
// to what is promised.
func (fl *fleet) measure(ctx context.Context, name string, r recovery, at time.Time) error {
	took, err := fl.recover(ctx, r, at)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		fl.breach("not back within %v: %v", recoveryPatience, err)
	}
	for _, p := range r.ports {
		p.require()
	}
	fl.note(name, took, func(what string) time.Duration { return limit(name, what, fl.options.Goal) })
	return nil
}

// note keeps what was measured and holds each to its limit.
func (fl *fleet) note(name string, took times, limit func(what string) time.Duration) {
	fl.mu.Lock()
	fl.results = append(fl.results, result{Fault: name, Took: took})
	fl.mu.Unlock()
	fl.say("%-34s back: %s", name, took)
	for what, d := range took {
		if most := limit(what); d > most {
			fl.breach("%s back after %v, not within %v", what, d.Round(time.Millisecond), most)
		}
	}
}

func excuse(ports []*port) {
	for _, p := range ports {
		p.excuse()
	}
}

// pick is a random one.
func pick[T any](r *rand.Rand, all []T) T { return all[r.IntN(len(all))] }

func (fl *fleet) anywhere(r *rand.Rand) *binding {
	return &binding{pick(r, fl.agents), pick(r, fl.servers)}
}

// killPanel kills a replica: its devices go to others, and players notice nothing.
func killPanel(ctx context.Context, fl *fleet, i int, r *rand.Rand) error {
	var its []*device
	for _, d := range fl.devices() {
		if fl.balancer.ReplicaOf(d.id()) == i {
			its = append(its, d)
		}
	}
	at := time.Now()
	if err := fl.panels[i].Kill(); err != nil {
		return err
	}
	// What was the cause stays: the others are there.
	if err := fl.measure(ctx, "panel killed", recovery{
		devices: fl.devices(), reopened: its, after: at, listening: true, change: fl.anywhere(r),
	}, at); err != nil {
		return err
	}
	if err := fl.panels[i].Launch(); err != nil {
		return err
	}
	return fl.panels[i].AwaitReady(ctx)
}

// killPostgres kills Postgres and starts it again: the panel answers with an
// error meanwhile.
func killPostgres(ctx context.Context, fl *fleet, r *rand.Rand) error {
	if err := fl.postgres.Kill(); err != nil {
		return err
	}
	fl.refuses(ctx, r.IntN(replicas), "Postgres killed")
	pause(ctx, fl.around(r, outage))
	if err := fl.postgres.Start(ctx); err != nil {
		return err
	}
	return fl.measure(ctx, "Postgres killed", recovery{devices: fl.devices(), listening: true, change: fl.anywhere(r)}, time.Now())
}

// apiDeadline is when a request must have been answered whatever is broken.
const apiDeadline = 10 * time.Second

// refuses checks that a replica without its database answers 503 in time.
func (fl *fleet) refuses(ctx context.Context, replica int, name string) {
	bounded, cancel := context.WithTimeout(ctx, 2*apiDeadline)
	defer cancel()
	began := time.Now()
	answer, err := fl.apis[replica].ListDevicesWithResponse(bounded, nil)
	took := time.Since(began)
	switch {
	case ctx.Err() != nil: // The soak ends.
	case err != nil:
		fl.breach("no answer of the API: %v", err)
	case answer.StatusCode() != http.StatusServiceUnavailable:
		fl.breach("the API answers %s: %.200s", answer.Status(), answer.Body)
	default:
		fl.note(name+": 503", times{whatAPI: took}, within(apiDeadline))
	}
}

// failOver has a standby take over after Postgres is killed.
func failOver(ctx context.Context, fl *fleet, r *rand.Rand) error {
	if err := fl.postgres.Follow(ctx); err != nil {
		return err
	}
	pause(ctx, outage/2) // Changes are acknowledged that only the standby will have.
	if err := fl.postgres.Kill(); err != nil {
		return err
	}
	pause(ctx, fl.around(r, outage))
	if err := fl.postgres.TakeOver(ctx); err != nil {
		return err
	}
	return fl.measure(ctx, "Postgres fails over", recovery{devices: fl.devices(), listening: true, change: fl.anywhere(r)}, time.Now())
}

// blackOut kills all panels and Postgres. Meanwhile new players join, and a
// tunnel server and an agent that are killed and started serve again.
func blackOut(ctx context.Context, fl *fleet, r *rand.Rand) error {
	at := time.Now()
	for _, p := range fl.panels {
		if err := p.Kill(); err != nil {
			return err
		}
	}
	if err := fl.postgres.Kill(); err != nil {
		return err
	}
	pause(ctx, fl.around(r, outage))
	server, agent := pick(r, fl.servers), pick(r, fl.agents)
	if err := fl.restart(ctx, r, "tunnel server killed in a blackout", server, fl.portsOf(server, nil), nil); err != nil {
		return err
	}
	if err := fl.restart(ctx, r, "agent killed in a blackout", agent, fl.portsOf(nil, agent), nil); err != nil {
		return err
	}
	if err := fl.postgres.Start(ctx); err != nil {
		return err
	}
	for _, p := range fl.panels {
		if err := p.Launch(); err != nil {
			return err
		}
	}
	if err := fl.panels[0].AwaitReady(ctx); err != nil {
		return err
	}
	if err := fl.measure(ctx, "panels and Postgres down", recovery{
		devices: fl.devices(), reopened: fl.devices(), after: at, listening: true, change: fl.anywhere(r),
	}, time.Now()); err != nil {
		return err
	}
	for _, p := range fl.panels {
		if err := p.AwaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// restart kills a device's process and starts it again. With a change the panel is
// there, and everything recovers; without one only the ports do.
func (fl *fleet) restart(ctx context.Context, r *rand.Rand, name string, d *device, ports []*port, change *binding) error {
	excuse(ports)
	killed := time.Now()
	if err := d.process.Kill(); err != nil {
		return err
	}
	fl.usage.killed(d, killed)
	pause(ctx, fl.around(r, down))
	if d.game == nil && change != nil {
		fl.settleDead(ctx, d)
	}
	at, back := time.Now(), recovery{ports: ports}
	if err := d.start(); err != nil {
		return err
	}
	if change != nil {
		back = recovery{ports: ports, devices: fl.devices(), reopened: []*device{d}, after: at, listening: true, change: change}
	}
	return fl.measure(ctx, name, back, at)
}

// killServer kills a tunnel server. The other one notices nothing.
func killServer(ctx context.Context, fl *fleet, server *device, r *rand.Rand) error {
	fl.usage.caughtUp(ctx)
	return fl.restart(ctx, r, "tunnel server killed", server, fl.portsOf(server, nil), &binding{pick(r, fl.agents), server})
}

func killAgent(ctx context.Context, fl *fleet, r *rand.Rand) error {
	agent := pick(r, fl.agents)
	return fl.restart(ctx, r, "agent killed", agent, fl.portsOf(nil, agent), &binding{agent, pick(r, fl.servers)})
}
