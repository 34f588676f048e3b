//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

const (
	// recoveryPatience is how long everything may take to recover.
	recoveryPatience = 40 * time.Second
	recoveryPoll     = 10 * time.Millisecond
	apiPoll          = 100 * time.Millisecond
)

// recovery says what must be as it was once a cause has gone away.
type recovery struct {
	ports   []*port   // Served to players who stay and to new ones.
	devices []*device // Their control channels are open,
	// of those in reopened opened after this time.
	after    time.Time
	reopened []*device

	listening bool     // The API reports every port listening.
	change    *binding // A port can be opened here and played on.
	answers   *int     // This replica answers.
}

// binding is where a port is opened.
type binding struct{ agent, server *device }

// The names of what is measured.
const (
	whatPlayers   = "players"
	whatChannels  = "channels"
	whatListening = "listening"
	whatChange    = "new port"
	whatAPI       = "API"
	whatRevoked   = "revoked"
)

// times are how long after the cause was gone what was back.
type times map[string]time.Duration

// recover waits until everything is back and says how long after at that was. It
// breaks a promise where something is not back in time.
func (fl *fleet) recover(ctx context.Context, r recovery, at time.Time) (times, error) {
	for _, p := range r.ports {
		p.heal(at)
	}
	waiting, cancel := context.WithTimeout(ctx, recoveryPatience)
	defer cancel()
	waits := map[string]func(context.Context) (time.Time, error){}
	if len(r.ports) > 0 {
		waits[whatPlayers] = func(ctx context.Context) (time.Time, error) { return fl.awaitPlayers(ctx, r.ports, at) }
	}
	if len(r.devices) > 0 {
		waits[whatChannels] = func(ctx context.Context) (time.Time, error) { return awaitChannels(ctx, r) }
	}
	if r.listening {
		waits[whatListening] = fl.awaitListening
	}
	if r.change != nil {
		waits[whatChange] = func(ctx context.Context) (time.Time, error) { return fl.awaitChange(ctx, *r.change) }
	}
	if r.answers != nil {
		waits[whatAPI] = func(ctx context.Context) (time.Time, error) { return fl.awaitAnswer(ctx, *r.answers) }
	}
	type ended struct {
		what string
		took time.Duration
	}
	all := make(chan ended, len(waits))
	group, inner := errgroup.WithContext(waiting)
	for what, wait := range waits {
		group.Go(func() error {
			back, err := wait(inner)
			all <- ended{what, max(0, back.Sub(at))}
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		})
	}
	err := group.Wait()
	close(all)
	took := times{}
	for e := range all {
		took[e.what] = e.took
	}
	return took, err
}

func (fl *fleet) awaitPlayers(ctx context.Context, ports []*port, since time.Time) (time.Time, error) {
	var last time.Time
	for _, p := range ports {
		for {
			at, ok := p.served()
			if ok {
				if at.Sub(since) > part(lateFrom, fl.options.Goal) {
					fl.say("late: %v, %s", p, p.back(since))
				}
				if at.After(last) {
					last = at
				}
				break
			}
			if ctx.Err() != nil {
				return time.Now(), fmt.Errorf("%v is not played on: %w", p, ctx.Err())
			}
			pause(ctx, recoveryPoll)
		}
	}
	return last, nil
}

func awaitChannels(ctx context.Context, r recovery) (time.Time, error) {
	var last time.Time
	must := map[*device]bool{}
	for _, d := range r.reopened {
		must[d] = true
	}
	for _, d := range r.devices {
		for {
			open, since := d.channel.state()
			if open && (!must[d] || since.After(r.after)) {
				if since.After(last) {
					last = since
				}
				break
			}
			if ctx.Err() != nil {
				return time.Now(), fmt.Errorf("%s has no control channel: %w", d.Name, ctx.Err())
			}
			pause(ctx, recoveryPoll)
		}
	}
	return last, nil
}

// awaitListening waits until the API says of every port that players can join.
func (fl *fleet) awaitListening(ctx context.Context) (time.Time, error) {
	last := errors.New("the API was not asked")
	for ctx.Err() == nil {
		if last = fl.allListening(ctx); last == nil {
			return time.Now(), nil
		}
		pause(ctx, apiPoll)
	}
	return time.Now(), fmt.Errorf("%w: %w", ctx.Err(), last)
}

func (fl *fleet) allListening(ctx context.Context) error {
	answer, err := fl.api.ListAllocationsWithResponse(ctx, nil)
	if err != nil {
		return err
	}
	if answer.JSON200 == nil {
		return fmt.Errorf("list allocations: %s: %s", answer.Status(), answer.Body)
	}
	status := map[int64]types.Allocation{}
	for _, a := range *answer.JSON200 {
		status[a.ID] = a
	}
	for _, p := range fl.ports {
		if a := status[p.ID]; a.Status != types.AllocationListening {
			reason, _ := a.StatusReason.Get()
			return fmt.Errorf("%v is %q %s", p, a.Status, reason)
		}
	}
	return nil
}

// awaitChange opens a port, plays on it and closes it.
func (fl *fleet) awaitChange(ctx context.Context, where binding) (time.Time, error) {
	var made *port
	last := errors.New("the API was not asked")
	for made == nil {
		if ctx.Err() != nil {
			return time.Now(), fmt.Errorf("%w: %w", ctx.Err(), last)
		}
		if made, last = fl.allocate(ctx, where.agent, where.server, types.CreateTCP, "probe"); last != nil {
			pause(ctx, apiPoll)
		}
	}
	for last = made.try(ctx, tryPatience); last != nil; last = made.try(ctx, tryPatience) {
		if ctx.Err() != nil {
			return time.Now(), fmt.Errorf("new %v: %w: %w", made, ctx.Err(), last)
		}
		pause(ctx, recoveryPoll)
	}
	back := time.Now()
	return back, cluster.Until(ctx, "the new port is closed again", func(ctx context.Context) (bool, error) {
		answer, err := fl.api.DeleteAllocationWithResponse(ctx, made.ID)
		return err == nil && (answer.StatusCode() == http.StatusOK || answer.StatusCode() == http.StatusNotFound), nil
	})
}

// awaitAnswer waits until a replica answers by itself.
func (fl *fleet) awaitAnswer(ctx context.Context, replica int) (time.Time, error) {
	last := errors.New("the API was not asked")
	for ctx.Err() == nil {
		answer, err := fl.apis[replica].ListDevicesWithResponse(ctx, nil)
		switch {
		case err != nil:
			last = err
		case answer.JSON200 == nil:
			last = fmt.Errorf("list devices: %s: %s", answer.Status(), answer.Body)
		default:
			return time.Now(), nil
		}
		pause(ctx, recoveryPoll)
	}
	return time.Now(), fmt.Errorf("%w: %w", ctx.Err(), last)
}
