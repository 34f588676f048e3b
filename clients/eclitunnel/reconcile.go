package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
)

const (
	// firstReconcile and lastReconcile bound the wait before ports that could not be opened
	// are tried again: quotas are raised and ports become free.
	firstReconcile = 5 * time.Second
	lastReconcile  = 5 * time.Minute
)

// openTunnels starts to open the ports of specs beside the agent that serves them, and
// returns what ends that and waits for it.
func openTunnels(ctx context.Context, a *app, client *tunnel.Client, specs []tunnelSpec, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var trying sync.WaitGroup
	trying.Go(func() { keepTrying(ctx, a, client, specs, log) })
	return func() {
		cancel()
		trying.Wait()
	}
}

// keepTrying opens the ports of specs, once: what somebody changes on the panel afterwards
// stays until the next start. It tries again while one cannot be opened, until ctx ends.
func keepTrying(ctx context.Context, a *app, client *tunnel.Client, specs []tunnelSpec, log *slog.Logger) {
	reasons := map[string]string{} // Of those that could not be opened, by name, as logged.
	waits := backoff.Exponential{Min: firstReconcile, Max: lastReconcile}
	for len(specs) > 0 {
		failed := reconcile(ctx, client, specs, log)
		specs = slices.DeleteFunc(slices.Clone(specs), func(spec tunnelSpec) bool { return failed[spec.name] == nil })
		if ctx.Err() != nil {
			return
		}
		for _, spec := range specs {
			if reason := failed[spec.name].Error(); reasons[spec.name] != reason {
				reasons[spec.name] = reason
				log.WarnContext(ctx, "a port of --tunnels cannot be opened; still trying", slog.String("name", spec.name), slog.String("reason", reason))
			}
		}
		pause := waits.Next()
		if len(specs) > 0 && panelAway(failed[specs[0].name]) {
			pause = min(pause, lastRetry)
		}
		if len(specs) > 0 && a.wait(ctx, pause) != nil {
			return
		}
	}
}

// reconcile makes the device's allocations what specs say. An allocation belongs to the
// entry of its name; others are left alone. It returns why entries failed, by name.
func reconcile(ctx context.Context, client *tunnel.Client, specs []tunnelSpec, log *slog.Logger) map[string]error {
	failed := map[string]error{}
	have, err := client.Allocations(ctx)
	for _, spec := range specs {
		if err != nil {
			failed[spec.name] = err
			continue
		}
		named := slices.DeleteFunc(slices.Clone(have), func(o types.Allocation) bool { return o.Name != spec.name })
		r := reconciler{client: client, spec: spec, log: log.With(slog.String("name", spec.name))}
		if failure := r.run(ctx, named); failure != nil {
			failed[spec.name] = failure
		}
	}
	return failed
}

// reconciler makes the allocations of one name what its entry says.
type reconciler struct {
	client *tunnel.Client
	spec   tunnelSpec
	log    *slog.Logger
}

// errSeveral means that it cannot be told which allocations of a name an entry means.
var errSeveral = errors.New("several ports of this device have this name; rename or close the others")

// run changes in place what it can: a game that moves to another port keeps its public
// one, and the players of a protocol stay when another is added.
func (r *reconciler) run(ctx context.Context, named []types.Allocation) error {
	slices.SortFunc(named, func(x, y types.Allocation) int { return cmp.Compare(x.Port, y.Port) })
	groups := map[types.Protocol][]types.Allocation{}
	for _, o := range named {
		groups[o.Protocol] = append(groups[o.Protocol], o)
	}
	for _, group := range groups {
		if len(group) > 1 && !sameRun(group) {
			return errSeveral
		}
	}
	wanted := protocolsOf(r.spec.protocol)
	var missing []types.Protocol
	for _, protocol := range []types.Protocol{types.ProtocolTCP, types.ProtocolUDP} {
		group := groups[protocol]
		switch {
		case !slices.Contains(wanted, protocol) || len(group) > 0 && !r.canChange(group):
			if err := r.close(ctx, group); err != nil {
				return err
			}
			if slices.Contains(wanted, protocol) {
				missing = append(missing, protocol)
			}
		case len(group) == 0:
			missing = append(missing, protocol)
		default:
			if err := r.change(ctx, group); err != nil {
				return err
			}
		}
	}
	return r.open(ctx, missing, named)
}

