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
	// cuts says that it cuts a network.
	cuts bool
	// run breaks it, holds the promises to what they say meanwhile, and measures
	// how long after the cause was gone everything is back. An error means that the soak
	// cannot go on.
	run func(context.Context, *house, *rand.Rand) error
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
func (h *house) around(r *rand.Rand, d time.Duration) time.Duration {
	least, most := d/3, 3*d
	switch {
	case h.options.Duration == 0:
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
		{name: "Postgres killed", run: killPostgres},
		{name: "Postgres fails over", run: failOver},
		{name: "panels and Postgres down", run: blackOut},
		{name: "agent killed", run: killAgent},
		{name: "token regenerated", run: regenerate},
		{name: "device deleted", run: remove},
		{name: "agent | tunnel server, short", cuts: true, run: cutLink(shortCut)},
		{name: "agent | tunnel server, long", cuts: true, run: cutLink(longCut)},
		{name: "agent | panel", cuts: true, run: cutAgent},
		{name: "tunnel server | panel", cuts: true, run: cutServer},
		{name: "panel | Postgres", cuts: true, run: cutPostgres},
	}
	for i := range replicas {
		all = append(all, fault{name: "panel killed", run: func(ctx context.Context, h *house, r *rand.Rand) error {
			return killPanel(ctx, h, i, r)
		}})
	}
	for i := range tunnelServers {
		all = append(all, fault{name: "tunnel server killed", run: func(ctx context.Context, h *house, r *rand.Rand) error {
			return killServer(ctx, h, h.servers[i], r)
		}})
	}
	return all
}

// suffer runs one fault.
func (h *house) suffer(ctx context.Context, f fault, r *rand.Rand) error {
	h.mu.Lock()
	h.fault = f.name
	h.mu.Unlock()
	failed := h.ledger.failed.Load()
	err := f.run(ctx, h, r)
	if err == nil {
		err = h.ledger.verify(ctx)
	}
	if n := h.ledger.failed.Load() - failed; n > 0 {
		h.say("%-34s %d changes were not acknowledged", f.name, n)
	}
	h.mu.Lock()
	h.fault = ""
	h.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	return nil
}

// measure waits until everything is back, notes how long it took, and holds it
// to the goal.
func (h *house) measure(ctx context.Context, name string, r recovery, at time.Time) error {
	took, err := h.recover(ctx, r, at)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		h.breach("not back within %v: %v", recoveryPatience, err)
	}
	for _, p := range r.ports {
		p.require()
	}
	h.note(name, took, h.options.Goal)
	return nil
}

