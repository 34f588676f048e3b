package agent

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

const (
	// maxNotes is how many notes are kept.
	maxNotes = 50
	// pausedInterval is the least time between two questions to the panel.
	pausedInterval = 30 * time.Second
	// stale is how old the last look at the counts may be for a rate.
	stale = 3 * sampleInterval
)

// view is what a Snapshot shows and nothing else of the agent knows. Its methods may be
// called from any goroutine.
type view struct {
	wake chan struct{} // Holds one signal: the panel is to be asked for paused ports.

	mu       sync.Mutex
	changed  chan struct{} // Closed at the next change.
	over     bool
	started  time.Time
	panel    PanelView
	notes    []Note
	watchers int
	paused   []PortView
	askedAt  time.Time

	counts    map[int64]target.Carried // When they were last looked at,
	countedAt time.Time
	speeds    map[int64]rate // and the rates then.
}

// rate is in bytes per second.
type rate struct{ from, to float64 }

func newView() *view {
	now := time.Now().UTC()
	return &view{wake: make(chan struct{}, 1), changed: make(chan struct{}), started: now, panel: PanelView{Since: now}}
}

// touch has watchers look again.
func (v *view) touch() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.touched()
}

// touched is called with mu held.
func (v *view) touched() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// next returns what is closed at the next change.
func (v *view) next() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

// note adds a note, unless it repeats the last one.
func (v *view) note(text string, trouble bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if n := len(v.notes); n > 0 && v.notes[n-1].Text == text {
		return
	}
	if len(v.notes) == maxNotes {
		v.notes = append(v.notes[:0], v.notes[1:]...)
	}
	v.notes = append(v.notes, Note{Time: time.Now().UTC(), Text: text, Trouble: trouble})
	v.touched()
}

// connected notes the state of the connection to the panel.
func (v *view) connected(p PanelView) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if p.Connected == v.panel.Connected {
		p.Since = v.panel.Since
	} else {
		p.Since = time.Now().UTC()
	}
	v.panel = p
	v.touched()
}

// end notes that Run returns.
func (v *view) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.over = true
	if v.panel.Connected {
		v.panel = PanelView{Since: time.Now().UTC()}
	}
	v.touched()
}

func (v *view) isOver() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.over
}

// base returns a snapshot with what the view knows.
func (v *view) base(now time.Time) Snapshot {
	v.mu.Lock()
	defer v.mu.Unlock()
	return Snapshot{Time: now, Started: v.started, Panel: v.panel, Notes: append([]Note{}, v.notes...)}
}

// rates returns what allocations carry in bytes per second, and looks at the counts once
// in a sampleInterval.
func (v *view) rates(now time.Time, counts map[int64]target.Carried) map[int64]rate {
	v.mu.Lock()
	defer v.mu.Unlock()
	elapsed := now.Sub(v.countedAt)
	if elapsed < sampleInterval*9/10 {
		return v.speeds
	}
	speeds := map[int64]rate{}
	for id, c := range counts {
		before := v.counts[id] // Zero: the port is new.
		if elapsed < stale && c.FromPlayers >= before.FromPlayers && c.ToPlayers >= before.ToPlayers {
			speeds[id] = rate{
				from: float64(c.FromPlayers-before.FromPlayers) / elapsed.Seconds(),
				to:   float64(c.ToPlayers-before.ToPlayers) / elapsed.Seconds(),
			}
		}
	}
	v.counts, v.countedAt, v.speeds = counts, now, speeds
	return speeds
}

// watch counts a watcher until the returned function is called.
func (v *view) watch() (leave func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.watchers++
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.watchers--
	}
}

func (v *view) pausedPorts() []PortView {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.paused
}

// askPaused has the panel asked for paused ports if somebody watches, and the last answer
// is old or may have changed.
func (a *Agent) askPaused(changed bool) {
	v := a.view
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.watchers == 0 || !changed && time.Since(v.askedAt) < pausedInterval {
		return
	}
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// watchPaused asks the panel for paused ports, which are no part of the desired state,
// while somebody watches. It returns when ctx ends.
func (a *Agent) watchPaused(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.view.wake:
		}
		a.view.asked()
		if !a.control.Connected() {
			continue
		}
		all, err := a.opts.Client.Allocations(ctx)
		if err != nil {
			a.log.Debug("paused ports not read", slog.Any("error", err))
			continue
		}
		a.view.setPaused(all)
		select { // Somebody may open and close many ports.
		case <-ctx.Done():
			return
		case <-time.After(sampleInterval):
		}
	}
}

func (v *view) asked() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.askedAt = time.Now()
}

func (v *view) setPaused(all []types.Allocation) {
	var paused []PortView
	for _, o := range all {
		if o.Status != types.AllocationPaused {
			continue
		}
		paused = append(paused, PortView{State: PortPaused, Target: types.TargetUnknown, ServerID: o.ServerID, EventPort: EventPort{
			ID: o.ID, Name: o.Name, Protocol: o.Protocol, PublicAddress: o.PublicAddress,
			LocalAddress: net.JoinHostPort(o.LocalHost, strconv.Itoa(o.LocalPort)), PublicAddresses: o.PublicAddresses,
		}})
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.paused = paused
	v.touched()
}
