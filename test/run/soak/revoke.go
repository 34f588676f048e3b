//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"sync"
	"syscall"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

// revocation is how long what is revoked may live on, anywhere.
const revocation = time.Second

// visit is a guest who is about to be revoked, and players of theirs.
type visit struct {
	ports   []*port
	stop    context.CancelFunc
	playing sync.WaitGroup
}

// invite has the guest serve players on both tunnel servers.
func (h *house) invite(ctx context.Context) (*visit, error) {
	if h.guest == nil {
		d, err := h.newDevice(ctx, "guest", types.DeviceKindClient)
		if err != nil {
			return nil, err
		}
		h.guest = d
	} else {
		if err := h.enroll(ctx, h.guest, types.DeviceKindClient); err != nil {
			return nil, err
		}
		if err := h.guest.start(); err != nil {
			return nil, err
		}
	}
	playing, stop := context.WithCancel(ctx)
	v := &visit{stop: stop}
	for i, protocol := range []types.AllocationCreateProtocol{types.CreateTCP, types.CreateUDP} {
		for _, server := range h.servers[i:] {
			p, err := h.allocate(ctx, h.guest, server, protocol, "guest")
			if err != nil {
				v.end()
				return nil, err
			}
			v.ports = append(v.ports, p)
			v.playing.Go(func() { p.run(playing) })
		}
	}
	if _, err := h.recover(ctx, recovery{ports: v.ports, devices: []*device{h.guest}}, time.Now()); err != nil {
		v.end()
		return nil, err
	}
	return v, nil
}

func (v *visit) end() {
	v.stop()
	v.playing.Wait()
}

// elsewhere is a replica that does not hold the guest's control channel.
func (h *house) elsewhere(r *rand.Rand) int {
	return (h.balancer.ReplicaOf(h.guest.id()) + 1 + r.IntN(replicas-1)) % replicas
}

// regenerate replaces the guest's token through one replica while its channel is
// on another; with the new one it serves again.
func regenerate(ctx context.Context, h *house, r *rand.Rand) error {
	v, err := h.invite(ctx)
	if err != nil {
		return err
	}
	defer v.end()
	excuse(v.ports)
	at := time.Now()
	answer, err := h.apis[h.elsewhere(r)].RegenerateDeviceTokenWithResponse(ctx, h.guest.id())
	if err != nil {
		return err
	}
	if answer.JSON200 == nil {
		return fmt.Errorf("regenerate: %s: %s", answer.Status(), answer.Body)
	}
	h.revoked(ctx, "token regenerated", v, at, "token")
	h.guest.setToken(answer.JSON200.Token)
	again := time.Now()
	if err := h.guest.start(); err != nil {
		return err
	}
	if err := h.measure(ctx, "token regenerated", recovery{ports: v.ports, devices: []*device{h.guest}}, again); err != nil {
		return err
	}
	excuse(v.ports)
	return h.dismiss(ctx)
}

// dismiss deletes the guest, whose revocation is another fault's to measure.
func (h *house) dismiss(ctx context.Context) error {
	if err := h.deleteGuest(ctx, h.api); err != nil {
		return err
	}
	_, err := h.guest.process.Wait(ctx)
	return err
}

func (h *house) deleteGuest(ctx context.Context, through *client.ClientWithResponses) error {
	answer, err := through.DeleteDeviceWithResponse(ctx, h.guest.id())
	if err != nil {
		return err
	}
	if answer.JSON200 == nil {
		return fmt.Errorf("delete: %s: %s", answer.Status(), answer.Body)
	}
	return nil
}

// remove deletes the guest through one replica while its channel is on another.
func remove(ctx context.Context, h *house, r *rand.Rand) error {
	v, err := h.invite(ctx)
	if err != nil {
		return err
	}
	defer v.end()
	excuse(v.ports)
	at := time.Now()
	if err := h.deleteGuest(ctx, h.apis[h.elsewhere(r)]); err != nil {
		return err
	}
	h.revoked(ctx, "device deleted", v, at, "delete")
	for _, p := range v.ports {
		if p.Protocol == types.ProtocolTCP {
			if err := traffic.Visit(ctx, p.PublicAddress, 1); !errors.Is(err, syscall.ECONNREFUSED) {
				h.breach("%v is not closed: %v", p, err)
			}
		}
	}
	return nil
}

// revoked checks that the guest says why and ends, and that its players are cut
// off everywhere, and notes when the last of that was.
func (h *house) revoked(ctx context.Context, name string, v *visit, at time.Time, why string) {
	waiting, cancel := context.WithDeadline(ctx, at.Add(10*revocation))
	defer cancel()
	code, err := h.guest.process.Wait(waiting)
	if err != nil {
		h.breach("the agent goes on: %v", err)
		return
	}
	last := time.Now()
	if code == 0 || !regexp.MustCompile(`(?i)`+why).MatchString(h.guest.process.LastLines(5)) {
		h.breach("the agent does not say why it ended (%s): exit code %d: %s", why, code, h.guest.process.LastLines(5))
	}
	// Whoever is still served is served within this time.
	pause(waiting, time.Until(at.Add(2*revocation)))
	for _, p := range v.ports {
		p.mu.Lock()
		left, latest := p.left, p.latest
		p.mu.Unlock()
		if p.Protocol == types.ProtocolTCP && !left.After(at) {
			h.breach("%v: a player is still connected", p)
		}
		for _, t := range []time.Time{left, latest} {
			if t.After(last) {
				last = t
			}
		}
	}
	h.note(name, times{whatRevoked: last.Sub(at)}, revocation)
}