// note keeps what was measured and holds it to a goal.
func (h *house) note(name string, took times, goal time.Duration) {
	h.mu.Lock()
	h.results = append(h.results, result{Fault: name, Took: took})
	h.mu.Unlock()
	h.say("%-34s back: %s", name, took)
	for what, d := range took {
		if d > goal {
			h.breach("%s back after %v, not within %v", what, d.Round(time.Millisecond), goal)
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

func (h *house) anywhere(r *rand.Rand) *binding {
	return &binding{pick(r, h.agents), pick(r, h.servers)}
}

// killPanel kills a replica: its devices go to others, and players notice nothing.
func killPanel(ctx context.Context, h *house, i int, r *rand.Rand) error {
	var its []*device
	for _, d := range h.devices() {
		if h.balancer.ReplicaOf(d.id()) == i {
			its = append(its, d)
		}
	}
	at := time.Now()
	if err := h.panels[i].Kill(); err != nil {
		return err
	}
	// What was the cause stays: the others are there.
	if err := h.measure(ctx, "panel killed", recovery{
		devices: h.devices(), reopened: its, after: at, listening: true, change: h.anywhere(r),
	}, at); err != nil {
		return err
	}
	if err := h.panels[i].Launch(); err != nil {
		return err
	}
	return h.panels[i].AwaitReady(ctx)
}

// killPostgres kills Postgres and starts it again: the panel answers with an
// error meanwhile.
func killPostgres(ctx context.Context, h *house, r *rand.Rand) error {
	if err := h.postgres.Kill(); err != nil {
		return err
	}
	h.refuses(ctx, r.IntN(replicas), "Postgres killed")
	pause(ctx, h.around(r, outage))
	if err := h.postgres.Start(ctx); err != nil {
		return err
	}
	return h.measure(ctx, "Postgres killed", recovery{devices: h.devices(), listening: true, change: h.anywhere(r)}, time.Now())
}

// apiDeadline is when a request must have been answered whatever is broken.
const apiDeadline = 10 * time.Second

// refuses checks that a replica that is without its database says so in time.
func (h *house) refuses(ctx context.Context, replica int, name string) {
	ctx, cancel := context.WithTimeout(ctx, 2*apiDeadline)
	defer cancel()
	began := time.Now()
	answer, err := h.apis[replica].ListDevicesWithResponse(ctx, nil)
	took := time.Since(began)
	switch {
	case err != nil:
		h.breach("no answer of the API: %v", err)
	case answer.StatusCode() != http.StatusServiceUnavailable:
		h.breach("the API answers %s: %.200s", answer.Status(), answer.Body)
	default:
		h.note(name+": 503", times{whatAPI: took}, apiDeadline)
	}
}

// failOver has a standby take over after Postgres is killed.
func failOver(ctx context.Context, h *house, r *rand.Rand) error {
	if err := h.postgres.Follow(ctx); err != nil {
		return err
	}
	pause(ctx, outage/2) // Changes are acknowledged that only the standby will have.
	if err := h.postgres.Kill(); err != nil {
		return err
	}
	pause(ctx, h.around(r, outage))
	if err := h.postgres.TakeOver(ctx); err != nil {
		return err
	}
	return h.measure(ctx, "Postgres fails over", recovery{devices: h.devices(), listening: true, change: h.anywhere(r)}, time.Now())
}

// blackOut kills all panels and Postgres. Meanwhile new players join, and a
// tunnel server and an agent that are killed and started serve again.
func blackOut(ctx context.Context, h *house, r *rand.Rand) error {
	at := time.Now()
	for _, p := range h.panels {
		if err := p.Kill(); err != nil {
			return err
		}
	}
	if err := h.postgres.Kill(); err != nil {
		return err
	}
	pause(ctx, h.around(r, outage))
	server, agent := pick(r, h.servers), pick(r, h.agents)
	if err := h.restart(ctx, r, "tunnel server killed in a blackout", server, h.portsOf(server, nil)); err != nil {
		return err
	}
	if err := h.restart(ctx, r, "agent killed in a blackout", agent, h.portsOf(nil, agent)); err != nil {
		return err
	}
	if err := h.postgres.Start(ctx); err != nil {
		return err
	}
	for _, p := range h.panels {
		if err := p.Launch(); err != nil {
			return err
		}
	}
	if err := h.panels[0].AwaitReady(ctx); err != nil {
		return err
	}
	if err := h.measure(ctx, "panels and Postgres down", recovery{
		devices: h.devices(), reopened: h.devices(), after: at, listening: true, change: h.anywhere(r),
	}, time.Now()); err != nil {
		return err
	}
	for _, p := range h.panels {
		if err := p.AwaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// restart kills a device's process and starts it again, while the panel may be away.
func (h *house) restart(ctx context.Context, r *rand.Rand, name string, d *device, ports []*port) error {
	excuse(ports)
	if err := d.process.Kill(); err != nil {
		return err
	}
	pause(ctx, h.around(r, down))
	at := time.Now()
	if err := d.start(); err != nil {
		return err
	}
	return h.measure(ctx, name, recovery{ports: ports}, at)
}

// killServer kills a tunnel server. The other one notices nothing.
func killServer(ctx context.Context, h *house, server *device, r *rand.Rand) error {
	return h.killDevice(ctx, r, "tunnel server killed", server, h.portsOf(server, nil), binding{pick(r, h.agents), server})
}

func killAgent(ctx context.Context, h *house, r *rand.Rand) error {
	agent := pick(r, h.agents)
	return h.killDevice(ctx, r, "agent killed", agent, h.portsOf(nil, agent), binding{agent, pick(r, h.servers)})
}

func (h *house) killDevice(ctx context.Context, r *rand.Rand, name string, d *device, ports []*port, change binding) error {
	excuse(ports)
	if err := d.process.Kill(); err != nil {
		return err
	}
	pause(ctx, h.around(r, down))
	at := time.Now()
	if err := d.start(); err != nil {
		return err
	}
	return h.measure(ctx, name, recovery{
		ports: ports, devices: h.devices(), reopened: []*device{d}, after: at, listening: true, change: &change,
	}, at)
}
