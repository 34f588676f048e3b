package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

type listCmd struct {
	Label []string `env:"-" sep:"none" placeholder:"KEY[=VALUE]" help:"List only ports with this label. Can be repeated: a port has to have all of them."`
}

// Run implements the command.
func (cmd *listCmd) Run(ctx context.Context, a *app, s *settings) error {
	_, client, err := s.device(a)
	if err != nil {
		return err
	}
	defer client.Close()
	allocations, err := cmd.read(ctx, client)
	if err != nil {
		return err
	}
	if s.JSON {
		return a.printJSON(allocations)
	}
	if len(allocations) == 0 && len(cmd.Label) > 0 {
		a.printf("No port has these labels. List all with: eclitunnel list")
		return nil
	}
	if len(allocations) == 0 {
		a.printf("No ports are open. Open one with: eclitunnel open tcp PORT")
		return nil
	}
	a.printAllocations(allocations)
	a.printHints(allocations)
	return nil
}

// read returns the allocations to list.
func (cmd *listCmd) read(ctx context.Context, client *tunnel.Client) ([]types.Allocation, error) {
	if len(cmd.Label) == 0 { // Panels that do not know labels yet refuse the parameter.
		return client.Allocations(ctx)
	}
	allocations := []types.Allocation{}
	for o, err := range client.EachAllocation(ctx, types.ListAllocationsParams{Label: &cmd.Label}) {
		if err != nil {
			return nil, usageIfInvalid(err)
		}
		allocations = append(allocations, o)
	}
	return allocations, nil
}

// printAllocations prints allocations as a table.
func (a *app) printAllocations(allocations []types.Allocation) {
	const status = 4
	table := [][]string{{"ID", "PROTOCOL", "PUBLIC ADDRESS", "LOCAL TARGET", "STATUS", "NAME"}}
	all := rows(allocations)
	for _, ports := range all {
		o, more := ports[0], len(ports)-1
		table = append(table, []string{
			strconv.FormatInt(o.ID, 10), string(o.Protocol), o.PublicAddress + through(o.Port, more),
			localAddress(o) + through(o.LocalPort, more), statusLine(o), o.Name,
		})
	}
	a.printTable(table, func(row, column int) string {
		switch {
		case row == 0:
			return "2" // Dim.
		case column == status:
			return statusColor(all[row-1][0])
		default:
			return ""
		}
	})
	a.printAddresses(allocations)
}

// through returns the end of a run that has more ports after the first, or "".
func through(first, more int) string {
	if more == 0 {
		return ""
	}
	return fmt.Sprintf("-%d", first+more)
}

func statusLine(o types.Allocation) string {
	if reason, err := o.StatusReason.Get(); err == nil && reason != "" {
		return string(o.Status) + " (" + reason + ")"
	}
	if noGame(o) {
		return string(o.Status) + ", no game" // The reason names a port: a run has one row.
	}
	return string(o.Status)
}

// noGame reports whether players can join but meet no game.
func noGame(o types.Allocation) bool {
	return o.Status == types.AllocationListening && o.Target == types.TargetDown
}

// noGameLine says why an allocation without a game has none.
func noGameLine(o types.Allocation) string {
	line := fmt.Sprintf("no game behind %s %s", o.Protocol, o.PublicAddress)
	if o.TargetReason != nil {
		line += ": " + *o.TargetReason
	}
	return line
}

// rows groups allocations into the rows of the table: neighbouring ports of a run share
// one if they differ in nothing else. Rows are in the order of allocations, and ports in
// ascending order.
func rows(allocations []types.Allocation) [][]types.Allocation {
	type key struct {
		id                          int64
		run                         uuid.UUID
		protocol                    types.Protocol
		public, local, status, name string
	}
	var order []key
	groups := map[key][]types.Allocation{}
	for _, o := range allocations {
		k := key{protocol: o.Protocol, public: o.PublicHost, local: o.LocalHost, status: statusLine(o), name: o.Name}
		var err error
		if k.run, err = o.RunID.Get(); err != nil {
			k.id = o.ID // It was allocated alone.
		}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], o)
	}
	var rows [][]types.Allocation
	for _, k := range order {
		ports := groups[k]
		slices.SortFunc(ports, func(a, b types.Allocation) int { return a.Port - b.Port })
		begin := 0
		for i := 1; i <= len(ports); i++ {
			if i == len(ports) || ports[i].Port != ports[i-1].Port+1 || ports[i].LocalPort != ports[i-1].LocalPort+1 {
				rows = append(rows, ports[begin:i])
				begin = i
			}
		}
	}
	return rows
}

// named is the argument of commands about allocations that exist.
type named struct {
	Target string `arg:"" name:"id-port-or-name" help:"Id, public port or name of an allocation, as list shows them; write id:N, port:N or name:NAME if several match."`
}

type closeCmd struct{ named }

func (*closeCmd) Help() string {
	return `Disconnects the players on the port at once. Given a port number or a name, it closes TCP and UDP on that port. Neighbouring ports that were opened together are closed together, by any of them or as list shows them: close 24510-24512.`
}

