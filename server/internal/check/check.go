// Package check finds out whether players can join an allocation, and names the first hop on
// their way that is broken.
//
// What the panel knows comes first: known.go. The agent is then asked about the game
// (local.go), and another tunnel server tries the public port (public.go). Devices are asked
// by rows of the database, so that it does not matter which replica they are connected to.
// Only addresses of the allocation's own tunnel server are ever tried: see probeable.
package check

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

const (
	// timeout bounds a check.
	timeout = 9500 * time.Millisecond
	// Bounds of its parts.
	lookupTimeout   = 2 * time.Second
	gameTimeout     = 4 * time.Second // The agent asks the game.
	elsewhereWait   = 3500 * time.Millisecond
	countersTimeout = 1500 * time.Millisecond
	panelTimeout    = 2500 * time.Millisecond
	// firstPoll is the wait between two looks for answers, which grows to lastPoll.
	firstPoll, lastPoll = 10 * time.Millisecond, 200 * time.Millisecond
	// maxAddresses bounds the addresses of a public host that are tried.
	maxAddresses = 4
)

// Store is the part of the database that checks use.
type Store interface {
	AskProbes(ctx context.Context, probes []db.Probe) error
	ProbeAnswers(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]json.RawMessage, error)
	ForgetProbes(ctx context.Context, ids []uuid.UUID) error
	ProbeServers(ctx context.Context, except uuid.UUID, limit int) ([]db.ProbeServer, error)
}

// Options configures a Checker.
type Options struct {
	Store Store // Required.
	// Lookup returns the addresses of a name. nil is the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	Logger *slog.Logger // nil is slog.Default.
}

// Checker checks allocations. It is safe for concurrent use.
type Checker struct{ opts Options }

// New returns a Checker.
func New(o Options) *Checker {
	if o.Lookup == nil {
		o.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Checker{opts: o}
}

// order is the order of the hops.
var order = []types.CheckHopHop{
	types.HopPort, types.HopTunnelServer, types.HopAgent, types.HopLink, types.HopGame, types.HopName, types.HopPublicPort,
}

// run is one check.
type run struct {
	*Checker
	row  db.CheckedAllocation
	hops map[types.CheckHopHop]types.CheckHop
	game *types.GameStatus

	target *types.ProbedTarget // nil: the agent has not answered.
	before *types.ProbedPort   // nil: the tunnel server has not answered.
}

// finding is an outcome in a sentence. The zero value means that nothing broken was found.
type finding struct {
	outcome types.CheckOutcome
	message string
}

func (f finding) none() bool { return f.outcome == "" }

// Check checks an allocation, within ten seconds.
func (c *Checker) Check(ctx context.Context, row db.CheckedAllocation) (types.AllocationCheck, error) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r := &run{Checker: c, row: row, hops: map[types.CheckHopHop]types.CheckHop{}}
	found, err := r.find(ctx)
	if err != nil {
		return types.AllocationCheck{}, err
	}
	check := types.AllocationCheck{
		AllocationID: row.ID, Outcome: found.outcome, Message: found.message, CheckedAt: begin.UTC(),
		Hops: make([]types.CheckHop, 0, len(order)), Game: r.game,
	}
	for _, name := range order {
		hop, ok := r.hops[name]
		if !ok {
			hop = types.CheckHop{Hop: name, State: types.HopSkipped, Detail: "Not checked."}
		}
		check.Hops = append(check.Hops, hop)
	}
	return check, nil
}

func (r *run) find(ctx context.Context) (finding, error) {
	if found := r.known(); !found.none() {
		return found, nil
	}
	if err := r.askBefore(ctx); err != nil {
		return finding{}, err
	}
	if found := r.local(); !found.none() {
		return found, nil
	}
	addresses, found := r.resolve(ctx)
	if !found.none() {
		return found, nil
	}
	return r.public(ctx, addresses)
}

func (r *run) hop(name types.CheckHopHop, state types.CheckHopState, detail string) {
	r.hops[name] = types.CheckHop{Hop: name, State: state, Detail: detail}
}

// fail notes that a hop is broken, and returns the finding.
func (r *run) fail(name types.CheckHopHop, outcome types.CheckOutcome, detail, message string) finding {
	r.hop(name, types.HopFailed, detail)
	return finding{outcome, message}
}

// unsure notes that a hop could not be checked, which leaves the whole open.
func (r *run) unsure(name types.CheckHopHop, detail, message string) finding {
	r.hop(name, types.HopUnknown, detail)
	return finding{types.CheckUnknown, message}
}

// question is a probe of a device.
type question struct {
	device uuid.UUID
	probe  types.Probe
}

// ask asks devices, and waits for their answers until all have answered or the wait is over.
// It returns nil for each that has not, or that takes no probes.
func (r *run) ask(ctx context.Context, wait time.Duration, questions ...question) ([]*types.ProbeResult, error) {
	results := make([]*types.ProbeResult, len(questions))
	probes, ids := make([]db.Probe, len(questions)), make([]uuid.UUID, len(questions))
	for i, q := range questions {
		q.probe.Type, q.probe.ID, q.probe.AllocationID = types.TypeProbe, uuid.New(), r.row.ID
		text, err := json.Marshal(q.probe)
		if err != nil {
			return nil, err
		}
		probes[i], ids[i] = db.Probe{ID: q.probe.ID, DeviceID: q.device, Question: text}, q.probe.ID
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err := r.opts.Store.AskProbes(waiting, probes)
	if err == nil {
		var answers map[uuid.UUID]json.RawMessage
		answers, err = r.await(waiting, ids)
		for i, id := range ids {
			results[i] = r.decode(answers[id])
		}
		r.forget(ctx, ids)
	}
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	return results, nil
}

func (r *run) await(ctx context.Context, ids []uuid.UUID) (answers map[uuid.UUID]json.RawMessage, err error) {
	for pause := firstPoll; ; pause = min(2*pause, lastPoll) {
		now, err := r.opts.Store.ProbeAnswers(ctx, ids)
		if err != nil {
			return answers, err
		}
		if answers = now; len(answers) == len(ids) {
			return answers, nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return answers, ctx.Err()
		}
	}
}

// forget deletes probes, also those whose answers nobody waits for any more. What is left is
// deleted with a later check.
func (r *run) forget(ctx context.Context, ids []uuid.UUID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := r.opts.Store.ForgetProbes(ctx, ids); err != nil {
		r.opts.Logger.DebugContext(ctx, "probes not forgotten yet", slog.Any("error", err))
	}
}

// decode returns an answer, or nil if there is none or the device takes no probes.
func (r *run) decode(answer json.RawMessage) *types.ProbeResult {
	var result *types.ProbeResult
	if len(answer) == 0 || json.Unmarshal(answer, &result) != nil {
		return nil
	}
	return result
}

// askBefore asks the agent about the game, and the tunnel server what has arrived so far.
func (r *run) askBefore(ctx context.Context) error {
	results, err := r.ask(ctx, gameTimeout,
		question{r.row.DeviceID, types.Probe{Subject: types.ProbeTarget}},
		question{r.row.ServerID, types.Probe{Subject: types.ProbePort}})
	if err != nil {
		return err
	}
	if results[0] != nil {
		r.target = results[0].Target
	}
	if results[1] != nil {
		r.before = results[1].Port
	}
	return nil
}