// sameRun reports whether allocations were opened together as neighbouring ports.
func sameRun(group []types.Allocation) bool {
	first, err := group[0].RunID.Get()
	return err == nil && !slices.ContainsFunc(group, func(o types.Allocation) bool {
		run, err := o.RunID.Get()
		return err != nil || run != first
	})
}

// canChange reports whether the allocations of a protocol can become what the entry says.
// The public ports of a run cannot be changed one by one.
func (r *reconciler) canChange(group []types.Allocation) bool {
	count := r.spec.target.count
	return len(group) == count && group[count-1].Port == group[0].Port+count-1 &&
		(count == 1 || r.spec.public == 0 || r.spec.public == group[0].Port)
}

func (r *reconciler) close(ctx context.Context, group []types.Allocation) error {
	for _, o := range group {
		if err := r.client.DeleteAllocation(ctx, o.ID); err != nil && !tunnel.HasCode(err, types.CodeNotFound) {
			return fmt.Errorf("close %s %s: %w", o.Protocol, o.PublicAddress, err)
		}
		r.log.InfoContext(ctx, "port closed", slog.String("protocol", string(o.Protocol)), slog.String("public", o.PublicAddress))
	}
	return nil
}

func (r *reconciler) change(ctx context.Context, group []types.Allocation) error {
	for i, o := range group {
		var patch types.AllocationPatch
		if host := r.spec.target.host; !sameHost(o.LocalHost, host) {
			patch.LocalHost = &host
		}
		if port := r.spec.target.first + i; o.LocalPort != port {
			patch.LocalPort = &port
		}
		if port := r.spec.public; port != 0 && o.Port != port+i {
			patch.Port = &port // It is not of a run.
		}
		if patch == (types.AllocationPatch{}) {
			continue
		}
		changed, err := r.client.UpdateAllocation(ctx, o.ID, patch)
		if err != nil {
			return fmt.Errorf("change %s %s: %w", o.Protocol, o.PublicAddress, err)
		}
		r.log.InfoContext(ctx, "port changed", slog.String("protocol", string(o.Protocol)),
			slog.String("public", changed.PublicAddress), slog.String("target", localAddress(changed)))
	}
	return nil
}

// open opens the entry's ports in the protocols in which they are missing, on the public
// ports that the name has in another protocol, or had before.
func (r *reconciler) open(ctx context.Context, missing []types.Protocol, named []types.Allocation) error {
	if len(missing) == 0 {
		return nil
	}
	request := types.AllocationCreate{
		Name: &r.spec.name, LocalHost: &r.spec.target.host, LocalPort: r.spec.target.first,
		Protocol: types.AllocationCreateProtocol(missing[0]), Options: &types.AllocationOptions{},
	}
	if len(missing) > 1 {
		request.Protocol = types.CreateTCPUDP
	}
	if r.spec.target.count > 1 {
		request.Count = &r.spec.target.count // A panel that does not know it yet refuses it.
	}
	if len(named) > 0 {
		request.Port, request.ServerID = &named[0].Port, &named[0].ServerID
	}
	if r.spec.public != 0 {
		request.Port = &r.spec.public
	}
	opened, err := r.client.CreateAllocation(ctx, request)
	if err != nil {
		return err
	}
	for _, o := range opened {
		r.log.InfoContext(ctx, "port opened", slog.String("protocol", string(o.Protocol)),
			slog.String("public", o.PublicAddress), slog.String("target", localAddress(o)))
	}
	return nil
}
