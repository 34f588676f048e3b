//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

const (
	// pace is how often a player who stays sends something.
	pace = 100 * time.Millisecond
	// visitPause is between two who come and go, and between two tries where they cannot.
	visitPause  = 400 * time.Millisecond
	retryPause  = 50 * time.Millisecond
	visitEchoes = 3
	// joinPatience is how long a player may take to join while nothing is broken,
	// tryPatience a try while something is.
	joinPatience = 5 * time.Second
	tryPatience  = time.Second
	// silence is how long a player who stays may get no answer while nothing is broken.
	silence = 5 * time.Second
	// lateCut is how long after a network's return the ends of a connection from
	// before may find that it was too long for them: their deadline and more.
	lateCut = 15 * time.Second
)

// tally counts what players did.
type tally struct {
	visits, messages, datagrams, lost, cuts atomic.Int64
	longest                                 atomic.Int64 // The longest silence, in ns, of an unaffected player.
}

// port is a public port with the players on it: one who stays and others who
// come and go. While it is excused, a fault may keep players from
// it. Wrong content is never excused.
type port struct {
	types.Allocation
	agent, server *device
	counts        *tally
	breach        func(format string, args ...any)
	account       account // Of what its players have carried.

	mu      sync.Mutex
	excused bool
	// since and until are when it was last excused and no longer.
	since, until time.Time
	healed       time.Time // When it was last to be served again.
	heard        time.Time // When the player who stays last got an answer.
	// stayed and visited are when a player was first served of what began after
	// healed.
	stayed, visited time.Time
	// latest is when the latest that came back was sent, left when the one who
	// stayed was last cut off.
	latest, left time.Time
}

func (p *port) String() string {
	return fmt.Sprintf("%s %s of %s on %s", p.Protocol, p.PublicAddress, p.agent.Name, p.server.Name)
}

// allocate opens a public port of the range.
func (fl *fleet) allocate(ctx context.Context, agent, server *device, protocol types.AllocationCreateProtocol, name string) (*port, error) {
	return fl.allocateAt(ctx, nil, agent, server, protocol, name)
}

// allocateAt opens a certain public port; nil: any of the range.
func (fl *fleet) allocateAt(ctx context.Context, number *int, agent, server *device, protocol types.AllocationCreateProtocol, name string) (*port, error) {
	device, at, host := agent.id(), server.id(), agent.place.inside()
	idle := 10
	answer, err := fl.api.CreateAllocationWithResponse(ctx, types.AllocationCreate{
		DeviceID: &device, ServerID: &at, Protocol: protocol, Port: number, LocalPort: gamePort, LocalHost: &host, Name: &name,
		Options: &types.AllocationOptions{UDPIdleSeconds: &idle},
	})
	if err != nil {
		return nil, fmt.Errorf("allocate: %w", err)
	}
	if answer.JSON201 == nil {
		return nil, fmt.Errorf("allocate: %s: %s", answer.Status(), answer.Body)
	}
	p := &port{
		Allocation: answer.JSON201.Allocations[0], agent: agent, server: server,
		counts: &fl.counts, breach: fl.breach, excused: true,
	}
	fl.usage.open(p)
	return p, nil
}

// run has players play until ctx ends.
func (p *port) run(ctx context.Context) {
	var players sync.WaitGroup
	players.Go(func() { p.stayOn(ctx) })
	players.Go(func() { p.comeAndGo(ctx) })
	players.Go(func() { p.supervise(ctx) })
	players.Wait()
}

// player is a player whose bytes are counted.
func (p *port) player() traffic.Player { return traffic.Player{Carried: p.account.add} }

// excuse lets the port be broken from now on.
func (p *port) excuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.excused {
		p.excused, p.since = true, time.Now()
	}
}

// heal says that what broke it is gone; it stays excused until it is required.
func (p *port) heal(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.healed, p.stayed, p.visited = at, time.Time{}, time.Time{}
}

// require ends the excuse.
func (p *port) require() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.excused, p.heard, p.until = false, now, now
}

func (p *port) isExcused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.excused
}

