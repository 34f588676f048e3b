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
)

// revocation is how long what is revoked may live on, anywhere.
const revocation = time.Second

// visit is a guest, a device that is about to be revoked, and its players.
type visit struct {
	ports   []*port
	stop    context.CancelFunc
	playing sync.WaitGroup
}

// startGuest has the guest serve players on both tunnel servers.
func (fl *fleet) startGuest(ctx context.Context) (*visit, error) {
	if fl.guest == nil {
		d, err := fl.newDevice(ctx, "guest", types.DeviceKindClient)
		if err != nil {
			return nil, err
		}
		fl.guest = d
	} else {
		if err := fl.enroll(ctx, fl.guest, types.DeviceKindClient); err != nil {
			return nil, err
		}
		if err := fl.guest.start(); err != nil {
			return nil, err
		}
	}
	playing, stop := context.WithCancel(ctx)
	v := &visit{stop: stop}
	for i, protocol := range []types.AllocationCreateProtocol{types.CreateTCP, types.CreateUDP} {
		for _, server := range fl.servers[i:] {
			p, err := fl.allocateAt(ctx, new(guestPublic), fl.guest, server, protocol, "guest")
			if err != nil {
				v.end()
				return nil, err
			}
			v.ports = append(v.ports, p)
			v.playing.Go(func() { p.run(playing) })
		}
	}
	if _, err := fl.recover(ctx, recovery{ports: v.ports, devices: []*device{fl.guest}}, time.Now()); err != nil {
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
func (fl *fleet) elsewhere(r *rand.Rand) int {
	return (fl.balancer.ReplicaOf(fl.guest.id()) + 1 + r.IntN(replicas-1)) % replicas
}

// regenerate replaces the guest's token through one replica while its channel is
// on another; with the new one it serves again.
func regenerate(ctx context.Context, fl *fleet, r *rand.Rand) error {
	v, err := fl.startGuest(ctx)
	if err != nil {
		return err
	}
	defer v.end()
	excuse(v.ports)
	at := time.Now()
	answer, err := fl.apis[fl.elsewhere(r)].RegenerateDeviceTokenWithResponse(ctx, fl.guest.id())
	if err != nil {
		return err
	}
	if answer.JSON200 == nil {
		return fmt.Errorf("regenerate: %s: %s", answer.Status(), answer.Body)
	}
	fl.revoked(ctx, "token regenerated", v, at, "token")
	fl.guest.setToken(answer.JSON200.Token)
	again := time.Now()
	if err := fl.guest.start(); err != nil {
		return err
	}
	if err := fl.measure(ctx, "token regenerated", recovery{ports: v.ports, devices: []*device{fl.guest}}, again); err != nil {
		return err
	}
	excuse(v.ports)
	return fl.endGuest(ctx)
}

// endGuest deletes the guest; another fault measures that.
func (fl *fleet) endGuest(ctx context.Context) error {
	if err := fl.deleteGuest(ctx, fl.api); err != nil {
		return err
	}
	_, err := fl.guest.process.Wait(ctx)
	return err
}

func (fl *fleet) deleteGuest(ctx context.Context, through *client.ClientWithResponses) error {
	answer, err := through.DeleteDeviceWithResponse(ctx, fl.guest.id())
	if err != nil {
		return err
	}
	if answer.JSON200 == nil {
		return fmt.Errorf("delete: %s: %s", answer.Status(), answer.Body)
	}
	return nil
}

// remove deletes the guest through one replica while its channel is on another.
func remove(ctx context.Context, fl *fleet, r *rand.Rand) error {
	v, err := fl.startGuest(ctx)
	if err != nil {
		return err
	}
	defer v.end()
	excuse(v.ports)
	at := time.Now()
	if err := fl.deleteGuest(ctx, fl.apis[fl.elsewhere(r)]); err != nil {
		return err
	}
	fl.revoked(ctx, "device deleted", v, at, "delete")
	for _, p := range v.ports {
		if p.Protocol == types.ProtocolTCP {
			if err := p.player().Visit(ctx, p.PublicAddress, 1); !errors.Is(err, syscall.ECONNREFUSED) {
				fl.breach("%v is not closed: %v", p, err)
			}
		}
	}
	return nil
}

// revoked checks that the guest ends with the reason, and that its players are cut
// off everywhere, and notes how long that took.
func (fl *fleet) revoked(ctx context.Context, name string, v *visit, at time.Time, why string) {
	waiting, cancel := context.WithDeadline(ctx, at.Add(10*revocation))
	defer cancel()
	code, err := fl.guest.process.Wait(waiting)
	if err != nil {
		fl.breach("the agent goes on: %v", err)
		return
	}
	last := time.Now()
	if code == 0 || !regexp.MustCompile(`(?i)`+why).MatchString(fl.guest.process.LastLines(5)) {
		fl.breach("the agent ended without the reason (%s): exit code %d: %s", why, code, fl.guest.process.LastLines(5))
	}
	// A player who is still served is served within this time.
	pause(waiting, time.Until(at.Add(2*revocation)))
	for _, p := range v.ports {
		p.mu.Lock()
		left, latest := p.left, p.latest
		p.mu.Unlock()
		if p.Protocol == types.ProtocolTCP && !left.After(at) {
			fl.breach("%v: a player is still connected", p)
		}
		for _, t := range []time.Time{left, latest} {
			if t.After(last) {
				last = t
			}
		}
	}
	fl.note(name, times{whatRevoked: last.Sub(at)}, within(revocation))
}
