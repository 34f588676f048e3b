package agent

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// watching receives the snapshots of a Watch.
type watching struct {
	t     *testing.T
	shown chan Snapshot
	ended chan error
}

func (r *running) watch(t *testing.T) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watching{t: t, shown: make(chan Snapshot, 256), ended: make(chan error, 1)}
	var done sync.WaitGroup
	done.Go(func() {
		w.ended <- r.agent.Watch(ctx, func(s Snapshot) error { w.shown <- s; return nil })
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return w
}

// until returns the first snapshot that is as wanted.
func (w *watching) until(what string, is func(Snapshot) bool) Snapshot {
	w.t.Helper()
	for {
		if s := next(w.t, w.shown, what); is(s) {
			return s
		}
	}
}

func (l *fakeLinks) set(links []link.Link, carried map[int64]target.Carried) {
	l.mu.Lock()
	l.links, l.carried = links, carried
	l.mu.Unlock()
	l.change()
}

func says(s Snapshot, text string) bool {
	return slices.ContainsFunc(s.Notes, func(n Note) bool { return strings.Contains(n.Text, text) })
}

func TestSnapshot_FollowsTheAgent(t *testing.T) {
	r := startAt(t, newPanel(t), func(o *Options) { o.Name = "home" })
	w := r.watch(t)
	first := w.until("the first snapshot", func(Snapshot) bool { return true })
	if first.Panel.Connected || len(first.Tunnels) != 0 || first.Version != "1.2.3" || first.Device.Name != "home" ||
		first.Device.ID != r.agent.opts.Client.TokenDevice() || first.Panel.URL != r.URL {
		t.Errorf("at first %+v", first)
	}
	c := r.channel(t)
	m := snapshot(1, 1, 2)
	m.Allocations[1].Name = "survival"
	c.send(t, m)
	s := w.until("the panel", func(s Snapshot) bool { return s.Panel.Connected && len(s.Tunnels) == 2 })
	if p := s.Tunnels[0]; p.State != PortOpening || p.Target != types.TargetUnknown || p.LocalAddress != "127.0.0.1:25565" {
		t.Errorf("before any report %+v", p)
	}
	down, why := types.TargetDown, "nothing listens on 127.0.0.1:25565: start the game"
	missing := readyReport(2)
	missing.Target, missing.TargetReason = &down, &why
	r.links.report(readyReport(1), missing)
	s = w.until("reports", func(s Snapshot) bool { return s.Tunnels[1].State == PortNoGame })
	if s.Tunnels[0].State != PortOpen || s.Tunnels[1].TargetReason != why || !says(s, "survival: the game does not answer: "+why) {
		t.Errorf("reports are shown as %+v", s)
	}
	up := types.TargetUp
	there := readyReport(1)
	there.Target = &up
	missing.Target, missing.TargetReason = &up, nil
	r.links.report(there, missing)
	s = w.until("a game", func(s Snapshot) bool { return s.Tunnels[1].State == PortOpen })
	if says(s, "play.test:20001: the game is there") || !says(s, "survival: the game is there") {
		t.Errorf("only what was missed is noted when it is there: %+v", s.Notes)
	}
	r.links.report(failedReport(1, "tunnel server x: no answer"), missing)
	s = w.until("a failure", func(s Snapshot) bool { return s.Tunnels[0].State == PortFailed })
	if s.Tunnels[0].Reason != "tunnel server x: no answer" {
		t.Errorf("a failure is shown as %+v", s.Tunnels[0])
	}
	c.Close(1012, "")
	w.until("the end of the channel", func(s Snapshot) bool { return !s.Panel.Connected && s.Panel.Reason != "" })
	r.channel(t).send(t, change(2, nil, nil))
	r.stop()
	s = w.until("the end", func(s Snapshot) bool { return says(s, "stopped") })
	if err := next(t, w.ended, "the end of the watch"); err != nil {
		t.Error(err)
	}
}

func TestSnapshot_CountsAndNotesPlayersAndLinks(t *testing.T) {
	r := start(t)
	w := r.watch(t)
	r.channel(t).send(t, snapshot(1, 1))
	w.until("the port", func(s Snapshot) bool { return len(s.Tunnels) == 1 })
	server, since := uuid.New(), time.Now()
	down := link.Link{Server: server, Address: "fra1:7443", Dialled: true, Reason: "tunnel server fra1:7443: no answer", Since: since}
	r.links.set([]link.Link{down}, nil)
	s := w.until("a link that is down", func(s Snapshot) bool {
		return len(s.Servers) == 1 && says(s, "no link to the tunnel server fra1:7443: no answer")
	})
	if l := s.Servers[0]; l.State != LinkDown || l.Reason != down.Reason || !l.Since.Equal(since) {
		t.Errorf("a link that is down is shown as %+v", l)
	}
	r.links.set([]link.Link{{Server: server, Address: "fra1:7443", Dialled: true, Up: true}},
		map[int64]target.Carried{1: {FromPlayers: 1000, Players: 2, Joined: 2}})
	r.agent.playerChange()
	s = w.until("players", func(s Snapshot) bool { return says(s, "2 players joined (2 now)") })
	if s.Servers[0].State != LinkUp || s.Tunnels[0].Players != 2 || s.Tunnels[0].FromPlayers != 1000 || !says(s, "linked to the tunnel server fra1:7443") {
		t.Errorf("players are shown as %+v", s)
	}
	r.links.set(nil, map[int64]target.Carried{1: {FromPlayers: 501_000, ToPlayers: 5, Players: 1, Joined: 3, Refused: 1}})
	r.agent.playerChange()
	s = w.until("a rate", func(s Snapshot) bool { return s.Tunnels[0].FromPlayersPerSecond > 1000 })
	if rate := s.Tunnels[0].FromPlayersPerSecond; rate > 600_000 {
		t.Errorf("500,000 bytes in a second or more are %v a second", rate)
	}
	w.until("a refusal", func(s Snapshot) bool {
		return says(s, "1 player joined, 2 players left (1 now), 1 player was refused")
	})
}

func TestWatch_PausedPortsAreThoseOfThePanel(t *testing.T) {
	r := start(t)
	c := r.channel(t)
	c.send(t, snapshot(1, 1))
	r.event(t, EventConnected)
	r.allocations <- []types.Allocation{
		{ID: 1, Status: types.AllocationPaused}, // It is open again.
		{ID: 2, Status: types.AllocationPaused, Protocol: types.ProtocolUDP, PublicAddress: "play.test:2", LocalHost: "127.0.0.1", LocalPort: 9},
		{ID: 3, Status: types.AllocationOffline},
	}
	w := r.watch(t)
	s := w.until("a paused port", func(s Snapshot) bool { return len(s.Tunnels) == 2 })
	if p := s.Tunnels[1]; p.ID != 2 || p.State != PortPaused || p.LocalAddress != "127.0.0.1:9" {
		t.Errorf("shown as %+v", p)
	}
	c.send(t, change(2, nil, []int64{1}))
	r.allocations <- []types.Allocation{{ID: 1, Status: types.AllocationPaused}}
	w.until("a port that has been paused", func(s Snapshot) bool {
		return len(s.Tunnels) == 1 && s.Tunnels[0].ID == 1 && s.Tunnels[0].State == PortPaused
	})
}

func TestWatch_IsBoundedAndEnds(t *testing.T) {
	r := start(t)
	refusal := errors.New("the reader is gone")
	if err := r.agent.Watch(t.Context(), func(Snapshot) error { return refusal }); !errors.Is(err, refusal) {
		t.Errorf("a watcher that fails ends with %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	shown := 0
	began := time.Now()
	err := r.agent.Watch(ctx, func(Snapshot) error {
		for range 100 {
			r.agent.view.note(uuid.NewString(), false)
		}
		if shown++; shown == 3 {
			cancel()
		}
		return nil
	})
	if took := time.Since(began); err != nil || shown != 3 || took < 2*showInterval {
		t.Errorf("%d snapshots in %v, then %v", shown, took, err)
	}
	s := r.agent.Snapshot()
	if len(s.Notes) != maxNotes {
		t.Errorf("%d notes are kept", len(s.Notes))
	}
	if _, err := json.Marshal(s); err != nil {
		t.Error(err)
	}
}