// Run implements the command.
func (cmd *closeCmd) Run(ctx context.Context, a *app, s *settings) error {
	_, client, err := s.device(a)
	if err != nil {
		return err
	}
	defer client.Close()
	chosen, err := cmd.find(ctx, client)
	if err != nil {
		return err
	}
	for _, o := range chosen {
		if err := client.DeleteAllocation(ctx, o.ID); err != nil {
			return fmt.Errorf("close %s %s: %w", o.Protocol, o.PublicAddress, err)
		}
		if !s.JSON {
			a.printf("closed %s %s", o.Protocol, o.PublicAddress)
		}
	}
	if s.JSON {
		return a.printJSON(chosen)
	}
	return nil
}

// find returns the allocations that Target names, with the rest of their runs.
func (cmd *named) find(ctx context.Context, client *tunnel.Client) ([]types.Allocation, error) {
	allocations, err := client.Allocations(ctx)
	if err != nil {
		return nil, err
	}
	chosen, err := cmd.choose(allocations)
	if err != nil {
		return nil, err
	}
	return withRuns(chosen, allocations), nil
}

// choose returns the allocations that Target names, which are on one public port or in
// one run.
func (cmd *named) choose(allocations []types.Allocation) ([]types.Allocation, error) {
	run, err := chooseRun(cmd.Target, allocations)
	if len(run) > 0 || err != nil {
		return run, err
	}
	kind, text, ok := strings.Cut(cmd.Target, ":")
	if !ok || kind != "id" && kind != "port" && kind != "name" {
		kind, text = "", cmd.Target // A name may contain a colon.
	}
	n, err := strconv.ParseInt(text, 10, 64)
	var chosen []types.Allocation
	var forms []string
	ambiguous := false
	for _, form := range []struct {
		kind  string
		names func(types.Allocation) bool
	}{
		{"id", func(o types.Allocation) bool { return err == nil && o.ID == n }},
		{"port", func(o types.Allocation) bool { return err == nil && int64(o.Port) == n }},
		{"name", func(o types.Allocation) bool { return text != "" && o.Name == text }},
	} {
		found := slices.DeleteFunc(slices.Clone(allocations), func(o types.Allocation) bool { return !form.names(o) })
		if len(found) == 0 || kind != "" && kind != form.kind {
			continue
		}
		ambiguous = ambiguous || chosen != nil && !slices.EqualFunc(chosen, found, sameAllocation)
		chosen, forms = found, append(forms, form.kind+":"+text)
	}
	switch {
	case ambiguous:
		return nil, usagef("%q can mean several allocations; write %s", cmd.Target, strings.Join(forms, " or "))
	case slices.ContainsFunc(chosen, func(o types.Allocation) bool { return !samePort(o, chosen[0]) }):
		return nil, usagef("%q is on several ports or tunnel servers; use the ID", cmd.Target)
	case len(chosen) > 0:
		return chosen, nil
	case text == "" || err == nil && n < 1 && kind != "name" || err != nil && (kind == "id" || kind == "port"):
		return nil, usagef("%q is neither the ID, the public port nor the name of an allocation", cmd.Target)
	default:
		return nil, fmt.Errorf("%w: %s", errNoAllocation, cmd.Target)
	}
}

func sameAllocation(a, b types.Allocation) bool { return a.ID == b.ID }

// samePort reports whether two allocations are on one public port, or in one run.
func samePort(a, b types.Allocation) bool {
	run, err := a.RunID.Get()
	if of, ofErr := b.RunID.Get(); err == nil && ofErr == nil && run == of {
		return true
	}
	return a.Port == b.Port && a.ServerID == b.ServerID
}

// chooseRun returns the runs that have the public ports FIRST-LAST, in each protocol. It
// returns none if target is not of this form, or may be a name that is.
func chooseRun(target string, allocations []types.Allocation) ([]types.Allocation, error) {
	first, count, err := parsePorts(strings.TrimPrefix(target, "port:"))
	if err != nil || count == 1 {
		return nil, nil //nolint:nilerr // It may be an ID or a port.
	}
	var chosen []types.Allocation
	for _, o := range allocations {
		if _, err := o.RunID.Get(); err != nil || o.Port != first {
			continue
		}
		run := withRuns([]types.Allocation{o}, allocations)
		if run[0].Port != first || run[len(run)-1].Port != first+count-1 {
			return nil, usagef("%s are a part of the ports that were opened together: %d%s",
				target, run[0].Port, through(run[0].Port, run[len(run)-1].Port-run[0].Port))
		}
		if len(chosen) > 0 && chosen[0].ServerID != o.ServerID {
			return nil, usagef("the ports %s are open on several tunnel servers; use the ID", target)
		}
		chosen = append(chosen, o)
	}
	if len(chosen) == 0 && strings.HasPrefix(target, "port:") {
		return nil, fmt.Errorf("%w: no ports %s were opened together", errNoAllocation, target)
	}
	return chosen, nil
}

// withRuns returns the chosen allocations and the rest of their runs in the same
// protocol, by port.
func withRuns(chosen, allocations []types.Allocation) []types.Allocation {
	all := slices.DeleteFunc(slices.Clone(allocations), func(o types.Allocation) bool {
		run, err := o.RunID.Get()
		return !slices.ContainsFunc(chosen, func(c types.Allocation) bool {
			of, ofErr := c.RunID.Get()
			return c.ID == o.ID || err == nil && ofErr == nil && of == run && c.Protocol == o.Protocol
		})
	})
	slices.SortStableFunc(all, func(a, b types.Allocation) int { return a.Port - b.Port })
	return all
}
