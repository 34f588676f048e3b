//go:build linux

package main

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// holdCut keeps two machines from each other and returns when that has ended.
func (h *house) holdCut(ctx context.Context, a, b netip.Addr, d time.Duration) (time.Time, error) {
	if err := h.world.cut(a, b); err != nil {
		return time.Time{}, err
	}
	pause(ctx, d)
	return time.Now(), h.world.heal(a, b)
}

// cutLink keeps an agent from a tunnel server.
func cutLink(d time.Duration) func(context.Context, *house, *rand.Rand) error {
	return func(ctx context.Context, h *house, r *rand.Rand) error {
		agent, server := pick(r, h.agents), pick(r, h.servers)
		ports := h.portsOf(server, agent)
		excuse(ports)
		at, err := h.holdCut(ctx, agent.place.addr, server.place.addr, h.around(r, d))
		if err != nil {
			return err
		}
		name := "agent | tunnel server, long"
		if d == shortCut {
			name = "agent | tunnel server, short"
		}
		return h.measure(ctx, name, recovery{
			ports: ports, devices: h.devices(), listening: true, change: &binding{agent, server},
		}, at)
	}
}

// cutAgent keeps an agent from the panel: its players notice nothing.
func cutAgent(ctx context.Context, h *house, r *rand.Rand) error {
	agent := pick(r, h.agents)
	return h.cutChannel(ctx, r, "agent | panel", agent, binding{agent, pick(r, h.servers)})
}

// cutServer keeps a tunnel server from the panel: its players notice nothing.
func cutServer(ctx context.Context, h *house, r *rand.Rand) error {
	server := pick(r, h.servers)
	return h.cutChannel(ctx, r, "tunnel server | panel", server, binding{pick(r, h.agents), server})
}

func (h *house) cutChannel(ctx context.Context, r *rand.Rand, name string, d *device, change binding) error {
	began := time.Now()
	at, err := h.holdCut(ctx, d.place.addr, h.world.router(), h.around(r, longCut))
	if err != nil {
		return err
	}
	return h.measure(ctx, name, recovery{
		devices: h.devices(), reopened: []*device{d}, after: began, listening: true, change: &change,
	}, at)
}

// healthyAfter is when the balancer has noticed that a replica cannot serve.
const healthyAfter = 3 * time.Second

// cutPostgres keeps a replica of the panel from Postgres. It says so in time, the
// balancer sends nobody there, and it heals by itself.
func cutPostgres(ctx context.Context, h *house, r *rand.Rand) error {
	i := r.IntN(replicas)
	if err := h.world.cut(h.hosts[i].addr, h.database.addr); err != nil {
		return err
	}
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() {
		h.refuses(ctx, i, "panel | Postgres")
	})
	beside.Go(func() {
		pause(ctx, healthyAfter)
		answer, err := h.api.ListDevicesWithResponse(ctx, nil)
		if ctx.Err() == nil && (err != nil || answer.JSON200 == nil) {
			h.breach("the other replicas do not serve: %v", err)
		}
	})
	pause(ctx, h.around(r, longCut))
	at := time.Now()
	if err := h.world.heal(h.hosts[i].addr, h.database.addr); err != nil {
		return err
	}
	return h.measure(ctx, "panel | Postgres", recovery{
		devices: h.devices(), listening: true, change: h.anywhere(r), answers: &i,
	}, at)
}