// served is when both kinds of players have been served again; false if not yet.
func (p *port) served() (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.stayed
	if p.visited.After(last) {
		last = p.visited
	}
	return last, !p.stayed.IsZero() && !p.visited.IsZero()
}

// back says for people when each kind of player has been served again.
func (p *port) back(since time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("staying players after %.2f s, new ones after %.2f s", p.stayed.Sub(since).Seconds(), p.visited.Sub(since).Seconds())
}

// answered notes that a message of the player who stays has come back.
func (p *port) answered(sent time.Time) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if quiet := now.Sub(p.heard); !p.excused && !p.heard.IsZero() && int64(quiet) > p.counts.longest.Load() {
		p.counts.longest.Store(int64(quiet))
	}
	p.heard, p.latest = now, sent
	if p.stayed.IsZero() && sent.After(p.healed) {
		p.stayed = now
	}
	if p.Protocol == types.ProtocolTCP {
		p.counts.messages.Add(1)
	} else {
		p.counts.datagrams.Add(1)
	}
}

// stayOn has a player stay, and come back where a fault has cut them off.
func (p *port) stayOn(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		var err error
		if p.Protocol == types.ProtocolTCP {
			err = p.player().Stay(ctx, p.PublicAddress, pace, p.answered)
		} else {
			err = p.player().StayDatagrams(ctx, p.PublicAddress, pace, p.answered, p.lose)
		}
		if err == nil || ctx.Err() != nil {
			if errors.Is(err, traffic.ErrWrong) {
				p.breach("%v: %v", p, err)
			}
			return
		}
		p.lost(began, err)
		for ctx.Err() == nil && p.try(ctx, tryPatience) != nil {
			pause(ctx, retryPause)
		}
	}
}

// lose counts a datagram that was lost while nothing was broken, nor about to be
// while it was under way.
func (p *port) lose(sent time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.excused && (sent.After(p.until) || sent.Before(p.since.Add(-time.Second))) {
		p.counts.lost.Add(1)
	}
}

// lost judges the end of a player who stayed.
func (p *port) lost(began time.Time, err error) {
	p.mu.Lock()
	p.left = time.Now()
	excused := p.excused || began.Before(p.healed) && time.Since(p.healed) < lateCut
	p.mu.Unlock()
	if excused && !errors.Is(err, traffic.ErrWrong) {
		p.counts.cuts.Add(1)
		return
	}
	p.breach("%v: a player is lost: %v", p, err)
}

// comeAndGo has one player after another join, play and leave.
func (p *port) comeAndGo(ctx context.Context) {
	for ctx.Err() == nil {
		excused, began := p.isExcused(), time.Now()
		patience := joinPatience
		if excused {
			patience = tryPatience
		}
		err := p.try(ctx, patience)
		switch {
		case err == nil:
			p.counts.visits.Add(1)
			p.mu.Lock()
			if p.visited.IsZero() && began.After(p.healed) {
				p.visited = time.Now()
			}
			p.mu.Unlock()
			pause(ctx, visitPause)
			continue
		case ctx.Err() != nil:
			return
		case errors.Is(err, traffic.ErrWrong), !excused && !p.isExcused():
			p.breach("%v: a player cannot play: %v", p, err)
		}
		pause(ctx, retryPause)
	}
}

// try has a player join, play for a moment and leave.
func (p *port) try(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if p.Protocol == types.ProtocolTCP {
		return p.player().Visit(ctx, p.PublicAddress, visitEchoes)
	}
	return p.player().VisitDatagrams(ctx, p.PublicAddress, retryPause*2)
}

// supervise notices that the player who stays gets no answers.
func (p *port) supervise(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, silence/10)
		p.mu.Lock()
		quiet := time.Since(p.heard)
		silent := !p.excused && !p.heard.IsZero() && quiet > silence
		if silent {
			p.heard = time.Now() // Reported once, and again if it goes on.
		}
		p.mu.Unlock()
		if silent && ctx.Err() == nil {
			p.breach("%v: a player who stays has had no answer for %v", p, quiet.Round(time.Millisecond))
		}
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
