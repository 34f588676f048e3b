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
func (fl *fleet) holdCut(ctx context.Context, a, b netip.Addr, d time.Duration) (time.Time, error) {
	if err := fl.world.cut(a, b); err != nil {
		return time.Time{}, err
	}
	pause(ctx, d)
	return time.Now(), fl.world.heal(a, b)
}

// cutLink keeps an agent from a tunnel server.
func cutLink(d time.Duration) func(context.Context, *fleet, *rand.Rand) error {
	return func(ctx context.Context, fl *fleet, r *rand.Rand) error {
		agent, server := pick(r, fl.agents), pick(r, fl.servers)
		ports := fl.portsOf(server, agent)
		excuse(ports)
		at, err := fl.holdCut(ctx, agent.place.addr, server.place.addr, fl.around(r, d))
		if err != nil {
			return err
		}
		name := "agent | tunnel server, long"
		if d == shortCut {
			name = "agent | tunnel server, short"
		}
		return fl.measure(ctx, name, recovery{
			ports: ports, devices: fl.devices(), listening: true, change: &binding{agent, server},
		}, at)
	}
}

// cutAgent keeps an agent from the panel: its players notice nothing.
func cutAgent(ctx context.Context, fl *fleet, r *rand.Rand) error {
	agent := pick(r, fl.agents)
	return fl.cutChannel(ctx, r, "agent | panel", agent, binding{agent, pick(r, fl.servers)})
}

// cutServer keeps a tunnel server from the panel: its players notice nothing.
func cutServer(ctx context.Context, fl *fleet, r *rand.Rand) error {
	server := pick(r, fl.servers)
	return fl.cutChannel(ctx, r, "tunnel server | panel", server, binding{pick(r, fl.agents), server})
}

func (fl *fleet) cutChannel(ctx context.Context, r *rand.Rand, name string, d *device, change binding) error {
	began := time.Now()
	at, err := fl.holdCut(ctx, d.place.addr, fl.world.router(), fl.around(r, longCut))
	if err != nil {
		return err
	}
	return fl.measure(ctx, name, recovery{
		devices: fl.devices(), reopened: []*device{d}, after: began, listening: true, change: &change,
	}, at)
}

// healthyAfter is when the balancer has noticed that a replica cannot serve.
const healthyAfter = 3 * time.Second

// cutPostgres keeps a replica of the panel from Postgres. Its readiness says so in time, the
// balancer sends no requests there, and it recovers by itself.
func cutPostgres(ctx context.Context, fl *fleet, r *rand.Rand) error {
	i := r.IntN(replicas)
	if err := fl.world.cut(fl.hosts[i].addr, fl.database.addr); err != nil {
		return err
	}
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() {
		fl.refuses(ctx, i, "panel | Postgres")
	})
	beside.Go(func() {
		pause(ctx, healthyAfter)
		answer, err := fl.api.ListDevicesWithResponse(ctx, nil)
		if ctx.Err() == nil && (err != nil || answer.JSON200 == nil) {
			fl.breach("the other replicas do not serve: %v", err)
		}
	})
	pause(ctx, fl.around(r, longCut))
	at := time.Now()
	if err := fl.world.heal(fl.hosts[i].addr, fl.database.addr); err != nil {
		return err
	}
	return fl.measure(ctx, "panel | Postgres", recovery{
		devices: fl.devices(), listening: true, change: fl.anywhere(r), answers: &i,
	}, at)
}
